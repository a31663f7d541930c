//! Limits of the OTLP door: bytes per request, requests at once, bytes per second and tenant.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::TenantId;

/// Limits of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Bytes of one request, both as sent and after decompression.
    pub body_bytes: usize,
    /// Requests in work at once, over HTTP and gRPC together.
    pub concurrent_requests: usize,
    /// Bytes per second and tenant after decompression, with a burst of two seconds; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            concurrent_requests: 64,
            bytes_per_second: Some(256 << 20),
            body_timeout: Duration::from_secs(30),
        }
    }
}

/// A token bucket of bytes per tenant.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: Option<u64>,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl RateLimit {
    pub(crate) fn new(per_second: Option<u64>) -> Self {
        Self { per_second, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes `bytes` from the tenant's bucket, or says after how many seconds to come back. A request larger than the
    /// burst passes when the bucket is full.
    pub(crate) fn take(&self, tenant: &TenantId, bytes: usize, now: Instant) -> Result<(), u64> {
        let Some(per_second) = self.per_second.map(|n| n as f64) else { return Ok(()) };
        let burst = per_second * 2.0;
        let wanted = (bytes as f64).min(burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(tenant.clone()).or_insert(Bucket { tokens: burst, at: now });
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * per_second;
        *bucket = Bucket { tokens: (bucket.tokens + earned).min(burst), at: now };
        if bucket.tokens >= wanted {
            bucket.tokens -= wanted;
            return Ok(());
        }
        Err(((wanted - bucket.tokens) / per_second).ceil().max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_gets_its_rate_and_not_another_tenants() {
        let rate = RateLimit::new(Some(100));
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let start = Instant::now();
        assert_eq!(rate.take(&a, 200, start), Ok(()));
        assert_eq!(rate.take(&a, 150, start), Err(2));
        assert_eq!(rate.take(&b, 200, start), Ok(()));
        assert_eq!(rate.take(&a, 150, start + Duration::from_millis(1_500)), Ok(()));
        assert_eq!(rate.take(&a, 1_000_000, start + Duration::from_secs(10)), Ok(()));
    }
}

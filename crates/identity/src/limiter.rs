//! Watches addresses that present wrong credentials. Bounded in memory; a right credential costs no token.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_model::{Clock, Timestamp};

/// Failures an address may make at once.
const BURST: f64 = 20.0;
/// Tokens that come back per second: twenty a minute.
const PER_SECOND: f64 = 20.0 / 60.0;
/// Addresses watched at most; beyond it, new ones share one bucket.
const ADDRESSES: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    fn tokens_at(self, now: Timestamp) -> f64 {
        (self.tokens + now.since(self.at).as_secs_f64() * PER_SECOND).min(BURST)
    }
}

/// Token bucket of failures per address. IPv6 addresses count by their /64.
#[derive(Debug)]
pub(crate) struct FailureLimiter {
    buckets: Mutex<HashMap<Option<IpAddr>, Bucket>>,
    /// Whether anybody failed at all, so that the ordinary case takes no lock.
    watching: AtomicBool,
    clock: Arc<dyn Clock>,
}

fn address(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(|p| match p.ip().to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    })
}

impl FailureLimiter {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { buckets: Mutex::default(), watching: AtomicBool::new(false), clock }
    }

    /// Refuses an address without a token left, with the seconds until the next one.
    pub(crate) fn check(&self, peer: Option<SocketAddr>) -> Result<(), u64> {
        if !self.watching.load(Ordering::Acquire) {
            return Ok(());
        }
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let wanted = address(peer);
        // An address that is not watched while the table is full counts with the shared bucket.
        let bucket = buckets.get(&wanted).or_else(|| buckets.get(&None).filter(|_| buckets.len() >= ADDRESSES));
        match bucket.map(|b| b.tokens_at(now)) {
            Some(tokens) if tokens < 1.0 => Err((((1.0 - tokens) / PER_SECOND).ceil() as u64).max(1)),
            _ => Ok(()),
        }
    }

    /// Notes one failure.
    pub(crate) fn failed(&self, peer: Option<SocketAddr>) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let mut wanted = address(peer);
        if buckets.len() >= ADDRESSES && !buckets.contains_key(&wanted) {
            buckets.retain(|_, b| b.tokens_at(now) < BURST);
            if buckets.len() >= ADDRESSES {
                wanted = None;
            }
        }
        let bucket = buckets.entry(wanted).or_insert(Bucket { tokens: BURST, at: now });
        *bucket = Bucket { tokens: (bucket.tokens_at(now) - 1.0).max(0.0), at: now };
        self.watching.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::ManualClock;
    use std::time::Duration;

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 1234)
    }

    #[test]
    fn twenty_failures_then_wait_and_only_for_that_address() {
        let clock = ManualClock::new(Timestamp::from_seconds(1_000));
        let limiter = FailureLimiter::new(Arc::new(clock.clone()));
        for _ in 0..20 {
            assert_eq!(limiter.check(Some(at("192.0.2.1"))), Ok(()));
            limiter.failed(Some(at("192.0.2.1")));
        }
        assert_eq!(limiter.check(Some(at("192.0.2.1"))), Err(3));
        assert_eq!(limiter.check(Some(at("::ffff:192.0.2.1"))), Err(3), "the same address written as IPv6");
        assert_eq!(limiter.check(Some(at("192.0.2.2"))), Ok(()));
        clock.advance(Duration::from_secs(3));
        assert_eq!(limiter.check(Some(at("192.0.2.1"))), Ok(()));
        limiter.failed(Some(at("192.0.2.1")));
        assert!(limiter.check(Some(at("192.0.2.1"))).is_err());
        clock.advance(Duration::from_mins(1));
        assert_eq!(limiter.check(Some(at("192.0.2.1"))), Ok(()));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let limiter = FailureLimiter::new(Arc::new(ManualClock::new(Timestamp::from_seconds(1))));
        for host in 0..20 {
            limiter.failed(Some(at(&format!("2001:db8::{host}"))));
        }
        assert!(limiter.check(Some(at("2001:db8::ffff"))).is_err());
        assert!(limiter.check(Some(at("2001:db8:0:1::1"))).is_ok());
    }

    #[test]
    fn the_table_stays_bounded_and_strangers_share_a_bucket() {
        let clock = ManualClock::new(Timestamp::from_seconds(1));
        let limiter = FailureLimiter::new(Arc::new(clock.clone()));
        for index in 0..ADDRESSES as u32 + 500 {
            limiter.failed(Some(at(&std::net::Ipv4Addr::from(0x0a00_0000 + index).to_string())));
        }
        assert!(limiter.buckets.lock().unwrap().len() <= ADDRESSES + 1);
        assert!(limiter.check(Some(at("192.0.2.9"))).is_err(), "a flood from many addresses limits newcomers");
        clock.advance(Duration::from_mins(2));
        limiter.failed(Some(at("192.0.2.9")));
        assert!(limiter.buckets.lock().unwrap().len() <= 2, "calm addresses are forgotten");
    }
}

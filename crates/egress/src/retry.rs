//! When to try again, and how long to wait. Guards backends from storms: few tries, jitter, `Retry-After` honoured.
//! Must not sleep itself.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

/// Tries after the first one.
pub(crate) const MAX_RETRIES: u32 = 2;

const BASE: Duration = Duration::from_millis(80);
const LONGEST: Duration = Duration::from_secs(2);

/// Whether an answer says that the backend is out of service for now.
///
/// A 503 in JSON is the backend's own verdict on this request (Prometheus answers a query timeout that way), so it
/// neither is repeated nor counts against the backend, unless it asks for a retry.
pub(crate) fn is_out_of_service(status: StatusCode, headers: &HeaderMap) -> bool {
    match status.as_u16() {
        502 | 504 => true,
        503 => headers.contains_key(header::RETRY_AFTER) || !is_json(headers),
        _ => false,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.to_ascii_lowercase().starts_with("application/json")
}

/// The pause the backend asks for: seconds or an HTTP date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let at = Duration::from_secs(u64::try_from(at.as_second()).ok()?);
    Some(at.saturating_sub(now))
}

/// The pause before retry number `retry` (from 1): full jitter over an exponential bound, never below what the
/// backend asked for. `random` is in 0..1.
pub(crate) fn pause(retry: u32, asked: Option<Duration>, random: f64) -> Duration {
    let bound = BASE.saturating_mul(1 << retry.min(8)).min(LONGEST);
    let jittered = bound.mul_f64(random.clamp(0.0, 1.0)).max(BASE / 4);
    asked.map_or(jittered, |asked| asked.saturating_add(jittered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |value| retry_after(&with(header::RETRY_AFTER, value), now);
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(read("Sun, 06 Nov 1993 08:49:40 GMT"), None, "a weekday that does not fit its date is no date");
        assert_eq!(read("Sat, 06 Nov 1993 08:49:40 GMT"), Some(Duration::ZERO));
        assert_eq!(read("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert!(pause(1, None, 1.0) < pause(2, None, 1.0));
        assert!(pause(40, None, 1.0) <= LONGEST);
        assert!(pause(1, None, 0.0) > Duration::ZERO);
        assert!(pause(1, Some(Duration::from_secs(5)), 0.5) > Duration::from_secs(5));
        assert_eq!(pause(1, Some(Duration::MAX), 0.5), Duration::MAX);
    }

    #[test]
    fn a_503_in_json_is_an_answer() {
        let json = with(header::CONTENT_TYPE, "application/json; charset=utf-8");
        assert!(!is_out_of_service(StatusCode::SERVICE_UNAVAILABLE, &json));
        assert!(is_out_of_service(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new()));
        assert!(is_out_of_service(StatusCode::BAD_GATEWAY, &json));
        assert!(!is_out_of_service(StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new()));
    }
}

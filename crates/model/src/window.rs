//! Time stamps and windows as people write them: `15m`, `now-1h`, RFC 3339. Nonsense is refused with an example.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From seconds since the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch with a fraction.
    pub fn as_seconds_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Earlier by `by`, saturating.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Later by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_timestamp(*self))
    }
}

/// A duration or instant that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not a duration.
    #[error("'{0}' is not a duration; write a number and a unit of s, m, h, d or w, such as 15m or 1h30m")]
    Duration(String),
    /// Not an instant.
    #[error("'{0}' is not a time; write RFC 3339 such as 2026-03-01T10:00:00Z, or now, or now-15m")]
    Instant(String),
    /// The start is not before the end.
    #[error("the window is empty: start {start} is not before end {end}")]
    Empty {
        /// Start as given.
        start: Timestamp,
        /// End as given.
        end: Timestamp,
    },
    /// Longer than any window may be.
    #[error("the window {0} is longer than the limit of 400d; narrow it")]
    TooLong(String),
}

const MAX_WINDOW: Duration = Duration::from_hours(400 * 24);

/// Reads `90s`, `15m`, `1h30m`, `7d`, `2w`. Zero, signs, spaces and unknown units are refused.
pub fn parse_duration(text: &str) -> Result<Duration, WindowError> {
    let bad = || WindowError::Duration(text.chars().take(40).filter(|c| !c.is_control()).collect());
    if text.is_empty() || text.len() > 32 || !text.is_ascii() {
        return Err(bad());
    }
    let mut total: u64 = 0;
    let mut rest = text;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits).and_then(|d| d.parse().ok()).ok_or_else(bad)?;
        let unit = match rest.as_bytes().get(digits) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            Some(b'w') => 604_800,
            _ => return Err(bad()),
        };
        if unit >= last_unit {
            return Err(bad());
        }
        last_unit = unit;
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        rest = &rest[digits + 1..];
    }
    if total == 0 {
        return Err(bad());
    }
    let duration = Duration::from_secs(total);
    if duration > MAX_WINDOW {
        return Err(WindowError::TooLong(text.to_owned()));
    }
    Ok(duration)
}

/// Prints a duration the way [`parse_duration`] reads it, in the largest exact units; below a second in ms.
pub fn format_duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{}ms", duration.as_millis());
    }
    let mut out = String::new();
    for (unit, name) in [(604_800, 'w'), (86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        if seconds >= unit {
            out.push_str(&(seconds / unit).to_string());
            out.push(name);
            seconds %= unit;
        }
    }
    out
}

/// Reads RFC 3339, `now`, `now-15m`, or seconds/milliseconds/nanoseconds since the epoch (10, 13 or 19 digits).
pub fn parse_instant(text: &str, now: Timestamp) -> Result<Timestamp, WindowError> {
    let bad = || WindowError::Instant(text.chars().take(40).filter(|c| !c.is_control()).collect());
    let trimmed = text.trim();
    if trimmed == "now" {
        return Ok(now);
    }
    if let Some(back) = trimmed.strip_prefix("now-") {
        return parse_duration(back).map(|d| now.minus(d)).map_err(|_| bad());
    }
    if trimmed.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = trimmed.parse().map_err(|_| bad())?;
        return match trimmed.len() {
            10 => Ok(Timestamp(number.saturating_mul(1_000_000_000))),
            13 => Ok(Timestamp(number.saturating_mul(1_000_000))),
            19 => Ok(Timestamp(number)),
            _ => Err(bad()),
        };
    }
    let parsed: jiff::Timestamp = trimmed.parse().map_err(|_| bad())?;
    i64::try_from(parsed.as_nanosecond()).map(Timestamp).map_err(|_| bad())
}

/// RFC 3339 in UTC, with as many fractional digits as needed, at most milliseconds.
pub fn format_timestamp(at: Timestamp) -> String {
    let millis = at.0.div_euclid(1_000_000);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(t) if millis % 1000 == 0 => format!("{t:.0}"),
        Ok(t) => format!("{t:.3}"),
        Err(_) => at.0.to_string(),
    }
}

/// A half-open window `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWindow {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant outside.
    pub end: Timestamp,
}

impl TimeWindow {
    /// A checked window.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, WindowError> {
        if start >= end {
            return Err(WindowError::Empty { start, end });
        }
        let window = Self { start, end };
        if window.length() > MAX_WINDOW {
            return Err(WindowError::TooLong(format_duration(window.length())));
        }
        Ok(window)
    }

    /// The last `length` before `end`.
    pub fn ending_at(end: Timestamp, length: Duration) -> Result<Self, WindowError> {
        Self::new(end.minus(length), end)
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.end.since(self.start)
    }

    /// The window of the same length just before.
    #[must_use]
    pub fn previous(&self) -> Self {
        self.shifted_back(self.length())
    }

    /// The same window, earlier by `by`.
    #[must_use]
    pub fn shifted_back(&self, by: Duration) -> Self {
        Self { start: self.start.minus(by), end: self.end.minus(by) }
    }

    /// Whether `at` is inside.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_people_write() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("1h30m", 5_400), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds, "{text}");
            assert_eq!(parse_duration(&format_duration(Duration::from_secs(seconds))).unwrap().as_secs(), seconds);
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "banana", "0s", "-5m", "5", "m", "5 m", "5M", "1m1h", "99999999999999999999d", "401d", "1h1h", "５m"] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert!(error.contains("15m") || error.contains("400d"), "{error}");
        }
    }

    #[test]
    fn instants() {
        let now = Timestamp::from_seconds(1_772_359_200);
        assert_eq!(parse_instant("now-15m", now).unwrap(), now.minus(Duration::from_mins(15)));
        assert_eq!(parse_instant("2026-03-01T10:00:00Z", now).unwrap(), now);
        assert_eq!(parse_instant("2026-03-01T11:00:00+01:00", now).unwrap(), now);
        assert_eq!(parse_instant("1772359200", now).unwrap(), now);
        assert_eq!(parse_instant("1772359200000", now).unwrap(), now);
        assert_eq!(format_timestamp(now), "2026-03-01T10:00:00Z");
        for text in ["yesterday", "now+5m", "2026-13-01T00:00:00Z", "12", "now-", "9999999999999999999999"] {
            assert!(parse_instant(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn empty_windows_are_refused() {
        let now = Timestamp::from_seconds(100);
        assert!(TimeWindow::new(now, now).is_err());
    }
}

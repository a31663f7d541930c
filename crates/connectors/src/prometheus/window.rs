//! Windows, steps and rate windows. Guards the look-back of a scope and the arithmetic that keeps short peaks visible.
//! Pure.

use std::time::Duration;

use portcullis_model::{Fault, FaultCode, Scope, TimeWindow, Timestamp, format_duration};

/// Steps that people read easily, in seconds.
const NICE: [u64; 19] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400];
/// More points than this are never asked for (Prometheus refuses more than 11,000).
const MAX_POINTS: u64 = 10_000;
const DEFAULT_POINTS: u64 = 240;
/// A rate needs two samples; four intervals survive one missed scrape and the edges of the window.
const INTERVALS_PER_RATE: u32 = 4;

/// A window within the scope, and what to say about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clamped {
    pub(crate) window: TimeWindow,
    /// Oldest instant that may be read.
    pub(crate) earliest: Option<Timestamp>,
    pub(crate) note: Option<String>,
}

/// Cuts a window to what the scope lets the caller see; a window wholly outside is refused.
pub(crate) fn clamp(window: TimeWindow, scope: &Scope, now: Timestamp) -> Result<Clamped, Fault> {
    let Some(look_back) = scope.look_back else { return Ok(Clamped { window, earliest: None, note: None }) };
    let earliest = now.minus(look_back);
    if window.end <= earliest {
        let message =
            format!("this credential may look back {} only, and the window ends before that", format_duration(look_back));
        return Err(Fault::new(FaultCode::Forbidden, message));
    }
    let start = window.start.max(earliest);
    let note = (start > window.start).then(|| {
        format!(
            "the window begins at {start} instead of {}: this credential may look back {} only",
            window.start,
            format_duration(look_back)
        )
    });
    Ok(Clamped { window: TimeWindow { start, end: window.end }, earliest: Some(earliest), note })
}

/// The step of a question: the asked one, coarsened only when it would make too many points.
pub(crate) fn step(window: TimeWindow, asked: Option<Duration>) -> Duration {
    let length = window.length();
    let least = Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX).div_ceil(MAX_POINTS).max(1));
    if let Some(asked) = asked {
        return asked.max(least).max(Duration::from_millis(100));
    }
    let wanted = length.as_secs().div_ceil(DEFAULT_POINTS);
    let nice = NICE.into_iter().find(|nice| *nice >= wanted).unwrap_or_else(|| wanted.div_ceil(86_400) * 86_400);
    Duration::from_secs(nice)
}

/// The evaluation times of a half-open window: multiples of the step (so that the same question has the same points),
/// the last one before the end. A window shorter than its step is evaluated once, just before its end.
pub(crate) fn evaluations(window: TimeWindow, step: Duration) -> TimeWindow {
    let step = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1);
    let first = window.start.as_nanos().div_euclid(step).saturating_add(i64::from(window.start.as_nanos().rem_euclid(step) > 0));
    let last = window.end.as_nanos().saturating_sub(1).div_euclid(step);
    if first > last {
        let only = window.end.minus(Duration::from_millis(1)).max(window.start);
        return TimeWindow { start: only, end: only };
    }
    TimeWindow { start: Timestamp::from_nanos(first.saturating_mul(step)), end: Timestamp::from_nanos(last.saturating_mul(step)) }
}

/// How much a rate looks back: at least four scrape intervals, and never less than the step plus one interval, so that
/// no increase falls between two points.
pub(crate) fn rate_window(interval: Duration, step: Duration) -> Duration {
    let window = (interval * INTERVALS_PER_RATE).max(step + interval);
    Duration::from_secs(window.as_secs() + u64::from(window.subsec_nanos() > 0)).max(Duration::from_secs(1))
}

/// Reads a Prometheus duration such as `15s`, `1m30s` or `500ms`.
pub(crate) fn parse_interval(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let length = match &rest[..unit] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            _ => return None,
        };
        rest = &rest[unit..];
        total = total.checked_add(length.checked_mul(number)?)?;
    }
    (!total.is_zero() && total <= Duration::from_hours(24)).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::TenantId;
    use proptest::prelude::*;

    fn window(start: i64, end: i64) -> TimeWindow {
        TimeWindow::new(Timestamp::from_seconds(start), Timestamp::from_seconds(end)).unwrap()
    }

    #[test]
    fn steps_give_a_readable_number_of_points() {
        for (minutes, expected) in [(1, 1), (15, 5), (60, 15), (360, 120), (1_440, 600), (10_080, 3_600)] {
            assert_eq!(step(window(0, minutes * 60), None).as_secs(), expected, "{minutes} minutes");
        }
        assert_eq!(step(window(0, 86_400), Some(Duration::from_secs(1))), Duration::from_millis(8_640), "at most 10,000 points");
        assert_eq!(step(window(0, 3_600), Some(Duration::from_secs(30))).as_secs(), 30);
    }

    #[test]
    fn rates_look_back_far_enough() {
        let seconds = Duration::from_secs;
        assert_eq!(rate_window(seconds(15), seconds(15)), seconds(60));
        assert_eq!(rate_window(seconds(15), seconds(600)), seconds(615));
        assert_eq!(rate_window(Duration::from_millis(500), seconds(1)), seconds(2));
        assert_eq!(rate_window(Duration::from_millis(300), Duration::from_millis(100)), seconds(2));
    }

    #[test]
    fn look_back_cuts_and_says_so() {
        let now = Timestamp::from_seconds(10_000);
        let mut scope = Scope::tenant_wide(TenantId::default_tenant());
        assert_eq!(clamp(window(0, 10_000), &scope, now).unwrap().note, None);
        scope.look_back = Some(Duration::from_hours(1));
        let cut = clamp(window(0, 10_000), &scope, now).unwrap();
        assert_eq!(cut.window, window(6_400, 10_000));
        assert!(cut.note.unwrap().contains("1h only"));
        assert_eq!(clamp(window(7_000, 10_000), &scope, now).unwrap().note, None);
        assert_eq!(clamp(window(0, 6_400), &scope, now).unwrap_err().code(), FaultCode::Forbidden);
    }

    #[test]
    fn intervals() {
        for (text, millis) in [("15s", 15_000), ("1m30s", 90_000), ("500ms", 500), ("1m", 60_000), ("1h0m0s", 3_600_000)] {
            assert_eq!(parse_interval(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "15", "s", "0s", "1y", "-1s", "1.5s", "99999999999s", "1000h", "é"] {
            assert_eq!(parse_interval(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_evaluation_is_inside_the_window(start in 0i64..2_000_000_000, length in 1i64..1_000_000, step_seconds in 1u64..100_000) {
            let window = window(start, start + length);
            let times = evaluations(window, Duration::from_secs(step_seconds));
            prop_assert!(window.contains(times.start) && window.contains(times.end), "{times:?}");
            prop_assert!(times.start <= times.end);
        }
    }
}

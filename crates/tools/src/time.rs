//! Windows as callers write them: `window`, `start`, `end`, `around`, and what the scope allows of them.
//!
//! Guards that a nonsensical time is refused with an example and that a clamped window says so. Must not read a clock itself.

use std::time::Duration;

use portcullis_model::{
    Fault, FaultCode, Scope, TimeWindow, Timestamp, WindowError, format_duration, format_timestamp, parse_duration, parse_instant,
};
use serde::{Deserialize, Serialize};

/// The time arguments of a call.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TimeArguments<'a> {
    pub(crate) window: Option<&'a str>,
    pub(crate) start: Option<&'a str>,
    pub(crate) end: Option<&'a str>,
    /// A moment in the middle of the window.
    pub(crate) around: Option<&'a str>,
}

/// A window as a cursor carries it: `[start, length]` in milliseconds where that is exact, else with a third element in
/// nanoseconds. Cursors are paid for in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<i64>", into = "Vec<i64>")]
pub(crate) struct Packed(pub(crate) TimeWindow);

const MILLISECOND: i64 = 1_000_000;

impl From<Packed> for Vec<i64> {
    fn from(Packed(window): Packed) -> Self {
        let (start, end) = (window.start.as_nanos(), window.end.as_nanos());
        let length = end.saturating_sub(start);
        if start % MILLISECOND == 0 && length % MILLISECOND == 0 {
            vec![start / MILLISECOND, length / MILLISECOND]
        } else {
            vec![start / MILLISECOND, length, start % MILLISECOND]
        }
    }
}

impl TryFrom<Vec<i64>> for Packed {
    type Error = WindowError;

    fn try_from(parts: Vec<i64>) -> Result<Self, WindowError> {
        let (start, length) = match parts.as_slice() {
            [start, length] => (start.saturating_mul(MILLISECOND), length.saturating_mul(MILLISECOND)),
            [start, length, rest] => (start.saturating_mul(MILLISECOND).saturating_add(*rest), *length),
            _ => (0, 0),
        };
        TimeWindow::new(Timestamp::from_nanos(start), Timestamp::from_nanos(start.saturating_add(length))).map(Packed)
    }
}

/// A window and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) window: TimeWindow,
    /// Said in the answer when the scope cut the window.
    pub(crate) note: Option<String>,
}

fn refused(argument: &str, error: &WindowError) -> Fault {
    Fault::invalid(format!("{argument}: {error}"))
}

impl TimeArguments<'_> {
    /// The window asked for, confined to the scope's look-back.
    pub(crate) fn choose(&self, now: Timestamp, default: Duration, scope: &Scope) -> Result<Chosen, Fault> {
        let now = whole(now);
        let window = self.asked_for(now, default)?;
        if window.start >= now {
            return Err(Fault::invalid(format!(
                "the window {} to {} lies in the future; now is {}",
                window.start,
                window.end,
                format_timestamp(now)
            ))
            .with_hint("use start now-1h, or leave start and end out for the latest data"));
        }
        confine(window, now, scope)
    }

    /// The window asked for, whatever anybody may see of it.
    pub(crate) fn asked_for(&self, now: Timestamp, default: Duration) -> Result<TimeWindow, Fault> {
        let length = self.window.map(|text| parse_duration(text).map_err(|e| refused("window", &e))).transpose()?;
        let instant =
            |name: &str, text: Option<&str>| text.map(|text| parse_instant(text, now).map_err(|e| refused(name, &e))).transpose();
        let (start, end) = (instant("start", self.start)?, instant("end", self.end)?);
        let around = instant("around", self.around)?;
        let made = match (around, start, end, length) {
            (Some(_), Some(_), _, _) | (Some(_), _, Some(_), _) => {
                return Err(Fault::invalid("around goes with window only; leave start and end out"));
            }
            (Some(middle), None, None, length) => {
                let half = length.unwrap_or(default) / 2;
                TimeWindow::new(middle.minus(half), middle.plus(half))
            }
            (None, Some(_), Some(_), Some(_)) => {
                return Err(Fault::invalid("window, start and end together contradict each other; give two of them at most"));
            }
            (None, Some(start), Some(end), None) => TimeWindow::new(start, end),
            (None, Some(start), None, Some(length)) => TimeWindow::new(start, start.plus(length)),
            (None, Some(start), None, None) => TimeWindow::new(start, now),
            (None, None, end, length) => TimeWindow::ending_at(end.unwrap_or(now), length.unwrap_or(default)),
        };
        made.map_err(|e| Fault::invalid(e.to_string()))
    }
}

/// The next whole millisecond: windows stay short to write down.
pub(crate) fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_nanos(now.as_nanos().saturating_add(MILLISECOND - 1).div_euclid(MILLISECOND) * MILLISECOND)
}

/// Cuts `window` to the scope's look-back; refuses one that lies wholly before it.
pub(crate) fn confine(window: TimeWindow, now: Timestamp, scope: &Scope) -> Result<Chosen, Fault> {
    let Some(look_back) = scope.look_back else { return Ok(Chosen { window, note: None }) };
    match within_look_back(window, now, scope) {
        Some(kept) if kept == window => Ok(Chosen { window, note: None }),
        Some(kept) => {
            let note = format!("start moved to {}: this credential may look back {}", kept.start, format_duration(look_back));
            Ok(Chosen { window: kept, note: Some(note) })
        }
        None => Err(Fault::new(
            FaultCode::Forbidden,
            format!("the window ends at {}, but this credential may only look back {}", window.end, format_duration(look_back)),
        )
        .with_hint(format!("ask for a window after {}", now.minus(look_back)))),
    }
}

/// The part of `window` the scope allows; `None` when there is none.
pub(crate) fn within_look_back(window: TimeWindow, now: Timestamp, scope: &Scope) -> Option<TimeWindow> {
    let Some(look_back) = scope.look_back else { return Some(window) };
    TimeWindow::new(window.start.max(now.minus(look_back)), window.end).ok()
}

/// `10:00:00` when `window` lies within one UTC day, else the full time stamp.
pub(crate) fn short(at: Timestamp, window: TimeWindow) -> String {
    let full = format_timestamp(at);
    let day = |at: Timestamp| format_timestamp(at).split_once('T').map(|(day, _)| day.to_owned());
    match full.split_once('T') {
        Some((date, time)) if day(window.start).as_deref() == Some(date) && day(window.end).as_deref() == Some(date) => {
            time.trim_end_matches('Z').to_owned()
        }
        _ => full,
    }
}

/// As [`short`], without fractions of a second.
pub(crate) fn brief(at: Timestamp, window: TimeWindow) -> String {
    short(Timestamp::from_seconds(at.as_nanos().div_euclid(1_000_000_000)), window)
}

/// `2026-03-01T10:00:00Z to 10:15:00Z`, as short as it can be without losing the day.
pub(crate) fn describe(window: TimeWindow) -> String {
    let (start, end) = (format_timestamp(window.start), format_timestamp(window.end));
    match (start.split_once('T'), end.split_once('T')) {
        (Some((day, _)), Some((same, time))) if day == same => format!("{start} to {time}"),
        _ => format!("{start} to {end}"),
    }
}

/// A length in words people use: whole units, without the small rest.
pub(crate) fn rough(length: Duration) -> String {
    let seconds = length.as_secs();
    let rounded = match seconds {
        0..3_600 => seconds,
        3_600..172_800 => seconds / 60 * 60,
        _ => seconds / 3_600 * 3_600,
    };
    if seconds == 0 { format_duration(length) } else { format_duration(Duration::from_secs(rounded)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::TenantId;

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_772_359_200)
    }

    fn free() -> Scope {
        Scope::tenant_wide(TenantId::default_tenant())
    }

    fn choose(arguments: TimeArguments<'_>) -> Result<Chosen, Fault> {
        arguments.choose(now(), Duration::from_mins(15), &free())
    }

    #[test]
    fn every_sensible_combination() {
        let minutes = |n: u64| Duration::from_mins(n);
        let at = |back: u64| now().minus(minutes(back));
        let cases = [
            (TimeArguments::default(), at(15), now()),
            (TimeArguments { window: Some("1h"), ..Default::default() }, at(60), now()),
            (TimeArguments { start: Some("now-30m"), ..Default::default() }, at(30), now()),
            (TimeArguments { start: Some("now-30m"), window: Some("10m"), ..Default::default() }, at(30), at(20)),
            (TimeArguments { end: Some("now-30m"), ..Default::default() }, at(45), at(30)),
            (TimeArguments { end: Some("now-30m"), window: Some("10m"), ..Default::default() }, at(40), at(30)),
            (TimeArguments { start: Some("now-30m"), end: Some("now-10m"), ..Default::default() }, at(30), at(10)),
            (TimeArguments { around: Some("now-30m"), window: Some("10m"), ..Default::default() }, at(35), at(25)),
        ];
        for (arguments, start, end) in cases {
            assert_eq!(choose(arguments).unwrap().window, TimeWindow { start, end }, "{arguments:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_would_be_right() {
        let cases = [
            (TimeArguments { window: Some("banana"), ..Default::default() }, "15m"),
            (TimeArguments { window: Some("30"), ..Default::default() }, "15m"),
            (TimeArguments { start: Some("yesterday"), ..Default::default() }, "now-15m"),
            (TimeArguments { end: Some("2026-99-01"), ..Default::default() }, "RFC 3339"),
            (TimeArguments { start: Some("now-1m"), end: Some("now-2m"), ..Default::default() }, "not before"),
            (TimeArguments { start: Some("now"), window: Some("5m"), ..Default::default() }, "future"),
            (TimeArguments { start: Some("now-1m"), end: Some("now"), window: Some("5m"), ..Default::default() }, "two of them"),
            (TimeArguments { around: Some("now-1m"), end: Some("now"), ..Default::default() }, "around"),
        ];
        for (arguments, expected) in cases {
            let fault = choose(arguments).expect_err("refused");
            assert!(fault.message().contains(expected), "{arguments:?}: {}", fault.message());
        }
    }

    #[test]
    fn windows_survive_a_cursor_exactly() {
        for (start, length) in [(1_772_359_200_000_000_000, 900_000_000_000), (1_772_359_200_123_456_789, 7), (-5, 1_000_000_003)]
        {
            let window = TimeWindow::new(Timestamp::from_nanos(start), Timestamp::from_nanos(start + length)).unwrap();
            let text = serde_json::to_string(&Packed(window)).unwrap();
            assert_eq!(serde_json::from_str::<Packed>(&text).unwrap().0, window, "{text}");
        }
        for bad in ["[]", "[1]", "[1,0]", "[1,-5]", "[9223372036854775807,9223372036854775807]", "[1,2,3,4]"] {
            assert!(serde_json::from_str::<Packed>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn look_back_clamps_and_says_so_or_refuses() {
        let mut scope = free();
        scope.look_back = Some(Duration::from_hours(1));
        let two_hours = TimeArguments { window: Some("2h"), ..Default::default() };
        let chosen = two_hours.choose(now(), Duration::from_mins(15), &scope).unwrap();
        assert_eq!(chosen.window.start, now().minus(Duration::from_hours(1)));
        assert!(chosen.note.unwrap().contains("look back 1h"));
        let long_ago = TimeArguments { end: Some("now-3h"), ..Default::default() };
        let fault = long_ago.choose(now(), Duration::from_mins(15), &scope).expect_err("refused");
        assert_eq!(fault.code(), FaultCode::Forbidden);
    }
}

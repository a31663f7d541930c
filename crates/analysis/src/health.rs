//! The health of a service from the signals there are.
//!
//! Guards that a missing or failed signal is `unknown` with its reason and can never make a service healthy: a healthy
//! verdict needs both evidence about failures and evidence about speed. Must not fetch and must not guess baselines.

use serde::{Deserialize, Serialize};

/// How a service or one of its signals is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Looked at, and fine.
    Healthy,
    /// Cannot be said.
    Unknown,
    /// Worse than it should be.
    Degraded,
    /// Failing its callers.
    Critical,
}

impl HealthStatus {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

/// A measured value and what is usual.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Now.
    pub current: f64,
    /// In the baseline window, when it is known.
    pub baseline: Option<f64>,
}

/// The outcome of measuring one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// It was measured.
    Value(Reading),
    /// Nobody emits it, or nothing fell into the window; the reason is client-safe.
    Absent(String),
    /// The source failed; the reason is client-safe.
    Failed(String),
}

impl Measured {
    /// A value with a known baseline.
    pub fn value(current: f64, baseline: Option<f64>) -> Self {
        Self::Value(Reading { current, baseline })
    }
}

/// The signals a verdict stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthSignal {
    /// Failed requests over all requests, 0..1.
    ErrorRatio,
    /// 95th percentile of request durations, seconds.
    LatencyP95,
    /// Requests per second.
    RequestRate,
    /// Use of the scarcest resource of the worst replica, 0..1.
    Saturation,
    /// Log records of severity error and above per second.
    LogErrorRate,
}

impl HealthSignal {
    /// The words in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRatio => "error ratio",
            Self::LatencyP95 => "latency p95",
            Self::RequestRate => "request rate",
            Self::Saturation => "saturation",
            Self::LogErrorRate => "error logs",
        }
    }
}

/// What was measured of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthSignals {
    /// See [`HealthSignal::ErrorRatio`].
    pub error_ratio: Measured,
    /// See [`HealthSignal::LatencyP95`].
    pub latency_p95: Measured,
    /// See [`HealthSignal::RequestRate`].
    pub request_rate: Measured,
    /// See [`HealthSignal::Saturation`].
    pub saturation: Measured,
    /// See [`HealthSignal::LogErrorRate`].
    pub log_error_rate: Measured,
}

/// Limits. Ratios are against the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Error ratio from which a service is degraded, critical.
    pub error_ratio: (f64, f64),
    /// Times the baseline an error ratio must exceed to be news.
    pub error_growth: f64,
    /// Times the baseline latency for degraded, critical.
    pub latency_growth: (f64, f64),
    /// Latency increase below this many seconds never counts.
    pub latency_least_seconds: f64,
    /// Seconds of p95 that are too slow whatever the baseline, when there is such an objective.
    pub latency_objective_seconds: Option<f64>,
    /// Share of the baseline's request rate at or below which a service is degraded, critical.
    pub rate_left: (f64, f64),
    /// Baseline requests per second below which a drop says nothing.
    pub rate_least: f64,
    /// Saturation for degraded, critical.
    pub saturation: (f64, f64),
    /// Times the baseline's error log rate for degraded, critical.
    pub log_growth: (f64, f64),
    /// Error log records per second below which growth says nothing.
    pub log_least: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            error_ratio: (0.01, 0.05),
            error_growth: 1.5,
            latency_growth: (1.5, 3.0),
            latency_least_seconds: 0.01,
            latency_objective_seconds: None,
            rate_left: (0.5, 0.1),
            rate_least: 0.1,
            saturation: (0.85, 0.95),
            log_growth: (3.0, 20.0),
            log_least: 0.02,
        }
    }
}

/// The verdict on one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthPart {
    /// Which signal.
    pub signal: HealthSignal,
    /// How it is.
    pub status: HealthStatus,
    /// Why, in one sentence.
    pub reason: String,
    /// What was measured, if anything.
    pub reading: Option<Reading>,
}

/// The verdict on a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Overall.
    pub status: HealthStatus,
    /// 0 (down) to 100 (fine), over the known signals; absent when the status is unknown.
    pub score: Option<u8>,
    /// One part per signal, worst first.
    pub parts: Vec<HealthPart>,
    /// The sentences that decide, worst first.
    pub reasons: Vec<String>,
}

/// Judges a service.
pub fn assess(signals: &HealthSignals, thresholds: &Thresholds) -> Health {
    let mut parts = vec![
        part(HealthSignal::ErrorRatio, &signals.error_ratio, |r| error_ratio(r, thresholds)),
        part(HealthSignal::LatencyP95, &signals.latency_p95, |r| latency(r, thresholds)),
        part(HealthSignal::RequestRate, &signals.request_rate, |r| request_rate(r, thresholds)),
        part(HealthSignal::Saturation, &signals.saturation, |r| saturation(r, thresholds)),
        part(HealthSignal::LogErrorRate, &signals.log_error_rate, |r| log_errors(r, thresholds)),
    ];
    let status_of = |signal: HealthSignal| parts.iter().find(|p| p.signal == signal).map_or(HealthStatus::Unknown, |p| p.status);
    let fine = |signal: HealthSignal| status_of(signal) == HealthStatus::Healthy;
    let failures_known = fine(HealthSignal::ErrorRatio) || fine(HealthSignal::LogErrorRate);
    let speed_known = fine(HealthSignal::LatencyP95);
    let worst = parts.iter().map(|p| p.status).filter(|s| *s >= HealthStatus::Degraded).max();
    let status = match worst {
        Some(bad) => bad,
        None if failures_known && speed_known => HealthStatus::Healthy,
        None => HealthStatus::Unknown,
    };
    let score = (status != HealthStatus::Unknown).then(|| score(&parts));
    parts.sort_by_key(|p| (std::cmp::Reverse(p.status), p.signal));
    let mut reasons: Vec<String> =
        parts.iter().filter(|p| p.status >= HealthStatus::Degraded).map(|p| p.reason.clone()).collect();
    if status == HealthStatus::Unknown {
        let missing = match (failures_known, speed_known) {
            (false, false) => "nothing is known about failures and latency",
            (false, true) => "nothing is known about failures",
            _ => "nothing is known about latency",
        };
        reasons.push(format!("{missing}, so the service cannot be called healthy"));
    }
    reasons.extend(parts.iter().filter(|p| p.status == HealthStatus::Unknown).map(|p| p.reason.clone()));
    Health { status, score, parts, reasons }
}

fn score(parts: &[HealthPart]) -> u8 {
    let penalty: u32 = parts
        .iter()
        .map(|p| match (p.status, p.signal) {
            (HealthStatus::Critical, HealthSignal::ErrorRatio | HealthSignal::RequestRate) => 60,
            (HealthStatus::Critical, _) => 45,
            (HealthStatus::Degraded, HealthSignal::LogErrorRate | HealthSignal::Saturation) => 15,
            (HealthStatus::Degraded, _) => 25,
            _ => 0,
        })
        .sum();
    u8::try_from(100u32.saturating_sub(penalty)).unwrap_or(0)
}

fn part(signal: HealthSignal, measured: &Measured, judge: impl Fn(&Reading) -> (HealthStatus, String)) -> HealthPart {
    let (status, reason, reading) = match measured {
        Measured::Value(reading) if !reading.current.is_finite() => {
            (HealthStatus::Unknown, "the measured value is not a number".to_owned(), None)
        }
        Measured::Value(reading) => {
            let usable = Reading { baseline: reading.baseline.filter(|b| b.is_finite()), ..*reading };
            let (status, reason) = judge(&usable);
            (status, reason, Some(usable))
        }
        Measured::Absent(reason) => (HealthStatus::Unknown, format!("no data: {reason}"), None),
        Measured::Failed(reason) => (HealthStatus::Unknown, format!("could not be read: {reason}"), None),
    };
    HealthPart { signal, status, reason: format!("{}: {reason}", signal.as_str()), reading }
}

fn percent(ratio: f64) -> String {
    let text = format!("{:.2}", ratio * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn against(baseline: Option<f64>, print: impl Fn(f64) -> String) -> String {
    baseline.map_or_else(|| "no baseline".to_owned(), |b| format!("baseline {}", print(b)))
}

fn error_ratio(reading: &Reading, limits: &Thresholds) -> (HealthStatus, String) {
    let usual = reading.baseline.is_some_and(|b| reading.current < b * limits.error_growth);
    let text = format!("{} of requests fail ({})", percent(reading.current), against(reading.baseline, percent));
    match reading.current {
        now if now >= limits.error_ratio.1 && usual => (HealthStatus::Degraded, format!("{text}, high but as usual")),
        now if now >= limits.error_ratio.1 => (HealthStatus::Critical, text),
        now if now >= limits.error_ratio.0 && !usual => (HealthStatus::Degraded, text),
        _ => (HealthStatus::Healthy, text),
    }
}

fn latency(reading: &Reading, limits: &Thresholds) -> (HealthStatus, String) {
    let print = |seconds: f64| format!("{:.0}ms", seconds * 1000.0);
    let text = format!("{} ({})", print(reading.current), against(reading.baseline, print));
    let too_slow = limits.latency_objective_seconds.is_some_and(|objective| reading.current > objective);
    let Some(baseline) = reading.baseline.filter(|b| *b > 0.0) else {
        return match (too_slow, limits.latency_objective_seconds) {
            (true, _) => (HealthStatus::Degraded, format!("{text}, slower than its objective")),
            (false, Some(_)) => (HealthStatus::Healthy, format!("{text}, within its objective")),
            (false, None) => (HealthStatus::Unknown, format!("{text}, nothing to compare it with")),
        };
    };
    let growth = reading.current / baseline;
    if reading.current - baseline < limits.latency_least_seconds || growth < limits.latency_growth.0 {
        return if too_slow {
            (HealthStatus::Degraded, format!("{text}, slower than its objective"))
        } else {
            (HealthStatus::Healthy, text)
        };
    }
    let status = if growth >= limits.latency_growth.1 { HealthStatus::Critical } else { HealthStatus::Degraded };
    (status, format!("{text}, ×{growth:.1}"))
}

fn request_rate(reading: &Reading, limits: &Thresholds) -> (HealthStatus, String) {
    let print = |rate: f64| format!("{rate:.2}/s");
    let text = format!("{} ({})", print(reading.current), against(reading.baseline, print));
    let Some(baseline) = reading.baseline.filter(|b| *b >= limits.rate_least) else {
        return (HealthStatus::Unknown, format!("{text}, too little traffic in the baseline to notice a drop"));
    };
    let left = reading.current / baseline;
    match left {
        l if l <= limits.rate_left.1 => (HealthStatus::Critical, format!("{text}, traffic is gone")),
        l if l <= limits.rate_left.0 => (HealthStatus::Degraded, format!("{text}, traffic dropped")),
        _ => (HealthStatus::Healthy, text),
    }
}

fn saturation(reading: &Reading, limits: &Thresholds) -> (HealthStatus, String) {
    let text = format!("{} used at the worst replica ({})", percent(reading.current), against(reading.baseline, percent));
    match reading.current {
        now if now >= limits.saturation.1 => (HealthStatus::Critical, text),
        now if now >= limits.saturation.0 => (HealthStatus::Degraded, text),
        _ => (HealthStatus::Healthy, text),
    }
}

fn log_errors(reading: &Reading, limits: &Thresholds) -> (HealthStatus, String) {
    let print = |rate: f64| format!("{rate:.2}/s");
    let text = format!("{} ({})", print(reading.current), against(reading.baseline, print));
    if reading.current < limits.log_least {
        return (HealthStatus::Healthy, text);
    }
    let Some(baseline) = reading.baseline else {
        return (HealthStatus::Unknown, format!("{text}, nothing to compare it with"));
    };
    let growth = reading.current / baseline.max(limits.log_least);
    match growth {
        g if g >= limits.log_growth.1 => (HealthStatus::Critical, format!("{text}, ×{g:.0}")),
        g if g >= limits.log_growth.0 => (HealthStatus::Degraded, format!("{text}, ×{g:.1}")),
        _ => (HealthStatus::Healthy, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> HealthSignals {
        HealthSignals {
            error_ratio: Measured::value(0.001, Some(0.001)),
            latency_p95: Measured::value(0.2, Some(0.19)),
            request_rate: Measured::value(10.0, Some(11.0)),
            saturation: Measured::value(0.4, None),
            log_error_rate: Measured::value(0.0, Some(0.0)),
        }
    }

    fn status(signals: &HealthSignals) -> HealthStatus {
        assess(signals, &Thresholds::default()).status
    }

    #[test]
    fn all_signals_fine_is_healthy_with_full_score() {
        let health = assess(&fine(), &Thresholds::default());
        assert_eq!((health.status, health.score, health.reasons.len()), (HealthStatus::Healthy, Some(100), 0));
    }

    #[test]
    fn missing_or_failed_signals_never_make_healthy() {
        let absent = || Measured::Absent("no spans in this window".into());
        let nothing = HealthSignals {
            error_ratio: absent(),
            latency_p95: absent(),
            request_rate: absent(),
            saturation: absent(),
            log_error_rate: Measured::Failed("the log source timed out".into()),
        };
        let health = assess(&nothing, &Thresholds::default());
        assert_eq!((health.status, health.score), (HealthStatus::Unknown, None));
        assert!(health.reasons.iter().any(|r| r == "error logs: could not be read: the log source timed out"), "{health:?}");
        assert_eq!(status(&HealthSignals { latency_p95: absent(), ..fine() }), HealthStatus::Unknown);
        let no_failures = HealthSignals { error_ratio: absent(), log_error_rate: absent(), ..fine() };
        assert_eq!(status(&no_failures), HealthStatus::Unknown);
        assert_eq!(status(&HealthSignals { error_ratio: absent(), ..fine() }), HealthStatus::Healthy);
        assert_eq!(status(&HealthSignals { latency_p95: Measured::value(f64::NAN, Some(0.1)), ..fine() }), HealthStatus::Unknown);
        assert_eq!(status(&HealthSignals { latency_p95: Measured::value(0.2, None), ..fine() }), HealthStatus::Unknown);
    }

    #[test]
    fn a_bad_signal_counts_even_when_others_are_missing() {
        let only_errors = HealthSignals {
            error_ratio: Measured::value(0.2, Some(0.001)),
            latency_p95: Measured::Failed("timeout".into()),
            ..fine()
        };
        let health = assess(&only_errors, &Thresholds::default());
        assert_eq!(health.status, HealthStatus::Critical);
        assert!(health.reasons[0].starts_with("error ratio: 20% of requests fail (baseline 0.1%)"), "{:?}", health.reasons);
    }

    #[test]
    fn every_signal_can_degrade_a_service() {
        use HealthStatus::{Critical, Degraded, Healthy};
        let cases = [
            (HealthSignals { error_ratio: Measured::value(0.02, Some(0.001)), ..fine() }, Degraded),
            (HealthSignals { error_ratio: Measured::value(0.02, Some(0.019)), ..fine() }, Healthy),
            (HealthSignals { error_ratio: Measured::value(0.08, Some(0.08)), ..fine() }, Degraded),
            (HealthSignals { latency_p95: Measured::value(0.4, Some(0.2)), ..fine() }, Degraded),
            (HealthSignals { latency_p95: Measured::value(2.0, Some(0.2)), ..fine() }, Critical),
            (HealthSignals { latency_p95: Measured::value(0.006, Some(0.002)), ..fine() }, Healthy),
            (HealthSignals { request_rate: Measured::value(0.0, Some(11.0)), ..fine() }, Critical),
            (HealthSignals { request_rate: Measured::value(4.0, Some(11.0)), ..fine() }, Degraded),
            (HealthSignals { saturation: Measured::value(0.97, None), ..fine() }, Critical),
            (HealthSignals { log_error_rate: Measured::value(0.5, Some(0.1)), ..fine() }, Degraded),
            (HealthSignals { log_error_rate: Measured::value(5.0, Some(0.0)), ..fine() }, Critical),
        ];
        for (signals, expected) in cases {
            assert_eq!(status(&signals), expected, "{signals:?}");
        }
        let strict = Thresholds { latency_objective_seconds: Some(0.1), ..Thresholds::default() };
        assert_eq!(assess(&fine(), &strict).status, Degraded);
    }
}

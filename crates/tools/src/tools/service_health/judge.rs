//! From what was read to a verdict per service: departures from normal with their onset, then health, then suspects.
//!
//! Guards that a signal that was not read is unknown, never fine, and that "before" really lies before the trouble: when it
//! began inside the baseline, the baseline ends there. Must not fetch or print.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis_analysis::{
    CallProfile, DetectOptions, Direction, Finding, FindingKind, Health, HealthSignals, HealthStatus, Measured, MetricClass,
    Ranking, SuspectOptions, Tally, Thresholds, Traced, Verdict, assess, chance, change_point, detect, rank_suspects,
};
use portcullis_model::{Sample, Signal, Timestamp};
use portcullis_shape::Unit;
use portcullis_shape::number::format as print;

use super::frame::Frame;
use super::gather::{Gathered, MetricRed, State, Worst};
use super::red::Red;
use super::sample::TraceSample;

/// Robust standard deviations a split must show when there is no usable baseline, and when the baseline may be polluted.
const SPLIT_THRESHOLD: f64 = 5.0;
const POLLUTED_THRESHOLD: f64 = 7.0;
/// Severity of a finding from which its onset counts as the beginning of trouble.
const TELLING: f64 = 0.5;

/// A service and what is to be said about it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) service: Arc<str>,
    pub(super) health: Health,
    pub(super) findings: Vec<Finding>,
    pub(super) readings: Readings,
    /// The replica or pool behind the saturation.
    pub(super) scarce: String,
}

/// The figures of a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Readings {
    pub(super) rate: Option<f64>,
    pub(super) errors: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) saturation: Option<f64>,
    pub(super) error_logs: Option<f64>,
}

impl Judged {
    /// Earliest onset of its own trouble.
    pub(super) fn onset(&self) -> Option<Timestamp> {
        self.findings.iter().filter_map(|finding| finding.onset).min()
    }

    /// Whether something is wrong with it.
    pub(super) fn is_bad(&self) -> bool {
        self.health.status >= HealthStatus::Degraded
    }
}

/// Everything that is known after judging.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// Worst first.
    pub(super) services: Vec<Judged>,
    /// When the trouble began, if there is any.
    pub(super) onset: Option<Timestamp>,
    /// When the data begins, where that is after the beginning of what was asked for.
    pub(super) data_from: Option<Timestamp>,
}

/// A departure from normal.
struct Departure {
    onset: Timestamp,
    severity: f64,
    before: f64,
    after: f64,
    /// When it was back to normal, if it is.
    until: Option<Timestamp>,
}

/// Whether a step from `before` to `after` is in a direction and of a size that counts.
fn matters(before: f64, after: f64, options: &DetectOptions) -> bool {
    let change = after - before;
    let direction = match options.direction {
        Direction::Up => change > 0.0,
        Direction::Down => change < 0.0,
        Direction::Both => change != 0.0,
    };
    direction && change.abs() >= options.least_absolute.max(options.least_share * before.abs())
}

/// Looks for a departure in a series over baseline and window.
fn departure(samples: &[Sample], frame: &Frame, options: &DetectOptions) -> Option<Departure> {
    let split = samples.partition_point(|sample| sample.at < frame.window.start);
    let (baseline, current) = samples.split_at(split);
    let step = |threshold: f64| {
        let found = change_point(samples, threshold).filter(|c| matters(c.before, c.after, options))?;
        let severity = 1.0 - (-found.z / 8.0).exp();
        Some(Departure { onset: found.at, severity, before: found.before, after: found.after, until: None })
    };
    match detect(current, baseline, options) {
        Verdict::Anomalous(anomaly) => {
            let mut found = Departure {
                onset: anomaly.onset,
                severity: anomaly.confidence,
                before: anomaly.baseline.median,
                after: anomaly.level,
                until: anomaly.until,
            };
            // Already there when the window began: look for the beginning before it.
            let at_the_edge = anomaly.onset <= frame.window.start.plus(frame.bin);
            if at_the_edge
                && frame.is_contiguous()
                && let Some(earlier) = step(SPLIT_THRESHOLD).filter(|s| s.onset < found.onset)
            {
                found.onset = earlier.onset;
            }
            Some(found)
        }
        Verdict::Normal { .. } if frame.is_contiguous() => step(POLLUTED_THRESHOLD).filter(|s| lasts(current, s)),
        Verdict::Normal { .. } => None,
        Verdict::InsufficientData { .. } => step(SPLIT_THRESHOLD).filter(|s| lasts(current, s)),
    }
}

/// What the counts behind a departure say: nothing when chance explains them, else when it began. Ratios of few requests
/// leap at a single failure, counts do not.
fn carried_by_counts(mut found: Departure, bins: &[(Timestamp, Tally)]) -> Option<Departure> {
    let end = found.until.map_or(bins.len(), |until| bins.partition_point(|(at, _)| *at < until));
    let earlier = bins.partition_point(|(at, _)| *at < found.onset);
    let rate_before = chance::sum(bins[..earlier].iter().map(|(_, tally)| *tally)).rate();
    let usual = rate_before.unwrap_or(0.0).max(found.before);
    found.onset = chance::beginning(&bins[..end], usual, found.after)?;
    Some(found)
}

/// Whether the last samples are still nearer to the new level.
fn lasts(current: &[Sample], found: &Departure) -> bool {
    let last = &current[current.len() - current.len().min(5)..];
    let nearer = last.iter().filter(|s| (s.value - found.after).abs() < (s.value - found.before).abs()).count();
    !last.is_empty() && nearer * 2 > last.len()
}

fn options(class: MetricClass) -> DetectOptions {
    let base = DetectOptions::for_class(class);
    match class {
        MetricClass::Latency => DetectOptions { least_share: 0.4, least_absolute: 0.01, ..base },
        MetricClass::ErrorRate => DetectOptions { least_absolute: 0.02, ..base },
        MetricClass::Traffic => DetectOptions { direction: Direction::Down, least_share: 0.5, least_absolute: 0.1, ..base },
        _ => base,
    }
}

/// The series of one service, from spans or, without them, from metrics.
struct Signals<'a> {
    red: Option<&'a Red>,
    metric: Option<&'a MetricRed>,
    logs: Option<&'a Vec<u64>>,
    worst: Option<&'a Worst>,
}

impl Signals<'_> {
    fn latency(&self, frame: &Frame) -> Vec<Sample> {
        self.red.map_or_else(|| self.metric.map(|m| m.latency.clone()).unwrap_or_default(), |red| red.latency_samples(frame))
    }

    fn errors(&self, frame: &Frame) -> Vec<Sample> {
        self.red.map_or_else(|| self.metric.map(|m| m.errors.clone()).unwrap_or_default(), |red| red.error_samples(frame))
    }

    fn rate(&self, frame: &Frame) -> Vec<Sample> {
        self.red.map_or_else(|| self.metric.map(|m| m.rate.clone()).unwrap_or_default(), |red| red.rate_samples(frame))
    }

    /// Error logs per second from the first bin in which anything is known.
    fn logs(&self, frame: &Frame, first: usize) -> Vec<Sample> {
        let seconds = frame.bin.as_secs_f64();
        let sample = |(index, count): (usize, &u64)| Sample { at: frame.start(index), value: *count as f64 / seconds };
        self.logs.map(|bins| bins.iter().enumerate().skip(first).map(sample).collect()).unwrap_or_default()
    }

    /// The counts behind a series, where there are any.
    fn counts(&self, kind: FindingKind, frame: &Frame, first: usize) -> Option<Vec<(Timestamp, Tally)>> {
        let exposure = frame.bin.as_secs_f64();
        let logged = |(index, events): (usize, &u64)| (frame.start(index), Tally { events: *events, exposure });
        match kind {
            FindingKind::Errors => self.red.map(|red| red.error_tallies(frame)),
            FindingKind::Logs => self.logs.map(|bins| bins.iter().enumerate().skip(first).map(logged).collect()),
            _ => None,
        }
    }
}

/// The first bin with anything in it: before it, no error is no news.
fn first_data(gathered: &Gathered) -> usize {
    let spans = gathered.traced.value.red.0.values().filter_map(Red::first_seen).min();
    let logs = gathered.log_errors.value.values().filter_map(|bins| bins.iter().position(|count| *count > 0)).min();
    match (spans, logs) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b).unwrap_or(0),
    }
}

fn findings(service: &Arc<str>, signals: &Signals<'_>, frame: &Frame, first: usize) -> Vec<Finding> {
    let worst = signals.worst.map(|worst| worst.samples.clone()).unwrap_or_default();
    let series = [
        (FindingKind::Errors, MetricClass::ErrorRatio, Unit::Ratio, "failed requests", signals.errors(frame)),
        (FindingKind::Latency, MetricClass::Latency, Unit::Seconds, "latency p95", signals.latency(frame)),
        (FindingKind::Saturation, MetricClass::Saturation, Unit::Ratio, "saturation", worst),
        (FindingKind::Logs, MetricClass::ErrorRate, Unit::PerSecond, "error logs", signals.logs(frame, first)),
        (FindingKind::Traffic, MetricClass::Traffic, Unit::PerSecond, "requests", signals.rate(frame)),
    ];
    let found = |(kind, class, unit, what, samples): (FindingKind, MetricClass, Unit, &str, Vec<Sample>)| {
        let departure = departure(&samples, frame, &options(class))?;
        let departure = match signals.counts(kind, frame, first) {
            Some(bins) => carried_by_counts(departure, &bins)?,
            None => departure,
        };
        let over = if departure.until.is_some() { ", over again" } else { "" };
        let scarce = signals.worst.map_or("", |worst| worst.which.as_str());
        let scarce = if kind == FindingKind::Saturation && !scarce.is_empty() { format!(" ({scarce})") } else { String::new() };
        let since = crate::time::short(departure.onset, frame.window);
        let detail = format!(
            "{what}{scarce} {}, was {}, since {since}{over}",
            print(departure.after, unit, 3),
            print(departure.before, unit, 3)
        );
        // What is over counts less, and so does what only echoes others.
        let weight = if departure.until.is_some() { 0.5 } else { 1.0 };
        Some(Finding {
            service: service.clone(),
            kind,
            onset: Some(departure.onset),
            severity: departure.severity * weight,
            detail,
        })
    };
    series.into_iter().filter_map(found).collect()
}

/// The bins of "before" and of "now".
#[derive(Debug, Clone)]
struct Sides {
    before: std::ops::Range<usize>,
    now: std::ops::Range<usize>,
}

fn sides(frame: &Frame, onset: Option<Timestamp>, first: usize) -> Sides {
    let begins = onset.and_then(|onset| frame.index(onset)).unwrap_or(frame.bins());
    let end = if first >= frame.first_of_window() { begins } else { begins.min(frame.first_of_window()) };
    Sides { before: first.min(end)..end, now: frame.first_of_now()..frame.bins() }
}

fn unread(state: &State, absent: &str) -> Measured {
    match state {
        State::Failed(reason) => Measured::Failed(reason.clone()),
        State::NoSource => Measured::Absent("no source has it".to_owned()),
        State::Read => Measured::Absent(absent.to_owned()),
    }
}

fn mean(samples: &[Sample], frame: &Frame, range: &std::ops::Range<usize>) -> Option<f64> {
    let inside: Vec<f64> =
        samples.iter().filter(|s| frame.index(s.at).is_some_and(|i| range.contains(&i))).map(|s| s.value).collect();
    (!inside.is_empty()).then(|| inside.iter().sum::<f64>() / inside.len() as f64)
}

/// The values of "now"; when nothing is that recent, of the whole window.
fn now_or_window<T>(frame: &Frame, sides: &Sides, value: impl Fn(std::ops::Range<usize>) -> Option<T>) -> Option<T> {
    value(sides.now.clone()).or_else(|| value(frame.first_of_window()..frame.bins()))
}

fn measure(
    signals: &Signals<'_>,
    gathered: &Gathered,
    frame: &Frame,
    sides: &Sides,
    logs_known: bool,
) -> (HealthSignals, Readings) {
    let mut readings = Readings::default();
    let no_requests = "no request in this window";
    let measured = |now: Option<f64>, before: Option<f64>, state: &State, absent: &str| match now {
        Some(now) => Measured::value(now, before),
        None => unread(state, absent),
    };
    let seconds = |range: &std::ops::Range<usize>| frame.bin.as_secs_f64() * range.len().max(1) as f64;
    let (errors, p95, rate) = match (signals.red, signals.metric) {
        (Some(red), _) => {
            let side = |pick: &dyn Fn(std::ops::Range<usize>) -> Option<f64>| {
                (now_or_window(frame, sides, pick), pick(sides.before.clone()))
            };
            let rate =
                |range: std::ops::Range<usize>| (!range.is_empty()).then(|| red.requests(range.clone()) as f64 / seconds(&range));
            let complete = gathered.traced.value.complete;
            let rate = if complete { (rate(sides.now.clone()), rate(sides.before.clone())) } else { (None, None) };
            (side(&|range| red.error_ratio(range)), side(&|range| red.p95(range)), rate)
        }
        (None, Some(metric)) => {
            let side = |samples: &[Sample]| {
                (now_or_window(frame, sides, |range| mean(samples, frame, &range)), mean(samples, frame, &sides.before))
            };
            (side(&metric.errors), side(&metric.latency), side(&metric.rate))
        }
        (None, None) => ((None, None), (None, None), (None, None)),
    };
    let state = if signals.metric.is_some() { &gathered.metric_red.state } else { &gathered.traced.state };
    let incomplete = if gathered.traced.value.complete { no_requests } else { "not every span was read" };
    let worst = |range: std::ops::Range<usize>| signals.worst.and_then(|worst| mean(&worst.samples, frame, &range));
    let saturation = (now_or_window(frame, sides, worst), worst(sides.before.clone()));
    let logs = |range: std::ops::Range<usize>| {
        let counted = signals.logs.map(|bins| bins.get(range.clone()).unwrap_or_default().iter().sum::<u64>());
        let counted = counted.or(logs_known.then_some(0));
        (!range.is_empty()).then_some(counted).flatten().map(|count| count as f64 / seconds(&range))
    };
    let logs = (logs(sides.now.clone()), logs(sides.before.clone()));
    readings.errors = errors.0;
    readings.p95 = p95.0;
    readings.rate = rate.0;
    readings.saturation = saturation.0;
    readings.error_logs = logs.0;
    let signals = HealthSignals {
        error_ratio: measured(errors.0, errors.1, state, no_requests),
        latency_p95: measured(p95.0, p95.1, state, no_requests),
        request_rate: measured(rate.0, rate.1, state, incomplete),
        saturation: measured(saturation.0, saturation.1, &gathered.saturation.state, "it reports none"),
        log_error_rate: measured(logs.0, logs.1, &gathered.log_errors.state, "it writes no logs"),
    };
    (signals, readings)
}

/// Judges every service that was seen.
pub(super) fn judge(gathered: &Gathered, frame: &Frame) -> Verdicts {
    let first = first_data(gathered);
    let traced = &gathered.traced.value.red.0;
    let names: BTreeSet<&Arc<str>> = traced
        .keys()
        .chain(gathered.metric_red.value.keys())
        .chain(gathered.log_errors.value.keys())
        .chain(gathered.saturation.value.keys())
        .chain(gathered.known.value.keys())
        .collect();
    let with_findings: Vec<(&Arc<str>, Signals<'_>, Vec<Finding>)> = names
        .into_iter()
        .map(|service| {
            let signals = Signals {
                red: traced.get(service),
                metric: gathered.metric_red.value.get(service),
                logs: gathered.log_errors.value.get(service),
                worst: gathered.saturation.value.get(service),
            };
            let findings = findings(service, &signals, frame, first);
            (service, signals, findings)
        })
        .collect();
    let telling =
        |finding: &&Finding| finding.severity >= TELLING && !matches!(finding.kind, FindingKind::Traffic | FindingKind::Change);
    let onset = with_findings.iter().flat_map(|(_, _, f)| f).filter(telling).filter_map(|f| f.onset).min();
    let sides = sides(frame, onset, first);
    let mut services: Vec<Judged> = with_findings
        .into_iter()
        .map(|(service, signals, findings)| {
            let logs_known = gathered.log_errors.state == State::Read
                && gathered.known.value.get(service).is_some_and(|signals| signals.contains(&Signal::Logs));
            let (measured, readings) = measure(&signals, gathered, frame, &sides, logs_known);
            let scarce = signals.worst.map(|worst| worst.which.clone()).unwrap_or_default();
            Judged { service: service.clone(), health: assess(&measured, &Thresholds::default()), findings, readings, scarce }
        })
        .collect();
    services.sort_by(|a, b| {
        let rank = |judged: &Judged| (judged.health.status, std::cmp::Reverse(judged.health.score.unwrap_or(100)));
        rank(b).cmp(&rank(a)).then_with(|| a.service.cmp(&b.service))
    });
    let bad = services.iter().any(Judged::is_bad);
    Verdicts { onset: onset.filter(|_| bad), data_from: (first > 1).then(|| frame.start(first)), services }
}

/// What the sampled traces say: who calls whom, and own work now and before.
#[derive(Debug)]
pub(super) enum Calls {
    /// Since the trouble began, and before.
    Learned { now: CallProfile, before: CallProfile },
    /// No spans; why, client-safe.
    Unknown(String),
}

impl Calls {
    /// Splits the sample where the trouble began, so that "before" holds none of it.
    pub(super) fn learn(sample: TraceSample, state: &State, frame: &Frame, onset: Option<Timestamp>) -> Self {
        match state {
            State::NoSource => return Self::Unknown("no source has spans".to_owned()),
            State::Failed(reason) => return Self::Unknown(format!("spans could not be read ({reason})")),
            State::Read if sample.is_empty() => return Self::Unknown("no span was sent in this time".to_owned()),
            State::Read => {}
        }
        let (before, now) = sample.split(onset.unwrap_or(frame.window.start));
        Self::Learned { now: CallProfile::from_spans(&now), before: CallProfile::from_spans(&before) }
    }

    /// Ranks everything with findings.
    pub(super) fn rank(&self, findings: &[Finding], bin: Duration) -> Ranking {
        let traced = match self {
            Self::Learned { now, before } => Traced::Read { now, before: (!before.is_empty()).then_some(before) },
            Self::Unknown(why) => Traced::Unread(why),
        };
        rank_suspects(findings, traced, &SuspectOptions { same_moment: bin * 2 })
    }

    /// Services that `service` calls or is called by, directly or not, with itself.
    pub(super) fn connected(&self, service: &str) -> BTreeSet<Arc<str>> {
        let edges = || match self {
            Self::Learned { now, before } => now.edges.iter().chain(&before.edges),
            Self::Unknown(_) => [].iter().chain(&[]),
        };
        let reach = |forward: bool| {
            let mut seen: BTreeSet<Arc<str>> = BTreeSet::from([Arc::from(service)]);
            let mut queue: Vec<Arc<str>> = vec![Arc::from(service)];
            while let Some(at) = queue.pop() {
                for edge in edges() {
                    let (from, to) = if forward { (&edge.caller, &edge.callee) } else { (&edge.callee, &edge.caller) };
                    if *from == at && seen.insert(to.clone()) {
                        queue.push(to.clone());
                    }
                }
            }
            seen
        };
        reach(true).union(&reach(false)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_departure_made_of_chance_errors_is_none_and_a_real_one_begins_where_it_does() {
        let counted = |events: &dyn Fn(usize) -> u64| -> Vec<(Timestamp, Tally)> {
            let bin = |index: usize| (Timestamp::from_seconds(index as i64 * 60), Tally { events: events(index), exposure: 5.0 });
            (0..150).map(bin).collect()
        };
        let at = |index: usize| Timestamp::from_seconds(index as i64 * 60);
        let early = |until: Option<Timestamp>| Departure { onset: at(120), severity: 0.9, before: 0.0, after: 0.4, until };
        // One failure of five requests, twice: a fifth of the requests in its bin, and nothing at all.
        let chance = counted(&|index| u64::from(index == 121 || index == 126));
        assert!(carried_by_counts(early(None), &chance).is_none());
        assert!(carried_by_counts(early(Some(at(122))), &chance).is_none());
        let real = counted(&|index| if index >= 135 { 2 } else { u64::from(index == 121 || index == 126) });
        assert_eq!(carried_by_counts(early(None), &real).unwrap().onset, at(135));
    }

    #[test]
    fn a_departure_needs_size_and_direction() {
        let window = portcullis_model::TimeWindow::new(Timestamp::from_seconds(36_000), Timestamp::from_seconds(36_900)).unwrap();
        let before = portcullis_model::TimeWindow::new(Timestamp::from_seconds(32_400), Timestamp::from_seconds(36_000)).unwrap();
        let frame = Frame::new(window, Some(before));
        let series = |value: &dyn Fn(usize) -> f64| -> Vec<Sample> {
            (0..frame.bins()).map(|index| Sample { at: frame.start(index), value: value(index) }).collect()
        };
        let latency = options(MetricClass::Latency);
        let wobble = |index: usize| 0.1 + (index % 7) as f64 * 0.001;
        assert!(departure(&series(&wobble), &frame, &latency).is_none());
        let slower = |index: usize| if index >= 130 { 0.5 } else { wobble(index) };
        let found = departure(&series(&slower), &frame, &latency).unwrap();
        assert_eq!(found.onset, frame.start(130));
        let faster = |index: usize| if index >= 130 { 0.01 } else { wobble(index) };
        assert!(departure(&series(&faster), &frame, &latency).is_none());
        // Most of the baseline is already slow: the beginning is found inside it.
        let long_slow = |index: usize| if index >= 40 { 0.5 } else { wobble(index) };
        assert_eq!(departure(&series(&long_slow), &frame, &latency).unwrap().onset, frame.start(40));
        // Too few samples to say anything is nothing found.
        assert!(departure(&series(&slower)[..3], &frame, &latency).is_none());
    }
}

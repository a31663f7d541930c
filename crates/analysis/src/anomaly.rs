//! Whether a series behaves differently from its baseline, since when and by how much.
//!
//! Guards that silence is never taken for health: too few samples give [`Verdict::InsufficientData`], not "normal".
//! Gaps are tolerated, never filled. What the baseline itself did is taken for normal, so an incident inside the
//! baseline hides one like it. Must not fetch baselines: the caller says what normal looked like.

use portcullis_model::{Sample, Timestamp};
use serde::{Deserialize, Serialize};

use crate::statistics::{MAD_TO_SIGMA, deviation, median, quantile, sorted};

/// Which departures from the baseline count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Only above.
    Up,
    /// Only below.
    Down,
    /// Either way.
    Both,
}

/// What a series measures, as far as it matters for judging it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricClass {
    /// Durations: only slower is bad.
    Latency,
    /// Share of failures between 0 and 1: only more is bad.
    ErrorRatio,
    /// Failures or error log lines per second: only more is bad.
    ErrorRate,
    /// Requests per second: both ways.
    Traffic,
    /// Use of a bounded resource between 0 and 1: only more is bad.
    Saturation,
    /// Anything else: both ways.
    Other,
}

/// How to judge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectOptions {
    /// Departures that count.
    pub direction: Direction,
    /// Robust standard deviations a sample must depart by.
    pub threshold: f64,
    /// Departing samples in a row (one back-step allowed) that make an anomaly.
    pub dwell: usize,
    /// Smallest departure that matters, as a share of the baseline's median.
    pub least_share: f64,
    /// Smallest departure that matters, in the series' unit.
    pub least_absolute: f64,
    /// Baseline samples needed.
    pub least_baseline: usize,
}

impl DetectOptions {
    /// What suits a class of metric.
    pub fn for_class(class: MetricClass) -> Self {
        let base = Self {
            direction: Direction::Both,
            threshold: 4.0,
            dwell: 3,
            least_share: 0.2,
            least_absolute: 0.0,
            least_baseline: 12,
        };
        match class {
            MetricClass::Latency => Self { direction: Direction::Up, ..base },
            MetricClass::ErrorRatio => Self { direction: Direction::Up, least_absolute: 0.01, ..base },
            MetricClass::ErrorRate => Self { direction: Direction::Up, least_share: 0.5, ..base },
            MetricClass::Saturation => Self { direction: Direction::Up, least_absolute: 0.05, least_share: 0.1, ..base },
            MetricClass::Traffic => Self { least_share: 0.3, ..base },
            MetricClass::Other => base,
        }
    }
}

/// What normal looked like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Median of the baseline.
    pub median: f64,
    /// Its noise: a robust standard deviation, never below what matters at all.
    pub sigma: f64,
    /// Samples it stands on.
    pub samples: usize,
}

/// How an anomaly looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyShape {
    /// Shorter than the dwell, but far outside.
    Spike,
    /// Left for a new level, or came back after a while.
    LevelShift,
    /// Moved away step by step.
    Ramp,
}

/// A departure from the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// When it began: where the cumulated departure left zero for good.
    pub onset: Timestamp,
    /// First sample back to normal; absent while it lasts.
    pub until: Option<Timestamp>,
    /// Above or below.
    pub direction: Direction,
    /// Farthest sample.
    pub peak: Sample,
    /// Median of the departing samples.
    pub level: f64,
    /// `level` less the baseline's median, in the series' unit.
    pub change: f64,
    /// `change` as a share of the baseline's median; absent when that is zero.
    pub share: Option<f64>,
    /// Robust standard deviations of `change`.
    pub z: f64,
    /// What it is measured against.
    pub baseline: Baseline,
    /// 0..1: grows with departure, duration and size of the baseline. A rank, not a probability.
    pub confidence: f64,
    /// How it looks.
    pub shape: AnomalyShape,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It departs.
    Anomalous(Anomaly),
    /// Looked at `samples` samples; none of them departs for long enough.
    Normal {
        /// What it was measured against.
        baseline: Baseline,
        /// Samples looked at.
        samples: usize,
    },
    /// Nothing can be said.
    InsufficientData {
        /// What is missing.
        reason: String,
        /// Usable samples of the window.
        samples: usize,
        /// Usable samples of the baseline.
        baseline_samples: usize,
    },
}

impl Verdict {
    /// The anomaly, if there is one.
    pub fn anomaly(&self) -> Option<&Anomaly> {
        match self {
            Self::Anomalous(anomaly) => Some(anomaly),
            _ => None,
        }
    }
}

/// Judges `current` against `baseline`, both in time order.
pub fn detect(current: &[Sample], baseline: &[Sample], options: &DetectOptions) -> Verdict {
    let current: Vec<Sample> = current.iter().copied().filter(|s| s.value.is_finite()).collect();
    let baseline: Vec<f64> = baseline.iter().map(|s| s.value).filter(|v| v.is_finite()).collect();
    let dwell = options.dwell.max(1);
    let insufficient =
        |reason: String| Verdict::InsufficientData { reason, samples: current.len(), baseline_samples: baseline.len() };
    if baseline.len() < options.least_baseline.max(2) {
        return insufficient(format!(
            "the baseline has {} samples, {} are needed",
            baseline.len(),
            options.least_baseline.max(2)
        ));
    }
    if current.len() < dwell {
        return insufficient(format!("the window has {} samples, {dwell} are needed", current.len()));
    }
    let Some(normal) = describe_baseline(&baseline, options) else {
        return insufficient("the baseline has no finite samples".to_owned());
    };
    let mut best: Option<Anomaly> = None;
    for direction in directions(options.direction).iter().copied() {
        let sign = if direction == Direction::Up { 1.0 } else { -1.0 };
        let departures: Vec<f64> = current.iter().map(|s| sign * (s.value - normal.median) / normal.sigma).collect();
        let usual: Vec<f64> = baseline.iter().map(|v| sign * (v - normal.median) / normal.sigma).collect();
        let threshold = options.threshold.max(sustained(&usual, dwell) * 1.1);
        let spike = (3.0 * threshold).max(sustained(&usual, 1) * 1.5);
        let found = strongest_run(&departures, threshold, spike, dwell)
            .map(|run| measure(&current, &departures, &run, normal, direction, threshold, dwell));
        if let Some(found) = found
            && best.as_ref().is_none_or(|held| found.z > held.z)
        {
            best = Some(found);
        }
    }
    best.map_or(Verdict::Normal { baseline: normal, samples: current.len() }, Verdict::Anomalous)
}

fn directions(direction: Direction) -> &'static [Direction] {
    match direction {
        Direction::Up => &[Direction::Up],
        Direction::Down => &[Direction::Down],
        Direction::Both => &[Direction::Up, Direction::Down],
    }
}

/// Median and noise. The noise never falls below what would make the smallest departure that matters a departure.
fn describe_baseline(values: &[f64], options: &DetectOptions) -> Option<Baseline> {
    let center = median(values.iter().copied())?;
    let spread = deviation(values.iter().copied(), center)? * MAD_TO_SIGMA;
    let matters = (options.least_share * center.abs()).max(options.least_absolute);
    let smallest = values.iter().map(|v| v.abs()).filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
    let fallback = if smallest.is_finite() { smallest * 1e-3 } else { 1e-9 };
    let sigma = spread.max(matters / options.threshold.max(1.0)).max(fallback);
    Some(Baseline { median: center, sigma, samples: values.len() })
}

/// The largest departure the baseline itself kept up for `dwell` samples, so that its habits are no anomaly.
fn sustained(departures: &[f64], dwell: usize) -> f64 {
    let lowest = departures.windows(dwell).map(|run| run.iter().copied().fold(f64::INFINITY, f64::min));
    lowest.fold(0.0, f64::max)
}

/// Indices of the departing samples of one run.
struct Run {
    first: usize,
    last: usize,
    count: usize,
    weight: f64,
}

/// The run with the largest sum of departures; shorter runs qualify only from `spike` on.
fn strongest_run(departures: &[f64], threshold: f64, spike: f64, dwell: usize) -> Option<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, departure) in departures.iter().enumerate().filter(|(_, z)| **z >= threshold) {
        match runs.last_mut() {
            Some(run) if index - run.last <= 2 => {
                run.last = index;
                run.count += 1;
                run.weight += departure.min(50.0);
            }
            _ => runs.push(Run { first: index, last: index, count: 1, weight: departure.min(50.0) }),
        }
    }
    let qualifies = |run: &Run| run.count >= dwell || departures[run.first..=run.last].iter().any(|z| *z >= spike);
    runs.into_iter().filter(qualifies).max_by(|a, b| a.weight.total_cmp(&b.weight))
}

fn measure(
    current: &[Sample],
    departures: &[f64],
    run: &Run,
    baseline: Baseline,
    direction: Direction,
    threshold: f64,
    dwell: usize,
) -> Anomaly {
    let onset = onset_index(departures, run.first);
    let members = || (run.first..=run.last).filter(|index| departures[*index] >= threshold);
    let level = median(members().map(|index| current[index].value)).unwrap_or(current[run.first].value);
    let farthest = members().max_by(|a, b| departures[*a].total_cmp(&departures[*b])).unwrap_or(run.first);
    let change = level - baseline.median;
    let z = change.abs() / baseline.sigma;
    let shape = match run.count {
        few if few < dwell => AnomalyShape::Spike,
        _ if run.first - onset > dwell => AnomalyShape::Ramp,
        _ => AnomalyShape::LevelShift,
    };
    let far = 1.0 - (-(z / threshold - 0.5).max(0.0)).exp();
    let long = 1.0 - 0.5f64.powf(run.count as f64 / dwell as f64);
    let founded = (baseline.samples as f64 / 30.0).min(1.0).sqrt();
    Anomaly {
        onset: current[onset].at,
        until: current.get(run.last + 2).and_then(|_| current.get(run.last + 1)).map(|s| s.at),
        direction,
        peak: current[farthest],
        level,
        change,
        share: (baseline.median != 0.0).then(|| change / baseline.median.abs()),
        z,
        baseline,
        confidence: (far * long * founded).clamp(0.0, 1.0),
        shape,
    }
}

/// CUSUM with an allowance of half the smallest threshold: the sample after the last moment before `alarm` at which the
/// sum was zero.
fn onset_index(departures: &[f64], alarm: usize) -> usize {
    let mut sum = 0.0f64;
    let mut onset = 0;
    for (index, departure) in departures.iter().enumerate().take(alarm + 1) {
        sum = (sum + departure.clamp(-10.0, 10.0) - 2.0).max(0.0);
        if sum == 0.0 {
            onset = index + 1;
        }
    }
    onset.min(alarm)
}

/// A lasting change of level inside one series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChangePoint {
    /// First sample of the new level.
    pub at: Timestamp,
    /// Median before.
    pub before: f64,
    /// Median after.
    pub after: f64,
    /// Change in robust standard deviations of the noise within both sides.
    pub z: f64,
}

/// The clearest change of level, for series without a baseline; `None` when there are fewer than twelve samples or no split
/// whose two medians lie at least `threshold` robust standard deviations apart.
pub fn change_point(samples: &[Sample], threshold: f64) -> Option<ChangePoint> {
    const EDGE: usize = 3;
    let samples: Vec<Sample> = samples.iter().copied().filter(|s| s.value.is_finite()).collect();
    if samples.len() < 12 {
        return None;
    }
    // Clipping at the 2nd and 98th percentile keeps single spikes from winning the split.
    let order = sorted(samples.iter().map(|s| s.value));
    let (low, high) = (quantile(&order, 0.02)?, quantile(&order, 0.98)?);
    let values: Vec<f64> = samples.iter().map(|s| s.value.clamp(low, high)).collect();
    let total: f64 = values.iter().sum();
    let mut left = 0.0;
    let mut best: Option<(f64, usize)> = None;
    for split in 1..values.len() {
        left += values[split - 1];
        if split < EDGE || values.len() - split < EDGE {
            continue;
        }
        let (n, m) = (split as f64, (values.len() - split) as f64);
        let gain = (left / n - (total - left) / m).powi(2) * n * m / (n + m);
        if best.is_none_or(|(held, _)| gain > held) {
            best = Some((gain, split));
        }
    }
    let (_, split) = best?;
    let before = median(samples[..split].iter().map(|s| s.value))?;
    let after = median(samples[split..].iter().map(|s| s.value))?;
    let residuals = samples.iter().enumerate().map(|(i, s)| (s.value - if i < split { before } else { after }).abs());
    let sigma = (median(residuals)? * MAD_TO_SIGMA).max(1e-3 * before.abs().max(after.abs())).max(f64::MIN_POSITIVE);
    let z = (after - before).abs() / sigma;
    (z >= threshold).then(|| ChangePoint { at: samples[split].at, before, after, z })
}

/// Relative change below which a level is the same.
const LEAST_SHIFT: f64 = 0.1;
/// Last samples that must be at the new level.
const LASTING: usize = 3;

/// A change of level that happened at once and lasts: as [`change_point`], by at least a tenth, with the last samples at the
/// new level, and described better by two levels than by a straight line (sums of absolute residuals), so that a ramp is
/// none.
pub fn level_shift(samples: &[Sample], threshold: f64) -> Option<ChangePoint> {
    let found = change_point(samples, threshold)?;
    let samples: Vec<Sample> = samples.iter().copied().filter(|s| s.value.is_finite()).collect();
    let size = (found.after - found.before).abs();
    let arrived = |s: &&Sample| (s.value - found.after).abs() < (s.value - found.before).abs();
    let last = &samples[samples.len() - LASTING..];
    if size < LEAST_SHIFT * found.before.abs().max(found.after.abs()) || last.iter().filter(arrived).count() * 2 <= LASTING {
        return None;
    }
    let level = |s: &Sample| if s.at < found.at { found.before } else { found.after };
    let levels: f64 = samples.iter().map(|s| (s.value - level(s)).abs()).sum();
    let line: f64 = residuals_of_line(&samples).map(f64::abs).sum();
    (levels < line).then_some(found)
}

/// What the least-squares line over time leaves.
fn residuals_of_line(samples: &[Sample]) -> impl Iterator<Item = f64> {
    let count = samples.len().max(1) as f64;
    let first = samples.first().map(|s| s.at).unwrap_or_default();
    let x = move |s: &Sample| s.at.since(first).as_secs_f64();
    let (mean_x, mean_y) = (samples.iter().map(x).sum::<f64>() / count, samples.iter().map(|s| s.value).sum::<f64>() / count);
    let spread: f64 = samples.iter().map(|s| (x(s) - mean_x).powi(2)).sum();
    let common: f64 = samples.iter().map(|s| (x(s) - mean_x) * (s.value - mean_y)).sum();
    let slope = if spread > 0.0 { common / spread } else { 0.0 };
    samples.iter().map(move |s| s.value - mean_y - slope * (x(s) - mean_x))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(values: impl IntoIterator<Item = f64>) -> Vec<Sample> {
        let at = |index: usize| Timestamp::from_seconds(1_000 + 15 * index as i64);
        values.into_iter().enumerate().map(|(index, value)| Sample { at: at(index), value }).collect()
    }

    /// Repeatable noise between -1 and 1.
    fn noise(index: usize) -> f64 {
        ((index as f64 * 12.9898).sin() * 43_758.545_3).fract()
    }

    fn latency() -> DetectOptions {
        DetectOptions::for_class(MetricClass::Latency)
    }

    #[test]
    fn a_level_shift_has_its_onset_and_size() {
        let baseline = samples((0..60).map(|i| 0.2 + 0.02 * noise(i)));
        let current = samples((0..60).map(|i| if i < 30 { 0.2 } else { 0.9 } + 0.02 * noise(i + 7)));
        let verdict = detect(&current, &baseline, &latency());
        let anomaly = verdict.anomaly().unwrap();
        assert_eq!((anomaly.onset, anomaly.until, anomaly.shape), (current[30].at, None, AnomalyShape::LevelShift));
        assert!((anomaly.change - 0.7).abs() < 0.03 && anomaly.confidence > 0.9, "{anomaly:?}");
    }

    #[test]
    fn a_ramp_begins_before_it_is_noticed_and_an_ended_anomaly_says_so() {
        let baseline = samples((0..60).map(|i| 100.0 + 2.0 * noise(i)));
        let current = samples((0..60).map(|i| 100.0 + 2.0 * noise(i) + (i as f64 - 20.0).max(0.0) * 3.0));
        let anomaly = *detect(&current, &baseline, &latency()).anomaly().unwrap();
        assert!((20..=24).any(|i| current[i].at == anomaly.onset) && anomaly.shape == AnomalyShape::Ramp, "{anomaly:?}");
        let ended = samples((0..60).map(|i| if (20..30).contains(&i) { 300.0 } else { 100.0 }));
        let anomaly = *detect(&ended, &baseline, &latency()).anomaly().unwrap();
        assert_eq!((anomaly.onset, anomaly.until), (ended[20].at, Some(ended[30].at)));
    }

    #[test]
    fn direction_follows_the_class() {
        let baseline = samples((0..60).map(|i| 100.0 + noise(i)));
        let lower = samples((0..20).map(|_| 10.0));
        assert!(detect(&lower, &baseline, &latency()).anomaly().is_none());
        let traffic = DetectOptions::for_class(MetricClass::Traffic);
        assert_eq!(detect(&lower, &baseline, &traffic).anomaly().unwrap().direction, Direction::Down);
    }

    #[test]
    fn habits_of_the_baseline_are_no_anomaly() {
        let seesaw = |shift: usize| {
            samples((0..120).map(move |i| if ((i + shift) / 10).is_multiple_of(4) { 5.0 } else { 1.0 } + 0.05 * noise(i)))
        };
        assert!(matches!(detect(&seesaw(5), &seesaw(0), &latency()), Verdict::Normal { samples: 120, .. }));
    }

    #[test]
    fn errors_from_nothing_count_only_when_they_matter() {
        let options = DetectOptions::for_class(MetricClass::ErrorRatio);
        let zero = samples([0.0; 30]);
        assert!(detect(&samples([0.001; 10]), &zero, &options).anomaly().is_none());
        let anomaly = *detect(&samples([0.0, 0.0, 0.2, 0.25, 0.2, 0.22]), &zero, &options).anomaly().unwrap();
        assert_eq!((anomaly.onset, anomaly.share), (Timestamp::from_seconds(1_030), None));
    }

    #[test]
    fn silence_is_not_health() {
        let some = samples([1.0; 30]);
        for (current, baseline, word) in
            [(&some[..2], &some[..], "window"), (&some[..], &some[..5], "baseline"), (&[], &[], "baseline")]
        {
            let Verdict::InsufficientData { reason, .. } = detect(current, baseline, &latency()) else { panic!("a verdict") };
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn change_points_are_found_without_a_baseline() {
        let shifted = samples((0..80).map(|i| if i < 50 { 10.0 } else { 14.0 } + noise(i)));
        let found = change_point(&shifted, 3.0).unwrap();
        assert_eq!(found.at, shifted[50].at);
        assert!((found.after - found.before - 4.0).abs() < 0.6);
        let mut spike = samples((0..80).map(|i| 10.0 + noise(i)));
        spike[40].value = 500.0;
        assert_eq!(change_point(&spike, 3.0), None);
        assert_eq!(change_point(&spike[..5], 3.0), None);
    }

    #[test]
    fn a_level_shift_is_neither_a_ramp_nor_a_visit() {
        let step = samples((0..60).map(|i| if i < 54 { 0.2 } else { 0.9 } + 0.02 * noise(i)));
        assert_eq!(level_shift(&step, 6.0).unwrap().at, step[54].at);
        let down = samples((0..60).map(|i| if i < 9 { 40.0 } else { 10.0 } + noise(i)));
        assert_eq!(level_shift(&down, 6.0).unwrap().at, down[9].at);
        let ramp = samples((0..60).map(|i| 10.0 + i as f64 + 0.5 * noise(i)));
        assert_eq!(level_shift(&ramp, 1.0), None);
        let visit = samples((0..60).map(|i| if (30..42).contains(&i) { 0.9 } else { 0.2 } + 0.02 * noise(i)));
        assert_eq!(level_shift(&visit, 6.0), None);
        let little = samples((0..60).map(|i| if i < 30 { 100.0 } else { 103.0 } + 0.01 * noise(i)));
        assert_eq!(level_shift(&little, 6.0), None);
        assert_eq!(level_shift(&step[..4], 6.0), None);
    }

    proptest! {
        #[test]
        fn any_series_gets_a_verdict(
            current in prop::collection::vec(any::<f64>(), 0..60),
            baseline in prop::collection::vec(any::<f64>(), 0..60),
        ) {
            for class in [MetricClass::Latency, MetricClass::ErrorRatio, MetricClass::Traffic, MetricClass::Other] {
                let current = samples(current.clone());
                let verdict = detect(&current, &samples(baseline.clone()), &DetectOptions::for_class(class));
                if let Some(anomaly) = verdict.anomaly() {
                    prop_assert!((0.0..=1.0).contains(&anomaly.confidence));
                    prop_assert!(anomaly.onset <= anomaly.peak.at);
                    prop_assert!(current.iter().any(|s| s.at == anomaly.onset));
                }
            }
            let shift = level_shift(&samples(current.clone()), 4.0);
            prop_assert!(shift.is_none_or(|s| change_point(&samples(current), 4.0) == Some(s)));
        }
    }
}

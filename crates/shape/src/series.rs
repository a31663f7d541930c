//! Time series for a model: at most so many buckets, extremes with their times, and a summary.
//!
//! Guards that the largest and smallest sample keep value and time through every reduction, and that a bucket
//! without samples stays a gap. Must not interpolate, fill or average gaps away.

use std::fmt::Write as _;
use std::time::Duration;

use portcullis_model::{Sample, Series, TimeWindow, Timestamp, cut, format_duration, format_timestamp};
use serde::{Deserialize, Serialize};

use crate::number::{self, Unit};
use crate::table::{Rendered, cell_text};

/// Buckets a series is reduced to unless the caller says otherwise.
pub const DEFAULT_BUCKETS: usize = 60;

/// A series reduced to regular buckets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Downsampled {
    /// Start of the first bucket.
    pub start: Timestamp,
    /// Length of a bucket, nanoseconds; at least 1.
    pub step_nanos: u64,
    /// One sample per bucket, in order; `None` where no sample fell into the bucket.
    pub buckets: Vec<Option<Sample>>,
    /// The smallest sample of the window; the earliest of equals.
    pub min: Option<Sample>,
    /// The largest sample of the window; the earliest of equals.
    pub max: Option<Sample>,
    /// Samples that went in.
    pub samples: usize,
}

/// Reduces the samples inside `window` to at most `max_buckets` (at least 1) regular buckets. A sample exactly at the end
/// of the window counts too, because range queries of Prometheus and its relatives include it; others outside do not.
///
/// A bucket shows one of its own samples: the overall maximum if it holds it, else the overall minimum if it holds
/// that, else the sample farthest from the median of the window, so local peaks and dips stay visible. When both extremes
/// share a bucket the bucket shows the maximum; both are always in [`Downsampled::max`] and [`Downsampled::min`].
/// When the samples are already regular and few enough, every sample gets its own bucket. NaN values are skipped.
pub fn downsample(samples: &[Sample], window: TimeWindow, max_buckets: usize) -> Downsampled {
    let inside: Vec<Sample> = samples.iter().copied().filter(|s| inside_or_at_end(window, s.at) && !s.value.is_nan()).collect();
    let (start, step, count) = grid(&inside, window, max_buckets.max(1));
    let min = extreme(&inside, |candidate, best| candidate < best);
    let max = extreme(&inside, |candidate, best| candidate > best);
    let middle = median(inside.iter().map(|s| s.value));
    let mut buckets: Vec<Option<Sample>> = vec![None; count];
    for sample in &inside {
        let offset = u64::try_from(sample.at.as_nanos().saturating_sub(start.as_nanos())).unwrap_or(0);
        let index = usize::try_from(offset / step).unwrap_or(usize::MAX).min(count - 1);
        let Some(bucket) = buckets.get_mut(index) else { continue };
        let rank = |candidate: &Sample| {
            let pinned = if Some(*candidate) == max { 2 } else { u8::from(Some(*candidate) == min) };
            (pinned, (candidate.value - middle).abs())
        };
        let better = bucket.as_ref().is_none_or(|held| {
            let (new, old) = (rank(sample), rank(held));
            new.0 > old.0 || new.0 == old.0 && new.1 > old.1
        });
        if better {
            *bucket = Some(*sample);
        }
    }
    Downsampled { start, step_nanos: step, buckets, min, max, samples: inside.len() }
}

fn inside_or_at_end(window: TimeWindow, at: Timestamp) -> bool {
    window.contains(at) || at == window.end
}

/// Start, step and number of buckets: the samples' own rhythm when it fits, else the window divided evenly.
fn grid(samples: &[Sample], window: TimeWindow, max_buckets: usize) -> (Timestamp, u64, usize) {
    let gaps = samples.windows(2).map(|pair| pair[1].at.as_nanos().saturating_sub(pair[0].at.as_nanos()));
    let rhythm = gaps.filter(|gap| *gap > 0).min().and_then(|gap| u64::try_from(gap).ok());
    if let (Some(step), Some(first), Some(last)) = (rhythm, samples.first(), samples.last()) {
        let span = u64::try_from(last.at.as_nanos().saturating_sub(first.at.as_nanos())).unwrap_or(u64::MAX);
        let on_grid =
            samples.iter().all(|s| u64::try_from(s.at.as_nanos() - first.at.as_nanos()).is_ok_and(|offset| offset % step == 0));
        let count = usize::try_from(span / step).unwrap_or(usize::MAX).saturating_add(1);
        if on_grid && count <= max_buckets {
            return (first.at, step, count);
        }
    }
    let length = u64::try_from(window.length().as_nanos()).unwrap_or(u64::MAX).max(1);
    let mut step = length.div_ceil(max_buckets as u64).max(1);
    if step > 1_000_000_000 {
        let whole = step.div_ceil(1_000_000_000) * 1_000_000_000;
        step = whole;
    }
    let count = usize::try_from(length.div_ceil(step)).unwrap_or(max_buckets).clamp(1, max_buckets);
    (window.start, step, count)
}

fn extreme(samples: &[Sample], better: impl Fn(f64, f64) -> bool) -> Option<Sample> {
    samples.iter().copied().fold(None, |best: Option<Sample>, sample| match best {
        Some(held) if !better(sample.value, held.value) => Some(held),
        _ => Some(sample),
    })
}

/// Median; 0 when there is nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Where a series is heading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "direction")]
pub enum Trend {
    /// The last quarter lies above the first by more than the noise.
    Rising {
        /// Median of the last quarter less the median of the first, in the series' unit.
        by: f64,
        /// The same as a share of the first quarter's median; absent when that is zero.
        share: Option<f64>,
    },
    /// The last quarter lies below the first by more than the noise.
    Falling {
        /// As above; negative.
        by: f64,
        /// As above; negative.
        share: Option<f64>,
    },
    /// It went from one level to another at once and stayed there. Found by whoever looks for change points; summarising
    /// alone never gives it.
    Jumped {
        /// First sample of the new level.
        at: Timestamp,
        /// New level less the old one, in the series' unit.
        by: f64,
        /// The same as a share of the old level; absent when that is zero.
        share: Option<f64>,
    },
    /// No change beyond the noise.
    Stable,
    /// Too few samples (under eight) to say.
    Unknown,
}

/// What a series amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Samples seen.
    pub count: usize,
    /// Earliest sample.
    pub first: Sample,
    /// Latest sample: the current value, as of its time.
    pub last: Sample,
    /// Smallest, earliest of equals.
    pub min: Sample,
    /// Largest, earliest of equals.
    pub max: Sample,
    /// Arithmetic mean over samples.
    pub mean: f64,
    /// 95th percentile over samples (nearest rank); absent under twenty samples.
    pub p95: Option<f64>,
    /// Where it is heading.
    pub trend: Trend,
}

/// Summarises samples in time order; `None` when there is no sample to speak about. NaN values are skipped.
pub fn summarize(samples: &[Sample]) -> Option<Summary> {
    let samples: Vec<Sample> = samples.iter().copied().filter(|s| !s.value.is_nan()).collect();
    let (first, last) = (*samples.first()?, *samples.last()?);
    let mut sorted: Vec<f64> = samples.iter().map(|s| s.value).collect();
    sorted.sort_by(f64::total_cmp);
    let p95 = (sorted.len() >= 20).then(|| sorted[(sorted.len() * 95).div_ceil(100) - 1]);
    Some(Summary {
        count: samples.len(),
        first,
        last,
        min: extreme(&samples, |candidate, best| candidate < best)?,
        max: extreme(&samples, |candidate, best| candidate > best)?,
        mean: samples.iter().map(|s| s.value / samples.len() as f64).sum(),
        p95,
        trend: trend(&samples),
    })
}

/// Compares the medians of the first and last quarter; the noise is the larger of twice the median absolute
/// deviation within the quarters and 2 % of the level.
fn trend(samples: &[Sample]) -> Trend {
    if samples.len() < 8 {
        return Trend::Unknown;
    }
    let quarter = samples.len() / 4;
    let (head, tail) = (&samples[..quarter], &samples[samples.len() - quarter..]);
    let (before, after) = (median(head.iter().map(|s| s.value)), median(tail.iter().map(|s| s.value)));
    let spread = |part: &[Sample], middle: f64| median(part.iter().map(|s| (s.value - middle).abs()));
    let noise = (2.0 * spread(head, before).max(spread(tail, after))).max(0.02 * before.abs().max(after.abs()));
    let by = after - before;
    let share = (before != 0.0).then(|| by / before.abs());
    match by {
        change if change.abs() <= noise || !change.is_finite() => Trend::Stable,
        change if change > 0.0 => Trend::Rising { by, share },
        _ => Trend::Falling { by, share },
    }
}

impl Trend {
    /// `rising +35% (+0.04)`, `jumped at 10:34:15 ×7.5 (+780ms)`, `stable`, `unknown`.
    pub fn describe(&self, unit: Unit, window: TimeWindow) -> String {
        let (word, by, share) = match self {
            Self::Rising { by, share } => ("rising".to_owned(), *by, *share),
            Self::Falling { by, share } => ("falling".to_owned(), *by, *share),
            Self::Jumped { at, by, share } => (format!("jumped at {}", short_time(*at, window)), *by, *share),
            Self::Stable => return "stable".to_owned(),
            Self::Unknown => return "trend unknown (too few samples)".to_owned(),
        };
        let sign = if by > 0.0 { "+" } else { "" };
        match share {
            Some(share) if share.abs() < 10.0 => {
                format!("{word} {sign}{}% ({sign}{})", number::plain(share * 100.0, 2), number::format(by, unit, 3))
            }
            Some(share) => format!("{word} ×{} ({sign}{})", number::plain(1.0 + share, 3), number::format(by, unit, 3)),
            None => format!("{word} {sign}{}", number::format(by, unit, 3)),
        }
    }
}

impl Summary {
    /// One line: current, min and max with times, mean, p95, trend, count. `window` shortens the times shown to what is
    /// needed inside it.
    pub fn describe(&self, unit: Unit, window: TimeWindow) -> String {
        let value = |v: f64| number::format(v, unit, 4);
        let mut line = format!(
            "current {}, min {}@{}, max {}@{}, mean {}",
            value(self.last.value),
            value(self.min.value),
            short_time(self.min.at, window),
            value(self.max.value),
            short_time(self.max.at, window),
            value(self.mean),
        );
        if let Some(p95) = self.p95 {
            let _ = write!(line, ", p95 {}", value(p95));
        }
        let _ = write!(line, ", {}, {} samples", self.trend.describe(unit, window), self.count);
        line
    }
}

/// Time of day when the window lies within one UTC day, else the full time stamp.
pub(crate) fn short_time(at: Timestamp, window: TimeWindow) -> String {
    let full = format_timestamp(at);
    let day = |at: Timestamp| format_timestamp(at).split_once('T').map(|(day, _)| day.to_owned());
    let one_day = day(window.start).is_some() && day(window.start) == day(window.end) && day(at) == day(window.start);
    match full.split_once('T') {
        Some((_, time)) if one_day => time.trim_end_matches('Z').to_owned(),
        _ => full,
    }
}

/// How to print a range answer.
#[derive(Debug, Clone)]
pub struct RangeOptions {
    /// Most buckets per series.
    pub max_buckets: usize,
    /// Most series shown; those with the largest maximum stay.
    pub max_series: usize,
    /// Unit of the values.
    pub unit: Unit,
}

impl Default for RangeOptions {
    fn default() -> Self {
        Self { max_buckets: DEFAULT_BUCKETS, max_series: 20, unit: Unit::None }
    }
}

/// Renders series as text: constant labels and the common grid once, then two lines per series: its own labels with
/// extremes and their times, and the bucket values (`-` is a gap, `v*n` repeats).
///
/// Values on a line are multiplied out by the scale stated in front of them, so that most are whole numbers of three digits.
pub fn render_range(series: &[Series], window: TimeWindow, options: &RangeOptions) -> Rendered {
    let total = series.len();
    if total == 0 {
        return Rendered { text: "(no series)".to_owned(), shown: 0, total: 0, truncated: false };
    }
    let reduced: Vec<Downsampled> = series.iter().map(|s| downsample(&s.samples, window, options.max_buckets)).collect();
    let mut order: Vec<usize> = (0..total).collect();
    let peak = |index: usize| reduced[index].max.map_or(f64::NEG_INFINITY, |s| s.value);
    order.sort_by(|a, b| peak(*b).total_cmp(&peak(*a)));
    order.truncate(options.max_series.max(1));
    let constant = |name: &str, value: &str| total > 1 && series.iter().all(|s| s.labels.get(name).is_some_and(|v| v == value));
    let mut text = String::new();
    let constants: Vec<String> = series[0]
        .labels
        .iter()
        .filter(|(name, value)| constant(name, value))
        .map(|(name, value)| format!("{}={}", cell_text(name), cell_text(&cut::field(name, value))))
        .collect();
    if !constants.is_empty() {
        let _ = writeln!(text, "all: {}", constants.join(", "));
    }
    let shared_grid = reduced.windows(2).all(|pair| pair[0].start == pair[1].start && pair[0].step_nanos == pair[1].step_nanos);
    if shared_grid {
        let _ = writeln!(text, "{}", describe_grid(&reduced[0]));
    }
    for index in &order {
        let labels: Vec<String> = series[*index]
            .labels
            .iter()
            .filter(|(name, value)| !constant(name, value))
            .map(|(name, value)| format!("{}={}", cell_text(name), cell_text(&cut::field(name, value))))
            .collect();
        let name = if labels.is_empty() { "series".to_owned() } else { labels.join(",") };
        let one = &reduced[*index];
        let grid = if shared_grid { String::new() } else { format!("; {}", describe_grid(one)) };
        let _ = writeln!(text, "{name}: {}{grid}", describe_extremes(one, options.unit, window));
        if one.samples > 0 {
            let _ = writeln!(text, "{}", values_line(one, options.unit));
        }
    }
    if order.len() < total {
        let _ = writeln!(text, "({} of {total} series shown, largest maximum first)", order.len());
    }
    text.truncate(text.trim_end().len());
    Rendered { text, shown: order.len(), total, truncated: order.len() < total }
}

fn describe_grid(one: &Downsampled) -> String {
    format!("from {} every {}", format_timestamp(one.start), step_text(one.step_nanos))
}

fn step_text(nanos: u64) -> String {
    if nanos.is_multiple_of(1_000_000_000) { format_duration(Duration::from_nanos(nanos)) } else { number::format_nanos(nanos) }
}

fn describe_extremes(one: &Downsampled, unit: Unit, window: TimeWindow) -> String {
    let (Some(min), Some(max)) = (one.min, one.max) else { return "no samples in the window".to_owned() };
    let shown = |s: Sample| format!("{}@{}", number::format(s.value, unit, 4), short_time(s.at, window));
    format!("max {} min {}", shown(max), shown(min))
}

/// The values of the buckets with one scale for all of them, gaps as `-`, repeats as `v*n`.
pub fn values_line(one: &Downsampled, unit: Unit) -> String {
    let scale = Scale::choose(one, unit);
    let words: Vec<String> = one.buckets.iter().map(|b| b.map_or_else(|| "-".to_owned(), |s| scale.print(s.value))).collect();
    let mut line = scale.heading();
    let mut index = 0;
    while index < words.len() {
        let repeats = words[index..].iter().take_while(|w| **w == words[index]).count();
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&words[index]);
        if repeats > 2 {
            let _ = write!(line, "*{repeats}");
            index += repeats;
        } else {
            index += 1;
        }
    }
    line
}

/// A power of ten (and the unit's own factor) that makes the largest value a whole number of three digits.
struct Scale {
    /// Factor from the series' unit to the printed number.
    factor: f64,
    /// Words in front of the values.
    heading: String,
    /// Whether values print as whole numbers.
    whole: bool,
}

impl Scale {
    fn choose(one: &Downsampled, unit: Unit) -> Self {
        let sizes = || one.buckets.iter().flatten().map(|s| s.value.abs());
        let largest = sizes().filter(|v| v.is_finite()).fold(0.0, f64::max);
        let smallest = sizes().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let (unit_factor, unit_name) = match unit {
            Unit::Bytes => (1.0, "B"),
            Unit::BytesPerSecond => (1.0, "B/s"),
            Unit::Seconds => (1.0, "s"),
            Unit::Ratio => (100.0, "%"),
            Unit::Percent => (1.0, "%"),
            Unit::PerSecond => (1.0, "/s"),
            Unit::Cores => (1.0, "cores"),
            Unit::None => (1.0, ""),
        };
        let all_whole = sizes().all(|v| v.fract() == 0.0) && largest < 1000.0 && unit != Unit::Ratio;
        if largest == 0.0 || all_whole {
            return Self { factor: unit_factor, heading: unit_name.to_owned(), whole: all_whole };
        }
        let exponent = 2 - (largest * unit_factor).log10().floor() as i32;
        let factor = unit_factor * 10f64.powi(exponent);
        // With a wide span of sizes whole numbers would flatten the small values; print digits instead.
        if smallest * factor < 5.0 || exponent.abs() > 15 {
            return Self { factor: unit_factor, heading: unit_name.to_owned(), whole: false };
        }
        let heading = match -exponent {
            0 => unit_name.to_owned(),
            power => format!("×1e{power}{unit_name}"),
        };
        Self { factor, heading, whole: true }
    }

    fn heading(&self) -> String {
        if self.heading.is_empty() { String::new() } else { format!("[{}]", self.heading) }
    }

    fn print(&self, value: f64) -> String {
        if !value.is_finite() {
            return number::plain(value, 3);
        }
        let scaled = value * self.factor;
        if self.whole {
            let rounded = scaled.round();
            return if rounded == 0.0 { "0".to_owned() } else { format!("{rounded:.0}") };
        }
        number::plain(scaled, 3)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_772_359_200 + seconds)
    }

    fn window(seconds: i64) -> TimeWindow {
        TimeWindow::new(at(0), at(seconds)).unwrap()
    }

    fn samples(values: &[(i64, f64)]) -> Vec<Sample> {
        values.iter().map(|(s, value)| Sample { at: at(*s), value: *value }).collect()
    }

    #[test]
    fn a_single_spike_among_many_survives_with_its_time() {
        let values: Vec<(i64, f64)> = (0..240).map(|i| (i * 15, if i == 137 { 9.5 } else { 0.2 })).collect();
        let reduced = downsample(&samples(&values), window(3600), 60);
        assert_eq!(reduced.buckets.len(), 60);
        let spike = Sample { at: at(137 * 15), value: 9.5 };
        assert_eq!(reduced.max, Some(spike));
        assert!(reduced.buckets.contains(&Some(spike)));
        let text = render_range(
            &[Series { labels: [("job".into(), "api".into())].into(), samples: samples(&values) }],
            window(3600),
            &RangeOptions { unit: Unit::Seconds, ..RangeOptions::default() },
        );
        assert!(text.text.contains("max 9.5s@10:34:15 min 200ms@10:00:00"), "{}", text.text);
    }

    #[test]
    fn few_regular_samples_are_not_touched_and_gaps_stay() {
        let reduced = downsample(&samples(&[(0, 1.0), (60, 2.0), (240, 3.0)]), window(300), 60);
        let values: Vec<Option<f64>> = reduced.buckets.iter().map(|b| b.map(|s| s.value)).collect();
        assert_eq!(values, [Some(1.0), Some(2.0), None, None, Some(3.0)]);
        assert_eq!(values_line(&reduced, Unit::None), "1 2 - - 3");
        assert_eq!(downsample(&[], window(300), 60).buckets.iter().flatten().count(), 0);
    }

    #[test]
    fn the_sample_at_the_end_of_the_window_counts() {
        let inclusive: Vec<(i64, f64)> = (0..=240).map(|i| (i * 15, if i == 240 { 9.0 } else { 1.0 })).collect();
        let reduced = downsample(&samples(&inclusive), window(3600), 60);
        assert_eq!((reduced.samples, reduced.buckets.len(), reduced.max.map(|s| s.at)), (241, 60, Some(at(3600))));
        assert_eq!(reduced.buckets[59], reduced.max);
        assert_eq!(downsample(&samples(&[(-15, 1.0), (3615, 1.0)]), window(3600), 60).samples, 0);
    }

    #[test]
    fn repeats_are_folded_and_small_values_are_not_flattened() {
        let flat = downsample(&samples(&(0..30).map(|i| (i * 10, 0.25)).collect::<Vec<_>>()), window(300), 60);
        assert_eq!(values_line(&flat, Unit::Ratio), "[×1e-1%] 250*30");
        let wide = downsample(&samples(&[(0, 0.001), (10, 5000.0), (20, 0.0)]), window(30), 60);
        assert_eq!(values_line(&wide, Unit::None), "0.001 5000 0");
    }

    #[test]
    fn summaries() {
        let rising: Vec<(i64, f64)> = (0..40).map(|i| (i * 10, 100.0 + i as f64)).collect();
        let summary = summarize(&samples(&rising)).unwrap();
        assert_eq!((summary.count, summary.p95, summary.last.value), (40, Some(137.0), 139.0));
        assert_eq!(summary.trend, Trend::Rising { by: 30.0, share: Some(30.0 / 104.5) });
        assert_eq!(
            summary.describe(Unit::None, window(400)),
            "current 139, min 100@10:00:00, max 139@10:06:30, mean 119.5, p95 137, rising +29% (+30), 40 samples"
        );
        let noisy: Vec<(i64, f64)> = (0..40).map(|i| (i, if i % 2 == 0 { 1.0 } else { 2.0 })).collect();
        assert_eq!(summarize(&samples(&noisy)).unwrap().trend, Trend::Stable);
        assert_eq!(summarize(&samples(&rising[..5])).unwrap().trend, Trend::Unknown);
        assert_eq!(summarize(&[]), None);
        assert_eq!(summarize(&samples(&[(0, f64::NAN)])), None);
    }

    #[test]
    fn series_without_samples_say_so_and_cut_series_are_counted() {
        let series: Vec<Series> = (0..3)
            .map(|i| Series {
                labels: [("pod".to_owned(), format!("p{i}")), ("job".to_owned(), "a".to_owned())].into(),
                samples: if i == 2 { vec![] } else { samples(&[(0, f64::from(i)), (10, 7.0)]) },
            })
            .collect();
        let shown = render_range(&series, window(60), &RangeOptions::default());
        assert!(
            shown.text.starts_with("all: job=a\n") && shown.text.contains("pod=p2: no samples in the window"),
            "{}",
            shown.text
        );
        let cut = render_range(&series, window(60), &RangeOptions { max_series: 1, ..RangeOptions::default() });
        assert!(cut.truncated && cut.text.ends_with("(1 of 3 series shown, largest maximum first)"));
    }

    proptest! {
        #[test]
        fn extremes_survive_with_their_times(
            values in prop::collection::vec((0i64..=3600, -1e6f64..1e6), 1..400),
            buckets in 1usize..100,
        ) {
            let mut values = values;
            values.sort_by_key(|(s, _)| *s);
            let samples = samples(&values);
            let reduced = downsample(&samples, window(3600), buckets);
            prop_assert!(reduced.buckets.len() <= buckets.max(1));
            let largest = samples.iter().map(|s| s.value).fold(f64::NEG_INFINITY, f64::max);
            let smallest = samples.iter().map(|s| s.value).fold(f64::INFINITY, f64::min);
            let (min, max) = (reduced.min.unwrap(), reduced.max.unwrap());
            prop_assert_eq!((max.value.to_bits(), min.value.to_bits()), (largest.to_bits(), smallest.to_bits()));
            prop_assert!(samples.contains(&max) && samples.contains(&min));
            prop_assert!(reduced.buckets.contains(&Some(max)));
            let last = reduced.buckets.len() as i64 - 1;
            let bucket_of = |at: Timestamp| ((at.as_nanos() - reduced.start.as_nanos()) / reduced.step_nanos as i64).min(last);
            if bucket_of(min.at) != bucket_of(max.at) {
                prop_assert!(reduced.buckets.contains(&Some(min)));
            }
            for (index, bucket) in reduced.buckets.iter().enumerate() {
                let here = samples.iter().any(|s| bucket_of(s.at) == index as i64);
                prop_assert_eq!(bucket.is_some(), here, "a gap is a gap exactly where there is no sample");
                if let Some(sample) = bucket {
                    prop_assert!(samples.contains(sample));
                }
            }
        }
    }
}

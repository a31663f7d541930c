//! Metric ranges: series over a grid of steps, counters as rates, histograms as quantiles, merged as asked.
//! A step without points has no sample; it is never zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portcullis_model::{NameSet, Sample, Series, TimeWindow, Timestamp};
use portcullis_ports::{Aggregation, LabelMatch, Total};

use super::points::{HistogramPoint, MOST_SERIES, Nature, NumberPoint, Points, RawSeries, gather};
use super::{Confinement, attribute_stage, merged, quantile};
use crate::error::{Result, StoreError};
use crate::scan::Cancel;
use crate::schema::Table;
use crate::store::Store;

/// A counter whose next point comes later than this says nothing about the time between.
const LONGEST_GAP: i64 = 300_000_000_000;
/// Quantile of a histogram when nothing else was asked.
const USUAL_QUANTILE: f64 = 0.95;
/// Steps of one answer at most.
const MOST_STEPS: i64 = 11_000;

/// What is asked of stored metrics.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Window.
    pub(crate) window: TimeWindow,
    /// Step of the grid.
    pub(crate) step: Duration,
    /// Names; points of all of them are taken together.
    pub(crate) names: BTreeSet<String>,
    /// Only this service.
    pub(crate) service: Option<String>,
    /// Further conditions.
    pub(crate) matchers: Vec<LabelMatch>,
}

/// Series on a grid, before they are merged.
#[derive(Debug, Clone)]
pub(crate) struct Gridded {
    /// Labels of the series.
    pub(crate) labels: BTreeMap<String, String>,
    /// Unit of the stored values.
    pub(crate) unit: String,
    /// What stands in every step.
    pub(crate) cells: Cells,
}

/// What stands in the steps of a grid.
#[derive(Debug, Clone)]
pub(crate) enum Cells {
    /// Values at moments.
    Levels(Vec<Option<Level>>),
    /// Increases, per second covered.
    Rates(Vec<Option<Increase>>),
    /// Distributions.
    Distributions {
        /// Ascending upper bounds.
        bounds: Vec<f64>,
        /// Per step.
        cells: Vec<Option<Distribution>>,
    },
}

/// Values within one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    sum: f64,
    count: f64,
    min: f64,
    max: f64,
}

/// An increase within one step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Increase {
    /// How much.
    pub(crate) amount: f64,
    /// Over how many seconds of the step.
    pub(crate) seconds: f64,
}

/// Observations within one step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distribution {
    /// How many.
    pub(crate) count: f64,
    /// Their sum, when known.
    pub(crate) sum: Option<f64>,
    /// Per bucket.
    pub(crate) counts: Vec<f64>,
    /// Over how many seconds of the step.
    pub(crate) seconds: f64,
}

/// The grid of a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    start: i64,
    step: i64,
    steps: usize,
}

impl Grid {
    /// A grid; refused when it would have too many steps.
    pub(crate) fn new(window: TimeWindow, step: Duration) -> Result<Self> {
        let step = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1_000_000);
        let length = window.end.as_nanos() - window.start.as_nanos();
        let steps = (length + step - 1) / step;
        if steps > MOST_STEPS {
            return Err(StoreError::Invalid(format!(
                "the step gives {steps} points per series; choose one that gives at most {MOST_STEPS}"
            )));
        }
        Ok(Self { start: window.start.as_nanos(), step, steps: steps.max(1) as usize })
    }

    /// Steps.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// The step a moment lies in.
    pub(crate) fn place(&self, at: i64) -> Option<usize> {
        let place = usize::try_from(at.checked_sub(self.start)?.div_euclid(self.step)).ok()?;
        (at >= self.start && place < self.steps).then_some(place)
    }

    fn moment(&self, place: usize) -> Timestamp {
        Timestamp::from_nanos(self.start + self.step * place as i64)
    }

    /// Divides `(from, to]` over the steps it touches: place, share of the whole, seconds.
    fn spread(&self, from: i64, to: i64, mut visit: impl FnMut(usize, f64, f64)) {
        let whole = to - from;
        let end = self.start + self.step * self.steps as i64;
        let (mut at, last) = (from.max(self.start), to.min(end));
        while at < last && whole > 0 {
            let place = ((at - self.start) / self.step) as usize;
            let next = (self.start + self.step * (place as i64 + 1)).min(last);
            let part = (next - at) as f64;
            visit(place, part / whole as f64, part / 1e9);
            at = next;
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Series.
    pub(crate) series: Vec<Gridded>,
    /// The table they came from.
    pub(crate) table: Option<Table>,
    /// Whether there were more series than can be held.
    pub(crate) overflow: bool,
    /// Other tables that hold points of the same name.
    pub(crate) also_in: Vec<Table>,
}

/// Tables in the order they are preferred when one name is in several.
const PREFERENCE: [Table; 5] = [Table::Histogram, Table::ExponentialHistogram, Table::Sum, Table::Gauge, Table::Summary];

/// Finds the series of a question on the grid.
pub(crate) fn find(store: &Store, cancel: &Cancel, confinement: &Confinement, question: &Question) -> Result<Found> {
    let grid = Grid::new(question.window, question.step)?;
    let mut found = Found { series: Vec::new(), table: None, overflow: false, also_in: Vec::new() };
    for table in PREFERENCE {
        let mut filter = confinement.filter(table, question.window, question.service.as_deref());
        // An increase in the first step needs the point before it.
        let reach = LONGEST_GAP.min(i64::try_from(question.step.as_nanos()).unwrap_or(i64::MAX).max(60_000_000_000));
        filter.start = filter.start.saturating_sub(if matches!(table, Table::Gauge | Table::Summary) { 0 } else { reach });
        confinement.confine_start(&mut filter);
        filter.metrics = NameSet::Only(question.names.clone());
        if !question.matchers.is_empty() {
            let matchers = confinement.matchers(&question.matchers)?;
            filter.stages.push(attribute_stage(table, table.position("Attributes"), matchers));
        }
        let plan = store.snapshot(&confinement.tenant, table)?.plan(filter, cancel)?;
        if plan.rows() == 0 {
            continue;
        }
        let (raw, overflow) = gather(table, &plan, store.settings().query_threads, cancel)?;
        let series: Vec<Gridded> = raw.into_iter().map(|series| grid_series(&grid, series)).filter(Gridded::has_cells).collect();
        if series.is_empty() {
            continue;
        }
        if found.table.is_some() {
            found.also_in.push(table);
        } else {
            found = Found { series, table: Some(table), overflow, also_in: Vec::new() };
        }
    }
    Ok(found)
}

impl Gridded {
    fn has_cells(&self) -> bool {
        match &self.cells {
            Cells::Levels(cells) => cells.iter().any(Option::is_some),
            Cells::Rates(cells) => cells.iter().any(Option::is_some),
            Cells::Distributions { cells, .. } => cells.iter().any(Option::is_some),
        }
    }
}

fn grid_series(grid: &Grid, raw: RawSeries) -> Gridded {
    let mut labels = merged(&raw.attributes, &raw.resource);
    labels.insert("service".into(), raw.service);
    let cells = match raw.points {
        Points::Numbers(points) if raw.nature == Nature::Level => {
            Cells::Levels(levels(grid, points.iter().map(|p| (p.at, p.value))))
        }
        Points::Numbers(points) => Cells::Rates(increases(grid, &points, raw.nature)),
        Points::Histograms(points) => distributions(grid, &points, raw.nature),
        Points::Summaries(points) => {
            let nearest = |values: &[(f64, f64)]| {
                values.iter().min_by(|a, b| (a.0 - USUAL_QUANTILE).abs().total_cmp(&(b.0 - USUAL_QUANTILE).abs())).map(|v| v.1)
            };
            Cells::Levels(levels(grid, points.iter().filter_map(|(at, values)| Some((*at, nearest(values)?)))))
        }
    };
    Gridded { labels, unit: raw.unit, cells }
}

fn levels(grid: &Grid, points: impl Iterator<Item = (i64, f64)>) -> Vec<Option<Level>> {
    let mut cells = vec![None; grid.steps];
    for (at, value) in points.filter(|(_, v)| v.is_finite()) {
        let Some(place) = grid.place(at) else { continue };
        let cell: &mut Level = cells[place].get_or_insert(Level { sum: 0.0, count: 0.0, min: value, max: value });
        cell.sum += value;
        cell.count += 1.0;
        cell.min = cell.min.min(value);
        cell.max = cell.max.max(value);
    }
    cells
}

/// Cells of values at moments.
pub(crate) fn levels_of(grid: &Grid, points: impl Iterator<Item = (i64, f64)>) -> Cells {
    Cells::Levels(levels(grid, points))
}

/// Since when the first point of a series counts, when that is known and near.
fn known_start(at: i64, start: i64) -> Option<i64> {
    (start > 0 && start < at && at - start <= LONGEST_GAP).then_some(start)
}

fn increases(grid: &Grid, points: &[NumberPoint], nature: Nature) -> Vec<Option<Increase>> {
    let mut cells = vec![None; grid.steps];
    let mut before: Option<&NumberPoint> = None;
    for point in points {
        let (from, amount) = match (nature, before) {
            (Nature::Delta, _) => (known_start(point.at, point.start).or(before.map(|b| b.at)), point.value),
            (_, None) => (known_start(point.at, point.start), point.value),
            // A smaller value, or a later start, means the process began again from zero.
            (_, Some(b)) if point.value < b.value || (point.start > b.at) => {
                (known_start(point.at, point.start).or(Some(b.at)), point.value)
            }
            (_, Some(b)) => (Some(b.at), point.value - b.value),
        };
        before = Some(point);
        let Some(from) = from.filter(|from| point.at - from <= LONGEST_GAP) else { continue };
        grid.spread(from, point.at, |place, share, seconds| {
            let cell = cells[place].get_or_insert_with(Increase::default);
            cell.amount += amount * share;
            cell.seconds += seconds;
        });
    }
    cells
}

fn distributions(grid: &Grid, points: &[HistogramPoint], nature: Nature) -> Cells {
    let mut bounds: Vec<f64> = Vec::new();
    let mut last: Option<*const f64> = None;
    for point in points {
        if last != Some(point.bounds.as_ptr()) {
            bounds.extend(point.bounds.iter());
            last = Some(point.bounds.as_ptr());
        }
    }
    bounds.sort_unstable_by(f64::total_cmp);
    bounds.dedup();
    let mut cells: Vec<Option<Distribution>> = vec![None; grid.steps];
    let mut before: Option<&HistogramPoint> = None;
    for point in points {
        let restarted = before.is_some_and(|b| point.count < b.count || point.start > b.at);
        let base = before.filter(|_| nature == Nature::Cumulative && !restarted);
        let from = match (base, before) {
            (Some(b), _) => Some(b.at),
            (None, other) => known_start(point.at, point.start).or(other.map(|b| b.at)),
        };
        before = Some(point);
        let Some(from) = from.filter(|from| point.at - from <= LONGEST_GAP) else { continue };
        let same = base.filter(|b| b.bounds == point.bounds);
        if base.is_some() && same.is_none() {
            // The buckets changed on the way: what came in between cannot be told.
            continue;
        }
        let count = point.count - base.map_or(0.0, |b| b.count);
        let sum = match base {
            Some(b) => point.sum.zip(b.sum).map(|(now, then)| now - then),
            None => point.sum,
        };
        let places: Vec<usize> = point.bounds.iter().map(|b| bounds.partition_point(|known| known < b)).collect();
        grid.spread(from, point.at, |place, share, seconds| {
            let cell = cells[place].get_or_insert_with(|| Distribution {
                counts: vec![0.0; bounds.len()],
                sum: Some(0.0),
                ..Distribution::default()
            });
            cell.count += count * share;
            cell.sum = cell.sum.zip(sum).map(|(all, more)| all + more * share);
            cell.seconds += seconds;
            for (at, (bucket, place)) in point.counts.iter().zip(&places).enumerate() {
                let then = base.and_then(|b| b.counts.get(at)).copied().unwrap_or(0.0);
                if let Some(slot) = cell.counts.get_mut(*place) {
                    *slot += (bucket - then).max(0.0) * share;
                }
            }
        });
    }
    Cells::Distributions { bounds, cells }
}

/// What a distribution is turned into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reading {
    /// A quantile of the observations.
    Quantile(f64),
    /// Observations per second.
    Rate,
    /// Mean of the observations.
    Mean,
}

/// How series become samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merge<'a> {
    /// How several series become one; `None` keeps each.
    pub(crate) aggregation: Option<Aggregation>,
    /// Labels to keep apart.
    pub(crate) group_by: &'a [String],
}

/// The reading and aggregation a question means for distributions.
pub(crate) fn reading(aggregation: Option<Aggregation>) -> Reading {
    match aggregation {
        Some(Aggregation::Sum) => Reading::Rate,
        Some(Aggregation::Average) => Reading::Mean,
        Some(Aggregation::Quantile(q)) => Reading::Quantile(q),
        None | Some(Aggregation::Minimum | Aggregation::Maximum | Aggregation::Count) => Reading::Quantile(USUAL_QUANTILE),
    }
}

/// Merges gridded series into samples.
pub(crate) fn merge(grid: &Grid, series: Vec<Gridded>, how: Merge<'_>, read: Reading) -> Vec<Series> {
    let Some(aggregation) = how.aggregation else {
        return series
            .into_iter()
            .map(|s| finish(grid, s.labels, cell_values(&s.cells, read, None)))
            .filter(has_samples)
            .collect();
    };
    let mut groups: BTreeMap<BTreeMap<String, String>, Vec<Gridded>> = BTreeMap::new();
    for s in series {
        let labels = how.group_by.iter().filter_map(|name| Some((name.clone(), label(&s.labels, name)?.to_owned()))).collect();
        groups.entry(labels).or_default().push(s);
    }
    groups
        .into_iter()
        .map(|(labels, members)| finish(grid, labels, merge_group(grid, members, aggregation, read)))
        .filter(has_samples)
        .collect()
}

fn label<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    labels.get(if name == "service.name" { "service" } else { name }).map(String::as_str)
}

fn has_samples(series: &Series) -> bool {
    !series.samples.is_empty()
}

fn merge_group(grid: &Grid, members: Vec<Gridded>, aggregation: Aggregation, read: Reading) -> Vec<Option<f64>> {
    let over_buckets = matches!(aggregation, Aggregation::Quantile(_) | Aggregation::Average | Aggregation::Sum);
    if over_buckets && members.iter().all(|m| matches!(m.cells, Cells::Distributions { .. })) {
        return cell_values(&merge_distributions(grid, members), read, None);
    }
    let values: Vec<Vec<Option<f64>>> = members.iter().map(|m| cell_values(&m.cells, read, Some(aggregation))).collect();
    (0..grid.steps)
        .map(|place| {
            let mut here: Vec<f64> = values.iter().filter_map(|v| v[place]).collect();
            combine(&mut here, aggregation)
        })
        .collect()
}

fn combine(values: &mut [f64], aggregation: Aggregation) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    Some(match aggregation {
        Aggregation::Sum => values.iter().sum(),
        Aggregation::Average => values.iter().sum::<f64>() / values.len() as f64,
        Aggregation::Minimum => values.iter().copied().fold(f64::INFINITY, f64::min),
        Aggregation::Maximum => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Aggregation::Count => values.len() as f64,
        Aggregation::Quantile(q) => return quantile::of_values(q, values),
    })
}

/// Adds distributions up; buckets of different bounds are put on the union of the bounds.
pub(crate) fn merge_distributions(grid: &Grid, members: Vec<Gridded>) -> Cells {
    let mut union: Vec<f64> = Vec::new();
    for member in &members {
        if let Cells::Distributions { bounds, .. } = &member.cells {
            union.extend(bounds);
        }
    }
    union.sort_unstable_by(f64::total_cmp);
    union.dedup();
    let mut merged: Vec<Option<Distribution>> = vec![None; grid.steps];
    for member in members {
        let Cells::Distributions { bounds, cells } = member.cells else { continue };
        let places: Vec<usize> = bounds.iter().map(|b| union.partition_point(|known| known < b)).collect();
        for (slot, cell) in merged.iter_mut().zip(cells) {
            let Some(cell) = cell else { continue };
            let all = slot.get_or_insert_with(|| Distribution {
                counts: vec![0.0; union.len()],
                sum: Some(0.0),
                ..Distribution::default()
            });
            all.count += cell.count;
            all.sum = all.sum.zip(cell.sum).map(|(a, b)| a + b);
            // Series cover the same time side by side; the longest coverage stands for the step.
            all.seconds = all.seconds.max(cell.seconds);
            for (count, place) in cell.counts.iter().zip(&places) {
                all.counts[*place] += count;
            }
        }
    }
    Cells::Distributions { bounds: union, cells: merged }
}

/// One number per step.
pub(crate) fn cell_values(cells: &Cells, read: Reading, aggregation: Option<Aggregation>) -> Vec<Option<f64>> {
    match cells {
        Cells::Levels(cells) => cells
            .iter()
            .map(|cell| {
                cell.map(|c| match aggregation {
                    Some(Aggregation::Minimum) => c.min,
                    Some(Aggregation::Maximum) => c.max,
                    _ => c.sum / c.count,
                })
            })
            .collect(),
        Cells::Rates(cells) => cells.iter().map(|cell| cell.filter(|c| c.seconds > 0.0).map(|c| c.amount / c.seconds)).collect(),
        Cells::Distributions { bounds, cells } => cells
            .iter()
            .map(|cell| {
                let cell = cell.as_ref()?;
                match read {
                    Reading::Quantile(q) => quantile::of_buckets(q, bounds, &cell.counts),
                    Reading::Rate => (cell.seconds > 0.0).then(|| cell.count / cell.seconds),
                    Reading::Mean => cell.sum.filter(|_| cell.count > 0.0).map(|sum| sum / cell.count),
                }
            })
            .collect(),
    }
}

fn finish(grid: &Grid, labels: BTreeMap<String, String>, values: Vec<Option<f64>>) -> Series {
    let samples = values
        .into_iter()
        .enumerate()
        .filter_map(|(place, value)| Some(Sample { at: grid.moment(place), value: value.filter(|v| v.is_finite())? }))
        .collect();
    Series { labels, samples }
}

/// Samples of values that are already one per step.
pub(crate) fn samples(grid: &Grid, labels: BTreeMap<String, String>, values: Vec<Option<f64>>) -> Series {
    finish(grid, labels, values)
}

/// Largest peak first, at most `most`; and how many there were.
pub(crate) fn rank(mut series: Vec<Series>, most: usize, overflow: bool) -> (Vec<Series>, Total) {
    let peak = |s: &Series| s.samples.iter().map(|p| p.value).fold(f64::NEG_INFINITY, f64::max);
    series.sort_by(|a, b| peak(b).total_cmp(&peak(a)).then_with(|| a.labels.cmp(&b.labels)));
    let total = if overflow { Total::AtLeast(MOST_SERIES as u64) } else { Total::Exact(series.len() as u64) };
    series.truncate(most);
    (series, total)
}

/// A step that gives about 120 points, on a round number of seconds.
pub(crate) fn usual_step(window: TimeWindow) -> Duration {
    let seconds = window.length().as_secs_f64() / 120.0;
    let round = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400];
    Duration::from_secs(round.into_iter().find(|s| *s as f64 >= seconds).unwrap_or(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SECOND: i64 = 1_000_000_000;

    fn grid() -> Grid {
        let window = TimeWindow { start: Timestamp::from_seconds(1_000), end: Timestamp::from_seconds(1_120) };
        Grid::new(window, Duration::from_mins(1)).unwrap()
    }

    fn point(second: i64, value: f64) -> NumberPoint {
        NumberPoint { at: second * SECOND, start: 0, value }
    }

    fn rates(points: &[NumberPoint]) -> Vec<Option<f64>> {
        cell_values(&Cells::Rates(increases(&grid(), points, Nature::Cumulative)), Reading::Rate, None)
    }

    #[test]
    fn a_steady_counter_has_a_steady_rate_and_a_reset_is_not_negative() {
        let steady: Vec<_> = (0..9).map(|n| point(990 + n * 15, n as f64 * 30.0)).collect();
        assert_eq!(rates(&steady), [Some(2.0), Some(2.0)]);
        let reset = [point(990, 100.0), point(1_020, 160.0), point(1_050, 30.0), point(1_060, 40.0)];
        let first = rates(&reset)[0].unwrap();
        assert!((first - (40.0 + 30.0 + 10.0) / 60.0).abs() < 1e-9, "{first}");
    }

    #[test]
    fn silence_is_absent_not_zero() {
        assert_eq!(rates(&[point(1_010, 1.0), point(1_030, 2.0)]), [Some(0.05), None]);
        assert_eq!(rates(&[point(100, 1.0), point(1_030, 200.0)]), [None, None]);
        assert_eq!(rates(&[point(1_010, 7.0)]), [None, None]);
    }

    #[test]
    fn quantiles_come_from_what_happened_in_the_step() {
        let bounds: Arc<[f64]> = Arc::from([0.1, 1.0, f64::INFINITY]);
        let at = |second: i64, counts: [f64; 3]| HistogramPoint {
            at: second * SECOND,
            start: 0,
            count: counts.iter().sum(),
            sum: None,
            bounds: Arc::clone(&bounds),
            counts: counts.to_vec(),
        };
        let points = [at(1_000, [1000.0, 0.0, 0.0]), at(1_060, [1000.0, 10.0, 0.0]), at(1_120, [1010.0, 10.0, 0.0])];
        let cells = distributions(&grid(), &points, Nature::Cumulative);
        let values = cell_values(&cells, Reading::Quantile(0.5), None);
        assert!((values[0].unwrap() - 0.55).abs() < 1e-9 && (values[1].unwrap() - 0.05).abs() < 1e-9, "{values:?}");
        assert_eq!(cell_values(&cells, Reading::Mean, None), [None, None]);
    }

    #[test]
    fn too_fine_a_step_is_refused() {
        let window = TimeWindow { start: Timestamp::from_seconds(0), end: Timestamp::from_seconds(86_400) };
        assert!(Grid::new(window, Duration::from_secs(1)).is_err());
        assert_eq!(usual_step(window), Duration::from_mins(15));
    }
}

//! Metric points of a question, gathered by series.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, StringViewArray};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, Int32Type, TimestampNanosecondType, UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::scan::{Cancel, Plan};
use crate::schema::Table;

/// Series gathered at most; beyond it the caller must narrow.
pub(crate) const MOST_SERIES: usize = 50_000;
const CUMULATIVE: i32 = 2;
const NO_RECORDED_VALUE: u32 = 1;

/// How values of a series relate to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Nature {
    /// A value stands for its moment.
    #[default]
    Level,
    /// Values grow since a start.
    Cumulative,
    /// Values are what came since the value before.
    Delta,
}

/// A number at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberPoint {
    /// When.
    pub(crate) at: i64,
    /// Since when it counts; zero when unknown.
    pub(crate) start: i64,
    /// Its value.
    pub(crate) value: f64,
}

/// A distribution at a moment.
#[derive(Debug, Clone)]
pub(crate) struct HistogramPoint {
    /// When.
    pub(crate) at: i64,
    /// Since when it counts; zero when unknown.
    pub(crate) start: i64,
    /// Observations.
    pub(crate) count: f64,
    /// Their sum, when known.
    pub(crate) sum: Option<f64>,
    /// Ascending upper bounds of the buckets.
    pub(crate) bounds: Arc<[f64]>,
    /// Observations per bucket.
    pub(crate) counts: Vec<f64>,
}

/// What the points of one series are.
#[derive(Debug, Clone)]
pub(crate) enum Points {
    /// Gauge, sum.
    Numbers(Vec<NumberPoint>),
    /// Histograms of both kinds.
    Histograms(Vec<HistogramPoint>),
    /// Quantiles a client computed.
    Summaries(Vec<(i64, Vec<(f64, f64)>)>),
}

/// One series as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct RawSeries {
    /// Service.
    pub(crate) service: String,
    /// Attributes of the points.
    pub(crate) attributes: String,
    /// Attributes of the resource.
    pub(crate) resource: String,
    /// Unit.
    pub(crate) unit: String,
    /// How values relate to time.
    pub(crate) nature: Nature,
    /// The points, by time after [`gather`].
    pub(crate) points: Points,
}

#[derive(Default)]
struct Gathered {
    by_key: HashMap<String, usize>,
    series: Vec<RawSeries>,
    overflow: bool,
}

/// The series of a plan, and whether there were too many.
pub(crate) fn gather(table: Table, plan: &Plan, threads: usize, cancel: &Cancel) -> Result<(Vec<RawSeries>, bool)> {
    let columns = columns(table);
    let parts = plan.read(threads, cancel, &columns, Gathered::default, |state, rows| {
        state.add(table, rows);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut all = Gathered::default();
    for part in parts {
        all.overflow |= part.overflow;
        for series in part.series {
            let key = key_of(&series.service, &series.attributes, &series.resource, &series.unit);
            if let Some(at) = all.by_key.get(&key) {
                all.series[*at].points.extend(series.points);
            } else {
                all.by_key.insert(key, all.series.len());
                all.series.push(series);
            }
        }
    }
    all.series.iter_mut().for_each(|s| s.points.sort());
    Ok((all.series, all.overflow))
}

impl Points {
    fn empty(table: Table) -> Self {
        match table {
            Table::Histogram | Table::ExponentialHistogram => Self::Histograms(Vec::new()),
            Table::Summary => Self::Summaries(Vec::new()),
            _ => Self::Numbers(Vec::new()),
        }
    }

    fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::Numbers(a), Self::Numbers(b)) => a.extend(b),
            (Self::Histograms(a), Self::Histograms(b)) => a.extend(b),
            (Self::Summaries(a), Self::Summaries(b)) => a.extend(b),
            _ => {}
        }
    }

    /// By time; of two points of the same moment (a retried request) one stays.
    fn sort(&mut self) {
        match self {
            Self::Numbers(points) => {
                points.sort_by_key(|p| p.at);
                points.dedup_by_key(|p| p.at);
            }
            Self::Histograms(points) => {
                points.sort_by_key(|p| p.at);
                points.dedup_by_key(|p| p.at);
            }
            Self::Summaries(points) => {
                points.sort_by_key(|p| p.0);
                points.dedup_by_key(|p| p.0);
            }
        }
    }
}

fn columns(table: Table) -> Vec<usize> {
    let specific: &[&str] = match table {
        Table::Gauge => &["Value"],
        Table::Sum => &["Value", "AggregationTemporality", "IsMonotonic"],
        Table::Histogram => &["Count", "Sum", "BucketCounts", "ExplicitBounds", "AggregationTemporality"],
        Table::ExponentialHistogram => &[
            "Count",
            "Sum",
            "Scale",
            "ZeroCount",
            "PositiveOffset",
            "PositiveBucketCounts",
            "NegativeOffset",
            "NegativeBucketCounts",
            "AggregationTemporality",
        ],
        _ => &["ValueAtQuantiles"],
    };
    let common = ["ResourceAttributes", "ServiceName", "MetricUnit", "Attributes", "StartTimeUnix", "TimeUnix", "Flags"];
    let mut all: Vec<usize> = common.iter().chain(specific).map(|name| table.position(name)).collect();
    all.sort_unstable();
    all
}

fn key_of(service: &str, attributes: &str, resource: &str, unit: &str) -> String {
    format!("{service}\u{0}{attributes}\u{0}{resource}\u{0}{unit}")
}

/// Typed access to the columns of a batch by name.
struct Cells<'a>(&'a RecordBatch);

impl<'a> Cells<'a> {
    fn text(&self, name: &str) -> Option<&'a StringViewArray> {
        self.0.column_by_name(name).and_then(|c| c.as_string_view_opt())
    }

    fn numbers<T: ArrowPrimitiveType>(&self, name: &str) -> Option<&'a PrimitiveArray<T>> {
        self.0.column_by_name(name).and_then(|c| c.as_primitive_opt::<T>())
    }
}

impl Gathered {
    fn add(&mut self, table: Table, rows: &RecordBatch) {
        let cells = Cells(rows);
        let (Some(services), Some(attributes), Some(resources), Some(units)) =
            (cells.text("ServiceName"), cells.text("Attributes"), cells.text("ResourceAttributes"), cells.text("MetricUnit"))
        else {
            return;
        };
        let mut decoder = Decoder::new(table, &cells);
        let mut current: Option<([u128; 4], Option<usize>)> = None;
        for row in 0..rows.num_rows() {
            let views = [services.views()[row], attributes.views()[row], resources.views()[row], units.views()[row]];
            let at = match current {
                Some((same, at)) if same == views => at,
                _ => {
                    let (service, own, resource) = (services.value(row), attributes.value(row), resources.value(row));
                    let at = self.series_at(table, service, own, resource, units.value(row), decoder.nature(row));
                    current = Some((views, at));
                    at
                }
            };
            if let Some(at) = at {
                decoder.push(row, &mut self.series[at].points);
            }
        }
    }

    fn series_at(
        &mut self,
        table: Table,
        service: &str,
        attributes: &str,
        resource: &str,
        unit: &str,
        nature: Nature,
    ) -> Option<usize> {
        let key = key_of(service, attributes, resource, unit);
        if let Some(at) = self.by_key.get(&key) {
            return Some(*at);
        }
        if self.series.len() >= MOST_SERIES {
            self.overflow = true;
            return None;
        }
        self.by_key.insert(key, self.series.len());
        self.series.push(RawSeries {
            service: service.to_owned(),
            attributes: attributes.to_owned(),
            resource: resource.to_owned(),
            unit: unit.to_owned(),
            nature,
            points: Points::empty(table),
        });
        Some(self.series.len() - 1)
    }
}

/// Reads points out of one batch.
struct Decoder<'a> {
    table: Table,
    times: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    starts: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    flags: Option<&'a PrimitiveArray<UInt32Type>>,
    values: Option<&'a PrimitiveArray<Float64Type>>,
    temporality: Option<&'a PrimitiveArray<Int32Type>>,
    monotonic: Option<&'a arrow::array::BooleanArray>,
    counts: Option<&'a PrimitiveArray<UInt64Type>>,
    sums: Option<&'a PrimitiveArray<Float64Type>>,
    buckets: Option<&'a StringViewArray>,
    bounds: Option<&'a StringViewArray>,
    exponential: Option<Exponential<'a>>,
    quantiles: Option<&'a StringViewArray>,
    known_bounds: Option<(u128, Arc<[f64]>)>,
}

struct Exponential<'a> {
    scale: &'a PrimitiveArray<Int32Type>,
    zero: &'a PrimitiveArray<UInt64Type>,
    positive_offset: &'a PrimitiveArray<Int32Type>,
    positive: &'a StringViewArray,
    negative_offset: &'a PrimitiveArray<Int32Type>,
    negative: &'a StringViewArray,
}

impl<'a> Decoder<'a> {
    fn new(table: Table, cells: &Cells<'a>) -> Self {
        let exponential = || {
            Some(Exponential {
                scale: cells.numbers("Scale")?,
                zero: cells.numbers("ZeroCount")?,
                positive_offset: cells.numbers("PositiveOffset")?,
                positive: cells.text("PositiveBucketCounts")?,
                negative_offset: cells.numbers("NegativeOffset")?,
                negative: cells.text("NegativeBucketCounts")?,
            })
        };
        Self {
            table,
            times: cells.numbers("TimeUnix"),
            starts: cells.numbers("StartTimeUnix"),
            flags: cells.numbers("Flags"),
            values: cells.numbers("Value"),
            temporality: cells.numbers("AggregationTemporality"),
            monotonic: cells.0.column_by_name("IsMonotonic").and_then(|c| c.as_boolean_opt()),
            counts: cells.numbers("Count"),
            sums: cells.numbers("Sum"),
            buckets: cells.text("BucketCounts"),
            bounds: cells.text("ExplicitBounds"),
            exponential: exponential(),
            quantiles: cells.text("ValueAtQuantiles"),
            known_bounds: None,
        }
    }

    fn nature(&self, row: usize) -> Nature {
        let counts = match self.table {
            Table::Sum => self.monotonic.is_some_and(|m| m.value(row)),
            Table::Histogram | Table::ExponentialHistogram => true,
            _ => false,
        };
        match self.temporality.map(|t| t.value(row)) {
            Some(CUMULATIVE) if counts => Nature::Cumulative,
            Some(_) if counts => Nature::Delta,
            _ => Nature::Level,
        }
    }

    fn push(&mut self, row: usize, points: &mut Points) {
        let (Some(times), Some(starts), Some(flags)) = (self.times, self.starts, self.flags) else { return };
        if flags.value(row) & NO_RECORDED_VALUE != 0 {
            return;
        }
        let (at, start) = (times.value(row), starts.value(row));
        match points {
            Points::Numbers(points) => {
                if let Some(values) = self.values.filter(|v| v.is_valid(row) && !v.value(row).is_nan()) {
                    points.push(NumberPoint { at, start, value: values.value(row) });
                }
            }
            Points::Histograms(points) => {
                let count = self.counts.map_or(0, |c| c.value(row)) as f64;
                let sum = self.sums.filter(|s| s.is_valid(row)).map(|s| s.value(row));
                let (bounds, counts) = match &self.exponential {
                    Some(exponential) => exponential.buckets(row),
                    None => self.explicit(row, count),
                };
                points.push(HistogramPoint { at, start, count, sum, bounds, counts });
            }
            Points::Summaries(points) => {
                let text = self.quantiles.map_or("", |q| q.value(row));
                let stored: Vec<(Option<f64>, Option<f64>)> = serde_json::from_str(text).unwrap_or_default();
                points.push((at, stored.into_iter().filter_map(|(q, v)| Some((q?, v?))).collect()));
            }
        }
    }

    fn explicit(&mut self, row: usize, count: f64) -> (Arc<[f64]>, Vec<f64>) {
        let counts = self.buckets.map_or_else(Vec::new, |b| numbers(b.value(row)));
        if counts.is_empty() {
            return (Arc::from([f64::INFINITY]), vec![count]);
        }
        let Some(bounds) = self.bounds else { return (Arc::from([]), Vec::new()) };
        let view = bounds.views()[row];
        let known = match &self.known_bounds {
            Some((same, known)) if *same == view => Arc::clone(known),
            _ => {
                let mut list = numbers(bounds.value(row));
                list.push(f64::INFINITY);
                let list: Arc<[f64]> = list.into();
                self.known_bounds = Some((view, Arc::clone(&list)));
                list
            }
        };
        (known, counts)
    }
}

impl Exponential<'_> {
    /// Buckets in ascending order: negative, zero, positive. A bucket of index i holds values in (base^i, base^(i+1)].
    fn buckets(&self, row: usize) -> (Arc<[f64]>, Vec<f64>) {
        let base = 2_f64.powf(2_f64.powi(-self.scale.value(row)));
        let power = |index: i32| base.powi(index);
        let (mut bounds, mut counts) = (Vec::new(), Vec::new());
        let negative = numbers(self.negative.value(row));
        let offset = self.negative_offset.value(row);
        for (at, count) in negative.iter().enumerate().rev() {
            bounds.push(-power(offset.saturating_add(at as i32)));
            counts.push(*count);
        }
        bounds.push(0.0);
        counts.push(self.zero.value(row) as f64);
        let offset = self.positive_offset.value(row);
        let positive = numbers(self.positive.value(row));
        if !positive.is_empty() {
            // The lower end of the first bucket, so that nothing is spread down to zero.
            bounds.push(power(offset));
            counts.push(0.0);
        }
        for (at, count) in positive.iter().enumerate() {
            bounds.push(power(offset.saturating_add(at as i32).saturating_add(1)));
            counts.push(*count);
        }
        (bounds.into(), counts)
    }
}

/// Numbers of a stored JSON array.
fn numbers(text: &str) -> Vec<f64> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or("");
    inner.split(',').filter_map(|n| n.parse().ok()).collect()
}

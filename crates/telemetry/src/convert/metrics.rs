//! Metric points into rows of the `otel_metrics_*` tables.

use std::fmt::Write as _;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint, exemplar, metric,
    number_data_point,
};

use super::columns::{TextColumn, bools, f64s, i32s, times, u64s, words};
use super::traces::object_or_empty;
use super::{Conversion, ResourceWords, ScopeWords, batch};
use crate::error::Result;
use crate::schema::Table;
use crate::text::push_hex;

type Refused = std::result::Result<(), String>;

/// What the points of one metric share.
#[derive(Clone, Copy)]
struct MetricWords {
    resource: ResourceWords,
    scope: ScopeWords,
    name: u32,
    description: u32,
    unit: u32,
}

/// The columns every metric table begins with, and exemplars.
#[derive(Default)]
struct Common {
    metrics: Vec<MetricWords>,
    attributes: Vec<u32>,
    start: Vec<i64>,
    time: Vec<i64>,
    flags: Vec<u32>,
}

impl Common {
    fn push(
        &mut self,
        conversion: &mut Conversion,
        metric: MetricWords,
        attributes: &[KeyValue],
        start: u64,
        time: u64,
        flags: u32,
    ) -> Refused {
        let time = conversion.time("a metric point", time, 0)?;
        let start = i64::try_from(start).map_err(|_| "a metric point starts beyond the year 2262".to_owned())?;
        let attributes = conversion.attribute_word("a metric point", attributes)?;
        self.metrics.push(metric);
        self.attributes.push(attributes);
        self.start.push(start);
        self.time.push(time);
        self.flags.push(flags);
        Ok(())
    }

    fn finish(self) -> Vec<ArrayRef> {
        let of = |f: fn(&MetricWords) -> u32| words(self.metrics.iter().map(f).collect());
        let mut columns = vec![
            of(|m| m.resource.attributes),
            of(|m| m.resource.schema_url),
            of(|m| m.scope.name),
            of(|m| m.scope.version),
            of(|m| m.scope.attributes),
            of(|m| m.scope.dropped),
            of(|m| m.scope.schema_url),
            of(|m| m.resource.service),
            of(|m| m.name),
            of(|m| m.description),
            of(|m| m.unit),
        ];
        columns.extend([words(self.attributes), times(self.start), times(self.time), words(self.flags)]);
        columns
    }
}

#[derive(Default)]
struct NumberRows {
    common: Common,
    value: Vec<Option<f64>>,
    exemplars: TextColumn,
    temporality: Vec<i32>,
    monotonic: Vec<bool>,
}

#[derive(Default)]
struct HistogramRows {
    common: Common,
    count: Vec<u64>,
    sum: Vec<Option<f64>>,
    buckets: TextColumn,
    bounds: Vec<u32>,
    exemplars: TextColumn,
    min: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
    temporality: Vec<i32>,
}

#[derive(Default)]
struct ExponentialRows {
    common: Common,
    count: Vec<u64>,
    sum: Vec<Option<f64>>,
    scale: Vec<i32>,
    zero_count: Vec<u64>,
    positive_offset: Vec<i32>,
    positive: TextColumn,
    negative_offset: Vec<i32>,
    negative: TextColumn,
    exemplars: TextColumn,
    min: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
    temporality: Vec<i32>,
}

#[derive(Default)]
struct SummaryRows {
    common: Common,
    count: Vec<u64>,
    sum: Vec<Option<f64>>,
    quantiles: TextColumn,
}

#[derive(Default)]
struct MetricRows {
    gauge: NumberRows,
    sum: NumberRows,
    histogram: HistogramRows,
    exponential: ExponentialRows,
    summary: SummaryRows,
}

pub(super) fn convert(conversion: &mut Conversion, request: &ExportMetricsServiceRequest) -> Result<Vec<(Table, RecordBatch)>> {
    let mut rows = MetricRows::default();
    for group in &request.resource_metrics {
        let resource = match conversion.resource(group.resource.as_ref(), &group.schema_url) {
            Ok(resource) => resource,
            Err(reason) => {
                let points = group.scope_metrics.iter().flat_map(|s| &s.metrics).map(point_count).sum();
                conversion.reject(points, reason);
                continue;
            }
        };
        for scoped in &group.scope_metrics {
            let scope = match conversion.scope(scoped.scope.as_ref(), &scoped.schema_url) {
                Ok(scope) => scope,
                Err(reason) => {
                    conversion.reject(scoped.metrics.iter().map(point_count).sum(), reason);
                    continue;
                }
            };
            for metric in &scoped.metrics {
                rows.push_metric(conversion, resource, scope, metric);
            }
        }
    }
    rows.finish()
}

/// Points of one metric, of whatever kind.
pub(super) fn point_count(metric: &Metric) -> usize {
    match &metric.data {
        Some(metric::Data::Gauge(data)) => data.data_points.len(),
        Some(metric::Data::Sum(data)) => data.data_points.len(),
        Some(metric::Data::Histogram(data)) => data.data_points.len(),
        Some(metric::Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(metric::Data::Summary(data)) => data.data_points.len(),
        None => 0,
    }
}

impl MetricRows {
    fn push_metric(&mut self, conversion: &mut Conversion, resource: ResourceWords, scope: ScopeWords, metric: &Metric) {
        if metric.name.is_empty() || metric.name.len() > conversion.limits.attribute_name_bytes {
            let reason = format!("a metric needs a name of 1 to {} bytes", conversion.limits.attribute_name_bytes);
            conversion.reject(point_count(metric).max(1), reason);
            return;
        }
        let words = MetricWords {
            resource,
            scope,
            name: conversion.words.number(&metric.name),
            description: conversion.words.number(&metric.description),
            unit: conversion.words.number(&metric.unit),
        };
        match &metric.data {
            Some(metric::Data::Gauge(data)) => {
                for point in &data.data_points {
                    let kept = self.gauge.push(conversion, words, point, 0, false);
                    settle(conversion, kept);
                }
            }
            Some(metric::Data::Sum(data)) => {
                for point in &data.data_points {
                    let kept = self.sum.push(conversion, words, point, data.aggregation_temporality, data.is_monotonic);
                    settle(conversion, kept);
                }
            }
            Some(metric::Data::Histogram(data)) => {
                for point in &data.data_points {
                    let kept = self.histogram.push(conversion, words, point, data.aggregation_temporality);
                    settle(conversion, kept);
                }
            }
            Some(metric::Data::ExponentialHistogram(data)) => {
                for point in &data.data_points {
                    let kept = self.exponential.push(conversion, words, point, data.aggregation_temporality);
                    settle(conversion, kept);
                }
            }
            Some(metric::Data::Summary(data)) => {
                for point in &data.data_points {
                    let kept = self.summary.push(conversion, words, point);
                    settle(conversion, kept);
                }
            }
            None => {}
        }
    }

    fn finish(self) -> Result<Vec<(Table, RecordBatch)>> {
        let mut gauge = self.gauge.common.finish();
        gauge.extend([f64s(self.gauge.value), self.gauge.exemplars.finish()?]);
        let mut sum = self.sum.common.finish();
        sum.extend([f64s(self.sum.value), self.sum.exemplars.finish()?, i32s(self.sum.temporality), bools(self.sum.monotonic)]);
        let h = self.histogram;
        let mut histogram = h.common.finish();
        histogram.extend([u64s(h.count), f64s(h.sum), h.buckets.finish()?, words(h.bounds), h.exemplars.finish()?]);
        histogram.extend([f64s(h.min), f64s(h.max), i32s(h.temporality)]);
        let e = self.exponential;
        let mut exponential = e.common.finish();
        exponential.extend([u64s(e.count), f64s(e.sum), i32s(e.scale), u64s(e.zero_count), i32s(e.positive_offset)]);
        exponential.extend([e.positive.finish()?, i32s(e.negative_offset), e.negative.finish()?, e.exemplars.finish()?]);
        exponential.extend([f64s(e.min), f64s(e.max), i32s(e.temporality)]);
        let mut summary = self.summary.common.finish();
        summary.extend([u64s(self.summary.count), f64s(self.summary.sum), self.summary.quantiles.finish()?]);
        Ok(vec![
            batch(Table::Gauge, gauge)?,
            batch(Table::Sum, sum)?,
            batch(Table::Histogram, histogram)?,
            batch(Table::ExponentialHistogram, exponential)?,
            batch(Table::Summary, summary)?,
        ])
    }
}

fn settle(conversion: &mut Conversion, kept: Refused) {
    if let Err(reason) = kept {
        conversion.reject(1, reason);
    }
}

/// Flag of a point that says "no value was recorded".
pub(super) const NO_RECORDED_VALUE: u32 = 1;

impl NumberRows {
    fn push(
        &mut self,
        conversion: &mut Conversion,
        metric: MetricWords,
        point: &NumberDataPoint,
        temporality: i32,
        monotonic: bool,
    ) -> Refused {
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => Some(value),
            Some(number_data_point::Value::AsInt(value)) => Some(value as f64),
            None if point.flags & NO_RECORDED_VALUE != 0 => None,
            None => return Err("a metric point has no value and no flag that says so".into()),
        };
        let exemplars = exemplars_text(conversion, &point.exemplars)?;
        self.common.push(conversion, metric, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags)?;
        self.value.push(value);
        self.exemplars.push(&exemplars);
        self.temporality.push(temporality);
        self.monotonic.push(monotonic);
        Ok(())
    }
}

impl HistogramRows {
    fn push(
        &mut self,
        conversion: &mut Conversion,
        metric: MetricWords,
        point: &HistogramDataPoint,
        temporality: i32,
    ) -> Refused {
        let buckets = point.bucket_counts.len();
        refuse_nested(conversion, buckets.max(point.explicit_bounds.len()))?;
        if buckets != 0 && buckets != point.explicit_bounds.len() + 1 {
            return Err(format!(
                "a histogram point has {buckets} buckets for {} bounds; it needs one more bucket than bounds",
                point.explicit_bounds.len()
            ));
        }
        if point.explicit_bounds.iter().any(|bound| !bound.is_finite()) {
            return Err(
                "a histogram point has a bound that is not a finite number; the last bucket is unbounded by itself".into()
            );
        }
        if point.explicit_bounds.windows(2).any(|pair| !matches!(pair[0].partial_cmp(&pair[1]), Some(std::cmp::Ordering::Less))) {
            return Err("a histogram point has bounds that do not increase".into());
        }
        let exemplars = exemplars_text(conversion, &point.exemplars)?;
        self.common.push(conversion, metric, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags)?;
        let bounds = array_text(&point.explicit_bounds);
        self.bounds.push(conversion.words.number(&bounds));
        self.buckets.push(&array_text(&point.bucket_counts));
        self.count.push(point.count);
        self.sum.push(point.sum);
        self.exemplars.push(&exemplars);
        self.min.push(point.min);
        self.max.push(point.max);
        self.temporality.push(temporality);
        Ok(())
    }
}

impl ExponentialRows {
    fn push(
        &mut self,
        conversion: &mut Conversion,
        metric: MetricWords,
        point: &ExponentialHistogramDataPoint,
        temporality: i32,
    ) -> Refused {
        let (positive, negative) = (point.positive.clone().unwrap_or_default(), point.negative.clone().unwrap_or_default());
        refuse_nested(conversion, positive.bucket_counts.len().max(negative.bucket_counts.len()))?;
        let exemplars = exemplars_text(conversion, &point.exemplars)?;
        self.common.push(conversion, metric, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags)?;
        self.count.push(point.count);
        self.sum.push(point.sum);
        self.scale.push(point.scale);
        self.zero_count.push(point.zero_count);
        self.positive_offset.push(positive.offset);
        self.positive.push(&array_text(&positive.bucket_counts));
        self.negative_offset.push(negative.offset);
        self.negative.push(&array_text(&negative.bucket_counts));
        self.exemplars.push(&exemplars);
        self.min.push(point.min);
        self.max.push(point.max);
        self.temporality.push(temporality);
        Ok(())
    }
}

impl SummaryRows {
    fn push(&mut self, conversion: &mut Conversion, metric: MetricWords, point: &SummaryDataPoint) -> Refused {
        refuse_nested(conversion, point.quantile_values.len())?;
        self.common.push(conversion, metric, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags)?;
        self.count.push(point.count);
        self.sum.push((point.flags & NO_RECORDED_VALUE == 0).then_some(point.sum));
        let out = self.quantiles.open();
        for (at, value) in point.quantile_values.iter().enumerate() {
            out.push_str(if at > 0 { ",[" } else { "[[" });
            push_number(out, value.quantile);
            out.push(',');
            push_number(out, value.value);
            out.push(']');
        }
        if !point.quantile_values.is_empty() {
            out.push(']');
        }
        self.quantiles.end();
        Ok(())
    }
}

fn refuse_nested(conversion: &Conversion, items: usize) -> Refused {
    let limit = conversion.limits.nested_items;
    if items > limit { Err(format!("a metric point has {items} buckets or quantiles; the limit is {limit}")) } else { Ok(()) }
}

/// Numbers as JSON; what JSON cannot say (NaN, infinities) is `null`.
fn push_number(out: &mut String, value: f64) {
    if value.is_finite() {
        let _ = write!(out, "{value}");
    } else {
        out.push_str("null");
    }
}

fn array_text<T: std::fmt::Display>(values: &[T]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let mut out = String::with_capacity(values.len() * 4 + 2);
    for (at, value) in values.iter().enumerate() {
        let _ = write!(out, "{}{value}", if at > 0 { ',' } else { '[' });
    }
    out.push(']');
    out
}

/// Exemplars as `[[{…},time,value,"span","trace"],…]`; nothing for none.
fn exemplars_text(conversion: &mut Conversion, exemplars: &[Exemplar]) -> std::result::Result<String, String> {
    let mut out = String::new();
    if exemplars.is_empty() {
        return Ok(out);
    }
    if exemplars.len() > conversion.limits.nested_items {
        return Err(format!("a metric point has {} exemplars; the limit is {}", exemplars.len(), conversion.limits.nested_items));
    }
    for (at, exemplar) in exemplars.iter().enumerate() {
        conversion.write_attributes("an exemplar", &exemplar.filtered_attributes)?;
        out.push_str(if at > 0 { ",[" } else { "[[" });
        out.push_str(object_or_empty(&conversion.scratch));
        let time = i64::try_from(exemplar.time_unix_nano).map_err(|_| "an exemplar is dated beyond the year 2262".to_owned())?;
        let _ = write!(out, ",{time},");
        match exemplar.value {
            Some(exemplar::Value::AsDouble(value)) => push_number(&mut out, value),
            Some(exemplar::Value::AsInt(value)) => push_number(&mut out, value as f64),
            None => out.push_str("null"),
        }
        out.push_str(",\"");
        push_hex(&mut out, &exemplar.span_id);
        out.push_str("\",\"");
        push_hex(&mut out, &exemplar.trace_id);
        out.push_str("\"]");
    }
    out.push(']');
    Ok(out)
}

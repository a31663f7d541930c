//! The metrics of one pod: cumulative since the pod started, exported at the end of every batch.
//!
//! Guards that a histogram counts exactly the spans the pod has exported, because recording a span is the only way to
//! change it. It must not invent values: gauges are handed in by whoever knows them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, Gauge, Histogram, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint,
    metric::Data, number_data_point::Value,
};

use crate::histogram::{DurationHistogram, Origin};
use crate::otlp::{nanos, text};
use crate::shape::Shape;

/// Something counted that has no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    /// An order, by how it ended.
    Order { outcome: &'static str },
    /// A reservation tried again.
    Retry,
    /// A connection nobody got in time.
    PoolTimeout { pool: &'static str },
}

impl Counter {
    fn describe(self) -> (&'static str, &'static str, &'static str, Option<KeyValue>) {
        match self {
            Self::Order { outcome } => {
                ("shop.orders", "Orders by outcome.", "{order}", Some(text("shop.order.outcome", outcome)))
            }
            Self::Retry => ("shop.reservation.retries", "Reservations tried again.", "{request}", None),
            Self::PoolTimeout { pool } => (
                "db.client.connection.timeouts",
                "Timeouts while obtaining a connection from the pool.",
                "{timeout}",
                Some(text("db.client.connection.pool.name", pool)),
            ),
        }
    }
}

/// One histogram series.
#[derive(Debug, Clone)]
struct Series {
    attributes: Vec<KeyValue>,
    histogram: DurationHistogram,
}

/// Everything one pod measures.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    /// When the pod started, nanoseconds.
    started: i64,
    series: BTreeMap<Shape, Series>,
    counters: BTreeMap<Counter, u64>,
    /// Requests served since the last export.
    pub(crate) served: u64,
    /// Whether anything was recorded since the last export.
    pub(crate) changed: bool,
    pauses: Vec<f64>,
    pause_count: u64,
    pause_sum: f64,
}

impl Recorder {
    /// A pod that starts at `started`.
    pub(crate) fn new(started: i64) -> Self {
        Self {
            started,
            series: BTreeMap::new(),
            counters: BTreeMap::new(),
            served: 0,
            changed: false,
            pauses: Vec::new(),
            pause_count: 0,
            pause_sum: 0.0,
        }
    }

    /// Counts a span.
    pub(crate) fn record(&mut self, shape: Shape, seconds: f64, origin: Origin) {
        let series = self.series.entry(shape).or_insert_with(|| Series {
            attributes: shape.attributes(),
            histogram: DurationHistogram::new(shape.instrument().exponential),
        });
        series.histogram.record(seconds, origin);
        self.served += u64::from(shape.is_server());
        self.changed = true;
    }

    /// Adds one.
    pub(crate) fn count(&mut self, counter: Counter) {
        *self.counters.entry(counter).or_default() += 1;
        self.changed = true;
    }

    /// A pause of the Go garbage collector in seconds.
    pub(crate) fn pause(&mut self, seconds: f64) {
        if self.pauses.len() >= 200 {
            self.pauses.remove(0);
        }
        self.pauses.push(seconds);
        self.pause_count += 1;
        self.pause_sum += seconds;
    }

    /// The histograms and counters as of `at`. Starts a new interval for exemplars and for `served`.
    pub(crate) fn export(&mut self, at: i64) -> Vec<Metric> {
        let mut metrics: Vec<Metric> = Vec::new();
        for (shape, series) in &mut self.series {
            let instrument = shape.instrument();
            if metrics.last().is_none_or(|last| last.name != instrument.name) {
                metrics.push(histogram_metric(*shape));
            }
            let Some(data) = metrics.last_mut().and_then(|last| last.data.as_mut()) else { continue };
            let attributes = series.attributes.clone();
            match data {
                Data::Histogram(data) => {
                    data.data_points.extend(series.histogram.explicit_point(attributes, self.started, at));
                }
                Data::ExponentialHistogram(data) => {
                    data.data_points.extend(series.histogram.exponential_point(attributes, self.started, at));
                }
                _ => {}
            }
        }
        for (counter, value) in &self.counters {
            let (name, description, unit, attribute) = counter.describe();
            let value = Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX));
            let point = number(value, attribute.into_iter().collect(), Some(self.started), at);
            match metrics.last_mut() {
                Some(Metric { name: last, data: Some(Data::Sum(sum)), .. }) if last == name => sum.data_points.push(point),
                _ => metrics.push(sum_metric(name, description, unit, true, vec![point])),
            }
        }
        metrics.extend(self.pause_summary(at));
        self.served = 0;
        self.changed = false;
        metrics
    }

    /// The summary the Prometheus client for Go exposes, over the last 200 pauses.
    fn pause_summary(&self, at: i64) -> Option<Metric> {
        let mut sorted = self.pauses.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let quantile_values = [0.0, 0.25, 0.5, 0.75, 1.0]
            .map(|quantile| ValueAtQuantile { quantile, value: sorted[(quantile * last as f64).round() as usize] })
            .to_vec();
        let point = SummaryDataPoint {
            start_time_unix_nano: nanos(self.started),
            time_unix_nano: nanos(at),
            count: self.pause_count,
            sum: self.pause_sum,
            quantile_values,
            ..SummaryDataPoint::default()
        };
        let data = Data::Summary(Summary { data_points: vec![point] });
        Some(metric("go_gc_duration_seconds", "Pause duration of garbage collection cycles.", "s", data))
    }
}

fn metric(name: &str, description: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn histogram_metric(shape: Shape) -> Metric {
    let instrument = shape.instrument();
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    let data = if instrument.exponential {
        Data::ExponentialHistogram(ExponentialHistogram { data_points: Vec::new(), aggregation_temporality })
    } else {
        Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality })
    };
    metric(instrument.name, instrument.description, "s", data)
}

/// A number as of `at`; counted since `started` if it is a sum.
pub(crate) fn number(value: Value, attributes: Vec<KeyValue>, started: Option<i64>, at: i64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: started.map_or(0, nanos),
        time_unix_nano: nanos(at),
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

/// A cumulative sum; one that is not monotonic is what OpenTelemetry calls an up-down counter.
pub(crate) fn sum_metric(
    name: &str,
    description: &str,
    unit: &str,
    is_monotonic: bool,
    data_points: Vec<NumberDataPoint>,
) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    metric(name, description, unit, Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic }))
}

/// A gauge.
pub(crate) fn gauge_metric(name: &str, description: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, description, unit, Data::Gauge(Gauge { data_points }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { at: 5, trace_id: [1; 16], span_id: [2; 8] };

    #[test]
    fn series_of_one_instrument_share_one_metric() {
        let mut recorder = Recorder::new(1);
        for status in [200, 500, 200] {
            recorder.record(Shape::HttpServer { method: "GET", route: "/", status }, 0.02, ORIGIN);
        }
        recorder.record(Shape::RpcServer { method: "shop.Payment/Charge", status: 200 }, 0.02, ORIGIN);
        for outcome in ["placed", "failed", "placed"] {
            recorder.count(Counter::Order { outcome });
        }
        recorder.pause(0.000_2);
        assert_eq!(recorder.served, 4);
        let metrics = recorder.export(9);
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["http.server.request.duration", "rpc.server.call.duration", "shop.orders", "go_gc_duration_seconds"]);
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert_eq!(histogram.data_points.iter().map(|point| point.count).collect::<Vec<_>>(), [2, 1]);
        let Some(Data::Sum(orders)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        assert_eq!(
            orders.data_points.iter().map(|p| p.value).collect::<Vec<_>>(),
            [Some(Value::AsInt(1)), Some(Value::AsInt(2))]
        );
        assert_eq!((recorder.served, recorder.changed), (0, false));
    }
}

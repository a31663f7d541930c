//! Metric points of OTLP/JSON, read point by point. The derived reader of the schema silently drops a value or a whole
//! metric that it cannot read; here nothing is dropped without being counted.

use std::fmt;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    Sum, Summary, SummaryDataPoint, exemplar, metric, number_data_point,
};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::lenient::{Readable, Record, Unread, whole, wrong_field};
use super::metrics::{NO_RECORDED_VALUE, point_count};

/// The metrics of one scope that can be read.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) list: Vec<Metric>,
    /// Points, not metrics.
    pub(super) unread: Unread,
}

impl Metrics {
    /// Points, readable or not.
    pub(super) fn points(&self) -> usize {
        self.list.iter().map(point_count).sum::<usize>() + self.unread.count as usize
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of metrics")
            }

            fn visit_unit<E>(self) -> Result<Metrics, E> {
                Ok(Metrics::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Metrics, A::Error> {
                let mut found = Metrics::default();
                while let Some(raw) = elements.next_element::<&RawValue>()? {
                    found.list.extend(read_metric(raw, &mut found.unread));
                }
                Ok(found)
            }
        }
        deserializer.deserialize_any(Elements)
    }
}

/// What names a metric.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    name: String,
    description: String,
    unit: String,
    metadata: Vec<KeyValue>,
}

/// The points of a metric; one of them is there.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kinds {
    gauge: Option<Points<NumberDataPoint>>,
    sum: Option<Points<NumberDataPoint>>,
    histogram: Option<Points<HistogramDataPoint>>,
    exponential_histogram: Option<Points<ExponentialHistogramDataPoint>>,
    summary: Option<Points<SummaryDataPoint>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "T: Record"))]
struct Points<T> {
    #[serde(rename = "dataPoints")]
    readable: Readable<T>,
    aggregation_temporality: i32,
    is_monotonic: bool,
}

impl<T> Default for Points<T> {
    fn default() -> Self {
        Self { readable: Readable::default(), aggregation_temporality: 0, is_monotonic: false }
    }
}

/// How many points a metric has, whatever they hold.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Counts {
    gauge: Count,
    sum: Count,
    histogram: Count,
    exponential_histogram: Count,
    summary: Count,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Count {
    data_points: Readable<Counted>,
}

/// A point nobody looks at.
struct Counted;

impl Record for Counted {
    const NAME: &'static str = "metric point";
    fn read(_: &RawValue) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Points of a metric that cannot be read; at least the metric itself.
fn count(raw: &RawValue) -> usize {
    let counted = serde_json::from_str::<Counts>(raw.get()).map_or(0, |counts| {
        let kinds = [counts.gauge, counts.sum, counts.histogram, counts.exponential_histogram, counts.summary];
        kinds.iter().map(|kind| kind.data_points.list.len()).sum()
    });
    counted.max(1)
}

fn read_metric(raw: &RawValue, unread: &mut Unread) -> Option<Metric> {
    let read = whole::<Head>(raw).and_then(|head| Ok((head, whole::<Kinds>(raw)?)));
    let (head, kinds) = match read {
        Ok(read) => read,
        Err(reason) => {
            unread.add(count(raw), || format!("a metric: {reason}"));
            return None;
        }
    };
    let data = if let Some(points) = kinds.gauge {
        unread.absorb(points.readable.unread);
        Some(metric::Data::Gauge(Gauge { data_points: points.readable.list }))
    } else if let Some(points) = kinds.sum {
        unread.absorb(points.readable.unread);
        Some(metric::Data::Sum(Sum {
            data_points: points.readable.list,
            aggregation_temporality: points.aggregation_temporality,
            is_monotonic: points.is_monotonic,
        }))
    } else if let Some(points) = kinds.histogram {
        unread.absorb(points.readable.unread);
        Some(metric::Data::Histogram(Histogram {
            data_points: points.readable.list,
            aggregation_temporality: points.aggregation_temporality,
        }))
    } else if let Some(points) = kinds.exponential_histogram {
        unread.absorb(points.readable.unread);
        Some(metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: points.readable.list,
            aggregation_temporality: points.aggregation_temporality,
        }))
    } else {
        kinds.summary.map(|points| {
            unread.absorb(points.readable.unread);
            metric::Data::Summary(Summary { data_points: points.readable.list })
        })
    };
    Some(Metric { name: head.name, description: head.description, unit: head.unit, metadata: head.metadata, data })
}

impl Record for NumberDataPoint {
    const NAME: &'static str = "metric point";
    fn read(raw: &RawValue) -> Result<Self, String> {
        let mut point: Self = whole(raw)?;
        if point.value.is_none() {
            point.value = whole::<Either>(raw)?.number()?.map(|number| match number {
                Number::Double(value) => number_data_point::Value::AsDouble(value),
                Number::Int(value) => number_data_point::Value::AsInt(value),
            });
        }
        read_exemplars(raw, &mut point.exemplars)?;
        Ok(point)
    }
}

impl Record for HistogramDataPoint {
    const NAME: &'static str = "histogram point";
    fn read(raw: &RawValue) -> Result<Self, String> {
        let mut point: Self = whole(raw)?;
        read_exemplars(raw, &mut point.exemplars)?;
        Ok(point)
    }
}

impl Record for ExponentialHistogramDataPoint {
    const NAME: &'static str = "exponential histogram point";
    fn read(raw: &RawValue) -> Result<Self, String> {
        let mut point: Self = whole(raw)?;
        read_exemplars(raw, &mut point.exemplars)?;
        Ok(point)
    }
}

impl Record for SummaryDataPoint {
    const NAME: &'static str = "summary point";
    fn read(raw: &RawValue) -> Result<Self, String> {
        whole(raw)
    }
}

/// A number in one of two fields.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Either {
    as_double: Option<Box<RawValue>>,
    as_int: Option<Box<RawValue>>,
}

enum Number {
    Double(f64),
    Int(i64),
}

impl Either {
    /// The number; nothing where neither field is there.
    fn number(&self) -> Result<Option<Number>, String> {
        if let Some(raw) = &self.as_int {
            let text = text_or_number(raw);
            let number = text.trim().parse().map_err(|_| wrong_field("asInt", "it is not such a number"))?;
            return Ok(Some(Number::Int(number)));
        }
        let Some(raw) = &self.as_double else { return Ok(None) };
        let text = text_or_number(raw);
        let number = match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            other => {
                let parsed = other.parse::<f64>().ok().filter(|number| number.is_finite());
                parsed.ok_or_else(|| wrong_field("asDouble", "it is not such a number"))?
            }
        };
        Ok(Some(Number::Double(number)))
    }
}

/// The characters of a number, plain or as text; anything else as it stands.
fn text_or_number(raw: &RawValue) -> String {
    serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Exemplars {
    exemplars: Vec<Either>,
}

/// Gives exemplars their values where the derived reader left them out.
fn read_exemplars(raw: &RawValue, exemplars: &mut [Exemplar]) -> Result<(), String> {
    if exemplars.iter().all(|exemplar| exemplar.value.is_some()) {
        return Ok(());
    }
    let values = whole::<ExemplarNumbers>(raw)?;
    for (exemplar, value) in exemplars.iter_mut().zip(values.0) {
        exemplar.value = value;
    }
    Ok(())
}

/// The values of a point's exemplars.
struct ExemplarNumbers(Vec<Option<exemplar::Value>>);

impl<'de> Deserialize<'de> for ExemplarNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Exemplars::deserialize(deserializer)?;
        let numbers = found.exemplars.iter().map(|either| {
            either.number().map(|number| {
                number.map(|number| match number {
                    Number::Double(value) => exemplar::Value::AsDouble(value),
                    Number::Int(value) => exemplar::Value::AsInt(value),
                })
            })
        });
        numbers.collect::<Result<_, _>>().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Whether the derived reader may have dropped something of this request without saying so.
pub(super) fn may_lack_something(request: &ExportMetricsServiceRequest) -> bool {
    let lacks = |exemplars: &[Exemplar]| exemplars.iter().any(|exemplar| exemplar.value.is_none());
    let number =
        |point: &NumberDataPoint| (point.value.is_none() && point.flags & NO_RECORDED_VALUE == 0) || lacks(&point.exemplars);
    let scopes = request.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
    scopes.flat_map(|scoped| &scoped.metrics).any(|metric| match &metric.data {
        None => true,
        Some(metric::Data::Gauge(data)) => data.data_points.iter().any(number),
        Some(metric::Data::Sum(data)) => data.data_points.iter().any(number),
        Some(metric::Data::Histogram(data)) => data.data_points.iter().any(|point| lacks(&point.exemplars)),
        Some(metric::Data::ExponentialHistogram(data)) => data.data_points.iter().any(|point| lacks(&point.exemplars)),
        Some(metric::Data::Summary(_)) => false,
    })
}

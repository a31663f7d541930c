//! The JSON of the Prometheus HTTP API, as far as it is read. Guards against answers of a wrong shape: whatever does
//! not fit is an error, never a default. Shapes: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::borrow::Cow;
use std::collections::BTreeMap;

use portcullis_model::{Sample, Series, Timestamp};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// Labels of a series.
pub(crate) type LabelSet = BTreeMap<String, String>;

/// The frame around every answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) status: String,
    #[serde(default = "Option::default")]
    pub(crate) data: Option<T>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) infos: Vec<String>,
    /// VictoriaMetrics cluster: some storage nodes did not answer.
    #[serde(default, rename = "isPartial")]
    pub(crate) is_partial: bool,
}

/// An error answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Failure {
    #[serde(default, rename = "errorType")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) error: String,
}

/// Result of a query.
#[derive(Debug, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
pub(crate) enum QueryData {
    Vector(Vec<VectorSeries>),
    Matrix(Vec<MatrixSeries>),
    Scalar(Point),
    String(IgnoredAny),
}

/// One series at one instant.
#[derive(Debug, Deserialize)]
pub(crate) struct VectorSeries {
    pub(crate) metric: LabelSet,
    #[serde(default)]
    pub(crate) value: Option<Point>,
    #[serde(default)]
    histogram: Option<IgnoredAny>,
}

/// One series over time.
#[derive(Debug, Deserialize)]
pub(crate) struct MatrixSeries {
    metric: LabelSet,
    #[serde(default)]
    values: Vec<Point>,
    #[serde(default)]
    histograms: Vec<IgnoredAny>,
}

/// `[ <seconds>, "<value>" ]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) at: Timestamp,
    pub(crate) value: f64,
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Pair<'a>(f64, #[serde(borrow)] Cow<'a, str>);
        let Pair(seconds, text) = Pair::deserialize(deserializer)?;
        let value = text.parse().map_err(|_| D::Error::custom("a sample value is not a number"))?;
        let at = from_seconds(seconds).ok_or_else(|| D::Error::custom("a sample time is not a time"))?;
        Ok(Self { at, value })
    }
}

/// Seconds with a fraction, to the millisecond that Prometheus keeps.
pub(crate) fn from_seconds(seconds: f64) -> Option<Timestamp> {
    let millis = (seconds * 1_000.0).round();
    (millis.abs() < 9.0e12).then(|| Timestamp::from_nanos(millis as i64 * 1_000_000))
}

/// Series of a result, and what could not become part of them.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) series: Vec<Series>,
    /// Samples that were infinite.
    pub(crate) infinite: u64,
    /// Series that hold native histograms instead of numbers.
    pub(crate) histograms: u64,
}

impl QueryData {
    /// The series with their finite samples. NaN (stale markers, quantiles of nothing) is an absent sample; a series
    /// without a sample is absent.
    pub(crate) fn into_series(self) -> Shown {
        let mut shown = Shown::default();
        match self {
            Self::Vector(vector) => {
                for series in vector {
                    shown.add(series.metric, series.value.into_iter().collect(), series.histogram.is_some());
                }
            }
            Self::Matrix(matrix) => {
                for series in matrix {
                    shown.add(series.metric, series.values, !series.histograms.is_empty());
                }
            }
            Self::Scalar(point) => shown.add(LabelSet::new(), vec![point], false),
            Self::String(_) => {}
        }
        shown
    }

    /// Values by labels of an instant vector or scalar.
    pub(crate) fn into_values(self) -> Vec<(LabelSet, f64)> {
        let last = |s: Series| s.samples.last().map(|sample| sample.value).map(|value| (s.labels, value));
        self.into_series().series.into_iter().filter_map(last).collect()
    }
}

impl Shown {
    fn add(&mut self, labels: LabelSet, points: Vec<Point>, histogram: bool) {
        self.histograms += u64::from(histogram && points.is_empty());
        let mut samples: Vec<Sample> = Vec::with_capacity(points.len());
        for point in points {
            if point.value.is_finite() {
                samples.push(Sample { at: point.at, value: point.value });
            } else if point.value.is_infinite() {
                self.infinite += 1;
            }
        }
        samples.sort_by_key(|s| s.at);
        if !samples.is_empty() {
            self.series.push(Series { labels, samples });
        }
    }
}

/// One entry of `/metadata`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Metadata {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) unit: String,
    #[serde(default)]
    pub(crate) help: String,
}

/// `/targets`
#[derive(Debug, Deserialize)]
pub(crate) struct Targets {
    #[serde(rename = "activeTargets")]
    pub(crate) active: Vec<Target>,
}

/// One scrape target.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    #[serde(default)]
    pub(crate) labels: LabelSet,
    #[serde(default, rename = "scrapeInterval")]
    pub(crate) scrape_interval: String,
}

/// `/rules`
#[derive(Debug, Deserialize)]
pub(crate) struct Rules {
    #[serde(default)]
    pub(crate) groups: Vec<RuleGroup>,
}

/// A rule group.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleGroup {
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
}

/// A rule, recording or alerting.
#[derive(Debug, Deserialize)]
pub(crate) struct Rule {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
}

/// `/alerts`
#[derive(Debug, Deserialize)]
pub(crate) struct Alerts {
    pub(crate) alerts: Vec<AlertEntry>,
}

/// One active alert.
#[derive(Debug, Deserialize)]
pub(crate) struct AlertEntry {
    pub(crate) labels: LabelSet,
    #[serde(default)]
    pub(crate) annotations: LabelSet,
    pub(crate) state: String,
    #[serde(default, rename = "activeAt")]
    pub(crate) active_at: Option<String>,
    #[serde(default)]
    pub(crate) value: Option<String>,
}

/// Exemplars of one series.
#[derive(Debug, Deserialize)]
pub(crate) struct SeriesExemplars {
    #[serde(rename = "seriesLabels")]
    pub(crate) labels: LabelSet,
    #[serde(default)]
    pub(crate) exemplars: Vec<ExemplarEntry>,
}

/// One exemplar.
#[derive(Debug, Deserialize)]
pub(crate) struct ExemplarEntry {
    #[serde(default)]
    pub(crate) labels: LabelSet,
    #[serde(deserialize_with = "number_or_text")]
    pub(crate) value: f64,
    pub(crate) timestamp: f64,
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(f64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(|_| D::Error::custom("an exemplar value is not a number")),
    }
}

/// `/status/buildinfo`
#[derive(Debug, Deserialize)]
pub(crate) struct BuildInfo {
    #[serde(default)]
    pub(crate) version: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<QueryData, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn absent_is_not_zero() {
        let data = read(
            r#"{"resultType":"matrix","result":[
              {"metric":{"i":"a"},"values":[[1.5,"1"],[2,"NaN"],[3,"+Inf"],[4,"2e3"]]},
              {"metric":{"i":"b"},"values":[[1,"NaN"]]},
              {"metric":{"i":"c"},"histograms":[[1,{"count":"1"}]]}]}"#,
        );
        let shown = data.unwrap().into_series();
        assert_eq!((shown.series.len(), shown.infinite, shown.histograms), (1, 1, 1));
        let values: Vec<f64> = shown.series[0].samples.iter().map(|s| s.value).collect();
        assert_eq!(values, [1.0, 2000.0]);
        assert_eq!(shown.series[0].samples[0].at, Timestamp::from_nanos(1_500_000_000));
    }

    #[test]
    fn wrong_shapes_are_errors() {
        for text in [
            "{}",
            r#"{"resultType":"matrix"}"#,
            r#"{"resultType":"tensor","result":[]}"#,
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1]}]}"#,
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1,"one"]}]}"#,
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1e300,"1"]}]}"#,
            r#"{"resultType":"vector","result":[{"value":[1,"1"]}]}"#,
            r#"{"resultType":"vector","result":[{"metric":{"a":1},"value":[1,"1"]}]}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}

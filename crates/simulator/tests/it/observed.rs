//! Flattens batches into what a store would see. Shared by the other test files.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use portcullis_model::Timestamp;
use portcullis_simulator::{Batch, Scenario, Simulation, SimulationConfig};

/// 2026-03-01T10:00:00Z.
pub(crate) const START: i64 = 1_772_359_200;

/// Thirty minutes with the onset after eighteen.
pub(crate) fn config(seed: u64, scenario: Scenario) -> SimulationConfig {
    let start = Timestamp::from_seconds(START);
    SimulationConfig { scenario, ..SimulationConfig::new(seed, start, start.plus(Duration::from_mins(30))) }
}

/// Twelve minutes of less traffic, with the onset after three: enough for whatever holds at any time.
pub(crate) fn short(seed: u64, scenario: Scenario) -> SimulationConfig {
    let start = Timestamp::from_seconds(START);
    SimulationConfig {
        scenario,
        end: start.plus(Duration::from_mins(12)),
        incident_at: start.plus(Duration::from_mins(3)),
        requests_per_second: 10.0,
        ..config(seed, scenario)
    }
}

pub(crate) fn run(config: &SimulationConfig) -> Vec<Batch> {
    Simulation::new(config.clone()).unwrap().collect()
}

/// The text or number of an attribute.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("unexpected attribute value {other:?}"),
    }
}

fn of(resource: Option<&Resource>, key: &str) -> String {
    attribute(&resource.expect("no resource").attributes, key).expect(key)
}

/// A span with where it came from and in which batch.
pub(crate) struct SeenSpan {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) exported: Timestamp,
    pub(crate) span: Span,
}

impl SeenSpan {
    pub(crate) fn start(&self) -> i64 {
        self.span.start_time_unix_nano as i64
    }

    pub(crate) fn milliseconds(&self) -> f64 {
        (self.span.end_time_unix_nano - self.span.start_time_unix_nano) as f64 / 1e6
    }

    pub(crate) fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

pub(crate) fn spans(batches: &[Batch]) -> Vec<SeenSpan> {
    let mut seen = Vec::new();
    for batch in batches {
        for resource in &batch.traces.resource_spans {
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                seen.push(SeenSpan {
                    service: of(resource.resource.as_ref(), "service.name"),
                    version: of(resource.resource.as_ref(), "service.version"),
                    exported: batch.at,
                    span: span.clone(),
                });
            }
        }
    }
    seen
}

/// A log record with where it came from and in which batch.
pub(crate) struct SeenLog {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) exported: Timestamp,
    pub(crate) record: LogRecord,
}

impl SeenLog {
    pub(crate) fn body(&self) -> &str {
        match self.record.body.as_ref().and_then(|body| body.value.as_ref()) {
            Some(Value::StringValue(text)) => text,
            other => panic!("unexpected body {other:?}"),
        }
    }
}

pub(crate) fn logs(batches: &[Batch]) -> Vec<SeenLog> {
    let mut seen = Vec::new();
    for batch in batches {
        for resource in &batch.logs.resource_logs {
            for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                seen.push(SeenLog {
                    service: of(resource.resource.as_ref(), "service.name"),
                    version: of(resource.resource.as_ref(), "service.version"),
                    exported: batch.at,
                    record: record.clone(),
                });
            }
        }
    }
    seen
}

/// A metric of one pod in one batch.
pub(crate) struct SeenMetric {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) instance: String,
    pub(crate) exported: Timestamp,
    pub(crate) metric: Metric,
}

pub(crate) fn metrics(batches: &[Batch]) -> Vec<SeenMetric> {
    let mut seen = Vec::new();
    for batch in batches {
        for resource in &batch.metrics.resource_metrics {
            for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                seen.push(SeenMetric {
                    service: of(resource.resource.as_ref(), "service.name"),
                    version: of(resource.resource.as_ref(), "service.version"),
                    instance: of(resource.resource.as_ref(), "service.instance.id"),
                    exported: batch.at,
                    metric: metric.clone(),
                });
            }
        }
    }
    seen
}

/// The value below which this share of the values lies.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    assert!(!values.is_empty(), "no values");
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

/// How often each item occurs.
pub(crate) fn tally<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

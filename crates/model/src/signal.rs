//! The signals of production in one normal form, whatever backend they come from.
//!
//! Field names follow the OpenTelemetry data model (<https://opentelemetry.io/docs/specs/otel/>).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A kind of telemetry a source can answer. Sources have a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Time series.
    Metrics,
    /// Log records.
    Logs,
    /// Spans.
    Traces,
    /// Alerts and their rules.
    Alerts,
    /// Read-only SQL over its records.
    Sql,
}

impl Signal {
    /// The name as it appears in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Alerts => "alerts",
            Self::Sql => "sql",
        }
    }
}

/// A service and where it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `service.name`, or what stands for it in the source.
    pub name: String,
    /// Signals seen for it.
    pub signals: Vec<Signal>,
    /// Last time any signal was seen, if the source knows.
    pub last_seen: Option<Timestamp>,
}

/// What a metric measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricDescriptor {
    /// Name in the source.
    pub name: String,
    /// Kind of instrument.
    pub kind: MetricKind,
    /// Unit (UCUM, or what the source says); empty when unknown.
    pub unit: String,
    /// Help text of whoever instrumented it: untrusted.
    pub description: String,
    /// Label names seen on it; may be empty when the source was not asked.
    pub labels: Vec<String>,
    /// Number of series in the asked window, when known.
    pub series: Option<u64>,
}

/// Kind of instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// Goes up and down.
    Gauge,
    /// Only grows (monotonic sum).
    Counter,
    /// Classic buckets.
    Histogram,
    /// Native or exponential buckets.
    ExponentialHistogram,
    /// Quantiles computed by the client.
    Summary,
    /// The source does not say.
    Unknown,
}

/// One point of a series. A missing point is missing, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Value in the series' unit; NaN never appears here (the source adapter drops stale markers).
    pub value: f64,
}

/// One time series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Labels that identify it within the answer.
    pub labels: BTreeMap<String, String>,
    /// Samples in time order.
    pub samples: Vec<Sample>,
}

/// A sample that links to a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Labels of the series it belongs to.
    pub labels: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
    /// Observed value.
    pub value: f64,
    /// Trace it came from, lower-case hex.
    pub trace_id: Option<String>,
}

/// Severity by OpenTelemetry's number ranges: 1-4 trace, 5-8 debug, 9-12 info, 13-16 warn, 17-20 error, 21-24 fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Numbers 1 to 4.
    Trace,
    /// Numbers 5 to 8.
    Debug,
    /// Numbers 9 to 12.
    Info,
    /// Numbers 13 to 16.
    Warn,
    /// Numbers 17 to 20.
    Error,
    /// Numbers 21 to 24.
    Fatal,
}

impl Severity {
    /// Every severity, lowest first.
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// From a severity number; 0 (unspecified) and anything above 24 is `None`.
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            1..=4 => Some(Self::Trace),
            5..=8 => Some(Self::Debug),
            9..=12 => Some(Self::Info),
            13..=16 => Some(Self::Warn),
            17..=20 => Some(Self::Error),
            21..=24 => Some(Self::Fatal),
            _ => None,
        }
    }

    /// The first number of the range.
    pub fn lowest_number(self) -> i32 {
        match self {
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }

    /// From the words loggers use, in any case: `warning`, `ERR`, `critical`, `notice`, ...
    pub fn from_text(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "trace" | "finest" | "verbose" => Some(Self::Trace),
            "debug" | "dbg" | "fine" => Some(Self::Debug),
            "info" | "information" | "informational" | "notice" | "inf" => Some(Self::Info),
            "warn" | "warning" | "wrn" => Some(Self::Warn),
            "error" | "err" | "severe" => Some(Self::Error),
            "fatal" | "critical" | "crit" | "alert" | "emergency" | "emerg" | "panic" => Some(Self::Fatal),
            _ => None,
        }
    }

    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// One log record. Body and attribute values are untrusted text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Event time, or observed time where the sender gave none.
    pub at: Timestamp,
    /// Severity, when the record has one.
    pub severity: Option<Severity>,
    /// The service that wrote it; empty when unknown.
    pub service: Arc<str>,
    /// The text.
    pub body: String,
    /// Record and resource attributes worth showing.
    pub attributes: BTreeMap<String, String>,
    /// Lower-case hex, empty when the record belongs to no trace.
    pub trace_id: String,
    /// Lower-case hex, empty when the record belongs to no span.
    pub span_id: String,
}

/// Role of a span in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// Not said.
    Unspecified,
    /// Inside one process.
    Internal,
    /// Handles a request.
    Server,
    /// Makes a request.
    Client,
    /// Puts a message on a queue.
    Producer,
    /// Takes a message from a queue.
    Consumer,
}

/// Outcome of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanStatus {
    /// Not said; by convention fine.
    Unset,
    /// Said to be fine.
    Ok,
    /// Failed.
    Error,
}

/// Something that happened inside a span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// When.
    pub at: Timestamp,
    /// Its name (`exception` for errors).
    pub name: String,
    /// Its attributes: untrusted.
    pub attributes: BTreeMap<String, String>,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Lower-case hex, 32 digits.
    pub trace_id: String,
    /// Lower-case hex, 16 digits.
    pub span_id: String,
    /// Empty for a root.
    pub parent_span_id: String,
    /// The service that did the work.
    pub service: Arc<str>,
    /// Operation.
    pub name: String,
    /// Role.
    pub kind: SpanKind,
    /// Start time.
    pub start: Timestamp,
    /// Nanoseconds.
    pub duration_nanos: u64,
    /// Outcome.
    pub status: SpanStatus,
    /// Text with the status: untrusted.
    pub status_message: String,
    /// Attributes: untrusted.
    pub attributes: BTreeMap<String, String>,
    /// Events in time order.
    pub events: Vec<SpanEvent>,
}

/// A trace: all spans of one trace id that a source holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Lower-case hex, 32 digits.
    pub trace_id: String,
    /// Its spans, by start time.
    pub spans: Vec<Span>,
    /// Whether the source held more spans than it returned.
    pub truncated: bool,
}

/// One line of a trace search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// Lower-case hex, 32 digits.
    pub trace_id: String,
    /// Service of the root span; of the earliest known span when the root is missing.
    pub root_service: String,
    /// Operation of the root span.
    pub root_name: String,
    /// Start of the earliest span.
    pub start: Timestamp,
    /// From the earliest start to the latest end, nanoseconds.
    pub duration_nanos: u64,
    /// Spans known to the source.
    pub spans: u64,
    /// Spans with an error status.
    pub error_spans: u64,
    /// Services that took part.
    pub services: Vec<String>,
}

/// State of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// The condition holds, but not yet for long enough.
    Pending,
    /// Firing.
    Firing,
    /// Over.
    Resolved,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Rule name.
    pub name: String,
    /// State.
    pub state: AlertState,
    /// Severity label, if any.
    pub severity: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations: untrusted.
    pub annotations: BTreeMap<String, String>,
    /// When the condition began to hold.
    pub active_since: Option<Timestamp>,
    /// Value that made it fire, as the source prints it.
    pub value: Option<String>,
}

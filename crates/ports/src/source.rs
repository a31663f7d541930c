//! A source answers signals by capability. One trait for every backend; what it cannot answer it does not claim.
//!
//! Every method takes the [`Permit`] and confines its answer to `permit.scope()`; it never returns records
//! outside of it. An empty answer means "looked, nothing there"; a failure is a [`Fault`], never an empty answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{
    Alert, AlertState, Exemplar, Fault, FaultCode, LogRecord, MetricDescriptor, Series, Service, Severity, Signal, SourceName,
    Span, TimeWindow, Timestamp, Trace, TraceSummary,
};
use portcullis_policy::Permit;
use serde_json::Value;

/// How a label or attribute must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOperator {
    /// Exactly this value.
    Equal,
    /// Any other value, or absent.
    NotEqual,
    /// Fully matches the regular expression (RE2 syntax, linear time).
    Regex,
    /// Does not.
    NotRegex,
}

/// A condition on a label or attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMatch {
    /// Label or attribute name.
    pub name: String,
    /// Comparison.
    pub operator: MatchOperator,
    /// Value or expression.
    pub value: String,
}

/// A condition on free text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextFilter {
    /// Contains these words, case-insensitively.
    Contains(String),
    /// Some part matches the regular expression (linear time, case-sensitive).
    Regex(String),
}

/// A number of matches, honest about how well it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// Counted.
    Exact(u64),
    /// Stopped counting there.
    AtLeast(u64),
    /// The source does not say.
    Unknown,
}

/// Metrics that mean the same everywhere, resolved by each source against its own conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SemanticMetric {
    /// CPU use, ratio of one core (1.0 = one core busy) unless the unit says otherwise.
    Cpu,
    /// Resident or working-set memory, bytes.
    Memory,
    /// Requests served per second.
    RequestRate,
    /// Failed share of requests, ratio 0..1.
    ErrorRate,
    /// Median latency, seconds.
    LatencyP50,
    /// 95th percentile latency, seconds.
    LatencyP95,
    /// 99th percentile latency, seconds.
    LatencyP99,
    /// How full the fullest pool, queue or limit is, ratio 0..1.
    Saturation,
}

impl SemanticMetric {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Memory,
        Self::RequestRate,
        Self::ErrorRate,
        Self::LatencyP50,
        Self::LatencyP95,
        Self::LatencyP99,
        Self::Saturation,
    ];

    /// The name an agent uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::RequestRate => "request_rate",
            Self::ErrorRate => "error_rate",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::Saturation => "saturation",
        }
    }

    /// From the name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == name)
    }
}

/// Which metric is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricSelector {
    /// A metric by meaning.
    Semantic(SemanticMetric),
    /// A metric by its name in the source. Counters come back as rates per second, histograms as p95 unless
    /// the aggregation says otherwise.
    Named(String),
    /// A raw query in the source's own language (PromQL), confined to the scope by the source.
    Raw(String),
}

/// How several series become one. Without it every matching series is returned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregation {
    /// Sum.
    Sum,
    /// Mean.
    Average,
    /// Smallest.
    Minimum,
    /// Largest.
    Maximum,
    /// Number of series.
    Count,
    /// Quantile 0..1; over histogram buckets where the metric is a histogram.
    Quantile(f64),
}

/// A metric question.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRequest {
    /// Window.
    pub window: TimeWindow,
    /// Distance of samples; the source chooses when absent (about 60 to 240 points).
    pub step: Option<Duration>,
    /// Which metric.
    pub metric: MetricSelector,
    /// Only this service.
    pub service: Option<String>,
    /// Further conditions.
    pub matchers: Vec<LabelMatch>,
    /// Labels to keep apart when aggregating.
    pub group_by: Vec<String>,
    /// How to merge series; `None` keeps every series (for semantic metrics: per instance).
    pub aggregation: Option<Aggregation>,
    /// Series returned at most; beyond it `total_series` says how many there were.
    pub max_series: usize,
}

/// Answer to a metric question.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricAnswer {
    /// Series, worst or largest first where the source was able to say.
    pub series: Vec<Series>,
    /// How many there were.
    pub total_series: Total,
    /// Metric name in the source that answered.
    pub metric: String,
    /// Unit: `s`, `By`, `1` (ratio), `1/s`, or what the source says; empty when unknown.
    pub unit: String,
    /// The query that was run, for a person to repeat.
    pub query: String,
    /// Distance of samples.
    pub step: Duration,
    /// Warnings of the source: untrusted.
    pub warnings: Vec<String>,
    /// Links to traces, where the source has them.
    pub exemplars: Vec<Exemplar>,
}

/// Which metrics exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricCatalogueRequest {
    /// Window in which they must have samples.
    pub window: TimeWindow,
    /// Only metrics of this service.
    pub service: Option<String>,
    /// Only names containing this, case-insensitively.
    pub name_contains: Option<String>,
    /// At most this many.
    pub limit: usize,
    /// Whether to also count series and list label names (costs more).
    pub with_labels: bool,
}

/// Which metrics exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricCatalogueAnswer {
    /// Metrics by name.
    pub metrics: Vec<MetricDescriptor>,
    /// How many matched.
    pub total: Total,
}

/// Values of one label or attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelValuesRequest {
    /// Window.
    pub window: TimeWindow,
    /// Signal whose labels are meant.
    pub signal: Signal,
    /// Label name.
    pub label: String,
    /// Only on this metric.
    pub metric: Option<String>,
    /// Only of this service.
    pub service: Option<String>,
    /// Only values starting with this.
    pub prefix: String,
    /// At most this many.
    pub limit: usize,
}

/// Which log records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    /// Window.
    pub window: TimeWindow,
    /// Only this service.
    pub service: Option<String>,
    /// Only this severity and above.
    pub minimum_severity: Option<Severity>,
    /// Only bodies that fit.
    pub text: Option<TextFilter>,
    /// Conditions on attributes (record attributes, then resource attributes).
    pub attributes: Vec<LabelMatch>,
    /// Only records of this trace.
    pub trace_id: Option<String>,
}

/// Where a page of log records ended: the time of the last record and how many records of that very time were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// Time of the last record shown.
    pub at: Timestamp,
    /// Records at exactly that time already shown.
    pub shown_at: u32,
}

/// A question for records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Which.
    pub filter: LogFilter,
    /// At most this many.
    pub limit: usize,
    /// Newest first, or oldest first.
    pub newest_first: bool,
    /// Continue after this position.
    pub after: Option<LogPosition>,
}

/// Records.
#[derive(Debug, Clone, PartialEq)]
pub struct LogAnswer {
    /// In the order asked for.
    pub records: Vec<LogRecord>,
    /// How many match the filter in all.
    pub total: Total,
    /// Where to go on, when there is more.
    pub next: Option<LogPosition>,
}

/// Counting records instead of reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCountRequest {
    /// Which.
    pub filter: LogFilter,
    /// `service`, `severity`, or attribute names; empty for one number.
    pub by: Vec<String>,
    /// Also over time, in buckets of this length.
    pub step: Option<Duration>,
    /// Largest groups kept.
    pub top: usize,
}

/// One group of a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCount {
    /// Values by the fields asked for; absent fields are absent here.
    pub key: BTreeMap<String, String>,
    /// Records.
    pub count: u64,
    /// Records per bucket, when asked for; buckets without records are absent.
    pub over_time: Vec<(Timestamp, u64)>,
}

/// Counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCountAnswer {
    /// Largest first.
    pub groups: Vec<LogCount>,
    /// Groups in all.
    pub total_groups: Total,
    /// Records in all.
    pub total: Total,
}

/// A record handed to a scan, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// When.
    pub at: Timestamp,
    /// Severity.
    pub severity: Option<Severity>,
    /// Service.
    pub service: &'a str,
    /// Text.
    pub body: &'a str,
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanEnd {
    /// Items handed over.
    pub scanned: u64,
    /// Whether that was all there is; `false` when the row budget stopped it.
    pub complete: bool,
}

/// Which spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanFilter {
    /// Only spans of these services; empty for all in scope.
    pub services: BTreeSet<String>,
    /// Only spans with an error status.
    pub errors_only: bool,
}

/// Order of a trace search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceOrder {
    /// Slowest first.
    Slowest,
    /// Newest first.
    Newest,
}

/// A trace search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRequest {
    /// Window in which the trace must have a matching span.
    pub window: TimeWindow,
    /// A span of this service must be in it.
    pub service: Option<String>,
    /// A span (of that service, if given) with this name must be in it.
    pub operation: Option<String>,
    /// The matching span must be at least this long.
    pub minimum_duration: Option<Duration>,
    /// The matching span must have failed.
    pub errors_only: bool,
    /// Conditions on attributes of the matching span (span attributes, then resource attributes).
    pub attributes: Vec<LabelMatch>,
    /// Order.
    pub order: TraceOrder,
    /// At most this many.
    pub limit: usize,
}

/// Found traces.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceAnswer {
    /// In the order asked for.
    pub traces: Vec<TraceSummary>,
    /// How many match.
    pub total: Total,
}

/// Which alerts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertRequest {
    /// Only in this state.
    pub state: Option<AlertState>,
    /// Only with this service label.
    pub service: Option<String>,
}

/// Alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertAnswer {
    /// Firing first, then oldest first.
    pub alerts: Vec<Alert>,
    /// Alerting rules the source has, firing or not.
    pub rules: Option<u64>,
}

/// A read-only SQL question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRequest {
    /// One SELECT or WITH statement.
    pub statement: String,
    /// Rows returned at most.
    pub max_rows: usize,
}

/// A result column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlColumn {
    /// Name.
    pub name: String,
    /// Type as the engine names it.
    pub kind: String,
}

/// Rows.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlAnswer {
    /// Columns.
    pub columns: Vec<SqlColumn>,
    /// Rows in column order.
    pub rows: Vec<Vec<Value>>,
    /// Whether there were more rows than asked for.
    pub truncated: bool,
}

/// Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// By name.
    pub services: Vec<Service>,
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHealth {
    /// Whether it answered.
    pub up: bool,
    /// Version it reports: untrusted.
    pub version: Option<String>,
    /// How long the check took.
    pub latency: Duration,
    /// Client-safe words when something is wrong.
    pub message: Option<String>,
}

fn unsupported(source: &SourceName, what: &str) -> Fault {
    Fault::new(FaultCode::NoSource, format!("source '{source}' cannot answer {what}"))
}

/// A configured backend, or the embedded store.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its unique name.
    fn name(&self) -> &SourceName;

    /// Kind of backend, such as `prometheus` or `embedded`.
    fn kind(&self) -> &'static str;

    /// Signals it can answer.
    fn capabilities(&self) -> BTreeSet<Signal>;

    /// Whether it has anything for this tenant. To others it looks as if it did not exist.
    fn serves(&self, _tenant: &portcullis_model::TenantId) -> bool {
        true
    }

    /// One cheap check. Never hangs: bounded by the permit's deadline.
    async fn health(&self, permit: &Permit) -> SourceHealth;

    /// Services seen in the window.
    async fn services(&self, permit: &Permit, window: TimeWindow) -> Result<ServiceAnswer, Fault>;

    /// Which metrics exist.
    async fn metric_catalogue(&self, permit: &Permit, request: &MetricCatalogueRequest) -> Result<MetricCatalogueAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "metrics"))
    }

    /// Values of a label.
    async fn label_values(&self, permit: &Permit, request: &LabelValuesRequest) -> Result<Vec<String>, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "label values"))
    }

    /// Series over a window.
    async fn metrics(&self, permit: &Permit, request: &MetricRequest) -> Result<MetricAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "metrics"))
    }

    /// Log records.
    async fn logs(&self, permit: &Permit, request: &LogRequest) -> Result<LogAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "logs"))
    }

    /// Counts of log records.
    async fn log_counts(&self, permit: &Permit, request: &LogCountRequest) -> Result<LogCountAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "logs"))
    }

    /// Hands every matching record to `visit`, newest first, until `permit.budget().rows`.
    async fn scan_logs(
        &self,
        permit: &Permit,
        filter: &LogFilter,
        visit: &mut (dyn for<'a> FnMut(LogLine<'a>) + Send),
    ) -> Result<ScanEnd, Fault> {
        let _ = (permit, filter, visit);
        Err(unsupported(self.name(), "logs"))
    }

    /// Trace search.
    async fn traces(&self, permit: &Permit, request: &TraceRequest) -> Result<TraceAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "traces"))
    }

    /// One trace; `None` when the source does not hold it (or none of it is in scope).
    async fn trace(&self, permit: &Permit, trace_id: &str) -> Result<Option<Trace>, Fault> {
        let _ = (permit, trace_id);
        Err(unsupported(self.name(), "traces"))
    }

    /// Hands spans that start in the window to `visit`, whole traces together where the source can, until `limit`.
    /// Attributes and events may be left out.
    async fn scan_spans(
        &self,
        permit: &Permit,
        window: TimeWindow,
        filter: &SpanFilter,
        limit: u64,
        visit: &mut (dyn FnMut(Span) + Send),
    ) -> Result<ScanEnd, Fault> {
        let _ = (permit, window, filter, limit, visit);
        Err(unsupported(self.name(), "traces"))
    }

    /// Alerts.
    async fn alerts(&self, permit: &Permit, request: &AlertRequest) -> Result<AlertAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "alerts"))
    }

    /// Read-only SQL.
    async fn sql(&self, permit: &Permit, request: &SqlRequest) -> Result<SqlAnswer, Fault> {
        let _ = (permit, request);
        Err(unsupported(self.name(), "SQL"))
    }
}

//! Between the house's words and those of the world in `wit/plugin.wit`. Pure. Must not decide what may be seen; that is done
//! with the converted records.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_model::{
    Alert, AlertState, Exemplar, Fault, FaultCode, LogRecord, MetricDescriptor, MetricKind, NameSet, RiskClass, Sample, Series,
    Service, Severity, Signal, Span, SpanEvent, SpanKind, SpanStatus, TimeWindow, Timestamp, TraceSummary, cut,
};
use portcullis_policy::Permit;
use portcullis_ports::{
    Aggregation, LabelMatch, LogCount, LogFilter, LogPosition, MatchOperator, MetricSelector, SemanticMetric, TextFilter, Total,
    TraceOrder,
};

use crate::PluginName;
use crate::bindings::portcullis::plugin::{telemetry as wit, types};
use crate::stdio::clean;

/// Seconds after which a plugin may at most ask to be tried again.
const LONGEST_RETRY: u32 = 3_600;

pub(crate) fn context(permit: &Permit, result_bytes: u64) -> types::Context {
    let scope = permit.scope();
    let names = |set: &NameSet| match set {
        NameSet::All => types::NameSet::Everything,
        NameSet::Only(names) => types::NameSet::Only(names.iter().cloned().collect()),
    };
    types::Context {
        scope: types::Scope {
            tenant: scope.tenant.to_string(),
            services: names(&scope.services),
            namespaces: names(&scope.namespaces),
        },
        traceparent: permit.trace().traceparent.as_deref().map(str::to_owned),
        result_bytes,
    }
}

pub(crate) fn code_of(code: types::FaultCode) -> FaultCode {
    match code {
        types::FaultCode::InvalidArgument => FaultCode::InvalidArgument,
        types::FaultCode::NotFound => FaultCode::NotFound,
        types::FaultCode::RateLimited => FaultCode::RateLimited,
        types::FaultCode::TooLarge => FaultCode::TooLarge,
        types::FaultCode::Unsupported => FaultCode::NoSource,
        types::FaultCode::Forbidden | types::FaultCode::BackendFailed | types::FaultCode::Internal => FaultCode::BackendFailed,
    }
}

/// What a plugin gives as the reason, as a fault of the house. Its words are cut here, and stay its words: they are released
/// as untrusted text.
pub(crate) fn fault(plugin: &PluginName, fault: &types::Fault) -> Fault {
    let cut = |text: &str| cut::beginning(&clean(text), 500).text.into_owned();
    let hint = fault.hint.as_deref().map_or_else(String::new, |hint| format!(" (hint: {})", cut(hint)));
    let mut out = Fault::new(code_of(fault.code), format!("plugin '{plugin}' refused"))
        .with_foreign(format!("{}{hint}", cut(&fault.message)));
    if let Some(detail) = &fault.detail {
        out = out.with_internal(format!("plugin {plugin}: {}", cut(detail)));
    }
    if let Some(seconds) = fault.retry_after_seconds {
        out = out.with_retry_after(u64::from(seconds.min(LONGEST_RETRY)));
    }
    out
}

pub(crate) fn risk(risk: types::Risk) -> RiskClass {
    match risk {
        types::Risk::Read => RiskClass::Read,
        types::Risk::Write => RiskClass::Write,
        types::Risk::Destructive => RiskClass::Destructive,
    }
}

pub(crate) fn signal(signal: types::Signal) -> Signal {
    match signal {
        types::Signal::Metrics => Signal::Metrics,
        types::Signal::Logs => Signal::Logs,
        types::Signal::Traces => Signal::Traces,
        types::Signal::Alerts => Signal::Alerts,
    }
}

pub(crate) fn signal_out(signal: Signal) -> Option<types::Signal> {
    match signal {
        Signal::Metrics => Some(types::Signal::Metrics),
        Signal::Logs => Some(types::Signal::Logs),
        Signal::Traces => Some(types::Signal::Traces),
        Signal::Alerts => Some(types::Signal::Alerts),
        Signal::Sql => None,
    }
}

pub(crate) fn name_of(question: &wit::Question) -> &'static str {
    match question {
        wit::Question::Health => "health",
        wit::Question::Services(_) => "services",
        wit::Question::MetricCatalogue(_) => "metric-catalogue",
        wit::Question::Metrics(_) => "metrics",
        wit::Question::LabelValues(_) => "label-values",
        wit::Question::Logs(_) => "logs",
        wit::Question::LogCounts(_) => "log-counts",
        wit::Question::Traces(_) => "traces",
        wit::Question::Trace(_) => "trace",
        wit::Question::Alerts(_) => "alerts",
    }
}

// -- sizes

fn pairs_size(pairs: &[types::Pair]) -> u64 {
    pairs.iter().map(|pair| (pair.name.len() + pair.value.len()) as u64 + 16).sum()
}

fn texts_size(texts: &[String]) -> u64 {
    texts.iter().map(|text| text.len() as u64 + 8).sum()
}

pub(crate) fn size_of_result(result: &types::ToolResult) -> u64 {
    let content = result.content.iter().map(|content| match content {
        types::Content::Text(text) => text.len(),
        types::Content::Image(media) | types::Content::Audio(media) => media.data.len() + media.mime_type.len(),
    });
    (content.sum::<usize>() + result.structured.as_ref().map_or(0, String::len)) as u64
}

/// Bytes of all texts, and something for every record.
pub(crate) fn size_of_answer(answer: &wit::Answer) -> u64 {
    let span = |span: &wit::Span| {
        let events: u64 = span.events.iter().map(|event| event.name.len() as u64 + 16 + pairs_size(&event.attributes)).sum();
        let texts = span.name.len() + span.service.len() + span.status_message.len() + span.trace_id.len() + span.span_id.len();
        texts as u64 + 64 + events + pairs_size(&span.attributes)
    };
    match answer {
        wit::Answer::Health(health) => {
            (health.version.as_ref().map_or(0, String::len) + health.message.as_ref().map_or(0, String::len)) as u64
        }
        wit::Answer::Services(services) => services.iter().map(|service| service.name.len() as u64 + 16).sum(),
        wit::Answer::MetricCatalogue(catalogue) => catalogue
            .metrics
            .iter()
            .map(|m| (m.name.len() + m.unit.len() + m.description.len()) as u64 + 16 + texts_size(&m.labels))
            .sum(),
        wit::Answer::Metrics(metrics) => {
            let series: u64 =
                metrics.series.iter().map(|series| pairs_size(&series.labels) + 16 * series.samples.len() as u64).sum();
            let exemplars: u64 = metrics.exemplars.iter().map(|exemplar| pairs_size(&exemplar.labels) + 48).sum();
            series + exemplars + texts_size(&metrics.warnings) + (metrics.query.len() + metrics.metric.len()) as u64
        }
        wit::Answer::LabelValues(values) => texts_size(values),
        wit::Answer::Logs(logs) => logs
            .records
            .iter()
            .map(|r| {
                (r.body.len() + r.service.len() + r.trace_id.len() + r.span_id.len()) as u64 + 32 + pairs_size(&r.attributes)
            })
            .sum(),
        wit::Answer::LogCounts(counts) => {
            counts.groups.iter().map(|group| pairs_size(&group.key) + 16 * (1 + group.over_time.len() as u64)).sum()
        }
        wit::Answer::Traces(traces) => traces
            .traces
            .iter()
            .map(|t| (t.trace_id.len() + t.root_service.len() + t.root_name.len()) as u64 + 48 + texts_size(&t.services))
            .sum(),
        wit::Answer::Trace(trace) => trace.iter().flat_map(|trace| &trace.spans).map(span).sum(),
        wit::Answer::Alerts(alerts) => alerts
            .alerts
            .iter()
            .map(|alert| alert.name.len() as u64 + 32 + pairs_size(&alert.labels) + pairs_size(&alert.annotations))
            .sum(),
    }
}

// -- questions

pub(crate) fn window(window: TimeWindow) -> types::Window {
    types::Window { start: window.start.as_nanos(), end: window.end.as_nanos() }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(crate) fn matchers(matchers: &[LabelMatch]) -> Vec<wit::LabelMatch> {
    matchers
        .iter()
        .map(|matcher| wit::LabelMatch {
            name: matcher.name.clone(),
            operator: match matcher.operator {
                MatchOperator::Equal => wit::MatchOperator::Equal,
                MatchOperator::NotEqual => wit::MatchOperator::NotEqual,
                MatchOperator::Regex => wit::MatchOperator::Regex,
                MatchOperator::NotRegex => wit::MatchOperator::NotRegex,
            },
            value: matcher.value.clone(),
        })
        .collect()
}

pub(crate) fn selector(selector: &MetricSelector) -> wit::MetricSelector {
    match selector {
        MetricSelector::Semantic(metric) => wit::MetricSelector::Semantic(match metric {
            SemanticMetric::Cpu => wit::SemanticMetric::Cpu,
            SemanticMetric::Memory => wit::SemanticMetric::Memory,
            SemanticMetric::RequestRate => wit::SemanticMetric::RequestRate,
            SemanticMetric::ErrorRate => wit::SemanticMetric::ErrorRate,
            SemanticMetric::LatencyP50 => wit::SemanticMetric::LatencyP50,
            SemanticMetric::LatencyP95 => wit::SemanticMetric::LatencyP95,
            SemanticMetric::LatencyP99 => wit::SemanticMetric::LatencyP99,
            SemanticMetric::Saturation => wit::SemanticMetric::Saturation,
        }),
        MetricSelector::Named(name) => wit::MetricSelector::Named(name.clone()),
        MetricSelector::Raw(query) => wit::MetricSelector::Raw(query.clone()),
    }
}

pub(crate) fn aggregation(aggregation: Aggregation) -> wit::Aggregation {
    match aggregation {
        Aggregation::Sum => wit::Aggregation::Sum,
        Aggregation::Average => wit::Aggregation::Average,
        Aggregation::Minimum => wit::Aggregation::Minimum,
        Aggregation::Maximum => wit::Aggregation::Maximum,
        Aggregation::Count => wit::Aggregation::Count,
        Aggregation::Quantile(quantile) => wit::Aggregation::Quantile(quantile),
    }
}

fn severity_out(severity: Severity) -> types::Severity {
    match severity {
        Severity::Trace => types::Severity::Trace,
        Severity::Debug => types::Severity::Debug,
        Severity::Info => types::Severity::Info,
        Severity::Warn => types::Severity::Warn,
        Severity::Error => types::Severity::Error,
        Severity::Fatal => types::Severity::Fatal,
    }
}

pub(crate) fn log_filter(filter: &LogFilter) -> wit::LogFilter {
    wit::LogFilter {
        window: window(filter.window),
        service: filter.service.clone(),
        minimum_severity: filter.minimum_severity.map(severity_out),
        text: filter.text.as_ref().map(|text| match text {
            TextFilter::Contains(words) => wit::TextFilter::Contains(words.clone()),
            TextFilter::Regex(expression) => wit::TextFilter::Regex(expression.clone()),
        }),
        attributes: matchers(&filter.attributes),
        trace_id: filter.trace_id.clone(),
    }
}

pub(crate) fn position_out(position: LogPosition) -> wit::LogPosition {
    wit::LogPosition { at: position.at.as_nanos(), shown_at: position.shown_at }
}

pub(crate) fn order(order: TraceOrder) -> wit::TraceOrder {
    match order {
        TraceOrder::Slowest => wit::TraceOrder::Slowest,
        TraceOrder::Newest => wit::TraceOrder::Newest,
    }
}

pub(crate) fn alert_state_out(state: AlertState) -> wit::AlertState {
    match state {
        AlertState::Pending => wit::AlertState::Pending,
        AlertState::Firing => wit::AlertState::Firing,
        AlertState::Resolved => wit::AlertState::Resolved,
    }
}

// -- answers

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// A later pair of the same name replaces an earlier one.
fn map(pairs: Vec<types::Pair>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.name, pair.value)).collect()
}

/// Lower-case hexadecimal digits, or nothing: ids go into links and queries.
fn hex(text: String, most: usize) -> String {
    let fits = text.len() <= most && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if fits { text } else { String::new() }
}

pub(crate) fn total(total: types::Total) -> Total {
    match total {
        types::Total::Exact(number) => Total::Exact(number),
        types::Total::AtLeast(number) => Total::AtLeast(number),
        types::Total::Unknown => Total::Unknown,
    }
}

pub(crate) fn service(service: wit::Service) -> Service {
    Service {
        name: service.name,
        signals: service.signals.into_iter().map(signal).collect(),
        last_seen: service.last_seen.map(time),
    }
}

pub(crate) fn descriptor(metric: wit::MetricDescriptor) -> MetricDescriptor {
    MetricDescriptor {
        name: metric.name,
        kind: match metric.kind {
            wit::MetricKind::Gauge => MetricKind::Gauge,
            wit::MetricKind::Counter => MetricKind::Counter,
            wit::MetricKind::Histogram => MetricKind::Histogram,
            wit::MetricKind::ExponentialHistogram => MetricKind::ExponentialHistogram,
            wit::MetricKind::Summary => MetricKind::Summary,
            wit::MetricKind::Unknown => MetricKind::Unknown,
        },
        unit: metric.unit,
        description: metric.description,
        labels: metric.labels,
        series: metric.series,
    }
}

pub(crate) fn series(series: wit::Series) -> Series {
    let mut samples: Vec<Sample> = series
        .samples
        .into_iter()
        .filter(|sample| !sample.value.is_nan())
        .map(|sample| Sample { at: time(sample.at), value: sample.value })
        .collect();
    samples.sort_by_key(|sample| sample.at);
    Series { labels: map(series.labels), samples }
}

pub(crate) fn exemplar(exemplar: wit::Exemplar) -> Exemplar {
    Exemplar {
        labels: map(exemplar.labels),
        at: time(exemplar.at),
        value: exemplar.value,
        trace_id: exemplar.trace_id.map(|id| hex(id, 32)).filter(|id| !id.is_empty()),
    }
}

pub(crate) fn log_record(record: wit::LogRecord) -> LogRecord {
    LogRecord {
        at: time(record.at),
        severity: record.severity.map(|severity| match severity {
            types::Severity::Trace => Severity::Trace,
            types::Severity::Debug => Severity::Debug,
            types::Severity::Info => Severity::Info,
            types::Severity::Warn => Severity::Warn,
            types::Severity::Error => Severity::Error,
            types::Severity::Fatal => Severity::Fatal,
        }),
        service: record.service.into(),
        body: record.body,
        attributes: map(record.attributes),
        trace_id: hex(record.trace_id, 32),
        span_id: hex(record.span_id, 16),
    }
}

pub(crate) fn position(position: wit::LogPosition) -> LogPosition {
    LogPosition { at: time(position.at), shown_at: position.shown_at }
}

pub(crate) fn log_count(count: wit::LogCount) -> LogCount {
    LogCount {
        key: map(count.key),
        count: count.count,
        over_time: count.over_time.into_iter().map(|bucket| (time(bucket.at), bucket.count)).collect(),
    }
}

pub(crate) fn summary(summary: wit::TraceSummary) -> TraceSummary {
    TraceSummary {
        trace_id: hex(summary.trace_id, 32),
        root_service: summary.root_service,
        root_name: summary.root_name,
        start: time(summary.start),
        duration_nanos: summary.duration,
        spans: summary.spans,
        error_spans: summary.error_spans,
        services: summary.services,
    }
}

pub(crate) fn span(span: wit::Span) -> Span {
    Span {
        trace_id: hex(span.trace_id, 32),
        span_id: hex(span.span_id, 16),
        parent_span_id: hex(span.parent_span_id, 16),
        service: span.service.into(),
        name: span.name,
        kind: match span.kind {
            wit::SpanKind::Unspecified => SpanKind::Unspecified,
            wit::SpanKind::Internal => SpanKind::Internal,
            wit::SpanKind::Server => SpanKind::Server,
            wit::SpanKind::Client => SpanKind::Client,
            wit::SpanKind::Producer => SpanKind::Producer,
            wit::SpanKind::Consumer => SpanKind::Consumer,
        },
        start: time(span.start),
        duration_nanos: span.duration,
        status: match span.status {
            wit::SpanStatus::Unset => SpanStatus::Unset,
            wit::SpanStatus::Ok => SpanStatus::Ok,
            wit::SpanStatus::Error => SpanStatus::Error,
        },
        status_message: span.status_message,
        attributes: map(span.attributes),
        events: span
            .events
            .into_iter()
            .map(|event| SpanEvent { at: time(event.at), name: event.name, attributes: map(event.attributes) })
            .collect(),
    }
}

pub(crate) fn alert(alert: wit::Alert) -> Alert {
    Alert {
        name: alert.name,
        state: match alert.state {
            wit::AlertState::Pending => AlertState::Pending,
            wit::AlertState::Firing => AlertState::Firing,
            wit::AlertState::Resolved => AlertState::Resolved,
        },
        severity: alert.severity,
        labels: map(alert.labels),
        annotations: map(alert.annotations),
        active_since: alert.active_since.map(time),
        value: alert.value,
    }
}

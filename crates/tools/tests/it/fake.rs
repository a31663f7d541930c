//! A source in memory that does what the trait promises, and on demand fails or is slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{
    Alert, Fault, FaultCode, LogRecord, MetricDescriptor, Series, Service, Signal, SourceName, Span, SpanStatus, TimeWindow,
    Timestamp, Trace, TraceSummary,
};
use portcullis_policy::Permit;
use portcullis_ports::{
    AlertAnswer, AlertRequest, LabelMatch, LabelValuesRequest, LogAnswer, LogCount, LogCountAnswer, LogCountRequest, LogFilter,
    LogLine, LogPosition, LogRequest, MatchOperator, MetricAnswer, MetricCatalogueAnswer, MetricCatalogueRequest, MetricRequest,
    MetricSelector, ScanEnd, ServiceAnswer, Source, SourceHealth, SpanFilter, SqlAnswer, SqlRequest, TextFilter, Total,
    TraceAnswer, TraceOrder, TraceRequest,
};

/// How it behaves.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mood {
    #[default]
    Willing,
    Failing(Fault),
    Slow(Duration),
}

/// Series of one metric name (or the name of a meaning), with its unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metric {
    pub(crate) unit: String,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) name: Option<SourceName>,
    pub(crate) mood: Mood,
    pub(crate) signals: BTreeSet<Signal>,
    pub(crate) logs: Vec<LogRecord>,
    pub(crate) spans: Vec<Span>,
    pub(crate) metrics: BTreeMap<String, Metric>,
    /// What an answer with metrics warns of: its `{start}` becomes the start of the window.
    pub(crate) warns: Option<&'static str>,
    pub(crate) alerts: Vec<Alert>,
    pub(crate) rules: Option<u64>,
    pub(crate) sql: Option<Result<SqlAnswer, Fault>>,
}

impl Fake {
    pub(crate) fn new(name: &str, signals: &[Signal]) -> Self {
        Self { name: Some(SourceName::new(name).unwrap()), signals: signals.iter().copied().collect(), ..Self::default() }
    }

    async fn mood(&self) -> Result<(), Fault> {
        match &self.mood {
            Mood::Willing => Ok(()),
            Mood::Failing(fault) => Err(fault.clone()),
            Mood::Slow(length) => {
                tokio::time::sleep(*length).await;
                Ok(())
            }
        }
    }

    fn matching(&self, permit: &Permit, filter: &LogFilter) -> Vec<&LogRecord> {
        let mut records: Vec<&LogRecord> = self
            .logs
            .iter()
            .filter(|r| filter.window.contains(r.at) && permit.scope().services.contains(&r.service))
            .filter(|r| filter.service.as_ref().is_none_or(|s| **s == *r.service))
            .filter(|r| filter.minimum_severity.is_none_or(|least| r.severity.is_some_and(|s| s >= least)))
            .filter(|r| filter.trace_id.as_ref().is_none_or(|id| *id == r.trace_id))
            .filter(|r| match &filter.text {
                None => true,
                Some(TextFilter::Contains(text)) => r.body.to_lowercase().contains(&text.to_lowercase()),
                Some(TextFilter::Regex(pattern)) => regex::Regex::new(pattern).unwrap().is_match(&r.body),
            })
            .filter(|r| filter.attributes.iter().all(|m| fits(m, r.attributes.get(&m.name).map(String::as_str))))
            .collect();
        records.sort_by_key(|r| std::cmp::Reverse(r.at));
        records
    }
}

fn fits(condition: &LabelMatch, value: Option<&str>) -> bool {
    let whole = || regex::Regex::new(&format!("^(?:{})$", condition.value)).unwrap().is_match(value.unwrap_or_default());
    match condition.operator {
        MatchOperator::Equal => value == Some(condition.value.as_str()),
        MatchOperator::NotEqual => value != Some(condition.value.as_str()),
        MatchOperator::Regex => whole(),
        MatchOperator::NotRegex => !whole(),
    }
}

fn field<'a>(record: &'a LogRecord, name: &str) -> Option<&'a str> {
    match name {
        "service" => Some(&*record.service),
        "severity" => record.severity.map(portcullis_model::Severity::as_str),
        other => record.attributes.get(other).map(String::as_str),
    }
}

#[async_trait]
impl Source for Fake {
    fn name(&self) -> &SourceName {
        self.name.as_ref().unwrap()
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> BTreeSet<Signal> {
        self.signals.clone()
    }

    async fn health(&self, _permit: &Permit) -> SourceHealth {
        let outcome = self.mood().await;
        SourceHealth {
            up: outcome.is_ok(),
            version: Some("1.0".to_owned()),
            latency: Duration::from_millis(3),
            message: outcome.err().map(|fault| fault.message().to_owned()),
        }
    }

    async fn services(&self, permit: &Permit, window: TimeWindow) -> Result<ServiceAnswer, Fault> {
        self.mood().await?;
        let mut found: BTreeMap<String, (BTreeSet<Signal>, Timestamp)> = BTreeMap::new();
        let logs = self.logs.iter().map(|r| (r.service.clone(), Signal::Logs, r.at));
        let spans = self.spans.iter().map(|s| (s.service.clone(), Signal::Traces, s.start));
        for (service, signal, at) in logs.chain(spans).filter(|(_, _, at)| window.contains(*at)) {
            let entry = found.entry(service.to_string()).or_insert((BTreeSet::new(), at));
            entry.0.insert(signal);
            entry.1 = entry.1.max(at);
        }
        let services = found
            .into_iter()
            .filter(|(name, _)| permit.scope().services.contains(name))
            .map(|(name, (signals, at))| Service { name, signals: signals.into_iter().collect(), last_seen: Some(at) })
            .collect();
        Ok(ServiceAnswer { services })
    }

    async fn metric_catalogue(&self, _: &Permit, request: &MetricCatalogueRequest) -> Result<MetricCatalogueAnswer, Fault> {
        self.mood().await?;
        let fits = |name: &&String| request.name_contains.as_ref().is_none_or(|part| name.contains(part.as_str()));
        let all: Vec<MetricDescriptor> = self
            .metrics
            .iter()
            .filter(|(name, _)| fits(name))
            .map(|(name, metric)| MetricDescriptor {
                name: name.clone(),
                kind: portcullis_model::MetricKind::Gauge,
                unit: metric.unit.clone(),
                description: format!("about {name}"),
                labels: metric
                    .series
                    .iter()
                    .flat_map(|s| s.labels.keys().cloned())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                series: Some(metric.series.len() as u64),
            })
            .collect();
        let total = Total::Exact(all.len() as u64);
        Ok(MetricCatalogueAnswer { metrics: all.into_iter().take(request.limit).collect(), total })
    }

    async fn label_values(&self, _: &Permit, request: &LabelValuesRequest) -> Result<Vec<String>, Fault> {
        self.mood().await?;
        let values: BTreeSet<String> = self
            .metrics
            .values()
            .flat_map(|metric| metric.series.iter().filter_map(|s| s.labels.get(&request.label).cloned()))
            .filter(|value| value.starts_with(&request.prefix))
            .collect();
        Ok(values.into_iter().take(request.limit).collect())
    }

    async fn metrics(&self, _: &Permit, request: &MetricRequest) -> Result<MetricAnswer, Fault> {
        self.mood().await?;
        let name = match &request.metric {
            MetricSelector::Semantic(metric) => metric.as_str().to_owned(),
            MetricSelector::Named(name) | MetricSelector::Raw(name) => name.clone(),
        };
        let metric = self.metrics.get(&name).cloned().unwrap_or_default();
        let all: Vec<Series> = metric
            .series
            .iter()
            .filter(|s| request.service.as_ref().is_none_or(|service| s.labels.get("service") == Some(service)))
            .filter(|s| request.matchers.iter().all(|m| fits(m, s.labels.get(&m.name).map(String::as_str))))
            .map(|s| Series {
                labels: s.labels.clone(),
                samples: s.samples.iter().copied().filter(|sample| request.window.contains(sample.at)).collect(),
            })
            .filter(|s| !s.samples.is_empty())
            .collect();
        let total_series = Total::Exact(all.len() as u64);
        Ok(MetricAnswer {
            series: all.into_iter().take(request.max_series).collect(),
            total_series,
            metric: name.clone(),
            unit: metric.unit,
            query: name,
            step: Duration::from_secs(15),
            warnings: self.warns.iter().map(|w| w.replace("{start}", &request.window.start.to_string())).collect(),
            exemplars: Vec::new(),
        })
    }

    async fn logs(&self, permit: &Permit, request: &LogRequest) -> Result<LogAnswer, Fault> {
        self.mood().await?;
        let all = self.matching(permit, &request.filter);
        let from = request.after.map_or(0, |p| all.partition_point(|r| r.at > p.at) + p.shown_at as usize);
        let records: Vec<LogRecord> = all.iter().skip(from).take(request.limit).map(|r| (*r).clone()).collect();
        let more = from + records.len() < all.len();
        let last = records.last().map(|r| LogPosition { at: r.at, shown_at: 1 });
        Ok(LogAnswer { next: last.filter(|_| more), records, total: Total::Exact(all.len() as u64) })
    }

    async fn log_counts(&self, permit: &Permit, request: &LogCountRequest) -> Result<LogCountAnswer, Fault> {
        self.mood().await?;
        let all = self.matching(permit, &request.filter);
        let mut groups: BTreeMap<BTreeMap<String, String>, (u64, BTreeMap<Timestamp, u64>)> = BTreeMap::new();
        for record in &all {
            let key = request.by.iter().filter_map(|name| field(record, name).map(|v| (name.clone(), v.to_owned()))).collect();
            let (count, over_time) = groups.entry(key).or_default();
            *count += 1;
            if let Some(step) = request.step {
                let step = step.as_nanos() as i64;
                let bucket = Timestamp::from_nanos(record.at.as_nanos().div_euclid(step) * step);
                *over_time.entry(bucket).or_default() += 1;
            }
        }
        let total_groups = Total::Exact(groups.len() as u64);
        let mut groups: Vec<LogCount> = groups
            .into_iter()
            .map(|(key, (count, over_time))| LogCount { key, count, over_time: over_time.into_iter().collect() })
            .collect();
        groups.sort_by_key(|g| std::cmp::Reverse(g.count));
        groups.truncate(request.top);
        Ok(LogCountAnswer { groups, total_groups, total: Total::Exact(all.len() as u64) })
    }

    async fn scan_logs(
        &self,
        permit: &Permit,
        filter: &LogFilter,
        visit: &mut (dyn for<'a> FnMut(LogLine<'a>) + Send),
    ) -> Result<ScanEnd, Fault> {
        self.mood().await?;
        let mut scanned = 0;
        for record in self.matching(permit, filter) {
            visit(LogLine { at: record.at, severity: record.severity, service: &record.service, body: &record.body });
            scanned += 1;
        }
        Ok(ScanEnd { scanned, complete: true })
    }

    async fn traces(&self, permit: &Permit, request: &TraceRequest) -> Result<TraceAnswer, Fault> {
        self.mood().await?;
        let mut by_id: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
        for span in self.spans.iter().filter(|s| permit.scope().services.contains(&s.service)) {
            by_id.entry(&span.trace_id).or_default().push(span);
        }
        let wanted = |span: &&Span| {
            request.window.contains(span.start)
                && request.service.as_ref().is_none_or(|s| **s == *span.service)
                && request.operation.as_ref().is_none_or(|o| *o == span.name)
                && request.minimum_duration.is_none_or(|least| u128::from(span.duration_nanos) >= least.as_nanos())
                && (!request.errors_only || span.status == SpanStatus::Error)
        };
        let mut traces: Vec<TraceSummary> = by_id
            .into_iter()
            .filter(|(_, spans)| spans.iter().copied().any(|s| wanted(&s)))
            .map(|(id, spans)| {
                let root = spans.iter().find(|s| s.parent_span_id.is_empty()).unwrap_or(&spans[0]);
                TraceSummary {
                    trace_id: id.to_owned(),
                    root_service: root.service.to_string(),
                    root_name: root.name.clone(),
                    start: root.start,
                    duration_nanos: root.duration_nanos,
                    spans: spans.len() as u64,
                    error_spans: spans.iter().filter(|s| s.status == SpanStatus::Error).count() as u64,
                    services: spans.iter().map(|s| s.service.to_string()).collect::<BTreeSet<_>>().into_iter().collect(),
                }
            })
            .collect();
        match request.order {
            TraceOrder::Slowest => traces.sort_by_key(|t| std::cmp::Reverse(t.duration_nanos)),
            TraceOrder::Newest => traces.sort_by_key(|t| std::cmp::Reverse(t.start)),
        }
        let total = Total::Exact(traces.len() as u64);
        traces.truncate(request.limit);
        Ok(TraceAnswer { traces, total })
    }

    async fn trace(&self, permit: &Permit, trace_id: &str) -> Result<Option<Trace>, Fault> {
        self.mood().await?;
        let mut spans: Vec<Span> = self
            .spans
            .iter()
            .filter(|s| s.trace_id == trace_id && permit.scope().services.contains(&s.service))
            .cloned()
            .collect();
        spans.sort_by_key(|s| s.start);
        Ok((!spans.is_empty()).then(|| Trace { trace_id: trace_id.to_owned(), spans, truncated: false }))
    }

    async fn scan_spans(
        &self,
        permit: &Permit,
        window: TimeWindow,
        filter: &SpanFilter,
        limit: u64,
        visit: &mut (dyn FnMut(Span) + Send),
    ) -> Result<ScanEnd, Fault> {
        self.mood().await?;
        let mut scanned = 0;
        let wanted = |s: &&Span| {
            window.contains(s.start)
                && permit.scope().services.contains(&s.service)
                && (filter.services.is_empty() || filter.services.contains(&*s.service))
        };
        for span in self.spans.iter().filter(wanted) {
            if scanned >= limit {
                return Ok(ScanEnd { scanned, complete: false });
            }
            visit(span.clone());
            scanned += 1;
        }
        Ok(ScanEnd { scanned, complete: true })
    }

    async fn alerts(&self, _: &Permit, request: &AlertRequest) -> Result<AlertAnswer, Fault> {
        self.mood().await?;
        let fits = |alert: &&Alert| {
            request.state.is_none_or(|state| state == alert.state)
                && request.service.as_ref().is_none_or(|service| alert.labels.get("service") == Some(service))
        };
        Ok(AlertAnswer { alerts: self.alerts.iter().filter(fits).cloned().collect(), rules: self.rules })
    }

    async fn sql(&self, _: &Permit, _: &SqlRequest) -> Result<SqlAnswer, Fault> {
        self.mood().await?;
        self.sql.clone().unwrap_or_else(|| Err(Fault::new(FaultCode::NoSource, "this fake has no SQL answer")))
    }
}

pub(crate) fn shared(fake: Fake) -> Arc<dyn Source> {
    Arc::new(fake)
}

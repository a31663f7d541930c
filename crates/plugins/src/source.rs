//! A plugin as a source. Guards that what it answers is confined after the fact as if it had not been told the scope, and that
//! what cannot be confined is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, LogRecord, Signal, SourceName, Span, TenantId, TimeWindow, Timestamp, Trace};
use portcullis_policy::{Charter, Permit, Purpose};
use portcullis_ports::{
    AlertAnswer, AlertRequest, LabelValuesRequest, LogAnswer, LogCount, LogCountAnswer, LogCountRequest, LogFilter, LogLine,
    LogPosition, LogRequest, MetricAnswer, MetricCatalogueAnswer, MetricCatalogueRequest, MetricRequest, MetricSelector, ScanEnd,
    ServiceAnswer, Source, SourceHealth, SpanFilter, Total, TraceAnswer, TraceOrder, TraceRequest,
};

use crate::bindings::portcullis::plugin::telemetry::{self as wit, Answer, Question};
use crate::confine::{Confinement, NAMESPACE, SERVICE};
use crate::convert;
use crate::plugin::Plugin;

/// Records of one page while scanning.
const PAGE: u32 = 500;
/// Traces looked into by one scan of spans.
const MOST_TRACES: usize = 100;

/// A plugin that answers signals.
pub(crate) struct PluginSource {
    plugin: Arc<Plugin>,
    name: SourceName,
    /// What a check of the source may reach; absent until the house has begun its work.
    charter: Arc<OnceLock<Charter>>,
}

impl PluginSource {
    pub(crate) fn new(plugin: Arc<Plugin>, name: SourceName, charter: Arc<OnceLock<Charter>>) -> Self {
        Self { plugin, name, charter }
    }

    fn wrong_kind(&self, asked: &str) -> Fault {
        let text = format!("plugin {} answered another question than {asked}", self.plugin.name);
        Fault::backend(format!("source '{}' answered something else than it was asked", self.name), text)
    }

    fn not_confinable(&self, what: &str) -> Fault {
        Fault::new(
            FaultCode::Forbidden,
            format!("source '{}' cannot answer {what} within the services or namespaces you are restricted to", self.name),
        )
        .with_hint("ask about one service")
    }

    /// Notes what was dropped, for the record and the report.
    fn settle(&self, permit: &Permit, within: &Confinement<'_>) {
        if within.dropped > 0 {
            self.plugin.dropped.fetch_add(within.dropped, Ordering::Relaxed);
            permit.trail().note(format!(
                "plugin {}: {} records outside of the scope or the window were dropped",
                self.plugin.name, within.dropped
            ));
        }
    }

    async fn page(&self, permit: &Permit, request: &LogRequest) -> Result<LogAnswer, Fault> {
        let question = wit::LogQuestion {
            filter: convert::log_filter(&request.filter),
            limit: convert::count(request.limit),
            newest_first: request.newest_first,
            after: request.after.map(convert::position_out),
        };
        let Answer::Logs(answer) = self.plugin.ask(permit, &Question::Logs(question)).await? else {
            return Err(self.wrong_kind("logs"));
        };
        let mut records: Vec<LogRecord> = answer.records.into_iter().map(convert::log_record).collect();
        let mut within = Confinement::new(permit, Some(request.filter.window), request.filter.service.as_deref());
        within.logs(&mut records);
        self.settle(permit, &within);
        if request.newest_first {
            records.sort_by_key(|record| std::cmp::Reverse(record.at));
        } else {
            records.sort_by_key(|record| record.at);
        }
        let mut next = answer.next.map(convert::position);
        if records.len() > request.limit {
            records.truncate(request.limit);
            next = ended(&records, request.after);
        }
        let known = within.dropped == 0 && !permit.scope().restricts_records();
        let total = if known { convert::total(answer.total) } else { Total::AtLeast(records.len() as u64) };
        Ok(LogAnswer { records, total, next })
    }

    /// Hands every record to `visit`, page by page, until there are no more or the budget ends.
    async fn every_record(
        &self,
        permit: &Permit,
        filter: &LogFilter,
        visit: &mut (dyn FnMut(&LogRecord) + Send),
    ) -> Result<ScanEnd, Fault> {
        let budget = permit.budget().rows;
        let mut request = LogRequest { filter: filter.clone(), limit: PAGE as usize, newest_first: true, after: None };
        let mut scanned = 0;
        loop {
            let page = self.page(permit, &request).await?;
            for record in &page.records {
                if scanned >= budget {
                    return Ok(ScanEnd { scanned, complete: false });
                }
                scanned += 1;
                visit(record);
            }
            match page.next {
                None => return Ok(ScanEnd { scanned, complete: true }),
                // A plugin that gives the same page for ever is not followed.
                Some(next) if Some(next) == request.after => return Ok(ScanEnd { scanned, complete: false }),
                Some(next) => request.after = Some(next),
            }
        }
    }

    async fn count_here(&self, permit: &Permit, request: &LogCountRequest) -> Result<LogCountAnswer, Fault> {
        let mut groups: BTreeMap<BTreeMap<String, String>, (u64, BTreeMap<Timestamp, u64>)> = BTreeMap::new();
        let start = request.filter.window.start;
        let mut total = 0;
        let end = self
            .every_record(permit, &request.filter, &mut |record| {
                let key = request.by.iter().filter_map(|field| Some((field.clone(), field_of(record, field)?))).collect();
                let group = groups.entry(key).or_default();
                group.0 += 1;
                total += 1;
                if let Some(step) = request.step.filter(|step| !step.is_zero()) {
                    let buckets = record.at.since(start).as_nanos() / step.as_nanos();
                    let offset = u64::try_from(buckets * step.as_nanos()).unwrap_or(u64::MAX);
                    *group.1.entry(start.plus(Duration::from_nanos(offset))).or_default() += 1;
                }
            })
            .await?;
        let known = |number: u64| if end.complete { Total::Exact(number) } else { Total::AtLeast(number) };
        let total_groups = known(groups.len() as u64);
        let mut groups: Vec<LogCount> = groups
            .into_iter()
            .map(|(key, (count, over_time))| LogCount { key, count, over_time: over_time.into_iter().collect() })
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups.truncate(request.top);
        Ok(LogCountAnswer { groups, total_groups, total: known(total) })
    }
}

fn field_of(record: &LogRecord, field: &str) -> Option<String> {
    match field {
        "service" => Some(record.service.to_string()).filter(|service| !service.is_empty()),
        "severity" => record.severity.map(|severity| severity.as_str().to_owned()),
        other => record.attributes.get(other).cloned(),
    }
}

/// Where a page that was cut here ends.
fn ended(records: &[LogRecord], after: Option<LogPosition>) -> Option<LogPosition> {
    let at = records.last()?.at;
    let here = records.iter().filter(|record| record.at == at).count();
    let before = after.filter(|position| position.at == at).map_or(0, |position| position.shown_at);
    Some(LogPosition { at, shown_at: before.saturating_add(convert::count(here)) })
}

#[async_trait]
impl Source for PluginSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "plugin"
    }

    fn capabilities(&self) -> BTreeSet<Signal> {
        self.plugin.signals.clone()
    }

    fn serves(&self, tenant: &TenantId) -> bool {
        self.plugin.grant.tenant == *tenant
    }

    async fn health(&self, permit: &Permit) -> SourceHealth {
        let began = Instant::now();
        // The charter for checking sources knows nothing of plugins; theirs names what they may reach.
        let own = match (permit.purpose(), self.charter.get()) {
            (Purpose::Charter { .. }, Some(charter)) => charter.permit().with_deadline_at_most(permit.deadline()),
            _ => permit.clone(),
        };
        let answered = self.plugin.ask(&own, &Question::Health).await;
        let latency = began.elapsed();
        match answered {
            Ok(Answer::Health(health)) => {
                SourceHealth { up: health.up, version: health.version, latency, message: health.message }
            }
            Ok(_) => {
                let message = Some(self.wrong_kind("health").message().to_owned());
                SourceHealth { up: false, version: None, latency, message }
            }
            Err(fault) => SourceHealth { up: false, version: None, latency, message: Some(fault.message().to_owned()) },
        }
    }

    async fn services(&self, permit: &Permit, window: TimeWindow) -> Result<ServiceAnswer, Fault> {
        let question = Question::Services(convert::window(window));
        let Answer::Services(services) = self.plugin.ask(permit, &question).await? else {
            return Err(self.wrong_kind("services"));
        };
        let mut services = services.into_iter().map(convert::service).collect();
        let mut within = Confinement::new(permit, Some(window), None);
        within.services(&mut services);
        self.settle(permit, &within);
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services.dedup_by(|a, b| a.name == b.name);
        Ok(ServiceAnswer { services })
    }

    async fn metric_catalogue(&self, permit: &Permit, request: &MetricCatalogueRequest) -> Result<MetricCatalogueAnswer, Fault> {
        if permit.scope().restricts_records() {
            return Err(self.not_confinable("which metrics exist"));
        }
        let question = wit::MetricCatalogueQuestion {
            window: convert::window(request.window),
            service: request.service.clone(),
            name_contains: request.name_contains.clone(),
            limit: convert::count(request.limit),
            with_labels: request.with_labels,
        };
        let Answer::MetricCatalogue(answer) = self.plugin.ask(permit, &Question::MetricCatalogue(question)).await? else {
            return Err(self.wrong_kind("metric-catalogue"));
        };
        let mut metrics: Vec<_> = answer.metrics.into_iter().map(convert::descriptor).collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics.truncate(request.limit);
        Ok(MetricCatalogueAnswer { metrics, total: convert::total(answer.total) })
    }

    async fn label_values(&self, permit: &Permit, request: &LabelValuesRequest) -> Result<Vec<String>, Fault> {
        let (service, namespace) = (request.label == SERVICE, request.label == NAMESPACE);
        let scope = permit.scope();
        // A service does not say its namespace, and the other way round: names are told only where the restriction is of them.
        let told = match (service, namespace) {
            (true, _) => scope.namespaces.is_all() || !scope.services.is_all(),
            (_, true) => scope.services.is_all() || !scope.namespaces.is_all(),
            _ => !scope.restricts_records(),
        };
        if !told {
            return Err(self.not_confinable("values of this label"));
        }
        let signal = convert::signal_out(request.signal)
            .ok_or_else(|| Fault::new(FaultCode::NoSource, format!("source '{}' cannot answer SQL", self.name)))?;
        let question = wit::LabelValuesQuestion {
            window: convert::window(request.window),
            signal,
            label: request.label.clone(),
            metric: request.metric.clone(),
            service: request.service.clone(),
            prefix: request.prefix.clone(),
            limit: convert::count(request.limit),
        };
        let Answer::LabelValues(mut values) = self.plugin.ask(permit, &Question::LabelValues(question)).await? else {
            return Err(self.wrong_kind("label-values"));
        };
        values.retain(|value| value.starts_with(&request.prefix));
        if service || namespace {
            let mut within = Confinement::new(permit, None, None);
            within.names(&mut values, service);
            self.settle(permit, &within);
        }
        values.sort();
        values.dedup();
        values.truncate(request.limit);
        Ok(values)
    }

    async fn metrics(&self, permit: &Permit, request: &MetricRequest) -> Result<MetricAnswer, Fault> {
        let scope = permit.scope();
        if scope.restricts_records() && matches!(request.metric, MetricSelector::Raw(_)) {
            return Err(self.not_confinable("queries in its own language"));
        }
        // Restricted callers see only series that say where they belong, so aggregates are kept apart by that.
        let mut added = Vec::new();
        for (label, set) in [(SERVICE, &scope.services), (NAMESPACE, &scope.namespaces)] {
            if request.aggregation.is_some() && !set.is_all() && !request.group_by.iter().any(|known| known == label) {
                added.push(label.to_owned());
            }
        }
        let question = wit::MetricQuestion {
            window: convert::window(request.window),
            step: request.step.map(convert::nanos),
            metric: convert::selector(&request.metric),
            service: request.service.clone(),
            matchers: convert::matchers(&request.matchers),
            group_by: request.group_by.iter().chain(&added).cloned().collect(),
            aggregation: request.aggregation.map(convert::aggregation),
            max_series: convert::count(request.max_series),
        };
        let Answer::Metrics(answer) = self.plugin.ask(permit, &Question::Metrics(question)).await? else {
            return Err(self.wrong_kind("metrics"));
        };
        let mut series: Vec<_> = answer.series.into_iter().map(convert::series).collect();
        let mut exemplars: Vec<_> = answer.exemplars.into_iter().map(convert::exemplar).collect();
        let mut within = Confinement::new(permit, Some(request.window), request.service.as_deref());
        within.series(&mut series);
        within.exemplars(&mut exemplars);
        self.settle(permit, &within);
        let mut warnings = answer.warnings;
        if within.dropped > 0 {
            warnings.push(format!("{} samples or series outside of your scope or of the window were dropped", within.dropped));
        }
        let total_series =
            if within.dropped == 0 { convert::total(answer.total_series) } else { Total::AtLeast(series.len() as u64) };
        series.truncate(request.max_series);
        Ok(MetricAnswer {
            series,
            total_series,
            metric: answer.metric,
            unit: answer.unit,
            query: answer.query,
            step: Duration::from_nanos(answer.step),
            warnings,
            exemplars,
        })
    }

    async fn logs(&self, permit: &Permit, request: &LogRequest) -> Result<LogAnswer, Fault> {
        self.page(permit, request).await
    }

    async fn log_counts(&self, permit: &Permit, request: &LogCountRequest) -> Result<LogCountAnswer, Fault> {
        if permit.scope().restricts_records() {
            return self.count_here(permit, request).await;
        }
        let question = wit::LogCountQuestion {
            filter: convert::log_filter(&request.filter),
            by: request.by.clone(),
            step: request.step.map(convert::nanos),
            top: convert::count(request.top),
        };
        match self.plugin.ask(permit, &Question::LogCounts(question)).await {
            Ok(Answer::LogCounts(answer)) => {
                let mut groups: Vec<_> = answer.groups.into_iter().map(convert::log_count).collect();
                groups.sort_by_key(|group| std::cmp::Reverse(group.count));
                groups.truncate(request.top);
                Ok(LogCountAnswer {
                    groups,
                    total_groups: convert::total(answer.total_groups),
                    total: convert::total(answer.total),
                })
            }
            Ok(_) => Err(self.wrong_kind("log-counts")),
            Err(fault) if fault.code() == FaultCode::NoSource => self.count_here(permit, request).await,
            Err(fault) => Err(fault),
        }
    }

    async fn scan_logs(
        &self,
        permit: &Permit,
        filter: &LogFilter,
        visit: &mut (dyn for<'a> FnMut(LogLine<'a>) + Send),
    ) -> Result<ScanEnd, Fault> {
        self.every_record(permit, filter, &mut |record| {
            visit(LogLine { at: record.at, severity: record.severity, service: &record.service, body: &record.body });
        })
        .await
    }

    async fn traces(&self, permit: &Permit, request: &TraceRequest) -> Result<TraceAnswer, Fault> {
        if !permit.scope().namespaces.is_all() {
            return Err(self.not_confinable("a search for traces"));
        }
        let question = wit::TraceQuestion {
            window: convert::window(request.window),
            service: request.service.clone(),
            operation: request.operation.clone(),
            minimum_duration: request.minimum_duration.map(convert::nanos),
            errors_only: request.errors_only,
            attributes: convert::matchers(&request.attributes),
            order: convert::order(request.order),
            limit: convert::count(request.limit),
        };
        let Answer::Traces(answer) = self.plugin.ask(permit, &Question::Traces(question)).await? else {
            return Err(self.wrong_kind("traces"));
        };
        let mut traces: Vec<_> = answer.traces.into_iter().map(convert::summary).collect();
        let mut within = Confinement::new(permit, Some(request.window), None);
        within.summaries(&mut traces);
        self.settle(permit, &within);
        let known = within.dropped == 0 && !permit.scope().restricts_records();
        let total = if known { convert::total(answer.total) } else { Total::AtLeast(traces.len() as u64) };
        traces.truncate(request.limit);
        Ok(TraceAnswer { traces, total })
    }

    async fn trace(&self, permit: &Permit, trace_id: &str) -> Result<Option<Trace>, Fault> {
        let Answer::Trace(found) = self.plugin.ask(permit, &Question::Trace(trace_id.to_owned())).await? else {
            return Err(self.wrong_kind("trace"));
        };
        let Some(found) = found else { return Ok(None) };
        let mut spans = found.spans.into_iter().map(convert::span).collect();
        let mut within = Confinement::new(permit, None, None);
        within.spans(&mut spans, trace_id);
        self.settle(permit, &within);
        spans.sort_by_key(|span| span.start);
        let trace = Trace { trace_id: trace_id.to_owned(), truncated: found.truncated, spans };
        Ok((!trace.spans.is_empty()).then_some(trace))
    }

    async fn scan_spans(
        &self,
        permit: &Permit,
        window: TimeWindow,
        filter: &SpanFilter,
        limit: u64,
        visit: &mut (dyn FnMut(Span) + Send),
    ) -> Result<ScanEnd, Fault> {
        let service = (filter.services.len() == 1).then(|| filter.services.first().cloned()).flatten();
        let request = TraceRequest {
            window,
            service,
            operation: None,
            minimum_duration: None,
            errors_only: filter.errors_only,
            attributes: Vec::new(),
            order: TraceOrder::Newest,
            limit: MOST_TRACES,
        };
        let found = self.traces(permit, &request).await?;
        let mut complete = matches!(found.total, Total::Exact(total) if total as usize <= found.traces.len());
        let mut scanned = 0;
        for summary in found.traces {
            let Some(trace) = self.trace(permit, &summary.trace_id).await? else { continue };
            complete &= !trace.truncated;
            for span in trace.spans {
                let wanted = window.contains(span.start)
                    && (filter.services.is_empty() || filter.services.contains(&*span.service))
                    && (!filter.errors_only || span.status == portcullis_model::SpanStatus::Error);
                if !wanted {
                    continue;
                }
                if scanned >= limit {
                    return Ok(ScanEnd { scanned, complete: false });
                }
                scanned += 1;
                visit(span);
            }
        }
        Ok(ScanEnd { scanned, complete })
    }

    async fn alerts(&self, permit: &Permit, request: &AlertRequest) -> Result<AlertAnswer, Fault> {
        let question =
            wit::AlertQuestion { state: request.state.map(convert::alert_state_out), service: request.service.clone() };
        let Answer::Alerts(answer) = self.plugin.ask(permit, &Question::Alerts(question)).await? else {
            return Err(self.wrong_kind("alerts"));
        };
        let mut alerts: Vec<_> = answer.alerts.into_iter().map(convert::alert).collect();
        let mut within = Confinement::new(permit, None, request.service.as_deref());
        within.alerts(&mut alerts);
        self.settle(permit, &within);
        alerts.retain(|alert| request.state.is_none_or(|state| alert.state == state));
        Ok(AlertAnswer { alerts, rules: answer.rules })
    }
}

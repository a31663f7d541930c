//! Prometheus and what speaks its HTTP API: Mimir, Cortex, Thanos, VictoriaMetrics. Guards that every request carries
//! the caller's scope as matchers, and that failed, absent and zero stay three different things.
//!
//! Rooms: [`config`](PrometheusConfig) (settings), `api` and `wire` (requests and answers), `views` (the scope as
//! matchers), `secret_labels` (what is not asked), `window` (times), `semantic` and `plan` (metrics by meaning), `survey`
//! (what a source has).

mod api;
mod capabilities;
mod catalogue;
mod config;
mod plan;
mod remembered;
mod secret_labels;
mod semantic;
mod survey;
mod views;
mod window;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::{EgressClient, LiteralSecrets, SecretResolver};
use portcullis_model::{
    Alert, AlertState, Clock, Exemplar, Fault, FaultCode, Scope, Series, Service, Signal, SourceName, SystemClock, TimeWindow,
    Timestamp, format_duration, parse_instant,
};
use portcullis_policy::Permit;
use portcullis_ports::{
    AlertAnswer, AlertRequest, LabelValuesRequest, MetricAnswer, MetricCatalogueAnswer, MetricCatalogueRequest, MetricRequest,
    MetricSelector, ServiceAnswer, Source, SourceHealth, Total,
};
use portcullis_query::promql::{Expr, LabelName, Matcher};
use portcullis_query::{Confinement, PromqlType, TimeLimits, confine_promql, promql_info, promql_reach};

use api::{Api, Author};
use config::Labels;
pub use config::{PrometheusConfig, PrometheusConfigError};
use plan::{Plan, Question, conditions, invalid};
use survey::{Keeping, Looking};
use views::{View, all_views, is_visible, listing_views};
use window::{Clamped, clamp, evaluations, step};

/// Exemplars in one answer at most.
const MAX_EXEMPLARS: usize = 20;

/// One configured Prometheus-compatible backend.
#[derive(Debug)]
pub struct PrometheusSource {
    name: SourceName,
    config: PrometheusConfig,
    labels: Labels,
    api: Api,
    origin: String,
    clock: Arc<dyn Clock>,
    kept: Keeping,
}

impl PrometheusSource {
    /// Builds the source. Nothing is sent.
    ///
    /// # Errors
    /// When the settings cannot work; the error names the source and the setting.
    pub fn new(name: SourceName, config: PrometheusConfig) -> Result<Self, PrometheusConfigError> {
        Self::with_secrets(name, config, &LiteralSecrets)
    }

    /// The same with the secrets its settings refer to; each is looked up when a request is sent.
    ///
    /// # Errors
    /// As [`PrometheusSource::new`], and when a secret is not configured.
    pub fn with_secrets(
        name: SourceName,
        config: PrometheusConfig,
        secrets: &dyn SecretResolver,
    ) -> Result<Self, PrometheusConfigError> {
        Self::build(name, config, Arc::new(SystemClock), secrets)
    }

    /// The same with another clock, for look-back limits in tests.
    ///
    /// # Errors
    /// As [`PrometheusSource::new`].
    pub fn with_clock(name: SourceName, config: PrometheusConfig, clock: Arc<dyn Clock>) -> Result<Self, PrometheusConfigError> {
        Self::build(name, config, clock, &LiteralSecrets)
    }

    fn build(
        name: SourceName,
        config: PrometheusConfig,
        clock: Arc<dyn Clock>,
        secrets: &dyn SecretResolver,
    ) -> Result<Self, PrometheusConfigError> {
        let labels = config.labels(&name)?;
        let client = EgressClient::new(config.egress(&name, secrets)?)?;
        let (origin, apart) = (client.origin().to_owned(), client.asks_as_caller());
        let api = Api::new(client, config.timeout.0);
        Ok(Self { name, config, labels, api, origin, clock, kept: Keeping::new(apart) })
    }

    /// `scheme://host:port`, for charters that ask this source (health checks).
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Refuses principals of another tenant and those who may not ask this source.
    fn admit<'a>(&self, permit: &'a Permit) -> Result<&'a Scope, Fault> {
        let scope = permit.scope();
        if scope.tenant != self.config.tenant || !scope.sources.contains(self.name.as_str()) {
            return Err(Fault::new(FaultCode::Forbidden, format!("source '{}' is not available to this credential", self.name)));
        }
        Ok(scope)
    }

    /// The parts of a question about metrics that do not depend on which metric it is.
    fn begin<'a>(&self, permit: &'a Permit, window: TimeWindow, service: Option<&str>) -> Result<(&'a Scope, Clamped), Fault> {
        let scope = self.admit(permit)?;
        if let Some(service) = service {
            scope.require_service(service).map_err(|e| Fault::new(FaultCode::Forbidden, e.to_string()))?;
        }
        Ok((scope, clamp(window, scope, self.clock.now())?))
    }

    fn looking<'a>(&'a self, permit: &'a Permit, clamped: &Clamped) -> Looking<'a> {
        Looking { source: self, permit, window: clamped.window, earliest: clamped.earliest }
    }

    /// The views in which the source has anything for the question.
    async fn views(&self, looking: &Looking<'_>, scope: &Scope, service: Option<&str>) -> Result<Vec<View>, Fault> {
        let all = all_views(&self.labels, scope, service).map_err(|e| self.unanswerable(&e))?;
        looking.inhabited(all).await
    }

    fn unanswerable(&self, error: &portcullis_query::QueryError) -> Fault {
        match error {
            portcullis_query::QueryError::NoLabel { .. } => {
                Fault::new(FaultCode::NoSource, format!("source '{}': {error}", self.name))
            }
            portcullis_query::QueryError::NothingInScope { .. } => Fault::new(FaultCode::Forbidden, error.to_string()),
            other => invalid(other),
        }
    }

    /// Confines a raw query to the scope and to the question's own service and conditions.
    async fn confined(
        &self,
        looking: &Looking<'_>,
        scope: &Scope,
        request: &MetricRequest,
        raw: &str,
        times: TimeWindow,
    ) -> Result<(Option<String>, Vec<String>), Fault> {
        let info = promql_info(raw).map_err(|e| invalid(&e))?;
        if matches!(info.value_type, PromqlType::RangeVector | PromqlType::String) {
            return Err(Fault::invalid(
                "the query must give one number per series and instant; wrap a range such as x[5m] in a function, for example rate(x[5m])",
            ));
        }
        let views = self.views(looking, scope, request.service.as_deref()).await?;
        let mut notes = Vec::new();
        let Some(view) = views.first() else { return Ok((None, notes)) };
        if views.len() > 1 {
            let label = view.label.as_ref().map_or("a label", LabelName::as_str);
            notes.push(format!(
                "a raw query is confined by one label ({label}); series that name their service by another label are not included"
            ));
        }
        let more = conditions(&request.matchers).map_err(|e| invalid(&e))?;
        let limits = TimeLimits::of_scope(scope, times.start, times.end, self.clock.now());
        let confinement = Confinement::none().also(view.matchers()).also(&more).within(limits);
        let query = confine_promql(raw, &confinement).map_err(|e| invalid(&e))?;
        Ok((Some(query), notes))
    }

    async fn plan(&self, looking: &Looking<'_>, scope: &Scope, request: &MetricRequest, step: Duration) -> Result<Plan, Fault> {
        let group_by: Result<Vec<LabelName>, _> = request.group_by.iter().map(LabelName::new).collect();
        let views = self.views(looking, scope, request.service.as_deref()).await?;
        let everywhere = all_views(&self.labels, &Scope { services: portcullis_model::NameSet::All, ..scope.clone() }, None);
        let namespaces: Vec<Vec<Matcher>> =
            everywhere.map_err(|e| self.unanswerable(&e))?.into_iter().map(|view| view.namespace).collect();
        let question = Question {
            labels: &self.labels,
            views: &views,
            namespaces,
            service: request.service.as_deref(),
            confined: !scope.services.is_all(),
            conditions: conditions(&request.matchers).map_err(|e| invalid(&e))?,
            group_by: group_by.map_err(|e| invalid(&e))?,
            aggregation: request.aggregation,
            step,
        };
        match &request.metric {
            MetricSelector::Semantic(metric) => question.semantic(looking, *metric).await,
            MetricSelector::Named(name) => question.named(looking, name).await,
            MetricSelector::Raw(_) => Ok(Plan::default()),
        }
    }

    async fn exemplars(&self, looking: &Looking<'_>, query: &Expr, notes: &mut Vec<String>) -> Vec<Exemplar> {
        match self.api.exemplars(looking.permit, &query.to_string(), looking.window).await {
            Ok(found) => {
                let mut exemplars: Vec<Exemplar> = found
                    .into_iter()
                    .flat_map(|series| {
                        let labels = series.labels;
                        series.exemplars.into_iter().map(move |e| (labels.clone(), e))
                    })
                    .filter_map(|(labels, entry)| {
                        let trace_id =
                            ["trace_id", "traceID", "TraceID", "traceId"].iter().find_map(|name| entry.labels.get(*name));
                        let at = wire::from_seconds(entry.timestamp)?;
                        let trace_id = trace_id.map(|id| id.to_ascii_lowercase());
                        entry.value.is_finite().then_some(Exemplar { labels, at, value: entry.value, trace_id })
                    })
                    .collect();
                exemplars.sort_by(|a, b| b.value.total_cmp(&a.value));
                exemplars.truncate(MAX_EXEMPLARS);
                exemplars
            }
            Err(fault) => {
                tracing::debug!(source = %self.name, internal = fault.internal(), "no exemplars");
                notes.push("the source did not give exemplars".into());
                Vec::new()
            }
        }
    }
}

/// Worst or largest first, by the highest value in the window; ties by labels, so that the order is stable.
fn by_peak(series: &mut [Series]) {
    let peak = |s: &Series| s.samples.iter().map(|sample| sample.value).fold(f64::NEG_INFINITY, f64::max);
    series.sort_by(|a, b| peak(b).total_cmp(&peak(a)).then_with(|| a.labels.cmp(&b.labels)));
}

#[async_trait]
impl Source for PrometheusSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "prometheus"
    }

    fn capabilities(&self) -> BTreeSet<Signal> {
        capabilities::signals()
    }

    fn serves(&self, tenant: &portcullis_model::TenantId) -> bool {
        *tenant == self.config.tenant
    }

    async fn health(&self, permit: &Permit) -> SourceHealth {
        let started = std::time::Instant::now();
        let answer = match self.api.build_info(permit).await {
            Ok(Some(info)) => Ok(Some(info.version).filter(|v| !v.is_empty())),
            // Not every backend tells its version; a query tells whether it works.
            Ok(None) => self.api.query(permit, &Expr::from(1.0).to_string(), self.clock.now()).await.map(|_| None),
            Err(fault) => Err(fault),
        };
        let latency = started.elapsed();
        match answer {
            Ok(version) => SourceHealth { up: true, version, latency, message: None },
            Err(fault) => SourceHealth { up: false, version: None, latency, message: Some(fault.message().to_owned()) },
        }
    }

    async fn services(&self, permit: &Permit, window: TimeWindow) -> Result<ServiceAnswer, Fault> {
        let (scope, clamped) = self.begin(permit, window, None)?;
        let looking = self.looking(permit, &clamped);
        let views = listing_views(&self.labels, scope).map_err(|e| self.unanswerable(&e))?;
        let asked = views.iter().map(|(label, view)| looking.values(label.as_str(), std::slice::from_ref(view), None));
        let mut names = BTreeSet::new();
        for values in futures::future::try_join_all(asked).await? {
            names.extend(values.into_iter().filter(|name| !name.is_empty() && scope.services.contains(name)));
        }
        let service = |name| Service { name, signals: vec![Signal::Metrics], last_seen: None };
        Ok(ServiceAnswer { services: names.into_iter().map(service).collect() })
    }

    async fn metric_catalogue(&self, permit: &Permit, request: &MetricCatalogueRequest) -> Result<MetricCatalogueAnswer, Fault> {
        let (scope, clamped) = self.begin(permit, request.window, request.service.as_deref())?;
        let looking = self.looking(permit, &clamped);
        let views = self.views(&looking, scope, request.service.as_deref()).await?;
        catalogue::metrics(&looking, &views, request).await
    }

    async fn label_values(&self, permit: &Permit, request: &LabelValuesRequest) -> Result<Vec<String>, Fault> {
        if !self.capabilities().contains(&request.signal) {
            let message = format!("source '{}' has no labels of {}", self.name, request.signal.as_str());
            return Err(Fault::new(FaultCode::NoSource, message));
        }
        secret_labels::admit_values(permit, &request.label)?;
        let (scope, clamped) = self.begin(permit, request.window, request.service.as_deref())?;
        let looking = self.looking(permit, &clamped);
        let views = self.views(&looking, scope, request.service.as_deref()).await?;
        catalogue::label_values(&looking, &views, request).await
    }

    async fn metrics(&self, permit: &Permit, request: &MetricRequest) -> Result<MetricAnswer, Fault> {
        secret_labels::admit(permit, request)?;
        let (scope, clamped) = self.begin(permit, request.window, request.service.as_deref())?;
        let looking = self.looking(permit, &clamped);
        let step = step(clamped.window, request.step);
        let mut times = evaluations(clamped.window, step);
        let mut notes: Vec<String> = clamped.note.clone().into_iter().collect();
        let (query, plan, author) = if let MetricSelector::Raw(raw) = &request.metric {
            times = within_look_back(times, &clamped, reach_of(raw, times)?, step, &mut notes)?;
            let (query, said) = self.confined(&looking, scope, request, raw, times).await?;
            notes.extend(said);
            (query, Plan::default(), Author::Caller)
        } else {
            let plan = self.plan(&looking, scope, request, step).await?;
            times = within_look_back(times, &clamped, plan.reach, step, &mut notes)?;
            (plan.expr.as_ref().map(ToString::to_string), plan, Author::House)
        };
        notes.extend(plan.notes);
        let mut answer = MetricAnswer {
            series: Vec::new(),
            total_series: Total::Exact(0),
            metric: plan.metric,
            unit: plan.unit,
            query: query.clone().unwrap_or_default(),
            step,
            warnings: Vec::new(),
            exemplars: Vec::new(),
        };
        if let Some(query) = query {
            let reply = self.api.query_range(permit, &query, times, step, author).await?;
            notes.extend(reply.warnings);
            let mut shown = reply.data.into_series();
            if shown.infinite > 0 {
                notes.push(format!("{} samples were infinite and are left out", shown.infinite));
            }
            if shown.histograms > 0 {
                notes.push(format!("{} series hold native histograms; ask for a quantile to see them", shown.histograms));
            }
            let samples: usize = shown.series.iter().map(|s| s.samples.len()).sum();
            if samples as u64 > permit.budget().rows {
                return Err(Fault::new(
                    FaultCode::TooLarge,
                    format!("the answer of source '{}' has {samples} samples", self.name),
                )
                .with_hint("narrow it: a larger step, more matchers, or an aggregation"));
            }
            by_peak(&mut shown.series);
            answer.total_series = Total::Exact(shown.series.len() as u64);
            shown.series.truncate(request.max_series);
            answer.series = shown.series;
        }
        if let Some(query) = plan.exemplars.filter(|_| !answer.series.is_empty()) {
            answer.exemplars = self.exemplars(&looking, &query, &mut notes).await;
        }
        answer.warnings = notes;
        Ok(answer)
    }

    async fn alerts(&self, permit: &Permit, request: &AlertRequest) -> Result<AlertAnswer, Fault> {
        let scope = self.admit(permit)?;
        if let Some(service) = &request.service {
            scope.require_service(service).map_err(|e| Fault::new(FaultCode::Forbidden, e.to_string()))?;
        }
        let now = self.clock.now();
        let entries = self.api.alerts(permit).await?.alerts;
        let mut alerts: Vec<Alert> = entries
            .into_iter()
            .filter(|entry| is_visible(&self.labels, scope, request.service.as_deref(), &entry.labels))
            .filter_map(|entry| alert(entry, now))
            .filter(|alert| request.state.is_none_or(|state| state == alert.state))
            .collect();
        let order = |state: AlertState| match state {
            AlertState::Firing => 0,
            AlertState::Pending => 1,
            AlertState::Resolved => 2,
        };
        alerts.sort_by(|a, b| {
            (order(a.state), a.active_since, &a.name, &a.labels).cmp(&(order(b.state), b.active_since, &b.name, &b.labels))
        });
        // Rules are not bound to a service, so a restricted caller does not learn how many there are.
        let rules = if scope.restricts_records() {
            None
        } else {
            let rules = self.api.alerting_rules(permit).await;
            rules.ok().map(|r| r.groups.iter().flat_map(|g| &g.rules).filter(|rule| rule.kind == "alerting").count() as u64)
        };
        Ok(AlertAnswer { alerts, rules })
    }
}

/// How far back of its evaluation a raw query reads.
fn reach_of(raw: &str, times: TimeWindow) -> Result<Duration, Fault> {
    let reach = promql_reach(raw, times.start, times.end).map_err(|e| invalid(&e))?;
    Ok(reach.map_or(Duration::ZERO, |reach| times.start.since(reach.earliest)))
}

/// Moves the first evaluation so that nothing before the scope's look-back is read by a rate or range, and notes from when on
/// there are values then.
fn within_look_back(
    times: TimeWindow,
    clamped: &Clamped,
    reach: Duration,
    step: Duration,
    notes: &mut Vec<String>,
) -> Result<TimeWindow, Fault> {
    let Some(earliest) = clamped.earliest else { return Ok(times) };
    let first = earliest.plus(reach);
    if times.start >= first {
        return Ok(times);
    }
    let steps = first.since(times.start).as_nanos().div_ceil(step.as_nanos().max(1));
    let start = times.start.plus(step * u32::try_from(steps).unwrap_or(u32::MAX));
    if start > times.end {
        return Err(Fault::new(
            FaultCode::Forbidden,
            format!("this credential may look back so little that no rate over {}s can be computed", reach.as_secs()),
        ));
    }
    notes.push(format!(
        "the first value is of {start}: each reads the {} before it, and this credential may not look back further",
        format_duration(reach)
    ));
    Ok(TimeWindow { start, end: times.end })
}

fn alert(entry: wire::AlertEntry, now: Timestamp) -> Option<Alert> {
    let state = match entry.state.as_str() {
        "firing" => AlertState::Firing,
        "pending" => AlertState::Pending,
        _ => return None,
    };
    let mut labels = entry.labels;
    Some(Alert {
        name: labels.remove("alertname").unwrap_or_default(),
        state,
        severity: labels.get("severity").cloned(),
        active_since: entry.active_at.and_then(|text| parse_instant(&text, now).ok()),
        annotations: entry.annotations,
        value: entry.value,
        labels,
    })
}

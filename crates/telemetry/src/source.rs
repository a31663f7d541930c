//! The store as a `Source`: takes the permit's scope, deadline and budget into every question.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, Signal, SourceName, Span, TimeWindow, Timestamp, Trace};
use portcullis_policy::Permit;
use portcullis_ports::{
    Aggregation, LabelValuesRequest, LogAnswer, LogCountAnswer, LogCountRequest, LogFilter, LogLine, LogRequest, MetricAnswer,
    MetricCatalogueAnswer, MetricCatalogueRequest, MetricRequest, MetricSelector, ScanEnd, ServiceAnswer, Source, SourceHealth,
    SpanFilter, SqlAnswer, SqlRequest, TraceAnswer, TraceRequest,
};
use tokio::sync::mpsc;

use crate::error::{Result, StoreError};
use crate::read::metrics::{Found, Grid, Merge, Question, Reading, find, merge, rank, reading, usual_step};
use crate::read::semantic::{SemanticQuestion, resolve};
use crate::read::{Confinement, counts, labels, logs, services, traces};
use crate::scan::Cancel;
use crate::schema::Table;
use crate::scrub::{Scrub, Scrubber};
use crate::sql;
use crate::store::Store;

/// Slices of a scan that wait for their reader.
const SCAN_AHEAD: usize = 2;

/// The embedded store under a source name.
#[derive(Debug, Clone)]
pub struct EmbeddedSource {
    name: SourceName,
    store: Store,
    scrubber: Option<Arc<dyn Scrubber>>,
}

impl EmbeddedSource {
    /// The store, answering as `name`.
    pub fn new(name: SourceName, store: Store) -> Self {
        Self { name, store, scrubber: None }
    }

    /// Conditions and functions of questions see what the scrubber leaves, unless the caller may see unredacted answers.
    #[must_use]
    pub fn scrubbed(self, scrubber: Arc<dyn Scrubber>) -> Self {
        Self { scrubber: Some(scrubber), ..self }
    }

    fn confinement(&self, permit: &Permit) -> Result<Confinement, Fault> {
        permit.scope().require_source(self.name.as_str()).map_err(|e| Fault::new(FaultCode::Forbidden, e.to_string()))?;
        let scrubber = self.scrubber.clone().filter(|_| !permit.may_see_unredacted());
        let scrub = scrubber.map(|scrubber| Scrub::new(scrubber, permit.scope().tenant.clone()));
        Ok(Confinement::new(permit.scope(), self.store.now()).scrubbed(scrub))
    }

    async fn ask<T: Send + 'static>(
        &self,
        permit: &Permit,
        work: impl FnOnce(&Store, &Cancel, &Confinement) -> Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let confinement = self.confinement(permit)?;
        self.store.read(permit.deadline(), move |store, cancel| work(store, cancel, &confinement)).await.map_err(fault)
    }
}

/// What a failure of the store means to the caller.
pub(crate) fn fault(error: StoreError) -> Fault {
    match error {
        StoreError::Invalid(sentence) => Fault::invalid(sentence),
        // Whoever wrote the row must not speak as this server.
        StoreError::Row(words) => Fault::invalid("the statement failed on a row of the data").with_foreign(words),
        StoreError::Deadline => Fault::new(FaultCode::DeadlineExceeded, error.to_string()),
        StoreError::Cancelled => Fault::new(FaultCode::Cancelled, error.to_string()),
        StoreError::Closed => Fault::new(FaultCode::Unavailable, error.to_string()),
        StoreError::Overloaded { retry_after_seconds } => {
            Fault::new(FaultCode::RateLimited, "the embedded store is busy").with_retry_after(retry_after_seconds)
        }
        StoreError::Crowded { retry_after_seconds, .. } => Fault::new(FaultCode::RateLimited, error.to_string())
            .with_retry_after(retry_after_seconds)
            .with_hint("wait until one of them has ended"),
        other => Fault::backend("the embedded store could not answer", other.to_string()),
    }
}

#[async_trait]
impl Source for EmbeddedSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn capabilities(&self) -> BTreeSet<Signal> {
        BTreeSet::from([Signal::Metrics, Signal::Logs, Signal::Traces, Signal::Sql])
    }

    async fn health(&self, _permit: &Permit) -> SourceHealth {
        let started = Instant::now();
        let stats = self.store.stats();
        SourceHealth {
            up: stats.last_error.is_none(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            latency: started.elapsed(),
            message: stats.last_error.map(|_| "the embedded store cannot write; see the server's log".to_owned()),
        }
    }

    async fn services(&self, permit: &Permit, window: TimeWindow) -> Result<ServiceAnswer, Fault> {
        let services = self.ask(permit, move |store, cancel, c| services::services(store, cancel, c, window)).await?;
        Ok(ServiceAnswer { services })
    }

    async fn metric_catalogue(&self, permit: &Permit, request: &MetricCatalogueRequest) -> Result<MetricCatalogueAnswer, Fault> {
        let request = request.clone();
        self.ask(permit, move |store, cancel, c| labels::catalogue(store, cancel, c, &request)).await
    }

    async fn label_values(&self, permit: &Permit, request: &LabelValuesRequest) -> Result<Vec<String>, Fault> {
        let request = request.clone();
        self.ask(permit, move |store, cancel, c| labels::values(store, cancel, c, &request)).await
    }

    async fn metrics(&self, permit: &Permit, request: &MetricRequest) -> Result<MetricAnswer, Fault> {
        let request = request.clone();
        self.ask(permit, move |store, cancel, c| answer_metrics(store, cancel, c, &request)).await
    }

    async fn logs(&self, permit: &Permit, request: &LogRequest) -> Result<LogAnswer, Fault> {
        let request = request.clone();
        self.ask(permit, move |store, cancel, c| logs::page(store, cancel, c, &request)).await
    }

    async fn log_counts(&self, permit: &Permit, request: &LogCountRequest) -> Result<LogCountAnswer, Fault> {
        let request = request.clone();
        self.ask(permit, move |store, cancel, c| counts::counts(store, cancel, c, &request)).await
    }

    async fn scan_logs(
        &self,
        permit: &Permit,
        filter: &LogFilter,
        visit: &mut (dyn for<'a> FnMut(LogLine<'a>) + Send),
    ) -> Result<ScanEnd, Fault> {
        let confinement = self.confinement(permit)?;
        let (filter, most) = (filter.clone(), permit.budget().rows);
        let (send, mut receive) = mpsc::channel(SCAN_AHEAD);
        let work = self.store.read(permit.deadline(), move |store, cancel| {
            logs::scan(store, cancel, &confinement, &filter, most, &mut |rows| send.blocking_send(rows).is_ok())
        });
        let visiting = async {
            while let Some(rows) = receive.recv().await {
                visit_lines(&rows, visit);
            }
        };
        let (end, ()) = tokio::join!(work, visiting);
        let (scanned, complete) = end.map_err(fault)?;
        Ok(ScanEnd { scanned, complete })
    }

    async fn traces(&self, permit: &Permit, request: &TraceRequest) -> Result<TraceAnswer, Fault> {
        let request = request.clone();
        self.ask(permit, move |store, cancel, c| traces::search(store, cancel, c, &request)).await
    }

    async fn trace(&self, permit: &Permit, trace_id: &str) -> Result<Option<Trace>, Fault> {
        let trace_id = trace_id.to_owned();
        self.ask(permit, move |store, cancel, c| traces::trace(store, cancel, c, &trace_id)).await
    }

    async fn scan_spans(
        &self,
        permit: &Permit,
        window: TimeWindow,
        filter: &SpanFilter,
        limit: u64,
        visit: &mut (dyn FnMut(Span) + Send),
    ) -> Result<ScanEnd, Fault> {
        let confinement = self.confinement(permit)?;
        let (filter, most) = (filter.clone(), limit.min(permit.budget().rows));
        let (send, mut receive) = mpsc::channel::<Vec<Span>>(SCAN_AHEAD);
        let work = self.store.read(permit.deadline(), move |store, cancel| {
            traces::scan(store, cancel, &confinement, window, &filter, most, &mut |spans| send.blocking_send(spans).is_ok())
        });
        let visiting = async {
            while let Some(spans) = receive.recv().await {
                spans.into_iter().for_each(&mut *visit);
            }
        };
        let (end, ()) = tokio::join!(work, visiting);
        let (scanned, complete) = end.map_err(fault)?;
        Ok(ScanEnd { scanned, complete })
    }

    async fn sql(&self, permit: &Permit, request: &SqlRequest) -> Result<SqlAnswer, Fault> {
        let confinement = self.confinement(permit)?;
        sql::answer(&self.store, permit, confinement, request).await.map_err(fault)
    }
}

fn visit_lines(rows: &logs::LogSlice, visit: &mut (dyn for<'a> FnMut(LogLine<'a>) + Send)) {
    use arrow::array::AsArray as _;
    use arrow::datatypes::{TimestampNanosecondType, UInt8Type};
    let times = rows.column(0).as_primitive::<TimestampNanosecondType>().values();
    let words = rows.column(1).as_string_view();
    let numbers = rows.column(2).as_primitive::<UInt8Type>().values();
    let (services, bodies) = (rows.column(3).as_string_view(), rows.column(4).as_string_view());
    for row in 0..rows.num_rows() {
        visit(LogLine {
            at: Timestamp::from_nanos(times[row]),
            severity: logs::severity(numbers[row], words.value(row)),
            service: services.value(row),
            body: bodies.value(row),
        });
    }
}

fn answer_metrics(store: &Store, cancel: &Cancel, confinement: &Confinement, request: &MetricRequest) -> Result<MetricAnswer> {
    let step = request.step.unwrap_or_else(|| usual_step(request.window));
    let empty = |metric: String| MetricAnswer {
        series: Vec::new(),
        total_series: portcullis_ports::Total::Exact(0),
        metric,
        unit: String::new(),
        query: String::new(),
        step,
        warnings: Vec::new(),
        exemplars: Vec::new(),
    };
    match &request.metric {
        MetricSelector::Raw(_) => Err(StoreError::Invalid(
            "the embedded store has no query language of its own for metrics; name a metric, or use SQL".into(),
        )),
        MetricSelector::Semantic(meaning) => {
            let question = SemanticQuestion {
                metric: *meaning,
                window: request.window,
                step,
                service: request.service.clone(),
                matchers: request.matchers.clone(),
                aggregation: request.aggregation,
                group_by: request.group_by.clone(),
            };
            let Some(found) = resolve(store, cancel, confinement, &question)? else {
                return Ok(empty(meaning.as_str().to_owned()));
            };
            let (series, total_series) = rank(found.series, request.max_series, found.overflow);
            let query = format!("{} from {}", meaning.as_str(), found.metric);
            Ok(MetricAnswer { series, total_series, query, unit: found.unit.to_owned(), ..empty(found.metric) })
        }
        MetricSelector::Named(name) => {
            let question = Question {
                window: request.window,
                step,
                names: BTreeSet::from([name.clone()]),
                service: request.service.clone(),
                matchers: request.matchers.clone(),
            };
            let found = find(store, cancel, confinement, &question)?;
            if found.series.is_empty() {
                return Ok(empty(name.clone()));
            }
            named(request, step, name, found).map(|answer| MetricAnswer { step, ..answer })
        }
    }
}

fn named(request: &MetricRequest, step: Duration, name: &str, found: Found) -> Result<MetricAnswer> {
    let grid = Grid::new(request.window, step)?;
    let read = reading(request.aggregation);
    let table = found.table.unwrap_or(Table::Gauge);
    let stored_unit = found.series.first().map(|s| s.unit.clone()).unwrap_or_default();
    let rates = found.series.iter().any(|s| matches!(s.cells, crate::read::metrics::Cells::Rates(_)));
    let distributions = found.series.iter().any(|s| matches!(s.cells, crate::read::metrics::Cells::Distributions { .. }));
    let mut warnings: Vec<String> = found
        .also_in
        .iter()
        .map(|other| format!("points of this name are also in {}; they were not taken", other.name()))
        .collect();
    if found.series.iter().any(|s| s.unit != stored_unit) {
        warnings.push("series of this name were sent with different units".into());
    }
    if table == Table::Summary {
        warnings.push("a summary: the sender's quantile nearest to 0.95 is shown".into());
    }
    let unit = match (request.aggregation, read) {
        (Some(Aggregation::Count), _) => "{series}".to_owned(),
        (_, Reading::Rate) if distributions => "1/s".to_owned(),
        _ if rates => per_second(&stored_unit),
        _ => stored_unit,
    };
    let how = Merge { aggregation: request.aggregation, group_by: &request.group_by };
    let (series, total_series) = rank(merge(&grid, found.series, how, read), request.max_series, found.overflow);
    Ok(MetricAnswer {
        series,
        total_series,
        metric: name.to_owned(),
        unit,
        query: points_query(table, name, request),
        step,
        warnings,
        exemplars: Vec::new(),
    })
}

fn per_second(unit: &str) -> String {
    if unit.is_empty() { "1/s".to_owned() } else { format!("{unit}/s") }
}

/// SQL that lists the points an answer was made of.
fn points_query(table: Table, name: &str, request: &MetricRequest) -> String {
    let quote = |text: &str| text.replace('\'', "''");
    let service = request.service.as_ref().map_or(String::new(), |s| format!(" AND ServiceName = '{}'", quote(s)));
    format!(
        "SELECT * FROM {} WHERE MetricName = '{}'{service} AND TimeUnix >= '{}' AND TimeUnix < '{}'",
        table.name(),
        quote(name),
        request.window.start,
        request.window.end
    )
}

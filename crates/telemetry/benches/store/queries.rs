//! The timed questions of the benchmark. Each is asked once to open files, then five times; the median counts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use portcullis_model::{MetricDescriptor, Scope, SourceName, TenantId, TimeWindow, Timestamp};
use portcullis_policy::{Budget, CharterGrant, Permit, Policies, PolicyText, Vocabulary};
use portcullis_ports::{
    LogCountRequest, LogFilter, LogRequest, MetricCatalogueRequest, MetricRequest, MetricSelector, Source, SqlRequest,
    TextFilter, TraceOrder, TraceRequest,
};
use portcullis_telemetry::{EmbeddedSource, Store};

use crate::data::Input;
use crate::figures::Figures;

fn permit() -> Permit {
    let texts: [PolicyText; 0] = [];
    let policies = Policies::load(&texts, &Vocabulary::default(), 1).unwrap();
    let grant = CharterGrant {
        name: "benchmark".into(),
        destinations: BTreeSet::new(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
        time_limit: Duration::from_mins(2),
        budget: Budget::default(),
    };
    policies.charter(grant).unwrap().permit()
}

/// Asks and prints.
pub(crate) async fn run(store: &Store, input: &Input, figures: &mut Figures) {
    let source = EmbeddedSource::new(SourceName::new("store").unwrap(), store.clone());
    let window =
        TimeWindow { start: Timestamp::from_nanos(input.window.0 as i64), end: Timestamp::from_nanos(input.window.1 as i64) };
    let filter = LogFilter {
        window,
        service: Some("payment".into()),
        minimum_severity: None,
        text: Some(TextFilter::Contains("ECONNREFUSED".into())),
        attributes: Vec::new(),
        trace_id: None,
    };
    let logs = |filter: &LogFilter| LogRequest { filter: filter.clone(), limit: 100, newest_first: true, after: None };
    let rare = logs(&filter);
    let text = timed("logs: service + text, exact total", || async {
        let answer = source.logs(&permit(), &rare).await.unwrap();
        format!("{} records of {:?}", answer.records.len(), answer.total)
    })
    .await;
    let plain = logs(&LogFilter { text: None, ..filter.clone() });
    timed("logs: service, newest 100", || async {
        let answer = source.logs(&permit(), &plain).await.unwrap();
        format!("{} records of {:?}", answer.records.len(), answer.total)
    })
    .await;
    let everywhere = logs(&LogFilter { service: None, ..filter.clone() });
    timed("logs: text in all services", || async {
        let answer = source.logs(&permit(), &everywhere).await.unwrap();
        format!("{} records of {:?}", answer.records.len(), answer.total)
    })
    .await;
    let by_trace = logs(&LogFilter { service: None, text: None, trace_id: Some(input.trace_id.clone()), ..filter.clone() });
    timed("logs: by trace id", || async {
        format!("{} records", source.logs(&permit(), &by_trace).await.unwrap().records.len())
    })
    .await;
    let counts = LogCountRequest {
        filter: LogFilter { service: None, text: None, ..filter.clone() },
        by: vec!["service".into(), "severity".into()],
        step: Some(Duration::from_mins(1)),
        top: 20,
    };
    timed("log counts: by service and severity per minute", || async {
        format!("{:?}", source.log_counts(&permit(), &counts).await.unwrap().total)
    })
    .await;
    let by_id = timed("trace by id", || async {
        format!("{} spans", source.trace(&permit(), &input.trace_id).await.unwrap().map_or(0, |t| t.spans.len()))
    })
    .await;
    let search = TraceRequest {
        window,
        service: Some("checkout".into()),
        operation: None,
        minimum_duration: Some(Duration::from_millis(250)),
        errors_only: false,
        attributes: Vec::new(),
        order: TraceOrder::Slowest,
        limit: 20,
    };
    timed("trace search: service, slowest 20", || async {
        let answer = source.traces(&permit(), &search).await.unwrap();
        format!("{} of {:?}", answer.traces.len(), answer.total)
    })
    .await;
    let metric = MetricRequest {
        window,
        step: Some(Duration::from_secs(30)),
        metric: MetricSelector::Named("shop.queue.depth.4".into()),
        service: None,
        matchers: Vec::new(),
        group_by: Vec::new(),
        aggregation: None,
        max_series: 2_000,
    };
    let range = timed("metric range: one hour, every series", || async {
        let answer = source.metrics(&permit(), &metric).await.unwrap();
        format!("{} series, {} samples", answer.series.len(), answer.series.iter().map(|s| s.samples.len()).sum::<usize>())
    })
    .await;
    let catalogue = MetricCatalogueRequest { window, service: None, name_contains: None, limit: 100, with_labels: true };
    timed("metric catalogue with labels", || async {
        let metrics: Vec<MetricDescriptor> = source.metric_catalogue(&permit(), &catalogue).await.unwrap().metrics;
        format!("{} metrics, {} series", metrics.len(), metrics.iter().filter_map(|m| m.series).sum::<u64>())
    })
    .await;
    timed("services", || async { format!("{} services", source.services(&permit(), window).await.unwrap().services.len()) })
        .await;
    let statement =
        "SELECT ServiceName, count(*) AS n FROM otel_logs WHERE SeverityNumber >= 17 GROUP BY ServiceName ORDER BY n DESC";
    let sql = SqlRequest { statement: statement.into(), max_rows: 100 };
    timed("sql: errors by service", || async { format!("{} rows", source.sql(&permit(), &sql).await.unwrap().rows.len()) }).await;
    figures.at_most("service + text over one hour, ms", text, 200.0);
    figures.at_most("trace by id, ms", by_id, 30.0);
    figures.at_most("metric range, one hour, 1,000 series, ms", range, 150.0);
}

/// Asks and prints; returns the median in milliseconds.
async fn timed<F: Future<Output = String>>(name: &str, ask: impl Fn() -> F) -> f64 {
    let first = Instant::now();
    let answer = ask().await;
    let first = first.elapsed();
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        ask().await;
        times.push(started.elapsed());
    }
    times.sort();
    let median = times[2].as_secs_f64() * 1e3;
    println!("query {name}: {median:.1} ms (first {:.1} ms) — {answer}", first.as_secs_f64() * 1e3);
    median
}

//! A real Prometheus (the distribution's package) that scrapes a real node exporter and two instances of a made-up
//! service, one healthy and one in trouble. Started and stopped here; skipped with a message where it is not installed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_connectors::PrometheusSource;
use portcullis_model::{AlertState, Fault, MetricKind, NameSet, Scope, Signal};
use portcullis_policy::Permit;
use portcullis_ports::{
    Aggregation, AlertRequest, LabelMatch, LabelValuesRequest, MatchOperator, MetricAnswer, MetricCatalogueRequest,
    MetricRequest, SemanticMetric, Source, Total,
};

use crate::support::{Process, Server, everything, free_port, last, named, permit, raw, response, semantic, serve, source};

const PROMETHEUS: &str = "/usr/bin/prometheus";
const NODE_EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

/// How one instance of the made-up service behaves, per second.
#[derive(Clone, Copy)]
struct Behaviour {
    failed: f64,
    slow: f64,
    cpu: f64,
    open_files: u32,
}

const HEALTHY: Behaviour = Behaviour { failed: 0.0, slow: 0.0, cpu: 0.05, open_files: 10 };
const TROUBLED: Behaviour = Behaviour { failed: 2.0, slow: 4.0, cpu: 0.97, open_files: 90 };

/// The histogram that each instance has.
const NAME: &str = "http_server_request_duration_seconds";

/// OpenMetrics of one instance after running for `elapsed` seconds, ten requests a second.
fn metrics(behaviour: Behaviour, elapsed: f64) -> String {
    let count = |per_second: f64| (per_second * elapsed).floor();
    let ok = count(10.0 - behaviour.failed);
    let bad = count(behaviour.failed);
    let fast = |n: f64| (n * (1.0 - behaviour.slow / 10.0)).floor();
    let mut lines = vec![format!("# TYPE {NAME} histogram"), format!("# HELP {NAME} Duration of HTTP server requests.")];
    for (status, all) in [("200", ok), ("500", bad)] {
        let labels = format!("http_request_method=\"GET\",http_response_status_code=\"{status}\"");
        let exemplar = "# {trace_id=\"A3CE929D0E0E47364BF92F3577B34DA6\"} 0.7";
        lines.push(format!("{NAME}_bucket{{{labels},le=\"0.1\"}} {}", fast(all)));
        lines.push(format!("{NAME}_bucket{{{labels},le=\"1\"}} {all} {exemplar}"));
        lines.push(format!("{NAME}_bucket{{{labels},le=\"+Inf\"}} {all}"));
        lines.push(format!("{NAME}_count{{{labels}}} {all}"));
        lines.push(format!("{NAME}_sum{{{labels}}} {}", all * 0.3));
    }
    lines.push("# TYPE process_cpu_seconds counter".into());
    lines.push(format!("process_cpu_seconds_total {}", behaviour.cpu * elapsed));
    for (name, value) in [
        ("process_resident_memory_bytes", 1.0e8),
        ("process_open_fds", f64::from(behaviour.open_files)),
        ("process_max_fds", 100.0),
        ("not_a_number", f64::NAN),
    ] {
        lines.push(format!("# TYPE {name} gauge"));
        lines.push(format!("{name} {value}"));
    }
    // Scraped with the same job, but its own label says that it belongs to another service.
    lines.extend(["# TYPE orders gauge", "orders{service_name=\"payment\"} 7", "orders 3", "# EOF", ""].map(str::to_owned));
    lines.join("\n")
}

async fn instance(behaviour: Behaviour) -> Server {
    let started = Instant::now();
    serve(move |_| {
        let body = metrics(behaviour, started.elapsed().as_secs_f64());
        response("200 OK", "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n", &body)
    })
    .await
}

fn address(server: &Server) -> String {
    server.url.trim_start_matches("http://").to_owned()
}

/// Everything that runs during the test.
struct Stage {
    source: Arc<PrometheusSource>,
    healthy: Server,
    troubled: Server,
    _processes: [Process; 2],
    _folder: tempfile::TempDir,
}

async fn stage() -> Option<Stage> {
    for binary in [PROMETHEUS, NODE_EXPORTER] {
        if !Path::new(binary).exists() {
            assert!(std::env::var_os("PORTCULLIS_TESTS_MUST_RUN").is_none(), "{binary} is not installed");
            println!("skipped: {binary} is not installed (packages prometheus and prometheus-node-exporter)");
            return None;
        }
    }
    let (healthy, troubled) = (instance(HEALTHY).await, instance(TROUBLED).await);
    let (node, port) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let rules = "groups:\n- name: test\n  interval: 1s\n  rules:\n  - record: job:up:sum\n    expr: sum by (job) (up)\n  - alert: WebIsUp\n    expr: up{job=\"web\"} == 1\n    labels: {severity: warning}\n    annotations: {summary: 'web is up'}\n  - alert: Always\n    expr: vector(1)\n    for: 1h\n";
    std::fs::write(folder.path().join("rules.yml"), rules).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: web\n  static_configs: [{{targets: ['{}', '{}'], labels: {{namespace: shop}}}}]\n- job_name: node\n  static_configs: [{{targets: ['127.0.0.1:{node}'], labels: {{namespace: infra}}}}]\n",
        address(&healthy),
        address(&troubled)
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let exporter = Command::new(NODE_EXPORTER)
        .arg(format!("--web.listen-address=127.0.0.1:{node}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prometheus = Command::new(PROMETHEUS)
        .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--enable-feature=exemplar-storage")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let source = Arc::new(source(&format!("http://127.0.0.1:{port}")));
    Some(Stage { source, healthy, troubled, _processes: [Process(exporter), Process(prometheus)], _folder: folder })
}

/// Asks until the answer is right, for at most half a minute: Prometheus needs a few scrapes.
async fn until<T, F, W>(what: &str, mut ask: F, good: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
    F: FnMut() -> W,
    W: Future<Output = Result<T, Fault>>,
{
    let started = Instant::now();
    loop {
        let answer = ask().await;
        match answer {
            Ok(answer) if good(&answer) => return answer,
            answer if started.elapsed() > Duration::from_secs(30) => panic!("{what}: {answer:?}"),
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

impl Stage {
    fn permit(&self, scope: &Scope) -> Permit {
        permit(&self.source, scope.clone())
    }

    async fn ask(&self, scope: &Scope, request: MetricRequest) -> Result<MetricAnswer, Fault> {
        self.source.metrics(&self.permit(scope), &request).await
    }
}

fn peak(answer: &MetricAnswer, index: usize) -> f64 {
    answer.series[index].samples.iter().map(|s| s.value).fold(f64::NEG_INFINITY, f64::max)
}

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_real_prometheus_answers_every_question() {
    let Some(stage) = stage().await else { return };
    let all = everything();
    until(
        "services",
        || async { stage.source.services(&stage.permit(&all), last(MINUTE)).await },
        |answer| answer.services.len() >= 3,
    )
    .await;
    semantic_metrics(&stage, &all).await;
    names_labels_and_values(&stage, &all).await;
    raw_and_named(&stage, &all).await;
    alerts_and_health(&stage, &all).await;
    a_confined_caller_sees_its_services_only(&stage).await;
}

async fn semantic_metrics(stage: &Stage, all: &Scope) {
    let web = |metric| semantic(metric, Some("web"), last(MINUTE));
    let cpu = until("cpu", || stage.ask(all, web(SemanticMetric::Cpu)), |a| a.series.len() == 2 && peak(a, 0) > 0.8).await;
    assert_eq!(cpu.series[0].labels["instance"], address(&stage.troubled), "the worst replica comes first");
    assert!(peak(&cpu, 0) < 1.2 && peak(&cpu, 1) < 0.2, "{cpu:?}");
    assert_eq!((cpu.unit.as_str(), cpu.metric.as_str(), cpu.total_series), ("1", "process_cpu_seconds_total", Total::Exact(2)));
    assert!(cpu.query.contains("[4s]"), "four times the scrape interval of one second: {}", cpu.query);

    let one = MetricRequest { max_series: 1, ..web(SemanticMetric::Cpu) };
    let one = stage.ask(all, one).await.unwrap();
    assert_eq!((one.series.len(), one.total_series), (1, Total::Exact(2)));
    assert_eq!(one.series[0].labels["instance"], address(&stage.troubled));

    let rate =
        until("rate", || stage.ask(all, web(SemanticMetric::RequestRate)), |a| a.series.len() == 2 && peak(a, 1) > 8.0).await;
    assert!(peak(&rate, 0) < 14.0, "{rate:?}");
    let merged = MetricRequest { aggregation: Some(Aggregation::Sum), ..web(SemanticMetric::RequestRate) };
    let merged = stage.ask(all, merged).await.unwrap();
    assert!(merged.series.len() == 1 && peak(&merged, 0) > 16.0, "{merged:?}");

    let errors =
        until("errors", || stage.ask(all, web(SemanticMetric::ErrorRate)), |a| a.series.len() == 2 && peak(a, 0) > 0.1).await;
    assert!(peak(&errors, 0) < 0.4, "{errors:?}");
    assert!(peak(&errors, 1).abs() < f64::EPSILON, "a healthy instance has a true zero: {errors:?}");
    assert_eq!(errors.series[1].labels["instance"], address(&stage.healthy));

    let latency = until("latency", || stage.ask(all, web(SemanticMetric::LatencyP95)), |a| a.series.len() == 2).await;
    assert!(peak(&latency, 0) > 0.5 && peak(&latency, 1) <= 0.1, "{latency:?}");
    assert_eq!(latency.unit, "s");
    assert!(!latency.exemplars.is_empty(), "{latency:?}");
    assert_eq!(latency.exemplars[0].trace_id.as_deref(), Some("a3ce929d0e0e47364bf92f3577b34da6"));

    let memory = stage.ask(all, web(SemanticMetric::Memory)).await.unwrap();
    assert!((peak(&memory, 0) - 1.0e8).abs() < 1.0, "{memory:?}");
    let full = stage.ask(all, web(SemanticMetric::Saturation)).await.unwrap();
    assert_eq!((full.series[0].labels["resource"].as_str(), full.series.len()), ("file_descriptors", 2), "{full:?}");
    assert!((peak(&full, 0) - 0.9).abs() < 0.001, "{full:?}");

    let node = until(
        "node",
        || stage.ask(all, semantic(SemanticMetric::Saturation, Some("node"), last(MINUTE))),
        |a| !a.series.is_empty(),
    )
    .await;
    assert!(node.series.iter().any(|s| s.labels["resource"] == "memory"), "{:?}", node.series);
    let hosts =
        until("hosts", || stage.ask(all, semantic(SemanticMetric::Cpu, None, last(MINUTE))), |a| a.series.len() >= 4).await;
    let measured: Vec<_> = hosts.series.iter().map(|s| s.labels["measured_by"].as_str()).collect();
    assert!(measured.contains(&"host") && measured.contains(&"application"), "{measured:?}");

    let started = Instant::now();
    for _ in 0..20 {
        stage.ask(all, web(SemanticMetric::RequestRate)).await.unwrap();
    }
    println!("request_rate of one service from a real Prometheus: {:.1} ms on average", started.elapsed().as_secs_f64() * 50.0);

    let nothing = stage.ask(all, semantic(SemanticMetric::Cpu, Some("nowhere"), last(MINUTE))).await.unwrap();
    assert_eq!((nothing.series.len(), nothing.total_series), (0, Total::Exact(0)), "absent, not zero");
}

async fn names_labels_and_values(stage: &Stage, all: &Scope) {
    let services = stage.source.services(&stage.permit(all), last(MINUTE)).await.unwrap();
    let names: Vec<&str> = services.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["node", "payment", "web"]);
    let request = MetricCatalogueRequest {
        window: last(MINUTE),
        service: Some("web".into()),
        name_contains: Some("http_SERVER".into()),
        limit: 10,
        with_labels: true,
    };
    let catalogue = stage.source.metric_catalogue(&stage.permit(all), &request).await.unwrap();
    assert_eq!((catalogue.metrics.len(), catalogue.total), (1, Total::Exact(1)), "{catalogue:?}");
    let histogram = &catalogue.metrics[0];
    assert_eq!((histogram.name.as_str(), histogram.kind), ("http_server_request_duration_seconds", MetricKind::Histogram));
    assert_eq!(histogram.series, Some(20), "two instances, two statuses, three buckets, sum and count");
    assert!(histogram.labels.iter().any(|l| l == "http_response_status_code"));
    assert!(histogram.description.contains("Duration of HTTP"));

    let values = |label: &str, metric: Option<&str>| LabelValuesRequest {
        window: last(MINUTE),
        signal: Signal::Metrics,
        label: label.into(),
        metric: metric.map(str::to_owned),
        service: Some("web".into()),
        prefix: String::new(),
        limit: 100,
    };
    let statuses = values("http_response_status_code", Some("http_server_request_duration_seconds"));
    assert_eq!(stage.source.label_values(&stage.permit(all), &statuses).await.unwrap(), ["200", "500"]);
    let logs = LabelValuesRequest { signal: Signal::Logs, ..values("instance", None) };
    assert!(stage.source.label_values(&stage.permit(all), &logs).await.is_err());
}

async fn raw_and_named(stage: &Stage, all: &Scope) {
    let up = stage.ask(all, raw("sum by (job) (up)", last(MINUTE))).await.unwrap();
    assert_eq!(up.series.len(), 2);
    let counter = stage.ask(all, named("process_cpu_seconds_total", last(MINUTE))).await.unwrap();
    assert!(counter.query.starts_with("rate(") && counter.unit == "1", "{}", counter.query);
    let histogram = stage.ask(all, named("http_server_request_duration_seconds", last(MINUTE))).await.unwrap();
    assert!(histogram.query.starts_with("histogram_quantile(0.95"), "{}", histogram.query);
    let gauge = stage.ask(all, named("process_open_fds", last(MINUTE))).await.unwrap();
    assert_eq!(gauge.query, "process_open_fds");
    let mut filtered = named("process_open_fds", last(MINUTE));
    let healthy = address(&stage.healthy);
    filtered.matchers = vec![LabelMatch { name: "instance".into(), operator: MatchOperator::Equal, value: healthy.clone() }];
    let filtered = stage.ask(all, filtered).await.unwrap();
    assert_eq!((filtered.series.len(), filtered.series[0].labels["instance"].as_str()), (1, healthy.as_str()));
    let nan = stage.ask(all, named("not_a_number", last(MINUTE))).await.unwrap();
    assert_eq!(nan.total_series, Total::Exact(0), "NaN is absent");
    let wrong = stage.ask(all, raw("up * on (job) group_left () up", last(MINUTE))).await.unwrap_err();
    assert_eq!(wrong.code(), portcullis_model::FaultCode::InvalidArgument, "{wrong:?}");
}

async fn alerts_and_health(stage: &Stage, all: &Scope) {
    let asked = || async { stage.source.alerts(&stage.permit(all), &AlertRequest::default()).await };
    let alerts = until("alerts", asked, |a| a.alerts.len() == 3).await;
    assert_eq!(alerts.rules, Some(2), "recording rules are not alerts");
    let states: Vec<_> = alerts.alerts.iter().map(|a| (a.name.as_str(), a.state)).collect();
    assert_eq!(states, [("WebIsUp", AlertState::Firing), ("WebIsUp", AlertState::Firing), ("Always", AlertState::Pending)]);
    assert_eq!(alerts.alerts[0].severity.as_deref(), Some("warning"));
    assert!(alerts.alerts[0].active_since.is_some());
    let health = stage.source.health(&stage.permit(all)).await;
    assert!(health.up && health.version.is_some_and(|v| v.starts_with("2.")));
}

async fn a_confined_caller_sees_its_services_only(stage: &Stage) {
    let mut scope = everything();
    scope.services = NameSet::only(["web"]);
    let permit = stage.permit(&scope);
    let services = stage.source.services(&permit, last(MINUTE)).await.unwrap();
    assert_eq!(services.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["web"]);
    let up = stage.ask(&scope, raw("up", last(MINUTE))).await.unwrap();
    assert!(up.series.len() == 2 && up.series.iter().all(|s| s.labels["job"] == "web"), "{up:?}");
    let around = stage.ask(&scope, raw("up{job=\"node\"} or up{job=~\".+\"}", last(MINUTE))).await.unwrap();
    assert!(around.series.iter().all(|s| s.labels["job"] == "web"), "{around:?}");
    let hosts = stage.ask(&scope, named("node_load1", last(MINUTE))).await.unwrap();
    assert_eq!(hosts.total_series, Total::Exact(0));
    let orders = stage.ask(&scope, named("orders", last(MINUTE))).await.unwrap();
    assert_eq!(orders.series.len(), 2, "{orders:?}");
    assert!(
        orders.series.iter().all(|s| !s.labels.contains_key("service_name")),
        "series of 'payment' share the job: {orders:?}"
    );
    let catalogue =
        MetricCatalogueRequest { window: last(MINUTE), service: None, name_contains: None, limit: 500, with_labels: false };
    let catalogue = stage.source.metric_catalogue(&permit, &catalogue).await.unwrap();
    assert!(!catalogue.metrics.is_empty() && !catalogue.metrics.iter().any(|m| m.name.starts_with("node_")));
    let alerts = stage.source.alerts(&permit, &AlertRequest::default()).await.unwrap();
    assert!(alerts.alerts.len() == 2 && alerts.rules.is_none(), "{alerts:?}");

    let mut infra = everything();
    infra.namespaces = NameSet::only(["infra"]);
    let up = stage.ask(&infra, raw("up", last(MINUTE))).await.unwrap();
    assert!(up.series.len() == 1 && up.series[0].labels["job"] == "node", "{up:?}");
}

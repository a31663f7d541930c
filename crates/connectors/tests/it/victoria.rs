//! A real VictoriaMetrics (the distribution's package), filled through its import API and asked through the same source
//! as Prometheus. It scrapes nothing here, so targets, metadata, rules and exemplars are absent: that is no error. Started
//! and stopped here; skipped with a message where it is not installed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_connectors::PrometheusSource;
use portcullis_model::{Clock as _, Fault, MetricKind, NameSet, Scope, Signal, SystemClock};
use portcullis_policy::Permit;
use portcullis_ports::{
    AlertRequest, LabelValuesRequest, MetricAnswer, MetricCatalogueRequest, MetricRequest, SemanticMetric, Source, Total,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Process, decode, everything, free_port, last, named, permit, raw, semantic, source};

const VICTORIA: &str = "/usr/bin/victoria-metrics";
/// Distance of the samples that are written, seconds.
const SPACING: i64 = 15;
/// Samples of each series: ten minutes.
const SAMPLES: i64 = 40;
const TEN_MINUTES: Duration = Duration::from_mins(10);

/// Two instances of `web`, one with a core busy at 90 %, and a `payment` that others must not see.
fn samples(now: i64) -> String {
    let mut text = String::new();
    for n in 0..SAMPLES {
        let at = (now - (SAMPLES - 1 - n) * SPACING) * 1_000;
        for (job, namespace, instance, cpu) in
            [("web", "shop", "web-1", 0.1), ("web", "shop", "web-2", 0.9), ("payment", "money", "pay-1", 0.5)]
        {
            let labels = format!("job=\"{job}\",namespace=\"{namespace}\",instance=\"{instance}\"");
            let used = cpu * f64::from(i32::try_from(n * SPACING).unwrap());
            writeln!(text, "process_cpu_seconds_total{{{labels}}} {used} {at}").unwrap();
            writeln!(text, "process_resident_memory_bytes{{{labels}}} 100000000 {at}").unwrap();
            writeln!(text, "up{{{labels}}} 1 {at}").unwrap();
        }
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "the test talks to a process of its own on loopback")]
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", port)).await
}

/// Sends one request to the API for writing, which the product does not know; gives the status.
async fn send(port: u16, method: &str, path: &str, body: &str) -> Option<u16> {
    let mut stream = connect(port).await.ok()?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Stands between the source and the backend and remembers every byte the source sent.
struct Wire {
    port: u16,
    sent: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, sent: Arc<Mutex<Vec<u8>>>) {
    let mut part = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        sent.lock().unwrap().extend_from_slice(&part[..read]);
        if to.write_all(&part[..read]).await.is_err() {
            return;
        }
    }
}

async fn wire(backend: u16) -> Wire {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent: Arc<Mutex<Vec<u8>>> = Arc::default();
    let log = Arc::clone(&sent);
    let task = tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (from, mut back) = near.into_split();
            let (mut answers, to) = connect(backend).await.unwrap().into_split();
            tokio::spawn(forward(from, to, Arc::clone(&log)));
            tokio::spawn(async move { copy(&mut answers, &mut back).await });
        }
    });
    Wire { port, sent, task }
}

impl Wire {
    /// Every query and every series selector that was sent, decoded.
    fn selections(&self) -> Vec<String> {
        let sent = String::from_utf8(self.sent.lock().unwrap().clone()).unwrap();
        let parts = sent.split(['&', '?', '\n', ' ']).filter(|p| p.starts_with("query=") || p.starts_with("match%5B%5D="));
        parts.flat_map(decode).map(|(_, value)| value).collect()
    }

    fn forget(&self) {
        self.sent.lock().unwrap().clear();
    }
}

struct Stage {
    source: PrometheusSource,
    wire: Wire,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn permit(&self, scope: &Scope) -> Permit {
        permit(&self.source, scope.clone())
    }

    async fn ask(&self, scope: &Scope, request: MetricRequest) -> Result<MetricAnswer, Fault> {
        self.source.metrics(&self.permit(scope), &request).await
    }
}

async fn stage() -> Option<Stage> {
    if !Path::new(VICTORIA).exists() {
        assert!(std::env::var_os("PORTCULLIS_TESTS_MUST_RUN").is_none(), "{VICTORIA} is not installed");
        println!("skipped: {VICTORIA} is not installed (package victoria-metrics)");
        return None;
    }
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let process = Command::new(VICTORIA)
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .arg(format!("-storageDataPath={}", folder.path().join("data").display()))
        .args(["-retentionPeriod=1", "-search.latencyOffset=1s", "-memory.allowedBytes=64MB"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(process);
    let written = samples(SystemClock.now().as_nanos() / 1_000_000_000);
    let started = Instant::now();
    while send(port, "POST", "/api/v1/import/prometheus", &written).await != Some(204) {
        assert!(started.elapsed() < Duration::from_secs(20), "VictoriaMetrics does not take samples");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(send(port, "GET", "/internal/force_flush", "").await, Some(200));
    let wire = wire(port).await;
    let source = source(&format!("http://127.0.0.1:{}", wire.port));
    Some(Stage { source, wire, _process: process, _folder: folder })
}

fn peak(answer: &MetricAnswer, index: usize) -> f64 {
    answer.series[index].samples.iter().map(|s| s.value).fold(f64::NEG_INFINITY, f64::max)
}

#[tokio::test]
async fn a_real_victoriametrics_answers_what_it_has() {
    let Some(stage) = stage().await else { return };
    let all = everything();
    let health = stage.source.health(&stage.permit(&all)).await;
    assert!(health.up, "{health:?}");
    assert_eq!(stage.source.kind(), "prometheus", "one kind speaks to everything with this API");
    until_searchable(&stage, &all).await;
    values_and_ranges(&stage, &all).await;
    names_and_labels(&stage, &all).await;
    a_confined_caller_is_confined_on_the_wire(&stage).await;
}

/// Written samples become searchable within about a second.
async fn until_searchable(stage: &Stage, all: &Scope) {
    let started = Instant::now();
    loop {
        let services = stage.source.services(&stage.permit(all), last(TEN_MINUTES)).await.unwrap();
        let names: Vec<&str> = services.services.iter().map(|s| s.name.as_str()).collect();
        if names == ["payment", "web"] {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{names:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn values_and_ranges(stage: &Stage, all: &Scope) {
    let cpu = stage.ask(all, semantic(SemanticMetric::Cpu, Some("web"), last(TEN_MINUTES))).await.unwrap();
    assert_eq!((cpu.series.len(), cpu.metric.as_str()), (2, "process_cpu_seconds_total"), "{cpu:?}");
    assert_eq!(cpu.series[0].labels["instance"], "web-2", "the worst replica comes first");
    assert!((peak(&cpu, 0) - 0.9).abs() < 0.02 && (peak(&cpu, 1) - 0.1).abs() < 0.02, "{cpu:?}");
    assert!(cpu.query.contains("[1m"), "about four times the spacing of the samples, found without targets: {}", cpu.query);
    let memory = stage.ask(all, semantic(SemanticMetric::Memory, Some("payment"), last(TEN_MINUTES))).await.unwrap();
    assert!(memory.series.len() == 1 && (peak(&memory, 0) - 1.0e8).abs() < 1.0, "{memory:?}");
    let up = stage.ask(all, raw("sum by (job) (up)", last(TEN_MINUTES))).await.unwrap();
    let latest = |job: &str| up.series.iter().find(|s| s.labels["job"] == job).unwrap().samples.last().unwrap().value;
    assert!((latest("web") - 2.0).abs() < f64::EPSILON && (latest("payment") - 1.0).abs() < f64::EPSILON, "{up:?}");
    let nothing = stage.ask(all, semantic(SemanticMetric::Cpu, Some("nowhere"), last(TEN_MINUTES))).await.unwrap();
    assert_eq!((nothing.series.len(), nothing.total_series), (0, Total::Exact(0)), "absent, not zero");
    assert!(cpu.exemplars.is_empty());
}

async fn names_and_labels(stage: &Stage, all: &Scope) {
    let request = MetricCatalogueRequest {
        window: last(TEN_MINUTES),
        service: Some("web".into()),
        name_contains: Some("process_".into()),
        limit: 10,
        with_labels: true,
    };
    let catalogue = stage.source.metric_catalogue(&stage.permit(all), &request).await.unwrap();
    let found: Vec<_> = catalogue.metrics.iter().map(|m| (m.name.as_str(), m.kind, m.series)).collect();
    let unknown = |name| (name, MetricKind::Unknown, Some(2));
    let wanted = [unknown("process_cpu_seconds_total"), unknown("process_resident_memory_bytes")];
    assert_eq!(found, wanted, "there is no metadata to tell the kind");
    let counter = stage.ask(all, named("process_cpu_seconds_total", last(TEN_MINUTES))).await.unwrap();
    assert!(counter.query.starts_with("rate(") && counter.total_series == Total::Exact(3), "told by its name: {}", counter.query);
    assert!(catalogue.metrics.iter().all(|m| m.description.is_empty() && m.labels.iter().any(|l| l == "instance")));
    let values = LabelValuesRequest {
        window: last(TEN_MINUTES),
        signal: Signal::Metrics,
        label: "instance".into(),
        metric: Some("up".into()),
        service: Some("web".into()),
        prefix: String::new(),
        limit: 10,
    };
    assert_eq!(stage.source.label_values(&stage.permit(all), &values).await.unwrap(), ["web-1", "web-2"]);
    let alerts = stage.source.alerts(&stage.permit(all), &AlertRequest::default()).await.unwrap();
    assert!(alerts.alerts.is_empty(), "{alerts:?}");
}

async fn a_confined_caller_is_confined_on_the_wire(stage: &Stage) {
    let mut scope = everything();
    scope.services = NameSet::only(["web"]);
    // Names of services are filtered here; everything else is confined before it is sent.
    let services = stage.source.services(&stage.permit(&scope), last(TEN_MINUTES)).await.unwrap();
    assert_eq!(services.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["web"]);
    stage.wire.forget();
    for query in ["up", "up{job=\"payment\"} or up{job=~\".+\"}", "count({__name__=~\".+\"})"] {
        let answer = stage.ask(&scope, raw(query, last(TEN_MINUTES))).await.unwrap();
        let foreign = answer.series.iter().filter_map(|s| s.labels.get("job")).any(|job| job != "web");
        assert!(!foreign, "{query}: {answer:?}");
    }
    let counted = stage.ask(&scope, raw("count(up)", last(TEN_MINUTES))).await.unwrap();
    assert!((peak(&counted, 0) - 2.0).abs() < f64::EPSILON, "{counted:?}");
    stage.ask(&scope, named("process_resident_memory_bytes", last(TEN_MINUTES))).await.unwrap();
    let selections = stage.wire.selections();
    assert!(selections.len() > 6, "{selections:?}");
    for selection in selections {
        let confined = ["service_name", "service", "job", "app"].iter().any(|l| selection.contains(&format!("{l}=\"web\"")));
        assert!(confined, "sent without the caller's scope: {selection}");
    }
}

//! Makes the benchmark's telemetry: ordinary log text, random trace ids, a shop's worth of services; seeded.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// Services of the shop.
pub(crate) const SERVICES: [&str; 12] = [
    "frontend",
    "cart",
    "checkout",
    "payment",
    "shipping",
    "email",
    "catalogue",
    "search",
    "recommendation",
    "currency",
    "quote",
    "ads",
];
const BATCH: usize = 1_000;
const STEP_SECONDS: u64 = 15;

/// Files of requests, each with its length before it.
pub(crate) struct Input {
    pub(crate) logs: PathBuf,
    pub(crate) spans: PathBuf,
    pub(crate) metrics: PathBuf,
    pub(crate) points: usize,
    /// First and last time, nanoseconds.
    pub(crate) window: (u64, u64),
    /// A trace id that is in logs and spans.
    pub(crate) trace_id: String,
}

/// SplitMix64: small, seeded, good enough for test data.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn id<const N: usize>(&mut self) -> Vec<u8> {
        (0..N).map(|_| self.next() as u8).collect()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }), ..Default::default() }
}

fn integer(key: &str, value: u64) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::IntValue(value as i64)) }), ..Default::default() }
}

fn resource(service: usize, pod: u64) -> Resource {
    let name = SERVICES[service];
    Resource {
        attributes: vec![
            text("service.name", name),
            text("service.namespace", "shop"),
            text("service.version", "1.14.2"),
            text("service.instance.id", format!("{name}-7d9f8c6b5d-{pod:05x}")),
            text("k8s.namespace.name", "shop"),
            text("k8s.pod.name", format!("{name}-7d9f8c6b5d-{pod:05x}")),
            text("k8s.node.name", format!("node-{}", pod % 5)),
            text("telemetry.sdk.language", "go"),
        ],
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "shop/instrumentation".into(), version: "0.3.1".into(), ..Default::default() }
}

fn body(random: &mut Random, row: usize, logs: usize) -> (i32, &'static str, String) {
    // A word that is rare enough to be searched for.
    if row % (logs / 50).max(1) == 7 {
        return (
            17,
            "ERROR",
            format!("payment gateway refused the connection after {} attempts: ECONNREFUSED", random.below(5) + 1),
        );
    }
    match random.below(10) {
        0 => (9, "INFO", format!("GET /api/products/{} 200 in {} ms", random.below(100_000), random.below(400))),
        1 => (9, "INFO", format!("order {} placed by user {}", random.below(10_000_000), random.below(50_000))),
        2 => (9, "INFO", format!("cache hit for key product:{}:v{}", random.below(100_000), random.below(4))),
        3 => (
            9,
            "INFO",
            format!("published message to topic orders partition {} offset {}", random.below(12), random.below(90_000_000)),
        ),
        4 => (5, "DEBUG", format!("query returned {} rows in {} us", random.below(500), random.below(90_000))),
        5 => (9, "INFO", format!("user {} added item {} to cart", random.below(50_000), random.below(100_000))),
        6 => (13, "WARN", format!("slow request: POST /api/checkout took {} ms", 500 + random.below(4_000))),
        7 => (9, "INFO", format!("session {} renewed", random.below(1_000_000))),
        8 => (9, "INFO", format!("health check ok, {} connections in pool", random.below(64))),
        _ => (9, "INFO", format!("converted {} USD to EUR at rate 0.{}", random.below(5_000), random.below(10_000))),
    }
}

struct Writer(BufWriter<File>);

impl Writer {
    fn create(path: &Path) -> Self {
        Self(BufWriter::with_capacity(1 << 20, File::create(path).unwrap()))
    }

    fn push(&mut self, request: &impl Message) {
        let bytes = request.encode_to_vec();
        self.0.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
        self.0.write_all(&bytes).unwrap();
    }
}

/// Writes all files; the last hour before now, evenly.
pub(crate) fn write_all(root: &Path, logs: usize, spans: usize, series: usize) -> Input {
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let start = end - 3_600_000_000_000;
    let mut random = Random(42);
    let known = random.id::<16>();
    let (log_path, span_path, metric_path) = (root.join("logs.in"), root.join("spans.in"), root.join("metrics.in"));
    write_logs(&mut Writer::create(&log_path), &mut random, logs, start, &known);
    write_spans(&mut Writer::create(&span_path), &mut random, spans, start, &known);
    let points = write_metrics(&mut Writer::create(&metric_path), &mut random, series, start);
    let trace_id = known.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
    Input { logs: log_path, spans: span_path, metrics: metric_path, points, window: (start, end), trace_id }
}

fn write_logs(out: &mut Writer, random: &mut Random, logs: usize, start: u64, known: &[u8]) {
    for first in (0..logs).step_by(BATCH) {
        let service = random.below(SERVICES.len() as u64) as usize;
        let pod = random.below(6);
        let records = (first..logs.min(first + BATCH))
            .map(|row| {
                let (number, severity, body) = body(random, row, logs);
                let at = start + (3_600_000_000_000 / logs as u64) * row as u64 + random.below(1_000);
                LogRecord {
                    time_unix_nano: at,
                    observed_time_unix_nano: at,
                    severity_number: number,
                    severity_text: severity.into(),
                    body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
                    attributes: vec![text("code.function", "handle"), integer("thread.id", random.below(16))],
                    trace_id: if row == logs / 2 { known.to_vec() } else { random.id::<16>() },
                    span_id: random.id::<8>(),
                    ..LogRecord::default()
                }
            })
            .collect();
        out.push(&ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource(service, pod)),
                scope_logs: vec![ScopeLogs { scope: Some(scope()), log_records: records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }],
        });
    }
}

fn write_spans(out: &mut Writer, random: &mut Random, spans: usize, start: u64, known: &[u8]) {
    let operations =
        ["GET /api/products/{id}", "POST /api/checkout", "SELECT shop.orders", "Charge", "GetQuote", "publish orders"];
    let mut trace_id = random.id::<16>();
    for first in (0..spans).step_by(BATCH) {
        let service = random.below(SERVICES.len() as u64) as usize;
        let list = (first..spans.min(first + BATCH))
            .map(|row| {
                let at = start + (3_600_000_000_000 / spans as u64) * row as u64;
                if row % 10 == 0 {
                    trace_id = if row / 10 == spans / 20 { known.to_vec() } else { random.id::<16>() };
                }
                let failed = random.below(100) == 0;
                Span {
                    trace_id: trace_id.clone(),
                    span_id: random.id::<8>(),
                    parent_span_id: if row % 10 == 0 { Vec::new() } else { random.id::<8>() },
                    name: operations[random.below(6) as usize].into(),
                    kind: 2,
                    start_time_unix_nano: at,
                    end_time_unix_nano: at + 1_000 + random.below(300_000_000),
                    attributes: vec![
                        text("http.request.method", "GET"),
                        text("url.path", format!("/api/products/{}", random.below(100_000))),
                        integer("http.response.status_code", if failed { 500 } else { 200 }),
                        text("server.address", "10.1.4.7"),
                    ],
                    status: Some(Status { code: if failed { 2 } else { 0 }, message: String::new() }),
                    ..Span::default()
                }
            })
            .collect();
        out.push(&ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource(service, random.below(6))),
                scope_spans: vec![ScopeSpans { scope: Some(scope()), spans: list, ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }],
        });
    }
}

/// Ten metrics of `series` series each, one point every 15 seconds; the figure is asked of one of them.
fn write_metrics(out: &mut Writer, random: &mut Random, series: usize, start: u64) -> usize {
    let names: Vec<String> = (0..10).map(|n| format!("shop.queue.depth.{n}")).collect();
    let mut points = 0;
    for step in 0..3_600 / STEP_SECONDS {
        let at = start + step * STEP_SECONDS * 1_000_000_000 + random.below(1_000_000);
        let groups = SERVICES.iter().enumerate().map(|(number, _)| {
            let metrics = names
                .iter()
                .map(|name| {
                    let data_points: Vec<_> = (0..series)
                        .filter(|s| s % SERVICES.len() == number)
                        .map(|s| NumberDataPoint {
                            attributes: vec![text("queue", format!("queue-{s}")), text("region", "eu-central")],
                            time_unix_nano: at,
                            value: Some(number_data_point::Value::AsDouble(random.below(10_000) as f64 / 10.0)),
                            ..NumberDataPoint::default()
                        })
                        .collect();
                    points += data_points.len();
                    Metric {
                        name: name.clone(),
                        unit: "{item}".into(),
                        data: Some(metric::Data::Gauge(Gauge { data_points })),
                        ..Metric::default()
                    }
                })
                .collect();
            ResourceMetrics {
                resource: Some(resource(number, 0)),
                scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }],
                ..ResourceMetrics::default()
            }
        });
        out.push(&ExportMetricsServiceRequest { resource_metrics: groups.collect() });
    }
    points
}

//! The OTLP door: every encoding, both protocols, every refusal.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use portcullis_model::TenantId;
use portcullis_ports::{LogFilter, LogRequest, Source as _, Total};
use portcullis_telemetry::{
    IngestAuthorizer, IngestLimits, IngestRefusal, LoopbackOnly, OtlpDoor, RecordLimits, Sender, Store, StoreSettings,
};
use portcullis_wire::Wire;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::data::{json, log, logs, protobuf, span, spans, text, trace_hex};
use crate::support::{Answer, everything, http_door, open, open_with, permit, send, settings, source, window};

const PROTOBUF: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn count(store: &Store, service: &str) -> Total {
    let filter = LogFilter {
        window: window(),
        service: Some(service.into()),
        minimum_severity: None,
        text: None,
        attributes: Vec::new(),
        trace_id: None,
    };
    let request = LogRequest { filter, limit: 10, newest_first: true, after: None };
    source(store).logs(&permit(everything()), &request).await.unwrap().total
}

#[tokio::test]
async fn every_encoding_is_read_back_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let door = http_door(&store, IngestLimits::default()).await;
    let request = |service: &str| logs(service, vec![log(0, 9, "hello"), log(1, 17, "it \"broke\"\n")]);
    for (service, headers, body) in [
        ("plain-protobuf", vec![PROTOBUF], protobuf(&request("plain-protobuf"))),
        ("plain-json", vec![JSON], json(&request("plain-json"))),
        ("gzip-protobuf", vec![PROTOBUF, ("Content-Encoding", "gzip")], gzip(&protobuf(&request("gzip-protobuf")))),
        (
            "gzip-json",
            vec![("Content-Type", "application/json; charset=utf-8"), ("Content-Encoding", "gzip")],
            gzip(&json(&request("gzip-json"))),
        ),
    ] {
        let answer = send(door, "POST /v1/logs", &headers, &body).await;
        assert_eq!(answer.status, 200, "{service}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(count(&store, service).await, Total::Exact(2), "{service}");
    }
    let json_form = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"by-hand"}}]},
        "scopeSpans":[{"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","name":"work","kind":2,
        "startTimeUnixNano":"1772359200000000000","endTimeUnixNano":"1772359201000000000","attributes":[{"key":"n","value":{"intValue":"7"}}]}]}]}]}"#;
    let answer = send(door, "POST /v1/traces", &[JSON], json_form).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let trace = source(&store).trace(&permit(everything()), "5b8efff798038103d269b633813fc60c").await.unwrap().unwrap();
    assert_eq!((trace.spans[0].duration_nanos, trace.spans[0].attributes["n"].as_str()), (1_000_000_000, "7"));
}

#[tokio::test]
async fn grpc_stores_and_refuses_like_http() {
    let directory = tempfile::tempdir().unwrap();
    let settings =
        StoreSettings { limits: RecordLimits { attributes: 3, ..RecordLimits::default() }, ..settings(directory.path()) };
    let store = open_with(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = IngestLimits { body_bytes: 64 << 10, ..IngestLimits::default() };
    let door = OtlpDoor::new(store.clone(), Arc::new(LoopbackOnly::new(TenantId::default_tenant())), limits, Vec::new());
    tokio::spawn(door.serve_grpc(listener, Wire::plain(), std::future::pending()));
    let endpoint = format!("http://{address}");

    let mut client =
        TraceServiceClient::connect(endpoint.clone()).await.unwrap().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let answer = client.export(spans("cart", vec![span(1, 1, 0, "GET /cart", 0, 20, false)])).await.unwrap();
    assert!(answer.into_inner().partial_success.is_none());
    assert!(source(&store).trace(&permit(everything()), &trace_hex(1)).await.unwrap().is_some());

    let mut client = LogsServiceClient::connect(endpoint).await.unwrap().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let mut heavy = log(1, 9, "too many attributes");
    heavy.attributes = (0..4).map(|n| text(&format!("a{n}"), "x")).collect();
    let partial =
        client.export(logs("cart", vec![log(0, 9, "fine"), heavy])).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert!(partial.error_message.contains("4 attributes; the limit is 3"), "{}", partial.error_message);
    assert_eq!(count(&store, "cart").await, Total::Exact(1));

    // A message that unpacks to more than the limit.
    let bomb = client.export(logs("cart", vec![log(0, 9, &"0".repeat(1 << 20))])).await.unwrap_err();
    assert!(matches!(bomb.code(), tonic::Code::ResourceExhausted | tonic::Code::OutOfRange | tonic::Code::Internal), "{bomb:?}");
    assert_eq!(count(&store, "cart").await, Total::Exact(1));
}

#[tokio::test]
async fn records_over_a_limit_are_named_and_the_rest_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let door = http_door(&store, IngestLimits::default()).await;
    let mut long = log(1, 9, "long value");
    long.attributes = vec![text("big", &"x".repeat(70_000))];
    let mut broken = log(2, 9, "bad id");
    broken.trace_id = vec![1, 2, 3];
    let mut future = log(3, 9, "from the future");
    future.time_unix_nano = u64::MAX;
    let request = logs("cart", vec![log(0, 9, "fine"), long, broken, future]);
    let answer = send(door, "POST /v1/logs", &[PROTOBUF], &protobuf(&request)).await;
    let partial = ExportLogsServiceResponse::decode(&answer.body[..]).unwrap().partial_success.unwrap();
    assert_eq!((answer.status, partial.rejected_log_records), (200, 3));
    assert!(partial.error_message.contains("70000 bytes"), "{}", partial.error_message);
    assert_eq!(count(&store, "cart").await, Total::Exact(1));
    let answer = send(door, "POST /v1/logs", &[JSON], &json(&request)).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["partialSuccess"]["rejectedLogRecords"], "3");
}

fn error_text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn what_is_too_large_or_not_otlp_is_refused_without_reading_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let door = http_door(&store, IngestLimits { body_bytes: 1 << 20, ..IngestLimits::default() }).await;
    let bomb = gzip(&vec![0; 256 << 20]);
    assert!(bomb.len() < 2 << 20);
    let before = peak_memory();
    let answer = send(door, "POST /v1/logs", &[PROTOBUF, ("Content-Encoding", "gzip")], &bomb[..bomb.len().min(1 << 20)]).await;
    assert_eq!(answer.status, 413, "{}", error_text(&answer));
    assert!(peak_memory() - before < 64 << 10, "kB: {} -> {}", before, peak_memory());
    let announced = send(door, "POST /v1/logs", &[PROTOBUF, ("Content-Length", "1073741824")], b"x").await;
    assert_eq!(announced.status, 413);
    let unannounced = send(door, "POST /v1/logs", &[PROTOBUF], &vec![b'x'; 3 << 20]).await;
    assert_eq!(unannounced.status, 413);
    for (headers, body, status) in [
        (vec![PROTOBUF], &b"not protobuf at all"[..], 400),
        (vec![JSON], &b"{\"resourceLogs\": 7}"[..], 400),
        (vec![JSON], &b"{"[..], 400),
        (vec![PROTOBUF, ("Content-Encoding", "gzip")], &b"not gzip"[..], 400),
        (vec![PROTOBUF, ("Content-Encoding", "br")], &b"x"[..], 415),
        (vec![("Content-Type", "text/plain")], &b"x"[..], 415),
        (vec![], &b"x"[..], 415),
    ] {
        let answer = send(door, "POST /v1/logs", &headers, body).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", error_text(&answer));
    }
    assert_eq!(send(door, "GET /v1/logs", &[PROTOBUF], b"").await.status, 405);
    assert_eq!(send(door, "POST /v1/other", &[PROTOBUF], b"").await.status, 404);
    let deep = format!(
        "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{}1{}}}]}}]}}]}}",
        "{\"arrayValue\":{\"values\":[".repeat(5_000),
        "]}}".repeat(5_000)
    );
    let answer = send(door, "POST /v1/logs", &[JSON], deep.as_bytes()).await;
    assert!(answer.status == 200 && error_text(&answer).contains("nested more than 127 levels"), "{}", error_text(&answer));
    assert_eq!(store.stats().rows(), 0);
}

/// Peak memory of this process, kB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn pages_in_browsers_and_rebound_names_cannot_send() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let door = http_door(&store, IngestLimits::default()).await;
    let body = json(&logs("cart", vec![log(0, 9, "x")]));
    for (header, status) in [
        (("Host", "evil.example"), 403),
        (("Host", "localhost.evil.example:4318"), 403),
        (("Origin", "https://evil.example"), 403),
        (("Origin", "null"), 403),
        (("Origin", "http://localhost.evil.example"), 403),
        (("Origin", "http://localhost:3000"), 200),
        (("Host", "localhost:4318"), 200),
        (("Host", "[::1]:4318"), 200),
    ] {
        let answer = send(door, "POST /v1/logs", &[JSON, header], &body).await;
        assert_eq!(answer.status, status, "{header:?}: {}", error_text(&answer));
    }
    assert_eq!(count(&store, "cart").await, Total::Exact(3));
}

/// Gives each key its tenant.
struct Keys;

#[async_trait::async_trait]
impl IngestAuthorizer for Keys {
    async fn authorize(&self, sender: &Sender<'_>) -> Result<TenantId, IngestRefusal> {
        match sender.authorization {
            Some("Bearer a") => Ok(TenantId::new("a").unwrap()),
            Some("Bearer b") => Ok(TenantId::new("b").unwrap()),
            Some("Bearer reader") => Err(IngestRefusal::Forbidden("this key may not ingest".into())),
            _ => Err(IngestRefusal::Unauthenticated("a key with the scope `ingest` is needed".into())),
        }
    }
}

#[tokio::test]
async fn the_tenant_comes_from_the_key_and_never_from_the_payload() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = OtlpDoor::new(store.clone(), Arc::new(Keys), IngestLimits::default(), Vec::new());
    tokio::spawn(door.serve_http(listener, Wire::plain(), std::future::pending()));
    let mut request = logs("cart", vec![log(0, 9, "secret of a")]);
    request.resource_logs[0].resource.as_mut().unwrap().attributes.push(text("tenant", "b"));
    let body = protobuf(&request);
    let status = |answer: Answer| answer.status;
    assert_eq!(status(send(address, "POST /v1/logs", &[PROTOBUF], &body).await), 401);
    assert_eq!(status(send(address, "POST /v1/logs", &[PROTOBUF, ("Authorization", "Bearer reader")], &body).await), 403);
    assert_eq!(
        status(
            send(address, "POST /v1/logs?tenant=b", &[PROTOBUF, ("Authorization", "Bearer a"), ("X-Scope-OrgID", "b")], &body)
                .await
        ),
        200
    );
    for flushed in [false, true] {
        if flushed {
            store.flush().await.unwrap();
        }
        for (tenant, rows) in [("a", 1), ("b", 0), ("default", 0)] {
            let scope = portcullis_model::Scope::tenant_wide(TenantId::new(tenant).unwrap());
            let statement = "SELECT Body FROM otel_logs".to_owned();
            let request = portcullis_ports::SqlRequest { statement, max_rows: 10 };
            let answer = source(&store).sql(&permit(scope), &request).await.unwrap();
            assert_eq!(answer.rows.len(), rows, "tenant {tenant}");
        }
    }
}

/// Lets loopback in without a key, and key `a` from anywhere.
struct NearOrKey;

#[async_trait::async_trait]
impl IngestAuthorizer for NearOrKey {
    async fn authorize(&self, sender: &Sender<'_>) -> Result<TenantId, IngestRefusal> {
        match sender.authorization {
            Some(_) => Keys.authorize(sender).await,
            None => LoopbackOnly::new(TenantId::default_tenant()).authorize(sender).await,
        }
    }
}

/// What proxies add; one is enough.
const FORWARDED: [(&str, &str); 7] = [
    ("Forwarded", "for=203.0.113.9"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("x-forwarded-host", "localhost"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-IP", "127.0.0.1"),
    ("Via", "1.1 proxy"),
    ("CF-Connecting-IP", ""),
];

#[tokio::test]
async fn what_a_proxy_sends_on_over_http_needs_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = OtlpDoor::new(store.clone(), Arc::new(NearOrKey), IngestLimits::default(), Vec::new());
    tokio::spawn(door.serve_http(listener, Wire::plain(), std::future::pending()));
    let body = protobuf(&logs("cart", vec![log(0, 9, "x")]));
    for header in FORWARDED {
        let answer = send(address, "POST /v1/logs", &[PROTOBUF, header], &body).await;
        assert_eq!(answer.status, 401, "{header:?}");
        assert!(error_text(&answer).contains("scope `ingest`"), "{}", error_text(&answer));
        let with_key = send(address, "POST /v1/logs", &[PROTOBUF, header, ("Authorization", "Bearer a")], &body).await;
        assert_eq!(with_key.status, 200, "{header:?}");
    }
    assert_eq!(count(&store, "cart").await, Total::Exact(0));
    let two_keys = [PROTOBUF, ("Authorization", "Bearer a"), ("Authorization", "Bearer b")];
    assert_eq!(send(address, "POST /v1/logs", &two_keys, &body).await.status, 400);
    assert_eq!(send(address, "POST /v1/logs", &[PROTOBUF], &body).await.status, 200);
    assert_eq!(count(&store, "cart").await, Total::Exact(1));
}

#[tokio::test]
async fn what_a_proxy_sends_on_over_grpc_needs_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = OtlpDoor::new(store.clone(), Arc::new(NearOrKey), IngestLimits::default(), Vec::new());
    tokio::spawn(door.serve_grpc(listener, Wire::plain(), std::future::pending()));
    let mut client = LogsServiceClient::connect(format!("http://{address}")).await.unwrap();
    for (name, value) in FORWARDED {
        let request = |key: Option<&'static str>| {
            let mut request = tonic::Request::new(logs("cart", vec![log(0, 9, "x")]));
            let name: tonic::metadata::AsciiMetadataKey = name.to_lowercase().parse().unwrap();
            request.metadata_mut().insert(name, value.parse().unwrap());
            if let Some(key) = key {
                request.metadata_mut().insert("authorization", key.parse().unwrap());
            }
            request
        };
        let refused = client.export(request(None)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{name}: {refused:?}");
        assert!(client.export(request(Some("Bearer a"))).await.is_ok(), "{name}");
    }
    assert_eq!(count(&store, "cart").await, Total::Exact(0));
    client.export(logs("cart", vec![log(0, 9, "x")])).await.unwrap();
    assert_eq!(count(&store, "cart").await, Total::Exact(1));
}

#[tokio::test]
async fn a_sender_that_is_too_fast_is_told_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let body = protobuf(&logs("cart", vec![log(0, 9, &"x".repeat(1_000))]));
    let door = http_door(&store, IngestLimits { bytes_per_second: Some(600), ..IngestLimits::default() }).await;
    assert_eq!(send(door, "POST /v1/logs", &[PROTOBUF], &body).await.status, 200);
    let refused = send(door, "POST /v1/logs", &[PROTOBUF], &body).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains("retry-after: "), "{}", refused.headers);
}

#[tokio::test]
async fn full_buffers_refuse_instead_of_growing() {
    let directory = tempfile::tempdir().unwrap();
    // Room for one buffer, and no flush that could free it.
    let settings = StoreSettings { memory_bytes: 64 << 10, flush_bytes: u64::MAX, ..settings(directory.path()) };
    let store = open_with(settings);
    let door = http_door(&store, IngestLimits::default()).await;
    let body = protobuf(&logs("cart", vec![log(0, 9, &"x".repeat(30_000))]));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let answer = send(door, "POST /v1/logs", &[PROTOBUF], &body).await;
        statuses.push((answer.status, answer.headers.contains("retry-after")));
    }
    assert_eq!(statuses[0], (200, false));
    assert_eq!(statuses[3], (429, true), "{statuses:?}");
    store.flush().await.unwrap();
    assert_eq!(send(door, "POST /v1/logs", &[PROTOBUF], &body).await.status, 200);
}

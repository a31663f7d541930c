//! Small requests that want to become large: each is answered clearly, and the memory of the process stays bounded.
//! The requests are sent in a process of its own, so that nothing else is measured.

use std::process::Command;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use portcullis_model::TenantId;
use portcullis_telemetry::{IngestLimits, LoopbackOnly, OtlpDoor};
use portcullis_wire::Wire;
use tokio::net::TcpListener;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::data::{json, log, logs, protobuf, text};
use crate::support::{http_door, open, send};

const CHILD: &str = "STORE_HOSTILE_CHILD";
/// A body, its way through the sender's and the receiver's buffers, and what little is decoded of it.
const GROWTH_KIB: u64 = 64 << 10;
const BODY: usize = (16 << 20) - 4096;

/// A field of a message inside it.
fn field(number: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len() + 6);
    out.push((number << 3) | 2);
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend_from_slice(inner);
    out
}

fn in_scope(inner: &[u8]) -> Vec<u8> {
    field(1, &field(2, inner))
}

/// Requests by name: what they are, their form, the status over HTTP and a word of the answer.
fn requests() -> Vec<(&'static str, bool, Vec<u8>, u16, &'static str)> {
    let many = |bytes: &[u8]| bytes.repeat(BODY / bytes.len());
    let in_json = |records: &str| format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#).into_bytes();
    let mut deep = Vec::new();
    for _ in 0..10_000 {
        // AnyValue.array_value = 5, ArrayValue.values = 1.
        deep = field(5, &field(1, &deep));
    }
    let deep_json =
        |open: &str, close: &str| in_json(&format!(r#"{{"body":{}{{}}{}}}"#, open.repeat(10_000), close.repeat(10_000)));
    let key = "k".repeat(8 << 20);
    let mut long = log(0, 9, "x");
    long.attributes = vec![text(&key, "v")];
    let mut long_resource = logs("cart", vec![log(0, 9, "x")]);
    long_resource.resource_logs[0].resource.as_mut().unwrap().attributes.push(text(&key, "v"));
    let long = logs("cart", vec![long]);
    vec![
        ("8 million empty attributes", false, in_scope(&field(2, &many(&[0x32, 0]))), 413, "smaller batches"),
        ("8 million empty records", false, in_scope(&many(&[0x12, 0])), 413, "smaller batches"),
        ("8 million empty resources", false, many(&[0x0a, 0]), 413, "smaller batches"),
        ("8 million empty values", false, in_scope(&field(2, &field(5, &field(5, &many(&[0x0a, 0]))))), 413, "smaller batches"),
        ("5 million empty records", true, in_json(&format!("{}{{}}", "{},".repeat(BODY / 3 - 100))), 413, "smaller batches"),
        ("8 million bad records", true, in_json(&format!("{}0", "0,".repeat(BODY / 2 - 100))), 413, "smaller batches"),
        (
            "8 million unknown numbers",
            true,
            in_json(&format!(r#"{{"body":{{"unknown":[{}0]}}}}"#, "0,".repeat(BODY / 2 - 100))),
            413,
            "smaller batches",
        ),
        ("16 million brackets", true, in_json(&"[".repeat(BODY)), 400, "not a valid OTLP request"),
        ("a value 10,000 deep", false, in_scope(&field(2, &field(5, &deep))), 400, "nested more than 100"),
        ("arrays 10,000 deep", true, deep_json(r#"{"arrayValue":{"values":["#, "]}}"), 200, "nested more than 127 levels"),
        (
            "maps 10,000 deep",
            true,
            deep_json(r#"{"kvlistValue":{"values":[{"key":"k","value":"#, "}]}}"),
            200,
            "nested more than 127 levels",
        ),
        ("a name of 8 MiB", false, protobuf(&long), 200, "name of 8388608 bytes; the limit is 512"),
        ("a name of 8 MiB", true, json(&long), 200, "name of 8388608 bytes; the limit is 512"),
        ("a resource with a name of 8 MiB", false, protobuf(&long_resource), 200, "the resource has an attribute name"),
    ]
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Messages as bytes, so that the sender need not hold them decoded.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn over_grpc(channel: &Channel, body: Vec<u8>) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = axum::http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    client.unary(Request::new(Bytes::from(body)), path, Plain).await.map(tonic::Response::into_inner)
}

/// The child: sends one request and measures. Does nothing in a normal test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_child() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let (kind, file) = place.split_once('|').unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let http = http_door(&store, IngestLimits::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let authorizer = Arc::new(LoopbackOnly::new(TenantId::default_tenant()));
    let door = OtlpDoor::new(store.clone(), authorizer, IngestLimits::default(), Vec::new());
    tokio::spawn(door.serve_grpc(listener, Wire::plain(), std::future::pending()));
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
    let body = std::fs::read(file).unwrap();
    let before = peak_kib();
    let started = std::time::Instant::now();
    let answer = send(http, "POST /v1/logs", &[("Content-Type", kind)], &body).await;
    println!("answer http {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    println!("measured http {} KiB {:?}", peak_kib() - before, started.elapsed());
    if kind == "application/x-protobuf" {
        match over_grpc(&channel, body).await {
            Ok(answer) => println!("answer grpc Ok {}", String::from_utf8_lossy(&answer)),
            Err(refused) => println!("answer grpc {:?} {}", refused.code(), refused.message()),
        }
        println!("measured grpc {} KiB", peak_kib() - before);
    }
    assert_eq!(store.stats().rows(), 0);
}

#[test]
fn small_requests_cannot_become_large() {
    if std::env::var(CHILD).is_ok() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (name, is_json, body, status, word) in requests() {
        assert!(body.len() <= 16 << 20, "{name}: {}", body.len());
        let kind = if is_json { "application/json" } else { "application/x-protobuf" };
        let file = directory.path().join("body");
        std::fs::write(&file, body).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hostile::hostile_child", "--nocapture"])
            .env(CHILD, format!("{kind}|{}", file.display()))
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {out}\n{err}");
        let answers: Vec<&str> = out.split("answer ").skip(1).collect();
        let grpc = if status == 200 { "grpc Ok" } else { "grpc InvalidArgument" };
        let expected = [format!("http {status}"), grpc.to_owned()];
        assert_eq!(answers.len(), if is_json { 1 } else { 2 }, "{name}: {out}");
        for (answer, expected) in answers.iter().zip(expected) {
            assert!(answer.starts_with(&expected) && answer.contains(word), "{name}: {answer}");
        }
        for line in out.lines().filter_map(|line| line.strip_prefix("measured ")) {
            println!("{name}: {line}");
            let growth: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(growth < GROWTH_KIB, "{name}: {line}");
        }
    }
}

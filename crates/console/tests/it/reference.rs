//! `docs/reference/metrics.md` names every metric with its type and labels, by the exposition itself.
//! With `PORTCULLIS_WRITE_REFERENCE=1` the page is written instead of compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_console::{
    CertificateSample, Check, Format, IngestSample, MeasuredRecorder, Metrics, Sample, SecretSample, StoreSample,
};
use portcullis_gateway::{Recorder, RoadEnd, SharedCounts, SharedState};
use portcullis_identity::Transport;
use portcullis_model::{FaultCode, RiskClass};

use crate::house::Memory;

const INTRODUCTION: &str = "# Metrics

What `/metrics` of the admin listener says, in the names of the text format. Written by
`PORTCULLIS_WRITE_REFERENCE=1 cargo test -p portcullis-console reference`, from the exposition itself. No metric names a
principal, a session, an address or an argument; a tool is named only when the catalogue knows it, and `unknown` otherwise.
How to scrape it: [metrics and administration](../guides/metrics-and-admin.md).

| metric | type | labels | what |
|---|---|---|---|
";

/// One of everything that can happen and be seen.
fn exposition() -> String {
    let metrics = Arc::new(Metrics::new());
    let recorder = MeasuredRecorder::new(Arc::new(Memory::default()), metrics.clone());
    let end = RoadEnd {
        principal: None,
        transport: Transport::Http,
        whence: None,
        session: None,
        method: "tools/call",
        target: "sql".into(),
        known: true,
        via: None,
        intent: None,
        arguments: None,
        risk: Some(RiskClass::Read),
        allowed: true,
        rule: Arc::from("reader-may-look"),
        code: None,
        note: None,
        latency_micros: 1_500,
        bytes_out: 40,
        sources: Vec::new(),
        redactions: vec![("token", 1)],
        signs: Vec::new(),
        trace_id: None,
        lockout: None,
    };
    recorder.record(&end).unwrap();
    let refused = RoadEnd { allowed: false, code: Some(FaultCode::RateLimited), rule: Arc::from("tool-rate"), ..end.clone() };
    recorder.record(&refused).unwrap();
    recorder.record(&RoadEnd { method: "authenticate", rule: Arc::from("unknown_key"), ..refused }).unwrap();
    let sample = Sample {
        shared_rates: Some(SharedCounts {
            state: SharedState::Shared(1),
            written: 4,
            read: 3,
            failed: 1,
            age: Some(Duration::from_millis(250)),
        }),
        sinks: vec![portcullis_audit::SinkState {
            name: "siem".into(),
            kind: "webhook",
            required: true,
            lag_records: 3,
            lag_seconds: 2,
            delivered: 10,
            set_aside: 0,
            lost: 0,
            last_error: None,
            blocking: None,
        }],
        store: Some(StoreSample {
            ingest: vec![IngestSample { signal: "logs", accepted: 5, rejected: 1, bytes: 100 }],
            refused: vec![("slow", 1)],
            ..StoreSample::default()
        }),
        egress: vec![portcullis_egress::EgressCounts {
            name: Arc::from("prometheus"),
            requests: vec![("2xx", 7)],
            circuit_open: Some(true),
        }],
        secrets: vec![SecretSample { name: "siem".into(), usable: true, expires: Some(1.8e9) }],
        certificates: vec![CertificateSample { listener: "admin.tls", expires: 1.8e9 }],
        checks: vec![Check::new("audit", Ok(()))],
        ..Sample::default()
    };
    metrics.expose(sample, Format::Text).unwrap()
}

/// Name, type, labels and help of every metric, by name.
fn table(text: &str) -> String {
    let mut kinds: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let (mut name, mut help) = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            (name, help) = rest.split_once(' ').unwrap();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (declared, kind) = rest.split_once(' ').unwrap();
            assert_eq!(declared, name);
            assert!(kinds.insert(name, (kind, help)).is_none(), "{name} is declared twice");
        } else {
            assert!(line.starts_with(name), "a sample of something else than {name}: {line}");
            let series = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
            let names = series.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label);
            labels.entry(name).or_default().extend(names.filter(|label| *label != "le"));
        }
    }
    let mut page = String::from(INTRODUCTION);
    for (name, (kind, help)) in kinds {
        let labels: Vec<String> = labels.get(name).into_iter().flatten().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    page
}

#[test]
fn the_reference_names_every_metric() {
    let page = table(&exposition());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    if std::env::var_os("PORTCULLIS_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, page, "docs/reference/metrics.md is not what the exposition says");
}

#[test]
fn names_follow_the_conventions() {
    for line in exposition().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(name.starts_with("portcullis_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
}

#[test]
fn names_from_outside_do_not_become_series() {
    let metrics = Arc::new(Metrics::new());
    let recorder = MeasuredRecorder::new(Arc::new(Memory::default()), metrics.clone());
    for number in 0..1_000 {
        let end = RoadEnd {
            principal: None,
            transport: Transport::Http,
            whence: None,
            session: None,
            method: "tools/call",
            target: format!("tool-{number}\"\n"),
            known: false,
            via: None,
            intent: None,
            arguments: None,
            risk: None,
            allowed: false,
            rule: Arc::from(format!("own-rule-{number}")),
            code: Some(FaultCode::NotFound),
            note: None,
            latency_micros: 1,
            bytes_out: 0,
            sources: Vec::new(),
            redactions: Vec::new(),
            signs: Vec::new(),
            trace_id: None,
            lockout: None,
        };
        recorder.record(&end).unwrap();
    }
    let text = metrics.expose(Sample::default(), Format::OpenMetrics).unwrap();
    assert!(!text.contains("tool-") && !text.contains("own-rule"), "{text}");
    assert!(text.contains("portcullis_calls_total{tool=\"unknown\",outcome=\"refused\",risk=\"unknown\"} 1000"), "{text}");
}

//! Telemetry for tests, as OTLP requests.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};
use portcullis_model::TenantId;
use portcullis_telemetry::{Encoding, OtlpSignal, Receipt, Store};

use crate::support::{NOW, SECOND};

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }), ..Default::default() }
}

pub(crate) fn resource(service: &str, namespace: &str) -> Resource {
    let attributes = vec![
        text("service.name", service),
        text("service.instance.id", &format!("{service}-1")),
        text("k8s.namespace.name", namespace),
    ];
    Resource { attributes, ..Resource::default() }
}

/// A record `seconds` after [`NOW`].
pub(crate) fn log(seconds: i64, severity: i32, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: (NOW + seconds * SECOND) as u64,
        severity_number: severity,
        body: Some(AnyValue { value: Some(Value::StringValue(body.into())) }),
        attributes: vec![text("http.route", "/cart"), text("user", &format!("u{}", seconds.rem_euclid(3)))],
        trace_id: trace_id(seconds).to_vec(),
        span_id: vec![7; 8],
        ..LogRecord::default()
    }
}

pub(crate) fn trace_id(number: i64) -> [u8; 16] {
    let mut id = [0xab; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

pub(crate) fn trace_hex(number: i64) -> String {
    format!("{:032x}", u128::from_be_bytes(trace_id(number)))
}

pub(crate) fn logs_in(service: &str, namespace: &str, records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: Some(resource(service, namespace)), scope_logs, ..ResourceLogs::default() }],
    }
}

pub(crate) fn logs(service: &str, records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    logs_in(service, "shop", records)
}

pub(crate) fn span(trace: i64, number: u8, parent: u8, name: &str, start: i64, millis: i64, failed: bool) -> Span {
    let at = NOW + start * SECOND;
    Span {
        trace_id: trace_id(trace).to_vec(),
        span_id: vec![number; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: name.into(),
        kind: 2,
        start_time_unix_nano: at as u64,
        end_time_unix_nano: (at + millis * 1_000_000) as u64,
        attributes: vec![text("http.request.method", "GET")],
        events: if failed {
            let attributes = vec![text("exception.message", "card \"declined\"")];
            vec![Event { time_unix_nano: at as u64 + 5, name: "exception".into(), attributes, ..Event::default() }]
        } else {
            Vec::new()
        },
        status: Some(Status {
            code: if failed { 2 } else { 0 },
            message: if failed { "declined".into() } else { String::new() },
        }),
        ..Span::default()
    }
}

pub(crate) fn spans(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service, "shop")),
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn metric(service: &str, name: &str, unit: &str, data: Data) -> ExportMetricsServiceRequest {
    let metric = Metric {
        name: name.into(),
        unit: unit.into(),
        description: format!("about {name}"),
        data: Some(data),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(service, "shop")),
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
}

pub(crate) async fn ingest(store: &Store, tenant: &TenantId, signal: OtlpSignal, request: &impl prost::Message) -> Receipt {
    store.ingest(tenant.clone(), signal, Encoding::Protobuf, request.encode_to_vec().into()).await.unwrap()
}

pub(crate) async fn ingest_logs(store: &Store, request: &ExportLogsServiceRequest) -> Receipt {
    ingest(store, &TenantId::default_tenant(), OtlpSignal::Logs, request).await
}

pub(crate) async fn ingest_spans(store: &Store, request: &ExportTraceServiceRequest) -> Receipt {
    ingest(store, &TenantId::default_tenant(), OtlpSignal::Traces, request).await
}

pub(crate) async fn ingest_metrics(store: &Store, request: &ExportMetricsServiceRequest) -> Receipt {
    ingest(store, &TenantId::default_tenant(), OtlpSignal::Metrics, request).await
}

/// JSON of a request: the other form of the same thing.
pub(crate) fn json(request: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(request).unwrap()
}

/// Protobuf of a request.
pub(crate) fn protobuf(request: &impl prost::Message) -> Vec<u8> {
    request.encode_to_vec()
}

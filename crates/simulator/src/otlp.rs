//! Short constructors for the OTLP types. No meaning lives here.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::{Status, status::StatusCode};

/// A text attribute.
pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(text_value(value)), ..KeyValue::default() }
}

/// An integer attribute.
pub(crate) fn integer(key: &str, value: i64) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::IntValue(value)) }), ..KeyValue::default() }
}

/// A text value.
pub(crate) fn text_value(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

/// An instrumentation scope.
pub(crate) fn scope(name: &str, version: &str) -> InstrumentationScope {
    InstrumentationScope { name: name.to_owned(), version: version.to_owned(), ..InstrumentationScope::default() }
}

/// An error status; `None` (unset) when there is no message.
pub(crate) fn status(error: Option<&str>) -> Option<Status> {
    error.map(|message| Status { message: message.to_owned(), code: StatusCode::Error as i32 })
}

/// Nanoseconds since the epoch as OTLP wants them. Times here are checked non-negative at the door.
pub(crate) fn nanos(at: i64) -> u64 {
    u64::try_from(at).unwrap_or(0)
}

/// The words of a severity as common loggers print them.
pub(crate) fn severity_text(severity: SeverityNumber) -> &'static str {
    match severity {
        SeverityNumber::Fatal => "FATAL",
        SeverityNumber::Error => "ERROR",
        SeverityNumber::Warn => "WARN",
        SeverityNumber::Info => "INFO",
        SeverityNumber::Debug => "DEBUG",
        _ => "TRACE",
    }
}

/// A log record; `ids` are the trace and span it belongs to.
pub(crate) fn log_record(
    at: i64,
    severity: SeverityNumber,
    body: String,
    attributes: Vec<KeyValue>,
    ids: Option<([u8; 16], [u8; 8])>,
) -> LogRecord {
    LogRecord {
        time_unix_nano: nanos(at),
        observed_time_unix_nano: nanos(at),
        severity_number: severity as i32,
        severity_text: severity_text(severity).to_owned(),
        body: Some(text_value(body)),
        attributes,
        flags: u32::from(ids.is_some()),
        trace_id: ids.map(|(trace, _)| trace.to_vec()).unwrap_or_default(),
        span_id: ids.map(|(_, span)| span.to_vec()).unwrap_or_default(),
        ..LogRecord::default()
    }
}

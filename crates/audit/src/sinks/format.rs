//! Records in the forms sinks take. Must not leave out a field, and must not let text from outside break the framing.

use portcullis_model::{FaultCode, PrincipalId, Timestamp, format_timestamp};
use serde_json::{Value, json};

use crate::read::{Outcome, Record};

/// Facility "log audit" of RFC 5424 section 6.2.1.
const LOG_AUDIT: u8 = 13;
/// Largest `sequenceId` of RFC 5424 section 7.3.1; it starts again at 1 after that.
const MAX_SEQUENCE_ID: u64 = 2_147_483_647;

/// How much attention a record deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Info,
    Warning,
    Error,
}

fn weight(record: &Record) -> Weight {
    match (record.outcome(), record.event.code) {
        (_, Some(FaultCode::Internal | FaultCode::Unavailable)) => Weight::Error,
        (Outcome::Begun | Outcome::Ok, _) => Weight::Info,
        (Outcome::Refused | Outcome::Failed, _) => Weight::Warning,
    }
}

/// One line without its line feed: JSON escapes every control character.
pub(super) fn json_line(record: &Record) -> String {
    record.to_json().to_string()
}

/// The body of a webhook request.
pub(super) fn webhook_body(sink: &str, records: &[Record]) -> Vec<u8> {
    let records: Vec<Value> = records.iter().map(Record::to_json).collect();
    json!({"sink": sink, "records": records}).to_string().into_bytes()
}

/// An `ExportLogsServiceRequest` in the JSON mapping of OTLP 1.x: lowerCamelCase names, trace ids as hexadecimal digits,
/// 64-bit integers as text. Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.
pub(super) fn otlp_body(records: &[Record], now: Timestamp) -> Value {
    let records: Vec<Value> = records.iter().map(|record| log_record(record, now)).collect();
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let version = env!("CARGO_PKG_VERSION");
    json!({"resourceLogs": [{
        "resource": {"attributes": [attribute("service.name", "portcullis"), attribute("service.version", version)]},
        "scopeLogs": [{"scope": {"name": "portcullis.audit", "version": version}, "logRecords": records}],
    }]})
}

fn log_record(record: &Record, now: Timestamp) -> Value {
    let (number, text) = match weight(record) {
        Weight::Info => (9, "INFO"),
        Weight::Warning => (13, "WARN"),
        Weight::Error => (17, "ERROR"),
    };
    let attributes: Vec<Value> = match record.to_json() {
        Value::Object(members) => members
            .into_iter()
            .filter(|(key, _)| key != "time")
            .map(|(key, value)| json!({"key": format!("audit.{key}"), "value": any_value(value)}))
            .collect(),
        _ => Vec::new(),
    };
    let mut out = json!({
        "timeUnixNano": record.time.as_nanos().to_string(),
        "observedTimeUnixNano": now.as_nanos().to_string(),
        "severityNumber": number,
        "severityText": text,
        "eventName": format!("portcullis.audit.{}", record.event.kind.as_str()),
        "body": {"stringValue": sentence(record)},
        "attributes": attributes,
    });
    if let (Some(trace), Some(members)) = (record.event.trace_id.as_deref().filter(|t| is_trace_id(t)), out.as_object_mut()) {
        members.insert("traceId".to_owned(), trace.to_ascii_lowercase().into());
    }
    out
}

fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0')
}

fn any_value(value: Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => json!({"intValue": integer.to_string()}),
            None => json!({"doubleValue": number.as_f64()}),
        },
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(values) => json!({"arrayValue": {"values": values.into_iter().map(any_value).collect::<Vec<_>>()}}),
        Value::Object(members) => {
            let values = members.into_iter().map(|(key, value)| json!({"key": key, "value": any_value(value)}));
            json!({"kvlistValue": {"values": values.collect::<Vec<_>>()}})
        }
    }
}

/// What happened, for somebody who reads a list of log lines.
fn sentence(record: &Record) -> String {
    let event = &record.event;
    let what = event.tool.as_deref().or(event.target.as_deref()).or(event.method.as_deref());
    let mut text = format!("audit {}", event.kind.as_str());
    for (before, part) in [(" ", what), (" by ", event.principal.as_ref().map(PrincipalId::as_str))] {
        if let Some(part) = part {
            text.push_str(before);
            text.push_str(part);
        }
    }
    text.push_str(": ");
    text.push_str(event.code.map_or_else(|| record.outcome().as_str(), FaultCode::as_str));
    text
}

/// One RFC 5424 message without a line feed: the whole record as JSON in MSG, its number in the element `meta`.
pub(super) fn syslog_message(record: &Record, host: &str, process: u32) -> String {
    let severity = match weight(record) {
        Weight::Info => 6,
        Weight::Warning => 4,
        Weight::Error => 3,
    };
    let priority = LOG_AUDIT * 8 + severity;
    // Milliseconds; section 6.2.3 allows six digits behind the point at most.
    let time = format_timestamp(record.time);
    let kind = record.event.kind.as_str();
    let sequence = (record.sequence.saturating_sub(1)) % MAX_SEQUENCE_ID + 1;
    let line = json_line(record);
    format!("<{priority}>1 {time} {host} portcullis {process} {kind} [meta sequenceId=\"{sequence}\"] {line}")
}

/// The name of this machine as a HOSTNAME of RFC 5424: printable ASCII, at most 255; `-` when it is not known.
pub(super) fn host_name(text: &str) -> String {
    let name: String = text.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AuditEvent, Decision, EventKind};
    use proptest::prelude::*;

    fn record(event: AuditEvent) -> Record {
        let time = Timestamp::from_nanos(1_800_000_000_123_456_789);
        Record { chain: "audit-a".into(), sequence: 7, time, event, line: String::new() }
    }

    fn refused() -> Record {
        record(
            AuditEvent::new(EventKind::Refused)
                .principal_id(PrincipalId::new("key:abc").unwrap())
                .tool("delete_pod")
                .decided(Decision::Deny, "write-gate")
                .code(Some(FaultCode::Forbidden))
                .latency_us(2_500)
                .sources(["a", "b"])
                .redactions([("email", 2)])
                .trace_id("0AF7651916CD43DD8448EB211C80319C"),
        )
    }

    #[test]
    fn otlp_follows_the_json_mapping() {
        let body = otlp_body(&[refused()], Timestamp::from_nanos(5));
        let log = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(body["resourceLogs"][0]["resource"]["attributes"][0]["value"]["stringValue"], "portcullis");
        assert_eq!(log["timeUnixNano"], "1800000000123456789");
        assert_eq!((log["observedTimeUnixNano"].as_str(), log["severityNumber"].as_u64()), (Some("5"), Some(13)));
        assert_eq!(log["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(log["body"]["stringValue"], "audit refused delete_pod by key:abc: forbidden");
        let attribute = |key: &str| {
            let found = log["attributes"].as_array().unwrap().iter().find(|a| a["key"] == key);
            found.unwrap_or_else(|| panic!("{key} in {log}"))["value"].clone()
        };
        assert_eq!(attribute("audit.latency_us"), json!({"intValue": "2500"}));
        assert_eq!(attribute("audit.seq"), json!({"intValue": "7"}));
        assert_eq!(attribute("audit.sources"), json!({"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}));
        let counts = json!({"kvlistValue": {"values": [{"key": "email", "value": {"intValue": "2"}}]}});
        assert_eq!(attribute("audit.redactions"), counts);
        for no_id in ["", "00000000000000000000000000000000", "zz", "0af7651916cd43dd8448eb211c80319"] {
            let body = otlp_body(&[record(AuditEvent::new(EventKind::Call).trace_id(no_id))], Timestamp::from_nanos(5));
            assert!(body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0].get("traceId").is_none(), "{no_id}");
        }
    }

    #[test]
    fn syslog_has_the_shape_of_rfc_5424() {
        let message = syslog_message(&refused(), "gate-1", 42);
        let (head, line) = message.split_once("] ").unwrap();
        assert_eq!(head, "<108>1 2027-01-15T08:00:00.123Z gate-1 portcullis 42 refused [meta sequenceId=\"7\"");
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["log"].as_str(), line["seq"].as_u64()), (Some("audit-a"), Some(7)));
        assert_eq!((host_name(" \n"), host_name("gate 1\n")), ("-".to_owned(), "gate1".to_owned()));
        let broken = record(AuditEvent::new(EventKind::Error).code(Some(FaultCode::Internal)));
        assert!(syslog_message(&broken, "-", 1).starts_with("<107>1 "));
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_line_and_none_is_lost(tool in ".{0,40}|[\\r\\n\\x00\\u{2028}]{1,5}") {
            let record = record(AuditEvent::new(EventKind::Call).tool(tool.clone()));
            for text in [json_line(&record), syslog_message(&record, "h", 1)] {
                prop_assert!(!text.contains(['\n', '\r', '\0']), "{text:?}");
                let line: Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
                prop_assert_eq!(line["tool"].as_str(), Some(tool.as_str()));
            }
        }
    }
}

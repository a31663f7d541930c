//! A record of an OTLP/JSON request that cannot be read is left out, counted and named; the others are stored.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
use portcullis_model::TenantId;
use portcullis_ports::{Source as _, SqlRequest};
use portcullis_telemetry::{Encoding, IngestError, OtlpSignal, Receipt, Store};
use proptest::prelude::*;

use crate::data::{json, log, logs};
use crate::support::{NOW, everything, open, permit, source};

/// Fields that cannot be read, and the name the answer must hold.
const BAD_LOGS: &[(&str, &str)] = &[
    (r#""timeUnixNano":-1"#, "timeUnixNano"),
    (r#""timeUnixNano":"-1""#, "timeUnixNano"),
    (r#""timeUnixNano":18446744073709551616"#, "timeUnixNano"),
    (r#""timeUnixNano":"18446744073709551616""#, "timeUnixNano"),
    (r#""timeUnixNano":1.5"#, "timeUnixNano"),
    (r#""timeUnixNano":1e400"#, "timeUnixNano"),
    (r#""timeUnixNano":"garbage""#, "timeUnixNano"),
    (r#""timeUnixNano":true"#, "timeUnixNano"),
    (r#""timeUnixNano":{}"#, "timeUnixNano"),
    (r#""timeUnixNano":null"#, "timeUnixNano"),
    (r#""observedTimeUnixNano":-9223372036854775808"#, "observedTimeUnixNano"),
    (r#""severityNumber":99999999999"#, "severityNumber"),
    (r#""severityNumber":"INFO""#, "severityNumber"),
    (r#""flags":-1"#, "flags"),
    (r#""droppedAttributesCount":4294967296"#, "droppedAttributesCount"),
    (r#""traceId":"zz""#, "traceId"),
    (r#""spanId":7"#, "spanId"),
    (r#""severityText":"\ud800""#, "severityText"),
    (r#""attributes":[{"key":"a","value":{"intValue":"1.5"}}]"#, "attributes"),
    (r#""attributes":[{"key":"a","value":{"doubleValue":1e400}}]"#, "attributes"),
    (r#""attributes":7"#, "attributes"),
    (r#""body":7"#, "body"),
];

const BAD_SPANS: &[(&str, &str)] = &[
    (r#""startTimeUnixNano":-1"#, "startTimeUnixNano"),
    (r#""endTimeUnixNano":"1e9""#, "endTimeUnixNano"),
    (r#""kind":1e400"#, "kind"),
    (r#""events":[{"timeUnixNano":-5}]"#, "events"),
    (r#""links":[{"traceId":"x"}]"#, "links"),
    (r#""status":{"code":99999999999}"#, "status"),
];

const BAD_POINTS: &[(&str, &str)] = &[
    (r#""timeUnixNano":-1,"asDouble":1"#, "timeUnixNano"),
    (r#""startTimeUnixNano":1.5,"asDouble":1"#, "startTimeUnixNano"),
    (r#""asInt":"one""#, "asInt"),
    (r#""asInt":9223372036854775808"#, "asInt"),
    (r#""asInt":1.5"#, "asInt"),
    (r#""asDouble":1e400"#, "asDouble"),
    (r#""asDouble":"much""#, "asDouble"),
    (r#""asDouble":1,"flags":-1"#, "flags"),
    (r#""asDouble":1,"exemplars":[{"asInt":"x"}]"#, "asInt"),
    (r#""asDouble":1,"exemplars":[{"timeUnixNano":-1,"asInt":"1"}]"#, "exemplars"),
];

/// A request with these elements in its innermost array.
fn request(signal: OtlpSignal, elements: &str) -> String {
    let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]}"#;
    match signal {
        OtlpSignal::Logs => format!(r#"{{"resourceLogs":[{{{resource},"scopeLogs":[{{"logRecords":[{elements}]}}]}}]}}"#),
        OtlpSignal::Traces => format!(r#"{{"resourceSpans":[{{{resource},"scopeSpans":[{{"spans":[{elements}]}}]}}]}}"#),
        OtlpSignal::Metrics => format!(
            r#"{{"resourceMetrics":[{{{resource},"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{elements}]}}}}]}}]}}]}}"#
        ),
    }
}

fn bad(signal: OtlpSignal) -> &'static [(&'static str, &'static str)] {
    match signal {
        OtlpSignal::Logs => BAD_LOGS,
        OtlpSignal::Traces => BAD_SPANS,
        OtlpSignal::Metrics => BAD_POINTS,
    }
}

/// A record that can be read, with a mark of its own.
fn good(signal: OtlpSignal, mark: usize) -> String {
    match signal {
        OtlpSignal::Logs => format!(r#"{{"timeUnixNano":"{NOW}","body":{{"stringValue":"r{mark}"}}}}"#),
        OtlpSignal::Traces => format!(
            r#"{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1{mark:04x}","name":"r{mark}","startTimeUnixNano":{NOW},"endTimeUnixNano":{NOW}}}"#
        ),
        OtlpSignal::Metrics => {
            format!(
                r#"{{"timeUnixNano":"{NOW}","asInt":"1","attributes":[{{"key":"mark","value":{{"stringValue":"r{mark}"}}}}]}}"#
            )
        }
    }
}

fn marks(signal: OtlpSignal) -> &'static str {
    match signal {
        OtlpSignal::Logs => "SELECT Body FROM otel_logs",
        OtlpSignal::Traces => "SELECT SpanName FROM otel_traces",
        OtlpSignal::Metrics => "SELECT Attributes['mark'] FROM otel_metrics_gauge",
    }
}

async fn stored(store: &Store, statement: &str) -> Vec<String> {
    let request = SqlRequest { statement: statement.into(), max_rows: 10_000 };
    let answer = source(store).sql(&permit(everything()), &request).await.unwrap();
    let mut found: Vec<String> = answer.rows.iter().map(|row| row[0].as_str().unwrap_or("?").to_owned()).collect();
    found.sort();
    found
}

async fn send(store: &Store, signal: OtlpSignal, body: String) -> Result<Receipt, IngestError> {
    store.ingest(TenantId::default_tenant(), signal, Encoding::Json, body.into()).await
}

#[tokio::test]
async fn the_answer_names_the_field_and_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for signal in [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics] {
        for (number, (fields, name)) in bad(signal).iter().enumerate() {
            let elements = format!("{},{{{fields}}}", good(signal, number));
            let receipt = send(&store, signal, request(signal, &elements)).await.unwrap();
            assert_eq!((receipt.accepted, receipt.rejected), (1, 1), "{fields}: {receipt:?}");
            let reason = receipt.reason.unwrap();
            assert!(reason.contains(&format!("`{name}`")) && reason.contains("; write "), "{fields}: {reason}");
            assert!(reason.contains(" 2 of its list") && reason.len() < 500, "{fields}: {reason}");
        }
        assert_eq!(stored(&store, marks(signal)).await.len(), bad(signal).len());
    }
    let long = format!(r#"{{"timeUnixNano":"{}"}}"#, "9".repeat(100_000));
    let reason = send(&store, OtlpSignal::Logs, request(OtlpSignal::Logs, &long)).await.unwrap().reason.unwrap();
    assert!(reason.len() < 500, "{}", reason.len());
}

#[tokio::test]
async fn what_stands_around_the_records_takes_them_along() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let one = good(OtlpSignal::Logs, 1);
    for (body, rejected, names) in [
        (
            format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":7}},"scopeLogs":[{{"logRecords":[{one},{one},{{"flags":-1}}]}}]}}]}}"#
            ),
            3,
            "resource",
        ),
        (format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"scope":{{"name":7}},"logRecords":[{one},{one}]}}]}}]}}"#), 2, "scope"),
        (request(OtlpSignal::Logs, "7,null,\"x\""), 3, "log record 1"),
    ] {
        let receipt = send(&store, OtlpSignal::Logs, body.clone()).await.unwrap();
        assert_eq!((receipt.accepted, receipt.rejected), (0, rejected), "{body}");
        assert!(receipt.reason.as_ref().unwrap().contains(names), "{body}: {receipt:?}");
    }
    for (metric, rejected) in [
        (r#"{"name":"m","sum":{"aggregationTemporality":"x","dataPoints":[{"asInt":1},{"asInt":"x"}]}}"#, 2),
        (r#"{"name":7,"gauge":{"dataPoints":[{"asInt":1}]}}"#, 1),
        (r#"{"name":"m","gauge":7}"#, 1),
        (r#"{"name":"m","histogram":{"dataPoints":[{"count":-1},{"count":"1","bucketCounts":["x"]}]}}"#, 2),
        (r#"{"name":"m","exponentialHistogram":{"dataPoints":[{"zeroCount":-1}]}}"#, 1),
        (r#"{"name":"m","summary":{"dataPoints":[{"quantileValues":[{"quantile":"x"}]}]}}"#, 1),
    ] {
        let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#);
        let receipt = send(&store, OtlpSignal::Metrics, body).await.unwrap();
        assert_eq!((receipt.accepted, receipt.rejected), (0, rejected), "{metric}: {receipt:?}");
    }
    for body in ["{", r#"{"resourceLogs":7}"#, r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":7}]}]}"#, "[]x", ""] {
        let refused = send(&store, OtlpSignal::Logs, body.into()).await;
        assert!(matches!(refused, Err(IngestError::Malformed(_))), "{body}: {refused:?}");
    }
}

#[tokio::test]
async fn numbers_that_json_writes_as_text_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let points = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "\"2.5\"", "2.5"]
        .map(|value| format!(r#"{{"timeUnixNano":"{NOW}","asDouble":{value}}}"#));
    let receipt = send(&store, OtlpSignal::Metrics, request(OtlpSignal::Metrics, &points.join(","))).await.unwrap();
    assert_eq!((receipt.accepted, receipt.rejected), (5, 0), "{receipt:?}");
    let statement = "SELECT CASE WHEN isnan(Value) THEN 'nan' ELSE CAST(Value AS VARCHAR) END FROM otel_metrics_gauge";
    assert_eq!(stored(&store, statement).await, ["-inf", "2.5", "2.5", "inf", "nan"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the mix, exactly the good ones are stored and the others counted.
    #[test]
    fn exactly_the_good_records_are_stored(
        signal in prop_oneof![Just(OtlpSignal::Logs), Just(OtlpSignal::Traces), Just(OtlpSignal::Metrics)],
        choices in proptest::collection::vec(proptest::option::of(any::<proptest::sample::Index>()), 0..40),
    ) {
        let elements: Vec<String> = choices
            .iter()
            .enumerate()
            .map(|(mark, choice)| match choice {
                None => good(signal, mark),
                Some(index) => format!("{{{}}}", index.get(bad(signal)).0),
            })
            .collect();
        let mut expected: Vec<String> = (0..choices.len()).filter(|at| choices[*at].is_none()).map(|at| format!("r{at}")).collect();
        expected.sort();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let receipt = send(&store, signal, request(signal, &elements.join(","))).await.unwrap();
            assert_eq!(receipt.accepted as usize, expected.len());
            assert_eq!(receipt.rejected as usize, choices.len() - expected.len());
            assert_eq!(receipt.reason.is_some(), receipt.rejected > 0);
            assert_eq!(stored(&store, marks(signal)).await, expected);
        });
    }
}

/// A value inside `depth` others.
fn nested(depth: usize, as_map: bool) -> AnyValue {
    let mut value = AnyValue { value: Some(Value::IntValue(1)) };
    for _ in 0..depth {
        value = if as_map {
            let item = KeyValue { key: "k".into(), value: Some(value), ..KeyValue::default() };
            AnyValue { value: Some(Value::KvlistValue(KeyValueList { values: vec![item] })) }
        } else {
            AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) }
        };
    }
    value
}

/// What was accepted must be readable from the write-ahead log, at any depth: a frame that could not be decoded would
/// keep the store from opening.
#[tokio::test]
async fn whatever_depth_is_accepted_is_there_after_a_crash() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(directory.path());
    let (mut accepted, mut refused) = (0, 0);
    for as_map in [false, true] {
        for depth in 1..60 {
            let mut record = log(0, 9, "x");
            record.attributes = vec![KeyValue { key: "deep".into(), value: Some(nested(depth, as_map)), ..KeyValue::default() }];
            let body = String::from_utf8(json(&logs("cart", vec![record]))).unwrap();
            // Once as a whole, once record by record because of a bad neighbour.
            let neighbour = body.replacen(r#""logRecords":["#, r#""logRecords":[{"flags":-1},"#, 1);
            assert_ne!(neighbour, body);
            for body in [body, neighbour] {
                let receipt = send(&store, OtlpSignal::Logs, body).await.unwrap();
                accepted += receipt.accepted;
                refused += receipt.rejected;
            }
        }
    }
    assert!(accepted > 100 && refused > 130, "{accepted} {refused}");
    std::fs::create_dir(copy.path().join("wal")).unwrap();
    for entry in std::fs::read_dir(directory.path().join("wal")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join("wal").join(entry.file_name())).unwrap();
    }
    let again = open(copy.path());
    assert_eq!(again.stats().rows(), accepted);
}

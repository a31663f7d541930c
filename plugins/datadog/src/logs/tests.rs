//! Logs against answers as Datadog's API reference shows them: <https://docs.datadoghq.com/api/latest/logs/>.

use super::*;
use crate::api::tests::Double;
use crate::portcullis::plugin::types::NameSet;
use crate::search::tests::{filter, scope};
use crate::settings::Settings;

/// The middle of the window of [`filter`].
const NOON: i64 = 1_700_001_800_000_000_000;

fn event(at: i64, message: &str) -> Value {
    json!({"id": "AAAAAWgN8Xwgr1vKDQAAAABBV2dOOFh3ZzZobm1mWXJFYTR0OA", "type": "log", "attributes": {
        "timestamp": time::written(at), "status": "error", "service": "cart", "host": "i-0123", "message": message,
        "tags": ["env:prod", "kube_namespace:shop", "team:a", "team:b"],
        "attributes": {"duration": 2345, "http": {"status_code": 500}, "dd": {"trace_id": "9532127138774266268"}}}})
}

fn page(events: &[Value], cursor: Option<&str>, status: &str) -> Value {
    let mut page = json!({"data": events, "meta": {"elapsed": 132, "request_id": "MWlF", "status": status, "warnings": []}});
    if let Some(cursor) = cursor {
        page["meta"]["page"] = json!({"after": cursor});
    }
    page
}

fn context(bytes: u64) -> Context {
    let scope = scope(NameSet::Everything, NameSet::Everything);
    Context { scope, traceparent: None, result_bytes: bytes }
}

fn question(limit: u32) -> LogQuestion {
    LogQuestion { filter: filter(), limit, newest_first: true, after: None }
}

fn ask(answers: &[Value], question: &LogQuestion, context: &Context) -> (Result<LogAnswer, Fault>, Double) {
    let double = Double::answering(answers);
    let settings = Settings::read("{}").unwrap();
    let answer = logs(&Api { door: &double, settings: &settings }, question, context);
    assert!(answer.is_err() || double.answers.borrow().is_empty(), "every answer is asked for");
    (answer, double)
}

#[test]
fn a_record_says_what_the_event_said() {
    let (answer, double) = ask(&[page(&[event(NOON, "payment refused")], None, "done")], &question(10), &context(1 << 20));
    let answer = answer.unwrap();
    let record = &answer.records[0];
    assert_eq!((record.at, record.service.as_str(), record.severity), (NOON, "cart", Some(Severity::Error)));
    let attribute = |name: &str| record.attributes.iter().find(|pair| pair.name == name).map(|pair| pair.value.as_str());
    assert_eq!(attribute("k8s.namespace.name"), Some("shop"));
    assert_eq!(
        (attribute("team"), attribute("http.status_code"), attribute("host.name")),
        (Some("a, b"), Some("500"), Some("i-0123"))
    );
    assert_eq!(record.trace_id, "00000000000000008448eb211c80319c");
    assert!(matches!(answer.total, Total::Exact(1)) && answer.next.is_none());
    let (method, url, body) = double.asked.borrow()[0].clone();
    assert_eq!((method.as_str(), url.as_str()), ("POST", "https://api.datadoghq.com/api/v2/logs/events/search"));
    assert_eq!(
        (&body["sort"], &body["page"]["limit"], &body["filter"]["query"]),
        (&json!("-timestamp"), &json!(10), &json!("*"))
    );
    assert_eq!(body["filter"]["from"], "2023-11-14T22:13:20.000Z");
}

#[test]
fn cursors_are_followed_until_there_is_enough_and_the_rest_is_said() {
    let pages = [
        page(&[event(NOON + 2_000_000, "b"), event(NOON + 1_000_000, "a")], Some("c1"), "done"),
        page(&[event(NOON, "z")], Some("c2"), "done"),
    ];
    let (answer, double) = ask(&pages, &question(3), &context(1 << 20));
    let answer = answer.unwrap();
    assert_eq!(answer.records.len(), 3);
    assert!(matches!(answer.total, Total::AtLeast(3)), "{:?}", answer.total);
    let next = answer.next.unwrap();
    assert_eq!((next.at, next.shown_at), (NOON, 1));
    assert_eq!(double.asked.borrow()[1].2["page"]["cursor"], "c1");
    assert_eq!(double.asked.borrow()[1].2["page"]["limit"], 1);

    // The next page begins where this one ended, without what was shown of that time.
    let on = LogQuestion { after: Some(next), ..question(3) };
    let pages = [page(&[event(NOON, "z"), event(NOON, "y"), event(NOON - 1_000_000, "x")], None, "done")];
    let (answer, double) = ask(&pages, &on, &context(1 << 20));
    let bodies: Vec<String> = answer.unwrap().records.into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, ["y", "x"]);
    assert_eq!(double.asked.borrow()[0].2["filter"]["to"], time::written(NOON + 1_000_000));
}

#[test]
fn what_datadog_did_not_finish_is_not_the_whole() {
    let (answer, _) = ask(&[page(&[event(NOON, "a")], None, "timeout")], &question(10), &context(1 << 20));
    let answer = answer.unwrap();
    assert!(matches!(answer.total, Total::AtLeast(1)) && answer.next.is_some());
    let (nothing, _) = ask(&[page(&[], None, "timeout")], &question(10), &context(1 << 20));
    assert_eq!(nothing.unwrap_err().code, FaultCode::TooLarge);
    let (empty, _) = ask(&[page(&[], None, "done")], &question(10), &context(1 << 20));
    assert!(matches!(empty.unwrap().total, Total::Exact(0)));
    let mut warned = page(&[], None, "done");
    warned["meta"]["warnings"] =
        json!([{"code": "unknown_index", "title": "One or several indexes are missing", "detail": "indexes: foo"}]);
    let (answer, double) = ask(&[warned], &question(10), &context(1 << 20));
    assert!(answer.unwrap_err().message.contains("indexes: foo"));
    assert!(double.warned.borrow()[0].contains("indexes: foo"));
}

#[test]
fn an_answer_stays_within_its_bytes_and_says_where_it_ended() {
    let long = "x".repeat(3_000);
    let events: Vec<Value> = (0..10).map(|at| event(NOON - at * 1_000_000, &long)).collect();
    let (answer, _) = ask(&[page(&events, None, "done")], &question(100), &context(16_384));
    let answer = answer.unwrap();
    assert!((1..5).contains(&answer.records.len()) && answer.next.is_some(), "{}", answer.records.len());
    let (none, _) = ask(&[page(&events, None, "done")], &question(100), &context(5_000));
    assert_eq!(none.unwrap_err().code, FaultCode::TooLarge);
}

#[test]
fn a_scope_that_leaves_nothing_asks_nothing() {
    let narrow = Context { scope: scope(NameSet::Only(vec![]), NameSet::Everything), ..context(1 << 20) };
    let (answer, double) = ask(&[], &question(10), &narrow);
    assert!(answer.unwrap().records.is_empty() && double.asked.borrow().is_empty());
}

#[test]
fn garbage_is_no_answer() {
    for body in [json!({}), json!({"data": [{"attributes": {"message": "no time"}}]}), json!({"data": [{"id": "x"}]})] {
        let (answer, _) = ask(&[body], &question(10), &context(1 << 20));
        assert_eq!(answer.unwrap_err().code, FaultCode::BackendFailed);
    }
}

fn count(answers: &[Value], question: &LogCountQuestion) -> (Result<LogCountAnswer, Fault>, Double) {
    let double = Double::answering(answers);
    let settings = Settings::read("{}").unwrap();
    let answer = log_counts(&Api { door: &double, settings: &settings }, question, &context(1 << 20));
    (answer, double)
}

fn counted(buckets: &Value, status: &str) -> Value {
    json!({"data": {"buckets": buckets}, "meta": {"elapsed": 1, "status": status}})
}

#[test]
fn counts_are_made_by_datadog_and_statuses_become_severities() {
    let buckets = json!([
        {"by": {"service": "cart", "status": "info"}, "computes": {"c0": 5}},
        {"by": {"service": "cart", "status": "notice"}, "computes": {"c0": 2}},
        {"by": {"service": ABSENT, "status": "error"}, "computes": {"c0": 1}}
    ]);
    let by = vec!["service".to_owned(), "severity".to_owned()];
    let question = LogCountQuestion { filter: filter(), by, step: None, top: 10 };
    let (answer, double) = count(&[counted(&buckets, "done")], &question);
    let answer = answer.unwrap();
    let shown: Vec<(u64, Vec<String>)> = answer
        .groups
        .iter()
        .map(|group| (group.count, group.key.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect()))
        .collect();
    assert_eq!(shown, [(7, vec!["service=cart".into(), "severity=info".into()]), (1, vec!["severity=error".into()])]);
    assert!(matches!(answer.total, Total::Exact(8)) && matches!(answer.total_groups, Total::Exact(2)));
    let body = &double.asked.borrow()[0].2;
    assert_eq!((&body["group_by"][1]["facet"], &body["compute"][0]["aggregation"]), (&json!("status"), &json!("count")));
}

#[test]
fn the_largest_groups_are_not_taken_for_all() {
    let buckets = json!([{"by": {"@user": "a"}, "computes": {"c0": 5}}, {"by": {"@user": "b"}, "computes": {"c0": 4}}]);
    let question = LogCountQuestion { filter: filter(), by: vec!["user".into()], step: None, top: 2 };
    let (answer, _) = count(&[counted(&buckets, "done"), counted(&json!([{"computes": {"c0": 100}}]), "done")], &question);
    let answer = answer.unwrap();
    assert!(matches!(answer.total, Total::Exact(100)) && matches!(answer.total_groups, Total::AtLeast(2)), "{answer:?}");
}

#[test]
fn counts_over_time_keep_their_times() {
    let buckets = json!([{"by": {}, "computes": {"c0": [
        {"time": "2023-11-14T22:14:00.000Z", "value": 3}, {"time": "2023-11-14T22:15:00.000Z", "value": 4.0}]}}]);
    let question = LogCountQuestion { filter: filter(), by: vec![], step: Some(60_000_000_000), top: 1 };
    let (answer, double) = count(&[counted(&buckets, "done")], &question);
    let answer = answer.unwrap();
    assert_eq!((answer.groups[0].count, answer.groups[0].over_time.len()), (7, 2));
    assert_eq!(double.asked.borrow()[0].2["compute"][0]["interval"], "1m");
    let (partial, _) = count(&[counted(&json!([]), "timeout")], &question);
    assert_eq!(partial.unwrap_err().code, FaultCode::TooLarge);
    let five = LogCountQuestion { by: vec!["a".into(); 5], ..question };
    assert_eq!(count(&[], &five).0.unwrap_err().code, FaultCode::InvalidArgument);
}

//! Several sources at once: one fails, one dawdles, one has nothing, one is not for this caller.

use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode, NameSet, Severity, Signal};
use portcullis_tools::Sources;
use serde_json::json;

use crate::fake::{Fake, Mood, shared};
use crate::support::{ago, house, record};

fn logs(name: &str, bodies: &[&str]) -> Fake {
    let mut fake = Fake::new(name, &[Signal::Logs]);
    fake.logs = bodies.iter().enumerate().map(|(n, body)| record(ago(60 + n as u64), "cart", Severity::Info, body)).collect();
    fake
}

fn broken(name: &str) -> Fake {
    Fake { mood: Mood::Failing(Fault::backend("the backend refused the connection", "secret detail")), ..logs(name, &["unseen"]) }
}

#[tokio::test]
async fn a_failed_source_never_becomes_nothing_there() {
    let house = house(vec![shared(logs("a", &[])), shared(broken("b"))]);
    let said = house.ask("query_logs", json!({})).await;
    assert!(!said.failed);
    assert!(said.text.starts_with("INCOMPLETE: no answer from b (the backend refused the connection)."), "{}", said.text);
    assert_eq!(said.data["coverage"][0]["state"], "empty");
    assert_eq!(said.data["coverage"][1]["state"], "failed");
    assert!(!said.text.contains("secret"), "{}", said.text);
}

#[tokio::test]
async fn when_all_fail_the_result_is_failed_for_every_tool() {
    let all = [Signal::Metrics, Signal::Logs, Signal::Traces, Signal::Alerts, Signal::Sql];
    let dead = Fake { signals: all.into_iter().collect(), ..broken("dead") };
    let house = house(vec![shared(dead)]);
    let calls = [
        ("list_services", json!({})),
        ("find_metrics", json!({})),
        ("query_metrics", json!({"metric": "cpu"})),
        ("query_logs", json!({})),
        ("query_logs", json!({"count_by": ["service"]})),
        ("log_patterns", json!({})),
        ("query_traces", json!({})),
        ("get_trace", json!({"trace_id": "0af7651916cd43dd8448eb211c80319c"})),
        ("get_service_health", json!({})),
        ("get_service_health", json!({"service": "cart"})),
        ("list_alerts", json!({})),
        ("sql", json!({"query": "SELECT 1"})),
    ];
    for (tool, arguments) in calls {
        let said = house.ask(tool, arguments).await;
        assert!(said.failed, "{tool}: {}", said.text);
        assert!(said.text.starts_with("FAILED: no source could answer"), "{tool}: {}", said.text);
        let lower = said.text.to_lowercase();
        for lie in ["no alert is", "healthy", "no record", "no trace matches", "no series", "no service was"] {
            assert!(!lower.contains(lie), "{tool} says '{lie}': {}", said.text);
        }
    }
    let said = house.ask("list_sources", json!({})).await;
    assert!(!said.failed && said.text.contains("dead [fake, 1.0]") && said.text.contains("DOWN"), "{}", said.text);
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_runs_into_its_own_deadline() {
    let slow = Fake { mood: Mood::Slow(Duration::from_mins(2)), ..logs("slow", &["late"]) };
    let house = house(vec![shared(logs("quick", &["here"])), shared(slow)]);
    let said = house.ask("query_logs", json!({})).await;
    assert!(said.text.contains("here"), "{}", said.text);
    let state = &said.data["coverage"][1];
    assert_eq!((state["source"].as_str(), state["state"].as_str()), (Some("slow"), Some("failed")));
    assert!(state["reason"].as_str().unwrap().contains("no answer within 10s"), "{state}");
}

#[tokio::test]
async fn a_near_deadline_of_the_call_leaves_time_to_answer() {
    let slow = Fake { mood: Mood::Slow(Duration::from_secs(30)), ..logs("slow", &[]) };
    let mut house = house(vec![shared(logs("quick", &["here"])), shared(slow)]);
    house.time = Duration::from_millis(400);
    let begun = Instant::now();
    let said = house.ask("query_logs", json!({})).await;
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    assert!(said.text.contains("here") && said.text.starts_with("INCOMPLETE"), "{}", said.text);
}

#[tokio::test]
async fn a_source_outside_the_scope_looks_like_none() {
    let mut house = house(vec![shared(logs("mine", &["m"])), shared(logs("other", &["o"]))]);
    house.scope.sources = NameSet::only(["mine"]);
    let said = house.ask("query_logs", json!({})).await;
    assert!(!said.text.contains("other") && !said.data.to_string().contains("other"), "{}", said.data);
    let hidden = house.refused("query_logs", json!({"source": "other"})).await;
    let missing = house.refused("query_logs", json!({"source": "nothere"})).await;
    assert_eq!(hidden.code(), FaultCode::NotFound);
    assert_eq!(hidden.message().replace("other", "X"), missing.message().replace("nothere", "X"));
    assert_eq!(hidden.hint(), missing.hint());
    assert_eq!(hidden.hint(), Some("sources: mine"));
}

#[tokio::test]
async fn a_service_outside_the_scope_is_not_available_and_not_shown() {
    let mut fake = logs("a", &["x"]);
    fake.logs.push(record(ago(30), "payroll", Severity::Error, "salary"));
    let mut house = house(vec![shared(fake)]);
    house.scope.services = NameSet::only(["cart"]);
    for tool in ["query_logs", "log_patterns", "get_service_health"] {
        let fault = house.refused(tool, json!({"service": "payroll"})).await;
        assert_eq!(fault.code(), FaultCode::NotFound, "{tool}");
    }
    for (tool, arguments) in [("query_logs", json!({})), ("list_services", json!({})), ("get_service_health", json!({}))] {
        let said = house.ask(tool, arguments).await;
        assert!(!said.text.contains("payroll") && !said.text.contains("salary"), "{tool}: {}", said.text);
        assert!(!said.data.to_string().contains("payroll"), "{tool}: {}", said.data);
    }
}

#[tokio::test]
async fn nobody_to_ask_is_said_with_what_would_help() {
    let house = house(vec![shared(logs("a", &[]))]);
    let fault = house.refused("query_metrics", json!({"metric": "cpu"})).await;
    assert_eq!(fault.code(), FaultCode::NoSource);
    assert!(fault.message().contains("metrics"), "{fault:?}");
    let fault = house.refused("query_traces", json!({"source": "a"})).await;
    assert!(fault.message().contains("source 'a' has no traces"), "{fault:?}");
}

#[tokio::test]
async fn a_question_the_source_refuses_is_the_callers_fault_not_an_outage() {
    let fault = Fault::invalid("column 'Bodi' does not exist").with_hint("did you mean Body?");
    let fake = Fake { mood: Mood::Failing(fault), signals: [Signal::Sql].into_iter().collect(), ..logs("a", &[]) };
    let house = house(vec![shared(fake)]);
    let refused = house.refused("sql", json!({"query": "SELECT Bodi FROM otel_logs"})).await;
    assert_eq!(refused.code(), FaultCode::InvalidArgument);
    assert!(refused.message().contains("Bodi"), "{refused:?}");
    let hint = refused.hint().unwrap();
    assert!(hint.contains("did you mean Body?") && hint.contains("otel_traces"), "{hint}");
}

#[tokio::test]
async fn sources_can_be_replaced_and_names_are_unique() {
    let house = house(vec![shared(logs("a", &["old"]))]);
    house.sources.replace(vec![shared(logs("b", &["fresh"]))]).unwrap();
    let said = house.ask("query_logs", json!({})).await;
    assert!(said.text.contains("fresh") && !said.text.contains("old"), "{}", said.text);
    assert!(house.sources.replace(vec![shared(logs("x", &[])), shared(logs("x", &[]))]).is_err());
    assert!(Sources::new(vec![shared(logs("x", &[])), shared(logs("x", &[]))]).is_err());
    assert!(house.ask("query_logs", json!({})).await.text.contains("fresh"), "the old set stays after a refusal");
}

#[tokio::test]
async fn sources_are_asked_at_the_same_time() {
    let slow = |name: &str| shared(Fake { mood: Mood::Slow(Duration::from_millis(150)), ..logs(name, &["x"]) });
    let house = house(vec![slow("a"), slow("b"), slow("c"), slow("d")]);
    let begun = Instant::now();
    house.ask("query_logs", json!({})).await;
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
}

//! `query_traces` and `get_trace`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{NameSet, Signal, Span, SpanKind, SpanStatus, Timestamp};
use serde_json::json;

use crate::fake::{Fake, shared};
use crate::support::{House, ago, house, tokens};

/// A span; ids from small numbers.
pub(crate) fn span(trace: u64, id: u64, parent: u64, service: &str, name: &str, start: Timestamp, milliseconds: u64) -> Span {
    Span {
        trace_id: format!("{:032x}", trace + 0xabc0),
        span_id: format!("{id:016x}"),
        parent_span_id: if parent == 0 { String::new() } else { format!("{parent:016x}") },
        service: Arc::from(service),
        name: name.to_owned(),
        kind: SpanKind::Server,
        start,
        duration_nanos: milliseconds * 1_000_000,
        status: SpanStatus::Unset,
        status_message: String::new(),
        attributes: BTreeMap::new(),
        events: Vec::new(),
    }
}

fn shop(traces: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    for n in 0..traces {
        let start = ago(600).plus(Duration::from_secs(n));
        spans.push(span(n, 1, 0, "frontend", "POST /checkout", start, 100 + n));
        spans.push(span(n, 2, 1, "checkout", "POST /orders", start.plus(Duration::from_millis(2)), 90));
        let mut leaf = span(n, 3, 2, "inventory", "POST /reservations", start.plus(Duration::from_millis(4)), 80);
        if n % 10 == 0 {
            leaf.status = SpanStatus::Error;
            leaf.status_message.push_str("timed out acquiring connection");
        }
        spans.push(leaf);
    }
    spans
}

fn one(traces: u64) -> House {
    let mut fake = Fake::new("store", &[Signal::Traces]);
    fake.spans = shop(traces);
    house(vec![shared(fake)])
}

#[tokio::test]
async fn traces_page_through_once_each() {
    let house = one(45);
    let mut seen = Vec::new();
    let mut arguments = json!({"limit": 20});
    loop {
        let said = house.ask("query_traces", arguments.clone()).await;
        assert_eq!(said.data["total"], 45);
        seen.extend(said.data["traces"].as_array().unwrap().iter().map(|t| t["duration_ms"].as_f64().unwrap() as u64));
        match said.data["next"].as_str() {
            Some(next) => arguments["cursor"] = json!(next),
            None => break,
        }
    }
    assert_eq!(seen, (100..145).rev().collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_trace_in_two_sources_is_one_trace() {
    let mut whole = Fake::new("whole", &[Signal::Traces]);
    whole.spans = shop(4);
    let mut part = Fake::new("part", &[Signal::Traces]);
    part.spans = shop(4).into_iter().filter(|s| &*s.service == "inventory").collect();
    part.spans.push(span(99, 1, 0, "cron", "sweep", ago(300), 7));
    let house = house(vec![shared(part), shared(whole)]);
    let said = house.ask("query_traces", json!({})).await;
    assert_eq!((said.data["total"].as_u64(), said.data["shown"].as_u64()), (Some(5), Some(5)));
    assert_eq!(said.data["traces"][0]["source"], "whole");
    let id = said.data["traces"][0]["trace_id"].as_str().unwrap();
    let said = house.ask("get_trace", json!({"trace_id": id})).await;
    assert_eq!(said.data["total"], 3, "the repeated span is one span: {}", said.text);
}

#[tokio::test]
async fn a_trace_shows_errors_path_and_tree() {
    let house = one(1);
    let id = format!("{:032x}", 0xabc0);
    let said = house.ask("get_trace", json!({"trace_id": id})).await;
    assert_eq!(said.data["errors"][0]["service"], "inventory");
    assert_eq!(said.data["errors"][0]["message"], "timed out acquiring connection");
    assert_eq!(said.data["critical_path"][0], json!({"service": "inventory", "name": "POST /reservations", "own_ms": 80.0}));
    assert!(said.data["tree"].as_str().unwrap().contains("inventory"), "{}", said.data);
    assert!(tokens(&said.text) < 300, "{}", said.text);
    let upper = house.ask("get_trace", json!({"trace_id": id.to_uppercase()})).await;
    assert_eq!(upper.data, said.data);
}

#[tokio::test]
async fn absent_is_said_only_of_those_that_answered() {
    let house = one(1);
    let said = house.ask("get_trace", json!({"trace_id": "ffffffffffffffffffffffffffffffff"})).await;
    assert!(!said.failed && said.text.contains("is not in the sources that answered"), "{}", said.text);
    for bad in ["", "xyz", "00000000000000000000000000000000", "abc"] {
        assert!(house.refused("get_trace", json!({"trace_id": bad})).await.message().contains("trace id"));
    }
    for (arguments, expected) in [
        (json!({"order": "random"}), "slowest or newest"),
        (json!({"min_ms": -1}), "milliseconds"),
        (json!({"operation": ""}), "empty"),
    ] {
        assert!(house.refused("query_traces", arguments).await.message().contains(expected));
    }
}

#[tokio::test]
async fn a_narrow_scope_sees_only_its_spans() {
    let mut house = one(3);
    house.scope.services = NameSet::only(["checkout"]);
    let said = house.ask("query_traces", json!({})).await;
    assert!(!said.data.to_string().contains("inventory"), "{}", said.data);
    let said = house.ask("query_traces", json!({"errors_only": true})).await;
    assert_eq!(said.data["shown"], 0);
}

//! `get_service_health`: a pool runs dry at one service, and its callers are louder than it is.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_model::{Fault, Sample, Series, Severity, Signal, Span, SpanKind, SpanStatus};
use serde_json::json;

use crate::fake::{Fake, Metric, Mood, shared};
use crate::support::{NOW, ago, house, record, tokens};
use crate::traces::span;

const ONSET: u64 = 600;

/// Two requests per second for 150 minutes; from ten minutes ago on stock's own work grows, its callers fail louder.
fn shop(trouble: bool) -> Fake {
    let mut fake = Fake::new("store", &[Signal::Logs, Signal::Traces, Signal::Metrics]);
    for n in 0..9_000u64 {
        let back = 9_000 - n;
        let start = ago(back);
        let bad = trouble && back <= ONSET;
        let wobble = n * 7 % 11;
        let (own, failed) = if bad { (1_500 + wobble * 20, n % 3 == 0) } else { (20 + wobble, n % 997 == 0) };
        let mut spans = vec![
            span(n, 1, 0, "frontend", "POST /checkout", start, own + 60 + wobble),
            span(n, 2, 1, "checkout", "POST /orders", start.plus(Duration::from_millis(10)), own + 40),
            span(n, 3, 2, "stock", "POST /reservations", start.plus(Duration::from_millis(20)), own),
            span(n, 4, 0, "search", "GET /search", start, 15 + wobble),
        ];
        if failed {
            for span in spans.iter_mut().take(3) {
                span.status = SpanStatus::Error;
            }
            fake.logs.push(record(start, "frontend", Severity::Error, &format!("POST /checkout failed for user u-{n}")));
            fake.logs.push(record(start, "frontend", Severity::Error, &format!("showing the error page {n}")));
            fake.logs.push(record(start, "checkout", Severity::Error, &format!("call to stock failed after {own} ms")));
        }
        if bad && n % 20 == 0 {
            fake.logs.push(record(start, "stock", Severity::Warn, &format!("connection {} was not returned", n % 20)));
        }
        let version = if trouble && back <= ONSET + 30 { "1.8.0" } else { "1.7.4" };
        let mut info = record(start, "stock", Severity::Info, &format!("reserved {n}"));
        info.attributes.insert("service.version".to_owned(), version.to_owned());
        fake.logs.push(info);
        fake.spans.extend(spans);
    }
    let samples = |pool: f64| {
        (1..=600u64).rev().map(move |n| Sample {
            at: NOW.minus(Duration::from_secs(15 * n)),
            value: if trouble && 15 * n <= ONSET { pool } else { 0.2 + (n % 5) as f64 / 100.0 },
        })
    };
    let series = |pod: &str, pool: f64| Series {
        labels: BTreeMap::from([("service".to_owned(), "stock".to_owned()), ("pod".to_owned(), pod.to_owned())]),
        samples: samples(pool).collect(),
    };
    let all = vec![series("stock-1", 0.25), series("stock-2", 1.0)];
    fake.metrics.insert("saturation".to_owned(), Metric { unit: "1".to_owned(), series: all });
    fake
}

#[tokio::test]
async fn the_cause_is_named_and_not_the_loudest() {
    let house = house(vec![shared(shop(true))]);
    let said = house.ask("get_service_health", json!({})).await;
    println!("{}\n{} tokens", said.text, tokens(&said.text));
    assert_eq!(said.data["suspects"][0]["service"], "stock", "{}", said.text);
    assert!(said.text.contains("LIKELY CAUSE: stock"), "{}", said.text);
    let chain = &said.data["suspects"][0]["chain"];
    assert_eq!(*chain, json!(["frontend", "checkout", "stock"]));
    let changes = said.data["suspects"][0]["changes"].to_string();
    assert!(changes.contains("version 1.8.0") && changes.contains("1.7.4"), "{changes}");
    let patterns = said.data["suspects"][0]["log_patterns"].to_string();
    assert!(patterns.contains("was not returned"), "{patterns}");
    let onset = said.data["onset"].as_str().unwrap();
    assert!(("2026-03-01T09:48:30Z"..="2026-03-01T09:52:00Z").contains(&onset), "{onset}");
    assert!(said.text.contains("healthy: search"), "{}", said.text);
    assert!(tokens(&said.text) < 900, "{} tokens", tokens(&said.text));
}

#[tokio::test]
async fn one_service_in_detail_with_its_cause() {
    let house = house(vec![shared(shop(true))]);
    let said = house.ask("get_service_health", json!({"service": "frontend"})).await;
    assert!(said.text.contains("frontend is CRITICAL"), "{}", said.text);
    assert_eq!(said.data["suspects"][0]["service"], "stock", "{}", said.text);
    let said = house.ask("get_service_health", json!({"service": "search"})).await;
    assert!(said.text.contains("search is HEALTHY"), "{}", said.text);
    assert!(said.data.get("suspects").is_none(), "nothing search depends on is in trouble: {}", said.text);
}

#[tokio::test]
async fn trouble_older_than_the_window_is_still_seen_with_its_onset() {
    let house = house(vec![shared(shop(true))]);
    let said = house.ask("get_service_health", json!({"window": "5m"})).await;
    assert_eq!(said.data["suspects"][0]["service"], "stock", "{}", said.text);
    let onset = said.data["onset"].as_str().unwrap();
    assert!(("2026-03-01T09:48:30Z"..="2026-03-01T09:52:00Z").contains(&onset), "{onset}\n{}", said.text);
}

#[tokio::test]
async fn a_quiet_shop_is_healthy_and_nobody_is_accused() {
    let house = house(vec![shared(shop(false))]);
    for arguments in [json!({}), json!({"window": "15m"}), json!({"window": "1h"})] {
        let said = house.ask("get_service_health", arguments).await;
        assert!(said.text.contains("0 in trouble, 4 healthy, 0 unknown"), "{}", said.text);
        assert!(said.data.get("suspects").is_none(), "{}", said.text);
    }
}

#[tokio::test]
async fn without_a_baseline_the_step_inside_the_window_is_found() {
    let mut fake = shop(true);
    // Data only begins 25 minutes ago: the baseline is empty.
    fake.spans.retain(|s| s.start >= ago(1_500));
    fake.logs.retain(|r| r.at >= ago(1_500));
    let house = house(vec![shared(fake)]);
    let said = house.ask("get_service_health", json!({})).await;
    assert_eq!(said.data["suspects"][0]["service"], "stock", "{}", said.text);
}

#[tokio::test]
async fn a_dead_source_leaves_its_signals_unknown_not_healthy() {
    let dead = Fake { mood: Mood::Failing(Fault::backend("connection refused", "")), ..Fake::new("traces", &[Signal::Traces]) };
    let mut logs = Fake::new("logs", &[Signal::Logs]);
    logs.logs = shop(false).logs;
    let house = house(vec![shared(dead), shared(logs)]);
    let said = house.ask("get_service_health", json!({"service": "stock"})).await;
    assert!(said.text.starts_with("INCOMPLETE: no answer from traces (traces, services: connection refused)"), "{}", said.text);
    assert!(said.text.contains("stock is UNKNOWN"), "{}", said.text);
    assert!(said.text.contains("not looked at: spans (traces: connection refused)"), "{}", said.text);
    let said = house.ask("get_service_health", json!({})).await;
    assert!(said.text.contains("0 healthy"), "{}", said.text);
}

#[tokio::test]
async fn without_spans_the_suspects_are_less_certain_and_it_says_why() {
    let logs_only = || {
        let mut logs = Fake::new("logs", &[Signal::Logs]);
        logs.logs = shop(true).logs;
        logs
    };
    let seen = house(vec![shared(shop(true))]).ask("get_service_health", json!({})).await;
    let failed = Fake { mood: Mood::Failing(Fault::backend("connection refused", "")), ..Fake::new("traces", &[Signal::Traces]) };
    let house_of = |sources| house(sources);
    let cases = [
        (house_of(vec![shared(failed), shared(logs_only())]), "spans could not be read (traces: connection refused)"),
        (house_of(vec![shared(logs_only())]), "no source has spans"),
    ];
    for (house, why) in cases {
        let said = house.ask("get_service_health", json!({})).await;
        let score = |data: &serde_json::Value| data["suspects"][0]["score"].as_f64().unwrap();
        assert!(score(&said.data) <= 0.5 && score(&said.data) < score(&seen.data), "{}", said.text);
        assert!(said.text.contains(&format!("less certain than usual: {why}")), "{}", said.text);
        assert!(said.text.contains("POSSIBLE CAUSE: ") && !said.text.contains("LIKELY CAUSE"), "{}", said.text);
        assert!(said.data["caveat"].as_str().unwrap().starts_with(why), "{:#}", said.data);
    }
    assert!(seen.data.get("caveat").is_none());
}

#[tokio::test]
async fn a_slow_network_is_seen_between_the_caller_and_a_service_that_is_fine_itself() {
    let mut fake = Fake::new("store", &[Signal::Logs, Signal::Traces]);
    for n in 0..4_800u64 {
        let start = ago(9_000 - n * 9_000 / 4_800);
        let lost = if start >= ago(600) && n % 2 == 0 { 900 } else { 2 + n % 3 };
        let to = if n % 2 == 0 { "stock" } else { "price" };
        let client = |mut span: Span| {
            span.kind = SpanKind::Client;
            span
        };
        fake.spans.extend([
            span(n, 1, 0, "frontend", "GET /item", start, 30 + lost),
            client(span(n, 2, 1, "frontend", "GET", start.plus(Duration::from_millis(5)), 20 + lost)),
            span(n, 3, 2, to, "GET /entry", start.plus(Duration::from_millis(5 + lost / 2)), 20),
        ]);
        fake.logs.push(record(start, to, Severity::Info, &format!("entry {n}")));
    }
    let said = house(vec![shared(fake)]).ask("get_service_health", json!({})).await;
    println!("{}", said.text);
    assert_eq!(said.data["suspects"][0]["service"], "stock", "{}", said.text);
    assert!(said.text.contains("beyond its own work"), "{}", said.text);
    assert!(!said.text.contains("CRITICAL stock") && !said.text.contains("DEGRADED stock"), "{}", said.text);
}

#[tokio::test]
async fn a_service_nobody_saw_is_not_called_healthy() {
    let house = house(vec![shared(shop(false))]);
    let said = house.ask("get_service_health", json!({"service": "nowhere"})).await;
    assert!(said.text.contains("No signal of nowhere") && !said.text.contains("HEALTHY"), "{}", said.text);
}

#[tokio::test]
async fn metrics_alone_can_judge_when_there_are_no_traces() {
    let mut prom = Fake::new("prom", &[Signal::Metrics]);
    let series = |value: &dyn Fn(u64) -> f64| Series {
        labels: BTreeMap::from([("job".to_owned(), "api".to_owned()), ("instance".to_owned(), "1".to_owned())]),
        samples: (1..=600u64)
            .rev()
            .map(|n| Sample { at: NOW.minus(Duration::from_secs(15 * n)), value: value(15 * n) })
            .collect(),
    };
    let metric = |value: &dyn Fn(u64) -> f64| Metric { unit: String::new(), series: vec![series(value)] };
    prom.metrics.insert("request_rate".to_owned(), metric(&|_| 20.0));
    prom.metrics.insert("error_rate".to_owned(), metric(&|back| if back <= 300 { 0.4 } else { 0.001 }));
    prom.metrics.insert("latency_p95".to_owned(), metric(&|back| 0.1 + (back % 60) as f64 / 5_000.0));
    let house = house(vec![shared(prom)]);
    let said = house.ask("get_service_health", json!({"window": "15m"})).await;
    assert!(said.text.contains("CRITICAL api"), "{}", said.text);
    assert!(said.text.contains("not looked at: spans (no source); error logs (no source)"), "{}", said.text);
}

//! Secrets that straddle the place where a tool cuts a text, in every place a backend can hold one: no half of one comes out,
//! not even one that a mark or an `@` behind the cut would have told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::plants::{Dice, plants};
use crate::server::{Home, Server, intact, post};
use crate::visitor::{Backend, Visitor, now_nanos};

/// Where tools cut.
const CUTS: [usize; 8] = [60, 80, 100, 120, 160, 200, 240, 300];
/// Characters of a secret that tell it.
const TELLING: usize = 8;
/// A trace with everything in it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A text with a secret in it, and the beginning of the secret.
struct Half {
    class: &'static str,
    text: String,
    start: String,
}

/// Every secret of one line behind so many words that a cut leaves three quarters of it, or ends right behind it.
fn straddling() -> Vec<Half> {
    let mut dice = Dice(0xc075);
    let mut halves = Vec::new();
    for (most, to_the_end) in CUTS.into_iter().flat_map(|most| [(most, false), (most, true)]) {
        for plant in plants(&mut dice).into_iter().filter(|plant| !plant.text.contains('\n')) {
            let Some(hidden) = plant.hidden.first().filter(|hidden| hidden.chars().count() >= TELLING) else { continue };
            let Some(at) = plant.text.find(hidden.as_str()) else { continue };
            let length = hidden.chars().count();
            let inside = plant.text[..at].chars().count() + if to_the_end { length } else { length * 3 / 4 };
            let Some(room) = most.checked_sub(inside + 1) else { continue };
            let words: String = "waited again ".chars().cycle().take(room).collect();
            let start = hidden.chars().take(TELLING).collect();
            halves.push(Half { class: plant.class, text: format!("{words} {}", plant.text), start });
        }
    }
    halves
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn resource() -> Value {
    json!({"attributes": [attribute("service.name", "checkout")]})
}

fn moment(number: usize) -> String {
    (now_nanos() - 1_000_000_000 * (10 + number as u128)).to_string()
}

fn logs(halves: &[Half]) -> Value {
    let record = |(number, half): (usize, &Half)| json!({"timeUnixNano": moment(number), "severityNumber": 17, "body": {"stringValue": half.text}, "attributes": [attribute("note", &half.text)]});
    let records: Vec<Value> = halves.iter().enumerate().map(record).collect();
    json!({"resourceLogs": [{"resource": resource(), "scopeLogs": [{"logRecords": records}]}]})
}

/// All of them in one trace, and each as the root of its own.
fn traces(halves: &[Half]) -> Value {
    let mut spans = vec![json!({"traceId": TRACE, "spanId": "00000000000000ff", "name": "GET /", "kind": 2,
        "startTimeUnixNano": moment(50), "endTimeUnixNano": moment(0)})];
    for (number, half) in halves.iter().enumerate() {
        let status = json!({"code": 2, "message": half.text});
        let span = |trace: String, parent: &str| {
            json!({"traceId": trace, "spanId": format!("{:016x}", 0x1000 + number), "parentSpanId": parent, "name": half.text, "kind": 2,
                "status": status, "startTimeUnixNano": moment(40), "endTimeUnixNano": moment(30)})
        };
        spans.push(span(TRACE.to_owned(), "00000000000000ff"));
        spans.push(span(format!("{:032x}", 0xabc_0000 + number), ""));
    }
    json!({"resourceSpans": [{"resource": resource(), "scopeSpans": [{"spans": spans}]}]})
}

fn metrics(halves: &[Half]) -> Value {
    let point = |half: &Half| json!({"timeUnixNano": moment(10), "startTimeUnixNano": moment(600), "asDouble": 4.5, "attributes": [attribute("note", &half.text)]});
    let points: Vec<Value> = halves.iter().map(point).collect();
    json!({"resourceMetrics": [{"resource": resource(), "scopeMetrics": [{"metrics": [{"name": "straddled", "gauge": {"dataPoints": points}}]}]}]})
}

/// A Prometheus that has them in its alerts, and in the error about a query.
fn prometheus(halves: &[Half]) -> Backend {
    let alert = |half: &Half| {
        json!({"labels": {"alertname": "High", "job": half.text, "note": half.text}, "annotations": {"summary": half.text},
            "state": "firing", "activeAt": "2026-01-01T00:00:00Z", "value": "1"})
    };
    let alerts: Vec<Value> = halves.iter().map(alert).collect();
    let error = halves.iter().rev().find(|half| half.class == "dsn").map(|half| half.text.clone()).unwrap();
    Backend::start(move |path, body| {
        if body.contains("boom") {
            let error = format!("{error} {}", "and so on ".repeat(60));
            return (400, json!({"status": "error", "errorType": "bad_data", "error": error}).to_string());
        }
        let data = match path.split('?').next().unwrap_or_default().trim_start_matches("/api/v1/") {
            "alerts" => json!({"alerts": alerts}),
            "rules" => json!({"groups": []}),
            "query" => json!({"resultType": "vector", "result": []}),
            "query_range" => json!({"resultType": "matrix", "result": []}),
            "metadata" => json!({}),
            "status/buildinfo" => json!({"version": "3.1.0"}),
            _ => json!([]),
        };
        (200, json!({"status": "success", "data": data}).to_string())
    })
}

/// What the binary answers, page after page.
fn asked(visitor: &Visitor, tool: &str, arguments: &Value) -> String {
    let (mut arguments, mut said) = (arguments.clone(), String::new());
    for _ in 0..20 {
        let reply = visitor.call(tool, &arguments);
        assert!(reply.json()["result"].is_object(), "{tool} {arguments}: {}", reply.body);
        said.push_str(&reply.body);
        let next = reply.json().pointer("/result/structuredContent/next").and_then(Value::as_str).map(str::to_owned);
        let Some(next) = next else { break };
        arguments["cursor"] = json!(next);
    }
    said
}

#[test]
fn no_half_of_a_secret_comes_out_where_a_tool_cuts() {
    let halves = straddling();
    let backend = prometheus(&halves);
    let home = Home::new(&format!(
        "limits: {{address: {{per_second: 100000, burst: 100000}}, tool: {{per_second: 100000, burst: 100000}}, calls_per_second: 100000, burst: 100000, tokens_per_day: 0, answer: 4MiB}}\n\
         sources:\n- {{name: prom, kind: prometheus, url: '{}', allow_addresses: [loopback]}}\n",
        backend.url
    ));
    let server = Server::start_in(home);
    let visitor = crate::upstreams::visitor(&server, &[]);
    for (path, body) in [("/v1/logs", logs(&halves)), ("/v1/traces", traces(&halves)), ("/v1/metrics", metrics(&halves))] {
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let reply = post(server.otlp, path, &headers, body.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
    // Whole, each of them is known: what is shown uncut has no beginning of any.
    let whole = asked(&visitor, "sql", &json!({"query": "SELECT Body FROM otel_logs", "limit": 1000}));
    let known: Vec<&Half> = halves.iter().filter(|half| !whole.contains(&half.start)).collect();
    let missed: BTreeSet<&str> = halves.iter().filter(|half| whole.contains(&half.start)).map(|half| half.class).collect();
    println!("{} halves, {} of them known whole; not known: {missed:?}", halves.len(), known.len());
    assert!(known.len() > 150 && known.len() * 10 > halves.len() * 9, "{} of {}", known.len(), halves.len());
    for (tool, arguments, is_cut) in [
        ("query_logs", json!({"window": "1h", "limit": 200, "attributes": true}), true),
        ("query_logs", json!({"window": "1h", "limit": 10}), false),
        ("query_logs", json!({"window": "1h", "limit": 200, "count_by": ["note"]}), true),
        ("query_logs", json!({"window": "1h", "limit": 200, "count_by": ["service", "note"], "step": "10m"}), true),
        ("log_patterns", json!({"window": "1h", "limit": 100}), true),
        ("query_traces", json!({"window": "1h", "limit": 100}), true),
        ("get_trace", json!({"trace_id": TRACE, "limit": 400}), true),
        ("query_metrics", json!({"metric": "straddled", "window": "1h", "limit": 100}), true),
        ("find_metrics", json!({"values_of": "note", "limit": 200}), true),
        ("list_alerts", json!({"limit": 200}), true),
        ("get_service_health", json!({"service": "checkout", "window": "1h"}), false),
    ] {
        let said = asked(&visitor, tool, &arguments);
        assert!(said.contains("chars)") || !is_cut, "{tool} {arguments} cut nothing: {said}");
        let leaks: BTreeSet<String> = known
            .iter()
            .filter_map(|half| {
                let at = said.find(&half.start)?;
                let around: String = said[..at].chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
                Some(format!("{}: …{around}»{}«", half.class, half.start))
            })
            .collect();
        assert!(leaks.is_empty(), "{tool} {arguments}: {leaks:#?}");
        server.home.audited(|r| r["tool"] == tool && r["decision"] == "allow");
    }
    let refused = visitor.call("query_metrics", &json!({"query": "boom", "source": "prom"}));
    assert!(!known.iter().any(|half| refused.body.contains(&half.start)), "{}", refused.body);
    assert!(intact(&server.home));
}

//! A thousand interleaved calls by people of two tenants, and by two of one tenant who may see different services, over
//! many connections and in both eras: nobody gets a word, a cursor, a session or a completion of somebody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::server::{Home, Server, intact, post};
use crate::visitor::{Backend, Session, Visitor, now_nanos};

const CALLS: usize = 1_000;
const THREADS: usize = 16;
/// The same trace everywhere, so that only the scope tells the spans apart.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const MARKS: [&str; 5] = ["acme~cart", "acme~payment", "acme~prom", "beta~cart", "beta~payment"];

/// Somebody, and whose words they may read.
struct Person {
    visitor: Visitor,
    session: Session,
    may: Vec<&'static str>,
    services: Vec<&'static str>,
}

impl Person {
    /// Fails when a word of somebody else is in what they were told.
    fn check(&self, asked: &str, said: &str) {
        for mark in MARKS {
            assert!(self.may.contains(&mark) || !said.contains(mark), "{asked}: {:?} reads {mark}: {said}", self.may);
        }
    }
}

fn send(server: &Server, key: &str, tenant: &str, service: &str) {
    let mark = |what: &str| format!("{tenant}~{service}~{what}");
    let now = now_nanos();
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]});
    let text = |value: String| json!({"stringValue": value});
    let records: Vec<Value> = (0..12)
        .map(|n| {
            json!({"timeUnixNano": (now - n * 1_000_000).to_string(), "severityNumber": 17, "traceId": TRACE,
            "body": text(mark(&format!("line {n}"))), "attributes": [{"key": "note", "value": text(mark("note"))}]})
        })
        .collect();
    let span = json!({"traceId": TRACE, "spanId": format!("{:016x}", now as u64), "name": mark("span"), "kind": 2,
        "startTimeUnixNano": (now - 5_000_000_000).to_string(), "endTimeUnixNano": (now - 4_000_000_000).to_string(), "status": {"code": 2}});
    let point = json!({"timeUnixNano": (now - 1_000_000_000).to_string(), "asDouble": 3.0, "attributes": [{"key": "note", "value": text(mark("label"))}]});
    let metrics = json!([{"name": "level", "description": mark("about"), "gauge": {"dataPoints": [point]}}]);
    let bodies = [
        ("/v1/logs", json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]})),
        ("/v1/traces", json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]})),
        ("/v1/metrics", json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]})),
    ];
    for (path, body) in bodies {
        let headers =
            [("Content-Type".to_owned(), "application/json".to_owned()), ("Authorization".to_owned(), format!("Bearer {key}"))];
        let reply = post(server.otlp, path, &headers, body.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
}

/// A Prometheus of one tenant: whatever is asked, it tells its mark.
fn prometheus() -> Backend {
    Backend::start(|path, _| {
        let series = json!({"__name__": "up", "job": "cart", "note": "acme~prom"});
        let data = match path.split('?').next().unwrap_or_default().trim_start_matches("/api/v1/") {
            "status/buildinfo" => json!({"version": "3.0.0"}),
            "metadata" => json!({"up": [{"type": "gauge", "help": "acme~prom", "unit": ""}]}),
            "alerts" => {
                json!({"alerts": [{"labels": {"alertname": "acme~prom", "job": "cart"}, "state": "firing", "activeAt": "2026-01-01T00:00:00Z"}]})
            }
            "targets" => json!({"activeTargets": []}),
            "rules" => json!({"groups": []}),
            "series" => json!([series]),
            "query" => json!({"resultType": "vector", "result": []}),
            "query_range" => json!({"resultType": "matrix", "result": []}),
            "labels" => json!(["__name__", "job", "note"]),
            "label/note/values" => json!(["acme~prom"]),
            _ => json!(["cart"]),
        };
        (200, json!({"status": "success", "data": data}).to_string())
    })
}

/// What is asked, in turn: method and parameters.
fn questions() -> Vec<(&'static str, Value)> {
    let tool = |name: &str, arguments: Value| ("tools/call", json!({"name": name, "arguments": arguments}));
    vec![
        tool("query_logs", json!({"window": "1h", "limit": 20, "attributes": true})),
        tool("query_logs", json!({"window": "1h", "service": "cart"})),
        tool("query_logs", json!({"window": "1h", "service": "payment"})),
        tool("query_logs", json!({"window": "1h", "count_by": ["service", "note"]})),
        tool("query_logs", json!({"window": "1h", "regex": ".*~.*"})),
        tool("log_patterns", json!({"window": "1h"})),
        tool("list_services", json!({"window": "1h"})),
        tool("list_sources", json!({})),
        tool("list_alerts", json!({})),
        tool("query_traces", json!({"window": "1h"})),
        tool("get_trace", json!({"trace_id": TRACE})),
        tool("find_metrics", json!({"values_of": "note"})),
        tool("find_metrics", json!({})),
        tool("query_metrics", json!({"metric": "level", "group_by": ["note"]})),
        tool("get_service_health", json!({})),
        tool("get_service_health", json!({"service": "cart"})),
        tool("sql", json!({"query": "SELECT ServiceName, Body FROM otel_logs", "limit": 1000})),
        tool(
            "sql",
            json!({"query": "SELECT DISTINCT ServiceName FROM otel_traces UNION SELECT Attributes['note'] FROM otel_metrics_gauge"}),
        ),
        ("resources/read", json!({"uri": "portcullis://service/cart"})),
        ("resources/read", json!({"uri": "portcullis://service/payment"})),
        ("resources/read", json!({"uri": "portcullis://sources"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "write_postmortem"}, "argument": {"name": "service", "value": ""}}),
        ),
        ("prompts/get", json!({"name": "write_postmortem", "arguments": {"service": "cart"}})),
    ]
}

fn bench() -> (Server, Vec<Person>) {
    let prometheus = prometheus();
    let home = Home::new(&format!(
        "limits: {{address: {{per_second: 100000, burst: 100000}}, tool: {{per_second: 100000, burst: 100000}}, calls_per_second: 100000, burst: 100000, concurrent_per_principal: 64, queue: 1000, queue_time: 20s, deadline: 60s, tokens_per_day: 0}}\n\
         sources: [{{name: prom-of-acme, kind: prometheus, url: '{}', allow_addresses: [loopback], tenant: acme}}]\n",
        prometheus.url
    ));
    let acme = home.key(&["--scope", "ingest", "--tenant", "acme"]);
    let beta = home.key(&["--scope", "ingest", "--tenant", "beta"]);
    let people = [
        (home.key(&["--tenant", "acme", "--service", "cart"]), vec!["acme~cart", "acme~prom"], vec!["cart"]),
        (home.key(&["--tenant", "acme", "--service", "payment"]), vec!["acme~payment", "acme~prom"], vec!["payment"]),
        (home.key(&["--tenant", "beta"]), vec!["beta~cart", "beta~payment"], vec!["cart", "payment"]),
    ];
    let server = Server::start_in(home);
    for service in ["cart", "payment"] {
        send(&server, &acme, "acme", service);
        send(&server, &beta, "beta", service);
    }
    let people = people
        .into_iter()
        .map(|(key, may, services)| {
            let visitor = Visitor::new(&server, &key);
            Person { session: visitor.session(&json!({})), visitor, may, services }
        })
        .collect();
    (server, people)
}

#[test]
fn a_thousand_interleaved_calls_never_cross() {
    let (server, people) = bench();
    let people = Arc::new(people);
    let (next, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (people, next, told) = (people.clone(), next.clone(), told.clone());
            std::thread::spawn(move || {
                let questions = questions();
                loop {
                    let turn = next.fetch_add(1, Ordering::SeqCst);
                    if turn >= CALLS {
                        return;
                    }
                    let person = &people[turn % people.len()];
                    let (method, params) = &questions[(turn / people.len()) % questions.len()];
                    let reply =
                        if turn % 2 == 0 { person.visitor.ask(method, params) } else { person.session.ask(method, params) };
                    assert_eq!(reply.status, 200, "{method} {params}: {}", reply.body);
                    person.check(&format!("{method} {params}"), &reply.body);
                    if person.may.iter().any(|mark| reply.body.contains(mark)) {
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let told = told.load(Ordering::SeqCst);
    println!("{CALLS} calls, {told} answers with words of their own");
    assert!(told > CALLS / 4, "nobody was told anything: {told}");
    let records = server.home.run_ok(&["audit", "query", "--kind", "call", "--limit", "100000", "--json"]);
    let of: Vec<Value> = records.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for person in people.iter() {
        let id = format!("key:{}", person.visitor.key.split('_').nth(1).unwrap());
        let own = of.iter().filter(|r| r["principal"] == id.as_str()).count();
        assert!(own >= CALLS / 5, "{id}: {own} records");
    }
    assert!(intact(&server.home));
}

#[test]
fn cursors_sessions_and_completions_are_good_for_their_owner_only() {
    let (server, people) = bench();
    let params = |cursor: &Value| json!({"name": "query_logs", "arguments": {"window": "1h", "limit": 5, "cursor": cursor}});
    for owner in &people {
        let first = owner.visitor.call("query_logs", &json!({"window": "1h", "limit": 5})).json();
        let cursor = first["result"]["structuredContent"]["next"].clone();
        assert!(cursor.is_string(), "{first}");
        for other in &people {
            let reply = other.visitor.ask("tools/call", &params(&cursor)).body;
            other.check("a cursor", &reply);
            if !std::ptr::eq(owner, other) {
                let stolen = Session { visitor: other.visitor.clone(), id: owner.session.id.clone() };
                let reply = stolen.ask("tools/list", &json!({}));
                assert_eq!(reply.status, 404, "{}", reply.body);
            }
        }
        let own = owner.visitor.ask("tools/call", &params(&cursor)).body;
        assert!(owner.may.iter().any(|mark| own.contains(mark)), "a cursor is good for its owner: {own}");
        let completion =
            json!({"ref": {"type": "ref/prompt", "name": "write_postmortem"}, "argument": {"name": "service", "value": ""}});
        let values = owner.visitor.ask("completion/complete", &completion).json();
        let values: Vec<&str> =
            values["result"]["completion"]["values"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(values, owner.services, "completions stay in the scope");
        let sources = owner.visitor.call("list_sources", &json!({})).body;
        assert_eq!(sources.contains("prom-of-acme"), owner.may.contains(&"acme~prom"), "{sources}");
    }
    let stolen = server.home.audit().iter().filter(|r| r["rule"] == "foreign-session").count();
    assert_eq!(stolen, people.len() * (people.len() - 1));
}

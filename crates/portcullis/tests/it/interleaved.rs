//! A thousand interleaved calls by people of two tenants, and by two of one tenant who may see different services, over
//! many connections and in both eras: nobody gets a word, a cursor, a session or a completion of somebody else, and no
//! backend sees a credential that is not for it or not of who asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::promql::{parameters, selectors, takes};
use crate::server::{Home, Server, intact, post};
use crate::upstreams::{accept_all, sees, stands, tool};
use crate::visitor::{Backend, Session, Visitor, now_nanos};

const CALLS: usize = 1_000;
const THREADS: usize = 16;
/// The same trace everywhere, so that only the scope tells the spans apart.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const MARKS: [&str; 4] = ["acme~cart", "acme~payment", "beta~cart", "beta~payment"];
const SERVICES: [&str; 2] = ["cart", "payment"];
const TENANTS: [&str; 2] = ["acme", "beta"];

/// Somebody, and whose words they may read.
struct Person {
    tenant: &'static str,
    /// Whether they have a credential of their own for the upstream.
    upstream: bool,
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

/// A Prometheus of one tenant that reads what it is asked, as a real one does: it tells of a service what was asked about it.
/// Alerts, targets and rules it tells whole, for its API cannot be asked for a part of them.
fn prometheus(tenant: &'static str) -> Backend {
    Backend::start(move |path, body| {
        let request = format!("GET {path} HTTP/1.1\r\n\r\n{body}");
        let wanted: Vec<_> =
            ["query", "match[]"].iter().flat_map(|name| parameters(&request, name)).flat_map(|q| selectors(&q)).collect();
        let number = |name: &str| parameters(&request, name).first().and_then(|text| text.parse::<f64>().ok());
        let asked = |service: &&&str| {
            let (service, note): (&str, String) = (service, format!("{tenant}~{service}"));
            // Without a selector a Prometheus tells of everything.
            wanted.is_empty() || wanted.iter().any(|selector| takes(selector, &[("job", service), ("note", &note)]))
        };
        let mark = |service: &str| format!("{tenant}~{service}");
        let series = |service: &str| json!({"__name__": "up", "job": service, "note": mark(service)});
        let found: Vec<&str> = SERVICES.iter().filter(asked).copied().collect();
        let (start, end) = (number("start").unwrap_or(0.0), number("end").or(number("time")).unwrap_or(0.0));
        let step = number("step").unwrap_or(60.0).max(1.0);
        let times = || (0..100).map(move |n| start + f64::from(n) * step).take_while(move |at| *at <= end);
        let values = || times().map(|at| json!([at, "3"])).collect::<Vec<_>>();
        let data = match path.split('?').next().unwrap_or_default().trim_start_matches("/api/v1/") {
            "status/buildinfo" => json!({"version": "3.0.0"}),
            "metadata" => json!({"up": [{"type": "gauge", "help": "whether it is up", "unit": ""}]}),
            "alerts" => {
                json!({"alerts": SERVICES.map(|s| json!({"labels": {"alertname": mark(s), "job": s}, "annotations": {"summary": mark(s)},
                "state": "firing", "activeAt": "2026-01-01T00:00:00Z", "value": "1"}))})
            }
            "targets" => {
                json!({"activeTargets": SERVICES.map(|s| json!({"labels": {"job": s, "instance": mark(s)}, "scrapeInterval": "15s",
                "lastError": mark(s), "health": "down"}))})
            }
            "rules" => {
                json!({"groups": [{"name": "g", "file": "f", "rules": SERVICES.map(|s| json!({"type": "alerting", "name": mark(s),
                "query": format!("up{{job=\"{s}\"}} == 0"), "labels": {"job": s}, "annotations": {"summary": mark(s)}}))}]})
            }
            "series" => json!(found.iter().map(|s| series(s)).collect::<Vec<_>>()),
            "query" => {
                json!({"resultType": "vector", "result": found.iter().map(|s| json!({"metric": series(s), "value": [end, "3"]})).collect::<Vec<_>>()})
            }
            "query_range" => {
                json!({"resultType": "matrix", "result": found.iter().map(|s| json!({"metric": series(s), "values": values()})).collect::<Vec<_>>()})
            }
            "labels" => json!(["__name__", "job", "note"]),
            "label/__name__/values" => json!(["up"]),
            "label/job/values" => json!(found),
            "label/note/values" => json!(found.iter().map(|s| mark(s)).collect::<Vec<_>>()),
            _ => json!([]),
        };
        (200, json!({"status": "success", "data": data}).to_string())
    })
}

/// An MCP server that says what it is told.
fn upstream() -> Backend {
    Backend::start(|_, body| {
        let Ok(request) = serde_json::from_str::<Value>(body) else { return (405, String::new()) };
        let mut result = match request["method"].as_str().unwrap_or_default() {
            "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
            "tools/list" => json!({"tools": [tool("look", "Looks.")]}),
            _ => json!({"content": [{"type": "text", "text": request["params"]["arguments"]["q"]}]}),
        };
        result["resultType"] = json!("complete");
        (200, json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
    })
}

/// What is asked, in turn: method and parameters.
fn questions(person: &Person) -> Vec<(&'static str, Value)> {
    let source = format!("prom-of-{}", person.tenant);
    let tool = |name: &str, arguments: Value| ("tools/call", json!({"name": name, "arguments": arguments}));
    let mut all = vec![
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
        tool("query_metrics", json!({"metric": "up", "group_by": ["note"]})),
        tool("query_metrics", json!({"query": "up", "source": source})),
        tool("query_metrics", json!({"query": "sum by (note) (up{job=~\"cart|payment\"})", "source": source})),
        tool("query_metrics", json!({"query": "count by (note) ({__name__=~\".+\"}) or up{job=\"payment\"}", "source": source})),
        tool("find_metrics", json!({"values_of": "note", "source": source})),
        tool("list_alerts", json!({"service": "payment"})),
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
    ];
    if person.upstream {
        all.push(tool("look", json!({"q": person.may[0]})));
    }
    all
}

/// The credential a backend is asked with.
fn credential(request: &str) -> Option<String> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).map(|(_, value)| value.to_owned()).next()
}

/// The house with its people, and the backends: a Prometheus of each tenant, and an upstream of one of them.
struct Bench {
    server: Server,
    people: Vec<Person>,
    prometheus: [Backend; 2],
    upstream: Backend,
}

fn bench() -> Bench {
    let (prometheus, upstream) = (TENANTS.map(prometheus), upstream());
    let source = |at: usize| {
        let (tenant, url) = (TENANTS[at], &prometheus[at].url);
        format!(
            "- {{name: prom-of-{tenant}, kind: prometheus, url: '{url}', allow_addresses: [loopback], tenant: {tenant}, \
             auth: {{bearer: source-credential-of-{tenant}}}}}\n"
        )
    };
    let home = Home::new(&format!(
        "limits: {{address: {{per_second: 100000, burst: 100000}}, tool: {{per_second: 100000, burst: 100000}}, calls_per_second: 100000, burst: 100000, concurrent_per_principal: 64, queue: 1000, queue_time: 20s, deadline: 60s, tokens_per_day: 0}}\n\
         tools: {{expose: all}}\nsources:\n{}{}",
        source(0),
        source(1)
    ));
    let ingest = TENANTS.map(|tenant| home.key(&["--scope", "ingest", "--tenant", tenant]));
    let people = [
        ("acme", home.key(&["--tenant", "acme", "--service", "cart"]), vec!["acme~cart"], vec!["cart"]),
        ("acme", home.key(&["--tenant", "acme", "--service", "payment"]), vec!["acme~payment"], vec!["payment"]),
        ("beta", home.key(&["--tenant", "beta"]), vec!["beta~cart", "beta~payment"], vec!["cart", "payment"]),
    ];
    let own = |at: usize| {
        let (_, key, may, _) = &people[at];
        format!("'key:{}': {{bearer: upstream-credential-of-{}}}", key.split('_').nth(1).unwrap(), may[0].replace('~', "-"))
    };
    let more = format!(
        "upstreams:\n- {{name: up, tenant: acme, confined_callers: allow, refresh: 1s, limits: {{concurrent: 64, per_second: 10000, burst: 10000}}, \
         http: {{url: '{}/mcp', allow_addresses: [loopback], auth: {{bearer: upstream-credential-of-nobody}}, own_credential_only: true, \
         auth_of: {{{}, {}}}}}}}\n",
        upstream.url,
        own(0),
        own(1)
    );
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, text + &more).unwrap();
    let server = Server::start_in(home);
    for service in SERVICES {
        for (tenant, key) in TENANTS.iter().zip(&ingest) {
            send(&server, key, tenant, service);
        }
    }
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    let people: Vec<Person> = people
        .into_iter()
        .map(|(tenant, key, may, services)| {
            let visitor = Visitor::new(&server, &key);
            Person { tenant, upstream: tenant == "acme", session: visitor.session(&json!({})), visitor, may, services }
        })
        .collect();
    sees(&people[0].visitor, "look", true);
    Bench { server, people, prometheus, upstream }
}

#[test]
fn a_thousand_interleaved_calls_never_cross() {
    let Bench { server, people, prometheus, upstream } = bench();
    let people = Arc::new(people);
    let (next, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (people, next, told) = (people.clone(), next.clone(), told.clone());
            std::thread::spawn(move || {
                let questions: Vec<_> = people.iter().map(questions).collect();
                loop {
                    let turn = next.fetch_add(1, Ordering::SeqCst);
                    if turn >= CALLS {
                        return;
                    }
                    let person = &people[turn % people.len()];
                    let questions = &questions[turn % people.len()];
                    let (method, params) = &questions[(turn / people.len()) % questions.len()];
                    let reply =
                        if turn % 2 == 0 { person.visitor.ask(method, params) } else { person.session.ask(method, params) };
                    assert_eq!(reply.status, 200, "{method} {params}: {}", reply.body);
                    person.check(&format!("{method} {params}"), &reply.body);
                    assert!(!reply.body.contains("-credential-of-"), "{method} {params}: {}", reply.body);
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
    // Each backend saw its own credential and no other; each caller's own where callers have one.
    for (tenant, backend) in TENANTS.iter().zip(&prometheus) {
        let seen = backend.seen();
        let own = format!("Bearer source-credential-of-{tenant}");
        let asked = seen.iter().filter(|request| request.contains("query_range")).count();
        assert!(asked > CALLS / 30, "the Prometheus of {tenant} was asked {asked} times, so little was shown");
        let other = seen.iter().find(|request| credential(request).as_ref() != Some(&own));
        assert!(other.is_none(), "{tenant}: {other:?}");
    }
    let calls: Vec<String> = upstream.seen().into_iter().filter(|request| request.contains("\"tools/call\"")).collect();
    assert!(calls.len() > CALLS / 100, "the upstream was called {} times", calls.len());
    for call in &calls {
        let of = MARKS.iter().find(|mark| call.contains(**mark)).unwrap();
        assert_eq!(credential(call).unwrap(), format!("Bearer upstream-credential-of-{}", of.replace('~', "-")), "{call}");
    }
    let secrets = ["source-credential", "upstream-credential"];
    let written = format!("{} {}", server.log(), server.home.run_ok(&["audit", "query", "--limit", "100000", "--json"]));
    assert!(secrets.iter().all(|secret| !written.contains(secret)), "a credential was written down");
}

#[test]
fn cursors_sessions_and_completions_are_good_for_their_owner_only() {
    let Bench { server, people, .. } = bench();
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
        for tenant in TENANTS {
            assert_eq!(sources.contains(&format!("prom-of-{tenant}")), owner.tenant == tenant, "{sources}");
        }
    }
    let stolen = server.home.audit().iter().filter(|r| r["rule"] == "foreign-session").count();
    assert_eq!(stolen, people.len() * (people.len() - 1));
}

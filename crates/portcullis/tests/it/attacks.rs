//! Somebody with a reader's key, ten minutes and the source code: what is tried is refused, and remembered.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::promql::{Labels, parameters, selectors, takes};
use crate::server::{Home, Reply, Server, intact, modern, modern_headers, post, read_reply};
use crate::visitor::{Backend, Session, Visitor, meta, modern_request};

/// What nobody of the attacker's tenant and scope may read.
const FOREIGN: &str = "belongs-to-somebody-else";

/// The one service a confined caller sees. Its name stands in no query of the attacker.
const ONE_SERVICE: &str = "kiosk";

/// Series of other services, or of none.
const FOREIGN_SERIES: [&Labels; 6] = [
    &[("job", "payment")],
    &[("job", "cart"), ("instance", "kiosk")],
    &[("service_name", "payment"), ("job", "kiosk")],
    &[("service", "payment"), ("app", "kiosk")],
    &[("app", "cart")],
    &[],
];

/// The house under attack: an embedded store with a neighbour's records, and a Prometheus.
struct Target {
    server: Server,
    backend: Backend,
    attacker: Visitor,
    confined: String,
    neighbour: Visitor,
    tries: usize,
}

impl Target {
    fn new() -> Self {
        let backend = Backend::start(|path, _| {
            let data = match path.split('?').next().unwrap_or_default().trim_start_matches("/api/v1/") {
                "status/buildinfo" => json!({"version": "3.0.0"}),
                "metadata" => json!({}),
                "query" => json!({"resultType": "vector", "result": []}),
                "query_range" => json!({"resultType": "matrix", "result": []}),
                "alerts" => json!({"alerts": []}),
                "targets" => json!({"activeTargets": []}),
                "rules" => json!({"groups": []}),
                other if other.starts_with("label/") => json!(["cart"]),
                "series" => json!([{"__name__": "up", "job": "cart"}]),
                _ => json!(["up"]),
            };
            (200, json!({"status": "success", "data": data}).to_string())
        });
        let home = Home::new(&format!(
            "limits: {{tool: {{per_second: 1000, burst: 5000}}, calls_per_second: 1000, burst: 5000}}\n\
             products: [{{name: closed, tools: ['*'], roles: [admin]}}]\n\
             sources: [{{name: prom, kind: prometheus, url: '{}', allow_addresses: [loopback], auth: {{bearer: 'backend-credential'}}}}]\n",
            backend.url
        ));
        let attacker = home.key(&["--role", "reader", "--service", "cart"]);
        let confined = home.key(&["--role", "reader", "--service", ONE_SERVICE]);
        let neighbour = home.key(&["--role", "reader", "--tenant", "beta"]);
        let senders = [home.key(&["--scope", "ingest"]), home.key(&["--scope", "ingest", "--tenant", "beta"])];
        let server = Server::start_in(home);
        for (key, service, body) in
            [(&senders[0], "cart", "an own line"), (&senders[0], "payment", FOREIGN), (&senders[1], "cart", FOREIGN)]
        {
            let reply = otlp(&server, key, service, body);
            assert_eq!(reply.status, 200, "{}", reply.body);
        }
        let (attacker, neighbour) = (Visitor::new(&server, &attacker), Visitor::new(&server, &neighbour));
        Self { server, backend, attacker, confined, neighbour, tries: 0 }
    }

    /// The newest record that refuses by this rule.
    fn refused(&self, rule: &str) -> Value {
        self.server.home.audited(|r| r["rule"] == rule && r["decision"] == "deny")
    }

    fn harmless(&mut self, what: &str, reply: &Reply) {
        self.tries += 1;
        assert!(!reply.body.contains(FOREIGN), "{what}: {}", reply.body);
        assert!(!reply.body.contains("backend-credential"), "{what}: {}", reply.body);
    }

    /// A call that must end with an error of this code.
    fn call_fails(&mut self, tool: &str, arguments: &Value, codes: &[&str]) {
        let reply = self.attacker.call(tool, arguments);
        self.harmless(&format!("{tool} {arguments}"), &reply);
        let body = reply.json();
        let code = body.pointer("/result/_meta/portcullis~1code").or_else(|| body.pointer("/error/data/code"));
        let code = code.and_then(Value::as_str).unwrap_or_default().to_owned();
        assert!(codes.contains(&code.as_str()), "{tool} {arguments}: '{code}' {body}");
    }

    /// Nothing got through, and it is all in the log.
    fn end(self) {
        let home = &self.server.home;
        let text = home.run_ok(&["audit", "query", "--limit", "100000", "--json"]);
        assert!(!text.contains(FOREIGN) && !text.contains(self.attacker.key.split('_').nth(2).unwrap()));
        let attacker = format!("key:{}", self.attacker.key.split('_').nth(1).unwrap());
        let records: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let own = records.iter().filter(|r| r["principal"] == attacker.as_str()).count();
        println!("{} attempts, {} records, {own} of the attacker", self.tries, records.len());
        assert!(own > 0, "no record names the attacker");
        assert!(intact(home));
        for request in self.backend.seen() {
            let path = request.split(' ').nth(1).unwrap_or_default();
            assert!(
                path.starts_with("/api/v1/") && !path.split('/').any(|part| part == ".."),
                "the backend was asked for {path}"
            );
            assert!(!request.contains(&self.attacker.key), "the caller's key travelled on");
        }
    }
}

fn otlp(server: &Server, key: &str, service: &str, body: &str) -> Reply {
    let request = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}, {"key": "tenant", "value": {"stringValue": "beta"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": crate::visitor::now_nanos().to_string(), "severityNumber": 17, "body": {"stringValue": body}}]}]}]});
    let headers = [
        ("Content-Type".to_owned(), "application/json".to_owned()),
        ("Authorization".to_owned(), format!("Bearer {key}")),
        ("X-Scope-OrgID".to_owned(), "beta".to_owned()),
    ];
    post(server.otlp, "/v1/logs", &headers, request.to_string().as_bytes())
}

/// Sends bytes as they are.
fn raw(server: &Server, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(server.mcp).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may hang up before it has read everything.
    let _ = stream.write_all(bytes);
    read_reply(stream)
}

#[test]
fn what_does_not_exist_for_a_reader_cannot_be_called() {
    let mut target = Target::new();
    for tool in ["restart_service", "kubernetes_delete", "SQL", "sql ", "sql\u{200b}", "../sql", "tools/call", "query_logs\u{0}"]
    {
        target.call_fails(tool, &json!({}), &["not_found", "invalid_argument"]);
    }
    target.refused("catalogue");
    for (uri, rule) in [
        ("file:///etc/passwd", "catalogue"),
        ("portcullis://service/../../state.sqlite", "address-form"),
        ("portcullis://audit", "catalogue"),
        ("http://169.254.169.254/latest/meta-data", "catalogue"),
    ] {
        let reply = target.attacker.ask("resources/read", &json!({"uri": uri}));
        target.harmless(uri, &reply);
        assert!(reply.json()["error"].is_object(), "{uri}: {}", reply.body);
        target.refused(rule);
    }
    let reply = target.attacker.ask("prompts/get", &json!({"name": "system", "arguments": {}}));
    assert!(reply.json()["error"].is_object(), "{}", reply.body);
    for path in ["/mcp/closed", "/mcp/nothing", "/mcp/..%2fadmin", "/admin", "/metrics", "/debug/pprof", "/mcp/closed/"] {
        let reply = target.attacker.at(path).ask("tools/list", &json!({}));
        target.harmless(path, &reply);
        assert!(matches!(reply.status, 400 | 404 | 405), "{path}: {} {}", reply.status, reply.body);
    }
    target.refused("unknown-product");
    let metadata = raw(
        &target.server,
        format!("GET /.well-known/oauth-protected-resource HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.server.mcp)
            .as_bytes(),
    );
    assert_eq!(metadata.status, 404, "no issuer, no metadata");
    target.end();
}

#[test]
fn arguments_and_meta_cannot_widen_what_a_reader_sees() {
    let mut target = Target::new();
    for arguments in [
        json!({"tenant": "beta"}),
        json!({"window": "1h", "scope": {"tenant": "beta"}}),
        json!({"window": "1h", "$where": "1=1"}),
        json!({"window": "1h", "limit": 1_000_000}),
        json!({"window": "1h", "limit": -1}),
        json!({"window": ["1h"]}),
        json!({"window": "1h", "__proto__": {"tenant": "beta"}}),
    ] {
        target.call_fails("query_logs", &arguments, &["invalid_argument"]);
    }
    target.refused("argument-schema");
    let widest = [
        json!({"window": "7d"}),
        json!({"window": "1h", "service": "payment"}),
        json!({"window": "1h", "service": "*"}),
        json!({"window": "1h", "service": "cart|payment"}),
        json!({"window": "1h", "labels": {"service.name": "payment"}}),
        json!({"window": "1h", "labels": {"service.name": "=~.*"}}),
        json!({"window": "1h", "regex": ".*"}),
        json!({"start": "1970-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z"}),
    ];
    for arguments in widest {
        let reply = target.attacker.call("query_logs", &arguments);
        target.harmless(&arguments.to_string(), &reply);
    }
    let wish = target.attacker.ask(
        "tools/call",
        &json!({"name": "query_logs", "arguments": {"window": "1h"}, "_meta": {"portcullis/unredacted": true}}),
    );
    target.harmless("the wish for an unredacted answer", &wish);
    assert!(wish.json().to_string().contains("forbidden"), "{}", wish.body);
    target.refused("unredacted");
    for extra in [
        json!({"tenant": "beta", "portcullis/tenant": "beta", "portcullis/role": "admin"}),
        json!({"portcullis/principal": "key:admin", "scope": "*", "portcullis/approved": true}),
        json!({"progressToken": {"a": 1}}),
        json!({"io.modelcontextprotocol/protocolVersion": "1999-01-01"}),
        json!({"io.modelcontextprotocol/clientCapabilities": "all"}),
    ] {
        let reply =
            target.attacker.ask("tools/call", &json!({"name": "query_logs", "arguments": {"window": "1h"}, "_meta": extra}));
        target.harmless(&extra.to_string(), &reply);
    }
    for (name, value) in [
        ("X-Scope-OrgID", "beta"),
        ("X-Tenant", "beta"),
        ("X-Forwarded-User", "admin"),
        ("X-Original-URL", "/mcp/closed"),
        ("X-Grafana-URL", "http://127.0.0.1:1"),
        ("Cookie", "role=admin"),
        ("X-HTTP-Method-Override", "DELETE"),
    ] {
        let mut headers = modern_headers("query_logs");
        headers.push((name.into(), value.into()));
        let reply = target.attacker.send(headers, modern("query_logs", &json!({"window": "1h"})).to_string().as_bytes());
        target.harmless(name, &reply);
    }
    target.end();
}

/// Raw queries by a caller who sees one service whose name stands in none of them: each is confined at every selector, or
/// refused and recorded.
fn raw_queries(target: &mut Target) {
    let confined = Visitor::new(&target.server, &target.confined);
    let (mut sent, mut refused) = (0, 0);
    for query in [
        "up{job=\"payment\"} or up",
        "up # comment\n or vector(1)",
        "{__name__=~\".+\"}",
        "up{job=~\"cart|payment\"} offset 1m",
        "up{job=~\"cart|payment\"} offset -1d",
        "label_replace(up, \"job\", \"cart\", \"\", \"\")",
        "up{job=\"cart\\\"} or up{job=\"payment\"}",
        "up{job=\"cart\" or job=\"payment\"}",
        "absent(up) or on() up",
        "up @ 0",
        "up unless up{job=\"payment\"}",
        "sum by (job) (rate(x[5m])) / ignoring(job) group_left sum(y)",
        "max_over_time(sum(rate(x{job!=\"cart\"}[5m]))[30m:1m])",
        "topk(scalar(max(up{job=\"payment\"})), up)",
        "quantile(scalar(up{job=\"payment\"}), rate(x[5m]))",
        "histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))",
        "clamp(up, scalar(min(up)), scalar(max(y{job=\"payment\"})))",
        "up{job=\"cart\"}) or (up",
        "\"up{}\"",
    ] {
        let before = target.backend.seen().len();
        let reply = confined.call("query_metrics", &json!({"query": query, "source": "prom"}));
        target.harmless(query, &reply);
        let seen = target.backend.seen();
        let asked: Vec<String> = seen[before..].iter().filter(|r| r.contains("/api/v1/query")).cloned().collect();
        if reply.json()["result"]["isError"] == true || reply.json()["error"].is_object() {
            assert!(asked.is_empty(), "{query} was refused after the backend was asked: {asked:?}");
            target.server.home.audited(|r| r["tool"] == "query_metrics" && r["code"] == "invalid_argument");
            refused += 1;
            continue;
        }
        for form in asked.iter().flat_map(|request| parameters(request, "query")) {
            sent += 1;
            for selector in selectors(&form) {
                assert!(takes(&selector, &[("job", ONE_SERVICE)]) || selector.to_string().contains(ONE_SERVICE), "{form}");
                for foreign in FOREIGN_SERIES {
                    assert!(!takes(&selector, foreign), "{query} became {form}, of which {selector} takes {foreign:?}");
                }
            }
        }
    }
    println!("{sent} queries reached the backend, {refused} were refused");
    assert!(sent > 8 && refused > 3, "{sent} sent, {refused} refused: what was shown?");
}

#[test]
fn statements_and_queries_do_not_get_out_of_their_scope() {
    let mut target = Target::new();
    for statement in [
        "SELECT 1; SELECT Body FROM otel_logs",
        "DROP TABLE otel_logs",
        "INSERT INTO otel_logs SELECT * FROM otel_logs",
        "COPY otel_logs TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM information_schema.tables",
        "SELECT version()",
        "EXPLAIN SELECT * FROM otel_logs",
        "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a",
        "SET datafusion.execution.batch_size = 1",
        "SELECT repeat('x', 1000000000)",
        "SELECT * FROM generate_series(1, 1000000000000)",
    ] {
        target.call_fails("sql", &json!({"query": statement}), &["invalid_argument"]);
    }
    for statement in [
        "SELECT * FROM otel_logs WHERE ServiceName = 'payment' OR 1 = 1",
        "SELECT * FROM otel_logs WHERE true --' AND ServiceName = 'cart'",
        "SELECT * FROM otel_logs a FULL OUTER JOIN otel_logs b ON a.Body <> b.Body",
        "SELECT (SELECT max(Body) FROM otel_logs) AS x, count(*) FROM otel_logs",
        "SELECT * FROM (SELECT * FROM otel_logs UNION ALL SELECT * FROM otel_logs) t",
        "SELECT Body FROM portcullis.telemetry.otel_logs",
        "SELECT ServiceName FROM otel_logs GROUP BY CUBE(ServiceName)",
    ] {
        let reply = target.attacker.call("sql", &json!({"query": statement, "limit": 1000}));
        target.harmless(statement, &reply);
    }
    raw_queries(&mut target);
    for name in
        ["http://169.254.169.254/", "//evil.example", "@evil.example", "\\\\evil", "%2f%2fevil", "prom/../../admin", "--config=x"]
    {
        target.call_fails(
            "query_metrics",
            &json!({"metric": "up", "source": name}),
            &["invalid_argument", "no_source", "not_found", "forbidden"],
        );
        let reply = target.attacker.call("find_metrics", &json!({"values_of": name, "source": "prom"}));
        target.harmless(name, &reply);
    }
    target.end();
}

#[test]
fn what_belongs_to_others_is_no_use() {
    let mut target = Target::new();
    let first = target.neighbour.call("query_logs", &json!({"window": "1h", "limit": 1})).json();
    assert!(first.to_string().contains(FOREIGN), "the neighbour sees their own: {first}");
    for cursor in ["AAAA", "' OR 1=1", "eyJhIjoxfQ", &"A".repeat(20_000)] {
        target.call_fails("query_logs", &json!({"window": "1h", "cursor": cursor}), &["invalid_argument"]);
    }
    let session = target.neighbour.session(&json!({"elicitation": {}}));
    let stolen = Session { visitor: target.attacker.clone(), id: session.id.clone() };
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}),
        json!({"jsonrpc": "2.0", "id": 0, "result": {"action": "accept", "content": {"approve": true}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}),
    ] {
        let reply = stolen.send(&message);
        target.harmless("a stolen session", &reply);
        assert_eq!(reply.status, 404, "{}", reply.body);
    }
    target.refused("foreign-session");
    assert_eq!(session.ask("tools/list", &json!({})).status, 200, "its owner noticed nothing");
    let nobody = Session { visitor: Visitor { key: "pcl_nobody".into(), ..target.attacker.clone() }, id: session.id.clone() };
    assert_eq!(nobody.ask("tools/list", &json!({})).status, 401, "a session is no credential");
    // Answers to a question nobody asked.
    let yes = json!({"approve": {"action": "accept", "content": {"approve": true}}});
    let reply = target.attacker.ask_able(
        "tools/call",
        &json!({"name": "query_logs", "arguments": {"window": "1h"}, "inputResponses": yes, "requestState": "eyJhcHByb3ZlZCI6dHJ1ZX0"}),
        &json!({"elicitation": {}}),
    );
    target.harmless("a forged state", &reply);
    assert!(reply.json()["error"].is_object(), "{}", reply.body);
    target.refused("request-state");
    // The other door.
    let reply = otlp(&target.server, &target.attacker.key, "cart", "planted");
    assert!(matches!(reply.status, 401 | 403), "{} {}", reply.status, reply.body);
    target.server.home.audited(|r| r["kind"] == "ingest" && r["decision"] == "deny");
    assert!(!target.attacker.call("query_logs", &json!({"window": "1h"})).body.contains("planted"));
    target.end();
}

#[test]
fn requests_that_two_readers_could_read_differently_are_refused() {
    let mut target = Target::new();
    let good = modern("query_logs", &json!({"window": "1h"})).to_string();
    let smuggled = [
        ("two names", good.replacen("\"name\":", "\"name\":\"list_sources\",\"name\":", 1)),
        ("another case", good.replacen("\"method\":", "\"Method\":\"ping\",\"method\":", 1)),
        ("deep", good.replacen("\"window\":\"1h\"", &format!("\"window\":{}{}", "[".repeat(80), "]".repeat(80)), 1)),
        ("half a character", good.replacen("1h", "\\ud800", 1)),
        ("byte order mark", format!("\u{feff}{good}")),
        ("two messages", format!("{good}{good}")),
        ("nothing", String::new()),
    ];
    for (what, body) in smuggled {
        let reply = target.attacker.send(modern_headers("query_logs"), body.as_bytes());
        target.harmless(what, &reply);
        assert_eq!(reply.status, 400, "{what}: {}", reply.body);
    }
    target.refused("strict-json");
    let reply = target.attacker.send(modern_headers("query_logs"), format!("[{good}]").as_bytes());
    assert_eq!(reply.status, 400, "{}", reply.body);
    target.refused("batch");
    for (name, value) in [("Mcp-Name", "list_sources"), ("Mcp-Method", "tools/list"), ("MCP-Protocol-Version", "2025-11-25")] {
        let mut headers = modern_headers("query_logs");
        headers.iter_mut().filter(|(key, _)| key == name).for_each(|(_, old)| *old = value.into());
        let reply = target.attacker.send(headers, good.as_bytes());
        target.harmless(name, &reply);
        assert_eq!(reply.status, 400, "{name}: {}", reply.body);
    }
    for (name, value) in
        [("Mcp-Name", "list_sources"), ("Authorization", "Bearer x"), ("Host", "evil.example"), ("Mcp-Session-Id", "a")]
    {
        let mut headers = modern_headers("query_logs");
        headers.push((name.into(), value.into()));
        if name == "Host" {
            headers.push((name.into(), target.server.mcp.to_string()));
        }
        let reply = target.attacker.send(headers, good.as_bytes());
        target.harmless(name, &reply);
        assert!(matches!(reply.status, 400 | 403 | 404), "two of {name}: {} {}", reply.status, reply.body);
    }
    let key = target.attacker.key.clone();
    for query in [format!("key={key}"), format!("access_token={key}")] {
        let reply = target.attacker.at(&format!("/mcp?{query}")).send(modern_headers("query_logs"), good.as_bytes());
        assert_eq!(reply.status, 400, "{}", reply.body);
    }
    target.refused("credential_in_url");
    target.end();
}

#[test]
fn the_connection_itself_gives_nothing_away() {
    let mut target = Target::new();
    let (host, key) = (target.server.mcp, target.attacker.key.clone());
    let good = modern("query_logs", &json!({"window": "1h"})).to_string();
    let head = |more: &str| {
        let mut text = format!("POST /mcp HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n");
        for (name, value) in modern_headers("query_logs") {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        format!("{text}{more}\r\n")
    };
    let length = good.len();
    for (what, request) in [
        ("two lengths", format!("{}{good}", head(&format!("Host: {host}\r\nContent-Length: {length}\r\nContent-Length: 4\r\n")))),
        (
            "length and chunks",
            format!("{}0\r\n\r\n", head(&format!("Host: {host}\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n"))),
        ),
        ("odd chunks", format!("{}zz\r\n{good}\r\n0\r\n\r\n", head(&format!("Host: {host}\r\nTransfer-Encoding: chunked\r\n")))),
        ("no host", format!("{}{good}", head(&format!("Content-Length: {length}\r\n")))),
        ("a name rebound", format!("{}{good}", head(&format!("Host: rebound.example\r\nContent-Length: {length}\r\n")))),
        ("a dot behind", format!("{}{good}", head(&format!("Host: evil.example.\r\nContent-Length: {length}\r\n")))),
        ("a user before", format!("{}{good}", head(&format!("Host: {host}@evil.example\r\nContent-Length: {length}\r\n")))),
        (
            "a foreign page",
            format!("{}{good}", head(&format!("Host: {host}\r\nOrigin: https://evil.example\r\nContent-Length: {length}\r\n"))),
        ),
        (
            "a page of nowhere",
            format!("{}{good}", head(&format!("Host: {host}\r\nOrigin: null\r\nContent-Length: {length}\r\n"))),
        ),
        ("a broken line", format!("{}{good}", head(&format!("Host: {host}\r\nX-A: a\rb\r\nContent-Length: {length}\r\n")))),
        ("a giant", head(&format!("Host: {host}\r\nContent-Length: 9999999999\r\n"))),
        ("a giant head", head(&format!("Host: {host}\r\nX-Big: {}\r\n", "a".repeat(200_000)))),
    ] {
        let reply = raw(&target.server, request.as_bytes());
        target.harmless(what, &reply);
        assert!(matches!(reply.status, 0 | 400 | 403 | 413 | 431), "{what}: {} {}", reply.status, reply.body);
    }
    for method in ["PUT", "TRACE", "CONNECT", "PATCH", "OPTIONS"] {
        let reply = raw(&target.server, format!("{method} /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
        target.harmless(method, &reply);
        assert!(!(200..300).contains(&reply.status), "{method}: {} {}", reply.status, reply.body);
        assert!(
            !reply.body.contains(&key) && !reply.head.to_ascii_lowercase().contains("access-control-allow-origin"),
            "{method}: {}",
            reply.head
        );
    }
    // Half a request holds nothing for long, and others are served meanwhile.
    let mut slow = TcpStream::connect(host).unwrap();
    slow.write_all(b"POST /mcp HTTP/1.1\r\nHost: ").unwrap();
    let began = Instant::now();
    assert_eq!(target.attacker.call("list_sources", &json!({})).status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));
    slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let reply = read_reply(slow);
    assert!(reply.status == 0 || reply.status == 408, "{}", reply.head);
    assert!(began.elapsed() < Duration::from_secs(25), "a slow sender was held for {:?}", began.elapsed());
    target.end();
}

#[test]
fn guessing_and_flooding_end_in_waiting() {
    let mut target = Target::new();
    let id = target.attacker.key.split('_').nth(1).unwrap().to_owned();
    let mut locked = None;
    for guess in 0..12 {
        let visitor = Visitor { key: format!("pcli_{id}_Kq7#vLp2xWm9zR!{guess}"), ..target.attacker.clone() };
        let reply = visitor.call("list_sources", &json!({}));
        target.harmless("a guess", &reply);
        assert!(matches!(reply.status, 401 | 429), "{} {}", reply.status, reply.body);
        locked = locked.or((reply.status == 429).then_some(guess));
    }
    assert!(locked.is_some(), "guessing is not slowed down");
    target.refused("locked_out");
    drop(target);

    let server = Server::start("limits: {calls_per_second: 5, burst: 10}\n");
    let key = server.home.key(&[]);
    std::thread::sleep(Duration::from_millis(900));
    let visitor = Visitor::new(&server, &key);
    let (headers, body) = modern_request("tools/call", &json!({"name": "list_sources", "arguments": {}}), &json!({}));
    let limited = (0..40).map(|_| visitor.send(headers.clone(), body.as_bytes())).find(|r| r.body.contains("rate_limited"));
    let limited = limited.expect("forty calls at once are all answered");
    assert!(limited.body.contains("retry_after_seconds") || limited.header("retry-after").is_some(), "{}", limited.body);
    server.home.audited(|r| r["code"] == "rate_limited" && r["decision"] == "deny");
    assert!(meta(&json!({})).len() == 2);
}

//! Refusals before anybody is known, over the real binary: every kind is seen by the client and in the audit log, on every
//! listener, and a flood of them neither fills the log nor disappears.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Reply, Server, intact, modern, modern_headers, post, read_reply};

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn raw(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(bytes);
    read_reply(stream)
}

/// Waits for the record of a refusal by this rule, and returns it.
fn refused(home: &Home, transport: &str, rule: &str) -> Value {
    let began = Instant::now();
    loop {
        let found = home.audit().into_iter().rev().find(|r| r["transport"] == transport && r["rule"] == rule);
        if let Some(record) = found {
            assert_eq!(record["decision"], "deny", "{record}");
            return record;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "no record of {transport} {rule} in {:#?}", home.audit());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_kind_of_refusal_at_the_mcp_door_is_recorded() {
    let server = Server::start("");
    let mcp = server.mcp;
    let json_body = header("Content-Type", "application/json");
    let big = format!("POST /mcp HTTP/1.1\r\nHost: {mcp}\r\nContent-Length: 1073741824\r\n\r\n");
    let long = format!("POST /mcp HTTP/1.1\r\nHost: {mcp}\r\nX-Long: {}", "x".repeat(80_000));
    let twice = [json_body.clone(), header("Authorization", "Bearer hunter2-a"), header("Authorization", "Bearer hunter2-b")];
    for (status, rule, code, reply) in [
        (403, "host", "forbidden", post(mcp, "/mcp", &[header("Host", "evil.example")], b"{}")),
        (403, "origin", "forbidden", post(mcp, "/mcp", &[header("Origin", "https://evil.example")], b"{}")),
        (413, "body-size", "too_large", raw(mcp, big.as_bytes())),
        (431, "head-size", "too_large", raw(mcp, long.as_bytes())),
        (400, "malformed-http", "invalid_argument", raw(mcp, b"NOT \x01 HTTP AT ALL\r\n\r\n")),
        (400, "authorization-twice", "invalid_argument", post(mcp, "/mcp", &twice, b"{}")),
        (401, "no_credential", "unauthenticated", post(mcp, "/mcp", &[json_body], b"{}")),
    ] {
        assert_eq!(reply.status, status, "{rule}: {} {}", reply.head, reply.body);
        let record = refused(&server.home, "http", rule);
        assert_eq!((&record["code"], record["principal"].is_null()), (&json!(code), true), "{record}");
        assert!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{record}");
    }
    // Unknown routes are behind the same check.
    assert_eq!(post(mcp, "/nowhere", &[header("Host", "other.example")], b"").status, 403);
    assert!(refused(&server.home, "http", "host")["note"].as_str().unwrap().contains("other.example"));
    let written = server.home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    assert!(!written.contains("hunter2"), "{written}");
    assert!(intact(&server.home));
}

#[test]
fn what_a_known_caller_sends_and_cannot_be_read_is_recorded_with_its_name() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let who = format!("key:{}", key.split('_').nth(1).unwrap());
    let bearer = header("Authorization", &format!("Bearer {key}"));
    let send = |mut headers: Vec<(String, String)>, body: &[u8]| {
        headers.push(bearer.clone());
        post(server.mcp, "/mcp", &headers, body)
    };
    let call = modern("list_services", &json!({})).to_string();
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n200000\r\n{}",
        server.mcp,
        "x".repeat(0x0020_0000)
    );
    for (status, rule, reply) in [
        (400, "header-mismatch", send(modern_headers("query_logs"), call.as_bytes())),
        (400, "strict-json", send(modern_headers("list_services"), b"{not json")),
        (415, "media-type", send(vec![header("Content-Type", "text/plain")], call.as_bytes())),
        (413, "body-size", raw(server.mcp, chunked.as_bytes())),
    ] {
        assert_eq!(reply.status, status, "{rule}: {} {}", reply.head, reply.body);
        let record = refused(&server.home, "http", rule);
        assert_eq!(record["principal"], who.as_str(), "{record}");
    }
}

#[test]
fn what_breaks_the_rules_for_text_is_refused_on_every_road_and_recorded() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = crate::visitor::Visitor::new(&server, &key);
    let hidden = "ca\u{202e}rt";
    let complete = |value: &str| json!({"ref": {"type": "ref/resource", "uri": "portcullis://service/{name}"}, "argument": {"name": "name", "value": value}});
    for (method, params, target) in [
        ("tools/call", json!({"name": "query_logs", "arguments": {"service": hidden}}), "query_logs"),
        ("prompts/get", json!({"name": "investigate_incident", "arguments": {"service": hidden}}), "investigate_incident"),
        ("resources/read", json!({"uri": format!("portcullis://service/{hidden}")}), "portcullis://service/"),
        ("completion/complete", complete(hidden), "portcullis://service/{name}"),
    ] {
        let reply = visitor.ask(method, &params).json();
        assert!(reply.to_string().contains("U+202E"), "{method}: {reply}");
        let record = server.home.audited(|r| r["method"] == method && r["decision"] == "deny");
        assert_eq!((&record["rule"], &record["code"]), (&json!("argument-schema"), &json!("invalid_argument")), "{record}");
        assert!(record["tool"].as_str().unwrap().starts_with(target), "{record}");
    }
    assert!(visitor.ask("completion/complete", &complete("ca")).json()["result"].is_object());
}

#[test]
fn what_an_error_repeats_of_its_caller_is_clean_short_and_without_secrets() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = crate::visitor::Visitor::new(&server, &key);
    let session = visitor.session(&json!({}));
    let secret = format!("ghp_{}", "16C7e42F292c6912E7710c838347Ae178B4a");
    // Orders for a terminal, what turns a line around, what looks like nothing; and the secret once more, split by what nobody sees.
    let dirty = format!("\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}\u{2800} {secret} {}", secret.replacen('p', "p\u{200b}", 1));
    let half = |length: usize| format!("{} {secret}", "x".repeat(length));
    let twice = format!(r#"{{"{secret}":1,"{secret}":2}}"#);
    let mut revision = modern_headers("list_services");
    revision[2].1.clone_from(&secret);
    let call = modern("list_services", &json!({})).to_string();
    let nothing = json!({});
    let replies = [
        ("a value", visitor.call("query_logs", &json!({"limit": dirty}))),
        ("a value that is cut", visitor.call("query_logs", &json!({"limit": half(270)}))),
        ("an argument", visitor.call("query_logs", &json!({dirty.as_str(): 1}))),
        ("a source", visitor.call("query_logs", &json!({"source": secret}))),
        ("a table", visitor.call("sql", &json!({"query": format!("SELECT * FROM \"{secret}\"")}))),
        ("a tool", visitor.call(&dirty, &nothing)),
        ("a tool that is cut", visitor.call(&half(115), &nothing)),
        ("a tool that is huge", session.ask("tools/call", &json!({"name": half(400_000), "arguments": {}}))),
        ("a prompt", visitor.ask("prompts/get", &json!({"name": dirty}))),
        ("a resource", visitor.ask("resources/read", &json!({"uri": format!("portcullis://nothing/{secret}")}))),
        ("a method", visitor.ask(&secret, &nothing)),
        ("a method of a session", session.ask(&dirty, &nothing)),
        ("a member", visitor.send(modern_headers("query_logs"), twice.as_bytes())),
        ("a header", visitor.send(modern_headers(&secret), call.as_bytes())),
        ("a revision", visitor.send(revision, call.as_bytes())),
    ];
    let start = &secret[..12];
    for (what, reply) in &replies {
        let body = &reply.body;
        assert!(body.contains("\"error\"") || body.contains("\"isError\":true"), "{what}: {body}");
        assert!(!body.contains(start), "{what}: {body}");
        let hidden = ["\u{1b}", "\\u001b", "\u{7}", "\\u0007", "\u{202e}", "\\u202e", "\u{200b}", "\u{2800}"];
        // An escape that is written out can be seen.
        let shown = body.replace(r"\\u", "");
        assert!(hidden.iter().all(|hidden| !shown.contains(hidden)), "{what}: {body:?}");
        assert!(body.len() < 8_000, "{what}: {} bytes", body.len());
    }
    assert!(replies.iter().filter(|(_, reply)| reply.body.contains("[redacted:")).count() > 8, "what was wrong is still said");

    let unknown = |r: &Value| r["tool"].as_str().is_some_and(|tool| tool.contains("[redacted:github-token]"));
    let record = server.home.audited(|r| unknown(r) && r["method"] == "tools/call");
    assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("not_found")), "{record}");
    for rule in ["argument-schema", "strict-json", "header-mismatch", "catalogue"] {
        server.home.audited(|r| r["rule"] == rule && r["decision"] == "deny");
    }
    // No part of it in the record or the log, not even between characters that nobody sees.
    let written = Value::Array(server.home.audit()).to_string() + &server.log();
    let seen: String = written.chars().filter(|c| *c != '\u{200b}').collect();
    assert!(!seen.contains(start), "{seen}");
    assert!(intact(&server.home));
}

#[test]
fn every_rule_set_for_text_does_what_it_says() {
    use crate::upstreams::{Puppet, accept_all, listed, sees, until, visitor};
    let fetch = json!({"name": "fetch", "description": "Fetches.", "annotations": {"readOnlyHint": true},
        "inputSchema": {"type": "object", "properties": {"address": {"type": "string", "format": "uri"}, "q": {"type": "string"}}}});
    let puppet = Puppet::new(&json!({"tools": [fetch]}));
    let rules = "sanitize:\n  name: {forbid_injection: true, max_length: 40}\n  free_text: {mode: strip, forbid: ['<script>']}\n  \
                 filter_value: {mode: strip}\n  query: {mode: 'off'}\n  url_schemes: [https]\n";
    let server = Server::start_in(crate::upstreams::home(&[puppet.entry("up", "", "")], rules));
    let reader = visitor(&server, &["--role", "reader"]);
    until("it waits", || if listed(&server.home).len() == 1 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "up");
    sees(&reader, "fetch", true);
    assert_eq!(server.send_log("cart", 17, "boom in the cart").status, 200);
    let long = "c".repeat(41);
    for (tool, arguments, expected) in [
        ("query_logs", json!({"service": "cart'; DROP TABLE x"}), "does not allow"),
        ("query_logs", json!({"service": "x<ScRiPt>"}), "does not allow"),
        ("query_logs", json!({"service": long}), "41 characters, at most 40"),
        ("fetch", json!({"address": "file:///etc/passwd"}), "this URL scheme is not allowed"),
        ("fetch", json!({"address": "http://example.org/"}), "this URL scheme is not allowed"),
        ("fetch", json!({"address": "https://user:word@example.org/"}), "must not carry credentials"),
        ("fetch", json!({"address": "example.org"}), "not an absolute URL"),
        ("fetch", json!({"q": "<scr<script>ipt>".repeat(20_000)}), "at most 16384"),
    ] {
        let reply = reader.call(tool, &arguments).json();
        assert!(reply.to_string().contains(expected), "{arguments}: {reply}");
        let record = server.home.audited(|r| r["tool"] == tool && r["method"] == "tools/call");
        assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("argument-schema")), "{record}");
        assert_eq!(record["code"], "invalid_argument", "{record}");
    }
    // What is stripped is what the tool gets, and what is off is left alone.
    let answer = reader.call("fetch", &json!({"q": "a\u{200b}b<SCRIPT>c", "address": "https://example.org/a?b=c"})).json();
    assert!(answer.to_string().contains("abc"), "{answer}");
    let found = reader.call("query_logs", &json!({"service": "cart", "text": "bo\u{200b}om", "window": "15m"})).json();
    assert!(found.to_string().contains("boom in the cart"), "{found}");
    let answer = reader.call("sql", &json!({"query": "SELECT 'a;\u{200b}--' AS x"})).json();
    assert!(answer["result"]["structuredContent"]["rows"].is_array(), "{answer}");
    server.home.audited(|r| r["tool"] == "sql" && r["decision"] == "allow");
    let doctor = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
    assert!(doctor.contains("unchecked (sanitize): query"), "{doctor}");
}

#[test]
fn whoever_has_to_wait_after_failures_is_recorded_once() {
    let home = Home::new("");
    let key = home.key(&[]);
    let server = Server::start_in(home);
    let wrong = format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    let mut locked = 0;
    for _ in 0..40 {
        locked += usize::from(server.call(Some(&wrong), "list_sources", &json!({})).status == 429);
    }
    assert!(locked > 0, "nobody has to wait");
    let record = server.home.audited(|r| r["kind"] == "lockout");
    assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("lockout")), "{record}");
    assert!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{record}");
    assert!(record["note"].as_str().unwrap().starts_with("for "), "{record}");
    assert_eq!(server.home.audit().iter().filter(|r| r["kind"] == "lockout").count(), 1);
}

#[test]
fn every_kind_of_refusal_at_the_otlp_doors_is_recorded() {
    let home = Home::new("");
    let config = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, config.replace("ingest: {", "ingest: {max_body: 64KiB, ")).unwrap();
    let server = Server::start_in(home);
    let otlp = server.otlp;
    let json_body = || header("Content-Type", "application/json");
    let twice = [json_body(), header("Authorization", "Bearer a"), header("Authorization", "Bearer b")];
    let large = vec![b' '; 100_000];
    for (status, rule, reply) in [
        (403, "host", post(otlp, "/v1/logs", &[json_body(), header("Host", "evil.example")], b"{}")),
        (403, "origin", post(otlp, "/v1/logs", &[json_body(), header("Origin", "https://evil.example")], b"{}")),
        (400, "authorization-twice", post(otlp, "/v1/logs", &twice, b"{}")),
        (415, "media-type", post(otlp, "/v1/logs", &[header("Content-Type", "text/plain")], b"{}")),
        (400, "malformed-body", post(otlp, "/v1/logs", &[json_body()], b"{not json")),
        (413, "body-size", post(otlp, "/v1/logs", &[json_body()], &large)),
        (400, "malformed-http", raw(otlp, b"\x00\x01\x02\r\n\r\n")),
    ] {
        assert_eq!(reply.status, status, "{rule}: {} {}", reply.head, reply.body);
        refused(&server.home, "otlp-http", rule);
    }
    let grpc = config.lines().find_map(|l| l.split_once("grpc: '")).map(|(_, rest)| rest.split('\'').next().unwrap());
    let grpc: SocketAddr = grpc.unwrap().parse().unwrap();
    let before = server.home.audit().iter().filter(|r| r["rule"] == "malformed-http").count();
    raw(grpc, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let began = Instant::now();
    while server.home.audit().iter().filter(|r| r["rule"] == "malformed-http").count() <= before {
        assert!(began.elapsed() < Duration::from_secs(10), "what is no HTTP/2 leaves no record");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends `count` requests over one connection and reads every answer; the statuses.
fn many(address: SocketAddr, head: &str, count: usize) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut statuses = Vec::with_capacity(count);
    for _ in 0..count {
        stream.write_all(head.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).unwrap();
        statuses.push(line.split(' ').nth(1).unwrap().parse().unwrap());
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
    }
    statuses
}

/// Stops in good order, and gives its directory back.
fn stopped(mut server: Server) -> Home {
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    server.kill()
}

#[test]
fn a_flood_of_refused_requests_leaves_few_records_that_count_to_the_last() {
    const CONNECTIONS: usize = 10;
    const EACH: usize = 1_000;
    let server = Server::start("");
    let mcp = server.mcp;
    let head = "POST /mcp HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n";
    let floods: Vec<_> = (0..CONNECTIONS).map(|_| std::thread::spawn(move || many(mcp, head, EACH))).collect();
    for flood in floods {
        assert!(flood.join().unwrap().iter().all(|status| *status == 403));
    }
    // Strangers at the right name: first refused for want of a credential, then for their address' rate.
    let head = format!("POST /mcp HTTP/1.1\r\nHost: {mcp}\r\nContent-Length: 0\r\n\r\n");
    let strangers = many(mcp, &head, 2_000);
    assert!(strangers.iter().all(|status| matches!(status, 401 | 429)), "{strangers:?}");
    let home = stopped(server);
    let records = home.audit();
    let counted = |rules: &[&str]| {
        let of: Vec<&Value> = records.iter().filter(|r| rules.iter().any(|rule| r["rule"] == *rule)).collect();
        (of.len(), of.iter().map(|r| r["count"].as_u64().unwrap_or(1)).sum::<u64>())
    };
    // Twenty and a summary for each minute that was touched.
    let (written, events) = counted(&["host"]);
    assert_eq!(events, (CONNECTIONS * EACH) as u64);
    assert!(written <= 3 * 21, "{written} records");
    let (written, events) = counted(&["no_credential", "address-rate"]);
    assert_eq!(events, 2_000);
    assert!(written <= 6 * 21, "{written} records");
    let summary = records.iter().find(|r| r["rule"] == "host" && r["count"].as_u64().is_some_and(|n| n > 1)).expect("a summary");
    assert!(summary["note"].as_str().unwrap().contains("from 127.0.0.0/24"), "{summary}");
    let statistics: Value = serde_json::from_str(&home.run_ok(&["audit", "stats", "--json"])).unwrap();
    assert!(statistics["all"]["refused"].as_u64().unwrap() >= 12_000, "{statistics}");
    assert!(intact(&home));
}

#[test]
fn a_tenant_is_bounded_whoever_of_it_asks_and_the_record_says_so() {
    let home = Home::new("limits: {tenant: {calls_per_second: 1, burst: 2}}\n");
    let shop = [home.key(&["--role", "reader", "--tenant", "shop"]), home.key(&["--role", "reader", "--tenant", "shop"])];
    let other = home.key(&["--role", "reader", "--tenant", "bank"]);
    let server = Server::start_in(home);
    let call = |key: &str| server.call(Some(key), "list_sources", &json!({}));
    let began = Instant::now();
    let mut last = call(&shop[0]);
    while !last.body.contains("of your tenant") {
        assert!(began.elapsed() < Duration::from_secs(30), "never refused: {}", last.body);
        last = call(&shop[1]);
    }
    assert_eq!(last.json()["error"]["code"], 429, "{}", last.body);
    assert!(!call(&other).body.contains("tenant"), "another tenant is not concerned");
    let record = server.home.audited(|r| r["rule"] == "tenant-rate");
    assert_eq!(
        (&record["decision"], &record["tenant"], &record["code"]),
        (&json!("deny"), &json!("shop"), &json!("rate_limited"))
    );
}

#[test]
fn a_request_line_that_names_another_host_is_refused_on_every_listener() {
    let server = Server::start("");
    for (address, transport, status) in [(server.mcp, "http", 400), (server.admin, "admin", 400), (server.otlp, "otlp-http", 403)]
    {
        let send = |line: &str| {
            let head = "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
            raw(address, format!("POST {line} HTTP/1.1\r\nHost: {address}\r\n{head}\r\n{{}}").as_bytes())
        };
        let refused_here = send("http://evil.example/v1/logs");
        assert_eq!(refused_here.status, status, "{transport}: {} {}", refused_here.head, refused_here.body);
        let record = refused(&server.home, transport, "host");
        assert!(record["note"].as_str().unwrap().contains("evil.example"), "{record}");
        let own = send(&format!("http://{address}/v1/logs"));
        assert!(![400, 403].contains(&own.status), "{transport}: the same host twice is one host: {}", own.body);
    }
    assert!(intact(&server.home));
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field that is not indexed (RFC 7541, section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name.as_bytes());
    let mut length = value.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push(u8::try_from(length % 128).unwrap() | 0x80);
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

#[test]
fn a_head_beyond_its_bound_over_grpc_is_refused_and_recorded() {
    let server = Server::start("");
    let config = std::fs::read_to_string(&server.home.config).unwrap();
    let grpc = config.lines().find_map(|l| l.split_once("grpc: '")).map(|(_, rest)| rest.split('\'').next().unwrap());
    let grpc: SocketAddr = grpc.unwrap().parse().unwrap();
    // The log begins with its first record.
    let sizes = || {
        let written = server.home.run(&["audit", "tail", "-n", "1000", "--json"]).stdout;
        String::from_utf8_lossy(&written).matches("\"head-size\"").count()
    };
    let send = |stream: &mut TcpStream, id: u32, fields: usize| {
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let start = [
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":path", path),
            field(":authority", &grpc.to_string()),
            field("content-type", "application/grpc"),
            field("te", "trailers"),
        ];
        let mut rest = Vec::new();
        for _ in 0..fields {
            rest.extend(field("x-filler", &"x".repeat(4_000)));
        }
        let mut bytes = frame(1, u8::from(fields == 0) * 4 + 1, id, &start.concat());
        let parts: Vec<&[u8]> = rest.chunks(16_000).collect();
        for (index, part) in parts.iter().enumerate() {
            bytes.extend(frame(9, u8::from(index + 1 == parts.len()) * 4, id, part));
        }
        stream.write_all(&bytes).unwrap();
    };
    let mut stream = TcpStream::connect(grpc).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()).unwrap();
    // A request that is answered by us, for better or worse, is not one of them.
    send(&mut stream, 1, 0);
    for (id, count) in [(3, 1), (5, 2)] {
        send(&mut stream, id, 8);
        let began = Instant::now();
        while sizes() < count {
            assert!(began.elapsed() < Duration::from_secs(10), "an oversized head leaves no record");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(sizes(), 2);
    let record = refused(&server.home, "otlp-grpc", "head-size");
    assert_eq!(record["code"], "too_large", "{record}");
}

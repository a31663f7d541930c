//! The MCP door: who is let in, what is refused, and that both are remembered.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Home, Server, intact, modern, modern_headers, post, read_reply};

#[test]
fn without_a_key_nothing() {
    let server = Server::start("");
    for key in [None, Some("nonsense"), Some("pcl_aaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_cccccc")] {
        let reply = server.call(key, "list_sources", &json!({}));
        assert_eq!(reply.status, 401, "{}", reply.body);
        assert!(reply.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", reply.head);
    }
    let record = server.home.audited(|r| r["kind"] == "authentication");
    assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("unauthenticated")));
    assert!(!server.home.audit().iter().any(|r| r["kind"] == "call"));
    assert!(intact(&server.home));
}

#[test]
fn a_key_opens_and_its_revocation_closes_within_a_second() {
    let server = Server::start("");
    let key = server.home.key(&["--role", "reader"]);
    std::thread::sleep(Duration::from_millis(900));
    let reply = server.call(Some(&key), "list_sources", &json!({}));
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(
        reply.json()["result"]["isError"].as_bool(),
        Some(false).filter(|_| reply.json()["result"].get("isError").is_some())
    );
    let record = server.home.audited(|r| r["kind"] == "call");
    assert_eq!(
        (&record["tool"], &record["decision"], &record["rule"]),
        (&json!("list_sources"), &json!("allow"), &json!("reader-may-look"))
    );
    let id = key.split('_').nth(1).unwrap();
    server.home.run_ok(&["key", "revoke", id]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.call(Some(&key), "list_sources", &json!({})).status, 401);
    assert!(!std::fs::read_to_string(server.home.directory.path().join("log")).unwrap().contains(&key), "the key is in the log");
    let state = std::fs::read(server.home.data().join("state.sqlite")).unwrap();
    let secret = key.split('_').nth(2).unwrap().as_bytes();
    assert!(!state.windows(secret.len()).any(|w| w == secret), "the secret is in the state");
}

#[test]
fn an_ingest_key_does_not_open_mcp_and_the_other_way_round() {
    let server = Server::start("");
    let ingest = server.home.key(&["--scope", "ingest"]);
    let mcp = server.home.key(&[]);
    std::thread::sleep(Duration::from_millis(900));
    let reply = server.call(Some(&ingest), "list_sources", &json!({}));
    assert!(matches!(reply.status, 401 | 403), "{}", reply.status);
    let headers = [("Content-Type".into(), "application/json".into()), ("Authorization".into(), format!("Bearer {mcp}"))];
    let refused = post(server.otlp, "/v1/logs", &headers, b"{}");
    assert!(matches!(refused.status, 401 | 403), "{} {}", refused.status, refused.body);
    server.home.audited(|r| r["kind"] == "ingest" && r["decision"] == "deny");
}

#[test]
fn refusals_of_the_gate_are_clear_and_recorded() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    std::thread::sleep(Duration::from_millis(900));
    let unknown = server.call(Some(&key), "delete_everything", &json!({})).json();
    assert_eq!(unknown["error"]["code"], -32602);
    assert!(unknown["error"]["message"].as_str().unwrap().contains("delete_everything"), "{unknown}");
    server.home.audited(|r| r["tool"] == "delete_everything" && r["decision"] == "deny" && r["code"] == "not_found");
    let bad = server.call(Some(&key), "query_logs", &json!({"windw": "5m"})).json();
    assert_eq!(bad["result"]["isError"], true);
    assert!(bad["result"]["content"][0]["text"].as_str().unwrap().contains("windw"), "{bad}");
    server.home.audited(|r| r["tool"] == "query_logs" && r["rule"] == "argument-schema");
    let nonsense = server.call(Some(&key), "query_logs", &json!({"window": "banana"})).json();
    let text = nonsense["result"]["content"][0]["text"].as_str().unwrap();
    assert!(nonsense["result"]["isError"] == true && text.contains("banana") && text.contains("15m"), "{text}");
}

#[test]
fn foreign_pages_and_hosts_are_refused_on_every_route() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    std::thread::sleep(Duration::from_millis(900));
    let with = |name: &str, value: &str| {
        let mut headers = modern_headers("list_sources");
        headers.push(("Authorization".into(), format!("Bearer {key}")));
        headers.push((name.into(), value.into()));
        headers
    };
    let body = modern("list_sources", &json!({})).to_string();
    for path in ["/mcp", "/healthz", "/nothing"] {
        assert_eq!(post(server.mcp, path, &with("Origin", "https://evil.example"), body.as_bytes()).status, 403, "{path}");
        assert_eq!(post(server.mcp, path, &with("Host", "evil.example"), body.as_bytes()).status, 403, "{path}");
    }
    assert_eq!(
        post(server.mcp, "/mcp", &with("Origin", &format!("http://localhost:{}", server.mcp.port())), body.as_bytes()).status,
        200
    );
    let evil = [("Content-Type".into(), "application/json".into()), ("Origin".into(), "https://evil.example".into())];
    assert_eq!(post(server.otlp, "/v1/logs", &evil, b"{}").status, 403);
    let rebound = [("Content-Type".into(), "application/json".into()), ("Host".into(), "evil.example".into())];
    assert_eq!(post(server.otlp, "/v1/logs", &rebound, b"{}").status, 403);
}

#[test]
fn messages_two_parsers_read_differently_are_refused() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    std::thread::sleep(Duration::from_millis(900));
    let mut headers = modern_headers("list_sources");
    headers.push(("Authorization".into(), format!("Bearer {key}")));
    let good = modern("list_sources", &json!({})).to_string();
    let twice = good.replacen("\"name\":", "\"name\":\"x\",\"name\":", 1);
    let cases = good.replacen("\"method\":", "\"Method\":\"ping\",\"method\":", 1);
    let deep = good.replacen("\"arguments\":{}", &format!("\"arguments\":{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60)), 1);
    let surrogate = good.replacen("\"arguments\":{}", "\"arguments\":{\"a\":\"\\ud800\"}", 1);
    let batch = format!("[{good}]");
    for (what, body) in [("duplicate", twice), ("case", cases), ("depth", deep), ("surrogate", surrogate), ("batch", batch)] {
        let reply = post(server.mcp, "/mcp", &headers, body.as_bytes());
        assert_eq!(reply.status, 400, "{what}: {}", reply.body);
        let code = reply.json()["error"]["code"].as_i64().unwrap();
        assert!(matches!(code, -32700 | -32600), "{what}: {}", reply.body);
    }
    let mismatch = post(
        server.mcp,
        "/mcp",
        &{
            let mut h = headers.clone();
            h.iter_mut().filter(|(k, _)| k == "Mcp-Name").for_each(|(_, v)| *v = "list_services".into());
            h
        },
        good.as_bytes(),
    );
    assert_eq!((mismatch.status, mismatch.json()["error"]["code"].as_i64()), (400, Some(-32020)));
}

#[test]
fn a_gigabyte_is_refused_without_being_held() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    std::thread::sleep(Duration::from_millis(900));
    server.call(Some(&key), "list_sources", &json!({}));
    let before = server.resident();
    for (address, path) in [(server.mcp, "/mcp"), (server.otlp, "/v1/logs")] {
        // Announced: refused at the announcement.
        let mut stream = TcpStream::connect(address).unwrap();
        let auth = if path == "/mcp" { format!("Authorization: Bearer {key}\r\n") } else { String::new() };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\n{auth}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: 1073741824\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_reply(stream).status, 413, "{path}");
        // Chunked, unannounced: refused at the limit.
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\n{auth}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
        let sent = (0..1024).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(sent < 200, "{path} took {sent} MiB");
    }
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
}

#[test]
fn the_end_is_clean_and_quick() {
    let mut server = Server::start("");
    let began = Instant::now();
    server.signal("-TERM");
    let status = server.child.wait().unwrap();
    assert!(status.success() && began.elapsed() < Duration::from_secs(5), "{status} after {:?}", began.elapsed());
    server.home.audited(|r| r["kind"] == "stop");
    assert!(intact(&server.home));
}

#[test]
fn an_edited_audit_log_is_found() {
    let server = Server::start("");
    server.call(None, "list_sources", &json!({}));
    let home = server.kill();
    assert!(intact(&home));
    let directory = home.data().join("audit");
    let edited = std::fs::read_dir(&directory).unwrap().filter_map(Result::ok).map(|e| e.path()).any(|path| {
        let Ok(text) = std::fs::read_to_string(&path) else { return false };
        let changed = text.replace("unauthenticated", "unauthorised_it");
        changed != text && std::fs::write(&path, changed).is_ok()
    });
    assert!(edited, "there is a refusal to edit");
    assert!(!intact(&home));
}

#[test]
fn a_public_listener_needs_a_key() {
    let home = Home::new("listen: {mcp: '0.0.0.0:0', plaintext: i-terminate-tls-elsewhere}\n");
    let output = home.run(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("key create"), "{text}");
    let home = Home::new("listen: {mcp: '0.0.0.0:0', plaintext: i-terminate-tls-elsewhere, anonymous_role: reader}\n");
    let output = home.run(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("anonymous_role"), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let server = Server::start("");
    let home = Home::new(&format!("listen: {{mcp: '{}'}}\n", server.mcp));
    let output = home.run(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains(&server.mcp.to_string()) && text.contains("in use"), "{text}");
}

#[test]
fn a_reload_keeps_the_last_good_configuration() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    let good = std::fs::read_to_string(&server.home.config).unwrap();
    let rule = server.home.directory.path().join("own.cedar");
    std::fs::write(&rule, r#"@id("no-sql") forbid(principal, action, resource == Portcullis::Tool::"sql");"#).unwrap();
    std::fs::write(&server.home.config, format!("{good}policies: ['{}']\nlimits: {{burst: 100}}\n", rule.display())).unwrap();
    let wait = |word: &str| {
        let began = Instant::now();
        while !server.log().contains(word) {
            assert!(began.elapsed() < Duration::from_secs(10), "no '{word}' in {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("configuration reloaded");
    wait("changes to limits take effect after a restart");
    let refused = server.call(Some(&key), "sql", &json!({"query": "SELECT 1"})).json();
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    assert_eq!(server.home.audited(|r| r["tool"] == "sql")["rule"], "no-sql");
    let of_policy = |method: &str| server.home.audited(|r| r["kind"] == "policy" && r["method"] == method);
    let loaded = of_policy("policy.loaded")["note"].as_str().unwrap().split(": ").nth(1).unwrap().to_owned();
    let changed = of_policy("policy.changed");
    let note = changed["note"].as_str().unwrap();
    assert_eq!(loaded.len(), 64);
    assert!(note.contains(&format!("before: {loaded}; after: ")) && !note.ends_with(&loaded), "{changed}");
    assert!(changed["target"].as_str().unwrap().contains("own.cedar"), "{changed}");
    let in_force = note.rsplit(' ').next().unwrap().to_owned();
    std::fs::write(&server.home.config, format!("{good}polices: []\n")).unwrap();
    wait("did you mean 'policies'");
    let still = server.call(Some(&key), "sql", &json!({"query": "SELECT 1"})).json();
    assert_eq!(still["error"]["code"], -32602, "the last good rules stay in force: {still}");
    std::fs::write(&server.home.config, &good).unwrap();
    let began = Instant::now();
    let changes = || {
        let records = server.home.audit().into_iter();
        records.filter(|r| r["method"] == "policy.changed").collect::<Vec<_>>()
    };
    while changes().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(10), "the way back is a change as well: {:?}", changes());
        std::thread::sleep(Duration::from_millis(50));
    }
    let back = changes().pop().unwrap();
    assert!(back["note"].as_str().unwrap().contains(&format!("before: {in_force}; after: {loaded}")), "{back}");
    server.home.audited(|r| r["kind"] == "config" && r["note"].as_str().is_some_and(|n| n.contains("polices")));
}

//! Telemetry in, answers out: what was sent is found, what is secret is not shown.

use serde_json::json;

use crate::server::{Server, post};

#[test]
fn what_is_sent_is_found_and_secrets_are_not_shown() {
    let server = Server::start("");
    let key = server.home.key(&[]);
    std::thread::sleep(std::time::Duration::from_millis(900));
    let token = format!("{}{}", "gh", "p_0123456789abcdefghijABCDEFGHIJ0123456789");
    for line in [
        "order 17 placed".to_owned(),
        "connecting to postgres://shop:tiger4711@db/orders failed".to_owned(),
        format!("upstream said Authorization: Bearer {token}"),
    ] {
        assert_eq!(server.send_log("checkout", 17, &line).status, 200);
    }
    let mut seen = String::new();
    for (tool, arguments) in [
        ("query_logs", json!({"service": "checkout", "window": "15m"})),
        ("log_patterns", json!({"service": "checkout", "window": "15m"})),
        ("get_service_health", json!({"service": "checkout"})),
        ("sql", json!({"query": "SELECT Body, ServiceName FROM otel_logs LIMIT 10"})),
        ("sql", json!({"query": "SELECT * FROM nowhere WHERE password = 'tiger4711'"})),
    ] {
        let reply = server.call(Some(&key), tool, &arguments);
        assert_eq!(reply.status, 200, "{tool}: {}", reply.body);
        seen.push_str(&reply.body);
    }
    assert!(seen.contains("order 17 placed") && seen.contains("[redacted:"), "{seen}");
    assert!(!seen.contains("tiger4711") && !seen.contains(&token), "a secret is in: {seen}");
    let record = server.home.audited(|r| r["tool"] == "query_logs" && r["kind"] == "call");
    assert!(record["redactions"].as_object().is_some_and(|r| !r.is_empty()), "{record}");
}

#[test]
fn a_gzip_bomb_is_refused_with_bounded_memory() {
    use std::io::Write;
    let server = Server::start("");
    let before = server.resident();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..512 {
        packer.write_all(&zeros).unwrap();
    }
    let bomb = packer.finish().unwrap();
    let headers = [("Content-Type".into(), "application/json".into()), ("Content-Encoding".into(), "gzip".into())];
    let reply = post(server.otlp, "/v1/logs", &headers, &bomb);
    assert_eq!(reply.status, 413, "{}", reply.body);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
}

#[test]
fn garbage_is_refused_with_a_reason() {
    let server = Server::start("");
    for (kind, body) in [("application/json", "{"), ("application/x-protobuf", "\u{1}\u{2}nonsense"), ("text/plain", "x")] {
        let reply = post(server.otlp, "/v1/logs", &[("Content-Type".into(), kind.into())], body.as_bytes());
        assert!(matches!(reply.status, 400 | 415), "{kind}: {} {}", reply.status, reply.body);
    }
}

//! What one caller or stranger does to the others: a guesser behind the same proxy, a flood at the doors, a key that was
//! taken back while it listens. Each refusal is seen at the door and in the audit log.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Home, Reply, Server, modern, modern_headers, post, read_reply};
use crate::visitor::modern_request;

/// A call as a proxy sends it on.
fn through_proxy(server: &Server, authorization: Option<&str>) -> Reply {
    let mut headers = modern_headers("list_sources");
    headers.push(("X-Forwarded-For".into(), "198.51.100.7".into()));
    headers.extend(authorization.map(|value| ("Authorization".to_owned(), value.to_owned())));
    post(server.mcp, "/mcp", &headers, modern("list_sources", &json!({})).to_string().as_bytes())
}

fn get(address: SocketAddr, path: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    read_reply(stream)
}

#[test]
fn a_guesser_behind_a_proxy_or_a_router_locks_nobody_out() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let right = format!("Bearer {key}");
    for _ in 0..60 {
        assert_eq!(through_proxy(&server, Some("Bearer wrong")).status, 401);
    }
    assert_eq!(through_proxy(&server, Some(&right)).status, 200, "behind the same proxy");
    for _ in 0..30 {
        server.call(Some("wrong"), "list_sources", &json!({}));
    }
    assert_eq!(server.call(Some("wrong"), "list_sources", &json!({})).status, 429, "the guesser has to wait");
    server.home.audited(|r| r["rule"] == "locked_out" && r["decision"] == "deny");
    assert_eq!(server.call(Some(&key), "list_sources", &json!({})).status, 200, "behind the same router");
}

#[test]
fn strangers_at_the_otlp_door_are_slowed_down_and_senders_are_not() {
    let home = Home::new("limits: {address: {per_second: 1, burst: 5}}\n");
    let config = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, config.replace("ingest: {", "ingest: {loopback_without_key: false, ")).unwrap();
    let key = home.key(&["--scope", "ingest"]);
    let server = Server::start_in(home);
    let send = |key: Option<&str>| {
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(key.map(|key| ("Authorization".to_owned(), format!("Bearer {key}"))));
        post(server.otlp, "/v1/logs", &headers, b"{\"resourceLogs\": []}")
    };
    let refused: Vec<Reply> = (0..12).map(|_| send(None)).collect();
    assert_eq!(refused[0].status, 401, "{}", refused[0].body);
    let last = refused.last().unwrap();
    assert!(last.status == 429 && last.header("retry-after").is_some(), "{} {}", last.status, last.body);
    server.home.audited(|r| r["transport"] == "otlp" && r["rule"] == "address-rate" && r["decision"] == "deny");
    for _ in 0..20 {
        let sent = send(Some(&key));
        assert_eq!(sent.status, 200, "{}", sent.body);
    }
}

#[test]
fn the_answer_to_whether_the_server_lives_is_one_word_and_bounded() {
    let server = Server::start("limits: {address: {per_second: 1, burst: 5}}\n");
    let answers: Vec<Reply> = (0..12).map(|_| get(server.mcp, "/healthz")).collect();
    assert_eq!((answers[0].status, answers[0].body.as_str()), (200, "ok"));
    let last = answers.last().unwrap();
    assert!(last.status == 429 && last.header("retry-after").is_some(), "{} {}", last.status, last.body);
    server.home.audited(|r| r["transport"] == "http" && r["rule"] == "address-rate" && r["decision"] == "deny");
}

#[test]
fn a_stream_ends_with_the_key_that_opened_it() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let (mut headers, body) =
        modern_request("subscriptions/listen", &json!({"notifications": {"toolsListChanged": true}}), &json!({}));
    headers.push(("Authorization".into(), format!("Bearer {key}")));
    let mut stream = TcpStream::connect(server.mcp).unwrap();
    write!(stream, "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", server.mcp, body.len()).unwrap();
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n").unwrap();
    }
    write!(stream, "\r\n{body}").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("acknowledged") {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..read]);
    }
    server.home.run_ok(&["key", "revoke", key.split('_').nth(1).unwrap()]);
    let revoked = Instant::now();
    while !seen.ends_with(b"0\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        seen.extend_from_slice(&chunk[..read]);
    }
    assert!(revoked.elapsed() < Duration::from_secs(2), "{:?}", revoked.elapsed());
    assert!(!String::from_utf8_lossy(&seen).contains("list_changed"), "{}", String::from_utf8_lossy(&seen));
    server.home.audited(|r| r["rule"] == "credential-ended" && r["decision"] == "deny");
    assert_eq!(server.call(Some(&key), "list_sources", &json!({})).status, 401);
}

//! What one caller or stranger does to the others: a guesser behind the same proxy, a flood at the doors, a key that was
//! taken back while it listens. Each refusal is seen at the door and in the audit log.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Home, Reply, Server, modern, modern_headers, post, read_reply};
use crate::visitor::modern_request;

/// A call as a proxy sends it on for the client at `from`.
fn through_proxy(server: &Server, from: &str, authorization: Option<&str>) -> Reply {
    let mut headers = modern_headers("list_sources");
    headers.push(("X-Forwarded-For".into(), from.into()));
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
    let home = Home::new("listen: {mcp: 'MCP_ADDRESS', trusted_proxies: ['127.0.0.1']}\n");
    let key = home.key(&["--role", "reader"]);
    let chosen = home.chosen_key();
    let server = Server::start_in(home);
    for _ in 0..21 {
        assert_eq!(through_proxy(&server, "198.51.100.7", Some("Bearer wrong")).status, 401);
    }
    assert_eq!(through_proxy(&server, "198.51.100.7", Some("Bearer wrong")).status, 429, "the guesser has to wait");
    let record = server.home.audited(|r| r["kind"] == "lockout");
    assert_eq!((&record["client"], &record["via"]), (&json!("198.51.100.7"), &json!("127.0.0.1")), "{record}");
    for credential in [&key, &chosen] {
        let reply = through_proxy(&server, "198.51.100.8", Some(&format!("Bearer {credential}")));
        assert_eq!(reply.status, 200, "behind the same proxy: {}", reply.body);
    }
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
    server.home.audited(|r| r["transport"] == "otlp-http" && r["rule"] == "address-rate" && r["decision"] == "deny");
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

/// A stream that listens for changes, open and acknowledged.
fn listening(server: &Server, key: &str) -> (TcpStream, Vec<u8>) {
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
    (stream, seen)
}

/// Reads to the end of the stream; when that came, and everything that was seen.
fn ended((mut stream, mut seen): (TcpStream, Vec<u8>)) -> (Instant, String) {
    let mut chunk = [0; 4096];
    while !seen.ends_with(b"0\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        seen.extend_from_slice(&chunk[..read]);
    }
    (Instant::now(), String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn a_stream_ends_with_the_key_that_opened_it() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let open = listening(&server, &key);
    server.home.run_ok(&["key", "revoke", key.split('_').nth(1).unwrap()]);
    let revoked = Instant::now();
    let (at, seen) = ended(open);
    assert!(at.duration_since(revoked) < Duration::from_secs(2), "{:?}", at.duration_since(revoked));
    assert!(!seen.contains("list_changed"), "{seen}");
    server.home.audited(|r| r["rule"] == "credential-ended" && r["decision"] == "deny");
    assert_eq!(server.call(Some(&key), "list_sources", &json!({})).status, 401);
}

#[test]
fn a_stream_of_an_old_secret_ends_with_the_overlap_and_one_of_the_new_secret_goes_on() {
    let home = Home::new("");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let opened_before = listening(&server, &key);
    let overlap = Duration::from_secs(4);
    let asked = Instant::now();
    let rotated = server.home.run_ok(&["key", "rotate", key.split('_').nth(1).unwrap(), "--overlap", "4s", "--json"]);
    let done = Instant::now();
    let rotated: serde_json::Value = serde_json::from_str(&rotated).unwrap();
    let new = rotated["key"].as_str().unwrap();
    while server.call(Some(new), "list_sources", &json!({})).status != 200 {
        assert!(done.elapsed() < overlap, "the new secret is not known");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (opened_meanwhile, with_new) = (listening(&server, &key), listening(&server, new));
    for open in [opened_before, opened_meanwhile] {
        let (at, seen) = ended(open);
        assert!(at.duration_since(asked) >= overlap, "it ended before the overlap: {:?}", at.duration_since(asked));
        assert!(at.duration_since(done) < overlap + Duration::from_secs(2), "{:?}", at.duration_since(done));
        assert!(!seen.contains("list_changed"), "{seen}");
    }
    assert_eq!(server.call(Some(&key), "list_sources", &json!({})).status, 401, "the old secret is over");
    server.home.audited(|r| r["rule"] == "credential-ended" && r["decision"] == "deny");
    let (mut stream, _) = with_new;
    stream.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    let waited = stream.read(&mut [0; 64]).map_err(|error| error.kind());
    let is_open = matches!(waited, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) | Ok(1..));
    assert!(is_open, "the stream of the new secret ended: {waited:?}");
    assert_eq!(server.call(Some(new), "list_sources", &json!({})).status, 200);
}

//! The way in: names, origins, credentials, sizes, strict JSON, admission.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use portcullis_mcp::HttpSettings;
use portcullis_model::FaultCode;
use serde_json::{Value, json};

use crate::house::{ACCEPT, JSON, Served, Sleepers, meta, served};
use crate::http::Reply;

async fn raw(served: &Served, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut connection = served.connect().await;
    connection.send("POST", "/mcp", headers, body).await;
    connection.reply().await
}

/// A good `tools/list` of the stateless revision, as text.
fn list() -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": meta(&json!({}))}}).to_string()
}

fn good(authorization: &str) -> Vec<(&str, &str)> {
    vec![ACCEPT, JSON, ("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/list"), ("Authorization", authorization)]
}

#[tokio::test]
async fn host_and_origin_are_checked_on_every_route() {
    let served = served(HttpSettings::default()).await;
    for path in ["/mcp", "/healthz", "/nowhere"] {
        for bad in [("Host", "evil.example"), ("Origin", "http://evil.example"), ("Origin", "null")] {
            let mut connection = served.connect().await;
            connection.send("GET", path, &[bad], "").await;
            let reply = connection.reply().await;
            assert_eq!(reply.status(), 403, "{path} {bad:?}");
            assert_eq!(reply.head.header("x-content-type-options"), Some("nosniff"));
        }
    }
    let authorization = format!("Bearer {}", served.house.one);
    let own = format!("http://localhost:{}", served.address.port());
    let mut headers = good(&authorization);
    headers.push(("Origin", &own));
    assert_eq!(raw(&served, &headers, &list()).await.status(), 200);
    headers.pop();
    headers.push(("Origin", "http://evil.example"));
    assert_eq!(raw(&served, &headers, &list()).await.status(), 403);
    let mut connection = served.connect().await;
    connection.send("GET", "/healthz", &[], "").await;
    let reply = connection.reply().await;
    assert_eq!((reply.status(), reply.body.as_str(), reply.head.header("cache-control")), (200, "ok", Some("no-store")));
}

#[tokio::test]
async fn without_a_good_credential_there_is_a_challenge_and_a_record() {
    let served = served(HttpSettings::default()).await;
    let wrong = format!("Bearer {}x", &served.house.one[..served.house.one.len() - 1]);
    for (authorization, words) in [
        (None, "Bearer realm=\"portcullis\""),
        (Some(wrong.as_str()), "error=\"invalid_token\""),
        (Some("Basic YTpi"), "error=\"invalid_token\""),
    ] {
        let mut headers = good(authorization.unwrap_or_default());
        if authorization.is_none() {
            headers.pop();
        }
        let reply = raw(&served, &headers, &list()).await;
        assert_eq!(reply.status(), 401);
        assert!(reply.head.header("www-authenticate").unwrap().contains(words), "{:?}", reply.head);
        assert_eq!(reply.json()["error"]["data"]["code"], "unauthenticated");
        assert_eq!(served.house.memory.last().method, "authenticate");
        assert!(!served.house.memory.last().allowed);
    }
    let authorization = format!("Bearer {}", served.house.one);
    let mut headers = good(&authorization);
    headers.push(("Authorization", "Bearer other"));
    assert_eq!(raw(&served, &headers, &list()).await.status(), 400);
}

#[tokio::test]
async fn bodies_are_bounded_declared_or_not() {
    let served = served(HttpSettings { body_limit: 2_000, ..HttpSettings::default() }).await;
    let authorization = format!("Bearer {}", served.house.one);
    let mut headers = good(&authorization);
    let reply = raw(&served, &headers, &"x".repeat(3_000)).await;
    assert_eq!((reply.status(), &reply.json()["error"]["data"]["code"]), (413, &json!("too_large")));
    headers.push(("Transfer-Encoding", "chunked"));
    let mut connection = served.connect().await;
    connection.send("POST", "/mcp", &headers, "").await;
    for _ in 0..3 {
        connection.write(format!("3e8\r\n{}\r\n", "x".repeat(1_000)).as_bytes()).await;
    }
    assert_eq!(connection.reply().await.status(), 413);
}

#[tokio::test]
async fn what_two_readers_could_understand_differently_is_refused() {
    let served = served(HttpSettings::default()).await;
    let authorization = format!("Bearer {}", served.house.one);
    let deep = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    for (body, code, word) in [
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/list"}"#, -32600, "'method' appears twice"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","Method":"tools/list"}"#, -32600, "differ only in case"),
        (deep.as_str(), -32600, "deeper than 32"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"\ud800"}"#, -32700, "not valid JSON"),
        (r#"{"jsonrpc":"2.0","id":7"#, -32700, "not valid JSON"),
        ("", -32700, "not valid JSON"),
        (r#"[{"jsonrpc":"2.0","id":7,"method":"tools/list"}]"#, -32600, "batches are served only"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#, -32600, "not a JSON-RPC 2.0 message"),
        ("7", -32600, "not a JSON-RPC 2.0 message"),
    ] {
        let reply = raw(&served, &good(&authorization), body).await;
        assert_eq!(reply.status(), 400, "{body}: {}", reply.body);
        assert_eq!(reply.json()["error"]["code"], code, "{body}: {}", reply.body);
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(word), "{body}: {}", reply.body);
    }
    let mut headers = good(&authorization);
    headers[1] = ("Content-Type", "text/plain");
    assert_eq!(raw(&served, &headers, &list()).await.status(), 415);
    headers[1] = JSON;
    headers[0] = ("Accept", "application/json");
    let reply = raw(&served, &headers, &list()).await;
    assert_eq!((reply.status(), &reply.json()["id"]), (406, &json!(7)));
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_slow_senders_lose_their_place() {
    let settings = HttpSettings {
        in_flight: 1,
        admission_time: Duration::from_millis(50),
        body_time: Duration::from_millis(200),
        ..HttpSettings::default()
    };
    let served = served(settings).await;
    let mut busy = served.connect().await;
    served.send_modern(&mut busy, &served.house.one, "tools/call", json!({"name": "sleep", "arguments": {}})).await;
    Sleepers::until(&served.house.sleepers.running, 1).await;
    let reply = served.call("echo", json!({})).await;
    assert_eq!((reply.status(), reply.head.header("retry-after")), (503, Some("1")));
    drop(busy);
    Sleepers::until(&served.house.sleepers.dropped, 1).await;
    let authorization = format!("Bearer {}", served.house.one);
    let mut headers = good(&authorization);
    headers.push(("Content-Length", "1000"));
    let started = Instant::now();
    assert_eq!(raw(&served, &headers, "{").await.status(), 408);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(served.call("echo", json!({})).await.status(), 200);
}

#[tokio::test]
async fn a_stop_ends_streams_at_once_and_lets_calls_end() {
    let served = served(HttpSettings::default()).await;
    let mut stream = served.connect().await;
    let filter = json!({"notifications": {"toolsListChanged": true}});
    served.send_modern(&mut stream, &served.house.one, "subscriptions/listen", filter).await;
    assert_eq!(stream.head().await.status, 200);
    assert_eq!(stream.event().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    let started = Instant::now();
    served.closing.cancel();
    let last = stream.event().await.expect("a final result");
    assert_eq!(last["result"]["resultType"], "complete");
    served.serving.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn get_and_delete_do_not_exist_in_the_stateless_revision() {
    let served = served(HttpSettings::default()).await;
    let authorization = format!("Bearer {}", served.house.one);
    for method in ["GET", "DELETE", "PUT"] {
        let mut connection = served.connect().await;
        let headers = [ACCEPT, ("MCP-Protocol-Version", "2026-07-28"), ("Authorization", authorization.as_str())];
        connection.send(method, "/mcp", &headers, "").await;
        let reply = connection.reply().await;
        assert_eq!(reply.status(), 405, "{method}");
        assert!(reply.head.header("allow").unwrap().contains("POST"));
    }
}

#[tokio::test]
async fn records_name_the_caller_and_never_more_than_they_should() {
    let served = served(HttpSettings::default()).await;
    let reply = served.call("echo", json!({"text": "hunter2hunter2"})).await;
    let message: Value = reply.json();
    assert!(!reply.body.contains("hunter2hunter2\"") || message["result"]["structuredContent"]["text"] == "hunter2hunter2");
    assert!(message["result"]["content"][0]["text"].as_str().unwrap().contains("[redacted"), "{}", reply.body);
    let record = served.house.memory.last();
    assert_eq!((record.method, record.target.as_str(), record.allowed), ("tools/call", "echo", true));
    assert_eq!(record.code, None::<FaultCode>);
    assert!(record.principal.unwrap().id.as_str().starts_with("key:"));
}

#[tokio::test]
async fn one_principal_cannot_take_every_place_with_bodies_that_do_not_come() {
    let settings = HttpSettings {
        in_flight: 4,
        in_flight_per_principal: 2,
        admission_time: Duration::from_millis(200),
        ..HttpSettings::default()
    };
    let served = served(settings).await;
    let (one, two) = (format!("Bearer {}", served.house.one), format!("Bearer {}", served.house.two));
    let mut slow = Vec::new();
    for _ in 0..6 {
        let mut connection = served.connect().await;
        let mut head = format!("POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n", served.address);
        for (name, value) in good(&one) {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        connection.write(format!("{head}\r\n{{").as_bytes()).await;
        slow.push(connection);
    }
    let share = || served.house.memory.all().iter().filter(|end| end.rule.as_ref() == "in-flight-share").count();
    let until = Instant::now() + Duration::from_secs(10);
    while share() < 4 {
        assert!(Instant::now() < until, "{} of the six were refused", share());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(raw(&served, &good(&two), &list()).await.status(), 200, "somebody else is served");
    let refused = raw(&served, &good(&one), &list()).await;
    assert_eq!((refused.status(), refused.head.header("retry-after")), (429, Some("1")));
    drop(slow);
    let until = Instant::now() + Duration::from_secs(10);
    while raw(&served, &good(&one), &list()).await.status() != 200 {
        assert!(Instant::now() < until, "the places are not given back");
    }
}

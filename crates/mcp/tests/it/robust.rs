//! Whatever arrives, the answer is a status: no panic, no hanging, no connection that costs nothing to hold.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use portcullis_mcp::{ConnectionSettings, HttpSettings, router};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::house::{House, house, initialize, meta, served_over};

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("jsonrpc".to_owned()),
        Just("id".to_owned()),
        Just("method".to_owned()),
        Just("params".to_owned()),
        Just("_meta".to_owned()),
        Just("name".to_owned()),
        Just("arguments".to_owned()),
        Just("tools/call".to_owned()),
        Just("initialize".to_owned()),
        Just("notifications/cancelled".to_owned()),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// A good message of some kind, with one part replaced by anything.
fn mutated() -> impl Strategy<Value = Value> {
    let methods = ["tools/call", "tools/list", "resources/read", "prompts/get", "completion/complete", "subscriptions/none"];
    let parts = ["/id", "/method", "/params", "/params/name", "/params/arguments", "/params/_meta", "/jsonrpc"];
    (prop::sample::select(methods.to_vec()), prop::sample::select(parts.to_vec()), any_json()).prop_map(|(method, part, junk)| {
        let params = json!({"name": "echo", "arguments": {"text": "x"}, "uri": "house://book", "_meta": meta(&json!({}))});
        let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        if let Some(place) = message.pointer_mut(part) {
            *place = junk;
        }
        message
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        mutated().prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(mutated(), 0..4).prop_map(|batch| Value::Array(batch).to_string().into_bytes()),
        (mutated(), 0..400_usize).prop_map(|(value, cut)| value.to_string().into_bytes().into_iter().take(cut).collect()),
    ]
}

fn any_headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names =
        ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id", "mcp-param-text", "last-event-id", "traceparent"];
    let values = prop_oneof![
        prop::sample::select(
            &["2026-07-28", "2025-03-26", "2025-11-25", "tools/call", "echo", "=?base64?ZWNobw==?=", "=?base64?"][..]
        )
        .prop_map(|text| text.as_bytes().to_vec()),
        "[ -~]{0,30}".prop_map(String::into_bytes),
        prop::collection::vec(0x80_u8.., 0..8),
    ];
    prop::collection::vec((prop::sample::select(names.to_vec()), values), 0..6)
}

async fn ask(routes: &Router, house: &House, method: &str, headers: &[(&str, Vec<u8>)], body: Vec<u8>) -> StatusCode {
    let mut request = Request::builder()
        .method(method)
        .uri("/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("authorization", format!("Bearer {}", house.one));
    for (name, value) in headers {
        request = request.header(*name, value.as_slice());
    }
    let Ok(request) = request.body(Body::from(body)) else { return StatusCode::BAD_REQUEST };
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    // A listening stream stays open; everything else ends by itself.
    let reading = tokio::time::timeout(Duration::from_millis(200), response.into_body().collect());
    if let Ok(read) = reading.await {
        read.unwrap();
    }
    status
}

#[test]
fn whatever_arrives_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (routes, house, session) = runtime.block_on(async {
        let house = house(0).await;
        let routes = router(house.gateway.clone(), HttpSettings::default());
        let mut hello = initialize(json!({}));
        hello["params"]["protocolVersion"] = json!("2025-03-26");
        let request = Request::post("/mcp")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("authorization", format!("Bearer {}", house.one))
            .body(Body::from(hello.to_string()))
            .unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        let session = response.headers()["mcp-session-id"].as_bytes().to_vec();
        (routes, house, session)
    });
    let methods = prop::sample::select(&["POST", "POST", "POST", "POST", "PUT", "DELETE", "BREW"][..]);
    let strategy = (methods, any_headers(), any::<bool>(), any_body());
    let mut runner = TestRunner::new(Config { cases: 400, ..Config::default() });
    let run = runner.run(&strategy, |(method, mut headers, in_session, body)| {
        // The session must outlive the test, so only messages go into it.
        if in_session && method == "POST" {
            headers.retain(|(name, _)| *name != "mcp-session-id");
            headers.push(("mcp-session-id", session.clone()));
        }
        let status = runtime.block_on(ask(&routes, &house, method, &headers, body));
        prop_assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "an internal error");
        Ok(())
    });
    run.unwrap();
}

/// Waits until the server closes the connection; gives what it said before.
async fn closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut said));
    // A reset is an end as well.
    let _ = reading.await.expect("the server closes the connection in time");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_connection_that_sends_slowly_is_not_held() {
    let connections = ConnectionSettings { header_time: Duration::from_millis(300), ..ConnectionSettings::default() };
    let settings = HttpSettings { body_time: Duration::from_millis(300), ..HttpSettings::default() };
    let served = served_over(house(0).await, settings, connections).await;
    let connect = || async { TcpStream::connect(served.address).await.unwrap() };
    let started = Instant::now();
    let mut silent = connect().await;
    closed(&mut silent).await;
    let mut slow = connect().await;
    slow.write_all(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    let (mut reader, mut writer) = slow.into_split();
    let dripping = tokio::spawn(async move {
        for _ in 0..100 {
            if writer.write_all(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut said = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), reader.read_to_end(&mut said)).await;
    assert!(ended.is_ok(), "a head that drips in is not waited for");
    dripping.abort();
    let mut used = connect().await;
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(closed(&mut used).await.contains("200 OK"), "answered, and closed when nothing followed");
    assert!(started.elapsed() < Duration::from_secs(5), "three connections, each closed within its time");
}

#[tokio::test]
async fn a_body_that_drips_in_gets_its_time_and_no_more() {
    let settings = HttpSettings { body_time: Duration::from_millis(300), ..HttpSettings::default() };
    let served = served_over(house(0).await, settings, ConnectionSettings::default()).await;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: 1000\r\n\r\n",
        served.house.one
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let mut said = vec![0; 4_096];
    let dripping = async {
        loop {
            if writer.write_all(b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let read = tokio::select! {
        read = tokio::time::timeout(Duration::from_secs(5), reader.read(&mut said)) => read.expect("an answer in time").unwrap(),
        () = dripping => 0,
    };
    assert!(String::from_utf8_lossy(&said[..read]).starts_with("HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said[..read]));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_head_is_bounded() {
    let served = served_over(house(0).await, HttpSettings::default(), ConnectionSettings::default()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(80_000)).as_bytes())
        .await
        .unwrap();
    assert!(closed(&mut stream).await.starts_with("HTTP/1.1 431"));
}

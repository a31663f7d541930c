//! JSON-RPC batches over HTTP: in sessions of 2025-03-26 and nowhere else.

use std::time::Duration;

use portcullis_mcp::HttpSettings;
use serde_json::{Value, json};

use crate::house::{ACCEPT, JSON, Served, Sleepers, initialize, meta, request, served};
use crate::http::{Connection, Reply};

/// Opens a session of `version`.
async fn session(served: &Served, version: &str, capabilities: Value) -> String {
    let mut hello = initialize(capabilities);
    hello["params"]["protocolVersion"] = json!(version);
    let reply = served.legacy(&served.house.one, None, &hello).await;
    assert_eq!(reply.messages()[0]["result"]["protocolVersion"], version);
    let session = reply.head.header("mcp-session-id").unwrap().to_owned();
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(served, &session, None, &ready).await.status(), 202);
    session
}

/// Sends a message as 2025-03-26 does, which knows no version header.
async fn send(served: &Served, session: &str, version: Option<&str>, body: &Value) -> Connection {
    let authorization = format!("Bearer {}", served.house.one);
    let mut headers = vec![ACCEPT, JSON, ("Mcp-Session-Id", session), ("Authorization", authorization.as_str())];
    headers.extend(version.map(|version| ("MCP-Protocol-Version", version)));
    let mut connection = served.connect().await;
    connection.send("POST", "/mcp", &headers, &body.to_string()).await;
    connection
}

async fn post(served: &Served, session: &str, version: Option<&str>, body: &Value) -> Reply {
    send(served, session, version, body).await.reply().await
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    request(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

#[tokio::test]
async fn every_message_of_a_batch_walks_the_road_by_itself() {
    let served = served(HttpSettings::default()).await;
    let session = session(&served, "2025-03-26", json!({})).await;
    let before = served.house.memory.all().len();
    let batch = json!([
        call(1, "echo", json!({"text": "a"})),
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}},
        call(2, "wipe", json!({})),
        call(3, "echo", json!({"txt": "a"})),
        request(4, "tools/list", json!({})),
        {"id": 5},
        [call(6, "echo", json!({}))],
        request(7, "no/such", json!({})),
    ]);
    for version in [None, Some("2025-03-26")] {
        let reply = post(&served, &session, version, &batch).await;
        assert_eq!((reply.status(), reply.head.header("content-type")), (200, Some("application/json")), "{}", reply.body);
        let answers = reply.json().as_array().unwrap().clone();
        let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
        assert_eq!(ids, [&json!(1), &json!(2), &json!(3), &json!(4), &json!(5), &Value::Null, &json!(7)], "{answers:?}");
        assert_eq!(answers[0]["result"]["structuredContent"]["text"], "a");
        assert_eq!(answers[1]["error"]["message"], "unknown tool: wipe", "what may not be called alone may not be called here");
        assert_eq!(answers[2]["result"]["isError"], true);
        assert!(answers[3]["result"]["tools"].as_array().unwrap().len() > 3);
        for unreadable in [&answers[4], &answers[5]] {
            assert!(unreadable["error"]["message"].as_str().unwrap().contains("not a JSON-RPC 2.0 message"), "{unreadable}");
        }
        assert_eq!(answers[6]["error"]["code"], -32601);
    }
    let records = served.house.memory.all().split_off(before);
    let calls = |target: &str| records.iter().filter(|end| end.target == target).count();
    assert_eq!((calls("echo"), calls("wipe")), (4, 2), "each has its own record, in each of the two batches");
    assert!(records.iter().all(|end| end.session.as_deref() == Some(session.as_str())));
}

#[tokio::test]
async fn a_batch_without_requests_is_accepted_and_a_long_one_is_answered_whole() {
    let served = served(HttpSettings::default()).await;
    let session = session(&served, "2025-03-26", json!({})).await;
    let told = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
    let reply = post(&served, &session, None, &json!([told, told])).await;
    assert_eq!((reply.status(), reply.body.as_str()), (202, ""));
    let many = Value::Array((0..50).map(|id| call(id, "echo", json!({"text": id.to_string()}))).collect());
    let answers = post(&served, &session, None, &many).await.json();
    for (id, answer) in answers.as_array().unwrap().iter().enumerate() {
        assert_eq!(answer["result"]["structuredContent"]["text"], id.to_string(), "{answer}");
    }
    assert_eq!(answers.as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_whole_and_recorded() {
    let served = served(HttpSettings::default()).await;
    let session = session(&served, "2025-03-26", json!({})).await;
    let ping = |id: u64| request(id, "ping", json!({}));
    for (batch, word) in [
        (json!([]), "empty"),
        (Value::Array((0..51).map(ping).collect()), "at most 50"),
        (json!([ping(1), initialize(json!({}))]), "initialize"),
        (json!([ping(1), ping(1)]), "id 1"),
    ] {
        let reply = post(&served, &session, None, &batch).await;
        assert_eq!((reply.status(), &reply.json()["error"]["code"]), (400, &json!(-32600)), "{}", reply.body);
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(word), "{}", reply.body);
        assert_eq!(served.house.memory.last().rule.as_ref(), "batch");
    }
}

#[tokio::test]
async fn every_other_era_refuses_arrays() {
    let served = served(HttpSettings::default()).await;
    let batch = json!([request(1, "ping", json!({}))]);
    let refused = |reply: Reply| {
        assert_eq!((reply.status(), &reply.json()["error"]["code"]), (400, &json!(-32600)), "{}", reply.body);
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("2025-03-26"), "{}", reply.body);
    };
    for version in ["2025-06-18", "2025-11-25"] {
        let session = session(&served, version, json!({})).await;
        refused(post(&served, &session, Some(version), &batch).await);
        refused(post(&served, &session, Some("2025-03-26"), &batch).await);
    }
    let old = session(&served, "2025-03-26", json!({})).await;
    refused(post(&served, &old, Some("2025-11-25"), &batch).await);
    let modern = json!([{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta(&json!({}))}}]);
    refused(post(&served, &old, Some("2026-07-28"), &modern).await);
    refused(served.legacy(&served.house.one, None, &batch).await);
    let authorization = format!("Bearer {}", served.house.one);
    let mut connection = served.connect().await;
    let headers =
        [ACCEPT, JSON, ("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/list"), ("Authorization", &authorization)];
    connection.send("POST", "/mcp", &headers, &modern.to_string()).await;
    refused(connection.reply().await);
    // A message by position is no message either, however quick the way.
    let call = json!(["2.0", 1, "tools/call", {"name": "echo", "arguments": {}, "_meta": meta(&json!({}))}]);
    let mut connection = served.connect().await;
    let headers = [
        ACCEPT,
        JSON,
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "echo"),
        ("Authorization", &authorization),
    ];
    connection.send("POST", "/mcp", &headers, &call.to_string()).await;
    refused(connection.reply().await);
}

#[tokio::test]
async fn a_foreign_session_takes_no_batch() {
    let served = served(HttpSettings::default()).await;
    let session = session(&served, "2025-03-26", json!({})).await;
    let reply = served.legacy(&served.house.two, Some(&session), &json!([request(1, "ping", json!({}))])).await;
    assert_eq!(reply.status(), 404);
}

#[tokio::test]
async fn words_and_questions_come_before_the_answers() {
    let served = served(HttpSettings::default()).await;
    let session = session(&served, "2025-03-26", json!({"elicitation": {}})).await;
    let reporting = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "report", "arguments": {}, "_meta": {"progressToken": "p"}}});
    let mut stream = send(&served, &session, None, &json!([reporting, call(2, "ask", json!({}))])).await;
    let head = stream.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let (mut progress, mut last) = (0, Value::Null);
    while last.is_null() {
        let event = stream.event().await.expect("the answers come last");
        match event["method"].as_str() {
            Some("notifications/progress") => progress += 1,
            Some("elicitation/create") => {
                let answer =
                    json!({"jsonrpc": "2.0", "id": event["id"], "result": {"action": "accept", "content": {"name": "Bo"}}});
                assert_eq!(post(&served, &session, None, &json!([answer])).await.status(), 202, "answers may come as a batch");
            }
            Some(_) => {}
            None => last = event,
        }
    }
    assert_eq!(progress, 2);
    assert_eq!(last[0]["result"]["content"][0]["text"], "reported", "{last}");
    assert_eq!(last[1]["result"]["content"][0]["text"], "hello \"Bo\"");
    assert!(stream.event().await.is_none(), "the stream ends with the answers");
}

#[tokio::test]
async fn cancelling_one_request_leaves_the_others() {
    let served = served(HttpSettings::default()).await;
    let session = session(&served, "2025-03-26", json!({})).await;
    let mut stream = send(&served, &session, None, &json!([call(1, "sleep", json!({})), call(2, "echo", json!({}))])).await;
    Sleepers::until(&served.house.sleepers.running, 1).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(post(&served, &session, None, &cancel).await.status(), 202);
    let reply = tokio::time::timeout(Duration::from_secs(5), stream.reply()).await.expect("the batch does not wait for it");
    let answers = reply.json();
    assert_eq!((answers.as_array().unwrap().len(), &answers[0]["id"]), (1, &json!(2)), "{answers}");
}

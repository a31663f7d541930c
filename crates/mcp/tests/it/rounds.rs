//! Calls that need answers from the client, in every era.

use std::time::{Duration, Instant};

use portcullis_mcp::{HttpSettings, SessionsFor};
use serde_json::{Value, json};

use crate::house::{ACCEPT, JSON, Served, meta, request, served};

async fn ask(served: &Served, key: &str, extra: Value) -> Value {
    let mut params = json!({"name": "ask", "arguments": {}, "_meta": meta(&json!({"elicitation": {}}))});
    params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    served.modern(key, "tools/call", params).await.json()
}

#[tokio::test]
async fn a_sealed_state_comes_back_once_from_the_same_caller() {
    let served = served(HttpSettings::default()).await;
    let (one, two) = (&served.house.one, &served.house.two);
    let first = ask(&served, one, json!({})).await["result"].clone();
    assert_eq!(
        (&first["resultType"], &first["inputRequests"]["q"]["method"]),
        (&json!("input_required"), &json!("elicitation/create"))
    );
    let state = first["requestState"].as_str().unwrap();
    let answers = json!({"q": {"action": "accept", "content": {"name": "Ana"}}});
    let forged = json!({"inputResponses": answers, "requestState": format!("{state}x")});
    assert_eq!(ask(&served, one, forged).await["error"]["code"], -32602);
    let retry = json!({"inputResponses": answers, "requestState": state});
    assert_eq!(ask(&served, two, retry.clone()).await["error"]["code"], -32602, "another principal");
    assert_eq!(served.house.memory.last().rule.as_ref(), "request-state");
    assert_eq!(ask(&served, one, retry.clone()).await["result"]["content"][0]["text"], "hello \"Ana\"");
    assert_eq!(ask(&served, one, retry).await["error"]["code"], -32602, "used twice");
    let fresh = ask(&served, one, json!({"inputResponses": answers})).await;
    assert_eq!(fresh["result"]["resultType"], "input_required", "answers without the state start again");
}

#[tokio::test]
async fn a_client_is_never_asked_what_it_did_not_declare() {
    let served = served(HttpSettings::default()).await;
    let reply = served.call("ask", json!({})).await;
    let error = reply.json()["error"].clone();
    assert_eq!((reply.status(), &error["code"]), (400, &json!(-32021)));
    assert_eq!(error["data"]["requiredCapabilities"], json!({"elicitation": {}}));
    let session = served.session(&served.house.one, json!({})).await;
    let call = request(1, "tools/call", json!({"name": "ask", "arguments": {}}));
    let messages = served.legacy(&served.house.one, Some(&session), &call).await.messages();
    let result = messages.last().unwrap()["result"].clone();
    assert_eq!(result["isError"], true, "{messages:?}");
    assert!(result["content"][0]["text"].as_str().unwrap().contains("elicitation/create"));
}

#[tokio::test]
async fn in_a_session_the_question_is_a_request_of_its_own() {
    let served = served(HttpSettings::default()).await;
    let one = served.house.one.clone();
    let session = served.session(&one, json!({"elicitation": {}})).await;
    let mut stream = served.connect().await;
    let call = request(1, "tools/call", json!({"name": "ask", "arguments": {}}));
    served.send_legacy(&mut stream, &one, Some(&session), &call).await;
    assert_eq!(stream.head().await.status, 200);
    let question = stream.event().await.unwrap();
    assert_eq!((&question["method"], &question["params"]["message"]), (&json!("elicitation/create"), &json!("who?")));
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Bo"}}});
    assert_eq!(served.legacy(&one, Some(&session), &answer).await.status(), 202);
    assert_eq!(stream.event().await.unwrap()["result"]["content"][0]["text"], "hello \"Bo\"");
    // A client that refuses is told so instead of being asked again.
    let mut stream = served.connect().await;
    served.send_legacy(&mut stream, &one, Some(&session), &request(2, "tools/call", json!({"name": "ask"}))).await;
    stream.head().await;
    let question = stream.event().await.unwrap();
    let refusal = json!({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "no"}});
    assert_eq!(served.legacy(&one, Some(&session), &refusal).await.status(), 202);
    assert_eq!(stream.event().await.unwrap()["result"]["isError"], true);
}

#[tokio::test]
async fn without_a_session_the_question_is_refused_at_once() {
    let served = served(HttpSettings { sessions: SessionsFor::Nobody, ..HttpSettings::default() }).await;
    let authorization = format!("Bearer {}", served.house.one);
    let started = Instant::now();
    let mut connection = served.connect().await;
    let headers = [ACCEPT, JSON, ("MCP-Protocol-Version", "2025-11-25"), ("Authorization", authorization.as_str())];
    let call = request(1, "tools/call", json!({"name": "ask", "arguments": {}}));
    connection.send("POST", "/mcp", &headers, &call.to_string()).await;
    let messages = connection.reply().await.messages();
    assert_eq!(messages[0]["result"]["isError"], true, "{messages:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "it did not wait for an answer that cannot come");
}

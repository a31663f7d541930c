//! Standard streams: nothing but messages on the output, and every refusal says what was wrong.

use std::sync::Arc;
use std::time::Duration;

use portcullis_mcp::{StdioEnd, StdioError, serve_stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, split};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::house::{House, Sleepers, house, initialize, meta, request};

struct Client {
    house: House,
    input: WriteHalf<DuplexStream>,
    output: Lines<BufReader<ReadHalf<DuplexStream>>>,
    serving: JoinHandle<Result<StdioEnd, StdioError>>,
    stop: CancellationToken,
}

async fn client() -> Client {
    let house = house(0).await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let (read, write) = split(far);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_stream(Arc::clone(&house.gateway), read, write, stop.clone()));
    let (output, input) = split(near);
    Client { house, input, output: BufReader::new(output).lines(), serving, stop }
}

impl Client {
    async fn line(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).await.unwrap();
        self.input.write_all(b"\n").await.unwrap();
    }

    async fn say(&mut self, message: &Value) {
        self.line(&message.to_string()).await;
    }

    async fn hear(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(5), self.output.next_line()).await.expect("an answer in time");
        serde_json::from_str(&line.unwrap().expect("an answer")).expect("nothing but JSON on the output")
    }

    async fn open(&mut self) {
        self.open_as("2025-11-25").await;
    }

    async fn open_as(&mut self, version: &str) {
        let mut hello = initialize(json!({}));
        hello["params"]["protocolVersion"] = json!(version);
        self.say(&hello).await;
        let result = self.hear().await["result"].clone();
        assert_eq!((&result["serverInfo"]["name"], &result["protocolVersion"]), (&json!("portcullis"), &json!(version)));
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    }
}

#[tokio::test]
async fn a_conversation_as_the_local_user() {
    let mut client = client().await;
    client.open().await;
    client.say(&request(1, "tools/call", json!({"name": "echo", "arguments": {"text": "hi"}}))).await;
    let answer = client.hear().await;
    assert_eq!(answer["result"]["structuredContent"]["who"], "local:tester");
    assert_eq!(client.house.memory.last().transport.as_str(), "stdio");
    drop(client.input);
    drop(client.output);
    assert_eq!(client.serving.await.unwrap().unwrap(), StdioEnd::ClientLeft);
}

#[tokio::test]
async fn the_stateless_revision_needs_no_handshake() {
    let mut client = client().await;
    client.say(&request(1, "server/discover", json!({"_meta": meta(&json!({}))}))).await;
    assert_eq!(client.hear().await["result"]["supportedVersions"][3], "2026-07-28");
    let params = json!({"name": "echo", "arguments": {}, "_meta": meta(&json!({}))});
    client.say(&request(2, "tools/call", params)).await;
    assert_eq!(client.hear().await["result"]["resultType"], "complete");
    client
        .say(&request(3, "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}, "_meta": meta(&json!({}))})))
        .await;
    assert_eq!(client.hear().await["method"], "notifications/subscriptions/acknowledged");
}

#[tokio::test]
async fn refusals_say_what_was_wrong_and_the_conversation_goes_on() {
    let mut client = client().await;
    client.open().await;
    for (line, code, word) in [
        ("{not json".to_owned(), -32700, "not valid JSON"),
        (r#"{"jsonrpc":"2.0","id":4,"method":"ping","id":5}"#.to_owned(), -32600, "'id' appears twice"),
        (r#"[{"jsonrpc":"2.0","id":4,"method":"ping"}]"#.to_owned(), -32600, "batches are served only"),
        (format!(r#"{{"jsonrpc":"2.0","id":4,"method":"{}"}}"#, "x".repeat(1 << 20)), -32600, "larger than"),
        (r#"{"id":4}"#.to_owned(), -32600, "not a JSON-RPC 2.0 message"),
    ] {
        client.line(&line).await;
        let answer = client.hear().await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(word), "{answer}");
    }
    client.line("").await;
    client.say(&request(9, "ping", json!({}))).await;
    assert_eq!(client.hear().await, json!({"jsonrpc": "2.0", "id": 9, "result": {}}));
}

#[tokio::test]
async fn cancelling_and_stopping_drop_the_call() {
    let mut client = client().await;
    client.open().await;
    client.say(&request(1, "tools/call", json!({"name": "sleep"}))).await;
    Sleepers::until(&client.house.sleepers.running, 1).await;
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
    Sleepers::until(&client.house.sleepers.dropped, 1).await;
    client.say(&request(2, "tools/call", json!({"name": "sleep"}))).await;
    Sleepers::until(&client.house.sleepers.running, 2).await;
    client.stop.cancel();
    Sleepers::until(&client.house.sleepers.dropped, 2).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), client.serving).await.unwrap().unwrap().unwrap(), StdioEnd::Stopped);
}

#[tokio::test]
async fn batches_are_served_where_they_were_agreed_upon() {
    let mut client = client().await;
    client.line(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#).await;
    assert_eq!(client.hear().await["error"]["code"], -32600, "not before the handshake");
    client.open_as("2025-03-26").await;
    let call = |id: u64, text: &str| request(id, "tools/call", json!({"name": "echo", "arguments": {"text": text}}));
    let told = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
    client
        .say(&json!([call(1, "a"), told, call(2, "b"), {"id": 3}, request(4, "tools/call", json!({"name": "nonesuch"}))]))
        .await;
    let mut answers = client.hear().await.as_array().expect("one array").clone();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers.iter().map(|a| a["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(answers[0]["result"]["structuredContent"]["text"], "a");
    assert_eq!(answers[1]["result"]["structuredContent"]["text"], "b");
    assert!(answers[2]["error"]["message"].as_str().unwrap().contains("not a JSON-RPC 2.0 message"));
    assert_eq!(answers[3]["error"]["code"], -32602);
    let targets: Vec<String> = client.house.memory.all().into_iter().map(|end| end.target).collect();
    assert_eq!(targets.iter().filter(|t| *t == "echo").count(), 2, "each call has its own record");
    // Notifications alone have no answer: the next line heard is that of the ping.
    client.say(&json!([told, told])).await;
    client.say(&request(5, "ping", json!({}))).await;
    assert_eq!(client.hear().await["id"], 5);
    for (batch, word) in [
        (json!([]), "empty"),
        (Value::Array((0..51).map(|id| request(id, "ping", json!({}))).collect()), "at most 50"),
        (json!([initialize(json!({}))]), "initialize"),
        (json!([call(1, "a"), call(1, "a")]), "id 1"),
    ] {
        client.say(&batch).await;
        let answer = client.hear().await;
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(word), "{answer}");
    }
    // More than run at once; all are answered, in one array.
    client.say(&Value::Array((0..50).map(|id| call(id, "x")).collect())).await;
    let answers = client.hear().await;
    assert!(answers.as_array().unwrap().iter().all(|a| a["result"]["isError"] == false), "{answers}");
    assert_eq!(answers.as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn a_cancelled_request_does_not_hold_its_batch() {
    let mut client = client().await;
    client.open_as("2025-03-26").await;
    client.say(&json!([request(1, "tools/call", json!({"name": "sleep"})), request(2, "ping", json!({}))])).await;
    Sleepers::until(&client.house.sleepers.running, 1).await;
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
    assert_eq!(client.hear().await, json!([{"jsonrpc": "2.0", "id": 2, "result": {}}]));
}

#[tokio::test]
async fn what_is_piped_in_is_answered_before_the_end() {
    let mut client = client().await;
    client.open_as("2025-03-26").await;
    let batch: Vec<Value> = (1..=20).map(|id| request(id, "tools/call", json!({"name": "echo", "arguments": {}}))).collect();
    client.say(&Value::Array(batch)).await;
    client.input.shutdown().await.unwrap();
    assert_eq!(client.hear().await.as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn an_id_under_way_is_refused_at_once_and_the_first_request_is_unharmed() {
    let mut client = client().await;
    client.open_as("2025-03-26").await;
    let sleep = request(7, "tools/call", json!({"name": "sleep"}));
    client.say(&sleep).await;
    Sleepers::until(&client.house.sleepers.running, 1).await;
    client.say(&sleep).await;
    let refused = client.hear().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32600)), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("id 7 is already in use"), "{refused}");
    assert_eq!(&*client.house.memory.last().rule, "request-id-in-use");
    // In a batch, the others are served.
    client.say(&json!([request(7, "ping", json!({})), request(8, "ping", json!({}))])).await;
    let answers = client.hear().await;
    let ids: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&Value::Null, &json!(8)], "{answers}");
    assert_eq!(client.house.sleepers.dropped.load(std::sync::atomic::Ordering::SeqCst), 0, "the first request goes on");
    client.house.sleepers.awake.notify_one();
    let answered = client.hear().await;
    assert_eq!((&answered["id"], &answered["result"]["isError"]), (&json!(7), &json!(false)), "{answered}");
    client.say(&request(7, "ping", json!({}))).await;
    assert_eq!(client.hear().await, json!({"jsonrpc": "2.0", "id": 7, "result": {}}), "answered, the id is free again");
}

#[tokio::test]
async fn what_cannot_be_read_leaves_a_record() {
    let mut client = client().await;
    client.open().await;
    for (line, rule) in [
        ("{not json".to_owned(), "strict-json"),
        (r#"[{"jsonrpc":"2.0","id":4,"method":"ping"}]"#.to_owned(), "batch"),
        (format!(r#"{{"jsonrpc":"2.0","id":4,"method":"{}"}}"#, "x".repeat(1 << 20)), "body-size"),
        (r#"{"id":4}"#.to_owned(), "protocol"),
    ] {
        client.line(&line).await;
        assert!(client.hear().await["error"].is_object());
        let end = client.house.memory.last();
        assert_eq!((&*end.rule, end.allowed, end.transport.as_str()), (rule, false, "stdio"));
        assert_eq!(end.principal.unwrap().id.as_str(), "local:tester");
    }
}

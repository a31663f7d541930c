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
        self.say(&initialize(json!({}))).await;
        assert_eq!(self.hear().await["result"]["serverInfo"]["name"], "portcullis");
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
        (r#"[{"jsonrpc":"2.0","id":4,"method":"ping"}]"#.to_owned(), -32600, "batches are not served"),
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

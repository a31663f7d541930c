//! A credential ends at the door: rmcp and the tools never get it, and no log, record or answer repeats it.
//!
//! What rmcp is given reaches the handler, which refuses a request that still holds a credential (unit test beside
//! `turn::caller`). So an answered request proves that it did not.

use std::io;
use std::sync::{Arc, Mutex};

use portcullis_mcp::HttpSettings;
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::house::{ACCEPT, JSON, Served, meta, request, served};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const SECRETS: [(&str, &str); 3] = [
    ("Cookie", "session=cookie-secret-1f4c"),
    ("Proxy-Authorization", "Basic proxy-secret-77aa"),
    ("X-Api-Key", "header-secret-90ee"),
];

/// Sends a message with a credential in every header that can hold one; gives status and body.
async fn send(served: &Served, key: &str, more: &[(&str, &str)], body: &str) -> (u16, String) {
    let authorization = format!("Bearer {key}");
    let mut headers = vec![ACCEPT, JSON, ("Authorization", authorization.as_str())];
    headers.extend(SECRETS);
    headers.extend(more);
    let mut connection = served.connect().await;
    connection.send("POST", "/mcp", &headers, body).await;
    let reply = connection.reply().await;
    (reply.status(), reply.body)
}

#[tokio::test]
async fn no_credential_passes_the_door_or_is_written_down() {
    let log = Log::default();
    let everything = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(everything);
    let served = served(HttpSettings::default()).await;
    let key = served.house.one.clone();
    let mut said = Vec::new();

    // The short way, the long way, and a refusal of each kind.
    let call = |tool: &str| {
        let params = json!({"name": tool, "arguments": {}, "_meta": meta(&json!({}))});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
    };
    let modern = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "echo")];
    let (status, body) = send(&served, &key, &modern, &call("echo")).await;
    assert_eq!(status, 200, "{body}");
    said.push(body);
    let mut traced = meta(&json!({}));
    traced["progressToken"] = json!("p");
    let long =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}, "_meta": traced}});
    let (status, body) = send(&served, &key, &modern, &long.to_string()).await;
    assert!(status == 200 && body.contains("structuredContent"), "rmcp was given no credential: {body}");
    said.push(body);
    for body in [call("wipe"), "{".to_owned(), "[1]".to_owned(), r#"{"id":1}"#.to_owned()] {
        let (status, body) = send(&served, &key, &modern, &body).await;
        assert_eq!(status, 400, "{body}");
        said.push(body);
    }
    let wrong = format!("{}x", &key[..key.len() - 1]);
    let (status, body) = send(&served, &wrong, &modern, &call("echo")).await;
    assert_eq!(status, 401);
    said.push(body);

    // A session: handshake, call, listening stream.
    let session = served.session(&key, json!({})).await;
    let legacy = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2025-11-25")];
    let message = request(2, "tools/call", json!({"name": "echo", "arguments": {}})).to_string();
    let (status, body) = send(&served, &key, &legacy, &message).await;
    assert!(status == 200 && body.contains("structuredContent"), "{body}");
    said.push(body);
    let mut stream = served.connect().await;
    let authorization = format!("Bearer {key}");
    let mut headers = vec![ACCEPT, ("Authorization", authorization.as_str())];
    headers.extend(SECRETS);
    headers.extend(legacy);
    stream.send("GET", "/mcp", &headers, "").await;
    assert_eq!(stream.head().await.status, 200);

    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("rmcp"), "rmcp's own words are in the log that is searched");
    let recorded = format!("{:?}", served.house.memory.all());
    assert!(recorded.contains("tools/call"));
    let forbidden = [key.as_str(), wrong.as_str(), "cookie-secret", "proxy-secret", "header-secret"];
    for (place, text) in [("log", &logged), ("records", &recorded), ("answers", &said.concat())] {
        for secret in forbidden {
            assert!(!text.contains(secret), "{secret} stands in the {place}");
        }
    }
}

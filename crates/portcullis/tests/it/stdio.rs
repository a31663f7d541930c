//! MCP over standard input and output: both eras, and nothing but protocol on standard output.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::server::Home;

fn converse(home: &Home, messages: &[Value]) -> Vec<Value> {
    let mut child = home.stdio(Stdio::piped());
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut replies = Vec::new();
    for message in messages {
        writeln!(input, "{message}").unwrap();
        if message.get("id").is_some() {
            let line = lines.next().expect("an answer").unwrap();
            replies.push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("not protocol: {e}: {line}")));
        }
    }
    drop(input);
    assert!(lines.next().is_none(), "silence after the last answer");
    assert!(child.wait().unwrap().success());
    replies
}

#[test]
fn the_session_era() {
    let home = Home::new("");
    let replies = converse(
        &home,
        &[
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}),
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
            json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "list_sources", "arguments": {}}}),
        ],
    );
    assert_eq!(replies[0]["result"]["protocolVersion"], "2025-06-18");
    assert!(replies[0]["result"]["instructions"].as_str().unwrap().contains("get_service_health"));
    let tools = replies[1]["result"]["tools"].as_array().unwrap();
    assert!(tools.len() >= 11 && tools.len() <= 16, "{} tools", tools.len());
    assert!(tools.iter().all(|t| t["annotations"]["readOnlyHint"] == true));
    assert!(
        replies[2]["result"]["structuredContent"]["coverage"].is_array() || replies[2]["result"]["structuredContent"].is_object(),
        "{}",
        replies[2]
    );
    let record = home.audited(|r| r["kind"] == "call");
    assert!(record["principal"].as_str().unwrap().starts_with("local:"), "{record}");
}

#[test]
fn the_stateless_era() {
    let home = Home::new("");
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let replies = converse(
        &home,
        &[
            json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "list_services", "arguments": {}, "_meta": meta}}),
        ],
    );
    assert!(replies[0]["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    assert_eq!(replies[1]["result"]["resultType"], "complete");
}

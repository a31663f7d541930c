//! The end of the demo: how to put one's own agent in front of this server. Guards that every line works as printed, with
//! the real address and the real key.

use serde_json::json;

use super::shop::FUTURE;
use super::stage::Stage;
use crate::terminal::{paint, say};

/// Prints it.
pub(super) fn show(stage: &Stage) {
    let url = format!("http://{}/mcp", stage.mcp);
    let key = stage.key.expose();
    say(paint::strong("\nNow ask yourself. This server stays up, and the shop goes on living:"));
    for (whom, how) in
        [("Claude Code", claude(&url, key)), ("Cursor (.cursor/mcp.json)", cursor(&url, key)), ("curl", curl(&url, key))]
    {
        say(format!("\n{}\n{how}", paint::strong(whom)));
    }
    say(paint::faint(&format!(
        "\nThe key is good for 24 hours and sees only this server; the shop closes in {} hours. Your own telemetry: OTLP to \
         http://{}. Ctrl-C ends it all.",
        FUTURE.as_secs() / 3_600,
        stage.otlp
    )));
}

fn claude(url: &str, key: &str) -> String {
    format!("claude mcp add --transport http portcullis {url} --header \"Authorization: Bearer {key}\"")
}

fn cursor(url: &str, key: &str) -> String {
    let server = json!({"url": url, "headers": {"Authorization": format!("Bearer {key}")}});
    json!({"mcpServers": {"portcullis": server}}).to_string()
}

/// A request of the stateless revision: version, method and name in headers and body alike.
fn curl(url: &str, key: &str) -> String {
    let body = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "get_service_health",
            "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "8"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    format!(
        "curl -sS {url} -H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json' \
         -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' \
         -H 'Mcp-Name: get_service_health' -d '{body}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_names_address_and_key() {
        let (url, key) = ("http://127.0.0.1:7468/mcp", "pc_abc");
        for text in [claude(url, key), cursor(url, key), curl(url, key)] {
            assert!(text.contains(url) && text.contains("Bearer pc_abc") && !text.contains('\n'), "{text}");
        }
        let body = curl(url, key);
        let body = body.split("-d '").nth(1).unwrap().trim_end_matches('\'');
        assert!(!body.contains('\''), "a quote would end the shell's word: {body}");
        let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(parsed["params"]["name"], "get_service_health");
    }
}

//! The five questions an on-call engineer asks, put to the tools by an MCP client. Guards that every question after the
//! first follows from an answer before it: no service, trace or moment is named here.

use std::fmt;
use std::time::{Duration, Instant};

use portcullis_mcp::{McpClient, McpClientError, ToolAnswer};
use portcullis_shape::tokens;
use serde_json::{Map, Value, json};

use crate::terminal::{paint, say};

/// Lines of one answer that are printed; the model reads them all.
const LINES: usize = 30;
/// Characters of one line that are printed.
const LINE_CHARS: usize = 360;

/// What the interview brought.
#[derive(Debug)]
pub(super) struct Report {
    /// The structured answer to the first question, on which the verdict rests.
    pub(super) health: Value,
    /// Calls that failed.
    pub(super) failed: usize,
    calls: usize,
    tokens: usize,
    took: Duration,
    tools: usize,
    list_tokens: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n{} tool calls{}, {} tokens of answers, {} ms; the list of {} tools costs {} tokens.",
            self.calls,
            if self.failed > 0 { format!(" ({} failed)", self.failed) } else { String::new() },
            self.tokens,
            self.took.as_millis(),
            self.tools,
            self.list_tokens
        )
    }
}

/// Asks all five questions and prints them with their answers.
pub(super) async fn hold(client: &McpClient) -> Result<Report, McpClientError> {
    let tools = client.list_tools().await?;
    let list = json!({"tools": tools.iter().map(|tool| &tool.definition).collect::<Vec<_>>()});
    say(paint::faint(&format!("MCP {}, {} tools, API key with role reader", client.protocol_version(), tools.len())));
    let mut desk = Desk { client, calls: 0, failed: 0, tokens: 0, took: Duration::ZERO };

    question(1, "Is anything wrong right now, and where does it start?");
    let health = desk.ask("get_service_health", json!({})).await?;
    let lead = Lead::of(&health);

    question(2, "Which messages are new there?");
    desk.ask("log_patterns", about(lead.suspect.as_deref(), json!({"level": "warn", "limit": 6}))).await?;

    question(3, "What do users feel?");
    for metric in ["error_rate", "latency_p95"] {
        let arguments = json!({"metric": metric, "aggregation": "average"});
        desk.ask("query_metrics", about(lead.entry.as_deref(), arguments)).await?;
    }

    question(4, "Show me one failing request, end to end.");
    let failing = about(lead.entry.as_deref(), json!({"errors_only": true, "limit": 5}));
    let found = desk.ask("query_traces", failing).await?;
    if let Some(trace) = telling_trace(&found, lead.suspect.as_deref()) {
        desk.ask("get_trace", json!({"trace_id": trace, "limit": 20})).await?;
    }

    question(5, "What ran out, and what was rolled out just before?");
    desk.ask("query_metrics", about(lead.suspect.as_deref(), json!({"metric": "saturation", "limit": 4}))).await?;
    let rollouts = match &lead.onset {
        Some(onset) => json!({"text": "rollout", "around": onset, "window": "20m"}),
        None => json!({"text": "rollout", "window": "30m"}),
    };
    desk.ask("query_logs", rollouts).await?;

    let Desk { calls, failed, tokens, took, .. } = desk;
    Ok(Report { health, failed, calls, tokens, took, tools: tools.len(), list_tokens: tokens::estimate(&list.to_string()) })
}

/// Where the first answer leads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lead {
    /// The service suspected first, or the one worst off when nobody is suspected.
    suspect: Option<String>,
    /// Where users meet it: the outermost service the trouble spread to.
    entry: Option<String>,
    /// Since when.
    onset: Option<String>,
}

impl Lead {
    fn of(health: &Value) -> Self {
        let text = |pointer: &str| health.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let suspect = text("/suspects/0/service").or_else(|| {
            // Worst first; a healthy service is no lead.
            text("/services/0/service").filter(|_| text("/services/0/status").as_deref() != Some("healthy"))
        });
        Self {
            entry: text("/suspects/0/chain/0").or_else(|| suspect.clone()),
            onset: text("/suspects/0/onset").or_else(|| text("/onset")),
            suspect,
        }
    }
}

/// The arguments, about one service when there is a lead.
fn about(service: Option<&str>, arguments: Value) -> Value {
    let mut all = Map::new();
    if let Some(service) = service {
        all.insert("service".to_owned(), json!(service));
    }
    if let Value::Object(arguments) = arguments {
        all.extend(arguments);
    }
    Value::Object(all)
}

/// The first trace that goes through the suspect, else the first.
fn telling_trace(found: &Value, suspect: Option<&str>) -> Option<String> {
    let traces = found.get("traces")?.as_array()?;
    let through = |trace: &&Value| {
        trace["services"].as_array().is_some_and(|services| services.iter().any(|name| name.as_str() == suspect))
    };
    let trace = traces.iter().find(through).or_else(|| traces.first())?;
    trace.get("trace_id")?.as_str().map(str::to_owned)
}

/// Prints a question.
fn question(number: u32, text: &str) {
    say(format!("\n{}", paint::strong(&format!("{number}. {text}"))));
}

/// The engineer at work: asks, prints and counts.
struct Desk<'a> {
    client: &'a McpClient,
    calls: usize,
    failed: usize,
    tokens: usize,
    took: Duration,
}

impl Desk<'_> {
    /// Calls a tool and prints what it said. What it refused is printed and counted as failed.
    async fn ask(&mut self, tool: &str, arguments: Value) -> Result<Value, McpClientError> {
        let arguments: Map<String, Value> = arguments.as_object().cloned().unwrap_or_default();
        say(format!("> {}", command(tool, &arguments)));
        let begun = Instant::now();
        let answer = match self.client.call_tool(tool, arguments).await {
            Err(McpClientError::Refused { code, message }) => {
                let text = format!("refused: {message} (JSON-RPC error {code})");
                ToolAnswer { text, structured: None, is_error: true, other_parts: 0 }
            }
            other => other?,
        };
        let took = begun.elapsed();
        let tokens = tokens::estimate(&answer.text);
        self.calls += 1;
        self.failed += usize::from(answer.is_error);
        self.tokens += tokens;
        self.took += took;
        for line in shortened(&answer.text) {
            say(if answer.is_error { format!("  {}", paint::bad(&line)) } else { format!("  {line}") });
        }
        if answer.other_parts > 0 {
            say(format!("  ({} parts of the answer are no text)", answer.other_parts));
        }
        say(paint::faint(&format!("  [{tokens} tokens, {} ms]", took.as_millis())));
        Ok(answer.structured.unwrap_or_default())
    }
}

/// The call as `portcullis call` would take it.
fn command(tool: &str, arguments: &Map<String, Value>) -> String {
    let pairs = arguments.iter().map(|(name, value)| match value {
        Value::String(text) => format!(" {name}={text}"),
        other => format!(" {name}={other}"),
    });
    format!("{}{}", paint::good(tool), pairs.collect::<String>())
}

/// The lines to print: not too many, not too long, and saying so where something is left out.
fn shortened(text: &str) -> Vec<String> {
    let all = text.lines().count();
    let cut = |line: &str| match line.char_indices().nth(LINE_CHARS) {
        Some((at, _)) => format!("{} ... (+{} characters)", &line[..at], line[at..].chars().count()),
        None => line.to_owned(),
    };
    let mut lines: Vec<String> = text.lines().take(LINES).map(cut).collect();
    if all > LINES {
        lines.push(format!("... ({} more lines, which a model reads as well)", all - LINES));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lead_is_what_the_answer_names() {
        let health = json!({
            "onset": "2026-03-01T10:04:00Z",
            "services": [{"service": "web", "status": "unhealthy"}],
            "suspects": [
                {"service": "stock", "chain": ["web", "orders", "stock"], "onset": "2026-03-01T10:03:00Z"},
                {"service": "orders"},
            ],
        });
        let lead = Lead::of(&health);
        assert_eq!((lead.suspect.as_deref(), lead.entry.as_deref()), (Some("stock"), Some("web")));
        assert_eq!(lead.onset.as_deref(), Some("2026-03-01T10:03:00Z"));
        assert_eq!(about(lead.entry.as_deref(), json!({"limit": 3})), json!({"limit": 3, "service": "web"}));
    }

    #[test]
    fn without_suspects_the_worst_is_looked_at_and_a_healthy_shop_has_no_lead() {
        let lead = Lead::of(&json!({"services": [{"service": "web", "status": "degraded"}]}));
        assert_eq!((lead.suspect.as_deref(), lead.entry.as_deref(), lead.onset), (Some("web"), Some("web"), None));
        assert_eq!(Lead::of(&json!({"services": [{"service": "web", "status": "healthy"}]})), Lead::default());
        assert_eq!(Lead::of(&Value::Null), Lead::default());
        assert_eq!(about(None, json!({"limit": 3})), json!({"limit": 3}));
    }

    #[test]
    fn the_trace_goes_through_the_suspect_where_one_does() {
        let found = json!({"traces": [
            {"trace_id": "a", "services": ["web"]},
            {"trace_id": "b", "services": ["web", "stock"]},
        ]});
        assert_eq!(telling_trace(&found, Some("stock")).as_deref(), Some("b"));
        assert_eq!(telling_trace(&found, Some("cart")).as_deref(), Some("a"));
        assert_eq!(telling_trace(&found, None).as_deref(), Some("a"));
        assert_eq!(telling_trace(&json!({"traces": []}), None), None);
        assert_eq!(telling_trace(&Value::Null, None), None);
    }

    #[test]
    fn nothing_is_left_out_silently() {
        assert_eq!(shortened("a\nb"), ["a", "b"]);
        let many = "x\n".repeat(LINES + 5);
        assert_eq!(shortened(&many).last().unwrap(), "... (5 more lines, which a model reads as well)");
        let long = "é".repeat(LINE_CHARS + 7);
        assert!(shortened(&long)[0].ends_with("(+7 characters)"));
    }
}

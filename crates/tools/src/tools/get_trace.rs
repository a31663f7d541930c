//! `get_trace`: one trace: where it failed, what it waited for, and its tree.
//!
//! Guards that parts of one trace kept in several sources are put together, and that a trace is only called absent
//! where it was looked for. Span names and messages are untrusted.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Fault, Signal, Span, SpanStatus, ToolSpec, Trace};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, Tool, Total};
use portcullis_shape::{TraceOptions, TraceTree, one_line, render_trace};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Counts};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, Found, Sources};
use crate::tools::query_logs::trace_id;

const DEFAULT_LINES: usize = 40;
const MAX_LINES: usize = 400;
const MAX_ERRORS: usize = 8;
const MAX_PATH: usize = 8;

/// The tool.
pub(crate) struct GetTrace {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    trace_id: String,
    source: Option<String>,
    limit: Option<u32>,
}

impl GetTrace {
    pub(crate) fn new(sources: Arc<Sources>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: "get_trace",
            title: "Get trace",
            description: "One trace: errors first, critical path (what it waited for), span tree with repeats folded.",
            input: schema::input(
                &[
                    ("trace_id", schema::reaching(json!({"type": "string", "minLength": 16, "maxLength": 32}))),
                    ("source", schema::source()),
                    (
                        "limit",
                        json!({"type": "integer", "minimum": 1, "maximum": MAX_LINES, "default": DEFAULT_LINES, "description": "tree lines"}),
                    ),
                ],
                &["trace_id"],
            ),
            output: schema::output(&[("errors", "array"), ("critical_path", "array"), ("tree", "string")]),
            completions: &[("source", CompletionKind::Source)],
        })?;
        Some(Self { spec, sources })
    }
}

/// Parts of one trace as one; a span that several sources hold is one span.
fn join(id: &str, parts: Vec<Trace>) -> Trace {
    let truncated = parts.iter().any(|part| part.truncated);
    let several = parts.len() > 1;
    let mut spans: Vec<Span> = parts.into_iter().flat_map(|part| part.spans).collect();
    spans.sort_by(|a, b| (a.start, &a.span_id).cmp(&(b.start, &b.span_id)));
    if several {
        let mut seen = HashSet::new();
        spans.retain(|s| seen.insert((s.span_id.clone(), s.service.clone(), s.name.clone(), s.start, s.duration_nanos)));
    }
    Trace { trace_id: id.to_owned(), spans, truncated }
}

fn milliseconds(nanos: u64) -> f64 {
    (nanos as f64 / 1e4).round() / 100.0
}

/// Failed spans, those that failed on their own before those that pass a failure on.
fn errors(tree: &TraceTree, spans: &[Span]) -> Vec<Value> {
    let failed = |node: usize| spans[tree.nodes[node].span].status == SpanStatus::Error;
    let mut nodes: Vec<(bool, usize)> = (0..tree.nodes.len())
        .filter(|node| failed(*node))
        .map(|node| (tree.nodes[node].children.iter().any(|child| failed(*child)), node))
        .collect();
    nodes.sort_by_key(|(passed_on, node)| (*passed_on, tree.nodes[*node].start));
    let row = |(passed_on, node): &(bool, usize)| {
        let span = &spans[tree.nodes[*node].span];
        json!({
            "service": one_line(&span.service, 120),
            "name": one_line(&span.name, 200),
            "message": one_line(&message(span), 300),
            "passed_on": passed_on,
            "span_id": span.span_id,
        })
    };
    nodes.iter().take(MAX_ERRORS).map(row).collect()
}

fn message(span: &Span) -> String {
    let exception = span.events.iter().rev().find(|event| event.name == "exception");
    let said = exception.and_then(|event| event.attributes.get("exception.message")).map(String::as_str).unwrap_or_default();
    if span.status_message.is_empty() { said.to_owned() } else { span.status_message.clone() }
}

/// The spans the root waited for, by their own time on the path.
fn critical_path(tree: &TraceTree, spans: &[Span], root: usize) -> Vec<Value> {
    let path = tree.critical_path(root, spans);
    let mut own: BTreeMap<usize, u64> = BTreeMap::new();
    for segment in &path.segments {
        *own.entry(segment.node).or_default() += u64::try_from(segment.end - segment.start).unwrap_or(0);
    }
    let mut longest: Vec<(usize, u64)> = own.into_iter().collect();
    longest.sort_by_key(|(node, nanos)| (std::cmp::Reverse(*nanos), *node));
    longest.truncate(MAX_PATH);
    let row = |(node, nanos): &(usize, u64)| {
        let span = &spans[tree.nodes[*node].span];
        json!({"service": one_line(&span.service, 120), "name": one_line(&span.name, 200), "own_ms": milliseconds(*nanos)})
    };
    longest.iter().map(row).collect()
}

/// The tree alone. Names and messages are on one line each, so none of them can begin a line with its heading.
fn tree_of(text: &str) -> &str {
    let body = text.split_once("\ntree (").map_or("", |(_, body)| body);
    body.split_once('\n').map_or("", |(_, lines)| lines.trim_end())
}

#[async_trait]
impl Tool for GetTrace {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, _exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        let id = trace_id(&given.trace_id)?;
        let lines = arguments::limit(permit.budget().rows, given.limit, DEFAULT_LINES, MAX_LINES)?;
        let wanted = &id;
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Traces, given.source.as_deref()), |source, permit| async move {
                let trace = source.trace(&permit, wanted).await?.filter(|trace| !trace.spans.is_empty());
                let has_data = trace.is_some();
                let cut = trace.as_ref().is_some_and(|t| t.truncated).then(|| "it returned only a part of the trace".to_owned());
                Ok(Found::new(trace, has_data).partial(cut))
            })
            .await?
            .or_refusal()?;
        let parts: Vec<Trace> = fan.answers.into_iter().filter_map(|(_, trace)| trace).collect();
        let answer = Answer::new(fan.coverage).field("trace_id", &id);
        if parts.is_empty() {
            let answer = answer.text(format!("Trace {id} is not in the sources that answered."));
            return Ok(answer
                .hint("it may be older than the retention, or not sampled; query_traces finds what is there")
                .finish());
        }
        let trace = join(&id, parts);
        let tree = TraceTree::build(&trace.spans);
        let rendered = render_trace(
            &trace,
            &TraceOptions { max_lines: lines, max_errors: MAX_ERRORS, max_path: MAX_PATH, ..TraceOptions::default() },
        );
        let mut answer = answer
            .counts(Counts {
                shown: rendered.shown as u64,
                total: Total::Exact(rendered.total as u64),
                truncated: rendered.truncated,
            })
            .field("errors", errors(&tree, &trace.spans));
        if let Some(root) = tree.primary_root(&trace.spans) {
            let span = &trace.spans[tree.nodes[root].span];
            answer = answer
                .field("root", format!("{} {}", one_line(&span.service, 120), one_line(&span.name, 200)))
                .field("start", span.start.to_string())
                .field("duration_ms", milliseconds(span.duration_nanos))
                .field("critical_path", critical_path(&tree, &trace.spans, root));
        }
        if rendered.hidden > 0 {
            answer = answer.hint(format!("{} spans are hidden; raise limit (at most {MAX_LINES})", rendered.hidden));
        }
        Ok(answer.field("tree_unit", rendered.unit).field("tree", tree_of(&rendered.text)).text(&rendered.text).finish())
    }
}

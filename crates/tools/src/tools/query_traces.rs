//! `query_traces`: find traces by service, operation, duration, failure or attribute.
//!
//! Guards that a trace held by two sources is shown once and that totals of such searches are not added up wrongly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, Signal, SourceName, TimeWindow, ToolSpec, TraceSummary};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, Tool, Total, TraceOrder, TraceRequest};
use portcullis_shape::number::format_nanos;
use portcullis_shape::one_line;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Answer, Counts, sum_totals};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, FanOut, Found, Sources};
use crate::time::{Packed, TimeArguments, brief, confine, describe};

const NAME: &str = "query_traces";
const DEFAULT_WINDOW: Duration = Duration::from_mins(15);
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 100;
/// Furthest a cursor walks; searches are re-run for every page.
const MAX_OFFSET: usize = 2_000;
const MAX_SERVICES_SHOWN: usize = 6;
const ORDERS: [&str; 2] = ["slowest", "newest"];

/// The tool.
pub(crate) struct QueryTraces {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    service: Option<String>,
    operation: Option<String>,
    min_ms: Option<f64>,
    #[serde(default)]
    errors_only: bool,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    order: Option<String>,
    source: Option<String>,
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    #[serde(rename = "w")]
    window: Packed,
    #[serde(rename = "o")]
    offset: usize,
}

impl QueryTraces {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: NAME,
            title: "Query traces",
            description: "Traces with a matching span: id, root, duration, errors, services. Read one with get_trace.",
            input: schema::input(
                &[
                    ("service", schema::service()),
                    ("operation", schema::text("span name")),
                    ("min_ms", json!({"type": "number", "minimum": 0})),
                    ("errors_only", schema::flag("")),
                    ("labels", schema::labels()),
                    ("order", schema::choice(&ORDERS, Some("slowest"))),
                    ("source", schema::source()),
                    ("window", schema::window("15m")),
                    ("start", schema::start()),
                    ("end", schema::end()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                    ("cursor", schema::cursor()),
                ],
                &[],
            ),
            output: schema::output(&[("traces", "array")]),
            completions: &[
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
                ("order", schema::fixed(&ORDERS)),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }
}

fn request(given: &Given, window: TimeWindow, limit: usize, permit: &Permit) -> Result<TraceRequest, Fault> {
    let order = match given.order.as_deref().unwrap_or("slowest") {
        "slowest" => TraceOrder::Slowest,
        "newest" => TraceOrder::Newest,
        other => return Err(Fault::invalid(format!("order '{}' is not slowest or newest", one_line(other, 40)))),
    };
    let minimum_duration = match given.min_ms {
        None => None,
        Some(ms) if ms.is_finite() && (0.0..=86_400_000.0).contains(&ms) => Some(Duration::from_secs_f64(ms / 1000.0)),
        Some(ms) => return Err(Fault::invalid(format!("min_ms {ms} is not a duration in milliseconds, such as 250"))),
    };
    Ok(TraceRequest {
        window,
        service: arguments::service(given.service.as_deref(), permit.scope())?.map(str::to_owned),
        operation: arguments::text("operation", given.operation.as_deref())?.map(str::to_owned),
        minimum_duration,
        errors_only: given.errors_only,
        attributes: arguments::labels(&given.labels)?,
        order,
        limit,
    })
}

/// One trace per id: of several sources the one that holds more of it.
fn join(answers: &[(SourceName, Vec<TraceSummary>)], order: TraceOrder) -> (Vec<(SourceName, TraceSummary)>, u64) {
    let mut by_id: BTreeMap<&str, (SourceName, &TraceSummary)> = BTreeMap::new();
    let mut twice = 0;
    for (source, trace) in answers.iter().flat_map(|(source, traces)| traces.iter().map(move |t| (source, t))) {
        match by_id.get(trace.trace_id.as_str()) {
            Some((_, held)) => {
                twice += 1;
                if trace.spans > held.spans {
                    by_id.insert(&trace.trace_id, (source.clone(), trace));
                }
            }
            None => {
                by_id.insert(&trace.trace_id, (source.clone(), trace));
            }
        }
    }
    let mut traces: Vec<(SourceName, TraceSummary)> =
        by_id.into_values().map(|(source, trace)| (source, trace.clone())).collect();
    traces.sort_by(|(_, a), (_, b)| {
        let key = match order {
            TraceOrder::Slowest => b.duration_nanos.cmp(&a.duration_nanos),
            TraceOrder::Newest => b.start.cmp(&a.start),
        };
        key.then_with(|| a.trace_id.cmp(&b.trace_id))
    });
    (traces, twice)
}

fn services(trace: &TraceSummary) -> String {
    let shown: Vec<String> = trace.services.iter().take(MAX_SERVICES_SHOWN).map(|s| one_line(s, 80)).collect();
    let rest = trace.services.len().saturating_sub(MAX_SERVICES_SHOWN);
    let more = if rest > 0 { format!("+{rest}") } else { String::new() };
    format!("{}{more}", shown.join(","))
}

fn line(trace: &TraceSummary, window: TimeWindow) -> String {
    let errors = if trace.error_spans > 0 { format!(", {} FAILED", trace.error_spans) } else { String::new() };
    format!(
        "{} {} {} {} {} · {} spans{errors} · {}",
        trace.trace_id,
        brief(trace.start, window),
        one_line(&trace.root_service, 80),
        one_line(&trace.root_name, 100),
        format_nanos(trace.duration_nanos),
        trace.spans,
        services(trace),
    )
}

fn structure((source, trace): &(SourceName, TraceSummary)) -> Value {
    let services: Vec<String> = trace.services.iter().take(20).map(|s| one_line(s, 120)).collect();
    json!({
        "trace_id": trace.trace_id,
        "source": source,
        "root_service": one_line(&trace.root_service, 120),
        "root_name": one_line(&trace.root_name, 200),
        "start": trace.start.to_string(),
        "duration_ms": (trace.duration_nanos as f64 / 1e4).round() / 100.0,
        "spans": trace.spans,
        "error_spans": trace.error_spans,
        "services": services,
    })
}

#[async_trait]
impl Tool for QueryTraces {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    fn cursor_argument(&self) -> Option<&'static str> {
        Some(arguments::CURSOR)
    }

    /// As far as the window its cursor goes on with.
    fn reach_back(&self, arguments: &Arguments) -> Option<Duration> {
        let position: Position = arguments::position(NAME, arguments)?;
        Some(self.clock.now().since(position.window.0.start))
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let question = arguments::question(NAME, &arguments.0);
        let given: Given = arguments.parse()?;
        let limit = arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let position: Option<Position> = arguments::cursor(&question, given.cursor.as_deref())?;
        let now = self.clock.now();
        let chosen = if let Some(position) = &position {
            confine(position.window.0, now, permit.scope())?
        } else {
            let (window, start, end) = (given.window.as_deref(), given.start.as_deref(), given.end.as_deref());
            TimeArguments { window, start, end, around: None }.choose(now, DEFAULT_WINDOW, permit.scope())?
        };
        let window = chosen.window;
        let offset = position.map_or(0, |position| position.offset.min(MAX_OFFSET));
        let request = request(&given, window, offset + limit + 1, permit)?;
        let asked = &request;
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Traces, given.source.as_deref()), |source, permit| async move {
                let answer = source.traces(&permit, asked).await?;
                let has_data = !answer.traces.is_empty();
                Ok(Found::new(answer, has_data))
            })
            .await?
            .or_refusal()?;
        let FanOut { answers, coverage, .. } = fan;
        let total = sum_totals(answers.iter().map(|(_, answer)| answer.total));
        let found: Vec<(SourceName, Vec<TraceSummary>)> =
            answers.into_iter().map(|(name, answer)| (name, answer.traces)).collect();
        let (traces, twice) = join(&found, request.order);
        let total = match total {
            Total::Exact(n) => Total::Exact(n.saturating_sub(twice)),
            Total::AtLeast(n) => Total::AtLeast(n.saturating_sub(twice)),
            Total::Unknown => Total::AtLeast(traces.len() as u64),
        };
        let more = traces.len() > offset + limit;
        let page: Vec<(SourceName, TraceSummary)> = traces.into_iter().skip(offset).take(limit).collect();
        let end = offset + page.len();
        let next = if more && end <= MAX_OFFSET {
            Some(arguments::next(exchange, &question, &Position { window: Packed(window), offset: end })?)
        } else {
            None
        };
        let counts = Counts::page(page.len(), total, more);
        let mut answer = Answer::new(coverage).window(window).note(chosen.note).counts(counts).next(next);
        if page.is_empty() {
            answer = answer
                .text(format!("No trace matches in {}.", describe(window)))
                .hint("widen the window, or drop operation, min_ms or labels");
        } else {
            let order = if request.order == TraceOrder::Slowest { "slowest" } else { "newest" };
            let lines: Vec<String> = page.iter().map(|(_, trace)| line(trace, window)).collect();
            answer =
                answer.text(format!("{} traces, {}, {order} first\n{}", counts.describe(), describe(window), lines.join("\n")));
        }
        if more {
            answer = answer.hint("narrow with min_ms, errors_only or operation");
        }
        Ok(answer.field("traces", page.iter().map(structure).collect::<Vec<_>>()).finish())
    }
}

//! `query_logs`: log records, newest first, or their counts.
//!
//! Guards honest totals and a cursor that walks every record exactly once, also over several sources. Bodies are
//! untrusted text and stay on their line.

mod counting;
mod merge;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, LogRecord, Signal, TimeWindow, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, LogFilter, LogRequest, Outcome, TextFilter, Tool, Total};
use portcullis_shape::{field_line, one_line};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Counts, sum_totals};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, FanOut, Found, Sources};
use crate::time::{Chosen, TimeArguments, confine, describe, short};
use merge::{Folded, Walk};

pub(super) const NAME: &str = "query_logs";
const DEFAULT_WINDOW: Duration = Duration::from_mins(15);
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 200;
/// Characters of a body shown on an ordinary page, and on a page of very few records.
const BODY_CHARS: usize = 300;
const LONG_BODY_CHARS: usize = 8_000;
/// A page of at most this many records shows long bodies.
const FEW: usize = 3;
const MAX_ATTRIBUTES_SHOWN: usize = 8;
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// The tool.
pub(crate) struct QueryLogs {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    service: Option<String>,
    text: Option<String>,
    regex: Option<String>,
    level: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    trace_id: Option<String>,
    #[serde(default)]
    pub(super) count_by: Vec<String>,
    pub(super) step: Option<String>,
    #[serde(default)]
    attributes: bool,
    source: Option<String>,
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    around: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// A question after its arguments were checked.
pub(super) struct Checked<'a> {
    pub(super) question: String,
    pub(super) filter: LogFilter,
    pub(super) source: Option<&'a str>,
    pub(super) limit: usize,
    pub(super) note: Option<String>,
    pub(super) given: &'a Given,
}

impl QueryLogs {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: NAME,
            title: "Query logs",
            description: "Log records, newest first; with count_by only counts (cheap: count first, by service or severity). \
                          For an overview use log_patterns.",
            input: schema::input(
                &[
                    ("service", schema::service()),
                    ("text", schema::text("contained, any case")),
                    ("regex", schema::text("RE2, instead of text")),
                    ("level", json!({"type": "string", "enum": LEVELS, "description": "this and above"})),
                    ("labels", schema::labels()),
                    ("trace_id", schema::text("")),
                    ("count_by", schema::names(5)),
                    ("step", schema::text("counts over time, such as 1m")),
                    ("attributes", schema::flag("show attributes")),
                    ("source", schema::source()),
                    ("window", schema::window("15m")),
                    ("start", schema::start()),
                    ("end", schema::end()),
                    ("around", schema::text("middle of the window")),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                    ("cursor", schema::cursor()),
                ],
                &[],
            ),
            output: schema::output(&[("records", "array"), ("groups", "array")]),
            completions: &[
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
                ("level", schema::fixed(&LEVELS)),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }

    async fn records(&self, permit: &Permit, asked: Checked<'_>, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let walk: Option<Walk> = arguments::cursor(&asked.question, asked.given.cursor.as_deref())?;
        let mut walk = walk.unwrap_or_else(|| Walk::new(asked.filter.window));
        let window = confine(walk.window(), self.clock.now(), permit.scope())?.window;
        let filter = LogFilter { window, ..asked.filter.clone() };
        let (filter, places, limit) = (&filter, &walk, asked.limit);
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Logs, asked.source), |source, permit| async move {
                if places.is_done(source.name()) {
                    return Ok(Found::new(None, true));
                }
                let after = places.place(source.name());
                let request = LogRequest { filter: filter.clone(), limit, newest_first: true, after };
                let answer = source.logs(&permit, &request).await?;
                let has_data = !answer.records.is_empty() || after.is_some();
                Ok(Found::new(Some(answer), has_data))
            })
            .await?
            .or_refusal()?;
        walk.remember_totals(fan.answers.iter().filter_map(|(name, answer)| answer.as_ref().map(|a| (name, a.total))));
        let FanOut { answers, coverage, faults } = fan;
        let failed: Vec<_> = faults.into_iter().map(|(name, _)| name).collect();
        let read = answers.into_iter().filter_map(|(name, answer)| answer.map(|answer| (name, answer))).collect();
        let page = walk.merge(read, asked.limit);
        let more = walk.unfinished(&failed);
        let next =
            if more && !page.is_empty() { Some(arguments::next(exchange, &asked.question, &walk.to_continue())?) } else { None };
        let total = sum_totals(walk.totals());
        let records: Vec<LogRecord> = page.into_iter().map(|(_, record)| record).collect();
        Ok(respond(Answer::new(coverage).window(window), records, total, next, &asked).finish())
    }
}

fn respond(answer: Answer, records: Vec<LogRecord>, total: Total, next: Option<String>, asked: &Checked<'_>) -> Answer {
    let window = asked.filter.window;
    let shown = records.len();
    let counts = Counts::page(shown, total, next.is_some());
    let body_chars = if asked.limit <= FEW { LONG_BODY_CHARS } else { BODY_CHARS };
    let with_attributes = asked.given.attributes;
    let cut = records.iter().any(|record| record.body.chars().count() > body_chars);
    let folded = merge::fold(records);
    let mut answer = answer.note(asked.note.clone()).counts(counts).next(next);
    if shown == 0 {
        answer = answer
            .text(format!("No record matches in {}.", describe(window)))
            .hint("widen the window, drop a filter, or count_by service to see who logs");
    } else {
        let lines: Vec<String> = folded.iter().map(|item| line(item, window, asked, body_chars, with_attributes)).collect();
        let head = format!("{} records, {}, newest first", counts.describe(), describe(window));
        answer = answer.text(format!("{head}\n{}", lines.join("\n")));
    }
    if cut {
        answer = answer.hint(format!("bodies are cut at {body_chars} characters; limit {FEW} shows up to {LONG_BODY_CHARS}"));
    } else if counts.truncated {
        answer = answer.hint("for many records log_patterns or count_by is cheaper than paging");
    }
    let structured: Vec<Value> = folded.iter().map(|item| structure(item, body_chars, with_attributes)).collect();
    answer.field("records", structured)
}

fn line(item: &Folded, window: TimeWindow, asked: &Checked<'_>, body_chars: usize, with_attributes: bool) -> String {
    let record = &item.newest;
    let mut words = vec![short(record.at, window)];
    words.push(record.severity.map_or("-", portcullis_model::Severity::as_str).to_owned());
    if asked.filter.service.is_none() {
        words.push(if record.service.is_empty() { "-".to_owned() } else { one_line(&record.service, 80) });
    }
    words.push(one_line(&record.body, body_chars));
    if item.count > 1 {
        words.push(format!("(×{} since {})", item.count, short(item.oldest_at, window)));
    }
    if !record.trace_id.is_empty() && asked.filter.trace_id.is_none() {
        words.push(format!("trace={}", one_line(&record.trace_id, 64)));
    }
    if with_attributes {
        words.push(format!("{{{}}}", attributes(record).join(", ")));
    }
    words.join(" ")
}

fn attributes(record: &LogRecord) -> Vec<String> {
    let shown = record.attributes.iter().take(MAX_ATTRIBUTES_SHOWN);
    let mut words: Vec<String> =
        shown.map(|(name, value)| format!("{}={}", one_line(name, 60), field_line(name, value, 120))).collect();
    if record.attributes.len() > MAX_ATTRIBUTES_SHOWN {
        words.push(format!("+{} more", record.attributes.len() - MAX_ATTRIBUTES_SHOWN));
    }
    words
}

fn structure(item: &Folded, body_chars: usize, with_attributes: bool) -> Value {
    let record = &item.newest;
    let mut row = json!({"at": record.at.to_string(), "service": one_line(&record.service, 120), "body": one_line(&record.body, body_chars)});
    let Some(object) = row.as_object_mut() else { return row };
    if let Some(severity) = record.severity {
        object.insert("level".to_owned(), json!(severity.as_str()));
    }
    if !record.trace_id.is_empty() {
        object.insert("trace_id".to_owned(), json!(one_line(&record.trace_id, 64)));
    }
    if item.count > 1 {
        object.insert("count".to_owned(), json!(item.count));
        object.insert("since".to_owned(), json!(item.oldest_at.to_string()));
    }
    if with_attributes {
        let all: BTreeMap<String, String> =
            record.attributes.iter().map(|(name, value)| (one_line(name, 60), field_line(name, value, 300))).collect();
        object.insert("attributes".to_owned(), json!(all));
    }
    row
}

/// Lower-case hex of 16 or 32 digits, padded to 32; anything else is refused.
pub(crate) fn trace_id(text: &str) -> Result<String, Fault> {
    let id = text.trim().to_ascii_lowercase();
    let hex = id.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex || !matches!(id.len(), 16 | 32) || id.bytes().all(|b| b == b'0') {
        return Err(Fault::invalid(format!("trace_id '{}' is not a trace id", one_line(text, 40)))
            .with_hint("32 hex digits, such as 4bf92f3577b34da6a3ce929d0e0e4736; query_traces and query_logs show them"));
    }
    Ok(format!("{id:0>32}"))
}

fn text_filter(given: &Given) -> Result<Option<TextFilter>, Fault> {
    let text = arguments::text("text", given.text.as_deref())?;
    let regex = arguments::text("regex", given.regex.as_deref())?;
    match (text, regex) {
        (Some(_), Some(_)) => Err(Fault::invalid("text and regex exclude each other; give one")),
        (Some(text), None) => Ok(Some(TextFilter::Contains(text.to_owned()))),
        (None, Some(pattern)) => {
            arguments::regex("regex", pattern)?;
            Ok(Some(TextFilter::Regex(pattern.to_owned())))
        }
        (None, None) => Ok(None),
    }
}

#[async_trait]
impl Tool for QueryLogs {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    fn cursor_argument(&self) -> Option<&'static str> {
        Some(arguments::CURSOR)
    }

    /// As far as the window its cursor goes on with.
    fn reach_back(&self, arguments: &Arguments) -> Option<Duration> {
        let walk: Walk = arguments::position(NAME, arguments)?;
        Some(self.clock.now().since(walk.window().start))
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let question = arguments::question(NAME, &arguments.0);
        let given: Given = arguments.parse()?;
        let counting = !given.count_by.is_empty() || given.step.is_some();
        if counting && given.cursor.is_some() {
            return Err(Fault::invalid("cursor goes with records, not with counts; leave count_by and step out"));
        }
        let time = TimeArguments {
            window: given.window.as_deref(),
            start: given.start.as_deref(),
            end: given.end.as_deref(),
            around: given.around.as_deref(),
        };
        let Chosen { window, note } = time.choose(self.clock.now(), DEFAULT_WINDOW, permit.scope())?;
        let filter = LogFilter {
            window,
            service: arguments::service(given.service.as_deref(), permit.scope())?.map(str::to_owned),
            minimum_severity: arguments::severity(given.level.as_deref())?,
            text: text_filter(&given)?,
            attributes: arguments::labels(&given.labels)?,
            trace_id: given.trace_id.as_deref().map(trace_id).transpose()?,
        };
        let asked = Checked {
            question,
            filter,
            source: given.source.as_deref(),
            limit: arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?,
            note,
            given: &given,
        };
        if counting { counting::run(&self.sources, permit, asked).await } else { self.records(permit, asked, exchange).await }
    }
}

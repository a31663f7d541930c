//! `log_patterns`: what the logs say, as templates with counts, and what they say now that they did not say before.
//!
//! Guards that every line read is counted in some pattern or named as left over, and that vanished patterns are told.
//! Examples are untrusted text.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_analysis::Template;
use portcullis_model::{Clock, CompletionKind, Fault, Severity, TimeWindow, Timestamp, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, LogFilter, Outcome, TextFilter, Tool, Total};
use portcullis_shape::{number, one_line};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Counts};
use crate::arguments;
use crate::patterns::{Mined, mine};
use crate::schema::{self, Sheet};
use crate::sources::Sources;
use crate::time::{Chosen, TimeArguments, brief, describe, rough, within_look_back};

const DEFAULT_WINDOW: Duration = Duration::from_mins(15);
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
/// How many times the window the baseline before it is.
const BASELINE_TIMES: u32 = 4;
/// Patterns that get examples in the text.
const WITH_EXAMPLES: usize = 5;
const TEMPLATE_CHARS: usize = 240;
const EXAMPLE_CHARS: usize = 240;
const MAX_GONE: usize = 3;
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];
const COMPARISONS: [&str; 4] = ["previous", "day", "week", "none"];

/// The tool.
pub(crate) struct LogPatterns {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    service: Option<String>,
    level: Option<String>,
    text: Option<String>,
    compare: Option<String>,
    source: Option<String>,
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<u32>,
}

impl LogPatterns {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: "log_patterns",
            title: "Log patterns",
            description: "Log lines folded into templates with counts, first and last seen, examples; severe and new ones first. \
                          previous compares with the time before, four times as long.",
            input: schema::input(
                &[
                    ("service", schema::service()),
                    ("level", json!({"type": "string", "enum": LEVELS, "description": "this and above"})),
                    ("text", schema::text("")),
                    ("compare", schema::compare(&COMPARISONS, BASELINE_TIMES)),
                    ("source", schema::source()),
                    ("window", schema::window("15m")),
                    ("start", schema::start()),
                    ("end", schema::end()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                ],
                &[],
            ),
            output: schema::output(&[("patterns", "array")]),
            completions: &[
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
                ("level", schema::fixed(&LEVELS)),
                ("compare", schema::fixed(&COMPARISONS)),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }
}

/// The window to compare with, inside the scope's look-back.
pub(crate) fn baseline(
    compare: Option<&str>,
    window: TimeWindow,
    times: u32,
    now: Timestamp,
    permit: &Permit,
) -> Result<Option<TimeWindow>, Fault> {
    let asked = match compare.unwrap_or("previous") {
        "none" => return Ok(None),
        "previous" => {
            TimeWindow::ending_at(window.start, window.length().saturating_mul(times)).unwrap_or_else(|_| window.previous())
        }
        "day" => window.shifted_back(Duration::from_hours(24)),
        "week" => window.shifted_back(Duration::from_hours(7 * 24)),
        other => {
            return Err(Fault::invalid(format!("compare '{}' is not one of {}", one_line(other, 40), COMPARISONS.join(", "))));
        }
    };
    Ok(within_look_back(asked, now, permit.scope()))
}

/// What the text and the data say about one pattern.
struct Row<'a> {
    template: &'a Template,
    new: bool,
}

fn severity(template: &Template) -> &'static str {
    template.severities.highest().map_or("-", Severity::as_str)
}

fn change(row: &Row<'_>) -> Option<String> {
    let rate = row.template.rate_change?;
    match rate {
        r if (0.67..=1.5).contains(&r) => None,
        r if r >= 1.0 => Some(format!("rate ×{}", number::plain(r, 2))),
        r => Some(format!("rate {:+.0}%", (r - 1.0) * 100.0)),
    }
}

fn line(row: &Row<'_>, window: TimeWindow, with_service: bool, with_example: bool) -> String {
    let template = row.template;
    let mut words: Vec<String> = Vec::new();
    if row.new {
        words.push("NEW".to_owned());
    }
    words.push(format!("{} ×{}", severity(template), template.count));
    words.extend(change(row));
    if let (Some(first), Some(last)) = (template.first_seen, template.last_seen) {
        let (first, last) = (brief(first, window), brief(last, window));
        words.push(if first == last { format!("at {first}") } else { format!("{first} to {last}") });
    }
    if with_service {
        let mut names: Vec<String> = template.services.iter().take(3).map(|(name, _)| one_line(name, 60)).collect();
        let rest = template.services.len().saturating_sub(3) as u64 + template.other_services.min(1);
        if rest > 0 {
            names.push(format!("+{rest}"));
        }
        words.push(names.join(","));
    }
    let mut text = format!("{}: {}", words.join(" "), one_line(&template.text, TEMPLATE_CHARS));
    let example = template.examples.first().filter(|_| with_example && template.text.contains("<*>"));
    if let Some(example) = example {
        text.push_str("\n  e.g. ");
        text.push_str(&one_line(example, EXAMPLE_CHARS));
    }
    text
}

fn structure(row: &Row<'_>) -> Value {
    let template = row.template;
    let services: Vec<Value> =
        template.services.iter().take(5).map(|(name, count)| json!([one_line(name, 120), count])).collect();
    let examples: Vec<String> = template.examples.iter().map(|example| one_line(example, 400)).collect();
    let mut value = json!({
        "template": one_line(&template.text, 500),
        "level": severity(template),
        "count": template.count,
        "new": row.new,
        "services": services,
        "examples": examples,
    });
    let Some(object) = value.as_object_mut() else { return value };
    let optional = [
        ("before", template.baseline_count.map(|count| json!(count))),
        ("rate_change", template.rate_change.map(|change| json!((change * 100.0).round() / 100.0))),
        ("first_seen", template.first_seen.map(|at| json!(at.to_string()))),
        ("last_seen", template.last_seen.map(|at| json!(at.to_string()))),
    ];
    object.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value))));
    value
}

/// Patterns of the baseline that did not occur any more, most frequent first.
fn gone(mined: &Mined) -> Vec<&Template> {
    let mut gone: Vec<&Template> = mined.report.templates.iter().filter(|template| template.gone()).collect();
    gone.sort_by_key(|template| std::cmp::Reverse(template.baseline_count));
    gone
}

/// How the answer was asked for.
struct Asked {
    window: TimeWindow,
    baseline: Option<TimeWindow>,
    limit: usize,
    one_service: bool,
}

fn respond(mut answer: Answer, mined: &Mined, asked: &Asked) -> Answer {
    let Asked { window, baseline, limit, one_service } = *asked;
    let report = &mined.report;
    let present: Vec<Row<'_>> =
        report.templates.iter().filter(|t| t.count > 0).map(|template| Row { template, new: mined.is_new(template) }).collect();
    let fresh = present.iter().filter(|row| row.new).count();
    let total = present.len();
    let shown = &present[..limit.min(total)];
    let counts = Counts::of(shown.len(), Total::Exact(total as u64));
    let against = match mined.baseline.or(baseline) {
        Some(baseline) if mined.compared => {
            format!(", {fresh} new against the {} from {}", rough(baseline.length()), brief(baseline.start, window))
        }
        _ => String::new(),
    };
    let mut lines = vec![format!("{} patterns in {} lines{against}, {}", counts.describe(), report.lines, describe(window))];
    lines.extend(shown.iter().enumerate().map(|(index, row)| line(row, window, !one_service, index < WITH_EXAMPLES)));
    let gone = gone(mined);
    if !gone.is_empty() {
        let words: Vec<String> = gone
            .iter()
            .take(MAX_GONE)
            .map(|t| format!("\"{}\" (×{} before)", one_line(&t.text, 120), t.baseline_count.unwrap_or(0)))
            .collect();
        lines.push(format!("{} patterns of before did not occur, such as {}", gone.len(), words.join(", ")));
    }
    if report.overflow_lines > 0 {
        answer = answer.note(Some(format!("{} lines were too varied to be folded and are in no pattern", report.overflow_lines)));
    }
    if mined.compared && report.baseline_lines == 0 {
        answer = answer.note(Some("nothing matched in the baseline window, so everything counts as new".to_owned()));
    }
    if counts.truncated {
        answer = answer.hint("the rest is less telling; raise limit, or narrow with service, level or text");
    }
    let gone_rows: Vec<Value> =
        gone.iter().take(MAX_GONE).map(|t| json!({"template": one_line(&t.text, 300), "before": t.baseline_count})).collect();
    answer = answer
        .counts(counts)
        .text(lines.join("\n"))
        .field("lines", report.lines)
        .field("patterns", shown.iter().map(structure).collect::<Vec<_>>());
    if gone_rows.is_empty() { answer } else { answer.field("gone", gone_rows).field("gone_total", gone.len()) }
}

#[async_trait]
impl Tool for LogPatterns {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, _exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        let limit = arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let now = self.clock.now();
        let (window, start, end) = (given.window.as_deref(), given.start.as_deref(), given.end.as_deref());
        let Chosen { window, note } =
            TimeArguments { window, start, end, around: None }.choose(now, DEFAULT_WINDOW, permit.scope())?;
        let baseline = baseline(given.compare.as_deref(), window, BASELINE_TIMES, now, permit)?;
        let text = arguments::text("text", given.text.as_deref())?;
        let filter = LogFilter {
            window,
            service: arguments::service(given.service.as_deref(), permit.scope())?.map(str::to_owned),
            minimum_severity: arguments::severity(given.level.as_deref())?,
            text: text.map(|text| TextFilter::Contains(text.to_owned())),
            attributes: Vec::new(),
            trace_id: None,
        };
        let fan = mine(&self.sources, permit, given.source.as_deref(), &filter, baseline).await?;
        let mut answer = Answer::new(fan.coverage).window(window).note(note);
        if baseline.is_none() && given.compare.as_deref() != Some("none") {
            answer = answer.note(Some("not compared: this credential may not look that far back".to_owned()));
        }
        let asked = Asked { window, baseline, limit, one_service: filter.service.is_some() };
        let answer = match fan.answers.first() {
            Some((_, mined)) if mined.report.lines > 0 => respond(answer, mined, &asked),
            _ => answer
                .field("patterns", Vec::<Value>::new())
                .text(format!("No line matches in {}.", describe(window)))
                .hint("widen the window or drop a filter; query_logs with count_by shows who logs"),
        };
        Ok(answer.finish())
    }
}

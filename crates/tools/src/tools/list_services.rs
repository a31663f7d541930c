//! `list_services`: which services exist, which signals each sends and where they are kept.
//!
//! Guards that services of several sources are joined by exact name and that none outside the scope is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, Signal, SourceName, Timestamp, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, ServiceAnswer, Tool, Total};
use portcullis_shape::one_line;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Counts};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, Found, SOURCE_PATIENCE, Sources};
use crate::time::{Packed, TimeArguments, describe, rough};

const NAME: &str = "list_services";
const DEFAULT_WINDOW: Duration = Duration::from_hours(1);
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

/// The tool.
pub(crate) struct ListServices {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    contains: Option<String>,
    source: Option<String>,
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// One service over all sources.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) signals: BTreeSet<Signal>,
    pub(crate) sources: BTreeSet<SourceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<String>,
    #[serde(skip)]
    pub(crate) seen_at: Option<Timestamp>,
}

/// Where a page stopped; the window stays the first page's. A number and no name: a name can be what nobody may see.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    #[serde(rename = "w")]
    window: Packed,
    #[serde(rename = "o")]
    offset: usize,
}

impl ListServices {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: NAME,
            title: "List services",
            description: "Services seen in the window, with their signals and sources.",
            input: schema::input(
                &[
                    ("contains", schema::text("")),
                    ("source", schema::source()),
                    ("window", schema::window("1h")),
                    ("start", schema::start()),
                    ("end", schema::end()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                    ("cursor", schema::cursor()),
                ],
                &[],
            ),
            output: schema::output(&[("services", "array")]),
            completions: &[("source", CompletionKind::Source)],
        })?;
        Some(Self { spec, sources, clock })
    }
}

/// Joins the services of several sources by exact name, drops what is outside the scope, and sorts by name.
pub(crate) fn join_services(permit: &Permit, answers: &[(SourceName, ServiceAnswer)]) -> Vec<Row> {
    let mut by_name: BTreeMap<String, Row> = BTreeMap::new();
    for (source, service) in answers.iter().flat_map(|(source, answer)| answer.services.iter().map(move |s| (source, s))) {
        if !permit.scope().services.contains(&service.name) {
            continue;
        }
        let row = by_name.entry(service.name.clone()).or_insert_with(|| Row {
            name: one_line(&service.name, 120),
            signals: BTreeSet::new(),
            sources: BTreeSet::new(),
            last_seen: None,
            seen_at: None,
        });
        row.signals.extend(service.signals.iter().copied());
        row.sources.insert(source.clone());
        row.seen_at = row.seen_at.max(service.last_seen);
        row.last_seen = row.seen_at.map(|at| at.to_string());
    }
    by_name.into_values().collect()
}

fn render(rows: &[Row], now: Timestamp) -> String {
    let several = rows.iter().flat_map(|row| &row.sources).collect::<BTreeSet<_>>().len() > 1;
    let line = |row: &Row| {
        let signals: Vec<&str> = row.signals.iter().map(|signal| signal.as_str()).collect();
        let from = if several {
            let names: Vec<&str> = row.sources.iter().map(SourceName::as_str).collect();
            format!(" from {}", names.join("+"))
        } else {
            String::new()
        };
        // Only silence is worth words.
        let silent = row.seen_at.map(|at| now.since(at)).filter(|age| *age > Duration::from_mins(5));
        let silent = silent.map(|age| format!(", silent for {}", rough(age))).unwrap_or_default();
        format!("{}: {}{from}{silent}", row.name, signals.join(", "))
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[async_trait]
impl Tool for ListServices {
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
        let contains = arguments::text("contains", given.contains.as_deref())?.map(str::to_lowercase);
        let position: Option<Position> = arguments::cursor(&question, given.cursor.as_deref())?;
        let now = self.clock.now();
        let time = TimeArguments {
            window: given.window.as_deref(),
            start: given.start.as_deref(),
            end: given.end.as_deref(),
            around: None,
        };
        let mut chosen = time.choose(now, DEFAULT_WINDOW, permit.scope())?;
        if let Some(position) = &position {
            chosen = crate::time::confine(position.window.0, now, permit.scope())?;
        }
        let window = chosen.window;
        let ask = Ask { signal: None, source: given.source.as_deref(), patience: SOURCE_PATIENCE };
        let fan = self
            .sources
            .fan_out(permit, ask, |source, permit| async move {
                let answer = source.services(&permit, window).await?;
                let has_data = !answer.services.is_empty();
                Ok(Found::new(answer, has_data))
            })
            .await?
            .or_refusal()?;
        let mut rows = join_services(permit, &fan.answers);
        if let Some(part) = &contains {
            rows.retain(|row| row.name.to_lowercase().contains(part));
        }
        let total = rows.len() as u64;
        let from = position.map_or(0, |position| position.offset.min(rows.len()));
        let page: Vec<Row> = rows.iter().skip(from).take(limit).cloned().collect();
        let offset = from + page.len();
        let more = offset < rows.len();
        let position = Position { window: Packed(window), offset };
        let next = more.then(|| arguments::next(exchange, &question, &position)).transpose()?;
        let counts = Counts::page(page.len(), Total::Exact(total), next.is_some());
        let head = format!("{} services, {}", counts.describe(), describe(window));
        let mut answer = Answer::new(fan.coverage).window(window).note(chosen.note);
        if total == 0 {
            let what = if contains.is_some() { "No service matches" } else { "No service was seen" };
            answer = answer.text(format!("{what} in {}.", describe(window))).hint("try a longer window, such as 1d");
        } else {
            answer = answer.text(format!("{head}\n{}", render(&page, now)));
        }
        Ok(answer.field("services", page).counts(counts).next(next).finish())
    }
}

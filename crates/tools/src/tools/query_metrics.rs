//! `query_metrics`: what a metric did in a window, for every matching series, compared with an earlier window.
//!
//! Guards that no series is left out unsaid: the worst come first and the rest is counted. A summary by default; points
//! only when asked for, at most 60 per series with peaks kept.

mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, Signal, SourceName, TimeWindow, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{
    Aggregation, Arguments, Exchange, MetricAnswer, MetricRequest, MetricSelector, Outcome, SemanticMetric, Source, Tool, Total,
};
use portcullis_query::promql_reach;
use portcullis_shape::one_line;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Counts, sum_totals};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, FanOut, Found, Sources};
use crate::time::{Chosen, TimeArguments, describe, whole, within_look_back};
use rows::{Block, Row};

pub(crate) use rows::number;

const DEFAULT_WINDOW: Duration = Duration::from_mins(15);
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 100;
/// Series read from one source to find the worst.
const MAX_SERIES: usize = 1_000;
/// Buckets per series when points are asked for.
const MAX_POINTS: usize = 60;
const MAX_EXEMPLARS: usize = 3;

const AGGREGATIONS: [(&str, Aggregation); 8] = [
    ("sum", Aggregation::Sum),
    ("average", Aggregation::Average),
    ("minimum", Aggregation::Minimum),
    ("maximum", Aggregation::Maximum),
    ("count", Aggregation::Count),
    ("p50", Aggregation::Quantile(0.5)),
    ("p95", Aggregation::Quantile(0.95)),
    ("p99", Aggregation::Quantile(0.99)),
];
const COMPARISONS: [&str; 4] = ["previous", "day", "week", "none"];

/// The tool.
pub(crate) struct QueryMetrics {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    metric: Option<String>,
    query: Option<String>,
    service: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    group_by: Vec<String>,
    aggregation: Option<String>,
    compare: Option<String>,
    #[serde(default)]
    points: bool,
    source: Option<String>,
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<u32>,
}

impl Given {
    fn time(&self) -> TimeArguments<'_> {
        let (window, start, end) = (self.window.as_deref(), self.start.as_deref(), self.end.as_deref());
        TimeArguments { window, start, end, around: None }
    }
}

/// What one source said about the window and the one it is compared with.
struct Reply {
    now: MetricAnswer,
    before: Option<MetricAnswer>,
}

/// The window before, and why there is none although one was asked for.
struct Comparison {
    window: Option<TimeWindow>,
    note: Option<String>,
}

impl QueryMetrics {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let meanings: Vec<&str> = SemanticMetric::ALL.iter().map(|m| m.as_str()).collect();
        let aggregations: Vec<&str> = AGGREGATIONS.iter().map(|(name, _)| *name).collect();
        let metric = format!("a name, or by meaning: {}", meanings.join(", "));
        let spec = schema::reading_tool(Sheet {
            name: "query_metrics",
            title: "Query metrics",
            description: "Summary of every matching series, worst first: current, min, max, mean, trend, change. \
                          Counters come as rates. Give metric or query.",
            input: schema::input(
                &[
                    ("metric", schema::text(&metric)),
                    ("query", schema::reaching(schema::text("raw PromQL"))),
                    ("service", schema::service()),
                    ("labels", schema::labels()),
                    ("group_by", schema::names(10)),
                    ("aggregation", schema::choice(&aggregations, None)),
                    ("compare", schema::compare(&COMPARISONS, 1)),
                    ("points", schema::flag("also the curve")),
                    ("source", schema::source()),
                    ("window", schema::window("15m")),
                    ("start", schema::start()),
                    ("end", schema::end()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                ],
                &[],
            ),
            output: schema::output(&[("series", "array")]),
            completions: &[
                ("metric", CompletionKind::Metric),
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
                ("aggregation", schema::fixed(&aggregations)),
                ("compare", schema::fixed(&COMPARISONS)),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }
}

/// Metric, raw query or a refusal when both or neither are there.
fn selector(given: &Given) -> Result<MetricSelector, Fault> {
    let metric = arguments::text("metric", given.metric.as_deref())?;
    let query = arguments::bounded("query", given.query.as_deref(), arguments::MAX_QUERY)?;
    match (metric, query) {
        (Some(_), Some(_)) => Err(Fault::invalid("metric and query exclude each other; give one")),
        (None, None) => {
            Err(Fault::invalid("give metric or query")
                .with_hint("metric: error_rate, or query: sum(rate(http_requests_total[5m]))"))
        }
        (Some(name), None) => {
            Ok(SemanticMetric::from_name(name).map_or_else(|| MetricSelector::Named(name.to_owned()), MetricSelector::Semantic))
        }
        (None, Some(query)) => {
            let extra =
                given.service.is_some() || !given.labels.is_empty() || !given.group_by.is_empty() || given.aggregation.is_some();
            if extra {
                return Err(Fault::invalid(
                    "service, labels, group_by and aggregation belong inside the query when query is given",
                ));
            }
            Ok(MetricSelector::Raw(query.to_owned()))
        }
    }
}

fn aggregation(given: &Given) -> Result<Option<Aggregation>, Fault> {
    let Some(name) = given.aggregation.as_deref() else {
        if given.group_by.is_empty() {
            return Ok(None);
        }
        return Err(Fault::invalid("group_by needs an aggregation, such as maximum or sum"));
    };
    let known = AGGREGATIONS.iter().find(|(word, _)| *word == name).map(|(_, aggregation)| Some(*aggregation));
    known.ok_or_else(|| {
        let words: Vec<&str> = AGGREGATIONS.iter().map(|(word, _)| *word).collect();
        Fault::invalid(format!("aggregation '{}' is not one of {}", one_line(name, 40), words.join(", ")))
    })
}

/// The window this one is to be compared with, whatever the caller may see of it.
fn compared_with(given: &Given, window: TimeWindow) -> Result<Option<TimeWindow>, Fault> {
    match given.compare.as_deref().unwrap_or("previous") {
        "none" => Ok(None),
        "previous" => Ok(Some(window.previous())),
        "day" => Ok(Some(window.shifted_back(Duration::from_hours(24)))),
        "week" => Ok(Some(window.shifted_back(Duration::from_hours(7 * 24)))),
        other => Err(Fault::invalid(format!("compare '{}' is not one of {}", one_line(other, 40), COMPARISONS.join(", ")))),
    }
}

fn comparison(given: &Given, window: TimeWindow, permit: &Permit, now: portcullis_model::Timestamp) -> Result<Comparison, Fault> {
    let Some(asked) = compared_with(given, window)? else { return Ok(Comparison { window: None, note: None }) };
    let kept = within_look_back(asked, now, permit.scope());
    let note = match kept {
        Some(kept) if kept == asked => None,
        Some(kept) => {
            Some(format!("compared with a shorter window, {}: this credential may not look further back", describe(kept)))
        }
        None => Some("not compared: this credential may not look that far back".to_owned()),
    };
    Ok(Comparison { window: kept, note })
}

async fn ask_one(
    source: Arc<dyn Source>,
    permit: Permit,
    request: &MetricRequest,
    before: Option<TimeWindow>,
) -> Result<Found<Reply>, Fault> {
    let earlier = async {
        match before {
            None => None,
            Some(window) => Some(source.metrics(&permit, &MetricRequest { window, ..request.clone() }).await),
        }
    };
    let (now, earlier) = futures::join!(source.metrics(&permit, request), earlier);
    let now = now?;
    let has_data = !now.series.is_empty();
    let (before, missing) = match earlier {
        None => (None, None),
        Some(Ok(answer)) => (Some(answer), None),
        Some(Err(fault)) => (None, Some(format!("the earlier window could not be read: {}", fault.in_all_words()))),
    };
    Ok(Found::new(Reply { now, before }, has_data).partial(missing))
}

/// What the answer is made of after every source was asked.
struct Gathered {
    blocks: Vec<Block>,
    rows: Vec<Row>,
    total: Total,
    notes: Vec<String>,
    exemplars: Vec<Value>,
}

fn gather(fan: &FanOut<Reply>, compared: bool, selector: &MetricSelector) -> Gathered {
    let several = fan.answers.len() > 1;
    let mut gathered = Gathered {
        blocks: Vec::new(),
        rows: Vec::new(),
        total: sum_totals(fan.answers.iter().map(|(_, reply)| reply.now.total_series)),
        notes: Vec::new(),
        exemplars: Vec::new(),
    };
    for (name, reply) in &fan.answers {
        let block = Block::of(name, &reply.now, selector);
        let read = reply.now.series.len() as u64;
        if let Total::Exact(all) | Total::AtLeast(all) = reply.now.total_series
            && all > read
        {
            let note = format!(
                "{name} returned {read} of {all} series; a worse one may be among the rest: narrow with labels or aggregate"
            );
            gathered.notes.push(note);
        }
        gathered
            .notes
            .extend(reply.now.warnings.iter().take(3).map(|warning| format!("{name} warns: {}", one_line(warning, 200))));
        // What holds for both windows is said once.
        let earlier = reply.before.iter().flat_map(|before| &before.warnings);
        let earlier = earlier.filter(|warning| !reply.now.warnings.contains(warning)).take(2);
        gathered.notes.extend(earlier.map(|warning| format!("{name} warns of the earlier window: {}", one_line(warning, 200))));
        gathered.rows.extend(rows::of_source(
            name,
            reply.now.series.as_slice(),
            reply.before.as_ref(),
            &block,
            several,
            compared,
        ));
        gathered.exemplars.extend(exemplars(name, &reply.now));
        gathered.blocks.push(block);
    }
    rows::worst_first(&mut gathered.rows);
    gathered
}

/// The largest exemplars that lead to a trace.
fn exemplars(source: &SourceName, answer: &MetricAnswer) -> Vec<Value> {
    let mut linked: Vec<_> = answer.exemplars.iter().filter(|e| e.trace_id.is_some()).collect();
    linked.sort_by(|a, b| b.value.total_cmp(&a.value));
    linked
        .into_iter()
        .take(MAX_EXEMPLARS)
        .map(|e| json!({"source": source, "at": e.at.to_string(), "value": rows::number(e.value), "trace_id": e.trace_id}))
        .collect()
}

#[async_trait]
impl Tool for QueryMetrics {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    /// As far as a raw query reads: its ranges, subqueries, offsets and `@` in the window and in the one it is compared with.
    /// What is no PromQL cannot be told.
    fn reach_back(&self, arguments: &Arguments) -> Option<Duration> {
        // Every call is asked; without a raw query the times say it all.
        arguments.0.get("query")?;
        let given: Given = arguments.clone().parse().ok()?;
        let query = arguments::bounded("query", given.query.as_deref(), arguments::MAX_QUERY).ok()??;
        let now = whole(self.clock.now());
        let window = given.time().asked_for(now, DEFAULT_WINDOW).ok()?;
        let mut earliest = window.start;
        for window in std::iter::once(window).chain(compared_with(&given, window).ok()?) {
            if let Some(reach) = promql_reach(query, window.start, window.end).ok()? {
                earliest = earliest.min(reach.earliest);
            }
        }
        Some(now.since(earliest))
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, _exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        let limit = arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let now = self.clock.now();
        let Chosen { window, note } = given.time().choose(now, DEFAULT_WINDOW, permit.scope())?;
        let comparison = comparison(&given, window, permit, now)?;
        for label in &given.group_by {
            arguments::label_name(label)?;
        }
        let request = MetricRequest {
            window,
            step: None,
            metric: selector(&given)?,
            service: arguments::service(given.service.as_deref(), permit.scope())?.map(str::to_owned),
            matchers: arguments::labels(&given.labels)?,
            group_by: given.group_by.clone(),
            aggregation: aggregation(&given)?,
            max_series: MAX_SERIES,
        };
        let (asked, before) = (&request, comparison.window);
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Metrics, given.source.as_deref()), |source, permit| {
                ask_one(source, permit, asked, before)
            })
            .await?
            .or_refusal()?;
        let gathered = gather(&fan, before.is_some(), &request.metric);
        let answer = Answer::new(fan.coverage.clone()).window(window).note(note).note(comparison.note);
        Ok(respond(answer, gathered, &Shown { window, before, limit, points: given.points, given: &given }).finish())
    }
}

/// How to show it.
struct Shown<'a> {
    window: TimeWindow,
    before: Option<TimeWindow>,
    limit: usize,
    points: bool,
    given: &'a Given,
}

fn respond(mut answer: Answer, mut gathered: Gathered, shown: &Shown<'_>) -> Answer {
    for note in gathered.notes {
        answer = answer.note(Some(note));
    }
    let read = gathered.rows.len();
    gathered.rows.truncate(shown.limit);
    let total = match gathered.total {
        Total::Unknown if read < MAX_SERIES => Total::Exact(read as u64),
        other => other,
    };
    let counts = Counts::of(gathered.rows.len(), total);
    answer = answer.counts(counts);
    if gathered.rows.is_empty() {
        let what = shown.given.metric.as_deref().or(shown.given.query.as_deref()).unwrap_or_default();
        let whom = shown.given.service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
        answer = answer
            .text(format!("No series matches '{}'{whom} in {}.", one_line(what, 120), describe(shown.window)))
            .hint("find_metrics lists the names and labels that exist");
    } else {
        answer = answer.text(rows::render(&gathered.blocks, &gathered.rows, counts, shown.window, shown.before, shown.points));
        if counts.truncated {
            answer = answer.hint("narrow with labels, or merge with aggregation and group_by");
        }
    }
    let series: Vec<Value> = gathered.rows.iter().map(|row| row.structure(shown.window, shown.points)).collect();
    let queries: Vec<Value> = gathered.blocks.iter().map(Block::structure).collect();
    answer = answer.field("series", series).field("queries", queries);
    if !gathered.exemplars.is_empty() {
        let traces: Vec<&str> = gathered.exemplars.iter().filter_map(|e| e["trace_id"].as_str()).collect();
        answer = answer.hint(format!("traces behind the largest values: {}", traces.join(", ")));
        answer = answer.field("exemplars", &gathered.exemplars);
    }
    answer
}

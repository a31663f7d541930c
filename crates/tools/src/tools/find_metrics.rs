//! `find_metrics`: which metrics exist, what they measure, their labels, how many series they have, and the values of a label.
//!
//! Guards that an agent can find the exact name and label before it asks for values. Returns no samples.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, MetricDescriptor, MetricKind, Signal, SourceName, ToolSpec, cut};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, LabelValuesRequest, MetricCatalogueRequest, Outcome, SemanticMetric, Tool, Total};
use portcullis_shape::{Cell, Column, Table, TableOptions, one_line};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Counts, sum_totals};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, Found, Sources};
use crate::time::{Chosen, Packed, TimeArguments, confine, describe};

const NAME: &str = "find_metrics";
const DEFAULT_WINDOW: Duration = Duration::from_hours(1);
const DEFAULT_LIMIT: usize = 30;
const MAX_LIMIT: usize = 200;
/// Furthest a cursor walks; beyond it the question must be narrowed.
const MAX_OFFSET: usize = 20_000;
const MAX_DESCRIPTION: usize = 100;
const MAX_LABELS_SHOWN: usize = 20;

/// The tool.
pub(crate) struct FindMetrics {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    contains: Option<String>,
    service: Option<String>,
    source: Option<String>,
    values_of: Option<String>,
    metric: Option<String>,
    window: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    name: String,
    source: SourceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<MetricKind>,
    #[serde(skip_serializing_if = "String::is_empty")]
    unit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    #[serde(rename = "w")]
    window: Packed,
    #[serde(rename = "o")]
    offset: usize,
}

/// A question after its arguments were checked.
struct Checked<'a> {
    question: String,
    chosen: Chosen,
    service: Option<&'a str>,
    source: Option<&'a str>,
    limit: usize,
    offset: usize,
}

impl FindMetrics {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: NAME,
            title: "Find metrics",
            description: "Metric names with kind, unit, labels and series counts; or, with values_of, the values of one label. \
                          Not needed for the meanings query_metrics knows.",
            input: schema::input(
                &[
                    ("contains", schema::text("part of the name or value")),
                    ("service", schema::service()),
                    ("values_of", schema::text("a label")),
                    ("metric", schema::text("values_of on this metric only")),
                    ("source", schema::source()),
                    ("window", schema::window("1h")),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                    ("cursor", schema::cursor()),
                ],
                &[],
            ),
            output: schema::output(&[("metrics", "array"), ("values", "array")]),
            completions: &[
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
                ("metric", CompletionKind::Metric),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }

    async fn catalogue(
        &self,
        permit: &Permit,
        given: &Given,
        asked: Checked<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Outcome, Fault> {
        let window = asked.chosen.window;
        let request = MetricCatalogueRequest {
            window,
            service: asked.service.map(str::to_owned),
            name_contains: arguments::text("contains", given.contains.as_deref())?.map(str::to_owned),
            limit: asked.offset + asked.limit + 1,
            with_labels: true,
        };
        let request = &request;
        let ask = Ask::signal(Signal::Metrics, asked.source);
        let fan = self
            .sources
            .fan_out(permit, ask, |source, permit| async move {
                let answer = source.metric_catalogue(&permit, request).await?;
                let has_data = !answer.metrics.is_empty();
                Ok(Found::new(answer, has_data))
            })
            .await?
            .or_refusal()?;
        let total = sum_totals(fan.answers.iter().map(|(_, answer)| answer.total));
        let mut rows: Vec<Row> =
            fan.answers.iter().flat_map(|(source, answer)| answer.metrics.iter().map(|metric| row(source, metric))).collect();
        rows.sort_by(|a, b| (&a.name, &a.source).cmp(&(&b.name, &b.source)));
        let more = rows.len() > asked.offset + asked.limit;
        let page: Vec<Row> = rows.into_iter().skip(asked.offset).take(asked.limit).collect();
        let next = next_page(exchange, &asked, page.len(), more)?;
        let counts = Counts::page(page.len(), total, more);
        let mut answer = Answer::new(fan.coverage).window(window).note(asked.chosen.note).counts(counts).next(next);
        if page.is_empty() {
            answer = answer
                .text(format!("No metric matches in {}.", describe(window)))
                .hint("try a shorter part of the name, a longer window, or no service");
        } else {
            answer = answer.text(format!("{} metrics, {}\n{}", counts.describe(), describe(window), table(&page)?));
            if more {
                answer = answer.hint("narrow with contains or service");
            }
        }
        let meanings: Vec<&str> = SemanticMetric::ALL.iter().map(|m| m.as_str()).collect();
        answer = answer.hint(format!("query_metrics also takes a meaning: {}", meanings.join(", ")));
        Ok(answer.field("metrics", page).finish())
    }

    async fn values(
        &self,
        permit: &Permit,
        given: &Given,
        label: &str,
        asked: Checked<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Outcome, Fault> {
        arguments::label_name(label)?;
        let window = asked.chosen.window;
        let contains = arguments::text("contains", given.contains.as_deref())?.map(str::to_lowercase);
        let wanted = asked.offset + asked.limit + 1;
        let request = LabelValuesRequest {
            window,
            signal: Signal::Metrics,
            label: label.to_owned(),
            metric: arguments::text("metric", given.metric.as_deref())?.map(str::to_owned),
            service: asked.service.map(str::to_owned),
            prefix: String::new(),
            // A part of the value is matched here, so all values are needed for it.
            limit: if contains.is_some() { MAX_OFFSET } else { wanted },
        };
        let request = &request;
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Metrics, asked.source), |source, permit| async move {
                let values = source.label_values(&permit, request).await?;
                let has_data = !values.is_empty();
                let cut = (values.len() >= request.limit).then(|| format!("only the first {} values were read", values.len()));
                Ok(Found::new(values, has_data).partial(cut.filter(|_| request.limit == MAX_OFFSET)))
            })
            .await?
            .or_refusal()?;
        let capped = fan.answers.iter().any(|(_, values)| values.len() >= request.limit);
        // A value stands apart from its label here, and that may say that it is a secret: it is no value to be looked for.
        let shown = |value: &String| cut::field(label, value).into_owned();
        let mut values: BTreeSet<String> = fan.answers.iter().flat_map(|(_, values)| values).map(shown).collect();
        if let Some(part) = &contains {
            values.retain(|value| value.to_lowercase().contains(part));
        }
        let total = if capped { Total::AtLeast(values.len() as u64) } else { Total::Exact(values.len() as u64) };
        let more = values.len() > asked.offset + asked.limit;
        let page: Vec<String> = values.iter().skip(asked.offset).take(asked.limit).map(|value| one_line(value, 200)).collect();
        let next = next_page(exchange, &asked, page.len(), more)?;
        let counts = Counts::page(page.len(), total, more);
        let text = if page.is_empty() {
            format!("No value of label {label} in {}.", describe(window))
        } else {
            format!("{} values of {label}: {}", counts.describe(), page.join(", "))
        };
        let answer = Answer::new(fan.coverage).window(window).note(asked.chosen.note).counts(counts).next(next);
        Ok(answer.text(text).field("values", page).finish())
    }
}

fn next_page(exchange: &dyn Exchange, asked: &Checked<'_>, shown: usize, more: bool) -> Result<Option<String>, Fault> {
    let offset = asked.offset + shown;
    if !more || offset > MAX_OFFSET {
        return Ok(None);
    }
    arguments::next(exchange, &asked.question, &Position { window: Packed(asked.chosen.window), offset }).map(Some)
}

fn row(source: &SourceName, metric: &MetricDescriptor) -> Row {
    let mut labels: Vec<String> = metric.labels.iter().take(MAX_LABELS_SHOWN).map(|label| one_line(label, 80)).collect();
    if metric.labels.len() > MAX_LABELS_SHOWN {
        labels.push(format!("(+{} more)", metric.labels.len() - MAX_LABELS_SHOWN));
    }
    Row {
        name: one_line(&metric.name, 200),
        source: source.clone(),
        kind: (metric.kind != MetricKind::Unknown).then_some(metric.kind),
        unit: one_line(&metric.unit, 30),
        series: metric.series,
        labels,
        description: one_line(&metric.description, MAX_DESCRIPTION),
    }
}

fn kind_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Gauge => "gauge",
        MetricKind::Counter => "counter",
        MetricKind::Histogram => "histogram",
        MetricKind::ExponentialHistogram => "exponential_histogram",
        MetricKind::Summary => "summary",
        MetricKind::Unknown => "unknown",
    }
}

fn table(rows: &[Row]) -> Result<String, Fault> {
    let columns = ["name", "kind", "unit", "series", "labels", "description", "source"];
    let mut table = Table::new(columns.into_iter().map(Column::new).collect());
    let word = |text: &str| if text.is_empty() { Cell::Absent } else { Cell::from(text) };
    for row in rows {
        table
            .push(vec![
                Cell::from(row.name.as_str()),
                row.kind.map(kind_name).into(),
                word(&row.unit),
                row.series.map(|n| n as f64).into(),
                word(&row.labels.join(" ")),
                word(&row.description),
                Cell::from(row.source.as_str()),
            ])
            .map_err(|e| {
                Fault::new(portcullis_model::FaultCode::Internal, "the table of metrics broke").with_internal(e.to_string())
            })?;
    }
    Ok(table.render(&TableOptions { max_rows: rows.len(), ..TableOptions::default() }).text)
}

#[async_trait]
impl Tool for FindMetrics {
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
        if given.metric.is_some() && given.values_of.is_none() {
            return Err(Fault::invalid("metric only goes with values_of; use contains to search for a metric"));
        }
        let now = self.clock.now();
        let position: Option<Position> = arguments::cursor(&question, given.cursor.as_deref())?;
        let time = TimeArguments { window: given.window.as_deref(), ..TimeArguments::default() };
        let chosen = match &position {
            Some(position) => confine(position.window.0, now, permit.scope())?,
            None => time.choose(now, DEFAULT_WINDOW, permit.scope())?,
        };
        let asked = Checked {
            question,
            chosen,
            service: arguments::service(given.service.as_deref(), permit.scope())?,
            source: given.source.as_deref(),
            limit: arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?,
            offset: position.map_or(0, |position| position.offset.min(MAX_OFFSET)),
        };
        match given.values_of.as_deref() {
            Some(label) => self.values(permit, &given, label, asked, exchange).await,
            None => self.catalogue(permit, &given, asked, exchange).await,
        }
    }
}

//! `sql`: one read-only statement over the records of a source that speaks SQL.
//!
//! Guards that an agent learns the tables when it guesses wrong. What a statement may do is decided and enforced by the
//! source, on the plan, not here.

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Fault, FaultCode, Signal, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, SqlAnswer, SqlRequest, Tool, Total};
use portcullis_shape::{Cell, Column, Table, TableOptions, one_line};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Counts};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, FanOut, Found, Sources};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
const MAX_CELL: usize = 2_000;

/// The tables, for whoever asked for one that does not exist.
pub(crate) const TABLES: &str = "tables: otel_logs, otel_traces, otel_metrics_gauge, otel_metrics_sum, otel_metrics_histogram, \
                                 otel_metrics_exponential_histogram, otel_metrics_summary; read portcullis://schema/sql for columns";

/// The tool.
pub(crate) struct Sql {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    query: String,
    source: Option<String>,
    limit: Option<u32>,
}

impl Sql {
    pub(crate) fn new(sources: Arc<Sources>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: "sql",
            title: "SQL",
            description: "One read-only SELECT (DataFusion dialect) for what other tools cannot answer. Tables otel_logs(Timestamp, \
                          ServiceName, SeverityText, Body, TraceId, LogAttributes, ResourceAttributes), otel_traces(Timestamp, TraceId, \
                          ServiceName, SpanName, Duration in ns, StatusCode, SpanAttributes), otel_metrics_gauge|sum|histogram(TimeUnix, \
                          ServiceName, MetricName, Attributes, Value). Maps: Attributes['http.route']. Bound the time.",
            input: schema::input(
                &[
                    ("query", schema::reaching(json!({"type": "string", "minLength": 1}))),
                    ("source", schema::source()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                ],
                &["query"],
            ),
            output: schema::output(&[("columns", "array"), ("rows", "array")]),
            completions: &[("source", CompletionKind::Source)],
        })?;
        Some(Self { spec, sources })
    }

    /// The one source to ask: rows of different sources are not put together.
    fn only_source(&self, permit: &Permit, asked: Option<&str>) -> Result<Option<String>, Fault> {
        if let Some(name) = asked {
            return Ok(Some(name.to_owned()));
        }
        let able: Vec<String> = self
            .sources
            .visible(permit)
            .iter()
            .filter(|source| source.capabilities().contains(&Signal::Sql))
            .map(|source| source.name().to_string())
            .collect();
        match able.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            several => Err(Fault::invalid("several sources speak SQL; name one with source").with_hint(several.join(", "))),
        }
    }
}

/// What the one source said when the statement took too long or had to wait. The caller can mend both, so it is told which of
/// them by the code.
fn came_to_nothing(fan: &FanOut<SqlAnswer>) -> Option<Fault> {
    let mends = |fault: &&Fault| matches!(fault.code(), FaultCode::DeadlineExceeded | FaultCode::RateLimited);
    fan.faults.first().map(|(_, fault)| fault).filter(mends).filter(|_| fan.answers.is_empty()).cloned()
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Absent,
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => Cell::Text(portcullis_shape::number::plain(float, 6)),
            _ => Cell::Text(number.to_string()),
        },
        other => Cell::Text(other.to_string()),
    }
}

/// Long text in a row is cut with its length stated, also in the structured answer.
fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > MAX_CELL => json!(one_line(text, MAX_CELL)),
        other => other.clone(),
    }
}

fn render(answer: &SqlAnswer) -> Result<String, Fault> {
    let mut table = Table::new(answer.columns.iter().map(|column| Column::new(one_line(&column.name, 100))).collect());
    for row in &answer.rows {
        table.push(row.iter().map(cell).collect()).map_err(|e| {
            Fault::new(FaultCode::BackendFailed, "the source answered rows that do not fit its columns")
                .with_internal(e.to_string())
        })?;
    }
    Ok(table.render(&TableOptions { max_rows: answer.rows.len().max(1), ..TableOptions::default() }).text)
}

#[async_trait]
impl Tool for Sql {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, _exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        let statement = arguments::bounded("query", Some(&given.query), arguments::MAX_QUERY)?.unwrap_or_default();
        let max_rows = arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let source = self.only_source(permit, given.source.as_deref())?;
        let request = SqlRequest { statement: statement.to_owned(), max_rows };
        let asked = &request;
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Sql, source.as_deref()), |source, permit| async move {
                let answer = source.sql(&permit, asked).await?;
                let has_data = !answer.rows.is_empty();
                Ok(Found::new(answer, has_data))
            })
            .await?;
        if let Some(fault) = fan.refusal() {
            let hint = fault.hint().map_or_else(|| TABLES.to_owned(), |hint| format!("{hint}; {TABLES}"));
            return Err(fault.with_hint(hint));
        }
        if let Some(fault) = came_to_nothing(&fan) {
            return Err(fault);
        }
        let answer = Answer::new(fan.coverage);
        let Some((_, found)) = fan.answers.into_iter().next() else {
            return Ok(answer.hint(TABLES).finish());
        };
        let shown = found.rows.len();
        let total = if found.truncated { Total::AtLeast(shown as u64 + 1) } else { Total::Exact(shown as u64) };
        let counts = Counts::of(shown, total);
        let text = if shown == 0 { "No rows.".to_owned() } else { format!("{} rows\n{}", counts.describe(), render(&found)?) };
        let columns: Vec<String> = found.columns.iter().map(|column| column.name.clone()).collect();
        let rows: Vec<Vec<Value>> = found.rows.iter().map(|row| row.iter().map(bounded).collect()).collect();
        let mut answer = answer.counts(counts).text(text).field("columns", columns).field("rows", rows);
        if counts.truncated {
            answer = answer.hint("aggregate, filter more, or raise limit; order and bound the statement to page");
        }
        Ok(answer.finish())
    }
}

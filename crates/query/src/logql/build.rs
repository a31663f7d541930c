//! LogQL from types. Guards that texts become string literals and names are names, so that the query has the structure its
//! types say. Must not read raw queries.

use std::fmt;
use std::time::Duration;

use super::ast::{
    Grouping, LabelFilter, LabelTerm, LineOperator, LineValue, LogQuery, LogRange, Matcher, MetricExpr, Operand, Stage, Unwrap,
};
use super::parse::is_label;
use crate::QueryError;
use crate::error::shown;
use crate::promql::{self, LabelName, MatchOperator};
use crate::text::{check_regex, duration, number};

fn label(name: &LabelName) -> Result<String, QueryError> {
    if is_label(name.as_str()) {
        return Ok(name.as_str().to_owned());
    }
    let rule = "use letters, digits and underscores, and no word of LogQL; Loki has no other label names";
    Err(QueryError::Name { kind: "label name of LogQL", shown: shown(name.as_str()), rule })
}

/// Which streams.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSelector(Vec<Matcher>);

impl LogSelector {
    /// Streams that match all of `matchers`, of which Loki wants at least one that does not match the empty value.
    ///
    /// # Errors
    /// A label name that Loki cannot have, and a selector every stream could match.
    pub fn new<'a>(matchers: impl IntoIterator<Item = &'a promql::Matcher>) -> Result<Self, QueryError> {
        let read: Vec<Matcher> = matchers.into_iter().map(Matcher::try_from).collect::<Result<_, _>>()?;
        if read.iter().all(super::parse::matches_empty) {
            return Err(QueryError::NotConfinable {
                reason: "a stream selector needs a matcher that does not match the empty value".to_owned(),
                position: None,
            });
        }
        Ok(Self(read))
    }

    /// All lines of the streams.
    #[must_use]
    pub fn lines(self) -> LogLines {
        LogLines { logs: LogQuery { matchers: self.0, stages: Vec::new() } }
    }
}

impl fmt::Display for LogSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LogQuery { matchers: self.0.clone(), stages: Vec::new() }.fmt(f)
    }
}

/// How lines are taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parser {
    /// Fields of JSON objects.
    Json,
    /// `key=value`.
    Logfmt,
    /// What the agent packed.
    Unpack,
}

/// Lines of streams and what is done with them. [`fmt::Display`] renders the query.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLines {
    logs: LogQuery,
}

impl LogLines {
    fn with(mut self, stage: Stage) -> Self {
        self.logs.stages.push(stage);
        self
    }

    fn line(self, operator: LineOperator, texts: impl IntoIterator<Item = String>) -> Self {
        let any_of: Vec<LineValue> = texts.into_iter().map(LineValue::Text).collect();
        if any_of.is_empty() { self } else { self.with(Stage::Line { operator, any_of }) }
    }

    /// Only lines with this text in them, exactly as it is.
    #[must_use]
    pub fn containing(self, text: impl Into<String>) -> Self {
        self.line(LineOperator::Contains, [text.into()])
    }

    /// Only lines with one of these texts; no text is no condition.
    #[must_use]
    pub fn containing_any(self, texts: impl IntoIterator<Item = String>) -> Self {
        self.line(LineOperator::Contains, texts)
    }

    /// Only lines without this text.
    #[must_use]
    pub fn lacking(self, text: impl Into<String>) -> Self {
        self.line(LineOperator::Lacks, [text.into()])
    }

    /// Only lines that an expression in RE2 syntax is found in. The expression is checked.
    pub fn matching(self, pattern: impl Into<String>) -> Result<Self, QueryError> {
        let pattern = pattern.into();
        check_regex(&pattern)?;
        Ok(self.line(LineOperator::Matches, [pattern]))
    }

    /// Only lines that an expression in RE2 syntax is not found in. The expression is checked.
    pub fn not_matching(self, pattern: impl Into<String>) -> Result<Self, QueryError> {
        let pattern = pattern.into();
        check_regex(&pattern)?;
        Ok(self.line(LineOperator::MatchesNot, [pattern]))
    }

    /// Takes each line apart into labels.
    #[must_use]
    pub fn parsed_as(self, parser: Parser) -> Self {
        let fields = |parser| Stage::Fields { parser, flags: Vec::new(), wanted: Vec::new() };
        self.with(match parser {
            Parser::Json => fields("json"),
            Parser::Logfmt => fields("logfmt"),
            Parser::Unpack => Stage::Bare("unpack"),
        })
    }

    /// Only lines whose label (of the stream, of structured metadata, or parsed) fits.
    pub fn labelled(self, matcher: &promql::Matcher) -> Result<Self, QueryError> {
        let matcher = Matcher::try_from(matcher)?;
        let first = Box::new(LabelTerm::Matcher(matcher));
        Ok(self.with(Stage::Labels(LabelFilter { first, rest: Vec::new() })))
    }

    fn over(self, function: &'static str, length: Duration, unwrap: Option<Unwrap>, parameter: Option<String>) -> LogMetric {
        let length = length.max(Duration::from_millis(1));
        let over = LogRange { logs: self.logs, unwrap, range: duration(length), offset: None };
        LogMetric(MetricExpr::of(Operand::Range { function, parameter, over, grouping: None }))
    }

    /// How many lines there were in the last `length`, per stream.
    #[must_use]
    pub fn count_over(self, length: Duration) -> LogMetric {
        self.over("count_over_time", length, None, None)
    }

    /// Lines per second over the last `length`, per stream.
    #[must_use]
    pub fn rate_over(self, length: Duration) -> LogMetric {
        self.over("rate", length, None, None)
    }

    /// Bytes per second over the last `length`, per stream.
    #[must_use]
    pub fn bytes_rate_over(self, length: Duration) -> LogMetric {
        self.over("bytes_rate", length, None, None)
    }

    /// The φ-quantile of the number in a label over the last `length`, 0 ≤ φ ≤ 1; lines where it is no number are left out.
    pub fn quantile_over(self, quantile: f64, of: &LabelName, length: Duration) -> Result<LogMetric, QueryError> {
        if !(0.0..=1.0).contains(&quantile) {
            return Err(QueryError::Number { what: "a quantile", rule: "between 0 and 1", given: quantile.to_string() });
        }
        let no_error = Matcher { name: "__error__".to_owned(), operator: MatchOperator::Equal, value: String::new() };
        let filter = LabelFilter { first: Box::new(LabelTerm::Matcher(no_error)), rest: Vec::new() };
        let unwrap = Unwrap { label: label(of)?, conversion: None, filters: vec![filter] };
        // `-0` is a number between 0 and 1 that LogQL could not read back.
        Ok(self.over("quantile_over_time", length, Some(unwrap), Some(number(quantile.abs()))))
    }
}

impl fmt::Display for LogLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.logs.fmt(f)
    }
}

/// Numbers from lines. [`fmt::Display`] renders the query.
#[derive(Debug, Clone, PartialEq)]
pub struct LogMetric(MetricExpr);

impl LogMetric {
    fn aggregated(self, function: &'static str, parameter: Option<String>, grouping: Option<Grouping>) -> Self {
        Self(MetricExpr::of(Operand::Aggregate { function, parameter, inner: self.0, grouping }))
    }

    /// The sum per combination of `labels`; over everything when there are none.
    pub fn sum_by(self, labels: &[LabelName]) -> Result<Self, QueryError> {
        let labels: Vec<String> = labels.iter().map(label).collect::<Result<_, _>>()?;
        let grouping = (!labels.is_empty()).then_some(Grouping { without: false, labels });
        Ok(self.aggregated("sum", None, grouping))
    }

    /// The largest `count` series; 0 is an error.
    pub fn top(self, count: u32) -> Result<Self, QueryError> {
        if count == 0 {
            return Err(QueryError::Number { what: "the number of series", rule: "at least 1", given: "0".into() });
        }
        Ok(self.aggregated("topk", Some(count.to_string()), None))
    }
}

impl fmt::Display for LogMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

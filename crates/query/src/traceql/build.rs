//! TraceQL from types. Guards that texts become string literals and names are names, so that the query has the structure
//! its types say. Must not read raw queries.

use std::fmt;
use std::time::Duration;

use portcullis_model::{SpanKind, SpanStatus};

use super::ast::{Field, FieldExpr, Metrics, Operand, Pipeline, Query, Stage, Term, Value};
use super::confine::TraceConfinement;
use super::lex::is_attribute;
use crate::QueryError;
use crate::error::shown;
use crate::text::{check_regex, number};

/// The name of an attribute, such as `service.name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeName(String);

impl AttributeName {
    /// Checks and wraps a name: a letter or `_`, then letters, digits and `_ - . / : @ $`, at most 256 bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, QueryError> {
        let name = name.into();
        if is_attribute(&name) {
            return Ok(Self(name));
        }
        let rule = "begin with a letter, use letters, digits and _ - . / : @ $, at most 256 bytes; others are not read alike by every Tempo";
        Err(QueryError::Name { kind: "attribute name of TraceQL", shown: shown(&name), rule })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for AttributeName {
    type Err = QueryError;
    fn from_str(name: &str) -> Result<Self, QueryError> {
        Self::new(name)
    }
}

/// Where an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeScope {
    /// On the span or its resource.
    Any,
    /// On the span.
    Span,
    /// On the resource: the service that made the span.
    Resource,
    /// On an event of the span.
    Event,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum SpanValue {
    /// A text.
    Text(String),
    /// A finite number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

/// Conditions on a span, all of which must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanCondition(Vec<(Field, &'static str, Vec<&'static str>, Value)>);

impl SpanCondition {
    /// Every span.
    pub fn any() -> Self {
        Self::default()
    }

    fn with(mut self, field: Field, operator: &'static str, value: Value) -> Self {
        self.0.push((field, operator, Vec::new(), value));
        self
    }

    /// The name of the span is exactly this.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        self.with(Field::Intrinsic("name"), "=", Value::Text(name.into()))
    }

    /// The name of the span matches the whole expression. The expression is checked.
    pub fn named_like(self, pattern: &str) -> Result<Self, QueryError> {
        check_regex(pattern)?;
        // Older versions of Tempo look for it anywhere, so the anchors are written out.
        Ok(self.with(Field::Intrinsic("name"), "=~", Value::Text(format!("^(?:{pattern})$"))))
    }

    /// Whether the span failed.
    #[must_use]
    pub fn with_status(self, status: SpanStatus) -> Self {
        let word = match status {
            SpanStatus::Unset => "unset",
            SpanStatus::Ok => "ok",
            SpanStatus::Error => "error",
        };
        self.with(Field::Intrinsic("status"), "=", Value::Word(word))
    }

    /// What part the span has in a call.
    #[must_use]
    pub fn of_kind(self, kind: SpanKind) -> Self {
        let word = match kind {
            SpanKind::Unspecified => "unspecified",
            SpanKind::Internal => "internal",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
        };
        self.with(Field::Intrinsic("kind"), "=", Value::Word(word))
    }

    /// The span took this long or longer.
    #[must_use]
    pub fn at_least(self, duration: Duration) -> Self {
        self.with(Field::Intrinsic("duration"), ">=", Value::Number(format!("{}ns", duration.as_nanos())))
    }

    /// The span took this long or less.
    #[must_use]
    pub fn at_most(self, duration: Duration) -> Self {
        self.with(Field::Intrinsic("duration"), "<=", Value::Number(format!("{}ns", duration.as_nanos())))
    }

    /// An attribute compares with a value. Numbers that are not finite are errors.
    pub fn attribute(
        mut self,
        scope: AttributeScope,
        name: &AttributeName,
        comparison: Comparison,
        value: SpanValue,
    ) -> Result<Self, QueryError> {
        let mut signs = Vec::new();
        let value = match value {
            SpanValue::Text(text) => Value::Text(text),
            SpanValue::Bool(truth) => Value::Word(if truth { "true" } else { "false" }),
            SpanValue::Number(value) if value.is_finite() => {
                if value.is_sign_negative() {
                    signs.push("-");
                }
                Value::Number(number(value.abs()))
            }
            SpanValue::Number(value) => {
                return Err(QueryError::Number { what: "an attribute", rule: "finite", given: value.to_string() });
            }
        };
        self.0.push((attribute(scope, name), comparison.as_str(), signs, value));
        Ok(self)
    }

    fn filter(&self, confinement: &TraceConfinement) -> Operand {
        let plain = |value| Term { signs: Vec::new(), value };
        let condition = |(field, operator, signs, value): &(Field, &'static str, Vec<&'static str>, Value)| {
            let value = Term { signs: signs.clone(), value: value.clone() };
            let expr = FieldExpr { first: Box::new(plain(Value::Field(field.clone()))), rest: vec![(*operator, value)] };
            plain(Value::Group(expr))
        };
        let mut terms = self.0.iter().map(condition).chain(confinement.terms());
        let expr = terms.next().map(|first| FieldExpr { first: Box::new(first), rest: terms.map(|term| ("&&", term)).collect() });
        Operand::Filter(expr)
    }
}

fn attribute(scope: AttributeScope, name: &AttributeName) -> Field {
    let scope = match scope {
        AttributeScope::Any => ".",
        AttributeScope::Span => "span.",
        AttributeScope::Resource => "resource.",
        AttributeScope::Event => "event.",
    };
    Field::Attribute { scope, name: name.0.clone() }
}

/// A question about spans. [`fmt::Display`] renders it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanQuery(Query);

impl SpanQuery {
    /// Traces with a span for which `condition` and `confinement` hold.
    pub fn new(condition: &SpanCondition, confinement: &TraceConfinement) -> Self {
        let stages = vec![Stage::of(condition.filter(confinement))];
        Self(Query { pipeline: Pipeline { stages }, metrics: None, ranked: None, hints: Vec::new() })
    }

    /// Shows these attributes of the spans found; none adds nothing.
    #[must_use]
    pub fn showing(mut self, attributes: &[(AttributeScope, AttributeName)]) -> Self {
        if !attributes.is_empty() {
            let fields = attributes.iter().map(|(scope, name)| attribute(*scope, name)).collect();
            self.0.pipeline.stages.push(Stage::of(Operand::Select(fields)));
        }
        self
    }

    /// The newest traces instead of the first ones found.
    #[must_use]
    pub fn most_recent(mut self) -> Self {
        self.0.hints = vec![("most_recent", "true".to_owned())];
        self
    }

    /// Spans per second, per combination of attributes.
    #[must_use]
    pub fn rate_by(mut self, attributes: &[(AttributeScope, AttributeName)]) -> Self {
        let by = attributes.iter().map(|(scope, name)| attribute(*scope, name)).collect();
        self.0.metrics = Some(Metrics::Over { function: "rate", of: None, quantiles: Vec::new(), by });
        self
    }

    /// Quantiles of the duration, each between 0 and 1, per combination of attributes.
    pub fn duration_quantiles(
        mut self,
        quantiles: &[f64],
        attributes: &[(AttributeScope, AttributeName)],
    ) -> Result<Self, QueryError> {
        if quantiles.is_empty() {
            return Err(QueryError::NoValues);
        }
        if let Some(wrong) = quantiles.iter().find(|quantile| !(0.0..=1.0).contains(*quantile)) {
            return Err(QueryError::Number { what: "a quantile", rule: "between 0 and 1", given: wrong.to_string() });
        }
        let quantiles = quantiles.iter().map(|quantile| number(quantile.abs())).collect();
        let by = attributes.iter().map(|(scope, name)| attribute(*scope, name)).collect();
        let of = Some(Field::Intrinsic("duration"));
        self.0.metrics = Some(Metrics::Over { function: "quantile_over_time", of, quantiles, by });
        Ok(self)
    }
}

impl fmt::Display for SpanQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! Writes a TraceQL query. Guards that every text is a string literal in double quotes and every word stands apart from the
//! next, so that no attribute name swallows an operator.

use std::fmt;

use super::ast::{Field, FieldExpr, Metrics, Operand, Pipeline, Query, Stage, Term, Value};
use crate::text::promql_string as quoted;

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pipeline.fmt(f)?;
        if let Some(metrics) = &self.metrics {
            write!(f, " | {metrics}")?;
        }
        if let Some((function, count)) = &self.ranked {
            write!(f, " | {function}({count})")?;
        }
        if !self.hints.is_empty() {
            let hints: Vec<String> = self.hints.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            write!(f, " with ({})", hints.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, stage) in self.stages.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " | " })?;
            stage.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.rest.iter().try_for_each(|(operator, operand)| write!(f, " {operator} {operand}"))
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(None) => f.write_str("{ }"),
            Self::Filter(Some(expr)) => write!(f, "{{ {expr} }}"),
            Self::Group(pipeline) => write!(f, "({pipeline})"),
            Self::Aggregate { function, of: None } => write!(f, "{function}()"),
            Self::Aggregate { function, of: Some(expr) } => write!(f, "{function}({expr})"),
            Self::Number(number) => f.write_str(number),
            Self::By(expr) => write!(f, "by({expr})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(fields) => write!(f, "select({})", list(fields)),
        }
    }
}

impl fmt::Display for FieldExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.rest.iter().try_for_each(|(operator, term)| write!(f, " {operator} {term}"))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.signs.iter().try_for_each(|sign| f.write_str(sign))?;
        match &self.value {
            Value::Text(text) => f.write_str(&quoted(text)),
            Value::Number(number) => f.write_str(number),
            Value::Word(word) => f.write_str(word),
            Value::Field(field) => field.fmt(f),
            Value::Group(inner) => write!(f, "({inner})"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intrinsic(name) => f.write_str(name),
            Self::Attribute { scope, name } => write!(f, "{scope}{name}"),
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over { function, of, quantiles, by } => {
                let arguments: Vec<String> = of.iter().map(ToString::to_string).chain(quantiles.iter().cloned()).collect();
                write!(f, "{function}({})", arguments.join(", "))?;
                if by.is_empty() { Ok(()) } else { write!(f, " by ({})", list(by)) }
            }
            Self::Compare { selected, numbers } => {
                write!(f, "compare({}", Operand::Filter(selected.clone()))?;
                numbers.iter().try_for_each(|number| write!(f, ", {number}"))?;
                f.write_str(")")
            }
        }
    }
}

//! Writes a LogQL query. Guards that every text is a string literal in double quotes (raw strings know no escapes, and a
//! backtick in a value would end one), and that two words never melt into one.

use std::fmt;

use super::ast::{
    Binary, ChosenLabel, FormatValue, Grouping, Joint, LabelFilter, LabelTerm, LineValue, LogQuery, LogRange, Matcher,
    MetricExpr, Operand, Query, Stage, Unwrap,
};
use crate::text::promql_string as quoted;

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logs(logs) => logs.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
            Self::Variants { wanted, of } => write!(f, "variants({}) of ({of})", list(wanted)),
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.operator.as_str(), quoted(&self.value))
    }
}

impl fmt::Display for LogQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", list(&self.matchers))?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl fmt::Display for LineValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Ip(range) => write!(f, "ip({})", quoted(range)),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { operator, any_of } => {
                let values: Vec<String> = any_of.iter().map(ToString::to_string).collect();
                write!(f, "{} {}", operator.as_str(), values.join(" or "))
            }
            Self::Fields { parser, flags, wanted } => {
                write!(f, "| {parser}")?;
                flags.iter().try_for_each(|flag| write!(f, " {flag}"))?;
                let fields: Vec<String> = wanted
                    .iter()
                    .map(|(name, from)| from.as_ref().map_or_else(|| name.clone(), |from| format!("{name}={}", quoted(from))))
                    .collect();
                if fields.is_empty() { Ok(()) } else { write!(f, " {}", fields.join(", ")) }
            }
            Self::Expression { parser, expression } => write!(f, "| {parser} {}", quoted(expression)),
            Self::Bare(word) => write!(f, "| {word}"),
            Self::Labels(filter) => write!(f, "| {filter}"),
            Self::LineFormat(template) => write!(f, "| line_format {}", quoted(template)),
            Self::LabelFormat(formats) => {
                let written: Vec<String> = formats
                    .iter()
                    .map(|(name, value)| match value {
                        FormatValue::Label(label) => format!("{name}={label}"),
                        FormatValue::Template(template) => format!("{name}={}", quoted(template)),
                    })
                    .collect();
                write!(f, "| label_format {}", written.join(", "))
            }
            Self::Choose { keep, labels } => write!(f, "| {} {}", if *keep { "keep" } else { "drop" }, list(labels)),
        }
    }
}

impl fmt::Display for ChosenLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Matching(matcher) => matcher.fmt(f),
        }
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.rest.iter().try_for_each(|(joint, term)| {
            let between = match joint {
                Joint::And => " and ",
                Joint::Or => " or ",
                Joint::Comma => ", ",
                Joint::Adjacent => " ",
            };
            write!(f, "{between}{term}")
        })
    }
}

impl fmt::Display for LabelTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matcher(matcher) => matcher.fmt(f),
            Self::Ip { name, equal, value } => write!(f, "{name} {} ip({})", if *equal { "=" } else { "!=" }, quoted(value)),
            Self::Compare { name, operator, value } => write!(f, "{name} {operator} {value}"),
            Self::Group(inner) => write!(f, "({inner})"),
        }
    }
}

impl fmt::Display for Unwrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.conversion {
            Some(conversion) => write!(f, "| unwrap {conversion}({})", self.label)?,
            None => write!(f, "| unwrap {}", self.label)?,
        }
        self.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl fmt::Display for LogRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.logs.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, " [{}]", self.range)?;
        self.offset.as_ref().map_or(Ok(()), |offset| write!(f, " offset {offset}"))
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {} ({})", if self.without { "without" } else { "by" }, self.labels.join(", "))
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operator)?;
        if self.returns_bool {
            f.write_str(" bool")?;
        }
        if let Some((on, labels)) = &self.matching {
            write!(f, " {} ({})", if *on { "on" } else { "ignoring" }, labels.join(", "))?;
        }
        if let Some((left, labels)) = &self.group {
            write!(f, " {} ({})", if *left { "group_left" } else { "group_right" }, labels.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for MetricExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.rest.iter().try_for_each(|(binary, operand)| write!(f, " {binary} {operand}"))
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameter = |value: &Option<String>| value.as_ref().map(|value| format!("{value}, ")).unwrap_or_default();
        match self {
            Self::Number(number) => f.write_str(number),
            Self::Vector(number) => write!(f, "vector({number})"),
            Self::Group(inner) => write!(f, "({inner})"),
            Self::Range { function, parameter: given, over, grouping } => {
                write!(f, "{function}({}{over})", parameter(given))?;
                grouping.as_ref().map_or(Ok(()), |grouping| grouping.fmt(f))
            }
            Self::Aggregate { function, parameter: given, inner, grouping } => {
                f.write_str(function)?;
                if let Some(grouping) = grouping {
                    write!(f, "{grouping} ")?;
                }
                write!(f, "({}{inner})", parameter(given))
            }
            Self::LabelReplace { inner, texts } => {
                write!(f, "label_replace({inner}")?;
                texts.iter().try_for_each(|text| write!(f, ", {}", quoted(text)))?;
                f.write_str(")")
            }
        }
    }
}

//! What a raw PromQL query asks for. Guards callers from sending what a backend would only refuse. Must not judge
//! whether the query may be asked; that is confinement.

use std::collections::BTreeSet;

use promql_parser::label::{METRIC_NAME, MatchOp};
use promql_parser::parser::value::ValueType;

use crate::QueryError;
use crate::parse::{Node, parse, visit};

/// The type of a query's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromqlType {
    /// One value per series and instant.
    InstantVector,
    /// Samples over a range per series; only for instant queries.
    RangeVector,
    /// One number without labels.
    Scalar,
    /// A text.
    String,
}

/// What a valid query asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromqlInfo {
    /// Names of the metrics selected by exact name, sorted.
    pub metrics: BTreeSet<String>,
    /// Selectors without an exact metric name; they may select any metric.
    pub unnamed_selectors: usize,
    /// All selectors.
    pub selectors: usize,
    /// Functions called, sorted; aggregations are not functions.
    pub functions: BTreeSet<String>,
    /// Type of the result.
    pub value_type: PromqlType,
}

/// Reads a raw query; the error says what is wrong and, where it is known, at which character.
pub fn promql_info(raw: &str) -> Result<PromqlInfo, QueryError> {
    let (expr, _) = parse(raw)?;
    let mut info = PromqlInfo {
        metrics: BTreeSet::new(),
        unnamed_selectors: 0,
        selectors: 0,
        functions: BTreeSet::new(),
        value_type: match expr.value_type() {
            ValueType::Vector => PromqlType::InstantVector,
            ValueType::Matrix => PromqlType::RangeVector,
            ValueType::Scalar => PromqlType::Scalar,
            ValueType::String => PromqlType::String,
        },
    };
    visit(&expr, &mut |node| match node {
        Node::Call(call) => {
            info.functions.insert(call.func.name.to_owned());
        }
        Node::Selector(selector) => {
            info.selectors += 1;
            let exact = || selector.matchers.matchers.iter().find(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal);
            match selector.name.clone().or_else(|| exact().map(|m| m.value.clone())) {
                Some(name) => {
                    info.metrics.insert(name);
                }
                None => info.unnamed_selectors += 1,
            }
        }
        Node::Aggregate(_) | Node::Binary(_) => {}
    });
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_query_says_what_it_asks_for() {
        let info = promql_info(
            r#"histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m]))) / on () group_left {__name__="y"} + {"z.z", a=~"b"} + {a="b"}"#,
        )
        .unwrap();
        assert_eq!(info.metrics.into_iter().collect::<Vec<_>>(), ["x_bucket", "y", "z.z"]);
        assert_eq!((info.selectors, info.unnamed_selectors, info.value_type), (4, 1, PromqlType::InstantVector));
        assert_eq!(info.functions.into_iter().collect::<Vec<_>>(), ["histogram_quantile", "rate"]);
        assert_eq!(promql_info("x[5m]").unwrap().value_type, PromqlType::RangeVector);
        assert_eq!(promql_info("1 + time()").unwrap().value_type, PromqlType::Scalar);
    }

    #[test]
    fn errors_say_where_and_what() {
        for (raw, at, words) in [
            ("sum(rate(x[5m]) by", 4, "never closed"),
            ("rate(x)", 1, "rate(metric[5m])"),
            ("abs(x[5m])", 1, "instant selector"),
            ("nope(x)", 1, "unknown function"),
            ("x y", 3, "found 'y'"),
            ("x +", 4, "ends where an expression"),
            ("sum by (a) x", 12, "to aggregate"),
            ("x{a=b}", 5, "a value in quotes"),
            ("x{a}", 4, "=, !=, =~ or !~"),
            ("x{a=\"1\" b=\"2\"}", 9, "',' or '}'"),
            ("x[5m", 2, "never closed"),
            ("x[foo]", 3, "a duration such as 5m"),
            ("x = 5", 3, "comparison"),
            ("x offset foo", 10, "duration"),
            ("(x, y)", 3, "an operator"),
            ("sum()", 1, "no arguments"),
            ("é", 1, "in quotes"),
        ] {
            let error = promql_info(raw).unwrap_err();
            let QueryError::Syntax { position, message, .. } = &error else { panic!("{raw}: {error:?}") };
            assert!(message.contains(words), "{raw}: {error}");
            assert!(position.is_none_or(|p| p == at), "{raw}: {error}");
            assert!(raw == "sum()" || position.is_some(), "{raw}: {error}");
        }
        assert!(promql_info(r#"{a=~".*"}"#).unwrap_err().to_string().contains("non-empty matcher"));
    }
}

//! What the arguments of a call may be. Some become the size of something before a row is read, some are texts in a language
//! of their own that is compiled anew for every row, and some are put into a text over and over: those are written out in the
//! statement, so that they can be judged, and have a limit.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, WindowFunctionDefinition};

/// How many rows `lag`, `lead` and `nth_value` may look away, and how many parts `ntile` may make.
const MOST_SHIFT: u64 = 10_000;
/// Bytes of a text that is put in place of another one, or between the parts of a list.
pub(super) const MOST_REPLACEMENT: usize = 64;

/// What is wrong with an expression's arguments, if anything.
pub(super) fn wrong(expression: &Expr) -> Option<String> {
    match expression {
        Expr::ScalarFunction(call) => scalar(call.name(), &call.args),
        Expr::AggregateFunction(call) => aggregate(call.func.name(), call.params.args.len()),
        Expr::WindowFunction(window) => match &window.fun {
            WindowFunctionDefinition::WindowUDF(function) => shift(function.name(), &window.params.args),
            WindowFunctionDefinition::AggregateUDF(function) => aggregate(function.name(), window.params.args.len()),
        },
        Expr::BinaryExpr(binary) if is_match(binary.op) => pattern("~", Some(&binary.right)),
        Expr::SimilarTo(like) => pattern("SIMILAR TO", Some(&like.pattern)),
        Expr::Cast(cast) => kind(cast.field.data_type()),
        Expr::TryCast(cast) => kind(cast.field.data_type()),
        Expr::GroupingSet(_) => Some(SETS.to_owned()),
        _ => None,
    }
}

/// Why a statement may group by one set only.
pub(super) const SETS: &str = "CUBE, ROLLUP and GROUPING SETS are not allowed; GROUP BY one set of columns, or put several such \
                               queries together by UNION ALL";

/// A text that is written out in the statement.
pub(super) fn text(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

fn is_match(operator: Operator) -> bool {
    matches!(operator, Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch)
}

fn scalar(name: &str, arguments: &[Expr]) -> Option<String> {
    match name {
        "regexp_like" | "regexp_match" | "regexp_count" | "regexp_instr" => pattern(name, arguments.get(1)),
        "regexp_replace" => pattern(name, arguments.get(1)).or_else(|| short(name, "replacement", arguments.get(2))),
        "replace" => short(name, "replacement", arguments.get(2)),
        "array_to_string" => {
            short(name, "separator", arguments.get(1)).or_else(|| short(name, "text for what is null", arguments.get(2)))
        }
        "to_char" => short(name, "format", arguments.get(1)),
        _ => None,
    }
}

/// A regular expression is compiled once, not for every row.
fn pattern(name: &str, argument: Option<&Expr>) -> Option<String> {
    let argument = argument?;
    if text(argument).is_some() {
        return None;
    }
    Some(format!("the pattern of {name} must be written out as a text, such as 'time(out)?', and not computed"))
}

fn short(name: &str, what: &str, argument: Option<&Expr>) -> Option<String> {
    let argument = argument?;
    if text(argument).is_some_and(|text| text.len() <= MOST_REPLACEMENT) {
        return None;
    }
    Some(format!(
        "the {what} of {name} must be written out as a text of at most {MOST_REPLACEMENT} bytes, such as 'x', and not computed"
    ))
}

/// How many centroids an approximation keeps would be memory for all of them at once.
fn aggregate(name: &str, arguments: usize) -> Option<String> {
    let (most, example) = match name {
        "approx_percentile_cont" => (2, "approx_percentile_cont(Duration, 0.95)"),
        "approx_percentile_cont_with_weight" => (3, "approx_percentile_cont_with_weight(Duration, Count, 0.95)"),
        _ => return None,
    };
    (arguments > most).then(|| format!("the number of centroids of {name} cannot be chosen; write {example}"))
}

fn shift(name: &str, arguments: &[Expr]) -> Option<String> {
    let argument = match name {
        "lag" | "lead" | "nth_value" => arguments.get(1),
        "ntile" => arguments.first(),
        _ => None,
    };
    if number(argument?).is_some_and(|number| number <= MOST_SHIFT) {
        return None;
    }
    Some(format!("the number of {name} must be written out and be at most {MOST_SHIFT}, such as 1"))
}

fn number(expression: &Expr) -> Option<u64> {
    match expression {
        Expr::Negative(inner) => number(inner),
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => Some(number.unsigned_abs()),
        Expr::Literal(ScalarValue::UInt64(Some(number)), _) => Some(*number),
        _ => None,
    }
}

/// A list of a fixed length takes all of it, for every row.
fn kind(kind: &DataType) -> Option<String> {
    kind.to_string()
        .contains("Fixed")
        .then(|| "a type of a fixed length is not allowed; leave the number out, such as CAST(x AS INT[])".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{cast, col, lit};

    #[test]
    fn a_list_of_fixed_length_is_seen_wherever_it_is() {
        let field = |kind| std::sync::Arc::new(arrow::datatypes::Field::new("item", kind, true));
        let fixed = DataType::FixedSizeList(field(DataType::Int32), 2_000_000_000);
        for refused in [fixed.clone(), DataType::List(field(fixed)), DataType::FixedSizeBinary(9)] {
            assert!(wrong(&cast(col("a"), refused.clone())).is_some(), "{refused}");
        }
        assert_eq!(wrong(&cast(col("a"), DataType::List(field(DataType::Utf8)))), None);
    }

    #[test]
    fn only_numbers_that_are_written_out_and_small_are_numbers() {
        assert_eq!(shift("lag", &[col("a")]), None);
        assert_eq!(shift("lag", &[col("a"), lit(10_000_i64)]), None);
        assert_eq!(shift("lead", &[col("a"), Expr::Negative(Box::new(lit(3_i64)))]), None);
        assert!(shift("lead", &[col("a"), lit(10_001_i64)]).is_some_and(|said| said.contains("10000")));
        assert!(shift("ntile", &[lit(2_i64) + lit(2_i64)]).is_some());
        assert!(shift("nth_value", &[col("a"), col("b")]).is_some());
    }
}

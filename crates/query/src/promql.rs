//! PromQL from types: names, matchers, selectors, expressions. Guards the rule that a value can only ever be a value:
//! whatever text it holds, the rendered query has the structure its types say. Must not read raw queries.

use std::fmt;
use std::time::Duration;

use crate::QueryError;
use crate::error::shown;
use crate::text::{
    check_regex, duration, grouping_label, is_keyword, is_plain_metric, matcher_label, number, promql_string, push, regex_any_of,
};

/// Longest metric or label name, in bytes.
const MAX_NAME_BYTES: usize = 1024;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name: 1 to 1024 bytes of UTF-8 without control characters.
            pub fn new(name: impl Into<String>) -> Result<Self, QueryError> {
                let name = name.into();
                if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
                    let rule = "use 1 to 1024 bytes without control characters";
                    return Err(QueryError::Name { kind: $kind, shown: shown(&name), rule });
                }
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = QueryError;
            fn from_str(name: &str) -> Result<Self, QueryError> {
                Self::new(name)
            }
        }
    };
}

name_type!(
    /// A metric name; any UTF-8, as in Prometheus 3.
    MetricName, "metric name"
);
name_type!(
    /// A label name; any UTF-8, as in Prometheus 3.
    LabelName, "label name"
);

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOperator {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A condition on one label. A series without the label has the empty value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    label: LabelName,
    operator: MatchOperator,
    value: String,
}

impl Matcher {
    /// The label has exactly this value.
    pub fn equal(label: LabelName, value: impl Into<String>) -> Self {
        Self { label, operator: MatchOperator::Equal, value: value.into() }
    }

    /// The label has another value.
    pub fn not_equal(label: LabelName, value: impl Into<String>) -> Self {
        Self { label, operator: MatchOperator::NotEqual, value: value.into() }
    }

    /// The label has one of these values; none is an error.
    pub fn any_of<S: AsRef<str>>(label: LabelName, values: impl IntoIterator<Item = S>) -> Result<Self, QueryError> {
        let (single, value) = Self::alternatives(values)?;
        Ok(Self { label, operator: if single { MatchOperator::Equal } else { MatchOperator::Regex }, value })
    }

    /// The label has none of these values; an empty list is an error.
    pub fn none_of<S: AsRef<str>>(label: LabelName, values: impl IntoIterator<Item = S>) -> Result<Self, QueryError> {
        let (single, value) = Self::alternatives(values)?;
        Ok(Self { label, operator: if single { MatchOperator::NotEqual } else { MatchOperator::NotRegex }, value })
    }

    fn alternatives<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Result<(bool, String), QueryError> {
        let values: Vec<S> = values.into_iter().collect();
        match values.as_slice() {
            [] => Err(QueryError::NoValues),
            [only] => Ok((true, only.as_ref().to_owned())),
            several => Ok((false, regex_any_of(several))),
        }
    }

    /// The value matches a pattern in RE2 syntax, anchored at both ends. The pattern is checked.
    pub fn regex(label: LabelName, pattern: impl Into<String>) -> Result<Self, QueryError> {
        let value = pattern.into();
        check_regex(&value)?;
        Ok(Self { label, operator: MatchOperator::Regex, value })
    }

    /// The value does not match a pattern in RE2 syntax, anchored at both ends. The pattern is checked.
    pub fn not_regex(label: LabelName, pattern: impl Into<String>) -> Result<Self, QueryError> {
        let value = pattern.into();
        check_regex(&value)?;
        Ok(Self { label, operator: MatchOperator::NotRegex, value })
    }

    /// The label.
    pub fn label(&self) -> &LabelName {
        &self.label
    }

    /// How it compares.
    pub fn operator(&self) -> MatchOperator {
        self.operator
    }

    /// The value or pattern.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", matcher_label(self.label.as_str()), self.operator.as_str(), promql_string(&self.value))
    }
}

/// An instant selector: which series, optionally as they were some time ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    metric: Option<MetricName>,
    matchers: Vec<Matcher>,
    offset: Option<Duration>,
}

impl Selector {
    /// All series of one metric.
    pub fn metric(name: MetricName) -> Self {
        Self { metric: Some(name), matchers: Vec::new(), offset: None }
    }

    /// Series of any metric; needs a matcher that does not match the empty value to be valid PromQL.
    pub fn any() -> Self {
        Self { metric: None, matchers: Vec::new(), offset: None }
    }

    /// Series of any of these metrics; an empty list is an error.
    pub fn any_metric_of(names: &[MetricName]) -> Result<Self, QueryError> {
        if let [only] = names {
            return Ok(Self::metric(only.clone()));
        }
        let label = LabelName("__name__".to_owned());
        Ok(Self::any().matching(Matcher::any_of(label, names.iter().map(MetricName::as_str))?))
    }

    /// Adds a condition; all must hold.
    #[must_use]
    pub fn matching(mut self, matcher: Matcher) -> Self {
        self.matchers.push(matcher);
        self
    }

    /// Adds conditions, such as those of a [`crate::Confinement`]; all must hold.
    #[must_use]
    pub fn matching_all<'a>(mut self, matchers: impl IntoIterator<Item = &'a Matcher>) -> Self {
        self.matchers.extend(matchers.into_iter().cloned());
        self
    }

    /// The values of `by` ago. Rounded up to whole milliseconds; zero is no offset.
    #[must_use]
    pub fn offset(mut self, by: Duration) -> Self {
        self.offset = (!by.is_zero()).then_some(by);
        self
    }

    /// The samples of the last `length`, rounded up to whole milliseconds, at least one.
    #[must_use]
    pub fn range(self, length: Duration) -> Range {
        Range(RangeKind::Selector(self, at_least_a_millisecond(length)))
    }

    /// The conditions.
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    fn write(&self, out: &mut String, range: Option<Duration>) {
        let mut inside: Vec<String> = Vec::with_capacity(self.matchers.len() + 1);
        match self.metric.as_ref().map(MetricName::as_str) {
            Some(name) if !is_plain_metric(name) => inside.push(promql_string(name)),
            Some(name) if is_keyword(name) => inside.push(format!("__name__={}", promql_string(name))),
            Some(name) => out.push_str(name),
            None => {}
        }
        inside.extend(self.matchers.iter().map(ToString::to_string));
        if !inside.is_empty() || self.metric.is_none() {
            push(out, format_args!("{{{}}}", inside.join(",")));
        }
        if let Some(range) = range {
            push(out, format_args!("[{}]", duration(range)));
        }
        if let Some(offset) = self.offset {
            push(out, format_args!(" offset {}", duration(offset)));
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out, None);
        f.write_str(&out)
    }
}

fn at_least_a_millisecond(length: Duration) -> Duration {
    length.max(Duration::from_millis(1))
}

/// Samples over a range of time: the argument of `rate` and its relatives.
#[derive(Debug, Clone, PartialEq)]
pub struct Range(RangeKind);

#[derive(Debug, Clone, PartialEq)]
enum RangeKind {
    Selector(Selector, Duration),
    Subquery { inner: Box<Expr>, length: Duration, step: Option<Duration> },
}

/// Functions from a range to an instant vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are PromQL's own; see the Prometheus function reference")]
pub enum RangeFunction {
    Rate,
    Irate,
    Increase,
    Delta,
    Deriv,
    Changes,
    Resets,
    AvgOverTime,
    MinOverTime,
    MaxOverTime,
    SumOverTime,
    CountOverTime,
    LastOverTime,
    PresentOverTime,
    StddevOverTime,
}

impl RangeFunction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Irate => "irate",
            Self::Increase => "increase",
            Self::Delta => "delta",
            Self::Deriv => "deriv",
            Self::Changes => "changes",
            Self::Resets => "resets",
            Self::AvgOverTime => "avg_over_time",
            Self::MinOverTime => "min_over_time",
            Self::MaxOverTime => "max_over_time",
            Self::SumOverTime => "sum_over_time",
            Self::CountOverTime => "count_over_time",
            Self::LastOverTime => "last_over_time",
            Self::PresentOverTime => "present_over_time",
            Self::StddevOverTime => "stddev_over_time",
        }
    }
}

impl Range {
    /// Applies a function to the range.
    #[must_use]
    pub fn apply(self, function: RangeFunction) -> Expr {
        Expr::RangeCall { function: function.as_str(), parameter: None, range: Box::new(self) }
    }

    /// Per-second increase of a counter.
    #[must_use]
    pub fn rate(self) -> Expr {
        self.apply(RangeFunction::Rate)
    }

    /// Increase of a counter over the range.
    #[must_use]
    pub fn increase(self) -> Expr {
        self.apply(RangeFunction::Increase)
    }

    /// The φ-quantile of the samples of each series, 0 ≤ φ ≤ 1.
    pub fn quantile_over_time(self, quantile: f64) -> Result<Expr, QueryError> {
        let parameter = Some(check_quantile(quantile)?);
        Ok(Expr::RangeCall { function: "quantile_over_time", parameter, range: Box::new(self) })
    }

    fn write(&self, out: &mut String) {
        match &self.0 {
            RangeKind::Selector(selector, length) => selector.write(out, Some(*length)),
            RangeKind::Subquery { inner, length, step } => {
                push(out, format_args!("({inner})[{}:{}]", duration(*length), step.map(duration).unwrap_or_default()));
            }
        }
    }
}

fn check_quantile(quantile: f64) -> Result<f64, QueryError> {
    if (0.0..=1.0).contains(&quantile) {
        return Ok(quantile);
    }
    Err(QueryError::Number { what: "a quantile", rule: "between 0 and 1", given: quantile.to_string() })
}

/// Functions from an instant vector to an instant vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are PromQL's own; see the Prometheus function reference")]
pub enum VectorFunction {
    HistogramCount,
    HistogramSum,
    HistogramAvg,
    Abs,
    Absent,
    Ceil,
    Floor,
    Ln,
    Log2,
    Sqrt,
    Timestamp,
    Sort,
    SortDesc,
}

impl VectorFunction {
    fn as_str(self) -> &'static str {
        match self {
            Self::HistogramCount => "histogram_count",
            Self::HistogramSum => "histogram_sum",
            Self::HistogramAvg => "histogram_avg",
            Self::Abs => "abs",
            Self::Absent => "absent",
            Self::Ceil => "ceil",
            Self::Floor => "floor",
            Self::Ln => "ln",
            Self::Log2 => "log2",
            Self::Sqrt => "sqrt",
            Self::Timestamp => "timestamp",
            Self::Sort => "sort",
            Self::SortDesc => "sort_desc",
        }
    }
}

/// Ways to merge series.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names are PromQL's own; see the Prometheus operator reference")]
pub enum Aggregation {
    Sum,
    Avg,
    Max,
    Min,
    Count,
    Group,
    Stddev,
    /// The φ-quantile over series, 0 ≤ φ ≤ 1.
    Quantile(f64),
    /// The largest n series.
    Topk(u32),
    /// The smallest n series.
    Bottomk(u32),
}

/// Which labels an aggregation keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Grouping {
    /// One result for all series.
    #[default]
    All,
    /// One result per combination of these labels.
    By(Vec<LabelName>),
    /// One result per combination of all labels but these.
    Without(Vec<LabelName>),
}

/// Operators between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are PromQL's own; see the Prometheus operator reference")]
pub enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    And,
    Or,
    Unless,
}

impl BinaryOperator {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }
}

/// How the series of two vectors find each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum VectorMatching {
    /// Same labels on both sides.
    #[default]
    Default,
    /// Same values of these labels.
    On(Vec<LabelName>),
    /// Same values of all labels but these.
    Ignoring(Vec<LabelName>),
    /// Many on the left to one on the right, over `on`, taking the labels `include` from the right.
    OnGroupLeft {
        /// Labels that must agree.
        on: Vec<LabelName>,
        /// Labels copied from the right side.
        include: Vec<LabelName>,
    },
}

/// A PromQL expression: an instant vector or a number. [`fmt::Display`] renders it.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A number.
    Number(f64),
    /// An instant selector.
    Selector(Selector),
    /// A function over a range, made by [`Range`].
    #[doc(hidden)]
    RangeCall { function: &'static str, parameter: Option<f64>, range: Box<Range> },
    /// A function over an instant vector, made by the methods below.
    #[doc(hidden)]
    Call { function: &'static str, before: Vec<f64>, inner: Box<Expr>, after: Vec<String> },
    /// A merge of series, made by [`Expr::aggregate`].
    #[doc(hidden)]
    Aggregate { aggregation: Aggregation, grouping: Grouping, inner: Box<Expr> },
    /// Two expressions and an operator, made by [`Expr::binary`].
    #[doc(hidden)]
    Binary { operator: BinaryOperator, matching: VectorMatching, left: Box<Expr>, right: Box<Expr> },
}

impl From<Selector> for Expr {
    fn from(selector: Selector) -> Self {
        Self::Selector(selector)
    }
}

impl From<f64> for Expr {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl Expr {
    fn call(function: &'static str, before: Vec<f64>, inner: Self, after: Vec<String>) -> Self {
        Self::Call { function, before, inner: Box::new(inner), after }
    }

    /// Applies a function to each series.
    #[must_use]
    pub fn apply(self, function: VectorFunction) -> Self {
        Self::call(function.as_str(), Vec::new(), self, Vec::new())
    }

    /// The φ-quantile of histograms, 0 ≤ φ ≤ 1. For classic buckets keep `le` in the aggregation below; for native
    /// histograms no label is needed.
    pub fn histogram_quantile(self, quantile: f64) -> Result<Self, QueryError> {
        Ok(Self::call("histogram_quantile", vec![check_quantile(quantile)?], self, Vec::new()))
    }

    /// The share of a native histogram's observations between two values.
    #[must_use]
    pub fn histogram_fraction(self, lower: f64, upper: f64) -> Self {
        Self::call("histogram_fraction", vec![lower, upper], self, Vec::new())
    }

    /// Writes `replacement` (with `$1` for groups of `pattern`) into label `target` where label `source` matches.
    pub fn label_replace(
        self,
        target: &LabelName,
        replacement: impl Into<String>,
        source: &LabelName,
        pattern: impl Into<String>,
    ) -> Result<Self, QueryError> {
        let pattern = pattern.into();
        check_regex(&pattern)?;
        let after = vec![target.0.clone(), replacement.into(), source.0.clone(), pattern];
        Ok(Self::call("label_replace", Vec::new(), self, after))
    }

    /// Merges series. A quantile outside 0 to 1 and `topk(0)` are errors.
    pub fn aggregate(self, aggregation: Aggregation, grouping: Grouping) -> Result<Self, QueryError> {
        match aggregation {
            Aggregation::Quantile(quantile) => {
                check_quantile(quantile)?;
            }
            Aggregation::Topk(0) | Aggregation::Bottomk(0) => {
                return Err(QueryError::Number { what: "the number of series", rule: "at least 1", given: "0".into() });
            }
            _ => {}
        }
        Ok(Self::Aggregate { aggregation, grouping, inner: Box::new(self) })
    }

    /// The sum per combination of `labels`; over everything when there are none.
    #[must_use]
    pub fn sum_by(self, labels: &[LabelName]) -> Self {
        let grouping = if labels.is_empty() { Grouping::All } else { Grouping::By(labels.to_vec()) };
        Self::Aggregate { aggregation: Aggregation::Sum, grouping, inner: Box::new(self) }
    }

    /// Two expressions and an operator. Comparisons filter; they do not return 0 or 1.
    #[must_use]
    pub fn binary(self, operator: BinaryOperator, matching: VectorMatching, right: impl Into<Self>) -> Self {
        Self::Binary { operator, matching, left: Box::new(self), right: Box::new(right.into()) }
    }

    /// The share `self / denominator` where the denominator is above zero; series without traffic are absent, not NaN.
    #[must_use]
    pub fn ratio(self, denominator: Self) -> Self {
        self.binary(BinaryOperator::Divide, VectorMatching::Default, denominator.above(0.0))
    }

    /// Only the series above `threshold`.
    #[must_use]
    pub fn above(self, threshold: f64) -> Self {
        self.binary(BinaryOperator::Greater, VectorMatching::Default, threshold)
    }

    /// Each value times `factor`.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        self.binary(BinaryOperator::Multiply, VectorMatching::Default, factor)
    }

    /// Each series of `self`, and those of `other` whose labels `self` does not have.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.binary(BinaryOperator::Or, VectorMatching::Default, other)
    }

    /// The expression evaluated over the last `length`, every `step` (the server's default when `None`).
    #[must_use]
    pub fn over(self, length: Duration, step: Option<Duration>) -> Range {
        let length = at_least_a_millisecond(length);
        Range(RangeKind::Subquery { inner: Box::new(self), length, step: step.map(at_least_a_millisecond) })
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Number(value) => out.push_str(&number(*value)),
            Self::Selector(selector) => selector.write(out, None),
            Self::RangeCall { function, parameter, range } => {
                push(out, format_args!("{function}("));
                if let Some(parameter) = parameter {
                    push(out, format_args!("{}, ", number(*parameter)));
                }
                range.write(out);
                out.push(')');
            }
            Self::Call { function, before, inner, after } => {
                push(out, format_args!("{function}("));
                for value in before {
                    push(out, format_args!("{}, ", number(*value)));
                }
                inner.write(out);
                for text in after {
                    push(out, format_args!(", {}", promql_string(text)));
                }
                out.push(')');
            }
            Self::Aggregate { aggregation, grouping, inner } => write_aggregate(out, *aggregation, grouping, inner),
            Self::Binary { operator, matching, left, right } => {
                left.write_operand(out);
                push(out, format_args!(" {} ", operator.as_str()));
                write_matching(out, matching);
                right.write_operand(out);
            }
        }
    }

    fn write_operand(&self, out: &mut String) {
        let alone = match self {
            Self::Binary { .. } => false,
            Self::Number(value) => value.is_sign_positive() || value.is_nan(),
            _ => true,
        };
        if alone {
            self.write(out);
        } else {
            out.push('(');
            self.write(out);
            out.push(')');
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

fn label_list(labels: &[LabelName]) -> String {
    let names: Vec<String> = labels.iter().map(|label| grouping_label(label.as_str())).collect();
    names.join(", ")
}

fn write_aggregate(out: &mut String, aggregation: Aggregation, grouping: &Grouping, inner: &Expr) {
    let (name, parameter) = match aggregation {
        Aggregation::Sum => ("sum", None),
        Aggregation::Avg => ("avg", None),
        Aggregation::Max => ("max", None),
        Aggregation::Min => ("min", None),
        Aggregation::Count => ("count", None),
        Aggregation::Group => ("group", None),
        Aggregation::Stddev => ("stddev", None),
        Aggregation::Quantile(quantile) => ("quantile", Some(number(quantile))),
        Aggregation::Topk(count) => ("topk", Some(count.to_string())),
        Aggregation::Bottomk(count) => ("bottomk", Some(count.to_string())),
    };
    out.push_str(name);
    match grouping {
        Grouping::All => {}
        Grouping::By(labels) => push(out, format_args!(" by ({}) ", label_list(labels))),
        Grouping::Without(labels) => push(out, format_args!(" without ({}) ", label_list(labels))),
    }
    out.push('(');
    if let Some(parameter) = parameter {
        push(out, format_args!("{parameter}, "));
    }
    inner.write(out);
    out.push(')');
}

fn write_matching(out: &mut String, matching: &VectorMatching) {
    match matching {
        VectorMatching::Default => {}
        VectorMatching::On(labels) => push(out, format_args!("on ({}) ", label_list(labels))),
        VectorMatching::Ignoring(labels) => push(out, format_args!("ignoring ({}) ", label_list(labels))),
        VectorMatching::OnGroupLeft { on, include } => {
            push(out, format_args!("on ({}) group_left ({}) ", label_list(on), label_list(include)));
        }
    }
}

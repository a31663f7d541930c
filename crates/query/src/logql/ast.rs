//! The parts of a LogQL query. Guards that a query is written the way it was read: sequences of operators stay sequences,
//! so that their precedence is the reader's and never guessed here.

use crate::promql::MatchOperator;

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Query {
    /// Lines of logs.
    Logs(LogQuery),
    /// Numbers.
    Metric(MetricExpr),
    /// Several numbers of the same lines, read once.
    Variants { wanted: Vec<MetricExpr>, of: LogRange },
}

/// `name op "value"`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matcher {
    pub(crate) name: String,
    pub(crate) operator: MatchOperator,
    pub(crate) value: String,
}

/// Streams and what is done with their lines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogQuery {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) stages: Vec<Stage>,
}

/// A comparison of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineOperator {
    Contains,
    Lacks,
    Matches,
    MatchesNot,
    Pattern,
    PatternNot,
}

impl LineOperator {
    pub(crate) const ALL: [Self; 6] =
        [Self::Contains, Self::Lacks, Self::Matches, Self::MatchesNot, Self::Pattern, Self::PatternNot];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::Lacks => "!=",
            Self::Matches => "|~",
            Self::MatchesNot => "!~",
            Self::Pattern => "|>",
            Self::PatternNot => "!>",
        }
    }
}

/// What a line is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LineValue {
    Text(String),
    Ip(String),
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    Line {
        operator: LineOperator,
        any_of: Vec<LineValue>,
    },
    /// `json`, `xml`: all fields, or some under other names.
    Fields {
        parser: &'static str,
        flags: Vec<&'static str>,
        wanted: Vec<(String, Option<String>)>,
    },
    /// `regexp`, `pattern`: with an expression.
    Expression {
        parser: &'static str,
        expression: String,
    },
    /// `unpack`, `decolorize`.
    Bare(&'static str),
    Labels(LabelFilter),
    LineFormat(String),
    LabelFormat(Vec<(String, FormatValue)>),
    /// `drop`, `keep`.
    Choose {
        keep: bool,
        labels: Vec<ChosenLabel>,
    },
}

/// The right side of `label_format`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FormatValue {
    Label(String),
    Template(String),
}

/// A label of `drop` or `keep`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ChosenLabel {
    Named(String),
    Matching(Matcher),
}

/// How two conditions on labels are joined, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joint {
    And,
    Or,
    Comma,
    /// Nothing between them, which means `and`.
    Adjacent,
}

/// Conditions on labels, in the order they were written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LabelFilter {
    pub(crate) first: Box<LabelTerm>,
    pub(crate) rest: Vec<(Joint, LabelTerm)>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LabelTerm {
    Matcher(Matcher),
    Ip {
        name: String,
        equal: bool,
        value: String,
    },
    /// The value as written, with its sign: a number, a duration or a size.
    Compare {
        name: String,
        operator: &'static str,
        value: String,
    },
    Group(LabelFilter),
}

/// `unwrap`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unwrap {
    pub(crate) label: String,
    pub(crate) conversion: Option<&'static str>,
    /// Conditions behind it.
    pub(crate) filters: Vec<LabelFilter>,
}

/// Lines over a range of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogRange {
    pub(crate) logs: LogQuery,
    pub(crate) unwrap: Option<Unwrap>,
    /// As written, above zero.
    pub(crate) range: String,
    /// As written, with its sign.
    pub(crate) offset: Option<String>,
}

/// `by (…)` or `without (…)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grouping {
    pub(crate) without: bool,
    pub(crate) labels: Vec<String>,
}

/// Numbers joined by operators, in the order they were written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MetricExpr {
    pub(crate) first: Box<Operand>,
    pub(crate) rest: Vec<(Binary, Operand)>,
}

/// An operator and what it says about matching.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Binary {
    pub(crate) operator: &'static str,
    pub(crate) returns_bool: bool,
    /// Whether `on` (or else `ignoring`), and the labels.
    pub(crate) matching: Option<(bool, Vec<String>)>,
    /// Whether `group_left` (or else `group_right`), and the labels.
    pub(crate) group: Option<(bool, Vec<String>)>,
}

/// One number or vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// With its sign.
    Number(String),
    Vector(String),
    Group(MetricExpr),
    Range {
        function: &'static str,
        parameter: Option<String>,
        over: LogRange,
        grouping: Option<Grouping>,
    },
    Aggregate {
        function: &'static str,
        parameter: Option<String>,
        inner: MetricExpr,
        grouping: Option<Grouping>,
    },
    LabelReplace {
        inner: MetricExpr,
        texts: [String; 4],
    },
}

impl MetricExpr {
    /// A single operand.
    pub(crate) fn of(operand: Operand) -> Self {
        Self { first: Box::new(operand), rest: Vec::new() }
    }

    fn each(&self, see: &mut impl FnMut(&LogQuery, Option<&LogRange>)) {
        self.first.each(see);
        self.rest.iter().for_each(|(_, operand)| operand.each(see));
    }

    fn change(&mut self, change: &impl Fn(&mut LogQuery)) {
        self.first.change(change);
        self.rest.iter_mut().for_each(|(_, operand)| operand.change(change));
    }
}

impl Operand {
    fn each(&self, see: &mut impl FnMut(&LogQuery, Option<&LogRange>)) {
        match self {
            Self::Number(_) | Self::Vector(_) => {}
            Self::Group(inner) | Self::Aggregate { inner, .. } | Self::LabelReplace { inner, .. } => inner.each(see),
            Self::Range { over, .. } => see(&over.logs, Some(over)),
        }
    }

    fn change(&mut self, change: &impl Fn(&mut LogQuery)) {
        match self {
            Self::Number(_) | Self::Vector(_) => {}
            Self::Group(inner) | Self::Aggregate { inner, .. } | Self::LabelReplace { inner, .. } => inner.change(change),
            Self::Range { over, .. } => change(&mut over.logs),
        }
    }
}

impl Query {
    /// Visits everything that reads streams, with the range it reads. Depth is bounded by the reader.
    pub(crate) fn each(&self, see: &mut impl FnMut(&LogQuery, Option<&LogRange>)) {
        match self {
            Self::Logs(logs) => see(logs, None),
            Self::Metric(metric) => metric.each(see),
            Self::Variants { wanted, of } => {
                for metric in wanted {
                    metric.each(see);
                }
                see(&of.logs, Some(of));
            }
        }
    }

    /// Changes everything that reads streams.
    pub(crate) fn change(&mut self, change: &impl Fn(&mut LogQuery)) {
        match self {
            Self::Logs(logs) => change(logs),
            Self::Metric(metric) => metric.change(change),
            Self::Variants { wanted, of } => {
                for metric in wanted {
                    metric.change(change);
                }
                change(&mut of.logs);
            }
        }
    }
}

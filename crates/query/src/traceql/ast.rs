//! The parts of a TraceQL query. Guards that a query is written the way it was read: sequences of operators stay sequences,
//! so that their precedence is the reader's and never guessed here.

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) pipeline: Pipeline,
    pub(crate) metrics: Option<Metrics>,
    /// `topk`, `bottomk`, with their number.
    pub(crate) ranked: Option<(&'static str, String)>,
    /// `with (…)`.
    pub(crate) hints: Vec<(&'static str, String)>,
}

/// Stages with `|` between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    pub(crate) stages: Vec<Stage>,
}

/// Operands and operators in the order they were written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub(crate) first: Operand,
    pub(crate) rest: Vec<(&'static str, Operand)>,
}

/// What stands between the operators of a stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// `{ … }`; `None` selects every span.
    Filter(Option<FieldExpr>),
    /// Parentheses.
    Group(Pipeline),
    /// `count()`, `avg(…)` and the like.
    Aggregate {
        function: &'static str,
        of: Option<FieldExpr>,
    },
    /// A number or duration with its sign.
    Number(String),
    By(FieldExpr),
    Coalesce,
    Select(Vec<Field>),
}

/// Terms and operators about one span, in the order they were written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FieldExpr {
    pub(crate) first: Box<Term>,
    pub(crate) rest: Vec<(&'static str, Term)>,
}

/// A value with `-` and `!` in front.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    pub(crate) signs: Vec<&'static str>,
    pub(crate) value: Value,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    /// A number or duration without a sign.
    Number(String),
    /// `true`, `error`, `server`, `nil` and the like.
    Word(&'static str),
    Field(Field),
    Group(FieldExpr),
}

/// What is known of a span.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    /// `duration`, `span:name` and the like.
    Intrinsic(&'static str),
    /// The scope as written (`.`, `span.`, `resource.`) and the name.
    Attribute { scope: &'static str, name: String },
}

/// Numbers over time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Metrics {
    Over { function: &'static str, of: Option<Field>, quantiles: Vec<String>, by: Vec<Field> },
    Compare { selected: Option<FieldExpr>, numbers: Vec<String> },
}

impl FieldExpr {
    /// Whether every field in it is accepted. Depth is bounded by the reader.
    pub(crate) fn all_fields(&self, accept: &mut impl FnMut(&Field) -> bool) -> bool {
        std::iter::once(&*self.first).chain(self.rest.iter().map(|(_, term)| term)).all(|term| match &term.value {
            Value::Field(field) => accept(field),
            Value::Group(inner) => inner.all_fields(accept),
            Value::Text(_) | Value::Number(_) | Value::Word(_) => true,
        })
    }
}

impl Stage {
    /// A single operand.
    pub(crate) fn of(operand: Operand) -> Self {
        Self { first: operand, rest: Vec::new() }
    }

    pub(crate) fn operands(&self) -> impl Iterator<Item = &Operand> {
        std::iter::once(&self.first).chain(self.rest.iter().map(|(_, operand)| operand))
    }

    pub(crate) fn operands_mut(&mut self) -> impl Iterator<Item = &mut Operand> {
        std::iter::once(&mut self.first).chain(self.rest.iter_mut().map(|(_, operand)| operand))
    }
}

impl Operand {
    /// Whether it finds spans by itself: a filter, or parentheses around more than numbers of the spans already found.
    pub(crate) fn is_source(&self) -> bool {
        match self {
            Self::Filter(_) => true,
            Self::Group(pipeline) => !pipeline.is_bare_scalar(),
            _ => false,
        }
    }
}

impl Pipeline {
    /// Parentheses around nothing but a computation: `(count() + 1)`.
    pub(crate) fn is_bare_scalar(&self) -> bool {
        let computes = |operand: &Operand| match operand {
            Operand::Aggregate { .. } | Operand::Number(_) => true,
            Operand::Group(inner) => inner.is_bare_scalar(),
            _ => false,
        };
        match self.stages.as_slice() {
            [only] => {
                only.operands().all(computes) && only.rest.iter().all(|(operator, _)| super::parse::is_arithmetic(operator))
            }
            _ => false,
        }
    }
}

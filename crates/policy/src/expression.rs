//! Reading and rewriting the conditions of rules: which arguments they ask for, what they become for one tool, and what
//! remains of them when the arguments are not known yet.
//!
//! An argument that a call leaves out asks for everything, so a comparison with it is never to the caller's advantage:
//! a `permit` does not apply, a `forbid` does. Whoever wants it otherwise writes `context.arguments has …`; then the rule
//! means what it says. Must not know names of tools, only shapes.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, NonEmpty, PatternElem, SmolStr, UnaryOp, Var};

use crate::arguments::ToolShape;

/// What a condition asks the context for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Arguments compared.
    pub(crate) arguments: BTreeSet<String>,
    /// Arguments asked for by `has`.
    pub(crate) guarded: BTreeSet<String>,
    /// Other attributes of the context.
    pub(crate) context: BTreeSet<String>,
    /// The context or its arguments as a whole, which cannot be checked.
    pub(crate) whole: bool,
    /// The resource itself or its name.
    pub(crate) identity: bool,
}

/// Attributes of the context that depend on the arguments.
const FROM_ARGUMENTS: [&str; 2] = ["look_back_seconds", "sources"];
/// Attributes of the context that depend on the clock.
const FROM_CLOCK: [&str; 3] = ["now", "hour", "weekday"];

impl Uses {
    pub(crate) fn of_clauses(clauses: &[Clause]) -> Self {
        let mut uses = Self::default();
        for clause in clauses {
            let (Clause::When(expression) | Clause::Unless(expression)) = clause;
            uses.add(expression);
        }
        uses
    }

    pub(crate) fn of(expression: &Expr) -> Self {
        let mut uses = Self::default();
        uses.add(expression);
        uses
    }

    pub(crate) fn any_context(&self) -> bool {
        self.whole || self.needs_arguments() || !self.context.is_empty()
    }

    /// Whether the value depends on the arguments of the call.
    pub(crate) fn needs_arguments(&self) -> bool {
        !self.arguments.is_empty() || !self.guarded.is_empty() || FROM_ARGUMENTS.iter().any(|a| self.context.contains(*a))
    }

    /// Whether the value depends on the time of the call.
    pub(crate) fn needs_clock(&self) -> bool {
        FROM_CLOCK.iter().any(|a| self.context.contains(*a))
    }

    fn add(&mut self, expression: &Expr) {
        if let Expr::HasAttr { expr, attrs } = expression
            && let Some(base) = path(expr)
            && base.first().is_some_and(|root| root == "context")
        {
            let full: Vec<String> = base.into_iter().chain(attrs.iter().map(ToString::to_string)).collect();
            match full.get(1).map(String::as_str) {
                Some("arguments") => self.guarded.extend(full.get(2).cloned()),
                Some(name) => drop(self.context.insert(name.to_owned())),
                None => self.whole = true,
            }
            return;
        }
        if let Some(full) = path(expression) {
            match (full.first().map(String::as_str), full.get(1).map(String::as_str), full.get(2)) {
                (Some("context"), Some("arguments"), Some(name)) => drop(self.arguments.insert(name.clone())),
                (Some("context"), Some("arguments") | None, _) => self.whole = true,
                (Some("context"), Some(name), _) => drop(self.context.insert(name.to_owned())),
                (Some("resource"), None | Some("name"), _) => self.identity = true,
                _ => {}
            }
            return;
        }
        for child in children(expression) {
            self.add(child);
        }
    }
}

/// The path of an attribute access that begins at a variable: `["context", "arguments", "service"]`.
pub(crate) fn path(expression: &Expr) -> Option<Vec<String>> {
    match expression {
        Expr::Var(variable) => Some(vec![
            match variable {
                Var::Principal => "principal",
                Var::Action => "action",
                Var::Resource => "resource",
                Var::Context => "context",
            }
            .to_owned(),
        ]),
        Expr::GetAttr { expr, attr } => {
            let mut full = path(expr)?;
            full.push(attr.to_string());
            Some(full)
        }
        _ => None,
    }
}

/// The path as it is written.
pub(crate) fn dotted(expression: &Expr) -> Option<String> {
    path(expression).map(|p| p.join("."))
}

/// The direct parts of an expression.
pub(crate) fn children(expression: &Expr) -> Vec<&Arc<Expr>> {
    match expression {
        Expr::UnaryOp { expr, .. } | Expr::GetAttr { expr, .. } | Expr::HasAttr { expr, .. } | Expr::Like { expr, .. } => {
            vec![expr]
        }
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Is { expr, in_expr, .. } => std::iter::once(expr).chain(in_expr).collect(),
        Expr::IfThenElse { cond, then_expr, else_expr } => vec![cond, then_expr, else_expr],
        Expr::Set(items) => items.iter().collect(),
        Expr::Record(fields) => fields.values().collect(),
        // Literals, variables, and forms this build of Cedar does not parse.
        _ => Vec::new(),
    }
}

/// What a condition is rewritten for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Deciding a call with its arguments.
    Call,
    /// Deciding whether any arguments could be allowed.
    Listing,
    /// Deciding whether any member of a family of resources could be allowed.
    Family,
}

/// Rewrites the conditions of one rule for one target.
pub(crate) struct Rewriter<'a> {
    /// The tool; `None` for resources and prompts, which have no arguments.
    pub(crate) shape: Option<&'a ToolShape>,
    /// Arguments the rule itself asks for by `has`.
    pub(crate) guarded: &'a BTreeSet<String>,
    /// Whether the rule takes something away: a `forbid`, or a rule that only limits.
    pub(crate) tightens: bool,
    /// Why.
    pub(crate) purpose: Purpose,
}

impl Rewriter<'_> {
    pub(crate) fn clauses(&self, clauses: &[Clause]) -> Vec<Clause> {
        let rewrite = |clause: &Clause| match clause {
            Clause::When(expression) => Clause::When(self.rewrite(expression, true)),
            Clause::Unless(expression) => Clause::Unless(self.rewrite(expression, false)),
        };
        clauses.iter().map(rewrite).collect()
    }

    /// `positive` says whether the rule applies when the expression is true, or when it is false.
    fn rewrite(&self, expression: &Arc<Expr>, positive: bool) -> Arc<Expr> {
        match expression.as_ref() {
            Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
                binary(*op, self.rewrite(left, positive), self.rewrite(right, positive))
            }
            Expr::UnaryOp { op: UnaryOp::Not, expr } => not(self.rewrite(expr, !positive)),
            _ => self.atom(expression, positive),
        }
    }

    fn atom(&self, expression: &Arc<Expr>, positive: bool) -> Arc<Expr> {
        let uses = Uses::of(expression);
        if self.asks_for_what_is_not_there(&uses) {
            return literal(false);
        }
        let unknown = match self.purpose {
            Purpose::Call => false,
            Purpose::Listing => uses.needs_arguments(),
            Purpose::Family => uses.identity,
        };
        if unknown {
            // To the advantage of being shown: a grant applies, a refusal does not.
            return literal(positive != self.tightens);
        }
        let optional: Vec<&String> =
            uses.arguments.iter().filter(|a| self.is_optional(a) && !self.guarded.contains(*a)).collect();
        let Some(guard) = optional.into_iter().map(|name| has_argument(name)).reduce(|a, b| binary(BinaryOp::And, a, b)) else {
            return expression.clone();
        };
        // Applying without the argument means `true` in a positive place and `false` in a negative one.
        Arc::new(Expr::IfThenElse { cond: guard, then_expr: expression.clone(), else_expr: literal(self.tightens == positive) })
    }

    fn asks_for_what_is_not_there(&self, uses: &Uses) -> bool {
        let missing_argument = |name: &String| self.shape.is_none_or(|s| !s.arguments.contains_key(name));
        uses.arguments.iter().chain(&uses.guarded).any(missing_argument)
            || (uses.context.contains("look_back_seconds") && !self.shape.is_some_and(|s| s.looks_back))
            || (uses.context.contains("sources") && !self.shape.is_some_and(|s| s.asks_sources))
    }

    fn is_optional(&self, name: &str) -> bool {
        self.shape.and_then(|s| s.arguments.get(name)).is_some_and(|a| !a.always)
    }
}

pub(crate) fn literal(value: bool) -> Arc<Expr> {
    Arc::new(Expr::Literal(Literal::Bool(value)))
}

fn not(expression: Arc<Expr>) -> Arc<Expr> {
    Arc::new(Expr::UnaryOp { op: UnaryOp::Not, expr: expression })
}

fn binary(op: BinaryOp, left: Arc<Expr>, right: Arc<Expr>) -> Arc<Expr> {
    Arc::new(Expr::BinaryOp { op, left, right })
}

fn has_argument(name: &str) -> Arc<Expr> {
    let context = Arc::new(Expr::Var(Var::Context));
    let arguments = Arc::new(Expr::GetAttr { expr: context, attr: SmolStr::from("arguments") });
    Arc::new(Expr::HasAttr { expr: arguments, attrs: NonEmpty::new(SmolStr::from(name)) })
}

/// How two values relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Relation {
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterEqual,
            Self::LessEqual => Self::Greater,
            Self::Greater => Self::LessEqual,
            Self::GreaterEqual => Self::Less,
        }
    }

    fn swapped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            same => same,
        }
    }

    fn of(op: BinaryOp) -> Option<Self> {
        Some(match op {
            BinaryOp::Eq => Self::Equal,
            BinaryOp::NotEq => Self::NotEqual,
            BinaryOp::Less => Self::Less,
            BinaryOp::LessEq => Self::LessEqual,
            BinaryOp::Greater => Self::Greater,
            BinaryOp::GreaterEq => Self::GreaterEqual,
            _ => return None,
        })
    }
}

/// A test of one attribute against values written in the rule.
#[derive(Debug, Clone)]
pub(crate) enum Test<'a> {
    /// `path <relation> literal`
    Compared(String, Relation, &'a Literal),
    /// `[literals].contains(path)`
    OneOf(String, Vec<&'a Literal>),
    /// `path.contains(literal)`, `path.containsAny([..])`, `path.containsAll([..])`
    Holds(String, Vec<&'a Literal>),
    /// `path like pattern`
    Like(String, &'a [PatternElem]),
}

/// The test an expression is, when it is one.
pub(crate) fn test(expression: &Expr) -> Option<Test<'_>> {
    match expression {
        Expr::BinaryOp { op, left, right } => {
            if let Some(relation) = Relation::of(*op) {
                return match (dotted(left), as_literal(right), dotted(right), as_literal(left)) {
                    (Some(path), Some(value), ..) => Some(Test::Compared(path, relation, value)),
                    (.., Some(path), Some(value)) => Some(Test::Compared(path, relation.swapped(), value)),
                    _ => None,
                };
            }
            match op {
                BinaryOp::Contains => match (left.as_ref(), dotted(left), dotted(right), as_literal(right)) {
                    (Expr::Set(items), _, Some(path), _) => Some(Test::OneOf(path, all_literals(items)?)),
                    (_, Some(path), _, Some(value)) => Some(Test::Holds(path, vec![value])),
                    _ => None,
                },
                BinaryOp::ContainsAll | BinaryOp::ContainsAny => match (dotted(left), right.as_ref()) {
                    (Some(path), Expr::Set(items)) => Some(Test::Holds(path, all_literals(items)?)),
                    _ => None,
                },
                _ => None,
            }
        }
        Expr::Like { expr, pattern } => Some(Test::Like(dotted(expr)?, pattern)),
        _ => None,
    }
}

fn as_literal(expression: &Expr) -> Option<&Literal> {
    match expression {
        Expr::Literal(value) => Some(value),
        _ => None,
    }
}

fn all_literals(items: &[Arc<Expr>]) -> Option<Vec<&Literal>> {
    items.iter().map(|item| as_literal(item)).collect()
}

/// The pattern with `*` for its wildcards.
pub(crate) fn pattern_matches(pattern: &[PatternElem], text: &str) -> bool {
    fn fits(pattern: &[PatternElem], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((PatternElem::Wildcard, rest)) => (0..=text.len()).any(|skip| fits(rest, &text[skip..])),
            Some((PatternElem::Char(c), rest)) => text.split_first().is_some_and(|(t, tail)| t == c && fits(rest, tail)),
        }
    }
    let text: Vec<char> = text.chars().collect();
    fits(pattern, &text)
}

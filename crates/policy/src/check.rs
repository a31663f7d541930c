//! Mistakes in conditions that the type checker does not see: words outside an argument's list, numbers outside its
//! bounds, names of things that do not exist, and conditions that contradict themselves.
//!
//! Judges conditions only; whom and what a rule is about is checked where rules are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::pst::{BinaryOp, Clause, EntityOrSlot, EntityUID, Expr, Literal, PrincipalConstraint, UnaryOp, Var};

use crate::arguments::{ArgumentKind, ToolShape};
use crate::expression::{Relation, Test, children, pattern_matches, test};
use crate::facts::{Known, Value};
use crate::rule::Rule;
use crate::vocabulary::{Vocabulary, did_you_mean};

/// Names of the days, as `context.weekday` gives them.
pub(crate) const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// How a principal can have proven itself, as `principal.kind` gives it.
pub(crate) const CREDENTIALS: [&str; 6] = ["local", "api-key", "password", "token", "certificate", "anonymous"];
const RISKS: [&str; 3] = ["read", "write", "destructive"];

/// What is known about one target of a rule.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) vocabulary: &'a Vocabulary,
    /// The tool, when the target is one.
    pub(crate) shape: Option<&'a ToolShape>,
}

impl Ground<'_> {
    /// The only values the attribute at `path` can have, where that is known.
    fn words(&self, path: &str) -> Option<BTreeSet<&str>> {
        match path {
            "context.weekday" => Some(WEEKDAYS.into()),
            "principal.kind" => Some(CREDENTIALS.into()),
            "resource.risk" => Some(RISKS.into()),
            "resource.category" if !self.vocabulary.specs.is_empty() => {
                Some(self.vocabulary.categories().into_iter().chain([""]).collect())
            }
            "resource.name" if self.shape.is_some() && self.vocabulary.expected.is_empty() => Some(self.vocabulary.all_tools()),
            "context.sources" => all_of(self.vocabulary.sources.as_ref()),
            _ => {
                let name = path.strip_prefix("context.arguments.")?;
                let of_tool = self.shape?.arguments.get(name)?.words.as_ref();
                match (of_tool, name) {
                    (Some(words), _) => Some(words.iter().map(String::as_str).collect()),
                    (None, "source" | "sources") => all_of(self.vocabulary.sources.as_ref()),
                    (None, "service" | "services") => all_of(self.vocabulary.services.as_ref()),
                    _ => None,
                }
            }
        }
    }

    /// The bounds of the number at `path`.
    fn bounds(&self, path: &str) -> (i64, i64) {
        match path {
            "context.hour" => (0, 23),
            "context.look_back_seconds" => (0, i64::MAX),
            _ => {
                let argument = path.strip_prefix("context.arguments.").and_then(|n| self.shape?.arguments.get(n));
                let argument = argument.filter(|a| a.kind == ArgumentKind::Integer);
                (argument.and_then(|a| a.minimum).unwrap_or(i64::MIN), argument.and_then(|a| a.maximum).unwrap_or(i64::MAX))
            }
        }
    }
}

fn all_of(names: Option<&BTreeSet<String>>) -> Option<BTreeSet<&str>> {
    names.map(|n| n.iter().map(String::as_str).collect())
}

/// Words of a rule that name something the attribute can never be: attribute and word, with what to say about it.
pub(crate) fn foreign_words(clauses: &[Clause], ground: Ground<'_>) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for clause in clauses {
        let (Clause::When(expression) | Clause::Unless(expression)) = clause;
        walk(expression, &mut |e| note_foreign(e, ground, &mut found));
    }
    found
}

fn walk(expression: &Arc<Expr>, seen: &mut impl FnMut(&Expr)) {
    seen(expression);
    for child in children(expression) {
        walk(child, seen);
    }
}

fn note_foreign(expression: &Expr, ground: Ground<'_>, found: &mut BTreeMap<(String, String), String>) {
    let Some(test) = test(expression) else { return };
    let (path, values) = match &test {
        Test::Compared(path, _, value) => (path, vec![*value]),
        Test::OneOf(path, values) | Test::Holds(path, values) => (path, values.clone()),
        Test::Like(path, pattern) => {
            if let Some(words) = ground.words(path)
                && !words.iter().any(|w| pattern_matches(pattern, w))
            {
                found.insert((path.clone(), "like".into()), format!("{path} is never like that: {}", one_of(&words)));
            }
            return;
        }
    };
    let Some(words) = ground.words(path) else { return };
    for value in values {
        if let Literal::String(word) = value
            && !words.contains(word.as_str())
        {
            let suggestion = did_you_mean(word, words.iter().copied());
            found
                .insert((path.clone(), word.to_string()), format!("{path} is never \"{word}\"{suggestion} ({})", one_of(&words)));
        }
    }
}

fn one_of(words: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = words.iter().copied().filter(|w| !w.is_empty()).take(SHOWN).collect();
    let more = if words.len() > SHOWN { format!(" and {} more", words.len() - SHOWN) } else { String::new() };
    format!("it is one of {}{more}", shown.join(", "))
}

/// What is left for one attribute after all conditions.
struct Left {
    words: Option<BTreeSet<String>>,
    excluded: BTreeSet<String>,
    low: i128,
    high: i128,
    flags: BTreeSet<bool>,
}

/// Why the conditions can never all hold, when simple reasoning about single attributes shows it.
pub(crate) fn contradiction(rule: &Rule, ground: Ground<'_>) -> Option<String> {
    let parts = parts(rule.template.clauses());
    let mut left: BTreeMap<String, Left> = BTreeMap::new();
    let mut whose = String::new();
    for uid in named_principals(rule, &parts) {
        let Some(kinds) = proven_by(uid, ground.vocabulary) else { continue };
        let state = entry(&mut left, "principal.kind", ground);
        state.keep(kinds.iter().map(|kind| (*kind).to_owned()).collect());
        whose = format!("{whose}; whoever {uid} is has the kind {}", kinds.join(" or "));
        if let Some(reason) = state.impossible() {
            return Some(format!("principal.kind {reason}{whose}"));
        }
    }
    for &(expression, positive) in &parts {
        let (path, relation, values) = match test(expression) {
            Some(Test::Compared(path, relation, value)) => (path, relation, vec![value]),
            Some(Test::OneOf(path, values)) => (path, Relation::Equal, values),
            _ => match (crate::expression::dotted(expression), positive) {
                // A flag on its own.
                (Some(path), _) => {
                    narrow_flag(entry(&mut left, &path, ground), positive);
                    if left[&path].flags.is_empty() {
                        return Some(format!("{path} would have to be true and false"));
                    }
                    continue;
                }
                _ => continue,
            },
        };
        let relation = if positive { relation } else { relation.negated() };
        let state = entry(&mut left, &path, ground);
        state.narrow(relation, &values);
        if let Some(reason) = state.impossible() {
            let whose = if path == "principal.kind" { whose.as_str() } else { "" };
            return Some(format!("{path} {reason}{whose}"));
        }
    }
    // A number that can be one only decides the other conditions that ask for it.
    let pinned = left.iter().filter(|(_, state)| state.low == state.high);
    let known =
        Known(pinned.filter_map(|(path, state)| Some((path.clone(), Value::Number(state.low.try_into().ok()?)))).collect());
    let (expression, positive) = parts.iter().find(|(expression, positive)| known.certain(expression) == Some(!positive))?;
    Some(format!("'{expression}' is {} wherever the other conditions hold", !positive))
}

/// What must hold for a rule to match, in parts; each with whether it must be true or false.
pub(crate) fn parts(clauses: &[Clause]) -> Vec<(&Expr, bool)> {
    let mut parts = Vec::new();
    for clause in clauses {
        match clause {
            Clause::When(expression) => conjuncts(expression, true, &mut parts),
            Clause::Unless(expression) => conjuncts(expression, false, &mut parts),
        }
    }
    parts
}

/// Principals and roles that everybody a rule speaks of is, or is in.
fn named_principals<'a>(rule: &'a Rule, parts: &[(&'a Expr, bool)]) -> Vec<&'a EntityUID> {
    let scope = match &rule.template.principal {
        PrincipalConstraint::Eq(EntityOrSlot::Entity(uid))
        | PrincipalConstraint::In(EntityOrSlot::Entity(uid))
        | PrincipalConstraint::IsIn(_, EntityOrSlot::Entity(uid)) => Some(uid),
        _ => None,
    };
    let asked = parts.iter().filter_map(|&(expression, positive)| match expression {
        Expr::BinaryOp { op: BinaryOp::Eq | BinaryOp::In, left, right } if positive => match (left.as_ref(), right.as_ref()) {
            (Expr::Var(Var::Principal), Expr::Literal(Literal::EntityUID(uid))) => Some(uid),
            _ => None,
        },
        _ => None,
    });
    scope.into_iter().chain(asked).collect()
}

/// How somebody has proven itself, where its id or its role tells.
fn proven_by(uid: &EntityUID, vocabulary: &Vocabulary) -> Option<&'static [&'static str]> {
    let id = uid.eid.as_str();
    match uid.ty.0.id.as_str() {
        // No credential can be given this role, unless the operator made one of the name.
        "Role" if id == "anonymous" && !vocabulary.roles.contains(id) => Some(&["anonymous", "local"]),
        "Principal" if id == "anonymous" => Some(&["anonymous"]),
        "Principal" => match id.split_once(':')?.0 {
            "key" => Some(&["api-key"]),
            "user" => Some(&["password"]),
            "cert" => Some(&["certificate"]),
            "token" => Some(&["token"]),
            "local" => Some(&["local"]),
            _ => None,
        },
        _ => None,
    }
}

fn narrow_flag(state: &mut Left, value: bool) {
    state.flags.retain(|f| *f == value);
}

fn entry<'m>(left: &'m mut BTreeMap<String, Left>, path: &str, ground: Ground<'_>) -> &'m mut Left {
    left.entry(path.to_owned()).or_insert_with(|| {
        let (low, high) = ground.bounds(path);
        Left {
            words: ground.words(path).map(|w| w.into_iter().map(str::to_owned).collect()),
            excluded: BTreeSet::new(),
            low: low.into(),
            high: high.into(),
            flags: [true, false].into(),
        }
    })
}

impl Left {
    fn narrow(&mut self, relation: Relation, values: &[&Literal]) {
        let word = |value: &&Literal| match value {
            Literal::String(word) => Some(word.to_string()),
            Literal::EntityUID(uid) => Some(uid.to_string()),
            _ => None,
        };
        let words: Vec<String> = values.iter().filter_map(word).collect();
        if words.len() == values.len() && !values.is_empty() {
            match relation {
                Relation::Equal => self.keep(words.into_iter().collect()),
                Relation::NotEqual => self.excluded.extend(words),
                _ => {}
            }
            return;
        }
        match (values, relation) {
            ([Literal::Long(n)], relation) => self.bound(relation, i128::from(*n)),
            ([Literal::Bool(b)], Relation::Equal) => self.flags.retain(|f| f == b),
            ([Literal::Bool(b)], Relation::NotEqual) => self.flags.retain(|f| f != b),
            _ => {}
        }
    }

    /// Leaves these words of those it can be.
    fn keep(&mut self, words: BTreeSet<String>) {
        let kept = self.words.take().map(|left| left.intersection(&words).cloned().collect());
        self.words = Some(kept.unwrap_or(words));
    }

    fn bound(&mut self, relation: Relation, n: i128) {
        match relation {
            Relation::Equal => {
                self.low = self.low.max(n);
                self.high = self.high.min(n);
            }
            Relation::NotEqual => {}
            Relation::Less => self.high = self.high.min(n - 1),
            Relation::LessEqual => self.high = self.high.min(n),
            Relation::Greater => self.low = self.low.max(n + 1),
            Relation::GreaterEqual => self.low = self.low.max(n),
        }
    }

    fn impossible(&self) -> Option<String> {
        if self.words.as_ref().is_some_and(|w| w.iter().all(|w| self.excluded.contains(w))) {
            return Some("would have to be two different things, or none of those it can be".into());
        }
        if self.low > self.high {
            return Some(format!("would have to be at least {} and at most {}", self.low, self.high));
        }
        self.flags.is_empty().then(|| "would have to be true and false".into())
    }
}

/// Splits a condition into parts that must all hold; each with whether it must be true or false.
fn conjuncts<'a>(expression: &'a Arc<Expr>, positive: bool, parts: &mut Vec<(&'a Expr, bool)>) {
    match (expression.as_ref(), positive) {
        (Expr::BinaryOp { op: BinaryOp::And, left, right }, true) | (Expr::BinaryOp { op: BinaryOp::Or, left, right }, false) => {
            conjuncts(left, positive, parts);
            conjuncts(right, positive, parts);
        }
        (Expr::UnaryOp { op: UnaryOp::Not, expr }, _) => conjuncts(expr, !positive, parts),
        (other, _) => parts.push((other, positive)),
    }
}

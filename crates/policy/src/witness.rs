//! Arguments worth trying: for one tool, a set of calls such that if any call at all could be allowed, one of these is. With
//! it a listing shows exactly what can be called, also when several rules about arguments exclude each other.
//!
//! Only where conditions are of forms that can be exhausted (comparisons with written values, membership, presence); for
//! anything else there is no such set, and the listing stays on the safe side of showing. Must not decide anything.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, UnaryOp};
use serde_json::{Map, Value, json};

use crate::arguments::{ArgumentKind, ArgumentShape, COMPARE, ToolShape};
use crate::expression::{Test, Uses, path, test};

/// Most calls that are tried for one tool and principal; beyond it there is no set.
const MOST: usize = 256;
/// Most words of a list whose every combination is tried.
const MOST_MEMBERS: usize = 3;
/// Longest window a call can ask for, in seconds: 400 days.
const LONGEST_WINDOW: i64 = 400 * 86_400;

/// What conditions compare an argument with.
#[derive(Default)]
struct Compared {
    words: BTreeSet<String>,
    numbers: BTreeSet<i64>,
}

/// The calls to try, or nothing when they cannot be exhausted.
pub(crate) fn trials(clauses: &[Clause], shape: &ToolShape, sources: &BTreeSet<String>) -> Option<Vec<Map<String, Value>>> {
    let mut asked = BTreeMap::new();
    for clause in clauses {
        let (Clause::When(expression) | Clause::Unless(expression)) = clause;
        gather(expression, &mut asked)?;
    }
    let of_time = ["window", "start", "end", "around", COMPARE].iter().any(|name| asked.contains_key(*name));
    let look_back = asked.remove("\0look_back");
    if of_time && look_back.is_some() {
        // The same arguments, asked for in two ways that depend on each other.
        return None;
    }
    if let (Some(compared), true) = (asked.remove("\0sources"), shape.asks_sources) {
        // A list of sources can be chosen in too many ways.
        shape.arguments.get("source").filter(|a| a.kind == ArgumentKind::Text)?;
        asked.entry("source".to_owned()).or_default().words.extend(compared.words);
    }
    let mut all = vec![Map::new()];
    // Where there is no window, every call looks back as far as any other.
    if let Some(compared) = look_back.filter(|_| shape.takes_time) {
        let name = if shape.arguments.contains_key("window") { "window" } else { "start" };
        let around = compared.numbers.iter().flat_map(|n| [n.saturating_sub(1), *n, n.saturating_add(1)]);
        let lengths: BTreeSet<i64> = around.filter(|n| *n >= 1).collect();
        if lengths.last().is_some_and(|n| *n > LONGEST_WINDOW) {
            // Only a start long ago reaches that far, and there is no end of those.
            return None;
        }
        let write = |n: i64| Some(json!(if name == "window" { format!("{n}s") } else { format!("now-{n}s") }));
        let values: Vec<Option<Value>> = lengths.into_iter().map(write).chain([None]).collect();
        all = multiplied(&all, name, &values)?;
        if let Some(compare) = shape.arguments.get(COMPARE).filter(|a| a.kind == ArgumentKind::Text) {
            // What a comparison adds to the look-back, a longer window adds as well: without one every bound is met.
            compare.words.as_ref().filter(|words| words.contains("none"))?;
            all = multiplied(&all, COMPARE, &[Some(json!("none"))])?;
        }
    }
    for (name, compared) in &asked {
        let argument = shape.arguments.get(name);
        let Some(argument) = argument else { continue };
        let values = if matches!(name.as_str(), "source") && shape.asks_sources {
            let other = sources.iter().find(|s| !compared.words.contains(*s));
            compared.words.iter().chain(other).map(|w| Some(json!(w))).chain([None]).collect()
        } else {
            values(argument, compared)?
        };
        all = multiplied(&all, name, &values)?;
    }
    Some(all)
}

/// Notes every argument a condition asks for; nothing when one is asked for in a way that cannot be exhausted.
fn gather(expression: &Expr, asked: &mut BTreeMap<String, Compared>) -> Option<()> {
    match expression {
        Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, left, right } => {
            gather(left, asked)?;
            return gather(right, asked);
        }
        Expr::UnaryOp { op: UnaryOp::Not, expr } => return gather(expr, asked),
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            gather(cond, asked)?;
            gather(then_expr, asked)?;
            return gather(else_expr, asked);
        }
        _ => {}
    }
    let uses = Uses::of(expression);
    if !uses.needs_arguments() {
        return Some(());
    }
    let (full, values) = match test(expression) {
        Some(Test::Compared(full, _, value)) => (full, vec![value]),
        Some(Test::OneOf(full, values) | Test::Holds(full, values)) => (full, values),
        Some(Test::Like(..)) => return None,
        None => match (expression, path(expression)) {
            // A flag on its own.
            (_, Some(full)) => (full.join("."), Vec::new()),
            (Expr::HasAttr { .. }, _) => {
                for name in uses.guarded {
                    asked.entry(name).or_default();
                }
                return Some(());
            }
            _ => return None,
        },
    };
    let name = match full.as_str() {
        "context.look_back_seconds" => "\0look_back",
        "context.sources" => "\0sources",
        _ => full.strip_prefix("context.arguments.")?,
    };
    let compared = asked.entry(name.to_owned()).or_default();
    for value in values {
        match value {
            Literal::String(word) => drop(compared.words.insert(word.to_string())),
            Literal::Long(number) => drop(compared.numbers.insert(*number)),
            Literal::Bool(_) => {}
            _ => return None,
        }
    }
    Some(())
}

/// One value for each way the argument can be told apart; `None` stands for leaving it out.
fn values(argument: &ArgumentShape, compared: &Compared) -> Option<Vec<Option<Value>>> {
    let mut values: Vec<Option<Value>> = match argument.kind {
        ArgumentKind::Flag => vec![Some(json!(true)), Some(json!(false))],
        ArgumentKind::Text => {
            // Longer than all that are written, so it is none of them.
            let other = "x".repeat(compared.words.iter().map(String::len).max().unwrap_or(0) + 1);
            let open = || compared.words.iter().chain([&other]).cloned().collect();
            let words: Vec<String> = argument.words.as_ref().map_or_else(open, |words| words.iter().cloned().collect());
            words.into_iter().map(|w| Some(json!(w))).collect()
        }
        ArgumentKind::Integer => {
            let (low, high) = (argument.minimum.unwrap_or(i64::MIN), argument.maximum.unwrap_or(i64::MAX));
            let around = compared.numbers.iter().flat_map(|n| [n.saturating_sub(1), *n, n.saturating_add(1)]);
            let within: BTreeSet<i64> = around.map(|n| n.clamp(low, high)).chain([0i64.clamp(low, high)]).collect();
            within.into_iter().map(|n| Some(json!(n))).collect()
        }
        ArgumentKind::Texts if compared.words.len() <= MOST_MEMBERS => {
            let words: Vec<&String> = compared.words.iter().collect();
            let chosen = |mask: usize| words.iter().enumerate().filter(move |(bit, _)| mask & (1 << bit) != 0).map(|(_, w)| *w);
            (0..1usize << words.len()).map(|mask| Some(json!(chosen(mask).collect::<Vec<_>>()))).collect()
        }
        ArgumentKind::Opaque => vec![Some(json!({}))],
        ArgumentKind::Texts | ArgumentKind::Integers => return None,
    };
    if !argument.always || argument.default.is_some() {
        values.push(None);
    }
    Some(values)
}

fn multiplied(all: &[Map<String, Value>], name: &str, values: &[Option<Value>]) -> Option<Vec<Map<String, Value>>> {
    if all.len().checked_mul(values.len())? > MOST {
        return None;
    }
    let with = |base: &Map<String, Value>, value: &Option<Value>| {
        let mut one = base.clone();
        if let Some(value) = value {
            one.insert(name.to_owned(), value.clone());
        }
        one
    };
    Some(all.iter().flat_map(|base| values.iter().map(|value| with(base, value)).collect::<Vec<_>>()).collect())
}

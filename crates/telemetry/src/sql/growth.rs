//! How large the expressions of a plan become when the optimizer puts what a column stands for in the column's place.
//! Fifteen queries that each double a column of the one before are a short text, and 32,768 copies of an expression; and
//! each of them adds to how deep the last one is. So a plan is weighed, by counting alone, before it is optimized.
//!
//! In the same way calls that make text or lists longer multiply: seven `replace` around each other, each of one letter by
//! ten, make ten million times as much. How long a value can become is reckoned along the plan, with a column of a table as
//! the measure.

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, DataFusionError};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use super::calls::{self, MOST_REPLACEMENT};
use crate::error::{Result, StoreError};

/// Parts of all expressions of one step together, with columns written out.
const MOST_PARTS: u64 = 20_000;
/// How deep one of them may be.
const MOST_LEVELS: u64 = 400;
/// How long the value of a table's column is taken to be, whatever it holds.
const COLUMN_BYTES: u64 = 64;
/// How many times as long as one column a value may become that is made of columns.
const MOST_TIMES: u64 = MOST_REPLACEMENT as u64 + 1;
/// A number in a list, with room for what else is in its row.
const NUMBER_BYTES: u64 = 16;
/// How much one letter of a format for times may become.
const FORMAT_TIMES: u64 = 18;

/// What an expression is when its columns are written out.
#[derive(Debug, Clone, Copy)]
struct Weight {
    parts: u64,
    levels: u64,
    /// How long its value can be, reckoned from columns of [`COLUMN_BYTES`].
    bytes: u64,
}

impl Weight {
    const ONE: Self = Self { parts: 1, levels: 1, bytes: COLUMN_BYTES };

    fn most(self, other: Self) -> Self {
        Self { parts: self.parts.max(other.parts), levels: self.levels.max(other.levels), bytes: self.bytes.max(other.bytes) }
    }
}

/// What is too much about a plan.
#[derive(Debug, Clone, Copy)]
enum TooMuch {
    /// Its expressions are too large or too deep.
    Parts,
    /// A value it computes can become too long.
    Bytes,
}

/// The input of a step, and what each of its columns stands for.
struct Input<'a> {
    schema: &'a DFSchemaRef,
    weights: Vec<Weight>,
}

/// Refuses a plan whose expressions would be too large or too deep, or would make too much of a value.
pub(super) fn plan(plan: &LogicalPlan) -> Result<()> {
    let mut wrong = None;
    let walked = weigh(plan, &mut wrong).and_then(|_| {
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Subquery(inner) = node {
                weigh(&inner.subquery, &mut wrong)?;
            }
            Ok(if wrong.is_none() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })
    });
    if let Err(error) = walked {
        return Err(StoreError::Invalid(format!("the statement cannot be checked: {error}")));
    }
    match wrong {
        None => Ok(()),
        Some(TooMuch::Parts) => Err(StoreError::Invalid(format!(
            "written out, the expressions of the statement have more than {MOST_PARTS} parts or {MOST_LEVELS} levels; build less \
             on computed columns of other queries, and name each of them fewer times"
        ))),
        Some(TooMuch::Bytes) => Err(StoreError::Invalid(format!(
            "the statement can make values more than {MOST_TIMES} times as long as a column; put fewer replace, regexp_replace, \
             concat, || and lists into each other, also over several queries, and use shorter replacements"
        ))),
    }
}

/// What the columns of a step stand for, in order. `wrong` is set when a step is too much; then the rest is not weighed.
fn weigh(plan: &LogicalPlan, wrong: &mut Option<TooMuch>) -> Result<Vec<Weight>, DataFusionError> {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        let weights = weigh(input, wrong)?;
        inputs.push(Input { schema: input.schema(), weights });
    }
    if wrong.is_some() {
        return Ok(Vec::new());
    }
    let mut own = Vec::new();
    plan.apply_expressions(|expression| {
        own.push(weight_of(expression, &inputs, wrong)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    let parts = own.iter().fold(0_u64, |sum, weight| sum.saturating_add(weight.parts));
    if parts > MOST_PARTS || own.iter().any(|weight| weight.levels > MOST_LEVELS) {
        *wrong = Some(TooMuch::Parts);
    }
    Ok(columns(plan, &inputs, own))
}

/// The weights of a step's columns: its expressions where it makes its columns, those of its inputs where it hands them on, and
/// otherwise the most of all of these.
fn columns(plan: &LogicalPlan, inputs: &[Input<'_>], own: Vec<Weight>) -> Vec<Weight> {
    let width = plan.schema().fields().len();
    match (plan, inputs) {
        (LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_), _) if own.len() == width => own,
        (LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_), [only]) => {
            only.weights.clone()
        }
        (LogicalPlan::Join(_), [left, right]) if left.weights.len() + right.weights.len() == width => {
            [left.weights.as_slice(), right.weights.as_slice()].concat()
        }
        _ => {
            let all = inputs.iter().flat_map(|input| &input.weights).chain(&own);
            let most = all.fold(Weight::ONE, |most, weight| most.most(*weight));
            vec![most; width]
        }
    }
}

fn weight_of(expression: &Expr, inputs: &[Input<'_>], wrong: &mut Option<TooMuch>) -> Result<Weight, DataFusionError> {
    match expression {
        Expr::Column(column) => {
            let stands_for =
                |input: &Input<'_>| input.schema.maybe_index_of_column(column).and_then(|at| input.weights.get(at).copied());
            return Ok(inputs.iter().find_map(stands_for).unwrap_or(Weight::ONE));
        }
        // What it stands for is not known here, so nothing can be made of it.
        Expr::OuterReferenceColumn(..) => return Ok(Weight { bytes: MOST_TIMES * COLUMN_BYTES, ..Weight::ONE }),
        Expr::ScalarSubquery(inner) => {
            let columns = weigh(&inner.subquery, wrong)?;
            let bytes = columns.iter().map(|weight| weight.bytes).max().unwrap_or(COLUMN_BYTES);
            return Ok(Weight { bytes, ..Weight::ONE });
        }
        _ => {}
    }
    let mut weight = Weight { parts: 1, levels: 0, bytes: 0 };
    let mut inside = Vec::new();
    expression.apply_children(|child| {
        let inner = weight_of(child, inputs, wrong)?;
        weight.parts = weight.parts.saturating_add(inner.parts);
        weight.levels = weight.levels.max(inner.levels);
        inside.push(inner.bytes);
        Ok(TreeNodeRecursion::Continue)
    })?;
    weight.levels += 1;
    weight.bytes = match grown(expression, &inside) {
        Some(bytes) => {
            if bytes > MOST_TIMES * COLUMN_BYTES {
                wrong.get_or_insert(TooMuch::Bytes);
            }
            bytes
        }
        None => match expression {
            Expr::Literal(..) => calls::text(expression).map_or(NUMBER_BYTES, |text| text.len() as u64),
            _ => inside.into_iter().max().unwrap_or(COLUMN_BYTES),
        },
    };
    Ok(weight)
}

/// How long the value of an expression can be that makes more than it is given; `inside` is how long its arguments are.
fn grown(expression: &Expr, inside: &[u64]) -> Option<u64> {
    match expression {
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => Some(sum(inside)),
        Expr::ScalarFunction(call) => grown_by(call, inside),
        _ => None,
    }
}

fn grown_by(call: &ScalarFunction, inside: &[u64]) -> Option<u64> {
    let first = inside.first().copied().unwrap_or_default();
    // A replacement may stand between any two letters; one that is no text of the statement was refused before.
    let times = |at: usize| call.args.get(at).and_then(calls::text).map_or(MOST_TIMES, |text| text.len() as u64 + 1);
    match call.name() {
        "replace" | "regexp_replace" => Some(first.saturating_mul(times(2))),
        "array_to_string" => {
            let null = if call.args.len() > 2 { times(2) } else { 1 };
            Some(first.saturating_mul(times(1).max(null)))
        }
        "to_char" => Some(inside.get(1).copied().unwrap_or_default().saturating_mul(FORMAT_TIMES)),
        "concat_ws" => Some(sum(inside).saturating_add(first.saturating_mul(inside.len() as u64))),
        "concat" | "array_concat" | "array_append" | "array_prepend" | "make_array" | "struct" | "named_struct" => {
            Some(sum(inside))
        }
        _ => None,
    }
}

fn sum(of: &[u64]) -> u64 {
    of.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

//! Counts what the engine does not. It keeps the whole input of some windows without taking it from the statement's memory,
//! compares every row with every other in joins without equal columns, and may make rows for hours without a pause.
//! Steps of our own in the plan take that memory, bound those pairs, and end every step at the deadline.

use std::collections::HashSet;
use std::fmt::Formatter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::{Array as _, ArrayData};
use arrow::buffer::NullBuffer;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt as _;

use crate::error::StoreError;

/// Pairs of rows a join without equal columns may compare; it does so without a pause.
const MOST_PAIRS: u64 = 25_000_000;

/// The plan with our own steps in it.
pub(super) fn counted(plan: Arc<dyn ExecutionPlan>, deadline: Instant) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    plan.transform_up(|node| {
        let name = node.name();
        let input = if name == WindowAggExec::static_name() {
            over_inputs(node, |_| Rule::Memory)?
        } else if name == NestedLoopJoinExec::static_name() || name == CrossJoinExec::static_name() {
            let pairs = Arc::new(Pairs::default());
            over_inputs(node, |right| Rule::Pairs { pairs: Arc::clone(&pairs), right })?
        } else {
            node
        };
        let held: Arc<dyn ExecutionPlan> = Arc::new(Held { input, rule: Rule::Until(deadline) });
        Ok(Transformed::yes(held))
    })
    .data()
}

/// The step with a rule over each of its inputs; the rule is told whether it is that of the right one.
fn over_inputs(node: Arc<dyn ExecutionPlan>, rule: impl Fn(bool) -> Rule) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let over = |(at, input): (usize, &Arc<dyn ExecutionPlan>)| -> Arc<dyn ExecutionPlan> {
        Arc::new(Held { input: Arc::clone(input), rule: rule(at > 0) })
    };
    let inputs: Vec<Arc<dyn ExecutionPlan>> = node.children().into_iter().enumerate().map(over).collect();
    // A step of ours has the properties of what is below it.
    node.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

/// What is counted.
#[derive(Debug, Clone)]
enum Rule {
    /// The bytes that pass are taken from the statement's memory until the input ends.
    Memory,
    /// The rows of both inputs of a join, multiplied, have a limit.
    Pairs {
        /// The rows so far.
        pairs: Arc<Pairs>,
        /// Whether this is the right input.
        right: bool,
    },
    /// Nothing passes after this moment.
    Until(Instant),
}

/// Rows of the two inputs of a join.
#[derive(Debug, Default)]
struct Pairs {
    left: AtomicU64,
    right: AtomicU64,
}

impl Pairs {
    fn add(&self, rows: u64, right: bool) -> Result<(), StoreError> {
        let side = if right { &self.right } else { &self.left };
        side.fetch_add(rows, Ordering::Relaxed);
        let pairs = self.left.load(Ordering::Relaxed).saturating_mul(self.right.load(Ordering::Relaxed));
        if pairs > MOST_PAIRS {
            return Err(StoreError::Invalid(format!(
                "a join without equal columns compares more than {MOST_PAIRS} pairs of rows; join by equal columns, such as ON \
                 a.TraceId = b.TraceId, or filter both sides first"
            )));
        }
        Ok(())
    }
}

/// Passes rows on as long as its rule allows.
#[derive(Debug)]
struct Held {
    input: Arc<dyn ExecutionPlan>,
    rule: Rule,
}

impl DisplayAs for Held {
    fn fmt_as(&self, _form: DisplayFormatType, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held")
    }
}

impl ExecutionPlan for Held {
    fn name(&self) -> &'static str {
        "Held"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input, rule: self.rule.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream, DataFusionError> {
        let schema = self.input.schema();
        let mut watch = Watch {
            rule: self.rule.clone(),
            memory: MemoryConsumer::new("window").register(context.memory_pool()),
            seen: HashSet::new(),
        };
        let pass = move |batch: Result<RecordBatch, DataFusionError>| -> Result<RecordBatch, DataFusionError> {
            let batch = batch?;
            watch.see(&batch)?;
            Ok(batch)
        };
        let rows = self.input.execute(partition, context)?.map(pass);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// What one stream has counted.
struct Watch {
    rule: Rule,
    memory: MemoryReservation,
    seen: HashSet<usize>,
}

impl Watch {
    fn see(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        let ours = |error: StoreError| DataFusionError::External(Box::new(error));
        match &self.rule {
            Rule::Memory => {
                let bytes: usize = batch.columns().iter().map(|column| new_bytes(&column.to_data(), &mut self.seen)).sum();
                self.memory.try_grow(bytes)
            }
            Rule::Pairs { pairs, right } => pairs.add(batch.num_rows() as u64, *right).map_err(ours),
            Rule::Until(deadline) if Instant::now() >= *deadline => Err(ours(StoreError::Deadline)),
            Rule::Until(_) => Ok(()),
        }
    }
}

/// Bytes of the buffers that were not seen before: batches are often parts of one larger one and share its buffers.
fn new_bytes(data: &ArrayData, seen: &mut HashSet<usize>) -> usize {
    let mut bytes = 0;
    for buffer in data.buffers().iter().chain(data.nulls().map(NullBuffer::buffer)) {
        if seen.insert(buffer.data_ptr().as_ptr().addr()) {
            bytes += buffer.capacity();
        }
    }
    bytes + data.child_data().iter().map(|child| new_bytes(child, seen)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_bounded_and_one_row_goes_with_any_number() {
        let total = Pairs::default();
        assert!(total.add(1, false).is_ok() && total.add(MOST_PAIRS, true).is_ok());
        let squared = Pairs::default();
        assert!(squared.add(5_000, true).is_ok() && squared.add(5_000, false).is_ok());
        let refused = squared.add(1, false).unwrap_err().to_string();
        assert!(refused.contains("equal columns"), "{refused}");
    }
}

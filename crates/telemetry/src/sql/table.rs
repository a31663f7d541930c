//! A table as the SQL engine sees it. The scan itself applies the scope, so no statement can read around it; filters of
//! the statement are applied while reading, and what they say of time, service, metric and trace prunes the segments.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arrow::array::{AsArray, BooleanArray, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use portcullis_model::NameSet;
use tokio::sync::mpsc;

use super::desk::Desk;
use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::scan::{Cancel, CancelGuard, Filter, Stage};
use crate::schema::Table;
use crate::shown::show;
use crate::text::parse_hex;

/// Batches that wait for the engine.
const AHEAD: usize = 2;

/// One table under one scope, for one statement.
#[derive(Debug, Clone)]
pub(super) struct ConfinedTable {
    desk: Arc<Desk>,
    table: Table,
    confinement: Confinement,
    deadline: Instant,
}

impl ConfinedTable {
    pub(super) fn new(desk: Arc<Desk>, table: Table, confinement: Confinement, deadline: Instant) -> Self {
        Self { desk, table, confinement, deadline }
    }
}

#[async_trait]
impl TableProvider for ConfinedTable {
    fn schema(&self) -> SchemaRef {
        self.table.shown_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(filters
            .iter()
            .map(
                |f| {
                    if can_be_read_with(f) {
                        TableProviderFilterPushDown::Exact
                    } else {
                        TableProviderFilterPushDown::Unsupported
                    }
                },
            )
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let mut filter = Filter::window(i64::MIN, i64::MAX);
        for expression in filters {
            prune(self.table, expression, &mut filter);
            filter.stages.push(self.stage(state, expression)?);
        }
        // Last, so that nothing the statement says can widen it.
        self.confinement.confine(self.table, &mut filter);
        let all: Vec<usize> = (0..self.table.columns().len()).collect();
        let wanted = projection.cloned().unwrap_or(all);
        let mut columns = wanted.clone();
        columns.sort_unstable();
        columns.dedup();
        let schema: SchemaRef = Arc::new(self.table.shown_schema().project(&wanted)?);
        let order = wanted.iter().map(|w| columns.iter().position(|c| c == w).unwrap_or_default()).collect();
        let part = ScanPart { table: self.clone(), filter, columns, order, schema: Arc::clone(&schema), limit };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(part)], None, None, false, limit)?))
    }
}

impl ConfinedTable {
    /// A condition of the statement, evaluated by the engine on exactly the columns it needs.
    fn stage(&self, state: &dyn Session, expression: &Expr) -> Result<Stage, DataFusionError> {
        let schema = self.table.shown_schema();
        let mut columns: Vec<usize> = expression.column_refs().iter().filter_map(|c| schema.index_of(&c.name).ok()).collect();
        columns.sort_unstable();
        columns.dedup();
        if columns.is_empty() {
            columns.push(self.table.time_column());
        }
        let part = Arc::new(schema.project(&columns)?);
        let bare = unqualified(expression.clone())?;
        let physical = state.create_physical_expr(bare, &DFSchema::try_from(Schema::clone(&part))?)?;
        let (table, read, scrub) = (self.table, columns.clone(), self.confinement.scrub.clone());
        let test = move |rows: &RecordBatch| {
            let failed = |e: &dyn std::fmt::Display| ArrowError::ComputeError(e.to_string());
            let shown = show(table, &read, rows, scrub.as_ref()).map_err(|e| failed(&e))?;
            let result = physical.evaluate(&shown).and_then(|v| v.into_array(shown.num_rows())).map_err(|e| failed(&e))?;
            let mask: &BooleanArray =
                result.as_boolean_opt().ok_or_else(|| failed(&"a condition that is neither true nor false"))?;
            Ok(mask.clone())
        };
        Ok(Stage { columns, test: Arc::new(test) })
    }
}

/// The expression with columns named without their table, as the scan knows them.
fn unqualified(expression: Expr) -> Result<Expr, DataFusionError> {
    use datafusion::common::tree_node::{Transformed, TreeNode as _};
    expression
        .transform(|part| match part {
            Expr::Column(column) => Ok(Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(column.name)))),
            other => Ok(Transformed::no(other)),
        })
        .map(|t| t.data)
}

/// Whether a condition depends on nothing but the row.
fn can_be_read_with(expression: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode as _;
    let foreign = expression.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Volatile,
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_) => false,
            _ => true,
        })
    });
    matches!(foreign, Ok(false))
}

/// Narrows a filter by what a condition says of time, service, metric and trace id. The condition itself is still
/// evaluated; here only what certainly cannot fit is left out.
fn prune(table: Table, expression: &Expr, filter: &mut Filter) {
    match expression {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            prune(table, left, filter);
            prune(table, right, filter);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (column_name(left), column_name(right)) {
            (Some(name), _) => prune_comparison(table, name, *op, right, filter),
            (_, Some(name)) => {
                if let Some(op) = op.swap() {
                    prune_comparison(table, name, op, left, filter);
                }
            }
            _ => {}
        },
        Expr::Between(between) if !between.negated => {
            if let Some(name) = column_name(&between.expr) {
                prune_comparison(table, name, Operator::GtEq, &between.low, filter);
                prune_comparison(table, name, Operator::LtEq, &between.high, filter);
            }
        }
        Expr::InList(list) if !list.negated => {
            let values: Option<BTreeSet<String>> = list.list.iter().map(text_of).collect();
            if let (Some(name), Some(values)) = (column_name(&list.expr), values) {
                prune_names(table, name, values, filter);
            }
        }
        _ => {}
    }
}

fn column_name(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Column(column) => Some(&column.name),
        _ => None,
    }
}

fn text_of(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Literal(ScalarValue::Utf8(Some(t)) | ScalarValue::Utf8View(Some(t)) | ScalarValue::LargeUtf8(Some(t)), _) => {
            Some(t.clone())
        }
        _ => None,
    }
}

fn nanos_of(expression: &Expr) -> Option<i64> {
    match expression {
        Expr::Literal(ScalarValue::TimestampNanosecond(at, _), _) => *at,
        Expr::Literal(ScalarValue::TimestampMicrosecond(at, _), _) => at.map(|n| n.saturating_mul(1_000)),
        Expr::Literal(ScalarValue::TimestampMillisecond(at, _), _) => at.map(|n| n.saturating_mul(1_000_000)),
        Expr::Literal(ScalarValue::TimestampSecond(at, _), _) => at.map(|n| n.saturating_mul(1_000_000_000)),
        _ => None,
    }
}

fn prune_comparison(table: Table, name: &str, op: Operator, value: &Expr, filter: &mut Filter) {
    if name == table.columns()[table.time_column()].name {
        let Some(at) = nanos_of(value) else { return };
        match op {
            Operator::Gt | Operator::GtEq => filter.start = filter.start.max(at),
            Operator::Lt | Operator::LtEq => filter.end = filter.end.min(at.saturating_add(1)),
            Operator::Eq => {
                filter.start = filter.start.max(at);
                filter.end = filter.end.min(at.saturating_add(1));
            }
            _ => {}
        }
    } else if let (Operator::Eq, Some(text)) = (op, text_of(value)) {
        prune_names(table, name, BTreeSet::from([text]), filter);
    }
}

fn prune_names(table: Table, name: &str, values: BTreeSet<String>, filter: &mut Filter) {
    match name {
        "ServiceName" => filter.services = filter.services.intersect(&NameSet::Only(values)),
        "MetricName" if table.metric_column().is_some() => filter.metrics = filter.metrics.intersect(&NameSet::Only(values)),
        "TraceId" if table.trace_column().is_some() && filter.traces.is_none() => {
            // Upper-case or malformed ids match nothing as text; only exact ones can be looked up.
            let exact = |v: &String| parse_hex::<16>(v).filter(|_| !v.bytes().any(|b| b.is_ascii_uppercase()));
            if !values.contains("") {
                filter.traces = Some(values.iter().filter_map(exact).collect());
            }
        }
        _ => {}
    }
}

/// One scan of a plan.
#[derive(Clone)]
struct ScanPart {
    table: ConfinedTable,
    filter: Filter,
    /// Columns read, ascending.
    columns: Vec<usize>,
    /// Where each wanted column is among them.
    order: Vec<usize>,
    schema: SchemaRef,
    limit: Option<usize>,
}

impl std::fmt::Debug for ScanPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanPart")
            .field("table", &self.table.table.name())
            .field("services", &self.filter.services)
            .field("start", &self.filter.start)
            .field("end", &self.filter.end)
            .field("conditions", &self.filter.stages.len())
            .finish_non_exhaustive()
    }
}

impl PartitionStream for ScanPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (send, receive) = mpsc::channel(AHEAD);
        let (cancel, guard) = Cancel::until(self.table.deadline);
        let part = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = part.read(&cancel, &send) {
                let _ = send.blocking_send(Err(DataFusionError::External(Box::new(error))));
            }
        });
        let batches = futures::stream::unfold((receive, guard), |(mut receive, guard): (_, CancelGuard)| async move {
            let next: Option<Result<RecordBatch, DataFusionError>> = mpsc::Receiver::recv(&mut receive).await;
            next.map(|batch| (batch, (receive, guard)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

impl ScanPart {
    fn read(&self, cancel: &Cancel, send: &mpsc::Sender<Result<RecordBatch, DataFusionError>>) -> Result<(), StoreError> {
        let (desk, table) = (&self.table.desk, self.table.table);
        // A scan without columns still needs its rows counted.
        let columns = if self.columns.is_empty() { vec![table.time_column()] } else { self.columns.clone() };
        let mut needed: Vec<usize> = self.filter.stages.iter().flat_map(|s| &s.columns).chain(&columns).copied().collect();
        needed.sort_unstable();
        needed.dedup();
        let given = desk.scan(&self.table.confinement.tenant, table, &self.filter, &needed)?;
        let plan = given.snapshot.clone().plan(self.filter.clone(), cancel)?;
        let handed = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let hand_on = |rows: &RecordBatch| -> Result<ControlFlow<()>> {
            let shown = show(table, &columns, rows, self.table.confinement.scrub.as_ref())?;
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            let arrays = self.order.iter().map(|at| Arc::clone(shown.column(*at))).collect();
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
            let so_far = handed.fetch_add(rows.num_rows(), Ordering::Relaxed) + rows.num_rows();
            let gone = send.blocking_send(Ok(batch)).is_err();
            if gone || self.limit.is_some_and(|limit| so_far >= limit) {
                over.store(true, Ordering::Relaxed);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        };
        // The engine may let this scan wait for another one, so it reads with its own thread alone.
        plan.read(1, cancel, &columns, || (), |(), rows| hand_on(rows))?;
        for part in 0..given.parts {
            if over.load(Ordering::Relaxed) {
                break;
            }
            cancel.check()?;
            if let Some(rows) = desk.part(&given, part)?
                && let Some(rows) = fitting(&self.filter.stages, &needed, rows, &columns)?
            {
                let _more = hand_on(&rows)?;
            }
        }
        Ok(())
    }
}

/// Of `rows` with the columns `needed`, those that pass every stage, with the columns `wanted`.
fn fitting(stages: &[Stage], needed: &[usize], mut rows: RecordBatch, wanted: &[usize]) -> Result<Option<RecordBatch>> {
    let part = |rows: &RecordBatch, columns: &[usize]| {
        let places: Vec<usize> = columns.iter().filter_map(|c| needed.iter().position(|n| n == c)).collect();
        rows.project(&places)
    };
    for stage in stages {
        let mask = (stage.test)(&part(&rows, &stage.columns)?)?;
        rows = filter_record_batch(&rows, &mask)?;
        if rows.num_rows() == 0 {
            return Ok(None);
        }
    }
    Ok(Some(part(&rows, wanted)?))
}

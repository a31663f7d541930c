//! Read-only SQL for agents: one SELECT over the seven tables, confined to the permit's scope, within limits.
//!
//! The statement is checked three times: as text (one query, nothing but queries), as a plan (only scans of our tables
//! and known operators), and again where rows are read (the scan itself applies the scope, whatever the plan says).

mod confine;
mod rows;
mod session;
mod table;
mod verify;

use std::time::Instant;

use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt as _;
use portcullis_ports::{SqlAnswer, SqlColumn, SqlRequest};

use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::store::Store;

/// Answers one statement.
pub(crate) async fn answer(
    store: &Store,
    deadline: Instant,
    confinement: Confinement,
    request: &SqlRequest,
) -> Result<SqlAnswer> {
    let limits = store.settings().sql;
    let deadline = deadline.min(Instant::now() + limits.time);
    let most = request.max_rows.min(limits.rows);
    let work = async {
        let _turn = store.query_turn(deadline).await?;
        let state = session::state(store, &confinement, deadline)?;
        let statement = verify::statement(&request.statement, limits.statement_bytes)?;
        let plan = state.statement_to_plan(statement).await.map_err(|e| engine(&e))?;
        verify::plan(&plan)?;
        let plan = confine::plan(plan, &confinement)?;
        let plan = LogicalPlanBuilder::from(plan)
            .limit(0, Some(most + 1))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|e| engine(&e))?;
        let physical = state.create_physical_plan(&plan).await.map_err(|e| engine(&e))?;
        let schema = physical.schema();
        let mut stream = execute_stream(physical, state.task_ctx()).map_err(|e| engine(&e))?;
        let mut answer = rows::Rows::new(&schema, most, limits.result_bytes);
        while let Some(batch) = stream.next().await {
            if !answer.push(&batch.map_err(|e| engine(&e))?)? {
                break;
            }
        }
        let columns =
            schema.fields().iter().map(|f| SqlColumn { name: f.name().clone(), kind: rows::kind(f.data_type()) }).collect();
        let (rows, truncated) = answer.finish();
        Ok(SqlAnswer { columns, rows, truncated })
    };
    tokio::time::timeout_at(deadline.into(), work).await.map_err(|_| StoreError::Deadline)?
}

/// What a failure of the engine means to the caller. Plan errors speak of the caller's own statement.
fn engine(error: &datafusion::error::DataFusionError) -> StoreError {
    use datafusion::error::DataFusionError as E;
    match error.find_root() {
        E::ResourcesExhausted(_) => StoreError::Invalid(
            "the statement needs more memory than one statement may use; narrow the time range or group by fewer values".into(),
        ),
        E::External(inner) if inner.downcast_ref::<StoreError>().is_some_and(|e| matches!(e, StoreError::Deadline)) => {
            StoreError::Deadline
        }
        E::External(inner) if inner.downcast_ref::<StoreError>().is_some_and(|e| matches!(e, StoreError::Cancelled)) => {
            StoreError::Cancelled
        }
        other => {
            let text = other.to_string();
            let first = text.lines().next().unwrap_or("").chars().take(400).collect::<String>();
            StoreError::Invalid(format!("the statement cannot be answered: {first}"))
        }
    }
}

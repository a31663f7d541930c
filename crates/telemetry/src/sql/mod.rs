//! Read-only SQL for agents: one SELECT over the seven tables, confined to the permit's scope, within limits.
//!
//! The statement is checked three times: as text (one query, nothing but queries, neither long nor deep), as a plan (only
//! scans of our tables and known operators), and again where rows are read (the scan itself applies the scope, whatever the
//! plan says). All of it happens on threads of the statement's own.

mod calls;
mod confine;
mod depth;
mod growth;
mod held;
mod place;
mod reader;
mod rows;
mod session;
mod table;
mod verify;

use std::time::Instant;

use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt as _;
use portcullis_policy::Permit;
use portcullis_ports::{SqlAnswer, SqlColumn, SqlRequest};

use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::store::Store;

/// Answers one statement, or says at the deadline that there was no time for it.
pub(crate) async fn answer(store: &Store, permit: &Permit, confinement: Confinement, request: &SqlRequest) -> Result<SqlAnswer> {
    let limits = store.settings().sql;
    let deadline = permit.deadline().min(Instant::now() + limits.time);
    let turn = store.statement_turn(deadline, permit.principal_id(), &confinement.tenant).await?;
    let question = Question {
        store: store.clone(),
        deadline,
        confinement,
        statement: request.statement.clone(),
        most: request.max_rows.min(limits.rows),
    };
    place::run(store, deadline, turn, move || question.answer()).await
}

/// One statement and all it may use.
struct Question {
    store: Store,
    deadline: Instant,
    confinement: Confinement,
    statement: String,
    most: usize,
}

impl Question {
    async fn answer(self) -> Result<SqlAnswer> {
        let limits = self.store.settings().sql;
        let statement = verify::statement(&self.statement, limits.statement_bytes)?;
        let state = session::state(&self.store, &self.confinement, self.deadline)?;
        let plan = state.statement_to_plan(statement).await.map_err(|e| engine(&e))?;
        verify::plan(&plan)?;
        growth::plan(&plan)?;
        let plan = confine::plan(plan, &self.confinement)?;
        let plan = LogicalPlanBuilder::from(plan)
            .limit(0, Some(self.most + 1))
            .and_then(LogicalPlanBuilder::build)
            .and_then(|plan| state.optimize(&plan))
            .map_err(|e| engine(&e))?;
        verify::products(&plan)?;
        let physical = state.query_planner().create_physical_plan(&plan, &state).await.map_err(|e| engine(&e))?;
        let physical = held::counted(physical, self.deadline).map_err(|e| engine(&e))?;
        let schema = physical.schema();
        let mut stream = execute_stream(physical, state.task_ctx()).map_err(|e| engine(&e))?;
        let mut answer = rows::Rows::new(&schema, self.most, limits.result_bytes);
        while let Some(batch) = stream.next().await {
            if !answer.push(&batch.map_err(|e| engine(&e))?)? {
                break;
            }
        }
        let columns =
            schema.fields().iter().map(|f| SqlColumn { name: f.name().clone(), kind: rows::kind(f.data_type()) }).collect();
        let (rows, truncated) = answer.finish();
        Ok(SqlAnswer { columns, rows, truncated })
    }
}

/// What a failure of the engine means to the caller. Plan errors speak of the caller's own statement.
fn engine(error: &datafusion::error::DataFusionError) -> StoreError {
    use datafusion::error::DataFusionError as E;
    match error.find_root() {
        E::ResourcesExhausted(_) => StoreError::Invalid(
            "the statement needs more memory than one statement may use; narrow the time range or group by fewer values".into(),
        ),
        E::External(inner) => match inner.downcast_ref::<StoreError>() {
            Some(StoreError::Deadline) => StoreError::Deadline,
            Some(StoreError::Cancelled) => StoreError::Cancelled,
            Some(StoreError::Invalid(sentence)) => StoreError::Invalid(sentence.clone()),
            _ => unanswered(&inner.to_string()),
        },
        other => unanswered(&other.to_string()),
    }
}

fn unanswered(text: &str) -> StoreError {
    let first = text.lines().next().unwrap_or("").chars().take(400).collect::<String>();
    StoreError::Invalid(format!("the statement cannot be answered: {first}"))
}

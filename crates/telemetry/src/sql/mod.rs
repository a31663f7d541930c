//! Read-only SQL for agents: one SELECT over the seven tables, confined to the permit's scope, within limits.
//!
//! Each statement is read, planned and answered in a process of its own (`serve.rs`), which the server starts, feeds and ends
//! (`process.rs`). There it is checked three times: as text (one query, nothing but queries, neither long nor deep), as a plan
//! (only scans of our tables and known operators), and again where rows are read (the scan itself applies the scope, whatever
//! the plan says). What is not foreseen ends that process, and is an error of one call.

mod buffer;
mod calls;
mod confine;
mod depth;
mod desk;
mod growth;
mod held;
mod host;
mod limits;
mod line;
mod process;
mod reader;
mod rows;
mod serve;
mod session;
mod table;
mod verify;

use std::time::Instant;

use portcullis_policy::Permit;
use portcullis_ports::{SqlAnswer, SqlRequest};

use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::scrub::Scrub;
use crate::store::Store;

pub use host::{StatementHost, StatementProgram};
use serve::WORD;
pub use serve::{MakeScrubber, answer_on, answer_statement, serve_statement};

/// Answers one statement, or says at the deadline that there was no time for it.
pub(crate) async fn answer(store: &Store, permit: &Permit, confinement: Confinement, request: &SqlRequest) -> Result<SqlAnswer> {
    let limits = store.settings().sql;
    if request.statement.len() > limits.statement_bytes {
        return Err(verify::too_long(&request.statement, limits.statement_bytes));
    }
    let deadline = permit.deadline().min(Instant::now() + limits.time);
    let turn = store.statement_turn(deadline, permit.principal_id(), &confinement.tenant).await?;
    let job = line::Job {
        statement: request.statement.clone(),
        most: request.max_rows,
        root: store.settings().directory.clone(),
        scrubber: confinement.scrub.as_ref().map(Scrub::recipe),
        confinement,
        limits,
        threads: store.settings().query_threads.max(1),
        time_left: deadline.saturating_duration_since(Instant::now()),
    };
    process::run(store, job, deadline, turn).await
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
    StoreError::Invalid(format!("the statement cannot be answered: {}", beginning(text)))
}

/// The same while rows are read: what the engine says then may quote them.
fn on_rows(error: &datafusion::error::DataFusionError) -> StoreError {
    use datafusion::error::DataFusionError as E;
    match (engine(error), error.find_root()) {
        (StoreError::Invalid(sentence), E::ResourcesExhausted(_)) => StoreError::Invalid(sentence),
        (StoreError::Invalid(sentence), E::External(inner)) if matches!(inner.downcast_ref(), Some(StoreError::Invalid(_))) => {
            StoreError::Invalid(sentence)
        }
        (StoreError::Invalid(_), root) => StoreError::Row(beginning(&root.to_string())),
        (other, _) => other,
    }
}

fn beginning(text: &str) -> String {
    text.lines().next().unwrap_or("").chars().take(400).collect()
}

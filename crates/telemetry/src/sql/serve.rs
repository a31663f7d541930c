//! What a statement's process does: reads one job from its standard input, sets its limits, answers, and ends. It has a stack
//! for the deepest statement the limits allow on every thread. It is told of one tenant only, and holds no key but that of the
//! marks of redaction.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portcullis_ports::{SqlAnswer, SqlColumn};

use super::desk::Desk;
use super::limits::Memory;
use super::line::Job;
use super::{confine, engine, growth, held, limits, line, on_rows, rows, session, verify};
use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::scrub::{Scrub, Scrubber};
use crate::settings::SqlLimits;

/// The first argument that makes a binary the process of a statement.
pub(super) const WORD: &str = "answer-statement";
/// Stack of each thread. A debug build fills 2 MiB with fifty levels of a statement, 43 KiB each; there may be 128 of those
/// (`depth.rs`), and 400 of the leaner ones of a plan (`growth.rs`). Only what is used is ever taken from the machine.
const STACK_BYTES: usize = 32 << 20;
/// Threads of one statement that read tables; one reads one scan.
const READERS: usize = 32;

/// Makes a scrubber of what [`Scrubber::recipe`] said.
pub type MakeScrubber = fn(&str) -> Result<Arc<dyn Scrubber>, String>;

/// Answers one statement, where the arguments of this process say so: for the first lines of `main`, before anything is read.
/// `None` for every other beginning.
pub fn answer_statement(mut arguments: impl Iterator<Item = OsString>, scrubber: MakeScrubber) -> Option<ExitCode> {
    arguments.next();
    (arguments.next()? == WORD).then(|| serve_statement(scrubber))
}

/// Answers the statement that comes in on standard input, which must be a socket.
pub fn serve_statement(scrubber: MakeScrubber) -> ExitCode {
    match begin(scrubber) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the log of whoever started it.
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn begin(scrubber: MakeScrubber) -> std::io::Result<()> {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let job: Job = line::hear(&mut stream)?;
    end_with_the_server(&stream)?;
    let memory = limits::set(&job, STACK_BYTES, READERS)?;
    work(job, stream, Some(memory), scrubber)
}

/// Answers the statement that comes in on `line`, in this process and without the limits of a process of its own: for whoever
/// looks for faults in what is done with a statement, and for nobody else.
///
/// # Errors
/// When no statement comes, or its thread could not be started or panicked.
pub fn answer_on(mut line: UnixStream, scrubber: MakeScrubber) -> std::io::Result<()> {
    let job: Job = line::hear(&mut line)?;
    work(job, line, None, scrubber)
}

fn work(job: Job, stream: UnixStream, memory: Option<Memory>, scrubber: MakeScrubber) -> std::io::Result<()> {
    let desk = Desk::new(stream, job.root.clone())?;
    let thread = std::thread::Builder::new().name("statement".to_owned()).stack_size(STACK_BYTES);
    let ended = thread.spawn(move || {
        let desk = Arc::new(desk);
        let outcome = perform(&job, &desk, memory, scrubber);
        // Who asked ends this process when it has its answer; other threads need not be waited for.
        desk.end(outcome);
    })?;
    ended.join().map_err(|_| std::io::Error::other("the statement's thread panicked"))
}

/// Ends this process when the other end of the line is gone, whatever it is busy with.
fn end_with_the_server(stream: &UnixStream) -> std::io::Result<()> {
    let line: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    let watch = move || {
        // Nothing is waited for but the end, which is always told.
        while poll(&mut [PollFd::new(line.as_fd(), PollFlags::empty())], PollTimeout::NONE).is_err() {}
        std::process::exit(1);
    };
    std::thread::Builder::new().name("line".to_owned()).spawn(watch).map(drop)
}

/// Everything a statement does, up to its answer.
fn perform(job: &Job, desk: &Arc<Desk>, memory: Option<Memory>, scrubber: MakeScrubber) -> Result<SqlAnswer> {
    let deadline = Instant::now() + job.time_left;
    let made = job.scrubber.as_deref().map(scrubber).transpose().map_err(StoreError::Statement)?;
    let scrub = made.map(|made| Scrub::new(made, job.confinement.tenant.clone()));
    let limits = Limits { sql: job.limits, threads: job.threads, deadline };
    let confinement = job.confinement.clone().scrubbed(scrub);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(job.threads)
        .max_blocking_threads(READERS)
        .thread_name("statement-part")
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build()
        .map_err(|e| StoreError::Statement(format!("its threads could not be started: {e}")))?;
    let outcome = runtime.block_on(async {
        let answer = answer(job, desk, &confinement, limits, memory);
        tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or(Err(StoreError::Deadline))
    });
    runtime.shutdown_background();
    outcome
}

/// What the engine is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) sql: SqlLimits,
    pub(super) threads: usize,
    pub(super) deadline: Instant,
}

async fn answer(
    job: &Job,
    desk: &Arc<Desk>,
    confinement: &Confinement,
    limits: Limits,
    memory: Option<Memory>,
) -> Result<SqlAnswer> {
    let most = job.most.min(limits.sql.rows);
    let statement = verify::statement(&job.statement, limits.sql.statement_bytes)?;
    let state = session::state(desk, confinement, limits)?;
    let plan = state.statement_to_plan(statement).await.map_err(|e| engine(&e))?;
    verify::plan(&plan)?;
    growth::plan(&plan)?;
    let plan = confine::plan(plan, confinement)?;
    let plan = LogicalPlanBuilder::from(plan)
        .limit(0, Some(most + 1))
        .and_then(LogicalPlanBuilder::build)
        .and_then(|plan| state.optimize(&plan))
        .map_err(|e| engine(&e))?;
    verify::products(&plan)?;
    let physical = state.query_planner().create_physical_plan(&plan, &state).await.map_err(|e| engine(&e))?;
    let physical = held::counted(physical, limits.deadline).map_err(|e| engine(&e))?;
    if let Some(memory) = memory {
        let threads = limits.threads + scans(physical.as_ref()).min(READERS);
        memory.settle(threads).map_err(|e| StoreError::Statement(format!("its memory could not be bounded: {e}")))?;
    }
    let schema = physical.schema();
    let mut stream = execute_stream(physical, state.task_ctx()).map_err(|e| on_rows(&e))?;
    let mut answer = rows::Rows::new(&schema, most, limits.sql.result_bytes);
    while let Some(batch) = stream.next().await {
        if !answer.push(&batch.map_err(|e| on_rows(&e))?)? {
            break;
        }
    }
    let columns = schema.fields().iter().map(|f| SqlColumn { name: f.name().clone(), kind: rows::kind(f.data_type()) }).collect();
    let (rows, truncated) = answer.finish();
    Ok(SqlAnswer { columns, rows, truncated })
}

/// Steps of a plan that read a table: each has a thread while it reads.
fn scans(plan: &dyn ExecutionPlan) -> usize {
    let below: usize = plan.children().into_iter().map(|child| scans(child.as_ref())).sum();
    below + usize::from(plan.children().is_empty())
}

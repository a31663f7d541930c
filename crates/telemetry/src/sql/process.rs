//! A process for each statement: started with nothing but a line to the server, told its job, given the rows it asks for, and
//! ended at the deadline whatever it is busy with. What it does to itself (its memory, its stack, its time) is an error of one
//! call here, with a record; its place among the statements is free when the system has buried it, and not before.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_ports::SqlAnswer;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr};
use tokio::sync::oneshot;

use super::buffer;
use super::host::StatementHost;
use super::line::{self, Asked, Job, Outcome, Rows, Scan, Wanted};
use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::scan::{Cancel, Plan};
use crate::schema::Table;
use crate::segment::Segment;
use crate::store::Store;

/// How long an answer waits for its process to be gone, so that who asks again at once finds the place free.
const LINGER: Duration = Duration::from_secs(1);
/// How long a process that closed its line has to end by itself, and to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Scans of one statement at most: more than any plan may have (`verify.rs`).
const MOST_SCANS: usize = 256;
/// Bytes of a frame beside the rows of a result.
const BESIDE_ROWS: usize = 4 << 20;
/// Bytes kept of what a process says of its end.
const MOST_SAID: usize = 4 << 10;

/// Answers one statement under its `turn`, and answers at `deadline` at the latest. Who drops this future ends the process.
pub(super) async fn run(store: &Store, job: Job, deadline: Instant, turn: impl Send + 'static) -> Result<SqlAnswer> {
    let Some(host) = &store.settings().statements else {
        return Err(StoreError::Statement("nothing is set that answers statements".into()));
    };
    let started = Process::start(host.as_ref(), turn);
    let mut process = started.map_err(|error| {
        tracing::error!(%error, "the process of a statement could not be started");
        StoreError::Statement(error.to_string())
    })?;
    let mut given = Given { store, confinement: &job.confinement, deadline, scans: Vec::new() };
    let said = tokio::time::timeout_at(deadline.into(), converse(&mut process.line, &job, &mut given)).await;
    let outcome = match said {
        Ok(Err(Broken::Line(error))) => Err(process.why(&error, &job).await),
        other => {
            process.end().await;
            match other {
                Ok(Ok(outcome)) => outcome.into(),
                Ok(Err(Broken::Ours(error))) => Err(error),
                _ => Err(StoreError::Deadline),
            }
        }
    };
    if let Err(StoreError::Statement(detail)) = &outcome {
        tracing::error!(%detail, "the process of a statement failed");
    }
    outcome
}

/// Why a conversation ended early.
enum Broken {
    /// The process does not answer any more.
    Line(std::io::Error),
    /// What it asked for could not be given.
    Ours(StoreError),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Line(error)
    }
}

async fn converse(stream: &mut UnixStream, job: &Job, given: &mut Given<'_>) -> Result<Outcome, Broken> {
    let written = |e: serde_json::Error| Broken::Line(e.into());
    line::send(stream, &serde_json::to_vec(job).map_err(written)?).await?;
    let most = job.limits.result_bytes.saturating_mul(2).saturating_add(BESIDE_ROWS);
    loop {
        let frame = line::receive(stream, most).await?;
        // A result may be long, and nobody else waits while it is read.
        let read = move || serde_json::from_slice::<Asked>(&frame);
        let asked = tokio::task::spawn_blocking(read).await.map_err(|e| Broken::Ours(StoreError::Statement(e.to_string())))?;
        match asked.map_err(written)? {
            Asked::Done(outcome) => return Ok(outcome),
            Asked::Scan(wanted) => {
                let scan = given.scan(wanted).await.map_err(Broken::Ours)?;
                line::send(stream, &serde_json::to_vec(&scan).map_err(written)?).await?;
            }
            Asked::Rows { scan, part } => {
                let frames = given.part(scan, part).await.map_err(Broken::Ours)?;
                line::send(stream, &serde_json::to_vec(&Rows { some: frames.is_some() }).map_err(written)?).await?;
                for frame in frames.iter().flatten() {
                    line::send(stream, frame).await?;
                }
            }
        }
    }
}

/// What a process may be given, and what it was.
struct Given<'a> {
    store: &'a Store,
    confinement: &'a Confinement,
    deadline: Instant,
    scans: Vec<Arc<Begun>>,
}

/// A scan that began.
struct Begun {
    /// Over the write buffer alone.
    plan: Plan,
    table: Table,
    columns: Vec<usize>,
    /// Kept from being removed while the process reads them.
    _segments: Vec<Arc<Segment>>,
}

impl Given<'_> {
    /// The scope is applied here as well: of the write buffer the process gets what it may show and nothing else.
    async fn scan(&mut self, wanted: Wanted) -> Result<Scan> {
        let (Some(table), true) = (Table::from_name(&wanted.table), self.scans.len() < MOST_SCANS) else {
            return Err(StoreError::Statement(format!("it asked for a scan of {:?}", wanted.table)));
        };
        let mut filter = wanted.filter();
        self.confinement.confine(table, &mut filter);
        let mut snapshot = self.store.snapshot(&self.confinement.tenant, table)?;
        let mut segments = std::mem::take(&mut snapshot.segments);
        segments.retain(|segment| segment.overlaps(filter.start, filter.end));
        let deadline = self.deadline;
        let planned = tokio::task::spawn_blocking(move || {
            let (cancel, _guard) = Cancel::until(deadline);
            snapshot.plan(filter, &cancel)
        });
        let plan = planned.await.map_err(|e| StoreError::Statement(e.to_string()))??;
        let scan = Scan { segments: segments.iter().map(|segment| segment.meta.clone()).collect(), parts: plan.parts() };
        self.scans.push(Arc::new(Begun { plan, table, columns: wanted.columns, _segments: segments }));
        Ok(scan)
    }

    async fn part(&self, scan: usize, part: usize) -> Result<Option<[Vec<u8>; 2]>> {
        let Some(begun) = self.scans.get(scan).filter(|begun| part < begun.plan.parts()).cloned() else {
            return Err(StoreError::Statement(format!("it asked for part {part} of scan {scan}")));
        };
        let work = move || match begun.plan.part(part)? {
            Some((rows, words)) => buffer::pack(begun.table, &begun.columns, &rows, words).map(Some),
            None => Ok(None),
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Statement(e.to_string()))?
    }
}

/// A process, ended when this is dropped.
struct Process {
    line: UnixStream,
    ended: oneshot::Receiver<Ended>,
    kill: oneshot::Sender<()>,
}

/// How a process ended.
#[derive(Debug)]
struct Ended {
    status: Option<ExitStatus>,
    said: String,
}

impl Process {
    fn start(host: &dyn StatementHost, turn: impl Send + 'static) -> std::io::Result<Self> {
        let (ours, its) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let line = UnixStream::from_std(ours)?;
        let child = host.start(its)?;
        let (kill, killed) = oneshot::channel();
        let (over, ended) = oneshot::channel();
        tokio::spawn(async move {
            let (status, said) = match child {
                Some(mut child) => {
                    let said = child.stderr.take();
                    tokio::join!(bury(&mut child, killed), last_words(said))
                }
                None => (None, String::new()),
            };
            drop(turn);
            drop(over.send(Ended { status, said }));
        });
        Ok(Self { line, ended, kill })
    }

    /// What it means that it broke off, and its end.
    async fn why(mut self, error: &std::io::Error, job: &Job) -> StoreError {
        match tokio::time::timeout(LAST_WORDS, &mut self.ended).await {
            Ok(Ok(ended)) => ended.meaning(job),
            Ok(Err(_)) => StoreError::Statement(format!("it broke off: {error}")),
            Err(_) => {
                self.end().await;
                StoreError::Statement(format!("it closed its line and went on: {error}"))
            }
        }
    }

    /// Ends it, and waits until it is gone.
    async fn end(self) {
        drop(self.kill);
        drop(self.line);
        drop(tokio::time::timeout(LINGER, self.ended).await);
    }
}

/// Waits for the end of a process, or brings it about when nobody waits for its answer any more.
async fn bury(child: &mut Child, killed: oneshot::Receiver<()>) -> Option<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status.ok(),
        _ = killed => {}
    }
    if let Err(error) = child.start_kill() {
        tracing::error!(%error, "the process of a statement could not be ended");
    }
    child.wait().await.ok()
}

/// The first of what a process writes; the rest is read as well, so that it does not wait for a reader.
async fn last_words(from: Option<ChildStderr>) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let room = MOST_SAID.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

impl Ended {
    /// Of a process that ended without an answer.
    fn meaning(&self, job: &Job) -> StoreError {
        let status = self.status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
        tracing::warn!(%status, said = ?self.said.trim_end(), "the process of a statement ended without an answer");
        // The allocator's word where the limit of memory was met, and the system's where a thread's stack did not fit into it.
        if ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"]
            .iter()
            .any(|w| self.said.contains(w))
        {
            return StoreError::Invalid(format!(
                "the statement took more than the {} MiB of memory that its process may have, and was ended; narrow the time range, \
                 select fewer or shorter columns, or group by fewer values",
                job.limits.process_bytes >> 20
            ));
        }
        StoreError::Invalid("the statement ended its own process, which should not be possible; write it in another way".into())
    }
}

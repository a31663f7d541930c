//! The store: one data directory, one process. Acknowledges what is on disk, answers what was acknowledged.

mod commit;
mod flush;
mod maintain;
mod meter;
mod open;
mod places;
mod room;
mod stats;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_model::{Clock, PrincipalId, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use meter::{IngestCounts, StoreCounts};
pub use stats::{StoreStats, TableStats};

use crate::catalog::Catalog;
use crate::convert::{Converted, OtlpRequest, OtlpSignal, weigh};
use crate::error::{Result, StoreError};
use crate::memory::MemoryTable;
use crate::scan::{Cancel, Snapshot};
use crate::schema::Table;
use crate::segment::Segment;
use crate::segment::read::ReaderCache;
use crate::settings::StoreSettings;
use crate::wal::{Frame, MAX_PAYLOAD_BYTES};
use commit::Command;
use meter::Meter;
use places::{Place, Places};
use room::Room;

/// Requests that wait for the disk at once; more wait for a place.
const COMMIT_QUEUE: usize = 256;
/// Queries that read at once; more wait for a place.
const QUERIES: usize = 8;
/// How long a sender is held before it is told to come back.
const ROOM_PATIENCE: Duration = Duration::from_millis(1_500);
/// When a sender that was refused may come back, seconds.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 2;

/// The embedded store. Cheap to clone; [`Store::close`] ends it for all clones.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    // Shared by all clones, not by the store's own threads.
    _life: Arc<Life>,
}

/// Ends the store's threads when its last user is gone without closing it. Nothing is lost: the log is replayed.
#[derive(Debug)]
struct Life(Arc<Inner>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Records stored and durable.
    pub accepted: u64,
    /// Records left out because they violate a limit.
    pub rejected: u64,
    /// Why the first of them was left out.
    pub reason: Option<String>,
}

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// Why a request was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The bytes are not such a request. Sender: fix the payload, do not retry.
    #[error("the body is not a valid OTLP request: {0}")]
    Malformed(String),
    /// Decoded it would take too much memory. Sender: send smaller batches.
    #[error("{0}")]
    TooHeavy(String),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: StoreSettings,
    pub(crate) clock: Arc<dyn Clock>,
    wal_directory: PathBuf,
    state: RwLock<State>,
    catalog: Mutex<Catalog>,
    readers: Arc<ReaderCache>,
    room: Room,
    // A fixed set of threads for decoding and reading: their memory stays with them and is used again.
    workers: Arc<rayon_core::ThreadPool>,
    queries: Arc<Semaphore>,
    statements: Places,
    commands: SyncSender<Command>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    closing: AtomicBool,
    wal_bytes: AtomicU64,
    last_error: Mutex<Option<String>>,
    damage: Mutex<Vec<String>>,
    pub(crate) meter: Meter,
    maintenance: (Mutex<bool>, Condvar),
    // One merge or removal at a time, whoever asks for it.
    maintaining: Mutex<()>,
    // Held until the store is closed; the system releases it when the process ends.
    directory_lock: Mutex<Option<File>>,
}

#[derive(Debug, Default)]
struct State {
    tenants: BTreeMap<TenantId, TenantState>,
}

#[derive(Debug, Default)]
struct TenantState {
    active: MemoryTable,
    frozen: Vec<(u64, Arc<MemoryTable>)>,
    segments: BTreeMap<Table, Vec<Arc<Segment>>>,
}

impl Store {
    /// Opens a data directory, creates it when absent, and replays what a crash left in the write-ahead log.
    pub fn open(settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        open::open(settings, clock).map(|inner| Self { _life: Arc::new(Life(Arc::clone(&inner))), inner })
    }

    /// Stores one OTLP request under `tenant`. When this returns, its accepted records are on disk and can be queried.
    pub async fn ingest(
        &self,
        tenant: TenantId,
        signal: OtlpSignal,
        encoding: Encoding,
        payload: Bytes,
    ) -> Result<Receipt, IngestError> {
        let bytes = payload.len();
        let outcome = self.take_in(tenant, signal, encoding, payload).await;
        self.inner.meter.ingested(signal, bytes, &outcome);
        outcome
    }

    async fn take_in(
        &self,
        tenant: TenantId,
        signal: OtlpSignal,
        encoding: Encoding,
        payload: Bytes,
    ) -> Result<Receipt, IngestError> {
        let weighed = payload.clone();
        let weight = self.inner.work(payload.len(), move || weigh(signal, encoding, &weighed)).await??;
        let reserved = self.inner.room.reserve(weight + payload.len() * 2 + 4096, ROOM_PATIENCE).await?;
        let inner = Arc::clone(&self.inner);
        let received = self.inner.clock.now().as_nanos();
        let decoded = self
            .inner
            .work(payload.len(), move || -> Result<_, IngestError> {
                let limits = &inner.settings.limits;
                match encoding {
                    Encoding::Protobuf => {
                        let request = OtlpRequest::decode(signal, &payload).map_err(|e| IngestError::Malformed(e.to_string()))?;
                        Ok((request.convert(limits, received)?, payload))
                    }
                    Encoding::Json => {
                        let (request, unread) =
                            OtlpRequest::decode_json(signal, &payload).map_err(|e| IngestError::Malformed(e.to_string()))?;
                        let mut converted = request.convert(limits, received)?;
                        converted.count_unread(unread);
                        Ok((converted, Bytes::from(request.encode())))
                    }
                }
            })
            .await??;
        let receipt = self.commit(tenant, signal, received, decoded).await?;
        drop(reserved);
        Ok(receipt)
    }

    async fn commit(&self, tenant: TenantId, signal: OtlpSignal, received: i64, decoded: (Converted, Bytes)) -> Result<Receipt> {
        let (converted, payload) = decoded;
        let receipt = Receipt { accepted: converted.accepted, rejected: converted.rejected, reason: converted.reason.clone() };
        if receipt.accepted == 0 {
            return Ok(receipt);
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(StoreError::Invalid(format!("a request may have {MAX_PAYLOAD_BYTES} bytes; send smaller batches")));
        }
        let frame = Frame { tenant, signal, received, payload };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Write { frame, converted: Box::new(converted), reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)??;
        Ok(receipt)
    }

    async fn send(&self, command: Command) -> Result<()> {
        use std::sync::mpsc::TrySendError;
        let mut command = command;
        loop {
            match self.inner.commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
                Err(TrySendError::Full(back)) => {
                    command = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Writes everything in memory to segments.
    pub async fn flush(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Flush { reply }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Merges small segments and drops what retention says, until nothing is left to do.
    pub async fn maintain(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.maintain_all()).await.map_err(|_| StoreError::Closed)?
    }

    /// Stops taking requests, writes what is in memory to segments and ends the threads. What could not be written in
    /// time is in the write-ahead log and is there at the next start.
    pub async fn close(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        match self.send(Command::Close { reply }).await {
            Ok(()) => answer.await.unwrap_or(Ok(()))?,
            Err(_) => return Ok(()),
        }
        self.inner.stop();
        let threads = std::mem::take(&mut *lock(&self.inner.threads));
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())))
            .await
            .map_err(|_| StoreError::Closed)?;
        // Nothing writes any more; another process may have the directory.
        if let Some(held) = lock(&self.inner.directory_lock).take() {
            // Closing the file is not enough: a process that is just being started may hold a copy of it until it runs.
            held.unlock().map_err(|e| StoreError::io("unlock", self.inner.root(), e))?;
        }
        Ok(())
    }

    /// Figures for the operator.
    pub fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    /// What it took in and answered since it was opened. Cheap.
    pub fn counts(&self) -> StoreCounts {
        self.inner.meter.counts()
    }

    /// Counts a request the door refused.
    pub(crate) fn note_refused(&self, reason: &str) {
        self.inner.meter.refused(reason);
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &StoreSettings {
        &self.inner.settings
    }

    /// The current time of the store's clock.
    pub(crate) fn now(&self) -> portcullis_model::Timestamp {
        self.inner.clock.now()
    }

    /// A consistent look at one table of one tenant.
    pub(crate) fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Snapshot> {
        self.inner.snapshot(tenant, table)
    }

    /// A place among the queries that read at once.
    pub(crate) async fn query_turn(&self, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        self.turn(&self.inner.queries, deadline).await
    }

    /// A place among the SQL statements that run at once, unless the principal or its tenant has its share of them.
    pub(crate) async fn statement_turn(&self, deadline: Instant, principal: &PrincipalId, tenant: &TenantId) -> Result<Place> {
        let places = &self.inner.statements;
        let share = places.share(principal, tenant)?;
        Ok(Place::new(self.turn(&places.free, deadline).await?, share))
    }

    async fn turn(&self, places: &Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout_at(deadline.into(), Arc::clone(places).acquire_owned())
            .await
            .map_err(|_| StoreError::Deadline)?
            .map_err(|_| StoreError::Closed)?;
        self.inner.meter.queried();
        Ok(turn)
    }

    /// Reads on a blocking thread until `deadline`; dropping the future stops the reading.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Self, &Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (cancel, guard) = Cancel::until(deadline);
        let permit = self.query_turn(deadline).await?;
        let store = self.clone();
        let result = tokio::task::spawn_blocking(move || {
            let result = work(&store, &cancel);
            drop(permit);
            result
        })
        .await;
        drop(guard);
        result.map_err(|_| StoreError::Invalid("the query ended unexpectedly".into()))?
    }
}

/// Bytes the request takes once decoded; refused when they are too many.
fn weigh(signal: OtlpSignal, encoding: Encoding, payload: &[u8]) -> Result<usize, IngestError> {
    let weight = match encoding {
        Encoding::Protobuf => weigh::protobuf(signal, payload).map_err(IngestError::Malformed)?,
        Encoding::Json => weigh::json(signal, payload),
    };
    if weight > weigh::MOST_BYTES { Err(IngestError::TooHeavy(weigh::too_heavy())) } else { Ok(weight) }
}

impl Inner {
    /// Runs heavy work off the runtime's threads; small work is not worth the move.
    async fn work<T: Send + 'static>(&self, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        if bytes < 16 << 10 {
            return Ok(work());
        }
        let (send, receive) = oneshot::channel();
        self.workers.spawn_fifo(move || drop(send.send(work())));
        receive.await.map_err(|_| StoreError::Invalid("the request could not be decoded".into()))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.settings.directory
    }

    fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Snapshot> {
        let state = self.state();
        let (readers, workers) = (Arc::clone(&self.readers), Arc::clone(&self.workers));
        let mut snapshot = Snapshot { table, segments: Vec::new(), memory: Vec::new(), readers, workers };
        if let Some(found) = state.tenants.get(tenant) {
            snapshot.segments = found.segments.get(&table).cloned().unwrap_or_default();
            for (_, frozen) in &found.frozen {
                snapshot.memory.extend(frozen.view(table)?);
            }
            snapshot.memory.extend(found.active.view(table)?);
        }
        Ok(snapshot)
    }

    fn note_error(&self, error: &StoreError) {
        tracing::error!(%error, "the embedded store failed at its own work");
        *lock(&self.last_error) = Some(error.to_string());
    }
}

/// Locks, also after a panic elsewhere: every value behind these locks is whole at all times.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

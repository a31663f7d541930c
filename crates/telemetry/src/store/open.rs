//! Opening: lock, catalogue, removal of files nobody names, replay of the log, threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, RwLock};

use portcullis_model::{Clock, TenantId};
use tokio::sync::Semaphore;

use super::commit::Committer;
use super::meter::Meter;
use super::places::Places;
use super::room::Room;
use super::{COMMIT_QUEUE, Inner, QUERIES, State, flush, lock, maintain};
use crate::catalog::{Catalog, Change};
use crate::convert::OtlpRequest;
use crate::error::{Result, StoreError};
use crate::files;
use crate::memory::MemoryTable;
use crate::schema::Table;
use crate::segment::read::ReaderCache;
use crate::segment::{data_path, index_path, table_directory};
use crate::settings::StoreSettings;
use crate::wal::{self, WalWriter};

pub(super) fn open(settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<Arc<Inner>> {
    let root = settings.directory.clone();
    let wal_directory = root.join("wal");
    files::create_directories(&wal_directory).map_err(|e| StoreError::io("create", &wal_directory, e))?;
    let held = lock_directory(&root)?;
    let catalog = Catalog::open(&root)?;
    let (commands, receiver) = mpsc::sync_channel(COMMIT_QUEUE);
    let inner = Arc::new(Inner {
        room: Room::new(settings.memory_bytes),
        workers: Arc::new(workers(&settings)?),
        queries: Arc::new(Semaphore::new(QUERIES)),
        statements: Places::new(),
        settings,
        clock,
        wal_directory,
        state: RwLock::new(State::default()),
        catalog: Mutex::new(catalog),
        readers: Arc::new(ReaderCache::default()),
        commands,
        threads: Mutex::new(Vec::new()),
        closing: AtomicBool::new(false),
        wal_bytes: AtomicU64::new(0),
        last_error: Mutex::new(None),
        damage: Mutex::new(Vec::new()),
        meter: Meter::default(),
        maintenance: (Mutex::new(false), Condvar::new()),
        maintaining: Mutex::new(()),
        directory_lock: Mutex::new(Some(held)),
    });
    inner.load_segments();
    inner.remove_strangers();
    let generation = inner.replay_logs()?;
    start_threads(&inner, receiver, generation)?;
    Ok(inner)
}

fn workers(settings: &StoreSettings) -> Result<rayon_core::ThreadPool> {
    rayon_core::ThreadPoolBuilder::new()
        .num_threads(settings.query_threads.max(1))
        .thread_name(|number| format!("store-work-{number}"))
        .panic_handler(|_| tracing::error!("a piece of the store's work ended unexpectedly"))
        .build()
        .map_err(|e| StoreError::io("start threads for", &settings.directory, std::io::Error::other(e)))
}

fn lock_directory(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = files::writing().create(true).truncate(false).open(&path).map_err(|e| StoreError::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { directory: root.to_owned() }),
        Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path, e)),
    }
}

fn start_threads(inner: &Arc<Inner>, commands: mpsc::Receiver<super::commit::Command>, generation: u64) -> Result<()> {
    let wal = WalWriter::create(&inner.wal_directory, generation)?;
    let (flushes, jobs) = mpsc::channel();
    let committer = Committer { inner: Arc::clone(inner), commands, flushes, wal, generation };
    let (for_flush, for_maintenance) = (Arc::clone(inner), Arc::clone(inner));
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|e| StoreError::io("start a thread for", inner.root(), e))
    };
    let threads = vec![
        spawn("store-commit", Box::new(move || committer.run()))?,
        spawn("store-flush", Box::new(move || flush::run(&for_flush, &jobs)))?,
        spawn("store-maintain", Box::new(move || maintain::run(&for_maintenance)))?,
    ];
    *lock(&inner.threads) = threads;
    Ok(())
}

impl Inner {
    /// Takes every live segment of the catalogue whose files are there.
    fn load_segments(&self) {
        let metas: Vec<_> = lock(&self.catalog).live().cloned().collect();
        let mut state = self.state_mut();
        for meta in metas {
            let id = meta.id;
            let Some(segment) = self.live_segment(meta) else { continue };
            if segment.data_path().is_file() && segment.index_path().is_file() {
                let tenant = state.tenants.entry(segment.meta.tenant.clone()).or_default();
                tenant.segments.entry(segment.table).or_default().push(segment);
            } else {
                let path = segment.data_path();
                let words =
                    format!("segment {} of {} rows is missing; its rows cannot be answered", path.display(), segment.meta.rows);
                tracing::error!(id, path = %path.display(), "a live segment is missing");
                lock(&self.damage).push(words);
            }
        }
    }

    /// Removes files that no change made live: what a crash left half-done.
    fn remove_strangers(&self) {
        let mut known = BTreeSet::new();
        for meta in lock(&self.catalog).live() {
            if let Some(table) = Table::from_name(&meta.table) {
                let directory = table_directory(self.root(), &meta.tenant, table);
                known.insert(data_path(&directory, meta.id));
                known.insert(index_path(&directory, meta.id));
            }
        }
        let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
        let tenants = list(&self.root().join("tenants"));
        for file in tenants.iter().flat_map(|t| list(t)).flat_map(|t| list(&t)) {
            let ours = file.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "parquet" | "index" | "tmp"));
            if ours && !known.contains(&file) && std::fs::remove_file(&file).is_ok() {
                tracing::info!(path = %file.display(), "removed a file of an unfinished segment");
            }
        }
    }

    /// Turns what is left of the log into segments, file by file; returns the next generation.
    fn replay_logs(&self) -> Result<u64> {
        let flushed = lock(&self.catalog).flushed();
        let mut last = flushed;
        for generation in wal::generations(&self.wal_directory)? {
            last = last.max(generation);
            if generation > flushed {
                self.replay_log(generation)?;
            }
        }
        self.remove_logs(last)?;
        Ok(last + 1)
    }

    fn replay_log(&self, generation: u64) -> Result<()> {
        let path = wal::path_of(&self.wal_directory, generation);
        let mut buffers: BTreeMap<TenantId, MemoryTable> = BTreeMap::new();
        let mut written = Vec::new();
        let mut held = 0;
        let replay = wal::replay(&path, |frame| {
            let request = OtlpRequest::decode(frame.signal, &frame.payload)
                .map_err(|e| StoreError::damaged(&path, format!("a whole frame is not a request: {e}")))?;
            let converted = request.convert(&self.settings.limits, frame.received)?;
            let buffer = buffers.entry(frame.tenant).or_default();
            let before = buffer.bytes();
            buffer.insert(converted)?;
            held += buffer.bytes() - before;
            if held as u64 > self.settings.memory_bytes {
                held = 0;
                for (tenant, buffer) in std::mem::take(&mut buffers) {
                    self.write_memory(&tenant, &buffer, &mut written)?;
                }
            }
            Ok(())
        })?;
        for (tenant, buffer) in buffers {
            self.write_memory(&tenant, &buffer, &mut written)?;
        }
        lock(&self.catalog).commit(Change { add: written.clone(), flushed: Some(generation), ..Change::default() })?;
        let mut state = self.state_mut();
        for segment in written.into_iter().filter_map(|meta| self.live_segment(meta)) {
            let tenant = state.tenants.entry(segment.meta.tenant.clone()).or_default();
            tenant.segments.entry(segment.table).or_default().push(segment);
        }
        tracing::info!(generation, requests = replay.frames, "replayed the write-ahead log");
        if let Some(damage) = replay.damage {
            let words = format!("write-ahead log {}: {damage}", path.display());
            tracing::warn!(path = %path.display(), damage, "the write-ahead log ended in an unfinished frame, as a crash leaves it");
            lock(&self.damage).push(words);
        }
        Ok(())
    }
}

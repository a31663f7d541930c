//! The flusher: one thread that turns frozen buffers into segments, commits them in one change, and then removes the
//! log they came from. A failure is retried; until it succeeds the rows stay queryable in memory and safe in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use portcullis_model::TenantId;
use tokio::sync::oneshot;

use super::{Inner, lock};
use crate::catalog::Change;
use crate::error::{Result, StoreError};
use crate::memory::MemoryTable;
use crate::schema::Table;
use crate::segment::sort::SortedRows;
use crate::segment::write::SegmentWriter;
use crate::segment::{Segment, SegmentMeta, data_path, index_path, table_directory};
use crate::wal;

const RETRY: Duration = Duration::from_secs(2);

/// A generation to be written.
pub(super) struct FlushJob {
    /// Everything up to this generation of the log.
    pub(super) generation: u64,
    /// Who waits for it.
    pub(super) reply: Option<oneshot::Sender<Result<()>>>,
}

/// Runs until every sender is gone.
pub(super) fn run(inner: &Inner, jobs: &Receiver<FlushJob>) {
    while let Ok(mut job) = jobs.recv() {
        while let Err(error) = inner.flush_generation(job.generation) {
            inner.note_error(&error);
            // Who waits is told; the work goes on, for the buffers must be freed one day.
            if let Some(reply) = job.reply.take() {
                let _ = reply.send(Err(error));
            }
            if inner.closing.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(RETRY);
        }
        *lock(&inner.last_error) = None;
        inner.wake_maintenance();
        if let Some(reply) = job.reply.take() {
            let _ = reply.send(Ok(()));
        }
    }
}

impl Inner {
    /// Writes every frozen buffer up to `generation` and commits them together.
    fn flush_generation(&self, generation: u64) -> Result<()> {
        let frozen: Vec<(TenantId, Arc<MemoryTable>)> = self
            .state()
            .tenants
            .iter()
            .flat_map(|(tenant, s)| {
                s.frozen.iter().filter(|(g, _)| *g <= generation).map(|(_, m)| (tenant.clone(), Arc::clone(m)))
            })
            .collect();
        let mut written = Vec::new();
        let outcome =
            frozen.iter().try_for_each(|(tenant, memory)| self.write_memory(tenant, memory, &mut written)).and_then(|()| {
                let change = Change { add: written.clone(), flushed: Some(generation), ..Change::default() };
                lock(&self.catalog).commit(change)
            });
        if let Err(error) = outcome {
            self.discard(&written);
            return Err(error);
        }
        let segments: Vec<Arc<Segment>> = written.into_iter().filter_map(|meta| self.live_segment(meta)).collect();
        {
            let mut state = self.state_mut();
            for tenant in state.tenants.values_mut() {
                tenant.frozen.retain(|(g, _)| *g > generation);
            }
            for segment in segments {
                let tenant = state.tenants.entry(segment.meta.tenant.clone()).or_default();
                tenant.segments.entry(segment.table).or_default().push(segment);
            }
        }
        drop(frozen);
        self.count_buffers();
        self.remove_logs(generation)
    }

    /// Writes the rows of one buffer; what was written is added to `written` even when a later part fails.
    pub(super) fn write_memory(&self, tenant: &TenantId, memory: &MemoryTable, written: &mut Vec<SegmentMeta>) -> Result<()> {
        let tables: Vec<Table> = memory.tables().map(|(table, _)| table).collect();
        for table in tables {
            let Some(view) = memory.view(table)? else { continue };
            let directory = self.table_directory(tenant, table)?;
            let sorted = SortedRows::new(table, &view);
            for part in 0..sorted.parts() {
                let id = lock(&self.catalog).new_id();
                let level = self.settings.compression_level;
                let mut writer = SegmentWriter::create(&directory, tenant, table, id, level)?;
                sorted.for_each(part, |rows| writer.push(rows))?;
                written.push(writer.finish()?);
            }
        }
        Ok(())
    }

    /// The directory of a table, created durably when absent.
    pub(super) fn table_directory(&self, tenant: &TenantId, table: Table) -> Result<std::path::PathBuf> {
        let directory = table_directory(self.root(), tenant, table);
        if !directory.is_dir() {
            crate::files::create_directories(&directory).map_err(|e| StoreError::io("create", &directory, e))?;
            for parent in directory.ancestors().skip(1).take(3) {
                wal::sync_directory(parent)?;
            }
        }
        Ok(directory)
    }

    /// The handle of a segment the catalogue just took.
    pub(super) fn live_segment(&self, meta: SegmentMeta) -> Option<Arc<Segment>> {
        let table = Table::from_name(&meta.table)?;
        let directory = table_directory(self.root(), &meta.tenant, table);
        Some(Segment::new(meta, table, directory))
    }

    /// Removes files of segments that did not become live.
    pub(super) fn discard(&self, written: &[SegmentMeta]) {
        for meta in written {
            if let Some(table) = Table::from_name(&meta.table) {
                let directory = table_directory(self.root(), &meta.tenant, table);
                let _ = std::fs::remove_file(data_path(&directory, meta.id));
                let _ = std::fs::remove_file(index_path(&directory, meta.id));
            }
        }
    }

    /// Removes log files whose rows are in segments.
    pub(super) fn remove_logs(&self, generation: u64) -> Result<()> {
        for old in wal::generations(&self.wal_directory)?.into_iter().filter(|g| *g <= generation) {
            let path = wal::path_of(&self.wal_directory, old);
            std::fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
        Ok(())
    }

    /// Brings the account of memory up to date.
    pub(super) fn count_buffers(&self) {
        let state = self.state();
        let bytes =
            state.tenants.values().map(|t| t.active.bytes() + t.frozen.iter().map(|(_, m)| m.bytes()).sum::<usize>()).sum();
        self.room.set_buffers(bytes);
    }

    pub(super) fn wake_maintenance(&self) {
        *lock(&self.maintenance.0) = true;
        self.maintenance.1.notify_all();
    }

    /// Tells the background threads to end.
    pub(super) fn stop(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake_maintenance();
    }
}

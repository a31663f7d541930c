//! Housekeeping in the background, one thread: merges small segments into larger ones and drops what retention says.
//! A merge replaces its inputs in one change, so a query sees either all of them or the result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis_model::TenantId;

use super::{Inner, lock};
use crate::catalog::Change;
use crate::error::{Result, StoreError};
use crate::schema::Table;
use crate::segment::Segment;
use crate::segment::merge::merge;
use crate::segment::write::SegmentWriter;

/// Segments of similar size that are worth a merge.
const MERGE_COUNT: usize = 4;
/// Segments merged at once at most; each costs an open file and a batch of rows in memory.
const MERGE_MOST: usize = 12;
/// Rows of a segment above which it is left alone.
const LARGE_ROWS: u64 = 2_000_000;
const DAY_NANOS: i64 = 86_400_000_000_000;
const INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the store closes.
pub(super) fn run(inner: &Arc<Inner>) {
    while !inner.closing.load(Ordering::Acquire) {
        if let Err(error) = inner.maintain_all() {
            if matches!(error, StoreError::Cancelled) {
                return;
            }
            inner.note_error(&error);
        }
        let (flag, signal) = &inner.maintenance;
        let woken = lock(flag);
        if let Ok((mut woken, _)) = signal.wait_timeout_while(woken, INTERVAL, |woken| !*woken) {
            *woken = false;
        }
    }
}

impl Inner {
    /// Everything there is to do now.
    pub(super) fn maintain_all(&self) -> Result<()> {
        let _turn = lock(&self.maintaining);
        self.retain()?;
        while let Some(group) = self.pick_merge() {
            self.merge_group(&group)?;
        }
        Ok(())
    }

    /// Drops segments that are too old or too much.
    fn retain(&self) -> Result<()> {
        let mut all: Vec<Arc<Segment>> =
            self.state().tenants.values().flat_map(|t| t.segments.values().flatten().cloned()).collect();
        all.sort_by_key(|s| s.meta.max_time);
        let oldest = self.settings.retention_age.map(|age| self.clock.now().minus(age).as_nanos());
        let mut excess =
            self.settings.retention_bytes.map_or(0, |limit| all.iter().map(|s| s.meta.bytes).sum::<u64>().saturating_sub(limit));
        let mut end = Vec::new();
        for segment in all {
            let too_old = oldest.is_some_and(|oldest| segment.meta.max_time < oldest);
            if too_old || excess > 0 {
                excess = excess.saturating_sub(segment.meta.bytes);
                end.push(segment);
            }
        }
        if end.is_empty() {
            return Ok(());
        }
        tracing::info!(segments = end.len(), rows = end.iter().map(|s| s.meta.rows).sum::<u64>(), "retention drops segments");
        self.replace(&end, None)
    }

    /// Segments of one table and day that should become one.
    fn pick_merge(&self) -> Option<Vec<Arc<Segment>>> {
        let state = self.state();
        let mut groups: BTreeMap<(&TenantId, Table, i64), Vec<&Arc<Segment>>> = BTreeMap::new();
        for (tenant, found) in &state.tenants {
            for segment in found.segments.values().flatten().filter(|s| s.meta.rows < LARGE_ROWS / 2) {
                let day = segment.meta.max_time.div_euclid(DAY_NANOS);
                groups.entry((tenant, segment.table, day)).or_default().push(segment);
            }
        }
        groups.into_values().find_map(pick_from)
    }

    fn merge_group(&self, group: &[Arc<Segment>]) -> Result<()> {
        let Some(first) = group.first() else { return Ok(()) };
        let (tenant, table) = (&first.meta.tenant, first.table);
        let directory = self.table_directory(tenant, table)?;
        let id = lock(&self.catalog).new_id();
        let inputs = group.iter().map(|s| self.readers.get(s)?.all_rows(s)).collect::<Result<Vec<_>>>()?;
        let mut writer = SegmentWriter::create(&directory, tenant, table, id, self.settings.compression_level)?;
        merge(table, inputs, |rows| {
            if self.closing.load(Ordering::Acquire) {
                return Err(StoreError::Cancelled);
            }
            writer.push(rows)
        })?;
        let meta = writer.finish()?;
        let expected: u64 = group.iter().map(|s| s.meta.rows).sum();
        if meta.rows != expected {
            let path = directory.join(format!("{id:016x}.parquet"));
            self.discard(&[meta]);
            return Err(StoreError::damaged(path, format!("a merge lost rows; {expected} were expected")));
        }
        let result = self.replace(group, Some(meta.clone()));
        if result.is_err() {
            self.discard(&[meta]);
        }
        result
    }

    /// Ends `old` and begins `new` in one change.
    fn replace(&self, old: &[Arc<Segment>], new: Option<crate::segment::SegmentMeta>) -> Result<()> {
        let remove: Vec<u64> = old.iter().map(|s| s.meta.id).collect();
        let change = Change { add: new.clone().into_iter().collect(), remove: remove.clone(), ..Change::default() };
        lock(&self.catalog).commit(change)?;
        let mut state = self.state_mut();
        for segment in old {
            if let Some(live) = state.tenants.get_mut(&segment.meta.tenant).and_then(|t| t.segments.get_mut(&segment.table)) {
                live.retain(|s| s.meta.id != segment.meta.id);
            }
        }
        if let Some(segment) = new.and_then(|meta| self.live_segment(meta)) {
            let tenant = state.tenants.entry(segment.meta.tenant.clone()).or_default();
            tenant.segments.entry(segment.table).or_default().push(segment);
        }
        drop(state);
        for segment in old {
            segment.retire();
            self.readers.forget(segment.meta.id);
        }
        Ok(())
    }
}

/// Neighbours in time of the same size class, enough of them to be worth it.
fn pick_from(mut segments: Vec<&Arc<Segment>>) -> Option<Vec<Arc<Segment>>> {
    segments.sort_by_key(|s| (s.meta.min_time, s.meta.id));
    let class = |s: &Segment| (s.meta.rows / 8_192).max(1).ilog2() / 2;
    for size in 0..=class_of_rows(LARGE_ROWS) {
        let mut group: Vec<Arc<Segment>> = Vec::new();
        let mut rows = 0;
        for segment in segments.iter().filter(|s| class(s) == size) {
            if group.len() == MERGE_MOST || rows + segment.meta.rows > LARGE_ROWS {
                break;
            }
            rows += segment.meta.rows;
            group.push(Arc::clone(segment));
        }
        if group.len() >= MERGE_COUNT || (group.len() >= 2 && rows >= LARGE_ROWS / 2) {
            return Some(group);
        }
    }
    None
}

fn class_of_rows(rows: u64) -> u32 {
    (rows / 8_192).max(1).ilog2() / 2
}

//! Figures for the operator: what `doctor` and the start-up report print.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use portcullis_model::{TenantId, Timestamp};

use super::{Inner, lock};

/// Figures of one store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// By tenant and table name; tables without rows are absent.
    pub tables: BTreeMap<(TenantId, String), TableStats>,
    /// Bytes of rows in memory that are not yet in segments.
    pub buffered_bytes: u64,
    /// Bytes of the write-ahead log file being written.
    pub wal_bytes: u64,
    /// The last failure of the store's own work, until it succeeds again.
    pub last_error: Option<String>,
    /// What was found damaged or missing at the start.
    pub damage: Vec<String>,
}

/// Figures of one table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableStats {
    /// Rows, in segments and in memory.
    pub rows: u64,
    /// Rows of those in memory.
    pub buffered_rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Earliest row.
    pub oldest: Option<Timestamp>,
    /// Latest row.
    pub newest: Option<Timestamp>,
}

impl TableStats {
    fn reach(&mut self, low: i64, high: i64) {
        let (low, high) = (Timestamp::from_nanos(low), Timestamp::from_nanos(high));
        self.oldest = Some(self.oldest.map_or(low, |t| t.min(low)));
        self.newest = Some(self.newest.map_or(high, |t| t.max(high)));
    }
}

impl StoreStats {
    /// Bytes on disk in segments.
    pub fn segment_bytes(&self) -> u64 {
        self.tables.values().map(|t| t.bytes).sum()
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|t| t.rows).sum()
    }
}

impl Inner {
    pub(super) fn stats(&self) -> StoreStats {
        let mut tables: BTreeMap<(TenantId, String), TableStats> = BTreeMap::new();
        for (tenant, found) in &self.state().tenants {
            for (table, segments) in &found.segments {
                for segment in segments {
                    let stats = tables.entry((tenant.clone(), table.name().to_owned())).or_default();
                    stats.rows += segment.meta.rows;
                    stats.bytes += segment.meta.bytes;
                    stats.segments += 1;
                    stats.reach(segment.meta.min_time, segment.meta.max_time);
                }
            }
            for memory in found.frozen.iter().map(|(_, m)| m.as_ref()).chain([&found.active]) {
                for (table, rows) in memory.tables() {
                    let stats = tables.entry((tenant.clone(), table.name().to_owned())).or_default();
                    stats.rows += rows.rows() as u64;
                    stats.buffered_rows += rows.rows() as u64;
                    stats.reach(rows.min_time, rows.max_time);
                }
            }
        }
        StoreStats {
            tables,
            buffered_bytes: self.room.buffers() as u64,
            wal_bytes: self.wal_bytes.load(Ordering::Acquire),
            last_error: lock(&self.last_error).clone(),
            damage: lock(&self.damage).clone(),
        }
    }
}

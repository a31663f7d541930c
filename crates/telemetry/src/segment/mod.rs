//! Segments: sorted, immutable files of rows. A segment is one Parquet file and one index file; it exists once the
//! catalogue says so, whatever else lies in the directory.

pub(crate) mod bloom;
pub(crate) mod index;
pub(crate) mod merge;
pub(crate) mod read;
pub(crate) mod sort;
pub(crate) mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_model::TenantId;
use serde::{Deserialize, Serialize};

use crate::schema::Table;

/// What the catalogue knows of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    /// Unique in one data directory, never reused.
    pub(crate) id: u64,
    /// Whose rows.
    pub(crate) tenant: TenantId,
    /// Name of the table.
    pub(crate) table: String,
    /// Rows.
    pub(crate) rows: u64,
    /// Bytes on disk, index included.
    pub(crate) bytes: u64,
    /// Earliest time.
    pub(crate) min_time: i64,
    /// Latest time.
    pub(crate) max_time: i64,
}

/// A live segment. Its files are removed when it was retired and the last query that uses it has ended.
#[derive(Debug)]
pub(crate) struct Segment {
    /// What the catalogue knows.
    pub(crate) meta: SegmentMeta,
    /// Its table.
    pub(crate) table: Table,
    directory: PathBuf,
    retired: AtomicBool,
}

impl Segment {
    /// A live segment in the directory of its table.
    pub(crate) fn new(meta: SegmentMeta, table: Table, directory: PathBuf) -> Arc<Self> {
        Arc::new(Self { meta, table, directory, retired: AtomicBool::new(false) })
    }

    /// The Parquet file.
    pub(crate) fn data_path(&self) -> PathBuf {
        data_path(&self.directory, self.meta.id)
    }

    /// The index file.
    pub(crate) fn index_path(&self) -> PathBuf {
        index_path(&self.directory, self.meta.id)
    }

    /// To be removed when nobody uses it any more.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether any row may lie in `[start, end)`.
    pub(crate) fn overlaps(&self, start: i64, end: i64) -> bool {
        self.meta.min_time < end && self.meta.max_time >= start
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            for path in [self.data_path(), self.index_path()] {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "a retired segment could not be removed; it is removed at the next start");
                }
            }
        }
    }
}

/// The Parquet file of a segment.
pub(crate) fn data_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:016x}.parquet"))
}

/// The index file of a segment.
pub(crate) fn index_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:016x}.index"))
}

/// The directory of a table of a tenant. The prefix keeps names such as `..` from meaning anything.
pub(crate) fn table_directory(root: &Path, tenant: &TenantId, table: Table) -> PathBuf {
    root.join("tenants").join(format!("t-{tenant}")).join(table.name())
}

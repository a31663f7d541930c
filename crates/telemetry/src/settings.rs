//! What an operator can set about the store. Defaults are safe on a small machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sql::StatementHost;

/// Settings of one store.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Data directory; created when absent, owned by one process at a time.
    pub directory: PathBuf,
    /// Rows are written to a segment when they take this many bytes in memory.
    pub flush_bytes: u64,
    /// Rows are written to a segment at the latest this long after the first of them arrived.
    pub flush_after: Duration,
    /// Bytes of rows and requests in memory beyond which senders are told to come back later.
    pub memory_bytes: u64,
    /// Records older than this are dropped; `None` keeps them for ever.
    pub retention_age: Option<Duration>,
    /// Segments beyond this many bytes are dropped, oldest first; `None` means no limit.
    pub retention_bytes: Option<u64>,
    /// How records are limited.
    pub limits: RecordLimits,
    /// How SQL is limited.
    pub sql: SqlLimits,
    /// Starts what answers an SQL statement; without it statements are refused.
    pub statements: Option<Arc<dyn StatementHost>>,
    /// Threads that read segments for one query.
    pub query_threads: usize,
    /// Zstandard level of segments.
    pub compression_level: i32,
}

impl StoreSettings {
    /// Defaults for a data directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            flush_bytes: 48 << 20,
            flush_after: Duration::from_mins(1),
            memory_bytes: 144 << 20,
            retention_age: None,
            retention_bytes: None,
            limits: RecordLimits::default(),
            sql: SqlLimits::default(),
            statements: None,
            query_threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(4),
            compression_level: 3,
        }
    }
}

/// Limits of one record; a record beyond them is rejected, the rest of its request is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Attributes on one record, resource or scope.
    pub attributes: usize,
    /// Bytes of an attribute name.
    pub attribute_name_bytes: usize,
    /// Bytes of one attribute value as text.
    pub attribute_value_bytes: usize,
    /// Bytes of a log body as text.
    pub body_bytes: usize,
    /// Events or links on one span, buckets of one histogram point, exemplars of one point.
    pub nested_items: usize,
    /// How far in the future a record may be.
    pub future: Duration,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self {
            attributes: 256,
            attribute_name_bytes: 512,
            attribute_value_bytes: 64 << 10,
            body_bytes: 1 << 20,
            nested_items: 1024,
            future: Duration::from_hours(24),
        }
    }
}

/// Limits of one SQL statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlLimits {
    /// Bytes of the statement's text.
    pub statement_bytes: usize,
    /// Memory one statement may use for sorting, grouping and joining.
    pub memory_bytes: usize,
    /// Memory of the statement's process beyond that, all it has and its threads' stacks apart; taking more ends it.
    pub process_bytes: usize,
    /// Bytes of the result as text: some ten times what an answer may have, since everything in it is redacted.
    pub result_bytes: usize,
    /// Rows of the result, whatever the caller asks for.
    pub rows: usize,
    /// How long it may run.
    pub time: Duration,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self {
            statement_bytes: 16 << 10,
            memory_bytes: 128 << 20,
            process_bytes: 512 << 20,
            result_bytes: 1 << 20,
            rows: 10_000,
            time: Duration::from_secs(30),
        }
    }
}

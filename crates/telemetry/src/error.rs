//! Every way the store can fail, and who can fix it. Messages are client-safe; details go to the log.

use std::path::PathBuf;

/// A failure of the embedded store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory. Operator: stop it, or choose another directory.
    #[error("the data directory {} is in use by another Portcullis process; stop it or set another directory", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The file system refused. Operator: check space, permissions and the disk.
    #[error("the embedded store could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what was written to it. Operator: restore it or move it away.
    #[error("the file {} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// Buffers are full. Sender: retry after the given time.
    #[error("the store is receiving faster than it can write; retry after {retry_after_seconds} s")]
    Overloaded {
        /// Seconds after which a retry may succeed.
        retry_after_seconds: u64,
    },
    /// The caller has as many statements under way as it may have. Caller: wait for one of them.
    #[error("{whose} has {most} sql statements under way, which is as many as it may have at once; wait for one to end")]
    Crowded {
        /// Who has them, such as `this principal`.
        whose: &'static str,
        /// How many it may have.
        most: usize,
        /// Seconds after which a retry may succeed.
        retry_after_seconds: u64,
    },
    /// The store is shutting down. Sender: retry against the restarted server.
    #[error("the store is shutting down")]
    Closed,
    /// The columnar engine failed; a defect on our side or a damaged segment.
    #[error("the columnar engine failed: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet failed; a defect on our side or a damaged segment.
    #[error("a segment could not be read or written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The process of an SQL statement failed, not by its caller's doing. Operator: see the log.
    #[error("the process of the statement failed: {0}")]
    Statement(String),
    /// A row of the data made the statement fail; what the engine says of it may quote the row. Caller: see there.
    #[error("the statement failed on a row of the data")]
    Row(String),
    /// The query was cancelled by its caller.
    #[error("the query was cancelled")]
    Cancelled,
    /// The query ran into its deadline. Caller: narrow the window or the filter.
    #[error("the query ran into its deadline; narrow the window or name a service")]
    Deadline,
    /// The query asks for something that cannot be answered. Caller: see the sentence.
    #[error("{0}")]
    Invalid(String),
}

impl StoreError {
    /// An i/o failure with what was tried.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// A damaged file.
    pub(crate) fn damaged(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), detail: detail.into() }
    }
}

/// Result of the store.
pub(crate) type Result<T, E = StoreError> = std::result::Result<T, E>;

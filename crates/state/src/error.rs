//! What can go wrong with a store, each with who can fix it and how. Driver errors are translated here and nowhere else.

use std::time::Duration;

/// A store that could not do what was asked. Nothing was written when a write returns one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller's: a key, value, prefix or limit outside the rules.
    #[error("{0}")]
    Invalid(String),
    /// The operator's: the store cannot be reached or created.
    #[error("{store} cannot be opened: {detail}; check that the directory exists, belongs to this user and is writable")]
    Open {
        /// Which store.
        store: String,
        /// What the system said.
        detail: String,
    },
    /// The operator's: no space.
    #[error("{store} cannot be written: the disk is full; free some space, nothing was lost")]
    Full {
        /// Which store.
        store: String,
    },
    /// The operator's: no permission to write.
    #[error("{store} is read-only; make the file and its directory writable for this user, or mount the volume read-write")]
    ReadOnly {
        /// Which store.
        store: String,
    },
    /// Another process held the store for too long. Worth one retry.
    #[error("{store} stayed locked by another process for {waited:?}; try again, or find the process that holds it")]
    Busy {
        /// Which store.
        store: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The operator's: damaged, or not a store at all.
    #[error(
        "{store} is damaged or not a Portcullis state file ({detail}); move it aside and restore a backup, \
         or start with a new file and create the keys again"
    )]
    Corrupt {
        /// Which store.
        store: String,
        /// What was found.
        detail: String,
    },
    /// The operator's: written by a newer Portcullis.
    #[error(
        "{store} has schema version {found}, this build knows up to {known}; run the newer Portcullis that wrote it, \
         or restore a backup taken before the upgrade"
    )]
    NewerSchema {
        /// Which store.
        store: String,
        /// Version in the store.
        found: i64,
        /// Newest version this build knows.
        known: i64,
    },
    /// The operator's: written by an older Portcullis, and only looked at now.
    #[error(
        "{store} has schema version {found}, this build reads {known}; nothing was changed. The first start of this build, or \
         the first command of it that changes something, brings it up to date; the older Portcullis cannot read it after that, \
         so keep a backup"
    )]
    OlderSchema {
        /// Which store.
        store: String,
        /// Version in the store.
        found: i64,
        /// The version this build reads.
        known: i64,
    },
    /// The operator's: only looked at now, and not all of it is in the file.
    #[error(
        "{store} has a write-ahead log beside it that nobody took in; nothing was changed. Start Portcullis on it once, or \
         restore the file and its log together with the '-shm' file"
    )]
    Unfinished {
        /// Which store.
        store: String,
    },
    /// A defect on our side: somebody writes who only looks.
    #[error("{store} was opened to be read, and nothing is written to it")]
    OpenedToRead {
        /// Which store.
        store: String,
    },
    /// Anything else the store said.
    #[error("{store} failed: {detail}")]
    Failed {
        /// Which store.
        store: String,
        /// What the driver said.
        detail: String,
    },
}

/// Translates an SQLite error by its primary result code, <https://www.sqlite.org/rescode.html>.
pub(crate) fn from_sqlite(store: &str, waited: Duration, error: &sqlx::Error) -> StoreError {
    let store = store.to_owned();
    let detail = error.to_string();
    let code = match error {
        sqlx::Error::Database(database) => database.code().and_then(|c| c.parse::<i64>().ok()).map_or(0, |c| c & 0xff),
        sqlx::Error::PoolTimedOut => return StoreError::Busy { store, waited },
        _ => 0,
    };
    match code {
        5 | 6 => StoreError::Busy { store, waited },
        8 => StoreError::ReadOnly { store },
        11 | 26 => StoreError::Corrupt { store, detail },
        13 => StoreError::Full { store },
        3 | 14 | 23 => StoreError::Open { store, detail },
        _ => StoreError::Failed { store, detail },
    }
}

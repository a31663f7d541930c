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

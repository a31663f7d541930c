//! The tables of the SQLite store and how older files become newer ones. Steps are only ever added at the end.

use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::StoreError;

/// `PCLS`: marks the file as ours, <https://www.sqlite.org/pragma.html#pragma_application_id>.
pub(crate) const APPLICATION_ID: i64 = 0x5043_4c53;

/// Each step brings a file from version N to N+1; the version is kept in `PRAGMA user_version`.
const STEPS: [&str; 1] = ["
CREATE TABLE namespace_change (
    namespace TEXT NOT NULL PRIMARY KEY,
    counter   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE entry (
    namespace  TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      BLOB NOT NULL,
    version    INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_by_expiry ON entry (expires_at) WHERE expires_at IS NOT NULL;
PRAGMA application_id = 1346587731;
PRAGMA user_version = 1;
"];

async fn pragma(connection: &mut SqliteConnection, which: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(which).fetch_one(connection).await
}

/// The newest version this build knows.
const KNOWN: i64 = STEPS.len() as i64;

/// Checks whose file it is, and gives its version: 0 where nothing is in it yet.
async fn version(
    connection: &mut SqliteConnection,
    store: &str,
    failed: &impl Fn(sqlx::Error) -> StoreError,
) -> Result<i64, StoreError> {
    let found = pragma(connection, "PRAGMA user_version").await.map_err(failed)?;
    let owner = pragma(connection, "PRAGMA application_id").await.map_err(failed)?;
    let tables = pragma(connection, "SELECT count(*) FROM sqlite_schema").await.map_err(failed)?;
    let new = found == 0 && owner == 0 && tables == 0;
    if !new && owner != APPLICATION_ID {
        return Err(StoreError::Corrupt {
            store: store.to_owned(),
            detail: "it is an SQLite database of another program".to_owned(),
        });
    }
    if found > KNOWN {
        return Err(StoreError::NewerSchema { store: store.to_owned(), found, known: KNOWN });
    }
    Ok(found)
}

/// Checks that it is a file of ours with the schema of this build.
pub(crate) async fn check(
    connection: &mut SqliteConnection,
    store: &str,
    failed: impl Fn(sqlx::Error) -> StoreError,
) -> Result<(), StoreError> {
    let found = version(connection, store, &failed).await?;
    if found < KNOWN {
        return Err(StoreError::OlderSchema { store: store.to_owned(), found, known: KNOWN });
    }
    Ok(())
}

/// Checks whose file it is and which version, and brings it up to date. Runs inside one immediate transaction,
/// so processes that start together take turns.
pub(crate) async fn migrate(
    mut transaction: Transaction<'_, Sqlite>,
    store: &str,
    failed: impl Fn(sqlx::Error) -> StoreError,
) -> Result<(), StoreError> {
    let found = version(&mut transaction, store, &failed).await?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(&failed)?;
    }
    transaction.commit().await.map_err(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_mark_the_file_as_ours_and_end_at_the_newest_version() {
        assert!(STEPS[0].contains(&format!("application_id = {APPLICATION_ID};")));
        for (index, step) in STEPS.iter().enumerate() {
            assert!(step.contains(&format!("user_version = {};", index + 1)));
        }
    }
}

//! The default store: one SQLite file that several processes may share. Fixed statements only, values are bound.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_model::{Clock, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::error::from_sqlite;
use crate::rules::{check_key, check_list, check_value};
use crate::store::{Entry, Listing, Namespace, Store};
use crate::{StoreError, schema};

/// Expired entries removed by one write, at most.
const SWEEP: i64 = 100;

/// How long another process may hold the file before a call gives up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest a process takes that is just making the file, from its first byte to its last.
const BEING_MADE: Duration = Duration::from_secs(1);

type Row = (String, Vec<u8>, i64, Option<i64>);

/// State in one SQLite file: write-ahead log, full synchronisation, mode 0600.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    clock: Arc<dyn Clock>,
    name: String,
    patience: Duration,
    /// Whether it is only looked at.
    looking: bool,
}

/// What a write requires of the entry that is there.
enum Condition {
    None,
    Absent,
    Version(u64),
}

impl SqliteStore {
    /// Opens the file, creating it (mode 0600) and its directory (mode 0700) when they do not exist, and
    /// brings its schema up to date. An existing file readable by others is made 0600.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_with(path, clock, PATIENCE).await
    }

    async fn open_with(path: &Path, clock: Arc<dyn Clock>, patience: Duration) -> Result<Self, StoreError> {
        let name = named(path);
        prepare_file(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { store: name.clone() },
            std::io::ErrorKind::StorageFull => StoreError::Full { store: name.clone() },
            _ => StoreError::Open { store: name.clone(), detail: e.to_string() },
        })?;
        let options = options(path, patience)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("secure_delete", "on");
        let pool = connected(options, &name, patience).await?;
        let store = Self { pool, clock, name, patience, looking: false };
        schema::migrate(store.begin().await?, &store.name, store.failed()).await?;
        Ok(store)
    }

    /// Opens the file to look at it: makes no file and no directory, changes nothing, and refuses another schema than that of
    /// this build. What other processes write is seen; writing fails with [`StoreError::OpenedToRead`].
    pub async fn open_to_read(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let until = Instant::now() + BEING_MADE;
        loop {
            match Box::pin(Self::look(path, Arc::clone(&clock))).await {
                Err(StoreError::OlderSchema { found: 0, .. } | StoreError::Unfinished { .. }) if Instant::now() < until => {
                    tokio::time::sleep(BEING_MADE / 50).await;
                }
                opened => return opened,
            }
        }
    }

    async fn look(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let name = named(path);
        let options = options(path, PATIENCE).read_only(true).immutable(is_at_rest(path, &name)?);
        let pool = connected(options, &name, PATIENCE).await?;
        let store = Self { pool, clock, name, patience: PATIENCE, looking: true };
        let mut connection = store.pool.acquire().await.map_err(store.failed())?;
        let checked = schema::check(&mut connection, &store.name, store.failed()).await;
        drop(connection);
        if checked.is_err() {
            store.close().await;
        }
        checked.map(|()| store)
    }

    /// Closes the connections. Calls after it fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> StoreError {
        |e| from_sqlite(&self.name, self.patience, &e)
    }

    /// Takes the write lock at once, so that what is read inside cannot change before the write.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        if self.looking {
            return Err(StoreError::OpenedToRead { store: self.name.clone() });
        }
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(self.failed())
    }

    async fn write(
        &self,
        namespace: Namespace,
        key: &str,
        value: &[u8],
        expires_at: Option<Timestamp>,
        condition: Condition,
    ) -> Result<Option<u64>, StoreError> {
        check_key(key)?;
        check_value(value)?;
        let now = self.clock.now();
        let mut transaction = self.begin().await?;
        let current = find(&mut transaction, namespace, key, now).await.map_err(self.failed())?;
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => current.is_none(),
            Condition::Version(expected) => current.is_some_and(|c| c.2 as u64 == expected),
        };
        if !holds {
            return Ok(None);
        }
        let version = raise_counter(&mut transaction, namespace).await.map_err(self.failed())?;
        sqlx::query(
            "INSERT INTO entry (namespace, key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (namespace, key) DO UPDATE SET value = ?3, version = ?4, expires_at = ?5",
        )
        .bind(namespace)
        .bind(key)
        .bind(value)
        .bind(version)
        .bind(expires_at.map(Timestamp::as_nanos))
        .execute(&mut *transaction)
        .await
        .map_err(self.failed())?;
        sqlx::query(
            "DELETE FROM entry WHERE (namespace, key) IN
             (SELECT namespace, key FROM entry WHERE expires_at IS NOT NULL AND expires_at <= ?1 LIMIT ?2)",
        )
        .bind(now.as_nanos())
        .bind(SWEEP)
        .execute(&mut *transaction)
        .await
        .map_err(self.failed())?;
        transaction.commit().await.map_err(self.failed())?;
        Ok(Some(version as u64))
    }
}

fn named(path: &Path) -> String {
    format!("state file {}", path.display())
}

/// What every connection has.
fn options(path: &Path, patience: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(patience)
        .pragma("trusted_schema", "off")
        .pragma("cell_size_check", "on")
        .pragma("cache_size", "-512")
        .statement_cache_capacity(16)
}

async fn connected(options: SqliteConnectOptions, name: &str, patience: Duration) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(2)
        .acquire_timeout(patience)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options)
        .await
        .map_err(|e| from_sqlite(name, patience, &e))
}

/// Whether everything is in the file itself, so that it can be read as if nobody ever wrote to it. SQLite makes the files
/// processes share beside it for whoever opens it in another way, also for those that only read
/// (<https://www.sqlite.org/wal.html#read_only_databases>): where a log is there and the other file is not, it is not opened.
fn is_at_rest(path: &Path, store: &str) -> Result<bool, StoreError> {
    let length = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::metadata(&name) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => Ok(None),
            Err(error) => Err(StoreError::Open { store: store.to_owned(), detail: error.to_string() }),
        }
    };
    length("")?;
    match (length("-wal")?, length("-shm")?, length("-journal")?) {
        (Some(1..), None, _) => Err(StoreError::Unfinished { store: store.to_owned() }),
        (Some(_), Some(_), _) | (_, _, Some(_)) => Ok(false),
        _ => Ok(true),
    }
}

fn prepare_file(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    // SQLite gives its -wal and -shm files the mode of the main file.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

async fn find(
    connection: &mut SqliteConnection,
    namespace: Namespace,
    key: &str,
    now: Timestamp,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT key, value, version, expires_at FROM entry
         WHERE namespace = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )
    .bind(namespace)
    .bind(key)
    .bind(now.as_nanos())
    .fetch_optional(connection)
    .await
}

async fn raise_counter(connection: &mut SqliteConnection, namespace: Namespace) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO namespace_change (namespace, counter) VALUES (?1, 1)
         ON CONFLICT (namespace) DO UPDATE SET counter = counter + 1 RETURNING counter",
    )
    .bind(namespace)
    .fetch_one(connection)
    .await
}

fn entry((key, value, version, expires_at): Row) -> Entry {
    Entry { key, value, version: version as u64, expires_at: expires_at.map(Timestamp::from_nanos) }
}

#[async_trait]
impl Store for SqliteStore {
    fn describe(&self) -> String {
        format!("SQLite {}", self.name)
    }

    async fn get(&self, namespace: Namespace, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let mut connection = self.pool.acquire().await.map_err(self.failed())?;
        let row = find(&mut connection, namespace, key, self.clock.now()).await.map_err(self.failed())?;
        Ok(row.map(entry))
    }

    async fn put(&self, namespace: Namespace, key: &str, value: &[u8], expires_at: Option<Timestamp>) -> Result<u64, StoreError> {
        let written = self.write(namespace, key, value, expires_at, Condition::None).await?;
        written.ok_or_else(|| StoreError::Failed {
            store: self.name.clone(),
            detail: "an unconditional write was not done".to_owned(),
        })
    }

    async fn put_if_absent(
        &self,
        namespace: Namespace,
        key: &str,
        value: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<Option<u64>, StoreError> {
        self.write(namespace, key, value, expires_at, Condition::Absent).await
    }

    async fn compare_and_swap(
        &self,
        namespace: Namespace,
        key: &str,
        expected: u64,
        value: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<Option<u64>, StoreError> {
        self.write(namespace, key, value, expires_at, Condition::Version(expected)).await
    }

    async fn delete(&self, namespace: Namespace, key: &str) -> Result<bool, StoreError> {
        check_key(key)?;
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let there = find(&mut transaction, namespace, key, now).await.map_err(self.failed())?.is_some();
        sqlx::query("DELETE FROM entry WHERE namespace = ?1 AND key = ?2")
            .bind(namespace)
            .bind(key)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed())?;
        if there {
            raise_counter(&mut transaction, namespace).await.map_err(self.failed())?;
        }
        transaction.commit().await.map_err(self.failed())?;
        Ok(there)
    }

    async fn list_after(
        &self,
        namespace: Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        let below = check_list(prefix, after, limit)?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT key, value, version, expires_at FROM entry
             WHERE namespace = ?1 AND key >= ?2 AND key < ?3 AND key > ?4 AND (expires_at IS NULL OR expires_at > ?5)
             ORDER BY key LIMIT ?6",
        )
        .bind(namespace)
        .bind(prefix)
        .bind(below)
        .bind(after.unwrap_or(""))
        .bind(self.clock.now().as_nanos())
        .bind(limit as i64 + 1)
        .fetch_all(&self.pool)
        .await
        .map_err(self.failed())?;
        let more = rows.len() > limit;
        Ok(Listing { entries: rows.into_iter().take(limit).map(entry).collect(), more })
    }

    async fn change_counter(&self, namespace: Namespace) -> Result<u64, StoreError> {
        let counter: Option<i64> = sqlx::query_scalar("SELECT counter FROM namespace_change WHERE namespace = ?1")
            .bind(namespace)
            .fetch_optional(&self.pool)
            .await
            .map_err(self.failed())?;
        Ok(counter.unwrap_or(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::SystemClock;

    async fn open(path: &Path) -> SqliteStore {
        SqliteStore::open_with(path, Arc::new(SystemClock), Duration::from_millis(100)).await.unwrap()
    }

    #[tokio::test]
    async fn a_full_disk_is_called_that_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory.path().join("state.db")).await;
        store.put("n", "kept", b"before", None).await.unwrap();
        let mut both = [store.pool.acquire().await.unwrap(), store.pool.acquire().await.unwrap()];
        for connection in &mut both {
            sqlx::query("PRAGMA max_page_count = 8").execute(&mut **connection).await.unwrap();
        }
        drop(both);
        let error = store.put("n", "big", &vec![7; 200_000], None).await.unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert!(error.to_string().contains("disk is full"), "{error}");
        assert_eq!(store.get("n", "kept").await.unwrap().unwrap().value, b"before");
        assert!(store.get("n", "big").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_lock_held_elsewhere_is_busy_and_passes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let (store, other) = (open(&path).await, open(&path).await);
        let held = other.begin().await.unwrap();
        let error = store.put("n", "k", b"v", None).await.unwrap_err();
        assert!(matches!(error, StoreError::Busy { .. }), "{error}");
        assert!(error.to_string().contains("locked by another process for 100ms"), "{error}");
        assert!(store.get("n", "k").await.unwrap().is_none(), "reading goes on while another process writes");
        drop(held);
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.put("n", "k", b"v", None).await.unwrap();
    }

    #[tokio::test]
    async fn a_newer_schema_and_a_foreign_database_are_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let store = open(&path).await;
        sqlx::query("PRAGMA user_version = 99").execute(&store.pool).await.unwrap();
        store.close().await;
        let error = SqliteStore::open(&path, Arc::new(SystemClock)).await.unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("schema version 99, this build knows up to 1"), "{error}");

        let foreign = directory.path().join("foreign.db");
        let options = SqliteConnectOptions::new().filename(&foreign).create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        sqlx::raw_sql("CREATE TABLE theirs (a)").execute(&pool).await.unwrap();
        pool.close().await;
        let error = SqliteStore::open(&foreign, Arc::new(SystemClock)).await.unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
    }
}

//! The one trait every kind of store answers to. It must stay small enough for SQLite, PostgreSQL and Redis alike.

use async_trait::async_trait;
use portcullis_model::Timestamp;

use crate::StoreError;

/// A drawer of the store. Each room of the house owns its own.
pub type Namespace = &'static str;

/// One value as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key inside the namespace.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Version of this value: unique in its namespace and rising, also across delete and re-creation.
    pub version: u64,
    /// From this instant on the entry is absent.
    pub expires_at: Option<Timestamp>,
}

/// Part of a namespace, in byte order of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether entries after the last one were left out by the limit; ask [`Store::list_after`] for them.
    pub more: bool,
}

/// Durable state shared by several processes.
///
/// Keys are 1 to [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES) visible ASCII characters, values at most
/// [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES) bytes. Expired entries are absent for every operation.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Which store this is, for messages to the operator: `SQLite file /…/state.db`. No credentials.
    fn describe(&self) -> String;

    /// The value under `key`, or `None` when there is none or it has expired.
    async fn get(&self, namespace: Namespace, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Writes unconditionally. Returns the new version.
    async fn put(&self, namespace: Namespace, key: &str, value: &[u8], expires_at: Option<Timestamp>) -> Result<u64, StoreError>;

    /// Writes only when nothing is there. `None` when something is: nothing was written.
    async fn put_if_absent(
        &self,
        namespace: Namespace,
        key: &str,
        value: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<Option<u64>, StoreError>;

    /// Writes only when the stored version is `expected`. `None` when it is another one or there is nothing.
    async fn compare_and_swap(
        &self,
        namespace: Namespace,
        key: &str,
        expected: u64,
        value: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<Option<u64>, StoreError>;

    /// Removes. Whether there was something to remove.
    async fn delete(&self, namespace: Namespace, key: &str) -> Result<bool, StoreError>;

    /// Entries whose key starts with `prefix` and comes after `after`, at most `limit`
    /// (1 to [`MAX_LIST`](crate::MAX_LIST)).
    async fn list_after(
        &self,
        namespace: Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError>;

    /// The first `limit` entries whose key starts with `prefix`.
    async fn list(&self, namespace: Namespace, prefix: &str, limit: usize) -> Result<Listing, StoreError> {
        self.list_after(namespace, prefix, None, limit).await
    }

    /// Raised by every successful change of the namespace from any process; 0 when it was never written.
    /// Expiry by passing time does not raise it.
    async fn change_counter(&self, namespace: Namespace) -> Result<u64, StoreError>;
}

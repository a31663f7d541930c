//! A store that forgets everything when dropped: for tests, and for processes that are told to keep nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use portcullis_model::{Clock, Timestamp};

use crate::StoreError;
use crate::rules::{check_key, check_list, check_value};
use crate::store::{Entry, Listing, Namespace, Store};

#[derive(Debug, Default)]
struct Drawer {
    counter: u64,
    entries: BTreeMap<String, Entry>,
}

impl Drawer {
    fn live(&self, key: &str, now: Timestamp) -> Option<&Entry> {
        self.entries.get(key).filter(|e| alive(e, now))
    }
}

fn alive(entry: &Entry, now: Timestamp) -> bool {
    entry.expires_at.is_none_or(|at| at > now)
}

/// State in this process only. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    drawers: Arc<Mutex<HashMap<Namespace, Drawer>>>,
    unreachable: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { drawers: Arc::default(), unreachable: Arc::default(), clock }
    }

    /// Makes every call fail (or work again), to rehearse what happens when the store is gone.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable.store(unreachable, Ordering::SeqCst);
    }

    fn open(&self) -> Result<MutexGuard<'_, HashMap<Namespace, Drawer>>, StoreError> {
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(StoreError::Failed { store: self.describe(), detail: "it was made unreachable".to_owned() });
        }
        Ok(self.drawers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(
        &self,
        namespace: Namespace,
        key: &str,
        value: &[u8],
        expires_at: Option<Timestamp>,
        condition: impl FnOnce(Option<&Entry>) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        check_key(key)?;
        check_value(value)?;
        let now = self.clock.now();
        let mut drawers = self.open()?;
        let drawer = drawers.entry(namespace).or_default();
        if !condition(drawer.live(key, now)) {
            return Ok(None);
        }
        drawer.counter += 1;
        let version = drawer.counter;
        drawer.entries.retain(|_, e| alive(e, now));
        drawer.entries.insert(key.to_owned(), Entry { key: key.to_owned(), value: value.to_vec(), version, expires_at });
        Ok(Some(version))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory of this process".to_owned()
    }

    async fn get(&self, namespace: Namespace, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let now = self.clock.now();
        Ok(self.open()?.get(namespace).and_then(|d| d.live(key, now)).cloned())
    }

    async fn put(&self, namespace: Namespace, key: &str, value: &[u8], expires_at: Option<Timestamp>) -> Result<u64, StoreError> {
        self.write(namespace, key, value, expires_at, |_| true).map(Option::unwrap_or_default)
    }

    async fn put_if_absent(
        &self,
        namespace: Namespace,
        key: &str,
        value: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<Option<u64>, StoreError> {
        self.write(namespace, key, value, expires_at, |current| current.is_none())
    }

    async fn compare_and_swap(
        &self,
        namespace: Namespace,
        key: &str,
        expected: u64,
        value: &[u8],
        expires_at: Option<Timestamp>,
    ) -> Result<Option<u64>, StoreError> {
        self.write(namespace, key, value, expires_at, |current| current.is_some_and(|e| e.version == expected))
    }

    async fn delete(&self, namespace: Namespace, key: &str) -> Result<bool, StoreError> {
        check_key(key)?;
        let now = self.clock.now();
        let mut drawers = self.open()?;
        let drawer = drawers.entry(namespace).or_default();
        let there = drawer.entries.remove(key).is_some_and(|e| alive(&e, now));
        if there {
            drawer.counter += 1;
        }
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
        let now = self.clock.now();
        let drawers = self.open()?;
        let Some(drawer) = drawers.get(namespace) else { return Ok(Listing::default()) };
        let mut matching = drawer
            .entries
            .range(prefix.to_owned()..below)
            .map(|(_, e)| e)
            .filter(|e| alive(e, now) && after.is_none_or(|a| e.key.as_str() > a));
        let entries: Vec<Entry> = matching.by_ref().take(limit).cloned().collect();
        Ok(Listing { entries, more: matching.next().is_some() })
    }

    async fn change_counter(&self, namespace: Namespace) -> Result<u64, StoreError> {
        Ok(self.open()?.get(namespace).map_or(0, |d| d.counter))
    }
}

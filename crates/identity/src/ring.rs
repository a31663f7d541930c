//! The API keys: made, listed, taken back, and verified against a snapshot in memory.
//!
//! Verifying never waits. A snapshot that was not confirmed by the store for too long verifies nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use portcullis_model::{Clock, KeyId, Principal, Timestamp};
use portcullis_state::{Namespace, Store, StoreError};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::Pepper;
use crate::format::{IdBytes, KeyText, generate, key_id};
use crate::record::{CreatedKey, KeyRecord, KeyRequest, StoredKey};
use crate::refusal::{IdentityRefusal, RefusalReason};

/// How long a snapshot is trusted without word from the store.
pub const DEFAULT_STALE_AFTER: Duration = Duration::from_secs(5);

const NAMESPACE: Namespace = "identity.api_keys";
/// Domain of the key hash; changing it makes every key unknown.
const HASH_CONTEXT: &str = "portcullis 2026-11-20 API key hash v1";
/// Attempts to find an unused id, or to win a race for one record.
const ATTEMPTS: usize = 8;
const PAGE: usize = 500;

/// What can go wrong with making, listing or taking back keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The caller's: what was asked for makes no sense.
    #[error("{0}")]
    Request(String),
    /// The caller's: no such key.
    #[error("there is no key '{0}'; 'portcullis key list' shows the ids")]
    NotFound(String),
    /// The operator's: a record that this build cannot read. The key is refused everywhere.
    #[error(
        "the record of key '{id}' cannot be read ({detail}); the key is refused. Revoke it, or run the version that wrote it"
    )]
    Unreadable {
        /// The id it is filed under.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The operator's: the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else changed the record at every attempt.
    #[error("key '{0}' is being changed by another process; try again")]
    Contended(String),
    /// No random numbers, or a defect on our side.
    #[error("{0}")]
    Internal(String),
}

/// What a refresh found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refreshed {
    /// Whether the keys were loaded anew because something changed.
    pub changed: bool,
    /// Keys that can be verified against, revoked and expired ones included.
    pub keys: usize,
    /// Ids of records that cannot be read; they are refused. For the operator's log.
    pub unreadable: Vec<String>,
}

struct Known {
    hash: [u8; 32],
    expires_at: Option<Timestamp>,
    revoked: bool,
    principal: Arc<Principal>,
}

#[derive(Default)]
struct Snapshot {
    counter: Option<u64>,
    keys: HashMap<IdBytes, Known>,
    unreadable: Vec<String>,
}

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    hash_key: Zeroizing<[u8; 32]>,
    snapshot: ArcSwap<Snapshot>,
    /// When the store last confirmed the snapshot: on the clock, and on a clock nobody can set.
    confirmed_at: AtomicI64,
    confirmed_after: AtomicU64,
    started: Instant,
    stale_after: Duration,
    /// One refresh at a time, so that an older listing never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
    #[cfg(test)]
    comparisons: AtomicU64,
}

/// The API keys of one store. Cheap to clone; a clone is the same ring.
#[derive(Clone)]
pub struct KeyRing(Arc<Inner>);

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("store", &self.0.store.describe()).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Loads the keys. Call [`KeyRing::refresh`] every 500 ms afterwards (or spawn [`KeyRing::keep_fresh`]):
    /// without it verification stops after [`DEFAULT_STALE_AFTER`].
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>, pepper: Pepper) -> Result<Self, KeyError> {
        Self::open_with(store, clock, pepper, DEFAULT_STALE_AFTER).await
    }

    /// The same with another limit of trust in a snapshot.
    pub async fn open_with(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        pepper: Pepper,
        stale_after: Duration,
    ) -> Result<Self, KeyError> {
        let ring = Self(Arc::new(Inner {
            store,
            clock,
            hash_key: Zeroizing::new(blake3::derive_key(HASH_CONTEXT, pepper.expose())),
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            confirmed_at: AtomicI64::new(i64::MIN),
            confirmed_after: AtomicU64::new(0),
            started: Instant::now(),
            stale_after,
            refreshing: tokio::sync::Mutex::new(()),
            #[cfg(test)]
            comparisons: AtomicU64::new(0),
        }));
        ring.refresh().await?;
        Ok(ring)
    }

    /// Makes a key. Its text is in the result and nowhere else.
    pub async fn create(&self, request: KeyRequest) -> Result<CreatedKey, KeyError> {
        for _ in 0..ATTEMPTS {
            let (id, secret) = generate().map_err(|e| KeyError::Internal(format!("the system gives no random numbers: {e}")))?;
            let defect = || KeyError::Internal("a new key does not have the shape of a key".to_owned());
            let id = key_id(&id).ok_or_else(defect)?;
            let hash = self.hash(KeyText::parse(secret.expose()).ok_or_else(defect)?.hashed);
            let record = request.clone().into_record(id, self.0.clock.now())?;
            let stored = StoredKey::new(record, &hash);
            let written = self.0.store.put_if_absent(NAMESPACE, stored.record.id.as_str(), &stored.encode()?, None).await?;
            if written.is_some() {
                self.refresh().await?;
                return Ok(CreatedKey { record: stored.record, secret });
            }
        }
        Err(KeyError::Internal("no unused key id was found; the random numbers of this system are not random".to_owned()))
    }

    /// Every key, by id. Fails when one cannot be read, naming it; the others are then in [`KeyRing::show`].
    pub async fn list(&self) -> Result<Vec<KeyRecord>, KeyError> {
        let mut records = Vec::new();
        self.each(|id, stored| {
            records.push(stored.map_err(|detail| KeyError::Unreadable { id: id.to_owned(), detail })?.record);
            Ok(())
        })
        .await?;
        Ok(records)
    }

    /// One key.
    pub async fn show(&self, id: &str) -> Result<KeyRecord, KeyError> {
        Ok(self.read(id).await?.1.map_err(|detail| KeyError::Unreadable { id: id.to_owned(), detail })?.record)
    }

    /// Takes a key back; the record stays, so that audit records can be read. Revoking twice changes nothing. A
    /// record that cannot be read is removed and `None` returned.
    pub async fn revoke(&self, id: &str) -> Result<Option<KeyRecord>, KeyError> {
        for _ in 0..ATTEMPTS {
            let (version, stored) = self.read(id).await?;
            let Ok(mut stored) = stored else {
                self.0.store.delete(NAMESPACE, id).await?;
                self.refresh().await?;
                return Ok(None);
            };
            if stored.record.revoked_at.is_some() {
                return Ok(Some(stored.record));
            }
            stored.record.revoked_at = Some(self.0.clock.now());
            let swapped = self.0.store.compare_and_swap(NAMESPACE, id, version, &stored.encode()?, None).await?;
            if swapped.is_some() {
                self.refresh().await?;
                return Ok(Some(stored.record));
            }
        }
        Err(KeyError::Contended(id.to_owned()))
    }

    /// Asks the store whether anything changed and loads the keys when it did. On an error the snapshot stays and
    /// ages; see [`RefusalReason::StoreUnreachable`].
    pub async fn refresh(&self) -> Result<Refreshed, KeyError> {
        let _one_at_a_time = self.0.refreshing.lock().await;
        // Taken before asking: what the store says is at least as new as this.
        let asked = (self.0.clock.now(), self.0.started.elapsed());
        // Read before the keys: a change in between is seen by the next refresh.
        let counter = self.0.store.change_counter(NAMESPACE).await?;
        let changed = self.0.snapshot.load().counter != Some(counter);
        if changed {
            let mut snapshot = Snapshot { counter: Some(counter), ..Snapshot::default() };
            self.each(|id, stored| {
                match stored.and_then(|s| known(&s)) {
                    Ok((bytes, key)) => {
                        snapshot.keys.insert(bytes, key);
                    }
                    Err(_) => snapshot.unreadable.push(id.to_owned()),
                }
                Ok(())
            })
            .await?;
            self.0.snapshot.store(Arc::new(snapshot));
        }
        self.0.confirmed_at.store(asked.0.as_nanos(), Ordering::Release);
        self.0.confirmed_after.store(u64::try_from(asked.1.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        let snapshot = self.0.snapshot.load();
        Ok(Refreshed { changed, keys: snapshot.keys.len(), unreadable: snapshot.unreadable.clone() })
    }

    /// Refreshes for ever, `every` so often; the server spawns it and tells the operator through `report`.
    pub async fn keep_fresh(self, every: Duration, report: impl Fn(Result<Refreshed, KeyError>) + Send) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            report(self.refresh().await);
        }
    }

    /// Whether the store has been silent for so long that nobody is verified.
    pub fn is_stale(&self) -> bool {
        let inner = &*self.0;
        let confirmed = Timestamp::from_nanos(inner.confirmed_at.load(Ordering::Acquire));
        let since = Duration::from_nanos(inner.confirmed_after.load(Ordering::Acquire));
        inner.clock.now().since(confirmed) > inner.stale_after
            || inner.started.elapsed().saturating_sub(since) > inner.stale_after
    }

    /// Who presents this key. Never waits, never allocates on success.
    ///
    /// An id that does not exist costs the same hash and the same comparison as a wrong secret and is refused with
    /// the same reason. Expiry and revocation are told only to somebody who has the whole key.
    pub fn verify(&self, presented: &str) -> Result<Arc<Principal>, IdentityRefusal> {
        let text = KeyText::parse(presented).ok_or_else(|| IdentityRefusal::new(RefusalReason::Malformed))?;
        if self.is_stale() {
            return Err(IdentityRefusal::new(RefusalReason::StoreUnreachable));
        }
        let presented = self.hash(text.hashed);
        let snapshot = self.0.snapshot.load();
        let known = snapshot.keys.get(&text.id);
        let expected = known.map_or(&[0; 32], |k| &k.hash);
        #[cfg(test)]
        self.0.comparisons.fetch_add(1, Ordering::Relaxed);
        let matches = presented.as_bytes().ct_eq(expected) & Choice::from(u8::from(known.is_some()));
        let Some(known) = known.filter(|_| bool::from(matches)) else {
            return Err(IdentityRefusal::new(RefusalReason::UnknownKey));
        };
        let refused = |reason| Err(IdentityRefusal::of_key(reason, key_id(&text.id)));
        if known.revoked {
            return refused(RefusalReason::Revoked);
        }
        if known.expires_at.is_some_and(|at| at <= self.0.clock.now()) {
            return refused(RefusalReason::Expired);
        }
        Ok(Arc::clone(&known.principal))
    }

    fn hash(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0.hash_key, text)
    }

    async fn read(&self, id: &str) -> Result<(u64, Result<StoredKey, String>), KeyError> {
        let shaped = KeyId::new(id).map_err(|_| KeyError::NotFound(id.chars().take(40).filter(|c| !c.is_control()).collect()))?;
        let entry = self.0.store.get(NAMESPACE, shaped.as_str()).await?;
        let entry = entry.ok_or_else(|| KeyError::NotFound(id.to_owned()))?;
        Ok((entry.version, StoredKey::decode(&entry.key, &entry.value)))
    }

    async fn each(&self, mut take: impl FnMut(&str, Result<StoredKey, String>) -> Result<(), KeyError>) -> Result<(), KeyError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.0.store.list_after(NAMESPACE, "", after.as_deref(), PAGE).await?;
            for entry in &page.entries {
                take(&entry.key, StoredKey::decode(&entry.key, &entry.value))?;
            }
            after = page.entries.last().map(|e| e.key.clone());
            if !page.more {
                return Ok(());
            }
        }
    }
}

fn known(stored: &StoredKey) -> Result<(IdBytes, Known), String> {
    let record = &stored.record;
    let id = record.id.as_str().as_bytes().try_into().map_err(|_| "its id has the wrong length".to_owned())?;
    let principal = record.principal().ok_or("its id does not make a principal")?;
    let key = Known {
        hash: *stored.hash()?.as_bytes(),
        expires_at: record.expires_at,
        revoked: record.revoked_at.is_some(),
        principal: Arc::new(principal),
    };
    Ok((id, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{SystemClock, TenantId};
    use portcullis_state::MemoryStore;

    #[tokio::test]
    async fn an_unknown_id_takes_the_road_of_a_wrong_secret() {
        let clock = Arc::new(SystemClock);
        let ring = KeyRing::open(Arc::new(MemoryStore::new(clock.clone())), clock, Pepper::in_memory().unwrap()).await.unwrap();
        let stranger = generate().unwrap().1;
        let unknown = ring.verify(stranger.expose()).unwrap_err();
        assert_eq!(ring.0.comparisons.load(Ordering::Relaxed), 1);
        ring.create(KeyRequest::new("x", "reader", TenantId::default_tenant())).await.unwrap();
        let mut snapshot = Snapshot::default();
        let id = KeyText::parse(stranger.expose()).unwrap().id;
        let stored = ring.0.snapshot.load_full();
        let some = stored.keys.values().next().unwrap();
        let other = Known { hash: some.hash, expires_at: None, revoked: false, principal: some.principal.clone() };
        snapshot.keys.insert(id, other);
        ring.0.snapshot.store(Arc::new(snapshot));
        let wrong_secret = ring.verify(stranger.expose()).unwrap_err();
        assert_eq!(ring.0.comparisons.load(Ordering::Relaxed), 2);
        assert_eq!(unknown, wrong_secret, "the caller cannot tell which it was");
    }
}

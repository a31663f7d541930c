//! The API keys verified against a snapshot in memory; what is done to them is in `keeper`.
//!
//! Verifying never waits. A snapshot that was not confirmed by the store for too long verifies nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use portcullis_model::{Clock, KeyId, Principal, Timestamp};
use portcullis_state::{Store, StoreError};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

use crate::Pepper;
use crate::format::{ChosenText, IdBytes, KeyText, key_id};
use crate::keeper::NAMESPACE;
use crate::password::{Passwords, SecretHash};
use crate::refusal::{IdentityRefusal, RefusalReason};
use crate::stored::{Comparable, StoredKey};
use crate::usage::Usage;

/// How long a snapshot is trusted without word from the store.
pub const DEFAULT_STALE_AFTER: Duration = Duration::from_secs(5);

/// Domain of the key hash; changing it makes every key unknown.
const HASH_CONTEXT: &str = "portcullis 2026-11-20 API key hash v1";
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

impl KeyError {
    pub(crate) fn no_random_numbers(error: rand::rngs::SysError) -> Self {
        Self::Internal(format!("the system gives no random numbers: {error}"))
    }

    pub(crate) fn no_unused_id() -> Self {
        Self::Internal("no unused key id was found; the random numbers of this system are not random".to_owned())
    }
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

/// Which secret of a key somebody came in with, so that it can be asked later whether that one still counts. It is a digest
/// of the kept hash, and good for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecretMark([u8; 16]);

impl SecretMark {
    fn of(kept: &[u8]) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::derive_key("portcullis 2026-11-29 mark of a key's secret", kept)[..16]);
        Self(short)
    }
}

/// A secret and the first instant at which it is no longer valid.
struct Ending<T> {
    value: T,
    ends_at: Option<Timestamp>,
    mark: SecretMark,
}

impl<T> Ending<T> {
    fn is_over(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }
}

struct Known {
    keyed: Vec<Ending<[u8; 32]>>,
    chosen: Vec<Ending<SecretHash>>,
    from: Vec<IpNet>,
    usage: Arc<Usage>,
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
    passwords: Arc<Passwords>,
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
        let passwords = Passwords::new(clock.clone()).map_err(|e| KeyError::Internal(e.to_string()))?;
        let ring = Self(Arc::new(Inner {
            store,
            clock,
            passwords: Arc::new(passwords),
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
            let before = self.0.snapshot.load_full();
            self.each(|id, stored| {
                match stored.and_then(|s| known(&s, &before)) {
                    Ok((bytes, key)) => {
                        snapshot.keys.insert(bytes, key);
                    }
                    Err(_) => snapshot.unreadable.push(id.to_owned()),
                }
                Ok(())
            })
            .await?;
            for key in snapshot.keys.values() {
                self.0.passwords.as_many_as(key.chosen.len());
                for hash in &key.chosen {
                    self.0.passwords.cost_as(&hash.value).map_err(|e| KeyError::Internal(e.to_string()))?;
                }
            }
            self.0.snapshot.store(Arc::new(snapshot));
        }
        self.0.confirmed_at.store(asked.0.as_nanos(), Ordering::Release);
        self.0.confirmed_after.store(u64::try_from(asked.1.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        let snapshot = self.0.snapshot.load();
        Ok(Refreshed { changed, keys: snapshot.keys.len(), unreadable: snapshot.unreadable.clone() })
    }

    /// Refreshes for ever, `every` so often, and writes when keys were used; the server spawns it and tells the operator
    /// through `report`.
    pub async fn keep_fresh(self, every: Duration, report: impl Fn(Result<Refreshed, KeyError>) + Send) {
        let ticking = || {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let refreshing = async {
            let mut ticks = ticking();
            loop {
                ticks.tick().await;
                report(self.refresh().await);
            }
        };
        // Beside the refreshing: a slow write must not delay a revocation.
        let noting = async {
            let mut ticks = ticking();
            loop {
                ticks.tick().await;
                if let Err(error) = self.write_usage().await {
                    tracing::warn!(%error, "when keys were last used could not be written");
                }
            }
        };
        tokio::join!(refreshing, noting);
    }

    /// Writes when keys were last used, as far as it is time. Returns how many were written.
    ///
    /// # Errors
    /// The store failed; what was not written is written next time.
    pub async fn write_usage(&self) -> Result<usize, KeyError> {
        let due: Vec<_> = {
            let snapshot = self.0.snapshot.load();
            let used = |(id, key): (&IdBytes, &Known)| Some((key_id(id)?, Arc::clone(&key.usage), key.usage.due()?));
            snapshot.keys.iter().filter_map(used).collect()
        };
        for (id, usage, at) in &due {
            usage.write(self.store(), id.as_str(), *at).await?;
        }
        Ok(due.len())
    }

    /// Whether the store has been silent for so long that nobody is verified.
    pub fn is_stale(&self) -> bool {
        let inner = &*self.0;
        let confirmed = Timestamp::from_nanos(inner.confirmed_at.load(Ordering::Acquire));
        let since = Duration::from_nanos(inner.confirmed_after.load(Ordering::Acquire));
        inner.clock.now().since(confirmed) > inner.stale_after
            || inner.started.elapsed().saturating_sub(since) > inner.stale_after
    }

    /// Whether the key of this id would still be accepted from somebody who has this secret of it: known, not taken back,
    /// not over, not replaced for longer than the overlap, and confirmed by the store lately.
    pub(crate) fn is_good(&self, id: &KeyId, secret: Option<SecretMark>) -> bool {
        let Ok(bytes) = IdBytes::try_from(id.as_str().as_bytes()) else { return false };
        let (snapshot, now) = (self.0.snapshot.load(), self.now());
        let counts = |key: &Known, mark| {
            key.keyed.iter().any(|secret| secret.mark == mark && !secret.is_over(now))
                || key.chosen.iter().any(|secret| secret.mark == mark && !secret.is_over(now))
        };
        let good = |key: &Known| {
            !key.revoked && key.expires_at.is_none_or(|at| now < at) && secret.is_some_and(|mark| counts(key, mark))
        };
        !self.is_stale() && snapshot.keys.get(&bytes).is_some_and(good)
    }

    /// Who presents this generated key from this address. Never waits, never allocates on success. For tests and benchmarks of
    /// the ring: a server asks [`Identity`](crate::Identity), which asks the ring and counts who guesses.
    ///
    /// An id that does not exist costs the same hash and the same comparison as a wrong secret and is refused with
    /// the same reason. Expiry, revocation and networks are told only to somebody who has the whole key.
    ///
    /// # Errors
    /// Why nobody is let in.
    pub fn verify(&self, presented: &str, from: Option<IpAddr>) -> Result<Arc<Principal>, IdentityRefusal> {
        self.accept(presented, from).map(|(principal, _)| principal)
    }

    /// The same, with the secret it was.
    pub(crate) fn accept(&self, presented: &str, from: Option<IpAddr>) -> Result<(Arc<Principal>, SecretMark), IdentityRefusal> {
        let text = KeyText::parse(presented).ok_or_else(|| IdentityRefusal::new(RefusalReason::Malformed))?;
        if self.is_stale() {
            return Err(IdentityRefusal::new(RefusalReason::StoreUnreachable));
        }
        let now = self.now();
        let presented = self.hash(text.hashed);
        let snapshot = self.0.snapshot.load();
        let known = snapshot.keys.get(&text.id);
        #[cfg(test)]
        self.0.comparisons.fetch_add(1, Ordering::Relaxed);
        // Always one comparison, so that a key without a generated secret looks like no key.
        let mut matches = presented.as_bytes().ct_eq(&[0; 32]) & Choice::from(0);
        let mut mark = SecretMark::default();
        for secret in known.iter().flat_map(|key| &key.keyed) {
            let fits = presented.as_bytes().ct_eq(&secret.value) & Choice::from(u8::from(!secret.is_over(now)));
            matches |= fits;
            for (to, from) in mark.0.iter_mut().zip(&secret.mark.0) {
                to.conditional_assign(from, fits);
            }
        }
        match known.filter(|_| bool::from(matches)) {
            Some(known) => known.admit(&text.id, from, now).map(|principal| (principal, mark)),
            None => Err(IdentityRefusal::new(RefusalReason::UnknownKey)),
        }
    }

    /// Who presents this key with a chosen secret from this address. Waits for its turn to verify, unless the same was
    /// right in the last minutes. For tests and benchmarks, and everything else as in [`KeyRing::verify`].
    ///
    /// # Errors
    /// Why nobody is let in.
    pub async fn verify_chosen(&self, presented: &str, from: Option<IpAddr>) -> Result<Arc<Principal>, IdentityRefusal> {
        self.accept_chosen(presented, from).await.map(|(principal, _)| principal)
    }

    /// The same, with the secret it was.
    pub(crate) async fn accept_chosen(
        &self,
        presented: &str,
        from: Option<IpAddr>,
    ) -> Result<(Arc<Principal>, SecretMark), IdentityRefusal> {
        let text = ChosenText::parse(presented).ok_or_else(|| IdentityRefusal::new(RefusalReason::Malformed))?;
        if self.is_stale() {
            return Err(IdentityRefusal::new(RefusalReason::StoreUnreachable));
        }
        let (hashes, marks): (Vec<SecretHash>, Vec<SecretMark>) = {
            let (snapshot, now) = (self.0.snapshot.load(), self.now());
            let secrets = snapshot.keys.get(&text.id).into_iter().flat_map(|key| &key.chosen);
            secrets.filter(|secret| !secret.is_over(now)).map(|secret| (secret.value.clone(), secret.mark)).unzip()
        };
        let fits = self.0.passwords.verify(&hashes, text.secret).await;
        let index = fits.map_err(|_| IdentityRefusal::new(RefusalReason::Busy))?;
        let Some(mark) = index.and_then(|index| marks.get(index).copied()) else {
            return Err(IdentityRefusal::new(RefusalReason::UnknownKey));
        };
        // Asked anew: the key may have been taken back while we waited.
        match self.0.snapshot.load().keys.get(&text.id) {
            Some(known) => known.admit(&text.id, from, self.now()).map(|principal| (principal, mark)),
            None => Err(IdentityRefusal::new(RefusalReason::UnknownKey)),
        }
    }

    pub(crate) fn hash(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0.hash_key, text)
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// What verifies chosen secrets; shared, so that the bound is one for all.
    pub(crate) fn passwords(&self) -> &Arc<Passwords> {
        &self.0.passwords
    }
}

impl Known {
    /// What is left to check once the secret is proven.
    fn admit(&self, id: &IdBytes, from: Option<IpAddr>, now: Timestamp) -> Result<Arc<Principal>, IdentityRefusal> {
        let refused = |reason| Err(IdentityRefusal::of_key(reason, key_id(id)));
        if self.revoked {
            return refused(RefusalReason::Revoked);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return refused(RefusalReason::Expired);
        }
        // An address that is not known is in no network.
        let near = |address: IpAddr| self.from.iter().any(|network| network.contains(&address.to_canonical()));
        if !self.from.is_empty() && !from.is_some_and(near) {
            return refused(RefusalReason::WrongAddress);
        }
        self.usage.note(now);
        Ok(Arc::clone(&self.principal))
    }
}

fn known(stored: &StoredKey, before: &Snapshot) -> Result<(IdBytes, Known), String> {
    let record = &stored.record;
    let id: IdBytes = record.id.as_str().as_bytes().try_into().map_err(|_| "its id has the wrong length".to_owned())?;
    let principal = record.principal().ok_or("its id does not make a principal")?;
    let (mut keyed, mut chosen) = (Vec::new(), Vec::new());
    for secret in &stored.secrets {
        let ends_at = secret.ends_at;
        match secret.comparable()? {
            Comparable::Keyed(value) => keyed.push(Ending { mark: SecretMark::of(&value), value, ends_at }),
            Comparable::Chosen(value) => chosen.push(Ending { mark: SecretMark::of(value.as_str().as_bytes()), value, ends_at }),
        }
    }
    let key = Known {
        keyed,
        chosen,
        from: record.from.iter().copied().collect(),
        usage: before.keys.get(&id).map(|key| Arc::clone(&key.usage)).unwrap_or_default(),
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
        let stranger = crate::format::generate(b"abcdefghij").unwrap();
        let unknown = ring.verify(stranger.expose(), None).unwrap_err();
        assert_eq!(ring.0.comparisons.load(Ordering::Relaxed), 1);
        ring.create(crate::KeyRequest::new("x", "reader", TenantId::default_tenant())).await.unwrap();
        let mut snapshot = Snapshot::default();
        let id = KeyText::parse(stranger.expose()).unwrap().id;
        let stored = ring.0.snapshot.load_full();
        let some = stored.keys.values().next().unwrap();
        let other = Known {
            keyed: vec![Ending { value: some.keyed[0].value, ends_at: None, mark: some.keyed[0].mark }],
            chosen: Vec::new(),
            from: Vec::new(),
            usage: Arc::default(),
            expires_at: None,
            revoked: false,
            principal: some.principal.clone(),
        };
        snapshot.keys.insert(id, other);
        ring.0.snapshot.store(Arc::new(snapshot));
        let wrong_secret = ring.verify(stranger.expose(), None).unwrap_err();
        assert_eq!(ring.0.comparisons.load(Ordering::Relaxed), 2);
        assert_eq!(unknown, wrong_secret, "the caller cannot tell which it was");
    }
}

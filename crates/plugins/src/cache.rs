//! The cache of one plugin. Guards that nothing kept in a call of one principal is seen in another's: the key of a place
//! holds tenant, principal, product and scope. Bounded in bytes per scope and in scopes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_policy::Permit;

use crate::Digest;

/// Most scopes kept at once.
const MOST_SCOPES: usize = 256;
/// What an entry costs besides its bytes.
const OVERHEAD: u64 = 64;
/// Longest key.
const MOST_KEY: usize = 512;
const MOST_SECONDS: u32 = 24 * 3_600;

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CacheScope(Digest);

impl CacheScope {
    pub(crate) fn of(permit: &Permit) -> Self {
        let scope = serde_json::to_string(permit.scope()).unwrap_or_default();
        let product = permit.product().map_or("", |product| product);
        Self(Digest::of(format!("{}\n{product}\n{scope}", permit.principal_id()).as_bytes()))
    }
}

#[derive(Debug)]
struct Entry {
    value: Arc<[u8]>,
    until: Instant,
    used: u64,
}

#[derive(Debug, Default)]
struct Place {
    entries: HashMap<String, Entry>,
    bytes: u64,
    used: u64,
}

fn cost(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + OVERHEAD
}

impl Place {
    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= cost(key, &entry.value);
        }
    }

    fn oldest(&self) -> Option<String> {
        self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())
    }
}

/// The places of one plugin.
#[derive(Debug)]
pub(crate) struct PluginCache {
    most: u64,
    places: Mutex<(u64, BTreeMap<CacheScope, Place>)>,
}

impl PluginCache {
    /// With `most` bytes per scope.
    pub(crate) fn new(most: u64) -> Self {
        Self { most, places: Mutex::default() }
    }

    pub(crate) fn get(&self, scope: CacheScope, key: &str) -> Option<Arc<[u8]>> {
        let mut guard = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let (clock, places) = &mut *guard;
        *clock += 1;
        let place = places.get_mut(&scope)?;
        place.used = *clock;
        let entry = place.entries.get_mut(key)?;
        if entry.until <= Instant::now() {
            place.remove(key);
            return None;
        }
        entry.used = *clock;
        Some(entry.value.clone())
    }

    /// `false` when it is too large to be kept.
    pub(crate) fn set(&self, scope: CacheScope, key: &str, value: &[u8], seconds: u32) -> bool {
        let price = cost(key, value);
        if key.len() > MOST_KEY || price > self.most || seconds == 0 {
            return false;
        }
        let until = Instant::now() + Duration::from_secs(u64::from(seconds.min(MOST_SECONDS)));
        let mut guard = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let (clock, places) = &mut *guard;
        *clock += 1;
        if !places.contains_key(&scope) && places.len() >= MOST_SCOPES {
            let oldest = places.iter().min_by_key(|(_, place)| place.used).map(|(scope, _)| *scope);
            oldest.map(|scope| places.remove(&scope));
        }
        let place = places.entry(scope).or_default();
        place.used = *clock;
        place.remove(key);
        while place.bytes + price > self.most {
            let Some(oldest) = place.oldest() else { break };
            place.remove(&oldest);
        }
        place.entries.insert(key.to_owned(), Entry { value: value.into(), until, used: *clock });
        place.bytes += price;
        true
    }

    pub(crate) fn delete(&self, scope: CacheScope, key: &str) {
        let mut guard = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = guard.1.get_mut(&scope) {
            place.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str) -> CacheScope {
        CacheScope(Digest::of(name.as_bytes()))
    }

    #[test]
    fn scopes_do_not_see_each_other() {
        let cache = PluginCache::new(1_000);
        assert!(cache.set(scope("a"), "k", b"of a", 60));
        assert_eq!(cache.get(scope("b"), "k"), None);
        assert!(cache.set(scope("b"), "k", b"of b", 60));
        assert_eq!(cache.get(scope("a"), "k").as_deref(), Some(b"of a".as_slice()));
        cache.delete(scope("b"), "k");
        assert_eq!((cache.get(scope("b"), "k"), cache.get(scope("a"), "k").is_some()), (None, true));
    }

    #[test]
    fn bytes_and_scopes_are_bounded_and_the_oldest_goes_first() {
        let cache = PluginCache::new(1_000);
        assert!(!cache.set(scope("a"), "k", &[0; 1_000], 60));
        assert!(!cache.set(scope("a"), &"k".repeat(600), b"", 60));
        for at in 0..100 {
            assert!(cache.set(scope("a"), &format!("k{at}"), &[0; 30], 60));
            assert!(at < 1 || cache.get(scope("a"), "k0").is_some() || at > 8);
        }
        let guard = cache.places.lock().unwrap();
        let place = &guard.1[&scope("a")];
        let bytes: u64 = place.entries.iter().map(|(key, entry)| cost(key, &entry.value)).sum();
        assert!(place.bytes == bytes && bytes <= 1_000 && place.entries.contains_key("k99"));
        drop(guard);
        for at in 0..MOST_SCOPES + 10 {
            cache.set(scope(&at.to_string()), "k", b"v", 60);
        }
        assert_eq!(cache.places.lock().unwrap().1.len(), MOST_SCOPES);
        assert_eq!(cache.get(scope("a"), "k99"), None);
    }
}

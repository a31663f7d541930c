//! Answers of a backend kept for a short while. Guards memory (bounded) and truth (they expire). Must not hold data of
//! one principal where another can get it: keys contain the whole selector that was asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A small map whose entries expire.
#[derive(Debug)]
pub(crate) struct Remembered<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
    keep: Duration,
    capacity: usize,
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    pub(crate) fn new(keep: Duration, capacity: usize) -> Self {
        Self { entries: Mutex::new(HashMap::new()), keep, capacity }
    }

    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= self.capacity {
            entries.clear();
        }
        entries.insert(key, (now + self.keep, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_and_stay_few() {
        let kept = Remembered::new(Duration::from_secs(10), 3);
        let now = Instant::now();
        kept.put("a", 1, now);
        assert_eq!(kept.get(&"a", now), Some(1));
        assert_eq!(kept.get(&"a", now + Duration::from_secs(10)), None);
        for key in ["b", "c", "d", "e"] {
            kept.put(key, 2, now);
        }
        assert!(kept.entries.lock().unwrap().len() <= 3);
    }
}

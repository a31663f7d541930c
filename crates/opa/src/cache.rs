//! Decisions for a short time. Guards that an entry past its time is never used, that no failure is kept, and that memory
//! is bounded. An entry that is gone means asking again, never a refusal.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::Timestamp;
use portcullis_policy::ExternalDecision;

type Key = [u8; 32];

pub(crate) struct Cache {
    entries: usize,
    ttl: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    decisions: HashMap<Key, (ExternalDecision, Timestamp)>,
    /// Oldest first.
    order: VecDeque<Key>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.entries).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Cache {
    pub(crate) fn new(entries: usize, ttl: Duration) -> Self {
        Self { entries, ttl, kept: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &Key, now: Timestamp) -> Option<ExternalDecision> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (decision, at) = kept.decisions.get(key)?;
        // A clock that was set back makes an entry old, not young.
        (now >= *at && now.since(*at) < self.ttl).then(|| decision.clone())
    }

    pub(crate) fn put(&self, key: Key, decision: &ExternalDecision, at: Timestamp) {
        if self.entries == 0 || self.ttl.is_zero() || matches!(decision, ExternalDecision::Unavailable { .. }) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.decisions.insert(key, (decision.clone(), at)).is_none() {
            kept.order.push_back(key);
            if kept.order.len() > self.entries
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.decisions.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_and_are_bounded_and_failures_are_not_kept() {
        let cache = Cache::new(3, Duration::from_secs(5));
        let at = Timestamp::from_seconds;
        cache.put([1; 32], &ExternalDecision::Allow, at(10));
        assert_eq!(cache.get(&[1; 32], at(14)), Some(ExternalDecision::Allow));
        assert_eq!(cache.get(&[1; 32], at(15)), None);
        assert_eq!(cache.get(&[1; 32], at(9)), None);
        cache.put([2; 32], &ExternalDecision::Unavailable { reason: "x".into() }, at(10));
        assert_eq!(cache.get(&[2; 32], at(10)), None);
        for index in 3..=9 {
            cache.put([index; 32], &ExternalDecision::Allow, at(10));
        }
        assert_eq!(cache.get(&[1; 32], at(10)), None);
        assert_eq!(cache.get(&[9; 32], at(10)), Some(ExternalDecision::Allow));
        assert_eq!(cache.kept.lock().unwrap().decisions.len(), 3);
        let off = Cache::new(3, Duration::ZERO);
        off.put([1; 32], &ExternalDecision::Allow, at(10));
        assert_eq!(off.get(&[1; 32], at(10)), None);
    }
}

//! Token buckets by key (GCRA, by `governor`), with bounded memory: buckets that are full again are forgotten.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{NotUntil, Quota, RateLimiter};

use super::settings::Rate;

/// Full buckets are swept out every so many checks.
const SWEEP_EVERY: u32 = 4_096;

/// One family of buckets.
pub(super) struct Buckets<K: Hash + Eq + Clone, C: Clock> {
    limiter: RateLimiter<K, DefaultKeyedStateStore<K>, C, StateInformationMiddleware>,
    clock: C,
    checks: AtomicU32,
    rate: Rate,
}

impl<K: Hash + Eq + Clone, C: Clock> Debug for Buckets<K, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// What is left after one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub burst: u32,
    pub remaining: u32,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Buckets<K, C> {
    pub(super) fn new(rate: Rate, clock: C) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let store = DefaultKeyedStateStore::default();
        let limiter = RateLimiter::<K, _, C, StateInformationMiddleware>::new(quota, store, clock.clone());
        Self { limiter, clock, checks: AtomicU32::new(0), rate }
    }

    /// Takes one, or says in how many whole seconds (at least one) the next may be taken.
    pub(super) fn take(&self, key: &K) -> Result<Left, u64> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(key) {
            Ok(state) => Ok(Left { burst: self.rate.burst.get(), remaining: state.remaining_burst_capacity() }),
            Err(not_until) => Err(self.seconds(&not_until)),
        }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    fn seconds(&self, not_until: &NotUntil<C::Instant>) -> u64 {
        let wait = not_until.wait_time_from(self.clock.now());
        (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.limiter.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::time::Duration;

    #[test]
    fn full_buckets_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::new(Rate::new(1, 2), clock.clone());
        for key in 0..SWEEP_EVERY - 1 {
            buckets.take(&key).unwrap();
        }
        assert_eq!(buckets.known(), SWEEP_EVERY as usize - 1);
        clock.advance(Duration::from_secs(10));
        buckets.take(&u32::MAX).unwrap();
        assert!(buckets.known() <= 1, "{}", buckets.known());
    }

    #[test]
    fn what_is_left_is_told() {
        let buckets = Buckets::new(Rate::new(1, 3), FakeRelativeClock::default());
        let left: Vec<u32> = (0..3).map(|_| buckets.take(&"k").unwrap().remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        assert_eq!(buckets.take(&"k"), Err(1));
    }
}

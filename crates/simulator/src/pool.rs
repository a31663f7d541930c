//! A database connection pool, simulated connection by connection.
//!
//! Guards that waits, timeouts and the pool metrics all follow from the same list of borrowed connections. It must
//! not know why a connection is kept.

use crate::random::{Dice, MILLISECOND};

/// What came of asking for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// Connection `slot` is ours from `at` on, nanoseconds.
    Granted { slot: usize, at: i64 },
    /// Nothing was free until `at`, nanoseconds.
    TimedOut { at: i64 },
}

/// A pool of one process.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// `pool.name` in the telemetry.
    pub(crate) name: &'static str,
    /// When each connection is free again, nanoseconds.
    free_at: Vec<i64>,
    /// Who waited from when to when.
    waits: Vec<(i64, i64)>,
    /// Most connections ever open at once.
    opened: usize,
}

/// Connections kept open even when idle.
const MINIMUM_OPEN: usize = 4;

impl Pool {
    /// `size` connections, all free.
    pub(crate) fn new(name: &'static str, size: usize) -> Self {
        Self { name, free_at: vec![i64::MIN; size], waits: Vec::new(), opened: MINIMUM_OPEN.min(size) }
    }

    /// Most connections it may open.
    pub(crate) fn size(&self) -> usize {
        self.free_at.len()
    }

    /// Connections borrowed at `at`.
    pub(crate) fn used(&self, at: i64) -> usize {
        self.free_at.iter().filter(|&&free| free > at).count()
    }

    /// Connections open and not borrowed at `at`.
    pub(crate) fn idle(&self, at: i64) -> usize {
        self.opened.saturating_sub(self.used(at))
    }

    /// Callers waiting at `at`.
    pub(crate) fn waiting(&self, at: i64) -> usize {
        self.waits.iter().filter(|(from, to)| *from <= at && at < *to).count()
    }

    /// Asks at `at` and waits at most `patience` nanoseconds. The fuller the pool, the longer it takes: first the
    /// callers fight for the last few connections, and when there is none they queue for the next to be returned.
    pub(crate) fn acquire(&mut self, dice: &mut Dice, at: i64, patience: i64) -> Acquired {
        let used = self.used(at);
        self.opened = self.opened.max((used + 1).min(self.size()));
        let share = used as f64 / self.size().max(1) as f64;
        let contention = if share > 0.5 {
            let pressure = share / (1.02 - share);
            dice.duration(0.6 * pressure * pressure, 0.5)
        } else {
            dice.duration(0.05, 0.4)
        };
        let next = self.free_at.iter().copied().enumerate().min_by_key(|(_, free)| *free);
        let granted = next.map(|(slot, free)| (slot, free.max(at).saturating_add(contention)));
        let limit = at + patience.max(MILLISECOND);
        match granted {
            Some((slot, ready)) if ready <= limit => {
                self.waits.push((at, ready));
                Acquired::Granted { slot, at: ready }
            }
            _ => {
                self.waits.push((at, limit));
                Acquired::TimedOut { at: limit }
            }
        }
    }

    /// Connection `slot` comes back at `at`.
    pub(crate) fn release(&mut self, slot: usize, at: i64) {
        if let Some(free) = self.free_at.get_mut(slot) {
            *free = at;
        }
    }

    /// Forgets waits that were over before `at`.
    pub(crate) fn forget_before(&mut self, at: i64) {
        self.waits.retain(|(_, to)| *to > at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_pool_times_out_and_recovers() {
        let (mut pool, mut dice) = (Pool::new("stock", 3), Dice::new(1, 0));
        let second = 1_000 * MILLISECOND;
        for _ in 0..3 {
            let Acquired::Granted { slot, .. } = pool.acquire(&mut dice, 0, 100 * second) else { panic!("refused") };
            pool.release(slot, 60 * second);
        }
        assert_eq!((pool.used(second), pool.idle(second)), (3, 0));
        assert_eq!(pool.acquire(&mut dice, second, 2 * second), Acquired::TimedOut { at: 3 * second });
        assert_eq!((pool.waiting(2 * second), pool.waiting(4 * second)), (1, 0));
        assert!(matches!(pool.acquire(&mut dice, 61 * second, 2 * second), Acquired::Granted { .. }));
        pool.forget_before(100 * second);
        assert!(pool.waits.is_empty());
    }

    #[test]
    fn waiting_grows_with_use() {
        let mean_wait = |borrowed: usize| {
            let (mut pool, mut dice) = (Pool::new("stock", 20), Dice::new(3, 0));
            for slot in 0..borrowed {
                pool.release(slot, i64::MAX);
            }
            let total: i64 = (0..500)
                .map(|_| match pool.acquire(&mut dice, 0, 60_000 * MILLISECOND) {
                    Acquired::Granted { at, .. } | Acquired::TimedOut { at } => at,
                })
                .sum();
            total / 500
        };
        assert!(mean_wait(0) < MILLISECOND);
        assert!(mean_wait(15) > mean_wait(5) * 10);
        assert!(mean_wait(19) > mean_wait(15) * 10);
    }
}

//! A circuit breaker. Guards a failing backend from being hammered and callers from waiting for it. Must not open
//! because of answers that prove the backend is alive, or because a caller was impatient.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request is on its way to try the backend again.
    HalfOpen,
}

/// Opens after a number of consecutive failures, lets one request through after a while.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    rest: Duration,
    state: Mutex<State>,
    /// Told when a probe has ended, one way or the other.
    settled: Notify,
}

/// Why there is no leave right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    /// Open for this long.
    Open(Duration),
    /// A probe is on its way.
    Probing,
}

/// Leave to send one request. Dropped without a verdict (the caller went away), it changes nothing, except that a
/// probe gives its place to the next request.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    probe: bool,
    settled: bool,
}

impl Breaker {
    /// A closed breaker; a threshold of zero never opens.
    pub(crate) fn new(threshold: u32, rest: Duration) -> Arc<Self> {
        Arc::new(Self { threshold, rest, state: Mutex::new(State::Closed { failures: 0 }), settled: Notify::new() })
    }

    /// Leave to send, or how long the breaker stays open. While a probe is on its way, others wait for its verdict:
    /// refusing them would fail the siblings of the probe in one fan-out, and with them the probe.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Pass, Duration> {
        loop {
            let settled = self.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            match self.try_enter(Instant::now()) {
                Ok(pass) => return Ok(pass),
                Err(Shut::Open(rest)) => return Err(rest),
                Err(Shut::Probing) => settled.await,
            }
        }
    }

    fn try_enter(self: &Arc<Self>, now: Instant) -> Result<Pass, Shut> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => {
                *state = State::HalfOpen;
                true
            }
            State::Open { until } => return Err(Shut::Open(until - now)),
            State::HalfOpen => return Err(Shut::Probing),
        };
        Ok(Pass { breaker: Arc::clone(self), probe, settled: false })
    }

    /// Whether requests are turned away, or one is trying whether they can be sent again.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(*self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Closed { .. })
    }

    fn settle(&self, probe: bool, alive: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match (*state, alive) {
            (_, true) => State::Closed { failures: 0 },
            (State::Closed { failures }, false) if self.threshold == 0 || failures + 1 < self.threshold => {
                State::Closed { failures: failures.saturating_add(1) }
            }
            (State::Closed { .. }, false) => State::Open { until: now + self.rest },
            (State::HalfOpen, false) if probe => State::Open { until: now + self.rest },
            (state, false) => state,
        };
        self.settled.notify_waiters();
    }
}

impl Pass {
    /// The backend answered.
    pub(crate) fn alive(mut self) {
        self.settled = true;
        self.breaker.settle(self.probe, true, Instant::now());
    }

    /// The backend could not be reached or is out of service.
    pub(crate) fn failed(mut self, now: Instant) {
        self.settled = true;
        self.breaker.settle(self.probe, false, now);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            let mut state = self.breaker.state.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::HalfOpen) {
                *state = State::Open { until: Instant::now() };
            }
            self.breaker.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(10);

    fn opened(now: Instant) -> Arc<Breaker> {
        let breaker = Breaker::new(3, REST);
        for _ in 0..3 {
            breaker.try_enter(now).unwrap().failed(now);
        }
        breaker
    }

    #[test]
    fn opens_after_consecutive_failures_only() {
        let now = Instant::now();
        let breaker = Breaker::new(3, REST);
        for _ in 0..5 {
            breaker.try_enter(now).unwrap().failed(now);
            breaker.try_enter(now).unwrap().failed(now);
            breaker.try_enter(now).unwrap().alive();
        }
        assert!(breaker.try_enter(now).is_ok());
        assert_eq!(opened(now).try_enter(now).unwrap_err(), Shut::Open(REST));
    }

    #[test]
    fn one_probe_decides() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + REST;
        let probe = breaker.try_enter(later).unwrap();
        assert_eq!(breaker.try_enter(later).unwrap_err(), Shut::Probing, "only one probe");
        probe.failed(later);
        assert_eq!(breaker.try_enter(later).unwrap_err(), Shut::Open(REST));
        breaker.try_enter(later + REST).unwrap().alive();
        assert!(breaker.try_enter(later).is_ok());
    }

    #[test]
    fn a_dropped_probe_gives_its_place_away() {
        let now = Instant::now();
        let breaker = opened(now);
        drop(breaker.try_enter(now + REST).unwrap());
        assert!(breaker.try_enter(Instant::now() + Duration::from_millis(1)).is_ok());
    }

    #[tokio::test]
    async fn others_wait_for_the_verdict_of_the_probe() {
        for alive in [true, false] {
            let now = Instant::now();
            let breaker = opened(now);
            let probe = breaker.try_enter(now + REST).unwrap();
            let waiting = tokio::spawn({
                let breaker = Arc::clone(&breaker);
                async move { breaker.enter().await.is_ok() }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if alive {
                probe.alive();
            } else {
                probe.failed(Instant::now());
            }
            assert_eq!(waiting.await.unwrap(), alive);
        }
    }

    #[test]
    fn a_threshold_of_zero_never_opens() {
        let now = Instant::now();
        let breaker = Breaker::new(0, REST);
        for _ in 0..100 {
            breaker.try_enter(now).unwrap().failed(now);
        }
        assert!(breaker.try_enter(now).is_ok());
    }
}

//! Admission: how often and how much at once, per principal and in all. One stage, before any work is done.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use portcullis_model::{Fault, FaultCode, PrincipalId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits of the admission stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Calls per second one principal may make in the long run.
    pub calls_per_second: NonZeroU32,
    /// Calls one principal may make at once after a pause.
    pub burst: NonZeroU32,
    /// Calls of one principal in flight.
    pub concurrent_per_principal: u32,
    /// Calls in flight in all.
    pub concurrent: u32,
    /// Longest a call may take.
    pub deadline: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            calls_per_second: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
            burst: NonZeroU32::new(200).unwrap_or(NonZeroU32::MIN),
            concurrent_per_principal: 16,
            concurrent: 128,
            deadline: Duration::from_secs(30),
        }
    }
}

type Rates<C> = RateLimiter<PrincipalId, DefaultKeyedStateStore<PrincipalId>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The admission stage.
#[derive(Debug)]
pub struct Admission<C: Clock = DefaultClock> {
    rates: Rates<C>,
    clock: C,
    slots: Mutex<HashMap<PrincipalId, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    settings: LimitSettings,
}

/// A place in the house; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Admission<DefaultClock> {
    /// Admission by the machine's monotonic clock.
    pub fn new(settings: LimitSettings) -> Self {
        Self::with_clock(settings, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Admission<C> {
    /// Admission by a given clock.
    pub fn with_clock(settings: LimitSettings, clock: C) -> Self {
        let quota = Quota::per_second(settings.calls_per_second).allow_burst(settings.burst);
        Self {
            rates: RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone()),
            clock,
            slots: Mutex::new(HashMap::new()),
            all: Arc::new(Semaphore::new(settings.concurrent as usize)),
            settings,
        }
    }

    /// The limits in force.
    pub fn settings(&self) -> LimitSettings {
        self.settings
    }

    /// Lets one call in, or says when to come back.
    pub(crate) fn admit(&self, principal: &PrincipalId) -> Result<Admitted, Fault> {
        if let Err(not_until) = self.rates.check_key(principal) {
            let wait = not_until.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return Err(Fault::new(
                FaultCode::RateLimited,
                format!("more than {} calls per second; the next one may come in {seconds}s", self.settings.calls_per_second),
            )
            .with_retry_after(seconds.max(1)));
        }
        let busy = |what: &str| Fault::new(FaultCode::RateLimited, format!("{what}; wait for one to finish")).with_retry_after(1);
        let own = self
            .slots_of(principal)
            .try_acquire_owned()
            .map_err(|_| busy(&format!("{} of your calls are already running", self.settings.concurrent_per_principal)))?;
        let all = self.all.clone().try_acquire_owned().map_err(|_| busy("the server is at its limit of running calls"))?;
        Ok(Admitted { _own: own, _all: all })
    }

    fn slots_of(&self, principal: &PrincipalId) -> Arc<Semaphore> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = slots.get(principal) {
            return found.clone();
        }
        // Principals without a running call need no entry; keep the map small.
        if slots.len() >= 10_000 {
            slots.retain(|_, s| Arc::strong_count(s) > 1);
        }
        let made = Arc::new(Semaphore::new(self.settings.concurrent_per_principal as usize));
        slots.insert(principal.clone(), made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    #[test]
    fn a_burst_then_a_steady_rate_per_principal() {
        let clock = FakeRelativeClock::default();
        let settings = LimitSettings {
            calls_per_second: NonZeroU32::new(2).unwrap(),
            burst: NonZeroU32::new(4).unwrap(),
            ..LimitSettings::default()
        };
        let admission = Admission::with_clock(settings, clock.clone());
        for _ in 0..4 {
            admission.admit(&who("key:a")).unwrap();
        }
        let fault = admission.admit(&who("key:a")).unwrap_err();
        assert_eq!((fault.code(), fault.retry_after_seconds()), (FaultCode::RateLimited, Some(1)));
        admission.admit(&who("key:b")).unwrap();
        clock.advance(Duration::from_millis(600));
        admission.admit(&who("key:a")).unwrap();
        assert!(admission.admit(&who("key:a")).is_err());
    }

    #[test]
    fn concurrency_is_bounded_and_given_back() {
        let settings = LimitSettings { concurrent_per_principal: 2, concurrent: 3, ..LimitSettings::default() };
        let admission = Admission::new(settings);
        let one = admission.admit(&who("key:a")).unwrap();
        let _two = admission.admit(&who("key:a")).unwrap();
        assert!(admission.admit(&who("key:a")).is_err());
        let _three = admission.admit(&who("key:b")).unwrap();
        assert!(admission.admit(&who("key:c")).unwrap_err().message().contains("server"));
        drop(one);
        admission.admit(&who("key:a")).unwrap();
    }
}

//! How often and how much an upstream is asked, and how it is doing. Guards a failing upstream from being hammered and the house from waiting for
//! it: after failures it is left alone, longer each time. Must not count what the upstream merely refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::UpstreamLimits;

/// First and longest rest after a failure.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Between two records that it failed.
const BETWEEN_RECORDS: Duration = Duration::from_mins(1);

/// How often an upstream may be asked, whoever asks.
#[derive(Debug)]
pub(crate) struct Health {
    rate: Mutex<Rate>,
    places: Arc<Semaphore>,
    per_second: f64,
    burst: f64,
    /// As the standing work finds it, and everybody who shares its process or session.
    pub(crate) fitness: Arc<Fitness>,
    /// When it was last recorded that it failed.
    recorded: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Rate {
    tokens: f64,
    filled: Instant,
}

/// How whoever is asked is doing: the process or session all share, or the one a single principal has for itself. What one
/// of them fails at says nothing of the others.
#[derive(Debug, Default)]
pub(crate) struct Fitness(Mutex<State>);

#[derive(Debug, Clone, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
    trouble: Option<String>,
    reached: bool,
}

/// How an upstream is, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Never asked yet.
    Unknown,
    /// It answers.
    Well,
    /// It does not, for this reason.
    Failing(String),
}

impl Health {
    pub(crate) fn new(limits: &UpstreamLimits) -> Self {
        Self {
            rate: Mutex::new(Rate { tokens: f64::from(limits.burst), filled: Instant::now() }),
            fitness: Arc::default(),
            recorded: Mutex::default(),
            places: Arc::new(Semaphore::new(limits.concurrent as usize)),
            per_second: f64::from(limits.per_second),
            burst: f64::from(limits.burst),
        }
    }

    /// Whether a failure may be recorded now, so that one that comes and goes does not fill the log.
    pub(crate) fn may_record(&self, now: Instant) -> bool {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let may = recorded.is_none_or(|before| now.duration_since(before) >= BETWEEN_RECORDS);
        if may {
            *recorded = Some(now);
        }
        may
    }

    /// A place for one call: within the rate, at once or within `patience`.
    pub(crate) async fn place(&self, upstream: &str, patience: Duration) -> Result<OwnedSemaphorePermit, Fault> {
        {
            let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let since = now.duration_since(rate.filled).as_secs_f64();
            rate.tokens = (rate.tokens + since * self.per_second).min(self.burst);
            rate.filled = now;
            if rate.tokens < 1.0 {
                let fault = Fault::new(FaultCode::RateLimited, format!("upstream '{upstream}' is asked too often"));
                return Err(fault.with_retry_after(1));
            }
            rate.tokens -= 1.0;
        }
        match tokio::time::timeout(patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Fault::new(FaultCode::RateLimited, format!("upstream '{upstream}' has as many calls as it may have"))
                .with_retry_after(1)),
        }
    }
}

impl Fitness {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked now.
    pub(crate) fn may_ask(&self, upstream: &str) -> Result<(), Fault> {
        let state = self.state();
        let Some(rest) = state.until.and_then(|until| until.checked_duration_since(Instant::now())) else { return Ok(()) };
        let why = state.trouble.clone().unwrap_or_default();
        Err(Fault::backend(format!("upstream '{upstream}' failed and is left alone for a moment"), why)
            .with_retry_after(rest.as_secs().max(1)))
    }

    /// It answered.
    pub(crate) fn well(&self) {
        let mut state = self.state();
        (state.failures, state.until, state.trouble, state.reached) = (0, None, None, true);
    }

    /// It did not. Says whether that, or why, is news.
    pub(crate) fn failed(&self, why: &str) -> bool {
        let mut state = self.state();
        let why: String = why.chars().take(300).collect();
        let news = state.trouble.as_ref() != Some(&why);
        state.failures = state.failures.saturating_add(1);
        let rest = REST.0.saturating_mul(1 << state.failures.saturating_sub(1).min(10)).min(REST.1);
        state.until = Some(Instant::now() + rest);
        state.trouble = Some(why);
        news
    }

    /// How it is.
    pub(crate) fn condition(&self) -> Condition {
        let state = self.state();
        match &state.trouble {
            Some(why) => Condition::Failing(why.clone()),
            None if state.reached => Condition::Well,
            None => Condition::Unknown,
        }
    }

    /// How long to wait before it is tried again without a caller.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.state().until.and_then(|until| until.checked_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_lengthen_the_rest_and_an_answer_ends_it() {
        let health = Fitness::default();
        assert_eq!(health.condition(), Condition::Unknown);
        assert!(health.failed("down") && !health.failed("down"));
        assert!(health.failed("another reason") && health.failed("down"));
        assert!(health.may_ask("up").unwrap_err().internal().unwrap().contains("down"));
        let first = health.rest().unwrap();
        for _ in 0..20 {
            health.failed("down");
        }
        assert!(health.rest().unwrap() > first && health.rest().unwrap() <= REST.1);
        health.well();
        health.may_ask("up").unwrap();
        assert_eq!(health.condition(), Condition::Well);
    }

    #[test]
    fn what_comes_and_goes_is_recorded_once_in_a_while() {
        let (health, begun) = (Health::new(&UpstreamLimits::default()), Instant::now());
        assert!(health.may_record(begun) && !health.may_record(begun + Duration::from_secs(59)));
        assert!(health.may_record(begun + BETWEEN_RECORDS));
    }

    #[tokio::test]
    async fn places_and_rate_are_bounded() {
        let limits = UpstreamLimits { concurrent: 1, burst: 2, per_second: 1, ..UpstreamLimits::default() };
        let health = Health::new(&limits);
        let held = health.place("up", Duration::ZERO).await.unwrap();
        let full = health.place("up", Duration::from_millis(1)).await.unwrap_err();
        assert!(full.message().contains("as many calls"), "{full}");
        drop(held);
        let often = health.place("up", Duration::ZERO).await.unwrap_err();
        assert!(often.message().contains("too often"), "{often}");
    }
}

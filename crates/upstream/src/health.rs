//! How often and how much an upstream is asked, and how it is doing. Guards a failing upstream from being hammered and the
//! house from waiting for it: after failures it is left alone, longer each time. Must not count what the upstream merely
//! refused.

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
    /// Why it does not answer, as far as that is on record.
    recorded: Option<String>,
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

    /// Whether it is to be recorded now that it does not answer, for this reason. What lasts is recorded once; what comes and
    /// goes does not fill the log, and is recorded later when it stays.
    pub(crate) fn may_record(&self, fitness: &Fitness, why: &str, now: Instant) -> bool {
        let why = shortened(why);
        let mut state = fitness.state();
        if state.recorded.as_ref() == Some(&why) {
            return false;
        }
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.is_some_and(|before| now.duration_since(before) < BETWEEN_RECORDS) {
            return false;
        }
        *recorded = Some(now);
        state.recorded = Some(why);
        true
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
        *state = State { reached: true, ..State::default() };
    }

    /// It did not. Says whether that, or why, is news.
    pub(crate) fn failed(&self, why: &str) -> bool {
        let mut state = self.state();
        let why = shortened(why);
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

/// As much of a reason as is kept.
fn shortened(why: &str) -> String {
    portcullis_model::cut::beginning(why, 300).text.into_owned()
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
        let records = |why: &str, after| health.may_record(&health.fitness, why, begun + Duration::from_secs(after));
        assert!(records("down", 0) && !records("down", 20) && !records("another reason", 29));
        health.fitness.well();
        // What is too soon for a record gets one as long as it lasts.
        assert!(!records("another reason", 30) && records("another reason", 60) && !records("another reason", 600));
        assert!(records("down", 600) && !records("down", 3600));
        health.fitness.well();
        assert!(records("down", 3600), "it is another outage");
        // Whoever has a process of its own has outages of its own.
        let own = Fitness::default();
        assert!(health.may_record(&own, "down", begun + Duration::from_hours(2)) && !records("down", 7300));
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

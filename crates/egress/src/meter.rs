//! What went out, by source and outcome, and whose circuit is open: counted where requests are sent, for the whole process.
//!
//! By name and not by client, because clients are replaced when the configuration is, and what was counted stays true.
//! Names are those of the configuration, so there are few. Never an address, never a path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use http::StatusCode;

use crate::EgressErrorKind;
use crate::breaker::Breaker;

/// Outcomes in the order of the counters.
const OUTCOMES: [&str; 9] = ["1xx", "2xx", "3xx", "4xx", "5xx", "refused", "circuit_open", "unreachable", "timeout"];

/// How the requests of one source went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressCounts {
    /// The source, sink or service, as the configuration names it.
    pub name: Arc<str>,
    /// Requests by outcome: a class of status, `refused` before anything was sent, `circuit_open`, `unreachable` or
    /// `timeout`. Tries are not counted apart; a stream counts once, when its head has arrived or could not.
    pub requests: Vec<(&'static str, u64)>,
    /// Whether its circuit is open, so that nothing is sent for the moment; absent when there is no client any more.
    pub circuit_open: Option<bool>,
}

/// The counters of one source.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    outcomes: [AtomicU64; OUTCOMES.len()],
    breaker: Mutex<Weak<Breaker>>,
}

type Book = Mutex<BTreeMap<Arc<str>, Arc<Meter>>>;

fn book() -> &'static Book {
    static BOOK: OnceLock<Book> = OnceLock::new();
    BOOK.get_or_init(Book::default)
}

/// The counters of `name`, whose requests go through this breaker now.
pub(crate) fn meter(name: &Arc<str>, breaker: &Arc<Breaker>) -> Arc<Meter> {
    let mut book = book().lock().unwrap_or_else(PoisonError::into_inner);
    let meter = book.entry(Arc::clone(name)).or_default().clone();
    *meter.breaker.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(breaker);
    meter
}

impl Meter {
    /// One request ended.
    pub(crate) fn ended(&self, result: Result<StatusCode, &EgressErrorKind>) {
        let outcome = outcome(result);
        if let Some(counter) = OUTCOMES.iter().position(|known| *known == outcome).and_then(|i| self.outcomes.get(i)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn outcome(result: Result<StatusCode, &EgressErrorKind>) -> &'static str {
    match result {
        Ok(status) => match status.as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        },
        Err(EgressErrorKind::CircuitOpen { .. }) => "circuit_open",
        Err(EgressErrorKind::TimedOut(_) | EgressErrorKind::DeadlineExceeded) => "timeout",
        Err(kind) if kind.counts_against_backend() => "unreachable",
        Err(_) => "refused",
    }
}

/// How the requests of every source went since the process started.
pub fn egress_counts() -> Vec<EgressCounts> {
    let book = book().lock().unwrap_or_else(PoisonError::into_inner);
    let of = |(name, meter): (&Arc<str>, &Arc<Meter>)| {
        let requests = OUTCOMES.iter().zip(&meter.outcomes).map(|(outcome, count)| (*outcome, count.load(Ordering::Relaxed)));
        let breaker = meter.breaker.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        EgressCounts { name: Arc::clone(name), requests: requests.collect(), circuit_open: breaker.map(|b| b.is_open()) }
    };
    book.iter().map(of).collect()
}

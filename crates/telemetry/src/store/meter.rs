//! What the store has taken in and answered since it was opened, counted where it happens, and what its door refused.
//!
//! Counts only: never whose data, never which names.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{IngestError, Receipt};
use crate::convert::OtlpSignal;

/// Signals in the order of the counters.
const SIGNALS: [(OtlpSignal, &str); 3] =
    [(OtlpSignal::Logs, "logs"), (OtlpSignal::Traces, "traces"), (OtlpSignal::Metrics, "metrics")];
/// Reasons in the order of the counters.
const REASONS: [&str; 9] =
    ["credential", "two_credentials", "origin", "too_large", "malformed", "unsupported", "busy", "unavailable", "slow"];

/// What came in of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestCounts {
    /// `logs`, `traces` or `metrics`.
    pub signal: &'static str,
    /// Records that were stored.
    pub accepted: u64,
    /// Records of accepted requests that were not stored.
    pub rejected: u64,
    /// Bytes of requests that were stored, unpacked.
    pub bytes: u64,
}

/// What the store did since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// By signal.
    pub ingest: Vec<IngestCounts>,
    /// Requests the door refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Questions that were let in to read.
    pub queries: u64,
}

#[derive(Debug, Default)]
struct Signal {
    accepted: AtomicU64,
    rejected: AtomicU64,
    bytes: AtomicU64,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    signals: [Signal; SIGNALS.len()],
    refused: [AtomicU64; REASONS.len()],
    queries: AtomicU64,
}

impl Meter {
    /// One request was stored or not.
    pub(crate) fn ingested(&self, signal: OtlpSignal, bytes: usize, outcome: &Result<Receipt, IngestError>) {
        let index = SIGNALS.iter().position(|(known, _)| *known == signal);
        if let (Some(counters), Ok(receipt)) = (index.and_then(|i| self.signals.get(i)), outcome) {
            counters.accepted.fetch_add(receipt.accepted, Ordering::Relaxed);
            counters.rejected.fetch_add(receipt.rejected, Ordering::Relaxed);
            counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The door refused a request.
    pub(crate) fn refused(&self, reason: &str) {
        if let Some(counter) = REASONS.iter().position(|known| *known == reason).and_then(|i| self.refused.get(i)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A question was let in.
    pub(crate) fn queried(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// How far the counters are.
    pub(crate) fn counts(&self) -> StoreCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ingest = SIGNALS.iter().zip(&self.signals).map(|((_, signal), counters)| IngestCounts {
            signal,
            accepted: read(&counters.accepted),
            rejected: read(&counters.rejected),
            bytes: read(&counters.bytes),
        });
        let refused = REASONS.iter().zip(&self.refused).map(|(reason, counter)| (*reason, read(counter)));
        StoreCounts { ingest: ingest.collect(), refused: refused.collect(), queries: read(&self.queries) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_by_signal_and_reason() {
        let meter = Meter::default();
        let receipt = Receipt { accepted: 5, rejected: 2, reason: None };
        meter.ingested(OtlpSignal::Traces, 100, &Ok(receipt));
        meter.ingested(OtlpSignal::Traces, 100, &Err(IngestError::TooHeavy("x".into())));
        meter.refused("slow");
        meter.refused("no such reason");
        meter.queried();
        let counts = meter.counts();
        let traces = IngestCounts { signal: "traces", accepted: 5, rejected: 2, bytes: 100 };
        assert!(counts.ingest.contains(&traces), "{counts:?}");
        assert_eq!(counts.refused.iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!(counts.queries, 1);
    }
}

//! Counting records: by whom, what, how it ended, and how long it took. What was about to begin is counted by its end, so
//! that no call counts twice. Constant memory whatever the number of records;
//! groups beyond a bound are counted together and said to be.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::event::Decision;
use crate::read::{Outcome, Record};

/// Most names counted apart in one group.
const NAMES: usize = 10_000;
/// What stands for the names beyond them.
const OTHERS: &str = "(others)";
/// Steps per doubling of the latency: a percentile is at most 1/32 too high.
const STEPS: u32 = 32;

/// How many ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Outcomes {
    /// Events: records, where one that stands for several counts as so many.
    pub records: u64,
    /// That ended well.
    pub ok: u64,
    /// That were let through and failed.
    pub failed: u64,
    /// That were not let through.
    pub refused: u64,
}

impl Outcomes {
    fn add(&mut self, outcome: Outcome, events: u64) {
        self.records += events;
        match outcome {
            Outcome::Ok => self.ok += events,
            Outcome::Failed => self.failed += events,
            Outcome::Refused => self.refused += events,
            Outcome::Begun => {}
        }
    }
}

/// Latencies in logarithmic steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Histogram {
    counts: BTreeMap<u32, u64>,
    total: u64,
}

fn step(micros: u64) -> u32 {
    let octave = micros.max(1).ilog2();
    if octave < STEPS.ilog2() {
        return micros as u32;
    }
    let shift = octave - STEPS.ilog2();
    (shift + 1) * STEPS + ((micros >> shift) as u32 - STEPS)
}

/// The highest latency that falls into a step.
fn upper(step: u32) -> u64 {
    if step < STEPS {
        return u64::from(step);
    }
    let shift = step / STEPS - 1;
    let within = u64::from(step % STEPS + STEPS);
    ((within + 1) << shift) - 1
}

impl Histogram {
    fn add(&mut self, micros: u64) {
        *self.counts.entry(step(micros)).or_default() += 1;
        self.total += 1;
    }

    fn percentile(&self, share: f64) -> Option<u64> {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(step, count)| {
            seen += count;
            (seen >= rank).then(|| upper(*step))
        })
    }
}

/// The share (0 to 1) of `latencies` in microseconds that is at or below the result; at most 1/32 too high. `None` when
/// there are none.
pub fn percentile(latencies: impl IntoIterator<Item = u64>, share: f64) -> Option<u64> {
    let mut histogram = Histogram::default();
    latencies.into_iter().for_each(|micros| histogram.add(micros));
    histogram.percentile(share)
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Statistics {
    /// In all.
    pub all: Outcomes,
    /// By principal; records without one under the empty name.
    pub principals: BTreeMap<String, Outcomes>,
    /// By tool, prompt or resource.
    pub tools: BTreeMap<String, Outcomes>,
    /// By kind.
    pub kinds: BTreeMap<String, u64>,
    /// By decision: `allow`, `deny`.
    pub decisions: BTreeMap<String, u64>,
    /// By error code.
    pub codes: BTreeMap<String, u64>,
    /// Bytes released.
    pub bytes_out: u64,
    /// Tokens released, estimated.
    pub tokens_out: u64,
    /// Values redacted.
    pub redactions: u64,
    /// Median latency, microseconds; absent when no record has a latency.
    pub latency_p50_us: Option<u64>,
    /// 95th percentile of the latency, microseconds.
    pub latency_p95_us: Option<u64>,
    /// Where records stand of what was about to begin and has no end among the records that were counted: what runs now, or
    /// ran when its process ended. At most 10,000.
    pub unended: BTreeSet<String>,
    /// Lines that could not be read.
    pub unreadable: u64,
    #[serde(skip)]
    latencies: Histogram,
}

fn slot<'a, V: Default>(map: &'a mut BTreeMap<String, V>, name: &str) -> &'a mut V {
    let name = if map.len() >= NAMES && !map.contains_key(name) { OTHERS } else { name };
    map.entry(name.to_owned()).or_default()
}

impl Statistics {
    /// Counts one record.
    pub fn add(&mut self, record: &Record) {
        let (event, outcome) = (&record.event, record.outcome());
        let events = event.count.unwrap_or(1);
        self.match_ends(record);
        if outcome == Outcome::Begun {
            *slot(&mut self.kinds, event.kind.as_str()) += events;
            return;
        }
        self.all.add(outcome, events);
        slot(&mut self.principals, event.principal.as_ref().map_or("", |p| p.as_str())).add(outcome, events);
        if let Some(tool) = &event.tool {
            slot(&mut self.tools, tool).add(outcome, events);
        }
        *slot(&mut self.kinds, event.kind.as_str()) += events;
        match event.decision {
            Some(Decision::Allow) => *slot(&mut self.decisions, "allow") += events,
            Some(Decision::Deny) => *slot(&mut self.decisions, "deny") += events,
            None => {}
        }
        if let Some(code) = event.code {
            *slot(&mut self.codes, code.as_str()) += events;
        }
        self.bytes_out += event.bytes_out.unwrap_or(0);
        self.tokens_out += event.tokens_out.unwrap_or(0);
        self.redactions += event.redactions.values().sum::<u64>();
        if let Some(micros) = event.latency_us {
            self.latencies.add(micros);
        }
    }

    /// Keeps what was about to begin until its end comes.
    fn match_ends(&mut self, record: &Record) {
        if record.outcome() == Outcome::Begun {
            if self.unended.len() < NAMES {
                self.unended.insert(record.position());
            }
        } else if let Some(intent) = &record.event.intent {
            self.unended.remove(&**intent);
        }
    }

    /// Counts a line that could not be read.
    pub fn add_unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// Fills in what needs all records.
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.latency_p50_us = self.latencies.percentile(0.5);
        self.latency_p95_us = self.latencies.percentile(0.95);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AuditEvent, EventKind};
    use portcullis_model::Timestamp;
    use proptest::prelude::*;

    #[test]
    fn percentiles_of_known_latencies() {
        assert_eq!(percentile([], 0.5), None);
        assert_eq!(percentile([7], 0.5), Some(7));
        assert_eq!(percentile(1..=20, 0.5), Some(10));
        let p95 = percentile((1..=1_000).map(|n| n * 1_000), 0.95).unwrap();
        assert!((950_000..=980_000).contains(&p95), "{p95}");
    }

    proptest! {
        #[test]
        fn a_step_holds_its_latency_closely(micros in 0..u64::MAX / 4) {
            let top = upper(step(micros));
            prop_assert!(top >= micros && top - micros <= micros / 32, "{micros} {top}");
            prop_assert!(step(micros) <= step(micros + 1));
        }
    }

    #[test]
    fn what_was_about_to_begin_counts_by_its_end_and_without_one_is_named() {
        let record = |sequence, event| Record {
            chain: "audit-a".into(),
            sequence,
            time: Timestamp::from_seconds(1),
            event,
            line: String::new(),
        };
        let intent = || AuditEvent::new(EventKind::Intent).tool("restart").decided(Decision::Allow, "r");
        let mut counted = Statistics::default();
        counted.add(&record(1, intent()));
        counted.add(&record(2, intent()));
        let end = AuditEvent::new(EventKind::Call).tool("restart").decided(Decision::Allow, "r").intent("audit-a/1");
        counted.add(&record(3, end));
        assert_eq!((counted.all.records, counted.all.ok, counted.tools["restart"].records), (1, 1, 1));
        assert_eq!((counted.kinds["intent"], counted.kinds["call"], counted.decisions["allow"]), (2, 1, 1));
        assert_eq!(counted.unended, BTreeSet::from(["audit-a/2".to_owned()]));
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let mut map: BTreeMap<String, u64> = BTreeMap::new();
        for index in 0..NAMES + 500 {
            *slot(&mut map, &index.to_string()) += 1;
        }
        assert_eq!((map.len(), map[OTHERS], map.values().sum::<u64>()), (NAMES + 1, 500, NAMES as u64 + 500));
    }
}

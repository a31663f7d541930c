//! A bounded sample of whole traces, for who calls whom and whose own work changed.
//!
//! Guards memory and fairness: traces are kept or dropped as a whole by their id, so what is learned per request stays
//! right whatever the order spans come in.

use std::collections::HashMap;

use portcullis_model::{Span, Timestamp};

/// Most spans kept.
const MOST: usize = 80_000;
/// Attributes needed to name a callee that sends no spans.
const KEPT_ATTRIBUTES: [&str; 6] =
    ["peer.service", "db.system.name", "db.system", "messaging.system", "server.address", "net.peer.name"];

/// Whole traces, one in `2^halvings`.
#[derive(Debug, Default)]
pub(super) struct TraceSample {
    spans: Vec<Span>,
    halvings: u32,
}

/// FNV-1a; trace ids are random already, this only folds them.
fn hash(trace_id: &str) -> u64 {
    let mixed = trace_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    mixed ^ (mixed >> 32)
}

fn kept(trace_id: &str, halvings: u32) -> bool {
    hash(trace_id).trailing_zeros() >= halvings
}

impl TraceSample {
    /// Takes a span if its trace is in the sample; what is not needed of it is dropped.
    pub(super) fn add(&mut self, mut span: Span) {
        if !kept(&span.trace_id, self.halvings) {
            return;
        }
        span.events = Vec::new();
        span.status_message = String::new();
        span.attributes.retain(|name, _| KEPT_ATTRIBUTES.contains(&name.as_str()));
        self.spans.push(span);
        self.thin();
    }

    fn thin(&mut self) {
        while self.spans.len() > MOST && self.halvings < 40 {
            self.halvings += 1;
            let halvings = self.halvings;
            self.spans.retain(|span| kept(&span.trace_id, halvings));
        }
    }

    /// Adds what another source gave, at the coarser rate of the two.
    pub(super) fn merge(&mut self, other: Self) {
        self.halvings = self.halvings.max(other.halvings);
        self.spans.extend(other.spans);
        let halvings = self.halvings;
        self.spans.retain(|span| kept(&span.trace_id, halvings));
        self.thin();
    }

    /// The spans of traces that began before `split`, and of those that began later: a trace stays whole, so that every
    /// call keeps both of its sides.
    pub(super) fn split(self, split: Timestamp) -> (Vec<Span>, Vec<Span>) {
        let mut began: HashMap<u64, Timestamp> = HashMap::new();
        for span in &self.spans {
            began.entry(hash(&span.trace_id)).and_modify(|first| *first = (*first).min(span.start)).or_insert(span.start);
        }
        self.spans.into_iter().partition(|span| began.get(&hash(&span.trace_id)).is_some_and(|first| *first < split))
    }

    /// Whether there is anything.
    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{SpanKind, SpanStatus};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn span(trace_id: &str, part: u64, start: i64) -> Span {
        Span {
            trace_id: trace_id.to_owned(),
            span_id: format!("{part:016x}"),
            parent_span_id: String::new(),
            service: Arc::from("a"),
            name: String::new(),
            kind: SpanKind::Server,
            start: Timestamp::from_seconds(start),
            duration_nanos: 1,
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    #[test]
    fn a_trace_is_not_cut_in_two() {
        let mut sample = TraceSample::default();
        for (trace, part, start) in [("x", 2, 12), ("x", 1, 9), ("y", 1, 10), ("y", 2, 30), ("z", 1, 3)] {
            sample.add(span(trace, part, start));
        }
        let (before, now) = sample.split(Timestamp::from_seconds(10));
        let names = |spans: &[Span]| spans.iter().map(|s| s.trace_id.clone()).collect::<Vec<_>>().concat();
        assert_eq!((names(&before).as_str(), names(&now).as_str()), ("xxz", "yy"));
    }

    #[test]
    fn traces_are_kept_whole_and_memory_is_bounded() {
        let mut sample = TraceSample::default();
        let mut state = 7u64;
        for trace in 0..60_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(trace | 1);
            for part in 0..4 {
                sample.add(span(&format!("{:016x}{:016x}", state, state.rotate_left(17)), part, 1));
            }
        }
        assert!(sample.spans.len() <= MOST && sample.spans.len() > MOST / 4, "{}", sample.spans.len());
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        for span in &sample.spans {
            *sizes.entry(span.trace_id.as_str()).or_default() += 1;
        }
        assert!(sizes.values().all(|size| *size == 4));
    }
}

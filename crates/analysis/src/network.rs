//! Time that calls lose between caller and callee, and whose side loses it.
//!
//! Guards the cause that no service's own spans show: a slow network, a full connection queue or a starved process makes
//! the caller's span longer than the callee's. Both durations are differences on one clock, so skew does not matter.
//! Must not rank.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::calls::CallEdge;

/// Calls needed to speak of one side of an edge.
const ENOUGH: usize = 3;
/// Smallest growth that matters, nanoseconds and times the usual gap.
const LEAST_NANOS: f64 = 10e6;
const LEAST_GROWTH: f64 = 2.0;
/// Share of a caller's judged edges that must have grown before its own side is at fault.
const NEARLY_ALL: f64 = 0.8;

/// Time lost on the way to or from a service, beyond what is usual.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delay {
    /// Over all its calls, seconds.
    pub(crate) added_seconds: f64,
    /// Calls that this stands on.
    pub(crate) calls: usize,
    /// The gap of the edge that lost most: now and usually, seconds.
    pub(crate) now: f64,
    pub(crate) usual: f64,
    /// The other ends.
    pub(crate) others: BTreeSet<Arc<str>>,
    /// Whether the service lost the time as a caller, on nearly everything it calls.
    pub(crate) as_caller: bool,
}

/// An edge whose gap grew.
struct Grown<'e> {
    edge: &'e CallEdge,
    now: f64,
    usual: f64,
}

fn quantile(ascending: &[u64], share: f64) -> f64 {
    let at = ((ascending.len() as f64 - 1.0) * share).floor().max(0.0) as usize;
    ascending.get(at).map_or(0.0, |nanos| *nanos as f64)
}

/// The gap now, in the median, against the usual one.
///
/// What is usual is the lower quartile before: queues and retries only ever add to the way there and back, so the low end is
/// what the network can do (the "base delay" of RFC 6817, section 2), and a baseline that holds some of the same trouble
/// still has it. Where too few calls were seen before, it is the lowest decile of all that was seen.
fn growth<'e>(now: &'e CallEdge, before: &[CallEdge]) -> Option<(f64, Grown<'e>)> {
    let key = |edge: &CallEdge| (edge.caller.clone(), edge.callee.clone());
    let was = before.binary_search_by_key(&key(now), key).map_or(&[][..], |at| before[at].gaps_nanos.as_slice());
    let seen = now.gaps_nanos.len();
    if seen < ENOUGH || seen + was.len() < 2 * ENOUGH {
        return None;
    }
    let usual = if was.len() < ENOUGH {
        let mut all = [was, &now.gaps_nanos].concat();
        all.sort_unstable();
        quantile(&all, 0.1)
    } else {
        quantile(was, 0.25)
    };
    let current = quantile(&now.gaps_nanos, 0.5);
    let added = if current - usual >= LEAST_NANOS && current >= usual * LEAST_GROWTH { current - usual } else { 0.0 };
    Some((added, Grown { edge: now, now: current / 1e9, usual: usual / 1e9 }))
}

/// The services that lose time on the network, by name. `before` is sorted by caller and callee, as profiles are.
///
/// A grown gap counts for the callee, whose network, accept queue or start of work lies in it, unless the caller lost time
/// on nearly all of several callees: then what they have in common is the caller.
pub(crate) fn delays(now: &[CallEdge], before: &[CallEdge]) -> BTreeMap<Arc<str>, Delay> {
    let judged: Vec<(f64, Grown<'_>)> = now.iter().filter_map(|edge| growth(edge, before)).collect();
    let mut edges_of: BTreeMap<&Arc<str>, (usize, usize)> = BTreeMap::new();
    for (added, grown) in &judged {
        let (all, slow) = edges_of.entry(&grown.edge.caller).or_default();
        *all += 1;
        *slow += usize::from(*added > 0.0);
    }
    let callers: BTreeSet<&Arc<str>> = edges_of
        .into_iter()
        .filter(|(_, (all, slow))| *slow >= 2 && *slow as f64 >= NEARLY_ALL * *all as f64)
        .map(|(caller, _)| caller)
        .collect();
    let mut delays: BTreeMap<Arc<str>, Delay> = BTreeMap::new();
    for (added, grown) in judged.iter().filter(|(added, _)| *added > 0.0) {
        let as_caller = callers.contains(&grown.edge.caller);
        let (blamed, other) =
            if as_caller { (&grown.edge.caller, &grown.edge.callee) } else { (&grown.edge.callee, &grown.edge.caller) };
        let calls = grown.edge.gaps_nanos.len();
        let lost = added / 1e9 * calls as f64;
        let delay = delays.entry(blamed.clone()).or_insert_with(|| Delay {
            added_seconds: 0.0,
            calls: 0,
            now: 0.0,
            usual: 0.0,
            others: BTreeSet::new(),
            as_caller,
        });
        if grown.now - grown.usual > delay.now - delay.usual {
            (delay.now, delay.usual) = (grown.now, grown.usual);
        }
        delay.added_seconds += lost;
        delay.calls += calls;
        delay.as_caller &= as_caller;
        delay.others.insert(other.clone());
    }
    delays
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(caller: &str, callee: &str, gaps_ms: &[u64]) -> CallEdge {
        let mut gaps_nanos: Vec<u64> = gaps_ms.iter().map(|ms| ms * 1_000_000).collect();
        gaps_nanos.sort_unstable();
        CallEdge {
            caller: caller.into(),
            callee: callee.into(),
            calls: gaps_nanos.len() as u64,
            errors: 0,
            total_nanos: 0,
            gaps_nanos,
            observed: true,
        }
    }

    fn usual() -> Vec<CallEdge> {
        let edges = [("cart", "stock"), ("web", "cart"), ("web", "pay"), ("web", "user")];
        edges.map(|(caller, callee)| edge(caller, callee, &[1, 2, 2, 3, 2, 4])).into()
    }

    fn names(delays: &BTreeMap<Arc<str>, Delay>) -> Vec<&str> {
        delays.keys().map(|name| &**name).collect()
    }

    #[test]
    fn a_slow_way_to_one_callee_is_the_callees() {
        let mut now = usual();
        now[2] = edge("web", "pay", &[90, 110, 100, 105]);
        let delays = delays(&now, &usual());
        assert_eq!(names(&delays), ["pay"]);
        let pay = &delays["pay"];
        assert!((pay.now - 0.1).abs() < 1e-9 && (pay.usual - 0.002).abs() < 1e-9 && !pay.as_caller, "{pay:?}");
        assert!((pay.added_seconds - 4.0 * 0.098).abs() < 1e-9 && pay.others.contains("web"), "{pay:?}");
    }

    #[test]
    fn several_callers_that_wait_for_one_callee_add_up() {
        let before = vec![edge("a", "x", &[2; 8]), edge("b", "x", &[2; 8]), edge("b", "y", &[2; 8])];
        let now = vec![edge("a", "x", &[52; 4]), edge("b", "x", &[52; 6]), edge("b", "y", &[2; 8])];
        let delays = delays(&now, &before);
        assert_eq!((names(&delays), delays["x"].calls, delays["x"].others.len()), (vec!["x"], 10, 2));
    }

    #[test]
    fn what_waits_on_everything_it_calls_is_slow_itself() {
        let mut now = usual();
        for slow in [1, 2, 3] {
            now[slow] = edge("web", &now[slow].callee, &[60; 5]);
        }
        let delays = delays(&now, &usual());
        assert_eq!(names(&delays), ["web"]);
        assert!(delays["web"].as_caller && delays["web"].others.len() == 3);
    }

    #[test]
    fn small_growth_few_calls_and_new_edges_say_nothing() {
        let mut now = usual();
        now[0] = edge("cart", "stock", &[8, 9, 8]);
        now[1] = edge("web", "cart", &[500, 600]);
        now.push(edge("web", "zone", &[900; 9]));
        now.push(edge("web", "zoom", &[2, 2, 900, 900, 900]));
        assert!(delays(&now, &usual()).is_empty());
        // A large gap that is usual.
        let slow = vec![edge("web", "far", &[80, 82, 90, 85])];
        assert!(delays(&[edge("web", "far", &[95, 96, 99])], &slow).is_empty());
    }

    #[test]
    fn where_nothing_was_seen_before_the_best_of_now_is_usual() {
        let now = vec![edge("web", "pay", &[3, 2, 700, 700, 700, 700, 700, 700, 700, 700])];
        assert_eq!(names(&delays(&now, &[])), ["pay"]);
    }

    #[test]
    fn a_baseline_that_holds_the_same_trouble_still_shows_it() {
        let before = vec![edge("web", "pay", &[2, 3, 2, 3, 100, 101, 99, 100, 103])];
        assert_eq!(names(&delays(&[edge("web", "pay", &[100, 101, 102])], &before)), ["pay"]);
    }
}

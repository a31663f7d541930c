//! How much of the trouble lies in a service itself: time added in it or on the way to it, and failures that began in it.
//!
//! Guards against accusing on chance: a change counts when it is beyond what the spread within both sides explains, matters
//! for the requests as a whole, and only then is it set against what others added. Must not look at findings.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::calls::{CallProfile, OwnWork};
use crate::chance::{Tally, is_more};
use crate::network::{Delay, delays};

/// How much a service's own work changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// 0..1: how much of all that was added is its own, less where the change is small or matters little.
    pub(crate) weight: f64,
    /// In words.
    pub(crate) reasons: Vec<String>,
}

/// Growth of own time per request below which nothing is said.
const LEAST_GROWTH: f64 = 1.3;
/// Standard errors (Welch) the growth of own time must exceed.
const LEAST_ERRORS_APART: f64 = 3.0;
/// Requests needed now and before to speak of a mean.
const ENOUGH: u64 = 3;
/// Added time below this share of all time spent is discounted in proportion.
const RELEVANT_TIME: f64 = 0.05;
/// Share of its requests that must additionally fail in a service, and from which on that counts in full.
const LEAST_FAILURES: f64 = 0.005;
const FULL_FAILURES: f64 = 0.01;

/// What one service added. Seconds are over all its requests: what slows the whole system down is the time added in all.
#[derive(Default)]
struct Change {
    own: Option<OwnTime>,
    delay: Option<Delay>,
    failures: Option<Failures>,
}

struct OwnTime {
    added_seconds: f64,
    growth: f64,
}

struct Failures {
    added: f64,
    share: f64,
    usual: Option<f64>,
}

fn own_time(now: &OwnWork, before: Option<&OwnWork>) -> Option<OwnTime> {
    let before = before.filter(|work| work.requests >= ENOUGH && now.requests >= ENOUGH)?;
    let ((mean, error), (usual, usual_error)) = (now.time_per_request()?, before.time_per_request()?);
    let (added, apart) = (mean - usual, LEAST_ERRORS_APART * error.hypot(usual_error));
    let grown = usual > 0.0 && mean / usual >= LEAST_GROWTH && added > apart;
    grown.then(|| OwnTime { added_seconds: added * now.requests as f64, growth: mean / usual })
}

fn failures(now: &OwnWork, before: Option<&OwnWork>) -> Option<Failures> {
    let before = before.filter(|work| work.requests > 0);
    let tally = |work: &OwnWork| Tally { events: work.own_errors, exposure: work.requests as f64 };
    let usual = before.and_then(|work| tally(work).rate());
    let share = tally(now).rate()? - usual.unwrap_or(0.0);
    let counts = share >= LEAST_FAILURES && is_more(tally(now), before.map(tally).unwrap_or_default());
    counts.then_some(Failures { added: share * now.requests as f64, share, usual })
}

/// Evidence by service. Without `before` only failures can be spoken of.
pub(crate) fn evidence(now: &CallProfile, before: Option<&CallProfile>) -> BTreeMap<Arc<str>, Evidence> {
    let mut changes: BTreeMap<Arc<str>, Change> = BTreeMap::new();
    for (service, work) in now.work.iter().filter(|(_, work)| work.requests > 0) {
        let was = before.and_then(|before| before.work.get(service));
        changes.insert(service.clone(), Change { own: own_time(work, was), delay: None, failures: failures(work, was) });
    }
    for (service, delay) in before.map(|before| delays(&now.edges, &before.edges)).unwrap_or_default() {
        changes.entry(service).or_default().delay = Some(delay);
    }
    let own = |c: &Change| c.own.as_ref().map_or(0.0, |own| own.added_seconds);
    let way = |c: &Change| c.delay.as_ref().map_or(0.0, |delay| delay.added_seconds);
    let spent =
        now.work.values().map(|work| work.exclusive_nanos as f64 / 1e9).sum::<f64>() + changes.values().map(way).sum::<f64>();
    let most = Most {
        seconds: changes.values().map(|c| own(c) + way(c)).fold(0.0, f64::max),
        failures: changes.values().filter_map(|c| c.failures.as_ref()).map(|f| f.added).fold(0.0, f64::max),
        relevant: spent * RELEVANT_TIME,
    };
    changes.into_iter().map(|(service, change)| (service, most.weigh(&change))).collect()
}

/// What weights are relative to.
struct Most {
    seconds: f64,
    failures: f64,
    relevant: f64,
}

impl Most {
    fn weigh(&self, change: &Change) -> Evidence {
        let mut evidence = Evidence::default();
        if let Some(own) = &change.own {
            evidence.weight += self.of_time(own.added_seconds) * (own.growth - 1.0).min(1.0);
            evidence.reasons.push(format!("its own time per request grew ×{:.1}", own.growth));
        }
        if let Some(delay) = &change.delay {
            // Rule of succession (Laplace): how far so many slow calls let one expect the next to be slow.
            let calls = delay.calls as f64;
            evidence.weight += self.of_time(delay.added_seconds) * (calls + 1.0) / (calls + 2.0);
            evidence.reasons.push(words(delay));
        }
        if let Some(failures) = &change.failures {
            let weight = failures.added / self.failures * (failures.share / FULL_FAILURES).min(1.0);
            evidence.weight = evidence.weight.max(weight);
            let usual = failures.usual.map_or(String::new(), |b| format!(" (before: {:.1}% of requests)", b * 100.0));
            evidence.reasons.push(format!("{:.0} more failures began in it{usual}", failures.added));
        }
        evidence.weight = evidence.weight.clamp(0.0, 1.0);
        evidence
    }

    /// Share of the most that any service added, discounted where it hardly matters for all that was spent.
    fn of_time(&self, seconds: f64) -> f64 {
        if self.seconds <= 0.0 || self.relevant <= 0.0 {
            return 0.0;
        }
        seconds / self.seconds * (seconds / self.relevant).min(1.0)
    }
}

fn words(delay: &Delay) -> String {
    let length = |seconds: f64| if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") };
    let (now, usual) = (length(delay.now), length(delay.usual));
    let others = delay.others.len();
    if delay.as_caller {
        return format!(
            "its calls to {others} services wait up to {now} longer than those work (usually {usual}): its network or a starved process"
        );
    }
    let whose = if others == 1 { "one caller".to_owned() } else { format!("{others} callers") };
    format!("calls to it from {whose} wait {now} beyond its own work (usually {usual}): network or queue in front of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CallEdge;

    /// A service with `requests` of `ms` own time each, every second one a tenth more and the others a tenth less.
    fn work(requests: u64, ms: f64, own_errors: u64) -> OwnWork {
        let seconds = ms / 1e3;
        OwnWork {
            requests,
            exclusive_nanos: (requests as f64 * ms * 1e6) as u64,
            exclusive_squares: requests as f64 * seconds * seconds * 1.01,
            own_errors,
            observed: true,
            ..OwnWork::default()
        }
    }

    fn profile(services: &[(&str, OwnWork)]) -> CallProfile {
        CallProfile { edges: Vec::new(), work: services.iter().map(|(name, work)| (Arc::from(*name), work.clone())).collect() }
    }

    fn weight(evidence: &BTreeMap<Arc<str>, Evidence>, service: &str) -> f64 {
        evidence[service].weight
    }

    #[test]
    fn the_largest_change_is_nothing_when_it_is_chance() {
        let before = profile(&[("a", work(4_000, 20.0, 0)), ("b", work(4_000, 20.0, 4))]);
        // One failure is the largest rise there is, and still chance; so is a mean that moved within its own spread.
        let mut restless = work(5, 30.0, 0);
        restless.exclusive_squares = 5.0 * 0.08 * 0.08;
        let now = profile(&[("a", work(1_000, 20.0, 1)), ("b", restless)]);
        let found = evidence(&now, Some(&before));
        assert!(found.values().all(|e| e.weight == 0.0 && e.reasons.is_empty()), "{found:?}");
        let now = profile(&[("a", work(1_000, 20.0, 100)), ("b", work(1_000, 20.0, 3))]);
        let found = evidence(&now, Some(&before));
        assert!((weight(&found, "a") - 1.0).abs() < 1e-9 && weight(&found, "b") == 0.0, "{found:?}");
    }

    #[test]
    fn what_hardly_matters_weighs_little_even_alone() {
        let before = profile(&[("busy", work(1_000, 100.0, 0)), ("tiny", work(1_000, 0.1, 0))]);
        let now = profile(&[("busy", work(1_000, 100.0, 0)), ("tiny", work(1_000, 0.4, 0))]);
        let found = evidence(&now, Some(&before));
        assert!(weight(&found, "tiny") < 0.1 && !found["tiny"].reasons.is_empty(), "{found:?}");
    }

    #[test]
    fn time_on_the_way_and_own_time_are_one_scale() {
        let edge = |gap_ms: u64| CallEdge {
            caller: "web".into(),
            callee: "pay".into(),
            calls: 50,
            errors: 0,
            total_nanos: 0,
            gaps_nanos: vec![gap_ms * 1_000_000; 50],
            observed: true,
        };
        let with = |gap: u64, web_ms: f64| CallProfile {
            edges: vec![edge(gap)],
            ..profile(&[("web", work(50, web_ms, 0)), ("pay", work(50, 20.0, 0))])
        };
        let found = evidence(&with(500, 40.0), Some(&with(2, 20.0)));
        assert!(weight(&found, "pay") > 0.9 && weight(&found, "web") < 0.1, "{found:?}");
        assert!(found["pay"].reasons[0].contains("from one caller wait 500 ms beyond its own work (usually 2 ms)"), "{found:?}");
        let found = evidence(&with(500, 2_000.0), Some(&with(2, 20.0)));
        assert!(weight(&found, "web") > 0.9 && weight(&found, "pay") < 0.4, "{found:?}");
    }

    #[test]
    fn without_a_before_only_failures_are_spoken_of() {
        let found = evidence(&profile(&[("a", work(1_000, 50.0, 200)), ("b", work(1_000, 900.0, 3))]), None);
        assert!((weight(&found, "a") - 1.0).abs() < 1e-9 && weight(&found, "b") == 0.0, "{found:?}");
    }
}

//! Likely causes: of the services that behave differently, which one would explain the others.
//!
//! Guards against blaming the loudest: a service whose trouble is explained by a callee in trouble is a symptom, a
//! service whose own spans got slower or began to fail is a cause, and the earliest onset speaks for a cause. Gives
//! reasons, never certainty. Must not look for findings itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Timestamp, format_duration, format_timestamp};
use serde::{Deserialize, Serialize};

use crate::calls::{CallEdge, OwnWork};

/// What was found about a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Requests got slower.
    Latency,
    /// Requests fail.
    Errors,
    /// New or more frequent error logs.
    Logs,
    /// A resource is used up.
    Saturation,
    /// It restarted, was redeployed or reconfigured.
    Change,
    /// Fewer or more requests than usual: mostly an effect of its callers.
    Traffic,
}

/// A departure of one service from its normal behaviour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which service.
    pub service: Arc<str>,
    /// In what respect.
    pub kind: FindingKind,
    /// Since when, if known.
    pub onset: Option<Timestamp>,
    /// 0..1, such as the confidence of an anomaly.
    pub severity: f64,
    /// One sentence for people.
    pub detail: String,
}

/// How to rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuspectOptions {
    /// Onsets closer than this count as the same moment (scrape interval, bucket length).
    pub same_moment: Duration,
}

impl Default for SuspectOptions {
    fn default() -> Self {
        Self { same_moment: Duration::from_mins(1) }
    }
}

/// A service with its claim to be the cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Which service.
    pub service: Arc<str>,
    /// 0..1, comparable within one ranking only.
    pub score: f64,
    /// The callee in trouble that explains this service's trouble, if one does.
    pub explained_by: Option<Arc<str>>,
    /// Earliest onset of its findings.
    pub onset: Option<Timestamp>,
    /// Why it stands where it stands.
    pub reasons: Vec<String>,
    /// Affected services from the outermost caller down to this one: how the trouble spread, read backwards.
    pub chain: Vec<Arc<str>>,
}

/// All affected services, the likeliest cause first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// Ordered by score, then name.
    pub suspects: Vec<Suspect>,
}

/// Own work in the window and, when there is one, in the baseline window.
pub type OwnWorkPair<'a> = (&'a BTreeMap<Arc<str>, OwnWork>, Option<&'a BTreeMap<Arc<str>, OwnWork>>);

/// Ranks everything that has findings, and callees whose own work changed although nobody reported them.
///
/// Without `own` (no traces) the ranking stands on call edges and onsets alone and says less.
pub fn rank_suspects(
    findings: &[Finding],
    edges: &[CallEdge],
    own: Option<OwnWorkPair<'_>>,
    options: &SuspectOptions,
) -> Ranking {
    let evidence = own.map(|(now, before)| own_evidence(now, before)).unwrap_or_default();
    let affected = affected_services(findings, &evidence);
    let graph = Graph::new(edges);
    let earliest = affected.values().filter_map(|a| a.onset).min();
    let mut suspects: Vec<Suspect> = affected
        .iter()
        .map(|(service, about)| judge(service, about, &affected, &graph, &evidence, own.is_some(), earliest, options))
        .collect();
    let highest = suspects.iter().map(|s| s.score).fold(0.0, f64::max);
    if highest > 0.0 {
        for suspect in &mut suspects {
            suspect.score = (suspect.score / highest.max(1.0)).clamp(0.0, 1.0);
        }
    }
    suspects.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.service.cmp(&b.service)));
    Ranking { suspects }
}

/// How much a service's own work changed.
#[derive(Debug, Clone, Default)]
struct Evidence {
    /// 0..1, relative to the service that changed most.
    weight: f64,
    reasons: Vec<String>,
}

/// What is known about an affected service.
struct Affected<'f> {
    severity: f64,
    onset: Option<Timestamp>,
    findings: Vec<&'f Finding>,
}

/// Own evidence at or above this makes a service affected even when no finding names it.
const TELLING: f64 = 0.3;

fn affected_services<'f>(findings: &'f [Finding], evidence: &BTreeMap<Arc<str>, Evidence>) -> BTreeMap<Arc<str>, Affected<'f>> {
    let mut affected: BTreeMap<Arc<str>, Affected<'f>> = BTreeMap::new();
    for finding in findings {
        let severity = if finding.severity.is_finite() { finding.severity.clamp(0.0, 1.0) } else { 0.0 };
        let weighed = if finding.kind == FindingKind::Traffic { severity * 0.4 } else { severity };
        let entry = affected.entry(finding.service.clone()).or_insert_with(|| Affected {
            severity: 0.0,
            onset: None,
            findings: Vec::new(),
        });
        entry.severity = entry.severity.max(weighed);
        entry.onset = match (entry.onset, finding.onset) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        entry.findings.push(finding);
    }
    for (service, own) in evidence.iter().filter(|(_, own)| own.weight >= TELLING) {
        affected.entry(service.clone()).or_insert_with(|| Affected { severity: own.weight, onset: None, findings: Vec::new() });
    }
    affected
}

/// Change of own time and own errors per request, each relative to the largest change of any service.
fn own_evidence(now: &BTreeMap<Arc<str>, OwnWork>, before: Option<&BTreeMap<Arc<str>, OwnWork>>) -> BTreeMap<Arc<str>, Evidence> {
    struct Change {
        added_nanos: f64,
        growth: Option<f64>,
        added_errors: f64,
        errors_before: Option<f64>,
    }
    let mut changes: BTreeMap<&Arc<str>, Change> = BTreeMap::new();
    for (service, work) in now.iter().filter(|(_, work)| work.requests > 0) {
        let was = before.and_then(|before| before.get(service)).filter(|work| work.requests > 0);
        let per = |work: &OwnWork, what: u64| what as f64 / work.requests as f64;
        let time = per(work, work.exclusive_nanos);
        let time_before = was.map(|was| per(was, was.exclusive_nanos));
        let errors = per(work, work.own_errors);
        let errors_before = was.map(|was| per(was, was.own_errors));
        // Weighed by requests: what slows the whole system down is the time added in all.
        let added_nanos = time_before.map_or(0.0, |t| (time - t).max(0.0) * work.requests as f64);
        changes.insert(
            service,
            Change {
                added_nanos,
                growth: time_before.filter(|t| *t > 0.0).map(|t| time / t),
                added_errors: (errors - errors_before.unwrap_or(0.0)).max(0.0) * work.requests as f64,
                errors_before,
            },
        );
    }
    let most_time = changes.values().map(|c| c.added_nanos).fold(0.0, f64::max);
    let most_errors = changes.values().map(|c| c.added_errors).fold(0.0, f64::max);
    let weigh = |(service, change): (&Arc<str>, Change)| {
        let mut own = Evidence::default();
        if let Some(growth) = change.growth.filter(|g| *g >= 1.3)
            && most_time > 0.0
        {
            own.weight = change.added_nanos / most_time * ((growth - 1.0) / 1.0).min(1.0);
            own.reasons.push(format!("its own time per request grew ×{growth:.1}"));
        }
        if change.added_errors >= 1.0 && most_errors > 0.0 {
            own.weight = own.weight.max(change.added_errors / most_errors);
            let usual = change.errors_before.map_or(String::new(), |b| format!(" (before: {:.1}% of requests)", b * 100.0));
            own.reasons.push(format!("{:.0} more failures began in it{usual}", change.added_errors));
        }
        (service.clone(), own)
    };
    changes.into_iter().map(weigh).collect()
}

#[allow(clippy::too_many_arguments)] // one call site; a struct for it would only rename the arguments
fn judge(
    service: &Arc<str>,
    about: &Affected<'_>,
    affected: &BTreeMap<Arc<str>, Affected<'_>>,
    graph: &Graph,
    evidence: &BTreeMap<Arc<str>, Evidence>,
    traced: bool,
    earliest: Option<Timestamp>,
    options: &SuspectOptions,
) -> Suspect {
    let own = evidence.get(service);
    let mut reasons: Vec<String> = own.map(|own| own.reasons.clone()).unwrap_or_default();
    let (explained, explained_by) = explanation(service, about, affected, graph, evidence, options);
    let claim = match own {
        Some(own) => (0.25 + 0.75 * own.weight) * (1.0 - 0.7 * explained * (1.0 - own.weight)),
        None if traced => 0.4 * (1.0 - 0.8 * explained),
        None => 0.6 * (1.0 - 0.8 * explained),
    };
    let mut score = about.severity * claim;
    let others = affected.len().saturating_sub(1);
    let upstream = graph.callers_above(service).into_iter().filter(|s| affected.contains_key(s)).count();
    if others > 0 {
        score += 0.25 * about.severity * upstream as f64 / others as f64;
        if upstream > 0 && explained_by.is_none() {
            reasons.push(format!("{upstream} of the {others} other affected services depend on it"));
        }
    }
    if let (Some(onset), Some(first)) = (about.onset, earliest) {
        let late = onset.since(first);
        let window = options.same_moment.as_secs_f64().max(1.0);
        score += 0.15 * about.severity * (-late.as_secs_f64() / (5.0 * window)).exp();
        if late <= options.same_moment && affected.len() > 1 {
            reasons.push(format!("among the first to change, at {}", format_timestamp(onset)));
        } else if late > options.same_moment {
            reasons.push(format!("changed {} after the first service", format_duration(late)));
        }
    }
    if let Some(by) = &explained_by {
        reasons.push(format!("it calls {by}, which is in trouble itself"));
    }
    reasons.extend(about.findings.iter().map(|f| f.detail.clone()));
    Suspect {
        service: service.clone(),
        score,
        explained_by,
        onset: about.onset,
        reasons,
        chain: graph.chain_to(service, affected),
    }
}

/// How far a callee in trouble explains this service (0..1), and which one does. A callee that changed clearly later
/// explains little. For a service that only sees other traffic, a caller in trouble explains it.
fn explanation(
    service: &Arc<str>,
    about: &Affected<'_>,
    affected: &BTreeMap<Arc<str>, Affected<'_>>,
    graph: &Graph,
    evidence: &BTreeMap<Arc<str>, Evidence>,
    options: &SuspectOptions,
) -> (f64, Option<Arc<str>>) {
    let only_traffic = !about.findings.is_empty() && about.findings.iter().all(|f| f.kind == FindingKind::Traffic);
    let neighbours = if only_traffic { graph.callers(service) } else { graph.callees(service) };
    let mut best = (0.0, None);
    for other in neighbours.iter().filter(|other| *other != service) {
        let Some(theirs) = affected.get(other) else { continue };
        let timing = match (about.onset, theirs.onset) {
            (Some(mine), Some(their)) if their > mine.plus(options.same_moment) => 0.3,
            _ => 1.0,
        };
        let weight = theirs.severity.max(evidence.get(other).map_or(0.0, |own| own.weight)) * timing;
        if weight > best.0 {
            best = (weight, Some(other.clone()));
        }
    }
    let own = evidence.get(service).map_or(0.0, |own| own.weight);
    if best.0 < 0.2 || own >= 0.8 && best.1.as_ref().and_then(|b| evidence.get(b)).is_none_or(|b| b.weight < own) {
        return (if own >= 0.8 { 0.0 } else { best.0 }, None);
    }
    best
}

/// Who calls whom, both ways.
struct Graph {
    callees: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    callers: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl Graph {
    fn new(edges: &[CallEdge]) -> Self {
        let mut graph = Self { callees: BTreeMap::new(), callers: BTreeMap::new() };
        for edge in edges.iter().filter(|edge| edge.caller != edge.callee) {
            graph.callees.entry(edge.caller.clone()).or_default().insert(edge.callee.clone());
            graph.callers.entry(edge.callee.clone()).or_default().insert(edge.caller.clone());
        }
        graph
    }

    fn callees(&self, service: &Arc<str>) -> Vec<Arc<str>> {
        self.callees.get(service).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    fn callers(&self, service: &Arc<str>) -> Vec<Arc<str>> {
        self.callers.get(service).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Everything that reaches `service` through calls, without itself.
    fn callers_above(&self, service: &Arc<str>) -> BTreeSet<Arc<str>> {
        let mut seen: BTreeSet<Arc<str>> = BTreeSet::from([service.clone()]);
        let mut queue = VecDeque::from([service.clone()]);
        while let Some(next) = queue.pop_front() {
            for caller in self.callers(&next) {
                if seen.insert(caller.clone()) {
                    queue.push_back(caller);
                }
            }
        }
        seen.remove(service);
        seen
    }

    /// Shortest chain of affected services down to `service` from the affected caller farthest away.
    fn chain_to(&self, service: &Arc<str>, affected: &BTreeMap<Arc<str>, Affected<'_>>) -> Vec<Arc<str>> {
        let mut toward: BTreeMap<Arc<str>, Option<Arc<str>>> = BTreeMap::from([(service.clone(), None)]);
        let mut queue = VecDeque::from([service.clone()]);
        let mut outermost = service.clone();
        while let Some(next) = queue.pop_front() {
            for caller in self.callers(&next).into_iter().filter(|caller| affected.contains_key(caller)) {
                if !toward.contains_key(&caller) {
                    toward.insert(caller.clone(), Some(next.clone()));
                    outermost = caller.clone();
                    queue.push_back(caller);
                }
            }
        }
        let mut chain = vec![outermost.clone()];
        let mut at = outermost;
        while let Some(Some(below)) = toward.get(&at) {
            chain.push(below.clone());
            at = below.clone();
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(caller: &str, callee: &str) -> CallEdge {
        CallEdge {
            caller: caller.into(),
            callee: callee.into(),
            calls: 100,
            errors: 0,
            total_nanos: 1,
            network_nanos: 0,
            observed: true,
        }
    }

    fn finding(service: &str, kind: FindingKind, onset: i64, severity: f64) -> Finding {
        let detail = format!("{kind:?} changed");
        Finding { service: service.into(), kind, onset: Some(Timestamp::from_seconds(1_772_359_200 + onset)), severity, detail }
    }

    fn work(entries: &[(&str, u64, u64)]) -> BTreeMap<Arc<str>, OwnWork> {
        let one = |(service, nanos, errors): &(&str, u64, u64)| {
            let own =
                OwnWork { requests: 100, exclusive_nanos: *nanos, own_errors: *errors, passed_on_errors: 0, observed: true };
            (Arc::from(*service), own)
        };
        entries.iter().map(one).collect()
    }

    fn shop() -> Vec<CallEdge> {
        vec![
            edge("web", "checkout"),
            edge("checkout", "payment"),
            edge("checkout", "cart"),
            edge("payment", "bank"),
            edge("web", "cart"),
        ]
    }

    fn names(ranking: &Ranking) -> Vec<&str> {
        ranking.suspects.iter().map(|s| &*s.service).collect()
    }

    #[test]
    fn the_callee_in_trouble_is_the_cause_even_when_its_callers_are_louder() {
        let findings = [
            finding("web", FindingKind::Errors, 90, 1.0),
            finding("checkout", FindingKind::Latency, 30, 0.95),
            finding("payment", FindingKind::Latency, 0, 0.8),
        ];
        let ranking = rank_suspects(&findings, &shop(), None, &SuspectOptions::default());
        assert_eq!(names(&ranking)[0], "payment", "{ranking:#?}");
        let cause = &ranking.suspects[0];
        assert_eq!(cause.chain.iter().map(|s| &**s).collect::<Vec<_>>(), ["web", "checkout", "payment"]);
        assert!(cause.explained_by.is_none() && cause.reasons.iter().any(|r| r.contains("2 of the 2 other affected")));
        let web = ranking.suspects.iter().find(|s| &*s.service == "web").unwrap();
        assert_eq!(web.explained_by.as_deref(), Some("checkout"));
    }

    #[test]
    fn own_work_decides_against_position_and_noise() {
        let findings = [
            finding("web", FindingKind::Latency, 0, 1.0),
            finding("checkout", FindingKind::Latency, 0, 1.0),
            finding("payment", FindingKind::Latency, 0, 1.0),
            finding("cart", FindingKind::Latency, 60, 0.3),
        ];
        let before = work(&[("web", 1_000, 0), ("checkout", 1_000, 0), ("payment", 1_000, 0), ("cart", 1_000, 0)]);
        let now = work(&[("web", 1_050, 0), ("checkout", 90_000, 0), ("payment", 1_100, 0), ("cart", 1_200, 0)]);
        let ranking = rank_suspects(&findings, &shop(), Some((&now, Some(&before))), &SuspectOptions::default());
        assert_eq!(names(&ranking)[0], "checkout", "{ranking:#?}");
        assert!(ranking.suspects[0].reasons[0].contains("own time per request grew ×90.0"));
    }

    #[test]
    fn a_silent_callee_is_named_when_failures_begin_in_it() {
        let findings = [finding("web", FindingKind::Errors, 0, 1.0), finding("payment", FindingKind::Errors, 0, 0.9)];
        let mut edges = shop();
        edges.push(CallEdge { observed: false, ..edge("payment", "postgresql") });
        let now = work(&[("web", 1_000, 0), ("payment", 1_000, 1), ("postgresql", 500, 60)]);
        let before = work(&[("web", 1_000, 0), ("payment", 1_000, 0), ("postgresql", 500, 0)]);
        let ranking = rank_suspects(&findings, &edges, Some((&now, Some(&before))), &SuspectOptions::default());
        assert_eq!(names(&ranking)[0], "postgresql", "{ranking:#?}");
    }

    #[test]
    fn lost_traffic_is_an_effect_of_the_caller() {
        let findings = [finding("checkout", FindingKind::Errors, 0, 0.9), finding("cart", FindingKind::Traffic, 0, 1.0)];
        let ranking = rank_suspects(&findings, &shop(), None, &SuspectOptions::default());
        assert_eq!(names(&ranking), ["checkout", "cart"]);
        assert_eq!(ranking.suspects[1].explained_by.as_deref(), Some("checkout"));
    }

    #[test]
    fn nothing_found_ranks_nothing_and_circles_end() {
        assert!(rank_suspects(&[], &shop(), None, &SuspectOptions::default()).suspects.is_empty());
        let circle = [edge("a", "b"), edge("b", "a"), edge("a", "a")];
        let findings = [finding("a", FindingKind::Errors, 0, 1.0), finding("b", FindingKind::Errors, 200, f64::NAN)];
        let ranking = rank_suspects(&findings, &circle, None, &SuspectOptions::default());
        assert_eq!(names(&ranking)[0], "a");
        assert!(ranking.suspects.iter().all(|s| (0.0..=1.0).contains(&s.score)));
    }
}

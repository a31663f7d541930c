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

use crate::calls::{CallEdge, CallProfile};
use crate::evidence::{Evidence, evidence};

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
    /// 0..1: how much of the trouble lies in the service itself by its spans, whatever its findings say.
    pub own: f64,
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
    /// Why less can be said than usual: scores are halved and the reader is to be told.
    pub caveat: Option<String>,
}

/// What is known about calls between services.
#[derive(Debug, Clone, Copy)]
pub enum Traced<'a> {
    /// Spans were read: in the trouble, and before it where there are any.
    Read {
        /// Since the trouble began.
        now: &'a CallProfile,
        /// Before it.
        before: Option<&'a CallProfile>,
    },
    /// They were not; the reason is client-safe.
    Unread(&'a str),
}

/// What a score is worth without spans: who depends on whom and where time went is unknown.
const UNTRACED: f64 = 0.5;

/// Ranks everything that has findings, and services whose own work or network changed although nobody reported them.
pub fn rank_suspects(findings: &[Finding], traced: Traced<'_>, options: &SuspectOptions) -> Ranking {
    let (own, graph, caveat) = match traced {
        Traced::Read { now, before } => {
            let earlier = before.map(|before| before.edges.as_slice()).unwrap_or_default();
            (evidence(now, before), Graph::new(now.edges.iter().chain(earlier)), None)
        }
        Traced::Unread(why) => {
            let caveat = format!("{why}; without spans the order stands on who changed first and how much, not on calls");
            (BTreeMap::new(), Graph::new([]), Some(caveat))
        }
    };
    let known = matches!(traced, Traced::Read { now, .. } if !now.work.is_empty());
    let affected = affected_services(findings, &own);
    let earliest = affected.values().filter_map(|a| a.onset).min();
    let mut suspects: Vec<Suspect> = affected
        .iter()
        .map(|(service, about)| judge(service, about, &affected, &graph, &own, known, earliest, options))
        .collect();
    let highest = suspects.iter().map(|s| s.score).fold(1.0, f64::max);
    let worth = if caveat.is_some() { UNTRACED } else { 1.0 };
    for suspect in &mut suspects {
        suspect.score = (suspect.score / highest * worth).clamp(0.0, 1.0);
    }
    suspects.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.service.cmp(&b.service)));
    Ranking { suspects, caveat }
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
        let entry =
            affected.entry(service.clone()).or_insert_with(|| Affected { severity: 0.0, onset: None, findings: Vec::new() });
        entry.severity = entry.severity.max(own.weight);
    }
    affected
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
        own: own.map_or(0.0, |own| own.weight),
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
    fn new<'e>(edges: impl IntoIterator<Item = &'e CallEdge>) -> Self {
        let mut graph = Self { callees: BTreeMap::new(), callers: BTreeMap::new() };
        for edge in edges.into_iter().filter(|edge| edge.caller != edge.callee) {
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
    use crate::calls::OwnWork;

    fn edge(caller: &str, callee: &str) -> CallEdge {
        CallEdge {
            caller: caller.into(),
            callee: callee.into(),
            calls: 100,
            errors: 0,
            total_nanos: 1,
            gaps_nanos: Vec::new(),
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
                OwnWork { requests: 100, exclusive_nanos: *nanos, own_errors: *errors, observed: true, ..OwnWork::default() };
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

    /// Edges alone: nothing is known of the work.
    fn rank(findings: &[Finding], edges: &[CallEdge]) -> Ranking {
        let now = CallProfile { edges: edges.to_vec(), ..CallProfile::default() };
        rank_suspects(findings, Traced::Read { now: &now, before: None }, &SuspectOptions::default())
    }

    fn rank_work(
        findings: &[Finding],
        edges: &[CallEdge],
        now: BTreeMap<Arc<str>, OwnWork>,
        before: BTreeMap<Arc<str>, OwnWork>,
    ) -> Ranking {
        let [now, before] = [now, before].map(|work| CallProfile { edges: edges.to_vec(), work });
        rank_suspects(findings, Traced::Read { now: &now, before: Some(&before) }, &SuspectOptions::default())
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
        let ranking = rank(&findings, &shop());
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
        let ranking = rank_work(&findings, &shop(), now, before);
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
        let ranking = rank_work(&findings, &edges, now, before);
        assert_eq!(names(&ranking)[0], "postgresql", "{ranking:#?}");
    }

    #[test]
    fn a_service_behind_a_slow_network_is_named_although_its_own_spans_are_fine() {
        let gap = |caller: &str, callee: &str, ms: u64| CallEdge { gaps_nanos: vec![ms * 1_000_000; 20], ..edge(caller, callee) };
        let edges = |to_payment: u64| {
            let mut edges = vec![gap("web", "checkout", 2), gap("checkout", "payment", to_payment), gap("checkout", "cart", 2)];
            edges.sort_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
            edges
        };
        let work = work(&[("web", 900_000_000, 0), ("checkout", 900_000_000, 0), ("payment", 900_000_000, 0)]);
        let [now, before] = [edges(1_500), edges(3)].map(|edges| CallProfile { edges, work: work.clone() });
        let findings = [finding("web", FindingKind::Latency, 0, 1.0), finding("checkout", FindingKind::Latency, 0, 1.0)];
        let ranking = rank_suspects(&findings, Traced::Read { now: &now, before: Some(&before) }, &SuspectOptions::default());
        assert_eq!(names(&ranking)[0], "payment", "{ranking:#?}");
        let cause = &ranking.suspects[0];
        assert!(cause.own > 0.9 && cause.reasons[0].contains("beyond its own work"), "{cause:?}");
        assert_eq!(ranking.suspects[1].explained_by.as_deref(), Some("payment"), "{ranking:#?}");
    }

    #[test]
    fn without_spans_suspects_lose_confidence_and_it_is_said_why() {
        let findings = [finding("web", FindingKind::Errors, 90, 1.0), finding("payment", FindingKind::Latency, 0, 0.8)];
        let seen = rank(&findings, &shop());
        let blind = rank_suspects(&findings, Traced::Unread("spans could not be read (timeout)"), &SuspectOptions::default());
        assert!(
            seen.caveat.is_none() && blind.caveat.as_ref().unwrap().starts_with("spans could not be read (timeout); without")
        );
        assert!(blind.suspects[0].score <= 0.5 && blind.suspects[0].score < seen.suspects[0].score, "{blind:#?}");
        assert!(blind.suspects.iter().all(|s| s.explained_by.is_none()));
    }

    #[test]
    fn lost_traffic_is_an_effect_of_the_caller() {
        let findings = [finding("checkout", FindingKind::Errors, 0, 0.9), finding("cart", FindingKind::Traffic, 0, 1.0)];
        let ranking = rank(&findings, &shop());
        assert_eq!(names(&ranking), ["checkout", "cart"]);
        assert_eq!(ranking.suspects[1].explained_by.as_deref(), Some("checkout"));
    }

    #[test]
    fn nothing_found_ranks_nothing_and_circles_end() {
        assert!(rank(&[], &shop()).suspects.is_empty());
        let circle = [edge("a", "b"), edge("b", "a"), edge("a", "a")];
        let findings = [finding("a", FindingKind::Errors, 0, 1.0), finding("b", FindingKind::Errors, 200, f64::NAN)];
        let ranking = rank(&findings, &circle);
        assert_eq!(names(&ranking)[0], "a");
        assert!(ranking.suspects.iter().all(|s| (0.0..=1.0).contains(&s.score)));
    }
}

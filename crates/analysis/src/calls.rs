//! Who calls whom, and whose own work took the time or failed, read from spans.
//!
//! Guards the difference between a failure and its echo: an error counts for the service where it began, not for the
//! callers that passed it on; time counts for the span that was not waiting for another. Databases and other callees that
//! send no spans appear under the name their callers give them, marked as not observed. Must not rank.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_model::{Span, SpanKind, SpanStatus};
use serde::{Deserialize, Serialize};

/// Calls from one service to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEdge {
    /// Who calls.
    pub caller: Arc<str>,
    /// Who is called.
    pub callee: Arc<str>,
    /// Calls seen.
    pub calls: u64,
    /// Calls that failed on either side.
    pub errors: u64,
    /// Duration of the calls as the callee saw them; as the caller saw them where the callee sends no spans. Nanoseconds.
    pub total_nanos: u64,
    /// For each call seen from both sides, what the caller waited beyond what the callee worked: network, connection and
    /// queue. Nanoseconds, ascending; both durations are of one clock each, so clocks that disagree do not matter.
    pub gaps_nanos: Vec<u64>,
    /// Whether the callee sends spans itself.
    pub observed: bool,
}

/// What a service did itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnWork {
    /// Requests it handled: spans whose parent is another service or missing; calls to it when it sends no spans.
    pub requests: u64,
    /// Time in its spans not covered by their children, nanoseconds.
    pub exclusive_nanos: u64,
    /// Sum of the squares of that time per request, seconds²: how much requests differ among themselves.
    pub exclusive_squares: f64,
    /// Failed spans none of whose children failed: failures that began here.
    pub own_errors: u64,
    /// Failed spans with a failed child: echoes.
    pub passed_on_errors: u64,
    /// Whether it sends spans itself.
    pub observed: bool,
}

/// What spans say about one stretch of time: who calls whom and what each did itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallProfile {
    /// Sorted by caller and callee.
    pub edges: Vec<CallEdge>,
    /// A call to a callee without spans counts for that callee, under the name the caller gives it.
    pub work: BTreeMap<Arc<str>, OwnWork>,
}

impl CallProfile {
    /// From spans of whole traces, in any order.
    pub fn from_spans(spans: &[Span]) -> Self {
        let forest = Forest::new(spans);
        Self { edges: edges(&forest, spans), work: own_work(&forest, spans) }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }
}

fn edges(forest: &Forest, spans: &[Span]) -> Vec<CallEdge> {
    let mut edges: BTreeMap<(Arc<str>, Arc<str>), CallEdge> = BTreeMap::new();
    for (index, span) in spans.iter().enumerate() {
        if let Some(parent) = forest.parents[index].map(|p| &spans[p]).filter(|p| p.service != span.service) {
            let edge = edge_of(&mut edges, &parent.service, &span.service);
            edge.observed = true;
            edge.calls += 1;
            edge.errors += u64::from(failed(span) || failed(parent) && parent.kind == SpanKind::Client);
            edge.total_nanos = edge.total_nanos.saturating_add(span.duration_nanos);
            if parent.kind == SpanKind::Client && span.kind == SpanKind::Server {
                edge.gaps_nanos.push(parent.duration_nanos.saturating_sub(span.duration_nanos));
            }
        }
        if let Some(peer) = forest.silent_peer(spans, index) {
            let edge = edge_of(&mut edges, &span.service, &peer);
            edge.calls += 1;
            edge.errors += u64::from(failed(span));
            edge.total_nanos = edge.total_nanos.saturating_add(span.duration_nanos);
        }
    }
    let mut edges: Vec<CallEdge> = edges.into_values().collect();
    for edge in &mut edges {
        edge.gaps_nanos.sort_unstable();
    }
    edges
}

fn edge_of<'e>(
    edges: &'e mut BTreeMap<(Arc<str>, Arc<str>), CallEdge>,
    caller: &Arc<str>,
    callee: &Arc<str>,
) -> &'e mut CallEdge {
    edges.entry((caller.clone(), callee.clone())).or_insert_with(|| CallEdge {
        caller: caller.clone(),
        callee: callee.clone(),
        calls: 0,
        errors: 0,
        total_nanos: 0,
        gaps_nanos: Vec::new(),
        observed: false,
    })
}

fn own_work(forest: &Forest, spans: &[Span]) -> BTreeMap<Arc<str>, OwnWork> {
    let mut work: BTreeMap<Arc<str>, OwnWork> = BTreeMap::new();
    // Own time by the span with which the request entered the service.
    let mut by_request: Vec<u64> = vec![0; spans.len()];
    let entries = forest.entries(spans);
    for (index, span) in spans.iter().enumerate() {
        let peer = forest.silent_peer(spans, index);
        let own = work.entry(span.service.clone()).or_default();
        own.observed = true;
        own.requests += u64::from(entries[index] == index);
        let echo = forest.children[index].iter().any(|child| failed(&spans[*child]));
        match (failed(span), echo, &peer) {
            (true, false, None) => own.own_errors += 1,
            (true, true, _) | (true, false, Some(_)) => own.passed_on_errors += 1,
            _ => {}
        }
        let exclusive = forest.exclusive(spans, index);
        match peer {
            Some(peer) => {
                let silent = work.entry(peer).or_default();
                silent.requests += 1;
                silent.own_errors += u64::from(failed(span) && !echo);
                silent.add_request(exclusive);
            }
            // The time a client span waits for an observed callee is network, neither side's work.
            None if forest.calls_out(spans, index) => {}
            None => by_request[entries[index]] = by_request[entries[index]].saturating_add(exclusive),
        }
    }
    for (index, span) in spans.iter().enumerate().filter(|(index, _)| entries[*index] == *index) {
        work.entry(span.service.clone()).or_default().add_request(by_request[index]);
    }
    work
}

impl OwnWork {
    fn add_request(&mut self, exclusive_nanos: u64) {
        self.exclusive_nanos = self.exclusive_nanos.saturating_add(exclusive_nanos);
        self.exclusive_squares += (exclusive_nanos as f64 / 1e9).powi(2);
    }

    /// Mean own time of a request in seconds and its standard error; absent without requests.
    pub fn time_per_request(&self) -> Option<(f64, f64)> {
        let requests = self.requests as f64;
        let mean = self.exclusive_nanos as f64 / 1e9 / requests;
        let variance = (self.exclusive_squares / requests - mean * mean).max(0.0) / (requests - 1.0).max(1.0);
        (self.requests > 0).then(|| (mean, variance.sqrt()))
    }
}

fn failed(span: &Span) -> bool {
    span.status == SpanStatus::Error
}

/// Parent and children of every span, within its trace.
struct Forest {
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
}

impl Forest {
    fn new(spans: &[Span]) -> Self {
        let mut by_id: HashMap<(&str, &str), usize> = HashMap::with_capacity(spans.len());
        for (index, span) in spans.iter().enumerate() {
            by_id.entry((&span.trace_id, &span.span_id)).or_insert(index);
        }
        let parent = |(index, span): (usize, &Span)| {
            by_id
                .get(&(span.trace_id.as_str(), span.parent_span_id.as_str()))
                .copied()
                .filter(|parent| *parent != index && !span.parent_span_id.is_empty())
        };
        let parents: Vec<Option<usize>> = spans.iter().enumerate().map(parent).collect();
        let mut children = vec![Vec::new(); spans.len()];
        for (child, parent) in parents.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(child);
            }
        }
        Self { parents, children }
    }

    /// For each span the one with which its request entered the service: its farthest ancestor within the same service.
    fn entries(&self, spans: &[Span]) -> Vec<usize> {
        let mut entries: Vec<Option<usize>> = vec![None; spans.len()];
        let mut below = Vec::new();
        let mut met_from: Vec<usize> = vec![usize::MAX; spans.len()];
        for index in 0..spans.len() {
            let mut at = index;
            let entry = loop {
                if let Some(known) = entries[at] {
                    break known;
                }
                below.push(at);
                met_from[at] = index;
                // Parents that point in a circle end where it closes.
                let inside = |parent: &usize| spans[*parent].service == spans[at].service && met_from[*parent] != index;
                match self.parents[at].filter(inside) {
                    Some(parent) => at = parent,
                    None => break at,
                }
            };
            for span in below.drain(..) {
                entries[span] = Some(entry);
            }
        }
        entries.into_iter().enumerate().map(|(index, entry)| entry.unwrap_or(index)).collect()
    }

    fn calls_out(&self, spans: &[Span], index: usize) -> bool {
        spans[index].kind == SpanKind::Client && self.children[index].iter().any(|c| spans[*c].service != spans[index].service)
    }

    /// The callee of a client span that no other span answers, as the caller names it.
    fn silent_peer(&self, spans: &[Span], index: usize) -> Option<Arc<str>> {
        let span = &spans[index];
        if !matches!(span.kind, SpanKind::Client | SpanKind::Producer) || !self.children[index].is_empty() {
            return None;
        }
        let attribute = |name: &str| span.attributes.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let by_role = ["peer.service", "db.system.name", "db.system", "messaging.system"].iter().find_map(|name| attribute(name));
        let by_address = || {
            let names = ["server.address", "net.peer.name"];
            let host = names.iter().find_map(|name| attribute(name)).filter(|host| host.parse::<IpAddr>().is_err())?;
            host.split('.').next().filter(|first| !first.is_empty())
        };
        let name = by_role.or_else(by_address)?;
        (name != &*span.service).then(|| Arc::from(name))
    }

    /// Calls that the same service makes beside this span, under the same parent: in reactive code the span of a handler
    /// ends with them although it only waits.
    fn calls_beside(&self, spans: &[Span], index: usize) -> impl Iterator<Item = usize> {
        let works = spans[index].kind != SpanKind::Client;
        let siblings = self.parents[index].filter(|_| works).map_or(&[][..], |parent| self.children[parent].as_slice());
        let own = |sibling: &usize| spans[*sibling].service == spans[index].service && spans[*sibling].kind == SpanKind::Client;
        siblings.iter().copied().filter(own).collect::<Vec<_>>().into_iter()
    }

    /// Duration less the union of the intervals of its children and of calls beside it; children of another service that
    /// lie outside for want of a common clock, but would fit, count by their duration.
    fn exclusive(&self, spans: &[Span], index: usize) -> u64 {
        let span = &spans[index];
        let start = span.start.as_nanos();
        let end = start.saturating_add(i64::try_from(span.duration_nanos).unwrap_or(i64::MAX));
        let mut intervals: Vec<(i64, i64)> = Vec::with_capacity(self.children[index].len());
        for child in self.children[index].iter().copied().chain(self.calls_beside(spans, index)) {
            let child = &spans[child];
            let from = child.start.as_nanos();
            let length = i64::try_from(child.duration_nanos).unwrap_or(i64::MAX);
            let outside = from < start || from.saturating_add(length) > end;
            if outside && child.service != span.service && length <= end - start && child.kind != SpanKind::Consumer {
                let centred = start + (end - start - length) / 2;
                intervals.push((centred, centred + length));
            } else {
                intervals.push((from.max(start), from.saturating_add(length).min(end)));
            }
        }
        intervals.sort_unstable();
        let mut covered = 0i64;
        let mut reached = start;
        for (from, to) in intervals {
            let from = from.max(reached);
            if to > from {
                covered += to - from;
                reached = to;
            }
        }
        u64::try_from(end - start - covered).unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use portcullis_model::Timestamp;

    use super::*;

    /// A span of trace `t`, times in milliseconds.
    pub(crate) fn span(id: &str, parent: &str, service: &str, kind: SpanKind, start: i64, duration: u64, ok: bool) -> Span {
        Span {
            trace_id: "t".into(),
            span_id: id.into(),
            parent_span_id: parent.into(),
            service: service.into(),
            name: "op".into(),
            kind,
            start: Timestamp::from_nanos(start * 1_000_000),
            duration_nanos: duration * 1_000_000,
            status: if ok { SpanStatus::Unset } else { SpanStatus::Error },
            status_message: String::new(),
            attributes: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    #[test]
    fn edges_own_time_and_own_errors() {
        use SpanKind::{Client, Server};
        let mut query = span("5", "4", "pay", Client, 30, 40, false);
        query.attributes.insert("db.system".into(), "postgresql".into());
        let spans = [
            span("1", "", "web", Server, 0, 100, false),
            span("2", "1", "web", Client, 10, 80, false),
            span("4", "2", "pay", Server, 20, 60, false),
            query,
            span("6", "1", "web", SpanKind::Internal, 92, 4, true),
        ];
        let CallProfile { edges, work } = CallProfile::from_spans(&spans);
        let shown: Vec<_> = edges.iter().map(|e| (&*e.caller, &*e.callee, e.calls, e.errors, e.observed)).collect();
        assert_eq!(shown, [("pay", "postgresql", 1, 1, false), ("web", "pay", 1, 1, true)]);
        assert_eq!(edges[1].gaps_nanos, [20_000_000]);
        let (web, pay, database) = (&work["web"], &work["pay"], &work["postgresql"]);
        assert_eq!((web.requests, web.own_errors, web.passed_on_errors, web.exclusive_nanos), (1, 0, 2, 20_000_000));
        assert_eq!((pay.own_errors, pay.passed_on_errors, pay.exclusive_nanos), (0, 2, 20_000_000));
        assert_eq!((database.own_errors, database.exclusive_nanos, database.observed), (1, 40_000_000, false));
    }

    #[test]
    fn self_parents_skew_and_addresses() {
        use SpanKind::{Client, Server};
        let mut out = span("3", "2", "b", Client, 5_010, 5, true);
        out.attributes.insert("server.address".into(), "10.0.0.1".into());
        let spans = [span("1", "1", "a", Server, 0, 100, true), span("2", "1", "b", Server, 5_000, 60, true), out];
        let CallProfile { edges, work } = CallProfile::from_spans(&spans);
        assert_eq!(work["a"].exclusive_nanos, 40_000_000, "the callee's clock runs five seconds ahead");
        assert_eq!(edges.len(), 1, "an IP address is no service name");
        assert!(CallProfile::from_spans(&[]).is_empty());
    }

    #[test]
    fn waiting_for_a_call_beside_it_is_not_the_work_of_a_handler() {
        use SpanKind::{Client, Internal, Server};
        let spans = [
            span("1", "", "gate", Server, 0, 1_000, true),
            span("2", "1", "gate", Internal, 1, 998, true),
            span("3", "1", "gate", Client, 20, 970, true),
            span("4", "3", "shop", Server, 500, 30, true),
        ];
        let work = CallProfile::from_spans(&spans).work;
        assert_eq!(work["gate"].exclusive_nanos, (2 + 998 - 970) * 1_000_000);
        assert_eq!(work["shop"].exclusive_nanos, 30_000_000);
    }

    #[test]
    fn a_request_is_the_time_of_all_its_spans_in_the_service() {
        let inner = |id: &str, start: i64| span(id, "1", "a", SpanKind::Internal, start, 10, true);
        let spans = [
            inner("2", 5),
            span("1", "", "a", SpanKind::Server, 0, 100, true),
            inner("3", 20),
            span("4", "", "a", SpanKind::Server, 200, 100, true),
        ];
        let work = &CallProfile::from_spans(&spans).work["a"];
        assert_eq!((work.requests, work.exclusive_nanos), (2, 200_000_000));
        let (mean, error) = work.time_per_request().unwrap();
        assert!((mean - 0.1).abs() < 1e-9 && error < 1e-6, "both took as long: {mean} {error}");
        assert_eq!(OwnWork::default().time_per_request(), None);
        let circle = [span("1", "2", "a", SpanKind::Server, 0, 10, true), span("2", "1", "a", SpanKind::Server, 0, 10, true)];
        assert_eq!(CallProfile::from_spans(&circle).work["a"].requests, 1, "parents that point at each other");
    }
}

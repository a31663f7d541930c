//! From a bag of spans to a forest: parents found, cycles broken, repeated ids told apart, clock skew between services evened out.
//!
//! Guards that every span that came in is either a node or counted as a repetition. Must not print.

use std::collections::HashMap;

use portcullis_model::{Span, SpanKind, SpanStatus};
use serde::Serialize;

/// One span in the tree. Indices refer to [`TraceTree::nodes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Index of the span in the slice the tree was built from.
    pub span: usize,
    /// Parent node.
    pub parent: Option<usize>,
    /// Children by start time.
    pub children: Vec<usize>,
    /// Start after evening out clock skew, nanoseconds since the epoch.
    pub start: i64,
    /// End after evening out clock skew; never before `start`.
    pub end: i64,
    /// Time not covered by any child, nanoseconds.
    pub exclusive_nanos: u64,
    /// Distance from the root.
    pub depth: usize,
}

/// What had to be mended to get a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Repairs {
    /// Spans whose parent is not in the trace; each stands as a root of its own.
    pub orphans: usize,
    /// Exact repetitions of a span, left out.
    pub repeated: usize,
    /// Different spans that share an id; all kept.
    pub shared_ids: usize,
    /// Parent links cut because they ran in a circle.
    pub cycles: usize,
    /// Spans moved because their clock disagreed with their caller's.
    pub skewed: usize,
}

/// A forest of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceTree {
    /// All nodes, in the order of their spans.
    pub nodes: Vec<Node>,
    /// Roots: spans without a parent first, then orphans, each by start time.
    pub roots: Vec<usize>,
    /// What had to be mended.
    pub repairs: Repairs,
}

impl TraceTree {
    /// Builds the forest. Cost is linear in the number of spans, but for sorting.
    pub fn build(spans: &[Span]) -> Self {
        let mut repairs = Repairs::default();
        let kept = without_repetitions(spans, &mut repairs);
        let mut parents = find_parents(spans, &kept, &mut repairs);
        cut_cycles(spans, &kept, &mut parents, &mut repairs);
        let mut nodes: Vec<Node> = kept
            .iter()
            .zip(&parents)
            .map(|(span, parent)| {
                let start = spans[*span].start.as_nanos();
                let end = start.saturating_add(i64::try_from(spans[*span].duration_nanos).unwrap_or(i64::MAX));
                Node { span: *span, parent: *parent, children: Vec::new(), start, end, exclusive_nanos: 0, depth: 0 }
            })
            .collect();
        for (child, parent) in parents.iter().enumerate() {
            if let Some(parent) = parent {
                nodes[*parent].children.push(child);
            }
        }
        let mut roots: Vec<usize> = (0..nodes.len()).filter(|index| nodes[*index].parent.is_none()).collect();
        roots.sort_by_key(|index| (!spans[nodes[*index].span].parent_span_id.is_empty(), nodes[*index].start, *index));
        let mut tree = Self { nodes, roots, repairs };
        tree.settle(spans);
        tree
    }

    /// The root the trace is about: the longest span without a parent, else the longest orphan.
    pub fn primary_root(&self, spans: &[Span]) -> Option<usize> {
        let is_true_root = |index: &usize| spans[self.nodes[*index].span].parent_span_id.is_empty();
        let any_true = self.roots.iter().any(is_true_root);
        let candidates = self.roots.iter().copied().filter(|index| !any_true || is_true_root(index));
        candidates.max_by_key(|index| (self.nodes[*index].end - self.nodes[*index].start, std::cmp::Reverse(*index)))
    }

    /// Walks from the roots down: depth, clock skew, order of children, exclusive time.
    fn settle(&mut self, spans: &[Span]) {
        let mut stack: Vec<(usize, i64)> = self.roots.iter().map(|root| (*root, 0)).collect();
        while let Some((index, shift)) = stack.pop() {
            self.nodes[index].start = self.nodes[index].start.saturating_add(shift);
            self.nodes[index].end = self.nodes[index].end.saturating_add(shift);
            let parent = self.nodes[index].clone();
            for child in &parent.children {
                self.nodes[*child].depth = parent.depth + 1;
                let own = &self.nodes[*child];
                let moved = (own.start.saturating_add(shift), own.end.saturating_add(shift));
                let extra = skew(&spans[parent.span], (parent.start, parent.end), &spans[own.span], moved);
                // A child moves with its parent; one that has to move further on its own is counted.
                if extra != 0 {
                    self.repairs.skewed += 1;
                }
                stack.push((*child, shift.saturating_add(extra)));
            }
        }
        for index in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[index].children);
            children.sort_by_key(|child| (self.nodes[*child].start, *child));
            self.nodes[index].exclusive_nanos = self.exclusive(index, &children);
            self.nodes[index].children = children;
        }
    }

    /// Duration less the union of the children's intervals inside it. `children` are sorted by start.
    fn exclusive(&self, index: usize, children: &[usize]) -> u64 {
        let node = &self.nodes[index];
        let mut covered_to = node.start;
        let mut covered = 0i64;
        for child in children {
            let from = self.nodes[*child].start.max(covered_to);
            let to = self.nodes[*child].end.min(node.end);
            if to > from {
                covered += to - from;
                covered_to = to;
            }
        }
        u64::try_from(node.end - node.start - covered).unwrap_or(0)
    }
}

/// Leaves out exact repetitions (at-least-once delivery sends them).
fn without_repetitions(spans: &[Span], repairs: &mut Repairs) -> Vec<usize> {
    let mut seen: HashMap<&str, Vec<usize>> = HashMap::with_capacity(spans.len());
    let mut kept = Vec::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        let same_id = seen.entry(span.span_id.as_str()).or_default();
        let same = |other: &usize| {
            let other = &spans[*other];
            other.service == span.service
                && other.name == span.name
                && other.kind == span.kind
                && other.start == span.start
                && other.duration_nanos == span.duration_nanos
                && other.parent_span_id == span.parent_span_id
        };
        if same_id.iter().any(same) {
            repairs.repeated += 1;
            continue;
        }
        if !same_id.is_empty() {
            repairs.shared_ids += 1;
        }
        // An id shared by very many different spans is garbage; comparing with the first few bounds the cost.
        if same_id.len() < 16 {
            same_id.push(index);
        }
        kept.push(index);
    }
    kept
}

/// Parent node of every kept span. Where client and server share one id (Zipkin style), the server hangs below the
/// client and children hang below the server.
fn find_parents(spans: &[Span], kept: &[usize], repairs: &mut Repairs) -> Vec<Option<usize>> {
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::with_capacity(kept.len());
    for (node, span) in kept.iter().enumerate() {
        by_id.entry(spans[*span].span_id.as_str()).or_default().push(node);
    }
    let serves = |node: usize| matches!(spans[kept[node]].kind, SpanKind::Server | SpanKind::Consumer);
    let calls = |node: usize| matches!(spans[kept[node]].kind, SpanKind::Client | SpanKind::Producer);
    let mut parents = Vec::with_capacity(kept.len());
    for (node, index) in kept.iter().enumerate() {
        let span = &spans[*index];
        let twins = by_id.get(span.span_id.as_str()).map_or(&[][..], Vec::as_slice);
        let caller = if serves(node) { twins.iter().copied().find(|twin| calls(*twin)) } else { None };
        let named = || {
            let candidates = by_id.get(span.parent_span_id.as_str())?;
            candidates.iter().copied().find(|c| serves(*c)).or_else(|| candidates.first().copied())
        };
        let parent = match caller {
            Some(caller) => Some(caller),
            None if span.parent_span_id.is_empty() => None,
            None => {
                let found = named();
                if found.is_none() {
                    repairs.orphans += 1;
                }
                found
            }
        };
        parents.push(parent);
    }
    parents
}

/// Cuts one link of every circle, at its earliest span.
fn cut_cycles(spans: &[Span], kept: &[usize], parents: &mut [Option<usize>], repairs: &mut Repairs) {
    const NEW: u32 = 0;
    const DONE: u32 = u32::MAX;
    let mut state = vec![NEW; parents.len()];
    for first in 0..parents.len() {
        let walk = u32::try_from(first + 1).unwrap_or(DONE - 1);
        let mut at = Some(first);
        while let Some(node) = at {
            if state[node] == walk {
                let mut earliest = node;
                let mut next = parents[node];
                while let Some(member) = next.filter(|member| *member != node) {
                    if spans[kept[member]].start < spans[kept[earliest]].start {
                        earliest = member;
                    }
                    next = parents[member];
                }
                parents[earliest] = None;
                repairs.cycles += 1;
                break;
            }
            if state[node] != NEW {
                break;
            }
            state[node] = walk;
            at = parents[node];
        }
        let mut at = Some(first);
        while let Some(node) = at.filter(|node| state[*node] == walk) {
            state[node] = DONE;
            at = parents[node];
        }
    }
}

/// How far a callee must move to lie inside its caller, when only disagreeing clocks explain where it lies.
///
/// Only a synchronous call to another service qualifies, and only if it would fit; then it is centred, which assumes
/// equal network time both ways. A longer callee is left alone: its caller gave up waiting.
fn skew(parent: &Span, parent_at: (i64, i64), child: &Span, child_at: (i64, i64)) -> i64 {
    let asynchronous = child.kind == SpanKind::Consumer || parent.kind == SpanKind::Producer;
    let inside = child_at.0 >= parent_at.0 && child_at.1 <= parent_at.1;
    let (room, need) = (parent_at.1 - parent_at.0, child_at.1 - child_at.0);
    if inside || asynchronous || child.service == parent.service || need > room || child.kind != SpanKind::Server {
        return 0;
    }
    parent_at.0.saturating_add((room - need) / 2).saturating_sub(child_at.0)
}

/// Whether a span failed.
pub(crate) fn failed(span: &Span) -> bool {
    span.status == SpanStatus::Error
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::span;
    use super::*;

    #[test]
    fn orphans_repetitions_and_several_roots() {
        let spans = [
            span("a", "", "web", "GET /", 0, 100),
            span("b", "a", "cart", "get", 10, 20),
            span("b", "a", "cart", "get", 10, 20),
            span("c", "gone", "pay", "charge", 30, 50),
            span("d", "", "web", "late", 90, 5),
        ];
        let tree = TraceTree::build(&spans);
        assert_eq!(tree.repairs, Repairs { orphans: 1, repeated: 1, ..Repairs::default() });
        assert_eq!(tree.nodes.len(), 4);
        let roots: Vec<&str> = tree.roots.iter().map(|r| spans[tree.nodes[*r].span].span_id.as_str()).collect();
        assert_eq!(roots, ["a", "d", "c"]);
        assert_eq!(tree.primary_root(&spans), Some(0));
        assert_eq!(tree.nodes[0].exclusive_nanos, 80_000_000);
    }

    #[test]
    fn circles_are_cut_once_at_the_earliest_span() {
        let spans = [
            span("a", "c", "x", "a", 5, 10),
            span("b", "a", "x", "b", 0, 10),
            span("c", "b", "x", "c", 7, 1),
            span("s", "s", "x", "self", 0, 1),
            span("e", "c", "x", "below", 7, 1),
        ];
        let tree = TraceTree::build(&spans);
        assert_eq!(tree.repairs.cycles, 2);
        assert_eq!(tree.roots.len(), 2);
        assert!(tree.nodes[1].parent.is_none() && tree.nodes[3].parent.is_none());
        assert_eq!(tree.nodes[4].depth, 2);
    }

    #[test]
    fn client_and_server_with_one_id_are_caller_and_callee() {
        let mut client = span("a", "", "web", "call", 0, 100);
        client.kind = SpanKind::Client;
        let server = span("a", "", "pay", "serve", 10, 80);
        let below = span("c", "a", "pay", "db", 20, 10);
        let spans = [server, client, below];
        let tree = TraceTree::build(&spans);
        assert_eq!(tree.repairs.shared_ids, 1);
        assert_eq!((tree.nodes[0].parent, tree.nodes[2].parent), (Some(1), Some(0)));
    }

    #[test]
    fn a_callee_with_another_clock_is_centred_with_all_below_it() {
        let mut client = span("a", "", "web", "call", 0, 100);
        client.kind = SpanKind::Client;
        let spans = [client, span("b", "a", "pay", "serve", -500, 80), span("c", "b", "pay", "db", -490, 10)];
        let tree = TraceTree::build(&spans);
        assert_eq!(tree.repairs.skewed, 1);
        let base = spans[0].start.as_nanos();
        assert_eq!((tree.nodes[1].start - base, tree.nodes[1].end - base), (10_000_000, 90_000_000));
        assert_eq!(tree.nodes[2].start - base, 20_000_000);
        let spans = [span("a", "", "web", "call", 0, 100), span("b", "a", "pay", "slow", 10, 500)];
        assert_eq!(TraceTree::build(&spans).repairs.skewed, 0, "a caller that gave up is not skew");
    }
}

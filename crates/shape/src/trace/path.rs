//! The critical path: the chain of work that the end of the root waited for.
//!
//! Guards the definition: from the end of a span walk back over the child that finished last before that moment,
//! then continue from the start of that child. The segments partition the root's interval exactly, so their sum is
//! its duration. Definition as in CRISP (USENIX ATC 2022, "CRISP: Critical Path Analysis of Large-Scale
//! Microservice Architectures"). Must not look at names or statuses.

use portcullis_model::{Span, SpanKind};

use super::tree::TraceTree;

/// A stretch of time during which one span itself was what everything waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathSegment {
    /// Node of the tree.
    pub node: usize,
    /// Start, nanoseconds since the epoch on the evened-out clock.
    pub start: i64,
    /// End; always after `start`.
    pub end: i64,
}

/// The critical path below one root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CriticalPath {
    /// Segments in time order, without gaps or overlaps, covering the root's interval.
    pub segments: Vec<PathSegment>,
    /// Every node the path passes through, also those that only waited; sorted. Each node but the root has its parent here.
    pub nodes: Vec<usize>,
}

impl CriticalPath {
    /// Nanoseconds of the path spent in `node` itself.
    pub fn own_nanos(&self, node: usize) -> u64 {
        self.segments.iter().filter(|s| s.node == node).map(|s| u64::try_from(s.end - s.start).unwrap_or(0)).sum()
    }

    /// Whether the path passes through `node`.
    pub fn contains(&self, node: usize) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }
}

/// A span whose children are still to be walked, from `until` back to `from`.
struct Frame {
    node: usize,
    from: i64,
    until: i64,
    /// `(end, start, node)` of the children clipped to the span, last-finishing first.
    children: std::vec::IntoIter<(i64, i64, usize)>,
}

impl TraceTree {
    /// The critical path below `root`; empty when the root has no duration.
    ///
    /// Children are clipped to their parent. One that runs beyond the end of its parent counts up to that end, unless it
    /// consumes a message (nobody waited for it then).
    pub fn critical_path(&self, root: usize, spans: &[Span]) -> CriticalPath {
        let mut path = CriticalPath::default();
        let Some(top) = self.nodes.get(root) else { return path };
        let mut stack = vec![self.frame(root, top.start, top.end, spans)];
        path.nodes.push(root);
        while let Some(frame) = stack.last_mut() {
            let until = frame.until;
            let next = frame.children.by_ref().find(|(end, start, _)| *end <= until && end > start);
            let node = frame.node;
            if let Some((end, start, child)) = next {
                push(&mut path.segments, node, end, until);
                frame.until = start;
                path.nodes.push(child);
                let below = self.frame(child, start, end, spans);
                stack.push(below);
            } else {
                push(&mut path.segments, node, frame.from, until);
                stack.pop();
            }
        }
        path.segments.reverse();
        path.nodes.sort_unstable();
        path.nodes.dedup();
        path
    }

    fn frame(&self, node: usize, from: i64, until: i64, spans: &[Span]) -> Frame {
        let waited_for = |child: &&usize| {
            let below = &self.nodes[**child];
            spans[below.span].kind != SpanKind::Consumer || below.end <= self.nodes[node].end
        };
        let mut children: Vec<(i64, i64, usize)> = self.nodes[node]
            .children
            .iter()
            .filter(waited_for)
            .map(|child| (self.nodes[*child].end.min(until), self.nodes[*child].start.max(from), *child))
            .collect();
        // Last-finishing first; of equals the one that started first, which explains more of the time.
        children.sort_by_key(|(end, start, child)| (std::cmp::Reverse(*end), *start, *child));
        Frame { node, from, until, children: children.into_iter() }
    }
}

/// Adds a segment (the list runs backwards in time here), joining it with a later one of the same node.
fn push(segments: &mut Vec<PathSegment>, node: usize, start: i64, end: i64) {
    if end <= start {
        return;
    }
    match segments.last_mut() {
        Some(last) if last.node == node && last.start == end => last.start = start,
        _ => segments.push(PathSegment { node, start, end }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::span;
    use super::*;

    fn names<'a>(spans: &'a [Span], tree: &TraceTree, path: &CriticalPath) -> Vec<(&'a str, u64)> {
        let base = |s: &PathSegment| u64::try_from((s.end - s.start) / 1_000_000).unwrap();
        path.segments.iter().map(|s| (spans[tree.nodes[s.node].span].span_id.as_str(), base(s))).collect()
    }

    #[test]
    fn walks_back_over_last_finishing_children() {
        // a: 0..100; b 10..40 and c 20..60 run beside each other, d 70..95 follows.
        let spans = [
            span("a", "", "web", "root", 0, 100),
            span("b", "a", "x", "b", 10, 30),
            span("c", "a", "y", "c", 20, 40),
            span("d", "a", "z", "d", 70, 25),
            span("e", "c", "db", "e", 30, 20),
        ];
        let tree = TraceTree::build(&spans);
        let path = tree.critical_path(0, &spans);
        assert_eq!(
            names(&spans, &tree, &path),
            [("a", 20), ("c", 10), ("e", 20), ("c", 10), ("a", 10), ("d", 25), ("a", 5)],
            "b still ran when c started, so nothing waited for b"
        );
        assert_eq!(path.own_nanos(2), 20_000_000);
        assert!(path.contains(4) && !path.contains(1));
    }

    #[test]
    fn children_beyond_the_end_are_clipped_and_consumers_are_not_waited_for() {
        let mut consumer = span("m", "a", "mail", "consume", 50, 500);
        consumer.kind = SpanKind::Consumer;
        let spans = [span("a", "", "web", "root", 0, 100), consumer, span("b", "a", "web", "overrun", 60, 400)];
        let tree = TraceTree::build(&spans);
        assert_eq!(names(&spans, &tree, &tree.critical_path(0, &spans)), [("a", 60), ("b", 40)]);
    }

    #[test]
    fn very_deep_traces_do_not_exhaust_the_stack() {
        let spans: Vec<Span> = (0..50_000)
            .map(|i: usize| {
                let parent = if i == 0 { String::new() } else { format!("{:x}", i - 1) };
                span(&format!("{i:x}"), &parent, "x", "n", 0, 100)
            })
            .collect();
        let tree = TraceTree::build(&spans);
        let path = tree.critical_path(0, &spans);
        assert_eq!(path.nodes.len(), 50_000);
        assert_eq!(path.segments.len(), 1);
    }

    proptest! {
        #[test]
        fn the_path_partitions_the_root_and_is_connected(
            shape in prop::collection::vec((any::<prop::sample::Index>(), -50i64..300, 0u64..200, 0u8..4, 0u8..6), 1..40),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
        ) {
            let mut spans: Vec<Span> = Vec::new();
            for (index, (parent, start, duration, kind, service)) in shape.iter().enumerate() {
                let parent = if index == 0 { String::new() } else { spans[parent.index(index)].span_id.clone() };
                let mut one = span(&format!("{index:x}"), &parent, &format!("s{service}"), "n", *start, *duration);
                one.kind = [SpanKind::Server, SpanKind::Client, SpanKind::Consumer, SpanKind::Internal][*kind as usize];
                spans.push(one);
            }
            for (a, b) in damage {
                let id = spans[b.index(spans.len())].span_id.clone();
                let at = a.index(spans.len());
                spans[at].parent_span_id = id;
            }
            let tree = TraceTree::build(&spans);
            prop_assert_eq!(tree.nodes.len() + tree.repairs.repeated, spans.len());
            let root = tree.primary_root(&spans).unwrap();
            let path = tree.critical_path(root, &spans);
            let mut at = tree.nodes[root].start;
            for segment in &path.segments {
                prop_assert_eq!(segment.start, at);
                prop_assert!(segment.end > segment.start);
                prop_assert!(path.contains(segment.node));
                at = segment.end;
            }
            prop_assert_eq!(at, tree.nodes[root].end, "the sum of the segments is the root's duration");
            for node in &path.nodes {
                prop_assert!(*node == root || tree.nodes[*node].parent.is_some_and(|p| path.contains(p)));
            }
        }
    }
}

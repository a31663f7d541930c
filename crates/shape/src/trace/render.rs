//! The text of a trace: head, errors, critical path, then a bounded tree with repeated siblings folded.
//!
//! Guards that hidden and folded spans are counted where they are missing. Span names and messages are untrusted
//! and stay on their line. Must not decide what is released.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use portcullis_model::{Span, SpanKind, Trace, format_timestamp};

use super::path::CriticalPath;
use super::tree::{TraceTree, failed};
use crate::number::{format_nanos, plain};
use crate::text::one_line;

/// Longest operation name and message shown.
const MAX_NAME_CHARS: usize = 80;
const MAX_MESSAGE_CHARS: usize = 160;
/// Nanoseconds in the units of the tree, and from which duration on seconds are shorter.
const MILLISECONDS: (f64, &str) = (1e6, "ms");
const SECONDS: (f64, &str) = (1e9, "s");
const SECONDS_FROM: u64 = 600_000_000_000;
/// Shares below this many percent are left out of the tree, where they say nothing the duration does not.
const LEAST_PERCENT: f64 = 5.0;
/// Deeper levels are printed at this indent with their depth in front.
const MAX_INDENT: usize = 24;

/// How to print a trace.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// Most lines of the tree.
    pub max_lines: usize,
    /// Most errors listed ahead of the tree.
    pub max_errors: usize,
    /// Most operations of the critical path listed; the longest stay, in time order.
    pub max_path: usize,
    /// Siblings of one operation are folded from this many on (at least 2).
    pub fold_from: usize,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { max_lines: 60, max_errors: 10, max_path: 8, fold_from: 3 }
    }
}

/// A rendered trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedTrace {
    /// The text.
    pub text: String,
    /// Spans the source returned.
    pub total: usize,
    /// Spans represented in the tree, alone or inside a folded line.
    pub shown: usize,
    /// Spans left out of the tree; each is counted on a line below its nearest shown ancestor.
    pub hidden: usize,
    /// Whether spans were hidden here or the source itself held some back.
    pub truncated: bool,
    /// Unit of the durations in the tree, which stand there as plain numbers: `ms`, or `s` for traces of minutes.
    pub unit: &'static str,
}

/// Renders a trace.
pub fn render_trace(trace: &Trace, options: &TraceOptions) -> RenderedTrace {
    let spans = &trace.spans;
    let tree = TraceTree::build(spans);
    let Some(root) = tree.primary_root(spans) else {
        let text = format!("trace {}: no spans", one_line(&trace.trace_id, 64));
        return RenderedTrace { text, total: 0, shown: 0, hidden: 0, truncated: trace.truncated, unit: MILLISECONDS.1 };
    };
    let path = tree.critical_path(root, spans);
    let longest = spans.iter().map(|span| span.duration_nanos).max().unwrap_or(0);
    let unit = if longest < SECONDS_FROM { MILLISECONDS } else { SECONDS };
    let view = View { spans, tree: &tree, path: &path, root, options, unit };
    let mut text = view.head(trace);
    view.write_errors(&mut text);
    view.write_path(&mut text);
    let (shown, hidden) = view.write_tree(&mut text);
    RenderedTrace { text, total: spans.len(), shown, hidden, truncated: hidden > 0 || trace.truncated, unit: unit.1 }
}

struct View<'a> {
    spans: &'a [Span],
    tree: &'a TraceTree,
    path: &'a CriticalPath,
    root: usize,
    options: &'a TraceOptions,
    unit: (f64, &'static str),
}

/// One line of the tree: a span, or several of the same operation below the same parent line.
struct Line {
    members: Vec<usize>,
    parent: Option<usize>,
    depth: usize,
}

impl View<'_> {
    fn span(&self, node: usize) -> &Span {
        &self.spans[self.tree.nodes[node].span]
    }

    fn duration(&self, node: usize) -> u64 {
        self.span(node).duration_nanos
    }

    fn share(&self, nanos: u64, least: f64) -> String {
        let whole = self.duration(self.root);
        if whole == 0 {
            return String::new();
        }
        let percent = (nanos as f64 / whole as f64 * 100.0).round();
        if percent >= least { format!(" {percent:.0}%") } else { String::new() }
    }

    /// A duration in the unit of the tree: whole from 10 on, two digits below. A point and what follows it cost two tokens on
    /// every line, and whoever looks at a tree compares.
    fn length(&self, nanos: u64) -> String {
        let length = nanos as f64 / self.unit.0;
        if length >= 10.0 { format!("{length:.0}") } else { plain(length, 2) }
    }

    fn title(&self, node: usize) -> String {
        format!("{} {}", one_line(&self.span(node).service, MAX_NAME_CHARS), one_line(&self.span(node).name, MAX_NAME_CHARS))
    }

    fn head(&self, trace: &Trace) -> String {
        let services: BTreeSet<&str> = self.spans.iter().map(|s| &*s.service).collect();
        let errors = self.tree.nodes.iter().filter(|n| failed(&self.spans[n.span])).count();
        let mut text = format!(
            "trace {} {} {}, {} spans, {} services, {errors} errors, start {}\n",
            one_line(&trace.trace_id, 64),
            self.title(self.root),
            format_nanos(self.duration(self.root)),
            self.spans.len(),
            services.len(),
            format_timestamp(self.span(self.root).start),
        );
        if trace.truncated {
            text.push_str("The source returned only a part of this trace.\n");
        }
        let repairs = self.tree.repairs;
        let notes = [
            (repairs.orphans, "spans whose parent is missing (marked ?)"),
            (repairs.repeated, "repeated spans left out"),
            (repairs.shared_ids, "spans sharing an id"),
            (repairs.cycles, "circular parent links cut"),
            (repairs.skewed, "spans shifted for clock skew"),
        ];
        let notes: Vec<String> = notes.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if !notes.is_empty() {
            let _ = writeln!(text, "note: {}", notes.join(", "));
        }
        text
    }

    /// Errors first, where they began: spans that failed without a failed child lead.
    fn write_errors(&self, text: &mut String) {
        let nodes = 0..self.tree.nodes.len();
        let mut errors: Vec<usize> = nodes.filter(|node| failed(self.span(*node))).collect();
        if errors.is_empty() {
            return;
        }
        let passed_on = |node: usize| self.tree.nodes[node].children.iter().any(|child| failed(self.span(*child)));
        errors.sort_by_key(|node| (passed_on(*node), self.tree.nodes[*node].start, *node));
        let mut folded: Vec<(String, usize)> = Vec::new();
        for node in &errors {
            let message = self.message(*node);
            let origin = if passed_on(*node) { " (passed on from below)" } else { "" };
            let line = format!("! {}{message}{origin}", self.title(*node));
            match folded.iter_mut().find(|(held, _)| *held == line) {
                Some((_, count)) => *count += 1,
                None => folded.push((line, 1)),
            }
        }
        let shown = folded.len().min(self.options.max_errors.max(1));
        text.push_str("errors, origin first:\n");
        for (line, count) in &folded[..shown] {
            text.push_str(line);
            if *count > 1 {
                let _ = write!(text, " ×{count}");
            }
            text.push('\n');
        }
        if shown < folded.len() {
            let rest: usize = folded[shown..].iter().map(|(_, count)| count).sum();
            let _ = writeln!(text, "(+{rest} more failed spans)");
        }
    }

    fn message(&self, node: usize) -> String {
        let span = self.span(node);
        let exception = span.events.iter().rev().find(|event| event.name == "exception");
        let attribute = |key: &str| exception.and_then(|e| e.attributes.get(key)).map(String::as_str).unwrap_or_default();
        let (kind, what) = (attribute("exception.type"), attribute("exception.message"));
        let said = match (span.status_message.as_str(), kind, what) {
            ("", "", "") => return String::new(),
            ("", kind, what) => format!("{kind} {what}"),
            (status, "", _) => status.to_owned(),
            (status, kind, _) => format!("{kind} {status}"),
        };
        format!(": {}", one_line(said.trim(), MAX_MESSAGE_CHARS))
    }

    /// Own time on the path by service and operation, in the order the path first meets them.
    fn write_path(&self, text: &mut String) {
        struct Step {
            title: String,
            nodes: BTreeSet<usize>,
            own: u64,
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut known: HashMap<(&str, &str), usize> = HashMap::new();
        for segment in &self.path.segments {
            let span = self.span(segment.node);
            let at = *known.entry((&*span.service, span.name.as_str())).or_insert_with(|| {
                steps.push(Step { title: self.title(segment.node), nodes: BTreeSet::new(), own: 0 });
                steps.len() - 1
            });
            steps[at].nodes.insert(segment.node);
            steps[at].own += u64::try_from(segment.end - segment.start).unwrap_or(0);
        }
        let mut longest: Vec<usize> = (0..steps.len()).collect();
        longest.sort_by_key(|step| (std::cmp::Reverse(steps[*step].own), *step));
        let left_out = longest.split_off(self.options.max_path.max(1).min(longest.len()));
        longest.sort_unstable();
        let print = |step: &usize| {
            let Step { title, nodes, own } = &steps[*step];
            let times = if nodes.len() > 1 { format!(" ×{}", nodes.len()) } else { String::new() };
            format!("{title}{times} {}{}", format_nanos(*own), self.share(*own, 1.0))
        };
        let shown: Vec<String> = longest.iter().map(print).collect();
        if shown.is_empty() {
            return;
        }
        let _ = write!(text, "critical path (own time): {}", shown.join(" > "));
        if !left_out.is_empty() {
            let rest: u64 = left_out.iter().map(|step| steps[*step].own).sum();
            let _ = write!(text, " (+{} shorter steps, {} in all)", left_out.len(), format_nanos(rest));
        }
        text.push('\n');
    }

    /// Writes the tree; returns spans shown and hidden.
    fn write_tree(&self, text: &mut String) -> (usize, usize) {
        let lines = self.lines();
        let chosen = self.choose(&lines);
        let _ = writeln!(text, "tree ({}, share from {LEAST_PERCENT}%; * critical path, ! error):", self.unit.1);
        let mut hidden_below: HashMap<Option<usize>, (usize, usize)> = HashMap::new();
        let mut hidden = 0;
        for line in lines.iter().enumerate().filter(|(index, _)| !chosen[*index]).map(|(_, line)| line) {
            let mut above = line.parent;
            while let Some(parent) = above.filter(|parent| !chosen[*parent]) {
                above = lines[parent].parent;
            }
            let entry = hidden_below.entry(above).or_default();
            entry.0 += line.members.len();
            entry.1 += line.members.iter().filter(|node| failed(self.span(**node))).count();
            hidden += line.members.len();
        }
        let mut shown = 0;
        for (index, line) in lines.iter().enumerate().filter(|(index, _)| chosen[*index]) {
            self.write_line(text, &lines, line);
            shown += line.members.len();
            if let Some(counts) = hidden_below.get(&Some(index)) {
                write_hidden(text, line.depth + 1, *counts);
            }
        }
        if let Some(counts) = hidden_below.get(&None) {
            write_hidden(text, 0, *counts);
        }
        text.truncate(text.trim_end().len());
        (shown, hidden)
    }

    /// All lines in tree order, repeated siblings folded together with everything below them.
    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        let mut stack: Vec<(Vec<usize>, Option<usize>, usize)> = Vec::new();
        for group in self.fold(&self.tree.roots).into_iter().rev() {
            stack.push((group, None, 0));
        }
        while let Some((members, parent, depth)) = stack.pop() {
            let index = lines.len();
            let below: Vec<usize> = members.iter().flat_map(|node| self.tree.nodes[*node].children.iter().copied()).collect();
            lines.push(Line { members, parent, depth });
            for group in self.fold(&below).into_iter().rev() {
                stack.push((group, Some(index), depth + 1));
            }
        }
        lines
    }

    /// Groups siblings by service, operation, role and failure; small groups fall apart into single spans again.
    fn fold(&self, siblings: &[usize]) -> Vec<Vec<usize>> {
        type Key<'k> = (&'k str, &'k str, SpanKind, bool);
        let mut position: HashMap<Key<'_>, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for node in siblings {
            let span = self.span(*node);
            let key = (&*span.service, span.name.as_str(), span.kind, failed(span));
            let at = *position.entry(key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[at].push(*node);
        }
        let mut out: Vec<Vec<usize>> = Vec::with_capacity(groups.len());
        for group in groups {
            if group.len() >= self.options.fold_from.max(2) {
                out.push(group);
            } else {
                out.extend(group.into_iter().map(|node| vec![node]));
            }
        }
        out.sort_by_key(|group| group.first().map(|node| (self.tree.nodes[*node].start, *node)));
        out
    }

    /// Which lines fit: errors, then the critical path, then by duration, each with the lines above it.
    fn choose(&self, lines: &[Line]) -> Vec<bool> {
        let mut chosen = vec![false; lines.len()];
        let limit = self.options.max_lines.max(1);
        if lines.len() <= limit {
            chosen.fill(true);
            return chosen;
        }
        let rank = |line: &Line| {
            let error = line.members.iter().any(|node| failed(self.span(*node)));
            let critical = line.members.iter().map(|node| self.path.own_nanos(*node)).sum::<u64>();
            let longest = line.members.iter().map(|node| self.duration(*node)).max().unwrap_or(0);
            (line.members.contains(&self.root), error, critical, longest)
        };
        let ranks: Vec<_> = lines.iter().map(rank).collect();
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by(|a, b| ranks[*b].cmp(&ranks[*a]).then(a.cmp(b)));
        let mut used = 0;
        for index in order {
            let mut chain = Vec::new();
            let mut at = Some(index);
            while let Some(line) = at.filter(|line| !chosen[*line]) {
                chain.push(line);
                at = lines[line].parent;
            }
            if used + chain.len() > limit {
                continue;
            }
            used += chain.len();
            for line in chain {
                chosen[line] = true;
            }
        }
        chosen
    }

    fn write_line(&self, text: &mut String, lines: &[Line], line: &Line) {
        let Some(first) = line.members.first().copied() else { return };
        indent(text, line.depth);
        if line.members.iter().any(|node| self.path.contains(*node)) {
            text.push('*');
        }
        if failed(self.span(first)) {
            text.push('!');
        }
        let orphan = |node: &usize| self.tree.nodes[*node].parent.is_none() && !self.span(*node).parent_span_id.is_empty();
        if line.members.iter().any(orphan) {
            text.push('?');
        }
        if line.members.len() > 1 {
            let _ = write!(text, "×{} ", line.members.len());
        }
        let above = line.parent.and_then(|parent| lines[parent].members.first()).map(|node| &self.span(*node).service);
        if above != Some(&self.span(first).service) {
            text.push_str(&one_line(&self.span(first).service, MAX_NAME_CHARS));
            text.push(' ');
        }
        text.push_str(&one_line(&self.span(first).name, MAX_NAME_CHARS));
        let mut durations: Vec<u64> = line.members.iter().map(|node| self.duration(*node)).collect();
        durations.sort_unstable();
        let longest = durations.last().copied().unwrap_or(0);
        if durations.len() > 1 {
            let middle = durations[(durations.len() - 1) / 2];
            let sum: u64 = durations.iter().sum();
            let (middle, most, all) = (self.length(middle), self.length(longest), self.length(sum));
            let _ = writeln!(text, " p50 {middle} max {most} sum {all}{}", self.share(sum, LEAST_PERCENT));
        } else {
            let _ = writeln!(text, " {}{}", self.length(longest), self.share(longest, LEAST_PERCENT));
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    for _ in 0..depth.min(MAX_INDENT) {
        text.push(' ');
    }
    if depth > MAX_INDENT {
        let _ = write!(text, "[depth {depth}] ");
    }
}

fn write_hidden(text: &mut String, depth: usize, (spans, errors): (usize, usize)) {
    indent(text, depth);
    let failed = if errors > 0 { format!(", {errors} failed") } else { String::new() };
    let _ = writeln!(text, "(+{spans} spans hidden{failed})");
}

#[cfg(test)]
mod tests {
    use portcullis_model::SpanStatus;

    use super::super::fixtures::span;
    use super::*;

    fn trace(spans: Vec<Span>) -> Trace {
        Trace { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(), spans, truncated: false }
    }

    #[test]
    fn errors_lead_repeats_fold_and_the_path_is_marked() {
        let mut spans = vec![span("a", "", "web", "GET /checkout", 0, 1000), span("p", "a", "pay", "Charge", 700, 250)];
        spans[0].status = SpanStatus::Error;
        spans[1].status = SpanStatus::Error;
        spans[1].status_message = "card\ndeclined".into();
        for i in 0..23 {
            spans.push(span(&format!("q{i}"), "a", "web", "SELECT stock", 10 + i * 20, if i == 7 { 15 } else { 5 }));
        }
        let shown = render_trace(&trace(spans), &TraceOptions::default());
        let expected = "\
trace 4bf92f3577b34da6a3ce929d0e0e4736 web GET /checkout 1s, 25 spans, 2 services, 2 errors, start 2026-03-01T10:00:00Z
errors, origin first:
! pay Charge: card\\ndeclined
! web GET /checkout (passed on from below)
critical path (own time): web GET /checkout 625ms 63% > ";
        assert!(shown.text.starts_with(expected), "{}", shown.text);
        assert!(
            shown
                .text
                .ends_with("\n*!web GET /checkout 1000 100%\n *×23 SELECT stock p50 5 max 15 sum 125 13%\n *!pay Charge 250 25%"),
            "{}",
            shown.text
        );
        assert_eq!((shown.shown, shown.hidden, shown.total, shown.truncated), (25, 0, 25, false));
    }

    #[test]
    fn a_bounded_tree_counts_what_it_hides_and_keeps_the_error() {
        let mut spans = vec![span("a", "", "web", "root", 0, 1000)];
        for i in 0..40 {
            spans.push(span(&format!("m{i}"), "a", "svc", &format!("op{i}"), i, 10));
            spans.push(span(&format!("n{i}"), &format!("m{i}"), "db", &format!("query{i}"), i, 5));
        }
        spans[80].status = SpanStatus::Error;
        let shown = render_trace(&trace(spans), &TraceOptions { max_lines: 10, ..TraceOptions::default() });
        assert!(shown.text.contains("!db query39"), "{}", shown.text);
        let tree_lines = shown.text.lines().skip_while(|l| !l.starts_with("tree")).skip(1).filter(|l| !l.contains("hidden"));
        assert_eq!(tree_lines.count(), 10);
        let counted: usize =
            shown.text.lines().filter_map(|l| l.trim().strip_prefix("(+")?.split(' ').next()?.parse::<usize>().ok()).sum();
        assert_eq!((counted, shown.shown + shown.hidden), (shown.hidden, 81));
        assert!(shown.truncated);
    }

    proptest::proptest! {
        #[test]
        fn any_spans_are_shown_hidden_or_counted_as_repeated(
            shape in proptest::collection::vec((0usize..12, 0usize..12, "\\PC{0,12}", -100i64..100, 0u64..100, proptest::bool::ANY), 0..60),
            max_lines in 1usize..20,
        ) {
            let one = |(id, parent, name, start, duration, error): &(usize, usize, String, i64, u64, bool)| {
                let parent = if *parent == 0 { String::new() } else { parent.to_string() };
                let mut one = span(&id.to_string(), &parent, name, name, *start, *duration);
                one.status = if *error { SpanStatus::Error } else { SpanStatus::Ok };
                one.status_message.clone_from(name);
                one
            };
            let spans: Vec<Span> = shape.iter().map(one).collect();
            let repeated = TraceTree::build(&spans).repairs.repeated;
            let shown = render_trace(&trace(spans), &TraceOptions { max_lines, ..TraceOptions::default() });
            proptest::prop_assert_eq!(shown.shown + shown.hidden + repeated, shown.total);
            proptest::prop_assert_eq!(shown.truncated, shown.hidden > 0);
            let tree = shown.text.lines().skip_while(|l| !l.starts_with("tree (")).skip(1).filter(|l| !l.contains("spans hidden"));
            proptest::prop_assert!(tree.count() <= max_lines);
        }
    }

    #[test]
    fn an_empty_trace_and_a_part_of_one_say_so() {
        assert!(render_trace(&trace(vec![]), &TraceOptions::default()).text.ends_with("no spans"));
        let mut part = trace(vec![span("b", "gone", "web", "x", 0, 0)]);
        part.truncated = true;
        let shown = render_trace(&part, &TraceOptions::default());
        assert!(shown.text.contains("only a part") && shown.text.ends_with("?web x 0") && shown.truncated, "{}", shown.text);
    }
}

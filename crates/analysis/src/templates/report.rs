//! What a miner found, in the form a tool shows it.
//!
//! Guards that "new" and "changed" are only said when there was a baseline to compare with, and that lines without a
//! template of their own are counted. Must not shorten the list: the caller knows its budget.

use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Severity, Timestamp};
use serde::{Deserialize, Serialize};

use super::mask::readable;
use super::{Counts, Miner};

/// Most examples per template.
const MAX_EXAMPLES: usize = 3;

/// Lengths of the two windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Length of the window in question.
    pub current: Duration,
    /// Length of the baseline window; zero if there was none.
    pub baseline: Duration,
}

/// Lines by severity; `unknown` had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverityCounts {
    /// No severity.
    pub unknown: u64,
    /// Trace.
    pub trace: u64,
    /// Debug.
    pub debug: u64,
    /// Info.
    pub info: u64,
    /// Warn.
    pub warn: u64,
    /// Error.
    pub error: u64,
    /// Fatal.
    pub fatal: u64,
}

impl SeverityCounts {
    fn from_array(counts: [u64; 7]) -> Self {
        let [unknown, trace, debug, info, warn, error, fatal] = counts;
        Self { unknown, trace, debug, info, warn, error, fatal }
    }

    /// The highest severity that occurs.
    pub fn highest(&self) -> Option<Severity> {
        [
            (self.fatal, Severity::Fatal),
            (self.error, Severity::Error),
            (self.warn, Severity::Warn),
            (self.info, Severity::Info),
            (self.debug, Severity::Debug),
            (self.trace, Severity::Trace),
        ]
        .into_iter()
        .find(|(count, _)| *count > 0)
        .map(|(_, severity)| severity)
    }
}

/// Raw lines of a template that differ from each other, at most three: untrusted text.
pub type Examples = Vec<String>;

/// Lines with the same wording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The wording; `<*>` stands for what varies.
    pub text: String,
    /// Lines in the window.
    pub count: u64,
    /// Lines in the baseline window; absent when there was no baseline.
    pub baseline_count: Option<u64>,
    /// First line in the window; absent when all lines are in the baseline.
    pub first_seen: Option<Timestamp>,
    /// Last line in the window.
    pub last_seen: Option<Timestamp>,
    /// Lines of the window by severity.
    pub severities: SeverityCounts,
    /// Lines of the window by service, most first.
    pub services: Vec<(Arc<str>, u64)>,
    /// Lines of further services that are not named.
    pub other_services: u64,
    /// Examples, from the most frequent and the rarest variants.
    pub examples: Examples,
    /// Seen in the window and not in the baseline; absent when there was no baseline.
    pub new: Option<bool>,
    /// At most one line in a thousand of the window, among at least two hundred lines.
    pub rare: bool,
    /// Rate in the window over rate in the baseline; absent without baseline lines or lengths.
    pub rate_change: Option<f64>,
}

impl Template {
    /// Whether the template was seen in the baseline and not in the window.
    pub fn gone(&self) -> bool {
        self.count == 0 && self.baseline_count.is_some_and(|count| count > 0)
    }
}

/// All templates, the most telling first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateReport {
    /// Ordered: severe before harmless, new before known, then the larger change of rate, then the rarer.
    pub templates: Vec<Template>,
    /// Lines of the window.
    pub lines: u64,
    /// Lines of the baseline window.
    pub baseline_lines: u64,
    /// Lines of both windows that found no template because the limit was reached; zero in ordinary logs.
    pub overflow_lines: u64,
    /// Examples of them.
    pub overflow_examples: Examples,
}

pub(super) fn build(miner: &Miner, windows: Option<Windows>) -> TemplateReport {
    let [lines, baseline_lines] = miner.lines;
    let has_baseline = baseline_lines > 0;
    let mut templates: Vec<Template> = miner
        .groups()
        .into_iter()
        .filter_map(|group| {
            let text = readable(&group.skeleton());
            let members: Vec<&Counts> = group.members.iter().filter_map(|id| miner.entries.get(*id)).map(|e| &e.counts).collect();
            let mut sum = (*members.first()?).clone();
            for member in &members[1..] {
                sum.absorb((*member).clone(), &miner.options);
            }
            sum.services.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let baseline_count = has_baseline.then_some(sum.baseline);
            Some(Template {
                text,
                count: sum.current,
                baseline_count,
                first_seen: sum.first,
                last_seen: sum.last,
                severities: SeverityCounts::from_array(sum.severities),
                examples: examples(&members),
                services: sum.services,
                other_services: sum.other_services,
                new: baseline_count.map(|count| count == 0 && sum.current > 0),
                rare: sum.current > 0 && lines >= 200 && sum.current <= (lines / 1000).max(1),
                rate_change: rate_change(sum.current, sum.baseline, windows),
            })
        })
        .collect();
    templates.sort_by(|a, b| {
        telling(b).partial_cmp(&telling(a)).unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.text.cmp(&b.text))
    });
    TemplateReport {
        templates,
        lines,
        baseline_lines,
        overflow_lines: miner.overflow.current + miner.overflow.baseline,
        overflow_examples: miner.overflow.examples.clone(),
    }
}

/// Severity, newness, change of rate, rarity: larger is more telling.
fn telling(template: &Template) -> (u8, bool, bool, f64, i64) {
    let severity = match template.severities.highest() {
        Some(Severity::Fatal) => 4,
        Some(Severity::Error) => 3,
        Some(Severity::Warn) => 2,
        _ if template.severities.unknown > 0 && sounds_bad(&template.text) => 2,
        _ => 1,
    };
    let change = template.rate_change.map_or(0.0, |c| if c > 0.0 { c.ln().abs().min(3.0).floor() } else { 3.0 });
    (severity, template.count > 0, template.new == Some(true), change, -i64::try_from(template.count).unwrap_or(i64::MAX))
}

/// Whether the words of a line without severity speak of trouble.
fn sounds_bad(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    [
        "error",
        "exception",
        "fail",
        "fatal",
        "panic",
        "timeout",
        "timed out",
        "refused",
        "denied",
        "5xx",
        "out of memory",
        "oom",
        "crash",
    ]
    .iter()
    .any(|word| lower.contains(word))
}

fn rate_change(current: u64, baseline: u64, windows: Option<Windows>) -> Option<f64> {
    let windows = windows?;
    let (now, before) = (windows.current.as_secs_f64(), windows.baseline.as_secs_f64());
    (baseline > 0 && now > 0.0 && before > 0.0).then(|| (current as f64 / now) / (baseline as f64 / before))
}

/// From the most frequent member, the rarest, then the rest; baseline lines only when the window has none.
fn examples(members: &[&Counts]) -> Examples {
    let any_current = members.iter().any(|m| m.examples_are_current);
    let mut order: Vec<&&Counts> = members.iter().filter(|m| m.examples_are_current == any_current).collect();
    order.sort_by_key(|m| std::cmp::Reverse(m.current));
    if order.len() > 2
        && let Some(rarest) = order.pop()
    {
        order.insert(1, rarest);
    }
    let mut out: Examples = Vec::new();
    let firsts = order.iter().filter_map(|m| m.examples.first());
    let seconds = order.iter().filter_map(|m| m.examples.get(1));
    for example in firsts.chain(seconds) {
        if out.len() < MAX_EXAMPLES && !out.contains(example) {
            out.push(example.clone());
        }
    }
    out
}

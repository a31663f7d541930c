//! Log templates without configuration: lines with the same wording become one template with counts and examples.
//!
//! Lines are reduced to a skeleton in one pass and counted; skeletons are merged into templates when a report is asked
//! for. Guards bounded memory (a cap on skeletons, with an overflow that is counted and reported, never dropped in
//! silence), determinism, and the distinction between kinds of failure. Must not decide which lines are read.

mod extract;
mod mask;
mod merge;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_model::{LogRecord, Severity, Timestamp, cut};

pub use report::{Examples, SeverityCounts, Template, TemplateReport, Windows};

use merge::Group;

/// Which window a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// The window in question.
    Current,
    /// The window it is compared with.
    Baseline,
}

/// One line to learn from.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// When.
    pub at: Timestamp,
    /// Severity of the record, if it has one; else one named inside a JSON or logfmt body is used.
    pub severity: Option<Severity>,
    /// The service; empty when unknown.
    pub service: &'a str,
    /// The text: untrusted.
    pub body: &'a str,
}

impl<'a> From<&'a LogRecord> for LogLine<'a> {
    fn from(record: &'a LogRecord) -> Self {
        Self { at: record.at, severity: record.severity, service: &record.service, body: &record.body }
    }
}

/// Limits of a miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinerOptions {
    /// Most skeletons held (at least 16). Beyond them similar ones are merged; what still does not fit is counted as overflow.
    pub max_skeletons: usize,
    /// Most services counted by name per template; the rest is counted together.
    pub max_services: usize,
    /// Most characters kept of a raw example.
    pub max_example_chars: usize,
}

impl Default for MinerOptions {
    fn default() -> Self {
        Self { max_skeletons: 8_192, max_services: 16, max_example_chars: 400 }
    }
}

/// What is counted per skeleton.
#[derive(Debug, Clone)]
struct Counts {
    current: u64,
    baseline: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    severities: [u64; 7],
    services: Vec<(Arc<str>, u64)>,
    other_services: u64,
    /// First and latest distinct raw text of the current window, or of the baseline when there is none.
    examples: Vec<String>,
    examples_are_current: bool,
}

impl Counts {
    fn new() -> Self {
        Self {
            current: 0,
            baseline: 0,
            first: None,
            last: None,
            severities: [0; 7],
            services: Vec::new(),
            other_services: 0,
            examples: Vec::new(),
            examples_are_current: false,
        }
    }

    fn absorb(&mut self, other: Self, options: &MinerOptions) {
        self.current += other.current;
        self.baseline += other.baseline;
        self.first = match (self.first, other.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last = self.last.max(other.last);
        for (mine, theirs) in self.severities.iter_mut().zip(other.severities) {
            *mine += theirs;
        }
        for (service, count) in other.services {
            self.count_service(&service, count, options);
        }
        self.other_services += other.other_services;
        if other.examples_are_current && !self.examples_are_current {
            self.examples = other.examples;
            self.examples_are_current = true;
        } else if other.examples_are_current == self.examples_are_current && self.examples.len() < 2 {
            self.examples.extend(other.examples.into_iter().take(1));
        }
    }

    fn count_service(&mut self, service: &str, count: u64, options: &MinerOptions) {
        if let Some((_, held)) = self.services.iter_mut().find(|(name, _)| **name == *service) {
            *held += count;
        } else if self.services.len() < options.max_services {
            self.services.push((Arc::from(service), count));
        } else {
            self.other_services += count;
        }
    }

    fn observe(&mut self, period: Period, line: &LogLine<'_>, severity: Option<Severity>, options: &MinerOptions) {
        match period {
            Period::Baseline => self.baseline += 1,
            Period::Current => {
                self.current += 1;
                self.first = Some(self.first.map_or(line.at, |first| first.min(line.at)));
                self.last = Some(self.last.map_or(line.at, |last| last.max(line.at)));
                self.severities[severity.map_or(0, |s| s as usize + 1)] += 1;
                if !line.service.is_empty() {
                    self.count_service(line.service, 1, options);
                }
            }
        }
        self.keep_example(period, line.body, options);
    }

    /// Keeps the first text and one that differs from it; texts of the current window replace those of the baseline.
    fn keep_example(&mut self, period: Period, body: &str, options: &MinerOptions) {
        let current = period == Period::Current;
        if self.examples_are_current && !current || self.examples.len() >= 2 && self.examples_are_current == current {
            return;
        }
        if current && !self.examples_are_current {
            self.examples.clear();
            self.examples_are_current = true;
        }
        if self.examples.iter().all(|held| !same_start(held, body)) {
            self.examples.push(shortened(body, options.max_example_chars));
        }
    }
}

/// Whether a kept example is the beginning of this body.
fn same_start(held: &str, body: &str) -> bool {
    body == held || held.split_once("…(+").is_some_and(|(start, _)| body.starts_with(start))
}

/// At most `max` characters; says how many more there were. What is cut was redacted before.
fn shortened(text: &str, max: usize) -> String {
    let cut::Beginning { text: start, left } = cut::beginning(text, max);
    if left == 0 { start.into_owned() } else { format!("{start}…(+{left} chars)") }
}

/// A skeleton and its counts.
#[derive(Debug, Clone)]
struct Entry {
    skeleton: Box<[u8]>,
    counts: Counts,
    /// Whether it stands for several skeletons, so that further ones may fit it.
    merged: bool,
}

type PatternTokens = Vec<Box<[u8]>>;
/// Number of tokens and first token.
type Shape = (usize, Box<[u8]>);

/// Most patterns of one shape a new skeleton is compared with; bounds the cost of logs without any wording in common.
const MAX_PATTERNS_PER_SHAPE: usize = 64;

/// Learns templates from lines. Deterministic for the same lines in the same order.
#[derive(Debug)]
pub struct Miner {
    options: MinerOptions,
    entries: Vec<Entry>,
    index: HashMap<Box<[u8]>, usize>,
    /// Entries with merged positions and their tokens, by number of tokens and first token.
    patterns: HashMap<Shape, Vec<(usize, PatternTokens)>>,
    overflow: Counts,
    lines: [u64; 2],
    buffer: Vec<u8>,
    /// New skeletons to wait for before the next attempt to make room.
    patience: usize,
}

impl Default for Miner {
    fn default() -> Self {
        Self::new(MinerOptions::default())
    }
}

impl Miner {
    /// An empty miner.
    pub fn new(options: MinerOptions) -> Self {
        let options = MinerOptions { max_skeletons: options.max_skeletons.max(16), ..options };
        Self {
            options,
            entries: Vec::new(),
            index: HashMap::new(),
            patterns: HashMap::new(),
            overflow: Counts::new(),
            lines: [0; 2],
            buffer: Vec::with_capacity(mask::MAX_MASKED),
            patience: 0,
        }
    }

    /// Learns one line.
    pub fn observe(&mut self, period: Period, line: &LogLine<'_>) {
        self.lines[usize::from(period == Period::Baseline)] += 1;
        let extracted = extract::extract(line.body);
        let severity = line.severity.or(extracted.severity);
        let mut skeleton = std::mem::take(&mut self.buffer);
        mask::mask(&extracted.message, &mut skeleton);
        let entry = self.index.get(&skeleton[..]).copied().or_else(|| self.place(&skeleton));
        let counts = entry.and_then(|at| self.entries.get_mut(at)).map_or(&mut self.overflow, |entry| &mut entry.counts);
        counts.observe(period, line, severity, &self.options);
        self.buffer = skeleton;
    }

    /// Where a skeleton not seen before belongs: a merged pattern it fits, a new entry, or nowhere (overflow).
    fn place(&mut self, skeleton: &[u8]) -> Option<usize> {
        if let Some(found) = self.fitting_pattern(skeleton) {
            return Some(found);
        }
        if self.entries.len() >= self.options.max_skeletons {
            if self.patience > 0 {
                self.patience -= 1;
                return None;
            }
            self.make_room();
            if let Some(found) = self.fitting_pattern(skeleton) {
                return Some(found);
            }
            if self.entries.len() >= self.options.max_skeletons {
                self.patience = self.options.max_skeletons;
                return None;
            }
        }
        let at = self.entries.len();
        self.entries.push(Entry { skeleton: Box::from(skeleton), counts: Counts::new(), merged: false });
        self.index.insert(Box::from(skeleton), at);
        Some(at)
    }

    fn fitting_pattern(&self, skeleton: &[u8]) -> Option<usize> {
        if self.patterns.is_empty() {
            return None;
        }
        let tokens = merge::tokens(skeleton);
        let key = (tokens.len(), Box::from(*tokens.first()?));
        let fits = |pattern: &PatternTokens| pattern.iter().zip(&tokens).all(|(p, t)| **p == **t || merge::is_variable(p));
        self.patterns.get(&key)?.iter().find(|(_, pattern)| fits(pattern)).map(|(at, _)| *at)
    }

    /// Merges what is held; entries that became one template share one entry from then on.
    fn make_room(&mut self) {
        let groups = self.groups();
        let mut old: Vec<Option<Entry>> = std::mem::take(&mut self.entries).into_iter().map(Some).collect();
        self.index.clear();
        self.patterns.clear();
        for group in groups {
            let mut members = group.members.iter().filter_map(|id| old.get_mut(*id).and_then(Option::take));
            let Some(mut merged) = members.next() else { continue };
            for member in members {
                merged.merged = true;
                merged.counts.absorb(member.counts, &self.options);
            }
            merged.skeleton = group.skeleton().into_boxed_slice();
            let at = self.entries.len();
            if merged.merged {
                let tokens: PatternTokens = merge::tokens(&merged.skeleton).into_iter().map(Box::from).collect();
                let key = (tokens.len(), tokens.first().cloned().unwrap_or_default());
                let same_shape = self.patterns.entry(key).or_default();
                if same_shape.len() < MAX_PATTERNS_PER_SHAPE {
                    same_shape.push((at, tokens));
                }
            }
            self.index.insert(merged.skeleton.clone(), at);
            self.entries.push(merged);
        }
    }

    fn groups(&self) -> Vec<Group> {
        let lines = |entry: &Entry| entry.counts.current + entry.counts.baseline;
        merge::merge(self.entries.iter().enumerate().map(|(id, entry)| (id, &entry.skeleton[..], lines(entry))))
    }

    /// Lines learned, of both windows.
    pub fn lines(&self) -> u64 {
        self.lines.iter().sum()
    }

    /// The templates so far. `windows` gives the lengths of the two windows for rates; without them the rate change is
    /// left out. Cost grows with the number of skeletons, not of lines.
    pub fn report(&self, windows: Option<Windows>) -> TemplateReport {
        report::build(self, windows)
    }

    /// For each line of `bodies`, the index of its template in the order of [`Miner::report`] with equal lines; lines
    /// never learned give `None`. For evaluation against labelled data.
    pub fn assign<'b>(&self, bodies: impl IntoIterator<Item = &'b str>) -> Vec<Option<usize>> {
        let mut group_of = vec![0usize; self.entries.len()];
        for (group, held) in self.groups().iter().enumerate() {
            for member in &held.members {
                group_of[*member] = group;
            }
        }
        let mut skeleton = Vec::new();
        bodies
            .into_iter()
            .map(|body| {
                mask::mask(&extract::extract(body).message, &mut skeleton);
                let entry = self.index.get(&skeleton[..]).copied().or_else(|| self.fitting_pattern(&skeleton))?;
                group_of.get(entry).copied()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;

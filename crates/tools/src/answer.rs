//! The one shape every tool answers in: its own fields, then window, coverage, counts, cursor and hint, with a text that
//! says the same.
//!
//! Guards that an incomplete answer opens by saying so, that cut answers say how to see the rest, and that an answer no
//! source stood behind is marked failed. Must not know any tool.

use std::fmt::Write as _;
use std::sync::Arc;

use portcullis_model::{Coverage, CoverageState, TimeWindow, format_timestamp};
use portcullis_ports::{Outcome, Output, Total};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// An answer being put together.
#[derive(Debug)]
pub(crate) struct Answer {
    fields: Map<String, Value>,
    text: String,
    coverage: Vec<Coverage>,
    window: Option<TimeWindow>,
    counts: Counts,
    next: Option<String>,
    hints: Vec<String>,
    notes: Vec<String>,
    tolerant: bool,
}

/// How much there is and how much of it is in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Items in the answer.
    pub(crate) shown: u64,
    /// Items there are.
    pub(crate) total: Total,
    /// Whether something was left out.
    pub(crate) truncated: bool,
}

impl Counts {
    /// `shown` of `total`; truncated when that is not all.
    pub(crate) fn of(shown: usize, total: Total) -> Self {
        let shown = shown as u64;
        let truncated = match total {
            Total::Exact(all) => shown < all,
            Total::AtLeast(_) => true,
            Total::Unknown => false,
        };
        Self { shown, total, truncated }
    }

    /// A page of `shown` out of `total`; `more` says whether another page follows.
    pub(crate) fn page(shown: usize, total: Total, more: bool) -> Self {
        Self { shown: shown as u64, total, truncated: more }
    }

    /// `20 of 153`, `20 of at least 1000`, `20`.
    pub(crate) fn describe(&self) -> String {
        match self.total {
            Total::Exact(total) => format!("{} of {total}", self.shown),
            Total::AtLeast(total) => format!("{} of at least {total}", self.shown),
            Total::Unknown if self.truncated => format!("{} (there are more)", self.shown),
            Total::Unknown => self.shown.to_string(),
        }
    }
}

/// Sums totals: exact only when every part is.
pub(crate) fn sum_totals(parts: impl IntoIterator<Item = Total>) -> Total {
    parts.into_iter().fold(Total::Exact(0), |sum, part| match (sum, part) {
        (Total::Exact(a), Total::Exact(b)) => Total::Exact(a.saturating_add(b)),
        (Total::Unknown, _) | (_, Total::Unknown) => Total::Unknown,
        (Total::Exact(a) | Total::AtLeast(a), Total::Exact(b) | Total::AtLeast(b)) => Total::AtLeast(a.saturating_add(b)),
    })
}

impl Answer {
    /// An answer standing on `coverage`.
    pub(crate) fn new(coverage: Vec<Coverage>) -> Self {
        Self {
            fields: Map::new(),
            text: String::new(),
            coverage,
            window: None,
            counts: Counts { shown: 0, total: Total::Exact(0), truncated: false },
            next: None,
            hints: Vec::new(),
            notes: Vec::new(),
            tolerant: false,
        }
    }

    /// The window it is about.
    pub(crate) fn window(mut self, window: TimeWindow) -> Self {
        self.window = Some(window);
        self
    }

    /// One of the tool's own fields. A value that cannot be serialised is left out (plain data always can).
    pub(crate) fn field(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.fields.insert(name.to_owned(), value);
        }
        self
    }

    /// How much is shown.
    pub(crate) fn counts(mut self, counts: Counts) -> Self {
        self.counts = counts;
        self
    }

    /// Cursor of the next page; implies that something was left out.
    pub(crate) fn next(mut self, next: Option<String>) -> Self {
        self.counts.truncated |= next.is_some();
        self.next = next;
        self
    }

    /// How to narrow, or where to go on.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Something the reader must know about how the answer came to be.
    pub(crate) fn note(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }

    /// The body of the text.
    pub(crate) fn text(mut self, text: impl AsRef<str>) -> Self {
        self.text.push_str(text.as_ref().trim_end());
        self
    }

    /// The answer is about the sources themselves: their failure is content, not a failure of the answer.
    pub(crate) fn about_sources(mut self) -> Self {
        self.tolerant = true;
        self
    }

    fn nobody_answered(&self) -> bool {
        let asked = || self.coverage.iter().filter(|c| c.state != CoverageState::Skipped);
        asked().next().is_some() && asked().all(|c| c.state == CoverageState::Failed)
    }

    /// Structured result and its text.
    pub(crate) fn finish(self) -> Outcome {
        let failed = !self.tolerant && self.nobody_answered();
        let text = self.render(failed);
        let sources: Vec<Arc<str>> =
            self.coverage.iter().filter(|c| c.state != CoverageState::Skipped).map(|c| Arc::from(c.source.as_str())).collect();
        let mut output = Output::structured(Value::Object(self.structure()), text);
        output.failed = failed;
        output.sources = sources;
        Outcome::Complete(output)
    }

    fn structure(self) -> Map<String, Value> {
        let mut whole = Map::new();
        if let Some(window) = self.window {
            whole.insert(
                "window".to_owned(),
                json!({"start": format_timestamp(window.start), "end": format_timestamp(window.end)}),
            );
        }
        whole.extend(self.fields);
        whole.insert("coverage".to_owned(), json!(self.coverage));
        whole.insert("shown".to_owned(), json!(self.counts.shown));
        match self.counts.total {
            Total::Exact(total) => whole.insert("total".to_owned(), json!(total)),
            Total::AtLeast(total) => whole.insert("total_at_least".to_owned(), json!(total)),
            Total::Unknown => None,
        };
        whole.insert("truncated".to_owned(), json!(self.counts.truncated));
        if let Some(next) = self.next {
            whole.insert("next".to_owned(), json!(next));
        }
        if !self.notes.is_empty() {
            whole.insert("notes".to_owned(), json!(self.notes));
        }
        if !self.hints.is_empty() {
            whole.insert("hint".to_owned(), json!(self.hints.join("; ")));
        }
        whole
    }

    fn render(&self, failed: bool) -> String {
        let mut text = String::new();
        let reasons = |wanted: CoverageState| -> Vec<String> {
            let chosen = self.coverage.iter().filter(|c| c.state == wanted);
            chosen.map(|c| format!("{} ({})", c.source, c.reason.as_deref().unwrap_or("no reason given"))).collect()
        };
        let (dead, partial) = (reasons(CoverageState::Failed), reasons(CoverageState::Partial));
        if failed {
            let _ = writeln!(text, "FAILED: no source could answer, so nothing is known either way. {}", dead.join("; "));
        } else {
            if !dead.is_empty() {
                let _ = writeln!(text, "INCOMPLETE: no answer from {}. What it holds is unknown.", dead.join("; "));
            }
            if !partial.is_empty() {
                let _ = writeln!(text, "PARTIAL: {}", partial.join("; "));
            }
            text.push_str(&self.text);
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if !failed {
            if let Some(next) = &self.next {
                let _ = writeln!(text, "more: cursor={next}");
            }
            if !self.hints.is_empty() {
                let _ = writeln!(text, "hint: {}", self.hints.join("; "));
            }
            let answered: Vec<&str> = self
                .coverage
                .iter()
                .filter(|c| matches!(c.state, CoverageState::Answered | CoverageState::Partial))
                .map(|c| c.source.as_str())
                .collect();
            let empty: Vec<&str> =
                self.coverage.iter().filter(|c| c.state == CoverageState::Empty).map(|c| c.source.as_str()).collect();
            if !answered.is_empty() {
                let _ = write!(text, "sources: {}", answered.join(", "));
            }
            if !empty.is_empty() {
                let separator = if answered.is_empty() { "" } else { "; " };
                let _ = write!(text, "{separator}looked and found nothing: {}", empty.join(", "));
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::SourceName;
    use portcullis_ports::Content;

    fn name(text: &str) -> SourceName {
        SourceName::new(text).unwrap()
    }

    fn complete(outcome: Outcome) -> (Output, String) {
        let Outcome::Complete(output) = outcome else { panic!("not complete") };
        let Some(Content::Text(text)) = output.content.first().cloned() else { panic!("no text") };
        (output, text)
    }

    #[test]
    fn an_answer_nobody_stands_behind_is_failed() {
        let coverage = vec![Coverage::failed(name("a"), "down"), Coverage::failed(name("b"), "no answer within 10s")];
        let (output, text) = complete(Answer::new(coverage).text("no matching records").finish());
        assert!(output.failed);
        assert!(text.starts_with("FAILED: no source could answer"), "{text}");
        assert!(!text.contains("no matching records"), "{text}");
        assert_eq!(output.structured.unwrap()["coverage"][1]["reason"], "no answer within 10s");
    }

    #[test]
    fn a_failure_beside_an_answer_comes_first() {
        let coverage = vec![Coverage::failed(name("a"), "down"), Coverage::answered(name("b"), false)];
        let (output, text) = complete(Answer::new(coverage).text("no matching records").finish());
        assert!(!output.failed);
        assert!(text.starts_with("INCOMPLETE: no answer from a (down)."), "{text}");
        assert!(text.contains("looked and found nothing: b"), "{text}");
    }

    #[test]
    fn totals_stay_honest() {
        assert_eq!(sum_totals([Total::Exact(2), Total::Exact(3)]), Total::Exact(5));
        assert_eq!(sum_totals([Total::Exact(2), Total::AtLeast(3)]), Total::AtLeast(5));
        assert_eq!(sum_totals([Total::AtLeast(2), Total::Unknown]), Total::Unknown);
        assert!(Counts::of(2, Total::Exact(3)).truncated);
        assert!(!Counts::of(3, Total::Exact(3)).truncated);
    }
}

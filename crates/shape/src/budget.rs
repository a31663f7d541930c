//! Fitting an answer into a budget: parts degrade to shorter forms or go, least important first, and the answer says so.
//!
//! Guards that an answer neither exceeds its budget nor hides that something is missing. Must not know what a part means.

use std::fmt::Write as _;

use serde::Serialize;

use crate::tokens;

/// How much an answer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Estimated tokens.
    pub tokens: usize,
    /// Bytes of UTF-8.
    pub bytes: usize,
}

impl Budget {
    /// A token budget without a limit on bytes.
    pub fn tokens(tokens: usize) -> Self {
        Self { tokens, bytes: usize::MAX }
    }

    /// Whether `text` fits.
    pub fn holds(&self, text: &str) -> bool {
        text.len() <= self.bytes && tokens::estimate(text) <= self.tokens
    }
}

/// One rendered part of an answer.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is called when it has to go, such as `slowest traces`.
    pub name: String,
    /// Higher stays longer.
    pub priority: u8,
    /// The part in full first, then shorter forms that say themselves that they are shorter. Never empty.
    forms: Vec<String>,
}

impl Part {
    /// A part with one form.
    pub fn new(name: impl Into<String>, priority: u8, text: impl Into<String>) -> Self {
        Self { name: name.into(), priority, forms: vec![text.into()] }
    }

    /// Adds a shorter form, tried before the part is dropped. Add them from long to short.
    #[must_use]
    pub fn or_shorter(mut self, text: impl Into<String>) -> Self {
        self.forms.push(text.into());
        self
    }
}

/// A part that did not make it in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Its name.
    pub name: String,
    /// Estimated tokens the full form would have cost.
    pub tokens: usize,
    /// Whether a shorter form is shown in its place.
    pub shortened: bool,
}

/// What fitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// The parts in their given order, one blank line between them, and a closing line naming what is missing.
    pub text: String,
    /// Parts shortened or dropped, in their given order.
    pub dropped: Vec<Dropped>,
    /// Whether even the last part had to be cut.
    pub cut: bool,
}

/// Fits `parts` (kept in order) into `budget`.
///
/// The least important part first takes its shorter forms and then goes; among equals the later one yields. The most
/// important part always stays: if it alone is too large, it is cut at a line end and the cut is stated. A budget too small
/// for that statement is exceeded by it.
pub fn fit(parts: &[Part], budget: Budget) -> Fitted {
    let mut chosen: Vec<Option<usize>> = vec![Some(0); parts.len()];
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|a, b| parts[*a].priority.cmp(&parts[*b].priority).then(b.cmp(a)));
    let mut victims = order.iter().copied().peekable();
    loop {
        let text = assemble(parts, &chosen);
        if budget.holds(&text) {
            return Fitted { text, dropped: missing(parts, &chosen), cut: false };
        }
        let Some(victim) = victims.peek().copied() else { break };
        let is_last = victims.len() == 1;
        match chosen[victim] {
            Some(form) if form + 1 < parts[victim].forms.len() => chosen[victim] = Some(form + 1),
            Some(_) if !is_last => {
                chosen[victim] = None;
                victims.next();
            }
            _ => break,
        }
    }
    Fitted { text: cut_to(&assemble(parts, &chosen), budget), dropped: missing(parts, &chosen), cut: true }
}

fn missing(parts: &[Part], chosen: &[Option<usize>]) -> Vec<Dropped> {
    let changed = |(part, form): (&Part, &Option<usize>)| {
        (*form != Some(0)).then(|| Dropped {
            name: part.name.clone(),
            tokens: part.forms.first().map_or(0, |full| tokens::estimate(full)),
            shortened: form.is_some(),
        })
    };
    parts.iter().zip(chosen).filter_map(changed).collect()
}

fn assemble(parts: &[Part], chosen: &[Option<usize>]) -> String {
    let mut text = String::new();
    for (part, form) in parts.iter().zip(chosen) {
        let Some(shown) = form.and_then(|form| part.forms.get(form)) else { continue };
        if !text.is_empty() && !shown.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(shown.trim_end());
    }
    let missing = missing(parts, chosen);
    if !missing.is_empty() {
        text.push_str("\n\nLeft out to fit the budget:");
        for (index, part) in missing.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let how = if part.shortened { ", shortened" } else { "" };
            let _ = write!(text, "{comma} {} (~{} tokens{how})", part.name, part.tokens);
        }
    }
    text
}

/// Cuts at a line end so that the text and the note about the cut fit.
fn cut_to(text: &str, budget: Budget) -> String {
    let total = text.lines().count();
    let render = |lines: usize| {
        let mut out: String = text.lines().take(lines).fold(String::new(), |mut out, line| {
            out.push_str(line);
            out.push('\n');
            out
        });
        let _ = write!(out, "[cut: {lines} of {total} lines fit the budget]");
        out
    };
    let (mut low, mut high) = (0, total);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if budget.holds(&render(middle)) { low = middle } else { high = middle - 1 }
    }
    render(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_or_the_least_important_goes_and_is_named() {
        let parts = [
            Part::new("summary", 9, "checkout is degraded"),
            Part::new("log lines", 1, "line of text\n".repeat(200)),
            Part::new("patterns", 5, "pattern one\npattern two"),
        ];
        let all = fit(&parts, Budget::tokens(10_000));
        assert!(all.dropped.is_empty() && all.text.contains("pattern two"));
        let small = fit(&parts, Budget::tokens(60));
        assert!(small.text.starts_with("checkout is degraded\n\npattern one"), "{}", small.text);
        assert!(small.text.contains("Left out to fit the budget: log lines (~"), "{}", small.text);
        assert!(Budget::tokens(60).holds(&small.text));
        assert!(!small.cut);
    }

    #[test]
    fn shorter_forms_are_tried_first() {
        let parts = [
            Part::new("summary", 9, "ok"),
            Part::new("rows", 1, "row of words\n".repeat(100)).or_shorter("row of words (1 of 100 rows)"),
        ];
        let fitted = fit(&parts, Budget::tokens(40));
        assert!(fitted.text.contains("1 of 100 rows"));
        assert_eq!(fitted.dropped.len(), 1);
        assert!(fitted.dropped[0].shortened);
    }

    #[test]
    fn the_most_important_part_is_cut_not_dropped() {
        let parts = [Part::new("table", 9, "first\nsecond row of it\n".repeat(50))];
        let fitted = fit(&parts, Budget::tokens(40));
        assert!(fitted.cut && fitted.text.starts_with("first\n") && fitted.text.contains("of 100 lines fit the budget]"));
        assert!(Budget::tokens(40).holds(&fitted.text));
    }

    proptest::proptest! {
        #[test]
        fn the_budget_holds_and_nothing_is_missing_unsaid(
            texts in proptest::collection::vec(("[a-z]{1,8}", 0u8..5, "([a-z]{1,9}[ \n]){1,60}"), 1..8),
            tokens in 60usize..400,
        ) {
            let parts: Vec<Part> = texts.iter().map(|(name, priority, text)| Part::new(name, *priority, text)).collect();
            let fitted = fit(&parts, Budget::tokens(tokens));
            proptest::prop_assert!(fitted.cut || Budget::tokens(tokens).holds(&fitted.text), "{}", fitted.text);
            for part in &parts {
                let whole = fitted.text.contains(part.forms[0].trim_end());
                proptest::prop_assert!(whole || fitted.cut || fitted.dropped.iter().any(|d| d.name == part.name));
            }
        }
    }

    #[test]
    fn bytes_count_too() {
        let parts = [Part::new("a", 9, "short"), Part::new("b", 1, "x".repeat(500))];
        let fitted = fit(&parts, Budget { tokens: 10_000, bytes: 120 });
        assert!(fitted.text.len() <= 120 && fitted.dropped.len() == 1);
    }
}

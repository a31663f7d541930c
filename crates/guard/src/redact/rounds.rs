//! The work on one answer: a text is looked at, what was found is replaced, and what the change may have touched is looked at
//! again, until nothing is found. Must never make text that it would change again.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use super::events::Steps;
use super::personal::Personal;
use super::pseudonyms::Pseudonyms;
use super::scan::{self, Found, Judged, Look, Mark, Span};
use super::value::Names;
use super::{Redactions, TenantRedactor, fields, quick};

/// A word of fewer letters holds nothing that is looked for.
const SHORTEST: usize = 15;

/// Every byte in two digits.
const HEX: &str = concat!(
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
    "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f",
    "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f",
    "909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf",
    "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef",
    "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
);

/// Most looks at one text.
const ROUNDS: usize = 12;

/// What the texts of one answer have in common.
#[derive(Debug)]
pub(super) struct Work<'r> {
    pub(super) of: TenantRedactor<'r>,
    pub(super) names: Names,
    pseudonyms: Pseudonyms<'r>,
    steps: Steps,
}

impl<'r> Work<'r> {
    pub(super) fn new(of: TenantRedactor<'r>) -> Self {
        Self { of, names: Names::default(), pseudonyms: Pseudonyms::of(of.tenant), steps: Steps::default() }
    }

    /// Redacts one text; `random` says whether a random string counts as a secret here. A mark can be the border that a
    /// neighbour lacked, so what was changed is looked at again, until nothing is found.
    pub(super) fn scrub<'t>(&mut self, text: &'t str, random: bool, found: &mut Redactions) -> Cow<'t, str> {
        // Names of fields, levels and other words: too short for a credential, and without a sign that starts anything.
        let word = || text.len() < SHORTEST && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if self.of.redactor.inner.extra.is_empty() && (word() || quick::is_time(text.as_bytes())) {
            return Cow::Borrowed(text);
        }
        self.rounds(text, random, found, ROUNDS)
    }

    fn rounds<'t>(&mut self, text: &'t str, random: bool, found: &mut Redactions, most: usize) -> Cow<'t, str> {
        let mut current = Cow::Borrowed(text);
        for left in (0..most).rev() {
            let Some((clean, again)) = self.round(&current, random, found) else { break };
            current = Cow::Owned(match again {
                Again::Whole => clean,
                Again::Nothing => return Cow::Owned(clean),
                Again::Lines(lines) => return Cow::Owned(self.lines(clean, &lines, random, found, left)),
            });
        }
        current
    }

    /// Looks once more at some lines of a text.
    fn lines(&mut self, text: String, lines: &[Range<usize>], random: bool, found: &mut Redactions, most: usize) -> String {
        if most == 0 || lines.is_empty() {
            return text;
        }
        let mut clean = String::new();
        let mut from = 0;
        for line in lines {
            if let Cow::Owned(better) = self.rounds(&text[line.clone()], random, found, most) {
                clean.push_str(&text[from..line.start]);
                clean.push_str(&better);
                from = line.end;
            }
        }
        if from == 0 {
            return text;
        }
        clean.push_str(&text[from..]);
        clean
    }

    /// The text without what was found in it, and what has to be looked at once more.
    fn round(&mut self, text: &str, random: bool, found: &mut Redactions) -> Option<(String, Again)> {
        let inner = &self.of.redactor.inner;
        let look = Look { random, ..self.of.redactor.look() };
        let Found { mut spans, mut judged, wide } = scan::find_with(look, text, &mut self.steps);
        for (index, (_, pattern)) in inner.extra.iter().enumerate() {
            spans.extend(pattern.captures_iter(text).filter_map(|captures| {
                let hit = captures.name("v").or_else(|| captures.get(0)).filter(|m| !m.is_empty())?;
                Some(Span { start: hit.start(), end: hit.end(), mark: Mark::Extra(index), rank: 1_000 })
            }));
        }
        if spans.is_empty() {
            return None;
        }
        let spans = settle(text, spans);
        if spans.is_empty() {
            return None;
        }
        let whole = wide || !inner.extra.is_empty();
        judged.sort_unstable_by_key(|judged| judged.from);
        let mut judges = Judges::new(text.as_bytes(), &judged);
        let mut lines: Vec<Range<usize>> = Vec::new();
        let mut clean = String::with_capacity(text.len() + 16 * spans.len());
        let mut from = 0;
        for span in spans {
            clean.push_str(&text[from..span.start]);
            let start = clean.len();
            self.write(&mut clean, &text[span.start..span.end], span.mark, found);
            from = span.end;
            if !whole && (!stands_alone(text.as_bytes(), &span) || judges.judge_by(&span)) {
                lines.push(start..clean.len());
            }
        }
        clean.push_str(&text[from..]);
        let again = match (whole, lines.is_empty()) {
            (true, _) => Again::Whole,
            (false, true) => Again::Nothing,
            (false, false) => Again::Lines(lines_around(clean.as_bytes(), &lines)),
        };
        Some((clean, again))
    }

    fn write(&mut self, clean: &mut String, original: &str, mark: Mark, found: &mut Redactions) {
        // Writing to a String cannot fail.
        let _ = match mark {
            Mark::Secret(kind) => {
                found.add(kind);
                clean.push_str("[redacted:");
                clean.push_str(kind);
                clean.push(']');
                Ok(())
            }
            Mark::Extra(index) => {
                found.add("extra-pattern");
                write!(clean, "[redacted:{}]", self.of.redactor.inner.extra[index].0)
            }
            Mark::Personal(kind) => {
                found.add(kind.name());
                // Written by hand: one of these stands in every line of an access log.
                clean.push('[');
                clean.push_str(kind.name());
                clean.push(':');
                let number = self.pseudonyms.number(self.of.redactor, kind, original);
                for byte in number.to_be_bytes() {
                    let place = usize::from(byte) * 2;
                    clean.push_str(&HEX[place..place + 2]);
                }
                clean.push(']');
                Ok(())
            }
        };
    }
}

/// What has to be looked at once more after a change.
enum Again {
    Nothing,
    /// These lines: nothing that was seen reaches over the end of its line.
    Lines(Vec<Range<usize>>),
    Whole,
}

/// The lines that marks stand in, each once, without their line breaks.
fn lines_around(bytes: &[u8], marks: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut lines: Vec<Range<usize>> = Vec::with_capacity(marks.len());
    for mark in marks {
        if lines.last().is_some_and(|line| mark.end <= line.end) {
            continue;
        }
        lines.push(line_around(bytes, mark.start, mark.end));
    }
    lines
}

fn line_around(bytes: &[u8], start: usize, end: usize) -> Range<usize> {
    let from = memchr::memrchr(b'\n', &bytes[..start]).map_or(0, |n| n + 1);
    let to = memchr::memchr(b'\n', &bytes[end..]).map_or(bytes.len(), |n| end + n);
    from..to
}

/// The names of secrets in a text, asked stretch by stretch in the order of the text: nothing is gone over twice.
struct Judges<'j> {
    bytes: &'j [u8],
    judged: std::iter::Peekable<std::slice::Iter<'j, Judged>>,
    line: Range<usize>,
    /// Behind the last byte of this line that told something so far.
    reach: usize,
}

impl<'j> Judges<'j> {
    /// `judged` in order.
    fn new(bytes: &'j [u8], judged: &'j [Judged]) -> Self {
        Self { bytes, judged: judged.iter().peekable(), line: 0..0, reach: 0 }
    }

    /// Whether a name in the line of a stretch was judged by what is replaced there, or by the bytes beside it.
    fn judge_by(&mut self, span: &Span) -> bool {
        if self.judged.peek().is_none() && self.reach == 0 {
            return false;
        }
        if span.start >= self.line.end {
            self.line = line_around(self.bytes, span.start, span.end);
            self.reach = 0;
            while self.judged.next_if(|judged| judged.from < self.line.start).is_some() {}
        }
        while let Some(judged) = self.judged.next_if(|judged| judged.from <= span.end) {
            self.reach = self.reach.max(judged.to.saturating_add(1));
        }
        self.reach > span.start
    }
}

/// Whether an IPv4 address stands between such borders that its mark changes nothing for its neighbours: no number in front
/// that it could have kept from being a telephone's, and no sign around it that could join it to anything.
fn stands_alone(bytes: &[u8], span: &Span) -> bool {
    let address =
        span.mark == Mark::Personal(Personal::Ip) && bytes[span.start..span.end].iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let left = matches!(&bytes[..span.start], [] | [.., b'\n' | b'"' | b'=' | b'['] | [.., b'a'..=b'z', b' ']);
    let behind = &bytes[span.end..];
    let behind = if let [b']' | b',' | b':' | b';', rest @ ..] = behind { rest } else { behind };
    address && left && matches!(behind, [] | [b'\n' | b'"' | b' ', ..])
}

/// Brings stretches into order, none touching another. What crosses is joined, so nothing between them stays; of one
/// inside another the outer mark holds. Marks already there are left alone.
fn settle(text: &str, mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|s| s.start < s.end && text.is_char_boundary(s.start) && text.is_char_boundary(s.end));
    let order = |a: &Span, b: &Span| a.start.cmp(&b.start).then(b.end.cmp(&a.end)).then(b.rank.cmp(&a.rank));
    if !spans.is_sorted_by(|a, b| order(a, b).is_le()) {
        spans.sort_by(order);
    }
    let mut settled: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match settled.last_mut() {
            Some(last) if span.start < last.end => {
                let personal = |s: &Span| matches!(s.mark, Mark::Personal(_));
                // A secret inside personal data is a secret all the same, and a known format says more than a measure.
                let vague = last.rank <= scan::RANK_RANDOM && span.rank > last.rank;
                if (span.end > last.end && span.rank > last.rank) || (personal(last) && !personal(&span)) || vague {
                    last.mark = span.mark;
                    last.rank = span.rank;
                }
                last.end = last.end.max(span.end);
            }
            _ => settled.push(span),
        }
    }
    settled.retain(|s| !fields::is_marker(&text.as_bytes()[s.start..s.end]));
    settled
}

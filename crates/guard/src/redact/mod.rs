//! Secrets go, keys stay; people become pseudonyms. The one place where text on its way out is looked through. Works on text
//! and on JSON, in time linear in both. Must never make text that it would change again.

mod commands;
mod encoded;
mod fields;
mod manifest;
mod numbers;
mod personal;
mod places;
mod quick;
mod runs;
mod scan;
mod settings;
mod signs;
mod tables;
#[cfg(test)]
mod thorough;
mod tokens;
mod told;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use rand::TryRng;
use regex::Regex;
use serde_json::Value;

pub(crate) use encoded::unzip;
use personal::Personal;
use scan::{Look, Mark, Span, Tables};
pub use settings::{ALLOW_SECRETS, AddressMode, ExtraPattern, PersonalSettings, RedactionFault, RedactionSettings, Switch};

/// How many values of each category were taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redactions(BTreeMap<&'static str, u64>);

impl Redactions {
    pub(crate) fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Category and count, by category.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(k, n)| (*k, *n))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }
}

/// Finds and replaces secrets and personal data in text and JSON. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redactor {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Tables,
    settings: RedactionSettings,
    extra: Vec<(String, Regex)>,
    /// Key of the pseudonyms.
    key: [u8; 32],
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Separates this use of the pepper from every other (BLAKE3, key derivation mode).
const CONTEXT: &str = "portcullis 2026-11 pseudonyms of personal data in answers";

/// A word of fewer letters holds nothing that is looked for.
const SHORTEST: usize = 15;

/// Most looks at one text.
const ROUNDS: usize = 12;

impl Redactor {
    /// Default settings, with pseudonyms that hold for the life of this process.
    ///
    /// # Errors
    /// When a built-in table does not compile or the system gives no random key: reported instead of ignored.
    pub fn new() -> Result<Self, String> {
        let mut pepper = [0_u8; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut pepper).map_err(|e| format!("no random key for pseudonyms: {e}"))?;
        Self::with_settings(&RedactionSettings::default(), &pepper)
    }

    /// Settings of the operator's. `pepper` is the installation's secret: replicas that share it write the same
    /// pseudonyms, and nobody without it can find the value behind one by trying.
    ///
    /// # Errors
    /// A sentence naming the setting that is wrong and what would be right.
    pub fn with_settings(settings: &RedactionSettings, pepper: &[u8]) -> Result<Self, String> {
        let extra = settings.compile().map_err(|e| e.to_string())?;
        let key = blake3::derive_key(CONTEXT, pepper);
        Ok(Self { inner: Arc::new(Inner { tables: Tables::new()?, settings: settings.clone(), extra, key }) })
    }

    /// What it was built from.
    pub fn settings(&self) -> &RedactionSettings {
        &self.inner.settings
    }

    /// Replaces secrets in `text` by `[redacted:kind]` and personal data by pseudonyms of no tenant.
    pub fn text<'t>(&self, text: &'t str, found: &mut Redactions) -> Cow<'t, str> {
        self.for_tenant("").text(text, found)
    }

    /// Redacts every string of a JSON value, keys included; a field whose name says it is a secret loses its value.
    pub fn value(&self, value: &mut Value, found: &mut Redactions) {
        self.for_tenant("").value(value, found);
    }

    /// The same with the pseudonyms of one tenant: equal values of two tenants get different marks.
    pub fn for_tenant<'r>(&'r self, tenant: &'r str) -> TenantRedactor<'r> {
        TenantRedactor { redactor: self, tenant }
    }

    fn look(&self) -> Look<'_> {
        Look {
            tables: &self.inner.tables,
            settings: &self.inner.settings,
            random: true,
            decoded: false,
            unescaped: 0,
            thorough: false,
        }
    }
}

/// A [`Redactor`] for the data of one tenant.
#[derive(Debug, Clone, Copy)]
pub struct TenantRedactor<'r> {
    redactor: &'r Redactor,
    tenant: &'r str,
}

impl TenantRedactor<'_> {
    /// As [`Redactor::text`].
    pub fn text<'t>(&self, text: &'t str, found: &mut Redactions) -> Cow<'t, str> {
        self.scrub(text, true, found)
    }

    /// As [`Redactor::value`].
    pub fn value(&self, value: &mut Value, found: &mut Redactions) {
        self.json(value, found);
    }

    /// Whether bytes that are no text hold a secret. Random strings count for nothing there; personal data neither.
    pub(crate) fn holds_a_secret(&self, text: &str, compressed: bool) -> bool {
        let look = Look { random: compressed, ..self.redactor.look() };
        scan::find(look, text).spans.iter().any(|span| matches!(span.mark, Mark::Secret(_)))
            || self.redactor.inner.extra.iter().any(|(_, pattern)| pattern.is_match(text))
    }

    /// Redacts one text; `random` says whether a random string counts as a secret here. A mark can be the border that a
    /// neighbour lacked, so what was changed is looked at again, until nothing is found.
    pub(super) fn scrub<'t>(&self, text: &'t str, random: bool, found: &mut Redactions) -> Cow<'t, str> {
        // Names of fields, levels and other words: too short for a credential, and without a sign that starts anything.
        if text.len() < SHORTEST
            && self.redactor.inner.extra.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            return Cow::Borrowed(text);
        }
        self.rounds(text, random, found, ROUNDS)
    }

    fn rounds<'t>(&self, text: &'t str, random: bool, found: &mut Redactions, most: usize) -> Cow<'t, str> {
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
    fn lines(&self, text: String, lines: &[Range<usize>], random: bool, found: &mut Redactions, most: usize) -> String {
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
    fn round(&self, text: &str, random: bool, found: &mut Redactions) -> Option<(String, Again)> {
        let scan::Found { mut spans, named, wide } = scan::find(Look { random, ..self.redactor.look() }, text);
        for (index, (_, pattern)) in self.redactor.inner.extra.iter().enumerate() {
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
        let whole = wide || !self.redactor.inner.extra.is_empty();
        let mut lines: Vec<Range<usize>> = Vec::new();
        let mut clean = String::with_capacity(text.len() + 16 * spans.len());
        let mut from = 0;
        for span in spans {
            clean.push_str(&text[from..span.start]);
            let start = clean.len();
            self.write(&mut clean, &text[span.start..span.end], span.mark, found);
            from = span.end;
            if !whole && (named || !stands_alone(text.as_bytes(), &span)) {
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

    fn write(&self, clean: &mut String, original: &str, mark: Mark, found: &mut Redactions) {
        // Writing to a String cannot fail.
        let _ = match mark {
            Mark::Secret(kind) => {
                found.add(kind);
                write!(clean, "[redacted:{kind}]")
            }
            Mark::Extra(index) => {
                found.add("extra-pattern");
                write!(clean, "[redacted:{}]", self.redactor.inner.extra[index].0)
            }
            Mark::Personal(kind) => {
                found.add(kind.name());
                // Written by hand: one of these stands in every line of an access log.
                clean.push('[');
                clean.push_str(kind.name());
                clean.push(':');
                let number = self.pseudonym(kind, original);
                let mut digits = *b"00000000]";
                for (place, digit) in digits.iter_mut().zip((0..8).rev()) {
                    *place = b"0123456789abcdef"[(number >> (digit * 4) & 15) as usize];
                }
                clean.push_str(std::str::from_utf8(&digits).unwrap_or_default());
                Ok(())
            }
        };
    }

    /// The pseudonym: 32 bits, so that of ten thousand values in one answer about one pair in a hundred answers collides.
    fn pseudonym(&self, kind: Personal, original: &str) -> u32 {
        let plain = if encoded::has_escapes(original.as_bytes()) { encoded::plain(original, false) } else { None };
        let value = personal::canonical(kind, plain.as_ref().map_or(original, |p| p.text.as_str()));
        let parts = [self.tenant, kind.name(), &value];
        let length = parts.iter().map(|part| 8 + part.len()).sum();
        // Nearly always short: an access log has one in every line.
        let mut short = [0_u8; 128];
        let mut long = Vec::new();
        let named = if length <= short.len() {
            &mut short[..length]
        } else {
            long.resize(length, 0);
            &mut long[..]
        };
        let mut rest = &mut *named;
        for part in parts {
            for bytes in [&(part.len() as u64).to_le_bytes()[..], part.as_bytes()] {
                let (here, behind) = rest.split_at_mut(bytes.len());
                here.copy_from_slice(bytes);
                rest = behind;
            }
        }
        let hash = blake3::keyed_hash(&self.redactor.inner.key, named);
        let [a, b, c, d, ..] = hash.as_bytes();
        u32::from_le_bytes([*a, *b, *c, *d])
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
        let start = memchr::memrchr(b'\n', &bytes[..mark.start]).map_or(0, |n| n + 1);
        let end = memchr::memchr(b'\n', &bytes[mark.end..]).map_or(bytes.len(), |n| mark.end + n);
        lines.push(start..end);
    }
    lines
}

/// Whether an IPv4 address stands between such borders that its mark changes nothing for its neighbours: no number in front
/// that it could have kept from being a telephone's, and no sign around it that could join it to anything.
fn stands_alone(bytes: &[u8], span: &Span) -> bool {
    let left = matches!(&bytes[..span.start], [] | [.., b'\n' | b'"'] | [.., b'a'..=b'z', b' ']);
    let right = matches!(bytes.get(span.end), None | Some(b'\n' | b'"' | b' '));
    let address =
        span.mark == Mark::Personal(Personal::Ip) && bytes[span.start..span.end].iter().all(|b| b.is_ascii_digit() || *b == b'.');
    left && right && address
}

/// Brings stretches into order, none touching another. What crosses is joined, so nothing between them stays; of one
/// inside another the outer mark holds. Marks already there are left alone.
fn settle(text: &str, mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|s| s.start < s.end && text.is_char_boundary(s.start) && text.is_char_boundary(s.end));
    spans.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)).then(b.rank.cmp(&a.rank)));
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

//! One look at a text: where something has to go. One walk goes from one telling byte to the next (`=`, `:`, `@`, a dot
//! between digits, a long run), so ordinary text costs little. Linear in the text.

use std::collections::BTreeMap;

use fearless_simd::Level;

use super::encoded;
use super::events::Steps;
use super::fields::{self, Name, Place, Strength};
use super::manifest;
use super::personal::Personal;
use super::places;
use super::quick;
use super::settings::RedactionSettings;
use super::signs::Signs;
use super::tables::Column;
use super::tokens::{Seen, Starts};

/// What a stretch of text is replaced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// `[redacted:kind]`
    Secret(&'static str),
    /// `[redacted:name]` of an operator's pattern, by its index.
    Extra(usize),
    /// A pseudonym.
    Personal(Personal),
}

/// A stretch of text that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) mark: Mark,
    /// Which mark stays where two stretches are the same or cross.
    pub(super) rank: u16,
}

const RANK_PERSONAL: u16 = 0;
pub(super) const RANK_RANDOM: u16 = 10;
pub(super) const RANK_FIELD: u16 = 20;
pub(super) const RANK_PLACE: u16 = 30;
pub(super) const RANK_SHAPE: u16 = 100;
pub(super) const RANK_BLOCK: u16 = 200;

/// Bytes of the value of a weak name that are judged first, and the most that the value of `name` is looked for in.
const WEAK: usize = 1_024;
/// Bytes in which the value of a word of another script shows whether it is prose.
const NEAR: usize = 256;
/// How often escapes are undone: JSON in JSON in JSON.
const UNESCAPED: u8 = 3;
/// What does not depend on the text.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) starts: Starts,
    /// How many bytes this machine compares at once.
    pub(super) level: Level,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self { starts: Starts::new(), level: Level::new() }
    }
}

/// How a text is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'s> {
    pub(super) tables: &'s Tables,
    pub(super) settings: &'s RedactionSettings,
    /// Whether random strings count; not where the field's name says it is an id.
    pub(super) random: bool,
    /// Whether this text was decoded from another already: then nothing in it is decoded again.
    pub(super) decoded: bool,
    /// How often its escapes were undone already.
    pub(super) unescaped: u8,
    /// Whether cheap reasons to look no further are left out: what tests compare with.
    pub(super) thorough: bool,
}

/// Finds what has to go in `text`.
pub(super) fn find(look: Look<'_>, text: &str) -> Found {
    find_with(look, text, &mut Steps::default())
}

/// The same, with room from an earlier look.
pub(super) fn find_with(look: Look<'_>, text: &str, steps: &mut Steps) -> Found {
    let bytes = text.as_bytes();
    let mut scan = Scan {
        look,
        bytes,
        spans: Vec::new(),
        manifest: false,
        wide: false,
        user_info: usize::MAX,
        judged: Vec::new(),
        passed: Passed::default(),
        flags_passed: [Passed::default(); 2],
        parts: 0,
        seen: Seen::default(),
        columns: BTreeMap::new(),
    };
    scan.look_through(text, steps);
    Found { spans: scan.spans, judged: scan.judged, wide: scan.wide }
}

pub(super) struct Scan<'s> {
    pub(super) look: Look<'s>,
    pub(super) bytes: &'s [u8],
    spans: Vec<Span>,
    manifest: bool,
    /// The `@` of the last URL with credentials: no mail address.
    pub(super) user_info: usize,
    /// The names of secrets that were seen, with what they were judged by: a mark in there can change the judgement.
    pub(super) judged: Vec<Judged>,
    /// Whether something was seen that reaches over the end of its line: a table, a block, a value of several lines.
    pub(super) wide: bool,
    /// What fields took with them, and what flags of one and of two hyphens did.
    passed: Passed,
    flags_passed: [Passed; 2],
    /// Where the last part of a JWT ends.
    pub(super) parts: usize,
    /// Where formats were looked for already.
    pub(super) seen: Seen,
    /// Up to where columns of tables were followed already.
    pub(super) columns: BTreeMap<Column, usize>,
}

/// What needs no look of its own any more.
#[derive(Debug, Clone, Copy, Default)]
struct Passed {
    /// Where the last value of a field that goes ends.
    covered: usize,
    /// Where the last list under a secret's name ends.
    listed: usize,
}

/// The name of a secret, and up to where the bytes lie that told what its value is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What one look found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) spans: Vec<Span>,
    /// The names of secrets in the text, with or without a value that goes.
    pub(super) judged: Vec<Judged>,
    /// Whether something reached over the end of a line. If not, a line without a change needs no second look.
    pub(super) wide: bool,
}

impl Scan<'_> {
    fn look_through(&mut self, text: &str, steps: &mut Steps) {
        if !self.look.thorough && quick::is_time(self.bytes) {
            return;
        }
        let signs = self.every_sign(steps);
        if self.look.settings.secrets_go() && memchr::memchr(b'\n', self.bytes).is_some() {
            self.commas();
        }
        if self.manifest {
            self.wide = true;
            let bytes = self.bytes;
            manifest::values(bytes, |start, end| {
                if !fields::harmless(&bytes[start..end]) {
                    self.spans.push(Span { start, end, mark: Mark::Secret("kubernetes-secret"), rank: RANK_BLOCK });
                }
            });
        }
        if signs.escape && self.look.unescaped < UNESCAPED {
            self.escapes(text, steps);
        }
    }

    fn every_sign(&mut self, steps: &mut Steps) -> Signs {
        #[cfg(test)]
        if self.look.thorough {
            return self.every_byte();
        }
        self.signs(steps)
    }

    pub(super) fn secret(&mut self, start: usize, end: usize, kind: &'static str, rank: u16) {
        if start < end {
            self.spans.push(Span { start, end, mark: Mark::Secret(kind), rank });
        }
    }

    /// Remembers the name of a secret. What its value is, any byte behind it in its line may have told.
    pub(super) fn judges(&mut self, from: usize) {
        self.judged.push(Judged { from, to: usize::MAX });
    }

    pub(super) fn person(&mut self, start: usize, end: usize, kind: Personal) {
        self.spans.push(Span { start, end, mark: Mark::Personal(kind), rank: RANK_PERSONAL });
    }

    // ---- private keys and hashes of passwords

    /// Five hyphens at `at` that may begin the first or the last line of a private key.
    pub(super) fn armour(&mut self, at: usize, signs: &mut Signs) {
        const BEGIN: &[u8] = b"-----BEGIN ";
        const END: &[u8] = b"-----END ";
        if at < signs.armour {
            return;
        }
        if self.bytes[at..].starts_with(BEGIN) {
            signs.armour = self.pem(at, at + BEGIN.len()).unwrap_or(signs.armour);
        } else if self.bytes[at..].starts_with(END) {
            let floor = if signs.hash <= at { signs.armour.max(signs.hash) } else { signs.armour };
            self.pem_tail(at, at + END.len(), floor);
        }
    }

    /// The hash of a password as `crypt` writes it, its `$` at `at`.
    pub(super) fn password_hash(&mut self, at: usize, signs: &mut Signs) {
        const METHODS: [&[u8]; 7] = [b"$2a$", b"$2b$", b"$2y$", b"$argon2", b"$5$", b"$6$", b"$scrypt$"];
        let rest = &self.bytes[at..];
        if at < signs.hash {
            return;
        }
        let Some(method) = METHODS.into_iter().find(|method| rest.starts_with(method)) else { return };
        let inside = |b: &u8| b.is_ascii_alphanumeric() || matches!(*b, b'$' | b'.' | b'/' | b'+' | b'=' | b',');
        let length = rest[method.len()..].iter().take_while(|b| inside(b)).count();
        if length >= 30 {
            signs.hash = at + method.len() + length;
            self.secret(at, signs.hash, "password-hash", RANK_SHAPE);
        }
    }

    /// A private key from its BEGIN line to its END line, or to the end of what is there (RFC 7468).
    fn pem(&mut self, start: usize, label: usize) -> Option<usize> {
        let (body, kind) = self.private_label(label)?;
        self.wide = true;
        let end = memchr::memmem::find(&self.bytes[body..], b"-----END ").map(|n| body + n);
        let end = end.map_or(self.bytes.len(), |end| {
            let line = &self.bytes[end + 9..];
            memchr::memmem::find(&line[..line.len().min(64)], b"-----").map_or(end + 9, |n| end + 9 + n + 5)
        });
        self.secret(start, end, kind, RANK_BLOCK);
        Some(end)
    }

    /// The rest of a private key whose beginning is elsewhere: the base64 lines in front of its END line.
    fn pem_tail(&mut self, end_line: usize, label: usize, floor: usize) {
        let Some((end, kind)) = self.private_label(label) else { return };
        self.wide = true;
        let line = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n' | b'\r' | b'\\');
        let before = self.bytes[floor..end_line].iter().rev().take_while(|b| line(**b)).count();
        self.secret(end_line - before, end, kind, RANK_BLOCK);
    }

    /// Whether the label at `at` is that of a private key, and where its line ends.
    fn private_label(&self, at: usize) -> Option<(usize, &'static str)> {
        let rest = &self.bytes[at..self.bytes.len().min(at + 64)];
        let dashes = memchr::memmem::find(rest, b"-----")?;
        let label = &rest[..dashes];
        memchr::memmem::find(label, b"PRIVATE KEY").map(|_| (at + dashes + 5, "private-key"))
    }

    // ---- `=` and `:`: fields

    /// A field whose name ends in front of the separator at `at`.
    #[inline]
    pub(super) fn separator(&mut self, at: usize) {
        if self.look.thorough || quick::may_matter(self.bytes, at) {
            self.named_separator(at);
        }
    }

    #[inline(never)]
    fn named_separator(&mut self, at: usize) {
        let bytes = self.bytes;
        // `::` is a path in a program, `==` and `=>` are separators of two bytes.
        let before = at.checked_sub(1).map_or(b' ', |i| bytes[i]);
        if before.is_ascii() && !(before.is_ascii_alphanumeric() || matches!(before, b'"' | b'\'' | b'`' | b' ' | b']')) {
            return;
        }
        let mut behind = at + 1;
        match (bytes[at], bytes.get(behind)) {
            (b':', Some(b':')) => return,
            (b':', Some(b'/')) if bytes[behind..].starts_with(b"//") => return,
            (b':' | b'=', Some(b'=')) | (b'=', Some(b'>')) => behind += 1,
            _ => {}
        }
        if before == b'd' || matches!(before, b'"' | b'\'' | b' ') {
            self.manifest |= bytes[at] == b':' && manifest::says_secret(bytes, at);
        }
        if let Some(name) = fields::foreign_before(bytes, at) {
            self.foreign_value(name, behind, bytes[at] == b':');
            return;
        }
        let Some((start, end)) = fields::word_before(bytes, at) else { return };
        if let Some(name) = fields::name_of(bytes, (start, end)) {
            self.field_value(name, behind, bytes[at] == b':');
            return;
        }
        let word = &bytes[start..end];
        match word {
            b"name" | b"key" | b"Name" | b"Key" => self.pair(behind),
            _ if bytes[at] == b'=' && places::signs(word) && places::in_query(bytes, start) => {
                if let Some(place) = fields::bare_at(bytes, behind).filter(|p| p.end - p.start >= 6) {
                    self.secret(place.start, place.end, "signed-url", RANK_PLACE);
                }
            }
            _ => {}
        }
    }

    /// The value behind a word of another script. A word of that script behind it is prose, for passwords are seldom written in
    /// one.
    fn foreign_value(&mut self, name: Name, behind: usize, colon: bool) {
        let bytes = self.bytes;
        let start = behind + bytes[behind..].iter().take(4).take_while(|b| **b == b' ').count();
        let near = &bytes[..bytes.len().min(start + NEAR)];
        let prose = fields::bare_at(near, start).is_some_and(|place| {
            let value = &near[place.start..place.end];
            !value.is_ascii() && !value.iter().any(u8::is_ascii_digit)
        });
        if prose {
            self.judges(name.start);
        } else {
            self.field_value(name, behind, colon);
        }
    }

    /// Takes out the value behind a flag of so many hyphens.
    pub(super) fn flag_field(&mut self, name: Name, behind: usize, hyphens: usize) {
        std::mem::swap(&mut self.passed, &mut self.flags_passed[hyphens - 1]);
        self.field_value(name, behind, false);
        std::mem::swap(&mut self.passed, &mut self.flags_passed[hyphens - 1]);
    }

    /// Takes out the value of a secret's field whose separator ends at `behind`.
    pub(super) fn field_value(&mut self, name: Name, behind: usize, colon: bool) {
        self.judges(name.start);
        if behind < self.passed.covered {
            return;
        }
        let bytes = self.bytes;
        // Only a value in quotes reaches over the end of its line.
        let multiline = |place: Place| place.quoted && memchr::memchr(b'\n', &bytes[place.start..place.end]).is_some();
        // A word that is seldom a secret's name does not earn a look at all that follows it.
        if !fields::is_sure(name.strength) {
            let near = &bytes[..bytes.len().min(behind + WEAK)];
            if let Some(place) = fields::value_after(near, behind)
                && !fields::fits(name.strength, &near[place.start..place.end])
            {
                self.wide |= multiline(place);
                return;
            }
        }
        let Some(place) = fields::value_after(bytes, behind) else {
            self.structured_value(name, behind);
            return;
        };
        self.wide |= multiline(place);
        let value = &bytes[place.start..place.end];
        if fields::harmless(value) && !matches!(name.strength, Strength::Authorization | Strength::Cookie) {
            return;
        }
        match name.strength {
            Strength::Authorization => {
                if let Some(place) = places::authorization(bytes, place).filter(|place| !fields::prose(bytes, *place)) {
                    self.secret(place.start, place.end, "authorization", RANK_PLACE);
                    self.passed.covered = place.end;
                }
            }
            Strength::Cookie => {
                let place = places::cookie(bytes, place);
                let value = &bytes[place.start..place.end];
                if value.len() >= 4 && !fields::harmless(value) && (value.contains(&b'=') || fields::secretish(value)) {
                    self.secret(place.start, place.end, "cookie", RANK_BLOCK);
                    self.passed.covered = place.end;
                }
            }
            Strength::Weak | Strength::Many if !fields::fits(name.strength, value) => {}
            Strength::Password | Strength::Strong | Strength::Weak | Strength::Many => self.plain_value(name, place, colon),
        }
    }

    fn plain_value(&mut self, name: Name, mut place: Place, colon: bool) {
        let bytes = self.bytes;
        let value = &bytes[place.start..place.end];
        let number = value.iter().all(|b| b.is_ascii_digit() || *b == b'.');
        if number && (name.strength != Strength::Password || value.len() < 3) {
            return;
        }
        // `pwd=/var/lib` is a working directory.
        if value[0] == b'/' && bytes[name.start..name.end].to_ascii_lowercase().ends_with(b"pwd") {
            return;
        }
        if !place.quoted {
            // `token: Bearer abc`: the scheme is not the secret, the word behind it is.
            let scheme = value.eq_ignore_ascii_case(b"bearer") || value.eq_ignore_ascii_case(b"basic");
            if scheme && let Some(next) = fields::value_after(bytes, place.end) {
                place = next;
            } else {
                let short = value.len() < 3 && name.strength != Strength::Password;
                let prose = fields::prose(bytes, place) && (colon || (value.len() <= 16 && is_status(value)));
                if short || prose {
                    return;
                }
            }
        }
        self.secret(place.start, place.end, "secret-value", RANK_FIELD);
        self.passed.covered = place.end;
    }

    /// Values that are lists, blocks or in brackets.
    fn structured_value(&mut self, name: Name, behind: usize) {
        let bytes = self.bytes;
        let start = behind + bytes[behind..].iter().take(4).take_while(|b| **b == b' ').count();
        match bytes.get(start) {
            Some(b'[') if !fields::is_marker(&bytes[start..]) => self.list(name, start + 1),
            Some(b'|' | b'>') => self.block(name, start),
            Some(b'{') => self.braces(name, start),
            Some(b'\n' | b'\r') if bytes[behind - 1] == b':' => self.next_line(name, start),
            _ => {}
        }
    }

    /// `PWD={…}` of an ODBC connection string, in which `}}` stands for a bracket (ODBC, SQLDriverConnect).
    fn braces(&mut self, name: Name, open: usize) {
        let bytes = self.bytes;
        let line = &bytes[open + 1..bytes.len().min(open + 257)];
        let mut length = 0;
        while let Some(byte) = line.get(length) {
            match byte {
                b'}' if line.get(length + 1) == Some(&b'}') => length += 2,
                b'}' => break,
                b'\n' | b'{' => return,
                _ => length += 1,
            }
        }
        let (start, end) = (open + 1, open + 1 + length);
        let value = &bytes[start..end];
        let own = &bytes[name.start..name.end];
        let listed = bytes.get(end + 1) == Some(&b';') || bytes[..name.start].ends_with(b";");
        // `password={password}` and `{0}` are places to fill in, `{"a": 1}` is a map.
        let template = own.eq_ignore_ascii_case(value) || value.iter().all(u8::is_ascii_digit);
        let map = value.iter().any(|b| matches!(b, b'"' | b'\'')) || memchr::memmem::find(value, b": ").is_some();
        let sure = name.strength == Strength::Password && (listed || fields::secretish(value));
        if length < line.len() && sure && !template && !map && !fields::harmless(value) {
            self.secret(start, end, "secret-value", RANK_FIELD);
            self.passed.covered = end;
        }
    }

    /// A value in the line below its name (YAML), the line break at `at`.
    fn next_line(&mut self, name: Name, at: usize) {
        let bytes = self.bytes;
        let newline = at + usize::from(bytes[at] == b'\r');
        if bytes.get(newline) != Some(&b'\n') {
            return;
        }
        let own = memchr::memrchr(b'\n', &bytes[..name.start]).map_or(0, |n| n + 1);
        // A cell of a table begins like a line.
        let front = &bytes[own..name.start];
        let front = front.rsplit(|b| matches!(b, b'|' | b'\t')).next().unwrap_or(front);
        let indent = front.iter().take_while(|b| matches!(**b, b' ' | b'-')).count();
        let alone = front[indent..].iter().all(|b| matches!(b, b'"' | b'\''));
        if !matches!(name.strength, Strength::Password | Strength::Strong | Strength::Many) {
            return;
        }
        self.wide = true;
        let mut from = newline + 1;
        while from < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |n| from + n);
            let deep = bytes[from..end].iter().take_while(|b| **b == b' ').count();
            let item = bytes[from + deep..end].starts_with(b"- ");
            let start = from + deep + if item { 2 } else { 0 };
            let Some(place) = fields::value_after(&bytes[..end], start) else { return };
            let value = &bytes[place.start..place.end];
            let rest = &bytes[(place.end + usize::from(place.quoted)).min(end)..end];
            // The only word of its line, and no key of a map.
            let only = rest.iter().all(u8::is_ascii_whitespace) && !value.ends_with(b":");
            let sure = name.strength == Strength::Password && !item && ((alone && deep > indent) || place.quoted);
            let looks = sure || (fields::secretish(value) && fields::fits(name.strength, value));
            if !only || fields::harmless(value) || fields::prose(bytes, place) || !looks {
                return;
            }
            self.secret(place.start, place.end, "secret-value", RANK_FIELD);
            self.passed.covered = place.end;
            if !item {
                return;
            }
            from = end + 1;
        }
    }

    /// Every string of a list, or the bare word in brackets.
    fn list(&mut self, name: Name, from: usize) {
        let bytes = self.bytes;
        if from < self.passed.listed {
            return;
        }
        let mut at = from;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b']' | b'\n' => break,
                b' ' | b',' => at += 1,
                _ => {
                    let Some(place) = fields::quoted_at(bytes, at).or_else(|| fields::bare_at(bytes, at)) else { break };
                    let value = &bytes[place.start..place.end];
                    self.wide |= place.quoted && value.contains(&b'\n');
                    let bare = !place.quoted && !fields::secretish(value);
                    let fits = name.strength != Strength::Weak && fields::fits(name.strength, value);
                    if !bare && !fields::harmless(value) && fits {
                        self.secret(place.start, place.end, "secret-value", RANK_FIELD);
                    }
                    at = place.end.max(at) + usize::from(place.quoted).max(1);
                }
            }
        }
        // A list inside this one was looked through with it.
        self.passed.listed = at;
    }

    /// A YAML block: the deeper lines below a `password: |`.
    fn block(&mut self, name: Name, at: usize) {
        let bytes = self.bytes;
        let header = bytes[at + 1..].iter().take(3).take_while(|b| matches!(**b, b'-' | b'+' | b'0'..=b'9')).count();
        let newline = at + 1 + header;
        if bytes.get(newline) != Some(&b'\n') {
            return;
        }
        self.wide = true;
        let line = memchr::memrchr(b'\n', &bytes[..name.start]).map_or(0, |n| n + 1);
        let indent = bytes[line..].iter().take_while(|b| matches!(**b, b' ' | b'-')).count();
        let mut from = newline + 1;
        while from < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |n| from + n);
            let deep = bytes[from..end].iter().take_while(|b| **b == b' ').count();
            if from + deep < end {
                if deep <= indent {
                    return;
                }
                if !fields::harmless(&bytes[from + deep..end]) {
                    self.secret(from + deep, end, "secret-value", RANK_FIELD);
                }
            }
            from = end + 1;
        }
    }

    /// `name: DB_PASSWORD` with `value: x` behind it (Kubernetes environment), `"key":"password","value":{"stringValue":"x"}` (OTLP).
    fn pair(&mut self, behind: usize) {
        let bytes = self.bytes;
        // What is longer is no name; looked through to its end, `name=name=…` would cost the square of its length.
        let near = &bytes[..bytes.len().min(behind + WEAK)];
        let Some(name) = fields::value_after(near, behind).filter(|name| name.end < near.len() || near.len() == bytes.len())
        else {
            return;
        };
        let Some(strength) = fields::strength(&bytes[name.start..name.end]) else { return };
        self.wide = true;
        let mut at = name.end;
        let mut nested = 0;
        loop {
            let gap = |b: u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'\\' | b',' | b'{' | b'-' | b'`');
            let skipped = bytes[at..].iter().take(64).take_while(|b| gap(**b)).count();
            // `\n` of an escaped text ends in a letter.
            let at_word = at + skipped;
            let at_word = if bytes[..at_word].ends_with(b"\\") && bytes.get(at_word) == Some(&b'n') {
                at_word + 1 + bytes[at_word + 1..].iter().take(64).take_while(|b| gap(**b)).count()
            } else {
                at_word
            };
            let word = bytes[at_word..].iter().take(16).take_while(|b| b.is_ascii_alphanumeric()).count();
            if !matches!(&bytes[at_word..at_word + word], b"value" | b"Value" | b"stringValue" | b"string_value") {
                return;
            }
            let mut separator = at_word + word;
            separator += bytes[separator..].iter().take(8).take_while(|b| matches!(**b, b'"' | b'\'' | b'\\' | b' ')).count();
            if !matches!(bytes.get(separator), Some(b':' | b'=')) {
                return;
            }
            let behind = separator + 1 + bytes[separator + 1..].iter().take(4).take_while(|b| **b == b' ').count();
            if bytes.get(behind) == Some(&b'{') && nested == 0 {
                nested = 1;
                at = behind;
                continue;
            }
            self.field_value(Name { strength, start: name.start, end: name.end }, separator + 1, false);
            return;
        }
    }

    /// A line of a password file, its first colon at `at`.
    pub(super) fn password_file(&mut self, at: usize) {
        let port = |place: usize| self.bytes.get(at + place) == Some(&b':');
        if !port(0) {
            return;
        }
        // Four digits at least: the colons of a time stand closer.
        let digits = self.bytes.get(at + 3).is_some_and(u8::is_ascii_digit) && (port(5) || port(6));
        if (digits || self.bytes.get(at + 1) == Some(&b'*'))
            && let Some(place) = places::file_password(self.bytes, at)
        {
            self.secret(place.start, place.end, "secret-value", RANK_FIELD);
        }
    }

    // ---- escapes

    /// Reads the text once more with its escapes undone, and maps what is found back.
    fn escapes(&mut self, text: &str, steps: &mut Steps) {
        let lines = encoded::has_lines(self.bytes);
        if !lines && !encoded::has_escapes(self.bytes) {
            return;
        }
        let Some(plain) = encoded::plain(text, lines) else { return };
        // What is read through escapes can lie across them.
        self.wide = true;
        let look = Look { decoded: true, unescaped: self.look.unescaped + 1, ..self.look };
        for span in find_with(look, &plain.text, steps).spans {
            if let Some((start, end)) = plain.origin(span.start, span.end) {
                self.spans.push(Span { start, end, ..span });
            }
        }
    }
}

/// Words that say how a credential fared, after `token=` or `auth=`.
fn is_status(value: &[u8]) -> bool {
    const WORDS: &[&str] = &[
        "invalid", "expired", "missing", "denied", "failed", "ok", "valid", "unknown", "rejected", "accepted", "disabled",
        "enabled", "required", "success",
    ];
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

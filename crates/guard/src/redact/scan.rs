//! One look at a text: where something has to go. Each pass jumps from one telling byte to the next (`=`, `:`, `@`, a dot
//! between digits, a long run), so ordinary text costs little. Every pass is linear in the text.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use memchr::memmem::Finder;

use super::commands::Dashes;
use super::encoded;
use super::fields::{self, Name, Place, Strength};
use super::manifest;
use super::personal::Personal;
use super::places;
use super::quick::{self, has};
use super::settings::RedactionSettings;
use super::tokens::{Seen, Starts, starts_word};

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

/// Bytes of the value of a weak name that are judged first.
const WEAK: usize = 1_024;
/// How often escapes are undone: JSON in JSON in JSON.
const UNESCAPED: u8 = 3;
/// What does not depend on the text.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) starts: Starts,
    literals: AhoCorasick,
    /// What a flag begins with: two dashes, or one behind a space or a quote.
    pub(super) dashes: Dashes,
    pub(super) gaps: Finder<'static>,
}

#[derive(Debug, Clone, Copy)]
enum Literal {
    Begin,
    End,
    Bearer,
    Basic,
    Hash,
}

const LITERALS: &[(&str, Literal)] = &[
    ("-----BEGIN ", Literal::Begin),
    ("-----END ", Literal::End),
    ("Bearer ", Literal::Bearer),
    ("bearer ", Literal::Bearer),
    ("BEARER ", Literal::Bearer),
    ("Basic ", Literal::Basic),
    ("basic ", Literal::Basic),
    ("BASIC ", Literal::Basic),
    ("$2a$", Literal::Hash),
    ("$2b$", Literal::Hash),
    ("$2y$", Literal::Hash),
    ("$argon2", Literal::Hash),
    ("$5$", Literal::Hash),
    ("$6$", Literal::Hash),
    ("$scrypt$", Literal::Hash),
];

impl Tables {
    /// Builds the searchers.
    ///
    /// # Errors
    /// When a built-in table does not compile: a defect of this build, reported instead of ignored.
    pub(super) fn new() -> Result<Self, String> {
        let literals = AhoCorasickBuilder::new()
            .match_kind(MatchKind::LeftmostFirst)
            .build(LITERALS.iter().map(|(text, _)| text))
            .map_err(|e| e.to_string())?;
        Ok(Self { starts: Starts::new(), literals, dashes: Dashes::new()?, gaps: Finder::new(b"  ") })
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
    let bytes = text.as_bytes();
    let mut scan = Scan {
        look,
        bytes,
        spans: Vec::new(),
        manifest: false,
        wide: false,
        user_info: usize::MAX,
        named: false,
        covered: 0,
        listed: 0,
        parts: 0,
        seen: Seen::default(),
        columns: HashMap::new(),
    };
    scan.run(text);
    Found { spans: scan.spans, named: scan.named, wide: scan.wide }
}

pub(super) struct Scan<'s> {
    pub(super) look: Look<'s>,
    pub(super) bytes: &'s [u8],
    spans: Vec<Span>,
    manifest: bool,
    /// The `@` of the last URL with credentials: no mail address.
    pub(super) user_info: usize,
    /// Whether a secret's name was seen: then a mark can change how its value is judged.
    pub(super) named: bool,
    /// Whether something was seen that reaches over the end of its line: a table, a block, a value of several lines.
    pub(super) wide: bool,
    /// Where the last value of a field that goes ends: what stands inside it needs no look of its own.
    covered: usize,
    /// Where the last list under a secret's name ends.
    listed: usize,
    /// Where the last part of a JWT ends.
    pub(super) parts: usize,
    /// Where formats were looked for already.
    pub(super) seen: Seen,
    /// Columns of tables that were followed to their end already, by separator, width, place and strength.
    pub(super) columns: HashMap<(u8, usize, usize, Strength), usize>,
}

/// What one look found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) spans: Vec<Span>,
    /// Whether the name of a secret is in the text, with or without a value that goes.
    pub(super) named: bool,
    /// Whether something reached over the end of a line. If not, a line without a change needs no second look.
    pub(super) wide: bool,
}

impl Scan<'_> {
    fn run(&mut self, text: &str) {
        if !self.look.thorough && quick::is_time(self.bytes) {
            return;
        }
        let contents = if self.look.thorough { u8::MAX } else { quick::contents(self.bytes) };
        let may_have = |what: u8| contents & what != 0;
        if self.look.settings.secrets_go() {
            let dashes = if may_have(has::HYPHEN) { self.look.tables.dashes.long(self.bytes) } else { None };
            if dashes.is_some() || may_have(has::DOLLAR | has::SCHEME) {
                self.literals();
            }
            if let Some(first) = dashes {
                self.long_flags(first);
            }
            if may_have(has::HYPHEN) {
                self.short_flags();
            }
            if may_have(has::SPACE) {
                self.gaps();
            }
        }
        // Values are passed over in the order of the text, and the next pass begins at its start.
        (self.covered, self.listed) = (0, 0);
        let signs = self.signs();
        if signs.comma && may_have(has::LINE) && self.look.settings.secrets_go() {
            self.commas();
        }
        self.runs();
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
            self.escapes(text);
        }
    }

    pub(super) fn secret(&mut self, start: usize, end: usize, kind: &'static str, rank: u16) {
        if start < end {
            self.spans.push(Span { start, end, mark: Mark::Secret(kind), rank });
        }
    }

    pub(super) fn person(&mut self, start: usize, end: usize, kind: Personal) {
        self.spans.push(Span { start, end, mark: Mark::Personal(kind), rank: RANK_PERSONAL });
    }

    // ---- literals: PEM, schemes, password hashes, command-line flags

    fn literals(&mut self) {
        let tables = self.look.tables;
        let mut floor = 0;
        for hit in tables.literals.find_iter(self.bytes) {
            if hit.start() < floor {
                continue;
            }
            let literal = LITERALS[hit.pattern().as_usize()].1;
            match literal {
                Literal::Begin => floor = self.pem(hit.start(), hit.end()).unwrap_or(floor),
                Literal::End => self.pem_tail(hit.start(), hit.end(), floor),
                Literal::Bearer if starts_word(self.bytes, hit.start()) => {
                    if let Some(place) = places::bearer(self.bytes, hit.end()) {
                        self.secret(place.start, place.end, "authorization", RANK_PLACE);
                    }
                }
                Literal::Basic if starts_word(self.bytes, hit.start()) => {
                    if let Some(place) = places::basic(self.bytes, hit.end()) {
                        self.secret(place.start, place.end, "authorization", RANK_PLACE);
                    }
                }
                Literal::Hash => {
                    let rest = &self.bytes[hit.end()..];
                    let length = rest
                        .iter()
                        .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'$' | b'.' | b'/' | b'+' | b'=' | b','))
                        .count();
                    if length >= 30 {
                        self.secret(hit.start(), hit.end() + length, "password-hash", RANK_SHAPE);
                        floor = hit.end() + length;
                    }
                }
                Literal::Bearer | Literal::Basic => {}
            }
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
    pub(super) fn separator(&mut self, at: usize) {
        let bytes = self.bytes;
        if bytes[at] == b':' {
            self.password_file(at);
        }
        // `::` is a path in a program, `==` and `=>` are separators of two bytes.
        let before = at.checked_sub(1).map_or(b' ', |i| bytes[i]);
        if !(before.is_ascii_alphanumeric() || matches!(before, b'"' | b'\'' | b'`' | b' ' | b']')) {
            return;
        }
        let mut behind = at + 1;
        match (bytes[at], bytes.get(behind)) {
            (b':', Some(b':')) => return,
            (b':' | b'=', Some(b'=')) | (b'=', Some(b'>')) => behind += 1,
            _ => {}
        }
        if !self.look.thorough && !quick::may_matter(bytes, at) {
            return;
        }
        if before == b'd' || matches!(before, b'"' | b'\'' | b' ') {
            self.manifest |= bytes[at] == b':' && manifest::says_secret(bytes, at);
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

    /// Takes out the value of a secret's field whose separator ends at `behind`.
    pub(super) fn field_value(&mut self, name: Name, behind: usize, colon: bool) {
        self.named = true;
        if behind < self.covered {
            return;
        }
        let bytes = self.bytes;
        // Only a value in quotes reaches over the end of its line.
        let multiline = |place: Place| place.quoted && memchr::memchr(b'\n', &bytes[place.start..place.end]).is_some();
        // A word that is seldom a secret's name does not earn a look at all that follows it.
        if name.strength == Strength::Weak {
            let near = &bytes[..bytes.len().min(behind + WEAK)];
            if let Some(place) = fields::value_after(near, behind)
                && !fields::secretish(&near[place.start..place.end])
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
                    self.covered = place.end;
                }
            }
            Strength::Cookie => {
                let place = places::cookie(bytes, place);
                let value = &bytes[place.start..place.end];
                if value.len() >= 4 && !fields::harmless(value) && (value.contains(&b'=') || fields::secretish(value)) {
                    self.secret(place.start, place.end, "cookie", RANK_BLOCK);
                    self.covered = place.end;
                }
            }
            Strength::Weak if !fields::secretish(value) => {}
            Strength::Password | Strength::Strong | Strength::Weak => self.plain_value(name, place, colon),
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
        self.covered = place.end;
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
            self.covered = end;
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
        if !matches!(name.strength, Strength::Password | Strength::Strong) {
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
            if !only || fields::harmless(value) || fields::prose(bytes, place) || !(sure || fields::secretish(value)) {
                return;
            }
            self.secret(place.start, place.end, "secret-value", RANK_FIELD);
            self.covered = place.end;
            if !item {
                return;
            }
            from = end + 1;
        }
    }

    /// Every string of a list, or the bare word in brackets.
    fn list(&mut self, name: Name, from: usize) {
        let bytes = self.bytes;
        if from < self.listed {
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
                    if !bare && !fields::harmless(value) && name.strength != Strength::Weak {
                        self.secret(place.start, place.end, "secret-value", RANK_FIELD);
                    }
                    at = place.end.max(at) + usize::from(place.quoted).max(1);
                }
            }
        }
        // A list inside this one was looked through with it.
        self.listed = at;
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
        let Some(name) = fields::value_after(bytes, behind) else { return };
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
    fn password_file(&mut self, at: usize) {
        let port = |place: usize| self.bytes.get(at + place) == Some(&b':');
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
    fn escapes(&mut self, text: &str) {
        let lines = encoded::has_lines(self.bytes);
        if !lines && !encoded::has_escapes(self.bytes) {
            return;
        }
        let Some(plain) = encoded::plain(text, lines) else { return };
        // What is read through escapes can lie across them.
        self.named = true;
        self.wide = true;
        for span in find(Look { decoded: true, unescaped: self.look.unescaped + 1, ..self.look }, &plain.text).spans {
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

//! Secrets told in words, without a separator that could give them away: `password is hunter2`, `login ana password x` of a
//! `.netrc`, `IDENTIFIED BY 'x'`, `set-cookie sid=…`, `Password("x")`, and short base64 of `password=…`. Prose about passwords
//! is far more frequent than a password, so a bare value has to look like one.

use std::ops::ControlFlow;

use super::encoded::IN_PART;
use super::fields::{self, Place, Strength};
use super::quick;
use super::scan::{RANK_BLOCK, RANK_FIELD, Scan};

/// What the words looked at here begin with, by place; nothing stands for any byte.
pub(super) const BEGINNINGS: &[[&[u8]; 4]] = &[
    [b"pP", b"aA", b"sS", b"sS"],
    [b"cC", b"oO", b"oO", b"kK"],
    [b"i", b"s", b" ", b""],
    [b"w", b"a", b"s", b" "],
    [b"b", b"y", b" ", b"'\""],
    [b"B", b"Y", b" ", b"'\""],
    [b"c", b"G2", b"", b""],
    [b"U", b"EG", b"", b""],
    [b"d", b"G", b"", b""],
    [b"Y", b"X", b"", b""],
];

/// Words that may stand between the name and its value.
const BETWEEN: &[&str] =
    &["is", "was", "now", "to", "set", "changed", "reset", "updated", "be", "been", "has", "as", "equals", "still"];
/// Words of them that a value follows.
const TELLING: &[&str] = &["is", "was", "to", "be", "equals", "now", "as", "still"];

/// What has digits among its letters and is told of passwords all the same.
const METHODS: &[&str] = &[
    "sha", "md5", "bcrypt", "argon2", "pbkdf2", "scrypt", "base64", "base32", "utf8", "utf-8", "utf16", "oauth2", "rfc", "aes",
    "ldap", "x509", "crypt", "rsa", "pkcs", "tls1", "step", "http",
];

/// Attributes of a cookie, and words about one.
const NOT_COOKIES: &[&str] = &[
    "path", "domain", "expires", "max-age", "samesite", "secure", "httponly", "priority", "name", "size", "count", "ttl", "key",
    "policy", "length", "version", "status", "reason", "error",
];

/// Longest value that is told in words.
const LONGEST: usize = 512;
/// Bytes in front of `BY` in which `IDENTIFIED` is looked for.
const NEAR: usize = 96;
/// Shortest and longest base64 that is no run of its own.
const ENCODED: std::ops::Range<usize> = 12..24;

impl Scan<'_> {
    /// The word that begins at `at`.
    pub(super) fn told(&mut self, at: usize) {
        let [first, second, third, ..] = self.bytes[at..] else { return };
        match [first, second, third] {
            [b'p' | b'P', b'a' | b'A', b's' | b'S'] => self.password_told(at),
            [b'c' | b'C', b'o' | b'O', b'o' | b'O'] => self.cookie_told(at),
            [b'i', b's', b' '] => self.named_told(at, 2),
            [b'w', b'a', b's'] => self.named_told(at, 3),
            [b'b', b'y', b' '] | [b'B', b'Y', b' '] => self.identified(at),
            [b'c', b'G' | b'2', _] | [b'U', b'E' | b'G', _] | [b'd', b'G', _] | [b'Y', b'X', _] => self.short_encoded(at),
            _ => {}
        }
    }

    /// `password is hunter2`, `password for ana was set to hunter2`, `PASSWORD 'x'`, `login ana password x`.
    fn password_told(&mut self, at: usize) {
        let bytes = self.bytes;
        let word = word_at(bytes, at);
        let end = at + word.len();
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) || fields::strength(word) != Some(Strength::Password) {
            return;
        }
        let judged = self.judged.len();
        self.judges(at);
        let in_netrc = self.behind_login(at);
        let (mut told, mut whose_told) = (false, false);
        let mut cursor = if bytes[end] == b'\t' { end + 1 } else { gap_at(bytes, end) };
        for _ in 0..6 {
            let word = word_at(bytes, cursor);
            let is = |list: &[&str]| list.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
            let behind = cursor + word.len();
            if in_netrc || bytes.get(behind) != Some(&b' ') {
                break;
            }
            if is(BETWEEN) {
                told |= is(TELLING);
                cursor = gap_at(bytes, behind);
            } else if !told && is(&["for", "of"]) {
                // The next word says whose.
                whose_told = true;
                let whose = gap_at(bytes, behind);
                let length = bytes[whose..].iter().take(64).take_while(|b| !b.is_ascii_whitespace()).count();
                cursor = gap_at(bytes, whose + length);
            } else {
                break;
            }
        }
        if let Some(place) = fields::quoted_at(bytes, cursor).filter(|place| self.in_line(*place)) {
            let value = &bytes[place.start..place.end];
            let single = bytes[cursor] == b'\'' && !whose_told;
            if fields::secretish(value) || ((told || single) && !value.contains(&b' ') && !fields::prose(bytes, place)) {
                self.take(place);
            }
            return;
        }
        if !told && !in_netrc {
            // `Failed password for ana from …`: no word told of a value, whatever comes behind it.
            self.judged[judged].to = cursor + word_at(bytes, cursor).len();
            return;
        }
        if let Some(place) = fields::bare_at(bytes, cursor)
            && ((in_netrc && !fields::is_prose_word(&bytes[place.start..place.end])) || (told && looks_told(bytes, place)))
        {
            self.take(place);
        }
    }

    /// Whether the two words in front of `at` are `login` and a name, on this line or the one before (`.netrc`).
    fn behind_login(&self, at: usize) -> bool {
        let front = &self.bytes[at.saturating_sub(256)..at];
        let mut words = front.split(u8::is_ascii_whitespace).rev().filter(|word| !word.is_empty());
        let _name = words.next();
        words.next().is_some_and(|word| word == b"login" || word == b"account")
            && front.last().is_some_and(u8::is_ascii_whitespace)
    }

    /// `the token is abc123def`, the verb at `at`.
    fn named_told(&mut self, at: usize, verb: usize) {
        let bytes = self.bytes;
        let behind = at + verb;
        if bytes.get(behind) != Some(&b' ') || at == 0 || bytes[at - 1] != b' ' {
            return;
        }
        // `authorization is …` is prose, and so is every other word that ends so.
        if bytes[..at - 1].ends_with(b"ion") || (!self.look.thorough && !quick::may_matter(bytes, at)) {
            return;
        }
        let Some(name) = fields::name_before(bytes, at) else { return };
        self.judges(name.start);
        let Some(place) = fields::value_after(bytes, behind).filter(|place| self.in_line(*place)) else { return };
        if matches!(name.strength, Strength::Strong | Strength::Password)
            && place.end - place.start >= 8
            && looks_told(bytes, place)
        {
            self.take(place);
        }
    }

    /// `IDENTIFIED BY 'x'`, `IDENTIFIED WITH mysql_native_password BY 'x'`.
    fn identified(&mut self, at: usize) {
        let bytes = self.bytes;
        let quote = at + 3;
        if !matches!(bytes.get(quote), Some(b'\'' | b'"')) {
            return;
        }
        let front = &bytes[at.saturating_sub(NEAR)..at];
        let said = front.windows(10).any(|word| word.eq_ignore_ascii_case(b"identified"));
        if let Some(place) = fields::quoted_at(bytes, quote).filter(|place| said && self.in_line(*place)) {
            self.judges(at);
            self.take(place);
        }
    }

    /// `set-cookie sid=x; Path=/`, without the colon of a header.
    fn cookie_told(&mut self, at: usize) {
        let bytes = self.bytes;
        let word = word_at(bytes, at);
        let end = at + word.len();
        let is_cookie = word.eq_ignore_ascii_case(b"cookie") || word.eq_ignore_ascii_case(b"cookies");
        if !is_cookie || bytes.get(end) != Some(&b' ') {
            return;
        }
        self.judges(at);
        let mut from = gap_at(bytes, end);
        for _ in 0..16 {
            let name = bytes[from..].iter().take(64).take_while(|b| fields::in_name(**b)).count();
            if name == 0 || bytes.get(from + name) != Some(&b'=') {
                return;
            }
            let start = from + name + 1;
            let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b';' | b'"' | b'\'' | b'|' | b'<' | b'>' | b'\\');
            let length = bytes[start..].iter().take(4_096).take_while(|b| !ends(b)).count();
            let known = NOT_COOKIES.iter().any(|known| bytes[from..from + name].eq_ignore_ascii_case(known.as_bytes()));
            if !known && length >= 4 && !fields::harmless(&bytes[start..start + length]) {
                self.secret(start, start + length, "cookie", RANK_FIELD);
            }
            if bytes.get(start + length) != Some(&b';') {
                return;
            }
            from = gap_at(bytes, start + length + 1);
        }
    }

    /// `Password("x")`, the bracket at `at`.
    pub(super) fn in_bracket(&mut self, at: usize) {
        let bytes = self.bytes;
        if at == 0 || !bytes[at - 1].is_ascii_alphanumeric() || (!self.look.thorough && !quick::may_matter(bytes, at)) {
            return;
        }
        let Some(name) = fields::name_before(bytes, at) else { return };
        self.judges(name.start);
        if !matches!(name.strength, Strength::Password | Strength::Strong) || name.end != at {
            return;
        }
        let Some(place) = fields::quoted_at(bytes, at + 1).filter(|place| self.in_line(*place)) else {
            let length = bytes[at + 1..].iter().take(LONGEST).take_while(|b| !matches!(**b, b')' | b'\n' | b' ' | b'(')).count();
            let place = Place { start: at + 1, end: at + 1 + length, quoted: false };
            let closed = bytes.get(place.end) == Some(&b')') && name.strength == Strength::Password;
            if closed && looks_told(bytes, place) {
                self.take(place);
            }
            return;
        };
        // `getPassword("db")` asks by a name.
        let asks = ["get", "find", "has", "is", "read", "check", "validate", "load", "lookup", "fetch", "resolve"];
        let own = bytes[name.start..name.end].to_ascii_lowercase();
        let own = own.rsplit(|b| *b == b'.').next().unwrap_or_default();
        let gives = name.strength == Strength::Password && !asks.iter().any(|verb| own.starts_with(verb.as_bytes()));
        let value = &bytes[place.start..place.end];
        if looks_told(bytes, place) || (gives && !value.contains(&b' ') && !value.contains(&b'.')) {
            self.take(place);
        }
    }

    /// Base64 of `password=…` that is shorter than the runs that are looked into.
    fn short_encoded(&mut self, at: usize) {
        if self.look.decoded {
            return;
        }
        let bytes = self.bytes;
        let length = bytes[at..].iter().take(ENCODED.end + 1).take_while(|b| IN_PART[usize::from(**b)]).count();
        if !ENCODED.contains(&length) {
            return;
        }
        let end = at + length;
        if let ControlFlow::Break(Some(kind)) = self.inside(&bytes[at..end]) {
            let padding = bytes[end..].iter().take(2).take_while(|b| **b == b'=').count();
            self.secret(at, end + padding, kind, RANK_BLOCK);
        }
    }

    fn in_line(&self, place: Place) -> bool {
        let value = &self.bytes[place.start..place.end];
        !value.is_empty() && value.len() <= LONGEST && !value.contains(&b'\n')
    }

    fn take(&mut self, place: Place) {
        let value = &self.bytes[place.start..place.end];
        if !fields::harmless(value) && value.len() <= LONGEST {
            self.secret(place.start, place.end, "secret-value", RANK_FIELD);
        }
    }
}

fn word_at(bytes: &[u8], at: usize) -> &[u8] {
    let length = bytes[at..].iter().take(64).take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    &bytes[at..at + length]
}

/// Where the spaces at `at` end.
fn gap_at(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take(4).take_while(|b| **b == b' ').count()
}

/// Whether a value that is told in prose looks like a secret: letters with digits or signs, and not the name of a method.
fn looks_told(bytes: &[u8], place: Place) -> bool {
    let value = &bytes[place.start..place.end];
    let ends = value.iter().rev().take_while(|b| matches!(**b, b'.' | b',' | b'!' | b'?' | b';' | b':')).count();
    let value = &value[..value.len() - ends];
    let method =
        METHODS.iter().any(|known| value.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known.as_bytes())));
    fields::secretish(value) && !method && !fields::harmless(value) && (place.quoted || !fields::prose(bytes, place))
}

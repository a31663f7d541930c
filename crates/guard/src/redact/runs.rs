//! Long runs of letters and digits: formats of providers, JWT, encoded and random text, account numbers. What is told by
//! measure alone comes last and yields to everything that is told by its form.

use std::ops::ControlFlow;

use super::encoded::{self, IN_PART};
use super::events::RUN;
use super::fields;
use super::personal::{self, Personal};
use super::places;
use super::scan::{Look, Mark, RANK_BLOCK, RANK_PLACE, RANK_RANDOM, RANK_SHAPE, Scan, find};
use super::settings::Switch;
use super::tokens::{SHAPES, starts_word};

/// Bytes of one encoded run that are decoded.
const DECODED: usize = 256 << 10;

impl Scan<'_> {
    /// The run of base64 of either alphabet that begins at `start`, of at least [`RUN`] bytes.
    pub(super) fn run(&mut self, mut start: usize) {
        let bytes = self.bytes;
        let known = start + RUN;
        let end = known + bytes[known..].iter().take_while(|b| IN_PART[usize::from(**b)]).count();
        // The letter of an escape such as `\n` is no part of the run.
        if start > 0 && bytes[start - 1] == b'\\' && matches!(bytes[start], b'n' | b't' | b'r') {
            start += 1;
        }
        if end - start >= RUN {
            let sign = |b: &u8| matches!(b, b'/' | b'-' | b'_' | b'+');
            let from = start + bytes[start..end].iter().take_while(|b| sign(b)).count();
            let to = end + bytes[end..].iter().take(2).take_while(|b| **b == b'=').count();
            self.opaque(from, to);
        }
    }

    /// What can start where a word does.
    pub(super) fn word(&mut self, at: usize) {
        let bytes = self.bytes;
        let starts = &self.look.tables.starts;
        let [first, second, ..] = bytes[at..] else { return };
        if self.look.settings.secrets_go() {
            self.shapes_at(starts.of(first, second), at);
            if bytes[at..].starts_with(b"eyJ") {
                self.jwt(at);
            }
            if bytes[at..].starts_with(b"atla") && bytes[..at].ends_with(b".") {
                self.shapes_at(starts.with_dot(), at - 1);
            }
            self.scheme(at);
            self.told(at);
        }
        if first.is_ascii_uppercase()
            && self.look.settings.pii.iban == Switch::On
            && let Some(to) = personal::iban(bytes, at)
        {
            self.person(at, to, Personal::Iban);
        }
    }

    /// A credential behind the name of its scheme (RFC 6750, RFC 7617).
    fn scheme(&mut self, at: usize) {
        let bytes = self.bytes;
        let is = |names: [&[u8]; 3]| names.into_iter().find(|name| bytes[at..].starts_with(name)).map(|name| at + name.len());
        let place = if let Some(behind) = is([b"Bearer ", b"bearer ", b"BEARER "]) {
            places::bearer(bytes, behind)
        } else if let Some(behind) = is([b"Basic ", b"basic ", b"BASIC "]) {
            places::basic(bytes, behind)
        } else {
            None
        };
        if let Some(place) = place {
            self.secret(place.start, place.end, "authorization", RANK_PLACE);
        }
    }

    /// The formats of these whose literal is at `at`.
    pub(super) fn shapes_at(&mut self, which: &[u8], at: usize) {
        let bytes = self.bytes;
        for index in which.iter().map(|index| usize::from(*index)) {
            let shape = &SHAPES[index];
            if bytes[at..].starts_with(shape.literal.as_bytes())
                && !self.seen.covers(index, bytes, at)
                && let Some((from, to)) = shape.matches(bytes, at)
            {
                self.secret(from, to, shape.kind, RANK_SHAPE + shape.literal.len() as u16);
            }
        }
    }

    /// Three or five parts of base64url, the first a JSON object (RFC 7519, RFC 7516).
    fn jwt(&mut self, at: usize) {
        // What begins inside a part that was looked at ends where that did.
        if at < self.parts || !starts_word(self.bytes, at) {
            return;
        }
        let part = |from: usize| {
            self.bytes[from..].iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'-' | b'_')).count()
        };
        let header = part(at);
        let mut end = at + header;
        self.parts = end;
        let mut parts = 1;
        while parts < 5 && self.bytes.get(end) == Some(&b'.') {
            end += 1 + part(end + 1);
            parts += 1;
        }
        if header >= 10 && parts >= 2 && end - at - header >= 10 {
            self.secret(at, end, "jwt", RANK_SHAPE + 8);
        }
    }

    fn opaque(&mut self, start: usize, end: usize) {
        let run = &self.bytes[start..end];
        // Ids and paths have no capitals; what has none of them, or no small letter or digit, is no encoded text.
        let capitals = run.iter().fold(false, |any, byte| any | byte.is_ascii_uppercase());
        let digits = || run.iter().any(u8::is_ascii_digit);
        let small = || run.iter().any(u8::is_ascii_lowercase);
        if !(capitals && digits() && small()) {
            return;
        }
        let secrets = self.look.settings.secrets_go();
        if secrets && encoded::is_helm_release(run) {
            return self.secret(start, end, "helm-release", RANK_BLOCK);
        }
        if secrets && encoded::is_private_der(run) {
            return self.secret(start, end, "private-key", RANK_BLOCK);
        }
        if !self.look.decoded
            && let ControlFlow::Break(kind) = self.inside(run)
        {
            if let Some(kind) = kind {
                self.secret(start, end, kind, RANK_BLOCK);
            }
            return;
        }
        if secrets && self.look.random && encoded::is_random(run) && !self.is_named_id(start) {
            self.secret(start, end, "high-entropy", RANK_RANDOM);
        }
    }

    /// Looks into base64 of text. Break: it is text, and what it holds.
    pub(super) fn inside(&self, run: &[u8]) -> ControlFlow<Option<&'static str>> {
        let Some(decoded) = encoded::decode(run, DECODED) else { return ControlFlow::Continue(()) };
        let Some(text) = encoded::readable(&decoded) else { return ControlFlow::Continue(()) };
        let found = find(Look { decoded: true, ..self.look }, text).spans;
        ControlFlow::Break(match found.iter().map(|span| span.mark).max_by_key(|mark| matches!(mark, Mark::Secret(_))) {
            Some(Mark::Secret(_) | Mark::Extra(_)) => Some("encoded-secret"),
            Some(Mark::Personal(_)) => Some("encoded-personal-data"),
            None => None,
        })
    }

    /// Whether the field in front says that this is an id, a digest or a cursor.
    fn is_named_id(&self, start: usize) -> bool {
        let bytes = self.bytes;
        let mut at = start;
        while at > 0 && matches!(bytes[at - 1], b'"' | b'\'' | b'\\' | b' ') && start - at < 5 {
            at -= 1;
        }
        if at == 0 || !matches!(bytes[at - 1], b'=' | b':') {
            return false;
        }
        fields::word_before(bytes, at - 1).is_some_and(|(a, b)| encoded::names_an_id(&bytes[a..b]))
    }
}

//! The one walk over a text: from sign to sign, from word to word and from number to number, by the bits of 32 bytes at a time.
//! Decides what is worth a look and never what goes: that is told by the rooms beside it. Must look at every sign once, and
//! in the order of the text where one look depends on another.

use super::commands::Command;
use super::events::{self, Events, RUN, Steps};
use super::personal::{self, Personal};
use super::places;
use super::quick;
use super::scan::{RANK_PLACE, Scan};
use super::settings::{AddressMode, Switch};
use super::tokens::starts_word;

/// What is remembered from one sign to the next.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Where the next `@` is.
    next_at: usize,
    /// Where the run of colons ends that was looked at last.
    colons: usize,
    /// Where the line of cells ends that was looked at last.
    pub(super) line: usize,
    /// Where the numbers end that were looked at last.
    pub(super) numbers: usize,
    /// Where the last private key ends, and the last hash of a password.
    pub(super) armour: usize,
    pub(super) hash: usize,
    /// The commands that flags of the two kinds were read in.
    pub(super) long: Command,
    pub(super) short: Command,
    /// Whether a sign was seen that begins escapes.
    pub(super) escape: bool,
}

/// Calls `look` with the place of every bit.
#[inline]
fn each(base: usize, mut bits: u64, mut look: impl FnMut(usize)) {
    while bits != 0 {
        look(base + bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

impl Scan<'_> {
    /// Walks over the text.
    pub(super) fn signs(&mut self, steps: &mut Steps) -> Signs {
        let mut signs = Signs::default();
        let mut escapes = 0;
        let secrets = self.look.settings.secrets_go();
        let words = secrets || self.look.settings.pii.iban == Switch::On;
        events::walk(self.look.tables.level, self.bytes, steps, |base, events, step| {
            escapes |= events.escapes[step];
            if events.seldom[step] != 0 {
                self.seldom(base, events, step, &mut signs);
            }
            if secrets {
                each(base, events.separators[step], |at| self.separator(at));
            }
            if words {
                self.words_of(base, events.words[step]);
            }
            each(base, events.signs[step], |at| self.sign(at, &mut signs));
        });
        signs.escape = escapes != 0;
        signs
    }

    #[inline]
    fn words_of(&mut self, base: usize, starts: u64) {
        let (bytes, known) = (self.bytes, &self.look.tables.starts);
        each(base, starts, |at| {
            if let Some(four) = bytes[at..].first_chunk()
                && known.may_begin(*four)
                && starts_word(bytes, at)
            {
                self.word(at);
            }
        });
    }

    /// What few steps have.
    #[inline(never)]
    fn seldom(&mut self, base: usize, events: &Events, step: usize, signs: &mut Signs) {
        let pii = self.look.settings.pii;
        if self.look.settings.secrets_go() {
            each(base, events.flags[step], |at| {
                if self.bytes[..at].ends_with(b"--") {
                    self.long_flag(&mut signs.long, at - 2);
                } else {
                    self.short_flag(&mut signs.short, at - 1);
                }
            });
            each(base, events.armour[step], |at| self.armour(at - 5, signs));
            each(base, events.gaps[step], |at| self.gap(at - 1));
            each(base, events.slashes[step], |at| self.word(at - 2));
            each(base, events.files[step], |at| {
                if self.bytes[at] == b'*' {
                    self.password_file(at - 1);
                } else {
                    self.password_file(at - 5);
                    self.password_file(at.saturating_sub(6));
                }
            });
        }
        if pii.ip != AddressMode::Off {
            each(base, events.colons[step], |at| self.colons(at, signs));
            each(base, events.dots[step], |at| self.dots(at - 1));
        }
        if [pii.card, pii.phone].contains(&Switch::On) {
            let thirteenth = events.thirteenth[step];
            each(base, events.numbers[step], |at| {
                // A card in one run: nothing else begins with so many digits.
                let card = thirteenth >> (at - base) & 1 == 1;
                if !card || personal::may_be_card(self.bytes, at + 1 - personal::SHORTEST_CARD) {
                    self.number(at, signs);
                }
            });
        }
        each(base, events.runs[step], |at| self.run(at + 1 - RUN));
    }

    /// A sign that is not in every line, or the second slash of `://`.
    #[inline(never)]
    pub(super) fn sign(&mut self, at: usize, signs: &mut Signs) {
        let bytes = self.bytes;
        let secrets = self.look.settings.secrets_go();
        match bytes[at] {
            b'/' if secrets => self.url(at - 2, signs),
            b'|' | b'\t' | b'>' if secrets => self.border(at, signs),
            b'~' if secrets && at >= 2 => self.shapes_at(self.look.tables.starts.with_tilde(), at - 2),
            b'$' if secrets => self.password_hash(at, signs),
            b'@' => self.at_sign(at),
            b'(' if secrets => self.in_bracket(at),
            _ => {}
        }
    }

    /// A URL whose `://` is at `at`.
    pub(super) fn url(&mut self, at: usize, signs: &mut Signs) {
        let bytes = self.bytes;
        if !bytes[at..].starts_with(b"://") {
            return;
        }
        // Without an `@` near, no URL holds a credential.
        if signs.next_at <= at {
            signs.next_at = memchr::memchr(b'@', &bytes[at..]).map_or(usize::MAX, |n| at + n);
        }
        let near = self.look.thorough || signs.next_at < at + places::LONGEST_URL;
        if near && let Some(found) = places::user_info(bytes, at) {
            self.user_info = found.at;
            self.secret(found.secret.start, found.secret.end, "url-credentials", RANK_PLACE);
        }
    }

    pub(super) fn at_sign(&mut self, at: usize) {
        let bytes = self.bytes;
        if self.look.settings.secrets_go()
            && let Some(place) = places::driver_password(bytes, at).or_else(|| places::oracle_password(bytes, at))
        {
            self.secret(place.start, place.end, "url-credentials", RANK_PLACE);
            self.user_info = at;
        }
        if self.look.settings.pii.email == Switch::On
            && at != self.user_info
            && let Some((start, end)) = personal::email(bytes, at)
        {
            self.person(start, end, Personal::Email);
        }
    }

    /// The run of digits and colons around the colon at `at`.
    fn colons(&mut self, at: usize, signs: &mut Signs) {
        // What was looked at ends here at the latest, so no byte is gone over twice.
        let inside = self.bytes[signs.colons.min(at)..at].iter().rev().take_while(|b| personal::in_ipv6(**b)).count();
        let mut from = at - inside;
        while from <= at {
            match memchr::memchr(b':', &self.bytes[from..=at]) {
                Some(colon) => {
                    let colon = from + colon;
                    signs.colons = self.colon(colon).max(colon + 1);
                    from = signs.colons;
                }
                None => return,
            }
        }
    }

    /// The IPv6 address around the colon at `at`. Says up to where there is no other.
    pub(super) fn colon(&mut self, at: usize) -> usize {
        let next = self.bytes.get(at + 1).copied().unwrap_or(b' ');
        if !(next == b':' || next.is_ascii_hexdigit()) {
            return 0;
        }
        match personal::ipv6(self.bytes, at) {
            Ok((start, end, address)) => {
                if personal::hidden(self.look.settings.pii.ip, address.into()) {
                    self.person(start, end, Personal::Ip);
                }
                end
            }
            Err(end) => end,
        }
    }

    /// A secret's name in front of a column.
    pub(super) fn gap(&mut self, at: usize) {
        if self.look.thorough || quick::may_matter(self.bytes, at) {
            self.named_gap(at);
        }
    }
}

//! The walk without bits: every byte is asked everything. What the quick walk is compared with; must stay too simple to be wrong.

use super::encoded::IN_PART;
use super::events::RUN;
use super::scan::Scan;
use super::settings::{AddressMode, Switch};
use super::signs::Signs;
use super::tokens::starts_word;

impl Scan<'_> {
    /// As [`Scan::signs`].
    pub(super) fn every_byte(&mut self) -> Signs {
        let bytes = self.bytes;
        let settings = self.look.settings;
        let mut signs = Signs::default();
        let (mut colons, mut run) = (0, 0);
        for at in 0..bytes.len() {
            let (front, rest) = bytes.split_at(at);
            if settings.secrets_go() {
                self.secrets_at(at, &mut signs);
            }
            if rest[0].is_ascii_alphanumeric() && starts_word(bytes, at) {
                self.word(at);
            }
            if settings.pii.ip != AddressMode::Off {
                if rest[0] == b'.' {
                    self.dot(at);
                }
                if rest[0] == b':' && at >= colons {
                    colons = self.colon(at);
                }
            }
            let numbers = [settings.pii.card, settings.pii.phone].contains(&Switch::On);
            let starts_number = rest[0].is_ascii_digit() && !front.last().is_some_and(u8::is_ascii_digit);
            if numbers && (starts_number || matches!(rest[0], b'+' | b'(')) {
                self.number(at, &mut signs);
            }
            match rest[0] {
                b'@' => self.at_sign(at),
                b'\\' | b'%' | b'&' => signs.escape = true,
                _ => {}
            }
            if IN_PART[usize::from(rest[0])] && at >= run {
                let length = rest.iter().take_while(|b| IN_PART[usize::from(**b)]).count();
                run = at + length;
                if length >= RUN {
                    self.run(at);
                }
            }
        }
        signs
    }

    fn secrets_at(&mut self, at: usize, signs: &mut Signs) {
        let (front, rest) = self.bytes.split_at(at);
        match rest[0] {
            b'=' => self.separator(at),
            b':' => {
                self.password_file(at);
                self.separator(at);
                self.url(at, signs);
            }
            b'|' | b'\t' | b'>' => self.border(at, signs),
            b'(' => self.in_bracket(at),
            b'$' => self.password_hash(at, signs),
            b'~' if at >= 2 => self.shapes_at(self.look.tables.starts.with_tilde(), at - 2),
            b'.' => self.shapes_at(self.look.tables.starts.with_dot(), at),
            b' ' if rest.starts_with(b"  ") => self.gap(at),
            b'-' => {
                if rest.starts_with(b"-----") {
                    self.armour(at, signs);
                }
                let letter = |offset: usize| rest.get(offset).is_some_and(u8::is_ascii_alphabetic);
                if rest.starts_with(b"--") && letter(2) && !front.ends_with(b"-") {
                    self.long_flag(&mut signs.long, at);
                }
                if letter(1) {
                    self.short_flag(&mut signs.short, at);
                }
            }
            _ => {}
        }
    }
}

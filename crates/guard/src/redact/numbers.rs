//! Numbers of people in text: where runs of digits are looked for, and IPv4 addresses.

use super::personal::{self, Personal};
use super::scan::Scan;
use super::settings::Switch;

/// Shortest run of digits and their separators that can hold a number of a person.
const DIGITS: usize = 10;
/// Bytes numbers of people are written with.
const IN_NUMBER: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_digit() || matches!(b, b' ' | b'-' | b'(' | b')' | b'+');
        byte += 1;
    }
    table
};
/// Fewest digits of one group of them in an account number, and of a telephone number.
const ACCOUNT: usize = 8;
const TELEPHONE: usize = 9;

impl Scan<'_> {
    pub(super) fn dots(&mut self) {
        let bytes = self.bytes;
        let mode = self.look.settings.pii.ip;
        let mut floor = 0;
        for at in memchr::memchr_iter(b'.', bytes) {
            if at < floor || at == 0 || !bytes[at - 1].is_ascii_digit() || !bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
                continue;
            }
            if let Some((start, end, address)) = personal::ipv4(bytes, at) {
                floor = end;
                if personal::hidden(mode, address.into()) {
                    self.person(start, end, Personal::Ip);
                }
            } else {
                // Not to be taken for the first dot of another address.
                floor = at + 1 + bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
                floor += usize::from(bytes.get(floor) == Some(&b'.'));
            }
        }
    }

    pub(super) fn digits(&mut self) {
        let bytes = self.bytes;
        let inside = |b: u8| IN_NUMBER[usize::from(b)];
        let mut probe = DIGITS - 1;
        let mut floor = 0;
        while probe < bytes.len() {
            if !inside(bytes[probe]) {
                probe += DIGITS;
                continue;
            }
            let start = probe - bytes[floor..probe].iter().rev().take_while(|b| inside(**b)).count();
            let end = probe + bytes[probe..].iter().take_while(|b| inside(**b)).count();
            if end - start >= DIGITS {
                let digits = bytes[start..end].iter().filter(|b| b.is_ascii_digit()).count();
                if digits >= ACCOUNT {
                    self.numbers(start, end, digits);
                }
            }
            floor = end;
            probe = end + DIGITS;
        }
    }

    fn numbers(&mut self, start: usize, end: usize, digits: usize) {
        let bytes = self.bytes;
        let pii = self.look.settings.pii;
        if pii.iban == Switch::On
            && let Some((a, b)) = spaced_iban(bytes, start)
        {
            return self.person(a, b, Personal::Iban);
        }
        // A date has eight digits: too few for a telephone.
        if digits < TELEPHONE {
            return;
        }
        let mut at = start;
        // Where the last number that goes ends: its mark is a border for what follows at once.
        let mut border = usize::MAX;
        while at < end {
            let first = at == start || at == border || !bytes[at - 1].is_ascii_digit();
            let card = || personal::card(bytes, at, border);
            if pii.card == Switch::On
                && first
                && bytes[at].is_ascii_digit()
                && let Some(to) = card()
            {
                self.person(at, to, Personal::Card);
                (at, border) = (to, to);
            } else if pii.phone == Switch::On
                && first
                && !matches!(bytes[at], b' ' | b'-' | b')')
                && let Some(to) = personal::phone(bytes, at, border)
            {
                self.person(at, to, Personal::Phone);
                (at, border) = (to, to);
            } else {
                at += 1;
            }
        }
    }
}

/// An account number in groups, some of whose digits start at `digits`.
fn spaced_iban(bytes: &[u8], digits: usize) -> Option<(usize, usize)> {
    // What precedes the digits is the country, or a bank's letters: a capital either way.
    if !digits.checked_sub(1).is_some_and(|before| bytes[before].is_ascii_uppercase()) {
        return None;
    }
    let floor = digits.saturating_sub(16);
    (floor..=digits)
        .filter(|at| bytes.get(*at).is_some_and(u8::is_ascii_uppercase) && bytes.get(at + 1).is_some_and(u8::is_ascii_uppercase))
        .find_map(|at| personal::iban(bytes, at).map(|to| (at, to)))
}

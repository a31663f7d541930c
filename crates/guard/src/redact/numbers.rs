//! Numbers of people in text: where runs of digits are looked for, and IPv4 addresses.

use super::personal::{self, Personal};
use super::scan::Scan;
use super::settings::Switch;
use super::signs::Signs;

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
/// Fewest digits of a number.
const DIGITS: usize = 9;

impl Scan<'_> {
    /// The IPv4 address whose third dot may be at `third`.
    pub(super) fn dots(&mut self, third: usize) {
        let bytes = self.bytes;
        let dot_before = |dot: usize| {
            let octet = bytes[..dot].iter().rev().take(3).take_while(|b| b.is_ascii_digit()).count();
            dot.checked_sub(octet + 1).filter(|at| bytes[*at] == b'.')
        };
        if let Some(first) = dot_before(third).and_then(dot_before) {
            self.dot(first);
        }
    }

    /// The IPv4 address whose first dot may be at `at`.
    pub(super) fn dot(&mut self, at: usize) {
        if let Some((start, end, _)) = personal::ipv4(self.bytes, at, self.look.settings.pii.ip) {
            self.person(start, end, Personal::Ip);
        }
    }

    /// The numbers around `at`, where one may start.
    pub(super) fn number(&mut self, at: usize, signs: &mut Signs) {
        if at < signs.numbers {
            return;
        }
        let bytes = self.bytes;
        let inside = |b: &u8| IN_NUMBER[usize::from(*b)];
        let start = at - bytes[signs.numbers..at].iter().rev().take_while(|b| inside(b)).count();
        let end = at + bytes[at..].iter().take_while(|b| inside(b)).count();
        signs.numbers = end;
        if bytes[start..end].iter().filter(|b| b.is_ascii_digit()).take(DIGITS).count() == DIGITS {
            self.numbers(start, end);
        }
    }

    fn numbers(&mut self, start: usize, end: usize) {
        let bytes = self.bytes;
        let pii = self.look.settings.pii;
        let mut at = start;
        // Where the last number that goes ends: its mark is a border for what follows at once.
        let mut border = usize::MAX;
        while at < end {
            let byte = bytes[at];
            if matches!(byte, b' ' | b'-' | b')') {
                at += 1;
                continue;
            }
            // Only the first of several digits can start a number.
            let digit = byte.is_ascii_digit();
            if pii.card == Switch::On
                && digit
                && let Some(to) = personal::card(bytes, at, border)
            {
                self.person(at, to, Personal::Card);
                (at, border) = (to, to);
            } else if pii.phone == Switch::On
                && let Some(to) = personal::phone(bytes, at, border)
            {
                self.person(at, to, Personal::Phone);
                (at, border) = (to, to);
            } else if digit {
                at += bytes[at..end].iter().take_while(|b| b.is_ascii_digit()).count();
            } else {
                at += 1;
            }
        }
    }
}

//! The one walk over a text: from sign to sign, from word to word and from number to number, found 64 bytes at a time. Decides
//! what is worth a look and never what goes: that is told by the rooms beside it. Must look at every sign once.

use super::personal::{self, Personal};
use super::places;
use super::scan::{RANK_PLACE, Scan};
use super::settings::{AddressMode, Switch};
use super::tokens::Begins;
use super::told::may_tell;

/// Bytes looked at in one step.
const BLOCK: usize = 64;

/// What stands where in a block: bit n is byte n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Masks {
    /// Bytes that separate, border or begin something.
    signs: u64,
    /// Letters and digits.
    words: u64,
    digits: u64,
}

impl Masks {
    #[allow(
        clippy::needless_bitwise_bool,
        reason = "a branch for each byte would keep this from becoming comparisons of many bytes"
    )]
    fn of(block: &[u8; BLOCK]) -> Self {
        let separator = |b: u8| (b == b'=') | (b == b':') | (b == b'@') | (b == b'.') | (b == b',');
        let border = |b: u8| (b == b'|') | (b == b'\t') | (b == b'>');
        let escape = |b: u8| (b == b'\\') | (b == b'%') | (b == b'&');
        let start = |b: u8| (b == b'~') | (b == b'+') | (b == b'(');
        let digit = |b: u8| b.wrapping_sub(b'0') < 10;
        let letter = |b: u8| (b | 0x20).wrapping_sub(b'a') < 26;
        Self {
            signs: gather(block, |b| separator(b) | border(b) | escape(b) | start(b)),
            words: gather(block, |b| letter(b) | digit(b)),
            digits: gather(block, digit),
        }
    }
}

/// The answers for 64 bytes as bits.
fn gather(block: &[u8; BLOCK], is: impl Fn(u8) -> bool) -> u64 {
    let mut flags = [0_u8; BLOCK];
    for (flag, byte) in flags.iter_mut().zip(block) {
        *flag = u8::from(is(*byte));
    }
    let mut mask = 0;
    for (index, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        // Brings the lowest bits of eight bytes together in the highest byte.
        let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= bits << (index * 8);
    }
    mask
}

/// What is remembered from one sign to the next.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Where the next `@` is.
    next_at: usize,
    /// Where the run of colons ends that was looked at last.
    colons: usize,
    /// Where the numbers with dots end that were looked at last.
    pub(super) dots: usize,
    /// Where the line of cells ends that was looked at last.
    pub(super) line: usize,
    /// Where the numbers end that were looked at last.
    pub(super) numbers: usize,
    pub(super) comma: bool,
    pub(super) escape: bool,
}

impl Scan<'_> {
    /// Walks over the text.
    pub(super) fn signs(&mut self) -> Signs {
        let mut signs = Signs::default();
        let (blocks, rest) = self.bytes.as_chunks::<BLOCK>();
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        let last = if rest.is_empty() { &[][..] } else { std::slice::from_ref(&last) };
        let pii = self.look.settings.pii;
        let (words, numbers) =
            (self.look.settings.secrets_go() || pii.iban == Switch::On, [pii.card, pii.phone].contains(&Switch::On));
        let mut base = 0;
        // Whether the byte in front of the block is part of a word, and of a number.
        let (mut in_word, mut in_number) = (0, 0);
        for block in blocks.iter().chain(last) {
            let masks = Masks::of(block);
            let openings = self.signs_of(base, masks.signs, &mut signs);
            if words {
                self.words_of(base, masks.words & !(masks.words << 1 | in_word));
            }
            if numbers {
                let starts = masks.digits & !(masks.digits << 1 | in_number) | openings;
                self.numbers_of(base, masks.digits, starts, &mut signs);
            }
            (in_word, in_number) = (masks.words >> 63, masks.digits >> 63);
            base += BLOCK;
        }
        signs
    }

    /// Looks at every sign of a block, and says which of them may open a telephone number.
    fn signs_of(&mut self, base: usize, mut mask: u64, signs: &mut Signs) -> u64 {
        let mut openings = 0;
        let bytes = self.bytes;
        let settings = self.look.settings;
        let secrets = settings.secrets_go();
        while mask != 0 {
            let at = base + mask.trailing_zeros() as usize;
            let rest = mask & (mask - 1);
            let bit = mask ^ rest;
            mask = rest;
            match bytes[at] {
                b'.' => {
                    if settings.pii.ip != AddressMode::Off {
                        self.dot(at, signs);
                    }
                    if secrets && bytes.get(at + 1) == Some(&b'a') {
                        self.shapes_at(self.look.tables.starts.with_dot(), at);
                    }
                }
                b',' => signs.comma = true,
                b'%' | b'&' => signs.escape = true,
                b'\\' => {
                    signs.escape = true;
                    // The letter of an escape is no part of the word behind it.
                    if let [b'n' | b't' | b'r', first, second, ..] = bytes[at + 1..]
                        && self.look.tables.starts.may_start(first, second)
                    {
                        self.word(at + 2);
                        self.tale(at + 2);
                    }
                }
                b'|' | b'\t' | b'>' => {
                    if secrets {
                        self.border(at, signs);
                    }
                }
                b'~' => {
                    if secrets && at >= 2 {
                        self.shapes_at(self.look.tables.starts.with_tilde(), at - 2);
                    }
                }
                b'+' | b'(' => {
                    if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
                        openings |= bit;
                    }
                    if secrets && bytes[at] == b'(' {
                        self.in_bracket(at);
                    }
                }
                b'@' => self.at_sign(at),
                b':' if bytes[at..].starts_with(b"://") => {
                    // Without an `@` near, no URL holds a credential.
                    if signs.next_at <= at {
                        signs.next_at = memchr::memchr(b'@', &bytes[at..]).map_or(usize::MAX, |n| at + n);
                    }
                    let near = self.look.thorough || signs.next_at < at + places::LONGEST_URL;
                    if secrets
                        && near
                        && let Some(found) = places::user_info(bytes, at)
                    {
                        self.user_info = found.at;
                        self.secret(found.secret.start, found.secret.end, "url-credentials", RANK_PLACE);
                    }
                }
                sign => {
                    if secrets {
                        self.separator(at);
                    }
                    if sign == b':' && settings.pii.ip != AddressMode::Off && at >= signs.colons {
                        signs.colons = self.colon(at, settings.pii.ip);
                    }
                }
            }
        }
        openings
    }

    fn words_of(&mut self, base: usize, mut starts: u64) {
        let (bytes, known) = (self.bytes, &self.look.tables.starts);
        while starts != 0 {
            let at = base + starts.trailing_zeros() as usize;
            starts &= starts - 1;
            if let [first, second, ..] = bytes[at..] {
                match known.what_starts(first, second) {
                    Begins::Nothing => {}
                    Begins::Format => self.word(at),
                    Begins::Tale => self.tale(at),
                }
            }
        }
    }

    #[inline]
    fn tale(&mut self, at: usize) {
        if let [first, second, third, fourth, ..] = self.bytes[at..]
            && self.look.settings.secrets_go()
            && may_tell([first, second, third, fourth])
        {
            self.told(at);
        }
    }

    /// Groups of digits that can be the first of a card's or a telephone's number.
    fn numbers_of(&mut self, base: usize, digits: u64, mut starts: u64, signs: &mut Signs) {
        let bytes = self.bytes;
        while starts != 0 {
            let bit = starts.trailing_zeros();
            starts &= starts - 1;
            let at = base + bit as usize;
            let mut length = (!(digits >> bit)).trailing_zeros() as usize;
            if bit as usize + length >= BLOCK {
                length = bytes[at..].iter().take(20).take_while(|b| b.is_ascii_digit()).count();
            }
            let thorough = self.look.thorough;
            if !thorough && (length == 2 || (5..13).contains(&length)) {
                continue;
            }
            let next = |offset: usize| bytes.get(at + offset).copied().unwrap_or(0);
            let may_be = match length {
                // A plus or a bracket.
                0 => true,
                1 => bytes[at] == b'1' && next(1) == b'-',
                3 => next(3) == b'-',
                // Two groups of four, or of four and six.
                4 => matches!(next(4), b' ' | b'-') && (5..9).all(|offset| next(offset).is_ascii_digit()),
                other => other >= 13,
            };
            if may_be || thorough {
                self.number(at, signs);
            }
        }
    }

    fn at_sign(&mut self, at: usize) {
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

    fn colon(&mut self, at: usize, mode: AddressMode) -> usize {
        let next = self.bytes.get(at + 1).copied().unwrap_or(b' ');
        if !(next == b':' || next.is_ascii_hexdigit()) {
            return 0;
        }
        match personal::ipv6(self.bytes, at) {
            Ok((start, end, address)) => {
                if personal::hidden(mode, address.into()) {
                    self.person(start, end, Personal::Ip);
                }
                end
            }
            Err(end) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_what_they_say() {
        for from in 0..=255_u8 {
            let block: [u8; BLOCK] = std::array::from_fn(|n| from.wrapping_add((n as u8).wrapping_mul(37)));
            let masks = Masks::of(&block);
            for (n, byte) in block.iter().enumerate() {
                let bit = |mask: u64| mask >> n & 1 == 1;
                assert_eq!(bit(masks.words), byte.is_ascii_alphanumeric(), "{byte}");
                assert_eq!(bit(masks.digits), byte.is_ascii_digit(), "{byte}");
                assert_eq!(bit(masks.signs), b"=:@.,|\t>\\%&~+(".contains(byte), "{byte}");
            }
        }
    }
}

//! What stands where in a text, 32 bytes at a time, as bits: the one place where every byte is looked at. As many bytes are
//! compared at once as the machine can. Must not know what any of it means.

#![expect(
    clippy::inline_always,
    reason = "what compares many bytes is compiled anew for each kind of machine, with all that it calls"
)]

use fearless_simd::prelude::*;
use fearless_simd::{Simd, mask8x32, u8x32};

/// Bytes looked at in one step.
pub(super) const STEP: usize = 32;
/// Steps whose bits are kept at a time.
pub(super) const AHEAD: usize = 8;

/// Bits of a few steps, those of the step in front of them first: bit n is byte n.
pub(super) type Row = [u64; AHEAD + 1];

/// The bytes of a few steps by their kind.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    pub(super) letters: Row,
    pub(super) digits: Row,
    pub(super) equals: Row,
    pub(super) colons: Row,
    pub(super) dots: Row,
    pub(super) spaces: Row,
    pub(super) hyphens: Row,
    /// `/`, `+` and `_`: what base64 has beside letters, digits and hyphens.
    pub(super) joints: Row,
    /// Quotes of the three kinds and `]`, which may stand between a name and its separator, and whatever is beyond ASCII, which
    /// may be the end of one.
    pub(super) quotes: Row,
    pub(super) backslashes: Row,
    pub(super) stars: Row,
    /// `%` and `&`, which begin escapes.
    pub(super) escapes: Row,
    /// `+` and `(`, which may open the number of a telephone.
    pub(super) openings: Row,
    /// `@`, `|`, `>`, `~`, `$`, `(` and tabs.
    pub(super) rare: Row,
}

impl Kinds {
    /// Reads steps behind so many that were read already.
    #[inline(always)]
    pub(super) fn read<S: Simd>(&mut self, simd: S, behind: usize, blocks: &[[u8; STEP]]) {
        for (place, block) in (behind + 1..=AHEAD).zip(blocks) {
            let bytes = u8x32::from_slice(simd, block);
            let all = |byte: u8| u8x32::splat(simd, byte);
            let is = |byte: u8| bytes.simd_eq(all(byte));
            let bits = |mask: mask8x32<S>| mask.to_bitmask();
            let (plus, bracket) = (is(b'+'), is(b'('));
            self.letters[place] = bits(((bytes | all(0x20)) - all(b'a')).simd_lt(all(26)));
            self.digits[place] = bits((bytes - all(b'0')).simd_lt(all(10)));
            self.equals[place] = bits(is(b'='));
            self.colons[place] = bits(is(b':'));
            self.dots[place] = bits(is(b'.'));
            self.spaces[place] = bits(is(b' '));
            self.hyphens[place] = bits(is(b'-'));
            self.joints[place] = bits(is(b'/') | plus | is(b'_'));
            self.quotes[place] = bits(is(b'"') | is(b'\'') | is(b'`') | is(b']') | bytes.simd_ge(all(0x80)));
            self.backslashes[place] = bits(is(b'\\'));
            self.stars[place] = bits(is(b'*'));
            self.escapes[place] = bits(is(b'%') | is(b'&'));
            self.rare[place] = bits(is(b'@') | is(b'|') | is(b'\t') | is(b'>') | is(b'~') | is(b'$') | bracket);
            self.openings[place] = bits(plus | bracket);
        }
    }

    /// In front of a text there is nothing.
    pub(super) fn begin(&mut self) {
        for row in self.rows() {
            row[0] = 0;
        }
    }

    /// Makes the last of so many steps the one in front of those that are read next.
    #[inline(always)]
    pub(super) fn go_on(&mut self, steps: usize) {
        for row in self.rows() {
            row[0] = row[steps];
        }
    }

    #[inline(always)]
    fn rows(&mut self) -> [&mut Row; 14] {
        [
            &mut self.letters,
            &mut self.digits,
            &mut self.equals,
            &mut self.colons,
            &mut self.dots,
            &mut self.spaces,
            &mut self.hyphens,
            &mut self.joints,
            &mut self.quotes,
            &mut self.backslashes,
            &mut self.stars,
            &mut self.escapes,
            &mut self.openings,
            &mut self.rare,
        ]
    }
}

#[cfg(test)]
mod tests {
    use fearless_simd::{Level, dispatch};

    use super::*;

    #[test]
    fn bits_are_what_they_say() {
        let bytes: Vec<u8> = (0..=255_u8).chain((0..=255).map(|b: u8| b.wrapping_mul(37))).collect();
        // The best the machine has, and what every one has.
        for level in [Level::new(), Level::baseline()] {
            let mut kinds = Kinds::default();
            for (n, blocks) in bytes.as_chunks().0.chunks(AHEAD).enumerate() {
                dispatch!(level, simd => kinds.read(simd, 0, blocks));
                check(&kinds, &bytes[n * AHEAD * STEP..][..blocks.len() * STEP]);
            }
        }
    }

    fn check(kinds: &Kinds, bytes: &[u8]) {
        {
            for (at, byte) in bytes.iter().enumerate() {
                let bit = |row: &Row| row[at / STEP + 1] >> (at % STEP) & 1 == 1;
                assert_eq!(bit(&kinds.letters), byte.is_ascii_alphabetic(), "{byte}");
                assert_eq!(bit(&kinds.digits), byte.is_ascii_digit(), "{byte}");
                assert_eq!(bit(&kinds.quotes), b"\"'`]".contains(byte) || !byte.is_ascii(), "{byte}");
                for (row, known) in [
                    (&kinds.equals, &b"="[..]),
                    (&kinds.colons, b":"),
                    (&kinds.dots, b"."),
                    (&kinds.spaces, b" "),
                    (&kinds.hyphens, b"-"),
                    (&kinds.joints, b"/+_"),
                    (&kinds.backslashes, b"\\"),
                    (&kinds.stars, b"*"),
                    (&kinds.escapes, b"%&"),
                    (&kinds.openings, b"+("),
                    (&kinds.rare, b"@|\t>~$("),
                ] {
                    assert_eq!(bit(row), known.contains(byte), "{byte}");
                }
            }
        }
    }
}

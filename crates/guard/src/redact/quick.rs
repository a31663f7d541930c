//! Cheap reasons to look no further. Nearly every separator in a log stands behind a word that is no secret's name, and nearly
//! every word starts no credential: told here by a few table look-ups. Must never say "nothing here" where the thorough look
//! would find something; `tests` compares the two.

use super::fields::{self, ENDINGS, SUFFIXES};
use super::places::SIGNS;

/// Words that matter in front of a separator for another reason than being a secret's name.
const OTHERS: &[&str] = &["pass", "passw", "auth", "jwt", "name", "key", "kind"];

/// Bits of the second table.
const BITS: usize = 4_096;

/// How the words that matter end: last two letters, words of three letters, and the last four of the longer ones (a hash of
/// them: a word that matters is always found, one in fifty of the others costs a thorough look).
struct Endings {
    pairs: [u32; 32],
    threes: [u32; 1_024],
    fours: [u64; BITS / 64],
}

const fn letter(byte: u8) -> u32 {
    (byte & 31) as u32
}

const fn slot(four: u32) -> usize {
    (four.wrapping_mul(0x9e37_79b1) >> 20) as usize % BITS
}

impl Endings {
    /// Adds a word; its letters count and nothing else. Those with digits (`base64`) are known by sight.
    const fn add(&mut self, word: &[u8]) {
        let mut code = 0_u32;
        let mut letters = 0;
        let mut at = word.len();
        while at > 0 && letters < 4 {
            at -= 1;
            if !word[at].is_ascii_alphabetic() {
                if word[at].is_ascii_digit() {
                    return;
                }
                continue;
            }
            code = code << 5 | letter(word[at]);
            letters += 1;
            if letters == 2 {
                self.pairs[(code >> 5) as usize] |= 1 << (code & 31);
            }
        }
        if letters == 3 {
            self.threes[(code >> 5) as usize] |= 1 << (code & 31);
        } else {
            self.fours[slot(code) / 64] |= 1 << (slot(code) % 64);
        }
    }
}

static WORDS: Endings = {
    let mut endings = Endings { pairs: [0; 32], threes: [0; 1_024], fours: [0; BITS / 64] };
    let mut at = 0;
    while at < ENDINGS.len() {
        endings.add(ENDINGS[at].0.as_bytes());
        at += 1;
    }
    let mut at = 0;
    while at < SUFFIXES.len() {
        endings.add(SUFFIXES[at].as_bytes());
        at += 1;
    }
    let mut at = 0;
    while at < OTHERS.len() {
        endings.add(OTHERS[at].as_bytes());
        at += 1;
    }
    let mut at = 0;
    while at < SIGNS.len() {
        endings.add(SIGNS[at]);
        at += 1;
    }
    endings
};

/// Letters as 1 to 26, and three kinds of other bytes.
const OTHER: u8 = 0;
const DIGIT: u8 = 32;
const SIGN: u8 = 33;
static KINDS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = if b.is_ascii_alphabetic() {
            b & 31
        } else if b.is_ascii_digit() {
            DIGIT
        } else if fields::in_name(b) {
            SIGN
        } else {
            OTHER
        };
        byte += 1;
    }
    table
};

/// Whether the word in front of the separator at `at` may be one that matters there.
pub(super) fn may_matter(bytes: &[u8], at: usize) -> bool {
    if let [.., first, last] = &bytes[..at]
        && let (first, last) = (KINDS[usize::from(*first)], KINDS[usize::from(*last)])
        && (1..DIGIT).contains(&first)
        && (1..DIGIT).contains(&last)
        && WORDS.pairs[usize::from(last)] & (1 << first) == 0
    {
        return false;
    }
    let beside = at > 0 && KINDS[usize::from(bytes[at - 1])] != OTHER;
    may_end(&bytes[..if beside { at } else { fields::word_end(bytes, at) }], false)
}

/// Whether a text that ends in a word ends in one that may matter: a secret's name, `name`, `key`, `kind`, or the name of a
/// signed query parameter. With `whole` the text is one name, whatever it is made of.
pub(super) fn may_end(bytes: &[u8], whole: bool) -> bool {
    let mut code = 0_u32;
    let (mut letters, mut digits) = (0_u32, 0_u32);
    for byte in bytes.iter().rev() {
        let kind = KINDS[usize::from(*byte)];
        if kind < DIGIT && kind != OTHER {
            code = code << 5 | u32::from(kind);
            letters += 1;
            match letters {
                // `base64` and `b64` are endings themselves.
                1 => {
                    if digits == 2 && matches!(byte | 0x20, b'b' | b'e') && bytes.ends_with(b"64") {
                        return true;
                    }
                }
                2 => {
                    if WORDS.pairs[(code >> 5) as usize] & (1 << (code & 31)) == 0 {
                        return false;
                    }
                }
                3 => {
                    if WORDS.threes[(code >> 5) as usize] & (1 << (code & 31)) != 0 {
                        return true;
                    }
                }
                _ => return WORDS.fours[slot(code) / 64] & (1 << (slot(code) % 64)) != 0,
            }
        } else if kind == DIGIT {
            digits += 1;
            // A count behind a name has few digits, and stands behind its letters.
            if letters > 0 || digits > 4 {
                return false;
            }
        } else if kind == OTHER && !whole {
            return false;
        }
    }
    false
}

/// What a text has, as bits: which passes can find anything at all in it.
pub(super) mod has {
    pub(in super::super) const SPACE: u8 = 1;
    pub(in super::super) const HYPHEN: u8 = 2;
    pub(in super::super) const DOLLAR: u8 = 4;
    /// The first letter of `Bearer` and `Basic`.
    pub(in super::super) const SCHEME: u8 = 8;
    pub(in super::super) const LINE: u8 = 16;
}

/// Longer texts have everything: looking for it would cost more than it saves.
const SHORT: usize = 512;

/// What a text may have.
pub(super) fn contents(bytes: &[u8]) -> u8 {
    static TABLE: [u8; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_usize;
        while byte < 256 {
            table[byte] = match byte as u8 {
                b' ' => has::SPACE,
                b'-' => has::HYPHEN,
                b'$' => has::DOLLAR,
                b'B' | b'b' => has::SCHEME,
                b'\n' => has::LINE,
                _ => 0,
            };
            byte += 1;
        }
        table
    };
    if bytes.len() > SHORT {
        return u8::MAX;
    }
    let mut seen = bytes.iter().fold(0, |seen, byte| seen | TABLE[usize::from(*byte)]);
    if seen & has::SCHEME != 0 {
        let scheme =
            |at: usize| matches!(bytes.get(at + 1..at + 3), Some([b'e' | b'E', b'a' | b'A'] | [b'a' | b'A', b's' | b'S']));
        if !memchr::memchr2_iter(b'B', b'b', bytes).any(scheme) {
            seen &= !has::SCHEME;
        }
    }
    seen
}

/// Whether a text is a point in time and nothing else: `2026-11-20T10:00:00.123Z`. Half of the short texts of an answer.
pub(super) fn is_time(bytes: &[u8]) -> bool {
    let shape: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let Some((head, tail)) = bytes.split_at_checked(shape.len()) else { return false };
    let fits = |(want, have): (&u8, &u8)| match want {
        b'd' => have.is_ascii_digit(),
        b'T' => matches!(have, b'T' | b' '),
        _ => want == have,
    };
    if !shape.iter().zip(head).all(fits) {
        return false;
    }
    let fraction = tail.strip_prefix(b".").unwrap_or(tail);
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    let zone = &fraction[digits..];
    digits <= 9 && (fraction.len() < tail.len() || digits == 0) && matches!(zone, b"" | b"Z" | b"+00:00")
}

//! Cheap reasons to look no further. Nearly every separator in a log stands behind a word that is no secret's name, and nearly
//! every word starts no credential: told here by a few table look-ups. Must never say "nothing here" where the thorough look
//! would find something; `tests` compares the two.

use super::fields::{self, ENDINGS, SESSION, SUFFIXES, WORDS as ALONE, foreign_word};
use super::places::SIGNS;

/// Words that matter in front of a separator for another reason than being a secret's name.
const OTHERS: &[&str] = &[SESSION, "name", "key", "kind"];

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

/// The code of `name`.
const NAME: u32 = letter(b'e') << 15 | letter(b'm') << 10 | letter(b'a') << 5 | letter(b'n');

impl Endings {
    #[inline]
    fn has_three(&self, code: u32) -> bool {
        self.threes[(code >> 5) as usize] & (1 << (code & 31)) != 0
    }

    #[inline]
    fn has_four(&self, code: u32) -> bool {
        self.fours[slot(code) / 64] & (1 << (slot(code) % 64)) != 0
    }

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
    while at < ALONE.len() {
        endings.add(ALONE[at].0.as_bytes());
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
#[inline]
pub(super) fn may_matter(bytes: &[u8], at: usize) -> bool {
    // In quotes the word ends in front of them.
    let quoted = at > 1 && bytes[at - 1] == b'"';
    let front = &bytes[..at - usize::from(quoted)];
    let Some([first, second, third, last]) = front.last_chunk() else { return may_matter_at_all(bytes, at) };
    let code = |byte: &u8| u32::from(KINDS[usize::from(*byte)]);
    let is_letter = |code: u32| code.wrapping_sub(1) < u32::from(DIGIT) - 1;
    let (third, last) = (code(third), code(last));
    if is_letter(third) && is_letter(last) {
        if WORDS.pairs[last as usize] & (1 << third) == 0 {
            return false;
        }
        let (first, second) = (code(first), code(second));
        let three = last << 10 | third << 5 | second;
        let four = three << 5 | first;
        if is_letter(first) && is_letter(second) && four != NAME {
            return WORDS.has_three(three) || WORDS.has_four(four);
        }
    } else if is_hour(front) {
        return false;
    }
    may_matter_at_all(bytes, at)
}

/// `0T10`: a name has no digit in front of its only letter.
fn is_hour(front: &[u8]) -> bool {
    matches!(front, [.., b'0'..=b'9', b'T', b'0'..=b'9', b'0'..=b'9'])
}

#[inline(never)]
fn may_matter_at_all(bytes: &[u8], at: usize) -> bool {
    let beside = at > 0 && KINDS[usize::from(bytes[at - 1])] != OTHER;
    may_end(&bytes[..if beside { at } else { fields::word_end(bytes, at) }], false)
}

/// Whether a text that ends in a word ends in one that may matter: a secret's name, `name`, `key`, `kind`, or the name of a
/// signed query parameter. With `whole` the text is one name, whatever it is made of; without, it may end in a word of another
/// script.
pub(super) fn may_end(bytes: &[u8], whole: bool) -> bool {
    let mut code = 0_u32;
    let (mut letters, mut digits) = (0_u32, 0_u32);
    for (at, byte) in bytes.iter().enumerate().rev() {
        let kind = KINDS[usize::from(*byte)];
        // `password_v2`
        if letters == 0 && digits > 0 && byte | 0x20 == b'v' && at > 0 && bytes[at - 1] | 0x20 != b'v' {
            digits = 0;
            continue;
        }
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
                    if WORDS.has_three(code) {
                        return true;
                    }
                }
                // Only the whole word `name` says anything, and no name of a secret ends so.
                _ if code == NAME => return !whole && bytes[..at].last().is_none_or(|b| !fields::in_name(*b)),
                _ => return WORDS.has_four(code),
            }
        } else if kind == DIGIT {
            digits += 1;
            // A count behind a name has few digits, and stands behind its letters.
            if letters > 0 || digits > 4 {
                return false;
            }
        } else if kind == OTHER && !whole {
            return !byte.is_ascii() && foreign_word(bytes).is_some();
        }
    }
    false
}

/// Whether a text is a point in time and nothing else: `2026-11-20T10:00:00.123Z`. Half of the short texts of an answer.
pub(super) fn is_time(bytes: &[u8]) -> bool {
    let shape: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let Some((head, tail)) = bytes.split_at_checked(shape.len()) else { return false };
    if tail.len() > 16 || head[4] != b'-' || head[7] != b'-' || head[13] != b':' {
        return false;
    }
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

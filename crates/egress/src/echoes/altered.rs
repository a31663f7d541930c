//! Other ways to write what is looked for: hexadecimal digits that stand apart, base64 in lines, characters escaped without
//! need, marks nobody sees in between. Guards that none of them hides anything, and that a text which holds nothing like it
//! costs one look at its bytes. Must not know what is looked for.

use std::ops::Range;

use aho_corasick::AhoCorasick;

/// Fewest bytes of something that is written apart: fewer are numbers and words of an ordinary text.
const SHORTEST_APART: usize = 12;
/// Letters in a row from which on they may be a line of base64.
const LINE: usize = 16;
/// Bytes of a reading that are looked at at once, beside those of the longest form.
const ROOM: usize = 64 << 10;
/// Longest string of a terminal sequence, in bytes.
const LONGEST_STRING: usize = 16 << 10;
/// Backslashes before one escaped character: a text in a text in a text.
const MOST_BACKSLASHES: usize = 8;
/// Most bytes of a named or numbered character of HTML.
const LONGEST_ENTITY: usize = 10;

/// A hexadecimal digit.
const DIGIT: u8 = 1;
/// A letter of base64, of either alphabet.
const LETTER: u8 = 2;
/// May stand between hexadecimal digits.
const GAP: u8 = 4;
/// May stand between lines of base64.
const BLANK: u8 = 8;
/// May begin an escape, or is not seen.
const MARK: u8 = 16;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut all = [0; 256];
    let mut byte = 0_u8;
    loop {
        all[byte as usize] = match byte {
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => DIGIT | LETTER,
            // The letter as in 0x73.
            b'x' | b'X' | b'+' | b'/' | b'-' | b'_' => LETTER | GAP,
            b'g'..=b'z' | b'G'..=b'Z' => LETTER,
            b'\t' | b'\n' | b'\r' | b' ' | b'"' | b'\'' | b',' | b'>' | b'|' => GAP | BLANK,
            b'\\' => GAP | BLANK | MARK,
            b'%' | b'&' => GAP | MARK,
            b'!'..=b'~' => GAP,
            // Controls, and everything that is not ASCII.
            _ => GAP | BLANK | MARK,
        };
        if byte == u8::MAX {
            return all;
        }
        byte += 1;
    }
}

/// What a byte behind another one is: a line end that is written out is one.
fn class(before: u8, byte: u8) -> u8 {
    if before == b'\\' && matches!(byte, b'n' | b'r' | b't') { GAP | BLANK } else { CLASSES[usize::from(byte)] }
}

/// What one look at a text says that may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Signs {
    /// Most hexadecimal digits with nothing but separators between them.
    digits: usize,
    /// Most letters of base64 in a row.
    letters: usize,
    /// Whether something may be an escape, or is not seen.
    marks: bool,
}

impl Signs {
    /// Those of a text.
    pub(super) fn of(text: &[u8]) -> Self {
        let (mut all, mut digits, mut letters, mut before) = (Self::default(), 0_usize, 0_usize, 0_u8);
        for byte in text {
            let class = class(before, *byte);
            if class & DIGIT != 0 {
                digits += 1;
                all.digits = all.digits.max(digits);
            } else if class & GAP == 0 {
                digits = 0;
            }
            if class & LETTER == 0 {
                letters = 0;
            } else {
                letters += 1;
                all.letters = all.letters.max(letters);
            }
            all.marks |= class & MARK != 0;
            before = *byte;
        }
        all
    }
}

/// Adds a place to others, as one with those before it that it overlaps.
pub(super) fn note(places: &mut Vec<Range<usize>>, (mut start, mut end): (usize, usize)) {
    while let Some(last) = places.pop_if(|last| start < last.end && last.start < end) {
        (start, end) = (start.min(last.start), end.max(last.end));
    }
    places.push(start..end);
}

/// The place of one byte.
fn one(at: usize) -> Range<usize> {
    Range { start: at, end: at + 1 }
}

/// Adds where in a text with these signs a form is written in another way.
pub(super) fn places(text: &[u8], signs: Signs, forms: &AhoCorasick, places: &mut Vec<Range<usize>>) {
    let fewest = forms.min_pattern_len().saturating_mul(2).max(SHORTEST_APART);
    if signs.digits >= fewest {
        digits(text, fewest, &mut Reading::of(forms, SHORTEST_APART), places);
    }
    if signs.letters >= LINE {
        lines(text, &mut Reading::of(forms, SHORTEST_APART), places);
    }
    if signs.marks {
        escapes(text, &mut Reading::of(forms, 1), places);
    }
}

/// A text as it reads in another writing, with where in the text each byte of that is written.
struct Reading<'f> {
    forms: &'f AhoCorasick,
    /// Bytes of the longest form.
    longest: usize,
    /// Fewest bytes of a form that counts here.
    shortest: usize,
    bytes: Vec<u8>,
    written: Vec<Range<usize>>,
}

impl<'f> Reading<'f> {
    fn of(forms: &'f AhoCorasick, shortest: usize) -> Self {
        Self { forms, longest: forms.max_pattern_len(), shortest, bytes: Vec::new(), written: Vec::new() }
    }

    fn push(&mut self, byte: u8, written: Range<usize>, places: &mut Vec<Range<usize>>) {
        if self.bytes.len() >= self.longest.saturating_add(ROOM) {
            self.look(places);
            // What begins at the end may go on.
            let done = self.bytes.len() - self.longest;
            self.bytes.drain(..done);
            self.written.drain(..done);
        }
        self.bytes.push(byte);
        self.written.push(written);
    }

    /// Takes a part of the text as it stands.
    fn push_all(&mut self, text: &[u8], part: Range<usize>, places: &mut Vec<Range<usize>>) {
        let first = part.start;
        for (after, byte) in text.get(part).unwrap_or_default().iter().enumerate() {
            self.push(*byte, one(first + after), places);
        }
    }

    fn look(&self, places: &mut Vec<Range<usize>>) {
        for found in self.forms.find_overlapping_iter(&self.bytes).filter(|found| found.len() >= self.shortest) {
            let last = found.end().checked_sub(1).and_then(|last| self.written.get(last));
            if let (Some(first), Some(last)) = (self.written.get(found.start()), last) {
                note(places, (first.start, last.end));
            }
        }
    }

    /// What comes next does not belong to what was before.
    fn end(&mut self, places: &mut Vec<Range<usize>>) {
        self.look(places);
        self.bytes.clear();
        self.written.clear();
    }
}

/// Reads hexadecimal digits as if nothing stood between them.
fn digits(text: &[u8], fewest: usize, reading: &mut Reading<'_>, places: &mut Vec<Range<usize>>) {
    let (mut begun, mut count, mut before) = (0, 0, 0_u8);
    for here in 0..=text.len() {
        let byte = text.get(here).copied();
        let class = byte.map_or(0, |byte| class(before, byte));
        before = byte.unwrap_or_default();
        if class & DIGIT != 0 {
            count += 1;
        }
        if class & (DIGIT | GAP) != 0 {
            continue;
        }
        if count >= fewest {
            row(text, (begun, here), reading, places);
        }
        (begun, count) = (here + 1, 0);
    }
}

/// Reads one row of digits.
fn row(text: &[u8], (mut here, end): (usize, usize), reading: &mut Reading<'_>, places: &mut Vec<Range<usize>>) {
    while here < end {
        match text.get(here..end).unwrap_or_default() {
            // The zero only says what follows.
            [b'0', b'x' | b'X', ..] => here += 1,
            [digit, ..] if digit.is_ascii_hexdigit() => reading.push(digit.to_ascii_lowercase(), one(here), places),
            _ => {}
        }
        here += 1;
    }
    reading.end(places);
}

/// Reads lines of base64 as one, in the usual alphabet.
fn lines(text: &[u8], reading: &mut Reading<'_>, places: &mut Vec<Range<usize>>) {
    let (mut begun, mut line, mut count, mut is_base64, mut before) = (0, 0, 0, false, 0_u8);
    for here in 0..=text.len() {
        let byte = text.get(here).copied();
        let class = byte.map_or(0, |byte| class(before, byte));
        before = byte.unwrap_or_default();
        if class & LETTER != 0 {
            continue;
        }
        if line < here {
            count += 1;
            is_base64 |= is_line(text.get(line..here).unwrap_or_default());
        }
        line = here + 1;
        if class & BLANK != 0 {
            continue;
        }
        // Within one line it was seen as it stands.
        if is_base64 && count > 1 {
            joined(text, begun..here, reading, places);
        }
        (begun, count, is_base64) = (here + 1, 0, false);
    }
}

/// Whether a row of letters may be a line of base64: words and names have few kinds of characters.
fn is_line(row: &[u8]) -> bool {
    row.len() >= LINE
        && row.iter().any(u8::is_ascii_uppercase)
        && row.iter().any(u8::is_ascii_lowercase)
        && row.iter().any(|byte| !byte.is_ascii_alphabetic())
}

/// Reads the letters of a part of the text.
fn joined(text: &[u8], part: Range<usize>, reading: &mut Reading<'_>, places: &mut Vec<Range<usize>>) {
    let (first, mut before) = (part.start, 0_u8);
    for (after, byte) in text.get(part).unwrap_or_default().iter().enumerate() {
        if class(before, *byte) & LETTER != 0 {
            let usual = match *byte {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            };
            reading.push(usual, one(first + after), places);
        }
        before = *byte;
    }
    reading.end(places);
}

/// Reads escapes as what they stand for, and leaves out what nobody sees. Of the rest only as much is read as may belong to it.
fn escapes(text: &[u8], reading: &mut Reading<'_>, places: &mut Vec<Range<usize>>) {
    // Up to where it was read, and how far it is read on.
    let (mut read, mut until, mut here) = (0_usize, 0_usize, 0_usize);
    while let Some(byte) = text.get(here) {
        let escape = if CLASSES[usize::from(*byte)] & MARK == 0 { None } else { escape(text.get(here..).unwrap_or_default()) };
        let Some((stands_for, length)) = escape else {
            here += 1;
            continue;
        };
        let reach = until.min(here).max(read);
        reading.push_all(text, read..reach, places);
        let begin = here.saturating_sub(reading.longest).max(reach);
        if begin > reach {
            reading.end(places);
        }
        reading.push_all(text, begin..here, places);
        if let Some(byte) = stands_for {
            reading.push(byte, here..here + length, places);
        }
        here += length;
        (read, until) = (here, here.saturating_add(reading.longest));
    }
    reading.push_all(text, read..until.min(text.len()).max(read), places);
    reading.end(places);
}

/// What the escape stands for that a text begins with, and how long it is. What is not seen stands for nothing.
fn escape(text: &[u8]) -> Option<(Option<u8>, usize)> {
    let (byte, length) = match text {
        [b'%', ..] => percent(text)?,
        [b'\\', ..] => backslash(text)?,
        [b'&', ..] => entity(text)?,
        _ => return unseen(text).map(|length| (None, length)),
    };
    // Controls and spaces are in no credential, and are escaped everywhere.
    byte.is_ascii_graphic().then_some((Some(byte), length))
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// `%73`, and `%2573`, however often.
fn percent(text: &[u8]) -> Option<(u8, usize)> {
    let after = |at: usize| text.get(at..).unwrap_or_default();
    let mut at = 1;
    while after(at).starts_with(b"25") && hexadecimal(after(at + 2)).is_some() {
        at += 2;
    }
    Some((hexadecimal(after(at))?, at + 2))
}

/// `\u0073`, `\u{73}`, `\x73` and `\/`, with one backslash or several.
fn backslash(text: &[u8]) -> Option<(u8, usize)> {
    let slashes = text.iter().take(MOST_BACKSLASHES).take_while(|byte| **byte == b'\\').count();
    let (byte, length) = match text.get(slashes..)? {
        [b'u', b'0', b'0', digits @ ..] => (hexadecimal(digits)?, 5),
        [b'u', b'{', digits @ ..] => {
            let end = digits.iter().take(LONGEST_ENTITY).position(|byte| *byte == b'}')?;
            let digits = std::str::from_utf8(digits.get(..end)?).ok()?;
            (u8::from_str_radix(digits, 16).ok()?, end + 3)
        }
        [b'x', digits @ ..] => (hexadecimal(digits)?, 3),
        [b'/', ..] => (b'/', 1),
        _ => return None,
    };
    Some((byte, slashes + length))
}

/// `&#115;`, `&#x73;` and `&amp;`.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().take(LONGEST_ENTITY).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(text.get(1..end)?).ok()?;
    let byte = match name {
        "amp" => b'&',
        "lt" => b'<',
        "gt" => b'>',
        "quot" => b'"',
        "apos" => b'\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let hexadecimal = number.strip_prefix(['x', 'X']).map(|digits| u8::from_str_radix(digits, 16));
            hexadecimal.unwrap_or_else(|| number.parse()).ok()?
        }
    };
    Some((byte, end + 1))
}

/// How much of a text begins with something that is taken out of it before anybody reads it, or is no character of a
/// credential: terminal sequences, controls, everything that is not ASCII.
fn unseen(text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    if let Some(length) = sequence(text) {
        return Some(length);
    }
    let stays = matches!(first, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    (!stays).then_some(1)
}

/// The length of the terminal sequence that a text begins with (ECMA-48, 5.4 and 5.6).
fn sequence(text: &[u8]) -> Option<usize> {
    let (kind, begun) = match text {
        [0x1b, kind @ b' '..=b'~', ..] => (*kind, 2),
        [0xc2, 0x9b, ..] => (b'[', 2),
        [0xc2, 0x90 | 0x98 | 0x9d..=0x9f, ..] => (b']', 2),
        _ => return None,
    };
    let after = text.get(begun..).unwrap_or_default();
    let length = match kind {
        b'[' => {
            let most = 64 - usize::from(text.first() == Some(&0x1b));
            let parameters = after.iter().take(most).take_while(|byte| (b' '..=b'?').contains(*byte)).count();
            parameters + usize::from(after.get(parameters).is_some_and(|byte| (b'@'..=b'~').contains(byte)))
        }
        b']' | b'P' | b'^' | b'_' | b'X' => string(after),
        _ => 0,
    };
    Some(begun + length)
}

/// The length of the string of a terminal sequence with its end. One that is left open is none.
fn string(text: &[u8]) -> usize {
    let is_end = |(at, byte): (usize, &u8)| {
        matches!(*byte, 0x07 | b'\n' | 0x1b)
            || (*byte == 0xc2 && text.get(at + 1).is_some_and(|next| matches!(*next, 0x90 | 0x98 | 0x9c..=0x9f)))
    };
    let Some(end) = text.iter().take(LONGEST_STRING).enumerate().position(is_end) else { return 0 };
    match text.get(end..).unwrap_or_default() {
        [0x07, ..] => end + 1,
        [0xc2, 0x9c, ..] | [0x1b, b'\\', ..] => end + 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where these forms are in a text, as it stands and in another writing.
    fn found(forms: &[&str], text: &str) -> Vec<String> {
        let forms = AhoCorasick::new(forms).unwrap();
        let mut all = Vec::new();
        places(text.as_bytes(), Signs::of(text.as_bytes()), &forms, &mut all);
        all.into_iter().map(|place| text[place].to_owned()).collect()
    }

    /// `s3cr3t/token+1`.
    const HEX: &str = "7333637233742f746f6b656e2b31";

    #[test]
    fn digits_are_read_whatever_stands_between_them() {
        let two = |by: &str| {
            let pairs: Vec<&str> = (0..HEX.len() / 2).map(|at| &HEX[2 * at..2 * at + 2]).collect();
            pairs.join(by)
        };
        for text in [
            two(":"),
            two(" "),
            two("-"),
            two(", 0x"),
            two("\\x"),
            two("\n"),
            two("\\n"),
            two("\u{200b}"),
            two(":").to_uppercase(),
            format!("{}\n      {}", &HEX[..15], &HEX[15..]),
            format!("{}{}", HEX[..10].to_uppercase(), &HEX[10..]),
        ] {
            assert_eq!(found(&["s3cr3t/token+1", HEX], &format!("got <{text}> back")), [text]);
        }
        assert!(found(&["s3cr3t/token+1", HEX], &format!("{}ghost{}", &HEX[..15], &HEX[15..])).is_empty());
        assert!(found(&["20261130", "3230323631313330"], "since 2026-11-30 on").is_empty(), "a date is no credential");
    }

    #[test]
    fn lines_of_base64_are_read_as_one_and_words_are_not() {
        let core = "czNjcjN0L3Rva2VuKzE";
        let before = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY3ODk";
        for by in ["\n", "\r\n    ", "\\n", "\",\n\"", "\n> ", "\u{200b}"] {
            let text = format!("data: {before}{}{by}{}QUJD", &core[..9], &core[9..]);
            assert_eq!(found(&[core], &text), [format!("{}{by}{}", &core[..9], &core[9..])], "{by:?}");
        }
        assert_eq!(found(&["a+b/c+d/e+f/"], &format!("{before}\na-b_c-d_e-f_")), ["a-b_c-d_e-f_"], "of the other alphabet");
        assert!(found(&["correcthorsebattery"], "correct horse battery").is_empty());
        assert!(found(&["notefoobarbaz"], "note foo-bar: baz/a/rather-long-name-of-something").is_empty());
    }

    #[test]
    fn escapes_are_read_as_what_they_stand_for_and_what_nobody_sees_is_left_out() {
        let far = "x".repeat(50);
        for text in [
            "s3cr3t%2ftoken+1",
            "%73%33cr3t/token%2b1",
            "%2573%252533cr3t/token+1",
            r"s3cr3t\/token+1",
            r"s3cr3t\\\/token\u002b1",
            r"\u00733cr3t/t\x6fken+1",
            r"\u{73}3cr3t/token+1",
            "s3cr3t&#47;t&#x6f;ken+1",
            "s3cr3t/to\u{200b}ken+1",
            "s3cr3t/to\u{ad}\u{202e}k\u{e0041}en+1",
            "s3cr3t/to\u{1b}[31mken+1",
            "s3cr3t/to\u{1b}]8;;http://a\u{7}ken+1",
            "s3cr3t/to\u{9d}0;title\u{9c}ken\u{7f}+1",
        ] {
            assert_eq!(found(&["s3cr3t/token+1"], &format!("{far}%41{far}{text}{far}\u{e9}")), [text]);
        }
        assert!(found(&["s3cr3t/token+1"], "s3cr3t/%20token+1 100% of \\it & more").is_empty());
        assert_eq!(escape(b"\\\\\\\\\\\\\\\\\\\\/"), None, "of no more depth than texts have");
    }

    #[test]
    fn a_text_longer_than_is_looked_at_at_once_is_read_to_its_end() {
        let two: Vec<&str> = (0..HEX.len() / 2).map(|at| &HEX[2 * at..2 * at + 2]).collect();
        let written = two.join(":");
        for before in [0, ROOM - HEX.len(), ROOM - 7, ROOM, 3 * ROOM + 1] {
            let text = format!("{}:{written}:{}", "00:".repeat(before / 2), "11:".repeat(ROOM));
            assert_eq!(found(&[HEX], &text), std::slice::from_ref(&written), "{before}");
        }
    }

    #[test]
    fn an_ordinary_text_has_no_signs_of_another_writing() {
        for text in ["The disk of node-7 is full, says the operator.", "level=info msg=\"started\" port=8080", ""] {
            let signs = Signs::of(text.as_bytes());
            assert!(signs.digits < SHORTEST_APART && signs.letters < LINE && !signs.marks, "{text}: {signs:?}");
        }
    }
}

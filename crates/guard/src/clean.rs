//! Characters nobody sees: terminal sequences, controls, bidirectional overrides, zero-width and tag characters. They hide
//! text from a person and show it to a model, or the other way round, so they are taken out and counted.

use std::borrow::Cow;

use portcullis_model::is_unseen;

/// What became of one character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
    /// Line and paragraph separators become a line break.
    Break,
}

fn fate(character: char) -> Fate {
    match character {
        '\n' | '\t' | ' '..='~' => Fate::Keep,
        '\u{2028}' | '\u{2029}' | '\u{85}' => Fate::Break,
        unseen if unseen.is_control() || is_unseen(unseen) => Fate::Drop,
        _ => Fate::Keep,
    }
}

/// Whether a character is one of those that are taken out of answers and refused in arguments.
pub fn is_hidden(character: char) -> bool {
    fate(character) != Fate::Keep
}

/// Whether a character can stand in one line of a log, a record or an error: neither hidden nor a line end or a tab.
pub fn is_seen(character: char) -> bool {
    !is_hidden(character) && !character.is_control()
}

/// Takes hidden characters and terminal sequences out of `text` and adds to `removed` how many characters went.
pub(crate) fn clean<'t>(text: &'t str, removed: &mut u64) -> Cow<'t, str> {
    // Nearly every text is ASCII without controls, and that is seen a word at a time.
    if text.bytes().all(|b| (b' '..0x7f).contains(&b) || b == b'\n' || b == b'\t') {
        return Cow::Borrowed(text);
    }
    let mut characters = text.chars().peekable();
    let mut clean = String::with_capacity(text.len());
    let mut selectors = 0_u32;
    while let Some(character) = characters.next() {
        if matches!(character, '\u{1b}' | '\u{90}' | '\u{98}' | '\u{9b}' | '\u{9d}'..='\u{9f}') {
            *removed += 1 + sequence(character, &mut characters);
            continue;
        }
        // A row of selectors behind one character can carry a hidden message.
        selectors = if character == '\u{fe0f}' { selectors + 1 } else { 0 };
        if selectors > 1 {
            *removed += 1;
            continue;
        }
        match (character, characters.peek()) {
            // The two bytes of a line break are one.
            ('\r', Some('\n')) => {}
            ('\r', _) => {
                *removed += 1;
                clean.push('\n');
            }
            _ => match fate(character) {
                Fate::Keep => clean.push(character),
                Fate::Break => clean.push('\n'),
                Fate::Drop => *removed += 1,
            },
        }
    }
    if clean == text { Cow::Borrowed(text) } else { Cow::Owned(clean) }
}

/// Longest string of a terminal sequence, in characters.
const LONGEST_STRING: usize = 4_096;

/// Skips a terminal sequence (ECMA-48, section 5.4: CSI; 5.6: OSC and other strings) and says how many characters it had.
fn sequence(first: char, characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> u64 {
    let mut skipped = 0;
    let introducer = match first {
        '\u{9b}' => '[',
        '\u{90}' => 'P',
        '\u{98}' => 'X',
        '\u{9d}' => ']',
        '\u{9e}' => '^',
        '\u{9f}' => '_',
        _ => match characters.next_if(|c| (' '..='~').contains(c)) {
            Some(character) => {
                skipped += 1;
                character
            }
            None => return skipped,
        },
    };
    match introducer {
        '[' => {
            // Parameters and intermediates, then one final byte. Longer than any real sequence: what follows is text.
            while skipped < 64 && characters.next_if(|c| (' '..='?').contains(c)).is_some() {
                skipped += 1;
            }
            skipped += u64::from(characters.next_if(|c| ('@'..='~').contains(c)).is_some());
        }
        ']' | 'P' | '^' | '_' | 'X' => {
            // A string up to BEL or ST. One that is left open hides nothing: its text stays, for it may be evidence.
            let ahead = characters.clone().take(LONGEST_STRING);
            let length = ahead
                .take_while(|c| !matches!(c, '\u{7}' | '\u{9c}' | '\n' | '\u{1b}' | '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}'))
                .count();
            let mut behind = characters.clone().skip(length);
            let bell = match (behind.next(), behind.next()) {
                (Some('\u{7}' | '\u{9c}'), _) => 1,
                (Some('\u{1b}'), Some('\\')) => 2,
                _ => return skipped,
            };
            characters.nth(length + bell - 1);
            skipped += (length + bell) as u64;
        }
        _ => {}
    }
    skipped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> (String, u64) {
        let mut removed = 0;
        (clean(text, &mut removed).into_owned(), removed)
    }

    #[test]
    fn hidden_characters_go_and_are_counted() {
        assert_eq!(cleaned("a\u{1b}[31mred\u{1b}[0m b"), ("ared b".into(), 9));
        assert_eq!(cleaned("x\u{1b}]8;;http://evil\u{7}link\u{1b}]8;;\u{7}y"), ("xlinky".into(), 23));
        assert_eq!(cleaned("pass\u{200b}word\u{202e}x\u{2066}"), ("passwordx".into(), 3));
        let tags: String = "ignore".chars().filter_map(|c| char::from_u32(0xe0000 + c as u32)).collect();
        assert_eq!(cleaned(&format!("a{tags}b")), ("ab".into(), 6));
        assert_eq!(cleaned("a\u{0}b\u{8}c\u{9b}2Jd"), ("abcd".into(), 5));
        // Strings of every kind, in seven bits and in eight; one that is left open hides nothing.
        for string in [
            "\u{1b}]0;title\u{1b}\\",
            "\u{1b}P1$r\u{9c}",
            "\u{1b}_app\u{7}",
            "\u{9d}8;;x\u{9c}",
            "\u{90}q\u{7}",
            "\u{9f}y\u{1b}\\",
        ] {
            assert_eq!(cleaned(&format!("a{string}b")).0, "ab", "{string:?}");
        }
        assert_eq!(cleaned("a\u{1b}]8;;http://evil and what follows\nb"), ("a8;;http://evil and what follows\nb".into(), 2));
        assert_eq!(cleaned("a\u{9d}open \u{9d}0;t\u{7}b"), ("aopen b".into(), 6));
        assert_eq!(cleaned("a\u{e0080}\u{e01f0}\u{1bca0}\u{2800}b"), ("ab".into(), 4));
        assert_eq!(cleaned("one\r\ntwo\rthree"), ("one\ntwo\nthree".into(), 1));
        assert_eq!(cleaned("a\u{e0100}b\u{fe0f}\u{fe0f}"), ("ab\u{fe0f}".into(), 2));
    }

    #[test]
    fn what_looks_like_nothing_goes() {
        for blank in
            ['\u{2800}', '\u{3164}', '\u{ffa0}', '\u{115f}', '\u{1160}', '\u{34f}', '\u{180e}', '\u{2060}', '\u{2064}', '\u{ad}']
        {
            assert!(is_hidden(blank) && !is_seen(blank), "{}", blank.escape_unicode());
            assert_eq!(
                cleaned(&format!("pass{blank}word{blank}{blank}=x")),
                ("password=x".into(), 3),
                "{}",
                blank.escape_unicode()
            );
        }
    }

    #[test]
    fn visible_text_is_untouched() {
        for text in ["plain\ttext\n", "Grüße, 世界, שלום, привет", "❤️ ok", "a – b … “c”", "⠓⠊ 1\u{a0}000"]
        {
            assert_eq!(cleaned(text), (text.into(), 0));
        }
    }

    proptest::proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(text in "\\PC{0,40}[\\x00-\\x20\\x1b\\u{200b}-\\u{202f}\\u{e0000}-\\u{e0040}\\[\\]a-z;0-9\r\n]{0,60}") {
            let (once, _) = cleaned(&text);
            let (twice, more) = cleaned(&once);
            proptest::prop_assert_eq!(&once, &twice);
            proptest::prop_assert_eq!(more, 0);
            proptest::prop_assert!(once.len() <= text.len() + 2);
            proptest::prop_assert!(!once.chars().any(is_hidden));
        }
    }
}

//! Whether a text can stand as one segment of a path of a URL. One rule for whoever checks arguments and for whoever builds
//! addresses. Must not encode anything.

use crate::unseen::is_unseen;

/// Longest segment that comes from outside, in bytes.
const MOST_BYTES: usize = 2_048;

/// Whether a value is one segment of a path and nothing else, also for servers that decode twice, fold characters, cut at
/// `;` or trim blanks.
///
/// # Errors
/// What is wrong with it, to follow the name of the argument.
pub fn check_path_segment(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > MOST_BYTES {
        return Err("is too long");
    }
    if is_only_dots(text) {
        return Err("climbs out of the path");
    }
    if text.contains(char::is_control) {
        return Err("holds control characters");
    }
    if text.contains(['/', '\\']) {
        return Err("holds a separator of paths");
    }
    // Some servers take what follows `;` as a parameter of the segment, so that `..;` is `..`.
    if text.contains(';') {
        return Err("holds ';', which cuts a segment in two");
    }
    if is_encoded(text) {
        return Err("is encoded already");
    }
    if text.contains(reads_as_another) {
        return Err("holds a character that is read as another one");
    }
    Ok(())
}

/// Whether a text is nothing but dots and blanks, so that it stands for a place and not for a name.
pub fn is_only_dots(text: &str) -> bool {
    text.chars().all(|c| c == '.' || c.is_whitespace())
}

/// Whether there is a `%` that a second decoder would take for an encoded character.
fn is_encoded(text: &str) -> bool {
    text.as_bytes().windows(3).any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit())
        // The form of old Microsoft servers.
        || text.as_bytes().windows(2).any(|w| w[0] == b'%' && w[1].eq_ignore_ascii_case(&b'u'))
}

/// Whether folding (NFKC, best fit, the host rules of IDNA) makes a separator, a dot, a percent sign or nothing of it, or
/// whether it changes how the text around it is shown.
fn reads_as_another(c: char) -> bool {
    matches!(c,
        // Solidus, reverse solidus.
        '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{ff0f}' | '\u{2216}' | '\u{29f5}' | '\u{29f9}' | '\u{fe68}' | '\u{ff3c}'
        | '\u{20e5}' | '\u{0337}' | '\u{0338}' | '\u{2571}' | '\u{2572}'
        // Words with a solidus in them: a/c, a/s, c/o, c/u.
        | '\u{2100}' | '\u{2101}' | '\u{2105}' | '\u{2106}'
        // Fractions: a solidus after folding.
        | '\u{00bc}'..='\u{00be}' | '\u{2150}'..='\u{215f}' | '\u{2189}'
        // Dots, leaders, and numbers with a dot.
        | '\u{2024}'..='\u{2026}' | '\u{3002}' | '\u{fe12}' | '\u{fe19}' | '\u{fe30}' | '\u{fe52}' | '\u{ff0e}' | '\u{ff61}'
        | '\u{2488}'..='\u{249b}' | '\u{1f100}'
        // Percent, number sign, question mark, semicolon, colon, at, ampersand, equals.
        | '\u{ff05}' | '\u{fe6a}' | '\u{ff03}' | '\u{fe5f}' | '\u{ff1f}' | '\u{fe56}' | '\u{fe16}' | '\u{2047}'..='\u{2049}'
        | '\u{037e}' | '\u{ff1b}' | '\u{fe54}' | '\u{fe14}' | '\u{ff1a}' | '\u{fe55}' | '\u{fe13}' | '\u{ff20}' | '\u{fe6b}'
        | '\u{ff06}' | '\u{fe60}' | '\u{ff1d}' | '\u{fe66}' | '\u{2a74}'..='\u{2a76}'
        // What stands in for another, and makes a picture of a sign.
        | '\u{fe0f}' | '\u{fffc}' | '\u{fffd}')
        || is_unseen(c)
        || (c.is_whitespace() && c != ' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tricks_are_named() {
        for (text, word) in [
            ("", "empty"),
            ("..", "climbs"),
            (" . ", "climbs"),
            ("a/b", "separator"),
            ("a\\b", "separator"),
            ("a\0", "control"),
            ("..;", "';'"),
            ("%2e%2E", "encoded"),
            ("%U002f", "encoded"),
            ("a\u{ff0f}b", "another"),
            ("\u{2025}", "another"),
            ("a\u{200b}", "another"),
            ("a\u{2800}b", "another"),
            ("a\u{fffd}", "another"),
        ] {
            assert!(check_path_segment(text).unwrap_err().contains(word), "{text:?}");
        }
        for text in
            ["a", "a.b", "..a", "100%", "50% off", "\u{e9}", "\u{65e5}\u{672c}", "a b", "user@host", "a:b", "#general", "what?"]
        {
            check_path_segment(text).unwrap();
        }
    }

    proptest! {
        #[test]
        fn plain_values_are_taken(value in "[A-Za-z0-9_.~@:+!*'(),=&$-]{1,30}[A-Za-z0-9]") {
            prop_assert!(check_path_segment(&value).is_ok());
        }

        #[test]
        fn what_is_taken_holds_no_separator_and_climbs_nowhere(value in ".{0,40}") {
            if check_path_segment(&value).is_ok() {
                prop_assert!(!value.contains(['/', '\\', ';', '\0']));
                prop_assert!(!value.trim_matches(['.', ' ']).is_empty());
            }
        }
    }
}

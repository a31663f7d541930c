//! One-line text: untrusted values become a single printable line before they enter a table or a tree.
//!
//! Guards the line structure of an answer. Must not judge content: what a secret is, and where a text may be cut so that no
//! half of one stays, [`portcullis_model::cut`] says.

use std::fmt::Write as _;

use portcullis_model::cut;

/// Puts `text` on one line: tab, line breaks, backslash and other control characters are written as escapes, and
/// anything beyond `max_chars` characters is replaced by `…(+N chars)`. What is cut was redacted before.
pub fn one_line(text: &str, max_chars: usize) -> String {
    let cut::Beginning { text: kept, left } = cut::beginning(text, max_chars);
    let mut out = String::with_capacity(kept.len() + 16);
    for character in kept.chars() {
        push_escaped(&mut out, character);
    }
    if left > 0 {
        let _ = write!(out, "…(+{left} chars)");
    }
    out
}

/// The same for the value of a field. Its name may say that it is a secret, also one with spaces and signs in it, and that counts
/// wherever the value is shown: beside the name, under it in a table, or without it.
pub fn field_line(name: &str, value: &str, max_chars: usize) -> String {
    one_line(&cut::field(name, value), max_chars)
}

/// Appends one character, escaped when it would break a line or hide itself.
fn push_escaped(out: &mut String, character: char) {
    match character {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\\' => out.push_str("\\\\"),
        '\u{2028}' | '\u{2029}' | '\u{85}' => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
        }
        control if control.is_control() => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(control));
        }
        plain => out.push(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_control_characters_cannot_leave_the_line() {
        let shown = one_line("a\nb\tc\r\u{1b}[31m\u{2028}d\\", 100);
        assert_eq!(shown, "a\\nb\\tc\\r\\u{1b}[31m\\u{2028}d\\\\");
        assert_eq!(shown.lines().count(), 1);
    }

    #[test]
    fn a_cut_says_how_much_it_cut() {
        let shown = |text: &str, most| cut::under(&cut::CutRule::Open, || one_line(text, most));
        assert_eq!(shown("abcdef", 4), "abcd…(+2 chars)");
        assert_eq!(shown("äöü", 3), "äöü");
        assert_eq!(shown("a\nb\nc", 3), "a\\nb…(+2 chars)", "an escape is one character");
    }

    #[test]
    fn without_a_word_about_secrets_no_part_of_a_word_is_shown() {
        assert_eq!(one_line("user AKIAIOSFODNN7EXAMPLE", 20), "user…(+21 chars)");
    }

    #[test]
    fn a_field_is_shown_by_what_its_name_says() {
        #[derive(Debug)]
        struct Passwords;
        impl cut::Secrecy for Passwords {
            fn text(&self, _: &str) -> Option<String> {
                None
            }
            fn field(&self, name: &str, _: &str) -> Option<String> {
                (name == "password").then(|| "[gone]".to_owned())
            }
        }
        let rule = cut::CutRule::Closed(std::sync::Arc::new(Passwords));
        let shown = cut::under(&rule, || (field_line("password", "correct horse", 80), field_line("pod", "a\nb", 80)));
        assert_eq!(shown, ("[gone]".to_owned(), "a\\nb".to_owned()));
    }
}

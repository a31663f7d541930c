//! One-line text: untrusted values become a single printable line before they enter a table or a tree.
//!
//! Guards the line structure of an answer. Must not judge or redact content.

use std::fmt::Write as _;

/// Puts `text` on one line: tab, line breaks, backslash and other control characters are written as escapes, and
/// anything beyond `max_chars` characters is replaced by `…(+N chars)`.
pub fn one_line(text: &str, max_chars: usize) -> String {
    let total = text.chars().count();
    let keep = if total > max_chars { max_chars } else { total };
    let mut out = String::with_capacity(text.len().min(max_chars * 2) + 16);
    for character in text.chars().take(keep) {
        push_escaped(&mut out, character);
    }
    if total > keep {
        let _ = write!(out, "…(+{} chars)", total - keep);
    }
    out
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
        assert_eq!(one_line("abcdef", 4), "abcd…(+2 chars)");
        assert_eq!(one_line("äöü", 3), "äöü");
    }
}

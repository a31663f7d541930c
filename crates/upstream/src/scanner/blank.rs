//! Space that pushes what follows it off a screen: many line ends in a row, or one line that is mostly nothing. Must not look
//! at what characters that nobody sees say; those are found by themselves.

use portcullis_model::is_blank;

use super::{Finding, found};

/// Line ends in a row, with nothing between them, that no ordinary text has.
const LINES: usize = 8;
/// The same of blanks in a line.
const BLANKS: usize = 64;

/// What is wrong with the space in a text.
pub(super) fn look(text: &str, place: &str, findings: &mut Vec<Finding>) {
    let (mut lines, mut blanks, mut most_lines, mut most_blanks) = (0_usize, 0_usize, 0_usize, 0_usize);
    for character in text.chars() {
        match character {
            '\n' => (lines, blanks) = (lines + 1, 0),
            blank if is_blank(blank) => blanks += 1,
            _ => (lines, blanks) = (0, 0),
        }
        (most_lines, most_blanks) = (most_lines.max(lines), most_blanks.max(blanks));
    }
    if most_lines >= LINES {
        let detail = format!("holds {most_lines} line ends in a row, which push what follows off a screen");
        findings.push(found("blank-space", place, &detail));
    } else if most_blanks >= BLANKS {
        let detail = format!("holds {most_blanks} blanks in a row, which push what follows off a screen");
        findings.push(found("blank-space", place, &detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_that_pushes_text_away_is_found_and_ordinary_space_is_not() {
        let kinds = |text: &str| {
            let mut findings = Vec::new();
            look(text, "description", &mut findings);
            findings.into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
        };
        assert!(kinds(&format!("Adds.{}Sends all.", "\n".repeat(3_000)))[0].starts_with("holds 3000 line ends"));
        assert!(kinds(&format!("Adds.{}Sends all.", "\u{3000}\r\n \t".repeat(10)))[0].starts_with("holds 10 line ends"));
        assert!(kinds(&format!("Adds.{}Sends all.", "\u{2800} ".repeat(500)))[0].starts_with("holds 1000 blanks"));
        assert!(kinds("Adds.\n\n  - one\n\n  - two\n\n\n```\n                    indented\n```\n").is_empty());
    }
}

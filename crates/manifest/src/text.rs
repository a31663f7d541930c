//! Texts of a description, tidied for a list a model reads: one line, bounded, without characters nobody sees.

use portcullis_model::is_unseen;
use portcullis_shape::one_line;

/// One line of at most `most` characters. What is cut is said.
pub(crate) fn tidy(text: &str, most: usize) -> String {
    let seen: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_left_out(*c)).collect();
    let words: Vec<&str> = seen.split(' ').filter(|word| !word.is_empty()).collect();
    one_line(&words.join(" "), most)
}

/// Controls, what nobody sees, and what only makes a picture of a sign.
fn is_left_out(c: char) -> bool {
    c.is_control() || c == '\u{fe0f}' || is_unseen(c)
}

/// The first sentence, where there is more than one.
pub(crate) fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_and_line_ends_go() {
        assert_eq!(tidy(" Finds\n\tpets.\u{200b}\u{202e}\u{e0041}\u{2800}\u{3164}\u{1b}[31m ", 100), "Finds pets.[31m");
        assert_eq!(tidy("Finds pets by name", 13), "Finds pets…(+8 chars)", "half a word is none");
        assert_eq!(first_sentence("One. Two."), "One.");
        assert_eq!(first_sentence("One"), "One");
    }
}

//! Texts of a description, tidied for a list a model reads: one line, bounded, without characters nobody sees.

use portcullis_shape::one_line;

/// One line of at most `most` characters. What is cut is said.
pub(crate) fn tidy(text: &str, most: usize) -> String {
    let seen: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_unseen(*c)).collect();
    let words: Vec<&str> = seen.split(' ').filter(|word| !word.is_empty()).collect();
    one_line(&words.join(" "), most)
}

/// The first sentence, where there is more than one.
pub(crate) fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

/// Controls, characters without width, and those that change the direction.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_and_line_ends_go() {
        assert_eq!(tidy(" Finds\n\tpets.\u{200b}\u{202e}\u{e0041}\u{1b}[31m ", 100), "Finds pets.[31m");
        assert_eq!(tidy("Finds pets by name", 13), "Finds pets…(+8 chars)", "half a word is none");
        assert_eq!(first_sentence("One. Two."), "One.");
        assert_eq!(first_sentence("One"), "One");
    }
}

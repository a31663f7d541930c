//! Characters nobody sees: they take no room, leave an empty place, or change how the text around them is shown. The one list
//! for whoever takes them out of a text, refuses them or writes them out for a person. Must not decide which of that.

/// Whether a character leaves its place empty: all that is white space, and letters and patterns without a stroke.
pub fn is_blank(character: char) -> bool {
    character.is_whitespace() || is_empty_letter(character)
}

/// Hangul fillers, the pattern of Braille without a dot, the filler of the small Khitan script, and a note without its head: as
/// wide as what they stand in for.
fn is_empty_letter(character: char) -> bool {
    matches!(character, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{16fe4}' | '\u{1d159}')
}

/// Whether nobody sees a character, and it is neither white space nor a control: what Unicode calls ignorable, empty letters,
/// directional marks, format characters and what is none at all. The sixteenth variation selector is seen: it makes a picture of
/// a sign.
pub fn is_unseen(character: char) -> bool {
    match character {
        ' '..='~' => false,
        // Soft hyphen, grapheme joiner, Arabic letter mark, Khmer inherent vowels, Mongolian selectors.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        // Zero width, directional marks, embeddings, overrides and isolates, invisible operators.
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        // Variation selectors but the sixteenth.
        | '\u{fe00}'..='\u{fe0e}'
        | '\u{e0100}'..='\u{e01ef}'
        // Interlinear annotation and its neighbours, joiners of Egyptian and shorthand signs, formats of music.
        | '\u{fff0}'..='\u{fffb}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        // Tags, and what no character is.
        | '\u{e0000}'..='\u{e00ff}'
        | '\u{e01f0}'..='\u{e0fff}'
        | '\u{fdd0}'..='\u{fdef}' => true,
        other => u32::from(other) & 0xfffe == 0xfffe || is_empty_letter(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_known_and_what_is_seen_is_left_alone() {
        let unseen = "\u{2800}\u{3164}\u{ffa0}\u{115f}\u{1160}\u{34f}\u{180e}\u{2060}\u{2061}\u{2062}\u{2063}\u{2064}\u{ad}\u{61c}\
                      \u{17b4}\u{200b}\u{200d}\u{202e}\u{2066}\u{feff}\u{fe00}\u{fffb}\u{16fe4}\u{1d159}\u{13430}\u{1d173}\u{e0041}\
                      \u{e0100}\u{e0fff}\u{fdd0}\u{ffff}\u{10ffff}";
        for character in unseen.chars() {
            assert!(is_unseen(character), "{}", character.escape_unicode());
        }
        for character in "aZ09~ äß世界한ᄀ⠁⠿שلדé❤\u{fe0f}👍\u{fffd}\u{fffc}–…“".chars() {
            assert!(!is_unseen(character), "{}", character.escape_unicode());
        }
        assert!(['\u{2800}', '\u{3164}', ' ', '\t', '\u{a0}', '\u{3000}'].into_iter().all(is_blank));
        assert!(!['a', '⠁', '\u{200b}', '\u{e0041}'].into_iter().any(is_blank));
    }
}

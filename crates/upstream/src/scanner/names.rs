//! Names of tools among others: those that take another's name, and those an eye takes for another. Must not change a name.

use portcullis_guard::is_hidden;
use portcullis_model::ToolName;

use super::fold::prototype;
use super::{Finding, Neighbours, found};

/// What is wrong with a tool's name among others.
pub(super) fn name(name: &str, neighbours: &Neighbours, findings: &mut Vec<Finding>) {
    if ToolName::new(name).is_err() {
        findings.push(found(
            "name",
            "name",
            "is no valid tool name (1 to 128 of letters, digits, '_', '.', '-'); it cannot be offered",
        ));
    }
    let own = skeleton(name);
    for (whose, other) in neighbours {
        if other == name {
            findings.push(found(
                "shadows",
                "name",
                &format!("is the name of a tool of {whose}; it would be offered with a prefix"),
            ));
        } else if skeleton(other) == own {
            findings.push(found("look-alike", "name", &format!("looks like '{other}', a tool of {whose}")));
        } else if name.len() >= 6 && other.len() >= 6 && strsim::damerau_levenshtein(name, other) == 1 {
            findings.push(found("look-alike", "name", &format!("differs in one character from '{other}', a tool of {whose}")));
        }
    }
}

/// A name as an eye takes it: look-alike letters are one, case and separators do not matter (after Unicode TS 39).
pub(crate) fn skeleton(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for character in name.chars().flat_map(char::to_lowercase) {
        let seen = match character {
            '_' | '-' | '.' | ' ' | '\u{2010}'..='\u{2015}' => continue,
            // What the standard takes for no letter, or for another one.
            'à'..='å' | '@' => 'a',
            'ь' | 'в' | 'β' => 'b',
            'ç' => 'c',
            'ɗ' => 'd',
            'ё' | 'є' | 'ε' | 'è'..='ë' | '3' => 'e',
            'н' => 'h',
            'ї' | 'ì'..='ï' | 'l' | '1' | '|' => 'i',
            'к' | 'κ' => 'k',
            'м' | 'μ' | 'ｍ' => 'm',
            'п' | 'η' | 'ñ' => 'n',
            'ò'..='ö' | '0' => 'o',
            '5' | '$' => 's',
            'т' | 'τ' => 't',
            'ù'..='ü' => 'u',
            'ω' => 'w',
            'χ' => 'x',
            'ý' | 'ÿ' => 'y',
            'ʐ' => 'z',
            hidden if is_hidden(hidden) => continue,
            plain if plain.is_ascii() => plain,
            other => match prototype(other) {
                Some('l') => 'i',
                Some(letter) => letter,
                None => other,
            },
        };
        plain.push(seen);
    }
    plain.replace("rn", "m").replace("vv", "w").replace("ci", "d")
}

/// Whether a text names something as a whole word.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    text.match_indices(name).any(|(at, _)| {
        let bytes = text.as_bytes();
        !word(at.checked_sub(1).and_then(|i| bytes.get(i))) && !word(bytes.get(at + name.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_an_eye_takes_for_one_are_one() {
        for (letter, alike) in [
            ('a', "аαàáâãäåɑ@ａ"),
            ('b', "ьвβ"),
            ('c', "сϲç"),
            ('d', "ԁɗ"),
            ('e', "еёєεèéêë3"),
            ('g', "ɡց"),
            ('h', "һн"),
            ('i', "іїιìíîïıl1|ӏⅼ"),
            ('j', "ј"),
            ('k', "кκ"),
            ('m', "мμｍ"),
            ('n', "пηñ"),
            ('o', "оοσòóôõö0օ"),
            ('p', "рρ"),
            ('q', "ԛ"),
            ('r', "г"),
            ('s', "ѕ5$"),
            ('t', "тτ"),
            ('u', "υùúûüս"),
            ('v', "νѵ"),
            ('w', "ѡω"),
            ('x', "хχ"),
            ('y', "уγýÿ"),
            ('z', "ʐｚ"),
        ] {
            for other in alike.chars() {
                assert_eq!(skeleton(&other.to_string()), letter.to_string(), "{other}");
            }
        }
        assert_eq!(skeleton("Query-L\u{200b}ogs.2"), "queryiogs2");
    }
}

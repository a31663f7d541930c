//! Names of tools among others: those that take another's name, and those an eye takes for another. Must not change a name.

use portcullis_guard::is_hidden;
use portcullis_model::ToolName;

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
            'а' | 'α' | 'à'..='å' | 'ɑ' | '@' => 'a',
            'ь' | 'в' | 'β' => 'b',
            'с' | 'ϲ' | 'ç' => 'c',
            'ԁ' | 'ɗ' => 'd',
            'е' | 'ё' | 'є' | 'ε' | 'è'..='ë' | '3' => 'e',
            'ɡ' | 'ց' => 'g',
            'һ' | 'н' => 'h',
            'і' | 'ї' | 'ι' | 'ì'..='ï' | 'ı' | 'l' | '1' | '|' | 'ӏ' | 'ⅼ' => 'i',
            'ј' => 'j',
            'к' | 'κ' => 'k',
            'м' | 'μ' => 'm',
            'п' | 'η' | 'ñ' => 'n',
            'о' | 'ο' | 'σ' | 'ò'..='ö' | '0' | 'օ' => 'o',
            'р' | 'ρ' => 'p',
            'ԛ' => 'q',
            'г' => 'r',
            'ѕ' | '5' | '$' => 's',
            'т' | 'τ' => 't',
            'υ' | 'ù'..='ü' | 'ս' => 'u',
            'ν' | 'ѵ' => 'v',
            'ѡ' | 'ω' => 'w',
            'х' | 'χ' => 'x',
            'у' | 'γ' | 'ý' | 'ÿ' => 'y',
            'ʐ' => 'z',
            'ａ'..='ｚ' => char::from_u32(character as u32 - 0xff41 + 0x61).unwrap_or(character),
            hidden if is_hidden(hidden) => continue,
            other => other,
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

//! Names of tools among others: those that take another's name or stand behind another's prefix, those an eye takes for
//! another, and texts that speak of tools of others. All of it changes with the others, so it is looked at anew whenever
//! somebody asks. Must not change a name.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use portcullis_guard::is_hidden;
use portcullis_model::ToolName;
use portcullis_ports::Prefixes;
use serde_json::Value;

use super::fold::{fold, prototype};
use super::{Finding, MOST, found, spelt_out};
use crate::addresses::is_no_resource;
use crate::definition::Kind;
use crate::whose::Whose;

/// What is found by looking at others.
const KINDS: [&str; 4] = ["name", "shadows", "look-alike", "speaks-of-others"];
/// Findings of one definition about others that are kept.
const MOST_AMONG: usize = 16;
/// Shortest prefix that is compared as an eye takes it, and not letter by letter.
const SHORTEST: usize = 4;

/// What others have, for whoever looks for imitations.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Whose, and which.
    names: BTreeSet<(String, String)>,
    /// Words that stand before names of others, with whose they are.
    words: Vec<(String, String)>,
    /// Words that stand before own names.
    own: Vec<String>,
    /// The names as an eye takes them, in their order.
    seen: OnceLock<Vec<String>>,
    /// Whose addresses are.
    whose: Option<Arc<Whose>>,
}

impl Neighbours {
    /// Names with whose they are, whose name comes first, and everybody's prefixes; `own` are all that the one who is looked at
    /// is called by.
    pub(crate) fn new(names: BTreeSet<(String, String)>, prefixes: &Prefixes, own: &BTreeSet<String>) -> Self {
        let (mut words, mut mine) = (Vec::new(), Vec::new());
        for (word, owner) in prefixes.words() {
            if own.contains(owner) {
                mine.push(word.to_owned());
            } else {
                words.push((owner.to_owned(), word.to_owned()));
            }
        }
        Self { names, words, own: mine, seen: OnceLock::new(), whose: None }
    }

    /// With whose addresses are.
    pub(crate) fn with_addresses(self, whose: Arc<Whose>) -> Self {
        Self { whose: Some(whose), ..self }
    }

    /// In words, that an address is somebody else's.
    fn address(&self, address: &str) -> Option<String> {
        let (keeper, template) = self.whose.as_ref()?.strangers(address)?;
        let what = match template {
            Some(template) => format!("belongs to the resource template '{}' of {}", printable(&template), keeper.owner),
            None => format!("is an address of {}", keeper.owner),
        };
        Some(format!("{what}, which was accepted before; it would be left out"))
    }

    /// Every name, with whose it is first.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().map(|(owner, name)| (owner.as_str(), name.as_str()))
    }

    /// Every name with whose it is, and how an eye takes it.
    fn seen(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let seen = self.seen.get_or_init(|| self.names.iter().map(|(_, name)| skeleton(name)).collect());
        self.names.iter().zip(seen).map(|((owner, name), seen)| (owner.as_str(), name.as_str(), seen.as_str()))
    }

    /// Behind whose prefix a name stands, and which that is. Behind an own one that is longer it does not.
    fn behind(&self, name: &str) -> Option<(&str, &str)> {
        let heads = name.match_indices(['_', '-', '.']).map(|(at, _)| &name[..at]);
        let heads: Vec<(&str, String)> = heads.filter(|head| !head.is_empty()).map(|head| (head, skeleton(head))).collect();
        let stands = |word: &str| {
            let seen = skeleton(word);
            let alike =
                |(head, like): &&(&str, String)| head.eq_ignore_ascii_case(word) || (word.len() >= SHORTEST && *like == seen);
            heads.iter().filter(alike).map(|(head, _)| head.len()).max()
        };
        let own = self.own.iter().filter_map(|word| stands(word)).max().unwrap_or_default();
        let of_others = self.words.iter().filter_map(|(owner, word)| Some((stands(word)?, owner, word)));
        let longest = of_others.max_by_key(|(length, ..)| *length).filter(|(length, ..)| *length > own)?;
        Some((longest.1.as_str(), longest.2.as_str()))
    }
}

/// What is found about a definition with what others have now, and the rest of what was found before.
pub(crate) fn findings_among(kind: Kind, name: &str, body: &Value, neighbours: &Neighbours, before: &[Finding]) -> Vec<Finding> {
    let mut findings = among(kind, name, body, neighbours);
    findings.extend(before.iter().filter(|finding| !KINDS.contains(&finding.what.as_str())).cloned());
    findings.truncate(MOST);
    findings
}

/// What is wrong with a definition among others. Only this changes with them.
fn among(kind: Kind, name: &str, body: &Value, neighbours: &Neighbours) -> Vec<Finding> {
    let mut findings = Vec::new();
    if kind == Kind::Tool {
        if ToolName::new(name).is_err() {
            findings.push(found(
                "name",
                "name",
                "is no valid tool name (1 to 128 of letters, digits, '_', '.', '-'); it cannot be offered",
            ));
        }
        alike(name, neighbours, &mut findings);
    }
    if kind == Kind::Prompt && fold(&spelt_out(name)).mixed > 0 {
        findings.push(found("look-alike", "name", "mixes letters of several alphabets in one word"));
    }
    if is_no_resource(kind, name) {
        let place = if kind == Kind::Template { "uriTemplate" } else { "uri" };
        findings.push(found("name", place, "is a script and no address of a resource; it cannot be offered"));
    }
    if kind == Kind::Resource {
        findings.extend(neighbours.address(name).map(|detail| found("shadows", "uri", &detail)));
    }
    if matches!(kind, Kind::Tool | Kind::Prompt) {
        if let Some((owner, word)) = neighbours.behind(name) {
            let what = format!("begins with '{word}', which stands before names of {owner}");
            findings.push(found("shadows", "name", &format!("{what}; it would be offered with its own prefix")));
        }
        speaks_of(name, body, neighbours, &mut findings);
    }
    findings.truncate(MOST_AMONG);
    findings
}

/// Names it takes, and those it looks like.
fn alike(name: &str, neighbours: &Neighbours, findings: &mut Vec<Finding>) {
    let own = skeleton(name);
    for (whose, other, seen) in neighbours.seen() {
        if findings.len() >= MOST_AMONG {
            return;
        }
        if other == name {
            let detail = format!("is the name of a tool of {whose}; it would be offered with a prefix");
            findings.push(found("shadows", "name", &detail));
        } else if seen == own {
            let detail = format!("looks like '{}', a tool of {whose}", printable(other));
            findings.push(found("look-alike", "name", &detail));
        } else if differs_in_one(name, other) {
            let detail = format!("differs in one character from '{}', a tool of {whose}", printable(other));
            findings.push(found("look-alike", "name", &detail));
        }
    }
}

/// Whether one character, or the order of two, is all the difference between names that are long enough to be told apart.
fn differs_in_one(name: &str, other: &str) -> bool {
    // A character has at most four bytes.
    if name.len() < 6 || other.len() < 6 || name.len().abs_diff(other.len()) > 4 {
        return false;
    }
    let (one, two): (Vec<char>, Vec<char>) = (name.chars().collect(), other.chars().collect());
    let ahead = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let (one, two) = (&one[ahead..], &two[ahead..]);
    let behind = one.iter().rev().zip(two.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&one[..one.len() - behind], &two[..two.len() - behind]) {
        ([_], [] | [_]) | ([], [_]) => true,
        ([first, second], [third, fourth]) => first == fourth && second == third,
        _ => false,
    }
}

/// Tools of others that its texts name.
fn speaks_of(name: &str, body: &Value, neighbours: &Neighbours, findings: &mut Vec<Finding>) {
    let mut texts = Vec::new();
    collect(body, &mut String::new(), &mut texts);
    let all = texts.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n");
    let telling = |other: &str| other.len() >= 8 && other.contains(['_', '-', '.']) && other != name && all.contains(other);
    for (whose, other, _) in neighbours.seen().filter(|(_, other, _)| telling(other)) {
        for (place, _) in texts.iter().filter(|(_, text)| mentions(text, other)) {
            if findings.len() >= MOST_AMONG {
                return;
            }
            let detail = format!("names '{}', which is a tool of {whose}", printable(other));
            findings.push(found("speaks-of-others", place, &detail));
        }
    }
}

/// Every text in a definition but its name, with its place.
fn collect<'v>(value: &'v Value, place: &mut String, texts: &mut Vec<(String, &'v str)>) {
    let mut below = |name: &str, value: &'v Value, place: &mut String| {
        let length = place.len();
        if !place.is_empty() {
            place.push('.');
        }
        place.extend(name.chars().filter(|c| !is_hidden(*c)).take(60));
        collect(value, place, texts);
        place.truncate(length);
    };
    match value {
        Value::String(text) if place.as_str() != "name" => texts.push((place.clone(), text.as_str())),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| below(&index.to_string(), item, place)),
        Value::Object(members) => members.iter().for_each(|(name, member)| below(name, member, place)),
        _ => {}
    }
}

/// A name of somebody else, safe to print.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !is_hidden(*c) && !c.is_control()).take(120).collect()
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
fn mentions(text: &str, name: &str) -> bool {
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

    fn neighbours(names: &[(&str, &str)], own: &[&str]) -> Neighbours {
        let owners = ["upstream other", "upstream other_two", "api shop", "upstream eu"].map(str::to_owned);
        let names = names.iter().map(|(owner, name)| ((*owner).to_owned(), (*name).to_owned())).collect();
        let own = own.iter().map(|owner| (*owner).to_owned()).collect();
        Neighbours::new(names, &Prefixes::of(owners), &own)
    }

    fn found_in(name: &str, neighbours: &Neighbours) -> Vec<String> {
        let findings = among(Kind::Tool, name, &serde_json::json!({ "name": name }), neighbours);
        findings.into_iter().map(|finding| format!("{}: {}", finding.what, finding.detail)).collect()
    }

    #[test]
    fn a_name_behind_anothers_prefix_is_pointed_out() {
        let evil = neighbours(&[], &["upstream evil"]);
        for (name, owner) in [
            ("other_pay", "upstream other;"),
            ("other_two_pay", "upstream other_two;"),
            ("shop_refund", "api shop;"),
            ("Other-pay", "upstream other;"),
            ("0ther_pay", "upstream other;"),
            ("eu_pay", "upstream eu;"),
        ] {
            let found = found_in(name, &evil);
            assert!(found.len() == 1 && found[0].starts_with("shadows: ") && found[0].contains(owner), "{name}: {found:?}");
        }
        for name in ["others_pay", "pay_other", "other", "shopping", "eup_ay", "_x"] {
            assert!(found_in(name, &evil).is_empty(), "{name}");
        }
        // Who is called so may call it so, and so may who is called something longer.
        assert!(found_in("other_pay", &neighbours(&[], &["upstream other"])).is_empty());
        assert!(found_in("other_two_pay", &neighbours(&[], &["upstream other_two"])).is_empty());
    }

    #[test]
    fn what_is_found_about_names_follows_the_others_and_the_rest_stays() {
        let before = [found("shadows", "name", "of somebody who left"), found("instructions", "description", "x")];
        let body = serde_json::json!({"name": "rollout_1ist", "description": "Better than deploy_status."});
        let kinds = |neighbours: &Neighbours| {
            let found = findings_among(Kind::Tool, "rollout_1ist", &body, neighbours, &before);
            found.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&neighbours(&[], &[])), ["instructions"]);
        let others = [("upstream a", "rollout_list"), ("upstream a", "deploy_status")];
        assert_eq!(kinds(&neighbours(&others, &[])), ["look-alike", "speaks-of-others", "instructions"]);
    }

    #[test]
    fn a_prompt_in_two_alphabets_and_an_address_that_is_a_script_are_pointed_out() {
        let none = neighbours(&[], &[]);
        let kinds = |kind: Kind, name: &str| {
            let findings = among(kind, name, &serde_json::json!({ "name": name }), &none);
            findings.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        assert_eq!(kinds(Kind::Prompt, "gu\u{456}de"), ["look-alike"]);
        assert!(kinds(Kind::Prompt, "guide").is_empty() && kinds(Kind::Prompt, "руководство").is_empty());
        assert_eq!(kinds(Kind::Resource, "JavaScript:alert(1)"), ["name"]);
        assert_eq!(kinds(Kind::Template, "data:{+anything}"), ["name"]);
        assert!(kinds(Kind::Resource, "note://javascript:x").is_empty());
    }

    #[test]
    fn one_character_or_the_order_of_two_is_told_in_one_go() {
        for name in ["deploy", "depploy", "deployy", "xdeploy", "deplyo", "edploy", "deplox", "déplöy", "yolped"] {
            for other in ["deploy", "deppoy", "ddeploy", "deploy_", "deplo1", "déploy", "delpoy"] {
                let near = strsim::damerau_levenshtein(name, other) == 1;
                assert_eq!(differs_in_one(name, other), near, "{name} {other}");
            }
        }
    }

    #[test]
    fn the_names_of_many_others_are_few_findings_that_can_be_printed() {
        let many: Vec<String> = (1..100).map(|number| format!("look_at_000{}", "\u{202e}".repeat(number))).collect();
        let others: Vec<(&str, &str)> = many.iter().map(|name| ("upstream a", name.as_str())).collect();
        let found = found_in("look_at_000", &neighbours(&others, &[]));
        assert!(!found.is_empty() && found.len() <= MOST_AMONG, "{found:?}");
        assert!(found.iter().all(|text| !text.chars().any(|c| is_hidden(c) || c.is_control())), "{found:?}");
    }
}

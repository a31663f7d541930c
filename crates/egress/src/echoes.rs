//! What was presented to a server must not come back from it. Guards that a credential in an answer, an error or a
//! message is taken out, also in base64, percent-encoding, hexadecimal digits and entities, in lines or with something in
//! between, and split between the texts of a list; and that nobody takes the words of a protocol, or ordinary words, out of
//! what others get. Must not look for anything it was not given.

mod altered;
mod pieces;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portcullis_model::Secret;
use serde_json::Value;

use self::altered::Signs;

/// What stands where a credential was.
const INSTEAD: &str = "[redacted:credential]";
/// Shorter secrets are left alone: they would hit ordinary words.
const SHORTEST: usize = 6;

/// A line of a secret of several lines is looked for by itself from this length on.
const SHORTEST_LINE: usize = 20;

/// Shorter secrets are not looked for in the other case: they would hit ordinary words.
const SHORTEST_CASED: usize = 12;

/// Longer secrets are files, which nobody writes as entities.
const LONGEST_ENTITIES: usize = 512;

/// What stands in a list of numbers in the place of each byte of a credential.
const NUMBER_INSTEAD: u8 = b'*';

/// Bytes of forms from which on the table that finds them fastest would take megabytes.
const LARGE: usize = 16 << 10;

/// So many characters of what others presented must look random.
const RANDOM: usize = 20;
/// Least different characters among them.
const RANDOM_DISTINCT: u32 = 9;
/// Least changes between letters and digits, and from lower to upper case, among them. Words have fewer.
const RANDOM_CHANGES: usize = 5;

/// Credentials that were presented, in every form they may come back in. Cheap to clone.
#[derive(Clone, Default)]
pub struct Echoes {
    layers: Vec<Layer>,
}

/// What a protocol fixes, which is never taken for an echo.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fixed {
    /// Names of members.
    pub names: &'static [&'static str],
    /// Values of a member, by its name.
    pub values: &'static [(&'static str, &'static [&'static str])],
}

impl Fixed {
    fn has(&self, name: &str, value: &Value) -> bool {
        let Value::String(text) = value else { return false };
        self.values.iter().any(|(member, values)| *member == name && values.contains(&text.as_str()))
    }
}

/// What came back in a value, and was taken out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CameBack {
    /// Something that is looked for whatever it looks like.
    pub own: bool,
    /// Something others presented.
    pub others: bool,
}

impl CameBack {
    /// Whether anything came back.
    pub fn any(self) -> bool {
        self.own || self.others
    }

    /// This came back too.
    fn note(&mut self, other: Self) {
        (self.own, self.others) = (self.own || other.own, self.others || other.others);
    }
}

/// Credentials that are looked for in one manner.
#[derive(Clone)]
struct Layer {
    finder: Finder,
    /// Of others: only in values, not in names of members.
    others: bool,
}

#[derive(Clone)]
enum Finder {
    Forms(Arc<AhoCorasick>),
    /// There are more than can be looked for: then everything counts as one of them.
    Everything,
}

impl std::fmt::Debug for Echoes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let forms = self.layers.iter().map(|layer| match &layer.finder {
            Finder::Forms(forms) => forms.patterns_len(),
            Finder::Everything => usize::MAX,
        });
        write!(f, "Echoes({})", forms.fold(0, usize::saturating_add))
    }
}

/// Every byte of a text, written in another way.
fn each(plain: &str, write: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    let mut written = String::new();
    for byte in plain.bytes() {
        // Writing to a text does not fail.
        let _ = write(&mut written, byte);
    }
    written
}

/// The forms one secret may come back in.
fn forms_of(plain: &str, forms: &mut BTreeSet<String>) {
    let plainly = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    // Of base64, what does not depend on the bytes around it: for each of the three places it can begin at.
    for skipped in 0..3_usize {
        let padded = [&vec![b' '; skipped][..], plain.as_bytes()].concat();
        let whole = padded.len() / 3 * 3;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded[..whole]);
            let from = if skipped == 0 { 0 } else { 4 };
            if let Some(core) = text.get(from..).filter(|core| core.len() >= 8) {
                forms.insert(core.to_owned());
            }
        }
    }
    forms.insert(each(plain, |out, b| if plainly(b) { write!(out, "{}", char::from(b)) } else { write!(out, "%{b:02X}") }));
    forms.insert(each(plain, |out, b| if plainly(b) { write!(out, "{}", char::from(b)) } else { write!(out, "%{b:02x}") }));
    forms.insert(each(plain, |out, b| write!(out, "{b:02x}")));
    forms.insert(each(plain, |out, b| write!(out, "{b:02X}")));
    // Inside of JSON or of a page that is itself a text.
    let quoted = Value::from(plain).to_string();
    if let Some(inside) = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        forms.insert(inside.to_owned());
    }
    forms.insert(plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"));
    if plain.is_ascii() && plain.len() <= LONGEST_ENTITIES {
        forms.insert(each(plain, |out, b| write!(out, "&#{b};")));
        forms.insert(each(plain, |out, b| write!(out, "&#x{b:x};")));
        forms.insert(each(plain, |out, b| write!(out, "&#x{b:X};")));
    }
    if plain.len() >= SHORTEST_CASED {
        forms.insert(plain.to_ascii_uppercase());
        forms.insert(plain.to_ascii_lowercase());
    }
    forms.insert(plain.to_owned());
}

/// The parts of what somebody presented that are long and look random: nobody finds such a part in the answers of others
/// who did not put it there. Words, names, times and numbers do not, and neither do trace ids, digests and UUIDs, which are
/// written in the digits of one case.
fn random_parts(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| c.is_whitespace() || ";,\"'".contains(c));
    // A cookie has a name before its value.
    let parts = parts.flat_map(|part| [Some(part), part.split_once('=').map(|(_, value)| value)].into_iter().flatten());
    parts.filter(|part| looks_random(part))
}

fn looks_random(part: &str) -> bool {
    let plainly = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+/=:".contains(&b);
    part.bytes().all(plainly) && part.as_bytes().windows(RANDOM).any(is_random)
}

fn is_random(window: &[u8]) -> bool {
    let changes = |pair: &&[u8]| {
        let (one, next) = (pair[0], pair[1]);
        (one.is_ascii_alphabetic() && next.is_ascii_digit())
            || (one.is_ascii_digit() && next.is_ascii_alphabetic())
            || (one.is_ascii_lowercase() && next.is_ascii_uppercase())
    };
    let distinct = window.iter().fold(0_u128, |seen, byte| seen | (1_u128 << (byte & 127))).count_ones();
    let kinds: [fn(&u8) -> bool; 3] = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    distinct >= RANDOM_DISTINCT
        && kinds.iter().all(|kind| window.iter().any(kind))
        && window.windows(2).filter(changes).count() >= RANDOM_CHANGES
}

/// Places in order, those that overlap as one: what is taken out of one must leave nothing of another standing.
fn merged(mut all: Vec<Range<usize>>) -> Vec<Range<usize>> {
    all.sort_unstable_by_key(|place| (place.start, place.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(all.len());
    for place in all {
        match merged.last_mut() {
            Some(last) if place.start < last.end => last.end = last.end.max(place.end),
            _ => merged.push(place),
        }
    }
    merged
}

/// The bytes without what is at these places.
fn without(bytes: &[u8], places: &[Range<usize>]) -> Vec<u8> {
    let (mut clean, mut from) = (Vec::with_capacity(bytes.len()), 0);
    for place in places {
        clean.extend_from_slice(bytes.get(from..place.start).unwrap_or_default());
        clean.extend_from_slice(INSTEAD.as_bytes());
        from = place.end;
    }
    clean.extend_from_slice(bytes.get(from..).unwrap_or_default());
    clean
}

/// The text without what is at these places. All that is looked for is text, so no character is cut.
fn text_without(text: &str, places: &[Range<usize>]) -> String {
    String::from_utf8_lossy(&without(text.as_bytes(), places)).into_owned()
}

impl Finder {
    fn of(forms: &BTreeSet<String>) -> Self {
        let bytes: usize = forms.iter().map(String::len).sum();
        let kind = (bytes > LARGE).then_some(AhoCorasickKind::ContiguousNFA);
        let built = AhoCorasick::builder().kind(kind).build(forms);
        built.map_or(Self::Everything, |built| Self::Forms(Arc::new(built)))
    }

    /// Where they are in bytes with these signs, also within and across each other, and in another writing.
    fn places(&self, bytes: &[u8], signs: Signs) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        match self {
            Self::Forms(forms) => {
                if forms.is_match(bytes) {
                    for found in forms.find_overlapping_iter(bytes) {
                        altered::note(&mut places, (found.start(), found.end()));
                    }
                }
                altered::places(bytes, signs, forms, &mut places);
            }
            Self::Everything => places.push(0..bytes.len()),
        }
        places
    }

    /// Bytes of the longest form.
    fn longest(&self) -> usize {
        match self {
            Self::Forms(forms) => forms.max_pattern_len(),
            // Every text goes whole.
            Self::Everything => 0,
        }
    }
}

impl Echoes {
    /// Looks for these, whatever they look like.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            let plain = secret.expose().trim_end_matches(['\r', '\n']);
            if plain.len() < SHORTEST {
                continue;
            }
            forms_of(plain, &mut forms);
            // Keys in PEM come back line by line. Lines of other documents hold words that are no secrets.
            let dense = |line: &&str| {
                line.len() >= SHORTEST_LINE && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-.".contains(&b))
            };
            if plain.contains('\n') {
                plain.lines().map(str::trim).filter(dense).for_each(|line| forms_of(line, &mut forms));
            }
        }
        Self::layer(&forms, false)
    }

    /// Looks for what others presented, who are not trusted to choose what is taken out of an answer that is not theirs: only
    /// what is long and looks random, and only in values.
    pub fn of_others<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            random_parts(secret.expose()).for_each(|part| forms_of(part, &mut forms));
        }
        Self::layer(&forms, true)
    }

    /// Whether something of this is looked for in answers to others than whoever presented it.
    pub fn is_told_from_words(secret: &Secret) -> bool {
        random_parts(secret.expose()).next().is_some()
    }

    fn layer(forms: &BTreeSet<String>, others: bool) -> Self {
        let layer = (!forms.is_empty()).then(|| Layer { finder: Finder::of(forms), others });
        Self { layers: layer.into_iter().collect() }
    }

    /// Looks for the others too. What one of them holds of another leaves nothing of that one standing.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.layers.extend(others.layers.iter().cloned());
        self
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Where they are, in order, and whose they are.
    fn places(&self, bytes: &[u8]) -> (Vec<Range<usize>>, CameBack) {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        if self.is_empty() {
            return (own, CameBack::default());
        }
        let signs = Signs::of(bytes);
        for layer in &self.layers {
            let places = if layer.others { &mut others } else { &mut own };
            places.extend(layer.finder.places(bytes, signs));
        }
        let own = merged(own);
        // What is looked for anyway says nothing about others.
        others.retain(|place| {
            let at = own.partition_point(|known| known.end < place.end);
            own.get(at).is_none_or(|known| place.start < known.start)
        });
        let back = CameBack { own: !own.is_empty(), others: !others.is_empty() };
        (merged([own, others].concat()), back)
    }

    /// Takes them out of a text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let (places, _) = self.places(text.as_bytes());
        if places.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(text_without(text, &places)) }
    }

    /// Takes them out of the bytes of a body, whatever it is.
    pub fn bytes(&self, body: Vec<u8>) -> Vec<u8> {
        let (places, _) = self.places(&body);
        if places.is_empty() { body } else { without(&body, &places) }
    }

    /// Takes them out of a value, names of members included. What the protocol fixes stays. Says whether there were any.
    pub fn value(&self, value: &mut Value, fixed: &Fixed) -> CameBack {
        let mut back = CameBack::default();
        if !self.is_empty() {
            self.clean(value, fixed, &mut back);
        }
        back
    }

    fn clean(&self, value: &mut Value, fixed: &Fixed, back: &mut CameBack) {
        match value {
            Value::String(text) => {
                if let Some(clean) = self.cleaned(text, back) {
                    *text = clean;
                }
            }
            Value::Array(items) => {
                for item in items.iter_mut() {
                    self.clean(item, fixed, back);
                }
                self.clean_numbers(items, back);
                self.clean_across(items, back);
            }
            Value::Object(members) => {
                if members.keys().any(|name| !self.places_in_name(name, fixed).is_empty()) {
                    let renamed = |name: String| {
                        let places = self.places_in_name(&name, fixed);
                        if places.is_empty() { name } else { text_without(&name, &places) }
                    };
                    let all = std::mem::take(members);
                    members.extend(all.into_iter().map(|(name, member)| (renamed(name), member)));
                    back.own = true;
                }
                for (name, member) in members {
                    if !fixed.has(name, member) {
                        self.clean(member, fixed, back);
                    }
                }
            }
            _ => {}
        }
    }

    /// Where in the name of a member something is that is looked for whatever it looks like.
    fn places_in_name(&self, name: &str, fixed: &Fixed) -> Vec<Range<usize>> {
        let signs = Signs::of(name.as_bytes());
        let own = self.layers.iter().filter(|layer| !layer.others);
        let places: Vec<Range<usize>> = own.flat_map(|layer| layer.finder.places(name.as_bytes(), signs)).collect();
        if places.is_empty() || fixed.names.contains(&name) { Vec::new() } else { merged(places) }
    }

    /// Takes them out of a list of numbers that are the bytes of a text.
    fn clean_numbers(&self, items: &mut [Value], back: &mut CameBack) {
        let byte = |item: &Value| item.as_u64().and_then(|number| u8::try_from(number).ok());
        let bytes: Option<Vec<u8>> = items.iter().map(byte).collect();
        let Some(bytes) = bytes.filter(|bytes| bytes.len() >= SHORTEST) else { return };
        let (places, came) = self.places(&bytes);
        back.note(came);
        for place in places {
            if let Some(numbers) = items.get_mut(place) {
                numbers.fill(Value::from(NUMBER_INSTEAD));
            }
        }
    }

    /// Takes out what is split between the texts of a list.
    fn clean_across(&self, items: &mut [Value], back: &mut CameBack) {
        if items.len() < 2 {
            return;
        }
        let mut texts = pieces::texts(items);
        let longest = self.layers.iter().map(|layer| layer.finder.longest()).max().unwrap_or_default();
        let mut all: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
        for stretch in pieces::stretches(&texts, longest) {
            let (places, came) = self.places(&stretch.bytes);
            back.note(came);
            for (text, place) in places.iter().flat_map(|place| stretch.within(place)) {
                all.entry(text).or_default().push(place);
            }
        }
        for (text, places) in all {
            if let Some(text) = texts.get_mut(text) {
                **text = text_without(text.as_str(), &merged(places));
            }
        }
    }

    /// A text without them, also where it is base64 of bytes which hold one. `None` when there are none in it.
    fn cleaned(&self, text: &str, back: &mut CameBack) -> Option<String> {
        let mut places_in = |bytes: &[u8]| {
            let (places, came) = self.places(bytes);
            back.note(came);
            Some(places).filter(|places| !places.is_empty())
        };
        if let Some(places) = places_in(text.as_bytes()) {
            return Some(text_without(text, &places));
        }
        let plausible = text.len() >= 16
            && text.len().is_multiple_of(4)
            && text.bytes().take(64).all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        if !plausible {
            return None;
        }
        let bytes = STANDARD.decode(text).ok()?;
        let places = places_in(&bytes)?;
        Some(STANDARD.encode(without(&bytes, &places)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RANDOM_TOKEN: &str = "glsa_Zq8Xk2Tn5Rw1Lb7Yd4Vc9Hm3";

    #[test]
    fn of_others_only_what_looks_random_is_looked_for_and_never_in_names() {
        for random in [
            RANDOM_TOKEN,
            "xoxb-263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ] {
            let echoes = Echoes::of_others([&Secret::new(format!("Bearer {random}"))]);
            let mut answer = json!({"content": [{"type": "text", "text": format!("it is {random}.")}], random: 1});
            let back = echoes.value(&mut answer, &Fixed::default());
            assert_eq!(back, CameBack { own: false, others: true }, "{random}");
            assert_eq!(answer["content"][0]["text"], "it is [redacted:credential].");
            assert_eq!(answer[random], 1, "a name stays");
        }
        for word in [
            "content",
            "structuredContent",
            "UNHEALTHY",
            "inputSchema",
            "the disk of node-7 is full, says the operator",
            "a-rather-long-name-of-a-deployment",
            "SomeVeryLongClassNameOfAService2",
            "2026-11-30T02:08:49.123456Z",
            "https://grafana.example/d/abc123/overview",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "550e8400-e29b-41d4-a716-446655440000",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "checkout-7f9c6d5b4-x2x9z-7f9c6d5b4",
            "12345678901234567890123",
        ] {
            assert!(Echoes::of_others([&Secret::new(word)]).is_empty(), "{word}");
        }
        let cookie = Echoes::of_others([&Secret::new(format!("theme=dark; session={RANDOM_TOKEN}"))]);
        assert_eq!(cookie.text(&format!("<{RANDOM_TOKEN}>")), "<[redacted:credential]>");
    }

    #[test]
    fn words_of_the_protocol_stay_and_everything_is_looked_for_in_one_go() {
        let fixed = Fixed { names: &["content", "isError"], values: &[("type", &["resource"])] };
        let echoes = Echoes::of([&Secret::new("content"), &Secret::new("isError"), &Secret::new("resource")]);
        let mut answer = json!({"content": [{"type": "resource", "x": "a resource"}], "isError": true, "my_content": 1});
        assert!(echoes.value(&mut answer, &fixed).own);
        let clean = json!({"content": [{"type": "resource", "x": "a [redacted:credential]"}], "isError": true,
            "my_[redacted:credential]": 1});
        assert_eq!(answer, clean);
        let all = echoes.and(&Echoes::of_others([&Secret::new(RANDOM_TOKEN)]));
        assert_eq!(all.text(&format!("isError {RANDOM_TOKEN}")), "[redacted:credential] [redacted:credential]");
        assert_eq!(all.bytes(RANDOM_TOKEN.into()), b"[redacted:credential]");
        let mut hidden = json!(STANDARD.encode(format!("-----{RANDOM_TOKEN}-----")));
        assert!(all.value(&mut hidden, &fixed).others && !all.value(&mut hidden, &fixed).any(), "{hidden}");
    }

    #[test]
    fn what_one_holds_of_another_leaves_nothing_of_that_one_standing() {
        let (token, part) = (Secret::new(RANDOM_TOKEN), Secret::new(&RANDOM_TOKEN[..10]));
        for known in [Echoes::of([&token]), Echoes::of_others([&token])] {
            let all = Echoes::of([&part]).and(&known);
            assert_eq!(all.text(&format!("x {RANDOM_TOKEN} y")), "x [redacted:credential] y");
            let mut value = json!([RANDOM_TOKEN]);
            assert!(all.value(&mut value, &Fixed::default()).own);
            assert_eq!(value, json!(["[redacted:credential]"]));
        }
        let across = Echoes::of([&Secret::new("one-two-three"), &Secret::new("three-four-five")]);
        assert_eq!(across.text("<one-two-three-four-five>"), "<[redacted:credential]>");
        assert_eq!(across.bytes(b"one-two-three-four-five\xff".to_vec()), b"[redacted:credential]\xff");
        let back = Echoes::of([&token]).and(&Echoes::of_others([&token])).value(&mut json!(RANDOM_TOKEN), &Fixed::default());
        assert_eq!(back, CameBack { own: true, others: false }, "what the caller sent itself");
    }

    #[test]
    fn a_credential_comes_out_of_digits_entities_and_the_other_case() {
        let secret = "s3cr3t<\"Token\">&1";
        let echoes = Echoes::of([&Secret::new(secret)]);
        for form in [
            each(secret, |out, b| write!(out, "{b:02x}")),
            each(secret, |out, b| write!(out, "{b:02X}")),
            each(secret, |out, b| write!(out, "&#{b};")),
            each(secret, |out, b| write!(out, "&#x{b:x};")),
            secret.to_uppercase(),
            secret.to_lowercase(),
            r#"s3cr3t<\"Token\">&1"#.to_owned(),
            "s3cr3t&lt;&quot;Token&quot;&gt;&amp;1".to_owned(),
        ] {
            assert_eq!(echoes.text(&format!("x {form} y")), "x [redacted:credential] y", "{form}");
        }
    }

    #[test]
    fn a_credential_comes_out_of_what_is_written_apart_in_lines_or_with_needless_escapes() {
        let secret = "s3cr3t-Token/of+the_house.7";
        let echoes = Echoes::of([&Secret::new(secret)]);
        let hex = each(secret, |out, b| write!(out, "{b:02x}"));
        let pairs: Vec<&str> = (0..secret.len()).map(|at| &hex[2 * at..2 * at + 2]).collect();
        let mut forms = vec![
            pairs.join(":"),
            pairs.join(" ").to_uppercase(),
            pairs.join(", 0x"),
            format!("{}\n{}", &hex[..21], &hex[21..]),
            hex.chars().enumerate().map(|(at, c)| if at % 3 == 0 { c.to_ascii_uppercase() } else { c }).collect(),
            each(secret, |out, b| write!(out, "%{b:02X}")),
            each(secret, |out, b| write!(out, "\\u{b:04x}")),
            secret.replace('/', "\\/"),
            secret.replace('T', "\u{200b}T"),
            secret.replace('T', "\u{1b}[1mT"),
        ];
        for columns in [64, 76] {
            for before in 150..153 {
                let whole = format!("{}{secret} and more of it, as much as it takes", &"Aa1".repeat(60)[..before]);
                for text in [STANDARD.encode(&whole), STANDARD_NO_PAD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                    let line = |at: usize| &text[at..text.len().min(at + columns)];
                    let lines: Vec<&str> = (0..text.len()).step_by(columns).map(line).collect();
                    forms.extend([lines.join("\n"), lines.join("\r\n"), lines.join("\\n")]);
                }
            }
        }
        for form in forms {
            let mut value = json!({"a": format!("x {form} y")});
            assert!(echoes.value(&mut value, &Fixed::default()).own, "{form}");
            let left = value["a"].as_str().unwrap();
            assert!(left.contains(INSTEAD) && left.starts_with("x ") && left.ends_with(" y"), "{form}: {left}");
            let dense: String = left.chars().filter(char::is_ascii_alphanumeric).collect();
            let of_base64 = dense.contains(&URL_SAFE_NO_PAD.encode(&secret[..24])[4..12]);
            assert!(!left.contains("Token") && !dense.to_lowercase().contains(&hex[..16]) && !of_base64, "{form}: {left}");
            assert_eq!(echoes.value(&mut value, &Fixed::default()), CameBack::default(), "{value}");
        }
    }

    #[test]
    fn a_credential_comes_out_of_the_texts_it_is_split_between() {
        let echoes = Echoes::of([&Secret::new(RANDOM_TOKEN)]);
        let (one, two, three) = (&RANDOM_TOKEN[..7], &RANDOM_TOKEN[7..8], &RANDOM_TOKEN[8..]);
        let (long, rest) = ("-".repeat(5_000), format!("{two}{three}"));
        let block = |text: &str| json!({"type": "text", "text": text, "annotations": {"priority": 1}});
        for mut answer in [
            json!({"content": [block(&format!("{long}{one}")), block(two), block(&format!("{three}{long}"))]}),
            json!({"contents": [{"uri": "a://b", "text": one}, {"uri": "a://c", "text": two}, {"uri": "a://d", "text": three}]}),
            json!({"messages": [{"role": "user", "content": block(one)}, {"role": "user", "content": block(&rest)}]}),
            json!({"structuredContent": {"lines": [one, two, three]}}),
            json!({"content": [block(one), {"type": "resource", "resource": {"uri": "a://b", "text": rest}}]}),
        ] {
            assert_eq!(echoes.value(&mut answer, &Fixed::default()), CameBack { own: true, others: false });
            let left = answer.to_string();
            assert!(!left.contains(one) && !left.contains(three) && left.contains(INSTEAD), "{left}");
            assert!(!left.contains("--") || left.matches('-').count() >= 10_000, "the rest stays: {left}");
        }
        let mut apart = json!({"content": [block(one), block("; then: "), block(&rest)]});
        assert!(!echoes.value(&mut apart, &Fixed::default()).any(), "what is between them is read too");
        let mut bytes = json!({"type": "Buffer", "data": format!("<{RANDOM_TOKEN}>").into_bytes()});
        assert!(echoes.value(&mut bytes, &Fixed::default()).own);
        assert_eq!(bytes["data"], json!(format!("<{}>", "*".repeat(RANDOM_TOKEN.len())).into_bytes()));
        let mut numbers = json!([[1, 2, 3, 4, 5, 6, 7, 300], [0, 0, 0, 0, 0, 0, 0, 0]]);
        assert!(!echoes.value(&mut numbers, &Fixed::default()).any());
    }

    #[test]
    fn a_credential_comes_out_of_bytes_that_are_no_text() {
        let echoes = Echoes::of([&Secret::new("hunter22")]);
        let basic = STANDARD.encode("somebody:hunter22");
        let clean = echoes.bytes([b"\xff hunter22, hunter22 ", basic.as_bytes(), b" \xfe"].concat());
        assert!(clean.starts_with(b"\xff [redacted:credential], [redacted:credential] ") && clean.ends_with(b" \xfe"));
        let text = String::from_utf8_lossy(&clean).into_owned();
        assert!(!text.contains(&basic[12..]), "{text}");
        assert_eq!(echoes.bytes(b"nothing".to_vec()), b"nothing");
    }

    #[test]
    fn a_key_of_many_lines_comes_out_line_by_line_and_many_secrets_at_once() {
        let key = Secret::new("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7\n-----END KEY-----\n");
        let document = Secret::new("{\n  \"kind\": \"service_account_of_somebody\",\n  \"key\": \"x\"\n}");
        let others: Vec<Secret> = (0..500).map(|n| Secret::new(format!("secret-number-{n}-of-many"))).collect();
        let echoes = Echoes::of(others.iter().chain([&key, &document]));
        assert_eq!(echoes.text("line: AASCBKcwggSjAgEAAoIBAQC7"), "line: [redacted:credential]");
        assert_eq!(echoes.text("x secret-number-499-of-many y"), "x [redacted:credential] y");
        assert_eq!(echoes.text("service_account_of_somebody"), "service_account_of_somebody");
    }

    #[test]
    fn a_credential_comes_out_of_every_form() {
        let secret = Secret::new("s3cr3t/token+value=1\n");
        let echoes = Echoes::of([&secret, &Secret::new("no")]);
        let plain = "s3cr3t/token+value=1";
        let mut forms = vec![plain.to_owned(), "s3cr3t%2Ftoken%2Bvalue%3D1".to_owned(), "s3cr3t%2ftoken%2bvalue%3d1".to_owned()];
        for before in ["", "a", "ab", "user:"] {
            forms.push(STANDARD.encode(format!("{before}{plain} and more text")));
            forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{plain}")));
        }
        for form in forms {
            let mut value = json!({"a": [format!("x {form} y")], form.clone(): 1});
            let fixed = Fixed::default();
            assert!(echoes.value(&mut value, &fixed).own && !echoes.value(&mut value, &fixed).any(), "{form}: {value}");
            let text = value.to_string();
            assert!(!text.contains(&form[4..form.len() - 4]), "{form}: {text}");
            assert!(text.contains("redacted:credential"), "{form}: {text}");
        }
        let mut whole = json!([{"b": STANDARD.encode(format!("ab{plain}"))}, 1]);
        let fixed = Fixed::default();
        assert!(echoes.value(&mut whole, &fixed).own, "{whole}");
        assert!(!echoes.value(&mut json!([{"b": "no change"}, null, 1]), &fixed).any());
        assert_eq!(echoes.text("no change"), "no change");
        assert!(!format!("{echoes:?}").contains("s3cr3t"));
    }
}

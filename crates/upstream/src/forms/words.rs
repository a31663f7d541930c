//! What the words of a form may say. Guards that none is taken for the gate's question about an approval, and that none asks
//! for a secret: those belong on a page (MCP 2025-11-25, elicitation). Reads every text of a schema, also those that are not
//! passed on. Must not change any.

use std::ops::Range;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::LINE_ENDS;
use crate::questions::{Refused, UNFIT};
use crate::scanner::plain_words;

/// Refusal of a question that could be taken for the gate's own.
pub(crate) const IMITATION: Refused =
    (UNFIT, "not passed on: the form or page looks like this gate's own question about an approval");
/// Refusal of a form that asks for a secret.
pub(super) const SECRET: Refused =
    (UNFIT, "not passed on: a form must not ask for passwords, keys, tokens or cards; ask with a page (mode 'url')");

/// Words of a title that is a name and no sentence.
const SHORT: usize = 5;
/// Words around one that say what it is.
const NEAR: usize = 2;
/// Words that one secret may be written in.
const APART: usize = 3;

/// Names of the field the gate asks for a yes with, and their like, without spaces.
const YES: [&str; 4] = ["approve", "approvecall", "approvethecall", "approvethiscall"];
/// Words of the gate's own question.
const OURS: [&str; 3] = [" needs your approval ", " good for this call ", " portcullis"];
/// Words that may stand between an approval and the call it is for.
const BETWEEN: [&str; 14] =
    ["this", "the", "that", "a", "one", "my", "your", "tool", "for", "of", "to", "only", "pending", "following"];

/// What is a secret whatever stands around it, without spaces.
const SECRETS: [&str; 42] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwort",
    "passord",
    "kennwort",
    "wachtwoord",
    "contrasena",
    "motdepasse",
    "salasana",
    "losenord",
    "adgangskode",
    "пароль",
    "密码",
    "密碼",
    "secret",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "sshkey",
    "accesstoken",
    "apitoken",
    "authtoken",
    "bearertoken",
    "refreshtoken",
    "sessioncookie",
    "creditcard",
    "debitcard",
    "cardnumber",
    "securitycode",
    "onetimecode",
    "recoverycode",
    "verificationcode",
    "seedphrase",
    "socialsecurity",
    "kubeconfig",
    "connectionstring",
    "connstring",
];

/// The same in scripts whose letters are taken apart when they are read.
static ELSEWHERE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let all = ["パスワード", "暗証番号", "비밀번호", "كلمة المرور", "סיסמה"];
    all.iter().map(|word| plain_words(word).replace(' ', "")).collect()
});

/// What is a secret as the name of a field, and no more than a subject in a sentence.
const NAMED: [&str; 4] = ["twofactor", "twostep", "multifactor", "authenticatorcode"];

/// Words that are a secret as the name of a field, or where somebody is told to give them, and what next to them says that
/// they are not.
const NAMES: [(&str, &[&str]); 18] = [
    (
        "key",
        &["issue", "sort", "primary", "partition", "foreign", "public", "object", "project", "label", "row", "cache", "index"],
    ),
    ("token", &["page", "next", "cursor", "count", "limit", "max", "min", "continue", "sort"]),
    ("pin", &["message", "post", "comment", "board", "map", "version"]),
    ("pass", &["rate", "fail", "count", "threshold"]),
    ("cookie", &["consent", "banner", "preferences"]),
    ("cookies", &["consent", "banner", "preferences"]),
    ("pwd", &[]),
    ("cvv", &[]),
    ("cvc", &[]),
    ("otp", &[]),
    ("totp", &[]),
    ("mfa", &[]),
    ("2fa", &[]),
    ("jwt", &[]),
    ("iban", &[]),
    ("ssn", &[]),
    ("senha", &[]),
    ("heslo", &[]),
];

/// What a secret has that is none itself: "secret name", "path of the private key".
const HEADS: [&str; 34] = [
    "name",
    "names",
    "id",
    "ids",
    "identifier",
    "path",
    "paths",
    "count",
    "policy",
    "policies",
    "kind",
    "length",
    "age",
    "expiry",
    "expiration",
    "ref",
    "reference",
    "arn",
    "ttl",
    "store",
    "manager",
    "provider",
    "vault",
    "label",
    "title",
    "status",
    "version",
    "namespace",
    "fingerprint",
    "scope",
    "context",
    "rotation",
    "reset",
    "engine",
];

/// Words by which a person is told to give something.
const GIVE: [&str; 10] = ["your", "enter", "paste", "provide", "supply", "insert", "give", "type", "tell", "share"];

/// What ends a part of a sentence, so that the words behind it say nothing about those in front.
const CLAUSE_ENDS: [char; 11] = ['.', ',', ';', ':', '!', '?', '(', ')', '/', '|', '"'];

/// What is said in a form.
#[derive(Default)]
pub(super) struct Said<'f> {
    /// Names and titles.
    names: Vec<&'f str>,
    /// Those of fields that something can be written into.
    open_names: Vec<&'f str>,
    /// The message, and what is said about fields.
    told: Vec<&'f str>,
    /// What can be chosen.
    choices: Vec<&'f str>,
    /// Whether something can be written into a field.
    open: bool,
    /// Whether a field hides what is written into it.
    hides: bool,
}

impl<'f> Said<'f> {
    /// Everything that is said in a form.
    pub(super) fn by(message: &'f str, schema: &'f Map<String, Value>) -> Self {
        let mut said = Self { told: vec![message], ..Self::default() };
        said.gather(schema, false);
        said
    }

    /// Takes in a schema, wherever in it something is said.
    fn gather(&mut self, members: &'f Map<String, Value>, chosen: bool) {
        let is_choice = members.contains_key("const") && !members.contains_key("type");
        for (keyword, value) in members {
            match (keyword.as_str(), value) {
                ("properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions", Value::Object(fields)) => {
                    for (name, field) in fields {
                        let chosen = is_chosen(field);
                        self.named(name, chosen);
                        self.open |= !chosen;
                        self.anything(field, chosen);
                    }
                }
                ("required", Value::Array(names)) => {
                    let described = members.get("properties");
                    for name in names.iter().filter_map(Value::as_str) {
                        if described.and_then(|fields| fields.get(name)).is_none() {
                            self.named(name, false);
                        }
                    }
                }
                ("propertyNames", names) => {
                    let mut all = Vec::new();
                    texts_in(names, &mut all);
                    for name in all {
                        self.named(name, false);
                    }
                }
                ("enum" | "enumNames" | "const", choices) => texts_in(choices, &mut self.choices),
                ("default", default) if chosen => texts_in(default, &mut self.choices),
                ("title", Value::String(title)) if is_choice => self.choices.push(title),
                ("title", Value::String(title)) => {
                    self.named(title, chosen);
                    self.told.push(title);
                }
                ("writeOnly", Value::Bool(hidden)) => self.hides |= *hidden,
                ("format", Value::String(format)) if format == "password" => self.hides = true,
                (_, other) => self.anything(other, chosen),
            }
        }
    }

    fn anything(&mut self, value: &'f Value, chosen: bool) {
        match value {
            Value::String(text) => self.told.push(text),
            Value::Array(all) => all.iter().for_each(|one| self.anything(one, chosen)),
            Value::Object(members) => self.gather(members, chosen),
            _ => {}
        }
    }

    fn named(&mut self, name: &'f str, chosen: bool) {
        self.names.push(name);
        if !chosen {
            self.open_names.push(name);
        }
    }

    /// Whether it may be said to a person.
    ///
    /// # Errors
    /// [`IMITATION`], or [`SECRET`].
    pub(super) fn judged(&self) -> Result<(), Refused> {
        let all = || self.names.iter().chain(&self.told).chain(&self.choices).copied();
        let says = |part: &str| all().any(|text| padded(text).contains(part));
        let in_parts = || says(" wants to call ") && all().any(|text| padded(text).split_whitespace().any(approves));
        if self.names.iter().any(|name| is_yes(name)) || all().any(sounds_like_ours) || in_parts() {
            return Err(IMITATION);
        }
        let asks = |text: &&str| tells_of_a_secret(text);
        if self.hides || self.open_names.iter().any(|name| names_a_secret(name)) || (self.open && self.told.iter().any(asks)) {
            return Err(SECRET);
        }
        Ok(())
    }
}

fn texts_in<'f>(value: &'f Value, into: &mut Vec<&'f str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(all) => all.iter().for_each(|one| texts_in(one, into)),
        Value::Object(members) => members.values().for_each(|one| texts_in(one, into)),
        _ => {}
    }
}

/// Whether nothing can be written into a field: a yes or no, or some of what is listed.
fn is_chosen(field: &Value) -> bool {
    let listed = |name: &str| field.get(name).and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let titled = |name: &str| {
        let all = field.get(name).and_then(Value::as_array);
        all.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.get("const").is_some()))
    };
    let is = |kind: &str| field.get("type").is_some_and(|given| given == kind);
    is("boolean")
        || listed("enum")
        || titled("oneOf")
        || titled("anyOf")
        || (is("array") && field.get("items").is_some_and(is_chosen))
}

/// The words of a text, each between spaces.
fn padded(text: &str) -> String {
    plain_words(text) + " "
}

/// Whether a text could be the gate's own.
pub(super) fn sounds_like_ours(text: &str) -> bool {
    let words = padded(text);
    OURS.iter().any(|ours| words.contains(ours))
        || (words.contains(" of tenant ") && words.contains(" wants to call "))
        || approves_a_call(&words)
}

fn is_yes(name: &str) -> bool {
    let words = words_of_a_name(name) + " ";
    YES.contains(&words.replace(' ', "").as_str()) || approves_a_call(&words)
}

fn approves(word: &str) -> bool {
    word.starts_with("approv") && !word.starts_with("approver")
}

/// Whether words are about a yes to a call.
fn approves_a_call(padded: &str) -> bool {
    let words: Vec<&str> = padded.split_whitespace().collect();
    if !words.iter().any(|word| approves(word)) {
        return false;
    }
    let needed = || words.iter().any(|word| word.starts_with("need") || word.starts_with("requir"));
    let follows = |at: usize| words.iter().skip(at + 1).find(|next| !BETWEEN.contains(*next));
    padded.contains(" this call ")
        || padded.contains(" wants to call ")
        || (padded.contains(" your approval ") && needed())
        || words
            .iter()
            .enumerate()
            .any(|(at, word)| approves(word) && follows(at).is_some_and(|next| matches!(*next, "call" | "calls")))
}

/// Whether a name is that of a secret.
fn names_a_secret(name: &str) -> bool {
    [name.to_owned(), unmasked(name)].iter().any(|name| {
        let words = words_of_a_name(name);
        let words: Vec<&str> = words.split_whitespace().collect();
        let squeezed = words.concat();
        let glued = || secrets_in(&words).is_empty() && is_secret(&squeezed);
        let is_named = || NAMED.iter().any(|secret| squeezed.contains(secret)) && !words.last().is_some_and(|word| is_head(word));
        let is_short = || words.len() <= SHORT && (0..words.len()).any(|at| is_a_name(&words, at));
        has_a_secret(name) || glued() || is_named() || is_short()
    })
}

/// Whether a sentence is about a secret that somebody could write down.
fn tells_of_a_secret(text: &str) -> bool {
    [text.to_owned(), unmasked(text)].iter().any(|text| {
        let words = plain_words(text);
        let words: Vec<&str> = words.split_whitespace().collect();
        let given = |at: usize| words.get(at.saturating_sub(NEAR)..at).is_some_and(|near| near.iter().any(|word| is_order(word)));
        has_a_secret(text) || (0..words.len()).any(|at| given(at) && is_a_name(&words, at))
    })
}

/// Whether a secret stands in a text, and not only something harmless that a secret has.
fn has_a_secret(text: &str) -> bool {
    let (found, harmless) = counted(text, words_of_a_name);
    // A name that is written in one hides none, and letters of both sizes do.
    let (plain, plain_harmless) = if found == 0 { counted(text, plain_words) } else { (0, 0) };
    found > harmless || plain > plain_harmless
}

/// The secrets in a text, and those that are only what something harmless is of, or has as its name.
fn counted(text: &str, read: fn(&str) -> String) -> (usize, usize) {
    let whole = read(text);
    let found = secrets_in(&whole.split_whitespace().collect::<Vec<_>>()).len();
    if found == 0 {
        return (0, 0);
    }
    let ends = |character: char| CLAUSE_ENDS.contains(&character) || LINE_ENDS.contains(&character);
    let harmless = |clause: &str| {
        let clause = read(clause);
        let words: Vec<&str> = clause.split_whitespace().collect();
        secrets_in(&words).into_iter().filter(|secret| is_harmless(&words, secret)).count()
    };
    (found, text.split(ends).map(harmless).sum())
}

/// Where secrets stand among words.
fn secrets_in(words: &[&str]) -> Vec<Range<usize>> {
    let begins = |at: usize| {
        (1..=APART).find_map(|count| {
            let part = words.get(at..at + count)?;
            let squeezed = part.concat();
            // Of several words the first is the secret's: a compass is none, whatever word follows.
            let is = if count == 1 { is_secret(&squeezed) } else { SECRETS.iter().any(|secret| squeezed.starts_with(secret)) };
            is.then_some(at..at + count)
        })
    };
    (0..words.len()).filter_map(begins).collect()
}

fn is_harmless(words: &[&str], secret: &Range<usize>) -> bool {
    let before = words.get(..secret.start).unwrap_or_default();
    let of_a_head = match before {
        [.., head, "of" | "to" | "for"] | [.., head, "of" | "to" | "for", "the" | "a" | "an" | "this" | "that" | "your"] => {
            is_head(head)
        }
        _ => false,
    };
    of_a_head || words.get(secret.end).is_some_and(|word| is_head(word))
}

fn is_head(word: &str) -> bool {
    HEADS.contains(&word)
}

fn is_order(word: &str) -> bool {
    GIVE.contains(&word)
}

/// Whether the word at this place is the name of a secret, by what stands around it.
fn is_a_name(words: &[&str], at: usize) -> bool {
    let Some(word) = words.get(at) else { return false };
    let word = word.trim_end_matches(|character: char| character.is_ascii_digit());
    let near = words.get(at.saturating_sub(NEAR)..words.len().min(at + NEAR + 1)).unwrap_or_default();
    let told_apart = |beside: &[&str]| near.iter().any(|word| beside.contains(word));
    NAMES.iter().any(|&(secret, beside)| word == secret && !told_apart(beside))
        && !words.get(at + 1).is_some_and(|next| is_head(next))
}

fn is_secret(squeezed: &str) -> bool {
    let squeezed = squeezed.replace("secretar", "");
    SECRETS.iter().any(|secret| squeezed.contains(secret)) || ELSEWHERE.iter().any(|secret| squeezed.contains(secret.as_str()))
}

/// A text with letters where digits and signs stand for them: `passw0rd`.
fn unmasked(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '0' => 'o',
            '1' => 'i',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '7' => 't',
            other => other,
        })
        .collect()
}

/// The words of a name, which may be written in one: `apiKey`, `APIKey`, `api_key`.
fn words_of_a_name(name: &str) -> String {
    let mut apart = String::with_capacity(name.len() + 8);
    let mut before: Option<char> = None;
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let begins = character.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase() && characters.peek().is_some_and(|next| next.is_lowercase()))
            });
        if begins {
            apart.push(' ');
        }
        apart.push(character);
        before = Some(character);
    }
    plain_words(&apart)
}

//! Redaction of JSON as a structure: what only the shape tells. A field's name judges its value, a Kubernetes Secret its
//! data, a table's heading its column, and one member of a pair the other.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::fields::{self, Strength};
use super::rounds::Work;
use super::{Redactions, Switch, encoded, personal};

/// Members of an object under a secret's name that say where the secret is and not what it is.
const REFERENCES: &[&str] = &[
    "name",
    "secretname",
    "key",
    "namespace",
    "kind",
    "type",
    "optional",
    "path",
    "mode",
    "defaultmode",
    "ref",
    "id",
    "version",
];

/// Most arguments of one command that are looked at together.
const MOST_ARGUMENTS: usize = 1_000;

/// What the name of a member says.
#[derive(Debug, Clone, Copy, Default)]
struct Judgement {
    /// Whether the name has to be changed itself.
    is_secret: bool,
    strength: Option<Strength>,
    /// Whose shape an object with this member may have: bits of the three below.
    shape: u8,
    cursor: bool,
    id: bool,
    card: bool,
}

const KUBERNETES: u8 = 1;
const PAIR: u8 = 2;
const COLUMNS: u8 = 4;

/// Members of an object whose judgements are kept at hand.
const FIRST: usize = 16;

/// Longest name that is remembered, and how many are, a power of two.
const LONGEST_NAME: usize = 40;
const REMEMBERED: usize = 64;

/// What is known of names: the rows of an answer have the same ones again and again. Each is remembered in one place that its
/// bytes tell.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(String, Judgement)>);

impl Names {
    fn place(name: &str) -> usize {
        // A few bytes tell the names of a row apart.
        let bytes = name.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return 0 };
        let middle = bytes[bytes.len() / 2];
        let mixed = u32::from_le_bytes([*first, middle, *last, bytes.len() as u8]).wrapping_mul(0x9e37_79b1);
        (mixed >> 16) as usize % REMEMBERED
    }

    fn get(&self, name: &str) -> Option<Judgement> {
        self.0.get(Self::place(name)).filter(|(known, _)| known == name && !known.is_empty()).map(|(_, judgement)| *judgement)
    }

    fn put(&mut self, name: &str, judgement: Judgement) {
        if name.len() > LONGEST_NAME {
            return;
        }
        if self.0.is_empty() {
            self.0.resize_with(REMEMBERED, Default::default);
        }
        let (known, known_judgement) = &mut self.0[Self::place(name)];
        known.clear();
        known.push_str(name);
        *known_judgement = judgement;
    }
}

fn secrets_strength(name: &str) -> Option<Strength> {
    if name.len() > 256 { None } else { fields::strength(name.as_bytes()) }
}

fn marked(kind: &str) -> Value {
    Value::String(format!("[redacted:{kind}]"))
}

impl Work<'_> {
    pub(super) fn json(&mut self, value: &mut Value, found: &mut Redactions) {
        self.walk(value, true, found);
    }

    fn secrets(&self) -> bool {
        self.of.redactor.inner.settings.secrets_go()
    }

    fn walk(&mut self, value: &mut Value, random: bool, found: &mut Redactions) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.scrub(text, random, found) {
                    *text = clean;
                }
            }
            Value::Array(items) => {
                self.arguments(items, found);
                for item in items {
                    self.walk(item, random, found);
                }
            }
            Value::Object(members) => self.object(members, found),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// `["redis-cli", "-a", "hunter2"]`: what an argument is, the one in front of it tells.
    fn arguments(&mut self, items: &mut Vec<Value>, found: &mut Redactions) {
        let is_flag = |item: &Value| item.as_str().is_some_and(|text| text.starts_with('-') && text.len() >= 2);
        if items.len() < 2 || items.len() > MOST_ARGUMENTS || !items.iter().any(is_flag) || !items.iter().all(Value::is_string) {
            return;
        }
        let Ok(written) = serde_json::to_string(&*items) else { return };
        let mut inside = Redactions::default();
        let Cow::Owned(clean) = self.scrub(&written, false, &mut inside) else { return };
        // What was taken out stood inside the quotes of one argument; where it did not, each is judged alone.
        if let Ok(Value::Array(clean)) = serde_json::from_str(&clean)
            && clean.len() == items.len()
        {
            found.merge(&inside);
            *items = clean;
        }
    }

    fn object(&mut self, members: &mut Map<String, Value>, found: &mut Redactions) {
        let mut all = Judgement::default();
        let mut first = [Judgement::default(); FIRST];
        for (index, name) in members.keys().enumerate() {
            let judgement = self.judge(name);
            all.is_secret |= judgement.is_secret;
            all.shape |= judgement.shape;
            if let Some(place) = first.get_mut(index) {
                *place = judgement;
            }
        }
        if all.is_secret {
            self.keys(members, found);
        }
        if self.secrets() {
            if all.shape & KUBERNETES != 0 {
                Self::kubernetes(members, found);
            }
            if all.shape & PAIR != 0 {
                self.pair(members, found);
            }
            if all.shape & COLUMNS != 0 {
                self.columns(members, found);
            }
        }
        for (index, (name, member)) in members.iter_mut().enumerate() {
            let judgement = match first.get(index) {
                Some(judgement) if !all.is_secret => *judgement,
                _ => self.judge(name),
            };
            let strength = if self.secrets() { judgement.strength } else { None };
            let hidden = strength.is_some_and(|strength| self.field(member, strength, found));
            if hidden {
                continue;
            }
            if judgement.cursor && is_opaque(member) {
                self.cursor(member, found);
            } else if !(judgement.card && self.card_number(member, found)) {
                self.walk(member, !judgement.id, found);
            }
        }
    }

    /// What a name says of its member.
    fn judge(&mut self, name: &str) -> Judgement {
        if let Some(known) = self.names.get(name) {
            return known;
        }
        let judgement = Judgement {
            is_secret: matches!(self.scrub(name, true, &mut Redactions::default()), Cow::Owned(_)),
            strength: secrets_strength(name),
            shape: match name {
                "kind" | "type" | "stringData" => KUBERNETES,
                "name" | "key" | "Name" | "Key" => PAIR,
                "columns" => COLUMNS,
                _ => 0,
            },
            cursor: matches!(name, "next" | "cursor" | "next_cursor" | "nextCursor"),
            id: encoded::names_an_id(name.as_bytes()),
            card: names_a_card(name),
        };
        self.names.put(name, judgement);
        judgement
    }

    /// A key can be a secret itself. Its place among the others stays.
    fn keys(&mut self, members: &mut Map<String, Value>, found: &mut Redactions) {
        let old = std::mem::take(members);
        for (key, member) in old {
            let mut name = self.scrub(&key, true, found).into_owned();
            // Two secrets of one kind as keys: both entries stay.
            let mut copy = 2;
            while members.contains_key(&name) {
                name = format!(
                    "{} ({copy})",
                    name.trim_end_matches(|c: char| c == ')' || c == '(' || c == ' ' || c.is_ascii_digit())
                );
                copy += 1;
                if copy > 1_000 {
                    break;
                }
            }
            members.insert(name, member);
        }
    }

    /// The values of a Secret, of the entries of a list of them, and of a Secret that came without its kind.
    fn kubernetes(members: &mut Map<String, Value>, found: &mut Redactions) {
        let kind = members.get("kind").and_then(Value::as_str);
        let typed = members
            .get("type")
            .and_then(Value::as_str)
            .is_some_and(|t| t == "Opaque" || t.starts_with("kubernetes.io/") || t.starts_with("helm.sh/"));
        if kind == Some("SecretList") {
            if let Some(Value::Array(items)) = members.get_mut("items") {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    blank_data(item, found);
                }
            }
        } else if kind == Some("Secret") || (typed && kind.is_none()) || members.contains_key("stringData") {
            blank_data(members, found);
        }
    }

    /// `{"name": "DB_PASSWORD", "value": "x"}` (Kubernetes), `{"key": "password", "value": {"stringValue": "x"}}` (OTLP).
    fn pair(&mut self, members: &mut Map<String, Value>, found: &mut Redactions) {
        let name = ["name", "key", "Name", "Key"].iter().find_map(|k| members.get(*k).and_then(Value::as_str));
        let Some(strength) = name.and_then(secrets_strength) else { return };
        for key in ["value", "Value"] {
            match members.get_mut(key) {
                Some(Value::Object(typed)) => {
                    for member in typed.values_mut() {
                        self.field(member, strength, found);
                    }
                }
                Some(member) => {
                    self.field(member, strength, found);
                }
                None => {}
            }
        }
    }

    /// `{"columns": ["user", "password"], "rows": [["ana", "x"]]}`: headings as texts or as objects with a name.
    fn columns(&mut self, members: &mut Map<String, Value>, found: &mut Redactions) {
        let Some(Value::Array(headings)) = members.get("columns") else { return };
        let secret: Vec<(usize, Strength)> = headings
            .iter()
            .enumerate()
            .filter_map(|(index, heading)| {
                let name = heading.as_str().or_else(|| heading.get("name").and_then(Value::as_str))?;
                Some((index, secrets_strength(name)?))
            })
            .collect();
        if secret.is_empty() {
            return;
        }
        for key in ["rows", "values", "data"] {
            let Some(Value::Array(rows)) = members.get_mut(key) else { continue };
            for row in rows.iter_mut().filter_map(Value::as_array_mut) {
                for (index, strength) in &secret {
                    if let Some(cell) = row.get_mut(*index) {
                        self.field(cell, *strength, found);
                    }
                }
            }
        }
    }

    /// Takes out the value of a field whose name says it is a secret. False when there is nothing to take out.
    fn field(&mut self, member: &mut Value, strength: Strength, found: &mut Redactions) -> bool {
        match member {
            Value::String(text) => {
                let plain = fields::harmless(text.as_bytes()) || !fields::fits(strength, text.as_bytes());
                if plain {
                    return false;
                }
                found.add("secret-field");
                *member = marked("secret-field");
                true
            }
            // A number under `password` is one; under `token` it is a count.
            Value::Number(_) if strength == Strength::Password => {
                found.add("secret-field");
                *member = marked("secret-field");
                true
            }
            Value::Array(items) if strength != Strength::Weak => {
                for item in items.iter_mut() {
                    if !self.field(item, strength, found) {
                        self.walk(item, true, found);
                    }
                }
                true
            }
            Value::Object(inner) if fields::is_sure(strength) => {
                for (name, item) in inner.iter_mut() {
                    let reference = REFERENCES.iter().any(|r| name.eq_ignore_ascii_case(r));
                    let under = if strength == Strength::Password { Strength::Strong } else { strength };
                    if reference || !self.field(item, under, found) {
                        self.walk(item, true, found);
                    }
                }
                true
            }
            _ => false,
        }
    }

    /// A card number kept as a number under a name that says so.
    fn card_number(&mut self, member: &mut Value, found: &mut Redactions) -> bool {
        if self.of.redactor.inner.settings.pii.card == Switch::Off {
            return false;
        }
        let Value::Number(number) = &*member else { return false };
        let text = number.to_string();
        if !text.bytes().all(|b| b.is_ascii_digit()) || !personal::is_card(text.as_bytes()) {
            return false;
        }
        *member = Value::String(self.scrub(&text, false, found).into_owned());
        true
    }

    /// Our own positions in lists are opaque to everybody: only a credential of a known format goes.
    fn cursor(&mut self, member: &mut Value, found: &mut Redactions) {
        let Value::String(text) = member else { return };
        let mut inside = Redactions::default();
        let clean = self.scrub(text, false, &mut inside).into_owned();
        let known = inside
            .counts()
            .any(|(kind, _)| !kind.starts_with("encoded-") && !matches!(kind, "card" | "iban" | "phone" | "high-entropy"));
        if known {
            found.merge(&inside);
            *text = clean;
        }
    }
}

fn is_opaque(member: &Value) -> bool {
    let opaque = |text: &str| text.len() <= 4_096 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    member.as_str().is_some_and(opaque)
}

fn names_a_card(name: &str) -> bool {
    const ENDINGS: [&str; 7] = ["card", "pan", "cardnumber", "card_number", "ccnumber", "cc_number", "ccnum"];
    let tail = |length| name.len().checked_sub(length).and_then(|from| name.get(from..)).unwrap_or_default();
    ENDINGS.iter().any(|ending| tail(ending.len()).eq_ignore_ascii_case(ending))
}

/// Takes every value out of `data` and `stringData`; the names of the entries stay.
fn blank_data(members: &mut Map<String, Value>, found: &mut Redactions) {
    for key in ["data", "stringData"] {
        match members.get_mut(key) {
            Some(Value::Object(entries)) => {
                for entry in entries.values_mut() {
                    let empty = entry.is_null() || entry.as_str().is_some_and(|text| fields::harmless(text.as_bytes()));
                    if !empty {
                        found.add("kubernetes-secret");
                        *entry = marked("kubernetes-secret");
                    }
                }
            }
            Some(Value::String(text)) if !fields::harmless(text.as_bytes()) => {
                found.add("kubernetes-secret");
                members.insert(key.to_owned(), marked("kubernetes-secret"));
            }
            _ => {}
        }
    }
}

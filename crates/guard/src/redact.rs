//! Secrets go, keys stay. Linear-time matching only; text without a trigger word costs one pass of a literal search.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use regex::{Captures, Regex};
use serde_json::Value;

use crate::rules::{RULES, SECRET_FIELD_ENDINGS};

/// How many values of each kind were taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redactions(BTreeMap<&'static str, u64>);

impl Redactions {
    fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Kind and count, by kind.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(k, n)| (*k, *n))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }
}

/// Finds and replaces secrets in text and JSON.
#[derive(Debug, Clone)]
pub struct Redactor {
    triggers: AhoCorasick,
    /// Rule index by trigger index.
    rule_of: Vec<usize>,
    expressions: Vec<Regex>,
}

impl Redactor {
    /// Compiles the built-in rules.
    ///
    /// # Errors
    /// When a built-in rule does not compile: a defect of this build, reported instead of ignored.
    pub fn new() -> Result<Self, String> {
        let mut words = Vec::new();
        let mut rule_of = Vec::new();
        let mut expressions = Vec::new();
        for (index, rule) in RULES.iter().enumerate() {
            for trigger in rule.triggers {
                words.push(*trigger);
                rule_of.push(index);
            }
            expressions.push(Regex::new(rule.expression).map_err(|e| format!("rule '{}': {e}", rule.name))?);
        }
        let triggers = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(words)
            .map_err(|e| e.to_string())?;
        Ok(Self { triggers, rule_of, expressions })
    }

    /// Replaces secrets in `text` by `[redacted:kind]`.
    pub fn text<'t>(&self, text: &'t str, found: &mut Redactions) -> Cow<'t, str> {
        let mut wanted: u64 = 0;
        for hit in self.triggers.find_overlapping_iter(text) {
            wanted |= 1 << self.rule_of[hit.pattern().as_usize()];
        }
        let mut current = Cow::Borrowed(text);
        if wanted == 0 {
            return current;
        }
        for (index, rule) in RULES.iter().enumerate() {
            if wanted & (1 << index) == 0 {
                continue;
            }
            let replaced = self.expressions[index]
                .replace_all(&current, |captures: &Captures<'_>| Self::replacement(rule.name, captures, found));
            if let Cow::Owned(owned) = replaced {
                current = Cow::Owned(owned);
            }
        }
        current
    }

    fn replacement(kind: &'static str, captures: &Captures<'_>, found: &mut Redactions) -> String {
        let whole = captures.get(0).map_or("", |m| m.as_str());
        let value = ["v", "w", "x", "y"].iter().find_map(|name| captures.name(name));
        let (before, secret, after) = match (captures.get(0), value) {
            (Some(all), Some(value)) => {
                let start = value.start() - all.start();
                let end = value.end() - all.start();
                (&whole[..start], value.as_str(), &whole[end..])
            }
            _ => ("", whole, ""),
        };
        // A bare "Bearer word" or "Basic word" in prose is no credential: those have digits or padding.
        let bare = kind == "authorization" && captures.name("w").is_none();
        let prose = bare && !secret.bytes().any(|b| b.is_ascii_digit() || b == b'=');
        if prose || Self::harmless(secret) {
            return whole.to_owned();
        }
        found.add(kind);
        format!("{before}[redacted:{kind}]{after}")
    }

    /// Values that are plainly not secrets: already replaced, template placeholders, words like `null`.
    fn harmless(value: &str) -> bool {
        value.starts_with("[redacted")
            || value.starts_with("***")
            || value.starts_with("${")
            || value.starts_with("{{")
            || matches!(
                value.to_ascii_lowercase().as_str(),
                "null" | "none" | "true" | "false" | "undefined" | "nil" | "<nil>" | "empty" | "string"
            )
    }

    /// Redacts every string of a JSON value, keys included; a field whose name says it is a secret loses its value.
    pub fn value(&self, value: &mut Value, found: &mut Redactions) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.text(text, found) {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, found)),
            Value::Object(members) => {
                let dirty_keys: Vec<(String, String)> = members
                    .keys()
                    .filter_map(|k| match self.text(k, found) {
                        Cow::Owned(clean) => Some((k.clone(), clean)),
                        Cow::Borrowed(_) => None,
                    })
                    .collect();
                for (key, clean) in dirty_keys {
                    if let Some(member) = members.remove(&key) {
                        members.insert(clean, member);
                    }
                }
                for (key, member) in members.iter_mut() {
                    if is_secret_field(key) && Self::blank(member) {
                        found.add("secret-field");
                    } else {
                        self.value(member, found);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn blank(member: &mut Value) -> bool {
        match member {
            Value::String(text) if !text.is_empty() && !Self::harmless(text) => {
                *member = Value::String("[redacted:secret-field]".into());
                true
            }
            Value::Array(items) if items.iter().any(Value::is_string) => {
                *member = Value::String("[redacted:secret-field]".into());
                true
            }
            _ => false,
        }
    }
}

/// Whether a field name says that its value is a secret: `DB_PASSWORD`, `client-secret`, `x.api_key`.
fn is_secret_field(name: &str) -> bool {
    if name.len() > 128 {
        return false;
    }
    let normal: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_FIELD_ENDINGS.iter().any(|ending| normal.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn clean(text: &str) -> (String, u64) {
        let mut found = Redactions::default();
        let out = Redactor::new().unwrap().text(text, &mut found).into_owned();
        (out, found.total())
    }

    // Assembled at run time so that no scanner takes this file for a leak.
    fn samples() -> Vec<(String, String)> {
        let body = "Zx9Qw3Er7Ty1Ui5Op2As4Df6Gh8Jk0Lz3Xc5Vb7Nm9Qw1Er";
        let text = |prefix: &str, secret: String| (format!("{prefix}{secret} tail"), secret);
        vec![
            text("key ", format!("{}{}", "AKIA", "IOSFODNN7EXAMPLE")),
            text("push with ", format!("gh{}_{}", "p", &body[..36])),
            text("slack ", format!("xo{}-{}", "xb", &body[..24])),
            text("charge ", format!("sk_{}_{}", "live", &body[..24])),
            text("model ", format!("sk-{}-{}", "ant", &body[..32])),
            text("maps ", format!("AI{}{}", "za", "SyA1234567890abcdefghijklmnopqrstuv")),
            text("Authorization: Bearer ", body[..30].to_owned()),
            text("authorization=Basic ", "dXNlcjpwYXNzd29yZA==".to_owned()),
            text("password=", "hunter2!".to_owned()),
            text("DB_PASSWORD: ", "s3cr3t-value".to_owned()),
            text("client_secret := ", "abcdef123456".to_owned()),
            (format!("{{\"apiKey\":\"{body}\"}}"), body.to_owned()),
            (format!("{{\\\"token\\\":\\\"{body}\\\"}}"), body.to_owned()),
            ("postgres://shop:p4ssw0rd@db:5432/orders".to_owned(), "p4ssw0rd".to_owned()),
            ("redis://:p4ssw0rd@cache:6379".to_owned(), "p4ssw0rd".to_owned()),
            (format!("GET /x?X-Amz-Signature={body}&y=1"), body.to_owned()),
            (format!("t eyJhbGciOiJIUzI1NiJ9.{body}.{body} x"), format!("{body}.{body}")),
            (format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"), body.to_owned()),
            (format!("-----BEGIN PRIVATE KEY-----\n{body}\n(cut)"), body.to_owned()),
            ("Set-Cookie: session=abcdef0123456789; Path=/".to_owned(), "abcdef0123456789".to_owned()),
        ]
    }

    #[test]
    fn every_kind_of_secret_goes() {
        for (text, secret) in samples() {
            let (out, count) = clean(&text);
            assert!(!out.contains(&secret) && count > 0, "leaked in: {out}");
            let (again, more) = clean(&out);
            assert_eq!((again, more), (out, 0), "redaction is idempotent");
        }
    }

    #[test]
    fn ordinary_text_is_untouched() {
        for text in [
            "timed out acquiring connection from pool after 5000ms",
            "user 4711 logged in from 10.0.0.3",
            "GET http://checkout:8080/orders/17 200 in 12ms",
            "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7",
            "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
            "image sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "password=null token=${TOKEN}",
            "the token bucket is empty; secret santa is on friday",
            "tokens: 12 used",
            "a basic understanding of bearer authentication",
        ] {
            assert_eq!(clean(text), (text.to_owned(), 0));
        }
    }

    #[test]
    fn json_keys_stay_and_values_go() {
        let redactor = Redactor::new().unwrap();
        let mut found = Redactions::default();
        let mut value = json!({"db.password": "x", "env": [{"name": "A", "value": "postgres://u:pw12@h/d"}], "n": 3, "tokens_out": 5, "next": "b3BhcXVl"});
        redactor.value(&mut value, &mut found);
        assert_eq!(
            value,
            json!({"db.password": "[redacted:secret-field]", "env": [{"name": "A", "value": "postgres://u:[redacted:url-credentials]@h/d"}], "n": 3, "tokens_out": 5, "next": "b3BhcXVl"})
        );
        assert_eq!(found.total(), 2);
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_is_idempotent(text in "\\PC{0,200}") {
            let (once, _) = clean(&text);
            let (twice, _) = clean(&once);
            proptest::prop_assert_eq!(once, twice);
        }
    }
}

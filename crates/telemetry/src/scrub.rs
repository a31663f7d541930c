//! What must not be learned by asking. A condition or a function that sees a secret tells it, one answer at a time, however
//! well the answer itself is redacted later: so both see the scrubbed text. What a secret is, the binary says.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use portcullis_model::TenantId;
use regex::Regex;
use serde_json::{Map, Value};

/// Takes out what a caller must not learn; the same for equal text of one tenant.
pub trait Scrubber: Send + Sync + Debug {
    /// The text without it, or `None` when there is nothing to take out.
    fn text(&self, tenant: &TenantId, text: &str) -> Option<String>;

    /// Takes it out of a JSON value, where a field's name can tell as well.
    fn value(&self, tenant: &TenantId, value: &mut Value);

    /// What the process of a statement makes the same scrubber of.
    fn recipe(&self) -> String;
}

/// A scrubber for the data of one tenant.
#[derive(Debug, Clone)]
pub(crate) struct Scrub {
    scrubber: Arc<dyn Scrubber>,
    tenant: TenantId,
}

/// Marks that a scrubber leaves. Nobody looks for a mark: a word that only a mark has would tell what was under it.
static MARKS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\[(?:redacted|email|ip|card|iban|phone):[A-Za-z0-9_-]+\]").ok());

impl Scrub {
    pub(crate) fn new(scrubber: Arc<dyn Scrubber>, tenant: TenantId) -> Self {
        Self { scrubber, tenant }
    }

    /// What the process of a statement makes the same of.
    pub(crate) fn recipe(&self) -> String {
        self.scrubber.recipe()
    }

    /// The text without secrets, or `None` when it has none.
    pub(crate) fn text(&self, text: &str) -> Option<String> {
        if text.is_empty() { None } else { self.scrubber.text(&self.tenant, text) }
    }

    /// The text without secrets and without the marks in their places.
    pub(crate) fn unmarked(&self, text: &str) -> Option<String> {
        let clean = self.text(text)?;
        Some(MARKS.as_ref().map_or_else(String::new, |marks| marks.replace_all(&clean, "\u{fffc}").into_owned()))
    }

    /// Stored JSON (an attribute set, events, links) without secrets, or `None` when it has none.
    pub(crate) fn json(&self, text: &str) -> Option<String> {
        let mut value: Value = serde_json::from_str(text).ok()?;
        let before = value.clone();
        self.scrubber.value(&self.tenant, &mut value);
        (value != before).then(|| value.to_string())
    }

    /// The value of a field without secrets, or `None` when it has none.
    pub(crate) fn field(&self, name: &str, value: &str) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        let mut object = Value::Object(Map::from_iter([(name.to_owned(), Value::from(value))]));
        self.scrubber.value(&self.tenant, &mut object);
        let Value::Object(members) = object else { return Some(String::new()) };
        match members.into_iter().next() {
            Some((_, Value::String(clean))) if clean == value => None,
            Some((_, Value::String(clean))) => Some(clean),
            _ => Some(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Tigers;

    impl Scrubber for Tigers {
        fn recipe(&self) -> String {
            String::new()
        }
        fn text(&self, tenant: &TenantId, text: &str) -> Option<String> {
            text.contains("tiger").then(|| text.replace("tiger", &format!("[redacted:{tenant}]")))
        }
        fn value(&self, tenant: &TenantId, value: &mut Value) {
            match value {
                Value::String(text) => *text = self.text(tenant, text).unwrap_or_else(|| text.clone()),
                Value::Array(items) => items.iter_mut().for_each(|item| self.value(tenant, item)),
                Value::Object(members) => members.values_mut().for_each(|member| self.value(tenant, member)),
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_changed_is_told_and_marks_cannot_be_looked_for() {
        let scrub = Scrub::new(Arc::new(Tigers), TenantId::new("a").unwrap());
        assert_eq!(scrub.text("a cat"), None);
        assert_eq!(scrub.text("a tiger").as_deref(), Some("a [redacted:a]"));
        assert_eq!(scrub.unmarked("a tiger").as_deref(), Some("a \u{fffc}"));
        assert_eq!(scrub.field("x", "cat"), None);
        assert_eq!(scrub.field("x", "tiger").as_deref(), Some("[redacted:a]"));
        assert_eq!(scrub.json(r#"{"a":"cat"}"#), None);
        assert_eq!(scrub.json(r#"[[1,"tiger",{"k":"v"}]]"#).as_deref(), Some(r#"[[1,"[redacted:a]",{"k":"v"}]]"#));
    }
}

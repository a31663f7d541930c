//! Keys and values of tags, as questions name them and as Datadog does. Guards that neither becomes syntax of a query: what
//! Datadog could not hold in a tag is refused, because its metric queries have no way to quote it.
//!
//! <https://docs.datadoghq.com/getting_started/tagging/#define-tags>: letters, digits, `_`, `-`, `:`, `.` and `/`.

use crate::portcullis::plugin::types::{Fault, FaultCode, NameSet};
use crate::settings::Settings;

/// Words of the query languages, in either case.
const RESERVED: [&str; 5] = ["and", "or", "not", "in", "to"];

fn in_tag(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

fn is_word(text: &str) -> bool {
    (1..=200).contains(&text.len()) && !RESERVED.contains(&text.to_lowercase().as_str())
}

/// Whether this can be the key of a tag or the name of an attribute.
pub(crate) fn is_key(text: &str) -> bool {
    is_word(text) && text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(in_tag)
}

/// Whether this can be the value of a tag.
pub(crate) fn is_value(text: &str) -> bool {
    is_word(text) && text.starts_with(|c: char| c.is_alphanumeric() || c == '_') && text.chars().all(|c| in_tag(c) || c == ':')
}

/// Whether this can be the name of a metric.
pub(crate) fn is_metric(text: &str) -> bool {
    text.len() <= 200
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// The tag that a label of a question stands for.
pub(crate) fn tag_of<'a>(label: &'a str, settings: &'a Settings) -> &'a str {
    match label {
        "service" | "service.name" | "service_name" => "service",
        "namespace" | "k8s.namespace.name" | "k8s_namespace_name" => &settings.namespace_tag,
        "host" | "host.name" => "host",
        "deployment.environment" | "deployment.environment.name" => "env",
        other => other,
    }
}

/// What `asked` (one service, for instance) and the caller's scope leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed {
    Everything,
    Only(Vec<String>),
    /// Nothing can be seen, so nothing is asked.
    Nothing,
}

impl Allowed {
    pub(crate) fn of(asked: Option<&str>, scope: &NameSet) -> Self {
        match (asked, scope) {
            (None, NameSet::Everything) => Self::Everything,
            (Some(asked), NameSet::Everything) => Self::Only(vec![asked.to_owned()]),
            (None, NameSet::Only(names)) if !names.is_empty() => Self::Only(names.clone()),
            (Some(asked), NameSet::Only(names)) if names.iter().any(|name| name == asked) => Self::Only(vec![asked.to_owned()]),
            _ => Self::Nothing,
        }
    }
}

/// The texts of a regular expression that is nothing but texts with `|` between them.
pub(crate) fn alternatives(expression: &str) -> Option<Vec<String>> {
    let inner = expression.strip_prefix('^').unwrap_or(expression);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let inner = inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(inner);
    let mut texts = vec![String::new()];
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        match c {
            '|' => texts.push(String::new()),
            '\\' => {
                let escaped = characters.next().filter(|c| !c.is_alphanumeric())?;
                texts.last_mut()?.push(escaped);
            }
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            other => texts.last_mut()?.push(other),
        }
    }
    texts.iter().all(|text| !text.is_empty()).then_some(texts)
}

pub(crate) fn invalid(message: String, hint: &str) -> Fault {
    Fault { code: FaultCode::InvalidArgument, message, hint: Some(hint.to_owned()), detail: None, retry_after_seconds: None }
}

pub(crate) fn unsupported(message: &str, hint: &str) -> Fault {
    Fault {
        code: FaultCode::Unsupported,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
        detail: None,
        retry_after_seconds: None,
    }
}

/// `label` as the key of a tag.
pub(crate) fn key(label: &str, settings: &Settings) -> Result<String, Fault> {
    let tag = tag_of(label, settings);
    if is_key(tag) {
        return Ok(tag.to_owned());
    }
    Err(invalid(
        format!("'{}' is no name of a tag or attribute in Datadog", shown(label)),
        "names hold letters, digits, '_', '-', '.' and '/'",
    ))
}

/// `value` as the value of a tag.
pub(crate) fn value(value: &str) -> Result<&str, Fault> {
    if is_value(value) {
        return Ok(value);
    }
    Err(invalid(
        format!("'{}' is no value a tag in Datadog can have", shown(value)),
        "values hold letters, digits, '_', '-', ':', '.' and '/'",
    ))
}

/// Short and plain, for messages.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_syntax_is_no_tag() {
        for text in ["cart", "10.0.0.1:8080", "eu/west-1", "zürich", "Cart_2"] {
            assert!(is_value(text), "{text}");
        }
        for text in
            ["", "*", "a,b", "a b", "a}", "{a", "a)", "\"a\"", "a\\", "-a", "!a", "OR", "and", "In", "a\n", "a\u{0}", "a#b"]
        {
            assert!(!is_value(text), "{text:?}");
        }
        assert!(is_key("http.status_code") && !is_key("1st") && !is_key("a:b") && !is_key("@a"));
        assert!(is_metric("system.cpu.user") && !is_metric("system.cpu.user{*}") && !is_metric("") && !is_metric("a b"));
    }

    #[test]
    fn scope_and_question_meet() {
        let scope = NameSet::Only(vec!["cart".into(), "pay".into()]);
        assert_eq!(Allowed::of(Some("cart"), &scope), Allowed::Only(vec!["cart".into()]));
        assert_eq!(Allowed::of(Some("other"), &scope), Allowed::Nothing);
        assert_eq!(Allowed::of(None, &scope), Allowed::Only(vec!["cart".into(), "pay".into()]));
        assert_eq!(Allowed::of(None, &NameSet::Only(vec![])), Allowed::Nothing);
        assert_eq!(Allowed::of(None, &NameSet::Everything), Allowed::Everything);
    }

    #[test]
    fn only_plain_alternatives_are_taken_out_of_an_expression() {
        assert_eq!(alternatives("a|b").unwrap(), ["a", "b"]);
        assert_eq!(alternatives("^(a|b)$").unwrap(), ["a", "b"]);
        assert_eq!(alternatives(r"10\.0\.0\.1").unwrap(), ["10.0.0.1"]);
        for expression in ["a.*", "a+", "(a)(b)", "[ab]", "a|", "", r"\d", "a\\"] {
            assert_eq!(alternatives(expression), None, "{expression}");
        }
    }
}

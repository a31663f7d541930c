//! What several tools check about their arguments, in one place.
//!
//! Guards that bad input ends in a sentence that says what was wrong and what would be right, also when a caller came
//! past the schema. Must not ask any source.

use std::collections::BTreeMap;

use portcullis_model::{Fault, FaultCode, Scope, Severity, cut};
use portcullis_ports::{Arguments, Exchange, LabelMatch, MatchOperator};
use portcullis_shape::{decode_cursor, encode_cursor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The argument that takes a cursor.
pub(crate) const CURSOR: &str = "cursor";
/// Longest text an argument may have.
const MAX_TEXT: usize = 1024;
/// Longest query or statement.
pub(crate) const MAX_QUERY: usize = 16 * 1024;
/// Most conditions on labels.
const MAX_LABELS: usize = 20;

/// `asked` or `default`, refused outside `1..=maximum`; never more than the `rows` of the permit. What that leaves out the
/// answer counts like anything beyond a limit.
pub(crate) fn limit(rows: u64, asked: Option<u32>, default: usize, maximum: usize) -> Result<usize, Fault> {
    let wanted = match asked.map(|n| n as usize) {
        None => default,
        Some(n) if (1..=maximum).contains(&n) => n,
        Some(n) => return Err(Fault::invalid(format!("limit {n} is outside 1 to {maximum}"))),
    };
    Ok(wanted.min(usize::try_from(rows).unwrap_or(usize::MAX)))
}

/// Text of sensible length without control characters; an empty one is refused.
pub(crate) fn text<'a>(name: &str, value: Option<&'a str>) -> Result<Option<&'a str>, Fault> {
    bounded(name, value, MAX_TEXT)
}

/// As [`text`], with a bound of one's own. Line breaks and tabs are allowed.
pub(crate) fn bounded<'a>(name: &str, value: Option<&'a str>, maximum: usize) -> Result<Option<&'a str>, Fault> {
    let Some(value) = value else { return Ok(None) };
    if value.trim().is_empty() {
        return Err(Fault::invalid(format!("{name} is empty; leave it out instead")));
    }
    if value.len() > maximum {
        return Err(Fault::invalid(format!("{name} is {} bytes long, the limit is {maximum}", value.len())));
    }
    if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Fault::invalid(format!("{name} contains control characters")));
    }
    Ok(Some(value))
}

/// A service name that is inside the scope. Outside looks like not existing.
pub(crate) fn service<'a>(value: Option<&'a str>, scope: &Scope) -> Result<Option<&'a str>, Fault> {
    let Some(name) = text("service", value)? else { return Ok(None) };
    scope
        .require_service(name)
        .map_err(|e| Fault::new(FaultCode::NotFound, e.to_string()).with_hint("list_services shows what is available"))?;
    Ok(Some(name))
}

/// Conditions from `{label: value}`; a value may start with `!=`, `=~` or `!~`.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> Result<Vec<LabelMatch>, Fault> {
    if labels.len() > MAX_LABELS {
        return Err(Fault::invalid(format!("labels has {} entries, the limit is {MAX_LABELS}", labels.len())));
    }
    labels.iter().map(|(name, value)| label(name, value)).collect()
}

fn label(name: &str, value: &str) -> Result<LabelMatch, Fault> {
    label_name(name)?;
    if value.len() > MAX_TEXT {
        return Err(Fault::invalid(format!("labels: the value of '{name}' is longer than {MAX_TEXT} bytes")));
    }
    let operators = [("=~", MatchOperator::Regex), ("!~", MatchOperator::NotRegex), ("!=", MatchOperator::NotEqual)];
    let prefixed = operators.iter().find_map(|(prefix, operator)| value.strip_prefix(prefix).map(|rest| (*operator, rest)));
    let (operator, rest) = prefixed.unwrap_or((MatchOperator::Equal, value));
    if matches!(operator, MatchOperator::Regex | MatchOperator::NotRegex) {
        regex(&format!("labels.{name}"), rest)?;
    }
    Ok(LabelMatch { name: name.to_owned(), operator, value: rest.to_owned() })
}

/// A label or attribute name: `http.route`, `k8s_pod`, `service-version`.
pub(crate) fn label_name(name: &str) -> Result<(), Fault> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':');
    if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
        let shown = cut::quoted(name, 40);
        return Err(Fault::invalid(format!("'{shown}' is not a label name; write one such as http.route or pod")));
    }
    Ok(())
}

/// A regular expression that can be matched in linear time.
pub(crate) fn regex(name: &str, pattern: &str) -> Result<(), Fault> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map(|_| ()).map_err(|e| {
        let reason = e.to_string();
        let last = reason.lines().last().unwrap_or("not a regular expression").trim_start_matches("error: ").to_owned();
        Fault::invalid(format!("{name} is not a usable regular expression: {last}"))
            .with_hint("RE2 syntax without look-around, such as time(d )?out|refused")
    })
}

/// A severity by name.
pub(crate) fn severity(level: Option<&str>) -> Result<Option<Severity>, Fault> {
    let Some(level) = level else { return Ok(None) };
    match Severity::from_text(level) {
        Some(severity) => Ok(Some(severity)),
        None => Err(Fault::invalid(format!("level '{level}' is not one of trace, debug, info, warn, error, fatal"))),
    }
}

/// Names a question for its cursors: the tool and its arguments without the cursor itself.
pub(crate) fn question(tool: &str, arguments: &Map<String, Value>) -> String {
    let mut named: BTreeMap<&str, &Value> = arguments.iter().map(|(name, value)| (name.as_str(), value)).collect();
    named.remove(CURSOR);
    named.remove("limit");
    let words = serde_json::to_string(&named).unwrap_or_default();
    format!("{tool}:{words}")
}

/// Reads the cursor of `question`, if one was given.
pub(crate) fn cursor<P: DeserializeOwned>(question: &str, cursor: Option<&str>) -> Result<Option<P>, Fault> {
    cursor.map(|text| decode_cursor(question, text).map_err(|e| Fault::invalid(format!("cursor: {e}")))).transpose()
}

/// The position in the cursor of a call, opened by the gate; nothing where there is none that can be read.
pub(crate) fn position<P: DeserializeOwned>(tool: &str, arguments: &Arguments) -> Option<P> {
    let cursor = arguments.0.get(CURSOR)?.as_str()?;
    decode_cursor(&question(tool, &arguments.0), cursor).ok()
}

/// Writes a cursor for `question`, sealed for the caller.
pub(crate) fn next<P: Serialize>(exchange: &dyn Exchange, question: &str, position: &P) -> Result<String, Fault> {
    let written = encode_cursor(question, position).map_err(|e| {
        Fault::new(FaultCode::Internal, "the position of this page could not be written down").with_internal(e.to_string())
    })?;
    Ok(exchange.seal_cursor(written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn label_conditions() {
        let map: BTreeMap<String, String> = [("a", "x"), ("b", "!=x"), ("c", "=~x|y"), ("d", "!~z.*")]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let operators: Vec<MatchOperator> = labels(&map).unwrap().into_iter().map(|m| m.operator).collect();
        let expected = [MatchOperator::Equal, MatchOperator::NotEqual, MatchOperator::Regex, MatchOperator::NotRegex];
        assert_eq!(operators, expected);
        for (name, value, expected) in [("a b", "x", "label name"), ("a", "=~(", "regular expression"), ("", "x", "label name")] {
            let fault = label(name, value).expect_err("refused");
            assert!(fault.message().contains(expected), "{}", fault.message());
        }
    }

    #[test]
    fn limits_are_bounds_not_wishes() {
        assert_eq!((limit(u64::MAX, None, 10, 50).unwrap(), limit(7, None, 10, 50).unwrap()), (10, 7));
        assert_eq!((limit(7, Some(3), 10, 50).unwrap(), limit(7, Some(50), 10, 50).unwrap()), (3, 7));
        assert!(limit(7, Some(0), 10, 50).is_err());
        assert!(limit(7, Some(51), 10, 50).unwrap_err().message().contains("1 to 50"));
    }

    #[test]
    fn a_cursor_belongs_to_its_question() {
        let arguments = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let asked = question("query_logs", &arguments(r#"{"service":"a","window":"1h"}"#));
        let again = question("query_logs", &arguments(r#"{"window":"1h","service":"a","cursor":"x","limit":3}"#));
        assert_eq!(asked, again);
        let text = next(&portcullis_ports::NoExchange, &asked, &7u64).unwrap();
        let back: Arguments = Arguments(arguments(&format!(r#"{{"service":"a","window":"1h","cursor":"{text}"}}"#)));
        assert_eq!((position::<u64>("query_logs", &back), position::<u64>("query_traces", &back)), (Some(7), None));
        assert_eq!(cursor::<u64>(&again, Some(&text)).unwrap(), Some(7));
        let other = question("query_logs", &arguments(r#"{"service":"b","window":"1h"}"#));
        assert!(cursor::<u64>(&other, Some(&text)).unwrap_err().message().contains("another question"));
    }

    proptest! {
        #[test]
        fn nothing_a_caller_writes_panics(name in ".{0,40}", value in ".{0,60}", cursor_text in ".{0,80}") {
            let _ = label(&name, &value);
            let _ = regex("text", &value);
            let _ = text("service", Some(&value));
            prop_assert!(cursor::<u64>("q", Some(&cursor_text)).is_err());
        }
    }
}

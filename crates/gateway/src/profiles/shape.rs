//! The shape of a call: which arguments, of which kind. Never a value: a profile must not become a second log of what
//! people asked for.

use portcullis_model::Timestamp;
use serde_json::{Map, Value};

/// Longest shape kept; what is longer is named by its hash.
const LONGEST: usize = 400;

/// The shape of these arguments: names and kinds in order of name, such as `service:text window:text`. Text that is
/// long is another kind than short text, lists are told apart from single values.
pub(super) fn of(arguments: &Map<String, Value>) -> String {
    let mut members: Vec<(&String, &Value)> = arguments.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    let words: Vec<String> = members.into_iter().map(|(name, value)| format!("{name}:{}", kind(value))).collect();
    let shape = words.join(" ");
    if shape.len() <= LONGEST { shape } else { format!("#{}", blake3::hash(shape.as_bytes()).to_hex()) }
}

fn kind(value: &Value) -> &'static str {
    /// Beyond this many bytes text is no longer a name or a short filter.
    const LONG: usize = 256;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(text) if text.len() > LONG => "long-text",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Hour of the day in UTC, 0 to 23.
pub(super) fn hour(at: Timestamp) -> u32 {
    let hour = at.as_nanos().div_euclid(3_600_000_000_000).rem_euclid(24);
    u32::try_from(hour).unwrap_or(0)
}

/// The minute since the epoch.
pub(super) fn minute(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(60_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_shape_holds_names_and_kinds_and_no_value() {
        assert_eq!(shape(r#"{"window":"1h","service":"cart","limit":5}"#), "limit:number service:text window:text");
        assert_eq!(shape(r#"{"service":"payment","limit":9,"window":"7d"}"#), "limit:number service:text window:text");
        assert_ne!(shape(r#"{"service":["a","b"]}"#), shape(r#"{"service":"a"}"#));
        assert_eq!(shape("{}"), "");
        let long = format!(r#"{{"sql":"{}"}}"#, "x".repeat(300));
        assert_eq!(shape(&long), "sql:long-text");
    }

    #[test]
    fn hours_and_minutes_are_utc() {
        let at = Timestamp::from_seconds(1_700_000_000); // 2023-11-14T22:13:20Z
        assert_eq!((hour(at), minute(at)), (22, 28_333_333));
    }
}

//! Quoting for PromQL: strings, label names, numbers, durations, regular expressions. Guards the rule that text
//! from outside never becomes syntax. Must not decide what a query means.

use std::fmt::Write;
use std::time::Duration;

use crate::QueryError;
use crate::error::shown;

/// Largest compiled size of one regular expression a caller may send, in bytes. `\w{20}` fits, `(\w{100}){100}` does not.
const REGEX_SIZE_LIMIT: usize = 256 * 1024;

/// Words that PromQL reads as something else than a metric name when they stand alone (Prometheus `lex.go`, `key`).
const KEYWORDS: [&str; 41] = [
    "and",
    "or",
    "unless",
    "atan2",
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
    "offset",
    "smoothed",
    "anchored",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "start",
    "end",
    "step",
    "range",
    "fill",
    "fill_left",
    "fill_right",
    "inf",
    "nan",
    "with",
    "default",
    "if",
    "ifnot",
];

/// Writes `text` as a PromQL string literal in double quotes.
///
/// Only escapes that every PromQL reader understands the same way are used: `\\`, `\"`, `\n`, `\t`, `\r`, `\xNN` below
/// U+0080, `\uNNNN` above. U+FFFD is written as an escape because Prometheus takes the raw character for broken UTF-8, and
/// U+FEFF because Go's scanners take it for a byte order mark.
pub fn promql_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => push(&mut out, format_args!("\\x{:02x}", c as u32)),
            c if c.is_control() || matches!(c, '\u{fffd}' | '\u{feff}') => push(&mut out, format_args!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `write!` into a string, which cannot fail.
pub(crate) fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(text);
}

/// Whether `name` can stand as a label name without quotes.
pub(crate) fn is_plain_label(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` can stand as a metric name without quotes, keywords aside.
pub(crate) fn is_plain_metric(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Whether `name` means something else in PromQL or MetricsQL than a name.
pub(crate) fn is_keyword(name: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name))
}

/// A label name as it is written in a matcher: bare when it can be, else quoted.
pub(crate) fn matcher_label(name: &str) -> String {
    if is_plain_label(name) { name.to_owned() } else { promql_string(name) }
}

/// A label name as it is written in `by (…)`, where some keywords are read as numbers.
pub(crate) fn grouping_label(name: &str) -> String {
    let number = name.eq_ignore_ascii_case("inf") || name.eq_ignore_ascii_case("nan");
    if is_plain_label(name) && !number { name.to_owned() } else { promql_string(name) }
}

/// Escapes `literal` so that it matches exactly itself in RE2 and in Rust's regex syntax.
///
/// The set is that of Go's `regexp.QuoteMeta`.
pub fn regex_escape(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len() + 8);
    for c in literal.chars() {
        if matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A regular expression that matches exactly the given literals, for use where matching is anchored (PromQL, LogQL).
pub fn regex_any_of<S: AsRef<str>>(literals: impl IntoIterator<Item = S>) -> String {
    let escaped: Vec<String> = literals.into_iter().map(|literal| regex_escape(literal.as_ref())).collect();
    escaped.join("|")
}

/// Refuses a pattern that does not compile within a small budget, before it is handed to anything that compiles it.
///
/// Patterns are anchored, as in PromQL. A `{` that opens no repetition stands for itself there, so a pattern that
/// only works with such braces escaped is accepted too.
pub(crate) fn check_regex(pattern: &str) -> Result<(), QueryError> {
    let compile = |text: &str| {
        let anchored = format!("^(?:{text})$");
        regex::RegexBuilder::new(&anchored).size_limit(REGEX_SIZE_LIMIT).build()
    };
    let outcome = match compile(pattern) {
        Err(regex::Error::Syntax(_)) => compile(&escape_literal_braces(pattern)),
        other => other,
    };
    let reason = match outcome {
        Ok(_) => return Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => "it is too large; repeat less or use fewer alternatives",
        Err(_) => "it is not a valid expression in RE2 syntax",
    };
    Err(QueryError::Regex { shown: shown(pattern), reason: reason.to_owned() })
}

fn escape_literal_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c == '\\' {
            let escaped = after.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..=escaped]);
            rest = &after[escaped..];
            continue;
        }
        if c == '{' && !opens_repetition(after) {
            out.push('\\');
        }
        out.push(c);
        rest = after;
    }
    out
}

fn opens_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    !low.is_empty() && low.bytes().chain(high.bytes()).all(|b| b.is_ascii_digit())
}

/// A number that PromQL reads back as the same 64-bit value.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Inf".to_owned() } else { "-Inf".to_owned() }
    } else if size != 0.0 && !(1e-6..1e17).contains(&size) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// A duration in PromQL units, largest first, rounded up to whole milliseconds.
pub(crate) fn duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos().div_ceil(1_000_000);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (milliseconds, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
        if rest >= milliseconds {
            push(&mut out, format_args!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_written_exactly() {
        assert_eq!(duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(duration(Duration::from_millis(1500)), "1s500ms");
        assert_eq!(duration(Duration::from_hours(240)), "10d");
        assert_eq!(duration(Duration::from_nanos(1)), "1ms");
    }

    #[test]
    fn strange_characters_are_escaped_the_portable_way() {
        assert_eq!(promql_string("a\"b\\c\nd\u{fffd}\u{0}\u{85}é"), "\"a\\\"b\\\\c\\nd\\ufffd\\x00\\u0085é\"");
    }

    #[test]
    fn a_huge_pattern_is_refused_before_it_is_compiled() {
        assert!(check_regex("(\\w{100}){100}").unwrap_err().to_string().contains("too large"));
        assert!(check_regex("cart|check.*").is_ok());
        assert!(check_regex("{b}(\\w{100}){100}").unwrap_err().to_string().contains("too large"));
        assert!(check_regex("a{b}\\{c}d{2}").is_ok());
        assert!(check_regex("(").is_err());
    }

    proptest! {
        #[test]
        fn an_escaped_literal_matches_itself_only(literal in any::<String>(), other in any::<String>()) {
            let compiled = regex::Regex::new(&format!("^(?:{})$", regex_escape(&literal))).unwrap();
            prop_assert!(compiled.is_match(&literal));
            prop_assert_eq!(compiled.is_match(&other), literal == other);
        }

        #[test]
        fn alternatives_match_each_and_no_more(names in prop::collection::vec("[a-z.|*\\\\]{1,6}", 1..5), other in "[a-z.|*\\\\]{0,6}") {
            let compiled = regex::Regex::new(&format!("^(?:{})$", regex_any_of(&names))).unwrap();
            prop_assert!(names.iter().all(|name| compiled.is_match(name)));
            prop_assert_eq!(compiled.is_match(&other), names.contains(&other));
        }

        #[test]
        fn numbers_read_back(value in any::<f64>()) {
            let text = number(value);
            let back: f64 = text.parse().unwrap();
            prop_assert!(back.total_cmp(&value).is_eq() || (back.is_nan() && value.is_nan()), "{}", text);
        }
    }
}

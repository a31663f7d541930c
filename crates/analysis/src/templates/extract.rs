//! The message inside a record: JSON and logfmt lines carry it in a field, stack traces in one of their lines.
//!
//! Guards that the fields that tell failures apart (error, exception, status class) stay with the message. Must accept
//! anything: what is neither JSON nor logfmt is the message itself.

use std::borrow::Cow;

use portcullis_model::Severity;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// What a body says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extracted<'a> {
    /// The text templates are made from.
    pub(super) message: Cow<'a, str>,
    /// Severity named inside the body.
    pub(super) severity: Option<Severity>,
}

/// Finds the message of `body`.
pub(super) fn extract(body: &str) -> Extracted<'_> {
    let text = body.trim_start();
    match text.as_bytes().first() {
        Some(b'{') => {
            if let Some(found) = from_json(text) {
                return found;
            }
        }
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'@') => {
            if let Some(found) = from_logfmt(text) {
                return found;
            }
        }
        _ => {}
    }
    Extracted { message: telling_line(text), severity: None }
}

/// The first line; of a Python traceback the last, which names the error.
fn telling_line(text: &str) -> Cow<'_, str> {
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with("Traceback (most recent call last)")
        && let Some(last) = text.lines().rev().find(|line| !line.is_empty() && !line.starts_with(' '))
        && last != first
    {
        return Cow::Owned(format!("Traceback: {last}"));
    }
    Cow::Borrowed(first)
}

#[derive(Default)]
struct Fields<'a> {
    message: Option<Cow<'a, str>>,
    level: Option<Severity>,
    errors: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    others: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Fields beyond these are not looked at when a record has no message.
const MAX_OTHERS: usize = 12;

impl<'a> Fields<'a> {
    fn add(&mut self, key: Cow<'a, str>, value: Cow<'a, str>) {
        match key.as_ref() {
            "msg" | "message" | "Message" | "log" | "body" | "text" | "@message" | "MESSAGE" if self.message.is_none() => {
                self.message = Some(value);
            }
            "level" | "severity" | "lvl" | "levelname" | "log.level" | "Level" | "severity_text" => {
                self.level = self.level.or_else(|| Severity::from_text(&value));
            }
            "time" | "ts" | "timestamp" | "@timestamp" | "date" | "t" | "trace_id" | "traceId" | "span_id" | "spanId" => {}
            "error" | "err" | "exception" | "error.type" | "error.message" | "error.kind" | "exception.type" | "exc_info"
            | "reason" => {
                self.errors.push((key, value));
            }
            "status" | "status_code" | "statusCode" | "http.status_code" | "http.response.status_code"
                if value.starts_with('5') =>
            {
                self.errors.push((Cow::Borrowed("status"), value));
            }
            _ if self.others.len() < MAX_OTHERS => self.others.push((key, value)),
            _ => {}
        }
    }

    fn finish(self) -> Extracted<'a> {
        let Self { message, level: severity, errors, others } = self;
        let (pairs, start) = match message {
            Some(message) if errors.is_empty() => {
                let line = match message {
                    Cow::Borrowed(text) => telling_line(text),
                    Cow::Owned(text) => Cow::Owned(telling_line(&text).into_owned()),
                };
                return Extracted { message: line, severity };
            }
            Some(message) => (errors, telling_line(&message).into_owned()),
            None => (errors.into_iter().chain(others).collect(), String::new()),
        };
        let mut text = start;
        for (key, value) in pairs {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&key);
            text.push('=');
            text.push_str(value.lines().next().unwrap_or_default());
        }
        Extracted { message: Cow::Owned(text), severity }
    }
}

/// A scalar as text; objects and lists are skipped.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Skipped,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(if value { "true" } else { "false" })))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Skipped)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Skipped)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Skipped)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some((key, value)) = map.next_entry::<Scalar<'de>, Scalar<'de>>()? {
            if let (Scalar::Text(key), Scalar::Text(value)) = (key, value) {
                fields.add(key, value);
            }
        }
        Ok(fields)
    }
}

fn from_json(text: &str) -> Option<Extracted<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = deserializer.deserialize_map(FieldsVisitor).ok()?;
    Some(fields.finish())
}

/// `key=value` pairs from the start, one of them a message; quoted values may escape with a backslash.
fn from_logfmt(text: &str) -> Option<Extracted<'_>> {
    if !(text.contains(" msg=") || text.starts_with("msg=") || text.contains(" message=")) {
        return None;
    }
    let mut fields = Fields::default();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || key.bytes().any(|b| b.is_ascii_whitespace() || b == b'"') {
            return None;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted)?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        fields.add(Cow::Borrowed(key), Cow::Borrowed(value));
        rest = after.trim_start();
    }
    fields.message.is_some().then(|| fields.finish())
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let closes = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        extract(body).message.into_owned()
    }

    #[test]
    fn messages_are_found_where_they_are() {
        for (body, expected) in [
            ("plain text 1\nat somewhere", "plain text 1"),
            (
                r#"{"level":"error","msg":"payment failed","order":"17","error":"card declined"}"#,
                "payment failed error=card declined",
            ),
            (r#"{"time":"x","severity":"INFO","message":"ok","status":200}"#, "ok"),
            (r#"{"message":"done","status":503,"nested":{"a":[1,2]}}"#, "done status=503"),
            (r#"{"event":"login","user":"bob","ok":false,"none":null}"#, "event=login user=bob ok=false"),
            (r#"level=warn ts=2026 msg="eviction \"now\"" entries=5"#, r#"eviction \"now\""#),
            ("uid=0 euid=0 user=root", "uid=0 euid=0 user=root"),
            ("text with msg=\"inside\" it", "text with msg=\"inside\" it"),
            ("{not json", "{not json"),
            ("Traceback (most recent call last):\n  File \"x\"\nValueError: bad value", "Traceback: ValueError: bad value"),
        ] {
            assert_eq!(message(body), expected, "{body}");
        }
        assert_eq!(extract(r#"{"level":"error","msg":"x"}"#).severity, Some(Severity::Error));
        assert_eq!(extract("level=warning msg=x").severity, Some(Severity::Warn));
    }

    proptest::proptest! {
        #[test]
        fn any_body_has_a_message(body in "\\PC{0,120}", json in "\\{\"[a-z\"{}:,\\[\\]\\\\0-9]{0,60}\\}?", pairs in "([a-z]{1,4}=\"?[a-z \"\\\\]{0,8} ?){0,6}") {
            for text in [body, json, format!("msg={pairs}")] {
                let _ = extract(&text);
            }
        }
    }
}

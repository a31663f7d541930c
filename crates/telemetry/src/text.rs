//! Attributes as text: one canonical JSON object of text values per attribute set, sorted by name, so that equal sets
//! are equal bytes. Reads only what it wrote; anything else reads as empty. Must not know tables.

use std::borrow::Cow;
use std::fmt::Write as _;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut clean = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[clean..at]);
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
        clean = at + 1;
    }
    out.push_str(&text[clean..]);
    out.push('"');
}

/// Appends lower-case hex.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Reads hex of exactly `N` bytes, any case.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (slot, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *slot = u8::try_from(high * 16 + low).ok()?;
    }
    Some(out)
}

/// Appends a value as plain text: strings as they are, structures as JSON.
pub(crate) fn push_value(out: &mut String, value: Option<&AnyValue>) {
    match value.and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => out.push_str(text),
        Some(other) => push_json(out, other),
        None => {}
    }
}

fn push_json(out: &mut String, value: &Value) {
    match value {
        Value::StringValue(text) => push_string(out, text),
        Value::BoolValue(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::IntValue(number) => {
            let _ = write!(out, "{number}");
        }
        Value::DoubleValue(number) => {
            let _ = write!(out, "{number}");
        }
        Value::BytesValue(bytes) => push_base64(out, bytes),
        Value::ArrayValue(array) => {
            out.push('[');
            for (at, item) in array.values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_json_or_null(out, item.value.as_ref());
            }
            out.push(']');
        }
        Value::KvlistValue(list) => {
            out.push('{');
            for (at, item) in list.values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_string(out, &item.key);
                out.push(':');
                push_json_or_null(out, item.value.as_ref().and_then(|v| v.value.as_ref()));
            }
            out.push('}');
        }
        // A reference into a profiles dictionary, which these signals do not carry: the specification says to read it as absent.
        Value::StringValueStrindex(_) => out.push_str("null"),
    }
}

fn push_json_or_null(out: &mut String, value: Option<&Value>) {
    match value {
        Some(value) => push_json(out, value),
        None => out.push_str("null"),
    }
}

fn push_base64(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let group = (u32::from(chunk[0]) << 16)
            | (u32::from(chunk.get(1).copied().unwrap_or(0)) << 8)
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(char::from(DIGITS[(group >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
}

/// Writes attribute sets; keeps its buffers between calls.
#[derive(Debug, Default)]
pub(crate) struct AttributeWriter {
    order: Vec<usize>,
    value: String,
}

impl AttributeWriter {
    /// Appends the canonical text of `attributes` (nothing for an empty set; the last of equal names wins) and returns
    /// the length of its longest value.
    pub(crate) fn push(&mut self, out: &mut String, attributes: &[KeyValue]) -> usize {
        if attributes.is_empty() {
            return 0;
        }
        self.order.clear();
        self.order.extend(0..attributes.len());
        self.order.sort_by(|a, b| attributes[*a].key.cmp(&attributes[*b].key));
        let mut longest = 0;
        out.push('{');
        let start = out.len();
        for (at, index) in self.order.iter().enumerate() {
            let item = &attributes[*index];
            if self.order.get(at + 1).is_some_and(|next| attributes[*next].key == item.key) {
                continue;
            }
            if out.len() > start {
                out.push(',');
            }
            push_string(out, &item.key);
            out.push(':');
            if let Some(Value::StringValue(text)) = item.value.as_ref().and_then(|v| v.value.as_ref()) {
                longest = longest.max(text.len());
                push_string(out, text);
            } else {
                self.value.clear();
                push_value(&mut self.value, item.value.as_ref());
                longest = longest.max(self.value.len());
                push_string(out, &self.value);
            }
        }
        out.push('}');
        longest
    }
}

/// Names and values of an attribute set in its canonical text.
pub(crate) fn pairs(text: &str) -> Pairs<'_> {
    Pairs { rest: text.strip_prefix('{').unwrap_or("") }
}

/// The value of one attribute.
pub(crate) fn lookup<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    // Most sets do not have most names: one substring search is much cheaper than reading the set.
    if !name.contains(['"', '\\']) && !name.bytes().any(|b| b < 0x20) && !text.contains(name) {
        return None;
    }
    pairs(text).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Iterator of [`pairs`].
#[derive(Debug, Clone)]
pub(crate) struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = take_string(self.rest)?;
        let (value, rest) = take_string(rest.strip_prefix(':')?)?;
        self.rest = rest.strip_prefix(',').unwrap_or("");
        Some((key, value))
    }
}

fn take_string(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let body = text.strip_prefix('"')?;
    let mut at = 0;
    let mut escaped = false;
    let bytes = body.as_bytes();
    loop {
        match bytes.get(at)? {
            b'"' => break,
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
    let (content, rest) = (body.get(..at)?, body.get(at + 1..)?);
    let content = if escaped { Cow::Owned(unescape(content)) } else { Cow::Borrowed(content) };
    Some((content, rest))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = rest.get(at + 2..).unwrap_or("");
        match rest.as_bytes().get(at + 1) {
            Some(b'n') => out.push('\n'),
            Some(b'r') => out.push('\r'),
            Some(b't') => out.push('\t'),
            Some(b'u') => {
                let code = after.get(..4).and_then(|h| u32::from_str_radix(h, 16).ok()).and_then(char::from_u32);
                out.extend(code);
                rest = after.get(4..).unwrap_or("");
                continue;
            }
            Some(other) => out.push(char::from(*other)),
            None => {}
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    }

    fn text_of(attributes: &[KeyValue]) -> String {
        let mut out = String::new();
        AttributeWriter::default().push(&mut out, attributes);
        out
    }

    #[test]
    fn equal_sets_are_equal_text() {
        let a = attribute("b", Value::IntValue(-7));
        let b = attribute("a", Value::StringValue("x".into()));
        assert_eq!(text_of(&[a.clone(), b.clone()]), text_of(&[b, a]));
    }

    #[test]
    fn values_as_the_exporter_writes_them() {
        let nested = Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue {
            values: vec![
                AnyValue { value: Some(Value::BoolValue(true)) },
                AnyValue { value: Some(Value::StringValue("s\"".into())) },
            ],
        });
        let text = text_of(&[
            attribute("array", nested),
            attribute("bytes", Value::BytesValue(b"hello".to_vec())),
            attribute("double", Value::DoubleValue(0.25)),
        ]);
        assert_eq!(lookup(&text, "array").as_deref(), Some("[true,\"s\\\"\"]"));
        assert_eq!(lookup(&text, "bytes").as_deref(), Some("aGVsbG8="));
        assert_eq!(lookup(&text, "double").as_deref(), Some("0.25"));
        assert_eq!(lookup(&text, "doubl"), None);
    }

    #[test]
    fn the_last_of_equal_names_wins() {
        let text = text_of(&[attribute("a", Value::IntValue(1)), attribute("a", Value::IntValue(2))]);
        assert_eq!(text, r#"{"a":"2"}"#);
    }

    #[test]
    fn hex_round_trip() {
        let mut out = String::new();
        push_hex(&mut out, &[0x01, 0xab, 0xff]);
        assert_eq!(out, "01abff");
        assert_eq!(parse_hex::<3>("01ABff"), Some([0x01, 0xab, 0xff]));
        assert_eq!(parse_hex::<3>("01ABf"), None);
        assert_eq!(parse_hex::<3>("01ABfg"), None);
    }

    proptest! {
        #[test]
        fn every_set_reads_back(set in proptest::collection::btree_map(".*", ".*", 0..8)) {
            let attributes: Vec<KeyValue> = set.iter().map(|(k, v)| attribute(k, Value::StringValue(v.clone()))).collect();
            let text = text_of(&attributes);
            let read: std::collections::BTreeMap<String, String> =
                pairs(&text).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(&read, &set);
            for (key, value) in &set {
                let found = lookup(&text, key);
                prop_assert_eq!(found.as_deref(), Some(value.as_str()));
            }
            if !set.is_empty() {
                let json: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(json, set);
            }
        }

        #[test]
        fn foreign_text_never_panics(text in ".*") {
            let _ = pairs(&text).count();
        }
    }
}

//! Strict JSON for messages from outside: what two parsers could read differently is refused before anybody
//! reads it. Duplicate keys, keys that differ only in case, deep nesting, lone surrogates, trailing bytes.

use std::fmt;

use portcullis_model::cut;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Bounds of one message.
#[derive(Debug, Clone, Copy)]
pub struct StrictLimits {
    /// Objects and arrays inside each other.
    pub depth: usize,
    /// Members of one object.
    pub members: usize,
}

impl Default for StrictLimits {
    fn default() -> Self {
        Self { depth: 32, members: 2_000 }
    }
}

/// A message that is refused. The text is client-safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StrictFault {
    message: String,
    syntax: bool,
}

impl StrictFault {
    /// Whether it is not JSON at all (JSON-RPC parse error) rather than JSON we refuse (invalid request).
    pub fn is_syntax(&self) -> bool {
        self.syntax
    }
}

/// Checks `bytes` as one strict JSON document.
///
/// # Errors
/// A sentence naming the first thing that is wrong and where.
pub fn check_strict(bytes: &[u8], limits: StrictLimits) -> Result<(), StrictFault> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let outcome = Walk { limits, depth: 0 }.deserialize(&mut parser).and_then(|()| parser.end());
    outcome.map_err(|error| {
        let text = error.to_string();
        match error.classify() {
            serde_json::error::Category::Data => {
                StrictFault { message: format!("the message is refused: {text}"), syntax: false }
            }
            _ if text.contains("recursion limit") => StrictFault {
                message: format!("the message is refused: nested deeper than {} levels", limits.depth),
                syntax: false,
            },
            _ => StrictFault { message: format!("the message is not valid JSON: {text}"), syntax: true },
        }
    })
}

/// [`check_strict`] for text.
pub fn check_strict_str(text: &str, limits: StrictLimits) -> Result<(), StrictFault> {
    check_strict(text.as_bytes(), limits)
}

struct Walk {
    limits: StrictLimits,
    depth: usize,
}

impl Walk {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth >= self.limits.depth {
            return Err(E::custom(format!("nested deeper than {} levels", self.limits.depth)));
        }
        Ok(Self { limits: self.limits, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            if seq.next_element_seed(self.deeper()?)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: Vec<String> = Vec::with_capacity(8);
        let mut folded = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.len() >= self.limits.members {
                return Err(A::Error::custom(format!("an object has more than {} members", self.limits.members)));
            }
            let clash = if seen.len() < 16 {
                seen.iter().any(|other| other.eq_ignore_ascii_case(&key))
            } else {
                if folded.is_empty() {
                    folded.extend(seen.iter().map(|k| k.to_ascii_lowercase()));
                }
                !folded.insert(key.to_ascii_lowercase())
            };
            if clash {
                let shown = cut::quoted(&key, 64);
                let exact = seen.contains(&key);
                let what =
                    if exact { "appears twice in one object" } else { "appears in two spellings that differ only in case" };
                return Err(A::Error::custom(format!("the key '{shown}' {what}")));
            }
            seen.push(key);
            map.next_value_seed(self.deeper()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> StrictFault {
        check_strict_str(text, StrictLimits::default()).expect_err(text)
    }

    #[test]
    fn good_messages_pass() {
        for text in [r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "[1,2,{}]", "null", r#"{"a":{"b":[1,2]},"c":"\ud83d\ude00"}"#]
        {
            check_strict_str(text, StrictLimits::default()).expect(text);
        }
    }

    #[test]
    fn what_two_parsers_read_differently_is_refused() {
        assert!(refused(r#"{"a":1,"a":2}"#).to_string().contains("'a' appears twice"));
        assert!(refused(r#"{"x":{"method":1,"Method":2}}"#).to_string().contains("differ only in case"));
        assert!(refused(r#"{"a":1,"\u0061":2}"#).to_string().contains("twice"));
        assert!(!refused(r#"{"a":1,"a":2}"#).is_syntax());
        for text in [r#"{"a":"\ud800"}"#, r#"{"a":"\udc00x"}"#, "{} {}", "{", "", "{'a':1}", "{\"a\":NaN}", "\u{feff}{}"] {
            assert!(refused(text).is_syntax(), "{text}");
        }
        assert!(check_strict(b"{\"a\":\"\xff\"}", StrictLimits::default()).is_err());
    }

    #[test]
    fn depth_and_width_are_bounded() {
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        assert!(refused(&deep).to_string().contains("deeper than 32"));
        let abyss = "[".repeat(1_000_000);
        assert!(refused(&abyss).to_string().contains("deeper than 32"));
        let wide = format!("{{{}}}", (0..3_000).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(","));
        assert!(refused(&wide).to_string().contains("more than 2000 members"));
        let many = format!("{{{},\"K3\":1}}", (0..100).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(","));
        assert!(refused(&many).to_string().contains("differ only in case"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = check_strict(&bytes, StrictLimits::default());
        }
    }
}

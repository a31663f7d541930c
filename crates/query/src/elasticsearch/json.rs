//! Reads JSON strictly. Guards that our reading is the backend's: a member given twice, which readers resolve differently,
//! is an error, and so is nesting beyond the limit.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::QueryError;
use crate::error::{Language, shown};
use crate::scan::MAX_NESTING;

/// Longest search body, in bytes; JSON says in many bytes what other languages say in few.
pub(crate) const MAX_SEARCH_BYTES: usize = 32 * 1024;

/// A value without members given twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the member '{}' is given twice", shown(&name))));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Reads an object.
pub(crate) fn read(raw: &str) -> Result<Map<String, Value>, QueryError> {
    let wrong = |message: String| QueryError::Syntax { language: Language::Elasticsearch, message, position: None };
    // The reader itself stops at 128 levels, so that nothing recurses further than that.
    let Strict(value) = serde_json::from_str(raw).map_err(|error| wrong(error.to_string()))?;
    if depth(&value) > MAX_NESTING {
        return Err(wrong(format!("more than {MAX_NESTING} levels of brackets; split the question")));
    }
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(wrong("a search is an object such as {\"query\": {\"match\": {\"message\": \"timeout\"}}}".to_owned())),
    }
}

fn depth(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

//! Arguments as a person types them, read as a client sends them: by the schema of the tool they are for. `id=1` is the text
//! "1" where the tool takes text, and a number where it takes one. Must not judge whether they fit: that is the gate's work.

use std::collections::BTreeSet;

use anyhow::bail;
use portcullis_guard::ArgumentSchema;
use portcullis_model::ToolSpec;
use serde_json::{Map, Value};

/// Keywords of a schema that speak of several arguments at once: one alone would not fit them.
const TOGETHER: [&str; 13] = [
    "required",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "minProperties",
    "propertyNames",
    "unevaluatedProperties",
];

/// Names and values out of `key=value`, each name once.
pub fn pairs(given: &[String]) -> anyhow::Result<Vec<(&str, &str)>> {
    let (mut pairs, mut names) = (Vec::with_capacity(given.len()), BTreeSet::new());
    for pair in given {
        let Some((name, text)) = pair.split_once('=') else {
            bail!("'{pair}' is not an argument; write key=value, such as service=checkout");
        };
        if !names.insert(name) {
            bail!("the argument '{name}' is given twice");
        }
        pairs.push((name, text));
    }
    Ok(pairs)
}

/// The arguments as JSON. Where nothing is known of the tool, what is JSON is taken as JSON and everything else as text.
pub fn typed(pairs: &[(&str, &str)], tool: Option<&ToolSpec>) -> Map<String, Value> {
    let types = Types { tool, alone: tool.and_then(alone) };
    pairs.iter().map(|(name, text)| ((*name).to_owned(), types.read(name, text))).collect()
}

/// The schema of a tool, for one argument at a time.
fn alone(tool: &ToolSpec) -> Option<ArgumentSchema> {
    let mut schema = tool.input_schema.as_object()?.clone();
    schema.retain(|keyword, _| !TOGETHER.contains(&keyword.as_str()));
    schema.insert("additionalProperties".to_owned(), Value::Bool(true));
    ArgumentSchema::compile(tool.name.as_str(), &Value::Object(schema)).ok()
}

struct Types<'t> {
    tool: Option<&'t ToolSpec>,
    alone: Option<ArgumentSchema>,
}

impl Types<'_> {
    fn read(&self, name: &str, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        let Ok(json) = serde_json::from_str::<Value>(text) else { return as_text() };
        match self.declared(name) {
            Some(types) if types.iter().any(|word| is_of(&json, word)) => json,
            Some(types) if types.contains(&"string") => as_text(),
            // It fits neither way, and the gate says why.
            Some(_) => json,
            None if self.fits(name, &json) || !self.fits(name, &as_text()) => json,
            None => as_text(),
        }
    }

    /// The types an argument is said to have, in the words of JSON Schema.
    fn declared(&self, name: &str) -> Option<Vec<&str>> {
        match self.tool?.input_schema.get("properties")?.get(name)?.get("type")? {
            Value::String(word) => Some(vec![word.as_str()]),
            Value::Array(words) => Some(words.iter().filter_map(Value::as_str).collect()),
            _ => None,
        }
    }

    fn fits(&self, name: &str, value: &Value) -> bool {
        let one = || Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
        self.alone.as_ref().is_none_or(|schema| schema.check_shape(&one()).is_ok())
    }
}

/// Whether a value is of a type of JSON Schema; a fraction of zero is a whole number.
fn is_of(value: &Value, word: &str) -> bool {
    match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_model::{RiskClass, ToolName};
    use serde_json::json;

    use super::*;

    fn tool(schema: Value) -> ToolSpec {
        ToolSpec {
            name: ToolName::new("look").unwrap(),
            title: "Look".into(),
            description: "Looks.".into(),
            risk: RiskClass::Read,
            idempotent: true,
            open_world: false,
            category: None,
            input_schema: Arc::new(schema),
            output_schema: None,
            completions: Vec::new(),
            shown: None,
        }
    }

    #[test]
    fn without_a_schema_arguments_are_json_where_they_can_be() {
        let given = ["service=cart", "limit=5", "points=true", "labels={\"a\":\"b\"}", "filter=a=b"].map(str::to_owned);
        let map = typed(&pairs(&given).unwrap(), None);
        assert_eq!(
            Value::Object(map),
            json!({"service": "cart", "limit": 5, "points": true, "labels": {"a": "b"}, "filter": "a=b"})
        );
        assert!(pairs(&["nonsense".to_owned()]).is_err());
        assert!(pairs(&["a=1".to_owned(), "a=2".to_owned()]).is_err());
    }

    #[test]
    fn the_schema_of_the_tool_says_what_a_value_is() {
        let tool = tool(json!({
            "type": "object",
            "required": ["id", "count"],
            "$defs": {"word": {"type": "string", "maxLength": 3}, "few": {"enum": [1, 2]}},
            "anyOf": [{"required": ["id"]}, {"required": ["count"]}],
            "properties": {
                "id": {"type": "string"}, "count": {"type": "integer"}, "ratio": {"type": "number"}, "on": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}}, "about": {"type": "object"},
                "maybe": {"type": ["string", "null"]}, "either": {"type": ["string", "integer"], "maximum": 5},
                "word": {"$ref": "#/$defs/word"}, "few": {"$ref": "#/$defs/few"}, "choice": {"enum": ["1", "two"]},
                "mixed": {"anyOf": [{"type": "boolean"}, {"type": "string"}]}, "any": {}
            }
        }));
        for (pair, value) in [
            ("id=1", json!("1")),
            ("id=1.50", json!("1.50")),
            ("id=true", json!("true")),
            ("id=null", json!("null")),
            ("id=[1]", json!("[1]")),
            ("id=007", json!("007")),
            ("id=\"1\"", json!("1")),
            ("id=12345678901234567890123", json!("12345678901234567890123")),
            ("count=1", json!(1)),
            ("count=2.0", json!(2.0)),
            ("count=2.5", json!(2.5)),
            ("count=\"1\"", json!("1")),
            ("count=x", json!("x")),
            ("ratio=1", json!(1)),
            ("ratio=0.5", json!(0.5)),
            ("on=true", json!(true)),
            ("on=yes", json!("yes")),
            ("on=1", json!(1)),
            ("tags=[\"a\"]", json!(["a"])),
            ("tags=a", json!("a")),
            ("about={\"a\":1}", json!({"a": 1})),
            ("maybe=null", json!(null)),
            ("maybe=1", json!("1")),
            // What is refused as a number is not made a text to get through.
            ("either=9", json!(9)),
            ("word=1", json!("1")),
            ("word=1234", json!(1234)),
            ("few=1", json!(1)),
            ("choice=1", json!("1")),
            ("choice=two", json!("two")),
            ("mixed=true", json!(true)),
            ("mixed=1", json!("1")),
            ("any=1", json!(1)),
            ("unknown=1", json!(1)),
        ] {
            let given = [pair.to_owned()];
            let read = typed(&pairs(&given).unwrap(), Some(&tool));
            assert_eq!(read.values().collect::<Vec<_>>(), [&value], "{pair}");
        }
    }
}

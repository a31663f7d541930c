//! The Cedar schemas policies are checked against, generated from what exists: one for each tool, in which `call` carries
//! that tool's arguments, one each for reading, prompts and operations. Strict, so that a misspelt argument is an error at load.
//!
//! Must not decide anything.

use cedar_policy::Schema;
use serde_json::{Map, Value, json};

use crate::arguments::{ArgumentKind, ToolShape};

/// The actions there are.
pub(crate) const ACTIONS: [&str; 4] = ["call", "read", "prompt", "administer"];

/// The schema of one action. `tool` is the shape of the tool for `call`.
pub(crate) fn schema(action: &str, tool: Option<&ToolShape>) -> Result<Schema, String> {
    let target = match action {
        "read" => "Resource",
        "prompt" => "Prompt",
        "administer" => "Operation",
        _ => "Tool",
    };
    let context = context(tool);
    let actions =
        json!({ action: {"appliesTo": {"principalTypes": ["Principal"], "resourceTypes": [target], "context": context}}});
    build(&actions)
}

/// The schema of all actions, for rules that do not ask for the context.
pub(crate) fn general() -> Result<Schema, String> {
    let one = |target: &str| json!({"appliesTo": {"principalTypes": ["Principal"], "resourceTypes": [target], "context": context(None)}});
    build(&json!({"call": one("Tool"), "read": one("Resource"), "prompt": one("Prompt"), "administer": one("Operation")}))
}

fn build(actions: &Value) -> Result<Schema, String> {
    let text = || json!({"type": "String"});
    let target = |parents: &[&str]| json!({"memberOfTypes": parents, "shape": {"type": "Record", "attributes": {"risk": text(), "category": text(), "name": text()}}});
    let schema = json!({"Portcullis": {
        "entityTypes": {
            "Role": {},
            "Product": {},
            "Principal": {"memberOfTypes": ["Role"], "shape": {"type": "Record", "attributes": {"kind": text(), "tenant": text()}}},
            "Tool": target(&["Product"]),
            "Resource": target(&[]),
            "Prompt": target(&[]),
            "Operation": target(&[]),
        },
        "actions": actions,
    }});
    Schema::from_json_value(schema).map_err(|e| e.to_string())
}

fn context(tool: Option<&ToolShape>) -> Value {
    let mut attributes = Map::new();
    attributes.insert("now".into(), json!({"type": "Extension", "name": "datetime"}));
    attributes.insert("hour".into(), json!({"type": "Long"}));
    attributes.insert("weekday".into(), json!({"type": "String"}));
    if let Some(shape) = tool {
        attributes.insert("arguments".into(), arguments(shape));
        if shape.looks_back {
            attributes.insert("look_back_seconds".into(), json!({"type": "Long"}));
        }
        if shape.asks_sources {
            attributes.insert("sources".into(), json!({"type": "Set", "element": {"type": "String"}}));
        }
    }
    json!({"type": "Record", "attributes": attributes})
}

fn arguments(shape: &ToolShape) -> Value {
    let fields: Map<String, Value> = shape
        .arguments
        .iter()
        .map(|(name, argument)| {
            let mut field = match argument.kind {
                ArgumentKind::Text => json!({"type": "String"}),
                ArgumentKind::Integer => json!({"type": "Long"}),
                ArgumentKind::Flag => json!({"type": "Boolean"}),
                ArgumentKind::Texts => json!({"type": "Set", "element": {"type": "String"}}),
                ArgumentKind::Integers => json!({"type": "Set", "element": {"type": "Long"}}),
                ArgumentKind::Opaque => json!({"type": "Record", "attributes": {}}),
            };
            if let (false, Some(object)) = (argument.always, field.as_object_mut()) {
                object.insert("required".into(), json!(false));
            }
            (name.clone(), field)
        })
        .collect();
    json!({"type": "Record", "attributes": fields})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tool_with;

    #[test]
    fn every_schema_is_one() {
        general().unwrap();
        schema("read", None).unwrap();
        let spec =
            tool_with("x", &json!({"a b": {"type": "string"}, "\"q\"": {"type": "integer"}, "o": {"type": "object"}}), &[]);
        schema("call", Some(&ToolShape::of(&spec, true))).unwrap();
    }
}

//! What the catalogue says of itself: budget, golden file, schemas that hold.

use portcullis_guard::{ArgumentSchema, without_kinds};
use serde_json::{Value, json};

use crate::support::{house, tokens};

/// A tool as `tools/list` shows it, without what a protocol era adds.
fn listed() -> Vec<Value> {
    let house = house(Vec::new());
    house
        .tools
        .iter()
        .map(|tool| {
            let spec = tool.spec();
            json!({
                "name": spec.name,
                "title": spec.title,
                "description": spec.description,
                "inputSchema": without_kinds(&spec.input_schema),
                "outputSchema": **spec.output_schema.as_ref().unwrap(),
                "annotations": {
                    "readOnlyHint": spec.risk == portcullis_model::RiskClass::Read,
                    "destructiveHint": spec.risk == portcullis_model::RiskClass::Destructive,
                    "idempotentHint": spec.idempotent,
                    "openWorldHint": spec.open_world,
                },
            })
        })
        .collect()
}

#[test]
fn the_whole_list_costs_at_most_4000_tokens() {
    let tools = listed();
    assert!((11..=16).contains(&tools.len()), "{} tools", tools.len());
    for tool in &tools {
        println!("{:>5} {}", tokens(&tool.to_string()), tool["name"]);
    }
    let all = tokens(&json!({ "tools": tools }).to_string());
    println!("{all:>5} tokens in all");
    assert!(all <= 4_000, "{all} tokens");
}

#[test]
fn the_list_is_the_golden_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tools_list.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&json!({ "tools": listed() })).unwrap());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == now, "tools/list changed; look at the difference and run with UPDATE_GOLDEN=1");
}

#[test]
fn every_schema_is_valid_and_closed() {
    for tool in listed() {
        let (name, schema) = (&tool["name"], &tool["inputSchema"]);
        assert_eq!(schema["type"], "object", "{name}");
        assert_eq!(schema["additionalProperties"], false, "{name}");
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        assert!(jsonschema::draft202012::meta::is_valid(&tool["outputSchema"]), "{name}");
        let properties = schema["properties"].as_object().unwrap();
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(properties.contains_key(required.as_str().unwrap()), "{name} requires {required}");
        }
        for forbidden in ["oneOf", "anyOf", "allOf"] {
            assert!(schema.get(forbidden).is_none(), "{name}: clients refuse a top-level {forbidden}");
        }
        let validator = jsonschema::validator_for(schema).unwrap();
        assert!(!validator.is_valid(&json!({"no_such_argument": 1})), "{name}");
    }
}

#[test]
fn defaults_fit_their_own_schema() {
    for tool in listed() {
        for (argument, schema) in tool["inputSchema"]["properties"].as_object().unwrap() {
            if let Some(default) = schema.get("default") {
                assert!(jsonschema::validator_for(schema).unwrap().is_valid(default), "{} {argument}", tool["name"]);
            }
        }
    }
}

#[test]
fn completions_name_arguments_that_exist() {
    for tool in &house(Vec::new()).tools {
        let spec = tool.spec();
        for (argument, _) in &spec.completions {
            assert!(spec.input_schema["properties"].get(&**argument).is_some(), "{} {argument}", spec.name);
        }
    }
}

#[test]
fn texts_are_checked_by_what_they_are() {
    let mut named = std::collections::BTreeSet::new();
    for tool in &house(Vec::new()).tools {
        let spec = tool.spec();
        let checked = ArgumentSchema::compile(spec.name.as_str(), &spec.input_schema).unwrap();
        for (argument, property) in spec.input_schema["properties"].as_object().unwrap() {
            let Some(kind) = property.get("x-portcullis-kind").and_then(Value::as_str) else { continue };
            named.insert(kind.to_owned());
            // Honest queries and patterns pass; a line break in a name does not, nor a hidden character anywhere.
            let ask = |text: &str| {
                let value = match property["type"].as_str() {
                    Some("array") => json!([text]),
                    Some("object") => json!({"http.route": text}),
                    _ => json!(text),
                };
                checked.sanitize(&json!({ argument.as_str(): value })).is_ok()
            };
            assert!(ask("sum(rate(x{a=~\"b|c\"}[5m])) > 1 -- it's; <b>"), "{} {argument}", spec.name);
            assert!(!ask("a\u{202e}b"), "{} {argument}", spec.name);
            assert_eq!(ask("a\nb"), kind != "name", "{} {argument}", spec.name);
        }
    }
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["filter_value", "name", "query"]);
}

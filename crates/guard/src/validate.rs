//! Arguments against the tool's schema. Unknown arguments are refused, and the error says what would be right.

use jsonschema::Validator;
use portcullis_model::Fault;
use serde_json::{Map, Value};

/// A tool schema that cannot be used: whoever registers the tool must fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the input schema of tool '{tool}' is not usable: {reason}")]
pub struct SchemaFault {
    tool: String,
    reason: String,
}

/// A compiled input schema.
#[derive(Debug)]
pub struct ArgumentSchema {
    validator: Validator,
    properties: Vec<String>,
}

impl ArgumentSchema {
    /// Compiles `schema` (draft 2020-12, an object schema). Where it does not speak about further properties,
    /// they are refused. Remote references are never followed.
    ///
    /// # Errors
    /// When it is not an object schema, or refers to something outside of itself.
    pub fn compile(tool: &str, schema: &Value) -> Result<Self, SchemaFault> {
        let fault = |reason: String| SchemaFault { tool: tool.to_owned(), reason };
        let mut closed: Map<String, Value> =
            schema.as_object().cloned().ok_or_else(|| fault("it must be a JSON object".into()))?;
        if closed.get("type").and_then(Value::as_str) != Some("object") {
            return Err(fault("its type must be \"object\"".into()));
        }
        let speaks = ["additionalProperties", "unevaluatedProperties"].iter().any(|k| closed.contains_key(*k));
        let composed = ["allOf", "anyOf", "oneOf", "if", "$ref", "dependentSchemas"].iter().any(|k| closed.contains_key(*k));
        if !speaks {
            let keyword = if composed { "unevaluatedProperties" } else { "additionalProperties" };
            closed.insert(keyword.into(), Value::Bool(false));
        }
        let properties =
            closed.get("properties").and_then(Value::as_object).map(|p| p.keys().cloned().collect()).unwrap_or_default();
        let validator = jsonschema::draft202012::options().build(&Value::Object(closed)).map_err(|e| fault(e.to_string()))?;
        Ok(Self { validator, properties })
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// [`FaultCode::InvalidArgument`](portcullis_model::FaultCode) naming up to three problems, each with its place.
    pub fn check(&self, arguments: &Value) -> Result<(), Fault> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        let mut problems: Vec<String> = self
            .validator
            .iter_errors(arguments)
            .take(3)
            .map(|error| {
                let path = error.instance_path().to_string();
                let place = if path.is_empty() { String::new() } else { format!("{}: ", path.trim_start_matches('/')) };
                let text: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
                format!("{place}{text}")
            })
            .collect();
        problems.dedup();
        let fault = Fault::invalid(problems.join("; "));
        Err(if self.properties.is_empty() {
            fault.with_hint("this tool takes no arguments")
        } else {
            fault.with_hint(format!("arguments are: {}", self.properties.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> ArgumentSchema {
        ArgumentSchema::compile(
            "t",
            &json!({"type": "object", "properties": {"service": {"type": "string", "minLength": 1}, "limit": {"type": "integer", "minimum": 1, "maximum": 100}}, "required": ["service"]}),
        )
        .unwrap()
    }

    #[test]
    fn good_arguments_pass_and_bad_ones_say_why() {
        schema().check(&json!({"service": "cart", "limit": 5})).unwrap();
        for (bad, word) in [
            (json!({}), "service"),
            (json!({"service": 5}), "service"),
            (json!({"service": "x", "limit": 101}), "100"),
            (json!({"service": "x", "limit": "5"}), "limit"),
            (json!({"service": "x", "limt": 5}), "limt"),
        ] {
            let fault = schema().check(&bad).unwrap_err();
            assert!(fault.message().contains(word), "{}", fault.message());
            assert!(fault.hint().unwrap().contains("service, limit"));
        }
    }

    #[test]
    fn composed_schemas_stay_closed() {
        let schema = ArgumentSchema::compile(
            "t",
            &json!({"type": "object", "$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}},
                    "allOf": [{"properties": {"b": {"type": "string"}}}]}),
        )
        .unwrap();
        schema.check(&json!({"a": 1, "b": "x"})).unwrap();
        assert!(schema.check(&json!({"c": 1})).is_err());
    }

    #[test]
    fn remote_references_are_refused() {
        let remote = json!({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}});
        assert!(ArgumentSchema::compile("t", &remote).is_err());
        assert!(ArgumentSchema::compile("t", &json!(true)).is_err());
        assert!(ArgumentSchema::compile("t", &json!({"type": "string"})).is_err());
    }
}

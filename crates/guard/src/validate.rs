//! Arguments against the tool's schema, and their texts against the rules of their kind. Unknown arguments are refused, and
//! the error says what would be right.

use std::borrow::Cow;

use jsonschema::Validator;
use portcullis_model::{Fault, cut};
use serde_json::{Map, Value};

use crate::{Sanitizer, TextKind};

/// Keyword of a property that says what its text is.
const KIND: &str = "x-portcullis-kind";

/// Keyword of the property `compare`: how many windows its default reads before the one asked for. For the rules.
const BASELINE: &str = "x-portcullis-baseline";

/// Keyword of a property that says by itself how far back is read. For the rules.
const REACHES: &str = "x-portcullis-reaches";

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
    /// What texts are, by the name of the argument.
    kinds: Map<String, Value>,
    sanitizer: Sanitizer,
}

/// A schema as clients see it: without `x-portcullis-kind`, `x-portcullis-baseline` and `x-portcullis-reaches`, which are for the
/// gate and would be paid for in every conversation. Looked for where [`ArgumentSchema::compile`] reads it.
pub fn without_kinds(schema: &Value) -> Map<String, Value> {
    let mut shown = schema.as_object().cloned().unwrap_or_default();
    for property in shown.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(|p| p.values_mut()) {
        let Some(property) = property.as_object_mut() else { continue };
        property.shift_remove(KIND);
        property.shift_remove(BASELINE);
        property.shift_remove(REACHES);
        if let Some(items) = property.get_mut("items").and_then(Value::as_object_mut) {
            items.shift_remove(KIND);
        }
    }
    shown
}

/// What the texts of a property are, where its schema says so.
fn kind_of(property: &Value) -> Option<Value> {
    let is_url = || property.get("format").and_then(Value::as_str) == Some("uri");
    property.get(KIND).cloned().or_else(|| is_url().then(|| Value::from(TextKind::Url.as_str())))
}

impl ArgumentSchema {
    /// As [`ArgumentSchema::compile_with`], with the default rules for texts.
    ///
    /// # Errors
    /// As [`ArgumentSchema::compile_with`].
    pub fn compile(tool: &str, schema: &Value) -> Result<Self, SchemaFault> {
        Self::compile_with(tool, schema, Sanitizer::default())
    }

    /// Compiles `schema` (draft 2020-12, an object schema). A property's `x-portcullis-kind` says what its texts are
    /// ([`TextKind`]); without it what has the format `uri` is a URL and everything else free text. Where it does not speak
    /// about further properties, they are refused. Remote references are never followed.
    ///
    /// # Errors
    /// When it is not an object schema, refers to something outside of itself, or names a kind that does not exist.
    pub fn compile_with(tool: &str, schema: &Value, sanitizer: Sanitizer) -> Result<Self, SchemaFault> {
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
        let described = closed.get("properties").and_then(Value::as_object);
        let properties = described.map(|p| p.keys().cloned().collect()).unwrap_or_default();
        let mut kinds = Map::new();
        for (name, property) in described.into_iter().flatten() {
            let Some(kind) = kind_of(property).or_else(|| kind_of(property.get("items")?)) else { continue };
            if kind.as_str().and_then(TextKind::parse).is_none() {
                return Err(fault(format!("{KIND} of '{name}' is {kind}, which is no kind of text")));
            }
            kinds.insert(name.clone(), kind);
        }
        let validator = jsonschema::draft202012::options().build(&Value::Object(closed)).map_err(|e| fault(e.to_string()))?;
        Ok(Self { validator, properties, kinds, sanitizer })
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// [`FaultCode::InvalidArgument`](portcullis_model::FaultCode) naming up to three problems, each with its place.
    pub fn check(&self, arguments: &Value) -> Result<(), Fault> {
        self.accept(arguments).map(drop)
    }

    /// Checks the shape of arguments, and not their texts: for a call whose texts are another tool's, and are checked there.
    ///
    /// # Errors
    /// As [`ArgumentSchema::check`].
    pub fn check_shape(&self, arguments: &Value) -> Result<(), Fault> {
        self.check_schema(arguments)
    }

    /// Checks arguments, and gives them back as a tool may have them: stripped where a rule says so.
    ///
    /// # Errors
    /// As [`ArgumentSchema::check`].
    pub fn accept<'v>(&self, arguments: &'v Value) -> Result<Cow<'v, Value>, Fault> {
        self.check_schema(arguments)?;
        let clean = self.sanitize(arguments)?;
        if let Cow::Owned(clean) = &clean {
            // A text without what was taken out may be too short, another word than the schema allows, or no text at all.
            self.check_schema(clean)?;
        }
        Ok(clean)
    }

    /// Checks the texts of arguments by their kinds, and gives the arguments back, stripped where a rule says so.
    ///
    /// # Errors
    /// [`FaultCode::InvalidArgument`](portcullis_model::FaultCode) naming the argument, what is wrong and what would be right.
    pub fn sanitize<'v>(&self, arguments: &'v Value) -> Result<Cow<'v, Value>, Fault> {
        let Some(members) = arguments.as_object() else { return Ok(Cow::Borrowed(arguments)) };
        let mut clean: Option<Value> = None;
        for (name, member) in members {
            let kind = self.kinds.get(name).and_then(Value::as_str).and_then(TextKind::parse).unwrap_or(TextKind::FreeText);
            let mut stripped = Cow::Borrowed(member);
            self.texts(kind, &mut stripped, 0).map_err(|fault| named(name, &fault))?;
            if let Cow::Owned(stripped) = stripped
                && let Some(place) = clean.get_or_insert_with(|| arguments.clone()).get_mut(name)
            {
                *place = stripped;
            }
        }
        Ok(clean.map_or(Cow::Borrowed(arguments), Cow::Owned))
    }

    /// Checks every string inside one argument.
    fn texts(&self, kind: TextKind, value: &mut Cow<'_, Value>, depth: usize) -> Result<(), Fault> {
        match value.as_ref() {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.sanitizer.check(kind, text)? {
                    *value = Cow::Owned(Value::String(clean));
                }
            }
            Value::Array(items) if depth < MAX_DEPTH => {
                for index in 0..items.len() {
                    let mut item: Cow<'_, Value> = Cow::Owned(value.get(index).cloned().unwrap_or_default());
                    let before = item.clone();
                    self.texts(kind, &mut item, depth + 1)?;
                    if item != before
                        && let Some(place) = value.to_mut().get_mut(index)
                    {
                        *place = item.into_owned();
                    }
                }
            }
            Value::Object(members) if depth < MAX_DEPTH => {
                let names: Vec<String> = members.keys().cloned().collect();
                for name in names {
                    if let Cow::Owned(clean) = self.sanitizer.check(TextKind::FreeText, &name)? {
                        renamed(value.to_mut(), &name, &clean)?;
                        let mut item: Cow<'_, Value> = Cow::Owned(value.get(&clean).cloned().unwrap_or_default());
                        self.texts(kind, &mut item, depth + 1)?;
                        if let Some(place) = value.to_mut().get_mut(&clean) {
                            *place = item.into_owned();
                        }
                        continue;
                    }
                    let mut item: Cow<'_, Value> = Cow::Owned(value.get(&name).cloned().unwrap_or_default());
                    let before = item.clone();
                    self.texts(kind, &mut item, depth + 1)?;
                    if item != before
                        && let Some(place) = value.to_mut().get_mut(&name)
                    {
                        *place = item.into_owned();
                    }
                }
            }
            Value::Array(_) | Value::Object(_) => return Err(Fault::invalid(format!("nested deeper than {MAX_DEPTH} levels"))),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    fn check_schema(&self, arguments: &Value) -> Result<(), Fault> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        let mut problems: Vec<String> = self
            .validator
            .iter_errors(arguments)
            .take(3)
            .map(|error| {
                let path = error.instance_path().to_string();
                let place = path.trim_start_matches('/');
                let place = if place.is_empty() { String::new() } else { format!("{}: ", cut::quoted(place, PLACE)) };
                // What is wrong stands behind the value: a long one, which the caller knows, is left out.
                let said = error.to_string();
                let said = if said.len() > PROBLEM { error.masked_with("the value").to_string() } else { said };
                format!("{place}{}", cut::quoted(&said, PROBLEM))
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

/// Characters of what is wrong with one argument, and of where that is.
const PROBLEM: usize = 300;
const PLACE: usize = 200;

/// Deepest nesting of arguments whose texts are checked; the strict reader of messages allows no more.
const MAX_DEPTH: usize = 32;

/// Gives a member of an object its clean name. Two members that would have the same one are refused: which of them was
/// meant nobody can say.
fn renamed(object: &mut Value, name: &str, clean: &str) -> Result<(), Fault> {
    let Some(members) = object.as_object_mut() else { return Ok(()) };
    if members.contains_key(clean) {
        let shown = cut::quoted(clean, PLACE);
        return Err(Fault::invalid(format!("two members are called '{shown}' without characters that nobody sees"))
            .with_hint("remove invisible and control characters from the names"));
    }
    let renamed = std::mem::take(members).into_iter();
    *members = renamed.map(|(key, value)| if key == name { (clean.to_owned(), value) } else { (key, value) }).collect();
    Ok(())
}

fn named(argument: &str, fault: &Fault) -> Fault {
    let named = Fault::invalid(format!("{argument}: {}", fault.message()));
    match fault.hint() {
        Some(hint) => named.with_hint(hint),
        None => named,
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
    fn what_is_repeated_of_arguments_is_short_and_has_no_part_of_a_secret() {
        let token = "16C7e42F292c6912E7710c838347Ae178B4a";
        for filling in [0, 200, 260, 290, 100_000] {
            let value = format!("{} {token}", "a".repeat(filling));
            for bad in [json!({"service": "x", "limit": value}), json!({"service": "x", value: 1})] {
                let said = schema().check(&bad).unwrap_err().message().to_owned();
                assert!(said.chars().count() < 520 && !said.chars().any(char::is_control), "{said}");
                assert!(said.contains(token) || !said.contains(&token[..6]), "{said}");
                assert!(said.starts_with("limit: ") || said.contains("not allowed"), "{said}");
            }
        }
        let long = schema().check(&json!({"service": "x", "limit": "a".repeat(1_000)})).unwrap_err();
        assert_eq!(long.message(), "limit: the value is not of type \"integer\"");
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

    #[test]
    fn texts_are_checked_by_their_kind() {
        let described = json!({"type": "object", "properties": {
            "url": {"type": "string", "x-portcullis-kind": "url"},
            "matchers": {"type": "array", "items": {"type": "string", "x-portcullis-kind": "filter_value"}},
            "note": {"type": "string"}, "deep": {"type": "object"}}});
        let schema = ArgumentSchema::compile("t", &described).unwrap();
        schema.check(&json!({"url": "https://a/b", "matchers": ["a=~\".*\""], "note": "x; y -- 'z'"})).unwrap();
        for (bad, word) in [
            (json!({"url": "file:///etc/passwd"}), "url: this URL scheme"),
            (json!({"note": "a\u{202e}b"}), "note: a text must not hold the character U+202E"),
            (json!({"matchers": ["ok", "a\u{0}"]}), "matchers: a filter value must not hold the character U+0000"),
            (json!({"deep": {"a": [{"b": "\u{e0041}"}]}}), "deep: "),
        ] {
            let fault = schema.check(&bad).unwrap_err();
            assert!(fault.message().contains(word), "{}", fault.message());
        }
        let strange = json!({"type": "object", "properties": {"a": {"type": "string", "x-portcullis-kind": "sql"}}});
        assert!(ArgumentSchema::compile("t", &strange).unwrap_err().to_string().contains("no kind of text"));
    }

    #[test]
    fn stripping_gives_back_clean_arguments() {
        let settings = crate::SanitizeSettings {
            free_text: crate::TextRule { mode: crate::SanitizeMode::Strip, ..crate::TextRule::default() },
            ..crate::SanitizeSettings::default()
        };
        let schema = ArgumentSchema::compile_with(
            "t",
            &json!({"type": "object", "additionalProperties": true}),
            Sanitizer::new(settings).unwrap(),
        )
        .unwrap();
        let given = json!({"a": "x\u{200b}y", "b": [{"c": "\u{7}z"}], "n": 1});
        assert_eq!(*schema.sanitize(&given).unwrap(), json!({"a": "xy", "b": [{"c": "z"}], "n": 1}));
        let fine = json!({"a": "xy"});
        assert!(matches!(schema.sanitize(&fine).unwrap(), Cow::Borrowed(_)));
    }

    fn stripping(schema: &Value) -> ArgumentSchema {
        let settings = crate::SanitizeSettings {
            free_text: crate::TextRule { mode: crate::SanitizeMode::Strip, ..crate::TextRule::default() },
            ..crate::SanitizeSettings::default()
        };
        ArgumentSchema::compile_with("t", schema, Sanitizer::new(settings).unwrap()).unwrap()
    }

    #[test]
    fn what_is_left_after_stripping_is_held_against_the_schema() {
        let schema = stripping(&json!({"type": "object", "properties": {
            "service": {"type": "string", "minLength": 1}, "level": {"type": "string", "pattern": "^.?.?(info|error)$"},
            "labels": {"type": "object", "propertyNames": {"minLength": 1}}}}));
        for bad in [json!({"service": "\u{200b}"}), json!({"labels": {"\u{200b}": "x"}})] {
            assert!(schema.accept(&bad).is_err(), "{bad}");
            assert!(schema.check(&bad).is_err(), "{bad}");
        }
        assert_eq!(*schema.accept(&json!({"service": "a\u{200b}"})).unwrap(), json!({"service": "a"}));
    }

    #[test]
    fn names_inside_objects_are_stripped_as_well() {
        let schema = stripping(&json!({"type": "object", "properties": {"labels": {"type": "object"}}}));
        let given = json!({"labels": {"a\u{200b}": "x\u{200b}", "b": {"\u{7}c": ["d\u{202e}"]}}});
        assert_eq!(*schema.accept(&given).unwrap(), json!({"labels": {"a": "x", "b": {"c": ["d"]}}}));
        let twice = json!({"labels": {"a": 1, "a\u{200b}": 2}});
        let fault = schema.accept(&twice).unwrap_err();
        assert!(fault.message().contains("labels: two members are called 'a'"), "{}", fault.message());
        let hidden_twice = json!({"labels": {"a\u{200c}": 1, "a\u{200b}": 2}});
        assert!(schema.accept(&hidden_twice).is_err());
    }
}

//! From the schemas of a description to JSON Schema 2020-12 of a tool: what a schema refers to becomes a `$defs` of the tool,
//! so that recursion stays what it is; the dialect of 3.0 is translated; what is only for readers of documentation is left
//! out.
//!
//! Guards that a tool's schema is closed in itself and bounded. Must not fetch anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::document::{Document, ReferenceError};
use crate::text::tidy;

/// Deepest nesting of one schema, references aside.
const DEEPEST: usize = 48;
/// Most definitions one tool may carry; beyond, nested objects are left open.
const MOST_DEFINITIONS: usize = 400;
/// Longest description of one property, in characters.
const DESCRIPTION: usize = 200;

/// Keywords that are kept as they are.
const PLAIN: &[&str] = &[
    "type",
    "enum",
    "const",
    "default",
    "multipleOf",
    "maximum",
    "minimum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "format",
];
/// Keywords with one schema.
const ONE: &[&str] = &[
    "items",
    "additionalProperties",
    "not",
    "contains",
    "propertyNames",
    "if",
    "then",
    "else",
    "unevaluatedProperties",
    "unevaluatedItems",
];
/// Keywords with a list of schemas.
const MANY: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords with schemas by name.
const NAMED: &[&str] = &["properties", "patternProperties", "dependentSchemas"];

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("its schemas are nested deeper than {DEEPEST} levels")]
    Deep,
    #[error("its schemas use $dynamicRef, which is not read")]
    Dynamic,
    #[error("its input schema is larger than {most} bytes (max_schema), also with nested objects left open")]
    Large { most: u64 },
}

/// The schemas of one description, each translated once.
#[derive(Debug)]
pub(crate) struct Schemas<'d> {
    document: &'d Document,
    /// Finished definitions, by name.
    definitions: BTreeMap<String, Value>,
    /// Definitions that are part of themselves.
    recursive: BTreeSet<String>,
    /// Definitions that cannot be used, and why.
    failed: BTreeMap<String, SchemaError>,
    /// Names, by reference.
    names: HashMap<String, String>,
    taken: HashSet<String>,
    waiting: Vec<(String, String)>,
}

impl<'d> Schemas<'d> {
    pub(crate) fn new(document: &'d Document) -> Self {
        Self {
            document,
            definitions: BTreeMap::new(),
            recursive: BTreeSet::new(),
            failed: BTreeMap::new(),
            names: HashMap::new(),
            taken: HashSet::new(),
            waiting: Vec::new(),
        }
    }

    /// Translates one schema, with everything it refers to.
    pub(crate) fn take(&mut self, schema: &Value) -> Result<Value, SchemaError> {
        let taken = self.translate(schema, 0);
        let mut fresh = Vec::new();
        while let Some((reference, name)) = self.waiting.pop() {
            let document = self.document;
            match document.target(&reference).map_err(SchemaError::from).and_then(|target| self.translate(target, 0)) {
                Ok(translated) => {
                    self.definitions.insert(name.clone(), translated);
                    fresh.push(name);
                }
                Err(error) => {
                    self.failed.insert(name, error);
                }
            }
        }
        for name in fresh {
            if self.reaches(&name, &name) {
                self.recursive.insert(name);
            }
        }
        let taken = taken?;
        let mut named = BTreeSet::new();
        references(&taken, &mut named);
        for name in self.reached(named).unwrap_or_default() {
            if let Some(error) = self.failed.get(&name) {
                return Err(error.clone());
            }
        }
        Ok(taken)
    }

    /// The definitions that are reached from some; `None` when they are more than a tool may carry.
    fn reached(&self, mut open: BTreeSet<String>) -> Option<BTreeSet<String>> {
        let mut reached = BTreeSet::new();
        while let Some(name) = open.pop_first() {
            if !reached.insert(name.clone()) {
                continue;
            }
            if reached.len() > MOST_DEFINITIONS {
                return None;
            }
            if let Some(definition) = self.definitions.get(&name) {
                let mut more = BTreeSet::new();
                references(definition, &mut more);
                open.extend(more.into_iter().filter(|name| !reached.contains(name)));
            }
        }
        Some(reached)
    }

    fn translate(&mut self, schema: &Value, depth: usize) -> Result<Value, SchemaError> {
        if depth > DEEPEST {
            return Err(SchemaError::Deep);
        }
        let Some(members) = schema.as_object() else {
            // Only `true` and `false` are schemas beside objects; anything else constrains nothing.
            return Ok(Value::Bool(schema != &Value::Bool(false)));
        };
        if members.contains_key("$dynamicRef") || members.contains_key("$recursiveRef") {
            return Err(SchemaError::Dynamic);
        }
        let mut out = Map::new();
        if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
            let name = self.name_of(reference)?;
            out.insert("$ref".into(), format!("#/$defs/{name}").into());
            if !self.document.is_modern() {
                return Ok(Value::Object(out));
            }
        }
        if let Some(text) =
            members.get("description").and_then(Value::as_str).map(|t| tidy(t, DESCRIPTION)).filter(|t| !t.is_empty())
        {
            out.insert("description".into(), text.into());
        }
        for keyword in PLAIN {
            if let Some(value) = members.get(*keyword) {
                out.insert((*keyword).to_owned(), value.clone());
            }
        }
        for keyword in ONE {
            if let Some(value) = members.get(*keyword) {
                out.insert((*keyword).to_owned(), self.translate(value, depth + 1)?);
            }
        }
        for keyword in MANY {
            if let Some(list) = members.get(*keyword).and_then(Value::as_array).filter(|list| !list.is_empty()) {
                let list: Result<Vec<Value>, _> = list.iter().map(|one| self.translate(one, depth + 1)).collect();
                out.insert((*keyword).to_owned(), Value::Array(list?));
            }
        }
        for keyword in NAMED {
            let Some(named) = members.get(*keyword).and_then(Value::as_object) else { continue };
            let mut translated = Map::new();
            for (name, one) in named {
                // What the server alone writes is no argument.
                if *keyword == "properties" && self.is_read_only(one) {
                    continue;
                }
                translated.insert(name.clone(), self.translate(one, depth + 1)?);
            }
            out.insert((*keyword).to_owned(), Value::Object(translated));
        }
        self.without_read_only(members, &mut out);
        if !self.document.is_modern() {
            modernise(members, &mut out);
        }
        Ok(Value::Object(out))
    }

    fn is_read_only(&self, schema: &Value) -> bool {
        let said = |value: &Value| value.get("readOnly") == Some(&Value::Bool(true));
        said(schema) || self.document.resolve(schema).is_ok_and(said)
    }

    fn without_read_only(&self, members: &Map<String, Value>, out: &mut Map<String, Value>) {
        let Some(properties) = members.get("properties").and_then(Value::as_object) else { return };
        let Some(Value::Array(required)) = out.get_mut("required") else { return };
        required.retain(|name| {
            let property = name.as_str().and_then(|name| properties.get(name));
            !property.is_some_and(|property| self.is_read_only(property))
        });
        if required.is_empty() {
            out.shift_remove("required");
        }
    }

    fn name_of(&mut self, reference: &str) -> Result<String, SchemaError> {
        if let Some(known) = self.names.get(reference) {
            return Ok(known.clone());
        }
        self.document.target(reference)?;
        let last = reference.rsplit('/').next().unwrap_or_default();
        let plain: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
        let plain = if plain.is_empty() { "schema".to_owned() } else { plain };
        let mut name = plain.clone();
        let mut number = 2;
        while !self.taken.insert(name.clone()) {
            name = format!("{plain}_{number}");
            number += 1;
        }
        self.names.insert(reference.to_owned(), name.clone());
        self.waiting.push((reference.to_owned(), name.clone()));
        Ok(name)
    }

    /// The definition a translated schema refers to, if that is all it does and the definition is not part of itself.
    fn definition_of(&self, schema: &Value) -> Option<&Value> {
        let members = schema.as_object()?;
        let name = members.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        let plain = members.keys().all(|key| matches!(key.as_str(), "$ref" | "description"));
        (plain && !self.recursive.contains(name)).then(|| self.definitions.get(name)).flatten()
    }

    /// Whether `wanted` can be reached from the definition `from`.
    fn reaches(&self, from: &str, wanted: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<String> = vec![from.to_owned()];
        while let Some(name) = open.pop() {
            let mut found = BTreeSet::new();
            if let Some(definition) = self.definitions.get(&name) {
                references(definition, &mut found);
            }
            if found.contains(wanted) {
                return true;
            }
            open.extend(found.into_iter().filter(|n| seen.insert(n.clone())));
        }
        false
    }

    /// A translated schema with its own content in place of a reference to it, so that rules about arguments can see what it
    /// is. Recursive ones stay references.
    pub(crate) fn opened(&self, schema: &Value) -> Value {
        let mut schema = schema.clone();
        for _ in 0..8 {
            let Some(definition) = self.definition_of(&schema) else { break };
            let mut content = definition.clone();
            if let (Some(said), Some(members)) = (schema.get("description"), content.as_object_mut()) {
                members.insert("description".into(), said.clone());
            }
            schema = content;
        }
        schema
    }

    /// The whole input schema, small enough: first as it is, then without the descriptions inside of definitions, then with
    /// nested objects left open. Says what was done.
    pub(crate) fn finish(
        &self,
        properties: &Map<String, Value>,
        required: &[String],
        most: u64,
    ) -> Result<(Value, Option<&'static str>), SchemaError> {
        let build = |properties: &Map<String, Value>, used: &BTreeMap<String, Value>| {
            let mut whole = json!({"type": "object", "additionalProperties": false, "properties": properties});
            if let Some(members) = whole.as_object_mut() {
                if !required.is_empty() {
                    members.insert("required".into(), json!(required));
                }
                if !used.is_empty() {
                    members.insert("$defs".into(), json!(used));
                }
            }
            whole
        };
        let fits = |whole: &Value| whole.to_string().len() as u64 <= most;
        let mut named = BTreeSet::new();
        properties.values().for_each(|property| references(property, &mut named));
        let used = self.reached(named).map(|names| -> BTreeMap<String, Value> {
            names.into_iter().filter_map(|name| Some((name.clone(), self.definitions.get(&name)?.clone()))).collect()
        });
        if let Some(used) = &used {
            let whole = build(properties, used);
            if fits(&whole) {
                return Ok((whole, None));
            }
        }
        let mut silent = properties.clone();
        silent.values_mut().for_each(|one| {
            if let Some(members) = one.as_object_mut() {
                members.iter_mut().filter(|(key, _)| *key != "description").for_each(|(_, inside)| silence(inside));
            }
        });
        if let Some(mut used) = used {
            used.values_mut().for_each(silence);
            let shorter = build(&silent, &used);
            if fits(&shorter) {
                return Ok((shorter, Some("the descriptions inside of its schema are left out")));
            }
        }
        for depth in [3, 2, 1] {
            let mut open = silent.clone();
            open.values_mut().for_each(|one| *one = self.opened_to(one, depth));
            let flat = build(&open, &BTreeMap::new());
            if fits(&flat) {
                return Ok((flat, Some("nested objects are left open in its schema")));
            }
        }
        Err(SchemaError::Large { most })
    }

    /// The schema to a depth; below it anything is taken, for the API to judge.
    fn opened_to(&self, schema: &Value, depth: usize) -> Value {
        let mut schema = self.opened(schema);
        silence_inside(&mut schema);
        let Some(members) = schema.as_object_mut() else { return schema };
        if members.contains_key("$ref") {
            return json!({});
        }
        let nested = |key: &str| ONE.contains(&key) || MANY.contains(&key) || NAMED.contains(&key);
        if depth == 0 {
            members.retain(|key, _| !nested(key) && key != "required");
            return schema;
        }
        for (key, value) in members.iter_mut() {
            match value {
                one if ONE.contains(&key.as_str()) => *one = self.opened_to(one, depth - 1),
                Value::Array(list) if MANY.contains(&key.as_str()) => {
                    for one in list {
                        *one = self.opened_to(one, depth - 1);
                    }
                }
                Value::Object(named) if NAMED.contains(&key.as_str()) => {
                    for one in named.values_mut() {
                        *one = self.opened_to(one, depth - 1);
                    }
                }
                _ => {}
            }
        }
        schema
    }
}

/// The dialect of 3.0 in the words of 2020-12.
fn modernise(members: &Map<String, Value>, out: &mut Map<String, Value>) {
    for (limit, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match out.get(exclusive) {
            Some(Value::Bool(true)) => match out.shift_remove(limit) {
                Some(bound) => {
                    out.insert(exclusive.into(), bound);
                }
                None => {
                    out.shift_remove(exclusive);
                }
            },
            Some(Value::Bool(false)) => {
                out.shift_remove(exclusive);
            }
            _ => {}
        }
    }
    if members.get("nullable") != Some(&Value::Bool(true)) {
        return;
    }
    if let Some(Value::String(kind)) = out.get("type").cloned() {
        out.insert("type".into(), json!([kind, "null"]));
        if let Some(Value::Array(choices)) = out.get_mut("enum")
            && !choices.contains(&Value::Null)
        {
            choices.push(Value::Null);
        }
        return;
    }
    let own = std::mem::take(out);
    if !own.is_empty() {
        out.insert("anyOf".into(), json!([own, {"type": "null"}]));
    }
}

/// Names of definitions a schema refers to.
fn references(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(name) = members.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
                found.insert(name.to_owned());
            }
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Takes the descriptions out, and leaves properties that are called `description`.
fn silence(schema: &mut Value) {
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("description");
    }
    silence_inside(schema);
}

fn silence_inside(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    for (key, value) in members.iter_mut() {
        match value {
            one if ONE.contains(&key.as_str()) => silence(one),
            Value::Array(list) if MANY.contains(&key.as_str()) => list.iter_mut().for_each(silence),
            Value::Object(named) if NAMED.contains(&key.as_str()) => named.values_mut().for_each(silence),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: &str, schemas: &Value) -> Document {
        let whole = json!({"openapi": version, "components": {"schemas": schemas}});
        Document::read(whole.to_string().as_bytes(), 1 << 20, None).unwrap()
    }

    fn translated(version: &str, schema: &Value) -> Value {
        Schemas::new(&document(version, &json!({}))).take(schema).unwrap()
    }

    #[test]
    fn the_dialect_of_3_0_becomes_2020_12() {
        for (old, new) in [
            (json!({"type": "string", "nullable": true}), json!({"type": ["string", "null"]})),
            (
                json!({"type": "string", "nullable": true, "enum": ["a"]}),
                json!({"type": ["string", "null"], "enum": ["a", null]}),
            ),
            (
                json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
                json!({"type": "integer", "exclusiveMinimum": 1}),
            ),
            (json!({"type": "integer", "maximum": 9, "exclusiveMaximum": false}), json!({"type": "integer", "maximum": 9})),
            (
                json!({"type": "string", "example": "x", "xml": {}, "x-y": 1, "title": "T", "deprecated": true}),
                json!({"type": "string"}),
            ),
            (
                json!({"nullable": true, "allOf": [{"type": "object"}]}),
                json!({"anyOf": [{"allOf": [{"type": "object"}]}, {"type": "null"}]}),
            ),
            (
                json!({"type": "object", "required": ["id", "a"], "properties": {"id": {"type": "string", "readOnly": true}, "a": {"type": "string"}}}),
                json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            ),
        ] {
            assert_eq!(translated("3.0.3", &old), new);
        }
        let modern =
            json!({"type": ["string", "null"], "exclusiveMinimum": 1, "const": "x", "prefixItems": [{"type": "string"}]});
        assert_eq!(translated("3.1.0", &modern), modern);
    }

    #[test]
    fn recursion_becomes_definitions_and_stays_usable() {
        let tree = json!({"Node": {"type": "object", "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/components/schemas/Node"}}}, "required": ["name"]},
            "Kind": {"type": "string", "enum": ["a", "b"]}});
        let document = document("3.0.0", &tree);
        let mut schemas = Schemas::new(&document);
        let node = schemas.take(&json!({"$ref": "#/components/schemas/Node"})).unwrap();
        let kind = schemas.take(&json!({"$ref": "#/components/schemas/Kind"})).unwrap();
        assert_eq!(schemas.opened(&kind), json!({"type": "string", "enum": ["a", "b"]}));
        assert_eq!(schemas.opened(&node), node, "what is part of itself stays a reference");
        let properties = Map::from_iter([("node".to_owned(), node), ("kind".to_owned(), schemas.opened(&kind))]);
        let (whole, note) = schemas.finish(&properties, &["node".into()], 10_000).unwrap();
        assert_eq!(note, None);
        assert_eq!(whole["$defs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["Node"], "what is not used is not carried");
        let checked = portcullis_guard::ArgumentSchema::compile("t", &whole).unwrap();
        checked.check(&json!({"node": {"name": "a", "children": [{"name": "b"}]}})).unwrap();
        assert!(checked.check(&json!({"node": {"name": "a", "children": [{"name": 1}]}})).is_err());
        assert!(checked.check(&json!({"node": {"name": "a"}, "kind": "c"})).is_err());
    }

    #[test]
    fn what_leads_outside_or_too_deep_is_an_error() {
        let document = document("3.1.0", &json!({}));
        let take = |schema: &Value| Schemas::new(&document).take(schema);
        assert!(matches!(
            take(&json!({"$ref": "https://evil.example/x.json"})),
            Err(SchemaError::Reference(ReferenceError::Remote(_)))
        ));
        assert!(matches!(
            take(&json!({"items": {"$ref": "#/nothing"}})),
            Err(SchemaError::Reference(ReferenceError::Missing(_)))
        ));
        assert_eq!(take(&json!({"$dynamicRef": "#x"})), Err(SchemaError::Dynamic));
        let deep = (0..60).fold(json!({}), |inner, _| json!({"items": inner}));
        assert_eq!(take(&deep), Err(SchemaError::Deep));
    }

    #[test]
    fn large_schemas_are_made_smaller_and_it_is_said() {
        let long = "word ".repeat(30);
        let wide = |n: usize| -> Map<String, Value> {
            (0..n).map(|i| (format!("p{i}"), json!({"type": "object", "description": long, "properties": {"inner": {"type": "string", "description": long}}}))).collect()
        };
        let document = document("3.0.0", &json!({"Big": {"type": "object", "properties": wide(20)}}));
        let mut schemas = Schemas::new(&document);
        let big = schemas.take(&json!({"$ref": "#/components/schemas/Big"})).unwrap();
        let of = |most: u64| schemas.finish(&Map::from_iter([("body".to_owned(), big.clone())]), &[], most);
        assert_eq!(of(20_000).unwrap().1, None);
        assert_eq!(of(3_000).unwrap().1, Some("the descriptions inside of its schema are left out"));
        let (small, note) = of(900).unwrap();
        assert_eq!(note, Some("nested objects are left open in its schema"));
        portcullis_guard::ArgumentSchema::compile("t", &small).unwrap().check(&json!({"body": {"p1": {"inner": 7}}})).unwrap();
        assert!(matches!(of(60), Err(SchemaError::Large { .. })));
    }
}

//! An upstream's schema as arguments are checked against it. Guards that nothing is fetched, that a pattern cannot take
//! exponential time, and that a schema cannot: what cannot be checked safely is said to be so. Must not change what a
//! client is shown.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value, json};

/// Steps one value may take through subschemas that apply to it at once.
const STEPS: u64 = 2_000;
/// The same where the schema is recursive, so that steps multiply with the depth of a value.
const STEPS_RECURSIVE: u64 = 64;
/// Subschemas of one schema.
const SUBSCHEMAS: usize = 20_000;

/// Keywords whose subschemas apply to the same value.
const IN_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords whose subschemas apply to parts of the value.
const PARTS: [&str; 7] = [
    "items",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "propertyNames",
    "additionalItems",
];
const PARTS_BY_NAME: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];

/// The schema as it can be checked: an object schema, open where it does not say otherwise, without references that lead out
/// of it and without patterns that only a backtracking engine knows.
///
/// # Errors
/// In words, why checking against it is not safe.
pub(crate) fn checkable(schema: &Value) -> Result<Value, String> {
    let Value::Object(members) = schema else { return Err("is no object".into()) };
    let mut copy = Value::Object(members.clone());
    let mut count = 0;
    tame(&mut copy, &mut count)?;
    let cost = Cost { root: &copy, known: HashMap::new(), open: Vec::new(), recursive: false };
    cost.whole()?;
    if let Value::Object(members) = &mut copy {
        members.insert("type".into(), json!("object"));
        members.remove("$schema");
        members.remove("$id");
        if !members.contains_key("additionalProperties") && !members.contains_key("unevaluatedProperties") {
            members.insert("additionalProperties".into(), json!(true));
        }
    }
    Ok(copy)
}

/// What arguments are checked against where [`checkable`] fails: that they are an object.
pub(crate) fn anything() -> Value {
    json!({"type": "object", "additionalProperties": true})
}

/// Takes out what must not be followed or run.
fn tame(schema: &mut Value, count: &mut usize) -> Result<(), String> {
    *count += 1;
    if *count > SUBSCHEMAS {
        return Err(format!("has more than {SUBSCHEMAS} parts"));
    }
    match schema {
        Value::Object(members) => {
            for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
                let outward = members.get(keyword).is_some_and(|target| !target.as_str().is_some_and(|t| t.starts_with('#')));
                if outward || (keyword != "$ref" && members.contains_key(keyword)) {
                    members.remove(keyword);
                }
            }
            // An inner base would turn inner references into outward ones.
            for keyword in ["$id", "id", "$schema", "$vocabulary", "x-portcullis-kind"] {
                if members.get(keyword).is_some_and(|v| v.is_string() || keyword == "$vocabulary") {
                    members.remove(keyword);
                }
            }
            if members.get("pattern").is_some_and(|p| !p.as_str().is_some_and(is_linear)) {
                members.remove("pattern");
            }
            if let Some(Value::Object(patterns)) = members.get_mut("patternProperties") {
                let before = patterns.len();
                patterns.retain(|pattern, _| is_linear(pattern));
                if patterns.len() < before {
                    // What they allowed must not fall to a closed rest.
                    members.remove("additionalProperties");
                    members.remove("unevaluatedProperties");
                }
            }
            members.values_mut().try_for_each(|member| tame(member, count))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| tame(item, count)),
        _ => Ok(()),
    }
}

fn is_linear(pattern: &str) -> bool {
    pattern.len() <= 1_000 && Regex::new(pattern).is_ok()
}

/// Counts how many steps one value can take at once, references followed.
struct Cost<'s> {
    root: &'s Value,
    known: HashMap<*const Value, u64>,
    open: Vec<*const Value>,
    recursive: bool,
}

impl<'s> Cost<'s> {
    fn whole(mut self) -> Result<(), String> {
        let root = self.root;
        let mut worst = 0;
        let mut all = vec![root];
        while let Some(schema) = all.pop() {
            worst = worst.max(self.of(schema)?);
            match schema {
                Value::Object(members) => all.extend(members.values()),
                Value::Array(items) => all.extend(items),
                _ => {}
            }
        }
        let recursive = self.recursive || self.comes_back();
        let most = if recursive { STEPS_RECURSIVE } else { STEPS };
        if worst > most {
            return Err(format!("takes {worst} steps for one value, and at most {most} are taken"));
        }
        Ok(())
    }

    /// Steps for a value at this schema. A schema that applies to the same value through itself never ends.
    fn of(&mut self, schema: &'s Value) -> Result<u64, String> {
        let Value::Object(members) = schema else { return Ok(1) };
        let place = std::ptr::from_ref(schema);
        if let Some(known) = self.known.get(&place) {
            return Ok(*known);
        }
        if self.open.contains(&place) {
            return Err("refers to itself without end".into());
        }
        if self.open.len() > 200 {
            return Err("refers on and on".into());
        }
        self.open.push(place);
        let mut steps = 1_u64;
        for inside in in_place(members) {
            steps = steps.saturating_add(self.of(inside)?);
        }
        if let Some(target) = members.get("$ref").and_then(Value::as_str) {
            match self.target(target) {
                Some(found) => steps = steps.saturating_add(self.of(found)?),
                None => return Err(format!("refers to '{}', which is not in it", target.chars().take(80).collect::<String>())),
            }
        }
        self.open.pop();
        self.known.insert(place, steps);
        Ok(steps)
    }

    fn target(&self, reference: &str) -> Option<&'s Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() {
            return Some(self.root);
        }
        if pointer.starts_with('/') {
            return self.root.pointer(&pointer.replace("%25", "%").replace("%24", "$"));
        }
        // By anchor.
        let mut all = vec![self.root];
        while let Some(value) = all.pop() {
            match value {
                Value::Object(members) => {
                    if members.get("$anchor").and_then(Value::as_str) == Some(pointer) {
                        return Some(value);
                    }
                    all.extend(members.values());
                }
                Value::Array(items) => all.extend(items),
                _ => {}
            }
        }
        None
    }

    /// Whether a part of a value can meet the same schema again.
    fn comes_back(&self) -> bool {
        let mut state: HashMap<*const Value, bool> = HashMap::new();
        let mut stack: Vec<(&Value, bool)> = vec![(self.root, false)];
        while let Some((schema, leaving)) = stack.pop() {
            let place = std::ptr::from_ref(schema);
            if leaving {
                state.insert(place, false);
                continue;
            }
            match state.get(&place) {
                Some(true) => return true,
                Some(false) => continue,
                None => {}
            }
            let Value::Object(members) = schema else { continue };
            state.insert(place, true);
            stack.push((schema, true));
            let referred = members.get("$ref").and_then(Value::as_str).and_then(|target| self.target(target));
            let next: Vec<&Value> = in_place(members).chain(parts(members)).chain(referred).collect();
            for inside in next {
                if state.get(&std::ptr::from_ref(inside)) == Some(&true) {
                    return true;
                }
                stack.push((inside, false));
            }
        }
        false
    }
}

fn in_place(members: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let lists = IN_PLACE_LISTS.iter().filter_map(|k| members.get(*k)).filter_map(Value::as_array).flatten();
    let single = IN_PLACE.iter().filter_map(|k| members.get(*k));
    let dependent = members.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values);
    lists.chain(single).chain(dependent)
}

fn parts(members: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let single = PARTS.iter().filter_map(|k| members.get(*k)).filter(|v| v.is_object());
    let lists = ["prefixItems", "items"].iter().filter_map(|k| members.get(*k)).filter_map(Value::as_array).flatten();
    let named = PARTS_BY_NAME.iter().filter_map(|k| members.get(*k)).filter_map(Value::as_object).flat_map(Map::values);
    single.chain(lists).chain(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_guard::ArgumentSchema;

    #[test]
    fn an_open_schema_stays_open_and_a_closed_one_closed() {
        let open = ArgumentSchema::compile("t", &checkable(&json!({"properties": {"a": {"type": "string"}}})).unwrap()).unwrap();
        open.check(&json!({"a": "x", "b": 1})).unwrap();
        open.check(&json!({"a": 1})).unwrap_err();
        let closed = checkable(&json!({"type": "object", "properties": {"a": {}}, "additionalProperties": false})).unwrap();
        ArgumentSchema::compile("t", &closed).unwrap().check(&json!({"b": 1})).unwrap_err();
    }

    #[test]
    fn recursive_schemas_are_fine() {
        let tree = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
            "properties": {"root": {"$ref": "#/definitions/node"}},
            "definitions": {"node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/definitions/node"}}},
                "required": ["children"]}}});
        let schema = ArgumentSchema::compile("t", &checkable(&tree).unwrap()).unwrap();
        schema.check(&json!({"root": {"children": [{"children": []}]}})).unwrap();
        schema.check(&json!({"root": {"children": [{}]}})).unwrap_err();
        let whole = json!({"type": "object", "properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}}});
        let schema = ArgumentSchema::compile("t", &checkable(&whole).unwrap()).unwrap();
        schema.check(&json!({"child": {"child": {"n": 1}}})).unwrap();
        schema.check(&json!({"child": {"child": {"n": "x"}}})).unwrap_err();
    }

    #[test]
    fn nothing_is_fetched() {
        let outward = json!({"type": "object", "properties": {
            "a": {"$ref": "http://169.254.169.254/schema"}, "b": {"$ref": "file:///etc/passwd"},
            "c": {"$id": "http://evil.example/", "$ref": "other.json"}, "d": {"type": "integer"}}});
        let schema = ArgumentSchema::compile("t", &checkable(&outward).unwrap()).unwrap();
        schema.check(&json!({"a": 1, "b": [], "c": {}, "d": 1})).unwrap();
        schema.check(&json!({"d": "x"})).unwrap_err();
    }

    #[test]
    fn bombs_are_told() {
        let mut definitions = Map::new();
        for n in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            definitions.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
        }
        definitions.insert("d40".into(), json!({"type": "string"}));
        let doubling = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": definitions});
        assert!(checkable(&doubling).unwrap_err().contains("steps"));
        let endless = json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "properties": {"x": {"$ref": "#/$defs/a"}}});
        assert!(checkable(&endless).unwrap_err().contains("without end"));
        let wide: Vec<Value> = (0..30_000).map(|_| json!({})).collect();
        assert!(checkable(&json!({ "anyOf": wide })).unwrap_err().contains("parts"));
        let again: Vec<Value> = (0..100).map(|_| json!({"type": "array", "items": {"$ref": "#/$defs/n"}})).collect();
        let multiplying = json!({"$defs": {"n": {"allOf": again}}, "properties": {"x": {"$ref": "#/$defs/n"}}});
        assert!(checkable(&multiplying).unwrap_err().contains("steps"));
        assert!(checkable(&json!({"properties": {"x": {"$ref": "#/nowhere"}}})).unwrap_err().contains("not in it"));
    }

    #[test]
    fn a_pattern_that_backtracks_is_left_out() {
        let schema = json!({"properties": {"a": {"type": "string", "pattern": "^(?=.*x)(a+)+$"}, "b": {"pattern": "^[0-9]+$", "type": "string"}}});
        let tame = checkable(&schema).unwrap();
        assert!(tame.pointer("/properties/a/pattern").is_none());
        assert_eq!(tame.pointer("/properties/b/pattern").unwrap(), "^[0-9]+$");
    }
}

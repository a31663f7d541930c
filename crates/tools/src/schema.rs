//! Pieces of the tools' JSON Schemas (draft 2020-12), kept short: every word of them is paid for in every conversation.
//!
//! Guards that all tools spell the same argument the same way and refuse unknown ones. Must not know any tool.

use std::sync::Arc;

use portcullis_model::{CompletionKind, RiskClass, ToolName, ToolSpec};
use serde_json::{Map, Value, json};

/// What the texts of an argument are, for the rules of the gate. Every tool means the same by the same name, so this is
/// told once; what is not listed (times, cursors, words of a list) is free text.
const KINDS: &[(&str, &str)] = &[
    ("query", "query"),
    ("contains", "filter_value"),
    ("text", "filter_value"),
    ("regex", "filter_value"),
    ("labels", "filter_value"),
    ("attributes", "filter_value"),
    ("service", "name"),
    ("source", "name"),
    ("metric", "name"),
    ("operation", "name"),
    ("trace_id", "name"),
    ("group_by", "name"),
    ("count_by", "name"),
    ("values_of", "name"),
];

/// An object schema of the arguments that refuses anything else. The kinds of texts are in it for the gate; lists for
/// clients leave them out.
pub(crate) fn input(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let mut properties: Map<String, Value> = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    for (name, kind) in KINDS {
        if let Some(property) = properties.get_mut(*name).and_then(Value::as_object_mut) {
            property.insert("x-portcullis-kind".to_owned(), json!(kind));
        }
    }
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if let (false, Some(object)) = (required.is_empty(), schema.as_object_mut()) {
        object.insert("required".to_owned(), json!(required));
    }
    schema
}

/// The shared result shape with the tool's own fields in front.
pub(crate) fn output(own: &[(&str, &str)]) -> Value {
    let mut properties: Map<String, Value> = own.iter().map(|(name, kind)| ((*name).to_owned(), json!({"type": kind}))).collect();
    let shared = [
        ("coverage", "array"),
        ("shown", "integer"),
        ("total", "integer"),
        ("truncated", "boolean"),
        ("next", "string"),
        ("hint", "string"),
    ];
    properties.extend(shared.iter().map(|(name, kind)| ((*name).to_owned(), json!({"type": kind}))));
    json!({"type": "object", "properties": properties, "required": ["coverage", "shown", "truncated"]})
}

/// Text with a description.
pub(crate) fn text(description: &str) -> Value {
    if description.is_empty() { json!({"type": "string"}) } else { json!({"type": "string", "description": description}) }
}

/// One of a few words.
pub(crate) fn choice(words: &[&str], default: Option<&str>) -> Value {
    match default {
        Some(default) => json!({"type": "string", "enum": words, "default": default}),
        None => json!({"type": "string", "enum": words}),
    }
}

/// What a window is compared with; `times` is how many windows long the time is that `previous` reads. The gate counts it
/// into the look-back of a call.
pub(crate) fn compare(words: &[&str], times: u32) -> Value {
    let mut schema = choice(words, Some("previous"));
    if let (Some(object), true) = (schema.as_object_mut(), times > 1) {
        object.insert("x-portcullis-baseline".to_owned(), json!(times));
    }
    schema
}

/// Yes or no, no by default.
pub(crate) fn flag(description: &str) -> Value {
    if description.is_empty() {
        json!({"type": "boolean", "default": false})
    } else {
        json!({"type": "boolean", "default": false, "description": description})
    }
}

/// How many items at most.
pub(crate) fn limit(default: usize, maximum: usize) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": maximum, "default": default})
}

/// The length of the window.
pub(crate) fn window(default: &str) -> Value {
    json!({"type": "string", "default": default, "description": "15m, 2h, 7d"})
}

/// The start of the window.
pub(crate) fn start() -> Value {
    text("RFC 3339 or now-2h")
}

/// The end of the window.
pub(crate) fn end() -> Value {
    text("")
}

/// Only this source.
pub(crate) fn source() -> Value {
    text("only this source")
}

/// Only this service.
pub(crate) fn service() -> Value {
    text("")
}

/// Where to go on.
pub(crate) fn cursor() -> Value {
    reaching(text("'next' of the last page"))
}

/// An argument that says by itself how far back is read, whatever the times beside it. Rules about the look-back take it that
/// this is for ever, unless the tool tells (`Tool::reach_back`). For the gate; lists for clients leave the mark out.
pub(crate) fn reaching(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.insert("x-portcullis-reaches".to_owned(), json!(true));
    }
    schema
}

/// Conditions on labels or attributes.
pub(crate) fn labels() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}, "description": "value, !=value, =~regex or !~regex"})
}

/// A list of label names.
pub(crate) fn names(maximum: usize) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "maxItems": maximum})
}

/// What differs between two reading tools.
pub(crate) struct Sheet<'a> {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) input: Value,
    pub(crate) output: Value,
    pub(crate) completions: &'a [(&'static str, CompletionKind)],
}

/// The specification of a tool that only looks.
pub(crate) fn reading_tool(sheet: Sheet<'_>) -> Option<Arc<ToolSpec>> {
    Some(Arc::new(ToolSpec {
        name: ToolName::new(sheet.name).ok()?,
        title: Arc::from(sheet.title),
        description: Arc::from(sheet.description),
        risk: RiskClass::Read,
        idempotent: true,
        open_world: false,
        category: None,
        input_schema: Arc::new(sheet.input),
        output_schema: Some(Arc::new(sheet.output)),
        completions: sheet.completions.iter().map(|(name, kind)| (Arc::from(*name), kind.clone())).collect(),
        shown: None,
    }))
}

/// A completion from a fixed list.
pub(crate) fn fixed(words: &[&str]) -> CompletionKind {
    CompletionKind::Fixed(words.iter().map(|word| Arc::from(*word)).collect())
}

//! What a write would do, without doing it: for a dry run, and for the person who is asked for a yes. A preview sends nothing
//! that changes anything, and what could not be found out is said and never taken for "no change".

use std::sync::Arc;

use portcullis_policy::Permit;
use serde_json::{Map, Value, json};

use crate::{Arguments, Output};

/// The argument by which a caller asks for a preview instead of the work.
pub const DRY_RUN: &str = "dry_run";

/// A request exactly as it would be sent, without credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct PreviewedRequest {
    /// Method, such as `PUT`.
    pub method: String,
    /// The whole address.
    pub url: String,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: PreviewedBody,
}

/// The body of such a request.
#[derive(Debug, Clone, PartialEq)]
pub enum PreviewedBody {
    /// None.
    Empty,
    /// JSON, so that what its names say of its values is seen.
    Json(Value),
    /// Text.
    Text(String),
    /// Bytes that are no text, by their number.
    Bytes(usize),
}

/// What would be different afterwards.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nobody knows, and why.
    Unknown(String),
    /// Found by comparing.
    Known {
        /// What is there now; absent when nothing is.
        before: Option<Value>,
        /// What would be there; absent when nothing would.
        after: Option<Value>,
        /// How it was found, in a sentence: what was taken for what.
        how: String,
    },
}

/// What a write would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// What would be sent, in order, where it is known.
    pub requests: Vec<PreviewedRequest>,
    /// What would be different.
    pub change: Change,
    /// What the other side itself answered when it was asked for a dry run of its own, and by which argument.
    pub answer: Option<(String, Output)>,
    /// Which sources were asked.
    pub sources: Vec<Arc<str>>,
}

/// The tool whose answer is the present state, and its arguments. Whether the caller may read it is the gate's question.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Name of the tool in the catalogue.
    pub tool: String,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Whether the present state may be looked at.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'p> {
    /// Under this permit, which is one for reading.
    Allowed(&'p Permit),
    /// Not, and why.
    Closed(&'p str),
}

/// Adds the argument to a tool's schema. False when it has one of that name, or takes no named arguments.
pub fn offer_dry_run(schema: &mut Value) -> bool {
    let Some(members) = schema.as_object_mut() else { return false };
    if members.get("type").is_some_and(|kind| kind != "object") {
        return false;
    }
    let Some(properties) = members.entry("properties").or_insert_with(|| Value::Object(Map::new())).as_object_mut() else {
        return false;
    };
    if properties.contains_key(DRY_RUN) {
        return false;
    }
    properties.insert(DRY_RUN.to_owned(), dry_run_argument());
    true
}

/// The argument as a schema describes it.
pub fn dry_run_argument() -> Value {
    json!({"type": "boolean", "description": "true: show what would be sent and what would change, and do nothing"})
}

/// Whether these arguments ask for a dry run.
pub fn wants_dry_run(arguments: &Arguments) -> bool {
    arguments.0.get(DRY_RUN) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_is_offered_once_and_only_where_arguments_have_names() {
        let mut schema = json!({"type": "object", "properties": {"id": {"type": "string"}}, "additionalProperties": false});
        assert!(offer_dry_run(&mut schema));
        assert_eq!(schema["properties"][DRY_RUN]["type"], "boolean");
        assert!(!offer_dry_run(&mut schema), "it has one of that name");
        assert!(!offer_dry_run(&mut json!({"type": "array"})) && !offer_dry_run(&mut json!(true)));
        for (arguments, wanted) in [
            (json!({}), false),
            (json!({"dry_run": false}), false),
            (json!({"dry_run": "true"}), false),
            (json!({"dry_run": true}), true),
        ] {
            let Value::Object(members) = arguments else { unreachable!() };
            assert_eq!(wants_dry_run(&Arguments(members)), wanted);
        }
    }
}

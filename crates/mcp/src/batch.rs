//! JSON-RPC batches, which of all revisions served only 2025-03-26 knows ("implementations MUST support receiving
//! JSON-RPC batches", basic, "Batching"). Takes an array apart into its messages and refuses what is no batch; every
//! message then walks the road by itself. Must not look at what the messages ask for.

use std::borrow::Cow;
use std::collections::HashSet;

use rmcp::model::{ErrorData, RequestId};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Messages in one batch.
pub(crate) const MOST_MESSAGES: usize = 50;
/// Messages of one batch being answered at once; the rest follows as these end. Below what one caller may have in
/// flight by default, so that a batch is not refused for its own length.
pub(crate) const AT_ONCE: usize = 8;
/// Refusal of an array outside the one revision that knows batches.
pub(crate) const NO_BATCHES: &str =
    "batches are served only in a session of protocol version 2025-03-26: send one JSON-RPC message per request";

/// Why an array is not served, with what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchFault {
    #[error("the batch is empty: send at least one JSON-RPC message")]
    Empty,
    #[error("the batch has {0} messages, at most {MOST_MESSAGES} are served at once: send several smaller ones")]
    TooMany(usize),
    #[error("initialize must not be part of a batch: send it alone, before anything else")]
    Initialize,
    #[error("two requests of the batch have the id {0}: every request needs an id of its own")]
    SameId(RequestId),
    #[error("the batch cannot be read: {0}")]
    Unreadable(String),
}

/// What of a message tells requests apart. Members that are no objects have none of it.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// Whether a body is an array.
pub(crate) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"[")
}

/// The messages of a batch as they stand in it. What is no JSON-RPC message stays in, to be answered as such.
pub(crate) fn messages(body: &[u8]) -> Result<Vec<&RawValue>, BatchFault> {
    let members: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| BatchFault::Unreadable(e.to_string()))?;
    if members.is_empty() {
        return Err(BatchFault::Empty);
    }
    if members.len() > MOST_MESSAGES {
        return Err(BatchFault::TooMany(members.len()));
    }
    let mut ids = HashSet::new();
    for member in &members {
        let Ok(Envelope { method: Some(method), id }) = serde_json::from_str(member.get()) else { continue };
        if method == "initialize" {
            return Err(BatchFault::Initialize);
        }
        let id: Option<RequestId> = id.and_then(|id| serde_json::from_str(id.get()).ok());
        if let Some(id) = id.filter(|id| !ids.insert(id.clone())) {
            return Err(BatchFault::SameId(id));
        }
    }
    Ok(members)
}

/// An error as a message, with its `id`, which is null when it is not known (JSON-RPC 2.0, section 5).
pub(crate) fn error_message(error: &ErrorData, id: Option<&RequestId>) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(id: &Value) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
    }

    fn read(batch: &Value) -> Result<usize, BatchFault> {
        messages(batch.to_string().as_bytes()).map(|messages| messages.len())
    }

    #[test]
    fn a_batch_is_bounded_and_its_requests_can_be_told_apart() {
        let many = |n: usize| Value::Array((0..n).map(|id| ping(&json!(id))).collect());
        assert_eq!(read(&many(1)), Ok(1));
        assert_eq!(read(&many(MOST_MESSAGES)), Ok(MOST_MESSAGES));
        assert_eq!(read(&many(MOST_MESSAGES + 1)), Err(BatchFault::TooMany(MOST_MESSAGES + 1)));
        assert_eq!(read(&json!([])), Err(BatchFault::Empty));
        assert_eq!(read(&json!([ping(&json!(1)), ping(&json!("1"))])), Ok(2), "a number and a text are two ids");
        assert_eq!(read(&json!([ping(&json!(1)), ping(&json!(1))])), Err(BatchFault::SameId(RequestId::Number(1))));
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
        assert_eq!(read(&json!([ping(&json!(1)), answer])), Ok(2), "an answer of the client's has an id of ours");
        assert_eq!(read(&json!([1, "x", null, [ping(&json!(1))], {}])), Ok(5), "each is answered as what it is not");
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
        assert_eq!(read(&json!([ping(&json!(2)), hello])), Err(BatchFault::Initialize));
        let odd = json!({"jsonrpc": "2.0", "id": 1.5, "method": "initialize"});
        assert_eq!(read(&json!([odd])), Err(BatchFault::Initialize), "whatever its id");
        assert!(matches!(messages(b"[1"), Err(BatchFault::Unreadable(_))));
        assert!(is_array(b" \n[") && !is_array(b"{}"));
    }

    #[test]
    fn an_error_without_an_id_says_null() {
        let error = ErrorData::invalid_request("no", None);
        assert_eq!(
            error_message(&error, None),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no"}})
        );
        assert_eq!(error_message(&error, Some(&RequestId::Number(3)))["id"], 3);
    }
}

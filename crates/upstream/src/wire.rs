//! Messages of JSON-RPC as they come from an upstream and go to it. Guards that what is read is one object of a known form,
//! small enough and not too deep. Must not interpret methods.

use portcullis_egress::Echoes;
use portcullis_model::{Fault, FaultCode, cut};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One message from an upstream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    /// An answer to a request of ours.
    Answer {
        /// Whose answer.
        id: Value,
        /// What came of it.
        result: Result<Value, Refusal>,
    },
    /// A request of the upstream to us.
    Request {
        /// To be answered under this id.
        id: Value,
        /// What it wants.
        method: String,
        /// Its parameters.
        params: Value,
    },
    /// Something it says.
    Notification {
        /// What kind of thing.
        method: String,
        /// Its parameters.
        params: Value,
    },
}

/// An upstream's error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// JSON-RPC code.
    pub code: i64,
    /// In its words, as many as they are: they are cut after what was presented was taken out of them.
    pub message: String,
    /// What else it said.
    pub data: Value,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The connection or process is gone, or never came to be.
    #[error("not reachable: {0}")]
    Gone(String),
    /// What it sends is no MCP.
    #[error("sends what cannot be read: {0}")]
    Garbage(String),
    /// It sends more than it may.
    #[error("sent more than {0}")]
    TooLarge(String),
    /// It was silent for too long, or did not come to an end.
    #[error("gave no answer within {0}")]
    Slow(String),
    /// It refused, in its own words.
    #[error("refused: {} (code {})", cut(&.0.message), .0.code)]
    Refused(Refusal),
    /// The session is over; another one may be opened.
    #[error("ended the session")]
    SessionOver,
    /// Something of the house stands in the way: a secret, a permit, an address rule.
    #[error("{0}")]
    House(Fault),
}

/// Longest error text of an upstream that is repeated, in characters.
const TEXT: usize = 600;

fn cut(text: &str) -> String {
    cut::beginning(text, TEXT).text.into_owned()
}

impl Trouble {
    /// Whether it says that the upstream is not in service.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Self::Gone(_) | Self::Garbage(_) | Self::Slow(_))
    }

    /// The same without what must not come back, for logs, records and callers.
    pub(crate) fn without(self, echoes: &Echoes) -> Self {
        let clean = |text: String| echoes.text(&text).into_owned();
        match self {
            Self::Gone(text) => Self::Gone(clean(text)),
            Self::Garbage(text) => Self::Garbage(clean(text)),
            Self::TooLarge(text) => Self::TooLarge(clean(text)),
            Self::Slow(text) => Self::Slow(clean(text)),
            // What else it said is only read for questions, which are looked at as questions.
            Self::Refused(refusal) => Self::Refused(Refusal { message: clean(refusal.message), ..refusal }),
            Self::SessionOver => Self::SessionOver,
            Self::House(fault) => Self::House(fault.with_texts(|text| echoes.text(text).into_owned())),
        }
    }

    /// The same after the upstream took the call: what is over then is not asked once more.
    pub(crate) fn after_taken(self) -> Self {
        match self {
            Self::SessionOver => Self::Gone("it ended the session before the answer".into()),
            other => other,
        }
    }

    /// As the caller is told.
    pub(crate) fn fault(self, upstream: &str) -> Fault {
        match self {
            Self::Gone(internal) => {
                Fault::backend(format!("upstream '{upstream}' cannot be reached"), internal).with_retry_after(5)
            }
            Self::Garbage(internal) => Fault::backend(format!("upstream '{upstream}' sent something that is not MCP"), internal),
            Self::TooLarge(what) => Fault::new(FaultCode::TooLarge, format!("upstream '{upstream}' sent more than {what}"))
                .with_hint("ask for less: a filter, a page, a shorter window"),
            Self::Slow(what) => {
                Fault::new(FaultCode::BackendFailed, format!("upstream '{upstream}' gave no answer within {what}"))
                    .with_hint("ask for less, or try again later")
            }
            Self::Refused(refusal) => {
                let code = if refusal.code == -32_602 { FaultCode::InvalidArgument } else { FaultCode::BackendFailed };
                Fault::new(code, format!("upstream '{upstream}' refused (code {})", refusal.code))
                    .with_foreign(cut(&refusal.message))
            }
            Self::SessionOver => Fault::backend(format!("upstream '{upstream}' ended the session"), "session over"),
            Self::House(fault) => fault,
        }
    }
}

impl From<portcullis_egress::EgressError> for Trouble {
    fn from(error: portcullis_egress::EgressError) -> Self {
        use portcullis_egress::EgressErrorKind as Kind;
        match error.kind() {
            Kind::Connect { .. } | Kind::BrokenOff { .. } => Self::Gone(error.to_string()),
            Kind::TimedOut(_) => Self::Slow("its longest silence".into()),
            Kind::Garbage(_) => Self::Garbage(error.to_string()),
            Kind::ResponseTooLarge { limit } => Self::TooLarge(format!("{limit} bytes")),
            _ => Self::House(error.into()),
        }
    }
}

/// Objects and arrays inside each other.
const DEPTH: usize = 96;

/// Reads one message.
pub(crate) fn read(bytes: &[u8]) -> Result<Incoming, Trouble> {
    let garbage = |reason: &str| Trouble::Garbage(reason.to_owned());
    let value: Value = serde_json::from_slice(bytes).map_err(|e| Trouble::Garbage(format!("no JSON: {e}")))?;
    if depth_over(&value, DEPTH) {
        return Err(garbage("nested too deep"));
    }
    let Value::Object(mut message) = value else { return Err(garbage("a message that is no object")) };
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(garbage("a message that is no JSON-RPC 2.0"));
    }
    let id = message.remove("id");
    let method = match message.remove("method") {
        None => None,
        Some(Value::String(method)) if method.len() <= 200 => Some(method),
        Some(_) => return Err(garbage("a method that is no name")),
    };
    let params = message.remove("params").unwrap_or_else(|| json!({}));
    match (method, id) {
        (Some(method), Some(id)) if id.is_string() || id.is_number() => Ok(Incoming::Request { id, method, params }),
        (Some(method), None) => Ok(Incoming::Notification { method, params }),
        (Some(_), Some(_)) => Err(garbage("a request whose id is neither text nor number")),
        (None, id) => {
            let id = id.unwrap_or(Value::Null);
            match (message.remove("result"), message.remove("error")) {
                (Some(result), None) if result.is_object() => Ok(Incoming::Answer { id, result: Ok(result) }),
                (None, Some(Value::Object(error))) => Ok(Incoming::Answer { id, result: Err(refusal(error)) }),
                _ => Err(garbage("an answer with neither a result nor an error")),
            }
        }
    }
}

fn refusal(mut error: Map<String, Value>) -> Refusal {
    let message = error.get("message").and_then(Value::as_str).unwrap_or("it did not say why");
    Refusal {
        code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
        message: message.chars().filter(|c| portcullis_guard::is_seen(*c)).collect(),
        data: error.remove("data").unwrap_or(Value::Null),
    }
}

/// Whether something stands deeper than `most`.
pub(crate) fn depth_over(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(items) => most == 0 || items.iter().any(|item| depth_over(item, most - 1)),
        Value::Object(members) => most == 0 || members.values().any(|member| depth_over(member, most - 1)),
        _ => false,
    }
}

/// Bytes a value takes in memory, about: what is short on the wire need not be small.
pub(crate) fn weight(value: &Value) -> usize {
    const EACH: usize = 32;
    match value {
        Value::String(text) => EACH + text.len(),
        Value::Array(items) => EACH + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            EACH + members.iter().map(|(name, member)| 2 * EACH + name.len() + weight(member)).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => EACH,
    }
}

/// A request of ours.
pub(crate) fn request(id: u64, method: &str, params: &Value) -> Vec<u8> {
    #[derive(Serialize)]
    struct Request<'a> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a Value,
    }
    // Texts, numbers and values are always written.
    serde_json::to_vec(&Request { jsonrpc: "2.0", id, method, params }).unwrap_or_default()
}

/// Something we say.
pub(crate) fn notification(method: &str, params: &Value) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string().into_bytes()
}

/// Our answer to a request of the upstream.
pub(crate) fn answer(id: &Value, result: Result<Value, (i64, &str)>) -> Vec<u8> {
    let message = match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    };
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_presented_leaves_every_trouble_and_is_not_cut_in_half_before() {
        let echoes = Echoes::of([&portcullis_model::Secret::new("quite-an-ordinary-word")]);
        // It ends behind the place where the text is cut.
        let words = format!("{} quite-an-ordinary-word", "x".repeat(TEXT - 10));
        let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": words}});
        let Ok(Incoming::Answer { result: Err(refusal), .. }) = read(error.to_string().as_bytes()) else { panic!("no refusal") };
        let said = "got quite-an-ordinary-word".to_owned();
        let fault = Fault::backend(said.clone(), said.clone()).with_foreign(said.clone()).with_hint(said.clone());
        for trouble in [Trouble::Refused(refusal), Trouble::Gone(said.clone()), Trouble::Garbage(said), Trouble::House(fault)] {
            let trouble = trouble.without(&echoes);
            let told = format!("{trouble} {:?}", trouble.clone().fault("up"));
            assert!(!told.contains("quite-an"), "{told}");
        }
    }

    #[test]
    fn every_form_is_read_and_everything_else_is_garbage() {
        let read = |value: &Value| super::read(value.to_string().as_bytes());
        let answer = read(&json!({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}})).unwrap();
        assert_eq!(answer, Incoming::Answer { id: json!(1), result: Ok(json!({"a": 1})) });
        let Incoming::Answer { result: Err(refusal), .. } =
            read(&json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no\u{1b}[31m"}})).unwrap()
        else {
            panic!("no refusal")
        };
        assert_eq!((refusal.code, refusal.message.as_str()), (-32_602, "no[31m"));
        assert!(matches!(read(&json!({"jsonrpc": "2.0", "id": "x", "method": "ping"})).unwrap(), Incoming::Request { .. }));
        assert!(matches!(read(&json!({"jsonrpc": "2.0", "method": "x"})).unwrap(), Incoming::Notification { .. }));
        for bad in [
            json!([]),
            json!({"id": 1, "result": {}}),
            json!({"jsonrpc": "2.0", "id": 1}),
            json!({"jsonrpc": "2.0", "id": 1, "result": 5}),
            json!({"jsonrpc": "2.0", "id": {}, "method": "x"}),
            json!({"jsonrpc": "2.0", "id": 1, "method": 7}),
            json!({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}),
        ] {
            assert!(matches!(read(&bad), Err(Trouble::Garbage(_))), "{bad}");
        }
        let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":{}{}}}}}"#, "[".repeat(110), "]".repeat(110));
        assert!(matches!(super::read(deep.as_bytes()), Err(Trouble::Garbage(_))));
        let bottomless = "[".repeat(1 << 20);
        assert!(matches!(super::read(bottomless.as_bytes()), Err(Trouble::Garbage(_))));
    }
}

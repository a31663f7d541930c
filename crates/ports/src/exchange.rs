//! What a running tool may say to, and has been told by, the client. The gate stands between: every word
//! is released before it leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_model::Secret;
use serde_json::Value;

/// Level of a log message to the client (RFC 5424 names, as MCP uses them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeLevel {
    /// Details.
    Debug,
    /// Normal.
    Info,
    /// Normal but significant.
    Notice,
    /// Something is off.
    Warning,
    /// Something failed.
    Error,
}

/// A question to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct InputRequest {
    /// MCP method, such as `elicitation/create`.
    pub method: String,
    /// Its parameters.
    pub params: Value,
}

/// What the client said it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientAbilities {
    /// Can show a form to its user.
    pub elicitation: bool,
    /// Can ask its user to open a page (elicitation by URL, 2025-11-25).
    pub links: bool,
    /// Can ask its model.
    pub sampling: bool,
    /// Can list its roots.
    pub roots: bool,
}

/// Answers of an earlier round.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers {
    /// Results by the key of the question.
    pub responses: BTreeMap<String, Value>,
    /// The state the tool gave with its questions, verified by the face.
    pub state: Option<Value>,
}

/// Whether a caller would still be let in, asked as often as one likes: it never waits.
pub type StillAdmitted = Arc<dyn Fn() -> bool + Send + Sync>;

/// The tool's side of the conversation with the client.
pub trait Exchange: Send + Sync {
    /// Reports progress; dropped when the client did not ask for it.
    fn progress(&self, done: f64, total: Option<f64>, message: &str);

    /// Sends a log message; dropped below the level the client asked for.
    fn notice(&self, level: NoticeLevel, logger: &str, data: Value);

    /// Says that what a person was asked to do on a page is done, by the `elicitationId` of that question; dropped where the
    /// client's revision has no word for it.
    fn page_done(&self, elicitation: &str) {
        let _ = elicitation;
    }

    /// Answers of an earlier round, if this is a second run.
    fn answers(&self) -> Option<&Answers>;

    /// What the client can do.
    fn abilities(&self) -> ClientAbilities;

    /// What of the client's words may go on to another server: its secrets are taken out. For text that nobody typed for that
    /// server, such as what the client's model wrote.
    fn outgoing(&self, value: Value) -> Value;

    /// A header the client sent with this request, of those the operator lets through by name (in lower case). Never one
    /// that holds the credential for this house.
    fn header(&self, name: &str) -> Option<&Secret> {
        let _ = name;
        None
    }

    /// Seals the cursor of a next page, so that it is good for this caller and this question alone. The gate opens it when it
    /// comes back in the argument [`Tool::cursor_argument`](crate::Tool::cursor_argument) names. Where no gate stands between,
    /// it stays as it is, and no gate takes it.
    fn seal_cursor(&self, position: String) -> String {
        position
    }

    /// Tells, also when this is long gone, whether the caller would still be let in with the credential it came with. Whoever
    /// keeps a call waiting for its caller asks again and again, and ends what waits for nobody. Where there is no caller,
    /// nothing is to wait for one.
    fn still_admitted(&self) -> StillAdmitted {
        Arc::new(|| false)
    }
}

/// Nobody listens: for tests and standing work.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExchange;

impl Exchange for NoExchange {
    fn progress(&self, _done: f64, _total: Option<f64>, _message: &str) {}
    fn notice(&self, _level: NoticeLevel, _logger: &str, _data: Value) {}
    fn answers(&self) -> Option<&Answers> {
        None
    }
    fn abilities(&self) -> ClientAbilities {
        ClientAbilities::default()
    }
    /// Nobody said anything, so nothing goes on.
    fn outgoing(&self, _value: Value) -> Value {
        Value::Null
    }
}

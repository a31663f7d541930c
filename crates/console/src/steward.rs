//! What the face asks of the house. The binary implements it with the same code its commands use.
//!
//! Whoever implements it is called by the gate's road only, after the caller was authorized.

use async_trait::async_trait;
use portcullis_model::{Fault, Principal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sample::Sample;

/// One condition of being ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `store`, `audit`, `keys`, `sinks`, `configuration` or `drain`.
    pub name: &'static str,
    /// Why it does not hold; absent when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Check {
    /// A condition and whether it holds.
    pub fn new(name: &'static str, outcome: Result<(), String>) -> Self {
        Self { name, reason: outcome.err() }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.reason.is_none()
    }
}

/// Which audit records are wanted. Texts as they came; the steward reads them as the command line does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditQuestion {
    /// Not before this: RFC 3339, `now-1h`, or `1h`.
    pub since: Option<String>,
    /// Before this.
    pub until: Option<String>,
    /// Who acted.
    pub principal: Option<String>,
    /// Tool, prompt or resource.
    pub tool: Option<String>,
    /// `allow` or `deny`.
    pub decision: Option<String>,
    /// `ok`, `failed` or `refused`.
    pub outcome: Option<String>,
    /// Error code.
    pub code: Option<String>,
    /// Kinds of records, separated by commas.
    pub kind: Option<String>,
    /// Whose data.
    pub tenant: Option<String>,
    /// Session.
    pub session: Option<String>,
    /// This text anywhere in the record.
    pub text: Option<String>,
    /// Most records of one page.
    pub limit: Option<usize>,
    /// Go on after this record, as an earlier page named it.
    pub cursor: Option<String>,
}

/// The house, as an administrator sees it.
#[async_trait]
pub trait Steward: Send + Sync + 'static {
    /// Every condition of being ready. Cheap, and asked without a credential: it must not wait for anything.
    fn readiness(&self) -> Vec<Check>;

    /// Everything that is measured by looking, for one scrape. Bounded in time; what is not known is left out.
    async fn sample(&self) -> Sample;

    /// Every control and source with its state, as `portcullis doctor` prints it.
    ///
    /// # Errors
    /// When it cannot be told.
    async fn status(&self) -> Result<Value, Fault>;

    /// The sources and how they are.
    ///
    /// # Errors
    /// When it cannot be told.
    async fn sources(&self) -> Result<Value, Fault>;

    /// Requests for approval that have not ended.
    ///
    /// # Errors
    /// When the store fails.
    async fn approvals(&self) -> Result<Value, Fault>;

    /// Says yes or no to a request, in the name of `who`; recorded before it takes effect.
    ///
    /// # Errors
    /// When there is none, it was decided, `who` asked for it, or it cannot be recorded.
    async fn decide(&self, who: &Principal, id: &str, granted: bool) -> Result<Value, Fault>;

    /// A page of audit records.
    ///
    /// # Errors
    /// A question that cannot be read, or a log that cannot.
    async fn audit(&self, question: AuditQuestion) -> Result<Value, Fault>;

    /// API keys, without secrets.
    ///
    /// # Errors
    /// When the store fails.
    async fn keys(&self) -> Result<Value, Fault>;

    /// Takes a key back, in the name of `who`.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    async fn revoke_key(&self, who: &Principal, id: &str) -> Result<Value, Fault>;
}

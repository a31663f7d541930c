//! Asking somebody else: a decision source outside of this process, such as an Open Policy Agent beside it.
//!
//! It is asked after the rules of the house allowed a call, and can only refuse: deny beats allow. Whoever implements
//! [`ExternalPolicy`] must answer [`ExternalDecision::Unavailable`] for everything that is not a clear answer (a timeout, an
//! error, an unexpected document), and the gate refuses then. Nothing here opens a connection.

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CredentialKind, Principal, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::permit::Permit;

/// The rule name of a refusal by an external policy, or for want of its answer.
pub const EXTERNAL_RULE: &str = "external-policy";

/// Who asks, as an external policy sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExternalPrincipal {
    /// Stable id, such as `key:3f9a…`.
    pub id: String,
    /// How it proved itself: `local`, `api-key`, `password`, `token`, `certificate`, `anonymous`.
    pub kind: &'static str,
    /// Roles, sorted.
    pub roles: Vec<String>,
    /// Tenant whose data it may see.
    pub tenant: String,
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExternalTool {
    /// Name.
    pub name: String,
    /// `read`, `write` or `destructive`.
    pub risk: &'static str,
    /// Category of a writing tool.
    pub category: Option<String>,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Call a tool.
    Call,
    /// Read a resource.
    Read,
    /// Get a prompt.
    Prompt,
    /// Complete an argument of a prompt, or a variable of a resource's address.
    Complete,
}

impl Action {
    /// As policies and records write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Read => "read",
            Self::Prompt => "prompt",
            Self::Complete => "complete",
        }
    }
}

/// The document an external policy decides on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExternalInput {
    /// Who.
    pub principal: ExternalPrincipal,
    /// `call`, `read`, `prompt` or `complete`.
    pub action: &'static str,
    /// The tool; for the other actions the URI, the prompt, or what is completed, with the risk `read`.
    pub tool: ExternalTool,
    /// The arguments as the caller wrote them, after they were checked against the tool's schema.
    pub arguments: Map<String, Value>,
    /// Tenant whose data is asked for.
    pub tenant: String,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The rule of the house that allowed it so far.
    pub allowed_by: Arc<str>,
}

impl ExternalInput {
    /// The document for something the rules of the house allowed. `arguments` are those of the tool or prompt; for a
    /// completion the name of the argument and the text so far.
    pub fn new(permit: &Permit, action: Action, what: ExternalTool, arguments: &Map<String, Value>, now: Timestamp) -> Self {
        let principal = permit.principal();
        Self {
            principal: ExternalPrincipal {
                id: principal.id.to_string(),
                kind: credential_word(&principal.credential),
                roles: principal.roles.iter().map(ToString::to_string).collect(),
                tenant: principal.tenant.to_string(),
            },
            action: action.as_str(),
            tool: what,
            arguments: arguments.clone(),
            tenant: permit.scope().tenant.to_string(),
            time: now.to_string(),
            allowed_by: permit.rule().clone(),
        }
    }
}

/// What an external policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum ExternalDecision {
    /// Nothing against it.
    Allow,
    /// Refused.
    Deny {
        /// Why, for the audit record; the caller does not see it.
        reason: String,
    },
    /// No clear answer; the gate refuses.
    Unavailable {
        /// What went wrong, for the log.
        reason: String,
    },
}

impl ExternalDecision {
    /// Whether the call may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// A decision source outside of this process.
#[async_trait]
pub trait ExternalPolicy: Send + Sync {
    /// Its name in logs and in the audit record.
    fn name(&self) -> &str;

    /// Decides. Must end by the permit's deadline, and must not allow what it could not ask.
    async fn decide(&self, permit: &Permit, input: &ExternalInput) -> ExternalDecision;
}

/// The word for how a principal proved itself.
pub(crate) fn credential_word(credential: &CredentialKind) -> &'static str {
    match credential {
        CredentialKind::Local => "local",
        CredentialKind::ApiKey { .. } => "api-key",
        CredentialKind::Password { .. } => "password",
        CredentialKind::Token { .. } => "token",
        CredentialKind::Certificate { .. } => "certificate",
        CredentialKind::Anonymous => "anonymous",
    }
}

/// Whether `principal` has one of `roles`; an empty list means everybody.
pub(crate) fn has_one_of(principal: &Principal, roles: &[String]) -> bool {
    roles.is_empty() || roles.iter().any(|r| principal.roles.contains(r.as_str()))
}

//! Asking a backend in the caller's own name: the credential comes from whoever can exchange the caller's token, for one
//! permit at a time (RFC 8693). Guards that a source set up like this is never asked with anybody else's credential: without
//! one for this caller nothing is sent. Must not see the caller's own token.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, Secret};
use portcullis_policy::{Permit, Purpose};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Credential;

/// Whom a credential is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeTarget {
    /// URL of the backend (RFC 8707 `resource`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Logical name of the backend at the authorization server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Scopes the token shall have, separated by spaces; as few as the backend needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// Why there is no credential in this caller's name. `Display` is the operator's text and holds no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerFault {
    /// The caller's to mend: it came without an access token that can be exchanged.
    #[error("the caller presented no access token that can be exchanged")]
    NoToken,
    /// The caller's to mend: its token is at its end.
    #[error("the caller's token has expired")]
    Expired,
    /// The authorization server gives none.
    #[error("{0}")]
    Refused(String),
    /// The authorization server, or the record of the exchange, is not to be had.
    #[error("{0}")]
    Unavailable(String),
    /// Nobody calls: standing work, and the source has no credential of its own for it.
    #[error("standing work has no credential here: the source is asked in the names of callers only")]
    Nobody,
}

impl CallerFault {
    /// The fault a client sees.
    pub(crate) fn fault(&self, source: &str) -> Fault {
        match self {
            Self::NoToken => Fault::new(
                FaultCode::Forbidden,
                format!("credential unavailable: source '{source}' is asked in the caller's own name, and you came without an access token"),
            )
            .with_hint("sign in at the authorization server of this server and call again with its access token; API keys and passwords do not reach this source"),
            Self::Expired => Fault::new(FaultCode::Unauthenticated, "the access token has expired; get a new one"),
            Self::Refused(_) => Fault::new(
                FaultCode::Forbidden,
                format!("credential unavailable: the authorization server gives you no token for source '{source}'"),
            ),
            Self::Unavailable(_) => Fault::new(
                FaultCode::Unavailable,
                format!("credential unavailable: no token for source '{source}' can be had at the moment"),
            )
            .with_retry_after(5),
            Self::Nobody => Fault::new(
                FaultCode::BackendFailed,
                format!("source '{source}' is asked in the names of callers only; how it stands is not known here"),
            ),
        }
    }
}

/// Whoever has credentials in the names of callers.
#[async_trait]
pub trait CallerCredentials: Send + Sync + fmt::Debug {
    /// A credential for `target`, in the name of the caller of this permit.
    ///
    /// # Errors
    /// When there is none; the request must then fail, never go on with another credential.
    async fn in_the_name_of(&self, permit: &Permit, target: &ExchangeTarget) -> Result<Secret, CallerFault>;
}

/// Authentication in the caller's own name.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// Who has the credentials.
    pub callers: Arc<dyn CallerCredentials>,
    /// Whom they are for.
    pub target: ExchangeTarget,
    /// The source's own credential, for standing work (health checks) and for nothing else.
    pub standing: Option<Credential>,
}

impl PartialEq for Exchanged {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.callers, &other.callers) && self.target == other.target && self.standing == other.standing
    }
}

impl Eq for Exchanged {}

/// What an exchange brought, or why nothing.
pub(crate) enum Got {
    Secret(Secret),
    Standing(Credential),
}

impl Exchanged {
    pub(crate) async fn for_permit(&self, permit: &Permit) -> Result<Got, CallerFault> {
        match (permit.purpose(), &self.standing) {
            (Purpose::Charter { .. }, Some(own)) => Ok(Got::Standing(own.clone())),
            (Purpose::Charter { .. }, None) => Err(CallerFault::Nobody),
            _ => self.callers.in_the_name_of(permit, &self.target).await.map(Got::Secret),
        }
    }
}

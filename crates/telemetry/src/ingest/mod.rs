//! The OTLP door: HTTP and gRPC. Decides who may send, how much and how fast, before anything is decoded; the tenant
//! comes from the authorizer, never from the payload.

mod frames;
mod gate;
mod grpc;
mod http;
mod limits;
mod partial;
mod rpc_status;

use async_trait::async_trait;
use axum::http::Extensions;
use portcullis_model::{FaultCode, TenantId, Whence};
use portcullis_wire::{Refusals as _, RequestRefusal, rules};

pub use gate::OtlpDoor;
pub use limits::IngestLimits;

/// By which of the doors something came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// OTLP over HTTP.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

/// What is known about the sender of a request.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// Value of the one `Authorization` header.
    pub authorization: Option<&'a str>,
    /// By which door.
    pub way: Way,
    /// Where the request comes from, as far as the listener believes it.
    pub whence: &'a Whence,
    /// What the listener made known of the connection, such as a verified client certificate.
    pub known: &'a Extensions,
}

/// Decides whose records a sender may write. Wired by the binary with `identity`.
#[async_trait]
pub trait IngestAuthorizer: Send + Sync {
    /// The tenant of this sender, or why it is refused.
    async fn authorize(&self, sender: &Sender<'_>) -> Result<TenantId, IngestRefusal>;

    /// A request was refused for another reason than its credential, mostly before it was known who sends. For whoever
    /// keeps records.
    fn refused(&self, _way: Way, refusal: RequestRefusal<'_>) {
        ().refused(refusal);
    }
}

/// Why a sender is refused. The sentences go to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestRefusal {
    /// No credential, or one that does not verify: HTTP 401, gRPC UNAUTHENTICATED.
    #[error("{0}")]
    Unauthenticated(String),
    /// A credential that may not ingest: HTTP 403, gRPC PERMISSION_DENIED.
    #[error("{0}")]
    Forbidden(String),
    /// Too often, or nobody can be verified now: HTTP 429 or 503, gRPC RESOURCE_EXHAUSTED or UNAVAILABLE, with the time.
    #[error("{sentence}")]
    NotNow {
        /// For the sender.
        sentence: String,
        /// Seconds after which the sender may come again.
        retry_after: u64,
        /// Whether the sender came too often; otherwise it is the server that cannot verify.
        too_often: bool,
    },
}

/// Everybody on this machine writes to one tenant; everybody else is refused.
#[derive(Debug, Clone)]
pub struct LoopbackOnly {
    tenant: TenantId,
}

impl LoopbackOnly {
    /// Loopback senders write to `tenant`.
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant }
    }
}

#[async_trait]
impl IngestAuthorizer for LoopbackOnly {
    async fn authorize(&self, sender: &Sender<'_>) -> Result<TenantId, IngestRefusal> {
        if sender.whence.is_near() {
            Ok(self.tenant.clone())
        } else {
            Err(IngestRefusal::Unauthenticated(
                "a key with the scope `ingest` is needed from other machines and through proxies".into(),
            ))
        }
    }
}

/// How one request ended, for counters and audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Refused by the authorizer.
    Credential(IngestRefusal),
    /// A browser page or a rebound name.
    Origin(String),
    /// More than the door takes.
    TooLarge(String),
    /// More than one `Authorization` header.
    TwoCredentials,
    /// Not OTLP.
    Malformed(String),
    /// A content type or encoding nobody here speaks.
    Unsupported(String),
    /// Come back later.
    Busy {
        /// Seconds.
        retry_after: u64,
        /// Why.
        reason: String,
    },
    /// The store cannot take anything now.
    Unavailable(String),
    /// The body took too long.
    Slow,
}

impl Refused {
    /// The rule and the code in the record; nothing for credentials, whose refusals the authorizer knows.
    pub(crate) fn recorded(&self) -> Option<(&'static str, FaultCode)> {
        Some(match self {
            Self::Credential(_) => return None,
            // Said to the sender in one sentence; the host is looked at first.
            Self::Origin(sentence) if sentence.starts_with("the Host") => (rules::HOST, FaultCode::Forbidden),
            Self::Origin(_) => (rules::ORIGIN, FaultCode::Forbidden),
            Self::TooLarge(_) => (rules::BODY_SIZE, FaultCode::TooLarge),
            Self::TwoCredentials => (rules::TWO_CREDENTIALS, FaultCode::InvalidArgument),
            Self::Malformed(_) => (rules::MALFORMED_BODY, FaultCode::InvalidArgument),
            Self::Unsupported(_) => (rules::MEDIA_TYPE, FaultCode::InvalidArgument),
            Self::Busy { .. } => (rules::BUSY, FaultCode::RateLimited),
            Self::Unavailable(_) => ("unavailable", FaultCode::Unavailable),
            Self::Slow => (rules::BODY_TIME, FaultCode::DeadlineExceeded),
        })
    }

    /// The reason, for counters.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Credential(_) => "credential",
            Self::Origin(_) => "origin",
            Self::TooLarge(_) => "too_large",
            Self::TwoCredentials => "two_credentials",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Busy { .. } => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::Slow => "slow",
        }
    }

    /// The sentence for the sender.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Credential(refusal) => refusal.to_string(),
            Self::Origin(m) | Self::TooLarge(m) | Self::Malformed(m) | Self::Unsupported(m) | Self::Unavailable(m) => m.clone(),
            Self::Busy { retry_after, reason } => format!("{reason}; retry after {retry_after} s"),
            Self::TwoCredentials => "the request has more than one Authorization header; send one".into(),
            Self::Slow => "the body did not arrive in time".into(),
        }
    }
}

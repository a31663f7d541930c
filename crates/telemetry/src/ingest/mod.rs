//! The OTLP door: HTTP and gRPC. Decides who may send, how much and how fast, before anything is decoded; the tenant
//! comes from the authorizer, never from the payload.

mod gate;
mod grpc;
mod http;
mod limits;
mod partial;
mod rpc_status;

use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use portcullis_model::TenantId;

pub use gate::OtlpDoor;
pub use limits::IngestLimits;

/// Decides whose records a sender may write. Wired by the binary with `identity`.
#[async_trait]
pub trait IngestAuthorizer: Send + Sync {
    /// The tenant for a request with this `Authorization` header from this peer, or why it is refused.
    async fn authorize(&self, authorization_header: Option<&str>, peer: SocketAddr) -> Result<TenantId, IngestRefusal>;

    /// The same for a request that a proxy sent on, by its own headers: the peer is the proxy, where the request comes
    /// from is not known, so nothing may be granted for being near. Unless it is written otherwise, the sender then
    /// comes from nowhere (`0.0.0.0`).
    async fn authorize_forwarded(
        &self,
        authorization_header: Option<&str>,
        _proxy: SocketAddr,
    ) -> Result<TenantId, IngestRefusal> {
        self.authorize(authorization_header, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await
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
    async fn authorize(&self, _authorization_header: Option<&str>, peer: SocketAddr) -> Result<TenantId, IngestRefusal> {
        if peer.ip().to_canonical().is_loopback() {
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
    /// The sentence for the sender.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Credential(refusal) => refusal.to_string(),
            Self::Origin(m) | Self::TooLarge(m) | Self::Malformed(m) | Self::Unsupported(m) | Self::Unavailable(m) => m.clone(),
            Self::Busy { retry_after, reason } => format!("{reason}; retry after {retry_after} s"),
            Self::Slow => "the body did not arrive in time".into(),
        }
    }
}

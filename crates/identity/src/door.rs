//! The question asked at every door: who is this? Answered from the transport, the `Authorization` header and the
//! peer's address, and from nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{Clock, CredentialKind, InvalidName, Principal, TenantId};

use crate::certificate::ClientCertificate;
use crate::format::KEY_PREFIX;
use crate::limiter::FailureLimiter;
use crate::local::anonymous;
use crate::record::Door;
use crate::refusal::{IdentityRefusal, RefusalReason};
use crate::ring::KeyRing;

/// How the caller came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Standard input and output of a process the user started.
    Stdio,
    /// The network.
    Http,
}

impl Transport {
    /// The name used in audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
        }
    }
}

/// What a caller presented.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// How it came in.
    pub transport: Transport,
    /// Value of the one `Authorization` header. A request with several must be refused before this point.
    pub authorization: Option<&'a str>,
    /// The client certificate, where TLS asked for one and verified it.
    pub certificate: Option<&'a ClientCertificate>,
    /// The other end of the connection, a proxy's too; failures count against it.
    pub peer: Option<SocketAddr>,
    /// Whether the request says that a proxy sent it on (`Forwarded`, `X-Forwarded-For`). Then `peer` is not the
    /// caller, and nothing is granted for an address.
    pub forwarded: bool,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("transport", &self.transport)
            .field("authorization", &self.authorization.map(|_| "***"))
            .field("certificate", &self.certificate.map(ClientCertificate::fingerprint))
            .field("peer", &self.peer)
            .field("forwarded", &self.forwarded)
            .finish()
    }
}

impl<'a> Presented<'a> {
    /// The local user at the standard streams.
    pub fn stdio() -> Self {
        Self { transport: Transport::Stdio, authorization: None, certificate: None, peer: None, forwarded: false }
    }

    /// A request over the network, without a client certificate, straight from `peer`.
    pub fn http(authorization: Option<&'a str>, peer: Option<SocketAddr>) -> Self {
        Self { transport: Transport::Http, authorization, certificate: None, peer, forwarded: false }
    }

    /// The caller's own address, where it is known.
    pub(crate) fn caller_address(&self) -> Option<IpAddr> {
        self.peer.filter(|_| !self.forwarded).map(|peer| peer.ip().to_canonical())
    }

    fn comes_over_loopback(&self) -> bool {
        self.caller_address().is_some_and(|address| address.is_loopback())
    }
}

/// Verifies tokens of an OpenID provider or OAuth authorization server.
#[async_trait]
pub trait TokenVerifier: Send + Sync + std::fmt::Debug {
    /// Whose token this is.
    ///
    /// # Errors
    /// Why it is not accepted; a reason that blames the token counts against the caller's address.
    async fn verify(&self, token: &str) -> Result<Arc<Principal>, IdentityRefusal>;

    /// Whether the text has the shape of such a token. Cheap, and says nothing about whether it is valid.
    fn looks_like(&self, token: &str) -> bool;
}

/// Knows who may come in.
#[derive(Debug)]
pub struct Identity {
    keys: Option<KeyRing>,
    local: Arc<Principal>,
    tokens: Option<Arc<dyn TokenVerifier>>,
    anonymous_loopback: Option<Arc<Principal>>,
    open_ingest_on_loopback: bool,
    failures: FailureLimiter,
}

impl Identity {
    /// API keys where there is a ring, `local` on stdio, nobody without a credential, and telemetry from loopback
    /// peers without a key.
    pub fn new(keys: Option<KeyRing>, local: Principal, clock: Arc<dyn Clock>) -> Self {
        Self {
            keys,
            local: Arc::new(local),
            tokens: None,
            anonymous_loopback: None,
            open_ingest_on_loopback: true,
            failures: FailureLimiter::new(clock),
        }
    }

    /// Lets loopback peers without a credential ask, with `role`.
    pub fn with_anonymous_loopback(mut self, role: &str) -> Result<Self, InvalidName> {
        self.anonymous_loopback = Some(Arc::new(anonymous(role)?));
        Ok(self)
    }

    /// Whether loopback peers may send telemetry without a key. Switch it off for listeners beyond loopback.
    #[must_use]
    pub fn with_open_ingest_on_loopback(mut self, open: bool) -> Self {
        self.open_ingest_on_loopback = open;
        self
    }

    /// Accepts tokens that `verifier` verifies.
    #[must_use]
    pub fn with_token_verifier(mut self, verifier: Arc<dyn TokenVerifier>) -> Self {
        self.tokens = Some(verifier);
        self
    }

    /// The key ring, where there is one.
    pub fn keys(&self) -> Option<&KeyRing> {
        self.keys.as_ref()
    }

    /// Whether somebody without a credential is let in from loopback, for the start-up report.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous_loopback.is_some()
    }

    /// Who wants to ask.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Arc<Principal>, IdentityRefusal> {
        if presented.transport == Transport::Stdio {
            return Ok(Arc::clone(&self.local));
        }
        match presented.authorization {
            Some(authorization) => self.verify(authorization, presented.peer, Door::Mcp).await,
            None => match &self.anonymous_loopback {
                Some(anonymous) if presented.comes_over_loopback() => Ok(Arc::clone(anonymous)),
                _ => Err(IdentityRefusal::new(RefusalReason::NoCredential)),
            },
        }
    }

    /// Whose telemetry this is.
    pub async fn identify_ingest(&self, presented: &Presented<'_>) -> Result<TenantId, IdentityRefusal> {
        match presented.authorization {
            Some(authorization) => {
                self.verify(authorization, presented.peer, Door::Ingest).await.map(|principal| principal.tenant.clone())
            }
            None if self.open_ingest_on_loopback && presented.comes_over_loopback() => Ok(TenantId::default_tenant()),
            None => Err(IdentityRefusal::new(RefusalReason::NoCredential)),
        }
    }

    async fn verify(&self, authorization: &str, peer: Option<SocketAddr>, door: Door) -> Result<Arc<Principal>, IdentityRefusal> {
        self.failures.check(peer).map_err(IdentityRefusal::rate_limited)?;
        let verified = match bearer(authorization) {
            Ok(credential) => self.bearer(credential).await,
            Err(refusal) => Err(refusal),
        };
        match verified {
            Ok(principal) if principal.opens(door.as_str()) => Ok(principal),
            Ok(principal) => {
                let key = match &principal.credential {
                    CredentialKind::ApiKey { id } => Some(id.clone()),
                    _ => None,
                };
                Err(IdentityRefusal::of_key(RefusalReason::WrongDoor, key))
            }
            Err(refusal) => {
                if refusal.reason.counts_as_failure() {
                    self.failures.failed(peer);
                }
                Err(refusal)
            }
        }
    }
}

impl Identity {
    /// A key of ours, or a token for the verifier.
    async fn bearer(&self, credential: &str) -> Result<Arc<Principal>, IdentityRefusal> {
        if !credential.starts_with(KEY_PREFIX)
            && let Some(tokens) = self.tokens.as_ref().filter(|tokens| tokens.looks_like(credential))
        {
            return tokens.verify(credential).await;
        }
        match &self.keys {
            Some(ring) => ring.verify(credential),
            None => Err(IdentityRefusal::new(RefusalReason::NoKeyRing)),
        }
    }
}

/// The token of `Bearer <token>`; the scheme in any case, RFC 9110 section 11.1.
fn bearer(authorization: &str) -> Result<&str, IdentityRefusal> {
    let refused = || IdentityRefusal::new(RefusalReason::UnsupportedScheme);
    let (scheme, token) = authorization.trim().split_once(' ').ok_or_else(refused)?;
    let token = token.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(char::is_whitespace) {
        return Err(refused());
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_token_is_read() {
        assert_eq!(bearer("Bearer abc").unwrap(), "abc");
        assert_eq!(bearer("bEARER   abc ").unwrap(), "abc");
        for wrong in ["", "abc", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer a, Bearer b", "Bearera b", "Bearer\tabc"]
        {
            assert_eq!(bearer(wrong).unwrap_err().reason, RefusalReason::UnsupportedScheme, "{wrong:?}");
        }
    }

    #[test]
    fn what_was_presented_never_prints() {
        let presented = Presented::http(Some("Bearer pcl_secret"), None);
        assert!(!format!("{presented:?}").contains("pcl_"));
    }
}

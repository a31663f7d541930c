//! What HTTP and gRPC share: the order of checks in front of the store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::{Extensions, HeaderMap, header};
use portcullis_model::{FaultCode, TenantId, Whence};
use portcullis_wire::{RequestRefusal, Visitor, rules};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::RateLimit;
use super::{IngestAuthorizer, IngestLimits, Refused, Sender, Way};
use crate::error::StoreError;
use crate::store::{IngestError, RETRY_AFTER_SECONDS, Store};

/// The OTLP door of one store: make it once, serve it over HTTP and gRPC.
#[derive(Clone)]
pub struct OtlpDoor {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) limits: IngestLimits,
    authorizer: Arc<dyn IngestAuthorizer>,
    rate: RateLimit,
    places: Arc<Semaphore>,
    hosts: Vec<String>,
}

impl std::fmt::Debug for OtlpDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpDoor").field("limits", &self.shared.limits).field("hosts", &self.shared.hosts).finish_non_exhaustive()
    }
}

impl OtlpDoor {
    /// A door to `store`. `allowed_hosts` are the names, without port, under which it may be reached besides loopback
    /// names; a request with an `Origin` is refused unless its host is one of them.
    pub fn new(store: Store, authorizer: Arc<dyn IngestAuthorizer>, limits: IngestLimits, allowed_hosts: Vec<String>) -> Self {
        let shared = Shared {
            store,
            rate: RateLimit::new(limits.bytes_per_second),
            places: Arc::new(Semaphore::new(limits.concurrent_requests)),
            limits,
            authorizer,
            hosts: allowed_hosts.into_iter().map(|h| h.to_ascii_lowercase()).collect(),
        };
        Self { shared: Arc::new(shared) }
    }
}

/// What a request says and shows about its sender.
pub(super) struct Caller {
    /// Value of the one `Authorization` header.
    authorization: Option<String>,
    /// The other end of the connection.
    visitor: Visitor,
    /// Where the request comes from.
    whence: Whence,
}

impl Caller {
    /// Reads the headers of a request and who the listener took it from; `whence` is what those say together.
    pub(super) fn read(headers: &HeaderMap, extensions: &Extensions, whence: Option<&Whence>) -> Result<Self, Refused> {
        let known = extensions.get::<Visitor>().cloned().zip(whence.cloned());
        let (visitor, whence) = known.ok_or_else(|| Refused::Unavailable("the peer's address is not known".into()))?;
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        // A header that is no text is no credential, but it was presented: it must not count as absent.
        let authorization = given.next().map(|value| value.to_str().unwrap_or("?").to_owned());
        if given.next().is_some() {
            return Err(Refused::TwoCredentials);
        }
        Ok(Self { authorization, visitor, whence })
    }
}

impl Shared {
    /// Who sends, before anything else is read.
    pub(super) async fn admit(&self, way: Way, caller: &Caller) -> Result<TenantId, Refused> {
        let sender =
            Sender { authorization: caller.authorization.as_deref(), way, whence: &caller.whence, known: &caller.visitor.known };
        self.authorizer.authorize(&sender).await.map_err(Refused::Credential)
    }

    /// Tells of a refusal that is no matter of credentials.
    pub(super) fn tell(&self, way: Way, whence: Option<&Whence>, refused: &Refused) {
        self.store.note_refused(refused.reason());
        if let Some((rule, code)) = refused.recorded() {
            self.authorizer.refused(way, RequestRefusal { whence, rule, code, detail: &refused.message() });
        }
    }

    /// Tells of bytes that never became a request of gRPC.
    pub(super) fn tell_garbage(&self, peer: SocketAddr, detail: &str) {
        let (rule, code) = (rules::MALFORMED_HTTP, FaultCode::InvalidArgument);
        let whence = Some(&Whence::direct(peer));
        self.authorizer.refused(Way::Grpc, RequestRefusal { whence, rule, code, detail });
    }

    /// Tells of a head that was refused before it became a request of gRPC.
    pub(super) fn tell_head(&self, peer: SocketAddr, detail: &str) {
        let (rule, code) = (rules::HEAD_SIZE, FaultCode::TooLarge);
        let whence = Some(&Whence::direct(peer));
        self.authorizer.refused(Way::Grpc, RequestRefusal { whence, rule, code, detail });
    }

    /// A place among the requests in work.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let busy = |_| Refused::Busy { retry_after: RETRY_AFTER_SECONDS, reason: "too many requests at once".into() };
        Arc::clone(&self.places).try_acquire_owned().map_err(busy)
    }

    /// The tenant's rate.
    pub(super) fn pace(&self, tenant: &TenantId, bytes: usize) -> Result<(), Refused> {
        let busy = |retry_after| Refused::Busy { retry_after, reason: "the tenant sends more than its rate allows".into() };
        self.rate.take(tenant, bytes, Instant::now()).map_err(busy)
    }

    /// Refuses pages in browsers and names that were rebound to this address. A loopback listener is reached only by
    /// loopback or listed names; elsewhere the name is checked when names are listed. A foreign origin is always refused.
    /// What the request line names itself must be what the header does: two readers could take either.
    pub(super) fn check_names(
        &self,
        local: SocketAddr,
        (line, header): (Option<&str>, Option<&str>),
        origin: Option<&str>,
    ) -> Result<(), Refused> {
        if let (Some(line), Some(header)) = (line, header)
            && !line.eq_ignore_ascii_case(header)
        {
            return Err(Refused::Origin(format!("the Host header is not the host of the request line, {line}")));
        }
        let host = header.or(line);
        let loopback = local.ip().to_canonical().is_loopback();
        if loopback || !self.hosts.is_empty() {
            let known = host.and_then(host_of).is_some_and(|name| self.knows(&name, loopback));
            if !known {
                return Err(Refused::Origin("the Host header does not name this server".into()));
            }
        }
        let Some(origin) = origin else { return Ok(()) };
        let known = origin.split_once("://").and_then(|(_, rest)| host_of(rest)).is_some_and(|name| self.knows(&name, loopback));
        if known { Ok(()) } else { Err(Refused::Origin("requests from web pages of other origins are refused".into())) }
    }

    fn knows(&self, name: &str, loopback: bool) -> bool {
        let is_loopback = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        (loopback && is_loopback) || self.hosts.iter().any(|h| h == name)
    }
}

/// The lower-case name in `name`, `name:port`, `[v6]` or `[v6]:port`; nothing when it is none of these.
fn host_of(authority: &str) -> Option<String> {
    let (name, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (name, rest) = rest.split_once(']')?;
        (name, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("0"))?)
    } else {
        authority.split_once(':').unwrap_or((authority, "0"))
    };
    let sound = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
        && port.parse::<u16>().is_ok();
    sound.then(|| name.to_ascii_lowercase())
}

/// What a failure of the store means to the sender.
pub(super) fn refused(error: IngestError) -> Refused {
    match error {
        IngestError::Malformed(detail) => Refused::Malformed(format!("the body is not a valid OTLP request: {detail}")),
        IngestError::TooHeavy(sentence) => Refused::TooLarge(sentence),
        IngestError::Store(StoreError::Overloaded { retry_after_seconds }) => {
            Refused::Busy { retry_after: retry_after_seconds, reason: "the store is receiving faster than it can write".into() }
        }
        IngestError::Store(StoreError::Closed) => Refused::Unavailable("the store is shutting down".into()),
        IngestError::Store(error) => {
            tracing::error!(%error, "a request could not be stored");
            Refused::Unavailable("the store cannot write now; retry later".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for (authority, name) in [
            ("localhost:4318", Some("localhost")),
            ("LOCALHOST", Some("localhost")),
            ("[::1]:4318", Some("::1")),
            ("[::1]", Some("::1")),
            ("127.0.0.1:4318", Some("127.0.0.1")),
            ("evil.example@localhost", None),
            ("localhost:80:90", None),
            ("localhost:x", None),
            ("", None),
            ("[::1", None),
            ("[::1]x", None),
        ] {
            assert_eq!(host_of(authority).as_deref(), name, "{authority}");
        }
    }
}

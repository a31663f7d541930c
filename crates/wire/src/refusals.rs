//! Requests that are refused before anybody knows who asks: a wrong `Host`, a foreign page, a head or body beyond its bound,
//! bytes that are no HTTP. Guards that each is told to whoever keeps the records. Must not decide how many of them are kept.

use portcullis_model::{FaultCode, Whence};

/// Such a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRefusal<'a> {
    /// Where the request comes from, where that is known.
    pub whence: Option<&'a Whence>,
    /// Short name of what refused, such as `host` or `body-size`.
    pub rule: &'static str,
    /// What the client was told.
    pub code: FaultCode,
    /// For the operator; may hold what the client sent.
    pub detail: &'a str,
}

/// The rules of refusals before identification, in all listeners.
pub mod rules {
    /// The `Host` header is missing, doubled, unreadable or none this server answers to.
    pub const HOST: &str = "host";
    /// A page of an origin that may not use this server.
    pub const ORIGIN: &str = "origin";
    /// The head of the request is larger than its bound.
    pub const HEAD_SIZE: &str = "head-size";
    /// The bytes are no HTTP.
    pub const MALFORMED_HTTP: &str = "malformed-http";
    /// The body is, or says it is, larger than its bound.
    pub const BODY_SIZE: &str = "body-size";
    /// The body did not arrive in time.
    pub const BODY_TIME: &str = "body-time";
    /// The body ended early, or is not what its framing says.
    pub const BODY_BROKEN: &str = "body-broken";
    /// More than one `Authorization` header.
    pub const TWO_CREDENTIALS: &str = "authorization-twice";
    /// A media type or an encoding nobody here reads.
    pub const MEDIA_TYPE: &str = "media-type";
    /// A body that is not what the protocol wants.
    pub const MALFORMED_BODY: &str = "malformed-body";
    /// More at once, or in a time, than the listener takes.
    pub const BUSY: &str = "busy";
}

/// Whoever keeps the records of them. Must not block for long and must bound what it keeps.
pub trait Refusals: Send + Sync {
    /// A request was refused.
    fn refused(&self, refusal: RequestRefusal<'_>);
}

/// Nobody keeps records: for tests and for servers that are none.
impl Refusals for () {
    fn refused(&self, refusal: RequestRefusal<'_>) {
        tracing::debug!(rule = refusal.rule, client = ?refusal.whence.map(Whence::client), "a request was refused");
    }
}

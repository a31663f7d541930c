//! One request as the gate needs to know it: who asks, in which era, what the client can do, which trace it belongs to.

use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::request::Parts;
use portcullis_gateway::{Caller, Gateway};
use portcullis_identity::Presented;
use portcullis_model::TraceContext;
use portcullis_ports::ClientAbilities;
use rmcp::RoleServer;
use rmcp::model::{ClientCapabilities, ErrorData, Extensions, ProtocolVersion};
use rmcp::service::RequestContext;

use crate::faults::{Asked, rpc_error};

/// Header that names a session of the older eras.
pub(crate) const SESSION_HEADER: &str = "mcp-session-id";

/// One request.
pub(crate) struct Turn {
    /// Who asks, identified for this very request.
    pub(crate) caller: Arc<Caller>,
    /// Whether it speaks the stateless revision.
    pub(crate) modern: bool,
    /// Whether the client can be sent requests of our own: it holds a session or the other end of our pipes.
    pub(crate) reachable: bool,
    /// What the client declared.
    pub(crate) abilities: ClientAbilities,
    /// Trace context, from `_meta` or the header.
    pub(crate) trace: TraceContext,
}

impl Turn {
    /// Reads a request.
    pub(crate) async fn of(gateway: &Gateway, context: &RequestContext<RoleServer>) -> Result<Self, ErrorData> {
        let parts = context.extensions.get::<Parts>();
        let caller = caller(gateway, &context.extensions).await?;
        let modern = context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        let reachable = !modern && parts.is_none_or(|p| p.headers.contains_key(SESSION_HEADER));
        let declared = match context.meta.client_capabilities() {
            Some(capabilities) => abilities(&capabilities),
            None if modern => ClientAbilities::default(),
            None => context.peer.peer_info().map(|info| abilities(&info.capabilities)).unwrap_or_default(),
        };
        let header = || parts.and_then(|p| p.headers.get("traceparent")).and_then(|value| value.to_str().ok());
        let trace = TraceContext::parse(context.meta.get_traceparent().or_else(header));
        Ok(Self { caller, modern, reachable, abilities: declared, trace })
    }
}

/// Who sent a message: on HTTP whoever the door identified for this request, on stdio the user of this process.
pub(crate) async fn caller(gateway: &Gateway, extensions: &Extensions) -> Result<Arc<Caller>, ErrorData> {
    match extensions.get::<Parts>() {
        Some(parts) => identified(parts),
        None => gateway.identify(&Presented::stdio()).await.map(Arc::new).map_err(|fault| rpc_error(fault, Asked::Other)),
    }
}

/// Headers that hold a credential. The door keeps them; a request that still has one did not pass it as it should.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Whom the door identified for a request over HTTP.
fn identified(parts: &Parts) -> Result<Arc<Caller>, ErrorData> {
    if CREDENTIALS.iter().any(|name| parts.headers.contains_key(name)) {
        return Err(ErrorData::internal_error("the request still holds its credential", None));
    }
    let caller = parts.extensions.get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| ErrorData::internal_error("the request was not identified", None))
}

/// What a client declared, as tools ask for it.
pub(crate) fn abilities(declared: &ClientCapabilities) -> ClientAbilities {
    ClientAbilities {
        // `elicitation: {}` means forms; a client that names only `url` cannot show one.
        elicitation: declared.elicitation.as_ref().is_some_and(|e| e.form.is_some() || e.url.is_none()),
        links: declared.elicitation.as_ref().is_some_and(|e| e.url.is_some()),
        sampling: declared.sampling.is_some(),
        roots: declared.roots.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_request_with_a_credential_is_not_served() {
        for name in CREDENTIALS {
            let (mut parts, ()) = http::Request::new(()).into_parts();
            assert_eq!(identified(&parts).unwrap_err().message, "the request was not identified");
            parts.headers.insert(&name, HeaderValue::from_static("x"));
            assert_eq!(identified(&parts).unwrap_err().message, "the request still holds its credential", "{name}");
        }
    }
}

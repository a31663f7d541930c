//! Which clients of the older eras get a session: what a session costs is only spent on who needs one. Guards that a request
//! that names a session, and everything of the stateless revision, is left alone.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::door::{BATCH_VERSION, VERSION_HEADER};
use crate::turn::SESSION_HEADER;

/// The revision without sessions.
const STATELESS: &str = "2026-07-28";

/// Which clients of the older eras get a session. All others are served request by request: they hear of no changes between
/// requests, and a call that needs an answer of the client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsFor {
    /// All.
    All,
    /// Those that declare that they answer requests of a server (elicitation, sampling, roots), and those that speak
    /// 2025-03-26, whose batches need one.
    Needed,
    /// None.
    Nobody,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::zero_sized_map_values, reason = "only names are looked at")]
struct Params<'a> {
    #[serde(borrow)]
    protocol_version: Option<Cow<'a, str>>,
    capabilities: Option<Answers>,
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

/// What a client declares when it answers requests of a server: those need a session to travel in.
#[derive(Deserialize)]
struct Answers {
    elicitation: Option<IgnoredAny>,
    sampling: Option<IgnoredAny>,
    roots: Option<IgnoredAny>,
}

/// Where a message of the stateless revision names it.
#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<IgnoredAny>,
}

/// Whether a message is served by itself, without a session, although it is of an older era.
pub(super) fn stands_alone(sessions: SessionsFor, parts: &Parts, body: &Bytes) -> bool {
    if sessions == SessionsFor::All || is_stateless_revision(&parts.headers) {
        return false;
    }
    if sessions == SessionsFor::Needed && parts.headers.contains_key(SESSION_HEADER) {
        return false;
    }
    if parts.method != Method::POST {
        return true;
    }
    // What cannot be read is refused where it is read in full.
    let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else { return false };
    let method = message.method.as_deref().unwrap_or_default();
    let params = message.params.as_ref();
    if method == "server/discover" || params.and_then(|p| p.meta.as_ref()).is_some_and(|meta| meta.version.is_some()) {
        return false;
    }
    method != "initialize" || sessions == SessionsFor::Nobody || !params.is_some_and(needs_session)
}

fn is_stateless_revision(headers: &HeaderMap) -> bool {
    headers.get(VERSION_HEADER).is_some_and(|version| version == STATELESS)
}

fn needs_session(opening: &Params<'_>) -> bool {
    let answers = |a: &Answers| a.elicitation.is_some() || a.sampling.is_some() || a.roots.is_some();
    opening.capabilities.as_ref().is_some_and(answers) || opening.protocol_version.as_deref() == Some(BATCH_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn alone(sessions: SessionsFor, headers: &[(&'static str, &str)], body: &Value) -> bool {
        let mut request = axum::http::Request::post("/mcp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        stands_alone(sessions, &parts, &Bytes::from(body.to_string()))
    }

    fn opening(version: &str, capabilities: &Value) -> Value {
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version, "capabilities": capabilities}})
    }

    #[test]
    fn a_session_is_for_who_answers_requests_or_sends_batches() {
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        for (headers, body, needed) in [
            (&[][..], opening("2025-11-25", &json!({})), true),
            (&[], opening("2025-11-25", &json!({"experimental": {}})), true),
            (&[], opening("2025-11-25", &json!({"roots": {}})), false),
            (&[], opening("2025-06-18", &json!({"elicitation": {}})), false),
            (&[], opening("2025-06-18", &json!({"sampling": {}})), false),
            (&[], opening("2025-03-26", &json!({})), false),
            (&[], list.clone(), true),
            (&[("mcp-protocol-version", "2025-11-25")], list.clone(), true),
            (&[("mcp-session-id", "x")], list.clone(), false),
            (&[("mcp-protocol-version", "2026-07-28")], list.clone(), false),
            (
                &[],
                json!({"method": "tools/list", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}}),
                false,
            ),
            (&[], json!({"method": "server/discover"}), false),
            (&[], json!({"jsonrpc": "2.0", "method": "notifications/initialized"}), true),
            (&[], json!([1]), false),
        ] {
            assert_eq!(alone(SessionsFor::Needed, headers, &body), needed, "{headers:?} {body}");
            assert!(!alone(SessionsFor::All, headers, &body), "{headers:?} {body}");
        }
        assert!(alone(SessionsFor::Nobody, &[], &opening("2025-11-25", &json!({"roots": {}}))));
    }
}

//! The short way for the request that is nearly all of the traffic: a complete `tools/call` of the stateless revision
//! whose answer is one JSON message. It ends in the same handler, and so in the same gate, as every other request.
//!
//! It refuses nothing. Whatever is not exactly of this shape (other methods, progress, log levels, retries, mirrored
//! arguments, encoded names, headers that do not agree) goes the long way through rmcp, which says what is wrong.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use portcullis_gateway::Caller;
use portcullis_model::TraceContext;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ErrorCode, JsonObject, RequestId, ServerJsonRpcMessage, ServerResult,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::answer::plain_refusal;
use crate::face::Face;
use crate::handler::Handler;
use crate::turn::{SESSION_HEADER, Turn, abilities};

const VERSION: &str = "2026-07-28";
const METHOD: &str = "tools/call";

/// A value that is written as a JSON object. A derived reader alone would also take an array for its members in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    jsonrpc: &'a str,
    id: RequestId,
    method: &'a str,
    #[serde(borrow)]
    params: Object<Params<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    arguments: Option<JsonObject>,
    #[serde(default)]
    input_responses: Option<IgnoredAny>,
    #[serde(default)]
    request_state: Option<IgnoredAny>,
    #[serde(rename = "_meta", borrow)]
    meta: Object<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: &'a str,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Object<ClientCapabilities>,
    #[serde(rename = "io.modelcontextprotocol/logLevel", default)]
    level: Option<IgnoredAny>,
    #[serde(rename = "progressToken", default)]
    progress: Option<IgnoredAny>,
    #[serde(rename = "portcullis/unredacted", default)]
    unredacted: Option<IgnoredAny>,
    #[serde(default, borrow)]
    traceparent: Option<Cow<'a, str>>,
}

/// A request that may go the short way.
pub(super) struct Quick {
    id: RequestId,
    params: CallToolRequestParams,
    turn: Turn,
}

/// Reads a request of exactly this shape.
pub(super) fn read(face: &Face, headers: &HeaderMap, body: &[u8], caller: &Arc<Caller>) -> Option<Quick> {
    if !one(headers, "mcp-protocol-version", VERSION) || !one(headers, "mcp-method", METHOD) {
        return None;
    }
    if headers.contains_key(SESSION_HEADER) || headers.keys().any(|name| name.as_str().starts_with("mcp-param-")) {
        return None;
    }
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    let plain = accept.split(',').map(str::trim);
    if !["application/json", "text/event-stream"].iter().all(|wanted| plain.clone().any(|given| given == *wanted)) {
        return None;
    }
    let Object(Message { jsonrpc, id, method, params: Object(params) }) = serde_json::from_slice(body).ok()?;
    let Params { name, arguments, input_responses, request_state, meta: Object(meta) } = params;
    let agreed = jsonrpc == "2.0" && method == METHOD && meta.version == VERSION && one(headers, "mcp-name", &name);
    let single = meta.level.is_none()
        && meta.progress.is_none()
        && meta.unredacted.is_none()
        && input_responses.is_none()
        && request_state.is_none();
    if !agreed || !single || name.starts_with("=?") {
        return None;
    }
    if face.gateway.tool_spec(&name).is_some_and(|spec| face.cards.mirrored(&spec).is_some()) {
        return None;
    }
    let header = || headers.get("traceparent").and_then(|value| value.to_str().ok());
    let turn = Turn {
        caller: caller.clone(),
        modern: true,
        reachable: false,
        abilities: abilities(&meta.capabilities.0),
        trace: TraceContext::parse(meta.traceparent.as_deref().or_else(header)),
    };
    let mut request = CallToolRequestParams::new(name.into_owned());
    request.arguments = arguments;
    Some(Quick { id, params: request, turn })
}

/// Whether the header is there once, with this value.
fn one(headers: &HeaderMap, name: &str, value: &str) -> bool {
    let mut given = headers.get_all(name).iter();
    given.next().is_some_and(|first| first.as_bytes() == value.as_bytes()) && given.next().is_none()
}

impl Quick {
    /// Runs it. Dropping the future cancels the call.
    pub(super) async fn run(self, face: &Arc<Face>) -> Response {
        let handler = Handler::new(face.clone(), None);
        let (message, status) = match handler.call(None, &self.turn, self.params).await {
            Ok(answer) => (ServerJsonRpcMessage::response(ServerResult::from(answer), self.id), StatusCode::OK),
            Err(error) => {
                let status = match error.code {
                    ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY => StatusCode::BAD_REQUEST,
                    _ => StatusCode::OK,
                };
                (ServerJsonRpcMessage::error(error, Some(self.id)), status)
            }
        };
        let Ok(body) = serde_json::to_vec(&message) else {
            return plain_refusal(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written");
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_objects_are_read() {
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let read = |text: &str| serde_json::from_str::<Object<Message<'_>>>(text).is_ok();
        let message = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let params = format!(r#"{{"name":"t","_meta":{meta}}}"#);
        assert!(read(&message(&params)));
        assert!(!read(&format!(r#"["2.0",1,"tools/call",{params}]"#)), "a message by position");
        assert!(!read(&message(&format!(r#"["t",{{}},null,null,{meta}]"#))), "parameters by position");
        assert!(!read(&message(r#"{"name":"t","_meta":["2026-07-28",{}]}"#)), "_meta by position");
        assert!(!read(&message(&params.replace("{}", "[]"))), "capabilities as an array");
    }

    #[test]
    fn a_header_counts_only_once() {
        assert!(one(&headers(&[("mcp-name", "a")]), "mcp-name", "a"));
        assert!(!one(&headers(&[("mcp-name", "a"), ("mcp-name", "a")]), "mcp-name", "a"));
        assert!(!one(&headers(&[("mcp-name", "b")]), "mcp-name", "a"));
        assert!(!one(&headers(&[]), "mcp-name", "a"));
    }
}

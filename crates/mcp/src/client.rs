//! A client of the protocol, for the demo and for checks from outside: it speaks 2026-07-28 through an [`EgressClient`],
//! under a charter, so that its connections obey the same rules as every other.
//!
//! The credential is the egress client's and never passes through here. No rmcp type leaves this file. It reads whole
//! responses and opens no standing streams, so it cannot subscribe; what a server says on the way to an answer
//! (progress, log messages) arrives with the answer and is dropped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use portcullis_egress::{EgressClient, EgressError, EgressRequest, EgressResponse};
use portcullis_policy::Charter;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ClientJsonRpcMessage, ContentBlock, Implementation, ProtocolVersion,
    ServerJsonRpcMessage,
};
use rmcp::service::{ClientInitializeError, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Map, Value};
use sse_stream::{Sse, SseStream};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const SESSION: &str = "mcp-session-id";
/// Characters of an unreadable answer that are repeated in the error.
const SHOWN: usize = 200;

/// A conversation with one server, in the stateless revision 2026-07-28.
#[derive(Debug)]
pub struct McpClient {
    service: RunningService<RoleClient, ClientConfig>,
}

/// A tool as the server lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedTool {
    /// Its name.
    pub name: String,
    /// All that is listed about it: `name`, `title`, `description`, `inputSchema`, `outputSchema`, `annotations`.
    pub definition: Value,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// The text parts, joined by line breaks.
    pub text: String,
    /// The structured result, when there is one.
    pub structured: Option<Value>,
    /// Whether the tool says that it failed.
    pub is_error: bool,
    /// Parts that are no text (images, resources) and are therefore not in [`ToolAnswer::text`].
    pub other_parts: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum McpClientError {
    /// The server could not be reached, does not speak 2026-07-28, or does not know the credential. For the operator.
    #[error("no conversation with the MCP server: {0}")]
    Connect(String),
    /// The server refused the request. For the caller; the message says what would be right.
    #[error("the server refused: {message} (JSON-RPC error {code})")]
    Refused {
        /// JSON-RPC error code.
        code: i32,
        /// The server's sentence.
        message: String,
    },
    /// The answer did not arrive, or is not one.
    #[error("no answer from the MCP server: {0}")]
    Transport(String),
}

impl McpClient {
    /// Greets the server at the base URL of `egress` (which names the whole endpoint, such as `http://127.0.0.1:7468/mcp`)
    /// with `server/discover`. Every request runs under a permit of its own, made from `charter`.
    ///
    /// # Errors
    /// [`McpClientError::Connect`].
    pub async fn connect(egress: EgressClient, charter: Charter, name: &str) -> Result<Self, McpClientError> {
        let config = StreamableHttpClientTransportConfig::with_uri(egress.origin()).reinit_on_expired_session(false);
        let transport = StreamableHttpClientTransport::with_client(Wire { egress, charter }, config);
        let about = Implementation::new(name, env!("CARGO_PKG_VERSION"));
        let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        let service = ClientConfig::new(ClientCapabilities::default(), about)
            .serve_with_lifecycle(transport, mode)
            .await
            .map_err(|error| McpClientError::Connect(connect_error(&error)))?;
        Ok(Self { service })
    }

    /// The protocol version in use.
    pub fn protocol_version(&self) -> String {
        self.service.peer_info().map(|info| info.protocol_version.to_string()).unwrap_or_default()
    }

    /// What the server tells a model before its first call; empty when nothing.
    pub fn instructions(&self) -> String {
        self.service.peer_info().and_then(|info| info.instructions.clone()).unwrap_or_default()
    }

    /// Every tool this credential may call, all pages.
    pub async fn list_tools(&self) -> Result<Vec<ListedTool>, McpClientError> {
        let tools = self.service.list_all_tools().await.map_err(|error| failure(&error))?;
        let listed = tools.into_iter().map(|tool| {
            let definition = serde_json::to_value(&tool).map_err(|error| McpClientError::Transport(error.to_string()))?;
            Ok(ListedTool { name: tool.name.into_owned(), definition })
        });
        listed.collect()
    }

    /// Calls a tool. A tool that says it failed is an answer with [`ToolAnswer::is_error`], not an error.
    pub async fn call_tool(&self, name: &str, arguments: Map<String, Value>) -> Result<ToolAnswer, McpClientError> {
        let request = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        let result = self.service.call_tool(request).await.map_err(|error| failure(&error))?;
        let parts = result.content.len();
        let texts: Vec<String> = result
            .content
            .into_iter()
            .filter_map(|part| match part {
                ContentBlock::Text(text) => Some(text.text),
                _ => None,
            })
            .collect();
        Ok(ToolAnswer {
            other_parts: parts - texts.len(),
            text: texts.join("\n"),
            structured: result.structured_content,
            is_error: result.is_error.unwrap_or(false),
        })
    }

    /// Ends the conversation. The server keeps nothing of it; this only stops the local task.
    pub async fn close(self) {
        if let Err(error) = self.service.cancel().await {
            tracing::debug!(%error, "the client's task ended badly");
        }
    }
}

fn connect_error(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::JsonRpcError(data) => format!("{} (JSON-RPC error {})", data.message, data.code.0),
        ClientInitializeError::TransportError { error, .. } => causes(error.error.as_ref()),
        other => other.to_string(),
    }
}

fn failure(error: &ServiceError) -> McpClientError {
    match error {
        ServiceError::McpError(data) => McpClientError::Refused { code: data.code.0, message: data.message.to_string() },
        ServiceError::TransportSend(error) => McpClientError::Transport(causes(error.error.as_ref())),
        other => McpClientError::Transport(other.to_string()),
    }
}

/// An error and its causes in one line, each said once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// rmcp's HTTP backend over an egress client.
#[derive(Debug, Clone)]
struct Wire {
    egress: EgressClient,
    charter: Charter,
}

type WireError = StreamableHttpError<EgressError>;

impl Wire {
    async fn send(
        &self,
        method: Method,
        body: Option<Vec<u8>>,
        session: Option<Arc<str>>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<EgressResponse, WireError> {
        let mut request = EgressRequest::new(method, Vec::<String>::new()).header(ACCEPT.as_str(), format!("{JSON}, {EVENTS}"));
        if let Some(session) = session {
            request = request.header(SESSION, session.as_ref());
        }
        for (name, value) in &headers {
            let Ok(value) = value.to_str() else { return Err(WireError::ReservedHeaderConflict(name.to_string())) };
            request = request.header(name.as_str(), value);
        }
        if let Some(body) = body {
            request = request.bytes(JSON, Bytes::from(body));
        }
        self.egress.send(&self.charter.permit(), request).await.map_err(WireError::Client)
    }
}

impl StreamableHttpClient for Wire {
    type Error = EgressError;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, WireError> {
        let with_session = session_id.is_some();
        let body = serde_json::to_vec(&message)?;
        let response = self.send(Method::POST, Some(body), session_id, custom_headers).await?;
        read(response, &message, with_session)
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), WireError> {
        let response = self.send(Method::DELETE, None, Some(session_id), custom_headers).await?;
        if response.status.is_success() || response.status == StatusCode::METHOD_NOT_ALLOWED {
            return Ok(());
        }
        Err(unexpected(response.status, &response.body))
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        _session_id: Option<Arc<str>>,
        _last_event_id: Option<String>,
        _auth_header: Option<String>,
        _custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, WireError> {
        // A response is read to its end here, and a standing stream has none.
        Err(WireError::ServerDoesNotSupportSse)
    }
}

fn header(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn unexpected(status: StatusCode, body: &[u8]) -> WireError {
    let shown: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    let shown = if shown.is_empty() { "an empty body".to_owned() } else { shown };
    WireError::UnexpectedServerResponse(Cow::Owned(format!("HTTP {}: {shown}", status.as_u16())))
}

/// What a response to `message` means.
fn read(
    response: EgressResponse,
    message: &ClientJsonRpcMessage,
    with_session: bool,
) -> Result<StreamableHttpPostResponse, WireError> {
    let EgressResponse { status, headers, body } = response;
    if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    if status == StatusCode::UNAUTHORIZED {
        let challenge = header(&headers, WWW_AUTHENTICATE).unwrap_or("no challenge").to_owned();
        return Err(WireError::AuthRequired(AuthRequiredError::new(challenge)));
    }
    if status == StatusCode::NOT_FOUND && with_session {
        return Err(WireError::SessionExpired);
    }
    let kind = header(&headers, CONTENT_TYPE).unwrap_or_default().to_owned();
    let session = header(&headers, SESSION).map(str::to_owned);
    if !status.is_success() {
        return match correlated(&body, message).filter(|_| kind.starts_with(JSON)) {
            Some(error) => Ok(StreamableHttpPostResponse::Json(error, session)),
            None if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                let pause = header(&headers, RETRY_AFTER).map(str::to_owned);
                Err(WireError::HttpStatus(HttpStatusError::new(status.as_u16(), pause)))
            }
            None => Err(unexpected(status, &body)),
        };
    }
    if kind.starts_with(EVENTS) {
        let bytes = futures::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
        return Ok(StreamableHttpPostResponse::Sse(SseStream::from_bytes_stream(bytes).boxed(), session));
    }
    if !kind.starts_with(JSON) {
        return Err(WireError::UnexpectedContentType((!kind.is_empty()).then_some(kind)));
    }
    match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
        Ok(answer) => Ok(StreamableHttpPostResponse::Json(answer, session)),
        Err(_) => Err(unexpected(status, &body)),
    }
}

/// The JSON-RPC error in a failed response. It answers the request it is the response to, even when the server could not
/// tell the request's id.
fn correlated(body: &[u8], message: &ClientJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
    let ServerJsonRpcMessage::Error(mut error) = serde_json::from_slice(body).ok()? else { return None };
    if let (None, ClientJsonRpcMessage::Request(request)) = (&error.id, message) {
        error.id = Some(request.id.clone());
    }
    Some(ServerJsonRpcMessage::Error(error))
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ErrorCode, RequestId};
    use serde_json::json;

    use super::*;

    fn message() -> ClientJsonRpcMessage {
        serde_json::from_value(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"})).unwrap()
    }

    fn response(status: u16, kind: &str, body: &str) -> EgressResponse {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        EgressResponse { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from(body.to_owned()) }
    }

    #[tokio::test]
    async fn an_answer_is_read_as_json_and_as_events() {
        let body = r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[],"resultType":"complete"}}"#;
        let read_json = read(response(200, "application/json", body), &message(), false).unwrap();
        assert!(matches!(read_json, StreamableHttpPostResponse::Json(ServerJsonRpcMessage::Response(_), None)), "{read_json:?}");
        let events = format!("event: message\ndata: {body}\n\n");
        let read_events = read(response(200, "text/event-stream; charset=utf-8", &events), &message(), false).unwrap();
        let StreamableHttpPostResponse::Sse(stream, None) = read_events else { panic!("no stream: {read_events:?}") };
        let events: Vec<Sse> = stream.map(Result::unwrap).collect().await;
        assert_eq!(events.iter().filter_map(|event| event.data.as_deref()).collect::<Vec<_>>(), [body]);
        assert!(matches!(read(response(202, "", ""), &message(), false), Ok(StreamableHttpPostResponse::Accepted)));
    }

    #[test]
    fn a_refusal_keeps_its_words_and_finds_its_request() {
        let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"unknown tool"}}"#;
        for status in [400, 404, 429, 503] {
            let answer = read(response(status, "application/json", body), &message(), false).unwrap();
            let StreamableHttpPostResponse::Json(ServerJsonRpcMessage::Error(error), _) = answer else {
                panic!("no error: {answer:?}")
            };
            assert_eq!(error.id, Some(RequestId::Number(7)));
            assert_eq!((error.error.code, &*error.error.message), (ErrorCode::INVALID_PARAMS, "unknown tool"));
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let refused =
            |status, kind: &str, body: &str, session| read(response(status, kind, body), &message(), session).unwrap_err();
        assert!(matches!(refused(401, "application/json", "{}", false), WireError::AuthRequired(_)));
        assert!(matches!(refused(404, "text/plain", "gone", true), WireError::SessionExpired));
        let WireError::HttpStatus(busy) = refused(429, "text/plain", "slow down", false) else { panic!("not a status") };
        assert_eq!((busy.status, busy.retry_after.as_deref()), (429, Some("3")));
        assert!(matches!(refused(502, "text/html", "<html>", false), WireError::HttpStatus(_)));
        assert!(refused(400, "text/plain", "no\u{7}", false).to_string().contains("HTTP 400: no"));
        assert!(refused(200, "application/json", "{}", false).to_string().contains("HTTP 200: {}"));
        assert!(matches!(refused(200, "", "{}", false), WireError::UnexpectedContentType(None)));
        assert!(matches!(refused(200, "text/html", "{}", false), WireError::UnexpectedContentType(Some(_))));
    }
}

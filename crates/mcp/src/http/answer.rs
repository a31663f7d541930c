//! Answers of the door itself: JSON-RPC errors with the HTTP status that belongs to them, and the mending of rmcp's
//! plain-text refusals into the same shape.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use portcullis_gateway::Caller;
use portcullis_guard::{ClientFault, Released};
use portcullis_model::FaultCode;
use rmcp::model::{ErrorCode, ErrorData, RequestId};
use serde::Deserialize;
use serde_json::Value;

use crate::batch::error_message;
use crate::faults::{data, rpc_code};

/// Refusal of JSON that is no JSON-RPC message.
pub(crate) const NOT_RPC: &str =
    "the body is not a JSON-RPC 2.0 message: it needs jsonrpc, method and, for requests, an id that is not null";

/// The id of the request in `body`, so that an error can name it. Nothing when it cannot be told.
pub(crate) fn request_id(body: &[u8]) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct Envelope {
        id: Option<RequestId>,
    }
    serde_json::from_slice::<Envelope>(body).ok()?.id
}

/// A JSON-RPC error with its HTTP status.
#[expect(clippy::needless_pass_by_value, reason = "error and id end here; nearly every caller has just made them")]
pub(crate) fn rpc_refusal(status: StatusCode, error: ErrorData, id: Option<RequestId>) -> Response {
    let mut response = Response::new(Body::from(error_message(&error, id.as_ref()).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal in the door's own words.
pub(crate) fn plain_refusal(status: StatusCode, sentence: &'static str) -> Response {
    rpc_refusal(status, ErrorData::invalid_request(sentence, None), None)
}

/// A released fault with the HTTP status of its code.
pub(crate) fn fault_refusal(released: Released<ClientFault>, id: Option<RequestId>) -> Response {
    fault_refusal_with(released, id, &[])
}

/// The same, with more members of the `data` of its error.
pub(crate) fn fault_refusal_with(released: Released<ClientFault>, id: Option<RequestId>, more: &[(&str, &str)]) -> Response {
    let fault = released.into_inner();
    let status = match fault.code {
        FaultCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        FaultCode::Forbidden => StatusCode::FORBIDDEN,
        FaultCode::NotFound => StatusCode::NOT_FOUND,
        FaultCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        FaultCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        FaultCode::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    };
    let retry = fault.retry_after_seconds;
    let mut data = data(&fault);
    for (name, text) in more {
        data[*name] = Value::from(*text);
    }
    let error = ErrorData::new(rpc_code(fault.code), fault.message.clone(), Some(data));
    let mut response = rpc_refusal(status, error, id);
    if let Some(seconds) = retry {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer with what is left of the caller's rate, and when to come back after a refusal
/// (draft-ietf-httpapi-ratelimit-headers-10; `q` calls in `w` seconds, `r` left, full again after `t` seconds).
pub(crate) fn with_rate(mut response: Response, caller: &Caller) -> Response {
    let headers = response.headers_mut();
    if let Some(rate) = caller.rate() {
        let per_second = rate.per_second.max(1);
        let window = rate.burst.div_ceil(per_second);
        let full_after = rate.burst.saturating_sub(rate.remaining).div_ceil(per_second);
        let policy = format!("\"principal\";q={};w={window}", rate.burst);
        let state = format!("\"principal\";r={};t={full_after}", rate.remaining);
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
    if let Some(seconds) = caller.retry_after() {
        headers.entry(RETRY_AFTER).or_insert_with(|| HeaderValue::from(seconds));
    }
    response
}

/// A failed identification, with the challenge of RFC 6750 section 3.
pub(crate) fn challenge(released: Released<ClientFault>, presented: bool) -> Response {
    let words = match released.get().code {
        FaultCode::Unauthenticated if presented => Some("Bearer realm=\"portcullis\", error=\"invalid_token\""),
        FaultCode::Unauthenticated => Some("Bearer realm=\"portcullis\""),
        FaultCode::Forbidden => Some("Bearer realm=\"portcullis\", error=\"insufficient_scope\""),
        _ => None,
    };
    let mut response = fault_refusal(released, None);
    if let Some(words) = words {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(words));
    }
    response
}

/// Replaces a plain-text refusal of rmcp by a JSON-RPC error that says what would be right.
pub(crate) fn mended(refused: Response, body: &[u8]) -> Response {
    let status = refused.status();
    let ours = refused.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return refused;
    }
    let (status, code, sentence) = match status {
        StatusCode::NOT_ACCEPTABLE => {
            let sentence = "the Accept header must name application/json and text/event-stream (GET: text/event-stream)";
            (status, ErrorCode::INVALID_REQUEST, sentence)
        }
        // The media type was checked before: what rmcp calls unsupported is a message it cannot read.
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (StatusCode::BAD_REQUEST, ErrorCode::INVALID_REQUEST, NOT_RPC),
        StatusCode::BAD_REQUEST => {
            let sentence = "this request needs an Mcp-Session-Id: open a session with initialize first, or speak protocol version \
                            2026-07-28 with its headers and _meta";
            (status, ErrorCode::INVALID_REQUEST, sentence)
        }
        StatusCode::NOT_FOUND => (status, ErrorCode::INVALID_REQUEST, NO_SESSION),
        StatusCode::METHOD_NOT_ALLOWED => {
            (status, ErrorCode::INVALID_REQUEST, "use POST; GET and DELETE belong to sessions of the older protocol versions")
        }
        _ => (status, ErrorCode::INTERNAL_ERROR, "the request could not be served"),
    };
    let allow = refused.headers().get(ALLOW).cloned();
    let mut response = rpc_refusal(status, ErrorData::new(code, sentence, None), request_id(body));
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Refusal of a session that does not exist, or not for this caller.
pub(crate) const NO_SESSION: &str = "there is no such session; open a new one with initialize";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_where_there_is_one() {
        assert_eq!(request_id(br#"{"id":7,"method":"x"}"#), Some(RequestId::Number(7)));
        assert_eq!(request_id(br#"{"id":"a"}"#), Some(RequestId::String("a".into())));
        for none in [&br#"{"method":"x"}"#[..], b"{", b"[]", br#"{"id":1,"id":2}"#, br#"{"id":{}}"#, b""] {
            assert_eq!(request_id(none), None);
        }
    }
}

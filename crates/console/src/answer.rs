//! Answers of the admin API: JSON, with the status of their code. What is said of a fault was released by the gate.

use axum::Json;
use axum::body::Body;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use portcullis_guard::{ClientFault, Released};
use portcullis_model::FaultCode;
use serde_json::{Value, json};

/// A refusal before anybody was identified.
pub(crate) fn turned_away(status: StatusCode, sentence: &'static str) -> Response {
    let code = if status == StatusCode::FORBIDDEN { FaultCode::Forbidden } else { FaultCode::InvalidArgument };
    plain(status, code, sentence)
}

/// A refusal that says nothing about anybody.
pub(crate) fn plain(status: StatusCode, code: FaultCode, sentence: &str) -> Response {
    error(status, code, sentence, None, None)
}

fn error(status: StatusCode, code: FaultCode, message: &str, hint: Option<&str>, retry_after: Option<u64>) -> Response {
    let mut inner = json!({"code": code.as_str(), "message": message});
    if let Some(hint) = hint {
        inner["hint"] = hint.into();
    }
    if let Some(seconds) = retry_after {
        inner["retry_after_seconds"] = seconds.into();
    }
    let mut response = (status, Json(json!({"error": inner}))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The HTTP status of a code.
fn status_of(code: FaultCode) -> StatusCode {
    match code {
        FaultCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        FaultCode::Forbidden => StatusCode::FORBIDDEN,
        FaultCode::NotFound => StatusCode::NOT_FOUND,
        FaultCode::InvalidArgument => StatusCode::BAD_REQUEST,
        FaultCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        FaultCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        FaultCode::BackendFailed | FaultCode::NoSource => StatusCode::BAD_GATEWAY,
        FaultCode::Cancelled | FaultCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A released fault. `presented` says whether a credential came along, for the challenge (RFC 6750 section 3).
pub(crate) fn fault(released: Released<ClientFault>, presented: bool) -> Response {
    let fault = released.into_inner();
    let status = status_of(fault.code);
    let mut response = error(status, fault.code, &fault.message, fault.hint.as_deref(), fault.retry_after_seconds);
    let words = match fault.code {
        FaultCode::Unauthenticated if presented => "Bearer realm=\"portcullis\", error=\"invalid_token\"",
        FaultCode::Unauthenticated => "Bearer realm=\"portcullis\"",
        _ => return response,
    };
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(words));
    response
}

/// What an operation answered.
pub(crate) fn released(value: Released<Value>) -> Response {
    Json(value.into_inner()).into_response()
}

/// A status and nothing else.
pub(crate) fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

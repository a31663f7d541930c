//! What every HTTP answer tells a browser: do not guess types, do not keep, do not frame, run nothing; and, inside TLS,
//! also where a trusted proxy speaks it, never come back without.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::incoming::Visitor;

/// Headers every answer carries, whatever a handler wrote.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
/// The policy of an answer that is no page.
const NOTHING_RUNS: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// One year (RFC 6797 section 6.1.1).
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Puts the security headers on every answer of `routes`, unknown paths included. A handler may give its own
/// `Content-Security-Policy`.
pub fn with_security_headers(routes: Router) -> Router {
    routes.layer(middleware::from_fn(add))
}

async fn add(request: Request, next: Next) -> Response {
    let visitor = request.extensions().get::<Visitor>();
    let pinned = visitor.is_some_and(|visitor| visitor.is_secured(request.headers())) && !names_this_machine(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.reserve(ALWAYS.len() + 2);
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING_RUNS);
    if pinned {
        headers.insert(STRICT_TRANSPORT_SECURITY, ONE_YEAR);
    } else {
        // In clear text the header means nothing (RFC 6797 section 7.2).
        headers.remove(STRICT_TRANSPORT_SECURITY);
    }
    response
}

/// Whether the request was sent to `localhost`: a browser would keep that promise for every other server there.
fn names_this_machine(headers: &HeaderMap) -> bool {
    headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| {
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        name.eq_ignore_ascii_case("localhost")
    })
}

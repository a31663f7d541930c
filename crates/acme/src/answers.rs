//! Where a challenge is answered: on the TLS listener, or on a clear-text listener of its own.
//!
//! Guards that the clear-text listener serves nothing but pending challenges and the way to `https`, to the configured names
//! only. An answer is there while its [`Held`] is, and no longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use instant_acme::KeyAuthorization;
use portcullis_config::{AcmeChallenge, AcmeHttpSettings, AcmeSettings};
use portcullis_wire::{Challenges, HostPolicy, HostPolicyError, PendingChallenge, Refusals, guarded};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::error::AttemptError;

/// Longest token of a challenge; authorities use 43 characters.
const LONGEST_TOKEN: usize = 200;

/// Tokens that are answered over HTTP, with what is said.
#[derive(Debug, Default)]
pub struct Tokens {
    pending: Mutex<HashMap<String, String>>,
}

/// Where challenges are answered.
#[derive(Debug, Clone)]
pub enum Answers {
    /// TLS-ALPN-01.
    Tls(Arc<Challenges>),
    /// HTTP-01.
    Http(Arc<Tokens>),
}

/// An answer that stands while this is held.
#[derive(Debug)]
#[expect(dead_code, reason = "held for what happens when it is dropped")]
pub(crate) enum Held {
    Tls(PendingChallenge),
    Http(HeldToken),
}

/// A token that is answered while this is held.
#[derive(Debug)]
pub(crate) struct HeldToken {
    tokens: Arc<Tokens>,
    token: String,
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        self.tokens.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

impl Answers {
    /// What these settings need.
    pub fn new(settings: &AcmeSettings) -> Self {
        match settings.challenge {
            AcmeChallenge::TlsAlpn01 => Self::Tls(Arc::default()),
            AcmeChallenge::Http01 => Self::Http(Arc::default()),
        }
    }

    /// Answers one challenge for `name`, which is in lower case.
    pub(crate) fn answer(&self, name: &str, token: &str, proof: &KeyAuthorization) -> Result<Held, AttemptError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if token.is_empty() || token.len() > LONGEST_TOKEN || !token.bytes().all(plain) {
            return Err(AttemptError::Answer("the token of a challenge is not base64url".into()));
        }
        match self {
            Self::Http(tokens) => Ok(Held::Http(tokens.hold(token, proof.as_str()))),
            Self::Tls(challenges) => {
                let local = |error: rcgen::Error| AttemptError::Local(error.to_string());
                let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(local)?;
                params.custom_extensions = vec![CustomExtension::new_acme_identifier(proof.digest().as_ref())];
                let key = KeyPair::generate().map_err(local)?;
                let certificate = params.self_signed(&key).map_err(local)?;
                let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
                let held = challenges.answer(name, certificate.der().clone(), key).map_err(AttemptError::Local)?;
                Ok(Held::Tls(held))
            }
        }
    }
}

impl Tokens {
    fn hold(self: &Arc<Self>, token: &str, said: &str) -> HeldToken {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), said.to_owned());
        HeldToken { tokens: self.clone(), token: token.to_owned() }
    }

    fn said(&self, token: &str) -> Option<String> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

/// What the clear-text listener serves: pending challenges at `/.well-known/acme-challenge/<token>`, and for everything else
/// the way to `https`. Other hosts than `domains` and the names of this machine are refused, and `refusals` is told; pages of
/// others always.
///
/// # Errors
/// When a domain is no host name.
pub fn challenge_router(
    tokens: Arc<Tokens>,
    domains: &[String],
    settings: &AcmeHttpSettings,
    refusals: Arc<dyn Refusals>,
) -> Result<Router, HostPolicyError> {
    let hosts = HostPolicy::loopback().with_allowed(domains, std::iter::empty::<&str>())?;
    let port = if settings.redirect_port == 443 { String::new() } else { format!(":{}", settings.redirect_port) };
    let targets: HashMap<String, String> = domains.iter().map(|d| (d.clone(), format!("https://{d}{port}"))).collect();
    let targets = Arc::new(targets);
    let routes = Router::new()
        .route("/.well-known/acme-challenge/{token}", get(challenge).with_state(tokens))
        .method_not_allowed_fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing here") })
        .fallback(move |request: Request| async move { elsewhere(&request, &targets) });
    Ok(guarded(routes, hosts, None, refuse, refusals))
}

async fn challenge(State(tokens): State<Arc<Tokens>>, Path(token): Path<String>) -> Response {
    match tokens.said(&token) {
        Some(said) => ([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], said).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "no such challenge is pending"),
    }
}

/// The same path inside TLS. The host comes from the settings, not from the request.
fn elsewhere(request: &Request, targets: &HashMap<String, String>) -> Response {
    let nothing = || refuse(StatusCode::NOT_FOUND, "there is nothing here");
    if !matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path().starts_with("/.well-known/acme-challenge")
    {
        return nothing();
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = targets.get(&host).filter(|_| path.starts_with('/')).map(|target| format!("{target}{path}"));
    let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) else { return nothing() };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}

fn refuse(status: StatusCode, why: &'static str) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("text/plain"))], why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    async fn ask(router: &Router, method: &str, uri: &str, host: &str) -> (u16, String, String) {
        let request = Request::builder().method(method).uri(uri).header(HOST, host).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).map(|l| l.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, location, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn only_pending_challenges_are_answered_and_the_rest_is_sent_to_https() {
        let tokens: Arc<Tokens> = Arc::default();
        let settings = AcmeHttpSettings { address: "127.0.0.1:80".parse().unwrap(), redirect_port: 443 };
        let router = challenge_router(tokens.clone(), &["mcp.example".to_owned()], &settings, Arc::new(())).unwrap();
        let path = "/.well-known/acme-challenge/token-1";
        assert_eq!(ask(&router, "GET", path, "mcp.example").await.0, 404);
        let held = tokens.hold("token-1", "token-1.thumb");
        assert_eq!(ask(&router, "GET", path, "mcp.example:5002").await, (200, String::new(), "token-1.thumb".to_owned()));
        assert_eq!(ask(&router, "POST", path, "mcp.example").await.0, 404);
        assert_eq!(ask(&router, "GET", path, "evil.example").await.0, 403);
        assert_eq!(ask(&router, "GET", "/.well-known/acme-challenge/", "mcp.example").await.0, 404);
        assert_eq!(ask(&router, "GET", "/.well-known/acme-challenge/a/../token-1", "mcp.example").await.0, 404);
        let sent = ask(&router, "GET", "/mcp?a=b", "MCP.example:80").await;
        assert_eq!((sent.0, sent.1.as_str()), (308, "https://mcp.example/mcp?a=b"));
        let tricky = ask(&router, "GET", "//evil.example/x", "mcp.example").await;
        assert!(tricky.0 == 404 || tricky.1.starts_with("https://mcp.example/"), "{tricky:?}");
        for (method, uri, host) in [("POST", "/mcp", "mcp.example"), ("DELETE", "/", "mcp.example"), ("GET", "/mcp", "localhost")]
        {
            assert_eq!(ask(&router, method, uri, host).await.0, 404, "{method} {uri} {host}");
        }
        drop(held);
        assert_eq!(ask(&router, "GET", path, "mcp.example").await.0, 404);
    }
}

//! Which names this server answers to, and which web pages may talk to it: the guard against DNS rebinding and
//! cross-site requests (MCP, basic/transports, security warning), and the answers by which a browser lets an allowed page
//! through (Fetch standard, HTTP-CORS).
//!
//! A present and wrong header is always refused. Absent `Origin` is what programs send, absent `Host` is not. No page may
//! send cookies, and none is allowed by a pattern.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;

use portcullis_model::FaultCode;

use crate::headers::with_security_headers;
use crate::proxies::whence;
use crate::refusals::{Refusals, RequestRefusal, rules};

/// How long a browser may keep the answer to a preflight, seconds.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");
/// Most header names that are looked at in a preflight.
const MOST_HEADERS: usize = 64;

/// What pages of allowed origins may do.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    /// Methods.
    pub methods: &'static [Method],
    /// Request headers, in lower case.
    pub headers: &'static [&'static str],
    /// Request headers that begin like this.
    pub header_prefix: Option<&'static str>,
    /// Response headers they may read.
    pub exposed: &'static str,
}

impl Pages {
    fn takes_header(&self, name: &str) -> bool {
        let known = self.headers.contains(&name) || self.header_prefix.is_some_and(|prefix| name.starts_with(prefix));
        known && HeaderName::try_from(name).is_ok()
    }

    /// The answer to a preflight: what was asked for and is allowed, no more.
    fn preflight(&self, headers: &HeaderMap, asked: &HeaderValue) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        if let Some(method) = self.methods.iter().find(|method| method.as_str().as_bytes() == asked.as_bytes())
            && let Ok(method) = HeaderValue::from_str(method.as_str())
        {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
        }
        let wanted = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
        let names = wanted.flat_map(|list| list.split(',')).take(MOST_HEADERS).map(|name| name.trim().to_ascii_lowercase());
        let allowed: Vec<String> = names.filter(|name| self.takes_header(name)).collect();
        if !allowed.is_empty()
            && let Ok(allowed) = HeaderValue::from_str(&allowed.join(", "))
        {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
        answer.append(VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
        response
    }
}

/// Writes a refusal in the door's own words.
pub type Refuse = fn(StatusCode, &'static str) -> Response;

/// Puts the Host and Origin check, the answers to allowed pages and the security headers before every route of `routes`,
/// unknown ones included. Without `pages` no page of another origin is let through, whatever `hosts` says.
/// `refusals` is told of every request that is not.
pub fn guarded(routes: Router, hosts: HostPolicy, pages: Option<Pages>, refuse: Refuse, refusals: Arc<dyn Refusals>) -> Router {
    let guard = Arc::new(Guard { hosts, pages, refuse, refusals });
    with_security_headers(routes.layer(middleware::from_fn_with_state(guard, check)))
}

struct Guard {
    hosts: HostPolicy,
    pages: Option<Pages>,
    refuse: Refuse,
    refusals: Arc<dyn Refusals>,
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wrong {
    status: StatusCode,
    rule: &'static str,
    sentence: &'static str,
}

impl Wrong {
    fn host(status: StatusCode, sentence: &'static str) -> Self {
        Self { status, rule: rules::HOST, sentence }
    }

    fn origin(sentence: &'static str) -> Self {
        Self { status: StatusCode::FORBIDDEN, rule: rules::ORIGIN, sentence }
    }
}

/// A configured name or origin that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPolicyError {
    /// Not a host name with an optional port.
    #[error("'{0}' is not a host: write a name like mcp.example.org, or a name with a port like mcp.example.org:8443")]
    Host(String),
    /// Not an origin.
    #[error(
        "'{0}' is not an origin: write scheme and host like https://app.example.org, with the port where it is not the usual one"
    )]
    Origin(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    host: String,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Accepted `Host` and `Origin` headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPolicy {
    hosts: Vec<Name>,
    origins: Vec<Origin>,
}

/// The names of this machine to itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl HostPolicy {
    /// Only the names a machine has for itself, on any port; and pages served from this very server.
    pub fn loopback() -> Self {
        let hosts = LOOPBACK.iter().map(|host| Name { host: (*host).to_owned(), port: None }).collect();
        Self { hosts, origins: Vec::new() }
    }

    /// Adds names (`mcp.example.org`, or with a port) and origins of web pages (`https://app.example.org`).
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn with_allowed<H: AsRef<str>, O: AsRef<str>>(
        mut self,
        hosts: impl IntoIterator<Item = H>,
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Self, HostPolicyError> {
        for host in hosts {
            let host = host.as_ref();
            self.hosts.push(name(host).ok_or_else(|| HostPolicyError::Host(host.to_owned()))?);
        }
        for given in origins {
            let given = given.as_ref();
            self.origins.push(origin(given).ok_or_else(|| HostPolicyError::Origin(given.to_owned()))?);
        }
        Ok(self)
    }

    /// Where a request that may pass comes from.
    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<Origination, Wrong> {
        let mut given = headers.get_all(HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(_), Some(_)) => return Err(Wrong::host(StatusCode::BAD_REQUEST, "the request has more than one Host header")),
            (Some(host), None) => host.to_str().ok().and_then(name),
            (None, _) => uri.authority().and_then(|authority| name(authority.as_str())),
        };
        // A request line may name a host itself (RFC 9112, section 3.2.2): two readers could take either.
        if let Some(named) = uri.authority().map(|authority| name(authority.as_str())) {
            let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            let same = |a: &Name, b: &Name| a.host == b.host && a.port.unwrap_or(usual) == b.port.unwrap_or(usual);
            if !named.zip(host.as_ref()).is_some_and(|(named, host)| same(&named, host)) {
                return Err(Wrong::host(StatusCode::BAD_REQUEST, "the request line and the Host header name different hosts"));
            }
        }
        let Some(host) = host else {
            return Err(Wrong::host(StatusCode::BAD_REQUEST, "the request has no readable Host header"));
        };
        if !self.hosts.iter().any(|known| known.host == host.host && (known.port.is_none() || known.port == host.port)) {
            return Err(Wrong::host(
                StatusCode::FORBIDDEN,
                "this server does not answer to that Host; the operator can allow it",
            ));
        }
        let mut given = headers.get_all(ORIGIN).iter();
        let Some(first) = given.next() else { return Ok(Origination::Here) };
        let page = first.to_str().ok().and_then(origin).filter(|_| given.next().is_none());
        match page {
            Some(page) if own(&page, &host) => Ok(Origination::Here),
            Some(page) if self.origins.contains(&page) => Ok(Origination::AllowedPage),
            _ => Err(Wrong::origin("pages of that Origin may not use this server; the operator can allow it")),
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origination {
    /// A program, or a page this very server served.
    Here,
    /// A page of another origin that the operator allowed.
    AllowedPage,
}

/// Whether a page came from the host it now asks, which was accepted before.
fn own(page: &Origin, host: &Name) -> bool {
    let loopback = |name: &str| LOOPBACK.contains(&name);
    let port = host.port.unwrap_or(if page.scheme == "https" { 443 } else { 80 });
    page.port == port && (page.host == host.host || (loopback(&page.host) && loopback(&host.host)))
}

fn name(text: &str) -> Option<Name> {
    let authority = Authority::try_from(text).ok()?;
    let plain = !text.contains('@') && !authority.host().is_empty();
    let port = match text.strip_prefix(authority.host())? {
        "" => None,
        rest => Some(rest.strip_prefix(':')?.parse().ok()?),
    };
    plain.then(|| Name { host: authority.host().to_ascii_lowercase(), port })
}

fn origin(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let Name { host, port } = name(rest)?;
    Some(Origin { scheme, host, port: port.unwrap_or(usual) })
}

/// The layer.
async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let from = match (guard.hosts.judge(request.uri(), request.headers()), guard.pages) {
        (Ok(Origination::AllowedPage), None) => Err(Wrong::origin("no page of another origin may use this server")),
        (judged, _) => judged,
    };
    let mut response = match (from, guard.pages) {
        (Ok(Origination::AllowedPage), Some(pages)) => answer_page(pages, request, next).await,
        (Ok(_), _) => next.run(request).await,
        (Err(wrong), _) => {
            let given = request.headers().get(if wrong.rule == rules::ORIGIN { ORIGIN } else { HOST });
            let code = match wrong.status {
                StatusCode::FORBIDDEN => FaultCode::Forbidden,
                _ => FaultCode::InvalidArgument,
            };
            let mut detail =
                format!("{}: {}", wrong.rule, given.map_or("none".into(), |value| String::from_utf8_lossy(value.as_bytes())));
            if let Some(named) = request.uri().authority() {
                detail.push_str("; in the request line: ");
                detail.push_str(named.as_str());
            }
            let whence = whence(request.extensions(), request.headers());
            let whence = whence.as_ref();
            guard.refusals.refused(RequestRefusal { whence, rule: wrong.rule, code, detail: &detail });
            (guard.refuse)(wrong.status, wrong.sentence)
        }
    };
    if !guard.hosts.origins.is_empty() {
        response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Answers a page of an allowed origin, in the words a browser wants to hear.
async fn answer_page(pages: Pages, request: Request, next: Next) -> Response {
    let page = request.headers().get(ORIGIN).cloned();
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| request.method() == Method::OPTIONS).cloned();
    let mut response = match asked {
        Some(asked) => pages.preflight(request.headers(), &asked),
        None => next.run(request).await,
    };
    if let Some(page) = page {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(pages.exposed));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn judged(policy: &HostPolicy, host: &str, origin: Option<&str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        if !host.is_empty() {
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        policy.judge(&Uri::from_static("/mcp"), &headers).err().map(|wrong| wrong.status.as_u16())
    }

    #[test]
    fn only_loopback_names_by_default() {
        let policy = HostPolicy::loopback();
        for host in ["localhost", "LOCALHOST:8001", "127.0.0.1:8001", "[::1]:8001", "[::1]"] {
            assert_eq!(judged(&policy, host, None), None, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.", "127.0.0.2", "0.0.0.0:8001", "::1"] {
            assert!(judged(&policy, host, None).is_some(), "{host}");
        }
        for host in ["", "user@localhost", "localhost:", "localhost:99999", "localhost:8001:1"] {
            assert_eq!(judged(&policy, host, None), Some(400), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_even_with_a_good_host() {
        let policy = HostPolicy::loopback();
        assert_eq!(judged(&policy, "127.0.0.1:8001", Some("http://localhost:8001")), None);
        assert_eq!(judged(&policy, "localhost:8001", Some("http://localhost:8001")), None);
        for page in [
            "http://evil.example",
            "http://localhost:3000",
            "http://localhost",
            "null",
            "",
            "file://",
            "http://localhost:8001/x",
            "http://a@localhost:8001",
            "chrome-extension://abc",
            "http://localhost.evil.example:8001",
        ] {
            assert_eq!(judged(&policy, "localhost:8001", Some(page)), Some(403), "{page}");
        }
    }

    #[test]
    fn configured_names_and_origins_are_exact() {
        let policy =
            HostPolicy::loopback().with_allowed(["mcp.example.org", "x.example.org:8443"], ["https://app.example.org"]).unwrap();
        assert_eq!(judged(&policy, "MCP.example.org", Some("https://app.example.org:443")), None);
        assert_eq!(judged(&policy, "mcp.example.org:9000", None), None);
        assert_eq!(judged(&policy, "x.example.org:8443", None), None);
        assert_eq!(judged(&policy, "x.example.org", None), Some(403));
        assert_eq!(judged(&policy, "mcp.example.org", Some("http://app.example.org")), Some(403));
        assert_eq!(judged(&policy, "mcp.example.org", Some("https://app.example.org:8443")), Some(403));
        assert_eq!(judged(&policy, "mcp.example.org", Some("https://mcp.example.org")), None);
        assert!(HostPolicy::loopback().with_allowed(["http://x"], [] as [&str; 0]).is_err());
        assert!(HostPolicy::loopback().with_allowed([] as [&str; 0], ["app.example.org"]).is_err());
    }

    #[test]
    fn a_host_in_the_request_line_must_be_that_of_the_header() {
        let policy = HostPolicy::loopback().with_allowed(["mcp.example.org"], [] as [&str; 0]).unwrap();
        let judged = |line: &'static str, host: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(host.map(|host| (HOST, HeaderValue::from_static(host))));
            policy.judge(&Uri::from_static(line), &headers).err().map(|wrong| wrong.status.as_u16())
        };
        assert_eq!(judged("http://localhost:8001/mcp", Some("localhost:8001")), None);
        assert_eq!(judged("http://LOCALHOST/mcp", Some("localhost:80")), None);
        assert_eq!(judged("http://localhost:8001/mcp", None), None, "HTTP/2 has no other");
        for line in [
            "http://evil.example/mcp",
            "http://evil.example:8001/mcp",
            "http://127.0.0.1:8001/mcp",
            "http://localhost:8002/mcp",
            "http://mcp.example.org/mcp",
            "http://user@localhost:8001/mcp",
            "evil.example:443",
        ] {
            assert_eq!(judged(line, Some("localhost:8001")), Some(400), "{line}");
        }
        assert_eq!(judged("http://evil.example/mcp", Some("evil.example")), Some(403));
        assert_eq!(judged("http://evil.example/mcp", None), Some(403));
    }

    #[test]
    fn two_headers_of_a_kind_are_refused() {
        let policy = HostPolicy::loopback();
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(policy.judge(&Uri::from_static("/"), &headers).unwrap_err().status, StatusCode::BAD_REQUEST);
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost:1"));
        headers.append(ORIGIN, HeaderValue::from_static("http://localhost:1"));
        headers.append(ORIGIN, HeaderValue::from_static("http://localhost:1"));
        assert_eq!(policy.judge(&Uri::from_static("/"), &headers).unwrap_err().status, StatusCode::FORBIDDEN);
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_known_names_passes(host in "[a-z0-9.:@\\[\\]-]{0,30}") {
            let policy = HostPolicy::loopback();
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(&host).unwrap());
            if policy.judge(&Uri::from_static("/"), &headers).is_ok() {
                let bare = host.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())).map_or(host.as_str(), |(h, _)| h);
                proptest::prop_assert!(LOOPBACK.contains(&bare), "{host}");
            }
        }
    }
}

//! What a browser gets to see: headers on every answer, and CORS for exactly the allowed origins.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_SECURITY_POLICY, FORWARDED, HOST, ORIGIN,
    STRICT_TRANSPORT_SECURITY, VARY,
};
use axum::http::{Extensions, HeaderName, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use portcullis_config::TrustedProxies;
use portcullis_wire::{HostPolicy, Pages, Visitor, guarded};
use tower::Service as _;

const PAGES: Pages = Pages {
    methods: &[Method::GET, Method::POST],
    headers: &["content-type", "authorization"],
    header_prefix: Some("mcp-param-"),
    exposed: "Mcp-Session-Id",
};
const PAGE: &str = "https://app.example.org";

fn routes(pages: Option<Pages>) -> Router {
    let hosts = HostPolicy::loopback().with_allowed(["mcp.example.org"], [PAGE]).unwrap();
    let own =
        get(|| async { ([(CONTENT_SECURITY_POLICY, "default-src 'self'"), (STRICT_TRANSPORT_SECURITY, "max-age=1")], "page") });
    let routes = Router::new().route("/", get(|| async { "ok" })).route("/page", own);
    guarded(routes, hosts, pages, |status, sentence| (status, sentence).into_response(), Arc::new(()))
}

const NEAR: [u8; 4] = [127, 0, 0, 1];
const PROXY: [u8; 4] = [192, 0, 2, 5];

async fn ask(routes: &Router, method: Method, path: &str, headers: &[(HeaderName, &str)], secured: bool) -> Response {
    ask_from(NEAR, routes, method, path, headers, secured).await
}

async fn ask_from(
    peer: [u8; 4],
    routes: &Router,
    method: Method,
    path: &str,
    headers: &[(HeaderName, &str)],
    secured: bool,
) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let proxies = TrustedProxies::try_from(vec!["192.0.2.5".parse().unwrap()]).unwrap();
    let peer = SocketAddr::from((peer, 9));
    let visitor = Visitor { peer, secured, known: Extensions::new(), proxies };
    request.extensions_mut().insert(visitor);
    routes.clone().call(request).await.unwrap()
}

fn header(response: &Response, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn every_answer_carries_the_headers_refusals_and_unknown_paths_too() {
    let routes = routes(Some(PAGES));
    for (path, host, status) in
        [("/", "localhost:1", 200), ("/nothing", "localhost:1", 404), ("/", "evil.example", 403), ("/page", "localhost:1", 200)]
    {
        let response = ask(&routes, Method::GET, path, &[(HOST, host)], false).await;
        assert_eq!(response.status(), status, "{path} {host}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(header(&response, name), Some(value), "{path} {host}");
        }
        let policy = if path == "/page" { "default-src 'self'" } else { "default-src 'none'; frame-ancestors 'none'" };
        assert_eq!(header(&response, CONTENT_SECURITY_POLICY), Some(policy));
        assert_eq!(header(&response, STRICT_TRANSPORT_SECURITY), None, "in clear text it means nothing");
    }
}

#[tokio::test]
async fn the_promise_of_tls_is_made_inside_tls_and_not_for_localhost() {
    let routes = routes(None);
    let pinned = ask(&routes, Method::GET, "/", &[(HOST, "mcp.example.org")], true).await;
    assert_eq!(header(&pinned, STRICT_TRANSPORT_SECURITY), Some("max-age=31536000"));
    let local = ask(&routes, Method::GET, "/", &[(HOST, "localhost:8443")], true).await;
    assert_eq!(header(&local, STRICT_TRANSPORT_SECURITY), None);
}

#[tokio::test]
async fn a_trusted_proxy_may_say_that_it_was_spoken_to_in_tls_and_nobody_else() {
    let routes = routes(None);
    for (from, proto, expected) in [
        (PROXY, "for=198.51.100.7;proto=https", Some("max-age=31536000")),
        (PROXY, "for=198.51.100.7;proto=http", None),
        (PROXY, "for=198.51.100.7", None),
        (NEAR, "for=198.51.100.7;proto=https", None),
    ] {
        let response = ask_from(from, &routes, Method::GET, "/", &[(HOST, "mcp.example.org"), (FORWARDED, proto)], false).await;
        assert_eq!(header(&response, STRICT_TRANSPORT_SECURITY), expected, "{from:?} {proto}");
    }
}

#[tokio::test]
async fn an_allowed_page_is_let_through_by_name_and_no_other() {
    let routes = routes(Some(PAGES));
    let host = (HOST, "mcp.example.org");
    let response = ask(&routes, Method::GET, "/", &[host.clone(), (ORIGIN, PAGE)], false).await;
    assert_eq!(header(&response, ACCESS_CONTROL_ALLOW_ORIGIN), Some(PAGE));
    assert_eq!(header(&response, ACCESS_CONTROL_EXPOSE_HEADERS), Some("Mcp-Session-Id"));
    assert_eq!(header(&response, VARY), Some("Origin"));
    assert_eq!(header(&response, "access-control-allow-credentials"), None);
    for page in ["https://evil.example", "null", "https://app.example.org.evil.example", "http://app.example.org"] {
        let response = ask(&routes, Method::GET, "/", &[host.clone(), (ORIGIN, page)], false).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{page}");
        assert_eq!(header(&response, ACCESS_CONTROL_ALLOW_ORIGIN), None, "{page}");
    }
    let program = ask(&routes, Method::GET, "/", &[host], false).await;
    assert_eq!((header(&program, ACCESS_CONTROL_ALLOW_ORIGIN), header(&program, VARY)), (None, Some("Origin")));
}

#[tokio::test]
async fn a_preflight_gets_what_is_allowed_and_no_more() {
    let routes = routes(Some(PAGES));
    let asked = |method: &'static str, headers: &'static str| {
        [
            (HOST, "mcp.example.org"),
            (ORIGIN, PAGE),
            (ACCESS_CONTROL_REQUEST_METHOD, method),
            (ACCESS_CONTROL_REQUEST_HEADERS, headers),
        ]
    };
    let response = ask(
        &routes,
        Method::OPTIONS,
        "/",
        &asked("POST", "Content-Type, authorization,mcp-param-region, x-evil, mcp-param-(x)"),
        false,
    )
    .await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&response, ACCESS_CONTROL_ALLOW_METHODS), Some("POST"));
    assert_eq!(header(&response, ACCESS_CONTROL_ALLOW_HEADERS), Some("content-type, authorization, mcp-param-region"));
    let response = ask(&routes, Method::OPTIONS, "/", &asked("PUT", "x-evil"), false).await;
    assert_eq!((header(&response, ACCESS_CONTROL_ALLOW_METHODS), header(&response, ACCESS_CONTROL_ALLOW_HEADERS)), (None, None));
}

#[tokio::test]
async fn a_listener_without_pages_refuses_even_a_listed_origin() {
    let response = ask(&routes(None), Method::GET, "/", &[(HOST, "mcp.example.org"), (ORIGIN, PAGE)], false).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(header(&response, ACCESS_CONTROL_ALLOW_ORIGIN), None);
}

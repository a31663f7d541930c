//! Permits, destinations, redirects, credentials, headers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_egress::{AllowedRange, Authentication, EgressClient, EgressConfigError, EgressErrorKind, EgressRequest};
use portcullis_model::{CredentialKind, Fault, FaultCode, Principal, PrincipalId, Scope, Secret, TenantId, TraceContext};
use portcullis_policy::{Budget, Policies, Vocabulary};

use crate::servers::{answer, client, config, ok, permit, permit_for, status};

#[tokio::test]
async fn a_permit_for_another_origin_is_refused_before_anything_is_sent() {
    let server = answer(|_, _| ok("never")).await;
    let client = client(&server.url);
    let foreign = permit_for(&["http://127.0.0.1:1"], Duration::from_secs(5));
    let error = client.send(&foreign, EgressRequest::get(["x"])).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::NotPermitted { .. }), "{error}");
    assert_eq!(Fault::from(error).code(), FaultCode::Forbidden);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_passed_deadline_is_refused_before_anything_is_sent() {
    let server = answer(|_, _| ok("never")).await;
    let client = client(&server.url);
    let late = permit(&client).with_deadline_at_most(Instant::now());
    let error = client.send(&late, EgressRequest::get(["x"])).await.unwrap_err();
    assert_eq!(error.kind(), &EgressErrorKind::DeadlineExceeded);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn addresses_are_closed_unless_listed() {
    for (url, what) in [
        ("http://169.254.169.254/latest/meta-data", "metadata"),
        ("http://[fd00:ec2::254]", "metadata"),
        ("http://[::ffff:169.254.169.254]", "metadata"),
        ("http://2852039166", "metadata"),
        ("http://0251.0376.0251.0376", "metadata"),
        ("http://0.0.0.0:9090", "unspecified"),
        ("http://[fe80::1]", "link-local"),
        ("http://10.0.0.1", "private"),
    ] {
        let error = EgressClient::new(config(url)).unwrap_err().to_string();
        assert!(error.contains(what), "{url}: {error}");
    }
    let mut open = config("http://10.0.0.1");
    open.addresses = portcullis_egress::AddressPolicy::new([AllowedRange::Private]);
    assert!(EgressClient::new(open).is_ok());
}

#[tokio::test]
async fn a_name_is_checked_when_it_resolves() {
    let server = answer(|_, _| ok("inside")).await;
    let url = server.url.replace("127.0.0.1", "localhost");
    let mut closed = config(&url);
    closed.addresses = portcullis_egress::AddressPolicy::default();
    let closed = EgressClient::new(closed).unwrap();
    let error = closed.send(&permit(&closed), EgressRequest::get(["x"])).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::AddressRefused { .. }), "{error}");
    assert_eq!(server.connections(), 0, "nothing was connected");

    let open = client(&url);
    let response = open.send(&permit(&open), EgressRequest::get(["x"])).await.unwrap();
    assert_eq!(response.body, Bytes::from("inside"));
}

#[tokio::test]
async fn redirects_stay_within_the_origin_and_credentials_too() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let other = answer(move |request, _| {
        log.lock().unwrap().push(request);
        ok("stolen")
    })
    .await;
    let elsewhere = other.url.clone();
    let server = answer(move |request, _| match request.split(' ').nth(1).unwrap() {
        "/away" => status("302 Found", &format!("location: {elsewhere}/x\r\n")),
        "/userinfo" => status(
            "302 Found",
            &format!("location: http://u:p@{}/x\r\n", request.split("host: ").nth(1).unwrap().split("\r\n").next().unwrap()),
        ),
        "/near" => status("302 Found", "location: /there\r\n"),
        "/loop" => status("307 Temporary Redirect", "location: /loop\r\n"),
        "/there" => ok(&request),
        _ => status("404 Not Found", ""),
    })
    .await;
    let mut settings = config(&server.url);
    settings.authentication = Authentication::Bearer(Secret::new("s3cret").into());
    let client = EgressClient::new(settings).unwrap();
    let permit = permit(&client);
    let get = |path: &'static str| client.send(&permit, EgressRequest::get([path]));

    for refused in ["away", "userinfo", "loop"] {
        let error = get(refused).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::RedirectRefused(_)), "{refused}: {error}");
        assert!(!error.to_string().contains("s3cret"));
    }
    // Whoever may ask there too is told where, and asks with another client.
    let told = client.send(&permit, EgressRequest::get(["away"]).hand_back_redirects()).await.unwrap();
    assert_eq!(told.status, 302);
    assert_eq!(told.headers["location"], format!("{}/x", other.url));
    for refused in ["userinfo", "loop"] {
        let error = client.send(&permit, EgressRequest::get([refused]).hand_back_redirects()).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::RedirectRefused(_)), "{refused}: {error}");
    }
    assert!(seen.lock().unwrap().is_empty(), "the other origin was never asked");
    let near = get("near").await.unwrap();
    assert!(String::from_utf8_lossy(&near.body).contains("authorization: Bearer s3cret"));
    let post = client.send(&permit, EgressRequest::post(["near"]).form(vec![])).await.unwrap_err();
    assert!(matches!(post.kind(), EgressErrorKind::RedirectRefused(_)));
}

#[tokio::test]
async fn headers_forms_bytes_and_trace_context_arrive() {
    let server = answer(|request, _| ok(&request)).await;
    let mut settings = config(&format!("{}/prefix/", server.url));
    settings.headers = vec![("X-Scope-OrgID".into(), "team-a".into())];
    settings.authentication = Authentication::Basic { user: "u".into(), password: Secret::new("pässword").into() };
    let client = EgressClient::new(settings).unwrap();
    let permit = permit(&client);

    let form = EgressRequest::post(["api", "v1", "query"])
        .form(vec![("query".into(), "up{a=\"b&c\"}".into())])
        .header("x-scope-orgid", "team-b");
    let text = String::from_utf8(client.send(&permit, form).await.unwrap().body.to_vec()).unwrap();
    assert!(text.starts_with("POST /prefix/api/v1/query HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("x-scope-orgid: team-a") && !text.contains("team-b"), "{text}");
    assert!(text.contains("authorization: Basic dTpww6Rzc3dvcmQ="), "{text}");
    assert!(text.contains("accept-encoding: gzip"), "{text}");
    assert!(text.ends_with("query=up%7Ba%3D%22b%26c%22%7D"), "{text}");

    let otlp = EgressRequest::post(["v1", "logs"])
        .bytes("application/x-protobuf", Bytes::from_static(b"\x0a\x00"))
        .header("content-encoding", "identity");
    let text = String::from_utf8(client.send(&permit, otlp).await.unwrap().body.to_vec()).unwrap();
    assert!(text.contains("content-type: application/x-protobuf") && text.ends_with("\n\0"), "{text:?}");
}

#[tokio::test]
async fn the_environment_cannot_route_requests_through_a_proxy() {
    // reqwest is built without system proxies; this holds when HTTP_PROXY is set by whoever runs the tests, too.
    let server = answer(|request, _| ok(request.split(' ').nth(1).unwrap())).await;
    let client = client(&server.url);
    let response = client.send(&permit(&client), EgressRequest::get(["path"])).await.unwrap();
    assert_eq!(response.body, Bytes::from("/path"), "a proxied request would name the whole URL");
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_when_built() {
    let build = |change: &dyn Fn(&mut portcullis_egress::EgressConfig)| {
        let mut settings = config("https://localhost:1");
        change(&mut settings);
        EgressClient::new(settings)
    };
    assert!(build(&|_| {}).is_ok());
    assert!(build(&|c| c.headers = vec![("Authorization".into(), "x".into())]).is_err());
    assert!(
        build(&|c| c.authentication = Authentication::Basic { user: "a:b".into(), password: Secret::new("x").into() }).is_err()
    );
    assert!(build(&|c| c.authentication = Authentication::Bearer(Secret::new("a\nb").into())).is_err());
    assert!(build(&|c| c.tls.ca_pem = Some(b"not pem".to_vec())).is_err());
    assert!(build(&|c| c.tls.client_certificate_pem = Some(b"x".to_vec())).is_err());
    assert!(build(&|c| c.concurrency = 0).is_err());
    let missing = build(&|c| c.tls.ca_pem_file = Some("/nonexistent/ca.pem".into())).unwrap_err();
    assert!(matches!(missing, EgressConfigError::File { .. }));
}

#[tokio::test]
async fn a_calls_trace_context_and_budget_go_along() {
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let principal = Principal {
        id: PrincipalId::new("local:test").unwrap(),
        credential: CredentialKind::Local,
        tenant: TenantId::default_tenant(),
        roles: [Arc::from("operator")].into(),
        doors: [Arc::from("mcp")].into(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
    };
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let deadline = Instant::now() + Duration::from_secs(10);
    let budget = Budget { backend_bytes: 1_000, ..Budget::default() };
    let trace = TraceContext::parse(Some(traceparent));
    let call = policies
        .authorize_lookup(
            None,
            (&principal, &portcullis_policy::Lookup::resource("portcullis://sources")),
            deadline,
            budget,
            trace,
        )
        .unwrap();

    let server = answer(|request, number| if number == 0 { ok(&request) } else { ok(&"x".repeat(1_001)) }).await;
    let client = client(&server.url);
    let response = client.send(&call, EgressRequest::get(["x"])).await.unwrap();
    assert!(String::from_utf8_lossy(&response.body).contains(&format!("traceparent: {traceparent}")));
    let error = client.send(&call, EgressRequest::get(["x"])).await.unwrap_err();
    assert_eq!(error.kind(), &EgressErrorKind::ResponseTooLarge { limit: 1_000 });
}

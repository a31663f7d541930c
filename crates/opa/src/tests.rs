//! Answers as Open Policy Agent 1.9.0 gave them (recorded), answers it never gave, and a service on loopback that gives
//! them. No real agent runs here.

use std::sync::atomic::AtomicUsize;

use portcullis_egress::LiteralSecrets;
use portcullis_model::{CredentialKind, ManualClock, Principal, PrincipalId, Timestamp, TraceContext};
use portcullis_policy::{ExternalPrincipal, ExternalTool, Policies, Vocabulary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn unclear(decision: &ExternalDecision) -> bool {
    matches!(decision, ExternalDecision::Unavailable { .. })
}

/// Status and body of recorded answers, and whether each is a yes, a no, or nothing clear.
const RECORDED: [(u16, &str, Option<bool>); 11] = [
    (200, r#"{"result":true}"#, Some(true)),
    (200, r#"{"result":false}"#, Some(false)),
    (200, r#"{"metrics":{"counter_server_query_cache_hit":1,"timer_server_handler_ns":38968},"result":true}"#, Some(true)),
    (200, r#"{"provenance":{"version":"1.9.0","build_commit":""},"result":true}"#, Some(true)),
    (200, r#"{"result":["deleting Deployment/checkout is never allowed","kube-system is read-only"]}"#, None),
    (200, r#"{"result":{"allow":true,"deny":[],"obligations":[{"redact":["secret","token"]}]}}"#, None),
    (200, "{}", None),
    (200, r#"{"result":false,"warning":{"code":"api_usage_warning","message":"'input' key missing from the request"}}"#, None),
    (
        500,
        r#"{"code":"internal_error","message":"error(s) occurred while evaluating query","errors":[{"code":"eval_conflict_error","message":"complete rules must not produce multiple outputs"}]}"#,
        None,
    ),
    (400, r#"{"code":"invalid_parameter","message":"body contains malformed input document: unexpected EOF"}"#, None),
    (404, "404 page not found\n", None),
];

#[test]
fn recorded_answers_are_read_as_they_were_meant() {
    for (status, body, meant) in RECORDED {
        let read = match decision(status, body.as_bytes()) {
            ExternalDecision::Allow => Some(true),
            ExternalDecision::Deny { .. } => Some(false),
            ExternalDecision::Unavailable { .. } => None,
        };
        assert_eq!(read, meant, "{status} {body}");
    }
}

#[test]
fn only_a_clear_true_allows() {
    assert_eq!(decision(200, br#"{"result":true}"#), ExternalDecision::Allow);
    assert!(matches!(decision(200, br#"{"result":false}"#), ExternalDecision::Deny { .. }));
    for (status, body) in [
        (200, "{}"),
        (200, ""),
        (200, "true"),
        (200, "not json"),
        (200, r#"{"result":"true"}"#),
        (200, r#"{"result":1}"#),
        (200, r#"{"result":["no change freeze"]}"#),
        (200, r#"{"result":{"allow":true}}"#),
        (200, r#"{"result":null}"#),
        (200, r#"{"result":true,"warning":{"code":"api_usage_warning","message":"'input' key missing from the request"}}"#),
        (404, r#"{"code":"undefined_document","message":"document missing: data.authz.nothing"}"#),
        (500, r#"{"result":true}"#),
        (204, r#"{"result":true}"#),
    ] {
        assert!(unclear(&decision(status, body.as_bytes())), "{status} {body}");
    }
}

/// Answers each request with `body`; says how many it got.
async fn service(status: &'static str, body: &'static str, close: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 16_384];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                    assert!(text.starts_with("POST /v1/data/portcullis/allow HTTP/1.1"), "{text}");
                    count.fetch_add(1, Ordering::SeqCst);
                    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
                    let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
                    if close {
                        // Without a word in the head: as a service that closes what was idle.
                        return;
                    }
                }
            });
        }
    });
    (url, asked)
}

fn policies() -> Policies {
    Policies::load(&[], &Vocabulary::default(), 1).unwrap()
}

fn opa(url: &str, clock: &ManualClock) -> OpaPolicy {
    let settings = json!({"url": url, "path": "portcullis/allow", "timeout": "2s", "allow_addresses": ["loopback"]});
    let settings: OpaSettings = serde_json::from_value(settings).unwrap();
    OpaPolicy::new(&settings, &LiteralSecrets, Arc::new(clock.clone()), |grant| policies().charter(grant)).unwrap()
}

fn permit() -> Permit {
    let principal = Principal {
        id: PrincipalId::new("local:test").unwrap(),
        credential: CredentialKind::Local,
        tenant: TenantId::default_tenant(),
        roles: [Arc::from("operator")].into(),
        doors: [Arc::from("mcp")].into(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    policies()
        .authorize_lookup(
            None,
            (&principal, &portcullis_policy::Lookup::resource("portcullis://sources")),
            deadline,
            Budget::default(),
            TraceContext::default(),
        )
        .unwrap()
}

fn input(service: &str, time: &str) -> ExternalInput {
    ExternalInput {
        principal: ExternalPrincipal { id: "local:test".into(), kind: "local", roles: vec![], tenant: "default".into() },
        action: "call",
        tool: ExternalTool { name: "query_logs".into(), risk: "read", category: None },
        arguments: json!({"service": service}).as_object().unwrap().clone(),
        tenant: "default".into(),
        time: time.into(),
        allowed_by: Arc::from("reader-may-look"),
    }
}

#[tokio::test]
async fn the_same_question_is_asked_once_for_a_while_and_again_after_it() {
    let (url, asked) = service("200 OK", r#"{"result":true}"#, true).await;
    let clock = ManualClock::new(Timestamp::from_seconds(1_000));
    let (opa, permit) = (opa(&url, &clock), permit());
    let count = || asked.load(Ordering::SeqCst);
    for time in ["12:00", "12:01"] {
        assert!(opa.decide(&permit, &input("cart", time)).await.is_allowed());
    }
    assert_eq!(count(), 1, "the time of day is no other question");
    assert!(opa.decide(&permit, &input("payment", "12:00")).await.is_allowed());
    assert_eq!(count(), 2, "another argument is");
    opa.rules_changed();
    assert!(opa.decide(&permit, &input("cart", "12:00")).await.is_allowed());
    assert_eq!(count(), 3, "other rules are");
    // Long idle: entries and the connection are gone, and nobody is denied for it.
    clock.advance(Duration::from_hours(9));
    assert!(opa.decide(&permit, &input("cart", "12:00")).await.is_allowed());
    assert_eq!(count(), 4);
}

#[tokio::test]
async fn what_is_down_silent_or_undefined_refuses_and_is_not_kept() {
    let clock = ManualClock::new(Timestamp::from_seconds(1_000));
    let permit = permit();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = opa(&format!("http://{nobody}"), &clock);
    assert!(unclear(&down.decide(&permit, &input("cart", "12:00")).await));
    assert!(down.check().await.is_err());
    let (url, asked) = service("200 OK", "{}", false).await;
    let undefined = opa(&url, &clock);
    for _ in 0..2 {
        assert!(unclear(&undefined.decide(&permit, &input("cart", "12:00")).await));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a failure is not kept");
    assert!(undefined.check().await.unwrap_err().contains("undefined"));
    let (url, _) = service("200 OK", r#"{"result":false}"#, false).await;
    let denies = opa(&url, &clock);
    assert!(matches!(denies.decide(&permit, &input("cart", "12:00")).await, ExternalDecision::Deny { .. }));
    assert!(denies.check().await.is_ok(), "a no is a decision");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let make = |settings: Value| {
        let settings: OpaSettings = serde_json::from_value(settings).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::default()));
        OpaPolicy::new(&settings, &LiteralSecrets, clock, |grant| policies().charter(grant)).map(|_| ())
    };
    assert!(make(json!({"url": "http://opa.example.org:8181", "path": "a/allow"})).is_ok());
    for settings in [
        json!({"url": "http://127.0.0.1:8181", "path": "a/allow"}),
        json!({"url": "http://opa.example.org", "path": ""}),
        json!({"url": "http://opa.example.org", "path": "a/../b"}),
        json!({"url": "http://opa.example.org", "path": "a", "cache": {"ttl": "2m"}}),
        json!({"url": "http://opa.example.org", "path": "a", "timeout": "31s"}),
        json!({"url": "http://opa.example.org", "path": "a", "auth": {"bearer": "secret:none"}}),
    ] {
        assert!(make(settings.clone()).unwrap_err().to_string().starts_with("external_policy: "), "{settings}");
    }
}

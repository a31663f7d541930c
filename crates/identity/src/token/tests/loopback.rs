//! Keys and exchanged tokens over real connections on loopback, through egress and under charters.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_egress::{CallerFault, LiteralSecrets};
use portcullis_model::{Clock, ManualClock, Scope, TenantId, Timestamp};
use portcullis_policy::{Budget, Charter, CharterGrant, Permit, Policies, PolicyError, Vocabulary};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::support::{KEYS, NOW, RESOURCE, jwks, token};
use crate::token::TokenReason::KeysUnavailable;
use crate::token::exchange::{ExchangeError, ExchangeSettings, Exchanger, Target};
use crate::token::{SubjectToken, TokenReason, TokenRefusal, TokenSettings, Verifier};

/// What a server answers: status, headers, body.
type Page = (u16, String, String);
type Pages = Box<dyn Fn(&str) -> Page + Send>;
/// A word of the refusal, and what the issuer answers: to its own URL, and whether its keys are asked for.
type Case = (&'static str, Box<dyn Fn(&str, bool) -> Page + Send>);

/// An HTTP server that answers by the request's first line, and remembers whole requests.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(pages: impl FnOnce(String) -> Pages) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pages = pages(url.clone());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let mut chunk = [0; 4096];
                loop {
                    let read = stream.read(&mut chunk).await.unwrap_or(0);
                    bytes.extend_from_slice(&chunk[..read]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break;
                    }
                }
                let request = String::from_utf8_lossy(&bytes).into_owned();
                let (status, headers, body) = pages(request.lines().next().unwrap_or_default());
                remembered.lock().unwrap().push(request);
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
                // A client that had enough hangs up.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, seen }
    }

    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|r| r.lines().next().unwrap().replace(" HTTP/1.1", "")).collect()
    }
}

fn page(body: &Value) -> Page {
    (200, "Content-Type: application/json\r\n".to_owned(), body.to_string())
}

fn missing() -> Page {
    (404, String::new(), String::new())
}

fn policies() -> Policies {
    Policies::load(&[], &Vocabulary::default(), 1).unwrap()
}

fn charters() -> impl FnMut(CharterGrant) -> Result<Charter, PolicyError> {
    let policies = policies();
    move |grant| policies.charter(grant)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp::from_seconds(NOW)))
}

fn verifier(issuer: &str, more: &Value) -> Verifier {
    let base = json!({"name": "corp", "issuer": issuer, "default_roles": ["reader"]});
    let issuer = super::support::changed(base, more);
    let settings: TokenSettings = serde_json::from_value(json!({"resource": RESOURCE, "issuers": [issuer]})).unwrap();
    settings.check(&["reader".to_owned()].into()).unwrap();
    Verifier::new(&settings, RESOURCE, clock(), charters()).unwrap()
}

fn token_of(issuer: &str) -> String {
    token(&json!({}), &json!({"iss": issuer}))
}

async fn refusal(verifier: &Verifier, issuer: &str) -> TokenRefusal {
    verifier.verify_token(&token_of(issuer)).await.expect_err("refused")
}

#[tokio::test]
async fn keys_are_discovered_at_the_issuer() {
    let issuer = Server::start(|url| {
        Box::new(move |line| match line.split(' ').nth(1).unwrap_or_default() {
            "/.well-known/openid-configuration" => page(&json!({"issuer": url, "jwks_uri": format!("{url}/keys?p=a")})),
            "/keys?p=a" => page(&jwks(&KEYS)),
            _ => missing(),
        })
    })
    .await;
    let verifier = verifier(&issuer.url, &json!({}));
    verifier.verify_token(&token_of(&issuer.url)).await.unwrap();
    verifier.verify_token(&token_of(&issuer.url)).await.unwrap();
    assert_eq!(issuer.lines(), ["GET /.well-known/openid-configuration", "GET /keys?p=a"], "once for both");
    let sent = issuer.seen.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(!sent.contains("authorization:") && !sent.contains("eyj"), "nothing of the token leaves: {sent}");
}

#[tokio::test]
async fn an_authorization_server_without_openid_is_found_too() {
    let issuer = Server::start(|url| {
        Box::new(move |line| match line.split(' ').nth(1).unwrap_or_default() {
            "/.well-known/oauth-authorization-server/realm/a" => {
                page(&json!({"issuer": format!("{url}/realm/a"), "jwks_uri": format!("{url}/keys")}))
            }
            "/keys" => page(&jwks(&KEYS)),
            _ => missing(),
        })
    })
    .await;
    let name = format!("{}/realm/a", issuer.url);
    verifier(&name, &json!({})).verify_token(&token_of(&name)).await.unwrap();
    assert_eq!(issuer.lines()[0], "GET /realm/a/.well-known/openid-configuration");
}

#[tokio::test]
async fn a_configured_key_set_needs_no_discovery() {
    let keys = Server::start(|_| Box::new(|_| page(&jwks(&KEYS)))).await;
    let verifier = verifier("https://id.example.com", &json!({"jwks_uri": format!("{}/keys", keys.url)}));
    verifier.verify_token(&token_of("https://id.example.com")).await.unwrap();
    assert_eq!(keys.lines(), ["GET /keys"]);
}

#[tokio::test]
async fn keys_from_the_wrong_place_are_not_used() {
    let other = Server::start(|_| Box::new(|_| page(&jwks(&KEYS)))).await;
    let elsewhere = format!("{}/keys", other.url);
    let redirect = format!("Location: {elsewhere}\r\n");
    let giant = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 << 10));
    let named = |url: &str| json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
    let cases: Vec<Case> = vec![
        ("of issuer", Box::new(|_, _| page(&json!({"issuer": "https://evil.example", "jwks_uri": "https://evil.example/k"})))),
        ("of issuer", Box::new(|url, _| page(&json!({"issuer": format!("{url}/"), "jwks_uri": format!("{url}/keys")})))),
        ("another origin", Box::new(move |url, _| page(&json!({"issuer": url, "jwks_uri": elsewhere})))),
        ("use https", Box::new(|url, _| page(&json!({"issuer": url, "jwks_uri": "http://192.0.2.1/keys"})))),
        ("no issuer and jwks_uri", Box::new(|_, _| page(&json!({"issuer": "x"})))),
        ("twice", Box::new(|url, _| (200, String::new(), format!("{{\"issuer\":\"{url}\",\"issuer\":\"{url}\"}}")))),
        (
            "another origin",
            Box::new(move |url, keys| if keys { (302, redirect.clone(), String::new()) } else { page(&named(url)) }),
        ),
        ("status 500", Box::new(move |url, keys| if keys { (500, String::new(), String::new()) } else { page(&named(url)) })),
        ("more than", Box::new(move |url, keys| if keys { (200, String::new(), giant.clone()) } else { page(&named(url)) })),
        ("not a JWK Set", Box::new(move |url, keys| if keys { page(&json!([])) } else { page(&named(url)) })),
    ];
    for (word, answer) in cases {
        let issuer = Server::start(|url| Box::new(move |line| answer(&url, line.starts_with("GET /keys")))).await;
        let verifier = verifier(&issuer.url, &json!({}));
        let refused = refusal(&verifier, &issuer.url).await;
        assert_eq!(refused.reason, KeysUnavailable, "{word}: {refused}");
    }
    assert!(other.lines().is_empty(), "the other origin was never asked: {:?}", other.lines());
}

#[tokio::test]
async fn an_issuer_on_a_private_address_must_be_allowed() {
    let settings =
        json!({"resource": RESOURCE, "issuers": [{"name": "corp", "issuer": "https://10.1.2.3", "default_roles": ["reader"]}]});
    let mut settings: TokenSettings = serde_json::from_value(settings).unwrap();
    let error = Verifier::new(&settings, RESOURCE, clock(), charters()).unwrap_err().to_string();
    assert!(error.contains("allow_addresses"), "{error}");
    settings.issuers[0].allow_addresses = vec!["private".parse().unwrap()];
    Verifier::new(&settings, RESOURCE, clock(), charters()).unwrap();
    settings.issuers[0].issuer = "https://169.254.169.254".to_owned();
    assert!(Verifier::new(&settings, RESOURCE, clock(), charters()).is_err(), "metadata services are never issuers");
}

/// The permit of a call in the name of `who`.
fn permit(who: &str) -> Permit {
    let grant = CharterGrant {
        name: Arc::from(who),
        destinations: std::collections::BTreeSet::new(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
        time_limit: Duration::from_secs(10),
        budget: Budget::default(),
    };
    policies().charter(grant).unwrap().permit()
}

async fn subject(claims: &Value) -> SubjectToken {
    let bench = super::support::Bench::new();
    bench.verify(&token(&json!({}), claims)).await.unwrap().subject_token
}

fn exchanger(endpoint: &str, authentication: &str) -> (Exchanger, ManualClock) {
    let settings: ExchangeSettings = serde_json::from_value(json!({
        "token_endpoint": endpoint, "client_id": "port cullis", "client_secret": "s3:cret%", "client_authentication": authentication,
    }))
    .unwrap();
    assert!(!format!("{settings:?}").contains("s3:cret"));
    let clock = ManualClock::new(Timestamp::from_seconds(NOW));
    (Exchanger::new("corp", &settings, Arc::new(clock.clone()), &LiteralSecrets, charters()).unwrap(), clock)
}

fn target(name: &str) -> Target {
    Target { resource: Some(format!("https://{name}.example.com")), audience: None, scope: Some("logs:read".to_owned()) }
}

/// A token endpoint that numbers its tokens.
async fn endpoint(expires_in: Option<u64>) -> Server {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Server::start(move |_| {
        Box::new(move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            page(&json!({"access_token": format!("upstream-{number}"), "token_type": "Bearer", "expires_in": expires_in,
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}))
        })
    })
    .await
}

#[tokio::test]
async fn a_token_is_exchanged_once_per_caller_token_and_target() {
    let server = endpoint(Some(300)).await;
    let (exchanger, clock) = exchanger(&format!("{}/token", server.url), "basic");
    let (ada, narrow) = (subject(&json!({})).await, subject(&json!({"jti": "2"})).await);
    let get = async |who: &str, subject: &SubjectToken, name: &str| {
        exchanger.exchange(&permit(who), subject, &target(name)).await.unwrap().token.expose().to_owned()
    };
    assert_eq!(get("ada", &ada, "logs").await, "upstream-0");
    assert_eq!(get("ada", &ada, "logs").await, "upstream-0", "from memory");
    assert_eq!(get("ada", &ada, "traces").await, "upstream-1", "another target");
    assert_eq!(get("bob", &ada, "logs").await, "upstream-2", "another principal");
    assert_eq!(get("ada", &narrow, "logs").await, "upstream-3", "another token of the same caller may have other rights");
    clock.advance(Duration::from_secs(271));
    assert_eq!(get("ada", &ada, "logs").await, "upstream-4", "half a minute before its end it is renewed");
    let many = tokio::join!(get("cid", &ada, "logs"), get("cid", &ada, "logs"), get("cid", &ada, "logs"));
    let five = || "upstream-5".to_owned();
    assert_eq!(many, (five(), five(), five()), "who needs the same token at once waits for it");
    let request = server.seen.lock().unwrap()[0].clone();
    let (head, form) = request.split_once("\r\n\r\n").unwrap();
    let credential = format!("authorization: basic {}", STANDARD.encode("port+cullis:s3%3Acret%25")).to_ascii_lowercase();
    assert!(head.starts_with("POST /token ") && head.to_ascii_lowercase().contains(&credential), "{head}");
    for part in [
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        "subject_token=eyJ",
        "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token",
        "resource=https%3A%2F%2Flogs.example.com",
        "scope=logs%3Aread",
    ] {
        assert!(form.contains(part), "{part} in {form}");
    }
    assert!(!form.contains("cret"), "the secret is in the header alone");
    assert!(!format!("{exchanger:?}").contains("upstream-"));
}

#[tokio::test]
async fn a_token_without_a_known_life_is_not_kept_and_a_dead_one_is_not_exchanged() {
    let server = endpoint(None).await;
    let (exchanger, clock) = exchanger(&format!("{}/token", server.url), "post");
    let subject = subject(&json!({})).await;
    for number in 0..2 {
        let token = exchanger.exchange(&permit("ada"), &subject, &target("logs")).await.unwrap();
        assert_eq!((token.token.expose(), token.fresh), (format!("upstream-{number}").as_str(), true));
    }
    assert!(server.seen.lock().unwrap()[0].contains("client_secret=s3%3Acret%25"));
    clock.advance(Duration::from_mins(10));
    let dead = exchanger.exchange(&permit("ada"), &subject, &target("logs")).await;
    assert_eq!(dead.unwrap_err(), ExchangeError::SubjectExpired);
    let nowhere = Target { resource: None, audience: None, scope: None };
    assert_eq!(exchanger.exchange(&permit("ada"), &subject, &nowhere).await.unwrap_err(), ExchangeError::NoTarget);
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_token_endpoint_that_says_no_or_nonsense_gives_no_token() {
    let own = token(&json!({}), &json!({}));
    let subject = {
        let bench = super::support::Bench::new();
        bench.verify(&own).await.unwrap().subject_token
    };
    let answers: Vec<(&str, Page)> = vec![
        ("refuses with 'invalid_target'", (400, String::new(), json!({"error": "invalid_target"}).to_string())),
        ("status 503", (503, String::new(), json!({"error": "temporarily_unavailable"}).to_string())),
        ("status 403", (403, String::new(), "no".to_owned())),
        ("own token back", page(&json!({"access_token": own, "token_type": "Bearer", "expires_in": 60}))),
        ("no bearer token", page(&json!({"access_token": "x", "token_type": "DPoP"}))),
        (
            "another kind",
            page(
                &json!({"access_token": "x", "token_type": "Bearer", "issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}),
            ),
        ),
        ("holds no token", page(&json!({"token_type": "Bearer"}))),
        (
            "not strict",
            (200, String::new(), "{\"access_token\":\"a\",\"access_token\":\"b\",\"token_type\":\"Bearer\"}".to_owned()),
        ),
    ];
    for (word, answer) in answers {
        let server = Server::start(|_| Box::new(move |_| answer.clone())).await;
        let (exchanger, _) = exchanger(&server.url, "basic");
        let error = exchanger.exchange(&permit("ada"), &subject, &target("logs")).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(word) && !text.contains("eyJ"), "{word}: {text}");
        let fault = CallerFault::from(error);
        assert!(!fault.to_string().contains("eyJ"));
    }
}

#[test]
fn refusals_become_answers_of_the_door() {
    for reason in TokenReason::ALL {
        let refusal = crate::IdentityRefusal::from(TokenRefusal::new(reason, "detail"));
        let expected = match reason {
            TokenReason::GrantsNothing | TokenReason::TenantUnmapped => 403,
            KeysUnavailable => 503,
            _ => 401,
        };
        assert_eq!((refusal.http_status(), refusal.rule()), (expected, reason.as_str()));
        assert!(!refusal.message().contains("detail"), "the detail is for the operator");
        assert!(refusal.fault().internal().unwrap().contains("detail"));
        assert_eq!(refusal.www_authenticate.is_some(), expected != 503);
    }
}

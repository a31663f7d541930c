//! A store over real connections on loopback, through egress and under a charter. No real Vault or OpenBao runs here: the
//! stand-in speaks the HTTP API as the vendor documents it (<https://developer.hashicorp.com/vault/api-docs>) and answers
//! every request that is not in the API with 405.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_model::ManualClock;
use portcullis_policy::{Policies, Vocabulary};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// What the stand-in holds and has seen.
#[derive(Default)]
struct World {
    /// Live tokens, and seconds they live.
    tokens: Mutex<HashMap<String, u64>>,
    /// Fields by path, as of the documented answers.
    values: Mutex<HashMap<String, Value>>,
    /// First lines of requests.
    seen: Mutex<Vec<String>>,
    numbers: AtomicU64,
    /// Answers everything with this status.
    broken: Mutex<Option<u16>>,
    lease: AtomicU64,
}

impl World {
    fn issue(&self, life: u64) -> Value {
        let token = format!("hvs.token-{}", self.numbers.fetch_add(1, Ordering::SeqCst));
        self.tokens.lock().unwrap().insert(token.clone(), life);
        json!({"auth": {"client_token": token, "lease_duration": life, "renewable": true, "policies": ["default"]}})
    }

    fn answer(&self, request: &str) -> (u16, Value) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        self.seen.lock().unwrap().push(line.clone());
        if let Some(status) = *self.broken.lock().unwrap() {
            return (status, json!({"errors": ["hunter2 is broken"]}));
        }
        let header = |name: &str| {
            head.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
        };
        let denied = || (403, json!({"errors": ["permission denied", "hunter2"]}));
        if header("x-vault-request").as_deref() != Some("true") || header("x-vault-namespace").as_deref() != Some("team/a") {
            return (400, json!({"errors": ["the header X-Vault-Request or the namespace is missing"]}));
        }
        let sent: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let token = header("x-vault-token");
        match line.as_str() {
            "POST /v1/auth/approle/login" => match (&sent["role_id"], &sent["secret_id"]) {
                (role, secret) if role == "portcullis" && secret == "hunter2-secret-id" => (200, self.issue(3_600)),
                _ => (400, json!({"errors": ["invalid role or secret ID"]})),
            },
            "POST /v1/auth/kubernetes/login" if sent["role"] == "portcullis" && sent["jwt"] == "hunter2-jwt" => {
                (200, self.issue(60))
            }
            _ if !token.as_ref().is_some_and(|t| self.tokens.lock().unwrap().contains_key(t)) => denied(),
            "GET /v1/auth/token/lookup-self" => {
                let life = self.tokens.lock().unwrap()[token.as_ref().unwrap()];
                (200, json!({"data": {"ttl": life, "renewable": life > 0, "id": token}}))
            }
            "POST /v1/auth/token/renew-self" => {
                let life = self.tokens.lock().unwrap()[token.as_ref().unwrap()];
                (200, json!({"auth": {"client_token": token, "lease_duration": life, "renewable": true}}))
            }
            _ => match line.split_once(' ') {
                Some(("GET", path)) if path.starts_with("/v1/kv/") => match self.values.lock().unwrap().get(path) {
                    Some(value) if value == "forbidden" => denied(),
                    Some(value) => (200, json!({"data": value, "lease_duration": self.lease.load(Ordering::SeqCst)})),
                    None => (404, json!({"errors": []})),
                },
                _ => (405, json!({"errors": ["unsupported operation"]})),
            },
        }
    }
}

struct Bench {
    world: Arc<World>,
    store: Store,
    clock: ManualClock,
    home: tempfile::TempDir,
}

fn file(home: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

async fn serve(world: Arc<World>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let world = world.clone();
            tokio::spawn(async move {
                let (mut text, mut chunk) = (String::new(), [0; 8_192]);
                while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                    text.push_str(&String::from_utf8_lossy(&chunk[..read]));
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break;
                    }
                }
                let (status, body) = world.answer(&text);
                let body = body.to_string();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
                let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await;
            });
        }
    });
    url
}

async fn bench(auth: &str, version: &str) -> Bench {
    let world = Arc::new(World::default());
    let url = serve(world.clone()).await;
    let home = tempfile::tempdir().unwrap();
    let auth = auth
        .replace("TOKEN_FILE", &file(&home, "token", "hvs.operator\n"))
        .replace("SECRET_ID_FILE", &file(&home, "secret-id", "hunter2-secret-id\n"))
        .replace("JWT_FILE", &file(&home, "jwt", "hunter2-jwt\n"));
    let settings = format!(
        r#"{{"name":"main","url":"{url}","namespace":"team/a","mount":"kv","version":"{version}","auth":{auth},"cache":"1m","allow_addresses":["loopback"]}}"#
    );
    let settings: SecretStoreSettings = serde_json::from_str(&settings).unwrap();
    let clock = ManualClock::new(Timestamp::from_seconds(1_900_000_000));
    let store = Store::new(&settings, Arc::new(clock.clone())).unwrap();
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    store.allow(&mut |grant| policies.charter(grant)).unwrap();
    Bench { world, store, clock, home }
}

impl Bench {
    fn put(&self, path: &str, value: Value) {
        self.world.values.lock().unwrap().insert(path.to_owned(), value);
    }

    async fn get(&self, path: &str, field: &str) -> Result<String, SecretFault> {
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        self.store.read(&path, field).await.map(|reading| reading.secret.expose().to_owned())
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.world.seen.lock().unwrap())
    }
}

const APP_ROLE: &str = r#"{"app_role":{"role_id":"portcullis","secret_id":"file:SECRET_ID_FILE"}}"#;

fn versioned(value: &str) -> Value {
    json!({"data": {"token": value}, "metadata": {"created_time": "2029-01-01T00:00:00Z", "deletion_time": "", "destroyed": false}})
}

#[tokio::test]
async fn a_value_is_kept_for_its_time_and_then_asked_for_anew() {
    let bench = bench(APP_ROLE, "v2").await;
    bench.put("/v1/kv/data/apps/prom", versioned("hunter2"));
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter2");
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter2");
    assert_eq!(bench.seen(), ["POST /v1/auth/approle/login", "GET /v1/kv/data/apps/prom"], "asked once");
    bench.put("/v1/kv/data/apps/prom", versioned("hunter3"));
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter2", "within its time");
    bench.clock.advance(Duration::from_mins(1));
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter3", "rotated in the store");
    bench.clock.advance(Duration::from_secs(59));
    *bench.world.broken.lock().unwrap() = Some(503);
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter3", "the store is not needed yet");
    bench.clock.advance(Duration::from_secs(2));
    let fault = bench.get("apps/prom", "token").await.unwrap_err();
    assert!(
        matches!(&fault, SecretFault::Unavailable { reason, .. } if reason.contains("'main'") && reason.contains("sealed")),
        "{fault}"
    );
    assert!(!format!("{fault} {:?}", bench.store).contains("hunter"), "{fault} {:?}", bench.store);
}

#[tokio::test]
async fn version_one_and_the_lease_of_the_store_count() {
    let bench = bench(r#"{"kubernetes":{"role":"portcullis","jwt_file":"JWT_FILE"}}"#, "v1").await;
    bench.put("/v1/kv/apps/prom", json!({"token": "hunter2"}));
    bench.world.lease.store(10, Ordering::SeqCst);
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter2");
    assert_eq!(bench.seen(), ["POST /v1/auth/kubernetes/login", "GET /v1/kv/apps/prom"]);
    bench.clock.advance(Duration::from_secs(11));
    bench.get("apps/prom", "token").await.unwrap();
    assert_eq!(bench.seen(), ["GET /v1/kv/apps/prom"], "a lease shorter than the cache");
    // Two thirds of the token's minute are over: it is renewed on the way, and after its end there is a new login.
    bench.clock.advance(Duration::from_secs(30));
    bench.get("apps/prom", "token").await.unwrap();
    assert_eq!(bench.seen(), ["POST /v1/auth/token/renew-self", "GET /v1/kv/apps/prom"]);
    bench.clock.advance(Duration::from_mins(2));
    bench.get("apps/prom", "token").await.unwrap();
    assert_eq!(bench.seen(), ["POST /v1/auth/kubernetes/login", "GET /v1/kv/apps/prom"]);
}

#[tokio::test]
async fn a_token_made_elsewhere_is_looked_up_and_kept_alive_while_nobody_asks() {
    let bench = bench(r#"{"token":"file:TOKEN_FILE"}"#, "v2").await;
    bench.put("/v1/kv/data/apps/prom", versioned("hunter2"));
    let fault = bench.get("apps/prom", "token").await.unwrap_err();
    assert!(fault.to_string().contains("does not take the token"), "{fault}");
    bench.world.tokens.lock().unwrap().insert("hvs.operator".into(), 90);
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter2");
    bench.seen();
    bench.store.tend().await;
    assert!(bench.seen().is_empty(), "not due yet");
    bench.clock.advance(Duration::from_mins(1));
    bench.store.tend().await;
    assert_eq!(bench.seen(), ["POST /v1/auth/token/renew-self"]);
    let slot = bench.store.slot(&(vec!["apps".into(), "prom".into()], "token".into()));
    assert!(slot.lock().await.is_none(), "what is over is forgotten");
    let report = bench.store.report().await;
    assert!(report.state.as_ref().is_ok_and(|detail| detail.contains("is renewed")), "{report:?}");
}

#[tokio::test]
async fn a_token_the_store_no_longer_knows_is_replaced_once() {
    let bench = bench(APP_ROLE, "v2").await;
    bench.put("/v1/kv/data/apps/prom", versioned("hunter2"));
    bench.get("apps/prom", "token").await.unwrap();
    bench.seen();
    bench.world.tokens.lock().unwrap().clear();
    bench.clock.advance(Duration::from_mins(2));
    assert_eq!(bench.get("apps/prom", "token").await.unwrap(), "hunter2");
    let read = "GET /v1/kv/data/apps/prom";
    assert_eq!(bench.seen(), [read, "POST /v1/auth/approle/login", read]);
    // A path the policy there does not allow is refused, after one new login and no more.
    bench.put("/v1/kv/data/apps/other", json!("forbidden"));
    let fault = bench.get("apps/other", "token").await.unwrap_err();
    assert!(matches!(&fault, SecretFault::Refused { reason, .. } if reason.contains("policy")), "{fault}");
    assert_eq!(bench.seen().len(), 3);
}

#[tokio::test]
async fn what_is_not_there_or_no_text_is_said_and_nothing_of_it() {
    let bench = bench(APP_ROLE, "v2").await;
    bench.put("/v1/kv/data/a", json!({"data": {"n": 5, "empty": "", "other": "hunter2"}, "metadata": {}}));
    bench.put("/v1/kv/data/deleted", json!({"data": null, "metadata": {"deletion_time": "2020-01-01T00:00:00Z"}}));
    bench.put("/v1/kv/data/odd", json!(["hunter2"]));
    for (path, field, word) in [
        ("none", "x", "nothing at this path"),
        ("a", "x", "no such field"),
        ("a", "empty", "no such field"),
        ("a", "n", "no text"),
        ("deleted", "x", "deleted"),
        ("odd", "x", "check mount and version"),
    ] {
        let fault = bench.get(path, field).await.unwrap_err().to_string();
        assert!(fault.contains(word) && fault.contains(&format!("vault:main/{path}#{field}")), "{fault}");
        assert!(!fault.contains("hunter2"), "{fault}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_refuses_and_says_which() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = tempfile::tempdir().unwrap();
    let token = file(&home, "token", "hunter2-token");
    let settings = format!(
        r#"{{"name":"main","url":"http://{nobody}","auth":{{"token":"file:{token}"}},"timeout":"1s","allow_addresses":["loopback"]}}"#
    );
    let store = Store::new(&serde_json::from_str(&settings).unwrap(), Arc::new(portcullis_model::SystemClock)).unwrap();
    let early = store.read(&["a".to_owned()], "b").await.map(|_| ()).unwrap_err().to_string();
    assert!(early.contains("before the rules are loaded"), "without a charter nobody is asked: {early}");
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    store.allow(&mut |grant| policies.charter(grant)).unwrap();
    let fault = store.read(&["a".to_owned()], "b").await.map(|_| ()).unwrap_err().to_string();
    assert!(fault.contains("store 'main'") && fault.contains("cannot connect") && !fault.contains("hunter2"), "{fault}");
    assert!(store.report().await.state.is_err());
}

#[tokio::test]
async fn many_requests_at_once_ask_once() {
    let bench = bench(APP_ROLE, "v2").await;
    bench.put("/v1/kv/data/apps/prom", versioned("hunter2"));
    let all = futures::future::join_all((0..50).map(|_| bench.get("apps/prom", "token"))).await;
    assert!(all.iter().all(|read| read.as_deref() == Ok("hunter2")));
    assert_eq!(bench.seen().len(), 2);
    // An answer that never comes ends in time, and the file of the credential is read at every login.
    std::fs::write(bench.home.path().join("secret-id"), "hunter2-wrong").unwrap();
    bench.world.tokens.lock().unwrap().clear();
    bench.clock.advance(Duration::from_mins(2));
    let fault = bench.get("apps/prom", "token").await.unwrap_err().to_string();
    assert!(fault.contains("refuses the login with status 400") && !fault.contains("hunter2"), "{fault}");
}

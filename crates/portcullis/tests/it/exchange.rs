//! Asking a backend in the caller's own name (RFC 8693), over the real binary. The issuer is a stand-in on loopback that
//! answers the token endpoint as RFC 8693 section 2.2 says and refuses what is no exchange.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::secrets::empty_prometheus;
use crate::server::{Home, Reply, Server, intact};
use crate::tokens::{b64, now, signed_by};
use crate::visitor::Backend;

struct Bench {
    server: Server,
    issuer: Backend,
    key: KeyPair,
    api_key: String,
    /// Credentials the source saw.
    seen: Arc<Mutex<Vec<String>>>,
}

fn form(body: &str, name: &str) -> String {
    let value = body.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
    value.replace("%3A", ":").replace("%2F", "/").replace('+', " ")
}

/// Whom a token speaks of.
fn subject(token: &str) -> String {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    claims["sub"].as_str().unwrap_or_default().to_owned()
}

fn exchanged(body: &str) -> (u16, String) {
    let grant = form(body, "grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange";
    let kind = form(body, "subject_token_type") == "urn:ietf:params:oauth:token-type:access_token";
    let who = subject(&form(body, "subject_token"));
    if !grant || !kind || form(body, "audience") != "prometheus" || form(body, "scope") != "metrics:read" || who == "eve" {
        return (400, json!({"error": "invalid_target"}).to_string());
    }
    let answer = json!({"access_token": format!("exchanged-for-{who}"), "token_type": "Bearer", "expires_in": 300,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"});
    (200, answer.to_string())
}

/// An issuer that publishes its keys and exchanges tokens, and its signing key.
pub(crate) fn issuer() -> (Backend, KeyPair) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let point = key.public_key_raw().to_vec();
    let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(&point[1..33]), "y": b64(&point[33..])}]});
    let own = Arc::new(Mutex::new(String::new()));
    let named = own.clone();
    let issuer = Backend::start(move |path, body| {
        let own = named.lock().unwrap().clone();
        match path {
            "/.well-known/openid-configuration" => (200, json!({"issuer": own, "jwks_uri": format!("{own}/jwks")}).to_string()),
            "/jwks" => (200, keys.to_string()),
            "/token" => exchanged(body),
            _ => (404, String::new()),
        }
    });
    own.lock().unwrap().clone_from(&issuer.url);
    (issuer, key)
}

/// Settings that trust an issuer, and a source that is asked in the callers' names.
pub(crate) fn settings(issuer: &str, prometheus: &str) -> String {
    format!(
        "identity:\n  tokens:\n    issuers:\n      - name: test\n        issuer: '{issuer}'\n        default_roles: [reader]\n        \
         exchange: {{token_endpoint: '{issuer}/token', client_id: portcullis, client_secret: hunter2-client}}\n\
         sources:\n- {{name: prom, kind: prometheus, url: '{prometheus}', allow_addresses: [loopback], \
         auth: {{exchange: {{audience: prometheus, scopes: ['metrics:read']}}}}}}\n"
    )
}

/// A token of the issuer about somebody, for the server at `mcp`, with further claims.
pub(crate) fn token(key: &KeyPair, issuer: &str, mcp: SocketAddr, who: &str, more: &Value) -> String {
    let mut claims = json!({"iss": issuer, "aud": format!("http://{mcp}/mcp"), "sub": who, "iat": now(), "exp": now() + 300});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signed_by(key, &json!({"alg": "ES256", "typ": "at+jwt", "kid": "k"}), &claims)
}

impl Bench {
    fn start() -> Self {
        Self::start_with("")
    }

    fn start_with(more: &str) -> Self {
        let (issuer, key) = issuer();
        let (prometheus, seen) = empty_prometheus();
        let home = Home::new(&format!("{}{more}", settings(&issuer.url, &prometheus)));
        let api_key = home.key(&["--role", "reader"]);
        Self { server: Server::start_in(home), issuer, key, api_key, seen }
    }

    fn token(&self, who: &str) -> String {
        token(&self.key, &self.issuer.url, self.server.mcp, who, &json!({}))
    }

    fn ask(&self, credential: &str) -> Reply {
        self.server.call(Some(credential), "query_metrics", &json!({"query": "up", "source": "prom"}))
    }

    /// What the source saw since it was last asked.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

#[test]
fn a_backend_is_asked_in_each_callers_own_name_and_never_sees_its_token() {
    let bench = Bench::start();
    bench.taken();
    let (ada, bob) = (bench.token("ada"), bench.token("bob"));
    for (who, token) in [("ada", &ada), ("bob", &bob), ("ada", &ada)] {
        let reply = bench.ask(token);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let credentials = bench.taken();
        assert!(!credentials.is_empty(), "{}", reply.body);
        assert!(credentials.iter().all(|c| c.ends_with(&format!("Bearer exchanged-for-{who}"))), "{who}: {credentials:?}");
    }
    let asked = bench.issuer.seen();
    let exchanges: Vec<&String> = asked.iter().filter(|r| r.starts_with("POST /token ")).collect();
    assert_eq!(exchanges.len(), 2, "once for each caller's token");
    assert!(exchanges.iter().all(|r| r.to_ascii_lowercase().contains("authorization: basic ")));
    for who in ["ada", "bob"] {
        let record =
            bench.server.home.audited(|r| r["method"] == "token.exchange" && r["principal"] == format!("token:test/{who}"));
        assert_eq!((&record["decision"], &record["target"]), (&json!("allow"), &json!("prometheus")), "{record}");
    }
    let written = bench.server.log() + &bench.server.home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    for secret in [&ada, &bob, "exchanged-for", "hunter2-client", ada.split('.').nth(2).unwrap()] {
        assert!(!written.contains(secret), "{secret} was written down");
    }
    assert!(intact(&bench.server.home));
}

#[test]
fn what_was_exchanged_for_a_caller_does_not_come_back_from_an_upstream() {
    let answer = |body: &str, result: Value| {
        let id = serde_json::from_str::<Value>(body).unwrap_or_default()["id"].clone();
        (200, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
    };
    let upstream = Backend::start(move |_, body| {
        let tool = json!({"name": "look", "description": "Looks.", "annotations": {"readOnlyHint": true}, "inputSchema": {"type": "object"}});
        let leak =
            ["exchanged-for-ada", "ZXhjaGFuZ2VkLWZvci1hZGE=", "exchanged-for-bob"].map(|t| json!({"type": "text", "text": t}));
        match serde_json::from_str::<Value>(body).unwrap_or_default()["method"].as_str() {
            Some("server/discover") => answer(
                body,
                json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
            ),
            Some("tools/list") => {
                answer(body, json!({"resultType": "complete", "tools": [tool], "ttlMs": 0, "cacheScope": "private"}))
            }
            Some("tools/call") => answer(body, json!({"resultType": "complete", "content": leak})),
            _ => (404, String::new()),
        }
    });
    let bench = Bench::start_with(&format!(
        "upstreams: [{{name: up, protocol: '2026-07-28', refresh: 1s, http: {{url: '{}/mcp', allow_addresses: [loopback], \
         auth: {{exchange: {{audience: prometheus, scopes: ['metrics:read'], standing: own-standing-token}}}}}}}}]\ntools: {{expose: all}}\n",
        upstream.url
    ));
    let home = &bench.server.home;
    crate::upstreams::stands(home, "look", "new");
    crate::upstreams::accept_all(home, "up");
    let ada = bench.token("ada");
    let reply = crate::upstreams::until("it answers", || {
        let reply = bench.server.call(Some(&ada), "look", &json!({}));
        if reply.json()["result"]["isError"] == false { Ok(reply) } else { Err(reply.body) }
    });
    assert!(!reply.body.contains("exchanged-for-ada") && !reply.body.contains("ZXhjaGFuZ2Vk"), "{}", reply.body);
    assert!(reply.body.contains("[redacted:credential]"), "{}", reply.body);
    assert!(reply.body.contains("exchanged-for-bob"), "what was not presented is an ordinary word: {}", reply.body);
    let calls: Vec<String> = upstream.seen().into_iter().filter(|r| r.contains("tools/call")).collect();
    assert!(calls.iter().all(|r| r.contains("Bearer exchanged-for-ada")), "{calls:?}");
    home.audited(|r| r["method"] == "token.exchange" && r["principal"] == "token:test/ada" && r["decision"] == "allow");
}

#[test]
fn who_has_no_token_or_gets_none_is_refused_and_nothing_is_sent() {
    let bench = Bench::start();
    // Nothing but health checks without a credential of their own, which are not sent either.
    assert!(bench.taken().is_empty(), "a source was asked without a caller");
    let began = Instant::now();
    let by_key = loop {
        let reply = bench.ask(&bench.api_key);
        // A new key opens within a second.
        if reply.status != 401 {
            break reply;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{}", reply.body);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(by_key.body.contains("credential unavailable") && by_key.body.contains("without an access token"), "{}", by_key.body);
    let record = bench.server.home.audited(|r| r["tool"] == "query_metrics" && r["code"] == "forbidden");
    assert!(record["principal"].as_str().unwrap().starts_with("key:"), "{record}");
    let by_eve = bench.ask(&bench.token("eve"));
    assert!(by_eve.body.contains("gives you no token for source 'prom'"), "{}", by_eve.body);
    let record = bench.server.home.audited(|r| r["method"] == "token.exchange" && r["principal"] == "token:test/eve");
    assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")), "{record}");
    assert!(record["note"].as_str().unwrap().contains("invalid_target"), "{record}");
    assert!(bench.taken().is_empty(), "nothing was sent");
    // Standing work has no caller: how the source stands is not known, and it says so.
    let doctor: Value = serde_json::from_slice(&bench.server.home.run(&["doctor", "--json"]).stdout).unwrap();
    let line = doctor.as_array().unwrap().iter().find(|l| l["name"] == "prom").unwrap().clone();
    assert_eq!(line["state"], "attention", "{line}");
    assert!(line["detail"].as_str().unwrap().contains("not known here"), "{line}");
}

#[test]
fn a_source_for_which_nobody_exchanges_stops_the_start() {
    let source = |auth: &str| {
        format!("sources: [{{name: prom, kind: prometheus, url: 'https://prom.example', auth: {{exchange: {auth}}}}}]\n")
    };
    for (config, word) in [
        (source("{audience: prometheus}"), "no issuer is set up for token exchange"),
        (
            "identity: {tokens: {issuers: [{name: t, issuer: 'https://id.example', default_roles: [reader], exchange: \
             {token_endpoint: 'https://id.example/token', client_id: a, client_secret: b}}]}}\n"
                .to_owned()
                + &source("{scopes: [a]}"),
            "neither an audience nor a resource",
        ),
        (
            "identity: {tokens: {issuers: [{name: t, issuer: 'https://id.example', default_roles: [reader], exchange: \
             {token_endpoint: 'http://id.example/token', client_id: a, client_secret: b}}]}}\n"
                .to_owned(),
            "use https",
        ),
    ] {
        let home = Home::new(&config);
        let output = home.run(&["config", "check"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(word), "{said}");
    }
}

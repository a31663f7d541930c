//! Access tokens at the real doors: who is let in, what leads a client to its authorization server, what every forgery gets,
//! and that a caller's token never travels on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::server::{Home, Reply, Server, intact, modern, modern_headers, post, read_reply};
use crate::visitor::Visitor;

/// A web server on loopback that answers by path and remembers whole requests.
struct Web {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start(answer: impl Fn(&str, &str) -> Value + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (own, remembered) = (url.clone(), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut chunk) {
                    request.extend_from_slice(&chunk[..read]);
                    let text = String::from_utf8_lossy(&request);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break;
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                remembered.lock().unwrap().push(request);
                let body = answer(&own, &path).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
                // Who hung up does not want the answer.
                let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().join("\n")
    }
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one key, and the server that trusts it.
struct Bench {
    server: Server,
    issuer: Web,
    key: KeyPair,
    resource: String,
}

pub(crate) fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

impl Bench {
    fn start(more: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let point = key.public_key_raw().to_vec();
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(&point[1..33]), "y": b64(&point[33..])}]});
        let issuer = Web::start(move |own, path| match path {
            "/.well-known/openid-configuration" => json!({"issuer": own, "jwks_uri": format!("{own}/jwks")}),
            _ => keys.clone(),
        });
        let server = Server::start_in(Self::home(&issuer.url, more));
        let resource = format!("http://{}/mcp", server.mcp);
        Self { server, issuer, key, resource }
    }

    fn home(issuer: &str, more: &str) -> Home {
        Home::new(&format!(
            "roles: [newcomer]\nidentity:\n  tokens:\n    entry_scopes: [look]\n    issuers:\n      - name: test\n        \
             issuer: '{issuer}'\n        scopes:\n          look: {{roles: [newcomer]}}\n          act: {{roles: [reader]}}\n          \
             send: {{doors: [ingest]}}\n{more}"
        ))
    }

    fn claims(&self, scope: &str) -> Value {
        json!({"iss": self.issuer.url, "aud": self.resource, "sub": "ada", "iat": now(), "exp": now() + 300, "scope": scope})
    }

    fn token(&self, scope: &str) -> String {
        self.signed(&self.claims(scope))
    }

    fn signed(&self, claims: &Value) -> String {
        signed_by(&self.key, &json!({"alg": "ES256", "typ": "at+jwt", "kid": "k"}), claims)
    }

    fn call(&self, token: &str) -> Reply {
        self.server.call(Some(token), "list_sources", &json!({}))
    }
}

pub(crate) fn signed_by(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let key = EncodingKey::from_ec_der(key.serialized_der());
    format!("{signed}.{}", crypto::sign(signed.as_bytes(), &key, Algorithm::ES256).unwrap())
}

fn get(server: &Server, path: &str) -> Reply {
    let mut stream = std::net::TcpStream::connect(server.mcp).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.mcp).unwrap();
    read_reply(stream)
}

fn challenge(reply: &Reply) -> String {
    let line =
        |l: &str| l.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate")).map(|(_, v)| v.to_owned());
    reply.head.lines().find_map(line).unwrap_or_default()
}

#[test]
fn a_client_without_a_token_is_led_to_the_authorization_server() {
    let bench = Bench::start("");
    let refused = bench.server.call(None, "list_sources", &json!({}));
    let metadata = format!("http://{}/.well-known/oauth-protected-resource/mcp", bench.server.mcp);
    assert_eq!(refused.status, 401);
    assert_eq!(challenge(&refused), format!("Bearer realm=\"portcullis\", resource_metadata=\"{metadata}\", scope=\"look\""));
    for path in ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"] {
        let reply = get(&bench.server, path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        let document = reply.json();
        assert_eq!(document["resource"], bench.resource);
        assert_eq!(document["authorization_servers"], json!([bench.issuer.url]));
        assert_eq!(document["scopes_supported"], json!(["act", "look"]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    }
    let foreign = [("Host".to_owned(), "evil.example".to_owned())];
    assert_eq!(
        post(bench.server.mcp, "/.well-known/oauth-protected-resource", &foreign, b"").status,
        403,
        "not on a foreign name"
    );
    assert_eq!(get(&Server::start(""), "/.well-known/oauth-protected-resource").status, 404, "without issuers there is nothing");
}

#[test]
fn a_good_token_opens_its_own_doors_and_is_named_in_the_audit_log() {
    let bench = Bench::start("");
    let token = bench.token("act openid");
    for _ in 0..3 {
        let reply = bench.call(&token);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let record = bench.server.home.audited(|r| r["kind"] == "call");
    assert_eq!((&record["principal"], &record["decision"]), (&json!("token:test/ada"), &json!("allow")));
    assert_eq!(bench.issuer.seen().matches("GET /jwks").count(), 1, "the keys are fetched once");
    let headers = |token: &str| {
        vec![("Content-Type".to_owned(), "application/json".to_owned()), ("Authorization".to_owned(), format!("Bearer {token}"))]
    };
    assert_eq!(post(bench.server.otlp, "/v1/logs", &headers(&bench.token("send")), b"{}").status, 200);
    assert!(matches!(post(bench.server.otlp, "/v1/logs", &headers(&token), b"{}").status, 401 | 403), "not its door");
    let key = bench.server.home.key(&[]);
    std::thread::sleep(std::time::Duration::from_millis(900));
    assert_eq!(bench.call(&key).status, 200, "API keys still open");
    let written = bench.server.log() + &bench.server.home.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
    assert!(!written.contains(&token) && !written.contains(token.split('.').nth(2).unwrap()), "the token was written down");
    assert!(intact(&bench.server.home));
}

#[test]
fn every_forgery_is_refused_and_recorded() {
    let bench = Bench::start("");
    let good = bench.token("act");
    let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let with = |change: Value| {
        let mut claims = bench.claims("act");
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        bench.signed(&claims)
    };
    let headed = |header: Value| signed_by(&bench.key, &header, &bench.claims("act"));
    let stranger = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let confused = {
        let signed = format!("{}.{payload}", b64(json!({"alg": "HS256", "typ": "at+jwt", "kid": "k"}).to_string()));
        let secret = EncodingKey::from_secret(bench.key.public_key_raw());
        format!("{signed}.{}", crypto::sign(signed.as_bytes(), &secret, Algorithm::HS256).unwrap())
    };
    let embedded = {
        let point = stranger.public_key_raw();
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(&point[1..33]), "y": b64(&point[33..])});
        json!({"alg": "ES256", "typ": "at+jwt", "kid": "k", "jwk": jwk})
    };
    let none = b64(json!({"alg": "none", "typ": "at+jwt"}).to_string());
    let table = [
        ("token_algorithm_refused", format!("{none}.{payload}.")),
        ("token_algorithm_refused", confused),
        ("token_signature_invalid", format!("{header}.{payload}.")),
        ("token_signature_invalid", format!("{header}.{}.{signature}", b64(bench.claims("act send").to_string()))),
        (
            "token_signature_invalid",
            signed_by(&stranger, &json!({"alg": "ES256", "typ": "at+jwt", "kid": "k"}), &bench.claims("act")),
        ),
        ("unknown_token_key", headed(json!({"alg": "ES256", "typ": "at+jwt", "kid": "../../etc/passwd"}))),
        ("token_header_refused", headed(json!({"alg": "ES256", "typ": "at+jwt", "kid": "k", "jku": "http://127.0.0.1:1/jwks"}))),
        ("token_header_refused", headed(json!({"alg": "ES256", "typ": "at+jwt", "kid": "k", "x5u": "http://127.0.0.1:1/chain"}))),
        // The stranger's own key in the header, which the signature fits.
        ("token_header_refused", signed_by(&stranger, &embedded, &bench.claims("act"))),
        ("token_header_refused", headed(json!({"alg": "ES256", "typ": "at+jwt", "kid": "k", "crit": ["exp"]}))),
        ("token_too_large", with(json!({"padding": "x".repeat(20_000)}))),
        ("token_type_refused", headed(json!({"alg": "ES256", "typ": "JWT", "kid": "k"}))),
        ("token_expired", with(json!({"exp": now() - 60}))),
        ("token_not_yet_valid", with(json!({"nbf": now() + 600}))),
        ("token_lifetime_refused", with(json!({"exp": now() + 10 * 86_400}))),
        ("token_audience_refused", with(json!({"aud": "https://other.example.com/mcp"}))),
        ("unknown_token_issuer", with(json!({"iss": "https://evil.example"}))),
        ("token_claim_missing", with(json!({"sub": ""}))),
        ("token_sender_constrained", with(json!({"cnf": {"jkt": "x"}}))),
    ];
    for (rule, token) in &table {
        let reply = bench.call(token);
        assert_eq!(reply.status, 401, "{rule}: {}", reply.body);
        let said = challenge(&reply);
        assert!(said.contains("error=\"invalid_token\"") && said.contains("resource_metadata="), "{rule}: {said}");
        assert!(!reply.body.contains("eyJ") && !said.contains("eyJ"), "{rule}: the token comes back");
        let record = bench.server.home.audited(|r| r["rule"] == *rule);
        assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("unauthenticated")), "{rule}");
    }
    assert!(!bench.server.home.audit().iter().any(|r| r["kind"] == "call" && r["decision"] == "allow"));
    assert_eq!(bench.call(&good).status, 200, "the good one is still good");
}

#[test]
fn a_call_beyond_the_scope_asks_for_the_scope_it_needs() {
    let bench = Bench::start("");
    let little = bench.token("look");
    let reply = bench.call(&little);
    assert_eq!(reply.status, 403, "{}", reply.body);
    let said = challenge(&reply);
    assert!(said.contains("error=\"insufficient_scope\"") && said.contains("scope=\"look act\""), "{said}");
    let record = bench.server.home.audited(|r| r["rule"] == "insufficient-scope");
    assert_eq!((&record["principal"], &record["decision"]), (&json!("token:test/ada"), &json!("deny")));
    // What no scope would allow is refused like everything that is not there.
    let absent = bench.server.call(Some(&little), "delete_everything", &json!({}));
    assert_eq!((absent.status, absent.json()["error"]["code"].as_i64()), (200, Some(-32602)), "{}", absent.body);
    let nothing = bench.call(&bench.token("openid"));
    assert_eq!(nothing.status, 403, "{}", nothing.body);
    assert!(challenge(&nothing).contains("error=\"insufficient_scope\"") && challenge(&nothing).contains("scope=\"look\""));
    bench.server.home.audited(|r| r["rule"] == "token_grants_nothing");
    assert_eq!(bench.call(&bench.token("look act")).status, 200);
}

/// Sends a message as 2025-03-26 does, in a session or to open one.
fn in_2025_03_26(bench: &Bench, token: &str, session: Option<&str>, message: &Value) -> Reply {
    let mut headers: Vec<(String, String)> =
        [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
    headers.extend(session.map(|id| ("Mcp-Session-Id".to_owned(), id.to_owned())));
    Visitor::new(&bench.server, token).send(headers, message.to_string().as_bytes())
}

#[test]
fn in_a_batch_only_what_is_beyond_the_scope_is_refused_and_says_which_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("own.cedar");
    let rule = r#"@id("newcomers-list")
        permit (principal in Portcullis::Role::"newcomer", action == Portcullis::Action::"call", resource == Portcullis::Tool::"list_services");"#;
    std::fs::write(&rules, rule).unwrap();
    let bench = Bench::start(&format!("policies: ['{}']\n", rules.display()));
    let (little, enough) = (bench.token("look"), bench.token("look act"));
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "it", "version": "1"}}});
    let opened = in_2025_03_26(&bench, &little, None, &hello);
    let session = opened.header("mcp-session-id").unwrap_or_else(|| panic!("{} {}", opened.head, opened.body));
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(in_2025_03_26(&bench, &little, Some(&session), &ready).status, 202);
    let send = |token: &str, batch: &[Value]| in_2025_03_26(&bench, token, Some(&session), &json!(batch));
    let call = |id: u32, tool: &str| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
    let refusals = || {
        let refused = |r: &Value| r["rule"] == "insufficient-scope" && r["decision"] == "deny";
        bench.server.home.audit().iter().filter(|r| refused(r)).count()
    };
    let ids = |answers: &Value| answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect::<Vec<_>>();
    let needs = |answer: &Value| {
        let error = &answer["error"];
        assert_eq!((&error["code"], &error["data"]["code"]), (&json!(403), &json!("forbidden")), "{answer}");
        assert_eq!(error["data"]["error"], "insufficient_scope", "{answer}");
        assert!(error["message"].as_str().unwrap().contains("look act"), "{answer}");
        error["data"]["scope"].as_str().unwrap().to_owned()
    };

    // One of several: the others are answered.
    let listing = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"});
    let mixed = [call(1, "list_services"), call(2, "list_sources"), listing, call(4, "delete_everything"), ready];
    let reply = send(&little, &mixed);
    let answers = reply.json();
    assert_eq!((reply.status, challenge(&reply)), (200, String::new()), "{}", reply.body);
    assert_eq!(ids(&answers), [json!(1), json!(2), json!(3), json!(4)], "{answers}");
    assert!(answers[0]["result"].is_object() && answers[2]["result"]["tools"].is_array(), "{answers}");
    assert_eq!(needs(&answers[1]), "look act");
    assert!(answers[3]["error"]["data"]["scope"].is_null(), "what no scope opens is led to nowhere: {answers}");
    assert_eq!(refusals(), 1);

    // All of them: as it would be for each alone.
    let write = json!({"jsonrpc": "2.0", "id": 6, "method": "prompts/get",
        "params": {"name": "write_postmortem", "arguments": {"service": "cart"}}});
    let reply = send(&little, &[call(5, "list_sources"), write]);
    assert_eq!(reply.status, 403, "{}", reply.body);
    let said = challenge(&reply);
    assert!(said.contains("error=\"insufficient_scope\"") && said.contains("scope=\"look act\""), "{said}");
    let answers = reply.json();
    assert_eq!(ids(&answers), [json!(5), json!(6)], "{answers}");
    assert_eq!(answers.as_array().unwrap().iter().map(needs).collect::<Vec<_>>(), ["look act", "look act"]);
    assert_eq!(refusals(), 3, "each is recorded by itself");

    // With the scope, in the same session, everything is answered.
    let reply = send(&enough, &mixed);
    assert!(reply.status == 200 && reply.json()[1]["result"].is_object(), "{}", reply.body);
    assert_eq!(refusals(), 3);
    assert!(intact(&bench.server.home));
}

#[test]
fn a_resource_a_prompt_and_a_completion_beyond_the_scope_ask_for_the_scope_they_need() {
    let bench = Bench::start("");
    let (little, enough) = (bench.token("look"), bench.token("look act"));
    let argument = json!({"name": "service", "value": ""});
    let table = [
        ("resources/read", json!({"uri": "portcullis://guide"}), json!({"uri": "portcullis://nosuch"})),
        (
            "prompts/get",
            json!({"name": "write_postmortem", "arguments": {"service": "cart"}}),
            json!({"name": "nosuch", "arguments": {}}),
        ),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "write_postmortem"}, "argument": argument}),
            json!({"ref": {"type": "ref/prompt", "name": "nosuch"}, "argument": argument}),
        ),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/resource", "uri": "portcullis://service/{name}"}, "argument": {"name": "name", "value": ""}}),
            json!({"ref": {"type": "ref/resource", "uri": "portcullis://nosuch/{name}"}, "argument": {"name": "name", "value": ""}}),
        ),
    ];
    let asked = |token: &str, method: &str, params: &Value| Visitor::new(&bench.server, token).ask(method, params);
    for (method, params, absent) in &table {
        let counted = || {
            let refused = |r: &Value| r["rule"] == "insufficient-scope" && r["method"] == *method && r["decision"] == "deny";
            bench.server.home.audit().iter().filter(|r| refused(r)).count()
        };
        let before = counted();
        let reply = asked(&little, method, params);
        assert_eq!(reply.status, 403, "{method}: {}", reply.body);
        let said = challenge(&reply);
        assert!(said.contains("error=\"insufficient_scope\"") && said.contains("scope=\"look act\""), "{method}: {said}");
        assert_eq!(counted(), before + 1, "{method}: the refusal is recorded");
        // What no scope opens is led to nowhere.
        let unknown = asked(&little, method, absent);
        assert!(unknown.status != 403 && challenge(&unknown).is_empty(), "{method}: {}", unknown.body);
        assert!(unknown.json()["error"].is_object(), "{method}: {}", unknown.body);
        let reply = asked(&enough, method, params);
        assert!(reply.status == 200 && reply.json()["result"].is_object(), "{method}: {}", reply.body);
    }
}

#[test]
fn a_call_through_call_tool_asks_for_the_scope_the_other_tool_needs() {
    let rules = tempfile::NamedTempFile::new().unwrap();
    let names = ["find_tools", "call_tool", "list_sources", "list_services"];
    let permits = names.map(|tool| {
        format!(
            "@id(\"newcomers-{tool}\") permit (principal in Portcullis::Role::\"newcomer\", \
             action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"{tool}\");\n"
        )
    });
    std::fs::write(rules.path(), permits.concat()).unwrap();
    let bench = Bench::start(&format!("tools: {{expose: [list_sources]}}\npolicies: ['{}']\n", rules.path().display()));
    let little = bench.token("look");
    let through = |token: &str, tool: &str| bench.server.call(Some(token), "call_tool", &json!({"name": tool, "arguments": {}}));
    assert_eq!(through(&little, "list_services").status, 200, "it may call this one");
    let reply = through(&little, "list_alerts");
    assert_eq!(reply.status, 403, "{}", reply.body);
    let said = challenge(&reply);
    assert!(said.contains("error=\"insufficient_scope\"") && said.contains("scope=\"look act\""), "{said}");
    let record = bench.server.home.audited(|r| r["rule"] == "insufficient-scope");
    assert_eq!((&record["principal"], &record["decision"]), (&json!("token:test/ada"), &json!("deny")));
    assert_eq!(through(&bench.token("look act"), "list_alerts").status, 200);
    // What no scope would allow stays unknown, and so does what is no name.
    let absent = through(&little, "delete_everything");
    assert!(absent.body.contains("unknown tool"), "{}", absent.body);
    let odd = bench.server.call(Some(&little), "call_tool", &json!({"name": ["list_alerts"]}));
    assert_ne!(odd.status, 403, "{}", odd.body);
}

#[test]
fn calls_beyond_the_scope_count_like_calls_and_stay_within_the_product() {
    let more = "limits: {calls_per_second: 1, burst: 3}\nproducts: [{name: other, tools: [list_services]}]\n";
    let bench = Bench::start(more);
    let little = bench.token("look");
    let through = Visitor { path: "/mcp/other".into(), ..Visitor::new(&bench.server, &little) };
    let absent = through.call("list_sources", &json!({}));
    assert!(absent.status != 403 && absent.body.contains("unknown tool"), "no scope opens it here: {}", absent.body);
    let replies: Vec<Reply> = (0..8).map(|_| bench.call(&little)).collect();
    let with = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    assert!(with(403) >= 1 && with(429) >= 4 && with(403) + with(429) == 8, "{} and {}", with(403), with(429));
    assert!(replies.last().unwrap().header("retry-after").is_some());
    bench.server.home.audited(|r| r["rule"] == "rate-limit" && r["principal"] == "token:test/ada" && r["decision"] == "deny");
}

#[test]
fn a_backend_never_sees_the_callers_token() {
    let backend = Web::start(|_, _| json!({"status": "success", "data": {"resultType": "matrix", "result": []}}));
    let source = format!("sources: [{{name: prom, kind: prometheus, url: '{}', allow_addresses: [loopback]}}]\n", backend.url);
    let bench = Bench::start(&source);
    let token = bench.token("act");
    for tool in ["query_metrics", "list_services"] {
        let arguments = if tool == "query_metrics" { json!({"metric": "up", "source": "prom"}) } else { json!({}) };
        let body = modern(tool, &arguments).to_string();
        let mut headers = modern_headers(tool);
        headers.push(("Authorization".into(), format!("Bearer {token}")));
        headers.push(("Cookie".into(), format!("session={token}")));
        let reply = post(bench.server.mcp, "/mcp", &headers, body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let seen = backend.seen();
    assert!(seen.contains("/api/v1/"), "the backend was asked: {seen}");
    assert!(!seen.to_ascii_lowercase().contains("authorization:") && !seen.contains("eyJ"), "{seen}");
    assert!(!bench.issuer.seen().contains("eyJ"), "nor does the issuer: {}", bench.issuer.seen());
}

#[test]
fn without_the_issuer_nobody_of_it_comes_in() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = format!("http://{gone}");
    let server = Server::start_in(Bench::home(&issuer, ""));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let claims = json!({"iss": issuer, "aud": format!("http://{}/mcp", server.mcp), "sub": "ada", "iat": now(), "exp": now() + 300, "scope": "act"});
    let token = signed_by(&key, &json!({"alg": "ES256", "typ": "at+jwt", "kid": "k"}), &claims);
    let reply = server.call(Some(&token), "list_sources", &json!({}));
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.head.to_ascii_lowercase().contains("retry-after: "), "{}", reply.head);
    let record = server.home.audited(|r| r["rule"] == "token_keys_unavailable");
    assert_eq!(record["decision"], "deny");
}

#[test]
fn settings_that_would_trust_too_much_are_refused() {
    for (issuer, word) in [("http://id.example.com", "use https"), ("https://10.0.0.1", "allow_addresses")] {
        let output = Bench::home(issuer, "").run(&["serve"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(word), "{issuer}: {text}");
    }
    let home = Home::new("identity: {tokens: {issuers: [{name: t, issuer: 'https://id.example.com', default_roles: [king]}]}}\n");
    let output = home.run(&["config", "check"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("no role 'king'"), "{text}");
}

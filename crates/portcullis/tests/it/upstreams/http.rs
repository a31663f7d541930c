//! Upstreams that are reached by HTTP: what is presented to them for whom, and what bad ones can do.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{accept_all, home, sees, stands, text, tool, until};
use crate::server::Server;
use crate::visitor::{Backend, Visitor};

/// Answers as a server of the stateless revision; `call` gives the result of a call.
pub(super) fn stateless(body: &str, call: impl Fn(&Value) -> Value) -> (u16, String) {
    let Ok(request) = serde_json::from_str::<Value>(body) else { return (405, String::new()) };
    let result = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => {
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"})
        }
        "tools/list" => json!({"tools": [tool("look", "Looks.")], "resultType": "complete"}),
        "tools/call" => call(&request),
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "unknown method"}});
            return (404, error.to_string());
        }
    };
    (200, json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
}

fn said(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "resultType": "complete"})
}

pub(super) fn entry(url: &str, http: &str, more: &str) -> String {
    format!("- {{name: up, http: {{url: '{url}/mcp', allow_addresses: [loopback], {http}}}, refresh: 1s, {more}}}\n")
}

pub(super) fn start(entry: String) -> Server {
    let server = Server::start_in(home(&[entry], ""));
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    server
}

pub(super) fn header(request: &str, name: &str) -> Option<String> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
}

#[test]
fn a_stateless_upstream_gets_what_its_revision_asks_for_and_nothing_of_the_callers_credential() {
    let backend = Backend::start(|_, body| stateless(body, |request| said(&request["params"]["arguments"]["q"].to_string())));
    let server = start(entry(&backend.url, "auth: {bearer: upstream-static-token}", ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    let key = visitor.key.clone();
    sees(&visitor, "look", true);
    assert_eq!(text(&visitor.call("look", &json!({"q": "x"})).json()), "\"x\"");
    let calls: Vec<String> = backend.seen().into_iter().filter(|r| r.contains("\"tools/call\"")).collect();
    assert_eq!(calls.len(), 1, "{calls:#?}");
    for (name, value) in [
        ("authorization", "Bearer upstream-static-token"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "look"),
    ] {
        assert_eq!(header(&calls[0], name).as_deref(), Some(value));
    }
    assert_eq!(header(&calls[0], "mcp-session-id"), None);
    assert!(backend.seen().iter().all(|request| !request.contains(&key)), "the caller's credential stays here");
}

#[test]
fn each_principal_presents_its_own_secret_and_never_anothers() {
    let backend = Backend::start(|_, body| stateless(body, |_| said("done")));
    let prepared = home(&["- {name: x, stdio: {command: /x}}\n".to_owned()], "");
    let keys: Vec<String> = (0..3).map(|_| prepared.key(&["--role", "operator"])).collect();
    let listed: Value = serde_json::from_str(&prepared.run_ok(&["key", "list", "--json"])).unwrap();
    let ids: Vec<String> = listed.as_array().unwrap().iter().map(|k| k["id"].as_str().unwrap().to_owned()).collect();
    let of = |key: &str| ids.iter().find(|id| key.contains(id.as_str())).unwrap().clone();
    let own = format!(
        "auth: {{bearer: for-looking-only}}, own_credential_only: true, client_headers: [X-Grafana-Token], \
         auth_of: {{'key:{}': {{bearer: secret-of-one}}, 'key:{}': {{bearer: secret-of-two}}}}",
        of(&keys[0]),
        of(&keys[1])
    );
    let config = std::fs::read_to_string(&prepared.config).unwrap();
    let config = config.replace("- {name: x, stdio: {command: /x}}\n", &entry(&backend.url, &own, ""));
    std::fs::write(&prepared.config, config).unwrap();
    let server = Server::start_in(prepared);
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    let visitors: Vec<Visitor> = keys.iter().map(|key| Visitor::new(&server, key)).collect();
    sees(&visitors[0], "look", true);
    let threads: Vec<_> = (0..40)
        .map(|n| {
            let visitor = visitors[n % 2].clone();
            std::thread::spawn(move || {
                let call = json!({"name": "look", "arguments": {"q": format!("caller-{}", n % 2)}});
                visitor.ask("tools/call", &call).json()["result"]["isError"] == false
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    let calls: Vec<String> = backend.seen().into_iter().filter(|r| r.contains("\"tools/call\"")).collect();
    assert_eq!(calls.len(), 40);
    for call in &calls {
        let own = if call.contains("caller-0") { "Bearer secret-of-one" } else { "Bearer secret-of-two" };
        assert_eq!(header(call, "authorization").as_deref(), Some(own));
    }
    // Somebody without one.
    let refused = visitors[2].call("look", &json!({}));
    assert!(
        refused.body.contains("wants a credential of your own") && refused.body.contains("x-grafana-token"),
        "{}",
        refused.body
    );
    server.home.audited(|r| r["tool"] == "look" && r["code"] == "forbidden");
    // A header that is listed goes to the upstream; others, and the credential for this house, do not.
    let (mut headers, body) = crate::visitor::modern_request("tools/call", &json!({"name": "look", "arguments": {}}), &json!({}));
    headers.push(("X-Grafana-Token".into(), "token-of-the-client".into()));
    headers.push(("X-Other-Token".into(), "not-for-you".into()));
    let reply = visitors[2].send(headers, body.as_bytes());
    assert_eq!(reply.json()["result"]["isError"], false, "{}", reply.body);
    let last = backend.seen().pop().unwrap();
    assert_eq!(header(&last, "x-grafana-token").as_deref(), Some("token-of-the-client"));
    assert_eq!(header(&last, "x-other-token"), None);
    let everything = server.log() + &serde_json::to_string(&server.home.audit()).unwrap();
    for secret in ["token-of-the-client", "secret-of-one", "for-looking-only"] {
        assert!(!everything.contains(secret), "{secret} was written down");
    }
}

#[test]
fn a_credential_comes_back_in_no_form() {
    use base64::Engine as _;
    let secret = "opaque+upstream/credential==1";
    let backend = Backend::start(move |_, body| {
        stateless(body, |_| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{secret}"));
            let hex = secret.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
            let entities = secret.bytes().map(|b| format!("&#{b};")).collect::<Vec<_>>().concat();
            let other = format!("{hex} {} {entities} {}", hex.to_uppercase(), secret.to_uppercase());
            json!({"resultType": "complete", "isError": true, "structuredContent": {secret: [secret]}, "_meta": {"x": secret},
                "content": [{"type": "text", "text": format!("got {secret}")}, {"type": "text", "text": encoded}, {"type": "text", "text": other},
                    {"type": "resource", "resource": {"uri": format!("x://{secret}"), "blob": base64::engine::general_purpose::STANDARD.encode(secret)}}]})
        })
    });
    let server = start(entry(&backend.url, &format!("auth: {{bearer: '{secret}'}}"), ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let reply = visitor.call("look", &json!({})).body;
    for other in ["6f7061717565", "6F7061717565", "&#111;&#112;", "OPAQUE"] {
        assert!(!reply.contains(other), "{other}: {reply}");
    }
    let core = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    assert!(!reply.contains(secret) && !reply.contains(&core[..core.len() - 2]), "{reply}");
    assert!(
        !reply.contains(&base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("user:{secret}"))[8..20]),
        "{reply}"
    );
}

#[test]
fn a_credential_does_not_come_back_in_a_refusal_with_a_status_of_its_own() {
    let secret = "opaque+upstream/credential==2";
    let backend = Backend::start(move |_, body| {
        if body.contains("tools/call") {
            let error = json!({"code": -32000, "message": format!("{secret} is not enough")});
            return (400, json!({"jsonrpc": "2.0", "id": 1, "error": error}).to_string());
        }
        stateless(body, |_| json!({}))
    });
    let server = start(entry(&backend.url, &format!("auth: {{bearer: '{secret}'}}"), ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let reply = visitor.call("look", &json!({})).body;
    assert!(!reply.contains(secret) && reply.contains("[redacted:credential] is not enough"), "{reply}");
    server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
}

#[test]
fn a_credential_comes_back_in_no_error_and_in_nothing_that_is_written_down() {
    let secret = "opaque+upstream/credential==1";
    let now = std::sync::Arc::new(std::sync::Mutex::new((200, String::new())));
    let orders = now.clone();
    let backend = Backend::start(move |_, body| {
        if body.contains("\"tools/call\"") { orders.lock().unwrap().clone() } else { stateless(body, |_| Value::Null) }
    });
    let server =
        start(entry(&backend.url, &format!("auth: {{bearer: '{secret}'}}"), "refresh: 1h,").replace("refresh: 1s, ", ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let error =
        |message: String| json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32_000, "message": message}}).to_string();
    let page = format!("<h1>bad token {secret}</h1>");
    // Where the text is cut, half of it would be left.
    let long = format!("{}{secret}", "x".repeat(190));
    for (status, body) in [
        (400, error(format!("bad token {secret}"))),
        (400, error(format!("{}{secret}", "x".repeat(590)))),
        (400, page.clone()),
        (401, page.clone()),
        (403, long.clone()),
        (500, page),
        (502, long),
    ] {
        *now.lock().unwrap() = (status, body.clone());
        let reply = until("it was asked", || {
            let reply = visitor.call("look", &json!({}));
            if reply.body.contains("left alone for a moment") { Err(reply.body) } else { Ok(reply) }
        });
        assert_eq!(reply.json()["result"]["isError"], true, "{status}: {}", reply.body);
        assert!(!reply.body.contains("opaque+up"), "{status}: {}", reply.body);
    }
    let doctor = server.home.run(&["doctor"]);
    let written = format!("{}{:?}{doctor:?}", server.log(), server.home.audit());
    assert!(!written.contains("opaque+up"), "{written}");
    let record = server.home.audited(|r| r["tool"] == "look" && r["note"].as_str().is_some_and(|n| n.contains("HTTP 401")));
    assert!(record["note"].as_str().unwrap().contains("bad token [redacted:credential]"), "{record}");
}

#[test]
fn what_an_upstream_was_told_by_one_it_tells_no_other() {
    let backend = Backend::start(|_, body| {
        stateless(body, |request| {
            let token = "Zq8Xk2Tn5Rw1Lb7Yd4Vc9Hm3";
            said(&format!("{}: secret-of-somebody-else, {token}", request["params"]["arguments"]["q"]))
        })
    });
    let own = "auth: {bearer: for-looking-only}, client_headers: [X-Grafana-Token], auth_of: {'key:somebody': {bearer: secret-of-somebody-else}}";
    let server = start(entry(&backend.url, own, ""));
    let visitors: Vec<Visitor> = (0..2).map(|_| super::visitor(&server, &["--role", "operator"])).collect();
    sees(&visitors[0], "look", true);
    let (mut headers, body) = crate::visitor::modern_request("tools/call", &json!({"name": "look", "arguments": {}}), &json!({}));
    headers.push(("X-Grafana-Token".into(), "Zq8Xk2Tn5Rw1Lb7Yd4Vc9Hm3".into()));
    assert_eq!(visitors[0].send(headers, body.as_bytes()).json()["result"]["isError"], false);
    let other = text(&visitors[1].call("look", &json!({"q": "x"})).json());
    assert_eq!(other, "\"x\": [redacted:credential], [redacted:credential]");
}

#[test]
fn a_completion_presents_what_its_client_sent() {
    let backend = Backend::start(|_, body| {
        let Ok(request) = serde_json::from_str::<Value>(body) else { return (405, String::new()) };
        let result = match request["method"].as_str().unwrap_or_default() {
            "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"prompts": {}, "completions": {}}}),
            "prompts/list" => json!({"prompts": [{"name": "greet", "description": "Greets.", "arguments": [{"name": "who"}]}]}),
            "completion/complete" => json!({"completion": {"values": ["Ada", "Ann"]}}),
            _ => return (404, String::new()),
        };
        let mut result = result;
        result["resultType"] = json!("complete");
        (200, json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
    });
    let http = "auth: {bearer: for-looking-only}, client_headers: [X-Grafana-Token], own_credential_only: true";
    let server = Server::start_in(home(&[entry(&backend.url, http, "")], ""));
    stands(&server.home, "greet", "new");
    accept_all(&server.home, "up");
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("the prompt is listed", || {
        let body = visitor.ask("prompts/list", &json!({})).body;
        if body.contains("Greets") { Ok(()) } else { Err(body) }
    });
    let wanted = json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": "A"}});
    let refused = visitor.ask("completion/complete", &wanted);
    assert!(refused.body.contains("wants a credential of your own"), "{}", refused.body);
    let (mut headers, body) = crate::visitor::modern_request("completion/complete", &wanted, &json!({}));
    headers.push(("X-Grafana-Token".into(), "token-of-the-client".into()));
    let reply = visitor.send(headers, body.as_bytes());
    assert_eq!(reply.json()["result"]["completion"]["values"], json!(["Ada", "Ann"]), "{}", reply.body);
    let asked: Vec<String> = backend.seen().into_iter().filter(|r| r.contains("\"completion/complete\"")).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(header(&asked[0], "x-grafana-token").as_deref(), Some("token-of-the-client"));
}

#[test]
fn a_page_a_stateless_upstream_wants_opened_is_judged_like_every_other() {
    let backend = Backend::start(|_, body| {
        stateless(body, |request| {
            let url = request["params"]["arguments"]["q"].clone();
            let params = json!({"mode": "url", "message": "Sign in", "url": url, "elicitationId": "e"});
            json!({"resultType": "input_required", "requestState": "s", "inputRequests": {"in": {"method": "elicitation/create", "params": params}}})
        })
    });
    let server = start(entry(&backend.url, "", "questions: {links: ['https://login.example']}"));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let ask =
        |url: &str, able: Value| visitor.ask_able("tools/call", &json!({"name": "look", "arguments": {"q": url}}), &able).json();
    for bad in ["https://evil.example/", "javascript:alert(1)", "http://login.example/"] {
        let refused = ask(bad, json!({"elicitation": {"form": {}, "url": {}}}));
        assert_eq!(refused["result"]["isError"], true, "{bad}: {refused}");
        assert!(!refused.to_string().contains("inputRequests"), "{bad}: {refused}");
    }
    server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny" && r["tool"] == "up/tool/look");
    // A client that shows forms alone gets no page either.
    let unable = ask("https://login.example/", json!({"elicitation": {"form": {}}}));
    assert_eq!(unable["result"]["isError"], true, "{unable}");
    let asked = ask("https://login.example/", json!({"elicitation": {"url": {}}}));
    assert_eq!(asked["result"]["inputRequests"]["in"]["params"]["url"], "https://login.example/", "{asked}");
}

#[test]
fn questions_of_a_stateless_upstream_pass_with_its_state_sealed() {
    let backend = Backend::start(|_, body| {
        stateless(body, |request| {
            let params = &request["params"];
            if params["requestState"] == "state of the upstream" {
                return said(&format!(
                    "hello {}",
                    params["inputResponses"]["who"]["content"]["name"].as_str().unwrap_or("nobody")
                ));
            }
            let form = json!({"type": "object", "properties": {"name": {"type": "string"}}});
            json!({"resultType": "input_required", "requestState": "state of the upstream",
                "inputRequests": {"who": {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": form}}}})
        })
    });
    let server = start(entry(&backend.url, "", ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let able = json!({"elicitation": {"form": {}}});
    let asked = visitor.ask_able("tools/call", &json!({"name": "look", "arguments": {}}), &able).json();
    let message = asked["result"]["inputRequests"]["who"]["params"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("Server 'up' asks you to fill in a form") && message.ends_with("It says: Who?"), "{asked}");
    let state = asked["result"]["requestState"].as_str().unwrap();
    assert_ne!(state, "state of the upstream");
    let responses = json!({"who": {"action": "accept", "content": {"name": "Ada"}}});
    let again = json!({"name": "look", "arguments": {}, "requestState": state, "inputResponses": responses});
    assert_eq!(text(&visitor.ask_able("tools/call", &again, &able).json()), "hello Ada");
    let forged = json!({"name": "look", "arguments": {}, "requestState": "state of the upstream", "inputResponses": responses});
    assert!(visitor.ask_able("tools/call", &forged, &able).body.contains("requestState is not valid"));
}

/// A web server that answers `tools/call` with whatever `misbehave` writes.
fn misbehaving(misbehave: impl Fn(&mut std::net::TcpStream) + Send + Sync + Clone + 'static) -> String {
    served(move |_, body, stream| {
        if body.contains("\"tools/call\"") {
            return misbehave(stream);
        }
        let (status, answer) = stateless(body, |_| Value::Null);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", answer.len());
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{answer}").as_bytes());
    })
}

/// A web server that gets head and body of each request and writes whatever it wants.
pub(super) fn served(serve: impl Fn(&str, &str, &mut std::net::TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), serve) = (stream, serve.clone()) else { return };
            std::thread::spawn(move || {
                let (mut request, mut chunk) = (Vec::new(), [0; 8192]);
                let (head, body) = loop {
                    let Ok(read @ 1..) = stream.read(&mut chunk) else { return };
                    request.extend_from_slice(&chunk[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                serve(&head, &body, &mut stream);
            });
        }
    });
    url
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

#[test]
fn endless_answers_over_http_end_within_their_limits() {
    type Misbehaviour = fn(&mut std::net::TcpStream);
    let limits = "limits: {message: 1MiB, idle: 2s, time: 6s, notices: 200}";
    let cases: [(&str, Misbehaviour, &str); 5] = [
        (
            "a gigabyte in one body",
            |stream| {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n");
                let chunk = vec![b'x'; 1 << 20];
                for _ in 0..1024 {
                    if stream.write_all(&chunk).is_err() {
                        return;
                    }
                }
            },
            "sent more than",
        ),
        (
            "one event without end",
            |stream| {
                let _ = stream.write_all(format!("{EVENTS}data: ").as_bytes());
                let chunk = vec![b'x'; 1 << 16];
                while stream.write_all(&chunk).is_ok() {}
            },
            "sent more than",
        ),
        (
            "a drip",
            |stream| {
                let _ = stream.write_all(EVENTS.as_bytes());
                while stream.write_all(b": still here\n\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            },
            "no answer within",
        ),
        (
            "silence",
            |stream| {
                let _ = stream.write_all(EVENTS.as_bytes());
                std::thread::sleep(Duration::from_secs(30));
            },
            "no answer within",
        ),
        (
            "endless progress",
            |stream| {
                let _ = stream.write_all(EVENTS.as_bytes());
                let note =
                    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
                while stream.write_all(format!("data: {note}\n\n").as_bytes()).is_ok() {}
            },
            "notifications in one call",
        ),
    ];
    for (what, misbehave, says) in cases {
        let server = start(entry(&misbehaving(misbehave), "", limits));
        let visitor = super::visitor(&server, &["--role", "operator"]);
        sees(&visitor, "look", true);
        let before = server.resident();
        let began = Instant::now();
        let reply = visitor.call("look", &json!({}));
        assert!(reply.body.contains(says), "{what}: {}", reply.body);
        assert!(began.elapsed() < Duration::from_secs(15), "{what} took {:?}", began.elapsed());
        let grown = server.resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{what}: grew by {grown} bytes");
        server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
    }
}

#[test]
fn a_redirect_to_another_origin_and_an_address_nobody_allowed_are_not_followed() {
    let elsewhere = Backend::start(|_, _| (200, String::new()));
    let location =
        format!("HTTP/1.1 307 X\r\nLocation: {}/steal\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", elsewhere.url);
    let url = misbehaving(move |stream| {
        let _ = stream.write_all(location.as_bytes());
    });
    let server = start(entry(&url, "auth: {bearer: not-for-elsewhere}", ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let refused = visitor.call("look", &json!({}));
    assert!(refused.body.contains("redirects to another place"), "{}", refused.body);
    assert!(elsewhere.seen().is_empty());
    server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
    let closed = home(&["- {name: up, http: {url: 'http://127.0.0.1:9/mcp'}}\n".to_owned()], "");
    let checked = closed.run(&["config", "check"]);
    assert!(String::from_utf8_lossy(&checked.stderr).contains("loopback address"), "{checked:?}");
    let metadata = "- {name: up, http: {url: 'http://169.254.169.254/mcp', allow_addresses: [private, loopback]}}\n";
    assert!(!home(&[metadata.to_owned()], "").run(&["config", "check"]).status.success());
}

#[test]
fn dropping_a_call_closes_its_connection() {
    let (told, ended) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let told = std::sync::Arc::new(told);
    let url = misbehaving(move |stream| {
        let _ = stream.write_all(EVENTS.as_bytes());
        // The other side closing is how a call of the stateless revision is cancelled.
        while stream.write_all(b": waiting\n\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = told.lock().unwrap().send(());
    });
    let server = start(entry(&url, "", ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let (mut headers, body) = crate::visitor::modern_request("tools/call", &json!({"name": "look", "arguments": {}}), &json!({}));
    headers.push(("Authorization".into(), format!("Bearer {}", visitor.key)));
    let mut stream = std::net::TcpStream::connect(server.mcp).unwrap();
    let head = headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect::<Vec<_>>().concat();
    write!(stream, "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{head}\r\n{body}", server.mcp, body.len()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(stream);
    ended.recv_timeout(Duration::from_secs(10)).expect("the upstream's connection was closed");
    until("the cancellation is recorded", || {
        let all = server.home.audit();
        if all.iter().any(|r| r["tool"] == "look" && r["code"] == "cancelled") { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

#[test]
fn a_list_that_grows_page_by_page_is_left_before_it_fills_the_memory() {
    // Three bytes on the wire, ten times as many in memory.
    let nothing = format!("[{}0]", "[],".repeat(1_200_000));
    let backend = Backend::start(move |_, body| {
        let Ok(request) = serde_json::from_str::<Value>(body) else { return (405, String::new()) };
        if request["method"] != "tools/list" {
            return stateless(body, |_| Value::Null);
        }
        let page = request["params"]["cursor"].as_str().and_then(|cursor| cursor.parse::<u32>().ok()).unwrap_or_default();
        let tool = format!(r#"{{"name":"t{page}","inputSchema":{{"type":"object"}},"_meta":{{"x":{nothing}}}}}"#);
        let result = format!(r#"{{"tools":[{tool}],"nextCursor":"{}","resultType":"complete"}}"#, page + 1);
        (200, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request["id"]))
    });
    let server = Server::start_in(home(&[entry(&backend.url, "", "")], ""));
    until("it is recorded", || {
        let all = server.home.audit();
        let says = "67108864 bytes in one list of tools";
        let told = |r: &Value| r["method"] == "upstream.failed" && r["note"].to_string().contains(says);
        if all.iter().any(told) { Ok(()) } else { Err(format!("{all:?} {}", server.log())) }
    });
    assert!(!backend.seen().iter().any(|request| request.contains(r#""cursor":"2""#)), "two pages are too much already");
    assert!(super::listed(&server.home).is_empty());
}

#[test]
fn whoever_presents_something_else_each_time_ends_no_conversation_of_others() {
    let backend = Backend::start(|_, body| stateless(body, |_| said("done")));
    let http = "auth: {bearer: for-looking-only}, client_headers: [X-Grafana-Token]";
    let server = start(entry(&backend.url, http, "limits: {instances: 4}"));
    let (one, other) = (super::visitor(&server, &["--role", "operator"]), super::visitor(&server, &["--role", "operator"]));
    sees(&one, "look", true);
    sees(&other, "look", true);
    let call = |visitor: &Visitor, token: &str| {
        let (mut headers, body) =
            crate::visitor::modern_request("tools/call", &json!({"name": "look", "arguments": {}}), &json!({}));
        headers.push(("X-Grafana-Token".into(), token.to_owned()));
        let reply = visitor.send(headers, body.as_bytes());
        assert_eq!(reply.json()["result"]["isError"], false, "{token}: {}", reply.body);
    };
    call(&other, "token-of-the-other");
    for number in 0..12 {
        call(&one, &format!("token-number-{number}"));
    }
    call(&other, "token-of-the-other");
    let greeted = |token: &str| {
        let seen = backend.seen();
        let of = seen.iter().filter(|r| r.contains("server/discover") && header(r, "x-grafana-token").as_deref() == Some(token));
        of.count()
    };
    assert_eq!(greeted("token-of-the-other"), 1, "its conversation is the one it had");
    assert_eq!(greeted("token-number-11"), 1);
}

//! Calls that are given up and questions that are refused: the other server hears it at once, and it is recorded.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::questions::private;
use super::watching::{stream, wait_for};
use super::{Puppet, accept_all, home, sees, stands, text, tool, until};
use crate::server::Server;
use crate::visitor::{Session, modern_request};

fn orders(call: &str) -> Value {
    json!({"tools": [tool("look", "Looks.")], "call": call})
}

/// What the puppet wrote down.
pub(super) fn noted(puppet: &Puppet, name: &str) -> String {
    let file = puppet.file().with_file_name(format!("orders.json.{name}"));
    until(&format!("it noted {name}"), || std::fs::read_to_string(&file).map_err(|error| error.to_string()))
}

fn forget(puppet: &Puppet, name: &str) {
    let _ = std::fs::remove_file(puppet.file().with_file_name(format!("orders.json.{name}")));
}

pub(super) fn session_headers(session: &Session) -> Vec<(String, String)> {
    [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2025-11-25"),
        ("Mcp-Session-Id", &session.id),
        ("Authorization", &format!("Bearer {}", session.visitor.key)),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Begins a call in a session; gives what is said on its stream.
pub(super) fn begin(server: &Server, session: &Session, id: u64, tool: &str, arguments: &Value) -> Receiver<Value> {
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    stream(server, "/mcp", "POST", &session_headers(session), &body.to_string())
}

fn cancel(session: &Session, id: u64) {
    let params = json!({"requestId": id, "reason": "no longer wanted"});
    session.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
}

fn cancelled_record(server: &Server, tool: &str) -> Value {
    until("it is recorded", || {
        let found = server.home.audit().into_iter().find(|r| r["tool"] == tool && r["code"] == "cancelled");
        found.ok_or_else(|| "no record".to_owned())
    })
}

#[test]
fn a_question_its_caller_refuses_is_refused_to_the_upstream_at_once() {
    for (call, able, method) in [
        ("elicit_told", json!({"elicitation": {"form": {}}}), "elicitation/create"),
        ("sample_told", json!({"sampling": {}}), "sampling/createMessage"),
    ] {
        let (puppet, server, visitor) = private(&orders(call), "questions: {sampling: allow}");
        let session = visitor.session(&able);
        // The client says that it will not answer: an error and no choice of its user.
        let said = begin(&server, &session, 7, "look", &json!({}));
        let question = wait_for(&said, method);
        let began = Instant::now();
        session.send(&json!({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "not now"}}));
        let told = noted(&puppet, "told");
        assert!(began.elapsed() < Duration::from_secs(20), "at once, and not when waiting is over: {:?}", began.elapsed());
        if call == "elicit_told" {
            assert_eq!(told, r#"{"action": "cancel"}"#);
            assert_eq!(noted(&puppet, "then"), "notifications/cancelled", "nobody waits for the rest");
        } else {
            assert!(told.contains("did not let its model answer"), "{told}");
        }
        let ended = said.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(ended.to_string().contains(&format!("the client refused {method}")), "{ended}");
        let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
        assert!(record["note"].as_str().unwrap().contains("gets no answer: it was refused"), "{record}");
        drop(server);
    }
}

#[test]
fn a_call_cancelled_while_its_question_is_open_leaves_nobody_waiting() {
    let (puppet, server, visitor) = private(&orders("elicit_told"), "");
    let session = visitor.session(&json!({"elicitation": {"form": {}}}));
    let said = begin(&server, &session, 7, "look", &json!({}));
    wait_for(&said, "elicitation/create");
    cancel(&session, 7);
    assert_eq!(noted(&puppet, "told"), r#"{"action": "cancel"}"#);
    assert_eq!(noted(&puppet, "then"), "notifications/cancelled");
}

#[test]
fn an_answer_the_gate_refuses_is_a_refusal_to_the_upstream_at_once() {
    let puppet = Puppet::new(&orders("elicit_told"));
    let entry = puppet.entry("up", "", "").replace("args: [", "per_principal: true, args: [");
    // The first answer is more than a day's worth.
    let server = Server::start_in(home(&[entry], "limits: {tokens_per_day: 1}\n"));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    sees(&visitor, "look", true);
    let able = json!({"elicitation": {"form": {}}});
    let asked = visitor.ask_able("tools/call", &json!({"name": "look", "arguments": {"q": "x"}}), &able).json();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let answer = json!({"question": {"action": "accept", "content": {"name": "Ada"}}});
    let state = &asked["result"]["requestState"];
    let again = json!({"name": "look", "arguments": {"q": "x"}, "requestState": state, "inputResponses": answer});
    let refused = visitor.ask_able("tools/call", &again, &able).json();
    assert!(refused.to_string().contains("rate_limited"), "{refused}");
    assert_eq!(noted(&puppet, "told"), r#"{"action": "cancel"}"#, "and never what its user would have said");
    server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
}

#[test]
fn what_a_client_cancels_is_cancelled_at_the_upstream_and_recorded_as_that() {
    let puppet = Puppet::new(&orders("wait"));
    let (server, visitor) = super::with_accepted(&puppet, "", "", "");
    sees(&visitor, "look", true);
    // In a session a message says it.
    let session = visitor.session(&json!({}));
    let said = begin(&server, &session, 7, "look", &json!({}));
    noted(&puppet, "called");
    cancel(&session, 7);
    assert_eq!(noted(&puppet, "cancelled"), r#"["notifications/cancelled", true]"#);
    let record = cancelled_record(&server, "look");
    assert_eq!((&record["kind"], &record["decision"]), (&json!("failed"), &json!("allow")), "{record}");
    assert!(record["note"].as_str().unwrap().contains("the caller went away"), "{record}");
    drop(said);
    // In the stateless revision the closed stream does.
    forget(&puppet, "called");
    forget(&puppet, "cancelled");
    let (mut headers, body) = modern_request("tools/call", &json!({"name": "look", "arguments": {}}), &json!({}));
    headers.push(("Authorization".into(), format!("Bearer {}", visitor.key)));
    let call = hold(&server, &headers, &body);
    noted(&puppet, "called");
    drop(call);
    assert_eq!(noted(&puppet, "cancelled"), r#"["notifications/cancelled", true]"#);
    until("both are recorded", || {
        let count = server.home.audit().iter().filter(|r| r["tool"] == "look" && r["code"] == "cancelled").count();
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    });
}

/// Sends a request on a connection that ends with what is returned.
fn hold(server: &Server, headers: &[(String, String)], body: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(server.mcp).unwrap();
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
    let head = format!("POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{lines}\r\n", server.mcp, body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}

#[test]
fn what_is_cancelled_over_standard_input_is_cancelled_at_the_upstream() {
    let puppet = Puppet::new(&orders("wait"));
    let (server, visitor) = super::with_accepted(&puppet, "", "", "");
    sees(&visitor, "look", true);
    // The same house, after its server.
    let home = server.kill();
    let mut child = home.stdio(Stdio::null());
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let mut say = |message: Value| writeln!(input, "{message}").unwrap();
    say(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}));
    lines.next().unwrap().unwrap();
    say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let call = json!({"name": "look", "arguments": {}});
    say(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}));
    noted(&puppet, "called");
    say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}));
    assert_eq!(noted(&puppet, "cancelled"), r#"["notifications/cancelled", true]"#);
    until("it is recorded", || {
        let audit = home.audit();
        let found = audit.iter().any(|r| r["tool"] == "look" && r["code"] == "cancelled");
        if found { Ok(()) } else { Err("no record".to_owned()) }
    });
    drop(input);
    child.wait().unwrap();
}

#[test]
fn what_a_client_cancels_ends_in_a_plugin_and_is_recorded_as_that() {
    let manifest = crate::plugins::MANIFEST.replace("wall_ms: 2000", "wall_ms: 29000");
    let Some(stranger) = crate::plugins::Stranger::with("", |_| manifest) else { return };
    let (server, visitor) = stranger.started();
    let sleep = json!({"what": "sleep", "count": 28_000});
    let session = visitor.session(&json!({}));
    let began = Instant::now();
    let said = begin(&server, &session, 7, "probe_do", &sleep);
    std::thread::sleep(Duration::from_millis(500));
    cancel(&session, 7);
    let record = cancelled_record(&server, "probe_do");
    assert!(record["note"].as_str().unwrap().contains("the caller went away"), "{record}");
    assert!(began.elapsed() < Duration::from_secs(25), "it does not sleep to its end: {:?}", began.elapsed());
    drop(said);
    // In the stateless revision the closed stream says it, and what the plugin did until then is in the record.
    let (mut headers, body) = modern_request("tools/call", &json!({"name": "probe_do", "arguments": sleep}), &json!({}));
    headers.push(("Authorization".into(), format!("Bearer {}", visitor.key)));
    let call = hold(&server, &headers, &body);
    std::thread::sleep(Duration::from_millis(500));
    drop(call);
    until("it is recorded with what the plugin did", || {
        let audit = server.home.audit();
        let found = audit.iter().any(|r| r["code"] == "cancelled" && r["note"].to_string().contains("tool probe_do: given up"));
        if found { Ok(()) } else { Err(format!("{audit:#?}")) }
    });
}

#[test]
fn a_page_that_is_done_is_told_to_the_caller_who_was_asked_to_open_it() {
    let (puppet, server, visitor) = private(&orders("link_done"), "questions: {links: ['https://login.example']}");
    let session = visitor.session(&json!({"elicitation": {"url": {}}}));
    let common = stream(&server, "/mcp", "GET", &session_headers(&session), "");
    let page = "https://login.example/start";
    let said = begin(&server, &session, 7, "look", &json!({"q": page}));
    let question = wait_for(&said, "elicitation/create");
    assert_eq!(question["params"]["elicitationId"], "e1", "{question}");
    session.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}));
    let done = wait_for(&common, "notifications/elicitation/complete");
    assert_eq!(done["params"], json!({"elicitationId": "e1"}), "its own page and no other");
    let ended = said.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(text(&ended), r#"{"action": "accept"}"#);
    // Also where another page was asked for after it.
    puppet.order(&orders("link_twice"));
    let said = begin(&server, &session, 8, "look", &json!({"q": page}));
    for name in ["e1", "e2"] {
        let question = wait_for(&said, "elicitation/create");
        assert_eq!(question["params"]["elicitationId"], name, "{question}");
        session.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}));
    }
    let done = wait_for(&common, "notifications/elicitation/complete");
    assert_eq!(done["params"], json!({"elicitationId": "e1"}));
    assert_eq!(text(&said.recv_timeout(Duration::from_secs(20)).unwrap()), "signed in");
    puppet.order(&orders("link_done"));
    // The stateless revision has no word for it.
    let able = json!({"elicitation": {"url": {}}});
    let params = json!({"name": "look", "arguments": {"q": page}});
    let asked = visitor.ask_able("tools/call", &params, &able).json();
    let answers = json!({"question": {"action": "accept"}});
    let again = json!({"name": "look", "arguments": {"q": page}, "requestState": asked["result"]["requestState"], "inputResponses": answers});
    let whole = visitor.ask_able("tools/call", &again, &able).body;
    assert!(!whole.contains("elicitation/complete") && whole.contains("accept"), "{whole}");
}

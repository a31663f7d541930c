//! What an upstream says on the stream that all calls of a session share: it reaches the one caller it can be about, or nobody,
//! and then that is recorded.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::served;
use super::{accept_all, home, sees, stands, text, tool, until};
use crate::server::Server;
use crate::visitor::Visitor;

/// What the other server has: its common stream, and how many calls wait for each other.
#[derive(Default)]
struct Common {
    stream: Option<TcpStream>,
    calls: usize,
}

type Shared = Arc<(Mutex<Common>, Condvar)>;

fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str) {
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// A server of the session revisions that says everything on its common stream. A call with `q: together` waits for another.
fn talkative() -> (String, Shared) {
    let shared = Shared::default();
    let own = shared.clone();
    let url = served(move |_head, body, stream| {
        let (common, changed) = &*own;
        let Ok(request) = serde_json::from_str::<Value>(body) else {
            let head = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            common.lock().unwrap().stream = stream.try_clone().ok();
            changed.notify_all();
            return;
        };
        let result = match request["method"].as_str() {
            Some("initialize") => {
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}}, "serverInfo": {"name": "x", "version": "1"}})
            }
            Some("tools/list") => json!({"tools": [tool("look", "Looks.")]}),
            Some("tools/call") => {
                let asked = request["params"]["arguments"]["q"].as_str().unwrap_or_default().to_owned();
                let mut common = common.lock().unwrap();
                common.calls += 1;
                changed.notify_all();
                while asked == "together" && common.calls % 2 == 1 {
                    common = changed.wait_timeout(common, Duration::from_secs(30)).unwrap().0;
                }
                let token = &request["params"]["_meta"]["progressToken"];
                let log = json!({"level": "warning", "logger": "beside", "data": format!("about {asked}")});
                let progress = json!({"progressToken": token, "progress": 1, "message": format!("step of {asked}")});
                for (method, params) in [("notifications/message", log), ("notifications/progress", progress)] {
                    let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
                    let _ = common.stream.as_mut().unwrap().write_all(format!("data: {message}\n\n").as_bytes());
                }
                drop(common);
                // What was said before arrives before.
                std::thread::sleep(Duration::from_millis(300));
                json!({"content": [{"type": "text", "text": format!("looked at {asked}")}]})
            }
            _ => return answer(stream, 202, "", ""),
        };
        let message = json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string();
        answer(stream, 200, "Content-Type: application/json\r\nMcp-Session-Id: s1\r\n", &message);
    });
    (url, shared)
}

/// The whole answer to a call of somebody who wants to hear everything.
fn heard(visitor: &Visitor, q: &str) -> String {
    let meta = json!({"io.modelcontextprotocol/logLevel": "debug", "progressToken": "mine"});
    visitor.ask("tools/call", &json!({"name": "look", "arguments": {"q": q}, "_meta": meta})).body
}

fn start() -> (Server, Visitor, Shared) {
    let (url, shared) = talkative();
    let http = format!("http: {{url: '{url}/mcp', allow_addresses: [loopback]}}");
    let server = Server::start_in(home(&[format!("- {{name: up, {http}, protocol: session, refresh: 1h, recheck: 1h}}\n")], ""));
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    until("it is listened to", || if shared.0.lock().unwrap().stream.is_some() { Ok(()) } else { Err(server.log()) });
    (server, visitor, shared)
}

#[test]
fn what_is_said_beside_the_answer_reaches_the_only_caller_and_progress_whoever_it_is_of() {
    let (server, visitor, _shared) = start();
    let said = heard(&visitor, "a");
    for words in ["about a", "step of a", "looked at a", r#""logger":"beside""#, r#""progressToken":"mine""#] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Who did not ask for log messages gets none.
    let quiet = visitor.call("look", &json!({"q": "b"}));
    assert!(!quiet.body.contains("about b") && text(&quiet.json()) == "looked at b", "{}", quiet.body);
    assert!(!server.home.audit().iter().any(|r| r["method"] == "upstream.unheard"));
}

#[test]
fn what_could_be_about_two_callers_reaches_neither_and_is_recorded() {
    let (server, one, _shared) = start();
    let two = super::visitor(&server, &["--role", "operator"]);
    let other = std::thread::spawn(move || heard(&two, "together"));
    let said = [heard(&one, "together"), other.join().unwrap()];
    for said in &said {
        assert!(!said.contains("about together"), "{said}");
        assert!(said.contains("step of together") && said.contains("looked at together"), "progress has a name: {said}");
    }
    let record = until("it is recorded", || {
        let found = server.home.audit().into_iter().find(|r| r["method"] == "upstream.unheard");
        found.ok_or_else(|| server.log())
    });
    assert_eq!((&record["kind"], &record["tool"]), (&json!("upstream"), &json!("up")), "{record}");
    assert!(record["note"].as_str().unwrap().contains("2 log messages reached nobody"), "{record}");
}

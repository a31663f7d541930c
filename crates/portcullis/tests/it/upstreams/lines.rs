//! Sessions over HTTP in which the other side does not keep to the order of things.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::served;
use super::{accept_all, home, sees, stands, text, tool, until};
use crate::server::Server;
use crate::visitor::Backend;

/// Writes an answer with these headers.
fn answer(stream: &mut std::net::TcpStream, status: u16, headers: &str, body: &str) {
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// A server of the session revisions that counts its calls. What becomes of a call says `how`: its session is `gone` before
/// it is taken, once; its stream ends and cannot be `resumed`; it asks something and does not take what it is `told`.
fn session(how: &'static str) -> (String, Arc<AtomicU32>) {
    let (calls, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counted = calls.clone();
    let url = served(move |head, body, stream| {
        let json_answer = |stream: &mut std::net::TcpStream, request: &Value, result: Value| {
            let message = json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string();
            answer(stream, 200, "Content-Type: application/json\r\nMcp-Session-Id: s1\r\n", &message);
        };
        let Ok(request) = serde_json::from_str::<Value>(body) else {
            let resumes = head.to_ascii_lowercase().contains("last-event-id");
            return answer(stream, if resumes { 404 } else { 405 }, "", "");
        };
        let events = |stream: &mut std::net::TcpStream, text: &str| {
            let head = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        };
        match request["method"].as_str() {
            Some("initialize") => json_answer(
                stream,
                &request,
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}),
            ),
            Some("tools/list") => json_answer(stream, &request, json!({"tools": [tool("look", "Looks.")]})),
            Some("tools/call") if how == "gone" && refused.fetch_add(1, Ordering::SeqCst) == 0 => answer(stream, 404, "", ""),
            Some("tools/call") => {
                counted.fetch_add(1, Ordering::SeqCst);
                match how {
                    "resumed" => events(stream, "id: 1\nretry: 10\ndata:\n\n"),
                    "told" => {
                        let question = json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}});
                        events(stream, &format!("data: {question}\n\n"));
                    }
                    _ => json_answer(stream, &request, json!({"content": [{"type": "text", "text": "looked"}]})),
                }
            }
            Some(_) => answer(stream, 202, "", ""),
            None => answer(stream, 404, "", ""),
        }
    });
    (url, calls)
}

#[test]
fn a_call_that_was_taken_is_never_made_twice_and_one_that_was_not_is_made_once() {
    for how in ["gone", "resumed", "told"] {
        let (url, calls) = session(how);
        let entry =
            format!("- {{name: up, http: {{url: '{url}/mcp', allow_addresses: [loopback]}}, protocol: session, refresh: 1h}}\n");
        let server = Server::start_in(home(&[entry], ""));
        stands(&server.home, "look", "new");
        accept_all(&server.home, "up");
        let visitor = super::visitor(&server, &["--role", "operator"]);
        sees(&visitor, "look", true);
        let reply = visitor.call("look", &json!({})).json();
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{how}: {reply}");
        if how == "gone" {
            assert_eq!(text(&reply), "looked");
        } else {
            assert!(reply.to_string().contains("upstream 'up' cannot be reached"), "{how}: {reply}");
            let record = server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
            assert!(record["note"].as_str().unwrap().contains("ended the session before the answer"), "{how}: {record}");
        }
    }
}

#[test]
fn a_flood_of_pings_on_a_standing_stream_ends_it_and_waits_nowhere() {
    let (told, ended) = std::sync::mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let url = served(move |head, body, stream| {
        if !body.is_empty() {
            // It never takes an answer.
            std::thread::sleep(Duration::from_secs(5));
            return;
        }
        let events = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        assert!(head.starts_with("GET "), "{head}");
        let _ = stream.write_all(format!("{events}event: endpoint\ndata: /messages\n\n").as_bytes());
        let pings = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n".repeat(1_000);
        while stream.write_all(pings.as_bytes()).is_ok() {}
        let _ = told.lock().unwrap().send(());
    });
    let entry =
        format!("- {{name: up, sse: {{url: '{url}/sse', allow_addresses: [loopback]}}, limits: {{start: 60s, idle: 60s}}}}\n");
    let server = Server::start_in(home(&[entry], ""));
    let before = server.resident();
    ended.recv_timeout(Duration::from_secs(20)).expect("its stream was ended");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {grown} bytes");
    super::until("the doctor says why", || {
        let report = String::from_utf8_lossy(&server.home.run(&["doctor", "--json"]).stdout).into_owned();
        if report.contains("sent more than 600 requests of its own") { Ok(()) } else { Err(report) }
    });
}

#[test]
fn an_address_to_post_to_on_another_origin_gets_nothing() {
    let elsewhere = Backend::start(|_, _| (202, String::new()));
    let places = [
        format!("{}/messages", elsewhere.url),
        elsewhere.url.replace("http:", "") + "/messages",
        elsewhere.url.replace("http://", "http://user@") + "/messages",
        elsewhere.url.replace("127.0.0.1", "localhost") + "/messages",
    ];
    for place in places {
        let (told, asked) = (place.clone(), Arc::new(Mutex::new(Vec::new())));
        let heard = asked.clone();
        let url = served(move |head, body, stream| {
            heard.lock().unwrap().push(format!("{head}\r\n\r\n{body}"));
            if !body.is_empty() {
                return answer(stream, 202, "", "");
            }
            let events = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{events}event: endpoint\ndata: {told}\n\n").as_bytes());
            // It waits for whoever posts elsewhere.
            std::thread::sleep(Duration::from_secs(2));
        });
        let address = format!("url: '{url}/sse', allow_addresses: [loopback], auth: {{bearer: for-this-origin-only}}");
        let server = Server::start_in(home(&[format!("- {{name: up, sse: {{{address}}}, limits: {{start: 5s}}}}\n")], ""));
        super::visitor(&server, &["--role", "operator"]);
        let record = until("it is refused", || {
            let record = server.home.audit().into_iter().find(|r| r["method"] == "upstream.failed");
            record.ok_or_else(|| server.log())
        });
        assert_eq!((&record["kind"], &record["tool"], &record["decision"]), (&json!("upstream"), &json!("up"), &json!("deny")));
        assert!(record["note"].as_str().unwrap().contains("the address the server gave leads to another origin"), "{record}");
        let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
        assert!(report.contains("leads to another origin"), "{report}");
        assert!(elsewhere.seen().is_empty(), "{place}: {:?}", elsewhere.seen());
        let asked = asked.lock().unwrap().clone();
        assert!(asked.iter().any(|request| request.contains("for-this-origin-only")), "its own origin was shown it: {asked:?}");
        assert!(asked.iter().all(|request| request.starts_with("GET ")), "nothing was posted: {asked:?}");
    }
}

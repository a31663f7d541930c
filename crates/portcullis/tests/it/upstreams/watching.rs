//! Watching resources of an upstream: who may read one is told when it changes, in both eras, and a flood is no flood.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Puppet, text, tool, until, with_accepted};
use crate::server::Server;
use crate::visitor::{Visitor, modern_request};

const WAIT: Duration = Duration::from_secs(20);

/// What is said on a stream that stays open, message by message.
pub(crate) fn stream(server: &Server, path: &str, request: &str, headers: &[(String, String)], body: &str) -> Receiver<Value> {
    let mut stream = TcpStream::connect(server.mcp).unwrap();
    let mut head = format!("{request} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", server.mcp, body.len());
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(message) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok())
                && sender.send(message).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// Waits for a message of a method.
pub(crate) fn wait_for(said: &Receiver<Value>, method: &str) -> Value {
    loop {
        let message = said.recv_timeout(WAIT).unwrap_or_else(|e| panic!("no {method}: {e}"));
        if message["method"] == method {
            return message;
        }
    }
}

fn orders() -> Value {
    json!({"tools": [tool("look", "Looks.")], "call": "update", "subscribe": true,
        "resources": [{"uri": "note://one", "name": "one"}, {"uri": "note://two", "name": "two"}]})
}

fn subscribed(visitor: &Visitor) -> String {
    text(&visitor.call("look", &json!({"q": "0"})).json())
}

pub(crate) fn watch(server: &Server, visitor: &Visitor, uri: &str) -> Receiver<Value> {
    let (mut headers, body) =
        modern_request("subscriptions/listen", &json!({"notifications": {"resourceSubscriptions": [uri]}}), &json!({}));
    headers.push(("Authorization".into(), format!("Bearer {}", visitor.key)));
    stream(server, "/mcp", "POST", &headers, &body)
}

#[test]
fn changes_of_a_watched_resource_are_told_in_both_eras_and_a_flood_is_not() {
    let puppet = Puppet::new(&orders());
    let (server, visitor) = with_accepted(&puppet, "", "", "");
    until("it can be watched", || {
        let reply = visitor.ask("server/discover", &json!({})).body;
        if reply.contains(r#""subscribe":true"#) { Ok(()) } else { Err(reply) }
    });
    // The stateless revision.
    let said = watch(&server, &visitor, "note://one");
    let granted = wait_for(&said, "notifications/subscriptions/acknowledged");
    assert!(granted.to_string().contains("note://one"), "{granted}");
    until("the upstream was asked", || {
        let now = subscribed(&visitor);
        if now == r#"subscribed: ["note://one"]"# { Ok(()) } else { Err(now) }
    });
    server.home.audited(|r| r["method"] == "resources/subscribe" && r["tool"] == "note://one" && r["decision"] == "allow");
    visitor.call("look", &json!({"q": "1"}));
    let told = wait_for(&said, "notifications/resources/updated");
    assert_eq!(told["params"]["uri"], "note://one", "{told}");
    // A session, which watches the same: the upstream is asked once.
    let session = visitor.session(&json!({}));
    let headers = [
        ("Accept".to_owned(), "text/event-stream".to_owned()),
        ("MCP-Protocol-Version".to_owned(), "2025-11-25".to_owned()),
        ("Mcp-Session-Id".to_owned(), session.id.clone()),
        ("Authorization".to_owned(), format!("Bearer {}", visitor.key)),
    ];
    let heard = stream(&server, "/mcp", "GET", &headers, "");
    let reply = session.ask("resources/subscribe", &json!({"uri": "note://one"}));
    assert!(reply.body.contains("result"), "{}", reply.body);
    assert_eq!(subscribed(&visitor), r#"subscribed: ["note://one"]"#);
    // Ten thousand announcements are a few.
    visitor.call("look", &json!({"q": "10000"}));
    assert_eq!(wait_for(&heard, "notifications/resources/updated")["params"]["uri"], "note://one");
    wait_for(&said, "notifications/resources/updated");
    let mut more = 0;
    while let Ok(message) = said.recv_timeout(Duration::from_secs(2)) {
        assert_eq!(message["params"]["uri"], "note://one", "nobody watches the other: {message}");
        more += 1;
    }
    assert!(more <= 20, "{more}");
    // What nobody watches any more is given up.
    let reply = session.ask("resources/unsubscribe", &json!({"uri": "note://one"}));
    assert!(reply.body.contains("result"), "{}", reply.body);
    drop((said, heard));
    let _ = session.ask("ping", &json!({}));
    until("it is given up", || {
        visitor.call("look", &json!({"q": "1"}));
        let now = subscribed(&visitor);
        if now == "subscribed: []" { Ok(()) } else { Err(now) }
    });
}

#[test]
fn who_may_not_read_may_not_watch() {
    let puppet = Puppet::new(&orders());
    let (server, visitor) = with_accepted(&puppet, "", "", "");
    until("it can be watched", || {
        let reply = visitor.ask("server/discover", &json!({})).body;
        if reply.contains(r#""subscribe":true"#) { Ok(()) } else { Err(reply) }
    });
    let foreign = super::visitor(&server, &["--role", "operator", "--tenant", "other"]);
    let session = foreign.session(&json!({}));
    let refused = session.ask("resources/subscribe", &json!({"uri": "note://one"}));
    assert!(refused.body.contains("no such resource"), "{}", refused.body);
    server.home.audited(|r| r["method"] == "resources/subscribe" && r["code"] == "not_found" && r["tenant"] == "other");
    let absent = visitor.session(&json!({})).ask("resources/subscribe", &json!({"uri": "note://none"}));
    assert!(absent.body.contains("no such resource"), "{}", absent.body);
    assert_eq!(subscribed(&visitor), "subscribed: []");
}

//! What clients send for an upstream: it comes back to nobody, and nobody changes with it what others are told.

use std::io::Write as _;

use serde_json::{Value, json};

use super::http::{entry, header, served, start, stateless};
use super::{listed, sees, text, tools};
use crate::server::Reply;
use crate::visitor::{Backend, Visitor, modern_request};

/// A token as services give them out.
const TOKEN: &str = "Zq8Xk2Tn5Rw1Lb7Yd4Vc9Hm3";
/// What everybody knows who looks at production.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn call_with(visitor: &Visitor, own: &str) -> Reply {
    let (mut headers, body) = modern_request("tools/call", &json!({"name": "look", "arguments": {}}), &json!({}));
    headers.push(("X-Own".into(), own.to_owned()));
    visitor.send(headers, body.as_bytes())
}

const HTTP: &str = "auth: {bearer: for-looking-only}, client_headers: [X-Own]";

#[test]
fn no_client_takes_anything_out_of_what_others_are_told() {
    let backend = Backend::start(|_, body| {
        stateless(body, |_| {
            json!({"resultType": "complete", "isError": true, "structuredContent": {"state": "UNHEALTHY", "trace": TRACE},
                "content": [{"type": "text", "text": format!("UNHEALTHY, see the content of {TRACE}")}]})
        })
    });
    let server = start(entry(&backend.url, HTTP, ""));
    let reader = super::visitor(&server, &["--role", "reader"]);
    let admin = super::visitor(&server, &["--role", "admin"]);
    sees(&admin, "look", true);
    sees(&reader, "look", true);
    let words =
        ["content", "isError", "structuredContent", "UNHEALTHY", "resultType", "complete", "inputSchema", "Looks.", TRACE];
    for word in words {
        let own = call_with(&reader, word).json();
        assert_eq!(own["result"]["isError"], true, "what a result says about itself stays, {word}: {own}");
        assert!(own["result"]["structuredContent"].is_object(), "{word}: {own}");
        let other = admin.call("look", &json!({})).json();
        assert_eq!(other["result"]["isError"], true, "{word}: {other}");
        assert_eq!(text(&other), format!("UNHEALTHY, see the content of {TRACE}"), "{word}");
        let structured = other["result"]["structuredContent"].to_string();
        assert!(structured.contains("UNHEALTHY") && structured.contains(TRACE), "{word}: {other}");
    }
    // In its own answer it is taken out, and that is on the record.
    assert!(text(&call_with(&reader, "UNHEALTHY").json()).starts_with("[redacted:credential], see"));
    server.home.audited(|r| {
        r["tool"] == "look" && r["note"].as_str().is_some_and(|n| n.contains("a credential that was presented came back"))
    });
    // Nor does a definition become another one.
    assert_eq!(listed(&server.home), [("look".to_owned(), "accepted".to_owned())]);
    assert!(tools(&admin).contains(&"look".to_owned()));
    let calls = backend.seen().into_iter().filter(|r| r.contains("\"tools/list\"")).count();
    assert!(calls > words.len(), "it was looked at under each of these headers");
    assert!(
        !server.home.audit().iter().any(|r| r["method"] == "upstream.quarantined" && r["note"].to_string().contains("changed"))
    );
}

#[test]
fn a_token_of_one_client_is_taken_out_of_the_answer_to_another_and_that_is_recorded() {
    let backend = Backend::start(|_, body| {
        stateless(body, |_| {
            let hex = TOKEN.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
            json!({"resultType": "complete", "structuredContent": {"isError": TOKEN},
                "content": [{"type": "text", "text": format!("it sent {TOKEN} and {hex}.")}]})
        })
    });
    let server = start(entry(&backend.url, HTTP, ""));
    let one = super::visitor(&server, &["--role", "operator"]);
    let other = super::visitor(&server, &["--role", "operator"]);
    sees(&one, "look", true);
    sees(&other, "look", true);
    let own = call_with(&one, &format!("Bearer {TOKEN}"));
    let told = other.call("look", &json!({}));
    for reply in [&own, &told] {
        assert!(!reply.body.contains(TOKEN), "{}", reply.body);
        assert_eq!(text(&reply.json()), "it sent [redacted:credential] and [redacted:credential].");
        assert_eq!(reply.json()["result"]["structuredContent"]["isError"], "[redacted:credential]", "{}", reply.body);
    }
    let record = server.home.audited(|r| {
        r["tool"] == "look" && r["note"].as_str().is_some_and(|n| n.contains("what a client presented in another call came back"))
    });
    assert_eq!(record["kind"], "call", "{record}");
    let written = format!("{}{:?}", server.log(), server.home.audit());
    assert!(!written.contains(TOKEN), "{written}");
}

#[test]
fn a_definition_that_holds_a_callers_credential_is_refused_to_that_caller_and_not_written_down() {
    let url = served(|head, body, stream| {
        let (status, answer) = stateless(body, |_| json!({"resultType": "complete", "content": []}));
        let own = header(head, "x-own").map_or_else(|| "Looks.".to_owned(), |own| format!("Looks for {own}."));
        let answer = answer.replace("Looks.", &own);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", answer.len());
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{answer}").as_bytes());
    });
    let server = start(entry(&url, HTTP, ""));
    let one = super::visitor(&server, &["--role", "operator"]);
    let other = super::visitor(&server, &["--role", "operator"]);
    sees(&one, "look", true);
    let refused = call_with(&one, TOKEN);
    assert!(refused.body.contains("held until a person accepts it"), "{}", refused.body);
    let record = server
        .home
        .audited(|r| r["method"] == "upstream.quarantined" && r["note"].as_str().is_some_and(|n| n.contains("not written down")));
    assert_eq!((&record["tool"], &record["decision"]), (&json!("up/tool/look"), &json!("deny")), "{record}");
    assert_eq!(listed(&server.home), [("look".to_owned(), "accepted".to_owned())]);
    assert_eq!(other.call("look", &json!({})).json()["result"]["isError"], false);
    let written = format!("{}{:?}{:?}", server.log(), server.home.run(&["upstream", "review", "up"]), server.home.audit());
    assert!(!written.contains(TOKEN), "{written}");
    let pins: Value = serde_json::from_str(&server.home.run_ok(&["upstream", "list", "--json"])).unwrap();
    assert!(!pins.to_string().contains(TOKEN), "{pins}");
}

//! What clients send for an upstream: it comes back to nobody, and nobody changes with it what others are told.

use std::io::Write as _;

use serde_json::{Value, json};

use super::http::{entry, header, served, start, stateless};
use super::{Puppet, listed, sees, text, tool, tools, unframed, with_accepted};
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

#[test]
fn a_credential_in_another_writing_or_in_pieces_does_not_come_back() {
    use base64::Engine as _;
    let token = "quite-ordinary-words-of-some-length";
    let each = |form: fn(u8) -> String| token.bytes().map(form).collect::<String>();
    let hex = each(|b| format!("{b:02x}"));
    let pairs: Vec<&str> = (0..token.len()).map(|at| &hex[2 * at..2 * at + 2]).collect();
    let whole = base64::engine::general_purpose::STANDARD.encode(format!("Bearer 0123456789, {token}: what was presented."));
    let written = [
        pairs.join(":"),
        pairs.join(" ").to_uppercase(),
        format!("{}\n{}", &hex[..40], &hex[40..]),
        format!("{}\r\n{}", &whole[..64], &whole[64..]),
        each(|b| format!("%{b:02x}")),
        each(|b| format!("\\u{b:04x}")),
        token.replace('-', "\u{200b}-"),
    ];
    let mut texts: Vec<String> = written.iter().map(|form| format!("got {form}.")).collect();
    texts.extend([format!("it begins {}", &token[..9]), token[9..20].to_owned(), format!("{} and ends", &token[20..])]);
    let content: Vec<Value> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")], "call": "content", "content": content}));
    let (server, visitor) = with_accepted(&puppet, &format!("TOKEN: {token}"), "", "");
    sees(&visitor, "look", true);
    let reply = visitor.call("look", &json!({}));
    let told: Vec<String> =
        reply.json()["result"]["content"].as_array().unwrap().iter().map(|block| unframed(&block["text"])).collect();
    assert_eq!(told.len(), texts.len(), "{}", reply.body);
    for (sent, told) in written.iter().zip(&told) {
        let is_base64 = sent.contains(&whole[..64]);
        assert!(told.starts_with("got ") && told.ends_with('.') && told.contains("[redacted:credential]"), "{sent}: {told}");
        assert!(is_base64 || told == "got [redacted:credential].", "{sent}: {told}");
        assert!(!is_base64 || !told.contains(&whole[32..64]), "{sent}: {told}");
    }
    let pieces = ["it begins [redacted:credential]", "[redacted:credential]", "[redacted:credential] and ends"];
    assert_eq!(told[written.len()..], pieces, "{}", reply.body);
    let record = server.home.audited(|r| r["tool"] == "look" && r["kind"] == "call");
    assert!(record["note"].as_str().is_some_and(|n| n.contains("a credential that was presented came back")), "{record}");
    assert!(!server.home.audit().iter().any(|r| r.to_string().contains(&token[9..20])), "nor is any of it on record");
}

#[test]
fn a_header_that_is_too_long_to_be_looked_for_is_not_handed_on_and_its_sender_is_told() {
    let backend = Backend::start(|_, body| {
        stateless(body, |_| json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]}))
    });
    let server = start(entry(&backend.url, HTTP, ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    let long = TOKEN.repeat(400);
    let refused = call_with(&visitor, &long);
    assert!(refused.body.contains("the header x-own has 9600 bytes, which is too long to be handed on"), "{}", refused.body);
    assert!(!refused.body.contains(TOKEN), "{}", refused.body);
    assert!(!backend.seen().iter().any(|request| request.contains(TOKEN)), "it went nowhere");
    let record = server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
    assert_eq!(record["code"], "too_large", "{record}");
    assert!(!record.to_string().contains(TOKEN), "{record}");
    assert_eq!(text(&call_with(&visitor, &TOKEN.repeat(300)).json()), "done");
}

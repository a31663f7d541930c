//! What an upstream may ask while a call runs: the caller's model, its user, pages to open, roots; and tools that only run as
//! a task. Each test sees what the upstream is told and the record of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ends::{self, noted, session_headers};
use super::watching::{stream, wait_for};
use super::{Puppet, accept_all, home, listed, sees, text, tool, until};
use crate::server::Server;
use crate::visitor::Visitor;

/// A token no provider ever gave.
const TOKEN: &str = "ghp_0123456789abcdefghijABCDEFGHIJ456789";

/// A server with one accepted puppet that has a process for each caller, and a caller.
pub(super) fn private(orders: &Value, more: &str) -> (Puppet, Server, Visitor) {
    let puppet = Puppet::new(orders);
    let entry = puppet.entry("up", "", more).replace("args: [", "per_principal: true, args: [");
    let server = Server::start_in(home(&[entry], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("something waits", || if listed(&server.home).is_empty() { Err(server.log()) } else { Ok(()) });
    accept_all(&server.home, "up");
    sees(&visitor, "look", true);
    (puppet, server, visitor)
}

fn orders(call: &str) -> Value {
    json!({"tools": [tool("look", "Looks.")], "call": call})
}

fn begin(visitor: &Visitor, argument: &str, able: &Value) -> Value {
    visitor.ask_able("tools/call", &json!({"name": "look", "arguments": {"q": argument}}), able).json()
}

/// Goes on with a call that asked something.
fn go_on(visitor: &Visitor, argument: &str, able: &Value, asked: &Value, responses: &Value) -> Value {
    let state = &asked["result"]["requestState"];
    let params = json!({"name": "look", "arguments": {"q": argument}, "requestState": state, "inputResponses": responses});
    visitor.ask_able("tools/call", &params, able).json()
}

#[test]
fn a_callers_model_is_asked_only_where_the_operator_allows_it_and_secrets_stay_on_both_sides() {
    let able = json!({"sampling": {}});
    let (_puppet, server, visitor) = private(&orders("sample"), "");
    let refused = begin(&visitor, "Hello", &able);
    assert!(text(&refused).contains("the operator does not allow sampling"), "{refused}");
    let record = server.home.audited(|r| r["method"] == "upstream.question");
    assert_eq!(
        (&record["kind"], &record["decision"], &record["tool"]),
        (&json!("upstream"), &json!("deny"), &json!("up/tool/look"))
    );
    drop(server);

    let (_puppet, server, visitor) = private(&orders("sample"), "questions: {sampling: allow, sampling_tokens: 50}");
    let unable = begin(&visitor, "Hello", &json!({}));
    assert!(text(&unable).contains("or the client has none"), "{unable}");
    let asked = begin(&visitor, TOKEN, &able);
    let question = &asked["result"]["inputRequests"]["question"];
    assert_eq!(question["method"], "sampling/createMessage", "{asked}");
    assert_eq!((&question["params"]["maxTokens"], &question["params"]["includeContext"]), (&json!(50), &json!("none")));
    let prompt = question["params"]["systemPrompt"].as_str().unwrap_or_default();
    assert!(prompt.starts_with("Server 'up' asks for this text, and gets it."), "who asks is said where nobody said it: {asked}");
    assert!(!asked.to_string().contains(TOKEN) && asked.to_string().contains("[redacted:"), "{asked}");
    let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "allow");
    assert!(record["note"].as_str().unwrap().contains("sampling/createMessage is put to the client of key:"), "{record}");
    let said = json!({"question": {"role": "assistant", "model": "m", "content": {"type": "text", "text": format!("it is {TOKEN}")},
        "_meta": {"of": "the client"}}});
    let done = go_on(&visitor, TOKEN, &able, &asked, &said);
    let heard: Value = serde_json::from_str(&text(&done)).unwrap();
    assert_eq!((&heard["role"], &heard["model"]), (&json!("assistant"), &json!("m")), "{done}");
    assert!(heard["content"]["text"].as_str().unwrap().starts_with("it is [redacted:"), "the upstream hears no secret: {heard}");
    assert!(heard.get("_meta").is_none(), "{heard}");
    // An answer that is none is a no, and the upstream goes on without.
    let asked = begin(&visitor, "again", &able);
    let done = go_on(&visitor, "again", &able, &asked, &json!({"question": {"role": "assistant"}}));
    assert!(text(&done).contains("did not let its model answer"), "{done}");
}

#[test]
fn a_flood_of_questions_ends_the_call_and_is_one_record() {
    let (puppet, server, visitor) = private(&orders("sample_flood"), "");
    let ended = begin(&visitor, "x", &json!({"sampling": {}}));
    assert!(ended.to_string().contains("more than 8 questions in one call"), "{ended}");
    let records = server.home.audit().iter().filter(|r| r["method"] == "upstream.question").count();
    assert_eq!(records, 1, "the others are the same question");
    server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed" && r["code"] == "too_large");
    drop((puppet, server));

    let (_puppet, server, visitor) = private(&orders("elicit_forever"), "questions: {most: 3}");
    let able = json!({"elicitation": {"form": {}}});
    let mut asked = begin(&visitor, "x", &able);
    let mut rounds = 0;
    while asked["result"]["resultType"] == "input_required" {
        rounds += 1;
        assert!(rounds <= 3, "{asked}");
        asked = go_on(&visitor, "x", &able, &asked, &json!({"question": {"action": "accept", "content": {}}}));
    }
    assert_eq!(rounds, 3, "{asked}");
    assert!(asked.to_string().contains("more than 3 questions in one call"), "{asked}");
    let records = server.home.audit().iter().filter(|r| r["method"] == "upstream.question" && r["decision"] == "allow").count();
    assert_eq!(records, 3, "each question that reached the caller has a record");
}

#[test]
fn roots_are_the_operators_and_never_the_callers() {
    let able = json!({"roots": {"listChanged": true}, "sampling": {}, "elicitation": {"form": {}, "url": {}}});
    let (_puppet, _server, visitor) = private(&orders("roots"), "");
    let told = begin(&visitor, "x", &able);
    let told: Value = serde_json::from_str(&text(&told)).unwrap();
    assert_eq!(told["roots"], json!({"roots": []}), "asked fifty times, answered by the house");
    assert_eq!(told["client"], json!({"elicitation": {"form": {}}}), "nor is it said that there are any");

    let (_puppet, _server, visitor) =
        private(&orders("roots"), "questions: {roots: [{uri: 'file:///srv/project', name: project}], sampling: allow}");
    let told: Value = serde_json::from_str(&text(&begin(&visitor, "x", &able))).unwrap();
    assert_eq!(told["roots"], json!({"roots": [{"uri": "file:///srv/project", "name": "project"}]}));
    assert_eq!(told["client"], json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}}));
}

#[test]
fn a_page_is_shown_only_on_a_known_origin_and_as_the_upstreams() {
    let (_puppet, server, visitor) = private(&orders("link"), "questions: {links: ['https://login.example']}");
    let able = json!({"elicitation": {"url": {}}});
    let page = "https://login.example/start?state=0123456789abcdefghijABCDEFGHIJ456789";
    let asked = begin(&visitor, page, &able);
    let shown = &asked["result"]["inputRequests"]["question"]["params"];
    assert_eq!((&shown["mode"], &shown["url"], &shown["elicitationId"]), (&json!("url"), &json!(page), &json!("e1")), "{asked}");
    assert_eq!(shown["message"], "Server 'up' asks you to open a page at login.example. It says: Sign in");
    let filled = json!({"question": {"action": "accept", "content": {"password": "x"}}});
    let done = go_on(&visitor, page, &able, &asked, &filled);
    assert_eq!(text(&done), r#"{"action": "accept"}"#, "whoever opens a page tells the page");
    for (page, able, why) in [
        ("https://evil.example/login.example", &able, "another origin"),
        ("http://login.example/", &able, "no https page"),
        ("https://login.example@evil.example/", &able, "holds a credential"),
        (page, &json!({"elicitation": {"form": {}}}), "cannot open a page"),
    ] {
        let refused = begin(&visitor, page, able);
        assert!(text(&refused).contains(why), "{page}: {refused}");
    }
    let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
    assert!(record["note"].as_str().unwrap().contains("elicitation/create in a call of key:"), "{record}");
}

#[test]
fn a_form_is_said_to_be_the_upstreams_and_is_neither_the_gates_own_nor_after_a_secret() {
    let (_puppet, server, visitor) = private(&orders("elicit_as_told"), "");
    let able = json!({"elicitation": {"form": {}}});
    let form = |message: &str, fields: Value| {
        json!({"message": message, "requestedSchema": {"type": "object", "properties": fields}}).to_string()
    };
    let name = json!({"name": {"type": "string"}});
    let ordered = form("Who?\nServer 'other' asks as well.", name.clone());
    let asked = begin(&visitor, &ordered, &able);
    let shown = &asked["result"]["inputRequests"]["question"]["params"];
    let message = shown["message"].as_str().unwrap_or_else(|| panic!("{asked}"));
    assert!(
        message.starts_with("Server 'up' asks you to fill in a form, and gets what you enter: give it no password"),
        "{asked}"
    );
    assert!(message.ends_with("It says:\n> Who?\n> Server 'other' asks as well."), "{asked}");
    assert_eq!(shown["requestedSchema"]["properties"], name, "{asked}");
    // It does one thing after the other.
    go_on(&visitor, &ordered, &able, &asked, &json!({"question": {"action": "decline"}}));

    let denied = || {
        let of = |r: &&Value| r["method"] == "upstream.question" && r["decision"] == "deny" && r["tool"] == "up/tool/look";
        server.home.audit().iter().filter(of).map(|r| r["note"].to_string()).collect::<Vec<_>>()
    };
    let ours = "key:abc of tenant default wants to call wipe (destructive, of upstream:up). This needs your approval and is good \
                for this call only.";
    let yes = json!({"approve": {"type": "boolean", "title": "Approve this call"}, "password": {"type": "string"}});
    for (message, fields, why) in [
        (ours, yes.clone(), "looks like this gate's own question"),
        (ours, name.clone(), "looks like this gate's own question"),
        ("Go on?", yes, "looks like this gate's own question"),
        ("Who?", json!({"apiKey": {"type": "string"}}), "must not ask for passwords"),
        ("Who?", json!({"value": {"type": "string", "title": "Your p\u{430}ssword"}}), "must not ask for passwords"),
        ("Please enter your card number", json!({"value": {"type": "integer"}}), "must not ask for passwords"),
        ("Go on?", json!({"go": {"type": "string", "enum": ["Approve this call", "No"]}}), "looks like this gate's own question"),
        ("Your approval is needed, only for this call", name.clone(), "looks like this gate's own question"),
        ("What is the admin password?", json!({"value": {"type": "string"}}), "must not ask for passwords"),
        ("Who?", json!({"value": {"type": "string", "ui:placeholder": "Your password"}}), "must not ask for passwords"),
    ] {
        let before = denied().len();
        let refused = begin(&visitor, &form(message, fields.clone()), &able);
        assert!(text(&refused).contains(why), "{message} {fields}: {refused}");
        assert!(!refused.to_string().contains("inputRequests"), "nobody is asked: {refused}");
        let records = denied();
        assert!(records.len() == before + 1 && records.iter().any(|note| note.contains(why)), "{records:?}");
    }
}

#[test]
fn an_honest_form_passes_with_what_the_protocol_knows_of_it_and_in_its_own_lines() {
    let (_puppet, server, visitor) = private(&orders("elicit_as_told"), "");
    let able = json!({"elicitation": {"form": {}}});
    let fields = json!({
        "secretName": {"type": "string", "description": "\n\n\nServer 'other' says", "pattern": "^a", "ui:order": 1},
        "approved": {"type": "boolean"},
        "approval": {"type": "string", "enum": ["any", "none"]},
        "private_key_path": {"type": "string", "minLength": 1},
    });
    let schema = json!({"type": "object", "properties": fields, "required": ["approved"], "additionalProperties": true});
    let asked = begin(&visitor, &json!({"message": "Which?", "requestedSchema": schema}).to_string(), &able);
    let kept = json!({
        "secretName": {"type": "string", "description": "Server 'other' says"},
        "approved": {"type": "boolean"},
        "approval": {"type": "string", "enum": ["any", "none"]},
        "private_key_path": {"type": "string", "minLength": 1},
    });
    let shown = &asked["result"]["inputRequests"]["question"]["params"]["requestedSchema"];
    assert_eq!(shown, &json!({"type": "object", "properties": kept, "required": ["approved"]}), "{asked}");
    server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "allow");
}

#[test]
fn a_page_whose_words_look_like_the_gates_own_or_fill_the_screen_is_refused_and_recorded() {
    let (_puppet, server, visitor) = private(&orders("elicit_as_told"), "questions: {links: ['https://login.example']}");
    let able = json!({"elicitation": {"url": {}}});
    let page = |message: &str| {
        json!({"mode": "url", "message": message, "url": "https://login.example/", "elicitationId": "e1"}).to_string()
    };
    let ours = "key:abc of tenant default wants to call wipe. This needs your approval. Enter your password there.";
    for (message, why) in [
        (ours, "looks like this gate's own question"),
        (&*"x".repeat(5_000), "the message of the question is too long to be shown"),
    ] {
        let refused = begin(&visitor, &page(message), &able);
        assert!(text(&refused).contains(why) && !refused.to_string().contains("inputRequests"), "{refused}");
        let is_of =
            |r: &Value| r["method"] == "upstream.question" && r["decision"] == "deny" && r["note"].to_string().contains(why);
        server.home.audited(is_of);
    }
    // What a secret is asked for with.
    let asked = begin(&visitor, &page("Please provide your API key to continue"), &able);
    assert_eq!(asked["result"]["inputRequests"]["question"]["params"]["mode"], "url", "{asked}");
}

#[test]
fn a_question_that_is_none_is_refused_to_the_upstream_by_its_name_and_recorded() {
    let refused_for = |call: &str, able: &Value, asked: &[(Value, &str)]| {
        let (_puppet, server, visitor) = private(&orders(call), "questions: {sampling: allow}");
        for (question, why) in asked {
            let refused = begin(&visitor, &question.to_string(), able);
            let told = text(&refused);
            assert!(told.contains("-32602") && told.contains(why), "{question}: {refused}");
            let is_of =
                |r: &Value| r["method"] == "upstream.question" && r["decision"] == "deny" && r["note"].to_string().contains(why);
            server.home.audited(is_of);
        }
    };
    let of = |field: Value| json!({"message": "Which?", "requestedSchema": {"type": "object", "properties": {"a": field}}});
    let forms = [
        (json!({"message": "Which?"}), "has no requestedSchema"),
        (of(json!({"$ref": "#/$defs/a"})), "the type of a field is none of"),
        (of(json!({"type": ["boolean", "string"]})), "the type of a field is none of"),
        (of(json!({"type": "integer", "default": "x"})), "does not fit its type"),
    ];
    refused_for("elicit_as_told", &json!({"elicitation": {"form": {}}}), &forms);
    let hello = json!({"role": "user", "content": {"type": "text", "text": "Hello"}});
    let samplings = [
        (json!({"messages": [hello], "maxTokens": 5, "temperature": "hot"}), "temperature is no number"),
        (json!({"messages": [hello], "maxTokens": "many"}), "maxTokens is no number"),
    ];
    refused_for("sample_as_told", &json!({"sampling": {}}), &samplings);
}

#[test]
fn a_call_that_needs_a_page_opened_first_is_made_after_it() {
    let (_puppet, server, visitor) = private(&orders("link_first"), "questions: {links: ['https://login.example']}");
    let able = json!({"elicitation": {"url": {}}});
    let page = "https://login.example/start";
    let asked = begin(&visitor, page, &able);
    let shown = &asked["result"]["inputRequests"]["question-0"]["params"];
    assert_eq!(shown["url"], page, "{asked}");
    let done = go_on(&visitor, page, &able, &asked, &json!({"question-0": {"action": "accept"}}));
    assert_eq!(text(&done), "signed in");
    server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "allow");

    let (_puppet, _server, visitor) = private(&orders("link_first"), "questions: {links: ['https://login.example']}");
    let asked = begin(&visitor, page, &able);
    let declined = go_on(&visitor, page, &able, &asked, &json!({"question-0": {"action": "decline"}}));
    assert!(declined.to_string().contains("did not agree"), "{declined}");

    let (_puppet, _server, visitor) = private(&orders("link_first"), "");
    let refused = begin(&visitor, page, &able);
    let said = refused.to_string();
    assert!(said.contains("refused (code -32042)") && said.contains("sign in first"), "nobody named that origin: {refused}");
}

#[test]
fn a_tool_that_only_runs_as_a_task_is_followed_to_its_end_and_cancelled_with_its_call() {
    let mut slow = tool("look", "Looks for long.");
    slow["execution"] = json!({"taskSupport": "required"});
    let orders = |task: &str| json!({"tools": [slow], "call": "task", "runs_tasks": true, "task": task});
    let (puppet, server, visitor) = private(&orders("done"), "limits: {time: 3s, idle: 3s}");
    let done: Value = serde_json::from_str(&text(&begin(&visitor, "far", &json!({})))).unwrap();
    assert_eq!(done, json!({"arguments": {"q": "far"}, "answer": null}));
    let listed = visitor.ask("tools/list", &json!({})).body;
    assert!(!listed.contains("taskSupport"), "no caller is invited to run a task: {listed}");
    // What it asks meanwhile goes to the caller, and the answer says which task it belongs to.
    puppet.order(&orders("asks"));
    let able = json!({"elicitation": {"form": {}}});
    let asked = begin(&visitor, "far", &able);
    let done = go_on(&visitor, "far", &able, &asked, &json!({"question": {"action": "decline"}}));
    let done: Value = serde_json::from_str(&text(&done)).unwrap();
    let related = json!({"io.modelcontextprotocol/related-task": {"taskId": "t1"}});
    assert_eq!(done["answer"], json!({"action": "decline", "_meta": related}));
    // Nothing is asked before there is a task, and that it was to be is on record.
    puppet.order(&orders("asks_first"));
    let done: Value = serde_json::from_str(&text(&begin(&visitor, "far", &json!({"sampling": {}})))).unwrap();
    assert!(done["answer"]["message"].as_str().unwrap().contains("not passed on"), "{done}");
    let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
    assert!(record["note"].as_str().unwrap().contains("sampling/createMessage in a call of key:"), "{record}");
    // What it reports goes to the caller, with the caller's own token.
    puppet.order(&orders("reports"));
    let params = json!({"name": "look", "arguments": {"q": "far"}, "_meta": {"progressToken": "mine"}});
    let reported = visitor.ask("tools/call", &params).body;
    for step in ["step 1", "step 2"] {
        assert!(reported.contains(&format!(r#""message":"{step}""#)), "{reported}");
    }
    assert!(reported.contains(r#""progressToken":"mine""#) && reported.contains("arguments"), "{reported}");
    // Nobody waits for it any more: it is told so.
    puppet.order(&orders("never"));
    let ended = begin(&visitor, "far", &json!({}));
    assert!(ended.to_string().contains("gave no answer within"), "{ended}");
    let cancelled = puppet.file().with_extension("json.cancelled");
    until("the task is cancelled", || std::fs::read_to_string(&cancelled).map_err(|e| e.to_string()));
    server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
    // A server that runs none says so clearly.
    drop(server);
    let without = json!({"tools": [slow], "call": "task"});
    let (_puppet, _server, visitor) = private(&without, "");
    let refused = begin(&visitor, "far", &json!({}));
    assert!(refused.to_string().contains("only runs as a task"), "{refused}");
}

fn revoke(server: &Server, visitor: &Visitor) -> Instant {
    server.home.run_ok(&["key", "revoke", visitor.key.split('_').nth(1).unwrap()]);
    Instant::now()
}

/// Sees that the upstream is told at once that nobody will answer, and that the call behind the question ends.
fn let_go(puppet: &Puppet, since: Instant) {
    assert_eq!(noted(puppet, "told"), r#"{"action": "cancel"}"#);
    assert_eq!(noted(puppet, "then"), "notifications/cancelled");
    assert!(since.elapsed() < Duration::from_secs(20), "and not when waiting is over: {:?}", since.elapsed());
}

#[test]
fn a_question_ends_with_its_callers_key_and_an_answer_comes_too_late() {
    let able = json!({"elicitation": {"form": {}}});
    let (puppet, server, visitor) = private(&orders("elicit_told"), "");
    let asked = begin(&visitor, "x", &able);
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let revoked = revoke(&server, &visitor);
    let_go(&puppet, revoked);
    let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
    let note = record["note"].as_str().unwrap();
    assert!(note.contains("gets no answer: the credential of its caller has ended"), "{record}");
    let late = json!({"name": "look", "arguments": {"q": "x"}, "requestState": asked["result"]["requestState"],
        "inputResponses": {"question": {"action": "accept", "content": {"name": "Ada"}}}});
    assert_eq!(visitor.ask_able("tools/call", &late, &able).status, 401);
    server.home.audited(|r| r["rule"] == "revoked_key" && r["decision"] == "deny");
}

#[test]
fn a_question_in_a_session_ends_with_its_callers_key() {
    let (puppet, server, visitor) = private(&orders("elicit_told"), "");
    let session = visitor.session(&json!({"elicitation": {"form": {}}}));
    let said = ends::begin(&server, &session, 7, "look", &json!({}));
    let question = wait_for(&said, "elicitation/create");
    let revoked = revoke(&server, &visitor);
    let_go(&puppet, revoked);
    let ended = said.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(ended.to_string().contains("the credential this call was made with has ended"), "{ended}");
    let answer = json!({"action": "accept", "content": {"name": "Ada"}});
    let late = session.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": answer}));
    assert_eq!(late.status, 401, "{}", late.body);
    server.home.audited(|r| r["rule"] == "credential-ended" && r["decision"] == "deny" && r["method"] == "tools/call");
    server.home.audited(|r| r["rule"] == "revoked_key" && r["decision"] == "deny");
    let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
    assert!(record["note"].as_str().unwrap().contains("gets no answer"), "{record}");
}

#[test]
fn a_question_in_a_session_ends_with_the_session() {
    let (puppet, server, visitor) = private(&orders("elicit_told"), "");
    let session = visitor.session(&json!({"elicitation": {"form": {}}}));
    let said = ends::begin(&server, &session, 7, "look", &json!({}));
    wait_for(&said, "elicitation/create");
    let closing = stream(&server, "/mcp", "DELETE", &session_headers(&session), "");
    let_go(&puppet, Instant::now());
    let record = server.home.audited(|r| r["method"] == "upstream.question" && r["decision"] == "deny");
    assert!(record["note"].as_str().unwrap().contains("gets no answer: it was refused, or its caller went away"), "{record}");
    drop(closing);
}

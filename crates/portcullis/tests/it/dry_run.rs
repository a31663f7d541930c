//! Dry runs and the yes with open eyes, over the real binary: what would be sent and changed is shown, nothing is sent, the
//! rules of the write hold, and all of it is in the audit log.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::approvals::pending;
use crate::server::{Home, Server, intact};
use crate::upstreams::{Puppet, sees, tool, until, with_accepted};
use crate::visitor::{Backend, Visitor};

const TOKEN: &str = "api-credential-5f0c7a";
/// A token no provider ever gave.
const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ456789";

fn description() -> Value {
    let id = json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
    let members = json!({"type": "object", "required": ["state"], "properties": {"state": {"type": "string"}, "count": {"type": "integer"},
        "password": {"type": "string"}}});
    let body = |kind: &str, schema: Value| json!({"required": true, "content": {kind: {"schema": schema}}});
    json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": {
        "/orders": {"post": {"operationId": "createOrder", "summary": "Places an order", "requestBody": body("application/json", members.clone())}},
        "/orders/{id}": {
            "parameters": id,
            "get": {"operationId": "getOrder", "summary": "Reads an order"},
            "put": {"operationId": "setOrder", "summary": "Replaces an order", "requestBody": body("application/json", members)},
            "patch": {"operationId": "changeOrder", "summary": "Changes an order", "requestBody": body("application/json-patch+json", json!({"type": "array"}))},
            "delete": {"operationId": "dropOrder", "summary": "Deletes an order"}}}})
}

fn backend() -> Backend {
    Backend::start(|path, _| match path {
        "/v1/orders/1" => (200, json!({"id": "1", "state": "open", "count": 2, "password": "hunter2hunter2"}).to_string()),
        "/v1/orders/wide" => {
            let lines: Vec<String> = (0..200).map(|line| format!("line {line} of the order")).collect();
            (200, json!({"id": "wide", "lines": lines, "last": "the very end of it"}).to_string())
        }
        "/v1/orders/huge" => {
            let lines: Vec<String> = (0..400).map(|line| format!("line {line}: {}", "far too much ".repeat(50))).collect();
            (200, json!({"id": "huge", "lines": lines}).to_string())
        }
        "/v1/orders/broken" => (500, "{}".into()),
        "/v1/orders/large" => (200, json!({"filler": "x".repeat(2 << 20)}).to_string()),
        _ => (404, "{}".into()),
    })
}

fn bench(backend: &Backend, allow: &str, rules: &str) -> (Server, Visitor) {
    bench_with(backend, allow, rules, "write: {enable: ['api:shop']}")
}

fn bench_with(backend: &Backend, allow: &str, rules: &str, write: &str) -> (Server, Visitor) {
    let home = Home::new("");
    let (spec, own) = (home.directory.path().join("shop.json"), home.directory.path().join("own.cedar"));
    std::fs::write(&spec, description().to_string()).unwrap();
    std::fs::write(&own, rules).unwrap();
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    write!(
        text,
        "tools: {{expose: all}}\napis:\n- {{name: shop, spec: {{file: '{}'}}, url: '{}/v1', auth: {{bearer: {TOKEN}}}, \
         allow_addresses: [loopback], allow: {allow}}}\n{write}\npolicies: ['{}']\n\
         limits: {{write: {{per_second: 1000, burst: 1000}}}}\n",
        spec.display(),
        backend.url,
        own.display()
    )
    .unwrap();
    std::fs::write(&home.config, text).unwrap();
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    (server, visitor)
}

const ALL: &str = "[{methods: ['*']}]";

/// How often the backend was asked by each method.
fn asked(backend: &Backend, method: &str) -> usize {
    backend.seen().iter().filter(|request| request.starts_with(method)).count()
}

fn dry(visitor: &Visitor, tool: &str, arguments: &Value) -> Value {
    let mut arguments = arguments.clone();
    arguments["dry_run"] = json!(true);
    visitor.call(tool, &arguments).json()
}

fn change(reply: &Value) -> Value {
    let change = reply["result"]["structuredContent"]["dry_run"]["change"].clone();
    assert!(change.is_object(), "{reply}");
    change
}

#[test]
fn a_dry_run_shows_request_and_difference_and_sends_nothing() {
    let backend = backend();
    let (server, admin) = bench(&backend, ALL, "");
    let listed = admin.ask("tools/list", &json!({})).json();
    let tools = listed["result"]["tools"].as_array().unwrap();
    for tool in tools.iter().filter(|tool| tool["name"].as_str().unwrap().starts_with("shop_")) {
        let offered = tool["inputSchema"]["properties"]["dry_run"].is_object();
        assert_eq!(offered, tool["name"] != "shop_get_order", "{tool}");
    }

    let put = json!({"id": "1", "state": "closed", "count": 2, "password": "swordfish99"});
    let reply = dry(&admin, "shop_set_order", &put);
    assert_ne!(reply["result"]["isError"], true, "{reply}");
    let shown = &reply["result"]["structuredContent"]["dry_run"];
    assert_eq!(shown["sent"], false);
    let request = &shown["request"];
    assert_eq!(
        (&request["method"], &request["url"], &request["content_type"]),
        (&json!("PUT"), &json!(format!("{}/v1/orders/1", backend.url)), &json!("application/json"))
    );
    assert_eq!((&request["body"]["state"], &request["body"]["count"]), (&json!("closed"), &json!(2)));
    let difference = change(&reply);
    assert_eq!((&difference["known"], &difference["before"]["state"]), (&json!(true), &json!("open")));
    assert_eq!((&difference["after"]["state"], &difference["before"]["id"]), (&json!("closed"), &json!("1")));
    assert_eq!(difference["total"], 3, "state, password and the id that is not in the body: {difference}");
    let text = reply.to_string();
    assert!(text.contains("dry run: nothing was sent") && text.contains("/state: \\\"open\\\""), "{text}");
    for secret in ["hunter2", "swordfish", TOKEN] {
        assert!(!text.contains(secret), "{text}");
    }

    let patch = json!({"id": "1", "body": [{"op": "replace", "path": "/count", "value": 9}, {"op": "remove", "path": "/state"}]});
    let reply = dry(&admin, "shop_change_order", &patch);
    assert_eq!(reply["result"]["structuredContent"]["dry_run"]["request"]["content_type"], "application/json-patch+json");
    let difference = change(&reply);
    assert_eq!((&difference["before"], &difference["after"]), (&json!({"state": "open", "count": 2}), &json!({"count": 9})));
    let reply = dry(&admin, "shop_drop_order", &json!({"id": "1"}));
    assert_eq!((&change(&reply)["before"]["state"], &change(&reply)["after"]), (&json!("open"), &Value::Null), "{reply}");

    // What could not be read is said, and is not "nothing there".
    for (id, says) in
        [("broken", "could not read the present state: the API answered 500"), ("large", "could not read the present state")]
    {
        let reply = dry(&admin, "shop_drop_order", &json!({"id": id}));
        assert_eq!(change(&reply)["known"], false);
        assert!(change(&reply)["why"].as_str().unwrap().contains(says), "{reply}");
    }
    let absent = dry(&admin, "shop_drop_order", &json!({"id": "7"}));
    assert_eq!((&change(&absent)["known"], &change(&absent)["total"]), (&json!(true), &json!(0)), "{absent}");
    let post = dry(&admin, "shop_create_order", &json!({"state": "open"}));
    assert_eq!(change(&post)["known"], false, "{post}");
    assert_eq!(post["result"]["structuredContent"]["dry_run"]["request"]["body"], json!({"state": "open"}));
    // Bad arguments are refused as they are without it.
    let left = dry(&admin, "shop_set_order", &json!({"id": "../1", "state": "x"}));
    assert!(left["error"].is_object() || left["result"]["isError"] == true, "{left}");
    let odd = admin.call("shop_drop_order", &json!({"id": "1", "dry_run": "yes"})).json();
    assert!(odd["error"].is_object() || odd["result"]["isError"] == true, "{odd}");

    for method in ["PUT", "PATCH", "DELETE", "POST"] {
        assert_eq!(asked(&backend, method), 0, "{method} was sent");
    }
    let record = server.home.audited(|r| r["tool"] == "shop_drop_order" && r["decision"] == "allow");
    assert!(record["note"].as_str().unwrap().starts_with("dry run"), "{record}");
    assert_eq!((&record["kind"], &record["sources"]), (&json!("call"), &json!(["shop"])), "{record}");
    assert!(!server.home.audit().iter().any(|r| r["kind"] == "intent"), "nothing was about to change");
    assert!(intact(&server.home));
}

#[test]
fn a_dry_run_needs_the_grant_of_the_write_and_shows_nothing_the_caller_may_not_read() {
    let rules = r#"
@id("no-dry-runs-of-one")
forbid (principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"shop_set_order")
when { context.arguments has dry_run && context.arguments.dry_run && context.arguments.id == "9" };
@id("orders-are-not-read")
forbid (principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"shop_get_order");
"#;
    let backend = backend();
    let (server, admin) = bench(&backend, ALL, rules);
    let reply = dry(&admin, "shop_set_order", &json!({"id": "1", "state": "closed"}));
    let difference = change(&reply);
    assert_eq!(difference["known"], false);
    assert!(difference["why"].as_str().unwrap().contains("you may not call 'shop_get_order'"), "{reply}");
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    let refused = dry(&admin, "shop_set_order", &json!({"id": "9", "state": "closed"}));
    assert!(refused.to_string().contains("no-dry-runs-of-one"), "{refused}");
    assert_eq!(server.home.audited(|r| r["tool"] == "shop_set_order")["rule"], "no-dry-runs-of-one");

    // Who may not write does not see what a write would do.
    let reader = crate::upstreams::visitor(&server, &["--role", "reader"]);
    let unknown = dry(&reader, "shop_set_order", &json!({"id": "1", "state": "closed"}));
    assert!(unknown.to_string().contains("unknown tool"), "{unknown}");
    assert_eq!(server.home.audited(|r| r["tool"] == "shop_set_order")["decision"], "deny");
    drop(server);

    // Reading that is not offered is not done either; and behind a closed gate there is no dry run.
    let (server, admin) = bench(&backend, "[{methods: [PUT]}]", "");
    let reply = dry(&admin, "shop_set_order", &json!({"id": "1", "state": "closed"}));
    assert!(change(&reply)["why"].as_str().unwrap().contains("nothing that is offered reads"), "{reply}");
    drop(server);
    let (server, admin) = bench_with(&backend, ALL, "", "");
    let refused = dry(&admin, "shop_set_order", &json!({"id": "1", "state": "closed"}));
    assert!(refused.to_string().contains("unknown tool"), "{refused}");
    assert_eq!(server.home.audited(|r| r["tool"] == "shop_set_order")["rule"], "write-gate");
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
}

#[test]
fn who_is_asked_for_a_yes_is_shown_what_would_change() {
    let backend = backend();
    let (server, admin) = bench(&backend, ALL, "");
    // No yes is needed to look.
    assert_eq!(change(&dry(&admin, "shop_drop_order", &json!({"id": "1"})))["known"], true);

    let id = pending(&admin.call("shop_drop_order", &json!({"id": "1"})).json());
    let shown = server.home.run_ok(&["approvals", "show", &id]);
    assert!(shown.contains(&format!("DELETE {}/v1/orders/1", backend.url)) && shown.contains("this would be gone"), "{shown}");
    assert!(shown.contains("\"state\":\"open\"") && !shown.contains("hunter2"), "{shown}");
    let written: Value = serde_json::from_str(&server.home.run_ok(&["approvals", "show", &id, "--json"])).unwrap();
    assert!(written["preview"].as_str().unwrap().contains("this would be gone"), "{written}");
    assert!(!server.home.run(&["approvals", "show", "nothinghere0"]).status.success());
    assert_eq!(asked(&backend, "DELETE"), 0);
    let before = asked(&backend, "GET");
    assert_eq!(pending(&admin.call("shop_drop_order", &json!({"id": "1"})).json()), id);
    assert_eq!(asked(&backend, "GET"), before, "asking again looks at nothing again");
    let other = pending(&admin.call("shop_drop_order", &json!({"id": "broken"})).json());
    let said = server.home.run_ok(&["approvals", "show", &other]);
    assert!(said.contains("could not read the present state"), "what could not be seen is said, and a yes can be given: {said}");

    // The yes is for the work with these arguments, and a dry run does not use it up.
    server.home.run_ok(&["approvals", "grant", &id]);
    dry(&admin, "shop_drop_order", &json!({"id": "1"}));
    assert_eq!(asked(&backend, "DELETE"), 0);
    admin.call("shop_drop_order", &json!({"id": "1"}));
    assert_eq!(asked(&backend, "DELETE"), 1);

    // The user of the client sees the same in the question.
    let params = json!({"name": "shop_drop_order", "arguments": {"id": "1"}});
    let question = admin.ask_able("tools/call", &params, &json!({"elicitation": {}})).json();
    let message =
        question["result"]["inputRequests"]["approval"]["params"]["message"].as_str().unwrap_or_else(|| panic!("{question}"));
    assert!(message.contains("this would be gone") && message.contains("\"state\":\"open\""), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    server.home.audited(|r| r["tool"] == "shop_drop_order" && r["rule"] == "approval");
    assert!(intact(&server.home));
}

#[test]
fn nobody_is_asked_in_a_form_about_a_change_that_does_not_fit_it() {
    let backend = backend();
    let (server, admin) = bench(&backend, ALL, "");
    let params = json!({"name": "shop_drop_order", "arguments": {"id": "wide"}});
    let reply = admin.ask_able("tools/call", &params, &json!({"elicitation": {}}));
    let id = pending(&reply.json());
    assert!(!reply.body.contains("inputRequests"), "{}", reply.body);
    let record = server.home.audited(|r| r["tool"] == "shop_drop_order" && r["rule"] == "approval" && r["decision"] == "deny");
    assert!(record["note"].as_str().is_some_and(|note| note.contains("do not fit a form")), "{record}");
    // An operator sees all of it, and only an operator's yes opens.
    let shown = server.home.run_ok(&["approvals", "show", &id]);
    for part in ["line 0 of the order", "line 199 of the order", "the very end of it"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let forged = json!({"name": "shop_drop_order", "arguments": {"id": "wide"},
        "inputResponses": {"approval": {"action": "accept", "content": {"approve": true}}}, "requestState": "e30"});
    assert!(!admin.ask_able("tools/call", &forged, &json!({"elicitation": {}})).body.contains("\"isError\":false"));
    assert_eq!(pending(&admin.ask_able("tools/call", &params, &json!({"elicitation": {}})).json()), id);
    assert_eq!(asked(&backend, "DELETE"), 0);
    server.home.run_ok(&["approvals", "grant", &id]);
    admin.ask_able("tools/call", &params, &json!({"elicitation": {}}));
    assert_eq!(asked(&backend, "DELETE"), 1, "{}", server.log());
    // Also what is longer than an answer may be is put to somebody, in part.
    let huge = json!({"name": "shop_drop_order", "arguments": {"id": "huge"}});
    let id = pending(&admin.ask_able("tools/call", &huge, &json!({"elicitation": {}})).json());
    let shown = server.home.run_ok(&["approvals", "show", &id]);
    assert!(shown.contains("line 0: far too much") && shown.contains("… (265113 characters)"), "{shown}");
    assert_eq!(asked(&backend, "DELETE"), 1, "{}", server.log());
    assert!(intact(&server.home));
}

#[test]
fn an_upstreams_own_dry_run_is_used_where_the_operator_says_so_and_nowhere_else() {
    let mut apply = tool("apply", "Applies.");
    apply["annotations"] = json!({"destructiveHint": true});
    apply["inputSchema"]["properties"]["dryRun"] = json!({"type": "boolean"});
    let mut wipe = apply.clone();
    wipe["name"] = json!("wipe");
    let mut bare = tool("bare", "Has none.");
    bare["annotations"] = json!({"destructiveHint": true});
    let puppet = Puppet::new(&json!({"tools": [apply, wipe, bare]}));
    let rules = "dry_run: [{tools: apply, argument: dryRun}, {tools: bare, argument: dryRun}]";
    let (server, _) = with_accepted(&puppet, "", rules, "write: {enable: ['upstream:up']}\n");
    let admin = crate::upstreams::visitor(&server, &["--role", "admin"]);
    sees(&admin, "apply", true);
    let listed = admin.ask("tools/list", &json!({})).json();
    for one in listed["result"]["tools"].as_array().unwrap() {
        let offered = one["inputSchema"]["properties"]["dry_run"].is_object();
        assert_eq!(offered, one["name"] == "apply", "{one}");
    }
    let reply = dry(&admin, "apply", &json!({"q": "all", "dryRun": false}));
    let text = reply.to_string();
    assert!(text.contains("to a dry run of its own") && text.contains("asked with dryRun: true"), "{text}");
    assert!(
        text.contains("\\\\\\\"dryRun\\\\\\\": true") || text.contains("dryRun\\\": true"),
        "the rule's value counts: {text}"
    );
    let record = server.home.audited(|r| r["tool"] == "apply" && r["decision"] == "allow");
    assert!(record["note"].as_str().unwrap().starts_with("dry run"), "{record}");
    // Where nobody said so it is an argument like another, and the call needs its yes.
    for name in ["wipe", "bare"] {
        let refused = admin.call(name, &json!({"q": "all", "dry_run": true}));
        let bad = refused.json()["error"]["code"] == -32602 || refused.json()["result"]["isError"] == true;
        assert!(bad && !refused.body.contains("to a dry run of its own"), "{}", refused.body);
    }
    let id = pending(&admin.call("apply", &json!({"q": "all"})).json());
    let shown = server.home.run_ok(&["approvals", "show", &id]);
    assert!(shown.contains("asked with dryRun: true"), "{shown}");
    // And what the other server answered, as its own words.
    assert!(shown.contains("the other server answers, in its own words:\n> {\"arguments\""), "{shown}");
    let told = shown.split_once("in its own words:").unwrap().1;
    assert!(told.contains("\"dryRun\": true") && told.contains("\"q\": \"all\""), "{shown}");
    let call = json!({"name": "apply", "arguments": {"q": format!("one {SECRET}")}});
    let question = admin.ask_able("tools/call", &call, &json!({"elicitation": {}})).json();
    let message =
        question["result"]["inputRequests"]["approval"]["params"]["message"].as_str().unwrap_or_else(|| panic!("{question}"));
    assert!(message.contains("in its own words:\n> {\"arguments\"") && message.contains("\"dryRun\": true"), "{message}");
    assert!(!message.contains(SECRET) && message.contains("[redacted:"), "{message}");
    server.home.audited(|r| r["tool"] == "apply" && r["rule"] == "approval" && r["decision"] == "deny");
    until("doctor says which rule has no effect", || {
        let said = server.log();
        let doctor = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
        if [said, doctor].concat().contains("it has no argument 'dryRun'") { Ok(()) } else { Err("it does not".into()) }
    });
}

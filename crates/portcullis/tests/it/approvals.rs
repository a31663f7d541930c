//! A call that needs a person's yes: refused, granted, made once; and every way around it.

use serde_json::{Value, json};

use crate::server::{Home, Server, intact};
use crate::visitor::Visitor;

const RULE: &str = r#"
@id("sql-needs-a-yes")
@only_limits("true")
@approval("required")
permit (principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"sql");
"#;

/// A server where `sql` needs approval, and two people with keys.
pub(crate) fn bench(more: &str) -> (Server, Visitor, Visitor) {
    let home = Home::new(more);
    let path = home.directory.path().join("own.cedar");
    std::fs::write(&path, RULE).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    let (one, two) = (home.key(&[]), home.key(&[]));
    let server = Server::start_in(home);
    let (one, two) = (Visitor::new(&server, &one), Visitor::new(&server, &two));
    (server, one, two)
}

fn principal(visitor: &Visitor) -> String {
    format!("key:{}", visitor.key.split('_').nth(1).unwrap())
}

/// The id in "pending approval <id>".
pub(crate) fn pending(reply: &Value) -> String {
    let text = reply.to_string();
    let rest = text.split("pending approval ").nth(1).unwrap_or_else(|| panic!("not pending: {reply}"));
    rest.chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn passed(reply: &Value) -> bool {
    reply["result"]["structuredContent"]["rows"].is_array() && reply["result"]["isError"] != true
}

#[test]
fn a_yes_is_good_for_one_call_with_the_same_arguments_by_the_same_caller() {
    let (server, one, two) = bench("");
    let home = &server.home;
    let query = json!({"query": "SELECT 1 AS x", "limit": 5});
    let other = json!({"query": "SELECT 2 AS x", "limit": 5});
    let id = pending(&one.call("sql", &query).json());
    let record = home.audited(|r| r["tool"] == "sql" && r["rule"] == "approval");
    assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")));
    assert_eq!(pending(&one.call("sql", &query).json()), id, "asking again is the same request");

    let listed: Value = serde_json::from_str(&home.run_ok(&["approvals", "list", "--json"])).unwrap();
    let request = listed.as_array().unwrap().iter().find(|r| r["id"] == id.as_str()).unwrap();
    assert_eq!((&request["principal"], &request["tool"]), (&json!(principal(&one)), &json!("sql")));
    assert!(request["summary"].as_str().unwrap().contains("SELECT 1"), "{request}");
    assert!(home.run_ok(&["approvals", "grant", &id]).contains("granted"));

    assert_ne!(pending(&one.call("sql", &other).json()), id, "other arguments need a yes of their own");
    assert_ne!(pending(&two.call("sql", &query).json()), id, "and so does another caller");
    let reordered = json!({"limit": 5, "query": "SELECT 1 AS x"});
    let first = one.call("sql", &reordered).json();
    assert!(passed(&first), "{first}");
    assert!(!passed(&one.call("sql", &query).json()), "a yes is used up");

    let call = home.audited(|r| r["tool"] == "sql" && r["kind"] == "call" && r["decision"] == "allow");
    assert!(call["note"].as_str().unwrap().contains(&id), "the record of the call names the request: {call}");
    let grant = home.audited(|r| r["kind"] == "approval" && r["method"] == "approval.grant");
    assert!(grant["principal"].as_str().unwrap().starts_with("local:"), "{grant}");
    assert!(grant.to_string().contains(&id), "{grant}");
    assert!(intact(home));
}

#[test]
fn a_no_stays_a_no_and_unknown_requests_are_refused() {
    let (server, one, _) = bench("");
    let query = json!({"query": "SELECT 1 AS x"});
    let id = pending(&one.call("sql", &query).json());
    assert!(server.home.run_ok(&["approvals", "deny", &id]).contains("denied"));
    let refused = one.call("sql", &query).json();
    assert!(refused.to_string().contains("not approved"), "{refused}");
    assert!(!server.home.run(&["approvals", "grant", &id]).status.success(), "what is decided stays decided");
    for wrong in ["aaaaaaaaaaaa", "../../state", "'; drop table x", ""] {
        assert!(!server.home.run(&["approvals", "grant", wrong]).status.success(), "{wrong}");
    }
    let deny = server.home.audited(|r| r["kind"] == "approval" && r["method"] == "approval.deny");
    assert_eq!(deny["decision"], "deny");
    assert!(!server.home.audit().iter().any(|r| r["tool"] == "sql" && r["decision"] == "allow"));
}

#[test]
fn one_yes_lets_one_of_many_racing_calls_through() {
    let (server, one, _) = bench("");
    let query = json!({"query": "SELECT 1 AS x"});
    let id = pending(&one.call("sql", &query).json());
    server.home.run_ok(&["approvals", "grant", &id]);
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let (one, query) = (one.clone(), query.clone());
            std::thread::spawn(move || passed(&one.call("sql", &query).json()))
        })
        .collect();
    let through = calls.into_iter().map(|c| c.join().unwrap()).filter(|passed| *passed).count();
    assert_eq!(through, 1);
}

/// A call by a client that can show forms, with what an earlier round gave.
fn with_form(visitor: &Visitor, arguments: &Value, retry: &Value) -> Value {
    let mut params = json!({"name": "sql", "arguments": arguments});
    params.as_object_mut().unwrap().extend(retry.as_object().unwrap().clone());
    visitor.ask_able("tools/call", &params, &json!({"elicitation": {}})).json()
}

#[test]
fn the_user_of_the_client_may_say_yes_and_only_to_what_was_asked() {
    let (server, one, two) = bench("");
    let query = json!({"query": "SELECT 1 AS x"});
    let asked = with_form(&one, &query, &json!({}))["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let (name, form) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(form["method"], "elicitation/create");
    assert!(form["params"]["message"].as_str().unwrap().contains("SELECT 1"), "{form}");
    let state = asked["requestState"].as_str().unwrap();
    let yes = json!({name: {"action": "accept", "content": {"approve": true}}});
    let no = json!({name: {"action": "accept", "content": {"approve": false}}});

    // Nothing but the sealed question of this caller, for these arguments, opens.
    let forged = [
        json!({"inputResponses": yes}),
        json!({"inputResponses": yes, "requestState": format!("{state}x")}),
        json!({"inputResponses": yes, "requestState": "e30"}),
        json!({"inputResponses": {"approve": true}, "requestState": state.to_uppercase()}),
    ];
    for attempt in &forged {
        assert!(!passed(&with_form(&one, &query, attempt)), "{attempt}");
    }
    assert!(!passed(&with_form(&two, &query, &json!({"inputResponses": yes, "requestState": state}))), "another caller");
    let fresh = || with_form(&one, &query, &json!({}))["result"]["requestState"].as_str().unwrap().to_owned();
    let moved = with_form(&one, &json!({"query": "SELECT 2 AS x"}), &json!({"inputResponses": yes, "requestState": fresh()}));
    assert!(!passed(&moved), "other arguments: {moved}");
    assert!(!passed(&with_form(&one, &query, &json!({"inputResponses": no, "requestState": fresh()}))), "a no is a no");
    for rule in ["request-state", "approval"] {
        server.home.audited(|r| r["rule"] == rule && r["decision"] == "deny");
    }

    let state = fresh();
    let good = with_form(&one, &query, &json!({"inputResponses": yes, "requestState": state}));
    assert!(passed(&good), "{good}");
    assert!(!passed(&with_form(&one, &query, &json!({"inputResponses": yes, "requestState": state}))), "used twice");
    server.home.audited(|r| {
        r["tool"] == "sql" && r["decision"] == "allow" && r["note"].as_str().is_some_and(|n| n.contains("user of the client"))
    });
}

#[test]
fn where_forms_do_not_count_only_an_operator_can_say_yes() {
    let (_server, one, _) = bench("approvals: {elicitation: false}\n");
    let reply = with_form(&one, &json!({"query": "SELECT 1 AS x"}), &json!({}));
    assert!(!pending(&reply).is_empty());
}

#[test]
fn nobody_is_asked_in_a_form_about_what_does_not_fit_it() {
    let (server, one, _) = bench("");
    let home = &server.home;
    let long = format!("SELECT 1 AS x -- {} and the end of it", "y".repeat(3_000));
    let reply = with_form(&one, &json!({"query": long}), &json!({}));
    let id = pending(&reply);
    home.audited(|r| r["tool"] == "sql" && r["rule"] == "approval" && r["decision"] == "deny");
    let listed: Value = serde_json::from_str(&home.run_ok(&["approvals", "list", "--json"])).unwrap();
    let request = listed.as_array().unwrap().iter().find(|r| r["id"] == id.as_str()).unwrap();
    assert!(request["summary"].as_str().unwrap().contains("and the end of it"), "an operator sees all of it: {request}");
    assert_eq!((&request["tenant"], &request["origin"]), (&json!("default"), &json!("portcullis")), "{request}");
    assert_eq!((&request["unredacted"], request["definition"].as_str().unwrap().len()), (&json!(false), 64), "{request}");
}

#[test]
fn a_request_and_a_yes_to_it_end() {
    let (server, one, _) = bench("approvals: {lifetime: 2s}\n");
    let home = &server.home;
    let query = json!({"query": "SELECT 1 AS x"});
    let requests = || -> Vec<Value> {
        serde_json::from_str::<Value>(&home.run_ok(&["approvals", "list", "--json"])).unwrap().as_array().unwrap().clone()
    };
    let ended = |id: &str| {
        crate::wire::eventually("the request has ended", || requests().iter().all(|request| request["id"] != id));
    };
    // Nobody decided in time: then nobody can any more.
    let id = pending(&one.call("sql", &query).json());
    ended(&id);
    let late = home.run(&["approvals", "grant", &id]);
    assert!(!late.status.success(), "{}", String::from_utf8_lossy(&late.stdout));
    let again = one.call("sql", &query).json();
    assert!(!passed(&again), "a late yes opens nothing: {again}");
    server.home.audited(|r| r["tool"] == "sql" && r["rule"] == "approval" && r["decision"] == "deny");

    // A yes that was not used in time opens nothing either.
    let other = json!({"query": "SELECT 2 AS x"});
    let id = pending(&one.call("sql", &other).json());
    home.run_ok(&["approvals", "grant", &id]);
    ended(&id);
    let reply = one.call("sql", &other).json();
    assert!(!passed(&reply), "{reply}");
    assert!(!pending(&reply).is_empty(), "it is asked for anew: {reply}");
    let record = home.audited(|r| r["tool"] == "sql" && r["method"] == "tools/call");
    assert_eq!(
        (&record["decision"], &record["rule"], &record["code"]),
        (&json!("deny"), &json!("approval"), &json!("forbidden"))
    );

    // Neither does the yes of a form that came too late.
    let third = json!({"query": "SELECT 3 AS x"});
    let asked = with_form(&one, &third, &json!({}))["result"].clone();
    let name = asked["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let began = std::time::Instant::now();
    crate::wire::eventually("its time is over", || began.elapsed() > std::time::Duration::from_millis(2_100));
    let yes = json!({"inputResponses": {name: {"action": "accept", "content": {"approve": true}}}, "requestState": asked["requestState"]});
    let reply = with_form(&one, &third, &yes);
    assert!(!passed(&reply), "{reply}");
    assert!(!home.audit().iter().any(|r| r["tool"] == "sql" && r["decision"] == "allow"));
    assert!(intact(home));
}

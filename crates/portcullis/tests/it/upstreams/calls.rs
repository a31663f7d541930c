//! What passes through: names, risk classes, questions, prompts, resources, several upstreams of a kind.

use serde_json::{Value, json};

use super::{Puppet, accept_all, home, listed, program, sees, stands, text, tool, tools, unframed, until, with_accepted};
use crate::server::Server;
use crate::visitor::Visitor;

#[test]
fn a_tool_that_may_write_exists_only_where_its_category_is_enabled() {
    let mut mild = tool("touch", "Touches.");
    mild["annotations"] = json!({"destructiveHint": false});
    let mut silent = tool("wipe", "Says nothing of itself.");
    silent.as_object_mut().unwrap().remove("annotations");
    let orders = json!({"tools": [tool("look", "Looks."), mild, silent]});
    let puppet = Puppet::new(&orders);
    let (server, visitor) = with_accepted(&puppet, "", "", "");
    sees(&visitor, "look", true);
    assert!(!tools(&visitor).iter().any(|name| name == "touch" || name == "wipe"), "{:?}", tools(&visitor));
    let refused = visitor.call("wipe", &json!({}));
    assert_eq!(refused.json()["error"]["code"], -32602, "{}", refused.body);
    let record = server.home.audited(|r| r["tool"] == "wipe" && r["kind"] == "refused");
    assert_eq!(record["decision"], "deny");
    drop(server);
    let (server, visitor) =
        with_accepted(&puppet, "", "risk: [{tools: 'wi*', class: read}]", "write: {enable: ['upstream:up']}\n");
    sees(&visitor, "touch", true);
    sees(&visitor, "wipe", true);
    assert_eq!(visitor.call("touch", &json!({})).json()["result"]["isError"], false);
    let record = server.home.audited(|r| r["tool"] == "touch" && r["kind"] == "call");
    assert_eq!(record["sources"], json!(["up"]), "{record}");
    // The operator's rule is the class, and a class that is worse than the annotations corrects them.
    let reply = visitor.ask("tools/list", &json!({})).json();
    let wipe = reply["result"]["tools"].as_array().unwrap().iter().find(|t| t["name"] == "wipe").unwrap().clone();
    assert_eq!(wipe["annotations"], Value::Null, "shown as it is: {wipe}");
}

#[test]
fn a_destructive_tool_of_another_server_needs_approval_like_an_own_one() {
    let mut silent = tool("wipe", "Wipes.");
    silent.as_object_mut().unwrap().remove("annotations");
    let puppet = Puppet::new(&json!({"tools": [silent]}));
    let (server, _) = with_accepted(&puppet, "", "", "write: {enable: ['upstream:up']}\n");
    let visitor = super::visitor(&server, &["--role", "admin"]);
    sees(&visitor, "wipe", true);
    let asked = visitor.call("wipe", &json!({"q": "all"}));
    assert!(asked.body.contains("approval"), "{}", asked.body);
    server.home.audited(|r| r["tool"] == "wipe" && r["rule"] == "approval");
    let waiting: Value = serde_json::from_str(&server.home.run_ok(&["approvals", "list", "--json"])).unwrap();
    server.home.run_ok(&["approvals", "grant", waiting[0]["id"].as_str().unwrap()]);
    assert_eq!(visitor.call("wipe", &json!({"q": "all"})).json()["result"]["isError"], false);
    server.home.audited(|r| r["tool"] == "wipe" && r["kind"] == "call" && r["decision"] == "allow");
}

#[test]
fn a_question_in_the_middle_of_a_call_goes_to_its_caller_and_to_nobody_else() {
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")], "call": "elicit"}));
    let entry = puppet.entry("up", "", "").replace("args: [", "per_principal: true, args: [");
    let server = Server::start_in(home(&[entry], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    let other = super::visitor(&server, &["--role", "operator"]);
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    sees(&visitor, "look", true);
    let able = json!({"elicitation": {"form": {}}});
    let call = json!({"name": "look", "arguments": {"q": "x"}});
    let asked = visitor.ask_able("tools/call", &call, &able).json();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let question = &asked["result"]["inputRequests"]["question"];
    assert_eq!(question["method"], "elicitation/create", "{asked}");
    assert!(question["params"]["message"].as_str().unwrap().ends_with("It says: Who?"), "{asked}");
    let answer = |visitor: &Visitor, arguments: Value| {
        let state = &asked["result"]["requestState"];
        let responses = json!({"question": {"action": "accept", "content": {"name": "Ada"}}});
        let params = json!({"name": "look", "arguments": arguments, "requestState": state, "inputResponses": responses});
        visitor.ask_able("tools/call", &params, &able)
    };
    let foreign = answer(&other, json!({"q": "x"}));
    assert!(foreign.body.contains("requestState is not valid"), "{}", foreign.body);
    let changed = answer(&visitor, json!({"q": "y"}));
    assert!(changed.body.contains("requestState is not valid"), "{}", changed.body);
    let done = answer(&visitor, json!({"q": "x"})).json();
    assert!(text(&done).contains(r#"{"action": "accept", "content": {"name": "Ada"}}"#), "{done}");
    let again = answer(&visitor, json!({"q": "x"}));
    assert!(again.body.contains("requestState is not valid"), "{}", again.body);
    // A client that cannot show it: the upstream is told, and goes on without.
    let unable = visitor.call("look", &json!({"q": "x"})).json();
    assert!(text(&unable).contains("cannot show this to a person"), "{unable}");
}

#[test]
fn a_process_belongs_to_one_principal_where_that_is_configured() {
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")]}));
    let shared = puppet.entry("shared", "", "prefix: always");
    let private = puppet.entry("private", "", "prefix: always").replace("args: [", "per_principal: true, args: [");
    let server = Server::start_in(home(&[shared, private], ""));
    let visitors: Vec<Visitor> = (0..2).map(|_| super::visitor(&server, &["--role", "operator"])).collect();
    until("both wait", || if listed(&server.home).len() == 2 { Ok(()) } else { Err(String::new()) });
    // Each has the other's name.
    super::accept_despite(&server.home, "shared", &["look"]);
    super::accept_despite(&server.home, "private", &["look"]);
    sees(&visitors[0], "shared_look", true);
    sees(&visitors[0], "private_look", true);
    let process = |visitor: &Visitor, tool: &str| {
        let answer: Value = serde_json::from_str(&text(&visitor.call(tool, &json!({})).json())).unwrap();
        answer["pid"].as_u64().unwrap()
    };
    let pid = process(&visitors[0], "shared_look");
    assert_eq!(pid, process(&visitors[1], "shared_look"), "one for all");
    assert_eq!(pid, process(&visitors[0], "shared_look"), "never one per request");
    let own = process(&visitors[0], "private_look");
    assert_eq!(own, process(&visitors[0], "private_look"));
    assert_ne!(own, process(&visitors[1], "private_look"));
}

#[test]
fn several_upstreams_of_a_kind_are_one_tool_where_they_agree() {
    let puppets = [
        Puppet::new(&json!({"tools": [tool("search", "Searches."), tool("odd", "In Europe.")]})),
        Puppet::new(&json!({"tools": [tool("search", "Searches."), tool("odd", "In America.")]})),
    ];
    let entries = [puppets[0].entry("eu", "", "kind: grafana"), puppets[1].entry("us", "", "kind: grafana")];
    let server = Server::start_in(home(&entries, ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("all wait", || if listed(&server.home).len() == 4 { Ok(()) } else { Err(format!("{:?}", listed(&server.home))) });
    accept_all(&server.home, "eu");
    accept_all(&server.home, "us");
    for name in ["search", "eu_odd", "us_odd"] {
        sees(&visitor, name, true);
    }
    // What was accepted may be taken over one after the other.
    until("both are behind it", || {
        let reply = visitor.ask("tools/list", &json!({})).json();
        let search = reply["result"]["tools"].as_array().unwrap().iter().find(|t| t["name"] == "search").unwrap().clone();
        let instances = &search["inputSchema"]["properties"]["instance"]["enum"];
        if *instances == json!(["eu", "us"]) { Ok(()) } else { Err(search.to_string()) }
    });
    let answer = visitor.call("search", &json!({"q": "x", "instance": "us"})).json();
    assert!(text(&answer).contains(r#""arguments": {"q": "x"}"#), "{answer}");
    let record = server.home.audited(|r| r["tool"] == "search" && r["kind"] == "call");
    assert_eq!(record["sources"], json!(["us"]));
    let refused = visitor.call("search", &json!({"q": "x"}));
    assert!(refused.body.contains("instance"), "{}", refused.body);
    // Who may ask one of them only, may ask that one only.
    let confined = super::visitor(&server, &["--role", "operator", "--source", "eu"]);
    assert_eq!(confined.call("search", &json!({"instance": "eu"})).json()["result"]["isError"], false);
    let outside = confined.call("search", &json!({"instance": "us"}));
    assert!(outside.body.contains("source 'us' is not available"), "{}", outside.body);
    server.home.audited(|r| r["tool"] == "search" && r["code"] == "forbidden");
}

#[test]
fn callers_confined_to_services_neither_see_nor_reach_what_cannot_be_confined() {
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")]}));
    let (server, visitor) = with_accepted(&puppet, "", "", "");
    sees(&visitor, "look", true);
    // How far back an upstream looks is its own affair, so a limit on that is one as well.
    for (options, why) in [
        (&["--service", "cart"][..], "cannot be confined"),
        (&["--namespace", "shop"][..], "cannot be confined"),
        (&["--look-back", "1h"][..], "look-back of this credential"),
        (&["--source", "embedded"][..], "is not available"),
        (&["--tenant", "other"][..], "is not available"),
    ] {
        let someone = super::visitor(&server, &[&["--role", "operator"], options].concat());
        assert!(!tools(&someone).contains(&"look".to_owned()), "{options:?}: what is always refused is not listed");
        let refused = someone.call("look", &json!({})).json();
        assert!(refused.to_string().contains("unknown tool: look"), "{options:?}: {refused}");
        let record = server.home.audited(|r| r["tool"] == "look");
        assert_eq!(
            (&record["decision"], &record["rule"], &record["code"]),
            (&json!("deny"), &json!("not-served"), &json!("not_found"))
        );
        assert!(record["note"].as_str().is_some_and(|note| note.contains(why)), "the operator finds why: {record}");
    }
}

#[test]
fn prompts_and_resources_wait_and_pass_through_as_well() {
    let orders = json!({
        "prompts": [{"name": "greet", "description": "Greets.", "arguments": [{"name": "who", "required": true}]}],
        "resources": [{"uri": "note://one", "name": "one", "mimeType": "text/plain"}, {"uri": "portcullis://services", "name": "mine"}],
        "templates": [{"uriTemplate": "note://by-id/{id}", "name": "by id"}],
    });
    let puppet = Puppet::new(&orders);
    let server = Server::start_in(home(&[puppet.entry("up", "", "")], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    stands(&server.home, "note://by-id/{id}", "new");
    assert!(!visitor.ask("prompts/list", &json!({})).body.contains("Greets"));
    assert!(visitor.ask("resources/read", &json!({"uri": "note://one"})).body.contains("unknown resource"));
    accept_all(&server.home, "up");
    until("the prompt is listed", || {
        let body = visitor.ask("prompts/list", &json!({})).body;
        if body.contains("Greets") { Ok(()) } else { Err(body) }
    });
    let prompt = visitor.ask("prompts/get", &json!({"name": "greet", "arguments": {"who": "Ada"}})).json();
    assert_eq!(unframed(&prompt["result"]["messages"][0]["content"]["text"]), "prompted", "{prompt}");
    let missing = visitor.ask("prompts/get", &json!({"name": "greet", "arguments": {}}));
    assert!(missing.body.contains("'who' is required"), "{}", missing.body);
    for uri in ["note://one", "note://by-id/7"] {
        until("it is read", || {
            let read = visitor.ask("resources/read", &json!({ "uri": uri })).json();
            let text = read["result"]["contents"][0]["text"].as_str().unwrap_or_default();
            if text.contains(&format!("read {uri}")) { Ok(()) } else { Err(read.to_string()) }
        });
    }
    let own = visitor.ask("resources/read", &json!({"uri": "portcullis://services"})).body;
    assert!(!own.contains("read portcullis"), "the address of the house stays with the house: {own}");
    server.home.audited(|r| r["kind"] == "lookup" && r["tool"] == "note://by-id/7");
}

#[test]
fn rules_may_speak_of_tools_nobody_accepted_yet_and_hold_when_they_are_there() {
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")]}));
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.cedar");
    std::fs::write(
        &rules,
        r#"@id("no-looking-for-secrets") forbid (principal, action, resource == Portcullis::Tool::"up_look")
           when { context.arguments has q && context.arguments.q == "secret" };"#,
    )
    .unwrap();
    let settings = format!("policies: ['{}']\nproducts: [{{name: oncall, tools: ['up_*']}}]\n", rules.display());
    let (server, visitor) = with_accepted(&puppet, "", "prefix: always", &settings);
    sees(&visitor, "up_look", true);
    assert_eq!(visitor.call("up_look", &json!({"q": "weather"})).json()["result"]["isError"], false);
    let refused = visitor.call("up_look", &json!({"q": "secret"}));
    assert!(refused.body.contains("no-looking-for-secrets"), "{}", refused.body);
    server.home.audited(|r| r["tool"] == "up_look" && r["rule"] == "no-looking-for-secrets" && r["decision"] == "deny");
    let within = visitor.at("/mcp/oncall");
    assert_eq!(tools(&within), ["up_look"]);
}

#[test]
fn first_sight_is_trusted_only_where_the_operator_says_so_and_never_a_change() {
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks."), tool("lo\u{200b}ok", "Hides.")]}));
    let entry = puppet.entry("up", "", "trust: accept_first_sight, risk: [{tools: look, class: read}]");
    let server = Server::start_in(home(&[entry], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "look", true);
    server.home.audited(|r| r["method"] == "upstream.unreviewed" && r["tool"] == "up");
    let record = server.home.audited(|r| r["method"] == "upstream.accepted" && r["tool"] == "up/tool/look");
    assert!(record["note"].as_str().unwrap().contains("no person saw it"), "{record}");
    stands(&server.home, "lo\u{200b}ok", "new");
    let doctor = server.home.run(&["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("accept_first_sight"));
    puppet.order(&json!({"tools": [tool("look", "Looks twice.")]}));
    stands(&server.home, "look", "changed");
    sees(&visitor, "look", false);
}

#[test]
fn a_program_is_started_only_as_it_was_written_down() {
    let python = program("python3");
    let entries = [
        format!("- {{name: changed, stdio: {{command: {python}, digests: {{{python}: '{}'}}}}}}\n", "0".repeat(64)),
        "- {name: relative, stdio: {command: python3}}\n".to_owned(),
    ];
    let refused = home(&entries[1..], "").run(&["config", "check"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("must be an absolute path"), "{refused:?}");
    let server = Server::start_in(home(&entries[..1], ""));
    let report = until("it was tried", || {
        let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
        if report.contains("not the one in digests") { Ok(report) } else { Err(report) }
    });
    assert!(report.contains("upstream changed"), "{report}");
    let record = server.home.audited(|r| r["method"] == "upstream.failed" && r["tool"] == "changed");
    assert_eq!((&record["kind"], &record["decision"]), (&json!("upstream"), &json!("deny")));
    assert!(record["note"].as_str().unwrap().contains("not the one in digests; it is not started"), "{record}");
}

#[test]
fn a_program_that_others_could_exchange_is_not_started_and_that_is_recorded() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")]}));
    let place = tempfile::tempdir().unwrap();
    mode(place.path(), 0o755);
    let folder = place.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("server");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/upstreams/hostile.py");
    let python = super::program("python3");
    std::fs::write(&program, format!("#!/bin/sh\nexec {python} -u {script} {}\n", puppet.file().display())).unwrap();
    mode(&program, 0o755);
    // Whoever can write into the folder can put another program there, whatever the mode of this one is.
    mode(&folder, 0o777);
    let entry = format!("- {{name: up, stdio: {{command: {}}}, refresh: 1s}}\n", program.display());
    let server = Server::start_in(home(&[entry], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    let report = until("it was tried", || {
        let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
        if report.contains("bin can be changed by everybody") { Ok(report) } else { Err(report) }
    });
    assert!(report.contains("it is not started"), "{report}");
    let record = server.home.audited(|r| r["method"] == "upstream.failed" && r["tool"] == "up");
    assert!(record["decision"] == "deny" && record["note"].as_str().unwrap().contains("bin can be changed"), "{record}");
    assert_eq!(listed(&server.home), [], "nothing of it was heard");
    mode(&folder, 0o755);
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    sees(&visitor, "look", true);
}

#[test]
fn a_program_that_keeps_ending_is_started_again_with_growing_pauses_and_not_by_callers() {
    let puppet = Puppet::new(&json!({"tools": [tool("look", "Looks.")]}));
    let (server, visitor) = with_accepted(&puppet, "", "protocol: session", "");
    sees(&visitor, "look", true);
    assert_eq!(visitor.call("look", &json!({})).json()["result"]["isError"], false);
    let starts = puppet.file().with_file_name("orders.json.starts");
    let starts = || -> Vec<f64> {
        let text = std::fs::read_to_string(&starts).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    };
    puppet.order(&json!({"tools": [tool("look", "Looks.")], "call": "die", "dies": true}));
    let before = starts().len();
    let began = std::time::Instant::now();
    let failed = visitor.call("look", &json!({}));
    assert_eq!(failed.json()["result"]["isError"], true, "{}", failed.body);
    until("it was started six times", || {
        let count = starts().len() - before;
        if count >= 6 { Ok(()) } else { Err(format!("{count} times in {:?}", began.elapsed())) }
    });
    let all = starts();
    let pauses: Vec<f64> = all[before..].windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[3] > 1.5 && pauses[4] > 1.6 * pauses[3], "they grow: {pauses:?}");
    // While it rests, nobody's call starts it.
    let (rested, now) = (starts().len(), std::time::Instant::now());
    let mut refused = 0;
    while now.elapsed() < std::time::Duration::from_secs(3) {
        let reply = visitor.call("look", &json!({}));
        assert_eq!(reply.json()["result"]["isError"], true, "{}", reply.body);
        refused += u32::from(reply.body.contains("is left alone for a moment"));
        // Fewer than a caller may make.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert!(refused > 3 && starts().len() <= rested + 1, "{refused} refused, {rested} {}", starts().len());
    let record = server.home.audited(|r| r["tool"] == "look" && r["kind"] == "failed");
    assert!(record["code"] == "backend_failed" && record["note"].to_string().contains("not reachable"), "{record}");
    let record = server.home.audited(|r| r["method"] == "upstream.failed" && r["tool"] == "up");
    assert!(record["note"].as_str().unwrap().contains("not reachable"), "{record}");
}

#[test]
fn a_completion_travels_with_what_was_chosen_before_and_comes_back_with_its_counts() {
    let prompt = |name: &str| json!({"name": name, "arguments": [{"name": "department", "required": true}, {"name": "name"}]});
    let puppet =
        Puppet::new(&json!({"prompts": [prompt("greet")], "templates": [{"uriTemplate": "note://{shelf}/{id}", "name": "n"}]}));
    let server = Server::start_in(home(&[puppet.entry("up", "", "")], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    stands(&server.home, "greet", "new");
    stands(&server.home, "note://{shelf}/{id}", "new");
    accept_all(&server.home, "up");
    let ask = |reference: Value, argument: &str, context: Value| {
        let asked = json!({"ref": reference, "argument": {"name": argument, "value": "A"}, "context": {"arguments": context}});
        visitor.ask("completion/complete", &asked)
    };
    let of_prompt = json!({"type": "ref/prompt", "name": "greet"});
    let done = until("it is offered", || {
        let reply = ask(of_prompt.clone(), "name", json!({"department": "Sales"})).json();
        if reply.get("result").is_some() { Ok(reply) } else { Err(reply.to_string()) }
    });
    let completion = &done["result"]["completion"];
    assert_eq!(completion["values"], json!([r#"{"arguments": {"department": "Sales"}}"#, "A one"]), "{done}");
    assert_eq!((&completion["total"], &completion["hasMore"]), (&json!(7), &json!(true)), "{done}");
    // Which values were chosen is on record as the arguments of a call are: by their digest.
    let parameters =
        || server.home.audited(|r| r["method"] == "completion/complete" && r["tool"] == "greet")["parameters"].clone();
    let of_sales = parameters();
    ask(of_prompt.clone(), "name", json!({"department": "Support"}));
    assert!(of_sales.is_string() && parameters().is_string() && parameters() != of_sales, "{of_sales}");
    let of_template = json!({"type": "ref/resource", "uri": "note://{shelf}/{id}"});
    let done = ask(of_template.clone(), "id", json!({"shelf": "top"})).json();
    assert_eq!(done["result"]["completion"]["values"][0], r#"{"arguments": {"shelf": "top"}}"#, "{done}");
    // What is no argument of it, and what hides something, does not travel.
    for (reference, context, says) in [
        (&of_prompt, json!({"nobody": "x"}), "no argument 'nobody'"),
        (&of_prompt, json!({"department": "Sa\u{202e}les"}), "U+202E"),
        (&of_template, json!({"nobody": "x"}), "does not have"),
    ] {
        let refused = ask(reference.clone(), "name", context.clone());
        assert!(refused.json()["error"]["message"].as_str().is_some_and(|m| m.contains(says)), "{says}: {}", refused.body);
        let record = server.home.audited(|r| r["method"] == "completion/complete");
        assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("argument-schema")), "{says}");
    }
}

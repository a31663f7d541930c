//! What is written about a name, rules, approvals, habits, is about what had the name then: it never comes to mean the tool or
//! resource of somebody else.

use serde_json::{Value, json};

use super::{Puppet, accept_all, home, sees, stands, text, tool, tools, until};
use crate::parcels::Author;
use crate::plugins::{MANIFEST, component_of};
use crate::server::{Home, Server};
use crate::visitor::{Backend, Visitor};

fn answers_of(visitor: &Visitor, name: &str) -> String {
    let reply = visitor.call(name, &json!({"q": "x"})).json();
    reply["result"]["content"][0]["text"].as_str().map_or_else(|| reply.to_string(), str::to_owned)
}

#[test]
fn a_name_stays_with_the_upstream_it_was_accepted_for_also_while_its_tool_is_held() {
    let search = |says: &str| json!({"tools": [tool("search", says)]});
    let puppets = [Puppet::new(&search("In a.")), Puppet::new(&search("In b."))];
    let entries = [puppets[0].entry("a", "", ""), puppets[1].entry("b", "", "")];
    let server = Server::start_in(home(&entries, ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("both wait", || if super::listed(&server.home).len() == 2 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "a");
    sees(&visitor, "search", true);
    // The scanner says that the name is taken; that is what this is about.
    server.home.run_ok(&["upstream", "review", "b"]);
    server.home.run_ok(&["upstream", "accept", "b", "search", "--despite-findings"]);
    sees(&visitor, "b_search", true);
    puppets[0].order(&search("In a, and elsewhere."));
    stands(&server.home, "search", "changed");
    sees(&visitor, "search", false);
    let all = tools(&visitor);
    assert!(all.contains(&"b_search".to_owned()) && !all.contains(&"search".to_owned()), "{all:?}");
    assert!(answers_of(&visitor, "search").contains("unknown tool"));
    assert_eq!(visitor.call("b_search", &json!({})).json()["result"]["isError"], false);
    // Neither when it is no longer listed, rejected, or the server was started anew.
    puppets[0].order(&json!({"tools": []}));
    server.home.run_ok(&["upstream", "review", "a"]);
    server.home.run_ok(&["upstream", "reject", "a", "search"]);
    let server = Server::start_in(server.kill());
    let visitor = Visitor { mcp: server.mcp, ..visitor };
    sees(&visitor, "b_search", true);
    assert!(!tools(&visitor).contains(&"search".to_owned()));
}

#[test]
fn who_was_accepted_first_keeps_the_name_wherever_it_stands_in_the_file() {
    let search = |says: &str| json!({"tools": [tool("search", says)]});
    let puppets = [Puppet::new(&search("In a.")), Puppet::new(&search("In b."))];
    let entries = [puppets[0].entry("a", "", ""), puppets[1].entry("b", "", "")];
    let server = Server::start_in(home(&entries, ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("both wait", || if super::listed(&server.home).len() == 2 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "b");
    sees(&visitor, "search", true);
    let before = answers_of(&visitor, "search");
    server.home.run_ok(&["upstream", "review", "a"]);
    server.home.run_ok(&["upstream", "accept", "a", "search", "--despite-findings"]);
    sees(&visitor, "a_search", true);
    let pid = |answer: &str| answer.split_once("\"pid\": ").map(|(_, rest)| rest.split('}').next().unwrap().to_owned());
    assert_eq!(pid(&answers_of(&visitor, "search")), pid(&before), "still the one of b");
    assert_ne!(pid(&answers_of(&visitor, "a_search")), pid(&before));
}

#[test]
fn a_fixed_address_is_read_from_its_maker_whosever_template_fits_it() {
    let a = Puppet::new(&json!({"templates": [{"uriTemplate": "note://{+path}", "name": "everything"}], "says": "a: "}));
    let orders = |description: &str| {
        let fixed = json!({"uri": "note://x", "name": "x", "description": description});
        json!({"resources": [fixed], "templates": [{"uriTemplate": "note://{+path}", "name": "mine too"}], "says": "b: "})
    };
    let b = Puppet::new(&orders("One."));
    let server = Server::start_in(home(&[a.entry("a", "", ""), b.entry("b", "", "")], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("all wait", || if super::listed(&server.home).len() == 3 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "a");
    accept_all(&server.home, "b");
    let read = |uri: &str| visitor.ask("resources/read", &json!({ "uri": uri })).json();
    let from = |reply: &Value, whose: &str| reply["result"]["contents"][0]["text"].as_str().is_some_and(|t| t.contains(whose));
    until("both are offered", || {
        let (one, other) = (read("note://x"), read("note://y"));
        if from(&one, "b: ") && from(&other, "a: ") { Ok(()) } else { Err(format!("{one} {other}")) }
    });
    // The second to claim a template is told so.
    let report = server.home.run(&["doctor", "--json"]);
    assert!(String::from_utf8_lossy(&report.stdout).contains("is another upstream's already"), "{report:?}");
    b.order(&orders("Another one."));
    stands(&server.home, "note://x", "changed");
    until("it is held", || {
        let reply = read("note://x");
        assert!(!from(&reply, "a: "), "never read from another one: {reply}");
        if reply.get("error").is_some() { Ok(()) } else { Err(reply.to_string()) }
    });
}

/// A server of the shop's API and a puppet, and the API's tool.
fn shop_beside(puppet: &Puppet) -> (Server, Visitor, Backend) {
    let backend = Backend::start(|_, _| (200, json!({"of": "the shop"}).to_string()));
    let description = json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": {
        "/orders": {"get": {"operationId": "listOrders", "summary": "Lists orders"}}}});
    let home = home(&[puppet.entry("up", "", "")], "");
    let spec = home.directory.path().join("shop.json");
    std::fs::write(&spec, description.to_string()).unwrap();
    let api = format!(
        "apis:\n- {{name: shop, spec: {{file: '{}'}}, url: '{}', allow_addresses: [loopback]}}\n",
        spec.display(),
        backend.url
    );
    let before = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, before + &api).unwrap();
    let server = Server::start_in(home);
    let visitor = super::visitor(&server, &["--role", "operator"]);
    (server, visitor, backend)
}

fn names(home: &Home) -> Vec<Value> {
    serde_json::from_str(&home.run_ok(&["names", "list", "--json"])).unwrap()
}

fn owner(home: &Home, name: &str) -> Value {
    names(home).iter().find(|entry| entry["name"] == name).map_or(Value::Null, |entry| entry["owner"].clone())
}

#[test]
fn the_name_of_an_apis_tool_stays_the_apis_and_who_went_without_it_is_told() {
    let puppet = Puppet::new(&json!({"tools": [tool("shop_list_orders", "Lists orders.")]}));
    let (server, visitor, backend) = shop_beside(&puppet);
    sees(&visitor, "shop_list_orders", true);
    stands(&server.home, "shop_list_orders", "new");
    // The scanner knows every name there is.
    let shown = server.home.run_ok(&["upstream", "review", "up"]);
    assert!(shown.contains("shadows in name") && shown.contains("api shop"), "{shown}");
    let by_the_way = server.home.run(&["upstream", "accept", "up", "--all"]);
    assert!(String::from_utf8_lossy(&by_the_way.stderr).contains("--despite-findings"), "{by_the_way:?}");
    server.home.run_ok(&["upstream", "accept", "up", "shop_list_orders", "--despite-findings"]);
    sees(&visitor, "up_shop_list_orders", true);
    let of_the_api = |visitor: &Visitor| {
        let answer = visitor.call("shop_list_orders", &json!({})).json();
        assert!(answer["result"]["structuredContent"].to_string().contains("the shop"), "{answer}");
    };
    of_the_api(&visitor);
    assert_eq!(backend.seen().len(), 1);
    let denied = server.home.audited(|r| r["method"] == "names.denied");
    assert_eq!((&denied["kind"], &denied["decision"]), (&json!("upstream"), &json!("deny")));
    assert_eq!(denied["tool"], "tool/shop_list_orders");
    let note = "upstream up: tool 'shop_list_orders' is offered as 'up_shop_list_orders': the name is that of api shop";
    assert_eq!(denied["note"], note);
    let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
    assert!(report.contains("the name is that of api shop"), "{report}");
    let told = names(&server.home).into_iter().find(|entry| entry["name"] == "shop_list_orders").unwrap();
    assert_eq!((&told["owner"], &told["without"]), (&json!("api shop"), &json!(["upstream up"])));
    // Another start, in which the upstream is there first and the API cannot be read, changes nothing.
    let home = server.kill();
    let config = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, config.split("apis:").next().unwrap()).unwrap();
    let server = Server::start_in(home);
    let visitor = Visitor { mcp: server.mcp, ..visitor };
    sees(&visitor, "up_shop_list_orders", true);
    assert!(!tools(&visitor).contains(&"shop_list_orders".to_owned()), "{:?}", tools(&visitor));
    let refused = visitor.call("shop_list_orders", &json!({}));
    assert!(refused.body.contains("unknown tool"), "{}", refused.body);
    server.home.audited(|r| r["tool"] == "shop_list_orders" && r["kind"] == "refused" && r["decision"] == "deny");
    let home = server.kill();
    std::fs::write(&home.config, config).unwrap();
    let server = Server::start_in(home);
    let visitor = Visitor { mcp: server.mcp, ..visitor };
    sees(&visitor, "shop_list_orders", true);
    of_the_api(&visitor);
    let told = server.home.audit().iter().filter(|r| r["method"] == "names.denied").count();
    assert_eq!(told, 1, "it is recorded once, not at every start");
}

#[test]
fn what_is_offered_together_is_not_taken_apart_because_one_changed() {
    let search = |says: &str| json!({"tools": [tool("search", says)]});
    let puppets = [Puppet::new(&search("Searches.")), Puppet::new(&search("Searches."))];
    // A rule may name what is configured before it is there.
    let more = "kind: grafana, tools: [search]";
    let entries = [puppets[0].entry("eu", "", more), puppets[1].entry("us", "", more)];
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.cedar");
    std::fs::write(
        &rules,
        r#"@id("not-in-the-us") forbid (principal, action, resource == Portcullis::Tool::"search")
           when { context.arguments has instance && context.arguments.instance == "us" };"#,
    )
    .unwrap();
    let server = Server::start_in(home(&entries, &format!("policies: ['{}']\n", rules.display())));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("both wait", || if super::listed(&server.home).len() == 2 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "eu");
    accept_all(&server.home, "us");
    let instances = |wanted: Value| {
        until("they are behind it", || {
            let reply = visitor.ask("tools/list", &json!({})).json();
            let all = reply["result"]["tools"].as_array().unwrap().clone();
            let search = all.iter().find(|t| t["name"] == "search").cloned().unwrap_or_default();
            if search["inputSchema"]["properties"]["instance"]["enum"] == wanted { Ok(()) } else { Err(reply.to_string()) }
        });
    };
    instances(json!(["eu", "us"]));
    let refused = visitor.call("search", &json!({"q": "x", "instance": "us"}));
    assert!(refused.body.contains("not-in-the-us"), "{}", refused.body);
    // One of them changes, and a person accepts that: the rule holds as before, for there is no other name.
    puppets[1].order(&search("Searches, better."));
    stands(&server.home, "search", "changed");
    accept_all(&server.home, "us");
    until("it is left out", || {
        let told = server.home.audit().iter().any(|r| r["method"] == "names.denied" && r["tool"] == "tool/search");
        if told { Ok(()) } else { Err(server.log()) }
    });
    // What rules and callers may name is as before.
    instances(json!(["eu", "us"]));
    let all = tools(&visitor);
    assert!(!all.iter().any(|name| name == "us_search" || name == "eu_search"), "{all:?}");
    let denied = server.home.audited(|r| r["method"] == "names.denied" && r["tool"] == "tool/search");
    assert_eq!((&denied["kind"], &denied["decision"]), (&json!("upstream"), &json!("deny")));
    let note = denied["note"].as_str().unwrap();
    assert!(note.starts_with("upstream us: tool 'search' is left out: its definition"), "{note}");
    let refused = visitor.call("search", &json!({"q": "x", "instance": "us"}));
    assert!(refused.body.contains("not-in-the-us"), "{}", refused.body);
    let record = server.home.audited(|r| r["tool"] == "search" && r["kind"] == "refused");
    assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("not-in-the-us")));
    assert_eq!(visitor.call("us_search", &json!({"q": "x"})).json()["error"]["code"], -32602);
    assert_eq!(visitor.call("search", &json!({"q": "x", "instance": "eu"})).json()["result"]["isError"], false);
    let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
    assert!(report.contains("portcullis names split search"), "{report}");
    // The operator may take them apart, and put them together again.
    server.home.run_ok(&["names", "split", "search"]);
    server.home.audited(|r| r["method"] == "names.split" && r["tool"] == "tool/search" && r["decision"] == "allow");
    sees(&visitor, "us_search", true);
    sees(&visitor, "eu_search", true);
    sees(&visitor, "search", false);
    puppets[0].order(&search("Searches, better."));
    stands(&server.home, "search", "changed");
    accept_all(&server.home, "eu");
    sees(&visitor, "eu_search", true);
    assert!(!tools(&visitor).contains(&"search".to_owned()), "they agree, and stay apart all the same");
    server.home.run_ok(&["names", "join", "search"]);
    instances(json!(["eu", "us"]));
    sees(&visitor, "us_search", false);
    let refused = visitor.call("search", &json!({"q": "x", "instance": "us"}));
    assert!(refused.body.contains("not-in-the-us"), "{}", refused.body);
}

#[test]
fn an_operator_gives_a_name_to_another_or_releases_it_and_a_running_server_follows() {
    let puppet = Puppet::new(&json!({"tools": [tool("shop_list_orders", "Lists orders.")]}));
    let (server, visitor, backend) = shop_beside(&puppet);
    stands(&server.home, "shop_list_orders", "new");
    server.home.run_ok(&["upstream", "review", "up"]);
    server.home.run_ok(&["upstream", "accept", "up", "shop_list_orders", "--despite-findings"]);
    sees(&visitor, "up_shop_list_orders", true);
    let refused = |arguments: &[&str]| {
        let output = server.home.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["names", "move", "shop_list_orders", "--to", "plugin nobody"]).contains("api shop, upstream up"));
    assert!(refused(&["names", "move", "query_logs", "--to", "upstream up"]).contains("a name of this house"));
    assert!(refused(&["names", "release", "query_logs"]).contains("a name of this house"));
    assert!(refused(&["names", "release", "never_given"]).contains("is nobody's"));
    server.home.run_ok(&["names", "move", "shop_list_orders", "--to", "upstream up"]);
    let moved = server.home.audited(|r| r["method"] == "names.moved");
    assert_eq!((&moved["tool"], &moved["decision"]), (&json!("tool/shop_list_orders"), &json!("allow")));
    assert_eq!(moved["note"], "from api shop to upstream up");
    assert!(moved["principal"].as_str().is_some_and(|who| !who.is_empty()), "{moved}");
    until("the upstream answers to it", || {
        let reply = visitor.call("shop_list_orders", &json!({"q": "x"})).json();
        if reply["result"]["isError"] == false && text(&reply).contains("arguments") { Ok(()) } else { Err(reply.to_string()) }
    });
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    let denied = server.home.audited(|r| r["method"] == "names.denied" && r["kind"] == "plugin");
    assert_eq!(denied["note"], "api shop: tool 'shop_list_orders' is left out: the name is that of upstream up");
    // Released by its present owner, it goes to whoever offers something under it.
    puppet.order(&json!({"tools": []}));
    sees(&visitor, "shop_list_orders", false);
    server.home.run_ok(&["names", "release", "shop_list_orders"]);
    server.home.audited(|r| r["method"] == "names.released" && r["note"] == "from upstream up");
    sees(&visitor, "shop_list_orders", true);
    assert_eq!(owner(&server.home, "shop_list_orders"), "api shop");
}

#[test]
fn a_plugin_that_comes_later_takes_no_name_whatever_it_is_called() {
    let Some(component) = component_of("probe") else { return };
    let install = |home: &Home, name: &str| {
        let author = Author::new(home, &format!("author-of-{name}"));
        let manifest = MANIFEST.replace("name: probe\n", &format!("name: {name}\n"));
        let package = author.pack(home, &component, &manifest);
        home.run_ok(&["plugin", "keys", "add", &author.public, "--owner", "A stranger", "--plugin", name]);
        home.run_ok(&["plugin", "install", &package]);
        home.run_ok(&["plugin", "enable", name]);
    };
    let home = Home::new("tools: {expose: all}\n");
    install(&home, "probe");
    let server = Server::start_in(home);
    let visitor = super::visitor(&server, &["--role", "operator"]);
    sees(&visitor, "probe_do", true);
    assert_eq!(owner(&server.home, "probe_do"), "plugin probe");
    // It stands before the other in every list.
    install(&server.home, "aaa");
    sees(&visitor, "aaa_probe_do", true);
    let whose = |name: &str| {
        let reply = visitor.call(name, &json!({"what": "echo", "text": "x"}));
        let record = server.home.audited(|r| r["tool"] == name && (r["kind"] == "call" || r["kind"] == "failed"));
        (record["note"].to_string() + &record["sources"].to_string(), reply.body)
    };
    let (of, answer) = whose("probe_do");
    assert!(of.contains("probe") && !of.contains("aaa"), "{of} {answer}");
    let (of, answer) = whose("aaa_probe_do");
    assert!(of.contains("aaa"), "{of} {answer}");
    let denied = server.home.audited(|r| r["method"] == "names.denied" && r["tool"] == "tool/probe_do");
    assert_eq!((&denied["kind"], &denied["decision"]), (&json!("plugin"), &json!("deny")));
    let note = "plugin aaa: tool 'probe_do' is offered as 'aaa_probe_do': the name is that of plugin probe";
    assert_eq!(denied["note"], note);
    // Also while the first is off, and after another start.
    server.home.run_ok(&["plugin", "disable", "probe"]);
    sees(&visitor, "probe_do", false);
    sees(&visitor, "aaa_probe_do", true);
    let server = Server::start_in(server.kill());
    let visitor = Visitor { mcp: server.mcp, ..visitor };
    sees(&visitor, "aaa_probe_do", true);
    assert!(!tools(&visitor).contains(&"probe_do".to_owned()), "{:?}", tools(&visitor));
    server.home.run_ok(&["names", "move", "probe_do", "--to", "plugin aaa"]);
    sees(&visitor, "probe_do", true);
    server.home.run_ok(&["plugin", "enable", "probe"]);
    sees(&visitor, "probe_probe_do", true);
}

#[test]
fn an_address_that_fits_two_templates_is_read_from_the_one_accepted_first_and_that_is_said() {
    let template = |uri: &str| json!({"templates": [{"uriTemplate": uri, "name": "notes"}]});
    let of = |uri: &str, says: &str| {
        let mut orders = template(uri);
        orders["says"] = json!(says);
        Puppet::new(&orders)
    };
    let (near, far) = (of("note://by-id/{id}", "near: "), of("note://{+path}", "far: "));
    // The narrower one stands first in the file, and is accepted last.
    let server = Server::start_in(home(&[near.entry("near", "", ""), far.entry("far", "", "")], ""));
    let visitor = super::visitor(&server, &["--role", "operator"]);
    until("both wait", || if super::listed(&server.home).len() == 2 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "far");
    accept_all(&server.home, "near");
    let read = |uri: &str| visitor.ask("resources/read", &json!({ "uri": uri })).body;
    until("both are offered", || {
        let listed = visitor.ask("resources/templates/list", &json!({})).body;
        if listed.contains("note://by-id/{id}") && listed.contains("note://{+path}") { Ok(()) } else { Err(listed) }
    });
    for uri in ["note://by-id/7", "note://other"] {
        assert!(read(uri).contains("far: "), "{}", read(uri));
    }
    let report = String::from_utf8_lossy(&server.home.run(&["doctor", "--json"]).stdout).into_owned();
    let said = "resource template 'note://by-id/{id}' of 'near' has addresses in common with 'note://{+path}' of 'far'";
    assert!(report.contains(said), "{report}");
    // Also while what was accepted first is held: an address does not go from one to another.
    far.order(&json!({"templates": [{"uriTemplate": "note://{+path}", "name": "notes", "description": "Changed."}]}));
    stands(&server.home, "note://{+path}", "changed");
    until("it is held", || {
        let reply = read("note://by-id/7");
        assert!(!reply.contains("near: "), "{reply}");
        if reply.contains("far: ") { Err(reply) } else { Ok(()) }
    });
}

//! One question for lists and calls, over the real catalogue: no other spelling of an address, no other road to what a tool
//! shows, and nothing listed that is always refused.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::server::{Home, Server, intact};
use crate::upstreams::{Puppet, accept_all, listed, tool, until};
use crate::visitor::Visitor;

fn home_with(rules: &str, more: &str) -> Home {
    let home = Home::new(more);
    let path = home.directory.path().join("own.cedar");
    std::fs::write(&path, rules).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    home
}

fn read(visitor: &Visitor, uri: &str) -> Value {
    visitor.ask("resources/read", &json!({ "uri": uri })).json()
}

fn complete(visitor: &Visitor, reference: &Value, argument: &str) -> Value {
    visitor.ask("completion/complete", &json!({"ref": reference, "argument": {"name": argument, "value": ""}})).json()
}

/// What a listing names.
fn names(visitor: &Visitor, method: &str, list: &str, name: &str) -> BTreeSet<String> {
    let reply = visitor.ask(method, &json!({})).json();
    let all = reply["result"][list].as_array().unwrap_or_else(|| panic!("{reply}"));
    all.iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
}

fn tools(visitor: &Visitor) -> BTreeSet<String> {
    names(visitor, "tools/list", "tools", "name")
}

fn resources(visitor: &Visitor) -> BTreeSet<String> {
    names(visitor, "resources/list", "resources", "uri")
}

fn families(visitor: &Visitor) -> BTreeSet<String> {
    names(visitor, "resources/templates/list", "resourceTemplates", "uriTemplate")
}

fn prompts(visitor: &Visitor) -> BTreeSet<String> {
    names(visitor, "prompts/list", "prompts", "name")
}

const SPELLING: &str = r#"
@id("no-payment") forbid (principal, action == Portcullis::Action::"read",
    resource == Portcullis::Resource::"portcullis://service/payment");
"#;

#[test]
fn no_spelling_of_an_address_gets_past_a_rule() {
    let home = home_with(SPELLING, "");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let reader = Visitor::new(&server, &key);
    for service in ["payment", "cart"] {
        assert_eq!(server.send_log(service, 17, &format!("line of {service}")).status, 200);
    }
    assert!(read(&reader, "portcullis://service/cart")["result"]["contents"][0]["text"].is_string());
    let refused = read(&reader, "portcullis://service/payment");
    assert!(refused.to_string().contains("unknown resource"), "{refused}");
    server.home.audited(|r| r["tool"] == "portcullis://service/payment" && r["rule"] == "no-payment" && r["decision"] == "deny");
    let session = reader.session(&json!({}));
    for (service, right) in [
        ("p%61yment", true),
        ("%70%61%79%6d%65%6e%74", true),
        ("%70%61%79%6D%65%6E%74", true),
        ("paymen%74", true),
        ("p%2561yment", false),
        ("./payment", false),
        ("%2e/payment", false),
        ("cart/../payment", false),
        ("payment%00", false),
        ("payment%", false),
    ] {
        let uri = format!("portcullis://service/{service}");
        for method in ["resources/read", "resources/subscribe"] {
            let reply = session.ask(method, &json!({ "uri": uri })).json();
            let text = reply.to_string();
            assert!(reply["error"].is_object() && !text.contains("line of payment"), "{method} {uri}: {reply}");
            assert!(
                !right || text.contains("write it as portcullis://service/payment") || method == "resources/subscribe",
                "{reply}"
            );
        }
        let record = server.home.audited(|r| r["tool"] == uri.as_str() && r["method"] == "resources/read");
        assert_eq!(record["decision"], "deny", "{record}");
        assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "a source was asked: {record}");
        let rules = ["address-form", "catalogue", "no-payment"];
        assert!(rules.contains(&record["rule"].as_str().unwrap()), "{record}");
    }
    // A name that needs encoding is read in its one spelling.
    assert_eq!(server.send_log("shop/cart x", 17, "line of a name").status, 200);
    assert!(read(&reader, "portcullis://service/shop%2Fcart%20x")["result"]["contents"].is_array());
    for other in ["portcullis://service/shop%2fcart%20x", "portcullis://service/shop%2Fcart x", "portcullis://service/c%61rt"] {
        let reply = read(&reader, other);
        assert!(reply.to_string().contains("write it as portcullis://service/"), "{reply}");
        let record = server.home.audited(|r| r["tool"] == other);
        assert_eq!((&record["rule"], &record["code"]), (&json!("address-form"), &json!("invalid_argument")), "{record}");
    }
    assert!(intact(&server.home));

    let never = home_with(&SPELLING.replace("payment\")", "p%61yment\")"), "");
    let refused = never.run(&["policy", "check"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && said.contains("write it as 'portcullis://service/payment'"), "{said}");
}

const BEHIND: &str = r#"
@id("no-health-of-payment") forbid (principal, action == Portcullis::Action::"call",
    resource == Portcullis::Tool::"get_service_health")
    when { context.arguments has service && context.arguments.service == "payment" };
@id("interns-look") permit (principal in Portcullis::Role::"intern", action, resource) when { resource.risk == "read" };
@id("interns-no-lists") forbid (principal in Portcullis::Role::"intern", action == Portcullis::Action::"call", resource)
    when { resource.name like "list_*" || resource.name == "sql" };
@id("interns-ask") @only_limits("true") @approval("required") permit (principal in Portcullis::Role::"intern",
    action == Portcullis::Action::"call", resource == Portcullis::Tool::"get_service_health");
@id("guests-read") permit (principal in Portcullis::Role::"guest",
    action in [Portcullis::Action::"read", Portcullis::Action::"prompt"], resource);
"#;

#[test]
fn the_rules_of_a_tool_hold_for_whatever_shows_what_it_shows() {
    let home = home_with(BEHIND, "roles: [intern, guest]\n");
    let keys = ["reader", "intern", "guest"].map(|role| home.key(&["--role", role]));
    let server = Server::start_in(home);
    let [reader, intern, guest] = keys.map(|key| Visitor::new(&server, &key));
    for service in ["payment", "cart"] {
        assert_eq!(server.send_log(service, 17, &format!("line of {service}")).status, 200);
    }
    // By the value of an argument.
    assert!(read(&reader, "portcullis://service/cart")["result"]["contents"].is_array());
    let refused = read(&reader, "portcullis://service/payment").to_string();
    assert!(refused.contains("unknown resource"), "{refused}");
    server.home.audited(|r| r["tool"] == "portcullis://service/payment" && r["rule"] == "no-health-of-payment");
    let family = json!({"type": "ref/resource", "uri": "portcullis://service/{name}"});
    let values = complete(&reader, &family, "name");
    assert_eq!(values["result"]["completion"]["values"], json!(["cart"]), "what may not be read is not offered: {values}");

    // By what a role may call: hidden tools have no resource and no values.
    let seen = resources(&intern);
    assert!(!seen.contains("portcullis://sources") && !seen.contains("portcullis://schema/sql"), "{seen:?}");
    assert!(seen.contains("portcullis://guide") && families(&intern).contains("portcullis://service/{name}"), "{seen:?}");
    for uri in ["portcullis://sources", "portcullis://schema/sql"] {
        assert!(read(&intern, uri).to_string().contains("unknown resource"));
        server.home.audited(|r| r["tool"] == uri && r["rule"] == "interns-no-lists" && r["decision"] == "deny");
    }
    let prompt = json!({"type": "ref/prompt", "name": "explain_slow_request"});
    let refused = complete(&intern, &prompt, "service");
    assert!(refused["error"].is_object(), "{refused}");
    server.home.audited(|r| {
        r["method"] == "completion/complete" && r["rule"] == "interns-no-lists" && r["tool"] == "explain_slow_request"
    });
    // An approval of the tool is one of its resource.
    let pending = read(&intern, "portcullis://service/cart").to_string();
    assert!(pending.contains("pending approval"), "{pending}");
    server.home.audited(|r| r["tool"] == "portcullis://service/cart" && r["rule"] == "approval" && r["decision"] == "deny");

    // Who may read everything and call nothing sees what no tool shows.
    assert_eq!(resources(&guest), BTreeSet::from(["portcullis://guide".to_owned()]));
    assert!(families(&guest).is_empty() && !prompts(&guest).is_empty());
    assert!(read(&guest, "portcullis://service/cart").to_string().contains("unknown resource"));
    let record = server.home.audited(|r| r["tool"] == "portcullis://service/cart" && r["rule"] == "no-rule-allows");
    assert_eq!((&record["decision"], &record["method"]), (&json!("deny"), &json!("resources/read")), "{record}");
    assert!(intact(&server.home));
}

const PRODUCTS: &str = "products:\n\
    - {name: quiet, tools: ['query_logs', 'list_*']}\n\
    - {name: named, tools: ['*'], resources: ['portcullis://service/*', 'note://*'], prompts: ['greet', 'explain_*']}\n\
    - {name: one, tools: ['get_service_health', 'acme_*'], sources: [acme], services: [cart], resources: ['*'], prompts: ['*']}\n";

/// Everything somebody could try to use.
#[derive(Default)]
struct All {
    tools: BTreeSet<String>,
    resources: BTreeSet<String>,
    families: BTreeSet<String>,
    prompts: BTreeSet<String>,
}

/// Whether an answer says that there is no such thing, and nothing else that is about who asks.
fn missing(what: &str, reply: &Value) -> bool {
    let text = reply.to_string();
    let missing = ["unknown tool", "unknown resource", "unknown prompt"].iter().any(|sentence| text.contains(sentence));
    for sentence in ["not available to this credential", "cannot be confined", "available to this tenant"] {
        assert!(!text.contains(sentence), "{what} is shown and never served: {text}");
    }
    missing
}

/// Arguments under which a tool goes as far as its work.
fn arguments(tool: &str) -> Value {
    match tool {
        "sql" => json!({"query": "SELECT 1"}),
        "get_trace" => json!({"trace_id": "0af7651916cd43dd8448eb211c80319c"}),
        "query_metrics" => json!({"metric": "error_rate"}),
        _ => json!({}),
    }
}

/// Compares what one visitor is shown with what it can use, thing by thing; gives the number of things.
fn compare(all: &All, visitor: &Visitor, who: &str) -> usize {
    let (shown, mut compared) = (tools(visitor), 0);
    // The tool that names of services come from.
    let lists = shown.contains("list_services");
    for tool in &all.tools {
        let reply = visitor.call(tool, &arguments(tool)).json();
        assert_eq!(shown.contains(tool), !missing(tool, &reply), "{tool} for {who}: {reply}");
        compared += 1;
    }
    let shown = resources(visitor);
    for uri in &all.resources {
        let reply = read(visitor, uri);
        assert_eq!(shown.contains(uri), !missing(uri, &reply), "{uri} for {who}: {reply}");
        compared += 1;
    }
    let shown = families(visitor);
    for family in &all.families {
        let member = family.replace("{name}", "cart").replace("{id}", "7");
        let reply = read(visitor, &member);
        assert_eq!(shown.contains(family), !missing(&member, &reply), "{member} for {who}: {reply}");
        let values = complete(
            visitor,
            &json!({"type": "ref/resource", "uri": family}),
            if family.contains("name") { "name" } else { "id" },
        );
        let listing = !family.contains("name") || lists;
        assert_eq!(shown.contains(family) && listing, !missing(family, &values), "{family} for {who}: {values}");
        compared += 2;
    }
    let shown = prompts(visitor);
    for prompt in &all.prompts {
        let reply = visitor.ask("prompts/get", &json!({"name": prompt, "arguments": {"service": "cart"}})).json();
        assert_eq!(shown.contains(prompt), !missing(prompt, &reply), "{prompt} for {who}: {reply}");
        let values = complete(visitor, &json!({"type": "ref/prompt", "name": prompt}), "service");
        let listing = !["explain_slow_request", "investigate_incident", "write_postmortem"].contains(&prompt.as_str()) || lists;
        assert_eq!(shown.contains(prompt) && listing, !missing(prompt, &values), "{prompt} for {who}: {values}");
        compared += 2;
    }
    compared
}

#[test]
fn over_the_real_catalogue_listed_is_not_refused_for_who_somebody_is() {
    let orders = |name: &str, scheme: &str| {
        json!({
            "tools": [tool(name, "Looks."), tool(&format!("{name}_more"), "Shows one more thing.")],
            "prompts": [{"name": format!("greet_{name}"), "arguments": [{"name": "service"}]}, {"name": "greet", "arguments": [{"name": "service"}]}],
            "resources": [{"uri": format!("{scheme}://one"), "name": "one"}],
            "templates": [{"uriTemplate": format!("{scheme}://by-id/{{id}}"), "name": "by id"}],
        })
    };
    let puppets =
        [orders("look", "note"), orders("acme_only", "acme"), orders("open", "open")].map(|orders| Puppet::new(&orders));
    let more = ["", "tenant: acme,", "tenant: acme, confined_callers: allow,"];
    let entries: Vec<String> =
        puppets.iter().zip(["up", "acme", "open"]).zip(more).map(|((puppet, name), more)| puppet.entry(name, "", more)).collect();
    let limits = "limits: {address: {per_second: 100000, burst: 100000}, tool: {per_second: 100000, burst: 100000}, \
                  calls_per_second: 100000, burst: 100000, tokens_per_day: 0}\n";
    let home = home_with(
        BEHIND,
        &format!("tools: {{expose: all}}\nroles: [intern, guest]\nupstreams:\n{}{PRODUCTS}{limits}", entries.concat()),
    );
    let server = Server::start_in(home);
    until("all wait", || if listed(&server.home).len() == 18 { Ok(()) } else { Err(format!("{:?}", listed(&server.home))) });
    for name in ["up", "acme", "open"] {
        accept_all(&server.home, name);
    }
    let mut all = All::default();
    for tenant in ["default", "acme"] {
        let operator = crate::upstreams::visitor(&server, &["--role", "operator", "--tenant", tenant]);
        let wanted = if tenant == "acme" { "open_more" } else { "look_more" };
        crate::upstreams::sees(&operator, wanted, true);
        until("resources are listed", || {
            let seen = families(&operator);
            let scheme = if tenant == "acme" { "open://by-id/{id}" } else { "note://by-id/{id}" };
            if seen.contains(scheme) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        all.tools.extend(tools(&operator));
        all.resources.extend(resources(&operator));
        all.families.extend(families(&operator));
        all.prompts.extend(prompts(&operator));
    }
    assert!(all.tools.len() >= 17 && all.families.len() == 4 && all.prompts.len() >= 6, "{:?} {:?}", all.tools, all.prompts);

    let mut compared = 0;
    let reaches = [
        &["--tenant", "default"][..],
        &["--tenant", "acme", "--service", "cart"],
        &["--tenant", "acme", "--source", "open"],
        &["--tenant", "beta"],
        &["--tenant", "acme"],
        &["--tenant", "default", "--service", "cart"],
        &["--tenant", "default", "--look-back", "1h"],
    ];
    for (role, some) in [("reader", 7), ("intern", 3), ("guest", 3), ("admin", 4)] {
        for options in &reaches[..some] {
            let visitor = crate::upstreams::visitor(&server, &[&["--role", role], *options].concat());
            for path in ["/mcp", "/mcp/quiet", "/mcp/named", "/mcp/one"] {
                compared += compare(&all, &visitor.at(path), &format!("{role} {options:?} at {path}"));
            }
        }
    }
    assert!(compared > 2_500, "{compared}");

    // One tenant learns nothing of another's: no name, no description, no schema.
    let beta = crate::upstreams::visitor(&server, &["--role", "admin", "--tenant", "beta"]);
    for method in ["tools/list", "resources/list", "resources/templates/list", "prompts/list"] {
        let body = beta.ask(method, &json!({})).body;
        for word in ["Shows one more thing", "acme", "open://", "note://", "greet"] {
            assert!(!body.contains(word), "{method}: {word}: {body}");
        }
    }
    assert!(beta.call("acme_only", &json!({})).body.contains("unknown tool: acme_only"));
    let record = server.home.audited(|r| r["tool"] == "acme_only" && r["tenant"] == "beta");
    assert_eq!(
        (&record["decision"], &record["rule"], &record["code"]),
        (&json!("deny"), &json!("not-served"), &json!("not_found"))
    );
    assert!(record["note"].as_str().unwrap().contains("'acme' is not available"), "the operator finds why: {record}");
    assert!(intact(&server.home));
}

//! Products at their own addresses: their tools and data and nothing else, and to whoever they are not for, nothing at all.

use serde_json::{Value, json};

use crate::server::{Home, Server};
use crate::visitor::Visitor;

const PRODUCTS: &str = "roles: [oncall]\n\
    products:\n\
    - {name: oncall, tools: ['query_logs', 'list_*'], services: [cart], roles: [oncall], limits: {max_look_back: 1h}}\n\
    - {name: open, tools: ['list_sources']}\n\
    - {name: acme, tools: ['list_sources'], tenants: [acme]}\n";

fn names(reply: &Value) -> Vec<String> {
    let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}"));
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_product_offers_its_tools_and_its_data_and_refuses_everybody_else() {
    let home = Home::new(PRODUCTS);
    let member = home.key(&["--role", "reader", "--role", "oncall"]);
    let stranger = home.key(&["--role", "reader"]);
    let only_member = home.key(&["--role", "oncall"]);
    let server = Server::start_in(home);
    for service in ["cart", "payment"] {
        assert_eq!(server.send_log(service, 17, &format!("line of {service}")).status, 200);
    }
    let member = Visitor::new(&server, &member);
    let stranger = Visitor::new(&server, &stranger);
    let inside = member.at("/mcp/oncall");

    let listed = names(&inside.ask("tools/list", &json!({})).json());
    assert!(listed.iter().all(|n| n == "query_logs" || n.starts_with("list_")) && listed.len() >= 4, "{listed:?}");
    assert!(names(&member.ask("tools/list", &json!({})).json()).contains(&"sql".to_owned()), "outside of it nothing changed");
    for tool in &listed {
        let reply = inside.call(tool, &json!({})).json();
        assert!(!reply.to_string().contains("unknown tool"), "{tool}: {reply}");
    }
    let hidden = inside.call("sql", &json!({"query": "SELECT * FROM otel_logs"})).json();
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    assert_eq!(server.home.audited(|r| r["tool"] == "sql")["decision"], "deny");

    let all = member.call("query_logs", &json!({"window": "15m"})).body;
    assert!(all.contains("line of cart") && all.contains("line of payment"), "{all}");
    for arguments in
        [json!({"window": "15m"}), json!({"window": "15m", "service": "payment"}), json!({"window": "15m", "text": "payment"})]
    {
        let narrow = inside.call("query_logs", &arguments).body;
        assert!(!narrow.contains("line of payment"), "{arguments}: {narrow}");
    }
    assert!(inside.call("query_logs", &json!({"window": "15m"})).body.contains("line of cart"));
    assert!(inside.call("query_logs", &json!({"window": "7d"})).body.contains("1h"), "the look-back of the product is said");

    // A product grants nothing, it narrows what the roles grant.
    let bare = Visitor::new(&server, &only_member).at("/mcp/oncall");
    assert!(names(&bare.ask("tools/list", &json!({})).json()).is_empty());

    // Unknown, foreign by role, foreign by tenant: one answer.
    let refusals: Vec<_> = ["/mcp/nothing", "/mcp/oncall", "/mcp/acme"]
        .iter()
        .map(|path| {
            let reply = stranger.at(path).ask("tools/list", &json!({}));
            let name = path.rsplit('/').next().unwrap();
            (reply.status, reply.body.replace(name, "NAME"))
        })
        .collect();
    assert!(refusals.iter().all(|r| *r == refusals[0] && r.0 == 404), "{refusals:?}");
    let record = server.home.audited(|r| r["rule"] == "unknown-product");
    assert_eq!(record["decision"], "deny");
    assert_eq!(stranger.at("/mcp/open").call("list_sources", &json!({})).status, 200);
    for odd in ["/mcp/oncall/x", "/mcp/oncall/../open", "/mcp//oncall", "/mcp/%6fncall%2f", "/mcp/ONCALL"] {
        let reply = stranger.at(odd).ask("tools/list", &json!({}));
        assert!(matches!(reply.status, 400 | 403 | 404 | 405), "{odd}: {} {}", reply.status, reply.body);
    }
}

#[test]
fn a_session_of_one_product_is_none_elsewhere() {
    let home = Home::new(PRODUCTS);
    let key = home.key(&["--role", "reader", "--role", "oncall"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let session = visitor.at("/mcp/open").session(&json!({}));
    assert_eq!(names(&session.ask("tools/list", &json!({})).json()), ["list_sources"]);
    for path in ["/mcp", "/mcp/oncall"] {
        let moved = crate::visitor::Session { visitor: visitor.at(path), id: session.id.clone() };
        assert_eq!(moved.ask("tools/list", &json!({})).status, 404, "{path}");
    }
    server.home.audited(|r| r["rule"] == "foreign-session" && r["decision"] == "deny");
}

const BUNDLES: &str = "products:\n\
    - {name: quiet, tools: ['query_logs', 'list_*'], limits: {max_rows: 5, max_bytes: 3000}}\n\
    - {name: whole, tools: ['*'], limits: {max_rows: 5}}\n\
    - {name: named, tools: ['get_service_health', 'list_services'], resources: ['portcullis://service/cart'], prompts: ['explain_*'], services: [cart]}\n";

/// What a listing names.
fn shown(visitor: &Visitor, method: &str, list: &str, name: &str) -> Vec<String> {
    let reply = visitor.ask(method, &json!({})).json();
    let all = reply["result"][list].as_array().unwrap_or_else(|| panic!("{reply}"));
    all.iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
}

fn lookups(visitor: &Visitor) -> [Vec<String>; 3] {
    [
        shown(visitor, "resources/list", "resources", "uri"),
        shown(visitor, "resources/templates/list", "resourceTemplates", "uriTemplate"),
        shown(visitor, "prompts/list", "prompts", "name"),
    ]
}

#[test]
fn a_product_bundles_resources_prompts_and_completions_with_its_tools() {
    let home = Home::new(BUNDLES);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    for service in ["cart", "payment"] {
        assert_eq!(server.send_log(service, 17, &format!("line of {service}")).status, 200);
    }
    let visitor = Visitor::new(&server, &key);
    let [quiet, whole, named] = ["/mcp/quiet", "/mcp/whole", "/mcp/named"].map(|path| visitor.at(path));
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // Nothing named: what its tools show, and no prompt that tells to call others.
    assert_eq!(lookups(&quiet), [list(&["portcullis://guide", "portcullis://sources"]), list(&[]), list(&[])]);
    assert_eq!(lookups(&whole), lookups(&visitor));
    assert_eq!(lookups(&named), [list(&[]), list(&["portcullis://service/{name}"]), list(&["explain_slow_request"])]);

    let read = |uri: &str| json!({ "uri": uri });
    let get = |name: &str| json!({"name": name, "arguments": {"service": "cart"}});
    let family = json!({"type": "ref/resource", "uri": "portcullis://service/{name}"});
    let values = |reference: &Value, argument: &str| json!({"ref": reference, "argument": {"name": argument, "value": ""}});
    let prompt = |name: &str| json!({"type": "ref/prompt", "name": name});
    for (inside, method, params, target) in [
        (&quiet, "resources/read", read("portcullis://service/cart"), "portcullis://service/cart"),
        (&quiet, "resources/read", read("portcullis://schema/sql"), "portcullis://schema/sql"),
        (&quiet, "prompts/get", get("explain_slow_request"), "explain_slow_request"),
        (&quiet, "completion/complete", values(&family, "name"), "portcullis://service/{name}"),
        (&quiet, "completion/complete", values(&prompt("write_postmortem"), "service"), "write_postmortem"),
        (&named, "resources/read", read("portcullis://service/payment"), "portcullis://service/payment"),
        (&named, "resources/read", read("portcullis://guide"), "portcullis://guide"),
        (&named, "prompts/get", get("investigate_incident"), "investigate_incident"),
        (&named, "completion/complete", values(&prompt("investigate_incident"), "service"), "investigate_incident"),
    ] {
        let reply = inside.ask(method, &params).json();
        assert!(reply["error"]["message"].as_str().is_some_and(|said| said.starts_with("unknown ")), "{params}: {reply}");
        let record = server.home.audited(|r| r["method"] == method && r["tool"] == target);
        assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("product")), "{record}");
        // Outside of the product all of it is there.
        let outside = visitor.ask(method, &params).json();
        assert!(outside["result"].is_object(), "{params}: {outside}");
    }
    assert!(named.ask("resources/read", &read("portcullis://service/cart")).json()["result"]["contents"].is_array());
    assert!(named.ask("prompts/get", &get("explain_slow_request")).json()["result"]["messages"].is_array());
    let offered = named.ask("completion/complete", &values(&family, "name")).json();
    assert_eq!(offered["result"]["completion"]["values"], json!(["cart"]), "{offered}");
    let offered = named.ask("completion/complete", &values(&prompt("explain_slow_request"), "service")).json();
    assert_eq!(offered["result"]["completion"]["values"], json!(["cart"]), "{offered}");
}

#[test]
fn a_product_bounds_rows_and_bytes() {
    let home = Home::new(BUNDLES);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    for line in 0..12 {
        assert_eq!(server.send_log("cart", 17, &format!("line {line}")).status, 200);
    }
    let visitor = Visitor::new(&server, &key);
    let (quiet, whole) = (visitor.at("/mcp/quiet"), visitor.at("/mcp/whole"));
    let lines = |reply: &Value| reply.to_string().matches("line ").count();
    let asked = json!({"window": "15m", "limit": 50});
    let all = visitor.call("query_logs", &asked).json();
    let few = whole.call("query_logs", &asked).json();
    assert!(lines(&all) > lines(&few), "{few}");
    assert_eq!(few["result"]["structuredContent"]["shown"], 5, "{few}");
    assert_eq!(few["result"]["structuredContent"]["truncated"], true, "what is left out is said: {few}");
    let rows = |visitor: &Visitor| {
        let reply = visitor.call("sql", &json!({"query": "SELECT * FROM otel_logs", "limit": 100})).json();
        reply["result"]["structuredContent"]["rows"].as_array().unwrap_or_else(|| panic!("{reply}")).len()
    };
    assert_eq!((rows(&visitor), rows(&whole)), (12, 5));
    for line in 0..5 {
        assert_eq!(server.send_log("cart", 17, &format!("long {line} {}", "x".repeat(900))).status, 200);
    }
    let refused = quiet.call("query_logs", &asked).json();
    assert!(refused.to_string().contains("the budget of one answer is 3000"), "{refused}");
    let record = server.home.audited(|r| r["tool"] == "query_logs");
    assert_eq!(record["code"], "too_large", "{record}");
}

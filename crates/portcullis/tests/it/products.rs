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

//! More tools than a listing should show: what is hidden is found and called by the same rules as what is shown.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::approvals::pending;
use crate::server::{Home, Server};
use crate::visitor::{Backend, Visitor};

/// A home with an API of `count` reading operations and one that destroys.
fn home(backend: &Backend, count: usize, more: &str) -> Home {
    let mut paths = Map::new();
    for number in 0..count {
        paths.insert(format!("/parts{number}/{{id}}"), json!({"get": {"operationId": format!("getPart{number}"), "summary": format!("Reads part number {number} of the warehouse"),
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]}}));
    }
    paths.insert(
        "/shelves/{id}".into(),
        json!({"delete": {"operationId": "dropShelf", "summary": "Throws a shelf away",
        "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]}}),
    );
    let home = Home::new("");
    let spec = home.directory.path().join("store.json");
    std::fs::write(&spec, json!({"openapi": "3.1.0", "paths": paths}).to_string()).unwrap();
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    write!(
        text,
        "apis:\n- {{name: store, spec: {{file: '{}'}}, url: '{}', allow_addresses: [loopback], allow: [{{methods: ['*']}}]}}\nwrite: {{enable: ['api:store']}}\n{more}\n",
        spec.display(),
        backend.url
    )
    .unwrap();
    std::fs::write(&home.config, text).unwrap();
    home
}

fn tools(visitor: &Visitor) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), None::<Value>);
    loop {
        let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
        let reply = visitor.ask("tools/list", &params).json();
        all.extend(reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}")).clone());
        match reply["result"].get("nextCursor") {
            Some(next) => cursor = Some(next.clone()),
            None => return all,
        }
    }
}

fn names(visitor: &Visitor) -> Vec<String> {
    tools(visitor).iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

fn found(visitor: &Visitor, query: &str) -> Vec<String> {
    let reply = visitor.call("find_tools", &json!({"query": query, "limit": 20})).json();
    let tools = reply["result"]["structuredContent"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}"));
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn few_tools_are_all_listed_and_many_are_found_and_called_by_the_same_rules() {
    let backend = Backend::start(|path, _| (200, json!({"path": path}).to_string()));
    let few = home(&backend, 3, "");
    let key = few.key(&["--role", "admin"]);
    let server = Server::start_in(few);
    let admin = Visitor::new(&server, &key);
    let listed = names(&admin);
    assert!(listed.contains(&"store_get_part2".into()) && !listed.contains(&"find_tools".into()), "{listed:?}");
    for tool in ["find_tools", "call_tool"] {
        let reply = admin.call(tool, &json!({"query": "x", "name": "sql"})).json();
        assert!(reply.to_string().contains("unknown tool"), "{reply}");
    }
    drop(server);

    let many = home(
        &backend,
        120,
        "products:\n- {name: parts, tools: ['store_get_part1*', find_tools, call_tool]}\n- {name: bare, tools: ['store_*']}\ntools: {auto_limit_tokens: 3000}",
    );
    let (key, reader) = (many.key(&["--role", "admin"]), many.key(&["--role", "reader"]));
    let server = Server::start_in(many);
    let (admin, reader) = (Visitor::new(&server, &key), Visitor::new(&server, &reader));
    let shown = tools(&admin);
    let text = json!({"tools": shown}).to_string();
    println!("{} tools, {} bytes, about {} tokens", shown.len(), text.len(), text.len() / 4);
    assert!(text.len() / 4 <= 3_500, "{}", text.len());
    let listed = names(&admin);
    assert!(
        listed.contains(&"find_tools".into()) && listed.contains(&"call_tool".into()) && listed.contains(&"query_logs".into()),
        "{listed:?}"
    );
    assert!(!listed.iter().any(|n| n.starts_with("store_")), "{listed:?}");
    let annotations =
        |visitor: &Visitor| tools(visitor).iter().find(|t| t["name"] == "call_tool").unwrap()["annotations"].clone();
    assert_eq!(annotations(&admin)["destructiveHint"], true, "it is as dangerous as what it can call");
    assert_eq!(annotations(&reader)["readOnlyHint"], true);

    // Found, read, called; and the record is the inner tool's.
    assert_eq!(found(&admin, "part number 77 of the warehouse")[0], "store_get_part77");
    let detail = admin.call("find_tools", &json!({"detail": "store_get_part77"})).json();
    assert_eq!(detail["result"]["structuredContent"]["tool"]["inputSchema"]["required"], json!(["id"]), "{detail}");
    let called = admin.call("call_tool", &json!({"name": "store_get_part77", "arguments": {"id": "a b"}})).json();
    assert_eq!(called["result"]["structuredContent"]["body"]["path"], "/parts77/a%20b", "{called}");
    let record = server.home.audited(|r| r["tool"] == "store_get_part77");
    assert_eq!((&record["decision"], &record["target"], &record["kind"]), (&json!("allow"), &json!("call_tool"), &json!("call")));
    let direct = admin.call("store_get_part77", &json!({"id": "a b"})).json();
    assert_eq!(direct["result"]["structuredContent"], called["result"]["structuredContent"]);
    let record_of_direct = server.home.audited(|r| r["tool"] == "store_get_part77" && r.get("target").is_none());
    assert_eq!(record_of_direct["parameters"], record["parameters"], "the same arguments");

    // Its schema, its approval, its existence.
    let wrong = admin.call("call_tool", &json!({"name": "store_get_part77", "arguments": {"id": "../x"}})).json();
    assert!(wrong.to_string().contains("separator"), "{wrong}");
    let record = server.home.audited(|r| r["tool"] == "store_get_part77" && r["decision"] == "deny");
    assert_eq!((&record["rule"], &record["target"]), (&json!("argument-schema"), &json!("call_tool")));
    let drop = json!({"name": "store_drop_shelf", "arguments": {"id": "7"}});
    let id = pending(&admin.call("call_tool", &drop).json());
    assert!(!backend.seen().iter().any(|r| r.starts_with("DELETE")));
    server.home.run_ok(&["approvals", "grant", &id]);
    admin.call("call_tool", &drop);
    assert!(backend.seen().iter().any(|r| r.starts_with("DELETE /shelves/7 ")));
    let hidden = reader.call("call_tool", &drop).json();
    assert!(hidden.to_string().contains("unknown tool: store_drop_shelf"), "{hidden}");
    let record = server.home.audited(|r| r["tool"] == "store_drop_shelf" && r["decision"] == "deny" && r["rule"] != "approval");
    assert_eq!(record["target"], "call_tool", "{record}");
    assert!(!found(&reader, "throw a shelf away").contains(&"store_drop_shelf".into()));
    for tool in ["call_tool", "nothing"] {
        let reply = admin.call("call_tool", &json!({"name": tool, "arguments": {}})).json();
        assert!(reply["error"].is_object() || reply["result"]["isError"] == true, "{reply}");
    }

    // A product has what it names, also through the two tools.
    let parts = admin.at("/mcp/parts");
    assert_eq!(names(&parts), ["call_tool", "find_tools"]);
    assert!(found(&admin.at("/mcp/parts"), "part of the warehouse").iter().all(|n| n.starts_with("store_get_part1")));
    for outside in ["store_get_part2", "sql"] {
        let reply = parts.call("call_tool", &json!({"name": outside, "arguments": {"id": "1"}})).json();
        assert!(reply.to_string().contains("unknown tool"), "{outside}: {reply}");
    }
    assert_eq!(names(&admin.at("/mcp/bare")).len(), 121, "a product without the two tools hides nothing");
}

#[test]
fn the_operator_chooses_what_is_shown() {
    let backend = Backend::start(|_, _| (200, "{}".into()));
    let chosen = home(&backend, 5, "tools: {expose: ['query_*', store_get_part1]}");
    let key = chosen.key(&["--role", "reader"]);
    let server = Server::start_in(chosen);
    let reader = Visitor::new(&server, &key);
    assert_eq!(names(&reader), ["call_tool", "find_tools", "query_logs", "query_metrics", "query_traces", "store_get_part1"]);
    assert!(found(&reader, "which alerts are firing").contains(&"list_alerts".into()));
    let listed = reader.call("call_tool", &json!({"name": "list_sources"})).json();
    assert_ne!(listed["result"]["isError"], true, "{listed}");
    drop(server);
    let all = home(&backend, 5, "tools: {expose: all}");
    let key = all.key(&["--role", "reader"]);
    let server = Server::start_in(all);
    let listed = names(&Visitor::new(&server, &key));
    assert!(listed.contains(&"store_get_part4".into()) && !listed.contains(&"find_tools".into()), "{listed:?}");
    let odd = Home::new("tools: {expose: some}\n").run(&["config", "check"]);
    assert!(String::from_utf8_lossy(&odd.stderr).contains("all, auto, or a list"), "{}", String::from_utf8_lossy(&odd.stderr));
}

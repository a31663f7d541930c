//! Secrets of every class in what comes from further outside than a source: described APIs, other MCP servers, plugins, a
//! policy service and a secret store; and in what persons are shown before they say yes. None comes out: not to callers, not
//! to administrators, not on the command line of approvals, not in a record or a log.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::admin::get;
use crate::canary::{Garden, Heard};
use crate::parcels::Author;
use crate::plants::Plant;
use crate::plugins::{MANIFEST, component_of};
use crate::server::{Home, Server, intact};
use crate::upstreams::{accept_all, sees, stands, tool};
use crate::visitor::{Backend, Visitor};

fn texts(plants: &[Plant]) -> Vec<String> {
    plants.iter().map(|plant| plant.text.clone()).collect()
}

fn description() -> Value {
    let id = json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
    let body = json!({"required": true, "content": {"application/json": {"schema":
        {"type": "object", "properties": {"note": {"type": "string"}, "count": {"type": "integer"}}}}}});
    json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": {
        "/orders": {"get": {"operationId": "listOrders", "summary": "Lists orders"}},
        "/orders/{id}": {
            "parameters": id,
            "get": {"operationId": "getOrder", "summary": "Reads an order"},
            "put": {"operationId": "setOrder", "summary": "Replaces an order", "requestBody": body},
            "delete": {"operationId": "dropOrder", "summary": "Deletes an order"}}}})
}

/// A described API with secrets in what it answers, in every form, and in its errors.
fn api(garden: &mut Garden) -> Backend {
    let orders: Vec<Value> = garden
        .sow("answer of an API")
        .into_iter()
        .enumerate()
        .map(|(at, plant)| json!({"id": at.to_string(), "note": plant.text, "deep": {"list": [plant.text]}}))
        .collect();
    let states: Vec<Value> = garden
        .sow("present state of what is written")
        .into_iter()
        .map(|plant| json!({"count": 2, "note": plant.text, "deep": {"old": [plant.text]}}))
        .collect();
    let plain = garden.plain("password in an answer of an API");
    let keys: serde_json::Map<String, Value> =
        garden.sow("name of a member in an answer of an API").into_iter().map(|plant| (plant.text, json!(1))).collect();
    let errors = texts(&garden.sow("error of an API"));
    Backend::start(move |path, _| match path.trim_start_matches("/v1/orders").trim_start_matches('/') {
        "" => (200, json!(orders).to_string()),
        "named" => (200, json!({"password": plain, "names": keys}).to_string()),
        "gone" => (404, json!({"detail": errors.join(" ; "), "trace": errors}).to_string()),
        "broken" => (500, format!("<html>{}</html>", errors.join("\n"))),
        id => match id.parse::<usize>().ok().and_then(|at| states.get(at)) {
            Some(state) => (200, state.to_string()),
            None => (404, "{}".into()),
        },
    })
}

/// An MCP server with secrets in everything it says once it was accepted.
fn upstream(garden: &mut Garden) -> Backend {
    let say = |garden: &mut Garden, what: &str| texts(&garden.sow(&format!("{what} of an upstream")));
    let (text, structured) = (say(garden, "text"), say(garden, "structured content"));
    let (failed, errors) = (say(garden, "failed call"), say(garden, "error"));
    let (resource, prompt, completion) = (say(garden, "resource"), say(garden, "prompt"), say(garden, "completion"));
    let plain = garden.plain("password in structured content of an upstream");
    Backend::start(move |_, body| {
        let Ok(request) = serde_json::from_str::<Value>(body) else { return (405, String::new()) };
        let content =
            |texts: &[String]| -> Vec<Value> { texts.iter().map(|text| json!({"type": "text", "text": text})).collect() };
        let error = |code: i64, message: String| json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message, "data": {"more": errors}}});
        let mut result = match request["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "completions": {}}})
            }
            "tools/list" => json!({"tools": [tool("look", "Looks.")]}),
            "resources/list" => json!({"resources": [{"uri": "note://one", "name": "one", "mimeType": "text/plain"}]}),
            "resources/templates/list" => json!({"resourceTemplates": []}),
            "prompts/list" => {
                json!({"prompts": [{"name": "greet", "description": "Greets.", "arguments": [{"name": "who", "required": false}]}]})
            }
            "resources/read" => {
                json!({"contents": resource.iter().map(|text| json!({"uri": "note://one", "mimeType": "text/plain", "text": text})).collect::<Vec<_>>()})
            }
            "prompts/get" => {
                json!({"messages": prompt.iter().map(|text| json!({"role": "user", "content": {"type": "text", "text": text}})).collect::<Vec<_>>()})
            }
            "completion/complete" => json!({"completion": {"values": completion}}),
            "tools/call" => match request["params"]["arguments"]["q"].as_str().unwrap_or_default() {
                "fail" => json!({"content": content(&failed), "isError": true}),
                "error" => return (200, error(-32603, errors.join(" ; ")).to_string()),
                "crash" => return (500, errors.join("\n")),
                _ => json!({"content": content(&text), "structuredContent": {"items": structured, "password": plain}}),
            },
            _ => return (404, error(-32601, "unknown method".into()).to_string()),
        };
        result["resultType"] = json!("complete");
        (200, json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
    })
}

/// A policy service that allows everything but what is called `policy`: about that it says things it should not.
fn policy_service(garden: &mut Garden) -> Backend {
    let said = texts(&garden.sow("words of a policy service"));
    Backend::start(move |_, body| {
        let question: Value = serde_json::from_str(body).unwrap_or_default();
        match question["input"]["arguments"]["id"].as_str().unwrap_or_default() {
            "policy-no" => (200, json!({"result": false, "reason": said}).to_string()),
            "policy-odd" => (200, json!({"result": said}).to_string()),
            "policy-broken" => (500, json!({"code": "internal_error", "message": said.join(" ; "), "errors": said}).to_string()),
            _ => (200, json!({"result": true}).to_string()),
        }
    })
}

/// A secret store that refuses everything, with too many words.
fn secret_store(garden: &mut Garden) -> Backend {
    let said = texts(&garden.sow("words of a secret store"));
    Backend::start(move |path, _| {
        let status = if path.contains("denied") { 403 } else { 400 };
        (status, json!({"errors": said, "warnings": said}).to_string())
    })
}

/// A backend a plugin may fetch from.
fn fetched(garden: &mut Garden) -> Backend {
    let said = texts(&garden.sow("what a plugin fetched"));
    Backend::start(move |_, _| (200, json!({"said": said}).to_string()))
}

struct Outside {
    server: Server,
    admin: String,
    steward: String,
    plugin: bool,
    backends: [Backend; 5],
}

fn outside(garden: &mut Garden) -> Outside {
    let backends = [api(garden), upstream(garden), policy_service(garden), secret_store(garden), fetched(garden)];
    let [api, upstream, policy, store, fetched] = &backends;
    let home = Home::new("");
    let file = |name: &str, text: &str| {
        let path = home.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (spec, token) =
        (file("shop.json", &description().to_string()), file("vault-token", &garden.plain("token for a secret store")));
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    let source = |name: &str, secret: &str| {
        format!(
            "- {{name: {name}, kind: prometheus, url: 'http://127.0.0.1:9', allow_addresses: [loopback], auth: {{bearer: '{secret}'}}}}\n"
        )
    };
    write!(
        text,
        "tools: {{expose: all}}\nlog: {{level: debug}}\nwrite: {{enable: ['api:shop']}}\n\
         limits: {{tool: {{per_second: 1000, burst: 1000}}, write: {{per_second: 1000, burst: 1000}}, answer: 4MiB}}\n\
         apis:\n- {{name: shop, spec: {{file: '{spec}'}}, url: '{}/v1', allow_addresses: [loopback], allow: [{{methods: ['*']}}]}}\n\
         upstreams:\n- {{name: up, http: {{url: '{}/mcp', allow_addresses: [loopback]}}, refresh: 1s}}\n\
         external_policy: {{url: '{}', path: portcullis/allow, allow_addresses: [loopback], cache: {{entries: 0}}}}\n\
         secret_stores:\n- {{name: main, url: '{}', allow_addresses: [loopback], auth: {{token: 'file:{token}'}}}}\n\
         sources:\n{}{}\
         plugins: {{grants: [{{name: probe, http: ['{}'], allow_addresses: [loopback]}}]}}\n",
        api.url,
        upstream.url,
        policy.url,
        store.url,
        source("denied", "vault:main/denied#token"),
        source("odd", "vault:main/odd#token"),
        fetched.url
    )
    .unwrap();
    std::fs::write(&home.config, text).unwrap();
    let plugin = component_of("probe");
    if let Some(component) = &plugin {
        let author = Author::new(&home, "stranger");
        let port = fetched.url.rsplit(':').next().unwrap();
        let package = author.pack(&home, component, &MANIFEST.replace("18080", port));
        author.trusted(&home, &["--plugin", "probe"]);
        home.run_ok(&["plugin", "install", &package, "--enable"]);
    }
    let (admin, steward) = (home.key(&["--role", "admin"]), home.key(&["--scope", "admin", "--role", "admin"]));
    let server = Server::start_in(home);
    stands(&server.home, "look", "new");
    accept_all(&server.home, "up");
    sees(&Visitor::new(&server, &admin), "look", true);
    Outside { server, admin, steward, plugin: plugin.is_some(), backends }
}

impl Outside {
    /// Calls, lookups and dry runs by somebody who may do everything.
    fn ask_everything(&self, orders: usize, heard: &mut Heard) {
        let admin = Visitor::new(&self.server, &self.admin);
        let mut call = |tool: &str, arguments: Value| {
            let reply = admin.call(tool, &arguments);
            heard.add(format!("{tool} {arguments}"), format!("{}\n{}", reply.head, reply.body));
        };
        call("shop_list_orders", json!({}));
        for id in ["named", "gone", "broken", "policy-no", "policy-odd", "policy-broken"] {
            call("shop_get_order", json!({"id": id}));
        }
        for id in 0..orders {
            let id = id.to_string();
            call("shop_get_order", json!({"id": id}));
            call("shop_set_order", json!({"id": id, "note": "another", "count": 3, "dry_run": true}));
            call("shop_drop_order", json!({"id": id, "dry_run": true}));
            // Left waiting for a person, with what it would change.
            call("shop_drop_order", json!({"id": id}));
        }
        for q in ["all", "fail"] {
            call("look", json!({"q": q}));
        }
        for source in ["denied", "odd"] {
            call("query_metrics", json!({"query": "up", "source": source}));
        }
        call("list_sources", json!({}));
        if self.plugin {
            let url = format!("{}/", self.backends[4].url);
            call("probe_do", json!({"what": "http", "url": url}));
        }
        let mut ask = |method: &str, params: Value, able: Value| {
            let reply = admin.ask_able(method, &params, &able);
            heard.add(format!("{method} {params}"), format!("{}\n{}", reply.head, reply.body));
        };
        for method in ["tools/list", "resources/list", "prompts/list"] {
            ask(method, json!({}), json!({}));
        }
        ask("resources/read", json!({"uri": "note://one"}), json!({}));
        ask("prompts/get", json!({"name": "greet", "arguments": {"who": "Ada"}}), json!({}));
        let argument = json!({"name": "who", "value": ""});
        ask("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": argument}), json!({}));
        for id in 0..orders {
            // What the user of the client is shown.
            let arguments = json!({"name": "shop_drop_order", "arguments": {"id": id.to_string()}});
            ask("tools/call", arguments, json!({"elicitation": {}}));
        }
        // Last, for an upstream that fails is left alone for a moment.
        for q in ["error", "crash"] {
            ask("tools/call", json!({"name": "look", "arguments": {"q": q}}), json!({}));
        }
    }

    /// What administrators and operators are shown.
    fn look_over(&self, heard: &mut Heard) {
        for path in ["status", "sources", "approvals", "keys", "audit?limit=1000"].map(|path| format!("/api/v1/{path}")) {
            let reply = get(&self.server, &self.steward, &path);
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            heard.add(path, reply.body);
        }
        for line in [
            &["approvals", "list"][..],
            &["approvals", "list", "--json"],
            &["doctor"],
            &["doctor", "--json"],
            &["secret", "list"],
            &["secret", "list", "--json"],
            &["upstream", "list", "--json"],
            &["plugin", "list", "--json"],
            &["config", "show"],
            &["audit", "query", "--json", "--limit", "100000"],
            &["audit", "export", "--format", "ocsf"],
        ] {
            let output = self.server.home.run(line);
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            heard.add(format!("portcullis {}", line.join(" ")), said);
        }
        heard.add("the server's log", self.server.log());
    }
}

#[test]
fn no_secret_of_an_outsider_comes_out_anywhere() {
    let mut garden = Garden::new();
    let outside = outside(&mut garden);
    let orders = garden.planted.iter().filter(|(place, _)| place == "present state of what is written").count();
    let mut heard = Heard::default();
    outside.ask_everything(orders, &mut heard);
    outside.look_over(&mut heard);
    let of = |begin: &str| -> String {
        heard.0.iter().filter(|(who, _)| who.starts_with(begin)).map(|(_, said)| said.as_str()).collect::<Vec<_>>().join("\n")
    };
    // Everybody was heard: their words came through, without the secrets.
    for (who, word) in [
        ("shop_list_orders", "[redacted:github-token]"),
        ("shop_set_order", "dry run: nothing was sent"),
        ("shop_set_order", "[redacted:helm-release]"),
        ("shop_drop_order", "pending approval"),
        ("look", "[redacted:github-token]"),
        ("look {\"q\":\"fail\"}", "[redacted:"),
        ("resources/read", "[redacted:github-token]"),
        ("prompts/get", "[redacted:github-token]"),
        ("completion/complete", "\"values\""),
        ("tools/call", "[redacted:"),
        ("portcullis approvals list --json", "[redacted:"),
        ("/api/v1/approvals", "[redacted:"),
        ("query_metrics", "credential cannot be had right now"),
    ] {
        assert!(of(who).contains(word), "{who} says no '{word}': {}", of(who).chars().take(2_000).collect::<String>());
    }
    if outside.plugin {
        assert!(of("probe_do").contains("[redacted:github-token]"), "{}", of("probe_do"));
    }
    for id in ["policy-no", "policy-odd", "policy-broken"] {
        let asked = format!("shop_get_order {{\"id\":\"{id}\"}}");
        assert!(of(&asked).contains("\"isError\":true") || of(&asked).contains("\"error\""), "{}", of(&asked));
    }
    outside.server.home.audited(|r| r["tool"] == "shop_get_order" && r["decision"] == "deny");
    let leaks = heard.leaks(&garden);
    println!("{} planted, {} outputs", garden.planted.len(), heard.0.len());
    let shown: Vec<&String> = leaks.iter().take(200).collect();
    assert!(leaks.is_empty(), "{} leaks: {shown:#?}", leaks.len());
    assert!(intact(&outside.server.home));
}

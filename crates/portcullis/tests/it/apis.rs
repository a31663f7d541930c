//! Described APIs behind the real doors: what is not enabled does not exist, what leaves its place is refused, and all of it
//! is in the audit log.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::approvals::pending;
use crate::server::{Home, Server, free_port, intact};
use crate::visitor::{Backend, Visitor};

const TOKEN: &str = "api-credential-5f0c7a";

fn description() -> Value {
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
    json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": {
        "/orders": {
            "get": {"operationId": "listOrders", "summary": "Lists orders", "parameters": [{"name": "state", "in": "query", "schema": {"type": "string", "enum": ["open", "closed"]}}]},
            "post": {"operationId": "createOrder", "summary": "Places an order", "requestBody": {"required": true, "content": {"application/json": {"schema":
                {"type": "object", "required": ["item"], "properties": {"item": {"type": "string"}}}}}}}},
        "/orders/{id}": {
            "get": {"operationId": "getOrder", "summary": "Reads an order", "parameters": [id]},
            "delete": {"operationId": "dropOrder", "summary": "Deletes an order", "parameters": [id]}}}})
}

fn backend() -> Backend {
    Backend::start(|path, body| {
        match path.split('?').next().unwrap_or_default() {
        "/v1/orders" if body.is_empty() => (200, json!([{"id": "1", "state": "open", "password": "hunter2hunter2"}, {"id": "2", "state": "open", "password": "hunter3hunter3"}]).to_string()),
        "/v1/orders" => (201, body.to_owned()),
        "/v1/orders/1" => (200, json!({"id": "1"}).to_string()),
        _ => (404, json!({"detail": "nothing here", "token": "ghp_0123456789abcdefghijklmnopqrstuvwxyz"}).to_string()),
    }
    })
}

/// A home with the shop, and more settings of the API and of the file.
fn home(backend: &Backend, api: &str, more: &str) -> Home {
    let home = Home::new("");
    let spec = home.directory.path().join("shop.json");
    std::fs::write(&spec, description().to_string()).unwrap();
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    write!(
        text,
        "apis:\n- {{name: shop, spec: {{file: '{}'}}, url: '{}/v1', auth: {{bearer: {TOKEN}}}, {api}}}\n{more}\n",
        spec.display(),
        backend.url
    )
    .unwrap();
    std::fs::write(&home.config, text).unwrap();
    home
}

const LOOPBACK: &str = "allow_addresses: [loopback]";
const WRITES: &str = "allow_addresses: [loopback], allow: [{methods: ['*']}]";

fn names(visitor: &Visitor) -> Vec<String> {
    let reply = visitor.ask("tools/list", &json!({})).json();
    let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}"));
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).filter(|n| n.starts_with("shop_")).collect()
}

#[test]
fn reading_is_offered_and_answers_are_redacted_and_recorded_without_the_credential() {
    let backend = backend();
    let home = home(&backend, LOOPBACK, "");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let reader = Visitor::new(&server, &key);
    assert_eq!(names(&reader), ["shop_get_order", "shop_list_orders"]);
    let reply = reader.call("shop_list_orders", &json!({"state": "open"})).json();
    assert_ne!(reply["result"]["isError"], true, "{reply}");
    assert_eq!(reply["result"]["structuredContent"]["total"], 2, "{reply}");
    assert!(!reply.to_string().contains("hunter"), "{reply}");
    let record = server.home.audited(|r| r["tool"] == "shop_list_orders");
    assert_eq!((&record["decision"], &record["sources"]), (&json!("allow"), &json!(["shop"])));
    let missing = reader.call("shop_get_order", &json!({"id": "9"})).json();
    assert_eq!(missing["result"]["isError"], true, "{missing}");
    assert!(missing.to_string().contains("404 Not Found") && !missing.to_string().contains("ghp_"), "{missing}");
    let request = backend.seen().remove(0);
    assert!(request.starts_with("GET /v1/orders?state=open HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains(&format!("authorization: bearer {TOKEN}")), "{request}");
    let loaded = server.home.audited(|r| r["method"] == "api.loaded");
    assert_eq!((&loaded["tool"], &loaded["decision"]), (&json!("shop"), &json!("allow")));
    let doctor = server.home.run(&["doctor"]);
    let said =
        [server.log(), server.home.run_ok(&["config", "show"]), String::from_utf8_lossy(&doctor.stdout).into_owned()].concat();
    assert!(said.contains("api shop") && !said.contains(TOKEN), "{said}");
    assert!(!server.home.audit().iter().any(|r| r.to_string().contains(TOKEN)));
    assert!(intact(&server.home));
}

#[test]
fn an_argument_that_leaves_its_segment_is_refused_recorded_and_never_sent() {
    let backend = backend();
    let home = home(&backend, LOOPBACK, "");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let reader = Visitor::new(&server, &key);
    let tricks = [
        "..",
        "../admin",
        "1/../../admin",
        "..%2fadmin",
        "%2e%2e",
        "1\\..\\admin",
        "..;",
        "1%00",
        "1\u{0}",
        "\u{ff0e}\u{ff0e}",
        "\u{2025}",
        "1\u{2215}2",
        "",
    ];
    for trick in tricks {
        let reply = reader.call("shop_get_order", &json!({"id": trick})).json();
        let refused = reply["error"]["code"] == -32602 || reply["result"]["isError"] == true;
        assert!(refused, "{trick:?}: {reply}");
        let record = server.home.audited(|r| r["tool"] == "shop_get_order");
        assert_eq!(
            (&record["decision"], &record["rule"], &record["code"]),
            (&json!("deny"), &json!("argument-schema"), &json!("invalid_argument")),
            "{trick:?}"
        );
    }
    let records = server.home.audit().into_iter().filter(|r| r["tool"] == "shop_get_order").count();
    assert_eq!(records, tricks.len());
    let unknown = reader.call("shop_get_order", &json!({"id": "1", "host": "evil.example"})).json();
    assert!(unknown.to_string().contains("host"), "{unknown}");
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
}

#[test]
fn what_writes_exists_where_it_is_enabled_and_what_destroys_needs_a_yes() {
    let backend = backend();
    let closed = home(&backend, WRITES, "");
    let key = closed.key(&["--role", "admin"]);
    let server = Server::start_in(closed);
    let admin = Visitor::new(&server, &key);
    assert_eq!(names(&admin), ["shop_get_order", "shop_list_orders"]);
    for (tool, arguments) in [("shop_create_order", json!({"item": "tea"})), ("shop_drop_order", json!({"id": "1"}))] {
        let reply = admin.call(tool, &arguments).json();
        assert!(reply.to_string().contains("unknown tool"), "{reply}");
        let record = server.home.audited(|r| r["tool"] == tool);
        assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("write-gate")));
    }
    assert!(backend.seen().is_empty());
    drop(server);

    let open = home(&backend, WRITES, "write: {enable: ['api:shop']}");
    let (key, reader) = (open.key(&["--role", "admin"]), open.key(&["--role", "reader"]));
    let server = Server::start_in(open);
    let admin = Visitor::new(&server, &key);
    assert_eq!(names(&Visitor::new(&server, &reader)), ["shop_get_order", "shop_list_orders"]);
    assert_eq!(names(&admin), ["shop_create_order", "shop_drop_order", "shop_get_order", "shop_list_orders"]);
    let made = admin.call("shop_create_order", &json!({"item": "tea"})).json();
    assert_eq!(made["result"]["structuredContent"]["status"], 201, "{made}");
    let id = pending(&admin.call("shop_drop_order", &json!({"id": "1"})).json());
    assert_eq!(server.home.audited(|r| r["tool"] == "shop_drop_order" && r["rule"] == "approval")["decision"], "deny");
    assert!(!backend.seen().iter().any(|r| r.starts_with("DELETE")));
    server.home.run_ok(&["approvals", "grant", &id]);
    admin.call("shop_drop_order", &json!({"id": "1"}));
    assert!(backend.seen().iter().any(|r| r.starts_with("DELETE /v1/orders/1 ")), "{:?}", backend.seen());
    let record = server.home.audited(|r| r["tool"] == "shop_drop_order" && r["decision"] == "allow" && r["kind"] != "approval");
    assert!(record["note"].as_str().unwrap_or_default().contains(&id) || record["kind"] == "failed", "{record}");
}

#[test]
fn rules_see_the_arguments_of_described_tools() {
    let backend = backend();
    let home = home(&backend, LOOPBACK, "");
    let rules = r#"
@id("not-order-one")
forbid (principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"shop_get_order") when { context.arguments.id == "1" };
@id("only-open")
forbid (principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"shop_list_orders") when { context.arguments has state && context.arguments.state == "closed" };
"#;
    let path = home.directory.path().join("own.cedar");
    std::fs::write(&path, rules).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let reader = Visitor::new(&server, &key);
    for (tool, arguments, rule) in
        [("shop_get_order", json!({"id": "1"}), "not-order-one"), ("shop_list_orders", json!({"state": "closed"}), "only-open")]
    {
        let reply = reader.call(tool, &arguments).json();
        assert!(reply.to_string().contains(rule), "{reply}");
        assert_eq!(server.home.audited(|r| r["tool"] == tool)["rule"], rule);
    }
    assert!(backend.seen().is_empty());
    assert_ne!(reader.call("shop_list_orders", &json!({"state": "open"})).json()["result"]["isError"], true);
}

#[test]
fn a_private_address_and_a_description_that_is_none_stop_the_start() {
    let backend = backend();
    let closed = home(&backend, "max_tools: 5", "").run(&["config", "check"]);
    let said = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert!(
        !closed.status.success() && said.contains("loopback") && said.contains("allow_addresses") && !said.contains(TOKEN),
        "{said}"
    );
    let old = home(&backend, LOOPBACK, "");
    std::fs::write(old.directory.path().join("shop.json"), r#"{"swagger": "2.0"}"#).unwrap();
    let checked = old.run(&["config", "check"]);
    assert!(!checked.status.success() && String::from_utf8_lossy(&checked.stderr).contains("Swagger 2.0"));
}

/// A home with a description in a file of this name, and more settings of the API.
fn home_of(backend: &Backend, (file, description): (&str, &str), api: &str, more: &str) -> Home {
    let home = Home::new("tools: {expose: all}\n");
    let spec = home.directory.path().join(file);
    std::fs::write(&spec, description).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    let api =
        format!("apis:\n- {{name: shop, spec: {{file: '{}'}}, url: '{}/v1', {api}}}\n{more}\n", spec.display(), backend.url);
    std::fs::write(&home.config, text + &api).unwrap();
    home
}

/// A description in YAML (3.1), with a schema that contains itself, in two circles, and one that refers to elsewhere.
const YAML: &str = r##"
openapi: 3.1.0
info: {title: Shop, version: "1"}
paths:
  /trees/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string}}
    get:
      operationId: getTree
      tags: [trees]
      summary: &said Reads a tree
    put:
      operationId: putTree
      tags: [trees]
      summary: Writes a tree
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "#/components/schemas/Tree"}}}
  /leaves:
    get: {operationId: listLeaves, tags: [leaves], summary: *said, parameters: [{name: under, in: query, schema: {type: integer}}]}
  /away:
    get: {operationId: getAway, tags: [trees], summary: Elsewhere, parameters: [{$ref: "https://evil.example/x.yaml#/p"}]}
components:
  schemas:
    Tree:
      type: object
      required: [name]
      additionalProperties: false
      properties:
        name: {type: string}
        children: {type: array, items: {$ref: "#/components/schemas/Tree"}}
        owner: {$ref: "#/components/schemas/Owner"}
    Owner: {type: object, properties: {of: {$ref: "#/components/schemas/Tree"}}}
"##;

#[test]
fn a_description_in_yaml_whose_schemas_contain_themselves_is_offered_and_checked() {
    let backend =
        Backend::start(|_, body| (200, if body.is_empty() { json!({"name": "oak"}).to_string() } else { body.to_owned() }));
    let home = home_of(&backend, ("shop.yaml", YAML), WRITES, "write: {enable: ['api:shop']}");
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let admin = Visitor::new(&server, &key);
    assert_eq!(names(&admin), ["shop_get_tree", "shop_list_leaves", "shop_put_tree"]);
    assert_eq!(admin.call("shop_get_tree", &json!({"id": "1"})).json()["result"]["structuredContent"]["body"]["name"], "oak");
    let deep = (0..10).fold(json!({"name": "leaf"}), |child, _| json!({"name": "branch", "children": [child]}));
    let arguments = json!({"id": "1", "body": deep});
    let put = |arguments: &Value| {
        let reply = admin.call("shop_put_tree", arguments).json();
        if !reply.to_string().contains("pending approval") {
            return reply;
        }
        server.home.run_ok(&["approvals", "grant", &pending(&reply)]);
        admin.call("shop_put_tree", arguments).json()
    };
    let written = put(&arguments);
    assert_eq!(written["result"]["structuredContent"]["status"], 200, "{written}");
    let sent = backend.seen().into_iter().find(|request| request.starts_with("PUT /v1/trees/1 ")).unwrap();
    assert!(sent.contains(&deep.to_string()), "{sent}");
    // What is wrong deep inside is found there, refused, recorded, and not sent.
    let count = backend.seen().len();
    let wrong = json!({"id": "1", "body": {"name": "a", "children": [{"name": "b", "owner": {"of": {"name": 7}}}]}});
    let refused = put(&wrong);
    assert!(refused.to_string().contains("owner"), "{refused}");
    let record = server.home.audited(|r| r["tool"] == "shop_put_tree");
    assert_eq!((&record["decision"], &record["rule"]), (&json!("deny"), &json!("argument-schema")), "{record}");
    assert_eq!(backend.seen().len(), count);
    // What refers to elsewhere is left out, and nothing was fetched.
    let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
    assert!(report.contains("evil.example") && report.contains("nothing outside of the description is read"), "{report}");
    assert!(admin.call("shop_get_away", &json!({})).body.contains("unknown tool"));
    server.home.audited(|r| r["tool"] == "shop_get_away" && r["kind"] == "refused" && r["decision"] == "deny");
}

#[test]
fn operations_are_chosen_by_tag_method_path_and_name_and_the_rest_does_not_exist() {
    let backend = Backend::start(|_, _| (200, "{}".to_owned()));
    for (api, wanted, refused) in [
        ("allow: [{tags: [leaves]}]", &["shop_list_leaves"][..], "shop_get_tree"),
        ("allow: [{paths: ['/trees/*']}]", &["shop_get_tree"], "shop_list_leaves"),
        ("allow: [{paths: ['/trees/*'], methods: [PUT]}]", &["shop_put_tree"], "shop_get_tree"),
        ("allow: [{operations: [listLeaves, 'PUT /trees/{id}']}]", &["shop_list_leaves", "shop_put_tree"], "shop_get_tree"),
        ("allow: [{methods: ['*']}], deny: [{tags: [trees]}]", &["shop_list_leaves"], "shop_put_tree"),
    ] {
        let settings = format!("allow_addresses: [loopback], {api}");
        let home = home_of(&backend, ("shop.yaml", YAML), &settings, "write: {enable: ['api:shop']}");
        let key = home.key(&["--role", "admin"]);
        let server = Server::start_in(home);
        let admin = Visitor::new(&server, &key);
        assert_eq!(names(&admin), wanted, "{api}");
        let reply = admin.call(refused, &json!({"id": "1"}));
        assert!(reply.body.contains("unknown tool"), "{api}: {}", reply.body);
        let record = server.home.audited(|r| r["tool"] == refused);
        assert_eq!((&record["kind"], &record["decision"]), (&json!("refused"), &json!("deny")), "{api}");
    }
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
}

#[test]
fn a_huge_description_is_read_within_its_limits_and_what_is_chosen_of_it_works() {
    let mut paths = serde_json::Map::new();
    for number in 0..4_000 {
        let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
        let words = "Reads one of very many things that this backend keeps. ".repeat(20);
        let read = json!({"operationId": format!("getThing{number}"), "tags": [format!("t{}", number % 100)], "summary": "Reads a thing",
            "description": words, "parameters": [id]});
        paths.insert(format!("/things{number}/{{id}}"), json!({ "get": read }));
    }
    let huge = json!({"openapi": "3.0.3", "info": {"title": "Shop", "version": "1"}, "paths": paths}).to_string();
    assert!(huge.len() > 4 << 20, "{}", huge.len());
    let backend = Backend::start(|path, _| (200, json!({ "path": path }).to_string()));
    // As much as nobody could choose from is not offered by halves.
    let all = home_of(&backend, ("huge.json", &huge), LOOPBACK, "");
    let key = all.key(&["--role", "reader"]);
    let began = Instant::now();
    let server = Server::start_in(all);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(names(&Visitor::new(&server, &key)), [""; 0]);
    let report = String::from_utf8_lossy(&server.home.run(&["doctor"]).stdout).into_owned();
    assert!(report.contains("4000 operations are selected and max_tools is 200: nothing is offered"), "{report}");
    let resident = server.resident();
    assert!(resident < 512 << 20, "{resident} bytes");
    drop(server);
    let some = home_of(&backend, ("huge.json", &huge), "allow_addresses: [loopback], allow: [{tags: [t7]}]", "");
    let key = some.key(&["--role", "reader"]);
    let server = Server::start_in(some);
    let reader = Visitor::new(&server, &key);
    let offered = names(&reader);
    assert_eq!(offered.len(), 40, "{offered:?}");
    let answer = reader.call("shop_get_thing107", &json!({"id": "9"})).json();
    assert_eq!(answer["result"]["structuredContent"]["body"]["path"], "/v1/things107/9", "{answer}");
    server.home.audited(|r| r["tool"] == "shop_get_thing107" && r["kind"] == "call" && r["decision"] == "allow");
    assert!(reader.call("shop_get_thing8", &json!({"id": "9"})).body.contains("unknown tool"));
    server.home.audited(|r| r["tool"] == "shop_get_thing8" && r["kind"] == "refused" && r["decision"] == "deny");
    let small =
        home_of(&backend, ("huge.json", &huge), "allow_addresses: [loopback], max_spec: 1MiB", "").run(&["config", "check"]);
    let said = String::from_utf8_lossy(&small.stderr).into_owned();
    assert!(!small.status.success() && said.contains("at most 1048576 are read (max_spec)"), "{said}");
}

/// The FastAPI server of `tests/clients/python`, where its requirements are installed.
struct Pets {
    child: Child,
    url: String,
}

impl Pets {
    fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = root.join(".venv/bin/python");
        let has = Command::new(&python).args(["-c", "import fastapi, uvicorn"]).stderr(Stdio::null()).status();
        if !has.is_ok_and(|status| status.success()) {
            crate::server::skipped(".ci/install has not brought FastAPI");
            return None;
        }
        let address = free_port();
        let script = root.join("tests/clients/python/pet_api.py");
        let child = Command::new(python).arg(script).arg(address.port().to_string()).stdin(Stdio::null()).spawn().unwrap();
        let pets = Self { child, url: format!("http://{address}") };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < Duration::from_mins(1), "the API does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(pets)
    }

    /// The description, as the server gives it.
    fn description(&self) -> String {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /openapi.json HTTP/1.0\r\nHost: pets\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

impl Drop for Pets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_api_of_others_is_fetched_by_its_digest_and_takes_every_request() {
    let Some(pets) = Pets::start() else { return };
    let digest = Sha256::digest(pets.description().as_bytes()).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let settings = format!(
        "apis:\n- name: pets\n  spec: {{url: '{0}/openapi.json', sha256: '{digest}'}}\n  url: '{0}'\n  allow_addresses: [loopback]\n  allow: [{{tags: [pets], methods: ['*']}}]\nwrite: {{enable: ['api:pets']}}\ntools: {{expose: all}}\n",
        pets.url
    );
    let home = Home::new(&settings);
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let admin = Visitor::new(&server, &key);
    let began = Instant::now();
    while !admin.ask("tools/list", &json!({})).body.contains("pets_list_pets") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let ask = |tool: &str, arguments: Value| admin.call(tool, &arguments).json()["result"].clone();
    let listed = admin.ask("tools/list", &json!({})).json();
    let tools: Vec<String> = listed["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .filter(|n| n.starts_with("pets_"))
        .collect();
    assert_eq!(tools.len(), 4, "{tools:?}");
    let tool = |part: &str| tools.iter().find(|name| name.contains(part)).unwrap_or_else(|| panic!("{part}: {tools:?}")).clone();
    let both = ask(&tool("list_pets"), json!({"kind": ["cat", "dog"], "limit": 10, "x-request-note": "hello"}));
    assert_eq!(both["structuredContent"]["body"]["note"], "hello", "{both}");
    assert_eq!(both["structuredContent"]["total"], 2, "{both}");
    let dogs = ask(&tool("list_pets"), json!({"kind": ["dog"]}));
    assert!(dogs.to_string().contains("Rex") && !dogs.to_string().contains("Tom"), "{dogs}");
    let added = ask(&tool("add_pet"), json!({"body": {"name": "Mia & co", "kind": "cat", "parent": {"name": "Tom"}}}));
    assert_eq!(added["structuredContent"]["status"], 201, "{added}");
    let found = ask(&tool("find_pet"), json!({"name": "Mia & co"}));
    assert_eq!(found["structuredContent"]["body"]["parent"]["name"], "Tom", "{found}");
    let wrong = admin.call(&tool("add_pet"), &json!({"body": {"name": "x", "kind": "cow"}})).json();
    assert!(wrong.to_string().contains("cow"), "{wrong}");
    server.home.audited(|r| r["tool"] == tool("add_pet") && r["rule"] == "argument-schema" && r["decision"] == "deny");
    let loaded = server.home.audited(|r| r["method"] == "api.loaded");
    assert!(loaded["note"].as_str().unwrap().contains(&digest), "{loaded}");
}

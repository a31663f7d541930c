//! What an operator is told about who may call what is what the running gate does: through products, as tenants, within the
//! confinement of credentials, and for tools of other servers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::server::{Home, Server};
use crate::upstreams::{Puppet, accept_all, listed, sees, tool, tools, until, visitor};
use crate::visitor::{Backend, Visitor};

const PRODUCTS: &str = "tools: {expose: all}\n\
    roles: [oncall]\n\
    products:\n\
    - {name: oncall, tools: ['query_logs', 'list_*'], services: [cart], roles: [oncall], limits: {max_look_back: 1h, max_rows: 5}}\n\
    - {name: acme, tools: ['list_sources'], tenants: [acme]}\n";

fn json_of(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_str(&home.run_ok(arguments)).unwrap()
}

fn refused(home: &Home, arguments: &[&str]) -> String {
    let output = home.run(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn id_of(key: &str) -> String {
    format!("key:{}", key.split('_').nth(1).unwrap())
}

/// The tools an explanation says are listed.
fn explained(home: &Home, more: &[&str]) -> BTreeSet<String> {
    let all = json_of(home, &[&["policy", "explain", "--json"], more].concat());
    let listed = all["tools"].as_array().unwrap().iter().filter(|one| one["listed"] == true);
    listed.map(|one| one["tool"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn explanations_say_what_the_gate_does_through_a_product() {
    let home = Home::new(PRODUCTS);
    let member = home.key(&["--role", "reader", "--role", "oncall", "--service", "cart", "--service", "payment"]);
    let stranger = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let home = &server.home;
    let at = |key: &str, path: &str| Visitor::new(&server, key).at(path);
    let seen = |visitor: &Visitor| tools(visitor).into_iter().collect::<BTreeSet<_>>();
    let (member_id, stranger_id) = (id_of(&member), id_of(&stranger));
    let whole = explained(home, &["--principal", &member_id]);
    assert!(whole.contains("sql"), "{whole:?}");
    assert_eq!(whole, seen(&at(&member, "/mcp")));
    let inside = explained(home, &["--principal", &member_id, "--product", "oncall"]);
    assert!(inside.contains("query_logs") && !inside.contains("sql"), "{inside:?}");
    assert_eq!(inside, seen(&at(&member, "/mcp/oncall")));
    assert!(explained(home, &["--principal", &stranger_id, "--product", "oncall"]).is_empty());

    // The rule, and what the record says when it is tried.
    let one = |id: &str, tool: &str, more: &[&str]| {
        json_of(
            home,
            &[&["policy", "explain", "--json", "--principal", id, "--product", "oncall", "--tool", tool], more].concat(),
        )
    };
    let left_out = one(&member_id, "sql", &["--arg", "query=SELECT 1"]);
    assert_eq!((&left_out["allowed"], &left_out["rule"]), (&json!(false), &json!("product")), "{left_out}");
    assert_eq!(left_out["rules_alone"], json!({"allowed": true, "rule": "reader-may-look"}));
    assert!(left_out["why"].as_str().unwrap().contains("'oncall' leaves it out"), "{left_out}");
    at(&member, "/mcp/oncall").call("sql", &json!({"query": "SELECT 1"}));
    assert_eq!(home.audited(|r| r["tool"] == "sql")["rule"], left_out["rule"]);
    let foreign = one(&stranger_id, "query_logs", &[]);
    assert_eq!(foreign["rule"], "unknown-product", "{foreign}");
    assert_eq!(at(&stranger, "/mcp/oncall").ask("tools/list", &json!({})).status, 404);
    home.audited(|r| r["rule"] == "unknown-product" && r["principal"] == stranger_id.as_str());

    // What it is confined to: by the key and by the product.
    let confined = one(&member_id, "query_logs", &["--arg", "window=7d"]);
    let within = &confined["confined_to"][0];
    assert_eq!(within["services"], json!({"only": ["cart"]}), "{confined}");
    assert_eq!((&within["look_back"]["secs"], &within["rows"]), (&json!(3_600), &json!(5)), "{confined}");
    assert_eq!((&within["tenant"], &within["product"], &within["sources"]), (&json!("default"), &json!("oncall"), &json!("all")));
    let outside = json_of(home, &["policy", "explain", "--json", "--principal", &member_id, "--tool", "query_logs", "--no-args"]);
    assert_eq!(outside["confined_to"][0]["services"], json!({"only": ["cart", "payment"]}), "{outside}");
    let words = home.run_ok(&["policy", "explain", "--principal", &member_id, "--product", "oncall", "--tool", "query_logs"]);
    for part in ["listed", "tenant default", "services cart", "the last 1h", "5 rows per source", "bytes per answer"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let said = refused(home, &["policy", "explain", "--role", "reader", "--product", "onkall"]);
    assert!(said.contains("no product 'onkall'; products are acme, oncall"), "{said}");
    let checked = home.run_ok(&["policy", "check", "--product", "oncall"]);
    assert!(checked.contains("product oncall") && checked.contains("services cart"), "{checked}");
    // Arguments no rule is asked about.
    let misfit = json_of(home, &["policy", "explain", "--json", "--principal", &member_id, "--tool", "sql", "--no-args"]);
    assert_eq!((&misfit["allowed"], &misfit["rule"]), (&json!(false), &json!("argument-schema")), "{misfit}");
    let cursor =
        json_of(home, &["policy", "explain", "--json", "--principal", &member_id, "--tool", "query_logs", "--arg", "cursor=x"]);
    assert_eq!((&cursor["allowed"], &cursor["rule"]), (&json!(false), &json!("cursor")), "{cursor}");
    assert!(cursor["why"].as_str().unwrap().contains("ask without it"), "{cursor}");
    at(&member, "/mcp").call("query_logs", &json!({"cursor": "x"}));
    assert_eq!(home.audited(|r| r["tool"] == "query_logs" && r["rule"] == "cursor")["decision"], "deny");
    at(&member, "/mcp").call("sql", &json!({}));
    assert_eq!(home.audited(|r| r["tool"] == "sql" && r["rule"] != "product")["rule"], "argument-schema");
}

/// Asks about one tool of the product of one tenant.
fn of_acme<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["policy", "explain", "--json", "--product", "acme", "--tool", "list_sources"];
    all.extend(more);
    all
}

#[test]
fn a_tenant_is_asked_for_where_no_credential_says_it() {
    let home = Home::new(&format!(
        "{PRODUCTS}identity:\n  tokens:\n    issuers:\n      - name: corp\n        issuer: 'https://id.example.com'\n        \
         default_roles: [reader]\n        services_claim: services\n        \
         tenant: {{by: {{claim: org, map: {{'A': acme, 'B': beta}}}}}}\n"
    ));
    let key = id_of(&home.key(&["--role", "reader", "--tenant", "acme"]));
    let other = json_of(&home, &of_acme(&["--role", "reader"]));
    assert_eq!((&other["rule"], &other["tenant"]), (&json!("unknown-product"), &json!("default")), "{other}");
    let token = ["--principal", "token:corp/ada", "--role", "reader"];
    for who in [
        vec!["--role", "reader", "--tenant", "acme"],
        vec!["--principal", key.as_str()],
        [&token[..], &["--tenant", "acme"]].concat(),
    ] {
        let answer = json_of(&home, &of_acme(&who));
        assert_eq!((&answer["allowed"], &answer["tenant"]), (&json!(true), &json!("acme")), "{who:?}: {answer}");
        assert_eq!(answer["confined_to"][0]["tenant"], "acme", "{answer}");
        assert_eq!(
            answer["notes"].to_string().contains("confines it to some services"),
            who.contains(&"token:corp/ada"),
            "{answer}"
        );
    }
    for (who, expected) in [
        (vec!["--principal", key.as_str(), "--tenant", "beta"], "is 'acme' and never 'beta'"),
        (token.to_vec(), "by the claim 'org'; name one: acme, beta"),
        ([&token[..], &["--tenant", "gamma"]].concat(), "never means the tenant 'gamma'"),
        (vec!["--principal", "token:nobody/ada", "--role", "reader"], "issuers are corp"),
    ] {
        let said = refused(&home, &of_acme(&who));
        assert!(said.contains(expected), "{who:?}: {said}");
    }

    let review = json_of(&home, &["access", "review", "--all", "--json", "--product", "acme", "--tenant", "acme"]);
    let lines = review["lines"].as_array().unwrap();
    let line = |who: &Value, tool: &str| {
        let found = lines.iter().find(|l| (l["principal"] == *who || l["roles"] == *who) && l["tool"] == tool);
        found.unwrap_or_else(|| panic!("{who} {tool}")).clone()
    };
    for who in [json!(key), json!("reader")] {
        let (inside, outside) = (line(&who, "list_sources"), line(&who, "sql"));
        assert_eq!((&inside["allowed"], &inside["product"]), (&json!(true), &json!("acme")), "{inside}");
        assert_eq!(inside["confined_to"][0]["tenant"], "acme", "{inside}");
        assert_eq!((&outside["allowed"], &outside["rule"]), (&json!(false), &json!("product")), "{outside}");
    }
    let exported = home.run_ok(&["access", "review", "--csv", "--product", "acme", "--tenant", "acme"]);
    assert!(exported.lines().next().unwrap().ends_with("product,ended,confined_to"), "{exported}");
    assert!(exported.contains("tenant acme"), "{exported}");
    home.run_ok(&["key", "revoke", key.strip_prefix("key:").unwrap()]);
    let after = json_of(&home, &["access", "review", "--json"]);
    assert!(
        after["lines"].as_array().unwrap().iter().any(|l| l["principal"] == key.as_str() && l["ended"] == "revoked"),
        "{after}"
    );
}

#[test]
fn rows_of_tables_name_products_and_tenants() {
    let home = Home::new(PRODUCTS);
    let write = |name: &str, text: &str| {
        let path = home.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let table = write(
        "expected.csv",
        "role,tenant,product,tool,expect,rule\n\
         reader oncall,,oncall,query_logs,allow,reader-may-look\n\
         reader oncall,,oncall,sql,hidden,product\n\
         reader oncall,,,sql,listed,\n\
         reader,,oncall,query_logs,deny,unknown-product\n\
         reader,acme,acme,list_sources,allow,\n\
         reader,,acme,list_sources,deny,unknown-product\n",
    );
    let said = home.run_ok(&["policy", "test", &table]);
    assert!(said.contains("6 of 6"), "{said}");
    let missed = write("missed.yaml", "- {role: reader oncall, product: oncall, tool: sql, expect: listed}\n");
    let output = home.run(&["policy", "test", &missed]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && said.contains("through oncall") && said.contains("leaves it out"), "{said}");
    let unknown = write("unknown.yaml", "- {role: reader, product: nothing, tool: sql, expect: deny}\n");
    assert!(refused(&home, &["policy", "test", &unknown]).contains("products are acme, oncall"));
    // A row that names none goes through that of the command line.
    let plain = write("plain.yaml", "- {role: reader, tool: list_sources, expect: allow}\n");
    home.run_ok(&["policy", "test", &plain, "--product", "acme", "--tenant", "acme"]);
    assert!(!home.run(&["policy", "test", &plain, "--product", "acme"]).status.success());

    let rules = write(
        "new.cedar",
        "@id(\"minutes\") @only_limits(\"true\") @max_look_back(\"10m\") permit(principal, action == Portcullis::Action::\"call\", \
         resource == Portcullis::Tool::\"query_logs\");",
    );
    let calls = write("calls.csv", "role,product,tool\nreader oncall,oncall,query_logs\nreader oncall,oncall,sql\n");
    let changed = json_of(&home, &["policy", "dry-run", &rules, "--calls", &calls, "--all", "--json"]);
    assert_eq!((&changed["differing"], &changed["would_be_confined_otherwise"]), (&json!(1), &json!(1)), "{changed}");
    let call = &changed["calls"][0];
    let look_back = |side: &str| call[side]["confined_to"][0]["look_back"]["secs"].clone();
    assert_eq!((look_back("before"), look_back("after")), (json!(3_600), json!(600)), "{call}");
    assert_eq!(changed["calls"][1]["after"]["rule"], "product", "{changed}");
}

#[test]
fn tools_of_other_servers_are_explained_as_they_were_accepted_and_missed_aloud_before() {
    let puppet = Puppet::new(&json!({"tools": [tool("deploys", "Lists deployments.")]}));
    let home = crate::upstreams::home(&[puppet.entry("up", "", "")], "");
    let explain = |home: &Home, more: &[&str]| json_of(home, &[&["policy", "explain", "--json"], more].concat());
    let before = explain(&home, &["--role", "reader"]);
    assert!(before["notes"].to_string().contains("no tool of upstream up is known here"), "{before}");
    let said = refused(&home, &["policy", "explain", "--role", "reader", "--tool", "deploys"]);
    assert!(said.contains("there is no tool 'deploys'") && said.contains("up_*"), "{said}");
    assert!(!home.data().join("state.sqlite").exists(), "asking about a role makes nothing");

    let server = Server::start_in(home);
    let home = &server.home;
    let reader = visitor(&server, &["--role", "reader"]);
    until("it waits", || if listed(home).len() == 1 { Ok(()) } else { Err(server.log()) });
    accept_all(home, "up");
    sees(&reader, "deploys", true);
    let confined = visitor(&server, &["--role", "reader", "--service", "cart"]);
    let open = explain(home, &["--role", "reader", "--tool", "deploys"]);
    assert_eq!((&open["allowed"], &open["rule"]), (&json!(true), &json!("reader-may-look")), "{open}");
    assert!(open["notes"].to_string().contains("as they were accepted"), "{open}");
    // Who is confined to what this server cannot confine its answers to is not served.
    let closed = explain(home, &["--principal", &id_of(&confined.key), "--tool", "deploys"]);
    assert_eq!((&closed["allowed"], &closed["rule"]), (&json!(false), &json!("not-served")), "{closed}");
    assert_eq!(closed["rules_alone"]["allowed"], true, "{closed}");
    sees(&confined, "list_sources", true);
    assert!(!tools(&confined).contains(&"deploys".to_owned()));
    confined.call("deploys", &json!({}));
    assert_eq!(home.audited(|r| r["tool"] == "deploys")["rule"], "not-served");
}

/// A house with a described tool whose arguments are of every type, and a rule about each.
fn typed_home(backend: &Backend) -> Home {
    let home = Home::new("tools: {expose: all}\n");
    let parameter = |name: &str, schema: Value| json!({"name": name, "in": "query", "schema": schema});
    let parameters = [
        parameter("id", json!({"type": "string"})),
        parameter("count", json!({"type": "integer", "maximum": 9})),
        parameter("ratio", json!({"type": "number"})),
        parameter("flag", json!({"type": "boolean"})),
        parameter("tags", json!({"type": "array", "items": {"type": "string"}})),
        parameter("note", json!({"type": ["string", "null"]})),
    ];
    let find = json!({"operationId": "find", "summary": "Finds orders", "parameters": parameters});
    let description = json!({"openapi": "3.1.0", "info": {"title": "Shop", "version": "1"}, "paths": {"/find": {"get": find}}});
    let at = |name: &str| home.directory.path().join(name);
    std::fs::write(at("shop.json"), description.to_string()).unwrap();
    let rules: String = [
        ("not-one", "id", "context.arguments.id == \"1\""),
        ("few", "count", "context.arguments.count > 2"),
        ("not-flagged", "flag", "context.arguments.flag"),
        ("not-tagged", "tags", "context.arguments.tags.contains(\"1\")"),
        ("not-noted", "note", "context.arguments.note == \"1\""),
        ("no-ratio", "ratio", "context.arguments has count"),
    ]
    .map(|(id, name, condition)| {
        format!(
            "@id(\"{id}\") forbid (principal, action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"shop_find\") \
             when {{ context.arguments has {name} && {condition} }};\n"
        )
    })
    .concat();
    std::fs::write(at("own.cedar"), rules).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    let more = format!(
        "policies: ['{}']\napis: [{{name: shop, spec: {{file: '{}'}}, url: '{}', allow_addresses: [loopback]}}]\n",
        at("own.cedar").display(),
        at("shop.json").display(),
        backend.url
    );
    std::fs::write(&home.config, text + &more).unwrap();
    home
}

#[test]
fn explanations_read_arguments_as_the_gate_sees_them() {
    let backend = Backend::start(|_, _| (200, "[]".to_owned()));
    let home = typed_home(&backend);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let (home, reader, id) = (&server.home, Visitor::new(&server, &key), id_of(&key));
    let mut seen = BTreeSet::new();
    for (typed, sent) in [
        ("id=1", json!({"id": "1"})),
        ("id=\"1\"", json!({"id": "1"})),
        ("id=2", json!({"id": "2"})),
        ("id=1.0", json!({"id": "1.0"})),
        ("id=true", json!({"id": "true"})),
        ("id=null", json!({"id": "null"})),
        ("id=[1]", json!({"id": "[1]"})),
        ("count=1", json!({"count": 1})),
        ("count=3", json!({"count": 3})),
        ("count=3.0", json!({"count": 3.0})),
        ("count=3.5", json!({"count": 3.5})),
        ("count=10", json!({"count": 10})),
        ("count=\"3\"", json!({"count": "3"})),
        ("count=many", json!({"count": "many"})),
        ("ratio=1", json!({"ratio": 1})),
        ("ratio=0.5 count=1", json!({"ratio": 0.5, "count": 1})),
        ("flag=true", json!({"flag": true})),
        ("flag=false", json!({"flag": false})),
        ("flag=1", json!({"flag": 1})),
        ("flag=yes", json!({"flag": "yes"})),
        ("tags=[\"1\"]", json!({"tags": ["1"]})),
        ("tags=[1]", json!({"tags": [1]})),
        ("tags=[]", json!({"tags": []})),
        ("tags=1", json!({"tags": 1})),
        ("note=1", json!({"note": "1"})),
        ("note=null", json!({"note": null})),
    ] {
        let mut asked = vec!["policy", "explain", "--json", "--principal", id.as_str(), "--tool", "shop_find"];
        asked.extend(typed.split(' ').flat_map(|pair| ["--arg", pair]));
        let said = json_of(home, &asked);
        reader.call("shop_find", &sent);
        let record = home.audited(|r| r["tool"] == "shop_find");
        let done = (&json!(record["decision"] == "allow"), &record["rule"]);
        assert_eq!((&said["allowed"], &said["rule"]), done, "{typed:?}: {said} {record}");
        seen.insert(record["rule"].as_str().unwrap().to_owned());
    }
    // Each rule decided something, and so did the schema.
    for rule in ["not-one", "few", "not-flagged", "not-tagged", "not-noted", "no-ratio", "argument-schema"] {
        assert!(seen.contains(rule), "{rule}: {seen:?}");
    }
    // The same command line calls what it explains.
    let called = home.run(&["call", "shop_find", "id=2", "count=1"]);
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    assert!(backend.seen().iter().any(|request| request.contains("id=2") && request.contains("count=1")), "{:?}", backend.seen());
    let said = refused(home, &["policy", "explain", "--role", "reader", "--tool", "shop_find", "--arg", "idd=1"]);
    assert!(said.contains("no argument 'idd'; its arguments are id, count"), "{said}");
}

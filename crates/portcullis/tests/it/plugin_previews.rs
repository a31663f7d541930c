//! Previews of plugins over the real binary: what a writing tool would do is shown, in dry runs and to whoever is asked for a
//! yes; nothing that changes anything gets out meanwhile, whatever the plugin tries; and a plugin that cannot tell is never run
//! for it. What they do is told by `seer` and `elder` of `crates/plugins/tests`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::approvals::pending;
use crate::parcels::refusal;
use crate::plugins::{MANIFEST, Stranger, eventually, tools};
use crate::server::{Home, Server, intact};
use crate::visitor::{Backend, Visitor};

const SEER: &str = include_str!("../../../plugins/tests/seer/plugin.yaml");
const ELDER: &str = include_str!("../../../plugins/tests/elder/plugin.yaml");
const TOKEN: &str = "hunter2-in-clear";

fn backend() -> Backend {
    Backend::start(|path, _| match path {
        "/flags/1" => (200, json!({"value": "off", "password": "swordfish99"}).to_string()),
        "/flags/broken" => (500, "{}".into()),
        _ => (404, "{}".into()),
    })
}

/// A house with this plugin, granted the backend, and an administrator.
fn house(plugin: &str, manifest: &str, backend: &Backend, rules: &str) -> Option<(Server, Visitor)> {
    let port = backend.url.rsplit(':').next().unwrap().to_owned();
    let secrets = if manifest.contains("secrets:") { format!("secrets: {{token: {{value: {TOKEN}}}}}") } else { String::new() };
    let config = format!(
        "tools: {{expose: all}}\nplugins:\n  grants:\n    - {{name: {plugin}, http: ['{0}'], allow_addresses: [loopback], settings: {{place: '{0}'}}, {secrets}}}\n\
         write: {{enable: ['plugin-{plugin}']}}\nlimits: {{write: {{per_second: 1000, burst: 1000}}}}\n",
        backend.url
    );
    let stranger = Stranger::of(plugin, &config, |_| manifest.replace("18080", &port))?;
    stranger.install();
    let home = stranger.home;
    let own = home.directory.path().join("own.cedar");
    std::fs::write(&own, rules).unwrap();
    let mut text = std::fs::read_to_string(&home.config).unwrap();
    writeln!(text, "policies: ['{}']", own.display()).unwrap();
    std::fs::write(&home.config, text).unwrap();
    let key = home.key(&["--role", "admin"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    Some((server, visitor))
}

fn dry(visitor: &Visitor, tool: &str, arguments: &Value) -> Value {
    let mut arguments = arguments.clone();
    arguments["dry_run"] = json!(true);
    visitor.call(tool, &arguments).json()
}

fn shown(reply: &Value) -> &Value {
    let shown = &reply["result"]["structuredContent"]["dry_run"];
    assert!(shown.is_object(), "{reply}");
    shown
}

/// How often the backend was asked by any method but those that only read.
fn changed(backend: &Backend) -> usize {
    backend.seen().iter().filter(|request| !request.starts_with("GET ") && !request.starts_with("HEAD ")).count()
}

#[test]
fn a_plugin_tells_what_it_would_do_and_does_it_only_when_it_is_called_for_that() {
    let backend = backend();
    let Some((server, admin)) = house("seer", SEER, &backend, "") else { return };
    let listed = admin.ask("tools/list", &json!({})).json();
    for tool in listed["result"]["tools"].as_array().unwrap().iter().filter(|t| t["name"].to_string().contains("seer_")) {
        let offered = tool["inputSchema"]["properties"]["dry_run"].is_object();
        assert_eq!(offered, tool["name"] != "seer_flag", "{tool}");
    }
    let set = json!({"id": "1", "value": "on"});
    let reply = dry(&admin, "seer_set", &set);
    let told = shown(&reply);
    assert_eq!(told["sent"], false);
    assert_eq!(
        (&told["request"]["method"], &told["request"]["url"], &told["request"]["body"]),
        (&json!("PUT"), &json!(format!("{}/flags/1", backend.url)), &json!({"value": "on"}))
    );
    let change = &told["change"];
    assert_eq!(
        (&change["known"], &change["before"]["value"], &change["after"]["value"]),
        (&json!(true), &json!("off"), &json!("on"))
    );
    assert!(change["how"].as_str().unwrap().starts_with("as plugin 'seer' foresees it: the flag as it is"), "{change}");
    for secret in [TOKEN, "swordfish"] {
        assert!(!reply.to_string().contains(secret), "{reply}");
    }
    assert_eq!((changed(&backend), backend.seen().len()), (0, 1), "one look, with the credential the plugin never sees");
    assert!(backend.seen()[0].contains(&format!("Bearer {TOKEN}")));
    let record = server.home.audited(|r| r["tool"] == "seer_set" && r["decision"] == "allow");
    let note = record["note"].as_str().unwrap();
    assert!(note.contains("plugin seer 1.0.0 preview of seer_set: ok") && note.contains("dry run"), "{record}");
    let sources = record["sources"].to_string();
    assert!(sources.contains("plugin:seer@sha256:") && sources.contains(&format!("host:{}", backend.url)), "{record}");
    // What is not there, and what cannot be looked at, are different things.
    let absent = dry(&admin, "seer_set", &json!({"id": "7", "value": "on"}));
    assert_eq!(
        (&shown(&absent)["change"]["known"], &shown(&absent)["change"]["before"]),
        (&json!(true), &Value::Null),
        "{absent}"
    );
    let broken = dry(&admin, "seer_set", &json!({"id": "broken", "value": "on"}));
    assert_eq!(shown(&broken)["change"]["why"], "plugin 'seer' says: it answered 500", "{broken}");
    // Bad arguments are refused as they are without it.
    let odd = admin.call("seer_set", &json!({"id": "1", "value": "on", "dry_run": "yes"})).json();
    assert!(odd["error"].is_object() || odd["result"]["isError"] == true, "{odd}");
    assert_eq!(changed(&backend), 0);

    let done = admin.call("seer_set", &json!({"id": "1", "value": "on", "dry_run": false})).json();
    assert_eq!(
        done["result"]["structuredContent"]["arguments"],
        json!({"id": "1", "value": "on"}),
        "the wish is not the plugin's: {done}"
    );
    assert_eq!(changed(&backend), 1);
    assert!(intact(&server.home));
}

#[test]
fn whatever_a_preview_tries_nothing_that_could_change_anything_gets_out_and_that_is_recorded() {
    let backend = backend();
    let Some((server, admin)) = house("seer", &SEER.replace("http_calls: 3", "http_calls: 5"), &backend, "") else { return };
    let how = |how: &str| dry(&admin, "seer_set", &json!({"id": "1", "value": "on", "how": how}));
    let cheated = how("cheat");
    let why = shown(&cheated)["change"]["why"].as_str().unwrap();
    assert!(why.contains("0 got through") && why.contains("a preview sends nothing that may change something"), "{cheated}");
    assert_eq!(backend.seen().len(), 0, "also not as another method in disguise: {:?}", backend.seen());
    let record = server.home.audited(|r| r["tool"] == "seer_set");
    assert!(record["note"].as_str().unwrap().contains("5 requests of a preview were held back"), "{record}");
    for (how_it_fails, says) in [
        ("loop", "limit cpu_ms"),
        ("panic", "crashed"),
        ("fault", "no flag of this kind"),
        ("garbage", "gave a preview that cannot be used"),
        ("giant", "limit result"),
        ("many", "gave a preview that cannot be used"),
        ("elsewhere", "gave a preview that cannot be used"),
        ("flood", "limit http_calls"),
    ] {
        let reply = how(how_it_fails);
        assert!(reply["result"]["isError"] == true && reply.to_string().contains(says), "{how_it_fails}: {reply}");
        let record = server.home.audited(|r| r["tool"] == "seer_set");
        assert!(record["kind"] == "failed" && record["note"].to_string().contains("preview of seer_set"), "{record}");
    }
    assert_eq!(changed(&backend), 0);
    assert!(intact(&server.home));
}

#[test]
fn who_may_not_read_learns_nothing_from_a_preview_and_who_may_not_write_gets_none() {
    let backend = backend();
    let rules = r#"@id("no-flags") forbid (principal, action, resource == Portcullis::Tool::"seer_flag");"#;
    let Some((server, admin)) = house("seer", SEER, &backend, rules) else { return };
    let reply = dry(&admin, "seer_set", &json!({"id": "1", "value": "on"}));
    let change = &shown(&reply)["change"];
    assert_eq!(change["known"], false);
    assert!(change["why"].as_str().unwrap().contains("you may not call 'seer_flag', which reads it"), "{reply}");
    assert_eq!(shown(&reply)["request"]["method"], "PUT", "the request is known all the same: {reply}");
    // A tool whose manifest names no reader looks at nothing.
    let note = dry(&admin, "seer_note", &json!({"text": "x"}));
    assert!(shown(&note)["change"]["why"].as_str().unwrap().contains("names no tool that reads"), "{note}");
    assert_eq!(backend.seen().len(), 0, "{:?}", backend.seen());
    let reader = Visitor { key: server.home.key(&["--role", "reader"]), ..admin };
    eventually("the key is known", || reader.ask("tools/list", &json!({})).status == 200);
    let refused = dry(&reader, "seer_set", &json!({"id": "1", "value": "on"}));
    assert!(refused.to_string().contains("unknown tool"), "{refused}");
    server.home.audited(|r| r["tool"] == "seer_set" && r["decision"] == "deny");
}

#[test]
fn who_is_asked_for_a_yes_sees_what_a_plugin_would_do() {
    let backend = backend();
    let Some((server, admin)) = house("seer", SEER, &backend, "") else { return };
    let id = pending(&admin.call("seer_drop", &json!({"id": "1"})).json());
    let asked = server.home.run_ok(&["approvals", "show", &id]);
    assert!(asked.contains(&format!("DELETE {}/flags/1", backend.url)), "{asked}");
    assert!(asked.contains(r#"- (all of it): {"value":"off""#) && !asked.contains("swordfish"), "{asked}");
    let record = server.home.audited(|r| r["tool"] == "seer_drop" && r["rule"] == "approval" && r["kind"] == "refused");
    assert!(record["sources"].to_string().contains(&format!("host:{}", backend.url)), "where it looked is on record: {record}");
    assert_eq!(changed(&backend), 0);
    server.home.run_ok(&["approvals", "grant", &id]);
    let done = admin.call("seer_drop", &json!({"id": "1"})).json();
    assert_ne!(done["result"]["isError"], true, "{done}");
    assert_eq!(changed(&backend), 1);
}

#[test]
fn a_plugin_of_the_revision_without_previews_says_so_and_is_not_run_for_a_dry_run() {
    let backend = backend();
    let Some((server, admin)) = house("elder", ELDER, &backend, "") else { return };
    assert!(tools(&admin).contains(&"elder_set".to_owned()));
    let refused = dry(&admin, "elder_set", &json!({"anything": 1}));
    let said = refused.to_string();
    assert!(said.contains("'elder_set' cannot show what a call would do") && said.contains("nothing was done"), "{refused}");
    assert_eq!(backend.seen().len(), 0, "although its schema takes any argument");
    let record = server.home.audited(|r| r["tool"] == "elder_set" && r["decision"] == "deny");
    assert_eq!((&record["rule"], &record["code"]), (&json!("argument-schema"), &json!("invalid_argument")), "{record}");
    let done = admin.call("elder_set", &json!({"anything": 1}));
    assert!(done.body.contains("set: 404"), "a component of 1.0.0 runs as it did: {}", done.body);
    assert_eq!(changed(&backend), 1);
}

#[test]
fn a_manifest_and_a_component_that_disagree_about_previews_are_no_plugin() {
    let Some(stranger) = Stranger::of("seer", "", |_| SEER.to_owned()) else { return };
    let Stranger { home, author, component, package } = stranger;
    let pack = |home: &Home, component: &std::path::Path, manifest: &str| {
        std::fs::write(author.folder.join("plugin.yaml"), manifest).unwrap();
        let (folder, component) = (author.folder.display().to_string(), component.display().to_string());
        refusal(home, &["plugin", "pack", &folder, "--component", &component])
    };
    let none = SEER.replace(", preview: {reads: seer_flag}", "").replace(", preview: {}", "");
    let said = pack(&home, &component, &none);
    assert!(said.contains("it exports previews, and no tool of the manifest has one"), "{said}");
    let probe = component.with_file_name("probe.wasm");
    let more = MANIFEST
        .replace("host: ^1.0", "host: ^1.1")
        .replace("probe_change, risk: write", "probe_change, risk: write, preview: {}");
    let said = pack(&home, &probe, &more);
    assert!(said.contains("a tool of the manifest has a preview, and it exports none"), "{said}");
    let said = pack(&home, &component, &SEER.replace("host: ^1.1", "host: ^1.0"));
    assert!(said.contains("write host: ^1.1"), "{said}");
    assert!(home.run_ok(&["plugin", "info", &package]).contains("seer_set (write, shows what it would do)"));
}

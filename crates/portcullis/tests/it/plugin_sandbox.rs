//! What a plugin finds around it over the real binary: nothing, nothing of anybody else, and callers who may not come get
//! nothing of it. Each call is in the audit log.

use serde_json::{Value, json};

use crate::plugins::{MANIFEST, Stranger, tools};
use crate::server::{Home, Server, intact};
use crate::visitor::Visitor;

/// A house with the probe in it, under a grant.
fn house(grant: &str) -> Option<Home> {
    let stranger = Stranger::with(&format!("plugins: {{grants: [{{name: probe, {grant}}}]}}\n"), |_| MANIFEST.to_owned())?;
    stranger.install();
    Some(stranger.home)
}

/// The structured answer of the probe.
fn answer(visitor: &Visitor, arguments: &Value) -> Value {
    let reply = visitor.call("probe_do", arguments);
    let mut json = reply.json();
    let found = json["result"]["structuredContent"].take();
    assert!(found.is_object(), "{arguments}: {}", reply.body);
    found
}

#[test]
fn a_plugin_finds_no_environment_no_file_no_socket_and_no_fine_clock() {
    let Some(home) = house("settings: {}") else { return };
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let visitor = Visitor::new(&server, &key);
    let nothing = json!({"environment": 0, "arguments": 0, "directories": 0, "connects": false, "looks_up": false,
        "clock": 0, "wall": 0, "random": 8});
    assert_eq!(answer(&visitor, &json!({"what": "surroundings"})), nothing);
    let record = server.home.audited(|r| r["tool"] == "probe_do");
    assert!(record["note"].to_string().contains("tool probe_do: ok"), "{record}");
    let sources = record["sources"].to_string();
    assert!(sources.contains("plugin:probe@sha256:") && !sources.contains("host:"), "{record}");
    // It may say so, and that is all: ending the process ends the call.
    let gone = visitor.call("probe_do", &json!({"what": "exit"}));
    assert!(gone.body.contains("crashed"), "{}", gone.body);
    server
        .home
        .audited(|r| r["tool"] == "probe_do" && r["code"] == "backend_failed" && r["note"].to_string().contains("crashed"));
    assert_eq!(answer(&visitor, &json!({"what": "surroundings"})), nothing);
    assert!(intact(&server.home));
}

#[test]
fn callers_of_other_tenants_and_confined_ones_are_refused_tools_nobody_can_confine() {
    let Some(home) = house("settings: {}") else { return };
    let confined = [
        ("another tenant", &["--tenant", "other"][..]),
        ("other sources", &["--source", "embedded"]),
        ("one service", &["--service", "cart"]),
        ("one namespace", &["--namespace", "shop"]),
        ("a look-back", &["--look-back", "1h"]),
    ];
    let keys = confined.map(|(who, options)| (who, home.key(options)));
    let named = home.key(&["--source", "probe"]);
    let server = Server::start_in(home);
    let echo = json!({"what": "echo", "text": "for anybody"});
    for (who, key) in &keys {
        let visitor = Visitor::new(&server, key);
        let refused = visitor.call("probe_do", &echo);
        assert!(!refused.body.contains("for anybody") && refused.body.contains("unknown tool"), "{who}: {}", refused.body);
        assert!(!tools(&visitor).contains(&"probe_do".to_owned()), "{who} is shown what it may not use");
        let id = key.split('_').nth(1).unwrap();
        let record = server.home.audited(|r| r["tool"] == "probe_do" && r["key"] == id);
        assert_eq!(
            (&record["kind"], &record["decision"], &record["rule"]),
            (&json!("refused"), &json!("deny"), &json!("not-served"))
        );
        assert!(!record["note"].to_string().contains("tool probe_do"), "the plugin was not asked for {who}: {record}");
    }
    assert_eq!(answer(&Visitor::new(&server, &named), &echo)["text"], "for anybody");
    // The operator may let confined callers in, and still not those of other tenants.
    let home = server.kill();
    let config = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, config.replace("settings: {}", "open_to_confined: true")).unwrap();
    let server = Server::start_in(home);
    for (who, key) in &keys {
        let reply = Visitor::new(&server, key).call("probe_do", &echo);
        let open = !matches!(*who, "another tenant" | "other sources");
        assert_eq!(reply.body.contains("for anybody"), open, "{who}: {}", reply.body);
    }
    assert!(intact(&server.home));
}

#[test]
fn nothing_of_one_call_is_found_by_the_next_and_the_cache_keeps_callers_apart() {
    let Some(home) = house("open_to_confined: true") else { return };
    let (alice, bob) = (home.key(&[]), home.key(&[]));
    let server = Server::start_in(home);
    let (alice, bob) = (Visitor::new(&server, &alice), Visitor::new(&server, &bob));
    assert!(tools(&bob).contains(&"probe_do".to_owned()));
    assert_eq!(answer(&alice, &json!({"what": "remember", "text": "of alice"}))["kept"], true);
    for _ in 0..2 {
        assert_eq!(answer(&alice, &json!({"what": "recall"})), json!({"kept": "of alice", "calls_before": 0}));
        assert_eq!(answer(&bob, &json!({"what": "recall"})), json!({"kept": null, "calls_before": 0}));
    }
    assert_eq!(answer(&bob, &json!({"what": "remember", "text": "of bob"}))["kept"], true);
    assert_eq!(answer(&alice, &json!({"what": "recall"}))["kept"], "of alice");
    for visitor in [&alice, &bob] {
        let id = visitor.key.split('_').nth(1).unwrap();
        let record = server.home.audited(|r| r["tool"] == "probe_do" && r["key"] == id);
        assert!(record["note"].to_string().contains("tool probe_do: ok"), "{record}");
    }
    assert!(intact(&server.home));
}

//! What a person types, and what it says when it is wrong.

use std::os::unix::fs::PermissionsExt;

use crate::server::{Home, exists};

#[test]
fn a_misspelt_setting_names_the_right_one() {
    let home = Home::new("limts: {}\n");
    let output = home.run(&["config", "check"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("did you mean 'limits'"), "{text}");
}

#[test]
fn a_source_with_a_misspelt_setting_or_kind_is_refused() {
    for (source, word) in [
        ("{name: p, kind: prometheus, url: 'http://127.0.0.1:9', tiemout: 5s}", "timeout"),
        ("{name: p, kind: promethus, url: 'http://127.0.0.1:9'}", "prometheus"),
        ("{kind: prometheus, url: 'http://127.0.0.1:9'}", "name"),
        ("{name: p, kind: prometheus, url: 'ftp://127.0.0.1:9'}", "http"),
    ] {
        let home = Home::new(&format!("sources: [{source}]\n"));
        let output = home.run(&["config", "check"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(word), "{source}: {text}");
    }
}

#[test]
fn a_rule_about_a_tool_that_does_not_exist_is_refused() {
    let home = Home::new("");
    let rule = home.directory.path().join("own.cedar");
    std::fs::write(&rule, r#"@id("x") forbid(principal, action, resource == Portcullis::Tool::"query_log");"#).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", rule.display())).unwrap();
    let output = home.run(&["config", "check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("query_logs"), "{said}");
}

#[test]
fn secrets_are_not_shown_by_config_show() {
    let home = Home::new("sources: [{name: p, kind: prometheus, url: 'http://127.0.0.1:9', auth: {bearer: 'hunter2hunter2'}}]\n");
    let text = home.run_ok(&["config", "show"]);
    assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
}

#[test]
fn the_schema_accepts_what_the_binary_accepts() {
    let home = Home::new("");
    let schema: serde_json::Value = serde_json::from_str(&home.run_ok(&["config", "schema"])).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["listen"].is_object() && schema["$defs"]["Source"]["properties"]["url"].is_object(), "{schema}");
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let home = Home::new("");
    let key = home.key(&["--role", "operator", "--expires", "1d", "--service", "cart"]);
    assert!(key.starts_with("pcl_"));
    let list = home.run_ok(&["key", "list", "--json"]);
    let id = key.split('_').nth(1).unwrap();
    assert!(list.contains(id) && !list.contains(&key), "{list}");
    assert!(!home.run(&["key", "revoke", "nothere000"]).status.success());
    home.run_ok(&["key", "revoke", id]);
    assert!(home.run_ok(&["key", "list"]).contains("revoked"));
    let bad = home.run(&["key", "create", "--label", "x", "--role", "boss"]);
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("reader"));
    home.audited(|r| r["kind"] == "key" && r["method"] == "key.revoke");
    for file in ["state.sqlite", "pepper"] {
        let mode = std::fs::metadata(home.data().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
}

#[test]
fn doctor_lists_every_control_and_call_answers() {
    let home = Home::new("");
    let report: serde_json::Value = serde_json::from_str(&home.run_ok(&["doctor", "--json"])).unwrap();
    let names: Vec<&str> = report.as_array().unwrap().iter().filter_map(|l| l["name"].as_str()).collect();
    for control in [
        "mcp listener",
        "admin listener",
        "credentials for admin",
        "api keys",
        "host and origin check",
        "roles and policies",
        "write gate",
        "limits",
        "argument schemas",
        "redaction of secrets",
        "redaction of people",
        "untrusted text",
        "text in arguments",
        "credentials for mcp",
        "credentials for otlp",
        "lockout",
        "key aging",
        "approvals",
        "behaviour profiles",
        "products",
        "token budget",
        "egress",
        "audit",
        "audit keeping",
        "otlp door",
        "embedded store",
        "embedded",
    ] {
        assert!(names.contains(&control), "{control} is not in {names:?}");
    }
    // The lines say what is in force, not what is usual.
    let weak = Home::new(
        "redaction: {secrets: 'off', allow_secrets: i-understand}\nrelease: {frame: 'off'}\nprofiles: {mode: observe}\n\
         approvals: {four_eyes: false}\nlimits: {tokens_per_day: 0}\nsanitize: {name: {mode: 'off'}}\n",
    );
    let report: serde_json::Value = serde_json::from_str(&weak.run_ok(&["doctor", "--json"])).unwrap();
    for control in ["redaction of secrets", "untrusted text", "approvals", "token budget", "text in arguments"] {
        let line = report.as_array().unwrap().iter().find(|l| l["name"] == control).unwrap();
        assert_eq!(line["state"], "attention", "{line}");
    }
    assert!(home.run_ok(&["call", "list_sources"]).contains("embedded"));
    let bad = home.run(&["call", "query_logs", "window=banana"]);
    let said = [bad.stdout, bad.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(!bad.status.success() && said.contains("15m"), "{said}");
    assert!(home.run_ok(&["completions", "bash"]).contains("portcullis"));
    assert!(exists(&home.data().join("audit")));
}

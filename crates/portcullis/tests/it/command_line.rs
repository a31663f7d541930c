//! What a person types, and what it says when it is wrong.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

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
        "pages of others (CORS)",
        "security headers",
        "rates",
        "shared limits",
        "sessions",
        "request bounds",
        "no record, no answer",
        "external policy",
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

/// The settings of each row of the table of named opt-outs in SECURITY.md; commands, which no setting stands for, apart.
fn named_opt_outs() -> BTreeSet<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../SECURITY.md")).unwrap();
    let table = page.split("## Named opt-outs").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| setting |"));
    let cells = rows.map(|line| line.trim_start_matches("| ").split(" |").next().unwrap());
    let settings = cells.filter(|cell| !cell.starts_with("the command `portcullis "));
    settings
        .flat_map(|cell| {
            let end = [" (", " of ", " on ", " in ", " with "].iter().filter_map(|word| cell.find(word)).min();
            let named: Vec<&str> = cell[..end.unwrap_or(cell.len())].split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{cell} begins with no setting");
            named
        })
        .map(str::to_owned)
        .collect()
}

/// Every opt-out at once. What can stand in several places stands in several.
const WEAKENED: &str = "\
listen: {mcp: 'MCP_ADDRESS', anonymous_role: reader, allowed_hosts: [a.example], allowed_origins: ['https://page.example'], sessions: all, plaintext: i-terminate-tls-elsewhere, trusted_proxies: ['127.0.0.1']}
admin: {listen: 'ADMIN_ADDRESS', allowed_hosts: [b.example], plaintext: i-terminate-tls-elsewhere, trusted_proxies: ['127.0.0.1']}
redaction: {secrets: 'off', allow_secrets: i-understand, pii: {email: 'off'}}
release: {frame: 'off'}
sanitize: {name: {mode: 'off'}}
write: {enable: [cluster]}
approvals: {four_eyes: false}
limits: {tokens_per_day: 0, tenant: {tokens_per_day: 0}}
audit:
  on_failure: {read: continue, write: continue}
  retention: {max_age: 365d}
  sinks: [{name: hook, to: {webhook: {url: 'http://127.0.0.1:9/hook', secret: 'a-made-up-signing-secret', allow_addresses: [loopback]}}}]
external_policy: {url: 'http://127.0.0.1:9', path: portcullis/allow, allow_addresses: [loopback]}
secret_stores: [{name: vault, url: 'http://127.0.0.1:9', allow_addresses: [loopback], auth: {token: 'env:PATH'}}]
sources: [{name: prom, kind: prometheus, url: 'http://127.0.0.1:9', allow_addresses: [loopback]}]
upstreams:
- {name: up, http: {url: 'http://127.0.0.1:9/mcp', allow_addresses: [loopback]}, trust: accept_first_sight, confined_callers: allow, questions: {sampling: allow, links: ['https://a.example']}, recheck: 5s, risk: [{tools: '*', class: read}]}
plugins:
  allow_unsigned: true
  sources: [{origin: 'http://hub.example:80'}]
  grants: [{name: weather, open_to_confined: true, secrets: {token: {value: 'env:PATH', read: true}}}]
";

#[test]
fn every_named_opt_out_is_told_by_the_doctor_and_nothing_else_is() {
    let report = |home: &Home| -> Vec<Value> {
        let output = home.run(&["doctor", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)));
        lines.into_iter().filter(|line| line["kind"] == "opt-out").collect()
    };
    let names = |lines: &[Value]| -> BTreeSet<String> { lines.iter().map(|l| l["name"].as_str().unwrap().to_owned()).collect() };
    // By default nothing asks for attention, and what is on is marked so in the table.
    let usual = report(&Home::new(""));
    let chosen: Vec<&Value> = usual.iter().filter(|line| line["state"] != "on").collect();
    assert!(chosen.is_empty(), "{chosen:#?}");
    let by_default: BTreeSet<String> =
        ["ingest.loopback_without_key", "admin.health", "approvals.elicitation", "profiles.mode", "/healthz"]
            .map(str::to_owned)
            .into();
    assert_eq!(names(&usual), by_default);
    let home = Home::new(WEAKENED);
    let rule = home.directory.path().join("grant.cedar");
    let grant = r#"@id("may-see") @unredacted("true") permit(principal in Portcullis::Role::"admin", action == Portcullis::Action::"call", resource);"#;
    std::fs::write(&rule, grant).unwrap();
    let text = std::fs::read_to_string(&home.config).unwrap().replace(
        "ingest: {",
        "ingest: {allowed_hosts: [c.example], plaintext: i-terminate-tls-elsewhere, trusted_proxies: ['127.0.0.1'], ",
    );
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", rule.display())).unwrap();
    let weakened = report(&home);
    assert_eq!(names(&weakened), named_opt_outs(), "SECURITY.md and the doctor do not speak of the same settings");
    for line in &weakened {
        let usual = by_default.contains(line["name"].as_str().unwrap());
        assert_eq!(line["state"], if usual { "on" } else { "attention" }, "{line}");
    }
    let detail = |name: &str| weakened.iter().find(|l| l["name"] == name).unwrap()["detail"].as_str().unwrap();
    for place in ["sources.prom", "external_policy", "secret_stores.vault", "upstreams.up.http", "audit.sinks.hook.to.webhook"] {
        assert!(
            detail("allow_addresses").contains(&format!("{place}.allow_addresses")),
            "{place}: {}",
            detail("allow_addresses")
        );
    }
    assert!(detail("@unredacted(\"true\")").contains("may-see"), "{weakened:#?}");
    // What is set for a listener that is off gives nothing up, and nothing is said of it.
    let home = Home::new(WEAKENED);
    let text = std::fs::read_to_string(&home.config).unwrap();
    let text = text.replace("ingest: {", "ingest: {enabled: false, allowed_hosts: [c.example], ");
    std::fs::write(&home.config, text.replace("admin: {", "admin: {enabled: false, ")).unwrap();
    let spoken_of = names(&report(&home));
    assert!(spoken_of.contains("listen.allowed_hosts"), "{spoken_of:?}");
    assert!(!spoken_of.iter().any(|name| name.starts_with("admin.") || name.starts_with("ingest.")), "{spoken_of:?}");
    let lines: Value = serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap();
    let control = |name: &str| lines.as_array().unwrap().iter().find(|l| l["name"] == name).unwrap()["detail"].to_string();
    let (hosts, bounds) = (control("host and origin check"), control("request bounds"));
    assert!(hosts.contains("a.example") && !hosts.contains("b.example") && !hosts.contains("c.example"), "{hosts}");
    assert!(bounds.contains("(mcp)") && !bounds.contains("(admin)") && !bounds.contains("(otlp)"), "{bounds}");
}

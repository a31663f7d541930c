//! Policies over the real doors: an argument value that is refused, a listing that hides, a mistake that stops the start,
//! and what the commands say about rules.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{BINARY, Home, Server, post};

const RULES: &str = r#"
@id("no-payment-logs")
@reason("cardholder data")
forbid (
    principal,
    action == Portcullis::Action::"call",
    resource == Portcullis::Tool::"query_logs"
) when { context.arguments.service == "payment" };

@id("interns-look")
permit (
    principal in Portcullis::Role::"intern",
    action == Portcullis::Action::"call",
    resource
) when { resource.risk == "read" };

@id("interns-no-sql")
forbid (
    principal in Portcullis::Role::"intern",
    action == Portcullis::Action::"call",
    resource == Portcullis::Tool::"sql"
);

@id("interns-an-hour")
@only_limits("true")
@max_look_back("1h")
permit (principal in Portcullis::Role::"intern", action == Portcullis::Action::"call", resource);
"#;

fn write(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Puts a file in the place of another in one step: the server may look at any time.
fn replace(path: &std::path::Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(&next, path).unwrap();
}

/// A home whose configuration names a file with these rules.
fn home_with(rules: &str) -> Home {
    let home = Home::new("roles: [intern]\n");
    let path = write(&home, "own.cedar", rules);
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    home
}

fn listed(server: &Server, key: &str) -> Vec<String> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}});
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/list"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = [headers.to_vec(), vec![("Authorization".to_owned(), format!("Bearer {key}"))]].concat();
    let reply = post(server.mcp, "/mcp", &headers, body.to_string().as_bytes()).json();
    let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}"));
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_argument_value_is_refused_and_the_record_names_the_rule() {
    let home = home_with(RULES);
    let reader = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    for arguments in [json!({"service": "payment"}), json!({})] {
        let refused = server.call(Some(&reader), "query_logs", &arguments);
        assert!(refused.body.contains("no-payment-logs"), "{}", refused.body);
        let record = server.home.audited(|r| r["tool"] == "query_logs" && r["rule"] == "no-payment-logs");
        assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")));
        assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "a source was asked: {record}");
    }
    let allowed = server.call(Some(&reader), "query_logs", &json!({"service": "cart"}));
    assert!(!allowed.body.contains("no-payment-logs"), "{}", allowed.body);
    server.home.audited(|r| r["tool"] == "query_logs" && r["rule"] == "reader-may-look" && r["decision"] == "allow");
}

#[test]
fn a_listing_hides_what_may_not_be_called() {
    let home = home_with(RULES);
    let intern = home.key(&["--role", "intern"]);
    let reader = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let (of_intern, of_reader) = (listed(&server, &intern), listed(&server, &reader));
    // What depends on the arguments is shown; what no argument can make right is not.
    assert!(of_intern.contains(&"query_logs".to_owned()) && !of_intern.contains(&"sql".to_owned()), "{of_intern:?}");
    assert!(of_reader.contains(&"sql".to_owned()), "{of_reader:?}");
    let hidden = server.call(Some(&intern), "sql", &json!({"query": "select 1"})).json();
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    assert!(hidden["error"]["message"].as_str().unwrap().contains("unknown tool"), "{hidden}");
    server.home.audited(|r| r["tool"] == "sql" && r["rule"] == "interns-no-sql" && r["decision"] == "deny");
    // Every listed tool can be called at all: none is refused as unknown.
    for tool in &of_intern {
        let reply = server.call(Some(&intern), tool, &json!({})).body;
        assert!(!reply.contains("unknown tool"), "{tool}: {reply}");
    }
}

#[test]
fn a_new_rule_in_a_policy_file_alone_is_taken_over_and_a_broken_one_is_not() {
    let home = home_with(RULES);
    let rules = home.directory.path().join("own.cedar");
    let reader = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    let ask = || server.call(Some(&reader), "list_sources", &json!({})).body;
    assert!(!ask().contains("unknown tool"));
    let forbid = "@id(\"no-sources\") forbid (principal, action == Portcullis::Action::\"call\", \
                  resource == Portcullis::Tool::\"list_sources\");";
    let config = |method: &str| {
        server
            .home
            .audit()
            .into_iter()
            .filter(|r| {
                r["kind"] == "config" && {
                    let note = r.to_string();
                    note.contains(method)
                }
            })
            .count()
    };
    replace(&rules, &format!("{RULES}\n@id(\"broken\") forbid ("));
    crate::wire::eventually("the broken file is named", || config("refused:") == 1);
    assert!(!ask().contains("unknown tool"), "the last good rules stay in force");
    replace(&rules, &format!("{RULES}\n{forbid}"));
    crate::wire::eventually("the rule is in force", || ask().contains("unknown tool"));
    server.home.audited(|r| r["tool"] == "list_sources" && r["rule"] == "no-sources" && r["decision"] == "deny");
    assert_eq!(config("reloaded"), 1);
}

#[test]
fn a_limit_of_a_rule_confines_the_answer() {
    let home = home_with(RULES);
    let intern = home.key(&["--role", "intern"]);
    let server = Server::start_in(home);
    let reply = server.call(Some(&intern), "query_logs", &json!({"service": "cart", "window": "7d"})).body;
    assert!(reply.contains("1h"), "the look-back of the rule is not said: {reply}");
}

#[test]
fn a_rule_that_can_never_match_stops_the_start_and_says_why() {
    let rule = |condition: &str| {
        format!(
            "@id(\"x\") forbid(principal, action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"query_logs\") when {{ {condition} }};"
        )
    };
    for (condition, expected) in [
        ("context.arguments.servce == \"payment\"", "did you mean 'service'"),
        ("context.arguments.limit > 100000", "never match"),
        ("context.arguments.level == \"wran\"", "did you mean 'warn'"),
        ("context.hour > 22 && context.hour < 6", "never match"),
        ("principal == Portcullis::Principal::\"apikey:abc\"", "nobody's id"),
        ("resource.risk == \"write\"", "its risk is 'read'"),
        ("resource == Portcullis::Tool::\"sql\"", "name one thing"),
        ("\"a\" == \"b\" || 1 > 2", "whatever the call"),
        ("principal in Portcullis::Role::\"anonymous\" && principal.kind == \"api-key\"", "anonymous or local"),
    ] {
        let home = home_with(&rule(condition));
        let log = home.directory.path().join("log");
        let status = Command::new(BINARY)
            .args(["--config", &home.config.display().to_string(), "serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .status()
            .unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!status.success() && said.contains(expected) && said.contains("own.cedar:1"), "{condition}: {said}");
        let checked = home.run(&["policy", "check"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains(expected), "{condition}: {said}");
    }
    for (action, thing, expected) in [
        ("prompt", "Prompt::\"write_postmortm\"", "did you mean 'write_postmortem'"),
        ("read", "Resource::\"portcullis://nosuch\"", "there is no resource"),
    ] {
        let text =
            format!("@id(\"x\") forbid(principal, action == Portcullis::Action::\"{action}\", resource == Portcullis::{thing});");
        let checked = home_with(&text).run(&["policy", "check"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains(expected), "{thing}: {said}");
        let right = text.replace("postmortm", "postmortem").replace("nosuch", "guide");
        home_with(&right).run_ok(&["policy", "check"]);
    }
    let good = home_with(RULES);
    let said = good.run_ok(&["policy", "check"]);
    assert!(said.contains("no-payment-logs") && said.contains("own.cedar:2"), "{said}");
}

#[test]
fn explain_names_the_deciding_rule() {
    let home = home_with(RULES);
    let explain = |more: &[&str]| -> Value {
        let arguments = [&["policy", "explain", "--json"], more].concat();
        serde_json::from_str(&home.run_ok(&arguments)).unwrap()
    };
    let refused = explain(&["--role", "reader", "--tool", "query_logs", "--arg", "service=payment"]);
    assert_eq!((&refused["allowed"], &refused["rule"]), (&json!(false), &json!("no-payment-logs")));
    let open = explain(&["--role", "reader", "--tool", "query_logs"]);
    assert_eq!((&open["allowed"], &open["with_arguments"]), (&json!(true), &json!(false)));
    let intern = explain(&["--role", "intern", "--tool", "query_logs", "--arg", "service=cart"]);
    assert_eq!(intern["limits"]["look_back"]["secs"], 3600, "{intern}");
    let all = explain(&["--role", "intern"]);
    let sql = all["tools"].as_array().unwrap().iter().find(|t| t["tool"] == "sql").unwrap();
    assert_eq!((&sql["listed"], &sql["rule"]), (&json!(false), &json!("interns-no-sql")));
    let key = home.key(&["--role", "intern"]);
    let id = format!("key:{}", key.split('_').nth(1).unwrap());
    assert_eq!(explain(&["--principal", &id, "--tool", "sql"])["rule"], "interns-no-sql");
    let words = home.run_ok(&["policy", "explain", "--role", "reader", "--tool", "query_logs", "--arg", "service=payment"]);
    assert!(words.contains("refused") && words.contains("own.cedar:2"), "{words}");
    for wrong in [
        vec!["policy", "explain", "--role", "boss"],
        vec!["policy", "explain", "--role", "reader", "--tool", "query_log"],
        vec!["policy", "explain", "--role", "reader", "--tool", "query_logs", "--arg", "servce=x"],
        vec!["policy", "explain", "--principal", "key:nothere000"],
    ] {
        assert!(!home.run(&wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn expectations_are_tried() {
    let home = home_with(RULES);
    let met = write(
        &home,
        "met.yaml",
        "- {role: reader, tool: query_logs, args: {service: payment}, expect: deny, rule: no-payment-logs}\n\
         - {role: reader, tool: query_logs, args: {service: cart}, expect: allow}\n\
         - {role: intern, tool: sql, expect: hidden, rule: interns-no-sql}\n\
         - {role: intern, tool: query_logs, expect: listed}\n",
    );
    let said = home.run_ok(&["policy", "test", &met.display().to_string()]);
    assert!(said.contains("4 of 4"), "{said}");
    let missed = write(
        &home,
        "missed.csv",
        "role,tool,args,expect,rule\nreader,query_logs,\"{\"\"service\"\": \"\"payment\"\"}\",allow,\nintern,sql,,hidden,interns-no-sql\n",
    );
    let output = home.run(&["policy", "test", &missed.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && said.contains("row 1") && said.contains("no-payment-logs") && said.contains("1 of 2"),
        "{said}"
    );
}

#[test]
fn a_dry_run_says_what_would_change() {
    let home = home_with(RULES);
    let reader = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    server.call(Some(&reader), "list_sources", &json!({}));
    server.call(Some(&reader), "query_metrics", &json!({"metric": "up"}));
    let home = &server.home;
    let new = write(
        home,
        "new.cedar",
        "@id(\"no-metrics\") forbid(principal in Portcullis::Role::\"reader\", action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"query_metrics\");",
    );
    let new = new.display().to_string();
    let over: Value = serde_json::from_str(&home.run_ok(&["policy", "dry-run", &new, "--audit", "--json"])).unwrap();
    assert_eq!((&over["differing"], &over["would_be_refused"]), (&json!(1), &json!(1)), "{over}");
    assert_eq!((&over["calls"][0]["tool"], &over["calls"][0]["after"]["rule"]), (&json!("query_metrics"), &json!("no-metrics")));
    let calls = write(
        home,
        "calls.csv",
        "role,tool,args\nreader,query_logs,\"{\"\"service\"\":\"\"payment\"\"}\"\nreader,list_sources,\n",
    );
    let batch: Value =
        serde_json::from_str(&home.run_ok(&["policy", "dry-run", &new, "--calls", &calls.display().to_string(), "--json"]))
            .unwrap();
    assert_eq!((&batch["decided"], &batch["would_be_allowed"]), (&json!(2), &json!(1)), "{batch}");
    let words = home.run_ok(&["policy", "dry-run", &new, "--audit"]);
    assert!(words.contains("1 would be refused"), "{words}");
}

#[test]
fn access_is_reviewed_and_exported_without_formulas() {
    let home = home_with(&format!(
        "{RULES}\n@id(\"=cmd()\") forbid(principal in Portcullis::Role::\"intern\", action == Portcullis::Action::\"call\", resource == Portcullis::Tool::\"list_alerts\");"
    ));
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    server.call(Some(&key), "list_sources", &json!({}));
    let home = &server.home;
    let review: Value = serde_json::from_str(&home.run_ok(&["access", "review", "--all", "--json"])).unwrap();
    let lines = review["lines"].as_array().unwrap();
    let id = format!("key:{}", key.split('_').nth(1).unwrap());
    let used = lines.iter().find(|l| l["principal"] == id && l["tool"] == "list_sources").unwrap();
    assert!(used["allowed"] == true && used["last_used"].is_string(), "{used}");
    let unused = lines.iter().find(|l| l["principal"] == id && l["tool"] == "sql").unwrap();
    assert!(unused["last_used"].is_null(), "{unused}");
    assert!(lines.iter().any(|l| l["kind"] == "role" && l["roles"] == "intern" && l["tool"] == "sql" && l["allowed"] == false));
    let exported = home.run_ok(&["access", "review", "--all", "--csv"]);
    assert!(exported.contains("'=cmd()") && !exported.contains(",=cmd()"), "{exported}");
}

#[test]
fn rows_bytes_and_namespaces_of_a_grant_bound_the_answer() {
    let home = home_with(
        r#"
@id("few-rows") @max_rows("3") permit (principal in Portcullis::Role::"rows", action == Portcullis::Action::"call", resource);
@id("few-bytes") @max_bytes("2KB") permit (principal in Portcullis::Role::"bytes", action == Portcullis::Action::"call", resource);
@id("one-namespace") @namespaces("shop") permit (principal in Portcullis::Role::"space", action == Portcullis::Action::"call", resource);
"#,
    );
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, text.replace("roles: [intern]", "roles: [rows, bytes, space]")).unwrap();
    let [rows, bytes, space, reader] = ["rows", "bytes", "space", "reader"].map(|role| home.key(&["--role", role]));
    let server = Server::start_in(home);
    for (namespace, line) in [("shop", "inside"), ("vault", "outside")] {
        for number in 0..4 {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string();
            let attributes = json!([{"key": "service.name", "value": {"stringValue": "cart"}},
                {"key": "k8s.namespace.name", "value": {"stringValue": namespace}}]);
            let body = format!("{line} {number} {}", "x".repeat(600));
            let request = json!({"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords":
                [{"timeUnixNano": now, "severityNumber": 17, "body": {"stringValue": body}}]}]}]});
            let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
            assert_eq!(post(server.otlp, "/v1/logs", &headers, request.to_string().as_bytes()).status, 200);
        }
    }
    let logs = |key: &str| server.call(Some(key), "query_logs", &json!({"window": "15m", "limit": 50})).json();
    let sql = |key: &str| server.call(Some(key), "sql", &json!({"query": "SELECT * FROM otel_logs", "limit": 100})).json();
    let count =
        |reply: &Value| reply["result"]["structuredContent"]["rows"].as_array().unwrap_or_else(|| panic!("{reply}")).len();
    assert_eq!((count(&sql(&reader)), count(&sql(&rows)), count(&sql(&space))), (8, 3, 4));
    let few = logs(&rows);
    assert_eq!(few["result"]["structuredContent"]["shown"], 3, "{few}");
    server.home.audited(|r| r["tool"] == "query_logs" && r["rule"] == "few-rows" && r["decision"] == "allow");
    let confined = logs(&space).to_string() + &sql(&space).to_string();
    assert!(confined.contains("inside 0") && !confined.contains("outside"), "{confined}");
    assert!(logs(&reader).to_string().contains("outside 0"));
    server.home.audited(|r| r["tool"] == "sql" && r["rule"] == "one-namespace");
    let refused = logs(&bytes);
    assert!(refused.to_string().contains("the budget of one answer is 2000"), "{refused}");
    server.home.audited(|r| r["tool"] == "query_logs" && r["code"] == "too_large" && r["rule"] == "few-bytes");
}

#[test]
fn a_call_that_could_name_a_project_must_name_one_of_the_grant() {
    use crate::upstreams::{Puppet, accept_all, listed, sees, until, visitor};
    let deploys = json!({"name": "deploys", "description": "Lists.", "annotations": {"readOnlyHint": true},
        "inputSchema": {"type": "object", "properties": {"project": {"type": "string"}}}});
    let puppet = Puppet::new(&json!({"tools": [deploys]}));
    let home = crate::upstreams::home(&[puppet.entry("up", "", "")], "");
    let rule = r#"@id("own-project") @only_limits("true") @projects("shop") permit (principal, action == Portcullis::Action::"call", resource);"#;
    let path = write(&home, "own.cedar", rule);
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}policies: ['{}']\n", path.display())).unwrap();
    let server = Server::start_in(home);
    let reader = visitor(&server, &["--role", "reader"]);
    until("it waits", || if listed(&server.home).len() == 1 { Ok(()) } else { Err(server.log()) });
    accept_all(&server.home, "up");
    sees(&reader, "deploys", true);
    for arguments in [json!({"project": "vault"}), json!({})] {
        let refused = reader.call("deploys", &arguments).body;
        assert!(refused.contains("project-limit"), "{arguments}: {refused}");
        let record = server.home.audited(|r| r["tool"] == "deploys");
        assert_eq!((&record["rule"], &record["decision"]), (&json!("project-limit"), &json!("deny")), "{record}");
        assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "{record}");
    }
    assert_eq!(reader.call("deploys", &json!({"project": "shop"})).json()["result"]["isError"], false);
    // What takes no project is not touched.
    assert!(!reader.call("list_sources", &json!({})).body.contains("project-limit"));
}

#[test]
fn a_rule_about_the_hour_refuses_a_call_at_that_hour_of_the_installation() {
    let hour = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() % 86_400 / 3_600;
    // The hour may turn while this runs, and does not turn twice.
    let rule = |shift: u64| {
        let hours: Vec<String> = [0, 1].iter().map(|more| format!("context.hour == {}", (hour() + shift + more) % 24)).collect();
        format!(
            r#"@id("closed") forbid (principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"sql") when {{ {} }};"#,
            hours.join(" || ")
        )
    };
    // Now; five hours from now; and five hours from now by clocks five hours ahead.
    for (shift, offset, refused) in [(0, "", true), (5, "", false), (5, "policy_utc_offset: '+05:00'\n", true)] {
        let home = home_with(&rule(shift));
        let text = std::fs::read_to_string(&home.config).unwrap();
        std::fs::write(&home.config, format!("{text}{offset}")).unwrap();
        let key = home.key(&["--role", "reader"]);
        let server = Server::start_in(home);
        let reply = server.call(Some(&key), "sql", &json!({"query": "SELECT 1 AS x"})).json();
        let record = server.home.audited(|r| r["tool"] == "sql");
        assert_eq!(record["decision"] == "deny" && record["rule"] == "closed", refused, "{reply} {record}");
        assert_eq!(listed(&server, &key).contains(&"sql".to_owned()), !refused, "a rule about the hour alone hides at that hour");
    }
}

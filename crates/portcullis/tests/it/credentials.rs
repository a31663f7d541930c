//! Passwords at the MCP listener, keys that end, the role that keeps plugins, and what claims of a token confine to: each
//! through the real binary, with the refusal and its record.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::admin::get;
use crate::exchange::{issuer, token};
use crate::server::{BINARY, Home, Reply, Server, intact, modern, modern_headers, post};
use crate::upstreams::tools;
use crate::visitor::{Backend, Visitor};

const PASSWORD: &str = "the Kettle is 4 tall Giraffe";

fn hashed(password: &str) -> String {
    let mut made =
        Command::new(BINARY).args(["key", "hash-password"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    made.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    String::from_utf8(made.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

fn with_password(server: &Server, name: &str, password: &str) -> Reply {
    let given = STANDARD.encode(format!("{name}:{password}"));
    let headers = [modern_headers("query_logs"), vec![("Authorization".to_owned(), format!("Basic {given}"))]].concat();
    post(server.mcp, "/mcp", &headers, modern("query_logs", &json!({"window": "1h"})).to_string().as_bytes())
}

#[test]
fn a_password_opens_the_mcp_listener_within_its_scope_and_guessing_it_ends_in_waiting() {
    let home = Home::new(&format!(
        "identity:\n  users:\n  - {{name: ana, password_hash: '{0}', roles: [reader], scope: {{services: [cart]}}}}\n  \
         - {{name: bob, password_hash: '{0}', roles: [reader], doors: [metrics]}}\n  \
         lockout: {{failures_per_claim: 3, first_wait_of_claim: 30s}}\n",
        hashed(PASSWORD)
    ));
    let server = Server::start_in(home);
    for service in ["cart", "payment"] {
        assert_eq!(server.send_log(service, 17, &format!("a line of {service}")).status, 200);
    }
    let reply = with_password(&server, "ana", PASSWORD);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.body.contains("a line of cart") && !reply.body.contains("a line of payment"), "{}", reply.body);
    let call = server.home.audited(|r| r["kind"] == "call");
    assert_eq!((&call["principal"], &call["decision"]), (&json!("user:ana"), &json!("allow")));
    // A password that is right, at a door it is not for.
    let wrong_door = with_password(&server, "bob", PASSWORD);
    assert!(matches!(wrong_door.status, 401 | 403), "{} {}", wrong_door.status, wrong_door.body);
    server.home.audited(|r| r["rule"] == "wrong_door" && r["decision"] == "deny");
    // A wrong password and a stranger are the same to whoever asks.
    let (wrong, stranger) = (with_password(&server, "ana", "not the Kettle 5"), with_password(&server, "eve", PASSWORD));
    assert_eq!((wrong.status, stranger.status), (401, 401), "{} {}", wrong.body, stranger.body);
    assert_eq!(wrong.body, stranger.body);
    let record = server.home.audited(|r| r["rule"] == "wrong_password");
    assert_eq!((&record["kind"], &record["decision"]), (&json!("authentication"), &json!("deny")));
    // Guessing on ends in waiting, also for the right password; others are not touched.
    let locked = (0..8).map(|n| with_password(&server, "ana", &format!("guess number {n}"))).find(|r| r.status == 429);
    let locked = locked.expect("guesses are not slowed down");
    assert!(locked.header("retry-after").is_some(), "{}", locked.head);
    assert_eq!(with_password(&server, "ana", PASSWORD).status, 429, "the right one has to wait as well");
    server.home.audited(|r| r["rule"] == "locked_out" && r["decision"] == "deny");
    server.home.audited(|r| r["kind"] == "lockout");
    let written = format!("{}{:?}", server.log(), server.home.audit());
    assert!(!written.contains("Kettle") && !written.contains("guess number"), "{written}");
    assert!(intact(&server.home));
}

#[test]
fn a_listener_takes_only_the_kinds_of_credentials_it_was_told_to() {
    let home = Home::new(&format!(
        "identity:\n  mcp: {{key: false}}\n  ingest: {{key: false}}\n  users:\n  - {{name: ana, password_hash: '{}', roles: [reader]}}\n",
        hashed(PASSWORD)
    ));
    let keys = ["mcp", "ingest", "metrics"].map(|door| home.key(&["--role", "reader", "--scope", door]));
    let chosen = home.chosen_key();
    let server = Server::start_in(home);
    assert_eq!(with_password(&server, "ana", PASSWORD).status, 200, "the kind it takes");
    let denied = |kind: &str| {
        let fits = |r: &&Value| r["kind"] == kind && r["decision"] == "deny" && r["rule"] == "credential_not_accepted_here";
        server.home.audit().iter().filter(fits).count()
    };
    for (number, key) in [&keys[0], &chosen].into_iter().enumerate() {
        let refused = server.call(Some(key), "query_logs", &json!({"window": "1h"}));
        assert_eq!(refused.status, 401, "{}", refused.body);
        assert_eq!(denied("authentication"), number + 1, "{:#?}", server.home.audit());
    }
    let headers = [("Content-Type", "application/json"), ("Authorization", &*format!("Bearer {}", keys[1]))];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let refused = post(server.otlp, "/v1/logs", &headers, br#"{"resourceLogs":[]}"#);
    assert_eq!((refused.status, denied("ingest")), (401, 1), "{}", refused.body);
    // The other listener was told nothing.
    assert_eq!(get(&server, &keys[2], "/metrics").status, 200);
    assert!(intact(&server.home));
}

#[test]
fn a_key_ends_by_itself_while_the_server_runs() {
    let home = Home::new("");
    let key = home.key(&["--expires", "4s"]);
    let lasting = home.key(&["--expires", "1d"]);
    let server = Server::start_in(home);
    let began = Instant::now();
    assert_eq!(server.call(Some(&key), "list_sources", &json!({})).status, 200, "good until its end");
    let refused = loop {
        let reply = server.call(Some(&key), "list_sources", &json!({}));
        if reply.status != 200 {
            break reply;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "a key of four seconds still opens");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(refused.status, 401, "{}", refused.body);
    let record = server.home.audited(|r| r["rule"] == "expired_key");
    assert_eq!((&record["kind"], &record["decision"]), (&json!("authentication"), &json!("deny")));
    assert_eq!(server.call(Some(&lasting), "list_sources", &json!({})).status, 200);
    let listed: Vec<Value> = serde_json::from_str(&server.home.run_ok(&["key", "list", "--json"])).unwrap();
    let id = key.split('_').nth(1).unwrap();
    let line = listed.iter().find(|one| one["id"] == id).unwrap();
    assert_eq!(line["status"], "expired", "{line}");
}

#[test]
fn who_keeps_plugins_looks_and_changes_nothing_else() {
    let backend = Backend::start(|_, _| (200, "[]".to_owned()));
    let home = crate::limits::home(&backend, "burst: 200");
    let (keeper, operator) = (home.key(&["--role", "plugin-admin"]), home.key(&["--role", "operator"]));
    let steward = home.key(&["--role", "plugin-admin", "--scope", "admin"]);
    let server = Server::start_in(home);
    let (keeper, operator) = (Visitor::new(&server, &keeper), Visitor::new(&server, &operator));
    let write = "shop_create_order";
    assert!(tools(&operator).iter().any(|tool| tool == write));
    let listed = tools(&keeper);
    assert!(listed.iter().any(|tool| tool == "list_sources") && !listed.iter().any(|tool| tool == write), "{listed:?}");
    assert!(keeper.call("list_sources", &json!({})).json()["result"].is_object());
    let refused = keeper.call(write, &json!({"item": "x"})).json();
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let principal = format!("key:{}", keeper.key.split('_').nth(1).unwrap());
    let record = server.home.audited(|r| r["tool"] == write && r["principal"] == principal.as_str());
    assert_eq!(record["decision"], "deny", "{record}");
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    // Nor does the role administer: that is the role admin's alone.
    for path in ["status", "keys", "audit", "approvals"] {
        let reply = get(&server, &steward, &format!("/api/v1/{path}"));
        assert_eq!(reply.status, 403, "{path}: {}", reply.body);
    }
    let record = server.home.audited(|r| r["transport"] == "admin" && r["decision"] == "deny");
    assert!(record["method"].as_str().unwrap().starts_with("admin/"), "{record}");
}

#[test]
fn claims_of_a_token_choose_the_tenant_and_confine_to_services() {
    let (authority, signing) = issuer();
    let home = Home::new(&format!(
        "identity:\n  tokens:\n    issuers:\n    - name: test\n      issuer: '{}'\n      default_roles: [reader]\n      \
         tenant: {{by: {{claim: org, map: {{'Acme Inc': acme, 'Beta': beta}}}}}}\n      services_claim: services\n",
        authority.url
    ));
    let senders = ["acme", "beta"].map(|tenant| (tenant, home.key(&["--scope", "ingest", "--tenant", tenant])));
    let server = Server::start_in(home);
    for (tenant, key) in &senders {
        for service in ["cart", "payment"] {
            let log = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
                "scopeLogs": [{"logRecords": [{"timeUnixNano": crate::visitor::now_nanos().to_string(), "severityNumber": 17,
                "body": {"stringValue": format!("{tenant} of {service}")}}]}]}]});
            let headers = [
                ("Content-Type".to_owned(), "application/json".to_owned()),
                ("Authorization".to_owned(), format!("Bearer {key}")),
            ];
            assert_eq!(post(server.otlp, "/v1/logs", &headers, log.to_string().as_bytes()).status, 200);
        }
    }
    let all = ["acme of cart", "acme of payment", "beta of cart", "beta of payment"];
    let ask = |claims: &Value| {
        let token = token(&signing, &authority.url, server.mcp, "ada", claims);
        server.call(Some(&token), "query_logs", &json!({"window": "1h"}))
    };
    for (claims, sees) in [
        (json!({"org": "Acme Inc", "services": ["cart"]}), &["acme of cart"][..]),
        (json!({"org": "Acme Inc", "services": ["cart", "payment"]}), &["acme of cart", "acme of payment"][..]),
        (json!({"org": "Beta", "services": ["payment"]}), &["beta of payment"][..]),
        // Without the claim there is no service, not every one.
        (json!({"org": "Beta"}), &[][..]),
        (json!({"org": "Beta", "services": []}), &[][..]),
    ] {
        let reply = ask(&claims);
        for line in all {
            assert_eq!(reply.body.contains(line), sees.contains(&line), "{claims}: {line}: {}", reply.body);
        }
    }
    let call = server.home.audited(|r| r["kind"] == "call" && r["decision"] == "allow" && r["tenant"] == "beta");
    assert_eq!(call["principal"], "token:test/ada", "{call}");
    // A tenant nobody mapped, and none at all, let nobody in.
    for claims in [
        json!({"org": "acme", "services": ["cart"]}),
        json!({"services": ["cart"]}),
        json!({"org": ["Beta", "Acme Inc"], "services": ["cart"]}),
    ] {
        let reply = ask(&claims);
        assert!(matches!(reply.status, 401 | 403), "{claims}: {} {}", reply.status, reply.body);
        server.home.audited(|r| r["rule"] == "token_tenant_unmapped" && r["decision"] == "deny");
    }
    assert!(intact(&server.home));
}

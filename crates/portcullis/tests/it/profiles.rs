//! Behaviour profiles through the real binary: learned, accepted, enforced.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Server, intact};
use crate::visitor::Visitor;

/// Starts a server in `home` with profiles in this mode.
fn restarted(home: Home, from: &str, to: &str) -> Server {
    let text = std::fs::read_to_string(&home.config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&home.config, text.replace(from, to)).unwrap();
    Server::start_in(home)
}

/// Stops in good order, so that what was learned is kept.
fn stopped(mut server: Server) -> Home {
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    server.kill()
}

#[test]
fn what_was_seen_and_accepted_is_all_that_is_let_through() {
    let home = Home::new("profiles: {mode: observe}\n");
    let (key, stranger) = (home.key(&[]), home.key(&[]));
    let principal = format!("key:{}", key.split('_').nth(1).unwrap());
    let server = Server::start_in(home);
    let one = Visitor::new(&server, &key);
    for _ in 0..3 {
        assert_eq!(one.call("list_services", &json!({"window": "1h"})).status, 200);
        assert_eq!(one.call("query_logs", &json!({"service": "Tiger4711", "window": "15m"})).status, 200);
    }
    let home = stopped(server);
    let learned: Value = serde_json::from_str(&home.run_ok(&["profile", "show", &principal])).unwrap();
    assert!(learned["accepted"].is_null() && learned["learned"]["tools"]["query_logs"].is_object(), "{learned}");
    assert!(!learned.to_string().contains("Tiger4711"), "shapes only, never values: {learned}");
    assert!(home.run_ok(&["profile", "suggest", &principal]).contains("list_services"));

    // Reports, and refuses nothing.
    let server = restarted(home, "observe", "dry_run");
    let one = Visitor { mcp: server.mcp, ..one };
    server.home.run_ok(&["profile", "accept", &principal]);
    server.home.audited(|r| r["method"] == "profile.accept" && r["note"] == principal.as_str());
    let home = stopped(server);
    let server = restarted(home, "dry_run", "dry_run");
    let tried = one.call("list_alerts", &json!({})).json();
    assert!(tried["result"].is_object(), "{tried}");
    let began = Instant::now();
    let reported = loop {
        let found = server.home.audit().into_iter().find(|r| r["tool"] == "list_alerts" && r["decision"] == "allow");
        if let Some(found) = found {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "no record");
    };
    assert!(reported["note"].as_str().is_some_and(|n| n.contains("profile")), "{reported}");

    // Refuses what was never seen, and whoever has no profile.
    let home = stopped(server);
    let server = restarted(home, "dry_run", "enforce");
    let seen = one.call("list_services", &json!({"window": "1h"})).json();
    assert!(seen["result"].is_object() && seen["result"]["isError"] != true, "{seen}");
    for (tool, arguments) in
        [("sql", json!({"query": "SELECT 1"})), ("get_trace", json!({"trace_id": "0af7651916cd43dd8448eb211c80319c"}))]
    {
        let refused = one.call(tool, &arguments).json();
        assert!(refused.to_string().contains("profile"), "{tool}: {refused}");
        let record = server.home.audited(|r| r["tool"] == tool && r["rule"] == "behaviour-profile");
        assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")));
    }
    let other = Visitor { key: stranger.clone(), ..one };
    let refused = other.call("list_services", &json!({"window": "1h"})).json();
    assert!(refused.to_string().contains("profile"), "{refused}");
    let principal = format!("key:{}", stranger.split('_').nth(1).unwrap());
    server.home.audited(|r| r["principal"] == principal.as_str() && r["rule"] == "behaviour-profile");
    assert!(intact(&server.home));
}

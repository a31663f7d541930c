//! Behaviour profiles through the real binary: learned, accepted, enforced.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Server, intact};
use crate::visitor::Visitor;

/// Starts a server in `home` with profiles in this mode.
pub(crate) fn restarted(home: Home, from: &str, to: &str) -> Server {
    let text = std::fs::read_to_string(&home.config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&home.config, text.replace(from, to)).unwrap();
    Server::start_in(home)
}

/// Stops in good order, so that what was learned is kept.
pub(crate) fn stopped(mut server: Server) -> Home {
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
    let suggested = home.run_ok(&["profile", "suggest", &principal]);
    assert!(suggested.contains("list_services"), "{suggested}");
    let file = home.directory.path().join("suggested.cedar");
    std::fs::write(&file, &suggested).unwrap();
    assert!(home.run_ok(&["policy", "check", file.to_str().unwrap()]).contains("profile-key-"), "it can be used as it is");

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

/// Lets `calls` be learned of one caller, accepts that, and gives a home that enforces it.
pub(crate) fn enforced(settings: &str, calls: &[(&str, Value)]) -> (Home, Visitor) {
    let home = Home::new(&format!("profiles: {{mode: observe}}\n{settings}"));
    let key = home.key(&[]);
    let principal = format!("key:{}", key.split('_').nth(1).unwrap());
    let server = Server::start_in(home);
    let one = Visitor::new(&server, &key);
    for (tool, arguments) in calls {
        let reply = one.call(tool, arguments).json();
        assert!(reply["result"].is_object() && reply["result"]["isError"] != true, "{tool}: {reply}");
    }
    let home = stopped(server);
    home.run_ok(&["profile", "accept", &principal]);
    (home, one)
}

pub(crate) const OUTSIDE: &str = "outside the behaviour profile";

/// The caller is told that it is outside of its profile, the operator in what way.
fn refused(server: &Server, reply: &Value, tool: &str, words: &str) {
    assert!(reply.to_string().contains(OUTSIDE), "{tool}: {reply}");
    let record = server.home.audited(|r| r["tool"] == tool && r["rule"] == "behaviour-profile");
    assert!(record["note"].as_str().is_some_and(|note| note.contains(words)), "{words}: {record}");
    assert_eq!((&record["decision"], &record["code"]), (&json!("deny"), &json!("forbidden")), "{record}");
    assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "a source was asked: {record}");
}

#[test]
fn another_shape_and_too_many_calls_are_refused() {
    let window = json!({"window": "1h"});
    let (home, one) = enforced("", &[("list_services", window.clone())]);
    let server = restarted(home, "observe", "enforce");
    for arguments in [json!({}), json!({"window": "1h", "limit": 5}), json!({"window": "1h", "contains": "x"})] {
        let reply = one.call("list_services", &arguments).json();
        refused(&server, &reply, "list_services", "are not of a shape in its profile");
    }
    drop(server.kill());

    let (home, one) = enforced("", &[("list_services", window.clone())]);
    let server = restarted(home, "observe", "enforce");
    // At most twice the one call of a minute it was seen with; of nine calls more than two are within one minute.
    let replies: Vec<Value> = (0..9).map(|_| one.call("list_services", &window).json()).collect();
    assert!(replies[0]["result"].is_object(), "{}", replies[0]);
    let late = replies.iter().find(|reply| reply.to_string().contains(OUTSIDE)).expect("a refused call");
    refused(&server, late, "list_services", "calls in this minute, at most 2 are in its profile");
    assert!(intact(&server.home));
}

#[test]
fn an_hour_far_from_those_of_the_profile_is_refused() {
    let window = json!({"window": "1h"});
    let (home, one) = enforced("", &[("list_services", window.clone())]);
    // As if it had been watched half a day ago.
    let shift = r#"
import json, sqlite3, sys
store = sqlite3.connect(sys.argv[1])
for key, value in store.execute("SELECT key, value FROM entry WHERE namespace = 'gateway.profiles.accepted'").fetchall():
    profile = json.loads(value)
    hours = profile["hours"]
    assert hours, profile
    profile["hours"] = ((hours << 12) | (hours >> 12)) & 0xFFFFFF
    store.execute("UPDATE entry SET value = ? WHERE namespace = 'gateway.profiles.accepted' AND key = ?", (json.dumps(profile).encode(), key))
    store.commit()
    print(key)
"#;
    let state = home.data().join("state.sqlite");
    let moved = std::process::Command::new("python3").args(["-c", shift]).arg(&state).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&moved.stdout).lines().count(), 1, "one profile was moved: {moved:?}");
    let server = restarted(home, "observe", "enforce");
    let reply = one.call("list_services", &window).json();
    refused(&server, &reply, "list_services", "is outside the hours of its profile");
    assert!(intact(&server.home));
}

#[test]
fn an_enforced_profile_reaches_no_source_it_was_not_seen_with() {
    let backend = crate::visitor::Backend::start(|path, _| {
        let data = if path.contains("alerts") { json!({"alerts": []}) } else { json!([]) };
        (200, json!({"status": "success", "data": data}).to_string())
    });
    let settings = format!("sources: [{{name: prom, kind: prometheus, url: '{}', allow_addresses: [loopback]}}]\n", backend.url);
    let asked = |source: &str| json!({"window": "1h", "source": source});
    let (home, one) = enforced(&settings, &[("list_services", asked("embedded"))]);
    let before = backend.seen().len();
    let server = restarted(home, "observe", "enforce");
    let known = one.call("list_services", &asked("embedded")).json();
    assert!(known["result"].is_object() && known["result"]["isError"] != true, "{known}");
    let foreign = one.call("list_services", &asked("prom")).json();
    assert!(foreign.to_string().contains("there is no source 'prom'"), "{foreign}");
    let record = server.home.audited(|r| r["tool"] == "list_services" && r["code"] == "not_found");
    assert!(record["sources"].as_array().is_none_or(Vec::is_empty), "{record}");
    let questions = backend.seen().split_off(before);
    let data = ["/api/v1/series", "/api/v1/query", "/api/v1/label"];
    assert!(!questions.iter().any(|request| data.iter().any(|path| request.contains(path))), "{questions:?}");
    assert!(intact(&server.home));
}

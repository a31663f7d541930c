//! An audit log in trouble, from outside: one that cannot be written stops calls, one that was stripped of its signatures is
//! not signed anew by a start, and old files go when the operator says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::{ask, change, get};
use crate::server::{Home, Server, intact};
use crate::visitor::Backend;

fn files(home: &Home, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.data().join("audit")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(ending));
    found.sort();
    found
}

/// The chain a running server writes: the one file with records that grows.
fn written_now(server: &Server, key: &str) -> PathBuf {
    let sizes = || -> Vec<(PathBuf, u64)> {
        let of = |path: PathBuf| (path.clone(), std::fs::metadata(&path).unwrap().len());
        files(&server.home, ".jsonl").into_iter().map(of).collect()
    };
    let before = sizes();
    server.call(Some(key), "list_sources", &json!({}));
    let grown = sizes().into_iter().find(|one| !before.contains(one)).expect("a file that grows");
    grown.0
}

fn calls(home: &Home) -> usize {
    home.audit().iter().filter(|r| r["kind"] == "call").count()
}

/// Waits until the server says that it is ready.
fn ready(server: &Server) {
    let began = Instant::now();
    while ask(server.admin, "GET", "/readyz", &[], b"").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "the server does not get ready: {}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The record that tells how many there are not.
fn gap(server: &Server) -> String {
    let told = |r: &Value| r["note"].as_str().is_some_and(|note| note.contains("records were not written since"));
    let record = server.home.audited(told);
    assert_eq!((&record["kind"], &record["code"]), (&json!("error"), &json!("unavailable")), "{record}");
    record["note"].as_str().unwrap().to_owned()
}

#[test]
fn calls_stop_while_the_log_cannot_be_written_and_go_on_when_it_can() {
    let home = Home::new("audit: {rotate: 64KiB}\n");
    let key = home.key(&[]);
    let administrator = home.key(&["--scope", "admin", "--role", "admin"]);
    let stolen = home.key(&[]);
    let server = Server::start_in(home);
    let active = written_now(&server, &key);
    // Whoever has not been let in before is not while that cannot be recorded.
    assert_ne!(change(&server, &administrator, "/api/v1/approvals/abcdef012345/deny").status, 503);
    // Something lies where the next file would go, and nothing is overwritten.
    let next = PathBuf::from(format!("{}.1", active.display()));
    std::fs::write(&next, "not a record").unwrap();
    let began = Instant::now();
    let refused = loop {
        let reply = server.call(Some(&key), "list_sources", &json!({})).json();
        if reply.to_string().contains("audit log cannot be written") {
            break reply;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the log is never full: {reply}");
    };
    assert!(refused["result"]["structuredContent"].is_null(), "no answer without a record: {refused}");
    let recorded = calls(&server.home);
    for _ in 0..3 {
        let reply = server.call(Some(&key), "list_sources", &json!({})).json();
        assert!(reply.to_string().contains("audit log cannot be written"), "{reply}");
    }
    assert_eq!(calls(&server.home), recorded, "what was not answered is not recorded as answered");
    assert_eq!(ask(server.admin, "GET", "/readyz", &[], b"").status, 503, "and the server is not ready");
    assert!(server.log().contains("is already there and is not overwritten"), "the log says why: {}", server.log());
    // A key is taken back all the same, and that is said.
    let id = stolen.split('_').nth(1).unwrap();
    let revoked = change(&server, &administrator, &format!("/api/v1/keys/{id}/revoke"));
    assert_eq!(revoked.status, 503, "there is no record: {}", revoked.body);
    assert!(revoked.body.contains("is revoked, and that could not be recorded"), "and it is said: {}", revoked.body);
    assert_eq!(server.call(Some(&stolen), "list_sources", &json!({})).status, 401, "and the key is good for nothing");
    assert!(server.log().contains("a key was revoked, and that could not be recorded"), "{}", server.log());

    // The obstacle goes, and nothing else is done.
    assert_eq!(std::fs::read_to_string(&next).unwrap(), "not a record", "nothing was overwritten");
    std::fs::remove_file(&next).unwrap();
    ready(&server);
    let reply = server.call(Some(&key), "list_sources", &json!({})).json();
    assert!(reply["result"]["structuredContent"].is_object(), "{reply}");
    assert_eq!(calls(&server.home), recorded + 1);
    let told = gap(&server);
    assert!(told.contains(" 0 calls went ahead without a record"), "{told}");
    assert_eq!(server.call(Some(&stolen), "list_sources", &json!({})).status, 401, "the key stays taken back");
    assert!(intact(&server.home), "nothing of it was lost: {:?}", server.home.run(&["audit", "verify"]));

    let server = Server::start_in(server.kill());
    let reply = server.call(Some(&key), "list_sources", &json!({})).json();
    assert!(reply["result"]["structuredContent"].is_object(), "{reply}");
    assert!(intact(&server.home), "and a start goes on with it: {:?}", server.home.run(&["audit", "verify"]));
}

#[test]
fn where_the_operator_says_so_looking_goes_on_without_a_record_and_changing_does_not() {
    let backend = Backend::start(|_, _| (200, "[]".to_owned()));
    let home = crate::limits::home(&backend, "write: {per_second: 1000, burst: 1000}, tool: {per_second: 1000, burst: 1000}");
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, format!("{text}audit: {{rotate: 64KiB, on_failure: {{read: continue}}}}\n")).unwrap();
    let key = home.key(&["--role", "admin"]);
    let scraper = home.key(&["--scope", "metrics"]);
    let doctor: Vec<Value> = serde_json::from_slice(&home.run(&["doctor", "--json"]).stdout).unwrap();
    let line = doctor.iter().find(|line| line["name"] == "no record, no answer").unwrap();
    assert_eq!(line["state"], "attention", "{line}");
    let server = Server::start_in(home);
    let active = written_now(&server, &key);
    let next = PathBuf::from(format!("{}.1", active.display()));
    std::fs::write(&next, "not a record").unwrap();
    let write = || server.call(Some(&key), "shop_create_order", &json!({"item": "x"})).json();
    let began = Instant::now();
    let refused = loop {
        let look = server.call(Some(&key), "list_sources", &json!({})).json();
        assert!(look["result"]["structuredContent"].is_object(), "looking stopped: {look}");
        let change = write();
        if change.to_string().contains("audit log cannot be written") {
            break change;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "the log is never full: {change}");
    };
    assert!(refused["result"]["structuredContent"].is_null(), "{refused}");
    let (placed, recorded) = (backend.seen().len(), calls(&server.home));
    for _ in 0..5 {
        let look = server.call(Some(&key), "list_sources", &json!({})).json();
        assert!(look["result"]["structuredContent"].is_object(), "{look}");
        assert!(write().to_string().contains("audit log cannot be written"));
    }
    assert_eq!(backend.seen().len(), placed, "a change that cannot be recorded is not sent");
    assert_eq!(calls(&server.home), recorded, "there is no record");
    // It is counted and told while it lasts.
    let unrecorded = || -> f64 {
        let metrics = get(&server, &scraper, "/metrics").body;
        let counted = metrics.lines().find_map(|line| line.strip_prefix("portcullis_audit_unrecorded_calls "));
        counted.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    };
    let counted = unrecorded();
    assert!(counted >= 6.0, "{counted} calls without a record are counted");
    assert!(server.log().contains("is already there and is not overwritten"), "the log says why: {}", server.log());
    std::fs::remove_file(&next).unwrap();
    ready(&server);
    let change = write();
    assert!(change["result"]["structuredContent"].is_object(), "{change}");
    assert_eq!(calls(&server.home), recorded + 1);
    let told = gap(&server);
    assert!(told.contains(" calls went ahead without a record") && !told.contains(" 0 calls"), "{told}");
    assert!(unrecorded() < 0.5, "they are told, once");
    assert!(intact(&server.home), "{:?}", server.home.run(&["audit", "verify"]));
}

#[test]
fn old_files_go_and_a_record_says_so() {
    let home = Home::new("audit: {rotate: 64KiB, retention: {max_size: 64KiB}}\n");
    let key = home.key(&[]);
    let server = Server::start_in(home);
    let began = Instant::now();
    let removed = loop {
        for _ in 0..20 {
            server.call(Some(&key), "list_sources", &json!({}));
        }
        if let Some(record) = server.home.audit().into_iter().find(|r| r["kind"] == "retention") {
            break record;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "nothing was removed");
    };
    assert!(removed.to_string().contains("retention"), "{removed}");
    let home = server.kill();
    assert!(intact(&home), "what is left verifies");
    let report: Value = serde_json::from_str(&home.run_ok(&["audit", "verify", "--json"])).unwrap();
    let begins = |chain: &Value| chain["begins_at"].as_u64().unwrap();
    assert!(report["chains"].as_array().unwrap().iter().any(|chain| begins(chain) > 1), "{report}");
}

/// What somebody who can write in the directory and has no key can do to make a log look like one from before signatures.
fn strip(home: &Home) -> String {
    std::fs::remove_file(home.data().join("audit/audit.pub")).unwrap();
    for path in files(home, ".checkpoints") {
        std::fs::remove_file(path).unwrap();
    }
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().trim_end_matches(".head").to_owned();
    let mut chain = String::new();
    for path in files(home, ".head") {
        let mut head: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        head.as_object_mut().unwrap().remove("signature");
        std::fs::write(&path, head.to_string()).unwrap();
        chain = name(&path);
    }
    chain
}

#[test]
fn a_log_without_signatures_is_not_signed_by_a_start() {
    let home = Home::new("");
    let key = home.key(&[]);
    assert!(intact(&home));
    let chain = strip(&home);
    let server = Server::start_in(home);
    assert!(server.call(Some(&key), "list_sources", &json!({})).json()["result"].is_object());
    let log = server.log();
    assert!(log.contains(&chain) && log.contains("audit adopt"), "the operator is told: {log}");
    let opened = server.home.audited(|r| r["kind"] == "opened" && r.to_string().contains("left_aside"));
    assert!(opened.to_string().contains(&chain), "{opened}");
    assert!(!intact(&server.home), "a start vouches for nothing");
    let home = server.kill();
    assert!(!intact(&Server::start_in(home).home), "nor does the next one");
}

#[test]
fn a_chain_is_signed_as_it_is_by_somebody_who_says_so_and_a_record_stays() {
    let home = Home::new("");
    home.key(&[]);
    let chain = strip(&home);
    assert!(home.run_ok(&["audit", "adopt", &chain]).contains("signed as it is"));
    let record = home.audited(|r| r["method"] == "audit.adopt");
    assert_eq!((&record["kind"], &record["target"]), (&json!("admin"), &json!(chain)), "{record}");
    assert!(record["principal"].as_str().unwrap().starts_with("local:"), "{record}");
    for wrong in [chain.as_str(), "audit-nothing"] {
        let output = home.run(&["audit", "adopt", wrong]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(wrong), "{said}");
    }
    let adopted = home.audit().iter().filter(|r| r["method"] == "audit.adopt").count();
    assert_eq!(adopted, 1, "what was refused left no record");
}

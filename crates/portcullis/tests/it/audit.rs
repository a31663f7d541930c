//! The audit log from outside: what was called and refused is found, counted, exported and erased, and an edit is named.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::server::{Home, Server, intact};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn audit_files(home: &Home) -> Vec<PathBuf> {
    std::fs::read_dir(home.data().join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn holds(path: &Path, text: &str) -> bool {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(text)
}

/// A server that answered an allowed call, refused one without a key, and met a tool named like a formula.
fn used() -> (Home, String) {
    let home = Home::new("");
    let key = home.key(&[]);
    let server = Server::start_in(home);
    let id = key.split('_').nth(1).unwrap().to_owned();
    let answer = server.call(Some(&key), "list_sources", &json!({})).json();
    assert!(answer["result"].is_object(), "{answer}");
    server.call(None, "list_sources", &json!({}));
    server.call(Some(&key), "=cmd()", &json!({}));
    (server.kill(), id)
}

#[test]
fn allowed_and_refused_calls_are_found_counted_and_paged() {
    let (home, id) = used();
    let principal = format!("key:{id}");
    let allowed = lines(&home.run_ok(&[
        "audit",
        "query",
        "--principal",
        &principal,
        "--decision",
        "allow",
        "--tool",
        "list_sources",
        "--json",
    ]));
    let call = allowed.iter().find(|r| r["kind"] == "call").unwrap();
    assert_eq!((call["principal"].as_str(), call["transport"].as_str()), (Some(principal.as_str()), Some("http")));
    assert_eq!(call["parameters"].as_str().unwrap().len(), 64);
    assert!(call["latency_us"].is_u64() && call["client"].is_string(), "{call}");
    let refused =
        lines(&home.run_ok(&["audit", "query", "--outcome", "refused", "--code", "unauthenticated", "--since", "1h", "--json"]));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(home.run_ok(&["audit", "query", "--principal", &principal]).contains("list_sources"));
    assert!(home.run_ok(&["audit", "query", "--until", "1h"]).contains("No record fits"));

    let all = lines(&home.run_ok(&["audit", "query", "--json"]));
    let first = home.run(&["audit", "query", "--limit", "2", "--json"]);
    let said = String::from_utf8(first.stderr).unwrap();
    let cursor = said.split("--cursor ").nth(1).unwrap().trim().to_owned();
    let rest = lines(&home.run_ok(&["audit", "query", "--json", "--cursor", &cursor]));
    let pages = [lines(&String::from_utf8(first.stdout).unwrap()), rest].concat();
    assert_eq!(pages, all, "what is cut is said, and the cursor goes on there");
    assert!(!home.run(&["audit", "query", "--cursor", "audit-x/1"]).status.success());

    let stats: Value = serde_json::from_str(&home.run_ok(&["audit", "stats", "--json"])).unwrap();
    assert_eq!(stats["all"]["records"].as_u64(), Some(all.len() as u64));
    assert_eq!(stats["codes"]["unauthenticated"], 1);
    assert!(stats["principals"][&principal]["ok"].as_u64().unwrap() >= 1 && stats["latency_p95_us"].is_u64(), "{stats}");
    assert!(home.run_ok(&["audit", "stats"]).contains("list_sources"));
    for (option, value, says) in [("--kind", "cal", "call"), ("--code", "nope", "forbidden"), ("--since", "soon", "RFC 3339")] {
        let output = home.run(&["audit", "query", option, value]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(says), "{option} {value}: {text}");
    }
}

/// Whether `text` holds something that hides from who reads it or turns it around.
fn hides(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2066}' | '\u{200b}' | '\u{e0041}'))
}

#[test]
fn what_is_hidden_in_a_name_is_written_out_wherever_it_is_printed() {
    let planted = "\u{202e} evil\u{200b}\u{2066}\u{e0041}";
    let home = Home::new("");
    home.run_ok(&["key", "create", "--label", planted]);
    let key = home.key(&[]);
    let server = Server::start_in(home);
    let visitor = crate::visitor::Visitor::new(&server, &key);
    visitor.call(planted, &json!({}));
    let home = &server.home;
    home.audited(|r| r["tool"] == planted && r["decision"] == "deny");
    let shown = r"\u{202e} evil\u{200b}\u{2066}\u{e0041}";
    for words in [&["audit", "tail"][..], &["audit", "query"], &["audit", "stats"], &["key", "list"]] {
        let text = home.run_ok(words);
        assert!(text.contains(shown) && !hides(&text), "{words:?}: {text:?}");
    }
    // As JSON it is the same text, in escapes.
    let text = home.run_ok(&["audit", "query", "--outcome", "refused", "--json"]);
    assert!(text.contains(r"\u202e evil\u200b\u2066\udb40\udc41") && !hides(&text), "{text:?}");
    // What is said of a mistake goes to standard error.
    let refused = home.run(&["policy", "explain", "--role", "reader", "--tool", planted]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains(shown) && !hides(&told), "{told:?}");
}

#[test]
fn arguments_are_in_the_log_as_a_keyed_hash_only() {
    let marks: Vec<String> = (0..2)
        .map(|_| {
            let home = Home::new("");
            let key = home.key(&[]);
            let server = Server::start_in(home);
            for _ in 0..2 {
                let answer = server.call(Some(&key), "query_logs", &json!({"service": "Tiger4711", "window": "15m"})).json();
                assert!(answer["result"].is_object(), "{answer}");
            }
            let home = server.kill();
            let named = audit_files(&home).into_iter().find(|file| holds(file, "Tiger4711"));
            assert!(named.is_none(), "{named:?} holds an argument");
            let calls = lines(&home.run_ok(&["audit", "query", "--kind", "call", "--tool", "query_logs", "--json"]));
            let marks: Vec<&str> = calls.iter().map(|call| call["parameters"].as_str().unwrap()).collect();
            assert!(marks.len() == 2 && marks[0] == marks[1], "one question has one mark: {calls:?}");
            marks[0].to_owned()
        })
        .collect();
    assert_ne!(marks[0], marks[1], "without the key of an installation nobody finds out by trying");
}

#[test]
fn exports_are_safe_and_follow_their_schema() {
    let (home, id) = used();
    let csv = home.run_ok(&["audit", "export", "--format", "csv"]);
    assert!(csv.starts_with("log,seq,time,kind,principal"));
    assert!(csv.contains(",'=cmd(),") && !csv.contains(",=cmd()"), "{csv}");
    let events = lines(&home.run_ok(&["audit", "export", "--format", "ocsf", "--principal", &format!("key:{id}")]));
    let call = events.iter().find(|e| e["api"]["operation"] == "list_sources").unwrap();
    assert_eq!(
        (call["class_uid"].as_u64(), call["actor"]["user"]["name"].as_str()),
        (Some(6_003), Some(format!("key:{id}").as_str()))
    );
    let file = home.directory.path().join("records.json");
    home.run_ok(&["audit", "export", "--format", "json", "--output", file.to_str().unwrap()]);
    assert_eq!(lines(&std::fs::read_to_string(&file).unwrap()), lines(&home.run_ok(&["audit", "query", "--json"])));
}

#[test]
fn an_erased_subject_is_nowhere_and_the_log_still_verifies() {
    let (home, id) = used();
    let subject = format!("key:{id}");
    assert!(audit_files(&home).iter().any(|f| holds(f, &id)));
    let report: Value = serde_json::from_str(&home.run_ok(&["audit", "erase", "--subject", &subject, "--json"])).unwrap();
    assert!(report["records"].as_u64().unwrap() >= 3 && report["left"] == 0, "{report}");
    for file in audit_files(&home) {
        assert!(!holds(&file, &id), "{} still names the subject", file.display());
    }
    assert!(intact(&home));
    assert!(home.run_ok(&["audit", "verify"]).contains("pseudonymised"));
    let pseudonym = report["pseudonym"].as_str().unwrap();
    let still = lines(&home.run_ok(&["audit", "query", "--principal", pseudonym, "--json"]));
    assert!(still.iter().any(|r| r["tool"] == "list_sources"), "{still:?}");
    home.audited(|r| r["kind"] == "erased" && r["principal"].as_str().is_some_and(|p| p.starts_with("local:")));
    assert!(home.run_ok(&["audit", "erase", "--subject", &subject]).contains("No record"));
}

#[test]
fn a_running_server_keeps_its_records() {
    let home = Home::new("");
    let key = home.key(&[]);
    let server = Server::start_in(home);
    server.call(Some(&key), "list_sources", &json!({}));
    let subject = format!("key:{}", key.split('_').nth(1).unwrap());
    let output = server.home.run(&["audit", "erase", "--subject", &subject]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("stop it") && text.contains("nothing was changed"), "{text}");
    assert!(!lines(&server.home.run_ok(&["audit", "query", "--principal", &subject, "--json"])).is_empty());
}

#[test]
fn an_edit_is_named_by_file_and_line_and_the_public_key_is_enough() {
    let (home, _) = used();
    let key = home.run_ok(&["audit", "public-key"]);
    let file = home.directory.path().join("public");
    std::fs::write(&file, &key).unwrap();
    home.run_ok(&["audit", "verify", "--public-key", key.trim()]);
    home.run_ok(&["audit", "verify", "--public-key", file.to_str().unwrap()]);
    let other = used().0.run_ok(&["audit", "public-key"]);
    assert!(!home.run(&["audit", "verify", "--public-key", other.trim()]).status.success());

    let path = audit_files(&home).into_iter().find(|f| holds(f, "list_sources")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let line = 1 + text.lines().position(|l| l.contains("list_sources")).unwrap();
    std::fs::write(&path, text.replacen("list_sources", "list_sourceS", 1)).unwrap();
    let output = home.run(&["audit", "verify"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(!output.status.success() && said.contains(&format!("{name} line {line}: ")), "{said}");
}

//! Configurations that are refused, at the start and while running: the reason is said, and it is in the audit log where there is
//! one. Trouble with the record hides nothing.

use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_audit::{AuditEvent, AuditLog, AuditOptions, Decision, EventKind};
use portcullis_model::SystemClock;
use serde_json::{Value, json};

use crate::server::{Home, Server, intact};

/// A house that was used before, and its configuration, which is good.
fn used() -> (Home, String) {
    let home = Home::new("");
    home.run_ok(&["tools"]);
    assert!(home.data().join("audit").is_dir(), "there is an audit log");
    let good = std::fs::read_to_string(&home.config).unwrap();
    (home, good)
}

/// Runs `command` with this configuration, which is refused; then the good one is there again. Returns what was said.
fn refused(home: &Home, good: &str, bad: &str, command: &str) -> (Output, String) {
    std::fs::write(&home.config, bad).unwrap();
    let output = home.run(&[command]);
    std::fs::write(&home.config, good).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error:"), "{said}");
    (output, said)
}

fn of(home: &Home, method: &str) -> Vec<Value> {
    home.audit().into_iter().filter(|record| record["method"] == method).collect()
}

fn note(record: &Value) -> &str {
    record["note"].as_str().unwrap()
}

#[test]
fn a_start_that_is_refused_is_on_record_with_the_reason() {
    let (home, good) = used();
    let rule = home.directory.path().join("own.cedar");
    let never = r#"@id("x") forbid(principal, action == Portcullis::Action::"call", resource == Portcullis::Tool::"query_logs")
        when { context.hour > 22 && context.hour < 6 };"#;
    std::fs::write(&rule, never).unwrap();
    let public = "listen: {mcp: '0.0.0.0:0', plaintext: i-terminate-tls-elsewhere}";
    let public = good.replace(&format!("listen: {{mcp: '{}'}}", home.mcp), public);
    assert_ne!(public, good);
    let cases = [
        (format!("{good}lisen: {{}}\n"), "did you mean 'listen'", "did you mean 'listen'"),
        (public, "there is no API key", "there is no API key"),
        (format!("{good}policies: ['{}']\n", rule.display()), "never match", "own.cedar"),
        (
            format!("{good}sources: [{{name: a, kind: prometheus, url: '${{PORTCULLIS_NOT_SET}}'}}]\n"),
            "is not set",
            "PORTCULLIS_NOT_SET",
        ),
        (format!("{good}log: {{level: 'portcullis=loud'}}\n"), "error:", "refused: "),
    ];
    for (turn, (bad, words, noted)) in cases.iter().enumerate() {
        let (_, said) = refused(&home, &good, bad, "serve");
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words) && !flat.contains("not in the audit log"), "{said}");
        let records = of(&home, "start");
        assert_eq!(records.len(), turn + 1, "one record for one refusal: {records:?}");
        let last = records.last().unwrap();
        assert_eq!(
            (&last["kind"], &last["decision"], &last["rule"]),
            (&json!("config"), &json!("deny"), &json!("start-refused"))
        );
        assert!(note(last).starts_with("refused: ") && note(last).contains(noted), "{last}");
    }
    assert!(!home.audit().iter().any(|record| record["kind"] == "start"), "nothing was started");
    assert!(intact(&home), "{:?}", home.run(&["audit", "verify"]));
}

#[test]
fn a_client_that_starts_it_gets_nothing_and_the_record_holds_no_secret() {
    let (home, good) = used();
    let bad = format!("{good}store: {{enabled: 'password=hunter2hunter2'}}\n");
    let (output, _) = refused(&home, &good, &bad, "stdio");
    assert!(output.stdout.is_empty(), "standard output belongs to the protocol");
    let records = of(&home, "start");
    assert!(records.len() == 1 && note(&records[0]).contains("store.enabled"), "{records:?}");
    assert!(!records[0].to_string().contains("hunter2"), "{records:?}");
}

#[test]
fn a_refused_start_makes_no_directory_and_says_that_it_left_no_record() {
    for bad in ["lisen: {}\n", "listen: {mcp: 'MCP_ADDRESS', anonymous_role: nobody}\n"] {
        let home = Home::new(bad);
        let output = home.run(&["serve"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error:") && said.contains("is not in the audit log: there is none in"), "{said}");
        assert!(!home.data().exists(), "a mistake in the file makes no directory");
    }
}

#[test]
fn where_the_record_cannot_be_written_the_reason_stays_the_reason() {
    let (home, good) = used();
    let (_, said) = refused(&home, &good, "listen: [", "serve");
    assert!(said.contains("not valid YAML") && said.contains("does not say where that is"), "{said}");
    assert!(of(&home, "start").is_empty());
    let key = home.data().join("audit/audit.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::write(&key, "damaged").unwrap();
    let (_, said) = refused(&home, &good, &format!("{good}lisen: {{}}\n"), "serve");
    assert!(said.contains("did you mean 'listen'") && said.contains("is not in the audit log: "), "{said}");
    std::fs::write(&key, kept).unwrap();
    assert!(of(&home, "start").is_empty());
    assert!(intact(&home), "{:?}", home.run(&["audit", "verify"]));
}

#[test]
fn a_start_that_is_refused_again_and_again_fills_no_disk() {
    let kept = "audit: {rotate: 64KiB, retention: {max_size: 128KiB}}\n";
    for (bad, says) in [("lisen: {}\n", "did you mean 'listen'"), ("stdio: {role: nobody}\n", "there is no role 'nobody'")] {
        let (home, good) = used();
        // As many refusals as a start that is tried every few seconds leaves in a day.
        let directory = home.data().join("audit");
        let options = AuditOptions { rotate_at_bytes: u64::MAX, ..AuditOptions::default() };
        let log = AuditLog::open_with(&directory, Arc::new(SystemClock), options).unwrap();
        let refusal = || AuditEvent::new(EventKind::Config).method("start").decided(Decision::Deny, "start-refused");
        for turn in 0..1_000 {
            log.append(refusal().note(format!("refused: {turn} {}", "and again ".repeat(20)))).unwrap();
        }
        log.close().unwrap();
        let size = || -> u64 { std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum() };
        assert!(size() > 192 << 10, "{}", size());
        let bad = format!("{good}{kept}{bad}");
        let (_, said) = refused(&home, &good, &bad, "serve");
        assert!(said.contains(says) && !said.contains("note:"), "{said}");
        let records = of(&home, "start");
        assert!(records.iter().any(|record| note(record).contains(says)), "it is on record: {records:?}");
        assert!(!records.iter().any(|record| note(record).contains("and again")), "what was there is gone");
        assert!(home.audit().iter().any(|record| record["kind"] == "retention"), "and that it is gone is on record");
        assert!(size() < 192 << 10, "{}", size());
        assert!(intact(&home), "{:?}", home.run(&["audit", "verify"]));
    }
    // Settings that cannot be believed remove nothing.
    let (home, good) = used();
    let before = home.audit().len();
    let (_, said) = refused(&home, &good, &format!("{good}audit: {{rotate: 1KiB, retention: {{max_size: 1KiB}}}}\n"), "serve");
    assert!(said.contains("rotate must be at least 64KiB"), "{said}");
    assert!(home.audit().len() > before, "a record more, and none is gone");
    assert!(intact(&home), "{:?}", home.run(&["audit", "verify"]));
}

#[test]
fn a_reload_that_is_refused_is_on_record_without_secrets() {
    let server = Server::start("");
    let good = std::fs::read_to_string(&server.home.config).unwrap();
    let until = |what: &str, fits: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !fits() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    std::fs::write(&server.home.config, format!("{good}store: {{enabled: 'password=hunter2hunter2'}}\n")).unwrap();
    until("the file is looked at", &|| server.log().contains("configuration not reloaded"));
    std::fs::write(&server.home.config, &good).unwrap();
    until("there is a record", &|| !of(&server.home, "reload").is_empty());
    let records = of(&server.home, "reload");
    let first = &records[0];
    assert_eq!(
        (&first["kind"], &first["decision"], &first["rule"]),
        (&json!("config"), &json!("deny"), &json!("reload-refused"))
    );
    assert!(note(first).starts_with("refused: ") && note(first).contains("store.enabled"), "{first}");
    assert!(!records.iter().any(|record| record.to_string().contains("hunter2")), "{records:?}");
}

//! Pseudonymising a subject: the name is gone, everything still verifies, and taking text away by hand is found.

use std::path::Path;
use std::sync::Arc;

use portcullis_audit::{AuditEvent, AuditFilter, AuditOptions, EraseReport, EventKind, Problem, Retention, erase, query, verify};
use portcullis_model::{KeyId, PrincipalId, Whence};

use crate::{clock, files, open, open_rotating, the_file};

fn person(name: &str) -> PrincipalId {
    PrincipalId::new(name).unwrap()
}

fn did(name: &str, tool: &str) -> AuditEvent {
    AuditEvent::new(EventKind::Call)
        .principal_id(person(name))
        .whence(Some(&Whence::direct("192.0.2.7:5000".parse().unwrap())))
        .session(format!("session-of-{name}"))
        .tool(tool.to_owned())
}

fn forget(directory: &Path, name: &str) -> Result<EraseReport, String> {
    let options = AuditOptions::default();
    erase(directory, &person(name), &person("local:operator"), Arc::new(clock()), &options).map_err(|e| e.to_string())
}

fn is_somewhere(directory: &Path, text: &str) -> bool {
    files(directory, "").iter().any(|f| String::from_utf8_lossy(&std::fs::read(f).unwrap()).contains(text))
}

/// Two chains, one of them in several parts, in which two persons act in turns.
fn written() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (open_rotating(directory.path(), 3_000), open(directory.path()));
    for index in 0..20 {
        let log = if index % 3 == 0 { &two } else { &one };
        log.append(did(if index % 2 == 0 { "user:anna" } else { "user:ben" }, &format!("tool-{index}"))).unwrap();
    }
    two.append(AuditEvent::new(EventKind::Approval).principal_id(person("user:ben")).about(person("user:anna"))).unwrap();
    one.append(AuditEvent::new(EventKind::Lockout).note("claimed to be user:anna")).unwrap();
    drop((one, two));
    assert!(verify(directory.path()).unwrap().is_intact());
    directory
}

#[test]
fn the_name_is_gone_and_every_chain_still_verifies() {
    let directory = written();
    let report = forget(directory.path(), "user:anna").unwrap();
    assert_eq!((report.records, report.left), (12, 0));
    assert!(!is_somewhere(directory.path(), "anna"), "not even in the bookkeeping");
    assert!(is_somewhere(directory.path(), "user:ben"));
    let verified = verify(directory.path()).unwrap();
    assert!(verified.is_intact(), "{:?}", verified.findings);
    assert_eq!(verified.chains.iter().map(|c| c.erased).sum::<u64>(), 12);
    let all: Vec<_> = query(directory.path(), AuditFilter::default()).unwrap().map(Result::unwrap).collect();
    let pseudonym = AuditFilter { principal: Some(report.pseudonym.clone()), ..AuditFilter::default() };
    assert_eq!(all.iter().filter(|r| pseudonym.matches(r)).count(), 10, "what she did can still be told apart");
    let recorded: Vec<_> = all.iter().filter(|r| r.event.kind == EventKind::Erased).collect();
    assert!(recorded.iter().all(|r| r.event.principal == Some(person("local:operator"))));
    assert!(recorded.iter().any(|r| r.event.note.as_deref() == Some("12 records")));
    let approval = all.iter().find(|r| r.event.kind == EventKind::Approval).unwrap();
    assert_eq!(approval.event.principal, Some(person("user:ben")), "others keep their names");
    assert_eq!(forget(directory.path(), "user:anna").unwrap(), EraseReport::default(), "a second time there is nothing to do");
    drop(open(directory.path()));
    assert!(verify(directory.path()).unwrap().is_intact(), "and the chain goes on");
    assert_eq!(verify(directory.path()).unwrap().chains.len(), 2);
}

#[test]
fn a_key_is_erased_from_the_records_about_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(AuditEvent::new(EventKind::Key).principal_id(person("local:root")).key(KeyId::new("abcdef42").unwrap())).unwrap();
    log.append(did("key:abcdef42", "t").key(KeyId::new("abcdef42").unwrap())).unwrap();
    drop(log);
    assert_eq!(forget(directory.path(), "key:abcdef42").unwrap().records, 2);
    assert!(!is_somewhere(directory.path(), "abcdef42"));
    assert!(is_somewhere(directory.path(), "local:root"));
    assert!(verify(directory.path()).unwrap().is_intact());
}

#[test]
fn whoever_erases_himself_is_not_named_by_the_record_of_it() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).append(did("local:operator", "t")).unwrap();
    assert_eq!(forget(directory.path(), "local:operator").unwrap().records, 1);
    assert!(!is_somewhere(directory.path(), "local:operator"));
    assert!(verify(directory.path()).unwrap().is_intact());
}

#[test]
fn a_chain_in_use_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(did("user:anna", "t")).unwrap();
    let before = std::fs::read(the_file(directory.path(), ".jsonl")).unwrap();
    let error = forget(directory.path(), "user:anna").unwrap_err();
    assert!(error.contains("running process") && error.contains("stop it"), "{error}");
    assert_eq!(std::fs::read(the_file(directory.path(), ".jsonl")).unwrap(), before);
    assert!(!directory.path().join("erase.pending").exists());
    drop(log);
    assert_eq!(forget(directory.path(), "user:anna").unwrap().records, 1);
}

#[test]
fn what_a_crash_interrupted_is_told_and_finished_by_a_second_run() {
    let directory = written();
    let parts = files(directory.path(), ".jsonl.1");
    let before: Vec<_> = parts.iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    forget(directory.path(), "user:anna").unwrap();
    let erased = verify(directory.path()).unwrap().chains.iter().map(|c| c.erased).sum::<u64>();
    // As after a crash between two files: one part has its text still, and the plan is there.
    for (path, bytes) in &before {
        std::fs::write(path, bytes).unwrap();
    }
    let report = verify(directory.path()).unwrap();
    assert!(report.findings.iter().all(|f| f.problem == Problem::EraseUnfinished) && !report.is_intact(), "{report:?}");
    let again = forget(directory.path(), "user:anna").unwrap();
    assert!(again.records > 0 && again.records < erased, "{again:?}");
    assert!(!is_somewhere(directory.path(), "anna"));
}

#[test]
fn taking_text_away_by_hand_is_found() {
    let strip = |line: &str, with: &str| {
        let at = line.rfind(",\"open\":").unwrap();
        format!("{}{with}}}", &line[..at])
    };
    for (with, problem) in [
        ("", Problem::Edited),
        (",\"open\":{\"who\":\"0011223344556677\"}", Problem::NotErased),
        (",\"open\":{\"who\":[\"00000000000000000000000000000000\",{\"principal\":\"user:ben\"}]}", Problem::Edited),
        (",\"open\":{}", Problem::Unreadable),
    ] {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).append(did("user:anna", "t")).unwrap();
        let path = the_file(directory.path(), ".jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let changed: Vec<String> =
            text.lines().map(|line| if line.contains("anna") { strip(line, with) } else { line.to_owned() }).collect();
        std::fs::write(&path, changed.join("\n") + "\n").unwrap();
        let report = verify(directory.path()).unwrap();
        assert_eq!(report.findings.iter().map(|f| f.problem).collect::<Vec<_>>(), [problem], "{with}: {report:?}");
        assert_eq!(report.findings[0].line, Some(2), "{with}");
    }
}

#[test]
fn records_from_before_seals_are_said_to_be_left() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    // The sources of a call are in the hashed bytes, as everything was before.
    log.append(AuditEvent::new(EventKind::Call).sources(["user:anna"])).unwrap();
    drop(log);
    let report = forget(directory.path(), "user:anna").unwrap();
    assert_eq!((report.records, report.left), (0, 1));
}

#[test]
fn incomplete_records_that_name_the_subject_are_removed() {
    let directory = written();
    let torn = files(directory.path(), ".jsonl")[0].with_extension("torn-9");
    std::fs::write(&torn, "{\"seq\":9,\"open\":{\"who\":[\"…\",{\"principal\":\"user:anna\"").unwrap();
    assert_eq!(forget(directory.path(), "user:anna").unwrap().removed_files, 1);
    assert!(!torn.exists());
}

#[test]
fn retention_keeps_what_is_needed_to_check_erasures() {
    let directory = written();
    forget(directory.path(), "user:anna").unwrap();
    let options = AuditOptions {
        rotate_at_bytes: 3_000,
        retention: Retention { max_age: None, max_bytes: Some(4_000) },
        ..AuditOptions::default()
    };
    for _ in 0..3 {
        let log = portcullis_audit::AuditLog::open_with(directory.path(), Arc::new(clock()), options.clone()).unwrap();
        for index in 0..30 {
            log.append(did("user:ben", &format!("later-{index}"))).unwrap();
        }
        log.retain().unwrap();
        drop(log);
        let report = verify(directory.path()).unwrap();
        assert!(report.is_intact(), "{:?}", report.findings);
    }
}

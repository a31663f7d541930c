//! What happens to calls when records cannot be written: they stop, unless the operator chose otherwise for their class. When
//! what was in the way is gone they go on by themselves, and a record tells how many there are not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_audit::{AuditError, AuditLog, AuditOptions, FailurePolicy, Reaction, verify};
use portcullis_model::RiskClass;

use crate::{call, clock, files, the_file};

fn failing(on_failure: FailurePolicy) -> (tempfile::TempDir, AuditLog) {
    let directory = tempfile::tempdir().unwrap();
    let options = AuditOptions { sync_every: Duration::from_millis(5), on_failure, ..AuditOptions::default() };
    let log = AuditLog::open_with(directory.path(), Arc::new(clock()), options).unwrap();
    log.append(call("a")).unwrap();
    std::fs::remove_file(the_file(directory.path(), ".jsonl")).unwrap();
    assert!(log.sync().is_err(), "the log notices that its file is gone");
    (directory, log)
}

#[test]
fn every_call_stops_by_default_and_says_why() {
    let (_directory, log) = failing(FailurePolicy::default());
    for risk in [RiskClass::Read, RiskClass::Write, RiskClass::Destructive] {
        assert!(log.may_begin(risk).unwrap_err().contains("cannot be found"));
        assert!(log.append_for(risk, call("b")).unwrap_err().to_string().contains("the audit log stopped"));
    }
    assert_eq!(log.unrecorded(), 0);
}

#[test]
fn reading_goes_on_when_the_operator_chose_so_and_is_counted() {
    let (_directory, log) = failing(FailurePolicy { read: Reaction::Continue, write: Reaction::Stop });
    assert_eq!(log.may_begin(RiskClass::Read), Ok(()));
    assert_eq!(log.append_for(RiskClass::Read, call("b")).unwrap(), None);
    assert_eq!(log.append_for(RiskClass::Read, call("c")).unwrap(), None);
    assert!(log.may_begin(RiskClass::Destructive).is_err());
    assert!(log.append_for(RiskClass::Write, call("d")).is_err());
    assert_eq!(log.unrecorded(), 2);
    assert!(log.health().is_err(), "and it stays visible");
}

fn opened(directory: &Path, on_failure: FailurePolicy) -> AuditLog {
    let options =
        AuditOptions { sync_every: Duration::from_millis(5), rotate_at_bytes: 4_000, on_failure, ..AuditOptions::default() };
    AuditLog::open_with(directory, Arc::new(clock()), options).unwrap()
}

/// A log whose next file cannot be begun, because something has its name; and that something.
fn blocked(directory: &Path, on_failure: FailurePolicy) -> (AuditLog, PathBuf) {
    let log = opened(directory, on_failure);
    let active = the_file(directory, ".jsonl");
    let next = PathBuf::from(format!("{}.1", active.display()));
    std::fs::write(&next, "not a record").unwrap();
    let refused = (0..1_000).find_map(|_| log.append(call("a")).err()).expect("the file gets full");
    assert!(matches!(&refused, AuditError::Blocked { reason } if reason.contains("is not overwritten")), "{refused}");
    (log, next)
}

fn until(what: &str, fits: impl Fn() -> bool) {
    let began = Instant::now();
    while !fits() {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All records, as text.
fn written(directory: &Path) -> String {
    let parts = [files(directory, ".jsonl"), files(directory, ".jsonl.1")].concat();
    parts.iter().map(|part| std::fs::read_to_string(part).unwrap()).collect()
}

#[test]
fn calls_go_on_by_themselves_when_a_rotation_is_possible_again_and_a_record_tells_of_the_gap() {
    let home = tempfile::tempdir().unwrap();
    let (log, next) = blocked(home.path(), FailurePolicy::default());
    for risk in [RiskClass::Read, RiskClass::Write, RiskClass::Destructive] {
        assert!(log.may_begin(risk).unwrap_err().contains("is not overwritten"));
        assert!(matches!(log.append_for(risk, call("b")), Err(AuditError::Blocked { .. })));
    }
    assert_eq!(std::fs::read_to_string(&next).unwrap(), "not a record");
    std::fs::remove_file(&next).unwrap();
    // Nobody appends: while calls are refused, nothing else would try.
    until("the log finds out by itself", || log.health().is_ok());
    assert_eq!(log.may_begin(RiskClass::Destructive), Ok(()));
    log.append(call("c")).unwrap();
    log.close().unwrap();
    let text = written(home.path());
    assert!(text.contains("4 records were not written since ") && text.contains("without a record: "), "{text}");
    assert!(!text.contains("not a record"), "{text}");
    let report = verify(home.path()).unwrap();
    assert!(report.is_intact() && report.chains[0].files == 2, "{report:?}");
}

#[test]
fn calls_that_went_ahead_are_told_when_a_rotation_is_possible_again() {
    let home = tempfile::tempdir().unwrap();
    let (log, next) = blocked(home.path(), FailurePolicy { read: Reaction::Continue, write: Reaction::Stop });
    for _ in 0..3 {
        assert_eq!(log.append_for(RiskClass::Read, call("b")).unwrap(), None);
    }
    assert_eq!(log.unrecorded(), 3);
    std::fs::remove_file(&next).unwrap();
    until("the log finds out by itself", || log.health().is_ok());
    assert_eq!(log.unrecorded(), 0, "they are told, once");
    assert!(log.append_for(RiskClass::Read, call("c")).unwrap().is_some(), "and there are records again");
    log.close().unwrap();
    let text = written(home.path());
    assert_eq!(text.matches("3 calls went ahead without a record").count(), 1, "{text}");
    assert!(verify(home.path()).unwrap().is_intact());
}

#[test]
fn a_directory_that_comes_back_as_it_was_is_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (home.path().join("audit"), home.path().join("elsewhere"));
    let log = opened(&here, FailurePolicy::default());
    log.sync().unwrap();
    std::fs::rename(&here, &elsewhere).unwrap();
    until("appends fail", || log.append(call("a")).is_err());
    assert!(log.health().unwrap_err().contains("cannot be found"));
    assert!(matches!(log.append(call("a")), Err(AuditError::Blocked { .. })));
    std::fs::rename(&elsewhere, &here).unwrap();
    until("the log finds out by itself", || log.health().is_ok());
    log.append(call("b")).unwrap();
    log.close().unwrap();
    assert!(verify(&here).unwrap().is_intact());
}

#[test]
fn a_file_that_was_taken_away_is_not_gone_on_with_when_it_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let log = opened(home.path(), FailurePolicy::default());
    let active = the_file(home.path(), ".jsonl");
    let away = home.path().join("away");
    std::fs::rename(&active, &away).unwrap();
    until("appends fail", || log.append(call("a")).is_err());
    std::fs::rename(&away, &active).unwrap();
    let refused = log.append(call("b")).unwrap_err();
    assert!(matches!(refused, AuditError::Stopped { .. }), "who had it meanwhile is not known: {refused}");
    assert!(log.may_begin(RiskClass::Read).is_err());
}

#[test]
fn a_checkpoint_that_could_not_be_kept_beside_the_chain_is_kept_later() {
    let home = tempfile::tempdir().unwrap();
    let log = opened(home.path(), FailurePolicy::default());
    let beside = the_file(home.path(), ".jsonl").with_extension("checkpoints");
    std::fs::create_dir(&beside).unwrap();
    log.append(call("a")).unwrap();
    assert!(log.checkpoint().is_err());
    log.append(call("b")).unwrap();
    until("it is noticed", || log.may_begin(RiskClass::Read).is_err());
    std::fs::remove_dir(&beside).unwrap();
    // Nothing is appended: calls are refused meanwhile.
    until("it is kept", || log.may_begin(RiskClass::Read).is_ok());
    assert_eq!(std::fs::read_to_string(&beside).unwrap().lines().count(), 1);
    log.close().unwrap();
    assert!(verify(home.path()).unwrap().is_intact());
}

//! What happens to calls when records cannot be written: they stop, unless the operator chose otherwise for their class.

use std::sync::Arc;
use std::time::Duration;

use portcullis_audit::{AuditLog, AuditOptions, FailurePolicy, Reaction};
use portcullis_model::RiskClass;

use crate::{call, clock, the_file};

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

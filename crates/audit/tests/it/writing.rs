//! Appending: order, threads, rotation, several processes, and refusing when it cannot be done.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use portcullis_audit::{AuditError, AuditFilter, EventKind, Problem, query, verify};
use serde_json::json;

use crate::{call, clock, files, open, open_rotating, the_file};

#[test]
fn records_are_numbered_private_and_intact() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("audit");
    let log = open(&folder);
    assert_eq!(log.append(call("query_logs")).unwrap().sequence, 2, "the first record says who writes");
    assert_eq!(log.append(call("query_traces")).unwrap().sequence, 3);
    let live = verify(&folder).unwrap();
    assert!(live.is_intact() && live.chains[0].live, "{live:?}");
    log.close().unwrap();
    log.close().unwrap();
    assert!(matches!(log.append(call("late")), Err(AuditError::Closed)));
    let report = verify(&folder).unwrap();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.records(), report.chains[0].closed, report.chains[0].live), (4, true, false));
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for file in files(&folder, "") {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn eight_threads_make_one_chain_without_holes() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_rotating(directory.path(), 100_000);
    let mut sequences: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let log = &log;
                let write = move |n| log.append(call(format!("tool-{thread}-{n}"))).unwrap().sequence;
                scope.spawn(move || (0..500).map(write).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    log.close().unwrap();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 4_000, "no number was given twice");
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    let calls =
        query(directory.path(), AuditFilter::default()).unwrap().filter(|r| r.as_ref().unwrap().event.kind == EventKind::Call);
    assert_eq!(calls.count(), 4_000);
}

#[test]
fn the_chain_goes_on_through_rotation_and_restart() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let log = open_rotating(directory.path(), 2_000);
        for index in 0..20 {
            log.append(call(format!("t{index}"))).unwrap();
        }
        log.close().unwrap();
    }
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.chains.len(), 1, "a later process continues the chain nobody holds");
    assert!(report.chains[0].files > 5, "{report:?}");
    assert_eq!(report.chains[0].last_sequence, report.records());
    let text = std::fs::read_to_string(the_file(directory.path(), ".jsonl.2")).unwrap();
    let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(header["kind"], "continued");
    assert!(header["chain"]["previous_file"].as_str().unwrap().ends_with(".jsonl.1"));
    let before = std::fs::read_to_string(the_file(directory.path(), ".jsonl.1")).unwrap();
    let last: serde_json::Value = serde_json::from_str(before.lines().last().unwrap()).unwrap();
    assert_eq!(header["prev"], last["hash"], "the header names the last hash of the file before");
}

#[test]
fn a_rotation_that_a_crash_interrupted_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(call("before")).unwrap();
    drop(log);
    let active = the_file(directory.path(), ".jsonl");
    std::fs::rename(&active, active.with_extension("jsonl.1")).unwrap();
    let log = open(directory.path());
    log.append(call("after")).unwrap();
    drop(log);
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!((report.chains.len(), report.chains[0].files), (1, 2));
}

#[test]
fn processes_at_the_same_time_write_chains_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (open(directory.path()), open(directory.path()));
    one.append(call("one")).unwrap();
    two.append(call("two")).unwrap();
    drop((one, two));
    assert_eq!(files(directory.path(), ".jsonl").len(), 2);
    let three = open(directory.path());
    three.append(call("three")).unwrap();
    drop(three);
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.chains.len(), 2, "the third continued one of them");
}

#[test]
fn a_file_removed_replaced_or_changed_while_in_use_stops_the_log() {
    for (what, says) in [("remove", "cannot be found"), ("replace", "was replaced"), ("extend", "another program changed it")] {
        let directory = tempfile::tempdir().unwrap();
        let log = open_rotating(directory.path(), 1 << 20);
        log.append(call("a")).unwrap();
        log.sync().unwrap();
        let path = the_file(directory.path(), ".jsonl");
        match what {
            "remove" => std::fs::remove_file(&path).unwrap(),
            "replace" => {
                let copy = std::fs::read(&path).unwrap();
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, copy).unwrap();
            }
            _ => {
                use std::io::Write;
                std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
            }
        }
        let start = std::time::Instant::now();
        let error = loop {
            if let Err(error) = log.append(call("b")) {
                break error.to_string();
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{what}: records went on into nowhere");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(error.contains(says), "{what}: {error}");
        assert!(log.health().unwrap_err().contains(says));
        assert!(log.close().is_err());
        assert!(!verify(directory.path()).unwrap().is_intact(), "{what}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    std::fs::write(&blocked, b"").unwrap();
    let error = portcullis_audit::AuditLog::open(&blocked, Arc::new(clock())).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
    assert!(verify(&directory.path().join("nowhere")).is_err(), "nothing there is not the same as intact");
}

#[test]
fn fingerprints_last_as_long_as_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = json!({"service": "cart", "window": {"from": "now-1h", "to": "now"}});
    let first = open(directory.path()).fingerprint(&arguments);
    let again = open(directory.path()).fingerprint(&json!({"window": {"to": "now", "from": "now-1h"}, "service": "cart"}));
    assert_eq!(first, again);
    let elsewhere = tempfile::tempdir().unwrap();
    assert_ne!(open(elsewhere.path()).fingerprint(&arguments), first);
}

#[test]
fn a_damaged_chain_is_left_as_evidence_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(call("a")).unwrap();
    drop(log);
    let damaged = the_file(directory.path(), ".jsonl");
    let text = std::fs::read_to_string(&damaged).unwrap();
    let cut: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&damaged, &cut).unwrap();
    drop(open(directory.path()));
    assert_eq!(std::fs::read_to_string(&damaged).unwrap(), cut, "evidence is not touched");
    let fresh = files(directory.path(), ".jsonl").into_iter().find(|f| *f != damaged).unwrap();
    let first = std::fs::read_to_string(fresh).unwrap();
    assert!(first.contains("\"left_aside\":{\"audit-") && first.contains("records were cut off"), "{first}");
    let report = verify(directory.path()).unwrap();
    assert!(report.findings.iter().any(|f| f.problem == Problem::Truncated), "{report:?}");
}

//! Processes that die in the middle: nothing that was answered is lost, what was torn is kept and told.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use portcullis_audit::{AuditFilter, AuditLog, EventKind, query, verify};
use portcullis_model::SystemClock;

use crate::{call, files, open, the_file};

const CHILD: &str = "PORTCULLIS_AUDIT_TEST_CHILD";

/// Not a test of its own: the process that `killed_processes_lose_nothing` starts and kills.
#[test]
fn child_that_writes_until_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let log = AuditLog::open(Path::new(&directory), Arc::new(SystemClock)).unwrap();
    let mut out = std::io::stdout().lock();
    for index in 0..1_000_000 {
        let sequence = log.append(call(format!("t{index}"))).unwrap().sequence;
        writeln!(out, "appended {sequence}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn killed_processes_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_writes_until_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut sequences = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split("appended ").nth(1).and_then(|n| n.trim().parse::<u64>().ok()));
        let last = sequences.by_ref().nth(200 + round * 37).unwrap();
        child.kill().unwrap();
        answered = sequences.last().unwrap_or(last);
        child.wait().unwrap();
        let report = verify(directory.path()).unwrap();
        let chain = &report.chains[0];
        assert!(chain.last_sequence >= answered, "record {answered} was answered, {} is the last", chain.last_sequence);
        assert!(!chain.closed && !chain.live);
    }
    drop(open(directory.path()));
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.chains.len(), 1);
    assert!(report.chains[0].last_sequence > answered);
}

/// A log that ended without closing, with `rest` behind its last record.
fn crashed(rest: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(call("answered")).unwrap();
    log.sync().unwrap();
    let copy = tempfile::tempdir().unwrap();
    for file in files(directory.path(), "") {
        std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let mut active = std::fs::OpenOptions::new().append(true).open(the_file(copy.path(), ".jsonl")).unwrap();
    active.write_all(rest).unwrap();
    copy
}

#[test]
fn a_torn_line_is_moved_aside_recorded_and_the_chain_goes_on() {
    for torn in [&b"{\"seq\":3,\"time\":\"2027-01"[..], b"{", &[0; 4096]] {
        let directory = crashed(torn);
        let before = verify(directory.path()).unwrap();
        assert!(!before.is_intact(), "verify tells of it until it is recovered");
        let log = open(directory.path());
        log.append(call("after")).unwrap();
        drop(log);
        let report = verify(directory.path()).unwrap();
        assert!(report.is_intact(), "{:?}", report.findings);
        assert_eq!((report.chains.len(), report.chains[0].recovered), (1, 1));
        let aside = the_file(directory.path(), ".torn-3");
        assert_eq!(std::fs::read(aside).unwrap(), torn, "nothing is dropped");
        let records: Vec<_> = query(directory.path(), AuditFilter::default()).unwrap().map(Result::unwrap).collect();
        let recovered = records.iter().find(|r| r.event.kind == EventKind::Recovered).unwrap();
        assert_eq!(recovered.sequence, 3);
        assert!(recovered.event.note.as_ref().unwrap().starts_with(&torn.len().to_string()));
        assert!(records.iter().any(|r| r.event.tool.as_deref() == Some("answered")));
    }
}

#[test]
fn a_whole_line_that_does_not_belong_is_not_taken_for_a_crash() {
    let directory = crashed(b"{\"seq\":3,\"kind\":\"call\"}\n");
    drop(open(directory.path()));
    let report = verify(directory.path()).unwrap();
    assert_eq!(report.chains.len(), 2, "the damaged chain is left as it is");
    assert!(!report.is_intact());
}

#[test]
fn records_newer_than_the_head_are_followed_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.append(call("synced")).unwrap();
    log.sync().unwrap();
    let head = std::fs::read(the_file(directory.path(), ".head")).unwrap();
    for index in 0..50 {
        log.append(call(format!("t{index}"))).unwrap();
    }
    drop(log);
    // As after a kill: the head is a second old.
    std::fs::write(the_file(directory.path(), ".head"), head).unwrap();
    let log = open(directory.path());
    assert_eq!(log.last_sequence(), 2 + 50 + 1 + 1);
    drop(log);
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
}

const CHILD_WITHOUT_ROOM: &str = "PORTCULLIS_AUDIT_TEST_CHILD_WITHOUT_ROOM";

/// Not a test of its own: the process whose files may not grow beyond 8 KiB.
#[test]
fn child_that_runs_out_of_room() {
    let Ok(directory) = std::env::var(CHILD_WITHOUT_ROOM) else { return };
    let log = AuditLog::open(Path::new(&directory), Arc::new(SystemClock)).unwrap();
    let mut refused = 0;
    for index in 0..100 {
        match log.append(call(format!("t{index}"))) {
            Ok(appended) => println!("appended {}", appended.sequence),
            Err(error) => {
                println!("refused {error}");
                refused += 1;
            }
        }
    }
    let health = log.health().unwrap_err();
    assert!(refused > 10 && health.contains("cannot be written"), "no call begins that could not be recorded: {health}");
}

#[test]
fn a_write_that_fails_half_way_is_refused_and_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact crash::child_that_runs_out_of_room --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_WITHOUT_ROOM, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("refused audit file") && said.contains("cannot be written"), "{said}");
    let last: u64 = said.lines().filter_map(|l| l.split("appended ").nth(1)).next_back().unwrap().parse().unwrap();
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "no half record is left: {:?}", report.findings);
    assert_eq!(report.chains[0].last_sequence, last);
    assert!(std::fs::metadata(the_file(directory.path(), ".jsonl")).unwrap().len() < 8192);
}

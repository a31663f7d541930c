//! `tail` and `query` over several chains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_audit::{AuditEvent, AuditFilter, AuditLog, AuditOptions, Decision, EventKind, Record, Retention, query, tail};
use portcullis_model::{Clock, ManualClock, PrincipalId};

use crate::{call, clock, files, the_file};

/// Two chains written in turns, a second apart, in small files.
fn two_chains(clock: &ManualClock) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let options = AuditOptions { rotate_at_bytes: 1_000, ..AuditOptions::default() };
    let open = || AuditLog::open_with(directory.path(), Arc::new(clock.clone()), options.clone()).unwrap();
    let logs = [open(), open()];
    for index in 0..30_usize {
        clock.advance(Duration::from_secs(1));
        let refused = index % 5 == 0;
        let event = AuditEvent::new(if refused { EventKind::Refused } else { EventKind::Call })
            .principal_id(PrincipalId::new(format!("key:{}", index % 2)).unwrap())
            .tool(format!("tool-{index}"))
            .decided(if refused { Decision::Deny } else { Decision::Allow }, "rule");
        logs[index % 2].append(event).unwrap();
    }
    directory
}

fn tools(records: &[portcullis_audit::Record]) -> Vec<String> {
    records.iter().filter_map(|r| r.event.tool.as_ref().map(ToString::to_string)).collect()
}

#[test]
fn the_last_records_of_all_chains_in_order() {
    let clock = clock();
    let directory = two_chains(&clock);
    let calls = AuditFilter { text: Some("tool-".to_owned()), ..AuditFilter::default() };
    let last = tail(directory.path(), 3, &calls).unwrap();
    assert_eq!(tools(&last.records), ["tool-27", "tool-28", "tool-29"]);
    assert!(last.unreadable.is_empty());
    let denied = AuditFilter { decision: Some(Decision::Deny), ..AuditFilter::default() };
    assert_eq!(tools(&tail(directory.path(), 2, &denied).unwrap().records), ["tool-20", "tool-25"]);
    assert_eq!(tail(directory.path(), 1_000, &calls).unwrap().records.len(), 30, "all files are read, to the first");
    assert!(tail(directory.path(), 0, &calls).unwrap().records.is_empty());
}

/// Numbers of the records, all there from the first to the last.
fn unbroken(records: &[Record]) -> (u64, u64) {
    let numbers: Vec<u64> = records.iter().map(|record| record.sequence).collect();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
    (first, last)
}

#[test]
fn nothing_is_passed_over_while_files_are_closed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let options = AuditOptions {
        rotate_at_bytes: 1_000,
        retention: Retention { max_bytes: Some(3_000), max_age: None },
        sync_every: Duration::from_millis(1),
        ..AuditOptions::default()
    };
    let log = AuditLog::open_with(directory.path(), Arc::new(clock()), options).unwrap();
    let written = AtomicU64::new(log.append(call("first")).unwrap().sequence);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                written.store(log.append(call("another")).unwrap().sequence, Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
        });
        let mut removed = 0;
        while !ended.load(Ordering::SeqCst) {
            let known = written.load(Ordering::SeqCst);
            let last = tail(directory.path(), 5, &AuditFilter::default()).unwrap();
            assert!(last.unreadable.is_empty(), "{:?}", last.unreadable);
            assert!(unbroken(&last.records).1 >= known);
            let known = written.load(Ordering::SeqCst);
            let all: Vec<_> = query(directory.path(), AuditFilter::default()).unwrap().collect::<Result<_, _>>().unwrap();
            // Files may end between the first one and the others.
            assert!(all.last().is_some_and(|record| record.sequence >= known));
            removed = removed.max(all[0].sequence);
        }
        assert!(removed > 1, "nothing was removed meanwhile");
    });
}

#[test]
fn a_query_merges_by_time_and_filters() {
    let clock = clock();
    let directory = two_chains(&clock);
    let run = |filter| query(directory.path(), filter).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let calls = run(AuditFilter { text: Some("tool-".to_owned()), ..AuditFilter::default() });
    assert_eq!(tools(&calls), (0..30).map(|n| format!("tool-{n}")).collect::<Vec<_>>());
    let one = AuditFilter {
        principal: Some("key:1".to_owned()),
        kinds: [EventKind::Refused].into(),
        since: Some(clock.now().minus(Duration::from_secs(20))),
        until: Some(clock.now()),
        ..AuditFilter::default()
    };
    assert_eq!(tools(&run(one)), ["tool-15", "tool-25"]);
    let tool = AuditFilter { tool: Some("tool-7".to_owned()), tenant: None, ..AuditFilter::default() };
    assert_eq!(run(tool).len(), 1);
    let tenant = AuditFilter { tenant: Some("shop".to_owned()), ..AuditFilter::default() };
    assert!(run(tenant).is_empty());
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_still_read() {
    let clock = clock();
    let directory = two_chains(&clock);
    let victim = files(directory.path(), ".jsonl.2").remove(0);
    let text = std::fs::read_to_string(&victim).unwrap();
    std::fs::write(&victim, format!("garbage\n{text}")).unwrap();
    let all: Vec<_> = query(directory.path(), AuditFilter::default()).unwrap().collect();
    assert_eq!(all.iter().filter(|r| r.is_err()).count(), 1);
    let calls = AuditFilter { text: Some("tool-".to_owned()), ..AuditFilter::default() };
    let last = tail(directory.path(), 100, &calls).unwrap();
    assert_eq!((last.records.len(), last.unreadable.len()), (30, 1));
    assert!(last.unreadable[0].to_string().contains("audit verify"), "{}", last.unreadable[0]);
}

#[test]
fn a_line_its_writer_is_in_the_middle_of_is_not_an_error() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    let log = crate::open(directory.path());
    let path = the_file(directory.path(), ".jsonl");
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":").unwrap();
    assert!(tail(directory.path(), 10, &AuditFilter::default()).unwrap().unreadable.is_empty());
    assert!(query(directory.path(), AuditFilter::default()).unwrap().all(|r| r.is_ok()));
    drop(log);
    let after = tail(directory.path(), 10, &AuditFilter::default()).unwrap();
    assert_eq!(after.unreadable.len(), 1, "without a writer it is torn");
}

//! `tail` and `query` over several chains.

use std::sync::Arc;
use std::time::Duration;

use portcullis_audit::{AuditEvent, AuditFilter, AuditLog, AuditOptions, Decision, EventKind, query, tail};
use portcullis_model::{Clock, ManualClock, PrincipalId};

use crate::{clock, files, the_file};

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

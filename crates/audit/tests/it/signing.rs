//! What signatures find that hashes cannot: an attacker who knows the format and makes every hash fit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_audit::{
    AuditFilter, AuditLog, AuditOptions, EventKind, Problem, PublicKey, Retention, VerifyOptions, adopt, public_key, query,
    unsigned_chains, verify, verify_with,
};
use portcullis_model::ManualClock;

use crate::{call, clock, files, open, the_file};

fn checkpointed(directory: &Path, records: u64) -> AuditLog {
    let options = AuditOptions { checkpoint_records: records, sync_every: Duration::from_millis(5), ..AuditOptions::default() };
    AuditLog::open_with(directory, Arc::new(clock()), options).unwrap()
}

/// Gives every line from `from` (0-based) the hash and `prev` that fit, as an attacker would.
fn rehash(lines: &mut [String], from: usize) {
    let hash_of = |line: &str| {
        let at = line.rfind(",\"hash\":\"").unwrap();
        line[at + 9..at + 73].to_owned()
    };
    for index in from..lines.len() {
        let prev = if index == 0 { "0".repeat(64) } else { hash_of(&lines[index - 1]) };
        let line = &lines[index];
        let at = line.rfind(",\"hash\":\"").unwrap();
        let (body, rest) = (&line[..at], &line[at + 73..]);
        let stated = body.split("\"prev\":\"").nth(1).unwrap()[..64].to_owned();
        let body = body.replacen(&stated, &prev, 1);
        let bytes = blake3::Hash::from_hex(&prev).unwrap();
        let hash = blake3::Hasher::new().update(bytes.as_bytes()).update(body.as_bytes()).finalize();
        lines[index] = format!("{body},\"hash\":\"{hash}{rest}");
    }
}

fn change(directory: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let path = the_file(directory, ".jsonl");
    let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
}

/// The head as somebody without the key can write it best: numbers and hash that fit, the old signature.
fn refit_head(directory: &Path) {
    let lines = std::fs::read_to_string(the_file(directory, ".jsonl")).unwrap();
    let last = lines.lines().last().unwrap();
    let at = last.rfind(",\"hash\":\"").unwrap();
    let record: serde_json::Value = serde_json::from_str(last).unwrap();
    let path = the_file(directory, ".head");
    let mut head: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    head["seq"] = record["seq"].clone();
    head["hash"] = last[at + 9..at + 73].into();
    head["offset"] = lines.len().into();
    std::fs::write(&path, head.to_string()).unwrap();
}

fn closed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    for index in 0..6 {
        log.append(call(format!("tool-{index}"))).unwrap();
        if index == 2 {
            log.checkpoint().unwrap();
        }
    }
    log.close().unwrap();
    assert!(verify(directory.path()).unwrap().is_intact());
    directory
}

fn problems(directory: &Path) -> Vec<Problem> {
    verify(directory).unwrap().findings.iter().map(|f| f.problem).collect()
}

#[test]
fn an_attacker_who_recomputes_the_whole_chain_is_found() {
    let directory = closed();
    change(directory.path(), |lines| {
        lines[2] = lines[2].replace("tool-1", "tool-9");
        rehash(lines, 2);
    });
    refit_head(directory.path());
    let found = problems(directory.path());
    for problem in [Problem::SignatureDiffers, Problem::Forged] {
        assert!(found.contains(&problem), "{found:?}");
    }
    assert!(!found.contains(&Problem::Edited) && !found.contains(&Problem::BrokenLink), "every hash fits: {found:?}");
}

#[test]
fn removing_the_checkpoints_as_well_does_not_help() {
    let directory = closed();
    change(directory.path(), |lines| {
        lines.remove(4);
        for (index, line) in lines.iter_mut().enumerate() {
            let stated = format!("\"seq\":{}", serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"]);
            *line = line.replacen(&stated, &format!("\"seq\":{}", index + 1), 1);
        }
        rehash(lines, 0);
    });
    refit_head(directory.path());
    std::fs::remove_file(the_file(directory.path(), ".checkpoints")).unwrap();
    let found = problems(directory.path());
    assert!(found.contains(&Problem::Forged) && found.contains(&Problem::Unsigned), "{found:?}");
    // Removing the signature and the public key too leaves a log that says of itself that it is not signed.
    let path = the_file(directory.path(), ".head");
    let mut head: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    head.as_object_mut().unwrap().remove("signature");
    std::fs::write(&path, head.to_string()).unwrap();
    let key = public_key(directory.path(), None).unwrap();
    std::fs::remove_file(directory.path().join("audit.pub")).unwrap();
    assert_eq!(problems(directory.path()), [Problem::Unsigned]);
    let options = VerifyOptions { public_key: key, ..VerifyOptions::default() };
    assert!(!verify_with(directory.path(), &options).unwrap().is_intact(), "with a copy of the public key it is found");
}

#[test]
fn truncation_is_found_although_the_head_was_made_to_fit() {
    let directory = closed();
    change(directory.path(), |lines| lines.truncate(4));
    refit_head(directory.path());
    let report = verify(directory.path()).unwrap();
    assert!(
        report.findings.iter().any(|f| f.problem == Problem::Truncated && f.detail.contains("signed checkpoint")),
        "{report:?}"
    );
    // Without the last checkpoints too, the head is still not signed as it stands.
    let path = the_file(directory.path(), ".checkpoints");
    let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned() + "\n";
    std::fs::write(&path, first).unwrap();
    assert!(problems(directory.path()).contains(&Problem::Forged));
}

#[test]
fn a_checkpoint_of_another_chain_or_key_is_refused() {
    let directory = closed();
    let other = closed();
    let path = the_file(directory.path(), ".checkpoints");
    let foreign = std::fs::read_to_string(the_file(other.path(), ".checkpoints")).unwrap();
    let mut own = std::fs::read_to_string(&path).unwrap();
    own.push_str(&foreign);
    own.push_str("nonsense\n");
    std::fs::write(&path, own).unwrap();
    let report = verify(directory.path()).unwrap();
    let found: Vec<_> = report.findings.iter().map(|f| (f.problem, f.line)).collect();
    assert_eq!(found, [(Problem::Forged, Some(3)), (Problem::Forged, Some(4)), (Problem::Unreadable, Some(5))]);
}

#[test]
fn the_public_key_is_enough_to_verify() {
    let directory = closed();
    let digits = public_key(directory.path(), None).unwrap().unwrap().to_hex();
    std::fs::remove_file(directory.path().join("audit.key")).unwrap();
    let options = VerifyOptions { public_key: Some(PublicKey::from_hex(&digits).unwrap()), ..VerifyOptions::default() };
    let report = verify_with(directory.path(), &options).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!((report.chains[0].signed_to, report.chains[0].last_sequence), (9, 9), "the end is signed");
    let other = public_key(closed().path(), None).unwrap();
    let wrong = VerifyOptions { public_key: other, ..VerifyOptions::default() };
    assert!(!verify_with(directory.path(), &wrong).unwrap().is_intact());
    assert!(!directory.path().join("audit.key").exists(), "verify makes nothing");
}

#[test]
fn checkpoints_come_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let log = checkpointed(directory.path(), 10);
    let start = std::time::Instant::now();
    let mut index = 0;
    while std::fs::read_to_string(the_file(directory.path(), ".jsonl")).unwrap().matches("\"kind\":\"checkpoint\"").count() < 2 {
        log.append(call(format!("t{index}"))).unwrap();
        index += 1;
        std::thread::sleep(Duration::from_millis(1));
        assert!(start.elapsed() < Duration::from_secs(10), "no checkpoint after {index} records");
    }
    log.close().unwrap();
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
}

/// Makes a closed directory look like one of the build before there were signatures, as somebody without the key can: no
/// public key, no checkpoints, a head without a signature, and hashes that fit.
fn without_signatures(directory: &Path) {
    std::fs::remove_file(directory.join("audit.pub")).unwrap();
    std::fs::remove_file(the_file(directory, ".checkpoints")).unwrap();
    change(directory, |lines| {
        lines.retain(|line| !line.contains("\"kind\":\"checkpoint\""));
        for (index, line) in lines.iter_mut().enumerate() {
            let stated = format!("\"seq\":{}", serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"]);
            *line = line.replacen(&stated, &format!("\"seq\":{}", index + 1), 1);
        }
        rehash(lines, 0);
    });
    refit_head(directory);
    let path = the_file(directory, ".head");
    let mut head: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    head.as_object_mut().unwrap().remove("signature");
    std::fs::write(&path, head.to_string()).unwrap();
}

#[test]
fn removing_every_signature_does_not_make_a_start_sign_what_was_forged() {
    let directory = closed();
    change(directory.path(), |lines| lines[2] = lines[2].replace("tool-1", "tool-9"));
    without_signatures(directory.path());
    let forged = unsigned_chains(directory.path()).unwrap();
    drop(open(directory.path()));
    let report = verify(directory.path()).unwrap();
    assert!(!report.is_intact() && report.chains.len() == 2, "a chain of its own is begun: {report:?}");
    assert!(report.findings.iter().any(|f| f.file.starts_with(&forged[0])), "{:?}", report.findings);
    let opened = query(directory.path(), AuditFilter { kinds: [EventKind::Opened].into(), ..AuditFilter::default() }).unwrap();
    let aside = opened.map(Result::unwrap).filter_map(|r| r.event.chain).find(|mark| !mark.left_aside.is_empty()).unwrap();
    assert!(aside.left_aside[&forged[0]].contains("audit adopt"), "{aside:?}");
    // Nor does the next one.
    drop(open(directory.path()));
    assert!(!verify(directory.path()).unwrap().is_intact());
    assert_eq!(unsigned_chains(directory.path()).unwrap(), forged);
}

#[test]
fn a_lost_public_key_alone_loses_nothing() {
    let directory = closed();
    std::fs::remove_file(directory.path().join("audit.pub")).unwrap();
    drop(open(directory.path()));
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact() && report.chains.len() == 1, "the chain is signed, and goes on: {report:?}");
}

#[test]
fn a_directory_from_before_signatures_is_signed_when_somebody_says_so() {
    let directory = closed();
    without_signatures(directory.path());
    let lenient = VerifyOptions { accept_unsigned: true, ..VerifyOptions::default() };
    let report = verify_with(directory.path(), &lenient).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(problems(directory.path()), [Problem::Unsigned], "and without that leave it is said");
    let old = unsigned_chains(directory.path()).unwrap().remove(0);
    let boss = portcullis_model::Principal {
        id: portcullis_model::PrincipalId::new("local:boss").unwrap(),
        credential: portcullis_model::CredentialKind::Local,
        tenant: portcullis_model::TenantId::default_tenant(),
        roles: std::collections::BTreeSet::new(),
        doors: std::collections::BTreeSet::new(),
        scope: portcullis_model::Scope::tenant_wide(portcullis_model::TenantId::default_tenant()),
    };
    let log = open(directory.path());
    let adopted = adopt(&log, &old, &boss, &clock()).unwrap();
    assert!(adopted.sequence > 0 && adopted.hash.len() == 64);
    let again = adopt(&log, &old, &boss, &clock()).unwrap_err().to_string();
    assert!(again.contains("has a signature"), "{again}");
    assert!(adopt(&log, "audit-nothing", &boss, &clock()).unwrap_err().to_string().contains("no such chain"));
    drop(log);
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact() && report.chains.len() == 2, "{:?}", report.findings);
    let admin = query(directory.path(), AuditFilter { kinds: [EventKind::Admin].into(), ..AuditFilter::default() }).unwrap();
    let records: Vec<_> = admin.map(Result::unwrap).collect();
    assert_eq!(records.len(), 1, "what was refused left no record");
    let event = &records[0].event;
    assert_eq!((event.method.as_deref(), event.target.as_deref()), (Some("audit.adopt"), Some(old.as_str())));
    assert!(event.note.as_deref().unwrap().contains(&adopted.hash), "{event:?}");
}

fn with_retention(directory: &Path, retention: Retention, clock: &ManualClock) -> AuditLog {
    let options = AuditOptions { rotate_at_bytes: 2_000, retention, ..AuditOptions::default() };
    AuditLog::open_with(directory, Arc::new(clock.clone()), options).unwrap()
}

#[test]
fn retention_removes_whole_parts_records_it_and_the_rest_verifies() {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let log = with_retention(directory.path(), Retention { max_age: Some(Duration::from_hours(24)), max_bytes: None }, &clock);
    for index in 0..40 {
        clock.advance(Duration::from_hours(1));
        log.append(call(format!("t{index}"))).unwrap();
    }
    let parts = files(directory.path(), "").iter().filter(|p| p.to_string_lossy().contains(".jsonl.")).count();
    let removed = log.retain().unwrap();
    assert_eq!(removed.len(), 1);
    let left = files(directory.path(), "").iter().filter(|p| p.to_string_lossy().contains(".jsonl.")).count();
    assert!(left > 0 && left < parts, "{left} of {parts} are left");
    log.append(call("after")).unwrap();
    drop(log);
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.chains[0].begins_at, removed[0].first_sequence);
    assert!(report.chains[0].begins_at > 1);
    let records: Vec<_> = query(directory.path(), AuditFilter::default()).unwrap().map(Result::unwrap).collect();
    assert_eq!(records[0].sequence, removed[0].first_sequence);
    let mark = records.iter().find(|r| r.event.kind == EventKind::Retention).unwrap();
    assert_eq!(mark.event.chain.as_ref().unwrap().retention.as_ref(), Some(&removed[0]));
    drop(with_retention(directory.path(), Retention::default(), &clock));
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact() && report.chains.len() == 1, "the chain goes on: {report:?}");
}

#[test]
fn removing_old_parts_by_hand_is_not_retention() {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let log = with_retention(directory.path(), Retention { max_age: None, max_bytes: Some(5_000) }, &clock);
    for index in 0..60 {
        log.append(call(format!("t{index}"))).unwrap();
    }
    assert_eq!(log.retain().unwrap().len(), 1);
    drop(log);
    assert!(verify(directory.path()).unwrap().is_intact());
    let number = |p: &std::path::PathBuf| p.to_str().unwrap().rsplit_once(".jsonl.").and_then(|(_, n)| n.parse::<u64>().ok());
    let oldest = files(directory.path(), "").into_iter().filter(|p| number(p).is_some()).min_by_key(number).unwrap();
    std::fs::remove_file(&oldest).unwrap();
    assert!(problems(directory.path()).contains(&Problem::FileMissing));
    // Nor does it help to move the beginning.
    let base = the_file(directory.path(), ".base");
    let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&base).unwrap()).unwrap();
    text["part"] = (text["part"].as_u64().unwrap() + 1).into();
    std::fs::write(&base, text.to_string()).unwrap();
    assert!(problems(directory.path()).contains(&Problem::Forged));
}

//! Everything somebody might do to the files, and what `verify` says to it.

use std::fmt::Write as _;
use std::path::Path;

use portcullis_audit::{Finding, Problem, VerifyReport, verify};

use crate::{call, files, open, open_rotating, the_file};

/// A closed chain of eight records: opened, six calls, closed.
fn written() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    for index in 0..6 {
        log.append(call(format!("tool-{index}"))).unwrap();
    }
    log.close().unwrap();
    let report = verify(directory.path()).unwrap();
    assert!(report.is_intact() && report.records() == 8, "{report:?}");
    directory
}

fn change_lines(directory: &Path, change: impl FnOnce(&mut Vec<String>)) -> VerifyReport {
    let path = the_file(directory, ".jsonl");
    let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    let text = lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    });
    std::fs::write(&path, text).unwrap();
    verify(directory).unwrap()
}

fn problems(report: &VerifyReport) -> Vec<(Problem, Option<u64>)> {
    report.findings.iter().map(|f| (f.problem, f.sequence)).collect()
}

/// The line with another event and a hash that fits it.
fn forged(line: &str, from: &str, to: &str) -> String {
    let body = line.replace(from, to);
    assert_ne!(body, line);
    let body = &body[..body.len() - 75];
    let prev = body.split("\"prev\":\"").nth(1).unwrap().get(..64).unwrap();
    let prev = blake3::Hash::from_hex(prev).unwrap();
    let hash = blake3::Hasher::new().update(prev.as_bytes()).update(body.as_bytes()).finalize();
    format!("{body},\"hash\":\"{hash}\"}}")
}

#[test]
fn one_changed_byte_of_any_class_is_found_where_it_is() {
    let table = [
        ("the number", "\"seq\":4", "\"seq\":5"),
        ("the time", "2027-01-15", "2027-01-16"),
        ("a digit of prev", "\"prev\":\"", "\"prev\":\"0"),
        ("a letter of the event", "tool-2", "tool-9"),
        ("a key of the event", "\"rule\"", "\"role\""),
        ("a value", "1200", "1201"),
        ("the decision", "allow", "deny"),
        ("white space", "\"kind\":", "\"kind\": "),
        ("a duplicate key", "\"kind\":\"call\"", "\"kind\":\"stop\",\"kind\":\"call\""),
        ("the hash key", "\"hash\":", "\"hush\":"),
        ("the end", "\"}", "\"]"),
        ("everything", "{", ""),
    ];
    for (what, from, to) in table {
        let directory = written();
        let report = change_lines(directory.path(), |lines| {
            let at = lines[3].rfind(from).unwrap_or_else(|| panic!("{what}"));
            lines[3].replace_range(at..at + from.len(), to);
        });
        assert!(!report.is_intact(), "{what} went unnoticed");
        let first = &report.findings[0];
        assert_eq!(first.line, Some(4), "{what}: {report:?}");
        assert!(matches!(first.problem, Problem::Edited | Problem::Unreadable), "{what}: {first:?}");
    }
}

#[test]
fn a_changed_hash_is_found() {
    let directory = written();
    let report = change_lines(directory.path(), |lines| {
        let at = lines[3].len() - 10;
        let digit = if lines[3].as_bytes()[at] == b'0' { "1" } else { "0" };
        lines[3].replace_range(at..=at, digit);
    });
    assert_eq!(problems(&report), [(Problem::Edited, Some(4))], "one deed, one finding");
    let upper = written();
    let report = change_lines(upper.path(), |lines| {
        let at = lines[3].len() - 66;
        let hash = lines[3].split_off(at).to_uppercase();
        lines[3].push_str(&hash);
    });
    assert_eq!(problems(&report), [(Problem::Unreadable, None)], "another spelling of the hash");
}

#[test]
fn every_byte_of_the_file_is_covered() {
    let directory = written();
    let path = the_file(directory.path(), ".jsonl");
    let original = std::fs::read(&path).unwrap();
    for position in (0..original.len()).step_by(7).chain([original.len() - 1]) {
        let mut bytes = original.clone();
        bytes[position] ^= 0x01;
        std::fs::write(&path, &bytes).unwrap();
        assert!(!verify(directory.path()).unwrap().is_intact(), "byte {position} can be changed unnoticed");
    }
}

#[test]
fn removed_swapped_and_doubled_lines_are_told_apart() {
    let gone = change_lines(written().path(), |lines| drop(lines.remove(3)));
    assert_eq!(problems(&gone), [(Problem::Missing, Some(4))]);
    assert_eq!(gone.findings[0].line, Some(4), "where it is missing");

    let three = change_lines(written().path(), |lines| drop(lines.drain(2..5)));
    assert_eq!(problems(&three), [(Problem::Missing, Some(3))]);
    assert!(three.findings[0].detail.contains("records 3 to 5"), "{three:?}");

    let swapped = change_lines(written().path(), |lines| lines.swap(3, 4));
    assert_eq!(problems(&swapped), [(Problem::Reordered, Some(4))]);

    let doubled = change_lines(written().path(), |lines| lines.insert(4, lines[3].clone()));
    assert_eq!(problems(&doubled), [(Problem::Duplicated, Some(4))]);

    let garbage = change_lines(written().path(), |lines| lines.insert(4, "not a record".into()));
    assert_eq!(problems(&garbage), [(Problem::Unreadable, None)]);

    let replaced = change_lines(written().path(), |lines| lines[4] = "not a record".into());
    assert_eq!(problems(&replaced), [(Problem::Unreadable, None)]);
}

#[test]
fn a_cut_off_end_is_found_through_the_head() {
    let directory = written();
    let report = change_lines(directory.path(), |lines| lines.truncate(5));
    assert_eq!(problems(&report), [(Problem::Truncated, Some(6))]);
    assert!(report.findings[0].detail.contains("records 6 to 8 are missing at the end"), "{report:?}");

    let emptied = written();
    let report = change_lines(emptied.path(), Vec::clear);
    assert_eq!(problems(&report), [(Problem::Truncated, Some(1))]);

    let torn = written();
    let path = the_file(torn.path(), ".jsonl");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let found = problems(&verify(torn.path()).unwrap());
    assert_eq!(found, [(Problem::Torn, None), (Problem::Truncated, Some(8))]);
}

#[test]
fn forged_records_are_found() {
    let appended = change_lines(written().path(), |lines| {
        let last = lines.last().unwrap().replace("\"seq\":8", "\"seq\":9");
        lines.push(last);
    });
    assert!(problems(&appended).contains(&(Problem::Edited, Some(9))), "{appended:?}");

    // A forger who knows the format makes every hash right.
    let chained = change_lines(written().path(), |lines| {
        let last = lines.last().unwrap().clone();
        let hash = &last[last.len() - 66..last.len() - 2];
        let prev = last.split("\"prev\":\"").nth(1).unwrap().get(..64).unwrap().to_owned();
        let next = last.replace("\"seq\":8", "\"seq\":9").replacen(&prev, hash, 1);
        lines.push(forged(&next, "closed", "opened"));
    });
    assert_eq!(problems(&chained), [(Problem::AfterClose, Some(9))]);

    let edited = change_lines(written().path(), |lines| lines[3] = forged(&lines[3].clone(), "tool-2", "tool-9"));
    assert_eq!(problems(&edited), [(Problem::BrokenLink, Some(5))]);

    let last = change_lines(written().path(), |lines| lines[7] = forged(&lines[7].clone(), "closed", "call"));
    assert_eq!(problems(&last), [(Problem::SignatureDiffers, Some(8)), (Problem::HeadDiffers, Some(8))]);
}

#[test]
fn removed_files_are_found() {
    let head = written();
    std::fs::remove_file(the_file(head.path(), ".head")).unwrap();
    assert_eq!(problems(&verify(head.path()).unwrap()), [(Problem::HeadMissing, None)]);

    let log = written();
    std::fs::remove_file(the_file(log.path(), ".jsonl")).unwrap();
    assert_eq!(problems(&verify(log.path()).unwrap()), [(Problem::Truncated, Some(1))]);

    let both = written();
    std::fs::remove_file(the_file(both.path(), ".jsonl")).unwrap();
    std::fs::remove_file(the_file(both.path(), ".head")).unwrap();
    assert_eq!(problems(&verify(both.path()).unwrap()), [(Problem::FileMissing, None)]);

    let part = tempfile::tempdir().unwrap();
    let rotating = open_rotating(part.path(), 1_500);
    for index in 0..20 {
        rotating.append(call(format!("t{index}"))).unwrap();
    }
    rotating.close().unwrap();
    assert!(verify(part.path()).unwrap().is_intact());
    std::fs::remove_file(the_file(part.path(), ".jsonl.2")).unwrap();
    let found = problems(&verify(part.path()).unwrap());
    assert!(matches!(found[..], [(Problem::FileMissing, None), (Problem::Missing, Some(_))]), "{found:?}");
}

#[test]
fn swapped_files_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (open(directory.path()), open(directory.path()));
    one.append(call("one")).unwrap();
    two.append(call("two")).unwrap();
    drop((one, two));
    let logs = files(directory.path(), ".jsonl");
    let (a, b) = (std::fs::read(&logs[0]).unwrap(), std::fs::read(&logs[1]).unwrap());
    std::fs::write(&logs[0], b).unwrap();
    std::fs::write(&logs[1], a).unwrap();
    let report = verify(directory.path()).unwrap();
    assert!(report.findings.iter().any(|f| f.problem == Problem::WrongFile), "{report:?}");
}

#[test]
fn a_whole_chain_that_was_removed_is_missed_by_its_neighbour() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    first.append(call("evidence")).unwrap();
    first.sync().unwrap();
    let doomed = the_file(directory.path(), ".jsonl").with_extension("");
    let second = open(directory.path());
    drop((first, second));
    assert!(verify(directory.path()).unwrap().is_intact());
    for extension in ["jsonl", "head", "lock", "checkpoints"] {
        std::fs::remove_file(doomed.with_extension(extension)).unwrap();
    }
    let report = verify(directory.path()).unwrap();
    let [Finding { problem: Problem::WitnessDiffers, detail, .. }] = &report.findings[..] else { panic!("{report:?}") };
    assert!(detail.contains("the chain is gone"), "{detail}");
}

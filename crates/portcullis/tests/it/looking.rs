//! Commands that only look: they make no file and change none, whether there is something to look at or not, and they say when
//! the state is that of another version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::server::{Home, intact};

/// Commands that read the state, and succeed where there is none.
const LOOKS: [&[&str]; 12] = [
    &["config", "check"],
    &["policy", "check"],
    &["policy", "explain", "--role", "reader"],
    &["access", "review"],
    &["key", "list"],
    &["key", "list", "--json"],
    &["approvals", "list"],
    &["profile", "list"],
    &["names", "list", "--all"],
    &["upstream", "list"],
    &["secret", "list"],
    &["secret", "check"],
];

/// Every file below a directory, with what is in it.
fn everything(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(everything(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Fails with the names of what is not as it was.
fn unchanged(home: &Home, before: &BTreeMap<PathBuf, Vec<u8>>, command: &[&str]) {
    let after = everything(&home.data());
    let names = |one: &BTreeMap<PathBuf, Vec<u8>>| one.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(before), "{command:?}");
    let differs = |(path, bytes): &(&PathBuf, &Vec<u8>)| before.get(*path) != Some(*bytes);
    let changed: Vec<&PathBuf> = after.iter().filter(differs).map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{command:?} changed {changed:?}");
}

#[test]
fn what_only_looks_makes_nothing_and_changes_nothing() {
    let home = Home::new("");
    for command in LOOKS {
        home.run_ok(command);
        assert!(!home.data().exists(), "{command:?}");
    }
    let id = home.key(&["--role", "reader"]).split('_').nth(1).unwrap().to_owned();
    let principal = format!("key:{id}");
    let before = everything(&home.data());
    assert!(before.contains_key(&home.data().join("state.sqlite")), "{:?}", before.keys());
    let about: [&[&str]; 3] = [
        &["key", "show", &id],
        &["policy", "explain", "--principal", &principal],
        &["policy", "explain", "--principal", &principal, "--tool", "query_logs", "--arg", "service=cart"],
    ];
    for command in LOOKS.into_iter().chain(about) {
        home.run_ok(command);
        unchanged(&home, &before, command);
    }
    assert!(home.run_ok(&["access", "review"]).contains(&principal), "and it is all seen");
    assert!(home.run_ok(&["key", "list"]).contains(&id));
    assert!(intact(&home));
}

#[test]
fn a_state_of_another_version_is_said_and_not_brought_up_to_date() {
    let home = Home::new("");
    home.key(&["--role", "reader"]);
    let file = home.data().join("state.sqlite");
    assert!(!home.data().join("state.sqlite-wal").exists(), "all of it is in the file");
    let (older, newer) = ((0_u32, "has schema version 0, this build reads 1"), (99, "has schema version 99, this build knows"));
    for (version, says) in [older, newer] {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[60..64].copy_from_slice(&version.to_be_bytes());
        std::fs::write(&file, bytes).unwrap();
        let before = everything(&home.data());
        // Rules can be looked at without it, with a word about what is missing.
        for command in [&["config", "check"][..], &["policy", "check"], &["policy", "explain", "--role", "reader"]] {
            assert!(flat(&home.run_ok(command)).contains(says), "{command:?}");
            unchanged(&home, &before, command);
        }
        for command in [&["key", "list"][..], &["access", "review"], &["approvals", "list"], &["names", "list"], &["doctor"]] {
            let output = home.run(command);
            let said = flat(&String::from_utf8_lossy(&output.stderr));
            assert!(!output.status.success() && said.contains(says), "{command:?}: {said}");
            unchanged(&home, &before, command);
        }
    }
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

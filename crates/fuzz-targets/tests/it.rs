//! The driver itself: it finds what is broken, says the input, and repeats a run from its number.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use portcullis_fuzz_targets::drive::{Broken, Plan, drive};
use portcullis_fuzz_targets::side_by_side::side_by_side;
use portcullis_fuzz_targets::{TARGETS, Target, Verdict};

fn plan(millis: u64) -> Plan {
    Plan { time: Duration::from_millis(millis), ..Plan::default() }
}

fn broken(bytes: &[u8]) -> Verdict {
    assert!(!bytes.windows(2).any(|w| w == b"}{"), "a promise");
    Verdict { accepted: true, said: String::new() }
}

fn slow(_: &[u8]) -> Verdict {
    let from = std::time::Instant::now();
    while from.elapsed() < Duration::from_millis(3) {
        std::hint::spin_loop();
    }
    Verdict { accepted: false, said: "slow".into() }
}

const BROKEN: Target = Target { name: "broken", promise: "never }{", seeds: &["{a}"], words: &["{", "}"], run: broken };

#[test]
fn a_broken_promise_is_found_with_its_input_and_found_again() {
    let first = drive(&BROKEN, &plan(20_000)).unwrap_err();
    let again = drive(&BROKEN, &plan(20_000)).unwrap_err();
    let (Broken::Panic { message, number, input, .. }, Broken::Panic { number: second, input: same, .. }) = (first, again) else {
        panic!("another failure");
    };
    assert_eq!((number, &input), (second, &same));
    assert!(message.contains("a promise") && input.contains("}{"), "{message} {input}");
    let Err(Broken::Panic { number: other, .. }) = drive(&BROKEN, &Plan { seed: 2, ..plan(20_000) }) else {
        panic!("another failure");
    };
    assert_ne!(number, other, "another number is another run");
}

#[test]
fn inputs_that_take_long_are_found() {
    let target = Target { run: slow, ..BROKEN };
    let error = drive(&target, &Plan { slowest: Duration::from_millis(1), ..plan(1_000) }).unwrap_err();
    assert!(matches!(error, Broken::Slow { .. }), "{error}");
}

#[test]
fn every_target_takes_its_seeds_and_has_its_cargo_fuzz_twin() {
    for target in TARGETS {
        let run = drive(target, &plan(0)).unwrap_or_else(|e| panic!("{}: {e}", target.name));
        assert_eq!(run.inputs, target.seeds.len() as u64, "{}", target.name);
        assert!(
            run.accepted > 0 || target.name == "redactor",
            "{}: no seed is taken, so nothing behind the door is tried",
            target.name
        );
        let twin = format!("{}/../../fuzz/fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
        let text = std::fs::read_to_string(&twin).unwrap_or_else(|e| panic!("{twin}: {e}"));
        assert!(text.contains(&format!("run(\"{}\"", target.name)), "{twin}");
    }
}

/// Runs a shell script as the program, which is told the name of the target in `$3`.
fn scripted(script: &str, names: &[&'static str], jobs: usize) -> Vec<(&'static str, bool, String)> {
    let options: Vec<OsString> = ["-c", script, "script"].map(OsString::from).into();
    let seen = Mutex::new(0);
    let count = |_: &_| *seen.lock().unwrap() += 1;
    let mut ended = side_by_side(Path::new("/bin/sh"), &options, None, names, jobs, &count).unwrap();
    assert_eq!(*seen.lock().unwrap(), names.len(), "each end is told once");
    ended.sort_by_key(|one| names.iter().position(|name| *name == one.name));
    ended.into_iter().map(|one| (one.name, one.held, one.said)).collect()
}

#[test]
fn every_target_ends_for_itself_however_it_ends() {
    let script =
        "case $3 in good) echo ok good;; bad) echo BROKEN bad; exit 1;; dies) kill -ABRT $$;; odd) echo no >&2; exit 2;; esac";
    let ended = scripted(script, &["dies", "good", "bad", "odd"], 3);
    assert_eq!(ended[1], ("good", true, "ok good".to_owned()));
    assert_eq!(ended[2], ("bad", false, "BROKEN bad".to_owned()));
    for (index, words) in [(0, "signal"), (3, "no")] {
        assert!(!ended[index].1 && ended[index].2.contains("BROKEN") && ended[index].2.contains(words), "{ended:?}");
    }
    let nowhere = side_by_side(Path::new("/nowhere/program"), &[], None, &["a"], 2, &|_| {});
    assert!(nowhere.is_err(), "{nowhere:?}");
}

#[test]
fn as_many_run_at_once_as_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    // Each waits until the other has come; alone it would give up.
    let script = format!(
        "cd {} && touch $3 && for n in $(seq 200); do [ -e one ] && [ -e two ] && echo met && exit 0; sleep 0.1; done; exit 1",
        folder.path().display()
    );
    assert!(scripted(&script, &["one", "two"], 2).iter().all(|(_, held, said)| *held && said == "met"));
}

#[test]
fn the_program_runs_targets_side_by_side_and_keeps_their_inputs_apart() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("input");
    let program = env!("CARGO_BIN_EXE_portcullis-fuzz");
    let run = |arguments: &[&str]| Command::new(program).args(arguments).arg("--keep").arg(&keep).output().unwrap();
    let output = run(&["--seconds", "0", "--jobs", "2", "logql", "traceql", "logql"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.lines().count() == 2, "{output:?}");
    assert!(said.lines().all(|line| line.starts_with("ok ")) && said.contains("logql") && said.contains("traceql"), "{said}");
    for name in ["logql", "traceql"] {
        assert!(folder.path().join(format!("input-{name}")).exists(), "{name}");
    }
    for wrong in [&["--jobs", "0"][..], &["--jobs"], &["nothing"], &["--seconds", "x"]] {
        assert_eq!(Command::new(program).args(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

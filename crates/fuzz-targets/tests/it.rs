//! The driver itself: it finds what is broken, says the input, and repeats a run from its number.

use std::time::Duration;

use portcullis_fuzz_targets::drive::{Broken, Plan, drive};
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

//! Log lines mined per second on one core: `cargo bench -p portcullis-analysis --bench mining`; aim: one million.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a benchmark, not the product")]

use std::time::Instant;

use portcullis_analysis::{LogLine, Miner, Period};
use portcullis_model::{Severity, Timestamp};

/// Lines of a shop under load, the same on every run.
fn synthetic(count: usize, json: bool) -> Vec<String> {
    let mut state = 7u64;
    let mut dice = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    (0..count)
        .map(|_| {
            let (text, level) = match dice(5) {
                0 => (
                    format!(
                        "Received block blk_{} of size {} from /10.251.{}.{}",
                        dice(1 << 40),
                        dice(1 << 26),
                        dice(250),
                        dice(250)
                    ),
                    "info",
                ),
                1 => (format!("GET /api/products/{} 200 took {} ms", dice(9_000), dice(900)), "info"),
                2 => (
                    format!(
                        "Failed password for user{} from 10.0.{}.{} port {} ssh2",
                        dice(400),
                        dice(250),
                        dice(250),
                        dice(65_000)
                    ),
                    "warn",
                ),
                3 => (format!("payment declined order={:016x} attempt={}", dice(1 << 60), dice(5)), "error"),
                _ => (
                    format!("cache refresh finished in {}ms with {} entries for shard {}", dice(5_000), dice(10_000), dice(16)),
                    "debug",
                ),
            };
            if json {
                format!(r#"{{"ts":"2026-03-01T10:00:00Z","level":"{level}","msg":"{text}","pod":"shop-1"}}"#)
            } else {
                text
            }
        })
        .collect()
}

fn measure(name: &str, lines: &[String]) -> f64 {
    let mut miner = Miner::default();
    let begin = Instant::now();
    for (index, body) in lines.iter().enumerate() {
        let line = LogLine { at: Timestamp::from_nanos(index as i64), severity: Some(Severity::Info), service: "shop", body };
        miner.observe(Period::Current, &line);
    }
    let learned = begin.elapsed();
    let begin_report = Instant::now();
    let report = miner.report(None);
    let reported = begin_report.elapsed();
    let bytes: usize = lines.iter().map(String::len).sum();
    let rate = lines.len() as f64 / learned.as_secs_f64();
    println!(
        "{name}: {:.2} million lines/s, {:.0} MB/s, {} templates, report in {:.1} ms",
        rate / 1e6,
        bytes as f64 / learned.as_secs_f64() / 1e6,
        report.templates.len(),
        reported.as_secs_f64() * 1e3
    );
    assert_eq!(report.templates.iter().map(|t| t.count).sum::<u64>() + report.overflow_lines, lines.len() as u64);
    rate
}

fn main() {
    measure("plain text", &synthetic(1_000_000, false));
    measure("json", &synthetic(1_000_000, true));
    let mut word = 1u64;
    let mut next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (0..8).map(|i| char::from(b'a' + ((word >> (20 + 5 * i)) % 26) as u8)).collect::<String>()
    };
    let unlike: Vec<String> = (0..100_000).map(|_| (0..12).map(|_| next()).collect::<Vec<_>>().join(" ")).collect();
    measure("no two lines alike", &unlike);
    let alike: Vec<String> =
        (0..100_000).map(|_| format!("cannot open {} for reader in room seven of the west wing", next())).collect();
    measure("one word varies", &alike);
}

//! What releasing costs: megabytes per second of redaction on one core, over logs as services write them, and over those of
//! Loghub where they are. The floor is one search through the same bytes: on a machine that does other work beside, read the
//! figures against it.

#![allow(clippy::print_stdout, reason = "a benchmark, not the product")]

use std::path::{Path, PathBuf};

use divan::Bencher;
use divan::counter::BytesCount;
use portcullis_guard::{Redactions, Redactor};
use serde_json::{Value, json};

fn main() {
    if loghub(SYSTEMS[0]).is_none() {
        println!("skipped: no folder loghub-2k, so no logs of real systems (set PORTCULLIS_DATA)");
    }
    divan::main();
}

/// Systems whose logs Loghub has, the first lines of each.
const SYSTEMS: [&str; 7] = ["Apache", "HDFS", "Linux", "OpenSSH", "Proxifier", "Spark", "Zookeeper"];

/// The log of a system as it was written, again and again up to a mebibyte.
fn loghub(system: &str) -> Option<String> {
    let data = std::env::var_os("PORTCULLIS_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let log = std::fs::read_to_string(data.join("loghub-2k").join(system).join(format!("{system}_2k.log"))).ok()?;
    Some(log.repeat((1 << 20) / log.len().max(1) + 1))
}

/// About a mebibyte of lines, made from a fixed sequence of numbers.
fn lines(mut line: impl FnMut(u64) -> String) -> String {
    let mut text = String::with_capacity(1 << 20);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < 1 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&line(state >> 16));
        text.push('\n');
    }
    text
}

fn service_log() -> String {
    lines(|n| match n % 4 {
        0 => format!(
            "2026-11-20T10:{:02}:{:02}.{:03}Z INFO  [http-nio-8080-exec-{}] c.s.checkout.OrderController : order {} placed in {} ms",
            n % 60,
            n / 7 % 60,
            n % 1000,
            n % 30,
            n % 100_000,
            n % 900
        ),
        1 => format!(
            "2026-11-20T10:{:02}:{:02}.{:03}Z WARN  [pool-{}] com.zaxxer.hikari.pool.HikariPool : connection is not available, request timed out after {}ms",
            n % 60,
            n / 7 % 60,
            n % 1000,
            n % 9,
            n % 30_000
        ),
        2 => format!(
            "level=info ts=2026-11-20T10:{:02}:{:02}Z caller=compact.go:{} msg=\"write block\" mint={} maxt={} ulid=01HF{:022}",
            n % 60,
            n / 7 % 60,
            n % 900,
            n,
            n + 7_200_000,
            n
        ),
        _ => format!(
            "trace_id={:032x} span_id={:016x} GET http://inventory:8080/items/{} 200 in {}ms",
            u128::from(n) << 40,
            n,
            n % 5_000,
            n % 300
        ),
    })
}

fn json_log() -> String {
    lines(|n| {
        format!(
            "{{\"timestamp\":\"2026-11-20T10:{:02}:{:02}.{:03}Z\",\"level\":\"info\",\"logger\":\"shop.cart\",\"message\":\"item added\",\"cart\":{},\"took_ms\":{},\"trace_id\":\"{:032x}\"}}",
            n % 60,
            n / 7 % 60,
            n % 1000,
            n % 100_000,
            n % 70,
            u128::from(n) << 40
        )
    })
}

fn access_log() -> String {
    lines(|n| {
        format!(
            "203.0.113.{} - - [20/Nov/2026:10:{:02}:{:02} +0000] \"GET /items/{}?page={} HTTP/1.1\" 200 {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"",
            n % 250,
            n % 60,
            n / 7 % 60,
            n % 5_000,
            n % 9,
            n % 40_000
        )
    })
}

fn leaky_log() -> String {
    lines(|n| {
        format!(
            "2026-11-20T10:{:02}:{:02}Z DEBUG login user=u{}@example.com password=hunter{} from 198.51.100.{}",
            n % 60,
            n / 7 % 60,
            n % 1000,
            n,
            n % 250
        )
    })
}

fn measure(bencher: Bencher<'_, '_>, text: &str) {
    let Ok(redactor) = Redactor::new() else { return };
    bencher.counter(BytesCount::of_str(text)).bench(|| redactor.text(divan::black_box(text), &mut Redactions::default()).len());
}

#[divan::bench]
fn floor_one_search_for_a_byte_that_is_not_there(bencher: Bencher<'_, '_>) {
    let text = service_log();
    bencher.counter(BytesCount::of_str(&text)).bench(|| memchr::memchr(1, divan::black_box(text.as_bytes())));
}

#[divan::bench]
fn service_log_lines(bencher: Bencher<'_, '_>) {
    measure(bencher, &service_log());
}

#[divan::bench]
fn json_log_lines(bencher: Bencher<'_, '_>) {
    measure(bencher, &json_log());
}

#[divan::bench]
fn access_log_with_an_address_per_line(bencher: Bencher<'_, '_>) {
    measure(bencher, &access_log());
}

#[divan::bench]
fn log_with_three_findings_per_line(bencher: Bencher<'_, '_>) {
    measure(bencher, &leaky_log());
}

#[divan::bench(args = SYSTEMS)]
fn log_of_a_real_system(bencher: Bencher<'_, '_>, system: &str) {
    // Without the folder there is nothing to measure: said once, in front of all.
    let Some(text) = loghub(system) else { return };
    measure(bencher, &text);
}

#[divan::bench]
fn structured_rows(bencher: Bencher<'_, '_>) {
    let Ok(redactor) = Redactor::new() else { return };
    let text = service_log();
    let rows: Vec<Value> =
        text.lines().map(|line| json!({"timestamp": "2026-11-20T10:00:00Z", "service": "cart", "body": line})).collect();
    bencher.counter(BytesCount::of_str(&text)).with_inputs(|| Value::Array(rows.clone())).bench_values(|mut value| {
        redactor.value(&mut value, &mut Redactions::default());
        value
    });
}

//! Prints the store's figures: ingest rates, bytes per record, query times, memory. Loopback and one temporary directory only.
//!
//! `cargo bench -p portcullis-telemetry --bench store`; sizes by `STORE_BENCH_LOGS`, `STORE_BENCH_SPANS`, `STORE_BENCH_SERIES`,
//! directory by `STORE_BENCH_DIR`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // a benchmark ends where it fails, and prints

mod data;
mod figures;
mod queries;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use figures::Figures;
use portcullis_model::{SystemClock, TenantId};
use portcullis_telemetry::{Encoding, IngestError, OtlpSignal, StatementProgram, Store, StoreError, StoreSettings};

/// Senders at once.
const SENDERS: usize = 4;
/// After this long without work the process is idle.
const REST: Duration = Duration::from_secs(10);
/// Names the directory of a store that a second process opens and leaves alone.
const IDLE: &str = "STORE_BENCH_IDLE";

fn main() -> std::process::ExitCode {
    let scrubbed = |_: &str| Err("the benchmark scrubs nothing".to_owned());
    portcullis_telemetry::answer_statement(std::env::args_os(), scrubbed).unwrap_or_else(|| {
        bench();
        std::process::ExitCode::SUCCESS
    })
}

fn bench() {
    // Test runners pass flags such as `--test`; a benchmark has nothing to say to them.
    if std::env::args().any(|a| a == "--test" || a == "--list") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var_os(IDLE) {
        Some(directory) => runtime.block_on(rest(Path::new(&directory))),
        None => runtime.block_on(run()),
    }
}

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

async fn run() {
    let logs = size("STORE_BENCH_LOGS", 2_000_000);
    let spans = size("STORE_BENCH_SPANS", 1_000_000);
    let series = size("STORE_BENCH_SERIES", 1_000);
    let temporary =
        tempfile::tempdir_in(std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)).unwrap();
    let root = temporary.path();
    println!("store benchmark: {logs} log records, {spans} spans, {series} metric series over one hour");
    println!("empty: RSS {} MB", resident("VmRSS"));
    let input = data::write_all(root, logs, spans, series);
    let place = root.join("store");
    let statements = StatementProgram::this_binary().unwrap();
    let settings = StoreSettings { statements: Some(Arc::new(statements)), ..StoreSettings::new(&place) };
    let store = Store::open(settings, Arc::new(SystemClock)).unwrap();
    let mut figures = Figures::default();

    for (name, signal, file, count, aim) in [
        ("log records", OtlpSignal::Logs, &input.logs, logs, Some(200_000.0)),
        ("spans", OtlpSignal::Traces, &input.spans, spans, Some(120_000.0)),
        ("metric points", OtlpSignal::Metrics, &input.metrics, input.points, None),
    ] {
        let started = Instant::now();
        send_all(&store, signal, file).await;
        let acknowledged = started.elapsed();
        store.flush().await.unwrap();
        let flushed = started.elapsed();
        println!(
            "ingest {name}: {:.0}/s acknowledged and durable ({:.2} s), {:.0}/s until in segments; RSS {} MB, peak {} MB",
            count as f64 / acknowledged.as_secs_f64(),
            acknowledged.as_secs_f64(),
            count as f64 / flushed.as_secs_f64(),
            resident("VmRSS"),
            resident("VmHWM"),
        );
        if let Some(aim) = aim {
            figures.at_least(&format!("{name} per second, durable"), count as f64 / acknowledged.as_secs_f64(), aim);
        }
    }
    let started = Instant::now();
    store.maintain().await.unwrap();
    println!("merge: {:.2} s", started.elapsed().as_secs_f64());
    for ((_, table), stats) in store.stats().tables {
        println!(
            "stored {table}: {} rows in {} segments, {:.1} bytes per row",
            stats.rows,
            stats.segments,
            stats.bytes as f64 / stats.rows as f64
        );
        if table == "otel_logs" {
            figures.at_most("bytes per log record", stats.bytes as f64 / stats.rows as f64, 60.0);
        }
    }
    queries::run(&store, &input, &mut figures).await;
    println!("after queries: RSS {} MB, peak {} MB", resident("VmRSS"), resident("VmHWM"));
    figures.at_most("peak RSS, MB", resident("VmHWM") as f64, 500.0);
    tokio::time::sleep(REST).await;
    let idle = resident("VmRSS");
    println!("idle, {} s after the last question: RSS {idle} MB", REST.as_secs());
    figures.at_most("RSS idle in the process that did all this, MB", idle as f64, 60.0);
    store.close().await.unwrap();
    drop(store);
    // Close to the start of a server on a full directory: what the data at rest costs, without what the allocator keeps.
    let child = std::process::Command::new(std::env::current_exe().unwrap()).env(IDLE, &place).output().unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    print!("{said}");
    let opened = said.split_whitespace().rev().nth(1).and_then(|n| n.parse().ok()).unwrap();
    figures.at_most("RSS idle after a start on the same data, MB", opened, 60.0);
    figures.print();
}

/// Opens a store with data and leaves it alone.
async fn rest(directory: &Path) {
    let store = Store::open(StoreSettings::new(directory), Arc::new(SystemClock)).unwrap();
    tokio::time::sleep(REST).await;
    println!("idle, {} rows at rest, started {} s ago: RSS {} MB", store.stats().rows(), REST.as_secs(), resident("VmRSS"));
    store.close().await.unwrap();
}

/// Sends every request of a file from several tasks, coming back later when told to.
async fn send_all(store: &Store, signal: OtlpSignal, file: &Path) {
    let reader = Arc::new(Mutex::new(BufReader::with_capacity(1 << 20, File::open(file).unwrap())));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (store, reader) = (store.clone(), Arc::clone(&reader));
            tokio::spawn(async move {
                while let Some(payload) = next(&reader) {
                    send(&store, signal, payload).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
}

async fn send(store: &Store, signal: OtlpSignal, payload: Bytes) {
    loop {
        match store.ingest(TenantId::default_tenant(), signal, Encoding::Protobuf, payload.clone()).await {
            Ok(receipt) => {
                assert_eq!(receipt.rejected, 0, "{receipt:?}");
                return;
            }
            Err(IngestError::Store(StoreError::Overloaded { .. })) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other}"),
        }
    }
}

fn next(reader: &Mutex<BufReader<File>>) -> Option<Bytes> {
    let mut reader = reader.lock().unwrap();
    let mut length = [0; 4];
    reader.read_exact(&mut length).ok()?;
    let mut payload = vec![0; u32::from_le_bytes(length) as usize];
    reader.read_exact(&mut payload).unwrap();
    Some(payload.into())
}

/// A line of `/proc/self/status` in megabytes.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    value.and_then(|v| v.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

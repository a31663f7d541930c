//! What a statement does to its process: that ends, and nothing else does.

use std::time::{Duration, Instant};

use portcullis_model::FaultCode;
use portcullis_ports::{Source as _, SqlAnswer, SqlRequest};
use portcullis_telemetry::{SqlLimits, Store, StoreSettings};
use serde_json::json;

use crate::data::{ingest_logs, log, logs};
use crate::support::{everything, open_with, permit, settings, source};

async fn ask(store: &Store, statement: &str) -> Result<SqlAnswer, portcullis_model::Fault> {
    source(store).sql(&permit(everything()), &SqlRequest { statement: statement.into(), max_rows: 10 }).await
}

/// A store with records of 100 KB.
async fn filled(directory: &std::path::Path, limits: SqlLimits, records: i64) -> Store {
    let store = open_with(StoreSettings { sql: limits, ..settings(directory) });
    for record in 0..records {
        ingest_logs(&store, &logs("cart", vec![log(record, 9, &"a line of text ".repeat(6_700))])).await;
    }
    store
}

/// As many functions in one batch as the limits let through.
fn wide() -> String {
    let columns: Vec<String> =
        (0..180).map(|n| format!("max(octet_length(translate(Body, 'abcdefghijklmn{n}', 'opqrstuvwxyz'))) AS c{n}")).collect();
    format!("SELECT {} FROM otel_logs", columns.join(", "))
}

async fn both_places_are_free(store: &Store) {
    let counted = || ask(store, "SELECT count(*) FROM otel_logs");
    let (one, other) = tokio::join!(counted(), counted());
    assert_eq!((json!(one.unwrap().rows), json!(other.unwrap().rows)), (json!([[60]]), json!([[60]])));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_a_process_may_have_ends_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), SqlLimits { process_bytes: 96 << 20, ..SqlLimits::default() }, 60).await;
    // In one batch 2,000 texts of 100 KB each become longer, which no account of the engine knows of.
    let swollen = "SELECT max(octet_length(replace(concat(a.Body, b.SeverityNumber), 'a', 'bb'))) FROM otel_logs a JOIN otel_logs b ON a.ServiceName = b.ServiceName";
    let fault = ask(&store, swollen).await.unwrap_err();
    assert_eq!(fault.code(), FaultCode::InvalidArgument, "{fault}");
    assert!(fault.message().contains("more than the 96 MiB of memory that its process may have"), "{fault}");
    both_places_are_free(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_end_is_ended_at_the_deadline_and_its_place_is_free_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), SqlLimits { time: Duration::from_secs(3), ..SqlLimits::default() }, 60).await;
    let began = Instant::now();
    let wide = wide();
    let (one, other) = tokio::join!(ask(&store, &wide), ask(&store, &wide));
    let took = began.elapsed();
    for fault in [one.unwrap_err(), other.unwrap_err()] {
        assert_eq!(fault.code(), FaultCode::DeadlineExceeded, "{fault}");
    }
    assert!(took < Duration::from_secs(8), "{took:?}");
    both_places_are_free(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_ends_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), SqlLimits::default(), 60).await;
    let wide = wide();
    let (one, other) = (ask(&store, &wide), ask(&store, &wide));
    let gone = tokio::time::timeout(Duration::from_secs(1), async { tokio::join!(one, other) }).await;
    assert!(gone.is_err(), "both were under way");
    // They would have gone on for tens of seconds; nobody waited for their end.
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(fault) = ask(&store, "SELECT 1").await {
        assert!(fault.code() == FaultCode::RateLimited && Instant::now() < until, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_long_is_said_and_rows_that_fit_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), SqlLimits { result_bytes: 250_000, ..SqlLimits::default() }, 60).await;
    let answer = ask(&store, "SELECT Body FROM otel_logs").await.unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (2, true));
    let fault = ask(&store, "SELECT Body, Body || Body AS twice FROM otel_logs").await.unwrap_err();
    assert!(fault.message().contains("one row of the result takes more than 250000 bytes"), "{fault}");
}

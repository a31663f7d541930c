//! What is kept, what is dropped, what is found damaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{ManualClock, TenantId, Timestamp};
use portcullis_ports::{Source as _, SqlRequest};
use portcullis_telemetry::{OtlpSignal, Store, StoreError, StoreSettings};

use crate::data::{ingest, ingest_logs, log, logs};
use crate::support::{NOW, SECOND, everything, open, permit, settings, source, tenant};

async fn rows(store: &Store) -> i64 {
    let request = SqlRequest { statement: "SELECT count(*) FROM otel_logs".into(), max_rows: 1 };
    let answer = source(store).sql(&permit(everything()), &request).await.unwrap();
    answer.rows[0][0].as_i64().unwrap()
}

fn files(root: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn one_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let again = Store::open(StoreSettings::new(directory.path()), Arc::new(portcullis_model::SystemClock));
    let error = again.err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }) && error.to_string().contains("in use"), "{error}");
    store.close().await.unwrap();
    drop(open(directory.path()));
    // Not closed, only dropped: the threads end by themselves and the directory is free again.
    let again = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        Store::open(StoreSettings::new(directory.path()), Arc::new(portcullis_model::SystemClock)).ok()
    });
    assert!(again.is_some());
}

#[tokio::test]
async fn small_segments_are_merged_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..12 {
        ingest_logs(&store, &logs(["cart", "payment", "ads"][n % 3], vec![log(n as i64, 9, "x"), log(-(n as i64), 9, "y")]))
            .await;
        store.flush().await.unwrap();
    }
    store.maintain().await.unwrap();
    let stats = store.stats();
    let table = &stats.tables[&(TenantId::default_tenant(), "otel_logs".to_owned())];
    assert!(table.segments < 6, "{}", table.segments);
    assert_eq!((table.rows, rows(&store).await), (24, 24));
    assert_eq!(files(directory.path(), "parquet").len() as u64, table.segments);
    assert_eq!(table.newest, Some(Timestamp::from_nanos(NOW + 11 * SECOND)));
    store.close().await.unwrap();
    drop(store);
    assert_eq!(rows(&open(directory.path())).await, 24);
}

#[tokio::test]
async fn old_rows_are_dropped_by_age_and_the_oldest_by_size() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp::from_nanos(NOW));
    let aged = StoreSettings { retention_age: Some(Duration::from_hours(7 * 24)), ..settings(directory.path()) };
    let store = Store::open(aged, Arc::new(clock.clone())).unwrap();
    ingest_logs(&store, &logs("cart", vec![log(-6 * 86_400, 9, "old")])).await;
    store.flush().await.unwrap();
    ingest_logs(&store, &logs("cart", vec![log(0, 9, "new")])).await;
    store.flush().await.unwrap();
    store.maintain().await.unwrap();
    assert_eq!(rows(&store).await, 2);
    clock.advance(Duration::from_hours(48));
    store.maintain().await.unwrap();
    assert_eq!(rows(&store).await, 1);
    assert_eq!(files(directory.path(), "parquet").len(), 1);
    store.close().await.unwrap();
    drop(store);

    let one = fs::metadata(&files(directory.path(), "parquet")[0]).unwrap().len();
    let sized = StoreSettings { retention_bytes: Some(one * 5), ..settings(directory.path()) };
    let store = Store::open(sized, Arc::new(ManualClock::new(Timestamp::from_nanos(NOW)))).unwrap();
    // Days of their own are never merged, so every segment stays as it is.
    for day in 1..=12 {
        ingest_logs(&store, &logs("cart", vec![log(-day * 86_400, 9, "x")])).await;
        store.flush().await.unwrap();
    }
    store.maintain().await.unwrap();
    let stats = store.stats();
    assert!(stats.segment_bytes() <= one * 5 && rows(&store).await >= 2, "{stats:?}");
    let oldest = stats.tables.values().next().unwrap().oldest.unwrap();
    assert!(oldest > Timestamp::from_nanos(NOW - 6 * 86_400 * SECOND), "{oldest}");
}

#[tokio::test]
async fn a_torn_log_is_read_up_to_the_tear_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..10 {
        ingest_logs(&store, &logs("cart", vec![log(n, 9, "x")])).await;
    }
    // What a crash would leave: the directory as it is now, with the last frame cut.
    fs::create_dir(copy.path().join("wal")).unwrap();
    fs::copy(directory.path().join("catalog.journal"), copy.path().join("catalog.journal")).unwrap();
    let log_file = &files(&directory.path().join("wal"), "wal")[0];
    let bytes = fs::read(log_file).unwrap();
    fs::write(copy.path().join("wal").join(log_file.file_name().unwrap()), &bytes[..bytes.len() - 3]).unwrap();
    let store = open(copy.path());
    assert_eq!(rows(&store).await, 9);
    let damage = store.stats().damage;
    assert!(damage.len() == 1 && damage[0].contains("write-ahead log"), "{damage:?}");
    assert!(store.stats().last_error.is_none());
    ingest_logs(&store, &logs("cart", vec![log(11, 9, "x")])).await;
    assert_eq!(rows(&store).await, 10);
}

#[tokio::test]
async fn half_written_segments_are_removed_and_missing_ones_reported() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    ingest_logs(&store, &logs("cart", vec![log(0, 9, "x")])).await;
    store.flush().await.unwrap();
    ingest_logs(&store, &logs("cart", vec![log(1, 9, "y")])).await;
    store.close().await.unwrap();
    drop(store);
    let segments = files(directory.path(), "parquet");
    assert_eq!(segments.len(), 2);
    let table = segments[0].parent().unwrap();
    for stranger in ["00000000000000aa.parquet", "00000000000000aa.index", "00000000000000ab.parquet.tmp"] {
        fs::write(table.join(stranger), b"half").unwrap();
    }
    fs::remove_file(&segments[0]).unwrap();
    let store = open(directory.path());
    assert_eq!(rows(&store).await, 1);
    assert!(store.stats().damage[0].contains("is missing"), "{:?}", store.stats().damage);
    assert_eq!(files(directory.path(), "tmp").len() + files(directory.path(), "parquet").len(), 1);
}

#[tokio::test]
async fn tenants_live_in_directories_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["..", ".", "a", "A"] {
        ingest(&store, &tenant(name), portcullis_telemetry::OtlpSignal::Logs, &logs("cart", vec![log(0, 9, name)])).await;
    }
    store.flush().await.unwrap();
    for name in ["..", ".", "a", "A"] {
        let scope = portcullis_model::Scope::tenant_wide(tenant(name));
        let request = SqlRequest { statement: "SELECT Body FROM otel_logs".into(), max_rows: 10 };
        let answer = source(&store).sql(&permit(scope), &request).await.unwrap();
        assert_eq!(answer.rows, vec![vec![serde_json::json!(name)]]);
        assert!(directory.path().join("tenants").join(format!("t-{name}")).is_dir());
    }
}

#[tokio::test]
async fn closing_is_quick_and_leaves_nothing_to_replay() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..50 {
        ingest_logs(&store, &logs("cart", (0..200).map(|k| log(n * 200 + k, 9, "some text")).collect())).await;
    }
    let started = std::time::Instant::now();
    store.close().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let refused = store
        .ingest(
            TenantId::default_tenant(),
            portcullis_telemetry::OtlpSignal::Logs,
            portcullis_telemetry::Encoding::Protobuf,
            crate::data::protobuf(&logs("cart", vec![log(0, 9, "late")])).into(),
        )
        .await;
    assert!(refused.is_err());
    drop(store);
    let store = open(directory.path());
    assert_eq!(rows(&store).await, 10_000);
    assert!(store.stats().damage.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_on_the_machine_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("made/by/us");
    let store = open(&root);
    for round in 0..6 {
        for name in ["default", "other"] {
            ingest(&store, &tenant(name), OtlpSignal::Logs, &logs("cart", vec![log(round, 9, "x")])).await;
        }
        store.flush().await.unwrap();
    }
    store.maintain().await.unwrap();
    ingest_logs(&store, &logs("cart", vec![log(100, 9, "in the write-ahead log")])).await;
    let (mut open, mut seen) = (vec![parent.path().join("made")], BTreeSet::new());
    while let Some(path) = open.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
            let kind = path.extension().or_else(|| path.file_name()).unwrap();
            seen.insert(kind.to_string_lossy().into_owned());
        }
    }
    let expected = ["index", "journal", "lock", "parquet", "wal"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(expected));
}

//! Every store keeps the same contract; the SQLite file is shared, private and honest about damage.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise, in its helpers too")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Clock, ManualClock, Timestamp};
use portcullis_state::{MemoryStore, SqliteStore, Store, StoreError};

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_seconds(1_800_000_000))
}

async fn sqlite(path: &Path, clock: &ManualClock) -> SqliteStore {
    SqliteStore::open(path, Arc::new(clock.clone())).await.unwrap()
}

async fn keeps_the_contract(store: &dyn Store, clock: &ManualClock) {
    assert_eq!(store.change_counter("keys").await.unwrap(), 0);
    assert!(store.get("keys", "a").await.unwrap().is_none());
    let first = store.put("keys", "a", b"1", None).await.unwrap();
    assert_eq!(store.put_if_absent("keys", "a", b"2", None).await.unwrap(), None);
    assert_eq!(store.get("keys", "a").await.unwrap().unwrap().value, b"1");
    let second = store.compare_and_swap("keys", "a", first, b"3", None).await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(store.compare_and_swap("keys", "a", first, b"4", None).await.unwrap(), None);
    assert_eq!(store.compare_and_swap("keys", "none", 1, b"4", None).await.unwrap(), None);
    assert_eq!(store.get("keys", "a").await.unwrap().unwrap().value, b"3");
    assert_eq!(store.change_counter("keys").await.unwrap(), 2, "refused writes do not count");

    assert!(store.delete("keys", "a").await.unwrap());
    assert!(!store.delete("keys", "a").await.unwrap());
    assert_eq!(store.change_counter("keys").await.unwrap(), 3);
    let again = store.put_if_absent("keys", "a", b"5", None).await.unwrap().unwrap();
    assert!(again > second, "a version is never used twice");
    assert_eq!(store.compare_and_swap("keys", "a", second, b"6", None).await.unwrap(), None);
    assert_eq!(store.change_counter("other").await.unwrap(), 0, "namespaces are apart");
    assert!(store.get("other", "a").await.unwrap().is_none());

    let soon = clock.now().plus(Duration::from_secs(10));
    store.put("keys", "brief", b"x", Some(soon)).await.unwrap();
    assert_eq!(store.get("keys", "brief").await.unwrap().unwrap().expires_at, Some(soon));
    clock.advance(Duration::from_secs(10));
    assert!(store.get("keys", "brief").await.unwrap().is_none());
    assert!(!store.list("keys", "", 10).await.unwrap().entries.iter().any(|e| e.key == "brief"));
    assert!(!store.delete("keys", "brief").await.unwrap());
    assert!(store.put_if_absent("keys", "brief", b"y", None).await.unwrap().is_some());

    for index in 0..5 {
        store.put("list", &format!("p/{index}"), b"", None).await.unwrap();
    }
    store.put("list", "q", b"", None).await.unwrap();
    let page = store.list("list", "p/", 3).await.unwrap();
    assert_eq!(page.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["p/0", "p/1", "p/2"]);
    assert!(page.more);
    let rest = store.list_after("list", "p/", Some("p/2"), 3).await.unwrap();
    assert_eq!(rest.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["p/3", "p/4"]);
    assert!(!rest.more);
    assert_eq!(store.list("list", "", 100).await.unwrap().entries.len(), 6);
    assert!(matches!(store.get("keys", "a b").await, Err(StoreError::Invalid(_))));
    assert!(matches!(store.list("list", "", 0).await, Err(StoreError::Invalid(_))));
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let clock = clock();
    let store = MemoryStore::new(Arc::new(clock.clone()));
    keeps_the_contract(&store, &clock).await;
    store.set_unreachable(true);
    assert!(store.get("keys", "a").await.is_err());
    store.set_unreachable(false);
    assert!(store.get("keys", "a").await.is_ok());
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    keeps_the_contract(&sqlite(&directory.path().join("state.db"), &clock).await, &clock).await;
}

#[tokio::test]
async fn two_connections_see_each_other_and_a_restart_sees_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    let (one, two) = (sqlite(&path, &clock).await, sqlite(&path, &clock).await);
    let version = one.put("keys", "a", b"one", None).await.unwrap();
    assert_eq!(two.get("keys", "a").await.unwrap().unwrap().value, b"one");
    assert_eq!(two.change_counter("keys").await.unwrap(), 1);
    two.compare_and_swap("keys", "a", version, b"two", None).await.unwrap().unwrap();
    assert_eq!(one.compare_and_swap("keys", "a", version, b"lost", None).await.unwrap(), None);
    one.close().await;
    two.close().await;
    let later = sqlite(&path, &clock).await;
    assert_eq!(later.get("keys", "a").await.unwrap().unwrap().value, b"two");
    assert_eq!(later.change_counter("keys").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_lose_no_update() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    let first = sqlite(&path, &clock).await;
    first.put("count", "n", b"0", None).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = sqlite(&path, &clock).await;
        tasks.spawn(async move {
            let mut done = 0;
            while done < 10 {
                let entry = store.get("count", "n").await.unwrap().unwrap();
                let next = std::str::from_utf8(&entry.value).unwrap().parse::<u32>().unwrap() + 1;
                let next = next.to_string();
                let swapped = store.compare_and_swap("count", "n", entry.version, next.as_bytes(), None);
                done += usize::from(swapped.await.unwrap().is_some());
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(first.get("count", "n").await.unwrap().unwrap().value, b"40");
    assert_eq!(first.change_counter("count").await.unwrap(), 41);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_together_make_one_schema() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fresh/state.db");
    let clock = clock();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..6 {
        let (path, clock) = (path.clone(), clock.clone());
        tasks.spawn(async move { sqlite(&path, &clock).await.put("n", &format!("k{index}"), b"", None).await.unwrap() });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(sqlite(&path, &clock).await.list("n", "", 10).await.unwrap().entries.len(), 6);
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("data");
    let path = folder.join("state.db");
    let clock = clock();
    let store = sqlite(&path, &clock).await;
    store.put("n", "k", b"v", None).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(files.len() >= 2, "the write-ahead log is there too: {files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    store.close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    sqlite(&path, &clock).await;
    assert_eq!(mode(&path), 0o600, "an existing file is tightened");
}

#[tokio::test]
async fn a_damaged_file_says_so_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = SqliteStore::open(&path, Arc::new(clock.clone())).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("damaged") && text.contains("restore a backup") && text.contains("state.db"), "{text}");

    let torn = directory.path().join("torn.db");
    let store = sqlite(&torn, &clock).await;
    for index in 0..200 {
        store.put("n", &format!("k{index}"), &[7; 300], None).await.unwrap();
    }
    store.close().await;
    let mut bytes = std::fs::read(&torn).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0xff);
    std::fs::write(&torn, bytes).unwrap();
    let outcome = match SqliteStore::open(&torn, Arc::new(clock.clone())).await {
        Ok(store) => store.list("n", "", 1000).await.map(|l| l.entries.len()),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome, Err(StoreError::Corrupt { .. })), "{outcome:?}");
}

/// Every file below a directory, with what is in it.
fn everything(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())).collect()
}

/// Writes another schema version into a file that is not open: `user_version`, <https://www.sqlite.org/fileformat.html>.
fn with_version(path: &Path, version: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60..64].copy_from_slice(&version.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn looking_changes_nothing_and_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    let store = sqlite(&path, &clock).await;
    store.put("n", "k", b"v", None).await.unwrap();
    store.close().await;
    let before = everything(directory.path());
    assert_eq!(before.len(), 1, "at rest it is one file: {:?}", before.keys());
    let looked = SqliteStore::open_to_read(&path, Arc::new(clock.clone())).await.unwrap();
    assert_eq!(looked.get("n", "k").await.unwrap().unwrap().value, b"v");
    assert_eq!((looked.list("n", "", 10).await.unwrap().entries.len(), looked.change_counter("n").await.unwrap()), (1, 1));
    for refused in [
        looked.put("n", "k", b"w", None).await.map(drop),
        looked.put_if_absent("n", "other", b"w", None).await.map(drop),
        looked.compare_and_swap("n", "k", 1, b"w", None).await.map(drop),
        looked.delete("n", "k").await.map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::OpenedToRead { .. })), "{refused:?}");
    }
    looked.close().await;
    assert_eq!(everything(directory.path()), before);

    // Also where there is nothing.
    let nowhere = directory.path().join("none/state.db");
    let error = SqliteStore::open_to_read(&nowhere, Arc::new(clock)).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert_eq!(everything(directory.path()), before);
}

#[tokio::test]
async fn looking_sees_what_a_process_writes_and_leaves_its_files_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    let store = sqlite(&path, &clock).await;
    store.put("n", "k", b"first", None).await.unwrap();
    // What processes share about their locks is theirs to write.
    let locks = |mut files: BTreeMap<String, Vec<u8>>| {
        files.insert("state.db-shm".to_owned(), Vec::new());
        files
    };
    let before = locks(everything(directory.path()));
    assert!(before.contains_key("state.db-wal"), "{:?}", before.keys());
    let looked = SqliteStore::open_to_read(&path, Arc::new(clock.clone())).await.unwrap();
    assert_eq!(looked.get("n", "k").await.unwrap().unwrap().value, b"first");
    assert_eq!(locks(everything(directory.path())), before);
    store.put("n", "k", b"second", None).await.unwrap();
    assert_eq!(looked.get("n", "k").await.unwrap().unwrap().value, b"second");
    looked.close().await;
    store.put("n", "k", b"third", None).await.unwrap();

    // A copy without what goes with it is not taken for the whole.
    let copies = tempfile::tempdir().unwrap();
    for name in ["state.db", "state.db-wal"] {
        std::fs::copy(directory.path().join(name), copies.path().join(name)).unwrap();
    }
    let before = everything(copies.path());
    let error = SqliteStore::open_to_read(&copies.path().join("state.db"), Arc::new(clock)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unfinished { .. }), "{error}");
    assert_eq!(everything(copies.path()), before);
}

#[tokio::test]
async fn looking_says_that_the_schema_is_another_one_and_changes_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let clock = clock();
    sqlite(&path, &clock).await.close().await;
    let older = (0, "has schema version 0, this build reads 1");
    let newer = (99, "has schema version 99, this build knows up to 1");
    for (version, says) in [older, newer] {
        with_version(&path, version);
        let before = everything(directory.path());
        let error = SqliteStore::open_to_read(&path, Arc::new(clock.clone())).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(matches!(error, StoreError::OlderSchema { found: 0, .. } | StoreError::NewerSchema { found: 99, .. }), "{error}");
        assert_eq!(everything(directory.path()), before);
    }
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = SqliteStore::open_to_read(&path, Arc::new(clock)).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    std::fs::write(&blocked, b"").unwrap();
    let error = SqliteStore::open(&blocked.join("state.db"), Arc::new(clock())).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert!(error.to_string().contains("cannot be opened"), "{error}");
}

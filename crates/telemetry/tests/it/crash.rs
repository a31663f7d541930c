//! `kill -9` while records come in: nothing that was acknowledged may be lost, nothing may be there twice.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_model::TenantId;
use portcullis_ports::{Source as _, SqlRequest};
use portcullis_telemetry::{Encoding, OtlpSignal, Store, StoreSettings};

use crate::data::{log, logs, protobuf};
use crate::support::{everything, open_with, permit, settings as defaults, source};

const ROUNDS: i64 = 20;
const CHILD: &str = "STORE_CRASH_CHILD";

fn settings(directory: &Path) -> StoreSettings {
    // Small buffers, so that the kill also meets flushes and merges.
    StoreSettings { flush_bytes: 64 << 10, flush_after: Duration::from_millis(30), ..defaults(directory) }
}

/// The child: sends numbered records and says each number after its acknowledgement. Does nothing in a normal test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_child() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let (directory, round) = place.split_once('|').unwrap();
    let store = open_with(settings(Path::new(directory)));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (store, round) = (store.clone(), round.to_owned());
            tokio::spawn(async move {
                for number in 0.. {
                    let name = format!("r{round}-{sender}-{number}");
                    send(&store, &name).await;
                    println!("ack {name}");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
}

async fn send(store: &Store, name: &str) {
    let body = protobuf(&logs("cart", vec![log(0, 9, name), log(1, 9, name)]));
    store.ingest(TenantId::default_tenant(), OtlpSignal::Logs, Encoding::Protobuf, body.into()).await.unwrap();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    if std::env::var(CHILD).is_ok() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::crash_child", "--nocapture"])
            .env(CHILD, format!("{}|{round}", directory.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // A different moment every round, counted in acknowledgements so that slow machines test the same.
        let enough = 20 + 13 * round as usize;
        let mut seen = 0;
        for line in output.lines().map_while(Result::ok) {
            // The test harness prints the test's name on the first line.
            if let Some(at) = line.find("ack ") {
                acknowledged.push(line[at + 4..].to_owned());
                seen += 1;
                if seen == enough {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "the child ended early in round {round}");
    }
    let store = open_with(settings(directory.path()));
    let request = SqlRequest { statement: "SELECT Body, count(*) FROM otel_logs GROUP BY Body".into(), max_rows: 10_000 };
    let answer = source(&store).sql(&permit(everything()), &request).await.unwrap();
    assert!(!answer.truncated);
    let stored: std::collections::BTreeMap<&str, i64> =
        answer.rows.iter().map(|row| (row[0].as_str().unwrap(), row[1].as_i64().unwrap())).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !stored.contains_key(name.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    let wrong: Vec<_> = stored.iter().filter(|(_, count)| **count != 2).collect();
    assert!(wrong.is_empty(), "not exactly once: {wrong:?}");
}

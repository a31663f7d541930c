//! The simulated shop in the embedded store: whatever goes wrong, the first suspect must be the service at fault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_model::{ManualClock, SourceName, TenantId, Timestamp};
use portcullis_ports::Source;
use portcullis_simulator::{Scenario, Simulation, SimulationConfig, encode_protobuf};
use portcullis_telemetry::{EmbeddedSource, Encoding, OtlpSignal, Store, StoreSettings};
use serde_json::json;

use crate::support::{House, NOW, house, tokens};

/// A shop of these many minutes, ending now, in a store of its own.
struct Shop {
    house: House,
    store: Store,
    onset: Timestamp,
    _directory: tempfile::TempDir,
}

async fn shop(scenario: Scenario, minutes: u64, requests_per_second: f64) -> Shop {
    let start = NOW.minus(Duration::from_mins(minutes));
    let mut config = SimulationConfig::new(11, start, NOW);
    config.scenario = scenario;
    config.requests_per_second = requests_per_second;
    let onset = config.incident_at;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(StoreSettings::new(directory.path()), Arc::new(ManualClock::new(NOW))).unwrap();
    let tenant = TenantId::default_tenant();
    let begun = Instant::now();
    let mut spans = 0;
    for batch in Simulation::new(config).unwrap() {
        spans += batch.span_count();
        let parts = [
            (OtlpSignal::Logs, encode_protobuf(&batch.logs)),
            (OtlpSignal::Traces, encode_protobuf(&batch.traces)),
            (OtlpSignal::Metrics, encode_protobuf(&batch.metrics)),
        ];
        for (signal, bytes) in parts {
            store.ingest(tenant.clone(), signal, Encoding::Protobuf, Bytes::from(bytes)).await.unwrap();
        }
    }
    // Segments are pruned by time; what is still in memory is not.
    store.flush().await.unwrap();
    println!("{scenario:?}: {spans} spans stored in {:?}", begun.elapsed());
    let source: Arc<dyn Source> = Arc::new(EmbeddedSource::new(SourceName::new("store").unwrap(), store.clone()));
    Shop { house: house(vec![source]), store, onset, _directory: directory }
}

async fn names_the_cause(scenario: Scenario, cause: &str) {
    let shop = shop(scenario, 40, 5.0).await;
    let begun = Instant::now();
    let said = shop.house.ask("get_service_health", json!({})).await;
    println!("{}\n{} tokens, {:?}", said.text, tokens(&said.text), begun.elapsed());
    assert_eq!(said.data["suspects"][0]["service"], cause, "{}", said.text);
    assert!(said.text.contains(&format!("LIKELY CAUSE: {cause}")), "{}", said.text);
    assert!(!said.text.starts_with("PARTIAL"), "{}", said.text);
    let onset = portcullis_model::parse_instant(said.data["onset"].as_str().unwrap(), NOW).unwrap();
    let late = onset.since(shop.onset);
    assert!(
        onset >= shop.onset.minus(Duration::from_mins(1)) && late <= Duration::from_mins(6),
        "onset {onset}, truth {}",
        shop.onset
    );
    shop.store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaking_connection_pool_is_found_behind_its_loud_callers() {
    names_the_cause(Scenario::ConnectionPoolLeak, "inventory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_per_row_is_found_although_nothing_fails() {
    names_the_cause(Scenario::QueryPerRow, "catalog").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_leak_is_found_behind_slow_pages() {
    names_the_cause(Scenario::MemoryLeak, "recommendation").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_shop_accuses_nobody() {
    let shop = shop(Scenario::Quiet, 40, 5.0).await;
    for arguments in [json!({}), json!({"window": "15m"})] {
        let said = shop.house.ask("get_service_health", arguments).await;
        println!("{}", said.text);
        assert!(said.text.contains("10 services: 0 in trouble, 9 healthy, 1 unknown"), "{}", said.text);
        assert!(said.data.get("suspects").is_none(), "{}", said.text);
    }
    shop.store.close().await.unwrap();
}

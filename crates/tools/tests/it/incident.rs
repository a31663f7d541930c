//! The simulated shop in the embedded store: whatever goes wrong, the first suspect must be the service at fault.

use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_model::{ManualClock, SourceName, TenantId, Timestamp};
use portcullis_ports::Source;
use portcullis_simulator::{Scenario, Simulation, SimulationConfig, encode_protobuf};
use portcullis_telemetry::{EmbeddedSource, Encoding, OtlpSignal, StatementProgram, Store, StoreSettings, serve_statement};
use serde_json::json;

use crate::support::{House, NOW, house, tokens};

/// What other tests run in a process of its own; in every other run it has nothing to do.
#[test]
fn answer_statement() {
    let alone = std::env::args().any(|argument| argument == "--exact");
    if alone && std::fs::metadata("/proc/self/fd/0").is_ok_and(|input| input.file_type().is_socket()) {
        let _ended = serve_statement(|_| Err("these tests scrub nothing".into()));
    }
}

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
    let arguments = ["incident::answer_statement", "--exact", "--nocapture"].map(Into::into).into();
    let statements = StatementProgram { program: std::env::current_exe().unwrap(), arguments };
    let settings = StoreSettings { statements: Some(Arc::new(statements)), ..StoreSettings::new(directory.path()) };
    let store = Store::open(settings, Arc::new(ManualClock::new(NOW))).unwrap();
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

async fn names_the_cause(shop: &Shop, cause: &str) {
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
}

/// What an agent asks next, and what each answer must contain.
async fn proves_the_pool_leak(shop: &Shop) {
    let asked = async |tool: &str, arguments: serde_json::Value, most_tokens: usize| {
        let begun = Instant::now();
        let said = shop.house.ask(tool, arguments.clone()).await;
        println!("--- {tool} {arguments} {:?} {} tokens\n{}", begun.elapsed(), tokens(&said.text), said.text);
        assert!(tokens(&said.text) <= most_tokens, "{tool}: {} tokens", tokens(&said.text));
        said
    };
    let said = asked("list_services", json!({}), 300).await;
    assert_eq!(said.data["total"], 10);
    let said = asked("log_patterns", json!({"service": "inventory", "window": "20m"}), 1_000).await;
    assert_eq!(said.data["patterns"][0]["new"], true);
    assert!(said.data["patterns"][0]["template"].as_str().unwrap().contains("pool 'stock'"), "{}", said.text);
    let said = asked("query_metrics", json!({"metric": "saturation", "service": "inventory", "window": "20m"}), 700).await;
    assert!(said.data["series"][0]["max"].as_f64().unwrap() >= 0.95, "{}", said.text);
    let said =
        asked("query_metrics", json!({"metric": "error_rate", "aggregation": "average", "group_by": ["service"]}), 500).await;
    assert_eq!(said.data["series"][0]["labels"]["service"], "inventory", "{}", said.text);
    let said = asked("query_logs", json!({"level": "error", "count_by": ["service"], "window": "20m"}), 200).await;
    assert!(said.data["groups"][0]["count"].as_u64().unwrap() > 100, "{}", said.text);
    let said = asked("query_logs", json!({"service": "inventory", "level": "error", "limit": 5}), 500).await;
    assert_eq!(said.data["shown"], 5);
    let said = asked("query_traces", json!({"service": "frontend", "errors_only": true, "limit": 5}), 600).await;
    let id = said.data["traces"][0]["trace_id"].as_str().unwrap().to_owned();
    let said = asked("get_trace", json!({"trace_id": id}), 900).await;
    assert_eq!(said.data["errors"][0]["service"], "inventory", "{}", said.text);
    assert_eq!(said.data["critical_path"][0]["service"], "inventory", "{}", said.text);
    let said = asked("find_metrics", json!({"service": "inventory", "contains": "connection"}), 600).await;
    assert!(said.data["total"].as_u64().unwrap() >= 2, "{}", said.text);
    let query =
        "SELECT \"ServiceName\", count(*) AS failures FROM otel_traces WHERE \"StatusCode\" = 'Error' GROUP BY 1 ORDER BY 2 DESC";
    let said = asked("sql", json!({"query": query, "limit": 3}), 200).await;
    assert_eq!(said.data["columns"], json!(["ServiceName", "failures"]));
    let fault = shop.house.refused("sql", json!({"query": "SELECT * FROM logs"})).await;
    assert!(fault.hint().unwrap().contains("otel_logs"), "{fault:?}");
    let said = asked("get_service_health", json!({"service": "checkout"}), 900).await;
    assert_eq!(said.data["suspects"][0]["service"], "inventory", "{}", said.text);
    asked("list_sources", json!({}), 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaking_connection_pool_is_found_behind_its_loud_callers() {
    let shop = shop(Scenario::ConnectionPoolLeak, 40, 5.0).await;
    names_the_cause(&shop, "inventory").await;
    proves_the_pool_leak(&shop).await;
    shop.store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_per_row_is_found_although_nothing_fails() {
    let shop = shop(Scenario::QueryPerRow, 40, 5.0).await;
    names_the_cause(&shop, "catalog").await;
    shop.store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_leak_is_found_behind_slow_pages() {
    let shop = shop(Scenario::MemoryLeak, 40, 5.0).await;
    names_the_cause(&shop, "recommendation").await;
    shop.store.close().await.unwrap();
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

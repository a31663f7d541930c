//! What a plugin finds around it: nothing. And nothing of one call is there in the next.

use portcullis_model::FaultCode;
use portcullis_ports::NoExchange;
use serde_json::json;

use crate::shop::{Shop, only};

#[tokio::test]
async fn there_is_no_environment_no_file_no_socket_and_no_fine_clock() {
    let Some(shop) = Shop::open("") else { return };
    let found = shop.probed("surroundings").await.unwrap();
    let nothing = json!({"environment": 0, "arguments": 0, "directories": 0, "connects": false, "looks_up": false,
        "clock": 0, "wall": 0, "random": 8});
    assert_eq!(found, nothing);
}

#[tokio::test]
async fn a_panic_and_an_exit_are_faults_of_the_plugin_and_nothing_else() {
    let Some(shop) = Shop::open("") else { return };
    for what in ["panic", "exit"] {
        let fault = shop.probed(what).await.unwrap_err();
        assert_eq!((fault.code(), fault.message()), (FaultCode::BackendFailed, "plugin 'probe' crashed"));
        assert!(fault.internal().unwrap().contains("probe"), "{fault:?}");
        assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
    }
    let told = shop.probe(json!({"what": "fault", "text": "no such\u{1b}thing"})).await.unwrap_err();
    assert_eq!((told.code(), told.message()), (FaultCode::NotFound, "plugin 'probe' refused"));
    assert!(told.foreign().unwrap().starts_with("no such thing"), "its words stay its words: {told:?}");
    assert!(told.internal().unwrap().contains("for the operator"));
}

#[tokio::test]
async fn memory_does_not_outlive_a_call_and_the_cache_keeps_principals_and_scopes_apart() {
    let Some(shop) = Shop::open("settings: {site: eu}, open_to_confined: true") else { return };
    let (alice, bob) = (shop.permit(), shop.permit_of("key:bob", |_| {}));
    let as_ = async |permit, arguments| shop.probe_with(permit, &NoExchange, arguments).await.unwrap();
    as_(&alice, json!({"what": "remember", "text": "of alice"})).await;
    let own = as_(&alice, json!({"what": "recall"})).await;
    assert_eq!(own, json!({"kept": "of alice", "calls_before": 0}));
    assert_eq!(as_(&alice, json!({"what": "recall"})).await["calls_before"], 0);
    assert_eq!(as_(&bob, json!({"what": "recall"})).await["kept"], json!(null));
    let narrow = shop.permit_of("key:alice", only("cart"));
    assert_eq!(as_(&narrow, json!({"what": "recall"})).await["kept"], json!(null));
    let context = as_(&alice, json!({"what": "context"})).await;
    assert_eq!((context["tenant"].as_str(), context["settings"].as_str()), (Some("default"), Some(r#"{"site":"eu"}"#)));
    assert!(context["time_left"].as_u64().unwrap() <= 2_000);
}

#[tokio::test]
async fn the_record_of_a_call_says_which_plugin_and_how_it_ended() {
    let Some(shop) = Shop::open("") else { return };
    let permit = shop.permit();
    let digest = shop.store.find("probe").unwrap().digest;
    shop.probe_with(&permit, &NoExchange, json!({"what": "panic"})).await.unwrap_err();
    let reached = permit.trail().all_reached();
    assert_eq!(reached.iter().map(|what| &**what).collect::<Vec<_>>(), [format!("plugin:probe@{digest}")]);
    let words = permit.trail().words().unwrap();
    assert!(words.starts_with("plugin probe 1.0.0 tool probe_do: crashed, "), "{words}");
}

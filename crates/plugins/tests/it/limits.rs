//! Every limit ends the call that exceeds it, by name, and nothing else.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode};
use portcullis_ports::{Answers, ClientAbilities, Exchange, NoExchange, NoticeLevel};
use serde_json::{Value, json};

use crate::shop::{MANIFEST, Shop};

async fn stopped(shop: &Shop, arguments: Value, limit: &str) -> Fault {
    let fault = shop.probe(arguments.clone()).await.expect_err(&arguments.to_string());
    assert!(fault.message().contains(&format!("its limit {limit}")), "{arguments}: {fault:?}");
    // The next call is none the worse for it.
    let next = shop.probe(json!({"what": "echo", "text": "still here"})).await.unwrap();
    assert_eq!(next["text"], "still here");
    fault
}

#[tokio::test]
async fn an_infinite_loop_is_stopped_and_others_go_on_meanwhile() {
    // On a machine that is busy with other things, computing for 300 ms takes longer than waiting usually may.
    let manifest = MANIFEST.replace("wall_ms: 2000", "wall_ms: 20000");
    let Some(shop) = Shop::open_with(&manifest, "") else { return };
    let began = Instant::now();
    let looping = shop.probed("loop");
    let mut beside = 0;
    let others = async {
        while began.elapsed() < Duration::from_millis(200) {
            shop.probe(json!({"what": "echo", "text": "x"})).await.unwrap();
            beside += 1;
        }
    };
    let (ended, ()) = tokio::join!(looping, others);
    let fault = ended.unwrap_err();
    assert!(fault.message().contains("its limit cpu_ms") || fault.message().contains("its limit fuel"), "{fault:?}");
    assert_eq!(fault.code(), FaultCode::DeadlineExceeded);
    assert!(beside > 0 && began.elapsed() < Duration::from_secs(20), "{beside} in {:?}", began.elapsed());
}

#[tokio::test]
async fn fuel_stops_a_loop_where_the_clock_would_not() {
    let manifest = MANIFEST.replace("cpu_ms: 300", "cpu_ms: 5000, fuel_millions: 5");
    let Some(shop) = Shop::open_with(&manifest, "") else { return };
    stopped(&shop, json!({"what": "loop"}), "fuel_millions").await;
}

#[tokio::test]
async fn a_memory_bomb_is_stopped() {
    let Some(shop) = Shop::open("") else { return };
    let fault = stopped(&shop, json!({"what": "memory"}), "memory (32 MiB)").await;
    assert_eq!(fault.code(), FaultCode::BackendFailed);
}

#[tokio::test]
async fn a_giant_result_is_refused_and_so_is_one_that_only_grows_where_it_is_copied() {
    let Some(shop) = Shop::open("") else { return };
    let fault = stopped(&shop, json!({"what": "giant", "count": 300_000}), "result").await;
    assert_eq!(fault.code(), FaultCode::TooLarge);
    stopped(&shop, json!({"what": "giant", "count": 3_000_000}), "result").await;
    // A thousand texts of one MiB that are one place in the plugin's memory.
    stopped(&shop, json!({"what": "alias", "count": 1_000}), "result").await;
}

#[tokio::test]
async fn large_questions_and_slow_backends_put_no_plugin_into_quarantine() {
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let manifest = MANIFEST.replace("wall_ms: 2000", "wall_ms: 300").replace("18080", &port);
    let grant = format!("http: ['http://127.0.0.1:{port}'], allow_addresses: [loopback]");
    let Some(shop) = Shop::open_with(&manifest, &grant) else { return };
    for _ in 0..6 {
        let large = shop.probe(json!({"what": "giant", "count": 300_000})).await.unwrap_err();
        assert!(large.message().contains("its limit result"), "{large:?}");
        let slow = shop.probe(json!({"what": "http", "url": format!("http://127.0.0.1:{port}/")})).await.unwrap_err();
        assert!(slow.message().contains("its limit wall_ms"), "{slow:?}");
    }
    assert!(!shop.line().detail.contains("quarantine"), "{:?}", shop.line());
    // Its own computing is another matter.
    for _ in 0..5 {
        let memory = shop.probed("memory").await.unwrap_err();
        assert!(memory.message().contains("its limit memory"), "{memory:?}");
    }
    assert!(shop.line().detail.contains("quarantine"), "{:?}", shop.line());
}

#[tokio::test]
async fn waiting_is_limited_too_and_the_callers_own_deadline_comes_first() {
    let manifest = MANIFEST.replace("wall_ms: 2000", "wall_ms: 300");
    let Some(shop) = Shop::open_with(&manifest, "") else { return };
    let began = Instant::now();
    stopped(&shop, json!({"what": "sleep", "count": 60_000}), "wall_ms (300 ms)").await;
    assert!(began.elapsed() < Duration::from_secs(10));
    let permit = shop.permit_until("key:alice", |_| {}, Duration::from_millis(100));
    let late = shop.probe_with(&permit, &NoExchange, json!({"what": "sleep", "count": 60_000})).await.unwrap_err();
    assert!(late.code() == FaultCode::DeadlineExceeded && late.message().contains("in time"), "{late:?}");
}

#[tokio::test]
async fn log_lines_and_progress_are_limited_and_printing_is_only_dropped() {
    let Some(shop) = Shop::open("") else { return };
    assert!(shop.probe(json!({"what": "log", "text": "line", "count": 20})).await.is_ok());
    stopped(&shop, json!({"what": "log", "text": "line", "count": 21}), "log_lines").await;
    stopped(&shop, json!({"what": "progress", "text": "p", "count": 1_000}), "log_lines").await;
    assert!(shop.probe(json!({"what": "print", "text": "line", "count": 100})).await.is_ok());
}

/// Remembers progress.
#[derive(Default)]
struct Listener(Mutex<Vec<(f64, String)>>);

impl Exchange for Listener {
    fn progress(&self, done: f64, _total: Option<f64>, message: &str) {
        self.0.lock().unwrap().push((done, message.to_owned()));
    }
    fn notice(&self, _: NoticeLevel, _: &str, _: Value) {}
    fn answers(&self) -> Option<&Answers> {
        None
    }
    fn outgoing(&self, value: Value) -> Value {
        value
    }
    fn abilities(&self) -> ClientAbilities {
        ClientAbilities::default()
    }
}

#[tokio::test]
async fn progress_reaches_the_client() {
    let Some(shop) = Shop::open("") else { return };
    let listener = Listener::default();
    let arguments = json!({"what": "progress", "text": "half\u{1b}way", "count": 3});
    shop.probe_with(&shop.permit(), &listener, arguments).await.unwrap();
    let said = listener.0.lock().unwrap();
    assert_eq!(said.iter().map(|(done, _)| *done).collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
    assert!(said.iter().all(|(_, message)| message == "half way"), "{said:?}");
}

#[tokio::test]
async fn calls_at_once_are_limited() {
    let manifest = MANIFEST.replace("wall_ms: 2000", "wall_ms: 8000, concurrent: 1");
    let Some(shop) = Shop::open_with(&manifest, "") else { return };
    let (first, second) = tokio::join!(shop.probe(json!({"what": "sleep", "count": 4_000})), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        shop.probe(json!({"what": "echo"})).await
    });
    assert!(first.is_ok(), "{first:?}");
    let busy = second.unwrap_err();
    assert!(busy.code() == FaultCode::RateLimited && busy.message().contains("concurrent (1 calls"), "{busy:?}");
}

#[tokio::test]
async fn the_operators_caps_win() {
    let Some(shop) = Shop::open("limits: {memory: 4MiB, http_calls: 0}") else { return };
    stopped(&shop, json!({"what": "memory"}), "memory (4 MiB)").await;
    stopped(&shop, json!({"what": "http", "url": "http://127.0.0.1:1/"}), "http_calls (0 requests)").await;
}

#[tokio::test]
async fn giving_up_ends_the_instance_and_is_noted() {
    let Some(shop) = Shop::open("") else { return };
    let permit = shop.permit();
    {
        let call = shop.probe_with(&permit, &NoExchange, json!({"what": "loop"}));
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    }
    assert!(permit.trail().words().unwrap().contains("tool probe_do: given up"), "{:?}", permit.trail());
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
}

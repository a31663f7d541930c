//! Load test: `tools/call` over HTTP with every control on (key, limits, schema, policy, redaction, audit), beside a bare
//! axum JSON echo on the same machine in the same run. Run with `cargo bench -p portcullis --bench load`; prints calls/s,
//! p50 and p99 for both, their ratio, and resident memory. Loopback only, bounded by PORTCULLIS_LOAD_SECONDS (default 4).

#![allow(clippy::disallowed_methods, reason = "a load generator opens connections; it aims at loopback only")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a benchmark, not the product")]

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 3;

struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("echo") {
        return echo();
    }
    let seconds = std::env::var("PORTCULLIS_LOAD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
    let length = Duration::from_secs(seconds);
    let home = tempfile::tempdir().unwrap();
    let product_address = free_port();
    let config = home.path().join("portcullis.yaml");
    let text = format!(
        "data: '{}'\nlisten: {{mcp: '{product_address}'}}\nstore: {{enabled: false}}\ningest: {{enabled: false}}\nadmin: {{enabled: false}}\n\
         limits: {{calls_per_second: 1000000, burst: 1000000, concurrent_per_principal: 1000, concurrent: 1000, tokens_per_day: 0, \
         address: {{per_second: 1000000, burst: 1000000}}, tool: {{per_second: 1000000, burst: 1000000}}, \
         tenant: {{calls_per_second: 1000000, burst: 1000000, concurrent: 1000, tokens_per_day: 0}}, \
         global: {{per_second: 1000000, burst: 1000000}}}}\nlog: {{level: warn}}\n",
        home.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let binary = env!("CARGO_BIN_EXE_portcullis");
    let made =
        Command::new(binary).arg("--config").arg(&config).args(["key", "create", "--label", "load", "--json"]).output().unwrap();
    let key: Value = serde_json::from_slice(&made.stdout).expect("a key");
    let product = Process(Command::new(binary).arg("--config").arg(&config).arg("serve").stdout(Stdio::null()).spawn().unwrap());
    let echo_address = free_port();
    let myself = std::env::current_exe().unwrap();
    let _echo = Process(Command::new(myself).arg("echo").env("ECHO_ADDRESS", echo_address.to_string()).spawn().unwrap());
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_sources", "arguments": {},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}})
    .to_string();
    let headers = format!(
        "Authorization: Bearer {}\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: list_sources\r\n",
        key["key"].as_str().unwrap()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut pairs = Vec::new();
    runtime.block_on(async {
        for address in [product_address, echo_address] {
            wait_for(address).await;
        }
        let idle = resident(&product.0);
        println!("idle: {:.1} MiB resident", idle as f64 / 1_048_576.0);
        for round in 1..=ROUNDS {
            let ours = drive(product_address, "/mcp", &headers, &body, length).await;
            let bare = drive(echo_address, "/", "", &body, length).await;
            for (name, f) in [("portcullis", &ours), ("axum echo ", &bare)] {
                println!("round {round} {name}: {:>8.0} calls/s, p50 {:.2?}, p99 {:.2?}", f.per_second, f.p50, f.p99);
            }
            pairs.push((ours.per_second / bare.per_second, ours.p99));
        }
        println!("loaded: {:.1} MiB resident", resident(&product.0) as f64 / 1_048_576.0);
    });
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, _) = pairs[pairs.len() / 2];
    println!("ratio to the echo, median of {ROUNDS}: {ratio:.2} (aim 0.30); connections {CONNECTIONS}");
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn echo() {
    let address: SocketAddr = std::env::var("ECHO_ADDRESS").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use axum::serve::ListenerExt;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap().tap_io(|s| {
            let _ = s.set_nodelay(true);
        });
        let router = Router::new().route("/", post(|Json(value): Json<Value>| async move { Json(value) }));
        axum::serve(listener, router).await.unwrap();
    });
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn wait_for(address: SocketAddr) {
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{address} does not listen");
}

async fn drive(address: SocketAddr, path: &str, headers: &str, body: &str, length: Duration) -> Figures {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let warm = Instant::now() + Duration::from_secs(1);
    let end = warm + length;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let request = request.clone();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut took = Vec::new();
            let mut buffer = vec![0; 64 << 10];
            while Instant::now() < end {
                let began = Instant::now();
                stream.write_all(request.as_bytes()).await.unwrap();
                read_answer(&mut stream, &mut buffer).await;
                if began > warm {
                    took.push(began.elapsed());
                }
            }
            took
        });
    }
    let mut all: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    Figures { per_second: all.len() as f64 / length.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(n > 0, "the server closed the connection: {}", String::from_utf8_lossy(&buffer[..filled]));
        filled += n;
        let text = &buffer[..filled];
        let Some(head) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head_text = String::from_utf8_lossy(&text[..head]).to_ascii_lowercase();
        assert!(head_text.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(text));
        let size =
            head_text.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|s| s.trim().parse::<usize>().ok());
        if filled >= head + 4 + size.expect("a JSON answer with a length") {
            let body = String::from_utf8_lossy(&text[head + 4..]);
            assert!(!body.contains("\"error\"") && !body.contains("\"isError\":true"), "a refusal is no call: {body}");
            return;
        }
    }
}

fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

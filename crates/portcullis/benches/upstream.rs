//! What the gate costs on a proxied call: the same `tools/call` to the same upstream, directly and through Portcullis with
//! every control on. Run with `cargo bench -p portcullis --bench upstream`; prints calls/s, p50 and p99 of both ways, with the
//! definition looked at before every call and with `recheck: 1m`, and the ratios. Loopback only, bounded by
//! PORTCULLIS_LOAD_SECONDS (default 4).

#![allow(clippy::disallowed_methods, reason = "a load generator opens connections; it aims at loopback only")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a benchmark, not the product")]

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 16;

struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("upstream") {
        return upstream();
    }
    let seconds = std::env::var("PORTCULLIS_LOAD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
    let length = Duration::from_secs(seconds);
    let upstream_address = free_port();
    let myself = std::env::current_exe().unwrap();
    let _upstream =
        Process(Command::new(myself).arg("upstream").env("UPSTREAM_ADDRESS", upstream_address.to_string()).spawn().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(wait_for(upstream_address));
    let direct = runtime.block_on(drive(upstream_address, "", length));
    println!("direct:               {:>7.0} calls/s, p50 {:.2?}, p99 {:.2?}", direct.per_second, direct.p50, direct.p99);
    for recheck in ["", "recheck: 1m, "] {
        let gate = Gate::start(upstream_address, recheck);
        runtime.block_on(wait_for(gate.address));
        gate.accept();
        let through = runtime.block_on(drive(gate.address, &gate.authorization, length));
        println!(
            "through, {:<13} {:>7.0} calls/s, p50 {:.2?}, p99 {:.2?}; calls/s {:.2} of direct, p50 {:.1} times direct",
            if recheck.is_empty() { "every look:" } else { "recheck 1m:" },
            through.per_second,
            through.p50,
            through.p99,
            through.per_second / direct.per_second,
            through.p50.as_secs_f64() / direct.p50.as_secs_f64()
        );
    }
}

/// A Portcullis with the upstream behind it.
struct Gate {
    home: tempfile::TempDir,
    address: SocketAddr,
    authorization: String,
    _process: Process,
}

impl Gate {
    fn start(upstream: SocketAddr, recheck: &str) -> Self {
        let (home, address) = (tempfile::tempdir().unwrap(), free_port());
        let text = format!(
            "data: '{}'\nlisten: {{mcp: '{address}'}}\nstore: {{enabled: false}}\ningest: {{enabled: false}}\n\
             upstreams: [{{name: up, http: {{url: 'http://{upstream}/mcp', allow_addresses: [loopback]}}, {recheck}\
             limits: {{concurrent: 64, per_second: 1000000, burst: 1000000}}}}]\n\
             limits: {{calls_per_second: 1000000, burst: 1000000, concurrent_per_principal: 1000, concurrent: 1000, tokens_per_day: 0, \
             address: {{per_second: 1000000, burst: 1000000}}, tool: {{per_second: 1000000, burst: 1000000}}, \
             tenant: {{calls_per_second: 1000000, burst: 1000000, concurrent: 1000, tokens_per_day: 0}}, \
             global: {{per_second: 1000000, burst: 1000000}}}}\nlog: {{level: warn}}\n",
            home.path().join("data").display()
        );
        std::fs::write(home.path().join("portcullis.yaml"), text).unwrap();
        let made: Value =
            serde_json::from_slice(&run(home.path(), &["key", "create", "--label", "load", "--json"])).expect("a key");
        let authorization = format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap());
        let process = Process(command(home.path()).arg("serve").stdout(Stdio::null()).spawn().unwrap());
        Self { home, address, authorization, _process: process }
    }

    /// Accepts the tool and waits until it can be called.
    fn accept(&self) {
        let began = Instant::now();
        while !String::from_utf8_lossy(&run(self.home.path(), &["upstream", "list", "--json"])).contains("\"echo\"") {
            assert!(began.elapsed() < Duration::from_secs(20), "the upstream was not looked at");
            std::thread::sleep(Duration::from_millis(50));
        }
        let waiting: Value = serde_json::from_slice(&run(self.home.path(), &["upstream", "review", "up", "--json"])).unwrap();
        for one in waiting.as_array().expect("a list") {
            let word = format!("{}@{}", one["name"].as_str().unwrap(), one["digest"].as_str().unwrap());
            run(self.home.path(), &["upstream", "accept", "up", &word]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let request = request(self.address, &self.authorization);
            loop {
                let mut stream = TcpStream::connect(self.address).await.unwrap();
                let mut buffer = Vec::new();
                stream.write_all(request.as_bytes()).await.unwrap();
                if exchange(&mut stream, &mut buffer).await.contains("\"isError\":false") {
                    return;
                }
                assert!(began.elapsed() < Duration::from_secs(20), "the tool cannot be called");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("--config").arg(home.join("portcullis.yaml"));
    command
}

fn run(home: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = command(home).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// One request, kept alive.
fn request(address: SocketAddr, authorization: &str) -> String {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"message": "a text of thirty bytes, or so."},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}})
    .to_string();
    let mut head = format!("POST /mcp HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n{authorization}", body.len());
    head.push_str(
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n",
    );
    write!(head, "Mcp-Method: tools/call\r\nMcp-Name: echo\r\n\r\n{body}").unwrap();
    head
}

/// Reads one response; its body.
async fn exchange(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> String {
    buffer.clear();
    loop {
        let mut chunk = [0; 8192];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the connection closed");
        buffer.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return body.to_owned();
        }
    }
}

/// Calls as fast as answers come, over a fixed number of connections.
async fn drive(address: SocketAddr, authorization: &str, length: Duration) -> Figures {
    let began = Instant::now();
    let workers = (0..CONNECTIONS).map(|_| async {
        let (request, mut times, mut buffer) = (request(address, authorization), Vec::new(), Vec::new());
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        while began.elapsed() < length {
            let sent = Instant::now();
            stream.write_all(request.as_bytes()).await.unwrap();
            let body = exchange(&mut stream, &mut buffer).await;
            assert!(body.contains("a text of thirty bytes"), "{body}");
            times.push(sent.elapsed());
        }
        times
    });
    let mut times: Vec<Duration> = futures::future::join_all(workers).await.into_iter().flatten().collect();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Figures { per_second: times.len() as f64 / began.elapsed().as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

/// The upstream: one tool that says what it is told.
fn upstream() {
    let address: SocketAddr = std::env::var("UPSTREAM_ADDRESS").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        axum::serve(listener, Router::new().route("/mcp", post(answer))).await.unwrap();
    });
}

async fn answer(Json(request): Json<Value>) -> Json<Value> {
    let result = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => {
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"})
        }
        "tools/list" => json!({"resultType": "complete", "tools": [{"name": "echo", "description": "Says it again.",
            "annotations": {"readOnlyHint": true}, "inputSchema": {"type": "object", "properties": {"message": {"type": "string"}}}}]}),
        _ => json!({"resultType": "complete", "isError": false,
            "content": [{"type": "text", "text": request["params"]["arguments"]["message"]}]}),
    };
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

/// Ended when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn wait_for(address: SocketAddr) {
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing listens on {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

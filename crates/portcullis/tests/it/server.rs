//! A running server with its own directory and ports, and the smallest HTTP client that can also misbehave.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

pub(crate) struct Server {
    pub child: Child,
    pub mcp: SocketAddr,
    pub otlp: SocketAddr,
    pub admin: SocketAddr,
    pub home: Home,
}

/// A directory with a configuration; removed at the end.
pub(crate) struct Home {
    pub directory: tempfile::TempDir,
    pub config: PathBuf,
    pub mcp: SocketAddr,
    pub otlp: SocketAddr,
    pub admin: SocketAddr,
}

pub(crate) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        // A streamed answer carries the message in a data line.
        let text = self.body.lines().find_map(|l| l.strip_prefix("data: ").filter(|d| d.starts_with('{'))).unwrap_or(&self.body);
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {} {}", self.head, self.body))
    }
}

/// A loopback address nobody else in these tests is given. Below the ports the kernel hands out by itself: one of those
/// could be taken by somebody's outgoing connection before the server binds it.
pub(crate) fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 500).unwrap() * 40;
    for _ in 0..2_000 {
        let port = first + NEXT.fetch_add(1, Ordering::SeqCst) % 2_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
    panic!("no free port");
}

impl Home {
    pub(crate) fn new(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (mcp, otlp, grpc, admin) = (free_port(), free_port(), free_port(), free_port());
        let config = directory.path().join("portcullis.yaml");
        let home = Self { directory, config, mcp, otlp, admin };
        let says = |section: &str| extra.lines().any(|line| line.starts_with(section));
        let admin = if says("admin:") { String::new() } else { format!("admin: {{listen: '{admin}'}}\n") };
        let listen = if says("listen:") { String::new() } else { format!("listen: {{mcp: '{mcp}'}}\n") };
        let text = format!(
            "data: '{}'\n{listen}{admin}ingest: {{http: '{otlp}', grpc: '{grpc}'}}\n{}",
            home.data().display(),
            extra.replace("MCP_ADDRESS", &mcp.to_string()).replace("ADMIN_ADDRESS", &home.admin.to_string())
        );
        std::fs::write(&home.config, text).unwrap();
        home
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY).arg("--config").arg(&self.config).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn run_ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn key(&self, options: &[&str]) -> String {
        let arguments = [&["key", "create", "--label", "test", "--json"], options].concat();
        let made: Value = serde_json::from_str(&self.run_ok(&arguments)).unwrap();
        made["key"].as_str().unwrap().to_owned()
    }

    /// A key of a reader with a secret that a person chose, which is slow to verify and can be guessed at.
    pub(crate) fn chosen_key(&self) -> String {
        let (secret, file) = ("Kq7#vLp2xWm9zR!d", self.directory.path().join("chosen"));
        std::fs::write(&file, secret).unwrap();
        let arguments = ["key", "import", "--label", "chosen", "--json", "--secret-file", file.to_str().unwrap()];
        let made: Value = serde_json::from_str(&self.run_ok(&arguments)).unwrap();
        format!("{}{secret}", made["key_prefix"].as_str().unwrap())
    }

    /// The binary on standard input and output, over this house.
    pub(crate) fn stdio(&self, stderr: Stdio) -> Child {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(&self.config).arg("stdio").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        command.spawn().unwrap()
    }

    /// The audit records, oldest first.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = self.run_ok(&["audit", "tail", "-n", "1000", "--json"]);
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Waits for an audit record that fits, and returns it.
    pub(crate) fn audited(&self, fits: impl Fn(&Value) -> bool) -> Value {
        self.audit().into_iter().rev().find(|r| fits(r)).unwrap_or_else(|| panic!("no such audit record in {:#?}", self.audit()))
    }
}

impl Server {
    pub(crate) fn start(extra: &str) -> Self {
        Self::start_in(Home::new(extra))
    }

    pub(crate) fn start_in(home: Home) -> Self {
        Self::start_by(Command::new(BINARY), home)
    }

    /// Starts it with a command to which its own arguments are added.
    pub(crate) fn start_by(mut command: Command, home: Home) -> Self {
        let log = std::fs::File::create(home.directory.path().join("log")).unwrap();
        let mut child = command
            .arg("--config")
            .arg(&home.config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let (mcp, otlp, admin) = (home.mcp, home.otlp, home.admin);
        let began = Instant::now();
        while TcpStream::connect(mcp).is_err() || TcpStream::connect(otlp).is_err() {
            let log = || std::fs::read_to_string(home.directory.path().join("log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the server ended: {}", log());
            assert!(began.elapsed() < Duration::from_secs(30), "the server does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, mcp, otlp, admin, home }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.directory.path().join("log")).unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Kills it without a chance to tidy up, and gives its directory back.
    pub(crate) fn kill(mut self) -> Home {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let placeholder = Home {
            directory: tempfile::tempdir().unwrap(),
            config: PathBuf::new(),
            mcp: self.mcp,
            otlp: self.otlp,
            admin: self.admin,
        };
        std::mem::replace(&mut self.home, placeholder)
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// A 2026-07-28 call of a tool.
    pub(crate) fn call(&self, key: Option<&str>, tool: &str, arguments: &Value) -> Reply {
        let body = modern(tool, arguments).to_string();
        let mut headers = modern_headers(tool);
        if let Some(key) = key {
            headers.push(("Authorization".into(), format!("Bearer {key}")));
        }
        post(self.mcp, "/mcp", &headers, body.as_bytes())
    }

    /// Sends one log record over OTLP/HTTP JSON.
    pub(crate) fn send_log(&self, service: &str, severity: u8, body: &str) -> Reply {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string();
        let request = json!({"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
            "scopeLogs": [{"logRecords": [{"timeUnixNano": now, "severityNumber": severity, "body": {"stringValue": body}}]}]}]});
        post(self.otlp, "/v1/logs", &[("Content-Type".into(), "application/json".into())], request.to_string().as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn modern(tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments,
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}})
}

pub(crate) fn modern_headers(tool: &str) -> Vec<(String, String)> {
    [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", tool),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec()
}

/// One request on its own connection. A `Host` among the headers replaces the right one.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &[(String, String)], body: &[u8]) -> Reply {
    post_over(TcpStream::connect(address).unwrap(), path, headers, body)
}

/// One request, the last on its connection.
pub(crate) fn post_over(mut stream: TcpStream, path: &str, headers: &[(String, String)], body: &[u8]) -> Reply {
    let address = stream.peer_addr().unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(k, _)| k.eq_ignore_ascii_case("host")) {
        write!(head, "Host: {address}\r\n").unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(body);
    read_reply(stream)
}

pub(crate) fn read_reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { dechunk(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

fn dechunk(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// Says that something is not tried because a program is not there; fails where everything was installed.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("PORTCULLIS_TESTS_MUST_RUN").is_none(), "{why}, and PORTCULLIS_TESTS_MUST_RUN is set");
    println!("skipped: {why}");
}

/// Whether the audit log of `home` is intact.
pub(crate) fn intact(home: &Home) -> bool {
    home.run(&["audit", "verify"]).status.success()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

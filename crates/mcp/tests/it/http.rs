//! A client of bytes: HTTP/1.1 over one connection, chunked bodies, server-sent events.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest any read may take: a hanging server fails the test instead of stopping it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn chunked(&self) -> bool {
        self.header("transfer-encoding") == Some("chunked")
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub head: Head,
    pub body: String,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.body))
    }

    /// The JSON-RPC messages of a body, plain or as events.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if self.head.header("content-type") == Some("application/json") {
            return vec![self.json()];
        }
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim)
            .filter(|data| !data.is_empty())
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), address }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request; a `Host` of the listener and a length are added unless given.
    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        if !given("host") {
            write!(text, "Host: {}\r\n", self.address).unwrap();
        }
        if !given("content-length") && !given("transfer-encoding") {
            write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.write(text.as_bytes()).await;
    }

    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 16 * 1024];
        let read = timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("the server answers in time").unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).unwrap();
            }
            assert!(
                self.more().await,
                "the connection ended in the middle of a line: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    async fn exactly(&mut self, n: usize) -> String {
        while self.buffer.len() < n {
            assert!(self.more().await, "the connection ended in the middle of a body");
        }
        String::from_utf8(self.buffer.drain(..n).collect()).unwrap()
    }

    pub(crate) async fn head(&mut self) -> Head {
        let status = self.line().await.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => return Head { status, headers },
            }
        }
    }

    /// The next chunk of a chunked body; nothing at its end.
    async fn chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(self.line().await.trim(), 16).unwrap();
        let chunk = self.exactly(length).await;
        assert_eq!(self.line().await, "");
        (length > 0).then_some(chunk)
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let mut body = String::new();
        if head.chunked() {
            while let Some(chunk) = self.chunk().await {
                body.push_str(&chunk);
            }
        } else if let Some(length) = head.header("content-length") {
            body = self.exactly(length.parse().unwrap()).await;
        }
        Reply { head, body }
    }

    /// The next JSON message of an event stream; nothing when the stream ended.
    pub(crate) async fn event(&mut self) -> Option<Value> {
        loop {
            let chunk = self.chunk().await?;
            let data = chunk.lines().find_map(|line| line.strip_prefix("data:")).map(str::trim).unwrap_or_default();
            if !data.is_empty() {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

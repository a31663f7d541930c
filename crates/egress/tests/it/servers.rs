//! Tiny servers and the permits to reach them.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_egress::{AddressPolicy, AllowedRange, EgressClient, EgressConfig};
use portcullis_model::{Scope, TenantId};
use portcullis_policy::{Budget, CharterGrant, Permit, Policies, Vocabulary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A running server; stops when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    /// Connections accepted so far.
    pub(crate) connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves each connection with `serve`, which gets the number of the connection from 0.
pub(crate) async fn serve<F, W>(serve: F) -> Server
where
    F: Fn(TcpStream, usize) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, count.fetch_add(1, Ordering::SeqCst)));
        }
    });
    Server { url, connections, task }
}

/// Reads one request: head and, when it has a length, body.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut part = [0u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next().and_then(|digits| digits.trim().parse::<usize>().ok()));
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// Answers every request on every connection with `answer`, which gets the request's text and its number from 0.
pub(crate) async fn answer<F>(answer: F) -> Server
where
    F: Fn(String, usize) -> String + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let number = Arc::new(AtomicUsize::new(0));
    serve(move |mut stream, _| {
        let (answer, number) = (Arc::clone(&answer), Arc::clone(&number));
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let response = answer(request, number.fetch_add(1, Ordering::SeqCst));
                if stream.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn status(line: &str, headers: &str) -> String {
    format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\n\r\n")
}

pub(crate) fn config(url: &str) -> EgressConfig {
    let mut config = EgressConfig::new("test", url);
    config.addresses = AddressPolicy::new([AllowedRange::Loopback]);
    config
}

pub(crate) fn client(url: &str) -> EgressClient {
    EgressClient::new(config(url)).unwrap()
}

/// A charter's permit for the given origins.
pub(crate) fn permit_for(origins: &[&str], time_limit: Duration) -> Permit {
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let grant = CharterGrant {
        name: Arc::from("egress-test"),
        destinations: origins.iter().map(|o| (*o).to_owned()).collect::<BTreeSet<_>>(),
        scope: Scope::tenant_wide(TenantId::default_tenant()),
        time_limit,
        budget: Budget::default(),
    };
    policies.charter(grant).unwrap().permit()
}

pub(crate) fn permit(client: &EgressClient) -> Permit {
    permit_for(&[client.origin()], Duration::from_secs(20))
}

/// The most by which the resident memory of this process grows while `work` runs, in bytes.
pub(crate) async fn peak_growth<T>(work: impl Future<Output = T>) -> (T, u64) {
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let done = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&done);
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        while !end.load(Ordering::SeqCst) {
            peak = peak.max(resident());
            std::thread::sleep(Duration::from_millis(1));
        }
        peak
    });
    let result = work.await;
    done.store(true, Ordering::SeqCst);
    (result, watch.join().unwrap().saturating_sub(before))
}

//! Permits, questions, a small HTTP server, and processes that end with their test.

use std::collections::BTreeSet;
use std::net::TcpListener as StdListener;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_connectors::{PrometheusConfig, PrometheusSource};
use portcullis_egress::AllowedRange;
use portcullis_model::{Clock as _, Scope, SourceName, SystemClock, TenantId, TimeWindow};
use portcullis_policy::{Budget, CharterGrant, Permit, Policies, Vocabulary};
use portcullis_ports::{MetricRequest, MetricSelector, SemanticMetric};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A child process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn everything() -> Scope {
    Scope::tenant_wide(TenantId::default_tenant())
}

pub(crate) fn config(url: &str) -> PrometheusConfig {
    let mut config = PrometheusConfig::at(url);
    config.allow_addresses = vec![AllowedRange::Loopback];
    config
}

pub(crate) fn source(url: &str) -> PrometheusSource {
    PrometheusSource::new(SourceName::new("prom").unwrap(), config(url)).unwrap()
}

pub(crate) fn permit(source: &PrometheusSource, scope: Scope) -> Permit {
    let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
    let grant = CharterGrant {
        name: Arc::from("prometheus-test"),
        destinations: BTreeSet::from([source.origin().to_owned()]),
        scope,
        time_limit: Duration::from_secs(20),
        budget: Budget::default(),
    };
    policies.charter(grant).unwrap().permit()
}

pub(crate) fn last(length: Duration) -> TimeWindow {
    TimeWindow::ending_at(SystemClock.now(), length).unwrap()
}

pub(crate) fn ask(metric: MetricSelector, window: TimeWindow) -> MetricRequest {
    MetricRequest {
        window,
        step: None,
        metric,
        service: None,
        matchers: Vec::new(),
        group_by: Vec::new(),
        aggregation: None,
        max_series: 100,
    }
}

pub(crate) fn raw(query: &str, window: TimeWindow) -> MetricRequest {
    ask(MetricSelector::Raw(query.to_owned()), window)
}

pub(crate) fn named(name: &str, window: TimeWindow) -> MetricRequest {
    ask(MetricSelector::Named(name.to_owned()), window)
}

pub(crate) fn semantic(metric: SemanticMetric, service: Option<&str>, window: TimeWindow) -> MetricRequest {
    MetricRequest { service: service.map(str::to_owned), ..ask(MetricSelector::Semantic(metric), window) }
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Query and form parameters, decoded.
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) head: String,
}

impl Arrived {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }
}

/// A server that answers with whole responses and remembers what it was asked.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) arrived: Arc<Mutex<Vec<Arrived>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves on a free loopback port; `answer` gives the bytes of a whole response.
pub(crate) async fn serve<F>(answer: F) -> Server
where
    F: Fn(&Arrived) -> Vec<u8> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
    let (log, answer) = (Arc::clone(&arrived), Arc::new(answer));
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    let response = answer(&request);
                    log.lock().unwrap().push(request);
                    if stream.write_all(&response).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { url, arrived, task }
}

pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<Arrived> {
    let mut bytes = Vec::new();
    let mut part = vec![0u8; 16_384];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length =
                lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                let mut line = head.split(' ');
                let (method, target) = (line.next()?.to_owned(), line.next()?.to_owned());
                let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                let pairs = decode(query).into_iter().chain(decode(body)).collect();
                return Some(Arrived { method, path: path.to_owned(), pairs, head: lower });
            }
        }
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
        }
    }
}

pub(crate) fn decode(form: &str) -> Vec<(String, String)> {
    let text = |part: &str| {
        let mut out = Vec::new();
        let mut bytes = part.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'+' => out.push(b' '),
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                other => out.push(other),
            }
        }
        String::from_utf8(out).unwrap()
    };
    form.split('&').filter(|p| !p.is_empty()).filter_map(|p| p.split_once('=')).map(|(n, v)| (text(n), text(v))).collect()
}

pub(crate) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn json(body: &str) -> Vec<u8> {
    response("200 OK", "content-type: application/json\r\n", body)
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

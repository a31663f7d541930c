//! A receiver on this machine that answers as it is told and remembers what it took.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

pub(crate) const SECRET: &str = "correct horse battery staple";

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
}

impl Request {
    /// `log` and `seq` of each record.
    pub(crate) fn records(&self) -> Vec<(String, u64)> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let key = |r: &Value| (r["log"].as_str().unwrap().to_owned(), r["seq"].as_u64().unwrap());
        body["records"].as_array().unwrap().iter().map(key).collect()
    }

    /// Whether the signature is right, computed here from its description.
    pub(crate) fn is_signed(&self, secret: &str) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{}.", self.headers["x-portcullis-timestamp"]).as_bytes());
        mac.update(&self.body);
        let digits: Vec<String> = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        self.headers["x-portcullis-signature"] == format!("v1={}", digits.concat())
    }
}

/// What to answer to request number n (from 1): status, further header lines or a body in braces, and how long to wait before.
pub(crate) type Script = dyn FnMut(usize, &[u8]) -> (u16, &'static str, Duration) + Send;

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub(crate) fn ok() -> (u16, &'static str, Duration) {
    (200, "", Duration::ZERO)
}

impl Receiver {
    pub(crate) fn new(script: impl FnMut(usize, &[u8]) -> (u16, &'static str, Duration) + Send + 'static) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(crate) fn on(
        address: SocketAddr,
        script: impl FnMut(usize, &[u8]) -> (u16, &'static str, Duration) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (requests, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (took, ending) = (Arc::clone(&requests), Arc::clone(&over));
        let mut script: Box<Script> = Box::new(script);
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        // A sender that was killed half-way sent nothing.
                        let _ = serve(stream, &took, &mut *script);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { address, requests, over, thread: Some(thread) }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Every record that was taken, in the order it came.
    pub(crate) fn taken(&self) -> Vec<(String, u64)> {
        self.requests().iter().filter(|r| r.status == 200).flat_map(Request::records).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn serve(mut stream: TcpStream, took: &Mutex<Vec<Request>>, script: &mut Script) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8_192]);
    let (headers, body) = loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let headers: BTreeMap<String, String> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        if bytes.len() >= end + 4 + length {
            break (headers, bytes[end + 4..end + 4 + length].to_vec());
        }
    };
    let number = took.lock().unwrap().len() + 1;
    let (status, more, wait) = script(number, &body);
    took.lock().unwrap().push(Request { at: Instant::now(), headers, body, status });
    std::thread::sleep(wait);
    let (more, body) = if more.starts_with('{') { ("", more) } else { (more, "") };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())
}

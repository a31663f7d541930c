//! Connections that are quiet: they come to rest and wake up as they were, and neither a slow sender nor a slow reader can
//! use that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures::StreamExt as _;
use portcullis_wire::{ConnectionSettings, Wire, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longer than a connection may be quiet without coming to rest.
const A_WHILE: Duration = Duration::from_millis(2_300);
const LARGE: usize = 16 << 20;

async fn server(header_time: Duration) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = || async {
        let chunks = futures::stream::iter(["first", "second", "third"]).then(|chunk| async move {
            tokio::time::sleep(A_WHILE / 2).await;
            Ok::<_, std::io::Error>(Bytes::from(chunk))
        });
        Body::from_stream(chunks)
    };
    let router = Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/echo", post(|body: String| async { body }))
        .route("/unread", post(|| async { "unread" }))
        .route("/slow", get(slow))
        .route("/large", get(|| async { vec![b'x'; LARGE] }));
    let stop = CancellationToken::new();
    let settings = ConnectionSettings { header_time, ..ConnectionSettings::default() };
    tokio::spawn(serve(listener, router, stop.clone(), settings, Wire::plain()));
    (address, stop)
}

async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with(end) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_buf(&mut seen)).await.expect("in time").unwrap();
        assert!(read > 0, "hung up after {}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn a_connection_at_rest_wakes_up_as_it_was() {
    let (address, stop) = server(Duration::from_secs(30)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    for round in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = until(&mut stream, "ok").await;
        assert!(!answer.to_ascii_lowercase().contains("connection: close"), "{round}: {answer}");
        tokio::time::sleep(A_WHILE).await;
    }
    // Two requests at once, and one whose pieces arrive slowly.
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        .await
        .unwrap();
    tokio::time::sleep(A_WHILE).await;
    stream.write_all(b"dy").await.unwrap();
    assert_eq!(until(&mut stream, "body").await.matches("HTTP/1.1 200").count(), 2);
    stream.write_all(b"GET / HTT").await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    stream.write_all(b"P/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "ok").await;
    tokio::time::sleep(A_WHILE).await;
    stop.cancel();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "what is at rest ends with the server");
}

#[tokio::test]
async fn a_body_nobody_read_never_becomes_a_request() {
    let (address, _stop) = server(Duration::from_secs(30)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n").await.unwrap();
    until(&mut stream, "unread").await;
    tokio::time::sleep(A_WHILE).await;
    // The body, which looks like a request.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Smuggled: aaaaaaaaaaaaaaaaaaa\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
    assert!(!String::from_utf8_lossy(&rest).contains("200"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_head_that_trickles_in_ends_in_time_however_it_is_spread() {
    let (address, _stop) = server(Duration::from_secs(3)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "ok").await;
    let began = Instant::now();
    let mut answer = Vec::new();
    for byte in b"GET / HTTP/1.1\r\nHost: a".iter().cycle() {
        let _ = stream.write_all(&[*byte]).await;
        match tokio::time::timeout(Duration::from_millis(1_100), stream.read_buf(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => break,
            _ => assert!(began.elapsed() < Duration::from_secs(10), "a trickle holds a connection"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_slow_or_slowly_read_is_not_cut() {
    let (address, _stop) = server(Duration::from_secs(30)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = until(&mut stream, "0\r\n\r\n").await;
    assert!(answer.contains("first") && answer.contains("third"), "{answer}");
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    let mut seen = 0;
    let mut chunk = vec![0; 1 << 20];
    while seen < LARGE {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut chunk)).await.expect("in time").unwrap();
        assert!(read > 0, "cut after {seen} bytes");
        seen += read;
    }
    tokio::time::sleep(A_WHILE).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "ok").await;
}

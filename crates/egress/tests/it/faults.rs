//! Slow, garbage, huge, compressed, cut, failing and abandoned backends.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_egress::{EgressClient, EgressErrorKind, EgressRequest};
use portcullis_model::{Fault, FaultCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::servers::{answer, client, config, ok, peak_growth, permit, read_request, serve, status};

fn get() -> EgressRequest {
    EgressRequest::get(["x"])
}

#[tokio::test]
async fn nobody_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = client(&url);
    let error = client.send(&permit(&client), get()).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::Connect { reached: false, .. }), "{error}");
    let fault = Fault::from(error);
    assert_eq!((fault.code(), fault.message()), (FaultCode::BackendFailed, "source 'test' cannot be reached"));
}

#[tokio::test]
async fn a_silent_backend_ends_at_the_timeout_and_a_dripping_one_at_the_deadline() {
    let silent = serve(|mut stream, _| async move {
        let _ = read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    })
    .await;
    let mut settings = config(&silent.url);
    settings.read_timeout = Duration::from_millis(150);
    let client = EgressClient::new(settings).unwrap();
    let error = client.send(&permit(&client), get()).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::TimedOut(_)), "{error}");

    let dripping = serve(|mut stream, _| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut settings = config(&dripping.url);
    settings.read_timeout = Duration::from_millis(500);
    let client = EgressClient::new(settings).unwrap();
    let started = Instant::now();
    let short = permit(&client).with_deadline_at_most(Instant::now() + Duration::from_millis(300));
    let error = client.send(&short, get()).await.unwrap_err();
    assert_eq!(error.kind(), &EgressErrorKind::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn garbage_is_a_typed_error() {
    for bytes in [
        &b"\x00\xff\xfe garbage\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
    ] {
        let server = serve(move |mut stream, _| async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
        })
        .await;
        let client = client(&server.url);
        let error = client.send(&permit(&client), get()).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::Garbage(_) | EgressErrorKind::BrokenOff { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_encoding_and_a_false_gzip_are_refused() {
    for (encoding, body) in [("br", "x"), ("gzip", "this is not gzip")] {
        let server = answer(move |_, _| {
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        })
        .await;
        let client = client(&server.url);
        let error = client.send(&permit(&client), get()).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::Garbage(_)), "{error}");
    }
}

#[tokio::test]
async fn a_gigabyte_is_never_held() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = serve(move |mut stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let part = vec![b'x'; 65_536];
            for _ in 0..16_384 {
                let chunk = async {
                    stream.write_all(b"10000\r\n").await?;
                    stream.write_all(&part).await?;
                    stream.write_all(b"\r\n").await
                };
                if chunk.await.is_err() {
                    return;
                }
                counter.fetch_add(part.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let client = client(&server.url);
    let permit = permit(&client);
    let (outcome, grown) = peak_growth(client.send(&permit, get())).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), &EgressErrorKind::ResponseTooLarge { limit: 32 << 20 });
    assert_eq!(Fault::from(error).code(), FaultCode::TooLarge);
    assert!(grown < 64 << 20, "resident memory grew by {grown} bytes");
    assert!(sent.load(Ordering::SeqCst) < 64 << 20, "the connection was closed at the cap");
}

#[tokio::test]
async fn a_declared_gigabyte_and_a_gzip_bomb_stop_at_the_cap() {
    let declared = answer(|_, _| "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_owned()).await;
    let client_declared = client(&declared.url);
    let error = client_declared.send(&permit(&client_declared), get()).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::ResponseTooLarge { .. }), "{error}");

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..256 {
        encoder.write_all(&vec![0u8; 1 << 20]).unwrap();
    }
    let bomb = Arc::new(encoder.finish().unwrap());
    assert!(bomb.len() < 1 << 20);
    let server = serve(move |mut stream, _| {
        let bomb = Arc::clone(&bomb);
        async move {
            let _ = read_request(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&bomb).await;
        }
    })
    .await;
    let client = client(&server.url);
    let permit = permit(&client);
    let (outcome, grown) = peak_growth(client.send(&permit, get().max_response_bytes(4 << 20))).await;
    assert_eq!(outcome.unwrap_err().kind(), &EgressErrorKind::ResponseTooLarge { limit: 4 << 20 });
    assert!(grown < 64 << 20, "resident memory grew by {grown} bytes");
}

#[tokio::test]
async fn a_response_cut_half_way_is_an_error_and_not_asked_again() {
    for head in ["content-length: 1000\r\n", "transfer-encoding: chunked\r\n"] {
        let server = serve(move |mut stream, _| async move {
            let _ = read_request(&mut stream).await;
            let body = if head.starts_with("transfer") { "ff\r\nhalf" } else { "half" };
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        })
        .await;
        let client = client(&server.url);
        let error = client.send(&permit(&client), get()).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::BrokenOff { half_way: true, .. }), "{error}");
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn idempotent_requests_are_tried_three_times_and_others_once() {
    let server = answer(|_, number| if number < 2 { status("503 Service Unavailable", "") } else { ok("third") }).await;
    let client = client(&server.url);
    let permit = permit(&client);
    assert_eq!(client.send(&permit, get()).await.unwrap().body.as_ref(), b"third");

    for (idempotent, expected) in [(false, 1), (true, 3)] {
        let tries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&tries);
        let server = answer(move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            status("502 Bad Gateway", "")
        })
        .await;
        let client = crate::servers::client(&server.url);
        let post = EgressRequest::post(["x"]).form(vec![]);
        let post = if idempotent { post.idempotent() } else { post };
        let response = client.send(&crate::servers::permit(&client), post).await.unwrap();
        assert_eq!(response.status.as_u16(), 502);
        assert_eq!(tries.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn retry_after_is_honoured_within_the_deadline() {
    let server = answer(|_, number| match number {
        0 => status("503 Service Unavailable", "retry-after: 1\r\n"),
        _ => ok("later"),
    })
    .await;
    let client = client(&server.url);
    let started = Instant::now();
    assert_eq!(client.send(&permit(&client), get()).await.unwrap().body.as_ref(), b"later");
    assert!(started.elapsed() >= Duration::from_secs(1));

    let server = answer(|_, _| status("503 Service Unavailable", "retry-after: 3600\r\n")).await;
    let client = crate::servers::client(&server.url);
    let started = Instant::now();
    let response = client.send(&permit(&client), get()).await.unwrap();
    assert_eq!((response.status.as_u16(), response.retry_after_seconds()), (503, Some(3600)));
    assert!(started.elapsed() < Duration::from_secs(1), "a pause beyond the deadline is not waited for");
}

#[tokio::test]
async fn the_circuit_opens_and_closes_again() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = answer(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        if switch.load(Ordering::SeqCst) { status("504 Gateway Timeout", "") } else { ok("up") }
    })
    .await;
    let mut settings = config(&server.url);
    settings.breaker_failures = 3;
    settings.breaker_rest = Duration::from_millis(200);
    let client = EgressClient::new(settings).unwrap();
    let permit = permit(&client);
    assert_eq!(client.send(&permit, get()).await.unwrap().status.as_u16(), 504);
    let error = client.send(&permit, get()).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::CircuitOpen { .. }), "{error}");
    assert!(Fault::from(error).retry_after_seconds().is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 3, "an open circuit sends nothing");
    down.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(client.send(&permit, get()).await.unwrap().body.as_ref(), b"up");
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = answer(|_, _| ok("x")).await;
    let client = client(&server.url);
    let permit = permit(&client);
    for _ in 0..20 {
        client.send(&permit, get()).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn connections_of_requests_that_come_together_are_used_again() {
    const TOGETHER: usize = 16;
    let all_arrived = Arc::new(tokio::sync::Barrier::new(TOGETHER));
    let server = serve(move |mut stream, _| {
        let all_arrived = Arc::clone(&all_arrived);
        async move {
            while read_request(&mut stream).await.is_some() {
                all_arrived.wait().await;
                if stream.write_all(ok("x").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let client = client(&server.url);
    let permit = permit(&client);
    for _ in 0..11 {
        let mut round = tokio::task::JoinSet::new();
        for _ in 0..TOGETHER {
            let (client, permit) = (client.clone(), permit.clone());
            round.spawn(async move { client.send(&permit, get()).await });
        }
        for answered in round.join_all().await {
            answered.unwrap();
        }
    }
    // A few more than at once where one was asked for before it was given back; not some in every round.
    assert!(server.connections() <= 40, "{}", server.connections());
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    let closed = Arc::new(AtomicBool::new(false));
    let arrived = Arc::new(tokio::sync::Notify::new());
    let (seen, asked) = (Arc::clone(&closed), Arc::clone(&arrived));
    let server = serve(move |mut stream, _| {
        let (seen, asked) = (Arc::clone(&seen), Arc::clone(&asked));
        async move {
            let _ = read_request(&mut stream).await;
            asked.notify_one();
            let mut rest = [0u8; 16];
            if matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {
                seen.store(true, Ordering::SeqCst);
            }
        }
    })
    .await;
    let client = client(&server.url);
    let permit = permit(&client);
    tokio::select! {
        _ = client.send(&permit, get()) => panic!("the server never answers"),
        () = arrived.notified() => {}
    }
    for _ in 0..100 {
        if closed.load(Ordering::SeqCst) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection stayed open after the future was dropped");
}

#[tokio::test]
async fn requests_beyond_the_concurrency_wait_for_their_turn() {
    let at_once = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&at_once), Arc::clone(&most));
    let server = serve(move |mut stream, _| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            while read_request(&mut stream).await.is_some() {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                let _ = stream.write_all(ok("x").as_bytes()).await;
            }
        }
    })
    .await;
    let mut settings = config(&server.url);
    settings.concurrency = 2;
    let client = EgressClient::new(settings).unwrap();
    let permit = permit(&client);
    let sends: Vec<_> = (0..8)
        .map(|_| {
            let (client, permit) = (client.clone(), permit.clone());
            tokio::spawn(async move { client.send(&permit, get()).await.unwrap() })
        })
        .collect();
    for send in sends {
        send.await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

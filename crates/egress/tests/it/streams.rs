//! Responses that arrive bit by bit: their limits, their redirects, the credentials of single requests.

use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_egress::{
    AddressPolicy, AllowedRange, Authentication, Credential, EgressClient, EgressConfig, EgressErrorKind, EgressRequest,
    StreamLimits, egress_counts,
};
use portcullis_model::Secret;
use tokio::io::AsyncWriteExt;

use crate::servers::{answer, client, ok, permit, read_request, serve, status};

const LIMITS: StreamLimits = StreamLimits { bytes: 10_000, idle: Duration::from_millis(300) };
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

#[tokio::test]
async fn bytes_silence_and_the_deadline_are_bounded_and_the_deadline_can_be_renewed() {
    let endless = serve(|mut stream, _| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(HEAD).await;
        while stream.write_all(&[b'x'; 1_000]).await.is_ok() {}
    })
    .await;
    let through = client(&endless.url);
    let mut stream = through.open(&permit(&through), EgressRequest::get(["x"]), LIMITS).await.unwrap();
    let mut read = 0;
    let error = loop {
        match stream.next().await {
            Ok(chunk) => read += chunk.unwrap_or_else(Bytes::new).len(),
            Err(error) => break error,
        }
    };
    assert!(read <= 10_000, "{read}");
    assert_eq!(error.kind(), &EgressErrorKind::ResponseTooLarge { limit: 10_000 });

    let silent = serve(|mut stream, _| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(HEAD).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    })
    .await;
    let through = client(&silent.url);
    let mut stream = through.open(&permit(&through), EgressRequest::get(["x"]), LIMITS).await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::TimedOut(_)), "{error}");
    let soon = permit(&through).with_deadline_at_most(Instant::now() + Duration::from_millis(100));
    let patient = StreamLimits { idle: Duration::from_secs(20), ..LIMITS };
    let mut stream = through.open(&soon, EgressRequest::get(["x"]), patient).await.unwrap();
    assert_eq!(stream.next().await.unwrap_err().kind(), &EgressErrorKind::DeadlineExceeded);
    assert!(stream.renew(&soon).is_err(), "a permit that is over renews nothing");
    stream.renew(&permit(&through)).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(waited.is_err(), "it goes on: {waited:?}");
}

#[tokio::test]
async fn a_request_may_have_a_credential_of_its_own_and_an_address_the_server_named() {
    let server = answer(|request, _| ok(&request)).await;
    let through = client(&server.url);
    let own = Authentication::Bearer(Credential::Fixed(Secret::new("of-this-request")));
    let request = EgressRequest::post(["x"])
        .at_reference("/messages?session=1")
        .authenticated(own)
        .secret_header("x-grafana-token", Secret::new("also-secret"))
        .bytes("application/json", Bytes::from_static(b"{}"));
    assert!(!format!("{request:?}").contains("also-secret"));
    let mut stream = through.open(&permit(&through), request, LIMITS).await.unwrap();
    let seen = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap().to_ascii_lowercase();
    assert!(seen.starts_with("post /messages?session=1 "), "{seen}");
    for header in ["authorization: bearer of-this-request", "x-grafana-token: also-secret", "accept-encoding: identity"] {
        assert!(seen.contains(header), "{seen}");
    }
    for elsewhere in ["http://127.0.0.1:9/x", "//evil.example/x", "http://user:pass@127.0.0.1/x", "x\ny"] {
        let request = EgressRequest::get(["x"]).at_reference(elsewhere);
        let error = through.open(&permit(&through), request, LIMITS).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::InvalidRequest(_)), "{elsewhere}: {error}");
    }
    let forbidden = EgressRequest::get(["x"]).secret_header("authorization", Secret::new("y"));
    assert!(through.open(&permit(&through), forbidden, LIMITS).await.is_err());
}

#[tokio::test]
async fn a_stream_follows_redirects_within_its_origin_only() {
    let server = answer(|request, _| {
        if request.starts_with("GET /there ") {
            return ok("arrived");
        }
        let target = if request.starts_with("GET /out ") { "http://127.0.0.1:9/there" } else { "/there" };
        status("307 X", &format!("location: {target}\r\n"))
    })
    .await;
    let through = client(&server.url);
    let mut stream = through.open(&permit(&through), EgressRequest::get(["in"]), LIMITS).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "arrived");
    let error = through.open(&permit(&through), EgressRequest::get(["out"]), LIMITS).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::RedirectRefused(_)), "{error}");
    let told = through.open(&permit(&through), EgressRequest::get(["out"]).hand_back_redirects(), LIMITS).await.unwrap();
    assert_eq!((told.status.as_u16(), &told.headers["location"]), (307, &"http://127.0.0.1:9/there".parse().unwrap()));
}

#[tokio::test]
async fn streams_are_counted_by_how_they_began() {
    let server = answer(|request, _| if request.starts_with("GET /gone ") { status("410 Gone", "") } else { ok("x") }).await;
    let config = EgressConfig {
        addresses: AddressPolicy::new([AllowedRange::Loopback]),
        ..EgressConfig::new("counted-streams", &server.url)
    };
    let through = EgressClient::new(config).unwrap();
    let counted = || {
        let counts = egress_counts().into_iter().find(|counts| &*counts.name == "counted-streams").unwrap();
        counts.requests.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    };
    assert_eq!(counted(), []);
    for path in ["well", "gone", "well"] {
        let _stream = through.open(&permit(&through), EgressRequest::get([path]), LIMITS).await.unwrap();
    }
    through.open(&permit(&through), EgressRequest::get([".."]), LIMITS).await.unwrap_err();
    assert_eq!(counted(), [("2xx", 2), ("4xx", 1), ("refused", 1)]);
}

//! Handshakes over real sockets, good and bad.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use http::Extensions;
use portcullis_config::{ClientCertificates, TlsSettings, TlsVersion};
use portcullis_wire::{
    Certificates, ConnectionSettings, HandshakeFailure, HandshakeLimits, Reception, Refreshed, Visitor, Wire, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use tokio_util::sync::CancellationToken;

use crate::paper::{Authority, Desk, Paper, authority, load};

/// Length of the client's certificate, as the reception saw it.
#[derive(Clone)]
struct Shown(usize);

#[derive(Default)]
struct Book {
    away: Mutex<Vec<String>>,
}

impl Reception for Book {
    fn certificate(&self, der: &[u8], known: &mut Extensions) -> Result<(), String> {
        known.insert(Shown(der.len()));
        Ok(())
    }

    fn turned_away(&self, _: std::net::SocketAddr, failure: &HandshakeFailure) {
        self.away.lock().unwrap().push(failure.to_string());
    }
}

pub(crate) struct Server {
    port: u16,
    pub certificates: Arc<Certificates>,
    book: Arc<Book>,
    stop: CancellationToken,
}

impl Server {
    async fn start(settings: TlsSettings) -> Self {
        Self::of(load(settings).unwrap()).await
    }

    pub(crate) async fn of(certificates: Certificates) -> Self {
        let certificates = Arc::new(certificates);
        let book = Arc::new(Book::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = Router::new().route(
            "/",
            get(|request: Request| async move {
                let secured = request.extensions().get::<Visitor>().is_some_and(|visitor| visitor.secured);
                format!("secured={secured} shown={}", request.extensions().get::<Shown>().is_some_and(|shown| shown.0 > 0))
            }),
        );
        let stop = CancellationToken::new();
        let wire = Wire::new(Some(certificates.clone()), book.clone());
        tokio::spawn(serve(listener, routes, stop.clone(), ConnectionSettings::default(), wire));
        Self { port, certificates, book, stop }
    }

    pub(crate) async fn knock(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Shakes hands, asks once, and gives the connection back with the answer.
    pub(crate) async fn visit(&self, client: ClientConfig) -> std::io::Result<(TlsStream<TcpStream>, String)> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, self.knock().await).await?;
        let answer = ask(&mut stream).await?;
        Ok((stream, answer))
    }

    pub(crate) async fn turned_away(&self, words: &str) {
        let began = Instant::now();
        while !self.book.away.lock().unwrap().iter().any(|away| away.contains(words)) {
            assert!(began.elapsed() < Duration::from_secs(5), "no '{words}' in {:?}", self.book.away.lock().unwrap());
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !text.contains("shown=") {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    Ok(text.rsplit("\r\n\r\n").next().unwrap().to_owned())
}

pub(crate) fn client(trusts: &Authority, shows: Option<&Paper>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match shows {
        None => builder.with_no_client_auth(),
        Some(paper) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(paper.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

#[tokio::test]
async fn the_two_versions_in_use_are_spoken_and_the_older_one_can_be_switched_off() {
    let authority = authority();
    let desk = Desk::new(&authority.server());
    let server = Server::start(desk.settings()).await;
    for (offered, spoken) in [(&version::TLS13, ProtocolVersion::TLSv1_3), (&version::TLS12, ProtocolVersion::TLSv1_2)] {
        let (stream, answer) = server.visit(client(&authority, None, &[offered])).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert_eq!(answer, "secured=true shown=false");
    }
    let strict = Server::start(TlsSettings { minimum_version: TlsVersion::V1_3, ..desk.settings() }).await;
    assert!(strict.visit(client(&authority, None, &[&version::TLS13])).await.is_ok());
    let refused = strict.visit(client(&authority, None, &[&version::TLS12])).await.unwrap_err().to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn a_client_of_tls_1_1_is_refused_with_an_alert() {
    let desk = Desk::new(&authority().server());
    let server = Server::start(desk.settings()).await;
    // A ClientHello of RFC 4346 section 7.4.1.2: version 3.2, a random, no session, one cipher suite, no compression.
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x14, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = server.knock().await;
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // An alert record (21) whose body is fatal (2), handshake_failure (40): such a client names no signature algorithms.
    assert!(answer.first() == Some(&21) && answer.ends_with(&[2, 40]), "{answer:?}");
    server.turned_away("no agreement on TLS").await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_verified() {
    let (authority, clients, foreign) = (authority(), authority(), authority());
    let desk = Desk::new(&authority.server());
    let good = clients.client(1);
    let required = Server::start(desk.asking(&clients, ClientCertificates::Required)).await;
    for version in BOTH {
        let (_, answer) = required.visit(client(&authority, Some(&good), &[version])).await.unwrap();
        assert_eq!(answer, "secured=true shown=true");
        assert!(required.visit(client(&authority, None, &[version])).await.is_err());
        assert!(required.visit(client(&authority, Some(&foreign.client(1)), &[version])).await.is_err());
        assert!(required.visit(client(&authority, Some(&clients.server()), &[version])).await.is_err(), "not for clients");
    }
    required.turned_away("none was shown").await;
    required.turned_away("UnknownIssuer").await;
    let optional = Server::start(desk.asking(&clients, ClientCertificates::Optional)).await;
    assert_eq!(optional.visit(client(&authority, None, BOTH)).await.unwrap().1, "secured=true shown=false");
    assert_eq!(optional.visit(client(&authority, Some(&good), BOTH)).await.unwrap().1, "secured=true shown=true");
    assert!(optional.visit(client(&authority, Some(&foreign.client(1)), BOTH)).await.is_err(), "a bad one is not no one");
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_the_reload_on() {
    let (authority, clients) = (authority(), authority());
    let desk = Desk::new(&authority.server());
    let list = desk.write("lists.pem", &clients.revocations(&[9], 2999));
    let settings = TlsSettings { client_revocations: Some(list), ..desk.asking(&clients, ClientCertificates::Required) };
    let server = Server::start(settings).await;
    let (one, nine) = (clients.client(1), clients.client(9));
    assert!(server.visit(client(&authority, Some(&nine), BOTH)).await.is_err());
    server.turned_away("Revoked").await;
    // The same client twice, so that it holds tickets of a session that could be resumed.
    let visitor = client(&authority, Some(&one), BOTH);
    for _ in 0..2 {
        assert!(server.visit(visitor.clone()).await.is_ok());
    }
    desk.write("lists.pem", &clients.revocations(&[1, 9], 2999));
    assert_eq!(server.certificates.refresh(), Refreshed::Replaced);
    assert!(server.visit(visitor).await.is_err(), "a session from before must not be resumed");
    desk.write("lists.pem", &clients.revocations(&[], 2025));
    assert_eq!(server.certificates.refresh(), Refreshed::Replaced);
    assert!(server.visit(client(&authority, Some(&one), BOTH)).await.is_err(), "a list that is out of date refuses");
}

#[tokio::test]
async fn a_new_certificate_greets_new_clients_and_leaves_the_old_connections_alone() {
    let (old, new) = (authority(), authority());
    let desk = Desk::new(&old.server());
    let server = Server::start(desk.settings()).await;
    let (mut stream, _) = server.visit(client(&old, None, BOTH)).await.unwrap();
    desk.lay(&new.server());
    assert_eq!(server.certificates.refresh(), Refreshed::Replaced);
    assert!(server.visit(client(&old, None, BOTH)).await.is_err());
    assert!(server.visit(client(&new, None, BOTH)).await.is_ok());
    assert_eq!(ask(&mut stream).await.unwrap(), "secured=true shown=false");
}

#[tokio::test]
async fn plain_http_gets_a_sentence_and_noise_gets_an_end() {
    let desk = Desk::new(&authority().server());
    let server = Server::start(desk.settings()).await;
    for (said, answer) in [(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], "use https"), (b"\x00\x01\x02", "")] {
        let mut stream = server.knock().await;
        stream.write_all(said).await.unwrap();
        let mut text = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut text)).await.expect("no hang");
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(answer) && (answer.is_empty() || text.starts_with("HTTP/1.1 400 ")), "{read:?} {text}");
    }
    server.turned_away("does not speak TLS").await;
}

#[tokio::test]
async fn slow_handshakes_end_and_hold_up_nobody() {
    let authority = authority();
    let desk = Desk::new(&authority.server());
    let limits = HandshakeLimits { time: Duration::from_millis(400), at_once: 2 };
    let server = Server::of(load(desk.settings()).unwrap().with_limits(limits)).await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.knock().await);
    }
    // They hold no place among the handshakes, so this one gets through while they are there.
    assert!(server.visit(client(&authority, None, BOTH)).await.is_ok());
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    let mut begun = Vec::new();
    for _ in 0..3 {
        let mut stream = server.knock().await;
        stream.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        begun.push(stream);
    }
    for stream in silent.iter_mut().chain(&mut begun) {
        let mut rest = Vec::new();
        // Reset or closed, it is over.
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("no hang");
    }
    server.turned_away("did not end in time").await;
    assert!(server.visit(client(&authority, None, BOTH)).await.is_ok(), "their places are free again");
}

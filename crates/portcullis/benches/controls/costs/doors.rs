//! The controls in front of the gate and behind it: TLS, names, where a request comes from, credentials that are not keys,
//! and what a request to a backend passes.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request};
use axum::response::IntoResponse as _;
use axum::routing::get;
use jsonwebtoken::Algorithm;
use portcullis_config::{TlsSettings, TrustedProxies};
use portcullis_egress::{AddressPolicy, PathTemplate};
use portcullis_identity::{KeyRequest, KeyRing, Pepper};
use portcullis_model::{Secret, SystemClock, TenantId};
use portcullis_state::MemoryStore;
use portcullis_wire::{Certificates, HostPolicy, Protocol, Visitor, guarded};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower::Service as _;

use super::{Figure, Rounds};

#[path = "../../../../identity/benches/signed/mod.rs"]
mod signed;

/// Bytes of a request and of an answer.
const ASKED: usize = 600;
const ANSWERED: usize = 3_000;

pub(super) fn figures(rounds: Rounds) -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut figures = tls(&runtime, rounds);
    figures.extend(names(&runtime, rounds));
    figures.extend(origins(rounds));
    figures.extend(tokens(&runtime, rounds));
    figures.push(password(&runtime, rounds));
    figures.extend(egress(rounds));
    figures
}

fn tls(runtime: &Runtime, rounds: Rounds) -> Vec<Figure> {
    let home = tempfile::tempdir().unwrap();
    let (certificate, key) = (home.path().join("server.pem"), home.path().join("server.key"));
    let own = KeyPair::generate().unwrap();
    let paper = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own).unwrap().pem();
    std::fs::write(&certificate, &paper).unwrap();
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&key, own.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let settings = TlsSettings { certificate: Some(certificate), key: Some(key), ..TlsSettings::default() };
    let server = Certificates::load(settings, Protocol::Http1, Arc::new(SystemClock)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(paper.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    // A connection that is resumed is cheaper; this is the first one.
    config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
    let client = TlsConnector::from(Arc::new(config));
    let name = || ServerName::try_from("localhost").unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let pair = async || {
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    };
    let connected = rounds.fewer(20);
    let clear = connected.cost(|| drop(black_box(runtime.block_on(pair()))));
    let shake = async || {
        let (near, far) = pair().await;
        let (near, far) = tokio::join!(client.connect(name(), near), server.accept(far));
        (near.unwrap(), far.unwrap().stream)
    };
    let shaken = connected.cost(|| drop(black_box(runtime.block_on(shake()))));
    let (mut near, mut far) = runtime.block_on(pair());
    let spoken_clear = rounds.cost(|| runtime.block_on(converse(&mut near, &mut far)));
    let (mut near, mut far) = runtime.block_on(shake());
    let spoken = rounds.cost(|| runtime.block_on(converse(&mut near, &mut far)));
    vec![
        Figure::new("tls", "a new connection, both ends, beside clear text", shaken - clear),
        Figure::new("tls", "a request and 3 KB of answer, both ends, beside clear text", spoken - spoken_clear),
    ]
}

/// A question and its answer over an open connection.
async fn converse(near: &mut (impl AsyncRead + AsyncWrite + Unpin), far: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let (mut asked, mut answered) = ([0; ASKED], [0; ANSWERED]);
    near.write_all(&[b'q'; ASKED]).await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut asked).await.unwrap();
    far.write_all(&[b'a'; ANSWERED]).await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut answered).await.unwrap();
    black_box((asked, answered));
}

/// The Host and Origin check with the headers of every answer, beside a route without them.
fn names(runtime: &Runtime, rounds: Rounds) -> Vec<Figure> {
    let routes = || Router::new().route("/", get(|| async { "ok" }));
    let hosts = HostPolicy::loopback().with_allowed(["mcp.example.org"], ["https://app.example.org"]).unwrap();
    let checked = guarded(routes(), hosts, None, |status, sentence| (status, sentence).into_response(), Arc::new(()));
    let ask = |routes: &Router| {
        rounds.cost(|| {
            let request = Request::get("/").header("host", "mcp.example.org").body(Body::empty()).unwrap();
            let answered = runtime.block_on(routes.clone().call(request)).unwrap();
            assert!(black_box(answered).status().is_success());
        })
    };
    vec![Figure::new("hosts", "Host and Origin, security headers, beside a bare route", ask(&checked) - ask(&routes()))]
}

/// Where a request comes from.
fn origins(rounds: Rounds) -> Vec<Figure> {
    let proxies = TrustedProxies::try_from(vec!["10.0.0.0/8".parse().unwrap()]).unwrap();
    let visitor = |peer: &str| Visitor {
        peer: peer.parse::<SocketAddr>().unwrap(),
        secured: false,
        known: axum::http::Extensions::new(),
        proxies: proxies.clone(),
    };
    let (direct, relayed) = (visitor("192.0.2.7:5000"), visitor("10.0.0.5:5000"));
    let (mut plain, mut forwarded) = (HeaderMap::new(), HeaderMap::new());
    for (name, value) in [("host", "mcp.example.org"), ("accept", "application/json"), ("content-type", "application/json")] {
        plain.insert(name, HeaderValue::from_static(value));
        forwarded.insert(name, HeaderValue::from_static(value));
    }
    forwarded.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9, 198.51.100.7, 10.1.1.1"));
    assert_eq!(relayed.whence(&forwarded).client().to_string(), "198.51.100.7");
    vec![
        Figure::new("origin", "whose request it is, without a proxy", rounds.cost(|| drop(black_box(direct.whence(&plain))))),
        Figure::new("origin", "the same behind two proxies", rounds.cost(|| drop(black_box(relayed.whence(&forwarded))))),
    ]
}

fn tokens(runtime: &Runtime, rounds: Rounds) -> Vec<Figure> {
    let rounds = rounds.fewer(5);
    let verified = |algorithm| {
        let (verifier, token) = signed::prepared(algorithm);
        runtime.block_on(verifier.verify_token(&token)).expect("the keys are fetched once, before the clock runs");
        let micros = rounds.cost(|| drop(black_box(runtime.block_on(verifier.verify_token(&token)).unwrap())));
        Figure::new("token", format!("an access token verified, {algorithm:?}"), micros)
    };
    [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(verified).into()
}

/// A secret that a person chose: what a wrong one costs, and so does a right one for the first time in minutes.
fn password(runtime: &Runtime, rounds: Rounds) -> Figure {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let keys = runtime.block_on(KeyRing::open(store, clock, Pepper::in_memory().unwrap())).unwrap();
    let request = KeyRequest::new("bench", "reader", TenantId::default_tenant());
    let record = runtime.block_on(keys.import(request, &Secret::new("Kq7#vLp2xWm9zR!d"))).unwrap();
    let wrong = format!("pcli_{}_Kq7#vLp2xWm9zR!x", record.id);
    let micros = rounds.fewer(200).cost(|| {
        runtime.block_on(keys.refresh()).unwrap();
        assert!(runtime.block_on(keys.verify_chosen(&wrong, None)).is_err());
    });
    Figure::new("password", "a password or chosen secret, argon2id", micros)
}

/// What a request to a backend passes before it leaves: its path confined and read again, its address judged.
fn egress(rounds: Rounds) -> Vec<Figure> {
    let template = PathTemplate::parse("/api/v1/label/{name}/values").unwrap();
    let request = || template.request(http::Method::GET, |_| Some("service_name".to_owned())).unwrap();
    let address = || request().address("https://prometheus.example.com:9090/base").unwrap();
    assert_eq!(address(), "https://prometheus.example.com:9090/base/api/v1/label/service_name/values");
    let policy = AddressPolicy::default();
    let addresses: [IpAddr; 4] =
        ["93.184.216.34", "2606:2800:220:1::1", "169.254.169.254", "::ffff:10.0.0.1"].map(|text| text.parse().unwrap());
    let judged = rounds.cost(|| {
        black_box(addresses.map(|address| policy.check(address).is_ok()));
    });
    vec![
        Figure::new("egress", "a path confined, written and read again", rounds.cost(|| drop(black_box(address())))),
        Figure::new("egress", "four addresses of a name judged", judged),
    ]
}

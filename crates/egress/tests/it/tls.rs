//! Certificates: the system's authorities do not know this server, the configured one does, and mutual TLS works.

use std::sync::Arc;

use portcullis_egress::{EgressClient, EgressError, EgressErrorKind, EgressRequest, TlsOptions};
use portcullis_model::Secret;
use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use crate::servers::{config, permit};

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

fn issued(authority: &Authority, name: &str, usage: ExtendedKeyUsagePurpose) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority.issuer).unwrap(), key)
}

/// A TLS server for `localhost` that answers `ok`; asks for client certificates when `clients` is given.
async fn server(
    authority: &Authority,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> (u16, tokio::task::JoinHandle<()>) {
    let (certificate, key) = issued(authority, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let settings = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0u8; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (port, task)
}

async fn ask(host: &str, port: u16, tls: TlsOptions) -> Result<String, EgressError> {
    let mut settings = config(&format!("https://{host}:{port}"));
    settings.tls = tls;
    let client = EgressClient::new(settings).unwrap();
    let response = client.send(&permit(&client), EgressRequest::post(["x"])).await;
    response.map(|r| String::from_utf8(r.body.to_vec()).unwrap())
}

fn trusting(authority: &Authority) -> TlsOptions {
    TlsOptions { ca_pem: Some(authority.certificate.pem().into_bytes()), ..TlsOptions::default() }
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted_and_names_must_fit() {
    let ours = authority();
    let (port, task) = server(&ours, None, &[&version::TLS12, &version::TLS13]).await;
    assert_eq!(ask("localhost", port, trusting(&ours)).await.unwrap(), "ok");
    for (host, tls) in
        [("localhost", TlsOptions::default()), ("localhost", trusting(&authority())), ("127.0.0.1", trusting(&ours))]
    {
        let error = ask(host, port, tls).await.unwrap_err();
        assert!(matches!(error.kind(), EgressErrorKind::Connect { .. }), "{host}: {error}");
        assert!(error.contacted(), "whoever failed the handshake was spoken to: {error}");
    }
    task.abort();
}

#[tokio::test]
async fn whoever_hangs_up_in_the_handshake_was_spoken_to_and_nobody_was_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    let error = ask("localhost", port, TlsOptions::default()).await.unwrap_err();
    assert!(error.contacted(), "{error}");
    task.abort();
    let _ = task.await;
    let error = ask("localhost", port, TlsOptions::default()).await.unwrap_err();
    assert!(matches!(error.kind(), EgressErrorKind::Connect { .. }) && !error.contacted(), "{error}");
}

#[tokio::test]
async fn the_least_version_can_be_raised() {
    let ours = authority();
    let (port, task) = server(&ours, None, &[&version::TLS12]).await;
    assert_eq!(ask("localhost", port, trusting(&ours)).await.unwrap(), "ok");
    let strict = TlsOptions { only_tls_13: true, ..trusting(&ours) };
    assert!(matches!(ask("localhost", port, strict).await.unwrap_err().kind(), EgressErrorKind::Connect { .. }));
    task.abort();
}

#[tokio::test]
async fn mutual_tls() {
    let (ours, theirs) = (authority(), authority());
    let (port, task) = server(&ours, Some(&theirs), &[&version::TLS12, &version::TLS13]).await;
    assert!(ask("localhost", port, trusting(&ours)).await.is_err(), "the server asks for a certificate");
    let with = |authority: &Authority| {
        let (certificate, key) = issued(authority, "portcullis", ExtendedKeyUsagePurpose::ClientAuth);
        TlsOptions {
            client_certificate_pem: Some(certificate.pem().into_bytes()),
            client_key_pem: Some(Secret::new(key.serialize_pem())),
            ..trusting(&ours)
        }
    };
    assert_eq!(ask("localhost", port, with(&theirs)).await.unwrap(), "ok");
    assert!(ask("localhost", port, with(&authority())).await.is_err(), "a certificate of somebody else does not help");
    task.abort();
}

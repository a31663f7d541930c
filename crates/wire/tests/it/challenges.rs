//! TLS-ALPN-01 on the listener, and a listener whose certificate is still to come.

use std::path::Path;
use std::sync::Arc;

use portcullis_config::{ClientCertificates, TlsSettings};
use portcullis_model::SystemClock;
use portcullis_wire::{Certificates, Challenges, Protocol, Refreshed};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::handshakes::{BOTH, Server, client};
use crate::paper::{Authority, Desk, authority};

fn awaited(settings: TlsSettings, file: &Path, challenges: Option<Arc<Challenges>>) -> Certificates {
    Certificates::awaited(settings, file, Protocol::Http1, Arc::new(SystemClock), challenges).unwrap()
}

/// A certificate and key of a challenge, self-signed, with the mark of RFC 8737.
fn proof(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// Looks at certificates as an authority does, by itself and after the handshake: to others their mark is unknown and critical.
#[derive(Debug)]
struct Looks(CryptoProvider);

impl ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn looking(alpn: &[&[u8]]) -> ClientConfig {
    let provider = aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(BOTH)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looks(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

async fn look(server: &Server, name: &'static str, config: ClientConfig) -> std::io::Result<Vec<u8>> {
    let name = ServerName::try_from(name).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, server.knock().await).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    if stream.get_ref().1.alpn_protocol() != Some(&b"acme-tls/1"[..]) {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    // Whatever is said on it, nobody answers.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    Ok(shown)
}

#[tokio::test]
async fn a_proof_is_shown_while_it_is_pending_to_who_asks_for_it_and_to_nobody_else() {
    let (own, clients) = (authority(), authority());
    let desk = Desk::new(&own.server());
    let paper = own.server();
    let file = desk.write("both.pem", &format!("{}{}", paper.key, paper.certificate));
    let challenges: Arc<Challenges> = Arc::default();
    // Even where clients must show a certificate: the authority has none.
    let settings = desk.asking(&clients, ClientCertificates::Required);
    let server = Server::of(awaited(settings, &file, Some(challenges.clone()))).await;
    let visit = async || server.visit(client(&own, Some(&clients.client(1)), BOTH)).await;
    let (certificate, key) = proof("mcp.example");
    assert!(look(&server, "mcp.example", looking(&[b"acme-tls/1"])).await.is_err(), "nothing is pending");
    let held = challenges.answer("mcp.example", certificate.clone(), key).unwrap();
    assert_eq!(look(&server, "mcp.example", looking(&[b"acme-tls/1"])).await.unwrap(), certificate.to_vec());
    server.turned_away("a challenge for mcp.example was answered").await;
    for (name, alpn) in [
        ("other.example", &[&b"acme-tls/1"[..]][..]),
        ("mcp.example", &[b"acme-tls/1", b"http/1.1"]),
        ("mcp.example", &[b"http/1.1", b"acme-tls/1"]),
        ("mcp.example", &[b"http/1.1"]),
        ("mcp.example", &[]),
    ] {
        assert!(look(&server, name, looking(alpn)).await.is_err(), "{name} {alpn:?}");
    }
    assert!(visit().await.is_ok(), "everybody else is greeted as ever");
    drop(held);
    assert!(look(&server, "mcp.example", looking(&[b"acme-tls/1"])).await.is_err(), "it is over");
    assert!(visit().await.is_ok());
}

#[tokio::test]
async fn until_there_is_a_certificate_every_handshake_is_refused() {
    let own: Authority = authority();
    let desk = Desk::new(&own.server());
    let file = desk.path("awaited.pem");
    let server = Server::of(awaited(TlsSettings::default(), &file, None)).await;
    let visit = async || server.visit(client(&own, None, BOTH)).await;
    assert_eq!((server.certificates.expires_at(), server.certificates.refused()), (None, None));
    let refused = visit().await.unwrap_err().to_string();
    assert!(refused.contains("AccessDenied"), "{refused}");
    server.turned_away("there is no certificate yet").await;
    assert_eq!(server.certificates.refresh(), Refreshed::Unchanged);
    desk.write("awaited.pem", "not a certificate");
    assert!(matches!(server.certificates.refresh(), Refreshed::Kept(why) if why.contains("awaited.pem")));
    assert!(visit().await.is_err());
    let paper = own.server();
    desk.write("awaited.pem", &format!("{}{}", paper.key, paper.certificate));
    assert_eq!(server.certificates.refresh(), Refreshed::Replaced);
    assert!(visit().await.is_ok());
    let old = own.server_of_years(2020, 2021);
    desk.write("awaited.pem", &format!("{}{}", old.key, old.certificate));
    assert!(matches!(server.certificates.refresh(), Refreshed::Kept(_)));
    assert!(visit().await.is_ok(), "the last good one stays in force");
    // At a start, what cannot be used is no certificate, and is told.
    let again = awaited(TlsSettings::default(), &file, None);
    assert!(again.expires_at().is_none() && again.refused().is_some_and(|why| why.contains("ended")));
    let clients = TlsSettings {
        client_ca: Some(desk.path("nowhere.pem")),
        client_certificates: ClientCertificates::Required,
        ..TlsSettings::default()
    };
    assert!(Certificates::awaited(clients, &file, Protocol::Http1, Arc::new(SystemClock), None).is_err());
}

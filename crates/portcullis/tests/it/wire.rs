//! The wire: TLS, client certificates, reload of certificates, clear text that is refused, and what a browser is told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};

use crate::server::{Home, Reply, Server, intact, modern, modern_headers, post};

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Paper {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

impl Authority {
    pub(crate) fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Paper {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Paper { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> Paper {
        self.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, name: &str) -> Paper {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

pub(crate) fn private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn lay(directory: &Path, paper: &Paper) {
    private(&directory.join("server.key"), &paper.key);
    private(&directory.join("server.pem"), &paper.certificate);
}

/// A server with TLS on MCP and OTLP/HTTP that asks clients for a certificate, and gives `agent.example` a name.
fn start(how: &str, server: &Authority, clients: &Authority) -> Server {
    let home = Home::new(
        "listen: {mcp: 'MCP_ADDRESS', tls: TLS}\nidentity:\n  certificates:\n  - {name: agent, san: {dns: agent.example}, \
         roles: [reader], doors: [mcp, ingest]}\n",
    );
    let directory = home.directory.path();
    lay(directory, &server.server());
    private(&directory.join("clients.pem"), &clients.pem);
    let shown = directory.display();
    let tls = format!(
        "{{certificate: '{shown}/server.pem', key: '{shown}/server.key', client_ca: '{shown}/clients.pem', client_certificates: {how}}}"
    );
    let text = std::fs::read_to_string(&home.config).unwrap();
    let text = text.replace("tls: TLS", &format!("tls: {tls}")).replace("ingest: {", &format!("ingest: {{tls: {tls}, "));
    std::fs::write(&home.config, text).unwrap();
    Server::start_in(home)
}

pub(crate) fn connect(
    address: SocketAddr,
    trusts: &Authority,
    shows: Option<&Paper>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some(paper) => {
            let chain = vec![CertificateDer::from_pem_slice(paper.certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).unwrap()).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// One request on a connection that stays open.
pub(crate) fn ask(stream: &mut Tls, head: &str, headers: &[(String, String)], body: &str) -> std::io::Result<Reply> {
    let host = stream.sock.peer_addr()?;
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = headers.concat();
    write!(stream, "{head} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())?;
    let mut text = String::new();
    let mut chunk = [0; 8192];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.expect("an answer with a length") {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Ok(Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() });
            }
        }
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
}

fn call(stream: &mut Tls) -> std::io::Result<Reply> {
    ask(stream, "POST /mcp", &modern_headers("list_sources"), &modern("list_sources", &json!({})).to_string())
}

pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_certificate_is_a_principal_and_nobody_comes_in_without() {
    let (own, clients) = (authority("own"), authority("clients"));
    let server = start("optional", &own, &clients);
    let agent = clients.client("agent.example");
    for (offered, spoken) in [(&version::TLS13, ProtocolVersion::TLSv1_3), (&version::TLS12, ProtocolVersion::TLSv1_2)] {
        let mut stream = connect(server.mcp, &own, Some(&agent), &[offered]).unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(spoken));
        let reply = call(&mut stream).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        for header in [
            "strict-transport-security: max-age=31536000",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
            "x-frame-options: deny",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(reply.head.contains(header), "{header}: {}", reply.head);
        }
    }
    let record = server.home.audited(|r| r["kind"] == "call");
    assert_eq!((&record["principal"], &record["decision"]), (&json!("cert:agent"), &json!("allow")), "{record}");
    let refused = call(&mut connect(server.mcp, &own, None, BOTH).unwrap()).unwrap();
    assert_eq!(refused.status, 401, "{}", refused.body);
    server.home.audited(|r| r["kind"] == "authentication" && r["decision"] == "deny" && r["method"] == "authenticate");
    // The certificate verifies, and no rule knows it.
    let stranger = clients.client("stranger.example");
    assert!(matches!(call(&mut connect(server.mcp, &own, Some(&stranger), BOTH).unwrap()).unwrap().status, 401 | 403));
    // Another authority: there is not even a connection.
    let foreign = authority("foreign").client("agent.example");
    let turned_away = connect(server.mcp, &own, Some(&foreign), BOTH).and_then(|mut stream| call(&mut stream));
    assert!(turned_away.is_err());
    let handshake = |r: &serde_json::Value| r["method"] == "handshake" && r["rule"] == "client-certificate";
    eventually("the refused handshake is recorded", || server.home.audit().iter().any(handshake));
    let plain = post(server.mcp, "/mcp", &modern_headers("list_sources"), b"{}");
    assert!(plain.status == 400 && plain.body.contains("use https"), "{} {}", plain.status, plain.body);
    let json_headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    let mut sender = connect(server.otlp, &own, Some(&agent), BOTH).unwrap();
    let taken = ask(&mut sender, "POST /v1/logs", &json_headers, r#"{"resourceLogs":[]}"#).unwrap();
    assert_eq!(taken.status, 200, "{}", taken.body);
    let refused =
        connect(server.otlp, &own, Some(&foreign), BOTH).and_then(|mut s| ask(&mut s, "POST /v1/logs", &json_headers, "{}"));
    assert!(refused.is_err());
    let home = server.kill();
    assert!(intact(&home));
}

#[test]
fn where_certificates_are_required_there_is_no_connection_without() {
    let (own, clients) = (authority("own"), authority("clients"));
    let server = start("required", &own, &clients);
    let agent = clients.client("agent.example");
    assert_eq!(call(&mut connect(server.mcp, &own, Some(&agent), BOTH).unwrap()).unwrap().status, 200);
    assert!(connect(server.mcp, &own, None, BOTH).and_then(|mut stream| call(&mut stream)).is_err());
    let none =
        |r: &serde_json::Value| r["method"] == "handshake" && r["note"].as_str().is_some_and(|n| n.contains("none was shown"));
    eventually("the refusal is recorded", || server.home.audit().iter().any(none));
}

#[test]
fn a_renewed_certificate_is_taken_over_without_dropping_connections_and_a_bad_one_is_not() {
    let (own, next, clients) = (authority("own"), authority("next"), authority("clients"));
    let server = start("optional", &own, &clients);
    let agent = clients.client("agent.example");
    let mut standing = connect(server.mcp, &own, Some(&agent), BOTH).unwrap();
    assert_eq!(call(&mut standing).unwrap().status, 200);
    let directory = server.home.directory.path();
    private(&directory.join("server.pem"), "not a certificate");
    eventually("the bad file is named", || server.log().contains("listen.tls: the new files are not in force"));
    assert!(connect(server.mcp, &own, Some(&agent), BOTH).is_ok(), "the last good one stays in force");
    server.home.audited(|r| r["kind"] == "config" && r["method"] == "certificate.refused");
    // A client header arrives every few seconds, or the server would close the connection for being idle.
    assert_eq!(call(&mut standing).unwrap().status, 200);
    lay(directory, &next.server());
    eventually("the good file is in force", || server.log().contains("listen.tls: the new certificate is in force"));
    assert!(connect(server.mcp, &own, Some(&agent), BOTH).is_err(), "the old authority no longer vouches for it");
    assert_eq!(call(&mut connect(server.mcp, &next, Some(&agent), BOTH).unwrap()).unwrap().status, 200);
    assert_eq!(call(&mut standing).unwrap().status, 200, "the old connection goes on");
    server.home.audited(|r| r["kind"] == "config" && r["method"] == "certificate.replaced");
}

#[test]
fn clear_text_beyond_this_machine_and_broken_certificates_stop_the_start() {
    for (extra, words) in [
        ("listen: {mcp: '0.0.0.0:0'}\n", "listen.plaintext to i-terminate-tls-elsewhere"),
        (
            "listen: {mcp: 'MCP_ADDRESS', tls: {certificate: /nowhere/a.pem, key: /nowhere/a.key}}\n",
            "listen.tls: /nowhere/a.pem: cannot be read",
        ),
        ("listen: {mcp: 'MCP_ADDRESS', tls: {certificate: a, key: b, minimum_version: 1.1}}\n", "write 1.2 or 1.3"),
    ] {
        let output = Home::new(extra).run(&["serve"]);
        let text = String::from_utf8_lossy(&output.stderr).replace(": \n", ": ");
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!output.status.success() && flat.contains(words), "{words}: {flat}");
    }
}

#[test]
fn an_allowed_page_is_let_through_and_others_are_not() {
    let server = Server::start("listen: {mcp: 'MCP_ADDRESS', allowed_origins: ['https://app.example.org']}\n");
    let headers = |page: &str| {
        let mut headers = modern_headers("list_sources");
        headers.push(("Origin".into(), page.into()));
        headers
    };
    let allowed = post(server.mcp, "/mcp", &headers("https://app.example.org"), b"{}");
    let head = allowed.head.to_ascii_lowercase();
    assert_eq!(allowed.status, 401, "a page still needs a credential");
    assert!(head.contains("access-control-allow-origin: https://app.example.org\r\n"), "{head}");
    assert!(head.contains("access-control-expose-headers: mcp-session-id") && head.contains("vary: origin"), "{head}");
    assert!(!head.contains("strict-transport-security"), "{head}");
    let refused = post(server.mcp, "/mcp", &headers("https://evil.example"), b"{}");
    assert!(refused.status == 403 && !refused.head.to_ascii_lowercase().contains("access-control"), "{}", refused.head);
}

#[test]
fn ten_thousand_clients_of_the_older_eras_are_bounded_in_memory() {
    const KEYS: usize = 11;
    const CLIENTS_PER_KEY: usize = 910;
    let listen = "listen: {mcp: 'MCP_ADDRESS'}\n";
    let limits = "limits: {address: {per_second: 100000, burst: 100000}, calls_per_second: 100000, burst: 100000, \
                  tenant: {calls_per_second: 100000, burst: 100000}, global: {per_second: 100000, burst: 100000}}\n";
    let server = Server::start(&format!("{listen}{limits}"));
    let keys: Vec<String> = (0..KEYS).map(|_| server.home.key(&["--role", "reader"])).collect();
    std::thread::sleep(Duration::from_millis(900));
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
        "capabilities": {}, "clientInfo": {"name": "idle", "version": "1"}}})
    .to_string();
    let knock = |key: &str| {
        let headers = [
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json, text/event-stream".to_owned()),
            ("Authorization", format!("Bearer {key}")),
        ];
        post(server.mcp, "/mcp", &headers.map(|(name, value)| (name.to_owned(), value)), open.as_bytes()).status
    };
    assert_eq!(knock(&keys[0]), 200);
    let before = server.resident();
    let (mut opened, mut refused) = (1_usize, 0_usize);
    for key in &keys {
        for _ in 0..CLIENTS_PER_KEY {
            match knock(key) {
                200 => opened += 1,
                429 => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    let grown = server.resident().saturating_sub(before);
    println!(
        "{} clients: {opened} sessions, {refused} refused, {:.1} MiB more resident, {} bytes per session",
        opened + refused,
        grown as f64 / f64::from(1 << 20),
        grown / opened as u64
    );
    assert!(opened + refused > 10_000 && refused > 0);
    assert_eq!(opened, 1_000, "listen.max_sessions");
    assert!(grown <= 100_000_000, "{grown} bytes for {opened} sessions");
}

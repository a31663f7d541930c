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

/// A client of an older era on a connection of its own.
struct Idle(tokio::net::TcpStream);

impl Idle {
    /// Connects from `from`, opens the conversation and lists the tools, as a client that declares nothing does.
    async fn arrive(server: SocketAddr, from: std::net::Ipv4Addr, key: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut client = Self(socket.connect(server).await.unwrap());
        let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
            "capabilities": {}, "clientInfo": {"name": "idle", "version": "1"}}});
        let (head, body) = client.say(server, key, &open).await;
        assert!(head.starts_with("HTTP/1.1 200") && !head.to_ascii_lowercase().contains("mcp-session-id"), "{head}");
        assert!(body.contains("\"protocolVersion\":\"2025-11-25\""), "{body}");
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert!(client.say(server, key, &ready).await.0.starts_with("HTTP/1.1 202"));
        client.list(server, key).await;
        client
    }

    async fn list(&mut self, server: SocketAddr, key: &str) {
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}});
        let (head, body) = self.say(server, key, &list).await;
        assert!(head.starts_with("HTTP/1.1 200") && body.contains("\"list_sources\""), "{head} {body}");
    }

    async fn say(&mut self, server: SocketAddr, key: &str, message: &serde_json::Value) -> (String, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let message = message.to_string();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\
             Authorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{message}",
            message.len()
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length) {
                    return (head.to_owned(), body.to_owned());
                }
            }
            let read =
                tokio::time::timeout(Duration::from_mins(1), self.0.read_buf(&mut answer)).await.expect("an answer").unwrap();
            assert!(read > 0, "the server hung up: {}", String::from_utf8_lossy(&answer));
        }
    }
}

/// Allows this process and the server to have so many files open, as far as the system lets them.
fn open_files(server: &Server, wanted: usize) -> usize {
    let limits = |of: &str| std::fs::read_to_string(format!("/proc/{of}/limits")).unwrap();
    let line = limits("self");
    let line = line.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).unwrap().parse().unwrap_or(usize::MAX);
    let allowed = wanted.min(hard);
    for process in [std::process::id(), server.child.id()] {
        let arguments = ["--pid".to_owned(), process.to_string(), format!("--nofile={allowed}:")];
        assert!(std::process::Command::new("prlimit").args(arguments).status().unwrap().success());
    }
    allowed
}

#[test]
fn ten_thousand_clients_of_the_older_eras_are_bounded_in_memory() {
    const CLIENTS: usize = 10_000;
    const AT_ONCE: usize = 64;
    // Files this process and the server need beside the connections.
    const OTHER_FILES: usize = 500;
    let limits = "limits: {address: {per_second: 100000, burst: 100000}, calls_per_second: 100000, burst: 100000, \
                  tenant: {calls_per_second: 100000, burst: 100000}, global: {per_second: 100000, burst: 100000}}\n";
    let server = Server::start(&format!("listen: {{mcp: 'MCP_ADDRESS', max_connections: 12000, header_time: 10m}}\n{limits}"));
    let clients = CLIENTS.min(open_files(&server, CLIENTS + OTHER_FILES) - OTHER_FILES);
    let keys: Vec<String> = (0..10).map(|_| server.home.key(&["--role", "reader"])).collect();
    eventually("the keys are known", || keys.iter().all(|key| server.call(Some(key), "list_sources", &json!({})).status == 200));
    let before = server.resident();
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut connected, grown) = runtime.block_on(async {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let arriving: Vec<_> = (0..clients)
            .map(|index| {
                let (places, address, key) = (places.clone(), server.mcp, keys[index % keys.len()].clone());
                let from = std::net::Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(index % 8).unwrap());
                tokio::spawn(async move {
                    let _place = places.acquire().await.unwrap();
                    Idle::arrive(address, from, &key).await
                })
            })
            .collect();
        let mut connected = Vec::with_capacity(clients);
        for client in arriving {
            connected.push(client.await.unwrap());
        }
        // All are connected now; some of the first and of the last ask again on the connections they have.
        let grown = server.resident().saturating_sub(before);
        let last = connected.len() - 1;
        for index in [0, 1, last / 2, last - 1, last] {
            connected[index].list(server.mcp, &keys[index % keys.len()]).await;
        }
        (connected, grown)
    });
    println!(
        "{} clients connected after {:.1?}: {:.1} MB more resident, {} bytes each",
        connected.len(),
        began.elapsed(),
        grown as f64 / 1e6,
        grown / connected.len() as u64
    );
    assert_eq!(connected.len(), clients);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(open >= clients, "{open} files are open for {clients} connections");
    assert!(grown <= 100_000_000, "{grown} bytes for {clients} clients");
    let _enter = runtime.enter();
    connected.clear();
}

#[test]
fn real_sessions_are_bounded_per_principal_and_in_all() {
    let limits = "limits: {address: {per_second: 100000, burst: 100000}, calls_per_second: 100000, burst: 100000}\n";
    let listen = "listen: {mcp: 'MCP_ADDRESS', max_sessions: 50, max_sessions_per_principal: 20}\n";
    let server = Server::start(&format!("{listen}{limits}"));
    let keys: Vec<String> = (0..4).map(|_| server.home.key(&["--role", "reader"])).collect();
    eventually("the keys are known", || keys.iter().all(|key| server.call(Some(key), "list_sources", &json!({})).status == 200));
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
        "capabilities": {"roots": {}}, "clientInfo": {"name": "idle", "version": "1"}}})
    .to_string();
    let knock = |key: &str| {
        let headers = [
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json, text/event-stream".to_owned()),
            ("Authorization", format!("Bearer {key}")),
        ];
        post(server.mcp, "/mcp", &headers.map(|(name, value)| (name.to_owned(), value)), open.as_bytes()).status
    };
    // All at the same time: a bound that is looked at first and filled later would let more in.
    let opened: Vec<usize> = keys
        .iter()
        .map(|key| {
            std::thread::scope(|scope| {
                let knocking: Vec<_> = (0..30).map(|_| scope.spawn(|| knock(key))).collect();
                let statuses = knocking.into_iter().map(|thread| thread.join().unwrap());
                statuses
                    .inspect(|status| assert!(matches!(status, 200 | 429), "{status}"))
                    .filter(|status| *status == 200)
                    .count()
            })
        })
        .collect();
    assert_eq!(opened, [20, 20, 10, 0]);
    server.home.audited(|r| r["rule"] == "session-limit" && r["decision"] == "deny");
}

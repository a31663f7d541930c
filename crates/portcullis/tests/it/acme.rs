//! Certificates from a real ACME server (pebble, strict) by the real binary: ordered by both kinds of proof, kept, renewed
//! under a standing connection, and refused in every way an authority can fail.
//!
//! Skips with a message where pebble is not installed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::{Home, Reply, Server, free_port, intact, modern, modern_headers, post, read_reply};
use crate::wire::{Authority, ask, authority, private};

const PEBBLE: &str = "/usr/bin/pebble";
const DNS: &str = "/usr/bin/pebble-challtestsrv";
const DOMAIN: &str = "mcp.portcullis.example";

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A child process that ends with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let errors = log.try_clone().unwrap();
        Self(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ACME server with its own name server, on loopback, and where it looks for proofs.
struct Pebble {
    directory: tempfile::TempDir,
    own: Authority,
    api: SocketAddr,
    management: SocketAddr,
    names: SocketAddr,
    tls: SocketAddr,
    http: SocketAddr,
    more: Value,
    running: Vec<Process>,
}

impl Pebble {
    /// Nothing runs yet. `more` goes into its configuration.
    fn new(more: Value) -> Option<Self> {
        if !Path::new(PEBBLE).exists() || !Path::new(DNS).exists() {
            crate::server::skipped(&format!("{PEBBLE} is not installed"));
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let own = authority("pebble");
        private(&directory.path().join("ca.pem"), &own.pem);
        let paper = own.issue("127.0.0.1", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        private(&directory.path().join("api.pem"), &paper.certificate);
        private(&directory.path().join("api.key"), &paper.key);
        let [api, management, names, tls, http] = std::array::from_fn(|_| free_port());
        Some(Self { directory, own, api, management, names, tls, http, more, running: Vec::new() })
    }

    fn started(more: Value) -> Option<Self> {
        let mut pebble = Self::new(more)?;
        pebble.start();
        Some(pebble)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self) {
        let mut config = json!({
            "listenAddress": self.api.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": self.path("api.pem"),
            "privateKey": self.path("api.key"),
            "httpPort": self.http.port(),
            "tlsPort": self.tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        });
        config.as_object_mut().unwrap().extend(self.more.as_object().unwrap().clone());
        std::fs::write(self.path("pebble.json"), json!({ "pebble": config }).to_string()).unwrap();
        let log = self.path("log");
        let names = self.names.to_string();
        let mut dns = Command::new(DNS);
        let control = free_port().to_string();
        dns.args([
            "-management",
            &control,
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv6",
            "",
            "-dns01",
            &names,
        ]);
        self.running.push(Process::start(&mut dns, &log));
        let mut acme = Command::new(PEBBLE);
        acme.arg("-strict").arg("-config").arg(self.path("pebble.json")).args(["-dnsserver", &names]);
        acme.env("PEBBLE_VA_NOSLEEP", "1").current_dir(self.directory.path());
        self.running.push(Process::start(&mut acme, &log));
        let began = Instant::now();
        while [self.api, self.management, self.names].into_iter().any(|address| TcpStream::connect(address).is_err()) {
            let log = || std::fs::read_to_string(self.path("log")).unwrap();
            assert!(began.elapsed() < Duration::from_secs(20), "pebble does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.running.clear();
    }

    /// The root of the certificates it issues; another one after each start.
    fn root(&self) -> String {
        let mut stream = connect(self.management, "127.0.0.1", &self.own.pem, None).unwrap();
        write!(stream, "GET /roots/0 HTTP/1.0\r\nHost: {}\r\n\r\n", self.management).unwrap();
        let mut text = String::new();
        // It does not say goodbye.
        let _ = stream.read_to_string(&mut text);
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// A server that orders from here. `acme` replaces settings; `more` goes into the file.
    fn home(&self, acme: &Value, more: &str) -> Home {
        let mut settings = json!({
            "directory": format!("https://{}/dir", self.api),
            "domains": [DOMAIN],
            "terms_of_service_agreed": true,
            "directory_ca": self.path("ca.pem"),
            "allow_addresses": ["loopback"],
            "retry": {"first": "1s", "longest": "2s"},
        });
        settings.as_object_mut().unwrap().extend(acme.as_object().unwrap().clone());
        let mut home = Home::new(&format!(
            "listen: {{mcp: '{}', allowed_hosts: ['{DOMAIN}'], tls: {{acme: {settings}}}}}\n{more}",
            self.tls
        ));
        home.mcp = self.tls;
        home
    }
}

fn connect(address: SocketAddr, name: &str, roots: &str, alpn: Option<&[u8]>) -> std::io::Result<Tls> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn call(stream: &mut Tls, key: &str) -> std::io::Result<Reply> {
    let mut headers = modern_headers("list_sources");
    headers.push(("Authorization".into(), format!("Bearer {key}")));
    ask(stream, "POST /mcp", &headers, &modern("list_sources", &json!({})).to_string())
}

fn shown(stream: &Tls) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// Waits for a line of the log.
fn said(server: &Server, words: &str) {
    let began = Instant::now();
    while !server.log().contains(words) {
        assert!(began.elapsed() < Duration::from_mins(1), "no '{words}' in {}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The doctor's line about the certificate.
fn doctor(home: &Home) -> (String, String) {
    let output = home.run(&["doctor", "--json"]);
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = lines.as_array().unwrap().iter().find(|line| line["name"] == "acme").unwrap();
    (line["state"].as_str().unwrap().to_owned(), line["detail"].as_str().unwrap().to_owned())
}

fn is_failure(record: &Value) -> bool {
    record["kind"] == "charter" && record["method"] == "certificate.order-failed" && record["target"] == "listen.tls.acme"
}

fn is_issued(record: &Value) -> bool {
    record["kind"] == "charter" && record["method"] == "certificate.issued"
}

#[test]
fn a_certificate_is_ordered_inside_tls_and_a_restart_orders_none() {
    let Some(mut pebble) = Pebble::started(json!({})) else { return };
    let more = "";
    let home = pebble.home(&json!({"contact": ["ops@portcullis.example"]}), more);
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    said(&server, "listen.tls: the new certificate is in force");
    let root = pebble.root();
    let mut stream = connect(server.mcp, DOMAIN, &root, None).unwrap();
    assert_eq!(call(&mut stream, &key).unwrap().status, 200);
    assert!(connect(server.mcp, "other.portcullis.example", &root, None).is_err(), "it is for its name only");
    // The protocol of the proof is spoken while a proof is asked for, and never reaches HTTP.
    assert!(connect(server.mcp, DOMAIN, &root, Some(b"acme-tls/1")).is_err());
    let record = server.home.audited(is_issued);
    assert!(record["note"].as_str().unwrap().contains(DOMAIN), "{record}");
    let (state, detail) = doctor(&server.home);
    assert!(state == "on" && detail.contains("valid until 20") && detail.contains("next order: 20"), "{state} {detail}");
    for entry in std::fs::read_dir(server.home.data().join("acme")).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
    }
    let before = shown(&stream);
    let home = server.kill();
    assert!(intact(&home));
    pebble.stop();
    let again = Server::start_in(home);
    let mut stream = connect(again.mcp, DOMAIN, &root, None).unwrap();
    assert_eq!(call(&mut stream, &key).unwrap().status, 200);
    assert_eq!(shown(&stream), before);
    assert!(!again.log().contains("no certificate was issued"), "{}", again.log());
    assert_eq!(again.home.audit().iter().filter(|r| is_issued(r) || is_failure(r)).count(), 1, "nothing was ordered again");
}

#[test]
fn a_certificate_is_ordered_over_http_and_that_listener_serves_nothing_else() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let Some(pebble) = Pebble::started(json!({"externalAccountBindingRequired": true, "externalAccountMACKeys": {"kid-1": KEY}}))
    else {
        return;
    };
    private(&pebble.path("external.key"), KEY);
    let external = json!({"key_id": "kid-1", "key": format!("file:{}", pebble.path("external.key").display())});
    let acme =
        json!({"challenge": "http-01", "http": {"address": pebble.http, "redirect_port": 8443}, "external_account": external});
    let home = pebble.home(&acme, "");
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    said(&server, "listen.tls: the new certificate is in force");
    let mut stream = connect(server.mcp, DOMAIN, &pebble.root(), None).unwrap();
    assert_eq!(call(&mut stream, &key).unwrap().status, 200);
    let get = |path: &str, host: &str| {
        let mut stream = TcpStream::connect(pebble.http).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        read_reply(stream)
    };
    assert_eq!(get("/.well-known/acme-challenge/anything", DOMAIN).status, 404);
    let sent = get("/mcp?x=1", DOMAIN);
    let head = sent.head.to_ascii_lowercase();
    assert!(sent.status == 308 && head.contains(&format!("location: https://{DOMAIN}:8443/mcp?x=1\r\n")), "{head}");
    assert!(head.contains("x-content-type-options: nosniff") && !head.contains("strict-transport-security"), "{head}");
    for (path, host, status) in [("/", "evil.example", 403), ("/healthz", "127.0.0.1", 404), ("/metrics", "localhost", 404)] {
        assert_eq!(get(path, host).status, status, "{path} {host}");
    }
    let mut headers = modern_headers("list_sources");
    headers.extend([("Host".to_owned(), DOMAIN.to_owned()), ("Authorization".to_owned(), format!("Bearer {key}"))]);
    let refused = post(pebble.http, "/mcp", &headers, modern("list_sources", &json!({})).to_string().as_bytes());
    assert_eq!(refused.status, 404, "{}", refused.body);
    let mut endless = TcpStream::connect(pebble.http).unwrap();
    write!(endless, "GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nX: ").unwrap();
    let sent = (0..256).take_while(|_| endless.write_all(&[b'a'; 4096]).is_ok()).count();
    assert!(matches!(read_reply(endless).status, 0 | 431), "a head without end was taken");
    assert!(sent <= 256);
    server.home.audited(is_issued);
    let everything = format!("{}{:?}", server.log(), server.home.audit());
    assert!(!everything.contains(KEY), "the key of the external account is shown");
}

#[test]
fn a_wrong_external_account_is_refused_and_recorded() {
    let keys = json!({"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"});
    let Some(pebble) = Pebble::started(json!({"externalAccountBindingRequired": true, "externalAccountMACKeys": keys})) else {
        return;
    };
    let wrong = json!({"key_id": "kid-1", "key": "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"});
    for acme in [json!({"retry": {"first": "1h"}}), json!({"retry": {"first": "1h"}, "external_account": wrong})] {
        let server = Server::start_in(pebble.home(&acme, ""));
        said(&server, "no certificate was issued");
        let record = server.home.audited(is_failure);
        assert!(record["note"].as_str().unwrap().contains("the authority refuses the account"), "{record}");
        assert!(connect(server.mcp, DOMAIN, &pebble.own.pem, None).is_err());
    }
}

#[test]
fn a_renewal_drops_no_connection_and_a_failed_one_leaves_the_last_in_force() {
    let Some(mut pebble) = Pebble::started(json!({"certificateValidityPeriod": 60})) else { return };
    let home = pebble.home(&json!({"renew_before": "54s"}), "");
    let text = std::fs::read_to_string(&home.config).unwrap();
    std::fs::write(&home.config, text.replace("ingest: {", "ingest: {tls: {same_as_listen: true}, ")).unwrap();
    let key = home.key(&["--role", "reader"]);
    let server = Server::start_in(home);
    said(&server, "listen.tls: the new certificate is in force");
    let root = pebble.root();
    let mut standing = connect(server.mcp, DOMAIN, &root, None).unwrap();
    assert_eq!(call(&mut standing, &key).unwrap().status, 200);
    let first = shown(&standing);
    let renewed = |than: &[u8]| {
        let began = Instant::now();
        loop {
            let next = connect(server.mcp, DOMAIN, &root, None).unwrap();
            if shown(&next) != than {
                return shown(&next);
            }
            assert!(began.elapsed() < Duration::from_mins(1), "not renewed: {}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    renewed(&first);
    assert_eq!(call(&mut standing, &key).unwrap().status, 200, "the connection goes on");
    assert_eq!(shown(&standing), first);
    assert!(server.home.audit().iter().filter(|r| is_issued(r)).count() >= 2);
    server.home.audited(|r| r["kind"] == "config" && r["method"] == "certificate.replaced");
    assert!(connect(server.otlp, DOMAIN, &root, None).is_ok(), "the other listener has it as well");
    pebble.stop();
    said(&server, "no certificate was issued: the directory cannot be reached");
    server.home.audited(is_failure);
    let last = connect(server.mcp, DOMAIN, &root, None).expect("the last good one stays in force");
    let (state, detail) = doctor(&server.home);
    assert!(
        state == "attention" && detail.contains("the last order failed") && detail.contains("valid until"),
        "{state} {detail}"
    );
    // It comes back without memory, as another authority that does not know the account.
    pebble.start();
    let root = pebble.root();
    let began = Instant::now();
    while connect(server.mcp, DOMAIN, &root, None).is_err() {
        assert!(began.elapsed() < Duration::from_mins(1), "not renewed: {}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(server.log().contains("does not know the account"), "{}", server.log());
    drop(last);
    assert_eq!(call(&mut standing, &key).map_or(200, |reply| reply.status), 200);
}

#[test]
fn without_a_certificate_every_handshake_is_refused_until_the_directory_is_back() {
    let Some(mut pebble) = Pebble::new(json!({})) else { return };
    let server = Server::start_in(pebble.home(&json!({}), ""));
    said(&server, "there is no certificate yet: every handshake is refused");
    said(&server, "no certificate was issued: the directory cannot be reached");
    let refused = connect(server.mcp, DOMAIN, &pebble.own.pem, None).unwrap_err().to_string();
    assert!(refused.contains("AccessDenied"), "{refused}");
    let plain = post(server.mcp, "/mcp", &modern_headers("list_sources"), b"{}");
    assert!(plain.status == 400 && plain.body.contains("use https"), "{} {}", plain.status, plain.body);
    let record = server.home.audited(is_failure);
    assert!(record["note"].as_str().unwrap().contains("cannot be reached"), "{record}");
    let output = server.home.run(&["doctor"]);
    assert!(!output.status.success(), "the doctor calls it broken");
    let (state, detail) = doctor(&server.home);
    assert!(
        state == "broken" && detail.contains("there is no certificate yet") && detail.contains("the last order failed"),
        "{detail}"
    );
    pebble.start();
    said(&server, "listen.tls: the new certificate is in force");
    assert!(connect(server.mcp, DOMAIN, &pebble.root(), None).is_ok());
    assert!(intact(&server.kill()));
}

#[test]
fn a_directory_of_another_authority_is_not_spoken_to() {
    let Some(pebble) = Pebble::started(json!({})) else { return };
    private(&pebble.path("other.pem"), &authority("other").pem);
    for (acme, words) in [
        (json!({"directory_ca": pebble.path("other.pem")}), "cannot be reached"),
        (json!({"directory": format!("https://localhost:{}/dir", pebble.api.port())}), "cannot be reached"),
        (json!({"directory": format!("https://{}/nothing", pebble.api)}), "cannot be used"),
    ] {
        let server = Server::start_in(pebble.home(&acme, ""));
        said(&server, "no certificate was issued");
        let record = server.home.audited(is_failure);
        assert!(record["note"].as_str().unwrap().contains(words), "{words}: {record}");
        assert!(connect(server.mcp, DOMAIN, &pebble.own.pem, None).is_err());
        assert!(!server.home.data().join("acme/certificate.pem").exists());
    }
    assert!(!std::fs::read_to_string(pebble.path("log")).unwrap().contains("order-plz"), "nothing was ordered");
}

#[test]
fn a_refused_order_is_recorded_and_not_tried_again_before_its_time() {
    let Some(pebble) = Pebble::started(json!({"domainBlocklist": ["blocked.example"]})) else { return };
    // A name the authority never certifies; and one whose port leads elsewhere.
    let elsewhere = json!({"challenge": "http-01", "http": {"address": free_port()}, "retry": {"first": "1h"}});
    for (acme, words) in [
        (json!({"domains": ["www.blocked.example"], "retry": {"first": "1h"}}), "the authority refuses the order"),
        (elsewhere, "the authority could not see that mcp.portcullis.example leads here (http-01)"),
    ] {
        let server = Server::start_in(pebble.home(&acme, ""));
        said(&server, "no certificate was issued");
        let record = server.home.audited(is_failure);
        assert!(record["note"].as_str().unwrap().contains(words), "{words}: {record}");
        let (state, detail) = doctor(&server.home);
        assert!(state == "broken" && detail.contains(words) && detail.contains("next order: 20"), "{state} {detail}");
        // A crash is no way round the pause.
        let again = Server::start_in(server.kill());
        said(&again, "there is no certificate yet");
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(again.home.audit().iter().filter(|r| is_failure(r)).count(), 1);
        assert!(!again.log().contains("no certificate was issued"), "{}", again.log());
    }
}

#[test]
fn settings_that_cannot_work_stop_the_start() {
    let acme = json!({"directory": "https://127.0.0.1:1/dir", "domains": [DOMAIN], "terms_of_service_agreed": true, "allow_addresses": ["loopback"]});
    let with = |key: &str, value: Value| {
        let mut acme = acme.clone();
        acme[key] = value;
        json!({ "acme": acme })
    };
    for (tls, words) in [
        (with("terms_of_service_agreed", json!(false)), "terms_of_service_agreed must be true"),
        (with("directory", json!("http://127.0.0.1/dir")), "directory must be an https URL"),
        (with("directory", json!("https://user@127.0.0.1/dir")), "holds credentials"),
        (with("allow_addresses", json!([])), "list it in allow_addresses"),
        (with("allow_addresses", json!(["everything"])), "is not an address range"),
        (with("domains", json!(["*.portcullis.example"])), "needs a DNS challenge"),
        (with("challenge", json!("dns-01")), "dns-01"),
        (with("directory_ca", json!("/nowhere/ca.pem")), "cannot read /nowhere/ca.pem"),
        (with("external_account", json!({"key_id": "k", "key": "secret:nowhere"})), "external_account.key"),
        (with("renew_before", json!(2)), "write a time such as 30d"),
        (json!({"acme": acme, "certificate": "a", "key": "b"}), "comes from two places"),
        (json!({"same_as_listen": true}), "same_as_listen belongs into ingest.tls"),
    ] {
        let home = Home::new(&format!("listen: {{mcp: 'MCP_ADDRESS', tls: {tls}}}\n"));
        for command in [&["config", "check"][..], &["serve"]] {
            let output = home.run(command);
            let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(!output.status.success() && text.contains(words), "{command:?} {words}: {text}");
        }
    }
}

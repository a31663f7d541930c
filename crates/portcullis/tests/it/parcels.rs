//! What tests about the sources of plugins need: an author with packages, a web server on loopback inside TLS, and the
//! packaged `docker-registry`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_plugins::{Manifest, Package};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::{Home, free_port, skipped};
use crate::wire::{Authority, authority, private};

/// The first bytes of every component; enough for a package that is installed and not started.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and nothing more";
const REGISTRY: &str = "/usr/bin/docker-registry";

/// An author with a key and a folder.
#[derive(Clone)]
pub(crate) struct Author {
    pub folder: PathBuf,
    pub key: PathBuf,
    pub public: String,
    pub id: String,
}

impl Author {
    pub(crate) fn new(home: &Home, name: &str) -> Self {
        let folder = home.directory.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let key = folder.join("signing.pem");
        let made: Value = json_of(home, &["plugin", "keys", "new", &text(&key), "--json"]);
        let field = |name: &str| made[name].as_str().unwrap().to_owned();
        Self { public: field("public_key"), id: field("key"), folder, key }
    }

    /// Packs and signs a version of `name`; gives the package and its digest.
    pub(crate) fn release(&self, home: &Home, name: &str, version: &str) -> (PathBuf, String) {
        self.release_of(home, name, version, COMPONENT)
    }

    /// The same with these bytes for a component.
    pub(crate) fn release_of(&self, home: &Home, name: &str, version: &str, component: &[u8]) -> (PathBuf, String) {
        let manifest = format!(
            "{{schema: 1, name: {name}, version: {version}, host: ^1.0, summary: Answers {name}, licence: MIT, \
             homepage: 'https://example.org', tools: [{{name: {name}_do, risk: read}}]}}"
        );
        let manifest = Manifest::from_yaml(&manifest).unwrap();
        let bytes = Package::write(&manifest, component, "# Sample\n", b"{}").unwrap();
        let path = self.folder.join(format!("{name}-{version}.plugin"));
        std::fs::write(&path, bytes).unwrap();
        let signed = json_of(home, &["plugin", "sign", &text(&path), "--key", &text(&self.key), "--json"]);
        (path, signed["digest"].as_str().unwrap().to_owned())
    }

    /// Packs a component that runs under this manifest, as an author does, and signs it; gives the package.
    pub(crate) fn pack(&self, home: &Home, component: &Path, manifest: &str) -> String {
        std::fs::write(self.folder.join("plugin.yaml"), manifest).unwrap();
        std::fs::write(self.folder.join("README.md"), "# Plugin\n").unwrap();
        let packed = json_of(home, &["plugin", "pack", &text(&self.folder), "--component", &text(component), "--json"]);
        let package = packed["package"].as_str().unwrap().to_owned();
        home.run_ok(&["plugin", "sign", &package, "--key", &text(&self.key)]);
        package
    }

    pub(crate) fn trusted(&self, home: &Home, more: &[&str]) {
        home.run_ok(&[&["plugin", "keys", "add", &self.public, "--owner", "A stranger"], more].concat());
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs the binary and reads what it prints.
pub(crate) fn json_of(home: &Home, arguments: &[&str]) -> Value {
    let said = home.run_ok(arguments);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Runs the binary, which must refuse; gives its words.
pub(crate) fn refusal(home: &Home, arguments: &[&str]) -> String {
    let output = home.run(arguments);
    assert!(!output.status.success(), "{arguments:?} went well: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A refusal of the binary that is in the audit log, with the same words.
pub(crate) fn recorded_refusal(home: &Home, arguments: &[&str], method: &str, words: &str) -> String {
    let before = denied(home, method);
    let said = refusal(home, arguments);
    assert!(said.contains(words), "{arguments:?} is refused for another reason: {said}");
    assert_eq!(denied(home, method), before + 1, "{arguments:?} is refused and not recorded");
    home.audited(|r| r["method"] == method && r["decision"] == "deny" && r["note"].to_string().contains(words));
    said
}

fn denied(home: &Home, method: &str) -> usize {
    home.audit().iter().filter(|r| r["method"] == method && r["decision"] == "deny").count()
}

/// What is installed, as `name version`.
pub(crate) fn installed(home: &Home) -> Vec<String> {
    let listed = json_of(home, &["plugin", "list", "--json"]);
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(|e| format!("{} {}", word(e, "name"), word(e, "version"))).collect()
}

/// An answer of the web server.
#[derive(Clone)]
pub(crate) struct Page {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Says how long it is before it comes.
    pub announced: bool,
}

impl Page {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), announced: true }
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self { status: 302, headers: vec![("Location".into(), to.into())], ..Self::new("") }
    }

    pub(crate) fn status(status: u16, header: &str, value: impl Into<String>) -> Self {
        Self { status, headers: vec![(header.to_owned(), value.into())], ..Self::new("") }
    }
}

type Respond = dyn Fn(&str) -> Option<Page> + Send + Sync;

/// A web server on loopback that gives pages by path, and remembers the heads of requests.
pub(crate) struct Web {
    pub url: String,
    pub pages: Arc<Mutex<BTreeMap<String, Page>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// Inside TLS, by a certificate of `own`.
    pub(crate) fn encrypted(own: &Authority) -> Self {
        Self::answering(Some(own), |_| None)
    }

    /// In clear text.
    pub(crate) fn plain() -> Self {
        Self::answering(None, |_| None)
    }

    /// `respond` gets the head of a request and goes before the pages.
    pub(crate) fn answering(own: Option<&Authority>, respond: impl Fn(&str) -> Option<Page> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if own.is_some() { "https" } else { "http" };
        let tls = own.map(|own| {
            let paper = own.issue("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
            let chain = vec![CertificateDer::from_pem_slice(paper.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).unwrap();
            let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
        });
        let web = Self { url: format!("{scheme}://{address}"), pages: Arc::default(), seen: Arc::default() };
        let (pages, seen, respond): (_, _, Arc<Respond>) = (web.pages.clone(), web.seen.clone(), Arc::new(respond));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, seen, respond, tls) = (pages.clone(), seen.clone(), respond.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &pages, &seen, &*respond),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(connection, stream), &pages, &seen, &*respond);
                    }
                });
            }
        });
        web
    }

    pub(crate) fn put(&self, path: &str, page: Page) -> String {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("{}{path}", self.url)
    }

    /// A package and its signature.
    pub(crate) fn publish(&self, path: &str, package: &Path) -> String {
        let signature = PathBuf::from(format!("{}.sig", package.display()));
        self.put(&format!("{path}.sig"), Page::new(std::fs::read(signature).unwrap()));
        self.put(path, Page::new(std::fs::read(package).unwrap()))
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: impl std::io::Read + std::io::Write,
    pages: &Mutex<BTreeMap<String, Page>>,
    seen: &Mutex<Vec<String>>,
    respond: &Respond,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) if head.len() < 65_536 => head.push(byte[0]),
            // A client that does not like the certificate hangs up.
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    // What is sent is read before it is answered: closing over unread bytes resets the connection.
    let length =
        head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut left: u64 = length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or_default();
    let mut sent = [0; 4 << 10];
    while left > 0 {
        match stream.read(&mut sent) {
            Ok(read) if read > 0 => left = left.saturating_sub(read as u64),
            _ => return,
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head.clone());
    let known = || pages.lock().unwrap().get(path.split('?').next().unwrap_or_default()).cloned();
    let page = respond(&head).or_else(known).unwrap_or_else(|| Page { status: 404, ..Page::new("no such page") });
    let mut answer = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", page.status);
    for (name, value) in &page.headers {
        write!(answer, "{name}: {value}\r\n").unwrap();
    }
    if page.announced && !page.headers.iter().any(|(name, _)| name == "Content-Length") {
        write!(answer, "Content-Length: {}\r\n", page.body.len()).unwrap();
    }
    answer.push_str("\r\n");
    // Who hung up does not want the answer.
    let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&page.body)).and_then(|()| stream.flush());
}

/// The packaged registry, with a directory of its own.
pub(crate) struct Registry {
    pub authority: String,
    pub directory: tempfile::TempDir,
    child: Child,
}

impl Registry {
    /// `auth` is the section of that name in its configuration, with `HERE` for its directory. `None` where it is not
    /// installed.
    pub(crate) fn start(encrypted: bool, auth: &str, files: &[(&str, &str)]) -> Option<Self> {
        if !Path::new(REGISTRY).exists() {
            skipped(&format!("{REGISTRY} is not installed"));
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display().to_string();
        let own = authority("registry");
        let paper = own.issue("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
        private(&directory.path().join("server.pem"), &paper.certificate);
        private(&directory.path().join("server.key"), &paper.key);
        private(&directory.path().join("ca.pem"), &own.pem);
        for (name, content) in files {
            private(&directory.path().join(name), content);
        }
        let address = free_port();
        let tls = if encrypted { ", tls: {certificate: 'HERE/server.pem', key: 'HERE/server.key'}" } else { "" };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: 'HERE/store'}}}}\n\
             http: {{addr: '{address}', secret: of-the-tests{tls}}}\n{auth}\n"
        );
        std::fs::write(directory.path().join("config.yml"), config.replace("HERE", &here)).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(REGISTRY)
            .args(["serve", &format!("{here}/config.yml")])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self { authority: address.to_string(), directory, child };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || std::fs::read_to_string(registry.directory.path().join("log")).unwrap();
            assert!(registry.child.try_wait().unwrap().is_none(), "the registry ended: {}", log());
            assert!(began.elapsed() < Duration::from_secs(30), "the registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.authority)
    }

    pub(crate) fn ca(&self) -> String {
        text(&self.directory.path().join("ca.pem"))
    }

    /// The file in which it keeps the manifest of a tag.
    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> PathBuf {
        let link = format!("store/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
        self.blob(std::fs::read_to_string(self.directory.path().join(link)).unwrap().trim())
    }

    /// The file in which it keeps a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.directory.path().join(format!("store/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

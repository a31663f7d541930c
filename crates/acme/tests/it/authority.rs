//! An authority that says what a test tells it to, and remembers what it was asked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use portcullis_acme::{Answers, Happening, Keeper};
use portcullis_config::AcmeSettings;
use portcullis_egress::LiteralSecrets;
use portcullis_model::{Clock as _, SystemClock};
use portcullis_policy::{Policies, Vocabulary};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;

/// Status, further headers, body.
pub(crate) type Said = (u16, String, String);
/// What is said to a path; nothing is silence.
pub(crate) type Script = dyn Fn(&str, &str) -> Option<Said> + Send + Sync;

pub(crate) struct Authority {
    pub data: tempfile::TempDir,
    pub url: String,
    ca: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

#[allow(clippy::unnecessary_wraps, reason = "what a path is answered with is optional")]
pub(crate) fn said(status: u16, body: &Value) -> Option<Said> {
    Some((status, String::new(), body.to_string()))
}

/// What an authority that means well says to the first requests.
pub(crate) fn polite(own: &str, path: &str) -> Option<Said> {
    let at = |path: &str| format!("{own}{path}");
    match path {
        "/dir" => said(200, &json!({"newNonce": at("/nonce"), "newAccount": at("/account"), "newOrder": at("/order")})),
        "/nonce" => Some((200, String::new(), String::new())),
        "/account" => Some((201, format!("Location: {}\r\n", at("/account/1")), json!({"status": "valid"}).to_string())),
        "/order" => Some((201, format!("Location: {}\r\n", at("/order/1")), order(own, "pending").to_string())),
        "/order/1" => said(200, &order(own, "ready")),
        "/proof/1" => said(200, &proof(own, "pending", "mcp.example", "token-1")),
        "/challenge/1" => {
            said(200, &json!({"type": "tls-alpn-01", "url": at("/challenge/1"), "token": "token-1", "status": "processing"}))
        }
        _ => said(404, &json!({"type": "about:blank", "detail": "nothing here"})),
    }
}

pub(crate) fn order(own: &str, status: &str) -> Value {
    json!({"status": status, "authorizations": [format!("{own}/proof/1")], "finalize": format!("{own}/finalize"), "certificate": format!("{own}/certificate")})
}

pub(crate) fn proof(own: &str, status: &str, name: &str, token: &str) -> Value {
    let challenge = json!({"type": "tls-alpn-01", "url": format!("{own}/challenge/1"), "token": token, "status": "pending"});
    json!({"identifier": {"type": "dns", "value": name}, "status": status, "challenges": [challenge]})
}

impl Authority {
    pub(crate) async fn start(script: impl Fn(&str, &str, &str) -> Option<Said> + Send + Sync + 'static) -> Self {
        let data = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let ca = data.path().join("ca.pem");
        std::fs::write(&ca, certificate.pem()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (own, remembered) = (url.clone(), asked.clone());
        let script: Arc<Script> = Arc::new(move |path, body| script(&own, path, body));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, script, remembered) = (acceptor.clone(), script.clone(), remembered.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    while let Some((path, body)) = request(&mut stream).await {
                        remembered.lock().unwrap().push(path.clone());
                        let Some((status, headers, body)) = script(&path, &body) else { return std::future::pending().await };
                        let head = format!(
                            "HTTP/1.1 {status} x\r\nReplay-Nonce: n-1\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
                            body.len()
                        );
                        // Who hung up does not want the answer.
                        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                    }
                });
            }
        });
        Self { data, url, ca, asked }
    }

    pub(crate) fn settings(&self) -> AcmeSettings {
        let value = json!({"directory": format!("{}/dir", self.url), "domains": ["mcp.example"], "terms_of_service_agreed": true,
            "directory_ca": self.ca, "allow_addresses": ["loopback"]});
        serde_json::from_value(value).unwrap()
    }

    pub(crate) fn keeper(&self) -> Keeper {
        let policies = Policies::load(&[], &Vocabulary::default(), 1).unwrap();
        let clock = Arc::new(SystemClock);
        Keeper::new(&self.settings(), self.data.path(), &LiteralSecrets, clock, |grant| policies.charter(grant)).unwrap()
    }

    /// Runs until something happened.
    pub(crate) async fn once(&self) -> Happening {
        let (keeper, answers, stop) = (self.keeper(), Answers::new(&self.settings()), CancellationToken::new());
        let happened = Mutex::new(None);
        let tell = |happening| {
            happened.lock().unwrap().get_or_insert(happening);
            stop.cancel();
        };
        keeper.run(&answers, tell, &stop).await;
        happened.into_inner().unwrap().unwrap()
    }

    /// Why the order failed, and in how many seconds the next may be made.
    pub(crate) async fn failure(&self) -> (String, u64) {
        match self.once().await {
            Happening::Failed { error, next } => (error.to_string(), next.since(SystemClock.now()).as_secs()),
            other => panic!("{other:?}"),
        }
    }

    /// The paths that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The path and body of one request.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()));
            }
        }
        match stream.read(&mut chunk).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

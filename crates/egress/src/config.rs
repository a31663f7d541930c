//! What a client is made of, and the making. Guards what the operator configured: bad URLs, headers, certificates and
//! closed addresses are found when the client is built, not at the first request.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use portcullis_model::Secret;
use reqwest::Url;

use crate::origin::{InvalidBaseUrl, parse_base};
use crate::request::checked_header;
use crate::resolver::{CheckedResolver, Lookup};
use crate::{AddressClass, AddressPolicy, Authentication};

/// Rights of every user of this machine; a private key gives them none.
const OPEN_TO_OTHERS: u32 = 0o007;

/// TLS of a client. TLS 1.2 is the least that is spoken; certificates are always verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// Certificate authorities to trust instead of the system's, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// The same from a file.
    pub ca_pem_file: Option<PathBuf>,
    /// Client certificate (chain) as PEM.
    pub client_certificate_pem: Option<Vec<u8>>,
    /// The same from a file.
    pub client_certificate_file: Option<PathBuf>,
    /// Private key of the client certificate as PEM.
    pub client_key_pem: Option<Secret>,
    /// The same from a file.
    pub client_key_file: Option<PathBuf>,
    /// Speak TLS 1.3 only.
    pub only_tls_13: bool,
}

/// Everything one client is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressConfig {
    /// Name of the source, as it appears in errors.
    pub name: String,
    /// `http://host:port/path` or `https://…`, without credentials.
    pub base_url: String,
    /// Credential.
    pub authentication: Authentication,
    /// Headers sent with every request, such as `X-Scope-OrgID`; never credentials.
    pub headers: Vec<(String, String)>,
    /// TLS.
    pub tls: TlsOptions,
    /// Addresses that may be connected to.
    pub addresses: AddressPolicy,
    /// Longest time to connect, TLS handshake and name lookup included.
    pub connect_timeout: Duration,
    /// Longest silence of the backend.
    pub read_timeout: Duration,
    /// Largest body after decompression; a permit's budget can lower it.
    pub max_response_bytes: u64,
    /// Requests at once; more wait for their turn.
    pub concurrency: usize,
    /// Consecutive failures that open the circuit; 0 never opens it.
    pub breaker_failures: u32,
    /// How long an open circuit rests before one request tries again.
    pub breaker_rest: Duration,
}

impl EgressConfig {
    /// A client without credentials and with the default limits: connect 5 s, silence 30 s, 32 MiB, 32 at once, circuit
    /// open for 10 s after 5 failures, public addresses only.
    pub fn new(name: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            base_url: base_url.into(),
            authentication: Authentication::None,
            headers: Vec::new(),
            tls: TlsOptions::default(),
            addresses: AddressPolicy::default(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            max_response_bytes: 32 << 20,
            concurrency: 32,
            breaker_failures: 5,
            breaker_rest: Duration::from_secs(10),
        }
    }
}

/// A client that cannot be built. For the operator to fix; names the source and the setting.
#[derive(Debug, thiserror::Error)]
pub enum EgressConfigError {
    /// The base URL.
    #[error("source '{name}': {error}")]
    BaseUrl {
        /// The source.
        name: String,
        /// What is wrong.
        #[source]
        error: InvalidBaseUrl,
    },
    /// The base URL names an address that is not open for this source.
    #[error(
        "source '{name}': {address} is a {} address; {}",
        class.as_str(),
        if class.is_never_allowed() { "such addresses are never reached" } else { "list it in allow_addresses if this source lives there" }
    )]
    Address {
        /// The source.
        name: String,
        /// The address.
        address: IpAddr,
        /// What it is.
        class: AddressClass,
    },
    /// A header, credential or limit.
    #[error("source '{name}': {reason}")]
    Setting {
        /// The source.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A private key that every user of this machine may read.
    #[error(
        "source '{name}': the private key {path} is readable by every user of this machine (mode {mode:03o}); run chmod o-rwx {path}"
    )]
    OpenKey {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A certificate or key file cannot be read.
    #[error("source '{name}': cannot read {path}: {error}")]
    File {
        /// The source.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

/// The parts of a built client.
#[expect(clippy::disallowed_types, reason = "this crate is the one that owns HTTP clients")]
pub(crate) struct Built {
    pub(crate) base: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) http: reqwest::Client,
}

impl EgressConfig {
    pub(crate) fn build(&self, lookup: Arc<dyn Lookup>) -> Result<Built, EgressConfigError> {
        let base = parse_base(&self.base_url).map_err(|error| EgressConfigError::BaseUrl { name: self.name.clone(), error })?;
        self.check_literal(&base)?;
        if self.concurrency == 0 || self.max_response_bytes == 0 || self.connect_timeout.is_zero() || self.read_timeout.is_zero()
        {
            return Err(self.wrong("limits and timeouts must be above zero"));
        }
        self.authentication.check().map_err(|reason| self.wrong(reason))?;
        let headers = self.all_headers()?;
        let http = self.http_client(base.scheme() == "https", lookup)?;
        Ok(Built { base, headers, http })
    }

    /// What works and is dangerous all the same, for the operator to read at start-up: a credential that travels in clear
    /// text to another machine.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings_with(self.authentication != Authentication::None)
    }

    /// The same where the credential has not been looked up yet: `credential` says whether there is one.
    pub fn warnings_with(&self, credential: bool) -> Vec<String> {
        let Ok(base) = parse_base(&self.base_url) else { return Vec::new() };
        let host = base.host_str().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if base.scheme() == "https" || here || !credential {
            return Vec::new();
        }
        vec![format!(
            "source '{}': its credential is sent in clear text to {host}, where everybody on the way can read it; write https://",
            self.name
        )]
    }

    fn wrong(&self, reason: impl Into<String>) -> EgressConfigError {
        EgressConfigError::Setting { name: self.name.clone(), reason: reason.into() }
    }

    /// A URL with an address never asks the resolver, so the address is checked here.
    fn check_literal(&self, base: &Url) -> Result<(), EgressConfigError> {
        let host = base.host_str().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => self.addresses.check(address).map_err(|class| EgressConfigError::Address {
                name: self.name.clone(),
                address,
                class,
            }),
            Err(_) => Ok(()),
        }
    }

    fn all_headers(&self) -> Result<HeaderMap, EgressConfigError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let (name, mut value) = checked_header(name, value).map_err(|e| self.wrong(e))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        Ok(headers)
    }

    #[expect(clippy::disallowed_types, reason = "this crate is the one that owns HTTP clients")]
    fn http_client(&self, tls: bool, lookup: Arc<dyn Lookup>) -> Result<reqwest::Client, EgressConfigError> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .dns_resolver(CheckedResolver::new(self.addresses.clone(), lookup))
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_mins(1))
            // What was in use at once may be again a moment later: a smaller pool closes connections between the calls of a busy
            // client, and every call that finds none opens one.
            .pool_max_idle_per_host(self.concurrency)
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        if !tls {
            if self.tls != TlsOptions::default() {
                return Err(self.wrong(
                    "its TLS settings cannot take effect, for its URL begins with http://: write https://, or remove tls",
                ));
            }
            // Without TLS no trust store is needed; loading the system's costs start-up time and memory.
            let client = builder.tls_certs_only(Vec::<reqwest::Certificate>::new()).build();
            return client.map_err(|e| self.wrong(crate::error::chain(&e)));
        }
        let version = if self.tls.only_tls_13 { reqwest::tls::Version::TLS_1_3 } else { reqwest::tls::Version::TLS_1_2 };
        builder = builder.tls_version_min(version).https_only(true);
        if let Some(pem) = self.pem(self.tls.ca_pem.as_deref(), self.tls.ca_pem_file.as_deref())? {
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|found| !found.is_empty())
                .ok_or_else(|| self.wrong("the certificate authorities are not PEM certificates"))?;
            builder = builder.tls_certs_only(authorities);
        }
        if let Some(identity) = self.identity()? {
            builder = builder.identity(identity);
        }
        builder.build().map_err(|e| self.wrong(format!("TLS cannot be set up: {}", crate::error::chain(&e))))
    }

    fn identity(&self) -> Result<Option<reqwest::Identity>, EgressConfigError> {
        let certificate = self.pem(self.tls.client_certificate_pem.as_deref(), self.tls.client_certificate_file.as_deref())?;
        if let Some(path) = &self.tls.client_key_file {
            self.check_key_mode(path)?;
        }
        let key_given = self.tls.client_key_pem.as_ref().map(|key| key.expose().as_bytes());
        let key = self.pem(key_given, self.tls.client_key_file.as_deref())?;
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(mut pem), Some(key)) => {
                pem.push(b'\n');
                pem.extend_from_slice(&key);
                let identity = reqwest::Identity::from_pem(&pem);
                identity.map(Some).map_err(|_| self.wrong("the client certificate and key are not usable PEM"))
            }
            _ => Err(self.wrong("mutual TLS needs both a client certificate and its key")),
        }
    }

    /// A key that others can read is no secret: refused, as those of the listeners and files with secrets are.
    fn check_key_mode(&self, path: &Path) -> Result<(), EgressConfigError> {
        let failed = |error| EgressConfigError::File { name: self.name.clone(), path: path.to_owned(), error };
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & OPEN_TO_OTHERS == 0 {
            return Ok(());
        }
        Err(EgressConfigError::OpenKey { name: self.name.clone(), path: path.to_owned(), mode })
    }

    fn pem(&self, given: Option<&[u8]>, file: Option<&Path>) -> Result<Option<Vec<u8>>, EgressConfigError> {
        match (given, file) {
            (Some(_), Some(_)) => Err(self.wrong("give a certificate or key as text or as a file, not both")),
            (Some(pem), None) => Ok(Some(pem.to_vec())),
            (None, Some(path)) => std::fs::read(path).map(Some).map_err(|error| EgressConfigError::File {
                name: self.name.clone(),
                path: path.to_owned(),
                error,
            }),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::SystemLookup;

    fn config(url: &str) -> EgressConfig {
        let mut config = EgressConfig::new("prom", url);
        config.addresses = AddressPolicy::new(["loopback", "private"].map(|range| range.parse().unwrap()));
        config
    }

    #[test]
    fn tls_settings_without_tls_are_refused() {
        assert!(config("http://10.1.2.3:9090").build(Arc::new(SystemLookup)).is_ok());
        let settings: [fn(&mut TlsOptions); 4] = [
            |tls| tls.ca_pem_file = Some("/nonexistent/ca.pem".into()),
            |tls| tls.client_certificate_file = Some("/nonexistent/client.pem".into()),
            |tls| tls.client_key_file = Some("/nonexistent/client.key".into()),
            |tls| tls.only_tls_13 = true,
        ];
        for set in settings {
            let mut config = config("http://10.1.2.3:9090");
            set(&mut config.tls);
            let Err(error) = config.build(Arc::new(SystemLookup)) else { panic!("{:?} was taken", config.tls) };
            let text = error.to_string();
            assert!(text.contains("'prom'") && text.contains("cannot take effect") && text.contains("https://"), "{text}");
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let directory = std::env::temp_dir().join(format!("portcullis-egress-key-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        let (certificate, key) = (directory.join("client.pem"), directory.join("client.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let built = |mode: u32| {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut config = config("https://10.1.2.3:9090");
            config.tls.client_certificate_file = Some(certificate.clone());
            config.tls.client_key_file = Some(key.clone());
            config.build(Arc::new(SystemLookup)).map(drop)
        };
        for mode in [0o644, 0o604, 0o666, 0o601] {
            let text = built(mode).unwrap_err().to_string();
            assert!(text.contains("'prom'") && text.contains("chmod o-rwx") && text.contains("client.key"), "{text}");
        }
        for mode in [0o600, 0o640, 0o400] {
            built(mode).unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_credential_in_clear_text_is_warned_of_unless_it_stays_here() {
        let warned = |url: &str, authentication: Authentication| {
            let mut config = config(url);
            config.authentication = authentication;
            config.warnings()
        };
        let bearer = || Authentication::Bearer(Secret::new("hunter2").into());
        let basic = || Authentication::Basic { user: "u".into(), password: Secret::new("hunter2").into() };
        for url in
            ["http://prometheus:9090", "http://10.1.2.3:9090/x", "http://[2001:db8::1]:9090", "http://localhost.example.org"]
        {
            for authentication in [bearer(), basic()] {
                let warnings = warned(url, authentication);
                assert!(warnings.len() == 1 && warnings[0].contains("clear text") && warnings[0].contains("'prom'"), "{url}");
                assert!(!warnings[0].contains("hunter2"));
            }
            assert!(warned(url, Authentication::None).is_empty());
        }
        for url in ["https://prometheus:9090", "http://localhost:9090", "http://127.0.0.2:9090", "http://[::1]:9090"] {
            assert!(warned(url, bearer()).is_empty(), "{url}");
        }
    }
}

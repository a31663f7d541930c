//! The certificate of a listener: read, checked, and taken over while running when its files change.
//!
//! Guards that nothing half-good comes into force: a file that is missing, expired, of another key or readable by
//! everybody is an error that names the file and the mend, and the last good certificate stays. Sessions that could be
//! resumed live in memory, at most 256, and die with the certificate they were made under; nothing is written. Where a
//! certificate is still to come, every handshake is refused until it is there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::{ClientCertificates, TlsSettings, TlsVersion};
use portcullis_model::{Clock, Timestamp, format_timestamp};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WantsServerCert;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    self, ConfigBuilder, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::challenge::Challenges;
use crate::handshake::HandshakeLimits;

/// Largest file that is read: certificates and lists are small.
const MOST_BYTES: u64 = 8 << 20;
/// From when on an end is announced.
const WARN_BEFORE: Duration = Duration::from_hours(21 * 24);
/// Read permission of users that are neither the owner nor of the group.
const READABLE_BY_OTHERS: u32 = 0o004;

/// TLS that cannot be used. The operator's to mend; names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{path}: {bytes} bytes are too many for certificates or keys")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The key is open to everybody.
    #[error("{path}: every user of this machine may read the private key (mode {mode:04o}); take that away: chmod o-r {path}")]
    OpenKey {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path}: holds no {wanted}, but {found}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is in it.
        found: String,
    },
    /// A certificate, key or list that cannot be understood.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Key and certificate do not belong together.
    #[error("{key}: is not the private key of the certificate in {certificate}")]
    Mismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// Out of its time.
    #[error("{path}: the certificate {what} {}", format_timestamp(*at))]
    Time {
        /// The file.
        path: PathBuf,
        /// `ended` or `begins only`.
        what: &'static str,
        /// When.
        at: Timestamp,
    },
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(&'static str),
}

/// What is spoken inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, for gRPC.
    Http2,
}

impl Protocol {
    fn alpn(self) -> Vec<u8> {
        match self {
            Self::Http1 => b"http/1.1".to_vec(),
            Self::Http2 => b"h2".to_vec(),
        }
    }
}

/// Outcome of [`Certificates::refresh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// The files are the same as before.
    Unchanged,
    /// New ones are in force; connections that stand go on.
    Replaced,
    /// New ones cannot be used, for this reason; the last good ones stay in force.
    Kept(String),
}

/// A certificate that ends soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryWarning {
    /// Last instant at which it is valid.
    pub expires_at: Timestamp,
    /// What is left; zero when it is over.
    pub left: Duration,
}

/// What tells a file from its successor: any change of content or place changes the time of its status.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.ctime(), m.ctime_nsec(), m.size()))
}

/// What new connections are greeted with.
struct InForce {
    config: Arc<ServerConfig>,
    /// Absent while there is no certificate.
    expires_at: Option<Timestamp>,
}

/// Where certificate and key lie.
#[derive(Debug, Clone)]
struct Place {
    certificate: PathBuf,
    key: PathBuf,
}

/// Has no certificate: whoever greets is told so in the words TLS has for it.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

struct Watched {
    stamps: Vec<Stamp>,
    refused: Option<String>,
}

/// The certificate of one listener, its key and the authorities of its clients.
pub struct Certificates {
    settings: TlsSettings,
    place: Place,
    protocol: Protocol,
    clock: Arc<dyn Clock>,
    current: ArcSwap<InForce>,
    watched: Mutex<Watched>,
    pub(crate) challenges: Option<Arc<Challenges>>,
    pub(crate) limits: HandshakeLimits,
    pub(crate) places: Semaphore,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("settings", &self.settings)
            .field("protocol", &self.protocol)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files of `settings` and checks them.
    ///
    /// # Errors
    /// See [`TlsError`]. Settings that name no files are one.
    pub fn load(settings: TlsSettings, protocol: Protocol, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let (Some(certificate), Some(key)) = (settings.certificate.clone(), settings.key.clone()) else {
            return Err(TlsError::Settings("certificate and key must both name a file"));
        };
        let place = Place { certificate, key };
        // Stamped before they are read: what changes in between is looked at again.
        let stamps = stamps(&place, &settings);
        let current = read(&place, &settings, protocol, clock.now())?;
        Ok(Self::of(settings, place, protocol, clock, stamps, current, None))
    }

    /// Takes certificate and key from one file that somebody else in this process writes, and which may still be missing or
    /// out of its time: until a good one is there, every handshake is refused.
    ///
    /// # Errors
    /// When the authorities of the clients cannot be used.
    pub fn awaited(
        settings: TlsSettings,
        file: &Path,
        protocol: Protocol,
        clock: Arc<dyn Clock>,
        challenges: Option<Arc<Challenges>>,
    ) -> Result<Self, TlsError> {
        let place = Place { certificate: file.to_owned(), key: file.to_owned() };
        let stamps = stamps(&place, &settings);
        let (current, refused) = match read(&place, &settings, protocol, clock.now()) {
            Ok(current) => (current, None),
            Err(error) => (without(&settings, protocol)?, file.exists().then(|| error.to_string())),
        };
        let made = Self::of(settings, place, protocol, clock, stamps, current, challenges);
        made.watched.lock().unwrap_or_else(PoisonError::into_inner).refused = refused;
        Ok(made)
    }

    fn of(
        settings: TlsSettings,
        place: Place,
        protocol: Protocol,
        clock: Arc<dyn Clock>,
        stamps: Vec<Stamp>,
        current: InForce,
        challenges: Option<Arc<Challenges>>,
    ) -> Self {
        let limits = HandshakeLimits::default();
        Self {
            settings,
            place,
            protocol,
            clock,
            current: ArcSwap::from_pointee(current),
            watched: Mutex::new(Watched { stamps, refused: None }),
            challenges,
            limits,
            places: Semaphore::new(limits.at_once),
        }
    }

    /// The same with other bounds of handshakes.
    #[must_use]
    pub fn with_limits(mut self, limits: HandshakeLimits) -> Self {
        self.places = Semaphore::new(limits.at_once);
        self.limits = limits;
        self
    }

    /// Looks whether the files have changed and takes over what is good. Reads files: not for a task that must not wait.
    pub fn refresh(&self) -> Refreshed {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.place, &self.settings);
        if stamps == watched.stamps {
            return Refreshed::Unchanged;
        }
        watched.stamps = stamps;
        match read(&self.place, &self.settings, self.protocol, self.clock.now()) {
            Ok(next) => {
                self.current.store(Arc::new(next));
                watched.refused = None;
                Refreshed::Replaced
            }
            Err(error) => {
                let reason = error.to_string();
                watched.refused = Some(reason.clone());
                Refreshed::Kept(reason)
            }
        }
    }

    /// Why the files as they are now are not in force, when they are not.
    pub fn refused(&self) -> Option<String> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }

    /// Last instant at which the certificate in force is valid, and those it is shown with; absent while there is none.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.current.load().expires_at
    }

    /// The file the certificate comes from.
    pub fn file(&self) -> &Path {
        &self.place.certificate
    }

    /// The end of the certificate in force, from 21 days before.
    pub fn ends_soon(&self) -> Option<ExpiryWarning> {
        let expires_at = self.expires_at()?;
        let left = expires_at.since(self.clock.now());
        (left <= WARN_BEFORE).then_some(ExpiryWarning { expires_at, left })
    }

    /// The settings it was made from.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }
}

fn stamps(place: &Place, settings: &TlsSettings) -> Vec<Stamp> {
    let further = settings.client_ca.iter().chain(&settings.client_revocations);
    [&place.certificate, &place.key].into_iter().chain(further).map(|path| stamp(path)).collect()
}

type Begun = ConfigBuilder<ServerConfig, WantsServerCert>;

/// Versions and clients, which do not depend on the certificate.
fn begin(settings: &TlsSettings) -> Result<Begun, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(settings, &provider)?;
    let versions: &[&SupportedProtocolVersion] = match settings.minimum_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let begun = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|_| TlsError::Settings("no version of TLS can be spoken"))?;
    Ok(begun.with_client_cert_verifier(verifier))
}

/// Refuses every handshake.
fn without(settings: &TlsSettings, protocol: Protocol) -> Result<InForce, TlsError> {
    let mut config = begin(settings)?.with_cert_resolver(Arc::new(Nothing));
    config.alpn_protocols = vec![protocol.alpn()];
    Ok(InForce { config: Arc::new(config), expires_at: None })
}

fn read(place: &Place, settings: &TlsSettings, protocol: Protocol, now: Timestamp) -> Result<InForce, TlsError> {
    let (chain, expires_at) = chain(&place.certificate, now)?;
    let key = private_key(&place.key)?;
    let unusable = |error: rustls::Error| TlsError::Unusable { path: place.certificate.clone(), reason: error.to_string() };
    let mut config = begin(settings)?.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { key: place.key.clone(), certificate: place.certificate.clone() }
        }
        rustls::Error::General(reason) => TlsError::Unusable { path: place.key.clone(), reason },
        other => unusable(other),
    })?;
    config.alpn_protocols = vec![protocol.alpn()];
    Ok(InForce { config: Arc::new(config), expires_at: Some(expires_at) })
}

/// The certificates of the server, and when the first of them ends.
fn chain(path: &Path, now: Timestamp) -> Result<(Vec<CertificateDer<'static>>, Timestamp), TlsError> {
    let chain: Vec<CertificateDer<'static>> = blocks(path, &text(path)?, "certificate (CERTIFICATE)")?;
    let mut ends = Vec::with_capacity(chain.len());
    for certificate in &chain {
        let unreadable = |_| TlsError::Unusable { path: path.to_owned(), reason: "a certificate in it cannot be read".into() };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(unreadable)?;
        let [begins, ends_at] =
            [parsed.validity().not_before, parsed.validity().not_after].map(|t| Timestamp::from_seconds(t.timestamp()));
        if now < begins {
            return Err(TlsError::Time { path: path.to_owned(), what: "begins only", at: begins });
        }
        if now > ends_at {
            return Err(TlsError::Time { path: path.to_owned(), what: "ended", at: ends_at });
        }
        ends.push(ends_at);
    }
    let first = ends.into_iter().min().unwrap_or(now);
    Ok((chain, first))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = std::fs::metadata(path).map_err(|reason| TlsError::Read { path: path.to_owned(), reason })?.mode();
    if mode & READABLE_BY_OTHERS != 0 {
        return Err(TlsError::OpenKey { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let text = text(path)?;
    let mut keys = blocks::<PrivateKeyDer<'static>>(path, &text, "private key (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)")?;
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(key),
        _ => Err(TlsError::Unusable {
            path: path.to_owned(),
            reason: "holds several private keys; leave the one that is meant".into(),
        }),
    }
}

fn verifier(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &settings.client_ca else {
        return match (settings.client_certificates, &settings.client_revocations) {
            (ClientCertificates::None, None) => Ok(WebPkiClientVerifier::no_client_auth()),
            (ClientCertificates::None, Some(_)) => Err(TlsError::Settings("client_revocations needs client_ca")),
            _ => Err(TlsError::Settings("client_certificates needs client_ca: the file with the authorities of the clients")),
        };
    };
    if settings.client_certificates == ClientCertificates::None {
        return Err(TlsError::Settings(
            "client_ca is set and clients are not asked: set client_certificates to optional or required, or leave client_ca out",
        ));
    }
    let mut roots = RootCertStore::empty();
    for authority in blocks::<CertificateDer<'static>>(path, &text(path)?, "certificate (CERTIFICATE)")? {
        roots.add(authority).map_err(|error| TlsError::Unusable { path: path.clone(), reason: error.to_string() })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let mut about = path;
    if let Some(path) = &settings.client_revocations {
        about = path;
        let lists = blocks::<CertificateRevocationListDer<'static>>(path, &text(path)?, "revocation list (X509 CRL)")?;
        builder = builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    if settings.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| TlsError::Unusable { path: about.clone(), reason: error.to_string() })
}

/// What is in a file. Wiped from memory when it is no longer needed, because it may be a key.
fn text(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |reason| TlsError::Read { path: path.to_owned(), reason };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MOST_BYTES {
        return Err(TlsError::Size { path: path.to_owned(), bytes });
    }
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

/// The blocks of one kind in a PEM file; at least one.
fn blocks<T: PemObject>(path: &Path, text: &[u8], wanted: &'static str) -> Result<Vec<T>, TlsError> {
    let broken = |error: rustls::pki_types::pem::Error| TlsError::Unusable {
        path: path.to_owned(),
        reason: format!("is not PEM: {error}"),
    };
    let found: Vec<T> = T::pem_slice_iter(text).collect::<Result<_, _>>().map_err(broken)?;
    if found.is_empty() {
        return Err(TlsError::Content { path: path.to_owned(), wanted, found: labels(text) });
    }
    Ok(found)
}

/// The kinds of blocks in a PEM file, for people.
fn labels(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut labels: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")).take(8).collect();
    labels.dedup();
    let known =
        |label: &&str| label.len() <= 40 && label.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ');
    labels.retain(known);
    match labels.as_slice() {
        [] => "nothing in PEM form".to_owned(),
        ["ENCRYPTED PRIVATE KEY"] => {
            "ENCRYPTED PRIVATE KEY, which nobody could unlock at a restart: store it decrypted, mode 0600".to_owned()
        }
        labels => labels.join(", "),
    }
}

//! Getting bytes from addresses for whoever installs plugins. Guards that they come through egress only, bounded, from
//! addresses that are open, and that a credential goes to the origin it belongs to and to no other. Must not judge what
//! comes: that is done from memory, by whoever asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use portcullis_egress::{
    AddressPolicy, Authentication, EgressClient, EgressConfig, EgressConfigError, EgressError, EgressRequest, EgressResponse,
    SecretFault, SecretResolver, StreamLimits, TlsOptions,
};
use portcullis_model::{Scope, TenantId};
use portcullis_policy::{Budget, Charter, CharterGrant, PolicyError};

use crate::place::{InvalidPlace, WebAddress};
use crate::{Digest, PackageSource};

/// Longest way from one address to the next.
const MOST_REDIRECTS: usize = 5;
/// Longest silence.
const IDLE: Duration = Duration::from_secs(30);
/// Longest time for one file, in either direction.
const TIME_LIMIT: Duration = Duration::from_mins(15);
/// Largest answer that is no file.
pub(crate) const MOST_WORDS: u64 = 64 << 10;

/// Why something was not fetched or not published.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a place.
    #[error(transparent)]
    Place(#[from] InvalidPlace),
    /// Not encrypted.
    #[error(
        "{origin} is not encrypted, so everybody on the way sees and changes what comes; write https://, or say --plain-http"
    )]
    Plain {
        /// The origin.
        origin: String,
    },
    /// A credential that would travel in clear text.
    #[error("the credential for {origin} is not sent: {reason}")]
    Credential {
        /// The origin.
        origin: String,
        /// Why not.
        reason: String,
    },
    /// The settings.
    #[error(transparent)]
    Settings(#[from] EgressConfigError),
    /// A secret of the settings.
    #[error(transparent)]
    Secret(#[from] SecretFault),
    /// The charter.
    #[error(transparent)]
    Charter(#[from] PolicyError),
    /// No answer.
    #[error("{address} cannot be fetched: {error}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        error: EgressError,
    },
    /// An answer that is none.
    #[error("{address} answers {status}{}{words}", if words.is_empty() { "" } else { ": " })]
    Status {
        /// The address.
        address: String,
        /// The status.
        status: StatusCode,
        /// What it says: from outside.
        words: String,
    },
    /// Nobody may read or write there without another credential.
    #[error("{address} does not let us in ({status}): {hint}")]
    Unauthorised {
        /// The address.
        address: String,
        /// 401 or 403.
        status: StatusCode,
        /// What would help.
        hint: String,
    },
    /// Too large.
    #[error("{address} has more than {most} bytes")]
    TooLarge {
        /// The address.
        address: String,
        /// The cap.
        most: u64,
    },
    /// A redirect that is not followed.
    #[error("{address} redirects to another place, which is not followed: {reason}")]
    Redirect {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// Other bytes than were named.
    #[error("{what} is not what was named: its digest is {found}, and {wanted} was expected")]
    Digest {
        /// What was fetched.
        what: String,
        /// What was named.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// Another size than was named.
    #[error("{what} is not what was named: it has {found} bytes, and {wanted} were expected")]
    Size {
        /// What was fetched.
        what: String,
        /// What was named.
        wanted: u64,
        /// What came.
        found: u64,
    },
    /// The registry says something that is not in the protocol.
    #[error("{address} is no plugin in a registry: {reason}")]
    Protocol {
        /// The address.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// A list of what is attached to a package that cannot be followed.
    #[error("what is attached at {address} cannot be listed: {reason}")]
    Listing {
        /// The address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The tag says something else already.
    #[error("{reference} is there already with manifest {found}; give the package another tag, or say --replace")]
    Taken {
        /// The tag.
        reference: String,
        /// What it stands for.
        found: String,
    },
}

/// Hears how much has come: what it is, bytes so far, bytes in all where that is known.
pub type Progress = dyn Fn(&str, u64, Option<u64>) + Send + Sync;
/// Makes charters.
pub type Chartering = dyn Fn(CharterGrant) -> Result<Charter, PolicyError> + Send + Sync;

/// Fetches for one command of an operator.
pub struct Fetcher {
    sources: Vec<PackageSource>,
    secrets: Arc<dyn SecretResolver>,
    chartering: Box<Chartering>,
    progress: Option<Box<Progress>>,
    clients: Mutex<BTreeMap<String, Line>>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// The way to one origin.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) client: EgressClient,
    pub(crate) charter: Charter,
}

/// What came from an address, whatever its status.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Fetcher {
    /// `sources` say what is open besides public addresses, the first that fits an origin; `chartering` makes the charter of
    /// each origin.
    pub fn new(sources: Vec<PackageSource>, secrets: Arc<dyn SecretResolver>, chartering: Box<Chartering>) -> Self {
        Self { sources, secrets, chartering, progress: None, clients: Mutex::default() }
    }

    /// The same, heard by `progress`.
    #[must_use]
    pub fn heard_by(self, progress: Box<Progress>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    fn source(&self, origin: &str) -> Option<&PackageSource> {
        self.sources.iter().find(|source| source.origin.matches(origin))
    }

    /// The origin a registry is spoken to at: encrypted, unless the operator names it with `http://`.
    pub(crate) fn registry_origin(&self, authority: &str) -> String {
        let plain = portcullis_egress::origin_of(&format!("http://{authority}"));
        // The port is always written here, and 443 stands for one that was not.
        plain.ok().filter(|plain| self.source(plain).is_some()).unwrap_or_else(|| format!("https://{authority}"))
    }

    /// How to prove oneself to an origin. Nothing is read yet.
    pub(crate) fn authentication(&self, origin: &str) -> Result<Authentication, FetchError> {
        let Some(settings) = self.source(origin).and_then(|source| source.auth.as_ref()) else {
            return Ok(Authentication::None);
        };
        if !may_carry_credentials(origin) {
            let reason = "it would travel in clear text; use https://, or a registry on this machine".to_owned();
            return Err(FetchError::Credential { origin: origin.to_owned(), reason });
        }
        Ok(settings.authentication(&*self.secrets)?)
    }

    /// The way to an origin. Opens nothing yet.
    pub(crate) fn line(&self, origin: &str) -> Result<Line, FetchError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(origin) {
            return Ok(known.clone());
        }
        let source = self.source(origin);
        let encrypted = origin.starts_with("https://");
        if !encrypted && source.is_none() {
            return Err(FetchError::Plain { origin: origin.to_owned() });
        }
        let mut config = EgressConfig::new(origin, origin);
        if let Some(source) = source {
            config.addresses = AddressPolicy::new(source.allow_addresses.iter().copied());
            if encrypted {
                config.tls = TlsOptions { ca_pem_file: source.ca_file.clone(), ..TlsOptions::default() };
            }
        }
        config.max_response_bytes = MOST_WORDS.max(crate::oci::MOST_MANIFEST);
        // Also the time an upload takes until it is answered. Downloads have a silence of their own.
        config.read_timeout = TIME_LIMIT;
        config.breaker_failures = 0;
        let charter = (self.chartering)(CharterGrant {
            name: Arc::from("plugin-packages"),
            destinations: std::iter::once(origin.to_owned()).collect(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: TIME_LIMIT,
            budget: Budget::default(),
        })?;
        let line = Line { client: EgressClient::new(config)?, charter };
        clients.insert(origin.to_owned(), line.clone());
        Ok(line)
    }

    /// Downloads a file of at most `most` bytes, with the credential of its origin.
    ///
    /// # Errors
    /// See [`FetchError`]; every status but success is one.
    pub async fn download(&self, address: &WebAddress, most: u64) -> Result<Vec<u8>, FetchError> {
        let answer = self.get(address, &self.authentication(&address.origin())?, &[], most).await?;
        answer.successful(address).map(|answer| answer.body)
    }

    /// The same for a file that need not be there.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn download_if_there(&self, address: &WebAddress, most: u64) -> Result<Option<Vec<u8>>, FetchError> {
        let answer = self.get(address, &self.authentication(&address.origin())?, &[], most).await?;
        if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        answer.successful(address).map(|answer| Some(answer.body))
    }

    /// Asks an address, and where it redirects to. Another origin gets no credential and must be open by itself.
    pub(crate) async fn get(
        &self,
        address: &WebAddress,
        authentication: &Authentication,
        headers: &[(&str, &str)],
        most: u64,
    ) -> Result<Answer, FetchError> {
        let mut current = address.clone();
        let mut authentication = authentication.clone();
        for _ in 0..=MOST_REDIRECTS {
            let line = self.line(&current.origin())?;
            let mut request = EgressRequest::get::<String>([]).at_reference(current.reference()).hand_back_redirects();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.authenticated(authentication.clone());
            let unreachable = |error| FetchError::Unreachable { address: current.to_string(), error };
            // One more than may come, so that too much is told from a broken connection.
            let limits = StreamLimits { bytes: most.saturating_add(1 << 20), idle: IDLE };
            let mut stream = line.client.open(&line.charter.permit(), request, limits).await.map_err(unreachable)?;
            if let Some(next) = elsewhere(&current, stream.status, &stream.headers)? {
                if next.origin() != current.origin() {
                    authentication = Authentication::None;
                }
                current = next;
                continue;
            }
            let most = if stream.status.is_success() { most } else { MOST_WORDS };
            let too_large = || FetchError::TooLarge { address: current.to_string(), most };
            let announced = stream.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            if announced.is_some_and(|announced: u64| announced > most) {
                return Err(too_large());
            }
            let mut body = Vec::new();
            while let Some(chunk) = stream.next().await.map_err(unreachable)? {
                if body.len() as u64 + chunk.len() as u64 > most {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
                if let Some(progress) = self.progress.as_ref().filter(|_| stream.status.is_success()) {
                    progress(&address.to_string(), body.len() as u64, announced);
                }
            }
            return Ok(Answer { status: stream.status, headers: stream.headers, body });
        }
        Err(FetchError::Redirect { address: address.to_string(), reason: format!("more than {MOST_REDIRECTS} in a row") })
    }

    /// Sends a request that changes something, within one origin.
    pub(crate) async fn send(&self, origin: &str, request: EgressRequest) -> Result<EgressResponse, FetchError> {
        let line = self.line(origin)?;
        let unreachable = |error| FetchError::Unreachable { address: origin.to_owned(), error };
        line.client.send(&line.charter.permit(), request).await.map_err(unreachable)
    }
}

impl Answer {
    pub(crate) fn successful(self, address: &WebAddress) -> Result<Self, FetchError> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        Err(refused(address.to_string(), self.status, &self.body))
    }
}

/// What a status means for an operator.
pub(crate) fn refused(address: String, status: StatusCode, body: &[u8]) -> FetchError {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let hint = "name a credential that may, with --username and --password or in plugins.sources".to_owned();
        return FetchError::Unauthorised { address, status, hint };
    }
    let words: String = String::from_utf8_lossy(body).chars().filter(|c| portcullis_guard::is_seen(*c)).take(200).collect();
    FetchError::Status { address, status, words: words.trim().to_owned() }
}

/// Where an answer says to look instead.
fn elsewhere(from: &WebAddress, status: StatusCode, headers: &HeaderMap) -> Result<Option<WebAddress>, FetchError> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let refuse = |reason: String| FetchError::Redirect { address: from.to_string(), reason };
    let Some(location) = headers.get(header::LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| refuse("its location is not readable".to_owned()))?;
    let next = from.join(location).map_err(|error| refuse(error.to_string()))?;
    if from.is_encrypted() && !next.is_encrypted() {
        return Err(refuse(format!("{} is not encrypted", next.origin())));
    }
    Ok(Some(next))
}

/// Whether a credential may travel to this origin: encrypted, or within this machine.
pub(crate) fn may_carry_credentials(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
    scheme == "https" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares bytes with the digest that was named.
pub(crate) fn is_named(what: &str, bytes: &[u8], wanted: Digest) -> Result<(), FetchError> {
    let found = Digest::of(bytes);
    if found == wanted { Ok(()) } else { Err(FetchError::Digest { what: what.to_owned(), wanted, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(from: &str, to: &str) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, to.parse().unwrap());
        let from = WebAddress::parse(from).unwrap();
        let next = elsewhere(&from, StatusCode::TEMPORARY_REDIRECT, &headers).map_err(|error| error.to_string())?;
        Ok(next.map(|next| format!("{}{}", next.origin(), next.reference())))
    }

    #[test]
    fn redirects_stay_encrypted_and_hold_no_credentials() {
        assert_eq!(redirect("https://a/x", "/y?z").unwrap().unwrap(), "https://a:443/y?z");
        assert_eq!(redirect("https://a/x", "https://b/y#f").unwrap().unwrap(), "https://b:443/y");
        assert_eq!(redirect("http://a/x", "https://b/y").unwrap().unwrap(), "https://b:443/y");
        assert!(redirect("https://a/x", "http://b/y").unwrap_err().contains("not encrypted"));
        assert!(redirect("https://a/x", "http://a/y").unwrap_err().contains("not encrypted"));
        for wrong in ["https://u:hunter2@b/y", "ftp://b/y", "file:///etc/passwd", "https://b:0/"] {
            let error = redirect("https://a/x", wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_travel_encrypted_or_not_at_all() {
        for (origin, may) in [
            ("https://registry.example:443", true),
            ("http://127.0.0.1:5000", true),
            ("http://[::1]:5000", true),
            ("http://registry.example:80", false),
            ("http://10.0.0.1:5000", false),
            // A name can come to mean another machine.
            ("http://localhost:5000", false),
        ] {
            assert_eq!(may_carry_credentials(origin), may, "{origin}");
        }
    }
}

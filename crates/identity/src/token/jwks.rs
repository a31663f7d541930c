//! Where an issuer's keys come from: discovered or configured, fetched through egress under the charter
//! `jwks:<issuer>`, kept for a bounded time. Guards against keys from another issuer or another origin, against strangers
//! who make this server ask again and again, and against trusting old keys for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use jsonwebtoken::DecodingKey;
use portcullis_egress::{AddressPolicy, AllowedRange, EgressClient, EgressConfig, EgressRequest, EgressResponse, origin_of};
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_model::{Clock, Scope, TenantId, Timestamp};
use portcullis_policy::{Budget, Charter, CharterGrant, PolicyError};
use serde::Deserialize;
use tokio::sync::watch;

use super::keys::{KeySet, Selected};
use super::reason::shown;
use super::settings::{TokenAlgorithm, TokenIssuer, TokenSettingsError, is_loopback, secure_url};

/// Largest key set or discovery document.
const MAX_DOCUMENT: u64 = 256 << 10;
/// Keys are kept at least this long, whatever the issuer says.
pub(super) const FRESH_AT_LEAST: Duration = Duration::from_mins(5);
/// And at most this long.
pub(super) const FRESH_AT_MOST: Duration = Duration::from_hours(24);
/// Where the issuer does not say.
const FRESH_USUALLY: Duration = Duration::from_hours(1);
/// How long keys are used beyond that while the issuer cannot be reached.
pub(super) const STALE_AT_MOST: Duration = Duration::from_hours(1);
/// Between two fetches that an unknown key name caused.
pub(super) const BETWEEN_UNKNOWN: Duration = Duration::from_secs(30);
/// Between two fetches after a failed one.
pub(super) const BETWEEN_FAILURES: Duration = Duration::from_secs(5);
/// Time for one fetch: discovery and keys.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// What a fetch brought.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// `max-age` of the answer, where it says.
    pub(super) max_age: Option<Duration>,
}

/// Fetches an issuer's keys. An error is a sentence for the operator.
#[async_trait]
pub(super) trait KeyFetch: Send + Sync + std::fmt::Debug {
    async fn fetch(&self) -> Result<Fetched, String>;
}

/// A moment on the clock and on one that nobody can set back.
#[derive(Debug, Clone, Copy)]
struct Moment {
    wall: Timestamp,
    steady: Instant,
}

impl Moment {
    fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), steady: Instant::now() }
    }

    /// Time since `earlier` on the clock that went further.
    fn since(self, earlier: Self) -> Duration {
        self.wall.since(earlier.wall).max(self.steady.saturating_duration_since(earlier.steady))
    }
}

struct Held {
    keys: KeySet,
    at: Moment,
    fresh_for: Duration,
}

#[derive(Default)]
struct Flight {
    /// Closed when the fetch in the air has landed.
    landing: Option<watch::Receiver<()>>,
    unknown_at: Option<Moment>,
    failed_at: Option<Moment>,
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has none that fits.
    Unknown,
    /// It has several.
    Ambiguous,
    /// Its keys cannot be had.
    Unavailable,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Age,
    UnknownName,
}

/// The keys of one issuer.
pub(super) struct KeyCache {
    issuer: Arc<str>,
    fetch: Arc<dyn KeyFetch>,
    clock: Arc<dyn Clock>,
    held: Arc<ArcSwapOption<Held>>,
    flight: Arc<Mutex<Flight>>,
}

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCache").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl KeyCache {
    pub(super) fn new(issuer: Arc<str>, fetch: Arc<dyn KeyFetch>, clock: Arc<dyn Clock>) -> Self {
        Self { issuer, fetch, clock, held: Arc::default(), flight: Arc::default() }
    }

    /// The key for a token. Waits only when no usable key is at hand.
    pub(super) async fn key(&self, name: Option<&str>, algorithm: TokenAlgorithm) -> Result<DecodingKey, NoKey> {
        let mut unknown = false;
        if let Some((held, age)) = self.usable() {
            if age > held.fresh_for {
                // Nobody waits for this one: the keys at hand are good for a while.
                self.begin(Cause::Age);
            }
            match held.keys.select(name, algorithm) {
                Selected::One(key) => return Ok(key),
                Selected::Several => return Err(NoKey::Ambiguous),
                Selected::None => unknown = true,
            }
        }
        let landing = self.begin(if unknown { Cause::UnknownName } else { Cause::Age });
        if let Some(mut landing) = landing {
            // Ends with an error when the fetch has landed.
            while landing.changed().await.is_ok() {}
        }
        let Some((held, _)) = self.usable() else { return Err(NoKey::Unavailable) };
        match held.keys.select(name, algorithm) {
            Selected::One(key) => Ok(key),
            Selected::Several => Err(NoKey::Ambiguous),
            Selected::None => Err(NoKey::Unknown),
        }
    }

    /// The keys at hand, while they may be trusted.
    fn usable(&self) -> Option<(Arc<Held>, Duration)> {
        let held = self.held.load_full()?;
        let age = Moment::now(&*self.clock).since(held.at);
        (age <= held.fresh_for + STALE_AT_MOST).then_some((held, age))
    }

    /// Starts a fetch, or joins the one in the air. Nothing when it is too early for another.
    fn begin(&self, cause: Cause) -> Option<watch::Receiver<()>> {
        let now = Moment::now(&*self.clock);
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed channel is a landed fetch, also one that ended by a panic.
        if let Some(landing) = flight.landing.as_ref().filter(|landing| landing.has_changed().is_ok()) {
            return Some(landing.clone());
        }
        let too_early = |at: Option<Moment>, pause: Duration| at.is_some_and(|at| now.since(at) < pause);
        if too_early(flight.failed_at, BETWEEN_FAILURES) {
            return None;
        }
        if cause == Cause::UnknownName {
            if too_early(flight.unknown_at, BETWEEN_UNKNOWN) {
                return None;
            }
            flight.unknown_at = Some(now);
        }
        let (landed, landing) = watch::channel(());
        flight.landing = Some(landing.clone());
        drop(flight);
        // On its own, so that a caller who goes away does not end it for the others.
        tokio::spawn(self.clone_parts().run(landed));
        Some(landing)
    }

    fn clone_parts(&self) -> Running {
        Running {
            issuer: self.issuer.clone(),
            fetch: self.fetch.clone(),
            clock: self.clock.clone(),
            held: self.held.clone(),
            flight: self.flight.clone(),
        }
    }
}

/// A fetch in the air.
struct Running {
    issuer: Arc<str>,
    fetch: Arc<dyn KeyFetch>,
    clock: Arc<dyn Clock>,
    held: Arc<ArcSwapOption<Held>>,
    flight: Arc<Mutex<Flight>>,
}

impl Running {
    async fn run(self, landed: watch::Sender<()>) {
        // Taken before asking: the keys are at least as new as this.
        let at = Moment::now(&*self.clock);
        let outcome = self.fetch.fetch().await;
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(fetched) => {
                for skipped in &fetched.keys.skipped {
                    tracing::warn!(issuer = %self.issuer, "a key of a token issuer is not used: {skipped}");
                }
                tracing::debug!(issuer = %self.issuer, keys = fetched.keys.len(), "keys of a token issuer fetched");
                let fresh_for = fetched.max_age.unwrap_or(FRESH_USUALLY).clamp(FRESH_AT_LEAST, FRESH_AT_MOST);
                self.held.store(Some(Arc::new(Held { keys: fetched.keys, at, fresh_for })));
                flight.failed_at = None;
            }
            Err(reason) => {
                tracing::warn!(issuer = %self.issuer, "the keys of a token issuer cannot be had: {reason}");
                flight.failed_at = Some(Moment::now(&*self.clock));
            }
        }
        drop(flight);
        drop(landed);
    }
}

/// Fetches over HTTP.
#[derive(Debug)]
pub(super) struct EgressFetch {
    charter: Charter,
    issuer: String,
    /// At the issuer, for discovery; or at the configured key set.
    source: Source,
    settings: TokenIssuer,
}

#[derive(Debug)]
enum Source {
    Discovery { at_issuer: EgressClient, at_root: EgressClient, path: Vec<String> },
    Configured(KeySource),
}

/// A URL of a key set with the client bound to it.
#[derive(Debug)]
struct KeySource {
    client: EgressClient,
    query: Vec<(String, String)>,
}

/// Members of a discovery document that matter here (OpenID Connect Discovery section 3, RFC 8414 section 2).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl EgressFetch {
    pub(super) fn new(
        settings: &TokenIssuer,
        charter: &mut dyn FnMut(CharterGrant) -> Result<Charter, PolicyError>,
    ) -> Result<Self, TokenSettingsError> {
        let wrong = |reason: String| TokenSettingsError::Issuer { issuer: settings.name.clone(), reason };
        let source = match &settings.jwks_uri {
            Some(uri) => Source::Configured(key_source(settings, uri).map_err(wrong)?),
            None => discovery(settings)?,
        };
        let destination = match &source {
            Source::Configured(keys) => keys.client.origin().to_owned(),
            Source::Discovery { at_issuer, .. } => at_issuer.origin().to_owned(),
        };
        let charter = charter(CharterGrant {
            name: Arc::from(format!("jwks:{}", settings.name)),
            destinations: [destination].into(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: FETCH_TIME,
            budget: Budget { backend_bytes: MAX_DOCUMENT, ..Budget::default() },
        })?;
        Ok(Self { charter, issuer: settings.issuer.clone(), source, settings: settings.clone() })
    }

    async fn discover(&self, at_issuer: &EgressClient, at_root: &EgressClient, path: &[String]) -> Result<KeySource, String> {
        let permit = self.charter.permit();
        let openid = EgressRequest::get([".well-known", "openid-configuration"]);
        let mut response = at_issuer.send(&permit, openid).await.map_err(|e| e.to_string())?;
        if response.status.as_u16() == 404 {
            let well_known = [".well-known", "oauth-authorization-server"].into_iter().map(str::to_owned);
            let oauth = EgressRequest::get(well_known.chain(path.iter().cloned()));
            response = at_root.send(&permit, oauth).await.map_err(|e| e.to_string())?;
        }
        let body = good(&response, "the discovery document")?;
        check_strict(body, StrictLimits { depth: 12, members: 512 })
            .map_err(|e| format!("the discovery document is refused: {}", shown(&e.to_string())))?;
        let found: Discovery = serde_json::from_slice(body)
            .map_err(|_| "the discovery document has no issuer and jwks_uri; set jwks_uri if it has none".to_owned())?;
        if found.issuer != self.issuer {
            let other = shown(&found.issuer);
            return Err(format!("the discovery document is of issuer '{other}', not '{}'", self.issuer));
        }
        let keys = key_source(&self.settings, &found.jwks_uri)?;
        if keys.client.origin() != at_issuer.origin() {
            return Err(format!(
                "the keys are said to be at {}, another origin than the issuer's; set jwks_uri to trust it",
                shown(keys.client.origin())
            ));
        }
        Ok(keys)
    }

    async fn key_set(&self, source: &KeySource) -> Result<Fetched, String> {
        let request = EgressRequest::get(Vec::<String>::new()).query_pairs(source.query.iter().cloned());
        let response = source.client.send(&self.charter.permit(), request).await.map_err(|e| e.to_string())?;
        let keys = KeySet::read(good(&response, "the key set")?)?;
        Ok(Fetched { keys, max_age: max_age(&response) })
    }
}

#[async_trait]
impl KeyFetch for EgressFetch {
    async fn fetch(&self) -> Result<Fetched, String> {
        match &self.source {
            Source::Configured(keys) => self.key_set(keys).await,
            Source::Discovery { at_issuer, at_root, path } => {
                let keys = self.discover(at_issuer, at_root, path).await?;
                self.key_set(&keys).await
            }
        }
    }
}

fn good<'r>(response: &'r EgressResponse, what: &str) -> Result<&'r [u8], String> {
    match response.status.as_u16() {
        200 => Ok(&response.body),
        status => Err(format!("{what} is not there: the issuer answered with status {status}")),
    }
}

/// `max-age` of Cache-Control; zero where it must not be kept.
fn max_age(response: &EgressResponse) -> Option<Duration> {
    let values = response.headers.get_all("cache-control").iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> = values.flat_map(|v| v.split(',')).map(|d| d.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|d| d == "no-store" || d == "no-cache") {
        return Some(Duration::ZERO);
    }
    let seconds = directives.iter().find_map(|d| d.strip_prefix("max-age="));
    seconds.and_then(|s| s.trim_matches('"').parse().ok()).map(Duration::from_secs)
}

/// A client for one URL: https, or this machine; public addresses, and what the operator listed.
pub(super) fn client(
    name: String,
    url: &str,
    allow_addresses: &[AllowedRange],
    tls: &portcullis_egress::TlsSettings,
) -> Result<EgressConfig, String> {
    secure_url(url)?;
    let origin = origin_of(url).map_err(|e| e.to_string())?;
    let mut config = EgressConfig::new(name, url);
    let mut ranges = allow_addresses.to_vec();
    if is_loopback(&origin) {
        // http is only spoken to this machine, whatever its name resolves to.
        ranges = vec![AllowedRange::Loopback];
    }
    config.addresses = AddressPolicy::new(ranges);
    config.tls = tls.clone().into();
    config.max_response_bytes = MAX_DOCUMENT;
    config.concurrency = 4;
    config.read_timeout = FETCH_TIME;
    Ok(config)
}

fn key_source(settings: &TokenIssuer, url: &str) -> Result<KeySource, String> {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, query)| (base, query));
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'=');
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pair.bytes().all(plain) { Ok((name.to_owned(), value.to_owned())) } else { Err(()) }
    });
    let query = pairs.collect::<Result<_, ()>>().map_err(|()| "the query of the key set's URL has escapes".to_owned())?;
    let config = client(format!("jwks:{}", settings.name), base, &settings.allow_addresses, &settings.tls)?;
    Ok(KeySource { client: EgressClient::new(config).map_err(|e| e.to_string())?, query })
}

fn discovery(settings: &TokenIssuer) -> Result<Source, TokenSettingsError> {
    let wrong = |reason: String| TokenSettingsError::Issuer { issuer: settings.name.clone(), reason };
    let name = format!("jwks:{}", settings.name);
    let at = |url: &str| client(name.clone(), url, &settings.allow_addresses, &settings.tls).map_err(wrong);
    // Scheme, host and port; then the path, which RFC 8414 puts behind its well-known part.
    let after_scheme = settings.issuer.find("://").map_or(0, |at| at + 3);
    let path_at = settings.issuer[after_scheme..].find('/').map_or(settings.issuer.len(), |at| after_scheme + at);
    let (root, path) = settings.issuer.split_at(path_at);
    Ok(Source::Discovery {
        at_issuer: EgressClient::new(at(&settings.issuer)?)?,
        at_root: EgressClient::new(at(root)?)?,
        path: path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
    })
}

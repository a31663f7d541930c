//! Token exchange (RFC 8693): for upstreams that want to know the caller, the caller's token is given to the issuer's token
//! endpoint, and nowhere else, for another one that is made for the upstream. Guards that no upstream ever gets the
//! caller's own token. Must not log or print a token, and never keeps one beyond its life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::{
    AllowedRange, Authentication, CallerFault, Credential, EgressClient, EgressRequest, SecretFault, SecretProvider,
    SecretResolver, TlsSettings,
};
use portcullis_guard::{StrictLimits, check_strict};
use portcullis_model::{CallerToken, Clock, PrincipalId, Scope, Secret, SecretReference, TenantId, Timestamp};
use portcullis_policy::{Budget, Charter, CharterGrant, Permit, PolicyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::compact::SubjectToken;
use super::jwks::client;
use super::settings::{TokenSettings, TokenSettingsError};

/// The grant type, and the type of the caller's token (RFC 8693 sections 2.1 and 3).
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// Tokens kept at once.
const MAX_KEPT: usize = 1_000;
/// A token is not used in the last moments of its life, which it could spend on the way.
const MARGIN: Duration = Duration::from_secs(30);
/// However long a token lives: after this time the issuer is asked again, so that it can refuse.
const KEPT_AT_MOST: Duration = Duration::from_mins(10);
/// Time for one exchange.
const EXCHANGE_TIME: Duration = Duration::from_secs(10);
/// Largest answer of the token endpoint.
const MAX_ANSWER: u64 = 64 << 10;

/// How this server exchanges its callers' tokens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeSettings {
    /// Token endpoint of the authorization server that issued the callers' tokens.
    pub token_endpoint: String,
    /// This server's own client id there.
    pub client_id: String,
    /// This server's own client secret there: a value (usually `${VAR}`) or a reference such as `file:/path`.
    #[schemars(with = "String")]
    pub client_secret: SecretReference,
    /// How the secret is sent.
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// Address ranges the endpoint may live in besides public ones.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
    /// TLS towards the endpoint.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// How a client authenticates itself at a token endpoint (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// In the `Authorization` header.
    #[default]
    Basic,
    /// In the form.
    Post,
}

/// Whom a token is wanted for.
pub use portcullis_egress::ExchangeTarget as Target;

/// An exchange that brought no token. `Display` is the operator's text and holds no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The operator's: no upstream is named.
    #[error("token exchange: neither a resource nor an audience is named")]
    NoTarget,
    /// The caller's token is at its end.
    #[error("token exchange: the caller's token has expired")]
    SubjectExpired,
    /// The authorization server says no; its error code (RFC 6749 section 5.2).
    #[error("token exchange: the authorization server refuses with '{0}'")]
    Refused(String),
    /// The authorization server cannot be reached or cannot be understood.
    #[error("token exchange: {0}")]
    Failed(String),
}

impl From<ExchangeError> for CallerFault {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::SubjectExpired => Self::Expired,
            ExchangeError::Refused(_) => Self::Refused(error.to_string()),
            ExchangeError::NoTarget | ExchangeError::Failed(_) => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whose token for whom. The caller's token is part of it, as a hash: a caller who comes back with fewer rights must not
/// get what an earlier token of the same caller brought.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    principal: PrincipalId,
    subject: [u8; 32],
    target: Target,
}

struct Kept {
    token: Secret,
    until: Timestamp,
}

/// Members of a token response (RFC 8693 section 2.2.1).
#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    issued_token_type: Option<String>,
    token_type: String,
    expires_in: Option<u64>,
}

/// An error response (RFC 6749 section 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Exchanges callers' tokens at one token endpoint.
pub struct Exchanger {
    client: EgressClient,
    charter: Charter,
    /// What every request carries.
    form: Vec<(String, String)>,
    /// The secret, where it goes into the form.
    form_secret: Option<Credential>,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<Key, Kept>>,
    /// Exchanges under way: who needs the same token waits for it instead of asking as well.
    under_way: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for Exchanger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchanger").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Exchanger {
    /// `name` tells exchangers apart; the charter is `token-exchange:<name>`.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        name: &str,
        settings: &ExchangeSettings,
        clock: Arc<dyn Clock>,
        secrets: &dyn SecretResolver,
        charter: impl FnOnce(CharterGrant) -> Result<Charter, PolicyError>,
    ) -> Result<Self, TokenSettingsError> {
        let client_secret = secrets.credential(&settings.client_secret)?;
        let purpose = format!("token-exchange:{name}");
        let endpoint = &settings.token_endpoint;
        let mut config = client(purpose.clone(), endpoint, &settings.allow_addresses, &settings.tls)
            .map_err(|e| TokenSettingsError::Setting(format!("token_endpoint: {e}")))?;
        config.max_response_bytes = MAX_ANSWER;
        config.concurrency = 16;
        let mut form = vec![("grant_type".to_owned(), GRANT_TYPE.to_owned())];
        let mut form_secret = None;
        match settings.client_authentication {
            ClientAuthentication::Basic => {
                config.authentication = Authentication::Basic {
                    user: form_encoded(&settings.client_id),
                    password: Credential::Late(Arc::new(FormEncoded(client_secret))),
                };
            }
            ClientAuthentication::Post => {
                form.push(("client_id".to_owned(), settings.client_id.clone()));
                form_secret = Some(client_secret);
            }
        }
        let client = EgressClient::new(config)?;
        let charter = charter(CharterGrant {
            name: Arc::from(purpose),
            destinations: [client.origin().to_owned()].into(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: EXCHANGE_TIME,
            budget: Budget { backend_bytes: MAX_ANSWER, ..Budget::default() },
        })?;
        Ok(Self { client, charter, form, form_secret, clock, kept: Mutex::default(), under_way: Mutex::default() })
    }

    /// A token for `target` in the name of the caller of `permit`, who presented `subject`. From memory while it lives.
    ///
    /// # Errors
    /// When there is none to be had; the call must then fail, never go on with another token.
    pub async fn exchange(
        &self,
        permit: &Permit,
        subject: &SubjectToken,
        target: &Target,
    ) -> Result<ExchangedToken, ExchangeError> {
        if target.resource.is_none() && target.audience.is_none() {
            return Err(ExchangeError::NoTarget);
        }
        let now = self.clock.now();
        let subject_until = Timestamp::from_seconds(subject.expires);
        if subject_until <= now {
            return Err(ExchangeError::SubjectExpired);
        }
        let key = Key {
            principal: permit.principal_id().clone(),
            subject: *blake3::hash(subject.text.expose().as_bytes()).as_bytes(),
            target: target.clone(),
        };
        let remembered = || {
            let token = self.kept().get(&key).filter(|kept| kept.until > now).map(|kept| kept.token.clone());
            token.map(|token| ExchangedToken { token, fresh: false })
        };
        if let Some(known) = remembered() {
            return Ok(known);
        }
        let alone = self.alone(&key);
        let _asking = alone.lock().await;
        if let Some(known) = remembered() {
            return Ok(known);
        }
        let answer = self.ask(permit, subject, target).await?;
        let life = answer.expires_in.map_or(Duration::ZERO, Duration::from_secs).saturating_sub(MARGIN).min(KEPT_AT_MOST);
        let until = now.plus(life).min(subject_until);
        if until > now {
            self.keep(key, Kept { token: answer.access_token.clone(), until }, now);
        }
        Ok(ExchangedToken { token: answer.access_token, fresh: true })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of those who need this token.
    fn alone(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Only those are needed that somebody holds.
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        under_way.entry(key.clone()).or_default().clone()
    }

    fn keep(&self, key: Key, token: Kept, now: Timestamp) {
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, token| token.until > now);
        }
        // Full of living tokens: this one is asked for anew next time.
        if kept.len() < MAX_KEPT {
            kept.insert(key, token);
        }
    }

    async fn ask(&self, permit: &Permit, subject: &SubjectToken, target: &Target) -> Result<Answer, ExchangeError> {
        let failed = |reason: String| ExchangeError::Failed(reason);
        let own = self.charter.permit().with_deadline_at_most(permit.deadline());
        let request = EgressRequest::post(Vec::<String>::new()).form(self.form_of(subject, target).await?);
        let response = self.client.send(&own, request).await.map_err(|e| failed(e.to_string()))?;
        let status = response.status.as_u16();
        let strict = check_strict(&response.body, StrictLimits { depth: 8, members: 128 });
        if status != 200 {
            let refusal = serde_json::from_slice::<Refusal>(&response.body).ok().filter(|_| strict.is_ok() && status < 500);
            return Err(match refusal {
                Some(refusal) => ExchangeError::Refused(super::reason::shown(&refusal.error)),
                None => failed(format!("the token endpoint answered with status {status}")),
            });
        }
        strict.map_err(|_| failed("the answer of the token endpoint is not strict JSON".to_owned()))?;
        let answer: Answer = serde_json::from_slice(&response.body)
            .map_err(|_| failed("the answer of the token endpoint holds no token".to_owned()))?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(failed("the token endpoint issued a token that is no bearer token".to_owned()));
        }
        if answer.issued_token_type.as_deref().is_some_and(|kind| kind != ACCESS_TOKEN && kind != JWT) {
            return Err(failed("the token endpoint issued another kind of token".to_owned()));
        }
        let same = answer.access_token.expose().as_bytes().ct_eq(subject.text.expose().as_bytes());
        if answer.access_token.expose().is_empty() || bool::from(same) {
            return Err(failed("the token endpoint gave the caller's own token back; it is not passed on".to_owned()));
        }
        Ok(answer)
    }

    async fn form_of(&self, subject: &SubjectToken, target: &Target) -> Result<Vec<(String, String)>, ExchangeError> {
        let mut form = self.form.clone();
        let mut add = |name: &str, value: &str| form.push((name.to_owned(), value.to_owned()));
        if let Some(secret) = &self.form_secret {
            let secret = secret.current().await.map_err(|fault| ExchangeError::Failed(fault.to_string()))?;
            add("client_secret", secret.expose());
        }
        add("subject_token", subject.text.expose());
        add("subject_token_type", ACCESS_TOKEN);
        add("requested_token_type", ACCESS_TOKEN);
        for (name, value) in [("resource", &target.resource), ("audience", &target.audience), ("scope", &target.scope)] {
            if let Some(value) = value {
                add(name, value);
            }
        }
        Ok(form)
    }
}

/// A secret as RFC 6749 section 2.3.1 wants it in a header.
#[derive(Debug)]
struct FormEncoded(Credential);

#[async_trait]
impl SecretProvider for FormEncoded {
    async fn current(&self) -> Result<Secret, SecretFault> {
        Ok(Secret::new(form_encoded(self.0.current().await?.expose())))
    }
}

/// What an exchange brought.
#[derive(Debug, Clone)]
pub struct ExchangedToken {
    /// The token, made for the target.
    pub token: Secret,
    /// Whether the authorization server was asked for it now, rather than it being remembered.
    pub fresh: bool,
}

/// The exchangers of all issuers that have one.
#[derive(Debug)]
pub struct Exchanges(HashMap<String, Exchanger>);

impl Exchanges {
    /// From the settings; nothing where no issuer exchanges tokens. `charter` makes the charter of each.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        settings: &TokenSettings,
        clock: &Arc<dyn Clock>,
        secrets: &dyn SecretResolver,
        mut charter: impl FnMut(CharterGrant) -> Result<Charter, PolicyError>,
    ) -> Result<Option<Self>, TokenSettingsError> {
        let mut exchangers = HashMap::new();
        for issuer in &settings.issuers {
            let Some(exchange) = &issuer.exchange else { continue };
            let exchanger = Exchanger::new(&issuer.name, exchange, clock.clone(), secrets, &mut charter)?;
            exchangers.insert(issuer.name.clone(), exchanger);
        }
        Ok((!exchangers.is_empty()).then_some(Self(exchangers)))
    }

    /// A token for `target` in the name of the caller of `permit`.
    ///
    /// # Errors
    /// When there is none to be had; the request must then fail.
    pub async fn exchange(&self, permit: &Permit, target: &Target) -> Result<ExchangedToken, CallerFault> {
        let subject = permit.caller_token().and_then(CallerToken::open::<SubjectToken>).ok_or(CallerFault::NoToken)?;
        let exchanger = self.0.get(&*subject.issuer).ok_or(CallerFault::NoToken)?;
        Ok(exchanger.exchange(permit, subject, target).await?)
    }
}

/// `application/x-www-form-urlencoded`, as RFC 6749 section 2.3.1 wants user and password.
fn form_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            // Writing to a String never fails.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

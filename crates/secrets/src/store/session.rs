//! How this server stands with a store: logged in, its token renewed before it ends, logged in anew when the store no longer
//! knows it. Guards that the token goes to its store only and is wiped when it is replaced. Must not print it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::{
    AddressPolicy, Authentication, Credential, EgressClient, EgressConfig, EgressConfigError, EgressRequest, EgressResponse,
    SecretFault, SecretProvider,
};
use portcullis_model::{Clock, Secret, SecretReference, Timestamp};
use portcullis_policy::{Charter, Permit};
use serde_json::json;

use super::answer::{self, Issued};
use super::settings::{SecretStoreSettings, StoreAuth, parts};
use crate::local;

/// Largest answer.
pub(super) const MOST_BYTES: u64 = 1 << 20;
/// A token is not used in the last moments of its life, which it could spend on the way.
const MARGIN: Duration = Duration::from_secs(5);

/// The token in use; what the client presents.
#[derive(Default)]
struct Held(Mutex<Option<Secret>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(***)")
    }
}

#[async_trait]
impl SecretProvider for Held {
    async fn current(&self) -> Result<Secret, SecretFault> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        held.ok_or_else(|| SecretFault::Missing { reference: "of this store".into(), reason: "nobody is logged in".into() })
    }
}

/// What is known of the token in use.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// How often there was a login; tells tokens apart.
    login: u64,
    renewable: bool,
    renew_at: Option<Timestamp>,
    ends: Option<Timestamp>,
}

/// How the token in use stands, for the doctor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) renewable: bool,
    pub(super) ends: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Session {
    name: String,
    auth: StoreAuth,
    /// Presents the token in use.
    client: EgressClient,
    /// Presents nothing: logs in.
    stranger: EgressClient,
    held: Arc<Held>,
    life: tokio::sync::Mutex<Option<Life>>,
    logins: std::sync::atomic::AtomicU64,
    charter: OnceLock<Charter>,
    clock: Arc<dyn Clock>,
}

impl Session {
    pub(super) fn new(settings: &SecretStoreSettings, clock: Arc<dyn Clock>) -> Result<Self, EgressConfigError> {
        let held = Arc::new(Held::default());
        let client = |authentication| {
            let mut config = EgressConfig::new(format!("secret-store:{}", settings.name), &settings.url);
            config.authentication = authentication;
            // The store refuses requests that a browser could be tricked into.
            config.headers.push(("X-Vault-Request".to_owned(), "true".to_owned()));
            if let Some(namespace) = &settings.namespace {
                config.headers.push(("X-Vault-Namespace".to_owned(), namespace.clone()));
            }
            config.tls = settings.tls.clone().into();
            config.addresses = AddressPolicy::new(settings.allow_addresses.iter().copied());
            config.connect_timeout = settings.timeout.0;
            config.read_timeout = settings.timeout.0;
            config.max_response_bytes = MOST_BYTES;
            config.concurrency = 16;
            // A store that restarts is asked again soon; until then what needs it is refused.
            config.breaker_rest = Duration::from_secs(1);
            EgressClient::new(config)
        };
        let token = Authentication::Header { name: "X-Vault-Token".to_owned(), value: Credential::Late(held.clone()) };
        Ok(Self {
            name: settings.name.clone(),
            auth: settings.auth.clone(),
            client: client(token)?,
            stranger: client(Authentication::None)?,
            held,
            life: tokio::sync::Mutex::new(None),
            logins: std::sync::atomic::AtomicU64::new(0),
            charter: OnceLock::new(),
            clock,
        })
    }

    pub(super) fn origin(&self) -> &str {
        self.client.origin()
    }

    /// Allows it to ask. Only once; a second charter is ignored.
    pub(super) fn allow(&self, charter: Charter) {
        let _ = self.charter.set(charter);
    }

    fn permit(&self) -> Result<Permit, SecretFault> {
        let charter = self.charter.get().ok_or_else(|| self.unavailable("it is not asked before the rules are loaded".into()))?;
        Ok(charter.permit())
    }

    fn unavailable(&self, reason: String) -> SecretFault {
        SecretFault::Unavailable { reference: format!("of the store '{}'", self.name), reason }
    }

    /// Asks the store as the one who is logged in; logs in first where nobody is, and once more when the store no longer
    /// takes the token.
    pub(super) async fn ask(&self, request: EgressRequest) -> Result<EgressResponse, SecretFault> {
        let permit = self.permit()?;
        let used = self.logged_in(&permit).await?;
        let response = self.send(&self.client, &permit, request.clone()).await?;
        if response.status.as_u16() != 403 {
            return Ok(response);
        }
        answer::wipe(response.body);
        self.drop_login(used).await;
        self.logged_in(&permit).await?;
        self.send(&self.client, &permit, request).await
    }

    async fn send(&self, client: &EgressClient, permit: &Permit, request: EgressRequest) -> Result<EgressResponse, SecretFault> {
        client.send(permit, request).await.map_err(|error| self.unavailable(error.to_string()))
    }

    /// Makes sure that somebody is logged in, and renews what is about to end. The number of the login.
    async fn logged_in(&self, permit: &Permit) -> Result<u64, SecretFault> {
        let mut life = self.life.lock().await;
        let now = self.clock.now();
        if let Some(known) = life.filter(|life| life.ends.is_none_or(|ends| ends > now)) {
            if known.renew_at.is_some_and(|at| now >= at) {
                // A renewal that fails changes nothing until the token ends.
                if let Some(issued) = self.renew(permit).await {
                    *life = Some(Self::lives(known.login, &issued, self.clock.now()));
                } else if let Some(life) = life.as_mut() {
                    life.renew_at = Some(now.plus(MARGIN));
                }
            }
            return Ok(known.login);
        }
        *life = None;
        let issued = self.log_in(permit).await.inspect_err(|_| self.hold(None))?;
        let login = self.logins.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        *life = Some(Self::lives(login, &issued, self.clock.now()));
        Ok(login)
    }

    async fn drop_login(&self, used: u64) {
        let mut life = self.life.lock().await;
        // Somebody else may have logged in meanwhile.
        if life.is_some_and(|life| life.login == used) {
            *life = None;
            self.hold(None);
        }
    }

    fn hold(&self, token: Option<Secret>) {
        *self.held.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn lives(login: u64, issued: &Issued, now: Timestamp) -> Life {
        let ends = issued.life.map(|life| now.plus(life.saturating_sub(MARGIN)));
        // Two thirds of its life leave time to try again.
        let renew_at = issued.life.filter(|_| issued.renewable).map(|life| now.plus(life * 2 / 3));
        Life { login, renewable: issued.renewable, renew_at, ends }
    }

    async fn log_in(&self, permit: &Permit) -> Result<Issued, SecretFault> {
        let (mount, body) = match &self.auth {
            StoreAuth::Token(reference) => return self.take_token(permit, reference).await,
            StoreAuth::AppRole(role) => {
                let secret_id = own(&role.secret_id)?;
                (&role.mount, json!({"role_id": role.role_id, "secret_id": secret_id.expose()}))
            }
            StoreAuth::Kubernetes(role) => {
                let jwt = self.service_account(&role.jwt_file)?;
                (&role.mount, json!({"role": role.role, "jwt": jwt.expose()}))
            }
        };
        let path = ["v1", "auth"].into_iter().map(str::to_owned).chain(parts(mount)).chain(["login".to_owned()]);
        let response = self.send(&self.stranger, permit, EgressRequest::post(path).json(body)).await?;
        let issued = match response.status.as_u16() {
            200 => answer::issued(&response.body).map_err(|_| self.unavailable("it answers a login with something else".into())),
            status => Err(self.unavailable(format!("it refuses the login with status {status}"))),
        };
        answer::wipe(response.body);
        let issued = issued?;
        self.hold(issued.token.clone());
        Ok(issued)
    }

    /// A token that was made elsewhere: the store says how long it lives.
    async fn take_token(&self, permit: &Permit, reference: &SecretReference) -> Result<Issued, SecretFault> {
        self.hold(Some(own(reference)?));
        let path = ["v1", "auth", "token", "lookup-self"];
        let response = self.send(&self.client, permit, EgressRequest::get(path)).await?;
        let known = match response.status.as_u16() {
            200 => answer::looked_up(&response.body).map_err(|_| self.unavailable("what it says of the token is unclear".into())),
            403 => Err(self.unavailable("it does not take the token".into())),
            status => Err(self.unavailable(format!("it answers with status {status}"))),
        };
        answer::wipe(response.body);
        known
    }

    /// A renewed token; nothing when the store does not renew it now.
    async fn renew(&self, permit: &Permit) -> Option<Issued> {
        let path = ["v1", "auth", "token", "renew-self"];
        let response = self.send(&self.client, permit, EgressRequest::post(path).json(json!({}))).await.ok()?;
        let renewed = (response.status.as_u16() == 200).then(|| answer::issued(&response.body).ok()).flatten();
        answer::wipe(response.body);
        if let Some(Issued { token: Some(token), .. }) = &renewed {
            self.hold(Some(token.clone()));
        }
        renewed
    }

    /// Renews what is about to end, so that a token lives on while nobody needs a secret. Logs nobody in.
    pub(super) async fn tend(&self) {
        let due = self.life.lock().await.is_some_and(|life| life.renew_at.is_some_and(|at| self.clock.now() >= at));
        if due && let Ok(permit) = self.permit() {
            // What fails is tried again, and said when a secret is needed.
            let _ = self.logged_in(&permit).await;
        }
    }

    /// Whether it lets this server in.
    pub(super) async fn check(&self) -> Result<Standing, SecretFault> {
        let response = self.ask(EgressRequest::get(["v1", "auth", "token", "lookup-self"])).await?;
        let status = response.status.as_u16();
        answer::wipe(response.body);
        if status != 200 {
            return Err(self.unavailable(format!("it answers with status {status}")));
        }
        let life = self.life.lock().await;
        Ok(Standing { renewable: life.is_some_and(|life| life.renewable), ends: life.and_then(|life| life.ends) })
    }

    /// The token of the pod. Every process of the pod may read it, so its mode says nothing.
    fn service_account(&self, path: &Path) -> Result<Secret, SecretFault> {
        local::public_file(path).map_err(|reason| self.unavailable(format!("the service account's token: {reason}")))
    }
}

/// What opens the store, as it is now.
fn own(reference: &SecretReference) -> Result<Secret, SecretFault> {
    match reference {
        SecretReference::Environment(name) => local::environment(name).map(|reading| reading.secret),
        SecretReference::File(path) => local::file(path).map(|reading| reading.secret),
        other => Err(SecretFault::Refused { reference: other.to_string(), reason: "it cannot open a store".into() }),
    }
}

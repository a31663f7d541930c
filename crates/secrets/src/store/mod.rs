//! A secret store over HTTP: the key/value engines of HashiCorp Vault and OpenBao
//! (<https://developer.hashicorp.com/vault/api-docs/secret/kv>). Guards that a value is used no longer than configured and no
//! longer than the store allows, and that a store that does not answer refuses what needs it. Must not print or log a value,
//! nor repeat what a store answered.

mod answer;
mod session;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_egress::{EgressConfigError, EgressRequest, SecretFault};
use portcullis_model::{Clock, Scope, Secret, SecretReference, TenantId, Timestamp, format_duration};
use portcullis_policy::{Budget, Charter, CharterGrant, PolicyError};

use answer::Found;
use session::Session;
pub use settings::{AppRole, KubernetesRole, KvVersion, SecretStoreSettings, StoreAuth, StoreKind};

use crate::local::Reading;

/// Values kept at once; the configuration names far fewer.
const MOST_KEPT: usize = 1_000;

/// Settings of a store that cannot work. For the operator to fix.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A setting.
    #[error("secret_stores: '{0}': {1}")]
    Setting(String, String),
    /// Two of one name.
    #[error("secret_stores: there are two stores named '{0}'")]
    Duplicate(String),
    /// The connection.
    #[error("secret_stores: {0}")]
    Egress(#[from] EgressConfigError),
}

/// How a store stands, for the doctor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// Its name.
    pub name: String,
    /// What it says of this server's token, or why it does not answer.
    pub state: Result<String, String>,
}

struct Kept {
    secret: Secret,
    since: Option<Timestamp>,
    until: Timestamp,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("until", &self.until).finish_non_exhaustive()
    }
}

type Place = (Vec<String>, String);
/// One value. Locked while it is looked up, so that many requests at once ask once.
type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

/// One store.
#[derive(Debug)]
pub(crate) struct Store {
    name: String,
    mount: Vec<String>,
    version: KvVersion,
    cache: Duration,
    time_limit: Duration,
    session: Session,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<Place, Slot>>,
}

impl Store {
    /// Checks the settings and makes the clients. Asks nothing.
    pub(crate) fn new(settings: &SecretStoreSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let shown: String = settings.name.chars().filter(|c| !c.is_control()).take(60).collect();
        settings.check().map_err(|reason| StoreError::Setting(shown, reason))?;
        Ok(Self {
            name: settings.name.clone(),
            mount: settings::parts(&settings.mount),
            version: settings.version,
            cache: settings.cache.0,
            time_limit: settings.timeout.0,
            session: Session::new(settings, clock.clone())?,
            clock,
            kept: Mutex::default(),
        })
    }

    /// Allows it to ask, under a charter of its own.
    pub(crate) fn allow(&self, charter: &mut dyn FnMut(CharterGrant) -> Result<Charter, PolicyError>) -> Result<(), PolicyError> {
        self.session.allow(charter(CharterGrant {
            name: Arc::from(format!("secret-store:{}", self.name)),
            destinations: [self.session.origin().to_owned()].into(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: self.time_limit,
            budget: Budget { backend_bytes: session::MOST_BYTES, ..Budget::default() },
        })?);
        Ok(())
    }

    fn slot(&self, place: &Place) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT && !kept.contains_key(place) {
            kept.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        kept.entry(place.clone()).or_default().clone()
    }

    /// The value of a field, from memory while it may be used.
    pub(crate) async fn read(&self, path: &[String], field: &str) -> Result<Reading, SecretFault> {
        let place = (path.to_vec(), field.to_owned());
        let slot = self.slot(&place);
        let mut kept = slot.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.until > self.clock.now()) {
            return Ok(Reading { secret: kept.secret.clone(), since: kept.since });
        }
        // Wiped before it is asked for anew: what is over is not used, whatever the store says.
        *kept = None;
        let asked = self.clock.now();
        let found = self.fetch(path, field).await?;
        let lease = found.lease.map_or(self.cache, |lease| lease.min(self.cache));
        let until = found.ends.map_or(asked.plus(lease), |ends| ends.min(asked.plus(lease)));
        if found.ends.is_some_and(|ends| ends <= asked) {
            return Err(self.missing(path, field, "its version is deleted"));
        }
        *kept = Some(Kept { secret: found.secret.clone(), since: found.since, until });
        Ok(Reading { secret: found.secret, since: found.since })
    }

    async fn fetch(&self, path: &[String], field: &str) -> Result<answer::Field, SecretFault> {
        let reference = || self.reference(path, field);
        let unavailable = |reason: String| SecretFault::Unavailable { reference: reference(), reason };
        let mut segments = vec!["v1".to_owned()];
        segments.extend(self.mount.iter().cloned());
        if self.version == KvVersion::V2 {
            segments.push("data".to_owned());
        }
        segments.extend(path.iter().cloned());
        let response = self.session.ask(EgressRequest::get(segments)).await.map_err(|fault| unavailable(fault.to_string()))?;
        let store = &self.name;
        let read = match response.status.as_u16() {
            200 => match answer::field(self.version, &response.body, field) {
                Ok(Found::Field(found)) => Ok(found),
                Ok(Found::NoField) => Err(self.missing(path, field, "there is no such field, or it is empty or deleted")),
                Ok(Found::NoText) => Err(SecretFault::Refused { reference: reference(), reason: "the field is no text".into() }),
                Err(answer::Unreadable) => {
                    Err(unavailable(format!("the store '{store}' answers something else; check mount and version")))
                }
            },
            404 => Err(self.missing(path, field, "there is nothing at this path")),
            403 => Err(SecretFault::Refused {
                reference: reference(),
                reason: format!("the store '{store}' does not let this server read it; look at its policy there"),
            }),
            503 => Err(unavailable(format!("the store '{store}' is sealed or in maintenance"))),
            status => Err(unavailable(format!("the store '{store}' answers with status {status}"))),
        };
        answer::wipe(response.body);
        read
    }

    fn reference(&self, path: &[String], field: &str) -> String {
        SecretReference::Store { store: self.name.clone(), path: path.to_vec(), field: field.to_owned() }.to_string()
    }

    fn missing(&self, path: &[String], field: &str, reason: &str) -> SecretFault {
        SecretFault::Missing { reference: self.reference(path, field), reason: reason.to_owned() }
    }

    /// Keeps this server's token alive, and forgets values that are over.
    pub(crate) async fn tend(&self) {
        self.session.tend().await;
        let slots: Vec<Slot> = self.kept.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let now = self.clock.now();
        for slot in slots {
            // Whoever looks it up at the moment sees to it.
            if let Ok(mut kept) = slot.try_lock()
                && kept.as_ref().is_some_and(|kept| kept.until <= now)
            {
                *kept = None;
            }
        }
    }

    /// How it stands.
    pub(crate) async fn report(&self) -> StoreReport {
        let state = match self.session.check().await {
            Ok(standing) => Ok(match standing.ends {
                None => "answers; this server's token does not end".to_owned(),
                Some(ends) => {
                    let left = format_duration(Duration::from_secs(ends.since(self.clock.now()).as_secs()));
                    let renewed = if standing.renewable { "and is renewed" } else { "and cannot be renewed" };
                    format!("answers; this server's token ends in {left} {renewed}")
                }
            }),
            Err(fault) => Err(fault.to_string()),
        };
        StoreReport { name: self.name.clone(), state }
    }
}

#[cfg(test)]
mod tests;

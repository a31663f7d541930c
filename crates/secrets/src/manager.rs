//! The manager: entries by name, late lookup, expiry and rotation. Guards that an expired secret is never handed out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use portcullis_egress::{CallerCredentials, Credential, LiteralSecrets, SecretFault, SecretProvider, SecretResolver};
use portcullis_model::{Clock, Secret, SecretReference, Timestamp, format_duration, is_secret_name};
use portcullis_policy::{Charter, CharterGrant, PolicyError};
use serde::Serialize;

use crate::local::{self, Reading};
use crate::store::{Store, Stored};
use crate::{SecretSettings, SecretSettingsError, SecretStoreSettings, SecretType, StoreError, StoreReport};

/// Before its end a secret is said to expire soon.
const SOON: Duration = Duration::from_hours(14 * 24);

/// How a secret stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretState {
    /// Usable.
    Ok,
    /// Usable for less than 14 days.
    Expiring,
    /// Usable, and due to be replaced.
    Overdue,
    /// Refused: its time is over.
    Expired,
    /// Refused: not there.
    Missing,
    /// Refused: it may not or cannot be used.
    Refused,
    /// Refused: its store gives no answer.
    Unavailable,
}

impl SecretState {
    /// Whether a request that needs it goes out.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Ok | Self::Expiring | Self::Overdue)
    }

    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expiring => "expires soon",
            Self::Overdue => "overdue for rotation",
            Self::Expired => "expired",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Unavailable => "cannot be had",
        }
    }
}

/// One entry as an operator sees it; never the value.
#[derive(Debug, Clone, Serialize)]
pub struct SecretReport {
    /// Name.
    pub name: String,
    /// `token`, `password`, `key`, `certificate`.
    #[serde(rename = "type")]
    pub kind: SecretType,
    /// Where it is kept.
    pub reference: String,
    /// How it stands.
    pub state: SecretState,
    /// In words, with the mend where there is one.
    pub detail: String,
}

/// Every secret the configuration names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SecretManager {
    entries: Arc<BTreeMap<String, Arc<Entry>>>,
    stores: Arc<Stores>,
    callers: Option<Arc<dyn CallerCredentials>>,
}

type Stores = BTreeMap<String, Arc<Store>>;

#[derive(Debug)]
struct Entry {
    settings: SecretSettings,
    clock: Arc<dyn Clock>,
    stores: Arc<Stores>,
}

async fn read(reference: &SecretReference, stores: &Stores) -> Result<Reading, SecretFault> {
    match reference {
        SecretReference::Environment(name) => local::environment(name),
        SecretReference::File(path) => local::file(path),
        SecretReference::Store { store, path, field } => match stores.get(store) {
            Some(store) => store.read(path, field).await,
            None => Err(no_store(reference, store)),
        },
        other => Err(SecretFault::Unavailable { reference: other.to_string(), reason: "it is kept elsewhere".into() }),
    }
}

fn no_store(reference: &SecretReference, store: &str) -> SecretFault {
    let reason = format!("secret_stores has no store '{store}'");
    SecretFault::Unavailable { reference: reference.to_string(), reason }
}

impl Entry {
    async fn read(&self) -> Result<Reading, SecretFault> {
        if let Some(end) = self.settings.expires_at.filter(|end| self.clock.now() >= end.0) {
            return Err(SecretFault::Expired { reference: self.settings.name.clone(), at: end.0 });
        }
        read(&self.settings.reference, &self.stores).await
    }

    async fn report(&self) -> SecretReport {
        let now = self.clock.now();
        let (state, detail) = match self.read().await {
            Ok(reading) => self.standing(reading.since, now),
            Err(fault) => {
                let state = match fault {
                    SecretFault::Expired { .. } => SecretState::Expired,
                    SecretFault::Missing { .. } => SecretState::Missing,
                    SecretFault::Unavailable { .. } => SecretState::Unavailable,
                    SecretFault::Refused { .. } => SecretState::Refused,
                };
                (state, fault.to_string())
            }
        };
        let settings = &self.settings;
        SecretReport {
            name: settings.name.clone(),
            kind: settings.kind,
            reference: settings.reference.to_string(),
            state,
            detail,
        }
    }

    /// How a secret that can be used stands.
    fn standing(&self, since: Option<Timestamp>, now: Timestamp) -> (SecretState, String) {
        let whole = |d: Duration| format_duration(Duration::from_secs(d.as_secs() / 60 * 60));
        let since = self.settings.rotated_at.map(|d| d.0).or(since);
        if let Some(every) = self.settings.rotate_every {
            match since {
                Some(since) if now.since(since) > every.0 => {
                    return (SecretState::Overdue, format!("in use for {}; replace it", whole(now.since(since))));
                }
                Some(_) => {}
                None => return (SecretState::Overdue, "nobody knows since when it is in use; set rotated_at".to_owned()),
            }
        }
        match self.settings.expires_at {
            Some(end) => {
                let left = end.0.since(now);
                let state = if left < SOON { SecretState::Expiring } else { SecretState::Ok };
                (state, format!("expires in {} ({})", whole(left), end.0))
            }
            None => (SecretState::Ok, "does not expire".to_owned()),
        }
    }
}

#[async_trait]
impl SecretProvider for Entry {
    async fn current(&self) -> Result<Secret, SecretFault> {
        self.read().await.map(|reading| reading.secret)
    }
}

/// A reference without an entry: no expiry is known.
#[derive(Debug)]
struct Direct(SecretReference, Arc<Stores>);

#[async_trait]
impl SecretProvider for Direct {
    async fn current(&self) -> Result<Secret, SecretFault> {
        read(&self.0, &self.1).await.map(|reading| reading.secret)
    }
}

impl SecretManager {
    /// Checks entries and stores. Reads no secret and asks nobody; stores are asked only after [`SecretManager::allow`].
    ///
    /// # Errors
    /// See [`SecretSettingsError`].
    pub fn new(
        secrets: &[SecretSettings],
        stores: &[SecretStoreSettings],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, SecretSettingsError> {
        let mut known = Stores::new();
        for settings in stores {
            let store = Arc::new(Store::new(settings, clock.clone())?);
            if known.insert(settings.name.clone(), store).is_some() {
                return Err(StoreError::Duplicate(settings.name.clone()).into());
            }
        }
        let stores = Arc::new(known);
        let mut entries = BTreeMap::new();
        for settings in secrets {
            let name = settings.name.clone();
            if !is_secret_name(&name) {
                return Err(SecretSettingsError::Name(name.chars().filter(|c| !c.is_control()).take(60).collect()));
            }
            let wrong = |why| SecretSettingsError::Reference(name.clone(), why);
            match &settings.reference {
                SecretReference::Environment(_) | SecretReference::File(_) => {}
                SecretReference::Literal(_) => return Err(wrong("a value itself does not belong in the configuration")),
                SecretReference::Named(_) => return Err(wrong("an entry cannot refer to another one")),
                SecretReference::Store { store, .. } if stores.contains_key(store) => {}
                SecretReference::Store { .. } => return Err(wrong("secret_stores has no store of that name")),
            }
            let entry = Arc::new(Entry { settings: settings.clone(), clock: clock.clone(), stores: stores.clone() });
            if entries.insert(name.clone(), entry).is_some() {
                return Err(SecretSettingsError::Duplicate(name));
            }
        }
        Ok(Self { entries: Arc::new(entries), stores, callers: None })
    }

    /// The same, and whoever has credentials in the names of callers.
    #[must_use]
    pub fn with_callers(self, callers: Option<Arc<dyn CallerCredentials>>) -> Self {
        Self { callers, ..self }
    }

    /// Allows the stores to be asked, each under a charter of its own.
    ///
    /// # Errors
    /// When a charter cannot be made.
    pub fn allow(&self, charter: &mut dyn FnMut(CharterGrant) -> Result<Charter, PolicyError>) -> Result<(), PolicyError> {
        self.stores.values().try_for_each(|store| store.allow(charter))
    }

    /// How every entry stands, by name.
    pub async fn report(&self) -> Vec<SecretReport> {
        join_all(self.entries.values().map(|entry| entry.report())).await
    }

    /// How every store stands, by name.
    pub async fn stores(&self) -> Vec<StoreReport> {
        join_all(self.stores.values().map(|store| store.report())).await
    }

    /// Keeps this server's tokens at the stores alive and forgets values that are over. To be called every few seconds.
    pub async fn tend(&self) {
        join_all(self.stores.values().map(|store| store.tend())).await;
    }
}

impl SecretResolver for SecretManager {
    fn callers(&self) -> Result<Arc<dyn CallerCredentials>, SecretFault> {
        match &self.callers {
            Some(callers) => Ok(callers.clone()),
            None => LiteralSecrets.callers(),
        }
    }

    fn credential(&self, reference: &SecretReference) -> Result<Credential, SecretFault> {
        let unknown = |reason: String| SecretFault::Unavailable { reference: reference.to_string(), reason };
        match reference {
            SecretReference::Literal(secret) => Ok(Credential::Fixed(secret.clone())),
            SecretReference::Environment(_) | SecretReference::File(_) => {
                Ok(Credential::Late(Arc::new(Direct(reference.clone(), self.stores.clone()))))
            }
            SecretReference::Named(name) => match self.entries.get(name) {
                Some(entry) => Ok(Credential::Late(entry.clone())),
                None => Err(unknown(format!("the secrets section has no entry '{name}'"))),
            },
            SecretReference::Store { store, path, field } => match self.stores.get(store) {
                Some(store) => {
                    Ok(Credential::Late(Arc::new(Stored { store: store.clone(), path: path.clone(), field: field.clone() })))
                }
                None => Err(no_store(reference, store)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::ManualClock;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(text: &str) -> SecretSettings {
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn an_expired_secret_is_refused_and_the_report_follows_the_clock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = entry(&format!(
            r#"{{"name":"prom","reference":"file:{}","expires_at":"2030-02-01T00:00:00Z","rotate_every":"90d","rotated_at":"2030-01-01T00:00:00Z"}}"#,
            path.display()
        ));
        let start = portcullis_model::parse_instant("2030-01-01T00:00:00Z", Timestamp::default()).unwrap();
        let clock = ManualClock::new(start);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let manager = SecretManager::new(&[settings], &[], &shared).unwrap();
        let credential = manager.credential(&"secret:prom".parse().unwrap()).unwrap();
        assert_eq!(credential.current().await.unwrap().expose(), "hunter2");
        assert_eq!(manager.report().await[0].state, SecretState::Ok);
        clock.advance(Duration::from_hours(20 * 24));
        assert_eq!(manager.report().await[0].state, SecretState::Expiring);
        // Replaced in place: the next request has the new one.
        std::fs::write(&path, "hunter3").unwrap();
        assert_eq!(credential.current().await.unwrap().expose(), "hunter3");
        clock.advance(Duration::from_hours(11 * 24));
        assert!(matches!(credential.current().await, Err(SecretFault::Expired { .. })));
        assert_eq!(manager.report().await[0].state, SecretState::Expired);
        let shown = format!("{manager:?}{credential:?}{}", serde_json::to_string(&manager.report().await).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[tokio::test]
    async fn what_is_overdue_or_missing_is_said() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_seconds(1_900_000_000)));
        let cargo = entry(r#"{"name":"a","reference":"env:CARGO_MANIFEST_DIR","rotate_every":"1d"}"#);
        let old = entry(r#"{"name":"b","reference":"env:PATH","rotate_every":"1d","rotated_at":"2020-01-01T00:00:00Z"}"#);
        let none = entry(r#"{"name":"c","reference":"env:PORTCULLIS_NO_SUCH_VARIABLE"}"#);
        let manager = SecretManager::new(&[cargo, old, none], &[], &clock).unwrap();
        let states: Vec<SecretState> = manager.report().await.iter().map(|r| r.state).collect();
        assert_eq!(states, [SecretState::Overdue, SecretState::Overdue, SecretState::Missing]);
    }

    #[test]
    fn entries_that_cannot_work_are_refused() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::default()));
        let new = |entries: &[SecretSettings]| SecretManager::new(entries, &[], &clock).map(|_| ()).unwrap_err().to_string();
        assert!(new(&[entry(r#"{"name":"A","reference":"env:X"}"#)]).contains("not a name"));
        let literal = new(&[entry(r#"{"name":"a","reference":"hunter2"}"#)]);
        assert!(literal.contains("does not belong") && !literal.contains("hunter2"));
        assert!(new(&[entry(r#"{"name":"a","reference":"secret:b"}"#)]).contains("another"));
        assert!(new(&[entry(r#"{"name":"a","reference":"vault:main/x#y"}"#)]).contains("has no store"));
        let same = entry(r#"{"name":"a","reference":"env:X"}"#);
        assert!(new(&[same.clone(), same]).contains("two entries"));
        let manager = SecretManager::new(&[], &[], &clock).unwrap();
        assert!(manager.credential(&"secret:none".parse().unwrap()).is_err());
        assert!(manager.credential(&"vault:main/x#y".parse().unwrap()).is_err(), "no such store");
        for text in ["now", "now-1d", "1900000000", "2027-01-31"] {
            let json = format!(r#"{{"name":"a","reference":"env:X","expires_at":"{text}"}}"#);
            assert!(serde_json::from_str::<SecretSettings>(&json).is_err(), "{text}");
        }
    }
}

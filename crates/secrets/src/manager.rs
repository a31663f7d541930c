//! The manager: entries by name, late lookup, expiry and rotation. Guards that an expired secret is never handed out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use portcullis_egress::{CallerCredentials, Credential, LiteralSecrets, SecretFault, SecretProvider, SecretResolver};
use portcullis_model::{Clock, Secret, SecretReference, Timestamp, format_duration, is_secret_name};
use portcullis_policy::{Charter, CharterGrant, PolicyError};
use serde::Serialize;

use crate::local::{self, Reading};
use crate::store::Store;
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
    /// `token`, `password`, `key`, `certificate`; none where a setting refers to it without an entry.
    #[serde(rename = "type")]
    pub kind: Option<SecretType>,
    /// Where it is kept.
    pub reference: String,
    /// How it stands.
    pub state: SecretState,
    /// In words, with the mend where there is one.
    pub detail: String,
    /// Tells one value from another, to whoever has the key of the look; none where there is no value, or no key was given.
    #[serde(skip)]
    pub mark: Option<SecretMark>,
}

/// A keyed digest of a value, 128 bits. Without the key it tells nothing about the value.
pub type SecretMark = [u8; 16];

/// Every secret the configuration names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SecretManager {
    entries: Arc<BTreeMap<String, Arc<Entry>>>,
    stores: Arc<Stores>,
    /// What settings refer to without an entry, as long as somebody uses it.
    direct: Arc<Mutex<Vec<Weak<Direct>>>>,
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
        let reading = read(&self.settings.reference, &self.stores).await?;
        match self.settings.kind.check(&reading.secret) {
            Ok(()) => Ok(reading),
            Err(reason) => Err(SecretFault::Refused { reference: self.settings.name.clone(), reason }),
        }
    }

    async fn report(&self, key: Option<&[u8; 32]>) -> SecretReport {
        let now = self.clock.now();
        let (state, detail, mark) = match self.read().await {
            Ok(reading) => {
                let (state, detail) = self.standing(reading.since, now);
                (state, detail, key.map(|key| mark(key, &reading.secret)))
            }
            Err(fault) => (state_of(&fault), fault.to_string(), None),
        };
        let settings = &self.settings;
        SecretReport {
            name: settings.name.clone(),
            kind: Some(settings.kind),
            reference: settings.reference.to_string(),
            state,
            detail,
            mark,
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

fn state_of(fault: &SecretFault) -> SecretState {
    match fault {
        SecretFault::Expired { .. } => SecretState::Expired,
        SecretFault::Missing { .. } => SecretState::Missing,
        SecretFault::Unavailable { .. } => SecretState::Unavailable,
        SecretFault::Refused { .. } => SecretState::Refused,
    }
}

fn mark(key: &[u8; 32], secret: &Secret) -> SecretMark {
    let digest = blake3::keyed_hash(key, secret.expose().as_bytes());
    let mut mark = SecretMark::default();
    for (place, byte) in mark.iter_mut().zip(digest.as_bytes()) {
        *place = *byte;
    }
    mark
}

/// A reference without an entry: no expiry is known.
#[derive(Debug)]
struct Direct(SecretReference, Arc<Stores>);

impl Direct {
    async fn report(&self, key: Option<&[u8; 32]>) -> SecretReport {
        let reference = self.0.to_string();
        let (state, detail, mark) = match read(&self.0, &self.1).await {
            Ok(reading) => {
                let detail = "no end is known; an entry of the secrets section can give it one".to_owned();
                (SecretState::Ok, detail, key.map(|key| mark(key, &reading.secret)))
            }
            Err(fault) => (state_of(&fault), fault.to_string(), None),
        };
        SecretReport { name: reference.clone(), kind: None, reference, state, detail, mark }
    }
}

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
        Ok(Self { entries: Arc::new(entries), stores, direct: Arc::default(), callers: None })
    }

    /// The same, which also speaks of what settings refer to by way of `before`: after a change of the configuration, some
    /// of those who look up secrets stay.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        Self { direct: before.direct.clone(), ..self }
    }

    fn refer(&self, reference: &SecretReference) -> Credential {
        let direct = Arc::new(Direct(reference.clone(), self.stores.clone()));
        let mut known = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.strong_count() > 0);
        known.push(Arc::downgrade(&direct));
        Credential::Late(direct)
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

    /// How every entry stands, by name, and then everything settings refer to without one.
    pub async fn report(&self) -> Vec<SecretReport> {
        self.look(None, true).await
    }

    /// The same, with marks that tell one value from another; of what this machine keeps alone unless `stores` are asked.
    pub async fn marked_report(&self, key: &[u8; 32], stores: bool) -> Vec<SecretReport> {
        self.look(Some(key), stores).await
    }

    async fn look(&self, key: Option<&[u8; 32]>, stores: bool) -> Vec<SecretReport> {
        let wanted = |reference: &SecretReference| stores || !matches!(reference, SecretReference::Store { .. });
        let direct: BTreeMap<String, Arc<Direct>> = {
            let known = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.iter().filter_map(Weak::upgrade).filter(|one| wanted(&one.0));
            known.map(|one| (one.0.to_string(), one)).collect()
        };
        let entries = self.entries.values().filter(|entry| wanted(&entry.settings.reference));
        let mut reports = join_all(entries.map(|entry| entry.report(key))).await;
        reports.extend(join_all(direct.values().map(|one| one.report(key))).await);
        reports
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
            SecretReference::Environment(_) | SecretReference::File(_) => Ok(self.refer(reference)),
            SecretReference::Named(name) => match self.entries.get(name) {
                Some(entry) => Ok(Credential::Late(entry.clone())),
                None => Err(unknown(format!("the secrets section has no entry '{name}'"))),
            },
            SecretReference::Store { store, .. } if self.stores.contains_key(store) => Ok(self.refer(reference)),
            SecretReference::Store { store, .. } => Err(no_store(reference, store)),
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
    async fn what_is_referred_to_without_an_entry_is_told_as_long_as_it_is_used() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::default()));
        let before = SecretManager::new(&[], &[], &clock).unwrap();
        let [path, none] =
            ["env:PATH", "env:PORTCULLIS_NO_SUCH_VARIABLE"].map(|r| before.credential(&r.parse().unwrap()).unwrap());
        let again = before.credential(&"env:PATH".parse().unwrap()).unwrap();
        let manager = SecretManager::new(&[], &[], &clock).unwrap().after(&before);
        let reports = manager.marked_report(&[7; 32], true).await;
        let said: Vec<(&str, SecretState, bool)> = reports.iter().map(|r| (r.name.as_str(), r.state, r.mark.is_some())).collect();
        assert_eq!(said, [("env:PATH", SecretState::Ok, true), ("env:PORTCULLIS_NO_SUCH_VARIABLE", SecretState::Missing, false)]);
        assert_ne!(manager.marked_report(&[8; 32], false).await[0].mark, reports[0].mark);
        assert_eq!(manager.report().await[0].mark, None);
        drop((path, none));
        assert_eq!(manager.report().await.len(), 1, "one still uses it");
        drop(again);
        assert!(manager.report().await.is_empty());
    }

    #[tokio::test]
    async fn a_value_that_is_not_of_its_type_is_refused() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::default()));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        std::fs::write(&path, "hunter2 and more").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = |kind: &str| entry(&format!(r#"{{"name":"a","reference":"file:{}","type":"{kind}"}}"#, path.display()));
        for (kind, fits) in [("token", false), ("password", true), ("key", false), ("certificate", false)] {
            let manager = SecretManager::new(&[settings(kind)], &[], &clock).unwrap();
            let current = manager.credential(&"secret:a".parse().unwrap()).unwrap().current().await;
            let report = manager.report().await.remove(0);
            assert_eq!((current.is_ok(), report.state == SecretState::Ok), (fits, fits), "{kind}: {report:?}");
            assert!(fits || report.state == SecretState::Refused && !report.detail.contains("hunter"), "{report:?}");
        }
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

//! The manager: entries by name, late lookup, expiry and rotation. Guards that an expired secret is never handed out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_egress::{Credential, SecretFault, SecretProvider, SecretResolver};
use portcullis_model::{Clock, Secret, SecretReference, Timestamp, format_duration, is_secret_name};
use serde::Serialize;

use crate::local::{self, Reading};
use crate::{SecretSettings, SecretSettingsError, SecretType};

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
}

#[derive(Debug)]
struct Entry {
    settings: SecretSettings,
    clock: Arc<dyn Clock>,
}

fn read(reference: &SecretReference) -> Result<Reading, SecretFault> {
    match reference {
        SecretReference::Environment(name) => local::environment(name),
        SecretReference::File(path) => local::file(path),
        other => Err(SecretFault::Unavailable { reference: other.to_string(), reason: "it is kept elsewhere".into() }),
    }
}

impl Entry {
    fn read(&self) -> Result<Reading, SecretFault> {
        if let Some(end) = self.settings.expires_at.filter(|end| self.clock.now() >= end.0) {
            return Err(SecretFault::Expired { reference: self.settings.name.clone(), at: end.0 });
        }
        read(&self.settings.reference)
    }

    fn report(&self) -> SecretReport {
        let now = self.clock.now();
        let (state, detail) = match self.read() {
            Ok(reading) => self.standing(reading.since, now),
            Err(fault) => {
                let state = match fault {
                    SecretFault::Expired { .. } => SecretState::Expired,
                    SecretFault::Missing { .. } => SecretState::Missing,
                    _ => SecretState::Refused,
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
        self.read().map(|reading| reading.secret)
    }
}

/// A reference without an entry: no expiry is known.
#[derive(Debug)]
struct Direct(SecretReference);

#[async_trait]
impl SecretProvider for Direct {
    async fn current(&self) -> Result<Secret, SecretFault> {
        read(&self.0).map(|reading| reading.secret)
    }
}

impl SecretManager {
    /// Checks the entries. Reads no secret.
    ///
    /// # Errors
    /// See [`SecretSettingsError`].
    pub fn new(secrets: &[SecretSettings], clock: &Arc<dyn Clock>) -> Result<Self, SecretSettingsError> {
        let mut entries = BTreeMap::new();
        for settings in secrets {
            let name = settings.name.clone();
            if !is_secret_name(&name) {
                return Err(SecretSettingsError::Name(name.chars().filter(|c| !c.is_control()).take(60).collect()));
            }
            let wrong = |why| SecretSettingsError::Reference(name.clone(), why);
            match settings.reference {
                SecretReference::Environment(_) | SecretReference::File(_) => {}
                SecretReference::Literal(_) => return Err(wrong("a value itself does not belong in the configuration")),
                SecretReference::Named(_) => return Err(wrong("an entry cannot refer to another one")),
                SecretReference::Store { .. } => return Err(wrong("no store is configured")),
            }
            let entry = Arc::new(Entry { settings: settings.clone(), clock: clock.clone() });
            if entries.insert(name.clone(), entry).is_some() {
                return Err(SecretSettingsError::Duplicate(name));
            }
        }
        Ok(Self { entries: Arc::new(entries) })
    }

    /// How every entry stands, by name.
    pub fn report(&self) -> Vec<SecretReport> {
        self.entries.values().map(|entry| entry.report()).collect()
    }

    /// The environment variables that carry entries: nothing this process starts may inherit them.
    pub fn variables(&self) -> Vec<String> {
        let variable = |entry: &Arc<Entry>| match &entry.settings.reference {
            SecretReference::Environment(name) => Some(name.clone()),
            _ => None,
        };
        self.entries.values().filter_map(variable).collect()
    }
}

impl SecretResolver for SecretManager {
    fn credential(&self, reference: &SecretReference) -> Result<Credential, SecretFault> {
        let unknown = |reason: String| SecretFault::Unavailable { reference: reference.to_string(), reason };
        match reference {
            SecretReference::Literal(secret) => Ok(Credential::Fixed(secret.clone())),
            SecretReference::Environment(_) | SecretReference::File(_) => {
                Ok(Credential::Late(Arc::new(Direct(reference.clone()))))
            }
            SecretReference::Named(name) => match self.entries.get(name) {
                Some(entry) => Ok(Credential::Late(entry.clone())),
                None => Err(unknown(format!("the secrets section has no entry '{name}'"))),
            },
            SecretReference::Store { store, .. } => Err(unknown(format!("there is no store '{store}'"))),
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
        let manager = SecretManager::new(&[settings], &shared).unwrap();
        let credential = manager.credential(&"secret:prom".parse().unwrap()).unwrap();
        assert_eq!(credential.current().await.unwrap().expose(), "hunter2");
        assert_eq!(manager.report()[0].state, SecretState::Ok);
        clock.advance(Duration::from_hours(20 * 24));
        assert_eq!(manager.report()[0].state, SecretState::Expiring);
        // Replaced in place: the next request has the new one.
        std::fs::write(&path, "hunter3").unwrap();
        assert_eq!(credential.current().await.unwrap().expose(), "hunter3");
        clock.advance(Duration::from_hours(11 * 24));
        assert!(matches!(credential.current().await, Err(SecretFault::Expired { .. })));
        assert_eq!(manager.report()[0].state, SecretState::Expired);
        let shown = format!("{manager:?}{credential:?}{}", serde_json::to_string(&manager.report()).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn what_is_overdue_or_missing_is_said() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_seconds(1_900_000_000)));
        let cargo = entry(r#"{"name":"a","reference":"env:CARGO_MANIFEST_DIR","rotate_every":"1d"}"#);
        let old = entry(r#"{"name":"b","reference":"env:PATH","rotate_every":"1d","rotated_at":"2020-01-01T00:00:00Z"}"#);
        let none = entry(r#"{"name":"c","reference":"env:PORTCULLIS_NO_SUCH_VARIABLE"}"#);
        let manager = SecretManager::new(&[cargo, old, none], &clock).unwrap();
        let states: Vec<SecretState> = manager.report().iter().map(|r| r.state).collect();
        assert_eq!(states, [SecretState::Overdue, SecretState::Overdue, SecretState::Missing]);
        assert_eq!(manager.variables().len(), 3);
    }

    #[test]
    fn entries_that_cannot_work_are_refused() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::default()));
        let new = |entries: &[SecretSettings]| SecretManager::new(entries, &clock).map(|_| ()).unwrap_err().to_string();
        assert!(new(&[entry(r#"{"name":"A","reference":"env:X"}"#)]).contains("not a name"));
        let literal = new(&[entry(r#"{"name":"a","reference":"hunter2"}"#)]);
        assert!(literal.contains("does not belong") && !literal.contains("hunter2"));
        assert!(new(&[entry(r#"{"name":"a","reference":"secret:b"}"#)]).contains("another"));
        assert!(new(&[entry(r#"{"name":"a","reference":"vault:main/x#y"}"#)]).contains("no store"));
        let same = entry(r#"{"name":"a","reference":"env:X"}"#);
        assert!(new(&[same.clone(), same]).contains("two entries"));
        let manager = SecretManager::new(&[], &clock).unwrap();
        assert!(manager.credential(&"secret:none".parse().unwrap()).is_err());
        for text in ["now", "now-1d", "1900000000", "2027-01-31"] {
            let json = format!(r#"{{"name":"a","reference":"env:X","expires_at":"{text}"}}"#);
            assert!(serde_json::from_str::<SecretSettings>(&json).is_err(), "{text}");
        }
    }
}

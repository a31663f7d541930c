//! What is kept in the data directory: the account, the certificate with its key, and how orders went.
//!
//! Guards that every file is for its owner alone, is replaced whole or not at all, and that a crash half-way leaves the
//! time of the next order in force. Must not keep anything another process could not read again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use instant_acme::AccountCredentials;
use portcullis_config::AcmeSettings;
use portcullis_model::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::AttemptError;
use crate::paper::Paper;
use crate::schedule::renewal;

/// Largest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// The file with the certificate and its key, below the data directory.
pub fn certificate_file(data: &Path) -> PathBuf {
    data.join("acme").join("certificate.pem")
}

/// An order that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Why, for the operator.
    pub reason: String,
}

/// How orders went, for who looks from outside and for the next start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Standing {
    /// Digest of what is ordered; what is written about another order does not count.
    pub(crate) order: String,
    /// Orders begun since the last that went well.
    pub(crate) attempts: u32,
    /// No order before this.
    pub(crate) not_before: Option<Timestamp>,
    /// The last order that failed, until one goes well.
    pub(crate) failure: Option<Failure>,
    /// What the certificate in the file was ordered by.
    pub(crate) obtained_by: Option<String>,
}

/// An account with what it was made for.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeptAccount {
    pub(crate) contact: Vec<String>,
    pub(crate) credentials: AccountCredentials,
}

/// The folder of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
    certificate: PathBuf,
}

impl Store {
    pub(crate) fn new(data: &Path) -> Self {
        Self { folder: data.join("acme"), certificate: certificate_file(data) }
    }

    /// Takes the right to order; `None` when another process has it. Held until dropped.
    pub(crate) fn try_lock(&self) -> Result<Option<File>, AttemptError> {
        let path = self.folder.join("lock");
        let build = || std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        build().map_err(AttemptError::file(&self.folder, "made"))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(AttemptError::file(&path, "opened"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(AttemptError::file(&path, "locked")(error)),
        }
    }

    /// How orders of `order` went. What cannot be read is as if nothing was known, and said.
    pub(crate) fn standing(&self, order: &str) -> Standing {
        let path = self.folder.join("standing.json");
        let known = read(&path).and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(Standing::default()) };
            serde_json::from_slice::<Standing>(&bytes).map_err(|e| AttemptError::file(&path, "read")(e.into()))
        });
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(%error, "how certificate orders went is not known");
            Standing::default()
        });
        if known.order == order {
            return known;
        }
        Standing { order: order.to_owned(), obtained_by: known.obtained_by, ..Standing::default() }
    }

    pub(crate) fn save_standing(&self, standing: &Standing) -> Result<(), AttemptError> {
        let text = serde_json::to_vec_pretty(standing).map_err(|e| AttemptError::Local(e.to_string()))?;
        self.replace(&self.folder.join("standing.json"), &text)
    }

    /// The account at a directory.
    pub(crate) fn account(&self, directory: &str) -> Result<Option<KeptAccount>, AttemptError> {
        let path = self.account_file(directory);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(account) => Ok(Some(account)),
            // Not what it says: it holds a key.
            Err(_) => Err(AttemptError::file(&path, "read")(std::io::Error::other(
                "it is damaged; remove it, and a new account is made",
            ))),
        }
    }

    pub(crate) fn save_account(&self, directory: &str, account: &KeptAccount) -> Result<(), AttemptError> {
        let text = serde_json::to_vec(account).map(Zeroizing::new).map_err(|e| AttemptError::Local(e.to_string()))?;
        self.replace(&self.account_file(directory), &text)
    }

    /// Moves an account aside that the authority no longer knows.
    pub(crate) fn retire_account(&self, directory: &str) -> Result<(), AttemptError> {
        let path = self.account_file(directory);
        std::fs::rename(&path, path.with_extension("unknown.json")).map_err(AttemptError::file(&path, "moved aside"))
    }

    /// What is in the certificate's file; an error in words when it cannot be used.
    pub(crate) fn paper(&self) -> Result<Option<Paper>, String> {
        let bytes = read(&self.certificate).map_err(|e| e.to_string())?;
        bytes.map(|bytes| Paper::read(&bytes).map_err(|why| format!("{}: {why}", self.certificate.display()))).transpose()
    }

    /// Puts a certificate with its key into the file the listeners look at.
    pub(crate) fn save_certificate(&self, key: &str, chain: &str) -> Result<(), AttemptError> {
        let text = Zeroizing::new(format!("{key}{chain}"));
        self.replace(&self.certificate, text.as_bytes())
    }

    fn account_file(&self, directory: &str) -> PathBuf {
        let digest = blake3::hash(directory.as_bytes()).to_hex();
        self.folder.join(format!("account-{}.json", &digest[..16]))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), AttemptError> {
        let written = || {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            File::open(&self.folder)?.sync_all()
        };
        written().map_err(AttemptError::file(path, "written"))
    }
}

/// A small file; `None` when there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AttemptError> {
    let unreadable = || AttemptError::file(path, "read");
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable()(error)),
        Ok(found) if found.len() > MOST_BYTES => Err(unreadable()(std::io::Error::other("it is too large"))),
        Ok(_) => std::fs::read(path).map(Zeroizing::new).map(Some).map_err(unreadable()),
    }
}

/// Digest of what is ordered from whom.
pub(crate) fn order_digest(settings: &AcmeSettings) -> String {
    let mut domains: Vec<&str> = settings.domains.iter().map(String::as_str).collect();
    domains.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for part in [settings.directory.as_str(), settings.profile.as_deref().unwrap_or_default()].into_iter().chain(domains) {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize().to_hex().to_string()
}

/// How the certificate of an authority stands, from the files alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Last instant of the certificate that is kept; absent while there is none that can be used.
    pub valid_until: Option<Timestamp>,
    /// Why what is kept cannot be used, where something is kept.
    pub unusable: Option<String>,
    /// The last order that failed, until one goes well.
    pub failure: Option<Failure>,
    /// When the authority is asked next; not in the future when it is due.
    pub next: Timestamp,
}

/// Looks at the files below `data` without changing anything.
pub fn report(settings: &AcmeSettings, data: &Path, now: Timestamp) -> Report {
    let store = Store::new(data);
    let standing = store.standing(&order_digest(settings));
    let (valid_until, unusable) = match store.paper() {
        Ok(None) => (None, None),
        Ok(Some(paper)) => match paper.check(&settings.domains, now) {
            Ok(()) => (Some(paper.ends), None),
            Err(why) => (None, Some(why)),
        },
        Err(why) => (None, Some(why)),
    };
    let next = due(settings, &store, &standing, now);
    Report { valid_until, unusable, failure: standing.failure, next }
}

/// When the next order is due; `now` when it is due at once.
pub(crate) fn due(settings: &AcmeSettings, store: &Store, standing: &Standing, now: Timestamp) -> Timestamp {
    let wanted = match store.paper() {
        Ok(Some(paper)) if paper.check(&settings.domains, now).is_ok() => {
            // A certificate that nobody knows the order of is as good as its names.
            let same = standing.obtained_by.as_ref().is_none_or(|order| *order == standing.order);
            if same { renewal(paper.begins, paper.ends, settings.renew_before, paper.spread()) } else { now }
        }
        _ => now,
    };
    // A clock that was set back by years must not stop renewals for years.
    let held = standing.not_before.filter(|at| at.since(now) <= LONGEST_HOLD);
    held.map_or(wanted, |at| wanted.max(at))
}

/// No pause is longer: the longest that may be set or asked for, and what chance adds to it.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_hours(11 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(domain: &str) -> AcmeSettings {
        let value = serde_json::json!({"directory": "https://a.example/d", "domains": [domain], "terms_of_service_agreed": true});
        serde_json::from_value(value).unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let data = tempfile::tempdir().unwrap();
        let store = Store::new(data.path());
        drop(store.try_lock().unwrap().unwrap());
        (data, store)
    }

    fn certificate(store: &Store, domain: &str) -> Paper {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![domain.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2020, 4, 1));
        store.save_certificate(&key.serialize_pem(), &params.self_signed(&key).unwrap().pem()).unwrap();
        store.paper().unwrap().unwrap()
    }

    #[test]
    fn everything_is_for_its_owner_alone_and_one_process_orders() {
        let (data, store) = store();
        let held = store.try_lock().unwrap();
        assert!(held.is_some() && store.try_lock().unwrap().is_none());
        drop(held);
        assert!(store.try_lock().unwrap().is_some());
        store.save_standing(&Standing::default()).unwrap();
        certificate(&store, "a.example");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.path().join("acme")), 0o700);
        let files: Vec<_> = std::fs::read_dir(data.path().join("acme")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[test]
    fn what_is_kept_decides_when_the_next_order_is_due() {
        let (_data, store) = store();
        let (ours, other) = (settings("a.example"), settings("b.example"));
        let order = order_digest(&ours);
        let now = Timestamp::from_seconds(1_578_000_000);
        let due = |settings: &AcmeSettings| due(settings, &store, &store.standing(&order_digest(settings)), now);
        assert_eq!(due(&ours), now, "there is no certificate");
        let paper = certificate(&store, "a.example");
        assert!(due(&ours) > now.plus(Duration::from_hours(24 * 30)), "there is a good one that nobody knows the order of");
        assert_eq!(due(&other), now, "it has other names");
        let obtained = Standing { order: order.clone(), obtained_by: Some(order.clone()), ..Standing::default() };
        store.save_standing(&obtained).unwrap();
        assert!(due(&ours) > now && due(&ours) < paper.ends);
        let elsewhere = AcmeSettings { directory: "https://other.example/d".into(), ..ours.clone() };
        assert_eq!(due(&elsewhere), now, "another authority is meant");
        std::fs::remove_file(&store.certificate).unwrap();
        let later = now.plus(Duration::from_mins(10));
        store.save_standing(&Standing { attempts: 1, not_before: Some(later), ..obtained.clone() }).unwrap();
        assert_eq!(due(&ours), later, "an order failed, or was cut off half-way");
        assert_eq!(due(&other), now, "which says nothing about another");
        store.save_standing(&Standing { not_before: Some(now.plus(Duration::from_hours(9_000))), ..obtained }).unwrap();
        assert_eq!(due(&ours), now, "the clock was elsewhere");
    }

    #[test]
    fn damage_is_no_certificate_and_no_account() {
        let (data, store) = store();
        std::fs::write(certificate_file(data.path()), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        std::fs::write(data.path().join("acme/standing.json"), "{").unwrap();
        let report = report(&settings("a.example"), data.path(), Timestamp::from_seconds(7));
        assert!(report.valid_until.is_none() && report.unusable.is_some_and(|why| why.contains("certificate.pem")));
        assert_eq!(report.next, Timestamp::from_seconds(7));
        let account = data.path().join("acme").join(format!("account-{}.json", &blake3::hash(b"d").to_hex()[..16]));
        std::fs::write(account, r#"{"contact": [], "credentials": "MIGHAgEAMB"}"#).unwrap();
        let error = store.account("d").err().unwrap().to_string();
        assert!(error.contains("damaged") && !error.contains("MIGH"), "{error}");
    }
}

//! The looks at secrets while a server runs: what ended, went missing, may not be used, is due, was replaced, or is usable
//! again is a record of the audit log, once for each change.
//!
//! Guards that a credential which stops working is no riddle hours later, and that a replaced one can be dated. Must not
//! write down a value: from one start to the next, only a keyed digest is kept to notice a replacement.

use std::collections::BTreeMap;

use anyhow::Context;
use portcullis_audit::{AuditEvent, AuditLog, EventKind};
use portcullis_secrets::{SecretManager, SecretMark, SecretReport, SecretState};
use portcullis_state::Store;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// The drawer of the digests.
const MARKS: &str = "secret-marks";
/// Makes the key of the digests out of the key of this installation.
const PURPOSE: &str = "portcullis 2026 marks of secrets";

/// How one secret stood at the last look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    state: SecretState,
    mark: Option<SecretMark>,
    /// Whether the mark is written down for the next start.
    kept: bool,
}

/// See the module.
#[derive(Debug)]
pub struct SecretWatch {
    key: Zeroizing<[u8; 32]>,
    seen: Mutex<BTreeMap<String, Seen>>,
}

impl SecretWatch {
    /// Nothing was looked at yet. `key` is that of this installation.
    pub fn new(key: &[u8]) -> Self {
        Self { key: Zeroizing::new(blake3::derive_key(PURPOSE, key)), seen: Mutex::default() }
    }

    /// Looks at the secrets, and records what changed since the last look; at the first one, what cannot be used, what is
    /// due, and what is another one than before the start. Secret stores are asked in a `whole` look alone.
    pub async fn look(&self, secrets: &SecretManager, store: &dyn Store, audit: &AuditLog, whole: bool) -> anyhow::Result<()> {
        // One look at a time, so that nothing is recorded twice.
        let mut seen = self.seen.lock().await;
        let reports = secrets.marked_report(&self.key, whole).await;
        if whole {
            seen.retain(|name, _| reports.iter().any(|report| report.name == *name));
        }
        let mut trouble = None;
        for report in reports {
            let place = self.place(&report.name);
            let before = match seen.get(&report.name) {
                Some(before) => Some(*before),
                None => match kept(store, &place).await {
                    Ok(mark) => mark.map(|mark| Seen { state: SecretState::Ok, mark: Some(mark), kept: true }),
                    // Nothing is said about this one before it is known what it was; the others are looked at all the same.
                    Err(error) => {
                        trouble = trouble.or(Some(error));
                        continue;
                    }
                },
            };
            for operation in happened(before, &report) {
                let event = AuditEvent::operation(EventKind::Secret, operation, report.name.clone()).note(report.detail.clone());
                audit.append(event).context("recording the state of a secret")?;
            }
            // What cannot be read now is compared with what could be read last.
            let mark = report.mark.or(before.and_then(|before| before.mark));
            let now = Seen { state: report.state, mark, kept: before.is_some_and(|before| before.kept && before.mark == mark) };
            // What was recorded is seen, whether or not its mark can be written down; that is tried again at the next look.
            seen.insert(report.name.clone(), now);
            if let (Some(mark), false) = (mark, now.kept) {
                match store.put(MARKS, &place, &mark, None).await.context("keeping the mark of a secret") {
                    Ok(_) => {
                        seen.insert(report.name, Seen { kept: true, ..now });
                    }
                    Err(error) => trouble = trouble.or(Some(error)),
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Where the digest of a secret is kept: names of files do not stand there.
    fn place(&self, name: &str) -> String {
        blake3::keyed_hash(&self.key, name.as_bytes()).to_hex().to_string()
    }
}

async fn kept(store: &dyn Store, place: &str) -> anyhow::Result<Option<SecretMark>> {
    let entry = store.get(MARKS, place).await.context("reading the mark of a secret")?;
    Ok(entry.and_then(|entry| SecretMark::try_from(entry.value.as_slice()).ok()))
}

/// What is to be recorded about a secret.
fn happened(before: Option<Seen>, now: &SecretReport) -> Vec<&'static str> {
    let mut operations = Vec::new();
    let old = before.map(|before| before.state);
    if let (Some(new), Some(known)) = (now.mark, before.and_then(|before| before.mark))
        && new != known
    {
        operations.push("secret.rotated");
    }
    if old == Some(now.state) {
        return operations;
    }
    operations.extend(match now.state {
        SecretState::Expired => Some("secret.expired"),
        SecretState::Missing => Some("secret.missing"),
        SecretState::Refused => Some("secret.refused"),
        SecretState::Unavailable => Some("secret.unavailable"),
        SecretState::Overdue => Some("secret.overdue"),
        SecretState::Expiring => Some("secret.expiring"),
        SecretState::Ok => None,
    });
    if now.state.is_usable() && old.is_some_and(|old| !old.is_usable()) {
        operations.push("secret.usable");
    }
    operations
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use portcullis_model::{Clock, SystemClock};
    use portcullis_secrets::SecretSettings;
    use portcullis_state::MemoryStore;

    use super::*;

    fn report(state: SecretState, mark: Option<SecretMark>) -> SecretReport {
        SecretReport { name: "a".into(), kind: None, reference: "env:A".into(), state, detail: String::new(), mark }
    }

    #[test]
    fn each_change_is_told_once() {
        let (one, other) = (Some([1; 16]), Some([2; 16]));
        let seen = |state, mark| Some(Seen { state, mark, kept: true });
        for (before, state, mark, expected) in [
            (None, SecretState::Ok, one, vec![]),
            (None, SecretState::Expired, None, vec!["secret.expired"]),
            (seen(SecretState::Ok, one), SecretState::Ok, one, vec![]),
            (seen(SecretState::Ok, one), SecretState::Ok, other, vec!["secret.rotated"]),
            (seen(SecretState::Ok, one), SecretState::Missing, None, vec!["secret.missing"]),
            (seen(SecretState::Missing, one), SecretState::Missing, None, vec![]),
            (seen(SecretState::Missing, one), SecretState::Unavailable, None, vec!["secret.unavailable"]),
            (seen(SecretState::Missing, one), SecretState::Ok, other, vec!["secret.rotated", "secret.usable"]),
            (seen(SecretState::Overdue, one), SecretState::Ok, other, vec!["secret.rotated"]),
            (seen(SecretState::Ok, one), SecretState::Overdue, one, vec!["secret.overdue"]),
            (seen(SecretState::Refused, None), SecretState::Expiring, one, vec!["secret.expiring", "secret.usable"]),
        ] {
            assert_eq!(happened(before, &report(state, mark)), expected, "{before:?} {state:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_recorded_once_and_keeps_no_other_secret_waiting() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, value).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            format!(r#"{{"name":"{name}","reference":"file:{}"}}"#, path.display())
        };
        let entries: [SecretSettings; 2] = ["a", "b"].map(|name| serde_json::from_str(&write(name, "first")).unwrap());
        let secrets = SecretManager::new(&entries, &[], &clock).unwrap();
        let store = MemoryStore::new(clock.clone());
        let audit = AuditLog::open(&directory.path().join("audit"), clock).unwrap();
        let watch = SecretWatch::new(b"a key");
        watch.look(&secrets, &store, &audit, true).await.unwrap();
        assert_eq!(audit.counts().appended, 0);
        for name in ["a", "b"] {
            write(name, "second");
        }
        store.set_unreachable(true);
        for _ in 0..3 {
            assert!(watch.look(&secrets, &store, &audit, true).await.is_err());
            assert_eq!(audit.counts().appended, 2, "both replacements, once each");
        }
        // The marks are written down as soon as they can be: the next start finds nothing new.
        store.set_unreachable(false);
        watch.look(&secrets, &store, &audit, true).await.unwrap();
        SecretWatch::new(b"a key").look(&secrets, &store, &audit, true).await.unwrap();
        assert_eq!(audit.counts().appended, 2);
    }
}

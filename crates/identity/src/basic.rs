//! HTTP Basic (RFC 7617): names and passwords of the configuration. Must never tell whether it was the name or the
//! password that was wrong, by word or by time.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{CredentialKind, Principal};
use zeroize::Zeroizing;

use crate::password::{Passwords, SecretHash};
use crate::refusal::{IdentityRefusal, RefusalReason};
use crate::settings::{BasicUser, Granted, IdentitySettingsError};
use crate::strength::MAX_SECRET_BYTES;

/// Longest user name, bytes.
const MAX_NAME_BYTES: usize = 64;

/// What came behind `Basic`.
pub(crate) struct NameAndPassword {
    text: Zeroizing<String>,
    colon: usize,
}

impl NameAndPassword {
    /// Reads the credentials; `None` for anything that is not `base64(name:password)` in UTF-8 without control characters.
    pub(crate) fn parse(encoded: &str) -> Option<Self> {
        if encoded.len() > (MAX_NAME_BYTES + 1 + MAX_SECRET_BYTES).div_ceil(3) * 4 {
            return None;
        }
        let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let text = Zeroizing::new(std::str::from_utf8(&bytes).ok()?.to_owned());
        let colon = text.find(':')?;
        (!text.chars().any(char::is_control)).then_some(Self { text, colon })
    }

    pub(crate) fn name(&self) -> &str {
        &self.text[..self.colon]
    }

    pub(crate) fn password(&self) -> &str {
        &self.text[self.colon + 1..]
    }
}

struct User {
    hash: [SecretHash; 1],
    principal: Arc<Principal>,
}

/// The users.
#[derive(Default)]
pub(crate) struct Users(HashMap<String, User>);

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Users {
    pub(crate) fn new(settings: &[BasicUser]) -> Result<Self, IdentitySettingsError> {
        let mut users = HashMap::new();
        for (index, user) in settings.iter().enumerate() {
            let entry = format!("users.{index}");
            let name_fits = (1..=MAX_NAME_BYTES).contains(&user.name.len())
                && user.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-@".contains(&b));
            if !name_fits {
                let why = format!("the name does not fit: use 1 to {MAX_NAME_BYTES} letters, digits, '_', '.', '-', '@'");
                return Err(IdentitySettingsError::new(entry, why));
            }
            let hash = SecretHash::parse(user.password_hash.expose()).map_err(|e| IdentitySettingsError::hash(&entry, &e))?;
            let principal = Granted {
                entry: &entry,
                id: format!("user:{}", user.name),
                credential: CredentialKind::Password { user: Arc::from(user.name.as_str()) },
                roles: &user.roles,
                tenant: &user.tenant,
                scope: &user.scope,
                doors: &user.doors,
            }
            .principal()?;
            let taken = users.insert(user.name.clone(), User { hash: [hash], principal: Arc::new(principal) });
            if taken.is_some() {
                return Err(IdentitySettingsError::new(entry, format!("there is another user '{}'", user.name)));
            }
        }
        Ok(Self(users))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn principals(&self) -> Vec<Principal> {
        self.0.values().map(|user| Principal::clone(&user.principal)).collect()
    }

    pub(crate) fn hashes(&self) -> impl Iterator<Item = &SecretHash> {
        self.0.values().flat_map(|user| &user.hash)
    }

    /// Who it is. Somebody unknown costs the same time as somebody known with a wrong password.
    pub(crate) async fn verify(
        &self,
        presented: &NameAndPassword,
        passwords: &Passwords,
    ) -> Result<Arc<Principal>, IdentityRefusal> {
        let user = self.0.get(presented.name());
        let hashes: &[SecretHash] = user.map_or(&[], |user| &user.hash);
        let fits = passwords.verify(hashes, presented.password()).await.map_err(|_| IdentityRefusal::new(RefusalReason::Busy))?;
        match user.filter(|_| fits.is_some()) {
            Some(user) => Ok(Arc::clone(&user.principal)),
            None => Err(IdentityRefusal::new(RefusalReason::WrongPassword)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{ManualClock, Secret, Timestamp};
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::atomic::Ordering;

    fn encoded(text: &[u8]) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn only_a_name_and_a_password_in_one_form_are_read() {
        let read = NameAndPassword::parse(&encoded(b"ana:pass:word")).unwrap();
        assert_eq!((read.name(), read.password()), ("ana", "pass:word"), "the first colon separates");
        let read = NameAndPassword::parse(&encoded("ana:Füße".as_bytes())).unwrap();
        assert_eq!(read.password(), "Füße");
        let long = encoded(&[b'a'; 400]);
        for wrong in [
            "",
            "ana:pass",
            "YW5h",
            &encoded(b"ana"),
            &encoded(b"ana:\xff"),
            &encoded(b"ana:a\nb"),
            &long,
            "YW5hOng",
            "YW5hOng==",
        ] {
            assert!(NameAndPassword::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(name in "[a-z@._-]{0,20}", password in "\\PC{0,40}") {
            let read = NameAndPassword::parse(&encoded(format!("{name}:{password}").as_bytes())).unwrap();
            prop_assert_eq!((read.name(), read.password()), (name.as_str(), password.as_str()));
        }

        #[test]
        fn nothing_from_outside_breaks_the_parser(text in "\\PC{0,80}") {
            let _ = NameAndPassword::parse(&text);
        }
    }

    fn users(entries: serde_json::Value) -> Result<Users, IdentitySettingsError> {
        Users::new(&serde_json::from_value::<Vec<BasicUser>>(entries).unwrap())
    }

    #[tokio::test]
    async fn a_stranger_and_a_wrong_password_look_the_same_and_cost_the_same() {
        let hash = SecretHash::of(&Secret::new("Kq7#vLp2xWm9zR!d")).unwrap();
        let users = users(json!([{"name": "ana", "password_hash": hash.as_str(), "roles": ["reader"],
            "scope": {"services": ["cart"], "look_back": "1h"}}]))
        .unwrap();
        let passwords = Passwords::new(Arc::new(ManualClock::new(Timestamp::from_seconds(1)))).unwrap();
        let spent = || passwords.verifications.swap(0, Ordering::Relaxed);
        let ask = async |text: &str| users.verify(&NameAndPassword::parse(&encoded(text.as_bytes())).unwrap(), &passwords).await;
        let wrong = ask("ana:Kq7#vLp2xWm9zR!x").await.unwrap_err();
        assert_eq!(spent(), 1);
        let stranger = ask("bob:Kq7#vLp2xWm9zR!x").await.unwrap_err();
        assert_eq!((spent(), &stranger), (1, &wrong));
        let ana = ask("ana:Kq7#vLp2xWm9zR!d").await.unwrap();
        assert_eq!(ana.id.as_str(), "user:ana");
        assert_eq!(ana.credential, CredentialKind::Password { user: "ana".into() });
        assert!(ana.scope.require_service("payment").is_err() && ana.opens("mcp") && !ana.opens("ingest"));
    }

    #[test]
    fn entries_that_could_not_work_are_refused_by_number() {
        let good = format!("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l${}", "BA".repeat(21) + "A");
        for (entries, says) in [
            (json!([{"name": "a:b", "password_hash": good, "roles": ["reader"]}]), "users.0: the name"),
            (json!([{"name": "", "password_hash": good, "roles": ["reader"]}]), "users.0: the name"),
            (json!([{"name": "a", "password_hash": "hunter2", "roles": ["reader"]}]), "hash-password"),
            (json!([{"name": "a", "password_hash": good}]), "roles is empty"),
            (json!([{"name": "a", "password_hash": good, "roles": ["a b"]}]), "not a role name"),
            (json!([{"name": "a", "password_hash": good, "doors": []}]), "doors is empty"),
            (json!([{"name": "a", "password_hash": good, "roles": ["reader"], "tenant": "a b"}]), "tenant"),
            (json!([{"name": "a", "password_hash": good, "roles": ["reader"], "scope": {"services": []}}]), "scope.services"),
            (
                json!([{"name": "a", "password_hash": good, "roles": ["reader"]}, {"name": "a", "password_hash": good, "roles": ["reader"]}]),
                "users.1: there is another",
            ),
        ] {
            let error = users(entries.clone()).unwrap_err().to_string();
            assert!(error.contains(says), "{entries}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(users(json!([{"name": "a", "password_hash": good, "doors": ["ingest"]}])).is_ok(), "sending needs no role");
    }
}

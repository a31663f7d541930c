//! What is done to keys: made, imported, listed, rotated, taken back. Secrets pass through here once and are kept nowhere.

use std::time::Duration;

use portcullis_model::{KeyId, Secret, Timestamp};
use portcullis_state::Namespace;

use crate::format::{CHOSEN_KEY_PREFIX, KeyText, generate, generate_id, key_id};
use crate::password::SecretHash;
use crate::record::{CreatedKey, KeyRecord, KeyRequest, KeyStatus};
use crate::ring::{KeyError, KeyRing};
use crate::stored::{MAX_SECRETS, StoredKey, StoredSecret};
use crate::strength::{SecretUse, check_strength};
use crate::usage;

pub(crate) const NAMESPACE: Namespace = "identity.api_keys";
/// Attempts to find an unused id, or to win a race for one record.
const ATTEMPTS: usize = 8;
const PAGE: usize = 500;

/// How a key is rotated.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// How long the old secret stays valid; zero ends every earlier secret now.
    pub overlap: Duration,
    /// New validity of the key, from now; the old one stays when absent.
    pub expires_in: Option<Duration>,
    /// A secret a person chose; one is generated when absent.
    pub secret: Option<Secret>,
}

/// A key with a new secret.
#[derive(Debug, Clone)]
pub struct RotatedKey {
    /// What is kept of it.
    pub record: KeyRecord,
    /// The new text of the key where it was generated. Shown once; it cannot be had again.
    pub secret: Option<Secret>,
    /// First instant at which the old secret is no longer valid.
    pub old_ends_at: Timestamp,
}

impl KeyRing {
    /// Makes a key. Its text is in the result and nowhere else.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn create(&self, request: KeyRequest) -> Result<CreatedKey, KeyError> {
        for _ in 0..ATTEMPTS {
            let id = generate_id().map_err(KeyError::no_random_numbers)?;
            let (text, secret) = self.new_secret(&id)?;
            if let Some(record) = self.file(&request, &id, secret).await? {
                return Ok(CreatedKey { record, secret: text });
            }
        }
        Err(KeyError::no_unused_id())
    }

    /// Makes a key with a secret a person chose; it is presented as `pcli_<id>_<secret>`.
    ///
    /// # Errors
    /// A secret that could be guessed, and see [`KeyError`].
    pub async fn import(&self, request: KeyRequest, secret: &Secret) -> Result<KeyRecord, KeyError> {
        let hash = chosen(secret).await?;
        for _ in 0..ATTEMPTS {
            let id = generate_id().map_err(KeyError::no_random_numbers)?;
            let stored = StoredSecret::chosen(&hash, self.now());
            if let Some(record) = self.file(&request, &id, stored).await? {
                return Ok(record);
            }
        }
        Err(KeyError::no_unused_id())
    }

    /// Gives a key a new secret. The principal stays the same; the old secret ends after the overlap.
    ///
    /// # Errors
    /// A key that is revoked, or expired without a new validity, and see [`KeyError`].
    pub async fn rotate(&self, id: &str, rotation: &Rotation) -> Result<RotatedKey, KeyError> {
        let chosen_hash = match &rotation.secret {
            Some(secret) => Some(chosen(secret).await?),
            None => None,
        };
        for _ in 0..ATTEMPTS {
            let (version, stored) = self.read(id).await?;
            let mut stored = stored.map_err(|detail| KeyError::Unreadable { id: id.to_owned(), detail })?;
            let now = self.now();
            stored.record.expires_at = rotation.expires_in.map(|valid| now.plus(valid)).or(stored.record.expires_at);
            rotatable(&stored.record, now)?;
            let (text, secret) = if let Some(hash) = &chosen_hash {
                (None, StoredSecret::chosen(hash, now))
            } else {
                let bytes = id.as_bytes().try_into().map_err(|_| KeyError::NotFound(id.to_owned()))?;
                let (text, secret) = self.new_secret(bytes)?;
                (Some(text), secret)
            };
            let old_ends_at = now.plus(rotation.overlap);
            for old in &mut stored.secrets {
                old.ends_at = Some(old.ends_at.map_or(old_ends_at, |at| at.min(old_ends_at)));
            }
            stored.secrets.retain(|old| !old.has_ended(now));
            if stored.secrets.len() >= MAX_SECRETS {
                return Err(KeyError::Request(format!(
                    "key '{id}' has {} secrets that are still valid: wait until one ends, or end them now with an overlap of 0s",
                    stored.secrets.len()
                )));
            }
            stored.secrets.push(secret);
            stored.record.secret_made_at = now;
            if self.replace(&stored, version).await? {
                return Ok(RotatedKey { record: stored.record, secret: text, old_ends_at });
            }
        }
        Err(KeyError::Contended(id.to_owned()))
    }

    /// Every key, by id. Fails when one cannot be read, naming it; the others are then in [`KeyRing::show`].
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn list(&self) -> Result<Vec<KeyRecord>, KeyError> {
        let mut records = Vec::new();
        self.each(|id, stored| {
            records.push(stored.map_err(|detail| KeyError::Unreadable { id: id.to_owned(), detail })?.record);
            Ok(())
        })
        .await?;
        Ok(records)
    }

    /// One key.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn show(&self, id: &str) -> Result<KeyRecord, KeyError> {
        Ok(self.read(id).await?.1.map_err(|detail| KeyError::Unreadable { id: id.to_owned(), detail })?.record)
    }

    /// When a key was last used, to the minute; `None` when no use was noted.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn last_used(&self, id: &KeyId) -> Result<Option<Timestamp>, KeyError> {
        Ok(usage::last_used(self.store(), id.as_str()).await?)
    }

    /// Keys in use that are due at `now`: their secret is older than [`ROTATE_AFTER`](crate::ROTATE_AFTER), or they end
    /// within [`REMIND_BEFORE_END`](crate::REMIND_BEFORE_END).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn aging(&self, now: Timestamp) -> Result<Vec<KeyRecord>, KeyError> {
        Ok(self.list().await?.into_iter().filter(|record| record.is_aging(now)).collect())
    }

    /// Takes a key back; the record stays, so that audit records can be read. Revoking twice changes nothing. A
    /// record that cannot be read is removed and `None` returned.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn revoke(&self, id: &str) -> Result<Option<KeyRecord>, KeyError> {
        for _ in 0..ATTEMPTS {
            let (version, stored) = self.read(id).await?;
            let Ok(mut stored) = stored else {
                self.store().delete(NAMESPACE, id).await?;
                self.refresh().await?;
                return Ok(None);
            };
            if stored.record.revoked_at.is_some() {
                return Ok(Some(stored.record));
            }
            stored.record.revoked_at = Some(self.now());
            if self.replace(&stored, version).await? {
                return Ok(Some(stored.record));
            }
        }
        Err(KeyError::Contended(id.to_owned()))
    }

    /// A generated key for `id`: its text and what is kept of it.
    fn new_secret(&self, id: &[u8; 10]) -> Result<(Secret, StoredSecret), KeyError> {
        let text = generate(id).map_err(KeyError::no_random_numbers)?;
        let parsed = KeyText::parse(text.expose())
            .ok_or_else(|| KeyError::Internal("a new key does not have the shape of a key".to_owned()))?;
        let secret = StoredSecret::keyed(&self.hash(parsed.hashed), self.now());
        Ok((text, secret))
    }

    /// Files a new key, unless its id is taken.
    async fn file(&self, request: &KeyRequest, id: &[u8; 10], secret: StoredSecret) -> Result<Option<KeyRecord>, KeyError> {
        let id = key_id(id).ok_or_else(|| KeyError::Internal("a new key has no id".to_owned()))?;
        let stored = StoredKey::new(request.clone().into_record(id, self.now())?, secret);
        let written = self.store().put_if_absent(NAMESPACE, stored.record.id.as_str(), &stored.encode()?, None).await?;
        if written.is_none() {
            return Ok(None);
        }
        self.refresh().await?;
        Ok(Some(stored.record))
    }

    /// Writes a changed key, unless somebody else changed it since `version`.
    async fn replace(&self, stored: &StoredKey, version: u64) -> Result<bool, KeyError> {
        let id = stored.record.id.as_str();
        let swapped = self.store().compare_and_swap(NAMESPACE, id, version, &stored.encode()?, None).await?;
        if swapped.is_some() {
            self.refresh().await?;
        }
        Ok(swapped.is_some())
    }

    async fn read(&self, id: &str) -> Result<(u64, Result<StoredKey, String>), KeyError> {
        let shaped = KeyId::new(id).map_err(|_| KeyError::NotFound(id.chars().take(40).filter(|c| !c.is_control()).collect()))?;
        let entry = self.store().get(NAMESPACE, shaped.as_str()).await?;
        let entry = entry.ok_or_else(|| KeyError::NotFound(id.to_owned()))?;
        Ok((entry.version, StoredKey::decode(&entry.key, &entry.value)))
    }

    /// Every stored key, or why it cannot be read.
    pub(crate) async fn each(
        &self,
        mut take: impl FnMut(&str, Result<StoredKey, String>) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.store().list_after(NAMESPACE, "", after.as_deref(), PAGE).await?;
            for entry in &page.entries {
                take(&entry.key, StoredKey::decode(&entry.key, &entry.value))?;
            }
            after = page.entries.last().map(|e| e.key.clone());
            if !page.more {
                return Ok(());
            }
        }
    }
}

/// The hash of a chosen secret that nobody can guess.
async fn chosen(secret: &Secret) -> Result<SecretHash, KeyError> {
    if secret.expose().starts_with(CHOSEN_KEY_PREFIX) || secret.expose().starts_with(crate::KEY_PREFIX) {
        let why = "the secret looks like a whole key: give only the secret, the id is made here and put in front of it";
        return Err(KeyError::Request(why.to_owned()));
    }
    check_strength(secret.expose(), SecretUse::Key).map_err(|weak| KeyError::Request(weak.to_string()))?;
    let secret = secret.clone();
    let hashed = tokio::task::spawn_blocking(move || SecretHash::of(&secret)).await;
    hashed
        .map_err(|_| KeyError::Internal("the secret could not be hashed".to_owned()))?
        .map_err(|error| KeyError::Internal(error.to_string()))
}

fn rotatable(record: &KeyRecord, now: Timestamp) -> Result<(), KeyError> {
    match record.status(now) {
        KeyStatus::Active => Ok(()),
        KeyStatus::Revoked => Err(KeyError::Request(format!("key '{}' was revoked and stays so: make a new one", record.id))),
        KeyStatus::Expired => {
            Err(KeyError::Request(format!("key '{}' has expired: give it a new validity, such as 90d", record.id)))
        }
    }
}

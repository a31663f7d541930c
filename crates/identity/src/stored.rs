//! The form of a key at rest. Unknown fields and formats are refused: a restriction this build does not know must not be
//! dropped. There is no secret in it, only hashes.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_model::{KeyId, NameSet, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::password::SecretHash;
use crate::record::{Door, KeyRecord};
use crate::ring::KeyError;

/// Format that is written. Format 1 had one generated secret and no networks; it is read.
const FORMAT: u32 = 2;
/// Secrets of one key that may be valid at the same time.
pub(crate) const MAX_SECRETS: usize = 4;

/// A secret at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredSecret {
    pub(crate) hash: StoredHash,
    pub(crate) made_at: Timestamp,
    /// First instant at which it is no longer valid; of a secret that was replaced.
    pub(crate) ends_at: Option<Timestamp>,
}

/// How a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredHash {
    /// A generated one: keyed BLAKE3 in hexadecimal digits.
    Keyed(String),
    /// One a person chose: argon2id as a PHC string.
    Chosen(String),
}

/// What a hash is compared as.
pub(crate) enum Comparable {
    Keyed([u8; 32]),
    Chosen(SecretHash),
}

impl StoredSecret {
    pub(crate) fn keyed(hash: &blake3::Hash, made_at: Timestamp) -> Self {
        Self { hash: StoredHash::Keyed(hash.to_hex().to_string()), made_at, ends_at: None }
    }

    pub(crate) fn chosen(hash: &SecretHash, made_at: Timestamp) -> Self {
        Self { hash: StoredHash::Chosen(hash.as_str().to_owned()), made_at, ends_at: None }
    }

    pub(crate) fn comparable(&self) -> Result<Comparable, String> {
        Ok(match &self.hash {
            StoredHash::Keyed(hex) => {
                Comparable::Keyed(*blake3::Hash::from_hex(hex).map_err(|e| format!("its hash is damaged: {e}"))?.as_bytes())
            }
            StoredHash::Chosen(phc) => Comparable::Chosen(SecretHash::parse(phc).map_err(|e| e.to_string())?),
        })
    }

    /// Whether its time is over.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }
}

/// A key at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    format: u32,
    pub(crate) record: KeyRecord,
    /// The present secret last.
    pub(crate) secrets: Vec<StoredSecret>,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// The record of format 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstRecord {
    id: KeyId,
    label: String,
    roles: BTreeSet<Arc<str>>,
    doors: BTreeSet<Door>,
    tenant: TenantId,
    sources: NameSet,
    services: NameSet,
    namespaces: NameSet,
    look_back_seconds: Option<u64>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstKey {
    #[serde(rename = "format")]
    _format: u32,
    record: FirstRecord,
    hash: String,
}

impl From<FirstKey> for StoredKey {
    fn from(first: FirstKey) -> Self {
        let FirstRecord { id, label, roles, doors, tenant, sources, services, namespaces, .. } = first.record;
        let made_at = first.record.created_at;
        let record = KeyRecord {
            id,
            label,
            roles,
            doors,
            tenant,
            sources,
            services,
            namespaces,
            look_back_seconds: first.record.look_back_seconds,
            from: BTreeSet::new(),
            created_at: made_at,
            secret_made_at: made_at,
            expires_at: first.record.expires_at,
            revoked_at: first.record.revoked_at,
        };
        Self::new(record, StoredSecret { hash: StoredHash::Keyed(first.hash), made_at, ends_at: None })
    }
}

impl StoredKey {
    pub(crate) fn new(record: KeyRecord, secret: StoredSecret) -> Self {
        Self { format: FORMAT, record, secrets: vec![secret] }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, KeyError> {
        serde_json::to_vec(self).map_err(|e| KeyError::Internal(format!("a key record could not be written: {e}")))
    }

    /// Reads a stored key and checks that it is filed under its own id.
    pub(crate) fn decode(key: &str, value: &[u8]) -> Result<Self, String> {
        let text = |error: serde_json::Error| error.to_string();
        let stored: Self = match serde_json::from_slice::<AnyFormat>(value).map_err(text)?.format {
            1 => serde_json::from_slice::<FirstKey>(value).map_err(text)?.into(),
            FORMAT => serde_json::from_slice(value).map_err(text)?,
            other => return Err(format!("it has format {other}, this build knows up to {FORMAT}")),
        };
        if stored.record.id.as_str() != key {
            return Err(format!("it says it is key '{}'", stored.record.id));
        }
        if stored.secrets.is_empty() || stored.secrets.len() > MAX_SECRETS {
            return Err(format!("it has {} secrets", stored.secrets.len()));
        }
        for secret in &stored.secrets {
            secret.comparable()?;
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::KeyRequest;

    fn stored() -> StoredKey {
        let request = KeyRequest::new("ci", "reader", TenantId::default_tenant());
        let now = Timestamp::from_seconds(100);
        let record = request.into_record(KeyId::new("abcdefghij").unwrap(), now).unwrap();
        StoredKey::new(record, StoredSecret::keyed(&blake3::hash(b"x"), now))
    }

    #[test]
    fn a_stored_key_of_another_kind_is_not_read() {
        let text = String::from_utf8(stored().encode().unwrap()).unwrap();
        assert_eq!(StoredKey::decode("abcdefghij", text.as_bytes()), Ok(stored()));
        assert!(StoredKey::decode("other", text.as_bytes()).is_err(), "filed under another id");
        for (from, to) in [
            ("\"format\":2", "\"format\":3"),
            ("\"format\":2", "\"format\":1"),
            ("\"label\"", "\"only_on_mondays\":true,\"label\""),
            ("\"keyed\":\"", "\"keyed\":\"zz"),
            ("\"keyed\"", "\"chosen\""),
            ("\"keyed\"", "\"plain\""),
            ("\"roles\"", "\"rules\""),
            ("\"from\":[]", "\"from\":[\"everywhere\"]"),
            ("\"from\":[],", ""),
            ("\"made_at\"", "\"made_by\":1,\"made_at\""),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            assert!(StoredKey::decode("abcdefghij", text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let without = StoredKey { secrets: Vec::new(), ..stored() };
        assert!(StoredKey::decode("abcdefghij", &without.encode().unwrap()).is_err());
    }

    /// As the first format was written.
    const FIRST: &str = r#"{"format":1,"record":{"id":"abcdefghij","label":"ci","roles":["reader"],"doors":["mcp"],"tenant":"default","sources":"all","services":{"only":["cart"]},"namespaces":"all","look_back_seconds":3600,"created_at":100000000000,"expires_at":null,"revoked_at":null},"hash":"HASH"}"#;

    #[test]
    fn the_first_format_is_read_with_every_restriction() {
        let hash = blake3::hash(b"x").to_hex().to_string();
        let read = StoredKey::decode("abcdefghij", FIRST.replace("HASH", &hash).as_bytes()).unwrap();
        assert_eq!(read.record.services, NameSet::only(["cart"]));
        assert_eq!((read.record.look_back_seconds, read.record.secret_made_at), (Some(3600), Timestamp::from_seconds(100)));
        assert!(read.record.from.is_empty() && read.secrets.len() == 1);
        assert!(StoredKey::decode("abcdefghij", &read.encode().unwrap()).unwrap() == read, "written in the new format");
        let strange = FIRST.replace("HASH", &hash).replace("\"label\"", "\"only_on_mondays\":true,\"label\"");
        assert!(StoredKey::decode("abcdefghij", strange.as_bytes()).is_err());
    }
}

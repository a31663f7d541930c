//! The `secrets` section: what is known about each secret besides its value. Must not look anything up.

use std::borrow::Cow;

use portcullis_config::Span;
use portcullis_model::{SecretReference, Timestamp, parse_instant};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::store::StoreError;

/// What a secret is. A value that is something else is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretType {
    /// A token of a machine: one line of visible ASCII without spaces.
    #[default]
    Token,
    /// A password: one line.
    Password,
    /// A cryptographic key: a PEM block with a private key, or one line of hexadecimal or base64.
    Key,
    /// A certificate with its key, as PEM.
    Certificate,
}

impl SecretType {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Password => "password",
            Self::Key => "key",
            Self::Certificate => "certificate",
        }
    }
}

/// An instant as RFC 3339, such as `2027-01-31T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date(pub Timestamp);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What is relative to now would never come, or never end.
        let absolute = text.len() >= 20 && text.as_bytes().get(4) == Some(&b'-');
        let read = absolute.then(|| parse_instant(&text, Timestamp::default()).ok()).flatten();
        read.map(Self).ok_or_else(|| D::Error::custom("not an instant; write it as 2027-01-31T00:00:00Z"))
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for Date {
    fn schema_name() -> Cow<'static, str> {
        "Instant".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "examples": ["2027-01-31T00:00:00Z"]})
    }
}

/// One secret: where it is kept, what it is, how long it is good. Others refer to it as `secret:<name>`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSettings {
    /// Its name: lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Where it is kept: `env:NAME`, `file:/path`, or `vault:store/path#field` of a configured store. Never the value itself.
    #[schemars(with = "String")]
    pub reference: SecretReference,
    /// What it is; a value that does not look like it is refused.
    #[serde(default, rename = "type")]
    pub kind: SecretType,
    /// From then on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Date>,
    /// How long one value is used before it should be replaced; `portcullis secret check` and `doctor` say when it is
    /// overdue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_every: Option<Span>,
    /// When the value was last replaced; the time of the file when it is left out and the secret is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Date>,
}

/// A `secrets` section that cannot work. For the operator to fix.
#[derive(Debug, thiserror::Error)]
pub enum SecretSettingsError {
    /// Not a name.
    #[error("secrets: '{0}' is not a name; use lower-case letters, digits, '-', '_' and '.'")]
    Name(String),
    /// Twice the same.
    #[error("secrets: there are two entries named '{0}'")]
    Duplicate(String),
    /// The value itself, another entry, or a store.
    #[error("secrets: '{0}' must refer to env:NAME, file:/path or vault:store/path#field; {1}")]
    Reference(String, &'static str),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

//! The settings every source shares, as an operator writes them: authentication and TLS. Guards that secrets stay
//! [`Secret`]s and unknown keys are errors. Must not open files; that is done when the client is built.

use std::path::PathBuf;

use portcullis_model::SecretReference;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Authentication, SecretFault, SecretResolver, TlsOptions};

/// How a source authenticates itself to its backend. Each secret is a value (usually `${VAR}`) or a reference: `env:NAME`,
/// `file:/path`, `secret:name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthSettings {
    /// A bearer token, sent as `Authorization: Bearer …`.
    Bearer(#[schemars(with = "String")] SecretReference),
    /// User and password, sent as `Authorization: Basic …`.
    Basic(BasicSettings),
}

/// User and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSettings {
    /// The user; it must not contain a colon.
    pub user: String,
    /// The password.
    #[schemars(with = "String")]
    pub password: SecretReference,
}

impl AuthSettings {
    /// The authentication with its secret to be looked up by `secrets`.
    ///
    /// # Errors
    /// When the secret is a reference that `secrets` does not know.
    pub fn authentication(&self, secrets: &dyn SecretResolver) -> Result<Authentication, SecretFault> {
        Ok(match self {
            Self::Bearer(token) => Authentication::Bearer(secrets.credential(token)?),
            Self::Basic(BasicSettings { user, password }) => {
                Authentication::Basic { user: user.clone(), password: secrets.credential(password)? }
            }
        })
    }
}

/// TLS towards a backend. TLS 1.2 is always the least that is spoken, and certificates are always verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file of the certificate authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate (chain), for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<PathBuf>,
}

impl From<TlsSettings> for TlsOptions {
    fn from(settings: TlsSettings) -> Self {
        Self {
            ca_pem_file: settings.ca_file,
            client_certificate_file: settings.client_certificate_file,
            client_key_file: settings.client_key_file,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_secrets_are_not_written_back() {
        let auth: AuthSettings = serde_json::from_str(r#"{"basic":{"user":"u","password":"hunter2"}}"#).unwrap();
        assert!(!format!("{auth:?}{}", serde_json::to_string(&auth).unwrap()).contains("hunter2"));
        let kept: AuthSettings = serde_json::from_str(r#"{"bearer":"env:TOKEN"}"#).unwrap();
        assert_eq!(serde_json::to_string(&kept).unwrap(), r#"{"bearer":"env:TOKEN"}"#);
        assert!(matches!(kept.authentication(&crate::LiteralSecrets), Err(SecretFault::Unavailable { .. })));
        assert!(serde_json::from_str::<AuthSettings>(r#"{"basic":{"user":"u","password":"x","realm":"y"}}"#).is_err());
        assert!(serde_json::from_str::<AuthSettings>(r#"{"digest":"x"}"#).is_err());
        assert!(serde_json::from_str::<TlsSettings>(r#"{"insecure_skip_verify":true}"#).is_err());
    }
}

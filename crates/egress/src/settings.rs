//! The settings every source shares, as an operator writes them: authentication and TLS. Guards that secrets stay
//! [`Secret`]s and unknown keys are errors. Must not open files; that is done when the client is built.

use std::path::PathBuf;

use portcullis_model::SecretReference;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Authentication, ExchangeTarget, Exchanged, SecretFault, SecretResolver, TlsOptions};

/// How a source authenticates itself to its backend. Each secret is a value (usually `${VAR}`) or a reference: `env:NAME`,
/// `file:/path`, `secret:name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthSettings {
    /// A bearer token, sent as `Authorization: Bearer …`.
    Bearer(#[schemars(with = "String")] SecretReference),
    /// User and password, sent as `Authorization: Basic …`.
    Basic(BasicSettings),
    /// A token in the caller's own name: the caller's access token is exchanged for one that is made for this source
    /// (RFC 8693), by the issuer it came from. Callers without such a token are refused.
    Exchange(ExchangeAuth),
    /// A secret in a header of the backend's own, such as `X-Api-Key`.
    Header(HeaderSettings),
}

/// A header and the secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderSettings {
    /// The header's name.
    pub name: String,
    /// The whole value.
    #[schemars(with = "String")]
    pub value: SecretReference,
}

/// Whom a caller's token is exchanged for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeAuth {
    /// Logical name of this source at the authorization server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// URL of this source, as the authorization server knows it (RFC 8707). One of `audience` and `resource` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Scopes the token shall have; as few as the source needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The source's own bearer token, for health checks and for nothing else. Without it, how the source stands is only
    /// known from its answers to callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub standing: Option<SecretReference>,
}

impl ExchangeAuth {
    fn target(&self) -> Result<ExchangeTarget, SecretFault> {
        let wrong = |reason: &str| Err(SecretFault::Refused { reference: "exchange".to_owned(), reason: reason.to_owned() });
        let sound = |text: &Option<String>| {
            text.as_deref().is_none_or(|t| !t.is_empty() && t.len() <= 1_024 && !t.contains(char::is_control))
        };
        if self.audience.is_none() && self.resource.is_none() {
            return wrong("it names neither an audience nor a resource; write what the authorization server calls this source");
        }
        if !sound(&self.audience) || !sound(&self.resource) {
            return wrong("audience and resource have 1 to 1024 characters");
        }
        // RFC 6749 section 3.3.
        let scope_byte = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if self.scopes.iter().any(|s| s.is_empty() || s.len() > 256 || !s.bytes().all(scope_byte)) {
            return wrong("a scope is printable and holds no space, quote or backslash");
        }
        let scope = (!self.scopes.is_empty()).then(|| self.scopes.join(" "));
        Ok(ExchangeTarget { resource: self.resource.clone(), audience: self.audience.clone(), scope })
    }
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
            Self::Exchange(exchange) => Authentication::Exchanged(Exchanged {
                callers: secrets.callers()?,
                target: exchange.target()?,
                standing: exchange.standing.as_ref().map(|own| secrets.credential(own)).transpose()?,
            }),
            Self::Header(HeaderSettings { name, value }) => {
                Authentication::Header { name: name.clone(), value: secrets.credential(value)? }
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
        for wrong in
            [r#"{"exchange":{}}"#, r#"{"exchange":{"audience":""}}"#, r#"{"exchange":{"audience":"a","scopes":["a b"]}}"#]
        {
            let auth: AuthSettings = serde_json::from_str(wrong).unwrap();
            let AuthSettings::Exchange(exchange) = &auth else { panic!("{auth:?}") };
            assert!(exchange.target().is_err(), "{wrong}");
            assert!(auth.authentication(&crate::LiteralSecrets).is_err(), "nobody exchanges here");
        }
        let header: AuthSettings = serde_json::from_str(r#"{"header":{"name":"X-Api-Key","value":"hunter2"}}"#).unwrap();
        assert!(!format!("{header:?}{}", serde_json::to_string(&header).unwrap()).contains("hunter2"));
        assert!(
            matches!(header.authentication(&crate::LiteralSecrets), Ok(Authentication::Header { name, .. }) if name == "X-Api-Key")
        );
        assert!(serde_json::from_str::<TlsSettings>(r#"{"insecure_skip_verify":true}"#).is_err());
    }
}

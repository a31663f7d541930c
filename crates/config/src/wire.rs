//! How a listener is protected on the wire: TLS, client certificates, and the words that allow clear text beyond this
//! machine. Only settings: nothing here opens a file or a socket.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// TLS of a listener. The files are looked at every second: a renewed certificate is taken over without a restart, and
/// one that cannot be used leaves the last good one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file with the certificate of this server, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1, not encrypted). Refused when every user of the machine may
    /// read it.
    pub key: PathBuf,
    /// PEM file with the authorities of client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// PEM file with certificate revocation lists of those authorities. A list that is out of date refuses everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_revocations: Option<PathBuf>,
    /// Whether clients are asked for a certificate; whom it speaks for say the rules in `identity.certificates`.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Oldest version that is spoken.
    #[serde(default)]
    pub minimum_version: TlsVersion,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// They are asked, and may come without. One that does not verify is refused.
    Optional,
    /// Without one that verifies there is no connection.
    Required,
}

/// A version of TLS. Older ones than 1.2 are never spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

// By hand, because a reader of YAML takes 1.3 for a number.
impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Version;

        impl Visitor<'_> for Version {
            type Value = TlsVersion;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("1.2 or 1.3")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TlsVersion, E> {
                match text {
                    "1.2" => Ok(TlsVersion::V1_2),
                    "1.3" => Ok(TlsVersion::V1_3),
                    _ => Err(E::custom(format!("TLS {} is not spoken here: write 1.2 or 1.3", text.escape_default()))),
                }
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<TlsVersion, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Version)
    }
}

impl JsonSchema for TlsVersion {
    fn schema_name() -> Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["1.2", "1.3", 1.2, 1.3], "description": "A version of TLS."})
    }
}

/// The words by which an operator takes clear text beyond this machine upon himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Plaintext {
    /// A proxy or a mesh in front of this listener speaks TLS with the clients, and nobody else reaches it.
    ITerminateTlsElsewhere,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_read_as_text_and_as_number() {
        for (value, version) in [(json!("1.2"), TlsVersion::V1_2), (json!(1.3), TlsVersion::V1_3)] {
            assert_eq!(serde_json::from_value::<TlsVersion>(value).unwrap(), version);
        }
        for wrong in [json!("1.1"), json!(1.1), json!("TLSv1.3"), json!(1)] {
            let error = serde_json::from_value::<TlsVersion>(wrong.clone()).unwrap_err().to_string();
            assert!(error.contains("1.2 or 1.3"), "{wrong}: {error}");
        }
    }

    #[test]
    fn clear_text_needs_the_whole_sentence() {
        assert!(serde_json::from_value::<Plaintext>(json!("i-terminate-tls-elsewhere")).is_ok());
        assert!(serde_json::from_value::<Plaintext>(json!(true)).is_err());
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_value::<TlsSettings>(json!({"certificate": "a", "key": "b"})).is_ok());
        assert!(serde_json::from_value::<TlsSettings>(json!({"certificate": "a", "key": "b", "client-ca": "c"})).is_err());
        assert!(serde_json::from_value::<TlsSettings>(json!({"certificate": "a"})).is_err());
    }
}

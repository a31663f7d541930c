//! How a listener is protected on the wire: TLS, client certificates, and the words that allow clear text beyond this
//! machine. Only settings: nothing here opens a file or a socket.
//!
//! A certificate comes from exactly one place: files, an authority that speaks ACME, or the other listener.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::AcmeSettings;

/// TLS of a listener. The files are looked at every second: a renewed certificate is taken over without a restart, and
/// one that cannot be used leaves the last good one in force. The certificate comes from files (`certificate` and `key`), from
/// an authority (`acme`), or from the other listener (`same_as_listen`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file with the certificate of this server, followed by those between it and its authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1, not encrypted). Refused when every user of the machine may
    /// read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Have the certificate made and renewed by an authority. Only in `listen.tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeSettings>,
    /// Use the certificate of `listen.tls`, wherever that comes from. Only in `ingest.tls`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_as_listen: bool,
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

/// Where the certificate of a listener comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateOrigin<'a> {
    /// Files somebody else keeps.
    Files {
        /// The certificate and those between it and its authority.
        certificate: &'a Path,
        /// Its private key.
        key: &'a Path,
    },
    /// An authority.
    Acme(&'a AcmeSettings),
    /// The other listener.
    Listen,
}

impl TlsSettings {
    /// Where the certificate comes from.
    ///
    /// # Errors
    /// One sentence for the operator when it comes from nowhere, from two places, or the settings of its place are wrong.
    pub fn origin(&self) -> Result<CertificateOrigin<'_>, String> {
        let files = self.certificate.is_some() || self.key.is_some();
        match (files, &self.acme, self.same_as_listen) {
            (true, None, false) => match (&self.certificate, &self.key) {
                (Some(certificate), Some(key)) => Ok(CertificateOrigin::Files { certificate, key }),
                (Some(_), None) => Err("key is missing: the file with the private key of the certificate".into()),
                _ => Err("certificate is missing: the file with the certificate of the key".into()),
            },
            (false, Some(acme), false) => {
                acme.check().map(|()| CertificateOrigin::Acme(acme)).map_err(|why| format!("acme: {why}"))
            }
            (false, None, true) => Ok(CertificateOrigin::Listen),
            (false, None, false) => {
                Err("there is no certificate: set certificate and key to files, or acme to an authority".into())
            }
            _ => Err("the certificate comes from two places: keep one of certificate and key, acme, same_as_listen".into()),
        }
    }
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
    }

    #[test]
    fn a_certificate_comes_from_one_place() {
        let read = |value| serde_json::from_value::<TlsSettings>(value).unwrap();
        let acme = json!({"directory": "https://a.example/d", "domains": ["b.example"], "terms_of_service_agreed": true});
        assert!(matches!(read(json!({"certificate": "a", "key": "b"})).origin(), Ok(CertificateOrigin::Files { .. })));
        assert!(matches!(read(json!({"acme": acme})).origin(), Ok(CertificateOrigin::Acme(_))));
        assert!(matches!(read(json!({"same_as_listen": true})).origin(), Ok(CertificateOrigin::Listen)));
        for (wrong, words) in [
            (json!({}), "there is no certificate"),
            (json!({"certificate": "a"}), "key is missing"),
            (json!({"key": "a"}), "certificate is missing"),
            (json!({"certificate": "a", "key": "b", "acme": acme}), "two places"),
            (json!({"key": "b", "acme": acme}), "two places"),
            (json!({"acme": acme, "same_as_listen": true}), "two places"),
            (json!({"acme": {"directory": "http://a.example/d", "domains": ["b.example"]}}), "acme: directory"),
        ] {
            let error = read(wrong.clone()).origin().unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }
}

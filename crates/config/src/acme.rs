//! Certificates a listener gets by itself from an authority that speaks ACME (RFC 8555). Only settings: what can be said
//! about them without opening a file or a socket is checked by [`AcmeSettings::check`].

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use portcullis_model::SecretReference;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Span;

/// Most names in one certificate, which is what public authorities take.
const MOST_DOMAINS: usize = 100;
/// Shortest pause after a failed order.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause that may be set.
const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);

/// A certificate that is ordered, and renewed in time, from an authority that speaks ACME. Its key, the certificate and the
/// account are kept in the data directory, for its owner alone. Until there is a certificate, every handshake is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeSettings {
    /// The authority's directory, `https` only: `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory: String,
    /// Names the certificate is for. Each must lead to this machine; patterns and addresses are not ordered.
    pub domains: Vec<String>,
    /// Mail addresses at which the authority may reach the operator: `ops@example.com`.
    #[serde(default)]
    pub contact: Vec<String>,
    /// That you have read and accept the authority's terms of service. Nothing is ordered without `true`.
    #[serde(default)]
    pub terms_of_service_agreed: bool,
    /// How the authority is shown that the names lead here.
    #[serde(default)]
    pub challenge: AcmeChallenge,
    /// The clear-text listener of `http-01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<AcmeHttpSettings>,
    /// PEM file of the authorities the directory's own certificate is checked with, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_ca: Option<PathBuf>,
    /// Address ranges the directory may live in besides public ones: `private`, `loopback`, `10.20.0.0/16`.
    #[serde(default)]
    pub allow_addresses: Vec<String>,
    /// Binding to an account you have at the authority, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccountSettings>,
    /// The authority's profile to order, such as `shortlived`; its own choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// When to renew.
    #[serde(default)]
    pub renew_before: RenewBefore,
    /// Pauses after an order that failed.
    #[serde(default)]
    pub retry: AcmeRetrySettings,
}

/// How the authority is shown that a name leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AcmeChallenge {
    /// On the TLS listener itself (RFC 8737). Port 443 of the names must lead to it.
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// On a clear-text listener of its own (RFC 8555 section 8.3). Port 80 of the names must lead to it.
    #[serde(rename = "http-01")]
    Http01,
}

impl AcmeChallenge {
    /// The name as RFC 8555 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// The clear-text listener of `http-01`: it answers pending challenges, and sends everybody else to `https`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeHttpSettings {
    /// Address and port, such as `0.0.0.0:80`.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// Port of the `https` address others are sent to.
    #[serde(default = "https_port")]
    pub redirect_port: u16,
}

fn https_port() -> u16 {
    443
}

/// An account at the authority that orders are bound to (RFC 8555 section 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccountSettings {
    /// Identifier of the key, as the authority gave it.
    pub key_id: String,
    /// The key, base64url as the authority gave it: `env:NAME`, `file:/path`, `secret:name`.
    #[schemars(with = "String")]
    pub key: SecretReference,
}

/// How long before its end a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RenewBefore {
    /// This share of its whole time, above 0 and below 1.
    Share(f64),
    /// This time.
    Time(Duration),
}

// A share is finite: reading refuses everything else.
impl Eq for RenewBefore {}

impl Default for RenewBefore {
    fn default() -> Self {
        Self::Share(1.0 / 3.0)
    }
}

impl Serialize for RenewBefore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => serializer.serialize_f64(*share),
            Self::Time(time) => Span(*time).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RenewBefore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Before;

        impl Visitor<'_> for Before {
            type Value = RenewBefore;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a share of the certificate's time such as 0.33, or a time such as 30d")
            }

            fn visit_f64<E: serde::de::Error>(self, share: f64) -> Result<RenewBefore, E> {
                if share > 0.0 && share < 1.0 {
                    return Ok(RenewBefore::Share(share));
                }
                Err(E::custom(format!("{share} is no share: write one above 0 and below 1 such as 0.33, or a time such as 30d")))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<RenewBefore, E> {
                Err(E::custom(format!("{number} has no unit: write a time such as 30d, or a share such as 0.33")))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<RenewBefore, E> {
                Err(E::custom(format!("{number} is no time: write one such as 30d, or a share such as 0.33")))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RenewBefore, E> {
                let time = portcullis_model::parse_duration(text).map_err(E::custom)?;
                if time.is_zero() {
                    return Err(E::custom(
                        "a certificate that is renewed at its end is renewed too late: write a time such as 30d",
                    ));
                }
                Ok(RenewBefore::Time(time))
            }
        }

        deserializer.deserialize_any(Before)
    }
}

impl JsonSchema for RenewBefore {
    fn schema_name() -> Cow<'static, str> {
        "RenewBefore".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How long before its end a certificate is renewed: a share of its whole time (one third unless said otherwise), or a time.",
            "oneOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": "^([0-9]+[wdhms])+$", "examples": ["30d"]}
            ]
        })
    }
}

/// Pauses after an order that failed. They double from `first` to `longest`, are drawn out by chance, and are never shorter
/// than the authority asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeRetrySettings {
    /// After the first failure, at least 1s.
    pub first: Span,
    /// At most, up to 7d.
    pub longest: Span,
}

impl Default for AcmeRetrySettings {
    fn default() -> Self {
        // Public authorities take five failed validations of a name in an hour.
        Self { first: Span(Duration::from_mins(2)), longest: Span(Duration::from_hours(6)) }
    }
}

impl AcmeSettings {
    /// What is wrong with these settings, if anything: names the key and says what would be right.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        if !self.directory.starts_with("https://") {
            return Err("directory must be an https URL, such as https://acme-v02.api.letsencrypt.org/directory".into());
        }
        if !self.terms_of_service_agreed {
            return Err("terms_of_service_agreed must be true: read the terms of service of the authority first".into());
        }
        if self.domains.is_empty() || self.domains.len() > MOST_DOMAINS {
            return Err(format!("domains must name 1 to {MOST_DOMAINS} names, and names {}", self.domains.len()));
        }
        for (index, domain) in self.domains.iter().enumerate() {
            check_domain(domain)?;
            if self.domains[..index].contains(domain) {
                return Err(format!("domains: '{domain}' is there twice"));
            }
        }
        if let Some(wrong) = self.contact.iter().find(|contact| !is_contact(contact)) {
            return Err(format!("contact: '{}' is no mail address; write one such as ops@example.com", wrong.escape_default()));
        }
        match (self.challenge, &self.http) {
            (AcmeChallenge::Http01, None) => {
                return Err("http.address is needed for challenge http-01: the listener that port 80 leads to, such as \
                            0.0.0.0:80"
                    .into());
            }
            (AcmeChallenge::TlsAlpn01, Some(_)) => {
                return Err("http is only for challenge http-01, and challenge is tls-alpn-01: leave one of them out".into());
            }
            (AcmeChallenge::Http01, Some(http)) if http.redirect_port == 0 => {
                return Err("http.redirect_port must be a port, such as 443".into());
            }
            _ => {}
        }
        if self.external_account.as_ref().is_some_and(|account| account.key_id.trim().is_empty()) {
            return Err("external_account.key_id must be the identifier the authority gave you".into());
        }
        if self.profile.as_ref().is_some_and(|profile| profile.is_empty() || profile.len() > 64) {
            return Err("profile must be the name of one of the authority's profiles".into());
        }
        let (first, longest) = (self.retry.first.0, self.retry.longest.0);
        if first < SHORTEST_PAUSE || longest < first || longest > LONGEST_PAUSE {
            return Err("retry.first must be at least 1s, and retry.longest between it and 7d".into());
        }
        Ok(())
    }
}

/// Whether a name can be ordered: labels of lower-case letters, digits and hyphens, as it stands in a certificate.
fn check_domain(domain: &str) -> Result<(), String> {
    let shown: String = domain.escape_default().take(80).collect();
    if domain.starts_with("*.") {
        return Err(format!("domains: '{shown}' is a pattern, which needs a DNS challenge; write out the names"));
    }
    if domain.parse::<IpAddr>().is_ok() {
        return Err(format!("domains: '{shown}' is an address; write a name"));
    }
    let label = |label: &str| {
        let inside = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inside && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    let digits_last = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if domain.len() > 253 || digits_last || !domain.split('.').all(label) {
        return Err(format!(
            "domains: '{shown}' is no name of a machine; write it in lower case such as mcp.example.com, and letters beyond \
             ASCII in their xn-- form"
        ));
    }
    Ok(())
}

/// Whether this can be written into a `mailto:` URL without becoming something else there.
fn is_contact(text: &str) -> bool {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'@'))
    };
    let parts: Vec<&str> = address.split('@').collect();
    text.len() <= 254 && parts.len() == 2 && parts.iter().all(|part| plain(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({"directory": "https://acme.example/directory", "domains": ["mcp.example.com"], "terms_of_service_agreed": true})
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut value = good();
        change(&mut value);
        serde_json::from_value::<AcmeSettings>(value).unwrap().check().expect_err("this should be refused")
    }

    #[test]
    fn what_is_good_is_taken() {
        let settings: AcmeSettings = serde_json::from_value(good()).unwrap();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!((settings.challenge, settings.renew_before), (AcmeChallenge::TlsAlpn01, RenewBefore::Share(1.0 / 3.0)));
        let mut full = good();
        full["challenge"] = json!("http-01");
        full["http"] = json!({"address": "0.0.0.0:80"});
        full["contact"] = json!(["ops@example.com", "mailto:ops+acme@example.com"]);
        full["external_account"] = json!({"key_id": "kid-1", "key": "env:EAB_KEY"});
        full["renew_before"] = json!("30d");
        let settings: AcmeSettings = serde_json::from_value(full).unwrap();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.renew_before, RenewBefore::Time(Duration::from_hours(720)));
        let again: AcmeSettings = serde_json::from_value(serde_json::to_value(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_mend() {
        for (key, value, words) in [
            ("directory", json!("http://acme.example/directory"), "directory must be an https URL"),
            ("terms_of_service_agreed", json!(false), "terms_of_service_agreed must be true"),
            ("domains", json!([]), "1 to 100 names"),
            ("domains", json!(["*.example.com"]), "is a pattern"),
            ("domains", json!(["192.0.2.1"]), "is an address"),
            ("domains", json!(["::1"]), "is an address"),
            ("domains", json!(["a.example", "a.example"]), "is there twice"),
            ("domains", json!(["MCP.example.com"]), "in lower case"),
            ("domains", json!(["mcp..example.com"]), "no name of a machine"),
            ("domains", json!(["mcp.example.com:443"]), "no name of a machine"),
            ("domains", json!(["münchen.example"]), "xn-- form"),
            ("contact", json!(["ops"]), "contact: 'ops' is no mail address"),
            ("contact", json!(["ops@example.com?cc=x@y"]), "is no mail address"),
            ("challenge", json!("http-01"), "http.address is needed"),
            ("http", json!({"address": "0.0.0.0:80"}), "only for challenge http-01"),
            ("external_account", json!({"key_id": " ", "key": "env:X"}), "external_account.key_id"),
            ("profile", json!(""), "profile must be"),
            ("retry", json!({"longest": "8d"}), "retry.first must be at least 1s"),
            ("retry", json!({"first": "2h", "longest": "1h"}), "retry.longest"),
        ] {
            let text = refusal(|settings| settings[key] = value.clone());
            assert!(text.contains(words), "{key} {value}: {text}");
        }
    }

    #[test]
    fn renewal_is_a_share_or_a_time() {
        for wrong in [json!(0), json!(0.0), json!(1.0), json!(1.5), json!(-0.1), json!(-3), json!(30), json!("soon"), json!("0s")]
        {
            assert!(serde_json::from_value::<RenewBefore>(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_value::<RenewBefore>(json!(0.5)).unwrap(), RenewBefore::Share(0.5));
    }
}

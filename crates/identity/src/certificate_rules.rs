//! Whom a verified client certificate speaks for. Matches subject alternative names only, as whole names or below a
//! boundary that cannot be forged (`.`, `/`, `@`); the common name is never looked at.

use std::sync::Arc;

use portcullis_model::{CredentialKind, Principal, Timestamp};

use crate::certificate::{ClientCertificate, SanName, mailbox};
use crate::refusal::{IdentityRefusal, RefusalReason};
use crate::settings::{CertificateRule, Granted, IdentitySettingsError, SanMatch};

/// The rules, in the order of the configuration.
#[derive(Debug, Default)]
pub(crate) struct CertificateRules(Vec<(SanMatch, Principal)>);

impl CertificateRules {
    pub(crate) fn new(settings: &[CertificateRule]) -> Result<Self, IdentitySettingsError> {
        let mut rules = Vec::with_capacity(settings.len());
        for (index, rule) in settings.iter().enumerate() {
            let entry = format!("certificates.{index}");
            let san = checked(&rule.san).map_err(|why| IdentitySettingsError::new(format!("{entry}.san"), why))?;
            let principal = Granted {
                entry: &entry,
                id: format!("cert:{}", rule.name),
                // Replaced by the name that was matched.
                credential: CredentialKind::Certificate { subject: Arc::from("") },
                roles: &rule.roles,
                tenant: &rule.tenant,
                scope: &rule.scope,
                doors: &rule.doors,
            }
            .principal()?;
            rules.push((san, principal));
        }
        Ok(Self(rules))
    }

    pub(crate) fn principals(&self) -> impl Iterator<Item = Principal> {
        self.0.iter().map(|(_, principal)| principal.clone())
    }

    /// Whom the certificate speaks for: the first rule that one of its names fits.
    pub(crate) fn verify(&self, certificate: &ClientCertificate, now: Timestamp) -> Result<Arc<Principal>, IdentityRefusal> {
        let refused = |reason| Err(IdentityRefusal::new(reason).with_detail(format!("sha256 {}", certificate.fingerprint())));
        if certificate.not_after < now {
            return refused(RefusalReason::CertificateExpired);
        }
        for (san, principal) in &self.0 {
            if let Some(name) = certificate.subject_alternative_names.iter().find(|name| fits(san, name)) {
                let credential = CredentialKind::Certificate { subject: Arc::from(name.to_string()) };
                return Ok(Arc::new(Principal { credential, ..principal.clone() }));
            }
        }
        refused(RefusalReason::NoCertificateRule)
    }
}

/// The pattern in the form names are compared in.
fn checked(san: &SanMatch) -> Result<SanMatch, String> {
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let host = |text: &str| visible(text) && !text.contains('*') && text.split('.').all(|label| !label.is_empty());
    Ok(match san {
        SanMatch::Dns(name) if host(name) => SanMatch::Dns(name.to_ascii_lowercase()),
        SanMatch::DnsSuffix(suffix) if suffix.strip_prefix('.').is_some_and(host) => {
            SanMatch::DnsSuffix(suffix.to_ascii_lowercase())
        }
        SanMatch::Uri(uri) if visible(uri) && uri.contains(':') => san.clone(),
        SanMatch::UriPrefix(prefix) if visible(prefix) && is_uri_prefix(prefix) => san.clone(),
        SanMatch::Email(address) if visible(address) => SanMatch::Email(mailbox(address).ok_or("the address has no '@'")?),
        SanMatch::EmailDomain(domain) if host(domain) && !domain.contains('@') => {
            SanMatch::EmailDomain(domain.to_ascii_lowercase())
        }
        SanMatch::Dns(_) => return Err("dns must be one whole host name without '*'".to_owned()),
        SanMatch::DnsSuffix(_) => return Err("dns_suffix must start with a dot, such as .agents.example.com".to_owned()),
        SanMatch::Uri(_) => return Err("uri must be a whole URI, such as spiffe://mesh.example/ns/shop/sa/agent".to_owned()),
        SanMatch::UriPrefix(_) => {
            return Err(
                "uri_prefix must name the authority and end with a slash, such as spiffe://mesh.example/ns/shop/".to_owned()
            );
        }
        SanMatch::Email(_) => return Err("email must be one whole address".to_owned()),
        SanMatch::EmailDomain(_) => return Err("email_domain must be a host name without '@', such as example.com".to_owned()),
    })
}

fn is_uri_prefix(prefix: &str) -> bool {
    prefix.ends_with('/')
        && prefix.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && rest.split_once('/').is_some_and(|(authority, _)| !authority.is_empty())
        })
}

fn fits(san: &SanMatch, name: &SanName) -> bool {
    match (san, name) {
        (SanMatch::Dns(wanted), SanName::Dns(name)) => wanted == name,
        // A wildcard of a certificate is a pattern, not a name of anybody.
        (SanMatch::DnsSuffix(suffix), SanName::Dns(name)) => {
            !name.contains('*') && name.strip_suffix(suffix.as_str()).is_some_and(|host| !host.is_empty())
        }
        (SanMatch::Uri(wanted), SanName::Uri(uri)) => wanted == uri,
        (SanMatch::UriPrefix(prefix), SanName::Uri(uri)) => uri.strip_prefix(prefix.as_str()).is_some_and(is_plain_path),
        (SanMatch::Email(wanted), SanName::Email(address)) => wanted == address,
        (SanMatch::EmailDomain(domain), SanName::Email(address)) => {
            address.rsplit_once('@').is_some_and(|(_, host)| host == domain)
        }
        _ => false,
    }
}

/// A path that can only be read one way: as the SPIFFE id specification, section 2.2, allows it.
fn is_plain_path(path: &str) -> bool {
    path.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rules(entries: serde_json::Value) -> Result<CertificateRules, IdentitySettingsError> {
        CertificateRules::new(&serde_json::from_value::<Vec<CertificateRule>>(entries).unwrap())
    }

    fn certificate(names: Vec<SanName>) -> ClientCertificate {
        ClientCertificate {
            subject_alternative_names: names,
            not_after: Timestamp::from_seconds(1_000),
            fingerprint_sha256: [7; 32],
        }
    }

    fn dns(name: &str) -> SanName {
        SanName::Dns(name.into())
    }

    fn uri(name: &str) -> SanName {
        SanName::Uri(name.into())
    }

    fn email(name: &str) -> SanName {
        SanName::Email(name.into())
    }

    #[test]
    fn names_fit_whole_or_below_a_boundary() {
        let at = Timestamp::from_seconds(1);
        for (san, fitting, strangers) in [
            (
                json!({"dns": "Agent.example.com"}),
                vec![dns("agent.example.com")],
                vec![
                    dns("xagent.example.com"),
                    dns("agent.example.com.evil.example"),
                    uri("agent.example.com"),
                    dns("*.example.com"),
                ],
            ),
            (
                json!({"dns_suffix": ".agents.example.com"}),
                vec![dns("a.agents.example.com"), dns("a.b.agents.example.com")],
                vec![
                    dns("agents.example.com"),
                    dns("evilagents.example.com"),
                    dns("*.agents.example.com"),
                    dns(".agents.example.com"),
                ],
            ),
            (
                json!({"uri": "spiffe://mesh.example/ns/shop/sa/agent"}),
                vec![uri("spiffe://mesh.example/ns/shop/sa/agent")],
                vec![uri("spiffe://mesh.example/ns/shop/sa/agent2"), uri("spiffe://mesh.example/ns/shop/sa/Agent"), dns("agent")],
            ),
            (
                json!({"uri_prefix": "spiffe://mesh.example/ns/shop/"}),
                vec![uri("spiffe://mesh.example/ns/shop/sa/agent")],
                vec![
                    uri("spiffe://mesh.example/ns/shop/"),
                    uri("spiffe://mesh.example/ns/shop/../bank/sa/agent"),
                    uri("spiffe://mesh.example/ns/shop/%2e%2e/bank"),
                    uri("spiffe://mesh.example/ns/shop//x"),
                    uri("spiffe://mesh.example/ns/shop/x?y"),
                    uri("spiffe://mesh.example.evil/ns/shop/x"),
                    uri("spiffe://other.example/ns/shop/x"),
                ],
            ),
            (
                json!({"email": "Ana@Example.com"}),
                vec![email("Ana@example.com")],
                vec![email("ana@example.com"), email("x@example.com")],
            ),
            (
                json!({"email_domain": "Example.com"}),
                vec![email("ana@example.com")],
                vec![email("ana@evil-example.com"), email("ana@sub.example.com"), dns("example.com")],
            ),
        ] {
            let rules = rules(json!([{"name": "agent", "san": san, "roles": ["reader"]}])).unwrap();
            for name in fitting {
                let principal = rules.verify(&certificate(vec![dns("other.example"), name.clone()]), at).unwrap();
                assert_eq!(principal.id.as_str(), "cert:agent");
                assert_eq!(principal.credential, CredentialKind::Certificate { subject: name.to_string().into() });
            }
            for name in strangers {
                let refusal = rules.verify(&certificate(vec![name.clone()]), at).unwrap_err();
                assert_eq!(refusal.reason, RefusalReason::NoCertificateRule, "{san} {name:?}");
                assert!(refusal.detail.unwrap().contains("0707"), "the audit record names the certificate");
            }
        }
    }

    #[test]
    fn the_first_rule_decides_and_an_ended_certificate_is_refused() {
        let rules = rules(json!([
            {"name": "one", "san": {"dns": "a.example"}, "roles": ["reader"]},
            {"name": "all", "san": {"dns_suffix": ".example"}, "roles": ["operator"], "tenant": "shop"},
        ]))
        .unwrap();
        let at = Timestamp::from_seconds(1);
        assert_eq!(rules.verify(&certificate(vec![dns("b.example"), dns("a.example")]), at).unwrap().id.as_str(), "cert:one");
        assert_eq!(rules.verify(&certificate(vec![dns("b.example")]), at).unwrap().tenant.as_str(), "shop");
        assert_eq!(rules.verify(&certificate(vec![]), at).unwrap_err().reason, RefusalReason::NoCertificateRule);
        let late = Timestamp::from_seconds(1_001);
        assert_eq!(
            rules.verify(&certificate(vec![dns("a.example")]), late).unwrap_err().reason,
            RefusalReason::CertificateExpired
        );
    }

    #[test]
    fn patterns_that_would_fit_too_much_are_refused() {
        for san in [
            json!({"dns": ""}),
            json!({"dns": "*.example.com"}),
            json!({"dns": "a..b"}),
            json!({"dns_suffix": "example.com"}),
            json!({"dns_suffix": "."}),
            json!({"dns_suffix": ""}),
            json!({"uri": "agent"}),
            json!({"uri_prefix": "spiffe://mesh.example"}),
            json!({"uri_prefix": "spiffe:///"}),
            json!({"uri_prefix": "spiffe://"}),
            json!({"uri_prefix": "/"}),
            json!({"email": "example.com"}),
            json!({"email": "@example.com"}),
            json!({"email_domain": "@example.com"}),
            json!({"email_domain": ""}),
        ] {
            let error = rules(json!([{"name": "a", "san": san, "roles": ["reader"]}])).unwrap_err().to_string();
            assert!(error.starts_with("certificates.0.san"), "{san}: {error}");
        }
        assert!(rules(json!([{"name": "a b", "san": {"dns": "a"}, "roles": ["reader"]}])).is_err());
        assert!(rules(json!([{"name": "a", "san": {"dns": "a"}}])).unwrap_err().to_string().contains("roles is empty"));
    }

    proptest! {
        #[test]
        fn a_prefix_never_fits_outside_of_itself(path in "[a-z./%?#]{0,30}") {
            let prefix = "spiffe://mesh.example/ns/shop/";
            let name = uri(&format!("spiffe://mesh.example/{path}"));
            if fits(&SanMatch::UriPrefix(prefix.into()), &name) {
                prop_assert!(!path.split('/').any(|segment| segment == ".."));
                prop_assert!(path.starts_with("ns/shop/"));
            }
        }
    }
}

//! What the operator says about who may come in: users, certificate rules, what each listener accepts, lockout.
//! Guards that a setting that could let in the wrong one is an error at the start. Holds no key and opens nothing.
//!
//! Which credential decides when a request brings several: the `Authorization` header, if there is one; a client
//! certificate only when there is none. With [`IdentitySettings::require_certificate_binding`] a header counts only
//! together with a certificate that a rule accepts, so that a stolen key alone is of no use.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::Span;
use portcullis_model::{CredentialKind, NameSet, Principal, PrincipalId, Scope, Secret, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::password::UnusableHash;
use crate::record::{Door, is_restriction, is_role_name};
use crate::token::TokenSettings;

/// Who may come in, beside the holders of API keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentitySettings {
    /// What the MCP listener accepts.
    pub mcp: AcceptedCredentials,
    /// What the ingest listeners accept.
    pub ingest: AcceptedCredentials,
    /// What the admin listener accepts, for administration and for scraping.
    pub admin: AcceptedCredentials,
    /// Whether an `Authorization` header counts only together with a client certificate that one of `certificates` accepts,
    /// with a door of the listener among its `doors`. The caller is then who the header says, whichever certificate it is. A
    /// certificate alone is accepted as always.
    pub require_certificate_binding: bool,
    /// People and programs that sign in with a name and a password (HTTP Basic). None by default.
    pub users: Vec<BasicUser>,
    /// Whom a verified client certificate speaks for; the first rule that fits decides, and without one it is refused.
    pub certificates: Vec<CertificateRule>,
    /// Access tokens of OpenID providers and OAuth authorization servers. None are accepted by default.
    pub tokens: TokenSettings,
    /// How long somebody who presents wrong credentials has to wait. Counted in memory, by each process for itself.
    pub lockout: LockoutSettings,
}

/// Kinds of credentials a listener accepts. A kind for which nothing is configured lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcceptedCredentials {
    /// API keys.
    pub key: bool,
    /// User name and password.
    pub basic: bool,
    /// Tokens of a configured issuer.
    pub token: bool,
    /// Client certificates.
    pub certificate: bool,
}

impl Default for AcceptedCredentials {
    fn default() -> Self {
        Self { key: true, basic: true, token: true, certificate: true }
    }
}

/// A user of HTTP Basic.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicUser {
    /// Name, without `:`; the principal is `user:<name>`.
    pub name: String,
    /// Argon2id hash as `portcullis key hash-password` prints it.
    #[schemars(with = "String")]
    pub password_hash: Secret,
    /// Roles; at least one when the user may open `mcp` or `admin`.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// Tenant whose data the user sees or sends.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// What data the user is confined to.
    #[serde(default)]
    pub scope: ScopeSettings,
    /// What the user opens.
    #[serde(default = "default_doors")]
    pub doors: BTreeSet<Door>,
}

/// Whom a client certificate speaks for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRule {
    /// Name of the caller; the principal is `cert:<name>`. All certificates the rule fits are this one principal.
    pub name: String,
    /// The subject alternative name that fits.
    pub san: SanMatch,
    /// Roles; at least one when it may open `mcp` or `admin`.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// Tenant whose data it sees or sends.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// What data it is confined to.
    #[serde(default)]
    pub scope: ScopeSettings,
    /// What it opens.
    #[serde(default = "default_doors")]
    pub doors: BTreeSet<Door>,
}

/// Which subject alternative name fits. The common name of the subject is never looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SanMatch {
    /// This DNS name.
    Dns(String),
    /// Every DNS name below this one; starts with a dot: `.agents.example.com`.
    DnsSuffix(String),
    /// This URI, such as a SPIFFE id.
    Uri(String),
    /// Every URI below this one; names the authority and ends with a slash: `spiffe://mesh.example/ns/shop/`.
    UriPrefix(String),
    /// This e-mail address.
    Email(String),
    /// Every e-mail address of this domain.
    EmailDomain(String),
}

/// What data a caller is confined to. What is left out is not confined.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScopeSettings {
    /// Only these sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<BTreeSet<String>>,
    /// Only these services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeSet<String>>,
    /// Only these Kubernetes namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<BTreeSet<String>>,
    /// How far back questions may reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_back: Option<Span>,
}

/// How long somebody who presents wrong credentials has to wait: the wait doubles with each failure beyond the free ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LockoutSettings {
    /// Failures of one address (IPv6: of its /64) without a wait. A right credential does not reset them.
    pub failures_per_address: u32,
    /// First wait of an address.
    pub first_wait_of_address: Span,
    /// Failures of one key id or user name from one address without a wait. The right secret resets them.
    pub failures_per_claim: u32,
    /// First wait of a key id or user name at an address.
    pub first_wait_of_claim: Span,
    /// Longest wait.
    pub longest_wait: Span,
    /// Quiet time after the wait that makes failures forgotten.
    pub forget_after: Span,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            failures_per_address: 20,
            first_wait_of_address: Span(Duration::from_secs(3)),
            failures_per_claim: 5,
            first_wait_of_claim: Span(Duration::from_secs(1)),
            longest_wait: Span(Duration::from_mins(15)),
            forget_after: Span(Duration::from_mins(15)),
        }
    }
}

fn default_tenant() -> String {
    TenantId::default_tenant().to_string()
}

fn default_doors() -> BTreeSet<Door> {
    [Door::Mcp].into()
}

/// A setting that cannot be used. The operator's to mend; names the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry}: {why}")]
pub struct IdentitySettingsError {
    entry: String,
    why: String,
}

impl IdentitySettingsError {
    pub(crate) fn new(entry: impl Into<String>, why: impl Into<String>) -> Self {
        Self { entry: entry.into(), why: why.into() }
    }

    pub(crate) fn hash(entry: &str, error: &UnusableHash) -> Self {
        Self::new(entry, error.to_string())
    }
}

impl IdentitySettings {
    /// Every role somebody is given, so that unknown ones can be refused where roles are known.
    pub fn roles(&self) -> BTreeSet<&str> {
        let users = self.users.iter().flat_map(|user| &user.roles);
        users.chain(self.certificates.iter().flat_map(|rule| &rule.roles)).map(String::as_str).collect()
    }

    /// Whom the users and the rules for certificates stand for. The name in the certificate that is matched is not known here.
    ///
    /// # Errors
    /// The first entry that cannot be used.
    pub fn principals(&self) -> Result<Vec<Principal>, IdentitySettingsError> {
        let mut all = crate::basic::Users::new(&self.users)?.principals();
        all.extend(crate::certificate_rules::CertificateRules::new(&self.certificates)?.principals());
        Ok(all)
    }

    /// Checks everything that can be checked without a store.
    ///
    /// # Errors
    /// The first entry that cannot be used.
    pub fn check(&self) -> Result<(), IdentitySettingsError> {
        self.lockout.check()?;
        crate::basic::Users::new(&self.users)?;
        crate::certificate_rules::CertificateRules::new(&self.certificates)?;
        if self.require_certificate_binding && self.certificates.is_empty() {
            let why = "needs at least one rule in certificates: without one nobody could come in with a header";
            return Err(IdentitySettingsError::new("require_certificate_binding", why));
        }
        Ok(())
    }
}

impl LockoutSettings {
    fn check(&self) -> Result<(), IdentitySettingsError> {
        let wrong = |name: &str, why: &str| Err(IdentitySettingsError::new(format!("lockout.{name}"), why));
        if !(1..=1_000).contains(&self.failures_per_address) {
            return wrong("failures_per_address", "use 1 to 1000");
        }
        if !(1..=1_000).contains(&self.failures_per_claim) {
            return wrong("failures_per_claim", "use 1 to 1000");
        }
        let longest = self.longest_wait.0;
        if longest > Duration::from_hours(24) || self.first_wait_of_address.0 > longest || self.first_wait_of_claim.0 > longest {
            return wrong("longest_wait", "use at most 1d and at least the first waits");
        }
        if self.forget_after.0 > Duration::from_hours(24) {
            return wrong("forget_after", "use at most 1d");
        }
        Ok(())
    }
}

/// What an entry grants, before it is a principal.
pub(crate) struct Granted<'a> {
    pub(crate) entry: &'a str,
    pub(crate) id: String,
    pub(crate) credential: CredentialKind,
    pub(crate) roles: &'a BTreeSet<String>,
    pub(crate) tenant: &'a str,
    pub(crate) scope: &'a ScopeSettings,
    pub(crate) doors: &'a BTreeSet<Door>,
}

impl Granted<'_> {
    /// Checks the entry and makes the principal.
    pub(crate) fn principal(self) -> Result<Principal, IdentitySettingsError> {
        let wrong = |why: String| IdentitySettingsError::new(self.entry, why);
        if self.doors.is_empty() {
            return Err(wrong("doors is empty: give mcp, ingest, admin or metrics".to_owned()));
        }
        if self.roles.is_empty() && self.doors.iter().any(|door| door.needs_role()) {
            return Err(wrong("roles is empty: give at least one, such as reader".to_owned()));
        }
        if let Some(role) = self.roles.iter().find(|role| !is_role_name(role)) {
            return Err(wrong(format!(
                "'{}' is not a role name: use 1 to 64 letters, digits, '_', '-', '.'",
                role.escape_default()
            )));
        }
        let id = PrincipalId::new(&self.id).map_err(|e| wrong(e.to_string()))?;
        let tenant = TenantId::new(self.tenant).map_err(|e| wrong(e.to_string()))?;
        let named = |kind: &str, names: &Option<BTreeSet<String>>| {
            let set = names.as_ref().map_or(NameSet::All, NameSet::only);
            is_restriction(&set)
                .then_some(set)
                .ok_or_else(|| wrong(format!("scope.{kind}: name at least one, each 1 to 256 bytes, or leave it out for all")))
        };
        let look_back = self.scope.look_back.map(|span| span.0);
        Ok(Principal {
            id,
            credential: self.credential.clone(),
            tenant: tenant.clone(),
            roles: self.roles.iter().map(|role| Arc::from(role.as_str())).collect(),
            doors: self.doors.iter().map(|door| Arc::from(door.as_str())).collect(),
            scope: Scope {
                tenant,
                sources: named("sources", &self.scope.sources)?,
                services: named("services", &self.scope.services)?,
                namespaces: named("namespaces", &self.scope.namespaces)?,
                look_back,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<IdentitySettings, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn nothing_said_accepts_every_kind_and_grants_nothing() {
        let settings = read(json!({})).unwrap();
        assert_eq!(settings.mcp, AcceptedCredentials { key: true, basic: true, token: true, certificate: true });
        assert!(settings.users.is_empty() && settings.certificates.is_empty() && !settings.require_certificate_binding);
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn misspelt_keys_are_refused() {
        for wrong in [
            json!({"user": []}),
            json!({"mcp": {"keys": true}}),
            json!({"lockout": {"failures": 3}}),
            json!({"users": [{"name": "a", "password_hash": "x", "role": ["reader"]}]}),
            json!({"users": [{"name": "a", "password_hash": "x", "scope": {"service": ["a"]}}]}),
            json!({"certificates": [{"name": "a", "san": {"cn": "a"}}]}),
            json!({"certificates": [{"name": "a", "san": {"dns": "a", "uri": "b"}}]}),
            json!({"users": [{"name": "a", "password_hash": "x", "doors": ["console"]}]}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hash_is_not_printed_and_the_schema_names_every_key() {
        let phc = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$xyz";
        let settings = read(json!({"users": [{"name": "ana", "password_hash": phc, "roles": ["reader"]}]})).unwrap();
        assert!(!format!("{settings:?} {}", serde_json::to_string(&settings).unwrap()).contains("c29tZXNhbHRzb21l"));
        assert_eq!(settings.roles(), ["reader"].into());
        let schema = serde_json::to_string(&schemars::schema_for!(IdentitySettings)).unwrap();
        for key in ["require_certificate_binding", "password_hash", "dns_suffix", "failures_per_claim", "look_back"] {
            assert!(schema.contains(&format!("\"{key}\"")), "{key}");
        }
    }

    #[test]
    fn settings_that_could_not_work_are_refused_by_name() {
        for (wrong, entry) in [
            (json!({"require_certificate_binding": true}), "require_certificate_binding"),
            (json!({"lockout": {"failures_per_address": 0}}), "lockout.failures_per_address"),
            (json!({"lockout": {"failures_per_claim": 100_000}}), "lockout.failures_per_claim"),
            (json!({"lockout": {"longest_wait": "1s"}}), "lockout.longest_wait"),
            (json!({"lockout": {"longest_wait": "2d"}}), "lockout.longest_wait"),
            (json!({"lockout": {"forget_after": "2d"}}), "lockout.forget_after"),
        ] {
            let error = read(wrong.clone()).unwrap().check().unwrap_err().to_string();
            assert!(error.starts_with(entry), "{wrong}: {error}");
        }
    }
}

//! Which issuers are trusted and what their claims mean, as the operator writes it. Guards that an issuer that would grant
//! nothing, or could be impersonated on the way, is an error at start-up. Must not open connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use portcullis_config::{ByteSize, Span};
use portcullis_egress::{AllowedRange, EgressConfigError, SecretFault, TlsSettings, origin_of};
use portcullis_model::{PrincipalId, TenantId};
use portcullis_policy::PolicyError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exchange::ExchangeSettings;
use crate::record::Door;

/// Access tokens: who may issue them, and what they grant. Without an issuer no token is accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSettings {
    /// URL of this server as clients know it (RFC 8707, RFC 9728), such as `https://mcp.example.com/mcp`. Tokens must name
    /// it as their audience unless an issuer lists others, and clients refuse a server whose metadata names another URL
    /// than they use. Without it, the address of the MCP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Issuers whose tokens are accepted.
    pub issuers: Vec<TokenIssuer>,
    /// Scopes a client without a token is told to ask for. Without them, those that grant the role `reader`.
    pub entry_scopes: Vec<String>,
    /// Longest token.
    pub max_size: ByteSize,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self { resource: None, issuers: Vec::new(), entry_scopes: Vec::new(), max_size: ByteSize(16 << 10) }
    }
}

/// One OpenID provider or OAuth authorization server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenIssuer {
    /// Short unique name: lower-case letters, digits and `-`, at most 32. Part of the ids of its principals in the audit log
    /// (`token:<name>/<subject>`).
    pub name: String,
    /// The issuer, exactly as in its tokens (`iss`) and its discovery document. `https`, or `http` on a loopback address.
    pub issuer: String,
    /// Audiences of which a token must name one, exactly. Without any, the URL of this server.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the issuer's keys are. Without it they are found by OpenID Connect discovery or RFC 8414, and must then be on
    /// the issuer's own origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Signature algorithms that are accepted. `none` and shared secrets (`HS256` and its kin) never are.
    #[serde(default = "TokenAlgorithm::usual")]
    pub algorithms: BTreeSet<TokenAlgorithm>,
    /// Accepted `typ` of the token's header. `at+jwt` is what RFC 9068 asks of access tokens. `JWT` admits tokens that do
    /// not say what they are (also those without `typ`), which some providers issue; ID tokens are then told apart by
    /// their audience and claims.
    #[serde(default = "at_jwt")]
    pub types: Vec<String>,
    /// The claim that names the principal. It must be unique within the issuer and never be given to somebody else.
    #[serde(default = "subject")]
    pub principal_claim: ClaimPath,
    /// Roles by a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<ValueMapping>,
    /// Roles of every accepted token of this issuer.
    #[serde(default)]
    pub default_roles: Vec<String>,
    /// The tenant.
    #[serde(default)]
    pub tenant: TenantMapping,
    /// The claim with the scopes: one text with spaces, or a list.
    #[serde(default = "scope")]
    pub scope_claim: ClaimPath,
    /// What scopes grant. With any, a token opens only the doors its scopes open; without, every accepted token opens `mcp`.
    #[serde(default)]
    pub scopes: BTreeMap<String, ScopeGrant>,
    /// The claim that lists the services a principal may see. When it is named here and absent in a token, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services_claim: Option<ClaimPath>,
    /// The claim that lists the Kubernetes namespaces a principal may see. When it is named here and absent in a token,
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces_claim: Option<ClaimPath>,
    /// How far the issuer's clock may be off. At most five minutes.
    #[serde(default = "skew")]
    pub clock_skew: Span,
    /// Longest time between a token's issue and its expiry.
    #[serde(default = "lifetime")]
    pub max_lifetime: Span,
    /// Longest time since a token was issued, whatever its expiry; tokens must then say when (`iat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Address ranges the issuer may live in besides public ones: `loopback`, `private`, `shared`, or networks such as
    /// `10.20.0.0/16`.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
    /// TLS towards the issuer.
    #[serde(default)]
    pub tls: TlsSettings,
    /// How its tokens are exchanged for tokens of sources that are asked in the caller's own name (`auth: {exchange: …}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeSettings>,
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl TokenAlgorithm {
    const ALL: [Self; 9] =
        [Self::RS256, Self::RS384, Self::RS512, Self::PS256, Self::PS384, Self::PS512, Self::ES256, Self::ES384, Self::EdDSA];

    /// The algorithm of that name, exactly as registered; nothing for every other one.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(super) fn into_library(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    fn usual() -> BTreeSet<Self> {
        [Self::RS256, Self::PS256, Self::ES256, Self::ES384, Self::EdDSA].into()
    }
}

/// Where a claim is: its name, exactly as written (`scope`, `https://example.com/roles`), or a list of names that lead
/// into nested objects (`[realm_access, roles]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClaimPath {
    /// A claim of the token itself.
    Name(String),
    /// A claim inside objects.
    Path(Vec<String>),
}

impl ClaimPath {
    pub(super) fn steps(&self) -> &[String] {
        match self {
            Self::Name(name) => std::slice::from_ref(name),
            Self::Path(path) => path,
        }
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.steps().join("."))
    }
}

/// A claim and what its values mean. Values that are not listed mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueMapping {
    /// The claim: one text, or a list of texts.
    pub claim: ClaimPath,
    /// Value of the claim, exactly, to its meaning here.
    pub map: BTreeMap<String, String>,
}

/// The tenant of an issuer's principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TenantMapping {
    /// One tenant for all.
    Fixed(#[schemars(with = "String")] TenantId),
    /// By the value of a claim. A token whose claim is absent, or maps to none or to several tenants, is refused.
    By(ValueMapping),
}

impl Default for TenantMapping {
    fn default() -> Self {
        Self::Fixed(TenantId::default_tenant())
    }
}

/// What one scope grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeGrant {
    /// Roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Doors: `mcp` (asking and calling tools), `ingest` (sending telemetry), `admin` (administration), `metrics` (scraping).
    #[serde(default = "mcp_door")]
    #[schemars(with = "Vec<String>")]
    pub doors: BTreeSet<Door>,
}

fn at_jwt() -> Vec<String> {
    vec!["at+jwt".to_owned()]
}

fn subject() -> ClaimPath {
    ClaimPath::Name("sub".to_owned())
}

fn scope() -> ClaimPath {
    ClaimPath::Name("scope".to_owned())
}

fn mcp_door() -> BTreeSet<Door> {
    [Door::Mcp].into()
}

fn skew() -> Span {
    Span(Duration::from_secs(30))
}

fn lifetime() -> Span {
    Span(Duration::from_hours(24))
}

/// Settings that cannot be used; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TokenSettingsError {
    /// A setting of one issuer.
    #[error("token issuer '{issuer}': {reason}")]
    Issuer {
        /// Its name.
        issuer: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A setting beside the issuers.
    #[error("tokens: {0}")]
    Setting(String),
    /// The client that would fetch keys or exchange tokens cannot be built.
    #[error(transparent)]
    Egress(#[from] EgressConfigError),
    /// The secret of a client cannot be found.
    #[error("exchange.client_secret: {0}")]
    Secret(#[from] SecretFault),
    /// The charter for it cannot be made.
    #[error(transparent)]
    Charter(#[from] PolicyError),
}

impl TokenSettings {
    /// Checks everything that can be checked without asking anybody. `known_roles` are the roles policies speak of.
    pub fn check(&self, known_roles: &BTreeSet<String>) -> Result<(), TokenSettingsError> {
        if let Some(resource) = &self.resource {
            check_resource(resource).map_err(TokenSettingsError::Setting)?;
        }
        if !(256..=64 << 10).contains(&self.max_size.0) {
            return Err(TokenSettingsError::Setting("max_size must be between 256B and 64KiB".to_owned()));
        }
        let known_scopes: BTreeSet<&str> = self.issuers.iter().flat_map(|i| i.scopes.keys()).map(String::as_str).collect();
        if let Some(scope) = self.entry_scopes.iter().find(|s| !known_scopes.contains(s.as_str())) {
            return Err(TokenSettingsError::Setting(format!("entry_scopes: no issuer maps the scope '{scope}'")));
        }
        let mut names = BTreeSet::new();
        let mut issuers = BTreeSet::new();
        for issuer in &self.issuers {
            issuer.check(known_roles).map_err(|reason| TokenSettingsError::Issuer { issuer: issuer.name.clone(), reason })?;
            if !names.insert(&issuer.name) || !issuers.insert(&issuer.issuer) {
                let reason = "another issuer has the same name or the same issuer URL".to_owned();
                return Err(TokenSettingsError::Issuer { issuer: issuer.name.clone(), reason });
            }
        }
        Ok(())
    }
}

impl TokenIssuer {
    fn check(&self, known_roles: &BTreeSet<String>) -> Result<(), String> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(fits) {
            return Err("the name needs 1 to 32 lower-case letters, digits and '-'".to_owned());
        }
        secure_url(&self.issuer).map_err(|e| format!("issuer: {e}"))?;
        if let Some(uri) = &self.jwks_uri {
            secure_url(uri).map_err(|e| format!("jwks_uri: {e}"))?;
        }
        if let Some(exchange) = &self.exchange {
            secure_url(&exchange.token_endpoint).map_err(|e| format!("exchange.token_endpoint: {e}"))?;
            if exchange.client_id.is_empty() {
                return Err("exchange.client_id is empty".to_owned());
            }
        }
        if self.algorithms.is_empty() || self.types.is_empty() {
            return Err("algorithms and types must each name at least one".to_owned());
        }
        if let Some(kind) = self.types.iter().find(|t| t.is_empty() || t.len() > 64 || !t.is_ascii()) {
            return Err(format!("types: '{kind}' is not a type; write at+jwt or JWT"));
        }
        if self.audiences.iter().any(|a| a.is_empty() || a.len() > 1_024) {
            return Err("audiences: an audience has 1 to 1024 bytes".to_owned());
        }
        self.check_paths()?;
        if self.clock_skew.0 > Duration::from_mins(5) {
            return Err("clock_skew is at most 5m".to_owned());
        }
        if self.max_lifetime.0.is_zero() {
            return Err("max_lifetime must be above zero".to_owned());
        }
        if let Some(role) = self.role_names().find(|role| !known_roles.contains(*role)) {
            return Err(format!("there is no role '{role}'; name it under roles first"));
        }
        if self.role_names().next().is_none() && !self.opens_without_role() {
            return Err("its tokens would grant nothing: map roles, scopes or default_roles".to_owned());
        }
        if let TenantMapping::By(mapping) = &self.tenant {
            for tenant in mapping.map.values() {
                TenantId::new(tenant).map_err(|e| e.to_string())?;
            }
        }
        let scope_fits = |s: &str| !s.is_empty() && s.len() <= 256 && s.bytes().all(is_scope_byte);
        if let Some(scope) = self.scopes.keys().find(|s| !scope_fits(s)) {
            return Err(format!(
                "scopes: '{scope}' is not a scope (RFC 6749 section 3.3: printable, no space, quote or backslash)"
            ));
        }
        if let Some((scope, _)) = self.scopes.iter().find(|(_, grant)| grant.doors.is_empty()) {
            return Err(format!("scopes: '{scope}' opens no door; leave doors out for mcp"));
        }
        PrincipalId::new(format!("charter:jwks:{}", self.name)).map(drop).map_err(|e| e.to_string())
    }

    fn check_paths(&self) -> Result<(), String> {
        let mapped = self.roles.iter().map(|m| &m.claim).chain(match &self.tenant {
            TenantMapping::By(mapping) => Some(&mapping.claim),
            TenantMapping::Fixed(_) => None,
        });
        let paths = [&self.principal_claim, &self.scope_claim].into_iter();
        for path in paths.chain(mapped).chain(&self.services_claim).chain(&self.namespaces_claim) {
            let steps = path.steps();
            if !(1..=8).contains(&steps.len()) || steps.iter().any(String::is_empty) {
                return Err("a claim is a name, or a list of one to eight names, none of them empty".to_owned());
            }
        }
        Ok(())
    }

    /// Every role its tokens can have.
    pub(super) fn role_names(&self) -> impl Iterator<Item = &String> {
        let by_claim = self.roles.iter().flat_map(|m| m.map.values());
        by_claim.chain(&self.default_roles).chain(self.scopes.values().flat_map(|g| &g.roles))
    }

    /// Whether a token can be of use without a role.
    fn opens_without_role(&self) -> bool {
        self.scopes.values().any(|grant| grant.doors.iter().any(|door| !door.needs_role()))
    }
}

/// Characters of a scope (RFC 6749 section 3.3).
fn is_scope_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

/// The canonical URL of this server: http(s), with a host, without user, query and fragment (RFC 9728 section 1.2).
pub(super) fn check_resource(resource: &str) -> Result<(), String> {
    // Characters that need no escape in a path, and those of `scheme://[host]:port`.
    let plain = resource.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/:[]".contains(&b));
    let path_plain = resource.splitn(4, '/').nth(3).is_none_or(|path| !path.contains([':', '[', ']']));
    if !plain || !path_plain || origin_of(resource).is_err() {
        return Err(format!(
            "resource '{}' is not usable; write the URL clients use, such as https://mcp.example.com/mcp",
            super::reason::shown(resource)
        ));
    }
    Ok(())
}

/// A URL keys may come from: `https`, or `http` to this very machine.
pub(super) fn secure_url(url: &str) -> Result<(), String> {
    let origin = origin_of(url.split_once('?').map_or(url, |(base, _)| base)).map_err(|e| e.to_string())?;
    if origin.starts_with("https://") || is_loopback(&origin) {
        return Ok(());
    }
    Err("use https; http is only accepted on a loopback address, because who changes keys on the way can be anybody".to_owned())
}

/// Whether an origin is `http` on this machine.
pub(super) fn is_loopback(origin: &str) -> bool {
    let Some((host, _port)) = origin.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')) else { return false };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(json: &str) -> TokenIssuer {
        serde_json::from_str(json).expect(json)
    }

    fn roles() -> BTreeSet<String> {
        ["reader", "operator"].map(str::to_owned).into()
    }

    #[test]
    fn the_least_that_is_needed_has_safe_defaults() {
        let least = issuer(r#"{"name":"corp","issuer":"https://id.example.com","default_roles":["reader"]}"#);
        least.check(&roles()).unwrap();
        assert_eq!(least.types, ["at+jwt"]);
        assert_eq!((least.clock_skew.0, least.max_lifetime.0), (Duration::from_secs(30), Duration::from_hours(24)));
        assert!(!least.algorithms.contains(&TokenAlgorithm::RS512));
    }

    #[test]
    fn what_cannot_be_safe_or_useful_is_refused_with_what_would_be_right() {
        for (json, word) in [
            (r#"{"name":"corp","issuer":"http://id.example.com","default_roles":["reader"]}"#, "use https"),
            (r#"{"name":"corp","issuer":"http://10.0.0.1","default_roles":["reader"]}"#, "use https"),
            (r#"{"name":"corp","issuer":"https://u:p@id.example.com","default_roles":["reader"]}"#, "credentials"),
            (r#"{"name":"Corp!","issuer":"https://id.example.com","default_roles":["reader"]}"#, "lower-case"),
            (r#"{"name":"corp","issuer":"https://id.example.com"}"#, "grant nothing"),
            (r#"{"name":"corp","issuer":"https://id.example.com","default_roles":["king"]}"#, "no role 'king'"),
            (r#"{"name":"corp","issuer":"https://id.example.com","default_roles":["reader"],"algorithms":[]}"#, "at least one"),
            (r#"{"name":"corp","issuer":"https://id.example.com","default_roles":["reader"],"clock_skew":"1h"}"#, "at most 5m"),
            (r#"{"name":"corp","issuer":"https://id.example.com","scopes":{"a b":{"roles":["reader"]}}}"#, "not a scope"),
            (
                r#"{"name":"corp","issuer":"https://id.example.com","default_roles":["reader"],"jwks_uri":"http://id.example.com/k"}"#,
                "jwks_uri",
            ),
            (r#"{"name":"corp","issuer":"https://id.example.com","roles":{"claim":[],"map":{"a":"reader"}}}"#, "a claim is"),
        ] {
            let reason = issuer(json).check(&roles()).expect_err(json);
            assert!(reason.contains(word), "{json}: {reason}");
        }
        for json in [
            r#"{"name":"c","issuer":"https://i","algorithms":["HS256"]}"#,
            r#"{"name":"c","issuer":"https://i","algorithms":["none"]}"#,
            r#"{"name":"c","issuer":"https://i","audience":"x"}"#,
        ] {
            assert!(serde_json::from_str::<TokenIssuer>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_servers_own_url_is_a_plain_one() {
        for (url, good) in [
            ("https://mcp.example.com/mcp", true),
            ("http://[::1]:7468/a/b-c_d.e~f", true),
            ("https://mcp.example.com", true),
            ("https://mcp.example.com/a\"b", false),
            ("https://mcp.example.com/{a}", false),
            ("https://mcp.example.com/:a", false),
            ("https://mcp.example.com/*", false),
            ("https://mcp.example.com/mcp?x=1", false),
            ("https://user@mcp.example.com/mcp", false),
            ("mcp.example.com", false),
            ("", false),
        ] {
            assert_eq!(check_resource(url).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn this_machine_is_told_from_names_that_pretend() {
        for (url, good) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:1", true),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("http://0.0.0.0", false),
            ("https://id.example.com", true),
            ("ftp://id.example.com", false),
        ] {
            assert_eq!(secure_url(url).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn two_issuers_never_share_a_name_or_a_url() {
        let one = issuer(r#"{"name":"a","issuer":"https://id.example.com","default_roles":["reader"]}"#);
        let mut other = one.clone();
        other.name = "b".to_owned();
        let settings = |issuers| TokenSettings { issuers, ..TokenSettings::default() };
        assert!(settings(vec![one.clone(), other.clone()]).check(&roles()).is_err());
        other.issuer = "https://other.example.com".to_owned();
        settings(vec![one, other]).check(&roles()).unwrap();
    }
}

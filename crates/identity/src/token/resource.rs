//! What this server tells clients about itself as an OAuth 2.1 protected resource (RFC 9728), and what it asks of a client
//! whose token is not enough (RFC 6750 section 3, MCP authorization). Everything here is public and from the
//! configuration; nothing is taken from a request, so a forged `Host` cannot send a client to another issuer.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_model::{CredentialKind, Principal};
use serde_json::{Value, json};

use super::settings::{TokenSettings, TokenSettingsError, check_resource};
use crate::record::Door;

/// The well-known path of the metadata (RFC 9728 section 3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The role of scopes that are asked for first, unless the operator says which.
const ENTRY_ROLE: &str = "reader";

/// This server as a protected resource.
#[derive(Debug, Clone)]
pub struct ProtectedResource {
    resource: String,
    metadata_url: String,
    authorization_servers: Vec<String>,
    scopes: BTreeSet<String>,
    entry_scopes: Vec<String>,
    issuers: Vec<IssuerScopes>,
}

#[derive(Debug, Clone)]
struct IssuerScopes {
    issuer: String,
    /// Scope, and the roles it grants at the `mcp` door.
    scopes: Vec<(String, Vec<Arc<str>>)>,
}

/// What more a principal would need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    /// Scopes to ask for: those it has the roles of already, and the one that is missing.
    pub scopes: Vec<String>,
    /// Whom these scopes would make of it. Only to ask whether that one may.
    pub principal: Principal,
}

impl ProtectedResource {
    /// From the settings; `own` is the URL of the MCP listener, used when the operator names no other.
    pub(super) fn new(settings: &TokenSettings, own: &str) -> Result<Self, TokenSettingsError> {
        let resource = settings.resource.clone().unwrap_or_else(|| own.to_owned());
        check_resource(&resource).map_err(TokenSettingsError::Setting)?;
        let issuers: Vec<_> = settings
            .issuers
            .iter()
            .map(|issuer| {
                let at_mcp = issuer.scopes.iter().filter(|(_, grant)| grant.doors.contains(&Door::Mcp));
                let roles = |names: &[String]| names.iter().map(|role| Arc::from(role.as_str())).collect();
                IssuerScopes {
                    issuer: issuer.issuer.clone(),
                    scopes: at_mcp.map(|(scope, grant)| (scope.clone(), roles(&grant.roles))).collect(),
                }
            })
            .collect();
        let known = || issuers.iter().flat_map(|issuer| &issuer.scopes);
        let scopes: BTreeSet<String> = known().map(|(scope, _)| scope.clone()).collect();
        let entry_scopes = if settings.entry_scopes.is_empty() {
            let least: BTreeSet<_> = known().filter(|(_, roles)| roles.iter().any(|role| &**role == ENTRY_ROLE)).collect();
            least.into_iter().map(|(scope, _)| scope.clone()).collect()
        } else {
            settings.entry_scopes.clone()
        };
        Ok(Self {
            metadata_url: metadata_url(&resource),
            resource,
            authorization_servers: settings.issuers.iter().map(|issuer| issuer.issuer.clone()).collect(),
            scopes,
            entry_scopes,
            issuers,
        })
    }

    /// The resource identifier: the URL clients use, and the audience of their tokens.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Where the metadata is, for `resource_metadata` of a challenge.
    pub fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    /// The path of [`Self::metadata_url`], at which this server must answer too when a proxy sends requests on unchanged.
    pub fn metadata_path(&self) -> &str {
        &self.metadata_url[path_at(&self.metadata_url)..]
    }

    /// The metadata document (RFC 9728 section 2).
    pub fn document(&self) -> Value {
        let mut document = json!({
            "resource": self.resource,
            "authorization_servers": self.authorization_servers,
            "bearer_methods_supported": ["header"],
            "resource_name": "Portcullis",
        });
        if !self.scopes.is_empty() {
            document["scopes_supported"] = json!(self.scopes);
        }
        document
    }

    /// A challenge (RFC 6750 section 3) with the address of the metadata and, where any are known, scopes to ask for.
    pub fn challenge(&self, error: Option<&str>, scopes: Option<&[String]>) -> String {
        // Every part was checked when the settings were read: no quote and no backslash can be in it.
        let mut parts = vec!["realm=\"portcullis\"".to_owned()];
        parts.extend(error.map(|error| format!("error=\"{error}\"")));
        parts.push(format!("resource_metadata=\"{}\"", self.metadata_url));
        let scopes = scopes.unwrap_or(&self.entry_scopes);
        if !scopes.is_empty() {
            parts.push(format!("scope=\"{}\"", scopes.join(" ")));
        }
        format!("Bearer {}", parts.join(", "))
    }

    /// What further scopes would make of a principal with a token, the least first: each missing scope on its own.
    /// Nothing for other credentials.
    pub fn step_ups(&self, principal: &Principal) -> Vec<StepUp> {
        let CredentialKind::Token { issuer, .. } = &principal.credential else { return Vec::new() };
        let Some(known) = self.issuers.iter().find(|known| known.issuer == **issuer) else { return Vec::new() };
        let has = |roles: &[Arc<str>]| roles.iter().all(|role| principal.roles.contains(role));
        let held: Vec<&String> = known.scopes.iter().filter(|(_, roles)| has(roles)).map(|(scope, _)| scope).collect();
        let mut missing: Vec<_> = known.scopes.iter().filter(|(_, roles)| !has(roles)).collect();
        missing.sort_by_key(|(_, roles)| roles.len());
        let step = |(scope, roles): &(String, Vec<Arc<str>>)| {
            let mut principal = principal.clone();
            principal.roles.extend(roles.iter().cloned());
            let scopes = held.iter().copied().chain([scope]).cloned().collect();
            StepUp { scopes, principal }
        };
        missing.into_iter().map(step).collect()
    }
}

/// Where the path of a URL begins.
fn path_at(url: &str) -> usize {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    url[host_at..].find('/').map_or(url.len(), |at| host_at + at)
}

/// The well-known part goes between host and path (RFC 9728 section 3.1).
fn metadata_url(resource: &str) -> String {
    let (root, path) = resource.split_at(path_at(resource));
    format!("{root}{WELL_KNOWN}{}", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_where_clients_look_for_it() {
        for (resource, url) in [
            ("https://mcp.example.com/mcp", "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"),
            ("https://mcp.example.com/a/mcp", "https://mcp.example.com/.well-known/oauth-protected-resource/a/mcp"),
            ("http://127.0.0.1:7468", "http://127.0.0.1:7468/.well-known/oauth-protected-resource"),
            ("http://127.0.0.1:7468/", "http://127.0.0.1:7468/.well-known/oauth-protected-resource"),
        ] {
            assert_eq!(metadata_url(resource), url);
        }
    }

    fn resource(issuer: &str) -> ProtectedResource {
        let issuer = serde_json::from_str(issuer).unwrap();
        let settings = TokenSettings { issuers: vec![issuer], ..TokenSettings::default() };
        ProtectedResource::new(&settings, "http://127.0.0.1:7468/mcp").unwrap()
    }

    const TWO_SCOPES: &str = r#"{"name":"corp","issuer":"https://id.example.com","scopes":{
        "look":{"roles":["reader"]},"act":{"roles":["reader","operator"]},"send":{"doors":["ingest"]}}}"#;

    #[test]
    fn challenges_name_the_metadata_and_the_least_scopes() {
        let resource = resource(TWO_SCOPES);
        assert_eq!(
            resource.challenge(Some("invalid_token"), None),
            "Bearer realm=\"portcullis\", error=\"invalid_token\", \
             resource_metadata=\"http://127.0.0.1:7468/.well-known/oauth-protected-resource/mcp\", scope=\"act look\""
        );
        assert_eq!(resource.document()["scopes_supported"], json!(["act", "look"]), "scopes of another door are not for clients");
        assert_eq!(resource.metadata_path(), "/.well-known/oauth-protected-resource/mcp");
        assert_eq!(resource.document()["authorization_servers"], json!(["https://id.example.com"]));
    }

    #[test]
    fn a_step_up_adds_what_is_missing_and_only_for_tokens_of_that_issuer() {
        let resource = resource(TWO_SCOPES);
        let mut principal = crate::local_principal("x", "reader").unwrap();
        assert_eq!(resource.step_ups(&principal), []);
        principal.credential = CredentialKind::Token { issuer: Arc::from("https://id.example.com"), subject: Arc::from("x") };
        let steps = resource.step_ups(&principal);
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].scopes, ["look", "act"]);
        assert!(steps[0].principal.roles.contains("operator"));
        principal.credential = CredentialKind::Token { issuer: Arc::from("https://other.example.com"), subject: Arc::from("x") };
        assert_eq!(resource.step_ups(&principal), []);
    }
}

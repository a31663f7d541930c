//! The section `plugins` of the configuration: what operators grant. Guards that nothing is granted by leaving something out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portcullis_egress::{AllowedRange, AuthSettings};
use portcullis_model::{SecretReference, SourceName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{LimitSettings, Limits, Manifest, OriginPattern, PluginName};

/// Plugins: what is trusted, and what each may use. Installing and enabling is done with `portcullis plugin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PluginSettings {
    /// Whether plugins are run at all.
    pub enabled: bool,
    /// The file that says whose signatures are trusted; `plugins/trust.json` in the data directory when absent. A plugin
    /// without a trusted signature is not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_root: Option<PathBuf>,
    /// Also run plugins that were installed with `--insecure`. Nobody vouches for them.
    pub allow_unsigned: bool,
    /// The most any plugin may spend, whatever its manifest asks for.
    pub limits: LimitSettings,
    /// Calls of all plugins at once.
    pub concurrent: u32,
    /// What single plugins may use. A plugin that is not named here runs without network and secrets.
    pub grants: Vec<PluginGrant>,
    /// Servers, registries and hubs that packages come from, where they need more than a public address: a credential, an
    /// authority of their own, a private address. Asked by `portcullis plugin` only, never by a running server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PackageSource>,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            trust_root: None,
            allow_unsigned: false,
            limits: LimitSettings::default(),
            concurrent: 32,
            grants: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// A server, registry or hub that packages come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageSource {
    /// Its origin, such as `https://registry.example.com:443`. One with `http://` may be asked without encryption.
    pub origin: OriginPattern,
    /// Address ranges it may live in besides public ones: `loopback`, `private`, `shared`, or networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_addresses: Vec<AllowedRange>,
    /// PEM file of the certificate authorities to trust for it instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How to prove oneself there. A registry that names a token realm gets user and password sent to that realm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
}

impl PackageSource {
    /// What is wrong with it, in words.
    ///
    /// # Errors
    /// When a credential is bound to more than one origin, or in the name of a caller.
    pub fn check(&self) -> Result<(), String> {
        let origin = &self.origin;
        match &self.auth {
            Some(_) if origin.literal().is_none() => {
                Err(format!("plugins.sources: the credential for {origin} is bound to no single origin; write the whole host"))
            }
            Some(AuthSettings::Exchange(_)) => {
                Err(format!("plugins.sources: {origin} is asked by nobody's call, so there is no token to exchange"))
            }
            _ => Ok(()),
        }
    }
}

/// What one plugin may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginGrant {
    /// The plugin.
    pub name: PluginName,
    /// Origins it may reach, of those its manifest declares: `https://api.example.com:443`, or `https://*.example.com:443`
    /// for one label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<OriginPattern>,
    /// Address ranges these origins may live in besides public ones: `loopback`, `private`, `shared`, or networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_addresses: Vec<AllowedRange>,
    /// PEM file of the certificate authorities to trust for these origins instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Its secrets, by the names of its manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretGrant>,
    /// Settings of the plugin's own; see its README.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// The most it may spend: each limit named here instead of the one in `plugins.limits`, which hold for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitSettings>,
    /// Name of the source it becomes, when it answers signals; its own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub source: Option<SourceName>,
    /// Tenant whose data it serves; principals of other tenants cannot ask it or call its tools.
    #[serde(default = "portcullis_model::TenantId::default_tenant")]
    #[schemars(with = "String")]
    pub tenant: portcullis_model::TenantId,
    /// Whether credentials that are confined to services, namespaces or a look-back may call its tools, whose answers cannot
    /// be confined. What it answers as a source always is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_to_confined: bool,
}

impl PluginGrant {
    /// Nothing.
    pub fn none(name: PluginName) -> Self {
        Self {
            name,
            http: Vec::new(),
            allow_addresses: Vec::new(),
            ca_file: None,
            secrets: BTreeMap::new(),
            settings: Map::new(),
            limits: None,
            source: None,
            tenant: portcullis_model::TenantId::default_tenant(),
            open_to_confined: false,
        }
    }
}

/// A secret for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretGrant {
    /// The value (usually `${VAR}`) or a reference: `env:NAME`, `file:/path`, `secret:name`.
    #[schemars(with = "String")]
    pub value: SecretReference,
    /// Also let the plugin read it, if its manifest asks for that. Otherwise the host puts it into requests and the plugin
    /// never sees it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read: bool,
}

impl PluginSettings {
    /// What `name` is granted: nothing where it is not named.
    pub fn grant(&self, name: &PluginName) -> PluginGrant {
        self.grants.iter().find(|grant| grant.name == *name).cloned().unwrap_or_else(|| PluginGrant::none(name.clone()))
    }

    /// The limits of a plugin: what its manifest asks for, within what is allowed to it by name and, where that says nothing,
    /// to all plugins.
    pub fn limits_of(&self, manifest: &Manifest) -> Limits {
        let named = self.grants.iter().find(|grant| grant.name == manifest.name).and_then(|grant| grant.limits);
        Limits::of(&manifest.limits, &named.unwrap_or_default().over(&self.limits))
    }

    /// What is wrong with the section, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.concurrent == 0 || self.concurrent > 256 {
            return Err("plugins.concurrent must be between 1 and 256".to_owned());
        }
        for (at, grant) in self.grants.iter().enumerate() {
            if self.grants[..at].iter().any(|earlier| earlier.name == grant.name) {
                return Err(format!("plugins.grants names '{}' twice", grant.name));
            }
        }
        for (at, source) in self.sources.iter().enumerate() {
            source.check()?;
            if self.sources[..at].iter().any(|earlier| earlier.origin == source.origin) {
                return Err(format!("plugins.sources names {} twice", source.origin));
            }
        }
        Ok(())
    }
}

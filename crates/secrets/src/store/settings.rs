//! The `secret_stores` section. Guards that a store is asked over TLS, by a credential that stands nowhere in the open. Must
//! not open anything.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_config::Span;
use portcullis_egress::{AllowedRange, TlsSettings, origin_of};
use portcullis_model::{SecretReference, is_secret_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest a value may be used without asking the store again.
const MOST_CACHE: Duration = Duration::from_hours(1);
/// Longest a lookup may take.
const MOST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// HashiCorp Vault, or OpenBao, which speaks the same.
    #[default]
    Vault,
}

/// Version of the key/value engine at the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvVersion {
    /// Without versions.
    V1,
    /// With versions; the newest is read.
    #[default]
    V2,
}

/// A store that keeps secrets. Settings refer to one of its secrets as `vault:<store>/<path>#<field>`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretStoreSettings {
    /// Its name: lower-case letters, digits, `-`, `_` and `.`, at most 32.
    pub name: String,
    /// What it speaks.
    #[serde(default)]
    pub kind: StoreKind,
    /// Base URL: `https://vault.example.com:8200`. `http` only on this machine.
    pub url: String,
    /// Namespace, where the store has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where the key/value engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: String,
    /// Version of the key/value engine.
    #[serde(default)]
    pub version: KvVersion,
    /// How this server proves itself to the store.
    pub auth: StoreAuth,
    /// Longest a value is used without asking again, at most 1h; a shorter lease of the store counts.
    #[serde(default = "default_cache")]
    pub cache: Span,
    /// Longest time for one lookup, at most 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// TLS towards the store.
    #[serde(default)]
    pub tls: TlsSettings,
    /// Address ranges it may live in besides public ones: `private`, `loopback`, or networks such as `10.20.0.0/16`.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
}

/// How this server proves itself to a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoreAuth {
    /// A token that was made for this server: `file:/run/secrets/vault-token` or `env:NAME`. Renewed while the store allows it.
    Token(#[schemars(with = "String")] SecretReference),
    /// A role of the AppRole method.
    AppRole(AppRole),
    /// The service account of the pod this server runs in.
    Kubernetes(KubernetesRole),
}

/// A role of the AppRole method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRole {
    /// Where the method is mounted.
    #[serde(default = "app_role_mount")]
    pub mount: String,
    /// The role's id; no secret.
    pub role_id: String,
    /// The secret id: `file:/path` or `env:NAME`.
    #[schemars(with = "String")]
    pub secret_id: SecretReference,
}

/// A role of the Kubernetes method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesRole {
    /// Where the method is mounted.
    #[serde(default = "kubernetes_mount")]
    pub mount: String,
    /// The role.
    pub role: String,
    /// The token of the service account; read at every login, for the cluster replaces it.
    #[serde(default = "service_account")]
    pub jwt_file: PathBuf,
}

fn default_mount() -> String {
    "secret".to_owned()
}

fn app_role_mount() -> String {
    "approle".to_owned()
}

fn kubernetes_mount() -> String {
    "kubernetes".to_owned()
}

fn service_account() -> PathBuf {
    PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token")
}

fn default_cache() -> Span {
    Span(Duration::from_mins(5))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(3))
}

/// The parts of a mount's path.
pub(crate) fn parts(mount: &str) -> Vec<String> {
    mount.split('/').map(str::to_owned).collect()
}

fn is_mount(mount: &str) -> bool {
    mount.len() <= 256 && parts(mount).iter().all(|p| !p.is_empty() && p != "." && p != ".." && !p.contains(char::is_control))
}

impl SecretStoreSettings {
    /// What can be checked without asking.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_secret_name(&self.name) || self.name.len() > 32 {
            return Err("the name needs 1 to 32 lower-case letters, digits, '-', '_' and '.'".to_owned());
        }
        let origin = origin_of(&self.url).map_err(|e| format!("url: {e}"))?;
        if !origin.starts_with("https://") && !is_loopback(&origin) {
            return Err(
                "url: use https; http is only accepted on a loopback address, for it shows secrets to everybody on the way"
                    .into(),
            );
        }
        if !is_mount(&self.mount) {
            return Err("mount must be a path such as secret or team/secret, without a slash at either end".to_owned());
        }
        if self.namespace.as_deref().is_some_and(|n| n.is_empty() || n.len() > 256 || !n.bytes().all(|b| b.is_ascii_graphic())) {
            return Err("namespace must be a path such as team/a".to_owned());
        }
        if self.cache.0 > MOST_CACHE || self.cache.0.is_zero() {
            return Err("cache must be between 1s and 1h".to_owned());
        }
        if self.timeout.0 > MOST_TIMEOUT || self.timeout.0.is_zero() {
            return Err("timeout must be above zero and at most 30s".to_owned());
        }
        match &self.auth {
            StoreAuth::Token(reference) => own(reference, "auth.token"),
            StoreAuth::AppRole(role) if !is_mount(&role.mount) => {
                Err("auth.app_role.mount must be a path such as approle".into())
            }
            StoreAuth::AppRole(role) if role.role_id.is_empty() => Err("auth.app_role.role_id is empty".into()),
            StoreAuth::AppRole(role) => own(&role.secret_id, "auth.app_role.secret_id"),
            StoreAuth::Kubernetes(role) if !is_mount(&role.mount) => {
                Err("auth.kubernetes.mount must be a path such as kubernetes".into())
            }
            StoreAuth::Kubernetes(role) if role.role.is_empty() => Err("auth.kubernetes.role is empty".into()),
            StoreAuth::Kubernetes(role) if !role.jwt_file.is_absolute() => {
                Err("auth.kubernetes.jwt_file must be an absolute path".into())
            }
            StoreAuth::Kubernetes(_) => Ok(()),
        }
    }
}

/// What opens the store cannot be kept in it, nor stand in the file.
fn own(reference: &SecretReference, setting: &str) -> Result<(), String> {
    match reference {
        SecretReference::Environment(_) | SecretReference::File(_) => Ok(()),
        SecretReference::Literal(_) => {
            Err(format!("{setting}: the value itself does not belong in the configuration; write file:/path or env:NAME"))
        }
        SecretReference::Named(_) | SecretReference::Store { .. } => {
            Err(format!("{setting}: what opens a store is kept outside of it; write file:/path or env:NAME"))
        }
    }
}

fn is_loopback(origin: &str) -> bool {
    let Some((host, _port)) = origin.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')) else { return false };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(members: &str) -> Result<SecretStoreSettings, String> {
        let text = format!(r#"{{"name":"main","url":"https://vault.example.com:8200","auth":{{"token":"env:T"}}{members}}}"#);
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }

    #[test]
    fn the_least_that_is_needed_has_safe_defaults() {
        let least = read("").unwrap();
        least.check().unwrap();
        assert_eq!((least.mount.as_str(), least.version), ("secret", KvVersion::V2));
        assert_eq!((least.cache.0, least.timeout.0), (Duration::from_mins(5), Duration::from_secs(3)));
        assert!(read(r#","verify":false"#).is_err(), "an unknown key is an error");
    }

    #[test]
    fn what_cannot_be_safe_is_refused_with_what_would_be_right() {
        let with = |change: &dyn Fn(&mut SecretStoreSettings)| {
            let mut settings = read("").unwrap();
            change(&mut settings);
            settings.check().unwrap_err()
        };
        assert!(with(&|s| s.name = "Main".into()).contains("lower-case"));
        assert!(with(&|s| s.url = "http://vault.example.com:8200".into()).contains("use https"));
        assert!(with(&|s| s.url = "http://10.0.0.1:8200".into()).contains("use https"));
        assert!(with(&|s| s.mount = "/secret".into()).contains("without a slash"));
        assert!(with(&|s| s.mount = "../sys".into()).contains("path such as"));
        assert!(with(&|s| s.namespace = Some("a\nb".into())).contains("namespace"));
        assert!(with(&|s| s.cache = Span(Duration::from_hours(2))).contains("1h"));
        assert!(with(&|s| s.timeout = Span(Duration::from_mins(2))).contains("30s"));
        let literal = with(&|s| s.auth = StoreAuth::Token("hunter2".parse().unwrap()));
        assert!(literal.contains("does not belong") && !literal.contains("hunter2"));
        assert!(with(&|s| s.auth = StoreAuth::Token("vault:main/x#y".parse().unwrap())).contains("outside of it"));
        let mut here = read("").unwrap();
        here.url = "http://127.0.0.1:8200".into();
        here.check().unwrap();
    }
}

//! What a package says of the plugin in it. Guards its shape: unknown keys, unfit names, wildcards that are too wide and
//! secrets bound to nothing are refused. Must not be believed further than that: the operator grants, and the component is
//! checked against it.

use std::collections::BTreeSet;
use std::fmt;

use portcullis_egress::FORBIDDEN_HEADERS;
use portcullis_model::{RiskClass, Signal, ToolName};
use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{LimitSettings, OriginPattern};

/// Version of the world in `wit/plugin.wit` that this host serves.
pub const HOST_API: &str = "1.1.0";

/// The revision before plugins could tell what a writing tool would do.
const WITHOUT_PREVIEWS: Version = Version::new(1, 0, 0);

/// What a plugin may be called.
pub const PLUGIN_NAME_RULE: &str = "2 to 40 lower-case letters, digits and single hyphens, beginning with a letter";

/// Largest number of tools of one plugin.
const MOST_TOOLS: usize = 64;
/// Largest number of origins and of secrets.
const MOST_PERMISSIONS: usize = 32;

/// A manifest that cannot be used; for the author of the plugin to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON or YAML of a manifest.
    #[error("the manifest cannot be read: {0}")]
    Unreadable(String),
    /// It contradicts itself or breaks a bound.
    #[error("the manifest is not valid: {0}")]
    Invalid(String),
    /// Made for another host.
    #[error("the plugin wants host API {wanted}, and this is {HOST_API}: {hint}")]
    OtherHost {
        /// The range.
        wanted: String,
        /// What would help.
        hint: &'static str,
    },
}

/// The name of a plugin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(String);

impl PluginName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`] with [`PLUGIN_NAME_RULE`].
    pub fn new(name: &str) -> Result<Self, ManifestError> {
        let fits = (2..=40).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.ends_with('-')
            && !name.contains("--");
        if fits {
            return Ok(Self(name.to_owned()));
        }
        let shown: String = name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(60).collect();
        Err(ManifestError::Invalid(format!("'{shown}' is no name of a plugin; use {PLUGIN_NAME_RULE}")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginName({:?})", self.0)
    }
}

impl<'de> Deserialize<'de> for PluginName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for PluginName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for PluginName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PluginName".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[a-z][a-z0-9-]{1,39}$", "description": PLUGIN_NAME_RULE})
    }
}

/// The manifest: `plugin.yaml` of an author, `manifest.json` of a package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub schema: u32,
    /// Name of the plugin.
    pub name: PluginName,
    /// Its version (semantic versioning).
    pub version: Version,
    /// Range of host API versions it works with, such as `^1.0`.
    pub host: VersionReq,
    /// One line: what it is for.
    pub summary: String,
    /// SPDX expression.
    pub licence: String,
    /// Where it comes from.
    pub homepage: String,
    /// Its tools. A component that describes others is not loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ManifestTool>,
    /// Signals it answers as a source.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signals: BTreeSet<Signal>,
    /// What it wants to reach.
    #[serde(default)]
    pub permissions: Permissions,
    /// What it wants to spend.
    #[serde(default)]
    pub limits: LimitSettings,
}

/// A tool as the manifest names it; the schemas come from the component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestTool {
    /// Its name.
    pub name: ToolName,
    /// How much it can hurt.
    pub risk: RiskClass,
    /// That it can tell what a call would do, without doing it. Host API 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<ManifestPreview>,
}

/// How a writing tool tells what a call would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPreview {
    /// Tool of the same plugin that reads what this one changes. Without one nothing is read, and the change stays unknown
    /// unless it is known by the arguments alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<ToolName>,
}

/// What a plugin wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// Origins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<OriginPattern>,
    /// Secrets by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRequest>,
}

/// A secret a plugin wants used on its behalf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// What the plugin calls it.
    pub name: String,
    /// One line for the operator: what kind of secret, with which rights.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where the host puts it; absent for a secret that is only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<SecretPlace>,
    /// Origins it may be sent to, each one of `http`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<OriginPattern>,
    /// Whether the plugin wants the value in its own hands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read: bool,
}

/// Where the host puts a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretPlace {
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: Basic …` with this user.
    Basic(String),
    /// A header of the backend's own, such as `DD-API-KEY`.
    Header(String),
}

impl SecretPlace {
    /// That the host could put `secret` there.
    fn check(&self, secret: &str) -> Result<(), ManifestError> {
        let reason = match self {
            Self::Basic(user) if user.chars().any(|c| c.is_control() || c == ':') || user.len() > 200 => {
                "a user name has no colon and no control characters".to_owned()
            }
            Self::Bearer | Self::Basic(_) => return Ok(()),
            Self::Header(name) => match http::HeaderName::from_bytes(name.as_bytes()) {
                Ok(known) if FORBIDDEN_HEADERS.contains(&known.as_str()) => {
                    format!("the header {known} is not a plugin's to set; use bearer, basic or a header of the backend's own")
                }
                Ok(_) => return Ok(()),
                Err(_) => "its header is no name of a header".to_owned(),
            },
        };
        Err(ManifestError::Invalid(format!("secret '{secret}' cannot be placed: {reason}")))
    }
}

impl Manifest {
    /// Reads the manifest of a package.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| ManifestError::Unreadable(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads the manifest an author wrote (YAML, of which JSON is a part).
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn from_yaml(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = serde_saphyr::from_str(text).map_err(|error| ManifestError::Unreadable(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Its one form in a package.
    ///
    /// # Errors
    /// [`ManifestError::Unreadable`] when it cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| ManifestError::Unreadable(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let invalid = |reason: String| Err(ManifestError::Invalid(reason));
        if self.schema != 1 {
            return invalid(format!("schema {} is not known; write 1", self.schema));
        }
        let host = Version::parse(HOST_API).map_err(|error| ManifestError::Invalid(error.to_string()))?;
        if !self.host.matches(&host) {
            let hint = "install a version of the plugin, or of Portcullis, that fits";
            return Err(ManifestError::OtherHost { wanted: self.host.to_string(), hint });
        }
        for (what, text, most) in
            [("summary", &self.summary, 200), ("licence", &self.licence, 100), ("homepage", &self.homepage, 300)]
        {
            if text.trim().is_empty() || text.len() > most || text.chars().any(char::is_control) {
                return invalid(format!("{what} must be one line of 1 to {most} bytes"));
            }
        }
        if !self.homepage.starts_with("https://") {
            return invalid("homepage must begin with https://".into());
        }
        if self.tools.is_empty() && self.signals.is_empty() {
            return invalid("it has neither tools nor signals".into());
        }
        if self.signals.contains(&Signal::Sql) {
            return invalid("a plugin cannot answer the signal sql; it can answer metrics, logs, traces and alerts".into());
        }
        let names: BTreeSet<&str> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        if names.len() != self.tools.len() || names.len() > MOST_TOOLS {
            return invalid(format!("tools must have different names, and there may be {MOST_TOOLS} at most"));
        }
        self.check_previews()?;
        self.check_permissions()
    }

    /// Whether any of its tools can tell what a call would do.
    pub fn previews(&self) -> bool {
        self.tools.iter().any(|tool| tool.preview.is_some())
    }

    fn check_previews(&self) -> Result<(), ManifestError> {
        let invalid = |reason: String| Err(ManifestError::Invalid(reason));
        if self.previews() && self.host.matches(&WITHOUT_PREVIEWS) {
            return invalid("a tool with a preview needs host API 1.1; write host: ^1.1".into());
        }
        for tool in &self.tools {
            let Some(preview) = &tool.preview else { continue };
            if tool.risk == RiskClass::Read {
                return invalid(format!("tool '{}' only reads, so it has no preview", tool.name));
            }
            let Some(reads) = &preview.reads else { continue };
            if !self.tools.iter().any(|other| other.name == *reads && other.risk == RiskClass::Read) {
                return invalid(format!(
                    "the preview of '{}' reads by '{reads}', which is no reading tool of this plugin",
                    tool.name
                ));
            }
        }
        Ok(())
    }

    fn check_permissions(&self) -> Result<(), ManifestError> {
        let invalid = |reason: String| Err(ManifestError::Invalid(reason));
        let Permissions { http, secrets } = &self.permissions;
        if http.len() > MOST_PERMISSIONS || secrets.len() > MOST_PERMISSIONS {
            return invalid(format!("there may be {MOST_PERMISSIONS} origins and {MOST_PERMISSIONS} secrets at most"));
        }
        let names: BTreeSet<&str> = secrets.iter().map(|secret| secret.name.as_str()).collect();
        if names.len() != secrets.len() {
            return invalid("secrets must have different names".into());
        }
        for secret in secrets {
            let name = &secret.name;
            let fits = (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if !fits {
                return invalid("the name of a secret is 1 to 64 letters, digits, '_' and '-'".into());
            }
            if secret.place.is_none() && !secret.read {
                return invalid(format!("secret '{name}' is neither placed nor read; say where the host puts it"));
            }
            if let Some(place) = &secret.place {
                place.check(name)?;
            }
            if secret.place.is_some() && secret.origins.is_empty() {
                return invalid(format!("secret '{name}' names no origin it may be sent to"));
            }
            if let Some(stray) = secret.origins.iter().find(|origin| !http.iter().any(|declared| declared.covers(origin))) {
                return invalid(format!("secret '{name}' goes to {stray}, which permissions.http does not declare"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r"
schema: 1
name: datadog
version: 1.2.0
host: ^1.0
summary: Metrics and logs of Datadog.
licence: Apache-2.0
homepage: https://example.org/datadog
signals: [metrics, logs]
tools:
  - {name: datadog_monitors, risk: read}
permissions:
  http: ['https://*.datadoghq.eu']
  secrets:
    - {name: api_key, place: {header: DD-API-KEY}, origins: ['https://api.datadoghq.eu']}
    - {name: token, place: bearer, origins: ['https://api.datadoghq.eu']}
limits: {memory: 32MiB, http_calls: 3}
";

    #[test]
    fn what_an_author_writes_is_what_a_package_holds() {
        let manifest = Manifest::from_yaml(GOOD).unwrap();
        let json = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
        assert_eq!(manifest.permissions.http[0].to_string(), "https://*.datadoghq.eu:443");
    }

    #[test]
    fn what_a_name_hides_is_not_repeated() {
        let refused = PluginName::new("a\u{202e}b\u{200b}c\u{2066}\n").unwrap_err().to_string();
        assert!(refused.contains("'abc' is no name") && refused.chars().all(portcullis_guard::is_seen), "{refused:?}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (from, to, says) in [
            ("schema: 1", "schema: 2", "schema 2 is not known"),
            ("name: datadog\n", "name: Data_dog\n", "lower-case"),
            ("host: ^1.0", "host: ^2.0", "wants host API ^2.0"),
            ("version: 1.2.0", "version: one", "cannot be read"),
            ("signals: [metrics, logs]", "signals: [sql]", "sql"),
            ("risk: read}", "risk: read}\n  - {name: datadog_monitors, risk: write}", "different names"),
            ("risk: read}", "risk: write, preview: {}}", "write host: ^1.1"),
            ("limits:", "powers: all\nlimits:", "powers"),
            ("['https://*.datadoghq.eu']", "['https://*.eu']", "top-level"),
            ("['https://*.datadoghq.eu']", "['https://api.example.com']", "does not declare"),
            ("place: bearer, ", "", "neither placed nor read"),
            ("{header: DD-API-KEY}", "{header: Host}", "not a plugin's to set"),
            ("{header: DD-API-KEY}", "{header: 'a b'}", "no name of a header"),
            ("{header: DD-API-KEY}", "{basic: 'a:b'}", "no colon"),
            ("https://example.org/datadog", "javascript:alert(1)", "https://"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = Manifest::from_yaml(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{from} -> {to}: {error}");
        }
    }

    #[test]
    fn a_preview_belongs_to_a_writing_tool_and_reads_by_a_reading_one() {
        let host = GOOD.replace("host: ^1.0", "host: ^1.1");
        let with = |tools: &str| Manifest::from_yaml(&host.replace("- {name: datadog_monitors, risk: read}", tools));
        let good = with("- {name: get, risk: read}\n  - {name: set, risk: write, preview: {reads: get}}").unwrap();
        assert!(good.previews() && Manifest::from_json(&good.to_json().unwrap()).unwrap() == good);
        assert!(with("- {name: set, risk: destructive, preview: {}}").unwrap().previews());
        for (tools, says) in [
            ("- {name: get, risk: read, preview: {}}", "only reads"),
            ("- {name: set, risk: write, preview: {reads: get}}", "no reading tool of this plugin"),
            ("- {name: set, risk: write, preview: {reads: set}}", "no reading tool of this plugin"),
            ("- {name: set, risk: write, preview: {sends: get}}", "sends"),
            ("- {name: set, risk: write, preview: true}", "cannot be read"),
        ] {
            let error = with(tools).unwrap_err().to_string();
            assert!(error.contains(says), "{tools}: {error}");
        }
    }
}

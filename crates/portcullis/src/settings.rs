//! The whole configuration file: the sections of every room, and the kinds of sources this binary knows. The doc
//! comment of a field is its documentation in the generated schema.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use portcullis_audit::AuditSettings;
use portcullis_config::{
    AdminSettings, ApprovalSettings, ConfigError, IngestSettings, LimitSettings, ListenSettings, Loaded, LogSettings,
    ProfileSettings, StdioSettings, StoreSettings, ToolListSettings, WriteSettings,
};
use portcullis_connectors::prometheus::PrometheusConfig;
use portcullis_guard::{RedactionSettings, ReleaseSettings, SanitizeSettings};
use portcullis_identity::IdentitySettings;
use portcullis_manifest::ApiSettings;
use portcullis_model::SourceName;
use portcullis_opa::OpaSettings;
use portcullis_plugins::PluginSettings;
use portcullis_policy::ProductSettings;
use portcullis_secrets::{SecretSettings, SecretStoreSettings};
use portcullis_upstream::UpstreamSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// One backend to ask: a unique name, its kind, and the settings of that kind.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Unique among the sources.
    pub name: SourceName,
    /// What it is.
    pub kind: SourceKind,
}

/// The kinds of backends and their settings.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// Prometheus and everything that speaks its API: Mimir, Cortex, Thanos, VictoriaMetrics.
    Prometheus(PrometheusConfig),
}

impl SourceKind {
    const PROMETHEUS: &'static str = "prometheus";
}

// By hand, because serde cannot refuse unknown keys through a flattened enum, and a misspelt key must be refused.
impl<'de> Deserialize<'de> for SourceSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::deserialize(deserializer)?;
        let mut take = |key: &'static str| members.remove(key).ok_or_else(|| D::Error::missing_field(key));
        let name = serde_json::from_value(take("name")?).map_err(D::Error::custom)?;
        let kind = take("kind")?;
        let settings = Value::Object(members);
        let kind = match kind.as_str() {
            Some(SourceKind::PROMETHEUS) => SourceKind::Prometheus(
                serde_json::from_value(settings).map_err(|e| D::Error::custom(portcullis_config::explain(&e.to_string())))?,
            ),
            _ => return Err(D::Error::custom(format!("kind {kind} is not known; known is \"{}\"", SourceKind::PROMETHEUS))),
        };
        Ok(Self { name, kind })
    }
}

impl Serialize for SourceSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let SourceKind::Prometheus(settings) = &self.kind;
        let mut value = serde_json::to_value(settings).map_err(S::Error::custom)?;
        if let Some(members) = value.as_object_mut() {
            members.insert("name".into(), Value::String(self.name.to_string()));
            members.insert("kind".into(), Value::String(SourceKind::PROMETHEUS.into()));
        }
        value.serialize(serializer)
    }
}

impl JsonSchema for SourceSettings {
    fn schema_name() -> Cow<'static, str> {
        "Source".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = PrometheusConfig::json_schema(generator);
        let own = json_schema!({
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$", "description": "Unique among the sources."},
            "kind": {"const": SourceKind::PROMETHEUS, "description": "Prometheus and everything that speaks its API: Mimir, Cortex, Thanos, VictoriaMetrics."},
        });
        let object = schema.ensure_object();
        if let (Some(Value::Object(properties)), Value::Object(own)) = (object.get_mut("properties"), own.to_value()) {
            properties.extend(own);
        }
        let required = object.entry("required").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(required) = required.as_array_mut() {
            required.extend(["name", "kind"].map(|n| Value::String(n.into())));
        }
        schema
    }
}

/// The whole file. Every section may be left out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Settings")]
pub struct Config {
    /// Directory for everything that is kept: store, keys, audit.
    pub data: PathBuf,
    /// The MCP listener.
    pub listen: ListenSettings,
    /// The admin listener: metrics, health, and the HTTP API of administrators.
    pub admin: AdminSettings,
    /// MCP over standard input and output.
    pub stdio: StdioSettings,
    /// Who may come in, beside the holders of API keys.
    pub identity: IdentitySettings,
    /// The OTLP listeners.
    pub ingest: IngestSettings,
    /// The embedded store.
    pub store: StoreSettings,
    /// Backends to ask besides the embedded store.
    pub sources: Vec<SourceSettings>,
    /// Other MCP servers behind the gate.
    pub upstreams: Vec<UpstreamSettings>,
    /// APIs described by an OpenAPI document, whose operations become tools.
    pub apis: Vec<ApiSettings>,
    /// Which tools a listing shows.
    pub tools: ToolListSettings,
    /// What is known about secrets besides their value; settings refer to one as `secret:<name>`.
    pub secrets: Vec<SecretSettings>,
    /// Stores that keep secrets; settings refer to one of their secrets as `vault:<store>/<path>#<field>`.
    pub secret_stores: Vec<SecretStoreSettings>,
    /// An Open Policy Agent that is asked after the rules of this file allowed a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_policy: Option<OpaSettings>,
    /// Plugins.
    pub plugins: PluginSettings,
    /// Files with Cedar policies that are added to the built-in roles.
    pub policies: Vec<PathBuf>,
    /// Offset of the hours and weekdays rules speak of, such as `+02:00`; UTC when absent.
    pub policy_utc_offset: Option<String>,
    /// Role names beyond the built-in ones that keys may carry.
    pub roles: Vec<String>,
    /// Named bundles of tools, sources, services and limits, each at `/mcp/<name>`.
    pub products: Vec<ProductSettings>,
    /// What is taken out of every answer.
    pub redaction: RedactionSettings,
    /// How answers are handed over.
    pub release: ReleaseSettings,
    /// What text in arguments may hold.
    pub sanitize: SanitizeSettings,
    /// What may write.
    pub write: WriteSettings,
    /// Approval of calls that can destroy something, or that a policy marks.
    pub approvals: ApprovalSettings,
    /// Behaviour profiles.
    pub profiles: ProfileSettings,
    /// How much one caller, and all callers, may ask.
    pub limits: LimitSettings,
    /// The audit log.
    pub audit: AuditSettings,
    /// The server's own log, on standard error.
    pub log: LogSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("portcullis-data"),
            listen: ListenSettings::default(),
            admin: AdminSettings::default(),
            stdio: StdioSettings::default(),
            identity: IdentitySettings::default(),
            ingest: IngestSettings::default(),
            store: StoreSettings::default(),
            sources: Vec::new(),
            upstreams: Vec::new(),
            apis: Vec::new(),
            tools: ToolListSettings::default(),
            secrets: Vec::new(),
            secret_stores: Vec::new(),
            external_policy: None,
            plugins: PluginSettings::default(),
            policies: Vec::new(),
            policy_utc_offset: None,
            roles: Vec::new(),
            products: Vec::new(),
            redaction: RedactionSettings::default(),
            release: ReleaseSettings::default(),
            sanitize: SanitizeSettings::default(),
            write: WriteSettings::default(),
            approvals: ApprovalSettings::default(),
            profiles: ProfileSettings::default(),
            limits: LimitSettings::default(),
            audit: AuditSettings::default(),
            log: LogSettings::default(),
        }
    }
}

/// The settings and where they came from.
pub type LoadedConfig = Loaded<Config>;

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "portcullis.yaml";

/// The file that is read: the named one, or the default file if it is there.
pub fn file(named: Option<&Path>) -> Option<&Path> {
    let default = Path::new(DEFAULT_FILE);
    named.or_else(|| default.exists().then_some(default))
}

/// Reads the configuration: the named file, or the default file if it is there, or the defaults.
///
/// # Errors
/// See [`ConfigError`].
pub fn read(path: Option<&Path>, data: Option<PathBuf>) -> Result<LoadedConfig, ConfigError> {
    let mut loaded: LoadedConfig = portcullis_config::load(file(path))?;
    if let Some(data) = data {
        loaded.settings.data = data;
    }
    Ok(loaded)
}

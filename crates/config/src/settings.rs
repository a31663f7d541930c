//! The settings, with their defaults. The doc comment of a field is its documentation in the generated schema.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Span};

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The whole file. Every section may be left out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings<S> {
    /// Directory for everything that is kept: store, keys, audit.
    pub data: PathBuf,
    /// The MCP listener.
    pub listen: ListenSettings,
    /// MCP over standard input and output.
    pub stdio: StdioSettings,
    /// The OTLP listeners.
    pub ingest: IngestSettings,
    /// The embedded store.
    pub store: StoreSettings,
    /// Backends to ask besides the embedded store.
    pub sources: Vec<S>,
    /// Files with Cedar policies that are added to the built-in roles.
    pub policies: Vec<PathBuf>,
    /// Role names beyond the built-in ones that keys may carry.
    pub roles: Vec<String>,
    /// What may write.
    pub write: WriteSettings,
    /// How much one caller, and all callers, may ask.
    pub limits: LimitSettings,
    /// The audit log.
    pub audit: AuditSettings,
    /// The server's own log, on standard error.
    pub log: LogSettings,
}

impl<S> Default for Settings<S> {
    fn default() -> Self {
        Self {
            data: PathBuf::from("portcullis-data"),
            listen: ListenSettings::default(),
            stdio: StdioSettings::default(),
            ingest: IngestSettings::default(),
            store: StoreSettings::default(),
            sources: Vec::new(),
            policies: Vec::new(),
            roles: Vec::new(),
            write: WriteSettings::default(),
            limits: LimitSettings::default(),
            audit: AuditSettings::default(),
            log: LogSettings::default(),
        }
    }
}

/// The MCP listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSettings {
    /// Address and port. Anything but loopback needs at least one API key.
    #[schemars(with = "String")]
    pub mcp: SocketAddr,
    /// Role of callers without a credential. Only accepted on a loopback listener; without it they are refused.
    pub anonymous_role: Option<String>,
    /// Host names accepted in the Host header besides loopback names (`name` or `name:port`).
    pub allowed_hosts: Vec<String>,
    /// Origins accepted in the Origin header besides loopback ones (`https://console.example.com`).
    pub allowed_origins: Vec<String>,
    /// Largest request body.
    pub max_body: ByteSize,
    /// Sessions of the older protocol eras, in all.
    pub max_sessions: usize,
    /// Sessions of the older protocol eras, per principal.
    pub max_sessions_per_principal: usize,
    /// A session without traffic ends after this time.
    pub session_ttl: Span,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            mcp: loopback(7468),
            anonymous_role: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_body: ByteSize(1 << 20),
            max_sessions: 1_000,
            max_sessions_per_principal: 100,
            session_ttl: Span(std::time::Duration::from_mins(30)),
        }
    }
}

/// MCP over standard input and output.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StdioSettings {
    /// Role of the local user who started the process.
    pub role: String,
}

impl Default for StdioSettings {
    fn default() -> Self {
        Self { role: "operator".into() }
    }
}

/// The OTLP listeners.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestSettings {
    /// Whether telemetry is accepted at all.
    pub enabled: bool,
    /// OTLP over HTTP.
    #[schemars(with = "String")]
    pub http: SocketAddr,
    /// OTLP over gRPC.
    #[schemars(with = "String")]
    pub grpc: SocketAddr,
    /// Whether senders on this machine need no key. Senders elsewhere always need one of scope `ingest`.
    pub loopback_without_key: bool,
    /// Host names accepted in the Host header besides loopback names.
    pub allowed_hosts: Vec<String>,
    /// Largest request body, before and after decompression.
    pub max_body: ByteSize,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            http: loopback(4318),
            grpc: loopback(4317),
            loopback_without_key: true,
            allowed_hosts: Vec::new(),
            max_body: ByteSize(16 << 20),
        }
    }
}

/// The embedded store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// Whether there is an embedded store.
    pub enabled: bool,
    /// When records are removed.
    pub retention: Retention,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { enabled: true, retention: Retention::default() }
    }
}

/// When records are removed: whatever comes first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Older than this.
    pub age: Span,
    /// The oldest beyond this size.
    pub size: ByteSize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Span(std::time::Duration::from_hours(7 * 24)), size: ByteSize(20 << 30) }
    }
}

/// What may write. Nothing, unless named here.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WriteSettings {
    /// Categories of writing tools that exist at all.
    pub enable: Vec<String>,
}

/// How much one caller, and all callers, may ask.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Calls per second of one principal, in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_per_second: u32,
    /// Calls one principal may make at once after a pause.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
    /// Calls of one principal running at the same time.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrent_per_principal: u32,
    /// Calls running at the same time in all.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrent: u32,
    /// Longest a call may take.
    pub deadline: Span,
    /// Largest answer.
    pub answer: ByteSize,
    /// Largest answer of a backend.
    pub backend_answer: ByteSize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            calls_per_second: 50,
            burst: 200,
            concurrent_per_principal: 16,
            concurrent: 128,
            deadline: Span(std::time::Duration::from_secs(30)),
            answer: ByteSize(96 << 10),
            backend_answer: ByteSize(32 << 20),
        }
    }
}

/// The audit log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// Directory; `audit` inside the data directory when absent.
    pub directory: Option<PathBuf>,
    /// A file is closed and the next one begun at this size.
    pub rotate: ByteSize,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { directory: None, rotate: ByteSize(256 << 20) }
    }
}

/// The server's own log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Filter such as `info` or `info,portcullis_telemetry=debug`.
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".into(), json: false }
    }
}

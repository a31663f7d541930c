//! The sections of the file that belong to no room, with their defaults. The doc comment of a field is its documentation in the generated schema.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Plaintext, Span, TlsSettings, TrustedProxies};

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Which clients of the older protocol eras get a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sessions {
    /// Those that declare that they answer requests of this server (elicitation, sampling, roots), and those of 2025-03-26,
    /// whose batches need one. All others are served request by request and hear of no changes in between.
    #[default]
    Needed,
    /// All, as long as there is room.
    All,
    /// None: a call that needs an answer of such a client is refused.
    None,
}

/// The MCP listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSettings {
    /// Address and port. Anything but loopback needs at least one API key.
    #[schemars(with = "String")]
    pub mcp: SocketAddr,
    /// TLS; clear text when absent, which beyond this machine needs `plaintext`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// Clear text on an address other machines can reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<Plaintext>,
    /// Networks of the proxies in front of this listener, such as `[10.0.0.0/8]`. What they say in `Forwarded` or `X-Forwarded-For`
    /// about whom they speak for is believed, hop by hop from this server outwards, and of nobody else.
    pub trusted_proxies: TrustedProxies,
    /// Role of callers without a credential. Only accepted on a loopback listener; without it they are refused.
    pub anonymous_role: Option<String>,
    /// Host names accepted in the Host header besides loopback names (`name` or `name:port`).
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use this server, exactly (`https://console.example.com`); all others are refused.
    pub allowed_origins: Vec<String>,
    /// Largest request body.
    pub max_body: ByteSize,
    /// Connections at once; further ones wait to be accepted. Each takes a file descriptor.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, counted from the connection or the last answer; then the
    /// connection is closed. Behind a proxy that keeps connections, longer than the proxy keeps them.
    pub header_time: Span,
    /// Which clients of the older protocol eras get a session.
    pub sessions: Sessions,
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
            tls: None,
            plaintext: None,
            trusted_proxies: TrustedProxies::default(),
            anonymous_role: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_body: ByteSize(1 << 20),
            max_connections: 4_096,
            header_time: Span(std::time::Duration::from_secs(10)),
            sessions: Sessions::Needed,
            max_sessions: 1_000,
            max_sessions_per_principal: 100,
            session_ttl: Span(std::time::Duration::from_mins(30)),
        }
    }
}

/// Who is told without a credential whether the server is alive and ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthFor {
    /// Everybody who reaches the listener. The answer is a bare status.
    #[default]
    Anyone,
    /// Callers on this machine; everybody else needs a credential.
    ThisMachine,
}

/// The admin listener: metrics, health, and the HTTP API of administrators.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// Address and port. Anything but loopback needs somebody who could come in.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// TLS; clear text when absent, which beyond this machine needs `plaintext`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// Clear text on an address other machines can reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<Plaintext>,
    /// Networks of the proxies in front of this listener, such as `[10.0.0.0/8]`. What they say in `Forwarded` or `X-Forwarded-For`
    /// about whom they speak for is believed, hop by hop from this server outwards, and of nobody else.
    pub trusted_proxies: TrustedProxies,
    /// Host names accepted in the Host header besides loopback names (`name` or `name:port`).
    pub allowed_hosts: Vec<String>,
    /// Largest request body.
    pub max_body: ByteSize,
    /// Who may ask for `/livez` and `/readyz` without a credential. Everything else always needs one.
    pub health: HealthFor,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(7469),
            tls: None,
            plaintext: None,
            trusted_proxies: TrustedProxies::default(),
            allowed_hosts: Vec::new(),
            max_body: ByteSize(64 << 10),
            health: HealthFor::Anyone,
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
    /// TLS of both; clear text when absent, which beyond this machine needs `plaintext`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// Clear text on an address other machines can reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<Plaintext>,
    /// Networks of the proxies in front of both, such as `[10.0.0.0/8]`. What they say in `Forwarded` or `X-Forwarded-For`
    /// about whom they speak for is believed, hop by hop from this server outwards, and of nobody else.
    pub trusted_proxies: TrustedProxies,
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
            tls: None,
            plaintext: None,
            trusted_proxies: TrustedProxies::default(),
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

/// A steady rate, and what may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSettings {
    /// Per second, in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_second: u32,
    /// At once after a pause.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

/// Approval of calls that can destroy something, or that a policy marks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalSettings {
    /// How long a request for approval, and a yes to it, is good.
    pub lifetime: Span,
    /// Whether the user of a client that can show forms may say yes. Otherwise only `portcullis approvals` can.
    pub elicitation: bool,
    /// Whether the operator who says yes must be another principal than the one who asks.
    pub four_eyes: bool,
}

impl Default for ApprovalSettings {
    fn default() -> Self {
        Self { lifetime: Span(std::time::Duration::from_mins(15)), elicitation: true, four_eyes: true }
    }
}

/// What behaviour profiles do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileMode {
    /// Nothing.
    #[default]
    Off,
    /// Learn what each principal usually does.
    Observe,
    /// Learn, and report calls that are unlike the accepted profile.
    DryRun,
    /// Refuse calls that are unlike the accepted profile, and callers without one.
    Enforce,
}

/// Behaviour profiles: what each principal usually does, in shapes, never values.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSettings {
    /// What to do.
    pub mode: ProfileMode,
}

/// How much all callers of one tenant together may ask.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimitSettings {
    /// Calls per second, in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_per_second: u32,
    /// Calls at once after a pause.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
    /// Calls running at the same time.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrent: u32,
    /// Tokens of answers (by estimate) per UTC day; 0 is unlimited.
    pub tokens_per_day: u64,
}

impl Default for TenantLimitSettings {
    fn default() -> Self {
        Self { calls_per_second: 1_000, burst: 2_000, concurrent: 96, tokens_per_day: 100_000_000 }
    }
}

/// How much one caller, one tenant, and all callers may ask.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Requests of one address before it is known who asks; IPv6 addresses count by their /64.
    pub address: RateSettings,
    /// Calls of one tool by one principal.
    pub tool: RateSettings,
    /// Calls of one tool that writes by one principal; counts instead of `tool`.
    pub write: RateSettings,
    /// All principals of one tenant together, so that one tenant does not take what belongs to the others.
    pub tenant: TenantLimitSettings,
    /// Calls of all principals together.
    pub global: RateSettings,
    /// Whether rates hold over all replicas of one store together: `true`, or `auto`, as long as there are others.
    pub shared: SharedLimits,
    /// Calls that may wait for a place among the running ones, in all.
    #[schemars(range(max = 100_000))]
    pub queue: u32,
    /// How long a call waits for a place before it is refused.
    pub queue_time: Span,
    /// Tokens of answers (by estimate) one principal may take per UTC day; 0 is unlimited.
    pub tokens_per_day: u64,
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
        let rate = |per_second, burst| RateSettings { per_second, burst };
        Self {
            address: rate(200, 1_000),
            tool: rate(20, 100),
            write: rate(1, 5),
            tenant: TenantLimitSettings::default(),
            global: rate(2_000, 4_000),
            shared: SharedLimits::Auto,
            queue: 64,
            queue_time: Span(std::time::Duration::from_secs(2)),
            tokens_per_day: 5_000_000,
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

/// When replicas of one store share their rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum SharedLimits {
    /// As long as there are others.
    #[default]
    Auto,
    /// From the first call on.
    Always,
}

impl TryFrom<serde_json::Value> for SharedLimits {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match &value {
            serde_json::Value::Bool(true) => Ok(Self::Always),
            serde_json::Value::String(word) if word == "auto" => Ok(Self::Auto),
            _ => Err(format!(
                "{value} is none of: auto, true; a replica alone shares with nobody, so nothing is to be switched off"
            )),
        }
    }
}

impl From<SharedLimits> for serde_json::Value {
    fn from(limits: SharedLimits) -> Self {
        match limits {
            SharedLimits::Auto => "auto".into(),
            SharedLimits::Always => true.into(),
        }
    }
}

impl JsonSchema for SharedLimits {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SharedLimits".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"enum": ["auto", true], "description": "When replicas of one store share their rates."})
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

/// Which tools a listing shows to a caller that may call many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolListSettings {
    /// `all`, `auto`, or a list of names and patterns such as `query_*`. Tools that are not listed are found with
    /// `find_tools` and called with `call_tool`. `auto` lists all until they cost more than `auto_limit_tokens`, then the
    /// house's own as far as they fit.
    pub expose: Expose,
    /// What a listing may cost with `auto`, in estimated tokens.
    pub auto_limit_tokens: usize,
}

impl Default for ToolListSettings {
    fn default() -> Self {
        Self { expose: Expose::Word(ExposeWord::Auto), auto_limit_tokens: 6_000 }
    }
}

/// What a listing shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, try_from = "serde_json::Value")]
pub enum Expose {
    /// By a rule.
    Word(ExposeWord),
    /// These names; `*` stands for any text.
    Names(Vec<String>),
}

impl TryFrom<serde_json::Value> for Expose {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let wrong = || format!("{value} is none of: all, auto, or a list of names such as [query_logs, 'kubernetes_*']");
        match &value {
            serde_json::Value::Array(_) => serde_json::from_value(value.clone()).map(Self::Names).map_err(|_| wrong()),
            _ => serde_json::from_value(value.clone()).map(Self::Word).map_err(|_| wrong()),
        }
    }
}

/// Rules for what a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExposeWord {
    /// Every tool the caller may call.
    All,
    /// Every tool while they are few.
    Auto,
}

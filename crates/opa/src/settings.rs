//! The `external_policy` section. Must not open anything.

use std::time::Duration;

use portcullis_config::Span;
use portcullis_egress::{AllowedRange, AuthSettings, TlsSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An Open Policy Agent that is asked after the rules of the house allowed a call, and can only refuse. A call is refused
/// while it gives no clear answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpaSettings {
    /// Base URL, to which `/v1/data/<path>` is added: `http://127.0.0.1:8181`.
    pub url: String,
    /// The rule that is true for what may go on: `portcullis/allow` for `allow` of `package portcullis`.
    pub path: String,
    /// Longest time for one decision, at most 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long a decision is used again for the same question.
    #[serde(default)]
    pub cache: DecisionCacheSettings,
    /// Credential sent to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// TLS towards the service.
    #[serde(default)]
    pub tls: TlsSettings,
    /// Address ranges it may live in besides public ones: `loopback` for a sidecar.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
}

/// How long decisions are used again. The question is everything but the time of day.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionCacheSettings {
    /// At most 1m.
    pub ttl: Span,
    /// Most decisions kept; 0 asks for every call.
    #[schemars(range(max = 1_000_000))]
    pub entries: usize,
}

impl Default for DecisionCacheSettings {
    fn default() -> Self {
        Self { ttl: Span(Duration::from_secs(5)), entries: 10_000 }
    }
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(1))
}

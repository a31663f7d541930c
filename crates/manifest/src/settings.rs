//! One described API as an operator writes it. Guards that a misspelt key, an odd name or a missing pin is an error at
//! start-up. Must not open connections.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_config::{ByteSize, Span};
use portcullis_egress::{AllowedRange, AuthSettings, TlsSettings};
use portcullis_model::{RiskClass, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One API described by an OpenAPI document (3.0 or 3.1, JSON or YAML), whose operations become tools.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    /// Unique; lower-case letters, digits and `_`. Tools are called `<name>_<operation>`, writes are enabled as `api:<name>`,
    /// and rules about sources know it by this name.
    pub name: String,
    /// Where the description is.
    pub spec: SpecSettings,
    /// Base URL, to which the paths of the description are added. The first server of the description when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Values of the variables in the description's server URL; one without a value here is refused.
    #[serde(default)]
    pub server_variables: BTreeMap<String, String>,
    /// Credential sent to this API only. It satisfies the security schemes of the description; arguments never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// Further headers; credentials are refused here.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// TLS towards this API.
    #[serde(default)]
    pub tls: TlsSettings,
    /// Address ranges this API may live in besides public ones: `loopback`, `private`, `shared`, or networks such as
    /// `10.20.0.0/16`.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
    /// Tenant of Portcullis whose data this API holds. Principals of another tenant cannot use it.
    #[serde(default = "TenantId::default_tenant")]
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// Operations that become tools: those that fit one of these. Every operation that only reads when it is empty.
    #[serde(default)]
    pub allow: Vec<Selector>,
    /// Operations that never become tools, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<Selector>,
    /// What is known better than the description says.
    #[serde(default)]
    pub operations: Vec<OperationSettings>,
    /// Whether callers that are confined to some services, namespaces or a look-back may use it. Its answers cannot be
    /// confined, so they are refused without this.
    #[serde(default)]
    pub open_to_confined: bool,
    /// Most tools of it; beyond, nothing is offered until `allow` says less or this says more.
    #[serde(default = "default_max_tools")]
    pub max_tools: usize,
    /// Largest input schema of one tool. Larger ones lose the descriptions and then the inside of nested objects.
    #[serde(default = "default_max_schema")]
    pub max_schema: ByteSize,
    /// Largest description that is read.
    #[serde(default = "default_max_spec")]
    pub max_spec: ByteSize,
    /// What one answer may cost, in estimated tokens; the rest is on the next page.
    #[serde(default = "default_answer_tokens")]
    pub answer_tokens: usize,
    /// Longest silence of the API; the deadline of a call can be earlier.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Longest time to connect.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// Largest response, after decompression.
    #[serde(default = "default_max_response")]
    pub max_response: ByteSize,
    /// Requests at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
}

fn default_max_tools() -> usize {
    200
}

fn default_max_schema() -> ByteSize {
    ByteSize(16 << 10)
}

fn default_max_spec() -> ByteSize {
    ByteSize(32 << 20)
}

fn default_answer_tokens() -> usize {
    4_000
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn default_max_response() -> ByteSize {
    ByteSize(8 << 20)
}

fn default_concurrency() -> usize {
    8
}

/// Where a description is: in a file, or at a URL with the digest it must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecSettings {
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// An `https://` URL (`http://` on this machine only). Needs `sha256`; fetched once and kept in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// SHA-256 of the description, 64 hexadecimal digits. Another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Which operations are meant: those that fit everything that is given. Without `methods` and `operations`, only GET and HEAD.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// One of these tags.
    pub tags: Vec<String>,
    /// One of these methods; `*` for all.
    pub methods: Vec<String>,
    /// A path like one of these; `*` stands for any text.
    pub paths: Vec<String>,
    /// One of these: an `operationId`, or a method and a path such as `GET /pets/{id}`.
    pub operations: Vec<String>,
}

/// What is known better about one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationSettings {
    /// Its `operationId`, or its method and path such as `POST /search`.
    pub operation: String,
    /// What follows the API's name in the name of the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Title for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Description for a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it can do at worst, where the method says too much or too little: `read`, `write`, `destructive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Risk>")]
    pub risk: Option<RiskClass>,
    /// Whether doing it twice does no more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
}

/// The risk classes, for the schema of the settings.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "stands for the risk class in the generated schema only")]
enum Risk {
    Read,
    Write,
    Destructive,
}

impl ApiSettings {
    /// What can be checked without reading anything.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.name.is_empty() || self.name.len() > 24 || !self.name.chars().all(fits) {
            return Err(format!("'{}' is no name: use 1 to 24 lower-case letters, digits and '_'", self.name));
        }
        let pin = self.spec.sha256.as_deref();
        if pin.is_some_and(|pin| pin.len() != 64 || !pin.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err("spec.sha256 is no SHA-256: it has 64 hexadecimal digits".into());
        }
        match (&self.spec.file, &self.spec.url) {
            (Some(_), None) => {}
            (None, Some(url)) => {
                if pin.is_none() {
                    return Err("spec.url needs spec.sha256: what a server sends must be what was looked at".into());
                }
                let lower = url.to_ascii_lowercase();
                let here = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
                let local = here.iter().any(|own| lower.strip_prefix(own).is_some_and(|rest| rest.starts_with([':', '/'])));
                if !lower.starts_with("https://") && !local {
                    return Err("spec.url must begin with https://".into());
                }
            }
            _ => return Err("spec needs either file or url".into()),
        }
        if self.max_tools == 0 || self.answer_tokens < 100 || self.max_schema.0 < 512 {
            return Err("max_tools must be at least 1, answer_tokens 100 and max_schema 512 bytes".into());
        }
        Ok(())
    }
}

//! One upstream as the operator writes it. Guards that what would start a program or open a connection is complete and
//! unambiguous before anything happens. Must not start or open anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_config::{ByteSize, Span};
use portcullis_egress::{AllowedRange, AuthSettings, FORBIDDEN_HEADERS, TlsSettings};
use portcullis_model::{PrincipalId, RiskClass, SecretReference, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Another MCP server behind the gate: a program on this machine, or an address.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Unique among the upstreams: lower-case letters, digits, `-` and `_`, at most 32. Rules and keys know it as a source.
    pub name: String,
    /// Upstreams of one kind, such as three Grafanas, offer their common tools once, with an argument `instance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A program that speaks MCP on its standard input and output. Exactly one of `stdio`, `http` and `sse` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<ProgramSettings>,
    /// A server that speaks Streamable HTTP, of either era.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<AddressSettings>,
    /// A server that speaks the HTTP+SSE of 2024-11-05.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse: Option<AddressSettings>,
    /// Which revision is spoken. `auto` tries 2026-07-28 and falls back; an upstream that once spoke a newer revision than
    /// it does now is held until a person accepts that.
    #[serde(default)]
    pub protocol: ProtocolChoice,
    /// Whether a person reviews definitions before anybody sees them.
    #[serde(default)]
    pub trust: Trust,
    /// Only tools with these names; `*` stands for any text. All when empty.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Whether names get `<name>_` in front always, or only where a name is taken.
    #[serde(default)]
    pub prefix: Prefixing,
    /// What tools can do at worst, by name; the first rule that fits counts. Where none does, the tool's annotations do,
    /// at their most dangerous reading.
    #[serde(default)]
    pub risk: Vec<RiskRule>,
    /// Which tools have a dry run of their own, and by which argument. Nothing is guessed: a tool that is not named here is
    /// called only to do its work.
    #[serde(default)]
    pub dry_run: Vec<DryRunRule>,
    /// Tenant of Portcullis whose data this upstream holds. Principals of another tenant cannot use it.
    #[serde(default = "TenantId::default_tenant")]
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// Whether callers confined to some services, namespaces or a look-back may use it. An upstream cannot be told to confine itself, so
    /// they are refused unless this says that it holds nothing they must not see.
    #[serde(default)]
    pub confined_callers: ConfinedCallers,
    /// What it may ask while a call runs.
    #[serde(default)]
    pub questions: QuestionSettings,
    /// How much it may take and give.
    #[serde(default)]
    pub limits: UpstreamLimits,
    /// How old the last look at a tool's definition may be when the tool is called. When absent, every call looks first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recheck: Option<Span>,
    /// How often all definitions are compared when the upstream does not announce changes.
    #[serde(default = "minute")]
    pub refresh: Span,
}

fn minute() -> Span {
    Span(Duration::from_mins(1))
}

/// A program and how it is started. No shell is involved, and nothing of this process's environment is inherited.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramSettings {
    /// Absolute path of the program.
    pub command: PathBuf,
    /// Its arguments, as they are.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment. Values are texts or references to secrets: `env:NAME`, `file:/path`, `secret:name`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, SecretReference>,
    /// The same for single principals, on top of `env`; implies one process for each principal.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, String>>")]
    pub env_of: BTreeMap<String, BTreeMap<String, SecretReference>>,
    /// Directory it runs in; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// SHA-256 of files that must be unchanged when it starts, by absolute path.
    #[serde(default)]
    pub digests: BTreeMap<PathBuf, String>,
    /// One process for each principal instead of one for all.
    #[serde(default)]
    pub per_principal: bool,
}

/// An address and how to present oneself there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressSettings {
    /// URL of the MCP endpoint: `https://mcp.example.com/mcp`.
    pub url: String,
    /// Credential for everybody who has none of their own, and for looking at definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// Credentials of single principals, such as `key:3f9a` or `user:anna`.
    #[serde(default)]
    pub auth_of: BTreeMap<String, AuthSettings>,
    /// Whether only principals with a credential of their own (`auth_of`, or a header of theirs) may call.
    #[serde(default)]
    pub own_credential_only: bool,
    /// Names of headers that clients may send for this upstream, such as `x-grafana-token`. They reach it and nobody else. At
    /// most 16; a call with more than 8 KiB in one of them, or 16 KiB in all, is refused.
    #[serde(default)]
    pub client_headers: Vec<String>,
    /// Headers sent with every request; credentials are refused here.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// TLS towards this upstream.
    #[serde(default)]
    pub tls: TlsSettings,
    /// Address ranges it may live in besides public ones: `loopback`, `private`, `shared`, or networks.
    #[serde(default)]
    pub allow_addresses: Vec<AllowedRange>,
}

/// Which revision of MCP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ProtocolChoice {
    /// The newest both know.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// The stateless revision, or nothing.
    #[serde(rename = "2026-07-28")]
    Stateless,
    /// A session revision: 2025-11-25, 2025-06-18, 2025-03-26 or 2024-11-05, as the server chooses.
    #[serde(rename = "session")]
    Session,
}

/// Whether a person reviews definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Everything new or changed waits for `portcullis upstream review` and `accept`.
    #[default]
    Review,
    /// What is seen for the first time, and in which the scanner finds nothing, is taken in without a person; changes still
    /// wait. Annotations are not believed then.
    AcceptFirstSight,
}

/// When names get the upstream's name in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefixing {
    /// Where the name is taken.
    #[default]
    OnCollision,
    /// Always.
    Always,
}

/// Whether confined callers may use an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfinedCallers {
    /// They are refused.
    #[default]
    Refuse,
    /// They may: what it shows is not of a service or namespace.
    Allow,
}

/// What tools with some names can do at worst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RiskRule {
    /// Name of the tool as the upstream calls it; `*` stands for any text.
    pub tools: String,
    /// `read`, `write` or `destructive`.
    #[schemars(with = "String")]
    pub class: RiskClass,
}

/// The dry run of tools with some names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRunRule {
    /// Name of the tool as the upstream calls it; `*` stands for any text.
    pub tools: String,
    /// The argument of the tool that makes a call a dry run, such as `dryRun`.
    pub argument: String,
    /// The value that does; `true` when absent.
    #[serde(default = "yes")]
    pub value: serde_json::Value,
}

fn yes() -> serde_json::Value {
    serde_json::Value::Bool(true)
}

/// Whether something is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PassedOn {
    /// It is refused; the upstream is told so.
    Refuse,
    /// It is passed on.
    Allow,
}

/// What an upstream may ask of the caller while a call runs. Each question is recorded, and is asked only where the caller's
/// client said that it can answer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuestionSettings {
    /// Forms for the caller's user.
    pub forms: PassedOn,
    /// Having the caller's model write something (sampling). It spends the caller's tokens on words of the upstream.
    pub sampling: PassedOn,
    /// Most tokens one such answer may have; what asks for more gets this.
    pub sampling_tokens: u32,
    /// Origins (`https://host`) whose pages the caller's user may be asked to open, beside the upstream's own.
    pub links: Vec<String>,
    /// What the upstream is told are the roots. The caller's own are never asked for.
    pub roots: Vec<Root>,
    /// Questions in one call; a call that asks more is ended.
    pub most: u32,
}

/// A root an upstream is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Its address: `file:///srv/project`, a directory the upstream may see.
    pub uri: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Default for QuestionSettings {
    fn default() -> Self {
        Self {
            forms: PassedOn::Allow,
            sampling: PassedOn::Refuse,
            sampling_tokens: 1_024,
            links: Vec::new(),
            roots: Vec::new(),
            most: 8,
        }
    }
}

/// Limits of one upstream, for all callers together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamLimits {
    /// Calls at once.
    pub concurrent: u32,
    /// Calls per second in the long run.
    pub per_second: u32,
    /// Calls at once after a pause.
    pub burst: u32,
    /// Largest message.
    pub message: ByteSize,
    /// Longest time of a call; the deadline of the caller holds as well.
    pub time: Span,
    /// Longest silence within a call.
    pub idle: Span,
    /// Progress reports and log messages of one call that are looked at; a call with more is ended.
    pub notices: u32,
    /// Definitions of each kind that are looked at; what is beyond stays out, and that is reported.
    pub definitions: u32,
    /// Longest time to start or to connect.
    pub start: Span,
    /// Processes or sessions of single principals at once.
    pub instances: u32,
    /// After this time without a call the process or session of a principal ends.
    pub instance_idle: Span,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            concurrent: 16,
            per_second: 50,
            burst: 100,
            message: ByteSize(4 << 20),
            time: Span(Duration::from_mins(1)),
            idle: Span(Duration::from_secs(30)),
            notices: 1_000,
            definitions: 512,
            start: Span(Duration::from_secs(15)),
            instances: 32,
            instance_idle: Span(Duration::from_mins(10)),
        }
    }
}

/// Settings that cannot be used. For the operator to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream '{name}': {reason}")]
pub struct UpstreamSettingsError {
    name: String,
    reason: String,
}

/// Largest message that may be allowed.
const LARGEST_MESSAGE: u64 = 64 << 20;
/// Most headers of clients that are handed on.
const MOST_HEADERS: usize = 16;
/// Headers of the protocol, which clients cannot send for an upstream.
const OF_THE_PROTOCOL: [&str; 8] =
    ["accept", "content-type", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id", "origin"];

/// Whether `name` can name an upstream or a kind.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    !name.is_empty() && name.len() <= 32 && name.bytes().all(fits) && name.as_bytes()[0].is_ascii_alphanumeric()
}

impl UpstreamSettings {
    pub(crate) fn wrong(&self, reason: impl Into<String>) -> UpstreamSettingsError {
        UpstreamSettingsError { name: self.name.chars().take(40).collect(), reason: reason.into() }
    }

    /// Checks what can be checked without looking at the machine.
    pub fn check(&self) -> Result<(), UpstreamSettingsError> {
        if !is_name(&self.name) {
            return Err(self.wrong("a name is 1 to 32 lower-case letters, digits, '-' and '_', such as grafana-eu"));
        }
        if let Some(kind) = self.kind.as_deref().filter(|kind| !is_name(kind)) {
            return Err(self.wrong(format!("kind '{kind}' must be 1 to 32 lower-case letters, digits, '-' and '_'")));
        }
        let ways = [self.stdio.is_some(), self.http.is_some(), self.sse.is_some()].into_iter().filter(|given| *given).count();
        if ways != 1 {
            return Err(self.wrong("exactly one of stdio, http and sse says how to reach it"));
        }
        if let Some(rule) = self.dry_run.iter().find(|rule| rule.argument.is_empty() || rule.value.is_null()) {
            return Err(
                self.wrong(format!("dry_run for '{}' needs the name of an argument and a value that is not null", rule.tools))
            );
        }
        if self.sse.is_some() && self.protocol == ProtocolChoice::Stateless {
            return Err(self.wrong("HTTP+SSE has no stateless revision; use http, or protocol: session"));
        }
        if let Some(program) = &self.stdio {
            self.check_program(program)?;
        }
        if let Some(address) = self.address() {
            self.check_address(address)?;
        }
        let limits = &self.limits;
        let counts = [limits.concurrent, limits.per_second, limits.burst, limits.notices, limits.definitions, limits.instances];
        let times = [limits.time, limits.idle, limits.start, limits.instance_idle, self.refresh];
        if counts.contains(&0) || times.iter().any(|time| time.0.is_zero()) || limits.message.0 == 0 {
            return Err(self.wrong("limits and refresh must be above zero"));
        }
        self.check_questions()?;
        if limits.message.0 > LARGEST_MESSAGE {
            return Err(self.wrong("limits.message may be at most 64MiB"));
        }
        Ok(())
    }

    fn check_questions(&self) -> Result<(), UpstreamSettingsError> {
        let questions = &self.questions;
        if questions.most == 0 || questions.sampling_tokens == 0 {
            return Err(self.wrong("questions.most and questions.sampling_tokens must be above zero"));
        }
        for link in &questions.links {
            if crate::questions::origin_of(link).as_deref() != Some(link.trim_end_matches('/')) {
                return Err(
                    self.wrong(format!("questions.links: '{link}' is no origin; write https://host or https://host:port"))
                );
            }
        }
        for Root { uri, .. } in &questions.roots {
            let plain = uri.bytes().all(|b| b.is_ascii_graphic()) && !uri.split('/').any(|part| part == "..");
            if !uri.starts_with("file:///") || !plain {
                return Err(self.wrong(format!("questions.roots: '{uri}' is no directory; write file:///path, percent-encoded")));
            }
        }
        Ok(())
    }

    fn check_program(&self, program: &ProgramSettings) -> Result<(), UpstreamSettingsError> {
        if !program.command.is_absolute() {
            let command = program.command.display();
            return Err(self.wrong(format!("command '{command}' must be an absolute path; nothing is searched for")));
        }
        if let Some(directory) = program.directory.as_deref().filter(|d| !d.is_absolute()) {
            return Err(self.wrong(format!("directory '{}' must be absolute", directory.display())));
        }
        let no_text = |text: &str| text.contains('\0');
        if program.args.iter().any(|a| no_text(a)) {
            return Err(self.wrong("an argument holds a NUL"));
        }
        for name in program.env.keys().chain(program.env_of.values().flat_map(BTreeMap::keys)) {
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(self.wrong(format!("'{name}' is no name of an environment variable")));
            }
            if name.starts_with("LD_") || name.starts_with("DYLD_") {
                return Err(self.wrong(format!("'{name}' would put foreign code into the program; link it properly instead")));
            }
        }
        for (path, digest) in &program.digests {
            let hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !path.is_absolute() || !hex {
                return Err(self.wrong("digests are SHA-256 in 64 lower-case hexadecimal digits, by absolute path"));
            }
        }
        self.check_principals(program.env_of.keys())
    }

    fn check_address(&self, address: &AddressSettings) -> Result<(), UpstreamSettingsError> {
        if address.client_headers.len() > MOST_HEADERS {
            return Err(self.wrong(format!("client_headers names at most {MOST_HEADERS} headers")));
        }
        for name in &address.client_headers {
            let lower = name.to_ascii_lowercase();
            let ours = FORBIDDEN_HEADERS.contains(&lower.as_str()) || OF_THE_PROTOCOL.contains(&lower.as_str());
            if ours || lower.starts_with("mcp-") || http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
                return Err(self.wrong(format!(
                    "client_headers: '{name}' cannot be handed on: it belongs to the connection, to the protocol, or to the credential for this server"
                )));
            }
        }
        self.check_principals(address.auth_of.keys())
    }

    fn check_principals<'a>(&self, mut ids: impl Iterator<Item = &'a String>) -> Result<(), UpstreamSettingsError> {
        match ids.find(|id| PrincipalId::new(id.as_str()).is_err()) {
            Some(id) => Err(self.wrong(format!("'{id}' is no principal; write it as the audit log does, such as key:3f9a"))),
            None => Ok(()),
        }
    }

    /// The address, where it is reached by HTTP.
    pub(crate) fn address(&self) -> Option<&AddressSettings> {
        self.http.as_ref().or(self.sse.as_ref())
    }

    /// Whether each principal has a process or session of its own.
    pub(crate) fn is_private(&self) -> bool {
        let program = self.stdio.as_ref().is_some_and(|p| p.per_principal || !p.env_of.is_empty());
        let own = |a: &AddressSettings| !a.auth_of.is_empty() || !a.client_headers.is_empty() || a.own_credential_only;
        let exchanged = |a: &AddressSettings| matches!(a.auth, Some(AuthSettings::Exchange(_)));
        program || self.address().is_some_and(|a| own(a) || exchanged(a))
    }

    /// The category under which its writing tools are enabled.
    pub(crate) fn category(&self) -> String {
        format!("upstream:{}", self.kind.as_ref().unwrap_or(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UpstreamSettings, String> {
        let settings: UpstreamSettings = serde_json::from_str(text).map_err(|e| e.to_string())?;
        settings.check().map_err(|e| e.to_string())?;
        Ok(settings)
    }

    #[test]
    fn what_is_ambiguous_or_dangerous_is_refused() {
        for (text, says) in [
            (r#"{"name": "a"}"#, "exactly one of"),
            (r#"{"name": "a", "stdio": {"command": "/x"}, "http": {"url": "https://a/mcp"}}"#, "exactly one of"),
            (r#"{"name": "A", "stdio": {"command": "/x"}}"#, "a name is"),
            (r#"{"name": "a", "stdio": {"command": "npx"}}"#, "must be an absolute path"),
            (r#"{"name": "a", "stdio": {"command": "/x", "env": {"LD_PRELOAD": "/y"}}}"#, "foreign code"),
            (r#"{"name": "a", "stdio": {"command": "/x", "env": {"A=B": "y"}}}"#, "no name of an environment variable"),
            (r#"{"name": "a", "stdio": {"command": "/x", "digests": {"/x": "12"}}}"#, "SHA-256"),
            (r#"{"name": "a", "stdio": {"command": "/x", "shell": true}}"#, "unknown field"),
            (r#"{"name": "a", "http": {"url": "https://a", "client_headers": ["Authorization"]}}"#, "cannot be handed on"),
            (r#"{"name": "a", "http": {"url": "https://a", "client_headers": ["mcp-session-id"]}}"#, "cannot be handed on"),
            (r#"{"name": "a", "http": {"url": "https://a", "auth_of": {"a b": {"bearer": "x"}}}}"#, "is no principal"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "protocol": "2026-07-28"}"#, "no stateless revision"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "limits": {"concurrent": 0}}"#, "above zero"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "trust": "everything"}"#, "unknown variant"),
            (r#"{"name": "a", "stdio": {"command": "/x"}, "dry_run": [{"tools": "*", "argument": ""}]}"#, "name of an argument"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "questions": {"links": ["http://b.example"]}}"#, "is no origin"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "questions": {"links": ["https://b.example/x"]}}"#, "is no origin"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "questions": {"roots": [{"uri": "/srv"}]}}"#, "is no directory"),
            (r#"{"name": "a", "sse": {"url": "https://a"}, "questions": {"most": 0}}"#, "above zero"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
        let headers: Vec<String> = (0..=MOST_HEADERS).map(|number| format!("x-{number}")).collect();
        let many = serde_json::json!({"name": "a", "http": {"url": "https://a", "client_headers": headers}});
        assert!(read(&many.to_string()).unwrap_err().contains("at most 16 headers"));
    }

    #[test]
    fn the_careful_choice_is_the_default() {
        let settings = read(r#"{"name": "a", "stdio": {"command": "/x"}}"#).unwrap();
        assert_eq!(settings.trust, Trust::Review);
        assert_eq!(settings.prefix, Prefixing::OnCollision);
        assert_eq!(settings.confined_callers, ConfinedCallers::Refuse);
        assert!(settings.recheck.is_none() && !settings.is_private());
        assert_eq!(settings.questions.sampling, PassedOn::Refuse);
        assert!(settings.questions.links.is_empty() && settings.questions.roots.is_empty());
        assert_eq!(settings.category(), "upstream:a");
    }

    #[test]
    fn secrets_are_not_written_back() {
        let settings = read(r#"{"name": "a", "stdio": {"command": "/x", "env": {"TOKEN": "hunter2", "B": "env:B"}}}"#).unwrap();
        let written = serde_json::to_string(&settings).unwrap();
        assert!(!written.contains("hunter2") && written.contains("env:B"), "{written}");
    }
}

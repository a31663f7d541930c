//! What one record says. Built step by step; what is not known is absent, never zero or empty.

use std::borrow::Cow;
use std::collections::BTreeMap;

use portcullis_model::{CredentialKind, Endpoint, FaultCode, KeyId, Principal, PrincipalId, TenantId, Whence};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::AuditError;
use crate::line::Encoded;
use crate::seal::Sealer;
use crate::sign::{PublicKey, Signer, Statement};

/// Longest text kept in one field, in characters. What is longer is cut and says by how much.
const TEXT: usize = 256;
/// Most sources named in one record.
const SOURCES: usize = 64;

type Text = Cow<'static, str>;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A tool that may change something is about to be called. The record of the end names this one, and counts; where there
    /// is none, the process ended in between.
    Intent,
    /// A tool was called and answered.
    Call,
    /// A call was refused by the gate.
    Refused,
    /// A call was allowed and failed.
    Failed,
    /// A resource, prompt, completion or listing was asked for.
    Lookup,
    /// An administrator did something; what was changed has a record of its own beside it.
    Admin,
    /// A credential was accepted or refused.
    Authentication,
    /// A key was made or taken back.
    Key,
    /// The configuration was loaded, changed or refused.
    Config,
    /// The server started.
    Start,
    /// The server stopped.
    Stop,
    /// Telemetry came in, or was refused.
    Ingest,
    /// Standing work under a charter.
    Charter,
    /// An approval was asked for, granted, denied, used, or ran out.
    Approval,
    /// Policies were loaded, changed or refused.
    Policy,
    /// A secret was found expired, missing, refused, out of reach, due or replaced, or can be used again.
    Secret,
    /// A plugin was installed, enabled, disabled, removed or refused.
    Plugin,
    /// A definition of another MCP server was held, accepted, rejected or changed.
    Upstream,
    /// Redaction was bypassed by a principal with that grant.
    Bypass,
    /// A principal or address was locked out after failed attempts, or let in again.
    Lockout,
    /// Something went wrong outside of any call.
    Error,
    /// A sink fell behind, dropped records or caught up.
    Sink,
    /// Old parts were removed by retention.
    Retention,
    /// A subject was pseudonymised.
    Erased,
    /// The log signed what stands before this record.
    Checkpoint,
    /// A process began to write the chain.
    Opened,
    /// The chain goes on in a new file.
    Continued,
    /// What a crash left of a line was moved aside.
    Recovered,
    /// The process stopped writing in good order.
    Closed,
    /// A kind this build does not know; only when reading.
    #[serde(other)]
    Other,
}

impl EventKind {
    /// The name in records and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Call => "call",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Lookup => "lookup",
            Self::Admin => "admin",
            Self::Authentication => "authentication",
            Self::Key => "key",
            Self::Config => "config",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Ingest => "ingest",
            Self::Charter => "charter",
            Self::Approval => "approval",
            Self::Policy => "policy",
            Self::Secret => "secret",
            Self::Plugin => "plugin",
            Self::Upstream => "upstream",
            Self::Bypass => "bypass",
            Self::Lockout => "lockout",
            Self::Error => "error",
            Self::Sink => "sink",
            Self::Retention => "retention",
            Self::Erased => "erased",
            Self::Checkpoint => "checkpoint",
            Self::Opened => "opened",
            Self::Continued => "continued",
            Self::Recovered => "recovered",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}

/// Whether it was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was.
    Allow,
    /// It was not.
    Deny,
}

/// Another chain of the same directory as it stood when this one was opened, so that removing it is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// The chain.
    pub chain: String,
    /// Sequence number in its head.
    pub sequence: u64,
    /// Hash in its head, hexadecimal.
    pub hash: String,
}

/// What the log says about itself, in records of the kinds from `opened` to `closed`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainMark {
    /// Name of the chain.
    pub chain: String,
    /// Number of the file within it, from 1.
    pub part: u64,
    /// Process id.
    pub pid: u32,
    /// Version of Portcullis.
    pub version: Text,
    /// File before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_file: Option<String>,
    /// File that holds what was moved aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// Chains that were not continued because they are damaged, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_aside: BTreeMap<String, String>,
    /// The other chains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
    /// Name of the key that signs this chain, in `opened` records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// Signature over the record before, in `checkpoint` records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// What an erasure took away, in `erased` and `retention` records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erasures: Vec<Erasure>,
    /// What retention removed, in `retention` records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionMark>,
}

/// A signature over one record, and through its hash over all before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Number of the record.
    pub sequence: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
    /// When it was signed.
    pub time: String,
    /// Name of the key: the first 16 digits of BLAKE3 over the public key.
    pub key: String,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// Which records one erasure took personal text from. Spans are `[first, last, groups]` with groups as bits:
/// 1 who acted, 2 whom it is about, 4 the note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// Name of the erasure; the subject is called `erased:<id>` from now on.
    pub id: String,
    /// The chain.
    pub chain: String,
    /// The records.
    pub spans: Vec<(u64, u64, u8)>,
    /// Ed25519 signature over all of this, hexadecimal.
    pub signature: String,
}

impl Erasure {
    fn spans_hash(spans: &[(u64, u64, u8)]) -> String {
        let mut hasher = blake3::Hasher::new();
        for (first, last, bits) in spans {
            hasher.update(&first.to_le_bytes()).update(&last.to_le_bytes()).update(&[*bits]);
        }
        hasher.finalize().to_hex().to_string()
    }

    pub(crate) fn signed(signer: &Signer, id: &str, chain: &str, spans: &[(u64, u64, u8)]) -> Self {
        let hash = Self::spans_hash(spans);
        let signature = signer.sign(&Statement::Erasure { id, chain, spans: &hash });
        Self { id: id.to_owned(), chain: chain.to_owned(), spans: spans.to_vec(), signature }
    }

    pub(crate) fn is_signed(&self, key: &PublicKey) -> bool {
        let hash = Self::spans_hash(&self.spans);
        key.signed(&Statement::Erasure { id: &self.id, chain: &self.chain, spans: &hash }, &self.signature)
    }
}

/// Whole parts of a chain that retention removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionMark {
    /// The chain.
    pub chain: String,
    /// First part that is left.
    pub first_part: u64,
    /// First record that is left.
    pub first_sequence: u64,
    /// Bytes that were removed.
    pub bytes: u64,
}

/// One event, to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// What it is about.
    pub kind: EventKind,
    /// Who acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalId>,
    /// Whom it is about, where that is not who acted: who asked for what is approved, whose access changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<PrincipalId>,
    /// How it was proven: `local`, `api_key`, `password`, `token`, `certificate`, `anonymous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Text>,
    /// The API key, where one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// Whose data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// How it came in: `stdio`, `http`, `admin`, `otlp-http`, `otlp-grpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Text>,
    /// Address of the client, by which it was counted: the other end of the connection, or whom a trusted proxy named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Endpoint>,
    /// The trusted proxies in between, from the client to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Text>,
    /// What the request said about where it comes from, where that was not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Text>,
    /// Session of the older protocol eras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Text>,
    /// Method of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// Tool, prompt or resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Text>,
    /// What it is about besides a tool: an approval's id, a policy file, the name of a secret, a plugin; for a call, the tool
    /// it came through. Never a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Text>,
    /// Where the record stands that was written before this call was made: `chain/sequence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Text>,
    /// Keyed fingerprint of the arguments, see [`AuditLog::fingerprint`](crate::AuditLog::fingerprint).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Text>,
    /// Whether it was let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// Code of the error; absent when it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FaultCode>,
    /// How many events of this kind the record stands for, where that is not one: what a flood of refusals was summed up
    /// to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Microseconds from arrival to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Bytes released to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Tokens released, estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<u64>,
    /// Sources asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Text>,
    /// Redactions by category.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redactions: BTreeMap<Text, u64>,
    /// What was seen in the untrusted text of the answer: `hidden_characters` that were taken out, `texts_like_instructions`
    /// that are still in it and pointed out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signs: BTreeMap<Text, u64>,
    /// Trace the call belongs to, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Text>,
    /// For the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
    /// What the log says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Box<ChainMark>>,
}

/// Keeps at most [`TEXT`] characters and says how many were cut.
fn bounded(text: impl Into<Text>) -> Text {
    let text = text.into();
    if text.len() <= TEXT {
        return text;
    }
    match text.char_indices().nth(TEXT) {
        None => text,
        Some((end, _)) => Cow::Owned(format!("{}…[{} more bytes]", &text[..end], text.len() - end)),
    }
}

impl AuditEvent {
    /// An event of which nothing is known but its kind.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            principal: None,
            about: None,
            credential: None,
            key: None,
            tenant: None,
            transport: None,
            client: None,
            via: None,
            claimed: None,
            session: None,
            method: None,
            tool: None,
            target: None,
            intent: None,
            parameters: None,
            decision: None,
            rule: None,
            code: None,
            count: None,
            latency_us: None,
            bytes_out: None,
            tokens_out: None,
            sources: Vec::new(),
            redactions: BTreeMap::new(),
            signs: BTreeMap::new(),
            trace_id: None,
            note: None,
            chain: None,
        }
    }

    /// Who acted, how it was proven and whose data it may see.
    #[must_use]
    pub fn principal(mut self, principal: &Principal) -> Self {
        self.principal = Some(principal.id.clone());
        self.tenant = Some(principal.tenant.clone());
        self.credential = Some(Cow::Borrowed(match &principal.credential {
            CredentialKind::Local => "local",
            CredentialKind::ApiKey { id } => {
                self.key = Some(id.clone());
                "api_key"
            }
            CredentialKind::Password { .. } => "password",
            CredentialKind::Token { .. } => "token",
            CredentialKind::Certificate { .. } => "certificate",
            CredentialKind::Anonymous => "anonymous",
        }));
        self
    }

    /// Who acted where there is only an id, such as a charter's.
    #[must_use]
    pub fn principal_id(mut self, id: PrincipalId) -> Self {
        self.principal = Some(id);
        self
    }

    /// Whom it is about, where that is not who acted.
    #[must_use]
    pub fn about(mut self, id: PrincipalId) -> Self {
        self.about = Some(id);
        self
    }

    /// What it is about besides a tool. Never a person: this can not be erased.
    #[must_use]
    pub fn target(mut self, target: impl Into<Cow<'static, str>>) -> Self {
        self.target = Some(bounded(target));
        self
    }

    /// Where the record stands that was written before this call was made.
    #[must_use]
    pub fn intent(mut self, place: impl Into<Cow<'static, str>>) -> Self {
        self.intent = Some(bounded(place));
        self
    }

    /// The key the event is about.
    #[must_use]
    pub fn key(mut self, key: KeyId) -> Self {
        self.key = Some(key);
        self
    }

    /// Whose data.
    #[must_use]
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// How it came in: `stdio`, `http`, `admin`, `otlp-http`, `otlp-grpc`.
    #[must_use]
    pub fn transport(mut self, transport: impl Into<Cow<'static, str>>) -> Self {
        self.transport = Some(bounded(transport));
        self
    }

    /// Where the request came from, where it is known.
    #[must_use]
    pub fn whence(mut self, whence: Option<&Whence>) -> Self {
        let Some(whence) = whence else { return self };
        self.client = Some(whence.client());
        self.via = whence.via().map(|via| bounded(via.to_owned()));
        self.claimed = whence.claimed().map(|claimed| bounded(claimed.to_owned()));
        self
    }

    /// Session of the older protocol eras.
    #[must_use]
    pub fn session(mut self, session: impl Into<Cow<'static, str>>) -> Self {
        self.session = Some(bounded(session));
        self
    }

    /// Method of the protocol.
    #[must_use]
    pub fn method(mut self, method: impl Into<Cow<'static, str>>) -> Self {
        self.method = Some(bounded(method));
        self
    }

    /// Tool, prompt or resource.
    #[must_use]
    pub fn tool(mut self, tool: impl Into<Cow<'static, str>>) -> Self {
        self.tool = Some(bounded(tool));
        self
    }

    /// Fingerprint of the arguments, from [`AuditLog::fingerprint`](crate::AuditLog::fingerprint).
    #[must_use]
    pub fn parameters(mut self, fingerprint: impl Into<Cow<'static, str>>) -> Self {
        self.parameters = Some(bounded(fingerprint));
        self
    }

    /// Whether it was let through, and by which rule.
    #[must_use]
    pub fn decided(mut self, decision: Decision, rule: impl Into<Cow<'static, str>>) -> Self {
        self.decision = Some(decision);
        self.rule = Some(bounded(rule));
        self
    }

    /// Code of the error, where there was one.
    #[must_use]
    pub fn code(mut self, code: Option<FaultCode>) -> Self {
        self.code = code;
        self
    }

    /// How many events the record stands for.
    #[must_use]
    pub fn count(mut self, events: u64) -> Self {
        self.count = Some(events);
        self
    }

    /// Microseconds from arrival to end.
    #[must_use]
    pub fn latency_us(mut self, micros: u64) -> Self {
        self.latency_us = Some(micros);
        self
    }

    /// Bytes released to the client.
    #[must_use]
    pub fn bytes_out(mut self, bytes: u64) -> Self {
        self.bytes_out = Some(bytes);
        self
    }

    /// Tokens released, estimated.
    #[must_use]
    pub fn tokens_out(mut self, tokens: u64) -> Self {
        self.tokens_out = Some(tokens);
        self
    }

    /// Sources asked. Beyond 64 the last entry says how many more there were.
    #[must_use]
    pub fn sources<S: Into<Cow<'static, str>>>(mut self, sources: impl IntoIterator<Item = S>) -> Self {
        let mut sources = sources.into_iter();
        self.sources = sources.by_ref().take(SOURCES).map(bounded).collect();
        let more = sources.count();
        if more > 0 {
            self.sources.push(Cow::Owned(format!("…[{more} more]")));
        }
        self
    }

    /// Redactions by category; counts of the same category are added, zeros left out.
    #[must_use]
    pub fn redactions<S: Into<Cow<'static, str>>>(mut self, counts: impl IntoIterator<Item = (S, u64)>) -> Self {
        for (category, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            *self.redactions.entry(bounded(category)).or_default() += count;
        }
        self
    }

    /// What was seen in untrusted text, by kind; zeros left out.
    #[must_use]
    pub fn signs<S: Into<Cow<'static, str>>>(mut self, counts: impl IntoIterator<Item = (S, u64)>) -> Self {
        for (kind, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            *self.signs.entry(bounded(kind)).or_default() += count;
        }
        self
    }

    /// Trace the call belongs to.
    #[must_use]
    pub fn trace_id(mut self, trace_id: impl Into<Cow<'static, str>>) -> Self {
        self.trace_id = Some(bounded(trace_id));
        self
    }

    /// For the operator. Never arguments or answers.
    #[must_use]
    pub fn note(mut self, note: impl Into<Cow<'static, str>>) -> Self {
        self.note = Some(bounded(note));
        self
    }

    /// The event as it goes into the log: persons sealed beside the hashed bytes.
    pub(crate) fn encode(&self, sealer: &Sealer) -> Result<Encoded, AuditError> {
        let failed = |e: serde_json::Error| AuditError::Encode(e.to_string());
        let mut hashed = Vec::with_capacity(512);
        serde_json::to_writer(&mut hashed, &Impersonal(self)).map_err(failed)?;
        let open = sealer.seal(self, &mut hashed).map_err(failed)?;
        Ok(Encoded { hashed, open })
    }

    pub(crate) fn mark(kind: EventKind, chain: ChainMark) -> Self {
        Self { chain: Some(Box::new(chain)), ..Self::new(kind) }
    }
}

/// Everything that is not sealed, in the order of the fields.
struct Impersonal<'a>(&'a AuditEvent);

impl Serialize for Impersonal<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &event.kind)?;
        macro_rules! known {
            ($($field:ident),*) => {$(
                if let Some(value) = &event.$field {
                    map.serialize_entry(stringify!($field), value)?;
                }
            )*};
        }
        known!(credential, tenant, transport, method, tool, target, intent, parameters, decision, rule, code);
        known!(count, latency_us, bytes_out, tokens_out);
        if !event.sources.is_empty() {
            map.serialize_entry("sources", &event.sources)?;
        }
        if !event.redactions.is_empty() {
            map.serialize_entry("redactions", &event.redactions)?;
        }
        if !event.signs.is_empty() {
            map.serialize_entry("signs", &event.signs)?;
        }
        known!(trace_id, chain);
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::Scope;

    #[test]
    fn what_is_not_known_is_absent_and_names_are_snake_case() {
        assert_eq!(serde_json::to_string(&AuditEvent::new(EventKind::Stop)).unwrap(), r#"{"kind":"stop"}"#);
        let tenant = TenantId::default_tenant();
        let principal = Principal {
            id: PrincipalId::new("key:abc").unwrap(),
            credential: CredentialKind::ApiKey { id: KeyId::new("abc").unwrap() },
            tenant: tenant.clone(),
            roles: [].into(),
            doors: [].into(),
            scope: Scope::tenant_wide(tenant),
        };
        let event = AuditEvent::new(EventKind::Refused)
            .principal(&principal)
            .decided(Decision::Deny, "write-gate")
            .code(Some(FaultCode::Forbidden))
            .bytes_out(0)
            .redactions([("email", 2), ("token", 0), ("email", 1)]);
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"refused","principal":"key:abc","credential":"api_key","key":"abc","tenant":"default","decision":"deny","rule":"write-gate","code":"forbidden","bytes_out":0,"redactions":{"email":3}}"#
        );
        assert_eq!(serde_json::from_str::<AuditEvent>(&text).unwrap(), event);
        assert_eq!(serde_json::from_str::<AuditEvent>(r#"{"kind":"newer"}"#).unwrap().kind, EventKind::Other);
    }

    #[test]
    fn what_is_hashed_and_what_is_sealed_are_together_the_whole_event() {
        let tenant = TenantId::default_tenant();
        let event = AuditEvent {
            session: Some("s-1".into()),
            via: Some("10.0.0.5".into()),
            claimed: Some("for=198.51.100.7".into()),
            ..AuditEvent::new(EventKind::Call)
                .principal_id(PrincipalId::new("user:anna").unwrap())
                .about(PrincipalId::new("user:ben").unwrap())
                .tenant(tenant)
                .key(KeyId::new("abc").unwrap())
                .whence(Some(&Whence::direct("192.0.2.7:1".parse().unwrap())))
                .transport("http")
                .method("tools/call")
                .tool("query_logs")
                .target("approval-1")
                .intent("audit-1/7")
                .parameters("00")
                .decided(Decision::Allow, "rule")
                .code(Some(FaultCode::Internal))
                .count(4)
                .latency_us(1)
                .bytes_out(2)
                .tokens_out(3)
                .sources(["a"])
                .redactions([("email", 1)])
                .signs([("texts_like_instructions", 1), ("hidden_characters", 0)])
                .trace_id("t")
                .note("n")
        };
        let encoded = event.encode(&Sealer::new().unwrap()).unwrap();
        let hashed = String::from_utf8(encoded.hashed).unwrap();
        for person in ["anna", "ben", "192.0.2.7", "s-1", "\"abc\"", "\"n\"", "10.0.0.5", "198.51.100.7"] {
            assert!(!hashed.contains(person), "{person} is in the hashed bytes: {hashed}");
        }
        let mut read: AuditEvent = serde_json::from_str(&hashed).unwrap();
        let open = String::from_utf8(encoded.open).unwrap();
        crate::seal::Opened::read(&open).unwrap().fill(&mut read).unwrap();
        assert_eq!(read, event);
    }

    #[test]
    fn kinds_are_called_what_they_are_written_as() {
        let kinds = [
            "intent",
            "call",
            "failed",
            "authentication",
            "approval",
            "erased",
            "checkpoint",
            "lockout",
            "other",
            "sink",
            "bypass",
        ];
        for name in kinds {
            let kind: EventKind = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(kind.as_str(), name);
        }
    }

    #[test]
    fn long_text_and_long_lists_say_what_was_cut() {
        let event = AuditEvent::new(EventKind::Call).tool("é".repeat(300)).sources((0..70).map(|n| n.to_string()));
        assert_eq!(event.tool.unwrap(), format!("{}…[88 more bytes]", "é".repeat(256)));
        assert_eq!(event.sources.last().unwrap(), "…[6 more]");
        assert_eq!(event.sources.len(), 65);
    }
}

//! What one record says. Built step by step; what is not known is absent, never zero or empty.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use portcullis_model::{CredentialKind, FaultCode, KeyId, Principal, PrincipalId, TenantId};
use serde::{Deserialize, Serialize};

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
    /// A tool was called and answered.
    Call,
    /// A call was refused by the gate.
    Refused,
    /// A call was allowed and failed.
    Failed,
    /// A resource, prompt, completion or listing was asked for.
    Lookup,
    /// A credential was presented and not accepted, or a session began.
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
}

/// One event, to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// What it is about.
    pub kind: EventKind,
    /// Who acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalId>,
    /// How it was proven: `local`, `api_key`, `password`, `token`, `certificate`, `anonymous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Text>,
    /// The API key, where one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// Whose data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// How it came in: `stdio`, `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Text>,
    /// Address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Session of the older protocol eras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Text>,
    /// Method of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// Tool, prompt or resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Text>,
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
            credential: None,
            key: None,
            tenant: None,
            transport: None,
            client: None,
            session: None,
            method: None,
            tool: None,
            parameters: None,
            decision: None,
            rule: None,
            code: None,
            latency_us: None,
            bytes_out: None,
            tokens_out: None,
            sources: Vec::new(),
            redactions: BTreeMap::new(),
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

    /// How it came in: `stdio`, `http`.
    #[must_use]
    pub fn transport(mut self, transport: impl Into<Cow<'static, str>>) -> Self {
        self.transport = Some(bounded(transport));
        self
    }

    /// Address of the client, where it is known.
    #[must_use]
    pub fn client(mut self, client: Option<SocketAddr>) -> Self {
        self.client = client;
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

    pub(crate) fn mark(kind: EventKind, chain: ChainMark) -> Self {
        Self { chain: Some(Box::new(chain)), ..Self::new(kind) }
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
    fn long_text_and_long_lists_say_what_was_cut() {
        let event = AuditEvent::new(EventKind::Call).tool("é".repeat(300)).sources((0..70).map(|n| n.to_string()));
        assert_eq!(event.tool.unwrap(), format!("{}…[88 more bytes]", "é".repeat(256)));
        assert_eq!(event.sources.last().unwrap(), "…[6 more]");
        assert_eq!(event.sources.len(), 65);
    }
}

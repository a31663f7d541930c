//! A conversation with an upstream in either era: the greeting, requests with what each era wants in them, lists in pages.
//! Guards that no revision is spoken that this house does not know, and that an upstream is told what its client can do and no
//! more. Must not decide who may call.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_policy::Permit;
use serde_json::{Map, Value, json};

use crate::definition::Definition;
use crate::line::{Ask, Call, Line, Proof};
use crate::protocol::FIXED;
use crate::questions::{May, NOT_PASSED_ON};
use crate::wire::{self, Incoming, Trouble};

/// The stateless revision.
pub(crate) const STATELESS: &str = "2026-07-28";
/// The session revisions, newest first.
const SESSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The revision that knows tasks as a part of the protocol; later it is an extension nobody here offers.
const TASKS: &str = SESSIONS[0];
/// Most pages of one list.
const PAGES: usize = 64;
/// Bytes in memory of one list, about, over all of its pages.
const LIST: usize = 64 << 20;
/// Which era is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2026-07-28: every request stands for itself.
    Stateless,
    /// What came before.
    Session,
}

/// A conversation.
pub(crate) struct Conversation {
    pub(crate) line: Line,
    pub(crate) era: Era,
    pub(crate) version: &'static str,
    capabilities: Value,
    protocol: OnceLock<Definition>,
    next: AtomicU64,
    /// Resources whose changes it was asked to announce.
    pub(crate) subscribed: Mutex<BTreeSet<String>>,
}

/// What kind of things are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Method that lists them.
    pub method: &'static str,
    /// Member of the result that holds them.
    pub member: &'static str,
    /// Capability that says they are there.
    pub capability: &'static str,
}

/// How a request is made.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// What the upstream may ask meanwhile.
    pub may: May,
    /// Headers that mirror arguments, for the stateless revision.
    pub headers: Vec<(String, String)>,
    /// The request whose progress is also that of this one.
    pub follows: Option<u64>,
}

impl Manner {
    /// With what may be asked meanwhile.
    pub(crate) fn of(may: May) -> Self {
        Self { may, ..Self::default() }
    }
}

/// A list, and whether more was there than may be looked at.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Value>,
    pub(crate) cut: bool,
}

impl Conversation {
    /// Greets an upstream that speaks the stateless revision.
    pub(crate) async fn discover(line: Line, permit: &Permit, proof: &Arc<Proof>, patience: Duration) -> Result<Self, Trouble> {
        let mut this = Self::new(line, Era::Stateless, STATELESS);
        if let Line::Http(http) = &this.line {
            http.agree(STATELESS);
        }
        let found = within(patience, this.ask(permit, proof, "server/discover", json!({}))).await?;
        let supported = found.get("supportedVersions").and_then(Value::as_array);
        if !supported.is_some_and(|versions| versions.iter().any(|v| v == STATELESS)) {
            return Err(said_to(proof, found.get("supportedVersions")));
        }
        this.capabilities = found.get("capabilities").cloned().unwrap_or_default();
        Ok(this)
    }

    /// Opens a session.
    pub(crate) async fn initialize(
        line: Line,
        permit: &Permit,
        proof: &Arc<Proof>,
        may: May,
        patience: Duration,
    ) -> Result<Self, Trouble> {
        let mut this = Self::new(line, Era::Session, SESSIONS[0]);
        let params = json!({"protocolVersion": SESSIONS[0], "capabilities": may.capabilities(), "clientInfo": client()});
        let greeted = within(patience, this.ask(permit, proof, "initialize", params)).await?;
        let chosen = greeted.get("protocolVersion").and_then(Value::as_str);
        this.version = SESSIONS
            .into_iter()
            .find(|known| chosen == Some(known))
            .ok_or_else(|| said_to(proof, greeted.get("protocolVersion")))?;
        if let Line::Http(http) = &this.line {
            http.agree(this.version);
        }
        this.capabilities = greeted.get("capabilities").cloned().unwrap_or_default();
        this.line.say(permit, proof, wire::notification("notifications/initialized", &json!({}))).await?;
        Ok(this)
    }

    fn new(line: Line, era: Era, version: &'static str) -> Self {
        Self {
            line,
            era,
            version,
            capabilities: Value::Null,
            protocol: OnceLock::new(),
            next: AtomicU64::new(1),
            subscribed: Mutex::default(),
        }
    }

    /// The revision that is spoken, as a definition.
    pub(crate) fn protocol(&self) -> &Definition {
        self.protocol.get_or_init(|| Definition::of_protocol(self.version))
    }

    /// Whether the upstream says that it has this.
    pub(crate) fn offers(&self, capability: &str) -> bool {
        self.capabilities.get(capability).is_some_and(Value::is_object)
    }

    /// Whether the upstream tells those who watch a resource when it changes.
    pub(crate) fn announces_resources(&self) -> bool {
        self.capabilities.pointer("/resources/subscribe").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether a call may be run as a task (2025-11-25).
    pub(crate) fn runs_tasks(&self) -> bool {
        self.version == TASKS && self.capabilities.pointer("/tasks/requests/tools/call").is_some_and(Value::is_object)
    }

    /// A number for a request whose answer nobody waits for.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a request.
    pub(crate) async fn call(
        &self,
        permit: &Permit,
        proof: &Arc<Proof>,
        method: &str,
        mut params: Value,
        manner: Manner,
    ) -> Result<Call, Trouble> {
        let Manner { may, mut headers, follows } = manner;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let nothing = Value::Null;
        let mut ask = Ask { id, method, params: &nothing, headers: Vec::new(), principal: permit.principal_id(), follows };
        let listens = ask.listens();
        let mut meta = Map::new();
        if listens {
            meta.insert("progressToken".into(), json!(id));
            if let Some(trace) = &permit.trace().traceparent {
                meta.insert("traceparent".into(), json!(&**trace));
            }
        }
        if self.era == Era::Stateless {
            meta.insert("io.modelcontextprotocol/protocolVersion".into(), json!(STATELESS));
            meta.insert("io.modelcontextprotocol/clientCapabilities".into(), may.capabilities());
            meta.insert("io.modelcontextprotocol/clientInfo".into(), client());
            if listens && self.offers("logging") {
                meta.insert("io.modelcontextprotocol/logLevel".into(), json!("info"));
            }
            headers.push(("mcp-method".into(), method.to_owned()));
            let named = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str);
            if let Some(name) = named.filter(|_| listens) {
                headers.push(("mcp-name".into(), header_text(name)));
            }
        } else {
            headers.clear();
        }
        if let Some(members) = params.as_object_mut().filter(|_| !meta.is_empty()) {
            members.insert("_meta".into(), Value::Object(meta));
        }
        (ask.params, ask.headers) = (&params, headers);
        self.line.open(permit, proof, ask).await
    }

    /// A request whose answer alone matters, to everybody: what a client presented changes nothing of it. Questions on the way
    /// are refused.
    pub(crate) async fn ask(&self, permit: &Permit, proof: &Arc<Proof>, method: &str, params: Value) -> Result<Value, Trouble> {
        let mut call = self.call(permit, proof, method, params, Manner::default()).await?;
        loop {
            match call.next().await? {
                Incoming::Answer { result: Ok(mut result), .. } => {
                    proof.of_house.value(&mut result, &FIXED);
                    return Ok(result);
                }
                Incoming::Answer { result: Err(refusal), .. } => {
                    return Err(Trouble::Refused(refusal).without(&proof.echoes));
                }
                Incoming::Request { id, .. } => {
                    self.line.say(permit, proof, wire::answer(&id, Err(NOT_PASSED_ON))).await?;
                }
                Incoming::Notification { .. } => {}
            }
        }
    }

    /// Everything of one kind, page after page, at most `most`.
    pub(crate) async fn list(
        &self,
        permit: &Permit,
        proof: &Arc<Proof>,
        listed: Listed,
        most: usize,
    ) -> Result<Entries, Trouble> {
        let (mut all, mut weight) = (Entries::default(), 0_usize);
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let mut page = match self.ask(permit, proof, listed.method, params).await {
                // Some servers announce a capability and know only a part of its methods.
                Err(Trouble::Refused(refusal)) if refusal.code == -32_601 && cursor.is_none() => return Ok(all),
                other => other?,
            };
            let Some(Value::Array(entries)) = page.get_mut(listed.member).map(Value::take) else {
                return Err(Trouble::Garbage(format!("a result of {} without {}", listed.method, listed.member)));
            };
            // What is short on the wire need not be small, and pages add up.
            weight = weight.saturating_add(entries.iter().map(wire::weight).sum());
            if weight > LIST {
                return Err(Trouble::TooLarge(format!("{LIST} bytes in one list of {}", listed.member)));
            }
            let room = most - all.entries.len();
            all.cut |= entries.len() > room;
            all.entries.extend(entries.into_iter().take(room));
            let next = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if next.is_none() || all.cut {
                return Ok(all);
            }
            if next == cursor {
                return Err(Trouble::Garbage(format!("a list of {} that leads to itself", listed.member)));
            }
            cursor = next;
        }
        all.cut = true;
        Ok(all)
    }
}

fn client() -> Value {
    json!({"name": "portcullis", "version": env!("CARGO_PKG_VERSION")})
}

/// That it speaks an unknown revision, without what was presented: that is taken out before anything is cut.
fn said_to(proof: &Proof, said: Option<&Value>) -> Trouble {
    let mut said = said.cloned().unwrap_or_default();
    proof.echoes.value(&mut said, &FIXED);
    unknown_version(Some(&said))
}

fn unknown_version(said: Option<&Value>) -> Trouble {
    let said = said.map(ToString::to_string).unwrap_or_default();
    let said: String = said.chars().filter(|c| portcullis_guard::is_seen(*c)).take(100).collect();
    Trouble::Garbage(format!("it speaks no revision this house knows: {said}"))
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_elapsed) => Err(Trouble::Slow(portcullis_model::format_duration(patience))),
    }
}

/// A text as a header carries it (SEP-2243): visible ASCII as it is, everything else in base64.
pub(crate) fn header_text(text: &str) -> String {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b)) && text.trim() == text && !text.starts_with("=?");
    if plain && !text.is_empty() { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

/// Arguments that the tool's schema wants mirrored into headers (`x-mcp-header`).
pub(crate) fn mirrored(schema: &Value, arguments: &Map<String, Value>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    mirror(schema, arguments, 0, &mut found);
    found
}

fn mirror(schema: &Value, arguments: &Map<String, Value>, depth: usize, found: &mut Vec<(String, String)>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|_| depth < 16) else { return };
    for (name, property) in properties {
        let Some(given) = arguments.get(name) else { continue };
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
            let text = match given {
                Value::String(text) => header_text(text),
                Value::Bool(_) | Value::Number(_) => given.to_string(),
                _ => continue,
            };
            found.push((format!("mcp-param-{header}"), text));
        } else if let Value::Object(inside) = given {
            mirror(property, inside, depth + 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_unknown_revision_hides_is_not_repeated() {
        let said = unknown_version(Some(&json!("20\u{202e}\u{200b}9\n9\u{2066}"))).to_string();
        assert!(said.contains("20") && said.chars().all(portcullis_guard::is_seen), "{said:?}");
    }

    #[test]
    fn headers_carry_any_text() {
        for (text, header) in [
            ("echo", "echo"),
            ("a b", "a b"),
            (" a", "=?base64?IGE=?="),
            ("é", "=?base64?w6k=?="),
            ("", "=?base64??="),
            ("=?x", "=?base64?PT94?="),
            ("a\nb", "=?base64?YQpi?="),
        ] {
            assert_eq!(header_text(text), header);
        }
    }

    #[test]
    fn arguments_are_mirrored_where_the_schema_wants_it() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "list": {"type": "array", "x-mcp-header": "L"}, "absent": {"x-mcp-header": "A"}, "plain": {}}});
        let arguments = json!({"region": "eu", "deep": {"n": 5}, "list": [1], "plain": "x"});
        let found = mirrored(&schema, arguments.as_object().unwrap());
        assert_eq!(found, [("mcp-param-Region".into(), "eu".into()), ("mcp-param-N".to_owned(), "5".to_owned())]);
    }
}

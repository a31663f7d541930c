//! Approvals: a person's yes to one call. Bound by hash to the principal with its tenant and product, to the tool as it was
//! defined, to the exact arguments and to whether the answer goes out unredacted; it ends, and it is good for one call. What is
//! asked is never let through meanwhile: without a yes the call is refused.
//!
//! The yes comes from the user of the client (MCP elicitation) or from an operator (`portcullis approvals grant`).

use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Clock, Fault, FaultCode, PrincipalId, RiskClass, TenantId, Timestamp};
use portcullis_ports::{Answers, InputRequest};
use portcullis_state::{Entry, Namespace, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::steps::MayAsk;

const NAMESPACE: Namespace = "gateway.approvals.v2";
/// Key of the question in an elicitation.
const QUESTION: &str = "approval";
/// Member of the travelling state that says a person agreed; the rest of the state is the tool's.
const APPROVED: &str = "portcullis/approved";
/// Member of the travelling state that holds what the tool itself wants back.
const INNER: &str = "portcullis/state";
/// Tries to change a record that others change at the same time.
const ATTEMPTS: usize = 8;
/// Longest rendering of the arguments in a question to the user of a client, in characters. What is longer nobody is asked
/// about in a form: an operator looks at all of it.
const ASKED: usize = 2_000;
/// Longest rendering kept for an operator, in characters; of a longer one the beginning and the end, and how much is between.
const SUMMARY: usize = 131_072;
/// Longest rendering of what would change in a question; nobody is asked in a form about a longer one, or about one that leaves
/// something out.
const PREVIEW_ASKED: usize = 2_000;
/// Longest rendering of what would change that is kept for an operator; together with the arguments it fits a record.
const PREVIEW: usize = 32_768;

/// How approvals work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalSettings {
    /// How long a request, and a yes to it, is good.
    pub lifetime: Duration,
    /// Whether the user of a client that can show forms may say yes.
    pub elicitation: bool,
    /// Whether the operator who says yes must be another principal than the one who asks.
    pub four_eyes: bool,
}

impl Default for ApprovalSettings {
    fn default() -> Self {
        Self { lifetime: Duration::from_mins(15), elicitation: true, four_eyes: true }
    }
}

/// How a request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum ApprovalState {
    /// Nobody has decided.
    Pending,
    /// Somebody said yes; good for one call.
    Granted {
        /// Who.
        by: PrincipalId,
        /// When.
        at: Timestamp,
    },
    /// Somebody said no.
    Denied {
        /// Who.
        by: PrincipalId,
        /// When.
        at: Timestamp,
    },
    /// The call was made.
    Used {
        /// Who had said yes.
        by: PrincipalId,
        /// When it was used.
        at: Timestamp,
    },
}

/// One request for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRecord {
    /// Names it; derived from what it is bound to.
    pub id: String,
    /// Who wants to call.
    pub principal: PrincipalId,
    /// Whose data it sees.
    pub tenant: TenantId,
    /// The product the call came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The tool.
    pub tool: String,
    /// What the tool can do at worst.
    pub risk: RiskClass,
    /// Whose tool it is: `portcullis`, or the upstream, plugin or described API it came from.
    pub origin: String,
    /// BLAKE3 of the tool's definition (name, texts, risk, schema, origin), hexadecimal.
    pub definition: String,
    /// Whether the answer is wanted without redaction.
    pub unredacted: bool,
    /// BLAKE3 of all of this and the arguments, hexadecimal.
    pub binding: String,
    /// The arguments, redacted, for the person who decides. What is too long for a record has its middle left out, and says
    /// how much that is.
    pub summary: String,
    /// What would be sent and what would change, as it was when it was asked, redacted; absent where the tool cannot tell. What
    /// is too long for a record has its middle left out, and says how much that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// When it was asked.
    pub requested_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: ApprovalState,
}

/// What can go wrong with approvals.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// The caller's: no such request.
    #[error("there is no approval request '{0}', or it has expired; 'portcullis approvals list' shows them")]
    NotFound(String),
    /// The caller's: it was decided before.
    #[error("approval request '{id}' is already {state}")]
    Decided {
        /// The request.
        id: String,
        /// `granted`, `denied` or `used`.
        state: &'static str,
    },
    /// The caller's: nobody approves their own call.
    #[error("'{0}' asked for this call and cannot approve it; another person has to (approvals.four_eyes)")]
    OwnRequest(PrincipalId),
    /// The operator's: the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator's: a record that cannot be read.
    #[error("an approval record cannot be read: {0}")]
    Unreadable(String),
    /// Others changed the record at every attempt.
    #[error("approval request '{0}' is being changed by another process; try again")]
    Contended(String),
}

/// What a call is approved by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Yes {
    /// The user of the client.
    Client,
    /// An operator, by the named request.
    Operator { id: String, by: PrincipalId },
}

/// Where a call that needs approval stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It may run.
    Approved(Yes),
    /// The user of the client is to be asked.
    Ask { requests: Vec<(String, InputRequest)>, state: Value },
    /// An operator is to be asked; a request lies ready.
    Pending { id: String },
    /// Somebody said no.
    Refused { by: String },
}

/// The call that is to be approved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub principal: &'a PrincipalId,
    pub tenant: &'a TenantId,
    pub product: Option<&'a str>,
    pub tool: &'a str,
    pub risk: RiskClass,
    /// Whose tool it is.
    pub origin: &'a str,
    /// Digest of what the tool is.
    pub definition: &'a str,
    pub unredacted: bool,
    pub arguments: &'a Map<String, Value>,
    /// Redacted rendering of the arguments.
    pub summary: &'a str,
    /// What would change, where the tool can tell.
    pub preview: Option<Shown<'a>>,
}

/// What a person is shown of the change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Redacted.
    pub text: &'a str,
    /// Whether nothing was left out already.
    pub whole: bool,
}

impl Shown<'_> {
    /// Whether a form shows all of it.
    fn fits_form(self) -> bool {
        self.whole && self.text.chars().count() <= PREVIEW_ASKED
    }
}

/// The book of approvals.
#[derive(Debug, Clone)]
pub struct Approvals {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: ApprovalSettings,
}

impl Approvals {
    /// Kept in `store`, shared with every process that shares it.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: ApprovalSettings) -> Self {
        Self { store, clock, settings }
    }

    /// The settings in force.
    pub fn settings(&self) -> ApprovalSettings {
        self.settings
    }

    /// Requests that have not ended, newest first.
    ///
    /// # Errors
    /// When the store fails or a record cannot be read.
    pub async fn list(&self) -> Result<Vec<ApprovalRecord>, ApprovalError> {
        let mut records = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let listing = self.store.list_after(NAMESPACE, "", after.as_deref(), 500).await?;
            for entry in &listing.entries {
                records.push(read(entry)?);
            }
            after = listing.entries.last().map(|e| e.key.clone());
            if !listing.more || after.is_none() {
                break;
            }
        }
        records.sort_by_key(|r: &ApprovalRecord| std::cmp::Reverse(r.requested_at.as_nanos()));
        Ok(records)
    }

    /// One request, where it has not ended.
    ///
    /// # Errors
    /// When there is none, the store fails or the record cannot be read.
    pub async fn get(&self, id: &str) -> Result<ApprovalRecord, ApprovalError> {
        read(&self.entry(id).await?.ok_or_else(|| ApprovalError::NotFound(id.to_owned()))?)
    }

    /// Says yes to a pending request.
    ///
    /// # Errors
    /// When there is none, it was decided, or `by` asked for it.
    pub async fn grant(&self, id: &str, by: &PrincipalId) -> Result<ApprovalRecord, ApprovalError> {
        let at = self.clock.now();
        self.decide(id, by, ApprovalState::Granted { by: by.clone(), at }).await
    }

    /// Says no to a pending request.
    ///
    /// # Errors
    /// As [`Approvals::grant`].
    pub async fn deny(&self, id: &str, by: &PrincipalId) -> Result<ApprovalRecord, ApprovalError> {
        let at = self.clock.now();
        self.decide(id, by, ApprovalState::Denied { by: by.clone(), at }).await
    }

    async fn decide(&self, id: &str, by: &PrincipalId, state: ApprovalState) -> Result<ApprovalRecord, ApprovalError> {
        for _ in 0..ATTEMPTS {
            let entry = self.entry(id).await?.ok_or_else(|| ApprovalError::NotFound(id.to_owned()))?;
            let mut record = read(&entry)?;
            let decided = |state| ApprovalError::Decided { id: id.to_owned(), state };
            match record.state {
                ApprovalState::Pending => {}
                ApprovalState::Granted { .. } => return Err(decided("granted")),
                ApprovalState::Denied { .. } => return Err(decided("denied")),
                ApprovalState::Used { .. } => return Err(decided("used")),
            }
            if self.settings.four_eyes && *by == record.principal {
                return Err(ApprovalError::OwnRequest(by.clone()));
            }
            record.state = state.clone();
            if self.swap(&entry, &record).await? {
                return Ok(record);
            }
        }
        Err(ApprovalError::Contended(id.to_owned()))
    }

    /// Where this call stands, if that is settled: by an answer, an operator's word, or a request that lies ready already. A
    /// yes of an operator is used up by this.
    pub(crate) async fn settled(
        &self,
        subject: &Subject<'_>,
        answers: Option<&Answers>,
        can_ask: bool,
    ) -> Result<Option<Standing>, ApprovalError> {
        let binding = binding(subject);
        if let Some(answers) = answers
            && let Some(standing) = answered(answers, &binding, self.clock.now())
        {
            return Ok(Some(standing));
        }
        if let Some(standing) = self.redeem(&binding).await? {
            return Ok(Some(standing));
        }
        if self.asks_user(subject, can_ask) {
            return Ok(None);
        }
        let id = id_of(&binding);
        let Some(entry) = self.entry(&id).await? else { return Ok(None) };
        let record = read(&entry)?;
        Ok((record.binding == binding && record.state == ApprovalState::Pending).then_some(Standing::Pending { id }))
    }

    /// Whether the user of the client decides: only about arguments and changes that a form shows whole.
    fn asks_user(&self, subject: &Subject<'_>, can_ask: bool) -> bool {
        let fits = subject.summary.chars().count() <= ASKED && subject.preview.is_none_or(Shown::fits_form);
        can_ask && self.settings.elicitation && fits
    }

    /// Asks the user of the client, or lays a request ready for an operator.
    pub(crate) async fn ask(&self, subject: Subject<'_>, can_ask: bool) -> Result<Standing, ApprovalError> {
        let binding = binding(&subject);
        if self.asks_user(&subject, can_ask) {
            let until = self.clock.now().plus(self.settings.lifetime).as_nanos();
            let state = json!({APPROVED: {"asked": binding, "until": until}});
            return Ok(Standing::Ask { requests: vec![(QUESTION.to_owned(), question(&subject))], state });
        }
        self.request(&subject, &binding).await.map(|id| Standing::Pending { id })
    }

    /// Uses an operator's yes, or tells of a no.
    async fn redeem(&self, binding: &str) -> Result<Option<Standing>, ApprovalError> {
        let id = id_of(binding);
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.entry(&id).await? else { return Ok(None) };
            let mut record = read(&entry)?;
            if record.binding != binding {
                return Ok(None);
            }
            match record.state.clone() {
                ApprovalState::Pending | ApprovalState::Used { .. } => return Ok(None),
                ApprovalState::Denied { by, .. } => return Ok(Some(Standing::Refused { by: by.to_string() })),
                ApprovalState::Granted { by, .. } => {
                    record.state = ApprovalState::Used { by: by.clone(), at: self.clock.now() };
                    if self.swap(&entry, &record).await? {
                        return Ok(Some(Standing::Approved(Yes::Operator { id, by })));
                    }
                }
            }
        }
        Err(ApprovalError::Contended(id))
    }

    /// Lays a request ready for an operator; one that lies there already is kept.
    async fn request(&self, subject: &Subject<'_>, binding: &str) -> Result<String, ApprovalError> {
        let id = id_of(binding);
        let now = self.clock.now();
        let record = ApprovalRecord {
            id: id.clone(),
            principal: subject.principal.clone(),
            tenant: subject.tenant.clone(),
            product: subject.product.map(str::to_owned),
            tool: subject.tool.to_owned(),
            risk: subject.risk,
            origin: subject.origin.to_owned(),
            definition: subject.definition.to_owned(),
            unredacted: subject.unredacted,
            binding: binding.to_owned(),
            summary: abridged(subject.summary, SUMMARY),
            preview: subject.preview.map(|shown| abridged(shown.text, PREVIEW)),
            requested_at: now,
            expires_at: now.plus(self.settings.lifetime),
            state: ApprovalState::Pending,
        };
        for _ in 0..ATTEMPTS {
            let written = match self.entry(&id).await? {
                None => {
                    let value = encode(&record)?;
                    self.store.put_if_absent(NAMESPACE, &id, &value, Some(record.expires_at)).await?.is_some()
                }
                Some(entry) => match read(&entry)?.state {
                    ApprovalState::Pending => return Ok(id),
                    _ => self.swap(&entry, &record).await?,
                },
            };
            if written {
                return Ok(id);
            }
        }
        Err(ApprovalError::Contended(id))
    }

    async fn entry(&self, id: &str) -> Result<Option<Entry>, ApprovalError> {
        // Ids are ours; anything else is simply not there.
        if id.len() != ID_LENGTH || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        Ok(self.store.get(NAMESPACE, id).await?)
    }

    async fn swap(&self, entry: &Entry, record: &ApprovalRecord) -> Result<bool, ApprovalError> {
        let value = encode(record)?;
        let swapped = self.store.compare_and_swap(NAMESPACE, &entry.key, entry.version, &value, Some(record.expires_at)).await?;
        Ok(swapped.is_some())
    }
}

/// Takes our part off the travelling state and leaves the tool's own; says whether a person agreed in an earlier round.
pub(crate) fn unwrap_state(answers: Option<Answers>) -> Option<Answers> {
    let mut answers = answers?;
    answers.responses.remove(QUESTION);
    if let Some(Value::Object(state)) = &mut answers.state
        && state.contains_key(APPROVED)
    {
        let inner = state.remove(INNER);
        answers.state = inner;
    }
    (answers.state.is_some() || !answers.responses.is_empty()).then_some(answers)
}

/// The tool's own part of a state.
pub(crate) fn inner_state(state: &Value) -> Option<&Value> {
    match state.as_object() {
        Some(members) if members.contains_key(APPROVED) => members.get(INNER),
        _ => Some(state),
    }
}

/// An approved tool's outcome, with our part around what it wants back.
pub(crate) fn carried<T: MayAsk>(binding: &str, outcome: T) -> T {
    outcome.with_state(|state| wrap_state(binding, state))
}

/// Puts our part around what an approved tool wants back in a further round.
fn wrap_state(binding: &str, state: Option<Value>) -> Value {
    let mut wrapped = Map::new();
    wrapped.insert(APPROVED.to_owned(), json!({"agreed": binding}));
    if let Some(state) = state {
        wrapped.insert(INNER.to_owned(), state);
    }
    Value::Object(wrapped)
}

/// What the answers of an earlier round say about the approval of exactly this call. An answer that came too late says nothing:
/// it is asked anew.
fn answered(answers: &Answers, binding: &str, now: Timestamp) -> Option<Standing> {
    let ours = answers.state.as_ref()?.get(APPROVED)?;
    if ours.get("agreed").and_then(Value::as_str) == Some(binding) {
        return Some(Standing::Approved(Yes::Client));
    }
    if ours.get("asked").and_then(Value::as_str) != Some(binding) {
        return None;
    }
    ours.get("until").and_then(Value::as_i64).filter(|until| now.as_nanos() < *until)?;
    let answer = answers.responses.get(QUESTION)?;
    let accepted = answer.get("action").and_then(Value::as_str) == Some("accept");
    let agreed = answer.get("content").and_then(|c| c.get("approve")).and_then(Value::as_bool) == Some(true);
    Some(if accepted && agreed { Standing::Approved(Yes::Client) } else { Standing::Refused { by: "the user".into() } })
}

/// A text, or its beginning and its end with the number of characters between them.
fn abridged(text: &str, longest: usize) -> String {
    let length = text.chars().count();
    if length <= longest {
        return text.to_owned();
    }
    let tail = longest / 4;
    let head = longest - tail;
    let begins: String = text.chars().take(head).collect();
    let ends: String = text.chars().skip(length - tail).collect();
    format!("{begins} [… {} more characters …] {ends}", length - longest)
}

/// Only for arguments and changes that fit: a person says yes to what is seen.
fn question(subject: &Subject<'_>) -> InputRequest {
    let preview = subject.preview.map_or_else(String::new, |shown| format!("\n\n{}", shown.text));
    let through = subject.product.map(|product| format!(" through product {product}")).unwrap_or_default();
    let bare = if subject.unredacted { ", and wants the answer without redaction" } else { "" };
    let digest: String = subject.definition.chars().take(ID_LENGTH).collect();
    InputRequest {
        method: "elicitation/create".into(),
        params: json!({
            "mode": "form",
            "message": format!(
                "{} of tenant {}{through} wants to call {} ({}, of {}, definition {digest}) with {}{bare}. This needs your \
                  approval and is good for this call only.{preview}",
                subject.principal, subject.tenant, subject.tool, subject.risk.as_str(), subject.origin, subject.summary
            ),
            "requestedSchema": {
                "type": "object",
                "properties": {"approve": {"type": "boolean", "title": "Approve this call", "default": false}},
                "required": ["approve"]
            }
        }),
    }
}

/// The refusal of a call nobody has approved yet.
pub(crate) fn pending(id: &str, lifetime: Duration) -> Fault {
    Fault::new(FaultCode::Forbidden, format!("pending approval {id}: this call needs the approval of an operator"))
        .with_hint(format!(
            "ask an operator to run `portcullis approvals grant {id}`, then send the same call with the same arguments within {} minutes",
            lifetime.as_secs() / 60
        ))
}

/// The refusal of a call somebody said no to.
pub(crate) fn refused(by: &str) -> Fault {
    Fault::new(FaultCode::Forbidden, "this call was not approved").with_internal(format!("denied by {by}"))
}

const ID_LENGTH: usize = 12;

fn id_of(binding: &str) -> String {
    binding.chars().take(ID_LENGTH).collect()
}

/// BLAKE3 over who asks, what is called and how, and the arguments with their members in order of name, so that the order a
/// client chose does not matter and nothing else does not.
pub(crate) fn binding(subject: &Subject<'_>) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("portcullis 2026-11-29 approval binding v2");
    let product = subject.product.map(|product| format!("product {product}")).unwrap_or_default();
    for part in [
        subject.principal.as_str(),
        subject.tenant.as_str(),
        &product,
        subject.tool,
        subject.definition,
        if subject.unredacted { "unredacted" } else { "" },
        &canonical(&Value::Object(subject.arguments.clone())),
    ] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            let inner: Vec<String> =
                members.into_iter().map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value))).collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

fn encode(record: &ApprovalRecord) -> Result<Vec<u8>, ApprovalError> {
    serde_json::to_vec(record).map_err(|e| ApprovalError::Unreadable(e.to_string()))
}

fn read(entry: &Entry) -> Result<ApprovalRecord, ApprovalError> {
    serde_json::from_slice(&entry.value).map_err(|e| ApprovalError::Unreadable(e.to_string()))
}

#[cfg(test)]
mod tests;

//! What commands and the admin API do alike: one code for both, so that neither can do it differently. Each takes in whose
//! name it is done, and records it.
//!
//! Must not ask whether somebody may: the command line is the local user's, and the API asks the gate first.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use portcullis_audit::{AuditEvent, AuditFilter, Decision, EventKind, Outcome, Record, Unreadable, query};
use portcullis_gateway::{ApprovalError, ApprovalRecord, Approvals};
use portcullis_identity::{KeyError, KeyRecord, KeyRing};
use portcullis_model::{Clock, FaultCode, KeyId, Principal, SystemClock, Timestamp, parse_instant};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{FilterArgs, OutcomeArg};
use crate::house::{Foundations, House};

/// Says yes or no to a request for approval. That it is about to be said is recorded before, and how it ended after: what
/// was refused leaves no record of a yes.
pub async fn decide_approval(
    foundations: &Foundations,
    book: &Approvals,
    who: &Principal,
    id: &str,
    granted: bool,
) -> anyhow::Result<ApprovalRecord> {
    let (decision, method) = if granted { (Decision::Allow, "approval.grant") } else { (Decision::Deny, "approval.deny") };
    let event = |method: &'static str| AuditEvent::new(EventKind::Approval).principal(who).method(method);
    let intent = event("approval.intent").note(format!("{id}: {method}"));
    foundations.audit.append(intent).context("the decision cannot be recorded, so it is not made")?;
    match if granted { book.grant(id, &who.id).await } else { book.deny(id, &who.id).await } {
        Ok(record) => {
            let made = event(method).about(record.principal.clone()).decided(decision, "operator").note(id.to_owned());
            foundations.audit.append(made).context("the decision is made, and its record could not be written")?;
            Ok(record)
        }
        Err(error) => {
            let (rule, code) = why_not(&error);
            let refused = event(method).decided(Decision::Deny, rule).code(Some(code)).note(format!("{id}: {error}"));
            foundations.audit.append(refused).context("the decision was refused, and its record could not be written")?;
            Err(error.into())
        }
    }
}

/// The rule and the code under which a decision that was not made is recorded.
fn why_not(error: &ApprovalError) -> (&'static str, FaultCode) {
    match error {
        ApprovalError::OwnRequest(_) => ("four-eyes", FaultCode::Forbidden),
        ApprovalError::NotFound(_) => ("approval-unknown", FaultCode::NotFound),
        ApprovalError::Decided { .. } => ("approval-decided", FaultCode::InvalidArgument),
        ApprovalError::Store(_) | ApprovalError::Unreadable(_) | ApprovalError::Contended(_) => {
            ("approval-book", FaultCode::Unavailable)
        }
    }
}

/// A key that is taken back, with nothing written down about it.
#[derive(Debug)]
pub struct RevokedUnrecorded(pub String);

impl std::fmt::Display for RevokedUnrecorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key '{}' is revoked, and that could not be recorded", self.0)
    }
}

/// Makes a key or gives one a new secret, which is `work`. That it is about to be done is recorded before, and how it ended
/// after: what cannot be recorded is not done, and a new key whose record fails is taken back.
pub async fn change_key<T>(
    foundations: &Foundations,
    who: &Principal,
    method: &'static str,
    work: impl Future<Output = Result<T, KeyError>>,
    id: impl Fn(&T) -> &KeyId,
) -> anyhow::Result<T> {
    let event = |method: &'static str| AuditEvent::new(EventKind::Key).principal(who).method(method);
    let intent = event("key.intent").note(method);
    foundations.audit.append(intent).context("it cannot be recorded, so it is not done")?;
    match work.await {
        Ok(done) => match foundations.audit_key_by(who, method, id(&done)) {
            Ok(()) => Ok(done),
            Err(error) => {
                let id = id(&done);
                let now = if method == "key.rotate" {
                    "it has a new secret that nobody was told: rotate it again".to_owned()
                } else {
                    let undone = foundations.keys.revoke(id.as_str()).await;
                    undone.map_or_else(|error| format!("it is in force: revoke it ({error})"), |_| "it was taken back".to_owned())
                };
                Err(error.context(format!("the record of key {id} could not be written; {now}")))
            }
        },
        Err(error) => {
            let refused = event(method).decided(Decision::Deny, "key-request").note(error.to_string());
            foundations.audit.append(refused).context("it was not done, and the record of that could not be written")?;
            Err(error.into())
        }
    }
}

/// Takes a key back; nothing when its record could not be read and was removed. It waits for nothing: where it cannot be
/// recorded it is done all the same, and said ([`RevokedUnrecorded`]).
pub async fn revoke_key(foundations: &Foundations, who: &Principal, id: &str) -> anyhow::Result<Option<KeyRecord>> {
    let revoked = foundations.keys.revoke(id).await?;
    let recorded = if let Some(record) = &revoked {
        foundations.audit_key_by(who, "key.revoke", &record.id)
    } else {
        // What it was called is all that is known of it.
        let event = AuditEvent::new(EventKind::Key).principal(who).method("key.remove").target(id.to_owned());
        foundations.audit.append(event.note("its record could not be read")).map(drop).map_err(anyhow::Error::from)
    };
    recorded.map_err(|error| {
        tracing::error!(%error, key = id, by = %who.id, "a key was revoked, and that could not be recorded");
        error.context(RevokedUnrecorded(id.to_owned()))
    })?;
    Ok(revoked)
}

/// Every key with when it was last used.
pub async fn keys(keys: &KeyRing) -> anyhow::Result<Vec<(KeyRecord, Option<Timestamp>)>> {
    let mut listed = Vec::new();
    for record in keys.list().await? {
        let used = keys.last_used(&record.id).await?;
        listed.push((record, used));
    }
    Ok(listed)
}

/// A key with what follows from its record, for JSON.
pub fn described_key(record: &KeyRecord, used: Option<Timestamp>, now: Timestamp) -> anyhow::Result<Value> {
    let value = serde_json::to_value(record)?;
    let value = with_member(value, "status", serde_json::to_value(record.status(now))?);
    let value = with_member(value, "rotate_now", json!(record.is_aging(now)));
    Ok(with_member(value, "last_used_at", json!(used.map(|at| at.to_string()))))
}

/// A JSON object with one member more.
pub fn with_member(mut value: Value, name: &str, member: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.to_owned(), member);
    }
    value
}

/// One source and how it is.
#[derive(Debug, Serialize)]
pub struct SourceReport {
    /// Name.
    pub name: String,
    /// Kind of backend.
    pub kind: &'static str,
    /// What it can answer.
    pub signals: Vec<&'static str>,
    /// Whether it answers.
    pub up: bool,
    /// Version, where it says.
    pub version: Option<String>,
    /// What it says besides.
    pub message: Option<String>,
    /// Milliseconds it took to answer.
    pub latency_ms: u64,
}

/// Asks every source how it is. What they say is theirs: not yet redacted.
pub async fn sources(house: &House) -> Vec<SourceReport> {
    let mut reports = Vec::new();
    for source in house.sources.all().iter() {
        let health = source.health(&house.health.permit()).await;
        reports.push(SourceReport {
            name: source.name().to_string(),
            kind: source.kind(),
            signals: source.capabilities().iter().map(|signal| signal.as_str()).collect(),
            up: health.up,
            version: health.version,
            message: health.message,
            latency_ms: u64::try_from(health.latency.as_millis()).unwrap_or(u64::MAX),
        });
    }
    reports
}

/// Kinds of audit records that can be asked for.
pub const KINDS: &str = "intent, call, refused, failed, lookup, admin, authentication, key, config, start, stop, ingest, \
    charter, approval, policy, secret, plugin, upstream, bypass, lockout, error, sink, retention, erased, checkpoint, opened, \
    continued, recovered, closed";

/// Which audit records, from the words of a person.
pub fn audit_filter(args: &FilterArgs) -> anyhow::Result<AuditFilter> {
    let now = SystemClock.now();
    // `1h` reads as well as `now-1h` when one thinks of the past.
    let instant =
        |text: &str| parse_instant(text, now).or_else(|error| parse_instant(&format!("now-{text}"), now).map_err(|_| error));
    let named = |name: &str, what: &str, all: &str| -> anyhow::Result<Value> {
        let value = Value::String(name.to_owned());
        if all.split(", ").any(|one| one == name) { Ok(value) } else { bail!("there is no {what} '{name}'; there are {all}") }
    };
    let kinds =
        args.kind.iter().map(|kind| Ok(serde_json::from_value(named(kind, "kind", KINDS)?)?)).collect::<anyhow::Result<_>>()?;
    let codes = portcullis_model::FaultCode::ALL.map(portcullis_model::FaultCode::as_str).join(", ");
    let code = args.code.as_deref().map(|code| named(code, "code", &codes)).transpose()?;
    let decision = args.decision.as_deref().map(|decision| named(decision, "decision", "allow, deny")).transpose()?;
    Ok(AuditFilter {
        since: args.since.as_deref().map(instant).transpose().context("--since")?,
        until: args.until.as_deref().map(instant).transpose().context("--until")?,
        kinds,
        principal: args.principal.clone(),
        tenant: args.tenant.clone(),
        tool: args.tool.clone(),
        session: args.session.clone(),
        decision: decision.map(serde_json::from_value).transpose()?,
        code: code.map(serde_json::from_value).transpose()?,
        outcome: args.outcome.map(|outcome| match outcome {
            OutcomeArg::Begun => Outcome::Begun,
            OutcomeArg::Ok => Outcome::Ok,
            OutcomeArg::Failed => Outcome::Failed,
            OutcomeArg::Refused => Outcome::Refused,
        }),
        text: args.text.clone(),
    })
}

/// A page of audit records.
#[derive(Debug, Default)]
pub struct AuditPage {
    /// Oldest first.
    pub records: Vec<Record>,
    /// What could not be read on the way.
    pub unreadable: Vec<Unreadable>,
    /// Whether there are more records that fit.
    pub more: bool,
}

impl AuditPage {
    /// Where to go on, when there is more.
    pub fn cursor(&self) -> Option<String> {
        self.records.last().filter(|_| self.more).map(Record::position)
    }
}

/// The oldest records that fit, or with a cursor those that follow it. Reads the log until they are found, or until
/// `cancelled`.
pub fn audit_page(
    directory: &Path,
    wanted: &AuditFilter,
    cursor: Option<&str>,
    limit: usize,
    cancelled: &AtomicBool,
) -> anyhow::Result<AuditPage> {
    let mut page = AuditPage::default();
    let mut waiting = cursor.is_some();
    // The cursor names a record by its place, so everything is read until there, whether it fits or not.
    for item in query(directory, AuditFilter::default())? {
        if cancelled.load(Ordering::Relaxed) {
            bail!("the search was given up");
        }
        match item {
            Err(problem) => page.unreadable.push(problem),
            Ok(record) if waiting => waiting = cursor != Some(record.position().as_str()),
            Ok(record) if !wanted.matches(&record) => {}
            Ok(record) if page.records.len() < limit => page.records.push(record),
            Ok(_) => {
                page.more = true;
                break;
            }
        }
    }
    if waiting {
        bail!("the record of the cursor is not there any more (retention may have removed it); begin again with since");
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_offered_exists() {
        for kind in KINDS.split(", ") {
            let read: EventKind = serde_json::from_value(json!(kind)).unwrap();
            assert_eq!(read.as_str(), kind);
        }
    }
}

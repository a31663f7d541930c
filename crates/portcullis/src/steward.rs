//! The house as an administrator sees it over HTTP: the operations of the command line, and the values of a scrape.
//!
//! Guards that nobody waits for what is asked without a credential, and that a costly look is taken by one at a time. Must not
//! ask whether somebody may: the gate was asked first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_audit::AuditError;
use portcullis_console::{AuditQuestion, CertificateSample, Check, IngestSample, Sample, SecretSample, Steward, StoreSample};
use portcullis_gateway::ApprovalError;
use portcullis_identity::KeyError;
use portcullis_mcp::SessionCount;
use portcullis_model::{Clock, Fault, FaultCode, Principal, SystemClock, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use crate::cli::{FilterArgs, OutcomeArg};
use crate::commands::doctor;
use crate::house::{House, audit_directory};
use crate::operations;
use crate::wire::Doors;

/// How long the report about every control is good: it reads the whole audit log and asks every source.
const REPORT_AGE: Duration = Duration::from_secs(10);
/// Records of a page, unless said otherwise.
const PAGE: usize = 100;
/// Most records of a page.
const LARGEST_PAGE: usize = 1_000;
/// How long a scrape waits for the state of secrets.
const SECRETS: Duration = Duration::from_secs(2);
/// Searches of the audit log at once.
const SEARCHES: usize = 2;

/// See the module.
pub struct HouseSteward {
    house: Arc<House>,
    doors: Doors,
    sessions: SessionCount,
    report: Mutex<Option<(Instant, Value)>>,
    searches: Semaphore,
}

impl HouseSteward {
    /// The steward of this house and its listeners.
    pub fn new(house: Arc<House>, doors: Doors, sessions: SessionCount) -> Self {
        Self { house, doors, sessions, report: Mutex::new(None), searches: Semaphore::new(SEARCHES) }
    }
}

/// Ends a search on another thread when nobody waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// What went wrong with an operation, as the caller may know it.
fn fault(error: &anyhow::Error) -> Fault {
    if let Some(error) = error.downcast_ref::<ApprovalError>() {
        let code = match error {
            ApprovalError::NotFound(_) => FaultCode::NotFound,
            ApprovalError::Decided { .. } => FaultCode::InvalidArgument,
            ApprovalError::OwnRequest(_) => FaultCode::Forbidden,
            ApprovalError::Store(_) | ApprovalError::Unreadable(_) | ApprovalError::Contended(_) => return unavailable(error),
        };
        return Fault::new(code, error.to_string());
    }
    if let Some(done) = error.downcast_ref::<operations::RevokedUnrecorded>() {
        return Fault::new(FaultCode::Unavailable, done.to_string()).with_internal(format!("{error:#}"));
    }
    match error.downcast_ref::<KeyError>() {
        Some(error @ KeyError::NotFound(_)) => Fault::new(FaultCode::NotFound, error.to_string()),
        Some(error @ KeyError::Request(_)) => Fault::invalid(error.to_string()),
        _ => unavailable(format!("{error:#}")),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "so that it can be given to map_err")]
fn unavailable(reason: impl ToString) -> Fault {
    Fault::new(FaultCode::Unavailable, "this cannot be done now; the operator finds the reason in the server's log")
        .with_internal(reason.to_string())
}

#[async_trait]
impl Steward for HouseSteward {
    fn readiness(&self) -> Vec<Check> {
        let config = self.house.in_force();
        let keys = &self.house.foundations.keys;
        let store = if config.store.enabled && self.house.store.is_none() {
            Err("the embedded store is open in another process".to_owned())
        } else {
            Ok(())
        };
        let stale =
            if keys.is_stale() { Err("the store with the keys has not been reached for too long".to_owned()) } else { Ok(()) };
        let sinks = self.house.sink_states().into_iter().find_map(|sink| sink.blocking).map_or(Ok(()), Err);
        vec![
            Check::new("store", store),
            Check::new("audit", self.house.foundations.audit.health()),
            Check::new("keys", stale),
            Check::new("sinks", sinks),
        ]
    }

    async fn sample(&self) -> Sample {
        let config = self.house.in_force();
        // A store that is slow must not hold up the scrape; what is not known then is left out.
        let secrets = self.house.secrets();
        let secrets = tokio::time::timeout(SECRETS, secrets.report()).await.unwrap_or_default();
        let expires = |name: &str| {
            let end = config.secrets.iter().find(|secret| secret.name == name).and_then(|secret| secret.expires_at);
            end.map(|end| seconds(end.0))
        };
        Sample {
            load: self.house.gateway.load(),
            shared_rates: Some(self.house.rates.counts()),
            sessions: self.sessions.open(),
            tools: self.house.gateway.tool_count(),
            audit: self.house.foundations.audit.counts(),
            sinks: self.house.sink_states(),
            store: self.house.store.as_ref().map(store_sample),
            egress: portcullis_egress::egress_counts(),
            secrets: secrets
                .into_iter()
                // Where a secret is kept is for operators alone.
                .filter(|one| one.kind.is_some())
                .map(|one| SecretSample { usable: one.state.is_usable(), expires: expires(&one.name), name: one.name })
                .collect(),
            certificates: self.certificates(),
            checks: Vec::new(),
            configuration_in_force: self.house.configuration_in_force(),
        }
    }

    async fn status(&self) -> Result<Value, Fault> {
        // Whoever waits here gets what the one before found.
        let mut kept = self.report.lock().await;
        if let Some((at, report)) = kept.as_ref()
            && at.elapsed() < REPORT_AGE
        {
            return Ok(report.clone());
        }
        let lines = doctor::lines(&self.house.in_force(), &self.house).await;
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "at": SystemClock.now().to_string(),
            "lines": serde_json::to_value(&lines).map_err(unavailable)?,
        });
        *kept = Some((Instant::now(), report.clone()));
        Ok(report)
    }

    async fn sources(&self) -> Result<Value, Fault> {
        let sources = operations::sources(&self.house).await;
        Ok(json!({"sources": serde_json::to_value(&sources).map_err(unavailable)?}))
    }

    async fn approvals(&self) -> Result<Value, Fault> {
        let book = self.house.foundations.approvals(&self.house.in_force());
        let records = book.list().await.map_err(|error| fault(&anyhow::Error::from(error)))?;
        Ok(json!({"approvals": serde_json::to_value(&records).map_err(unavailable)?}))
    }

    async fn decide(&self, who: &Principal, id: &str, granted: bool) -> Result<Value, Fault> {
        let foundations = &self.house.foundations;
        let book = foundations.approvals(&self.house.in_force());
        let record = operations::decide_approval(foundations, &book, who, id, granted).await.map_err(|error| fault(&error))?;
        serde_json::to_value(&record).map_err(unavailable)
    }

    async fn audit(&self, question: AuditQuestion) -> Result<Value, Fault> {
        let limit = question.limit.unwrap_or(PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(Fault::invalid(format!("limit must be 1 to {LARGEST_PAGE}")));
        }
        let cursor = question.cursor.clone();
        let wanted = operations::audit_filter(&filter(question)?).map_err(|error| {
            // On the command line they are options.
            Fault::invalid(format!("{error:#}").replace("--", ""))
        })?;
        let _turn = self.searches.acquire().await.map_err(unavailable)?;
        let directory = audit_directory(&self.house.in_force());
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = Cancel(cancelled.clone());
        let searched = tokio::task::spawn_blocking(move || {
            operations::audit_page(&directory, &wanted, cursor.as_deref(), limit, &cancelled)
        });
        let page = searched.await.map_err(unavailable)?.map_err(|error| match error.downcast_ref::<AuditError>() {
            Some(error) => unavailable(error),
            None => Fault::invalid(format!("{error:#}")),
        })?;
        Ok(json!({
            "records": page.records.iter().map(portcullis_audit::Record::to_json).collect::<Vec<_>>(),
            "more": page.more,
            "cursor": page.cursor(),
            "unreadable": serde_json::to_value(&page.unreadable).map_err(unavailable)?,
        }))
    }

    async fn keys(&self) -> Result<Value, Fault> {
        let now = SystemClock.now();
        let listed = operations::keys(&self.house.foundations.keys).await.map_err(|error| fault(&error))?;
        let described: anyhow::Result<Vec<Value>> =
            listed.iter().map(|(record, used)| operations::described_key(record, *used, now)).collect();
        Ok(json!({"keys": described.map_err(|error| fault(&error))?}))
    }

    async fn revoke_key(&self, who: &Principal, id: &str) -> Result<Value, Fault> {
        let revoked = operations::revoke_key(&self.house.foundations, who, id).await.map_err(|error| fault(&error))?;
        // Here it holds at once; other processes look twice a second.
        if let Err(error) = self.house.foundations.keys.refresh().await {
            tracing::warn!(%error, "the keys could not be read again; the revocation holds at the next look");
        }
        match revoked {
            Some(record) => operations::described_key(&record, None, SystemClock.now()).map_err(|error| fault(&error)),
            None => Ok(json!({"id": id, "removed": "its record could not be read"})),
        }
    }
}

impl HouseSteward {
    fn certificates(&self) -> Vec<CertificateSample> {
        // The two OTLP listeners share their files.
        let mut found: Vec<CertificateSample> = Vec::new();
        for (listener, certificates) in self.doors.all() {
            // Before an authority has made the first one, there is none.
            if let Some(end) = certificates.expires_at().filter(|_| found.iter().all(|known| known.listener != listener)) {
                found.push(CertificateSample { listener, expires: seconds(end) });
            }
        }
        found
    }
}

fn store_sample(store: &portcullis_telemetry::Store) -> StoreSample {
    let (counts, stats) = (store.counts(), store.stats());
    let ingest = counts.ingest.iter().map(|one| IngestSample {
        signal: one.signal,
        accepted: one.accepted,
        rejected: one.rejected,
        bytes: one.bytes,
    });
    StoreSample {
        ingest: ingest.collect(),
        refused: counts.refused,
        queries: counts.queries,
        rows: stats.rows(),
        disk_bytes: stats.segment_bytes(),
        buffered_bytes: stats.buffered_bytes,
    }
}

/// The question in the words of the command line.
fn filter(question: AuditQuestion) -> Result<FilterArgs, Fault> {
    let outcome = match question.outcome.as_deref() {
        None => None,
        Some("begun") => Some(OutcomeArg::Begun),
        Some("ok") => Some(OutcomeArg::Ok),
        Some("failed") => Some(OutcomeArg::Failed),
        Some("refused") => Some(OutcomeArg::Refused),
        Some(_) => return Err(Fault::invalid("outcome is begun, ok, failed or refused")),
    };
    let kinds = question.kind.unwrap_or_default();
    Ok(FilterArgs {
        since: question.since,
        until: question.until,
        principal: question.principal,
        tool: question.tool,
        decision: question.decision,
        outcome,
        code: question.code,
        kind: kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
        tenant: question.tenant,
        session: question.session,
        text: question.text,
    })
}

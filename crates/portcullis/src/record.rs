//! From the end of a road to its audit record: the one place where the two meet.

use std::sync::Arc;

use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_gateway::{INTENT, Recorder, RoadEnd};
use portcullis_guard::{Redactions, Redactor, is_hidden};
use portcullis_model::{FaultCode, PrincipalId, RiskClass};

use crate::refusals::{Kind, Tally};

/// Bytes of answer text that make one token, roughly; for the record's estimate only.
const BYTES_PER_TOKEN: u64 = 4;
/// Characters of a target that are kept.
const TARGET_CHARS: usize = 200;
/// What the methods of operations begin with; what they are about is no tool.
const ADMIN: &str = "admin/";
/// And those about keys.
const ADMIN_KEYS: &str = "admin/keys.";

/// Writes road ends into the audit log, without the secrets that callers and backends put into names and sentences.
pub struct AuditRecorder {
    /// The log.
    pub audit: Arc<AuditLog>,
    /// Takes the secrets out.
    pub redactor: Redactor,
    /// Sums up what anybody can cause without being anybody.
    pub tally: Arc<Tally>,
}

/// What can be refused as often as somebody sends it, without work being done: it is summed up when it becomes a flood.
const CHEAP: [&str; 5] = ["authenticate", "unreadable", "session", "product", "admin/enter"];

/// Calls beyond a rate, which cost nothing to send either.
const RATES: [&str; 3] = ["rate-limit", "tenant-rate", "global-rate"];

impl Recorder for AuditRecorder {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        if let Some(pause) = end.lockout {
            return self.tally.lockout(end.transport.as_str(), end.whence.as_ref(), pause).map_err(|e| e.to_string());
        }
        let event = self.event(end);
        if !end.allowed && (CHEAP.contains(&end.method) || RATES.contains(&&*end.rule)) {
            let who = end.principal.as_ref().map(|principal| principal.id.to_string());
            let kind = Kind { transport: end.transport.as_str(), method: end.method, rule: end.rule.to_string(), who };
            return self.tally.note(kind, end.whence.as_ref(), event).map_err(|e| e.to_string());
        }
        self.audit.append_for(end.risk.unwrap_or(RiskClass::Read), event).map(|_| ()).map_err(|e| e.to_string())
    }

    fn intend(&self, call: &RoadEnd) -> Result<Option<Arc<str>>, String> {
        // Nothing of it is known yet that a size or a duration would tell.
        let event = AuditEvent { latency_us: None, bytes_out: None, tokens_out: None, ..self.event(call) };
        let place = self.audit.append_intent(call.risk.unwrap_or(RiskClass::Destructive), event);
        place.map(|place| place.map(Arc::<str>::from)).map_err(|e| e.to_string())
    }

    fn may_begin(&self, risk: RiskClass) -> Result<(), String> {
        self.audit.may_begin(risk)
    }
}

impl AuditRecorder {
    /// Without secrets, also without one that characters nobody sees split. Where they split none they stay: they are evidence,
    /// and whoever prints records writes them out.
    fn clean(&self, text: &str) -> String {
        let redacted = |text: &str| self.redactor.text(text, &mut Redactions::default()).into_owned();
        let seen: String = text.chars().filter(|c| !is_hidden(*c)).collect();
        let clean = redacted(&seen);
        if clean == seen { redacted(text) } else { clean }
    }

    fn event(&self, end: &RoadEnd) -> AuditEvent {
        let kind = match (end.method, end.allowed, end.code) {
            ("authenticate", ..) => EventKind::Authentication,
            ("bypass", ..) => EventKind::Bypass,
            (INTENT, ..) => EventKind::Intent,
            ("approval.request" | "approval.use", ..) => EventKind::Approval,
            (method, true, None) if method.starts_with(ADMIN) => EventKind::Admin,
            (_, false, Some(FaultCode::Cancelled)) | (_, true, Some(_)) => EventKind::Failed,
            (_, false, _) => EventKind::Refused,
            ("tools/call", true, None) => EventKind::Call,
            (_, true, None) => EventKind::Lookup,
        };
        let decision = if end.allowed { Decision::Allow } else { Decision::Deny };
        let mut event = self
            .tally
            .located(AuditEvent::new(kind), end.whence.as_ref())
            .transport(end.transport.as_str())
            .method(end.method)
            .decided(decision, end.rule.to_string())
            .code(end.code)
            .latency_us(end.latency_micros)
            .bytes_out(end.bytes_out)
            .tokens_out(end.bytes_out / BYTES_PER_TOKEN)
            .sources(end.sources.iter().map(ToString::to_string))
            .redactions(end.redactions.iter().copied())
            .signs(end.signs.iter().copied());
        if let Some(principal) = &end.principal {
            event = event.principal(principal);
        }
        if !end.target.is_empty() {
            let target: String = self.clean(&end.target).chars().take(TARGET_CHARS).collect();
            event = match end.method {
                // A key is somebody, whom an erasure must reach.
                method if method.starts_with(ADMIN_KEYS) => match PrincipalId::new(format!("key:{target}")) {
                    Ok(key) => event.about(key),
                    Err(_) => event,
                },
                method if method.starts_with(ADMIN) => event.target(target),
                _ => event.tool(target),
            };
        }
        if let Some(via) = end.via {
            event = event.target(via);
        }
        if let Some(intent) = &end.intent {
            event = event.intent(intent.to_string());
        }
        if let Some(session) = &end.session {
            event = event.session(session.to_string());
        }
        if let Some(arguments) = &end.arguments {
            event = event.parameters(self.audit.fingerprint(arguments));
        }
        if let Some(trace_id) = &end.trace_id {
            event = event.trace_id(trace_id.clone());
        }
        if let Some(note) = &end.note {
            event = event.note(self.clean(note));
        }
        event
    }
}

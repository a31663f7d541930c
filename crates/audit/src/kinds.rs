//! The events of the house in one place each, so that every caller writes the same record for the same thing. Nothing
//! here may take arguments, answers or secret values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{FaultCode, Principal, PrincipalId, Timestamp};

use crate::event::{AuditEvent, Decision, EventKind};

/// Steps of an approval's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalStep {
    /// A call waits for it.
    Requested,
    /// Somebody said yes.
    Granted,
    /// Somebody said no.
    Denied,
    /// Nobody said anything in time.
    Expired,
    /// The call it was for went ahead.
    Used,
}

impl ApprovalStep {
    fn method(self) -> &'static str {
        match self {
            Self::Requested => "approval.requested",
            Self::Granted => "approval.granted",
            Self::Denied => "approval.denied",
            Self::Expired => "approval.expired",
            Self::Used => "approval.used",
        }
    }
}

impl AuditEvent {
    /// A credential was accepted. Write it when [`LogOns::is_news`] says so, not with every call.
    pub fn authenticated(principal: &Principal) -> Self {
        Self::new(EventKind::Authentication)
            .method("authenticate")
            .principal(principal)
            .decided(Decision::Allow, "credential-accepted")
    }

    /// A credential was presented and refused, or there was none. `rule` names the check that failed; `claimed` is the
    /// public part of what was presented (a key's id, a user name), never the secret.
    pub fn authentication_failed(rule: impl Into<Cow<'static, str>>, claimed: Option<&str>) -> Self {
        let event = Self::new(EventKind::Authentication)
            .method("authenticate")
            .decided(Decision::Deny, rule)
            .code(Some(FaultCode::Unauthenticated));
        match claimed {
            Some(claimed) => event.note(format!("claimed to be {claimed}")),
            None => event,
        }
    }

    /// A step of an approval; who acted is added by the caller, `about` is who asked for it.
    pub fn approval(step: ApprovalStep, id: impl Into<Cow<'static, str>>, asked_by: &PrincipalId) -> Self {
        let event = Self::new(EventKind::Approval).method(step.method()).target(id).about(asked_by.clone());
        match step {
            ApprovalStep::Requested => event,
            ApprovalStep::Granted | ApprovalStep::Used => event.decided(Decision::Allow, "approval"),
            ApprovalStep::Denied | ApprovalStep::Expired => event.decided(Decision::Deny, "approval"),
        }
    }

    /// Something was done to a configuration section, a policy, a secret or a plugin: `operation` such as
    /// `policy.loaded` or `secret.rotated`, `target` its name. The value itself never goes into a record.
    pub fn operation(kind: EventKind, operation: impl Into<Cow<'static, str>>, target: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind).method(operation).target(target)
    }

    /// Redaction was bypassed. Written twice: before the answer is released and, with its size, after.
    pub fn bypass(principal: &Principal, tool: impl Into<Cow<'static, str>>, released: bool) -> Self {
        let method = if released { "bypass.released" } else { "bypass.granted" };
        Self::new(EventKind::Bypass).method(method).principal(principal).tool(tool).decided(Decision::Allow, "bypass-redaction")
    }

    /// Somebody was locked out for `pause` after failed attempts.
    pub fn lockout(claimed: Option<&str>, pause: Duration) -> Self {
        let whom = claimed.map(|c| format!("; claimed to be {c}")).unwrap_or_default();
        Self::new(EventKind::Lockout)
            .method("authenticate")
            .decided(Decision::Deny, "lockout")
            .code(Some(FaultCode::RateLimited))
            .note(format!("for {} s{whom}", pause.as_secs()))
    }

    /// Something went wrong outside of any call.
    pub fn error(code: FaultCode, note: impl Into<Cow<'static, str>>) -> Self {
        Self::new(EventKind::Error).code(Some(code)).note(note)
    }
}

/// How long a principal at an address without a session counts as known.
const KNOWN_FOR: Duration = Duration::from_mins(1);
/// Most principals, addresses and sessions remembered; beyond that some are recorded once more.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LogOn {
    principal: PrincipalId,
    session: Option<String>,
    address: Option<IpAddr>,
}

/// Remembers who was recorded as authenticated, so that it is written once per session, and without sessions once per
/// principal, address and minute. Errs towards writing more.
#[derive(Debug, Default)]
pub struct LogOns(Mutex<HashMap<LogOn, Timestamp>>);

impl LogOns {
    /// Whether this is to be recorded. Remembers it.
    pub fn is_news(&self, principal: &PrincipalId, session: Option<&str>, address: Option<IpAddr>, now: Timestamp) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = LogOn { principal: principal.clone(), session: session.map(str::to_owned), address };
        if let Some(since) = known.get_mut(&one) {
            if one.session.is_some() || now.since(*since) < KNOWN_FOR {
                return false;
            }
            *since = now;
            return true;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, since| now.since(*since) < KNOWN_FOR);
            if known.len() >= REMEMBERED {
                known.clear();
            }
        }
        known.insert(one, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_per_session_or_minute() {
        let known = LogOns::default();
        let anna = PrincipalId::new("user:anna").unwrap();
        let here: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
        let there: Option<IpAddr> = Some("192.0.2.2".parse().unwrap());
        let at = Timestamp::from_seconds;
        assert!(known.is_news(&anna, None, here, at(0)));
        assert!(!known.is_news(&anna, None, here, at(59)));
        assert!(known.is_news(&anna, None, there, at(59)));
        assert!(known.is_news(&anna, None, here, at(60)));
        assert!(known.is_news(&anna, Some("s"), here, at(60)));
        assert!(!known.is_news(&anna, Some("s"), here, at(6_000)));
        assert!(known.is_news(&PrincipalId::new("user:ben").unwrap(), None, here, at(60)));
    }

    #[test]
    fn memory_is_bounded() {
        let known = LogOns::default();
        for index in 0..3 * REMEMBERED {
            let who = PrincipalId::new(format!("user:{index}")).unwrap();
            assert!(known.is_news(&who, None, None, Timestamp::from_seconds(1)));
        }
        assert!(known.0.lock().unwrap().len() <= REMEMBERED);
    }

    #[test]
    fn approvals_say_who_asked_and_how_it_ended() {
        let anna = PrincipalId::new("user:anna").unwrap();
        let denied = AuditEvent::approval(ApprovalStep::Expired, "a-1", &anna);
        assert_eq!((denied.method.as_deref(), denied.decision), (Some("approval.expired"), Some(Decision::Deny)));
        assert_eq!((denied.about, denied.target.as_deref()), (Some(anna.clone()), Some("a-1")));
        assert_eq!(AuditEvent::approval(ApprovalStep::Requested, "a-1", &anna).decision, None);
    }
}

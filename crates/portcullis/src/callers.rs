//! Credentials in the names of callers: identity exchanges the caller's token, and the audit log remembers for whom. Guards
//! that no token is used whose exchange could not be recorded. Must not print a token.

use std::fmt;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use async_trait::async_trait;
use portcullis_audit::{AuditEvent, AuditLog, Decision, EventKind};
use portcullis_egress::{CallerCredentials, CallerFault, ExchangeTarget, SecretResolver};
use portcullis_identity::token::exchange::{ExchangedToken, Exchanges};
use portcullis_model::{Clock, FaultCode, Secret};
use portcullis_policy::{Permit, Policies};

use crate::settings::Config;

struct Ready {
    exchanges: Exchanges,
    audit: Arc<AuditLog>,
}

/// Whoever exchanges callers' tokens, known to the sources before there is one.
#[derive(Default)]
pub struct Callers(OnceLock<Ready>);

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

/// The one who will exchange tokens; nothing where no issuer is set up for it.
pub fn expected(config: &Config) -> Option<Arc<Callers>> {
    config.identity.tokens.issuers.iter().any(|issuer| issuer.exchange.is_some()).then(Arc::default)
}

impl Callers {
    /// Lets it work. Only once.
    pub fn introduce(
        &self,
        config: &Config,
        secrets: &dyn SecretResolver,
        policies: &Policies,
        clock: &Arc<dyn Clock>,
        audit: &Arc<AuditLog>,
    ) -> anyhow::Result<()> {
        let made = exchanges(config, secrets, policies, clock)?;
        if let Some(exchanges) = made {
            let _ = self.0.set(Ready { exchanges, audit: audit.clone() });
        }
        Ok(())
    }
}

/// The exchanges of the configuration. Asks nobody.
pub fn exchanges(
    config: &Config,
    secrets: &dyn SecretResolver,
    policies: &Policies,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<Exchanges>> {
    Exchanges::new(&config.identity.tokens, clock, secrets, |grant| policies.charter(grant)).context("identity.tokens")
}

#[async_trait]
impl CallerCredentials for Callers {
    async fn in_the_name_of(&self, permit: &Permit, target: &ExchangeTarget) -> Result<Secret, CallerFault> {
        let ready = self.0.get().ok_or_else(|| CallerFault::Unavailable("nobody exchanges tokens here".to_owned()))?;
        let exchanged = ready.exchanges.exchange(permit, target).await;
        let (decision, code, note) = match &exchanged {
            // Remembered: it was recorded when it was made.
            Ok(ExchangedToken { fresh: false, token }) => return Ok(token.clone()),
            Ok(_) => (Decision::Allow, None, None),
            Err(CallerFault::Unavailable(reason)) => (Decision::Deny, Some(FaultCode::Unavailable), Some(reason.clone())),
            Err(CallerFault::Expired) => (Decision::Deny, Some(FaultCode::Unauthenticated), None),
            Err(fault) => (Decision::Deny, Some(FaultCode::Forbidden), Some(fault.to_string())),
        };
        let whom = [&target.audience, &target.resource].into_iter().flatten().next().cloned().unwrap_or_default();
        let mut event = AuditEvent::new(EventKind::Authentication)
            .method("token.exchange")
            .principal(permit.principal())
            .target(whom)
            .decided(decision, "token-exchange")
            .code(code);
        if let Some(trace_id) = permit.trace().trace_id() {
            event = event.trace_id(trace_id.to_owned());
        }
        if let Some(note) = note {
            event = event.note(note);
        }
        if let Err(error) = ready.audit.append(event) {
            return Err(CallerFault::Unavailable(format!("the record of the exchange could not be written: {error}")));
        }
        exchanged.map(|exchanged| exchanged.token)
    }
}

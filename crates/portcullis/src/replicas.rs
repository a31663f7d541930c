//! This process among others of the same store: which of its limits it shares, and a word in the audit log whenever that
//! changes. Must not decide what a limit is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use portcullis_audit::{AuditEvent, Decision, EventKind};
use portcullis_config::SharedLimits;
use portcullis_gateway::{SharedRates, SharedState, Sharing};
use portcullis_model::Clock;
use portcullis_state::Store;

use crate::house::House;
use crate::settings::Config;

/// Least time between two announcements of one changed resource.
pub const BETWEEN_UPDATES: Duration = Duration::from_millis(200);

/// The rates that are shared. Asks nobody.
pub fn rates(config: &Config, store: Arc<dyn Store>, clock: Arc<dyn Clock>, secret: &[u8]) -> Arc<SharedRates> {
    let sharing = match config.limits.shared {
        SharedLimits::Auto => Sharing::WithOthers,
        SharedLimits::Always => Sharing::Always,
    };
    Arc::new(SharedRates::new(store, clock, sharing, secret))
}

/// How rates stand, in words for people.
pub fn described(state: SharedState) -> String {
    match state {
        SharedState::Alone => "no other replica uses this store".to_owned(),
        SharedState::Shared(others) => format!("rates hold over this replica and {others} others of this store together"),
        SharedState::Divided(others) => {
            format!("the store cannot be reached: rates are divided among this replica and the {others} others last seen")
        }
    }
}

impl House {
    /// Keeps the rates of all replicas together, for as long as this is awaited.
    pub async fn follow_rates(&self) -> Infallible {
        let mut state = self.rates.state();
        self.note_rates(state);
        loop {
            state = self.rates.follow(state).await;
            self.note_rates(state);
        }
    }

    fn note_rates(&self, state: SharedState) {
        let (kind, decision) = match state {
            SharedState::Alone => return,
            SharedState::Shared(_) => (EventKind::Config, Decision::Allow),
            SharedState::Divided(_) => (EventKind::Error, Decision::Deny),
        };
        let event = AuditEvent::new(kind).method("limits.shared").decided(decision, "limits.shared").note(described(state));
        if let Err(error) = self.foundations.audit.append(event) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }
}

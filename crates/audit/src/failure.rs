//! What happens to calls when a record cannot be written. Stopping is the default for everything; going on is a choice
//! of the operator per risk class, and what went on unrecorded is counted and told.

use std::sync::{Mutex, PoisonError};

use portcullis_model::{RiskClass, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do with a call whose record cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// Refuse it.
    #[default]
    Stop,
    /// Let it go ahead without a record.
    Continue,
}

/// The reaction for each risk class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePolicy {
    /// Calls that only look.
    pub read: Reaction,
    /// Calls that add or change something, and those that remove.
    pub write: Reaction,
}

impl FailurePolicy {
    /// The reaction for calls of this class.
    pub fn reaction(&self, risk: RiskClass) -> Reaction {
        match risk {
            RiskClass::Read => self.read,
            RiskClass::Write | RiskClass::Destructive => self.write,
        }
    }
}

/// How many calls went ahead without a record, and since when.
#[derive(Debug, Default)]
pub(crate) struct Failing(Mutex<Option<(u64, Timestamp)>>);

impl Failing {
    fn inner(&self) -> std::sync::MutexGuard<'_, Option<(u64, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, now: Timestamp) {
        let mut inner = self.inner();
        let (count, since) = inner.unwrap_or((0, now));
        *inner = Some((count + 1, since));
    }

    pub(crate) fn count(&self) -> u64 {
        self.inner().map_or(0, |(count, _)| count)
    }

    /// What is to be told, once.
    pub(crate) fn settle(&self) -> Option<(u64, Timestamp)> {
        self.inner().take()
    }

    /// It could not be told after all.
    pub(crate) fn put_back(&self, more: u64, from: Timestamp) {
        let mut inner = self.inner();
        let (count, since) = inner.unwrap_or((0, from));
        *inner = Some((count + more, since.min(from)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stops_unless_chosen_otherwise() {
        let strict: FailurePolicy = serde_json::from_str("{}").unwrap();
        for risk in [RiskClass::Read, RiskClass::Write, RiskClass::Destructive] {
            assert_eq!(strict.reaction(risk), Reaction::Stop);
        }
        let reading: FailurePolicy = serde_json::from_str(r#"{"read":"continue"}"#).unwrap();
        assert_eq!(reading.reaction(RiskClass::Read), Reaction::Continue);
        assert_eq!(reading.reaction(RiskClass::Destructive), Reaction::Stop);
        assert!(serde_json::from_str::<FailurePolicy>(r#"{"reads":"continue"}"#).is_err());
    }

    #[test]
    fn what_went_unrecorded_is_told_once_and_not_forgotten() {
        let failing = Failing::default();
        failing.note(Timestamp::from_seconds(5));
        failing.note(Timestamp::from_seconds(9));
        let (count, since) = failing.settle().unwrap();
        assert_eq!((count, since), (2, Timestamp::from_seconds(5)));
        failing.note(Timestamp::from_seconds(20));
        failing.put_back(count, since);
        assert_eq!(failing.settle(), Some((3, Timestamp::from_seconds(5))));
        assert_eq!(failing.count(), 0);
    }
}

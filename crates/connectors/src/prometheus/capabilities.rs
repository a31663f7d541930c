//! What a Prometheus-compatible source can answer. Must not promise what the API does not have.

use std::collections::BTreeSet;

use portcullis_model::Signal;

/// Metrics and alerts.
pub(crate) fn signals() -> BTreeSet<Signal> {
    BTreeSet::from([Signal::Metrics, Signal::Alerts])
}

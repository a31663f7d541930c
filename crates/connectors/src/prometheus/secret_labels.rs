//! Labels whose name says that their value is a secret. Guards that no question learns such a value: answers would redact
//! it, but conditions, groups and joins, which the backend evaluates, could tell it piece by piece. Must not look at values.

use portcullis_model::{Fault, FaultCode, cut};
use portcullis_policy::Permit;
use portcullis_ports::{LabelMatch, MatchOperator, MetricRequest, MetricSelector};
use portcullis_query::{QueryError, is_secret_label, refuse_secret_labels};

use super::plan::invalid;

/// Refuses a question about metrics that would tell the value of such a label, unless the caller may see values unredacted.
pub(crate) fn admit(permit: &Permit, request: &MetricRequest) -> Result<(), Fault> {
    if permit.may_see_unredacted() {
        return Ok(());
    }
    if let MetricSelector::Raw(raw) = &request.metric {
        refuse_secret_labels(raw).map_err(|error| invalid(&error))?;
    }
    let refused = |label: &str, using| Err(invalid(&QueryError::SecretLabel { label: shown(label), using }));
    if let Some(secret) = request.matchers.iter().find(|m| is_secret_label(&m.name) && !asks_presence(m)) {
        return refused(&secret.name, "a condition on");
    }
    match request.group_by.iter().find(|label| is_secret_label(label)) {
        Some(secret) => refused(secret, "grouping by"),
        None => Ok(()),
    }
}

/// Refuses to list the values of such a label, unless the caller may see values unredacted.
pub(crate) fn admit_values(permit: &Permit, label: &str) -> Result<(), Fault> {
    if permit.may_see_unredacted() || !is_secret_label(label) {
        return Ok(());
    }
    let message = format!("values of the label '{}' are not shown: its name says it is a secret", shown(label));
    Err(Fault::new(FaultCode::Forbidden, message).with_hint("ask for the values of another label"))
}

/// Whether a condition only tells whether the label is there.
fn asks_presence(condition: &LabelMatch) -> bool {
    match condition.operator {
        MatchOperator::Equal | MatchOperator::NotEqual => condition.value.is_empty(),
        MatchOperator::Regex | MatchOperator::NotRegex => matches!(condition.value.as_str(), "" | ".+" | ".*"),
    }
}

fn shown(label: &str) -> String {
    cut::quoted(label, 60)
}

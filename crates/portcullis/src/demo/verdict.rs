//! Whether the answers name the cause. Guards that the judgement rests on what a tool answered and on the simulator's
//! ground truth, and on nothing else; it can come out either way.

use std::fmt;

use anyhow::bail;
use portcullis_model::format_timestamp;
use portcullis_simulator::Incident;
use serde_json::Value;

use crate::terminal::paint;

/// What the answers say about the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    named: Option<String>,
    /// Whether the change that brought it is named as well.
    version_named: bool,
    truth: Incident,
}

/// Compares the first suspect in an answer of `get_service_health` with the truth.
pub(super) fn judge(health: &Value, truth: &Incident) -> Verdict {
    let first = health.pointer("/suspects/0");
    let named = first.and_then(|suspect| suspect.get("service")).and_then(Value::as_str).map(str::to_owned);
    let changes = first.and_then(|suspect| suspect.get("changes")).and_then(Value::as_array);
    let names_version = |change: &Value| {
        let words = change.as_str().unwrap_or_default().split_whitespace();
        words.take_while(|word| !word.contains("before")).any(|word| word == truth.cause_version)
    };
    let version_named = changes.is_some_and(|changes| changes.iter().any(names_version));
    Verdict { named, version_named, truth: truth.clone() }
}

impl Verdict {
    /// Whether the cause was found.
    pub(super) fn found(&self) -> bool {
        self.named.as_deref() == Some(self.truth.cause_service)
    }

    /// Success only when the cause was found and no call failed on the way.
    pub(super) fn into_result(self, failed_calls: usize) -> anyhow::Result<()> {
        if !self.found() {
            bail!("the cause was not found: the shop broke in {}", self.truth.cause_service);
        }
        if failed_calls > 0 {
            bail!("the cause was found, but {failed_calls} tool calls failed");
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incident { kind, cause_service, cause_version, onset, .. } = &self.truth;
        let truth = format!(
            "the simulator broke {cause_service} with version {cause_version} at {} ({})",
            format_timestamp(*onset),
            kind.as_str().replace('_', " ")
        );
        match &self.named {
            Some(named) if self.found() => {
                let change =
                    if self.version_named { format!(", and what changed: version {cause_version}") } else { String::new() };
                write!(f, "{} {}{change} ({truth})", paint::good("cause found:"), paint::strong(named))
            }
            Some(named) => write!(f, "{} the answers blame {}; {truth}", paint::bad("cause not found:"), paint::strong(named)),
            None => write!(f, "{} the answers suspect nobody; {truth}", paint::bad("cause not found:")),
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::Timestamp;
    use portcullis_simulator::IncidentKind;
    use serde_json::json;

    use super::*;

    fn truth() -> Incident {
        Incident {
            kind: IncidentKind::ConnectionPoolLeak,
            cause_service: "inventory",
            cause_version: "1.8.0",
            onset: Timestamp::from_seconds(1_772_359_200),
            symptom_services: vec!["checkout", "frontend"],
            starved_services: vec!["payment"],
            unaffected_services: vec!["cart"],
        }
    }

    #[test]
    fn the_right_suspect_is_the_cause() {
        let health = json!({"suspects": [
            {"service": "inventory", "changes": ["version 1.8.0 first seen 12:03 (before: 1.7.2)"]},
            {"service": "checkout"},
        ]});
        let verdict = judge(&health, &truth());
        assert!(verdict.found() && verdict.version_named, "{verdict}");
        assert!(verdict.to_string().contains("cause found:"), "{verdict}");
        assert!(verdict.clone().into_result(0).is_ok());
        assert!(verdict.into_result(1).unwrap_err().to_string().contains("1 tool calls failed"));
    }

    #[test]
    fn a_symptom_is_not_the_cause() {
        let health = json!({"suspects": [{"service": "checkout", "changes": ["version 1.8.0 first seen 12:03"]}, {"service": "inventory"}]});
        let verdict = judge(&health, &truth());
        assert!(!verdict.found(), "{verdict}");
        assert!(verdict.to_string().contains("blame"), "{verdict}");
        assert!(verdict.into_result(0).is_err());
    }

    #[test]
    fn no_answer_is_not_a_finding() {
        let unusable = [
            json!({}),
            Value::Null,
            json!({"suspects": []}),
            json!({"suspects": [{"score": 1.0}]}),
            json!({"services": [{"service": "inventory", "status": "unhealthy"}]}),
            json!("LIKELY CAUSE: inventory"),
        ];
        for health in unusable {
            let verdict = judge(&health, &truth());
            assert!(!verdict.found(), "{health}");
            assert!(verdict.to_string().contains("suspect nobody"), "{verdict}");
            assert!(verdict.into_result(0).is_err(), "{health}");
        }
    }

    #[test]
    fn the_version_before_is_not_the_version_that_changed() {
        let health =
            json!({"suspects": [{"service": "inventory", "changes": ["version 1.9.0 first seen 12:03 (before: 1.8.0)"]}]});
        let verdict = judge(&health, &truth());
        assert!(verdict.found() && !verdict.version_named);
    }
}

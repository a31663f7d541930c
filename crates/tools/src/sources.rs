//! The configured sources and the one way to ask several of them at once.
//!
//! Guards the difference between "nothing there" and "could not look": every source that is asked ends in the
//! coverage, a failure never becomes an empty answer, and a source outside the caller's scope looks like one that
//! does not exist. Must not interpret what sources answer.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::future::join_all;
use portcullis_model::{Coverage, CoverageState, Fault, FaultCode, Signal, SourceName, cut, format_duration};
use portcullis_policy::Permit;
use portcullis_ports::Source;

/// Longest a single source may take within one fan-out.
pub const SOURCE_PATIENCE: Duration = Duration::from_secs(10);
/// Share of the time left until the call's deadline that sources may use; the rest is for the answer.
const SHARE_OF_DEADLINE: f64 = 0.85;

/// Two configured sources share a name. The operator's to fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two sources are named '{0}'; give every source its own name")]
pub struct DuplicateSource(pub SourceName);

/// The sources of this server; replaced as a whole when the configuration changes.
pub struct Sources {
    current: ArcSwap<Vec<Arc<dyn Source>>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let current = self.current.load();
        f.debug_list().entries(current.iter().map(|source| source.name())).finish()
    }
}

/// Which sources to ask, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The signal they must be able to answer; `None` asks every source.
    pub signal: Option<Signal>,
    /// Only this one.
    pub source: Option<&'a str>,
    /// Longest one source may take; the call's own deadline may be nearer.
    pub patience: Duration,
}

impl<'a> Ask<'a> {
    /// All sources with `signal`, or the one named.
    pub fn signal(signal: Signal, source: Option<&'a str>) -> Self {
        Self { signal: Some(signal), source, patience: SOURCE_PATIENCE }
    }
}

/// What one source had to say.
#[derive(Debug, Clone)]
pub struct Found<T> {
    value: T,
    has_data: bool,
    missing: Option<String>,
}

impl<T> Found<T> {
    /// An answer; `has_data` is false when the source looked and has nothing.
    pub fn new(value: T, has_data: bool) -> Self {
        Self { value, has_data, missing: None }
    }

    /// Marks the answer as a part; `missing` says, safe for the client, which part is not there.
    #[must_use]
    pub fn partial(mut self, missing: Option<String>) -> Self {
        self.missing = missing.or(self.missing);
        self
    }
}

/// The answers of several sources and how each of them ended.
#[derive(Debug, Clone)]
pub struct FanOut<T> {
    /// What sources answered, in configured order.
    pub answers: Vec<(SourceName, T)>,
    /// How every source in scope ended, in configured order.
    pub coverage: Vec<Coverage>,
    /// The faults behind the failures.
    pub faults: Vec<(SourceName, Fault)>,
}

impl<T> FanOut<T> {
    /// The caller's own mistake (a bad expression, a question too large), when that is what every asked source said.
    pub fn refusal(&self) -> Option<Fault> {
        let callers_fault = |(_, fault): &(SourceName, Fault)| {
            matches!(fault.code(), FaultCode::InvalidArgument | FaultCode::Forbidden | FaultCode::NotFound | FaultCode::TooLarge)
        };
        let all = self.answers.is_empty() && !self.faults.is_empty() && self.faults.iter().all(callers_fault);
        if all { self.faults.first().map(|(_, fault)| fault.clone()) } else { None }
    }

    /// The answers, unless every source refused the question as such.
    ///
    /// # Errors
    /// The refusal, see [`FanOut::refusal`].
    pub fn or_refusal(self) -> Result<Self, Fault> {
        match self.refusal() {
            Some(fault) => Err(fault),
            None => Ok(self),
        }
    }
}

/// The sources a question goes to, and the coverage of those it skips.
type Choice = (Vec<Arc<dyn Source>>, Vec<Coverage>);

impl Sources {
    /// A registry of `sources`.
    ///
    /// # Errors
    /// When two share a name.
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Result<Self, DuplicateSource> {
        Self::check(&sources)?;
        Ok(Self { current: ArcSwap::from_pointee(sources) })
    }

    /// Puts other sources in place. Calls under way keep the ones they started with.
    ///
    /// # Errors
    /// When two share a name; the old ones stay.
    pub fn replace(&self, sources: Vec<Arc<dyn Source>>) -> Result<(), DuplicateSource> {
        Self::check(&sources)?;
        self.current.store(Arc::new(sources));
        Ok(())
    }

    fn check(sources: &[Arc<dyn Source>]) -> Result<(), DuplicateSource> {
        let mut seen = BTreeSet::new();
        match sources.iter().find(|source| !seen.insert(source.name().clone())) {
            Some(twice) => Err(DuplicateSource(twice.name().clone())),
            None => Ok(()),
        }
    }

    /// Every configured source, whoever asks. For the operator's own views, not for answers.
    pub fn all(&self) -> Arc<Vec<Arc<dyn Source>>> {
        self.current.load_full()
    }

    /// The sources in the scope of `permit`, in configured order.
    pub fn visible(&self, permit: &Permit) -> Vec<Arc<dyn Source>> {
        let scope = permit.scope();
        let seen = |source: &&Arc<dyn Source>| scope.sources.contains(source.name().as_str()) && source.serves(&scope.tenant);
        self.current.load().iter().filter(seen).cloned().collect()
    }

    /// Whether any source in scope answers `signal`.
    pub fn answers(&self, permit: &Permit, signal: Signal) -> bool {
        self.visible(permit).iter().any(|source| source.capabilities().contains(&signal))
    }

    /// The sources a question goes to, and the ones it skips.
    ///
    /// # Errors
    /// `NotFound` for a source that does not exist in this scope, `NoSource` when nothing can answer.
    fn choose(&self, permit: &Permit, ask: Ask<'_>) -> Result<Choice, Fault> {
        let visible = self.visible(permit);
        let names = |sources: &[Arc<dyn Source>]| {
            let names: Vec<&str> = sources.iter().map(|source| source.name().as_str()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let wanted: Vec<Arc<dyn Source>> = match ask.source {
            None => visible.clone(),
            Some(name) => visible.iter().filter(|source| source.name().as_str() == name).cloned().collect(),
        };
        if let (Some(name), true) = (ask.source, wanted.is_empty()) {
            let shown = cut::quoted(name, 64);
            return Err(Fault::new(FaultCode::NotFound, format!("there is no source '{shown}' for this credential"))
                .with_hint(format!("sources: {}", names(&visible))));
        }
        let capable = |source: &Arc<dyn Source>| ask.signal.is_none_or(|signal| source.capabilities().contains(&signal));
        let (asked, unable): (Vec<_>, Vec<_>) = wanted.into_iter().partition(capable);
        let what = ask.signal.map_or("anything", Signal::as_str);
        if asked.is_empty() {
            let message = match ask.source {
                Some(name) => format!("source '{name}' has no {what}"),
                None => format!("no source available to this credential has {what}"),
            };
            let able: Vec<Arc<dyn Source>> = visible.into_iter().filter(capable).collect();
            let hint = if able.is_empty() {
                format!("an operator must configure a source with {what}; list_sources shows what there is")
            } else {
                format!("sources with {what}: {}", names(&able))
            };
            return Err(Fault::new(FaultCode::NoSource, message).with_hint(hint));
        }
        let skipped = |source: &Arc<dyn Source>| Coverage {
            source: source.name().clone(),
            state: CoverageState::Skipped,
            reason: Some(format!("has no {what}")),
        };
        Ok((asked, unable.iter().map(skipped).collect()))
    }

    /// Asks every chosen source at the same time, each under its own deadline, and says how each of them ended.
    ///
    /// # Errors
    /// Only when there is nobody to ask: `NotFound` for an unknown source, `NoSource` when none has the signal.
    /// Failures of sources are in the coverage, not here.
    pub async fn fan_out<T, F, Fut>(&self, permit: &Permit, ask: Ask<'_>, question: F) -> Result<FanOut<T>, Fault>
    where
        F: Fn(Arc<dyn Source>, Permit) -> Fut + Sync,
        Fut: Future<Output = Result<Found<T>, Fault>> + Send,
        T: Send,
    {
        let (asked, skipped) = self.choose(permit, ask)?;
        let patience = ask.patience.min(permit.time_left().mul_f64(SHARE_OF_DEADLINE));
        let deadline = Instant::now() + patience;
        let bounded = permit.with_deadline_at_most(deadline);
        let runs = asked.into_iter().map(|source| {
            let name = source.name().clone();
            permit.trail().reached(name.as_str());
            let run = question(source, bounded.clone());
            async move {
                let outcome = tokio::time::timeout_at(deadline.into(), run).await.unwrap_or_else(|_| Err(too_slow(patience)));
                (name, outcome)
            }
        });
        let mut fan = FanOut { answers: Vec::new(), coverage: Vec::new(), faults: Vec::new() };
        for (name, outcome) in join_all(runs).await {
            fan.coverage.push(settle(&name, &outcome));
            match outcome {
                Ok(found) => fan.answers.push((name, found.value)),
                Err(fault) if fault.code() == FaultCode::NoSource => {}
                Err(fault) => {
                    tracing::warn!(source = %name, code = fault.code().as_str(), internal = fault.internal(), "source failed: {fault}");
                    fan.faults.push((name, fault));
                }
            }
        }
        fan.coverage.extend(skipped);
        Ok(fan)
    }
}

fn too_slow(patience: Duration) -> Fault {
    Fault::new(FaultCode::DeadlineExceeded, format!("no answer within {}", format_duration(patience)))
}

fn settle<T>(name: &SourceName, outcome: &Result<Found<T>, Fault>) -> Coverage {
    match outcome {
        Ok(Found { missing: Some(missing), .. }) => {
            Coverage { source: name.clone(), state: CoverageState::Partial, reason: Some(missing.clone()) }
        }
        Ok(found) => Coverage::answered(name.clone(), found.has_data),
        Err(fault) if fault.code() == FaultCode::NoSource => {
            Coverage { source: name.clone(), state: CoverageState::Skipped, reason: Some(fault.in_all_words()) }
        }
        Err(fault) => {
            let reason = match fault.hint() {
                Some(hint) => format!("{} ({hint})", fault.in_all_words()),
                None => fault.in_all_words(),
            };
            Coverage::failed(name.clone(), reason)
        }
    }
}

/// Joins the coverage of several questions to the same sources into one entry per source.
///
/// A source that failed one question and answered another is partial, and the reason says which. `Empty` is only said
/// of a source that had nothing for any question.
pub fn merge_coverage(parts: &[(&str, Vec<Coverage>)]) -> Vec<Coverage> {
    let mut order: Vec<SourceName> = Vec::new();
    for entry in parts.iter().flat_map(|(_, coverage)| coverage) {
        if !order.contains(&entry.source) {
            order.push(entry.source.clone());
        }
    }
    order.into_iter().map(|source| merge_one(source, parts)).collect()
}

fn merge_one(source: SourceName, parts: &[(&str, Vec<Coverage>)]) -> Coverage {
    let entries: Vec<(&str, &Coverage)> = parts
        .iter()
        .flat_map(|(what, coverage)| coverage.iter().map(move |entry| (*what, entry)))
        .filter(|(_, entry)| entry.source == source)
        .collect();
    let count = |state| entries.iter().filter(|(_, entry)| entry.state == state).count();
    let asked = entries.len() - count(CoverageState::Skipped);
    let troubled = |entry: &Coverage| matches!(entry.state, CoverageState::Failed | CoverageState::Partial);
    let state = if asked == 0 {
        CoverageState::Skipped
    } else if count(CoverageState::Failed) == asked {
        CoverageState::Failed
    } else if entries.iter().any(|(_, entry)| troubled(entry)) {
        CoverageState::Partial
    } else if count(CoverageState::Answered) > 0 {
        CoverageState::Answered
    } else {
        CoverageState::Empty
    };
    let reason = match state {
        CoverageState::Answered => None,
        CoverageState::Empty => Some("no matching data in this window".to_owned()),
        CoverageState::Skipped => entries.first().and_then(|(_, entry)| entry.reason.clone()),
        CoverageState::Failed | CoverageState::Partial => {
            // One reason for several questions is said once.
            let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
            for (what, entry) in entries.iter().filter(|(_, entry)| troubled(entry)) {
                let reason = entry.reason.as_deref().unwrap_or("no reason given");
                match reasons.iter_mut().find(|(held, _)| *held == reason) {
                    Some((_, whats)) => whats.push(what),
                    None => reasons.push((reason, vec![what])),
                }
            }
            let words: Vec<String> = reasons.iter().map(|(reason, whats)| format!("{}: {reason}", whats.join(", "))).collect();
            Some(words.join("; "))
        }
    };
    Coverage { source, state, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source: &str, state: CoverageState, reason: &str) -> Coverage {
        Coverage { source: SourceName::new(source).unwrap(), state, reason: (!reason.is_empty()).then(|| reason.to_owned()) }
    }

    #[test]
    fn a_failure_next_to_an_answer_is_partial_and_named() {
        let merged = merge_coverage(&[
            ("logs", vec![entry("a", CoverageState::Answered, ""), entry("b", CoverageState::Failed, "down")]),
            (
                "traces",
                vec![entry("a", CoverageState::Failed, "no answer within 10s"), entry("b", CoverageState::Failed, "down")],
            ),
            ("alerts", vec![entry("a", CoverageState::Skipped, "has no alerts"), entry("c", CoverageState::Empty, "nothing")]),
        ]);
        assert_eq!(merged[0], entry("a", CoverageState::Partial, "traces: no answer within 10s"));
        assert_eq!(merged[1], entry("b", CoverageState::Failed, "logs, traces: down"));
        assert_eq!(merged[2], entry("c", CoverageState::Empty, "no matching data in this window"));
    }

    #[test]
    fn skipped_everywhere_stays_skipped() {
        let merged = merge_coverage(&[("logs", vec![entry("a", CoverageState::Skipped, "has no logs")])]);
        assert_eq!(merged, vec![entry("a", CoverageState::Skipped, "has no logs")]);
    }
}

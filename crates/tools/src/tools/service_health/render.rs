//! The health answer in words and as data.
//!
//! Guards that "healthy" is only said together with what was looked at, and that the suspects come with their reasons.
//! Names, labels and log lines are untrusted and stay on their line.

use std::fmt::Write as _;
use std::sync::Arc;

use portcullis_analysis::{HealthStatus, Suspect, Template};
use portcullis_model::{Alert, Timestamp};
use portcullis_shape::one_line;
use serde_json::{Map, Value, json};

use super::evidence::{Evidence, NewVersion};
use super::frame::Frame;
use super::judge::Judged;
use crate::time::{brief, describe, rough};
use crate::tools::list_alerts::line as alert_line;
use crate::tools::query_metrics::number;

const MAX_REASONS: usize = 5;
const MAX_ALERTS: usize = 5;
const MAX_NAMES: usize = 30;
/// Suspects told with all their reasons; the rest in one line.
const TOLD: usize = 2;

/// Everything that is to be shown.
pub(super) struct Picture<'a> {
    pub(super) frame: Frame,
    pub(super) now: Timestamp,
    /// The one service asked for.
    pub(super) focus: Option<&'a Judged>,
    /// Worst first.
    pub(super) services: &'a [Judged],
    pub(super) limit: usize,
    pub(super) onset: Option<Timestamp>,
    pub(super) data_from: Option<Timestamp>,
    pub(super) suspects: &'a [Suspect],
    /// Why the suspects are worth less than usual.
    pub(super) caveat: Option<&'a str>,
    pub(super) evidence: &'a [(Arc<str>, Evidence)],
    pub(super) alerts: &'a [Alert],
    /// Signals that could not be looked at.
    pub(super) blind: &'a [String],
}

impl Picture<'_> {
    fn evidence_of(&self, service: &str) -> Option<&Evidence> {
        self.evidence.iter().find(|(name, _)| &**name == service).map(|(_, evidence)| evidence)
    }

    fn bad(&self) -> Vec<&Judged> {
        self.services.iter().filter(|judged| judged.is_bad()).collect()
    }

    fn with_status(&self, status: HealthStatus) -> Vec<&Judged> {
        self.services.iter().filter(|judged| judged.health.status == status).collect()
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let against = match self.frame.baseline {
            Some(baseline) if self.frame.is_contiguous() => format!(" against the {} before", rough(baseline.length())),
            Some(baseline) => format!(" against {}", describe(baseline)),
            None => ", with nothing to compare".to_owned(),
        };
        let begins = self.data_from.map(|at| format!("; data begins {}", brief(at, self.frame.window))).unwrap_or_default();
        let _ = writeln!(text, "{}{against}{begins}", describe(self.frame.window));
        match self.focus {
            Some(judged) => self.write_focus(&mut text, judged),
            None => self.write_overview(&mut text),
        }
        self.write_suspects(&mut text);
        self.write_alerts(&mut text);
        if !self.blind.is_empty() {
            let _ = writeln!(text, "not looked at: {}", self.blind.join("; "));
        }
        text
    }

    fn write_focus(&self, text: &mut String, judged: &Judged) {
        let score = judged.health.score.map(|score| format!(", score {score}/100")).unwrap_or_default();
        let _ = writeln!(text, "{} is {}{score}", one_line(&judged.service, 120), judged.health.status.as_str().to_uppercase());
        for part in &judged.health.parts {
            let _ = writeln!(text, "  {} {}", part.status.as_str(), one_line(&part.reason, 240));
        }
        for finding in &judged.findings {
            let _ = writeln!(text, "  noticed: {}", one_line(&finding.detail, 240));
        }
        if let Some(evidence) = self.evidence_of(&judged.service).filter(|_| !self.tells(&judged.service)) {
            self.write_evidence(text, evidence);
        }
    }

    fn write_overview(&self, text: &mut String) {
        let bad = self.bad();
        let (unknown, healthy) = (self.with_status(HealthStatus::Unknown), self.with_status(HealthStatus::Healthy));
        let _ = writeln!(
            text,
            "{} services: {} in trouble, {} healthy, {} unknown",
            self.services.len(),
            bad.len(),
            healthy.len(),
            unknown.len()
        );
        for judged in bad.iter().take(self.limit) {
            let since = judged.onset().map(|at| format!(" since {}", brief(at, self.frame.window))).unwrap_or_default();
            let _ = writeln!(
                text,
                "{} {}{since}: {}",
                judged.health.status.as_str().to_uppercase(),
                one_line(&judged.service, 120),
                one_line(&judged.health.reasons.iter().take(judged.bad_reasons()).cloned().collect::<Vec<_>>().join("; "), 300)
            );
        }
        if bad.len() > self.limit {
            let _ = writeln!(text, "(+{} more in trouble)", bad.len() - self.limit);
        }
        if !healthy.is_empty() {
            let _ = writeln!(text, "healthy: {}", names(&healthy));
        }
        if !unknown.is_empty() {
            let _ = writeln!(text, "unknown (no requests seen to judge by): {}", names(&unknown));
        }
    }

    /// Whether a service is among the suspects told in full.
    fn tells(&self, service: &str) -> bool {
        self.suspects.iter().take(TOLD).any(|suspect| &*suspect.service == service)
    }

    fn write_suspects(&self, text: &mut String) {
        let Some(first) = self.suspects.first() else { return };
        if let Some(onset) = self.onset {
            let _ = writeln!(text, "trouble began about {}", brief(onset, self.frame.window));
        }
        if let Some(caveat) = self.caveat {
            let _ = writeln!(text, "less certain than usual: {}", one_line(caveat, 300));
        }
        let cause = if self.caveat.is_some() { "POSSIBLE CAUSE" } else { "LIKELY CAUSE" };
        for (index, suspect) in self.suspects.iter().take(TOLD).enumerate() {
            let word = if index == 0 { cause } else { "then" };
            let _ = writeln!(text, "{word}: {} (score {:.2})", one_line(&suspect.service, 120), suspect.score);
            if suspect.chain.len() > 1 {
                let chain: Vec<String> = suspect.chain.iter().map(|name| one_line(name, 80)).collect();
                let _ = writeln!(text, "  spread: {}", chain.join(" > "));
            }
            let evidence = self.evidence_of(&suspect.service);
            // A new version is told with what was there before it, below.
            let told = |reason: &&String| !(reason.starts_with("version ") && evidence.is_some_and(|e| !e.versions.is_empty()));
            for reason in suspect.reasons.iter().filter(told).take(if index == 0 { MAX_REASONS } else { 2 }) {
                let _ = writeln!(text, "  - {}", one_line(reason, 240));
            }
            if let Some(evidence) = evidence {
                self.write_evidence(text, evidence);
            }
        }
        let rest: Vec<String> = self
            .suspects
            .iter()
            .skip(TOLD)
            .take(4)
            .map(|suspect| {
                let by =
                    suspect.explained_by.as_ref().map(|by| format!(", explained by {}", one_line(by, 80))).unwrap_or_default();
                format!("{} ({:.2}{by})", one_line(&suspect.service, 80), suspect.score)
            })
            .collect();
        if !rest.is_empty() {
            let _ = writeln!(text, "less likely: {}", rest.join(", "));
        }
        if first.score < 0.3 {
            text.push_str("No suspect stands out; take the order as a hint only.\n");
        }
    }

    fn write_evidence(&self, text: &mut String, evidence: &Evidence) {
        for version in &evidence.versions {
            let _ = writeln!(text, "  - changed: {}", version_words(version, &self.frame));
        }
        for (template, new) in &evidence.patterns {
            let _ = writeln!(text, "  - {}", pattern_words(template, *new, &self.frame));
        }
    }

    fn write_alerts(&self, text: &mut String) {
        if self.alerts.is_empty() {
            return;
        }
        let _ = writeln!(text, "{} alerts firing or pending", self.alerts.len());
        for alert in self.alerts.iter().take(MAX_ALERTS) {
            let _ = writeln!(text, "  {}", alert_line(alert, self.now));
        }
        if self.alerts.len() > MAX_ALERTS {
            let _ = writeln!(text, "  (+{} more: list_alerts)", self.alerts.len() - MAX_ALERTS);
        }
    }

    /// Services for the structured answer.
    pub(super) fn rows(&self) -> Vec<Value> {
        match self.focus {
            Some(judged) => vec![row(judged, true)],
            None => self.services.iter().take(self.limit).map(|judged| row(judged, judged.is_bad())).collect(),
        }
    }

    /// Suspects for the structured answer.
    pub(super) fn suspect_rows(&self) -> Vec<Value> {
        let one = |suspect: &Suspect| {
            let mut value = json!({
                "service": one_line(&suspect.service, 120),
                "score": (suspect.score * 100.0).round() / 100.0,
                "reasons": suspect.reasons.iter().take(MAX_REASONS).map(|r| one_line(r, 240)).collect::<Vec<_>>(),
            });
            let Some(object) = value.as_object_mut() else { return value };
            if suspect.chain.len() > 1 {
                object.insert("chain".to_owned(), json!(suspect.chain.iter().map(|n| one_line(n, 80)).collect::<Vec<_>>()));
            }
            let optional = [
                ("onset", suspect.onset.map(|at| at.to_string())),
                ("explained_by", suspect.explained_by.as_ref().map(|by| one_line(by, 120))),
            ];
            object.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), json!(value)))));
            if let Some(evidence) = self.evidence_of(&suspect.service) {
                add_evidence(object, evidence, &self.frame);
            }
            value
        };
        self.suspects.iter().take(6).map(one).collect()
    }
}

fn names(judged: &[&Judged]) -> String {
    let shown: Vec<String> = judged.iter().take(MAX_NAMES).map(|one| one_line(&one.service, 80)).collect();
    let rest = judged.len().saturating_sub(MAX_NAMES);
    if rest > 0 { format!("{} (+{rest} more: list_services)", shown.join(", ")) } else { shown.join(", ") }
}

impl Judged {
    /// How many of the reasons speak of something bad; the others of something unknown.
    fn bad_reasons(&self) -> usize {
        self.health.parts.iter().filter(|part| part.status >= HealthStatus::Degraded).count().max(1)
    }
}

fn version_words(version: &NewVersion, frame: &Frame) -> String {
    let before: Vec<String> = version.before.iter().take(3).map(|name| one_line(name, 40)).collect();
    format!(
        "version {} first seen {} (before: {})",
        one_line(&version.version, 60),
        brief(version.at, frame.window),
        before.join(", ")
    )
}

fn pattern_words(template: &Template, new: bool, frame: &Frame) -> String {
    let level = template.severities.highest().map_or("log", |severity| severity.as_str());
    let what = if new { format!("new {level}") } else { format!("more of {level}") };
    let first = template.first_seen.map(|at| format!(" from {}", brief(at, frame.window))).unwrap_or_default();
    format!("{what} ×{}{first}: {}", template.count, one_line(&template.text, 200))
}

fn add_evidence(object: &mut Map<String, Value>, evidence: &Evidence, frame: &Frame) {
    if !evidence.versions.is_empty() {
        object.insert("changes".to_owned(), json!(evidence.versions.iter().map(|v| version_words(v, frame)).collect::<Vec<_>>()));
    }
    if !evidence.patterns.is_empty() {
        let words: Vec<String> = evidence.patterns.iter().map(|(template, new)| pattern_words(template, *new, frame)).collect();
        object.insert("log_patterns".to_owned(), json!(words));
    }
}

fn row(judged: &Judged, with_reasons: bool) -> Value {
    let mut value = json!({"service": one_line(&judged.service, 120), "status": judged.health.status.as_str()});
    let Some(object) = value.as_object_mut() else { return value };
    let readings = judged.readings;
    let figures = [
        ("requests_per_s", readings.rate),
        ("error_ratio", readings.errors),
        ("latency_p95_s", readings.p95),
        ("saturation", readings.saturation),
        ("error_logs_per_s", readings.error_logs),
    ];
    object.extend(figures.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), number(value)))));
    if let Some(score) = judged.health.score {
        object.insert("score".to_owned(), json!(score));
    }
    if let Some(onset) = judged.onset() {
        object.insert("since".to_owned(), json!(onset.to_string()));
    }
    if with_reasons {
        let reasons: Vec<String> = judged.health.reasons.iter().map(|reason| one_line(reason, 240)).collect();
        object.insert("reasons".to_owned(), json!(reasons));
        if !judged.scarce.is_empty() && readings.saturation.is_some_and(|s| s >= 0.5) {
            object.insert("scarce".to_owned(), json!(judged.scarce));
        }
    }
    value
}

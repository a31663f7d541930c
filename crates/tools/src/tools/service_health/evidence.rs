//! What changed at the first suspects: versions seen for the first time, log patterns that were not there before.
//!
//! Guards cost: only a few services are looked at this closely. A version that was there from the beginning of the data is
//! no change. Must not rank.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_analysis::Template;
use portcullis_model::{Coverage, Severity, Signal, TimeWindow, Timestamp};
use portcullis_policy::Permit;
use portcullis_ports::{LogCountRequest, LogFilter};

use super::frame::Frame;
use crate::patterns::mine;
use crate::sources::{Ask, Found, Sources};

const VERSION: &str = "service.version";
const MAX_VERSIONS: usize = 20;
const MAX_PATTERNS: usize = 3;
/// Rate change from which a known pattern counts as evidence.
const SURGE: f64 = 3.0;
const SURGE_LINES: u64 = 3;

/// A version that appeared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewVersion {
    pub(super) version: String,
    /// Start of the bin in which it was first seen.
    pub(super) at: Timestamp,
    /// Versions seen before it.
    pub(super) before: Vec<String>,
}

/// What was found about one service.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) versions: Vec<NewVersion>,
    /// With whether each is new.
    pub(super) patterns: Vec<(Template, bool)>,
    pub(super) coverage: Vec<Coverage>,
}

fn filter(window: TimeWindow, service: &str, minimum_severity: Option<Severity>) -> LogFilter {
    LogFilter { window, service: Some(service.to_owned()), minimum_severity, text: None, attributes: Vec::new(), trace_id: None }
}

/// Looks closely at one service. A failure leaves its part empty and shows in the coverage.
pub(super) async fn collect(
    sources: &Sources,
    permit: &Permit,
    source: Option<&str>,
    service: &Arc<str>,
    frame: &Frame,
    onset: Timestamp,
) -> Evidence {
    let (versions, patterns) = futures::join!(
        versions(sources, permit, source, service, frame),
        patterns(sources, permit, source, service, frame, onset),
    );
    let mut evidence = Evidence::default();
    if let Some((found, coverage)) = versions {
        evidence.versions = found;
        evidence.coverage.extend(coverage);
    }
    if let Some((found, coverage)) = patterns {
        evidence.patterns = found;
        evidence.coverage.extend(coverage);
    }
    evidence
}

async fn versions(
    sources: &Sources,
    permit: &Permit,
    source: Option<&str>,
    service: &str,
    frame: &Frame,
) -> Option<(Vec<NewVersion>, Vec<Coverage>)> {
    let request = |window| LogCountRequest {
        filter: filter(window, service, None),
        by: vec![VERSION.to_owned()],
        step: Some(frame.bin),
        top: MAX_VERSIONS,
    };
    let requests: Vec<LogCountRequest> = frame.parts().into_iter().map(request).collect();
    let asked = &requests;
    let fan = sources
        .fan_out(permit, Ask::signal(Signal::Logs, source), |source, permit| async move {
            let mut seen: BTreeMap<String, Timestamp> = BTreeMap::new();
            for request in asked {
                for group in source.log_counts(&permit, request).await?.groups {
                    let Some(version) = group.key.get(VERSION).filter(|v| !v.is_empty()) else { continue };
                    let Some(first) = group.over_time.iter().filter(|(_, n)| *n > 0).map(|(at, _)| *at).min() else { continue };
                    seen.entry(version.clone()).and_modify(|at| *at = (*at).min(first)).or_insert(first);
                }
            }
            Ok(Found::new(seen, true))
        })
        .await
        .ok()?;
    let mut seen: BTreeMap<String, Timestamp> = BTreeMap::new();
    for (version, first) in fan.answers.into_iter().flat_map(|(_, seen)| seen) {
        seen.entry(version).and_modify(|at| *at = (*at).min(first)).or_insert(first);
    }
    Some((appeared(&seen, frame), fan.coverage))
}

/// The versions whose first sight lies clearly after the first sight of another.
fn appeared(seen: &BTreeMap<String, Timestamp>, frame: &Frame) -> Vec<NewVersion> {
    let Some(begin) = seen.values().min().copied() else { return Vec::new() };
    let late = |(version, at): (&String, &Timestamp)| {
        (at.since(begin) > frame.bin).then(|| NewVersion {
            version: version.clone(),
            at: *at,
            before: seen.iter().filter(|(_, other)| *other < at).map(|(name, _)| name.clone()).collect(),
        })
    };
    let mut found: Vec<NewVersion> = seen.iter().filter_map(late).collect();
    found.sort_by_key(|new| new.at);
    found
}

/// How much a pattern tells: severe, new and frequent ones most.
fn weight(template: &Template, new: bool) -> f64 {
    let severity = match template.severities.highest() {
        Some(Severity::Fatal) => 2.0,
        Some(Severity::Error) => 1.5,
        _ => 1.0,
    };
    (1.0 + template.count as f64).ln() * severity * if new { 2.0 } else { 1.0 }
}

async fn patterns(
    sources: &Sources,
    permit: &Permit,
    source: Option<&str>,
    service: &str,
    frame: &Frame,
    onset: Timestamp,
) -> Option<(Vec<(Template, bool)>, Vec<Coverage>)> {
    let from = onset.minus(frame.bin * 2);
    let begin = frame.baseline.filter(|_| frame.is_contiguous()).map_or(frame.window.start, |baseline| baseline.start);
    let window = TimeWindow::new(from.max(begin), frame.window.end).ok()?;
    let baseline = if frame.is_contiguous() || from > begin { TimeWindow::new(begin, window.start).ok() } else { frame.baseline };
    let fan = mine(sources, permit, source, &filter(window, service, Some(Severity::Warn)), baseline).await.ok()?;
    let mut found: Vec<(Template, bool)> = Vec::new();
    if let Some((_, mined)) = fan.answers.into_iter().next() {
        let mut templates: Vec<&Template> = mined
            .report
            .templates
            .iter()
            .filter(|t| mined.is_new(t) || t.count >= SURGE_LINES && t.rate_change.is_some_and(|change| change >= SURGE))
            .collect();
        let weight = |template: &Template| weight(template, mined.is_new(template));
        templates.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then_with(|| a.text.cmp(&b.text)));
        found.extend(templates.into_iter().take(MAX_PATTERNS).map(|template| (template.clone(), mined.is_new(template))));
    }
    Some((found, fan.coverage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_appear_are_changes() {
        let at = |seconds: i64| Timestamp::from_seconds(1_772_359_200 + seconds);
        let frame = Frame::new(TimeWindow::new(at(0), at(900)).unwrap(), None);
        let seen = BTreeMap::from([("1.7.4".to_owned(), at(0)), ("1.8.0".to_owned(), at(300)), ("1.7.5".to_owned(), at(30))]);
        let found = appeared(&seen, &frame);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].version.as_str(), found[0].at), ("1.8.0", at(300)));
        assert_eq!(found[0].before, ["1.7.4", "1.7.5"]);
        assert!(appeared(&BTreeMap::from([("1".to_owned(), at(500))]), &frame).is_empty());
    }
}

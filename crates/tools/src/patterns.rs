//! Reading log templates from several sources: one miner per source, reports put together by wording.
//!
//! Guards that a source that failed half-way adds nothing, that a scan that stopped early says so, and that "new" is
//! only said against a baseline that was read. Must not decide which templates are worth showing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_analysis::{Miner, MinerOptions, Period, Template, TemplateReport, Windows};
use portcullis_model::{Fault, Severity, Signal, TimeWindow, Timestamp, format_duration};
use portcullis_policy::Permit;
use portcullis_ports::{LogFilter, ScanEnd, Source};

use crate::sources::{Ask, FanOut, Found, Sources};

/// From how many baseline lines on the first of them tells where the data begins.
const ENOUGH_LINES: u64 = 50;
/// Share of a source's time the window itself may take; the baseline gets the rest.
const SHARE_OF_WINDOW: f64 = 0.6;
const SHARE_OF_REST: f64 = 0.85;

/// Templates of one window against another.
#[derive(Debug)]
pub(crate) struct Mined {
    /// Most telling first, as the analysis orders them.
    pub(crate) report: TemplateReport,
    /// Whether the baseline was read (it may still have had no matching line).
    pub(crate) compared: bool,
    /// The part of the baseline that has data: rates are against it.
    pub(crate) baseline: Option<TimeWindow>,
}

impl Mined {
    /// Whether a template did not occur before. Without any line in a baseline that was read, everything is new.
    pub(crate) fn is_new(&self, template: &Template) -> bool {
        self.compared && template.count > 0 && template.baseline_count.unwrap_or(0) == 0
    }
}

/// What one source gave.
struct Part {
    report: TemplateReport,
    compared: bool,
    baseline: Option<TimeWindow>,
}

/// Reads `filter` and, with the same conditions, `baseline`, in every source with logs.
///
/// # Errors
/// As [`Sources::fan_out`]; also when every source refused the question.
pub(crate) async fn mine(
    sources: &Sources,
    permit: &Permit,
    source: Option<&str>,
    filter: &LogFilter,
    baseline: Option<TimeWindow>,
) -> Result<FanOut<Mined>, Fault> {
    let fan = sources
        .fan_out(permit, Ask::signal(Signal::Logs, source), |source, permit| mine_one(source, permit, filter, baseline))
        .await?
        .or_refusal()?;
    let FanOut { answers, coverage, faults } = fan;
    let mut names = answers.iter().map(|(name, _)| name.clone());
    let joined = names.next().map(|name| (name, join(answers.into_iter().map(|(_, part)| part).collect())));
    Ok(FanOut { answers: joined.into_iter().collect(), coverage, faults })
}

async fn mine_one(
    source: Arc<dyn Source>,
    permit: Permit,
    filter: &LogFilter,
    baseline: Option<TimeWindow>,
) -> Result<Found<Part>, Fault> {
    let mut miner = Miner::new(MinerOptions::default());
    let mut missing: Vec<String> = Vec::new();
    let patience = permit.time_left().mul_f64(if baseline.is_some() { SHARE_OF_WINDOW } else { SHARE_OF_REST });
    missing.extend(scan(source.as_ref(), &permit, filter, patience, &mut miner, Period::Current).await?.missing);
    let lines = miner.lines();
    let mut compared = false;
    let mut with_data = baseline;
    if let Some(window) = baseline {
        let before = LogFilter { window, ..filter.clone() };
        let patience = permit.time_left().mul_f64(SHARE_OF_REST);
        match scan(source.as_ref(), &permit, &before, patience, &mut miner, Period::Baseline).await {
            Ok(scanned) => {
                compared = true;
                // A baseline that reaches back beyond the first data would make every rate look risen.
                let begins = scanned.earliest.filter(|_| miner.lines() - lines >= ENOUGH_LINES);
                with_data = begins.and_then(|begins| TimeWindow::new(begins, window.end).ok()).or(baseline);
                missing.extend(scanned.missing.map(|note| format!("baseline: {note}, so \"new\" may be wrong")));
            }
            Err(fault) => missing.push(format!("the baseline could not be read: {}", fault.in_all_words())),
        }
    }
    let windows = Windows { current: filter.window.length(), baseline: with_data.map_or(Duration::ZERO, |w| w.length()) };
    let report = miner.report(Some(windows));
    let missing = (!missing.is_empty()).then(|| missing.join("; "));
    Ok(Found::new(Part { report, compared, baseline: with_data }, lines > 0).partial(missing))
}

/// What a scan found out besides the lines.
struct Scanned {
    /// What was left out.
    missing: Option<String>,
    /// Time of the earliest line.
    earliest: Option<Timestamp>,
}

/// Scans into the miner.
async fn scan(
    source: &dyn Source,
    permit: &Permit,
    filter: &LogFilter,
    patience: Duration,
    miner: &mut Miner,
    period: Period,
) -> Result<Scanned, Fault> {
    let mut read: u64 = 0;
    let mut earliest: Option<Timestamp> = None;
    let mut visit = |line: portcullis_ports::LogLine<'_>| {
        read += 1;
        let portcullis_ports::LogLine { at, severity, service, body } = line;
        earliest = Some(earliest.map_or(at, |held| held.min(at)));
        miner.observe(period, &portcullis_analysis::LogLine { at, severity, service, body });
    };
    let missing = match tokio::time::timeout(patience, source.scan_logs(permit, filter, &mut visit)).await {
        Ok(Ok(ScanEnd { complete: true, .. })) => None,
        Ok(Ok(ScanEnd { scanned, .. })) => Some(format!("only the newest {scanned} lines were read")),
        Ok(Err(fault)) => return Err(fault),
        Err(_) if read > 0 => Some(format!("only {read} lines were read within {}", format_duration(patience))),
        Err(_) => {
            let words = format!("no line was read within {}", format_duration(patience));
            return Err(Fault::new(portcullis_model::FaultCode::DeadlineExceeded, words));
        }
    };
    Ok(Scanned { missing, earliest })
}

/// Puts reports together by wording.
fn join(parts: Vec<Part>) -> Mined {
    let compared = parts.iter().any(|part| part.compared);
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else {
        let report = TemplateReport {
            templates: Vec::new(),
            lines: 0,
            baseline_lines: 0,
            overflow_lines: 0,
            overflow_examples: Vec::new(),
        };
        return Mined { report, compared, baseline: None };
    };
    let mut report = first.report;
    let mut baseline = first.baseline;
    for part in parts {
        let mut by_text: BTreeMap<String, usize> =
            report.templates.iter().enumerate().map(|(index, template)| (template.text.clone(), index)).collect();
        for template in part.report.templates {
            if let Some(held) = by_text.get(&template.text).and_then(|index| report.templates.get_mut(*index)) {
                add(held, template);
            } else {
                by_text.insert(template.text.clone(), report.templates.len());
                report.templates.push(template);
            }
        }
        if let (Some(held), Some(other)) = (&mut baseline, part.baseline) {
            held.start = held.start.min(other.start);
        }
        report.lines += part.report.lines;
        report.baseline_lines += part.report.baseline_lines;
        report.overflow_lines += part.report.overflow_lines;
        report.overflow_examples.extend(part.report.overflow_examples);
        // Each report came sorted; appended ones must find their place.
        report.templates.sort_by_key(|template| std::cmp::Reverse(telling(template)));
    }
    Mined { report, compared, baseline }
}

fn add(held: &mut Template, other: Template) {
    held.count += other.count;
    held.baseline_count = match (held.baseline_count, other.baseline_count) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    held.new = held.baseline_count.map(|before| before == 0 && held.count > 0);
    held.first_seen = match (held.first_seen, other.first_seen) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    held.last_seen = held.last_seen.max(other.last_seen);
    held.rate_change = held.rate_change.or(other.rate_change);
    for (service, count) in other.services {
        match held.services.iter_mut().find(|(name, _)| *name == service) {
            Some((_, sum)) => *sum += count,
            None => held.services.push((service, count)),
        }
    }
    held.other_services += other.other_services;
    held.severities.unknown += other.severities.unknown;
    held.severities.trace += other.severities.trace;
    held.severities.debug += other.severities.debug;
    held.severities.info += other.severities.info;
    held.severities.warn += other.severities.warn;
    held.severities.error += other.severities.error;
    held.severities.fatal += other.severities.fatal;
    for example in other.examples {
        if held.examples.len() < 3 && !held.examples.contains(&example) {
            held.examples.push(example);
        }
    }
}

/// Severe before harmless, new before known, then the rarer, as the analysis orders one report.
fn telling(template: &Template) -> (Option<Severity>, bool, bool, std::cmp::Reverse<u64>) {
    let severity = template.severities.highest().filter(|severity| *severity >= Severity::Warn);
    (severity, template.count > 0, template.new == Some(true), std::cmp::Reverse(template.count))
}

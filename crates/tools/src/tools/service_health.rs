//! `get_service_health`: is it fine, since when not, and which service would explain the others.
//!
//! Guards against blaming the loudest and against an all-clear nobody looked for: health stands on spans, logs and
//! saturation against a baseline, suspects on real call edges, and what could not be read is named.

mod evidence;
mod frame;
mod gather;
mod judge;
mod red;
mod render;
mod sample;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_analysis::{Finding, FindingKind, HealthStatus, Suspect};
use portcullis_model::{Alert, Clock, CompletionKind, Coverage, Fault, Timestamp, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, Tool, Total};
use portcullis_shape::one_line;
use serde::Deserialize;

use crate::answer::{Answer, Counts};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Sources, merge_coverage};
use crate::time::{Chosen, TimeArguments, describe};
use crate::tools::list_alerts::rank;
use crate::tools::log_patterns::baseline;
use evidence::Evidence;
use frame::{BASELINE_TIMES, Frame};
use gather::{Gathered, Question, gather};
use judge::{Calls, Verdicts, judge};
use render::Picture;

const DEFAULT_WINDOW: Duration = Duration::from_mins(30);
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 100;
/// Suspects looked at closely.
const LOOKED_AT: usize = 3;
/// A change this long before the onset can have caused it.
const CAUSE_HORIZON: Duration = Duration::from_mins(15);
/// Own evidence from which a service stays among the suspects although its own figures are fine.
const TELLING: f64 = 0.3;
const COMPARISONS: [&str; 4] = ["previous", "day", "week", "none"];

/// The tool.
pub(crate) struct ServiceHealth {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    service: Option<String>,
    compare: Option<String>,
    source: Option<String>,
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    limit: Option<u32>,
}

impl ServiceHealth {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: "get_service_health",
            title: "Service health",
            description: "Start here. Without service: which services are in trouble, since when, and likely causes ranked along real \
                          calls, with reasons and what changed. With service: that one.",
            input: schema::input(
                &[
                    ("service", schema::service()),
                    ("compare", schema::compare(&COMPARISONS, BASELINE_TIMES)),
                    ("source", schema::source()),
                    ("window", schema::window("30m")),
                    ("start", schema::start()),
                    ("end", schema::end()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                ],
                &[],
            ),
            output: schema::output(&[("services", "array"), ("suspects", "array"), ("alerts", "array")]),
            completions: &[
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
                ("compare", schema::fixed(&COMPARISONS)),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }

    /// Ranks, looks closely at the first, and ranks again with what changed there.
    async fn suspects(&self, permit: &Permit, asked: &Asked<'_>, verdicts: &Verdicts, calls: &Calls) -> Suspected {
        let trouble = match asked.service {
            None => verdicts.services.iter().any(judge::Judged::is_bad),
            Some(service) => {
                let near = calls.connected(service);
                verdicts.services.iter().any(|judged| judged.is_bad() && near.contains(&judged.service))
            }
        };
        let mut findings: Vec<Finding> = verdicts.services.iter().flat_map(|judged| judged.findings.clone()).collect();
        let mut suspected = Suspected::default();
        if !trouble {
            return suspected;
        }
        let frame = asked.frame;
        let onset = verdicts.onset.unwrap_or(frame.window.start);
        let near = |ranking: portcullis_analysis::Ranking| -> Vec<Suspect> {
            let connected = asked.service.map(|service| calls.connected(service));
            ranking.suspects.into_iter().filter(|s| connected.as_ref().is_none_or(|c| c.contains(&s.service))).collect()
        };
        let scope = &permit.scope().services;
        let first: Vec<Suspect> = near(calls.rank(&findings, frame.bin));
        let mut looked: BTreeSet<Arc<str>> =
            first.iter().map(|suspect| suspect.service.clone()).filter(|name| scope.contains(name)).take(LOOKED_AT).collect();
        looked.extend(asked.service.map(Arc::from));
        let collected = looked.iter().map(|service| async {
            let evidence = evidence::collect(&self.sources, permit, asked.source, service, &frame, onset).await;
            (service.clone(), evidence)
        });
        suspected.evidence = futures::future::join_all(collected).await;
        for (service, evidence) in &suspected.evidence {
            let in_time = |at: Timestamp| at >= onset.minus(CAUSE_HORIZON) && at <= onset.plus(frame.bin * 2);
            findings.extend(evidence.versions.iter().filter(|version| in_time(version.at)).map(|version| Finding {
                service: service.clone(),
                kind: FindingKind::Change,
                onset: Some(version.at),
                severity: 0.5,
                detail: format!("version {} appeared {}", version.version, crate::time::short(version.at, frame.window)),
            }));
        }
        suspected.coverage = suspected.evidence.iter().flat_map(|(_, evidence)| evidence.coverage.clone()).collect();
        let ranking = calls.rank(&findings, frame.bin);
        suspected.caveat.clone_from(&ranking.caveat);
        suspected.ranked = near(ranking);
        // Further down the list only what is in trouble itself, adds to that of others, or sends nothing to judge it by.
        let healthy =
            |name: &str| verdicts.services.iter().any(|j| &*j.service == name && j.health.status == HealthStatus::Healthy);
        let mut position = 0;
        suspected.ranked.retain(|suspect| {
            position += 1;
            position == 1 || suspect.own >= TELLING || !healthy(&suspect.service)
        });
        suspected
    }
}

/// Causes that come into question.
#[derive(Default)]
struct Suspected {
    ranked: Vec<Suspect>,
    /// Why the ranking is worth less than usual.
    caveat: Option<String>,
    evidence: Vec<(Arc<str>, Evidence)>,
    coverage: Vec<Coverage>,
}

/// The question after its arguments were checked.
struct Asked<'a> {
    frame: Frame,
    service: Option<&'a str>,
    source: Option<&'a str>,
    limit: usize,
    note: Option<String>,
}

/// The alerts that concern the question: all, or those whose labels name the service.
fn alerts_of(gathered: &Gathered) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = gathered.alerts.value.iter().map(|(_, alert)| alert.clone()).collect();
    alerts.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));
    alerts
}

fn next_step(picture: &Picture<'_>) -> String {
    match (picture.suspects.first(), picture.focus) {
        (Some(suspect), _) => {
            let outermost = suspect.chain.first().unwrap_or(&suspect.service);
            format!(
                "prove it: log_patterns service={}; query_traces service={outermost} errors_only=true, then get_trace",
                suspect.service
            )
        }
        (None, Some(_)) => "query_metrics for figures over time; without service this tool compares all services".to_owned(),
        (None, None) => "with service this tool shows one service in detail; a longer window finds older trouble".to_owned(),
    }
}

#[async_trait]
impl Tool for ServiceHealth {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        let now = self.clock.now();
        let (window, start, end) = (given.window.as_deref(), given.start.as_deref(), given.end.as_deref());
        let time = TimeArguments { window, start, end, around: None };
        let Chosen { window, note } = time.choose(now, DEFAULT_WINDOW, permit.scope())?;
        let before = baseline(given.compare.as_deref(), window, BASELINE_TIMES, now, permit)?;
        let asked = Asked {
            frame: Frame::new(window, before),
            service: arguments::service(given.service.as_deref(), permit.scope())?,
            source: given.source.as_deref(),
            limit: arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?,
            note,
        };
        exchange.progress(0.0, Some(2.0), "reading spans, logs, saturation and alerts");
        let question = Question { frame: asked.frame, source: asked.source, service: asked.service };
        let mut gathered = gather(&self.sources, permit, question).await?;
        let verdicts = judge(&gathered, &asked.frame);
        let sample = std::mem::take(&mut gathered.traced.value.sample);
        let calls = Calls::learn(sample, &gathered.traced.state, &asked.frame, verdicts.onset);
        exchange.progress(1.0, Some(2.0), "looking at what changed");
        let suspected = self.suspects(permit, &asked, &verdicts, &calls).await;
        Ok(respond(&asked, &gathered, &verdicts, &suspected, now))
    }
}

fn respond(asked: &Asked<'_>, gathered: &Gathered, verdicts: &Verdicts, suspected: &Suspected, now: Timestamp) -> Outcome {
    let mut parts = gathered.coverage();
    parts.push(("evidence", suspected.coverage.clone()));
    let answer = Answer::new(merge_coverage(&parts)).window(asked.frame.window).note(asked.note.clone());
    let focus = asked.service.and_then(|name| verdicts.services.iter().find(|judged| &*judged.service == name));
    if let (Some(name), None) = (asked.service, focus) {
        return answer
            .text(format!("No signal of {name} in {}; nothing can be said about it.", describe(asked.frame.window)))
            .hint("list_services shows what was seen; try a longer window")
            .finish();
    }
    if verdicts.services.is_empty() {
        return answer
            .text(format!("No service sent anything in {}; nothing can be said.", describe(asked.frame.window)))
            .hint("list_sources shows whether data arrives; try a longer window")
            .finish();
    }
    let alerts = alerts_of(gathered);
    let blind = gathered.blind();
    let picture = Picture {
        frame: asked.frame,
        now,
        focus,
        services: &verdicts.services,
        limit: asked.limit,
        onset: verdicts.onset,
        data_from: verdicts.data_from,
        suspects: &suspected.ranked,
        caveat: suspected.caveat.as_deref(),
        evidence: &suspected.evidence,
        alerts: &alerts,
        blind: &blind,
    };
    let rows = picture.rows();
    let total = if focus.is_some() { 1 } else { verdicts.services.len() as u64 };
    let mut answer = answer
        .counts(Counts::of(rows.len(), Total::Exact(total)))
        .field("services", rows)
        .text(picture.text())
        .hint(next_step(&picture));
    if !suspected.ranked.is_empty() {
        answer = answer.field("suspects", picture.suspect_rows());
        if let Some(caveat) = &suspected.caveat {
            answer = answer.field("caveat", one_line(caveat, 300));
        }
        if let Some(onset) = verdicts.onset {
            answer = answer.field("onset", onset.to_string());
        }
    }
    if !alerts.is_empty() {
        let lines: Vec<String> =
            alerts.iter().take(asked.limit).map(|alert| crate::tools::list_alerts::line(alert, now)).collect();
        answer = answer.field("alerts", lines).field("alerts_total", alerts.len());
    }
    if !blind.is_empty() {
        answer = answer.field("not_looked_at", &blind);
    }
    answer.finish()
}

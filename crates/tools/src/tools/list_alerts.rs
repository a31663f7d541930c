//! `list_alerts`: alerts and since when.
//!
//! Guards that "no alert fires" is only said together with how many rules were looked at. Annotations are untrusted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Alert, AlertState, Clock, CompletionKind, Fault, Signal, SourceName, Timestamp, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{AlertRequest, Arguments, Exchange, Outcome, Tool, Total};
use portcullis_shape::{field_line, one_line};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Counts};
use crate::arguments;
use crate::schema::{self, Sheet};
use crate::sources::{Ask, Found, Sources};
use crate::time::rough;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 200;
const STATES: [&str; 3] = ["firing", "pending", "resolved"];
/// Labels that say where an alert belongs; others follow only in the structured answer.
const PLACE_LABELS: [&str; 7] = ["service", "service_name", "job", "namespace", "pod", "instance", "severity"];
const MAX_LABELS_SHOWN: usize = 12;

/// The tool.
pub(crate) struct ListAlerts {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    state: Option<String>,
    service: Option<String>,
    source: Option<String>,
    limit: Option<u32>,
}

impl ListAlerts {
    pub(crate) fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: "list_alerts",
            title: "List alerts",
            description: "Alerts, firing first, with since when and why.",
            input: schema::input(
                &[
                    ("state", schema::choice(&STATES, None)),
                    ("service", schema::service()),
                    ("source", schema::source()),
                    ("limit", schema::limit(DEFAULT_LIMIT, MAX_LIMIT)),
                ],
                &[],
            ),
            output: schema::output(&[("alerts", "array"), ("rules", "integer")]),
            completions: &[
                ("state", schema::fixed(&STATES)),
                ("service", CompletionKind::Service),
                ("source", CompletionKind::Source),
            ],
        })?;
        Some(Self { spec, sources, clock })
    }
}

pub(crate) fn state_word(state: AlertState) -> &'static str {
    match state {
        AlertState::Firing => "firing",
        AlertState::Pending => "pending",
        AlertState::Resolved => "resolved",
    }
}

/// Firing first, then pending; the longest-standing first among equals.
pub(crate) fn rank(alert: &Alert) -> (u8, Option<Timestamp>) {
    let order = match alert.state {
        AlertState::Firing => 0,
        AlertState::Pending => 1,
        AlertState::Resolved => 2,
    };
    (order, alert.active_since)
}

fn summary(alert: &Alert) -> String {
    let text = ["summary", "description", "message"].iter().find_map(|name| alert.annotations.get(*name));
    text.map(|text| one_line(text, 160)).unwrap_or_default()
}

pub(crate) fn line(alert: &Alert, now: Timestamp) -> String {
    let mut words = vec![state_word(alert.state).to_uppercase(), one_line(&alert.name, 100)];
    let place: Vec<String> = PLACE_LABELS
        .iter()
        .filter_map(|name| alert.labels.get(*name).map(|value| format!("{name}={}", field_line(name, value, 80))))
        .collect();
    if !place.is_empty() {
        words.push(format!("{{{}}}", place.join(",")));
    }
    if let Some(since) = alert.active_since {
        words.push(format!("for {} (since {since})", rough(now.since(since).max(Duration::from_secs(1)))));
    }
    if let Some(value) = &alert.value {
        words.push(format!("value {}", one_line(value, 40)));
    }
    let summary = summary(alert);
    if !summary.is_empty() {
        words.push(format!("· {summary}"));
    }
    words.join(" ")
}

fn structure((source, alert): &(SourceName, Alert)) -> Value {
    let labels: serde_json::Map<String, Value> = alert
        .labels
        .iter()
        .take(MAX_LABELS_SHOWN)
        .map(|(name, value)| (one_line(name, 80), json!(field_line(name, value, 200))))
        .collect();
    let mut row =
        json!({"name": one_line(&alert.name, 200), "state": state_word(alert.state), "source": source, "labels": labels});
    let Some(object) = row.as_object_mut() else { return row };
    let summary = summary(alert);
    let optional = [
        ("severity", alert.severity.as_ref().map(|s| one_line(s, 40))),
        ("since", alert.active_since.map(|at| at.to_string())),
        ("value", alert.value.as_ref().map(|v| one_line(v, 80))),
        ("summary", (!summary.is_empty()).then_some(summary)),
    ];
    object.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), json!(value)))));
    row
}

#[async_trait]
impl Tool for ListAlerts {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, _exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        let limit = arguments::limit(permit.budget().rows, given.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let state = match given.state.as_deref() {
            None => None,
            Some("firing") => Some(AlertState::Firing),
            Some("pending") => Some(AlertState::Pending),
            Some("resolved") => Some(AlertState::Resolved),
            Some(other) => {
                return Err(Fault::invalid(format!("state '{}' is not one of {}", one_line(other, 40), STATES.join(", "))));
            }
        };
        let service = arguments::service(given.service.as_deref(), permit.scope())?.map(str::to_owned);
        let request = AlertRequest { state, service };
        let asked = &request;
        let fan = self
            .sources
            .fan_out(permit, Ask::signal(Signal::Alerts, given.source.as_deref()), |source, permit| async move {
                let answer = source.alerts(&permit, asked).await?;
                let has_data = !answer.alerts.is_empty() || answer.rules.is_some_and(|rules| rules > 0);
                Ok(Found::new(answer, has_data))
            })
            .await?
            .or_refusal()?;
        let rules: Option<u64> = fan.answers.iter().map(|(_, answer)| answer.rules).sum();
        let mut alerts: Vec<(SourceName, Alert)> = fan
            .answers
            .into_iter()
            .flat_map(|(source, answer)| answer.alerts.into_iter().map(move |a| (source.clone(), a)))
            .collect();
        alerts.sort_by(|(_, a), (_, b)| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));
        let total = alerts.len();
        alerts.truncate(limit);
        let counts = Counts::of(alerts.len(), Total::Exact(total as u64));
        let known = rules.map(|rules| format!(" ({rules} alerting rules looked at)")).unwrap_or_default();
        let now = self.clock.now();
        let text = if alerts.is_empty() {
            let what =
                given.state.as_deref().map_or("No alert is firing or pending".to_owned(), |state| format!("No alert is {state}"));
            format!("{what}{known}.")
        } else {
            let lines: Vec<String> = alerts.iter().map(|(_, alert)| line(alert, now)).collect();
            format!("{} alerts{known}\n{}", counts.describe(), lines.join("\n"))
        };
        let mut answer = Answer::new(fan.coverage).counts(counts).text(text);
        if rules == Some(0) {
            answer = answer
                .hint("no alerting rule exists, so silence means nothing; get_service_health looks at the signals themselves");
        } else if counts.truncated {
            answer = answer.hint("narrow with state or service, or raise limit");
        }
        if let Some(rules) = rules {
            answer = answer.field("rules", rules);
        }
        Ok(answer.field("alerts", alerts.iter().map(structure).collect::<Vec<_>>()).finish())
    }
}

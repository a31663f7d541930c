//! `list_sources`: which backends stand behind this server, what they can answer and whether they are up.
//!
//! Guards that a dead source is shown as dead, with its reason. Must not show addresses or credentials.

use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{CompletionKind, Coverage, Fault, Signal, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, Source, SourceHealth, Tool, Total};
use portcullis_shape::one_line;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Counts};
use crate::schema::{self, Sheet};
use crate::sources::{Ask, Found, SOURCE_PATIENCE, Sources};

/// The tool.
pub(crate) struct ListSources {
    spec: Arc<ToolSpec>,
    sources: Arc<Sources>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    source: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    signals: Vec<&'static str>,
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    latency_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl ListSources {
    pub(crate) fn new(sources: Arc<Sources>) -> Option<Self> {
        let spec = schema::reading_tool(Sheet {
            name: "list_sources",
            title: "List sources",
            description: "Backends behind this server, the signals each can answer, and whether each is up. \
                          Ask first when an answer is incomplete.",
            input: schema::input(&[("source", schema::source())], &[]),
            output: schema::output(&[("sources", "array")]),
            completions: &[("source", CompletionKind::Source)],
        })?;
        Some(Self { spec, sources })
    }
}

fn row(source: &dyn Source, health: SourceHealth) -> Row {
    Row {
        name: source.name().to_string(),
        kind: source.kind(),
        signals: source.capabilities().into_iter().map(Signal::as_str).collect(),
        up: health.up,
        version: health.version.map(|version| one_line(&version, 60)),
        latency_ms: u64::try_from(health.latency.as_millis()).unwrap_or(u64::MAX),
        message: health.message.map(|message| one_line(&message, 200)),
    }
}

fn line(row: &Row) -> String {
    let state = if row.up { format!("up, {} ms", row.latency_ms) } else { "DOWN".to_owned() };
    let version = row.version.as_ref().map(|version| format!(", {version}")).unwrap_or_default();
    let message = row.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
    format!("{} [{}{version}]: {}; {state}{message}", row.name, row.kind, row.signals.join(", "))
}

#[async_trait]
impl Tool for ListSources {
    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, _exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        let given: Given = arguments.parse()?;
        if self.sources.visible(permit).is_empty() && given.source.is_none() {
            let answer = Answer::new(Vec::new()).field("sources", Vec::<Row>::new());
            return Ok(answer.text("No source is available to this credential.").finish());
        }
        let ask = Ask { signal: None, source: given.source.as_deref(), patience: SOURCE_PATIENCE };
        let mut fan = self
            .sources
            .fan_out(permit, ask, |source, permit| async move {
                let health = source.health(&permit).await;
                Ok(Found::new(row(source.as_ref(), health), true))
            })
            .await?;
        let visible = self.sources.visible(permit);
        for (name, fault) in &fan.faults {
            let Some(source) = visible.iter().find(|source| source.name() == name) else { continue };
            let health = SourceHealth { up: false, version: None, latency: SOURCE_PATIENCE, message: Some(fault.in_all_words()) };
            fan.answers.push((name.clone(), row(source.as_ref(), health)));
        }
        for (name, row) in fan.answers.iter().filter(|(_, row)| !row.up) {
            let reason = row.message.clone().unwrap_or_else(|| "the health check failed".to_owned());
            if let Some(entry) = fan.coverage.iter_mut().find(|entry| entry.source == *name) {
                *entry = Coverage::failed(name.clone(), reason);
            }
        }
        let rows: Vec<Row> = fan.answers.into_iter().map(|(_, row)| row).collect();
        let lines: Vec<String> = rows.iter().map(line).collect();
        let answer = Answer::new(fan.coverage)
            .about_sources()
            .counts(Counts::of(rows.len(), Total::Exact(rows.len() as u64)))
            .text(lines.join("\n"))
            .field("sources", rows);
        Ok(answer.finish())
    }
}

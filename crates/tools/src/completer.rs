//! Values for completions: names that exist in the caller's scope.
//!
//! Guards that a completion never names what a question could not see. A source that fails offers nothing; completions
//! are help, not answers, so there is no coverage.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Clock, CompletionKind, Fault, Signal, TimeWindow, cut};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Behind, Completer, LabelValuesRequest, MetricCatalogueRequest, Reading, SemanticMetric};

use crate::sources::{Ask, FanOut, Found, Sources};
use crate::time::within_look_back;

/// Most values offered (the protocol's limit).
const MAX_VALUES: usize = 100;
/// Completions must feel immediate.
const PATIENCE: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_hours(1);

/// Completions from the configured sources.
#[derive(Debug)]
pub struct SourceCompleter {
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

impl SourceCompleter {
    /// A completer over `sources`.
    pub fn new(sources: Arc<Sources>, clock: Arc<dyn Clock>) -> Self {
        Self { sources, clock }
    }

    fn window(&self, permit: &Permit) -> Option<TimeWindow> {
        let now = self.clock.now();
        within_look_back(TimeWindow::ending_at(now, WINDOW).ok()?, now, permit.scope())
    }

    async fn services(&self, permit: &Permit, window: TimeWindow) -> Vec<String> {
        let ask = Ask { signal: None, source: None, patience: PATIENCE };
        let fan = self
            .sources
            .fan_out(permit, ask, |source, permit| async move {
                let answer = source.services(&permit, window).await?;
                Ok(Found::new(answer.services.into_iter().map(|service| service.name).collect::<Vec<_>>(), true))
            })
            .await;
        let mut names = flat(fan);
        names.retain(|name| permit.scope().services.contains(name));
        names
    }

    async fn metrics(&self, permit: &Permit, window: TimeWindow, prefix: &str) -> Vec<String> {
        let request = MetricCatalogueRequest {
            window,
            service: None,
            name_contains: (!prefix.is_empty()).then(|| prefix.to_owned()),
            limit: MAX_VALUES * 5,
            with_labels: false,
        };
        let asked = &request;
        let ask = Ask { patience: PATIENCE, ..Ask::signal(Signal::Metrics, None) };
        let fan = self
            .sources
            .fan_out(permit, ask, |source, permit| async move {
                let answer = source.metric_catalogue(&permit, asked).await?;
                Ok(Found::new(answer.metrics.into_iter().map(|metric| metric.name).collect::<Vec<_>>(), true))
            })
            .await;
        let mut names: Vec<String> = SemanticMetric::ALL.iter().map(|metric| metric.as_str().to_owned()).collect();
        names.extend(flat(fan));
        names
    }

    async fn label_values(&self, permit: &Permit, window: TimeWindow, label: &str, prefix: &str) -> Vec<String> {
        let request = |signal| LabelValuesRequest {
            window,
            signal,
            label: label.to_owned(),
            metric: None,
            service: None,
            prefix: prefix.to_owned(),
            limit: MAX_VALUES,
        };
        let mut values = Vec::new();
        for signal in [Signal::Metrics, Signal::Logs] {
            let request = request(signal);
            let asked = &request;
            let ask = Ask { patience: PATIENCE, ..Ask::signal(signal, None) };
            let fan =
                self.sources
                    .fan_out(permit, ask, |source, permit| async move {
                        Ok(Found::new(source.label_values(&permit, asked).await?, true))
                    })
                    .await;
            // A value stands alone here, and its label may say that it is a secret.
            values.extend(flat(fan).iter().map(|value| cut::field(label, value).into_owned()));
        }
        values
    }
}

fn flat(fan: Result<FanOut<Vec<String>>, Fault>) -> Vec<String> {
    fan.map(|fan| fan.answers.into_iter().flat_map(|(_, names)| names).collect()).unwrap_or_default()
}

#[async_trait]
impl Completer for SourceCompleter {
    fn behind(&self, kind: &CompletionKind) -> Option<Behind> {
        let tool = match kind {
            CompletionKind::Fixed(_) | CompletionKind::Own => return None,
            CompletionKind::Source => "list_sources",
            CompletionKind::Service => "list_services",
            CompletionKind::Metric | CompletionKind::LabelValue { .. } => "find_metrics",
        };
        Some(Behind::Call(Reading { tool: tool.to_owned(), arguments: Arguments::default() }))
    }

    async fn complete(&self, permit: &Permit, kind: &CompletionKind, prefix: &str) -> Result<Vec<String>, Fault> {
        let candidates: Vec<String> = match (kind, self.window(permit)) {
            (CompletionKind::Fixed(words), _) => words.iter().map(ToString::to_string).collect(),
            (CompletionKind::Source, _) => {
                let visible = self.sources.visible(permit);
                for source in &visible {
                    permit.trail().reached(source.name().as_str());
                }
                visible.iter().map(|source| source.name().to_string()).collect()
            }
            // Whoever offers its own answers by itself.
            (CompletionKind::Own, _) | (_, None) => Vec::new(),
            (CompletionKind::Service, Some(window)) => self.services(permit, window).await,
            (CompletionKind::Metric, Some(window)) => self.metrics(permit, window, prefix).await,
            (CompletionKind::LabelValue { label }, Some(window)) => self.label_values(permit, window, label, prefix).await,
        };
        // Fixed lists keep their order: it is the order of usefulness.
        if matches!(kind, CompletionKind::Fixed(_)) {
            return Ok(candidates.into_iter().filter(|value| value.starts_with(prefix)).take(MAX_VALUES).collect());
        }
        let matching: BTreeSet<String> = candidates.into_iter().filter(|value| value.starts_with(prefix)).collect();
        Ok(matching.into_iter().take(MAX_VALUES).collect())
    }
}

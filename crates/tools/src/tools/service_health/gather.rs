//! Everything a health question asks of the sources, at the same time.
//!
//! Guards that every signal remembers whether it was read, has no source, or failed: a verdict may only stand on what was
//! read. Must not judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{
    Alert, AlertState, Coverage, CoverageState, Fault, FaultCode, Sample, Series, Severity, Signal, SourceName, Span, TimeWindow,
};
use portcullis_policy::Permit;
use portcullis_ports::{
    AlertRequest, LogCountAnswer, LogCountRequest, LogFilter, MetricRequest, MetricSelector, SemanticMetric, Source, SpanFilter,
};

use super::frame::Frame;
use super::red::RedByService;
use super::sample::TraceSample;
use crate::sources::{Ask, FanOut, Found, Sources};

/// Most spans read from one source.
const MAX_SPANS: u64 = 1_500_000;
/// Reading every span of a long window takes longer than an ordinary question.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_SERIES: usize = 2_000;
const MAX_SERVICES: usize = 1_000;
/// Labels that name a service, first match wins.
const SERVICE_LABELS: [&str; 6] = ["service.name", "service_name", "service", "app", "k8s_deployment_name", "job"];

/// Whether a signal can be spoken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// At least one source answered.
    Read,
    /// Nothing is configured for it.
    NoSource,
    /// Every source failed; the reason is client-safe.
    Failed(String),
}

/// One signal over all sources.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) value: T,
    pub(super) state: State,
    coverage: Vec<Coverage>,
}

/// Samples per bin and what they belong to.
#[derive(Debug, Clone, Default)]
pub(super) struct Worst {
    /// Largest value of any replica per bin.
    pub(super) samples: Vec<Sample>,
    /// The series with the largest value of all, as `name=value` words.
    pub(super) which: String,
}

/// Rate, errors and latency as metrics give them, for services without spans.
#[derive(Debug, Clone, Default)]
pub(super) struct MetricRed {
    pub(super) rate: Vec<Sample>,
    pub(super) errors: Vec<Sample>,
    pub(super) latency: Vec<Sample>,
}

/// Spans, counted and sampled.
#[derive(Debug, Default)]
pub(super) struct Traced {
    pub(super) red: RedByService,
    pub(super) sample: TraceSample,
    pub(super) read: u64,
    /// Whether every span was read; counts say nothing about rates otherwise.
    pub(super) complete: bool,
}

/// What the sources said.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) traced: Part<Traced>,
    /// Error logs per bin and service.
    pub(super) log_errors: Part<BTreeMap<Arc<str>, Vec<u64>>>,
    pub(super) saturation: Part<BTreeMap<Arc<str>, Worst>>,
    pub(super) metric_red: Part<BTreeMap<Arc<str>, MetricRed>>,
    pub(super) alerts: Part<Vec<(SourceName, Alert)>>,
    /// Services the sources know in the window, and the signals they send.
    pub(super) known: Part<BTreeMap<Arc<str>, BTreeSet<Signal>>>,
}

impl Gathered {
    /// Coverage by signal, for merging.
    pub(super) fn coverage(&self) -> Vec<(&'static str, Vec<Coverage>)> {
        vec![
            ("traces", self.traced.coverage.clone()),
            ("logs", self.log_errors.coverage.clone()),
            ("saturation", self.saturation.coverage.clone()),
            ("metrics", self.metric_red.coverage.clone()),
            ("alerts", self.alerts.coverage.clone()),
            ("services", self.known.coverage.clone()),
        ]
    }

    /// The signals nobody is configured for, and those that failed.
    pub(super) fn blind(&self) -> Vec<String> {
        let states = [
            ("spans", &self.traced.state),
            ("error logs", &self.log_errors.state),
            ("saturation", &self.saturation.state),
            ("alerts", &self.alerts.state),
        ];
        let words = |(what, state): &(&str, &State)| match state {
            State::Read => None,
            State::NoSource => Some(format!("{what} (no source)")),
            State::Failed(reason) => Some(format!("{what} ({reason})")),
        };
        states.iter().filter_map(words).collect()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) frame: Frame,
    pub(super) source: Option<&'a str>,
    /// Narrows saturation and alerts; spans and logs are always read for all services, whose calls explain each other.
    pub(super) service: Option<&'a str>,
}

fn ask(signal: Signal, question: Question<'_>) -> Ask<'_> {
    Ask { patience: PATIENCE, ..Ask::signal(signal, question.source) }
}

/// Asks everything at once.
///
/// # Errors
/// When the named source does not exist in this scope, or no source has any of the signals.
pub(super) async fn gather(sources: &Sources, permit: &Permit, question: Question<'_>) -> Result<Gathered, Fault> {
    let (traced, log_errors, saturation, metric_red, alerts, known) = futures::join!(
        spans(sources, permit, question),
        error_logs(sources, permit, question),
        saturation(sources, permit, question),
        metric_red(sources, permit, question),
        alerts(sources, permit, question),
        known_services(sources, permit, question),
    );
    let gathered = Gathered {
        traced: traced?,
        log_errors: log_errors?,
        saturation: saturation?,
        metric_red: metric_red?,
        alerts: alerts?,
        known: known?,
    };
    let nothing = [&gathered.traced.state, &gathered.log_errors.state, &gathered.saturation.state]
        .iter()
        .all(|state| **state == State::NoSource);
    if nothing {
        return Err(Fault::new(FaultCode::NoSource, "no source available to this credential has traces, logs or metrics")
            .with_hint("list_sources shows what there is"));
    }
    Ok(gathered)
}

/// Folds the answers; no source for a signal is a state, not an error.
fn fold<A, T: Default>(fan: Result<FanOut<A>, Fault>, mut add: impl FnMut(&mut T, SourceName, A)) -> Result<Part<T>, Fault> {
    let fan = match fan {
        Ok(fan) => fan,
        Err(fault) if fault.code() == FaultCode::NoSource => {
            return Ok(Part { value: T::default(), state: State::NoSource, coverage: Vec::new() });
        }
        Err(fault) => return Err(fault),
    };
    let mut value = T::default();
    let answered = !fan.answers.is_empty();
    for (source, answer) in fan.answers {
        add(&mut value, source, answer);
    }
    let failures: Vec<String> = fan
        .coverage
        .iter()
        .filter(|entry| entry.state == CoverageState::Failed)
        .map(|entry| format!("{}: {}", entry.source, entry.reason.as_deref().unwrap_or("failed")))
        .collect();
    let state = match (answered, failures.is_empty()) {
        (true, _) => State::Read,
        (false, true) => State::NoSource,
        (false, false) => State::Failed(failures.join("; ")),
    };
    Ok(Part { value, state, coverage: fan.coverage })
}

async fn spans(sources: &Sources, permit: &Permit, question: Question<'_>) -> Result<Part<Traced>, Fault> {
    let frame = question.frame;
    let limit = permit.budget().rows.min(MAX_SPANS);
    let fan = sources
        .fan_out(permit, ask(Signal::Traces, question), |source, permit| async move {
            let mut traced = Traced { complete: true, ..Traced::default() };
            for part in frame.parts().into_iter().rev() {
                scan_part(source.as_ref(), &permit, part, limit, &frame, &mut traced).await?;
            }
            let missing = (!traced.complete).then(|| format!("only {} spans were read", traced.read));
            let has_data = traced.read > 0;
            Ok(Found::new(traced, has_data).partial(missing))
        })
        .await;
    let mut part = fold(fan, |sum: &mut Traced, _, one: Traced| {
        sum.complete = one.complete && (sum.complete || sum.read == 0);
        sum.read += one.read;
        sum.red.merge(one.red);
        sum.sample.merge(one.sample);
    })?;
    let scope = permit.scope();
    part.value.red.0.retain(|service, _| scope.services.contains(service));
    Ok(part)
}

async fn scan_part(
    source: &dyn Source,
    permit: &Permit,
    part: TimeWindow,
    limit: u64,
    frame: &Frame,
    traced: &mut Traced,
) -> Result<(), Fault> {
    let left = limit.saturating_sub(traced.read);
    if left == 0 {
        traced.complete = false;
        return Ok(());
    }
    let mut read = 0;
    let (red, sample) = (&mut traced.red, &mut traced.sample);
    let mut visit = |span: Span| {
        read += 1;
        red.add(frame, &span);
        sample.add(span);
    };
    let end = source.scan_spans(permit, part, &SpanFilter::default(), left, &mut visit).await?;
    traced.read += read;
    traced.complete &= end.complete;
    Ok(())
}

async fn error_logs(
    sources: &Sources,
    permit: &Permit,
    question: Question<'_>,
) -> Result<Part<BTreeMap<Arc<str>, Vec<u64>>>, Fault> {
    let frame = question.frame;
    let request = |window| LogCountRequest {
        filter: LogFilter {
            window,
            service: None,
            minimum_severity: Some(Severity::Error),
            text: None,
            attributes: Vec::new(),
            trace_id: None,
        },
        by: vec!["service".to_owned()],
        step: Some(frame.bin),
        top: MAX_SERVICES,
    };
    let requests: Vec<LogCountRequest> = frame.parts().into_iter().map(request).collect();
    let asked = &requests;
    let fan = sources
        .fan_out(permit, ask(Signal::Logs, question), |source, permit| async move {
            let mut answers: Vec<LogCountAnswer> = Vec::new();
            for request in asked {
                answers.push(source.log_counts(&permit, request).await?);
            }
            Ok(Found::new(answers, true))
        })
        .await;
    let mut part = fold(fan, |sum: &mut BTreeMap<Arc<str>, Vec<u64>>, _, answers: Vec<LogCountAnswer>| {
        for group in answers.iter().flat_map(|answer| &answer.groups) {
            let service = group.key.get("service").map_or("", String::as_str);
            let bins = sum.entry(Arc::from(service)).or_insert_with(|| vec![0; frame.bins()]);
            for (at, count) in &group.over_time {
                if let Some(bin) = frame.index_of_bucket(*at).and_then(|index| bins.get_mut(index)) {
                    *bin += count;
                }
            }
        }
    })?;
    let scope = permit.scope();
    part.value.retain(|service, _| !service.is_empty() && scope.services.contains(service));
    Ok(part)
}

/// The service a series belongs to; `asked` when only one was asked for and the series does not say.
fn service_of<'a>(series: &'a Series, asked: Option<&'a str>) -> Option<&'a str> {
    SERVICE_LABELS.iter().find_map(|name| series.labels.get(*name)).map(String::as_str).or(asked)
}

fn metric_request(window: TimeWindow, metric: SemanticMetric, question: Question<'_>) -> MetricRequest {
    MetricRequest {
        window,
        step: Some(question.frame.bin.max(Duration::from_secs(15))),
        metric: MetricSelector::Semantic(metric),
        service: question.service.map(str::to_owned),
        matchers: Vec::new(),
        group_by: Vec::new(),
        aggregation: None,
        max_series: MAX_SERIES,
    }
}

/// All series of one metric over the parts of the frame. A source that does not know the metric has none.
async fn series_of(
    source: &dyn Source,
    permit: &Permit,
    metric: SemanticMetric,
    question: Question<'_>,
) -> Result<Vec<Series>, Fault> {
    let mut all = Vec::new();
    for part in question.frame.parts() {
        match source.metrics(permit, &metric_request(part, metric, question)).await {
            Ok(answer) => all.extend(answer.series),
            Err(fault) if matches!(fault.code(), FaultCode::NotFound | FaultCode::NoSource) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

async fn saturation(
    sources: &Sources,
    permit: &Permit,
    question: Question<'_>,
) -> Result<Part<BTreeMap<Arc<str>, Worst>>, Fault> {
    let fan = sources
        .fan_out(permit, ask(Signal::Metrics, question), |source, permit| async move {
            let series = series_of(source.as_ref(), &permit, SemanticMetric::Saturation, question).await?;
            let has_data = !series.is_empty();
            Ok(Found::new(series, has_data))
        })
        .await;
    let frame = question.frame;
    let mut by_service: BTreeMap<Arc<str>, BTreeMap<usize, f64>> = BTreeMap::new();
    let mut worst: BTreeMap<Arc<str>, (f64, String)> = BTreeMap::new();
    let part = fold(fan, |(): &mut (), _, all: Vec<Series>| {
        for series in &all {
            let Some(service) = service_of(series, question.service) else { continue };
            let service: Arc<str> = Arc::from(service);
            let bins = by_service.entry(service.clone()).or_default();
            for (index, sample) in series.samples.iter().filter_map(|s| frame.index(s.at).map(|index| (index, s))) {
                let held = bins.entry(index).or_insert(f64::NEG_INFINITY);
                *held = held.max(sample.value);
                if index >= frame.first_of_window() {
                    let top = worst.entry(service.clone()).or_insert((f64::NEG_INFINITY, String::new()));
                    if sample.value > top.0 {
                        *top = (sample.value, words(series));
                    }
                }
            }
        }
    })?;
    let scope = permit.scope();
    let value = by_service
        .into_iter()
        .filter(|(service, _)| scope.services.contains(service))
        .map(|(service, bins)| {
            let samples = bins.into_iter().map(|(index, value)| Sample { at: frame.start(index), value }).collect();
            let which = worst.remove(&service).map(|(_, which)| which).unwrap_or_default();
            (service, Worst { samples, which })
        })
        .collect();
    Ok(Part { value, state: part.state, coverage: part.coverage })
}

/// The labels of a series that tell replicas and pools apart.
fn words(series: &Series) -> String {
    let telling =
        |name: &str| ["pool", "pod", "instance", "queue", "state", "device", "limit"].iter().any(|part| name.contains(part));
    let words: Vec<String> = series
        .labels
        .iter()
        .filter(|(name, _)| telling(name))
        .map(|(name, value)| {
            format!("{}={}", portcullis_shape::one_line(name, 60), portcullis_shape::field_line(name, value, 80))
        })
        .take(3)
        .collect();
    words.join(",")
}

/// Only sources without traces are asked: where there are spans, they say the same more exactly.
async fn metric_red(
    sources: &Sources,
    permit: &Permit,
    question: Question<'_>,
) -> Result<Part<BTreeMap<Arc<str>, MetricRed>>, Fault> {
    let frame = question.frame;
    let fan = sources
        .fan_out(permit, ask(Signal::Metrics, question), |source, permit| async move {
            if source.capabilities().contains(&Signal::Traces) {
                return Err(Fault::new(FaultCode::NoSource, "its spans say the same more exactly"));
            }
            let (source, permit) = (source.as_ref(), &permit);
            let (rate, errors, latency) = futures::join!(
                series_of(source, permit, SemanticMetric::RequestRate, question),
                series_of(source, permit, SemanticMetric::ErrorRate, question),
                series_of(source, permit, SemanticMetric::LatencyP95, question),
            );
            let all = (rate?, errors?, latency?);
            let has_data = !(all.0.is_empty() && all.1.is_empty() && all.2.is_empty());
            Ok(Found::new(all, has_data))
        })
        .await;
    let mut part = fold(
        fan,
        |sum: &mut BTreeMap<Arc<str>, MetricRed>, _, (rate, errors, latency): (Vec<Series>, Vec<Series>, Vec<Series>)| {
            let add = |a: f64, b: f64| a + b;
            for (service, samples) in per_service(&rate, frame, question.service, add) {
                sum.entry(service).or_default().rate = samples;
            }
            for (service, samples) in per_service(&errors, frame, question.service, f64::max) {
                sum.entry(service).or_default().errors = samples;
            }
            for (service, samples) in per_service(&latency, frame, question.service, f64::max) {
                sum.entry(service).or_default().latency = samples;
            }
        },
    )?;
    let scope = permit.scope();
    part.value.retain(|service, _| scope.services.contains(service));
    Ok(part)
}

/// One sample per service and bin; replicas of a bin are put together by `merge`.
fn per_service(
    series: &[Series],
    frame: Frame,
    asked: Option<&str>,
    merge: fn(f64, f64) -> f64,
) -> BTreeMap<Arc<str>, Vec<Sample>> {
    // Several samples of one series in one bin are averaged before replicas are merged.
    let mut bins: BTreeMap<Arc<str>, BTreeMap<usize, f64>> = BTreeMap::new();
    for one in series {
        let Some(service) = service_of(one, asked) else { continue };
        let mut own: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for (index, sample) in one.samples.iter().filter_map(|s| frame.index(s.at).map(|index| (index, s))) {
            let held = own.entry(index).or_default();
            *held = (held.0 + sample.value, held.1 + 1.0);
        }
        let all = bins.entry(Arc::from(service)).or_default();
        for (index, (sum, count)) in own {
            let mean = sum / count;
            all.entry(index).and_modify(|held| *held = merge(*held, mean)).or_insert(mean);
        }
    }
    let samples =
        |bins: BTreeMap<usize, f64>| bins.into_iter().map(|(index, value)| Sample { at: frame.start(index), value }).collect();
    bins.into_iter().map(|(service, bins)| (service, samples(bins))).collect()
}

async fn alerts(sources: &Sources, permit: &Permit, question: Question<'_>) -> Result<Part<Vec<(SourceName, Alert)>>, Fault> {
    let request = AlertRequest { state: None, service: question.service.map(str::to_owned) };
    let asked = &request;
    let fan = sources
        .fan_out(permit, ask(Signal::Alerts, question), |source, permit| async move {
            let mut answer = source.alerts(&permit, asked).await?;
            answer.alerts.retain(|alert| alert.state != AlertState::Resolved);
            Ok(Found::new(answer, true))
        })
        .await;
    fold(fan, |sum: &mut Vec<(SourceName, Alert)>, source, answer| {
        sum.extend(answer.alerts.into_iter().map(|alert| (source.clone(), alert)));
    })
}

async fn known_services(
    sources: &Sources,
    permit: &Permit,
    question: Question<'_>,
) -> Result<Part<BTreeMap<Arc<str>, BTreeSet<Signal>>>, Fault> {
    let window = question.frame.window;
    let ask = Ask { signal: None, source: question.source, patience: PATIENCE };
    let fan = sources
        .fan_out(permit, ask, |source, permit| async move {
            let answer = source.services(&permit, window).await?;
            let has_data = !answer.services.is_empty();
            Ok(Found::new(answer.services, has_data))
        })
        .await;
    let mut part = fold(fan, |sum: &mut BTreeMap<Arc<str>, BTreeSet<Signal>>, _, services| {
        for service in services {
            sum.entry(Arc::from(service.name.as_str())).or_default().extend(service.signals);
        }
    })?;
    let scope = permit.scope();
    part.value.retain(|service, _| scope.services.contains(service));
    Ok(part)
}

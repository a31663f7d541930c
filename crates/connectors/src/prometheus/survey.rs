//! What a source has: which views hold anything, which names and labels, how far apart its samples are. Guards the cost
//! of finding out (remembered for a short while) and the scope (every question goes through the caller's views).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, MetricKind, PrincipalId, TimeWindow, Timestamp};
use portcullis_policy::Permit;
use portcullis_query::promql::{
    Aggregation, Expr, Grouping, LabelName, MatchOperator, Matcher, MetricName, RangeFunction, Selector, VectorFunction,
};

use super::PrometheusSource;
use super::plan::{Survey, invalid, short_unit};
use super::remembered::Remembered;
use super::views::{View, selectors};
use super::window::parse_interval;
use super::wire::{Metadata, Target};

/// Metadata of all metrics by name.
pub(crate) type MetadataByName = BTreeMap<String, Vec<Metadata>>;

/// Scrape intervals of the targets.
#[derive(Debug, Default)]
pub(crate) struct Intervals {
    by_label: BTreeMap<(String, String), Duration>,
    longest: Option<Duration>,
}

/// What is remembered of a source.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Whether a selector matches anything in a window (to the minute).
    inhabited: Remembered<(String, i64, i64), bool>,
    /// Distance of the samples of some selectors.
    spacing: Remembered<String, Duration>,
    metadata: Remembered<(), Arc<MetadataByName>>,
    intervals: Remembered<(), Arc<Intervals>>,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let seconds = Duration::from_secs;
        Self {
            inhabited: Remembered::new(seconds(30), 1_000),
            spacing: Remembered::new(seconds(300), 1_000),
            metadata: Remembered::new(seconds(60), 1),
            intervals: Remembered::new(seconds(60), 1),
        }
    }
}

/// Callers whose answers are kept apart.
const CALLERS: usize = 200;

/// What is remembered, for whom: of a source that is asked in its own name for everybody, otherwise for each caller apart,
/// because what it answers one is no answer for another.
#[derive(Debug)]
pub(crate) enum Keeping {
    Together(Arc<Kept>),
    Apart(Remembered<PrincipalId, Arc<Kept>>),
}

impl Keeping {
    pub(crate) fn new(apart: bool) -> Self {
        if apart { Self::Apart(Remembered::new(Duration::from_mins(5), CALLERS)) } else { Self::Together(Arc::new(Kept::new())) }
    }

    pub(crate) fn of(&self, permit: &Permit) -> Arc<Kept> {
        match self {
            Self::Together(kept) => Arc::clone(kept),
            Self::Apart(callers) => {
                let now = Instant::now();
                callers.get(permit.principal_id(), now).unwrap_or_else(|| {
                    let kept = Arc::new(Kept::new());
                    callers.put(permit.principal_id().clone(), Arc::clone(&kept), now);
                    kept
                })
            }
        }
    }
}

/// How long back spacing is looked for, shortest first.
const SPACING_RANGES: [Duration; 2] = [Duration::from_mins(10), Duration::from_hours(2)];
/// Distance assumed when nothing tells it; Prometheus' own default.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);

/// One question's look at a source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looking<'a> {
    pub(crate) source: &'a PrometheusSource,
    pub(crate) permit: &'a Permit,
    pub(crate) window: TimeWindow,
    pub(crate) earliest: Option<Timestamp>,
}

impl Looking<'_> {
    /// The last instant of the window that can hold a sample.
    pub(crate) fn last(&self) -> Timestamp {
        self.window.end.minus(Duration::from_millis(1)).max(self.window.start)
    }

    /// Of several views, those that match anything. A single view without conditions is taken as it is.
    pub(crate) async fn inhabited(&self, views: Vec<View>) -> Result<Vec<View>, Fault> {
        if views.len() == 1 && views[0].matchers().next().is_none() {
            return Ok(views);
        }
        let asked = views.iter().map(|view| self.is_inhabited(view));
        let found = futures::future::try_join_all(asked).await?;
        Ok(views.into_iter().zip(found).filter_map(|(view, has)| has.then_some(view)).collect())
    }

    async fn is_inhabited(&self, view: &View) -> Result<bool, Fault> {
        let selector = Selector::any().matching_all(view.matchers());
        let minute = |at: Timestamp| at.as_nanos().div_euclid(60_000_000_000);
        let key = (selector.to_string(), minute(self.window.start), minute(self.window.end));
        if let Some(known) = self.source.kept.of(self.permit).inhabited.get(&key, Instant::now()) {
            return Ok(known);
        }
        // The values of a label that a view names are a short answer even from backends that know no limit.
        let Some(label) = view.matchers().next().map(Matcher::label) else { return Ok(true) };
        let found = !self.source.api.label_values(self.permit, label.as_str(), &[selector], self.window).await?.is_empty();
        self.source.kept.of(self.permit).inhabited.put(key, found, Instant::now());
        Ok(found)
    }

    /// Values of a label over some views; of one metric if it is named.
    pub(crate) async fn values(&self, label: &str, views: &[View], metrics: Option<&[MetricName]>) -> Result<Vec<String>, Fault> {
        if views.is_empty() {
            return Ok(Vec::new());
        }
        let base = match metrics {
            Some(names) => Selector::any_metric_of(names).map_err(|e| invalid(&e))?,
            None => Selector::any(),
        };
        let unrestricted = metrics.is_none() && views.iter().any(|v| v.matchers().next().is_none());
        let selectors = if unrestricted { Vec::new() } else { selectors(views, &base) };
        self.source.api.label_values(self.permit, label, &selectors, self.window).await
    }

    /// Metadata of all metrics; nothing when the source has none to give.
    pub(crate) async fn metadata(&self) -> Result<Arc<MetadataByName>, Fault> {
        if let Some(known) = self.source.kept.of(self.permit).metadata.get(&(), Instant::now()) {
            return Ok(known);
        }
        let found = match self.source.api.metadata(self.permit).await {
            Ok(found) => found,
            Err(fault) if is_about_the_whole_call(&fault) => return Err(fault),
            // Kinds are then read from the names.
            Err(_) => MetadataByName::new(),
        };
        let found = Arc::new(found);
        self.source.kept.of(self.permit).metadata.put((), Arc::clone(&found), Instant::now());
        Ok(found)
    }

    async fn intervals(&self) -> Result<Arc<Intervals>, Fault> {
        if let Some(known) = self.source.kept.of(self.permit).intervals.get(&(), Instant::now()) {
            return Ok(known);
        }
        let found = match self.source.api.targets(self.permit).await {
            Ok(targets) => Intervals::of(&self.source.labels.service, &targets.active),
            Err(fault) if is_about_the_whole_call(&fault) => return Err(fault),
            // Mimir and VictoriaMetrics do not scrape, or do not tell.
            Err(_) => Intervals::default(),
        };
        let found = Arc::new(found);
        self.source.kept.of(self.permit).intervals.put((), Arc::clone(&found), Instant::now());
        Ok(found)
    }

    /// Distance of samples by counting them.
    async fn spacing(&self, selectors: &[Selector]) -> Result<Option<Duration>, Fault> {
        let key: String = selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        if let Some(known) = self.source.kept.of(self.permit).spacing.get(&key, Instant::now()) {
            return Ok(Some(known));
        }
        let at = self.last();
        let allowed = self.earliest.map_or(Duration::MAX, |earliest| at.since(earliest));
        for range in SPACING_RANGES {
            let range = range.min(allowed);
            if range.is_zero() {
                return Ok(None);
            }
            let counts = selectors.iter().map(|s| s.clone().range(range).apply(RangeFunction::CountOverTime)).reduce(Expr::or);
            let Some(counts) = counts else { return Ok(None) };
            // The middle series: neither one that just began nor one that a second server scrapes as well.
            let median = counts.aggregate(Aggregation::Quantile(0.5), Grouping::All).map_err(|e| invalid(&e))?;
            let values = self.source.api.query(self.permit, &median.to_string(), at).await?.data.into_values();
            if let Some((_, count)) = values.first()
                && *count >= 2.0
            {
                let spacing = Duration::from_millis((range.as_secs_f64() / count * 1_000.0).round() as u64);
                self.source.kept.of(self.permit).spacing.put(key, spacing, Instant::now());
                return Ok(Some(spacing));
            }
        }
        Ok(None)
    }
}

/// Failures after which nothing else of the call can succeed either.
fn is_about_the_whole_call(fault: &Fault) -> bool {
    matches!(fault.code(), FaultCode::DeadlineExceeded | FaultCode::Cancelled | FaultCode::Forbidden | FaultCode::RateLimited)
}

impl Intervals {
    fn of(labels: &[LabelName], targets: &[Target]) -> Self {
        let mut intervals = Self::default();
        for target in targets {
            let Some(interval) = parse_interval(&target.scrape_interval) else { continue };
            intervals.longest = intervals.longest.max(Some(interval));
            for label in labels {
                if let Some(value) = target.labels.get(label.as_str()) {
                    let known = intervals.by_label.entry((label.as_str().to_owned(), value.clone())).or_insert(interval);
                    *known = interval.max(*known);
                }
            }
        }
        intervals
    }

    /// The interval of the targets that selectors name by an exact service label.
    fn of_selectors(&self, selectors: &[Selector]) -> Option<Duration> {
        let of_one = |selector: &Selector| {
            selector
                .matchers()
                .iter()
                .filter(|m| m.operator() == MatchOperator::Equal)
                .find_map(|m| self.by_label.get(&(m.label().as_str().to_owned(), m.value().to_owned())).copied())
        };
        let each: Option<Vec<Duration>> = selectors.iter().map(of_one).collect();
        each?.into_iter().max()
    }
}

#[async_trait]
impl Survey for Looking<'_> {
    async fn names(&self, selectors: Vec<Selector>) -> Result<BTreeSet<String>, Fault> {
        let names = self.source.api.label_values(self.permit, "__name__", &selectors, self.window).await?;
        Ok(names.into_iter().collect())
    }

    async fn labels(&self, selectors: Vec<Selector>) -> Result<BTreeSet<String>, Fault> {
        Ok(self.source.api.labels(self.permit, &selectors, self.window).await?.into_iter().collect())
    }

    async fn interval(&self, selectors: Vec<Selector>) -> Result<Duration, Fault> {
        if let Some(configured) = self.source.config.scrape_interval {
            return Ok(configured.0);
        }
        let targets = self.intervals().await?;
        if let Some(known) = targets.of_selectors(&selectors) {
            return Ok(known);
        }
        if let Some(measured) = self.spacing(&selectors).await? {
            return Ok(measured);
        }
        Ok(targets.longest.unwrap_or(DEFAULT_INTERVAL))
    }

    async fn described(&self, name: &str) -> Result<Option<(MetricKind, String)>, Fault> {
        let metadata = self.metadata().await?;
        Ok(describe(&metadata, name).map(|m| (kind_of(&m.kind), short_unit(&m.unit).to_owned())))
    }

    async fn has_native_histograms(&self, selectors: Vec<Selector>) -> Result<bool, Fault> {
        let Some(any) = selectors.into_iter().map(Expr::from).reduce(Expr::or) else { return Ok(false) };
        let counted =
            any.apply(VectorFunction::HistogramCount).aggregate(Aggregation::Count, Grouping::All).map_err(|e| invalid(&e))?;
        match self.source.api.query(self.permit, &counted.to_string(), self.last()).await {
            Ok(reply) => Ok(!reply.data.into_values().is_empty()),
            Err(fault) if is_about_the_whole_call(&fault) => Err(fault),
            // A backend that does not know the function has no native histograms.
            Err(_) => Ok(false),
        }
    }
}

/// Metadata of a metric: under its own name, without the suffix that OpenMetrics leaves out, or of its histogram. One
/// spelling can say `unknown` where another knows, so each part comes from the first spelling that has it.
pub(crate) fn describe(metadata: &MetadataByName, name: &str) -> Option<Metadata> {
    let stripped = ["_total", "_bucket", "_count", "_sum"].iter().filter_map(|suffix| name.strip_suffix(suffix));
    let entries: Vec<&Metadata> = std::iter::once(name).chain(stripped).filter_map(|name| metadata.get(name)).flatten().collect();
    let first = |part: fn(&Metadata) -> &str| {
        let known = entries.iter().map(|m| part(m)).find(|text| !matches!(*text, "" | "unknown" | "untyped"));
        known.unwrap_or_default().to_owned()
    };
    (!entries.is_empty()).then(|| Metadata { kind: first(|m| &m.kind), unit: first(|m| &m.unit), help: first(|m| &m.help) })
}

/// The kind as Prometheus writes it.
pub(crate) fn kind_of(text: &str) -> MetricKind {
    match text {
        "counter" => MetricKind::Counter,
        "gauge" | "info" | "stateset" => MetricKind::Gauge,
        "histogram" | "gaugehistogram" => MetricKind::Histogram,
        "summary" => MetricKind::Summary,
        _ => MetricKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(job: &str, interval: &str) -> Target {
        let labels = BTreeMap::from([("job".to_owned(), job.to_owned())]);
        Target { labels, scrape_interval: interval.to_owned() }
    }

    #[test]
    fn the_slowest_target_of_a_service_counts() {
        let job = LabelName::new("job").unwrap();
        let intervals = Intervals::of(
            std::slice::from_ref(&job),
            &[target("a", "15s"), target("a", "1m"), target("b", "5s"), target("c", "")],
        );
        let of = |name: &str| intervals.of_selectors(&[Selector::any().matching(Matcher::equal(job.clone(), name))]);
        assert_eq!(of("a"), Some(Duration::from_mins(1)));
        assert_eq!(of("b"), Some(Duration::from_secs(5)));
        assert_eq!(of("c"), None);
        assert_eq!(intervals.longest, Some(Duration::from_mins(1)));
    }

    #[test]
    fn metadata_is_found_by_every_spelling() {
        let entry = |kind: &str| vec![Metadata { kind: kind.into(), unit: String::new(), help: String::new() }];
        let metadata = BTreeMap::from([("requests".to_owned(), entry("counter")), ("latency".to_owned(), entry("histogram"))]);
        let kind = |name: &str| describe(&metadata, name).map(|m| kind_of(&m.kind));
        assert_eq!(kind("requests_total"), Some(MetricKind::Counter));
        assert_eq!(kind("latency_bucket"), Some(MetricKind::Histogram));
        assert_eq!(kind("other"), None);
        let both = BTreeMap::from([("a_total".to_owned(), entry("unknown")), ("a".to_owned(), entry("counter"))]);
        assert_eq!(describe(&both, "a_total").map(|m| m.kind).as_deref(), Some("counter"));
    }
}

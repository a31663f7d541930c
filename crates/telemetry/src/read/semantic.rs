//! Metrics by meaning: OpenTelemetry semantic conventions first, spans where no metric says it.
//!
//! Source: <https://opentelemetry.io/docs/specs/semconv/> (HTTP, RPC, messaging, system, container, Kubernetes, JVM metrics).

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use portcullis_model::{Series, TimeWindow};
use portcullis_ports::{Aggregation, LabelMatch, SemanticMetric};

use super::metrics::{
    Cells, Distribution, Found, Grid, Gridded, Merge, Question, Reading, cell_values, find, merge, merge_distributions, samples,
};
use super::{Confinement, attribute_stage, spans};
use crate::error::Result;
use crate::scan::{Cancel, Stage};
use crate::schema::Table;
use crate::store::Store;

/// Server-side durations in seconds.
const DURATIONS: &[&str] = &["http.server.request.duration", "rpc.server.call.duration", "messaging.process.duration"];
/// Their predecessors, in milliseconds.
const OLD_DURATIONS: &[&str] = &["http.server.duration", "rpc.server.duration"];
/// CPU as a ratio of one core, and CPU time in seconds, whose rate is the same.
const CPU: &[&[&str]] = &[
    &["process.cpu.utilization"],
    &["process.cpu.time"],
    &["k8s.pod.cpu.usage"],
    &["container.cpu.usage"],
    &["container.cpu.time"],
    &["jvm.cpu.recent_utilization"],
    &["system.cpu.utilization"],
];
/// Memory in bytes.
const MEMORY: &[&[&str]] = &[
    &["process.memory.usage"],
    &["k8s.pod.memory.working_set"],
    &["container.memory.working_set"],
    &["container.memory.usage"],
    &["jvm.memory.used"],
    &["go.memory.used"],
    &["system.memory.usage"],
];
/// Ratios of a limit.
const RATIOS: &[&str] = &[
    "k8s.container.cpu_limit_utilization",
    "k8s.container.memory_limit_utilization",
    "k8s.pod.cpu_limit_utilization",
    "k8s.pod.memory_limit_utilization",
    "process.open_file_descriptor.utilization",
    "system.memory.utilization",
    "system.filesystem.utilization",
];
/// Metric in use, label and value that mean "in use", metric of the limit.
type Pool = (&'static str, Option<(&'static str, &'static str)>, &'static str);

/// A count, the label value that means "in use" (if it is split by state), and the limit it counts towards.
const POOLS: &[Pool] = &[
    ("db.client.connection.count", Some(("db.client.connection.state", "used")), "db.client.connection.max"),
    ("db.client.connections.usage", Some(("state", "used")), "db.client.connections.max"),
    ("jvm.memory.used", None, "jvm.memory.limit"),
];
/// Bucket bounds for durations of spans: six per doubling.
const SPAN_BOUNDS: usize = 160;

/// An answer with what it was made of.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Series.
    pub(crate) series: Vec<Series>,
    /// What answered.
    pub(crate) metric: String,
    /// Unit of the samples.
    pub(crate) unit: &'static str,
    /// Whether there were more series than can be held.
    pub(crate) overflow: bool,
}

/// What is asked by meaning.
#[derive(Debug, Clone)]
pub(crate) struct SemanticQuestion {
    /// What is meant.
    pub(crate) metric: SemanticMetric,
    /// Window.
    pub(crate) window: TimeWindow,
    /// Step of the grid.
    pub(crate) step: Duration,
    /// Only this service.
    pub(crate) service: Option<String>,
    /// Further conditions.
    pub(crate) matchers: Vec<LabelMatch>,
    /// How instances become one; `None` keeps each.
    pub(crate) aggregation: Option<Aggregation>,
    /// Labels to keep apart.
    pub(crate) group_by: Vec<String>,
}

/// Distributions per step by service, resource and whether the requests failed.
type Instances = HashMap<(String, String, bool), Vec<Option<Distribution>>>;

/// Values by the labels that identify a stored series.
type ByLabels = HashMap<Vec<(String, String)>, Vec<Option<f64>>>;

struct Asking<'a> {
    store: &'a Store,
    cancel: &'a Cancel,
    confinement: &'a Confinement,
    question: &'a SemanticQuestion,
    grid: Grid,
}

/// Answers by meaning; nothing when neither metrics nor spans say it.
pub(crate) fn resolve(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    question: &SemanticQuestion,
) -> Result<Option<Resolved>> {
    let grid = Grid::new(question.window, question.step)?;
    let asking = Asking { store, cancel, confinement, question, grid };
    match question.metric {
        SemanticMetric::Cpu => asking.level(CPU, "1"),
        SemanticMetric::Memory => asking.level(MEMORY, "By"),
        SemanticMetric::RequestRate => asking.requests(Reading::Rate, "1/s"),
        SemanticMetric::ErrorRate => asking.error_rate(),
        SemanticMetric::LatencyP50 => asking.requests(Reading::Quantile(0.5), "s"),
        SemanticMetric::LatencyP95 => asking.requests(Reading::Quantile(0.95), "s"),
        SemanticMetric::LatencyP99 => asking.requests(Reading::Quantile(0.99), "s"),
        SemanticMetric::Saturation => asking.saturation(),
    }
}

impl Asking<'_> {
    fn find(&self, names: &[&str], more: Option<LabelMatch>) -> Result<Found> {
        let question = Question {
            window: self.question.window,
            step: self.question.step,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            service: self.question.service.clone(),
            matchers: self.question.matchers.iter().cloned().chain(more).collect(),
        };
        find(self.store, self.cancel, self.confinement, &question)
    }

    /// Labels that tell instances apart.
    fn instance_of(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut kept = BTreeMap::new();
        for name in ["service", "service.instance.id", "k8s.namespace.name", "k8s.pod.name", "host.name"] {
            if let Some(value) = labels.get(name) {
                kept.insert(name.to_owned(), value.clone());
            }
        }
        kept
    }

    /// Series of one instance and of every label asked to be kept apart, put together.
    fn by_instance(&self, series: Vec<Gridded>) -> BTreeMap<BTreeMap<String, String>, Vec<Gridded>> {
        let mut groups: BTreeMap<BTreeMap<String, String>, Vec<Gridded>> = BTreeMap::new();
        for s in series {
            let mut labels = Self::instance_of(&s.labels);
            for name in &self.question.group_by {
                if let Some(value) = s.labels.get(name) {
                    labels.insert(name.clone(), value.clone());
                }
            }
            groups.entry(labels).or_default().push(s);
        }
        groups
    }

    fn resolved(&self, series: Vec<Series>, metric: String, unit: &'static str, overflow: bool) -> Option<Resolved> {
        let series = match self.question.aggregation {
            None => series,
            Some(aggregation) => self.aggregate(series, aggregation),
        };
        (!series.is_empty()).then_some(Resolved { series, metric, unit, overflow })
    }

    /// Merges instances that are already one value per step.
    fn aggregate(&self, series: Vec<Series>, aggregation: Aggregation) -> Vec<Series> {
        let gridded = series.into_iter().map(|s| Gridded {
            labels: s.labels.clone(),
            unit: String::new(),
            cells: level_cells(&self.grid, &s),
        });
        let how = Merge { aggregation: Some(aggregation), group_by: &self.question.group_by };
        merge(&self.grid, gridded.collect(), how, Reading::Mean)
    }

    /// The first of the candidates with data; parts of one instance are added up.
    fn level(&self, candidates: &[&[&str]], unit: &'static str) -> Result<Option<Resolved>> {
        for names in candidates {
            let found = self.find(names, None)?;
            if found.series.is_empty() {
                continue;
            }
            let how = Merge { aggregation: Some(Aggregation::Sum), group_by: &[] };
            let series = self
                .by_instance(found.series)
                .into_iter()
                .flat_map(|(labels, members)| {
                    merge(&self.grid, members, how, Reading::Rate)
                        .into_iter()
                        .map(move |s| Series { labels: labels.clone(), ..s })
                })
                .collect();
            return Ok(self.resolved(series, names.join(", "), unit, found.overflow));
        }
        Ok(None)
    }

    /// Distributions of server-side durations in seconds, per instance; from metrics, else from spans.
    fn durations(&self) -> Result<(Vec<Gridded>, String, bool)> {
        for (names, scale) in [(DURATIONS, 1.0), (OLD_DURATIONS, 1e-3)] {
            let mut found = self.find(names, None)?;
            found.series.retain(|s| matches!(s.cells, Cells::Distributions { .. }));
            if !found.series.is_empty() {
                let scaled = found.series.into_iter().map(|s| in_seconds(s, scale)).collect();
                return Ok((scaled, names.join(", "), found.overflow));
            }
        }
        Ok((self.span_durations()?, "otel_traces (server spans)".into(), false))
    }

    fn requests(&self, read: Reading, unit: &'static str) -> Result<Option<Resolved>> {
        let (series, metric, overflow) = self.durations()?;
        // Quantiles over several instances come from their added buckets, never from the mean of their quantiles.
        let quantile_over_all = matches!(read, Reading::Quantile(_))
            && matches!(self.question.aggregation, Some(Aggregation::Quantile(_) | Aggregation::Average | Aggregation::Sum));
        if quantile_over_all {
            let how = Merge { aggregation: Some(Aggregation::Quantile(0.0)), group_by: &self.question.group_by };
            let merged = merge(&self.grid, series, how, read);
            return Ok((!merged.is_empty()).then_some(Resolved { series: merged, metric, unit, overflow }));
        }
        let series = self
            .by_instance(series)
            .into_iter()
            .map(|(labels, members)| {
                samples(&self.grid, labels, cell_values(&merge_distributions(&self.grid, members), read, None))
            })
            .filter(|s| !s.samples.is_empty())
            .collect();
        Ok(self.resolved(series, metric, unit, overflow))
    }

    /// Failed share of requests. With an aggregation, failures and requests are added up before they are divided.
    fn error_rate(&self) -> Result<Option<Resolved>> {
        let (series, metric, overflow) = self.durations()?;
        let groups = if self.question.aggregation.is_some_and(|a| matches!(a, Aggregation::Sum | Aggregation::Average)) {
            let mut groups: BTreeMap<BTreeMap<String, String>, Vec<Gridded>> = BTreeMap::new();
            for s in series {
                let keep = self.question.group_by.iter().filter_map(|n| Some((n.clone(), s.labels.get(n)?.clone()))).collect();
                groups.entry(keep).or_default().push(s);
            }
            groups
        } else {
            self.by_instance(series)
        };
        let all: Vec<Series> = groups
            .into_iter()
            .map(|(labels, members)| {
                let (failed, good): (Vec<Gridded>, Vec<Gridded>) = members.into_iter().partition(|m| is_failure(&m.labels));
                let (failed, good) = (counts(&self.grid, failed), counts(&self.grid, good));
                let ratio = failed.iter().zip(&good).map(|(f, g)| {
                    let total = f.unwrap_or(0.0) + g.unwrap_or(0.0);
                    (total > 0.0).then(|| f.unwrap_or(0.0) / total)
                });
                samples(&self.grid, labels, ratio.collect())
            })
            .filter(|s| !s.samples.is_empty())
            .collect();
        let done = self.question.aggregation.is_some_and(|a| matches!(a, Aggregation::Sum | Aggregation::Average));
        if done {
            return Ok((!all.is_empty()).then_some(Resolved { series: all, metric, unit: "1", overflow }));
        }
        Ok(self.resolved(all, metric, "1", overflow))
    }

    /// How full the fullest pool or limit of an instance is.
    fn saturation(&self) -> Result<Option<Resolved>> {
        let mut instances: BTreeMap<BTreeMap<String, String>, Vec<Option<f64>>> = BTreeMap::new();
        let mut metrics = Vec::new();
        let mut overflow = false;
        let mut take = |labels: BTreeMap<String, String>, values: Vec<Option<f64>>| {
            let slot = instances.entry(labels).or_insert_with(|| vec![None; self.grid.steps()]);
            for (known, new) in slot.iter_mut().zip(values) {
                *known = match (*known, new) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
            }
        };
        for name in RATIOS {
            let found = self.find(&[name], None)?;
            overflow |= found.overflow;
            if !found.series.is_empty() {
                metrics.push((*name).to_owned());
            }
            for s in found.series {
                take(Self::instance_of(&s.labels), cell_values(&s.cells, Reading::Rate, Some(Aggregation::Maximum)));
            }
        }
        for (used, state, limit) in POOLS {
            let condition = state.map(|(name, value)| LabelMatch {
                name: name.to_owned(),
                operator: portcullis_ports::MatchOperator::Equal,
                value: value.to_owned(),
            });
            let (used_found, limit_found) = (self.find(&[used], condition)?, self.find(&[limit], None)?);
            overflow |= used_found.overflow || limit_found.overflow;
            let state_label = state.map(|(name, _)| name);
            let key = |labels: &BTreeMap<String, String>| {
                labels
                    .iter()
                    .filter(|(k, _)| Some(k.as_str()) != state_label)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect::<BTreeMap<_, _>>()
            };
            let limits: ByLabels = limit_found
                .series
                .iter()
                .map(|s| (key(&s.labels).into_iter().collect(), cell_values(&s.cells, Reading::Rate, None)))
                .collect();
            for s in used_found.series {
                let Some(limit) = limits.get(&key(&s.labels).into_iter().collect::<Vec<_>>()) else { continue };
                let used_values = cell_values(&s.cells, Reading::Rate, Some(Aggregation::Maximum));
                let ratio = used_values.iter().zip(limit).map(|(u, l)| Some(u.as_ref()? / l.filter(|l| *l > 0.0)?));
                take(Self::instance_of(&s.labels), ratio.collect());
                if !metrics.iter().any(|m| m == used) {
                    metrics.push((*used).to_owned());
                }
            }
        }
        let series = instances
            .into_iter()
            .map(|(labels, values)| samples(&self.grid, labels, values))
            .filter(|s| !s.samples.is_empty())
            .collect();
        Ok(self.resolved(series, metrics.join(", "), "1", overflow))
    }

    /// Durations of server and consumer spans as distributions, failures apart.
    fn span_durations(&self) -> Result<Vec<Gridded>> {
        let mut filter = self.confinement.filter(Table::Traces, self.question.window, self.question.service.as_deref());
        filter.stages.push(Stage::on_words(spans::KIND, |kind| matches!(kind, "Server" | "Consumer")));
        if !self.question.matchers.is_empty() {
            let matchers = self.confinement.matchers(&self.question.matchers)?;
            filter.stages.push(attribute_stage(Table::Traces, spans::ATTRIBUTES, matchers));
        }
        let plan = self.store.snapshot(&self.confinement.tenant, Table::Traces)?.plan(filter, self.cancel)?;
        let columns = [spans::TIME, spans::SERVICE, spans::RESOURCE, spans::DURATION, spans::STATUS];
        let bounds = span_bounds();
        let seconds = self.question.step.as_secs_f64();
        let parts = plan.read(self.store.settings().query_threads, self.cancel, &columns, Instances::new, |found, rows| {
            let times = rows.column(0).as_primitive::<TimestampNanosecondType>().values();
            let (services, resources) = (rows.column(1).as_string_view(), rows.column(2).as_string_view());
            let durations = rows.column(3).as_primitive::<UInt64Type>().values();
            let status = rows.column(4).as_string_view();
            for row in 0..rows.num_rows() {
                let Some(place) = self.grid.place(times[row]) else { continue };
                let key = (services.value(row).to_owned(), resources.value(row).to_owned(), status.value(row) == "Error");
                let cells = found.entry(key).or_insert_with(|| vec![None; self.grid.steps()]);
                let cell = cells[place].get_or_insert_with(|| Distribution {
                    counts: vec![0.0; bounds.len()],
                    sum: Some(0.0),
                    seconds,
                    ..Distribution::default()
                });
                let value = durations[row] as f64 / 1e9;
                cell.count += 1.0;
                cell.sum = cell.sum.map(|s| s + value);
                cell.counts[bounds.partition_point(|b| *b < value).min(bounds.len() - 1)] += 1.0;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut all = Vec::new();
        for ((service, resource, failed), cells) in parts.into_iter().flatten() {
            let mut labels = super::merged("", &resource);
            labels.insert("service".into(), service);
            if failed {
                labels.insert("error.type".into(), "error".into());
            }
            all.push(Gridded { labels, unit: "s".into(), cells: Cells::Distributions { bounds: bounds.clone(), cells } });
        }
        Ok(all)
    }
}

/// From 50 microseconds up, six buckets per doubling; the last is open.
fn span_bounds() -> Vec<f64> {
    let mut bounds: Vec<f64> = (0..SPAN_BOUNDS).map(|n| 5e-5 * 2_f64.powf(n as f64 / 6.0)).collect();
    bounds.push(f64::INFINITY);
    bounds
}

fn in_seconds(mut series: Gridded, scale: f64) -> Gridded {
    let scale = if series.unit == "ms" {
        1e-3
    } else if series.unit == "s" {
        1.0
    } else {
        scale
    };
    if let Cells::Distributions { bounds, cells } = &mut series.cells {
        for bound in bounds {
            *bound *= scale;
        }
        for cell in cells.iter_mut().flatten() {
            cell.sum = cell.sum.map(|s| s * scale);
        }
    }
    series
}

/// Whether the requests of a series failed: an error type, a 5xx status, or a failing gRPC status.
fn is_failure(labels: &BTreeMap<String, String>) -> bool {
    let get = |name: &str| labels.get(name).map(String::as_str);
    // By the conventions a server sets an error type only for its own failures, not for 4xx answers.
    if get("error.type").is_some_and(|t| !t.is_empty()) {
        return true;
    }
    let status = get("http.response.status_code").or_else(|| get("http.status_code"));
    if let Some(status) = status {
        return status.len() == 3 && status.starts_with('5');
    }
    match get("rpc.grpc.status_code").or_else(|| get("rpc.response.status_code")) {
        // Unknown, deadline exceeded, unimplemented, internal, unavailable, data loss: the server's own failures.
        Some(code) => matches!(
            code,
            "2" | "4"
                | "12"
                | "13"
                | "14"
                | "15"
                | "UNKNOWN"
                | "DEADLINE_EXCEEDED"
                | "UNIMPLEMENTED"
                | "INTERNAL"
                | "UNAVAILABLE"
                | "DATA_LOSS"
        ),
        None => false,
    }
}

/// Observations per step of several distributions.
fn counts(grid: &Grid, members: Vec<Gridded>) -> Vec<Option<f64>> {
    match merge_distributions(grid, members) {
        Cells::Distributions { cells, .. } => cells.into_iter().map(|c| c.map(|c| c.count)).collect(),
        _ => vec![None; grid.steps()],
    }
}

fn level_cells(grid: &Grid, series: &Series) -> Cells {
    super::metrics::levels_of(grid, series.samples.iter().map(|s| (s.at.as_nanos(), s.value)))
}

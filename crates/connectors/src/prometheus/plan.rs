//! A metric question as one PromQL expression. Guards that all matching series count: nothing is picked at random,
//! merging is only done when asked for, and what was left out is said. Must not send queries; it asks a [`Survey`] what
//! exists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use portcullis_model::{Fault, FaultCode, MetricKind};
use portcullis_ports::{Aggregation, LabelMatch, MatchOperator, SemanticMetric};
use portcullis_query::QueryError;
use portcullis_query::promql::{
    Aggregation as Merge, BinaryOperator, Expr, Grouping, LabelName, Matcher, MetricName, RangeFunction, Selector,
    VectorFunction, VectorMatching,
};

use super::config::Labels;
use super::semantic::{
    CONTAINER_LABELS, CPU, Condition, LevelMetric, MEMORY, MESH_SERVICE_LABELS, PARTS, POD_SUFFIX, Place, REQUESTS, Reading,
    RequestMetric, SATURATION, SaturationMetric, Term, Tier, Traffic,
};
use super::views::{View, over_views};
use super::window::rate_window;

/// Quantile of a histogram when none is asked for.
const DEFAULT_QUANTILE: f64 = 0.95;

/// What a plan needs to know about the source.
#[async_trait]
pub(crate) trait Survey: Send + Sync {
    /// Which metric names the selectors match.
    async fn names(&self, selectors: Vec<Selector>) -> Result<BTreeSet<String>, Fault>;
    /// Which label names the selectors match.
    async fn labels(&self, selectors: Vec<Selector>) -> Result<BTreeSet<String>, Fault>;
    /// Distance of the samples of the selectors.
    async fn interval(&self, selectors: Vec<Selector>) -> Result<Duration, Fault>;
    /// Kind and unit of a metric by its name, as the source tells.
    async fn described(&self, name: &str) -> Result<Option<(MetricKind, String)>, Fault>;
    /// Whether the selectors match native histograms.
    async fn has_native_histograms(&self, selectors: Vec<Selector>) -> Result<bool, Fault>;
}

/// What is asked, in the words of the source.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) labels: &'a Labels,
    /// Views in which something was found.
    pub(crate) views: &'a [View],
    /// The namespace conditions alone, for metrics that name no service.
    pub(crate) namespaces: Vec<Vec<Matcher>>,
    pub(crate) service: Option<&'a str>,
    /// Whether the scope restricts services, so that metrics without a service label must not be shown.
    pub(crate) confined: bool,
    /// Further conditions.
    pub(crate) conditions: Vec<Matcher>,
    pub(crate) group_by: Vec<LabelName>,
    pub(crate) aggregation: Option<Aggregation>,
    pub(crate) step: Duration,
}

/// How to ask.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Plan {
    /// The expression; `None` when the source has no such metric.
    pub(crate) expr: Option<Expr>,
    /// Metric names used.
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) notes: Vec<String>,
    /// What to ask exemplars of, when there can be some.
    pub(crate) exemplars: Option<Expr>,
    /// How much each point looks back.
    pub(crate) reach: Duration,
}

/// How a histogram is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Counter,
    Classic,
    Native,
}

/// A histogram and where it is found.
#[derive(Debug, Clone, Copy)]
struct Histogram<'a> {
    name: &'a str,
    shape: Shape,
    only: &'a [Condition],
    place: Place,
}

impl Histogram<'_> {
    /// Name of the series that hold its buckets.
    fn stored(&self) -> String {
        if self.shape == Shape::Classic { format!("{}_bucket", self.name) } else { self.name.to_owned() }
    }
}

/// A metric asked for by name.
#[derive(Debug, Clone)]
struct Named<'a> {
    name: &'a str,
    place: Place,
    unit: String,
}

/// Which value stands for the time between two points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extreme {
    Highest,
    Lowest,
}

/// The caller's conditions as matchers.
pub(crate) fn conditions(matches: &[LabelMatch]) -> Result<Vec<Matcher>, QueryError> {
    let read = |m: &LabelMatch| {
        let label = LabelName::new(&m.name)?;
        match m.operator {
            MatchOperator::Equal => Ok(Matcher::equal(label, &m.value)),
            MatchOperator::NotEqual => Ok(Matcher::not_equal(label, &m.value)),
            MatchOperator::Regex => Matcher::regex(label, &m.value),
            MatchOperator::NotRegex => Matcher::not_regex(label, &m.value),
        }
    };
    matches.iter().map(read).collect()
}

pub(crate) fn invalid(error: &QueryError) -> Fault {
    match error {
        QueryError::SecretLabel { .. } => Fault::new(FaultCode::Forbidden, error.to_string()),
        _ => Fault::invalid(error.to_string()),
    }
}

fn metric(name: &str) -> Result<MetricName, Fault> {
    MetricName::new(name).map_err(|e| invalid(&e))
}

fn matchers(conditions: &[Condition]) -> Result<Vec<Matcher>, Fault> {
    conditions.iter().map(|c| c.matcher().map_err(|e| invalid(&e))).collect()
}

fn label_names(names: &[&str]) -> Vec<LabelName> {
    names.iter().filter_map(|name| LabelName::new(*name).ok()).collect()
}

fn grouped(labels: &[LabelName]) -> Grouping {
    if labels.is_empty() { Grouping::All } else { Grouping::By(labels.to_vec()) }
}

fn merge_function(aggregation: Aggregation) -> Merge {
    match aggregation {
        Aggregation::Sum => Merge::Sum,
        Aggregation::Average => Merge::Avg,
        Aggregation::Minimum => Merge::Min,
        Aggregation::Maximum => Merge::Max,
        Aggregation::Count => Merge::Count,
        Aggregation::Quantile(quantile) => Merge::Quantile(quantile),
    }
}

/// Adds a label that says where a part of a union comes from.
fn tagged(expr: Expr, label: &str, value: &str) -> Result<Expr, Fault> {
    let label = LabelName::new(label).map_err(|e| invalid(&e))?;
    expr.label_replace(&label, value, &label, ".*").map_err(|e| invalid(&e))
}

fn joined(names: &[&str]) -> String {
    let mut seen = BTreeSet::new();
    names.iter().filter(|n| seen.insert(**n)).copied().collect::<Vec<_>>().join(", ")
}

impl Question<'_> {
    /// The conditions under which a metric of `place` belongs to the question; empty when it cannot be asked.
    fn places(&self, place: Place) -> Result<Vec<Vec<Matcher>>, Fault> {
        if place == Place::Service {
            return Ok(self.views.iter().map(|view| view.matchers().cloned().collect()).collect());
        }
        if self.confined {
            return Ok(Vec::new());
        }
        let own = |label: &str| LabelName::new(label).map_err(|e| invalid(&e));
        let alternatives = match (place, self.service) {
            (_, None) => vec![Vec::new()],
            (Place::Mesh, Some(service)) => {
                let [name, workload] = MESH_SERVICE_LABELS;
                vec![
                    vec![Matcher::equal(own(name)?, service)],
                    vec![Matcher::equal(own(workload)?, service), Matcher::not_equal(own(name)?, service)],
                ]
            }
            (_, Some(service)) => {
                let pods = format!("{}{POD_SUFFIX}", portcullis_query::regex_escape(service));
                vec![
                    vec![Matcher::equal(own("container")?, service)],
                    vec![
                        Matcher::regex(own("pod")?, pods).map_err(|e| invalid(&e))?,
                        Matcher::not_equal(own("container")?, service),
                    ],
                ]
            }
        };
        let with_namespace = |service: Vec<Matcher>| {
            self.namespaces.iter().map(move |namespace| service.iter().chain(namespace).cloned().collect::<Vec<_>>())
        };
        Ok(alternatives.into_iter().flat_map(with_namespace).collect())
    }

    /// One expression over every place a metric of this kind can be.
    fn leaf(
        &self,
        name: &str,
        only: &[Condition],
        place: Place,
        build: &dyn Fn(Selector) -> Expr,
    ) -> Result<Option<Expr>, Fault> {
        let mut conditions = matchers(only)?;
        conditions.extend(self.conditions.iter().cloned());
        Ok(over_views(&self.places(place)?, &metric(name)?, &conditions, build))
    }

    /// Selectors of some metrics of one place.
    fn selectors(&self, names: &[&str], place: Place) -> Result<Vec<Selector>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Result<Vec<MetricName>, Fault> = names.iter().map(|name| metric(name)).collect();
        let base = Selector::any_metric_of(&names?).map_err(|e| invalid(&e))?;
        let places = self.places(place)?;
        Ok(places.iter().map(|place| base.clone().matching_all(&self.conditions).matching_all(place)).collect())
    }

    async fn present(&self, survey: &dyn Survey, wanted: &[(Place, Vec<&str>)]) -> Result<BTreeSet<String>, Fault> {
        let mut all = Vec::new();
        for (place, names) in wanted {
            all.extend(self.selectors(names, *place)?);
        }
        if all.is_empty() { Ok(BTreeSet::new()) } else { survey.names(all).await }
    }

    /// The labels that keep instances apart, and those the caller wants.
    fn per_instance(&self, place: Place) -> Vec<LabelName> {
        let mut labels = match place {
            Place::Container => label_names(CONTAINER_LABELS),
            Place::Service | Place::Mesh => {
                let Labels { service, namespace, instance } = self.labels;
                service.iter().chain(namespace).chain(instance).cloned().collect()
            }
        };
        if place == Place::Mesh {
            labels.extend(label_names(&MESH_SERVICE_LABELS));
        }
        labels.extend(self.group_by.iter().cloned());
        let mut seen = BTreeSet::new();
        labels.retain(|label| seen.insert(label.clone()));
        labels
    }

    /// Merges series if the caller asked for it.
    fn merged(&self, expr: Expr) -> Result<Expr, Fault> {
        match self.aggregation {
            None => Ok(expr),
            Some(aggregation) => expr.aggregate(merge_function(aggregation), grouped(&self.group_by)).map_err(|e| invalid(&e)),
        }
    }

    /// Whether ratios and quantiles are computed over all instances together instead of per instance.
    fn pools_instances(&self) -> bool {
        matches!(self.aggregation, Some(Aggregation::Sum | Aggregation::Average))
    }

    /// Of what is present, the tiers to use: for one service, or when merging, only the closest to the service.
    fn tiers(&self, present: &BTreeSet<Tier>, notes: &mut Vec<String>) -> BTreeSet<Tier> {
        let Some(first) = present.first().copied() else { return BTreeSet::new() };
        if self.service.is_none() && self.aggregation.is_none() {
            return present.clone();
        }
        let others: Vec<&str> = present.iter().skip(1).map(|t| t.as_str()).collect();
        if self.service.is_none() && !others.is_empty() {
            notes.push(format!(
                "measured by {} only; {} metrics exist too and are not merged in",
                first.as_str(),
                others.join(" and ")
            ));
        }
        BTreeSet::from([first])
    }

    fn absent(&self, wanted: &str) -> Plan {
        let mut plan = Plan::default();
        plan.notes.push(format!("no known metric for {wanted} matches"));
        if self.confined {
            plan.notes.push(
                "container and mesh metrics are left out: they name no service, and this credential is confined to services"
                    .into(),
            );
        }
        plan
    }

    /// Plans a metric by its meaning.
    pub(crate) async fn semantic(&self, survey: &dyn Survey, wanted: SemanticMetric) -> Result<Plan, Fault> {
        let plan = match wanted {
            SemanticMetric::Cpu => self.levels(survey, CPU, "1").await?,
            SemanticMetric::Memory => self.levels(survey, MEMORY, "By").await?,
            SemanticMetric::RequestRate => self.request_rate(survey).await?,
            SemanticMetric::ErrorRate => self.error_rate(survey).await?,
            SemanticMetric::LatencyP50 => self.latency(survey, 0.5).await?,
            SemanticMetric::LatencyP95 => self.latency(survey, 0.95).await?,
            SemanticMetric::LatencyP99 => self.latency(survey, 0.99).await?,
            SemanticMetric::Saturation => self.saturation(survey).await?,
        };
        Ok(if plan.expr.is_some() { plan } else { self.absent(wanted.as_str()) })
    }

    async fn levels(&self, survey: &dyn Survey, table: &[LevelMetric], unit: &str) -> Result<Plan, Fault> {
        let of = |place: Place| (place, table.iter().filter(|m| m.place == place).map(|m| m.name).collect::<Vec<_>>());
        let present = self.present(survey, &[of(Place::Service), of(Place::Container)]).await?;
        let found: Vec<&LevelMetric> = table.iter().filter(|m| present.contains(m.name)).collect();
        let mut plan = Plan { unit: unit.to_owned(), ..Plan::default() };
        let tiers = self.tiers(&found.iter().map(|m| m.tier).collect(), &mut plan.notes);
        let used: Vec<&LevelMetric> = found.into_iter().filter(|m| tiers.contains(&m.tier)).collect();
        let mut parts: BTreeMap<Tier, Expr> = BTreeMap::new();
        for level in &used {
            let reach = self.reach(survey, level.name, level.place).await?;
            plan.reach = plan.reach.max(reach);
            let term = Term { name: level.name, reading: level.reading, only: level.only };
            if let Some(expr) = self.term(term, level.place, &self.per_instance(level.place), reach, Extreme::Highest)? {
                let whole = match parts.remove(&level.tier) {
                    Some(before) => before.or(expr),
                    None => expr,
                };
                parts.insert(level.tier, whole);
            }
        }
        plan.metric = joined(&used.iter().map(|m| m.name).collect::<Vec<_>>());
        plan.expr = Self::union_of_tiers(parts)?.map(|expr| self.merged(expr)).transpose()?;
        Ok(plan)
    }

    fn union_of_tiers(parts: BTreeMap<Tier, Expr>) -> Result<Option<Expr>, Fault> {
        let several = parts.len() > 1;
        let each: Result<Vec<Expr>, Fault> = parts
            .into_iter()
            .map(|(tier, expr)| if several { tagged(expr, "measured_by", tier.as_str()) } else { Ok(expr) })
            .collect();
        Ok(each?.into_iter().reduce(Expr::or))
    }

    /// How far one point of a rate over this metric looks back.
    async fn reach(&self, survey: &dyn Survey, name: &str, place: Place) -> Result<Duration, Fault> {
        let interval = survey.interval(self.selectors(&[name], place)?).await?;
        Ok(rate_window(interval, self.step))
    }

    /// A number per group: the sum over everything in it. Levels between two points are not skipped: each point shows the
    /// extreme since the point before.
    fn term(&self, term: Term, place: Place, by: &[LabelName], reach: Duration, extreme: Extreme) -> Result<Option<Expr>, Fault> {
        let step = self.step;
        let build: Box<dyn Fn(Selector) -> Expr> = match term.reading {
            Reading::Rate => Box::new(move |s: Selector| s.range(reach).rate()),
            // From two scrapes per step on, there are values that no point would show.
            Reading::Level if step * 2 >= reach => {
                let function = if extreme == Extreme::Highest { RangeFunction::MaxOverTime } else { RangeFunction::MinOverTime };
                Box::new(move |s: Selector| s.range(step).apply(function))
            }
            Reading::Level => Box::new(Expr::from),
        };
        let leaf = self.leaf(term.name, term.only, place, &*build)?;
        Ok(leaf.map(|expr| expr.sum_by(by)))
    }

    /// The request metrics the source has, in the order of the table, with their shape.
    async fn requests(&self, survey: &dyn Survey, histograms_only: bool) -> Result<Vec<(&'static RequestMetric, Shape)>, Fault> {
        let candidates: Vec<&RequestMetric> = REQUESTS.iter().filter(|m| !histograms_only || m.seconds.is_some()).collect();
        let spellings: Vec<(Place, [String; 3])> = candidates
            .iter()
            .map(|m| (m.place, [m.name.to_owned(), format!("{}_count", m.name), format!("{}_bucket", m.name)]))
            .collect();
        let of = |place: Place| {
            let names = spellings.iter().filter(|(p, _)| *p == place).flat_map(|(_, names)| names.iter().map(String::as_str));
            (place, names.collect::<Vec<_>>())
        };
        let present = self.present(survey, &[of(Place::Service), of(Place::Mesh)]).await?;
        let shape = |m: &&'static RequestMetric| match m.seconds {
            None => present.contains(m.name).then_some(Shape::Counter),
            Some(_) if present.contains(&format!("{}_bucket", m.name)) => Some(Shape::Classic),
            Some(_) if present.contains(m.name) => Some(Shape::Native),
            // A histogram without buckets still counts requests.
            Some(_) => (!histograms_only && present.contains(&format!("{}_count", m.name))).then_some(Shape::Classic),
        };
        Ok(candidates.into_iter().filter_map(|m| shape(&m).map(|s| (m, s))).collect())
    }

    /// Requests per second of one metric, per group.
    fn rate_of(
        &self,
        m: &RequestMetric,
        shape: Shape,
        more: &[Condition],
        by: &[LabelName],
        reach: Duration,
    ) -> Result<Option<Expr>, Fault> {
        let only: Vec<Condition> = m.only.iter().chain(more).copied().collect();
        let native = |s: Selector| s.range(reach).rate().apply(VectorFunction::HistogramCount);
        let plain = |s: Selector| s.range(reach).rate();
        let leaf = match shape {
            Shape::Counter => self.leaf(m.name, &only, m.place, &plain)?,
            Shape::Classic => self.leaf(&format!("{}_count", m.name), &only, m.place, &plain)?,
            Shape::Native => self.leaf(m.name, &only, m.place, &native)?,
        };
        Ok(leaf.map(|expr| expr.sum_by(by)))
    }

    /// Joins parts of different tiers and traffic, telling them apart where there are several.
    fn union_of_requests(parts: Vec<(Tier, Traffic, Expr)>) -> Result<Option<Expr>, Fault> {
        let tiers: BTreeSet<Tier> = parts.iter().map(|p| p.0).collect();
        let traffic: BTreeSet<Traffic> = parts.iter().map(|p| p.1).collect();
        let mut whole: BTreeMap<(Tier, Traffic), Expr> = BTreeMap::new();
        for (tier, kind, expr) in parts {
            // Within one tier and kind the same instance has the same labels, so that `or` keeps its first metric.
            let joined = match whole.remove(&(tier, kind)) {
                Some(before) => before.or(expr),
                None => expr,
            };
            whole.insert((tier, kind), joined);
        }
        let mut union: Option<Expr> = None;
        for ((tier, kind), mut expr) in whole {
            if tiers.len() > 1 {
                expr = tagged(expr, "measured_by", tier.as_str())?;
            }
            if traffic.len() > 1 {
                expr = tagged(expr, "protocol", kind.as_str())?;
            }
            union = Some(match union {
                Some(before) => before.or(expr),
                None => expr,
            });
        }
        Ok(union)
    }

    async fn request_rate(&self, survey: &dyn Survey) -> Result<Plan, Fault> {
        let mut plan = Plan { unit: "1/s".into(), ..Plan::default() };
        let mut parts = Vec::new();
        let found = self.requests(survey, false).await?;
        let tiers = self.tiers(&found.iter().map(|(m, _)| m.tier).collect(), &mut plan.notes);
        let used: Vec<_> = found.into_iter().filter(|(m, _)| tiers.contains(&m.tier)).collect();
        for (m, shape) in &used {
            let reach = self.reach_of(survey, m, *shape).await?;
            plan.reach = plan.reach.max(reach);
            if let Some(expr) = self.rate_of(m, *shape, &[], &self.per_instance(m.place), reach)? {
                parts.push((m.tier, m.traffic, expr));
            }
        }
        plan.metric = joined(&used.iter().map(|(m, _)| m.name).collect::<Vec<_>>());
        plan.expr = Self::union_of_requests(parts)?.map(|expr| self.merged(expr)).transpose()?;
        Ok(plan)
    }

    async fn reach_of(&self, survey: &dyn Survey, m: &RequestMetric, shape: Shape) -> Result<Duration, Fault> {
        match shape {
            Shape::Classic => self.reach(survey, &format!("{}_count", m.name), m.place).await,
            Shape::Counter | Shape::Native => self.reach(survey, m.name, m.place).await,
        }
    }

    async fn error_rate(&self, survey: &dyn Survey) -> Result<Plan, Fault> {
        let mut plan = Plan { unit: "1".into(), ..Plan::default() };
        let found = self.requests(survey, false).await?;
        let tiers = self.tiers(&found.iter().map(|(m, _)| m.tier).collect(), &mut plan.notes);
        let (mut failed, mut all, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (m, shape) in found.into_iter().filter(|(m, _)| tiers.contains(&m.tier)) {
            let counted = if shape == Shape::Classic { format!("{}_count", m.name) } else { m.name.to_owned() };
            let labels = survey.labels(self.selectors(&[&counted], m.place)?).await?;
            let signs: Vec<Condition> = m.failed.iter().filter(|c| labels.contains(c.label())).copied().collect();
            if signs.is_empty() {
                // Without a status nothing is known about failures; that is absent, not zero.
                continue;
            }
            let by = self.per_instance(m.place);
            let reach = self.reach_of(survey, m, shape).await?;
            plan.reach = plan.reach.max(reach);
            let Some(total) = self.rate_of(m, shape, &[], &by, reach)? else { continue };
            let mut bad: Option<Expr> = None;
            for (index, sign) in signs.iter().enumerate() {
                // A request that two labels call failed is one failed request.
                let others = without(&signs[..index])?;
                let Some(part) = self.with_conditions(others).rate_of(m, shape, &[*sign], &by, reach)? else { continue };
                bad = Some(match bad {
                    Some(before) => sum_of(before, part),
                    None => part,
                });
            }
            let Some(bad) = bad else { continue };
            // Served requests and no failed one is a true zero.
            failed.push((m.tier, m.traffic, bad.or(total.clone().times(0.0))));
            all.push((m.tier, m.traffic, total));
            names.push(m.name);
        }
        let (Some(failed), Some(all)) = (Self::union_of_requests(failed)?, Self::union_of_requests(all)?) else {
            return Ok(plan);
        };
        plan.metric = joined(&names);
        plan.expr = Some(if self.pools_instances() {
            failed.sum_by(&self.group_by).ratio(all.sum_by(&self.group_by))
        } else {
            self.merged(failed.ratio(all))?
        });
        Ok(plan)
    }

    fn with_conditions(&self, more: Vec<Matcher>) -> Question<'_> {
        let conditions = self.conditions.iter().cloned().chain(more).collect();
        Question { conditions, namespaces: self.namespaces.clone(), group_by: self.group_by.clone(), ..*self }
    }

    async fn latency(&self, survey: &dyn Survey, quantile: f64) -> Result<Plan, Fault> {
        let mut plan = Plan { unit: "s".into(), ..Plan::default() };
        let found = self.requests(survey, true).await?;
        let tiers = self.tiers(&found.iter().map(|(m, _)| m.tier).collect(), &mut plan.notes);
        let mut used: Vec<_> = found.into_iter().filter(|(m, _)| tiers.contains(&m.tier)).collect();
        if self.pools_instances() && used.len() > 1 {
            let others = joined(&used[1..].iter().map(|(m, _)| m.name).collect::<Vec<_>>());
            plan.notes.push(format!("histograms of different metrics cannot be merged; not included: {others}"));
            used.truncate(1);
        }
        let mut parts = Vec::new();
        for (m, shape) in &used {
            let reach = self.reach_of(survey, m, *shape).await?;
            plan.reach = plan.reach.max(reach);
            let by = if self.pools_instances() { self.group_by.clone() } else { self.per_instance(m.place) };
            let histogram = Histogram { name: m.name, shape: *shape, only: m.only, place: m.place };
            if plan.exemplars.is_none() {
                plan.exemplars = self.exemplars_of(&histogram)?;
            }
            if let Some(expr) = self.quantile_of(&histogram, Some(&by), quantile, reach)? {
                let factor = m.seconds.unwrap_or(1.0);
                let in_seconds = if factor < 1.0 { expr.times(factor) } else { expr };
                parts.push((m.tier, m.traffic, in_seconds));
            }
        }
        plan.metric = joined(&used.iter().map(|(m, _)| m.name).collect::<Vec<_>>());
        let union = Self::union_of_requests(parts)?;
        plan.expr = if self.pools_instances() { union } else { union.map(|expr| self.merged(expr)).transpose()? };
        Ok(plan)
    }

    /// Where exemplars of a histogram are kept.
    fn exemplars_of(&self, histogram: &Histogram<'_>) -> Result<Option<Expr>, Fault> {
        self.leaf(&histogram.stored(), histogram.only, histogram.place, &Expr::from)
    }

    /// A quantile of a histogram: per group, or per series when there is no grouping.
    fn quantile_of(
        &self,
        histogram: &Histogram<'_>,
        by: Option<&[LabelName]>,
        quantile: f64,
        reach: Duration,
    ) -> Result<Option<Expr>, Fault> {
        let rate = |s: Selector| s.range(reach).rate();
        let Some(rates) = self.leaf(&histogram.stored(), histogram.only, histogram.place, &rate)? else { return Ok(None) };
        let summed = match by {
            None => rates,
            Some(by) => {
                let mut labels = by.to_vec();
                if histogram.shape == Shape::Classic {
                    labels.extend(label_names(&["le"]));
                }
                rates.sum_by(&labels)
            }
        };
        summed.histogram_quantile(quantile).map(Some).map_err(|e| invalid(&e))
    }

    async fn saturation(&self, survey: &dyn Survey) -> Result<Plan, Fault> {
        let of = |place: Place| {
            let terms = SATURATION.iter().filter(|s| s.place == place).flat_map(|s| [Some(s.used), s.limit]).flatten();
            (place, terms.map(|t| t.name).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>())
        };
        let present = self.present(survey, &[of(Place::Service), of(Place::Container)]).await?;
        let has = |s: &&SaturationMetric| present.contains(s.used.name) && s.limit.is_none_or(|l| present.contains(l.name));
        let mut plan = Plan { unit: "1".into(), ..Plan::default() };
        let (mut parts, mut names): (BTreeMap<&str, Expr>, Vec<&str>) = (BTreeMap::new(), Vec::new());
        for resource in SATURATION.iter().filter(has) {
            let reach = self.reach(survey, resource.used.name, resource.place).await?;
            plan.reach = plan.reach.max(reach);
            if let Some(expr) = self.fullness(resource, reach)? {
                let tagged = tagged(expr, "resource", resource.resource)?;
                let whole = match parts.remove(resource.resource) {
                    Some(before) => before.or(tagged),
                    None => tagged,
                };
                parts.insert(resource.resource, whole);
                names.push(resource.used.name);
            }
        }
        plan.metric = joined(&names);
        plan.expr = parts.into_values().reduce(Expr::or).map(|expr| self.merged(expr)).transpose()?;
        Ok(plan)
    }

    fn fullness(&self, resource: &SaturationMetric, reach: Duration) -> Result<Option<Expr>, Fault> {
        let mut by = self.per_instance(resource.place);
        if resource.place == Place::Service {
            by.extend(label_names(PARTS));
        }
        // Least is free when most is used.
        let extreme = if resource.free { Extreme::Lowest } else { Extreme::Highest };
        let Some(used) = self.term(resource.used, resource.place, &by, reach, extreme)? else { return Ok(None) };
        let ratio = match resource.limit {
            None => used,
            Some(limit) => match self.limit(limit, resource.place, &by, reach)? {
                Some(limit) => used.ratio(limit),
                None => return Ok(None),
            },
        };
        Ok(Some(if resource.free {
            Expr::from(1.0).binary(BinaryOperator::Subtract, VectorMatching::Default, ratio)
        } else {
            ratio
        }))
    }

    fn limit(&self, term: Term, place: Place, by: &[LabelName], reach: Duration) -> Result<Option<Expr>, Fault> {
        let build: Box<dyn Fn(Selector) -> Expr> = match term.reading {
            Reading::Rate => Box::new(move |s: Selector| s.range(reach).rate()),
            Reading::Level => Box::new(Expr::from),
        };
        Ok(self.leaf(term.name, term.only, place, &*build)?.map(|expr| expr.sum_by(by)))
    }

    /// Plans a metric by its name: counters as rates, histograms as quantiles, everything else as it is.
    pub(crate) async fn named(&self, survey: &dyn Survey, name: &str) -> Result<Plan, Fault> {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let bucket = format!("{base}_bucket");
        let total = format!("{name}_total");
        let spellings = [name, bucket.as_str(), total.as_str()];
        let mut place = Place::Service;
        let mut present = self.present(survey, &[(place, spellings.to_vec())]).await?;
        if present.is_empty() && self.service.is_some() && !self.confined {
            place = Place::Container;
            present = self.present(survey, &[(place, spellings.to_vec())]).await?;
        }
        let described = survey.described(name).await?;
        let kind = described.as_ref().map_or(MetricKind::Unknown, |(kind, _)| *kind);
        let unit = described.map(|(_, unit)| unit).filter(|u| !u.is_empty()).unwrap_or_else(|| unit_of(name).to_owned());
        let one = Named { name, place, unit };

        let asks_for_histogram = name == base || name == bucket;
        if asks_for_histogram && present.contains(&bucket) && (name == bucket || !present.contains(name)) {
            return self.histogram(survey, &Named { name: base, ..one }, Shape::Classic).await;
        }
        if !present.contains(name) {
            if present.contains(&total) {
                return self.counter(survey, &Named { name: &total, ..one }).await;
            }
            return Ok(Plan::default());
        }
        let suffix = |suffixes: &[&str]| suffixes.iter().any(|s| name.ends_with(s));
        match kind {
            MetricKind::Counter => self.counter(survey, &one).await,
            MetricKind::Histogram | MetricKind::ExponentialHistogram if name == base => self.native_or_level(survey, &one).await,
            MetricKind::Histogram | MetricKind::ExponentialHistogram | MetricKind::Summary if suffix(&["_count", "_sum"]) => {
                self.counter(survey, &one).await
            }
            MetricKind::Unknown if suffix(&["_total", "_count", "_sum"]) => {
                let mut plan = self.counter(survey, &one).await?;
                plan.notes.push(format!("the source does not say what '{name}' is; read as a counter because of its name"));
                Ok(plan)
            }
            MetricKind::Unknown => self.native_or_level(survey, &one).await,
            _ => self.level(&one),
        }
    }

    async fn native_or_level(&self, survey: &dyn Survey, one: &Named<'_>) -> Result<Plan, Fault> {
        if survey.has_native_histograms(self.selectors(&[one.name], one.place)?).await? {
            self.histogram(survey, one, Shape::Native).await
        } else {
            self.level(one)
        }
    }

    async fn counter(&self, survey: &dyn Survey, one: &Named<'_>) -> Result<Plan, Fault> {
        let reach = self.reach(survey, one.name, one.place).await?;
        let rate = self.leaf(one.name, &[], one.place, &|s: Selector| s.range(reach).rate())?;
        let unit = match one.unit.as_str() {
            "" | "1" => "1/s".to_owned(),
            // Seconds of work per second.
            "s" => "1".to_owned(),
            unit => format!("{unit}/s"),
        };
        let expr = rate.map(|expr| self.merged(expr)).transpose()?;
        Ok(Plan { expr, metric: one.name.to_owned(), unit, reach, ..Plan::default() })
    }

    fn level(&self, one: &Named<'_>) -> Result<Plan, Fault> {
        let expr = self.leaf(one.name, &[], one.place, &Expr::from)?.map(|expr| self.merged(expr)).transpose()?;
        Ok(Plan { expr, metric: one.name.to_owned(), unit: one.unit.clone(), ..Plan::default() })
    }

    async fn histogram(&self, survey: &dyn Survey, one: &Named<'_>, shape: Shape) -> Result<Plan, Fault> {
        let stored = if shape == Shape::Classic { format!("{}_bucket", one.name) } else { one.name.to_owned() };
        let reach = self.reach(survey, &stored, one.place).await?;
        let quantile = match self.aggregation {
            Some(Aggregation::Quantile(quantile)) => quantile,
            _ => DEFAULT_QUANTILE,
        };
        // Buckets can be added up, quantiles cannot.
        let adds_buckets = matches!(self.aggregation, Some(Aggregation::Sum | Aggregation::Average | Aggregation::Quantile(_)));
        let kept = Histogram { name: one.name, shape, only: &[], place: one.place };
        let expr = self.quantile_of(&kept, adds_buckets.then_some(self.group_by.as_slice()), quantile, reach)?;
        let expr = if adds_buckets { expr } else { expr.map(|expr| self.merged(expr)).transpose()? };
        let notes = vec![format!("quantile {quantile} of a histogram")];
        let exemplars = self.exemplars_of(&kept)?;
        Ok(Plan { expr, metric: one.name.to_owned(), unit: one.unit.clone(), notes, exemplars, reach })
    }
}

/// The opposite of conditions, so that series they match are not counted again.
fn without(conditions: &[Condition]) -> Result<Vec<Matcher>, Fault> {
    let opposite = |condition: &Condition| {
        let label = LabelName::new(condition.label())?;
        match *condition {
            Condition::Is(_, value) => Ok(Matcher::not_equal(label, value)),
            Condition::Like(_, pattern) => Matcher::not_regex(label, pattern),
            Condition::Unlike(_, pattern) => Matcher::regex(label, pattern),
        }
    };
    conditions.iter().map(|c| opposite(c).map_err(|e| invalid(&e))).collect()
}

/// The sum of two expressions where either may be absent.
fn sum_of(left: Expr, right: Expr) -> Expr {
    let both = left.clone().binary(BinaryOperator::Add, VectorMatching::Default, right.clone());
    both.or(left).or(right)
}

/// A unit as OpenMetrics spells it (`seconds`) in the short form that answers use; others as they are.
pub(crate) fn short_unit(unit: &str) -> &str {
    match unit_of(&format!("_{unit}")) {
        "" => unit,
        short => short,
    }
}

/// The unit in the name of a metric, by the Prometheus naming rules.
pub(crate) fn unit_of(name: &str) -> &'static str {
    let base = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    if name.ends_with("_count") {
        return "1";
    }
    for (suffix, unit) in [
        ("_milliseconds", "ms"),
        ("_seconds", "s"),
        ("_bytes", "By"),
        ("_ratio", "1"),
        ("_percent", "%"),
        ("_celsius", "Cel"),
        ("_volts", "V"),
        ("_amperes", "A"),
        ("_joules", "J"),
        ("_meters", "m"),
        ("_hertz", "Hz"),
    ] {
        if base.ends_with(suffix) {
            return unit;
        }
    }
    ""
}

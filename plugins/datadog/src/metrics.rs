//! Metrics of Datadog. Guards that a query is put together from names that cannot be syntax, that the caller's scope is in it,
//! and that a missing point stays missing. Source: <https://docs.datadoghq.com/api/latest/metrics/> (query version 1) and
//! <https://docs.datadoghq.com/metrics/advanced-filtering/>.

use serde_json::Value;

use crate::api::{Api, encoded, fault, shown_long};
use crate::portcullis::plugin::telemetry::{
    Aggregation, LabelMatch, LabelValuesQuestion, MatchOperator, MetricAnswer, MetricCatalogueAnswer, MetricCatalogueQuestion,
    MetricDescriptor, MetricKind, MetricQuestion, MetricSelector, Sample, SemanticMetric, Series,
};
use crate::portcullis::plugin::types::{Context, Fault, FaultCode, Pair, Scope, Total};
use crate::settings::Settings;
use crate::tags::{self, Allowed, invalid, unsupported};

const SECOND: i64 = 1_000_000_000;
const MILLISECONDS: f64 = 1e6;

/// A query and how to read its answer.
#[derive(Debug, Clone, PartialEq)]
struct Query {
    text: String,
    /// Name of the metric in Datadog.
    metric: String,
    /// Unit where we know better than Datadog says.
    unit: Option<&'static str>,
    /// Factor of every value.
    scale: f64,
    /// Labels every series has, because the query asks for nothing else.
    pinned: Vec<(String, String)>,
    warnings: Vec<String>,
}

/// The filter between braces; `None` when the scope leaves nothing.
fn filter(
    service: Option<&str>,
    matchers: &[LabelMatch],
    scope: &Scope,
    settings: &Settings,
    pinned: &mut Vec<(String, String)>,
) -> Result<Option<String>, Fault> {
    let mut terms = Vec::new();
    for (label, key, allowed) in [
        ("service", "service", Allowed::of(service, &scope.services)),
        ("namespace", settings.namespace_tag.as_str(), Allowed::of(None, &scope.namespaces)),
    ] {
        match allowed {
            Allowed::Nothing => return Ok(None),
            Allowed::Everything => {}
            Allowed::Only(names) => {
                terms.push(among(key, &names, false)?);
                if let [name] = names.as_slice() {
                    pinned.push((label.to_owned(), name.clone()));
                }
            }
        }
    }
    for (key, value) in &settings.tags {
        terms.push(format!("{key}:{value}"));
    }
    for matcher in matchers {
        let key = tags::key(&matcher.name, settings)?;
        let values = match matcher.operator {
            MatchOperator::Equal | MatchOperator::NotEqual => vec![matcher.value.clone()],
            MatchOperator::Regex | MatchOperator::NotRegex => tags::alternatives(&matcher.value).ok_or_else(|| {
                unsupported(
                    "metric queries of Datadog know no regular expressions",
                    "give exact values, or several with | between",
                )
            })?,
        };
        let negative = matches!(matcher.operator, MatchOperator::NotEqual | MatchOperator::NotRegex);
        terms.push(among(&key, &values, negative)?);
    }
    Ok(Some(if terms.is_empty() { "*".to_owned() } else { terms.join(" AND ") }))
}

fn among(key: &str, values: &[String], negative: bool) -> Result<String, Fault> {
    let values = values.iter().map(|value| tags::value(value)).collect::<Result<Vec<_>, _>>()?;
    Ok(match (values.as_slice(), negative) {
        ([one], false) => format!("{key}:{one}"),
        ([one], true) => format!("NOT {key}:{one}"),
        (several, false) => format!("{key} IN ({})", several.join(",")),
        (several, true) => format!("{key} NOT IN ({})", several.join(",")),
    })
}

/// How series are put together over space, and over time within a step.
fn aggregators(aggregation: Option<Aggregation>) -> Result<(&'static str, &'static str), Fault> {
    Ok(match aggregation {
        None | Some(Aggregation::Average) => ("avg", "avg"),
        Some(Aggregation::Sum) => ("sum", "avg"),
        Some(Aggregation::Minimum) => ("min", "min"),
        Some(Aggregation::Maximum) => ("max", "max"),
        Some(Aggregation::Count) => {
            return Err(unsupported("Datadog cannot count series in a query", "ask for the series and count them"));
        }
        Some(Aggregation::Quantile(quantile)) => {
            let known = [(0.5, "p50"), (0.75, "p75"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99")];
            let found = known.iter().find(|(value, _)| (value - quantile).abs() < 1e-9);
            let (_, name) = found.ok_or_else(|| {
                invalid("Datadog has no such quantile".to_owned(), "there are 0.5, 0.75, 0.9, 0.95 and 0.99, of distributions")
            })?;
            (*name, "avg")
        }
    })
}

fn query(question: &MetricQuestion, scope: &Scope, settings: &Settings) -> Result<Option<Query>, Fault> {
    let mut pinned = Vec::new();
    let raw = matches!(question.metric, MetricSelector::Raw(_));
    let service = question.service.as_deref().filter(|_| !raw);
    let Some(filter) = filter(service, &question.matchers, scope, settings, &mut pinned)? else { return Ok(None) };
    let (space, over_time) = aggregators(question.aggregation)?;
    let mut warnings = Vec::new();
    let mut keys = Vec::new();
    for label in &question.group_by {
        let key = tags::key(label, settings)?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if question.aggregation.is_none() && !raw {
        for key in ["service", "host", settings.namespace_tag.as_str()] {
            if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
        warnings.push("Datadog gives no single series; these are averages for each service, host and namespace".to_owned());
    }
    let by = if keys.is_empty() { String::new() } else { format!(" by {{{}}}", keys.join(",")) };
    let seconds = question.step.map(|step| (step / 1_000_000_000).max(1));
    let rollup = seconds.map_or_else(String::new, |seconds| format!(".rollup({over_time}, {seconds})"));
    let plain = |metric: &str, space: &str| format!("{space}:{metric}{{{filter}}}{by}{rollup}");
    let mut made = Query { text: String::new(), metric: String::new(), unit: None, scale: 1.0, pinned, warnings };
    match &question.metric {
        MetricSelector::Named(name) if tags::is_metric(name) => {
            made.text = plain(name, space);
            made.metric = name.clone();
        }
        MetricSelector::Named(name) => {
            return Err(invalid(
                format!("'{}' is no name of a metric in Datadog", tags::shown(name)),
                "names hold letters, digits, '_' and '.', and begin with a letter",
            ));
        }
        MetricSelector::Raw(_) if !settings.tags.is_empty() => {
            return Err(unsupported(
                "this source is narrowed to some tags, which a query of your own would not be",
                "name a metric instead, with matchers",
            ));
        }
        MetricSelector::Raw(text) => {
            made.text.clone_from(text);
            "query".clone_into(&mut made.metric);
            made.pinned.clear();
        }
        MetricSelector::Semantic(semantic) => return meaning(*semantic, made, settings, &filter, &by, plain).map(Some),
    }
    Ok(Some(made))
}

/// Metrics that mean the same everywhere: of containers, and of the operator's APM operation
/// (<https://docs.datadoghq.com/tracing/metrics/metrics_namespace/>).
fn meaning(
    semantic: SemanticMetric,
    mut made: Query,
    settings: &Settings,
    filter: &str,
    by: &str,
    plain: impl Fn(&str, &str) -> String,
) -> Result<Query, Fault> {
    let operation = || {
        settings.apm_operation.as_deref().ok_or_else(|| {
            unsupported("this source does not know which APM operation stands for requests", "the operator sets apm_operation")
        })
    };
    match semantic {
        SemanticMetric::Cpu => {
            // In billionths of a core.
            (made.text, made.metric) = (plain("container.cpu.usage", "avg"), "container.cpu.usage".to_owned());
            (made.unit, made.scale) = (Some("1"), 1e-9);
        }
        SemanticMetric::Memory => {
            (made.text, made.metric) = (plain("container.memory.usage", "avg"), "container.memory.usage".to_owned());
            made.unit = Some("By");
        }
        SemanticMetric::RequestRate => {
            made.metric = format!("trace.{}.hits", operation()?);
            made.text = format!("sum:{}{{{filter}}}{by}.as_rate()", made.metric);
            made.unit = Some("1/s");
        }
        SemanticMetric::ErrorRate => {
            let operation = operation()?;
            let part = |what: &str| format!("sum:trace.{operation}.{what}{{{filter}}}{by}.as_rate()");
            made.metric = format!("trace.{operation}.errors");
            made.text = format!("{} / {}", part("errors"), part("hits"));
            made.unit = Some("1");
            made.warnings.push("where no error was ever recorded there is no series, which is not a rate of zero".to_owned());
        }
        SemanticMetric::LatencyP50 | SemanticMetric::LatencyP95 | SemanticMetric::LatencyP99 => {
            let quantile = match semantic {
                SemanticMetric::LatencyP50 => "p50",
                SemanticMetric::LatencyP95 => "p95",
                _ => "p99",
            };
            made.metric = format!("trace.{}", operation()?);
            made.text = plain(&made.metric, quantile);
            made.unit = Some("s");
        }
        SemanticMetric::Saturation => {
            return Err(unsupported("Datadog has no metric that says saturation everywhere", "name a metric"));
        }
    }
    Ok(made)
}

/// Answers a question about metrics.
pub(crate) fn metrics(api: &Api, question: &MetricQuestion, context: &Context) -> Result<MetricAnswer, Fault> {
    let Some(query) = query(question, &context.scope, api.settings)? else {
        return Ok(MetricAnswer {
            series: Vec::new(),
            total_series: Total::Exact(0),
            metric: String::new(),
            unit: String::new(),
            query: String::new(),
            step: question.step.unwrap_or(0),
            warnings: Vec::new(),
            exemplars: Vec::new(),
        });
    };
    let window = question.window;
    let answer = api.get(
        "/api/v1/query",
        &[
            ("from", window.start.div_euclid(SECOND).to_string()),
            ("to", window.end.saturating_add(SECOND - 1).div_euclid(SECOND).to_string()),
            ("query", query.text.clone()),
        ],
    )?;
    let said = crate::api::said(&answer);
    if answer["status"] == "error" || !said.is_empty() {
        return Err(fault(
            FaultCode::InvalidArgument,
            &format!("Datadog does not take this query: {}", shown_long(&said)),
            None,
            None,
        ));
    }
    let found = answer["series"].as_array().ok_or_else(|| {
        fault(FaultCode::BackendFailed, "Datadog's answer is not as its API describes", None, Some("no series".to_owned()))
    })?;
    let mut warnings = query.warnings.clone();
    warnings.extend(answer["message"].as_str().filter(|message| !message.is_empty()).map(shown_long));
    let mut series = Vec::new();
    let mut room = context.result_bytes.saturating_sub(4_096);
    for one in found.iter().take(question.max_series as usize) {
        let made = read(one, question, &query, api.settings);
        let size =
            16 * made.samples.len() + made.labels.iter().map(|pair| pair.name.len() + pair.value.len() + 16).sum::<usize>();
        if size as u64 > room {
            warnings.push(format!("{} series would have been too many bytes", found.len() - series.len()));
            break;
        }
        room -= size as u64;
        series.push(made);
    }
    let first = found.first();
    let unit = query.unit.map(str::to_owned).unwrap_or_else(|| first.map(unit).unwrap_or_default());
    let step = first.and_then(|one| one["interval"].as_u64()).map(|seconds| seconds * 1_000_000_000);
    Ok(MetricAnswer {
        series,
        total_series: Total::Exact(found.len() as u64),
        metric: query.metric,
        unit,
        query: query.text,
        step: step.or(question.step).unwrap_or(0),
        warnings,
        exemplars: Vec::new(),
    })
}

fn read(one: &Value, question: &MetricQuestion, query: &Query, settings: &Settings) -> Series {
    let mut labels: Vec<Pair> = Vec::new();
    for tag in one["tag_set"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let Some((key, value)) = tag.split_once(':') else { continue };
        // Under the name it was asked for.
        let asked = question.group_by.iter().find(|label| tags::tag_of(label, settings) == key).map(String::as_str);
        let name = asked.unwrap_or(if key == settings.namespace_tag { "namespace" } else { key });
        labels.push(Pair { name: name.to_owned(), value: value.to_owned() });
    }
    for (name, value) in &query.pinned {
        if !labels.iter().any(|pair| pair.name == *name) {
            labels.push(Pair { name: name.clone(), value: value.clone() });
        }
    }
    let points = one["pointlist"].as_array().into_iter().flatten();
    let samples = points.filter_map(|point| {
        // [milliseconds, value]; no value is no sample.
        let (at, value) = (point.get(0)?.as_f64()?, point.get(1)?.as_f64()?);
        let at = (at * MILLISECONDS) as i64;
        let inside = question.window.start <= at && at < question.window.end;
        inside.then_some(Sample { at, value: value * query.scale })
    });
    Series { labels, samples: samples.collect() }
}

/// `unit` is two units: of the value and of what it is per.
fn unit(one: &Value) -> String {
    let word = |at: usize| {
        let unit = one["unit"].get(at)?;
        let name = unit["name"].as_str().filter(|name| !name.is_empty())?;
        Some(match name {
            "second" => "s".to_owned(),
            "byte" => "By".to_owned(),
            "fraction" => "1".to_owned(),
            "percent" => "%".to_owned(),
            other => unit["short_name"].as_str().filter(|short| !short.is_empty()).unwrap_or(other).to_owned(),
        })
    };
    match (word(0), word(1)) {
        (Some(unit), None) => unit,
        (Some(unit), Some(per)) => format!("{unit}/{per}"),
        (None, Some(per)) => format!("1/{per}"),
        (None, None) => String::new(),
    }
}

/// Metrics that are being sent.
pub(crate) fn catalogue(
    api: &Api,
    question: &MetricCatalogueQuestion,
    context: &Context,
) -> Result<MetricCatalogueAnswer, Fault> {
    let nothing = MetricCatalogueAnswer { metrics: Vec::new(), total: Total::Exact(0) };
    let narrowed = filter(question.service.as_deref(), &[], &context.scope, api.settings, &mut Vec::new())?;
    let Some(narrowed) = narrowed else { return Ok(nothing) };
    let mut asked = vec![("from", question.window.start.div_euclid(SECOND).to_string())];
    if narrowed != "*" {
        asked.push(("tag_filter", narrowed));
    }
    let answer = api.get("/api/v1/metrics", &asked)?;
    let names = answer["metrics"].as_array().ok_or_else(|| {
        fault(FaultCode::BackendFailed, "Datadog's answer is not as its API describes", None, Some("no metrics".to_owned()))
    })?;
    let part = question.name_contains.as_ref().map(|part| part.to_lowercase());
    let fits = |name: &&str| part.as_ref().is_none_or(|part| name.to_lowercase().contains(part));
    let fitting: Vec<&str> = names.iter().filter_map(Value::as_str).filter(fits).collect();
    // Kind, unit and labels take a request for each metric; what is not asked is unknown, not absent.
    let metrics = fitting.iter().take(question.limit as usize).map(|name| MetricDescriptor {
        name: (*name).to_owned(),
        kind: MetricKind::Unknown,
        unit: String::new(),
        description: String::new(),
        labels: Vec::new(),
        series: None,
    });
    Ok(MetricCatalogueAnswer { metrics: metrics.collect(), total: Total::Exact(fitting.len() as u64) })
}

/// Values of a tag of one metric.
pub(crate) fn values(api: &Api, question: &LabelValuesQuestion) -> Result<Vec<String>, Fault> {
    let metric =
        question.metric.as_deref().filter(|name| tags::is_metric(name)).ok_or_else(|| {
            invalid("Datadog knows the tags of a metric, not of all metrics at once".to_owned(), "name a metric")
        })?;
    let key = tags::key(&question.label, api.settings)?;
    let answer = api.get(&format!("/api/v2/metrics/{}/all-tags", encoded(metric)), &[])?;
    let all = answer["data"]["attributes"]["tags"].as_array().ok_or_else(|| {
        fault(FaultCode::BackendFailed, "Datadog's answer is not as its API describes", None, Some("no tags".to_owned()))
    })?;
    let values = all.iter().filter_map(|tag| tag.as_str()?.split_once(':')).filter(|(name, _)| *name == key);
    Ok(values.map(|(_, value)| value.to_owned()).filter(|value| value.starts_with(&question.prefix)).collect())
}

#[cfg(test)]
mod tests;

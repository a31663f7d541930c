//! Which metrics exist, and which values a label has.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;

use arrow::array::AsArray;
use portcullis_model::NameSet;
use portcullis_model::{MetricDescriptor, MetricKind, Signal};
use portcullis_ports::{LabelValuesRequest, MetricCatalogueAnswer, MetricCatalogueRequest, Total};

use super::Confinement;
use crate::error::{Result, StoreError};
use crate::scan::{Cancel, Filter, Stage};
use crate::schema::Table;
use crate::store::Store;
use crate::text::{lookup, pairs};

/// Distinct values looked at before the answer is cut to its limit.
const MOST_VALUES: usize = 100_000;

#[derive(Default)]
struct Metric {
    unit: String,
    description: String,
    monotonic: bool,
    labels: BTreeSet<String>,
    series: HashSet<u64>,
}

/// Metrics with points in a window.
pub(crate) fn catalogue(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    request: &MetricCatalogueRequest,
) -> Result<MetricCatalogueAnswer> {
    let wanted = request.name_contains.as_ref().map(|part| part.to_lowercase());
    let mut found: BTreeMap<String, MetricDescriptor> = BTreeMap::new();
    let hasher = RandomState::new();
    for table in Table::METRICS {
        let mut filter = confinement.filter(table, request.window, request.service.as_deref());
        if let (Some(part), Some(column)) = (wanted.clone(), table.metric_column()) {
            let scrub = confinement.scrub.clone();
            filter.stages.push(Stage::on_words(column, move |name| {
                let clean = scrub.as_ref().and_then(|s| s.unmarked(name));
                clean.as_deref().unwrap_or(name).to_lowercase().contains(&part)
            }));
        }
        for (name, metric) in read_metrics(store, cancel, confinement, table, filter, request.with_labels, &hasher)? {
            let kind = match table {
                Table::Sum if metric.monotonic => MetricKind::Counter,
                Table::Histogram => MetricKind::Histogram,
                Table::ExponentialHistogram => MetricKind::ExponentialHistogram,
                Table::Summary => MetricKind::Summary,
                _ => MetricKind::Gauge,
            };
            found.entry(name.clone()).or_insert(MetricDescriptor {
                name,
                kind,
                unit: metric.unit,
                description: metric.description,
                labels: metric.labels.into_iter().collect(),
                series: request.with_labels.then_some(metric.series.len() as u64),
            });
        }
    }
    let total = Total::Exact(found.len() as u64);
    Ok(MetricCatalogueAnswer { metrics: found.into_values().take(request.limit).collect(), total })
}

fn read_metrics(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    table: Table,
    filter: Filter,
    with_labels: bool,
    hasher: &RandomState,
) -> Result<BTreeMap<String, Metric>> {
    let mut names = vec!["MetricName", "MetricDescription", "MetricUnit"];
    if with_labels {
        names.extend(["ServiceName", "Attributes", "ResourceAttributes"]);
    }
    if table == Table::Sum {
        names.push("IsMonotonic");
    }
    let mut columns: Vec<usize> = names.iter().map(|n| table.position(n)).collect();
    columns.sort_unstable();
    let plan = store.snapshot(&confinement.tenant, table)?.plan(filter, cancel)?;
    let parts =
        plan.read(store.settings().query_threads, cancel, &columns, BTreeMap::<String, Metric>::new, |metrics, rows| {
            let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_view_opt());
            let (Some(names), Some(descriptions), Some(units)) =
                (text("MetricName"), text("MetricDescription"), text("MetricUnit"))
            else {
                return Ok(ControlFlow::Continue(()));
            };
            let monotonic = rows.column_by_name("IsMonotonic").and_then(|c| c.as_boolean_opt());
            let wide = [text("ServiceName"), text("Attributes"), text("ResourceAttributes")];
            let view = |column: Option<&arrow::array::StringViewArray>, row: usize| column.map_or(0, |c| c.views()[row]);
            let mut last = None;
            for row in 0..rows.num_rows() {
                // Sorted rows repeat; only the first of a run of equal rows says something new.
                let same = (names.views()[row], wide.map(|c| view(c, row)));
                if last == Some(same) {
                    continue;
                }
                last = Some(same);
                let name = names.value(row);
                if !metrics.contains_key(name) {
                    metrics.insert(name.to_owned(), Metric::default());
                }
                let Some(metric) = metrics.get_mut(name) else { continue };
                if metric.unit.is_empty() {
                    units.value(row).clone_into(&mut metric.unit);
                }
                if metric.description.is_empty() {
                    descriptions.value(row).clone_into(&mut metric.description);
                }
                metric.monotonic |= monotonic.is_some_and(|m| m.value(row));
                if let [Some(services), Some(attributes), Some(resources)] = wide {
                    let parts = (services.value(row), attributes.value(row), resources.value(row));
                    if metric.series.insert(hasher.hash_one(parts)) {
                        metric.labels.extend(pairs(parts.1).map(|(key, _)| key.into_owned()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    for (name, metric) in parts.into_iter().flatten() {
        let known = all.entry(name).or_default();
        known.monotonic |= metric.monotonic;
        known.labels.extend(metric.labels);
        known.series.extend(metric.series);
        if known.unit.is_empty() {
            known.unit = metric.unit;
        }
        if known.description.is_empty() {
            known.description = metric.description;
        }
    }
    Ok(all)
}

/// Values of a label or attribute, in text order.
pub(crate) fn values(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    request: &LabelValuesRequest,
) -> Result<Vec<String>> {
    let tables: &[Table] = match request.signal {
        Signal::Logs => &[Table::Logs],
        Signal::Traces => &[Table::Traces],
        Signal::Metrics => &Table::METRICS,
        other => return Err(StoreError::Invalid(format!("labels of {} are not kept here", other.as_str()))),
    };
    let mut all = BTreeSet::new();
    for table in tables {
        let mut filter = confinement.filter(*table, request.window, request.service.as_deref());
        if let Some(metric) = &request.metric {
            filter.metrics = NameSet::only([metric.as_str()]);
        }
        let (own, column) = column_of(*table, &request.label);
        let mut columns = column.map_or_else(|| vec![own, table.resource_column()], |c| vec![c]);
        columns.sort_unstable();
        let plan = store.snapshot(&confinement.tenant, *table)?.plan(filter, cancel)?;
        let parts = plan.read(store.settings().query_threads, cancel, &columns, BTreeSet::<String>::new, |values, rows| {
            let texts: Vec<_> = rows.columns().iter().filter_map(|c| c.as_string_view_opt()).collect();
            let mut last: Vec<Option<u128>> = vec![None; texts.len()];
            for row in 0..rows.num_rows() {
                for (text, last) in texts.iter().zip(&mut last) {
                    let view = text.views()[row];
                    if *last == Some(view) {
                        continue;
                    }
                    *last = Some(view);
                    let value: Option<std::borrow::Cow<'_, str>> =
                        if column.is_some() { Some(text.value(row).into()) } else { lookup(text.value(row), &request.label) };
                    let clean = |v: std::borrow::Cow<'_, str>| {
                        confinement.scrub.as_ref().and_then(|s| s.field(&request.label, &v)).map_or(v.into_owned(), |clean| clean)
                    };
                    let value = value.map(clean);
                    if let Some(value) = value.filter(|v| v.starts_with(&request.prefix) && !v.is_empty() && !values.contains(v))
                    {
                        values.insert(value);
                    }
                }
            }
            Ok(if values.len() > MOST_VALUES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        all.extend(parts.into_iter().flatten());
    }
    Ok(all.into_iter().take(request.limit).collect())
}

/// The column of the table's own attributes, and the column a label is itself, if it is one.
fn column_of(table: Table, label: &str) -> (usize, Option<usize>) {
    let own = match table {
        Table::Logs => "LogAttributes",
        Table::Traces => "SpanAttributes",
        _ => "Attributes",
    };
    let column = match (table, label) {
        (_, "service" | "service.name") => Some("ServiceName"),
        (Table::Logs, "severity") => Some("SeverityText"),
        (Table::Traces, "operation" | "name") => Some("SpanName"),
        (Table::Traces, "kind") => Some("SpanKind"),
        (Table::Traces, "status") => Some("StatusCode"),
        _ => None,
    };
    (table.position(own), column.map(|name| table.position(name)))
}

//! Which metrics and label values a source has. Guards that help texts and counts are only given for names the caller's
//! views hold. Must not list what it did not look up.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream;
use portcullis_model::{Fault, MetricDescriptor, MetricKind};
use portcullis_ports::{LabelValuesRequest, MetricCatalogueAnswer, MetricCatalogueRequest, Total};
use portcullis_query::promql::{Aggregation, Expr, Grouping, LabelName, MetricName, Selector};

use super::plan::{invalid, short_unit, unit_of};
use super::survey::{Looking, MetadataByName, describe, kind_of};
use super::views::{View, selectors};

/// Metrics looked at at once.
const AT_ONCE: usize = 4;
/// Up to this many series are listed one by one, which also counts those that ended within the window.
const LISTED: u64 = 2_000;

/// Series names of one metric as people think of it: a histogram is one metric, not three.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: MetricKind,
    stored: Vec<String>,
}

/// Folds the series of histograms and summaries into one entry each.
fn fold(names: &BTreeSet<String>, metadata: &MetadataByName) -> BTreeMap<String, Entry> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for name in names {
        let (base, kind) = belongs_to(name, names, metadata);
        let entry = entries.entry(base).or_insert_with(|| Entry { kind, stored: Vec::new() });
        entry.stored.push(name.clone());
    }
    entries
}

fn belongs_to(name: &str, names: &BTreeSet<String>, metadata: &MetadataByName) -> (String, MetricKind) {
    let own = metadata.get(name).and_then(|entries| entries.first()).map(|m| kind_of(&m.kind));
    let told = describe(metadata, name).map(|m| kind_of(&m.kind));
    let part_of = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    if own.is_none_or(|kind| kind == MetricKind::Unknown)
        && let Some(base) = part_of
    {
        let looks_like_histogram = ["_bucket", "_count"].iter().all(|suffix| names.contains(&format!("{base}{suffix}")));
        match told {
            Some(kind @ (MetricKind::Histogram | MetricKind::Summary)) => return (base.to_owned(), kind),
            _ if looks_like_histogram => return (base.to_owned(), MetricKind::Histogram),
            _ => {}
        }
    }
    (name.to_owned(), told.unwrap_or(MetricKind::Unknown))
}

/// Answers which metrics exist.
pub(crate) async fn metrics(
    looking: &Looking<'_>,
    views: &[View],
    request: &MetricCatalogueRequest,
) -> Result<MetricCatalogueAnswer, Fault> {
    let names: BTreeSet<String> = looking.values("__name__", views, None).await?.into_iter().collect();
    let metadata = looking.metadata().await?;
    let wanted = request.name_contains.as_deref().unwrap_or_default().to_lowercase();
    let mut entries = fold(&names, &metadata);
    entries.retain(|name, _| name.to_lowercase().contains(&wanted));
    let total = Total::Exact(entries.len() as u64);
    let chosen: Vec<(String, Entry)> = entries.into_iter().take(request.limit).collect();
    let counts = if request.with_labels { Some(series_counts(looking, views, &chosen).await?) } else { None };
    let described = stream::iter(chosen).map(|(name, entry)| {
        let (metadata, counts) = (&metadata, &counts);
        async move {
            let (labels, series) = match &counts {
                Some(counts) => {
                    let running = entry.stored.iter().filter_map(|name| counts.get(name)).sum();
                    let (labels, series) = labels_of(looking, views, &entry, running).await?;
                    (labels, Some(series))
                }
                None => (Vec::new(), None),
            };
            let told = describe(metadata, &name);
            let unit = told
                .as_ref()
                .map(|m| short_unit(&m.unit).to_owned())
                .filter(|u| !u.is_empty())
                .unwrap_or_else(|| unit_of(&name).to_owned());
            let description = told.map(|m| m.help).unwrap_or_default();
            Ok::<_, Fault>(MetricDescriptor { name, kind: entry.kind, unit, description, labels, series })
        }
    });
    let mut described = described.buffered(AT_ONCE);
    let mut metrics = Vec::new();
    while let Some(next) = described.next().await {
        metrics.push(next?);
    }
    Ok(MetricCatalogueAnswer { metrics, total })
}

/// Series per stored name, just before the end of the window.
async fn series_counts(
    looking: &Looking<'_>,
    views: &[View],
    chosen: &[(String, Entry)],
) -> Result<BTreeMap<String, u64>, Fault> {
    let names: Result<Vec<MetricName>, _> = chosen.iter().flat_map(|(_, entry)| &entry.stored).map(MetricName::new).collect();
    let names = names.map_err(|e| invalid(&e))?;
    if names.is_empty() || views.is_empty() {
        return Ok(BTreeMap::new());
    }
    let base = Selector::any_metric_of(&names).map_err(|e| invalid(&e))?;
    let all = selectors(views, &base).into_iter().map(Expr::from).reduce(Expr::or);
    let Some(all) = all else { return Ok(BTreeMap::new()) };
    let name = LabelName::new("__name__").map_err(|e| invalid(&e))?;
    let counted = all.aggregate(Aggregation::Count, Grouping::By(vec![name])).map_err(|e| invalid(&e))?;
    let values = looking.source.api.query(looking.permit, &counted.to_string(), looking.last()).await?.data.into_values();
    let only = names.first().map(|name| name.as_str().to_owned());
    let named = |(labels, count): (BTreeMap<String, String>, f64)| {
        let name = labels.get("__name__").cloned().or_else(|| only.clone())?;
        Some((name, count as u64))
    };
    Ok(values.into_iter().filter_map(named).collect())
}

/// Label names and the number of series of one metric in the window; `running` is how many there are at its end.
async fn labels_of(looking: &Looking<'_>, views: &[View], entry: &Entry, running: u64) -> Result<(Vec<String>, u64), Fault> {
    let names: Result<Vec<MetricName>, _> = entry.stored.iter().map(MetricName::new).collect();
    let base = Selector::any_metric_of(&names.map_err(|e| invalid(&e))?).map_err(|e| invalid(&e))?;
    let selectors = selectors(views, &base);
    let (labels, series): (BTreeSet<String>, u64) = if running <= LISTED {
        let limit = LISTED as usize * 10;
        let series = looking.source.api.series(looking.permit, &selectors, looking.window, limit).await?.data;
        let count = series.len() as u64;
        (series.into_iter().flat_map(BTreeMap::into_keys).collect(), count)
    } else {
        let labels = looking.source.api.labels(looking.permit, &selectors, looking.window).await?;
        (labels.into_iter().collect(), running)
    };
    Ok((labels.into_iter().filter(|label| label != "__name__").collect(), series))
}

/// Answers which values a label has.
pub(crate) async fn label_values(
    looking: &Looking<'_>,
    views: &[View],
    request: &LabelValuesRequest,
) -> Result<Vec<String>, Fault> {
    let label = LabelName::new(&request.label).map_err(|e| invalid(&e))?;
    let names = match &request.metric {
        None => None,
        Some(metric) => {
            let spellings = ["", "_bucket", "_count", "_total"].map(|suffix| MetricName::new(format!("{metric}{suffix}")));
            let names: Result<Vec<MetricName>, _> = spellings.into_iter().collect();
            Some(names.map_err(|e| invalid(&e))?)
        }
    };
    let values = looking.values(label.as_str(), views, names.as_deref()).await?;
    let sorted: BTreeSet<String> = values.into_iter().filter(|v| !v.is_empty() && v.starts_with(&request.prefix)).collect();
    Ok(sorted.into_iter().take(request.limit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::wire::Metadata;

    #[test]
    fn a_histogram_is_one_metric() {
        let names = ["a_bucket", "a_count", "a_sum", "b_count", "c_sum", "c_count", "d_total", "e"].map(str::to_owned).into();
        let entry = |kind: &str| vec![Metadata { kind: kind.into(), unit: String::new(), help: String::new() }];
        let metadata = BTreeMap::from([("c".to_owned(), entry("summary")), ("d".to_owned(), entry("counter"))]);
        let kinds: Vec<(String, MetricKind, usize)> =
            fold(&names, &metadata).into_iter().map(|(name, e)| (name, e.kind, e.stored.len())).collect();
        assert_eq!(
            kinds,
            [
                ("a".to_owned(), MetricKind::Histogram, 3),
                ("b_count".to_owned(), MetricKind::Unknown, 1),
                ("c".to_owned(), MetricKind::Summary, 2),
                ("d_total".to_owned(), MetricKind::Counter, 1),
                ("e".to_owned(), MetricKind::Unknown, 1),
            ]
        );
    }
}

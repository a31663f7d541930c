//! The rows of `query_metrics`: one per series, with its change against the earlier window, as text and as data.
//!
//! Guards that a series without a counterpart is called new instead of unchanged, and that a number never stands
//! without its unit. Must not ask anybody anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use portcullis_analysis::level_shift;
use portcullis_model::{Sample, Series, SourceName, TimeWindow};
use portcullis_ports::{MetricAnswer, MetricSelector};
use portcullis_shape::series::values_line;
use portcullis_shape::{Cell, Column, Summary, Table, TableOptions, Trend, Unit, downsample, field_line, one_line, summarize};
use serde_json::{Value, json};

use super::MAX_POINTS;
use crate::answer::Counts;
use crate::time::{describe, rough, short};

/// Robust standard deviations between two levels from which one may speak of a jump.
const JUMP_THRESHOLD: f64 = 6.0;
/// From how many series on a table is shorter than sentences.
const TABLE_FROM: usize = 3;

/// What the series of one source have in common.
#[derive(Debug)]
pub(super) struct Block {
    source: SourceName,
    metric: String,
    unit_name: String,
    pub(super) unit: Unit,
    query: String,
    step_seconds: f64,
}

impl Block {
    pub(super) fn of(source: &SourceName, answer: &MetricAnswer, selector: &MetricSelector) -> Self {
        Self {
            source: source.clone(),
            metric: one_line(&answer.metric, 200),
            unit_name: one_line(&answer.unit, 30),
            unit: unit(answer, selector),
            query: one_line(&answer.query, 400),
            step_seconds: answer.step.as_secs_f64(),
        }
    }

    pub(super) fn structure(&self) -> Value {
        let Self { source, metric, unit_name, query, step_seconds, .. } = self;
        json!({"source": source, "metric": metric, "unit": unit_name, "query": query, "step_seconds": number(*step_seconds)})
    }
}

/// A plain "1" is a ratio only where the name says so: instrumentations also write it on counts.
fn unit(answer: &MetricAnswer, selector: &MetricSelector) -> Unit {
    let parsed = Unit::parse(&answer.unit);
    let means_ratio = matches!(selector, MetricSelector::Semantic(_))
        || ["ratio", "utilization", "utilisation", "percent"].iter().any(|word| answer.metric.contains(word));
    if parsed == Unit::Ratio && answer.unit.trim() == "1" && !means_ratio { Unit::None } else { parsed }
}

/// How a series stands against the earlier window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// Nothing to compare with.
    NotCompared,
    /// The series did not exist then.
    New,
    /// Its mean then.
    Was(f64),
}

/// One series.
#[derive(Debug)]
pub(super) struct Row {
    labels: BTreeMap<String, String>,
    series: Series,
    summary: Summary,
    change: Change,
    unit: Unit,
}

/// The rows of one source. Series without a sample inside the window are left to the source's own count.
pub(super) fn of_source(
    source: &SourceName,
    series: &[Series],
    before: Option<&MetricAnswer>,
    block: &Block,
    several_sources: bool,
    compared: bool,
) -> Vec<Row> {
    let earlier: HashMap<&BTreeMap<String, String>, f64> = before
        .map(|answer| answer.series.iter().filter_map(|s| Some((&s.labels, summarize(&s.samples)?.mean))).collect())
        .unwrap_or_default();
    let row = |one: &Series| {
        let summary = summarize(&one.samples)?;
        let summary = Summary { trend: trend(&one.samples).unwrap_or(summary.trend), ..summary };
        let change = match (compared && before.is_some(), earlier.get(&one.labels)) {
            (false, _) => Change::NotCompared,
            (true, None) => Change::New,
            (true, Some(mean)) => Change::Was(*mean),
        };
        let mut labels = one.labels.clone();
        if several_sources {
            labels.insert("source".to_owned(), source.to_string());
        }
        Some(Row { labels, series: one.clone(), summary, change, unit: block.unit })
    };
    series.iter().filter_map(row).collect()
}

/// Largest peak first, then the larger mean.
pub(super) fn worst_first(rows: &mut [Row]) {
    rows.sort_by(|a, b| {
        let peak = b.summary.max.value.total_cmp(&a.summary.max.value);
        peak.then_with(|| b.summary.mean.total_cmp(&a.summary.mean)).then_with(|| a.labels.cmp(&b.labels))
    });
}

/// A number with five significant digits; what JSON cannot say is text.
pub(crate) fn number(value: f64) -> Value {
    if !value.is_finite() {
        return json!(portcullis_shape::number::plain(value, 5));
    }
    if value == 0.0 || value.fract() == 0.0 && value.abs() < 1e15 {
        return json!(value as i64);
    }
    let scale = 10f64.powi(4 - value.abs().log10().floor() as i32);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { json!(rounded) } else { json!(value) }
}

impl Change {
    fn describe(self, mean: f64, unit: Unit) -> String {
        match self {
            Self::NotCompared => String::new(),
            Self::New => "new".to_owned(),
            Self::Was(before) => {
                let was = portcullis_shape::number::format(before, unit, 3);
                match ratio(before, mean) {
                    None => format!("was {was}"),
                    Some(share) if share.abs() < 0.02 => format!("was {was}, unchanged"),
                    Some(share) if share < 2.0 => format!("was {was}, {:+.0}%", share * 100.0),
                    Some(share) => format!("was {was}, ×{}", portcullis_shape::number::plain(share + 1.0, 3)),
                }
            }
        }
    }
}

/// Relative change; `None` where nothing relative can be said.
fn ratio(before: f64, after: f64) -> Option<f64> {
    let share = (after - before) / before.abs();
    if before == 0.0 && after == 0.0 { Some(0.0) } else { share.is_finite().then_some(share) }
}

/// A jump to a new level inside the window, wherever in it: the first and last quarter alone do not show a late one.
fn trend(samples: &[Sample]) -> Option<Trend> {
    let shift = level_shift(samples, JUMP_THRESHOLD)?;
    let by = shift.after - shift.before;
    Some(Trend::Jumped { at: shift.at, by, share: (shift.before != 0.0).then(|| by / shift.before.abs()) })
}

fn trend_word(trend: Trend, window: TimeWindow) -> String {
    match trend {
        Trend::Jumped { at, .. } => format!("jumped at {}", short(at, window)),
        Trend::Rising { .. } => "rising".to_owned(),
        Trend::Falling { .. } => "falling".to_owned(),
        Trend::Stable => "stable".to_owned(),
        Trend::Unknown => "unknown".to_owned(),
    }
}

impl Row {
    /// The labels that tell it apart.
    fn name(&self, telling: &BTreeSet<String>) -> String {
        let own = self.labels.iter().filter(|(name, _)| telling.contains(*name));
        let words: Vec<String> =
            own.map(|(name, value)| format!("{}={}", one_line(name, 80), field_line(name, value, 120))).collect();
        if words.is_empty() { "all".to_owned() } else { words.join(",") }
    }

    pub(super) fn structure(&self, window: TimeWindow, points: bool) -> Value {
        let summary = &self.summary;
        let labels: BTreeMap<String, String> =
            self.labels.iter().map(|(name, value)| (one_line(name, 80), field_line(name, value, 200))).collect();
        let mut row = json!({
            "labels": labels,
            "current": number(summary.last.value),
            "min": number(summary.min.value),
            "min_at": summary.min.at.to_string(),
            "max": number(summary.max.value),
            "max_at": summary.max.at.to_string(),
            "mean": number(summary.mean),
            "trend": trend_word(summary.trend, window),
        });
        let Some(object) = row.as_object_mut() else { return row };
        match self.change {
            Change::NotCompared => {}
            Change::New => {
                object.insert("new".to_owned(), json!(true));
            }
            Change::Was(before) => {
                object.insert("mean_before".to_owned(), number(before));
                if let Some(share) = ratio(before, summary.mean) {
                    object.insert("change".to_owned(), number(share));
                }
            }
        }
        if points {
            let reduced = downsample(&self.series.samples, window, MAX_POINTS);
            let values: Vec<Value> = reduced.buckets.iter().map(|b| b.map_or(Value::Null, |s| number(s.value))).collect();
            let step = reduced.step_nanos as f64 / 1e9;
            object.insert(
                "points".to_owned(),
                json!({"start": reduced.start.to_string(), "step_seconds": number(step), "values": values}),
            );
        }
        row
    }
}

/// How the labels of several rows are shown.
struct Labels {
    /// The same everywhere; stated once.
    constant: BTreeMap<String, String>,
    /// Enough to tell the rows apart.
    telling: BTreeSet<String>,
    /// The rest, which follows from the telling ones; in the structured answer only.
    hidden: Vec<String>,
}

/// Opaque ids go first, then where something runs, then the longest.
fn least_telling(name: &str, rows: &[Row]) -> (u8, usize) {
    let opaque = ["instance.id", "instance_id", "uid", "container.id", "container_id"].iter().any(|part| name.contains(part));
    let place = ["host", "node", "address"].iter().any(|part| name.contains(part));
    let length = rows.iter().filter_map(|row| row.labels.get(name)).map(String::len).sum();
    (if opaque { 2 } else { u8::from(place) }, length)
}

fn labels(rows: &[Row]) -> Labels {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.labels.keys()).collect();
    let Some(first) = rows.first().filter(|_| rows.len() > 1) else {
        return Labels { constant: BTreeMap::new(), telling: names.into_iter().cloned().collect(), hidden: Vec::new() };
    };
    let everywhere = |(name, value): &(&String, &String)| rows.iter().all(|row| row.labels.get(*name) == Some(*value));
    let constant: BTreeMap<String, String> =
        first.labels.iter().filter(everywhere).map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut telling: BTreeSet<String> = names.into_iter().filter(|name| !constant.contains_key(*name)).cloned().collect();
    let distinct = |names: &BTreeSet<String>| {
        let key = |row: &Row| names.iter().map(|name| row.labels.get(name).cloned()).collect::<Vec<_>>();
        rows.iter().map(key).collect::<BTreeSet<_>>().len()
    };
    let all = distinct(&telling);
    let mut candidates: Vec<String> = telling.iter().cloned().collect();
    candidates.sort_by_key(|name| std::cmp::Reverse(least_telling(name, rows)));
    let mut hidden = Vec::new();
    for name in candidates {
        telling.remove(&name);
        if telling.is_empty() || distinct(&telling) < all {
            telling.insert(name);
        } else {
            hidden.push(name);
        }
    }
    Labels { constant, telling, hidden }
}

/// The text: what was asked, then one line per series, or a table when there are several.
pub(super) fn render(
    blocks: &[Block],
    rows: &[Row],
    counts: Counts,
    window: TimeWindow,
    before: Option<TimeWindow>,
    points: bool,
) -> String {
    let mut text = String::new();
    let mut names: Vec<String> = Vec::new();
    for block in blocks {
        let unit = if block.unit_name.is_empty() { "no unit given".to_owned() } else { block.unit_name.clone() };
        let name = format!("{} [{unit}]", block.metric);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let _ = write!(text, "{}, {}", names.join("; "), describe(window));
    if let Some(before) = before {
        let _ = write!(text, ", compared with the {} from {}", rough(before.length()), short(before.start, window));
    }
    let _ = writeln!(text, "\n{} series, largest peak first", counts.describe());
    let labels = labels(rows);
    if !labels.constant.is_empty() {
        let words: Vec<String> = labels
            .constant
            .iter()
            .map(|(name, value)| format!("{}={}", one_line(name, 80), field_line(name, value, 120)))
            .collect();
        let _ = writeln!(text, "all: {}", words.join(", "));
    }
    if !labels.hidden.is_empty() {
        let _ = writeln!(text, "labels not shown: {}", labels.hidden.join(", "));
    }
    if rows.len() >= TABLE_FROM && !points {
        text.push_str(&table(rows, &labels.telling, window));
        return text;
    }
    for row in rows {
        let change = match row.change {
            Change::NotCompared => String::new(),
            Change::New => "; did not exist before".to_owned(),
            change @ Change::Was(_) => format!("; mean {}", change.describe(row.summary.mean, row.unit)),
        };
        let _ = writeln!(text, "{}: {}{change}", row.name(&labels.telling), row.summary.describe(row.unit, window));
        if points {
            let reduced = downsample(&row.series.samples, window, MAX_POINTS);
            let step = portcullis_shape::number::format_nanos(reduced.step_nanos);
            let _ = writeln!(text, "  from {} every {step}: {}", short(reduced.start, window), values_line(&reduced, row.unit));
        }
    }
    text
}

fn table(rows: &[Row], telling: &BTreeSet<String>, window: TimeWindow) -> String {
    let compared = rows.iter().any(|row| row.change != Change::NotCompared);
    let mut columns: Vec<Column> =
        ["series", "current", "min", "max", "max at", "mean", "trend"].into_iter().map(Column::new).collect();
    if compared {
        columns.push(Column::new("mean before"));
    }
    let mut table = Table::new(columns);
    for row in rows {
        let value = |v: f64| Cell::from(portcullis_shape::number::format(v, row.unit, 3));
        let summary = &row.summary;
        let mut cells = vec![
            Cell::from(row.name(telling)),
            value(summary.last.value),
            value(summary.min.value),
            value(summary.max.value),
            Cell::from(short(summary.max.at, window)),
            value(summary.mean),
            Cell::from(trend_word(summary.trend, window)),
        ];
        if compared {
            cells.push(Cell::from(row.change.describe(summary.mean, row.unit)));
        }
        // A row of another width cannot happen: both are built from `compared`.
        let _ = table.push(cells);
    }
    table.render(&TableOptions { max_rows: rows.len(), ..TableOptions::default() }).text
}

#[cfg(test)]
mod tests {
    use portcullis_model::Timestamp;

    use super::*;

    #[test]
    fn numbers_keep_five_digits_and_say_infinity() {
        assert_eq!(number(0.123_456_789), json!(0.12346));
        assert_eq!(number(123_456.789), json!(123_460.0));
        assert_eq!(number(3.0), json!(3));
        assert_eq!(number(0.0), json!(0));
        assert_eq!(number(f64::INFINITY), json!("+Inf"));
    }

    #[test]
    fn a_jump_is_named_with_its_time_wherever_it_lies() {
        let at = |index: usize| Timestamp::from_seconds(1_772_359_200 + 15 * index as i64);
        let window = TimeWindow::new(at(0), at(60)).unwrap();
        for jump in [5, 30, 55] {
            let value = |index: usize| if index < jump { 0.12 } else { 0.9 } + (index % 5) as f64 * 0.002;
            let samples: Vec<Sample> = (0..60).map(|index| Sample { at: at(index), value: value(index) }).collect();
            let found = trend(&samples).unwrap();
            assert_eq!(trend_word(found, window), format!("jumped at {}", short(at(jump), window)));
            assert!(matches!(found, Trend::Jumped { by, share: Some(share), .. } if by > 0.7 && share > 6.0), "{found:?}");
        }
    }

    #[test]
    fn changes_in_words() {
        assert_eq!(Change::Was(0.01).describe(0.5, Unit::Ratio), "was 1%, ×50");
        assert_eq!(Change::Was(2.0).describe(1.0, Unit::None), "was 2, -50%");
        assert_eq!(Change::Was(0.0).describe(1.0, Unit::None), "was 0");
        assert_eq!(Change::Was(0.0).describe(0.0, Unit::None), "was 0, unchanged");
        assert_eq!(Change::New.describe(1.0, Unit::None), "new");
    }
}

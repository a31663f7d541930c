//! Counting log records instead of reading them.
//!
//! Guards that groups of several sources are added up by key, that empty buckets are shown as zero only because the
//! source counted them, and that a value is judged by its name, which stands elsewhere. Must not read bodies.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_model::{Fault, Signal, Timestamp, cut, format_duration, parse_duration};
use portcullis_policy::Permit;
use portcullis_ports::{LogCount, LogCountRequest, Outcome, Total};
use portcullis_shape::field_line;
use serde_json::{Value, json};

use super::Checked;
use crate::answer::{Answer, Counts, sum_totals};
use crate::arguments;
use crate::sources::{Ask, Found, Sources};
use crate::time::{describe, short};

/// Most buckets over the window.
const MAX_BUCKETS: u64 = 120;
/// Most labels to count by.
const MAX_BY: usize = 5;

/// A step that makes at most [`MAX_BUCKETS`] buckets.
fn step(asked: &Checked<'_>) -> Result<Option<Duration>, Fault> {
    let Some(text) = asked.given.step.as_deref() else { return Ok(None) };
    let step = parse_duration(text).map_err(|e| Fault::invalid(format!("step: {e}")))?;
    let length = asked.filter.window.length();
    let buckets = length.as_nanos().div_ceil(step.as_nanos().max(1));
    if buckets > u128::from(MAX_BUCKETS) {
        let smallest = Duration::from_secs(length.as_secs().div_ceil(MAX_BUCKETS).max(1));
        let words = format!("step {text} makes {buckets} buckets over {}; the limit is {MAX_BUCKETS}", format_duration(length));
        return Err(Fault::invalid(words).with_hint(format!("step {} or longer", format_duration(smallest))));
    }
    Ok(Some(step))
}

pub(super) async fn run(sources: &Sources, permit: &Permit, asked: Checked<'_>) -> Result<Outcome, Fault> {
    if asked.given.count_by.len() > MAX_BY {
        return Err(Fault::invalid(format!("count_by takes at most {MAX_BY} names")));
    }
    for name in &asked.given.count_by {
        arguments::label_name(name)?;
    }
    let request = LogCountRequest {
        filter: asked.filter.clone(),
        by: asked.given.count_by.clone(),
        step: step(&asked)?,
        // Several sources may rank groups differently; a margin keeps the merged top honest.
        top: asked.limit * 2,
    };
    let request = &request;
    let fan = sources
        .fan_out(permit, Ask::signal(Signal::Logs, asked.source), |source, permit| async move {
            let answer = source.log_counts(&permit, request).await?;
            let has_data = answer.total != Total::Exact(0) && !answer.groups.is_empty();
            Ok(Found::new(answer, has_data))
        })
        .await?
        .or_refusal()?;
    let records = sum_totals(fan.answers.iter().map(|(_, answer)| answer.total));
    // Secrets go before groups are told apart: neither their order nor their number says anything about one.
    let counted: Vec<LogCount> = fan.answers.iter().flat_map(|(_, answer)| &answer.groups).map(without_secrets).collect();
    let mut groups = add_up(counted.iter());
    let read = groups.len() as u64;
    let total = match fan.answers.as_slice() {
        [(_, only)] if groups.len() == only.groups.len() => only.total_groups,
        several if several.iter().all(|(_, a)| a.total_groups == Total::Exact(a.groups.len() as u64)) => Total::Exact(read),
        _ => Total::AtLeast(read),
    };
    groups.truncate(asked.limit);
    let counts = Counts::of(groups.len(), total);
    let text = render(&groups, records, counts, &asked, request.step);
    let mut answer = Answer::new(fan.coverage).window(asked.filter.window).note(asked.note.clone()).counts(counts).text(text);
    answer = match records {
        Total::Exact(n) => answer.field("records_total", n),
        Total::AtLeast(n) => answer.field("records_total_at_least", n),
        Total::Unknown => answer,
    };
    if counts.truncated {
        answer = answer.hint("raise limit, or filter by one of the groups");
    }
    let structured: Vec<Value> = groups.iter().map(|group| structure(group, request.step.is_some())).collect();
    Ok(answer.field("groups", structured).finish())
}

/// The group, with the mark of a secret in place of what the name of a field says is one.
fn without_secrets(group: &LogCount) -> LogCount {
    let key = group.key.iter().map(|(name, value)| (name.clone(), cut::field(name, value).into_owned())).collect();
    LogCount { key, count: group.count, over_time: group.over_time.clone() }
}

/// Groups of the same key added up, largest first.
fn add_up<'a>(groups: impl Iterator<Item = &'a LogCount>) -> Vec<LogCount> {
    type Key = BTreeMap<String, String>;
    let mut sums: BTreeMap<&Key, (u64, BTreeMap<Timestamp, u64>)> = BTreeMap::new();
    for group in groups {
        let (count, over_time) = sums.entry(&group.key).or_default();
        *count += group.count;
        for (at, n) in &group.over_time {
            *over_time.entry(*at).or_default() += n;
        }
    }
    let mut groups: Vec<LogCount> = sums
        .into_iter()
        .map(|(key, (count, over_time))| LogCount { key: key.clone(), count, over_time: over_time.into_iter().collect() })
        .collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
    groups
}

fn key_text(key: &BTreeMap<String, String>, by: &[String]) -> String {
    if by.is_empty() {
        return "all".to_owned();
    }
    let value = |name: &String| key.get(name).map_or_else(|| "(absent)".to_owned(), |value| field_line(name, value, 120));
    by.iter().map(value).collect::<Vec<_>>().join(" | ")
}

fn render(groups: &[LogCount], records: Total, counts: Counts, asked: &Checked<'_>, step: Option<Duration>) -> String {
    let window = asked.filter.window;
    let all = match records {
        Total::Exact(n) => n.to_string(),
        Total::AtLeast(n) => format!("at least {n}"),
        Total::Unknown => "an unknown number of".to_owned(),
    };
    let mut lines = vec![format!("{all} records, {}", describe(window))];
    if !asked.given.count_by.is_empty() {
        lines.push(format!("{} groups by {}, largest first", counts.describe(), asked.given.count_by.join(" | ")));
    }
    if let (Some(step), true) = (step, !groups.is_empty()) {
        lines.push(format!("per {} (time=count, zero where none is given)", format_duration(step)));
    }
    for group in groups {
        let mut line = format!("{}: {}", key_text(&group.key, &asked.given.count_by), group.count);
        if step.is_some() {
            let words: Vec<String> = group.over_time.iter().map(|(at, n)| format!("{}={n}", short(*at, window))).collect();
            line.push_str(" · ");
            line.push_str(&words.join(" "));
        }
        lines.push(line);
    }
    lines.join("\n")
}

fn structure(group: &LogCount, timed: bool) -> Value {
    let key: BTreeMap<&String, String> = group.key.iter().map(|(name, value)| (name, field_line(name, value, 200))).collect();
    if !timed {
        return json!({"key": key, "count": group.count});
    }
    let points: Vec<Value> = group.over_time.iter().map(|(at, n)| json!([at.to_string(), n])).collect();
    json!({"key": key, "count": group.count, "over_time": points})
}

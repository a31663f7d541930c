//! Logs of Datadog: searching page by page, counting, and which services there are. Guards that a partial answer is no whole
//! one: what Datadog did not finish, and what did not fit, is said in `total` and `next`, or is a fault.
//! Source: <https://docs.datadoghq.com/api/latest/logs/> (search and aggregate, version 2).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::{Api, fault, shown_long};
use crate::portcullis::plugin::telemetry::{
    Bucket, LogAnswer, LogCount, LogCountAnswer, LogCountQuestion, LogFilter, LogPosition, LogQuestion, LogRecord, Service,
};
use crate::portcullis::plugin::types::{Context, Fault, FaultCode, Pair, Severity, Signal, Total, Window};
use crate::search;
use crate::time::{self, MILLISECOND};

/// Largest page Datadog gives.
const PAGE: u64 = 1_000;
/// Requests of one question.
const MOST_REQUESTS: usize = 6;
/// Largest number of groups of one facet.
const MOST_GROUPS: u32 = 1_000;
/// Fields one may group by.
const MOST_FIELDS: usize = 4;
/// Stands for the value of a field that a record does not have.
const ABSENT: &str = "\u{2205}portcullis-absent";
/// What is kept for the rest of an answer besides records.
const RESERVE: u64 = 4_096;

fn filter_body(filter: &LogFilter, query: &str, end: i64, api: &Api) -> Value {
    let mut body = json!({
        "query": query,
        "from": time::written(filter.window.start),
        "to": time::written(end.saturating_add(MILLISECOND - 1)),
    });
    if !api.settings.indexes.is_empty() {
        body["indexes"] = json!(api.settings.indexes);
    }
    body
}

/// What Datadog says of an answer besides the answer.
struct Said {
    /// It ran out of time.
    partial: bool,
    warning: Option<String>,
    cursor: Option<String>,
}

fn said(answer: &Value) -> Said {
    let meta = &answer["meta"];
    let texts = meta["warnings"].as_array().into_iter().flatten().filter_map(|warning| {
        let text = warning["detail"].as_str().or_else(|| warning["title"].as_str())?;
        Some(shown_long(text))
    });
    let warning = texts.collect::<Vec<_>>().join("; ");
    Said {
        partial: meta["status"] == "timeout",
        warning: (!warning.is_empty()).then_some(warning),
        cursor: meta["page"]["after"].as_str().filter(|cursor| !cursor.is_empty()).map(str::to_owned),
    }
}

/// Answers a search.
pub(crate) fn logs(api: &Api, question: &LogQuestion, context: &Context) -> Result<LogAnswer, Fault> {
    let filter = &question.filter;
    let Some(query) = search::query(filter, &context.scope, api.settings)? else {
        return Ok(LogAnswer { records: Vec::new(), total: Total::Exact(0), next: None });
    };
    let mut pages = Pages::new(question, context);
    let (start, end) = pages.bounds();
    let window = Window { start, end };
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_REQUESTS {
        let limit = (u64::from(question.limit) - pages.records.len() as u64 + u64::from(pages.skip)).clamp(1, PAGE);
        let mut page = json!({ "limit": limit });
        if let Some(cursor) = &cursor {
            page["cursor"] = json!(cursor);
        }
        let filter = LogFilter { window, ..filter.clone() };
        let sort = if question.newest_first { "-timestamp" } else { "timestamp" };
        let body = json!({"filter": filter_body(&filter, &query, end, api), "sort": sort, "page": page});
        let answer = api.post("/api/v2/logs/events/search", &body)?;
        let said = said(&answer);
        let data = answer["data"].as_array().ok_or_else(|| garbage("a search without data"))?;
        if let Some(warning) = &said.warning {
            api.door.warn(&format!("Datadog warns: {warning}"));
            pages.whole = false;
        }
        let full = pages.take(data, api)?;
        if said.partial {
            pages.whole = false;
            if pages.records.is_empty() {
                return Err(too_long());
            }
            pages.more = true;
            break;
        }
        let asked_for_all = said.cursor.is_none() || data.is_empty();
        if full || (!asked_for_all && pages.records.len() as u64 >= u64::from(question.limit)) {
            pages.more = full || !asked_for_all;
            break;
        }
        if asked_for_all {
            if pages.records.is_empty() && !pages.whole {
                let why = said.warning.unwrap_or_default();
                return Err(fault(FaultCode::BackendFailed, &format!("Datadog found nothing, and warns: {why}"), None, None));
            }
            return Ok(pages.answer());
        }
        cursor = said.cursor;
        pages.more = true;
    }
    Ok(pages.answer())
}

/// Records of several pages of Datadog as one page of an answer.
struct Pages<'a> {
    question: &'a LogQuestion,
    records: Vec<LogRecord>,
    /// Records of exactly the time of the position that were shown before.
    skip: u32,
    /// Bytes there is room for.
    room: u64,
    /// There is more than was taken.
    more: bool,
    /// Nothing is known to be missing.
    whole: bool,
}

impl<'a> Pages<'a> {
    fn new(question: &'a LogQuestion, context: &Context) -> Self {
        let skip = question.after.map_or(0, |position| position.shown_at);
        let room = context.result_bytes.saturating_sub(RESERVE);
        Self { question, records: Vec::new(), skip, room, more: false, whole: true }
    }

    /// The window, from where the last page ended.
    fn bounds(&self) -> (i64, i64) {
        let window = self.question.filter.window;
        match self.question.after {
            Some(position) if self.question.newest_first => (window.start, window.end.min(position.at.saturating_add(1))),
            Some(position) => (window.start.max(position.at), window.end),
            None => (window.start, window.end),
        }
    }

    /// Takes records; says whether there is no room for more.
    fn take(&mut self, data: &[Value], api: &Api) -> Result<bool, Fault> {
        let (start, end) = self.bounds();
        for event in data {
            let record = record(event, api).ok_or_else(|| garbage("a log event without a time"))?;
            // Datadog knows milliseconds, the question nanoseconds.
            if record.at < start || record.at >= end {
                continue;
            }
            if self.skip > 0 && self.question.after.is_some_and(|position| position.at == record.at) {
                self.skip -= 1;
                continue;
            }
            if self.records.len() as u64 >= u64::from(self.question.limit) {
                return Ok(true);
            }
            let size = size(&record);
            if size > self.room {
                if self.records.is_empty() {
                    return Err(fault(
                        FaultCode::TooLarge,
                        &format!("the next log record has {size} bytes, which is more than an answer may have"),
                        Some("leave it out by a filter"),
                        None,
                    ));
                }
                return Ok(true);
            }
            self.room -= size;
            self.records.push(record);
        }
        Ok(false)
    }

    fn answer(self) -> LogAnswer {
        let shown = self.records.len() as u64;
        let all = !self.more && self.whole && self.question.after.is_none();
        let total = if all { Total::Exact(shown) } else { Total::AtLeast(shown) };
        let next = if self.more { ended(&self.records, self.question.after) } else { None };
        LogAnswer { records: self.records, total, next }
    }
}

/// Where these records end.
fn ended(records: &[LogRecord], after: Option<LogPosition>) -> Option<LogPosition> {
    let Some(last) = records.last() else { return after };
    let here = records.iter().filter(|record| record.at == last.at).count();
    let before = after.filter(|position| position.at == last.at).map_or(0, |position| position.shown_at);
    Some(LogPosition { at: last.at, shown_at: before.saturating_add(u32::try_from(here).unwrap_or(u32::MAX)) })
}

fn size(record: &LogRecord) -> u64 {
    let pairs: usize = record.attributes.iter().map(|pair| pair.name.len() + pair.value.len() + 16).sum();
    (record.body.len() + record.service.len() + record.trace_id.len() + record.span_id.len() + 64 + pairs) as u64
}

fn garbage(what: &str) -> Fault {
    fault(FaultCode::BackendFailed, "Datadog's answer is not as its API describes", None, Some(what.to_owned()))
}

fn too_long() -> Fault {
    let hint = Some("ask about less time, one service, or a word that is rarer");
    fault(FaultCode::TooLarge, "Datadog ran out of time before it had an answer", hint, None)
}

/// A log event; `None` when it says no time.
fn record(event: &Value, api: &Api) -> Option<LogRecord> {
    let event = event.get("attributes")?;
    let at = time::read(event["timestamp"].as_str()?)?;
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let mut attributes: BTreeMap<String, String> = BTreeMap::new();
    for tag in event["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (key, value) = tag.split_once(':').unwrap_or(("tags", tag));
        let key = if key == api.settings.namespace_tag { "k8s.namespace.name" } else { key };
        let known = attributes.entry(key.to_owned()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(value);
    }
    if let Some(own) = event["attributes"].as_object() {
        flatten("", own, &mut attributes);
    }
    let host = text("host");
    if !host.is_empty() {
        attributes.insert("host.name".to_owned(), host);
    }
    let service = Some(text("service")).filter(|service| !service.is_empty());
    let service = service.or_else(|| attributes.get("service").cloned()).unwrap_or_default();
    attributes.remove("service");
    let status = text("status");
    let severity = search::severity(&status);
    if severity.is_none() && !status.is_empty() {
        attributes.insert("status".to_owned(), status);
    }
    let trace_id = id(&attributes, &["otel.trace_id", "trace_id", "dd.trace_id"], 32);
    let span_id = id(&attributes, &["otel.span_id", "span_id", "dd.span_id"], 16);
    Some(LogRecord {
        at,
        severity,
        service,
        body: text("message"),
        attributes: attributes.into_iter().map(|(name, value)| Pair { name, value }).collect(),
        trace_id,
        span_id,
    })
}

/// Hexadecimal of full length as it is, decimal (of Datadog's tracers) as hexadecimal.
fn id(attributes: &BTreeMap<String, String>, names: &[&str], digits: usize) -> String {
    let found = names.iter().find_map(|name| attributes.get(*name)).map(|id| id.to_ascii_lowercase()).unwrap_or_default();
    if found.len() == digits && found.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return found;
    }
    found.parse::<u64>().map(|number| format!("{number:0digits$x}")).unwrap_or_default()
}

fn flatten(prefix: &str, members: &Map<String, Value>, into: &mut BTreeMap<String, String>) {
    for (name, value) in members {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(members) => flatten(&name, members, into),
            Value::Null => {}
            Value::String(text) => drop(into.insert(name, text.clone())),
            other => drop(into.insert(name, other.to_string())),
        }
    }
}

/// Groups of an aggregation.
struct Groups {
    buckets: Vec<Value>,
    whole: bool,
}

fn aggregate(
    api: &Api,
    filter: &LogFilter,
    query: &str,
    fields: &[(String, String)],
    compute: &Value,
    top: u32,
) -> Result<Groups, Fault> {
    let group_by: Vec<Value> = fields
        .iter()
        .map(|(_, facet)| {
            json!({"facet": facet, "limit": top.clamp(1, MOST_GROUPS), "missing": ABSENT,
                "sort": {"type": "measure", "aggregation": "count", "order": "desc"}})
        })
        .collect();
    let mut body = json!({"compute": [compute], "filter": filter_body(filter, query, filter.window.end, api)});
    if !group_by.is_empty() {
        body["group_by"] = json!(group_by);
    }
    let answer = api.post("/api/v2/logs/analytics/aggregate", &body)?;
    let said = said(&answer);
    let buckets = answer["data"]["buckets"].as_array().cloned().ok_or_else(|| garbage("an aggregation without buckets"))?;
    if let Some(warning) = &said.warning {
        api.door.warn(&format!("Datadog warns: {warning}"));
    }
    if said.partial && buckets.is_empty() {
        return Err(too_long());
    }
    Ok(Groups { buckets, whole: !said.partial && said.warning.is_none() && said.cursor.is_none() })
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|n| n.is_finite() && *n >= 0.0).map(|n| n as u64))
}

fn interval(step: u64) -> String {
    let seconds = (step / 1_000_000_000).max(1);
    if seconds % 60 == 0 { format!("{}m", seconds / 60) } else { format!("{seconds}s") }
}

/// Answers a count.
pub(crate) fn log_counts(api: &Api, question: &LogCountQuestion, context: &Context) -> Result<LogCountAnswer, Fault> {
    let filter = &question.filter;
    let nothing = LogCountAnswer { groups: Vec::new(), total_groups: Total::Exact(0), total: Total::Exact(0) };
    let Some(query) = search::query(filter, &context.scope, api.settings)? else { return Ok(nothing) };
    if question.by.len() > MOST_FIELDS {
        return Err(crate::tags::invalid(
            format!("Datadog groups by {MOST_FIELDS} fields at most, and {} were given", question.by.len()),
            "name fewer fields in 'by'",
        ));
    }
    let mut fields = Vec::new();
    for field in &question.by {
        fields.push((field.clone(), search::facet(field, api.settings)?));
    }
    let compute = match question.step {
        None => json!({"aggregation": "count", "type": "total"}),
        Some(step) => json!({"aggregation": "count", "type": "timeseries", "interval": interval(step)}),
    };
    let found = aggregate(api, filter, &query, &fields, &compute, question.top)?;
    let mut groups: BTreeMap<Vec<(String, String)>, (u64, BTreeMap<i64, u64>)> = BTreeMap::new();
    for bucket in &found.buckets {
        let mut key = Vec::new();
        for (field, facet) in &fields {
            let value = match &bucket["by"][facet.as_str()] {
                Value::String(text) if text == ABSENT => continue,
                Value::String(text) => text.clone(),
                Value::Null => continue,
                other => other.to_string(),
            };
            key.push((field.clone(), if field == "severity" { severity_word(&value) } else { value }));
        }
        let group = groups.entry(key).or_default();
        match &bucket["computes"]["c0"] {
            Value::Array(points) => {
                for point in points {
                    let at = point["time"].as_str().and_then(time::read).ok_or_else(|| garbage("a count without a time"))?;
                    let count = number(&point["value"]).unwrap_or(0);
                    group.0 += count;
                    *group.1.entry(at).or_default() += count;
                }
            }
            value => group.0 += number(value).ok_or_else(|| garbage("a bucket without a count"))?,
        }
    }
    groups.retain(|_, (count, _)| *count > 0);
    let counted: u64 = groups.values().map(|(count, _)| count).sum();
    let complete = found.whole && (fields.is_empty() || found.buckets.len() < question.top.min(MOST_GROUPS) as usize);
    let (total, all) = if complete {
        (counted, true)
    } else {
        // The largest groups say nothing about the sum of all.
        let sum = aggregate(api, filter, &query, &[], &json!({"aggregation": "count", "type": "total"}), 1)?;
        let counts = sum.buckets.iter().filter_map(|bucket| number(&bucket["computes"]["c0"]));
        (counts.sum::<u64>().max(counted), sum.whole)
    };
    let mut groups: Vec<LogCount> = groups
        .into_iter()
        .map(|(key, (count, over_time))| LogCount {
            key: key.into_iter().map(|(name, value)| Pair { name, value }).collect(),
            count,
            over_time: over_time.into_iter().map(|(at, count)| Bucket { at, count }).collect(),
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let number_of_groups = groups.len() as u64;
    groups.truncate(question.top as usize);
    Ok(LogCountAnswer {
        groups,
        total_groups: if complete { Total::Exact(number_of_groups) } else { Total::AtLeast(number_of_groups) },
        total: if all { Total::Exact(total) } else { Total::AtLeast(total) },
    })
}

/// Several statuses are one severity.
fn severity_word(status: &str) -> String {
    let word = match search::severity(status) {
        Some(Severity::Trace) => "trace",
        Some(Severity::Debug) => "debug",
        Some(Severity::Info) => "info",
        Some(Severity::Warn) => "warn",
        Some(Severity::Error) => "error",
        Some(Severity::Fatal) => "fatal",
        None => status,
    };
    word.to_owned()
}

/// Values of a field in logs, most frequent first.
pub(crate) fn values(
    api: &Api,
    window: Window,
    field: &str,
    service: Option<&str>,
    top: u32,
    context: &Context,
) -> Result<Vec<String>, Fault> {
    let filter = LogFilter {
        window,
        service: service.map(str::to_owned),
        minimum_severity: None,
        text: None,
        attributes: Vec::new(),
        trace_id: None,
    };
    let Some(query) = search::query(&filter, &context.scope, api.settings)? else { return Ok(Vec::new()) };
    let facet = search::facet(field, api.settings)?;
    let compute = json!({"aggregation": "count", "type": "total"});
    let found = aggregate(api, &filter, &query, &[(field.to_owned(), facet.clone())], &compute, top)?;
    if !found.whole {
        api.door.warn("not every value was listed");
    }
    let values = found.buckets.iter().filter_map(|bucket| bucket["by"][facet.as_str()].as_str());
    Ok(values.filter(|value| *value != ABSENT && !value.is_empty()).map(str::to_owned).collect())
}

/// Services that wrote logs in the window.
pub(crate) fn services(api: &Api, window: Window, context: &Context) -> Result<Vec<Service>, Fault> {
    let names = values(api, window, "service", None, MOST_GROUPS, context)?;
    Ok(names.into_iter().map(|name| Service { name, signals: vec![Signal::Logs], last_seen: None }).collect())
}

#[cfg(test)]
mod tests;

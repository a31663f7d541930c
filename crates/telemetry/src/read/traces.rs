//! Questions about traces: search, one trace, all spans of a window.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use portcullis_model::{NameSet, Span, SpanStatus, TimeWindow, Timestamp, Trace, TraceSummary};
use portcullis_ports::{SpanFilter, Total, TraceAnswer, TraceOrder, TraceRequest};

use super::spans::{ATTRIBUTES, DURATION, NAME, PARENT, SERVICE, SLIM, SPAN_ID, STATUS, TIME, TRACE_ID, WHOLE, spans};
use super::{Confinement, attribute_stage, logs};
use crate::error::{Result, StoreError};
use crate::scan::{Cancel, Filter, Stage};
use crate::schema::Table;
use crate::store::Store;
use crate::text::{parse_hex, push_hex};

/// Spans of one trace returned at most.
const MOST_SPANS: usize = 10_000;
/// Traces ranked at most; beyond it the total is "at least".
const MOST_TRACES: usize = 500_000;
/// How far beyond the window the rest of a found trace is looked for, nanoseconds.
const MARGIN: i64 = 3_600_000_000_000;
/// Rows of a slice of a span scan, about.
const SLICE_ROWS: usize = 131_072;

fn errors_stage() -> Stage {
    Stage::on_words(STATUS, |word| word == "Error")
}

/// The spans a search means, within the scope.
fn filter(confinement: &Confinement, request: &TraceRequest) -> Result<Filter> {
    let mut filter = confinement.filter(Table::Traces, request.window, request.service.as_deref());
    if let Some(operation) = request.operation.clone() {
        let scrub = confinement.scrub.clone();
        let plain = move |word: &str| scrub.as_ref().and_then(|s| s.text(word)).is_none();
        filter.stages.push(Stage::on_words(NAME, move |word| word == operation && plain(word)));
    }
    if request.errors_only {
        filter.stages.push(errors_stage());
    }
    if let Some(least) = request.minimum_duration {
        let least = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
        filter.stages.push(Stage::on(DURATION, move |array| {
            let values = array.as_primitive::<UInt64Type>().values();
            Ok(BooleanArray::new(BooleanBuffer::collect_bool(values.len(), |row| values[row] >= least), None))
        }));
    }
    if !request.attributes.is_empty() {
        let matchers = confinement.matchers(&request.attributes)?;
        filter.stages.push(attribute_stage(Table::Traces, ATTRIBUTES, matchers));
    }
    Ok(filter)
}

#[derive(Default)]
struct Found {
    traces: HashMap<[u8; 16], (u64, i64)>,
    overflow: bool,
}

impl Found {
    fn add(&mut self, id: [u8; 16], duration: u64, start: i64) {
        if self.traces.len() >= MOST_TRACES && !self.traces.contains_key(&id) {
            self.overflow = true;
            return;
        }
        let best = self.traces.entry(id).or_insert((0, i64::MIN));
        *best = (best.0.max(duration), best.1.max(start));
    }
}

/// Finds traces with a matching span.
pub(crate) fn search(store: &Store, cancel: &Cancel, confinement: &Confinement, request: &TraceRequest) -> Result<TraceAnswer> {
    let filter = filter(confinement, request)?;
    let plan = store.snapshot(&confinement.tenant, Table::Traces)?.plan(filter, cancel)?;
    let parts =
        plan.read(store.settings().query_threads, cancel, &[TIME, TRACE_ID, DURATION], Found::default, |found, rows| {
            let times = rows.column(0).as_primitive::<TimestampNanosecondType>().values();
            let ids = rows.column(1).as_fixed_size_binary();
            let durations = rows.column(2).as_primitive::<UInt64Type>().values();
            for row in 0..rows.num_rows() {
                if let (true, Ok(id)) = (ids.is_valid(row), ids.value(row).try_into()) {
                    found.add(id, durations[row], times[row]);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    let mut all = Found::default();
    for part in parts {
        all.overflow |= part.overflow;
        part.traces.into_iter().for_each(|(id, (duration, start))| all.add(id, duration, start));
    }
    let count = all.traces.len() as u64;
    let total = if all.overflow { Total::AtLeast(count) } else { Total::Exact(count) };
    let mut ranked: Vec<([u8; 16], (u64, i64))> = all.traces.into_iter().collect();
    let rank = |(id, (duration, start)): &([u8; 16], (u64, i64))| match request.order {
        TraceOrder::Slowest => (std::cmp::Reverse(i128::from(*duration)), *id),
        TraceOrder::Newest => (std::cmp::Reverse(i128::from(*start)), *id),
    };
    ranked.sort_unstable_by_key(rank);
    ranked.truncate(request.limit);
    let ids: Vec<[u8; 16]> = ranked.iter().map(|(id, _)| *id).collect();
    let mut traces = summaries(store, cancel, confinement, request.window, &ids)?;
    match request.order {
        TraceOrder::Slowest => {
            traces.sort_by(|a, b| b.duration_nanos.cmp(&a.duration_nanos).then_with(|| a.trace_id.cmp(&b.trace_id)));
        }
        TraceOrder::Newest => traces.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| a.trace_id.cmp(&b.trace_id))),
    }
    Ok(TraceAnswer { traces, total })
}

#[derive(Default)]
struct Summary {
    start: i64,
    end: i128,
    spans: u64,
    errors: u64,
    services: BTreeSet<String>,
    root: Option<(bool, i64, String, String)>,
}

/// One line per trace, from all of its spans in scope.
fn summaries(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    window: TimeWindow,
    ids: &[[u8; 16]],
) -> Result<Vec<TraceSummary>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut filter = Filter::window(window.start.as_nanos().saturating_sub(MARGIN), window.end.as_nanos().saturating_add(MARGIN));
    filter.traces = Some(ids.to_vec());
    confinement.confine(Table::Traces, &mut filter);
    let plan = store.snapshot(&confinement.tenant, Table::Traces)?.plan(filter, cancel)?;
    let columns = [TIME, TRACE_ID, SPAN_ID, PARENT, NAME, SERVICE, DURATION, STATUS];
    let parts = plan.read(store.settings().query_threads, cancel, &columns, Vec::new, |all: &mut Vec<Span>, rows| {
        spans(rows, all);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut by_trace: HashMap<String, Summary> = HashMap::new();
    for span in parts.into_iter().flatten() {
        add_span(by_trace.entry(span.trace_id.clone()).or_default(), span);
    }
    Ok(by_trace.into_iter().map(|(id, summary)| summary.finish(id)).collect())
}

fn add_span(summary: &mut Summary, span: Span) {
    let start = span.start.as_nanos();
    let end = i128::from(start) + i128::from(span.duration_nanos);
    summary.start = if summary.spans == 0 { start } else { summary.start.min(start) };
    summary.end = if summary.spans == 0 { end } else { summary.end.max(end) };
    summary.spans += 1;
    summary.errors += u64::from(span.status == SpanStatus::Error);
    summary.services.insert(span.service.to_string());
    let child = !span.parent_span_id.is_empty();
    let better = summary.root.as_ref().is_none_or(|(known, at, _, _)| (child, start) < (*known, *at));
    if better {
        summary.root = Some((child, start, span.service.to_string(), span.name));
    }
}

impl Summary {
    fn finish(self, trace_id: String) -> TraceSummary {
        let (root_service, root_name) = self.root.map_or_else(Default::default, |(_, _, service, name)| (service, name));
        TraceSummary {
            trace_id,
            root_service,
            root_name,
            start: Timestamp::from_nanos(self.start),
            duration_nanos: u64::try_from(self.end - i128::from(self.start)).unwrap_or(0),
            spans: self.spans,
            error_spans: self.errors,
            services: self.services.into_iter().collect(),
        }
    }
}

/// All spans of one trace in scope.
pub(crate) fn trace(store: &Store, cancel: &Cancel, confinement: &Confinement, trace_id: &str) -> Result<Option<Trace>> {
    let id = parse_hex::<16>(trace_id).ok_or_else(|| StoreError::Invalid("a trace id has 32 hexadecimal digits".into()))?;
    let mut filter = confinement.filter(Table::Traces, logs::all_time(), None);
    filter.traces = Some(vec![id]);
    let plan = store.snapshot(&confinement.tenant, Table::Traces)?.plan(filter, cancel)?;
    let parts = plan.read(store.settings().query_threads, cancel, &WHOLE, Vec::new, |all: &mut Vec<Span>, rows| {
        spans(rows, all);
        Ok(if all.len() > MOST_SPANS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let mut found: Vec<Span> = parts.into_iter().flatten().collect();
    if found.is_empty() {
        return Ok(None);
    }
    found.sort_by(|a, b| a.start.cmp(&b.start).then_with(|| a.span_id.cmp(&b.span_id)));
    let truncated = found.len() > MOST_SPANS;
    found.truncate(MOST_SPANS);
    let mut text = String::new();
    push_hex(&mut text, &id);
    Ok(Some(Trace { trace_id: text, spans: found, truncated }))
}

/// Hands the spans of a window to `emit`, newest slice first, whole traces together within a slice; stops after `most`
/// or when `emit` says no. Returns the spans handed over and whether these were all.
pub(crate) fn scan(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    window: TimeWindow,
    wanted: &SpanFilter,
    most: u64,
    emit: &mut dyn FnMut(Vec<Span>) -> bool,
) -> Result<(u64, bool)> {
    let mut filter = confinement.filter(Table::Traces, window, None);
    if !wanted.services.is_empty() {
        filter.services = filter.services.intersect(&NameSet::Only(wanted.services.clone()));
    }
    if wanted.errors_only {
        filter.stages.push(errors_stage());
    }
    let snapshot = store.snapshot(&confinement.tenant, Table::Traces)?;
    let mut open = vec![(filter.start, filter.end)];
    let mut given = 0_u64;
    while let Some((start, end)) = open.pop() {
        let mut slice = filter.clone();
        (slice.start, slice.end) = (start, end);
        let plan = snapshot.clone().plan(slice, cancel)?;
        if plan.rows() > SLICE_ROWS && end.saturating_sub(start) > 1_000_000_000 {
            let middle = start + (end - start) / 2;
            open.push((start, middle));
            open.push((middle, end));
            continue;
        }
        let parts = plan.read(store.settings().query_threads, cancel, &SLIM, Vec::new, |all: &mut Vec<Span>, rows| {
            spans(rows, all);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut found: Vec<Span> = parts.into_iter().flatten().collect();
        found.sort_unstable_by(|a, b| {
            a.trace_id.cmp(&b.trace_id).then(a.start.cmp(&b.start)).then_with(|| a.span_id.cmp(&b.span_id))
        });
        let left = usize::try_from(most - given).unwrap_or(usize::MAX);
        let cut = found.len() > left;
        found.truncate(left);
        given += found.len() as u64;
        if !found.is_empty() && !emit(found) {
            return Err(StoreError::Cancelled);
        }
        if cut || (given >= most && !open.is_empty()) {
            return Ok((given, false));
        }
    }
    Ok((given, true))
}

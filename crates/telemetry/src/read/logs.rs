//! Questions about log records: pages of them, all of them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{TimestampNanosecondType, UInt8Type};
use arrow::record_batch::RecordBatch;
use portcullis_model::{LogRecord, Severity, TimeWindow, Timestamp};
use portcullis_ports::{LogAnswer, LogFilter, LogPosition, LogRequest, TextFilter, Total};

use super::rank::{FirstRows, Order};
use super::{Confinement, attribute_stage, hex, merged, pattern};
use crate::error::{Result, StoreError};
use crate::scan::{Cancel, Filter, Stage};
use crate::schema::Table;
use crate::store::Store;
use crate::text::parse_hex;

pub(super) const TIME: usize = 0;
const TRACE_ID: usize = 1;
const SPAN_ID: usize = 2;
pub(super) const SEVERITY_TEXT: usize = 4;
pub(super) const SEVERITY: usize = 5;
pub(super) const SERVICE: usize = 6;
const BODY: usize = 7;
pub(super) const RESOURCE: usize = 9;
pub(super) const ATTRIBUTES: usize = 14;
/// Columns of a shown record, ascending.
const SHOWN: [usize; 9] = [TIME, TRACE_ID, SPAN_ID, SEVERITY_TEXT, SEVERITY, SERVICE, BODY, RESOURCE, ATTRIBUTES];
/// A page is looked for in the newest 512th of the window first, then in eight times as much.
const FIRST_SLICE: i64 = 512;

/// The rows a log filter means, within the scope.
pub(crate) fn filter(confinement: &Confinement, wanted: &LogFilter) -> Result<Filter> {
    let mut filter = confinement.filter(Table::Logs, wanted.window, wanted.service.as_deref());
    if let Some(id) = &wanted.trace_id {
        let id = parse_hex::<16>(id).ok_or_else(|| StoreError::Invalid("a trace id has 32 hexadecimal digits".into()))?;
        filter.traces = Some(vec![id]);
    }
    if let Some(least) = wanted.minimum_severity {
        let least = least.lowest_number() as u8;
        filter.stages.push(Stage::on(SEVERITY, move |array| {
            let numbers = array.as_primitive::<UInt8Type>().values();
            let fits = arrow::buffer::BooleanBuffer::collect_bool(numbers.len(), |row| numbers[row] >= least);
            Ok(arrow::array::BooleanArray::new(fits, None))
        }));
    }
    if !wanted.attributes.is_empty() {
        let matchers = confinement.matchers(&wanted.attributes)?;
        filter.stages.push(attribute_stage(Table::Logs, ATTRIBUTES, matchers));
    }
    match &wanted.text {
        Some(TextFilter::Contains(words)) => {
            for word in words.split_whitespace() {
                let word = regex::RegexBuilder::new(&regex::escape(word)).case_insensitive(true).build();
                let word = word.map_err(|_| StoreError::Invalid("the text to search for is too long".into()))?;
                let scrub = confinement.scrub.clone();
                // A word of the scrubbed text is one of the text as well, so only what has it need be scrubbed.
                let outside = move |body: &str, word: &regex::Regex| {
                    scrub.as_ref().and_then(|s| s.unmarked(body)).is_none_or(|clean| word.is_match(&clean))
                };
                filter.stages.push(Stage::on_text(BODY, move |body| word.is_match(body) && outside(body, &word)));
            }
        }
        Some(TextFilter::Regex(text)) => {
            let found = pattern(text, text)?;
            let scrub = confinement.scrub.clone();
            filter.stages.push(Stage::on_text(BODY, move |body| {
                let clean = scrub.as_ref().and_then(|s| s.text(body));
                found.is_match(clean.as_deref().unwrap_or(body))
            }));
        }
        None => {}
    }
    Ok(filter)
}

/// One page of records.
pub(crate) fn page(store: &Store, cancel: &Cancel, confinement: &Confinement, request: &LogRequest) -> Result<LogAnswer> {
    let whole = filter(confinement, &request.filter)?;
    let mut filter = whole.clone();
    let mut skip = 0;
    if let Some(position) = request.after {
        let at = position.at.as_nanos();
        if request.newest_first {
            filter.end = filter.end.min(at.saturating_add(1));
        } else {
            filter.start = filter.start.max(at);
        }
        skip = position.shown_at as usize;
    }
    let keep = request.limit.saturating_add(skip).saturating_add(1);
    let (found, complete) = first_rows(store, cancel, confinement, &filter, keep, request.newest_first)?;
    let seen = found.seen();
    let total = if complete && request.after.is_none() {
        Total::Exact(seen)
    } else {
        count_within(store, cancel, confinement, whole, seen)?
    };
    let mut records = found.finish()?.map_or_else(Vec::new, |rows| records(&rows));
    if let Some(position) = request.after {
        let at_position = records.iter().take_while(|r| r.at == position.at).count();
        records.drain(..skip.min(at_position));
    }
    let more = records.len() > request.limit;
    records.truncate(request.limit);
    let next = more.then(|| next_position(&records, request.after)).flatten();
    Ok(LogAnswer { records, total, next })
}

fn next_position(records: &[LogRecord], before: Option<LogPosition>) -> Option<LogPosition> {
    let at = records.last()?.at;
    let here = records.iter().rev().take_while(|r| r.at == at).count() as u32;
    let earlier = before.filter(|p| p.at == at && here as usize == records.len()).map_or(0, |p| p.shown_at);
    Some(LogPosition { at, shown_at: here + earlier })
}

/// Looks for rows from the wanted end of the window in growing slices, so that a page of a busy window costs little.
/// The second value says whether the whole window was read.
fn first_rows(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    filter: &Filter,
    keep: usize,
    newest_first: bool,
) -> Result<(FirstRows, bool)> {
    let order = Order { time: 0, ties: vec![5, 6, 8, 1, 2], newest_first };
    let mut found = FirstRows::new(order.clone(), keep);
    let length = filter.end.saturating_sub(filter.start);
    let mut share = FIRST_SLICE;
    let (mut low, mut high) = (filter.start, filter.end);
    while low < high {
        let reach = (length / share).max(1_000_000_000);
        let mut slice = filter.clone();
        if newest_first {
            slice.end = high;
            slice.start = if share == 1 { low } else { filter.end.saturating_sub(reach).max(low) };
            high = slice.start;
        } else {
            slice.start = low;
            slice.end = if share == 1 { high } else { filter.start.saturating_add(reach).min(high) };
            low = slice.end;
        }
        share = (share / 8).max(1);
        if slice.start >= slice.end {
            continue;
        }
        let plan = store.snapshot(&confinement.tenant, Table::Logs)?.plan(slice, cancel)?;
        let threads = store.settings().query_threads;
        let begin = || FirstRows::new(order.clone(), keep);
        let parts = plan.read(threads, cancel, &SHOWN, begin, |state, rows| {
            state.push(rows)?;
            Ok(ControlFlow::Continue(()))
        })?;
        for part in parts {
            found.absorb(part);
        }
        if found.seen() >= keep as u64 {
            break;
        }
    }
    let complete = low >= high;
    Ok((found, complete))
}

/// Counts within half of the time that is left; beyond it the answer is "at least".
fn count_within(store: &Store, cancel: &Cancel, confinement: &Confinement, filter: Filter, seen: u64) -> Result<Total> {
    let now = Instant::now();
    let limited = cancel.with_deadline_at_most(now + cancel.time_left(now).min(Duration::from_secs(10)) / 2);
    let counted = store
        .snapshot(&confinement.tenant, Table::Logs)?
        .plan(filter, &limited)
        .and_then(|plan| plan.count(store.settings().query_threads, &limited));
    match counted {
        Ok(count) => Ok(Total::Exact(count)),
        Err(StoreError::Deadline) => Ok(Total::AtLeast(seen)),
        Err(other) => Err(other),
    }
}

/// Severity of a row: by number, else by word.
pub(crate) fn severity(number: u8, text: &str) -> Option<Severity> {
    Severity::from_number(i32::from(number)).or_else(|| Severity::from_text(text))
}

fn records(rows: &RecordBatch) -> Vec<LogRecord> {
    let times = rows.column(0).as_primitive::<TimestampNanosecondType>();
    let (traces, spans) = (rows.column(1).as_fixed_size_binary(), rows.column(2).as_fixed_size_binary());
    let words = rows.column(3).as_string_view();
    let numbers = rows.column(4).as_primitive::<UInt8Type>();
    let text = |column: usize| rows.column(column).as_string_view();
    let (services, bodies, resources, attributes) = (text(5), text(6), text(7), text(8));
    (0..rows.num_rows())
        .map(|row| LogRecord {
            at: Timestamp::from_nanos(times.value(row)),
            severity: severity(numbers.value(row), words.value(row)),
            service: Arc::from(services.value(row)),
            body: bodies.value(row).to_owned(),
            attributes: merged(attributes.value(row), resources.value(row)),
            trace_id: hex(traces, row),
            span_id: hex(spans, row),
        })
        .collect()
}

/// Rows of one slice of a scan, sorted; the columns are those of [`SLICE_COLUMNS`].
pub(crate) type LogSlice = RecordBatch;

/// Columns of a scan.
pub(crate) const SLICE_COLUMNS: [usize; 5] = [TIME, SEVERITY_TEXT, SEVERITY, SERVICE, BODY];
/// Rows of a slice, about.
const SLICE_ROWS: usize = 131_072;

/// Hands all fitting rows to `emit`, newest slice first, each slice sorted newest first; stops after `most` rows or when
/// `emit` says no. Returns the rows handed over and whether these were all.
pub(crate) fn scan(
    store: &Store,
    cancel: &Cancel,
    confinement: &Confinement,
    wanted: &LogFilter,
    most: u64,
    emit: &mut dyn FnMut(LogSlice) -> bool,
) -> Result<(u64, bool)> {
    let filter = filter(confinement, wanted)?;
    let snapshot = store.snapshot(&confinement.tenant, Table::Logs)?;
    let mut open = vec![(filter.start, filter.end)];
    let mut given = 0;
    while let Some((start, end)) = open.pop() {
        let mut slice = filter.clone();
        (slice.start, slice.end) = (start, end);
        let plan = snapshot.clone().plan(slice, cancel)?;
        if plan.rows() > SLICE_ROWS && end - start > 1_000_000 {
            let middle = start + (end - start) / 2;
            open.push((start, middle));
            open.push((middle, end));
            continue;
        }
        if plan.rows() == 0 {
            continue;
        }
        let left = usize::try_from(most - given).unwrap_or(usize::MAX);
        let order = Order { time: 0, ties: vec![3, 4], newest_first: true };
        let begin = || FirstRows::new(order.clone(), left);
        let parts = plan.read(store.settings().query_threads, cancel, &SLICE_COLUMNS, begin, |state, rows| {
            state.push(rows)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let mut all = FirstRows::new(order.clone(), left);
        for part in parts {
            all.absorb(part);
        }
        let seen = all.seen();
        if let Some(rows) = all.finish()? {
            given += rows.num_rows() as u64;
            if !emit(rows) {
                return Err(StoreError::Cancelled);
            }
        }
        if seen > left as u64 || (given >= most && !open.is_empty()) {
            return Ok((given, false));
        }
    }
    Ok((given, true))
}

/// A window that reaches from the beginning to the end of time.
pub(crate) fn all_time() -> TimeWindow {
    TimeWindow { start: Timestamp::from_nanos(i64::MIN), end: Timestamp::from_nanos(i64::MAX) }
}

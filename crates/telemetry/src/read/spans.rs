//! Rows of `otel_traces` as spans, and the columns they are read from.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use portcullis_model::{Span, SpanEvent, SpanKind, SpanStatus, Timestamp};

use super::{hex, merged};

pub(crate) const TIME: usize = 0;
pub(crate) const TRACE_ID: usize = 1;
pub(crate) const SPAN_ID: usize = 2;
pub(crate) const PARENT: usize = 3;
pub(crate) const NAME: usize = 5;
pub(crate) const KIND: usize = 6;
pub(crate) const SERVICE: usize = 7;
pub(crate) const RESOURCE: usize = 8;
pub(crate) const ATTRIBUTES: usize = 11;
pub(crate) const DURATION: usize = 12;
pub(crate) const STATUS: usize = 13;
pub(crate) const STATUS_MESSAGE: usize = 14;
pub(crate) const EVENTS: usize = 15;

/// Columns of a whole span, ascending.
pub(crate) const WHOLE: [usize; 13] =
    [TIME, TRACE_ID, SPAN_ID, PARENT, NAME, KIND, SERVICE, RESOURCE, ATTRIBUTES, DURATION, STATUS, STATUS_MESSAGE, EVENTS];
/// Columns of a span without attributes and events.
pub(crate) const SLIM: [usize; 10] = [TIME, TRACE_ID, SPAN_ID, PARENT, NAME, KIND, SERVICE, DURATION, STATUS, STATUS_MESSAGE];

/// Span kind from the exporter's word.
pub(crate) fn kind(word: &str) -> SpanKind {
    match word {
        "Internal" => SpanKind::Internal,
        "Server" => SpanKind::Server,
        "Client" => SpanKind::Client,
        "Producer" => SpanKind::Producer,
        "Consumer" => SpanKind::Consumer,
        _ => SpanKind::Unspecified,
    }
}

/// Status from the exporter's word.
pub(crate) fn status(word: &str) -> SpanStatus {
    match word {
        "Ok" => SpanStatus::Ok,
        "Error" => SpanStatus::Error,
        _ => SpanStatus::Unset,
    }
}

/// The spans of a batch of [`WHOLE`] or [`SLIM`] columns.
pub(crate) fn spans(rows: &RecordBatch, into: &mut Vec<Span>) {
    let place = |name: &str| rows.schema_ref().index_of(name).ok();
    let text = |name: &str| place(name).map(|at| rows.column(at).as_string_view());
    let times = rows.column(0).as_primitive::<TimestampNanosecondType>();
    let id = |at: usize| rows.column(at).as_fixed_size_binary();
    let durations = place("Duration").map(|at| rows.column(at).as_primitive::<UInt64Type>());
    let (names, kinds, services) = (text("SpanName"), text("SpanKind"), text("ServiceName"));
    let (statuses, messages) = (text("StatusCode"), text("StatusMessage"));
    let (attributes, resources, events) = (text("SpanAttributes"), text("ResourceAttributes"), text("Events"));
    let cell =
        |column: Option<&arrow::array::StringViewArray>, row: usize| column.map_or(String::new(), |c| c.value(row).to_owned());
    let mut service: Arc<str> = Arc::from("");
    for row in 0..rows.num_rows() {
        let name = services.map_or("", |c| c.value(row));
        if &*service != name {
            service = Arc::from(name);
        }
        into.push(Span {
            trace_id: hex(id(1), row),
            span_id: hex(id(2), row),
            parent_span_id: hex(id(3), row),
            service: Arc::clone(&service),
            name: cell(names, row),
            kind: kinds.map_or(SpanKind::Unspecified, |c| kind(c.value(row))),
            start: Timestamp::from_nanos(times.value(row)),
            duration_nanos: durations.map_or(0, |c| c.value(row)),
            status: statuses.map_or(SpanStatus::Unset, |c| status(c.value(row))),
            status_message: cell(messages, row),
            attributes: match (attributes, resources) {
                (Some(own), Some(resource)) => merged(own.value(row), resource.value(row)),
                _ => BTreeMap::new(),
            },
            events: events.map_or_else(Vec::new, |c| span_events(c.value(row))),
        });
    }
}

/// Events from their stored text.
fn span_events(text: &str) -> Vec<SpanEvent> {
    if text.is_empty() {
        return Vec::new();
    }
    let stored: Vec<(i64, String, BTreeMap<String, String>)> = serde_json::from_str(text).unwrap_or_default();
    let mut events: Vec<SpanEvent> =
        stored.into_iter().map(|(at, name, attributes)| SpanEvent { at: Timestamp::from_nanos(at), name, attributes }).collect();
    events.sort_by_key(|e| e.at);
    events
}

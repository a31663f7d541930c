//! How much memory a request takes once it is decoded, found out before it is decoded. Two bytes can stand for a record
//! of two hundred, so the size on the wire says little. Must not allocate in proportion to its input.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>, opentelemetry-proto 1.x.

use std::mem::size_of;

use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span};

use super::OtlpSignal;

/// Bytes a decoded request may take. A full body of ordinary records takes half of it.
pub(crate) const MOST_BYTES: usize = 128 << 20;
/// Messages inside one another; the decoder's own limit.
const MOST_DEPTH: usize = 100;
/// What a text costs beside its bytes.
const TEXT_BYTES: usize = 32;
/// A number in a list.
const NUMBER_BYTES: usize = 8;

/// One message of the schema: its size in memory and the messages inside it, by field number.
struct Message {
    size: usize,
    inside: &'static [(u64, &'static Message)],
    /// Bytes in memory for one byte of a field that is no message; more than one where numbers are packed.
    growth: usize,
}

const fn message(size: usize, inside: &'static [(u64, &'static Message)]) -> Message {
    Message { size, inside, growth: 1 }
}

static ANY_VALUE: Message = message(size_of::<AnyValue>(), &[(5, &ARRAY), (6, &KEY_VALUES)]);
static ARRAY: Message = message(0, &[(1, &ANY_VALUE)]);
static KEY_VALUES: Message = message(0, &[(1, &ATTRIBUTE)]);
static ATTRIBUTE: Message = message(size_of::<KeyValue>(), &[(2, &ANY_VALUE)]);
static ENTITY: Message = message(size_of::<EntityRef>(), &[]);
static RESOURCE: Message = message(size_of::<Resource>(), &[(1, &ATTRIBUTE), (3, &ENTITY)]);
static SCOPE: Message = message(size_of::<InstrumentationScope>(), &[(3, &ATTRIBUTE)]);

static LOGS: Message = message(0, &[(1, &RESOURCE_LOGS)]);
static RESOURCE_LOGS: Message = message(size_of::<ResourceLogs>(), &[(1, &RESOURCE), (2, &SCOPE_LOGS)]);
static SCOPE_LOGS: Message = message(size_of::<ScopeLogs>(), &[(1, &SCOPE), (2, &LOG_RECORD)]);
static LOG_RECORD: Message = message(size_of::<LogRecord>(), &[(5, &ANY_VALUE), (6, &ATTRIBUTE)]);

static TRACES: Message = message(0, &[(1, &RESOURCE_SPANS)]);
static RESOURCE_SPANS: Message = message(size_of::<ResourceSpans>(), &[(1, &RESOURCE), (2, &SCOPE_SPANS)]);
static SCOPE_SPANS: Message = message(size_of::<ScopeSpans>(), &[(1, &SCOPE), (2, &SPAN)]);
static SPAN: Message = message(size_of::<Span>(), &[(9, &ATTRIBUTE), (11, &EVENT), (13, &LINK)]);
static EVENT: Message = message(size_of::<span::Event>(), &[(3, &ATTRIBUTE)]);
static LINK: Message = message(size_of::<span::Link>(), &[(4, &ATTRIBUTE)]);

static METRICS: Message = message(0, &[(1, &RESOURCE_METRICS)]);
static RESOURCE_METRICS: Message = message(size_of::<ResourceMetrics>(), &[(1, &RESOURCE), (2, &SCOPE_METRICS)]);
static SCOPE_METRICS: Message = message(size_of::<ScopeMetrics>(), &[(1, &SCOPE), (2, &METRIC)]);
static METRIC: Message = message(
    size_of::<Metric>(),
    &[(5, &NUMBERS), (7, &NUMBERS), (9, &HISTOGRAMS), (10, &EXPONENTIALS), (11, &SUMMARIES), (12, &ATTRIBUTE)],
);
static NUMBERS: Message = message(0, &[(1, &NUMBER)]);
static HISTOGRAMS: Message = message(0, &[(1, &HISTOGRAM)]);
static EXPONENTIALS: Message = message(0, &[(1, &EXPONENTIAL)]);
static SUMMARIES: Message = message(0, &[(1, &SUMMARY)]);
static NUMBER: Message = message(size_of::<NumberDataPoint>(), &[(5, &EXEMPLAR), (7, &ATTRIBUTE)]);
static HISTOGRAM: Message = message(size_of::<HistogramDataPoint>(), &[(8, &EXEMPLAR), (9, &ATTRIBUTE)]);
static EXPONENTIAL: Message =
    message(size_of::<ExponentialHistogramDataPoint>(), &[(1, &ATTRIBUTE), (8, &BUCKETS), (9, &BUCKETS), (11, &EXEMPLAR)]);
static SUMMARY: Message = message(size_of::<SummaryDataPoint>(), &[(6, &QUANTILE), (7, &ATTRIBUTE)]);
static BUCKETS: Message = Message { size: 0, inside: &[], growth: NUMBER_BYTES };
static QUANTILE: Message = message(size_of::<ValueAtQuantile>(), &[]);
static EXEMPLAR: Message = message(size_of::<Exemplar>(), &[(7, &ATTRIBUTE)]);

/// Bytes of memory the decoded protobuf request takes, or why it cannot be decoded. Stops counting beyond
/// [`MOST_BYTES`].
pub(crate) fn protobuf(signal: OtlpSignal, payload: &[u8]) -> Result<usize, String> {
    let root = match signal {
        OtlpSignal::Logs => &LOGS,
        OtlpSignal::Traces => &TRACES,
        OtlpSignal::Metrics => &METRICS,
    };
    let mut open: Vec<(&Message, usize)> = Vec::with_capacity(MOST_DEPTH + 1);
    open.push((root, payload.len()));
    let (mut at, mut weight) = (0, payload.len());
    while let Some(&(message, end)) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        if weight > MOST_BYTES {
            break;
        }
        let broken = || format!("the protobuf form is broken at byte {at}");
        let (tag, mut next) = varint(payload, at, end).ok_or_else(broken)?;
        match tag & 7 {
            0 => {
                next = varint(payload, next, end).ok_or_else(broken)?.1;
                weight += NUMBER_BYTES;
            }
            1 => (next, weight) = (next + 8, weight + NUMBER_BYTES),
            5 => (next, weight) = (next + 4, weight + NUMBER_BYTES),
            2 => {
                let (length, start) = varint(payload, next, end).ok_or_else(broken)?;
                let stop = usize::try_from(length).ok().and_then(|l| start.checked_add(l)).filter(|s| *s <= end);
                let stop = stop.ok_or_else(broken)?;
                if let Some((_, inner)) = message.inside.iter().find(|(number, _)| *number == tag >> 3) {
                    weight += inner.size;
                    if open.len() > MOST_DEPTH {
                        return Err(format!("values are nested more than {MOST_DEPTH} messages deep"));
                    }
                    open.push((inner, stop));
                    next = start;
                } else {
                    weight += TEXT_BYTES + (stop - start) * message.growth;
                    next = stop;
                }
            }
            _ => return Err(broken()),
        }
        if next > end {
            return Err(broken());
        }
        at = next;
    }
    Ok(weight)
}

/// A number of at most 64 bits that begins at `at` and ends before `end`, and where it ends.
fn varint(bytes: &[u8], at: usize, end: usize) -> Option<(u64, usize)> {
    let field = bytes.get(at..end)?;
    let mut value = 0;
    for (place, byte) in field.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, at + place + 1));
        }
    }
    None
}

/// Objects down to this depth may be records; deeper ones are attributes and values.
fn record_depth(signal: OtlpSignal) -> usize {
    match signal {
        OtlpSignal::Logs | OtlpSignal::Traces => 4,
        OtlpSignal::Metrics => 6,
    }
}

/// A record of any signal.
const RECORD_BYTES: usize = 320;
/// An attribute, a value, an event or a link.
const VALUE_BYTES: usize = 96;
/// A member of an object or an array while it is read; unknown ones are held too until their object ends.
const MEMBER_BYTES: usize = 40;

/// Bytes of memory the JSON form may take while it is read; an upper estimate. Stops counting beyond [`MOST_BYTES`].
pub(crate) fn json(signal: OtlpSignal, payload: &[u8]) -> usize {
    let shallow = record_depth(signal);
    let (mut depth, mut weight) = (0_usize, payload.len());
    let (mut in_text, mut escaped) = (false, false);
    for byte in payload {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' => {
                depth += 1;
                weight += if depth <= shallow { RECORD_BYTES } else { VALUE_BYTES };
                if weight > MOST_BYTES {
                    return weight;
                }
            }
            b'}' => depth = depth.saturating_sub(1),
            b',' => weight += MEMBER_BYTES,
            _ => {}
        }
    }
    weight
}

/// The refusal of a request that would take too much.
pub(crate) fn too_heavy() -> String {
    format!(
        "the request has so many records, attributes or values that it takes more than {} MiB of memory once decoded; send smaller batches",
        MOST_BYTES >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use prost::Message as _;

    fn record(attributes: usize) -> LogRecord {
        let value = |text: &str| AnyValue { value: Some(Value::StringValue(text.into())) };
        LogRecord {
            time_unix_nano: 1,
            body: Some(value("order 4711 placed by user 12")),
            attributes: (0..attributes)
                .map(|n| KeyValue { key: format!("name.{n}"), value: Some(value("x")), ..KeyValue::default() })
                .collect(),
            trace_id: vec![7; 16],
            span_id: vec![7; 8],
            ..LogRecord::default()
        }
    }

    fn request(records: usize, attributes: usize) -> ExportLogsServiceRequest {
        let log_records = vec![record(attributes); records];
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
    }

    #[test]
    fn a_full_body_of_ordinary_records_is_light_enough() {
        let request = request(55_000, 3);
        let (protobuf_form, json_form) = (request.encode_to_vec(), serde_json::to_vec(&request).unwrap());
        assert!(protobuf_form.len() > 6 << 20 && json_form.len() > 16 << 20, "{} {}", protobuf_form.len(), json_form.len());
        let by_wire = protobuf(OtlpSignal::Logs, &protobuf_form).unwrap();
        assert!(by_wire > 55_000 * (size_of::<LogRecord>() + 4 * size_of::<KeyValue>()), "{by_wire}");
        assert!(by_wire < MOST_BYTES, "{by_wire}");
        let by_text = json(OtlpSignal::Logs, &json_form[..16 << 20]);
        assert!(by_text < MOST_BYTES, "{by_text}");
    }

    #[test]
    fn small_bytes_that_decode_to_much_are_heavy() {
        for (number, inner) in [(2_u8, "log records"), (1, "resource")] {
            let mut scope = Vec::new();
            while scope.len() < 8 << 20 {
                scope.extend_from_slice(&[(number << 3) | 2, 0]);
            }
            let wrap = |inner: &[u8], number: u8| {
                let mut out = vec![(number << 3) | 2];
                prost::encoding::encode_varint(inner.len() as u64, &mut out);
                out.extend_from_slice(inner);
                out
            };
            let payload = wrap(&wrap(&scope, 2), 1);
            assert!(protobuf(OtlpSignal::Logs, &payload).unwrap() > MOST_BYTES, "{inner}");
        }
        let records = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}{{}}]}}]}}]}}", "{},".repeat(400_000));
        assert!(json(OtlpSignal::Logs, records.as_bytes()) > MOST_BYTES);
    }

    #[test]
    fn every_cut_is_refused_or_a_request() {
        let whole = request(2, 2).encode_to_vec();
        for cut in 0..whole.len() {
            let (weighed, decoded) = (protobuf(OtlpSignal::Logs, &whole[..cut]), ExportLogsServiceRequest::decode(&whole[..cut]));
            assert_eq!(weighed.is_ok(), decoded.is_ok(), "cut at {cut}");
        }
        assert!(protobuf(OtlpSignal::Logs, &[0xff; 12]).is_err());
        assert!(protobuf(OtlpSignal::Logs, &[0x0b, 0x0c]).is_err());
    }
}

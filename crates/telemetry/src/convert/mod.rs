//! OTLP requests into rows. Decides what is rejected; the same bytes always give the same rows, because the
//! write-ahead log is replayed through here. Must not touch the store.

mod columns;
mod lenient;
mod logs;
mod metrics;
mod points;
mod traces;
pub(crate) mod weigh;

use arrow::record_batch::RecordBatch;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use crate::error::{Result, StoreError};
use crate::schema::Table;
use crate::settings::RecordLimits;
use crate::text::AttributeWriter;
use crate::words::Words;
pub(crate) use lenient::Unread;

/// An OTLP signal as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtlpSignal {
    /// `ExportLogsServiceRequest`.
    Logs,
    /// `ExportTraceServiceRequest`.
    Traces,
    /// `ExportMetricsServiceRequest`.
    Metrics,
}

impl OtlpSignal {
    /// Its number in the write-ahead log.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Logs => 1,
            Self::Traces => 2,
            Self::Metrics => 3,
        }
    }

    /// From its number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Logs, Self::Traces, Self::Metrics].into_iter().find(|s| s.code() == code)
    }
}

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OtlpRequest {
    /// Log records.
    Logs(ExportLogsServiceRequest),
    /// Spans.
    Traces(ExportTraceServiceRequest),
    /// Metric points.
    Metrics(ExportMetricsServiceRequest),
}

impl OtlpRequest {
    /// Decodes the protobuf form.
    pub(crate) fn decode(signal: OtlpSignal, payload: &[u8]) -> std::result::Result<Self, prost::DecodeError> {
        Ok(match signal {
            OtlpSignal::Logs => Self::Logs(ExportLogsServiceRequest::decode(payload)?),
            OtlpSignal::Traces => Self::Traces(ExportTraceServiceRequest::decode(payload)?),
            OtlpSignal::Metrics => Self::Metrics(ExportMetricsServiceRequest::decode(payload)?),
        })
    }

    /// Decodes the JSON form. Records that cannot be read are left out and counted; it fails when the form around them
    /// cannot be read.
    pub(crate) fn decode_json(signal: OtlpSignal, payload: &[u8]) -> serde_json::Result<(Self, Unread)> {
        match Self::decode_whole_json(signal, payload) {
            Ok(Self::Metrics(request)) if points::may_lack_something(&request) => lenient::read(signal, payload),
            Ok(request) => Ok((request, Unread::default())),
            Err(_) => lenient::read(signal, payload),
        }
    }

    fn decode_whole_json(signal: OtlpSignal, payload: &[u8]) -> serde_json::Result<Self> {
        Ok(match signal {
            OtlpSignal::Logs => Self::Logs(serde_json::from_slice(payload)?),
            OtlpSignal::Traces => Self::Traces(serde_json::from_slice(payload)?),
            OtlpSignal::Metrics => Self::Metrics(serde_json::from_slice(payload)?),
        })
    }

    /// The protobuf form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Logs(request) => request.encode_to_vec(),
            Self::Traces(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
        }
    }

    /// Turns it into rows; `received_nanos` stands in for missing event times.
    pub(crate) fn convert(&self, limits: &RecordLimits, received_nanos: i64) -> Result<Converted> {
        let mut conversion = Conversion::new(*limits, received_nanos);
        let batches = match self {
            Self::Logs(request) => logs::convert(&mut conversion, request)?,
            Self::Traces(request) => traces::convert(&mut conversion, request)?,
            Self::Metrics(request) => metrics::convert(&mut conversion, request)?,
        };
        let batches: Vec<_> = batches.into_iter().filter(|(_, batch)| batch.num_rows() > 0).collect();
        Ok(Converted {
            accepted: batches.iter().map(|(_, b)| b.num_rows() as u64).sum(),
            batches,
            words: conversion.words,
            rejected: conversion.rejected,
            reason: conversion.reason,
        })
    }
}

/// Rows of one request.
#[derive(Debug)]
pub(crate) struct Converted {
    /// Rows by table, in the memory schema, numbers from `words`.
    pub(crate) batches: Vec<(Table, RecordBatch)>,
    /// Repeating texts.
    pub(crate) words: Words,
    /// Records kept.
    pub(crate) accepted: u64,
    /// Records left out.
    pub(crate) rejected: u64,
    /// Why the first of them was left out.
    pub(crate) reason: Option<String>,
}

impl Converted {
    /// Counts records that were left out before the conversion.
    pub(crate) fn count_unread(&mut self, unread: Unread) {
        self.rejected += unread.count;
        self.reason = unread.reason.or(self.reason.take());
    }
}

/// State of one conversion.
struct Conversion {
    limits: RecordLimits,
    received: i64,
    latest: i64,
    words: Words,
    writer: AttributeWriter,
    scratch: String,
    rejected: u64,
    reason: Option<String>,
}

/// What the records of one resource share.
#[derive(Clone, Copy, Default)]
struct ResourceWords {
    service: u32,
    attributes: u32,
    schema_url: u32,
}

/// What the records of one scope share.
#[derive(Clone, Copy, Default)]
struct ScopeWords {
    name: u32,
    version: u32,
    attributes: u32,
    schema_url: u32,
    dropped: u32,
}

impl Conversion {
    fn new(limits: RecordLimits, received: i64) -> Self {
        let future = i64::try_from(limits.future.as_nanos()).unwrap_or(i64::MAX);
        Self {
            limits,
            received,
            latest: received.saturating_add(future),
            words: Words::default(),
            writer: AttributeWriter::default(),
            scratch: String::new(),
            rejected: 0,
            reason: None,
        }
    }

    fn reject(&mut self, count: usize, reason: String) {
        self.rejected += count as u64;
        if count > 0 && self.reason.is_none() {
            self.reason = Some(reason);
        }
    }

    /// Why these attributes may not be stored, if so. Checks counts and names; value lengths are known after writing.
    fn refuse_attributes(&self, what: &str, attributes: &[KeyValue]) -> Option<String> {
        if attributes.len() > self.limits.attributes {
            return Some(format!("{what} has {} attributes; the limit is {}", attributes.len(), self.limits.attributes));
        }
        let longest = attributes.iter().map(|a| a.key.len()).max().unwrap_or(0);
        (longest > self.limits.attribute_name_bytes).then(|| {
            format!("{what} has an attribute name of {longest} bytes; the limit is {}", self.limits.attribute_name_bytes)
        })
    }

    /// Why values of this length may not be stored, if so.
    fn refuse_value(&self, what: &str, longest: usize) -> Option<String> {
        (longest > self.limits.attribute_value_bytes).then(|| {
            format!("{what} has an attribute value of {longest} bytes; the limit is {}", self.limits.attribute_value_bytes)
        })
    }

    /// The canonical text of `attributes` in `self.scratch`, or why not.
    fn write_attributes(&mut self, what: &str, attributes: &[KeyValue]) -> std::result::Result<(), String> {
        self.scratch.clear();
        if let Some(reason) = self.refuse_attributes(what, attributes) {
            return Err(reason);
        }
        let longest = self.writer.push(&mut self.scratch, attributes);
        self.refuse_value(what, longest).map_or(Ok(()), Err)
    }

    fn attribute_word(&mut self, what: &str, attributes: &[KeyValue]) -> std::result::Result<u32, String> {
        self.write_attributes(what, attributes)?;
        Ok(self.words.number(&self.scratch))
    }

    fn resource(&mut self, resource: Option<&Resource>, schema_url: &str) -> std::result::Result<ResourceWords, String> {
        let attributes = resource.map_or(&[][..], |r| &r.attributes);
        let number = self.attribute_word("the resource", attributes)?;
        self.scratch.clear();
        let service = attributes.iter().rfind(|a| a.key == "service.name");
        crate::text::push_value(&mut self.scratch, service.and_then(|a| a.value.as_ref()));
        Ok(ResourceWords {
            service: self.words.number(&self.scratch),
            attributes: number,
            schema_url: self.words.number(schema_url),
        })
    }

    fn scope(&mut self, scope: Option<&InstrumentationScope>, schema_url: &str) -> std::result::Result<ScopeWords, String> {
        let Some(scope) = scope else {
            return Ok(ScopeWords { schema_url: self.words.number(schema_url), ..ScopeWords::default() });
        };
        Ok(ScopeWords {
            attributes: self.attribute_word("the scope", &scope.attributes)?,
            name: self.words.number(&scope.name),
            version: self.words.number(&scope.version),
            schema_url: self.words.number(schema_url),
            dropped: scope.dropped_attributes_count,
        })
    }

    /// A time stamp that can be stored, or why not. Zero means unknown.
    fn time(&self, what: &str, nanos: u64, fallback: u64) -> std::result::Result<i64, String> {
        let given = if nanos == 0 { fallback } else { nanos };
        if given == 0 {
            return Ok(self.received);
        }
        match i64::try_from(given) {
            Ok(at) if at <= self.latest => Ok(at),
            _ => Err(format!(
                "{what} is dated more than {} s in the future; check the sender's clock and that times are nanoseconds",
                self.limits.future.as_secs()
            )),
        }
    }
}

/// Fails when rows and schema disagree: a defect on our side.
fn batch(table: Table, columns: Vec<arrow::array::ArrayRef>) -> Result<(Table, RecordBatch)> {
    RecordBatch::try_new(table.memory_schema(), columns).map(|b| (table, b)).map_err(StoreError::from)
}

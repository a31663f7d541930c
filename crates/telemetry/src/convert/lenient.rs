//! OTLP/JSON read record by record: one that cannot be read is left out, counted and named; the rest is kept. Slower than
//! reading a request as a whole, so it is the second way, taken when the first fails. Records are read one at a time, so
//! a list of a million bad ones costs no memory.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>, ProtoJSON for numbers as text.

use std::fmt;
use std::marker::PhantomData;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::points::Metrics;
use super::{OtlpRequest, OtlpSignal};

/// Bytes of another's error text that are repeated to the sender.
const MOST_DETAIL: usize = 200;

/// Records that could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    /// How many.
    pub(crate) count: u64,
    /// What was wrong with the first of them.
    pub(crate) reason: Option<String>,
}

impl Unread {
    /// Adds records; the sentence is only made when it is the first.
    pub(super) fn add(&mut self, count: usize, reason: impl FnOnce() -> String) {
        self.count += count as u64;
        if count > 0 && self.reason.is_none() {
            self.reason = Some(reason());
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.count += other.count;
        self.reason = self.reason.take().or(other.reason);
    }

    /// All of these are lost for one reason: those that could be read and those that could not.
    pub(super) fn lose<T>(&mut self, records: &Readable<T>, reason: impl FnOnce() -> String) {
        self.add(records.list.len() + records.unread.count as usize, reason);
    }
}

/// Something that stands in an array and is kept or left out by itself.
pub(super) trait Record: Sized {
    /// How a sender calls it.
    const NAME: &'static str;
    /// Reads one.
    fn read(raw: &RawValue) -> Result<Self, String>;
}

impl Record for LogRecord {
    const NAME: &'static str = "log record";
    fn read(raw: &RawValue) -> Result<Self, String> {
        whole(raw)
    }
}

impl Record for Span {
    const NAME: &'static str = "span";
    fn read(raw: &RawValue) -> Result<Self, String> {
        whole(raw)
    }
}

/// The elements of an array that can be read.
pub(super) struct Readable<T> {
    pub(super) list: Vec<T>,
    pub(super) unread: Unread,
}

impl<T> Default for Readable<T> {
    fn default() -> Self {
        Self { list: Vec::new(), unread: Unread::default() }
    }
}

impl<'de, T: Record> Deserialize<'de> for Readable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);
        impl<'de, T: Record> Visitor<'de> for Elements<T> {
            type Value = Readable<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of {}s", T::NAME)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Readable::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut found = Readable::default();
                let mut number = 0;
                while let Some(raw) = elements.next_element::<&RawValue>()? {
                    number += 1;
                    match T::read(raw) {
                        Ok(record) => found.list.push(record),
                        Err(reason) => found.unread.add(1, || format!("{} {number} of its list: {reason}", T::NAME)),
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

/// Reads a value as a whole, or says which of its fields is wrong and what would be right.
pub(super) fn whole<T: DeserializeOwned>(raw: &RawValue) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let search = serde_json::from_str::<WrongField<T>>(raw.get());
        search.ok().and_then(|found| found.sentence).unwrap_or_else(|| shortened(&error))
    })
}

/// The first field of an object that cannot be read.
struct WrongField<T> {
    sentence: Option<String>,
    of: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for WrongField<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Fields<T> {
            type Value = WrongField<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                while let Some((name, value)) = fields.next_entry::<String, &RawValue>()? {
                    // The object with this field alone; every field of a record may be absent.
                    let alone = serde_json::to_string(&std::collections::BTreeMap::from([(&name, value)]));
                    let Err(error) = alone.and_then(|text| serde_json::from_str::<T>(&text)) else { continue };
                    while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(WrongField { sentence: Some(wrong_field(&name, &shortened(&error))), of: PhantomData });
                }
                Ok(WrongField { sentence: None, of: PhantomData })
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Names a field, what is wrong with it and what would be right.
pub(super) fn wrong_field(name: &str, detail: &str) -> String {
    let right = match name {
        _ if name.ends_with("UnixNano") => {
            "write nanoseconds since 1970 as a whole number from 0 to 18446744073709551615, as a number or as text"
        }
        "traceId" | "spanId" | "parentSpanId" => "write an even number of hexadecimal digits as text",
        "count" | "zeroCount" | "bucketCounts" => "write whole numbers from 0 to 18446744073709551615, as numbers or as text",
        "asInt" => "write a whole number from -9223372036854775808 to 9223372036854775807, as a number or as text",
        "asDouble" | "sum" | "min" | "max" => "write a finite number, or NaN, Infinity or -Infinity as text",
        "severityNumber" | "kind" | "aggregationTemporality" | "scale" => "write the number of the enumeration, at most 31 bits",
        "flags" => "write a whole number from 0 to 4294967295",
        _ if name.starts_with("dropped") => "write a whole number from 0 to 4294967295",
        "attributes" | "filteredAttributes" => "write an array of {\"key\": text, \"value\": one typed value}",
        "body" => "write one typed value, such as {\"stringValue\": text}",
        _ => "write it as the OTLP/JSON mapping says",
    };
    let name: String = name.chars().take(64).collect();
    format!("the field `{name}` cannot be read: {detail}; {right}")
}

/// What the parser says, without the position inside the record and without the sender's own long texts.
pub(super) fn shortened(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    if text == "recursion limit exceeded" {
        return "values are nested more than 127 levels deep".to_owned();
    }
    if text.chars().count() <= MOST_DETAIL {
        return text.to_owned();
    }
    text.chars().take(MOST_DETAIL).chain("…".chars()).collect()
}

/// A part that all records below it share.
pub(super) fn shared<T: DeserializeOwned>(raw: Option<&RawValue>, what: &str) -> Result<Option<T>, String> {
    raw.map(|raw| whole(raw).map_err(|reason| format!("the {what} of these records: {reason}"))).transpose()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogsShape<'a> {
    #[serde(borrow)]
    resource_logs: Vec<LogsGroup<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogsGroup<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    scope_logs: Vec<LogsScope<'a>>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogsScope<'a> {
    #[serde(borrow)]
    scope: Option<&'a RawValue>,
    log_records: Readable<LogRecord>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpansShape<'a> {
    #[serde(borrow)]
    resource_spans: Vec<SpansGroup<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpansGroup<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    scope_spans: Vec<SpansScope<'a>>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpansScope<'a> {
    #[serde(borrow)]
    scope: Option<&'a RawValue>,
    spans: Readable<Span>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetricsShape<'a> {
    #[serde(borrow)]
    resource_metrics: Vec<MetricsGroup<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetricsGroup<'a> {
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    scope_metrics: Vec<MetricsScope<'a>>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetricsScope<'a> {
    #[serde(borrow)]
    scope: Option<&'a RawValue>,
    metrics: Metrics,
    schema_url: String,
}

/// Reads what can be read of a request. Fails when its outer form is not OTLP/JSON.
pub(super) fn read(signal: OtlpSignal, payload: &[u8]) -> serde_json::Result<(OtlpRequest, Unread)> {
    let mut unread = Unread::default();
    let request = match signal {
        OtlpSignal::Logs => OtlpRequest::Logs(logs(serde_json::from_slice(payload)?, &mut unread)),
        OtlpSignal::Traces => OtlpRequest::Traces(spans(serde_json::from_slice(payload)?, &mut unread)),
        OtlpSignal::Metrics => OtlpRequest::Metrics(metrics(serde_json::from_slice(payload)?, &mut unread)),
    };
    Ok((request, unread))
}

fn logs(shape: LogsShape<'_>, unread: &mut Unread) -> ExportLogsServiceRequest {
    let mut groups = Vec::new();
    for group in shape.resource_logs {
        let resource = shared::<Resource>(group.resource, "resource");
        let mut scopes = Vec::new();
        for scoped in group.scope_logs {
            let scope = shared::<InstrumentationScope>(scoped.scope, "scope");
            match (&resource, scope) {
                (Ok(_), Ok(scope)) => {
                    unread.absorb(scoped.log_records.unread);
                    scopes.push(ScopeLogs { scope, log_records: scoped.log_records.list, schema_url: scoped.schema_url });
                }
                (Err(reason), _) => unread.lose(&scoped.log_records, || reason.clone()),
                (_, Err(reason)) => unread.lose(&scoped.log_records, || reason),
            }
        }
        if let Ok(resource) = resource {
            groups.push(ResourceLogs { resource, scope_logs: scopes, schema_url: group.schema_url });
        }
    }
    ExportLogsServiceRequest { resource_logs: groups }
}

fn spans(shape: SpansShape<'_>, unread: &mut Unread) -> ExportTraceServiceRequest {
    let mut groups = Vec::new();
    for group in shape.resource_spans {
        let resource = shared::<Resource>(group.resource, "resource");
        let mut scopes = Vec::new();
        for scoped in group.scope_spans {
            let scope = shared::<InstrumentationScope>(scoped.scope, "scope");
            match (&resource, scope) {
                (Ok(_), Ok(scope)) => {
                    unread.absorb(scoped.spans.unread);
                    scopes.push(ScopeSpans { scope, spans: scoped.spans.list, schema_url: scoped.schema_url });
                }
                (Err(reason), _) => unread.lose(&scoped.spans, || reason.clone()),
                (_, Err(reason)) => unread.lose(&scoped.spans, || reason),
            }
        }
        if let Ok(resource) = resource {
            groups.push(ResourceSpans { resource, scope_spans: scopes, schema_url: group.schema_url });
        }
    }
    ExportTraceServiceRequest { resource_spans: groups }
}

fn metrics(shape: MetricsShape<'_>, unread: &mut Unread) -> ExportMetricsServiceRequest {
    let mut groups = Vec::new();
    for group in shape.resource_metrics {
        let resource = shared::<Resource>(group.resource, "resource");
        let mut scopes = Vec::new();
        for scoped in group.scope_metrics {
            let scope = shared::<InstrumentationScope>(scoped.scope, "scope");
            match (&resource, scope) {
                (Ok(_), Ok(scope)) => {
                    unread.absorb(scoped.metrics.unread);
                    scopes.push(ScopeMetrics { scope, metrics: scoped.metrics.list, schema_url: scoped.schema_url });
                }
                (Err(reason), _) => unread.add(scoped.metrics.points(), || reason.clone()),
                (_, Err(reason)) => unread.add(scoped.metrics.points(), || reason),
            }
        }
        if let Ok(resource) = resource {
            groups.push(ResourceMetrics { resource, scope_metrics: scopes, schema_url: group.schema_url });
        }
    }
    ExportMetricsServiceRequest { resource_metrics: groups }
}

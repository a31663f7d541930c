//! Spans into rows of `otel_traces`.

use std::fmt::Write as _;

use arrow::record_batch::RecordBatch;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::columns::{IdColumn, TextColumn, id_fits, times, u64s, words};
use super::{Conversion, ResourceWords, ScopeWords, batch};
use crate::error::Result;
use crate::schema::Table;
use crate::text::{push_hex, push_string};

#[derive(Default)]
struct SpanRows {
    time: Vec<i64>,
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    parent: IdColumn<8>,
    state: Vec<u32>,
    name: Vec<u32>,
    kind: Vec<u32>,
    attributes: TextColumn,
    duration: Vec<u64>,
    status: Vec<u32>,
    status_message: Vec<u32>,
    events: TextColumn,
    links: TextColumn,
    resources: Vec<ResourceWords>,
    scopes: Vec<ScopeWords>,
}

pub(super) fn convert(conversion: &mut Conversion, request: &ExportTraceServiceRequest) -> Result<Vec<(Table, RecordBatch)>> {
    let mut rows = SpanRows::default();
    for group in &request.resource_spans {
        let resource = match conversion.resource(group.resource.as_ref(), &group.schema_url) {
            Ok(resource) => resource,
            Err(reason) => {
                conversion.reject(group.scope_spans.iter().map(|s| s.spans.len()).sum(), reason);
                continue;
            }
        };
        for scoped in &group.scope_spans {
            let scope = match conversion.scope(scoped.scope.as_ref(), &scoped.schema_url) {
                Ok(scope) => scope,
                Err(reason) => {
                    conversion.reject(scoped.spans.len(), reason);
                    continue;
                }
            };
            for span in &scoped.spans {
                match rows.push(conversion, span) {
                    Ok(()) => {
                        rows.resources.push(resource);
                        rows.scopes.push(scope);
                    }
                    Err(reason) => {
                        rows.abandon();
                        conversion.reject(1, reason);
                    }
                }
            }
        }
    }
    Ok(vec![rows.finish()?])
}

/// Span kind as the exporter writes it.
fn kind_text(kind: i32) -> &'static str {
    match kind {
        1 => "Internal",
        2 => "Server",
        3 => "Client",
        4 => "Producer",
        5 => "Consumer",
        _ => "Unspecified",
    }
}

/// Status as the exporter writes it.
fn status_text(code: i32) -> &'static str {
    match code {
        1 => "Ok",
        2 => "Error",
        _ => "Unset",
    }
}

impl SpanRows {
    fn push(&mut self, conversion: &mut Conversion, span: &Span) -> std::result::Result<(), String> {
        if span.trace_id.len() != 16 || span.span_id.len() != 8 || !id_fits::<8>(&span.parent_span_id) {
            return Err("a span needs a trace id of 16 bytes, a span id of 8 bytes and a parent id of 8 bytes or none".into());
        }
        if span.trace_id.iter().all(|b| *b == 0) || span.span_id.iter().all(|b| *b == 0) {
            return Err("a span has a trace id or span id of zeros".into());
        }
        let time = conversion.time("a span", span.start_time_unix_nano, span.end_time_unix_nano)?;
        let nested = span.events.len().max(span.links.len());
        if nested > conversion.limits.nested_items {
            return Err(format!("a span has {nested} events or links; the limit is {}", conversion.limits.nested_items));
        }
        if let Some(reason) = conversion.refuse_attributes("a span", &span.attributes) {
            return Err(reason);
        }
        let longest = conversion.writer.push(self.attributes.open(), &span.attributes);
        if let Some(reason) = conversion.refuse_value("a span", longest) {
            return Err(reason);
        }
        push_events(self.events.open(), conversion, span)?;
        push_links(self.links.open(), conversion, span)?;
        self.attributes.end();
        self.events.end();
        self.links.end();
        self.time.push(time);
        self.trace_id.push(&span.trace_id);
        self.span_id.push(&span.span_id);
        self.parent.push(&span.parent_span_id);
        self.state.push(conversion.words.number(&span.trace_state));
        self.name.push(conversion.words.number(&span.name));
        self.kind.push(conversion.words.number(kind_text(span.kind)));
        // A clock that went backwards gives an end before the start; the length is then unknown and shown as zero, as the exporter does.
        self.duration.push(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano));
        let status = span.status.as_ref();
        self.status.push(conversion.words.number(status_text(status.map_or(0, |s| s.code))));
        self.status_message.push(conversion.words.number(status.map_or("", |s| s.message.as_str())));
        Ok(())
    }

    fn abandon(&mut self) {
        self.attributes.abandon();
        self.events.abandon();
        self.links.abandon();
    }

    fn finish(self) -> Result<(Table, RecordBatch)> {
        let resource = |of: fn(&ResourceWords) -> u32| words(self.resources.iter().map(of).collect());
        let scope = |of: fn(&ScopeWords) -> u32| words(self.scopes.iter().map(of).collect());
        let (service, resource_attributes) = (resource(|r| r.service), resource(|r| r.attributes));
        let (scope_name, scope_version) = (scope(|s| s.name), scope(|s| s.version));
        batch(
            Table::Traces,
            vec![
                times(self.time),
                self.trace_id.finish()?,
                self.span_id.finish()?,
                self.parent.finish()?,
                words(self.state),
                words(self.name),
                words(self.kind),
                service,
                resource_attributes,
                scope_name,
                scope_version,
                self.attributes.finish()?,
                u64s(self.duration),
                words(self.status),
                words(self.status_message),
                self.events.finish()?,
                self.links.finish()?,
            ],
        )
    }
}

/// Events as `[[time,"name",{…}],…]`; nothing for none.
fn push_events(out: &mut String, conversion: &mut Conversion, span: &Span) -> std::result::Result<(), String> {
    if span.events.is_empty() {
        return Ok(());
    }
    out.push('[');
    for (at, event) in span.events.iter().enumerate() {
        conversion.write_attributes("a span event", &event.attributes)?;
        let time = i64::try_from(event.time_unix_nano).map_err(|_| "a span event is dated beyond the year 2262".to_owned())?;
        let _ = write!(out, "{}[{time},", if at > 0 { "," } else { "" });
        push_string(out, &event.name);
        out.push(',');
        out.push_str(object_or_empty(&conversion.scratch));
        out.push(']');
    }
    out.push(']');
    Ok(())
}

/// Links as `[["trace","span","state",{…}],…]`; nothing for none.
fn push_links(out: &mut String, conversion: &mut Conversion, span: &Span) -> std::result::Result<(), String> {
    if span.links.is_empty() {
        return Ok(());
    }
    out.push('[');
    for (at, link) in span.links.iter().enumerate() {
        conversion.write_attributes("a span link", &link.attributes)?;
        out.push_str(if at > 0 { ",[\"" } else { "[\"" });
        push_hex(out, &link.trace_id);
        out.push_str("\",\"");
        push_hex(out, &link.span_id);
        out.push_str("\",");
        push_string(out, &link.trace_state);
        out.push(',');
        out.push_str(object_or_empty(&conversion.scratch));
        out.push(']');
    }
    out.push(']');
    Ok(())
}

/// An attribute set inside a list must be an object even when it is empty.
pub(super) fn object_or_empty(text: &str) -> &str {
    if text.is_empty() { "{}" } else { text }
}

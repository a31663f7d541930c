//! Log records into rows of `otel_logs`.

use arrow::record_batch::RecordBatch;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::columns::{IdColumn, TextColumn, id_fits, times, u8s, words};
use super::{Conversion, ResourceWords, ScopeWords, batch};
use crate::error::Result;
use crate::schema::Table;
use crate::text::push_value;

#[derive(Default)]
struct LogRows {
    time: Vec<i64>,
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    flags: Vec<u8>,
    severity_text: Vec<u32>,
    severity_number: Vec<u8>,
    body: TextColumn,
    attributes: TextColumn,
    event_name: Vec<u32>,
    resources: Vec<ResourceWords>,
    scopes: Vec<ScopeWords>,
}

pub(super) fn convert(conversion: &mut Conversion, request: &ExportLogsServiceRequest) -> Result<Vec<(Table, RecordBatch)>> {
    let mut rows = LogRows::default();
    for group in &request.resource_logs {
        let count = || group.scope_logs.iter().map(|s| s.log_records.len()).sum();
        let resource = match conversion.resource(group.resource.as_ref(), &group.schema_url) {
            Ok(resource) => resource,
            Err(reason) => {
                conversion.reject(count(), reason);
                continue;
            }
        };
        for scoped in &group.scope_logs {
            let scope = match conversion.scope(scoped.scope.as_ref(), &scoped.schema_url) {
                Ok(scope) => scope,
                Err(reason) => {
                    conversion.reject(scoped.log_records.len(), reason);
                    continue;
                }
            };
            for record in &scoped.log_records {
                match rows.push(conversion, record) {
                    Ok(()) => {
                        rows.resources.push(resource);
                        rows.scopes.push(scope);
                    }
                    Err(reason) => conversion.reject(1, reason),
                }
            }
        }
    }
    Ok(vec![rows.finish()?])
}

impl LogRows {
    fn push(&mut self, conversion: &mut Conversion, record: &LogRecord) -> std::result::Result<(), String> {
        let time = conversion.time("a log record", record.time_unix_nano, record.observed_time_unix_nano)?;
        if !id_fits::<16>(&record.trace_id) || !id_fits::<8>(&record.span_id) {
            return Err("a log record has a trace id that is not 16 bytes or a span id that is not 8 bytes".into());
        }
        if let Some(reason) = conversion.refuse_attributes("a log record", &record.attributes) {
            return Err(reason);
        }
        push_value(self.body.open(), record.body.as_ref());
        let body = self.body.pending();
        if body > conversion.limits.body_bytes {
            self.body.abandon();
            return Err(format!("a log body has {body} bytes; the limit is {}", conversion.limits.body_bytes));
        }
        let longest = conversion.writer.push(self.attributes.open(), &record.attributes);
        if let Some(reason) = conversion.refuse_value("a log record", longest) {
            self.body.abandon();
            self.attributes.abandon();
            return Err(reason);
        }
        self.body.end();
        self.attributes.end();
        self.time.push(time);
        self.trace_id.push(&record.trace_id);
        self.span_id.push(&record.span_id);
        self.flags.push((record.flags & 0xff) as u8);
        self.severity_text.push(conversion.words.number(&record.severity_text));
        self.severity_number.push(u8::try_from(record.severity_number).unwrap_or(0));
        self.event_name.push(conversion.words.number(&record.event_name));
        Ok(())
    }

    fn finish(self) -> Result<(Table, RecordBatch)> {
        let resource = |of: fn(&ResourceWords) -> u32| words(self.resources.iter().map(of).collect());
        let scope = |of: fn(&ScopeWords) -> u32| words(self.scopes.iter().map(of).collect());
        let (service, resource_schema, resource_attributes) =
            (resource(|r| r.service), resource(|r| r.schema_url), resource(|r| r.attributes));
        let (scope_schema, scope_name, scope_version, scope_attributes) =
            (scope(|s| s.schema_url), scope(|s| s.name), scope(|s| s.version), scope(|s| s.attributes));
        batch(
            Table::Logs,
            vec![
                times(self.time),
                self.trace_id.finish()?,
                self.span_id.finish()?,
                u8s(self.flags),
                words(self.severity_text),
                u8s(self.severity_number),
                service,
                self.body.finish()?,
                resource_schema,
                resource_attributes,
                scope_schema,
                scope_name,
                scope_version,
                scope_attributes,
                self.attributes.finish()?,
                words(self.event_name),
            ],
        )
    }
}

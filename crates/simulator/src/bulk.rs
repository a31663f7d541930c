//! Plain volume for store benchmarks: export requests of ordinary records, as many as asked for.
//!
//! Guards speed and determinism. There is no story in this data: no traces that hang together, no incident.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use portcullis_model::TimeWindow;

use crate::otlp::{log_record, nanos, scope, status, text};
use crate::random::Dice;
use crate::services::{Endpoint, Service, VISITS};
use crate::shape::Shape;
use crate::text::chatter;

/// The part both kinds share: whose turn it is, how many are left, and when the next record is.
#[derive(Debug, Clone)]
struct Volume {
    dice: Dice,
    left: u64,
    services: u64,
    at: i64,
    step: f64,
    elapsed: f64,
}

impl Volume {
    fn new(seed: u64, records: u64, services: u32, window: TimeWindow) -> Self {
        Self {
            dice: Dice::new(seed, 4),
            left: records,
            services: u64::from(services.max(1)),
            at: window.start.as_nanos().max(0),
            step: window.length().as_nanos() as f64 / records.max(1) as f64,
            elapsed: 0.0,
        }
    }

    /// How many records the next request has, 500 to 1000 until the rest is smaller, and from which service.
    fn next_request(&mut self) -> Option<(u64, Resource)> {
        if self.left == 0 {
            return None;
        }
        let size = self.dice.between(500, 1_000).min(self.left);
        self.left -= size;
        let service = self.dice.below(self.services);
        let attributes = vec![
            text("service.name", format!("service-{service:03}")),
            text("service.version", "1.0.0"),
            text("k8s.namespace.name", "bulk"),
            text("k8s.pod.name", format!("service-{service:03}-0")),
            text("host.name", format!("node-{:02}", service % 16)),
        ];
        Some((size, Resource { attributes, ..Resource::default() }))
    }

    /// The time of the next record; records are spread evenly over the window.
    fn next_time(&mut self) -> i64 {
        let at = self.at + self.elapsed as i64;
        self.elapsed += self.step;
        at
    }
}

/// Export requests of log records. See [`bulk_logs`].
#[derive(Debug, Clone)]
pub struct BulkLogs(Volume);

/// Export requests of spans. See [`bulk_spans`].
#[derive(Debug, Clone)]
pub struct BulkSpans(Volume);

/// `records` log records of ordinary text with random trace ids, in time order over `window`, from `services`
/// services (at least one). Each request holds 500 to 1000 records of one service; the last may hold fewer.
pub fn bulk_logs(seed: u64, records: u64, services: u32, window: TimeWindow) -> BulkLogs {
    BulkLogs(Volume::new(seed, records, services, window))
}

/// `records` server spans with random trace ids, in order of start over `window`, from `services` services (at least
/// one). Each request holds 500 to 1000 spans of one service; the last may hold fewer. A span may end after the window.
pub fn bulk_spans(seed: u64, records: u64, services: u32, window: TimeWindow) -> BulkSpans {
    BulkSpans(Volume::new(seed, records, services, window))
}

impl BulkLogs {
    fn record(&mut self) -> LogRecord {
        let at = self.0.next_time();
        let dice = &mut self.0.dice;
        let writer = dice.pick(&Service::ALL).copied().unwrap_or(Service::Frontend);
        let (severity, body) = chatter(dice, writer);
        let ids = (dice.trace_id(), dice.span_id());
        let attributes = vec![text("thread.name", format!("worker-{}", dice.below(32)))];
        log_record(at, severity, body, attributes, Some(ids))
    }
}

impl Iterator for BulkLogs {
    type Item = ExportLogsServiceRequest;

    fn next(&mut self) -> Option<ExportLogsServiceRequest> {
        let (size, resource) = self.0.next_request()?;
        let log_records = (0..size).map(|_| self.record()).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope("bulk", "1.0.0")), log_records, ..ScopeLogs::default() }];
        Some(ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }],
        })
    }
}

impl BulkSpans {
    fn record(&mut self) -> Span {
        let at = self.0.next_time();
        let dice = &mut self.0.dice;
        let endpoint: &Endpoint = dice.pick(&VISITS).map_or(VISITS[0].0, |(endpoint, _)| endpoint);
        let failed = dice.chance(0.01);
        let shape = Shape::server(endpoint, if failed { 500 } else { 200 });
        let end = at + dice.duration(12.0, 0.8);
        Span {
            trace_id: dice.trace_id().to_vec(),
            span_id: dice.span_id().to_vec(),
            flags: 1,
            name: endpoint.span_name.to_owned(),
            kind: shape.span_kind() as i32,
            start_time_unix_nano: nanos(at),
            end_time_unix_nano: nanos(end),
            attributes: shape.attributes(),
            status: status(failed.then_some("internal error")),
            ..Span::default()
        }
    }
}

impl Iterator for BulkSpans {
    type Item = ExportTraceServiceRequest;

    fn next(&mut self) -> Option<ExportTraceServiceRequest> {
        let (size, resource) = self.0.next_request()?;
        let spans = (0..size).map(|_| self.record()).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope("bulk", "1.0.0")), spans, ..ScopeSpans::default() }];
        Some(ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_model::Timestamp;

    use super::*;

    fn window() -> TimeWindow {
        let start = Timestamp::from_seconds(1_772_359_200);
        TimeWindow::new(start, start.plus(Duration::from_hours(1))).unwrap()
    }

    #[test]
    fn exactly_as_many_logs_as_asked_for_in_time_order_inside_the_window() {
        let requests: Vec<_> = bulk_logs(1, 4_321, 7, window()).collect();
        let records: Vec<_> =
            requests.iter().flat_map(|r| &r.resource_logs).flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records).collect();
        assert_eq!(records.len(), 4_321);
        assert!(records.is_sorted_by_key(|record| record.time_unix_nano));
        let (start, end) = (nanos(window().start.as_nanos()), nanos(window().end.as_nanos()));
        assert!(records.iter().all(|r| (start..end).contains(&r.time_unix_nano) && r.trace_id.len() == 16));
        let sizes: Vec<_> = requests.iter().map(|r| r.resource_logs[0].scope_logs[0].log_records.len()).collect();
        assert!(sizes[..sizes.len() - 1].iter().all(|size| (500..=1_000).contains(size)), "{sizes:?}");
        assert_eq!(requests, bulk_logs(1, 4_321, 7, window()).collect::<Vec<_>>());
    }

    #[test]
    fn exactly_as_many_spans_as_asked_for() {
        let count = |n| bulk_spans(2, n, 3, window()).map(|r| r.resource_spans[0].scope_spans[0].spans.len() as u64).sum::<u64>();
        assert_eq!((count(0), count(1), count(2_500)), (0, 1, 2_500));
    }
}

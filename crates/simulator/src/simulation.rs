//! The clockwork: requests arrive, records wait until their time has come, and every interval goes out as one batch.
//!
//! Guards the order of time: a span or log record is exported in the batch in which it ends, none is exported twice or
//! later than `end`, and the metrics of a batch speak of exactly the spans exported so far.

use std::f64::consts::TAU;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use portcullis_model::Timestamp;

use crate::config::{ConfigError, Incident, SimulationConfig};
use crate::hazards::{PlantedText, planted};
use crate::histogram::Origin;
use crate::journey::{Mail, MeasuredSpan, PodLog, Traces, deliver, visit};
use crate::otlp::{log_record, nanos, scope, text};
use crate::random::{Dice, SECOND};
use crate::recorder::{Recorder, gauge_metric, number, sum_metric};
use crate::services::{ORDER_QUEUE, Service, VISITS};
use crate::text::chatter;
use crate::world::World;

/// Schema of the attribute and metric names used.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.40.0";
const SCOPE_VERSION: &str = "1.0.0";
/// Mean seconds between two lines a pod writes of its own accord.
const CHATTER_SECONDS: f64 = 20.0;
/// Mean seconds between two garbage collections of a Go process.
const PAUSE_SECONDS: f64 = 8.0;
const MEBIBYTE: f64 = 1_048_576.0;

/// What all pods export at the end of one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The end of the interval: every record in it is earlier, every metric point has this time.
    pub at: Timestamp,
    /// Log records of the interval, one `ResourceLogs` per pod, in time order within a pod.
    pub logs: ExportLogsServiceRequest,
    /// Spans that ended in the interval, one `ResourceSpans` per pod, in order of their end within a pod.
    pub traces: ExportTraceServiceRequest,
    /// Cumulative metrics, one `ResourceMetrics` per pod.
    pub metrics: ExportMetricsServiceRequest,
}

impl Batch {
    /// Log records in it.
    pub fn log_count(&self) -> usize {
        self.logs.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
    }

    /// Spans in it.
    pub fn span_count(&self) -> usize {
        self.traces.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
    }

    /// Metric data points in it.
    pub fn data_point_count(&self) -> usize {
        let points = |metric: &Metric| match &metric.data {
            Some(Data::Gauge(data)) => data.data_points.len(),
            Some(Data::Sum(data)) => data.data_points.len(),
            Some(Data::Histogram(data)) => data.data_points.len(),
            Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
            Some(Data::Summary(data)) => data.data_points.len(),
            None => 0,
        };
        let metrics = self.metrics.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
        metrics.map(points).sum()
    }
}

/// The shop, running. An iterator over [`Batch`]es in time order; fused.
#[derive(Debug)]
pub struct Simulation {
    config: SimulationConfig,
    world: World,
    /// Chance for everything that is no request, so that background noise does not disturb the requests.
    background: Dice,
    resources: Vec<Resource>,
    recorders: Vec<Recorder>,
    next_chatter: Vec<i64>,
    hazards: Vec<(Service, PlantedText)>,
    spans: Vec<MeasuredSpan>,
    logs: Vec<PodLog>,
    /// Confirmations: when put on the queue and when taken from it.
    queue: Vec<(i64, i64)>,
    next_visit: i64,
    at: i64,
}

impl Simulation {
    /// A shop that has just opened. Fails if the configuration makes no sense; see [`ConfigError`].
    pub fn new(config: SimulationConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let world = World::new(&config);
        let start = config.start.as_nanos();
        let pods = &world.fleet.pods;
        let mut background = Dice::new(config.seed, 2);
        let mut simulation = Self {
            resources: pods.iter().map(crate::fleet::Pod::resource).collect(),
            recorders: pods.iter().map(|pod| Recorder::new(pod.from)).collect(),
            next_chatter: pods.iter().map(|pod| pod.from + seconds(background.exponential(CHATTER_SECONDS))).collect(),
            hazards: planted(&config),
            spans: Vec::new(),
            logs: Vec::new(),
            queue: Vec::new(),
            next_visit: start,
            at: start,
            config,
            world,
            background,
        };
        simulation.advance_visit();
        simulation.write_rollout_logs();
        simulation.write_hazards();
        Ok(simulation)
    }

    /// The truth about the incident; `None` in a quiet shop.
    pub fn incident(&self) -> Option<Incident> {
        self.config.incident()
    }

    /// The dangerous lines in the logs of this simulation, in time order.
    pub fn planted(&self) -> Vec<PlantedText> {
        self.hazards.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Arrivals per second at `at`: busiest at 15:00 UTC, quietest at 03:00.
    fn rate(&self, at: i64) -> f64 {
        let hour = (at.rem_euclid(86_400 * SECOND)) as f64 / (3_600 * SECOND) as f64;
        self.config.requests_per_second * (1.0 + 0.35 * (TAU * (hour - 9.0) / 24.0).sin())
    }

    fn advance_visit(&mut self) {
        let mean = 1.0 / self.rate(self.next_visit);
        self.next_visit += seconds(self.world.dice.exponential(mean)).max(1);
    }

    fn pods_of(&self, service: Service) -> Vec<usize> {
        (0..self.world.fleet.pods.len()).filter(|&pod| self.world.fleet.pods[pod].service == service).collect()
    }

    fn write(&mut self, pod: usize, at: i64, severity: SeverityNumber, body: String) {
        self.logs.push(PodLog { pod, record: log_record(at, severity, body, Vec::new(), None) });
    }

    /// What the deploy controller and the new pods say about rollouts and restarts.
    fn write_rollout_logs(&mut self) {
        let Some(&controller) = self.pods_of(Service::DeployController).first() else { return };
        for rollout in self.world.fleet.rollouts.clone() {
            let (name, version) = (rollout.service.name(), rollout.version);
            let total = rollout.service.profile().replicas;
            let body = format!(
                "rollout of {name} started: image registry.example.net/shop/{name}:{version}, replacing {} of {total} pods",
                rollout.pods
            );
            let mut record = log_record(rollout.at, SeverityNumber::Info, body, Vec::new(), None);
            record.attributes =
                vec![text("k8s.deployment.name", name), text("k8s.namespace.name", "shop"), text("container.image.tag", version)];
            "k8s.deployment.rollout".clone_into(&mut record.event_name);
            self.logs.push(PodLog { pod: controller, record });
        }
        let start = self.config.start.as_nanos();
        for pod in 0..self.world.fleet.pods.len() {
            let member = self.world.fleet.pods[pod].clone();
            if member.from <= start {
                continue;
            }
            let profile = member.service.profile();
            if member.restarts > 0 {
                let body = format!("container {} in pod {} killed: OOMKilled (exit code 137)", profile.name, member.name);
                self.write(controller, member.from - 1, SeverityNumber::Warn, body);
            }
            let pool = profile.pool.map(|(name, size)| format!(", pool '{name}' max={size}")).unwrap_or_default();
            let body = format!("{} {} started, restarts={}{pool}", profile.name, member.version, member.restarts);
            self.write(pod, member.from, SeverityNumber::Info, body);
        }
    }

    fn write_hazards(&mut self) {
        for (service, line) in self.hazards.clone() {
            let at = line.at.as_nanos();
            let pod = self.world.fleet.route(&mut self.background, service, at);
            self.write(pod, at, SeverityNumber::Info, line.body);
        }
    }

    /// Keeps what a request left behind, unless it would still be running at the end.
    fn keep(&mut self, traces: Traces) -> Vec<Mail> {
        if traces.end >= self.config.end.as_nanos() {
            return Vec::new();
        }
        self.spans.extend(traces.spans);
        self.logs.extend(traces.logs);
        traces.mails
    }

    fn run_visits(&mut self, until: i64) {
        while self.next_visit < until {
            let at = self.next_visit;
            let mut roll = self.world.dice.unit();
            let mut chosen = VISITS[0].0;
            for (endpoint, weight) in &VISITS {
                chosen = endpoint;
                roll -= weight;
                if roll < 0.0 {
                    break;
                }
            }
            let traces = visit(&mut self.world, chosen, at);
            for mail in self.keep(traces) {
                let taken = mail.published + self.world.dice.duration(9_000.0, 0.25);
                self.queue.push((mail.published, taken));
                let delivery = deliver(&mut self.world, &mail, taken);
                self.keep(delivery);
            }
            self.advance_visit();
        }
    }

    fn run_background(&mut self, from: i64, until: i64) {
        for pod in 0..self.world.fleet.pods.len() {
            let member = &self.world.fleet.pods[pod];
            let (service, alive_until) = (member.service, member.until.min(until));
            while self.next_chatter[pod] < alive_until {
                let at = self.next_chatter[pod];
                let (severity, body) = chatter(&mut self.background, service);
                self.write(pod, at, severity, body);
                self.next_chatter[pod] = at + seconds(self.background.exponential(CHATTER_SECONDS)).max(1);
            }
            if service.profile().language == "go" && self.world.fleet.pods[pod].serves(from) {
                let expected = (until - from) as f64 / SECOND as f64 / PAUSE_SECONDS;
                let pauses = expected as u64 + u64::from(self.background.chance(expected.fract()));
                for _ in 0..pauses {
                    let pause = self.background.duration(0.12, 0.6) as f64 / SECOND as f64;
                    self.recorders[pod].pause(pause);
                }
            }
        }
    }

    /// Spans that ended before `until`, by pod; they count in the metrics from now on.
    fn take_spans(&mut self, until: i64) -> Vec<ResourceSpans> {
        let until = nanos(until);
        let mut by_pod: Vec<Vec<Span>> = vec![Vec::new(); self.recorders.len()];
        for measured in self.spans.extract_if(.., |measured| measured.span.end_time_unix_nano < until) {
            let MeasuredSpan { pod, shape, counter, span } = measured;
            let recorder = &mut self.recorders[pod];
            if let Some(shape) = shape {
                let took = span.end_time_unix_nano - span.start_time_unix_nano;
                recorder.record(shape, took as f64 / SECOND as f64, origin(&span));
            }
            if let Some(counter) = counter {
                recorder.count(counter);
            }
            by_pod[pod].push(span);
        }
        let used = by_pod.into_iter().enumerate().filter(|(_, spans)| !spans.is_empty());
        used.map(|(pod, mut spans)| {
            spans.sort_by_key(|span| span.end_time_unix_nano);
            ResourceSpans {
                resource: Some(self.resources[pod].clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope(self.scope_name(pod), SCOPE_VERSION)),
                    spans,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            }
        })
        .collect()
    }

    fn scope_name(&self, pod: usize) -> &'static str {
        self.world.fleet.pods[pod].service.name()
    }

    fn take_logs(&mut self, until: i64) -> Vec<ResourceLogs> {
        let until = nanos(until);
        let mut by_pod: Vec<Vec<LogRecord>> = vec![Vec::new(); self.recorders.len()];
        for PodLog { pod, record } in self.logs.extract_if(.., |log| log.record.time_unix_nano < until) {
            by_pod[pod].push(record);
        }
        let used = by_pod.into_iter().enumerate().filter(|(_, records)| !records.is_empty());
        used.map(|(pod, mut log_records)| {
            log_records.sort_by_key(|record| record.time_unix_nano);
            ResourceLogs {
                resource: Some(self.resources[pod].clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope(self.scope_name(pod), SCOPE_VERSION)),
                    log_records,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            }
        })
        .collect()
    }

    fn take_metrics(&mut self, from: i64, at: i64) -> Vec<ResourceMetrics> {
        let mut exported = Vec::new();
        for pod in 0..self.recorders.len() {
            let member = &self.world.fleet.pods[pod];
            let alive = member.from < at && from < member.until;
            if !alive && !self.recorders[pod].changed {
                continue;
            }
            let served_per_second = self.recorders[pod].served as f64 * SECOND as f64 / (at - from) as f64;
            let mut metrics = self.recorders[pod].export(at);
            if alive {
                metrics.extend(self.process_metrics(pod, served_per_second, at));
                metrics.extend(self.pool_metrics(pod, at));
                metrics.extend(self.queue_metric(pod, at));
            }
            exported.push(ResourceMetrics {
                resource: Some(self.resources[pod].clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope(self.scope_name(pod), SCOPE_VERSION)),
                    metrics,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            });
        }
        exported
    }

    fn process_metrics(&mut self, pod: usize, served_per_second: f64, at: i64) -> [Metric; 3] {
        let member = &self.world.fleet.pods[pod];
        let profile = member.service.profile();
        let started = member.from;
        let leaked = self.world.leaked_memory(pod, at);
        let heavier = if self.world.queries_per_row(pod) { 3.5 } else { 1.0 };
        let busy = served_per_second * profile.cpu_per_request * heavier / 1_000.0 + 0.5 * leaked * leaked;
        let cpu = (profile.idle_cpu + busy) * (1.0 + 0.08 * self.background.normal());
        let memory = profile.memory * (1.0 + 0.06 * self.background.unit()) + leaked * 780.0;
        let uptime = Value::AsDouble((at - started) as f64 / SECOND as f64);
        let bytes = Value::AsInt((memory * MEBIBYTE) as i64);
        let cpu = Value::AsDouble(cpu.clamp(0.0, 1.0));
        [
            gauge_metric("process.cpu.utilization", "Share of one core in use.", "1", vec![number(cpu, Vec::new(), None, at)]),
            sum_metric(
                "process.memory.usage",
                "Physical memory in use.",
                "By",
                false,
                vec![number(bytes, Vec::new(), Some(started), at)],
            ),
            gauge_metric("process.uptime", "Time the process has been running.", "s", vec![number(uptime, Vec::new(), None, at)]),
        ]
    }

    fn pool_metrics(&mut self, pod: usize, at: i64) -> Vec<Metric> {
        let started = Some(self.world.fleet.pods[pod].from);
        let Some(pool) = self.world.pools[pod].as_mut() else { return Vec::new() };
        let name = || text("db.client.connection.pool.name", pool.name);
        let state = |state: &str| vec![name(), text("db.client.connection.state", state)];
        let value = |count: usize| Value::AsInt(count as i64);
        let metrics = vec![
            sum_metric(
                "db.client.connection.count",
                "Connections by state.",
                "{connection}",
                false,
                vec![
                    number(value(pool.used(at)), state("used"), started, at),
                    number(value(pool.idle(at)), state("idle"), started, at),
                ],
            ),
            sum_metric(
                "db.client.connection.max",
                "Most open connections allowed.",
                "{connection}",
                false,
                vec![number(value(pool.size()), vec![name()], started, at)],
            ),
            sum_metric(
                "db.client.connection.pending_requests",
                "Requests waiting for an open connection.",
                "{request}",
                false,
                vec![number(value(pool.waiting(at)), vec![name()], started, at)],
            ),
        ];
        pool.forget_before(at);
        metrics
    }

    /// The email service reports how many confirmations wait for it.
    fn queue_metric(&mut self, pod: usize, at: i64) -> Option<Metric> {
        if self.world.fleet.pods[pod].service != Service::Email {
            return None;
        }
        self.queue.retain(|(_, taken)| *taken > at);
        let depth = self.queue.iter().filter(|(published, _)| *published <= at).count();
        let attributes = vec![text("messaging.system", "rabbitmq"), text("messaging.destination.name", ORDER_QUEUE)];
        let point = number(Value::AsInt(depth as i64), attributes, None, at);
        Some(gauge_metric("messaging.queue.depth", "Messages waiting in the queue.", "{message}", vec![point]))
    }
}

impl Iterator for Simulation {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let (from, end) = (self.at, self.config.end.as_nanos());
        if from >= end {
            return None;
        }
        let interval = i64::try_from(self.config.batch_interval.as_nanos()).unwrap_or(i64::MAX);
        let until = from.saturating_add(interval).min(end);
        self.run_visits(until);
        self.run_background(from, until);
        let traces = ExportTraceServiceRequest { resource_spans: self.take_spans(until) };
        let logs = ExportLogsServiceRequest { resource_logs: self.take_logs(until) };
        let metrics = ExportMetricsServiceRequest { resource_metrics: self.take_metrics(from, until) };
        self.at = until;
        Some(Batch { at: Timestamp::from_nanos(until), logs, traces, metrics })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.config.end.since(Timestamp::from_nanos(self.at)).as_nanos();
        let batches = usize::try_from(left.div_ceil(self.config.batch_interval.max(Duration::from_nanos(1)).as_nanos()));
        batches.map_or((usize::MAX, None), |batches| (batches, Some(batches)))
    }
}

impl std::iter::FusedIterator for Simulation {}

/// Seconds as nanoseconds.
fn seconds(seconds: f64) -> i64 {
    (seconds * SECOND as f64) as i64
}

fn origin(span: &Span) -> Origin {
    let mut origin = Origin { at: span.end_time_unix_nano as i64, trace_id: [0; 16], span_id: [0; 8] };
    // Every span is made by this crate with ids of these lengths.
    if let (Ok(trace_id), Ok(span_id)) = (span.trace_id.as_slice().try_into(), span.span_id.as_slice().try_into()) {
        origin.trace_id = trace_id;
        origin.span_id = span_id;
    }
    origin
}

//! One request's way through the shop, recorded as spans and logs.
//!
//! Guards the consistency of a trace: a child lies inside its parent (unless it was left to run on its own), every
//! call has a client and a server span, and a log line lies inside the span it names. What the services do on the way
//! is decided in `handlers`.

mod handlers;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};

use crate::otlp::{log_record, nanos, status, text};
use crate::pool::Acquired;
use crate::random::SECOND;
use crate::recorder::Counter;
use crate::services::{Endpoint, Protocol};
use crate::shape::Shape;
use crate::world::World;

/// A finished span and what it adds to the metrics of its pod.
#[derive(Debug)]
pub(crate) struct MeasuredSpan {
    /// Index of its pod.
    pub(crate) pod: usize,
    /// The histogram series it counts in.
    pub(crate) shape: Option<Shape>,
    /// A counter it adds one to.
    pub(crate) counter: Option<Counter>,
    /// The span.
    pub(crate) span: Span,
}

/// A log record of a pod.
#[derive(Debug)]
pub(crate) struct PodLog {
    /// Index of its pod.
    pub(crate) pod: usize,
    /// The record.
    pub(crate) record: LogRecord,
}

/// An order confirmation on its way through the queue.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// When it was put on the queue, nanoseconds.
    pub(crate) published: i64,
    /// Trace and span that put it there.
    pub(crate) origin: ([u8; 16], [u8; 8]),
    /// The order.
    pub(crate) order: String,
}

/// Everything one request left behind.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// In order of completion within the request.
    pub(crate) spans: Vec<MeasuredSpan>,
    /// In no particular order.
    pub(crate) logs: Vec<PodLog>,
    /// At most one.
    pub(crate) mails: Vec<Mail>,
    /// When the last span ended, nanoseconds.
    pub(crate) end: i64,
}

/// Where code runs: in which pod and inside which span.
#[derive(Debug, Clone, Copy)]
struct Place {
    pod: usize,
    span: [u8; 8],
}

/// What a server answered.
#[derive(Debug, Clone, Copy)]
struct Reply {
    /// When, nanoseconds.
    end: i64,
    /// HTTP status, or the one that stands for a gRPC code.
    status: u16,
    /// What went wrong, for the span status.
    error: Option<&'static str>,
}

impl Reply {
    const fn ok(end: i64) -> Self {
        Self { end, status: 200, error: None }
    }

    const fn failed(end: i64, status: u16, error: &'static str) -> Self {
        Self { end, status, error: Some(error) }
    }

    const fn succeeded(self) -> bool {
        self.status < 400
    }
}

/// A span being put together.
struct Draft {
    place: Place,
    parent: Option<[u8; 8]>,
    name: &'static str,
    shape: Shape,
    start: i64,
    end: i64,
    error: Option<&'static str>,
    extra: Vec<KeyValue>,
    exception: Option<(&'static str, String)>,
    counter: Option<Counter>,
}

/// A request under way.
pub(crate) struct Journey<'w> {
    world: &'w mut World,
    trace_id: [u8; 16],
    user: u64,
    left: Traces,
}

/// A visitor asks the frontend for this at `at`.
pub(crate) fn visit(world: &mut World, endpoint: &'static Endpoint, at: i64) -> Traces {
    let mut journey = Journey::new(world);
    journey.serve(endpoint, None, at, at + 30 * SECOND);
    journey.left
}

/// The email service takes a confirmation from the queue at `at`. It starts a trace of its own and links to the order.
pub(crate) fn deliver(world: &mut World, mail: &Mail, at: i64) -> Traces {
    let mut journey = Journey::new(world);
    journey.send_confirmation(mail, at);
    journey.left
}

impl<'w> Journey<'w> {
    fn new(world: &'w mut World) -> Self {
        let trace_id = world.dice.trace_id();
        let user = world.dice.between(1_000, 9_999);
        Self { world, trace_id, user, left: Traces::default() }
    }

    fn work(&mut self, median_milliseconds: f64, sigma: f64) -> i64 {
        self.world.dice.duration(median_milliseconds, sigma)
    }

    fn place(&mut self, pod: usize) -> Place {
        Place { pod, span: self.world.dice.span_id() }
    }

    /// A request arrives at a pod of the endpoint's service. It must be answered by `give_up`.
    fn serve(&mut self, endpoint: &'static Endpoint, parent: Option<[u8; 8]>, at: i64, give_up: i64) -> Reply {
        let pod = self.world.fleet.route(&mut self.world.dice, endpoint.service, at);
        let place = self.place(pod);
        let reply = self.handle(endpoint, place, at, give_up);
        let shape = Shape::server(endpoint, reply.status);
        let counter = Self::order_counter(endpoint, reply);
        self.finish(Draft {
            place,
            parent,
            name: endpoint.span_name,
            shape,
            start: at,
            end: reply.end,
            error: shape.error_type().and(reply.error.or(Some("internal error"))),
            extra: self.request_attributes(endpoint, parent.is_none()),
            exception: None,
            counter,
        });
        reply
    }

    fn request_attributes(&self, endpoint: &Endpoint, from_outside: bool) -> Vec<KeyValue> {
        let Protocol::Http(_, route) = endpoint.protocol else { return Vec::new() };
        let user = self.user.to_string();
        let mut attributes = vec![text("url.path", route.replace("{user}", &user).replace("{id}", &user))];
        if from_outside {
            attributes.push(text("client.address", format!("198.51.100.{}", self.user % 250)));
            attributes.push(text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
            attributes.push(text("enduser.id", format!("u-{user}")));
        }
        attributes
    }

    /// Calls an endpoint from `place` and waits for the answer. `attempt` counts from 0.
    fn call(&mut self, place: Place, endpoint: &'static Endpoint, at: i64, give_up: i64, attempt: u32) -> Reply {
        let client = self.place(place.pod);
        let sent = at + self.work(0.2, 0.4);
        let served = self.serve(endpoint, Some(client.span), sent, give_up);
        let reply = Reply { end: served.end + self.work(0.2, 0.4), ..served };
        let shape = Shape::client(endpoint, reply.status);
        let mut extra = Vec::new();
        if attempt > 0 {
            extra.push(crate::otlp::integer("http.request.resend_count", i64::from(attempt)));
        }
        self.finish(Draft {
            place: client,
            parent: Some(place.span),
            name: endpoint.span_name,
            shape,
            start: at,
            end: reply.end,
            error: shape.error_type().and(reply.error.or(Some("request failed"))),
            extra,
            exception: None,
            counter: (attempt > 0).then_some(Counter::Retry),
        });
        reply
    }

    /// Something outside the shop, or a database: only the client's side is seen. Returns when it is over.
    fn reach(&mut self, place: Place, name: &'static str, shape: Shape, at: i64, took: i64, extra: Vec<KeyValue>) -> i64 {
        let client = self.place(place.pod);
        let error = shape.error_type().map(|_| "canceling statement due to statement timeout");
        let end = at + took;
        self.finish(Draft {
            place: client,
            parent: Some(place.span),
            name,
            shape,
            start: at,
            end,
            error,
            extra,
            exception: None,
            counter: None,
        });
        end
    }

    /// Borrows a connection from the pod's pool: the slot and when, or when patience ended.
    fn borrow_connection(&mut self, place: Place, at: i64, patience: i64) -> Result<(usize, i64), i64> {
        let Some(pool) = self.world.pools[place.pod].as_mut() else { return Ok((0, at)) };
        let acquired = pool.acquire(&mut self.world.dice, at, patience);
        let (end, timed_out) = match acquired {
            Acquired::Granted { at, .. } => (at, false),
            Acquired::TimedOut { at } => (at, true),
        };
        let (name, size, waiting) = (pool.name, pool.size(), pool.waiting(end - 1));
        let message =
            || format!("timed out acquiring connection from pool '{name}' (max={size} in_use={size} idle=0 waiting={waiting})");
        let waiter = self.place(place.pod);
        if timed_out {
            let body = format!("{} after {} ms", message(), (end - at) / 1_000_000);
            self.log(waiter, end, SeverityNumber::Error, body);
        }
        self.finish(Draft {
            place: waiter,
            parent: Some(place.span),
            name: "pool.acquire",
            shape: Shape::PoolWait { pool: name, timed_out },
            start: at,
            end,
            error: timed_out.then_some("timed out acquiring connection"),
            extra: Vec::new(),
            exception: timed_out.then(|| ("PoolAcquireTimeout", message())),
            counter: timed_out.then_some(Counter::PoolTimeout { pool: name }),
        });
        match acquired {
            Acquired::Granted { slot, at } => Ok((slot, at)),
            Acquired::TimedOut { at } => Err(at),
        }
    }

    fn return_connection(&mut self, place: Place, slot: usize, at: i64) {
        if let Some(pool) = self.world.pools[place.pod].as_mut() {
            pool.release(slot, at);
        }
    }

    /// A line of the span at `place`; `at` must lie inside the span.
    fn log(&mut self, place: Place, at: i64, severity: SeverityNumber, body: String) {
        let record = log_record(at, severity, body, Vec::new(), Some((self.trace_id, place.span)));
        self.left.logs.push(PodLog { pod: place.pod, record });
    }

    /// A line that belongs to no request, possibly long after this one.
    fn log_later(&mut self, place: Place, at: i64, severity: SeverityNumber, body: String) {
        let record = log_record(at, severity, body, Vec::new(), None);
        self.left.logs.push(PodLog { pod: place.pod, record });
    }

    fn finish(&mut self, draft: Draft) {
        let Draft { place, parent, name, shape, start, end, error, extra, exception, counter } = draft;
        let mut attributes = shape.attributes();
        attributes.extend(extra);
        let event = exception.map(|(kind, message)| Event {
            time_unix_nano: nanos(end),
            name: "exception".to_owned(),
            attributes: vec![text("exception.type", kind), text("exception.message", message)],
            ..Event::default()
        });
        self.push(
            place.pod,
            Some(shape),
            counter,
            Span {
                trace_id: self.trace_id.to_vec(),
                span_id: place.span.to_vec(),
                parent_span_id: parent.map(|id| id.to_vec()).unwrap_or_default(),
                flags: 1,
                name: name.to_owned(),
                kind: shape.span_kind() as i32,
                start_time_unix_nano: nanos(start),
                end_time_unix_nano: nanos(end),
                attributes,
                events: event.into_iter().collect(),
                status: status(error),
                ..Span::default()
            },
        );
    }

    /// A span of work inside a process that no metric counts.
    fn internal(&mut self, place: Place, name: &'static str, start: i64, took: i64) -> i64 {
        let inner = self.world.dice.span_id();
        self.push(
            place.pod,
            None,
            None,
            Span {
                trace_id: self.trace_id.to_vec(),
                span_id: inner.to_vec(),
                parent_span_id: place.span.to_vec(),
                flags: 1,
                name: name.to_owned(),
                kind: SpanKind::Internal as i32,
                start_time_unix_nano: nanos(start),
                end_time_unix_nano: nanos(start + took),
                ..Span::default()
            },
        );
        start + took
    }

    fn push(&mut self, pod: usize, shape: Option<Shape>, counter: Option<Counter>, span: Span) {
        self.left.end = self.left.end.max(span.end_time_unix_nano as i64);
        self.left.spans.push(MeasuredSpan { pod, shape, counter, span });
    }

    /// Links the last finished span to the span a message came from.
    fn link_last(&mut self, origin: ([u8; 16], [u8; 8])) {
        if let Some(last) = self.left.spans.last_mut() {
            last.span.links.push(Link { trace_id: origin.0.to_vec(), span_id: origin.1.to_vec(), flags: 1, ..Link::default() });
        }
    }
}

//! What happened at the gate, counted where its end is recorded: one event, one place.
//!
//! Guards that the number of series is bounded: a tool's name only when the catalogue knows it, a rule only by its class, and
//! never a principal, a session, an address or an argument.

use std::borrow::Cow;
use std::sync::Arc;

use portcullis_gateway::{Recorder, RoadEnd};
use portcullis_model::{FaultCode, RiskClass};
use portcullis_wire::{RequestRefusal, rules};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::exposition::Format;
use crate::process::ProcessSample;
use crate::sample::{ProcessCollector, Sample, SampleCollector};

/// Bytes of answer text that make one token, roughly: what the daily budget counts with.
const BYTES_PER_TOKEN: u64 = 4;
/// Upper bounds of the buckets of call durations, seconds: from what a cached answer takes to the longest deadline.
const DURATIONS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// What stands for a name that is not one of a bounded number.
const UNKNOWN: &str = "unknown";

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// The counters of one process.
pub struct Metrics {
    registry: Registry,
    calls: Counters<3>,
    requests: Counters<3>,
    refusals: Counters<2>,
    limits: Counters<1>,
    authentication: Counters<2>,
    durations: Family<Labels<1>, Histogram, fn() -> Histogram>,
    bytes: Counter,
    tokens: Counter,
    redactions: Counters<1>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// How a journey ended, in one word.
fn outcome(end: &RoadEnd) -> &'static str {
    match (end.allowed, end.code) {
        (true, None) => "ok",
        (true, Some(_)) | (false, Some(FaultCode::Cancelled)) => "failed",
        (false, _) => "refused",
    }
}

/// What a rule is about. The operator's own rules are one class: their names belong into audit records.
fn class(rule: &str) -> &'static str {
    match rule {
        "address-rate"
        | "rate-limit"
        | "global-rate"
        | "tenant-rate"
        | "tool-rate"
        | "write-rate"
        | "token-budget"
        | "tenant-token-budget"
        | "queue"
        | "concurrency"
        | "tenant-concurrency"
        | "in-flight"
        | "in-flight-share"
        | "stream-budget"
        | "session-limit"
        | rules::BUSY => "limit",
        "catalogue" | "unknown-name" => "unknown-name",
        "argument-schema"
        | "argument-type"
        | "strict-json"
        | "batch"
        | "request"
        | rules::BODY_SIZE
        | rules::BODY_TIME
        | rules::BODY_BROKEN
        | rules::HEAD_SIZE
        | rules::MALFORMED_HTTP
        | rules::MALFORMED_BODY
        | rules::MEDIA_TYPE
        | rules::TWO_CREDENTIALS => "request",
        "approval" | "operation-approval" => "approval",
        "behaviour-profile" => "behaviour-profile",
        "external-policy" => "external-policy",
        "write-gate" => "write-gate",
        "foreign-session" => "session",
        "unredacted" => "unredacted",
        "audit" => "audit",
        rules::HOST | rules::ORIGIN | "cross-site" => "browser",
        _ => "policy",
    }
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let made: fn() -> Histogram = || Histogram::new(DURATIONS);
        let metrics = Self {
            registry: Registry::default(),
            calls: Family::default(),
            requests: Family::default(),
            refusals: Family::default(),
            limits: Family::default(),
            authentication: Family::default(),
            durations: Family::new_with_constructor(made),
            bytes: Counter::default(),
            tokens: Counter::default(),
            redactions: Family::default(),
        };
        registry.register(
            "calls",
            "Tool calls, by tool of the catalogue, how they ended, and what the tool can do at worst",
            metrics.calls.clone(),
        );
        registry.register(
            "requests",
            "Everything that took the road of the gate, by method, listener and how it ended",
            metrics.requests.clone(),
        );
        registry.register("refusals", "Refusals, by what refused and with which code", metrics.refusals.clone());
        registry.register(
            "limit_refusals",
            "Refusals because of a rate, a budget or a lack of places, by the limit",
            metrics.limits.clone(),
        );
        registry.register(
            "authentication_failures",
            "Callers who were nobody, by the reason and the listener",
            metrics.authentication.clone(),
        );
        registry.register_with_unit(
            "call_duration",
            "Time a tool call took at the gate, from arrival to its record",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit("answer", "Bytes of released answers", Unit::Bytes, metrics.bytes.clone());
        registry.register(
            "answer_tokens",
            "Tokens of released answers, estimated as the daily budget estimates them",
            metrics.tokens.clone(),
        );
        registry.register("redactions", "Values that were taken out of answers, by class", metrics.redactions.clone());
        Self { registry, ..metrics }
    }

    /// A journey ended.
    fn ended(&self, end: &RoadEnd) {
        let outcome = outcome(end);
        // The failure that began the wait was counted; the wait is no request.
        if end.lockout.is_some() {
            return;
        }
        if end.method == "authenticate" {
            if !end.allowed {
                self.refused_sender(end.transport.as_str(), &end.rule);
            }
            return;
        }
        self.requests
            .get_or_create(&[
                ("method", Cow::Borrowed(end.method)),
                ("listener", Cow::Borrowed(end.transport.as_str())),
                ("outcome", Cow::Borrowed(outcome)),
            ])
            .inc();
        if end.method == "tools/call" {
            self.called(end, outcome);
        }
        if outcome == "refused" {
            self.refused(&end.rule, end.code);
        }
        self.bytes.inc_by(end.bytes_out);
        self.tokens.inc_by(end.bytes_out / BYTES_PER_TOKEN);
        for (class, count) in &end.redactions {
            self.redactions.get_or_create(&[("class", Cow::Borrowed(*class))]).inc_by(*count);
        }
    }

    fn called(&self, end: &RoadEnd, outcome: &'static str) {
        let tool = if end.known { Cow::Owned(end.target.clone()) } else { Cow::Borrowed(UNKNOWN) };
        let risk = end.risk.map_or(UNKNOWN, RiskClass::as_str);
        let seconds = end.latency_micros as f64 / 1_000_000.0;
        self.durations.get_or_create(&[("tool", tool.clone())]).observe(seconds);
        self.calls.get_or_create(&[("tool", tool), ("outcome", Cow::Borrowed(outcome)), ("risk", Cow::Borrowed(risk))]).inc();
    }

    fn refused(&self, rule: &str, code: Option<FaultCode>) {
        let class = class(rule);
        let code = code.map_or("none", FaultCode::as_str);
        self.refusals.get_or_create(&[("reason", Cow::Borrowed(class)), ("code", Cow::Borrowed(code))]).inc();
        if class == "limit" {
            self.limits.get_or_create(&[("limit", Cow::Owned(rule.to_owned()))]).inc();
        }
    }

    /// A request was refused before anybody was known.
    pub fn refused_request(&self, refusal: &RequestRefusal<'_>) {
        self.refused(refusal.rule, Some(refusal.code));
    }

    /// Somebody was refused for who they are not. `reason` is the rule of the refusal, one of a fixed list.
    pub fn refused_sender(&self, listener: &'static str, reason: &str) {
        let reason = Cow::Owned(reason.to_owned());
        if class(&reason) == "limit" {
            self.limits.get_or_create(&[("limit", reason)]).inc();
        } else {
            self.authentication.get_or_create(&[("reason", reason), ("listener", Cow::Borrowed(listener))]).inc();
        }
    }

    /// Everything as a scraper reads it.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn expose(&self, sample: Sample, format: Format) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        encode_registry(&mut text, &self.registry)?;
        let mut sampled = Registry::with_prefix("portcullis");
        sampled.register_collector(Box::new(SampleCollector(sample)));
        encode_registry(&mut text, &sampled)?;
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessCollector(ProcessSample::take())));
        encode_registry(&mut text, &process)?;
        encode_eof(&mut text)?;
        Ok(format.write(text))
    }
}

/// Counts every end of a road beside its record.
pub struct MeasuredRecorder {
    inner: Arc<dyn Recorder>,
    metrics: Arc<Metrics>,
}

impl MeasuredRecorder {
    /// Records with `inner`, and counts.
    pub fn new(inner: Arc<dyn Recorder>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl Recorder for MeasuredRecorder {
    fn record(&self, end: &RoadEnd) -> Result<(), String> {
        let recorded = self.inner.record(end);
        self.metrics.ended(end);
        recorded
    }

    /// The end of it is what counts.
    fn intend(&self, call: &RoadEnd) -> Result<Option<Arc<str>>, String> {
        self.inner.intend(call)
    }

    fn may_begin(&self, risk: RiskClass) -> Result<(), String> {
        self.inner.may_begin(risk)
    }
}

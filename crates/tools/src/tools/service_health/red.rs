//! Rate, errors and duration per service and bin, counted from spans as they come by.
//!
//! Guards memory: it grows with services and bins, never with spans. Durations are kept in buckets 8 % wide, so a
//! percentile is right to within 4 %.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_analysis::Tally;
use portcullis_model::{Sample, Span, SpanKind, SpanStatus, Timestamp};

use super::frame::Frame;

const BUCKET_GROWTH: f64 = 1.08;
/// Requests a bin needs before its percentile or error ratio says something.
const ENOUGH: u64 = 4;

/// What happened in one bin.
#[derive(Debug, Clone, Default)]
struct Bin {
    requests: u64,
    errors: u64,
    /// Requests by duration bucket.
    durations: BTreeMap<u16, u64>,
}

impl Bin {
    fn add(&mut self, span: &Span) {
        self.requests += 1;
        self.errors += u64::from(span.status == SpanStatus::Error);
        let bucket = (span.duration_nanos.max(1) as f64).ln() / BUCKET_GROWTH.ln();
        *self.durations.entry(bucket.round() as u16).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (bucket, count) in &other.durations {
            *self.durations.entry(*bucket).or_default() += count;
        }
    }

    /// Seconds; nearest rank.
    fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (self.requests as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in &self.durations {
            seen += count;
            if seen >= rank {
                return Some(BUCKET_GROWTH.powi(i32::from(*bucket)) / 1e9);
            }
        }
        None
    }
}

/// The bins of one service. Spans that handle requests count; where a service has none of that kind, everything counts
/// that is not a call to somebody else.
#[derive(Debug, Clone)]
pub(super) struct Red {
    served: Vec<Bin>,
    other: Vec<Bin>,
}

impl Red {
    fn new(bins: usize) -> Self {
        Self { served: vec![Bin::default(); bins], other: vec![Bin::default(); bins] }
    }

    fn bins(&self) -> &[Bin] {
        if self.served.iter().any(|bin| bin.requests > 0) { &self.served } else { &self.other }
    }

    fn sum(&self, range: std::ops::Range<usize>) -> Bin {
        let mut sum = Bin::default();
        for bin in self.bins().get(range).unwrap_or_default() {
            sum.merge(bin);
        }
        sum
    }

    /// Requests in these bins.
    pub(super) fn requests(&self, range: std::ops::Range<usize>) -> u64 {
        self.sum(range).requests
    }

    /// Failed share of the requests in these bins; `None` without a request.
    pub(super) fn error_ratio(&self, range: std::ops::Range<usize>) -> Option<f64> {
        let sum = self.sum(range);
        (sum.requests > 0).then(|| sum.errors as f64 / sum.requests as f64)
    }

    /// Seconds; `None` without a request.
    pub(super) fn p95(&self, range: std::ops::Range<usize>) -> Option<f64> {
        self.sum(range).quantile(0.95)
    }

    /// First bin with a request.
    pub(super) fn first_seen(&self) -> Option<usize> {
        self.bins().iter().position(|bin| bin.requests > 0)
    }

    /// One sample per bin that has enough requests.
    fn samples(&self, frame: &Frame, value: impl Fn(&Bin) -> Option<f64>) -> Vec<Sample> {
        let sample = |(index, bin): (usize, &Bin)| {
            (bin.requests >= ENOUGH).then(|| value(bin)).flatten().map(|value| Sample { at: frame.start(index), value })
        };
        self.bins().iter().enumerate().filter_map(sample).collect()
    }

    pub(super) fn error_samples(&self, frame: &Frame) -> Vec<Sample> {
        self.samples(frame, |bin| Some(bin.errors as f64 / bin.requests as f64))
    }

    /// Failed requests and all requests of every bin with any.
    pub(super) fn error_tallies(&self, frame: &Frame) -> Vec<(Timestamp, Tally)> {
        let tally = |(index, bin): (usize, &Bin)| {
            (bin.requests > 0).then(|| (frame.start(index), Tally { events: bin.errors, exposure: bin.requests as f64 }))
        };
        self.bins().iter().enumerate().filter_map(tally).collect()
    }

    pub(super) fn latency_samples(&self, frame: &Frame) -> Vec<Sample> {
        self.samples(frame, |bin| bin.quantile(0.95))
    }

    /// Requests per second from the first bin seen on; zero is a value here. The last bin is left out: its spans may
    /// still be on their way.
    pub(super) fn rate_samples(&self, frame: &Frame) -> Vec<Sample> {
        let Some(first) = self.first_seen() else { return Vec::new() };
        let bins = self.bins();
        let sample = |index: usize| Sample {
            at: frame.start(index),
            value: bins.get(index).map_or(0.0, |bin| bin.requests as f64) / frame.bin.as_secs_f64(),
        };
        (first..bins.len().saturating_sub(1)).map(sample).collect()
    }
}

/// All services.
#[derive(Debug, Clone, Default)]
pub(super) struct RedByService(pub(super) BTreeMap<Arc<str>, Red>);

impl RedByService {
    pub(super) fn add(&mut self, frame: &Frame, span: &Span) {
        let Some(index) = frame.index(span.start) else { return };
        let serves = matches!(span.kind, SpanKind::Server | SpanKind::Consumer);
        let calls = matches!(span.kind, SpanKind::Client | SpanKind::Producer);
        if calls || span.service.is_empty() {
            return;
        }
        let red = self.0.entry(span.service.clone()).or_insert_with(|| Red::new(frame.bins()));
        let bins = if serves { &mut red.served } else { &mut red.other };
        if let Some(bin) = bins.get_mut(index) {
            bin.add(span);
        }
    }

    /// Adds what another source counted.
    pub(super) fn merge(&mut self, other: Self) {
        for (service, red) in other.0 {
            match self.0.get_mut(&service) {
                None => {
                    self.0.insert(service, red);
                }
                Some(own) => {
                    for (mine, theirs) in own.served.iter_mut().zip(&red.served).chain(own.other.iter_mut().zip(&red.other)) {
                        mine.merge(theirs);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::TimeWindow;

    fn span(second: i64, kind: SpanKind, milliseconds: u64, status: SpanStatus) -> Span {
        Span {
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            span_id: "b7ad6b7169203331".to_owned(),
            parent_span_id: String::new(),
            service: Arc::from("cart"),
            name: "GET".to_owned(),
            kind,
            start: Timestamp::from_seconds(second),
            duration_nanos: milliseconds * 1_000_000,
            status,
            status_message: String::new(),
            attributes: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    #[test]
    fn requests_are_what_a_service_serves() {
        let window = TimeWindow::new(Timestamp::from_seconds(0), Timestamp::from_seconds(300)).unwrap();
        let frame = Frame::new(window, None);
        let mut all = RedByService::default();
        for n in 0..100 {
            let status = if n < 10 { SpanStatus::Error } else { SpanStatus::Unset };
            all.add(&frame, &span(1, SpanKind::Server, n + 1, status));
            all.add(&frame, &span(1, SpanKind::Client, 10_000, SpanStatus::Error));
            all.add(&frame, &span(1, SpanKind::Internal, 10_000, SpanStatus::Error));
        }
        let red = &all.0["cart"];
        assert_eq!(red.requests(0..frame.bins()), 100);
        assert_eq!(red.error_ratio(0..frame.bins()), Some(0.1));
        let p95 = red.p95(0..frame.bins()).unwrap();
        assert!((0.091..=0.099).contains(&p95), "{p95}");
        assert_eq!(red.error_samples(&frame).len(), 1);
        assert_eq!(red.error_tallies(&frame)[0].1, Tally { events: 10, exposure: 100.0 });
    }
}

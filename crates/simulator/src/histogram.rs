//! The two histogram forms of OTLP metrics, cumulative.
//!
//! Guards that bucket counts always sum to the count and that an exponential bucket holds what the specification says
//! (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram>). Knows nothing of the shop.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, exemplar, exponential_histogram_data_point::Buckets,
};

use crate::otlp::nanos;

/// Bucket bounds in seconds that the HTTP semantic conventions advise.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Buckets grow by 2^(1/2^SCALE), about 9 %.
const SCALE: i32 = 3;

/// Where a measured value came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// When it was measured, nanoseconds.
    pub(crate) at: i64,
    /// Trace of the span.
    pub(crate) trace_id: [u8; 16],
    /// The span.
    pub(crate) span_id: [u8; 8],
}

/// Buckets of either form.
#[derive(Debug, Clone)]
enum BucketCounts {
    Explicit([u64; BOUNDS.len() + 1]),
    Exponential { zero: u64, positive: BTreeMap<i32, u64> },
}

/// A cumulative histogram of seconds, with the slowest value of the running interval as its exemplar.
#[derive(Debug, Clone)]
pub(crate) struct DurationHistogram {
    buckets: BucketCounts,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    slowest: Option<(f64, Origin)>,
}

impl DurationHistogram {
    /// Empty, with explicit bounds or exponential buckets.
    pub(crate) fn new(exponential: bool) -> Self {
        let buckets = if exponential {
            BucketCounts::Exponential { zero: 0, positive: BTreeMap::new() }
        } else {
            BucketCounts::Explicit([0; BOUNDS.len() + 1])
        };
        Self { buckets, count: 0, sum: 0.0, min: f64::INFINITY, max: 0.0, slowest: None }
    }

    /// Counts one duration in seconds.
    pub(crate) fn record(&mut self, seconds: f64, origin: Origin) {
        self.count += 1;
        self.sum += seconds;
        self.min = self.min.min(seconds);
        self.max = self.max.max(seconds);
        match &mut self.buckets {
            BucketCounts::Explicit(counts) => {
                let index = BOUNDS.partition_point(|&bound| bound < seconds);
                counts[index] += 1;
            }
            BucketCounts::Exponential { zero, .. } if seconds <= 0.0 => *zero += 1,
            BucketCounts::Exponential { positive, .. } => *positive.entry(exponential_index(seconds)).or_default() += 1,
        }
        if self.slowest.is_none_or(|(slowest, _)| seconds > slowest) {
            self.slowest = Some((seconds, origin));
        }
    }

    fn take_exemplars(&mut self) -> Vec<Exemplar> {
        let exemplar = self.slowest.take().map(|(seconds, origin)| Exemplar {
            time_unix_nano: nanos(origin.at),
            span_id: origin.span_id.to_vec(),
            trace_id: origin.trace_id.to_vec(),
            value: Some(exemplar::Value::AsDouble(seconds)),
            ..Exemplar::default()
        });
        exemplar.into_iter().collect()
    }

    /// The explicit data point, or `None` if this one is exponential. Exemplars are handed out once.
    pub(crate) fn explicit_point(&mut self, attributes: Vec<KeyValue>, started: i64, at: i64) -> Option<HistogramDataPoint> {
        let BucketCounts::Explicit(counts) = self.buckets else { return None };
        Some(HistogramDataPoint {
            attributes,
            start_time_unix_nano: nanos(started),
            time_unix_nano: nanos(at),
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: counts.to_vec(),
            explicit_bounds: BOUNDS.to_vec(),
            exemplars: self.take_exemplars(),
            min: Some(self.min),
            max: Some(self.max),
            ..HistogramDataPoint::default()
        })
    }

    /// The exponential data point, or `None` if this one is explicit. Exemplars are handed out once.
    pub(crate) fn exponential_point(
        &mut self,
        attributes: Vec<KeyValue>,
        started: i64,
        at: i64,
    ) -> Option<ExponentialHistogramDataPoint> {
        let BucketCounts::Exponential { zero, positive } = &self.buckets else { return None };
        let zero_count = *zero;
        let first = positive.keys().next().copied().unwrap_or(0);
        let last = positive.keys().next_back().copied().unwrap_or(first - 1);
        let bucket_counts = (first..=last).map(|index| positive.get(&index).copied().unwrap_or(0)).collect();
        Some(ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: nanos(started),
            time_unix_nano: nanos(at),
            count: self.count,
            sum: Some(self.sum),
            scale: SCALE,
            zero_count,
            positive: Some(Buckets { offset: first, bucket_counts }),
            exemplars: self.take_exemplars(),
            min: Some(self.min),
            max: Some(self.max),
            ..ExponentialHistogramDataPoint::default()
        })
    }
}

/// Index `i` of the bucket `(base^i, base^(i+1)]` that holds a positive value.
fn exponential_index(value: f64) -> i32 {
    (value.log2() * f64::from(1 << SCALE)).ceil() as i32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { at: 5, trace_id: [1; 16], span_id: [2; 8] };

    #[test]
    fn explicit_buckets_are_closed_above() {
        let mut histogram = DurationHistogram::new(false);
        for seconds in [0.001, 0.005, 0.006, 99.0] {
            histogram.record(seconds, ORIGIN);
        }
        let point = histogram.explicit_point(Vec::new(), 0, 10).unwrap();
        assert_eq!((point.bucket_counts[0], point.bucket_counts[1], point.bucket_counts[14]), (2, 1, 1));
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        assert_eq!((point.min, point.max), (Some(0.001), Some(99.0)));
        assert_eq!(point.exemplars[0].value, Some(exemplar::Value::AsDouble(99.0)));
        assert!(histogram.explicit_point(Vec::new(), 0, 20).unwrap().exemplars.is_empty(), "handed out twice");
        assert!(histogram.exponential_point(Vec::new(), 0, 20).is_none());
    }

    #[test]
    fn exponential_buckets_hold_what_they_claim() {
        let base = 2f64.powf(1.0 / f64::from(1 << SCALE));
        let mut histogram = DurationHistogram::new(true);
        for seconds in [0.0007, 0.011, 0.011, 3.2] {
            let index = exponential_index(seconds);
            assert!(base.powi(index) < seconds && seconds <= base.powi(index + 1) * 1.000_001, "{seconds}");
            histogram.record(seconds, ORIGIN);
        }
        histogram.record(0.0, ORIGIN);
        let point = histogram.exponential_point(Vec::new(), 0, 10).unwrap();
        let buckets = point.positive.unwrap();
        assert_eq!(buckets.offset, exponential_index(0.0007));
        assert_eq!(buckets.bucket_counts.iter().sum::<u64>() + point.zero_count, point.count);
    }
}

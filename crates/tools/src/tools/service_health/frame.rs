//! The time of a health question: the window, what it is compared with, and the bins both are cut into.
//!
//! Guards that a bin belongs to exactly one side and that time between the two sides belongs to none.

use std::time::Duration;

use portcullis_model::{TimeWindow, Timestamp};

/// Bins the window is cut into.
const WINDOW_BINS: u64 = 30;
/// Shortest bin: below it a bin holds too few requests to speak of a percentile.
const SHORTEST_BIN: u64 = 10;
/// How many times the window the time before it may be.
pub(super) const BASELINE_TIMES: u32 = 4;

/// The window, its baseline, and their bins: the baseline's first, then the window's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) window: TimeWindow,
    pub(super) baseline: Option<TimeWindow>,
    pub(super) bin: Duration,
    baseline_bins: usize,
    window_bins: usize,
}

impl Frame {
    pub(super) fn new(window: TimeWindow, baseline: Option<TimeWindow>) -> Self {
        let seconds = window.length().as_secs().div_ceil(WINDOW_BINS).max(SHORTEST_BIN);
        let bin = Duration::from_secs(seconds);
        let count = |part: TimeWindow| usize::try_from(part.length().as_nanos().div_ceil(bin.as_nanos())).unwrap_or(1);
        // The baseline ends on the border of a bin, so that no bin holds time of both sides.
        let baseline = baseline.filter(|part| part.length() >= bin);
        Self { window, baseline, bin, baseline_bins: baseline.map_or(0, count), window_bins: count(window) }
    }

    /// All bins.
    pub(super) fn bins(&self) -> usize {
        self.baseline_bins + self.window_bins
    }

    /// The first bin of the window.
    pub(super) fn first_of_window(&self) -> usize {
        self.baseline_bins
    }

    /// The first bin of "now": the last third of the window.
    pub(super) fn first_of_now(&self) -> usize {
        self.baseline_bins + self.window_bins * 2 / 3
    }

    /// The bin `at` falls into, if any.
    pub(super) fn index(&self, at: Timestamp) -> Option<usize> {
        let within = |part: TimeWindow| {
            part.contains(at).then(|| usize::try_from(at.since(part.start).as_nanos() / self.bin.as_nanos()).unwrap_or(0))
        };
        if let Some(index) = within(self.window) {
            return Some(self.baseline_bins + index.min(self.window_bins - 1));
        }
        self.baseline.and_then(within).map(|index| index.min(self.baseline_bins.saturating_sub(1)))
    }

    /// As [`Frame::index`] for the start of a bucket a source made: one that begins just before a part belongs to it.
    pub(super) fn index_of_bucket(&self, start: Timestamp) -> Option<usize> {
        self.index(start).or_else(|| self.index(start.plus(self.bin / 2))).or_else(|| self.index(start.plus(self.bin)))
    }

    /// Start of a bin.
    pub(super) fn start(&self, index: usize) -> Timestamp {
        let (from, offset) = match self.baseline {
            Some(baseline) if index < self.baseline_bins => (baseline.start, index),
            _ => (self.window.start, index.saturating_sub(self.baseline_bins)),
        };
        from.plus(self.bin.saturating_mul(u32::try_from(offset).unwrap_or(u32::MAX)))
    }

    /// Whether the baseline lies directly before the window.
    pub(super) fn is_contiguous(&self) -> bool {
        self.baseline.is_some_and(|baseline| baseline.end == self.window.start)
    }

    /// The parts to ask sources for: one when they touch, else the baseline and the window.
    pub(super) fn parts(&self) -> Vec<TimeWindow> {
        match self.baseline {
            Some(baseline) if self.is_contiguous() => vec![TimeWindow { start: baseline.start, end: self.window.end }],
            Some(baseline) => vec![baseline, self.window],
            None => vec![self.window],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_772_359_200 + seconds)
    }

    #[test]
    fn every_moment_is_in_its_own_bin() {
        let window = TimeWindow::new(at(0), at(900)).unwrap();
        let before = TimeWindow::new(at(-3600), at(0)).unwrap();
        let frame = Frame::new(window, Some(before));
        assert_eq!((frame.bin.as_secs(), frame.bins(), frame.first_of_window()), (30, 150, 120));
        assert!(frame.is_contiguous());
        assert_eq!(frame.index(at(-3600)), Some(0));
        assert_eq!(frame.index(at(-1)), Some(119));
        assert_eq!(frame.index(at(0)), Some(120));
        assert_eq!(frame.index(at(899)), Some(149));
        assert_eq!(frame.index(at(900)), None);
        for index in 0..frame.bins() {
            assert_eq!(frame.index(frame.start(index)), Some(index));
        }
        assert_eq!(frame.parts().len(), 1);
    }

    #[test]
    fn a_day_ago_is_apart() {
        let window = TimeWindow::new(at(0), at(900)).unwrap();
        let frame = Frame::new(window, Some(window.shifted_back(Duration::from_hours(24))));
        assert!(!frame.is_contiguous());
        assert_eq!(frame.index(at(-1)), None);
        assert_eq!(frame.index(at(-86_400)), Some(0));
        assert_eq!(frame.start(30), at(0));
        assert_eq!(frame.parts().len(), 2);
    }
}

//! Walking several sources newest first as if they were one.
//!
//! Guards that a walk shows every record exactly once: each source has its own place, and a place only moves past records
//! that were shown. A source that failed keeps its place and is asked again on the next page.

use std::collections::BTreeMap;

use portcullis_model::{LogRecord, SourceName, TimeWindow, Timestamp};
use portcullis_ports::{LogAnswer, LogPosition, Total};
use serde::{Deserialize, Serialize};

use crate::time::Packed;

/// Where a walk stands; what a cursor carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walk {
    /// The window of the first page; later pages keep it although time goes on.
    #[serde(rename = "w")]
    window: Packed,
    #[serde(rename = "p")]
    places: BTreeMap<SourceName, Place>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// How long before the end of the window the last record shown lies, nanoseconds, and how many of exactly that time
    /// were shown.
    #[serde(rename = "b", skip_serializing_if = "Option::is_none", default)]
    before_end: Option<(i64, u32)>,
    #[serde(rename = "d", skip_serializing_if = "std::ops::Not::not", default)]
    done: bool,
    /// `(known exactly, records)`; absent when the source does not say. Only a finished source is not asked again.
    #[serde(rename = "t", skip_serializing_if = "Option::is_none", default)]
    total: Option<(bool, u64)>,
}

impl Walk {
    pub(super) fn new(window: TimeWindow) -> Self {
        Self { window: Packed(window), places: BTreeMap::new() }
    }

    /// The window of the walk.
    pub(super) fn window(&self) -> TimeWindow {
        self.window.0
    }

    /// What the next page needs: totals of sources that will be asked again are left out.
    pub(super) fn to_continue(&self) -> Self {
        let keep = |place: &Place| Place { total: place.total.filter(|_| place.done), ..*place };
        Self { window: self.window, places: self.places.iter().map(|(name, place)| (name.clone(), keep(place))).collect() }
    }

    /// Whether `source` has been read to its end.
    pub(super) fn is_done(&self, source: &SourceName) -> bool {
        self.places.get(source).is_some_and(|place| place.done)
    }

    /// Where to go on in `source`; `None` is its beginning.
    pub(super) fn place(&self, source: &SourceName) -> Option<LogPosition> {
        let (before_end, shown_at) = self.places.get(source)?.before_end?;
        let at = Timestamp::from_nanos(self.window.0.end.as_nanos().saturating_sub(before_end));
        Some(LogPosition { at, shown_at })
    }

    /// Keeps what sources said about their totals, for the pages on which they are not asked again.
    pub(super) fn remember_totals<'a>(&mut self, totals: impl Iterator<Item = (&'a SourceName, Total)>) {
        for (source, total) in totals {
            let place = self.places.entry(source.clone()).or_default();
            place.total = match total {
                Total::Exact(n) => Some((true, n)),
                Total::AtLeast(n) => Some((false, n)),
                Total::Unknown => None,
            };
        }
    }

    /// The totals of every source of this walk.
    pub(super) fn totals(&self) -> Vec<Total> {
        let total = |place: &Place| match place.total {
            Some((true, n)) => Total::Exact(n),
            Some((false, n)) => Total::AtLeast(n),
            None => Total::Unknown,
        };
        self.places.values().map(total).collect()
    }

    /// Takes the newest `limit` records over all answers and moves the places past them.
    pub(super) fn merge(&mut self, answers: Vec<(SourceName, LogAnswer)>, limit: usize) -> Vec<(SourceName, LogRecord)> {
        let mut more: BTreeMap<SourceName, bool> = BTreeMap::new();
        let mut records: Vec<(SourceName, LogRecord)> = Vec::new();
        for (source, answer) in answers {
            more.insert(source.clone(), answer.next.is_some());
            records.extend(answer.records.into_iter().map(|record| (source.clone(), record)));
        }
        // Stable: records of one source keep the order it gave them.
        records.sort_by_key(|(_, record)| std::cmp::Reverse(record.at));
        let left = records.split_off(limit.min(records.len()));
        for (source, record) in &records {
            let place = self.places.entry(source.clone()).or_default();
            let before_end = self.window.0.end.as_nanos().saturating_sub(record.at.as_nanos());
            let shown_before = place.before_end.filter(|(held, _)| *held == before_end).map_or(0, |(_, shown)| shown);
            place.before_end = Some((before_end, shown_before + 1));
        }
        for (source, more) in more {
            let unread = left.iter().any(|(from, _)| *from == source);
            self.places.entry(source).or_default().done = !more && !unread;
        }
        records
    }

    /// Whether a source has more, or could not say.
    pub(super) fn unfinished(&self, failed: &[SourceName]) -> bool {
        !failed.is_empty() || self.places.values().any(|place| !place.done)
    }
}

/// Records with one text, one service and one severity in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Folded {
    pub(super) newest: LogRecord,
    pub(super) count: u64,
    pub(super) oldest_at: Timestamp,
}

/// Folds records that repeat directly one after the other.
pub(super) fn fold(records: Vec<LogRecord>) -> Vec<Folded> {
    let mut folded: Vec<Folded> = Vec::new();
    for record in records {
        match folded.last_mut() {
            Some(last)
                if last.newest.body == record.body
                    && last.newest.service == record.service
                    && last.newest.severity == record.severity =>
            {
                last.count += 1;
                last.oldest_at = last.oldest_at.min(record.at);
            }
            _ => folded.push(Folded { count: 1, oldest_at: record.at, newest: record }),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn record(at: i64, body: &str) -> LogRecord {
        LogRecord {
            at: Timestamp::from_seconds(at),
            severity: None,
            service: Arc::from("a"),
            body: body.to_owned(),
            attributes: BTreeMap::new(),
            trace_id: String::new(),
            span_id: String::new(),
        }
    }

    /// What a source does with a request, over records sorted newest first.
    fn page(records: &[LogRecord], after: Option<LogPosition>, limit: usize) -> LogAnswer {
        let start = after.map_or(0, |p| {
            let first_at = records.partition_point(|r| r.at > p.at);
            first_at + p.shown_at as usize
        });
        let slice: Vec<LogRecord> = records.iter().skip(start).take(limit).cloned().collect();
        let next = (start + slice.len() < records.len()).then(|| LogPosition { at: Timestamp::from_nanos(0), shown_at: 0 });
        LogAnswer { records: slice, total: Total::Exact(records.len() as u64), next }
    }

    proptest! {
        #[test]
        fn a_walk_shows_every_record_exactly_once(
            times in proptest::collection::vec(proptest::collection::vec(0i64..12, 0..40), 1..4),
            limit in 1usize..9,
        ) {
            let window = TimeWindow::new(Timestamp::from_seconds(0), Timestamp::from_seconds(100)).unwrap();
            let mut sources: Vec<(SourceName, Vec<LogRecord>)> = Vec::new();
            for (index, times) in times.iter().enumerate() {
                let mut records: Vec<LogRecord> =
                    times.iter().enumerate().map(|(n, at)| record(*at, &format!("{index}-{n}"))).collect();
                records.sort_by_key(|r| std::cmp::Reverse(r.at));
                sources.push((SourceName::new(format!("s{index}")).unwrap(), records));
            }
            let mut walk = Walk::new(window);
            let mut seen: Vec<(i64, String)> = Vec::new();
            for _ in 0..500 {
                let answers = sources
                    .iter()
                    .filter(|(name, _)| !walk.is_done(name))
                    .map(|(name, records)| (name.clone(), page(records, walk.place(name), limit)))
                    .collect();
                let shown = walk.merge(answers, limit);
                prop_assert!(shown.len() <= limit);
                seen.extend(shown.iter().map(|(_, r)| (r.at.as_nanos(), r.body.clone())));
                if !walk.unfinished(&[]) {
                    break;
                }
                walk = serde_json::from_str(&serde_json::to_string(&walk.to_continue()).unwrap()).unwrap();
            }
            prop_assert!(seen.windows(2).all(|pair| pair[0].0 >= pair[1].0), "newest first over all pages");
            let mut got: Vec<String> = seen.into_iter().map(|(_, body)| body).collect();
            let mut want: Vec<String> = sources.iter().flat_map(|(_, r)| r.iter().map(|r| r.body.clone())).collect();
            got.sort();
            want.sort();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn only_direct_repetitions_fold() {
        let folded = fold(vec![record(5, "x"), record(4, "x"), record(3, "y"), record(2, "x")]);
        let shape: Vec<(&str, u64)> = folded.iter().map(|f| (f.newest.body.as_str(), f.count)).collect();
        assert_eq!(shape, [("x", 2), ("y", 1), ("x", 1)]);
        assert_eq!(folded[0].oldest_at, Timestamp::from_seconds(4));
    }
}

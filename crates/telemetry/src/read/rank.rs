//! The newest or oldest rows of many, in bounded memory, in an order that does not depend on how rows are stored.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::RecordBatch;

use crate::error::Result;

/// Which rows are kept.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Position of the time column in the batches.
    pub(crate) time: usize,
    /// Positions of text columns that decide between rows of the same time.
    pub(crate) ties: Vec<usize>,
    /// Whether the newest come first.
    pub(crate) newest_first: bool,
}

/// Keeps the first rows in order.
#[derive(Debug)]
pub(crate) struct FirstRows {
    order: Order,
    keep: usize,
    batches: Vec<RecordBatch>,
    rows: usize,
    seen: u64,
}

impl FirstRows {
    /// Keeps `keep` rows.
    pub(crate) fn new(order: Order, keep: usize) -> Self {
        Self { order, keep, batches: Vec::new(), rows: 0, seen: 0 }
    }

    /// Adds rows.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.seen += batch.num_rows() as u64;
        self.rows += batch.num_rows();
        self.batches.push(batch.clone());
        if self.rows > 4 * self.keep + 65_536 {
            self.shrink()?;
        }
        Ok(())
    }

    /// Adds the rows another thread kept.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.seen += other.seen;
        self.rows += other.rows;
        self.batches.extend(other.batches);
    }

    /// Rows added in all.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// The kept rows in order, in one batch.
    pub(crate) fn finish(mut self) -> Result<Option<RecordBatch>> {
        self.shrink()?;
        Ok(self.batches.pop())
    }

    fn shrink(&mut self) -> Result<()> {
        let mut picks: Vec<(usize, usize)> =
            self.batches.iter().enumerate().flat_map(|(b, batch)| (0..batch.num_rows()).map(move |row| (b, row))).collect();
        if picks.is_empty() {
            self.batches.clear();
            return Ok(());
        }
        let compare = |a: &(usize, usize), b: &(usize, usize)| self.compare(*a, *b);
        if picks.len() > self.keep && self.keep > 0 {
            picks.select_nth_unstable_by(self.keep - 1, compare);
        }
        picks.truncate(self.keep);
        picks.sort_by(compare);
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let kept = interleave_record_batch(&batches, &picks)?;
        self.rows = kept.num_rows();
        self.batches = vec![compact(&kept)?];
        Ok(())
    }

    fn compare(&self, a: (usize, usize), b: (usize, usize)) -> Ordering {
        let (left, right) = (&self.batches[a.0], &self.batches[b.0]);
        let time = |batch: &RecordBatch, row| batch.column(self.order.time).as_primitive::<TimestampNanosecondType>().value(row);
        let order = time(left, a.1).cmp(&time(right, b.1));
        let order = if self.order.newest_first { order.reverse() } else { order };
        order.then_with(|| {
            self.order
                .ties
                .iter()
                .fold(Ordering::Equal, |order, column| order.then_with(|| compare_cells(left, a.1, right, b.1, *column)))
        })
    }
}

fn compare_cells(left: &RecordBatch, a: usize, right: &RecordBatch, b: usize, column: usize) -> Ordering {
    let (left, right) = (left.column(column), right.column(column));
    if let (Some(x), Some(y)) = (left.as_string_view_opt(), right.as_string_view_opt()) {
        return x.value(a).cmp(y.value(b));
    }
    if let (Some(x), Some(y)) = (left.as_fixed_size_binary_opt(), right.as_fixed_size_binary_opt()) {
        let cell = |array: &arrow::array::FixedSizeBinaryArray, row| array.is_valid(row).then(|| array.value(row).to_vec());
        return cell(x, a).cmp(&cell(y, b));
    }
    Ordering::Equal
}

/// Copies text out of the pages it was read from, so that a few kept rows do not keep megabytes.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| match column.as_string_view_opt() {
            Some(view) => std::sync::Arc::new(view.gc()),
            None => std::sync::Arc::clone(column),
        })
        .collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

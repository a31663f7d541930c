//! Puts the rows of the write buffer into a table's order and yields them in stretches of one granule.

use arrow::array::{AsArray, PrimitiveArray, StringViewArray};
use arrow::compute::{interleave_record_batch, take};
use arrow::datatypes::{TimestampNanosecondType, UInt32Type};
use arrow::record_batch::RecordBatch;

use super::index::GRANULE_ROWS;
use crate::error::Result;
use crate::memory::MemoryView;
use crate::schema::{Stored, Table};

const DAY_NANOS: i64 = 86_400_000_000_000;
/// Rows of more days than this (a replay of old data, or nonsense) go into one segment rather than many tiny ones.
const MOST_DAYS: usize = 8;

/// Where a row is and what it is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    ranks: [u32; 4],
    time: i64,
    batch: u32,
    row: u32,
}

/// Rows of one table in order, divided by UTC day.
pub(crate) struct SortedRows<'a> {
    table: Table,
    view: &'a MemoryView,
    parts: Vec<Vec<RowKey>>,
}

impl<'a> SortedRows<'a> {
    /// Sorts a look at the buffer.
    pub(crate) fn new(table: Table, view: &'a MemoryView) -> Self {
        let ranks: Vec<Vec<u32>> = table.sort_words().iter().map(|column| ranks_of(*column, view)).collect();
        let mut keys = Vec::with_capacity(view.rows.rows());
        for (number, batch) in view.rows.batches.iter().enumerate() {
            let times: &PrimitiveArray<TimestampNanosecondType> = batch.column(table.time_column()).as_primitive();
            let words: Vec<_> =
                table.sort_words().iter().map(|c| batch.column(*c).as_primitive::<UInt32Type>().values().clone()).collect();
            for (row, time) in times.values().iter().enumerate() {
                let mut key = RowKey { ranks: [0; 4], time: *time, batch: number as u32, row: row as u32 };
                for ((rank, of), words) in key.ranks.iter_mut().zip(&ranks).zip(&words) {
                    *rank = of[words[row] as usize];
                }
                keys.push(key);
            }
        }
        keys.sort_unstable();
        Self { table, view, parts: by_day(keys) }
    }

    /// Number of parts; each becomes one segment.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Hands the rows of one part to `visit`, in order, in the row schema.
    pub(crate) fn for_each(&self, part: usize, mut visit: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let batches: Vec<&RecordBatch> = self.view.rows.batches.iter().collect();
        for chunk in self.parts[part].chunks(GRANULE_ROWS) {
            let picks: Vec<(usize, usize)> = chunk.iter().map(|k| (k.batch as usize, k.row as usize)).collect();
            let rows = interleave_record_batch(&batches, &picks)?;
            visit(&to_rows(self.table, &rows, &self.view.words)?)?;
        }
        Ok(())
    }
}

/// Rank in text order of every word a column uses, by word number.
fn ranks_of(column: usize, view: &MemoryView) -> Vec<u32> {
    let count = arrow::array::Array::len(view.words.as_ref());
    let mut used = vec![false; count];
    for batch in &view.rows.batches {
        for number in batch.column(column).as_primitive::<UInt32Type>().values() {
            used[*number as usize] = true;
        }
    }
    let mut numbers: Vec<usize> = (0..count).filter(|n| used[*n]).collect();
    numbers.sort_unstable_by(|a, b| view.words.value(*a).cmp(view.words.value(*b)));
    let mut ranks = vec![0; count];
    for (rank, number) in numbers.into_iter().enumerate() {
        ranks[number] = rank as u32;
    }
    ranks
}

fn by_day(keys: Vec<RowKey>) -> Vec<Vec<RowKey>> {
    let day = |key: &RowKey| key.time.div_euclid(DAY_NANOS);
    let mut days: Vec<i64> = keys.iter().map(day).collect();
    days.sort_unstable();
    days.dedup();
    if days.len() <= 1 || days.len() > MOST_DAYS {
        return vec![keys];
    }
    days.iter().map(|d| keys.iter().filter(|k| day(k) == *d).copied().collect()).collect()
}

/// Rows of the buffer in the row schema.
pub(crate) fn to_rows(table: Table, rows: &RecordBatch, words: &StringViewArray) -> Result<RecordBatch> {
    let columns =
        (0..table.columns().len()).map(|at| column_to_rows(table, at, rows.column(at), words)).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(table.row_schema(), columns)?)
}

/// One column of the buffer in the form of the row schema.
pub(crate) fn column_to_rows(
    table: Table,
    at: usize,
    array: &arrow::array::ArrayRef,
    words: &StringViewArray,
) -> Result<arrow::array::ArrayRef> {
    Ok(match table.columns()[at].stored {
        Stored::Word => take(words, array, None)?,
        Stored::Text => std::sync::Arc::new(StringViewArray::from(array.as_string::<i32>())),
        _ => std::sync::Arc::clone(array),
    })
}

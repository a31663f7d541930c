//! Merges sorted streams of rows into one, holding one batch of each.

use std::cmp::Ordering;

use arrow::array::AsArray;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::RecordBatch;

use super::index::GRANULE_ROWS;
use crate::error::Result;
use crate::schema::Table;

/// A sorted stream of rows in the row schema.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

struct Cursor {
    rows: Rows,
    batch: Option<RecordBatch>,
    slot: usize,
    row: usize,
}

impl Cursor {
    fn advance(&mut self) -> Result<bool> {
        self.row = 0;
        loop {
            match self.rows.next().transpose()? {
                Some(batch) if batch.num_rows() == 0 => {}
                other => {
                    self.batch = other;
                    return Ok(self.batch.is_some());
                }
            }
        }
    }
}

/// Merges `inputs` and hands the rows to `visit` in order.
pub(crate) fn merge(table: Table, inputs: Vec<Rows>, mut visit: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
    let mut cursors = Vec::with_capacity(inputs.len());
    for rows in inputs {
        let mut cursor = Cursor { rows, batch: None, slot: 0, row: 0 };
        if cursor.advance()? {
            cursors.push(cursor);
        }
    }
    let mut held: Vec<RecordBatch> = Vec::new();
    let mut picks: Vec<(usize, usize)> = Vec::with_capacity(GRANULE_ROWS);
    hold(&mut cursors, &mut held);
    while !cursors.is_empty() {
        let least = least(table, &cursors, &held);
        let slot = cursors[least].slot;
        let end = stretch(table, &cursors, &held, least, GRANULE_ROWS - picks.len());
        picks.extend((cursors[least].row..end).map(|row| (slot, row)));
        cursors[least].row = end;
        if end == held[slot].num_rows() {
            if cursors[least].advance()? {
                cursors[least].slot = held.len();
                held.extend(cursors[least].batch.clone());
            } else {
                cursors.swap_remove(least);
            }
        }
        if picks.len() == GRANULE_ROWS {
            emit(&held, &mut picks, &mut visit)?;
            hold(&mut cursors, &mut held);
        }
    }
    emit(&held, &mut picks, &mut visit)
}

fn emit(held: &[RecordBatch], picks: &mut Vec<(usize, usize)>, visit: &mut impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
    if !picks.is_empty() {
        let batches: Vec<&RecordBatch> = held.iter().collect();
        visit(&interleave_record_batch(&batches, picks)?)?;
        picks.clear();
    }
    Ok(())
}

/// Keeps only the batches the cursors stand in.
fn hold(cursors: &mut [Cursor], held: &mut Vec<RecordBatch>) {
    held.clear();
    for cursor in cursors {
        cursor.slot = held.len();
        held.extend(cursor.batch.clone());
    }
}

fn least(table: Table, cursors: &[Cursor], held: &[RecordBatch]) -> usize {
    let mut best = 0;
    for at in 1..cursors.len() {
        let (a, b) = (&cursors[at], &cursors[best]);
        if compare(table, (&held[a.slot], a.row), (&held[b.slot], b.row)) == Ordering::Less {
            best = at;
        }
    }
    best
}

/// End of the rows of cursor `of` that come before every other cursor, at most `most` of them.
fn stretch(table: Table, cursors: &[Cursor], held: &[RecordBatch], of: usize, most: usize) -> usize {
    let cursor = &cursors[of];
    let batch = &held[cursor.slot];
    let last = batch.num_rows().min(cursor.row + most);
    let before_all = |row: usize| {
        cursors
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != of)
            .all(|(_, other)| compare(table, (batch, row), (&held[other.slot], other.row)) != Ordering::Greater)
    };
    // Galloping: streams of different times hardly interleave, so long stretches are common.
    let (mut low, mut step) = (cursor.row + 1, 1);
    while low + step <= last && before_all(low + step - 1) {
        low += step;
        step *= 2;
    }
    let mut high = (low + step - 1).min(last);
    while low < high {
        let middle = low + (high - low) / 2;
        if before_all(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

fn compare(table: Table, (a, i): (&RecordBatch, usize), (b, j): (&RecordBatch, usize)) -> Ordering {
    for column in table.sort_words() {
        let order = a.column(*column).as_string_view().value(i).cmp(b.column(*column).as_string_view().value(j));
        if order != Ordering::Equal {
            return order;
        }
    }
    let time = |batch: &RecordBatch, row| batch.column(table.time_column()).as_primitive::<TimestampNanosecondType>().value(row);
    time(a, i).cmp(&time(b, j))
}

//! Rows that are acknowledged but not yet in a segment. Queryable at once; bounded by the store, not here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray, StringViewArray, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{TimestampNanosecondType, UInt32Type};
use arrow::record_batch::RecordBatch;

use crate::convert::Converted;
use crate::error::Result;
use crate::schema::{Stored, Table};
use crate::words::Words;

/// Batches below this many rows are merged with their neighbours, so that single-record requests stay cheap.
const MERGE_BELOW_ROWS: usize = 16_384;

/// Rows of one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableRows {
    /// In the memory schema, in order of arrival.
    pub(crate) batches: Vec<RecordBatch>,
    /// Earliest time.
    pub(crate) min_time: i64,
    /// Latest time.
    pub(crate) max_time: i64,
}

impl TableRows {
    /// Rows in all.
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// The write buffer of one tenant and one generation of the write-ahead log.
#[derive(Debug)]
pub(crate) struct MemoryTable {
    tables: BTreeMap<Table, TableRows>,
    words: Words,
    words_view: Mutex<Option<Arc<StringViewArray>>>,
    bytes: usize,
    since: Instant,
}

impl Default for MemoryTable {
    fn default() -> Self {
        Self { tables: BTreeMap::new(), words: Words::default(), words_view: Mutex::new(None), bytes: 0, since: Instant::now() }
    }
}

/// A consistent look at one table of the buffer.
#[derive(Debug, Clone)]
pub(crate) struct MemoryView {
    /// The rows.
    pub(crate) rows: TableRows,
    /// Texts by number.
    pub(crate) words: Arc<StringViewArray>,
}

impl MemoryTable {
    /// Adds the rows of one request.
    pub(crate) fn insert(&mut self, converted: Converted) -> Result<()> {
        let before = self.words.bytes();
        let map = self.words.absorb(&converted.words);
        self.bytes += self.words.bytes() - before;
        for (table, batch) in converted.batches {
            let batch = renumber(table, &batch, &map)?;
            self.bytes += batch_bytes(&batch);
            let (low, high) = time_range(table, &batch);
            let rows = self.tables.entry(table).or_insert_with(|| TableRows {
                batches: Vec::new(),
                min_time: i64::MAX,
                max_time: i64::MIN,
            });
            rows.min_time = rows.min_time.min(low);
            rows.max_time = rows.max_time.max(high);
            rows.batches.push(batch);
            merge_tail(table, &mut rows.batches)?;
        }
        Ok(())
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When it began.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Tables with rows.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (Table, &TableRows)> {
        self.tables.iter().map(|(table, rows)| (*table, rows))
    }

    /// Rows of one table, with the texts they refer to.
    pub(crate) fn view(&self, table: Table) -> Result<Option<MemoryView>> {
        let Some(rows) = self.tables.get(&table) else { return Ok(None) };
        let mut cached = self.words_view.lock().unwrap_or_else(PoisonError::into_inner);
        let words = match cached.as_ref().filter(|view| arrow::array::Array::len(view.as_ref()) == self.words.len()) {
            Some(view) => Arc::clone(view),
            None => Arc::clone(cached.insert(Arc::new(self.words.view()?))),
        };
        Ok(Some(MemoryView { rows: rows.clone(), words }))
    }
}

fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>() + 2048
}

fn time_range(table: Table, batch: &RecordBatch) -> (i64, i64) {
    let times: &PrimitiveArray<TimestampNanosecondType> = batch.column(table.time_column()).as_primitive();
    times.values().iter().fold((i64::MAX, i64::MIN), |(low, high), at| (low.min(*at), high.max(*at)))
}

fn renumber(table: Table, batch: &RecordBatch, map: &[u32]) -> Result<RecordBatch> {
    let columns = table
        .columns()
        .iter()
        .zip(batch.columns())
        .map(|(column, array)| match column.stored {
            Stored::Word => {
                let numbers: &UInt32Array = array.as_primitive::<UInt32Type>();
                let mapped: Vec<u32> =
                    numbers.values().iter().map(|n| map.get(*n as usize).copied().unwrap_or_default()).collect();
                Arc::new(UInt32Array::from(mapped)) as ArrayRef
            }
            _ => Arc::clone(array),
        })
        .collect();
    Ok(RecordBatch::try_new(table.memory_schema(), columns)?)
}

/// Merges the newest batches while they are of similar size: every row is copied a logarithmic number of times.
fn merge_tail(table: Table, batches: &mut Vec<RecordBatch>) -> Result<()> {
    let mut keep = batches.len();
    let mut rows = 0;
    for at in (0..batches.len()).rev() {
        let next = batches[at].num_rows();
        if at + 1 < batches.len() && (next > rows || next + rows > MERGE_BELOW_ROWS) {
            break;
        }
        rows += next;
        keep = at;
    }
    if batches.len() - keep > 1 {
        let merged = concat_batches(&table.memory_schema(), &batches[keep..])?;
        batches.truncate(keep);
        batches.push(merged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::OtlpRequest;
    use crate::settings::RecordLimits;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

    #[test]
    fn single_records_do_not_stay_single_batches() {
        let mut buffer = MemoryTable::default();
        for at in 1..=1000_u64 {
            let record = LogRecord { time_unix_nano: at, ..LogRecord::default() };
            let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
            let request = ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }],
            };
            buffer.insert(OtlpRequest::Logs(request).convert(&RecordLimits::default(), 1_000_000).unwrap()).unwrap();
        }
        let view = buffer.view(Table::Logs).unwrap().unwrap();
        assert_eq!(view.rows.rows(), 1000);
        assert_eq!((view.rows.min_time, view.rows.max_time), (1, 1000));
        assert!(view.rows.batches.len() <= 12, "{}", view.rows.batches.len());
    }
}

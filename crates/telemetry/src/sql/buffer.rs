//! Rows of the write buffer on their way to a statement's process: confined before they leave, and with no text but those
//! that these rows refer to.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, StringViewArray, StringViewBuilder, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::{Result, StoreError};
use crate::schema::{Stored, Table};
use crate::segment::sort::column_to_rows;

/// Columns of rows of the buffer as two frames: the texts that words are numbers of, and the rows.
pub(super) fn pack(table: Table, columns: &[usize], rows: &RecordBatch, words: &StringViewArray) -> Result<[Vec<u8>; 2]> {
    let mut texts = StringViewBuilder::new();
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    let mut number = |old: u32| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(old).or_insert_with(|| {
            texts.append_value(words.value(old as usize));
            next
        })
    };
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|at| match table.columns()[*at].stored {
            Stored::Word => {
                let old = rows.column(*at).as_primitive::<UInt32Type>().values();
                Arc::new(UInt32Array::from_iter_values(old.iter().map(|old| number(*old)))) as ArrayRef
            }
            _ => Arc::clone(rows.column(*at)),
        })
        .collect();
    let texts: ArrayRef = Arc::new(texts.finish());
    let texts_schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8View, false)]));
    let texts = RecordBatch::try_new(texts_schema, vec![texts])?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::new(table.memory_schema().project(columns)?), arrays, &options)?;
    Ok([written(&texts)?, written(&rows)?])
}

/// The rows again, in the form every scan yields.
pub(super) fn unpack(table: Table, columns: &[usize], frames: &[Vec<u8>; 2]) -> Result<RecordBatch> {
    let [texts, rows] = [&frames[0], &frames[1]].map(|frame| read(frame));
    let (texts, rows) = (texts?, rows?);
    let words = texts.column(0).as_string_view();
    let arrays = columns
        .iter()
        .zip(rows.columns())
        .map(|(at, array)| column_to_rows(table, *at, array, words))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(table.row_schema().project(columns)?), arrays, &options)?)
}

fn written(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

fn read(frame: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(frame, None)?;
    reader.next().unwrap_or_else(|| Ok(RecordBatch::new_empty(reader.schema()))).map_err(StoreError::from)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

    use super::*;
    use crate::convert::OtlpRequest;
    use crate::memory::MemoryTable;
    use crate::settings::RecordLimits;

    #[test]
    fn rows_come_out_as_they_went_in_and_take_no_other_text_with_them() {
        let body = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.into())) });
        let log_records = ["a cat", "a dog"]
            .map(|text| LogRecord {
                time_unix_nano: 5,
                body: body(text),
                severity_text: text.replace("a ", "severe "),
                ..LogRecord::default()
            })
            .to_vec();
        let scope = ScopeLogs { log_records, ..ScopeLogs::default() };
        let request =
            ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }] };
        let mut memory = MemoryTable::default();
        memory.insert(OtlpRequest::Logs(request).convert(&RecordLimits::default(), 1_000_000).unwrap()).unwrap();
        let view = memory.view(Table::Logs).unwrap().unwrap();
        let columns: Vec<usize> = (0..Table::Logs.columns().len()).collect();
        let first = view.rows.batches[0].slice(0, 1);
        let frames = pack(Table::Logs, &columns, &first, &view.words).unwrap();
        for frame in &frames {
            let holds = |text: &str| frame.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!holds("dog"), "only what the rows refer to is handed over");
        }
        let back = unpack(Table::Logs, &columns, &frames).unwrap();
        assert_eq!(back.num_rows(), 1);
        let text = format!("{back:?}");
        assert!(text.contains("a cat") && text.contains("severe cat"), "{text}");
    }
}

//! Results of SQL as JSON values, cut at a number of rows and bytes, and saying so.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use serde_json::Value;

use crate::error::{Result, StoreError};

/// Rows written at once.
const PART_ROWS: usize = 64;

/// Rows gathered so far.
pub(super) struct Rows {
    schema: SchemaRef,
    times: Vec<bool>,
    row_limit: usize,
    byte_limit: usize,
    bytes: usize,
    gathered: Vec<Vec<Value>>,
    truncated: bool,
}

impl Rows {
    pub(super) fn new(schema: &Schema, row_limit: usize, byte_limit: usize) -> Self {
        // Columns by number: names may repeat in a result.
        let numbered: Vec<Field> =
            schema.fields().iter().enumerate().map(|(at, f)| Field::new(at.to_string(), f.data_type().clone(), true)).collect();
        Self {
            schema: Arc::new(Schema::new(numbered)),
            times: schema.fields().iter().map(|f| matches!(f.data_type(), DataType::Timestamp(_, None))).collect(),
            row_limit,
            byte_limit,
            bytes: 0,
            gathered: Vec::new(),
            truncated: false,
        }
    }

    /// Adds rows; says whether more are wanted.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<bool> {
        let left = self.row_limit - self.gathered.len();
        let most = batch.num_rows().min(left);
        self.truncated |= batch.num_rows() > left;
        for start in (0..most).step_by(PART_ROWS) {
            let part = batch.slice(start, (most - start).min(PART_ROWS));
            if self.part(&part)? {
                continue;
            }
            // Some of these rows still fit.
            for row in 0..part.num_rows() {
                if !self.part(&part.slice(row, 1))? {
                    break;
                }
            }
            if self.gathered.is_empty() {
                return Err(StoreError::Invalid(format!(
                    "one row of the result takes more than {} bytes; select fewer columns, or shorten them, such as with left(Body, 200)",
                    self.byte_limit
                )));
            }
            self.truncated = true;
            return Ok(false);
        }
        Ok(!self.truncated)
    }

    /// Adds rows if all of them fit; says whether they do.
    fn part(&mut self, batch: &RecordBatch) -> Result<bool> {
        if batch.num_columns() == 0 {
            self.gathered.extend(std::iter::repeat_n(Vec::new(), batch.num_rows()));
            return Ok(true);
        }
        let numbered = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?;
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
        writer.write(&numbered)?;
        writer.finish()?;
        let text = writer.into_inner();
        if self.bytes + text.len() > self.byte_limit {
            return Ok(false);
        }
        self.bytes += text.len();
        let objects: Vec<serde_json::Map<String, Value>> = serde_json::from_slice(&text)
            .map_err(|e| StoreError::Invalid(format!("the result could not be written as JSON: {e}")))?;
        let rows: Vec<Vec<Value>> = objects.into_iter().map(|object| self.row(object)).collect();
        self.gathered.extend(rows);
        Ok(true)
    }

    fn row(&self, mut object: serde_json::Map<String, Value>) -> Vec<Value> {
        self.times
            .iter()
            .enumerate()
            .map(|(at, is_time)| match object.remove(&at.to_string()).unwrap_or(Value::Null) {
                // Times are UTC; without the sign of it a reader would have to guess.
                Value::String(text) if *is_time => Value::String(text + "Z"),
                value => value,
            })
            .collect()
    }

    /// The rows, and whether there were more.
    pub(super) fn finish(self) -> (Vec<Vec<Value>>, bool) {
        (self.gathered, self.truncated)
    }
}

/// A type's name for people.
pub(super) fn kind(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Map(..) => "map".into(),
        DataType::List(field) | DataType::LargeList(field) => format!("list of {}", self::kind(field.data_type())),
        DataType::Struct(_) => "struct".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float64 | DataType::Float32 => "float".into(),
        DataType::Dictionary(_, values) => self::kind(values),
        other if other.is_integer() => "integer".into(),
        other => other.to_string().to_lowercase(),
    }
}

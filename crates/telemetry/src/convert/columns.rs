//! Growing columns that become Arrow arrays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, StringArray, TimestampNanosecondArray, UInt8Array,
    UInt32Array, UInt64Array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use crate::error::Result;

/// Text, one after the other.
#[derive(Debug)]
pub(super) struct TextColumn {
    text: String,
    offsets: Vec<i32>,
}

impl Default for TextColumn {
    fn default() -> Self {
        Self { text: String::new(), offsets: vec![0] }
    }
}

impl TextColumn {
    /// Where the next text is written; [`Self::end`] closes it.
    pub(super) fn open(&mut self) -> &mut String {
        &mut self.text
    }

    /// Closes the text written since the last call.
    pub(super) fn end(&mut self) {
        self.offsets.push(self.text.len() as i32);
    }

    /// Takes back what was written since the last [`Self::end`].
    pub(super) fn abandon(&mut self) {
        let keep = self.offsets.last().map_or(0, |end| *end as usize);
        self.text.truncate(keep);
    }

    /// Bytes written since the last [`Self::end`].
    pub(super) fn pending(&self) -> usize {
        self.text.len() - self.offsets.last().map_or(0, |end| *end as usize)
    }

    /// Adds one text.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.end();
    }

    /// The array.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.text.into_bytes()), None)?))
    }
}

/// Ids of `N` bytes, or absent.
#[derive(Debug, Default)]
pub(super) struct IdColumn<const N: usize> {
    bytes: Vec<u8>,
    present: Vec<bool>,
}

impl<const N: usize> IdColumn<N> {
    /// Adds an id; empty or all zero means absent. Any other length must have been refused before.
    pub(super) fn push(&mut self, id: &[u8]) {
        let present = id.len() == N && id.iter().any(|b| *b != 0);
        if present {
            self.bytes.extend_from_slice(id);
        } else {
            self.bytes.resize(self.bytes.len() + N, 0);
        }
        self.present.push(present);
    }

    /// The array.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        let rows = self.present.len();
        let nulls = NullBuffer::from(self.present);
        let array = if rows == 0 {
            FixedSizeBinaryArray::new_null(N as i32, 0)
        } else {
            FixedSizeBinaryArray::try_new(N as i32, Buffer::from_vec(self.bytes), Some(nulls))?
        };
        Ok(Arc::new(array))
    }
}

/// Whether `id` has the right length or is absent.
pub(super) fn id_fits<const N: usize>(id: &[u8]) -> bool {
    id.is_empty() || id.len() == N
}

pub(super) fn times(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(values))
}

pub(super) fn words(values: Vec<u32>) -> ArrayRef {
    Arc::new(UInt32Array::from(values))
}

pub(super) fn u8s(values: Vec<u8>) -> ArrayRef {
    Arc::new(UInt8Array::from(values))
}

pub(super) fn i32s(values: Vec<i32>) -> ArrayRef {
    Arc::new(Int32Array::from(values))
}

pub(super) fn u64s(values: Vec<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

pub(super) fn f64s(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

pub(super) fn bools(values: Vec<bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(values))
}

//! Opens segments for reading and keeps a bounded number of them open. Reads are positioned, so threads share files.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{ChunkReader, Length};

use super::Segment;
use super::index::{GRANULE_ROWS, IndexFile};
use super::merge::Rows;
use crate::error::{Result, StoreError};

/// Segments kept open; each holds two file descriptors and some tens of kilobytes.
const OPEN_SEGMENTS: usize = 192;

/// Bytes of a batch of rows, about.
const BATCH_BYTES: usize = 16 << 20;

/// Bytes of filter columns kept to be shown again; the rest is decoded twice.
const PREDICATE_CACHE_BYTES: usize = 4 << 20;

/// A file read at positions.
#[derive(Debug, Clone)]
struct SharedFile {
    file: Arc<File>,
    length: u64,
}

/// A reader that starts somewhere in a [`SharedFile`].
struct SharedRead {
    file: Arc<File>,
    at: u64,
}

impl Read for SharedRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for SharedFile {
    type T = std::io::BufReader<SharedRead>;

    fn get_read(&self, start: u64) -> std::result::Result<Self::T, ParquetError> {
        Ok(std::io::BufReader::new(SharedRead { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, start)?;
        Ok(buffer.into())
    }
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    /// Its index.
    pub(crate) index: IndexFile,
    file: SharedFile,
    metadata: ArrowReaderMetadata,
    /// First row of every row group, and the number of rows behind the last.
    row_groups: Vec<usize>,
    // Keeps the files from being removed while they are read.
    _segment: Arc<Segment>,
}

impl SegmentReader {
    /// Opens a segment and checks that data and index belong together.
    pub(crate) fn open(segment: &Arc<Segment>) -> Result<Self> {
        let index = IndexFile::open(&segment.index_path())?;
        let path = segment.data_path();
        let file = File::open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        let length = file.metadata().map_err(|e| StoreError::io("open", &path, e))?.len();
        let file = SharedFile { file: Arc::new(file), length };
        let options = ArrowReaderOptions::new()
            .with_schema(segment.table.row_schema())
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let metadata = ArrowReaderMetadata::load(&file, options)?;
        let mut row_groups = vec![0];
        for group in metadata.metadata().row_groups() {
            row_groups.push(row_groups.last().copied().unwrap_or(0) + group.num_rows() as usize);
        }
        let indexed: usize = index.index.granules.iter().map(|g| g.rows as usize).sum();
        if row_groups.last() != Some(&indexed) {
            return Err(StoreError::damaged(&path, format!("its index speaks of {indexed} rows")));
        }
        Ok(Self { index, file, metadata, row_groups, _segment: Arc::clone(segment) })
    }

    /// The row groups that hold rows of `range`, each with the part of the range inside it, relative to its first row.
    pub(crate) fn locate(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        self.row_groups.windows(2).enumerate().filter_map(move |(group, bounds)| {
            let (start, end) = (range.start.max(bounds[0]), range.end.min(bounds[1]));
            (start < end).then(|| (group, start - bounds[0]..end - bounds[0]))
        })
    }

    /// A mask over columns by position.
    pub(crate) fn mask(&self, columns: &[usize]) -> ProjectionMask {
        ProjectionMask::leaves(self.metadata.parquet_schema(), columns.iter().copied())
    }

    /// Reads `ranges` of a row group.
    pub(crate) fn read(
        &self,
        group: usize,
        ranges: &[Range<usize>],
        columns: &[usize],
        filter: Option<RowFilter>,
    ) -> Result<ParquetRecordBatchReader> {
        let rows = self.row_groups[group + 1] - self.row_groups[group];
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_batch_size(self.batch_rows(group))
            .with_row_groups(vec![group])
            .with_max_predicate_cache_size(PREDICATE_CACHE_BYTES)
            .with_projection(self.mask(columns));
        if !matches!(ranges, [only] if *only == (0..rows)) {
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges.iter().cloned(), rows));
        }
        if let Some(filter) = filter {
            builder = builder.with_row_filter(filter);
        }
        Ok(builder.build()?)
    }

    /// Rows read at once: fewer where rows are long, so that a batch stays within a few megabytes.
    fn batch_rows(&self, group: usize) -> usize {
        let bytes = usize::try_from(self.metadata.metadata().row_group(group).total_byte_size()).unwrap_or(0);
        let rows = self.row_groups[group + 1] - self.row_groups[group];
        let per_row = (bytes / rows.max(1)).max(1);
        (BATCH_BYTES / per_row).clamp(64, GRANULE_ROWS)
    }

    /// Every row in order.
    pub(crate) fn all_rows(&self, segment: &Arc<Segment>) -> Result<Rows> {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_batch_size((0..self.row_groups.len() - 1).map(|g| self.batch_rows(g)).min().unwrap_or(GRANULE_ROWS))
            .build()?;
        let schema = segment.table.row_schema();
        Ok(Box::new(reader.map(move |batch| {
            let batch = batch?;
            Ok(RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?)
        })))
    }
}

/// Open segments, least recently used closed first.
#[derive(Debug, Default)]
pub(crate) struct ReaderCache {
    inner: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    clock: u64,
    open: HashMap<u64, (Arc<SegmentReader>, u64)>,
}

impl ReaderCache {
    /// The open segment.
    pub(crate) fn get(&self, segment: &Arc<Segment>) -> Result<Arc<SegmentReader>> {
        let id = segment.meta.id;
        {
            let mut state = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            state.clock += 1;
            let now = state.clock;
            if let Some((reader, used)) = state.open.get_mut(&id) {
                *used = now;
                return Ok(Arc::clone(reader));
            }
        }
        let reader = Arc::new(SegmentReader::open(segment)?);
        let mut state = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        if state.open.len() >= OPEN_SEGMENTS
            && let Some(oldest) = state.open.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id)
        {
            state.open.remove(&oldest);
        }
        state.open.insert(id, (Arc::clone(&reader), now));
        Ok(reader)
    }

    /// Closes a segment that ended.
    pub(crate) fn forget(&self, id: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&id);
    }
}

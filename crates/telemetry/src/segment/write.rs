//! Writes one segment from sorted rows: temporary files, fsync, rename, fsync of the directory. Nothing here makes a
//! segment live; the catalogue does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, StringViewArray};
use arrow::datatypes::TimestampNanosecondType;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use portcullis_model::TenantId;

use super::index::{GRANULE_ROWS, Granule, Index, ServiceSeen};
use super::{SegmentMeta, bloom, data_path, index_path};
use crate::error::{Result, StoreError};
use crate::files;
use crate::schema::{Stored, Table};
use crate::wal::sync_directory;

/// Rows of a row group at most.
const ROW_GROUP_ROWS: usize = 262_144;
/// A granule with at least this many rows ends where its service (or metric) ends.
const SPLIT_ROWS: usize = 1_024;

/// Writes one segment.
pub(crate) struct SegmentWriter {
    writer: ArrowWriter<File>,
    table: Table,
    id: u64,
    tenant: TenantId,
    directory: PathBuf,
    index: IndexBuilder,
    unfinished: Unfinished,
}

/// Temporary files that are removed unless the segment is finished.
struct Unfinished(Vec<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for path in &self.0 {
            // One that is still there is removed at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl SegmentWriter {
    /// Begins a segment in the directory of its table.
    pub(crate) fn create(directory: &Path, tenant: &TenantId, table: Table, id: u64, level: i32) -> Result<Self> {
        let path = temporary(&data_path(directory, id));
        let file = files::create(&path).map_err(|e| StoreError::io("create", &path, e))?;
        let options = ArrowWriterOptions::new().with_properties(properties(table, level)?).with_skip_arrow_metadata(true);
        Ok(Self {
            writer: ArrowWriter::try_new_with_options(file, table.row_schema(), options)?,
            table,
            id,
            tenant: tenant.clone(),
            directory: directory.to_owned(),
            index: IndexBuilder::default(),
            unfinished: Unfinished(vec![path]),
        })
    }

    /// Adds rows; they and all calls together must be in the table's order.
    pub(crate) fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        self.index.push(self.table, rows);
        Ok(self.writer.write(rows)?)
    }

    /// Makes the files durable under their names.
    pub(crate) fn finish(mut self) -> Result<SegmentMeta> {
        self.index.close();
        let (data, index) = (data_path(&self.directory, self.id), index_path(&self.directory, self.id));
        let temporary_data = temporary(&data);
        self.writer.finish()?;
        let file = self.writer.inner();
        file.sync_all().map_err(|e| StoreError::io("sync", &temporary_data, e))?;
        let size = file.metadata().map_err(|e| StoreError::io("read", &temporary_data, e))?.len();
        let (built, filters) = self.index.build();
        let bytes = built.encode(&filters)?;
        let temporary_index = temporary(&index);
        self.unfinished.0.push(temporary_index.clone());
        files::create(&temporary_index)
            .and_then(|mut f| f.write_all(&bytes).and_then(|()| f.sync_all()))
            .map_err(|e| StoreError::io("write", &temporary_index, e))?;
        for (from, to) in [(&temporary_index, &index), (&temporary_data, &data)] {
            std::fs::rename(from, to).map_err(|e| StoreError::io("rename", from, e))?;
        }
        sync_directory(&self.directory)?;
        self.unfinished.0.clear();
        Ok(SegmentMeta {
            id: self.id,
            tenant: self.tenant,
            table: self.table.name().to_owned(),
            rows: built.granules.iter().map(|g| u64::from(g.rows)).sum(),
            bytes: size + bytes.len() as u64,
            min_time: built.granules.iter().map(|g| g.min_time).min().unwrap_or(0),
            max_time: built.granules.iter().map(|g| g.max_time).max().unwrap_or(0),
        })
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

fn properties(table: Table, level: i32) -> Result<WriterProperties> {
    let zstd = |level| ZstdLevel::try_new(level).map(Compression::ZSTD);
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(zstd(level)?)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_write_page_header_statistics(false)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(GRANULE_ROWS)
        .set_data_page_size_limit(4 << 20)
        .set_write_batch_size(1024)
        .set_dictionary_page_size_limit(2 << 20);
    for column in table.columns() {
        let path = ColumnPath::from(column.name);
        builder = match column.stored {
            Stored::Word | Stored::U8 | Stored::U32 | Stored::I32 => builder.set_column_dictionary_enabled(path, true),
            Stored::Time | Stored::U64 => builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Stored::Text => builder.set_column_encoding(path, Encoding::DELTA_LENGTH_BYTE_ARRAY),
            // Ids are random bytes: the fastest level finds the rare repetition, more effort finds nothing.
            Stored::TraceId | Stored::SpanId => builder.set_column_compression(path, zstd(1)?),
            Stored::F64 | Stored::Bool => builder,
        };
    }
    for at in [table.time_column(), table.service_column()] {
        let path = ColumnPath::from(table.columns()[at].name);
        builder = builder.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
    }
    Ok(builder.build())
}

/// Collects the index while rows pass.
#[derive(Default)]
struct IndexBuilder {
    granules: Vec<Granule>,
    words: HashMap<String, u32>,
    texts: Vec<String>,
    services: BTreeMap<String, (i64, u64)>,
    metrics: BTreeSet<String>,
    filters: Vec<u8>,
    open: Option<OpenGranule>,
}

struct OpenGranule {
    rows: usize,
    min_time: i64,
    max_time: i64,
    service: (String, String),
    metric: (String, String),
    hashes: Vec<u64>,
}

/// Rows that agree in service and metric.
struct Run<'a> {
    service: &'a str,
    metric: &'a str,
}

impl IndexBuilder {
    fn push(&mut self, table: Table, rows: &RecordBatch) {
        let services = rows.column(table.service_column()).as_string_view();
        let metrics = table.metric_column().map(|at| rows.column(at).as_string_view());
        let times = rows.column(table.time_column()).as_primitive::<TimestampNanosecondType>().values();
        let traces = table.trace_column().map(|at| rows.column(at).as_fixed_size_binary());
        let mut at = 0;
        while at < rows.num_rows() {
            let run = Run { service: services.value(at), metric: metrics.map_or("", |m| m.value(at)) };
            let end = run_end(at, rows.num_rows(), services, metrics, &run);
            self.begin_run(&run, table);
            while at < end {
                let open = self.open_granule(&run);
                let take = (GRANULE_ROWS - open.rows).min(end - at);
                for time in &times[at..at + take] {
                    open.min_time = open.min_time.min(*time);
                    open.max_time = open.max_time.max(*time);
                }
                if let Some(traces) = traces {
                    let present = (at..at + take).filter(|row| traces.is_valid(*row));
                    open.hashes.extend(present.filter_map(|row| traces.value(row).try_into().ok().map(bloom::hash)));
                }
                open.rows += take;
                let full = open.rows == GRANULE_ROWS;
                let last = times[at..at + take].iter().copied().max().unwrap_or(i64::MIN);
                let seen = self.services.entry(run.service.to_owned()).or_insert((i64::MIN, 0));
                *seen = (seen.0.max(last), seen.1 + take as u64);
                if full {
                    self.close();
                }
                at += take;
            }
        }
    }

    /// Ends a granule that is large enough where the first sort word changes.
    fn begin_run(&mut self, run: &Run<'_>, table: Table) {
        if table.metric_column().is_some() && !self.metrics.contains(run.metric) {
            self.metrics.insert(run.metric.to_owned());
        }
        let split = self.open.as_ref().is_some_and(|open| {
            let changed = if table.metric_column().is_some() {
                open.metric.1 != run.metric || (open.service.1 != run.service && open.rows >= GRANULE_ROWS / 2)
            } else {
                open.service.1 != run.service
            };
            changed && open.rows >= SPLIT_ROWS
        });
        if split {
            self.close();
        }
    }

    fn open_granule(&mut self, run: &Run<'_>) -> &mut OpenGranule {
        let open = self.open.get_or_insert_with(|| OpenGranule {
            rows: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
            service: (run.service.to_owned(), run.service.to_owned()),
            metric: (run.metric.to_owned(), run.metric.to_owned()),
            hashes: Vec::new(),
        });
        for (range, value) in [(&mut open.service, run.service), (&mut open.metric, run.metric)] {
            if value < range.0.as_str() {
                value.clone_into(&mut range.0);
            }
            if value > range.1.as_str() {
                value.clone_into(&mut range.1);
            }
        }
        open
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        open.hashes.sort_unstable();
        open.hashes.dedup();
        let first = (self.filters.len() / bloom::BLOCK_BYTES) as u32;
        let blocks = bloom::build(&mut self.filters, &open.hashes);
        let granule = Granule {
            rows: open.rows as u32,
            min_time: open.min_time,
            max_time: open.max_time,
            service: (self.word(open.service.0), self.word(open.service.1)),
            metric: (self.word(open.metric.0), self.word(open.metric.1)),
            bloom: (first, blocks),
        };
        self.granules.push(granule);
    }

    fn word(&mut self, text: String) -> u32 {
        if let Some(number) = self.words.get(&text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.clone());
        self.words.insert(text, number);
        number
    }

    fn build(self) -> (Index, Vec<u8>) {
        let services = self.services.into_iter().map(|(name, (last, rows))| ServiceSeen { name, last, rows }).collect();
        let metrics = self.metrics.into_iter().collect();
        (Index { granules: self.granules, words: self.texts, services, metrics }, self.filters)
    }
}

/// End of the rows from `start` that agree with `run`.
fn run_end(start: usize, rows: usize, services: &StringViewArray, metrics: Option<&StringViewArray>, run: &Run<'_>) -> usize {
    let same = |array: &StringViewArray, at: usize, value: &str| {
        // Equal views into the same buffers are equal texts; only differing views need a look at the bytes.
        array.views()[at] == array.views()[start] || array.value(at) == value
    };
    (start + 1..rows)
        .find(|at| !same(services, *at, run.service) || metrics.is_some_and(|m| !same(m, *at, run.metric)))
        .unwrap_or(rows)
}

//! What a statement's process is given, and how it asks for rows: the segments it opens itself, by name; the rows of the write
//! buffer come over the line. Scans of one statement take turns on the line.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use portcullis_model::TenantId;
use portcullis_ports::SqlAnswer;

use super::buffer;
use super::line::{self, Asked, Rows, Scan, Wanted};
use crate::error::{Result, StoreError};
use crate::scan::{Filter, Snapshot};
use crate::schema::Table;
use crate::segment::read::ReaderCache;
use crate::segment::{Segment, table_directory};

/// What a statement reads from.
#[derive(Debug)]
pub(super) struct Desk {
    line: Mutex<Line>,
    root: PathBuf,
    readers: Arc<ReaderCache>,
    workers: Arc<rayon_core::ThreadPool>,
}

#[derive(Debug)]
struct Line {
    stream: UnixStream,
    scans: usize,
}

/// One scan under way.
pub(super) struct Given {
    pub(super) snapshot: Snapshot,
    /// Parts of the write buffer.
    pub(super) parts: usize,
    table: Table,
    columns: Vec<usize>,
    number: usize,
}

impl Desk {
    pub(super) fn new(stream: UnixStream, root: PathBuf) -> std::io::Result<Self> {
        // A scan of SQL reads with the thread it has.
        let workers = rayon_core::ThreadPoolBuilder::new().num_threads(1).build().map_err(std::io::Error::other)?;
        let line = Mutex::new(Line { stream, scans: 0 });
        Ok(Self { line, root, readers: Arc::default(), workers: Arc::new(workers) })
    }

    /// Begins a scan that needs `columns` (ascending) of what passes the filter.
    pub(super) fn scan(&self, tenant: &TenantId, table: Table, filter: &Filter, columns: &[usize]) -> Result<Given> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line::say(&mut line.stream, &Asked::Scan(Wanted::new(table.name(), filter, columns.to_vec()))).map_err(|e| broken(&e))?;
        let Scan { segments, parts } = line::hear(&mut line.stream).map_err(|e| broken(&e))?;
        let number = line.scans;
        line.scans += 1;
        drop(line);
        let directory = table_directory(&self.root, tenant, table);
        let segments = segments.into_iter().map(|meta| Segment::new(meta, table, directory.clone())).collect();
        let (readers, workers) = (Arc::clone(&self.readers), Arc::clone(&self.workers));
        let snapshot = Snapshot { table, segments, memory: Vec::new(), readers, workers };
        Ok(Given { snapshot, parts, table, columns: columns.to_vec(), number })
    }

    /// Rows of one part of the write buffer, in the form every scan yields; `None` when no row of it fits.
    pub(super) fn part(&self, given: &Given, part: usize) -> Result<Option<RecordBatch>> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = &mut line.stream;
        let mut ask = || -> std::io::Result<Option<[Vec<u8>; 2]>> {
            line::say(stream, &Asked::Rows { scan: given.number, part })?;
            let Rows { some } = line::hear(stream)?;
            Ok(if some { Some([line::read(stream)?, line::read(stream)?]) } else { None })
        };
        let frames = ask().map_err(|e| broken(&e))?;
        drop(line);
        frames.map(|frames| buffer::unpack(given.table, &given.columns, &frames)).transpose()
    }

    /// Says how it ended.
    pub(super) fn end(&self, outcome: Result<SqlAnswer>) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is left to be told when it fails.
        drop(line::say(&mut line.stream, &Asked::Done(outcome.into())));
    }
}

fn broken(error: &std::io::Error) -> StoreError {
    StoreError::Statement(format!("the server does not answer: {error}"))
}

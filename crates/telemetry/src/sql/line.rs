//! What a statement's process and the server say to each other: frames over one socket, each a length and that many bytes. A
//! frame is JSON, or a batch of rows in Arrow's own form. Must carry nothing that was not confined, except which segments of
//! the tenant there are: those the process confines while it reads.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use portcullis_model::NameSet;
use portcullis_ports::{SqlAnswer, SqlColumn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::{Result, StoreError};
use crate::read::Confinement;
use crate::scan::Filter;
use crate::segment::SegmentMeta;
use crate::settings::SqlLimits;

/// Bytes of the longest frame; lengths are four bytes, most significant first.
pub(super) const MOST_BYTES: usize = 1 << 30;

/// One statement and all its process may use.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) statement: String,
    pub(super) most: usize,
    pub(super) root: PathBuf,
    pub(super) confinement: Confinement,
    /// What the scrubber is made of; `None` where a caller sees what is stored.
    pub(super) scrubber: Option<String>,
    pub(super) limits: SqlLimits,
    pub(super) threads: usize,
    pub(super) time_left: Duration,
}

/// Rows of one table that a scan needs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) table: String,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) services: NameSet,
    pub(super) metrics: NameSet,
    pub(super) traces: Option<Vec<[u8; 16]>>,
    /// Columns by position, ascending.
    pub(super) columns: Vec<usize>,
}

impl Wanted {
    /// What can be said of a filter in words; its further conditions stay where they are.
    pub(super) fn new(table: &str, filter: &Filter, columns: Vec<usize>) -> Self {
        Self {
            table: table.to_owned(),
            start: filter.start,
            end: filter.end,
            services: filter.services.clone(),
            metrics: filter.metrics.clone(),
            traces: filter.traces.clone(),
            columns,
        }
    }

    pub(super) fn filter(&self) -> Filter {
        Filter {
            services: self.services.clone(),
            metrics: self.metrics.clone(),
            traces: self.traces.clone(),
            ..Filter::window(self.start, self.end)
        }
    }
}

/// What the process asks of the server, and how it ends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    /// A scan begins; scans are numbered from 0 in the order they begin.
    Scan(Wanted),
    /// Rows of one part of the write buffer, for a scan.
    Rows { scan: usize, part: usize },
    /// The statement has ended.
    Done(Outcome),
}

/// The answer to the beginning of a scan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Scan {
    pub(super) segments: Vec<SegmentMeta>,
    /// Parts of the write buffer that may hold rows.
    pub(super) parts: usize,
}

/// The answer to a question for rows. Two frames follow where there are some: the texts that words are numbers of, and the
/// rows as they are in the buffer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rows {
    pub(super) some: bool,
}

/// How a statement ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Answered {
        columns: Vec<(String, String)>,
        rows: Vec<Vec<Value>>,
        truncated: bool,
    },
    Deadline,
    Cancelled,
    Invalid(String),
    /// On a row of the data.
    Row(String),
    /// Not by the caller's doing.
    Failed(String),
}

impl From<Result<SqlAnswer>> for Outcome {
    fn from(result: Result<SqlAnswer>) -> Self {
        match result {
            Ok(SqlAnswer { columns, rows, truncated }) => {
                Self::Answered { columns: columns.into_iter().map(|c| (c.name, c.kind)).collect(), rows, truncated }
            }
            Err(StoreError::Deadline) => Self::Deadline,
            Err(StoreError::Cancelled) => Self::Cancelled,
            Err(StoreError::Invalid(sentence)) => Self::Invalid(sentence),
            Err(StoreError::Row(words)) => Self::Row(words),
            Err(other) => Self::Failed(other.to_string()),
        }
    }
}

impl From<Outcome> for Result<SqlAnswer> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered { columns, rows, truncated } => {
                let columns = columns.into_iter().map(|(name, kind)| SqlColumn { name, kind }).collect();
                Ok(SqlAnswer { columns, rows, truncated })
            }
            Outcome::Deadline => Err(StoreError::Deadline),
            Outcome::Cancelled => Err(StoreError::Cancelled),
            Outcome::Invalid(sentence) => Err(StoreError::Invalid(sentence)),
            Outcome::Row(words) => Err(StoreError::Row(words)),
            Outcome::Failed(detail) => Err(StoreError::Statement(detail)),
        }
    }
}

fn head(bytes: usize) -> std::io::Result<[u8; 4]> {
    let too_long = || std::io::Error::other(format!("a frame of {bytes} bytes is too long"));
    if bytes > MOST_BYTES { Err(too_long()) } else { u32::try_from(bytes).map(u32::to_be_bytes).map_err(|_| too_long()) }
}

fn length(head: [u8; 4], most: usize) -> std::io::Result<usize> {
    let bytes = u32::from_be_bytes(head) as usize;
    if bytes > most { Err(std::io::Error::other(format!("a frame of {bytes} bytes is too long"))) } else { Ok(bytes) }
}

/// Writes one frame.
pub(super) fn write(line: &mut impl Write, frame: &[u8]) -> std::io::Result<()> {
    line.write_all(&head(frame.len())?)?;
    line.write_all(frame)
}

/// Writes one message.
pub(super) fn say(line: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    write(line, &serde_json::to_vec(message)?)
}

/// Reads one frame.
pub(super) fn read(line: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    line.read_exact(&mut head)?;
    let mut frame = vec![0; length(head, MOST_BYTES)?];
    line.read_exact(&mut frame)?;
    Ok(frame)
}

/// Reads one message.
pub(super) fn hear<T: DeserializeOwned>(line: &mut impl Read) -> std::io::Result<T> {
    Ok(serde_json::from_slice(&read(line)?)?)
}

/// Writes one frame, where nothing may wait.
pub(super) async fn send(line: &mut tokio::net::UnixStream, frame: &[u8]) -> std::io::Result<()> {
    line.write_all(&head(frame.len())?).await?;
    line.write_all(frame).await
}

/// Reads one frame of at most `most` bytes, where nothing may wait.
pub(super) async fn receive(line: &mut tokio::net::UnixStream, most: usize) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    line.read_exact(&mut head).await?;
    let mut frame = vec![0; length(head, most)?];
    line.read_exact(&mut frame).await?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_and_a_long_one_is_not_made_room_for() {
        let mut written = Vec::new();
        say(&mut written, &Asked::Rows { scan: 3, part: 1 }).unwrap();
        assert!(matches!(hear(&mut written.as_slice()).unwrap(), Asked::Rows { scan: 3, part: 1 }));
        let refused = read(&mut [0xff_u8, 0xff, 0xff, 0xff, 1].as_slice()).unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
        let short = read(&mut [0_u8, 0, 0, 9, 1].as_slice()).unwrap_err();
        assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

//! Removing what is old: whole closed parts only, oldest first, each chain from its beginning. Guards that what is left
//! still verifies: the new beginning is signed before anything is removed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use portcullis_model::{Timestamp, format_timestamp, parse_instant};
use serde::Deserialize;

use crate::AuditError;
use crate::event::{ChainMark, Erasure, RetentionMark};
use crate::files::{Base, ChainFiles, ChainPaths, chains, read_base, sync_directory, try_lock, write_base};
use crate::line::{hex, read_links};
use crate::scan::{Backward, Forward, Line};
use crate::sign::{Signer, Statement};
use crate::sinks::shipped_to_all;

/// With a limit on age, a file is closed when it has been written for this fraction of it, so that old records do not
/// live on in a file that never fills.
const CLOSE_AFTER_FRACTION: u32 = 8;

/// What is kept. Without limits everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// A part whose last record is older than this is removed.
    pub max_age: Option<Duration>,
    /// When all closed parts together are larger than this, the oldest are removed.
    pub max_bytes: Option<u64>,
}

impl Retention {
    pub(crate) fn closes_file_after(&self, written_for: Duration) -> bool {
        self.max_age.is_some_and(|age| written_for >= age / CLOSE_AFTER_FRACTION)
    }
}

/// Parts of one chain that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) mark: RetentionMark,
    /// Records of erasures that were in them and are still needed.
    pub(crate) erasures: Vec<Erasure>,
}

#[derive(Deserialize)]
struct Timed {
    seq: u64,
    time: String,
}

struct Part {
    number: u64,
    bytes: u64,
    ended: Timestamp,
    /// Number of its last record.
    last: u64,
}

/// Number, size and end of each closed part, oldest first.
fn closed_parts(paths: &ChainPaths, files: &ChainFiles) -> Result<Vec<Part>, AuditError> {
    let first = files.first_part.unwrap_or(1);
    let mut parts = Vec::new();
    for number in files.parts.iter().copied().filter(|n| *n >= first) {
        let path = paths.part(number);
        let bytes = fs::metadata(&path).map_err(AuditError::file(&path, "read"))?.len();
        let last = Backward::open(&path, None).and_then(|mut lines| lines.next()).map_err(AuditError::file(&path, "read"))?;
        let ended = match last {
            Some(Line::Whole(line)) => serde_json::from_slice::<Timed>(&line).ok(),
            _ => None,
        };
        // A part that cannot be read is evidence: neither it nor what follows is removed.
        let read = ended.and_then(|t| parse_instant(&t.time, Timestamp::default()).ok().map(|ended| (ended, t.seq)));
        let Some((ended, last)) = read else { break };
        parts.push(Part { number, bytes, ended, last });
    }
    Ok(parts)
}

/// Removes what is too old or too much in every chain that is `own` or that nobody writes. What one of the `required`
/// sinks has not got stays, whatever the limits say.
pub(crate) fn remove_old(
    own: &ChainPaths,
    retention: &Retention,
    required: &[String],
    now: Timestamp,
    signer: &Signer,
) -> Result<Vec<Removed>, AuditError> {
    if *retention == Retention::default() {
        return Ok(Vec::new());
    }
    let mut removed = Vec::new();
    let mut candidates = Vec::new();
    for (name, files) in chains(&own.directory)? {
        let paths = ChainPaths::new(&own.directory, &name);
        let lock = if name == own.name || !files.lock { None } else { try_lock(&paths.lock(), false)? };
        if name != own.name && lock.is_none() {
            continue;
        }
        let shipped = shipped_to_all(&own.directory, required, &name)?;
        for part in closed_parts(&paths, &files)? {
            if shipped.is_some_and(|shipped| shipped < part.last) {
                break;
            }
            candidates.push((paths.clone(), part));
        }
    }
    candidates.sort_by(|(a, one), (b, two)| (one.ended, &a.name, one.number).cmp(&(two.ended, &b.name, two.number)));
    let mut kept: u64 = candidates.iter().map(|(_, part)| part.bytes).sum();
    let mut first_left = std::collections::BTreeMap::<String, (ChainPaths, u64)>::new();
    for (paths, part) in candidates {
        let too_old = retention.max_age.is_some_and(|age| now.since(part.ended) > age);
        let too_much = retention.max_bytes.is_some_and(|most| kept > most);
        if too_old || too_much {
            kept -= part.bytes;
            let entry = first_left.entry(paths.name.clone()).or_insert_with(|| (paths, 0));
            entry.1 = entry.1.max(part.number + 1);
        }
    }
    for (name, (paths, first_part)) in first_left {
        let lock = if name == own.name { None } else { try_lock(&paths.lock(), false)? };
        if name == own.name || lock.is_some() {
            removed.extend(remove_before(&paths, first_part, now, signer)?);
        }
    }
    Ok(removed)
}

/// Number of the first record of a file, its `prev`, and the marks in the files before it.
fn first_record(path: &Path) -> Result<Option<(u64, String)>, AuditError> {
    let mut lines = Forward::open(path, 0).map_err(AuditError::file(path, "read"))?;
    match lines.next().map_err(AuditError::file(path, "read"))? {
        Some(Line::Whole(line)) => Ok(read_links(&line).ok().map(|links| (links.sequence, hex(&links.prev)))),
        _ => Ok(None),
    }
}

fn remove_before(paths: &ChainPaths, first_part: u64, now: Timestamp, signer: &Signer) -> Result<Option<Removed>, AuditError> {
    let files = chains(&paths.directory)?.remove(&paths.name).unwrap_or_default();
    let order = paths.in_order(&files);
    let Some((_, next)) = order.iter().find(|(part, _)| *part == first_part) else { return Ok(None) };
    // The file after a rotation may still be waiting for its first record.
    let Some((sequence, prev)) = first_record(next)? else { return Ok(None) };
    let old: Vec<_> = order.into_iter().filter(|(part, _)| *part < first_part).collect();
    let mut erasures = Vec::new();
    let mut bytes = 0;
    for (_, path) in &old {
        bytes += fs::metadata(path).map_err(AuditError::file(path, "read"))?.len();
        let mut lines = Forward::open(path, 0).map_err(AuditError::file(path, "read"))?;
        while let Some(line) = lines.next().map_err(AuditError::file(path, "read"))? {
            if let Line::Whole(line) = line
                && let Some(ChainMark { erasures: found, .. }) = read_links(&line).ok().and_then(|links| links.mark)
            {
                erasures.extend(found);
            }
        }
    }
    // What is about records that go now is not needed any more.
    erasures.retain(|e| e.chain != paths.name || e.spans.iter().any(|(_, last, _)| *last >= sequence));
    let time = format_timestamp(now);
    let statement = Statement::Base { chain: &paths.name, part: first_part, sequence, prev: &prev, time: &time };
    let signature = signer.sign(&statement);
    write_base(paths, &Base { part: first_part, sequence, prev, time, signature })?;
    sync_directory(&paths.directory)?;
    for (_, path) in &old {
        fs::remove_file(path).map_err(AuditError::file(path, "removed"))?;
    }
    remove_leftovers(paths, &files, first_part)?;
    let mark = RetentionMark { chain: paths.name.clone(), first_part, first_sequence: sequence, bytes };
    Ok(Some(Removed { mark, erasures }))
}

/// Parts before the beginning that an interrupted removal left.
fn remove_leftovers(paths: &ChainPaths, files: &ChainFiles, first_part: u64) -> Result<(), AuditError> {
    let before = read_base(paths).ok().flatten().map_or(first_part, |base| base.part);
    for part in files.parts.iter().filter(|part| **part < before) {
        let path = paths.part(*part);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(AuditError::file(&path, "removed")(error)),
            _ => {}
        }
    }
    sync_directory(&paths.directory)
}

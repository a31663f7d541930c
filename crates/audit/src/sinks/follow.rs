//! Reading on from a cursor, through rotation, retention, erasures and crashes. Guards that no record is passed over in
//! silence: what is missing is counted, and where a chain is not what it was, its file is read again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_model::Timestamp;

use super::cursor::{Cursor, Position};
use crate::AuditError;
use crate::files::{ChainFiles, ChainPaths, chains};
use crate::line::{hex, read_links};
use crate::read::{Record, parse};
use crate::scan::{Backward, Forward, Line};

/// Most bytes of lines in one batch, give or take one line.
const BATCH_BYTES: usize = 1 << 20;
/// How often a file is looked up again when it is renamed at the same moment.
const TRIES: usize = 8;

/// Records to deliver, and where the cursor stands when they are.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// The position after the batch, of every chain that moved.
    pub(super) chains: BTreeMap<String, Position>,
    /// Records that were gone or could not be read.
    pub(super) lost: u64,
    /// Chains that were not what they were and are read again from the beginning of a file.
    pub(super) rewound: Vec<String>,
    pub(super) bytes: usize,
}

/// Reads at most `most` records beyond the cursor. `turn` says which chain comes first, so that each gets its turn.
pub(super) fn read_batch(directory: &Path, cursor: &Cursor, most: usize, turn: usize) -> Result<Batch, AuditError> {
    let chains = chains(directory)?;
    let mut batch = Batch::default();
    let first = turn.checked_rem(chains.len()).unwrap_or(0);
    for (name, files) in chains.iter().skip(first).chain(chains.iter().take(first)) {
        if batch.records.len() >= most || batch.bytes >= BATCH_BYTES {
            break;
        }
        follow(&ChainPaths::new(directory, name), files, cursor.chains.get(name), most, &mut batch)?;
    }
    Ok(batch)
}

fn follow(
    paths: &ChainPaths,
    files: &ChainFiles,
    from: Option<&Position>,
    most: usize,
    batch: &mut Batch,
) -> Result<(), AuditError> {
    let order = paths.in_order(files);
    let Some(last_part) = order.last().map(|(part, _)| *part) else { return Ok(()) };
    let mut at = from.cloned().unwrap_or_default();
    let mut rewinding = false;
    if at.part > last_part {
        // Files were put back to an older state: read the newest one again rather than pass over what is in it.
        rewinding = true;
        batch.rewound.push(paths.name.clone());
        at = Position { part: last_part, ..Position::default() };
    }
    let first = at.part;
    let closed = order.len().saturating_sub(1);
    for (index, (part, path)) in order.into_iter().enumerate().filter(|(_, (part, _))| *part >= first) {
        let Some(Start { mut lines, rewound }) = start(paths, part, &path, &at).map_err(AuditError::file(&path, "read"))? else {
            continue;
        };
        if rewound {
            rewinding = true;
            batch.rewound.push(paths.name.clone());
            at = Position { part, ..Position::default() };
        }
        loop {
            if batch.records.len() >= most || batch.bytes >= BATCH_BYTES {
                keep(paths, at, from, batch);
                return Ok(());
            }
            let line = match lines.next().map_err(AuditError::file(&path, "read"))? {
                None => break,
                Some(Line::Whole(line)) => line,
                // Its writer is in the middle of it, or died there; in a closed file it is no record.
                Some(Line::Incomplete(_)) if index == closed => break,
                // Whether a record is missing here is told by the number of the next one.
                Some(Line::Incomplete(_) | Line::TooLong) => continue,
            };
            let (size, Ok(links)) = (line.len(), read_links(&line)) else { continue };
            if links.sequence <= at.seq {
                continue;
            }
            if !rewinding {
                batch.lost += links.sequence - at.seq - 1;
            }
            rewinding = false;
            at = Position { part, offset: lines.offset, seq: links.sequence, hash: hex(&links.stated) };
            batch.bytes += size;
            match parse(&paths.name, line) {
                Ok(record) => batch.records.push(record),
                Err(_) => batch.lost += 1,
            }
        }
    }
    keep(paths, at, from, batch);
    Ok(())
}

fn keep(paths: &ChainPaths, at: Position, from: Option<&Position>, batch: &mut Batch) {
    if from != Some(&at) && !at.hash.is_empty() {
        batch.chains.insert(paths.name.clone(), at);
    }
}

struct Start {
    lines: Forward,
    rewound: bool,
}

/// Opens a part where the position says. The file being written may be renamed and replaced at any moment: what was
/// opened is the part that was meant only if no closed part has its number afterwards.
fn start(paths: &ChainPaths, part: u64, path: &Path, at: &Position) -> io::Result<Option<Start>> {
    let closed = paths.part(part);
    for _ in 0..TRIES {
        let here: PathBuf = if closed.exists() { closed.clone() } else { path.to_owned() };
        let opened = if part == at.part && !at.hash.is_empty() { resume(&here, at) } else { fresh(&here) };
        if here == closed || !closed.exists() {
            return match opened {
                Ok(start) => Ok(Some(start)),
                // Between the renaming and the new file, or removed by retention meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
    }
    Ok(None)
}

fn fresh(path: &Path) -> io::Result<Start> {
    Ok(Start { lines: Forward::open(path, 0)?, rewound: false })
}

/// After the record of the position: at its offset, or where an erasure moved it; or at the beginning, when the record
/// is not there any more.
fn resume(path: &Path, at: &Position) -> io::Result<Start> {
    let is_it = |line: &[u8]| read_links(line).is_ok_and(|l| l.sequence == at.seq && hex(&l.stated) == at.hash);
    if std::fs::metadata(path)?.len() >= at.offset
        && let Some(Line::Whole(line)) = Backward::open(path, Some(at.offset))?.next()?
        && is_it(&line)
    {
        return Ok(Start { lines: Forward::open(path, at.offset)?, rewound: false });
    }
    let mut lines = Forward::open(path, 0)?;
    while let Some(line) = lines.next()? {
        if matches!(line, Line::Whole(line) if is_it(&line)) {
            return Ok(Start { lines, rewound: false });
        }
    }
    Ok(Start { lines: Forward::open(path, 0)?, rewound: true })
}

/// Positions before the first record that is kept of every chain.
pub(super) fn beginnings(directory: &Path) -> Result<BTreeMap<String, Position>, AuditError> {
    let mut beginnings = BTreeMap::new();
    for (name, files) in chains(directory)? {
        let paths = ChainPaths::new(directory, &name);
        for (part, path) in paths.in_order(&files) {
            let mut lines = Forward::open(&path, 0).map_err(AuditError::file(&path, "read"))?;
            let Some(Line::Whole(line)) = lines.next().map_err(AuditError::file(&path, "read"))? else { continue };
            if let Ok(links) = read_links(&line) {
                let seq = links.sequence.saturating_sub(1);
                beginnings.insert(name, Position { part, seq, ..Position::default() });
                break;
            }
        }
    }
    Ok(beginnings)
}

/// Positions behind the last record of every chain.
pub(super) fn ends(directory: &Path) -> Result<BTreeMap<String, Position>, AuditError> {
    let mut ends = BTreeMap::new();
    for (name, files) in chains(directory)? {
        if let Some(end) = end_of(&ChainPaths::new(directory, &name), &files)? {
            ends.insert(name, end);
        }
    }
    Ok(ends)
}

fn end_of(paths: &ChainPaths, files: &ChainFiles) -> Result<Option<Position>, AuditError> {
    for (part, path) in paths.in_order(files).into_iter().rev() {
        let read = || -> io::Result<Option<Position>> {
            let mut offset = std::fs::metadata(&path)?.len();
            let mut lines = Backward::open(&path, Some(offset))?;
            while let Some(line) = lines.next()? {
                match line {
                    Line::Incomplete(torn) => offset -= torn.len() as u64,
                    Line::Whole(line) => {
                        if let Ok(links) = read_links(&line) {
                            return Ok(Some(Position { part, offset, seq: links.sequence, hash: hex(&links.stated) }));
                        }
                        offset -= line.len() as u64 + 1;
                    }
                    Line::TooLong => break,
                }
            }
            Ok(None)
        };
        match read() {
            Ok(Some(end)) => return Ok(Some(end)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(AuditError::file(&path, "read")(error)),
        }
    }
    Ok(None)
}

/// How far behind a cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lag {
    pub(super) records: u64,
    /// Time of the oldest record that is missing.
    pub(super) oldest: Option<Timestamp>,
}

/// Compares a cursor with the files.
pub(super) fn lag(directory: &Path, cursor: &Cursor) -> Result<Lag, AuditError> {
    let mut lag = Lag::default();
    for (name, files) in chains(directory)? {
        let paths = ChainPaths::new(directory, &name);
        let reached = cursor.chains.get(&name);
        let Some(end) = end_of(&paths, &files)? else { continue };
        let mut batch = Batch::default();
        if reached.is_none_or(|at| at.seq != end.seq || at.hash != end.hash) {
            follow(&paths, &files, reached, 1, &mut batch)?;
        }
        let Some(next) = batch.records.first() else { continue };
        lag.records += end.seq.saturating_sub(next.sequence) + 1;
        lag.oldest = Some(lag.oldest.map_or(next.time, |oldest| oldest.min(next.time)));
    }
    Ok(lag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AuditEvent, EventKind};
    use crate::log::{AuditLog, AuditOptions};
    use portcullis_model::SystemClock;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn open(directory: &Path, rotate_at_bytes: u64) -> AuditLog {
        let options = AuditOptions { rotate_at_bytes, ..AuditOptions::default() };
        AuditLog::open_with(directory, Arc::new(SystemClock), options).unwrap()
    }

    fn append(log: &AuditLog, records: usize) {
        for index in 0..records {
            log.append(AuditEvent::new(EventKind::Call).tool(format!("t{index}"))).unwrap();
        }
    }

    fn active(directory: &Path) -> PathBuf {
        let (name, _) = chains(directory).unwrap().pop_first().unwrap();
        ChainPaths::new(directory, &name).active()
    }

    #[test]
    fn a_record_that_cannot_be_read_is_lost_once_and_a_foreign_line_is_no_loss() {
        for (garbage, replaces, lost) in [("garbage", true, 1), ("garbage", false, 0), (&"x".repeat(3 << 20), true, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let log = open(directory.path(), 1 << 30);
            append(&log, 10);
            let path = active(directory.path());
            let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            if replaces {
                garbage.clone_into(&mut lines[4]);
            } else {
                lines.insert(4, garbage.to_owned());
            }
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            let batch = read_batch(directory.path(), &Cursor::default(), 100, 0).unwrap();
            assert_eq!((batch.records.len() as u64, batch.lost), (11 - lost, lost));
        }
    }

    #[test]
    fn the_lag_is_what_a_batch_would_bring() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path(), 2_000);
        append(&log, 30);
        let mut cursor = Cursor::default();
        let all = lag(directory.path(), &cursor).unwrap();
        assert_eq!(all.records, log.last_sequence());
        let batch = read_batch(directory.path(), &cursor, 10, 0).unwrap();
        assert_eq!(batch.records[0].time, all.oldest.unwrap());
        cursor.chains.extend(batch.chains);
        assert_eq!(lag(directory.path(), &cursor).unwrap().records, log.last_sequence() - 10);
        cursor.chains = ends(directory.path()).unwrap();
        assert_eq!(lag(directory.path(), &cursor).unwrap(), Lag::default());
        assert!(read_batch(directory.path(), &cursor, 10, 0).unwrap().records.is_empty());
        append(&log, 1);
        assert_eq!(read_batch(directory.path(), &cursor, 10, 0).unwrap().records.last().unwrap().sequence, log.last_sequence());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_record_comes_once_whatever_the_rotation_batches_and_restarts(
            rotate in 600_u64..6_000,
            steps in proptest::collection::vec((0_usize..12, 1_usize..9, any::<bool>()), 1..12),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut log = open(directory.path(), rotate);
            let mut cursor = Cursor { chains: beginnings(directory.path()).unwrap(), ..Cursor::default() };
            let mut seen = Vec::new();
            let take = |cursor: &mut Cursor, seen: &mut Vec<u64>, most: usize, turn: usize| {
                let batch = read_batch(directory.path(), cursor, most, turn).unwrap();
                assert!(batch.records.len() <= most && batch.lost == 0 && batch.rewound.is_empty());
                seen.extend(batch.records.iter().map(|r| r.sequence));
                cursor.chains.extend(batch.chains);
                // As the next process reads it.
                cursor.save(directory.path(), "a").unwrap();
                *cursor = Cursor::load(directory.path(), "a").unwrap().unwrap();
                batch.records.len()
            };
            for (turn, (records, most, restart)) in steps.into_iter().enumerate() {
                append(&log, records);
                take(&mut cursor, &mut seen, most, turn);
                if restart {
                    drop(log);
                    log = open(directory.path(), rotate);
                }
            }
            while take(&mut cursor, &mut seen, 5, 0) > 0 {}
            prop_assert_eq!(seen, (1..=log.last_sequence()).collect::<Vec<_>>());
        }
    }
}

//! Where a chain ends that another process left behind, and whether it may be continued. Reads only; a chain with
//! any doubt is not continued but left as it is, as evidence.

use std::io;

use crate::files::{ChainFiles, ChainPaths, Head, read_head};
use crate::line::{Hash, hex, read_links};
use crate::scan::{Backward, Forward, Line};
use crate::sign::PublicKey;

/// Where the next record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    /// Number of the file being written.
    pub(crate) part: u64,
    /// Good bytes in it.
    pub(crate) length: u64,
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    /// Bytes after the good ones that a crash left, if any.
    pub(crate) torn: u64,
}

/// Follows the chain from its head to its end. The head must carry a signature of `key`; without a key any head will do,
/// as for chains from before heads were signed. The error says what is wrong with the chain.
pub(crate) fn end_of_chain(paths: &ChainPaths, files: &ChainFiles, key: Option<&PublicKey>) -> Result<ChainEnd, String> {
    let mut head = read_head(paths)?;
    if let Some(key) = key {
        let signature = head.signature.as_deref().ok_or(
            "its head file is not signed; if it was written before there were signatures, 'portcullis audit adopt' signs it as it is",
        )?;
        if !key.signed(&head.statement(&paths.name, &hex(&head.hash)), signature) {
            return Err("its head file is not signed by the key of this directory".to_owned());
        }
    }
    let active = files.active_part();
    if files.missing().next().is_some() {
        return Err("one of its files is missing".to_owned());
    }
    let order = paths.in_order(files);
    let mut end = ChainEnd { part: active, length: 0, sequence: head.sequence, hash: head.hash, torn: 0 };
    if head.part > end.part || (head.offset > 0 && !order.iter().any(|(part, _)| *part == head.part)) {
        return Err(format!("part {} named in its head file is missing", head.part));
    }
    for (part, path) in order.iter().filter(|(part, _)| *part >= head.part) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let failed = |e: io::Error| format!("{name} cannot be read: {e}");
        let start = if *part == head.part { head.offset } else { 0 };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        let start = if start == 0 || (size >= start && last_record_is(path, start, &head)) {
            start
        } else {
            // An erasure that was interrupted moved the record and did not come to write the head.
            let found = end_of_record(path, &head).map_err(failed)?;
            found.ok_or_else(|| format!("{name} does not have record {} any more: records were cut off", head.sequence))?
        };
        if *part == head.part {
            head.offset = start;
        }
        let mut lines = Forward::open(path, start).map_err(failed)?;
        end.length = start;
        while let Some(line) = lines.next().map_err(failed)? {
            let problem = match follow(&mut end, &line) {
                Ok(()) => {
                    end.length = lines.offset;
                    continue;
                }
                Err(problem) => problem,
            };
            // A process that was killed leaves an incomplete last line; anything else was written by somebody.
            if *part == active && matches!(line, Line::Incomplete(_)) && !head.closed {
                end.torn = size.saturating_sub(end.length);
                return Ok(end);
            }
            return Err(format!("{name}, byte {}: {problem}", end.length));
        }
    }
    if head.closed && end.sequence != head.sequence {
        return Err(format!("records follow although it was closed at record {}", head.sequence));
    }
    if !files.active {
        end.length = 0;
    }
    Ok(end)
}

fn follow(end: &mut ChainEnd, line: &Line) -> Result<(), String> {
    let bytes = match line {
        Line::Whole(bytes) => bytes,
        Line::Incomplete(_) => return Err("the last line is not complete".to_owned()),
        Line::TooLong => return Err("a line is longer than any record".to_owned()),
    };
    let links = read_links(bytes)?;
    if !links.is_whole() || links.sequence != end.sequence + 1 || links.prev != end.hash {
        return Err(format!("record {} does not continue record {}", links.sequence, end.sequence));
    }
    end.sequence = links.sequence;
    end.hash = links.stated;
    Ok(())
}

fn is_record(line: &Line, head: &Head) -> bool {
    let Line::Whole(bytes) = line else { return false };
    read_links(bytes).is_ok_and(|links| links.is_whole() && links.stated == head.hash && links.sequence == head.sequence)
}

/// Whether the record the head names ends at `offset`.
fn last_record_is(path: &std::path::Path, offset: u64, head: &Head) -> bool {
    let line = Backward::open(path, Some(offset)).and_then(|mut b| b.next());
    line.is_ok_and(|line| line.is_some_and(|line| is_record(&line, head)))
}

/// Where the record the head names ends, looked for from the beginning of the file.
fn end_of_record(path: &std::path::Path, head: &Head) -> io::Result<Option<u64>> {
    let mut lines = Forward::open(path, 0)?;
    while let Some(line) = lines.next()? {
        if is_record(&line, head) {
            return Ok(Some(lines.offset));
        }
    }
    Ok(None)
}

//! Where a chain ends that another process left behind, and whether it may be continued. Reads only; a chain with
//! any doubt is not continued but left as it is, as evidence.

use std::io;

use crate::files::{ChainFiles, ChainPaths, Head, read_head};
use crate::line::{Hash, read_links};
use crate::scan::{Backward, Forward, Line};

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

/// Follows the chain from its head to its end. The error says what is wrong with it.
pub(crate) fn end_of_chain(paths: &ChainPaths, files: &ChainFiles) -> Result<ChainEnd, String> {
    let head = read_head(paths)?;
    let last_part = files.parts.last().copied().unwrap_or(0);
    if files.parts.len() as u64 != last_part {
        return Err("one of its files is missing".to_owned());
    }
    let order = paths.in_order(files);
    let mut end = ChainEnd { part: last_part + 1, length: 0, sequence: head.sequence, hash: head.hash, torn: 0 };
    if head.part > end.part || (head.offset > 0 && !order.iter().any(|(part, _)| *part == head.part)) {
        return Err(format!("part {} named in its head file is missing", head.part));
    }
    for (part, path) in order.iter().filter(|(part, _)| *part >= head.part) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let failed = |e: io::Error| format!("{name} cannot be read: {e}");
        let start = if *part == head.part { head.offset } else { 0 };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size < start {
            return Err(format!("{name} has {size} bytes, its head file knows of {start}: records were cut off"));
        }
        if start > 0 {
            last_record_is(paths, *part, path, &head)?;
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
            if *part == last_part + 1 && matches!(line, Line::Incomplete(_)) && !head.closed {
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

fn last_record_is(paths: &ChainPaths, part: u64, path: &std::path::Path, head: &Head) -> Result<(), String> {
    let line = Backward::open(path, Some(head.offset)).and_then(|mut b| b.next()).map_err(|e| e.to_string())?;
    let links = match line {
        Some(Line::Whole(bytes)) => read_links(&bytes).ok(),
        _ => None,
    };
    match links {
        Some(links) if links.is_whole() && links.stated == head.hash && links.sequence == head.sequence => Ok(()),
        _ => Err(format!("part {part} of {} does not have record {} where its head file knows it", paths.name, head.sequence)),
    }
}

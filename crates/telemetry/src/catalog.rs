//! The catalogue: which segments are live, and up to which generation the write-ahead log is in them. An append-only
//! journal; one line is one atomic change. What the journal does not name does not exist.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::files;
use crate::segment::SegmentMeta;
use crate::wal::sync_directory;

const FILE: &str = "catalog.journal";
/// A journal of more lines than this and more than twice the live segments is rewritten.
const REWRITE_LINES: usize = 4_096;

/// One atomic change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Segments that become live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) add: Vec<SegmentMeta>,
    /// Segments that end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remove: Vec<u64>,
    /// Every generation of the write-ahead log up to this one is in segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flushed: Option<u64>,
    /// Ids below this one are used up.
    #[serde(default)]
    pub(crate) next_id: u64,
}

/// The open catalogue.
#[derive(Debug)]
pub(crate) struct Catalog {
    path: PathBuf,
    file: File,
    length: u64,
    lines: usize,
    live: BTreeMap<u64, SegmentMeta>,
    flushed: u64,
    next_id: u64,
}

impl Catalog {
    /// Opens or begins the catalogue of a data directory. A torn last line is a change that never happened.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let mut file = files::writing()
            .create(true)
            .truncate(false)
            .read(true)
            .open(&path)
            .map_err(|e| StoreError::io("open the catalogue", &path, e))?;
        sync_directory(directory)?;
        let text = std::fs::read(&path).map_err(|e| StoreError::io("read the catalogue", &path, e))?;
        let (mut live, mut flushed, mut next_id, mut lines) = (BTreeMap::new(), 0, 1, 0);
        let mut length = 0;
        for line in text.split_inclusive(|b| *b == b'\n') {
            let Some(change) = parse_line(line) else {
                if length + line.len() < text.len() {
                    return Err(StoreError::damaged(&path, format!("line {} does not match its checksum", lines + 1)));
                }
                break;
            };
            apply(&mut live, &mut flushed, &mut next_id, &change);
            length += line.len();
            lines += 1;
        }
        if length < text.len() {
            tracing::warn!(path = %path.display(), bytes = text.len() - length, "the catalogue ended in an unfinished change, which was dropped");
            file.set_len(length as u64).map_err(|e| StoreError::io("cut the catalogue", &path, e))?;
        }
        file.seek(SeekFrom::End(0)).map_err(|e| StoreError::io("open the catalogue", &path, e))?;
        Ok(Self { path, file, length: length as u64, lines, live, flushed, next_id })
    }

    /// Live segments by id.
    pub(crate) fn live(&self) -> impl Iterator<Item = &SegmentMeta> {
        self.live.values()
    }

    /// The last generation of the write-ahead log that is in segments.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// An id nobody used before.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Makes a change durable, then visible here.
    pub(crate) fn commit(&mut self, mut change: Change) -> Result<()> {
        change.next_id = self.next_id;
        let line = line_of(&change)?;
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(StoreError::io("write the catalogue", &self.path, error));
        }
        self.length += line.len() as u64;
        self.lines += 1;
        apply(&mut self.live, &mut self.flushed, &mut self.next_id, &change);
        if self.lines > REWRITE_LINES && self.lines > 2 * self.live.len() {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Replaces the journal by one line that says the same.
    fn rewrite(&mut self) -> Result<()> {
        let whole = Change {
            add: self.live.values().cloned().collect(),
            remove: Vec::new(),
            flushed: Some(self.flushed),
            next_id: self.next_id,
        };
        let line = line_of(&whole)?;
        let fresh = self.path.with_extension("journal.tmp");
        let failed = |e| StoreError::io("rewrite the catalogue", &fresh, e);
        let mut file = files::create(&fresh).map_err(failed)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&fresh, &self.path).map_err(failed)?;
        self.file = file;
        self.length = line.len() as u64;
        self.lines = 1;
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

fn apply(live: &mut BTreeMap<u64, SegmentMeta>, flushed: &mut u64, next_id: &mut u64, change: &Change) {
    for id in &change.remove {
        live.remove(id);
    }
    for meta in &change.add {
        live.insert(meta.id, meta.clone());
        *next_id = (*next_id).max(meta.id + 1);
    }
    *flushed = (*flushed).max(change.flushed.unwrap_or(0));
    *next_id = (*next_id).max(change.next_id);
}

fn line_of(change: &Change) -> Result<String> {
    let json =
        serde_json::to_string(change).map_err(|e| StoreError::Invalid(format!("the catalogue could not be written: {e}")))?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

fn parse_line(line: &[u8]) -> Option<Change> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    let sound = u32::from_str_radix(checksum, 16).ok()? == crc32fast::hash(json.as_bytes());
    sound.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::TenantId;

    fn meta(id: u64) -> SegmentMeta {
        SegmentMeta {
            id,
            tenant: TenantId::default_tenant(),
            table: "otel_logs".into(),
            rows: 1,
            bytes: 1,
            min_time: 0,
            max_time: 1,
        }
    }

    #[test]
    fn every_cut_gives_a_whole_number_of_changes() {
        let directory = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(directory.path()).unwrap();
        let first = catalog.new_id();
        catalog.commit(Change { add: vec![meta(first)], flushed: Some(3), ..Change::default() }).unwrap();
        let second = catalog.new_id();
        catalog.commit(Change { add: vec![meta(second)], remove: vec![first], ..Change::default() }).unwrap();
        drop(catalog);
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let first_line = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in (0..=whole.len()).rev() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let opened = Catalog::open(directory.path()).unwrap();
            let live: Vec<u64> = opened.live().map(|m| m.id).collect();
            let expected = if cut == whole.len() {
                vec![second]
            } else if cut >= first_line {
                vec![first]
            } else {
                vec![]
            };
            assert_eq!(live, expected, "cut at {cut}");
        }
        let mut bad = whole.clone();
        bad[12] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(Catalog::open(directory.path()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_long_journal_is_rewritten() {
        let directory = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(directory.path()).unwrap();
        let keep = catalog.new_id();
        catalog.commit(Change { add: vec![meta(keep)], ..Change::default() }).unwrap();
        catalog.lines = REWRITE_LINES + 1;
        let id = catalog.new_id();
        catalog.commit(Change { add: vec![meta(id)], flushed: Some(9), ..Change::default() }).unwrap();
        assert_eq!(catalog.lines, 1);
        drop(catalog);
        let mut again = Catalog::open(directory.path()).unwrap();
        assert_eq!((again.live().count(), again.flushed(), again.new_id()), (2, 9, id + 1));
    }
}

//! The index of a segment: which services, metrics, times and trace ids each stretch of about 8,192 rows (a granule)
//! may hold, so that a question reads only the stretches it needs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bloom;
use crate::error::{Result, StoreError};

/// Rows of a granule at most.
pub(crate) const GRANULE_ROWS: usize = 8_192;
const MAGIC: &[u8; 8] = b"PCIDX\x00\x00\x01";

/// One stretch of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Granule {
    /// Rows in it.
    #[serde(rename = "r")]
    pub(crate) rows: u32,
    /// Earliest time.
    #[serde(rename = "a")]
    pub(crate) min_time: i64,
    /// Latest time.
    #[serde(rename = "z")]
    pub(crate) max_time: i64,
    /// First and last service in text order, as positions in the index's words.
    #[serde(rename = "s")]
    pub(crate) service: (u32, u32),
    /// First and last metric in text order.
    #[serde(rename = "m")]
    pub(crate) metric: (u32, u32),
    /// First block of the trace id filter and number of blocks.
    #[serde(rename = "b")]
    pub(crate) bloom: (u32, u32),
}

/// A service in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceSeen {
    /// Its name.
    pub(crate) name: String,
    /// Latest time.
    pub(crate) last: i64,
    /// Rows.
    pub(crate) rows: u64,
}

/// The index without the filters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Granules in row order.
    pub(crate) granules: Vec<Granule>,
    /// Texts the granules refer to.
    pub(crate) words: Vec<String>,
    /// Services by name.
    pub(crate) services: Vec<ServiceSeen>,
    /// Metric names by name.
    pub(crate) metrics: Vec<String>,
}

impl Index {
    fn range(&self, (first, last): (u32, u32)) -> (&str, &str) {
        let word = |n: u32| self.words.get(n as usize).map_or("", String::as_str);
        (word(first), word(last))
    }

    /// First and last service of a granule.
    pub(crate) fn services_of(&self, granule: &Granule) -> (&str, &str) {
        self.range(granule.service)
    }

    /// First and last metric of a granule.
    pub(crate) fn metrics_of(&self, granule: &Granule) -> (&str, &str) {
        self.range(granule.metric)
    }

    /// The file: magic, length and checksum of the index, the index, the filters.
    pub(crate) fn encode(&self, filters: &[u8]) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|e| StoreError::Invalid(format!("the index could not be written: {e}")))?;
        let mut out = Vec::with_capacity(json.len() + filters.len() + 16);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(json.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
        out.extend_from_slice(&json);
        out.extend_from_slice(filters);
        Ok(out)
    }
}

/// An open index file.
#[derive(Debug)]
pub(crate) struct IndexFile {
    /// The index.
    pub(crate) index: Index,
    file: File,
    filters_at: u64,
}

impl IndexFile {
    /// Opens and checks an index file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = |e| StoreError::io("read", path, e);
        let file = File::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let mut head = [0; 16];
        file.read_exact_at(&mut head, 0).map_err(read)?;
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let checksum = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if &head[..8] != MAGIC || 16 + u64::from(length) > size {
            return Err(StoreError::damaged(path, "it is not a whole segment index"));
        }
        let mut json = vec![0; length as usize];
        file.read_exact_at(&mut json, 16).map_err(read)?;
        if crc32fast::hash(&json) != checksum {
            return Err(StoreError::damaged(path, "its checksum does not match"));
        }
        let index = serde_json::from_slice(&json).map_err(|e| StoreError::damaged(path, e.to_string()))?;
        Ok(Self { index, file, filters_at: 16 + u64::from(length) })
    }

    /// Whether a granule may hold one of the trace ids, given by hash. A filter that cannot be read says "perhaps".
    pub(crate) fn may_hold_trace(&self, granule: &Granule, hashes: &[u64]) -> bool {
        let (first, blocks) = granule.bloom;
        if blocks == 0 {
            return false;
        }
        let mut block = [0; bloom::BLOCK_BYTES];
        hashes.iter().any(|hash| {
            let number = u64::from(first) + u64::from(bloom::block_of(*hash, blocks));
            let at = self.filters_at + number * bloom::BLOCK_BYTES as u64;
            self.file.read_exact_at(&mut block, at).is_err() || bloom::may_hold(&block, *hash)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_index_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.index");
        let index = Index { words: vec!["cart".into()], ..Index::default() };
        let bytes = index.encode(&[1; 64]).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(IndexFile::open(&path).unwrap().index, index);
        let mut bad = bytes.clone();
        bad[20] ^= 1;
        for damaged in [&bad[..], &bytes[..10], &bytes[..30]] {
            std::fs::write(&path, damaged).unwrap();
            assert!(IndexFile::open(&path).is_err());
        }
    }
}

//! How far a sink has come, on disk: `sink-<name>.cursor`, written whole or not at all. Guards that a restart goes on
//! where it was, and that only one process at a time feeds a sink. Must never hold what a record says.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::files::replace;

/// Most spans of records that were set aside and are still listed.
const ASIDE: usize = 100;

/// The last record of a chain that a sink has got.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Part it is in.
    pub(crate) part: u64,
    /// Bytes of that part up to its end; a hint that an erasure moves.
    pub(crate) offset: u64,
    /// Its number.
    pub(crate) seq: u64,
    /// Its hash, hexadecimal; empty before the first record.
    pub(crate) hash: String,
}

/// Records that a sink refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Aside {
    /// The chain.
    pub(crate) chain: String,
    /// First and last record.
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// How far a sink has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    /// By chain.
    pub(crate) chains: BTreeMap<String, Position>,
    /// Records the sink took.
    pub(crate) delivered: u64,
    /// Records it refused for good.
    pub(crate) set_aside: u64,
    /// Records that were gone before it got them, or could not be read.
    pub(crate) lost: u64,
    /// Which records were refused, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aside: Vec<Aside>,
    /// Why the last delivery did not succeed; absent when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
}

fn path(directory: &Path, sink: &str) -> PathBuf {
    directory.join(format!("sink-{sink}.cursor"))
}

impl Cursor {
    /// The cursor of a sink; `None` when it has never been fed.
    pub(crate) fn load(directory: &Path, sink: &str) -> Result<Option<Self>, AuditError> {
        let path = path(directory, sink);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
                AuditError::Settings(format!(
                    "the cursor {} is damaged ({e}); remove it, and the sink gets every record that is kept once more",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(AuditError::file(&path, "read")(error)),
        }
    }

    /// Puts it in the place of the one before.
    pub(crate) fn save(&self, directory: &Path, sink: &str) -> Result<(), AuditError> {
        let text = serde_json::to_vec(self).map_err(|e| AuditError::Encode(e.to_string()))?;
        replace(&path(directory, sink), &text)
    }

    /// Notes what was refused for good.
    pub(crate) fn put_aside(&mut self, chain: &str, sequence: u64) {
        self.set_aside += 1;
        match self.aside.last_mut() {
            Some(span) if span.chain == chain && span.last + 1 == sequence => span.last = sequence,
            _ => self.aside.push(Aside { chain: chain.to_owned(), first: sequence, last: sequence }),
        }
        let surplus = self.aside.len().saturating_sub(ASIDE);
        self.aside.drain(..surplus);
    }
}

/// Up to which record of `chain` every one of these sinks has it.
pub(crate) fn shipped_to_all(directory: &Path, sinks: &[String], chain: &str) -> Result<Option<u64>, AuditError> {
    let mut least = None::<u64>;
    for sink in sinks {
        let cursor = Cursor::load(directory, sink)?.unwrap_or_default();
        let reached = cursor.chains.get(chain).map_or(0, |position| position.seq);
        least = Some(least.map_or(reached, |so_far| so_far.min(reached)));
    }
    Ok(least)
}

/// Takes the right to feed a sink; `None` when another process has it. Held until dropped.
pub(super) fn try_lock(directory: &Path, sink: &str) -> Result<Option<File>, AuditError> {
    let path = directory.join(format!("sink-{sink}.lock"));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(AuditError::file(&path, "opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(AuditError::file(&path, "locked")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_cursor_reads_back_is_private_and_damage_is_said() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Cursor::load(directory.path(), "a").unwrap(), None);
        let mut cursor = Cursor { delivered: 7, ..Cursor::default() };
        cursor.chains.insert("audit-x".into(), Position { part: 2, offset: 9, seq: 3, hash: "00".into() });
        for sequence in [4, 5, 9] {
            cursor.put_aside("audit-x", sequence);
        }
        assert_eq!(cursor.aside.iter().map(|a| (a.first, a.last)).collect::<Vec<_>>(), [(4, 5), (9, 9)]);
        cursor.save(directory.path(), "a").unwrap();
        assert_eq!(Cursor::load(directory.path(), "a").unwrap(), Some(cursor.clone()));
        let file = directory.path().join("sink-a.cursor");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for sequence in 0..500 {
            cursor.put_aside("audit-x", 10 + 2 * sequence);
        }
        assert_eq!((cursor.aside.len(), cursor.set_aside), (ASIDE, 503), "the list is bounded, the count is not");
        fs::write(file, b"{").unwrap();
        assert!(Cursor::load(directory.path(), "a").unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn the_slowest_sink_decides_and_one_that_never_began_has_nothing() {
        let directory = tempfile::tempdir().unwrap();
        for (sink, seq) in [("a", 7), ("b", 5)] {
            let chains = [("audit-x".to_owned(), Position { seq, ..Position::default() })].into();
            Cursor { chains, ..Cursor::default() }.save(directory.path(), sink).unwrap();
        }
        let least = |sinks: &[&str]| {
            let sinks: Vec<String> = sinks.iter().map(|s| (*s).to_owned()).collect();
            shipped_to_all(directory.path(), &sinks, "audit-x").unwrap()
        };
        assert_eq!((least(&[]), least(&["a", "b"]), least(&["a", "c"])), (None, Some(5), Some(0)));
    }

    #[test]
    fn one_process_feeds_a_sink() {
        let directory = tempfile::tempdir().unwrap();
        let held = try_lock(directory.path(), "a").unwrap().unwrap();
        assert!(try_lock(directory.path(), "a").unwrap().is_none());
        drop(held);
        assert!(try_lock(directory.path(), "a").unwrap().is_some());
    }
}

//! Names, modes and locks of the files in the audit directory. Everything is made 0600, the directory 0700.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::line::{GENESIS, Hash, hex, unhex};

const PREFIX: &str = "audit-";

/// The chains of a directory: names, and the numbers of their closed parts in order.
pub(crate) type Chains = BTreeMap<String, ChainFiles>;

/// Which files of a chain exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChainFiles {
    pub(crate) active: bool,
    pub(crate) parts: BTreeSet<u64>,
    pub(crate) head: bool,
    pub(crate) lock: bool,
}

/// Paths of one chain.
#[derive(Debug, Clone)]
pub(crate) struct ChainPaths {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
}

impl ChainPaths {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self { directory: directory.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn active(&self) -> PathBuf {
        self.directory.join(format!("{}.jsonl", self.name))
    }

    pub(crate) fn part_name(&self, part: u64) -> String {
        format!("{}.jsonl.{part}", self.name)
    }

    pub(crate) fn part(&self, part: u64) -> PathBuf {
        self.directory.join(self.part_name(part))
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.directory.join(format!("{}.head", self.name))
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.name))
    }

    /// The files with records in order: number of the part, and where it is. The active one is the last.
    pub(crate) fn in_order(&self, files: &ChainFiles) -> Vec<(u64, PathBuf)> {
        let mut order: Vec<_> = files.parts.iter().map(|part| (*part, self.part(*part))).collect();
        if files.active {
            order.push((files.parts.last().map_or(1, |last| last + 1), self.active()));
        }
        order
    }
}

/// Makes the directory (mode 0700) when it does not exist.
pub(crate) fn prepare(directory: &Path) -> Result<(), AuditError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(AuditError::file(directory, "created"))
}

/// Looks at what is there.
pub(crate) fn chains(directory: &Path) -> Result<Chains, AuditError> {
    let mut chains = Chains::new();
    for entry in fs::read_dir(directory).map_err(AuditError::file(directory, "read"))? {
        let name = entry.map_err(AuditError::file(directory, "read"))?.file_name();
        let Some((chain, rest)) = name.to_str().filter(|n| n.starts_with(PREFIX)).and_then(|n| n.split_once('.')) else {
            continue;
        };
        let files = chains.entry(chain.to_owned()).or_default();
        match rest {
            "jsonl" => files.active = true,
            "head" => files.head = true,
            "lock" => files.lock = true,
            other => {
                if let Some(part) = other.strip_prefix("jsonl.").and_then(|p| p.parse().ok()) {
                    files.parts.insert(part);
                }
            }
        }
    }
    Ok(chains)
}

/// What is known to be on disk. Never ahead of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) part: u64,
    /// Bytes of that part up to the end of the record.
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    pub(crate) closed: bool,
}

impl Head {
    /// Of a chain without records.
    pub(crate) const EMPTY: Self = Self { part: 1, offset: 0, sequence: 0, hash: GENESIS, closed: false };
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadForm {
    part: u64,
    offset: u64,
    seq: u64,
    hash: String,
    closed: bool,
}

/// Replaces the head, whole or not at all.
pub(crate) fn write_head(paths: &ChainPaths, head: &Head) -> Result<(), AuditError> {
    let form = HeadForm { part: head.part, offset: head.offset, seq: head.sequence, hash: hex(&head.hash), closed: head.closed };
    let text = serde_json::to_vec(&form).map_err(|e| AuditError::Encode(e.to_string()))?;
    let (path, new) = (paths.head(), paths.directory.join(format!("{}.head.new", paths.name)));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(AuditError::file(&new, "created"))?;
    file.write_all(&text).and_then(|()| file.sync_data()).map_err(AuditError::file(&new, "written"))?;
    fs::rename(&new, &path).map_err(AuditError::file(&path, "replaced"))
}

/// The head, or why it cannot be used.
pub(crate) fn read_head(paths: &ChainPaths) -> Result<Head, String> {
    let text = fs::read(paths.head()).map_err(|e| format!("its head file cannot be read: {e}"))?;
    let form: HeadForm = serde_json::from_slice(&text).map_err(|e| format!("its head file is damaged: {e}"))?;
    let hash = unhex(&form.hash).map_err(|e| format!("its head file is damaged: {e}"))?;
    Ok(Head { part: form.part, offset: form.offset, sequence: form.seq, hash, closed: form.closed })
}

/// Takes the writer's lock of a chain; `None` when another process has it. Held until dropped.
pub(crate) fn try_lock(path: &Path, create: bool) -> Result<Option<File>, AuditError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(create)
        .mode(0o600)
        .open(path)
        .map_err(AuditError::file(path, "opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(AuditError::file(path, "locked")(e)),
    }
}

/// Whether a process writes the chain right now.
pub(crate) fn is_live(paths: &ChainPaths) -> bool {
    File::open(paths.lock()).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens the file being written; writes go to its end whatever happens.
pub(crate) fn open_active(path: &Path) -> Result<File, AuditError> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(AuditError::file(path, "opened"))
}

/// Makes new names in the directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), AuditError> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(AuditError::file(directory, "synced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_chains_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "audit-a-1.jsonl",
            "audit-a-1.jsonl.2",
            "audit-a-1.jsonl.10",
            "audit-a-1.jsonl.x",
            "audit.key",
            "audit-b.lock",
            "x.jsonl",
        ] {
            fs::write(directory.path().join(name), b"").unwrap();
        }
        let found = chains(directory.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["audit-a-1", "audit-b"]);
        let paths = ChainPaths::new(directory.path(), "audit-a-1");
        let order: Vec<_> = paths.in_order(&found["audit-a-1"]).into_iter().map(|(part, _)| part).collect();
        assert_eq!(order, [2, 10, 11]);
    }

    #[test]
    fn a_head_reads_back_and_damage_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ChainPaths::new(directory.path(), "audit-x");
        let head = Head { part: 3, offset: 99, sequence: 12, hash: [7; 32], closed: true };
        write_head(&paths, &head).unwrap();
        assert_eq!(read_head(&paths).unwrap(), head);
        fs::write(paths.head(), b"{}").unwrap();
        assert!(read_head(&paths).unwrap_err().contains("damaged"));
        fs::remove_file(paths.head()).unwrap();
        assert!(read_head(&paths).unwrap_err().contains("cannot be read"));
    }
}

//! Names, modes and locks of the files in the audit directory. Everything is made 0600, the directory 0700.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::event::Checkpoint;
use crate::line::{GENESIS, Hash, hex, unhex};
use crate::sign::{Signer, Statement};

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
    pub(crate) checkpoints: bool,
    pub(crate) base: bool,
    /// First part that retention left; those before it do not count any more.
    pub(crate) first_part: Option<u64>,
}

impl ChainFiles {
    /// Whether no record can be in them.
    pub(crate) fn is_bare(&self) -> bool {
        !self.active && self.parts.is_empty() && !self.head
    }

    /// Number of the file being written.
    pub(crate) fn active_part(&self) -> u64 {
        self.parts.last().map_or(1, |last| last + 1).max(self.first_part.unwrap_or(1))
    }

    /// Parts that should be there and are not.
    pub(crate) fn missing(&self) -> impl Iterator<Item = u64> {
        let last = self.parts.last().copied().unwrap_or(0);
        (self.first_part.unwrap_or(1)..=last).filter(|part| !self.parts.contains(part))
    }
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

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.directory.join(format!("{}.checkpoints", self.name))
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.directory.join(format!("{}.base", self.name))
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.name))
    }

    /// The files with records in order: number of the part, and where it is. The active one is the last.
    pub(crate) fn in_order(&self, files: &ChainFiles) -> Vec<(u64, PathBuf)> {
        let first = files.first_part.unwrap_or(1);
        let mut order: Vec<_> = files.parts.iter().filter(|part| **part >= first).map(|part| (*part, self.part(*part))).collect();
        if files.active {
            order.push((files.active_part(), self.active()));
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
            "checkpoints" => files.checkpoints = true,
            "base" => {
                files.base = true;
                files.first_part = read_base(&ChainPaths::new(directory, chain)).ok().flatten().map(|base| base.part);
            }
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
    /// Of the key that wrote it; `None` before heads were signed.
    pub(crate) signature: Option<String>,
}

impl Head {
    /// Of a chain without records.
    pub(crate) const EMPTY: Self = Self { part: 1, offset: 0, sequence: 0, hash: GENESIS, closed: false, signature: None };

    /// What its signature is over. The offset is left out: it is a hint that an erasure moves.
    pub(crate) fn statement<'a>(&self, chain: &'a str, hash: &'a str) -> Statement<'a> {
        Statement::Head { chain, part: self.part, sequence: self.sequence, hash, closed: self.closed }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadForm {
    part: u64,
    offset: u64,
    seq: u64,
    hash: String,
    closed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// Replaces a file, whole or not at all: written beside it, brought to disk, renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(AuditError::file(&new, "created"))?;
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(AuditError::file(&new, "written"))?;
    fs::rename(&new, path).map_err(AuditError::file(path, "replaced"))
}

/// Signs the head and puts it in the place of the one before.
pub(crate) fn write_head(paths: &ChainPaths, head: &Head, signer: &Signer) -> Result<(), AuditError> {
    let hash = hex(&head.hash);
    let signature = Some(signer.sign(&head.statement(&paths.name, &hash)));
    let form = HeadForm { part: head.part, offset: head.offset, seq: head.sequence, hash, closed: head.closed, signature };
    let text = serde_json::to_vec(&form).map_err(|e| AuditError::Encode(e.to_string()))?;
    replace(&paths.head(), &text)
}

/// Where a chain begins after retention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    /// First part that is left.
    pub(crate) part: u64,
    /// First record that is left.
    pub(crate) sequence: u64,
    /// Hash of the record before it, hexadecimal.
    pub(crate) prev: String,
    pub(crate) time: String,
    pub(crate) signature: String,
}

impl Base {
    pub(crate) fn statement<'a>(&'a self, chain: &'a str) -> Statement<'a> {
        Statement::Base { chain, part: self.part, sequence: self.sequence, prev: &self.prev, time: &self.time }
    }
}

/// Replaces the statement of where the chain begins.
pub(crate) fn write_base(paths: &ChainPaths, base: &Base) -> Result<(), AuditError> {
    let text = serde_json::to_vec(base).map_err(|e| AuditError::Encode(e.to_string()))?;
    replace(&paths.base(), &text)
}

/// Where the chain begins, when retention moved that; or why it cannot be told.
pub(crate) fn read_base(paths: &ChainPaths) -> Result<Option<Base>, String> {
    let text = match fs::read(paths.base()) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| format!("it is damaged: {e}"))
}

/// Adds a checkpoint to the file beside the chain.
pub(crate) fn append_checkpoint(paths: &ChainPaths, checkpoint: &Checkpoint) -> Result<(), AuditError> {
    let path = paths.checkpoints();
    let mut line = serde_json::to_vec(checkpoint).map_err(|e| AuditError::Encode(e.to_string()))?;
    line.push(b'\n');
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(AuditError::file(&path, "opened"))?;
    let before = file.metadata().map_err(AuditError::file(&path, "read"))?.len();
    file.write_all(&line).and_then(|()| file.sync_data()).map_err(|error| {
        // It is written again later; half a line in between would make both unreadable. If this fails too, `verify` says so.
        let _taken_back = file.set_len(before);
        AuditError::file(&path, "written")(error)
    })
}

/// A line of the file with checkpoints: its number, and what it holds or why that cannot be read.
pub(crate) type CheckpointLine = (u64, Result<Checkpoint, String>);

/// The checkpoints in the file beside the chain, by line from 1; an empty list when there is no such file.
pub(crate) fn read_checkpoints(paths: &ChainPaths) -> Result<Vec<CheckpointLine>, String> {
    let text = match fs::read(paths.checkpoints()) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("the file cannot be read: {error}")),
    };
    let mut lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    // What a crash left of a last line vouches for nothing and is no deed.
    lines.pop();
    Ok((1..).zip(lines).map(|(line, text)| (line, serde_json::from_slice(text).map_err(|e| e.to_string()))).collect())
}

/// The head, or why it cannot be used.
pub(crate) fn read_head(paths: &ChainPaths) -> Result<Head, String> {
    let text = fs::read(paths.head()).map_err(|e| format!("its head file cannot be read: {e}"))?;
    let form: HeadForm = serde_json::from_slice(&text).map_err(|e| format!("its head file is damaged: {e}"))?;
    let hash = unhex(&form.hash).map_err(|e| format!("its head file is damaged: {e}"))?;
    Ok(Head { part: form.part, offset: form.offset, sequence: form.seq, hash, closed: form.closed, signature: form.signature })
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

/// Whether retention took a closed part away, also when that was after the files were listed.
pub(crate) fn is_retired(paths: &ChainPaths, part: u64) -> bool {
    read_base(paths).ok().flatten().is_some_and(|base| part < base.part)
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
        let head = Head { part: 3, offset: 99, sequence: 12, hash: [7; 32], closed: true, signature: None };
        let signer = Signer::new(&portcullis_state::KeyFile::in_memory().unwrap());
        write_head(&paths, &head, &signer).unwrap();
        let read = read_head(&paths).unwrap();
        assert!(signer.public.signed(&read.statement("audit-x", &hex(&read.hash)), read.signature.as_deref().unwrap()));
        assert_eq!(Head { signature: None, ..read }, head);
        fs::write(paths.head(), b"{}").unwrap();
        assert!(read_head(&paths).unwrap_err().contains("damaged"));
        fs::remove_file(paths.head()).unwrap();
        assert!(read_head(&paths).unwrap_err().contains("cannot be read"));
    }
}

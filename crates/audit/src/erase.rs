//! Pseudonymising a subject. Takes personal text from beside the hashed bytes, so that every hash and signature still
//! fits; records what it takes before it takes it. Must not touch a chain that a process is writing, and must not leave
//! the subject's name behind, not even in its own bookkeeping.
//!
//! Crash safety: the plan is written to `erase.pending` first, then recorded and signed in the log, then each file is
//! rewritten beside itself and renamed; the plan is removed last. A second run finishes what a first one began.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::{Clock, PrincipalId};
use portcullis_state::KeyFile;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::event::{AuditEvent, ChainMark, Erasure, EventKind};
use crate::files::{ChainPaths, chains, is_live, read_head, replace, sync_directory, try_lock, write_head};
use crate::line::{read_links, read_open};
use crate::log::{AuditLog, AuditOptions};
use crate::scan::{Forward, Line};
use crate::seal::{ERASURE_ID, PSEUDONYM, hex_of};
use crate::sign::Signer;

const PENDING: &str = "erase.pending";
const LOCK: &str = "erase.lock";
/// Most spans in one record, so that its line stays well below the longest that is read.
const SPANS_PER_RECORD: usize = 10_000;
/// How long a process that was told to end may still hold its chain.
const LET_GO: Duration = Duration::from_secs(1);

type Spans = Vec<(u64, u64, u8)>;

/// What an erasure did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EraseReport {
    /// What the subject is called from now on; empty when nothing spoke of it.
    pub pseudonym: String,
    /// Records from which personal text was taken.
    pub records: u64,
    /// Files with what crashes left of lines that were removed because they named the subject.
    pub removed_files: u64,
    /// Records that still name the subject in a hashed field and cannot be changed: those from before personal text was
    /// sealed. Only retention removes them.
    pub left: u64,
    /// Whether an interrupted erasure was finished on the way.
    pub finished_earlier: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    id: String,
    subject: String,
    chains: BTreeMap<String, Spans>,
}

/// Pseudonymises `subject` (a principal such as `key:abc`) in all chains of the directory, on behalf of `by`. Refuses
/// when a running process writes a chain that speaks of the subject; then nothing is changed.
pub fn erase(
    directory: &Path,
    subject: &PrincipalId,
    by: &PrincipalId,
    clock: Arc<dyn Clock>,
    options: &AuditOptions,
) -> Result<EraseReport, AuditError> {
    let _lock = lock(directory)?;
    let key_file = options.key_file.clone().unwrap_or_else(|| directory.join("audit.key"));
    let signer = Signer::new(&KeyFile::load_or_create(&key_file)?);
    let work = Work { directory, by, clock, options, signer };
    let mut report = EraseReport::default();
    if let Some(plan) = pending(directory)? {
        report.finished_earlier = true;
        let same = plan.subject == subject.as_str();
        let records = work.carry_out(&plan)?;
        if same {
            report.records = records;
            report.pseudonym = format!("{PSEUDONYM}{}", plan.id);
        }
    }
    let (chains, left) = plan(directory, subject.as_str())?;
    report.left = left;
    if !chains.is_empty() {
        let id = hex_of(&KeyFile::in_memory()?.expose()[..ERASURE_ID / 2]);
        let plan = Plan { id, subject: subject.as_str().to_owned(), chains };
        refuse_if_live(directory, &plan)?;
        let text = serde_json::to_vec(&plan).map_err(|e| AuditError::Encode(e.to_string()))?;
        replace(&directory.join(PENDING), &text)?;
        sync_directory(directory)?;
        report.records += work.carry_out(&plan)?;
        report.pseudonym = format!("{PSEUDONYM}{}", plan.id);
    }
    report.removed_files = remove_torn(directory, subject.as_str())?;
    Ok(report)
}

fn lock(directory: &Path) -> Result<File, AuditError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(AuditError::file(&path, "opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::Erase("another erasure is running; wait for its end".to_owned())),
        Err(TryLockError::Error(error)) => Err(AuditError::file(&path, "locked")(error)),
    }
}

fn pending(directory: &Path) -> Result<Option<Plan>, AuditError> {
    let path = directory.join(PENDING);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
            AuditError::Erase(format!(
                "{} of an interrupted erasure is damaged ({e}); remove it and run the erasure again",
                path.display()
            ))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AuditError::file(&path, "read")(error)),
    }
}

/// What to look for in lines before they are read closely.
fn needle(subject: &str) -> &str {
    subject.strip_prefix("key:").filter(|key| !key.is_empty()).unwrap_or(subject)
}

/// Which records of which chains speak of the subject, and how many do so in bytes that cannot be changed.
fn plan(directory: &Path, subject: &str) -> Result<(BTreeMap<String, Spans>, u64), AuditError> {
    let (mut planned, mut left) = (BTreeMap::new(), 0);
    for (name, files) in chains(directory)? {
        let paths = ChainPaths::new(directory, &name);
        let mut spans = Spans::new();
        for (_, path) in paths.in_order(&files) {
            let mut lines = Forward::open(&path, 0).map_err(AuditError::file(&path, "read"))?;
            while let Some(line) = lines.next().map_err(AuditError::file(&path, "read"))? {
                let Line::Whole(bytes) = line else { continue };
                let Ok(text) = std::str::from_utf8(&bytes) else { continue };
                if !text.contains(needle(subject)) {
                    continue;
                }
                // What cannot be read is for `verify` to tell; nothing in it can be changed here.
                let Ok(links) = read_links(&bytes) else { continue };
                let opened = read_open(text).ok().flatten();
                let (bits, hashed) = match &opened {
                    Some((opened, at)) => (opened.mentions(subject), text.get(..at.start).unwrap_or(text)),
                    None => (0, text),
                };
                left += u64::from(hashed.contains(subject));
                if bits != 0 {
                    push(&mut spans, links.sequence, bits);
                }
            }
        }
        if !spans.is_empty() {
            planned.insert(name, spans);
        }
    }
    Ok((planned, left))
}

fn push(spans: &mut Spans, sequence: u64, bits: u8) {
    match spans.last_mut() {
        Some((_, last, same)) if *last + 1 == sequence && *same == bits => *last = sequence,
        _ => spans.push((sequence, sequence, bits)),
    }
}

/// Whether a chain is being written, and not by a process that is just ending.
fn stays_live(paths: &ChainPaths) -> bool {
    let until = Instant::now() + LET_GO;
    while is_live(paths) {
        if Instant::now() >= until {
            return true;
        }
        std::thread::sleep(LET_GO / 50);
    }
    false
}

fn refuse_if_live(directory: &Path, plan: &Plan) -> Result<(), AuditError> {
    for name in plan.chains.keys() {
        if stays_live(&ChainPaths::new(directory, name)) {
            return Err(AuditError::Erase(format!(
                "{name} speaks of the subject and is being written by a running process: stop it (portcullis serve, stdio), run the erasure, and start it again; nothing was changed"
            )));
        }
    }
    Ok(())
}

struct Work<'a> {
    directory: &'a Path,
    by: &'a PrincipalId,
    clock: Arc<dyn Clock>,
    options: &'a AuditOptions,
    signer: Signer,
}

impl Work<'_> {
    /// Records, rewrites, forgets the plan. Returns from how many records text was taken.
    fn carry_out(&self, plan: &Plan) -> Result<u64, AuditError> {
        refuse_if_live(self.directory, plan)?;
        if !self.is_recorded(&plan.id)? {
            self.record(plan)?;
        }
        let mut records = 0;
        for (name, spans) in &plan.chains {
            records += self.rewrite(&ChainPaths::new(self.directory, name), spans, &plan.id)?;
        }
        let path = self.directory.join(PENDING);
        fs::remove_file(&path).map_err(AuditError::file(&path, "removed"))?;
        sync_directory(self.directory)?;
        Ok(records)
    }

    /// Whether every record of the erasure is in the log: the last one carries the end of the plan.
    fn is_recorded(&self, id: &str) -> Result<bool, AuditError> {
        for (name, files) in chains(self.directory)? {
            for (_, path) in ChainPaths::new(self.directory, &name).in_order(&files) {
                let mut lines = Forward::open(&path, 0).map_err(AuditError::file(&path, "read"))?;
                while let Some(line) = lines.next().map_err(AuditError::file(&path, "read"))? {
                    let Line::Whole(bytes) = line else { continue };
                    let Ok(links) = read_links(&bytes) else { continue };
                    let complete = links.kind == EventKind::Erased
                        && links.mark.is_some_and(|m| m.erasures.iter().any(|e| e.id == id && e.chain.is_empty()));
                    if complete {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn record(&self, plan: &Plan) -> Result<(), AuditError> {
        let log = AuditLog::open_with(self.directory, Arc::clone(&self.clock), self.options.clone())?;
        let records: u64 = plan.chains.values().flatten().map(|(first, last, _)| last - first + 1).sum();
        let event = || {
            let event = AuditEvent::new(EventKind::Erased).method("audit.erase").target(format!("{PSEUDONYM}{}", plan.id));
            // Whoever erases himself is not named by the record of it.
            if self.by.as_str() == plan.subject { event } else { event.principal_id(self.by.clone()) }
        };
        for (name, spans) in &plan.chains {
            for spans in spans.chunks(SPANS_PER_RECORD) {
                let erasures = vec![Erasure::signed(log.signer(), &plan.id, name, spans)];
                log.append_mark(event(), ChainMark { erasures, ..ChainMark::default() })?;
            }
        }
        // An erasure without a chain ends the list, so that a crash in the middle of it is told from a whole one.
        let erasures = vec![Erasure::signed(log.signer(), &plan.id, "", &[])];
        let note = format!("{records} records");
        log.append_mark(event().note(note), ChainMark { erasures, ..ChainMark::default() })?;
        log.close()
    }

    /// Rewrites the files of one chain that hold planned records.
    fn rewrite(&self, paths: &ChainPaths, spans: &Spans, id: &str) -> Result<u64, AuditError> {
        let busy = || {
            AuditError::Erase(format!(
                "{} began to be written by another process meanwhile; the erasure is recorded, run it again to finish it",
                paths.name
            ))
        };
        let _lock = try_lock(&paths.lock(), false)?.ok_or_else(busy)?;
        let files = chains(self.directory)?.remove(&paths.name).unwrap_or_default();
        let mut head = read_head(paths).map_err(AuditError::Erase)?;
        let mut records = 0;
        for (part, path) in paths.in_order(&files) {
            let head_here = (part == head.part).then_some(head.sequence);
            if let Some(done) = rewrite_file(&path, spans, id, head_here)? {
                records += done.records;
                if let Some(offset) = done.head_offset {
                    head.offset = offset;
                    write_head(paths, &head, &self.signer)?;
                }
            }
        }
        sync_directory(self.directory)?;
        Ok(records)
    }
}

struct Done {
    records: u64,
    /// Where the record the head names ends now, when it is in this file.
    head_offset: Option<u64>,
}

/// Rewrites one file when it holds planned records that still have their text.
fn rewrite_file(path: &Path, spans: &Spans, id: &str, head: Option<u64>) -> Result<Option<Done>, AuditError> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    let failed = |action| AuditError::file(path, action);
    let mut lines = Forward::open(path, 0).map_err(failed("read"))?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(AuditError::file(&new, "created"))?;
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let mut done = Done { records: 0, head_offset: None };
    let mut offset = 0;
    while let Some(line) = lines.next().map_err(failed("read"))? {
        let (mut bytes, whole) = match line {
            Line::Whole(bytes) => (bytes, true),
            Line::Incomplete(bytes) => (bytes, false),
            Line::TooLong => {
                let detail = format!("{} holds a line longer than any record; run 'portcullis audit verify'", path.display());
                return Err(AuditError::Erase(detail));
            }
        };
        let sequence = read_links(&bytes).ok().map(|links| links.sequence);
        if let Some(erased) = sequence.and_then(|sequence| bits_of(spans, sequence)).and_then(|bits| erased(&bytes, bits, id)) {
            bytes = erased;
            done.records += 1;
        }
        if whole {
            bytes.push(b'\n');
        }
        out.write_all(&bytes).map_err(AuditError::file(&new, "written"))?;
        offset += bytes.len() as u64;
        if head.is_some() && sequence == head {
            done.head_offset = Some(offset);
        }
    }
    let file = out.into_inner().map_err(|e| AuditError::file(&new, "written")(e.into_error()))?;
    if done.records == 0 {
        fs::remove_file(&new).map_err(AuditError::file(&new, "removed"))?;
        return Ok(None);
    }
    file.sync_all().map_err(AuditError::file(&new, "synced"))?;
    fs::rename(&new, path).map_err(failed("replaced"))?;
    Ok(Some(done))
}

fn bits_of(spans: &Spans, sequence: u64) -> Option<u8> {
    let at = spans.partition_point(|(first, ..)| *first <= sequence).checked_sub(1)?;
    spans.get(at).filter(|(_, last, _)| sequence <= *last).map(|(.., bits)| *bits)
}

/// The line without the clear text of the groups; `None` when there is none any more.
fn erased(line: &[u8], bits: u8, id: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let (mut opened, at) = read_open(text).ok()??;
    if !opened.erase(bits, id) {
        return None;
    }
    Some([text.get(..at.start)?.as_bytes(), &opened.write(), text.get(at.end..)?.as_bytes()].concat())
}

/// What crashes left of lines is outside of the chain; what names the subject there goes as a whole.
fn remove_torn(directory: &Path, subject: &str) -> Result<u64, AuditError> {
    let mut removed = 0;
    for entry in fs::read_dir(directory).map_err(AuditError::file(directory, "read"))? {
        let path = entry.map_err(AuditError::file(directory, "read"))?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().contains(".torn-")) {
            continue;
        }
        let bytes = fs::read(&path).map_err(AuditError::file(&path, "read"))?;
        if String::from_utf8_lossy(&bytes).contains(needle(subject)) {
            fs::remove_file(&path).map_err(AuditError::file(&path, "removed"))?;
            removed += 1;
        }
    }
    Ok(removed)
}

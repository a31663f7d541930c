//! Reading records back: the last ones, or all in the order of their times. What cannot be read is reported, not
//! skipped. Says nothing about whether records are genuine; that is for `verify`.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_model::{FaultCode, Timestamp, parse_instant};
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::event::{AuditEvent, Decision, EventKind};
use crate::files::{ChainFiles, ChainPaths, chains, is_live, is_retired};
use crate::line::read_open;
use crate::scan::{Backward, Forward, Line};

/// Most lines listed that cannot be read.
const UNREADABLE: usize = 100;

/// How often the file being written is looked for while there is none.
const LOOKS: usize = 100;

/// How long between two such looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Chain it is in.
    pub chain: String,
    /// Its number there.
    pub sequence: u64,
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    pub event: AuditEvent,
    /// The line itself.
    pub line: String,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was about to begin: how it ended is in a record of its own.
    Begun,
    /// Well.
    Ok,
    /// It was let through and failed.
    Failed,
    /// It was not let through.
    Refused,
}

impl Outcome {
    /// The name in tables and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

impl Record {
    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        match (self.event.decision, self.event.code) {
            _ if self.event.kind == EventKind::Intent => Outcome::Begun,
            (Some(Decision::Deny), _) => Outcome::Refused,
            (_, Some(_)) => Outcome::Failed,
            _ => Outcome::Ok,
        }
    }

    /// Everything it says as one flat object: `seq`, `time`, `log` (the chain), then the fields of the event. This is
    /// for reading; hashes and seals are in [`Record::line`].
    pub fn to_json(&self) -> serde_json::Value {
        let mut flat = serde_json::Map::new();
        flat.insert("seq".to_owned(), self.sequence.into());
        flat.insert("time".to_owned(), self.time.to_string().into());
        flat.insert("log".to_owned(), self.chain.clone().into());
        if let Ok(serde_json::Value::Object(event)) = serde_json::to_value(&self.event) {
            flat.extend(event);
        }
        serde_json::Value::Object(flat)
    }

    /// Where it is, for going on after it: `chain/sequence`.
    pub fn position(&self) -> String {
        format!("{}/{}", self.chain, self.sequence)
    }
}

/// Something that should have been a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{file}: {detail}; run 'portcullis audit verify'")]
pub struct Unreadable {
    /// File inside the audit directory.
    pub file: String,
    /// What is wrong.
    pub detail: String,
}

/// Which records are wanted. Everything that is set must fit; the default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// One of these kinds; empty for all.
    pub kinds: BTreeSet<EventKind>,
    /// This principal.
    pub principal: Option<String>,
    /// This tenant.
    pub tenant: Option<String>,
    /// This tool, prompt or resource.
    pub tool: Option<String>,
    /// This session.
    pub session: Option<String>,
    /// This decision.
    pub decision: Option<Decision>,
    /// Ended with this code.
    pub code: Option<FaultCode>,
    /// Ended so.
    pub outcome: Option<Outcome>,
    /// This text anywhere in the line.
    pub text: Option<String>,
}

impl AuditFilter {
    /// Whether a record is wanted.
    pub fn matches(&self, record: &Record) -> bool {
        let event = &record.event;
        let same = |wanted: Option<&String>, found: Option<&str>| wanted.is_none_or(|w| found == Some(w.as_str()));
        self.since.is_none_or(|at| record.time >= at)
            && self.until.is_none_or(|at| record.time < at)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && same(self.principal.as_ref(), event.principal.as_ref().map(portcullis_model::PrincipalId::as_str))
            && same(self.tenant.as_ref(), event.tenant.as_ref().map(portcullis_model::TenantId::as_str))
            && same(self.tool.as_ref(), event.tool.as_deref())
            && same(self.session.as_ref(), event.session.as_deref())
            && self.code.is_none_or(|c| event.code == Some(c))
            && self.outcome.is_none_or(|o| record.outcome() == o)
            && self.decision.is_none_or(|d| event.decision == Some(d))
            && self.text.as_ref().is_none_or(|t| record.line.contains(t.as_str()))
    }
}

#[derive(Deserialize)]
struct Form {
    seq: u64,
    time: String,
    #[serde(flatten)]
    event: AuditEvent,
}

pub(crate) fn parse(chain: &str, bytes: Vec<u8>) -> Result<Record, String> {
    let line = String::from_utf8(bytes).map_err(|_| "a line is not UTF-8".to_owned())?;
    let form: Form = serde_json::from_str(&line).map_err(|e| format!("a line is not an audit record: {e}"))?;
    let time = parse_instant(&form.time, Timestamp::default()).map_err(|e| format!("record {}: {e}", form.seq))?;
    let mut event = form.event;
    if let Some((opened, _)) = read_open(&line)? {
        opened.fill(&mut event).map_err(|e| format!("record {}: {e}", form.seq))?;
    }
    Ok(Record { chain: chain.to_owned(), sequence: form.seq, time, event, line })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The record in a line, `None` for a line its writer is in the middle of.
fn read(chain: &str, path: &Path, line: Line, live: bool) -> Option<Result<Record, Unreadable>> {
    let read = match line {
        Line::Whole(bytes) => parse(chain, bytes),
        Line::Incomplete(_) if live => return None,
        Line::Incomplete(bytes) => Err(format!("the last line is not complete ({} bytes)", bytes.len())),
        Line::TooLong => Err("a line is longer than any record".to_owned()),
    };
    Some(read.map_err(|detail| Unreadable { file: file_name(path), detail }))
}

/// The files of a chain as they were at one moment.
struct Held {
    closed: Vec<(u64, PathBuf)>,
    /// The one being written. It stays what it is when it is closed and another gets its name.
    active: Option<(PathBuf, File)>,
}

impl Held {
    /// Opens the file being written first and lists the others then: it may be closed in between, and is known again.
    fn of(paths: &ChainPaths, files: ChainFiles, live: bool) -> Result<Self, AuditError> {
        let path = paths.active();
        let mut active = None;
        for _ in 0..LOOKS {
            active = match File::open(&path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(AuditError::file(&path, "read")(error)),
            };
            // Who writes has a file; between closing one and beginning the next there is none.
            if active.is_some() || !live {
                break;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        let files = if live { chains(&paths.directory)?.remove(&paths.name).unwrap_or_default() } else { files };
        let mut closed = paths.in_order(&files);
        closed.retain(|(part, _)| files.parts.contains(part));
        if let Some(file) = active.as_ref().filter(|_| live) {
            let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
            let opened = file.metadata().map(identity).map_err(AuditError::file(&path, "read"))?;
            if let Some(at) = closed.iter().rposition(|(_, path)| path.metadata().is_ok_and(|part| identity(part) == opened)) {
                closed.truncate(at);
            }
        }
        Ok(Self { closed, active: active.map(|file| (path, file)) })
    }
}

/// The last records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    /// In the order of their times.
    pub records: Vec<Record>,
    /// What could not be read on the way; beyond 100 the last entry says that there is more.
    pub unreadable: Vec<Unreadable>,
}

impl Tail {
    /// Takes what is still wanted from the end of one file.
    fn take(
        &mut self,
        chain: &str,
        path: &Path,
        mut lines: Backward,
        live: bool,
        filter: &AuditFilter,
        wanted: &mut usize,
    ) -> Result<(), AuditError> {
        while *wanted > 0 {
            let Some(line) = lines.next().map_err(AuditError::file(path, "read"))? else { break };
            match read(chain, path, line, live) {
                Some(Ok(record)) if filter.matches(&record) => {
                    self.records.push(record);
                    *wanted -= 1;
                }
                Some(Err(unreadable)) => self.not_read(unreadable),
                Some(Ok(_)) | None => {}
            }
        }
        Ok(())
    }

    fn not_read(&mut self, unreadable: Unreadable) {
        match self.unreadable.len().cmp(&UNREADABLE) {
            Ordering::Less => self.unreadable.push(unreadable),
            Ordering::Equal => {
                let detail = "this and further lines cannot be read either".to_owned();
                self.unreadable.push(Unreadable { detail, ..unreadable });
            }
            Ordering::Greater => {}
        }
    }
}

/// The last `count` records of all chains that fit the filter.
pub fn tail(directory: &Path, count: usize, filter: &AuditFilter) -> Result<Tail, AuditError> {
    let mut tail = Tail::default();
    for (name, files) in chains(directory)? {
        let paths = ChainPaths::new(directory, &name);
        let live = is_live(&paths);
        let Held { closed, active } = Held::of(&paths, files, live)?;
        let mut wanted = count;
        if let Some((path, file)) = active {
            let lines = Backward::of(file).map_err(AuditError::file(&path, "read"))?;
            tail.take(&name, &path, lines, live, filter, &mut wanted)?;
        }
        for (part, path) in closed.into_iter().rev() {
            if wanted == 0 {
                break;
            }
            match Backward::open(&path, None) {
                Ok(lines) => tail.take(&name, &path, lines, live, filter, &mut wanted)?,
                // It ended while the newer ones were read, and what is older than it did too.
                Err(error) if error.kind() == ErrorKind::NotFound && is_retired(&paths, part) => break,
                Err(error) => return Err(AuditError::file(&path, "read")(error)),
            }
        }
    }
    tail.records.sort_by(|a, b| (a.time, &a.chain, a.sequence).cmp(&(b.time, &b.chain, b.sequence)));
    let surplus = tail.records.len().saturating_sub(count);
    tail.records.drain(..surplus);
    Ok(tail)
}

struct Cursor {
    paths: ChainPaths,
    live: bool,
    closed: VecDeque<(u64, PathBuf)>,
    active: Option<(PathBuf, File)>,
    open: Option<(PathBuf, Forward)>,
    next: Option<Result<Record, Unreadable>>,
}

impl Cursor {
    /// Opens the file that comes next; `None` when there is none or it is not there any more.
    fn open_next(&mut self) -> Option<Result<(PathBuf, Forward), Unreadable>> {
        while let Some((part, path)) = self.closed.pop_front() {
            match Forward::open(&path, 0) {
                Ok(lines) => return Some(Ok((path, lines))),
                Err(error) if error.kind() == ErrorKind::NotFound && is_retired(&self.paths, part) => {}
                Err(error) => return Some(Err(Unreadable { file: file_name(&path), detail: error.to_string() })),
            }
        }
        self.active.take().map(|(path, file)| Ok((path, Forward::of(file))))
    }

    fn advance(&mut self) -> Option<Result<Record, Unreadable>> {
        loop {
            let Some((path, lines)) = &mut self.open else {
                match self.open_next()? {
                    Ok(opened) => self.open = Some(opened),
                    Err(unreadable) => return Some(Err(unreadable)),
                }
                continue;
            };
            match lines.next() {
                Ok(Some(line)) => {
                    if let Some(read) = read(&self.paths.name, path, line, self.live) {
                        return Some(read);
                    }
                }
                Ok(None) => self.open = None,
                Err(error) => {
                    let file = file_name(path);
                    self.open = None;
                    return Some(Err(Unreadable { file, detail: error.to_string() }));
                }
            }
        }
    }
}

/// Records of all chains in the order of their times; see [`query`].
pub struct Query {
    cursors: Vec<Cursor>,
    filter: AuditFilter,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("chains", &self.cursors.len()).field("filter", &self.filter).finish()
    }
}

/// Reads all records that fit the filter, oldest first, in bounded memory.
pub fn query(directory: &Path, filter: AuditFilter) -> Result<Query, AuditError> {
    let mut cursors = Vec::new();
    for (name, files) in chains(directory)? {
        let paths = ChainPaths::new(directory, &name);
        let live = is_live(&paths);
        let Held { closed, active } = Held::of(&paths, files, live)?;
        let mut cursor = Cursor { paths, live, closed: closed.into(), active, open: None, next: None };
        cursor.next = cursor.advance();
        cursors.push(cursor);
    }
    Ok(Query { cursors, filter })
}

impl Iterator for Query {
    type Item = Result<Record, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // What cannot be read has no time and comes at once.
            let key = |c: &Cursor| c.next.as_ref().map(|n| n.as_ref().map_or(Timestamp::from_nanos(i64::MIN), |r| r.time));
            let (_, earliest) =
                self.cursors.iter().enumerate().filter_map(|(index, cursor)| key(cursor).map(|time| (time, index))).min()?;
            let cursor = self.cursors.get_mut(earliest)?;
            let following = cursor.advance();
            match std::mem::replace(&mut cursor.next, following)? {
                Ok(record) if !self.filter.matches(&record) => {}
                found => return Some(found),
            }
        }
    }
}

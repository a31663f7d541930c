//! Writing. A record is in the kernel's hands when [`AuditLog::append`] returns, so killing the process loses none;
//! it is on disk within a second. When that can no longer be promised, every further append fails; while something is only in
//! the way, appends fail until it is gone.

mod blocked;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_model::{Clock, RiskClass, format_timestamp};
use portcullis_state::KeyFile;
use serde_json::Value;

use self::blocked::{Blocked, Obstacle, shortened};
use crate::AuditError;
use crate::event::{AuditEvent, ChainMark, Checkpoint, EventKind, RetentionMark, Witness};
use crate::failure::{Failing, FailurePolicy, Reaction};
use crate::files::{
    ChainPaths, Head, append_checkpoint, chains, open_active, prepare, read_head, sync_directory, try_lock, write_head,
};
use crate::fingerprint::Fingerprinter;
use crate::line::{Encoded, GENESIS, Hash, hex, write_line};
use crate::recover::{ChainEnd, end_of_chain};
use crate::retention::{Removed, Retention, remove_old};
use crate::seal::Sealer;
use crate::sign::{PublicKey, Signer, Statement};

/// Most other chains a new session bears witness to.
const WITNESSES: usize = 32;

/// How often retention looks for parts that are too old, at least.
const RETENTION_EVERY: Duration = Duration::from_hours(1);

/// How the log behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditOptions {
    /// A file that has reached this many bytes is closed and a new one begun.
    pub rotate_at_bytes: u64,
    /// How long a record may be only in the kernel's hands.
    pub sync_every: Duration,
    /// A checkpoint is signed after this many records, at the next synchronisation.
    pub checkpoint_records: u64,
    /// A checkpoint is signed when the oldest record without one is this old.
    pub checkpoint_every: Duration,
    /// What is removed, and when.
    pub retention: Retention,
    /// What happens to calls when records cannot be written.
    pub on_failure: FailurePolicy,
    /// File of the key for fingerprints and signatures; `audit.key` in the audit directory when absent. On another
    /// volume it cannot be taken together with the records.
    pub key_file: Option<PathBuf>,
    /// Names of the sinks that must have a record before retention removes it.
    pub required_sinks: Vec<String>,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            rotate_at_bytes: 64 << 20,
            sync_every: Duration::from_secs(1),
            checkpoint_records: 1_000,
            checkpoint_every: Duration::from_mins(1),
            retention: Retention::default(),
            on_failure: FailurePolicy::default(),
            key_file: None,
            required_sinks: Vec::new(),
        }
    }
}

/// A record that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number in the chain.
    pub sequence: u64,
}

struct State {
    file: Arc<File>,
    part: u64,
    length: u64,
    sequence: u64,
    hash: Hash,
    line: Vec<u8>,
    /// The current file still lacks the record that ties it to the one before.
    header_due: bool,
    /// There are records newer than the head.
    dirty: bool,
    /// Record up to which a checkpoint vouches, that checkpoint included.
    signed: u64,
    /// When the first record after it was written.
    unsigned_since: Option<Instant>,
    /// When the current file got its first record.
    part_began: Option<Instant>,
    /// A checkpoint of the chain that is not in the file beside it yet.
    owed: Option<Checkpoint>,
    /// Why nothing more is written by this process.
    stopped: Option<String>,
    /// Why nothing is written at the moment.
    blocked: Option<Blocked>,
    closed: bool,
}

impl State {
    fn head(&self, closed: bool) -> Head {
        Head { part: self.part, offset: self.length, sequence: self.sequence, hash: self.hash, closed, signature: None }
    }
}

struct Shared {
    paths: ChainPaths,
    clock: Arc<dyn Clock>,
    options: AuditOptions,
    state: Mutex<State>,
    /// Told when the first record after a synchronisation was written, and when the log closes.
    changed: Condvar,
    /// Sequence number in the head file; heads are written in order.
    head: Mutex<u64>,
    /// Why the last synchronisation did not succeed, if it did not.
    trouble: Mutex<Option<String>>,
    /// Held as long as this process writes.
    lock: Mutex<Option<File>>,
    signer: Signer,
    sealer: Sealer,
    failing: Failing,
    /// Why calls are stopped though records can be written, by sink.
    held: Mutex<BTreeMap<String, String>>,
}

/// The audit log of this process. Closing (or dropping) it writes everything to disk.
pub struct AuditLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    fingerprinter: Fingerprinter,
    appended: AtomicU64,
    not_appended: AtomicU64,
}

/// What this process wrote since it opened the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditCounts {
    /// Records written.
    pub appended: u64,
    /// Records that could not be written.
    pub failed: u64,
    /// Calls that went ahead without a record and are not yet accounted for by one.
    pub unrecorded: u64,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("file", &self.shared.paths.active()).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AuditLog {
    /// Opens the audit directory for writing: continues a chain that no process holds, or begins one. What a crash
    /// left of a last line is moved aside and recorded; a damaged chain is left as it is and named in the first
    /// record of this session.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        Self::open_with(directory, clock, AuditOptions::default())
    }

    /// The same with other options.
    pub fn open_with(directory: &Path, clock: Arc<dyn Clock>, options: AuditOptions) -> Result<Self, AuditError> {
        prepare(directory)?;
        let key_file = options.key_file.clone().unwrap_or_else(|| directory.join("audit.key"));
        let key = KeyFile::load_or_create(&key_file)?;
        let (fingerprinter, signer) = (Fingerprinter::new(&key), Signer::new(&key));
        signer.publish(directory)?;
        let mut left_aside = BTreeMap::new();
        // Whether there is a public key beside the records says nothing: whoever can write there can also remove it.
        let (paths, lock, end) = match free_chain(directory, &signer.public, &mut left_aside)? {
            Some(found) => found,
            None => new_chain(directory, &*clock, &signer)?,
        };
        for (chain, problem) in &left_aside {
            tracing::error!(%chain, "an audit chain is left as it is and not continued: {problem}");
        }
        let moved_to = move_torn_aside(&paths, &end)?;
        let file = open_active(&paths.active())?;
        // What the chain ends with may not be on disk yet; the head must never be ahead of it.
        file.sync_data().map_err(AuditError::file(&paths.active(), "synced"))?;
        sync_directory(directory)?;
        let state = State {
            file: Arc::new(file),
            part: end.part,
            length: end.length,
            sequence: end.sequence,
            hash: end.hash,
            line: Vec::with_capacity(1024),
            header_due: end.part > 1 && end.length == 0,
            dirty: false,
            signed: end.sequence,
            unsigned_since: None,
            part_began: (end.length > 0).then(Instant::now),
            owed: None,
            stopped: None,
            blocked: None,
            closed: false,
        };
        write_head(&paths, &state.head(false), &signer)?;
        let witnesses = witnesses(directory, &paths.name)?;
        let shared = Arc::new(Shared {
            head: Mutex::new(state.sequence),
            paths,
            clock,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
            trouble: Mutex::new(None),
            lock: Mutex::new(Some(lock)),
            signer,
            sealer: Sealer::new()?,
            failing: Failing::default(),
            held: Mutex::default(),
        });
        let note = moved_to.as_ref().map(|_| format!("{} bytes of an incomplete record were moved aside", end.torn));
        let signing_key = Some(shared.signer.name.clone());
        let opened = ChainMark { left_aside, witnesses, signing_key, ..ChainMark::default() };
        shared.open_session(note, moved_to, opened)?;
        let background = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-sync".to_owned())
            .spawn(move || background.keep_synced())
            .map_err(AuditError::file(directory, "watched"))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            fingerprinter,
            appended: AtomicU64::new(0),
            not_appended: AtomicU64::new(0),
        })
    }

    /// Writes one record. On an error nothing was recorded and what it is about must not go ahead.
    pub fn append(&self, event: impl Borrow<AuditEvent>) -> Result<Appended, AuditError> {
        let appended = self.append_uncounted(event.borrow());
        let counter = if appended.is_ok() { &self.appended } else { &self.not_appended };
        counter.fetch_add(1, Ordering::Relaxed);
        appended
    }

    fn append_uncounted(&self, event: &AuditEvent) -> Result<Appended, AuditError> {
        let event = event.encode(&self.shared.sealer)?;
        let mut state = locked(&self.shared.state);
        self.shared.append(&mut state, &event)
    }

    /// What was written since the log was opened here, and what could not be.
    pub fn counts(&self) -> AuditCounts {
        AuditCounts {
            appended: self.appended.load(Ordering::Relaxed),
            failed: self.not_appended.load(Ordering::Relaxed),
            unrecorded: self.unrecorded(),
        }
    }

    /// Writes the record of a call of the given risk class. When that fails and the operator chose to go on for this
    /// class, the call may go ahead without a record: `None`. How many did is in [`unrecorded`](Self::unrecorded), and
    /// a record says so as soon as one can be written again.
    pub fn append_for(&self, risk: RiskClass, event: impl Borrow<AuditEvent>) -> Result<Option<Appended>, AuditError> {
        let failing = &self.shared.failing;
        match self.append(event) {
            Ok(appended) => {
                if let Some((count, since)) = failing.settle() {
                    let note = format!("{count} calls went ahead without a record since {since}: the log could not be written");
                    self.append(AuditEvent::error(portcullis_model::FaultCode::Unavailable, note))
                        .inspect_err(|_| failing.put_back(count, since))?;
                }
                Ok(Some(appended))
            }
            Err(error) => match self.shared.options.on_failure.reaction(risk) {
                Reaction::Stop => Err(error),
                Reaction::Continue => {
                    failing.note(self.shared.clock.now());
                    Ok(None)
                }
            },
        }
    }

    /// Writes the record of a call of the given risk class that is about to be made, and gives where it stands:
    /// `chain/sequence`. `None` where it cannot be written and the operator chose to go on for this class; then the record of
    /// the end says what is missing.
    pub fn append_intent(&self, risk: RiskClass, event: impl Borrow<AuditEvent>) -> Result<Option<String>, AuditError> {
        match self.append(event) {
            Ok(appended) => Ok(Some(format!("{}/{}", self.shared.paths.name, appended.sequence))),
            Err(error) => match self.shared.options.on_failure.reaction(risk) {
                Reaction::Stop => Err(error),
                Reaction::Continue => Ok(None),
            },
        }
    }

    /// Whether a call of this risk class may begin: the log works, or the operator chose to go on without it. Asked
    /// before the call, so that nothing is done that can not be recorded. A required sink that is too far behind stops
    /// calls as well.
    pub fn may_begin(&self, risk: RiskClass) -> Result<(), String> {
        let held = || locked(&self.shared.held).values().next().cloned().map_or(Ok(()), Err);
        match self.health().and_then(|()| held()) {
            Err(reason) if self.shared.options.on_failure.reaction(risk) == Reaction::Stop => Err(reason),
            _ => Ok(()),
        }
    }

    /// Stops calls for the sake of a sink, or lets them go on. Returns whether that is news.
    pub(crate) fn hold(&self, sink: &str, reason: Option<String>) -> bool {
        let mut held = locked(&self.shared.held);
        match reason {
            Some(reason) => held.insert(sink.to_owned(), reason).is_none(),
            None => held.remove(sink).is_some(),
        }
    }

    /// Calls that went ahead without a record and are not yet accounted for by one.
    pub fn unrecorded(&self) -> u64 {
        self.shared.failing.count()
    }

    /// The public key that checks this log's signatures.
    pub fn public_key(&self) -> PublicKey {
        self.shared.signer.public.clone()
    }

    /// The directory with the records.
    pub fn directory(&self) -> &Path {
        &self.shared.paths.directory
    }

    /// Writes an event together with what the log says about itself.
    pub(crate) fn append_mark(&self, event: AuditEvent, mark: ChainMark) -> Result<Appended, AuditError> {
        let shared = &self.shared;
        let mut state = locked(&shared.state);
        shared.make_ready(&mut state)?;
        let chain = Some(Box::new(shared.completed(state.part, mark)));
        let event = AuditEvent { chain, ..event }.encode(&shared.sealer)?;
        shared.write(&mut state, &event)
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.shared.signer
    }

    /// Signs everything written so far now.
    pub fn checkpoint(&self) -> Result<(), AuditError> {
        self.shared.checkpoint()
    }

    /// Removes what the retention rules no longer keep; returns what was removed.
    pub fn retain(&self) -> Result<Vec<RetentionMark>, AuditError> {
        self.shared.retain()
    }

    /// Keyed fingerprint of arguments: the same arguments, in any order of their keys, give the same one under this
    /// audit directory, and arguments cannot be guessed from it without the directory's key. 64 hexadecimal digits.
    pub fn fingerprint(&self, arguments: &Value) -> String {
        self.fingerprinter.of(arguments)
    }

    /// Number of the last record of this chain.
    pub fn last_sequence(&self) -> u64 {
        locked(&self.shared.state).sequence
    }

    /// Whether records can be written and reach the disk; otherwise what is wrong. What is only in the way is tried again
    /// in the background, so that this changes by itself.
    pub fn health(&self) -> Result<(), String> {
        {
            let state = locked(&self.shared.state);
            if let Some(reason) = state.stopped.as_deref().or(state.blocked.as_ref().map(Blocked::reason)) {
                return Err(reason.to_owned());
            }
        }
        locked(&self.shared.trouble).clone().map_or(Ok(()), Err)
    }

    /// Brings everything written so far to disk now.
    pub fn sync(&self) -> Result<(), AuditError> {
        self.shared.sync()
    }

    /// Ends the session in good order: last record, disk, head, lock. Later appends fail; closing twice is fine.
    pub fn close(&self) -> Result<(), AuditError> {
        let written = {
            let mut state = locked(&self.shared.state);
            if state.closed {
                return Ok(());
            }
            if let Some(blocked) = &mut state.blocked {
                blocked.at_once();
            }
            let written = self.shared.mark(&mut state, EventKind::Closed, ChainMark::default(), None);
            state.closed = true;
            written
        };
        self.shared.changed.notify_all();
        if let Some(thread) = locked(&self.thread).take() {
            // The thread ends by itself; a panic in it has nothing left to break here.
            let _ended = thread.join();
        }
        let synced = written.and_then(|_| self.shared.finish());
        locked(&self.shared.lock).take();
        synced
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        // Whoever must know whether it went well calls `close`.
        let _closed = self.close();
    }
}

impl Shared {
    fn append(&self, state: &mut State, event: &Encoded) -> Result<Appended, AuditError> {
        let appended = self.make_ready(state).and_then(|()| self.write(state, event));
        if appended.is_err()
            && let Some(blocked) = &mut state.blocked
        {
            blocked.missed_one();
        }
        appended
    }

    /// Refuses when the log is over, or something is still in the way.
    fn make_ready(&self, state: &mut State) -> Result<(), AuditError> {
        if state.closed {
            return Err(AuditError::Closed);
        }
        if let Some(reason) = &state.stopped {
            return Err(AuditError::Stopped { reason: reason.clone() });
        }
        self.try_again(state)?;
        self.make_room(state)
    }

    /// Begins a new file when the current one is full, and ties it to the one before.
    fn make_room(&self, state: &mut State) -> Result<(), AuditError> {
        if state.length >= self.options.rotate_at_bytes && !state.header_due {
            self.rotate(state)?;
        }
        if state.header_due {
            let mark = ChainMark { previous_file: Some(self.paths.part_name(state.part - 1)), ..ChainMark::default() };
            let header = self.encoded(state.part, EventKind::Continued, mark, None)?;
            self.write(state, &header)?;
            state.header_due = false;
        }
        Ok(())
    }

    fn completed(&self, part: u64, mark: ChainMark) -> ChainMark {
        ChainMark {
            chain: self.paths.name.clone(),
            part,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..mark
        }
    }

    fn encoded(&self, part: u64, kind: EventKind, mark: ChainMark, note: Option<String>) -> Result<Encoded, AuditError> {
        let event = AuditEvent::mark(kind, self.completed(part, mark));
        note.map_or(event.clone(), |note| event.note(note)).encode(&self.sealer)
    }

    fn mark(&self, state: &mut State, kind: EventKind, mark: ChainMark, note: Option<String>) -> Result<Appended, AuditError> {
        // The file's number is known only once there is room in it.
        self.make_ready(state)?;
        let event = self.encoded(state.part, kind, mark, note)?;
        self.write(state, &event)
    }

    fn open_session(&self, note: Option<String>, moved_to: Option<String>, opened: ChainMark) -> Result<(), AuditError> {
        let mut state = locked(&self.state);
        if moved_to.is_some() {
            let mark = ChainMark { moved_to, ..ChainMark::default() };
            self.mark(&mut state, EventKind::Recovered, mark, note)?;
        }
        self.mark(&mut state, EventKind::Opened, opened, None).map(|_| ())
    }

    /// One line, one write. What a failed write left is taken back, so that the chain stays whole.
    fn write(&self, state: &mut State, event: &Encoded) -> Result<Appended, AuditError> {
        let sequence = state.sequence + 1;
        let hash = write_line(&mut state.line, sequence, self.clock.now(), &state.hash, event);
        if let Err(error) = (&*state.file).write_all(&state.line) {
            let taken_back = shortened(&state.file, state.length);
            let error = AuditError::file(&self.paths.active(), "written")(error);
            match taken_back {
                Ok(()) => self.block(state, Obstacle::Refused, error.to_string()),
                Err(second) => {
                    let reason = format!("a record was written in part ({error}) and could not be taken back ({second})");
                    self.block(state, Obstacle::Torn, reason)
                }
            };
            return Err(error);
        }
        state.length += state.line.len() as u64;
        state.sequence = sequence;
        state.hash = hash;
        if state.unsigned_since.is_none() {
            state.unsigned_since = Some(Instant::now());
        }
        if state.part_began.is_none() {
            state.part_began = state.unsigned_since;
        }
        if !state.dirty {
            state.dirty = true;
            self.changed.notify_all();
        }
        Ok(Appended { sequence })
    }

    fn keep_synced(&self) {
        let (mut looked_for_old, mut troubled) = (None::<(Instant, u64)>, false);
        let mut state = locked(&self.state);
        loop {
            let idle = match state.unsigned_since {
                // Calls may be stopped for it: nothing else would find out that it is over.
                _ if troubled => self.options.sync_every,
                Some(_) => self.options.checkpoint_every,
                None => RETENTION_EVERY,
            };
            (state, _) = self
                .changed
                .wait_timeout_while(state, idle, |s| !s.dirty && !s.closed && s.blocked.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            if state.dirty || state.blocked.is_some() {
                // Records gather for a while, or what is in the way gets time to go; closing ends the wait.
                (state, _) = self
                    .changed
                    .wait_timeout_while(state, self.options.sync_every, |s| !s.closed)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            // What it says is kept where it is asked for, in the reason.
            let _in_the_way = self.try_again(&mut state);
            let checkpoint_due = self.checkpoint_due(&state);
            let part = state.part;
            drop(state);
            let mut trouble = self.sync().err();
            if trouble.is_none() && checkpoint_due {
                trouble = self.checkpoint().err();
            }
            if trouble.is_none() && looked_for_old.is_none_or(|(at, seen)| seen != part || at.elapsed() >= RETENTION_EVERY) {
                looked_for_old = Some((Instant::now(), part));
                trouble = self.retain().err();
            }
            troubled = trouble.is_some();
            *locked(&self.trouble) = trouble.map(|e| e.to_string());
            state = locked(&self.state);
        }
    }

    fn checkpoint_due(&self, state: &State) -> bool {
        state.owed.is_some()
            || state.sequence.saturating_sub(state.signed) >= self.options.checkpoint_records
            || state.unsigned_since.is_some_and(|since| since.elapsed() >= self.options.checkpoint_every)
    }

    fn signed_now(&self, sequence: u64, hash: &Hash) -> Checkpoint {
        let (hash, time) = (hex(hash), format_timestamp(self.clock.now()));
        let statement = Statement::Checkpoint { chain: &self.paths.name, sequence, hash: &hash, time: &time };
        let signature = self.signer.sign(&statement);
        Checkpoint { sequence, hash, time, key: self.signer.name.clone(), signature }
    }

    fn checkpoint(&self) -> Result<(), AuditError> {
        let mut state = locked(&self.state);
        if state.closed || state.stopped.is_some() || state.blocked.is_some() {
            return Ok(());
        }
        if state.unsigned_since.is_some() {
            self.make_ready(&mut state)?;
            let checkpoint = self.signed_now(state.sequence, &state.hash);
            let mark = ChainMark { checkpoint: Some(checkpoint.clone()), ..ChainMark::default() };
            let record = self.encoded(state.part, EventKind::Checkpoint, mark, None)?;
            self.write(&mut state, &record)?;
            state.signed = state.sequence;
            state.unsigned_since = None;
            state.owed = Some(checkpoint);
        }
        let Some(owed) = state.owed.take() else { return Ok(()) };
        drop(state);
        // A checkpoint must not outlive the records it vouches for in a power cut.
        let put = self.sync().and_then(|()| append_checkpoint(&self.paths, &owed));
        if put.is_err() {
            // A later one vouches for these records as well.
            locked(&self.state).owed.get_or_insert(owed);
        }
        put
    }

    fn retain(&self) -> Result<Vec<RetentionMark>, AuditError> {
        let retention = &self.options.retention;
        {
            let mut state = locked(&self.state);
            if state.stopped.is_some() || state.blocked.is_some() {
                // What is removed has to be recorded.
                return Ok(Vec::new());
            }
            let due = state.part_began.is_some_and(|began| retention.closes_file_after(began.elapsed()));
            if due && !state.closed && !state.header_due {
                self.rotate(&mut state)?;
            }
        }
        let removed = remove_old(&self.paths, retention, &self.options.required_sinks, self.clock.now(), &self.signer)?;
        let mut marks = Vec::new();
        for Removed { mark, erasures } in removed {
            let mut state = locked(&self.state);
            let note = format!("{} now begins at record {}", mark.chain, mark.first_sequence);
            let chain = ChainMark { retention: Some(mark.clone()), erasures, ..ChainMark::default() };
            self.mark(&mut state, EventKind::Retention, chain, Some(note))?;
            marks.push(mark);
        }
        Ok(marks)
    }

    fn sync(&self) -> Result<(), AuditError> {
        let (file, head) = {
            let mut state = locked(&self.state);
            if !state.dirty || state.stopped.is_some() {
                state.dirty = false;
                return Ok(());
            }
            if let Some(blocked) = state.blocked.as_ref().filter(|blocked| blocked.is_displaced()) {
                let (file, error) = (Arc::clone(&state.file), blocked.error());
                drop(state);
                // What was written goes to disk whatever its file is called; the head follows when that is in order.
                return self.to_disk(&file).and(Err(error));
            }
            self.check_file(&mut state)?;
            state.dirty = false;
            (Arc::clone(&state.file), state.head(false))
        };
        self.to_disk(&file)?;
        self.put_head(&head).inspect_err(|_| locked(&self.state).dirty = true)
    }

    fn finish(&self) -> Result<(), AuditError> {
        let (file, head) = {
            let mut state = locked(&self.state);
            self.check_file(&mut state)?;
            (Arc::clone(&state.file), state.head(true))
        };
        self.to_disk(&file)?;
        append_checkpoint(&self.paths, &self.signed_now(head.sequence, &head.hash))?;
        self.put_head(&head)
    }

    /// After a failed synchronisation the kernel may have dropped what it held: nothing can be promised any more.
    fn to_disk(&self, file: &File) -> Result<(), AuditError> {
        file.sync_data().map_err(|error| {
            Self::stop(&mut locked(&self.state), format!("records did not reach the disk: {error}"));
            AuditError::file(&self.paths.active(), "synced")(error)
        })
    }

    fn put_head(&self, head: &Head) -> Result<(), AuditError> {
        let mut written = locked(&self.head);
        if head.sequence < *written {
            return Ok(());
        }
        write_head(&self.paths, head, &self.signer)?;
        *written = head.sequence;
        Ok(())
    }
}

type Found = (ChainPaths, File, ChainEnd);

/// The newest chain that nobody holds and that is whole. Those that are not are named in `left_aside`.
fn free_chain(directory: &Path, key: &PublicKey, left_aside: &mut BTreeMap<String, String>) -> Result<Option<Found>, AuditError> {
    for (name, files) in chains(directory)?.into_iter().rev() {
        let paths = ChainPaths::new(directory, &name);
        if files.is_bare() && files.lock && !files.checkpoints {
            continue;
        }
        if !files.lock {
            left_aside.insert(name, "its lock file is missing".to_owned());
            continue;
        }
        let lock = match try_lock(&paths.lock(), false) {
            Ok(Some(lock)) => lock,
            Ok(None) => continue,
            Err(error) => {
                left_aside.insert(name, error.to_string());
                continue;
            }
        };
        // Its last writer may have gone on between the listing and the lock.
        let files = chains(directory)?.remove(&name).unwrap_or_default();
        match end_of_chain(&paths, &files, Some(key)) {
            Ok(end) => return Ok(Some((paths, lock, end))),
            Err(problem) => {
                left_aside.insert(name, problem);
            }
        }
    }
    Ok(None)
}

fn new_chain(directory: &Path, clock: &dyn Clock, signer: &Signer) -> Result<Found, AuditError> {
    let time: String = format_timestamp(clock.now()).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let time = time.split(['.', 'Z']).next().unwrap_or_default();
    let base = format!("audit-{time}Z-{}", std::process::id());
    let mut attempt = 1_u32;
    loop {
        let name = if attempt == 1 { base.clone() } else { format!("{base}-{attempt}") };
        let paths = ChainPaths::new(directory, &name);
        match try_lock(&paths.lock(), true) {
            Ok(Some(lock)) => {
                write_head(&paths, &Head::EMPTY, signer)?;
                let end = ChainEnd { part: 1, length: 0, sequence: 0, hash: GENESIS, torn: 0 };
                return Ok((paths, lock, end));
            }
            Ok(None) => {}
            Err(AuditError::File { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

/// Copies what a crash left behind the last record into its own file, then cuts it off. Returns that file's name.
fn move_torn_aside(paths: &ChainPaths, end: &ChainEnd) -> Result<Option<String>, AuditError> {
    if end.torn == 0 {
        return Ok(None);
    }
    let active = paths.active();
    let mut file = OpenOptions::new().read(true).write(true).open(&active).map_err(AuditError::file(&active, "opened"))?;
    let mut torn = Vec::new();
    file.seek(SeekFrom::Start(end.length))
        .and_then(|_| Read::by_ref(&mut file).take(end.torn).read_to_end(&mut torn))
        .map_err(AuditError::file(&active, "read"))?;
    let name = format!("{}.torn-{}", paths.name, end.sequence + 1);
    let aside = paths.directory.join(&name);
    // A crash during an earlier recovery may have left the same bytes there already.
    let mut copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(AuditError::file(&aside, "created"))?;
    copy.write_all(&torn).and_then(|()| copy.sync_all()).map_err(AuditError::file(&aside, "written"))?;
    sync_directory(&paths.directory)?;
    file.set_len(end.length).and_then(|()| file.sync_all()).map_err(AuditError::file(&active, "shortened"))?;
    Ok(Some(name))
}

fn witnesses(directory: &Path, own: &str) -> Result<Vec<Witness>, AuditError> {
    let others = chains(directory)?.into_keys().rev().filter(|name| name != own);
    let heads = others.filter_map(|name| read_head(&ChainPaths::new(directory, &name)).ok().map(|head| (name, head)));
    let known = heads.filter(|(_, head)| head.sequence > 0).take(WITNESSES);
    Ok(known.map(|(chain, head)| Witness { chain, sequence: head.sequence, hash: hex(&head.hash) }).collect())
}

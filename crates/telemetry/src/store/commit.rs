//! The committer: one thread that writes requests to the log, waits for the disk once for many of them, makes their
//! rows visible and only then acknowledges. Rows of a log file are always in the buffers of the same generation.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::flush::FlushJob;
use super::{Inner, lock};
use crate::convert::Converted;
use crate::error::{Result, StoreError};
use crate::wal::{Frame, WalWriter};

/// Bytes written with one wait for the disk at most.
const GROUP_BYTES: usize = 16 << 20;
/// How often age is looked at.
const TICK: Duration = Duration::from_millis(250);

/// What the committer is asked.
pub(crate) enum Command {
    /// Make a request durable and visible.
    Write {
        /// For the log.
        frame: Frame,
        /// Its rows.
        converted: Box<Converted>,
        /// The acknowledgement.
        reply: oneshot::Sender<Result<()>>,
    },
    /// Write the buffers to segments.
    Flush {
        /// Answered when they are.
        reply: oneshot::Sender<Result<()>>,
    },
    /// As `Flush`, and end.
    Close {
        /// Answered when they are.
        reply: oneshot::Sender<Result<()>>,
    },
}

type Pending = (Frame, Box<Converted>, oneshot::Sender<Result<()>>);

/// The thread's own state.
pub(super) struct Committer {
    pub(super) inner: Arc<Inner>,
    pub(super) commands: Receiver<Command>,
    pub(super) flushes: Sender<FlushJob>,
    pub(super) wal: WalWriter,
    pub(super) generation: u64,
}

impl Committer {
    /// Runs until it is closed or every sender is gone.
    pub(super) fn run(mut self) {
        let mut group: Vec<Pending> = Vec::new();
        let mut encoded = Vec::new();
        loop {
            let mut next = match self.commands.recv_timeout(TICK) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut other = None;
            while let Some(command) = next.take() {
                match command {
                    Command::Write { frame, converted, reply } => {
                        frame.encode(&mut encoded);
                        group.push((frame, converted, reply));
                        if encoded.len() < GROUP_BYTES {
                            next = self.commands.try_recv().ok();
                        }
                    }
                    flush_or_close => other = Some(flush_or_close),
                }
            }
            self.write(&mut group, &mut encoded);
            match other {
                Some(Command::Flush { reply }) => self.freeze(Some(reply)),
                Some(Command::Close { reply }) => {
                    self.inner.closing.store(true, Ordering::Release);
                    self.freeze(Some(reply));
                    return;
                }
                _ if self.is_due() => self.freeze(None),
                _ => {}
            }
            if self.inner.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn write(&mut self, group: &mut Vec<Pending>, encoded: &mut Vec<u8>) {
        if group.is_empty() {
            return;
        }
        let written = self.wal.append(encoded);
        encoded.clear();
        encoded.shrink_to(GROUP_BYTES / 4);
        self.inner.wal_bytes.store(self.wal.bytes(), Ordering::Release);
        if let Err(error) = &written {
            self.inner.note_error(error);
        }
        for (frame, converted, reply) in group.drain(..) {
            let result = match &written {
                Ok(()) => self.insert(&frame, *converted),
                Err(error) => Err(again(error)),
            };
            // The sender may have gone away; its records are stored all the same.
            let _ = reply.send(result);
        }
        self.inner.count_buffers();
    }

    fn insert(&self, frame: &Frame, converted: Converted) -> Result<()> {
        let mut state = self.inner.state_mut();
        let tenant = state.tenants.entry(frame.tenant.clone()).or_default();
        tenant.active.insert(converted)
    }

    fn is_due(&self) -> bool {
        let state = self.inner.state();
        let active = || state.tenants.values().map(|t| &t.active).filter(|a| a.bytes() > 0);
        let bytes: usize = active().map(crate::memory::MemoryTable::bytes).sum();
        let oldest = active().map(crate::memory::MemoryTable::since).min();
        // While one flush runs, the next waits for it: two frozen generations are the most that may be in memory.
        let busy = state.tenants.values().any(|t| !t.frozen.is_empty());
        !busy
            && (bytes as u64 >= self.inner.settings.flush_bytes
                || oldest.is_some_and(|since| since.elapsed() >= self.inner.settings.flush_after))
    }

    /// Ends the generation and hands its rows to the flusher.
    fn freeze(&mut self, reply: Option<oneshot::Sender<Result<()>>>) {
        let started = Instant::now();
        let next = match WalWriter::create(&self.inner.wal_directory, self.generation + 1) {
            Ok(wal) => wal,
            Err(error) => {
                self.inner.note_error(&error);
                if let Some(reply) = reply {
                    let _ = reply.send(Err(error));
                }
                return;
            }
        };
        {
            let mut state = self.inner.state_mut();
            for tenant in state.tenants.values_mut() {
                if tenant.active.bytes() > 0 {
                    let full = std::mem::take(&mut tenant.active);
                    tenant.frozen.push((self.generation, Arc::new(full)));
                }
            }
        }
        let job = FlushJob { generation: self.generation, reply };
        self.wal = next;
        self.generation += 1;
        self.inner.wal_bytes.store(self.wal.bytes(), Ordering::Release);
        tracing::debug!(generation = job.generation, waited = ?started.elapsed(), "write buffers handed over");
        if self.flushes.send(job).is_err() {
            *lock(&self.inner.last_error) = Some("the segment writer has ended".into());
        }
    }
}

/// The same failure for another sender of the group.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Io { action, path, source } => {
            StoreError::Io { action, path: path.clone(), source: std::io::Error::new(source.kind(), source.to_string()) }
        }
        other => StoreError::Invalid(other.to_string()),
    }
}

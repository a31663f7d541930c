//! A program of the operator's choice on its standard streams. Guards that it gets the environment it is given and nothing
//! of ours, ends with everything it started, and cannot fill memory or the log, nor write into it what it was given. Only what
//! the configuration names is ever started, by its absolute path and without a shell. How its processes are kept together is
//! in `keeper`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use portcullis_egress::Echoes;
use portcullis_model::Secret;
use portcullis_policy::Permit;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

#[cfg(target_os = "linux")]
use super::keeper;
use super::mux::{Mux, MuxCall};
use super::{Ask, Bounds, Keeping, files};
use crate::ear::Ear;
use crate::wire::{self, Trouble};

/// Messages that wait for the program to read them.
const OUTGOING: usize = 64;
/// Lines that are no messages before the program is given up.
const STRAY_LINES: u32 = 100;
/// Bytes of one line of its log that are kept.
const LOG_LINE: usize = 2_000;
/// Bytes of one line that are looked at before it is cut: half a credential is no longer known as one.
const LOOKED_AT: usize = 64 << 10;
/// Lines of its log per minute.
const LOG_LINES: u32 = 60;
/// How long it may take to end by itself, and then after being told.
const GRACE: Duration = Duration::from_secs(2);

/// What is started.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Of the upstream, for the log.
    pub name: Arc<str>,
    /// Absolute path.
    pub command: PathBuf,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, Secret)>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Files that must be unchanged, with their SHA-256.
    pub digests: Vec<(PathBuf, String)>,
    /// What is not to stand in our log, should it stand in its own.
    pub echoes: Echoes,
    /// Whether it serves one principal only.
    pub private: bool,
    /// How its processes are kept together.
    pub keeping: Keeping,
    /// Bounds of its messages.
    pub bounds: Bounds,
}

/// A program that runs.
pub(crate) struct ProgramLine {
    mux: Arc<Mux>,
    outgoing: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    group: Arc<Group>,
    ended: watch::Receiver<bool>,
    bounds: Bounds,
}

/// The processes of one program. All of them end with it.
struct Group {
    leader: Pid,
    /// Whether the leader is a keeper.
    kept: bool,
    over: AtomicBool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if !self.over.load(Ordering::SeqCst) {
            // It may be gone already, which is what is wanted.
            let _ = killpg(self.leader, signal);
        }
    }

    /// Ends all of it, those that left the group included where there is a keeper. That one is not killed itself: it has work.
    fn end(&self) {
        #[cfg(target_os = "linux")]
        if self.kept {
            if !self.over.load(Ordering::SeqCst) {
                keeper::give_up(self.leader);
            }
            return;
        }
        self.signal(Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

impl Program {
    /// What is run for it, and whether that is a keeper.
    fn begin(&self) -> (Command, bool) {
        #[cfg(target_os = "linux")]
        if self.keeping == Keeping::ByThisBinary {
            return (keeper::command(&self.command), true);
        }
        (Command::new(&self.command), false)
    }

    /// Starts it.
    pub(crate) async fn start(self, permit: &Permit, ear: Arc<Ear>) -> Result<ProgramLine, Trouble> {
        tracing::debug!(target: "portcullis::upstream", upstream = %self.name, by = %permit.principal_id(), "starting");
        let looked = tokio::task::spawn_blocking(move || files::check(&self.command, &self.digests).map(|()| self)).await;
        let this = looked.map_err(|e| Trouble::Gone(e.to_string()))?.map_err(Trouble::Gone)?;
        let (mut command, kept) = this.begin();
        command
            .args(&this.arguments)
            .env_clear()
            .envs(this.environment.iter().map(|(name, value)| (name, value.expose())))
            .current_dir(&this.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(!kept);
        let started = command.spawn();
        let mut child = started.map_err(|e| Trouble::Gone(format!("{} cannot be started: {e}", this.command.display())))?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let leader = leader.ok_or_else(|| Trouble::Gone("it ended at once".into()))?;
        let group = Arc::new(Group { leader, kept, over: AtomicBool::new(false) });
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(Trouble::Gone("its standard streams are not there".into()));
        };
        let mux = Mux::new(this.private, ear, this.bounds.message);
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let (ending, ended) = watch::channel(false);
        tokio::spawn(write(stdin, messages, mux.clone()));
        tokio::spawn(read(stdout, outgoing.downgrade(), mux.clone(), this.bounds.message));
        tokio::spawn(log(stderr, this.name.clone(), this.echoes));
        tokio::spawn(await_end(child, group.clone(), mux.clone(), ending));
        Ok(ProgramLine { mux, outgoing: Mutex::new(Some(outgoing)), group, ended, bounds: this.bounds })
    }
}

impl ProgramLine {
    pub(crate) fn mux(&self) -> &Arc<Mux> {
        &self.mux
    }

    fn outgoing(&self) -> Result<mpsc::Sender<Vec<u8>>, Trouble> {
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        outgoing.ok_or_else(|| Trouble::Gone("it is being stopped".into()))
    }

    pub(crate) async fn open(&self, permit: &Permit, ask: Ask<'_>) -> Result<MuxCall, Trouble> {
        let outgoing = self.outgoing()?;
        let weak = outgoing.downgrade();
        let cancel = move |message: Vec<u8>| {
            if let Some(outgoing) = weak.upgrade() {
                let _ = outgoing.try_send(message);
            }
        };
        let call = self.mux.expect(&ask, self.bounds.idle, Box::new(cancel))?;
        self.send(permit, outgoing, wire::request(ask.id, ask.method, ask.params)).await?;
        Ok(call)
    }

    pub(crate) async fn say(&self, permit: &Permit, message: Vec<u8>) -> Result<(), Trouble> {
        let outgoing = self.outgoing()?;
        self.send(permit, outgoing, message).await
    }

    async fn send(&self, permit: &Permit, outgoing: mpsc::Sender<Vec<u8>>, message: Vec<u8>) -> Result<(), Trouble> {
        let until = Instant::from_std(permit.deadline()).min(Instant::now() + self.bounds.idle);
        match tokio::time::timeout_at(until, outgoing.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.mux.end().unwrap_or_else(|| Trouble::Gone("it no longer reads".into()))),
            Err(_elapsed) => Err(Trouble::Slow("the time it has to read a request".into())),
        }
    }

    /// Closes its input, waits, tells it, and ends it and everything it started.
    pub(crate) async fn stop(&self) {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.mux.close(Trouble::Gone("it was stopped".into()));
        let mut ended = self.ended.clone();
        for step in 0..3 {
            match step {
                0 => {}
                1 => self.group.signal(Signal::SIGTERM),
                _ => self.group.end(),
            }
            if matches!(tokio::time::timeout(GRACE, ended.wait_for(|over| *over)).await, Ok(Ok(_))) {
                return;
            }
        }
        // A keeper may need longer for what it keeps: it is told once more, and not killed before it is done.
        self.group.end();
    }
}

async fn write(mut stdin: ChildStdin, mut messages: mpsc::Receiver<Vec<u8>>, mux: Arc<Mux>) {
    while let Some(mut message) = messages.recv().await {
        message.push(b'\n');
        let written = async {
            stdin.write_all(&message).await?;
            stdin.flush().await
        };
        if let Err(error) = written.await {
            mux.close(Trouble::Gone(format!("its input is closed: {error}")));
            return;
        }
    }
}

/// Reads lines of at most `most` bytes.
async fn read(stdout: ChildStdout, outgoing: mpsc::WeakSender<Vec<u8>>, mux: Arc<Mux>, most: u64) {
    let mut reader = BufReader::with_capacity(64 << 10, stdout);
    let (mut line, mut stray) = (Vec::new(), 0);
    loop {
        line.clear();
        match bounded_line(&mut reader, &mut line, most as usize).await {
            Ok(true) => {}
            Ok(false) => return mux.close(Trouble::Gone("it closed its output".into())),
            Err(trouble) => return mux.close(trouble),
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if text[0] != b'{' && stray < STRAY_LINES {
            stray += 1;
            continue;
        }
        match wire::read(text) {
            Ok(message) => {
                if let (Some(reply), Some(outgoing)) = (mux.deliver(message), outgoing.upgrade()) {
                    let _ = outgoing.try_send(reply);
                }
            }
            Err(trouble) => return mux.close(trouble),
        }
    }
}

/// Reads one line without its end. `false` at the end of the stream.
async fn bounded_line<R: AsyncRead + Unpin>(reader: &mut BufReader<R>, line: &mut Vec<u8>, most: usize) -> Result<bool, Trouble> {
    loop {
        let read = reader.fill_buf().await.map_err(|e| Trouble::Gone(format!("its output broke: {e}")))?;
        if read.is_empty() {
            return Ok(!line.is_empty());
        }
        let (taken, complete) = match read.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (read.len(), false),
        };
        if line.len() + taken > most {
            return Err(Trouble::TooLarge(format!("{most} bytes in one message")));
        }
        line.extend_from_slice(&read[..taken]);
        reader.consume(taken);
        if complete {
            line.pop();
            return Ok(true);
        }
    }
}

/// Its own log goes to ours, a bounded part of it.
async fn log(stderr: impl AsyncRead + Unpin, name: Arc<str>, echoes: Echoes) {
    let mut reader = BufReader::new(stderr);
    let (mut line, mut since, mut lines, mut dropped) = (Vec::new(), Instant::now(), 0_u32, 0_u64);
    loop {
        line.clear();
        let ended = loop {
            let Ok(read) = reader.fill_buf().await else { return };
            if read.is_empty() {
                break true;
            }
            let (taken, complete) = read.iter().position(|b| *b == b'\n').map_or((read.len(), false), |at| (at + 1, true));
            let room = LOOKED_AT.saturating_sub(line.len());
            line.extend_from_slice(&read[..taken.min(room)]);
            reader.consume(taken);
            if complete {
                break false;
            }
        };
        if since.elapsed() > Duration::from_mins(1) {
            if dropped > 0 {
                tracing::info!(target: "portcullis::upstream", upstream = %name, "{dropped} lines of its log were left out");
            }
            (since, lines, dropped) = (Instant::now(), 0, 0);
        }
        if !line.is_empty() {
            lines += 1;
            if lines <= LOG_LINES {
                let text = shown(&line, &echoes);
                tracing::info!(target: "portcullis::upstream", upstream = %name, "it says: {text}");
            } else {
                dropped += 1;
            }
        }
        if ended {
            return;
        }
    }
}

/// A line of its log as it stands in ours.
fn shown(line: &[u8], echoes: &Echoes) -> String {
    let text: String = String::from_utf8_lossy(line).chars().filter(|c| portcullis_guard::is_seen(*c)).collect();
    echoes.text(&text).chars().take(LOG_LINE).collect()
}

async fn await_end(mut child: Child, group: Arc<Group>, mux: Arc<Mux>, ending: watch::Sender<bool>) {
    let status = child.wait().await;
    // What it left behind ends with it; the number may belong to somebody else afterwards.
    group.signal(Signal::SIGKILL);
    group.over.store(true, Ordering::SeqCst);
    let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
    mux.close(Trouble::Gone(format!("the program ended ({how})")));
    ending.send_replace(true);
}

impl Drop for ProgramLine {
    fn drop(&mut self) {
        self.group.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_in_a_programs_log_is_taken_out_before_the_line_is_cut() {
        let echoes = Echoes::of([&Secret::new("quite-an-ordinary-word")]);
        assert_eq!(shown(b"got quite-an-\x1bordinary-word", &echoes), "got [redacted:credential]");
        let long = format!("{}quite-an-ordinary-word", "x".repeat(LOG_LINE - 10));
        let text = shown(long.as_bytes(), &echoes);
        assert!(text.len() == LOG_LINE && !text.contains("quite"), "{text}");
    }
}

//! What keeps records from being written for a while, and the way back. Guards that the log goes on by itself only where its
//! file is still the one it wrote, at the length it wrote, and that a record tells how many there are not. A file that was
//! taken away, replaced or changed, and a disk that did not take what it was given, stop the log for good.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use portcullis_model::{FaultCode, Timestamp};

use super::{Shared, State};
use crate::AuditError;
use crate::event::AuditEvent;
use crate::files::sync_directory;

/// What has to be put in order before a record can be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nothing here: the system said no, and may say yes the next time.
    Refused,
    /// Part of a record stands behind the last one.
    Torn,
    /// The full file has its new name, and there is no new one.
    Halfway,
    /// The directory cannot be reached.
    Unreachable,
}

/// Why no record can be written at the moment.
#[derive(Debug)]
pub(super) struct Blocked {
    obstacle: Obstacle,
    reason: String,
    since: Timestamp,
    /// When it was last tried; `None` when the next append is to try.
    tried: Option<Instant>,
    /// Records that could not be written meanwhile.
    missed: u64,
}

impl Blocked {
    /// What is in the way.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the file that is written does not stand where it should, as it should.
    pub(super) fn is_displaced(&self) -> bool {
        self.obstacle != Obstacle::Refused
    }

    /// The next append does not wait before it tries.
    pub(super) fn at_once(&mut self) {
        self.tried = None;
    }

    /// A record could not be written.
    pub(super) fn missed_one(&mut self) {
        self.missed += 1;
    }

    pub(super) fn error(&self) -> AuditError {
        AuditError::Blocked { reason: self.reason.clone() }
    }
}

/// Cuts a file off behind this length. One that is shorter is not made longer: what is missing there is missing.
pub(super) fn shortened(file: &File, length: u64) -> io::Result<()> {
    if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) }
}

/// What is the matter with a file.
enum Wrong {
    /// It may be there still, out of reach.
    Unreachable(String),
    /// It is not what was written any more.
    Changed(String),
}

impl Shared {
    /// No record can be written until `obstacle` is out of the way. Returns the error that says so.
    pub(super) fn block(&self, state: &mut State, obstacle: Obstacle, reason: String) -> AuditError {
        let tried = Some(Instant::now());
        if let Some(blocked) = &mut state.blocked {
            blocked.obstacle = obstacle;
            blocked.reason.clone_from(&reason);
            blocked.tried = tried;
        } else {
            tracing::error!("no audit record can be written, and it is tried again: {reason}");
            state.blocked = Some(Blocked { obstacle, reason: reason.clone(), since: self.clock.now(), tried, missed: 0 });
            self.changed.notify_all();
        }
        AuditError::Blocked { reason }
    }

    /// Nothing more is written by this process. Returns the error that says so.
    pub(super) fn stop(state: &mut State, reason: String) -> AuditError {
        tracing::error!("the audit log stopped: {reason}");
        state.blocked = None;
        state.stopped = Some(reason.clone());
        AuditError::Stopped { reason }
    }

    /// Where something is in the way: tries again, at most once in a while, and tells what was missed.
    pub(super) fn try_again(&self, state: &mut State) -> Result<(), AuditError> {
        let Some(blocked) = &mut state.blocked else { return Ok(()) };
        if blocked.tried.is_some_and(|at| at.elapsed() < self.options.sync_every) {
            return Err(blocked.error());
        }
        blocked.tried = Some(Instant::now());
        let obstacle = blocked.obstacle;
        self.mend(state, obstacle)?;
        if let Some(blocked) = &mut state.blocked {
            blocked.obstacle = Obstacle::Refused;
        }
        self.make_room(state)?;
        self.tell(state)?;
        tracing::warn!("audit records are written again");
        Ok(())
    }

    /// Puts the files in order, or says why that cannot be.
    fn mend(&self, state: &mut State, obstacle: Obstacle) -> Result<(), AuditError> {
        match obstacle {
            Obstacle::Halfway => self.finish_rotation(state)?,
            Obstacle::Torn => {
                self.take_back(state)?;
                self.check_file(state)?;
            }
            Obstacle::Refused | Obstacle::Unreachable => self.check_file(state)?,
        }
        sync_directory(&self.paths.directory).map_err(|error| self.block(state, Obstacle::Refused, error.to_string()))
    }

    /// The first record after the gap: how many records there are not, and how many calls went ahead.
    fn tell(&self, state: &mut State) -> Result<(), AuditError> {
        let Some(blocked) = &state.blocked else { return Ok(()) };
        let went = self.failing.settle();
        let note = format!(
            "{} records were not written since {}, {} calls went ahead without a record: {}",
            blocked.missed,
            blocked.since,
            went.map_or(0, |(count, _)| count),
            blocked.reason
        );
        let event = AuditEvent::error(FaultCode::Unavailable, note).encode(&self.sealer);
        match event.and_then(|event| self.write(state, &event)) {
            Ok(_) => {
                state.blocked = None;
                Ok(())
            }
            Err(error) => {
                if let Some((count, since)) = went {
                    self.failing.put_back(count, since);
                }
                Err(error)
            }
        }
    }

    /// Takes away what a failed write left behind the last record: only what is the beginning of that very record.
    fn take_back(&self, state: &mut State) -> Result<(), AuditError> {
        let over = match state.file.metadata() {
            Ok(file) => file.len().saturating_sub(state.length),
            Err(error) => return Err(self.block(state, Obstacle::Torn, error.to_string())),
        };
        let mut bytes = vec![0; state.line.len()];
        // More than the record that failed: somebody else wrote it, and the check that follows says so.
        let Some(tail) = bytes.get_mut(..over as usize) else { return Ok(()) };
        let taken = match state.file.read_exact_at(tail, state.length) {
            Ok(()) if state.line.starts_with(tail) => shortened(&state.file, state.length),
            read => read,
        };
        taken.map_err(|error| {
            let reason = format!("what was written of a record in part could not be taken back: {error}");
            self.block(state, Obstacle::Torn, reason)
        })
    }

    /// Closes the full file under its number and begins the next one. Nothing is overwritten.
    pub(super) fn rotate(&self, state: &mut State) -> Result<(), AuditError> {
        let (active, part) = (self.paths.active(), self.paths.part(state.part));
        if fs::symlink_metadata(&part).is_ok() {
            let reason = format!("{} is already there and is not overwritten", part.display());
            return Err(self.block(state, Obstacle::Refused, reason));
        }
        self.check_file(state)?;
        if let Err(error) = state.file.sync_data() {
            Self::stop(state, format!("records did not reach the disk: {error}"));
            return Err(AuditError::file(&active, "synced")(error));
        }
        if let Err(error) = fs::rename(&active, &part) {
            let error = AuditError::file(&active, "renamed")(error);
            self.block(state, Obstacle::Refused, error.to_string());
            return Err(error);
        }
        if let Err(error) = self.begin_part(state) {
            // Somebody's file under the old name is not overwritten either.
            let taken = fs::symlink_metadata(&active).is_ok();
            let back = if taken { Err(io::Error::from(io::ErrorKind::AlreadyExists)) } else { fs::rename(&part, &active) };
            match back {
                Ok(()) => self.block(state, Obstacle::Refused, format!("a new file could not be begun: {error}")),
                Err(second) => {
                    let reason = format!("a new file could not be begun ({error}) nor the old one kept ({second})");
                    self.block(state, Obstacle::Halfway, reason)
                }
            };
            return Err(AuditError::file(&active, "created")(error));
        }
        sync_directory(&self.paths.directory).inspect_err(|error| {
            self.block(state, Obstacle::Refused, error.to_string());
        })
    }

    /// A new, empty file after the one that was renamed.
    fn begin_part(&self, state: &mut State) -> io::Result<()> {
        let active = self.paths.active();
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(active)?;
        state.file = Arc::new(file);
        state.part += 1;
        state.length = 0;
        state.part_began = None;
        state.header_due = true;
        Ok(())
    }

    /// Goes on where a rotation stayed half done.
    fn finish_rotation(&self, state: &mut State) -> Result<(), AuditError> {
        match Self::compare(state, &self.paths.part(state.part), &self.paths.directory) {
            Ok(()) => {}
            Err(Wrong::Unreachable(reason)) => return Err(self.block(state, Obstacle::Halfway, reason)),
            Err(Wrong::Changed(reason)) => return Err(Self::stop(state, reason)),
        }
        self.begin_part(state).map_err(|error| {
            let reason = format!("{} cannot be created: {error}", self.paths.active().display());
            self.block(state, Obstacle::Halfway, reason)
        })
    }

    /// Somebody else may have removed, replaced or changed the file; records written to it would be lost.
    pub(super) fn check_file(&self, state: &mut State) -> Result<(), AuditError> {
        let reason = match Self::compare(state, &self.paths.active(), &self.paths.directory) {
            Ok(()) => return Ok(()),
            Err(Wrong::Unreachable(reason)) => return Err(self.block(state, Obstacle::Unreachable, reason)),
            Err(Wrong::Changed(reason)) => reason,
        };
        Self::stop(state, reason.clone());
        // Records may be lost: a head that knows of them makes `verify` say so.
        let reason = match self.put_head(&state.head(false)) {
            Ok(()) => reason,
            Err(error) => format!("{reason}; {error}"),
        };
        Err(AuditError::Stopped { reason })
    }

    /// Whether the file of that name is the one that is written, with everything that was.
    fn compare(state: &State, path: &Path, directory: &Path) -> Result<(), Wrong> {
        let (ours, named) = match (state.file.metadata(), fs::metadata(path)) {
            (Ok(ours), Ok(named)) => (ours, named),
            (Err(error), _) | (_, Err(error)) => {
                let reason = format!("{} cannot be found any more: {error}", path.display());
                let hidden = error.kind() == io::ErrorKind::PermissionDenied || fs::metadata(directory).is_err();
                return Err(if hidden { Wrong::Unreachable(reason) } else { Wrong::Changed(reason) });
            }
        };
        if ours.ino() != named.ino() || ours.dev() != named.dev() {
            return Err(Wrong::Changed(format!("{} was replaced", path.display())));
        }
        if ours.len() != state.length {
            let (path, found, expected) = (path.display(), ours.len(), state.length);
            return Err(Wrong::Changed(format!("{path} has {found} bytes instead of {expected}: another program changed it")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use portcullis_model::{ManualClock, RiskClass};

    use super::super::{AuditLog, AuditOptions, locked};
    use super::*;
    use crate::event::EventKind;
    use crate::verify::verify;

    /// Nothing is tried in the background while a test looks.
    fn open(directory: &Path) -> AuditLog {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        let options = AuditOptions { sync_every: Duration::from_hours(1), ..AuditOptions::default() };
        let log = AuditLog::open_with(directory, clock, options).unwrap();
        log.append(AuditEvent::new(EventKind::Call)).unwrap();
        log
    }

    fn allow(log: &AuditLog) {
        if let Some(blocked) = &mut locked(&log.shared.state).blocked {
            blocked.at_once();
        }
    }

    fn last_line(path: &Path) -> String {
        fs::read_to_string(path).unwrap().lines().last().unwrap().to_owned()
    }

    #[test]
    fn what_a_failed_write_left_is_taken_back_before_the_log_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let log = open(home.path());
        let shared = &log.shared;
        {
            let mut state = locked(&shared.state);
            state.line = b"{\"seq\":3,\"time\"".to_vec();
            (&*state.file).write_all(b"{\"seq\":3").unwrap();
            shared.block(&mut state, Obstacle::Torn, "no space".to_owned());
        }
        assert_eq!(log.health(), Err("no space".to_owned()));
        assert!(log.may_begin(RiskClass::Read).is_err());
        assert!(matches!(log.append(AuditEvent::new(EventKind::Call)), Err(AuditError::Blocked { .. })), "not so soon again");
        allow(&log);
        log.append(AuditEvent::new(EventKind::Call)).unwrap();
        assert_eq!(log.health(), Ok(()));
        let text = fs::read_to_string(shared.paths.active()).unwrap();
        assert!(text.contains("1 records were not written since ") && text.contains("no space"), "{text}");
        log.close().unwrap();
        assert!(verify(home.path()).unwrap().is_intact());
    }

    #[test]
    fn bytes_that_are_not_of_the_failed_record_stop_the_log_for_good() {
        let home = tempfile::tempdir().unwrap();
        let log = open(home.path());
        {
            let mut state = locked(&log.shared.state);
            state.line = b"{\"seq\":3,\"time\"".to_vec();
            (&*state.file).write_all(b"foreign").unwrap();
            log.shared.block(&mut state, Obstacle::Torn, "no space".to_owned());
        }
        for _ in 0..2 {
            allow(&log);
            assert!(matches!(log.append(AuditEvent::new(EventKind::Call)), Err(AuditError::Stopped { .. })));
        }
        assert!(last_line(&log.shared.paths.active()).ends_with("foreign"), "evidence is not touched");
    }

    #[test]
    fn a_file_that_lost_records_meanwhile_stops_the_log_for_good_and_is_not_filled_up() {
        let home = tempfile::tempdir().unwrap();
        let log = open(home.path());
        let shorter = {
            let mut state = locked(&log.shared.state);
            let shorter = state.length - 10;
            state.file.set_len(shorter).unwrap();
            log.shared.block(&mut state, Obstacle::Torn, "no space".to_owned());
            shorter
        };
        allow(&log);
        assert!(matches!(log.append(AuditEvent::new(EventKind::Call)), Err(AuditError::Stopped { .. })));
        assert_eq!(fs::metadata(log.shared.paths.active()).unwrap().len(), shorter, "evidence is not touched");
    }

    #[test]
    fn a_rotation_that_stayed_half_done_is_finished_when_it_can_be() {
        let home = tempfile::tempdir().unwrap();
        let log = open(home.path());
        let (active, part) = (log.shared.paths.active(), log.shared.paths.part(1));
        fs::rename(&active, &part).unwrap();
        fs::create_dir(&active).unwrap();
        log.shared.block(&mut locked(&log.shared.state), Obstacle::Halfway, "no new file".to_owned());
        allow(&log);
        let refused = log.append(AuditEvent::new(EventKind::Call)).unwrap_err();
        assert!(matches!(&refused, AuditError::Blocked { reason } if reason.contains("cannot be created")), "{refused}");
        fs::remove_dir(&active).unwrap();
        allow(&log);
        log.append(AuditEvent::new(EventKind::Call)).unwrap();
        assert!(fs::read_to_string(&active).unwrap().contains("1 records were not written"));
        log.close().unwrap();
        let report = verify(home.path()).unwrap();
        assert!(report.is_intact() && report.chains[0].files == 2, "{report:?}");
    }

    #[test]
    fn a_half_done_rotation_whose_file_was_changed_is_not_finished() {
        let home = tempfile::tempdir().unwrap();
        let log = open(home.path());
        let (active, part) = (log.shared.paths.active(), log.shared.paths.part(1));
        fs::rename(&active, &part).unwrap();
        log.shared.block(&mut locked(&log.shared.state), Obstacle::Halfway, "no new file".to_owned());
        OpenOptions::new().append(true).open(&part).unwrap().write_all(b"x").unwrap();
        allow(&log);
        assert!(matches!(log.append(AuditEvent::new(EventKind::Call)), Err(AuditError::Stopped { .. })));
        assert!(!active.exists(), "nothing is begun after it");
    }
}

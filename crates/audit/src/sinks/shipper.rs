//! The loop that feeds one sink. Guards the order: a record is handed over first and the cursor moves after, so that a
//! crash repeats a batch and never leaves one out. Must not delay a call: it only reads what is already in the files.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{Clock, FaultCode};
use tokio_util::sync::CancellationToken;

use super::SinkPace;
use super::cursor::{Cursor, try_lock};
use super::deliver::{Failure, Taken, Target};
use super::follow::{Batch, beginnings, ends, read_batch};
use super::settings::{SinkBegin, SinkSettings};
use crate::AuditError;
use crate::event::{AuditEvent, Decision, EventKind};
use crate::log::AuditLog;

/// Longest pause a receiver can ask for.
const LONGEST_PAUSE_ASKED: Duration = Duration::from_hours(1);

/// What the monitor and the shipper of a sink share.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where it stands; `None` while another process feeds the sink.
    pub(super) cursor: Option<Cursor>,
    /// Trouble on our side: reading, or writing the cursor.
    pub(super) trouble: Option<String>,
}

pub(super) struct Shipper {
    pub(super) settings: SinkSettings,
    pub(super) target: Arc<Target>,
    pub(super) batch: usize,
    pub(super) log: Arc<AuditLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pace: SinkPace,
    pub(super) progress: Arc<Mutex<Progress>>,
}

/// What to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There may be more.
    Again,
    /// Everything is delivered.
    Idle,
    /// It did not work.
    Pause(Duration),
}

/// State of the loop that is not worth keeping.
#[derive(Debug, Default)]
struct Streak {
    /// Deliveries that failed in a row.
    failures: u32,
    /// Whether a record says that the sink is failing.
    told: bool,
    /// Set aside since the sink last took something.
    aside: u64,
    /// A smaller batch, after one that was too large.
    at_most: Option<usize>,
    turn: usize,
}

/// The pause after failure number `failures` (from 1): half of an exponential bound and a random part of the other half;
/// never shorter than what the receiver asked for. `random` is in 0..1.
fn pause(pace: SinkPace, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
    let bound = pace.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(pace.longest_pause);
    let jittered = bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
    asked.map_or(jittered, |asked| asked.min(LONGEST_PAUSE_ASKED).max(jittered))
}

/// The cursor of a sink; one that has never been fed gets its beginning written down.
fn opened(directory: &Path, settings: &SinkSettings) -> Result<Cursor, AuditError> {
    if let Some(cursor) = Cursor::load(directory, &settings.name)? {
        return Ok(cursor);
    }
    let chains = match settings.begin {
        SinkBegin::Oldest => beginnings(directory)?,
        SinkBegin::Now => ends(directory)?,
    };
    let cursor = Cursor { chains, ..Cursor::default() };
    cursor.save(directory, &settings.name)?;
    Ok(cursor)
}

impl Shipper {
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    fn progress<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Feeds the sink until `stop`, and then until everything is delivered, a delivery fails or `grace` is over.
    pub(super) async fn run(self, stop: CancellationToken, grace: Duration) {
        let Some((_lock, mut cursor)) = self.begin(&stop).await else { return };
        let mut streak = Streak::default();
        let feeding = async {
            loop {
                let wait = match self.step(&mut cursor, &mut streak).await {
                    Next::Again => continue,
                    Next::Idle => self.pace.poll,
                    Next::Pause(wait) => wait,
                };
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    break;
                }
            }
            // The last records, such as the one that says that the server stopped, while the receiver takes them.
            while self.step(&mut cursor, &mut streak).await == Next::Again {}
        };
        tokio::select! {
            () = feeding => {}
            () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => {}
        }
    }

    /// Waits for the right to feed the sink and for a readable cursor; `None` when it is told to stop meanwhile.
    async fn begin(&self, stop: &CancellationToken) -> Option<(File, Cursor)> {
        loop {
            let (directory, settings) = (self.log.directory().to_owned(), self.settings.clone());
            let locked = tokio::task::spawn_blocking(move || match try_lock(&directory, &settings.name)? {
                Some(lock) => opened(&directory, &settings).map(|cursor| Some((lock, cursor))),
                None => Ok(None),
            });
            match locked.await {
                Ok(Ok(Some((lock, cursor)))) => {
                    self.progress(|p| *p = Progress { cursor: Some(cursor.clone()), trouble: None });
                    return Some((lock, cursor));
                }
                Ok(Ok(None)) => self.progress(|p| *p = Progress::default()),
                Ok(Err(error)) => self.trouble(&error.to_string()),
                Err(ended) => self.trouble(&ended.to_string()),
            }
            stop.run_until_cancelled(tokio::time::sleep(self.pace.lock)).await?;
        }
    }

    fn trouble(&self, reason: &str) {
        let news = self.progress(|p| {
            let news = p.trouble.as_deref() != Some(reason);
            p.trouble = Some(reason.to_owned());
            news
        });
        if news {
            tracing::error!(sink = self.name(), "the audit sink cannot be fed: {reason}");
        }
    }

    async fn step(&self, cursor: &mut Cursor, streak: &mut Streak) -> Next {
        let batch = match self.read(cursor, streak).await {
            Ok(batch) => batch,
            Err(reason) => {
                self.trouble(&reason);
                streak.failures = streak.failures.saturating_add(1);
                return Next::Pause(pause(self.pace, streak.failures, None, rand::random()));
            }
        };
        streak.turn = streak.turn.wrapping_add(1);
        self.tell_losses(cursor, &batch);
        if batch.records.is_empty() {
            if !batch.chains.is_empty() || batch.lost > 0 {
                self.advance(cursor, batch).await;
            }
            return Next::Idle;
        }
        let Batch { records, chains, lost, .. } = batch;
        let records = Arc::new(records);
        let outcome = self.target.deliver(self.name(), &records, &*self.clock).await;
        let batch = Batch { chains, lost, ..Batch::default() };
        match outcome {
            // Passing records over would be a way around a required sink. What was taken comes again, with fewer beside it, so
            // that in the end only what is not taken is left.
            Ok(Taken { rejected: 1.., reason }) if self.settings.required => {
                if records.len() > 1 {
                    streak.at_most = Some(records.len() / 2);
                    return Next::Again;
                }
                self.again(cursor, streak, &reason.unwrap_or_default(), None).await
            }
            Ok(taken) => {
                self.took(cursor, streak, &taken, records.len() as u64);
                self.advance(cursor, batch).await;
                Next::Again
            }
            Err(Failure::TooLarge { reason }) if records.len() > 1 => {
                streak.at_most = Some(records.len() / 2);
                tracing::debug!(sink = self.name(), "{reason}: {} records are sent in smaller batches", records.len());
                Next::Again
            }
            // Passing records over would be a way around a required sink: it stays behind until its owner lets it go on.
            Err(Failure::Never { reason } | Failure::TooLarge { reason }) if self.settings.required => {
                self.again(cursor, streak, &reason, None).await
            }
            Err(Failure::Never { reason } | Failure::TooLarge { reason }) => {
                for record in records.iter() {
                    cursor.put_aside(&record.chain, record.sequence);
                }
                self.set_aside(streak, &records, &reason);
                cursor.last_error = Some(reason);
                self.advance(cursor, batch).await;
                Next::Pause(pause(self.pace, streak.failures, None, rand::random()))
            }
            Err(Failure::Later { reason, after }) => self.again(cursor, streak, &reason, after).await,
        }
    }

    /// The same batch will be tried again.
    async fn again(&self, cursor: &mut Cursor, streak: &mut Streak, reason: &str, after: Option<Duration>) -> Next {
        streak.failures = streak.failures.saturating_add(1);
        let wait = pause(self.pace, streak.failures, after, rand::random());
        self.failing(cursor, streak, reason, wait).await;
        Next::Pause(wait)
    }

    async fn read(&self, cursor: &Cursor, streak: &Streak) -> Result<Batch, String> {
        let (directory, from, turn) = (self.log.directory().to_owned(), cursor.clone(), streak.turn);
        let most = streak.at_most.unwrap_or(self.batch).clamp(1, self.batch);
        let read = tokio::task::spawn_blocking(move || read_batch(&directory, &from, most, turn)).await;
        read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    /// Moves the cursor, in memory and on disk. When that fails, the next process repeats what this one delivered.
    async fn advance(&self, cursor: &mut Cursor, batch: Batch) {
        cursor.chains.extend(batch.chains);
        cursor.lost += batch.lost;
        self.save(cursor).await;
    }

    async fn save(&self, cursor: &Cursor) {
        let (directory, name, next) = (self.log.directory().to_owned(), self.settings.name.clone(), cursor.clone());
        self.progress(|p| p.cursor = Some(cursor.clone()));
        match tokio::task::spawn_blocking(move || next.save(&directory, &name)).await {
            Ok(Ok(())) => self.progress(|p| p.trouble = None),
            Ok(Err(error)) => self.trouble(&error.to_string()),
            Err(ended) => self.trouble(&ended.to_string()),
        }
    }

    fn took(&self, cursor: &mut Cursor, streak: &mut Streak, taken: &Taken, records: u64) {
        cursor.delivered += records - taken.rejected.min(records);
        cursor.set_aside += taken.rejected;
        cursor.last_error.clone_from(&taken.reason);
        if let Some(reason) = &taken.reason {
            tracing::error!(sink = self.name(), "{reason}");
            if !streak.told {
                streak.told = true;
                self.record("sink.set_aside", Some(FaultCode::BackendFailed), reason.clone());
            }
            return;
        }
        if streak.told {
            let aside = if streak.aside > 0 { format!("; it refused {} records for good", streak.aside) } else { String::new() };
            tracing::info!(sink = self.name(), "the audit sink takes records again{aside}");
            self.record("sink.recovered", None, format!("it takes records again{aside}"));
        }
        let at_most = streak.at_most.map(|most| most * 2).filter(|most| *most < self.batch);
        *streak = Streak { turn: streak.turn, at_most, ..Streak::default() };
    }

    /// Says once per streak that the sink does not take records: a record for each try would feed itself.
    async fn failing(&self, cursor: &mut Cursor, streak: &mut Streak, reason: &str, wait: Duration) {
        tracing::warn!(sink = self.name(), "the audit sink did not take records, next try in {wait:.1?}: {reason}");
        let news = cursor.last_error.as_deref() != Some(reason);
        cursor.last_error = Some(reason.to_owned());
        if news {
            self.save(cursor).await;
        }
        if !streak.told {
            streak.told = true;
            self.record("sink.failing", Some(FaultCode::BackendFailed), reason.to_owned());
        }
    }

    fn set_aside(&self, streak: &mut Streak, records: &[crate::read::Record], reason: &str) {
        let spans = match records {
            [first, .., last] => format!("{} to {}", first.position(), last.position()),
            [one] => one.position(),
            [] => String::new(),
        };
        let count = records.len();
        tracing::error!(sink = self.name(), "the audit sink refused {count} records for good ({spans}): {reason}");
        streak.failures = streak.failures.saturating_add(1);
        streak.aside += count as u64;
        if streak.aside == count as u64 {
            streak.told = true;
            self.record("sink.set_aside", Some(FaultCode::BackendFailed), format!("{spans}: {reason}"));
        }
    }

    fn tell_losses(&self, cursor: &Cursor, batch: &Batch) {
        for chain in &batch.rewound {
            tracing::warn!(sink = self.name(), %chain, "the chain is not what it was; the sink gets its newest file again");
        }
        if batch.lost > 0 && cursor.lost + batch.lost > 0 {
            let lost = batch.lost;
            tracing::error!(sink = self.name(), "{lost} audit records were gone or not readable before the sink got them");
            let note = format!("{lost} records were removed by retention, or cannot be read, before it got them");
            self.record("sink.lost", Some(FaultCode::NotFound), note);
        }
    }

    fn record(&self, method: &'static str, code: Option<FaultCode>, note: String) {
        record(&self.log, self.name(), method, code, note);
    }
}

/// Writes a record about a sink.
pub(super) fn record(log: &AuditLog, sink: &str, method: &'static str, code: Option<FaultCode>, note: String) {
    let event = AuditEvent::operation(EventKind::Sink, method, sink.to_owned()).code(code).note(note);
    let event = match method {
        "sink.blocking" => event.decided(Decision::Deny, "required-sink"),
        "sink.unblocked" => event.decided(Decision::Allow, "required-sink"),
        _ => event,
    };
    if let Err(error) = log.append(event) {
        tracing::error!(%error, sink, "the audit record about a sink could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_honour_what_was_asked() {
        let pace = SinkPace::default();
        let at = |failures| pause(pace, failures, None, 0.5);
        assert!(at(1) < at(2) && at(2) < at(5));
        assert!(pause(pace, 90, None, 1.0) <= pace.longest_pause);
        assert!(pause(pace, 1, None, 0.0) >= pace.first_pause / 2);
        assert_ne!(pause(pace, 3, None, 0.1), pause(pace, 3, None, 0.9));
        assert_eq!(pause(pace, 1, Some(Duration::from_secs(90)), 1.0), Duration::from_secs(90));
        assert_eq!(pause(pace, 1, Some(Duration::MAX), 1.0), LONGEST_PAUSE_ASKED, "nobody stops a sink for ever");
    }
}

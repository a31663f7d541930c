//! What a running tool says while it runs: progress with the caller's token, log messages from the level the client
//! asked for. Nothing here waits for the client: words are queued, and beyond the queue they are dropped.
#![expect(deprecated, reason = "MCP logging is deprecated by SEP-2577 and still part of every revision served here")]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_gateway::Voice;
use portcullis_guard::{Notice, Progress, Released};
use portcullis_ports::NoticeLevel;
use rmcp::RoleServer;
use rmcp::model::{
    CustomNotification, LoggingLevel, LoggingMessageNotification, LoggingMessageNotificationParam, ProgressNotification,
    ProgressNotificationParam, ProgressToken, ServerNotification,
};
use rmcp::service::Peer;
use tokio::sync::mpsc;

use crate::convert;

/// Words of one call waiting for the client.
const QUEUE: usize = 256;
/// How long a finished call waits for a slow client to take the last words.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says that what was to be done on a page is done (2025-11-25, elicitation by URL).
const PAGE_DONE: &str = "notifications/elicitation/complete";

enum Word {
    Progress(ProgressNotificationParam),
    Notice(LoggingMessageNotificationParam),
    PageDone(String),
}

/// The line from one running call to its client.
struct Line {
    words: mpsc::Sender<Word>,
    token: Option<ProgressToken>,
    level: Option<LoggingLevel>,
    /// Whether the client's revision knows how to say that a page is done.
    pages: bool,
    /// Progress must grow (MCP, basic/utilities/progress); what does not is not sent.
    reached: Mutex<Option<f64>>,
}

impl Line {
    fn say(&self, word: Word) {
        if self.words.try_send(word).is_err() {
            tracing::debug!("the client does not keep up: a progress report or log message was dropped");
        }
    }
}

impl Voice for Line {
    fn progress(&self, progress: Released<Progress>) {
        let Some(token) = &self.token else { return };
        let done = progress.get().done;
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if done.is_finite() && reached.is_none_or(|before| done > before) {
            *reached = Some(done);
            self.say(Word::Progress(convert::progress(progress, token.clone())));
        }
    }

    fn notice(&self, notice: Released<Notice>) {
        let Some(wanted) = self.level else { return };
        let (level, logger, data) = convert::notice(notice);
        if rank(wire_level(level)) >= rank(wanted) {
            self.say(Word::Notice(LoggingMessageNotificationParam::new(wire_level(level), data).with_logger(logger)));
        }
    }

    fn page_done(&self, elicitation: Released<String>) {
        if self.pages {
            self.say(Word::PageDone(elicitation.into_inner()));
        }
    }
}

/// Severity order of the levels, RFC 5424.
pub(crate) fn rank(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}

fn wire_level(level: NoticeLevel) -> LoggingLevel {
    match level {
        NoticeLevel::Debug => LoggingLevel::Debug,
        NoticeLevel::Info => LoggingLevel::Info,
        NoticeLevel::Notice => LoggingLevel::Notice,
        NoticeLevel::Warning => LoggingLevel::Warning,
        NoticeLevel::Error => LoggingLevel::Error,
    }
}

/// The words of one call on their way to its client.
pub(crate) struct Pump {
    words: mpsc::Receiver<Word>,
    peer: Peer<RoleServer>,
}

/// A voice for one call. Silent, and without a queue, when the client asked for neither progress nor log messages. `pages`:
/// whether its revision knows `notifications/elicitation/complete`.
pub(crate) fn line(
    peer: &Peer<RoleServer>,
    token: Option<ProgressToken>,
    level: Option<LoggingLevel>,
    pages: bool,
) -> (Arc<dyn Voice>, Option<Pump>) {
    if token.is_none() && level.is_none() {
        return (Arc::new(()), None);
    }
    let (words, heard) = mpsc::channel(QUEUE);
    (Arc::new(Line { words, token, level, pages, reached: Mutex::new(None) }), Some(Pump { words: heard, peer: peer.clone() }))
}

impl Pump {
    async fn run(mut self) {
        while let Some(word) = self.words.recv().await {
            let notification = match word {
                Word::Progress(param) => ServerNotification::ProgressNotification(ProgressNotification::new(param)),
                Word::Notice(param) => ServerNotification::LoggingMessageNotification(LoggingMessageNotification::new(param)),
                Word::PageDone(id) => {
                    let params = serde_json::json!({ "elicitationId": id });
                    ServerNotification::CustomNotification(CustomNotification::new(PAGE_DONE, Some(params)))
                }
            };
            if self.peer.send_notification(notification).await.is_err() {
                return;
            }
        }
    }

    /// Runs `work` while its words are sent; every word it said is sent before its result.
    pub(crate) async fn beside<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut pumping = pin!(self.run());
        let mut pumped = false;
        let done = loop {
            tokio::select! {
                biased;
                () = &mut pumping, if !pumped => pumped = true,
                done = &mut work => break done,
            }
        };
        if !pumped && tokio::time::timeout(PATIENCE, pumping).await.is_err() {
            tracing::debug!("the client does not take its notifications: the last ones were dropped");
        }
        done
    }
}

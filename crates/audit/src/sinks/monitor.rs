//! How the sinks stand, and stopping calls when a required one is too far behind. Looks at the files only, so that it
//! tells the same whichever process feeds a sink.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{Clock, FaultCode, Timestamp};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::SinkPace;
use super::cursor::Cursor;
use super::follow::{Lag, lag};
use super::settings::SinkSettings;
use super::shipper::{Progress, Shipper, record};
use crate::log::AuditLog;

/// How long the sinks may go on when the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// How a sink stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkState {
    /// Its name.
    pub name: String,
    /// `stderr`, `webhook`, `otlp` or `syslog`.
    pub kind: &'static str,
    /// Whether calls stop when it is too far behind.
    pub required: bool,
    /// Records it has not got.
    pub lag_records: u64,
    /// Age of the oldest of them in seconds; zero when there is none.
    pub lag_seconds: u64,
    /// Records it took, since it was first fed.
    pub delivered: u64,
    /// Records it refused for good.
    pub set_aside: u64,
    /// Records that were gone, or not readable, before it got them.
    pub lost: u64,
    /// Why the last delivery did not succeed; absent when it did.
    pub last_error: Option<String>,
    /// Why calls stop; absent when they go on.
    pub blocking: Option<String>,
}

impl SinkState {
    fn new(settings: &SinkSettings, cursor: &Cursor, lag: Lag, trouble: Option<String>, now: Timestamp) -> Self {
        let lag_seconds = lag.oldest.map_or(0, |oldest| now.since(oldest).as_secs());
        let last_error = trouble.or_else(|| cursor.last_error.clone());
        let most = settings.max_lag;
        let behind = lag.records > most.records || lag_seconds > most.age.0.as_secs();
        let blocking = (settings.required && behind).then(|| {
            let why = last_error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
            format!(
                "the required audit sink '{}' is {} records and {lag_seconds} s behind{why}; calls go on when it has caught up",
                settings.name, lag.records
            )
        });
        Self {
            name: settings.name.clone(),
            kind: settings.to.kind(),
            required: settings.required,
            lag_records: lag.records,
            lag_seconds,
            delivered: cursor.delivered,
            set_aside: cursor.set_aside,
            lost: cursor.lost,
            last_error,
            blocking,
        }
    }

    /// The state of a sink whose files cannot be read: as far behind as can be.
    fn unreadable(settings: &SinkSettings, reason: String) -> Self {
        let blocking = settings.required.then(|| format!("the required audit sink '{}': {reason}", settings.name));
        let state = Self::new(settings, &Cursor::default(), Lag::default(), Some(reason), Timestamp::default());
        Self { blocking, ..state }
    }
}

/// How the sinks stand by what is in the audit directory, whoever feeds them.
pub fn sink_states(directory: &Path, sinks: &[SinkSettings], now: Timestamp) -> Vec<SinkState> {
    sinks.iter().map(|sink| state(directory, sink, None, None, now)).collect()
}

fn state(directory: &Path, settings: &SinkSettings, known: Option<Cursor>, trouble: Option<String>, now: Timestamp) -> SinkState {
    let cursor = match known.map_or_else(|| Cursor::load(directory, &settings.name), |cursor| Ok(Some(cursor))) {
        Ok(cursor) => cursor.unwrap_or_default(),
        Err(error) => return SinkState::unreadable(settings, error.to_string()),
    };
    match lag(directory, &cursor) {
        Ok(lag) => SinkState::new(settings, &cursor, lag, trouble, now),
        Err(error) => SinkState::unreadable(settings, error.to_string()),
    }
}

struct Watched {
    settings: SinkSettings,
    progress: Arc<Mutex<Progress>>,
}

/// The monitor of all sinks of this process.
struct Monitor {
    directory: PathBuf,
    log: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    sinks: Vec<Watched>,
    states: Arc<Mutex<Vec<SinkState>>>,
}

impl Monitor {
    /// Looks once, and stops calls or lets them go on.
    fn look(&self) {
        let now = self.clock.now();
        let mut states = Vec::new();
        for sink in &self.sinks {
            let (cursor, trouble) = {
                let progress = sink.progress.lock().unwrap_or_else(PoisonError::into_inner);
                (progress.cursor.clone(), progress.trouble.clone())
            };
            let state = state(&self.directory, &sink.settings, cursor, trouble, now);
            let news = self.log.hold(&state.name, state.blocking.clone());
            match (news, &state.blocking) {
                (true, Some(reason)) => {
                    tracing::error!(sink = %state.name, "calls are refused: {reason}");
                    record(&self.log, &state.name, "sink.blocking", Some(FaultCode::Unavailable), reason.clone());
                }
                (true, None) => {
                    tracing::info!(sink = %state.name, "the required audit sink has caught up, calls go on");
                    record(&self.log, &state.name, "sink.unblocked", None, "it has caught up".to_owned());
                }
                (false, _) => {}
            }
            states.push(state);
        }
        *self.states.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }
}

/// How the sinks of this process stood a moment ago. Cheap to clone and to ask.
#[derive(Debug, Clone, Default)]
pub struct SinkView(Arc<Mutex<Vec<SinkState>>>);

impl SinkView {
    /// By sink, in the order of the configuration.
    pub fn states(&self) -> Vec<SinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sinks at work. Dropped without [`stop`](Self::stop), they end at once; what was not delivered is next time.
#[derive(Debug)]
pub struct Shippers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    states: Arc<Mutex<Vec<SinkState>>>,
}

impl Shippers {
    pub(super) async fn start(shippers: Vec<Shipper>, log: &Arc<AuditLog>, clock: &Arc<dyn Clock>, pace: SinkPace) -> Self {
        let states = Arc::new(Mutex::new(Vec::new()));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        if shippers.is_empty() {
            return Self { tasks, stop, states };
        }
        let monitor = Arc::new(Monitor {
            directory: log.directory().to_owned(),
            log: Arc::clone(log),
            clock: Arc::clone(clock),
            sinks: shippers.iter().map(|s| Watched { settings: s.settings.clone(), progress: Arc::clone(&s.progress) }).collect(),
            states: Arc::clone(&states),
        });
        look(&monitor).await;
        for shipper in shippers {
            tasks.spawn(shipper.run(stop.clone(), GRACE));
        }
        let ending = stop.clone();
        tasks.spawn(async move {
            while ending.run_until_cancelled(tokio::time::sleep(pace.watch)).await.is_some() {
                look(&monitor).await;
            }
        });
        Self { tasks, stop, states }
    }

    /// How the sinks stood a moment ago.
    pub fn states(&self) -> Vec<SinkState> {
        self.view().states()
    }

    /// A look at the sinks that can be kept.
    pub fn view(&self) -> SinkView {
        SinkView(Arc::clone(&self.states))
    }

    /// Hands over what is left, for two seconds at most, and ends. Call it before the log is closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn look(monitor: &Arc<Monitor>) {
    let looking = Arc::clone(monitor);
    if let Err(ended) = tokio::task::spawn_blocking(move || looking.look()).await {
        tracing::error!("the audit sinks could not be looked at: {ended}");
    }
}

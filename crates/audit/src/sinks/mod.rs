//! Other places that get the records. Guards that no call waits for them, that nothing is dropped in silence, and that
//! the files stay the only place where records are kept: a sink reads them with a cursor of its own.
//!
//! A sink gets every record at least once, in the order of its chain; after a crash or a failed delivery a batch may come
//! again, so a receiver tells records apart by `log` and `seq`. One process at a time feeds a sink.
//!
//! A receiver that answers 408, 429, 5xx or not at all is asked again, with growing pauses. What it refuses for good (any
//! other 4xx, a partial success, what is too long for a datagram) is set aside: counted, listed in the cursor file by number,
//! recorded as an event of kind `sink`; the records stay in the files. A required sink sets nothing aside: it stays behind, and
//! calls stop.
//!
//! What a sink has got is out of reach of an erasure here: its owner has to erase it there. Syslog over the network is left
//! out, because only the egress room may open connections, and it speaks HTTP.
//!
//! Files in the audit directory: `sink-<name>.cursor` (how far it is, mode 0600), `sink-<name>.lock`.

mod cursor;
mod deliver;
mod follow;
mod format;
mod monitor;
mod settings;
mod shipper;

pub(crate) use cursor::shipped_to_all;
pub use monitor::{Shippers, SinkState, SinkView, sink_states};
pub(crate) use settings::check;
pub use settings::{
    LagSettings, OtlpSettings, SinkBegin, SinkSettings, SinkTarget, SyslogSettings, SyslogTransport, WebhookSettings,
};

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_egress::SecretResolver;
use portcullis_model::{Clock, Timestamp};
use portcullis_policy::{Charter, CharterGrant, PolicyError};

use crate::AuditError;
use crate::log::AuditLog;
use deliver::Target;
use shipper::{Progress, Shipper};

/// Makes the charter of one piece of standing work, as [`Policies::charter`](portcullis_policy::Policies::charter) does.
pub type MakeCharter<'a> = dyn FnMut(CharterGrant) -> Result<Charter, PolicyError> + 'a;

/// How often a sink looks and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkPace {
    /// Between looks for new records.
    pub poll: Duration,
    /// Between two looks at how far behind the sinks are.
    pub watch: Duration,
    /// Between two tries to become the process that feeds a sink.
    pub lock: Duration,
    /// After the first failed delivery; doubled after each further one.
    pub first_pause: Duration,
    /// At most, unless the receiver asks for more.
    pub longest_pause: Duration,
}

impl Default for SinkPace {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            watch: Duration::from_secs(1),
            lock: Duration::from_secs(2),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_mins(1),
        }
    }
}

/// The sinks of a configuration, ready to be fed.
#[derive(Debug)]
pub struct Sinks {
    sinks: Vec<(SinkSettings, Arc<Target>, usize)>,
}

impl Sinks {
    /// Makes them ready; nothing is sent to find out whether they work, and secrets are looked up when they are used.
    ///
    /// # Errors
    /// When one cannot be used as it is configured.
    pub fn new(
        settings: &[SinkSettings],
        charter: &mut MakeCharter<'_>,
        secrets: &dyn SecretResolver,
    ) -> Result<Self, AuditError> {
        check(settings)?;
        let sinks = settings.iter().map(|sink| {
            let (target, batch) = Target::new(sink, charter, secrets)?;
            Ok((sink.clone(), Arc::new(target), batch))
        });
        Ok(Self { sinks: sinks.collect::<Result<_, AuditError>>()? })
    }

    /// Starts feeding them from the files of `log`. Before this returns, calls are stopped if a required sink is too far
    /// behind. Must be called within a Tokio runtime.
    pub async fn start(&self, log: &Arc<AuditLog>, clock: &Arc<dyn Clock>) -> Shippers {
        self.start_with(log, clock, SinkPace::default()).await
    }

    /// The same at another pace.
    pub async fn start_with(&self, log: &Arc<AuditLog>, clock: &Arc<dyn Clock>, pace: SinkPace) -> Shippers {
        let shippers = self.sinks.iter().map(|(settings, target, batch)| Shipper {
            settings: settings.clone(),
            target: Arc::clone(target),
            batch: *batch,
            log: Arc::clone(log),
            clock: Arc::clone(clock),
            pace,
            progress: Arc::new(Mutex::new(Progress::default())),
        });
        Shippers::start(shippers.collect(), log, clock, pace).await
    }

    /// Stops the calls of this process when a required sink is too far behind, without feeding any: for a process that
    /// makes one call and ends.
    pub fn hold(&self, log: &AuditLog, now: Timestamp) {
        let settings: Vec<SinkSettings> = self.sinks.iter().map(|(settings, ..)| settings.clone()).collect();
        for state in sink_states(log.directory(), &settings, now) {
            log.hold(&state.name, state.blocking);
        }
    }
}

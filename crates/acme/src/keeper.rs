//! The standing work: orders a certificate when there is none, renews it in time, and rests after a failure.
//!
//! Guards the pauses. The time of the next order is written down before an order begins, so that a crash, a restart or a
//! loop of restarts asks the authority no more often than a failure would. A failed order changes nothing that is in force.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::AcmeSettings;
use portcullis_egress::{AddressPolicy, AllowedRange, Credential, EgressClient, EgressConfig, SecretResolver, origin_of};
use portcullis_model::{Clock, Scope, TenantId, Timestamp};
use portcullis_policy::{Budget, Charter, CharterGrant, PolicyError};
use tokio_util::sync::CancellationToken;

use crate::answers::Answers;
use crate::error::{AcmeConfigError, AttemptError};
use crate::order::Ordering;
use crate::schedule::pause;
use crate::store::{Failure, Standing, Store, due, order_digest};
use crate::transport::Transport;

/// Largest answer of an authority.
const MOST_BYTES: u64 = 256 << 10;
/// Longest time for one request.
const REQUEST: Duration = Duration::from_secs(30);
/// Longest time for one order.
const ORDER: Duration = Duration::from_mins(5);
/// Longest sleep: clocks are set, files are removed.
const LOOK: Duration = Duration::from_secs(30);

/// What happened, for the log and the audit log.
#[derive(Debug)]
pub enum Happening {
    /// A certificate was ordered and is kept; the listeners take it over.
    Obtained {
        /// Its names.
        domains: Vec<String>,
        /// Its last instant.
        until: Timestamp,
    },
    /// An order failed.
    Failed {
        /// Why.
        error: AttemptError,
        /// No order before this.
        next: Timestamp,
    },
    /// Another process orders for this data directory.
    Elsewhere,
}

/// Keeps one certificate.
#[derive(Debug)]
pub struct Keeper {
    settings: AcmeSettings,
    order: String,
    transport: Transport,
    external_key: Option<Credential>,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    /// Makes ready; asks nobody and writes nothing. `charter` makes the permit under which the authority is asked.
    ///
    /// # Errors
    /// See [`AcmeConfigError`].
    pub fn new(
        settings: &AcmeSettings,
        data: &Path,
        secrets: &dyn SecretResolver,
        clock: Arc<dyn Clock>,
        charter: impl FnOnce(CharterGrant) -> Result<Charter, PolicyError>,
    ) -> Result<Self, AcmeConfigError> {
        settings.check().map_err(AcmeConfigError::Setting)?;
        let ranges: Vec<AllowedRange> = settings.allow_addresses.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
        let origin = origin_of(&settings.directory).map_err(|error| AcmeConfigError::Setting(format!("directory: {error}")))?;
        let mut egress = EgressConfig::new("acme", origin);
        egress.tls.ca_pem_file.clone_from(&settings.directory_ca);
        egress.addresses = AddressPolicy::new(ranges);
        egress.read_timeout = REQUEST;
        egress.max_response_bytes = MOST_BYTES;
        egress.concurrency = 4;
        let client = EgressClient::new(egress)?;
        let charter = charter(CharterGrant {
            name: Arc::from("acme"),
            destinations: [client.origin().to_owned()].into(),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: REQUEST,
            budget: Budget { backend_bytes: MOST_BYTES, ..Budget::default() },
        })?;
        let external = settings.external_account.as_ref();
        Ok(Self {
            settings: settings.clone(),
            order: order_digest(settings),
            transport: Transport::new(client, charter),
            external_key: external.map(|account| secrets.credential(&account.key)).transpose()?,
            store: Store::new(data),
            clock,
        })
    }

    /// The settings it was made from.
    pub fn settings(&self) -> &AcmeSettings {
        &self.settings
    }

    /// Orders and renews until `stop`. `tell` hears what happened.
    pub async fn run(&self, answers: &Answers, tell: impl Fn(Happening), stop: &CancellationToken) {
        let mut right: Option<File> = None;
        let mut told = false;
        // What could not be written down is remembered here.
        let mut rest: Option<Timestamp> = None;
        loop {
            let now = self.clock.now();
            let mut at = rest.unwrap_or(now);
            if at <= now && right.is_none() {
                match self.store.try_lock() {
                    Ok(Some(held)) => right = Some(held),
                    Ok(None) => {
                        if !std::mem::replace(&mut told, true) {
                            tell(Happening::Elsewhere);
                        }
                        at = now.plus(LOOK);
                    }
                    Err(error) => {
                        at = now.plus(self.settings.retry.first.0.max(LOOK));
                        rest = Some(at);
                        tell(Happening::Failed { error, next: at });
                    }
                }
            }
            if at <= now {
                let standing = self.store.standing(&self.order);
                at = due(&self.settings, &self.store, &standing, now);
                if at <= now {
                    // Dropped half-way, an order leaves nothing but the time of the next.
                    let Some(ended) = stop.run_until_cancelled(self.once(answers, standing)).await else { return };
                    rest = match &ended {
                        Happening::Failed { next, .. } => Some(*next),
                        _ => Some(self.clock.now().plus(self.settings.retry.first.0)),
                    };
                    tell(ended);
                    continue;
                }
            }
            let sleep = at.since(now).min(LOOK);
            if stop.run_until_cancelled(tokio::time::sleep(sleep)).await.is_none() {
                return;
            }
            // A clock that was set back holds up nothing for longer than a pause can be.
            rest = rest.filter(|rest| *rest > self.clock.now() && rest.since(self.clock.now()) <= crate::store::LONGEST_HOLD);
        }
    }

    /// One order, written down before and after.
    async fn once(&self, answers: &Answers, mut standing: Standing) -> Happening {
        standing.attempts = standing.attempts.saturating_add(1);
        let attempts = standing.attempts;
        let rest = |asked| self.clock.now().plus(pause(self.settings.retry, attempts, asked, rand::random::<f64>()));
        let next = rest(None);
        standing.not_before = Some(next);
        if let Err(error) = self.store.save_standing(&standing) {
            // Without the note, a loop of restarts would be a loop of orders.
            return Happening::Failed { error, next };
        }
        self.transport.take_pause();
        let ordering = Ordering {
            settings: &self.settings,
            transport: &self.transport,
            store: &self.store,
            external_key: self.external_key.as_ref(),
            answers,
        };
        let placed = tokio::time::timeout(ORDER, ordering.place(|| self.clock.now())).await;
        let kept = placed.unwrap_or(Err(AttemptError::Late(ORDER))).and_then(|issued| {
            self.store.save_certificate(&issued.key, &issued.chain)?;
            Ok(issued.paper)
        });
        let happened = match kept {
            Ok(paper) => {
                // The pause stands after a success as well, for a certificate that is due as soon as it is there.
                standing = Standing {
                    order: self.order.clone(),
                    not_before: Some(self.clock.now().plus(self.settings.retry.first.0)),
                    obtained_by: Some(self.order.clone()),
                    ..Standing::default()
                };
                Happening::Obtained { domains: paper.names, until: paper.ends }
            }
            Err(error) => {
                let next = rest(self.transport.take_pause());
                standing.not_before = Some(next);
                standing.failure = Some(Failure { at: self.clock.now(), reason: error.to_string() });
                Happening::Failed { error, next }
            }
        };
        if let Err(error) = self.store.save_standing(&standing) {
            tracing::error!(%error, "how the order of a certificate went could not be written down");
        }
        happened
    }
}

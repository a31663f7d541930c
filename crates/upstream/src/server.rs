//! One upstream: how it is reached, what is known of it, and how it is. Guards that a conversation belongs to whoever it was
//! opened for, and that there are never more of them than the operator wants. Must not run calls; see `drive`.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use portcullis_egress::{AddressPolicy, EgressClient, EgressConfig, SecretResolver};
use portcullis_model::{Fault, FaultCode, PrincipalId, Scope};
use portcullis_policy::{Charter, Permit};
use portcullis_ports::{Exchange, Happening, Watch, Witness};
use serde_json::Value;
use tokio::sync::watch;

use crate::UpstreamError;
use crate::conversation::{Conversation, Era};
use crate::credentials::Credentials;
use crate::definition::{Entry, Kind};
use crate::ear::Ear;
use crate::examiner::Examiner;
use crate::health::{Fitness, Health};
use crate::line::{Bounds, HttpLine, HttpParts, Keeping, Line, Program, Proof, SseLine};
use crate::neighbours::Neighbourhood;
use crate::notes::{Notes, Order};
use crate::parking::Parking;
use crate::pins::PinBook;
use crate::questions::May;
use crate::settings::{ConfinedCallers, ProtocolChoice, UpstreamSettings};
use crate::wire::Trouble;

/// How long a server may take to say that it does not know the stateless revision.
const PROBE: Duration = Duration::from_secs(5);

/// How long it may take until an upstream announces changes of a resource.
const SUBSCRIBING: Duration = Duration::from_secs(5);

/// One upstream.
pub(crate) struct Server {
    pub(crate) name: Arc<str>,
    pub(crate) settings: UpstreamSettings,
    client: Option<EgressClient>,
    pub(crate) credentials: Credentials,
    pub(crate) health: Health,
    pub(crate) examiner: Arc<Examiner>,
    pub(crate) neighbourhood: Arc<Neighbourhood>,
    pub(crate) pins: OnceLock<PinBook>,
    /// What may still be written down about it.
    pub(crate) notes: Notes,
    /// Notes are taken one after the other. Waiting for a turn keeps no thread.
    pub(crate) order: tokio::sync::Mutex<Order>,
    pub(crate) standing: OnceLock<(Charter, Arc<dyn Witness>)>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    pub(crate) parking: Parking,
    /// What the last complete look found; `None` before one.
    pub(crate) listed: RwLock<Option<BTreeSet<(Kind, String)>>>,
    /// What is wrong with its lists.
    pub(crate) oddities: Mutex<Vec<String>>,
    /// Hears what it says and asks outside of any call.
    pub(crate) ear: Arc<Ear>,
    /// Whether it announces changes of resources somebody watches.
    pub(crate) announces: AtomicBool,
    /// Counts what changes the offer.
    pub(crate) revision: watch::Sender<u64>,
    keeping: Keeping,
    /// What the operator lets it ask, whoever calls.
    pub(crate) may: May,
    /// Steps back to an older revision that are on record: one that goes back and forth is one record.
    flips: Mutex<BTreeSet<(String, &'static str)>>,
}

/// A place for one conversation.
pub(crate) struct Slot {
    /// How what stands here is doing.
    pub(crate) fitness: Arc<Fitness>,
    conversation: tokio::sync::Mutex<Option<Arc<Conversation>>>,
    used: Mutex<Instant>,
    /// The last look at the lists, so that many calls at once share one.
    pub(crate) looks: tokio::sync::Mutex<HashMap<Kind, Look>>,
}

/// When a list was asked for, and what it held.
type Look = (Instant, Arc<Vec<Entry>>);

/// Whose conversation it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) key: String,
    pub(crate) principal: PrincipalId,
    pub(crate) private: bool,
}

impl Server {
    /// An upstream as configured. Nothing is opened or started.
    pub(crate) fn new(
        settings: UpstreamSettings,
        secrets: &dyn SecretResolver,
        examiner: Arc<Examiner>,
        neighbourhood: Arc<Neighbourhood>,
        keeping: Keeping,
    ) -> Result<Self, UpstreamError> {
        settings.check()?;
        let credentials = Credentials::new(&settings, secrets).map_err(|fault| settings.wrong(fault.to_string()))?;
        let client = egress(&settings).map(EgressClient::new).transpose()?;
        let (revision, _) = watch::channel(0);
        Ok(Self {
            name: Arc::from(settings.name.as_str()),
            health: Health::new(&settings.limits),
            client,
            credentials,
            examiner,
            neighbourhood,
            pins: OnceLock::new(),
            notes: Notes::new(settings.limits.definitions.saturating_mul(2)),
            order: tokio::sync::Mutex::default(),
            standing: OnceLock::new(),
            slots: Mutex::default(),
            parking: Parking::default(),
            listed: RwLock::default(),
            oddities: Mutex::default(),
            ear: Ear::new(&settings.questions),
            announces: AtomicBool::new(false),
            revision,
            keeping,
            may: May::of(&settings),
            flips: Mutex::default(),
            settings,
        })
    }

    /// What works and should be looked at all the same.
    pub(crate) fn warnings(&self) -> Vec<String> {
        egress(&self.settings).map(|config| config.warnings_with(self.credentials.any())).unwrap_or_default()
    }

    /// Where it is, for charters.
    pub(crate) fn origin(&self) -> Option<&str> {
        self.client.as_ref().map(EgressClient::origin)
    }

    /// Says that the offer is another one.
    pub(crate) fn touch(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// That it does not answer, in the audit log: for each failure, and recorded once as long as it lasts, at most once a
    /// minute whoever noticed it.
    pub(crate) fn record_failure(&self, fitness: &Fitness, trouble: &Trouble) {
        let why = trouble.to_string();
        if self.health.may_record(fitness, &why, Instant::now()) {
            self.record("upstream.failed", self.name.to_string(), false, why);
        }
    }

    /// Writes down what happened. What was about to be let in stays out when that fails.
    pub(crate) fn record(&self, what: &'static str, subject: String, admitted: bool, note: String) -> bool {
        let Some((_, witness)) = self.standing.get() else { return false };
        match witness.record(&Happening { what, subject, admitted, note }) {
            Ok(()) => true,
            Err(reason) => {
                tracing::error!(target: "portcullis::upstream", upstream = %self.name, %reason, "{what} could not be recorded");
                false
            }
        }
    }

    /// Whether work under this permit may use it at all.
    pub(crate) fn admits(&self, permit: &Permit) -> Result<(), Fault> {
        self.serves(permit.scope())?;
        permit.trail().reached(&self.name);
        Ok(())
    }

    /// Whether anybody within this scope may use it.
    pub(crate) fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        let refused = |message: String| Fault::new(FaultCode::Forbidden, message);
        if scope.tenant != self.settings.tenant || !scope.sources.contains(&self.name) {
            return Err(refused(format!("source '{}' is not available to this credential", self.name)));
        }
        let confined = scope.restricts_records() || scope.look_back.is_some();
        if confined && self.settings.confined_callers == ConfinedCallers::Refuse {
            let fault = refused(format!(
                "upstream '{}' cannot be confined to the services, namespaces or look-back of this credential",
                self.name
            ));
            return Err(fault.with_hint(
                "the operator can allow it with confined_callers: allow, if it shows nothing of other services and namespaces, \
                 and nothing older, that this credential must not see",
            ));
        }
        Ok(())
    }

    /// What is presented for the caller, and whose conversation is used.
    pub(crate) async fn present(&self, permit: &Permit, exchange: Option<&dyn Exchange>) -> Result<(Arc<Proof>, Owner), Fault> {
        let principal = permit.principal_id();
        let (proof, told_apart) = self.credentials.proof(&self.name, permit, exchange).await?;
        let private = self.settings.is_private();
        let key = if private { format!("{principal} {told_apart}") } else { String::new() };
        Ok((Arc::new(proof), Owner { key, principal: principal.clone(), private }))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of an owner. When all are taken the one that was idle longest, and long enough, goes.
    pub(crate) fn slot(&self, owner: &Owner) -> Result<Arc<Slot>, Fault> {
        let now = Instant::now();
        let mut slots = self.slots();
        if let Some(slot) = slots.get(&owner.key) {
            slot.touch(now);
            return Ok(slot.clone());
        }
        let instances = self.settings.limits.instances as usize;
        // What a client presents tells its conversations apart; with ever others it takes none from anybody else.
        let is_own = |key: &str| owner.private && key.split(' ').next() == Some(owner.principal.as_str());
        let has_its_share = slots.keys().filter(|key| is_own(key)).count() >= instances.div_ceil(2);
        if has_its_share || slots.len() > instances {
            let may_go = |key: &str, slot: &Arc<Slot>| Arc::strong_count(slot) == 1 && (!has_its_share || is_own(key));
            let idle = slots.iter().filter(|(key, slot)| may_go(key, slot)).min_by_key(|(_, slot)| slot.used());
            let Some(key) = idle.map(|(key, _)| key.clone()) else {
                let message = format!("upstream '{}' serves as many callers as it may", self.name);
                return Err(Fault::new(FaultCode::RateLimited, message).with_retry_after(10));
            };
            slots.remove(&key);
        }
        let slot = Arc::new(Slot {
            fitness: if owner.private { Arc::default() } else { self.health.fitness.clone() },
            conversation: tokio::sync::Mutex::default(),
            used: Mutex::new(now),
            looks: tokio::sync::Mutex::default(),
        });
        slots.insert(owner.key.clone(), slot.clone());
        Ok(slot)
    }

    /// Ends conversations nobody used for a while, and calls that waited too long.
    pub(crate) async fn sweep(&self) {
        self.end_unanswered();
        if let Some(count) = self.ear.missed_and_not_told(Instant::now()) {
            let note = format!(
                "{count} log messages reached nobody: nobody called, or it could not be told which of several callers they are for"
            );
            self.record("upstream.unheard", self.name.to_string(), false, note);
        }
        let idle = self.settings.limits.instance_idle.0;
        let ended: Vec<Arc<Slot>> = {
            let mut slots = self.slots();
            let over =
                |key: &String, slot: &Arc<Slot>| !key.is_empty() && Arc::strong_count(slot) == 1 && slot.used().elapsed() > idle;
            let keys: Vec<String> = slots.iter().filter(|(key, slot)| over(key, slot)).map(|(key, _)| key.clone()).collect();
            keys.iter().filter_map(|key| slots.remove(key)).collect()
        };
        for slot in ended {
            slot.close().await;
        }
    }

    /// Ends calls that waited too long.
    pub(crate) fn end_unanswered(&self) {
        for over in self.parking.sweep() {
            self.let_go(over, "nobody answered in time");
        }
    }

    /// Ends calls that wait for callers who would not be let in any more.
    pub(crate) fn end_refused(&self) {
        for refused in self.parking.refused() {
            self.let_go(refused, "the credential of its caller has ended");
        }
    }

    /// Ends everything.
    pub(crate) async fn close(&self) {
        self.parking.clear();
        let all: Vec<Arc<Slot>> = self.slots().drain().map(|(_, slot)| slot).collect();
        futures::future::join_all(all.iter().map(|slot| slot.close())).await;
    }

    /// The conversation of an owner, opened when there is none.
    pub(crate) async fn conversation(
        &self,
        permit: &Permit,
        proof: &Arc<Proof>,
        owner: &Owner,
        slot: &Slot,
    ) -> Result<Arc<Conversation>, Trouble> {
        let mut place = slot.conversation.lock().await;
        if let Some(conversation) = place.as_ref().filter(|conversation| conversation.line.is_alive()) {
            return Ok(conversation.clone());
        }
        place.take();
        let patience = self.settings.limits.start.0;
        let begun = tokio::time::timeout(patience, self.begin(permit, proof, owner)).await;
        let conversation = begun.unwrap_or_else(|_| Err(Trouble::Slow(portcullis_model::format_duration(patience))))?;
        let conversation = Arc::new(conversation);
        *place = Some(conversation.clone());
        Ok(conversation)
    }

    async fn begin(&self, permit: &Permit, proof: &Arc<Proof>, owner: &Owner) -> Result<Conversation, Trouble> {
        let choice = self.settings.protocol;
        let patience = self.settings.limits.start.0;
        if choice != ProtocolChoice::Session && self.settings.sse.is_none() {
            let line = self.line(permit, proof, owner).await?;
            let probe = if choice == ProtocolChoice::Auto { PROBE.min(patience) } else { patience };
            match Conversation::discover(line.clone(), permit, proof, probe).await {
                Ok(conversation) => return Ok(conversation),
                Err(trouble) if choice == ProtocolChoice::Stateless => return Err(trouble),
                Err(trouble @ Trouble::House(_)) => return Err(trouble),
                Err(trouble @ Trouble::Gone(_)) if self.client.is_some() => return Err(trouble),
                // It does not know the stateless revision.
                Err(Trouble::Refused(_)) if matches!(line, Line::Program(_)) && line.is_alive() => {
                    return Conversation::initialize(line, permit, proof, self.may(owner), patience).await;
                }
                Err(_) => line.close().await,
            }
        }
        let line = self.line(permit, proof, owner).await?;
        Conversation::initialize(line, permit, proof, self.may(owner), patience).await
    }

    /// What an owner's conversation may be asked, before it is known who calls. A question over a line that several
    /// principals share could reach the wrong one, so none is invited there.
    fn may(&self, owner: &Owner) -> May {
        let may = self.may;
        if owner.private || self.settings.http.is_some() { may } else { may.nobody() }
    }

    async fn line(&self, permit: &Permit, proof: &Arc<Proof>, owner: &Owner) -> Result<Line, Trouble> {
        let limits = &self.settings.limits;
        let bounds = Bounds { message: limits.message.0, idle: limits.idle.0 };
        if let Some(program) = &self.settings.stdio {
            let environment = self.credentials.environment(&self.name, &owner.principal).await.map_err(Trouble::House)?;
            let program = Program {
                name: self.name.clone(),
                command: program.command.clone(),
                arguments: program.args.clone(),
                environment,
                directory: program.directory.clone().unwrap_or_else(|| PathBuf::from("/")),
                digests: program.digests.clone().into_iter().collect(),
                echoes: proof.echoes.clone(),
                private: owner.private,
                keeping: self.keeping,
                bounds,
            };
            return Ok(Line::Program(Arc::new(program.start(permit, self.ear.clone()).await?)));
        }
        let unready = || Trouble::Gone("the house has not begun its standing work".into());
        let client = self.client.clone().ok_or_else(unready)?;
        let (charter, _) = self.standing.get().ok_or_else(unready)?;
        let parts = HttpParts { client, charter: charter.clone(), bounds, ear: self.ear.clone() };
        if self.settings.sse.is_some() {
            return Ok(Line::Sse(SseLine::connect(parts, proof.clone(), owner.private).await?));
        }
        Ok(Line::Http(HttpLine::new(parts, owner.private)))
    }

    /// Compares the revision an upstream speaks with the newest it was heard to speak. An older one waits for a person.
    pub(crate) async fn check_revision(&self, conversation: &Conversation) -> Result<(), Fault> {
        let Some(pins) = self.pins.get() else { return Err(self.unready()) };
        let now = conversation.protocol();
        if pins.fits(now) {
            return Ok(());
        }
        let before = pins.accepted(Kind::Protocol, &now.name);
        let before = before.and_then(|a| a.definition.get("protocolVersion").and_then(Value::as_str).map(str::to_owned));
        let store = |error: crate::PinError| {
            Fault::new(FaultCode::Unavailable, format!("the pins of upstream '{}' cannot be written", self.name))
                .with_internal(error.to_string())
        };
        let known = pins.knows(now);
        pins.look(now, Vec::new()).await.map_err(store)?;
        match before {
            Some(before) if before.as_str() > conversation.version => {
                let change = (before.clone(), conversation.version);
                if self.flips.lock().unwrap_or_else(PoisonError::into_inner).insert(change) && !known {
                    let note = format!("speaks {} now and spoke {before} before", conversation.version);
                    self.record("upstream.quarantined", format!("{}/protocol", self.name), false, note);
                    self.touch();
                }
                let message = format!("upstream '{}' speaks an older revision of MCP than before", self.name);
                let hint = format!("the operator can look at it with: portcullis upstream review {}", self.name);
                Err(Fault::new(FaultCode::Forbidden, message).with_hint(hint))
            }
            _ if pins.fits(now) => Ok(()),
            _ => {
                self.flips.lock().unwrap_or_else(PoisonError::into_inner).clear();
                pins.accept(Kind::Protocol, &now.name, &now.digest, "first sight").await.map_err(store)
            }
        }
    }

    /// Begins to watch a resource, for somebody who may read it: returns when the upstream announces its changes.
    pub(crate) async fn watch(&self, permit: &Permit, uri: &str) -> Result<Watch, Fault> {
        self.admits(permit)?;
        let watch = self.ear.watch(uri);
        match tokio::time::timeout(SUBSCRIBING, self.ear.is_subscribed(uri)).await {
            Ok(()) => Ok(watch),
            Err(_elapsed) => {
                let message = format!("upstream '{}' does not announce changes of this resource at the moment", self.name);
                Err(Fault::new(FaultCode::Unavailable, message).with_retry_after(5))
            }
        }
    }

    pub(crate) fn unready(&self) -> Fault {
        Fault::new(FaultCode::Unavailable, format!("upstream '{}' is not ready yet", self.name)).with_retry_after(2)
    }

    /// Whether questions on a conversation reach the right caller.
    pub(crate) fn can_ask(conversation: &Conversation, owner: &Owner) -> bool {
        conversation.era == Era::Stateless || owner.private || !conversation.line.shares_one_stream()
    }
}

impl Slot {
    fn touch(&self, now: Instant) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn close(&self) {
        if let Some(conversation) = self.conversation.lock().await.take() {
            conversation.line.close().await;
        }
    }

    /// Gives up a conversation that ended, so that the next call opens another one.
    pub(crate) async fn give_up(&self, ended: &Arc<Conversation>) {
        let mut place = self.conversation.lock().await;
        if place.as_ref().is_some_and(|current| Arc::ptr_eq(current, ended)) {
            place.take();
        }
    }
}

/// The client of an upstream that is reached by HTTP.
fn egress(settings: &UpstreamSettings) -> Option<EgressConfig> {
    let address = settings.address()?;
    let idle = settings.limits.idle.0;
    Some(EgressConfig {
        headers: address.headers.clone().into_iter().collect(),
        tls: address.tls.clone().into(),
        addresses: AddressPolicy::new(address.allow_addresses.iter().copied()),
        // Silence is bounded stream by stream.
        read_timeout: idle.max(Duration::from_mins(6)),
        max_response_bytes: settings.limits.message.0,
        concurrency: (settings.limits.concurrent as usize + settings.limits.instances as usize) * 2,
        breaker_failures: 0,
        ..EgressConfig::new(settings.name.clone(), address.url.clone())
    })
}

//! Behaviour profiles: what a principal usually does, learned from its calls, and what to do when it does something
//! else. Off, observe, dry-run (report only), enforce. Enforcing fails closed: without an accepted profile nothing is
//! let through. Shapes are kept, never values.

mod learned;
mod minutes;
mod shape;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use portcullis_model::{Clock, Fault, FaultCode, NameSet, PrincipalId, Scope, SystemClock};
use portcullis_policy::Permit;
use portcullis_state::{Entry, MemoryStore, Namespace, Store, StoreError};
use serde_json::{Map, Value};

pub use learned::{Behaviour, Deviation, ToolUse};
use minutes::Minutes;

const LEARNED: Namespace = "gateway.profiles.learned";
const ACCEPTED: Namespace = "gateway.profiles.accepted";
/// Principals watched at once; further ones are not learned until the next settlement.
const WATCHED: usize = 10_000;
/// Tries to change a record that others change at the same time.
const ATTEMPTS: usize = 8;

/// What profiles do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProfileMode {
    /// Nothing.
    #[default]
    Off,
    /// Learn.
    Observe,
    /// Learn, and report calls that are unlike the accepted profile.
    DryRun,
    /// Refuse calls that are unlike the accepted profile. Nothing is learned any more.
    Enforce,
}

impl ProfileMode {
    fn learns(self) -> bool {
        matches!(self, Self::Observe | Self::DryRun)
    }

    fn judges(self) -> bool {
        matches!(self, Self::DryRun | Self::Enforce)
    }
}

/// What can go wrong with profiles.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The caller's: nothing was learned of this principal.
    #[error("nothing was learned of '{0}'; profiles.mode must be observe or dry_run while it works")]
    Unknown(String),
    /// The operator's: the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator's: a record that cannot be read.
    #[error("a profile cannot be read: {0}")]
    Unreadable(String),
    /// Others changed the record at every attempt.
    #[error("the profile of '{0}' is being changed by another process; try again")]
    Contended(String),
}

/// What a profile says of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It fits, or nobody judges.
    Fits,
    /// It does not fit, and is let through (dry run).
    Reported(Vec<Deviation>),
    /// It does not fit, and is refused.
    Refused(Vec<Deviation>),
}

#[derive(Debug, Default)]
struct Watching {
    seen: HashMap<PrincipalId, Behaviour>,
    minutes: Minutes,
}

/// The book of profiles.
#[derive(Debug)]
pub struct Profiles {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    mode: ProfileMode,
    /// The name of this replica among those of the store.
    own: String,
    watching: Mutex<Watching>,
    accepted: ArcSwap<HashMap<PrincipalId, Arc<Behaviour>>>,
    loaded_at: AtomicU64,
}

impl Profiles {
    /// Opens the book and reads the accepted profiles.
    ///
    /// # Errors
    /// When the store fails or an accepted profile cannot be read: enforcing without it would let nobody in, and
    /// leaving it out silently would be worse.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>, mode: ProfileMode) -> Result<Self, ProfileError> {
        let profiles = Self::unread(store, clock, mode);
        profiles.refresh().await?;
        Ok(profiles)
    }

    /// A book that does nothing and keeps nothing.
    pub fn off() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self::unread(Arc::new(MemoryStore::new(clock.clone())), clock, ProfileMode::Off)
    }

    fn unread(store: Arc<dyn Store>, clock: Arc<dyn Clock>, mode: ProfileMode) -> Self {
        Self {
            store,
            clock,
            mode,
            own: format!("{:032x}", rand::random::<u128>()),
            watching: Mutex::default(),
            accepted: ArcSwap::default(),
            loaded_at: AtomicU64::new(u64::MAX),
        }
    }

    fn watching(&self) -> MutexGuard<'_, Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mode in force.
    pub fn mode(&self) -> ProfileMode {
        self.mode
    }

    /// How many profiles are accepted.
    pub fn accepted_count(&self) -> usize {
        self.accepted.load().len()
    }

    /// Reads accepted profiles anew when another process changed them.
    ///
    /// # Errors
    /// As [`Profiles::open`]; the ones read before stay in force.
    pub async fn refresh(&self) -> Result<(), ProfileError> {
        let counter = self.store.change_counter(ACCEPTED).await?;
        if self.loaded_at.load(Ordering::Acquire) == counter {
            return Ok(());
        }
        let read: HashMap<_, _> =
            all(self.store.as_ref(), ACCEPTED).await?.into_iter().map(|b| (b.principal.clone(), Arc::new(b))).collect();
        self.accepted.store(Arc::new(read));
        self.loaded_at.store(counter, Ordering::Release);
        Ok(())
    }

    /// What the profile says of this call, before it runs. Counts the call.
    pub(crate) fn judge(&self, principal: &PrincipalId, tool: &str, arguments: &Map<String, Value>) -> Judgement {
        if self.mode == ProfileMode::Off {
            return Judgement::Fits;
        }
        let at = self.clock.now();
        let in_minute = self.watching().minutes.count(principal, shape::minute(at));
        if !self.mode.judges() {
            return Judgement::Fits;
        }
        let accepted = self.accepted.load();
        let deviations = match accepted.get(principal) {
            Some(profile) => profile.deviations(tool, arguments, at, in_minute),
            None => vec![Deviation::NoProfile],
        };
        match (deviations.is_empty(), self.mode) {
            (true, _) => Judgement::Fits,
            (false, ProfileMode::Enforce) => Judgement::Refused(deviations),
            (false, _) => Judgement::Reported(deviations),
        }
    }

    /// The permit with only the sources of the accepted profile, when profiles are enforced.
    pub(crate) fn confine(&self, permit: Permit, tool: &str) -> Permit {
        if self.mode != ProfileMode::Enforce {
            return permit;
        }
        let accepted = self.accepted.load();
        let known = accepted.get(permit.principal_id()).and_then(|profile| profile.sources(tool));
        // What never touched a source needs none, and gets none.
        let sources = NameSet::only(known.into_iter().flatten().cloned());
        permit.narrowed(&Scope { sources, ..permit.scope().clone() })
    }

    /// Learns from a call that was allowed and answered.
    pub(crate) fn learn<'a>(
        &self,
        principal: &PrincipalId,
        tool: &str,
        arguments: &Map<String, Value>,
        sources: impl Iterator<Item = &'a str>,
    ) {
        if !self.mode.learns() {
            return;
        }
        let at = self.clock.now();
        let mut watching = self.watching();
        let in_minute = watching.minutes.of(principal);
        if watching.seen.len() >= WATCHED && !watching.seen.contains_key(principal) {
            return;
        }
        let seen = watching.seen.entry(principal.clone()).or_insert_with(|| Behaviour::new(principal.clone(), at));
        seen.learn(tool, arguments, at, in_minute);
        seen.touched(tool, sources);
    }

    /// Adds what was learned here to the store. To be called every few seconds and before the process ends.
    ///
    /// # Errors
    /// When the store fails; what was learned is kept and added next time.
    pub async fn settle(&self) -> Result<(), ProfileError> {
        let learned: Vec<Behaviour> = {
            let mut watching = self.watching();
            watching.seen.drain().map(|(_, behaviour)| behaviour).collect()
        };
        let mut failed = None;
        for behaviour in learned {
            if failed.is_none()
                && let Err(error) = self.add(&behaviour).await
            {
                failed = Some(error);
            }
            if failed.is_some() {
                let mut watching = self.watching();
                match watching.seen.get_mut(&behaviour.principal) {
                    Some(newer) => newer.merge(&behaviour),
                    None => {
                        watching.seen.insert(behaviour.principal.clone(), behaviour);
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn add(&self, behaviour: &Behaviour) -> Result<(), ProfileError> {
        let key = key_of(&behaviour.principal);
        for _ in 0..ATTEMPTS {
            let written = match self.store.get(LEARNED, &key).await? {
                None => self.store.put_if_absent(LEARNED, &key, &encode(behaviour)?, None).await?.is_some(),
                Some(entry) => {
                    let mut whole = read(&entry)?;
                    whole.merge(behaviour);
                    self.store.compare_and_swap(LEARNED, &key, entry.version, &encode(&whole)?, None).await?.is_some()
                }
            };
            if written {
                return Ok(());
            }
        }
        Err(ProfileError::Contended(behaviour.principal.to_string()))
    }

    /// Everything learned, by principal.
    ///
    /// # Errors
    /// When the store fails or a record cannot be read.
    pub async fn learned(&self) -> Result<Vec<Behaviour>, ProfileError> {
        all(self.store.as_ref(), LEARNED).await
    }

    /// The accepted profile of a principal.
    pub fn accepted(&self, principal: &PrincipalId) -> Option<Arc<Behaviour>> {
        self.accepted.load().get(principal).cloned()
    }

    /// Makes what was learned of `principal` its profile.
    ///
    /// # Errors
    /// When nothing was learned, or the store fails.
    pub async fn accept(&self, principal: &PrincipalId) -> Result<Behaviour, ProfileError> {
        let key = key_of(principal);
        let entry = self.store.get(LEARNED, &key).await?.ok_or_else(|| ProfileError::Unknown(principal.to_string()))?;
        let behaviour = read(&entry)?;
        self.store.put(ACCEPTED, &key, &encode(&behaviour)?, None).await?;
        self.refresh().await?;
        Ok(behaviour)
    }

    /// Forgets what was learned and accepted of `principal`. Whether there was anything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self, principal: &PrincipalId) -> Result<bool, ProfileError> {
        let key = key_of(principal);
        let learned = self.store.delete(LEARNED, &key).await?;
        let accepted = self.store.delete(ACCEPTED, &key).await?;
        self.refresh().await?;
        Ok(learned || accepted)
    }
}

/// The sources that were asked under a permit, as its trail says. What else is in it (hosts, plugins, secrets) has a word and
/// a colon before its name, which no source has.
pub(crate) fn asked(permit: &Permit) -> Vec<Arc<str>> {
    let mut reached = permit.trail().all_reached();
    reached.retain(|one| !one.contains(':'));
    reached
}

/// The refusal of a call that is unlike the profile.
pub(crate) fn refused(deviations: &[Deviation]) -> Fault {
    Fault::new(FaultCode::Forbidden, "this call is outside the behaviour profile of this credential")
        .with_hint("an operator can look at it with `portcullis profile show` and accept a new profile")
        .with_internal(described(deviations))
}

/// Deviations in words, for the operator.
pub(crate) fn described(deviations: &[Deviation]) -> String {
    let words: Vec<String> = deviations.iter().map(ToString::to_string).collect();
    format!("unlike its profile: {}", words.join("; "))
}

fn key_of(principal: &PrincipalId) -> String {
    blake3::hash(principal.as_str().as_bytes()).to_hex().to_string()
}

fn encode(behaviour: &Behaviour) -> Result<Vec<u8>, ProfileError> {
    serde_json::to_vec(behaviour).map_err(|e| ProfileError::Unreadable(e.to_string()))
}

fn read(entry: &Entry) -> Result<Behaviour, ProfileError> {
    serde_json::from_slice(&entry.value).map_err(|e| ProfileError::Unreadable(e.to_string()))
}

async fn all(store: &dyn Store, namespace: Namespace) -> Result<Vec<Behaviour>, ProfileError> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let listing = store.list_after(namespace, "", after.as_deref(), 500).await?;
        for entry in &listing.entries {
            found.push(read(entry)?);
        }
        after = listing.entries.last().map(|e| e.key.clone());
        if !listing.more || after.is_none() {
            break;
        }
    }
    found.sort_by(|a: &Behaviour, b| a.principal.as_str().cmp(b.principal.as_str()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{ManualClock, Timestamp};

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    fn arguments(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    async fn book(store: &Arc<dyn Store>, clock: &Arc<ManualClock>, mode: ProfileMode) -> Profiles {
        Profiles::open(store.clone(), clock.clone(), mode).await.unwrap()
    }

    fn world() -> (Arc<dyn Store>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000)));
        (Arc::new(MemoryStore::new(clock.clone())), clock)
    }

    #[tokio::test]
    async fn observe_then_accept_then_enforce() {
        let (store, clock) = world();
        let observing = book(&store, &clock, ProfileMode::Observe).await;
        let usual = arguments(r#"{"service":"cart"}"#);
        assert_eq!(observing.judge(&who("key:a"), "query_logs", &usual), Judgement::Fits);
        observing.learn(&who("key:a"), "query_logs", &usual, ["embedded"].into_iter());
        assert!(matches!(observing.accept(&who("key:a")).await, Err(ProfileError::Unknown(_))), "not settled yet");
        observing.settle().await.unwrap();
        observing.accept(&who("key:a")).await.unwrap();

        let dry = book(&store, &clock, ProfileMode::DryRun).await;
        assert_eq!(dry.judge(&who("key:a"), "query_logs", &usual), Judgement::Fits);
        assert_eq!(dry.judge(&who("key:a"), "sql", &usual), Judgement::Reported(vec![Deviation::Tool]));

        let enforcing = book(&store, &clock, ProfileMode::Enforce).await;
        assert_eq!(enforcing.judge(&who("key:a"), "query_logs", &arguments(r#"{"service":"x"}"#)), Judgement::Fits);
        assert_eq!(enforcing.judge(&who("key:a"), "sql", &usual), Judgement::Refused(vec![Deviation::Tool]));
        assert_eq!(enforcing.judge(&who("key:b"), "query_logs", &usual), Judgement::Refused(vec![Deviation::NoProfile]));
        enforcing.learn(&who("key:b"), "sql", &usual, std::iter::empty());
        enforcing.settle().await.unwrap();
        assert_eq!(enforcing.learned().await.unwrap().len(), 1, "enforcing learns nothing");
    }

    #[tokio::test]
    async fn an_enforced_profile_confines_to_the_sources_that_were_asked_and_to_none_where_none_was() {
        let (store, clock) = world();
        let admin = portcullis_identity::local_principal("tester", "admin").unwrap();
        let policies = portcullis_policy::Policies::load(&[], &portcullis_policy::Vocabulary::default(), 1).unwrap();
        let permit = || {
            let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
            let budget = portcullis_policy::Budget::default();
            policies
                .authorize_lookup(
                    None,
                    (&admin, &portcullis_policy::Lookup::resource("shop://about")),
                    until,
                    budget,
                    portcullis_model::TraceContext::default(),
                )
                .unwrap()
        };
        let reached = permit();
        for one in ["prom", "host:https://prom.example:443", "plugin:a@1"] {
            reached.trail().reached(one);
        }
        assert_eq!(asked(&reached), [Arc::from("prom")]);

        let observing = book(&store, &clock, ProfileMode::Observe).await;
        let usual = arguments("{}");
        observing.learn(&admin.id, "look", &usual, asked(&reached).iter().map(|one| &**one));
        observing.learn(&admin.id, "idle", &usual, std::iter::empty());
        observing.settle().await.unwrap();
        observing.accept(&admin.id).await.unwrap();
        assert!(observing.confine(permit(), "idle").scope().sources.is_all(), "while it only watches nothing is confined");

        let enforcing = book(&store, &clock, ProfileMode::Enforce).await;
        let sources = |habit: &str| enforcing.confine(permit(), habit).scope().sources.clone();
        assert_eq!(sources("look"), NameSet::only(["prom"]));
        for habit in ["idle", "never seen"] {
            assert_eq!(sources(habit), NameSet::only([] as [&str; 0]), "{habit}");
        }
    }

    #[tokio::test]
    async fn an_acceptance_elsewhere_is_noticed() {
        let (store, clock) = world();
        let observing = book(&store, &clock, ProfileMode::Observe).await;
        let enforcing = book(&store, &clock, ProfileMode::Enforce).await;
        let usual = arguments("{}");
        observing.judge(&who("key:a"), "t", &usual);
        observing.learn(&who("key:a"), "t", &usual, std::iter::empty());
        observing.settle().await.unwrap();
        observing.accept(&who("key:a")).await.unwrap();
        assert!(matches!(enforcing.judge(&who("key:a"), "t", &usual), Judgement::Refused(_)));
        enforcing.refresh().await.unwrap();
        assert_eq!(enforcing.judge(&who("key:a"), "t", &usual), Judgement::Fits);
        assert!(observing.forget(&who("key:a")).await.unwrap());
        enforcing.refresh().await.unwrap();
        assert!(matches!(enforcing.judge(&who("key:a"), "t", &usual), Judgement::Refused(_)));
    }

    #[tokio::test]
    async fn a_busier_caller_than_ever_is_refused() {
        let (store, clock) = world();
        let observing = book(&store, &clock, ProfileMode::Observe).await;
        let usual = arguments("{}");
        for _ in 0..3 {
            observing.judge(&who("key:a"), "t", &usual);
            observing.learn(&who("key:a"), "t", &usual, std::iter::empty());
        }
        observing.settle().await.unwrap();
        observing.accept(&who("key:a")).await.unwrap();
        let enforcing = book(&store, &clock, ProfileMode::Enforce).await;
        let verdicts: Vec<bool> = (0..8).map(|_| enforcing.judge(&who("key:a"), "t", &usual) == Judgement::Fits).collect();
        assert_eq!(verdicts, [true, true, true, true, true, true, false, false], "twice the three of the profile");
        clock.advance(std::time::Duration::from_mins(1));
        assert_eq!(enforcing.judge(&who("key:a"), "t", &usual), Judgement::Fits);
    }

    #[tokio::test]
    async fn what_could_not_be_stored_is_kept() {
        let (store, clock) = world();
        let observing = book(&store, &clock, ProfileMode::Observe).await;
        for n in 0..2 {
            observing.judge(&who("key:a"), "t", &arguments("{}"));
            observing.learn(&who("key:a"), "t", &arguments("{}"), std::iter::empty());
            observing.settle().await.unwrap();
            assert_eq!(observing.learned().await.unwrap()[0].calls, n + 1);
        }
    }
}

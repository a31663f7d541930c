//! Definitions a person accepted, and those that wait. Guards that what is offered is, to the last byte, what was accepted:
//! a change that cannot be written down counts as a change all the same. Must not decide what is dangerous.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use portcullis_model::{Clock, Timestamp};
use portcullis_state::{MAX_LIST, Namespace, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::definition::{Definition, Kind, hex};
use crate::scanner::{Finding, Neighbours, findings_among};

const NAMESPACE: Namespace = "upstream.pins";
/// How many people are remembered by what they were shown last.
const REVIEWERS: usize = 16;
/// How often a write is tried again because another process wrote in between.
const TRIES: usize = 8;

/// One thing of an upstream, and what was decided about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The upstream.
    pub upstream: String,
    /// What it is.
    pub kind: Kind,
    /// Its name, address or template, as the upstream wrote it.
    pub name: String,
    /// What a person accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    /// What was seen since and is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// Digest of what a person rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// What each person was shown last. Who does not name a digest can accept nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<Shown>,
    /// When it was accepted first. What is written about its name since then, rules, approvals, habits, is about it, so the
    /// name stays its own whatever becomes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What somebody was shown last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// To whom.
    pub to: String,
    /// SHA-256 of its canonical form.
    pub digest: String,
}

/// An accepted definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// SHA-256 of its canonical form.
    pub digest: String,
    /// All of it.
    pub definition: Value,
    /// Who accepted it; `configuration` where `trust: accept_first_sight` did.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A definition that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// SHA-256 of its canonical form.
    pub digest: String,
    /// All of it. For people only: no model reads it.
    pub definition: Value,
    /// When it was seen first.
    pub at: Timestamp,
    /// What the scanner says about it.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// How a pin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PinState {
    /// In use as it was accepted.
    Accepted,
    /// Never accepted.
    New,
    /// Accepted once, and something else now.
    Changed,
    /// A person said no to what it is now.
    Rejected,
}

impl PinState {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::New => "new",
            Self::Changed => "changed",
            Self::Rejected => "rejected",
        }
    }
}

impl Pin {
    /// How it stands.
    pub fn state(&self) -> PinState {
        match (&self.accepted, &self.seen) {
            (_, Some(seen)) if self.rejected.as_deref() == Some(seen.digest.as_str()) => PinState::Rejected,
            (Some(_), None) => PinState::Accepted,
            (Some(_), Some(_)) => PinState::Changed,
            (None, _) => PinState::New,
        }
    }

    fn new(upstream: &str, kind: Kind, name: &str) -> Self {
        Self {
            upstream: upstream.into(),
            kind,
            name: name.into(),
            accepted: None,
            seen: None,
            rejected: None,
            shown: Vec::new(),
            since: None,
        }
    }

    /// Digest of what somebody was shown last.
    pub fn shown_to(&self, who: &str) -> Option<&str> {
        self.shown.iter().find(|shown| shown.to == who).map(|shown| shown.digest.as_str())
    }

    /// What the scanner says about what waits: as it was seen, and for its name as it is among these names now. Others may have
    /// come since it was looked at.
    pub fn findings(&self, neighbours: &Neighbours) -> Vec<Finding> {
        let Some(seen) = &self.seen else { return Vec::new() };
        findings_among(self.kind, &self.name, &seen.definition, neighbours, &seen.findings)
    }

    /// Whether its name is one that others could be taken for: it was accepted once, or waits.
    fn is_known_by_name(&self) -> bool {
        self.since().is_some() || matches!(self.state(), PinState::New | PinState::Changed)
    }

    /// When it was accepted first.
    fn since(&self) -> Option<Timestamp> {
        self.since.or_else(|| self.accepted.as_ref().map(|accepted| accepted.at))
    }

    /// Whether no person ever decided anything about it.
    fn is_undecided(&self) -> bool {
        self.since().is_none() && self.rejected.is_none()
    }
}

/// A pin that cannot be read, written or found.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is not a pin; for the operator to restore the state from a backup.
    #[error("a pin of upstream '{0}' cannot be read: {1}")]
    Damaged(String, String),
    /// There is nothing of that name that waits.
    #[error("upstream '{upstream}' has no {what} that waits; `portcullis upstream list` shows what does")]
    Unknown {
        /// The upstream.
        upstream: String,
        /// What was asked for.
        what: String,
    },
    /// What waits is no longer what was looked at.
    #[error("{kind} '{name}' of upstream '{upstream}' changed again since it was reviewed; review it once more")]
    MovedOn {
        /// The upstream.
        upstream: String,
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Other processes write all the time.
    #[error("the pins of upstream '{0}' are being changed by other processes; try again")]
    Busy(String),
}

/// What came of looking at a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As accepted.
    Accepted,
    /// As it was accepted once, after it had been something else.
    Restored,
    /// It waits, or was rejected, as before.
    Waiting,
    /// It waits from now on, and was never seen before.
    New,
    /// It waits from now on, because it is no longer what was accepted or what waited.
    Changed,
}

/// Names and addresses are any text; keys are not.
fn key_of(upstream: &str, kind: Kind, name: &str) -> String {
    let digest = hex(&Sha256::digest(name.as_bytes()));
    format!("{upstream}/{}/{}", kind.as_str(), &digest[..40])
}

type View = BTreeMap<(Kind, String), Pin>;

/// The pins of one upstream.
pub struct PinBook {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    upstream: Arc<str>,
    view: RwLock<Arc<View>>,
    counter: AtomicU64,
    /// What was seen to be something else and is not written down, or not yet. Only what is accepted is ever in it.
    distrusted: Mutex<BTreeSet<(Kind, String)>>,
}

impl std::fmt::Debug for PinBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinBook").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl PinBook {
    /// The pins of `upstream` in `store`, not yet read.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, upstream: &str) -> Self {
        Self {
            store,
            clock,
            upstream: Arc::from(upstream),
            view: RwLock::default(),
            counter: AtomicU64::new(0),
            distrusted: Mutex::default(),
        }
    }

    /// Reads them when somebody wrote since. Whether there is something new.
    pub async fn refresh(&self) -> Result<bool, PinError> {
        let counter = self.store.change_counter(NAMESPACE).await?;
        if counter == self.counter.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let prefix = format!("{}/", self.upstream);
        let (mut view, mut after) = (View::new(), None::<String>);
        loop {
            let page = self.store.list_after(NAMESPACE, &prefix, after.as_deref(), MAX_LIST).await?;
            after = page.entries.last().map(|entry| entry.key.clone());
            for entry in page.entries {
                let pin = self.read(&entry.value)?;
                view.insert((pin.kind, pin.name.clone()), pin);
            }
            if !page.more {
                break;
            }
        }
        let mut current = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **current != view;
        *current = Arc::new(view);
        self.counter.store(counter, Ordering::SeqCst);
        Ok(changed)
    }

    fn read(&self, value: &[u8]) -> Result<Pin, PinError> {
        serde_json::from_slice(value).map_err(|e| PinError::Damaged(self.upstream.to_string(), e.to_string()))
    }

    /// All of them, as last read.
    pub fn all(&self) -> Vec<Pin> {
        self.view().values().cloned().collect()
    }

    fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is accepted and has not been seen to be something else.
    pub(crate) fn in_use(&self, kind: Kind) -> Vec<(String, Accepted)> {
        let distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view();
        let of_kind = view.values().filter(|pin| pin.kind == kind && pin.state() == PinState::Accepted);
        of_kind
            .filter(|pin| !distrusted.contains(&(kind, pin.name.clone())))
            .filter_map(|pin| Some((pin.name.clone(), pin.accepted.clone()?)))
            .collect()
    }

    /// Digest of what is in use under this name.
    pub(crate) fn digest_in_use(&self, kind: Kind, name: &str) -> Option<String> {
        let key = (kind, name.to_owned());
        if self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return None;
        }
        let view = self.view();
        let pin = view.get(&key).filter(|pin| pin.state() == PinState::Accepted)?;
        pin.accepted.as_ref().map(|accepted| accepted.digest.clone())
    }

    /// What was accepted under this name, whether it is in use or not.
    pub(crate) fn accepted(&self, kind: Kind, name: &str) -> Option<Accepted> {
        self.view().get(&(kind, name.to_owned())).and_then(|pin| pin.accepted.clone())
    }

    /// Everything about one name.
    pub(crate) fn pin(&self, kind: Kind, name: &str) -> Option<Pin> {
        self.view().get(&(kind, name.to_owned())).cloned()
    }

    /// Names of tools that were ever accepted, or wait for a person.
    pub fn tool_names(&self) -> BTreeSet<String> {
        let view = self.view();
        let known = view.values().filter(|pin| pin.kind == Kind::Tool && pin.is_known_by_name());
        known.map(|pin| pin.name.clone()).collect()
    }

    /// What was ever accepted of a kind, whatever became of it, and since when.
    pub(crate) fn ever_accepted(&self, kind: Kind) -> Vec<(String, Timestamp)> {
        let view = self.view();
        view.values().filter(|pin| pin.kind == kind).filter_map(|pin| Some((pin.name.clone(), pin.since()?))).collect()
    }

    /// Whether a definition would be the first of its name while `most` others wait that no person ever decided about.
    pub(crate) fn is_one_too_many(&self, definition: &Definition, most: usize) -> bool {
        let view = self.view();
        let waits = |pin: &&Pin| pin.kind == definition.kind && pin.is_undecided();
        !view.contains_key(&(definition.kind, definition.name.clone())) && view.values().filter(waits).count() >= most
    }

    /// Puts a definition out of use that is something else now and is not written down, or not yet. Whether it was in use.
    pub(crate) fn distrust(&self, definition: &Definition) -> bool {
        let key = (definition.kind, definition.name.clone());
        // What was never accepted is not in use anyway.
        let other = self.accepted(definition.kind, &definition.name).is_some_and(|accepted| accepted.digest != definition.digest);
        other && self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).insert(key)
    }

    /// Forgets what the upstream no longer lists and no person ever decided about, once it is older than `age`. `complete`
    /// says of which kinds `listed` is all there is. Gives how many.
    pub(crate) async fn forget(
        &self,
        listed: &BTreeSet<(Kind, String)>,
        complete: impl Fn(Kind) -> bool,
        age: std::time::Duration,
    ) -> Result<usize, PinError> {
        let now = self.clock.now();
        let old = |pin: &Pin| pin.seen.as_ref().is_none_or(|seen| seen.at.plus(age) <= now);
        let gone: Vec<(Kind, String)> = self
            .view()
            .iter()
            .filter(|(key, pin)| complete(key.0) && !listed.contains(*key) && pin.is_undecided() && old(pin))
            .map(|(key, _)| key.clone())
            .collect();
        for (kind, name) in &gone {
            let key = key_of(&self.upstream, *kind, name);
            // A person may have decided a moment ago.
            let entry = self.store.get(NAMESPACE, &key).await?;
            let Some(entry) = entry else { continue };
            if self.read(&entry.value)?.is_undecided() {
                self.store.delete(NAMESPACE, &key).await?;
            }
        }
        if !gone.is_empty() {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            let view = Arc::make_mut(&mut view);
            for key in &gone {
                view.remove(key);
            }
        }
        Ok(gone.len())
    }

    /// Compares a definition with what is known, without writing.
    pub(crate) fn fits(&self, definition: &Definition) -> bool {
        self.digest_in_use(definition.kind, &definition.name).as_deref() == Some(definition.digest.as_str())
    }

    /// Whether nothing has to be written about a definition.
    pub(crate) fn knows(&self, definition: &Definition) -> bool {
        self.view().get(&(definition.kind, definition.name.clone())).is_some_and(|pin| match &pin.seen {
            Some(seen) => seen.digest == definition.digest,
            None => pin.accepted.as_ref().is_some_and(|accepted| accepted.digest == definition.digest),
        }) && !self
            .distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&(definition.kind, definition.name.clone()))
    }

    /// Takes note of a definition as the upstream gives it now.
    pub(crate) async fn look(&self, definition: &Definition, findings: Vec<Finding>) -> Result<Look, PinError> {
        let key = (definition.kind, definition.name.clone());
        let looked = self
            .change(definition.kind, &definition.name, |pin| {
                let now = self.clock.now();
                let accepted = pin.accepted.as_ref().is_some_and(|a| a.digest == definition.digest);
                if accepted {
                    let before = pin.seen.take();
                    return (if before.is_some() { Look::Restored } else { Look::Accepted }, before.is_some());
                }
                if pin.seen.as_ref().is_some_and(|seen| seen.digest == definition.digest) {
                    return (Look::Waiting, false);
                }
                let look = if pin.accepted.is_none() && pin.seen.is_none() { Look::New } else { Look::Changed };
                let (digest, body) = (definition.digest.clone(), definition.body.clone());
                pin.seen = Some(Seen { digest, definition: body, at: now, findings: findings.clone() });
                (look, true)
            })
            .await;
        match looked {
            Ok(look) => {
                self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                Ok(look)
            }
            Err(error) => {
                self.distrust(definition);
                Err(error)
            }
        }
    }

    /// Notes that `to` was shown what waits.
    pub async fn reviewed(&self, kind: Kind, name: &str, digest: &str, to: &str) -> Result<(), PinError> {
        let noted = |pin: &mut Pin| {
            let there = pin.seen.as_ref().is_some_and(|seen| seen.digest == digest);
            let news = there && pin.shown_to(to) != Some(digest);
            if news {
                pin.shown.retain(|shown| shown.to != to);
                if pin.shown.len() >= REVIEWERS {
                    pin.shown.remove(0);
                }
                pin.shown.push(Shown { to: to.to_owned(), digest: digest.to_owned() });
            }
            ((), news)
        };
        self.change(kind, name, noted).await
    }

    /// Accepts what waits, if it still is what has `digest`.
    pub async fn accept(&self, kind: Kind, name: &str, digest: &str, by: &str) -> Result<(), PinError> {
        let decided = self
            .change(kind, name, |pin| match pin.seen.take() {
                Some(seen) if seen.digest == digest => {
                    let Seen { digest, definition, .. } = seen;
                    let now = self.clock.now();
                    pin.since = pin.since().or(Some(now));
                    pin.accepted = Some(Accepted { digest, definition, by: by.to_owned(), at: now });
                    pin.rejected = None;
                    pin.shown.clear();
                    (true, true)
                }
                other => {
                    pin.seen = other;
                    (false, false)
                }
            })
            .await?;
        if decided { Ok(()) } else { Err(self.moved_on(kind, name)) }
    }

    /// Rejects what waits, or takes back what was accepted, if it still is what has `digest`.
    pub async fn reject(&self, kind: Kind, name: &str, digest: &str) -> Result<(), PinError> {
        let decided = self
            .change(kind, name, |pin| {
                if pin.seen.as_ref().is_some_and(|seen| seen.digest == digest) {
                    pin.rejected = Some(digest.to_owned());
                    return (true, true);
                }
                match pin.accepted.take() {
                    Some(Accepted { digest: found, definition, at, .. }) if found == digest && pin.seen.is_none() => {
                        pin.since = pin.since.or(Some(at));
                        pin.seen = Some(Seen { digest: found, definition, at: self.clock.now(), findings: Vec::new() });
                        pin.rejected = Some(digest.to_owned());
                        (true, true)
                    }
                    other => {
                        pin.accepted = other;
                        (false, false)
                    }
                }
            })
            .await?;
        if decided { Ok(()) } else { Err(self.moved_on(kind, name)) }
    }

    fn moved_on(&self, kind: Kind, name: &str) -> PinError {
        PinError::MovedOn { upstream: self.upstream.to_string(), kind, name: name.to_owned() }
    }

    /// Changes one pin, also when others write at the same time. `change` says what came of it and whether to write.
    async fn change<T>(&self, kind: Kind, name: &str, change: impl Fn(&mut Pin) -> (T, bool)) -> Result<T, PinError> {
        let key = key_of(&self.upstream, kind, name);
        for _ in 0..TRIES {
            let entry = self.store.get(NAMESPACE, &key).await?;
            let mut pin = match &entry {
                Some(entry) => self.read(&entry.value)?,
                None => Pin::new(&self.upstream, kind, name),
            };
            let (done, write) = change(&mut pin);
            if !write {
                self.remember(pin);
                return Ok(done);
            }
            let value = serde_json::to_vec(&pin).map_err(|e| PinError::Damaged(self.upstream.to_string(), e.to_string()))?;
            let written = match entry {
                Some(entry) => self.store.compare_and_swap(NAMESPACE, &key, entry.version, &value, None).await?,
                None => self.store.put_if_absent(NAMESPACE, &key, &value, None).await?,
            };
            if written.is_some() {
                self.remember(pin);
                return Ok(done);
            }
        }
        Err(PinError::Busy(self.upstream.to_string()))
    }

    fn remember(&self, pin: Pin) {
        if pin.accepted.is_none() && pin.seen.is_none() {
            return;
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut view).insert((pin.kind, pin.name.clone()), pin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::SystemClock;
    use portcullis_state::MemoryStore;
    use serde_json::json;

    fn book(store: &Arc<MemoryStore>) -> PinBook {
        PinBook::new(store.clone(), Arc::new(SystemClock), "up")
    }

    fn tool(description: &str) -> Definition {
        Definition::read(Kind::Tool, json!({"name": "t", "description": description})).unwrap()
    }

    #[tokio::test]
    async fn only_what_was_accepted_to_the_last_byte_is_in_use() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock));
        let (server, person) = (book(&store), book(&store));
        let (one, other) = (tool("one"), tool("other"));
        assert_eq!(server.look(&one, Vec::new()).await.unwrap(), Look::New);
        assert_eq!(server.look(&one, Vec::new()).await.unwrap(), Look::Waiting);
        assert!(server.in_use(Kind::Tool).is_empty() && !server.fits(&one));
        assert!(person.refresh().await.unwrap());
        person.accept(Kind::Tool, "t", &one.digest, "local:anna").await.unwrap();
        assert!(server.refresh().await.unwrap() && !server.refresh().await.unwrap());
        assert!(server.fits(&one) && !server.fits(&other));
        assert_eq!(server.look(&other, Vec::new()).await.unwrap(), Look::Changed);
        assert!(server.in_use(Kind::Tool).is_empty(), "also the old definition is out of use");
        assert_eq!(server.all()[0].state(), PinState::Changed);
        assert_eq!(server.look(&one, Vec::new()).await.unwrap(), Look::Restored);
        assert!(server.fits(&one));
    }

    fn named(name: &str, description: &str) -> Definition {
        Definition::read(Kind::Tool, json!({"name": name, "description": description})).unwrap()
    }

    #[tokio::test]
    async fn what_is_gone_and_nobody_decided_about_is_forgotten_and_the_rest_is_not() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock));
        let book = book(&store);
        for name in ["accepted", "rejected", "waiting", "listed"] {
            book.look(&named(name, "x"), Vec::new()).await.unwrap();
        }
        book.accept(Kind::Tool, "accepted", &named("accepted", "x").digest, "x").await.unwrap();
        book.look(&named("accepted", "other"), Vec::new()).await.unwrap();
        book.reject(Kind::Tool, "rejected", &named("rejected", "x").digest).await.unwrap();
        let listed = BTreeSet::from([(Kind::Tool, "listed".to_owned())]);
        let (none, hour) = (std::time::Duration::ZERO, std::time::Duration::from_hours(1));
        assert_eq!(book.forget(&listed, |_| false, none).await.unwrap(), 0, "the list was cut");
        assert_eq!(book.forget(&listed, |_| true, hour).await.unwrap(), 0, "not yet");
        assert_eq!(book.forget(&listed, |_| true, none).await.unwrap(), 1);
        book.refresh().await.unwrap();
        let names: Vec<String> = book.all().into_iter().map(|pin| pin.name).collect();
        assert_eq!(names, ["accepted", "listed", "rejected"]);
        assert!(book.is_one_too_many(&named("new", "x"), 1) && !book.is_one_too_many(&named("new", "x"), 2));
        assert!(!book.is_one_too_many(&named("listed", "y"), 1), "it is known already");
    }

    #[tokio::test]
    async fn what_was_accepted_once_keeps_its_name_and_only_that_is_distrusted() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock));
        let book = book(&store);
        book.look(&named("t", "x"), Vec::new()).await.unwrap();
        assert!(book.ever_accepted(Kind::Tool).is_empty());
        book.accept(Kind::Tool, "t", &named("t", "x").digest, "x").await.unwrap();
        let since = book.ever_accepted(Kind::Tool)[0].1;
        book.look(&named("t", "other"), Vec::new()).await.unwrap();
        assert_eq!(book.ever_accepted(Kind::Tool), [("t".to_owned(), since)], "held");
        book.accept(Kind::Tool, "t", &named("t", "other").digest, "x").await.unwrap();
        book.reject(Kind::Tool, "t", &named("t", "other").digest).await.unwrap();
        assert_eq!(book.ever_accepted(Kind::Tool), [("t".to_owned(), since)], "taken back");
        book.distrust(&named("never", "x"));
        assert!(book.distrusted.lock().unwrap().is_empty(), "what nobody accepted is not in use anyway");
    }

    #[tokio::test]
    async fn what_somebody_was_shown_is_theirs_alone_and_no_more_of_it_is_kept_than_is_needed() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock));
        let book = book(&store);
        let (one, other) = (tool("one"), tool("other"));
        book.look(&one, Vec::new()).await.unwrap();
        book.reviewed(Kind::Tool, "t", &other.digest, "local:anna").await.unwrap();
        assert_eq!(book.all()[0].shown_to("local:anna"), None, "it is not what waits");
        book.reviewed(Kind::Tool, "t", &one.digest, "local:anna").await.unwrap();
        book.look(&other, Vec::new()).await.unwrap();
        book.reviewed(Kind::Tool, "t", &other.digest, "local:script").await.unwrap();
        let pin = book.all().remove(0);
        assert_eq!(pin.shown_to("local:anna"), Some(one.digest.as_str()));
        assert_eq!(pin.shown_to("local:script"), Some(other.digest.as_str()));
        for number in 0..2 * REVIEWERS {
            book.reviewed(Kind::Tool, "t", &other.digest, &format!("local:{number}")).await.unwrap();
        }
        assert_eq!(book.all()[0].shown.len(), REVIEWERS);
        book.accept(Kind::Tool, "t", &other.digest, "local:anna").await.unwrap();
        assert!(book.all()[0].shown.is_empty());
    }

    #[tokio::test]
    async fn names_are_those_of_what_was_accepted_once_or_waits_and_not_what_was_rejected() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock));
        let book = book(&store);
        for name in ["accepted", "rejected", "waiting"] {
            book.look(&named(name, "x"), Vec::new()).await.unwrap();
        }
        book.accept(Kind::Tool, "accepted", &named("accepted", "x").digest, "x").await.unwrap();
        book.reject(Kind::Tool, "accepted", &named("accepted", "x").digest).await.unwrap();
        book.reject(Kind::Tool, "rejected", &named("rejected", "x").digest).await.unwrap();
        assert_eq!(book.tool_names().into_iter().collect::<Vec<_>>(), ["accepted", "waiting"]);
    }

    #[tokio::test]
    async fn what_changed_after_the_review_is_not_accepted() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new(clock));
        let book = book(&store);
        let (one, other) = (tool("one"), tool("other"));
        book.look(&one, Vec::new()).await.unwrap();
        book.look(&other, Vec::new()).await.unwrap();
        assert!(matches!(book.accept(Kind::Tool, "t", &one.digest, "x").await, Err(PinError::MovedOn { .. })));
        book.reject(Kind::Tool, "t", &other.digest).await.unwrap();
        assert_eq!(book.all()[0].state(), PinState::Rejected);
        book.accept(Kind::Tool, "t", &other.digest, "x").await.unwrap();
        book.reject(Kind::Tool, "t", &other.digest).await.unwrap();
        assert_eq!(book.all()[0].state(), PinState::Rejected, "an accepted one can be taken back");
    }
}

//! The book of names: whose each name of a tool or prompt and each address of a resource is, of everything there is. Rules,
//! keys, approvals and habits are written about names, so a name belongs to whom it was given first, whatever is started,
//! installed or accepted later and in whatever order; only an operator gives it to somebody else.
//!
//! Guards that no name is in use before it is written down whose it is, and that whoever does not get a name is recorded
//! before that takes effect. Must not know what the owners are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_model::{Clock, Timestamp};
use portcullis_ports::{Denied, Held, Holding, Keeper, LONGEST_NAME, NameKind, Prefixes, Right, THIS_HOUSE, Taken};
use portcullis_state::{MAX_LIST, Namespace, Store};
use portcullis_upstream::review::visible;
use serde::{Deserialize, Serialize};

const NAMESPACE: Namespace = "names";
/// Leaves of the book. A leaf is one value of the store, so a handful of names costs a handful of writes, and many fit.
const LEAVES: u8 = 16;
/// How often it is tried again because another process wrote in between.
const TRIES: usize = 8;
/// How often the book is looked at for what an operator decided.
const LOOK: Duration = Duration::from_millis(500);
/// Most refusals remembered of one name, so that each is recorded once.
const DENIED: usize = 64;

/// Most records remembered of what could not be written down yet.
const RECORDED: usize = 4_096;

/// A name and what it is of.
pub type Name = (NameKind, String);

/// What the book says about one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose it is; nobody's since an operator released it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Whether something was ever offered under it.
    #[serde(default)]
    pub used: bool,
    /// Whether servers of a kind offer one by one what they offered together under it.
    #[serde(default)]
    pub apart: bool,
    /// Who did not get it, so that this is recorded once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<String>,
}

type Leaf = BTreeMap<String, Entry>;

#[derive(Debug, Default)]
struct View {
    counter: Option<u64>,
    /// With the versions the store gave them.
    leaves: BTreeMap<String, (u64, Leaf)>,
    /// Whether it says something that is in force nowhere yet.
    unsettled: bool,
}

/// The book as this process knows it.
#[derive(Debug)]
pub struct NameBook {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    view: Mutex<View>,
    /// What was recorded and could not be written down yet.
    recorded: Mutex<BTreeSet<News>>,
}

/// The leaf a name stands on (FNV-1a; it only spreads).
fn leaf_of(key: &str) -> String {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("leaf-{:02}", (hash >> 16) % u32::from(LEAVES))
}

fn key_of((kind, name): &Name) -> String {
    format!("{}/{name}", kind.as_str())
}

fn name_of(key: &str) -> Option<Name> {
    let (kind, name) = key.split_once('/')?;
    let kind = [NameKind::Tool, NameKind::Prompt, NameKind::Address].into_iter().find(|known| known.as_str() == kind)?;
    Some((kind, name.to_owned()))
}

impl NameBook {
    /// The book in `store`, not yet read.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, view: Mutex::default(), recorded: Mutex::default() }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorded(&self) -> MutexGuard<'_, BTreeSet<News>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads it when somebody wrote since. Whether it says something else now.
    pub async fn refresh(&self) -> anyhow::Result<bool> {
        let counter = self.store.change_counter(NAMESPACE).await.context("the book of names cannot be read")?;
        if self.view().counter == Some(counter) {
            return Ok(false);
        }
        let listing = self.store.list(NAMESPACE, "leaf-", MAX_LIST).await.context("the book of names cannot be read")?;
        let mut leaves = BTreeMap::new();
        for entry in listing.entries {
            let leaf: Leaf = serde_json::from_slice(&entry.value)
                .with_context(|| format!("the book of names is damaged at {}; restore the state from a backup", entry.key))?;
            leaves.insert(entry.key, (entry.version, leaf));
        }
        let mut view = self.view();
        let same = view.leaves.len() == leaves.len() && view.leaves.values().map(|(_, l)| l).eq(leaves.values().map(|(_, l)| l));
        *view = View { counter: Some(counter), leaves, unsettled: view.unsettled || !same };
        Ok(!same)
    }

    /// What it says is in force now.
    pub fn settled(&self) {
        self.view().unsettled = false;
    }

    /// What was read for something that did not come about is in force nowhere: the next look finds it new once more. Not
    /// while names are given.
    pub fn forget(&self) {
        let mut view = self.view();
        if view.unsettled {
            *view = View::default();
        }
    }

    /// Waits until the book says something this process does not know yet.
    pub async fn changed(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.refresh().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::error!(target: "portcullis", "{error:#}"),
            }
        }
    }

    /// Everything it says.
    pub fn entries(&self) -> BTreeMap<Name, Entry> {
        let view = self.view();
        let all = view.leaves.values().flat_map(|(_, leaf)| leaf);
        all.filter_map(|(key, entry)| Some((name_of(key)?, entry.clone()))).collect()
    }

    /// A round of giving names, over what the book says now.
    pub fn round(&self) -> Round {
        Round { entries: self.entries(), ..Round::unwritten(self.clock.now()) }
    }

    /// Writes down what a round gave, after recording who went without, once however often the round is made. `false`:
    /// another process wrote in between, so the round has to be made again.
    pub async fn commit(&self, round: &Round, record: &(dyn Fn(&News) -> anyhow::Result<()> + Sync)) -> anyhow::Result<bool> {
        for news in &round.news {
            if self.recorded().contains(news) {
                continue;
            }
            record(news).context("who gets which name cannot be recorded, so it is not done")?;
            let mut recorded = self.recorded();
            if recorded.len() >= RECORDED {
                recorded.clear();
            }
            recorded.insert(news.clone());
        }
        let changes = round.touched.iter().filter_map(|name| Some((name.clone(), Some(round.entries.get(name)?.clone()))));
        let written = self.write(changes.collect()).await?;
        if written {
            self.recorded().clear();
        }
        Ok(written)
    }

    /// Does what an operator decided about one name: `decide` gets what the book says, and gives what it says then.
    pub async fn decide(
        &self,
        name: &Name,
        decide: impl Fn(Option<Entry>) -> anyhow::Result<Option<Entry>>,
    ) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            self.refresh().await?;
            let entry = decide(self.entries().remove(name))?;
            if self.write(BTreeMap::from([(name.clone(), entry)])).await? {
                return Ok(());
            }
        }
        bail!("other processes write into the book of names all the time; try again")
    }

    async fn write(&self, changes: BTreeMap<Name, Option<Entry>>) -> anyhow::Result<bool> {
        let mut leaves: BTreeMap<String, (u64, Leaf)> = BTreeMap::new();
        for (name, entry) in changes {
            let key = key_of(&name);
            let leaf = leaf_of(&key);
            let known = || self.view().leaves.get(&leaf).cloned().unwrap_or_default();
            let (_, changed) = leaves.entry(leaf.clone()).or_insert_with(known);
            match entry {
                Some(entry) => changed.insert(key, entry),
                None => changed.remove(&key),
            };
        }
        for (key, (version, leaf)) in leaves {
            let value = serde_json::to_vec(&leaf)?;
            let written = if version == 0 {
                self.store.put_if_absent(NAMESPACE, &key, &value, None).await
            } else {
                self.store.compare_and_swap(NAMESPACE, &key, version, &value, None).await
            };
            let Some(version) = written.context("the book of names cannot be written")? else {
                self.view().counter = None;
                return Ok(false);
            };
            self.view().leaves.insert(key, (version, leaf));
        }
        Ok(true)
    }
}

/// Who went without a name, or lost one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Somebody did not get a name.
    Denied(Denied, String),
    /// The house has something of its own under a name that was another's.
    TakenOver(NameKind, String, String),
}

/// One giving of names to everything there is.
#[derive(Debug)]
pub struct Round {
    now: Timestamp,
    entries: BTreeMap<Name, Entry>,
    touched: BTreeSet<Name>,
    news: Vec<News>,
    denied: Vec<Denied>,
    prefixes: Prefixes,
}

impl Round {
    /// A round over an empty book, for looking at what a configuration would give.
    pub fn unwritten(now: Timestamp) -> Self {
        let (entries, touched) = Default::default();
        Self { now, entries, touched, news: Vec::new(), denied: Vec::new(), prefixes: Prefixes::default() }
    }

    /// Everybody from outside whose some name is, also who is no longer there.
    pub fn owners(&self) -> BTreeSet<String> {
        outsiders(&self.entries)
    }

    /// Who goes by which word before names.
    pub fn reserve(&mut self, prefixes: Prefixes) {
        self.prefixes = prefixes;
    }

    /// The names of the house itself. Nothing from outside keeps one from it.
    pub fn house(&mut self, own: &Taken) {
        let tools = own.tools.iter().map(|name| (NameKind::Tool, name));
        let prompts = own.prompts.iter().map(|name| (NameKind::Prompt, name));
        for (kind, name) in tools.chain(prompts) {
            let before = self.entries.get(&(kind, name.clone())).and_then(|entry| entry.owner.clone());
            if let Some(before) = before.filter(|owner| owner != THIS_HOUSE) {
                self.entries.remove(&(kind, name.clone()));
                self.news.push(News::TakenOver(kind, name.clone(), before));
            }
            self.give(kind, name, THIS_HOUSE, true);
        }
    }

    /// What is taken for the next to make an offer; `now` is in use already.
    pub fn taken(&self, now: Taken) -> Taken {
        let mut held = Held::default();
        for ((kind, name), entry) in &self.entries {
            let names = match kind {
                NameKind::Tool => &mut held.tools,
                NameKind::Prompt => &mut held.prompts,
                NameKind::Address => &mut held.addresses,
            };
            let owner = entry.owner.as_deref().map(Arc::from);
            names.insert(name.clone(), Holding { owner, used: entry.used, apart: entry.apart, since: entry.since });
        }
        Taken { held: Arc::new(held), prefixes: self.prefixes.clone(), ..now }
    }

    /// A name that is its owner's from now on: offered now (`used`), or kept for it.
    pub fn give(&mut self, kind: NameKind, name: &str, owner: &str, used: bool) {
        self.give_since(kind, name, (owner, self.now), used);
    }

    fn give_since(&mut self, kind: NameKind, name: &str, (owner, since): (&str, Timestamp), used: bool) {
        let key = (kind, name.to_owned());
        let known = self.entries.get(&key);
        if known.is_some_and(|entry| entry.owner.is_some() && (entry.used || !used)) {
            return;
        }
        let mut entry = known.filter(|entry| entry.owner.is_some()).cloned().unwrap_or_else(|| Entry {
            owner: Some(owner.to_owned()),
            since,
            used,
            apart: false,
            denied: BTreeSet::new(),
        });
        entry.used |= used;
        self.entries.insert(key.clone(), entry);
        self.touched.insert(key);
    }

    /// Names that are kept for an extension, of those it may have.
    pub fn keep(&mut self, kind: NameKind, names: &BTreeSet<String>, taken: &Taken, owners: &[&str]) {
        let may =
            |name: &&String| name.len() <= LONGEST_NAME && matches!(taken.right(kind, name, owners), Right::Own | Right::Free);
        let Some(owner) = owners.first() else { return };
        for name in names.iter().filter(may) {
            self.give(kind, name, owner, false);
        }
    }

    /// Addresses that something was ever accepted under, of those who have them; some are `offered` now. An operator released
    /// some for whoever offers something under them.
    pub fn keep_addresses(&mut self, kept: &BTreeMap<String, Keeper>, offered: &BTreeSet<String>) {
        for (address, Keeper { owner, since }) in kept.iter().filter(|(address, _)| address.len() <= LONGEST_NAME) {
            let used = offered.contains(address);
            let known = self.entries.get(&(NameKind::Address, address.clone()));
            if used || known.is_none_or(|entry| entry.owner.is_some()) {
                self.give_since(NameKind::Address, address, (owner.as_str(), *since), used);
            }
        }
    }

    /// Somebody goes without a name. Where nobody has it, it is kept for whoever's prefix it begins with.
    pub fn deny(&mut self, denied: Denied) {
        let key = (denied.kind, denied.wanted.clone());
        let nobodys = self.entries.get(&key).is_none_or(|entry| entry.owner.is_none());
        if nobodys && denied.kind != NameKind::Address && denied.wanted.len() <= LONGEST_NAME {
            let owner = self.prefixes.anothers(&denied.wanted, &[denied.owner.as_str()]).map(str::to_owned);
            if let Some(owner) = owner {
                self.give(denied.kind, &denied.wanted, &owner, false);
            }
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            let who = denied.why.iter().fold(denied.owner.clone(), |who, why| format!("{who}: {why}"));
            if !entry.denied.contains(&who) {
                if entry.denied.len() >= DENIED {
                    entry.denied.clear();
                }
                entry.denied.insert(who);
                let holder = entry.owner.clone().unwrap_or_else(|| "nobody".to_owned());
                self.news.push(News::Denied(denied.clone(), holder));
                self.touched.insert(key);
            }
        }
        self.denied.push(denied);
    }

    /// Who went without, with whose the name is.
    pub fn denied(&self) -> impl Iterator<Item = (&Denied, &str)> {
        self.denied.iter().map(|denied| {
            let entry = self.entries.get(&(denied.kind, denied.wanted.clone()));
            (denied, entry.and_then(|entry| entry.owner.as_deref()).unwrap_or("nobody"))
        })
    }

    /// Every name of a tool, with whose it is.
    pub fn tools(&self) -> BTreeMap<String, String> {
        let tools = self.entries.iter().filter(|((kind, _), _)| *kind == NameKind::Tool);
        tools.filter_map(|((_, name), entry)| Some((name.clone(), entry.owner.clone()?))).collect()
    }
}

/// Everybody from outside whose some name of these is: whoever has one keeps the word before names too.
pub fn outsiders(entries: &BTreeMap<Name, Entry>) -> BTreeSet<String> {
    let owners = entries.values().filter_map(|entry| entry.owner.as_deref());
    owners.filter(|owner| *owner != THIS_HOUSE).map(str::to_owned).collect()
}

/// In words, whom a name went to and why somebody else has another.
pub fn explained(denied: &Denied, holder: &str) -> String {
    let Denied { kind, wanted, given, why, .. } = denied;
    let (kind, wanted) = (kind.as_str(), visible(wanted));
    let what = match given {
        Some(given) => format!("{kind} '{wanted}' is offered as '{given}'"),
        None => format!("{kind} '{wanted}' is left out"),
    };
    match why {
        Some(why) => format!("{what}: {why}"),
        None if denied.kind == NameKind::Address => format!("{what}: it is that of {holder}"),
        None => format!("{what}: the name is that of {holder}"),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::SystemClock;
    use portcullis_state::MemoryStore;

    use super::*;

    fn denied(owner: &str, wanted: &str) -> Denied {
        Denied { kind: NameKind::Tool, owner: owner.into(), wanted: wanted.into(), given: None, why: None }
    }

    fn book() -> (Arc<dyn Store>, NameBook) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        (store.clone(), NameBook::new(store, clock))
    }

    #[tokio::test]
    async fn what_was_given_stays_given_in_another_process_and_a_refusal_is_told_once() {
        let (store, first) = book();
        first.refresh().await.unwrap();
        let mut round = first.round();
        round.give(NameKind::Tool, "search", "upstream a", true);
        round.deny(denied("plugin b", "search"));
        let told = Mutex::new(Vec::new());
        let tell = |news: &News| -> anyhow::Result<()> {
            told.lock().unwrap().push(news.clone());
            Ok(())
        };
        assert!(first.commit(&round, &tell).await.unwrap());
        assert_eq!(told.lock().unwrap().len(), 1);
        let second = NameBook::new(store, Arc::new(SystemClock));
        assert!(second.refresh().await.unwrap() && !second.refresh().await.unwrap());
        let mut round = second.round();
        let taken = round.taken(Taken::default());
        assert_eq!(taken.right(NameKind::Tool, "search", &["plugin b"]), Right::Anothers);
        round.deny(denied("plugin b", "search"));
        assert!(round.news.is_empty() && round.touched.is_empty(), "known already");
        assert_eq!(
            round.denied().map(|(d, whose)| explained(d, whose)).collect::<Vec<_>>(),
            ["tool 'search' is left out: the name is that of upstream a"]
        );
        // Whoever does not know the newest page writes nothing over it.
        let (mut mine, mut theirs) = (first.round(), second.round());
        mine.give(NameKind::Tool, "look", "api x", true);
        theirs.give(NameKind::Tool, "look", "api y", true);
        assert!(first.commit(&mine, &tell).await.unwrap());
        assert!(!second.commit(&theirs, &tell).await.unwrap());
        second.refresh().await.unwrap();
        assert_eq!(second.entries()[&(NameKind::Tool, "look".to_owned())].owner.as_deref(), Some("api x"));
    }

    #[tokio::test]
    async fn who_goes_without_is_recorded_once_however_often_it_cannot_be_written() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = MemoryStore::new(clock.clone());
        let book = || NameBook::new(Arc::new(store.clone()), clock.clone());
        let (first, second) = (book(), book());
        let told = Mutex::new(Vec::new());
        let tell = |news: &News| -> anyhow::Result<()> {
            told.lock().unwrap().push(news.clone());
            Ok(())
        };
        let given = |book: &NameBook| {
            let mut round = book.round();
            round.give(NameKind::Tool, "search", "upstream a", true);
            round
        };
        // Another process writes in between, and the round is made again.
        first.refresh().await.unwrap();
        let mut round = given(&first);
        round.deny(denied("plugin b", "search"));
        assert!(second.commit(&given(&second), &tell).await.unwrap());
        assert!(!first.commit(&round, &tell).await.unwrap());
        first.refresh().await.unwrap();
        let mut again = given(&first);
        again.deny(denied("plugin b", "search"));
        assert!(!again.news.is_empty(), "nobody wrote it down");
        assert!(first.commit(&again, &tell).await.unwrap());
        assert_eq!(told.lock().unwrap().len(), 1);
        // Nothing can be written for a while.
        let mut round = first.round();
        round.deny(denied("plugin c", "search"));
        store.set_unreachable(true);
        for _ in 0..3 {
            assert!(first.commit(&round, &tell).await.is_err());
        }
        store.set_unreachable(false);
        assert!(first.commit(&round, &tell).await.unwrap());
        assert_eq!(told.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_was_read_and_is_in_force_nowhere_is_news_once_more() {
        let (store, first) = book();
        let second = NameBook::new(store, Arc::new(SystemClock));
        let mut round = second.round();
        round.give(NameKind::Tool, "search", "upstream a", true);
        assert!(second.commit(&round, &|_| Ok(())).await.unwrap());
        assert!(first.refresh().await.unwrap());
        first.forget();
        assert!(first.refresh().await.unwrap(), "what it was read for did not come about");
        first.settled();
        first.forget();
        assert!(!first.refresh().await.unwrap(), "it is in force");
    }

    #[tokio::test]
    async fn what_cannot_be_recorded_is_not_written() {
        let (_, book) = book();
        book.refresh().await.unwrap();
        let mut round = book.round();
        round.give(NameKind::Tool, "search", "upstream a", true);
        round.deny(denied("plugin b", "search"));
        assert!(book.commit(&round, &|_| bail!("the disk is full")).await.is_err());
        book.refresh().await.unwrap();
        assert!(book.entries().is_empty());
    }

    #[tokio::test]
    async fn the_house_takes_its_names_and_says_from_whom() {
        let mut round = Round::unwritten(Timestamp::from_nanos(1));
        round.give(NameKind::Tool, "query_logs", "plugin b", true);
        round.house(&Taken { tools: BTreeSet::from(["query_logs".to_owned()]), ..Taken::default() });
        assert_eq!(round.news, [News::TakenOver(NameKind::Tool, "query_logs".into(), "plugin b".into())]);
        assert_eq!(round.tools()["query_logs"], THIS_HOUSE);
    }

    #[tokio::test]
    async fn what_begins_with_anothers_prefix_is_kept_for_that_one_and_who_wanted_it_is_told() {
        let mut round = Round::unwritten(Timestamp::from_nanos(1));
        round.reserve(Prefixes::of(["upstream other", "upstream evil"].map(str::to_owned)));
        round.deny(denied("upstream evil", "other_pay"));
        assert_eq!(round.tools()["other_pay"], "upstream other");
        assert_eq!(round.news, [News::Denied(denied("upstream evil", "other_pay"), "upstream other".into())]);
        round.deny(denied("upstream evil", "pay"));
        assert!(!round.tools().contains_key("pay"), "nobody's prefix");
    }

    #[tokio::test]
    async fn an_address_stays_whose_it_is_since_it_was_accepted_and_can_be_handed_over() {
        let (_, book) = book();
        let kept = |owner: &str, since| {
            let keeper = Keeper { owner: owner.to_owned(), since: Timestamp::from_nanos(since) };
            BTreeMap::from([("note://x".to_owned(), keeper)])
        };
        let name = (NameKind::Address, "note://x".to_owned());
        let mut round = book.round();
        round.keep_addresses(&kept("upstream other", 7), &BTreeSet::new());
        assert!(book.commit(&round, &|_| Ok(())).await.unwrap());
        book.refresh().await.unwrap();
        let mut round = book.round();
        let holding = round.taken(Taken::default()).held.addresses["note://x"].clone();
        assert_eq!((holding.owner.as_deref(), holding.since), (Some("upstream other"), Timestamp::from_nanos(7)));
        round.keep_addresses(&kept("upstream evil", 1), &BTreeSet::from(["note://x".to_owned()]));
        assert_eq!(round.entries[&name].owner.as_deref(), Some("upstream other"));
        let released = |entry: Option<Entry>| Ok(entry.map(|entry| Entry { owner: None, ..entry }));
        book.decide(&name, released).await.unwrap();
        let mut round = book.round();
        round.keep_addresses(&kept("upstream evil", 1), &BTreeSet::new());
        assert_eq!(round.entries[&name].owner, None, "only kept");
        round.keep_addresses(&kept("upstream evil", 1), &BTreeSet::from(["note://x".to_owned()]));
        assert_eq!(round.entries[&name].owner.as_deref(), Some("upstream evil"));
        let long = format!("note://{}", "x".repeat(LONGEST_NAME));
        let keeper = Keeper { owner: "upstream evil".to_owned(), since: Timestamp::from_nanos(1) };
        round.keep_addresses(&BTreeMap::from([(long.clone(), keeper)]), &BTreeSet::from([long]));
        assert_eq!(round.entries.len(), 1, "what is too long to be kept is not");
    }

    #[tokio::test]
    async fn what_is_only_kept_takes_no_released_name_and_an_offer_does() {
        let (_, book) = book();
        let name = (NameKind::Tool, "search".to_owned());
        let released = |_| {
            Ok(Some(Entry { owner: None, since: Timestamp::from_nanos(1), used: true, apart: true, denied: BTreeSet::new() }))
        };
        book.decide(&name, released).await.unwrap();
        let mut round = book.round();
        let taken = round.taken(Taken::default());
        round.keep(NameKind::Tool, &BTreeSet::from(["search".to_owned()]), &taken, &["upstream a"]);
        assert_eq!(round.entries[&name].owner, None);
        round.give(NameKind::Tool, "search", "plugin b", true);
        assert_eq!((round.entries[&name].owner.as_deref(), round.entries[&name].apart), (Some("plugin b"), false));
    }
}

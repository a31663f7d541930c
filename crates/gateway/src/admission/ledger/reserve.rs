//! What calls under way may still take of the day's tokens: set aside before a call begins, given back when it has ended,
//! however it ended. Guards that many calls at once do not each spend what is left for one.
//!
//! A call sets aside the most it may answer. Where less is left it sets aside what is left, and only when nothing else of the
//! account is under way: so all calls together go beyond a budget by less than one answer. Replicas that know of each other
//! set aside in the store, under one entry for each account, and a little more than one call needs, so that few calls wait
//! for a trip. What a process set aside and did not give back, because it died, runs out by itself. A replica that cannot
//! reach the store sets aside from its share of what is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::Timestamp;
use portcullis_state::{Namespace, Store};
use tokio::sync::futures::Notified;

use super::{ATTEMPTS, Account, Holder, LedgerError, NAMESPACE, TokenLedger, number};
use crate::SharedState;

const ASIDE: Namespace = "gateway.tokens.aside";
/// How long others believe that something is set aside. Settling renews it every few seconds.
const LIFETIME: Duration = Duration::from_mins(1);
/// Longest the store may take before a replica goes on with its share.
const PATIENCE: Duration = Duration::from_secs(2);
/// Part of what is left that is set aside beyond the need, for the next calls.
const MORE: u64 = 8;

/// Why nothing was set aside, with the place of the account among those that were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// It is used up.
    Spent(usize),
    /// What is left of it is set aside for calls that run.
    InUse(usize),
}

/// The same of one account, or that the store has to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Spent,
    InUse,
    Unasked,
}

/// Tokens that are set aside for one call; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    ledger: Arc<TokenLedger>,
    shares: Vec<Share>,
}

/// A part of one account of one day.
#[derive(Debug)]
struct Share {
    day: i64,
    holder: Holder,
    tokens: u64,
}

impl Reserved {
    /// Gives it back without waking anybody; whether there was something.
    fn give_back(&mut self) -> bool {
        let shares = std::mem::take(&mut self.shares);
        for Share { day, holder, tokens } in &shares {
            self.ledger.with_account(*day, holder, |own| own.reserved = own.reserved.saturating_sub(*tokens));
        }
        !shares.is_empty()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.give_back() {
            self.ledger.given_back.notify_waiters();
        }
    }
}

/// What replicas set aside of one account: by the name of each how many tokens, and until when, in nanoseconds.
type Aside = BTreeMap<String, (u64, i64)>;

impl Account {
    /// What is taken by this process and not on the account in the store.
    fn in_use(&self) -> u64 {
        self.unsettled.saturating_add(self.reserved)
    }

    /// How much of `left` one call sets aside that may take up to `most`.
    fn portion(&self, limit: u64, left: u64, most: u64) -> Result<u64, Lack> {
        if self.known.saturating_add(self.unsettled) >= limit {
            return Err(Lack::Spent);
        }
        if left >= most {
            return Ok(most);
        }
        // A part of it only where nothing else is under way.
        if left > 0 && self.reserved == 0 { Ok(left) } else { Err(Lack::InUse) }
    }

    /// The same without asking the store.
    fn portion_here(&self, limit: u64, most: u64, company: SharedState, now: Timestamp) -> Result<u64, Lack> {
        let all = limit.saturating_sub(self.known);
        let all = match company {
            SharedState::Alone => all,
            SharedState::Divided(others) => all / (others as u64).saturating_add(1),
            SharedState::Shared(_) => {
                let leased = if self.leased_until.is_some_and(|until| until > now) { self.leased } else { 0 };
                let enough = leased.saturating_sub(self.in_use()) >= most;
                return if enough { self.portion(limit, most, most) } else { Err(Lack::Unasked) };
            }
        };
        self.portion(limit, all.saturating_sub(self.in_use()), most)
    }

    /// The same where others set `aside` of the account what they did; and how much this process has set aside with it.
    fn portion_beside(&self, limit: u64, most: u64, aside: u64) -> Result<(u64, u64), Lack> {
        let left = limit.saturating_sub(self.known).saturating_sub(aside).saturating_sub(self.in_use());
        let portion = self.portion(limit, left, most)?;
        Ok((portion, self.in_use().saturating_add(portion).saturating_add((left - portion) / MORE)))
    }
}

impl TokenLedger {
    /// Sets aside what one call may take of these accounts, each with its limit: `most`, or what is left of it.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        accounts: &[(Holder, u64)],
        most: u64,
        company: SharedState,
    ) -> Result<Reserved, Short> {
        let mut reserved = Reserved { ledger: Arc::clone(self), shares: Vec::with_capacity(accounts.len()) };
        for (at, (holder, limit)) in accounts.iter().enumerate() {
            let taken = match (self.take(holder, *limit, most, company), company) {
                (Err(Lack::Unasked), SharedState::Shared(others)) => self.lease(holder, *limit, most, others).await,
                (taken, _) => taken,
            };
            let short = match taken {
                Ok(share) => {
                    reserved.shares.push(share);
                    continue;
                }
                Err(Lack::Spent) => Short::Spent(at),
                Err(Lack::InUse | Lack::Unasked) => Short::InUse(at),
            };
            // Whoever waits would find the same, and wake the others for nothing.
            reserved.give_back();
            return Err(short);
        }
        Ok(reserved)
    }

    /// Resolves when something that was set aside here is given back, from the moment of this call on.
    pub(crate) fn given_back(&self) -> Notified<'_> {
        self.given_back.notified()
    }

    /// Sets aside from what this process knows.
    fn take(&self, holder: &Holder, limit: u64, most: u64, company: SharedState) -> Result<Share, Lack> {
        let now = self.clock.now();
        self.with_today(|today| {
            let account = today.accounts.entry(holder.clone()).or_default();
            let tokens = account.portion_here(limit, most, company, now)?;
            account.reserved = account.reserved.saturating_add(tokens);
            Ok(Share { day: today.day, holder: holder.clone(), tokens })
        })
    }

    /// Sets aside in the store; where it cannot be reached, from this replica's share of what is left.
    async fn lease(&self, holder: &Holder, limit: u64, most: u64, others: usize) -> Result<Share, Lack> {
        let Some(store) = &self.store else { return self.take(holder, limit, most, SharedState::Alone) };
        let why = match tokio::time::timeout(PATIENCE, self.ask(store.as_ref(), holder, limit, most)).await {
            Ok(Ok(asked)) => return asked,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {}s", PATIENCE.as_secs()),
        };
        tracing::warn!(%why, others, "nothing can be set aside of a token account in the store; this replica takes of its share");
        self.take(holder, limit, most, SharedState::Divided(others))
    }

    async fn ask(&self, store: &dyn Store, holder: &Holder, limit: u64, most: u64) -> Result<Result<Share, Lack>, LedgerError> {
        let _turn = self.trip.lock().await;
        for _ in 0..ATTEMPTS {
            // Whoever had its turn before may have set aside enough for this call too.
            match self.take(holder, limit, most, SharedState::Shared(0)) {
                Err(Lack::Unasked) => {}
                taken => return Ok(taken),
            }
            let day = self.with_today(|today| today.day);
            let key = holder.key(day);
            // In this order: who settles raises the account first and gives back after that.
            let (version, mut aside) = read(store, &key).await?;
            let known = match store.get(NAMESPACE, &key).await? {
                Some(entry) => number(&key, &entry.value)?,
                None => 0,
            };
            let now = self.clock.now();
            aside.retain(|_, (_, until)| *until > now.as_nanos());
            let others = aside.iter().filter(|(name, _)| **name != self.own);
            let others = others.fold(0_u64, |sum, (_, (tokens, _))| sum.saturating_add(*tokens));
            let decided = self.with_account(day, holder, |own| {
                (own.known, own.recalled) = (known, true);
                own.portion_beside(limit, most, others)
            });
            // A day that ended meanwhile is another account.
            let Some(decided) = decided else { continue };
            let (tokens, leased) = match decided {
                Ok(portion) => portion,
                Err(lack) => return Ok(Err(lack)),
            };
            let until = now.plus(LIFETIME);
            aside.insert(self.own.clone(), (leased, until.as_nanos()));
            if !write(store, &key, version, &aside, until).await? {
                continue;
            }
            let taken = self.with_account(day, holder, |own| {
                (own.leased, own.leased_until) = (leased, Some(until));
                // Other calls may have taken of what was set aside before.
                let fits = own.in_use().saturating_add(tokens) <= leased;
                if fits {
                    own.reserved = own.reserved.saturating_add(tokens);
                }
                fits
            });
            if taken == Some(true) {
                return Ok(Ok(Share { day, holder: holder.clone(), tokens }));
            }
        }
        Err(LedgerError::Contended)
    }

    /// Sets no more aside in the store than what is in use here.
    pub(super) async fn give_back_lease(
        &self,
        store: &dyn Store,
        (day, holder): (i64, &Holder),
        key: &str,
    ) -> Result<(), LedgerError> {
        for _ in 0..ATTEMPTS {
            let (version, mut aside) = read(store, key).await?;
            let now = self.clock.now();
            let until = now.plus(LIFETIME);
            // Less is taken from here on, whether the store hears of it or not.
            let kept = self.with_account(day, holder, |own| {
                (own.leased, own.leased_until) = (own.in_use(), Some(until));
                own.leased
            });
            aside.retain(|_, (_, until)| *until > now.as_nanos());
            match kept {
                Some(tokens @ 1..) => aside.insert(self.own.clone(), (tokens, until.as_nanos())),
                _ => aside.remove(&self.own),
            };
            if write(store, key, version, &aside, until).await? {
                return Ok(());
            }
        }
        Err(LedgerError::Contended)
    }

    /// What is set aside of an account here, for tests.
    #[cfg(test)]
    pub(crate) fn reserved(&self, holder: &Holder) -> u64 {
        self.with_today(|today| today.accounts.get(holder).map_or(0, |account| account.reserved))
    }
}

/// What is set aside of an account, with the version that stands in the store.
async fn read(store: &dyn Store, key: &str) -> Result<(Option<u64>, Aside), LedgerError> {
    let Some(entry) = store.get(ASIDE, key).await? else { return Ok((None, Aside::new())) };
    let aside = serde_json::from_slice(&entry.value).map_err(|_| LedgerError::Unreadable(key.to_owned()))?;
    Ok((Some(entry.version), aside))
}

/// Writes it, unless somebody else wrote meanwhile.
async fn write(store: &dyn Store, key: &str, version: Option<u64>, aside: &Aside, until: Timestamp) -> Result<bool, LedgerError> {
    let value = serde_json::to_vec(aside).map_err(|_| LedgerError::Unreadable(key.to_owned()))?;
    // As long as anybody's lasts.
    let latest = aside.values().map(|(_, until)| *until).fold(until.as_nanos(), i64::max);
    let expires = Some(Timestamp::from_nanos(latest));
    let written = match version {
        None => store.put_if_absent(ASIDE, key, &value, expires).await?,
        Some(version) => store.compare_and_swap(ASIDE, key, version, &value, expires).await?,
    };
    Ok(written.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{ManualClock, PrincipalId};
    use portcullis_state::MemoryStore;
    use proptest::prelude::*;

    const LIMIT: u64 = 1_000;
    const MOST: u64 = 600;

    fn holder() -> Holder {
        Holder::Principal(PrincipalId::new("key:x").unwrap())
    }

    fn spend(ledger: &TokenLedger, tokens: u64) {
        ledger.spend(holder(), tokens);
    }

    struct Bench {
        clock: Arc<ManualClock>,
        store: MemoryStore,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(50)));
            Self { store: MemoryStore::new(clock.clone()), clock }
        }

        fn ledger(&self) -> Arc<TokenLedger> {
            Arc::new(TokenLedger::shared(Arc::new(self.store.clone()), self.clock.clone()))
        }
    }

    async fn reserve(ledger: &Arc<TokenLedger>, company: SharedState) -> Result<Reserved, Short> {
        ledger.reserve(&[(holder(), LIMIT)], MOST, company).await
    }

    #[tokio::test]
    async fn a_part_is_set_aside_only_where_nothing_else_is_under_way() {
        let ledger = Bench::new().ledger();
        let first = reserve(&ledger, SharedState::Alone).await.unwrap();
        assert_eq!(ledger.reserved(&holder()), MOST);
        assert_eq!(reserve(&ledger, SharedState::Alone).await.unwrap_err(), Short::InUse(0), "400 of 600 are left");
        spend(&ledger, 100);
        drop(first);
        assert_eq!(ledger.reserved(&holder()), 0);
        let second = reserve(&ledger, SharedState::Alone).await.unwrap();
        assert_eq!(ledger.reserved(&holder()), MOST);
        drop(second);
        spend(&ledger, 850);
        let last = reserve(&ledger, SharedState::Alone).await.unwrap();
        assert_eq!(ledger.reserved(&holder()), 50, "what is left");
        spend(&ledger, 400);
        drop(last);
        assert_eq!(reserve(&ledger, SharedState::Alone).await.unwrap_err(), Short::Spent(0));
        assert_eq!(ledger.spent(holder()), LIMIT + 350);
    }

    #[tokio::test]
    async fn a_refusal_by_one_account_gives_back_what_another_set_aside() {
        let ledger = Bench::new().ledger();
        let other = Holder::Principal(PrincipalId::new("key:y").unwrap());
        ledger.spend(other.clone(), 10);
        let refused = ledger.reserve(&[(holder(), LIMIT), (other, 10)], MOST, SharedState::Alone).await;
        assert_eq!(refused.unwrap_err(), Short::Spent(1));
        assert_eq!(ledger.reserved(&holder()), 0);
    }

    #[tokio::test]
    async fn what_ends_after_midnight_takes_nothing_from_the_new_day() {
        let bench = Bench::new();
        let ledger = bench.ledger();
        let yesterday = reserve(&ledger, SharedState::Alone).await.unwrap();
        bench.clock.advance(Duration::from_hours(24));
        let today = reserve(&ledger, SharedState::Alone).await.unwrap();
        drop(yesterday);
        assert_eq!(ledger.reserved(&holder()), MOST);
        drop(today);
        assert_eq!(ledger.reserved(&holder()), 0);
    }

    #[tokio::test]
    async fn what_one_replica_set_aside_is_not_there_for_another_until_it_is_settled_or_its_time_is_over() {
        let bench = Bench::new();
        let (a, b) = (bench.ledger(), bench.ledger());
        let shared = SharedState::Shared(1);
        let at_a = reserve(&a, shared).await.unwrap();
        let part = reserve(&b, shared).await.unwrap();
        assert_eq!(b.reserved(&holder()), 350, "1000 without the 600 of the call at a and the 50 for its next ones");
        assert_eq!(reserve(&b, shared).await.unwrap_err(), Short::InUse(0));
        drop(part);
        spend(&a, 100);
        drop(at_a);
        a.settle().await.unwrap();
        b.settle().await.unwrap();
        let at_b = reserve(&b, shared).await.unwrap();
        assert_eq!(b.reserved(&holder()), MOST, "what a did not need is there again");
        // A process that dies gives nothing back; what it had runs out.
        std::mem::forget(at_b);
        drop(b);
        assert_eq!(reserve(&a, shared).await.map(|_part| a.reserved(&holder())), Ok(263), "900 without 600 and 37");
        bench.clock.advance(LIFETIME);
        let whole = reserve(&a, shared).await.unwrap();
        assert_eq!(a.reserved(&holder()), MOST);
        drop(whole);
    }

    #[tokio::test]
    async fn few_calls_wait_for_a_trip_to_the_store() {
        let bench = Bench::new();
        let ledger = bench.ledger();
        for _ in 0..50 {
            let call = ledger.reserve(&[(holder(), 1_000_000)], MOST, SharedState::Shared(1)).await.unwrap();
            spend(&ledger, 10);
            drop(call);
        }
        assert_eq!(bench.store.change_counter(ASIDE).await.unwrap(), 1);
        ledger.settle().await.unwrap();
        let key = holder().key(0);
        assert_eq!(bench.store.get(ASIDE, &key).await.unwrap().unwrap().value, b"{}", "nothing is kept that is not used");
    }

    #[tokio::test]
    async fn without_the_store_each_replica_takes_of_its_share() {
        let bench = Bench::new();
        let (a, b) = (bench.ledger(), bench.ledger());
        bench.store.set_unreachable(true);
        // One has not noticed yet, the other has.
        let held = [reserve(&a, SharedState::Shared(1)).await.unwrap(), reserve(&b, SharedState::Divided(1)).await.unwrap()];
        assert_eq!((a.reserved(&holder()), b.reserved(&holder())), (500, 500));
        assert_eq!(reserve(&a, SharedState::Divided(1)).await.unwrap_err(), Short::InUse(0));
        drop(held);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_whatever_is_given_back() {
        let ledger = Bench::new().ledger();
        let call = reserve(&ledger, SharedState::Alone).await.unwrap();
        let woken = ledger.given_back();
        drop(call);
        tokio::time::timeout(Duration::from_secs(10), woken).await.expect("woken");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin(usize),
        End(usize, u64),
        Settle(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_usize).prop_map(Step::Begin),
            4 => ((0..3_usize), (0..=MOST)).prop_map(|(at, tokens)| Step::End(at, tokens)),
            1 => (0..3_usize).prop_map(Step::Settle),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// However calls begin and end at replicas that know of each other: together they go beyond the budget by less than
        /// one answer of each.
        #[test]
        fn replicas_together_go_beyond_a_budget_by_less_than_an_answer_each(
            replicas in 1..=3_usize,
            limit in 1..5_000_u64,
            schedule in prop::collection::vec(step(), 1..150),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let bench = Bench::new();
                let ledgers: Vec<Arc<TokenLedger>> = (0..replicas).map(|_| bench.ledger()).collect();
                let company = if replicas == 1 { SharedState::Alone } else { SharedState::Shared(replicas - 1) };
                let mut running: Vec<Vec<Reserved>> = (0..replicas).map(|_| Vec::new()).collect();
                let mut spent = 0;
                for step in schedule {
                    match step {
                        Step::Begin(at) => {
                            let at = at % replicas;
                            if let Ok(call) = ledgers[at].reserve(&[(holder(), limit)], MOST, company).await {
                                running[at].push(call);
                            }
                        }
                        Step::End(at, tokens) => {
                            let at = at % replicas;
                            if let Some(call) = running[at].pop() {
                                spend(&ledgers[at], tokens);
                                spent += tokens;
                                drop(call);
                            }
                        }
                        Step::Settle(at) => ledgers[at % replicas].settle().await.unwrap(),
                    }
                }
                prop_assert!(spent < limit + MOST * replicas as u64, "{spent} of {limit} by {replicas}");
                Ok(())
            })?;
        }
    }
}

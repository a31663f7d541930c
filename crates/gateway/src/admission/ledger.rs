//! The daily token accounts of principals and tenants, by UTC day. Counted in memory on every answer, brought together with
//! the other processes that share the state by [`TokenLedger::settle`]; a store that cannot be reached loses nothing
//! that was counted here. What calls under way may still take is set aside before they begin (`reserve`).

mod reserve;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{Clock, PrincipalId, SystemClock, TenantId, Timestamp};
use portcullis_state::{Namespace, Store, StoreError};
use tokio::sync::Notify;

pub(crate) use reserve::{Reserved, Short};

const NAMESPACE: Namespace = "gateway.tokens";
const DAY: i64 = 86_400;
/// Tries to add to an account that others change at the same time.
const ATTEMPTS: usize = 8;

/// Why accounts could not be brought together.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others changed the account at every attempt.
    #[error("a token account is being changed by too many processes at once")]
    Contended,
    /// The operator's: what was spent is not known, so nobody may spend more.
    #[error("the token account '{0}' cannot be read; remove it from the store, or wait until it ends by itself")]
    Unreadable(String),
}

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// One principal's.
    Principal(PrincipalId),
    /// That of all principals of a tenant together.
    Tenant(TenantId),
}

impl Holder {
    /// The key of its account of one day.
    fn key(&self, day: i64) -> String {
        match self {
            Self::Principal(id) => format!("{day}/{}", blake3::hash(id.as_str().as_bytes()).to_hex()),
            Self::Tenant(id) => format!("{day}/tenant/{}", blake3::hash(id.as_str().as_bytes()).to_hex()),
        }
    }
}

impl From<&PrincipalId> for Holder {
    fn from(id: &PrincipalId) -> Self {
        Self::Principal(id.clone())
    }
}

impl From<&TenantId> for Holder {
    fn from(id: &TenantId) -> Self {
        Self::Tenant(id.clone())
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Account {
    /// What the store said last, this process's share included.
    known: u64,
    /// Spent here and not yet told.
    unsettled: u64,
    /// Whether the store was asked at all: what is spent before that says nothing about the day.
    recalled: bool,
    /// Set aside for calls that run here.
    reserved: u64,
    /// Set aside in the store for this process: for what is unsettled, for what is reserved, and for the next calls.
    leased: u64,
    /// Until when others believe that.
    leased_until: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Today {
    day: i64,
    accounts: HashMap<Holder, Account>,
}

/// What principals took today.
#[derive(Debug)]
pub struct TokenLedger {
    store: Option<Arc<dyn Store>>,
    clock: Arc<dyn Clock>,
    today: Mutex<Today>,
    /// The name of this process among those that set something aside in the store.
    own: String,
    /// One trip to the store at a time.
    trip: tokio::sync::Mutex<()>,
    /// Whenever something that was set aside is there for others again.
    given_back: Notify,
}

impl TokenLedger {
    /// A ledger shared through `store`.
    pub fn shared(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store: Some(store), clock, ..Self::unshared() }
    }

    /// A ledger of this process alone.
    pub fn unshared() -> Self {
        Self {
            store: None,
            clock: Arc::new(SystemClock),
            today: Mutex::default(),
            own: format!("{:032x}", rand::random::<u128>()),
            trip: tokio::sync::Mutex::default(),
            given_back: Notify::new(),
        }
    }

    /// Books `tokens` on an account.
    pub fn spend(&self, holder: impl Into<Holder>, tokens: u64) {
        let holder = holder.into();
        self.with_today(|today| {
            let account = today.accounts.entry(holder).or_default();
            account.unsettled = account.unsettled.saturating_add(tokens);
        });
    }

    /// Tokens taken today, as far as this process knows.
    pub fn spent(&self, holder: impl Into<Holder>) -> u64 {
        let holder = holder.into();
        self.with_today(|today| today.accounts.get(&holder).map_or(0, |a| a.known.saturating_add(a.unsettled)))
    }

    /// Seconds until the accounts begin anew, at least one.
    pub fn seconds_to_next_day(&self) -> u64 {
        let second = seconds(self.clock.now());
        u64::try_from(DAY - second.rem_euclid(DAY)).unwrap_or(1).max(1)
    }

    /// Tells the store what was spent here and learns what was spent elsewhere. To be called every few seconds and
    /// before the process ends.
    ///
    /// # Errors
    /// When the store fails, or the first account that could not be settled, after all others were; what was not told is told
    /// next time.
    pub async fn settle(&self) -> Result<(), LedgerError> {
        let Some(store) = &self.store else { return Ok(()) };
        let (day, holders) = self.with_today(|today| (today.day, today.accounts.keys().cloned().collect::<Vec<_>>()));
        let mut first = None;
        for holder in holders {
            match self.settle_one(store.as_ref(), day, &holder).await {
                Ok(()) => {}
                Err(LedgerError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    if matches!(error, LedgerError::Unreadable(_)) {
                        self.forget(day, &holder);
                    }
                    first = first.or(Some(error));
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Settles one account: what was spent is told first, and what was set aside for it is given back after that, so that
    /// nobody ever sees less taken than is.
    async fn settle_one(&self, store: &dyn Store, day: i64, holder: &Holder) -> Result<(), LedgerError> {
        let _turn = self.trip.lock().await;
        let Some(account) = self.with_account(day, holder, |own| *own) else { return Ok(()) };
        let key = holder.key(day);
        let total = add(store, &key, account.unsettled, Timestamp::from_seconds((day + 2) * DAY)).await?;
        self.with_account(day, holder, |own| {
            own.known = total;
            own.recalled = true;
            own.unsettled = own.unsettled.saturating_sub(account.unsettled);
        });
        if account.leased > 0 { self.give_back_lease(store, (day, holder), &key).await } else { Ok(()) }
    }

    /// What the store said of an account counts no longer: whoever it belongs to waits until it can be read again.
    fn forget(&self, day: i64, holder: &Holder) {
        self.with_account(day, holder, |own| own.recalled = false);
    }

    /// Learns what was spent from an account before this process began; once per account and day.
    ///
    /// # Errors
    /// When the store fails or the account cannot be read: what was spent is then not known.
    pub async fn recall(&self, holder: impl Into<Holder>) -> Result<(), LedgerError> {
        let Some(store) = &self.store else { return Ok(()) };
        let holder = holder.into();
        let day = self.with_today(|today| (!today.accounts.get(&holder).is_some_and(|a| a.recalled)).then_some(today.day));
        let Some(day) = day else { return Ok(()) };
        let key = holder.key(day);
        let known = match store.get(NAMESPACE, &key).await? {
            Some(entry) => number(&key, &entry.value)?,
            None => 0,
        };
        self.with_today(|today| {
            if today.day == day {
                let account = today.accounts.entry(holder).or_default();
                // A settlement in the meantime knows more.
                if !account.recalled {
                    *account = Account { known, recalled: true, ..*account };
                }
            }
        });
        Ok(())
    }

    /// Looks at an account of a day, while that day lasts.
    fn with_account<T>(&self, day: i64, holder: &Holder, work: impl FnOnce(&mut Account) -> T) -> Option<T> {
        self.with_today(|today| if today.day == day { today.accounts.get_mut(holder).map(work) } else { None })
    }

    fn with_today<T>(&self, work: impl FnOnce(&mut Today) -> T) -> T {
        let day = seconds(self.clock.now()).div_euclid(DAY);
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        if today.day != day {
            *today = Today { day, accounts: HashMap::new() };
        }
        work(&mut today)
    }
}

fn seconds(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(i64::try_from(Duration::from_secs(1).as_nanos()).unwrap_or(1_000_000_000))
}

fn number(key: &str, bytes: &[u8]) -> Result<u64, LedgerError> {
    let read = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    read.ok_or_else(|| LedgerError::Unreadable(key.to_owned()))
}

/// Adds to one account and returns the new total.
async fn add(store: &dyn Store, key: &str, tokens: u64, expires: Timestamp) -> Result<u64, LedgerError> {
    for _ in 0..ATTEMPTS {
        let written = match store.get(NAMESPACE, key).await? {
            None if tokens == 0 => return Ok(0),
            None => store.put_if_absent(NAMESPACE, key, tokens.to_string().as_bytes(), Some(expires)).await?.map(|_| tokens),
            Some(entry) => {
                let before = number(key, &entry.value)?;
                if tokens == 0 {
                    return Ok(before);
                }
                let total = before.saturating_add(tokens);
                store
                    .compare_and_swap(NAMESPACE, key, entry.version, total.to_string().as_bytes(), Some(expires))
                    .await?
                    .map(|_| total)
            }
        };
        if let Some(total) = written {
            return Ok(total);
        }
    }
    Err(LedgerError::Contended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::ManualClock;
    use portcullis_state::MemoryStore;

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    #[tokio::test]
    async fn replicas_learn_of_each_other_and_a_restart_forgets_nothing() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000 * DAY + 50)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let (a, b) = (TokenLedger::shared(store.clone(), clock.clone()), TokenLedger::shared(store.clone(), clock.clone()));
        a.spend(&who("key:x"), 100);
        b.spend(&who("key:x"), 11);
        a.settle().await.unwrap();
        b.settle().await.unwrap();
        assert_eq!((a.spent(&who("key:x")), b.spent(&who("key:x"))), (100, 111));
        a.settle().await.unwrap();
        assert_eq!(a.spent(&who("key:x")), 111);
        let restarted = TokenLedger::shared(store, clock.clone());
        restarted.recall(&who("key:x")).await.unwrap();
        assert_eq!(restarted.spent(&who("key:x")), 111);
        assert_eq!(a.seconds_to_next_day(), u64::try_from(DAY).unwrap() - 50);
        clock.advance(Duration::from_hours(24));
        assert_eq!(a.spent(&who("key:x")), 0, "a new day");
    }

    #[tokio::test]
    async fn what_is_spent_before_the_account_was_read_does_not_hide_it() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(5)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let before = TokenLedger::shared(store.clone(), clock.clone());
        before.spend(&who("key:x"), 100);
        before.settle().await.unwrap();
        let restarted = TokenLedger::shared(store, clock);
        restarted.spend(&who("key:x"), 3);
        restarted.recall(&who("key:x")).await.unwrap();
        assert_eq!(restarted.spent(&who("key:x")), 103);
        restarted.settle().await.unwrap();
        restarted.recall(&who("key:x")).await.unwrap();
        assert_eq!(restarted.spent(&who("key:x")), 103, "and is counted once");
    }

    #[tokio::test]
    async fn an_account_that_cannot_be_read_is_not_an_empty_one_and_keeps_no_other_from_being_settled() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(5)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let ledger = TokenLedger::shared(store.clone(), clock.clone());
        let others: Vec<PrincipalId> = (0..20).map(|n| who(&format!("key:{n}"))).collect();
        ledger.spend(&who("key:broken"), 5);
        ledger.settle().await.unwrap();
        ledger.recall(&who("key:broken")).await.unwrap();
        let key = Holder::from(&who("key:broken")).key(0);
        let entry = store.get(NAMESPACE, &key).await.unwrap().unwrap();
        store.compare_and_swap(NAMESPACE, &key, entry.version, b"many", None).await.unwrap().unwrap();
        let restarted = TokenLedger::shared(store.clone(), clock);
        let error = restarted.recall(&who("key:broken")).await.unwrap_err();
        assert!(matches!(&error, LedgerError::Unreadable(named) if *named == key), "{error}");
        // Whoever knew it better before does not go on with that.
        for (holder, tokens) in others.iter().zip(1..).chain([(&who("key:broken"), 7)]) {
            ledger.spend(holder, tokens);
        }
        assert!(matches!(ledger.settle().await, Err(LedgerError::Unreadable(_))));
        assert!(ledger.recall(&who("key:broken")).await.is_err());
        for (holder, tokens) in others.iter().zip(1..) {
            restarted.recall(holder).await.unwrap();
            assert_eq!(restarted.spent(holder), tokens, "settled although another account was not");
        }
        assert_eq!(store.get(NAMESPACE, &key).await.unwrap().unwrap().value, b"many", "and nothing is written over it");
    }

    #[tokio::test]
    async fn a_tenant_and_a_principal_of_one_name_have_two_accounts() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(5)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let ledger = TokenLedger::shared(store.clone(), clock.clone());
        let tenant = TenantId::new("x").unwrap();
        ledger.spend(&who("x"), 5);
        ledger.spend(&tenant, 7);
        ledger.settle().await.unwrap();
        let restarted = TokenLedger::shared(store, clock);
        restarted.recall(&tenant).await.unwrap();
        restarted.recall(&who("x")).await.unwrap();
        assert_eq!((restarted.spent(&who("x")), restarted.spent(&tenant)), (5, 7));
    }

    #[tokio::test]
    async fn what_is_spent_while_settling_is_kept() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(5)));
        let ledger = TokenLedger::shared(Arc::new(MemoryStore::new(clock.clone())), clock);
        ledger.spend(&who("key:x"), 5);
        let settling = ledger.settle();
        ledger.spend(&who("key:x"), 7);
        settling.await.unwrap();
        assert_eq!(ledger.spent(&who("key:x")), 12);
        ledger.settle().await.unwrap();
        assert_eq!(ledger.spent(&who("key:x")), 12);
    }
}

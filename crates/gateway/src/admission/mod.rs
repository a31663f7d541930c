//! Admission: how often and how much at once. One stage, in front of all work: per address before anybody is known,
//! then per principal, per principal and tool, per tenant, and in all; then a place among the running calls, waited for in
//! a bounded queue. What a call may take of the tokens of the day is set aside before it begins. Every refusal says when to
//! come back.

mod ledger;
mod rates;
mod settings;
mod shared;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use portcullis_model::{Fault, FaultCode, Principal, PrincipalId, RiskClass, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub(crate) use ledger::Reserved;
use ledger::Short;
pub use ledger::{Holder, LedgerError, TokenLedger};
use rates::{Buckets, Left};
pub use settings::{BYTES_PER_TOKEN, LimitSettings, Rate};
use shared::Held;
pub use shared::{SharedCounts, SharedRates, SharedState, Sharing};

/// How much of its rate a principal has left, for the rate-limit headers of an HTTP face
/// (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Calls that may come at once.
    pub burst: u32,
    /// Calls per second in the long run.
    pub per_second: u32,
    /// Calls that may come now.
    pub remaining: u32,
}

/// The admission stage.
#[derive(Debug)]
pub struct Admission<C: Clock = DefaultClock> {
    addresses: Buckets<(IpAddr, Knock), C>,
    principals: Buckets<PrincipalId, C>,
    tools: Buckets<(PrincipalId, Arc<str>), C>,
    writes: Buckets<(PrincipalId, Arc<str>), C>,
    tenants: Buckets<TenantId, C>,
    everybody: Buckets<(), C>,
    slots: Slots<PrincipalId>,
    tenant_slots: Slots<TenantId>,
    all: Arc<Semaphore>,
    queue: Semaphore,
    ledger: Arc<TokenLedger>,
    /// Where the rates of replicas are brought together. Those of addresses are not: what a stranger asks of one replica
    /// before anybody knows it must not cost a trip to the store, nor an entry in it.
    shared: Option<Arc<SharedRates>>,
    settings: LimitSettings,
}

/// How full the house is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateLoad {
    /// Calls running.
    pub running: usize,
    /// Calls that may run at once.
    pub running_limit: usize,
    /// Calls waiting for a place.
    pub waiting: usize,
    /// Calls that may wait.
    pub waiting_limit: usize,
}

/// A place in the house; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _own: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    /// What is left of the principal's rate.
    pub rate: RateState,
    /// What the call may take of the day, set aside for it; nothing for what is over in microseconds.
    pub reserved: Option<Reserved>,
}

/// What an address is counted for. Apart from each other, so that none of them starves another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Knock {
    /// Requests of a caller.
    Caller,
    /// Senders of telemetry.
    Sender,
    /// Asking whether the server lives.
    Probe,
}

/// Why somebody was not admitted, with the rule for the record.
#[derive(Debug)]
pub(crate) struct Turned {
    pub rule: &'static str,
    pub fault: Fault,
}

impl Turned {
    fn new(rule: &'static str, message: String, seconds: u64) -> Self {
        Self { rule, fault: Fault::new(FaultCode::RateLimited, message).with_retry_after(seconds) }
    }
}

impl Admission<DefaultClock> {
    /// Admission by the machine's monotonic clock.
    pub fn new(settings: LimitSettings, ledger: Arc<TokenLedger>) -> Self {
        Self::with_clock(settings, ledger, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Admission<C> {
    /// Admission by a given clock.
    pub fn with_clock(settings: LimitSettings, ledger: Arc<TokenLedger>, clock: C) -> Self {
        Self {
            addresses: Buckets::new(settings.address, clock.clone()),
            principals: Buckets::new(settings.principal, clock.clone()),
            tools: Buckets::new(settings.tool, clock.clone()),
            writes: Buckets::new(settings.write, clock.clone()),
            tenants: Buckets::new(settings.tenant, clock.clone()),
            everybody: Buckets::new(settings.global, clock),
            slots: Slots::new(settings.concurrent_per_principal),
            tenant_slots: Slots::new(settings.concurrent_per_tenant),
            all: Arc::new(Semaphore::new(settings.concurrent as usize)),
            queue: Semaphore::new(settings.queue as usize),
            ledger,
            shared: None,
            settings,
        }
    }

    /// The same with rates that hold over all replicas together.
    #[must_use]
    pub fn sharing(mut self, shared: Arc<SharedRates>) -> Self {
        self.shared = Some(shared);
        self
    }

    /// How this replica stands with the others; nothing where rates are not shared.
    pub fn shared(&self) -> Option<&Arc<SharedRates>> {
        self.shared.as_ref()
    }

    /// Takes one of a holder's rate, of this replica or of all.
    fn take<K: Hash + Eq + Clone>(&self, from: &Family<'_, K, C>, key: &K) -> Result<Left, Held> {
        match &self.shared {
            Some(shared) => shared.take(shared.holder(from.rule, from.parts), from.buckets.rate()),
            None => from.buckets.take(key).map_err(Held::For),
        }
    }

    /// The same, after what was let in here was told where that has to come first.
    async fn take_told<K: Hash + Eq + Clone>(&self, from: &Family<'_, K, C>, key: &K) -> Result<Left, Held> {
        for _ in 0..EXCHANGES {
            match (self.take(from, key), &self.shared) {
                (Err(Held::Unwritten), Some(shared)) => shared.exchange_for(shared.holder(from.rule, from.parts)).await,
                (taken, _) => return taken,
            }
        }
        Err(Held::Unwritten)
    }

    /// The limits in force.
    pub fn settings(&self) -> LimitSettings {
        self.settings
    }

    /// What principals took of their daily tokens.
    pub fn ledger(&self) -> &Arc<TokenLedger> {
        &self.ledger
    }

    /// Whether a request of this address may go on to the question who it is.
    pub(crate) fn admit_address(&self, address: IpAddr, knock: Knock) -> Result<(), Turned> {
        self.addresses.take(&(accountable(address), knock)).map(|_| ()).map_err(|seconds| {
            let limit = self.addresses.rate().per_second;
            Turned::new("address-rate", format!("more than {limit} requests per second from your address"), seconds)
        })
    }

    /// Lets one call in, waiting for a place at most [`LimitSettings::queue_time`], or says when to come back.
    pub(crate) async fn admit(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<Admitted, Turned> {
        self.recall(principal, tenant).await?;
        let rate = self.check(principal, tenant).await?;
        let reserved = Some(self.set_aside(principal, tenant).await?);
        let (own, shared, all) = (self.slots.of(principal), self.tenant_slots.of(tenant), self.all.clone());
        if let Some(admitted) = Admitted::at_once(&own, &shared, &all, rate) {
            return Ok(Admitted { reserved, ..admitted });
        }
        let Ok(_waiting) = self.queue.try_acquire() else { return Err(queue_turned()) };
        // The own place first: a principal that fills its own places must not hold places of everybody while waiting, nor
        // a tenant those of other tenants.
        let places = async {
            let (own, tenant) = (own.acquire_owned().await.ok()?, shared.acquire_owned().await.ok()?);
            Some(Admitted { _own: own, _tenant: tenant, _all: all.acquire_owned().await.ok()?, rate, reserved })
        };
        match tokio::time::timeout(self.settings.queue_time, places).await {
            Ok(Some(admitted)) => Ok(admitted),
            _ => Err(self.busy(principal, tenant)),
        }
    }

    /// The same without waiting for a place; for what is over in microseconds and waits for nothing on the way, so that only
    /// as many are under way as there are threads. Nothing is set aside for it.
    pub(crate) async fn admit_now(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<Admitted, Turned> {
        self.recall(principal, tenant).await?;
        let rate = self.check(principal, tenant).await?;
        let admitted = Admitted::at_once(&self.slots.of(principal), &self.tenant_slots.of(tenant), &self.all, rate);
        admitted.ok_or_else(|| self.busy(principal, tenant))
    }

    /// Learns what was spent today before this process began.
    async fn recall(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<(), Turned> {
        let unreadable = |error: LedgerError| {
            let message = "the token account of this credential cannot be read, so no call is let in";
            let fault = Fault::new(FaultCode::Unavailable, message).with_internal(error.to_string()).with_retry_after(5);
            Turned { rule: "token-budget", fault }
        };
        if self.settings.tokens_per_day.is_some() {
            self.ledger.recall(principal).await.map_err(unreadable)?;
        }
        if self.settings.tenant_tokens_per_day.is_some() {
            self.ledger.recall(tenant).await.map_err(unreadable)?;
        }
        Ok(())
    }

    /// Sets aside what the answer to one call may take of the day, of the account of its principal and of that of its tenant.
    /// Where all that is left is set aside for calls that run, it waits for those at most [`LimitSettings::queue_time`].
    async fn set_aside(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<Reserved, Turned> {
        let (own, of_tenant) = (self.settings.tokens_per_day, self.settings.tenant_tokens_per_day);
        let accounts = [own.map(|limit| (Holder::from(principal), limit)), of_tenant.map(|limit| (Holder::from(tenant), limit))];
        let accounts: Vec<(Holder, u64)> = accounts.into_iter().flatten().collect();
        let until = Instant::now() + self.settings.queue_time;
        let mut waiting = None;
        loop {
            // From here on, so that nothing is missed that is given back while this one is refused.
            let given_back = self.ledger.given_back();
            let company = self.shared.as_ref().map_or(SharedState::Alone, |shared| shared.state());
            let account = match self.ledger.reserve(&accounts, self.settings.answer_tokens, company).await {
                Ok(reserved) => return Ok(reserved),
                Err(Short::Spent(at)) => return Err(self.spent_turned(&accounts[at])),
                Err(Short::InUse(at)) => &accounts[at],
            };
            let now = Instant::now();
            if now >= until {
                return Err(in_use_turned(account));
            }
            if waiting.is_none() {
                waiting = Some(self.queue.try_acquire().map_err(|_full| queue_turned())?);
            }
            // What other replicas give back wakes nobody here. Either way it is looked at anew.
            let _woken = tokio::time::timeout_at(until.min(now + LOOK), given_back).await;
        }
    }

    /// Books what an answer cost, on the account of the principal and on that of its tenant.
    pub(crate) fn spend(&self, principal: &Principal, tokens: u64) {
        self.ledger.spend(&principal.id, tokens);
        self.ledger.spend(&principal.tenant, tokens);
    }

    /// Whether this principal may do one more operation of an administrator. Its own rate counts; places and the rate of
    /// everybody do not, so that a crowd of callers cannot keep an administrator from revoking their keys.
    pub(crate) fn admit_operation(&self, principal: &PrincipalId) -> Result<RateState, Turned> {
        self.own_rate(principal)
    }

    /// What is running and waiting now.
    pub(crate) fn load(&self) -> GateLoad {
        let (running_limit, waiting_limit) = (self.settings.concurrent as usize, self.settings.queue as usize);
        GateLoad {
            running: running_limit.saturating_sub(self.all.available_permits()),
            running_limit,
            waiting: waiting_limit.saturating_sub(self.queue.available_permits()),
            waiting_limit,
        }
    }

    /// Whether this principal may call this tool once more now.
    pub(crate) async fn admit_tool(&self, principal: &PrincipalId, tool: &str, risk: RiskClass) -> Result<(), Turned> {
        let key = (principal.clone(), Arc::from(tool));
        let (buckets, rule) = match risk {
            RiskClass::Read => (&self.tools, "tool-rate"),
            RiskClass::Write | RiskClass::Destructive => (&self.writes, "write-rate"),
        };
        let from = Family { buckets, rule, parts: &[principal.as_str(), tool] };
        self.take_told(&from, &key).await.map(|_| ()).map_err(|held| {
            let limit = buckets.rate().per_second;
            held.turned(rule, |seconds| {
                format!("more than {limit} calls of {tool} per second; the next one may come in {seconds}s")
            })
        })
    }

    /// The rates and the tokens of the day, from the caller outwards. What was taken is not given back when a later one
    /// refuses: a caller pays for every question with its own rate, and with that of others only for what its own rate and
    /// its own day let through.
    async fn check(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<RateState, Turned> {
        let parts = [principal.as_str()];
        let left = self.take_told(&self.of_principal(&parts), principal).await.map_err(|held| self.own_turned(held))?;
        self.check_tokens(principal, tenant)?;
        let parts = [tenant.as_str()];
        self.take_told(&self.of_tenant(&parts), tenant).await.map_err(|held| self.tenant_turned(held))?;
        self.take_told(&self.of_everybody(), &()).await.map_err(global_turned)?;
        Ok(self.rate_state(left))
    }

    fn of_principal<'a>(&'a self, parts: &'a [&'a str]) -> Family<'a, PrincipalId, C> {
        Family { buckets: &self.principals, rule: "rate-limit", parts }
    }

    fn of_tenant<'a>(&'a self, parts: &'a [&'a str]) -> Family<'a, TenantId, C> {
        Family { buckets: &self.tenants, rule: "tenant-rate", parts }
    }

    fn of_everybody(&self) -> Family<'_, (), C> {
        Family { buckets: &self.everybody, rule: "global-rate", parts: &[] }
    }

    fn own_turned(&self, held: Held) -> Turned {
        let limit = self.principals.rate().per_second;
        held.turned("rate-limit", |seconds| format!("more than {limit} calls per second; the next one may come in {seconds}s"))
    }

    fn tenant_turned(&self, held: Held) -> Turned {
        let limit = self.tenants.rate().per_second;
        held.turned("tenant-rate", |seconds| {
            format!("more than {limit} calls per second of your tenant; the next one may come in {seconds}s")
        })
    }

    fn check_tokens(&self, principal: &PrincipalId, tenant: &TenantId) -> Result<(), Turned> {
        let unspent = |limit: Option<u64>, holder: Holder| match limit {
            Some(limit) if self.ledger.spent(holder.clone()) >= limit => Err(self.spent_turned(&(holder, limit))),
            _ => Ok(()),
        };
        unspent(self.settings.tokens_per_day, principal.into())?;
        unspent(self.settings.tenant_tokens_per_day, tenant.into())
    }

    fn spent_turned(&self, account: &(Holder, u64)) -> Turned {
        let (rule, whose) = budget_of(account);
        let message = format!("the {} tokens {whose} may take per day (UTC) are used up", account.1);
        Turned::new(rule, message, self.ledger.seconds_to_next_day())
    }

    fn own_rate(&self, principal: &PrincipalId) -> Result<RateState, Turned> {
        let parts = [principal.as_str()];
        let left = self.take(&self.of_principal(&parts), principal).map_err(|held| self.own_turned(held))?;
        Ok(self.rate_state(left))
    }

    fn rate_state(&self, left: Left) -> RateState {
        RateState { burst: left.burst, per_second: self.principals.rate().per_second.get(), remaining: left.remaining }
    }

    fn busy(&self, principal: &PrincipalId, tenant: &TenantId) -> Turned {
        if self.slots.of(principal).available_permits() == 0 {
            let limit = self.settings.concurrent_per_principal;
            return Turned::new("concurrency", format!("{limit} of your calls are already running; wait for one to finish"), 1);
        }
        if self.tenant_slots.of(tenant).available_permits() == 0 {
            let limit = self.settings.concurrent_per_tenant;
            let message = format!("{limit} calls of your tenant are already running; wait for one to finish");
            return Turned::new("tenant-concurrency", message, 1);
        }
        Turned::new("concurrency", "the server is at its limit of running calls; wait for one to finish".into(), 1)
    }
}

/// Exchanges with the store one call waits for at most.
const EXCHANGES: usize = 64;

/// One family of rates, and whose of it.
struct Family<'a, K: Hash + Eq + Clone, C: Clock> {
    buckets: &'a Buckets<K, C>,
    rule: &'static str,
    parts: &'a [&'a str],
}

impl Held {
    /// As a refusal by `rule`.
    fn turned(self, rule: &'static str, message: impl FnOnce(u64) -> String) -> Turned {
        match self {
            Self::For(seconds) => Turned::new(rule, message(seconds), seconds),
            Self::Unwritten => Turned::new(rule, "too many calls at once for what several servers share; try again".into(), 1),
        }
    }
}

/// How long a call that waits for tokens of the day does not look at them.
const LOOK: Duration = Duration::from_millis(250);

/// The rule of a budget, and whose it is.
fn budget_of((holder, _): &(Holder, u64)) -> (&'static str, &'static str) {
    match holder {
        Holder::Principal(_) => ("token-budget", "this credential"),
        Holder::Tenant(_) => ("tenant-token-budget", "your tenant"),
    }
}

fn in_use_turned(account: &(Holder, u64)) -> Turned {
    let (rule, whose) = budget_of(account);
    let message = format!(
        "what is left of the {} tokens {whose} may take per day (UTC) is set aside for calls that run; wait for one to finish",
        account.1
    );
    Turned::new(rule, message, 1)
}

fn queue_turned() -> Turned {
    Turned::new("queue", "the server is at its limit of running and waiting calls".into(), 1)
}

fn global_turned(held: Held) -> Turned {
    held.turned("global-rate", |_| "the server is at its limit of calls per second".into())
}

impl Admitted {
    fn at_once(own: &Arc<Semaphore>, tenant: &Arc<Semaphore>, all: &Arc<Semaphore>, rate: RateState) -> Option<Self> {
        Some(Self {
            _own: own.clone().try_acquire_owned().ok()?,
            _tenant: tenant.clone().try_acquire_owned().ok()?,
            _all: all.clone().try_acquire_owned().ok()?,
            rate,
            reserved: None,
        })
    }
}

/// Places of each holder.
#[derive(Debug)]
struct Slots<K> {
    places: usize,
    of: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Hash + Eq + Clone> Slots<K> {
    fn new(places: u32) -> Self {
        Self { places: places as usize, of: Mutex::default() }
    }

    fn of(&self, holder: &K) -> Arc<Semaphore> {
        let mut slots = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = slots.get(holder) {
            return found.clone();
        }
        // Holders without a running call need no entry; keep the map small.
        if slots.len() >= 10_000 {
            slots.retain(|_, s| Arc::strong_count(s) > 1);
        }
        let made = Arc::new(Semaphore::new(self.places));
        slots.insert(holder.clone(), made.clone());
        made
    }
}

/// What an address is counted as: IPv6 hosts own a /64 and could take a new address for every request.
fn accountable(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    fn home() -> TenantId {
        TenantId::default_tenant()
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn admission(settings: LimitSettings) -> (Admission<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Admission::with_clock(settings, Arc::new(TokenLedger::unshared()), clock.clone()), clock)
    }

    #[tokio::test]
    async fn a_burst_then_a_steady_rate_per_principal() {
        let (admission, clock) = admission(LimitSettings { principal: Rate::new(2, 4), ..LimitSettings::default() });
        for left in [3, 2, 1, 0] {
            assert_eq!(admission.admit_now(&who("key:a"), &home()).await.unwrap().rate.remaining, left);
        }
        let turned = admission.admit_now(&who("key:a"), &home()).await.unwrap_err();
        assert_eq!((turned.rule, turned.fault.retry_after_seconds()), ("rate-limit", Some(1)));
        admission.admit_now(&who("key:b"), &home()).await.unwrap();
        clock.advance(Duration::from_millis(600));
        admission.admit_now(&who("key:a"), &home()).await.unwrap();
        assert!(admission.admit_now(&who("key:a"), &home()).await.is_err());
    }

    #[test]
    fn addresses_count_before_principals_and_ipv6_by_its_network() {
        let (admission, _) = admission(LimitSettings { address: Rate::new(1, 2), ..LimitSettings::default() });
        let near = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        admission.admit_address(near(1), Knock::Caller).unwrap();
        admission.admit_address(near(2), Knock::Caller).unwrap();
        assert_eq!(admission.admit_address(near(3), Knock::Caller).unwrap_err().rule, "address-rate");
        admission.admit_address("192.0.2.1".parse().unwrap(), Knock::Caller).unwrap();
        admission.admit_address("::ffff:192.0.2.1".parse().unwrap(), Knock::Caller).unwrap();
        assert!(
            admission.admit_address("192.0.2.1".parse().unwrap(), Knock::Caller).is_err(),
            "a mapped address is the same address"
        );
    }

    #[tokio::test]
    async fn writes_have_a_lower_rate_of_their_own() {
        let settings = LimitSettings { tool: Rate::new(5, 5), write: Rate::new(1, 1), ..LimitSettings::default() };
        let (admission, _) = admission(settings);
        let a = who("key:a");
        admission.admit_tool(&a, "restart", RiskClass::Write).await.unwrap();
        let turned = admission.admit_tool(&a, "restart", RiskClass::Destructive).await.unwrap_err();
        assert_eq!(turned.rule, "write-rate");
        for _ in 0..5 {
            admission.admit_tool(&a, "query_logs", RiskClass::Read).await.unwrap();
        }
        assert_eq!(admission.admit_tool(&a, "query_logs", RiskClass::Read).await.unwrap_err().rule, "tool-rate");
        admission.admit_tool(&a, "sql", RiskClass::Read).await.unwrap();
        admission.admit_tool(&who("key:b"), "query_logs", RiskClass::Read).await.unwrap();
    }

    #[tokio::test]
    async fn everybody_together_is_bounded() {
        let (admission, _) = admission(LimitSettings { global: Rate::new(1, 2), ..LimitSettings::default() });
        admission.admit_now(&who("key:a"), &home()).await.unwrap();
        admission.admit_now(&who("key:b"), &home()).await.unwrap();
        assert_eq!(admission.admit_now(&who("key:c"), &home()).await.unwrap_err().rule, "global-rate");
    }

    #[tokio::test]
    async fn a_tenant_is_bounded_whoever_of_it_asks_and_others_are_not() {
        let (admission, clock) = admission(LimitSettings { tenant: Rate::new(1, 2), ..LimitSettings::default() });
        admission.admit_now(&who("key:a"), &tenant("shop")).await.unwrap();
        admission.admit_now(&who("key:b"), &tenant("shop")).await.unwrap();
        let turned = admission.admit_now(&who("key:c"), &tenant("shop")).await.unwrap_err();
        assert_eq!((turned.rule, turned.fault.retry_after_seconds()), ("tenant-rate", Some(1)));
        admission.admit_now(&who("key:d"), &tenant("bank")).await.unwrap();
        clock.advance(Duration::from_secs(1));
        admission.admit_now(&who("key:c"), &tenant("shop")).await.unwrap();

        let (admission, _) = self::admission(LimitSettings { concurrent_per_tenant: 2, ..LimitSettings::default() });
        let held = [
            admission.admit_now(&who("key:a"), &tenant("shop")).await,
            admission.admit_now(&who("key:b"), &tenant("shop")).await,
        ];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(admission.admit_now(&who("key:c"), &tenant("shop")).await.unwrap_err().rule, "tenant-concurrency");
        admission.admit_now(&who("key:d"), &tenant("bank")).await.unwrap();
        drop(held);
        admission.admit_now(&who("key:c"), &tenant("shop")).await.unwrap();

        let limits = LimitSettings { tenant_tokens_per_day: Some(1_000), ..LimitSettings::default() };
        let (admission, _) = self::admission(limits);
        admission.ledger().spend(&tenant("shop"), 1_000);
        let turned = admission.admit_now(&who("key:a"), &tenant("shop")).await.unwrap_err();
        assert_eq!(turned.rule, "tenant-token-budget");
        assert!(turned.fault.retry_after_seconds().unwrap() <= 86_400);
        admission.admit_now(&who("key:a"), &tenant("bank")).await.unwrap();
    }

    #[tokio::test]
    async fn a_spent_day_refuses_until_midnight() {
        let (admission, _) = admission(LimitSettings { tokens_per_day: Some(1_000), ..LimitSettings::default() });
        admission.ledger().spend(&who("key:a"), 999);
        admission.admit_now(&who("key:a"), &home()).await.unwrap();
        admission.ledger().spend(&who("key:a"), 1);
        let turned = admission.admit_now(&who("key:a"), &home()).await.unwrap_err();
        assert_eq!(turned.rule, "token-budget");
        assert!(turned.fault.retry_after_seconds().unwrap() <= 86_400);
        admission.admit_now(&who("key:b"), &home()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn calls_at_once_do_not_each_spend_what_is_left_for_one() {
        let settings = LimitSettings {
            tokens_per_day: Some(100),
            answer_tokens: 100,
            concurrent_per_principal: 20,
            ..LimitSettings::default()
        };
        let admission = Arc::new(admission(settings).0);
        let call = |admission: Arc<Admission<FakeRelativeClock>>| async move {
            let admitted = admission.admit(&who("key:a"), &home()).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            admission.ledger().spend(&who("key:a"), 80);
            drop(admitted);
            Ok::<(), Turned>(())
        };
        let calls: Vec<_> = (0..20).map(|_| tokio::spawn(call(admission.clone()))).collect();
        let mut refused = 0;
        for call in calls {
            if let Err(turned) = call.await.unwrap() {
                assert_eq!(turned.rule, "token-budget");
                assert!(turned.fault.message().contains("are used up"), "{}", turned.fault.message());
                refused += 1;
            }
        }
        // The first one set everything aside; the second one what the first one left, and went beyond the day with it.
        assert_eq!((refused, admission.ledger().spent(&who("key:a"))), (18, 160));
        assert_eq!(admission.ledger().reserved(&Holder::from(&who("key:a"))), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_for_a_call_that_runs_is_waited_for_and_given_back_however_it_ends() {
        let settings = LimitSettings { tenant_tokens_per_day: Some(100), answer_tokens: 80, ..LimitSettings::default() };
        let (admission, _) = admission(settings);
        let held = admission.admit(&who("key:a"), &home()).await.unwrap();
        let began = tokio::time::Instant::now();
        let turned = admission.admit(&who("key:b"), &home()).await.unwrap_err();
        assert!(began.elapsed() >= settings.queue_time, "{:?}", began.elapsed());
        assert_eq!((turned.rule, turned.fault.retry_after_seconds()), ("tenant-token-budget", Some(1)));
        assert!(turned.fault.message().contains("set aside for calls that run"), "{}", turned.fault.message());
        assert_eq!(admission.load().waiting, 0);
        // What is over in microseconds does not wait for it.
        admission.admit_now(&who("key:b"), &home()).await.unwrap();
        admission.admit(&who("key:b"), &tenant("bank")).await.unwrap();
        drop(held);
        let held = admission.admit(&who("key:b"), &home()).await.unwrap();
        assert_eq!(admission.ledger().reserved(&Holder::from(&home())), 80, "nothing was spent");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_place_and_the_queue_is_bounded() {
        let settings = LimitSettings { concurrent_per_principal: 2, concurrent: 3, queue: 1, ..LimitSettings::default() };
        let (admission, _) = admission(settings);
        let admission = Arc::new(admission);
        let one = admission.admit(&who("key:a"), &home()).await.unwrap();
        let _two = admission.admit(&who("key:a"), &home()).await.unwrap();
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.admit(&who("key:a"), &home()).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        assert_eq!(admission.admit(&who("key:a"), &home()).await.unwrap_err().rule, "queue", "one waits, no more may");
        drop(one);
        waiting.await.unwrap().unwrap();
        // Nobody gives a place back: the wait ends.
        let _three = admission.admit(&who("key:b"), &home()).await.unwrap();
        let _four = admission.admit(&who("key:b"), &home()).await.unwrap();
        let turned = admission.admit(&who("key:c"), &home()).await.unwrap_err();
        assert_eq!(turned.rule, "concurrency");
        assert!(turned.fault.message().contains("server"), "{}", turned.fault.message());
    }

    #[tokio::test]
    async fn what_was_spent_before_a_start_counts_for_whatever_is_asked_first() {
        let clock: Arc<dyn portcullis_model::Clock> = Arc::new(portcullis_model::SystemClock);
        let store = Arc::new(portcullis_state::MemoryStore::new(clock.clone()));
        let before = TokenLedger::shared(store.clone(), clock.clone());
        before.spend(&who("key:a"), 1_000);
        before.spend(&tenant("shop"), 5_000);
        before.settle().await.unwrap();
        let started = || {
            let limits =
                LimitSettings { tokens_per_day: Some(1_000), tenant_tokens_per_day: Some(5_000), ..LimitSettings::default() };
            Admission::new(limits, Arc::new(TokenLedger::shared(store.clone(), clock.clone())))
        };
        assert_eq!(started().admit_now(&who("key:a"), &home()).await.unwrap_err().rule, "token-budget");
        assert_eq!(started().admit_now(&who("key:b"), &tenant("shop")).await.unwrap_err().rule, "tenant-token-budget");
        started().admit_now(&who("key:b"), &home()).await.unwrap();
        store.set_unreachable(true);
        let turned = started().admit_now(&who("key:b"), &home()).await.unwrap_err();
        assert_eq!((turned.rule, turned.fault.code()), ("token-budget", FaultCode::Unavailable), "nobody is let in unread");
    }

    #[tokio::test]
    async fn who_is_refused_takes_nothing_from_others() {
        let limits = LimitSettings {
            principal: Rate::new(1, 50),
            tenant: Rate::new(1, 2),
            global: Rate::new(1, 2),
            concurrent_per_principal: 1,
            tokens_per_day: Some(10),
            ..LimitSettings::default()
        };
        let (admission, _) = admission(limits);
        admission.ledger().spend(&who("key:spent"), 10);
        for _ in 0..60 {
            assert!(admission.admit_now(&who("key:spent"), &home()).await.is_err());
        }
        assert_eq!(admission.admit_now(&who("key:spent"), &home()).await.unwrap_err().rule, "rate-limit", "it pays itself");
        // Its tenant and everybody still have what they had; and no place was kept by a refusal.
        let held = admission.admit_now(&who("key:b"), &home()).await.unwrap();
        assert_eq!(admission.admit_now(&who("key:b"), &home()).await.unwrap_err().rule, "concurrency");
        drop(held);
        assert_eq!(admission.admit_now(&who("key:b"), &home()).await.unwrap_err().rule, "tenant-rate");
        assert_eq!(admission.load().running, 0);
        assert_eq!(admission.slots.of(&who("key:b")).available_permits(), 1);
    }
}

//! Watches who presents wrong credentials, and makes them wait longer each time. Bounded in memory.
//!
//! Two counts, so that neither can be turned against others:
//! - per **address** (IPv6 by its /64): an address that keeps failing has to wait, whatever it presents. A right
//!   credential does not reset it, or somebody with one key could guess at others for ever.
//! - per **claim and address**: a key id or user name that keeps being presented wrongly from one address has to wait
//!   there. From elsewhere it is not touched: nobody can lock somebody else out. A right secret resets it.
//!
//! Which address that is, behind proxies, is decided at the listener: one a stranger chooses would be none.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{Clock, Timestamp};

use crate::settings::LockoutSettings;

/// Addresses, and claims at addresses, watched at most.
const WATCHED: usize = 10_000;
/// How often a full table is looked through for what can be forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Somebody claimed to be somebody: a key id or a user name, as a digest so that the table holds no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Claim([u8; 16]);

impl Claim {
    /// A claim of `kind` (`key`, `user`).
    pub(crate) fn new(kind: &str, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("portcullis 2026-11-20 claim v1");
        hasher.update(kind.as_bytes()).update(b"\0").update(name);
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(short)
    }
}

/// The part of an address that one holder has: IPv4 whole, IPv6 by its /64 (RFC 6177).
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Failures of one address or claim.
#[derive(Debug, Clone, Copy)]
struct Tally {
    failures: u32,
    last: Timestamp,
    locked_until: Timestamp,
}

/// How a count turns into a wait.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// Failures without a wait.
    free: u32,
    first_wait: Duration,
    longest_wait: Duration,
    /// Quiet time, beyond the wait, after which everything is forgotten.
    forget_after: Duration,
}

impl Rule {
    /// Doubles with every failure beyond the free ones.
    fn wait(&self, failures: u32) -> Duration {
        let Some(over) = failures.checked_sub(self.free).filter(|over| *over > 0) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl((over - 1).min(31)).unwrap_or(u32::MAX);
        self.first_wait.saturating_mul(factor).min(self.longest_wait)
    }

    fn is_forgotten(&self, tally: &Tally, now: Timestamp) -> bool {
        now.since(tally.last.max(tally.locked_until)) >= self.forget_after
    }
}

struct Table<K> {
    rule: Rule,
    tallies: HashMap<K, Tally>,
    tidied: Timestamp,
}

impl<K: std::hash::Hash + Eq> Table<K> {
    fn new(rule: Rule) -> Self {
        Self { rule, tallies: HashMap::new(), tidied: Timestamp::from_nanos(i64::MIN) }
    }

    /// Seconds still to wait, rounded up.
    fn waiting(&self, key: &K, now: Timestamp) -> Option<u64> {
        let left = self.tallies.get(key)?.locked_until.since(now);
        (!left.is_zero()).then(|| left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }

    fn is_full_for(&mut self, key: &K, now: Timestamp) -> bool {
        if self.tallies.len() < WATCHED || self.tallies.contains_key(key) {
            return false;
        }
        if now.since(self.tidied) >= TIDY_EVERY {
            let rule = self.rule;
            self.tallies.retain(|_, tally| !rule.is_forgotten(tally, now));
            self.tidied = now;
        }
        self.tallies.len() >= WATCHED
    }

    /// Notes a failure; returns the wait when it is the first of a row.
    fn failed(&mut self, key: K, now: Timestamp) -> Option<Duration> {
        let rule = self.rule;
        let tally = self.tallies.entry(key).or_insert(Tally { failures: 0, last: now, locked_until: now });
        let before = if rule.is_forgotten(tally, now) { 0 } else { tally.failures };
        let failures = before.saturating_add(1);
        let wait = rule.wait(failures);
        *tally = Tally { failures, last: now, locked_until: now.plus(wait) };
        (!wait.is_zero() && rule.wait(before).is_zero()).then_some(wait)
    }
}

struct Tables {
    addresses: Table<Option<IpAddr>>,
    claims: Table<(Claim, Option<IpAddr>)>,
}

/// The watch.
pub(crate) struct Lockout {
    tables: Mutex<Tables>,
    /// Whether anybody failed at all, so that the ordinary case takes no lock.
    watching: AtomicBool,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Lockout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lockout").field("watching", &self.watching).finish_non_exhaustive()
    }
}

impl Lockout {
    pub(crate) fn new(settings: &LockoutSettings, clock: Arc<dyn Clock>) -> Self {
        let rule = |free, first_wait| Rule {
            free,
            first_wait,
            longest_wait: settings.longest_wait.0,
            forget_after: settings.forget_after.0,
        };
        let tables = Tables {
            addresses: Table::new(rule(settings.failures_per_address, settings.first_wait_of_address.0)),
            claims: Table::new(rule(settings.failures_per_claim, settings.first_wait_of_claim.0)),
        };
        Self { tables: Mutex::new(tables), watching: AtomicBool::new(false), clock }
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Acquire)
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses an address, or a claim at an address, that has to wait; with the seconds.
    pub(crate) fn check(&self, address: Option<IpAddr>, claim: Option<Claim>) -> Result<(), u64> {
        if !self.is_watching() {
            return Ok(());
        }
        let now = self.clock.now();
        let wanted = address.map(network);
        let tables = self.tables();
        // While the table is full, an address that is not in it counts with those whose address is not known.
        let crowded = tables.addresses.tallies.len() >= WATCHED && !tables.addresses.tallies.contains_key(&wanted);
        let by_address = tables.addresses.waiting(if crowded { &None } else { &wanted }, now);
        let by_claim = claim.and_then(|claim| tables.claims.waiting(&(claim, wanted), now));
        by_address.max(by_claim).map_or(Ok(()), Err)
    }

    /// Notes one failure. Returns how long the address, or the claim at it, has to wait, where it did not have to before.
    pub(crate) fn failed(&self, address: Option<IpAddr>, claim: Option<Claim>) -> Option<Duration> {
        let now = self.clock.now();
        let mut wanted = address.map(network);
        let mut tables = self.tables();
        let mut begun = None;
        if let Some(claim) = claim {
            let key = (claim, wanted);
            // A full table lets the claim go: the address is still counted.
            if !tables.claims.is_full_for(&key, now) {
                begun = tables.claims.failed(key, now);
            }
        }
        if tables.addresses.is_full_for(&wanted, now) {
            wanted = None;
        }
        begun = begun.max(tables.addresses.failed(wanted, now));
        self.watching.store(true, Ordering::Release);
        begun
    }

    /// Notes that a claim was proven at an address.
    pub(crate) fn proven(&self, address: Option<IpAddr>, claim: Claim) {
        if self.is_watching() {
            self.tables().claims.tallies.remove(&(claim, address.map(network)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::ManualClock;
    use proptest::prelude::*;

    fn at(ip: &str) -> IpAddr {
        ip.parse().unwrap()
    }

    fn lockout() -> (ManualClock, Lockout) {
        let clock = ManualClock::new(Timestamp::from_seconds(1_000_000));
        let lockout = Lockout::new(&LockoutSettings::default(), Arc::new(clock.clone()));
        (clock, lockout)
    }

    fn ana() -> Claim {
        Claim::new("user", b"ana")
    }

    #[test]
    fn the_first_wait_of_a_row_is_told_and_no_other() {
        let (clock, lockout) = lockout();
        let here = at("203.0.113.7");
        let failed = |times: u32| -> Vec<Option<u64>> {
            (0..times).map(|_| lockout.failed(Some(here), Some(ana())).map(|wait| wait.as_secs())).collect()
        };
        assert_eq!(failed(8), [None, None, None, None, None, Some(1), None, None], "five are free");
        assert!(failed(13).last().unwrap().is_some(), "the twenty-first failure of the address");
        assert_eq!(failed(5), [None; 5]);
        clock.advance(Duration::from_hours(48));
        assert_eq!(failed(6).last().unwrap(), &Some(1), "forgotten, and begun anew");
    }

    #[test]
    fn a_claim_waits_twice_as_long_each_time_and_only_at_that_address() {
        let (clock, lockout) = lockout();
        let (here, there) = (at("192.0.2.1"), at("192.0.2.2"));
        for _ in 0..5 {
            assert_eq!(lockout.check(Some(here), Some(ana())), Ok(()));
            lockout.failed(Some(here), Some(ana()));
        }
        assert_eq!(lockout.check(Some(here), Some(ana())), Ok(()), "five are free");
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            lockout.failed(Some(here), Some(ana()));
            assert_eq!(lockout.check(Some(here), Some(ana())), Err(wait));
            assert_eq!(lockout.check(Some(there), Some(ana())), Ok(()), "nobody locks ana out elsewhere");
            clock.advance(Duration::from_secs(wait));
            assert_eq!(lockout.check(Some(here), Some(ana())), Ok(()));
        }
    }

    #[test]
    fn proof_resets_the_claim_but_not_the_address() {
        let (_clock, lockout) = lockout();
        let here = at("192.0.2.1");
        for round in 0..5 {
            for _ in 0..4 {
                lockout.failed(Some(here), Some(ana()));
            }
            lockout.proven(Some(here), ana());
            assert_eq!(lockout.check(Some(here), Some(ana())), Ok(()), "round {round}");
        }
        lockout.failed(Some(here), Some(ana()));
        assert_eq!(lockout.check(Some(here), Some(ana())), Err(3), "twenty-one failures of the address");
        assert_eq!(lockout.check(Some(here), None), Err(3), "whatever it presents");
        assert_eq!(lockout.check(Some(here), Some(Claim::new("user", b"bob"))), Err(3));
        assert_eq!(lockout.check(Some(at("192.0.2.9")), Some(ana())), Ok(()));
    }

    #[test]
    fn addresses_of_one_holder_count_together() {
        let (_clock, lockout) = lockout();
        for host in 0..21 {
            lockout.failed(Some(at(&format!("2001:db8::{host}"))), None);
        }
        assert!(lockout.check(Some(at("2001:db8::ffff")), None).is_err());
        assert!(lockout.check(Some(at("2001:db8:0:1::1")), None).is_ok());
        for _ in 0..21 {
            lockout.failed(Some(at("::ffff:198.51.100.1")), None);
        }
        assert!(lockout.check(Some(at("198.51.100.1")), None).is_err(), "the same address written as IPv4");
    }

    #[test]
    fn quiet_is_forgotten_only_after_the_wait_and_some_more() {
        let (clock, lockout) = lockout();
        let here = at("192.0.2.1");
        for _ in 0..15 {
            lockout.failed(Some(here), Some(ana()));
        }
        assert_eq!(lockout.check(Some(here), Some(ana())), Err(512));
        clock.advance(Duration::from_secs(512));
        lockout.failed(Some(here), Some(ana()));
        assert_eq!(lockout.check(Some(here), Some(ana())), Err(900));
        clock.advance(Duration::from_mins(15) + LockoutSettings::default().forget_after.0);
        lockout.failed(Some(here), Some(ana()));
        assert_eq!(lockout.check(Some(here), Some(ana())), Ok(()), "counted anew");
    }

    #[test]
    fn tables_stay_bounded_and_a_flood_forgets_nobody_who_waits() {
        let (clock, lockout) = lockout();
        let here = at("192.0.2.1");
        for _ in 0..21 {
            lockout.failed(Some(here), Some(ana()));
        }
        for index in 0..WATCHED as u32 + 500 {
            let claim = Claim::new("user", &index.to_le_bytes());
            lockout.failed(Some(IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + index))), Some(claim));
        }
        {
            let tables = lockout.tables();
            assert!(tables.addresses.tallies.len() <= WATCHED + 1 && tables.claims.tallies.len() <= WATCHED);
        }
        assert!(lockout.check(Some(here), Some(ana())).is_err(), "still has to wait");
        assert!(lockout.check(Some(at("203.0.113.9")), None).is_err(), "newcomers of a flood share one count");
        clock.advance(Duration::from_hours(1));
        lockout.failed(Some(at("203.0.113.9")), None);
        assert!(lockout.tables().addresses.tallies.len() <= 2, "calm addresses are forgotten");
        assert!(lockout.check(Some(at("203.0.113.10")), None).is_ok());
    }

    proptest! {
        #[test]
        fn a_wait_never_shrinks_with_failures_and_never_exceeds_the_longest(failures in 0_u32..200) {
            let rule = Rule { free: 5, first_wait: Duration::from_secs(1), longest_wait: Duration::from_mins(15), forget_after: Duration::from_mins(15) };
            prop_assert!(rule.wait(failures) <= rule.wait(failures + 1));
            prop_assert!(rule.wait(failures) <= rule.longest_wait);
        }
    }
}

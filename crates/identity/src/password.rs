//! Secrets that people choose: hashed with argon2id, verified off the async threads and never too many at a time.
//!
//! What verified once is remembered for a few minutes under a keyed hash, so that each call does not pay again and a
//! flood of wrong secrets does not keep out those who are known to be right. Nothing here keeps or prints a secret.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use portcullis_model::{Clock, Secret, Timestamp};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Memory of a new hash in KiB, passes, lanes: the second row of the OWASP Password Storage Cheat Sheet, argon2id.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// Every row of that table: at least this much memory with at least these passes.
const ACCEPTED_COSTS: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
/// What a hash may cost at most, so that verifying stays bounded: memory in KiB, passes, lanes.
const HIGHEST_COST: (u32, u32, u32) = (262_144, 10, 4);
/// Longest hash text.
const MAX_PHC_BYTES: usize = 256;
/// Shortest salt and output of a hash, bytes.
const SHORTEST: (usize, usize) = (8, 16);

/// Verifications at the same time; each holds the memory of its hash.
const AT_ONCE: usize = 2;
/// How long one waits for its turn.
const WAIT: Duration = Duration::from_secs(2);
/// Right secrets remembered, and for how long.
const REMEMBERED: usize = 1_024;
const REMEMBERED_FOR: Duration = Duration::from_mins(5);

/// A hash that is not accepted. The operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password hash is not accepted: {0}. Make one with 'portcullis key hash-password'")]
pub struct UnusableHash(String);

/// An argon2id hash as a PHC string, checked to be neither too weak nor too dear to verify.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    phc: Arc<str>,
    /// Memory times passes, to compare what verifying costs.
    cost: u64,
    /// Passes.
    passes: u32,
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(***)")
    }
}

impl SecretHash {
    /// Reads a PHC string: `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>`.
    ///
    /// # Errors
    /// Another algorithm, or a cost outside of what is accepted.
    pub fn parse(phc: &str) -> Result<Self, UnusableHash> {
        let unusable = |why: String| Err(UnusableHash(why));
        if phc.len() > MAX_PHC_BYTES {
            return unusable(format!("it is longer than {MAX_PHC_BYTES} bytes"));
        }
        let Ok(hash) = PasswordHash::new(phc) else {
            return unusable("it is not a PHC string ($argon2id$v=19$m=...,t=...,p=...$salt$hash)".to_owned());
        };
        if hash.algorithm.as_str() != Algorithm::Argon2id.as_str() || hash.version != Some(u32::from(Version::V0x13)) {
            return unusable("it is not argon2id version 19".to_owned());
        }
        let Ok(params) = Params::try_from(&hash) else {
            return unusable("its parameters cannot be read".to_owned());
        };
        let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        if !ACCEPTED_COSTS.iter().any(|(m, t)| memory >= *m && passes >= *t) {
            return unusable(format!("m={memory},t={passes} is too cheap to guess, use at least m={},t={}", COST.0, COST.1));
        }
        if memory > HIGHEST_COST.0 || passes > HIGHEST_COST.1 || lanes > HIGHEST_COST.2 {
            let (m, t, p) = HIGHEST_COST;
            return unusable(format!("m={memory},t={passes},p={lanes} is too dear to verify, use at most m={m},t={t},p={p}"));
        }
        let long = |found: Option<usize>, least: usize| found.is_some_and(|length| length >= least);
        if !long(hash.salt.as_ref().map(|s| s.len()), SHORTEST.0)
            || !long(hash.hash.as_ref().map(argon2::password_hash::phc::Output::len), SHORTEST.1)
        {
            return unusable(format!("it needs a salt of at least {} and a hash of at least {} bytes", SHORTEST.0, SHORTEST.1));
        }
        Ok(Self { phc: Arc::from(phc), cost: u64::from(memory) * u64::from(passes), passes })
    }

    /// Hashes a secret with a random salt. Takes tens of milliseconds: not for an async thread.
    ///
    /// # Errors
    /// The system gives no random numbers or no memory.
    pub fn of(secret: &Secret) -> Result<Self, UnusableHash> {
        let (memory, passes, lanes) = COST;
        let params = Params::new(memory, passes, lanes, None).map_err(|e| UnusableHash(e.to_string()))?;
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = hasher.hash_password(secret.expose().as_bytes()).map_err(|e| UnusableHash(e.to_string()))?;
        Self::parse(&hash.to_string())
    }

    /// The PHC string.
    pub fn as_str(&self) -> &str {
        &self.phc
    }

    /// The one that costs more to verify.
    pub(crate) fn dearer<'a>(&'a self, other: &'a Self) -> &'a Self {
        if other.cost > self.cost { other } else { self }
    }

    /// Work for what is missing to the cost of `dearest`: as much memory as its passes leave over.
    fn filler(&self, dearest: &Self) -> Option<Params> {
        let missing = dearest.cost.checked_sub(self.cost)? / u64::from(dearest.passes.max(1));
        // Less than the least argon2 takes is less than anybody can measure.
        let memory = u32::try_from(missing).ok().filter(|memory| *memory >= Params::MIN_M_COST)?;
        Params::new(memory, dearest.passes, 1, None).ok()
    }

    fn fits(&self, secret: &[u8]) -> bool {
        let Ok(hash) = PasswordHash::new(&self.phc) else { return false };
        // Compares the outputs in constant time.
        Argon2::default().verify_password(secret, &hash).is_ok()
    }
}

/// Too many verifications are waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// Right secrets of the last minutes, as keyed hashes. Bounded: the oldest goes first.
#[derive(Default)]
struct Known {
    until: HashMap<[u8; 32], Timestamp>,
    order: VecDeque<[u8; 32]>,
}

impl Known {
    fn contains(&self, mark: &[u8; 32], now: Timestamp) -> bool {
        self.until.get(mark).is_some_and(|until| now < *until)
    }

    fn insert(&mut self, mark: [u8; 32], until: Timestamp) {
        if self.until.insert(mark, until).is_none() {
            self.order.push_back(mark);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.until.remove(&oldest);
            }
        }
    }
}

/// Verifies secrets against their hashes.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    known: Mutex<Known>,
    mark_key: Zeroizing<[u8; 32]>,
    clock: Arc<dyn Clock>,
    /// Compared with when there is no such user: costs what the dearest of the others costs.
    nobody: Mutex<SecretHash>,
    /// As many comparisons as whoever has the most secrets costs (a key in rotation has two).
    most: AtomicUsize,
    #[cfg(test)]
    pub(crate) verifications: Arc<std::sync::atomic::AtomicU64>,
    /// Memory times passes of all work done.
    #[cfg(test)]
    pub(crate) spent: Arc<std::sync::atomic::AtomicU64>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("free", &self.turns.available_permits()).finish_non_exhaustive()
    }
}

/// A well-formed hash that belongs to nobody: of 32 zero bytes, which no argon2 output is in practice.
fn hash_of_nobody() -> Result<SecretHash, UnusableHash> {
    let (m, t, p) = COST;
    SecretHash::parse(&format!("$argon2id$v=19$m={m},t={t},p={p}$AAAAAAAAAAAAAAAAAAAAAA${}", "A".repeat(43)))
}

impl Passwords {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Result<Self, UnusableHash> {
        let mut mark_key = Zeroizing::new([0; 32]);
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, mark_key.as_mut_slice())
            .map_err(|e| UnusableHash(format!("the system gives no random numbers: {e}")))?;
        Ok(Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            known: Mutex::default(),
            mark_key,
            clock,
            nobody: Mutex::new(hash_of_nobody()?),
            most: AtomicUsize::new(1),
            #[cfg(test)]
            verifications: Arc::default(),
            #[cfg(test)]
            spent: Arc::default(),
        })
    }

    /// Makes a stranger cost at least as much as somebody with this hash.
    pub(crate) fn cost_as(&self, hash: &SecretHash) -> Result<(), UnusableHash> {
        let mut nobody = self.nobody.lock().unwrap_or_else(PoisonError::into_inner);
        if nobody.dearer(hash) == hash {
            // The same parameters with the salt and output of nobody.
            let parameters = hash.as_str().split('$').nth(3).unwrap_or_default();
            *nobody = SecretHash::parse(&format!("$argon2id$v=19${parameters}$AAAAAAAAAAAAAAAAAAAAAA${}", "A".repeat(43)))?;
        }
        Ok(())
    }

    /// Makes everybody cost at least as many comparisons as somebody with so many secrets.
    pub(crate) fn as_many_as(&self, secrets: usize) {
        self.most.fetch_max(secrets, Ordering::Relaxed);
    }

    /// Which of `hashes` is that of `secret`. Whatever is wrong costs the same: as many comparisons as whoever has the most
    /// secrets, each as dear as the dearest.
    pub(crate) async fn verify(&self, hashes: &[SecretHash], secret: &str) -> Result<Option<usize>, Busy> {
        let now = self.clock.now();
        let marks: Vec<[u8; 32]> = hashes.iter().map(|hash| self.mark(hash, secret)).collect();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = marks.iter().position(|mark| known.contains(mark, now)) {
                return Ok(Some(index));
            }
        }
        let nobody = self.nobody.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (index, (hash, mark)) in hashes.iter().zip(marks).enumerate() {
            if self.compute(hash.clone(), &nobody, secret).await? {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(mark, now.plus(REMEMBERED_FOR));
                return Ok(Some(index));
            }
        }
        for _missing in hashes.len()..self.most.load(Ordering::Relaxed) {
            self.compute(nobody.clone(), &nobody, secret).await?;
        }
        Ok(None)
    }

    /// One verification, when its turn comes. The turn is held until the work is done, also when nobody waits any more.
    /// What does not fit takes as long as `dearest`.
    async fn compute(&self, hash: SecretHash, dearest: &SecretHash, secret: &str) -> Result<bool, Busy> {
        let filler = hash.filler(dearest);
        let turn = tokio::time::timeout(WAIT, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Busy) };
        #[cfg(test)]
        self.verifications.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        let spent = self.spent.clone();
        let secret = Zeroizing::new(secret.as_bytes().to_vec());
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            #[cfg(test)]
            spent.fetch_add(hash.cost, Ordering::Relaxed);
            if hash.fits(&secret) {
                return true;
            }
            if let Some(params) = filler {
                #[cfg(test)]
                spent.fetch_add(u64::from(params.m_cost()) * u64::from(params.t_cost()), Ordering::Relaxed);
                let mut nothing = Zeroizing::new([0; 32]);
                let work = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                // Only its time is wanted.
                let _ = work.hash_password_into(&secret, &[0; 16], nothing.as_mut_slice());
            }
            false
        });
        work.await.map_err(|_| Busy)
    }

    fn mark(&self, hash: &SecretHash, secret: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.mark_key);
        // The length keeps the two parts apart.
        hasher.update(&(hash.phc.len() as u64).to_le_bytes()).update(hash.phc.as_bytes()).update(secret.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::ManualClock;

    fn count(passwords: &Passwords) -> u64 {
        passwords.verifications.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn right_is_remembered_for_a_while_and_wrong_never() {
        let clock = ManualClock::new(Timestamp::from_seconds(1_000));
        let passwords = Passwords::new(Arc::new(clock.clone())).unwrap();
        let hash = SecretHash::of(&Secret::new("Kq7#vLp2xWm9zR!d")).unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let hashes = [hash];
        for expected in [1, 1] {
            assert_eq!(passwords.verify(&hashes, "Kq7#vLp2xWm9zR!d").await, Ok(Some(0)));
            assert_eq!(count(&passwords), expected);
        }
        for expected in [2, 3] {
            assert_eq!(passwords.verify(&hashes, "Kq7#vLp2xWm9zR!e").await, Ok(None));
            assert_eq!(count(&passwords), expected);
        }
        clock.advance(REMEMBERED_FOR);
        assert_eq!(passwords.verify(&hashes, "Kq7#vLp2xWm9zR!d").await, Ok(Some(0)));
        assert_eq!(count(&passwords), 4, "what was right is asked again after a while");
    }

    #[tokio::test]
    async fn a_stranger_costs_one_verification_as_dear_as_the_dearest() {
        let passwords = Passwords::new(Arc::new(ManualClock::new(Timestamp::from_seconds(1)))).unwrap();
        assert_eq!(passwords.verify(&[], "anything").await, Ok(None));
        assert_eq!(count(&passwords), 1);
        let phc = format!("$argon2id$v=19$m=20000,t=3,p=1$c29tZXNhbHRzb21l${}", "BA".repeat(21) + "A");
        let dear = SecretHash::parse(&phc).unwrap();
        passwords.cost_as(&dear).unwrap();
        assert_eq!(passwords.nobody.lock().unwrap().cost, dear.cost);
        passwords.cost_as(&hash_of_nobody().unwrap()).unwrap();
        assert_eq!(passwords.nobody.lock().unwrap().cost, dear.cost, "a cheaper one changes nothing");
        assert_ne!(passwords.nobody.lock().unwrap().as_str(), dear.as_str(), "nobody never has the hash of somebody");
    }

    #[tokio::test]
    async fn whatever_is_wrong_costs_the_same_with_two_secrets_and_with_other_parameters() {
        let passwords = Passwords::new(Arc::new(ManualClock::new(Timestamp::from_seconds(1)))).unwrap();
        let hash = |parameters: &str| {
            SecretHash::parse(&format!("$argon2id$v=19${parameters}$c29tZXNhbHRzb21l${}", "BA".repeat(21) + "A")).unwrap()
        };
        let (cheap, usual, dear) = (hash("m=7168,t=5,p=1"), hash("m=19456,t=2,p=1"), hash("m=20480,t=3,p=1"));
        for known in [&cheap, &usual, &dear] {
            passwords.cost_as(known).unwrap();
        }
        passwords.as_many_as(2);
        passwords.as_many_as(1);
        let mut costs = Vec::new();
        for hashes in [vec![], vec![cheap.clone()], vec![usual.clone(), cheap], vec![dear.clone()], vec![usual, dear.clone()]] {
            assert_eq!(passwords.verify(&hashes, "wrong").await, Ok(None));
            assert_eq!(passwords.verifications.swap(0, Ordering::Relaxed), 2, "{} secrets", hashes.len());
            costs.push(passwords.spent.swap(0, Ordering::Relaxed));
        }
        assert_eq!(costs[0], 2 * dear.cost);
        // What is missing is filled up to the kibibytes one division leaves over.
        assert!(costs.iter().all(|cost| cost.abs_diff(costs[0]) < 100), "{costs:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn when_every_turn_is_taken_the_answer_is_busy_and_known_secrets_still_pass() {
        let passwords = Passwords::new(Arc::new(ManualClock::new(Timestamp::from_seconds(1)))).unwrap();
        let hashes = [hash_of_nobody().unwrap()];
        let mark = passwords.mark(&hashes[0], "known");
        passwords.known.lock().unwrap().insert(mark, Timestamp::from_seconds(100));
        let _all = passwords.turns.clone().acquire_many_owned(AT_ONCE as u32).await.unwrap();
        assert_eq!(passwords.verify(&hashes, "stranger").await, Err(Busy));
        assert_eq!(passwords.verify(&hashes, "known").await, Ok(Some(0)));
    }

    #[test]
    fn memory_of_right_secrets_is_bounded() {
        let mut known = Known::default();
        for index in 0..REMEMBERED as u64 + 10 {
            let mut mark = [0; 32];
            mark[..8].copy_from_slice(&index.to_le_bytes());
            known.insert(mark, Timestamp::from_seconds(10));
            known.insert(mark, Timestamp::from_seconds(20));
        }
        assert_eq!((known.until.len(), known.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!known.contains(&[0; 32], Timestamp::from_seconds(1)), "the oldest went first");
    }

    #[test]
    fn hashes_too_cheap_too_dear_or_of_another_kind_are_refused_with_the_remedy() {
        let tail = format!("$c29tZXNhbHRzb21l${}", "BA".repeat(21) + "A");
        for (head, says) in [
            ("plaintext", "PHC string"),
            ("$2b$12$abcdefghijklmnopqrstuv", "PHC string"),
            ("$argon2i$v=19$m=19456,t=2,p=1", "argon2id"),
            ("$argon2d$v=19$m=19456,t=2,p=1", "argon2id"),
            ("$argon2id$v=16$m=19456,t=2,p=1", "version 19"),
            ("$argon2id$m=19456,t=2,p=1", "version 19"),
            ("$argon2id$v=19$m=4096,t=3,p=1", "too cheap"),
            ("$argon2id$v=19$m=19456,t=1,p=1", "too cheap"),
            ("$argon2id$v=19$m=4000000,t=2,p=1", "too dear"),
            ("$argon2id$v=19$m=19456,t=200,p=1", "too dear"),
        ] {
            let error = SecretHash::parse(&format!("{head}{tail}")).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("hash-password"), "{head}: {error}");
        }
        assert!(SecretHash::parse(&format!("$argon2id$v=19$m=47104,t=1,p=1{tail}")).is_ok());
        assert!(SecretHash::parse("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l").is_err(), "no hash");
        assert_eq!(format!("{:?}", hash_of_nobody().unwrap()), "SecretHash(***)");
    }
}

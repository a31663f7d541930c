//! How often each principal called in the running minute, over all replicas of one store together. Each writes what it
//! counted on a board of its own every few seconds and reads those of the others, so that no call waits for the store: all
//! together let through at most what they do between two looks beyond what is accepted.
//!
//! A replica that cannot hear the others takes it that each of them is asked as often as itself. Nobody's name is on a board.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use portcullis_model::PrincipalId;
use portcullis_state::{MAX_LIST, Namespace};
use serde::{Deserialize, Serialize};

use super::{ProfileError, ProfileMode, Profiles, WATCHED, key_of, shape};
use crate::SharedState;

const BOARDS: Namespace = "gateway.profiles.minutes";
/// How long a board lasts: beyond its minute nobody reads it.
const LIFETIME: Duration = Duration::from_mins(2);

/// What one replica counted in a minute, by the key of the principal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Board {
    minute: i64,
    calls: BTreeMap<String, u32>,
}

/// Calls of the running minute.
#[derive(Debug, Default)]
pub(super) struct Minutes {
    /// Counted here: the minute and how many.
    own: HashMap<PrincipalId, (i64, u32)>,
    /// Counted by the others together.
    heard: Board,
    /// What was told last.
    told: Board,
    /// How many others there are that cannot be heard.
    apart: usize,
}

impl Minutes {
    /// Counts one call, and gives how many there were in its minute.
    pub(super) fn count(&mut self, principal: &PrincipalId, minute: i64) -> u32 {
        if self.own.len() >= WATCHED {
            self.own.retain(|_, (counted, _)| *counted == minute);
        }
        let entry = self.own.entry(principal.clone()).or_insert((minute, 0));
        if entry.0 != minute {
            *entry = (minute, 0);
        }
        entry.1 = entry.1.saturating_add(1);
        let own = *entry;
        self.with_others(principal, own)
    }

    /// How many there were when it called last; at least one.
    pub(super) fn of(&self, principal: &PrincipalId) -> u32 {
        self.own.get(principal).map_or(1, |own| self.with_others(principal, *own))
    }

    fn with_others(&self, principal: &PrincipalId, (minute, own): (i64, u32)) -> u32 {
        let heard = if self.heard.minute == minute && !self.heard.calls.is_empty() {
            self.heard.calls.get(&key_of(principal)).copied().unwrap_or(0)
        } else {
            0
        };
        let as_often = own.saturating_mul(u32::try_from(self.apart).unwrap_or(u32::MAX).saturating_add(1));
        own.saturating_add(heard).max(as_often)
    }

    /// The board as it is to be written; nothing where it would say what was told already.
    fn news(&self, minute: i64) -> Option<Board> {
        let of_now = self.own.iter().filter(|(_, (counted, _))| *counted == minute);
        let board = Board { minute, calls: of_now.map(|(who, (_, count))| (key_of(who), *count)).collect() };
        (!board.calls.is_empty() && board != self.told).then_some(board)
    }
}

impl Profiles {
    /// Brings what is counted in this minute together with the other replicas of the store, of which `company` says whether
    /// there are any. To be called every few seconds.
    ///
    /// # Errors
    /// When the store fails or a board cannot be read; until it works again each replica counts for all of them.
    pub async fn exchange(&self, company: SharedState) -> Result<(), ProfileError> {
        if self.mode == ProfileMode::Off {
            return Ok(());
        }
        let (exchanged, apart) = match company {
            SharedState::Alone => (Ok(()), 0),
            SharedState::Divided(others) => (Ok(()), others),
            SharedState::Shared(others) => {
                let exchanged = self.exchange_boards().await;
                let apart = if exchanged.is_ok() { 0 } else { others };
                (exchanged, apart)
            }
        };
        self.watching().minutes.apart = apart;
        exchanged
    }

    async fn exchange_boards(&self) -> Result<(), ProfileError> {
        let now = self.clock.now();
        let minute = shape::minute(now);
        let news = self.watching().minutes.news(minute);
        if let Some(board) = news {
            let value = serde_json::to_vec(&board).map_err(|e| ProfileError::Unreadable(e.to_string()))?;
            self.store.put(BOARDS, &self.own, &value, Some(now.plus(LIFETIME))).await?;
            self.watching().minutes.told = board;
        }
        let mut heard = Board { minute, ..Board::default() };
        let mut after: Option<String> = None;
        loop {
            let listing = self.store.list_after(BOARDS, "", after.as_deref(), MAX_LIST).await?;
            for entry in listing.entries.iter().filter(|entry| entry.key != self.own) {
                let board: Board = serde_json::from_slice(&entry.value).map_err(|e| ProfileError::Unreadable(e.to_string()))?;
                for (who, count) in board.calls.into_iter().filter(|_| board.minute == minute) {
                    let sum = heard.calls.entry(who).or_insert(0);
                    *sum = sum.saturating_add(count);
                }
            }
            after = listing.entries.last().map(|entry| entry.key.clone());
            if !listing.more || after.is_none() {
                break;
            }
        }
        self.watching().minutes.heard = heard;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_model::{ManualClock, Timestamp};
    use portcullis_state::{MemoryStore, Store};
    use serde_json::Map;

    use super::*;
    use crate::profiles::{Deviation, Judgement};

    const SHARED: SharedState = SharedState::Shared(1);

    fn who() -> PrincipalId {
        PrincipalId::new("key:a").unwrap()
    }

    struct Bench {
        clock: Arc<ManualClock>,
        store: MemoryStore,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000)));
            Self { store: MemoryStore::new(clock.clone()), clock }
        }

        async fn replica(&self, mode: ProfileMode) -> Profiles {
            Profiles::open(Arc::new(self.store.clone()), self.clock.clone(), mode).await.unwrap()
        }

        /// With a profile of three calls a minute, so that six are let through.
        async fn with_profile() -> Self {
            let bench = Self::new();
            let observing = bench.replica(ProfileMode::Observe).await;
            for _ in 0..3 {
                call(&observing);
                observing.learn(&who(), "t", &Map::new(), std::iter::empty());
            }
            observing.settle().await.unwrap();
            observing.accept(&who()).await.unwrap();
            bench.clock.advance(Duration::from_mins(1));
            bench
        }
    }

    fn call(replica: &Profiles) -> Judgement {
        replica.judge(&who(), "t", &Map::new())
    }

    #[tokio::test]
    async fn calls_of_a_minute_count_at_whichever_replica_they_were_made() {
        let bench = Bench::with_profile().await;
        let (a, b) = (bench.replica(ProfileMode::Enforce).await, bench.replica(ProfileMode::Enforce).await);
        for _ in 0..4 {
            assert_eq!(call(&a), Judgement::Fits);
        }
        a.exchange(SHARED).await.unwrap();
        b.exchange(SHARED).await.unwrap();
        assert_eq!([call(&b), call(&b)], [Judgement::Fits, Judgement::Fits]);
        assert_eq!(call(&b), Judgement::Refused(vec![Deviation::Rate { seen: 7, accepted: 6 }]), "four there and three here");
        b.exchange(SHARED).await.unwrap();
        a.exchange(SHARED).await.unwrap();
        assert_eq!(call(&a), Judgement::Refused(vec![Deviation::Rate { seen: 8, accepted: 6 }]));
        assert!(matches!(a.judge(&PrincipalId::new("key:b").unwrap(), "t", &Map::new()), Judgement::Refused(_)));
        // A new minute, and nothing of the last one counts.
        bench.clock.advance(Duration::from_mins(1));
        assert_eq!([call(&a), call(&b)], [Judgement::Fits, Judgement::Fits]);
        b.exchange(SHARED).await.unwrap();
        for _ in 0..5 {
            assert_eq!(call(&b), Judgement::Fits);
        }
    }

    #[tokio::test]
    async fn what_is_learned_at_several_replicas_is_what_they_saw_together() {
        let bench = Bench::new();
        let (a, b) = (bench.replica(ProfileMode::Observe).await, bench.replica(ProfileMode::Observe).await);
        for replica in [&a, &b] {
            for _ in 0..5 {
                call(replica);
                replica.learn(&who(), "t", &Map::new(), std::iter::empty());
            }
            replica.exchange(SHARED).await.unwrap();
        }
        call(&b);
        b.learn(&who(), "t", &Map::new(), std::iter::empty());
        a.settle().await.unwrap();
        b.settle().await.unwrap();
        assert_eq!(b.learned().await.unwrap()[0].most_per_minute, 11);
    }

    #[tokio::test]
    async fn who_cannot_hear_the_others_counts_for_all_of_them_and_who_is_alone_writes_nothing() {
        let bench = Bench::with_profile().await;
        let alone = bench.replica(ProfileMode::Enforce).await;
        call(&alone);
        alone.exchange(SharedState::Alone).await.unwrap();
        assert!(bench.store.list(BOARDS, "", 10).await.unwrap().entries.is_empty());
        for _ in 0..5 {
            assert_eq!(call(&alone), Judgement::Fits);
        }
        assert!(matches!(call(&alone), Judgement::Refused(_)));
        bench.clock.advance(Duration::from_mins(1));
        bench.store.set_unreachable(true);
        for company in [SharedState::Divided(1), SHARED] {
            assert_eq!(alone.exchange(company).await.is_ok(), company != SHARED, "{company:?}");
            for _ in 0..3 {
                assert_eq!(call(&alone), Judgement::Fits);
            }
            assert_eq!(call(&alone), Judgement::Refused(vec![Deviation::Rate { seen: 8, accepted: 6 }]), "four of each");
            bench.clock.advance(Duration::from_mins(1));
        }
        bench.store.set_unreachable(false);
        alone.exchange(SHARED).await.unwrap();
        for _ in 0..6 {
            assert_eq!(call(&alone), Judgement::Fits);
        }
        // A board of nonsense is no word of the others.
        bench.store.put(BOARDS, "odd", b"nonsense", None).await.unwrap();
        assert!(alone.exchange(SHARED).await.is_err());
    }
}

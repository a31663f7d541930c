//! Rates that hold over all replicas of one store together, without a trip to the store for each call.
//!
//! Every replica counts what it lets in and writes its counts, all of them at once and a few times a second, on a *board* of
//! its own in the store; it reads the boards of the others and books what they let in as its own. What it let in and has not
//! written yet is its *credit*: a quarter of a burst, and when that is used up nothing more is let in before the board is
//! written and the others' are read. So all replicas together are never further beyond a rate than one such batch each, and
//! what was too much is paid back, because it is booked like everything else.
//!
//! A replica that cannot reach the store divides: each lets in its share of the rate among those it last saw. Nothing is let
//! in that the replicas together might not; some of it is refused. Nobody's name is on a board, only keyed digests are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_model::{Clock, Timestamp};
use portcullis_state::{MAX_LIST, MAX_VALUE_BYTES, Namespace, Store, StoreError};
use tokio::sync::Notify;

use super::rates::Left;
use super::settings::Rate;

const NAMESPACE: Namespace = "gateway.rates";
/// How often boards are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often a board is written when nothing was let in: it says that its replica is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A replica whose board is older is gone.
const LIFETIME: Duration = Duration::from_secs(20);
/// Longest the store may take before a replica goes on with its share.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of one count on a board: whose, since when, how many, how full, at which rate.
const LINE: usize = 48;
/// Part of a burst that may be let in before it is written on the board.
const CREDIT: u32 = 4;

/// When rates are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// From the first call on, whether others are there or not.
    Always,
    /// As long as others are there.
    WithOthers,
}

/// How a replica stands with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedState {
    /// It is alone.
    Alone,
    /// It shares with this many others.
    Shared(usize),
    /// It cannot reach the store and lets in its share, beside this many others it last saw.
    Divided(usize),
}

/// What a replica exchanged with the others so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedCounts {
    /// How it stands with them.
    pub state: SharedState,
    /// How often it wrote its board.
    pub written: u64,
    /// Boards of others it read.
    pub read: u64,
    /// Exchanges with the store that failed or took too long.
    pub failed: u64,
    /// How old what it knows of the others is; absent before it heard of any or of none.
    pub age: Option<Duration>,
}

/// Whose count: a digest of the family of rates and of the holder.
pub(super) type Holder = u128;

/// A count of this replica.
#[derive(Debug, Clone, Copy)]
struct Cell {
    rate: Rate,
    /// When, by all that is known, the holder could have come at its steady rate instead (GCRA), in nanoseconds.
    full_until: i64,
    /// Let in here since `since`.
    count: u64,
    /// What of it stands on the board.
    told: u64,
    /// When the count was begun: another one is another count.
    since: i64,
}

impl Cell {
    fn step(&self) -> i64 {
        1_000_000_000 / i64::from(self.rate.per_second.get())
    }

    /// How long a burst takes at the steady rate.
    fn window(&self) -> i64 {
        self.step().saturating_mul(i64::from(self.rate.burst.get()))
    }

    fn credit(&self) -> u64 {
        u64::from((self.rate.burst.get() / CREDIT).max(1))
    }

    fn untold(&self) -> u64 {
        self.count - self.told
    }

    /// Books what was let in elsewhere. What is owed has an end, so that no mistake locks a holder out for long: more than
    /// the credit of everybody cannot have been too much.
    fn charge(&mut self, more: u64, others: usize, now: i64) {
        let more = i64::try_from(more).unwrap_or(i64::MAX).saturating_mul(self.step());
        self.full_until = self.full_until.max(now).saturating_add(more).min(self.latest(others, now));
    }

    /// As full as it can be with everybody's credit on top.
    fn latest(&self, others: usize, now: i64) -> i64 {
        let credits = i64::try_from(self.credit().saturating_mul(others as u64 + 1)).unwrap_or(i64::MAX);
        now.saturating_add(self.window()).saturating_add(credits.saturating_mul(self.step()))
    }
}

/// One count as it stands on a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    holder: Holder,
    since: i64,
    count: u64,
    full_until: i64,
    rate: Rate,
}

impl Line {
    fn write(&self, board: &mut Vec<u8>) {
        board.extend_from_slice(&self.holder.to_be_bytes());
        board.extend_from_slice(&self.since.to_be_bytes());
        board.extend_from_slice(&self.count.to_be_bytes());
        board.extend_from_slice(&self.full_until.to_be_bytes());
        board.extend_from_slice(&self.rate.per_second.get().to_be_bytes());
        board.extend_from_slice(&self.rate.burst.get().to_be_bytes());
    }

    /// Reads one; bytes that are none are none.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (holder, rest) = bytes.split_first_chunk::<16>()?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (full_until, rest) = rest.split_first_chunk::<8>()?;
        let (per_second, rest) = rest.split_first_chunk::<4>()?;
        let (burst, _) = rest.split_first_chunk::<4>()?;
        let positive = |bytes: &[u8; 4]| NonZeroU32::new(u32::from_be_bytes(*bytes));
        Some(Self {
            holder: Holder::from_be_bytes(*holder),
            since: i64::from_be_bytes(*since),
            count: u64::from_be_bytes(*count),
            full_until: i64::from_be_bytes(*full_until),
            rate: Rate { per_second: positive(per_second)?, burst: positive(burst)? },
        })
    }
}

/// What another replica had let in when its board was read last.
#[derive(Debug, Clone, Copy)]
struct Read {
    since: i64,
    count: u64,
}

#[derive(Debug)]
struct Books {
    cells: HashMap<Holder, Cell>,
    others: BTreeMap<String, HashMap<Holder, Read>>,
    state: SharedState,
    /// Whether boards were read at all.
    read: bool,
    /// The store's count of changes when they were read last, and when that was.
    heard: Option<u64>,
    heard_at: i64,
    written: i64,
    /// When it was last known that nothing of the others is missing here.
    confirmed: Option<i64>,
    counts: Counts,
}

/// Exchanges, counted.
#[derive(Debug, Default)]
struct Counts {
    written: u64,
    read: u64,
    failed: u64,
}

/// Why nobody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// The rate is used up; how many whole seconds, at least one, until the next may come.
    For(u64),
    /// The credit is used up: the board has to be written first.
    Unwritten,
}

/// The rates of this replica and what it knows of the others.
#[derive(Debug)]
pub struct SharedRates {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    sharing: Sharing,
    own: String,
    key: [u8; 32],
    books: Mutex<Books>,
    /// One exchange with the store at a time.
    exchange: tokio::sync::Mutex<()>,
    due: Notify,
}

/// A board as it is to be written, and the counts it tells.
struct Board {
    bytes: Vec<u8>,
    told: Vec<(Holder, u64)>,
}

impl SharedRates {
    /// Rates shared through `store`, under a new name. `secret` is one for all replicas: with it holders are digested.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, sharing: Sharing, secret: &[u8]) -> Self {
        let state = SharedState::Alone;
        let books = Books {
            cells: HashMap::new(),
            others: BTreeMap::new(),
            state,
            read: false,
            heard: None,
            heard_at: i64::MIN,
            written: i64::MIN,
            confirmed: None,
            counts: Counts::default(),
        };
        let own = format!("{:032x}", rand::random::<u128>());
        let key = blake3::derive_key("portcullis 2026 holders of shared rates", secret);
        Self {
            store,
            clock,
            sharing,
            own,
            key,
            books: Mutex::new(books),
            exchange: tokio::sync::Mutex::default(),
            due: Notify::new(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.clock.now().as_nanos()
    }

    /// How many replicas use a store now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn replicas(store: &dyn Store) -> Result<usize, StoreError> {
        store.list(NAMESPACE, "", MAX_LIST).await.map(|listing| listing.entries.len())
    }

    /// How this replica stands with the others.
    pub fn state(&self) -> SharedState {
        self.books().state
    }

    /// What was exchanged so far.
    pub fn counts(&self) -> SharedCounts {
        let now = self.now();
        let books = self.books();
        let Counts { written, read, failed } = books.counts;
        let age = books.confirmed.map(|at| Duration::from_nanos(u64::try_from(now.saturating_sub(at)).unwrap_or(0)));
        SharedCounts { state: books.state, written, read, failed, age }
    }

    pub(super) fn holder(&self, family: &str, parts: &[&str]) -> Holder {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in std::iter::once(&family).chain(parts) {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_be_bytes(first)
    }

    /// Takes one of a holder's rate.
    pub(super) fn take(&self, holder: Holder, rate: Rate) -> Result<Left, Held> {
        let now = self.now();
        let mut books = self.books();
        let (state, others_known) = (books.state, books.others.len());
        let fresh = Cell { rate, full_until: now, count: 0, told: 0, since: now };
        let cell = books.cells.entry(holder).or_insert(fresh);
        // What was heard of elsewhere first has the rate of elsewhere.
        cell.rate = rate;
        let (mut step, mut window) = (cell.step(), cell.window());
        if let SharedState::Divided(others) = state {
            let all = i64::try_from(others + 1).unwrap_or(i64::MAX);
            let share = (i64::from(rate.burst.get()) / all).max(1);
            step = step.saturating_mul(all);
            window = step.saturating_mul(share);
        }
        // A clock that was set back must not hold anybody for as long as it was ahead.
        cell.full_until = cell.full_until.min(cell.latest(others_known, now));
        let from = cell.full_until.max(now);
        let over = from.saturating_add(step).saturating_sub(now).saturating_sub(window);
        if over > 0 {
            return Err(Held::For(seconds(over)));
        }
        let shared = match state {
            SharedState::Shared(_) => true,
            SharedState::Alone => self.sharing == Sharing::Always,
            SharedState::Divided(_) => false,
        };
        if shared && cell.untold() >= cell.credit() {
            return Err(Held::Unwritten);
        }
        cell.full_until = from + step;
        cell.count += 1;
        if shared && cell.untold() * 2 >= cell.credit() {
            self.due.notify_one();
        }
        let remaining = (window - (cell.full_until - now)) / step;
        Ok(Left { burst: rate.burst.get(), remaining: u32::try_from(remaining).unwrap_or(0) })
    }

    /// Exchanges boards with the others, unless that was done for this holder while it waited for its turn.
    pub(super) async fn exchange_for(&self, holder: Holder) {
        let _turn = self.exchange.lock().await;
        let waits = self.books().cells.get(&holder).is_some_and(|cell| cell.untold() >= cell.credit());
        if waits {
            self.exchange_now().await;
        }
    }

    /// Exchanges boards with the others: what was let in here is told, what was let in elsewhere is booked.
    pub async fn exchange(&self) {
        let _turn = self.exchange.lock().await;
        self.exchange_now().await;
    }

    async fn exchange_now(&self) {
        let work = async {
            let told = self.publish().await?;
            self.learn(&told).await
        };
        let why = match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {}s", PATIENCE.as_secs()),
        };
        let mut books = self.books();
        books.counts.failed += 1;
        let others = match books.state {
            SharedState::Divided(others) => others,
            _ => books.others.len(),
        };
        if !matches!(books.state, SharedState::Divided(_)) {
            tracing::error!(%why, others, "boards of rates cannot be exchanged; this replica lets in its share of each rate");
        }
        books.state = SharedState::Divided(others);
    }

    /// Takes a place among the replicas: returns when the others can have noticed, and what they let in is known.
    pub async fn join(&self) {
        self.exchange().await;
        if matches!(self.state(), SharedState::Shared(_)) {
            tokio::time::sleep(TICK * 2).await;
            self.exchange().await;
        }
    }

    /// Looks after the boards until there is news of how this replica stands, and says how.
    pub async fn follow(&self, seen: SharedState) -> SharedState {
        loop {
            let state = self.state();
            if state != seen {
                return state;
            }
            tokio::select! {
                () = self.due.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            self.exchange().await;
        }
    }

    /// Takes this replica's board down: nothing more is let in here.
    ///
    /// # Errors
    /// When the store fails; the board runs out by itself then.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let _turn = self.exchange.lock().await;
        self.store.delete(NAMESPACE, &self.own).await.map(drop)
    }

    /// The board as it is now, where it has to be written.
    fn board(&self) -> Option<Board> {
        let now = self.now();
        let mut books = self.books();
        // What is full again, and told, is nobody's business any more.
        books.cells.retain(|_, cell| cell.full_until > now || cell.untold() > 0);
        let alone = self.sharing == Sharing::WithOthers && books.others.is_empty() && books.read;
        let news = !alone && books.cells.values().any(|cell| cell.untold() > 0);
        let silent = now.saturating_sub(books.written) >= nanos(HEARTBEAT);
        if !news && !silent && !matches!(books.state, SharedState::Divided(_)) {
            return None;
        }
        // Those who could do most harm first, should there be more than a board holds.
        let counted = books.cells.iter().filter(|(_, cell)| cell.count > 0);
        let mut cells: Vec<(&Holder, &Cell)> = counted.collect();
        cells.sort_unstable_by_key(|(holder, cell)| (Reverse(cell.untold()), Reverse(cell.full_until), **holder));
        cells.truncate(MAX_VALUE_BYTES / LINE);
        let mut board = Board { bytes: Vec::with_capacity(cells.len() * LINE), told: Vec::with_capacity(cells.len()) };
        for (holder, cell) in cells {
            let Cell { rate, full_until, count, since, .. } = *cell;
            Line { holder: *holder, since, count, full_until, rate }.write(&mut board.bytes);
            board.told.push((*holder, count));
        }
        Some(board)
    }

    /// Writes this replica's board. What stands on it counts as told only when the others' were read after it.
    async fn publish(&self) -> Result<Vec<(Holder, u64)>, StoreError> {
        let Some(board) = self.board() else { return Ok(Vec::new()) };
        let now = self.now();
        let until = Timestamp::from_nanos(now.saturating_add(nanos(LIFETIME)));
        self.store.put(NAMESPACE, &self.own, &board.bytes, Some(until)).await?;
        let mut books = self.books();
        books.written = now;
        books.counts.written += 1;
        Ok(board.told)
    }

    /// Reads the others' boards and books what they let in since they were read last.
    async fn learn(&self, told: &[(Holder, u64)]) -> Result<(), StoreError> {
        let asked = self.now();
        let counter = self.store.change_counter(NAMESPACE).await?;
        {
            let mut books = self.books();
            let lately = self.now().saturating_sub(books.heard_at) < nanos(HEARTBEAT);
            if told.is_empty() && books.heard == Some(counter) && lately && !matches!(books.state, SharedState::Divided(_)) {
                books.confirmed = Some(asked);
                return Ok(());
            }
        }
        let mut boards = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let listing = self.store.list_after(NAMESPACE, "", after.as_deref(), MAX_LIST).await?;
            after = listing.entries.last().map(|entry| entry.key.clone());
            boards.extend(listing.entries.into_iter().filter(|entry| entry.key != self.own));
            if !listing.more {
                break;
            }
        }
        let now = self.now();
        let mut books = self.books();
        for (holder, count) in told {
            if let Some(cell) = books.cells.get_mut(holder) {
                cell.told = *count;
            }
        }
        let others: BTreeSet<&str> = boards.iter().map(|entry| entry.key.as_str()).collect();
        books.others.retain(|name, _| others.contains(name.as_str()));
        for entry in &boards {
            books.book(&entry.key, &entry.value, now, boards.len());
        }
        (books.read, books.heard, books.heard_at) = (true, Some(counter), now);
        books.confirmed = Some(asked);
        books.counts.read += boards.len() as u64;
        books.state = if boards.is_empty() { SharedState::Alone } else { SharedState::Shared(boards.len()) };
        Ok(())
    }
}

impl Books {
    /// Books what stands on another replica's board.
    fn book(&mut self, name: &str, board: &[u8], now: i64, others: usize) {
        let before = self.others.remove(name).unwrap_or_default();
        let mut read = HashMap::new();
        for line in board.chunks_exact(LINE).filter_map(Line::read) {
            let Line { holder, since, count, full_until, rate } = line;
            let fresh = Cell { rate, full_until: now, count: 0, told: 0, since: now };
            let cell = self.cells.entry(holder).or_insert(fresh);
            match before.get(&holder).filter(|known| known.since == since) {
                Some(known) => cell.charge(count.saturating_sub(known.count), others, now),
                // All of it was let in since this board was read last.
                None if self.read => cell.charge(count, others, now),
                // The first look at any: how full it is says what counts of the past.
                None => {
                    cell.full_until = cell.full_until.max(full_until);
                    cell.charge(0, others, now);
                }
            }
            read.insert(holder, Read { since, count });
        }
        self.others.insert(name.to_owned(), read);
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Whole seconds, at least one.
fn seconds(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0).div_ceil(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::ManualClock;
    use portcullis_state::MemoryStore;
    use proptest::prelude::*;

    const START: i64 = 1_000_000_000_000;

    struct Bench {
        clock: Arc<ManualClock>,
        store: MemoryStore,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(START)));
            Self { store: MemoryStore::new(clock.clone()), clock }
        }

        fn replica(&self, sharing: Sharing) -> SharedRates {
            SharedRates::new(Arc::new(self.store.clone()), self.clock.clone(), sharing, &[7; 32])
        }
    }

    /// As admission does it.
    async fn take(replica: &SharedRates, holder: Holder, rate: Rate) -> Result<Left, Held> {
        loop {
            match replica.take(holder, rate) {
                Err(Held::Unwritten) => replica.exchange_for(holder).await,
                other => return other,
            }
        }
    }

    #[tokio::test]
    async fn what_is_exchanged_is_counted_and_so_is_what_fails() {
        let bench = Bench::new();
        let (a, b) = (bench.replica(Sharing::WithOthers), bench.replica(Sharing::WithOthers));
        assert_eq!(a.counts(), SharedCounts { state: SharedState::Alone, written: 0, read: 0, failed: 0, age: None });
        a.exchange().await;
        b.exchange().await;
        a.exchange().await;
        let counts = a.counts();
        assert_eq!((counts.state, counts.written, counts.read, counts.failed), (SharedState::Shared(1), 1, 1, 0));
        assert_eq!(counts.age, Some(Duration::ZERO));
        bench.clock.advance(Duration::from_secs(3));
        bench.store.set_unreachable(true);
        a.exchange().await;
        a.exchange().await;
        let counts = a.counts();
        assert_eq!((counts.state, counts.failed, counts.age), (SharedState::Divided(1), 2, Some(Duration::from_secs(3))));
        bench.store.set_unreachable(false);
        a.exchange().await;
        let counts = a.counts();
        assert_eq!((counts.state, counts.written, counts.read), (SharedState::Shared(1), 2, 2));
        assert_eq!((counts.failed, counts.age), (2, Some(Duration::ZERO)), "failures stay counted");
    }

    #[tokio::test]
    async fn who_is_refused_by_one_replica_is_refused_by_the_others() {
        let bench = Bench::new();
        let (a, b) = (bench.replica(Sharing::WithOthers), bench.replica(Sharing::WithOthers));
        a.exchange().await;
        assert_eq!(a.state(), SharedState::Alone);
        b.exchange().await;
        a.exchange().await;
        assert_eq!((a.state(), b.state()), (SharedState::Shared(1), SharedState::Shared(1)));
        let (rate, holder) = (Rate::new(1, 8), a.holder("principal", &["key:x"]));
        assert_eq!(holder, b.holder("principal", &["key:x"]), "one key, one digest");
        assert_ne!(holder, a.holder("principal", &["key:", "x"]));
        for _ in 0..8 {
            take(&a, holder, rate).await.unwrap();
        }
        assert_eq!(take(&a, holder, rate).await, Err(Held::For(1)));
        a.exchange().await;
        b.exchange().await;
        assert_eq!(b.take(holder, rate), Err(Held::For(1)), "without a trip to the store");
        assert!(b.take(b.holder("principal", &["key:y"]), rate).is_ok(), "somebody else");
        bench.clock.advance(Duration::from_secs(1));
        take(&b, holder, rate).await.unwrap();
        b.exchange().await;
        a.exchange().await;
        assert!(a.take(holder, rate).is_err(), "the second is taken");
    }

    #[tokio::test]
    async fn who_comes_later_learns_what_was_taken_before() {
        let bench = Bench::new();
        let (rate, a) = (Rate::new(1, 4), bench.replica(Sharing::Always));
        let holder = a.holder("global", &[]);
        for _ in 0..4 {
            take(&a, holder, rate).await.unwrap();
        }
        a.exchange().await;
        let late = bench.replica(Sharing::Always);
        late.exchange().await;
        assert!(late.take(holder, rate).is_err());
        // Who is gone counts no longer than what it let in.
        a.leave().await.unwrap();
        late.exchange().await;
        assert_eq!(late.state(), SharedState::Alone);
        bench.clock.advance(Duration::from_secs(4));
        for _ in 0..4 {
            take(&late, holder, rate).await.unwrap();
        }
    }

    #[tokio::test]
    async fn without_the_store_each_lets_in_its_share() {
        let bench = Bench::new();
        let all: Vec<SharedRates> = (0..4).map(|_| bench.replica(Sharing::WithOthers)).collect();
        for replica in all.iter().chain(&all) {
            replica.exchange().await;
        }
        bench.store.set_unreachable(true);
        let (rate, holder) = (Rate::new(4, 8), all[0].holder("principal", &["key:x"]));
        let mut admitted = 0;
        for replica in &all {
            replica.exchange().await;
            assert_eq!(replica.state(), SharedState::Divided(3));
            for _ in 0..20 {
                admitted += u32::from(take(replica, holder, rate).await.is_ok());
            }
        }
        assert_eq!(admitted, 8, "the burst of all of them together");
        bench.clock.advance(Duration::from_secs(1));
        for replica in &all {
            for _ in 0..20 {
                admitted += u32::from(take(replica, holder, rate).await.is_ok());
            }
        }
        assert_eq!(admitted, 12, "and the rate");
        bench.store.set_unreachable(false);
        for replica in all.iter().chain(&all) {
            replica.exchange().await;
            assert_eq!(replica.state(), SharedState::Shared(3));
        }
        assert!(take(&all[2], holder, rate).await.is_err(), "what was let in meanwhile is booked");
    }

    #[tokio::test]
    async fn one_alone_writes_nothing_but_that_it_is_there() {
        let bench = Bench::new();
        let a = bench.replica(Sharing::WithOthers);
        a.exchange().await;
        let written = bench.store.change_counter(NAMESPACE).await.unwrap();
        let holder = a.holder("principal", &["key:x"]);
        for _ in 0..100 {
            a.take(holder, Rate::new(100, 100)).unwrap();
        }
        a.exchange().await;
        assert_eq!(bench.store.change_counter(NAMESPACE).await.unwrap(), written);
        bench.clock.advance(HEARTBEAT);
        a.exchange().await;
        assert_eq!(bench.store.change_counter(NAMESPACE).await.unwrap(), written + 1);
        bench.clock.advance(Duration::from_mins(1));
        a.exchange().await;
        assert!(a.books().cells.is_empty(), "what is full again is forgotten");
    }

    #[tokio::test]
    async fn a_board_of_nonsense_harms_nobody_for_long() {
        let bench = Bench::new();
        let (a, rate) = (bench.replica(Sharing::Always), Rate::new(1, 4));
        a.exchange().await;
        let holder = a.holder("principal", &["key:x"]);
        let mut board = b"short".to_vec();
        bench.store.put(NAMESPACE, "odd", &board, None).await.unwrap();
        a.exchange().await;
        board.clear();
        Line { holder, since: 5, count: u64::MAX, full_until: i64::MAX, rate }.write(&mut board);
        board.extend_from_slice(&[0; LINE]);
        bench.store.put(NAMESPACE, "odd", &board, None).await.unwrap();
        a.exchange().await;
        assert!(a.take(holder, rate).is_err());
        bench.clock.advance(Duration::from_secs(7));
        take(&a, holder, rate).await.unwrap();
    }

    /// A clock that can be set.
    #[derive(Debug)]
    struct Wall(std::sync::atomic::AtomicI64);

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            Timestamp::from_nanos(self.0.load(std::sync::atomic::Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_holds_nobody_for_long() {
        let clock = Arc::new(Wall(std::sync::atomic::AtomicI64::new(START)));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let alone = SharedRates::new(store, clock.clone(), Sharing::WithOthers, &[7; 32]);
        let (rate, holder) = (Rate::new(1, 4), alone.holder("principal", &["key:x"]));
        while alone.take(holder, rate).is_ok() {}
        clock.0.fetch_sub(nanos(Duration::from_hours(1)), std::sync::atomic::Ordering::SeqCst);
        let Err(Held::For(seconds)) = alone.take(holder, rate) else { panic!("it was full") };
        assert!(seconds <= 3, "{seconds}");
        clock.0.fetch_add(nanos(Duration::from_secs(3)), std::sync::atomic::Ordering::SeqCst);
        alone.take(holder, rate).unwrap();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Call(usize),
        Publish(usize),
        Learn(usize),
        Wait(u64),
    }

    fn step(replicas: usize) -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..replicas).prop_map(Step::Call),
            2 => (0..replicas).prop_map(Step::Publish),
            2 => (0..replicas).prop_map(Step::Learn),
            1 => (1..700_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// However replicas take turns, also half-way through an exchange: in no stretch of time do they let in more than
        /// the rate and one credit each.
        #[test]
        fn replicas_together_are_never_further_beyond_a_rate_than_a_credit_each(
            replicas in 1..5_usize,
            per_second in 1..20_u32,
            burst in 1..24_u32,
            schedule in prop::collection::vec(step(4), 1..300),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let bench = Bench::new();
                let all: Vec<SharedRates> = (0..replicas).map(|_| bench.replica(Sharing::Always)).collect();
                for replica in all.iter().chain(&all) {
                    replica.exchange().await;
                }
                let (rate, holder) = (Rate::new(per_second, burst), all[0].holder("principal", &["key:x"]));
                let mut published: Vec<Vec<(Holder, u64)>> = vec![Vec::new(); replicas];
                let mut admitted: Vec<i64> = Vec::new();
                for step in schedule {
                    match step {
                        Step::Call(n) => {
                            if take(&all[n % replicas], holder, rate).await.is_ok() {
                                admitted.push(bench.clock.now().as_nanos());
                            }
                        }
                        Step::Publish(n) => published[n % replicas] = all[n % replicas].publish().await.unwrap(),
                        Step::Learn(n) => {
                            let told = std::mem::take(&mut published[n % replicas]);
                            all[n % replicas].learn(&told).await.unwrap();
                        }
                        Step::Wait(milliseconds) => bench.clock.advance(Duration::from_millis(milliseconds)),
                    }
                }
                let credit = (burst / CREDIT).max(1) as usize * replicas;
                for (first, from) in admitted.iter().enumerate() {
                    for (last, until) in admitted.iter().enumerate().skip(first) {
                        let steady = (until - from) as f64 / 1e9 * f64::from(per_second);
                        let most = burst as usize + credit + steady.ceil() as usize;
                        prop_assert!(last - first < most + 1, "{} calls in {steady} steady ones, at most {most}", last - first + 1);
                    }
                }
                Ok(())
            })?;
        }
    }
}

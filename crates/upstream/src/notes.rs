//! How much is written down about one upstream by itself: definitions that are new or changed, while no person decides.
//! Guards that pins, disk, audit and log grow no faster than somebody could look at it, whatever the upstream says it has, and
//! that what it said before does not replace what it said later.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::definition::{Definition, Kind};

/// How long it takes until as much may be written again as at the beginning, and until what is left out is recorded again.
const WHILE: Duration = Duration::from_hours(1);

/// What may still be written about one upstream.
#[derive(Debug)]
pub(crate) struct Notes {
    /// Of each kind, at once and in a while.
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rooms: BTreeMap<Kind, (f64, Instant)>,
    left_out: u64,
    told: Option<Instant>,
    /// When it was recorded last that something is no definition that can be kept.
    told_unfit: Option<Instant>,
}

impl Notes {
    /// `most` of each kind at once, and as many again in an hour.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most of one kind.
    pub(crate) fn most(&self) -> usize {
        self.most as usize
    }

    /// Whether one more may be written.
    pub(crate) fn takes(&self, kind: Kind, now: Instant) -> bool {
        let most = f64::from(self.most);
        let mut state = self.state();
        let (room, since) = state.rooms.entry(kind).or_insert((most, now));
        let grown = now.duration_since(*since).as_secs_f64() / WHILE.as_secs_f64() * most;
        (*room, *since) = ((*room + grown).min(most), now);
        if *room < 1.0 {
            return false;
        }
        *room -= 1.0;
        true
    }

    /// Counts one that is left out.
    pub(crate) fn leaves_out(&self) {
        self.state().left_out += 1;
    }

    /// Whether it should be recorded that something is no definition that can be kept: the first time, and once in a while.
    pub(crate) fn tells_of_unfit(&self, now: Instant) -> bool {
        let mut state = self.state();
        let news = state.told_unfit.is_none_or(|told| now.duration_since(told) >= WHILE);
        if news {
            state.told_unfit = Some(now);
        }
        news
    }

    /// How many were left out since the last time, and whether that should be recorded: the first time, and once in a while.
    pub(crate) fn left_out(&self, now: Instant) -> (u64, bool) {
        let mut state = self.state();
        let count = std::mem::take(&mut state.left_out);
        let news = count > 0 && state.told.is_none_or(|told| now.duration_since(told) >= WHILE);
        if news {
            state.told = Some(now);
        }
        (count, news)
    }
}

/// When what was written down last about each name had been asked for. A list takes a while to be looked at, and a call may ask
/// again meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Order(BTreeMap<(Kind, String), Instant>);

impl Order {
    /// Whether something was written down already that the upstream was asked for later.
    pub(crate) fn is_overtaken(&self, definition: &Definition, asked: Instant) -> bool {
        self.0.get(&(definition.kind, definition.name.clone())).is_some_and(|latest| *latest > asked)
    }

    /// This is the latest now. Only of what was in use and of what [`Notes`] takes, so that there are no more of these than of
    /// those.
    pub(crate) fn note(&mut self, definition: &Definition, asked: Instant) {
        // No look lasts that long.
        self.0.retain(|_, latest| asked.saturating_duration_since(*latest) < WHILE);
        self.0.insert((definition.kind, definition.name.clone()), asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_before_does_not_replace_what_was_asked_for_later() {
        let (mut order, begun) = (Order::default(), Instant::now());
        let of = |name: &str| Definition::read(Kind::Tool, serde_json::json!({"name": name})).unwrap();
        let later = begun + Duration::from_secs(1);
        order.note(&of("a"), begun);
        assert!(!order.is_overtaken(&of("a"), begun), "of one list");
        assert!(!order.is_overtaken(&of("a"), later));
        order.note(&of("a"), later);
        assert!(order.is_overtaken(&of("a"), begun));
        assert!(!order.is_overtaken(&of("b"), begun), "another name");
        assert_eq!(order.0.len(), 1, "asking keeps nothing");
        order.note(&of("c"), later + WHILE * 2);
        assert_eq!(order.0.len(), 1, "and nothing is kept for good");
    }

    #[test]
    fn an_upstream_fills_no_disk_and_what_is_left_out_is_one_record() {
        let (notes, begun) = (Notes::new(100), Instant::now());
        let written = |at: Instant| (0..1_000).filter(|_| notes.takes(Kind::Tool, at)).count();
        assert_eq!(written(begun), 100);
        assert_eq!(written(begun + WHILE / 2), 50);
        assert_eq!(written(begun + WHILE * 10), 100, "never more than at once");
        assert!(notes.takes(Kind::Prompt, begun), "another kind");
        assert_eq!(notes.left_out(begun), (0, false));
        notes.leaves_out();
        notes.leaves_out();
        assert_eq!(notes.left_out(begun), (2, true));
        notes.leaves_out();
        assert_eq!(notes.left_out(begun + WHILE / 2), (1, false));
        notes.leaves_out();
        assert_eq!(notes.left_out(begun + WHILE), (1, true));
        assert!(notes.tells_of_unfit(begun) && !notes.tells_of_unfit(begun + WHILE / 2) && notes.tells_of_unfit(begun + WHILE));
    }
}

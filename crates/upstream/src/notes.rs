//! How much is written down about one upstream by itself: definitions that are new or changed, while no person decides.
//! Guards that pins, disk, audit and log grow no faster than somebody could look at it, whatever the upstream says it has.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::definition::Kind;

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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}

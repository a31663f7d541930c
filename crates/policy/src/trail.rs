//! What the work under a permit reached, for the record of the call. Guards that a call that failed, or was given up, still
//! says where it had been. Must not decide anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Most entries of each kind; the record of one call stays small.
const MOST: usize = 32;

/// Shared by a permit, everything narrowed from it, and whoever writes the record.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    reached: BTreeSet<Arc<str>>,
    notes: Vec<String>,
    left_out: usize,
}

impl Trail {
    /// Marks something the work reached, such as `plugin:datadog@sha256:…` or `host:https://api.example.com:443`. `false` when
    /// the record has no room for it; who must not go where no record follows asks before it goes.
    pub fn reached(&self, what: &str) -> bool {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.reached.contains(what) {
            return true;
        }
        let room = marks.reached.len() < MOST;
        if room {
            marks.reached.insert(Arc::from(what));
        } else {
            marks.left_out += 1;
        }
        room
    }

    /// Adds a few words for the operator. Never a secret.
    pub fn note(&self, words: impl Into<String>) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.notes.len() < MOST {
            marks.notes.push(words.into());
        } else {
            marks.left_out += 1;
        }
    }

    /// What was reached, in order.
    pub fn all_reached(&self) -> Vec<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reached.iter().cloned().collect()
    }

    /// The words, as one line; `None` when there are none.
    pub fn words(&self) -> Option<String> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = marks.notes.join("; ");
        if marks.left_out > 0 {
            let _ = write!(words, "; {} more marks left out", marks.left_out);
        }
        (!words.is_empty()).then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_is_kept_once_and_bounded() {
        let trail = Trail::default();
        let shared = trail.clone();
        assert_eq!((trail.all_reached(), trail.words()), (Vec::new(), None));
        for at in 0..100 {
            assert_eq!(shared.reached(&format!("host:{at:03}")), at < MOST);
            assert!(shared.reached("host:000"));
        }
        shared.note("one");
        assert_eq!(trail.all_reached().len(), MOST);
        assert_eq!(trail.words().unwrap(), "one; 68 more marks left out");
    }
}

//! What the work under a permit reached, and what it was kept from, for the record of the call. Guards that a call that
//! failed, or was given up, still says where it had been. Must not decide anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most entries of each kind; the record of one call stays small.
const MOST: usize = 32;
/// Most refusals that are told apart; further ones are counted.
const MOST_REFUSALS: usize = 8;
/// Longest name of something that was refused: it was chosen by whoever tried.
const REFUSAL_CHARS: usize = 80;

/// Shared by a permit, everything narrowed from it, and whoever writes the record.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    reached: BTreeMap<Arc<str>, Mark>,
    notes: Vec<String>,
    left_out: usize,
    refused: Vec<String>,
    more_refused: usize,
}

fn short(text: &str) -> String {
    let mut seen = text.chars().filter(|c| !c.is_control());
    let mut short: String = seen.by_ref().take(REFUSAL_CHARS).collect();
    if seen.next().is_some() {
        short.push('…');
    }
    short
}

/// How something came to be marked.
#[derive(Debug, Default)]
struct Mark {
    /// It was reached.
    certain: bool,
    /// How many are on their way to it.
    underway: usize,
}

/// A place in the record for something that is about to be reached. As long as it is held, and when it is dropped, it counts
/// as reached: whoever is stopped half-way may have been there.
#[derive(Debug)]
pub struct Approach {
    trail: Trail,
    what: Arc<str>,
    arrived: bool,
}

impl Approach {
    /// It is certain that it was not reached this time.
    pub fn not_reached(mut self) {
        self.arrived = false;
    }
}

impl Drop for Approach {
    fn drop(&mut self) {
        let mut marks = self.trail.marks();
        let Some(mark) = marks.reached.get_mut(&self.what) else { return };
        mark.underway = mark.underway.saturating_sub(1);
        mark.certain |= self.arrived;
        if !mark.certain && mark.underway == 0 {
            marks.reached.remove(&self.what);
        }
    }
}

impl Trail {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks something the work reached, such as `plugin:datadog@sha256:…` or `host:https://api.example.com:443`. `false` when
    /// the record has no room for it; who must not go where no record follows asks before it goes.
    pub fn reached(&self, what: &str) -> bool {
        self.approach(what).is_some()
    }

    /// Keeps a place in the record for something the work is about to reach; `None` when there is no room. Whoever finds
    /// out that it was not reached says so, see [`Approach::not_reached`].
    pub fn approach(&self, what: &str) -> Option<Approach> {
        let mut marks = self.marks();
        let what = match marks.reached.get_key_value(what) {
            Some((known, _)) => known.clone(),
            None if marks.reached.len() < MOST => Arc::from(what),
            None => {
                marks.left_out += 1;
                return None;
            }
        };
        marks.reached.entry(what.clone()).or_default().underway += 1;
        drop(marks);
        Some(Approach { trail: self.clone(), what, arrived: true })
    }

    /// Marks something the work tried to reach and was kept from, and why. Both may hold what others wrote; controls and
    /// what is too long go. `true` when that is news: it was not refused for this reason before.
    pub fn refused(&self, what: &str, why: &str) -> bool {
        let refusal = format!("{} ({})", short(what), short(why));
        let mut marks = self.marks();
        if marks.refused.contains(&refusal) {
            return false;
        }
        let room = marks.refused.len() < MOST_REFUSALS;
        if room {
            marks.refused.push(refusal);
        } else {
            marks.more_refused += 1;
        }
        room
    }

    /// Adds a few words for the operator. Never a secret.
    pub fn note(&self, words: impl Into<String>) {
        let mut marks = self.marks();
        if marks.notes.len() < MOST {
            marks.notes.push(words.into());
        } else {
            marks.left_out += 1;
        }
    }

    /// What was reached, in order.
    pub fn all_reached(&self) -> Vec<Arc<str>> {
        self.marks().reached.keys().cloned().collect()
    }

    /// The words, as one line; `None` when there are none.
    pub fn words(&self) -> Option<String> {
        let marks = self.marks();
        let mut words = marks.notes.clone();
        if marks.left_out > 0 {
            words.push(format!("{} more marks left out", marks.left_out));
        }
        if !marks.refused.is_empty() {
            let mut refused = format!("refused {}", marks.refused.join(", "));
            if marks.more_refused > 0 {
                let _ = write!(refused, " and {} more times", marks.more_refused);
            }
            words.push(refused);
        }
        (!words.is_empty()).then(|| words.join("; "))
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

    #[test]
    fn what_was_approached_counts_as_reached_unless_somebody_knows_better() {
        let trail = Trail::default();
        let reached = || trail.all_reached().iter().map(ToString::to_string).collect::<Vec<_>>();
        trail.approach("host:a").unwrap().not_reached();
        assert!(reached().is_empty());
        drop(trail.approach("host:a"));
        trail.approach("host:a").unwrap().not_reached();
        assert_eq!(reached(), ["host:a"], "that it was not reached again takes nothing back");
        // Two at once: the one that did not arrive does not take the place of the one that may.
        let (first, second) = (trail.approach("host:b").unwrap(), trail.approach("host:b").unwrap());
        first.not_reached();
        assert_eq!(reached(), ["host:a", "host:b"], "somebody is on the way");
        drop(second);
        assert_eq!(reached(), ["host:a", "host:b"]);
        // Who is given up half-way may have been there.
        let work = {
            let trail = trail.clone();
            async move {
                let _place = trail.approach("host:c");
                std::future::pending::<()>().await;
            }
        };
        let mut work = Box::pin(work);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(work.as_mut().poll(&mut context).is_pending());
        drop(work);
        assert_eq!(reached(), ["host:a", "host:b", "host:c"]);
        for at in 0..MOST {
            drop(trail.approach(&format!("host:{at}")));
        }
        assert!(trail.approach("host:one too many").is_none());
    }

    #[test]
    fn refusals_are_told_apart_bounded_and_behind_everything_else() {
        let trail = Trail::default();
        assert!(trail.refused("host:http://a:80", "undeclared") && !trail.refused("host:http://a:80", "undeclared"));
        trail.note("one");
        assert_eq!(trail.words().unwrap(), "one; refused host:http://a:80 (undeclared)");
        let news = (0..100).filter(|at| trail.refused(&format!("{at:x<4000}\u{1b}"), "long \nnames")).count();
        assert_eq!(news, MOST_REFUSALS - 1);
        let words = trail.words().unwrap();
        assert!(words.contains("…") && words.ends_with("(long names) and 93 more times") && words.len() < 1_500, "{words}");
        assert!(!words.contains(char::is_control), "{words}");
        for at in 0..100 {
            trail.note(format!("{at}"));
        }
        assert!(trail.words().unwrap().contains("69 more marks left out; refused "), "notes do not push refusals out");
    }
}

//! Looking at definitions beside the runtime: a large one takes the scanner a second, and no call of anybody waits for that.
//! Guards that few are looked at at once, and that one the scanner fails on has a finding, so that nothing lets it in unseen.
//! Must not hold a lock, nor keep the order of looks; see `watch`.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::definition::Definition;
use crate::scanner::{Finding, Neighbours, Scanner};

/// Definitions of all upstreams that are looked at at once.
const AT_ONCE: usize = 2;

/// Runs the scanner.
pub(crate) struct Examiner {
    scanner: Arc<Scanner>,
    places: Arc<Semaphore>,
}

impl Examiner {
    /// With a scanner of its own.
    ///
    /// # Errors
    /// As [`Scanner::new`].
    pub(crate) fn new() -> Result<Self, String> {
        Ok(Self { scanner: Arc::new(Scanner::new()?), places: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Everything a person should see about a definition among these neighbours; also that nobody could look.
    pub(crate) async fn look(&self, definition: &Arc<Definition>, neighbours: Neighbours) -> Vec<Finding> {
        let (scanner, definition) = (self.scanner.clone(), definition.clone());
        examined(&self.places, move || scanner.look(&definition, &neighbours)).await
    }
}

/// What `look` finds, on a thread that may be kept. It keeps its place until it ends, whether somebody still waits or not.
async fn examined(places: &Arc<Semaphore>, look: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    let Ok(place) = places.clone().acquire_owned().await else { return vec![unseen()] };
    let looked = tokio::task::spawn_blocking(move || {
        let _place = place;
        look()
    });
    looked.await.unwrap_or_else(|error| {
        tracing::error!(target: "portcullis::upstream", %error, "the scanner failed on a definition, which waits for a person");
        vec![unseen()]
    })
}

/// What a person is told of what nobody looked at.
fn unseen() -> Finding {
    Finding {
        what: "not-looked-at".to_owned(),
        place: String::new(),
        detail: "the scanner failed on this definition, so nothing of it was looked at: read all of it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_the_scanner_fails_on_has_a_finding_and_the_next_is_looked_at() {
        let places = Arc::new(Semaphore::new(1));
        for _ in 0..3 {
            let found = examined(&places, || panic!("a defect of the scanner")).await;
            assert_eq!(found.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>(), ["not-looked-at"]);
        }
        assert!(examined(&places, Vec::new).await.is_empty(), "its place was given back");
        places.close();
        assert_eq!(examined(&places, Vec::new).await, [unseen()], "where nobody can look, it is said");
    }

    #[tokio::test]
    async fn a_look_holds_up_nobody_and_keeps_its_place_until_it_ends() {
        let places = Arc::new(Semaphore::new(1));
        let (go_on, told) = channel::<()>();
        let held = places.clone();
        // On a runtime of one thread this would never end, were the look done there.
        let first = tokio::spawn(async move {
            let wait = move || {
                let _told = told.recv();
                Vec::new()
            };
            examined(&held, wait).await
        });
        while places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        // Whoever waited for it went away.
        first.abort();
        assert!(first.await.is_err());
        let second = examined(&places, Vec::new);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none(), "one at once");
        go_on.send(()).unwrap();
        assert!(second.await.is_empty());
    }
}

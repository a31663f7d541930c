//! The places of requests in the house: so many in all, and so many of one principal, so that nobody can take the places of
//! everybody with requests that are slow to arrive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::PrincipalId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Principals remembered before those without a request are forgotten.
const REMEMBERED: usize = 1_000;

/// A place; given back when dropped.
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The principal has so many requests in the house.
    Own(usize),
    /// Everybody together has too many.
    All,
}

/// The places.
pub(super) struct Places {
    all: Arc<Semaphore>,
    of: Mutex<HashMap<PrincipalId, Arc<Semaphore>>>,
    per_principal: usize,
}

impl Places {
    pub(super) fn new(in_all: usize, per_principal: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(in_all)), of: Mutex::default(), per_principal }
    }

    /// A place for a request of `principal`, at once or within `wait`. Its own share comes first: who has used that up must
    /// not wait with a place of everybody in hands.
    pub(super) async fn take(&self, principal: &PrincipalId, wait: Duration) -> Result<Place, NoPlace> {
        let own = self.own(principal);
        if let Ok(own) = own.clone().try_acquire_owned()
            && let Ok(all) = self.all.clone().try_acquire_owned()
        {
            return Ok(Place { _own: own, _all: all });
        }
        let waiting = async {
            let own = own.clone().acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place { _own: own, _all: all })
        };
        match tokio::time::timeout(wait, waiting).await {
            Ok(Some(place)) => Ok(place),
            _ if own.available_permits() == 0 => Err(NoPlace::Own(self.per_principal)),
            _ => Err(NoPlace::All),
        }
    }

    fn own(&self, principal: &PrincipalId) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = of.get(principal) {
            return own.clone();
        }
        if of.len() >= REMEMBERED {
            of.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = Arc::new(Semaphore::new(self.per_principal));
        of.insert(principal.clone(), own.clone());
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_principal_cannot_take_the_places_of_others() {
        let places = Places::new(4, 2);
        let (wait, a, b, c) = (Duration::from_secs(2), who("key:a"), who("key:b"), who("key:c"));
        let first = places.take(&a, wait).await;
        let _second = places.take(&a, wait).await.ok().unwrap();
        assert_eq!(places.take(&a, wait).await.err(), Some(NoPlace::Own(2)));
        let _of_b = [places.take(&b, wait).await.ok().unwrap(), places.take(&b, wait).await.ok().unwrap()];
        assert_eq!(places.take(&c, wait).await.err(), Some(NoPlace::All));
        drop(first);
        assert!(places.take(&c, wait).await.is_ok());
    }

    #[tokio::test]
    async fn principals_without_a_request_are_forgotten() {
        let places = Places::new(10, 2);
        let held = places.take(&who("key:held"), Duration::ZERO).await;
        for index in 0..2 * REMEMBERED {
            places.take(&who(&format!("key:{index}")), Duration::ZERO).await.ok().unwrap();
        }
        let of = places.of.lock().unwrap();
        assert!(of.len() <= REMEMBERED && of.contains_key(&who("key:held")), "{}", of.len());
        drop(held);
    }
}

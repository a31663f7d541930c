//! Which tool names are taken by whom, so that a new one that shadows or imitates another is noticed. Must not hold more than
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::scanner::Neighbours;

/// The names of the house and of every upstream.
#[derive(Debug, Default)]
pub(crate) struct Neighbourhood(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    house: BTreeSet<String>,
    /// By group and server.
    upstreams: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Neighbourhood {
    /// The accepted tools of one server.
    pub(crate) fn tell(&self, group: &str, server: &str, names: BTreeSet<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.upstreams.insert((group.to_owned(), server.to_owned()), names);
    }

    /// The names the house has taken before its upstreams offered theirs.
    pub(crate) fn tell_house(&self, names: &BTreeSet<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_upstreams: BTreeSet<&String> = all.upstreams.values().flatten().collect();
        all.house = names.iter().filter(|name| !of_upstreams.contains(name)).cloned().collect();
    }

    /// Everything that is not of `group`, with whose it is.
    pub(crate) fn of_others(&self, group: &str) -> Neighbours {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let house = all.house.iter().map(|name| ("this house".to_owned(), name.clone()));
        let others = all.upstreams.iter().filter(|((of, _), _)| of != group);
        let others =
            others.flat_map(|((_, server), names)| names.iter().map(move |name| (format!("upstream '{server}'"), name.clone())));
        house.chain(others).collect()
    }
}

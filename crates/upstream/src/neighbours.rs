//! Which names are taken by whom, so that a new one that shadows or imitates another is noticed, and that a name which was
//! written about somewhere never comes to mean something else. Must not hold more than names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use portcullis_model::Timestamp;

use crate::definition::Kind;
use crate::scanner::Neighbours;

/// The names of the house and of every upstream.
#[derive(Debug, Default)]
pub(crate) struct Neighbourhood(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    house: BTreeSet<String>,
    /// By group and server.
    upstreams: BTreeMap<(String, String), BTreeSet<String>>,
    /// The same, of everything that was ever accepted.
    claims: BTreeMap<(String, String), Vec<Claim>>,
}

/// A name something may be offered under, since it was accepted first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) since: Timestamp,
}

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) group: String,
    pub(crate) server: String,
}

impl Neighbourhood {
    /// The accepted tools of one server.
    pub(crate) fn tell(&self, group: &str, server: &str, names: BTreeSet<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.upstreams.insert((group.to_owned(), server.to_owned()), names);
    }

    /// What one server was ever accepted with.
    pub(crate) fn claim(&self, group: &str, server: &str, claims: Vec<Claim>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.claims.insert((group.to_owned(), server.to_owned()), claims);
    }

    /// Whose each name is, in use or not: of the group and server it was accepted for first.
    pub(crate) fn owners(&self, kind: Kind) -> BTreeMap<String, Owner> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first: BTreeMap<&String, (Timestamp, &(String, String))> = BTreeMap::new();
        for (owner, claims) in &all.claims {
            for claim in claims.iter().filter(|claim| claim.kind == kind) {
                let place = first.entry(&claim.name).or_insert((claim.since, owner));
                if claim.since < place.0 {
                    *place = (claim.since, owner);
                }
            }
        }
        let owner = |(group, server): &(String, String)| Owner { group: group.clone(), server: server.clone() };
        first.into_iter().map(|(name, (_, of))| (name.clone(), owner(of))).collect()
    }

    /// The names the house has taken before its upstreams offered theirs.
    pub(crate) fn tell_house(&self, names: &BTreeSet<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claimed = all.claims.values().flatten().filter(|claim| claim.kind == Kind::Tool).map(|claim| &claim.name);
        let of_upstreams: BTreeSet<&String> = all.upstreams.values().flatten().chain(claimed).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_whose_it_was_first_in_whatever_order_they_are_told() {
        let claim = |name: &str, at| Claim { kind: Kind::Tool, name: name.to_owned(), since: Timestamp::from_nanos(at) };
        let names = Neighbourhood::default();
        names.claim("b", "b", vec![claim("search", 1), claim("b_search", 1)]);
        names.claim("a", "a", vec![claim("search", 2), claim("a_search", 2)]);
        let owners = names.owners(Kind::Tool);
        assert_eq!(owners["search"], Owner { group: "b".into(), server: "b".into() });
        assert_eq!((owners["a_search"].group.as_str(), owners["b_search"].group.as_str()), ("a", "b"));
        assert!(names.owners(Kind::Prompt).is_empty());
        // Another server of the same kind does not take it away.
        names.claim("b", "b2", vec![claim("search", 3)]);
        assert_eq!(names.owners(Kind::Tool)["search"].server, "b");
    }
}

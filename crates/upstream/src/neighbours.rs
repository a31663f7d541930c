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
    /// Every name in the house, with whose it is.
    house: BTreeMap<String, String>,
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

    /// Since when `server` has `name`, and what every other one was ever accepted with of that kind, with whose it is.
    pub(crate) fn claims_around(&self, kind: Kind, server: &str, name: &str) -> (Option<Timestamp>, Vec<(String, Claim)>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = None;
        let mut others = Vec::new();
        for ((_, of), claims) in &all.claims {
            for claim in claims.iter().filter(|claim| claim.kind == kind) {
                if of != server {
                    others.push((of.clone(), claim.clone()));
                } else if claim.name == name {
                    own = Some(claim.since);
                }
            }
        }
        (own, others)
    }

    /// Every name of a tool in the house, with whose it is.
    pub(crate) fn learn(&self, names: &BTreeMap<String, String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).house.clone_from(names);
    }

    /// Everything that is not of `group`, with whose it is.
    pub(crate) fn of_others(&self, group: &str) -> Neighbours {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own: BTreeSet<String> = std::iter::once(group)
            .chain(all.claims.keys().chain(all.upstreams.keys()).filter(|(of, _)| of == group).map(|(_, server)| server.as_str()))
            .map(owner_of)
            .collect();
        let others = || all.upstreams.iter().filter(|((of, _), _)| of != group);
        let known = |name: &String| others().any(|(_, names)| names.contains(name));
        // What another upstream has is said once, with the name of that one.
        let said = |name: &String, owner: &String| own.contains(owner) || (owner.starts_with(&owner_of("")) && known(name));
        let house = all.house.iter().filter(|(name, owner)| !said(name, owner));
        let house = house.map(|(name, owner)| (owner.clone(), name.clone()));
        let others = others().flat_map(|((_, server), names)| names.iter().map(move |name| (owner_of(server), name.clone())));
        house.chain(others).collect()
    }
}

/// How the book of names calls an upstream, or a kind of them.
pub(crate) fn owner_of(name: &str) -> String {
    format!("upstream {name}")
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
        assert!(names.owners(Kind::Resource).is_empty());
        let (own, others) = names.claims_around(Kind::Tool, "a", "search");
        assert_eq!((own, others.len()), (Some(Timestamp::from_nanos(2)), 2), "{others:?}");
        assert!(others.iter().all(|(of, _)| of == "b") && names.claims_around(Kind::Tool, "a", "x").0.is_none());
        // Another server of the same kind does not take it away.
        names.claim("b", "b2", vec![claim("search", 3)]);
        assert_eq!(names.owners(Kind::Tool)["search"].server, "b");
    }

    #[test]
    fn a_scanner_hears_of_every_name_but_those_of_the_same_group() {
        let names = Neighbourhood::default();
        names.tell("grafana", "eu", BTreeSet::from(["search".to_owned()]));
        names.tell("up", "up", BTreeSet::from(["look".to_owned()]));
        let all = [
            ("query_logs", "this house"),
            ("shop_get_order", "api shop"),
            ("datadog_monitors", "plugin datadog"),
            ("search", "upstream grafana"),
            ("eu_search", "upstream eu"),
            ("look", "upstream up"),
        ];
        names.learn(&all.map(|(name, owner)| (name.to_owned(), owner.to_owned())).into());
        let heard = |group: &str| names.of_others(group).into_iter().map(|(_, name)| name).collect::<BTreeSet<_>>();
        let common = ["query_logs", "shop_get_order", "datadog_monitors"];
        let with = |more: &[&str]| common.iter().chain(more).map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(heard("grafana"), with(&["look"]));
        assert_eq!(heard("up"), with(&["search", "eu_search"]));
        assert!(names.of_others("up").contains(&("plugin datadog".to_owned(), "datadog_monitors".to_owned())));
        let up = names.of_others("up");
        let owners: Vec<_> = up.iter().filter(|(_, name)| name.ends_with("search")).map(|(owner, _)| owner.as_str()).collect();
        assert_eq!(owners, ["upstream eu"; 2], "whoever has a name is called the same way wherever it is known from");
    }
}

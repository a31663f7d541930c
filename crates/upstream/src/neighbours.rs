//! Which names are taken by whom, so that a new one that shadows or imitates another is noticed, and that a name which was
//! written about somewhere never comes to mean something else. Must not hold more than names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_model::Timestamp;
use portcullis_ports::{Held, Prefixes};

use crate::definition::Kind;
use crate::pins::PinBook;
use crate::scanner::Neighbours;
use crate::whose::Whose;

/// The names of the house and of every upstream.
#[derive(Debug, Default)]
pub struct Neighbourhood(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    /// Every name in the house, with whose it is.
    house: BTreeMap<String, String>,
    /// Who goes by which word before names.
    prefixes: Prefixes,
    /// By group and server.
    upstreams: BTreeMap<(String, String), BTreeSet<String>>,
    /// The same, of everything that was ever accepted.
    claims: BTreeMap<(String, String), Vec<Claim>>,
    /// What the book of names says.
    held: Arc<Held>,
    /// Whose addresses are around each server, as long as nothing changes.
    whose: BTreeMap<String, Arc<Whose>>,
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
    /// The tools of one server, also those that wait for a person.
    pub fn tell(&self, group: &str, server: &str, names: BTreeSet<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.upstreams.insert((group.to_owned(), server.to_owned()), names);
    }

    /// What one server was ever accepted with.
    pub(crate) fn claim(&self, group: &str, server: &str, claims: Vec<Claim>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (group.to_owned(), server.to_owned());
        if all.claims.get(&key) != Some(&claims) {
            all.claims.insert(key, claims);
            all.whose.clear();
        }
    }

    /// The addresses one server was ever accepted with, for whoever has its pins alone.
    pub fn tell_addresses(&self, group: &str, server: &str, pins: &PinBook) {
        let of = |kind| pins.ever_accepted(kind).into_iter().map(move |(name, since)| Claim { kind, name, since });
        self.claim(group, server, [Kind::Resource, Kind::Template].into_iter().flat_map(of).collect());
    }

    /// What the book of names says.
    pub fn hold(&self, held: &Arc<Held>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.held.addresses != held.addresses {
            all.held.clone_from(held);
            all.whose.clear();
        }
    }

    /// Whose addresses are, as one server may know.
    pub(crate) fn whose(&self, server: &str) -> Arc<Whose> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.whose.get(server) {
            return known.clone();
        }
        let whose = Arc::new(Whose::new(server, &all.claims, &all.held));
        all.whose.insert(server.to_owned(), whose.clone());
        whose
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

    /// Servers whose claims are known: those of the configuration.
    pub(crate) fn servers(&self) -> BTreeSet<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.claims.keys().map(|(_, server)| server.clone()).collect()
    }

    /// Every name of a tool in the house, with whose it is, and who goes by which prefix.
    pub fn learn(&self, names: &BTreeMap<String, String>, prefixes: &Prefixes) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.house.clone_from(names);
        all.prefixes.clone_from(prefixes);
    }

    /// Everything that is not of `group`, with whose it is, and the prefixes of all but that group and `server` in it.
    pub fn of_others(&self, group: &str, server: &str) -> Neighbours {
        let whose = self.whose(server);
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
        let called = BTreeSet::from([group, server].map(owner_of));
        Neighbours::new(house.chain(others).collect(), &all.prefixes, &called).with_addresses(whose)
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
        names.learn(&all.map(|(name, owner)| (name.to_owned(), owner.to_owned())).into(), &Prefixes::default());
        let heard = |group: &str| {
            let others = names.of_others(group, if group == "grafana" { "eu" } else { group });
            others.names().map(|(_, name)| name.to_owned()).collect::<BTreeSet<_>>()
        };
        let common = ["query_logs", "shop_get_order", "datadog_monitors"];
        let with = |more: &[&str]| common.iter().chain(more).map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(heard("grafana"), with(&["look"]));
        assert_eq!(heard("up"), with(&["search", "eu_search"]));
        let up = names.of_others("up", "up");
        assert!(up.names().any(|one| one == ("plugin datadog", "datadog_monitors")));
        let owners: Vec<_> = up.names().filter(|(_, name)| name.ends_with("search")).map(|(owner, _)| owner).collect();
        assert_eq!(owners, ["upstream eu"; 2], "whoever has a name is called the same way wherever it is known from");
    }
}

//! Whose the addresses of resources are, as one upstream may know: by the book, where it says so, else by what was accepted
//! first. Guards that an address that was ever somebody's comes to nobody else, also when that one is gone; only an operator
//! hands it over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_ports::{Denied, Keeper, LONGEST_NAME, NameKind, Taken};
use regex::Regex;

use crate::addresses::{is_plain, usual, with_usual_scheme};
use crate::definition::Kind;
use crate::neighbours::{Claim, Owner, owner_of};
use crate::offer::is_of_the_house;
use crate::server::Server;
use crate::templates::{overlap, pattern_of};
use crate::watch::shown;
use crate::whose::Whose;

/// Most addresses and templates of one upstream that are in the book.
const MOST: usize = 4_096;

/// Whether it can be kept whose an address or a template is.
pub(crate) fn fits_the_book(address: &str) -> bool {
    address.len() <= LONGEST_NAME && is_plain(address)
}

/// What is known of addresses where one upstream makes its offer.
pub(crate) struct Claims<'o> {
    server: &'o Server,
    /// How the book calls it.
    own: String,
    taken: &'o Taken,
    /// Of the upstreams that are configured, who had a template first.
    templates: BTreeMap<String, Owner>,
    /// Whose fixed addresses are.
    whose: Arc<Whose>,
}

impl<'o> Claims<'o> {
    pub(crate) fn of(server: &'o Server, taken: &'o Taken) -> Self {
        Self {
            server,
            own: owner_of(&server.name),
            taken,
            templates: server.neighbourhood.owners(Kind::Template),
            whose: server.neighbourhood.whose(&server.name),
        }
    }

    /// Whose a fixed address is, where it is somebody else's.
    pub(crate) fn keeper_of(&self, address: &str) -> Option<Keeper> {
        self.whose.anothers(address).map(|(keeper, _)| keeper)
    }

    /// Whether an address or a template is somebody else's.
    pub(crate) fn is_anothers(&self, kind: Kind, address: &str) -> bool {
        if kind == Kind::Resource {
            return self.keeper_of(address).is_some();
        }
        if let Some(owner) = self.taken.held.of(NameKind::Address, address).and_then(|holding| holding.owner.as_deref()) {
            return owner != self.own;
        }
        self.templates.get(address).is_some_and(|owner| *owner.server != *self.server.name)
    }

    /// What was ever accepted of it and is its own, in use or not: what was accepted first, up to as much as is kept. What is
    /// `in_use` already is not.
    pub(crate) fn kept(&self, in_use: &BTreeSet<String>) -> BTreeMap<String, Keeper> {
        let ever = |kind| self.server.pins.get().map(|pins| pins.ever_accepted(kind)).unwrap_or_default();
        let all = [Kind::Resource, Kind::Template].into_iter().flat_map(|kind| {
            let own = ever(kind).into_iter().filter(move |(address, _)| !is_of_the_house(address) && !in_use.contains(address));
            own.filter(move |(address, _)| fits_the_book(address) && !self.is_anothers(kind, address))
        });
        let mut all: Vec<_> = all.map(|(address, since)| (since, address)).collect();
        all.sort();
        all.truncate(MOST);
        all.into_iter().map(|(since, address)| (address, Keeper { owner: self.own.clone(), since })).collect()
    }

    /// What is kept for others of what was `denied` to it, so that it is on the record whose it is.
    pub(crate) fn kept_for_others(denied: &BTreeMap<String, Option<Keeper>>) -> BTreeMap<String, Keeper> {
        let kept = denied.iter().filter_map(|(address, keeper)| Some((address.clone(), keeper.clone()?)));
        kept.take(MOST).collect()
    }

    /// That it goes without an address.
    pub(crate) fn denied(&self, address: &str) -> Denied {
        let (owner, wanted) = (self.own.clone(), address.to_owned());
        Denied { kind: NameKind::Address, owner, wanted, given: None, why: None }
    }

    /// Addresses in the book that are of others, in their usual spelling.
    pub(crate) fn of_others(&self) -> BTreeSet<String> {
        let is_anothers = |owner: Option<&str>| owner.is_some_and(|owner| owner != self.own);
        let all = self.taken.held.addresses.iter();
        all.filter(|(_, holding)| is_anothers(holding.owner.as_deref())).map(|(address, _)| usual(address)).collect()
    }

    /// Templates in the book of upstreams that are no longer configured, with whose they are.
    fn of_the_gone(&self) -> impl Iterator<Item = (String, Claim)> {
        let there: BTreeSet<String> = self.server.neighbourhood.servers().iter().map(|server| owner_of(server)).collect();
        self.taken.held.addresses.iter().filter_map(move |(address, holding)| {
            let owner = holding.owner.as_deref().filter(|owner| !there.contains(*owner) && address.contains('{'))?;
            let claim = Claim { kind: Kind::Template, name: address.clone(), since: holding.since };
            Some((owner.strip_prefix(&owner_of("")).unwrap_or(owner).to_owned(), claim))
        })
    }

    /// Patterns of the templates of others that were accepted before `template` and have addresses in common with it, whatever
    /// the spelling of their schemes: they are of the usual one. `left_out` gets each in words.
    pub(crate) fn before(&self, template: &str, left_out: &mut Vec<String>) -> Vec<Regex> {
        let name = &*self.server.name;
        let (own, others) = self.server.neighbourhood.claims_around(Kind::Template, name, template);
        let handed_over = |owner: &str, claim: &Claim| {
            let holder = self.taken.held.of(NameKind::Address, &claim.name).and_then(|holding| holding.owner.as_deref());
            holder.is_some_and(|holder| holder != owner_of(owner))
        };
        let there = others.into_iter().filter(|(owner, claim)| !handed_over(owner, claim));
        let mut before = Vec::new();
        for (owner, claim) in there.chain(self.of_the_gone()) {
            let first = own.is_none_or(|own| (claim.since, &*owner) < (own, name));
            let earlier = with_usual_scheme(&claim.name);
            let in_common = first && overlap(&earlier, &with_usual_scheme(template));
            let Some(pattern) = pattern_of(&earlier).filter(|_| in_common) else { continue };
            left_out.push(format!(
                "resource template '{}' of '{name}' has addresses in common with '{}' of '{owner}', which was accepted first: \
                 those are read from '{owner}'",
                shown(template),
                shown(&claim.name),
            ));
            before.push(pattern);
        }
        before
    }
}

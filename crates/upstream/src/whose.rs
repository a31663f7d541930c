//! Whose the fixed address of a resource is: by the book, else of whoever had it first, in whatever spelling, else of whoever
//! has a template it fits that was accepted before it. Guards that a fixed address takes over nothing that a template of
//! somebody else had already. Must not know what is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use portcullis_model::Timestamp;
use portcullis_ports::{Held, Keeper, NameKind};
use regex::Regex;

use crate::addresses::{usual, with_usual_scheme};
use crate::definition::Kind;
use crate::neighbours::{Claim, owner_of};
use crate::offer::is_of_the_house;
use crate::templates::pattern_of;

/// A template, and since when it is whose.
#[derive(Debug)]
struct Family {
    template: String,
    keeper: Keeper,
    pattern: OnceLock<Option<Regex>>,
}

impl Family {
    /// Whether an address in its usual spelling belongs to it.
    fn fits(&self, address: &str) -> bool {
        let head = self.template.split('{').next().unwrap_or_default();
        let pattern = || self.pattern.get_or_init(|| pattern_of(&self.template)).as_ref();
        address.starts_with(head) && pattern().is_some_and(|pattern| pattern.is_match(address))
    }
}

/// Addresses and templates around one upstream.
#[derive(Debug, Default)]
pub(crate) struct Whose {
    /// How the book calls it.
    own: String,
    /// How the book calls those of its group.
    group: BTreeSet<String>,
    held: Arc<Held>,
    /// Since when it has which fixed address.
    since: BTreeMap<String, Timestamp>,
    /// Fixed addresses of others in their usual spelling, with who had each first.
    fixed: BTreeMap<String, Keeper>,
    /// Templates of everybody, the oldest first.
    families: Vec<Family>,
}

/// Whether one came before another.
fn is_before(one: &Keeper, other: &Keeper) -> bool {
    (one.since, one.owner.as_str()) < (other.since, other.owner.as_str())
}

impl Whose {
    /// Around `server`, of what each was ever accepted with, by group and server, and of what the book says.
    pub(crate) fn new(server: &str, claims: &BTreeMap<(String, String), Vec<Claim>>, held: &Arc<Held>) -> Self {
        let own = owner_of(server);
        let groups: BTreeSet<&String> = claims.keys().filter(|(_, of)| of == server).map(|(group, _)| group).collect();
        let of_group = claims.keys().filter(|(group, _)| groups.contains(group));
        let group = of_group.flat_map(|(group, of)| [owner_of(group), owner_of(of)]).chain([own.clone()]).collect();
        let mut this = Self { own, group, held: held.clone(), ..Self::default() };
        for ((_, of), claims) in claims {
            let owner = owner_of(of);
            for claim in claims.iter().filter(|claim| matches!(claim.kind, Kind::Resource | Kind::Template)) {
                let holder = held.of(NameKind::Address, &claim.name).and_then(|holding| holding.owner.as_deref());
                if claim.kind == Kind::Resource && of == server {
                    this.since.insert(claim.name.clone(), claim.since);
                }
                // What an operator handed over is no longer whose it was.
                if holder.is_none_or(|holder| holder == owner) {
                    let keeper = Keeper { owner: owner.clone(), since: claim.since };
                    this.note(&claim.name, claim.kind == Kind::Template, keeper);
                }
            }
        }
        for (address, holding) in &held.addresses {
            if let Some(owner) = holding.owner.as_deref() {
                this.note(address, address.contains('{'), Keeper { owner: owner.to_owned(), since: holding.since });
            }
        }
        this.families.sort_by(|one, other| (one.keeper.since, &one.keeper.owner).cmp(&(other.keeper.since, &other.keeper.owner)));
        this
    }

    fn note(&mut self, address: &str, is_template: bool, keeper: Keeper) {
        if is_of_the_house(address) {
            return;
        }
        if is_template {
            self.families.push(Family { template: with_usual_scheme(address), keeper, pattern: OnceLock::new() });
        } else if keeper.owner != self.own {
            let first = self.fixed.entry(usual(address)).or_insert_with(|| keeper.clone());
            if is_before(&keeper, first) {
                *first = keeper;
            }
        }
    }

    /// The oldest template that an address in its usual spelling fits.
    fn family(&self, usual: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.fits(usual))
    }

    /// Whose a fixed address is, where it is somebody else's, and by which template, where it is by one.
    pub(crate) fn anothers(&self, address: &str) -> Option<(Keeper, Option<String>)> {
        if is_of_the_house(address) {
            return None;
        }
        let holding = self.held.of(NameKind::Address, address);
        if let Some((owner, since)) = holding.and_then(|holding| Some((holding.owner.as_deref()?, holding.since))) {
            return (owner != self.own).then(|| (Keeper { owner: owner.to_owned(), since }, None));
        }
        let own = self.since.get(address).map(|since| Keeper { owner: self.own.clone(), since: *since });
        let came_before = |keeper: &Keeper| own.as_ref().is_none_or(|own| is_before(keeper, own));
        let usual = usual(address);
        if let Some(keeper) = self.fixed.get(&usual).filter(|keeper| came_before(keeper)) {
            return Some((keeper.clone(), None));
        }
        let family = self.family(&usual).filter(|family| family.keeper.owner != self.own && came_before(&family.keeper))?;
        Some((family.keeper.clone(), Some(family.template.clone())))
    }

    /// The same, where it is of nobody in its group.
    pub(crate) fn strangers(&self, address: &str) -> Option<(Keeper, Option<String>)> {
        self.anothers(address).filter(|(keeper, _)| !self.group.contains(&keeper.owner))
    }

    /// Whether an address may not stand in an answer: it is a fixed one of somebody else, and belongs to no older template of
    /// this group.
    pub(crate) fn withholds(&self, address: &str) -> bool {
        let holder = self.held.of(NameKind::Address, address).and_then(|holding| holding.owner.as_deref());
        if holder.is_some_and(|holder| self.group.contains(holder)) {
            return false;
        }
        let usual = usual(address);
        let Some(keeper) = self.fixed.get(&usual).filter(|keeper| !self.group.contains(&keeper.owner)) else { return false };
        let own = self.family(&usual).filter(|family| self.group.contains(&family.keeper.owner));
        own.is_none_or(|family| !is_before(&family.keeper, keeper))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_ports::Holding;

    use super::*;

    fn claim(kind: Kind, name: &str, since: i64) -> Claim {
        Claim { kind, name: name.to_owned(), since: Timestamp::from_nanos(since) }
    }

    fn around(server: &str, claims: &[(&str, Claim)], book: &[(&str, &str, i64)]) -> Whose {
        let mut all: BTreeMap<(String, String), Vec<Claim>> = BTreeMap::new();
        for (of, claim) in claims {
            all.entry(((*of).to_owned(), (*of).to_owned())).or_default().push(claim.clone());
        }
        let holding = |(address, owner, since): &(&str, &str, i64)| {
            let since = Timestamp::from_nanos(*since);
            ((*address).to_owned(), Holding { owner: Some(Arc::from(*owner)), used: true, apart: false, since })
        };
        let held = Held { addresses: book.iter().map(holding).collect(), ..Held::default() };
        Whose::new(server, &all, &Arc::new(held))
    }

    fn owner(whose: &Whose, address: &str) -> Option<String> {
        whose.anothers(address).map(|(keeper, _)| keeper.owner)
    }

    #[test]
    fn a_fixed_address_that_fits_an_older_template_is_that_ones_and_an_older_one_is_not() {
        let claims = [
            ("other", claim(Kind::Template, "doc://{id}", 5)),
            ("evil", claim(Kind::Resource, "doc://1", 7)),
            ("evil", claim(Kind::Resource, "doc://old", 3)),
        ];
        let evil = around("evil", &claims, &[]);
        let of_other = Some("upstream other".to_owned());
        for taken in ["doc://1", "doc://new", "DOC://%31", "doc://new/", "doc://new#part"] {
            assert_eq!(owner(&evil, taken), of_other, "{taken}");
        }
        for free in ["doc://old", "doc://a/b", "memo://1"] {
            assert_eq!(owner(&evil, free), None, "{free}");
        }
        // Also when its owner left, and not when the operator handed the address over.
        let left = around("evil", &claims[1..], &[("doc://{id}", "upstream other", 5)]);
        assert_eq!(owner(&left, "doc://1"), of_other);
        let handed_over = around("evil", &claims, &[("doc://1", "upstream evil", 9)]);
        assert_eq!(owner(&handed_over, "doc://1"), None);
        // What fits a still older template of its own is its own.
        let mut with_own = claims.to_vec();
        with_own.push(("evil", claim(Kind::Template, "doc://{+path}", 1)));
        assert_eq!(owner(&around("evil", &with_own, &[]), "doc://1"), None);
    }

    #[test]
    fn another_spelling_of_a_fixed_address_is_the_same_address() {
        let claims = [("other", claim(Kind::Resource, "note://x", 5)), ("evil", claim(Kind::Resource, "note://x/", 7))];
        let evil = around("evil", &claims, &[]);
        for taken in ["note://x", "NOTE://x", "note://%78", "note://x/", "note://x#a", "\u{ff4e}ote://x"] {
            assert_eq!(owner(&evil, taken).as_deref(), Some("upstream other"), "{taken}");
        }
        assert_eq!(owner(&evil, "note://X"), None, "only the scheme has no case");
        assert_eq!(owner(&around("other", &claims, &[]), "note://x"), None, "it was first");
    }

    #[test]
    fn an_answer_holds_no_address_of_others_and_every_one_of_an_own_older_template() {
        let claims = [
            ("other", claim(Kind::Template, "doc://{id}", 5)),
            ("evil", claim(Kind::Resource, "doc://1", 7)),
            ("evil", claim(Kind::Resource, "doc://old", 3)),
        ];
        let book = [("memo://x", "upstream gone", 1), ("doc://2", "upstream other", 5)];
        let other = around("other", &claims, &book);
        assert!(other.withholds("doc://old") && other.withholds("MEMO://x"), "whose they were before, also when that one left");
        for own in ["doc://1", "doc://2", "doc://3", "memo://y"] {
            assert!(!other.withholds(own), "{own}");
        }
        assert!(around("evil", &claims, &book).withholds("doc://2"));
    }

    #[test]
    fn what_was_handed_over_is_its_heirs_to_give_while_its_first_owner_stays() {
        let claims = [
            ("first", claim(Kind::Resource, "note://x", 5)),
            ("first", claim(Kind::Resource, "note://y", 5)),
            ("heir", claim(Kind::Resource, "note://x", 7)),
        ];
        let book = [("note://x", "upstream heir", 9), ("note://y", "upstream first", 5)];
        let (first, heir) = (around("first", &claims, &book), around("heir", &claims, &book));
        for spelling in ["note://x", "NOTE://x/", "note://%78"] {
            assert!(first.withholds(spelling) && !heir.withholds(spelling), "{spelling}");
        }
        assert!(!first.withholds("note://y") && heir.withholds("note://y"), "nothing else is handed over with it");
        assert_eq!((owner(&first, "note://x").as_deref(), owner(&heir, "note://x")), (Some("upstream heir"), None));
    }
}

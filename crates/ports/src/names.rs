//! Whose a name is. Rules, keys, approvals and habits are written about names, so a name stays with whom it was first given
//! to, whoever else would like it and in whatever order they come.
//!
//! Guards that one place answers that question, the same for every extension. Must not know who the owners are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::Timestamp;

/// The owner of what the house has itself.
pub const THIS_HOUSE: &str = "this house";

/// Longest name, address or template that is kept for whose it is, in bytes. What is longer is not offered.
pub const LONGEST_NAME: usize = 512;

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource with a fixed address, or a family of them: its address, or its template.
    Address,
}

impl NameKind {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Address => "address",
        }
    }
}

/// Since when an address is whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// Whose it is, such as `upstream notes`.
    pub owner: String,
    /// Since when: what was there first decides which of two templates an address belongs to.
    pub since: Timestamp,
}

/// Words that stand before names where those would be somebody else's, as in `grafana_search`, and who goes by them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes(BTreeMap<String, BTreeSet<String>>);

impl Prefixes {
    /// Of these, each called like `upstream grafana`.
    pub fn of(owners: impl IntoIterator<Item = String>) -> Self {
        let mut words: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for owner in owners {
            let Some(word) = owner.split_once(' ').map(|(_, word)| word.to_owned()) else { continue };
            words.entry(word).or_default().insert(owner);
        }
        Self(words)
    }

    /// Whose a name is by what stands before it, where that is none of `own`. The longest of such words decides.
    pub fn anothers(&self, name: &str, own: &[&str]) -> Option<&str> {
        let of = name.match_indices('_').rev().find_map(|(at, _)| self.0.get(&name[..at]))?;
        let is_own = of.iter().any(|owner| own.contains(&owner.as_str()));
        if is_own { None } else { of.first().map(String::as_str) }
    }

    /// Each word, with everybody who goes by it.
    pub fn words(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(word, owners)| owners.iter().map(|owner| (word.as_str(), owner.as_str())))
    }
}

/// Names of tools and prompts, and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Of tools.
    pub tools: BTreeSet<String>,
    /// Of prompts.
    pub prompts: BTreeSet<String>,
    /// Of resources with fixed addresses, and of families their templates, with whose they are.
    pub addresses: BTreeMap<String, Keeper>,
}

/// What the book of names says about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Whose it is, such as `plugin datadog`. `None` since an operator released it.
    pub owner: Option<Arc<str>>,
    /// Whether something was ever offered under it; otherwise it is only kept.
    pub used: bool,
    /// Whether an operator let several servers of a kind offer one by one what they offered together under it.
    pub apart: bool,
    /// Since when it is whose it is.
    pub since: Timestamp,
}

/// The book of names, as an extension sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Of tools.
    pub tools: BTreeMap<String, Holding>,
    /// Of prompts.
    pub prompts: BTreeMap<String, Holding>,
    /// Of resources: addresses and templates.
    pub addresses: BTreeMap<String, Holding>,
}

impl Held {
    /// What it says about one name.
    pub fn of(&self, kind: NameKind, name: &str) -> Option<&Holding> {
        match kind {
            NameKind::Tool => self.tools.get(name),
            NameKind::Prompt => self.prompts.get(name),
            NameKind::Address => self.addresses.get(name),
        }
    }
}

/// Names that are taken already when an extension makes its offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of tools: those of the house and of whoever made its offer before.
    pub tools: BTreeSet<String>,
    /// Of prompts.
    pub prompts: BTreeSet<String>,
    /// Of resources with fixed addresses, and of families their templates.
    pub addresses: BTreeSet<String>,
    /// Whose every name is that was ever given, in use or not.
    pub held: Arc<Held>,
    /// Who goes by which word before names. A name that begins with somebody else's is that one's, given or not.
    pub prefixes: Prefixes,
}

/// How somebody stands to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// It is theirs, whether in use or kept.
    Own,
    /// Nobody ever had it.
    Free,
    /// An operator took it from whoever had it: it is for whom offers something under it first.
    Released,
    /// It is somebody else's.
    Anothers,
}

impl Taken {
    /// How whoever goes by one of `owners` stands to a name.
    pub fn right(&self, kind: NameKind, name: &str, owners: &[&str]) -> Right {
        let in_use = match kind {
            NameKind::Tool => &self.tools,
            NameKind::Prompt => &self.prompts,
            NameKind::Address => &self.addresses,
        };
        if in_use.contains(name) {
            return Right::Anothers;
        }
        // What somebody has has been theirs before, or an operator gave it to them.
        let reserved = || kind != NameKind::Address && self.prefixes.anothers(name, owners).is_some();
        match self.held.of(kind, name).map(|holding| holding.owner.as_deref()) {
            Some(Some(owner)) if owners.contains(&owner) => Right::Own,
            Some(Some(_)) => Right::Anothers,
            None | Some(None) if reserved() => Right::Anothers,
            None => Right::Free,
            Some(None) => Right::Released,
        }
    }

    /// Whether something was offered under a name by one of `owners`.
    pub fn was_used(&self, kind: NameKind, name: &str, owners: &[&str]) -> bool {
        self.right(kind, name, owners) == Right::Own && self.held.of(kind, name).is_some_and(|holding| holding.used)
    }

    /// The name something is offered under: the plain one where that is wanted and may be had, else the one with a prefix.
    /// What was offered with its prefix is not renamed because an operator released the plain name. `may` has the last word.
    pub fn choose(
        &self,
        kind: NameKind,
        (plain, prefixed): (Option<&str>, &str),
        owners: &[&str],
        may: impl Fn(&str, Right) -> bool,
    ) -> Option<String> {
        let may_have = |name: &str| {
            let right = self.right(kind, name, owners);
            right != Right::Anothers && may(name, right)
        };
        let settled = |plain: &str| {
            self.right(kind, plain, owners) == Right::Released && self.was_used(kind, prefixed, owners) && may_have(prefixed)
        };
        let plain = plain.filter(|plain| !settled(plain) && may_have(plain));
        plain.or_else(|| Some(prefixed).filter(|prefixed| may_have(prefixed))).map(str::to_owned)
    }
}

/// Something that did not get the name it would have had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    /// What it is.
    pub kind: NameKind,
    /// Whose it is, such as `upstream grafana`.
    pub owner: String,
    /// The name it would have had.
    pub wanted: String,
    /// The name it got instead, or `None` when it is left out.
    pub given: Option<String>,
    /// Why, in words, where the reason is another one than that the name is somebody else's.
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(holdings: &[(&str, Option<&str>, bool)]) -> Taken {
        let holding = |(name, owner, used): &(&str, Option<&str>, bool)| {
            let since = Timestamp::from_nanos(0);
            ((*name).to_owned(), Holding { owner: owner.map(Arc::from), used: *used, apart: false, since })
        };
        let held = Held { tools: holdings.iter().map(holding).collect(), ..Held::default() };
        Taken { held: Arc::new(held), tools: BTreeSet::from(["query_logs".to_owned()]), ..Taken::default() }
    }

    fn choose(taken: &Taken, plain: &str) -> Option<String> {
        taken.choose(NameKind::Tool, (Some(plain), &format!("b_{plain}")), &["upstream b"], |_, _| true)
    }

    #[test]
    fn a_name_is_whose_it_was_first() {
        let all = taken(&[("search", Some("upstream a"), true), ("find", Some("upstream b"), false), ("old", None, true)]);
        let right = |name: &str| all.right(NameKind::Tool, name, &["upstream b", "upstream b2"]);
        assert_eq!((right("search"), right("find"), right("old")), (Right::Anothers, Right::Own, Right::Released));
        assert_eq!((right("new"), right("query_logs")), (Right::Free, Right::Anothers));
        assert_eq!(all.right(NameKind::Prompt, "search", &["upstream b"]), Right::Free, "prompts are named by themselves");
        for (wanted, given) in [("search", "b_search"), ("find", "find"), ("old", "old"), ("query_logs", "b_query_logs")] {
            assert_eq!(choose(&all, wanted).as_deref(), Some(given));
        }
    }

    #[test]
    fn a_prefix_that_is_in_use_stays_until_the_plain_name_is_given_on_purpose() {
        let mut holdings = vec![("search", None, true), ("b_search", Some("upstream b"), true)];
        assert_eq!(choose(&taken(&holdings), "search").as_deref(), Some("b_search"));
        holdings[0].1 = Some("upstream b");
        assert_eq!(choose(&taken(&holdings), "search").as_deref(), Some("search"));
        let both = taken(&[("search", Some("api b"), true), ("b_search", Some("plugin b"), true)]);
        assert_eq!(choose(&both, "search"), None, "a prefix gives no right to a name either");
    }

    #[test]
    fn a_name_that_begins_with_anothers_prefix_is_that_ones_before_anybody_offers_it() {
        let owners = ["upstream a", "upstream a_b", "upstream b", "api shop", "plugins"].map(str::to_owned);
        let mut all = taken(&[("shop_old", Some("upstream b"), true), ("shop_free", None, true)]);
        all.prefixes = Prefixes::of(owners);
        for (wanted, given) in [("shop_refund", "b_shop_refund"), ("a_pay", "b_a_pay"), ("b_pay", "b_pay"), ("shop", "shop")] {
            assert_eq!(choose(&all, wanted).as_deref(), Some(given));
        }
        assert_eq!(choose(&all, "shop_free").as_deref(), Some("b_shop_free"), "released, and not for everybody");
        assert_eq!(choose(&all, "shop_old").as_deref(), Some("shop_old"), "what it has it keeps");
        let right = |name: &str, owner: &str| all.right(NameKind::Tool, name, &[owner]);
        assert_eq!((right("shop_refund", "api shop"), right("shop_refund", "upstream b")), (Right::Free, Right::Anothers));
        // The longest word decides, also against whoever has a shorter one.
        assert_eq!((right("a_b_pay", "upstream a_b"), right("a_b_pay", "upstream a")), (Right::Free, Right::Anothers));
        assert_eq!(all.right(NameKind::Prompt, "shop_greet", &["upstream b"]), Right::Anothers);
        assert_eq!(all.right(NameKind::Address, "shop_x://y", &["upstream b"]), Right::Free, "addresses have no prefixes");
    }
}

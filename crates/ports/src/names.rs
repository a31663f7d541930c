//! Whose a name is. Rules, keys, approvals and habits are written about names, so a name stays with whom it was first given
//! to, whoever else would like it and in whatever order they come.
//!
//! Guards that one place answers that question, the same for every extension. Must not know who the owners are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The owner of what the house has itself.
pub const THIS_HOUSE: &str = "this house";

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
}

impl NameKind {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
        }
    }
}

/// Names of tools and prompts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Of tools.
    pub tools: BTreeSet<String>,
    /// Of prompts.
    pub prompts: BTreeSet<String>,
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
}

/// The book of names, as an extension sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Of tools.
    pub tools: BTreeMap<String, Holding>,
    /// Of prompts.
    pub prompts: BTreeMap<String, Holding>,
}

impl Held {
    /// What it says about one name.
    pub fn of(&self, kind: NameKind, name: &str) -> Option<&Holding> {
        match kind {
            NameKind::Tool => self.tools.get(name),
            NameKind::Prompt => self.prompts.get(name),
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
        };
        if in_use.contains(name) {
            return Right::Anothers;
        }
        match self.held.of(kind, name).map(|holding| holding.owner.as_deref()) {
            None => Right::Free,
            Some(None) => Right::Released,
            Some(Some(owner)) if owners.contains(&owner) => Right::Own,
            Some(Some(_)) => Right::Anothers,
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
            ((*name).to_owned(), Holding { owner: owner.map(Arc::from), used: *used, apart: false })
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
}

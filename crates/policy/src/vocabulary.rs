//! What exists: the names rules may speak of. A rule about anything else is a mistake of its author, found at load.
//!
//! Knows tools by their description only. Must not ask any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::{ToolSpec, WriteCategory};

use crate::limits::matches_pattern;

/// The roles that exist without being configured. `anonymous` is granted nothing by the built-in rules.
pub const BUILT_IN_ROLES: [&str; 5] = ["anonymous", "reader", "operator", "plugin-admin", "admin"];

/// One policy file.
#[derive(Debug, Clone)]
pub struct PolicyText {
    /// Where it came from, for error messages.
    pub origin: String,
    /// Cedar source.
    pub text: String,
}

/// What exists: policies may only speak of these.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Every tool of the catalogue.
    pub tools: BTreeSet<String>,
    /// The tools' own descriptions: rules about arguments are checked against their schemas. A tool that is named in
    /// `tools` only is taken to have no arguments a rule could compare.
    pub specs: Vec<Arc<ToolSpec>>,
    /// Role names beyond the built-in ones that credentials may carry.
    pub roles: BTreeSet<String>,
    /// Categories of writing tools the operator enabled.
    pub enabled_writes: BTreeSet<WriteCategory>,
    /// Names of all sources. With it, a rule about a source that is not there is an error and `context.sources` exists.
    pub sources: Option<BTreeSet<String>>,
    /// Names of all services, where the list is complete and fixed. Usually services come and go, and this is `None`.
    pub services: Option<BTreeSet<String>>,
    /// The tools of each product, by the product's name.
    pub products: BTreeMap<String, BTreeSet<String>>,
    /// Names of tools that may come later, such as those of another server nobody has accepted yet; `*` stands for any
    /// text. A rule about one of them waits until it is there, and is checked in full then.
    pub expected: BTreeSet<String>,
    /// Categories such tools will have.
    pub expected_categories: BTreeSet<WriteCategory>,
    /// Names of all prompts, where nobody else can bring one.
    pub prompts: Option<BTreeSet<String>>,
    /// Addresses and templates of the house's own resources (`portcullis:`).
    pub addresses: Option<BTreeSet<String>>,
}

impl Vocabulary {
    /// A vocabulary of these tools, with their arguments.
    pub fn of_tools<'a>(specs: impl IntoIterator<Item = &'a Arc<ToolSpec>>) -> Self {
        let specs: Vec<Arc<ToolSpec>> = specs.into_iter().cloned().collect();
        Self { tools: specs.iter().map(|s| s.name.to_string()).collect(), specs, ..Self::default() }
    }

    pub(crate) fn spec(&self, tool: &str) -> Option<&Arc<ToolSpec>> {
        self.specs.iter().find(|s| s.name.as_str() == tool)
    }

    /// Every tool name, whichever list it is in.
    pub(crate) fn all_tools(&self) -> BTreeSet<&str> {
        self.tools.iter().map(String::as_str).chain(self.specs.iter().map(|s| s.name.as_str())).collect()
    }

    pub(crate) fn all_roles(&self) -> BTreeSet<&str> {
        self.roles.iter().map(String::as_str).chain(BUILT_IN_ROLES).collect()
    }

    /// Categories that some tool has or the operator enabled.
    pub(crate) fn categories(&self) -> BTreeSet<&str> {
        let of_tools = self.specs.iter().filter_map(|s| s.category.as_ref());
        of_tools.chain(&self.enabled_writes).chain(&self.expected_categories).map(|c| &*c.0).collect()
    }

    /// Whether a tool of this name is not there and may come.
    pub(crate) fn expects(&self, tool: &str) -> bool {
        !self.all_tools().contains(tool) && self.may_change(tool)
    }

    /// Whether a tool of this name comes from elsewhere, where what it does can change.
    pub(crate) fn may_change(&self, tool: &str) -> bool {
        self.expected.iter().any(|pattern| matches_pattern(pattern, tool))
    }
}

/// `; did you mean 'x'?` with the known name closest to `name`, or nothing when none is close.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|k| format!("; did you mean '{k}'?")).unwrap_or_default()
}

fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| {
            let longer = lower.chars().count().max(k.chars().count());
            distance * 5 <= longer * 2 || (k.len() >= 3 && lower.contains(&k.to_lowercase())) || starts_alike(&lower, k)
        })
        .min()
        .map(|(_, k)| k)
}

/// Whether one is the beginning of the other and at least three bytes long.
fn starts_alike(a: &str, b: &str) -> bool {
    a.len().min(b.len()) >= 3 && (a.starts_with(b) || b.starts_with(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = ["query_logs", "query_metrics", "sql"];
        assert_eq!(did_you_mean("query_log", known), "; did you mean 'query_logs'?");
        assert_eq!(did_you_mean("qeury_logs", known), "; did you mean 'query_logs'?");
        assert_eq!(did_you_mean("delete_pod", known), "");
        assert_eq!(did_you_mean("servce", ["service", "source"]), "; did you mean 'service'?");
        assert_eq!(did_you_mean("", known), "");
    }
}

//! What `cargo metadata` says about the workspace, reduced to what the rules ask. Must not know any rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The platform the graph is resolved for: the same answer on every developer's machine.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A dependency as a manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Package name.
    pub(crate) name: String,
    /// Whether only tests, examples and benchmarks see it.
    pub(crate) for_tests: bool,
    /// Features asked for.
    pub(crate) features: Vec<String>,
}

/// The workspace and everything below it.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// Packages of the workspace by name, with what they declare.
    pub(crate) members: BTreeMap<String, Vec<Declared>>,
    /// Package names by id, the whole tree.
    names: BTreeMap<String, String>,
    /// Resolved normal dependencies by id.
    normal: BTreeMap<String, BTreeSet<String>>,
    /// Ids of the members by name.
    ids: BTreeMap<String, String>,
}

/// Asks cargo.
pub(crate) fn read(root: &Path) -> anyhow::Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--filter-platform", PLATFORM])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Metadata::parse(&serde_json::from_slice(&output.stdout).context("cargo metadata did not print JSON")?)
}

fn text<'v>(value: &'v Value, key: &str) -> anyhow::Result<&'v str> {
    value[key].as_str().with_context(|| format!("cargo metadata: '{key}' is missing"))
}

fn list<'v>(value: &'v Value, key: &str) -> anyhow::Result<&'v Vec<Value>> {
    value[key].as_array().with_context(|| format!("cargo metadata: '{key}' is missing"))
}

impl Metadata {
    /// Reads format version 1.
    pub(crate) fn parse(value: &Value) -> anyhow::Result<Self> {
        let mut metadata = Self::default();
        let local: BTreeSet<&str> = list(value, "workspace_members")?.iter().filter_map(Value::as_str).collect();
        for package in list(value, "packages")? {
            let (id, name) = (text(package, "id")?, text(package, "name")?);
            metadata.names.insert(id.to_owned(), name.to_owned());
            if local.contains(id) {
                let declared = list(package, "dependencies")?.iter().map(declared).collect::<anyhow::Result<_>>()?;
                metadata.members.insert(name.to_owned(), declared);
                metadata.ids.insert(name.to_owned(), id.to_owned());
            }
        }
        for node in list(&value["resolve"], "nodes")? {
            let mut below = BTreeSet::new();
            for edge in list(node, "deps")? {
                if list(edge, "dep_kinds")?.iter().any(|kind| kind["kind"].is_null()) {
                    below.insert(text(edge, "pkg")?.to_owned());
                }
            }
            metadata.normal.insert(text(node, "id")?.to_owned(), below);
        }
        Ok(metadata)
    }

    /// The shortest way from a member to a package called one of `wanted` over normal dependencies, as names.
    pub(crate) fn path_to(&self, member: &str, wanted: &[&str]) -> Option<Vec<&str>> {
        let start = self.ids.get(member)?.as_str();
        let mut came_from: BTreeMap<&str, Option<&str>> = BTreeMap::from([(start, None)]);
        let mut next = std::collections::VecDeque::from([start]);
        while let Some(id) = next.pop_front() {
            let name = self.names.get(id).map_or("", String::as_str);
            if id != start && wanted.contains(&name) {
                let mut way = Vec::new();
                let mut at = Some(id);
                while let Some(id) = at {
                    way.push(self.names.get(id).map_or("", String::as_str));
                    at = came_from.get(id).copied().flatten();
                }
                way.reverse();
                return Some(way);
            }
            for below in self.normal.get(id).into_iter().flatten() {
                if !came_from.contains_key(below.as_str()) {
                    came_from.insert(below, Some(id));
                    next.push_back(below);
                }
            }
        }
        None
    }
}

fn declared(dependency: &Value) -> anyhow::Result<Declared> {
    Ok(Declared {
        name: text(dependency, "name")?.to_owned(),
        for_tests: dependency["kind"].as_str() == Some("dev"),
        features: list(dependency, "features")?.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A declared dependency: name, kind (empty for normal), features.
    pub(crate) type Dependency<'a> = (&'a str, &'a str, &'a [&'a str]);

    /// Metadata of members with `(name, kind, features)` each; everything else named is a package without dependencies,
    /// apart from `below`, which are edges between packages that are not members.
    pub(crate) fn sample(members: &[(&str, &[Dependency<'_>])], below: &[(&str, &str)]) -> Metadata {
        let mut edges: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for (name, dependencies) in members {
            names.insert(name);
            for (dependency, kind, _) in *dependencies {
                names.insert(dependency);
                edges.entry(name).or_default().push((dependency, kind));
            }
        }
        for (from, to) in below {
            names.extend([*from, *to]);
            edges.entry(from).or_default().push((to, ""));
        }
        let kind = |kind: &str| if kind.is_empty() { Value::Null } else { json!(kind) };
        let packages: Vec<Value> = names
            .iter()
            .map(|name| {
                let own = members.iter().find(|(member, _)| member == name).map_or(&[][..], |(_, own)| own);
                let own: Vec<Value> = own.iter().map(|(n, k, f)| json!({"name": n, "kind": kind(k), "features": f})).collect();
                json!({"id": format!("id:{name}"), "name": name, "dependencies": own})
            })
            .collect();
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = edges
                    .get(name)
                    .into_iter()
                    .flatten()
                    .map(|(to, k)| json!({"pkg": format!("id:{to}"), "dep_kinds": [{"kind": kind(k)}]}))
                    .collect();
                json!({"id": format!("id:{name}"), "deps": deps})
            })
            .collect();
        let own: Vec<String> = members.iter().map(|(name, _)| format!("id:{name}")).collect();
        Metadata::parse(&json!({"packages": packages, "workspace_members": own, "resolve": {"nodes": nodes}})).unwrap()
    }

    #[test]
    fn the_shortest_way_over_normal_dependencies_is_found() {
        let metadata = sample(
            &[("a", &[("b", "", &[]), ("long", "", &[]), ("only-tests", "dev", &[])])],
            &[("b", "tokio"), ("long", "longer"), ("longer", "tokio"), ("only-tests", "hyper")],
        );
        assert_eq!(metadata.path_to("a", &["tokio"]).unwrap(), ["a", "b", "tokio"]);
        assert_eq!(metadata.path_to("a", &["hyper"]), None);
        assert_eq!(metadata.path_to("a", &["a"]), None);
    }

    #[test]
    fn what_is_not_metadata_is_an_error() {
        assert!(Metadata::parse(&json!({})).is_err());
        assert!(Metadata::parse(&json!({"workspace_members": [], "packages": [{"id": "x"}]})).is_err());
    }
}

//! Which crate may depend on what. Imports run downwards only; rooms never import each other; what is called pure
//! has no runtime and no HTTP client below it; some third-party crates live in one place.
//!
//! Dependencies of tests are exempt: a test may furnish a room with its neighbours.

use crate::finding::Finding;
use crate::metadata::Metadata;

/// A crate's place in the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Folder below `crates/`.
    pub(crate) folder: &'static str,
    /// Floor, 1 at the bottom.
    pub(crate) floor: u8,
    /// No runtime, no network: neither itself nor below it.
    pub(crate) pure: bool,
}

const fn place(floor: u8, folder: &'static str) -> Place {
    Place { folder, floor, pure: false }
}

const fn pure(floor: u8, folder: &'static str) -> Place {
    Place { folder, floor, pure: true }
}

/// Every crate has a place.
pub(crate) const HOUSE: &[Place] = &[
    pure(1, "model"),
    pure(2, "policy"),
    place(2, "config"),
    pure(2, "query"),
    pure(2, "shape"),
    pure(2, "analysis"),
    pure(2, "lexicon"),
    place(2, "simulator"),
    pure(3, "ports"),
    pure(3, "guard"),
    place(3, "egress"),
    place(3, "state"),
    place(3, "wire"),
    place(4, "telemetry"),
    place(4, "connectors"),
    place(4, "tools"),
    place(4, "identity"),
    place(4, "audit"),
    place(4, "secrets"),
    place(4, "opa"),
    place(4, "acme"),
    place(4, "upstream"),
    place(4, "manifest"),
    place(4, "plugins"),
    place(5, "gateway"),
    place(6, "mcp"),
    place(6, "console"),
    place(7, "portcullis"),
    place(7, "conformance-server"),
    place(7, "fuzz-targets"),
];

/// Edges on one floor that are wanted, with the reason.
const WITHIN_A_FLOOR: &[(&str, &str, &str)] =
    &[("guard", "ports", "what is released is what the ports' outputs carry; ports never look at guard")];

/// What no pure crate may have below it.
const IMPURE: &[&str] = &["tokio", "hyper", "hyper-util", "reqwest", "mio", "socket2", "async-io", "sqlx-core", "rustls"];

/// Third-party crates that live in few places: `(crate, folders, why)`.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("reqwest", &["egress"], "only egress has an HTTP client"),
    ("rmcp", &["mcp", "conformance-server"], "rmcp types stay behind the one adapter"),
    ("cedar-policy", &["policy"], "only policy knows the policy engine"),
    ("wasmtime", &["plugins"], "only plugins knows the engine"),
    ("wasmtime-wasi", &["plugins"], "only plugins knows the engine"),
    ("sqlx", &["state"], "only state knows the database"),
    ("datafusion", &["telemetry"], "only the embedded store knows its engine"),
    ("arrow", &["telemetry"], "only the embedded store knows its engine"),
    ("parquet", &["telemetry"], "only the embedded store knows its files"),
    ("tonic", &["telemetry"], "only the OTLP door speaks gRPC"),
    ("prometheus-client", &["console"], "metrics of the server itself are counted and written in one place"),
    ("opentelemetry-proto", &["telemetry", "simulator"], "OTLP messages are read at the OTLP door and written by the simulator"),
    ("promql-parser", &["query"], "queries are built and confined in one place"),
    ("jsonschema", &["guard"], "arguments are validated in one place"),
    ("instant-acme", &["acme"], "one room speaks to certificate authorities"),
    ("clap", &["portcullis", "conformance-server"], "only binaries have a command line"),
    ("anyhow", &["portcullis", "conformance-server"], "libraries have typed errors"),
];

/// Package name to folder; `None` for what is no crate of the house.
pub(crate) fn folder_of(package: &str) -> Option<&str> {
    match package {
        "portcullis" => Some("portcullis"),
        other => other.strip_prefix("portcullis-"),
    }
}

fn place_of(folder: &str) -> Option<&'static Place> {
    HOUSE.iter().find(|place| place.folder == folder)
}

/// Checks every edge.
pub(crate) fn check(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for (package, declared) in &metadata.members {
        let Some(folder) = folder_of(package) else { continue };
        let Some(place) = place_of(folder) else {
            findings.push(Finding::new(package, "has no floor; give it one in xtask/src/floors.rs"));
            continue;
        };
        for dependency in declared.iter().filter(|d| !d.for_tests) {
            let below = folder_of(&dependency.name).filter(|_| metadata.members.contains_key(&dependency.name));
            match below {
                Some(below) => findings.extend(edge(place, below, &mut used)),
                None => findings.extend(foreign(folder, &dependency.name, &dependency.features)),
            }
        }
        if place.pure
            && let Some(way) = metadata.path_to(package, IMPURE)
        {
            findings.push(Finding::new(way.join(" -> "), format!("{folder} is pure: no runtime and no network below it")));
        }
    }
    let gone = HOUSE.iter().filter(|p| !metadata.members.keys().any(|m| folder_of(m) == Some(p.folder)));
    findings.extend(gone.map(|p| Finding::new(p.folder, "has a floor but is no crate; remove it from xtask/src/floors.rs")));
    let idle = WITHIN_A_FLOOR.iter().filter(|(from, to, _)| !used.contains(&(*from, *to)));
    findings.extend(idle.map(|(from, to, _)| {
        Finding::new(
            format!("{from} -> {to}"),
            "is allowed within its floor but no longer used; remove it from xtask/src/floors.rs",
        )
    }));
    findings
}

/// One edge inside the house.
fn edge(from: &'static Place, below: &str, used: &mut Vec<(&'static str, &'static str)>) -> Option<Finding> {
    let name = format!("{} -> {below}", from.folder);
    let Some(to) = place_of(below) else {
        return Some(Finding::new(name, format!("{below} has no floor; give it one in xtask/src/floors.rs")));
    };
    if from.floor > to.floor {
        return None;
    }
    if let Some((from, to, _)) = WITHIN_A_FLOOR.iter().find(|(a, b, _)| *a == from.folder && *b == below) {
        used.push((from, to));
        return None;
    }
    let rule = match (from.floor, to.floor) {
        (4, 4) => "rooms never import each other; they meet through ports".to_owned(),
        (own, other) => format!("imports run downwards only: {} is on floor {own}, {below} on floor {other}", from.folder),
    };
    Some(Finding::new(name, rule))
}

/// One edge out of the house.
fn foreign(folder: &str, name: &str, features: &[String]) -> Option<Finding> {
    let edge = format!("{folder} -> {name}");
    if let Some((_, homes, why)) = OWNED.iter().find(|(owned, ..)| *owned == name)
        && !homes.contains(&folder)
    {
        return Some(Finding::new(edge, format!("{why}; {name} belongs into {}", homes.join(" and "))));
    }
    let client = matches!(name, "hyper" | "hyper-util") && features.iter().any(|f| f.starts_with("client"));
    (client && folder != "egress").then(|| Finding::new(edge, "only egress has an HTTP client; leave out the client features"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::{Dependency as Declared, sample};

    type Dependency = Declared<'static>;

    /// The whole house without dependencies, but for the given ones.
    fn house(with: &[(&'static str, &[Dependency])], below: &[(&str, &str)]) -> Vec<String> {
        let names: Vec<String> = HOUSE
            .iter()
            .map(|p| if p.folder == "portcullis" { p.folder.to_owned() } else { format!("portcullis-{}", p.folder) })
            .collect();
        let guard: Dependency = ("portcullis-ports", "", &[]);
        let own: Vec<(&str, Vec<Dependency>)> = names
            .iter()
            .map(|name| {
                let given = with.iter().filter(|(n, _)| n == name).flat_map(|(_, d)| d.iter().copied());
                (name.as_str(), given.chain((name == "portcullis-guard").then_some(guard)).collect())
            })
            .chain(with.iter().filter(|(n, _)| !names.iter().any(|name| name == n)).map(|(n, d)| (*n, d.to_vec())))
            .collect();
        let members: Vec<(&str, &[Dependency])> = own.iter().map(|(name, d)| (*name, d.as_slice())).collect();
        check(&sample(&members, below)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_house_in_order_has_no_findings() {
        let findings = house(
            &[
                ("portcullis-gateway", &[("portcullis-audit", "", &[]), ("tokio", "", &[])]),
                ("portcullis-telemetry", &[("portcullis-tools", "dev", &[]), ("tonic", "", &[])]),
                ("portcullis-egress", &[("reqwest", "", &[])]),
                ("portcullis-mcp", &[("hyper-util", "", &["server-auto"])]),
            ],
            &[],
        );
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn upward_imports_and_rooms_importing_each_other_are_named() {
        let findings = house(&[("portcullis-model", &[("portcullis-policy", "", &[])])], &[]);
        assert_eq!(findings, ["model -> policy: imports run downwards only: model is on floor 1, policy on floor 2"]);
        let findings = house(&[("portcullis-tools", &[("portcullis-telemetry", "", &[])])], &[]);
        assert_eq!(findings, ["tools -> telemetry: rooms never import each other; they meet through ports"]);
        let findings = house(&[("portcullis-ports", &[("portcullis-guard", "build", &[])])], &[]);
        assert_eq!(findings, ["ports -> guard: imports run downwards only: ports is on floor 3, guard on floor 3"]);
    }

    #[test]
    fn a_runtime_below_a_pure_crate_is_found_however_deep() {
        let findings = house(&[("portcullis-query", &[("parser", "", &[])])], &[("parser", "helper"), ("helper", "tokio")]);
        assert_eq!(
            findings,
            ["portcullis-query -> parser -> helper -> tokio: query is pure: no runtime and no network below it"]
        );
        let findings = house(&[("portcullis-config", &[("parser", "", &[])])], &[("parser", "tokio")]);
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn owned_crates_stay_at_home() {
        let findings = house(&[("portcullis-connectors", &[("reqwest", "", &[])])], &[]);
        assert_eq!(findings, ["connectors -> reqwest: only egress has an HTTP client; reqwest belongs into egress"]);
        let findings = house(&[("portcullis-connectors", &[("reqwest", "dev", &[])])], &[]);
        assert_eq!(findings, Vec::<String>::new());
        let findings = house(&[("portcullis-mcp", &[("hyper-util", "", &["client-legacy"])])], &[]);
        assert_eq!(findings, ["mcp -> hyper-util: only egress has an HTTP client; leave out the client features"]);
    }

    #[test]
    fn every_crate_has_a_place_and_every_place_a_crate() {
        let findings = house(&[("portcullis-attic", &[])], &[]);
        assert_eq!(findings, ["portcullis-attic: has no floor; give it one in xtask/src/floors.rs"]);
        let few = check(&sample(&[("portcullis-model", &[])], &[]));
        assert!(few.iter().any(|f| f.to_string().starts_with("telemetry: has a floor but is no crate")), "{few:?}");
        assert!(few.iter().any(|f| f.to_string().starts_with("guard -> ports: is allowed")), "{few:?}");
    }
}

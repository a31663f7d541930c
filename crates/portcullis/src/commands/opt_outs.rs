//! The lines of `portcullis doctor` about what weakens a control by name: every row of the table in SECURITY.md that is in
//! force, with where it is set.
//!
//! Guards that no such setting is in force in silence, wherever it stands: it is looked for in the whole of the settings, so
//! that a new kind of destination is seen as well. Must not print a value that could be a secret.

use std::collections::BTreeSet;

use portcullis_gateway::Gateway;
use serde_json::Value;

use super::doctor::{Line, State};
use crate::settings::Config;

/// Longest value that is shown, in characters.
const SHOWN: usize = 120;
/// Most places shown of one row.
const PLACES: usize = 20;

/// One row of the table.
struct OptOut {
    /// As the table has it.
    name: &'static str,
    /// Where it is looked for: members of the settings, `*` for any one, `**` for any way there.
    place: &'static str,
    /// Whether the value there gives something up.
    weakens: fn(&Value) -> bool,
    /// What is given up.
    given_up: &'static str,
}

fn is_off(value: &Value) -> bool {
    value == "off"
}

fn is_true(value: &Value) -> bool {
    value == true
}

fn is_given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    }
}

const fn row(name: &'static str, weakens: fn(&Value) -> bool, given_up: &'static str) -> OptOut {
    OptOut { name, place: name, weakens, given_up }
}

const fn at(name: &'static str, place: &'static str, weakens: fn(&Value) -> bool, given_up: &'static str) -> OptOut {
    OptOut { name, place, weakens, given_up }
}

const CLEAR: &str = "clear text on an address others can reach";
const NAMES: &str = "further names are let in";
const PROXIES: &str = "these say whose address a request counts for";
const BUDGET: &str = "no daily budget";

/// The table, as far as it is about settings.
const TABLE: &[OptOut] = &[
    row("redaction.secrets", is_off, "credentials in telemetry are shown"),
    row("redaction.pii.*", is_off, "personal data of that kind is shown"),
    row("release.frame", is_off, "answers are not marked as data"),
    row("sanitize.*.mode", is_off, "hidden characters in arguments of that kind pass"),
    row("listen.anonymous_role", is_given, "callers on this machine need no credential"),
    row("ingest.loopback_without_key", is_true, "senders on this machine need no key"),
    row("listen.plaintext", is_given, CLEAR),
    row("ingest.plaintext", is_given, CLEAR),
    row("admin.plaintext", is_given, CLEAR),
    row("listen.allowed_hosts", is_given, NAMES),
    row("admin.allowed_hosts", is_given, NAMES),
    row("ingest.allowed_hosts", is_given, NAMES),
    row("listen.allowed_origins", is_given, "further web pages are let in"),
    row("listen.trusted_proxies", is_given, PROXIES),
    row("admin.trusted_proxies", is_given, PROXIES),
    row("ingest.trusted_proxies", is_given, PROXIES),
    row("admin.health", |v| v == "anyone", "whoever reaches the admin listener learns whether the server is alive and ready"),
    row("listen.sessions", |v| v == "all", "every client of an older era holds a session, whether it needs one or not"),
    row("write.enable", is_given, "tools that write exist"),
    row("approvals.four_eyes", |v| v == false, "an operator may approve what the same operator asked for"),
    row("approvals.elicitation", is_true, "the user of the client may say yes"),
    row("profiles.mode", |v| v != "enforce", "nothing is refused for being unusual"),
    row("limits.tokens_per_day", |v| v == 0, BUDGET),
    row("limits.tenant.tokens_per_day", |v| v == 0, BUDGET),
    row("audit.on_failure.read", |v| v == "continue", "calls that look go on without a record; counted and told"),
    row("audit.on_failure.write", |v| v == "continue", "calls that change something go on without a record; counted and told"),
    at("audit.retention", "audit.retention.*", is_given, "old parts of the log are removed"),
    at("allow_addresses", "**.allow_addresses", is_given, "it may be at loopback or private addresses"),
    at("upstreams.trust", "upstreams.*.trust", |v| v == "accept_first_sight", "what is new and clean needs no person"),
    at("upstreams.confined_callers", "upstreams.*.confined_callers", |v| v == "allow", "confined callers reach it"),
    at("upstreams.questions.sampling", "upstreams.*.questions.sampling", |v| v == "allow", "the callers' models write for it"),
    at("upstreams.questions.links", "upstreams.*.questions.links", is_given, "callers' users may be asked to open pages there"),
    at("upstreams.recheck", "upstreams.*.recheck", is_given, "a changed definition is noticed that much later"),
    at("upstreams.risk", "upstreams.*.risk", is_given, "the operator's class counts, whatever the upstream says"),
    row("plugins.allow_unsigned", is_true, "a plugin installed with --insecure runs that nobody vouches for"),
    row("plugins.grants.*.open_to_confined", is_true, "confined callers get answers of its tools"),
    at("secrets.*.read", "plugins.grants.*.secrets.*.read", is_true, "that plugin holds the secret itself"),
    at("plugins.sources", "plugins.sources.*.origin", is_plain, "everybody on the way sees which plugins are fetched"),
];

fn is_plain(value: &Value) -> bool {
    value.as_str().is_some_and(|origin| origin.starts_with("http://"))
}

/// What is in force that has no setting.
const ALWAYS: (&str, &str) = ("/healthz", "whoever reaches the MCP listener under an allowed host learns that it is alive");

/// The name of rules that let somebody see answers as they are.
const UNREDACTED: &str = "@unredacted(\"true\")";

/// Every row that is in force. What is so by default is on; what an operator chose asks for attention.
pub fn lines(config: &Config, gateway: &Gateway) -> Vec<Line> {
    let line = |name: &str, state, detail| Line { kind: "opt-out", name: name.to_owned(), state, detail };
    let Ok(settings) = serde_json::to_value(config) else {
        return vec![line("settings", State::Broken, "the settings cannot be looked at".to_owned())];
    };
    let usual = serde_json::to_value(Config::default()).map(|settings| in_force(&settings)).unwrap_or_default();
    let usual: BTreeSet<(&str, String)> = usual.into_iter().map(|(row, place, _)| (row.name, place)).collect();
    let mut lines = Vec::new();
    for row in TABLE.iter().filter(|row| is_spoken_of(config, row)) {
        let found: Vec<(String, String)> = in_force(&settings)
            .into_iter()
            .filter(|(found, ..)| found.name == row.name)
            .map(|(_, place, value)| (place, value))
            .collect();
        if found.is_empty() {
            continue;
        }
        let chosen = found.iter().any(|(place, _)| !usual.contains(&(row.name, place.clone())));
        let mut shown: Vec<String> = found.iter().take(PLACES).map(|(place, value)| format!("{place}: {value}")).collect();
        if found.len() > PLACES {
            shown.push(format!("and {} more", found.len() - PLACES));
        }
        let (state, how) = if chosen { (State::Attention, "") } else { (State::On, " (as by default)") };
        lines.push(line(row.name, state, format!("{}; {}{how}", shown.join(", "), row.given_up)));
    }
    lines.push(line(ALWAYS.0, State::On, format!("{} (always)", ALWAYS.1)));
    let rules = gateway.unredacted_rules();
    if !rules.is_empty() {
        let detail = format!("{}; who they are for may ask for an answer as it is, recorded twice", rules.join(", "));
        lines.push(line(UNREDACTED, State::Attention, detail));
    }
    lines
}

/// Whether a row is about something that is there: a listener that is not opened gives nothing up.
fn is_spoken_of(config: &Config, row: &OptOut) -> bool {
    match row.place.split('.').next() {
        Some("admin") => config.admin.enabled,
        Some("ingest") => crate::wire::takes_telemetry(config),
        _ => true,
    }
}

/// The rows that are in force in these settings, each with its place and its value.
fn in_force(settings: &Value) -> Vec<(&'static OptOut, String, String)> {
    let mut found = Vec::new();
    for row in TABLE {
        let segments: Vec<&str> = row.place.split('.').collect();
        walk(settings, &segments, String::new(), &mut |place, value| {
            if (row.weakens)(value) {
                found.push((row, place, shown(value)));
            }
        });
    }
    found
}

fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Goes to every value at a place. Elements of lists are called by their names, where they have one.
fn walk(value: &Value, place: &[&str], path: String, see: &mut dyn FnMut(String, &Value)) {
    let Some((first, rest)) = place.split_first() else { return see(path, value) };
    if *first == "**" {
        walk(value, rest, path.clone(), see);
    }
    let onwards = if *first == "**" { place } else { rest };
    let any = matches!(*first, "*" | "**");
    let joined = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| any || name == first) {
                walk(member, onwards, joined(name), see);
            }
        }
        Value::Array(items) if any => {
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                walk(item, onwards, joined(&name), see);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_found_wherever_it_stands_and_called_by_its_name() {
        let settings = json!({
            "sources": [{"name": "prom", "allow_addresses": ["loopback"]}, {"name": "far", "allow_addresses": []}],
            "external_policy": {"allow_addresses": ["private"]},
            "identity": {"tokens": {"issuers": [{"allow_addresses": ["10.0.0.0/8"]}]}},
            "audit": {"retention": {"max_age": "1d", "max_size": null}},
        });
        let found: BTreeSet<(&str, String)> = in_force(&settings).into_iter().map(|(row, place, _)| (row.name, place)).collect();
        let expected = [
            ("allow_addresses", "external_policy.allow_addresses"),
            ("allow_addresses", "identity.tokens.issuers.0.allow_addresses"),
            ("allow_addresses", "sources.prom.allow_addresses"),
            ("audit.retention", "audit.retention.max_age"),
        ];
        assert_eq!(found, expected.map(|(name, place)| (name, place.to_owned())).into());
    }

    #[test]
    fn every_place_of_the_table_exists() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap().to_string();
        for row in TABLE {
            let last = row.place.split('.').rev().find(|part| !part.starts_with('*')).unwrap();
            assert!(schema.contains(&format!("\"{last}\"")), "{} looks for {last}, which no setting is called", row.name);
        }
        let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len(), "a name stands twice in the table");
    }
}

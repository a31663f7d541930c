//! What one principal was seen doing, and the profile an operator accepted from it.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::{PrincipalId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::shape;

/// Shapes remembered per tool; further ones only count.
const SHAPES: usize = 64;
/// Sources remembered per tool.
const SOURCES: usize = 64;
/// A caller may be this many times as busy as it ever was when its profile was accepted.
const HEADROOM: u32 = 2;

/// How one tool was used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolUse {
    /// Calls seen.
    pub calls: u64,
    /// Shapes of the arguments: names and kinds, no values.
    pub shapes: BTreeSet<String>,
    /// Calls whose shape found no room any more.
    pub shapes_beyond: u64,
    /// Sources the answers came from.
    pub sources: BTreeSet<String>,
}

/// What a principal does, as far as it was watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// Who.
    pub principal: PrincipalId,
    /// Tools by name, and lookups as `resources/read:<family>`, `prompts/get:<name>`, `completion/complete:<reference>`.
    pub tools: BTreeMap<String, ToolUse>,
    /// Hours of the day (UTC) with at least one call, bit 0 is midnight to one.
    pub hours: u32,
    /// Most calls within one minute.
    pub most_per_minute: u32,
    /// First call seen.
    pub first: Timestamp,
    /// Last call seen.
    pub last: Timestamp,
    /// Calls seen.
    pub calls: u64,
}

/// A way in which a call is unlike the accepted profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "deviation")]
pub enum Deviation {
    /// Nobody accepted a profile of this principal.
    NoProfile,
    /// The tool was never used.
    Tool,
    /// The tool was never used with these arguments.
    Shape {
        /// The shape of this call.
        shape: String,
    },
    /// There were never calls near this hour (UTC).
    Hour {
        /// The hour, 0 to 23.
        hour: u32,
    },
    /// There were never so many calls in a minute.
    Rate {
        /// Calls in this minute.
        seen: u32,
        /// The most that is accepted.
        accepted: u32,
    },
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoProfile => f.write_str("no profile was accepted for this principal"),
            Self::Tool => f.write_str("the tool is not in its profile"),
            Self::Shape { shape } => write!(f, "the arguments ({shape}) are not of a shape in its profile"),
            Self::Hour { hour } => write!(f, "{hour:02}:00 UTC is outside the hours of its profile"),
            Self::Rate { seen, accepted } => write!(f, "{seen} calls in this minute, at most {accepted} are in its profile"),
        }
    }
}

/// Whether a habit is a lookup (`resources/read:…`) rather than the name of a tool, which has no colon.
fn is_lookup(habit: &str) -> bool {
    habit.contains(':')
}

impl Behaviour {
    pub(super) fn new(principal: PrincipalId, at: Timestamp) -> Self {
        Self { principal, tools: BTreeMap::new(), hours: 0, most_per_minute: 0, first: at, last: at, calls: 0 }
    }

    /// Takes one allowed call in. `in_minute` counts the calls of this minute, this one included.
    pub(super) fn learn(&mut self, tool: &str, arguments: &Map<String, Value>, at: Timestamp, in_minute: u32) {
        self.calls = self.calls.saturating_add(1);
        self.last = at;
        self.hours |= 1 << shape::hour(at);
        self.most_per_minute = self.most_per_minute.max(in_minute);
        let used = self.tools.entry(tool.to_owned()).or_default();
        used.calls = used.calls.saturating_add(1);
        let shape = shape::of(arguments);
        if used.shapes.len() < SHAPES || used.shapes.contains(&shape) {
            used.shapes.insert(shape);
        } else {
            used.shapes_beyond = used.shapes_beyond.saturating_add(1);
        }
    }

    /// Takes in where the answer came from.
    pub(super) fn touched<'a>(&mut self, tool: &str, sources: impl Iterator<Item = &'a str>) {
        let Some(used) = self.tools.get_mut(tool) else { return };
        for source in sources {
            if used.sources.len() < SOURCES {
                used.sources.insert(source.to_owned());
            }
        }
    }

    /// Adds what another process, or an earlier one, saw.
    pub(super) fn merge(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.hours |= other.hours;
        self.most_per_minute = self.most_per_minute.max(other.most_per_minute);
        if other.first.as_nanos() < self.first.as_nanos() {
            self.first = other.first;
        }
        if other.last.as_nanos() > self.last.as_nanos() {
            self.last = other.last;
        }
        for (tool, theirs) in &other.tools {
            let ours = self.tools.entry(tool.clone()).or_default();
            ours.calls = ours.calls.saturating_add(theirs.calls);
            ours.shapes_beyond = ours.shapes_beyond.saturating_add(theirs.shapes_beyond);
            for shape in &theirs.shapes {
                if ours.shapes.len() < SHAPES {
                    ours.shapes.insert(shape.clone());
                }
            }
            for source in &theirs.sources {
                if ours.sources.len() < SOURCES {
                    ours.sources.insert(source.clone());
                }
            }
        }
    }

    /// In which ways a call is unlike this accepted profile; empty when it fits. `in_minute` counts it as well.
    pub(super) fn deviations(&self, tool: &str, arguments: &Map<String, Value>, at: Timestamp, in_minute: u32) -> Vec<Deviation> {
        let mut found = Vec::new();
        match self.tools.get(tool) {
            None => found.push(Deviation::Tool),
            Some(used) => {
                let shape = shape::of(arguments);
                if !used.shapes.contains(&shape) {
                    found.push(Deviation::Shape { shape });
                }
            }
        }
        let hour = shape::hour(at);
        // An hour to either side belongs to it: people do not start on the minute.
        let near = [(hour + 23) % 24, hour, (hour + 1) % 24];
        if near.iter().all(|h| self.hours & (1 << h) == 0) {
            found.push(Deviation::Hour { hour });
        }
        let accepted = self.most_per_minute.saturating_mul(HEADROOM).max(1);
        if in_minute > accepted {
            found.push(Deviation::Rate { seen: in_minute, accepted });
        }
        found
    }

    /// The accepted sources of one tool; `None` when the tool was never used.
    pub fn sources(&self, tool: &str) -> Option<&BTreeSet<String>> {
        self.tools.get(tool).map(|used| &used.sources)
    }

    /// A Cedar rule that forbids what was not seen, to be read and then added to the operator's policies.
    pub fn suggested_policy(&self) -> String {
        let name: String = self.principal.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let tools: Vec<String> =
            self.tools.keys().filter(|name| !is_lookup(name)).map(|t| format!("Portcullis::Tool::{t:?}")).collect();
        // An empty list is none for Cedar: whoever used no tool is refused all of them.
        let (used, unless) = if tools.is_empty() {
            ("no tool", String::new())
        } else {
            ("only these tools", format!(" unless {{\n    [{}].contains(resource)\n}}", tools.join(", ")))
        };
        format!(
            "// Learned from {} calls. {:?} used {used}.\n@id(\"profile-{name}\")\nforbid (\n    principal == \
             Portcullis::Principal::{:?},\n    action == Portcullis::Action::\"call\",\n    resource\n){unless};\n",
            self.calls,
            self.principal.as_str(),
            self.principal.as_str(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_seconds(1_700_006_400 + hour * 3_600) // midnight UTC
    }

    fn learned() -> Behaviour {
        let mut seen = Behaviour::new(PrincipalId::new("key:a").unwrap(), at(9));
        seen.learn("query_logs", &arguments(r#"{"service":"cart"}"#), at(9), 3);
        seen.learn("query_logs", &arguments(r#"{"service":"cart","limit":5}"#), at(10), 5);
        seen.touched("query_logs", ["embedded"].into_iter());
        seen
    }

    #[test]
    fn what_was_seen_fits_whatever_the_values() {
        let profile = learned();
        assert_eq!(profile.deviations("query_logs", &arguments(r#"{"service":"payment"}"#), at(9), 1), []);
        assert_eq!(profile.deviations("query_logs", &arguments(r#"{"limit":1,"service":"x"}"#), at(11), 10), []);
        assert!(!serde_json::to_string(&profile).unwrap().contains("cart"), "no value is kept");
    }

    #[test]
    fn what_was_not_seen_is_named() {
        let profile = learned();
        let fits = arguments(r#"{"service":"x"}"#);
        assert_eq!(profile.deviations("sql", &fits, at(9), 1), [Deviation::Tool]);
        let shape = arguments(r#"{"service":"x","regex":".*"}"#);
        assert!(
            matches!(&profile.deviations("query_logs", &shape, at(9), 1)[..], [Deviation::Shape { shape }] if shape.contains("regex"))
        );
        assert_eq!(profile.deviations("query_logs", &fits, at(3), 1), [Deviation::Hour { hour: 3 }]);
        assert_eq!(profile.deviations("query_logs", &fits, at(9), 11), [Deviation::Rate { seen: 11, accepted: 10 }]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Behaviour::new(PrincipalId::new("key:a").unwrap(), at(9));
        for n in 0..1_000 {
            seen.learn("t", &arguments(&format!(r#"{{"a{n}":1}}"#)), at(9), 1);
        }
        assert_eq!((seen.tools["t"].shapes.len(), seen.tools["t"].shapes_beyond), (SHAPES, 1_000 - SHAPES as u64));
    }

    #[test]
    fn merging_loses_nothing() {
        let mut a = learned();
        let mut b = Behaviour::new(PrincipalId::new("key:a").unwrap(), at(20));
        b.learn("sql", &arguments(r#"{"query":"x"}"#), at(20), 1);
        a.merge(&b);
        assert_eq!((a.calls, a.tools.len()), (3, 2));
        assert_eq!(a.deviations("sql", &arguments(r#"{"query":"y"}"#), at(20), 1), []);
    }

    #[test]
    fn the_suggestion_names_the_tools() {
        let text = learned().suggested_policy();
        assert!(text.contains("@id(\"profile-key-a\")") && text.contains("Portcullis::Tool::\"query_logs\""), "{text}");
        let text = Behaviour::new(PrincipalId::new("key:a").unwrap(), at(9)).suggested_policy();
        assert!(text.ends_with("resource\n);\n") && !text.contains("[]"), "{text}");
    }
}

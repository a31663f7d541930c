//! What an upstream says about what it has: tools, prompts, resources, templates. Guards that a definition is small, has a
//! name, and has one digest whatever the order of its members. Must not interpret descriptions.

use std::fmt;
use std::sync::OnceLock;

use portcullis_ports::LONGEST_NAME;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::conversation::Listed;
use crate::wire::depth_over;

/// Bytes of the canonical form of one definition.
const LARGEST: usize = 256 << 10;
/// Objects and arrays inside each other in one definition.
const DEEPEST: usize = 48;
/// Bytes that may stand before the name of a tool or a prompt: that of an upstream or a kind, and what separates them.
const PREFIX: usize = 33;

/// What kind of thing is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource with a fixed address.
    Resource,
    /// A family of resources.
    Template,
    /// The revision of MCP the upstream speaks.
    Protocol,
}

impl Kind {
    /// Those that are listed.
    pub(crate) const LISTED: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// Its name in the store, in commands and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "template",
            Self::Protocol => "protocol",
        }
    }

    /// How it is listed.
    pub(crate) fn listed(self) -> Listed {
        let (method, member, capability) = match self {
            Self::Tool | Self::Protocol => ("tools/list", "tools", "tools"),
            Self::Prompt => ("prompts/list", "prompts", "prompts"),
            Self::Resource => ("resources/list", "resources", "resources"),
            Self::Template => ("resources/templates/list", "resourceTemplates", "resources"),
        };
        Listed { method, member, capability }
    }

    /// The name inside a definition of this kind.
    pub(crate) fn name_of(self, body: &Value) -> Option<&str> {
        body.get(self.name_member()).and_then(Value::as_str)
    }

    /// Bytes of a name of this kind for which it can be kept whose it is.
    fn longest_name(self) -> usize {
        match self {
            Self::Tool | Self::Prompt | Self::Protocol => LONGEST_NAME - PREFIX,
            Self::Resource | Self::Template => LONGEST_NAME,
        }
    }

    fn name_member(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt | Self::Protocol => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One definition as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub(crate) kind: Kind,
    /// Name, address or template, as the upstream wrote it.
    pub(crate) name: String,
    /// All of it.
    pub(crate) body: Value,
    /// SHA-256 of the canonical form, in hexadecimal digits.
    pub(crate) digest: String,
}

impl Definition {
    /// Reads one.
    ///
    /// # Errors
    /// In words, why it cannot be one: it stays out then, and that is reported.
    pub(crate) fn read(kind: Kind, body: Value) -> Result<Self, String> {
        let Some(name) = kind.name_of(&body) else {
            return Err(format!("a {kind} without {}", kind.name_member()));
        };
        let shown: String = name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(60).collect();
        let most = kind.longest_name();
        if name.is_empty() || name.len() > most {
            return Err(format!("a {kind} whose name '{shown}' has {} bytes, and 1 to {most} are kept", name.len()));
        }
        if depth_over(&body, DEEPEST) {
            return Err(format!("{kind} '{shown}' is nested deeper than {DEEPEST} levels"));
        }
        let canonical = canonical(&body);
        if canonical.len() > LARGEST {
            return Err(format!("{kind} '{shown}' has {} bytes, and at most {LARGEST} are looked at", canonical.len()));
        }
        let digest = hex(&Sha256::digest(canonical.as_bytes()));
        Ok(Self { kind, name: name.to_owned(), body, digest })
    }

    /// The revision an upstream speaks, as a definition.
    pub(crate) fn of_protocol(version: &str) -> Self {
        let body = serde_json::json!({"name": "protocol", "protocolVersion": version});
        let digest = hex(&Sha256::digest(canonical(&body).as_bytes()));
        Self { kind: Kind::Protocol, name: "protocol".into(), body, digest }
    }
}

/// One entry of a list as it came, read once for everybody who shares the look.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) body: Value,
    read: OnceLock<Result<Definition, String>>,
}

impl Entry {
    pub(crate) fn new(body: Value) -> Self {
        Self { body, read: OnceLock::new() }
    }

    /// The definition it is; `kind` is that of its list.
    pub(crate) fn read(&self, kind: Kind) -> &Result<Definition, String> {
        self.read.get_or_init(|| Definition::read(kind, self.body.clone()))
    }
}

/// JSON with its members in order of their names and no space: equal values have equal texts.
pub(crate) fn canonical(value: &Value) -> String {
    fn ordered(value: &Value) -> Value {
        match value {
            Value::Array(items) => Value::Array(items.iter().map(ordered).collect()),
            Value::Object(members) => {
                let mut names: Vec<&String> = members.keys().collect();
                names.sort_unstable();
                Value::Object(names.into_iter().map(|name| (name.clone(), ordered(&members[name]))).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }
    ordered(value).to_string()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_digest_is_of_what_is_said_and_not_of_how_it_is_ordered() {
        let read = |text: &str| Definition::read(Kind::Tool, serde_json::from_str(text).unwrap()).unwrap().digest;
        let one = read(r#"{"name":"a","inputSchema":{"type":"object","properties":{"x":{},"y":{}}}}"#);
        let same = read(r#"{ "inputSchema": {"properties":{"y":{},"x":{}}, "type":"object"}, "name":"a" }"#);
        assert_eq!(one, same);
        assert_eq!(one.len(), 64);
        for other in [
            r#"{"name":"a","inputSchema":{"type":"object","properties":{"x":{},"y":{}}},"annotations":{"readOnlyHint":true}}"#,
            r#"{"name":"a","inputSchema":{"type":"object","properties":{"x":{}}}}"#,
            r#"{"name":"a ","inputSchema":{"type":"object","properties":{"x":{},"y":{}}}}"#,
        ] {
            assert_ne!(one, read(other));
        }
    }

    #[test]
    fn what_is_nameless_huge_or_bottomless_is_no_definition() {
        assert!(Definition::read(Kind::Tool, json!({"title": "x"})).is_err());
        assert!(Definition::read(Kind::Resource, json!({"name": "x"})).is_err());
        assert!(Definition::read(Kind::Tool, json!({"name": ""})).is_err());
        let address = |length: usize| json!({"uri": format!("note://{}", "x".repeat(length - 7)), "name": "x"});
        assert!(Definition::read(Kind::Resource, address(LONGEST_NAME)).is_ok());
        let long = Definition::read(Kind::Resource, address(LONGEST_NAME + 1)).unwrap_err();
        assert!(long.starts_with("a resource whose name 'note://xxx") && long.ends_with("has 513 bytes, and 1 to 512 are kept"));
        let template = json!({"uriTemplate": format!("note://{}{{id}}", "x".repeat(LONGEST_NAME)), "name": "x"});
        assert!(Definition::read(Kind::Template, template).unwrap_err().contains("bytes, and 1 to 512 are kept"));
        let huge = json!({"name": "x", "description": "d".repeat(300 << 10)});
        assert!(Definition::read(Kind::Tool, huge).unwrap_err().contains("at most"));
        let mut deep = json!({});
        for _ in 0..60 {
            deep = json!({ "properties": deep });
        }
        assert!(Definition::read(Kind::Tool, json!({"name": "x", "inputSchema": deep})).unwrap_err().contains("nested"));
    }
}

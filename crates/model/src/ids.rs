//! Validated names. A name that exists is well-formed: no control characters, bounded length.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that does not fit its alphabet or length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} '{shown}' is not valid: use 1 to {max} characters of {alphabet}")]
pub struct InvalidName {
    kind: &'static str,
    shown: String,
    max: usize,
    alphabet: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $alphabet:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                let name = name.as_ref();
                let allowed: fn(char) -> bool = $allowed;
                if name.is_empty() || name.len() > $max || !name.chars().all(allowed) {
                    let shown = name.chars().take(40).filter(|c| !c.is_control()).collect();
                    return Err(InvalidName { kind: $kind, shown, max: $max, alphabet: $alphabet });
                }
                Ok(Self(Arc::from(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name_type!(
    /// A tool's name: MCP asks for 1..=128 characters of `[A-Za-z0-9_.-]` (spec 2026-07-28, server/tools).
    ToolName, "tool name", 128, "letters, digits, '_', '.', '-'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
);
name_type!(
    /// A configured source's name, unique in one configuration.
    SourceName, "source name", 64, "letters, digits, '_', '.', '-'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
);
name_type!(
    /// The tenant data belongs to. Comes from the credential, never from a payload.
    TenantId, "tenant", 64, "letters, digits, '_', '.', '-'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
);
name_type!(
    /// Who acts: `local:<user>`, `key:<id>`, `anonymous`, `charter:<purpose>`.
    PrincipalId, "principal", 128, "letters, digits, '_', '.', '-', ':', '@', '/'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '@' | '/')
);
name_type!(
    /// The public part of an API key.
    KeyId, "key id", 32, "letters and digits",
    |c| c.is_ascii_alphanumeric()
);

impl TenantId {
    /// The tenant of everything in a single-tenant installation.
    pub fn default_tenant() -> Self {
        Self(Arc::from("default"))
    }
}

/// W3C trace context of the call, as received (`_meta.traceparent` or the header), already checked for shape.
///
/// Source: <https://www.w3.org/TR/trace-context/>, MCP SEP-414.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TraceContext {
    /// `00-<32 hex>-<16 hex>-<2 hex>`, or nothing.
    pub traceparent: Option<Arc<str>>,
}

impl TraceContext {
    /// Accepts a `traceparent` only in the exact shape of version 00; anything else is dropped.
    pub fn parse(traceparent: Option<&str>) -> Self {
        let ok = traceparent.filter(|t| {
            let parts: Vec<&str> = t.split('-').collect();
            let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            parts.len() == 4
                && parts[0] == "00"
                && hex(parts[1], 32)
                && hex(parts[2], 16)
                && hex(parts[3], 2)
                && parts[1].bytes().any(|b| b != b'0')
                && parts[2].bytes().any(|b| b != b'0')
        });
        Self { traceparent: ok.map(Arc::from) }
    }

    /// The 32-digit trace id, if there is one.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(|t| t.get(3..35))
    }
}

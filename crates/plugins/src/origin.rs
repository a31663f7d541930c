//! Origins a plugin may reach, as manifests declare and operators grant them. Guards that a pattern means what it looks like:
//! a literal `scheme://host:port`, or one leading wildcard label that stands for exactly one label.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A text that is no pattern of origins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no origin: {reason}; write https://api.example.com:443, or https://*.example.com:443 for one label")]
pub struct InvalidOrigin {
    text: String,
    reason: String,
}

/// `scheme://host:port`, or `scheme://*.host:port`. The port may be left out where the scheme has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginPattern {
    /// The normal form, with port and, where there is one, the wildcard.
    text: String,
    wildcard: bool,
}

/// Stands for the wildcard while the rest is read as a URL.
const STAND_IN: &str = "wildcard-label";

impl OriginPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it has a path, credentials, another wildcard, or a wildcard over a whole top-level domain or an address.
    pub fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let bad = |reason: &str| InvalidOrigin { text: text.chars().take(200).collect(), reason: reason.to_owned() };
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(bad("it holds blanks, control characters or backslashes"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(bad("only http and https are spoken"));
        }
        if rest.contains(['/', '?', '#', '@', '%']) {
            return Err(bad("it is more than scheme, host and port"));
        }
        let (wildcard, host) = rest.strip_prefix("*.").map_or((false, rest), |host| (true, host));
        if host.contains('*') {
            return Err(bad("a wildcard may only be the whole first label"));
        }
        let probe = if wildcard { format!("{scheme}://{STAND_IN}.{host}") } else { format!("{scheme}://{host}") };
        let origin = portcullis_egress::origin_of(&probe).map_err(|error| bad(&error.to_string()))?;
        if !wildcard {
            return Ok(Self { text: origin, wildcard });
        }
        let suffix = origin.split_once(&format!("{STAND_IN}.")).map(|(_, suffix)| suffix.to_owned());
        let suffix = suffix.ok_or_else(|| bad("the wildcard does not stand before a name"))?;
        let name = suffix.rsplit_once(':').map_or(suffix.as_str(), |(name, _)| name);
        if name.trim_end_matches('.').split('.').count() < 2 {
            return Err(bad("a wildcard over a whole top-level domain is too wide"));
        }
        Ok(Self { text: format!("{scheme}://*.{suffix}"), wildcard })
    }

    /// Whether `origin` (in the normal form of egress, port included) is one of these.
    pub fn matches(&self, origin: &str) -> bool {
        if !self.wildcard {
            return self.text == origin;
        }
        let Some((scheme, suffix)) = self.text.split_once("://*.") else { return false };
        let Some(host) = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) else { return false };
        host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix)
    }

    /// Whether everything `other` matches is matched by this.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || (!other.wildcard && self.matches(&other.text))
    }

    /// The one origin it stands for, when there is no wildcard.
    pub fn literal(&self) -> Option<&str> {
        (!self.wildcard).then_some(self.text.as_str())
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for OriginPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for OriginPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for OriginPattern {
    fn schema_name() -> Cow<'static, str> {
        "OriginPattern".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^https?://(\\*\\.)?[^/?#@*]+$",
            "examples": ["https://api.example.com:443", "https://*.example.com:443"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> OriginPattern {
        OriginPattern::parse(text).unwrap()
    }

    #[test]
    fn a_literal_is_one_origin_in_every_spelling() {
        for (text, origin) in [
            ("https://API.Example.com", "https://api.example.com:443"),
            ("https://api.example.com:443", "https://api.example.com:443"),
            ("http://127.1:9090", "http://127.0.0.1:9090"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(pattern(text).literal(), Some(origin));
            assert!(pattern(text).matches(origin));
            assert!(!pattern(text).matches("https://api.example.com:8443"));
        }
    }

    #[test]
    fn a_wildcard_is_exactly_one_label() {
        let wide = pattern("https://*.example.com");
        assert_eq!(wide.to_string(), "https://*.example.com:443");
        assert!(wide.matches("https://eu.example.com:443"));
        for other in [
            "https://example.com:443",
            "https://a.b.example.com:443",
            "https://.example.com:443",
            "https://eu.example.com:8443",
            "http://eu.example.com:443",
            "https://eu.example.com.evil.org:443",
            "https://euexample.com:443",
        ] {
            assert!(!wide.matches(other), "{other}");
        }
        assert!(wide.covers(&pattern("https://eu.example.com")) && !pattern("https://eu.example.com").covers(&wide));
        assert!(wide.covers(&wide) && !wide.covers(&pattern("https://*.eu.example.com")));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_an_example() {
        for text in [
            "*",
            "api.example.com",
            "ftp://example.com",
            "https://*.com",
            "https://*",
            "https://*.*.example.com",
            "https://a*.example.com",
            "https://user@example.com",
            "https://example.com/path",
            "https://example.com?x",
            "https://exam ple.com",
            "https://example.com\\@evil.org",
            "https://*.1.2.3.4",
            "https://%2a.example.com",
            "https://",
            "",
        ] {
            let error = OriginPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains("https://api.example.com:443"), "{text}: {error}");
        }
    }
}

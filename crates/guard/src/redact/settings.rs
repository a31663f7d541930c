//! What is taken out of answers, as the operator configures it. Guards that switching secrets off takes a sentence, not a
//! slip, and that an operator's own pattern cannot be unbounded.

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The words that switch the redaction of secrets off.
pub const ALLOW_SECRETS: &str = "i-understand";

/// Most patterns of the operator's own.
const MAX_PATTERNS: usize = 64;
/// Longest text of one pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// Largest compiled form of one pattern, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// Taken out.
    #[default]
    On,
    /// Left in.
    Off,
}

/// Which addresses become pseudonyms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressMode {
    /// None.
    Off,
    /// Those of the public internet; private, loopback, link-local and shared (RFC 6598) addresses stay readable,
    /// because they name machines and not people.
    #[default]
    Public,
    /// All but the unspecified address.
    All,
}

/// Personal data that becomes a pseudonym such as `[email:91c2a07f]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PersonalSettings {
    /// E-mail addresses.
    pub email: Switch,
    /// IPv4 and IPv6 addresses.
    pub ip: AddressMode,
    /// Payment card numbers (checked with Luhn's digit).
    pub card: Switch,
    /// Bank account numbers (ISO 13616, checked modulo 97).
    pub iban: Switch,
    /// Telephone numbers (E.164 with `+`, or plainly formatted).
    pub phone: Switch,
}

/// A pattern of the operator's own. What it matches becomes `[redacted:name]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtraPattern {
    /// Lower-case letters, digits and `-`, 1 to 32 of them.
    pub name: String,
    /// A regular expression (linear time: no look-around, no back-references). A group named `v`, if there is one, is what
    /// goes; otherwise the whole match.
    pub regex: String,
}

/// What is taken out of every answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedactionSettings {
    /// Credentials of every kind. `off` needs `allow_secrets: i-understand` beside it.
    pub secrets: Switch,
    /// Names the risk of `secrets: off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_secrets: Option<String>,
    /// Personal data.
    pub pii: PersonalSettings,
    /// Patterns of the operator's own, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_patterns: Vec<ExtraPattern>,
}

/// Settings that cannot be used; the operator can fix each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactionFault {
    /// Secrets are off without the words that say so.
    #[error(
        "'secrets: off' shows every credential to every agent; if that is meant, write 'allow_secrets: {ALLOW_SECRETS}' beside it"
    )]
    SecretsOff,
    /// The words are there and secrets are not off.
    #[error("'allow_secrets' is only read beside 'secrets: off', and its one value is '{ALLOW_SECRETS}'")]
    Idle,
    /// Too many patterns.
    #[error("{0} extra patterns, at most {MAX_PATTERNS} are allowed")]
    Many(usize),
    /// A pattern that cannot be used.
    #[error("extra pattern '{name}': {reason}")]
    Pattern {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

impl RedactionSettings {
    /// Whether secrets go.
    pub(crate) fn secrets_go(&self) -> bool {
        self.secrets == Switch::On
    }

    /// Checks them, and compiles the extra patterns.
    pub(crate) fn compile(&self) -> Result<Vec<(String, Regex)>, RedactionFault> {
        match (self.secrets, self.allow_secrets.as_deref()) {
            (Switch::Off, Some(ALLOW_SECRETS)) | (Switch::On, None) => {}
            (Switch::Off, _) => return Err(RedactionFault::SecretsOff),
            (Switch::On, Some(_)) => return Err(RedactionFault::Idle),
        }
        if self.extra_patterns.len() > MAX_PATTERNS {
            return Err(RedactionFault::Many(self.extra_patterns.len()));
        }
        self.extra_patterns.iter().map(compile_pattern).collect()
    }
}

fn compile_pattern(pattern: &ExtraPattern) -> Result<(String, Regex), RedactionFault> {
    let fault = |reason: String| RedactionFault::Pattern { name: pattern.name.chars().take(64).collect(), reason };
    let named = (1..=32).contains(&pattern.name.len())
        && pattern.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !named {
        return Err(fault("a name is 1 to 32 lower-case letters, digits and '-'".into()));
    }
    if pattern.regex.len() > MAX_PATTERN_BYTES {
        return Err(fault(format!("{} bytes long, at most {MAX_PATTERN_BYTES} are allowed", pattern.regex.len())));
    }
    let regex = RegexBuilder::new(&pattern.regex)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(2 * MAX_COMPILED_BYTES)
        .nest_limit(32)
        .build()
        .map_err(|e| fault(e.to_string()))?;
    if regex.is_match("") {
        return Err(fault("it matches the empty text, so it would mark every place".into()));
    }
    Ok((pattern.name.clone(), regex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<RedactionSettings, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn everything_is_on_by_default() {
        let settings = read(json!({})).unwrap();
        assert!(settings.secrets_go());
        assert_eq!(settings.pii.ip, AddressMode::Public);
        assert_eq!(settings.pii.email, Switch::On);
        assert_eq!(settings.compile().unwrap().len(), 0);
    }

    #[test]
    fn secrets_stay_on_unless_the_risk_is_named() {
        let off = read(json!({"secrets": "off"})).unwrap();
        assert_eq!(off.compile().unwrap_err(), RedactionFault::SecretsOff);
        let wrong = read(json!({"secrets": "off", "allow_secrets": "yes"})).unwrap();
        assert_eq!(wrong.compile().unwrap_err(), RedactionFault::SecretsOff);
        let named = read(json!({"secrets": "off", "allow_secrets": "i-understand"})).unwrap();
        assert!(named.compile().is_ok() && !named.secrets_go());
        let idle = read(json!({"allow_secrets": "i-understand"})).unwrap();
        assert_eq!(idle.compile().unwrap_err(), RedactionFault::Idle);
    }

    #[test]
    fn misspelt_settings_are_refused_by_name() {
        assert!(read(json!({"secret": "on"})).unwrap_err().to_string().contains("secret"));
        assert!(read(json!({"pii": {"mail": "on"}})).unwrap_err().to_string().contains("mail"));
        assert!(read(json!({"pii": {"ip": "private"}})).unwrap_err().to_string().contains("private"));
    }

    #[test]
    fn extra_patterns_are_bounded() {
        let with = |name: &str, regex: &str| RedactionSettings {
            extra_patterns: vec![ExtraPattern { name: name.into(), regex: regex.into() }],
            ..RedactionSettings::default()
        };
        assert_eq!(with("order", r"ORD-\d{6}").compile().unwrap().len(), 1);
        for (name, regex, word) in [
            ("Order", "x", "lower-case"),
            ("order", "(", "regex parse error"),
            ("order", "a*", "empty text"),
            ("order", r"(?:\pL{1,1000}){1,1000}", "size"),
        ] {
            let reason = with(name, regex).compile().unwrap_err().to_string();
            assert!(reason.contains(word), "{reason}");
        }
        assert!(with("order", &"x".repeat(2_000)).compile().is_err());
        let many = vec![ExtraPattern { name: "a".into(), regex: "x".into() }; 65];
        assert_eq!(
            RedactionSettings { extra_patterns: many, ..Default::default() }.compile().unwrap_err(),
            RedactionFault::Many(65)
        );
    }
}

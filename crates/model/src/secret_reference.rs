//! Where a secret is kept, as an operator writes it: `env:NAME`, `file:/path`, `vault:store/path#field`, `secret:name`, or
//! the value itself. Guards that a literal value never prints. Must not look anything up; the secret manager does.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Secret;

/// Where a secret is kept. Prints as it was written, except that a literal value prints as `***`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretReference {
    /// The value stands in the configuration, usually by way of `${VAR}`. Written as it is, or with `text:` before it
    /// when it begins like one of the other forms.
    Literal(Secret),
    /// `env:NAME`: an environment variable of this process.
    Environment(String),
    /// `file:/absolute/path`.
    File(PathBuf),
    /// `vault:store/path/below/the/mount#field`.
    Store {
        /// Name of the configured store.
        store: String,
        /// Parts of the path below the store's mount.
        path: Vec<String>,
        /// The field of the secret.
        field: String,
    },
    /// `secret:name`: an entry of the `secrets` section.
    Named(String),
}

/// Text that begins like a reference and is none. Never holds what comes after the first colon, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what stands after '{form}' {reason}; write {example}, or text:… for a value that begins with '{form}'")]
pub struct InvalidSecretReference {
    form: &'static str,
    reason: &'static str,
    example: &'static str,
}

/// Longest name of an environment variable, an entry or a store.
const LONGEST_NAME: usize = 128;

/// Whether `name` can name an entry of the `secrets` section or a store: lower-case letters, digits, `-`, `_` and `.`.
pub fn is_secret_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(letter)
}

fn is_variable(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.len() <= LONGEST_NAME && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl FromStr for SecretReference {
    type Err = InvalidSecretReference;

    fn from_str(text: &str) -> Result<Self, InvalidSecretReference> {
        let wrong = |form, reason, example| Err(InvalidSecretReference { form, reason, example });
        if let Some(value) = text.strip_prefix("text:") {
            return Ok(Self::Literal(Secret::new(value)));
        }
        if let Some(name) = text.strip_prefix("env:") {
            return if is_variable(name) {
                Ok(Self::Environment(name.to_owned()))
            } else {
                wrong("env:", "is not the name of an environment variable", "env:PROMETHEUS_TOKEN")
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            // `file:///path` is how a URL would say it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') && !path.contains(char::is_control) {
                Ok(Self::File(PathBuf::from(path)))
            } else {
                wrong("file:", "is not an absolute path", "file:/run/secrets/prometheus-token")
            };
        }
        if let Some(name) = text.strip_prefix("secret:") {
            return if is_secret_name(name) {
                Ok(Self::Named(name.to_owned()))
            } else {
                wrong("secret:", "is not the name of an entry in the secrets section", "secret:prometheus-token")
            };
        }
        if let Some(rest) = text.strip_prefix("vault:") {
            let read = || {
                let (location, field) = rest.rsplit_once('#')?;
                let mut parts = location.split('/').map(str::to_owned);
                let store = parts.next().filter(|s| is_secret_name(s))?;
                let path: Vec<String> = parts.collect();
                let sound = |p: &String| !p.is_empty() && p != "." && p != ".." && !p.contains(char::is_control);
                let good = !path.is_empty() && path.iter().all(sound) && !field.is_empty() && !field.contains(char::is_control);
                good.then(|| Self::Store { store, path, field: field.to_owned() })
            };
            return match read() {
                Some(reference) => Ok(reference),
                None => wrong("vault:", "does not name a store, a path and a field", "vault:main/apps/prometheus#token"),
            };
        }
        Ok(Self::Literal(Secret::new(text)))
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(secret) => write!(f, "{secret}"),
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Store { store, path, field } => write!(f, "vault:{store}/{}#{field}", path.join("/")),
            Self::Named(name) => write!(f, "secret:{name}"),
        }
    }
}

impl From<Secret> for SecretReference {
    fn from(secret: Secret) -> Self {
        Self::Literal(secret)
    }
}

impl Serialize for SecretReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Wiped as soon as it has been read.
        let text = Secret::deserialize(deserializer)?;
        text.expose().parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed_as_it_was_written() {
        for text in ["env:TOKEN_1", "file:/run/secrets/token", "vault:main/apps/prometheus#token", "secret:prom-token"] {
            let reference: SecretReference = text.parse().unwrap();
            assert!(!matches!(reference, SecretReference::Literal(_)), "{text}");
            assert_eq!(reference.to_string(), text);
            assert_eq!(serde_json::to_string(&reference).unwrap(), format!("\"{text}\""));
        }
        assert_eq!("file:///a".parse::<SecretReference>().unwrap(), SecretReference::File("/a".into()));
        for (text, value) in [("hunter2", "hunter2"), ("text:env:X", "env:X"), ("", ""), ("a:b", "a:b")] {
            let reference: SecretReference = text.parse().unwrap();
            assert_eq!(reference, SecretReference::Literal(Secret::new(value)));
            assert_eq!(format!("{reference} {}", serde_json::to_string(&reference).unwrap()), "*** \"***\"");
            assert!(value.is_empty() || !format!("{reference:?}").contains(value));
        }
    }

    #[test]
    fn what_begins_like_a_reference_and_is_none_is_refused_without_being_shown() {
        for text in [
            "env:",
            "env:1hunter2",
            "env:hunter2 x",
            "file:hunter2",
            "file:/a\nhunter2",
            "secret:Hunter2",
            "secret:",
            "vault:hunter2",
            "vault:main/hunter2",
            "vault:main/#hunter2",
            "vault:main/../hunter2#f",
            "vault:Main/hunter2#f",
            "vault:main/hunter2#",
        ] {
            let error = text.parse::<SecretReference>().expect_err(text).to_string();
            assert!(!error.to_lowercase().contains("hunter2"), "{error}");
            assert!(error.contains("text:"), "{error}");
        }
    }
}

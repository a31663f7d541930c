//! Environment variables that carry secrets, and what a child process may inherit. Guards twice: by what the configuration
//! and the names themselves say, and by a list of what is harmless, so that a variable nobody thought of stays here too.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use portcullis_model::SecretReference;
use serde_json::Value;

/// What programs need to find their way, and what carries no secret.
const HARMLESS: [&str; 12] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Words that say secret, as a part of a name between underscores.
const WORDS: [&str; 22] = [
    "SECRET",
    "SECRETS",
    "TOKEN",
    "TOKENS",
    "PASSWORD",
    "PASSWORDS",
    "PASSWD",
    "PASSPHRASE",
    "PASS",
    "CREDENTIAL",
    "CREDENTIALS",
    "KEY",
    "KEYS",
    "APIKEY",
    "AUTH",
    "AUTHORIZATION",
    "BEARER",
    "COOKIE",
    "JWT",
    "PAT",
    "DSN",
    "KUBECONFIG",
];

/// Endings that say secret without an underscore before them: `GITHUBTOKEN`, `PGPASSWORD`.
const ENDINGS: [&str; 7] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "APIKEY", "CREDENTIALS"];

/// The names of the environment variables that carry secrets, sorted: those the configuration refers to as `env:NAME`,
/// those it was filled from (`${NAME}`, in `filled`), and those of this process whose names or values say so. `settings` is
/// the configuration as it is written out: references as they stand, values as `***`.
///
/// Nothing this process starts may inherit them; see [`scrubbed_environment`].
pub fn secret_variables<'a>(settings: &Value, filled: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let own = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let telling = own.filter(|(name, value)| says_secret(name) || value.to_str().is_some_and(holds_user_and_password));
    referred(settings).into_iter().chain(filled.into_iter().cloned()).chain(telling.map(|(name, _)| name)).collect()
}

/// Every `env:NAME` among the strings of `settings`.
fn referred(settings: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![settings];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => {
                if let Ok(SecretReference::Environment(name)) = text.parse() {
                    found.insert(name);
                }
            }
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    found
}

/// Whether the name of a variable says that it carries a secret, in any case: `PROMETHEUS_TOKEN`, `AWS_SECRET_ACCESS_KEY`,
/// `PGPASSWORD`. Errs towards yes.
pub fn says_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let word = name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| WORDS.contains(&part));
    word || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a value is an address with a user and a password in it, such as `postgres://app:hunter2@db/shop`.
fn holds_user_and_password(value: &str) -> bool {
    value.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next()).is_some_and(|authority| {
        authority.rsplit_once('@').is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, password)| !password.is_empty()))
    })
}

/// The environment for a child process: harmless variables only, and none of `carriers`, whatever it is called. Clear the
/// child's environment and set these; what a child is to know beyond them is given to it by name.
pub fn scrubbed_environment(carriers: &BTreeSet<String>) -> Vec<(OsString, OsString)> {
    scrubbed(std::env::vars_os(), carriers)
}

fn scrubbed(all: impl Iterator<Item = (OsString, OsString)>, carriers: &BTreeSet<String>) -> Vec<(OsString, OsString)> {
    let carries = |name: &OsStr| name.to_str().is_none_or(|name| carriers.contains(name));
    let harmless = |name: &OsStr| name.to_str().is_some_and(|n| HARMLESS.contains(&n) || n.starts_with("LC_"));
    all.filter(|(name, _)| harmless(name) && !carries(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_could_be_a_secret_is_inherited() {
        let all = ["PATH", "LC_ALL", "TZ", "PROMETHEUS_TOKEN", "AWS_SECRET_ACCESS_KEY", "path", "TERM"];
        let all = all.map(|name| (OsString::from(name), OsString::from("value")));
        let kept = scrubbed(all.into_iter(), &["TERM".to_owned()].into());
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "LC_ALL", "TZ"]);
    }

    #[test]
    fn names_that_say_secret_are_known_and_ordinary_ones_are_not() {
        for name in [
            "PROMETHEUS_TOKEN",
            "prometheus_token",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUBTOKEN",
            "PGPASSWORD",
            "DB_PASS",
            "OPENAI_API_KEY",
            "VAULT-TOKEN",
            "SSH_AUTH_SOCK",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "SENTRY_DSN",
        ] {
            assert!(says_secret(name), "{name}");
        }
        for name in ["PATH", "PWD", "OLDPWD", "HOME", "KEYBOARD", "MONKEY", "TOKENIZERS_PARALLELISM", "COMPASS_HOME", "LC_ALL"] {
            assert!(!says_secret(name), "{name}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_seen() {
        for (value, secret) in [
            ("postgres://app:hunter2@db.example/shop", true),
            ("https://token:x@host", true),
            ("redis://:hunter2@cache:6379", true),
            ("https://user@host/a:b@c", false),
            ("https://host/path?mail=a:b@c", false),
            ("a:b@c", false),
            ("http://[::1]:8080/", false),
        ] {
            assert_eq!(holds_user_and_password(value), secret, "{value}");
        }
    }

    #[test]
    fn what_the_configuration_refers_to_is_a_carrier_whatever_it_is_called() {
        let settings = json!({
            "secrets": [{"name": "a", "reference": "env:HARMLESS_LOOKING"}],
            "sources": [{"auth": {"basic": {"user": "u", "password": "env:LANG"}}, "url": "http://env"}],
            "roles": ["env:", "text:env:NOT_ONE", "***"]
        });
        let filled = ["PORT".to_owned()];
        let carriers = secret_variables(&settings, &filled);
        assert!(carriers.contains("HARMLESS_LOOKING") && carriers.contains("LANG") && carriers.contains("PORT"));
        assert!(!carriers.contains("NOT_ONE") && !carriers.contains("PATH"));
        let all = ["PATH", "LANG"].map(|name| (OsString::from(name), OsString::from("value")));
        let kept = scrubbed(all.into_iter(), &carriers);
        assert_eq!(kept.len(), 1, "a harmless name that carries a secret here stays here");
    }
}

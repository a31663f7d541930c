//! What a child process may inherit. Guards by a list of what is harmless: a variable that carries a secret is left out
//! without anybody having to name it.

use std::ffi::{OsStr, OsString};

/// What programs need to find their way, and what carries no secret.
const HARMLESS: [&str; 12] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The environment for a child process: harmless variables only, and none of `carriers`, whatever it is called. Clear the
/// child's environment and set these.
pub fn scrubbed_environment(carriers: &[String]) -> Vec<(OsString, OsString)> {
    scrubbed(std::env::vars_os(), carriers)
}

fn scrubbed(all: impl Iterator<Item = (OsString, OsString)>, carriers: &[String]) -> Vec<(OsString, OsString)> {
    let carries = |name: &OsStr| carriers.iter().any(|c| OsStr::new(c) == name);
    let harmless = |name: &OsStr| name.to_str().is_some_and(|n| HARMLESS.contains(&n) || n.starts_with("LC_"));
    all.filter(|(name, _)| harmless(name) && !carries(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_be_a_secret_is_inherited() {
        let all = ["PATH", "LC_ALL", "TZ", "PROMETHEUS_TOKEN", "AWS_SECRET_ACCESS_KEY", "path", "TERM"];
        let all = all.map(|name| (OsString::from(name), OsString::from("value")));
        let kept = scrubbed(all.into_iter(), &["TERM".to_owned()]);
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "LC_ALL", "TZ"]);
    }
}

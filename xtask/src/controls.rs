//! `docs/security/controls.md` says of every control which test proves it. Guards that each named test is there, and that
//! it ran and passed. Must not judge whether a test proves what is said: that is for readers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;

use crate::finding::Finding;

/// The page with the table of controls.
const PAGE: &str = "docs/security/controls.md";

/// What stands in the last column where there is no test.
const NOT_MET: &str = "not met";

/// What the operator or the platform has to provide.
const ENVIRONMENT: &str = "environment";

/// Checks the page below `root`; with `ran`, the output of `cargo test`, also that every named test passed.
pub(crate) fn check(root: &Path, ran: Option<&str>) -> anyhow::Result<Vec<Finding>> {
    let text = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let passed = ran.map(Passed::read);
    let mut findings = Vec::new();
    let mut sources: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut named = 0;
    for (line, proof) in proofs(&text) {
        let place = format!("{PAGE}:{line}");
        let tests: Vec<&str> = proof.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
        let lower = proof.to_ascii_lowercase();
        if tests.is_empty() && !lower.starts_with(NOT_MET) && !lower.starts_with(ENVIRONMENT) {
            findings
                .push(Finding::new(place.clone(), format!("has neither a test nor the words '{NOT_MET}' or '{ENVIRONMENT}'")));
        }
        if tests.is_empty() && proof.trim().len() < NOT_MET.len() + 8 {
            findings.push(Finding::new(place.clone(), "does not say why not".to_owned()));
        }
        for test in tests {
            named += 1;
            let Some((path, name)) = test.split_once("::") else { continue };
            let source = sources.entry(path.to_owned()).or_insert_with(|| std::fs::read_to_string(root.join(path)).ok());
            let Some(source) = source else {
                findings.push(Finding::new(place.clone(), format!("names {path}, which does not exist")));
                continue;
            };
            if !is_test(source, name) {
                findings.push(Finding::new(place.clone(), format!("names the test '{name}', which {path} does not have")));
            } else if let Some(passed) = &passed
                && !passed.has(path, name)
            {
                findings
                    .push(Finding::new(place.clone(), format!("names the test '{name}' of {path}, which did not run and pass")));
            }
        }
    }
    if named == 0 {
        findings.push(Finding::new(PAGE.to_owned(), "names no test at all".to_owned()));
    }
    Ok(findings)
}

/// The last cell of each row of each table, with its line.
fn proofs(text: &str) -> Vec<(usize, &str)> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.starts_with('|') {
            in_table = false;
            continue;
        }
        let separator = line.bytes().all(|b| matches!(b, b'|' | b'-' | b':' | b' '));
        if separator {
            in_table = true;
        } else if in_table {
            let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
            rows.push((number + 1, cell.trim()));
        }
    }
    rows
}

/// Whether `source` has a test of that name: by attribute, or inside `proptest!`.
fn is_test(source: &str, name: &str) -> bool {
    let wanted = format!("fn {name}(");
    let (mut marked, mut in_attribute) = (false, false);
    for line in source.lines() {
        let line = line.trim();
        if in_attribute {
            in_attribute = !line.starts_with(")]");
            continue;
        }
        in_attribute = line.starts_with("#[") && !line.ends_with(']');
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        }
        if line.contains(&wanted) && (line.starts_with("fn ") || line.starts_with("async fn ") || line.starts_with("pub")) {
            return marked;
        }
        if !(line.is_empty() || line.starts_with("#[") || line.starts_with("//")) {
            marked = false;
        }
    }
    false
}

/// The tests that passed, by the source root of the binary that ran them.
#[derive(Debug, Default)]
struct Passed {
    by_target: BTreeMap<String, BTreeSet<String>>,
}

impl Passed {
    /// Reads the output of `cargo test`: `Running tests/it/main.rs (…)`, then `test some::path ... ok`.
    fn read(output: &str) -> Self {
        let mut passed = Self::default();
        let mut target = String::new();
        for line in output.lines() {
            let line = without_colour(line);
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("Running ") {
                target = target_of(rest);
            } else if line.starts_with("Doc-tests") {
                target.clear();
            } else if let Some(rest) = line.strip_prefix("test ") {
                // A test that prints has its words between its name and its end.
                let name = rest.split(" ... ").next().unwrap_or_default().trim_end_matches(" - should panic");
                if rest.ends_with(" ok") || rest.ends_with("... ok") {
                    passed.by_target.entry(target.clone()).or_default().insert(name.to_owned());
                }
            }
        }
        passed
    }

    /// Whether the test `name` of the file at `path` passed.
    fn has(&self, path: &str, name: &str) -> bool {
        let (package, inner) = split(path);
        let wanted = module_of(inner);
        self.by_target.iter().filter(|(target, _)| target.starts_with(&package)).any(|(target, names)| {
            let unit = target[package.len()..].starts_with(":src/");
            unit == inner.starts_with("src/") && names.iter().any(|full| fits(full, &wanted, name))
        })
    }
}

/// Whether the full name of a test ends with its module (where that is told) and its name.
fn fits(full: &str, module: &str, name: &str) -> bool {
    let Some(before) = full.strip_suffix(name) else { return false };
    let before = before.trim_end_matches("::");
    module.is_empty() || before == module || before.starts_with(&format!("{module}::"))
}

/// `unittests src/lib.rs (target/debug/deps/portcullis_guard-…)` as `portcullis_guard:src/lib.rs`; `tests/it/main.rs` of a
/// package is told by the binary's name only when the package is, so the path stands for it.
fn target_of(rest: &str) -> String {
    let source = rest.trim_start_matches("unittests ").split(' ').next().unwrap_or_default();
    let binary = rest.rsplit('/').next().unwrap_or_default().trim_end_matches(')');
    let stem = binary.rsplit_once('-').map_or(binary, |(stem, _)| stem);
    format!("{stem}:{source}")
}

/// The name cargo gives a package's binaries, and the path inside of the package.
fn split(path: &str) -> (String, &str) {
    let Some(rest) = path.strip_prefix("crates/") else {
        return ("xtask".to_owned(), path.strip_prefix("xtask/").unwrap_or(path));
    };
    let (folder, inner) = rest.split_once('/').unwrap_or((rest, ""));
    let unit = if folder == "portcullis" { "portcullis".to_owned() } else { format!("portcullis_{}", folder.replace('-', "_")) };
    (if inner.starts_with("src/") { unit } else { "it".to_owned() }, inner)
}

/// The module a file is, as test names have it.
fn module_of(inner: &str) -> String {
    let inner =
        inner.trim_start_matches("src/").trim_start_matches("tests/it/").trim_start_matches("tests/").trim_end_matches(".rs");
    let parts: Vec<&str> = inner.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main" | "it")).collect();
    parts.join("::")
}

/// The line without escape sequences.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        rest = rest[at..].find('m').map_or("", |end| &rest[at + end + 1..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#[test]\nfn a_unit() {}\n\nfn helper() {}\n\n#[tokio::test(flavor = \"multi_thread\")]\n#[expect(\n    x,\n    reason = \"y\"\n)]\nasync fn a_task() {}\nproptest! {\n    #[test]\n    fn a_property(text in \".*\") {}\n}\n";

    #[test]
    fn tests_are_told_from_helpers() {
        for name in ["a_unit", "a_property"] {
            assert!(is_test(SOURCE, name), "{name}");
        }
        assert!(!is_test(SOURCE, "helper") && !is_test(SOURCE, "nothing"));
    }

    #[test]
    fn what_passed_is_read_from_the_output() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/portcullis_guard-0a)\ntest redact::tests::a_unit ... ok\ntest redact::tests::broken ... FAILED\n\u{1b}[32m     Running\u{1b}[0m tests/it/main.rs (/x/it-1b2c)\ntest keys::a_task ... said something ok\n";
        let passed = Passed::read(output);
        assert!(passed.has("crates/guard/src/redact/mod.rs", "a_unit"));
        assert!(!passed.has("crates/guard/src/redact/mod.rs", "broken"));
        assert!(!passed.has("crates/audit/src/redact/mod.rs", "a_unit"));
        assert!(passed.has("crates/portcullis/tests/it/keys.rs", "a_task"));
        assert!(!passed.has("crates/portcullis/tests/it/doors.rs", "a_task"));
    }

    #[test]
    fn a_page_with_holes_is_found() {
        let root = std::env::temp_dir().join(format!("xtask-controls-{}", std::process::id()));
        std::fs::create_dir_all(root.join("docs/security")).unwrap();
        std::fs::create_dir_all(root.join("crates/a/src")).unwrap();
        std::fs::write(root.join("crates/a/src/lib.rs"), SOURCE).unwrap();
        let rows = [
            "| keys | a | on | `crates/a/src/lib.rs::a_unit` |",
            "| gone | a | on | `crates/a/src/lib.rs::was_removed`, `crates/b/src/lib.rs::a` |",
            "| later | – | – | not met: no such feature yet |",
            "| why | – | – | not met |",
            "| said | a | on | surely |",
        ];
        std::fs::write(
            root.join(PAGE),
            format!("| control | where | default | proof |\n|---|---|---|---|\n{}\n", rows.join("\n")),
        )
        .unwrap();
        let found: Vec<String> = check(&root, None).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found[0].contains("was_removed") && found[1].contains("crates/b/src/lib.rs"), "{found:#?}");
        let ran = "Running unittests src/lib.rs (x/portcullis_a-1)\ntest a_task ... ok\n";
        let found: Vec<String> = check(&root, Some(ran)).unwrap().iter().map(ToString::to_string).collect();
        assert!(found[0].contains("did not run and pass"), "{found:#?}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}

//! What every file of the repository must look like: length, opening line, no ignored tests, no open marks, no paths of
//! somebody's machine, the house's lints in force. Reads only; must not look into generated or installed folders.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::finding::Finding;

/// Lines a source file may have.
const MOST_LINES: usize = 800;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "portcullis-data"];

/// Endings of files that are read as text.
const ENDINGS: &[&str] =
    &["rs", "toml", "md", "yaml", "yml", "json", "sh", "py", "mjs", "ts", "cedar", "sql", "txt", "html", "css", "js"];

/// Files written by tools, not by people.
const BY_TOOLS: &[&str] = &["Cargo.lock", "package-lock.json"];

// The words are put together here so that this file does not contain what it looks for.
/// Marks of unfinished work.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// What may not be in Rust sources: `(text, what to do instead)`.
const IN_RUST: &[(&str, &str)] = &[
    (concat!("#[ig", "nore"), "a test runs or does not exist; let it skip with a message when its input is absent"),
    (concat!("to", "do!("), "write the code or leave the path out"),
    (concat!("unimple", "mented!("), "write the code or leave the path out"),
    (concat!("db", "g!("), "remove the print, or log it"),
    (concat!("allow(unsafe", "_code)"), "unsafe code is forbidden in the whole house"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &["/ro\u{6f}t/", "/ho\u{6d}e/", "/Us\u{65}rs/", "/wo\u{72}k/", "C:\\Us\u{65}rs\\"];

/// Checks every file below `root`.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut paths = Vec::new();
    collect(root, root, &mut paths)?;
    paths.sort();
    let mut findings = Vec::new();
    for relative in paths {
        let full = root.join(&relative);
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
        // What is not text (recorded messages, archives) has no lines to judge.
        if let Ok(text) = String::from_utf8(bytes) {
            findings.extend(judge(&relative.to_string_lossy().replace('\\', "/"), &text));
        }
    }
    Ok(findings)
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let ours = matches!(name.as_str(), ".ci" | ".cargo" | ".github") || !name.starts_with('.');
            if ours && !SKIPPED.contains(&name.as_str()) {
                collect(root, &path, into)?;
            }
        } else if kind.is_file() && is_text(&path, &name) {
            into.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
        }
    }
    Ok(())
}

fn is_text(path: &Path, name: &str) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().into_owned());
    let script = ending.is_none() && path.parent().and_then(Path::file_name).is_some_and(|folder| folder == ".ci");
    !BY_TOOLS.contains(&name) && (script || ending.is_some_and(|e| ENDINGS.contains(&e.as_str())))
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

/// Judges one file; `path` is relative to the root, with forward slashes.
fn judge(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rust = path.rsplit_once('.').is_some_and(|(_, ending)| ending == "rs");
    if rust {
        let lines = text.lines().count();
        if lines > MOST_LINES && !is_test(path) {
            findings.push(Finding::new(path, format!("has {lines} lines; split it, at most {MOST_LINES}")));
        }
        if !text.starts_with("//!") {
            findings.push(Finding::new(path, "does not open with `//!`: say what the file guards and what it must not do"));
        }
    }
    let manifest = path.ends_with("Cargo.toml") && text.contains("[package]");
    if manifest && !text.contains("[lints]\nworkspace = true") {
        findings.push(Finding::new(path, "does not take the workspace's lints; add `[lints]` with `workspace = true`"));
    }
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{path}:{}", number + 1);
        if rust {
            let forbidden = IN_RUST.iter().filter(|(word, _)| line.contains(word));
            findings.extend(forbidden.map(|(word, instead)| Finding::new(place(), format!("`{word}`: {instead}"))));
        }
        // What others published, and tests read, stays as it was.
        if path.contains("/tests/corpus/") {
            continue;
        }
        let marks = MARKS.iter().filter(|mark| has_word(line, mark));
        findings.extend(marks.map(|mark| Finding::new(place(), format!("'{mark}': finish it or leave it out"))));
        if let Some(prefix) = MACHINE_PATHS.iter().find(|prefix| has_path(line, prefix)) {
            findings.push(Finding::new(place(), format!("'{prefix}…' is a path of one machine; make it relative or a setting")));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(joins) && !after.is_some_and(joins)
    })
}

/// Whether an absolute path with this beginning stands in the line: not the middle of a URL, of another
/// path or of a line of a password file.
fn has_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '~' | '}' | '*' | '%' | ':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: &str, text: &str) -> Vec<String> {
        judge(path, text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        assert_eq!(judged("crates/a/src/lib.rs", "//! Guards.\n\nfn f() {}\n"), Vec::<String>::new());
        assert_eq!(judged("crates/a/Cargo.toml", "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"), Vec::<String>::new());
        let long = format!("//! Guards.\n{}", "\n".repeat(900));
        assert_eq!(judged("crates/a/tests/it/main.rs", &long), Vec::<String>::new());
    }

    #[test]
    fn length_and_opening_are_checked() {
        let long = format!("//! Guards.\n{}", "\n".repeat(800));
        assert_eq!(judged("crates/a/src/lib.rs", &long), ["crates/a/src/lib.rs: has 801 lines; split it, at most 800"]);
        let findings = judged("crates/a/tests/it.rs", "fn f() {}\n");
        assert!(findings[0].contains("does not open with `//!`"), "{findings:?}");
    }

    #[test]
    fn a_crate_outside_the_lints_is_found() {
        let findings = judged("crates/a/Cargo.toml", "[package]\nname = \"a\"\n");
        assert!(findings[0].contains("workspace's lints"), "{findings:?}");
    }

    #[test]
    fn every_forbidden_text_is_found_with_its_line() {
        for (word, _) in IN_RUST {
            let findings = judged("crates/a/src/b.rs", &format!("//! Guards.\n{word}\n"));
            assert_eq!(findings.len(), 1, "{word}: {findings:?}");
            assert!(findings[0].starts_with("crates/a/src/b.rs:2: "), "{findings:?}");
            assert_eq!(judged("docs/a.md", word), Vec::<String>::new());
        }
        for mark in MARKS {
            assert_eq!(judged("docs/a.md", &format!("a {mark}: b")).len(), 1, "{mark}");
            assert_eq!(judged("docs/a.md", &format!("a{mark}b {mark}_c")), Vec::<String>::new());
        }
        for prefix in MACHINE_PATHS {
            assert_eq!(judged("docs/a.md", &format!("see \"{prefix}a\"")).len(), 1, "{prefix}");
            assert_eq!(judged("docs/a.md", &format!("see https://example.com{prefix}a")), Vec::<String>::new());
        }
    }

    #[test]
    fn installed_and_hidden_folders_are_left_alone() {
        let root = std::env::temp_dir().join(format!("xtask-files-{}", std::process::id()));
        let bad = format!("{}\n", MARKS[0]);
        for folder in ["a/node_modules/b", "target/c", ".venv/d", ".ci", "docs"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["a/node_modules/b/x.md", "target/c/x.rs", ".venv/d/x.py", ".ci/run", "docs/x.md", "docs/x.bin", "Cargo.lock"]
        {
            std::fs::write(root.join(file), &bad).unwrap();
        }
        let places: Vec<String> =
            check(&root).unwrap().iter().map(|f| f.to_string().split(": ").next().unwrap().to_owned()).collect();
        assert_eq!(places, [".ci/run:1", "docs/x.md:1"]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

//! What the documentation promises must exist: the files it links to, and the tests `SECURITY.md` names. Must not judge
//! what is said, and must not reach the network.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::finding::Finding;

/// Where pages are, besides those in the root itself.
const FOLDERS: &[&str] = &["docs", "crates", "tests"];

/// The page whose tests must exist.
const SECURITY: &str = "SECURITY.md";

/// Checks every page below `root`.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let (mut pages, mut sources) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let path = entry?.path();
        if path.is_file() && has_ending(&path, "md") {
            pages.push(path);
        }
    }
    for folder in FOLDERS {
        collect(&root.join(folder), &mut pages, &mut sources)?;
    }
    pages.sort();
    let mut findings = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
        let name = page.strip_prefix(root).unwrap_or(page).to_string_lossy().replace('\\', "/");
        let folder = page.parent().unwrap_or(root);
        for (line, target) in links(&text) {
            if !folder.join(&target).exists() {
                findings.push(Finding::new(format!("{name}:{line}"), format!("links to '{target}', which does not exist")));
            }
        }
        if name == SECURITY {
            findings.extend(promises(&name, &text, root, &sources)?);
        }
    }
    Ok(findings)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e == ending)
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>, sources: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "node_modules" && name != "target" && !name.to_string_lossy().starts_with('.') {
                collect(&path, pages, sources)?;
            }
        } else if has_ending(&path, "md") {
            pages.push(path);
        } else if has_ending(&path, "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

/// Relative targets of `[words](target)`, with their line, outside code blocks and without the part behind `#`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split('#').next().unwrap_or_default().trim_matches(['<', '>']);
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((number + 1, target.to_owned()));
            }
            rest = &rest[end..];
        }
    }
    found
}

/// Words between backticks that look like the name of a test, or like a path to tests, and are none.
fn promises(page: &str, text: &str, root: &Path, sources: &[PathBuf]) -> anyhow::Result<Vec<Finding>> {
    let mut everything = String::new();
    for source in sources {
        everything.push_str(&std::fs::read_to_string(source).with_context(|| format!("cannot read {}", source.display()))?);
    }
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            let place = format!("{page}:{}", number + 1);
            let is_name =
                word.matches('_').count() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if is_name && !everything.contains(&format!("fn {word}(")) {
                findings.push(Finding::new(place, format!("names the test '{word}', which does not exist")));
            } else if word.contains("/tests/") && !root.join("crates").join(word).exists() {
                findings.push(Finding::new(place, format!("names crates/{word}, which does not exist")));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_links_are_found_and_others_are_not() {
        let text = "[a](b.md) and [c](../d/e.md#part), [f](https://example.com), [g](#here)\n```\n[h](i.md)\n```\n[j](k.md)";
        assert_eq!(links(text), [(1, "b.md".to_owned()), (1, "../d/e.md".to_owned()), (5, "k.md".to_owned())]);
    }

    #[test]
    fn broken_links_and_empty_promises_are_found() {
        let root = std::env::temp_dir().join(format!("xtask-docs-{}", std::process::id()));
        std::fs::create_dir_all(root.join("crates/a/tests")).unwrap();
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::fs::write(root.join("crates/a/tests/it.rs"), "fn a_stranger_is_refused() {}\n").unwrap();
        std::fs::write(root.join("docs/b.md"), "[up](../SECURITY.md) [gone](gone.md)\n").unwrap();
        let page =
            "`a_stranger_is_refused` in `a/tests/it.rs`\n`a_friend_is_let_in` in `a/tests/more.rs`, `plain`, `snake_case`\n";
        std::fs::write(root.join(SECURITY), page).unwrap();
        let findings: Vec<String> = check(&root).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            findings,
            [
                "SECURITY.md:2: names the test 'a_friend_is_let_in', which does not exist",
                "SECURITY.md:2: names crates/a/tests/more.rs, which does not exist",
                "docs/b.md:1: links to 'gone.md', which does not exist",
            ]
        );
        std::fs::remove_dir_all(&root).unwrap();
    }
}

//! `crates/README.md` must have one paragraph per crate, under the floor the crate stands on. Must not judge its words.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use crate::finding::Finding;
use crate::floors::HOUSE;

/// The page.
const PAGE: &str = "crates/README.md";
/// A paragraph shorter than this, in characters, says nothing.
const SHORTEST: usize = 40;

/// Checks the page against the folders.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let crates = root.join("crates");
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&crates).with_context(|| format!("cannot read {}", crates.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            folders.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    folders.sort();
    let text = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    Ok(compare(&folders, &text))
}

/// A paragraph: its line, the floor of its section if that has one, and its length.
struct Paragraph {
    line: usize,
    floor: Option<u8>,
    characters: usize,
}

fn compare(folders: &[String], text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut paragraphs: BTreeMap<&str, Paragraph> = BTreeMap::new();
    let (mut floor, mut current) = (None, None);
    for (number, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            floor = title.strip_prefix("Floor ").and_then(|rest| rest.split(':').next()).and_then(|n| n.trim().parse().ok());
        }
        if line.trim().is_empty() || line.starts_with('#') {
            current = None;
        } else if let Some(name) = line.strip_prefix("**").and_then(|rest| rest.split_once("**")).map(|(name, _)| name) {
            let paragraph = Paragraph { line: number + 1, floor, characters: line.chars().count() };
            if paragraphs.insert(name, paragraph).is_some() {
                findings.push(Finding::new(format!("{PAGE}:{}", number + 1), format!("describes {name} twice")));
            }
            current = Some(name);
        } else if let Some(paragraph) = current.and_then(|name| paragraphs.get_mut(name)) {
            paragraph.characters += line.chars().count();
        }
    }
    for folder in folders.iter().filter(|folder| !paragraphs.contains_key(folder.as_str())) {
        findings.push(Finding::new(PAGE, format!("has no paragraph that begins with **{folder}**")));
    }
    for (name, paragraph) in &paragraphs {
        let place = format!("{PAGE}:{}", paragraph.line);
        if !folders.iter().any(|folder| folder == name) {
            findings.push(Finding::new(place, format!("describes {name}, which is no crate")));
        } else if paragraph.characters < SHORTEST {
            findings
                .push(Finding::new(place, format!("says too little about {name}: what lives there, and what it must not do")));
        } else if let (Some(said), Some(own)) = (paragraph.floor, HOUSE.iter().find(|p| p.folder == *name))
            && said != own.floor
        {
            findings.push(Finding::new(place, format!("puts {name} on floor {said}; xtask/src/floors.rs says {}", own.floor)));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "Ids, principals, scopes and signals.\nPlain data and pure functions.";

    fn compared(folders: &[&str], text: &str) -> Vec<String> {
        let folders: Vec<String> = folders.iter().map(|f| (*f).to_owned()).collect();
        compare(&folders, text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_page_in_order_has_no_findings() {
        let page = format!("# Crates\n\n## Floor 1: words\n\n**model** {WORDS}\n\n## Beside\n\n**conformance-server** {WORDS}\n");
        assert_eq!(compared(&["model", "conformance-server"], &page), Vec::<String>::new());
    }

    #[test]
    fn missing_stray_double_and_empty_paragraphs_are_found() {
        let page = format!("## Floor 1: words\n\n**model** {WORDS}\n\n**attic** {WORDS}\n\n**model** Words.\n");
        assert_eq!(
            compared(&["model", "policy"], &page),
            [
                "crates/README.md:9: describes model twice",
                "crates/README.md: has no paragraph that begins with **policy**",
                "crates/README.md:6: describes attic, which is no crate",
                "crates/README.md:9: says too little about model: what lives there, and what it must not do",
            ]
        );
    }

    #[test]
    fn a_wrong_floor_is_found() {
        let page = format!("## Floor 2: rules\n\n**model** {WORDS}\n");
        assert_eq!(compared(&["model"], &page), ["crates/README.md:3: puts model on floor 2; xtask/src/floors.rs says 1"]);
    }
}

//! `crates/README.md`: one paragraph per crate, taken from the opening of its root file, so that it cannot drift.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::floors::{FLOORS, HOUSE};

const HEAD: &str = "\
<!-- Written by `cargo xtask crates-readme` from the opening lines of each crate. Edit those. -->
# The crates

A crate imports only crates of lower floors; rooms never import each other. `cargo xtask floors` checks it.
";

/// The whole file.
pub(crate) fn render(root: &Path) -> anyhow::Result<String> {
    let crates = root.join("crates");
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&crates).with_context(|| format!("cannot read {}", crates.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            folders.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    if let Some(stray) = folders.iter().find(|folder| !HOUSE.iter().any(|p| p.folder == **folder)) {
        bail!("crates/{stray} has no floor; give it one in xtask/src/floors.rs");
    }
    let mut text = HEAD.to_owned();
    for (floor, title) in FLOORS {
        let _ = writeln!(text, "\n## Floor {floor}: {title}\n");
        for place in HOUSE.iter().filter(|p| p.floor == floor && folders.iter().any(|f| f == p.folder)) {
            let folder = place.folder;
            let root_file = ["src/lib.rs", "src/main.rs"].iter().map(|f| crates.join(folder).join(f)).find(|f| f.is_file());
            let root_file = root_file.with_context(|| format!("crates/{folder} has neither src/lib.rs nor src/main.rs"))?;
            let source = std::fs::read_to_string(&root_file).with_context(|| format!("cannot read {}", root_file.display()))?;
            let paragraph = opening(&source)
                .with_context(|| format!("crates/{folder} does not open with a `//!` paragraph that says what it is for"))?;
            let purity = if place.pure { " *Pure.*" } else { "" };
            let _ = writeln!(text, "- **[{folder}]({folder})**: {paragraph}{purity}");
        }
    }
    Ok(text)
}

/// The first `//!` paragraph as one line, links reduced to their words.
fn opening(source: &str) -> Option<String> {
    let lines: Vec<&str> = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .collect();
    let text = without_links(&lines.join(" "));
    (!text.is_empty()).then_some(text)
}

/// `[words](target)` and `[words]` become `words`.
fn without_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let Some(close) = rest[open..].find(']').map(|at| open + at) else { break };
        out.push_str(&rest[..open]);
        out.push_str(&rest[open + 1..close]);
        rest = &rest[close + 1..];
        if rest.starts_with('(')
            && let Some(end) = rest.find(')')
        {
            rest = &rest[end + 1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_paragraph_is_taken_and_links_lose_their_target() {
        let source = "//! Guards [`Permit`](a::B) and\n//! [`Released`].\n//!\n//! More.\n\nmod a;\n";
        assert_eq!(opening(source).unwrap(), "Guards `Permit` and `Released`.");
        assert_eq!(opening("mod a;\n"), None);
        assert_eq!(opening("//!\nmod a;\n"), None);
        assert_eq!(without_links("an [open end"), "an [open end");
    }

    #[test]
    fn a_crate_without_a_place_or_an_opening_is_an_error() {
        let root = std::env::temp_dir().join(format!("xtask-crates-{}", std::process::id()));
        let model = root.join("crates/model/src");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(root.join("crates/model/Cargo.toml"), "").unwrap();
        std::fs::write(model.join("lib.rs"), "//! Words.\n").unwrap();
        assert!(render(&root).unwrap().contains("- **[model](model)**: Words. *Pure.*\n"));
        std::fs::write(model.join("lib.rs"), "mod a;\n").unwrap();
        assert!(render(&root).unwrap_err().to_string().contains("crates/model does not open"));
        std::fs::create_dir_all(root.join("crates/attic")).unwrap();
        std::fs::write(root.join("crates/attic/Cargo.toml"), "").unwrap();
        assert!(render(&root).unwrap_err().to_string().contains("crates/attic has no floor"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}

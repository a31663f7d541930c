//! The reference pages, written from what the built binary says of itself. Must not add facts of its own, except what to
//! do about an error code, which only people know.

mod cli;
mod errors;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Every generated file: path relative to the root, and its text.
pub(crate) fn render(binary: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let binary = Binary::new(binary)?;
    let schema: Value = serde_json::from_str(&binary.output(&["config", "schema"])?).context("config schema is not JSON")?;
    let listed: Value = serde_json::from_str(&binary.output(&["tools", "--json"])?).context("tools --json is not JSON")?;
    // The tools that reach others are listed only where something is hidden.
    std::fs::write(binary.folder.join("few.yaml"), "tools: {expose: []}\n").context("writing a configuration")?;
    let reaching = binary.output(&["--config", "few.yaml", "tools", "--json"])?;
    let reaching: Value = serde_json::from_str(&reaching).context("tools --json is not JSON")?;
    let page = |name: &str, text: String| (format!("docs/reference/{name}"), text);
    Ok(vec![
        page("config.schema.json", format!("{}\n", serde_json::to_string_pretty(&schema)?)),
        page("tools.md", tools::render(&listed, &reaching)?),
        page("errors.md", errors::render()),
        page("cli.md", cli::render(&|words| binary.output(words))?),
    ])
}

/// The binary under an empty folder of its own, so that no configuration or data of the developer gets into the pages.
struct Binary {
    path: PathBuf,
    folder: PathBuf,
}

impl Binary {
    fn new(path: &Path) -> anyhow::Result<Self> {
        let path = std::fs::canonicalize(path)
            .with_context(|| format!("{} is not there; build it with `cargo build -p portcullis`", path.display()))?;
        let folder = std::env::temp_dir().join(format!("portcullis-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { path, folder })
    }

    /// What it prints on standard output.
    fn output(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.path);
        command.args(words).current_dir(&self.folder).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PORTCULLIS_") || matches!(&*name, "COLUMNS" | "CLICOLOR_FORCE" | "RUST_LOG") {
                command.env_remove(&*name);
            }
        }
        let asked = format!("portcullis {}", words.join(" "));
        let output = command.env("NO_COLOR", "1").output().with_context(|| format!("cannot run {asked}"))?;
        if !output.status.success() {
            bail!("`{asked}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{asked}` did not print text"))
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // Left-overs in the temporary folder harm nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Text inside one cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stay_in_their_column() {
        assert_eq!(cell("a | b\nc"), "a \\| b c");
    }

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let error = render(Path::new("no/such/binary")).unwrap_err().to_string();
        assert!(error.contains("cargo build -p portcullis"), "{error}");
    }
}

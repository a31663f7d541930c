//! Builds the plugins of this repository into `target/plugins`, with the product's own `portcullis plugin build`. Guards that
//! what tests run is what the sources say: a component older than a source of its plugin is built anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, bail};

/// Folders whose sub-folders may be plugins.
const SHELVES: [&str; 2] = ["plugins", "crates/plugins/tests"];
/// What builds leave behind.
const NOT_SOURCES: [&str; 5] = ["target", "node_modules", ".venv", "__pycache__", "component.wasm"];

/// Builds every plugin with `binary`; says what was built and what was current.
pub(crate) fn build(root: &Path, binary: &Path) -> anyhow::Result<String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let output = std::path::absolute(target)?.join("plugins");
    fs::create_dir_all(&output).with_context(|| format!("creating {}", output.display()))?;
    let mut said = String::new();
    for folder in folders(root)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let component = output.join(format!("{name}.wasm"));
        let sources = newest(&folder)?.max(newest(&root.join("crates/plugins/wit"))?);
        if fs::metadata(&component).and_then(|found| found.modified()).is_ok_and(|built| built > sources) {
            said.push_str(&format!("{name}: current\n"));
            continue;
        }
        // Tools of the tests' own environment are found there.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(root.join(".venv/bin")).chain(std::env::split_paths(&path));
        let status = Command::new(binary)
            .args(["plugin", "build"])
            .arg(&folder)
            .arg("--output")
            .arg(&component)
            .env("PATH", std::env::join_paths(paths)?)
            .env("CARGO_TARGET_DIR", output.join("build"))
            .status()
            .with_context(|| format!("{} cannot be started; build it with: cargo build -p portcullis", binary.display()))?;
        if !status.success() {
            bail!("{} was not built", folder.display());
        }
        said.push_str(&format!("{name}: built\n"));
    }
    Ok(said)
}

fn folders(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for shelf in SHELVES.map(|shelf| root.join(shelf)).iter().filter(|shelf| shelf.is_dir()) {
        for entry in fs::read_dir(shelf).with_context(|| format!("reading {}", shelf.display()))? {
            let path = entry?.path();
            if path.join("plugin.yaml").is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// When the youngest source below `folder` was changed.
fn newest(folder: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if NOT_SOURCES.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let kind = entry.file_type()?;
        let changed = if kind.is_dir() { self::newest(&entry.path())? } else { entry.metadata()?.modified()? };
        newest = newest.max(changed);
    }
    Ok(newest)
}

//! Builds the plugins of this repository into `target/plugins`, with the product's own `portcullis plugin build`, and runs
//! the tests they bring along in their own languages. Guards that what tests run is what the sources say: a component older
//! than a source of its plugin is built anew.

use std::fmt::Write as _;
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
            let _ = writeln!(said, "{name}: current");
            continue;
        }
        let status = within(root, Command::new(binary))?
            .args(["plugin", "build"])
            .arg(&folder)
            .arg("--output")
            .arg(&component)
            .env("CARGO_TARGET_DIR", output.join("build"))
            .status()
            .with_context(|| format!("{} cannot be started; build it with: cargo build -p portcullis", binary.display()))?;
        if !status.success() {
            bail!("{} was not built", folder.display());
        }
        let _ = writeln!(said, "{name}: built");
    }
    Ok(said)
}

/// `command` with the tools of the tests' own environments before those of the machine.
fn within(root: &Path, mut command: Command) -> anyhow::Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = [root.join(".venv/bin"), root.join("tests/clients/node/node_modules/.bin")];
    let paths = own.into_iter().chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(paths)?).env("VIRTUAL_ENV", root.join(".venv"));
    Ok(command)
}

/// Runs the tests inside of the plugins: of `cargo test`, `test_*.py` and `*.test.mjs`. Says how many folders had some.
pub(crate) fn test(root: &Path) -> anyhow::Result<String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = std::path::absolute(target)?.join("plugins/test");
    let mut tested = 0;
    for folder in folders(root)?.into_iter().filter(|folder| folder.starts_with(root.join(SHELVES[0]))) {
        let names = fs::read_dir(&folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.collect();
        let any = |fits: &dyn Fn(&str) -> bool| names.iter().any(|name| fits(name));
        let mut command = if any(&|name| name == "Cargo.toml") {
            // Tests run on this machine and not in a sandbox, with the compiler that builds everything else.
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["test", "--locked", "--quiet"]).env("CARGO_TARGET_DIR", &target);
            cargo
        } else if any(&|name| name.starts_with("test_")) {
            let mut python = within(root, Command::new(root.join(".venv/bin/python")))?;
            python.args(["-B", "-m", "unittest", "--quiet"]);
            python
        } else if any(&|name| name.ends_with(".test.mjs")) {
            let mut node = within(root, Command::new(root.join(".ci/node")))?;
            node.arg("--test");
            node
        } else {
            continue;
        };
        let status = command.current_dir(&folder).status().with_context(|| format!("testing {}", folder.display()))?;
        if !status.success() {
            bail!("the tests of {} failed", folder.display());
        }
        tested += 1;
    }
    Ok(format!("the tests of {tested} plugins passed\n"))
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

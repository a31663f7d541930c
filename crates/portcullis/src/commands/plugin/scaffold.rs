//! `portcullis plugin new`: a plugin that builds as it is. Guards that nothing is written over.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use portcullis_plugins::{PluginName, WIT};

use crate::cli::PluginLanguage;
use crate::terminal::{paint, say};

/// Files of one language: where they go and what is in them.
type Files = &'static [(&'static str, &'static str)];

const RUST: Files = &[
    ("Cargo.toml", include_str!("../../../scaffold/rust/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("../../../scaffold/rust/lib.rs.txt")),
    (".gitignore", "target/\ncomponent.wasm\n*.plugin\n*.sig\n*.pem\nportcullis-data/\n"),
];
const PYTHON: Files = &[
    ("app.py", include_str!("../../../scaffold/python/app.py.txt")),
    ("requirements.txt", "# Tools to build with; nothing of them goes into the plugin.\ncomponentize-py==0.25.0\n"),
    (".gitignore", ".venv/\n__pycache__/\ncomponent.wasm\n*.plugin\n*.sig\n*.pem\nportcullis-data/\n"),
];
const JS: Files = &[
    ("app.js", include_str!("../../../scaffold/js/app.js.txt")),
    ("package.json", include_str!("../../../scaffold/js/package.json.txt")),
    (".gitignore", "node_modules/\ncomponent.wasm\n*.plugin\n*.sig\n*.pem\nportcullis-data/\n"),
];
const MANIFEST: &str = include_str!("../../../scaffold/plugin.yaml.txt");
const README: &str = include_str!("../../../scaffold/README.md.txt");

/// Runs `portcullis plugin new`.
pub fn run(name: &str, language: PluginLanguage, directory: Option<PathBuf>) -> anyhow::Result<()> {
    let name = PluginName::new(name)?;
    let directory = directory.unwrap_or_else(|| PathBuf::from(name.as_str()));
    if directory.exists() {
        bail!("{} is there already; name another folder with --directory", directory.display());
    }
    let (files, memory, tools) = match language {
        PluginLanguage::Rust => (RUST, "16MiB", None),
        PluginLanguage::Python => (PYTHON, "128MiB", Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")),
        PluginLanguage::Js => (JS, "64MiB", Some("npm install")),
    };
    let tool = format!("{}_greet", name.as_str().replace('-', "_"));
    let fill = |text: &str| text.replace("PLUGIN_NAME", name.as_str()).replace("TOOL_NAME", &tool).replace("MEMORY", memory);
    for (path, text) in files.iter().chain([("plugin.yaml", MANIFEST), ("README.md", README)].iter()) {
        write(&directory.join(path), &fill(text))?;
    }
    write(&directory.join("wit/plugin.wit"), WIT)?;
    say(format!("{} is written. Next:\n", directory.display()));
    say(format!("  cd {}", directory.display()));
    let package = format!("{name}-0.1.0.plugin");
    let sign = format!("portcullis plugin sign {package} --key signing.pem");
    let trust =
        format!("portcullis plugin keys add PUBLIC_KEY --owner Me --plugin {name}  # once, as the operator who trusts it");
    let install = format!("portcullis plugin install {package} --enable");
    let call = format!("portcullis call {tool} name=World");
    let steps = [
        "portcullis plugin build",
        "portcullis plugin pack",
        "portcullis plugin keys new signing.pem            # once; prints your public key",
        &sign,
        &trust,
        &install,
        &call,
    ];
    for line in tools.into_iter().chain(steps) {
        say(format!("  {line}"));
    }
    say("");
    say(paint::faint("What it may use is in wit/plugin.wit, what it wants is in plugin.yaml."));
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

//! `portcullis plugin build`: the tools of the language make a component. Guards that what is missing is named with the way to
//! get it. Runs programs of this machine in the author's folder; it is for authors, and no server does it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use portcullis_plugins::{Manifest, WIT};
use serde_json::Value;
use wit_component::ComponentEncoder;

use super::author;
use crate::terminal::say;

/// Runs `portcullis plugin build`.
pub fn run(directory: &Path, output: Option<PathBuf>) -> anyhow::Result<()> {
    let directory = directory.canonicalize().with_context(|| format!("there is no folder {}", directory.display()))?;
    author::manifest(&directory)?;
    let output = output.map_or_else(|| Ok(directory.join("component.wasm")), std::path::absolute)?;
    let has = |name: &str| directory.join(name).is_file();
    if has("Cargo.toml") {
        let component = rust(&directory)?;
        std::fs::write(&output, component).with_context(|| format!("writing {}", output.display()))?;
    } else if has("app.py") {
        python(&directory, &output)?;
    } else if has("app.js") {
        javascript(&directory, &output)?;
    } else {
        bail!(
            "{} holds neither Cargo.toml nor app.py nor app.js; make a plugin with: portcullis plugin new",
            directory.display()
        );
    }
    let bytes = std::fs::metadata(&output).with_context(|| format!("there is no {}", output.display()))?.len();
    say(format!("{} ({bytes} bytes). Next: portcullis plugin pack", output.display()));
    Ok(())
}

/// Runs a program to its end; what it says goes to standard error.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("{name} cannot be started"))?;
    if status.success() { Ok(()) } else { bail!("{name} failed ({status})") }
}

fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// How Rust is compiled on this machine.
enum RustWay {
    /// The compiler has the target, and its result is a component.
    Target,
    /// The compiler of the distribution, with its library as source; the module is made a component here.
    Source { linker: &'static str },
}

fn rust_way() -> anyhow::Result<RustWay> {
    let sysroot = |rustc: &str| answer(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from);
    if sysroot("rustc").is_some_and(|root| root.join("lib/rustlib/wasm32-wasip2/lib").is_dir()) {
        return Ok(RustWay::Target);
    }
    let source = sysroot("/usr/bin/rustc").is_some_and(|root| root.join("lib/rustlib/src/rust/library/std").is_dir());
    let linker = ["wasm-ld-19", "wasm-ld"].into_iter().find(|linker| Path::new("/usr/bin").join(linker).exists());
    match linker {
        Some(linker) if source && Path::new("/usr/bin/cargo").exists() => Ok(RustWay::Source { linker }),
        _ => bail!(
            "this machine cannot compile Rust to WebAssembly; install the target with: rustup target add wasm32-wasip2, \
             or on Debian: apt-get install rustc-web cargo-web rust-web-src lld-19"
        ),
    }
}

fn rust(directory: &Path) -> anyhow::Result<Vec<u8>> {
    let way = rust_way()?;
    let program = match way {
        RustWay::Target => "cargo",
        RustWay::Source { .. } => "/usr/bin/cargo",
    };
    let cargo = || {
        let mut command = Command::new(program);
        command.current_dir(directory);
        if let RustWay::Source { linker } = way {
            // Its own compiler must be found before any other.
            let path = std::env::var_os("PATH").unwrap_or_default();
            let paths = std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
            command
                .env("PATH", std::env::join_paths(paths).unwrap_or(path.clone()))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTC", "/usr/bin/rustc")
                .env_remove("RUSTC_WRAPPER")
                .env_remove("RUSTC_WORKSPACE_WRAPPER")
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .env("RUSTFLAGS", format!("-C linker={linker}"));
        }
        command
    };
    let mut build = cargo();
    build.args(["build", "--release"]);
    if directory.join("Cargo.lock").is_file() {
        build.arg("--locked");
    }
    let target = match way {
        RustWay::Target => "wasm32-wasip2",
        RustWay::Source { .. } => {
            build.args(["-Z", "build-std=std,panic_abort"]);
            "wasm32-unknown-unknown"
        }
    };
    succeed(build.args(["--target", target]))?;
    let described = answer(cargo().args(["metadata", "--no-deps", "--format-version", "1"])).context("cargo metadata failed")?;
    let described: Value = serde_json::from_str(&described).context("cargo metadata gave no JSON")?;
    let module = artifact(&described, target).context("Cargo.toml has no library with crate-type = [\"cdylib\"]")?;
    let bytes = std::fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
    match way {
        RustWay::Target => Ok(bytes),
        RustWay::Source { .. } => component(&bytes),
    }
}

/// Where cargo put the library.
fn artifact(described: &Value, target: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(described.get("target_directory")?.as_str()?);
    let targets =
        described.get("packages")?.as_array()?.iter().filter_map(|package| package.get("targets")?.as_array()).flatten();
    let is_cdylib = |target: &&Value| {
        target.get("crate_types").and_then(Value::as_array).is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
    };
    let name = targets.into_iter().find(is_cdylib)?.get("name")?.as_str()?.replace('-', "_");
    Some(folder.join(target).join("release").join(format!("{name}.wasm")))
}

/// Makes a module with the types of a world in it a component.
fn component(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = ComponentEncoder::default();
    let made = encoder.validate(true).module(module).and_then(ComponentEncoder::encode);
    made.context("the compiled module cannot be made a component")
}

/// A program of the author's own tools: in the folder of the plugin, or wherever else this machine finds it.
fn own_tool(directory: &Path, own: &str, name: &str) -> (PathBuf, bool) {
    let own = directory.join(own).join(name);
    if own.is_file() { (own, true) } else { (PathBuf::from(name), false) }
}

/// The world a plugin is built for: its own copy, or that of this program, in a folder that lasts as long as the value.
fn world(directory: &Path) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let own = directory.join("wit");
    if own.is_dir() {
        return Ok((own, None));
    }
    let written = tempfile::tempdir().context("creating a temporary folder")?;
    std::fs::write(written.path().join("plugin.wit"), WIT).context("writing a temporary file")?;
    Ok((written.path().to_path_buf(), Some(written)))
}

/// Which of the worlds there it is built for: that with previews where the manifest has one.
fn world_name(directory: &Path) -> &'static str {
    // Whatever is wrong with a manifest is said when it is packed.
    let manifest = std::fs::read_to_string(directory.join("plugin.yaml")).ok();
    let previews = manifest.and_then(|text| Manifest::from_yaml(&text).ok()).is_some_and(|manifest| manifest.previews());
    if previews { "previewing-plugin" } else { "plugin" }
}

fn python(directory: &Path, output: &Path) -> anyhow::Result<()> {
    let (program, own) = own_tool(directory, ".venv/bin", "componentize-py");
    if answer(Command::new(&program).arg("--version")).is_none() {
        bail!(
            "componentize-py is not installed; in {}: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
            directory.display()
        );
    }
    let (wit, _kept) = world(directory)?;
    let mut build = Command::new(program);
    if own {
        // Where it finds what the plugin imports.
        build.env("VIRTUAL_ENV", directory.join(".venv"));
    }
    build.current_dir(directory).arg("-d").arg(wit).args(["-w", world_name(directory), "componentize", "app", "-o"]).arg(output);
    succeed(&mut build)
}

fn javascript(directory: &Path, output: &Path) -> anyhow::Result<()> {
    if answer(Command::new("node").arg("--version")).is_none() {
        bail!("Node is not installed; componentize-js needs Node 20 or newer");
    }
    let (program, _) = own_tool(directory, "node_modules/.bin", "componentize-js");
    if answer(Command::new(&program).arg("--version")).is_none() {
        bail!("componentize-js is not installed; in {}: npm install", directory.display());
    }
    let (wit, _kept) = world(directory)?;
    let mut build = Command::new(program);
    build
        .current_dir(directory)
        .arg("app.js")
        .arg("--wit")
        .arg(wit)
        .args(["--world-name", world_name(directory), "--out"])
        .arg(output);
    // What is not built in is not asked for: a plugin has the host functions of its world.
    build.args(["random", "stdio", "clocks", "http", "fetch-event"].iter().flat_map(|feature| ["--disable", *feature]));
    succeed(&mut build)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plugin_with_a_preview_is_built_for_the_world_that_has_them() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(world_name(directory.path()), "plugin", "no manifest at all");
        let manifest = |tools: &str| {
            format!(
                "{{schema: 1, name: x-y, version: 1.0.0, host: ^1.1, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{tools}]}}"
            )
        };
        for (tools, world) in
            [("{name: t_set, risk: write, preview: {}}", "previewing-plugin"), ("{name: t_set, risk: write}", "plugin")]
        {
            std::fs::write(directory.path().join("plugin.yaml"), manifest(tools)).unwrap();
            assert_eq!(world_name(directory.path()), world);
        }
    }

    #[test]
    fn the_library_is_found_where_cargo_puts_it() {
        let described = json!({"target_directory": "/t", "packages": [{"targets": [
            {"name": "build-script-build", "crate_types": ["bin"]}, {"name": "my-plugin", "crate_types": ["cdylib"]}]}]});
        let found = artifact(&described, "wasm32-wasip2").unwrap();
        assert_eq!(found, Path::new("/t/wasm32-wasip2/release/my_plugin.wasm"));
        assert_eq!(artifact(&json!({"target_directory": "/t", "packages": []}), "x"), None);
    }
}

//! `portcullis plugin build`: the tools of the language make a component. Guards that what is missing is named with the way to
//! get it. Runs programs of this machine in the author's folder; it is for authors, and no server does it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;
use wit_component::ComponentEncoder;

use super::author;
use crate::terminal::say;

/// What builds JavaScript: read from standard input, so that no path becomes code.
const COMPONENTIZE_JS: &str = r"
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
const [folder, output] = process.argv.slice(2);
const found = createRequire(join(folder, 'app.js')).resolve('@bytecodealliance/componentize-js');
const { componentize } = await import(pathToFileURL(found));
const { component } = await componentize(await readFile(join(folder, 'app.js'), 'utf8'), {
  witPath: join(folder, 'wit'),
  worldName: 'plugin',
  disableFeatures: ['random', 'stdio', 'clocks', 'http'],
});
await writeFile(output, component);
";

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
    let made = encoder.validate(true).module(module).and_then(|encoder| encoder.encode());
    made.context("the compiled module cannot be made a component")
}

fn python(directory: &Path, output: &Path) -> anyhow::Result<()> {
    let own = directory.join(".venv/bin/componentize-py");
    let program: &OsStr = if own.is_file() { own.as_os_str() } else { OsStr::new("componentize-py") };
    if answer(Command::new(program).arg("--version")).is_none() {
        bail!(
            "componentize-py is not installed; in {}: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
            directory.display()
        );
    }
    let mut build = Command::new(program);
    build.current_dir(directory).args(["-d", "wit", "-w", "plugin", "componentize", "app", "-o"]).arg(output);
    succeed(&mut build)
}

fn javascript(directory: &Path, output: &Path) -> anyhow::Result<()> {
    if answer(Command::new("node").arg("--version")).is_none() {
        bail!("Node is not installed; componentize-js needs Node 22 or newer");
    }
    if !directory.join("node_modules/@bytecodealliance/componentize-js").is_dir() {
        bail!("componentize-js is not installed; in {}: npm install", directory.display());
    }
    let script = tempfile::Builder::new().suffix(".mjs").tempfile().context("creating a temporary file")?;
    std::fs::write(script.path(), COMPONENTIZE_JS).context("writing a temporary file")?;
    succeed(Command::new("node").arg(script.path()).arg(directory).arg(output))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_library_is_found_where_cargo_puts_it() {
        let described = json!({"target_directory": "/t", "packages": [{"targets": [
            {"name": "build-script-build", "crate_types": ["bin"]}, {"name": "my-plugin", "crate_types": ["cdylib"]}]}]});
        let found = artifact(&described, "wasm32-wasip2").unwrap();
        assert_eq!(found, Path::new("/t/wasm32-wasip2/release/my_plugin.wasm"));
        assert_eq!(artifact(&json!({"target_directory": "/t", "packages": []}), "x"), None);
    }
}

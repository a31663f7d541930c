//! What an author does last: pack and sign. Guards that a package that cannot be loaded is noticed here and not by whoever
//! installs it.

use std::path::Path;

use anyhow::Context;
use portcullis_model::{Clock, SystemClock};
use portcullis_plugins::{MOST_PACKED, Manifest, Package, PrivateKey, read_bounded};
use serde_json::json;

use super::{fetch, sbom};
use crate::cli::PackArgs;
use crate::terminal::{say, say_json};

/// Runs `portcullis plugin pack`.
pub async fn pack(args: PackArgs) -> anyhow::Result<()> {
    let directory = &args.directory;
    let manifest = manifest(directory)?;
    let component = args.component.unwrap_or_else(|| directory.join("component.wasm"));
    let component = std::fs::read(&component)
        .with_context(|| format!("reading {}; build it with: portcullis plugin build", component.display()))?;
    let readme = directory.join("README.md");
    let readme = std::fs::read_to_string(&readme)
        .with_context(|| format!("reading {}; whoever installs the plugin wants to read what it does", readme.display()))?;
    let sbom = match &args.sbom {
        Some(path) => std::fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => sbom::of(directory, &manifest)?,
    };
    let bytes = Package::write(&manifest, &component, &readme, &sbom)?;
    let package = Package::read(&bytes)?;
    let digest = package.digest;
    let tried = portcullis_plugins::try_out(package).await.context("the plugin does not load, so it is not packed")?;
    let output = args.output.unwrap_or_else(|| directory.join(format!("{}-{}.plugin", manifest.name, manifest.version)));
    std::fs::write(&output, &bytes).with_context(|| format!("writing {}", output.display()))?;
    if args.json {
        say_json(
            &json!({"package": output, "digest": digest, "bytes": bytes.len(), "tools": tried.tools, "signals": tried.signals}),
        );
        return Ok(());
    }
    say(format!("{} ({} bytes)\n{digest}", output.display(), bytes.len()));
    let gives = tried.tools.iter().map(|tool| format!("the tool {tool}"));
    let gives: Vec<String> = gives.chain(tried.signals.iter().map(|signal| format!("the signal {signal}"))).collect();
    say(format!("It loads, and gives {}. Next: portcullis plugin sign {} --key KEY_FILE", gives.join(", "), output.display()));
    Ok(())
}

/// The manifest an author wrote.
pub fn manifest(directory: &Path) -> anyhow::Result<Manifest> {
    let path = directory.join("plugin.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Manifest::from_yaml(&text).with_context(|| path.display().to_string())
}

/// Runs `portcullis plugin sign`.
pub fn sign(package: &Path, key: &Path, as_json: bool) -> anyhow::Result<()> {
    let bytes = read_bounded(package, MOST_PACKED)?;
    let read = Package::read(&bytes)?;
    let signature = PrivateKey::from_file(key)?.sign(&read.manifest, read.digest, SystemClock.now());
    let path = fetch::beside(package);
    std::fs::write(&path, signature.to_json()).with_context(|| format!("writing {}", path.display()))?;
    if as_json {
        say_json(&json!({"signature": path, "digest": read.digest, "key": signature.key}));
    } else {
        say(format!(
            "{}\nKey {} signed {} {} {}",
            path.display(),
            signature.key,
            read.manifest.name,
            read.manifest.version,
            read.digest
        ));
    }
    Ok(())
}

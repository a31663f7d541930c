//! `portcullis plugin`: everything an author and an operator do with plugins. Guards that what is installed was verified, that
//! every change is in the audit log, and that nothing here can be reached by a caller of the server: there is no tool for it.

mod author;
mod build;
mod fetch;
pub mod hub;
mod keys;
mod push;
mod sbom;
mod scaffold;
mod show;

use anyhow::{Context, bail};
use portcullis_audit::Decision;
use portcullis_model::{Clock, SystemClock};
use portcullis_plugins::{InstallOptions, Installation, Installed, Occasion, PackagePlace, PluginStore, StoreError, TrustRoot};
use serde_json::json;

use crate::cli::{InstallArgs, PluginAction, PluginFormat, VerifyPluginArgs};
use crate::house::Foundations;
use crate::settings::Config;
use crate::terminal::{paint, say, say_aside, say_json};

/// The store of the configuration.
fn store(config: &Config) -> PluginStore {
    PluginStore::at(config.data.join("plugins"))
}

/// The trust root of the configuration.
fn trust_root(config: &Config) -> std::path::PathBuf {
    config.plugins.trust_root.clone().unwrap_or_else(|| store(config).default_trust_root())
}

/// Runs `portcullis plugin …`.
pub async fn run(config: &Config, action: PluginAction) -> anyhow::Result<()> {
    match action {
        PluginAction::New { name, language, directory } => scaffold::run(&name, language, directory),
        PluginAction::Build { directory, output } => build::run(&directory, output),
        PluginAction::Pack(args) => author::pack(args).await,
        PluginAction::Sign { package, key, json } => author::sign(&package, &key, json),
        PluginAction::Verify(args) => verify(config, &args).await,
        PluginAction::Push(args) => push::run(config, &args).await,
        PluginAction::Hub { action } => hub::run(config, action).await,
        PluginAction::Install(args) => install(config, args).await,
        PluginAction::List(output) => show::list(config, output.json),
        PluginAction::Info(args) => show::info(config, &args).await,
        PluginAction::Enable { name } => {
            change(config, "plugin.enable", &name, |store| store.enable(&name, true)).await?;
            say(format!(
                "Plugin {name} is enabled. Running servers load it within seconds; portcullis doctor says how it stands."
            ));
            Ok(())
        }
        PluginAction::Disable { name } => {
            change(config, "plugin.disable", &name, |store| store.enable(&name, false)).await?;
            say(format!("Plugin {name} is disabled and stays installed."));
            Ok(())
        }
        PluginAction::Remove { name } => {
            let removed = change(config, "plugin.remove", &name, |store| store.remove(&name)).await?;
            say(format!("Plugin {name} {} is removed.", removed.version));
            Ok(())
        }
        PluginAction::Keys { action } => keys::run(config, action).await,
    }
}

/// Does something to an installed plugin and records it. The record comes first: what cannot be recorded is not done.
async fn change(
    config: &Config,
    method: &'static str,
    name: &str,
    act: impl FnOnce(&PluginStore) -> Result<Installed, StoreError>,
) -> anyhow::Result<Installed> {
    let store = store(config);
    let installed = store.find(name)?;
    let foundations = Foundations::open(config).await?;
    let note = format!("{} {}", installed.version, installed.digest);
    let done = foundations.audit_plugin(method, name, Decision::Allow, &note).and_then(|()| {
        act(&store).or_else(|error| {
            // Allowed, and it did not come about.
            foundations.audit_plugin(method, name, Decision::Deny, &error.to_string())?;
            Err(error.into())
        })
    });
    foundations.close().await;
    done
}

async fn verify(config: &Config, args: &VerifyPluginArgs) -> anyhow::Result<()> {
    if args.format == PluginFormat::Omcp {
        return verify_omcp(args);
    }
    let place = PackagePlace::parse(&args.package)?;
    let fetch::Fetched { package, signature, from } =
        fetch::package(config, &place, args.signature.as_deref(), &args.fetch).await?;
    let root = TrustRoot::load(&args.trust_root.clone().unwrap_or_else(|| trust_root(config)));
    let now = SystemClock.now();
    let verified = portcullis_plugins::verify(&package, signature.as_deref(), root, Occasion::Install, false, now)?;
    let manifest = &verified.package.manifest;
    let (key, owner) = verified.by.context("nobody vouches for it")?;
    if args.json {
        say_json(&json!({"verified": true, "plugin": manifest.name, "version": manifest.version,
            "digest": verified.package.digest, "key": key, "owner": owner, "from": from}));
    } else {
        say(format!("{} {} {}", manifest.name, manifest.version, verified.package.digest));
        say(paint::good(&format!("Signed by key {key} of {owner}, which the trust root trusts for it.")));
    }
    Ok(())
}

fn verify_omcp(args: &VerifyPluginArgs) -> anyhow::Result<()> {
    let Some(path) = &args.trust_root else {
        bail!("no trust root: name its PEM file with --trust-root or PLUGIN_TRUST_ROOT");
    };
    let pem = std::fs::read_to_string(path).with_context(|| format!("reading the trust root {}", path.display()))?;
    let verified = portcullis_plugins::verify_omcp(std::path::Path::new(&args.package), &pem)?;
    if args.json {
        say_json(&json!({"verified": true, "plugin": verified.name, "version": verified.version, "entry": verified.entry,
            "key": verified.key, "unsigned_files": verified.unsigned_files}));
        return Ok(());
    }
    say(paint::good(&format!(
        "{} {}: manifest.json is signed by key {}, and {} is what was signed.",
        verified.name, verified.version, verified.key, verified.entry
    )));
    if !verified.unsigned_files.is_empty() {
        say(paint::warn(&format!("The signature says nothing of {}.", verified.unsigned_files.join(", "))));
    }
    Ok(())
}

async fn install(config: &Config, args: InstallArgs) -> anyhow::Result<()> {
    let place = PackagePlace::parse(&args.source)?;
    let options = InstallOptions {
        allow_downgrade: args.allow_downgrade,
        insecure: args.insecure,
        new_key: args.allow_new_key,
        enable: args.enable,
    };
    let foundations = Foundations::open(config).await?;
    let outcome = fetch_and_install(config, &foundations, &place, &args, options).await;
    foundations.close().await;
    let (fetched, installed) = outcome?;
    if args.json {
        say_json(&serde_json::to_value(&installed)?);
    } else {
        say(format!("Installed {} {} {}.", installed.name, installed.version, installed.digest));
        if !fetched.from.is_empty() {
            say(paint::faint(&fetched.from));
        }
        show::wants(config, &fetched.package)?;
    }
    if installed.insecure {
        say_aside(format!(
            "{} {} is NOT SIGNED by anybody you trust. It starts only with plugins.allow_unsigned, and doctor and the audit log say so.",
            paint::bad("warning:"),
            installed.name
        ));
    }
    if !installed.enabled && !args.json {
        say(format!("It is not in use yet: portcullis plugin enable {}", installed.name));
    }
    Ok(())
}

/// What is refused on the way here is recorded like what is refused here.
async fn fetch_and_install(
    config: &Config,
    foundations: &Foundations,
    place: &PackagePlace,
    args: &InstallArgs,
    options: InstallOptions,
) -> anyhow::Result<(fetch::Fetched, Installed)> {
    match fetch::package(config, place, args.signature.as_deref(), &args.fetch).await {
        Ok(fetched) => {
            let installed = record_and_install(config, foundations, &place.to_string(), &fetched, options)?;
            Ok((fetched, installed))
        }
        Err(error) => {
            foundations.audit_plugin("plugin.install", &place.to_string(), Decision::Deny, &format!("{error:#}"))?;
            Err(error)
        }
    }
}

fn record_and_install(
    config: &Config,
    foundations: &Foundations,
    source: &str,
    fetched: &fetch::Fetched,
    options: InstallOptions,
) -> anyhow::Result<Installed> {
    let store = store(config);
    let root = TrustRoot::load(&trust_root(config));
    let now = SystemClock.now();
    let record = |done: &Installation| {
        let installed = &done.installed;
        let signed = installed.key.as_ref().map_or("NOT SIGNED".to_owned(), |key| format!("signed by key {key}"));
        let other = done.other_signer.as_ref().map_or(String::new(), |before| format!(", before it was {before}"));
        let enabled = if installed.enabled { ", enabled" } else { "" };
        let from = if fetched.from.is_empty() { String::new() } else { format!(", {}", fetched.from) };
        let note = format!("{} {}, {signed}{other}{enabled}{from}", installed.version, installed.digest);
        let method = if installed.insecure { "plugin.install-insecure" } else { "plugin.install" };
        let recorded = foundations.audit_plugin(method, installed.name.as_str(), Decision::Allow, &note);
        recorded.map_err(|error| format!("{error:#}"))
    };
    match store.install_recorded(&fetched.package, fetched.signature.as_deref(), root, options, now, record) {
        Ok(done) => Ok(done.installed),
        // There is nothing to record it with.
        Err(error @ StoreError::Unrecorded { .. }) => Err(error.into()),
        Err(error) => {
            let from = if fetched.from.is_empty() { String::new() } else { format!(" ({})", fetched.from) };
            foundations.audit_plugin("plugin.install", source, Decision::Deny, &format!("{error}{from}"))?;
            Err(error.into())
        }
    }
}

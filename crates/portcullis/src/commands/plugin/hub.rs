//! `portcullis plugin hub`, and installing by name. Guards that every hub that could have the name is asked before one is
//! believed, and that what is refused of a hub is in the audit log.

use anyhow::{Context, bail};
use portcullis_audit::Decision;
use portcullis_model::{Clock, SystemClock, parse_duration, parse_instant};
use portcullis_plugins::{
    HubBuild, HubEntryName, HubName, HubPlugin, HubVersion, Hubs, HubsError, KnownHub, OpenHub, PluginName, PrivateKey, Seen,
    TrustRoot, build_hub,
};
use serde_json::{Value, json};

use super::fetch::{self, Fetched};
use super::{store, trust_root};
use crate::cli::{HubBuildArgs, PluginHubAction, ReachArgs};
use crate::commands::doctor::State;
use crate::house::Foundations;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis plugin hub …`.
pub async fn run(config: &Config, action: PluginHubAction) -> anyhow::Result<()> {
    match action {
        PluginHubAction::Build(args) => build(&args),
        PluginHubAction::Add { place, json } => add(config, &place, json).await,
        PluginHubAction::Remove { name } => remove(config, &name).await,
        PluginHubAction::List(output) => list(config, output.json),
        PluginHubAction::Search { words, hub, json } => search(config, &words, hub.as_deref(), json).await,
    }
}

/// The hubs of the configuration.
pub fn hubs(config: &Config) -> Hubs {
    Hubs::at(store(config).directory())
}

/// Lines of the doctor: name, state and detail of each hub, and of places that are not encrypted. Asks nobody.
pub fn report(config: &Config) -> Vec<(String, State, String)> {
    let now = SystemClock.now();
    let line = |(hub, seen): (KnownHub, Option<Seen>)| {
        let name = format!("plugin hub {}", hub.name);
        match seen {
            None => (name, State::Attention, "its index was never seen".to_owned()),
            Some(seen) if parse_instant(&seen.expires_at, now).is_ok_and(|until| until > now) => {
                (name, State::On, format!("index {} until {}, seen at {}", seen.serial, seen.expires_at, seen.at))
            }
            Some(seen) => {
                let detail = format!(
                    "index {} ended at {}; portcullis plugin hub search looks for a newer one",
                    seen.serial, seen.expires_at
                );
                (name, State::Attention, detail)
            }
        }
    };
    let mut lines: Vec<_> = match hubs(config).list() {
        Ok(hubs) => hubs.into_iter().map(line).collect(),
        Err(error) => vec![("plugin hubs".to_owned(), State::Broken, error.to_string())],
    };
    let plain = config.plugins.sources.iter().filter(|source| source.origin.to_string().starts_with("http://"));
    lines.extend(plain.map(|source| {
        let detail =
            format!("{} is asked without encryption; signatures hold, and who looks on sees what is fetched", source.origin);
        ("plugin source".to_owned(), State::Attention, detail)
    }));
    lines
}

fn build(args: &HubBuildArgs) -> anyhow::Result<()> {
    let build = HubBuild {
        folder: args.folder.clone(),
        output: args.output.clone().unwrap_or_else(|| args.folder.join("public")),
        serial: args.serial,
        valid_for: parse_duration(&args.valid_for).context("--valid-for")?,
    };
    let built = build_hub(&build, &PrivateKey::from_file(&args.key)?, SystemClock.now())?;
    let index = &built.index;
    let versions: usize = index.plugins.values().map(|plugin| plugin.versions.len()).sum();
    if args.json {
        say_json(&json!({"hub": index.hub, "serial": index.serial, "expires_at": index.expires_at, "digest": built.digest,
            "output": build.output, "plugins": index.plugins.len(), "versions": versions, "copied": built.copied}));
        return Ok(());
    }
    say(format!("{}\n{}", build.output.join("index.json").display(), built.digest));
    say(format!(
        "Index {} of hub {}: {} plugins in {versions} versions, {} packages copied. It may be used until {}.",
        index.serial,
        index.hub,
        index.plugins.len(),
        built.copied.len(),
        index.expires_at
    ));
    Ok(())
}

async fn add(config: &Config, place: &str, as_json: bool) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let added = looked_at_and_added(config, &foundations, place).await;
    foundations.close().await;
    let opened = added?;
    let index = &opened.index;
    if as_json {
        say_json(&json!({"hub": index.hub, "place": opened.place(), "serial": index.serial, "digest": opened.digest,
            "expires_at": index.expires_at, "key": opened.key, "plugins": index.plugins.len()}));
        return Ok(());
    }
    say(format!("Hub {} at {}: {}", index.hub, opened.place(), index.description));
    say(format!("Index {} by key {}, {} plugins, until {}.", index.serial, opened.key, index.plugins.len(), index.expires_at));
    Ok(())
}

async fn looked_at_and_added(config: &Config, foundations: &Foundations, place: &str) -> anyhow::Result<OpenHub> {
    let hubs = hubs(config);
    let now = SystemClock.now();
    let fetcher = fetch::reaching(config, &ReachArgs::default(), None)?;
    let looked = hubs.look(&fetcher, place, TrustRoot::load(&trust_root(config)), now).await;
    let opened = match looked {
        Ok(opened) => opened,
        Err(error) => {
            foundations.audit_plugin("plugin.hub-add", &shown(place), Decision::Deny, &error.to_string())?;
            return Err(error.into());
        }
    };
    let index = &opened.index;
    let note = format!("{} index {} {}, signed by key {}", opened.place(), index.serial, opened.digest, opened.key);
    foundations.audit_plugin("plugin.hub-add", index.hub.as_str(), Decision::Allow, &note)?;
    hubs.add(&opened, now)?;
    Ok(opened)
}

/// A place for the record: without the query and without what could be a credential.
fn shown(place: &str) -> String {
    let place = place.split(['?', '#']).next().unwrap_or_default();
    let without = match place.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest)),
        None => place.to_owned(),
    };
    without.chars().filter(|c| !c.is_control()).take(200).collect()
}

async fn remove(config: &Config, name: &str) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let removed = foundations
        .audit_plugin("plugin.hub-remove", &shown(name), Decision::Allow, "")
        .and_then(|()| Ok(hubs(config).remove(name)?));
    foundations.close().await;
    say(format!("Hub {} is not used any more. What was installed from it stays.", removed?.name));
    Ok(())
}

fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let hubs = hubs(config).list()?;
    if as_json {
        let rows = hubs.iter().map(|(hub, seen)| json!({"hub": hub, "seen": seen}));
        say_json(&Value::Array(rows.collect()));
        return Ok(());
    }
    if hubs.is_empty() {
        say("No hub is known. Add one with: portcullis plugin hub add URL_OR_FOLDER");
        return Ok(());
    }
    let rows = hubs.into_iter().map(|(hub, seen)| {
        let or_never = |text: Option<String>| text.unwrap_or_else(|| "never".to_owned());
        let serial = or_never(seen.as_ref().map(|seen| seen.serial.to_string()));
        let until = seen.as_ref().map(|seen| seen.expires_at.clone()).unwrap_or_default();
        [hub.name.to_string(), hub.place, serial, until, or_never(seen.map(|seen| seen.at))]
    });
    say(table(["hub", "place", "index", "until", "seen"], rows));
    Ok(())
}

async fn search(config: &Config, words: &[String], hub: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let hub = hub.map(HubName::new).transpose().context("--hub")?;
    let opened = match open_all(config, hub.as_ref()).await? {
        Ok(opened) => opened,
        Err(unusable) => {
            record(config, &unusable).await?;
            return Err(unusable.into());
        }
    };
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let mut found: Vec<(&OpenHub, &PluginName, &HubPlugin)> = Vec::new();
    for hub in &opened {
        found.extend(hub.index.plugins.iter().filter(|(name, plugin)| fits(name, plugin, &words)).map(|(n, p)| (hub, n, p)));
    }
    if as_json {
        let rows =
            found.iter().map(|(hub, name, plugin)| json!({"hub": hub.index.hub, "name": name, "versions": plugin.versions}));
        say_json(&Value::Array(rows.collect()));
        return Ok(());
    }
    if found.is_empty() {
        let names: Vec<&str> = opened.iter().map(|hub| hub.index.hub.as_str()).collect();
        say(format!("No plugin fits in {}.", names.join(", ")));
        return Ok(());
    }
    let rows = found.into_iter().map(|(hub, name, plugin)| {
        let chosen = hub.index.choose(name, None, false);
        let any = plugin.versions.first();
        let (version, shown) = match &chosen {
            Ok(version) => (version.version.to_string(), Some(*version)),
            Err(_) => (paint::warn("none that fits"), any),
        };
        let summary = shown.map(|version| version.summary.clone()).unwrap_or_default();
        let licence = shown.map(|version| version.licence.clone()).unwrap_or_default();
        [hub.index.hub.to_string(), name.to_string(), version, licence, summary]
    });
    say(table(["hub", "name", "version", "licence", "summary"], rows));
    Ok(())
}

fn fits(name: &PluginName, plugin: &HubPlugin, words: &[String]) -> bool {
    let of = |version: &HubVersion| {
        let tools = version.tools.iter().map(|tool| tool.name.to_string());
        let signals = version.signals.iter().map(|signal| signal.as_str().to_owned());
        tools.chain(signals).chain([version.summary.clone()]).collect::<Vec<_>>().join(" ")
    };
    let text = plugin.versions.iter().map(of).chain([name.to_string()]).collect::<Vec<_>>().join(" ").to_lowercase();
    words.iter().all(|word| text.contains(word))
}

/// A hub that cannot be used, for whatever reason.
struct Unusable {
    name: HubName,
    error: HubsError,
}

impl From<Unusable> for anyhow::Error {
    fn from(Unusable { name, error }: Unusable) -> Self {
        Self::new(error).context(format!("hub {name} is not used; another one can be named by itself"))
    }
}

/// The indexes of all hubs, or of one. One that cannot be used is an error: the answer would be about something else.
async fn open_all(config: &Config, only: Option<&HubName>) -> anyhow::Result<Result<Vec<OpenHub>, Unusable>> {
    let hubs = hubs(config);
    let known = hubs.list()?;
    let names: Vec<HubName> = match only {
        Some(name) => vec![name.clone()],
        None => known.into_iter().map(|(hub, _)| hub.name).collect(),
    };
    if names.is_empty() {
        bail!("no hub is known, so there are no names to find; add one with: portcullis plugin hub add URL_OR_FOLDER");
    }
    let fetcher = fetch::reaching(config, &ReachArgs::default(), None)?;
    let mut opened = Vec::new();
    for name in names {
        match hubs.open(&fetcher, &name, TrustRoot::load(&trust_root(config)), SystemClock.now()).await {
            Ok(hub) => opened.push(hub),
            Err(error) => return Ok(Err(Unusable { name, error })),
        }
    }
    Ok(Ok(opened))
}

async fn record(config: &Config, unusable: &Unusable) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let Unusable { name, error } = unusable;
    let recorded = foundations.audit_plugin("plugin.hub", name.as_str(), Decision::Deny, &error.to_string());
    foundations.close().await;
    recorded
}

/// Gets the package a hub lists under a name.
pub async fn package(config: &Config, wanted: &HubEntryName, allow_yanked: bool) -> anyhow::Result<Fetched> {
    let looked_for = || format!("'{wanted}' is no file here, and was looked for in the hubs");
    let opened = open_all(config, wanted.hub.as_ref()).await.with_context(looked_for)?;
    let opened = opened.map_err(anyhow::Error::from).with_context(looked_for)?;
    let having: Vec<&OpenHub> = opened.iter().filter(|hub| hub.index.plugins.contains_key(&wanted.name)).collect();
    let hub = match having.as_slice() {
        [one] => *one,
        [] => {
            let names: Vec<&str> = opened.iter().map(|hub| hub.index.hub.as_str()).collect();
            bail!("there is no plugin '{}' in {}", wanted.name, names.join(", "));
        }
        several => {
            let names: Vec<String> = several.iter().map(|hub| format!("{}/{}", hub.index.hub, wanted.name)).collect();
            bail!("more than one hub has a plugin '{}'; say which: {}", wanted.name, names.join(", "));
        }
    };
    let version = hub.index.choose(&wanted.name, wanted.version.as_ref(), allow_yanked)?;
    if !version.fits_host() {
        let wants = &version.host;
        bail!("{} {} wants host API {wants}, and this is {}", wanted.name, version.version, portcullis_plugins::HOST_API);
    }
    let fetcher = fetch::reaching(config, &ReachArgs::default(), None)?;
    let got = hub.package(&fetcher, version).await?;
    hub.names((&wanted.name, version), &fetch::manifest_of(&got.package)?)?;
    let yanked = version.yanked.as_ref().map(|reason| format!(", withdrawn: {reason}")).unwrap_or_default();
    let from = format!("from hub {} index {} {}{yanked}", hub.index.hub, hub.index.serial, hub.digest);
    Ok(Fetched { package: got.package, signature: got.signature, from })
}

//! `portcullis plugin keys`: signing keys, and which are trusted. Guards that every change of trust is in the audit log before
//! it is in force, and that a revocation is never undone by adding the key again.

use anyhow::{Context, bail};
use portcullis_audit::Decision;
use portcullis_model::{Clock, SystemClock, Timestamp, format_timestamp, parse_duration, parse_instant};
use portcullis_plugins::{
    Digest, HubName, KeyRole, PrivateKey, PublicKey, Revocation, RevokedPackage, TrustError, TrustRoot, TrustedKey,
};
use serde_json::json;

use super::trust_root;
use crate::cli::{KeyAddArgs, KeyRoleArg, PluginKeyAction};
use crate::house::Foundations;
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis plugin keys …`.
pub async fn run(config: &Config, action: PluginKeyAction) -> anyhow::Result<()> {
    match action {
        PluginKeyAction::New { file, json } => {
            let key = PrivateKey::generate()?;
            key.write_new(&file)?;
            let (id, public) = (key.public().id(), key.public().to_string());
            if json {
                say_json(&json!({"file": file, "key": id, "public_key": public}));
            } else {
                say(format!("Private key: {} (mode 0600; whoever has it can sign as you)", file.display()));
                say(format!("Key {id}, public key:\n\n  {}\n", paint::strong(&public)));
                say(format!("Operators trust it with: portcullis plugin keys add {public} --owner NAME --plugin PLUGIN"));
            }
            Ok(())
        }
        PluginKeyAction::Add(args) => add(config, args).await,
        PluginKeyAction::Revoke { what, reason } => revoke(config, &what, &reason).await,
        PluginKeyAction::List(output) => list(config, output.json),
    }
}

/// The trust root, or an empty one where there is none yet. One that cannot be used is not written over.
fn current(config: &Config) -> anyhow::Result<TrustRoot> {
    match TrustRoot::load(&trust_root(config)) {
        Ok(root) => Ok(root),
        Err(TrustError::Absent { .. }) => Ok(TrustRoot::default()),
        Err(error) => Err(error.into()),
    }
}

async fn change(config: &Config, method: &'static str, subject: &str, note: &str, root: &TrustRoot) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let recorded = foundations.audit_plugin(method, subject, Decision::Allow, note);
    foundations.close().await;
    recorded?;
    Ok(root.save(&trust_root(config))?)
}

async fn add(config: &Config, args: KeyAddArgs) -> anyhow::Result<()> {
    let public = PublicKey::parse(&args.public_key)?;
    let id = public.id();
    let _alone = TrustRoot::lock(&trust_root(config))?;
    let mut root = current(config)?;
    if let Some(known) = root.keys.iter().find(|key| key.id == id) {
        match &known.revoked {
            Some(revocation) => bail!("key {id} was revoked ({}); it is not trusted again, ask for a new one", revocation.reason),
            None => bail!("key {id} of {} is trusted already, until {}", known.owner, known.not_after),
        }
    }
    if args.owner.trim().is_empty() || args.owner.chars().any(char::is_control) {
        bail!("--owner must be one line: whose key it is");
    }
    let roles = roles(&args)?;
    let now = SystemClock.now();
    // Who is trusted now is trusted with what was signed before: packages are signed before their keys are handed over.
    let ever = Timestamp::from_seconds(0);
    let from = args.not_before.as_deref().map_or(Ok(ever), |text| parse_instant(text, now)).context("--not-before")?;
    let until = from.max(now).plus(parse_duration(&args.valid_for).context("--valid-for")?);
    root.keys.push(TrustedKey {
        id: id.clone(),
        public,
        owner: args.owner.clone(),
        roles: roles.clone(),
        plugins: args.plugins.clone(),
        hubs: args.hubs.clone(),
        not_before: whole_seconds(from),
        not_after: whole_seconds(until),
        revoked: None,
    });
    let some = |all: &str, names: &[String]| if names.is_empty() { all.to_owned() } else { names.join(", ") };
    let which = roles.iter().map(|role| match role {
        KeyRole::Package => some("all plugins", &args.plugins),
        KeyRole::Hub => format!("the index of {}", some("all hubs", &args.hubs)),
    });
    let which = which.collect::<Vec<_>>().join(" and ");
    let note = format!("key of {} for {which} until {}", args.owner, whole_seconds(until));
    change(config, "plugin.trust", &id, &note, &root).await?;
    say(format!("Key {id} of {} is trusted for {which}; it may sign until {}.", args.owner, whole_seconds(until)));
    if roles.contains(&KeyRole::Package) && args.plugins.is_empty() {
        say(paint::warn("It may sign a plugin of any name; --plugin NAME says which are its own."));
    }
    Ok(())
}

/// What the key may sign, each once.
fn roles(args: &KeyAddArgs) -> anyhow::Result<Vec<KeyRole>> {
    let mut roles: Vec<KeyRole> = args
        .roles
        .iter()
        .map(|role| match role {
            KeyRoleArg::Package => KeyRole::Package,
            KeyRoleArg::Hub => KeyRole::Hub,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if !args.hubs.is_empty() && !roles.contains(&KeyRole::Hub) {
        bail!("--hub says for which hubs a key signs; add --role hub");
    }
    if !args.plugins.is_empty() && !roles.contains(&KeyRole::Package) {
        bail!("--plugin says which packages a key signs; add --role package");
    }
    for hub in &args.hubs {
        HubName::new(hub).context("--hub")?;
    }
    Ok(roles)
}

fn whole_seconds(at: Timestamp) -> String {
    format_timestamp(Timestamp::from_seconds(at.as_nanos().div_euclid(1_000_000_000)))
}

async fn revoke(config: &Config, what: &str, reason: &str) -> anyhow::Result<()> {
    if reason.trim().is_empty() || reason.chars().any(char::is_control) {
        bail!("--reason must be one line: why it is revoked");
    }
    let _alone = TrustRoot::lock(&trust_root(config))?;
    let mut root = current(config)?;
    let at = whole_seconds(SystemClock.now());
    if let Ok(digest) = Digest::parse(what) {
        if root.revoked_packages.iter().any(|revoked| revoked.digest == digest) {
            bail!("package {digest} is revoked already");
        }
        root.revoked_packages.push(RevokedPackage { digest, at, reason: reason.to_owned() });
    } else {
        let known: Vec<String> = root.keys.iter().map(|key| key.id.clone()).collect();
        let key = root.keys.iter_mut().find(|key| key.id == what).with_context(|| {
            format!("there is no key '{what}' in the trust root (keys are {}), and it is no sha256:… digest", known.join(", "))
        })?;
        key.revoked = Some(Revocation { at, reason: reason.to_owned() });
    }
    change(config, "plugin.revoke", what, reason, &root).await?;
    say(format!("{what} is revoked. Running servers stop what it vouched for within seconds."));
    Ok(())
}

fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let root = TrustRoot::load(&trust_root(config))?;
    if as_json {
        say_json(&serde_json::to_value(&root)?);
        return Ok(());
    }
    let now = SystemClock.now();
    let rows = root.keys.iter().map(|key| {
        let ended = parse_instant(&key.not_after, now).is_ok_and(|until| until < now);
        let state = match &key.revoked {
            Some(revocation) => paint::bad(&format!("revoked: {}", revocation.reason)),
            None if ended => paint::warn("ended"),
            None => paint::good("trusted"),
        };
        let all = |names: &[String]| if names.is_empty() { "all".to_owned() } else { names.join(", ") };
        let signs = key.roles.iter().map(|role| match role {
            KeyRole::Package => all(&key.plugins),
            KeyRole::Hub => format!("hubs: {}", all(&key.hubs)),
        });
        let signs = signs.collect::<Vec<_>>().join("; ");
        [key.id.clone(), key.owner.clone(), signs, state, key.not_before.clone(), key.not_after.clone()]
    });
    say(table(["key", "owner", "plugins", "state", "from", "until"], rows));
    for package in &root.revoked_packages {
        say(paint::bad(&format!("Package {} was revoked at {}: {}", package.digest, package.at, package.reason)));
    }
    Ok(())
}

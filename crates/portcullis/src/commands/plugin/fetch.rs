//! Where packages come from. Guards that a package and its signature are read once, bounded, and judged from memory, and
//! that what is on the command line opens the way to the named address and to no other.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portcullis_egress::{AuthSettings, BasicSettings};
use portcullis_model::{Clock as _, SecretReference, SystemClock};
use portcullis_plugins::{
    Digest, Fetcher, MOST_PACKED, Occasion, OciReference, OriginPattern, Package, PackagePlace, PackageSource, Progress,
    TrustRoot, WebAddress, read_bounded, verify,
};
use portcullis_policy::{Policies, Vocabulary};

use super::hub;
use crate::cli::{FetchArgs, ReachArgs};
use crate::settings::Config;
use crate::terminal::{paint, say_aside};

/// Largest signature file.
const MOST_SIGNATURE: u64 = 8 << 10;

/// A package and, where there is one, its signature; nothing of it is verified yet.
pub struct Fetched {
    /// The bytes of the package.
    pub package: Vec<u8>,
    /// The bytes of the signature file.
    pub signature: Option<Vec<u8>>,
    /// Where it came from, for the record.
    pub from: String,
}

/// Gets the package that `place` names.
pub async fn package(
    config: &Config,
    place: &PackagePlace,
    signature_at: Option<&str>,
    args: &FetchArgs,
) -> anyhow::Result<Fetched> {
    let wanted = args.digest.as_deref().map(Digest::parse).transpose().context("--digest")?;
    let mut fetched = match place {
        PackagePlace::File(path) => {
            args.reach.speak_of_nothing()?;
            let signature = if signature_at.is_some() { None } else { signature(path, None)? };
            Fetched { package: read_bounded(path, MOST_PACKED)?, signature, from: String::new() }
        }
        PackagePlace::Web(address) => {
            let fetcher = reaching(config, &args.reach, Some(&address.origin()))?;
            let package = fetcher.download(address, MOST_PACKED).await?;
            let signature = match signature_at {
                Some(_) => None,
                None => fetcher.download_if_there(&address.beside(".sig"), MOST_SIGNATURE).await?,
            };
            Fetched { package, signature, from: format!("from {address}") }
        }
        PackagePlace::Registry(reference) => {
            let origin = registry_origin(config, reference, &args.reach);
            let fetcher = reaching(config, &args.reach, Some(&origin))?;
            let pulled = fetcher.pull(reference).await?;
            let from = format!("from {}{}", reference.pinned(pulled.manifest), in_clear(&origin));
            let mut signature = pulled.signature;
            if signature_at.is_none() && !trusted(config, &pulled.package, signature.as_deref()) {
                // Somebody who is trusted may have signed it since.
                let attached = fetcher.attached(reference, pulled.manifest).await?;
                let other = attached.signatures.iter().find(|other| trusted(config, &pulled.package, Some(other)));
                if let Some(left_out) = attached.left_out.as_ref().filter(|_| other.is_none()) {
                    let attention = paint::warn("attention");
                    say_aside(format!("{attention} not all that is attached to {reference} was looked at: {left_out}"));
                }
                signature = other.cloned().or(signature).or_else(|| attached.signatures.first().cloned());
            }
            Fetched { package: pulled.package, signature, from }
        }
        PackagePlace::Hub(name) => {
            args.reach.speak_of_nothing()?;
            hub::package(config, name, args.allow_yanked).await?
        }
    };
    if let Some(wanted) = wanted {
        let found = Digest::of(&fetched.package);
        if found != wanted {
            bail!("{place} is not the package of --digest: its digest is {found}, and {wanted} was expected");
        }
    }
    if let Some(named) = signature_at {
        fetched.signature = Some(signature_from(config, named, &args.reach).await?);
    }
    Ok(fetched)
}

/// Whether this signature is one that would do here. It is judged once more where it counts.
fn trusted(config: &Config, package: &[u8], signature: Option<&[u8]>) -> bool {
    let root = TrustRoot::load(&super::trust_root(config));
    signature.is_some() && verify(package, signature, root, Occasion::Install, false, SystemClock.now()).is_ok()
}

/// The signature an operator named.
async fn signature_from(config: &Config, named: &str, reach: &ReachArgs) -> anyhow::Result<Vec<u8>> {
    if !named.contains("://") {
        return Ok(read_bounded(Path::new(named), MOST_SIGNATURE)?);
    }
    let address = WebAddress::parse(named).context("--signature")?;
    Ok(reaching(config, reach, Some(&address.origin()))?.download(&address, MOST_SIGNATURE).await?)
}

/// The signature beside a package, or the one named.
pub fn signature(package: &Path, named: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let beside = beside(package);
    match named {
        Some(path) => Ok(Some(read_bounded(path, MOST_SIGNATURE)?)),
        None if beside.exists() => Ok(Some(read_bounded(&beside, MOST_SIGNATURE)?)),
        None => Ok(None),
    }
}

/// `FILE.sig`.
pub fn beside(package: &Path) -> PathBuf {
    let mut name = package.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// The origin of a registry as the command line and the settings say to speak to it.
pub fn registry_origin(config: &Config, reference: &OciReference, reach: &ReachArgs) -> String {
    let plain = format!("http://{}", reference.authority());
    let unencrypted = reach.plain_http || config.plugins.sources.iter().any(|source| source.origin.matches(&plain));
    if unencrypted { plain } else { format!("https://{}", reference.authority()) }
}

/// What the record of a way there adds when everybody on it could read along; a reference to a registry does not say so.
pub fn in_clear(origin: &str) -> &'static str {
    if origin.starts_with("http://") { ", without encryption" } else { "" }
}

impl ReachArgs {
    fn says_something(&self) -> bool {
        let Self { plain_http, allow_addresses, ca_file, username, password } = self;
        *plain_http || !allow_addresses.is_empty() || ca_file.is_some() || username.is_some() || password.is_some()
    }

    fn speak_of_nothing(&self) -> anyhow::Result<()> {
        if self.says_something() {
            bail!(
                "--plain-http, --allow-address, --ca-file, --username and --password belong to an https:// or oci:// address; for a hub set plugins.sources"
            );
        }
        Ok(())
    }

    fn auth(&self) -> anyhow::Result<Option<AuthSettings>> {
        let Some(text) = &self.password else { return Ok(None) };
        let reference: SecretReference = text.parse().context("--password")?;
        if matches!(reference, SecretReference::Literal(_)) {
            bail!(
                "--password takes a reference such as env:NAME or file:/path: everybody on this machine can read a command line"
            );
        }
        Ok(Some(match &self.username {
            Some(user) => AuthSettings::Basic(BasicSettings { user: user.clone(), password: reference }),
            None => AuthSettings::Bearer(reference),
        }))
    }
}

/// A fetcher with the settings, and what the command line adds for the one origin it names.
pub fn reaching(config: &Config, reach: &ReachArgs, origin: Option<&str>) -> anyhow::Result<Fetcher> {
    let mut sources = config.plugins.sources.clone();
    if let Some(origin) = origin.filter(|_| reach.says_something()) {
        let pattern = OriginPattern::parse(origin)?;
        let known = sources.iter().find(|source| source.origin.matches(pattern.literal().unwrap_or_default()));
        if origin.starts_with("http://") && !reach.plain_http && known.is_none() {
            bail!("{origin} is not encrypted; write https://, or say --plain-http");
        }
        if origin.starts_with("https://") && reach.plain_http {
            bail!("--plain-http is for http:// addresses and registries without encryption, and {origin} is encrypted");
        }
        let nothing = PackageSource { origin: pattern.clone(), allow_addresses: Vec::new(), ca_file: None, auth: None };
        let mut own = known.cloned().unwrap_or(nothing);
        own.origin = pattern;
        own.allow_addresses.extend(&reach.allow_addresses);
        own.ca_file = reach.ca_file.clone().or(own.ca_file);
        own.auth = reach.auth()?.or(own.auth);
        sources.insert(0, own);
    }
    // Charters come from the operator's own settings and words; no rule about callers has a part in it, so that a policy
    // that does not load is no reason not to replace a plugin.
    let policies = Policies::load(&[], &Vocabulary::default(), 1)?;
    let secrets = crate::outside::secrets(config, None)?;
    secrets.allow(&mut |grant| policies.charter(grant)).context("secret_stores")?;
    let fetcher = Fetcher::new(sources, Arc::new(secrets), Box::new(move |grant| policies.charter(grant)));
    Ok(match progress() {
        Some(progress) => fetcher.heard_by(progress),
        None => fetcher,
    })
}

/// A bar at a terminal; nothing anywhere else.
fn progress() -> Option<Box<Progress>> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let known = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}").ok()?;
    let bar = bar.with_style(known);
    Some(Box::new(move |what, received, total| {
        bar.set_message(what.to_owned());
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(received);
        if total.is_some_and(|total| received >= total) {
            bar.finish_and_clear();
            bar.reset();
        }
    }))
}

/// What a package says it is; nothing of it is verified.
pub fn manifest_of(package: &[u8]) -> anyhow::Result<portcullis_plugins::Manifest> {
    Ok(Package::read(package)?.manifest)
}

//! `portcullis plugin push`: a package into a registry. Guards that nothing is published that is not signed, and that every
//! push is in the audit log, refused ones too.

use anyhow::{Context, bail};
use portcullis_audit::Decision;
use portcullis_plugins::{Digest, MOST_PACKED, OciReference, Package, PackageSignature, Publication, read_bounded};
use serde_json::json;

use super::fetch;
use crate::cli::PushArgs;
use crate::house::Foundations;
use crate::settings::Config;
use crate::terminal::{say, say_json};

/// Runs `portcullis plugin push`.
pub async fn run(config: &Config, args: &PushArgs) -> anyhow::Result<()> {
    let reference = OciReference::parse(&args.reference)?;
    if reference.tag().is_none() && !args.attach {
        bail!("{reference} has no tag; what is pushed gets one, such as :1.0.0");
    }
    let bytes = read_bounded(&args.package, MOST_PACKED)?;
    let package = Package::read(&bytes)?;
    let signature = fetch::signature(&args.package, args.signature.as_deref())?
        .with_context(|| format!("{} is not signed; sign it with: portcullis plugin sign", args.package.display()))?;
    let signed = PackageSignature::read(&signature)?;
    let manifest = &package.manifest;
    if signed.digest != package.digest || signed.plugin != manifest.name || signed.version != manifest.version {
        bail!(
            "the signature is over {} {} {}, and this package is {} {} {}; sign it anew",
            signed.plugin,
            signed.version,
            signed.digest,
            manifest.name,
            manifest.version,
            package.digest
        );
    }
    let origin = fetch::registry_origin(config, &reference, &args.reach);
    let foundations = Foundations::open(config).await?;
    let publication = Publication { package: &bytes, signature: &signature, replace: args.replace };
    let pushed = push(config, args, &reference, &origin, publication, package.digest).await;
    let about = format!("{} {} {}", manifest.name, manifest.version, package.digest);
    let subject = reference.to_string();
    let recorded = match &pushed {
        Ok(digest) => {
            let what = if args.attach { "its signature alone, attached" } else { "with its signature" };
            let note = format!("{about} {what}, as manifest {digest}{}", fetch::in_clear(&origin));
            foundations.audit_plugin("plugin.push", &subject, Decision::Allow, &note)
        }
        Err(error) => foundations.audit_plugin("plugin.push", &subject, Decision::Deny, &format!("{about}: {error:#}")),
    };
    foundations.close().await;
    let digest = pushed?;
    recorded?;
    let pinned = reference.pinned(digest);
    if args.json {
        say_json(&json!({"reference": reference.to_string(), "pinned": pinned.to_string(), "manifest": digest,
            "digest": package.digest, "plugin": manifest.name, "version": manifest.version}));
    } else {
        let done = if args.attach { "Attached a signature to" } else { "Pushed" };
        say(format!("{done} {about}.\n{pinned}"));
    }
    Ok(())
}

async fn push(
    config: &Config,
    args: &PushArgs,
    reference: &OciReference,
    origin: &str,
    publication: Publication<'_>,
    package: Digest,
) -> anyhow::Result<Digest> {
    let fetcher = fetch::reaching(config, &args.reach, Some(origin))?;
    if args.attach {
        return Ok(fetcher.attach(reference, package, publication.signature).await?);
    }
    Ok(fetcher.push(reference, publication).await?)
}

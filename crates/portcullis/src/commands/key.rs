//! `portcullis key`: make, list and revoke API keys. A secret is printed once, at its making.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_identity::{Door, KeyRequest, KeyStatus};
use portcullis_model::{Clock, NameSet, SystemClock, TenantId, parse_duration};
use serde_json::json;

use crate::cli::{DoorArg, KeyAction, KeyCreateArgs};
use crate::house::{Foundations, known_roles};
use crate::settings::Config;
use crate::terminal::{paint, say, say_json, table};

/// Runs `portcullis key …`.
pub async fn run(config: &Config, action: KeyAction) -> anyhow::Result<()> {
    let foundations = Foundations::open(config).await?;
    let outcome = act(&foundations, config, action).await;
    foundations.close().await;
    outcome
}

async fn act(foundations: &Foundations, config: &Config, action: KeyAction) -> anyhow::Result<()> {
    let keys = &foundations.keys;
    match action {
        KeyAction::Create(args) => create(foundations, config, args).await,
        KeyAction::List(output) => {
            let now = SystemClock.now();
            let records = keys.list().await?;
            if output.json {
                say_json(&serde_json::to_value(&records)?);
                return Ok(());
            }
            if records.is_empty() {
                say("There are no keys yet. Make one with: portcullis key create --label NAME");
                return Ok(());
            }
            let rows = records.iter().map(|r| {
                let status = match r.status(now) {
                    KeyStatus::Active => paint::good("active"),
                    KeyStatus::Expired => paint::warn("expired"),
                    KeyStatus::Revoked => paint::bad("revoked"),
                };
                let expires = r.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
                [r.id.to_string(), r.label.clone(), join(&r.roles), join_doors(&r.doors), r.tenant.to_string(), status, expires]
            });
            say(table(["id", "label", "roles", "scopes", "tenant", "status", "expires"], rows));
            Ok(())
        }
        KeyAction::Revoke { id } => match keys.revoke(&id).await? {
            Some(record) => {
                foundations.audit_key("key.revoke", &record.id)?;
                say(format!("Key {} ({}) is revoked. Running servers refuse it within a second.", record.id, record.label));
                Ok(())
            }
            None => bail!("there is no key with id '{id}'; `portcullis key list` shows them"),
        },
    }
}

async fn create(foundations: &Foundations, config: &Config, args: KeyCreateArgs) -> anyhow::Result<()> {
    let roles = known_roles(config);
    if let Some(unknown) = args.role.iter().find(|r| !roles.contains(r.as_str())) {
        let known: Vec<&str> = roles.iter().map(String::as_str).collect();
        bail!("there is no role '{unknown}'; roles are {}", known.join(", "));
    }
    let only = |names: &[String]| if names.is_empty() { NameSet::All } else { NameSet::only(names.iter().cloned()) };
    let doors: BTreeSet<Door> = args
        .doors
        .iter()
        .map(|d| match d {
            DoorArg::Mcp => Door::Mcp,
            DoorArg::Ingest => Door::Ingest,
        })
        .collect();
    let request = KeyRequest {
        label: args.label,
        roles: if doors.contains(&Door::Mcp) {
            args.role.iter().map(|r| Arc::from(r.as_str())).collect()
        } else {
            BTreeSet::new()
        },
        doors,
        tenant: TenantId::new(&args.tenant)?,
        sources: only(&args.sources),
        services: only(&args.services),
        namespaces: only(&args.namespaces),
        look_back: args.look_back.as_deref().map(parse_duration).transpose().context("--look-back")?,
        expires_in: Some(parse_duration(&args.expires).context("--expires")?),
    };
    let created = foundations.keys.create(request).await?;
    foundations.audit_key("key.create", &created.record.id)?;
    if args.json {
        let mut value = serde_json::to_value(&created.record)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("key".into(), json!(created.secret.expose()));
        }
        say_json(&value);
        return Ok(());
    }
    let expires = created.record.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    say(format!("Key {} for '{}', valid until {expires}:", created.record.id, created.record.label));
    say(format!("\n  {}\n", paint::strong(created.secret.expose())));
    say("It is shown this once and cannot be had again. Send it as: Authorization: Bearer <key>");
    Ok(())
}

fn join(names: &BTreeSet<Arc<str>>) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn join_doors(doors: &BTreeSet<Door>) -> String {
    doors.iter().map(|d| d.as_str().to_owned()).collect::<Vec<_>>().join(",")
}

//! `portcullis secret`: make a new one, and say how those of the configuration stand. A value is printed only when it was
//! made this moment.

use anyhow::bail;
use portcullis_secrets::{SecretReport, SecretState, SecretType, generate};

use crate::cli::{SecretAction, SecretKind};
use crate::outside::SecretUsers;
use crate::settings::Config;
use crate::terminal::{say, say_json, table};

/// Runs `portcullis secret …`.
pub async fn run(config: &Config, action: &SecretAction) -> anyhow::Result<()> {
    match action {
        SecretAction::Generate { kind, length } => {
            let kind = match kind {
                SecretKind::Token => SecretType::Token,
                SecretKind::Password => SecretType::Password,
                SecretKind::Key => SecretType::Key,
            };
            say(generate(kind, *length)?.expose());
            Ok(())
        }
        SecretAction::List(output) => show(&report(config).await?, output.json),
        SecretAction::Check(output) => {
            let reports = report(config).await?;
            show(&reports, output.json)?;
            let bad = reports.iter().filter(|r| !r.state.is_usable() || r.state == SecretState::Overdue).count();
            if bad > 0 {
                bail!("{bad} of {} secrets need to be looked after", reports.len());
            }
            Ok(())
        }
    }
}

/// How the secrets stand. Stores are asked under the charters the rules of the configuration give.
async fn report(config: &Config) -> anyhow::Result<Vec<SecretReport>> {
    // Held meanwhile: what nobody refers to any more is not told.
    let users = SecretUsers::open(config).await?;
    Ok(users.secrets.report().await)
}

fn show(reports: &[SecretReport], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        say_json(&serde_json::to_value(reports)?);
    } else if reports.is_empty() {
        say("The configuration refers to no secret.");
    } else {
        let row = |r: &SecretReport| {
            [
                r.name.clone(),
                r.kind.map_or("–", SecretType::as_str).into(),
                r.reference.clone(),
                r.state.as_str().into(),
                r.detail.clone(),
            ]
        };
        say(table(["name", "type", "kept in", "state", "detail"], reports.iter().map(row)));
    }
    Ok(())
}

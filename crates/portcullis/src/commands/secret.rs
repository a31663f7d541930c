//! `portcullis secret`: make a new one, and say how those of the configuration stand. A value is printed only when it was
//! made this moment.

use anyhow::bail;
use portcullis_secrets::{SecretReport, SecretState, SecretType, generate};

use crate::cli::{SecretAction, SecretKind};
use crate::outside;
use crate::settings::Config;
use crate::terminal::{say, say_json, table};

/// Runs `portcullis secret …`.
pub fn run(config: &Config, action: &SecretAction) -> anyhow::Result<()> {
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
        SecretAction::List(output) => show(&outside::secrets(config)?.report(), output.json),
        SecretAction::Check(output) => {
            let reports = outside::secrets(config)?.report();
            show(&reports, output.json)?;
            let bad = reports.iter().filter(|r| !r.state.is_usable() || r.state == SecretState::Overdue).count();
            if bad > 0 {
                bail!("{bad} of {} secrets need to be looked after", reports.len());
            }
            Ok(())
        }
    }
}

fn show(reports: &[SecretReport], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        say_json(&serde_json::to_value(reports)?);
    } else if reports.is_empty() {
        say("The configuration has no secrets section.");
    } else {
        let row = |r: &SecretReport| {
            [r.name.clone(), r.kind.as_str().into(), r.reference.clone(), r.state.as_str().into(), r.detail.clone()]
        };
        say(table(["name", "type", "kept in", "state", "detail"], reports.iter().map(row)));
    }
    Ok(())
}

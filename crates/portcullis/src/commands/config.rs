//! `portcullis config`: check, print the schema, show what is in force.

use super::policy::say_notes;
use crate::cli::ConfigAction;
use crate::house;
use crate::settings::{Config, LoadedConfig};
use crate::terminal::{paint, say, say_json};

/// Runs `portcullis config …`.
pub async fn run(loaded: &LoadedConfig, action: &ConfigAction) -> anyhow::Result<()> {
    match action {
        ConfigAction::Check => {
            let (report, notes) = house::check(&loaded.settings).await?;
            let origin = loaded.path.as_ref().map_or_else(|| "the defaults".to_owned(), |p| p.display().to_string());
            say(format!("{} {origin}: {report}", paint::good("fine")));
            say_notes(&notes);
            Ok(())
        }
        ConfigAction::Schema => {
            say_json(&portcullis_config::schema::<Config>());
            Ok(())
        }
        ConfigAction::Show => {
            say_json(&shown(&loaded.settings)?);
            Ok(())
        }
    }
}

/// The settings as JSON. Secrets are a type that prints as `***`.
fn shown(config: &Config) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::to_value(config)?)
}

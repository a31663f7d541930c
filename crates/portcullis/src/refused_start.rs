//! A start that is refused, as the audit log tells it. Guards that the reason is never hidden by trouble with its record, that
//! no directory and no log is made for a record (it goes into a log that is there, or nowhere, and then standard error says
//! so), and that a start that is refused again and again fills no disk: the log is closed and shortened as its settings say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::{AuditEvent, AuditLog, AuditOptions, AuditSettings, Decision, EventKind};
use portcullis_config::ConfigError;
use portcullis_guard::RedactionSettings;
use portcullis_model::SystemClock;
use serde::Deserialize;

use crate::house;
use crate::log::Clean;
use crate::settings::{self, Config};
use crate::terminal::{paint, say_aside};

/// What says where the audit log is.
const PLACES: [&str; 3] = ["data", "audit.directory", "audit.key_file"];

/// These settings, of a file that cannot be used as a whole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outline {
    data: Option<PathBuf>,
    audit: AuditOutline,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuditOutline {
    directory: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

/// How the log is kept, of the same file. Only where all of the section can be read: what is removed is gone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keeping {
    audit: AuditSettings,
}

/// The record of a configuration that was not taken: at the start or while running. `reason` holds no secrets any more.
pub fn event(method: &'static str, rule: &'static str, reason: &str) -> AuditEvent {
    AuditEvent::new(EventKind::Config).method(method).decided(Decision::Deny, rule).note(format!("refused: {reason}"))
}

/// Records that the configuration was refused at the start. What keeps the record from being written is said and no more.
pub fn record(config: &Config, error: &anyhow::Error) {
    let log = Place { directory: house::audit_directory(config), options: options(&config.audit) };
    report(log.write(&config.redaction, &format!("{error:#}")));
}

/// The same of a file that cannot be read as a configuration, when it says well enough where the audit log is. `data` is what
/// the command line says.
pub fn unread(named: Option<&Path>, data: Option<&Path>, error: &ConfigError) {
    report(Place::outlined(named, data).and_then(|log| log.write(&RedactionSettings::default(), &error.to_string())));
}

fn report(written: anyhow::Result<()>) {
    if let Err(why) = written {
        say_aside(format!("{} this refusal is not in the audit log: {why:#}", paint::warn("note:")));
    }
}

/// How the log is kept, by settings that may be what was refused: then as usual, which removes nothing.
fn options(settings: &AuditSettings) -> AuditOptions {
    let usual = || AuditOptions { key_file: settings.key_file.clone(), ..AuditOptions::default() };
    settings.options().unwrap_or_else(|_| usual())
}

/// Where an audit log is, and how it is kept.
struct Place {
    directory: PathBuf,
    options: AuditOptions,
}

impl Place {
    fn outlined(named: Option<&Path>, data: Option<&Path>) -> anyhow::Result<Self> {
        let (outline, keeping) = match settings::file(named) {
            Some(file) => {
                let outline = portcullis_config::load_places::<Outline>(file, &PLACES).ok();
                let outline = outline.context("the configuration does not say where that is")?;
                (outline, portcullis_config::load_places::<Keeping>(file, &["audit"]).unwrap_or_default())
            }
            None => (Outline::default(), Keeping::default()),
        };
        let data = data.map(Path::to_owned).or(outline.data).unwrap_or_else(|| Config::default().data);
        let directory = outline.audit.directory.unwrap_or_else(|| data.join("audit"));
        Ok(Self { directory, options: AuditOptions { key_file: outline.audit.key_file, ..options(&keeping.audit) } })
    }

    fn write(self, redaction: &RedactionSettings, reason: &str) -> anyhow::Result<()> {
        if !self.directory.is_dir() {
            bail!("there is none in {} yet, and none is made for this", self.directory.display());
        }
        // Redaction that is set up wrongly may be what was refused.
        let clean = Clean::new(redaction).or_else(|_| Clean::new(&RedactionSettings::default()))?;
        let log = AuditLog::open_with(&self.directory, Arc::new(SystemClock), self.options)?;
        log.append(event("start", "start-refused", &clean.text(reason)))?;
        let shortened = log.retain();
        log.close()?;
        if let Err(error) = shortened {
            say_aside(format!("{} old audit records could not be removed: {error}", paint::warn("note:")));
        }
        Ok(())
    }
}

//! A start that is refused, as the audit log tells it. Guards that the reason is never hidden by trouble with its record, and
//! that no directory and no log is made for a record: it goes into a log that is there, or nowhere, and then standard error
//! says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_audit::{AuditEvent, AuditLog, AuditOptions, Decision, EventKind};
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

/// The record of a configuration that was not taken: at the start or while running. `reason` holds no secrets any more.
pub fn event(method: &'static str, rule: &'static str, reason: &str) -> AuditEvent {
    AuditEvent::new(EventKind::Config).method(method).decided(Decision::Deny, rule).note(format!("refused: {reason}"))
}

/// Records that the configuration was refused at the start. What keeps the record from being written is said and no more.
pub fn record(config: &Config, error: &anyhow::Error) {
    let log = Place { directory: house::audit_directory(config), key_file: config.audit.key_file.clone() };
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

/// Where an audit log is.
struct Place {
    directory: PathBuf,
    key_file: Option<PathBuf>,
}

impl Place {
    fn outlined(named: Option<&Path>, data: Option<&Path>) -> anyhow::Result<Self> {
        let outline = match settings::file(named) {
            Some(file) => portcullis_config::load_places::<Outline>(file, &PLACES)
                .ok()
                .context("the configuration does not say where that is")?,
            None => Outline::default(),
        };
        let data = data.map(Path::to_owned).or(outline.data).unwrap_or_else(|| Config::default().data);
        let directory = outline.audit.directory.unwrap_or_else(|| data.join("audit"));
        Ok(Self { directory, key_file: outline.audit.key_file })
    }

    fn write(self, redaction: &RedactionSettings, reason: &str) -> anyhow::Result<()> {
        if !self.directory.is_dir() {
            bail!("there is none in {} yet, and none is made for this", self.directory.display());
        }
        // Redaction that is set up wrongly may be what was refused.
        let clean = Clean::new(redaction).or_else(|_| Clean::new(&RedactionSettings::default()))?;
        // One record: it closes no file and removes none.
        let options = AuditOptions { key_file: self.key_file, rotate_at_bytes: u64::MAX, ..AuditOptions::default() };
        let log = AuditLog::open_with(&self.directory, Arc::new(SystemClock), options)?;
        log.append(event("start", "start-refused", &clean.text(reason)))?;
        log.close()?;
        Ok(())
    }
}

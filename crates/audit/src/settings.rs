//! The section `audit:` of the configuration. Guards that what contradicts itself is refused before anything is written.

use std::path::{Path, PathBuf};

use portcullis_config::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::failure::FailurePolicy;
use crate::log::AuditOptions;
use crate::retention::Retention;
use crate::sinks::{self, SinkSettings};

/// The audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// Directory; `audit` inside the data directory when absent.
    pub directory: Option<PathBuf>,
    /// A file is closed and the next one begun at this size.
    pub rotate: ByteSize,
    /// File of the key for fingerprints and signatures; `audit.key` in the audit directory when absent. On another
    /// volume it cannot be taken together with the records.
    pub key_file: Option<PathBuf>,
    /// When checkpoints are signed.
    pub checkpoints: CheckpointSettings,
    /// What is removed, and when. Without limits everything is kept.
    pub retention: RetentionSettings,
    /// What happens to calls when their record cannot be written.
    pub on_failure: FailurePolicy,
    /// Other places that get the records. The files stay the truth.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkSettings>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            directory: None,
            rotate: ByteSize(256 << 20),
            key_file: None,
            checkpoints: CheckpointSettings::default(),
            retention: RetentionSettings::default(),
            on_failure: FailurePolicy::default(),
            sinks: Vec::new(),
        }
    }
}

/// When checkpoints are signed: whichever comes first. One is always signed when the log is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSettings {
    /// After this many records.
    pub records: u64,
    /// When the oldest unsigned record is this old.
    pub every: Span,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { records: 1_000, every: Span(std::time::Duration::from_mins(1)) }
    }
}

/// What is kept. Only whole closed files are removed, the oldest first, and that is recorded and signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// A file whose last record is older than this is removed, such as `365d`.
    pub max_age: Option<Span>,
    /// When all closed files together are larger than this, the oldest are removed.
    pub max_size: Option<ByteSize>,
}

impl AuditSettings {
    /// How the log is to behave.
    ///
    /// # Errors
    /// When settings contradict each other.
    pub fn options(&self) -> Result<AuditOptions, AuditError> {
        let wrong = |reason: &str| Err(AuditError::Settings(reason.to_owned()));
        if self.checkpoints.records == 0 {
            return wrong("checkpoints.records must be at least 1");
        }
        if self.rotate.0 < 64 << 10 {
            return wrong("rotate must be at least 64KiB");
        }
        if self.retention.max_size.is_some_and(|most| most.0 < self.rotate.0) {
            return wrong("retention.max_size is below rotate: not even one full file could be kept");
        }
        sinks::check(&self.sinks)?;
        Ok(AuditOptions {
            rotate_at_bytes: self.rotate.0,
            checkpoint_records: self.checkpoints.records,
            checkpoint_every: self.checkpoints.every.0,
            retention: Retention {
                max_age: self.retention.max_age.map(|age| age.0),
                max_bytes: self.retention.max_size.map(|most| most.0),
            },
            on_failure: self.on_failure,
            key_file: self.key_file.clone(),
            required_sinks: self.sinks.iter().filter(|s| s.required).map(|s| s.name.clone()).collect(),
            ..AuditOptions::default()
        })
    }

    /// Where the records are, for a given data directory.
    pub fn directory_in(&self, data: &Path) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| data.join("audit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AuditOptions, String> {
        let settings: AuditSettings = serde_json::from_str(text).map_err(|e| e.to_string())?;
        settings.options().map_err(|e| e.to_string())
    }

    #[test]
    fn settings_become_options_and_nonsense_is_refused() {
        let options = read(
            r#"{"rotate":"1MiB","checkpoints":{"records":10,"every":"5s"},"retention":{"max_age":"30d","max_size":"2MiB"},"on_failure":{"read":"continue"}}"#,
        )
        .unwrap();
        assert_eq!((options.rotate_at_bytes, options.checkpoint_records), (1 << 20, 10));
        assert_eq!(options.retention.max_age, Some(std::time::Duration::from_hours(24 * 30)));
        assert_eq!(read("{}").unwrap().checkpoint_records, 1_000);
        for (text, says) in [
            (r#"{"checkpoints":{"records":0}}"#, "at least 1"),
            (r#"{"rotate":"1KiB"}"#, "64KiB"),
            (r#"{"retention":{"max_size":"1MiB"}}"#, "below rotate"),
            (r#"{"retension":{}}"#, "unknown field"),
            (r#"{"on_failure":{"read":"ignore"}}"#, "unknown variant"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

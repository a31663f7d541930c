//! The one manager of secrets: what a reference in the configuration stands for, looked up when it is needed. Guards that
//! what is missing, expired or readable by everybody is refused; must not print, log, cache or write back a value.

mod environment;
mod generate;
mod local;
mod manager;
mod settings;

pub use environment::scrubbed_environment;
pub use generate::{GenerateError, generate};
pub use manager::{SecretManager, SecretReport, SecretState};
pub use settings::{Date, SecretSettings, SecretSettingsError, SecretType};

//! The one manager of secrets: what a reference in the configuration stands for, looked up when it is needed. Guards that
//! what is missing, expired or readable by everybody is refused; must not print, log or write back a value, nor keep one
//! longer than a store is configured for.

mod environment;
mod generate;
mod kind;
mod local;
mod manager;
mod settings;
mod store;

pub use environment::{says_secret, scrubbed_environment, secret_variables};
pub use generate::{GenerateError, generate};
pub use manager::{SecretManager, SecretMark, SecretReport, SecretState};
pub use settings::{Date, SecretSettings, SecretSettingsError, SecretType};
pub use store::{AppRole, KubernetesRole, KvVersion, SecretStoreSettings, StoreAuth, StoreError, StoreKind, StoreReport};

//! One typed file. Reading it, substituting the environment, and errors that say what would be right.
//!
//! What the whole file holds is not known here: the rooms have sections of their own, and the binary puts them together.

mod acme;
mod load;
mod network;
mod settings;
mod substitute;
mod units;
mod wire;

pub use acme::{AcmeChallenge, AcmeHttpSettings, AcmeRetrySettings, AcmeSettings, ExternalAccountSettings, RenewBefore};
pub use load::{ConfigError, FileStamp, Loaded, explain, load, load_places, parse, schema};
pub use network::{InvalidNetwork, Network, TrustedProxies};
pub use settings::{
    AdminSettings, ApprovalSettings, Expose, ExposeWord, HealthFor, IngestSettings, LimitSettings, ListenSettings, LogSettings,
    ProfileMode, ProfileSettings, RateSettings, Retention, Sessions, SharedLimits, StdioSettings, StoreSettings,
    TenantLimitSettings, ToolListSettings, WriteSettings,
};
pub use units::{ByteSize, Span};
pub use wire::{CertificateOrigin, ClientCertificates, Plaintext, TlsSettings, TlsVersion};

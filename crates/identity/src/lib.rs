//! Who is calling: API keys, names with passwords, tokens, client certificates, the local user, and the rule for callers
//! without a credential.
//!
//! A credential is checked here and nowhere else, and only as far as *who*: what a principal may do is for
//! `policy`. Nothing here takes a credential from a URL, logs a secret, or lets a caller in because a store is gone.

mod basic;
mod certificate;
mod certificate_rules;
mod door;
mod format;
mod keeper;
mod local;
mod lockout;
mod password;
mod presented;
mod record;
mod refusal;
mod ring;
mod settings;
mod stored;
mod strength;
pub mod token;
mod usage;

pub use certificate::{CertificateError, ClientCertificate, SanName};
pub use door::{Accepted, Identity, Term, TokenVerifier};
pub use format::{CHOSEN_KEY_PREFIX, KEY_LENGTH, KEY_PREFIX};
pub use keeper::{RotatedKey, Rotation};
pub use local::{DEFAULT_LOCAL_ROLE, local_principal, local_user};
pub use password::{SecretHash, UnusableHash};
pub use portcullis_state::{KeyFile as Pepper, KeyFileError as PepperError};
pub use presented::{Presented, Transport};
pub use record::{CreatedKey, Door, KeyRecord, KeyRequest, KeyStatus, REMIND_BEFORE_END, ROTATE_AFTER, networks};
pub use refusal::{IdentityRefusal, RefusalReason};
pub use ring::{DEFAULT_STALE_AFTER, KeyError, KeyRing, Refreshed, SecretMark};
pub use settings::{
    AcceptedCredentials, BasicUser, CertificateRule, IdentitySettings, IdentitySettingsError, LockoutSettings, SanMatch,
    ScopeSettings,
};
pub use strength::{MAX_SECRET_BYTES, MIN_SECRET_CHARACTERS, SecretUse, WeakSecret, check_strength};

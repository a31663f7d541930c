//! Who is calling: API keys, the local user, and the rule for callers without a credential.
//!
//! A credential is checked here and nowhere else, and only as far as *who*: what a principal may do is for
//! `policy`. Nothing here looks at query strings, logs a secret, or lets a caller in because a store is gone.

mod certificate;
mod door;
mod format;
mod limiter;
mod local;
mod record;
mod refusal;
mod ring;

pub use certificate::{CertificateError, ClientCertificate, SanName};
pub use door::{Identity, Presented, TokenVerifier, Transport};
pub use format::{KEY_LENGTH, KEY_PREFIX};
pub use local::{DEFAULT_LOCAL_ROLE, local_principal, local_user};
pub use portcullis_state::{KeyFile as Pepper, KeyFileError as PepperError};
pub use record::{CreatedKey, Door, KeyRecord, KeyRequest, KeyStatus};
pub use refusal::{IdentityRefusal, RefusalReason};
pub use ring::{DEFAULT_STALE_AFTER, KeyError, KeyRing, Refreshed};

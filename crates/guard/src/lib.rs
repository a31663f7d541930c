//! What passes the gate in either direction: strict JSON and checked arguments in, redacted and bounded text out.
//!
//! [`Released`] is the type of everything that may be sent to a client. Only this crate makes one, so a
//! result form that skips redaction does not compile. Pure: no sockets, no runtime.

mod clean;
mod cuts;
mod envelope;
mod redact;
mod release;
mod sanitize;
mod strict;
mod validate;

pub use clean::{is_hidden, is_seen};
pub use envelope::Suspicion;
pub use redact::{
    ALLOW_SECRETS, AddressMode, ExtraPattern, PersonalSettings, RedactionFault, RedactionSettings, Redactions, Redactor, Switch,
    TenantRedactor,
};
pub use release::{ClientFault, META_UNTRUSTED, Notice, Progress, ReleaseSettings, Released, Releaser, Signs};
pub use sanitize::{INJECTION_SEQUENCES, SanitizeMode, SanitizeSettings, Sanitizer, TextKind, TextRule};
pub use strict::{StrictFault, StrictLimits, check_strict, check_strict_str};
pub use validate::{ArgumentSchema, SchemaFault, without_kinds};

//! What passes the gate in either direction: strict JSON and checked arguments in, redacted and bounded text out.
//!
//! [`Released`] is the type of everything that may be sent to a client. Only this crate makes one, so a
//! result form that skips redaction does not compile. Pure: no sockets, no runtime.

mod redact;
mod release;
mod rules;
mod strict;
mod validate;

pub use redact::{Redactions, Redactor};
pub use release::{ClientFault, Notice, Progress, Released, Releaser};
pub use strict::{StrictFault, StrictLimits, check_strict, check_strict_str};
pub use validate::{ArgumentSchema, SchemaFault};

//! Certificates from an authority that speaks ACME (RFC 8555): ordered, proved by TLS-ALPN-01 or HTTP-01, kept, renewed.
//!
//! Guards that nothing goes to the authority but over egress and to the directory's own origin, that an authority is never
//! asked more often than it can bear (whatever crashes in between), that nothing it sends is kept which could not be used,
//! and that keys are for their owner alone. Must not serve TLS: the wire takes the certificate from its file.

mod answers;
mod error;
mod keeper;
mod order;
mod paper;
mod schedule;
mod store;
mod transport;

pub use answers::{Answers, Tokens, challenge_router};
pub use error::{AcmeConfigError, AttemptError};
pub use keeper::{Happening, Keeper};
pub use store::{Failure, Report, certificate_file, report};

//! The wire: listeners, TLS, the bounds of connections, and what every HTTP answer says to browsers.
//!
//! Guards that a connection costs little until it has proved itself, that a certificate in use is a good one, and that no
//! web page uses a listener it was not allowed to. Must not know a protocol above HTTP, and decides nothing about callers:
//! a verified client certificate is handed on as bytes.

mod attend;
mod certificates;
mod challenge;
mod handshake;
mod headers;
mod hosts;
mod incoming;
mod proxies;
mod refusals;
mod serve;

pub use certificates::{Certificates, ExpiryWarning, Protocol, Refreshed, TlsError};
pub use challenge::{Challenges, PendingChallenge};
pub use handshake::{HandshakeFailure, HandshakeLimits, Shaken};
pub use headers::with_security_headers;
pub use hosts::{HostPolicy, HostPolicyError, Pages, Refuse, guarded};
pub use incoming::{Connection, Incoming, Reception, Unattended, Visitor, Wire};
pub use proxies::whence;
pub use refusals::{Refusals, RequestRefusal, rules};
pub use serve::{ConnectionSettings, serve};

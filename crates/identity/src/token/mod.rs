//! Access tokens of OpenID providers and OAuth authorization servers: JWTs, verified here as an OAuth 2.1 resource server
//! must (RFC 9068, RFC 8725, RFC 8707), and exchanged for tokens of upstreams (RFC 8693).
//!
//! Guards: a token is good only when one configured issuer signed it, with an algorithm its key is made for, for this
//! server, now, and when its claims map to something. Every claim that is missing grants nothing. Must not follow
//! anything a token says about where its key is, must not hand a caller's token to anybody, and must not print one.

mod claims;
mod compact;
pub mod exchange;
mod jwks;
mod keys;
mod reason;
mod resource;
mod settings;
mod verifier;

#[cfg(test)]
mod tests;

pub use compact::SubjectToken;
pub use reason::{TokenReason, TokenRefusal};
pub use resource::{ProtectedResource, StepUp, WELL_KNOWN};
pub use settings::{
    ClaimPath, ScopeGrant, TenantMapping, TokenAlgorithm, TokenIssuer, TokenSettings, TokenSettingsError, ValueMapping,
};
pub use verifier::{Claimed, Verified, Verifier, read_unsigned};

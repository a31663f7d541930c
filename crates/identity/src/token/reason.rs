//! Why a token was refused. The client learns little: expired, not for this server, or not valid; the audit record names
//! the reason. Must never hold a token or a part of one.

use portcullis_model::FaultCode;
use serde::{Serialize, Serializer};

/// The reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenReason {
    /// Longer than any token may be.
    TooLarge,
    /// Not three base64url parts, or their content is not strict JSON of the right shape.
    Malformed,
    /// The header wants something that is never honoured: a key or an address of keys in the token, critical extensions.
    HeaderRefused,
    /// The header's `typ` is not accepted from this issuer.
    TypeRefused,
    /// `none`, a shared-secret algorithm, or one that is not on the list of this issuer.
    AlgorithmRefused,
    /// No such issuer is configured, or the token names none.
    UnknownIssuer,
    /// The issuer has no key of that name made for that algorithm.
    UnknownKey,
    /// Several keys of the issuer could have signed it.
    AmbiguousKey,
    /// The signature is wrong.
    SignatureInvalid,
    /// Its time is over.
    Expired,
    /// Its time has not come, or it was issued in the future.
    NotYetValid,
    /// It lives longer than is accepted, or was issued too long ago.
    LifetimeRefused,
    /// It is meant for somebody else.
    AudienceRefused,
    /// A claim that must be there is not, or has the wrong type.
    ClaimMissing,
    /// An ID token, a logout token or a refresh token.
    NotAnAccessToken,
    /// It is bound to a key of its holder, whose possession is not proven by a bearer token.
    SenderConstrained,
    /// Its claims map to no tenant.
    TenantUnmapped,
    /// Its claims map to no role and no door.
    GrantsNothing,
    /// The issuer's keys cannot be had; nobody of this issuer can be verified.
    KeysUnavailable,
}

impl TokenReason {
    /// The reason as it appears in audit records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Malformed => "malformed_token",
            Self::HeaderRefused => "token_header_refused",
            Self::TypeRefused => "token_type_refused",
            Self::AlgorithmRefused => "token_algorithm_refused",
            Self::UnknownIssuer => "unknown_token_issuer",
            Self::UnknownKey => "unknown_token_key",
            Self::AmbiguousKey => "ambiguous_token_key",
            Self::SignatureInvalid => "token_signature_invalid",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::LifetimeRefused => "token_lifetime_refused",
            Self::AudienceRefused => "token_audience_refused",
            Self::ClaimMissing => "token_claim_missing",
            Self::NotAnAccessToken => "not_an_access_token",
            Self::SenderConstrained => "token_sender_constrained",
            Self::TenantUnmapped => "token_tenant_unmapped",
            Self::GrantsNothing => "token_grants_nothing",
            Self::KeysUnavailable => "token_keys_unavailable",
        }
    }

    /// Every reason, for the reference and the attack table.
    pub const ALL: [Self; 19] = [
        Self::TooLarge,
        Self::Malformed,
        Self::HeaderRefused,
        Self::TypeRefused,
        Self::AlgorithmRefused,
        Self::UnknownIssuer,
        Self::UnknownKey,
        Self::AmbiguousKey,
        Self::SignatureInvalid,
        Self::Expired,
        Self::NotYetValid,
        Self::LifetimeRefused,
        Self::AudienceRefused,
        Self::ClaimMissing,
        Self::NotAnAccessToken,
        Self::SenderConstrained,
        Self::TenantUnmapped,
        Self::GrantsNothing,
        Self::KeysUnavailable,
    ];

    /// Whether somebody presented something wrong, so that the address is watched. A good token at its end, or one that
    /// grants nothing, is no guess.
    pub fn counts_as_failure(self) -> bool {
        !matches!(self, Self::KeysUnavailable | Self::GrantsNothing | Self::TenantUnmapped | Self::Expired)
    }

    /// The sentence for the client. It tells apart only what helps an honest client: a new token, another resource,
    /// other scopes, or waiting.
    pub fn message(self) -> &'static str {
        match self {
            Self::Expired => "the access token has expired; get a new one",
            Self::AudienceRefused => "the access token is not meant for this server; ask for one with its resource identifier",
            Self::NotAnAccessToken => "this is not an access token",
            Self::GrantsNothing | Self::TenantUnmapped => "the access token is good, but grants nothing here",
            Self::KeysUnavailable => "access tokens cannot be verified at the moment",
            _ => "the access token is not valid",
        }
    }

    /// The documented code.
    pub fn code(self) -> FaultCode {
        match self {
            Self::GrantsNothing | Self::TenantUnmapped => FaultCode::Forbidden,
            Self::KeysUnavailable => FaultCode::Unavailable,
            _ => FaultCode::Unauthenticated,
        }
    }

    /// The error code of RFC 6750 section 3.1, where one belongs.
    pub fn oauth_error(self) -> Option<&'static str> {
        match self.code() {
            FaultCode::Forbidden => Some("insufficient_scope"),
            FaultCode::Unavailable => None,
            _ => Some("invalid_token"),
        }
    }
}

impl Serialize for TokenReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A refused token. `Display` is the operator's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct TokenRefusal {
    /// Why.
    pub reason: TokenReason,
    /// For the operator: what exactly, in a sentence without any part of the token but bounded, printable claim values.
    pub detail: String,
}

impl TokenRefusal {
    pub(super) fn new(reason: TokenReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// A value from a token as it may stand in the operator's text: short and printable.
pub(super) fn shown(value: &str) -> String {
    let short: String = value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(80).collect();
    if short.len() == value.len() { short } else { format!("{short}…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_what_is_shown_is_bounded() {
        let codes: std::collections::BTreeSet<_> = TokenReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(codes.len(), TokenReason::ALL.len());
        assert_eq!(shown("a\u{202e}b\n"), "ab…");
        assert!(shown(&"x".repeat(10_000)).len() < 90);
    }
}

//! Why a caller was not let in. One sentence for the client, one reason for the operator and the audit record.

use portcullis_model::{Fault, FaultCode, KeyId};
use serde::Serialize;

/// The reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Nothing was presented and nobody is let in without.
    NoCredential,
    /// Not `Bearer`, or not one token after it.
    UnsupportedScheme,
    /// Not the shape of a key, or its checksum is wrong.
    Malformed,
    /// No such key, or the wrong secret; which of the two is not told.
    UnknownKey,
    /// The key's time is over.
    Expired,
    /// The key was taken back.
    Revoked,
    /// The key is good, but not for this door.
    WrongDoor,
    /// Too many failures from this address.
    RateLimited,
    /// The store with the keys has not been reached for too long; nobody can be verified.
    StoreUnreachable,
    /// A key was presented and this server has no key ring.
    NoKeyRing,
    /// A token that is not one, is not signed by a known key, or says something it must not say.
    TokenInvalid,
    /// The token's time is over or has not begun.
    TokenExpired,
    /// The token is good, but made for somebody else (`aud`).
    TokenAudience,
    /// The issuer's keys cannot be had; no token can be verified.
    IssuerUnreachable,
}

impl RefusalReason {
    /// The reason as it appears in audit records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::Malformed => "malformed_credential",
            Self::UnknownKey => "unknown_key",
            Self::Expired => "expired_key",
            Self::Revoked => "revoked_key",
            Self::WrongDoor => "wrong_door",
            Self::RateLimited => "too_many_failures",
            Self::StoreUnreachable => "key_store_unreachable",
            Self::NoKeyRing => "no_key_ring",
            Self::TokenInvalid => "invalid_token",
            Self::TokenExpired => "expired_token",
            Self::TokenAudience => "token_for_another_audience",
            Self::IssuerUnreachable => "issuer_unreachable",
        }
    }

    /// Whether somebody presented something wrong, so that the address is watched.
    pub(crate) fn counts_as_failure(self) -> bool {
        matches!(
            self,
            Self::UnsupportedScheme
                | Self::Malformed
                | Self::UnknownKey
                | Self::Expired
                | Self::Revoked
                | Self::TokenInvalid
                | Self::TokenExpired
                | Self::TokenAudience
        )
    }
}

/// A refusal. `Display` is the sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct IdentityRefusal {
    /// Why.
    pub reason: RefusalReason,
    /// Value of a `WWW-Authenticate` header (RFC 6750 section 3), where one belongs: with 401 and 403.
    pub www_authenticate: Option<String>,
    /// Seconds after which a retry may succeed.
    pub retry_after_seconds: Option<u64>,
    /// The key, where its secret was proven; for the audit record only.
    pub key: Option<KeyId>,
    /// What the operator should know beyond the reason; never a secret, never told to the client.
    pub detail: Option<String>,
}

impl IdentityRefusal {
    /// A refusal with the challenge that belongs to its reason.
    pub fn new(reason: RefusalReason) -> Self {
        let challenge = |error: &str| Some(format!("Bearer realm=\"portcullis\", {error}"));
        let www_authenticate = match reason {
            RefusalReason::NoCredential => Some("Bearer realm=\"portcullis\"".to_owned()),
            RefusalReason::UnsupportedScheme => challenge("error=\"invalid_request\""),
            RefusalReason::Malformed
            | RefusalReason::UnknownKey
            | RefusalReason::Revoked
            | RefusalReason::NoKeyRing
            | RefusalReason::TokenInvalid
            | RefusalReason::TokenAudience => challenge("error=\"invalid_token\""),
            RefusalReason::Expired => challenge("error=\"invalid_token\", error_description=\"the key has expired\""),
            RefusalReason::TokenExpired => challenge("error=\"invalid_token\", error_description=\"the token has expired\""),
            RefusalReason::WrongDoor => challenge("error=\"insufficient_scope\""),
            RefusalReason::RateLimited | RefusalReason::StoreUnreachable | RefusalReason::IssuerUnreachable => None,
        };
        let retry_after_seconds =
            matches!(reason, RefusalReason::StoreUnreachable | RefusalReason::IssuerUnreachable).then_some(1);
        Self { reason, www_authenticate, retry_after_seconds, key: None, detail: None }
    }

    /// The same with something for the operator's log and the audit record.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn of_key(reason: RefusalReason, key: Option<KeyId>) -> Self {
        Self { key, ..Self::new(reason) }
    }

    pub(crate) fn rate_limited(seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..Self::new(RefusalReason::RateLimited) }
    }

    /// The sentence for the client.
    pub fn message(&self) -> &'static str {
        match self.reason {
            RefusalReason::NoCredential => "no credential: send 'Authorization: Bearer <API key>'",
            RefusalReason::UnsupportedScheme => "the Authorization header is not 'Bearer <API key>'",
            RefusalReason::Malformed => "this is not a complete API key: it starts with pcl_ and has 65 characters",
            RefusalReason::UnknownKey | RefusalReason::NoKeyRing => "the API key is not valid",
            RefusalReason::Expired => "the API key has expired",
            RefusalReason::Revoked => "the API key was revoked",
            RefusalReason::WrongDoor => "the API key is not meant for this door",
            RefusalReason::RateLimited => "too many failed attempts from this address",
            RefusalReason::TokenInvalid => "the token is not valid here",
            RefusalReason::TokenExpired => "the token has expired or is not valid yet",
            RefusalReason::TokenAudience => "the token was not issued for this server",
            RefusalReason::StoreUnreachable | RefusalReason::IssuerUnreachable => "credentials cannot be verified at the moment",
        }
    }

    /// The name under which the refusal stands in audit records, where a call would name the deciding rule.
    pub fn rule(&self) -> &'static str {
        self.reason.as_str()
    }

    /// The documented code.
    pub fn code(&self) -> FaultCode {
        match self.reason {
            RefusalReason::WrongDoor => FaultCode::Forbidden,
            RefusalReason::RateLimited => FaultCode::RateLimited,
            RefusalReason::StoreUnreachable | RefusalReason::IssuerUnreachable => FaultCode::Unavailable,
            _ => FaultCode::Unauthenticated,
        }
    }

    /// The HTTP status that goes with it: 401, 403, 429 or 503.
    pub fn http_status(&self) -> u16 {
        match self.code() {
            FaultCode::Forbidden => 403,
            FaultCode::RateLimited => 429,
            FaultCode::Unavailable => 503,
            _ => 401,
        }
    }

    /// The refusal as a fault: the sentence for the client, the reason for the log.
    pub fn fault(&self) -> Fault {
        let fault = Fault::new(self.code(), self.message()).with_internal(match &self.detail {
            Some(detail) => format!("{}: {detail}", self.reason.as_str()),
            None => self.reason.as_str().to_owned(),
        });
        match self.retry_after_seconds {
            Some(seconds) => fault.with_retry_after(seconds),
            None => fault,
        }
    }
}

//! Why a caller was not let in. One sentence for the client, one reason for the operator and the audit record.

use std::time::Duration;

use portcullis_model::{Fault, FaultCode, KeyId};
use serde::Serialize;

use crate::token::{TokenReason, TokenRefusal};

/// The reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Nothing was presented and nobody is let in without.
    NoCredential,
    /// Neither `Bearer` nor `Basic`, or not one credential after it.
    UnsupportedScheme,
    /// A credential in the query of the URL, where every proxy and log sees it.
    CredentialInUrl,
    /// A kind of credential this listener does not accept.
    NotAcceptedHere,
    /// Not the shape of a key, or its checksum is wrong.
    Malformed,
    /// No such key, or the wrong secret; which of the two is not told.
    UnknownKey,
    /// The key's time is over.
    Expired,
    /// The key was taken back.
    Revoked,
    /// The key is good, but not from this address, or from one that is not known.
    WrongAddress,
    /// No such user, or the wrong password; which of the two is not told.
    WrongPassword,
    /// No rule says whom the client certificate speaks for.
    NoCertificateRule,
    /// The client certificate's time is over.
    CertificateExpired,
    /// A credential without the client certificate it has to come with.
    CertificateRequired,
    /// The credential is good, but not for this door.
    WrongDoor,
    /// Too many failures of this address, or of this key id or user name at this address.
    Locked,
    /// Too many passwords are being verified.
    Busy,
    /// The store with the keys has not been reached for too long; nobody can be verified.
    StoreUnreachable,
    /// A key was presented and this server has no key ring.
    NoKeyRing,
    /// A token was presented and is not accepted.
    #[serde(untagged)]
    Token(TokenReason),
}

impl RefusalReason {
    /// The reason as it appears in audit records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::CredentialInUrl => "credential_in_url",
            Self::NotAcceptedHere => "credential_not_accepted_here",
            Self::Malformed => "malformed_credential",
            Self::UnknownKey => "unknown_key",
            Self::Expired => "expired_key",
            Self::Revoked => "revoked_key",
            Self::WrongAddress => "key_from_wrong_address",
            Self::WrongPassword => "wrong_password",
            Self::NoCertificateRule => "no_certificate_rule",
            Self::CertificateExpired => "expired_certificate",
            Self::CertificateRequired => "certificate_required",
            Self::WrongDoor => "wrong_door",
            Self::Locked => "locked_out",
            Self::Busy => "password_checks_busy",
            Self::StoreUnreachable => "key_store_unreachable",
            Self::NoKeyRing => "no_key_ring",
            Self::Token(reason) => reason.as_str(),
        }
    }

    /// Whether a secret did not fit the id or name it came with.
    pub(crate) fn is_wrong_secret(self) -> bool {
        matches!(self, Self::UnknownKey | Self::WrongPassword)
    }

    /// Whether somebody presented something wrong, so that the address is watched. Who has a whole key that has ended
    /// guesses at nothing: an agent nobody gave a new key must not lock out its neighbours.
    pub(crate) fn counts_as_failure(self) -> bool {
        match self {
            Self::UnsupportedScheme | Self::Malformed | Self::UnknownKey | Self::WrongPassword => true,
            Self::Token(reason) => reason.counts_as_failure(),
            _ => false,
        }
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
    /// How long this address, or what was claimed at it, has to wait from now on, where it did not have to before; for an
    /// audit record of its own.
    pub lockout: Option<Duration>,
}

impl IdentityRefusal {
    /// A refusal with the challenge that belongs to its reason.
    pub fn new(reason: RefusalReason) -> Self {
        let challenge = |error: &str| Some(format!("Bearer realm=\"portcullis\", {error}"));
        let www_authenticate = match reason {
            RefusalReason::NoCredential | RefusalReason::CertificateRequired | RefusalReason::NotAcceptedHere => {
                Some("Bearer realm=\"portcullis\"".to_owned())
            }
            RefusalReason::WrongPassword => Some("Basic realm=\"portcullis\", charset=\"UTF-8\"".to_owned()),
            RefusalReason::UnsupportedScheme | RefusalReason::CredentialInUrl => challenge("error=\"invalid_request\""),
            RefusalReason::Malformed | RefusalReason::UnknownKey | RefusalReason::Revoked | RefusalReason::NoKeyRing => {
                challenge("error=\"invalid_token\"")
            }
            RefusalReason::Expired => challenge("error=\"invalid_token\", error_description=\"the key has expired\""),
            RefusalReason::Token(reason) => reason
                .oauth_error()
                .and_then(|error| challenge(&format!("error=\"{error}\", error_description=\"{}\"", reason.message()))),
            RefusalReason::WrongDoor | RefusalReason::WrongAddress => challenge("error=\"insufficient_scope\""),
            RefusalReason::Locked
            | RefusalReason::Busy
            | RefusalReason::StoreUnreachable
            | RefusalReason::NoCertificateRule
            | RefusalReason::CertificateExpired => None,
        };
        let retry_after_seconds = matches!(
            reason,
            RefusalReason::StoreUnreachable | RefusalReason::Busy | RefusalReason::Token(TokenReason::KeysUnavailable)
        )
        .then_some(1);
        Self { reason, www_authenticate, retry_after_seconds, key: None, detail: None, lockout: None }
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

    pub(crate) fn locked(seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..Self::new(RefusalReason::Locked) }
    }

    /// The sentence for the client.
    pub fn message(&self) -> &'static str {
        match self.reason {
            RefusalReason::NoCredential => "no credential: send 'Authorization: Bearer <API key>'",
            RefusalReason::UnsupportedScheme => "the Authorization header is not 'Bearer <API key or token>'",
            RefusalReason::CredentialInUrl => {
                "a credential in the URL is refused, for URLs are logged: send it in the Authorization header, and replace it"
            }
            RefusalReason::NotAcceptedHere => "this listener does not accept this kind of credential",
            RefusalReason::WrongAddress => "the API key is not accepted from this address",
            RefusalReason::WrongPassword => "the user name or the password is wrong",
            RefusalReason::NoCertificateRule => "the client certificate is not known here",
            RefusalReason::CertificateExpired => "the client certificate has expired",
            RefusalReason::CertificateRequired => "this credential is only accepted together with a client certificate",
            RefusalReason::Malformed => "this is not a complete API key: it starts with pcl_ and has 65 characters",
            RefusalReason::UnknownKey | RefusalReason::NoKeyRing => "the API key is not valid",
            RefusalReason::Expired => "the API key has expired",
            RefusalReason::Revoked => "the API key was revoked",
            RefusalReason::WrongDoor => "the credential is not meant for this door",
            RefusalReason::Locked => "too many failed attempts: wait before the next one",
            RefusalReason::Token(reason) => reason.message(),
            RefusalReason::StoreUnreachable | RefusalReason::Busy => "credentials cannot be verified at the moment",
        }
    }

    /// The name under which the refusal stands in audit records, where a call would name the deciding rule.
    pub fn rule(&self) -> &'static str {
        self.reason.as_str()
    }

    /// The documented code.
    pub fn code(&self) -> FaultCode {
        match self.reason {
            RefusalReason::WrongDoor | RefusalReason::WrongAddress | RefusalReason::NoCertificateRule => FaultCode::Forbidden,
            RefusalReason::CredentialInUrl => FaultCode::InvalidArgument,
            RefusalReason::Locked => FaultCode::RateLimited,
            RefusalReason::StoreUnreachable | RefusalReason::Busy => FaultCode::Unavailable,
            RefusalReason::Token(reason) => reason.code(),
            _ => FaultCode::Unauthenticated,
        }
    }

    /// The HTTP status that goes with it: 400, 401, 403, 429 or 503.
    pub fn http_status(&self) -> u16 {
        match self.code() {
            FaultCode::InvalidArgument => 400,
            FaultCode::Forbidden => 403,
            FaultCode::RateLimited => 429,
            FaultCode::Unavailable => 503,
            _ => 401,
        }
    }

    /// Reason, key and detail, for the log and the audit record.
    fn internal(&self) -> String {
        let mut text = self.reason.as_str().to_owned();
        for part in [self.key.as_ref().map(|key| format!("key {key}")), self.detail.clone()].into_iter().flatten() {
            text.push_str(": ");
            text.push_str(&part);
        }
        text
    }

    /// The refusal as a fault: the sentence for the client, the reason for the log.
    pub fn fault(&self) -> Fault {
        let fault = Fault::new(self.code(), self.message()).with_internal(self.internal());
        match self.retry_after_seconds {
            Some(seconds) => fault.with_retry_after(seconds),
            None => fault,
        }
    }
}

impl From<TokenRefusal> for IdentityRefusal {
    fn from(refusal: TokenRefusal) -> Self {
        Self::new(RefusalReason::Token(refusal.reason)).with_detail(refusal.detail)
    }
}

//! Credentials that are looked up when they are needed. Guards that a secret that expired, vanished or cannot be had stops
//! the request instead of going out old or empty. Must not know where secrets are kept; a [`SecretProvider`] does.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_model::{Secret, SecretReference, Timestamp};

use crate::CallerCredentials;

/// A secret that cannot be used right now. Names the reference, never the value; for the operator to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// There is nothing where it should be.
    #[error("the secret {reference} is missing: {reason}")]
    Missing {
        /// The reference or the entry's name.
        reference: String,
        /// What was looked for.
        reason: String,
    },
    /// Its time is over.
    #[error("the secret {reference} expired at {at}; put a new one in its place and set its expires_at")]
    Expired {
        /// The entry's name.
        reference: String,
        /// When.
        at: Timestamp,
    },
    /// It is there and may not be used: readable by everybody, too large, not text.
    #[error("the secret {reference} is refused: {reason}")]
    Refused {
        /// The reference or the entry's name.
        reference: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The store that keeps it gives no answer.
    #[error("the secret {reference} cannot be had: {reason}")]
    Unavailable {
        /// The reference.
        reference: String,
        /// What went wrong.
        reason: String,
    },
}

impl SecretFault {
    /// What is wrong, in words that reveal nothing about where the secret is kept.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "is missing",
            Self::Expired { .. } => "has expired",
            Self::Refused { .. } => "may not be used",
            Self::Unavailable { .. } => "cannot be had right now",
        }
    }
}

/// Gives a secret as it is now.
#[async_trait]
pub trait SecretProvider: Send + Sync + fmt::Debug {
    /// The current value. Asked for every request, so what is costly is kept for a short time.
    ///
    /// # Errors
    /// When it may not or cannot be used.
    async fn current(&self) -> Result<Secret, SecretFault>;
}

/// Finds what a reference stands for.
pub trait SecretResolver: Send + Sync {
    /// A credential that is looked up when it is used.
    ///
    /// # Errors
    /// When the reference names an entry or a store that is not configured. Nothing is read to find out.
    fn credential(&self, reference: &SecretReference) -> Result<Credential, SecretFault>;

    /// Who has credentials in the names of callers.
    ///
    /// # Errors
    /// When nobody has: no issuer is set up for token exchange.
    fn callers(&self) -> Result<Arc<dyn CallerCredentials>, SecretFault> {
        Err(SecretFault::Unavailable {
            reference: "exchange".to_owned(),
            reason: "no issuer is set up for token exchange; set identity.tokens.issuers[].exchange".to_owned(),
        })
    }
}

/// Takes literal values only; for tests and for work that has no secret manager.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiteralSecrets;

impl SecretResolver for LiteralSecrets {
    fn credential(&self, reference: &SecretReference) -> Result<Credential, SecretFault> {
        match reference {
            SecretReference::Literal(secret) => Ok(Credential::Fixed(secret.clone())),
            other => Err(SecretFault::Unavailable {
                reference: other.to_string(),
                reason: "there is no secret manager here".to_owned(),
            }),
        }
    }
}

/// A secret to present: one that stands fixed, or one that is looked up for every request.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The value.
    Fixed(Secret),
    /// Looked up late.
    Late(Arc<dyn SecretProvider>),
}

impl Credential {
    /// The value as it is now.
    ///
    /// # Errors
    /// See [`SecretFault`].
    pub async fn current(&self) -> Result<Secret, SecretFault> {
        match self {
            Self::Fixed(secret) => Ok(secret.clone()),
            Self::Late(provider) => provider.current().await,
        }
    }
}

impl From<Secret> for Credential {
    fn from(secret: Secret) -> Self {
        Self::Fixed(secret)
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(a), Self::Fixed(b)) => a == b,
            (Self::Late(a), Self::Late(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Credential {}

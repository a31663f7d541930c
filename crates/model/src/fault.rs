//! One error, two audiences: a client-safe sentence with a code from a documented list, and an
//! internal text that only the log sees.

use serde::{Deserialize, Serialize};

/// The documented list of codes a client can meet. Stable: agents and scripts branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// No credential, or one that does not verify.
    Unauthenticated,
    /// The principal may not do this. Also used where revealing existence would be a leak.
    Forbidden,
    /// No such tool, resource, prompt or session for this principal.
    NotFound,
    /// The arguments do not fit the schema or contradict each other.
    InvalidArgument,
    /// Too many calls, or too many at once; retry later.
    RateLimited,
    /// The call ran into its deadline.
    DeadlineExceeded,
    /// The caller went away or cancelled.
    Cancelled,
    /// The answer would exceed a byte, row or token budget; narrow the question.
    TooLarge,
    /// A backend failed or answered garbage.
    BackendFailed,
    /// No configured source can answer this.
    NoSource,
    /// A control of the gate itself is not available (audit, state); refused, not skipped.
    Unavailable,
    /// A defect on our side.
    Internal,
}

impl FaultCode {
    /// The code as it appears on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::InvalidArgument => "invalid_argument",
            Self::RateLimited => "rate_limited",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::TooLarge => "too_large",
            Self::BackendFailed => "backend_failed",
            Self::NoSource => "no_source",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Every code, for the generated reference.
    pub const ALL: [Self; 12] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::InvalidArgument,
        Self::RateLimited,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::TooLarge,
        Self::BackendFailed,
        Self::NoSource,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// An error on the road of a call.
///
/// `Display` prints the client-safe sentence only. The internal text is reachable through
/// [`Fault::internal`] and goes to the log, never to an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    code: FaultCode,
    message: String,
    hint: Option<String>,
    foreign: Option<String>,
    internal: Option<String>,
    retry_after_seconds: Option<u64>,
}

impl Fault {
    /// A fault with a client-safe sentence that says what was wrong.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, foreign: None, internal: None, retry_after_seconds: None }
    }

    /// Shorthand for [`FaultCode::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FaultCode::InvalidArgument, message)
    }

    /// Shorthand for [`FaultCode::BackendFailed`]; `internal` is for the log.
    pub fn backend(message: impl Into<String>, internal: impl Into<String>) -> Self {
        Self::new(FaultCode::BackendFailed, message).with_internal(internal)
    }

    /// Adds what would be right, or how to narrow.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what somebody outside of this house said about it: an upstream, a plugin, a backend. It is untrusted text and is
    /// released as such; the message and the hint are the house's own words and hold none of it.
    #[must_use]
    pub fn with_foreign(mut self, words: impl Into<String>) -> Self {
        self.foreign = Some(words.into());
        self
    }

    /// The same fault with every text in it, those for the log as well, as `change` gives it.
    #[must_use]
    pub fn with_texts(mut self, change: impl Fn(&str) -> String) -> Self {
        self.message = change(&self.message);
        for text in [&mut self.hint, &mut self.foreign, &mut self.internal].into_iter().flatten() {
            *text = change(text);
        }
        self
    }

    /// Adds the text for the operator's log.
    #[must_use]
    pub fn with_internal(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into());
        self
    }

    /// Adds when a retry may succeed, in seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The documented code.
    pub fn code(&self) -> FaultCode {
        self.code
    }

    /// The client-safe sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would be right, if known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What somebody outside of this house said about it. Untrusted.
    pub fn foreign(&self) -> Option<&str> {
        self.foreign.as_deref()
    }

    /// The message with the foreign words behind it: for a text that is released as untrusted as a whole.
    pub fn in_all_words(&self) -> String {
        match self.foreign() {
            Some(words) => format!("{}: {words}", self.message),
            None => self.message.clone(),
        }
    }

    /// The operator's text; never shown to a client.
    pub fn internal(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// Seconds after which a retry may succeed.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_seconds
    }
}

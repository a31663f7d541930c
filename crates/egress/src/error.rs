//! Why a request failed. Guards the two audiences: the sentence for an agent names the source and what to do; addresses,
//! hosts and the chain of causes stay in the internal text. Neither ever holds a credential.

use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Fault, FaultCode};

use crate::{AddressClass, CallerFault, SecretFault};

/// A request that did not end with a response. `Display` is the internal text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("egress '{client}': {kind}")]
pub struct EgressError {
    client: Arc<str>,
    kind: EgressErrorKind,
    contacted: bool,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressErrorKind {
    /// The permit does not reach this origin. A defect, or a charter that does not name its destination.
    #[error("the permit may not reach {origin}")]
    NotPermitted {
        /// The origin of this client.
        origin: String,
    },
    /// The request cannot be written; for the caller to fix.
    #[error("the request is not valid: {0}")]
    InvalidRequest(String),
    /// The permit's deadline passed.
    #[error("the deadline of the call passed")]
    DeadlineExceeded,
    /// The backend failed too often just now and is left alone.
    #[error("the circuit is open for another {retry_in:?}")]
    CircuitOpen {
        /// When the next request may pass.
        retry_in: Duration,
    },
    /// The credential cannot be used; for the operator to replace it or to mend its store. Nothing was sent.
    #[error("the credential cannot be used: {0}")]
    Credential(SecretFault),
    /// There is no credential in the caller's name. Nothing was sent.
    #[error("no credential in the caller's name: {0}")]
    Caller(CallerFault),
    /// The host resolves to an address this source may not use; for the operator to allow or to fix.
    #[error("address {address} is {} and not allowed for this source", class.as_str())]
    AddressRefused {
        /// The address.
        address: std::net::IpAddr,
        /// What it is.
        class: AddressClass,
    },
    /// No connection: name not found, refused, TLS handshake failed.
    #[error("cannot connect: {cause}")]
    Connect {
        /// What went wrong.
        cause: String,
        /// Whether something at the other end may have been spoken to, as in a handshake that failed.
        reached: bool,
    },
    /// The backend was silent for longer than the source's timeouts allow.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The connection ended before the response was complete.
    #[error("the response broke off{}: {cause}", if *half_way { " half-way" } else { " before it began" })]
    BrokenOff {
        /// Whether a part of the response had arrived.
        half_way: bool,
        /// What the connection said.
        cause: String,
    },
    /// The bytes received are not HTTP, or not the encoding they claim.
    #[error("the response is not readable: {0}")]
    Garbage(String),
    /// The body is larger than may be read.
    #[error("the response has more than {limit} bytes")]
    ResponseTooLarge {
        /// The cap that was reached, in bytes after decompression.
        limit: u64,
    },
    /// The backend redirects to another origin, or in a way that is not followed.
    #[error("redirect not followed: {0}")]
    RedirectRefused(String),
}

impl EgressError {
    pub(crate) fn new(client: &Arc<str>, kind: EgressErrorKind) -> Self {
        Self { client: Arc::clone(client), contacted: kind.came_from_beyond(), kind }
    }

    /// The same, after the backend had been spoken to: by an earlier try, or before a redirect within it.
    pub(crate) fn after_contact(mut self, contacted: bool) -> Self {
        self.contacted |= contacted;
        self
    }

    /// Whether there was a connection to the backend, or may have been one. `false`: nothing was sent to it.
    pub fn contacted(&self) -> bool {
        self.contacted
    }

    /// What went wrong.
    pub fn kind(&self) -> &EgressErrorKind {
        &self.kind
    }
}

impl EgressErrorKind {
    /// Whether such a failure needs a connection, or leaves it open whether there was one.
    pub(crate) fn came_from_beyond(&self) -> bool {
        match self {
            Self::NotPermitted { .. }
            | Self::InvalidRequest(_)
            | Self::CircuitOpen { .. }
            | Self::Credential(_)
            | Self::Caller(_)
            | Self::AddressRefused { .. } => false,
            Self::Connect { reached, .. } => *reached,
            Self::DeadlineExceeded
            | Self::TimedOut(_)
            | Self::BrokenOff { .. }
            | Self::Garbage(_)
            | Self::ResponseTooLarge { .. }
            | Self::RedirectRefused(_) => true,
        }
    }

    /// Whether the failure says that the backend is not in service.
    pub(crate) fn counts_against_backend(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::TimedOut(_) | Self::BrokenOff { .. } | Self::Garbage(_))
    }
}

impl From<EgressError> for Fault {
    fn from(error: EgressError) -> Self {
        let internal = error.to_string();
        let source = &error.client;
        let fault = match &error.kind {
            EgressErrorKind::NotPermitted { .. } => {
                Self::new(FaultCode::Forbidden, format!("this work may not reach source '{source}'"))
            }
            EgressErrorKind::InvalidRequest(reason) => {
                Self::invalid(format!("this cannot be asked of source '{source}': {reason}"))
            }
            EgressErrorKind::DeadlineExceeded => {
                Self::new(FaultCode::DeadlineExceeded, format!("source '{source}' did not answer before the deadline"))
                    .with_hint("ask for a shorter window or fewer series")
            }
            EgressErrorKind::CircuitOpen { retry_in } => Self::new(
                FaultCode::BackendFailed,
                format!("source '{source}' failed repeatedly and is being left alone for a moment"),
            )
            .with_retry_after(retry_in.as_secs().max(1)),
            EgressErrorKind::Credential(fault) => Self::new(
                FaultCode::BackendFailed,
                format!("source '{source}' was not asked: its credential {}; the operator has to mend that", fault.state()),
            ),
            EgressErrorKind::Caller(fault) => fault.fault(source),
            EgressErrorKind::AddressRefused { class, .. } => Self::new(
                FaultCode::BackendFailed,
                format!("source '{source}' resolves to a {} address, which its configuration does not allow", class.as_str()),
            ),
            EgressErrorKind::Connect { .. } => {
                Self::new(FaultCode::BackendFailed, format!("source '{source}' cannot be reached"))
            }
            EgressErrorKind::TimedOut(_) => {
                Self::new(FaultCode::BackendFailed, format!("source '{source}' did not answer in time"))
                    .with_hint("ask for a shorter window or fewer series")
            }
            EgressErrorKind::BrokenOff { .. } => {
                Self::new(FaultCode::BackendFailed, format!("the answer of source '{source}' broke off half-way"))
            }
            EgressErrorKind::Garbage(_) => {
                Self::new(FaultCode::BackendFailed, format!("source '{source}' sent something that cannot be read"))
            }
            EgressErrorKind::ResponseTooLarge { limit } => {
                Self::new(FaultCode::TooLarge, format!("the answer of source '{source}' is larger than {limit} bytes"))
                    .with_hint("narrow it: a shorter window, a larger step, more matchers, or an aggregation")
            }
            EgressErrorKind::RedirectRefused(_) => Self::new(
                FaultCode::BackendFailed,
                format!("source '{source}' redirects to another place, which is not followed"),
            ),
        };
        fault.with_internal(internal)
    }
}

/// The chain of causes of an error as one line, without repeating what a cause already said.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_never_learns_addresses() {
        let name: Arc<str> = Arc::from("prom");
        for kind in [
            EgressErrorKind::NotPermitted { origin: "http://10.1.2.3:9090".into() },
            EgressErrorKind::AddressRefused { address: [10, 1, 2, 3].into(), class: AddressClass::Private },
            EgressErrorKind::Credential(SecretFault::Missing { reference: "file:/10.1.2.3".into(), reason: "x".into() }),
            EgressErrorKind::Connect { cause: "10.1.2.3:9090 refused".into(), reached: false },
            EgressErrorKind::RedirectRefused("to http://10.1.2.3".into()),
        ] {
            let fault = Fault::from(EgressError::new(&name, kind));
            assert!(!fault.message().contains("10.1.2.3"), "{fault}");
            assert!(fault.message().contains("prom"));
            assert!(fault.internal().unwrap().contains("10.1.2.3"));
        }
    }
}

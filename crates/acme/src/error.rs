//! What can go wrong, and who can mend it. Texts from an authority are cut to one bounded line.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_egress::{EgressConfigError, EgressError, InvalidRange, SecretFault};
use portcullis_policy::PolicyError;

/// Longest text of an authority that is repeated.
const LONGEST: usize = 400;

/// Settings that cannot work. For the operator to fix.
#[derive(Debug, thiserror::Error)]
pub enum AcmeConfigError {
    /// A key of the section.
    #[error("{0}")]
    Setting(String),
    /// An address range.
    #[error("allow_addresses: {0}")]
    Range(#[from] InvalidRange),
    /// The connection to the directory.
    #[error("directory: {0}")]
    Egress(#[from] EgressConfigError),
    /// The key of the external account.
    #[error("external_account.key: {0}")]
    Secret(#[from] SecretFault),
    /// The charter.
    #[error("{0}")]
    Charter(#[from] PolicyError),
}

/// Why there is no certificate this time.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// Nothing came back. The network's, the operator's or the authority's to mend.
    #[error("the directory cannot be reached: {0}")]
    Unreachable(EgressError),
    /// The authority refuses, in its own words. For the operator.
    #[error("the authority refuses {doing}: {reason}")]
    Refused {
        /// What was asked of it.
        doing: &'static str,
        /// Its words.
        reason: String,
    },
    /// The authority looked and did not find the proof. For the operator: the name, its port and its address.
    #[error("the authority could not see that {name} leads here ({challenge}): {reason}")]
    Unproved {
        /// The name.
        name: String,
        /// The kind of proof.
        challenge: &'static str,
        /// Its words.
        reason: String,
    },
    /// The authority does not take this kind of proof.
    #[error("the authority offers no {challenge} for {name}; set challenge to another kind")]
    NotOffered {
        /// The name.
        name: String,
        /// The kind of proof.
        challenge: &'static str,
    },
    /// An answer that is none of ACME.
    #[error("the authority gave an answer that cannot be used: {0}")]
    Answer(String),
    /// What was issued is not what was ordered.
    #[error("the certificate that was issued is not put into force: {0}")]
    Certificate(String),
    /// The secret of the external account.
    #[error("external_account.key: {0}")]
    Secret(#[from] SecretFault),
    /// The key of the external account is not what an authority gives.
    #[error("external_account.key is not base64url; write it as the authority gave it")]
    ExternalKey,
    /// A file in the data directory.
    #[error("{path}: cannot be {doing}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written`.
        doing: &'static str,
        /// Why.
        reason: std::io::Error,
    },
    /// Something here, not there.
    #[error("the order cannot be made: {0}")]
    Local(String),
    /// It took too long.
    #[error("the order did not end within {}", portcullis_model::format_duration(*.0))]
    Late(Duration),
}

impl AttemptError {
    /// An error of the protocol, met while doing something.
    pub(crate) fn of(doing: &'static str, error: instant_acme::Error) -> Self {
        use instant_acme::Error;
        match error {
            Error::Api(problem) => Self::Refused { doing, reason: bounded(&problem.to_string()) },
            Error::Other(other) => match other.downcast::<EgressError>() {
                Ok(egress) => Self::Unreachable(*egress),
                Err(other) => Self::Answer(bounded(&format!("{doing}: {other}"))),
            },
            Error::Timeout(_) => Self::Answer(format!("{doing}: it is not done in time")),
            error @ (Error::Crypto | Error::KeyRejected) => Self::Local(error.to_string()),
            error => Self::Answer(bounded(&format!("{doing}: {error}"))),
        }
    }

    pub(crate) fn file(path: &std::path::Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::File { path, doing, reason }
    }
}

/// One line of somebody else's words: no control characters, and no more than can be read.
pub(crate) fn bounded(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = clean.take(LONGEST).collect();
    if text.chars().count() > LONGEST {
        out.push('…');
    }
    out
}

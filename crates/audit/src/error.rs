//! What can go wrong with the audit log. All of it is the operator's to fix; until then the gate refuses calls.
//! [`AuditError::Blocked`] ends by itself when its cause does; after [`AuditError::Stopped`] the process has to go.

use std::path::{Path, PathBuf};

use portcullis_state::KeyFileError;

/// An audit log that cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The system refused something.
    #[error("audit file {path} cannot be {action}: {source}{}", hint(source))]
    File {
        /// The file or directory.
        path: PathBuf,
        /// `opened`, `written`, `synced`, …
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log stopped because it could no longer vouch for what is on disk.
    #[error("the audit log stopped: {reason}; look at the disk and the directory, then restart")]
    Stopped {
        /// What happened.
        reason: String,
    },
    /// Something is in the way of the next record. It is tried again, and appends succeed when it is gone.
    #[error("no audit record can be written: {reason}; this is tried again, and goes on by itself when it is mended")]
    Blocked {
        /// What is in the way.
        reason: String,
    },
    /// The log was closed; nothing is recorded any more.
    #[error("the audit log is closed")]
    Closed,
    /// A record in memory could not be written as JSON: a defect on our side.
    #[error("an audit record could not be encoded: {0}")]
    Encode(String),
    /// A public key that cannot be used.
    #[error("{0}")]
    PublicKey(String),
    /// The directory was signed with a key that is not the one at hand.
    #[error(
        "{path} belongs to another key than the one at hand: restore the key file that signed this directory, or move the directory aside (its public key still verifies it) and begin a new one"
    )]
    OtherKey {
        /// The file with the public key.
        path: PathBuf,
    },
    /// An erasure cannot be carried out now.
    #[error("{0}")]
    Erase(String),
    /// A chain without signatures cannot be signed.
    #[error("chain '{chain}' is not signed: {reason}")]
    Adopt {
        /// The chain.
        chain: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings that contradict each other or cannot be used.
    #[error("audit settings: {0}")]
    Settings(String),
    /// The key for fingerprints and signatures cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; free some space, calls are refused until records can be written"
        }
        std::io::ErrorKind::PermissionDenied => "; the directory must belong to the user that runs Portcullis",
        std::io::ErrorKind::ReadOnlyFilesystem => "; mount the volume read-write",
        _ => "",
    }
}

impl AuditError {
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, action, source }
    }
}

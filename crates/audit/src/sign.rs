//! Ed25519 signatures over the state of a chain. The seed comes from the directory's key file and never leaves this
//! module; what is signed is plain text that any other program can put together.
//!
//! The text of a checkpoint is `portcullis audit checkpoint v1`, chain, sequence number, hash and time, one per line,
//! each line ended by a line feed; heads and the beginning after retention have texts of their own, so that a signature
//! over one thing is never one over another.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use portcullis_state::KeyFile;
use zeroize::Zeroizing;

use crate::AuditError;
use crate::seal::{bytes_of, hex_of};

/// Domain of the signing key; changing it makes another public key.
const CONTEXT: &str = "portcullis 2026-11-20 audit checkpoint signing key v1";

/// The file with the public key, beside the records.
pub(crate) const PUBLIC_FILE: &str = "audit.pub";

/// What is signed.
pub(crate) enum Statement<'a> {
    /// A record and, through its hash, all before it.
    Checkpoint { chain: &'a str, sequence: u64, hash: &'a str, time: &'a str },
    /// The last record known to be on disk.
    Head { chain: &'a str, part: u64, sequence: u64, hash: &'a str, closed: bool },
    /// Where the chain begins after retention.
    Base { chain: &'a str, part: u64, sequence: u64, prev: &'a str, time: &'a str },
    /// What an erasure takes from one chain.
    Erasure { id: &'a str, chain: &'a str, spans: &'a str },
}

impl Statement<'_> {
    fn text(&self) -> String {
        let mut text = String::from("portcullis audit ");
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Checkpoint { chain, sequence, hash, time } => {
                write!(text, "checkpoint v1\n{chain}\n{sequence}\n{hash}\n{time}\n")
            }
            Self::Head { chain, part, sequence, hash, closed } => {
                write!(text, "head v1\n{chain}\n{part}\n{sequence}\n{hash}\n{closed}\n")
            }
            Self::Base { chain, part, sequence, prev, time } => {
                write!(text, "base v1\n{chain}\n{part}\n{sequence}\n{prev}\n{time}\n")
            }
            Self::Erasure { id, chain, spans } => write!(text, "erasure v1\n{id}\n{chain}\n{spans}\n"),
        };
        text
    }
}

/// The public half: what `verify` needs to check signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, AuditError> {
        let wrong = || AuditError::PublicKey("a public key is 64 hexadecimal digits, as 'audit public-key' prints it".to_owned());
        let bytes = bytes_of::<32>(&text.trim().to_ascii_lowercase()).ok_or_else(wrong)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong())?;
        if key.is_weak() {
            return Err(AuditError::PublicKey("this public key would accept forged signatures".to_owned()));
        }
        Ok(Self(key))
    }

    /// From a file that holds the digits.
    pub fn from_file(path: &Path) -> Result<Self, AuditError> {
        Self::from_hex(&fs::read_to_string(path).map_err(AuditError::file(path, "read"))?)
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex_of(self.0.as_bytes())
    }

    /// How records name it: 16 hexadecimal digits.
    pub fn name(&self) -> String {
        hex_of(&blake3::hash(self.0.as_bytes()).as_bytes()[..8])
    }

    /// Whether `signature` (hexadecimal) is one over `statement`.
    pub(crate) fn signed(&self, statement: &Statement<'_>, signature: &str) -> bool {
        bytes_of::<64>(signature)
            .is_some_and(|bytes| self.0.verify_strict(statement.text().as_bytes(), &Signature::from_bytes(&bytes)).is_ok())
    }
}

/// Signs. Made from the key file; the private key is wiped when dropped.
pub(crate) struct Signer {
    key: SigningKey,
    pub(crate) public: PublicKey,
    pub(crate) name: String,
}

impl Signer {
    pub(crate) fn new(file: &KeyFile) -> Self {
        let seed = Zeroizing::new(blake3::derive_key(CONTEXT, file.expose()));
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key());
        let name = public.name();
        Self { key, public, name }
    }

    pub(crate) fn sign(&self, statement: &Statement<'_>) -> String {
        hex_of(&self.key.sign(statement.text().as_bytes()).to_bytes())
    }

    /// Writes the public key beside the records, or makes sure that the one there is ours.
    pub(crate) fn publish(&self, directory: &Path) -> Result<(), AuditError> {
        let path = directory.join(PUBLIC_FILE);
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match new {
            Ok(mut file) => {
                let text = format!("{}\n", self.public.to_hex());
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(AuditError::file(&path, "written"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = fs::read_to_string(&path).map_err(AuditError::file(&path, "read"))?;
                if text.is_empty() {
                    // Another process is between making and writing it, or died there; writing the same twice is harmless.
                    return fs::write(&path, format!("{}\n", self.public.to_hex())).map_err(AuditError::file(&path, "written"));
                }
                if text.trim() != self.public.to_hex() {
                    return Err(AuditError::OtherKey { path });
                }
                Ok(())
            }
            Err(error) => Err(AuditError::file(&path, "created")(error)),
        }
    }
}

/// The public key with which a directory's signatures are checked when none is given: that of its key file, else the one
/// beside the records; `None` when the directory was never signed.
pub fn public_key(directory: &Path, key_file: Option<&Path>) -> Result<Option<PublicKey>, AuditError> {
    let published = directory.join(PUBLIC_FILE);
    if !published.exists() {
        return Ok(None);
    }
    let key_file = key_file.map_or_else(|| directory.join("audit.key"), Path::to_owned);
    // Only looked at, never made: a new key would vouch for nothing.
    if fs::metadata(&key_file).is_ok_and(|m| m.len() > 0)
        && let Ok(key) = KeyFile::load_or_create(&key_file)
    {
        return Ok(Some(Signer::new(&key).public));
    }
    PublicKey::from_file(&published).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_one_statement_and_one_key_only() {
        let signer = Signer::new(&KeyFile::in_memory().unwrap());
        let statement = |sequence| Statement::Checkpoint { chain: "audit-a", sequence, hash: "00", time: "now" };
        let signature = signer.sign(&statement(7));
        let public = PublicKey::from_hex(&signer.public.to_hex()).unwrap();
        assert!(public.signed(&statement(7), &signature));
        assert!(!public.signed(&statement(8), &signature));
        let base = Statement::Base { chain: "audit-a", part: 1, sequence: 7, prev: "00", time: "now" };
        assert!(!public.signed(&base, &signature));
        assert!(!Signer::new(&KeyFile::in_memory().unwrap()).public.signed(&statement(7), &signature));
        for wrong in ["", "zz", &signature[2..], &signature.to_uppercase()] {
            assert!(!public.signed(&statement(7), wrong));
        }
    }

    #[test]
    fn public_keys_that_accept_everything_are_refused() {
        assert!(PublicKey::from_hex(&"00".repeat(32)).is_err());
        assert!(PublicKey::from_hex("abc").unwrap_err().to_string().contains("64 hexadecimal digits"));
    }

    #[test]
    fn another_key_beside_the_records_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::new(&KeyFile::in_memory().unwrap());
        signer.publish(directory.path()).unwrap();
        signer.publish(directory.path()).unwrap();
        let other = Signer::new(&KeyFile::in_memory().unwrap()).publish(directory.path()).unwrap_err().to_string();
        assert!(other.contains("another key"), "{other}");
    }
}

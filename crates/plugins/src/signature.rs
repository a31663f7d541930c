//! Signatures over packages, and the keys that make them. Guards that a signature says all it means (name, version, digest,
//! time) and that a private key is readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use portcullis_model::{Timestamp, format_timestamp, parse_instant};
use rand::TryRng as _;
use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::digest::hex_of;
use crate::{Digest, Manifest, PluginName};

/// Name of the format in a signature file.
const FORMAT: &str = "portcullis-plugin-signature/1";
/// Largest signature file.
pub(crate) const MOST_SIGNATURE: u64 = 8 << 10;

/// A key or signature that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A file cannot be read or written.
    #[error("{path} cannot be {action}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A private key others can read.
    #[error("{path} has mode {mode:04o}, so others may have the key; make it 0600, and think about revoking it")]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key or signature.
    #[error("{0}")]
    Form(String),
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

fn form(reason: impl Into<String>) -> SignatureError {
    SignatureError::Form(reason.into())
}

/// The public half of a signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From the base64 of its 32 bytes.
    ///
    /// # Errors
    /// When it is no key, or one that would accept forged signatures.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let wrong = || form("a public key is the base64 of 32 bytes, as 'portcullis plugin keys new' prints it");
        let bytes: [u8; 32] = STANDARD.decode(text.trim()).map_err(|_| wrong())?.try_into().map_err(|_| wrong())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong())?;
        if key.is_weak() {
            return Err(form("this public key would accept forged signatures"));
        }
        Ok(Self(key))
    }

    /// Its name: the first 16 hexadecimal digits of the SHA-256 of its bytes.
    pub fn id(&self) -> String {
        let digest = Digest::of(self.0.as_bytes());
        digest.hex().chars().take(16).collect()
    }

    /// Whether the base64 `signature` over `message` was made by it.
    pub(crate) fn verifies_text(&self, message: &str, signature: &str) -> bool {
        let bytes = STANDARD.decode(signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        bytes.is_some_and(|bytes| self.verifies(message.as_bytes(), &Signature::from_bytes(&bytes)))
    }

    fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(message, signature).is_ok()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A private key. Wiped when dropped, never printed.
pub struct PrivateKey(SigningKey);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(***)")
    }
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<Self, SignatureError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        rand::rngs::SysRng.try_fill_bytes(seed.as_mut_slice()).map_err(|error| SignatureError::Random(error.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a PKCS#8 PEM file, which nobody but its owner may read.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn from_file(path: &Path) -> Result<Self, SignatureError> {
        let failed = |source| SignatureError::File { path: path.to_owned(), action: "read", source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SignatureError::Loose { path: path.to_owned(), mode });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let key =
            SigningKey::from_pkcs8_pem(&text).map_err(|_| form(format!("{} is no Ed25519 key as PKCS#8 PEM", path.display())))?;
        Ok(Self(key))
    }

    /// Writes it into a new file with mode 0600. Never over another file.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn write_new(&self, path: &Path) -> Result<(), SignatureError> {
        let failed = |source| SignatureError::File { path: path.to_owned(), action: "written", source };
        let text = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| form("the key cannot be written as PEM"))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a package.
    pub fn sign(&self, manifest: &Manifest, digest: Digest, now: Timestamp) -> PackageSignature {
        let mut signature = PackageSignature {
            format: FORMAT.to_owned(),
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
            digest,
            signed_at: format_timestamp(now),
            key: self.public().id(),
            signature: String::new(),
        };
        signature.signature = self.sign_text(&signature.message());
        signature
    }

    /// The base64 of a signature over `message`. Whoever calls it begins the message with what it is, so that no signature
    /// can be taken for one over something else.
    pub(crate) fn sign_text(&self, message: &str) -> String {
        STANDARD.encode(self.0.sign(message.as_bytes()).to_bytes())
    }
}

/// A detached signature, as the file beside a package holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSignature {
    format: String,
    /// What is signed: the plugin,
    pub plugin: PluginName,
    /// its version,
    pub version: Version,
    /// and the digest of every byte of its package.
    pub digest: Digest,
    pub(crate) signed_at: String,
    /// Id of the key.
    pub key: String,
    signature: String,
}

impl PackageSignature {
    /// Reads a signature file.
    ///
    /// # Errors
    /// When it is no signature of this format.
    pub fn read(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() as u64 > MOST_SIGNATURE {
            return Err(form("this is no signature of a package: it is too large"));
        }
        let read: Self =
            serde_json::from_slice(bytes).map_err(|error| form(format!("this is no signature of a package: {error}")))?;
        if read.format != FORMAT {
            return Err(form(format!("this is no signature of a package: its format is not {FORMAT}")));
        }
        read.signed_at().ok_or_else(|| form("the time of signing is not readable"))?;
        Ok(read)
    }

    /// The file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// When it says it was made.
    pub fn signed_at(&self) -> Option<Timestamp> {
        // Only absolute times: nothing is relative to the reader's clock.
        let absolute = self.signed_at.starts_with(|c: char| c.is_ascii_digit());
        absolute.then(|| parse_instant(&self.signed_at, Timestamp::default()).ok()).flatten()
    }

    fn message(&self) -> String {
        let Self { plugin, version, digest, signed_at, .. } = self;
        format!("portcullis plugin package v1\n{plugin}\n{version}\n{digest}\n{signed_at}\n")
    }

    /// Whether `key` made it.
    pub(crate) fn made_by(&self, key: &PublicKey) -> bool {
        self.key == key.id() && key.verifies_text(&self.message(), &self.signature)
    }
}

/// A raw Ed25519 signature over bytes, for the formats of others.
pub(crate) fn verifies_raw(key: &VerifyingKey, message: &[u8], signature: [u8; 64]) -> bool {
    key.verify_strict(message, &Signature::from_bytes(&signature)).is_ok()
}

/// Fingerprint of the key of another format.
pub(crate) fn fingerprint(key: &VerifyingKey) -> String {
    hex_of(&key.as_bytes()[..8])
}

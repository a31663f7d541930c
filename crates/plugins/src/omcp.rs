//! The plugin format of the system Portcullis replaces: a directory or `.tgz` with `package.json`, `manifest.json`, an
//! Ed25519 signature over the manifest's bytes, and `integrity: sha256-…` of the entry file. Guards that what is verified is
//! what was read, once, in memory. Such plugins are never run; everything the signature does not reach is named.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::signature::{fingerprint, verifies_raw};

/// Bounds of that system and some of our own.
const MOST_ARCHIVE: u64 = 50 << 20;
const MOST_CONTENT: u64 = 200 << 20;
const MOST_FILES: usize = 2_000;
const BLOCK: usize = 512;

/// A plugin of that format that does not verify.
#[derive(Debug, thiserror::Error)]
pub enum OmcpError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Not of this format, or not within its bounds.
    #[error("this is no plugin of that format: {0}")]
    Form(String),
    /// The trust root.
    #[error("the trust root holds no usable Ed25519 key: {0}")]
    Trust(String),
    /// No signature.
    #[error("the plugin is not signed: there is no manifest.json.sig")]
    Unsigned,
    /// The signature is not by a key of the trust root, or the manifest was changed.
    #[error("manifest.json was not signed by a key of the trust root, or was changed since")]
    Forged,
    /// The entry file was changed.
    #[error("{file} has integrity {found}, and the manifest says {wanted}")]
    Altered {
        /// The entry file.
        file: String,
        /// What it has.
        found: String,
        /// What was signed.
        wanted: String,
    },
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OmcpVerified {
    /// Name in the manifest.
    pub name: String,
    /// Version in the manifest.
    pub version: String,
    /// The entry file, whose digest is signed.
    pub entry: String,
    /// First digits of the key that signed.
    pub key: String,
    /// Files the signature says nothing of.
    pub unsigned_files: Vec<String>,
}

type Files = BTreeMap<String, Vec<u8>>;

/// Verifies the plugin in `path` against the PEM text of a trust root.
///
/// # Errors
/// See [`OmcpError`]; everything that is not clearly verified is one.
pub fn verify_omcp(path: &Path, trust_root: &str) -> Result<OmcpVerified, OmcpError> {
    let keys = keys(trust_root)?;
    let files = if path.is_dir() { read_directory(path)? } else { read_archive(path)? };
    verify_files(&files, &keys)
}

/// The same of a `.tgz` that is in memory.
///
/// # Errors
/// See [`OmcpError`].
pub fn verify_omcp_archive(packed: &[u8], trust_root: &str) -> Result<OmcpVerified, OmcpError> {
    let keys = keys(trust_root)?;
    let unpacked = unpack(packed).map_err(|reason| OmcpError::Read { path: "the archive".to_owned(), reason })?;
    verify_files(&files_of(&unpacked)?, &keys)
}

fn verify_files(files: &Files, keys: &[VerifyingKey]) -> Result<OmcpVerified, OmcpError> {
    let get = |name: &str| files.get(name).ok_or_else(|| OmcpError::Form(format!("there is no {name}")));
    let manifest_bytes = get("manifest.json")?;
    let signature = files.get("manifest.json.sig").ok_or(OmcpError::Unsigned)?;
    let signature = signature_of(signature).ok_or_else(|| OmcpError::Form("manifest.json.sig is no Ed25519 signature".into()))?;
    let key = keys.iter().find(|key| verifies_raw(key, manifest_bytes, signature)).ok_or(OmcpError::Forged)?;
    let json = |name: &str, bytes: &[u8]| -> Result<Value, OmcpError> {
        serde_json::from_slice(bytes).map_err(|error| OmcpError::Form(format!("{name} is no JSON: {error}")))
    };
    let manifest = json("manifest.json", manifest_bytes)?;
    let text = |field: &str| manifest.get(field).and_then(Value::as_str).map(str::to_owned);
    let wanted = text("integrity")
        .ok_or_else(|| OmcpError::Form("the manifest has no integrity, so its signature covers no code".into()))?;
    let package = json("package.json", get("package.json")?)?;
    let main = package.get("main").and_then(Value::as_str).unwrap_or("index.js");
    let entry = main.strip_prefix("./").unwrap_or(main).to_owned();
    let bytes = files.get(&entry).ok_or_else(|| OmcpError::Form(format!("the entry file {entry:?} is not in it")))?;
    let found = format!("sha256-{}", STANDARD.encode(Sha256::digest(bytes)));
    if found != wanted {
        return Err(OmcpError::Altered { file: entry, found, wanted });
    }
    let covered = ["manifest.json", "manifest.json.sig", entry.as_str()];
    let unsigned_files = files.keys().filter(|name| !covered.contains(&name.as_str())).cloned().collect();
    let field = |name: &str| text(name).unwrap_or_default();
    Ok(OmcpVerified { name: field("name"), version: field("version"), entry, key: fingerprint(key), unsigned_files })
}

fn keys(pem: &str) -> Result<Vec<VerifyingKey>, OmcpError> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    let mut keys = Vec::new();
    let mut rest = pem;
    while let Some(at) = rest.find(BEGIN) {
        let block = &rest[at..];
        let end = block.find(END).ok_or_else(|| OmcpError::Trust("a key does not end".into()))? + END.len();
        let key = VerifyingKey::from_public_key_pem(&block[..end])
            .map_err(|_| OmcpError::Trust("one of its keys is no Ed25519 key; others are not verified here".into()))?;
        if key.is_weak() {
            return Err(OmcpError::Trust("one of its keys would accept forged signatures".into()));
        }
        keys.push(key);
        rest = &block[end..];
    }
    if keys.is_empty() { Err(OmcpError::Trust("there is no PUBLIC KEY block in it".into())) } else { Ok(keys) }
}

/// Base64, or the raw bytes.
fn signature_of(bytes: &[u8]) -> Option<[u8; 64]> {
    if let Ok(raw) = bytes.try_into() {
        return Some(raw);
    }
    let text: String = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn read_directory(root: &Path) -> Result<Files, OmcpError> {
    let mut files = Files::new();
    let mut left = MOST_CONTENT;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |error: std::io::Error| OmcpError::Read { path: directory.display().to_string(), reason: error.to_string() };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let metadata = fs::symlink_metadata(&path).map_err(failed)?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if metadata.is_dir() {
                directories.push(path);
            } else if metadata.is_file() {
                let file = fs::File::open(&path).map_err(failed)?;
                let bytes = bounded(file, left).map_err(|reason| OmcpError::Read { path: name.clone(), reason })?;
                left -= bytes.len() as u64;
                files.insert(name, bytes);
            } else {
                return Err(OmcpError::Form(format!("{name} is a link or a special file")));
            }
            if files.len() + directories.len() > MOST_FILES {
                return Err(OmcpError::Form(format!("it has more than {MOST_FILES} files")));
            }
        }
    }
    Ok(files)
}

fn bounded(source: impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    source.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most { Err(format!("more than {most} bytes")) } else { Ok(bytes) }
}

fn read_archive(path: &Path) -> Result<Files, OmcpError> {
    let failed = |reason: String| OmcpError::Read { path: path.display().to_string(), reason };
    let file = fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let packed = bounded(file, MOST_ARCHIVE).map_err(failed)?;
    files_of(&unpack(&packed).map_err(failed)?)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    bounded(flate2::read::GzDecoder::new(packed), MOST_CONTENT)
}

fn files_of(content: &[u8]) -> Result<Files, OmcpError> {
    let mut files = Files::new();
    let mut rest = content;
    let form = |reason: &str| OmcpError::Form(reason.to_owned());
    while let Some((head, after)) = rest.split_at_checked(BLOCK) {
        if head.iter().all(|byte| *byte == 0) {
            break;
        }
        let (name, size) = header(head).ok_or_else(|| form("its archive is not readable"))?;
        let padded = size.checked_next_multiple_of(BLOCK).ok_or_else(|| form("its archive is not readable"))?;
        let (body, after) = after.split_at_checked(padded).ok_or_else(|| form("its archive ends early"))?;
        rest = after;
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        match head[156] {
            b'0' | 0 => {
                let climbs = name.starts_with('/') || name.split('/').any(|part| part == "..") || name.contains('\0');
                if climbs || name.is_empty() {
                    return Err(form("a name in its archive leaves the archive"));
                }
                if files.insert(name, body[..size].to_vec()).is_some() {
                    return Err(form("its archive holds a name twice"));
                }
            }
            b'5' => {}
            _ => return Err(form("its archive holds links or special files")),
        }
        if files.len() > MOST_FILES {
            return Err(OmcpError::Form(format!("it has more than {MOST_FILES} files")));
        }
    }
    // npm packs everything below one folder.
    if !files.is_empty() && files.keys().all(|name| name.starts_with("package/")) {
        files = files.into_iter().map(|(name, bytes)| (name["package/".len()..].to_owned(), bytes)).collect();
    }
    Ok(files)
}

/// Name and size in a header of a tar archive, if its checksum fits.
fn header(head: &[u8]) -> Option<(String, usize)> {
    let number = |field: &[u8]| {
        let text = std::str::from_utf8(field).ok()?;
        usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    };
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8(field[..end].to_vec()).ok()
    };
    let sum: usize =
        head.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { usize::from(*byte) }).sum();
    if number(&head[148..156])? != sum {
        return None;
    }
    let (name, prefix) = (text(&head[..100])?, if head[257..262] == *b"ustar" { text(&head[345..500])? } else { String::new() });
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    Some((name, number(&head[124..136])?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use ed25519_dalek::pkcs8::{EncodePublicKey as _, spki::der::pem::LineEnding};
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const ENTRY: &[u8] = b"export default 1;\n";

    /// As the publisher of that system does it: the manifest with the integrity of the entry file, and a base64 signature.
    fn plugin(directory: &Path, key: &SigningKey) {
        let integrity = format!("sha256-{}", STANDARD.encode(Sha256::digest(ENTRY)));
        let manifest = format!(
            "{{\"schemaVersion\": 1, \"name\": \"datadog\", \"version\": \"1.0.0\", \"signalTypes\": [\"metrics\"], \"integrity\": \"{integrity}\"}}"
        );
        let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).unwrap();
        write("manifest.json", manifest.as_bytes());
        write("manifest.json.sig", STANDARD.encode(key.sign(manifest.as_bytes()).to_bytes()).as_bytes());
        write("package.json", br#"{"main": "./index.mjs", "observabilityMcp": {"kind": "connector"}}"#);
        write("index.mjs", ENTRY);
        write("helper.mjs", b"// nobody signed this\n");
    }

    fn pem(key: &SigningKey) -> String {
        key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap()
    }

    #[test]
    fn a_directory_and_an_archive_verify_and_what_is_not_signed_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("datadog");
        fs::create_dir(&folder).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        plugin(&folder, &key);
        let verified = verify_omcp(&folder, &pem(&key)).unwrap();
        assert_eq!((verified.name.as_str(), verified.entry.as_str()), ("datadog", "index.mjs"));
        assert_eq!(verified.unsigned_files, ["helper.mjs", "package.json"]);
        let archive = directory.path().join("datadog-1.0.0.tgz");
        let packed = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&folder).arg(".").status().unwrap();
        assert!(packed.success());
        assert_eq!(verify_omcp(&archive, &pem(&key)).unwrap(), verified);
        // With another key before it.
        let two = format!("{}{}", pem(&SigningKey::from_bytes(&[8; 32])), pem(&key));
        assert!(verify_omcp(&folder, &two).is_ok());
    }

    #[test]
    fn a_plugin_made_with_the_tools_of_that_system_verifies() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/omcp");
        let root = fs::read_to_string(folder.join("plugin-signing.pub.pem")).unwrap();
        let verified = verify_omcp(&folder.join("demo"), &root).unwrap();
        assert_eq!((verified.name.as_str(), verified.version.as_str(), verified.entry.as_str()), ("demo", "1.0.0", "index.mjs"));
        assert_eq!(verified.unsigned_files, ["helper.mjs", "package.json"]);
    }

    #[test]
    fn altered_unsigned_foreign_and_odd_ones_do_not() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let fails = |change: &dyn Fn(&Path), pem: &str| {
            let directory = tempfile::tempdir().unwrap();
            plugin(directory.path(), &key);
            change(directory.path());
            verify_omcp(directory.path(), pem).unwrap_err()
        };
        let good = pem(&key);
        assert!(matches!(fails(&|d| fs::write(d.join("index.mjs"), "evil").unwrap(), &good), OmcpError::Altered { .. }));
        let changed = |d: &Path| {
            let text = fs::read_to_string(d.join("manifest.json")).unwrap().replace("1.0.0", "9.0.0");
            fs::write(d.join("manifest.json"), text).unwrap();
        };
        assert!(matches!(fails(&changed, &good), OmcpError::Forged));
        assert!(matches!(fails(&|d| fs::remove_file(d.join("manifest.json.sig")).unwrap(), &good), OmcpError::Unsigned));
        assert!(matches!(fails(&|_| {}, &pem(&SigningKey::from_bytes(&[8; 32]))), OmcpError::Forged));
        assert!(matches!(fails(&|_| {}, ""), OmcpError::Trust(_)));
        let link = |d: &Path| {
            fs::remove_file(d.join("index.mjs")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", d.join("index.mjs")).unwrap();
        };
        assert!(matches!(fails(&link, &good), OmcpError::Form(_)));
        let elsewhere = |d: &Path| fs::write(d.join("package.json"), r#"{"main": "../../etc/passwd"}"#).unwrap();
        assert!(matches!(fails(&elsewhere, &good), OmcpError::Form(_)));
    }
}

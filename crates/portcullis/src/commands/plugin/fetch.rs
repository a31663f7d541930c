//! Where packages come from. Guards that a package and its signature are read once, bounded, and judged from memory.

use std::path::{Path, PathBuf};

use anyhow::bail;
use portcullis_plugins::{MOST_PACKED, read_bounded};

/// Largest signature file.
const MOST_SIGNATURE: u64 = 8 << 10;

/// A package and, where there is one, its signature; nothing of it is verified yet.
pub struct Fetched {
    /// The bytes of the package.
    pub package: Vec<u8>,
    /// The bytes of the signature file.
    pub signature: Option<Vec<u8>>,
}

/// Reads the package `source` names.
pub fn package(source: &str, signature_file: Option<&Path>) -> anyhow::Result<Fetched> {
    if let Some((scheme, _)) = source.split_once("://") {
        bail!("packages are not fetched from {scheme}:// by this command; fetch the file and its .sig, and name the file");
    }
    let path = Path::new(source);
    Ok(Fetched { package: read_bounded(path, MOST_PACKED)?, signature: signature(path, signature_file)? })
}

/// The signature beside a package, or the one named.
pub fn signature(package: &Path, named: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let beside = beside(package);
    match named {
        Some(path) => Ok(Some(read_bounded(path, MOST_SIGNATURE)?)),
        None if beside.exists() => Ok(Some(read_bounded(&beside, MOST_SIGNATURE)?)),
        None => Ok(None),
    }
}

/// `FILE.sig`.
pub fn beside(package: &Path) -> PathBuf {
    let mut name = package.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

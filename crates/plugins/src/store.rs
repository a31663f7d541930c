//! What is installed: packages under their digests, and one list of them. Guards that bytes are verified once, in memory, and
//! that exactly those are stored and later loaded; that versions do not go back unnoticed; and that two commands at once do
//! not lose each other's changes.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use portcullis_model::{Timestamp, format_timestamp};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::package::MOST_PACKED;
use crate::signature::MOST_SIGNATURE;
use crate::{
    Digest, Manifest, ManifestError, Occasion, Package, PackageError, PackageSignature, PluginName, SignatureError, TrustError,
    TrustRoot,
};

const FORMAT: u32 = 1;
const MOST_LIST: u64 = 4 << 20;

/// Why something was not installed, loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("{path} cannot be {action}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written`, `locked`.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The list is damaged.
    #[error("the list of installed plugins {path} cannot be used: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The package.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The signature file.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// An older version, or the same version with other content.
    #[error("{name} {version} is not installed: {reason}; to install it all the same, add --allow-downgrade")]
    Downgrade {
        /// The plugin.
        name: PluginName,
        /// The version offered.
        version: Version,
        /// What it would go back from.
        reason: String,
    },
    /// Somebody else vouches for it than for what had the name before.
    #[error(
        "{name} {version} is not installed: {now}, and what had this name before was {before}; whatever is granted to the name would \
         be theirs from now on; to install it all the same, add --allow-new-key"
    )]
    OtherSigner {
        /// The plugin.
        name: PluginName,
        /// The version offered.
        version: Version,
        /// Who vouched for what was installed: `signed by key …`, `not signed`.
        before: String,
        /// Who vouches for what is offered.
        now: String,
    },
    /// What is to be done has to be on record first.
    #[error("{name} is not installed: it could not be recorded: {reason}")]
    Unrecorded {
        /// The plugin.
        name: PluginName,
        /// Why not.
        reason: String,
    },
    /// Not installed.
    #[error("there is no plugin '{name}'{}", if known.is_empty() { "; none is installed".to_owned() } else { format!("; installed are {}", known.join(", ")) })]
    Unknown {
        /// The name asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The stored package is not the one that was installed.
    #[error("the stored package of {name} has digest {found}, and {wanted} was installed: somebody changed it; install it again")]
    Altered {
        /// The plugin.
        name: PluginName,
        /// What was installed.
        wanted: Digest,
        /// What is there.
        found: Digest,
    },
    /// Installed without a signature, and the configuration does not allow that.
    #[error("{name} is not signed and plugins.allow_unsigned is not set, so it does not start")]
    UnsignedNotAllowed {
        /// The plugin.
        name: PluginName,
    },
}

impl From<ManifestError> for StoreError {
    fn from(error: ManifestError) -> Self {
        Self::Package(error.into())
    }
}

/// Kept out until an operator looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Since when.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// An installed plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Digest of its package.
    pub digest: Digest,
    /// When it was installed.
    pub installed_at: String,
    /// Whether it is to be used.
    pub enabled: bool,
    /// Installed without a signature.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Id of the key that vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// The highest version of a plugin that ever was installed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Highest {
    version: Version,
    digest: Digest,
    /// The key that vouched for what was installed last; absent for what nobody signed, and in lists from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: u32,
    plugins: Vec<Installed>,
    /// Kept when a plugin is removed, so that removing is no way back.
    highest: BTreeMap<String, Highest>,
    /// Packages nothing in the list needs any more; they go when the list is written.
    #[serde(skip)]
    dropped: Vec<Digest>,
}

/// What an installation changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// What is installed then.
    pub installed: Installed,
    /// Who vouched for what had the name before, where that was somebody else: `signed by key …`, `not signed`.
    pub other_signer: Option<String>,
}

/// How to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstallOptions {
    /// Also an older version than was installed before.
    pub allow_downgrade: bool,
    /// Also without a signature that anybody vouches for. A revoked key or package is refused all the same.
    pub insecure: bool,
    /// Also when another key vouches for it than for what had its name before.
    pub new_key: bool,
    /// Use it at once.
    pub enable: bool,
}

/// A package that was read, verified and is ready to be loaded; its bytes are in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it holds.
    pub package: Package,
    /// Id and owner of the key that vouches for it; `None` for what runs without a signature.
    pub by: Option<(String, String)>,
}

/// The directory of installed plugins.
#[derive(Debug, Clone)]
pub struct PluginStore {
    directory: PathBuf,
}

impl PluginStore {
    /// The store in `directory`, which need not exist yet.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where everything about plugins is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The trust root that is used when the configuration names none.
    pub fn default_trust_root(&self) -> PathBuf {
        self.directory.join("trust.json")
    }

    /// Changes of the list are changes of this file.
    pub fn list_path(&self) -> PathBuf {
        self.directory.join("installed.json")
    }

    fn package_path(&self, digest: Digest) -> PathBuf {
        self.directory.join("packages").join(format!("{}.plugin", digest.hex()))
    }

    fn signature_path(&self, digest: Digest) -> PathBuf {
        self.directory.join("packages").join(format!("{}.sig", digest.hex()))
    }

    /// What is installed, by name.
    ///
    /// # Errors
    /// When the list cannot be read; no list is an empty one.
    pub fn list(&self) -> Result<Vec<Installed>, StoreError> {
        Ok(self.read_list()?.plugins)
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(&self, name: &str) -> Result<Installed, StoreError> {
        let plugins = self.list()?;
        let known = || plugins.iter().map(|plugin| plugin.name.to_string()).collect();
        let found = plugins.iter().find(|plugin| plugin.name.as_str() == name).cloned();
        found.ok_or_else(|| StoreError::Unknown { name: shown(name), known: known() })
    }

    /// Verifies a package and stores exactly the bytes that were verified, without a record of it.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is changed then.
    pub fn install(
        &self,
        bytes: &[u8],
        signature: Option<&[u8]>,
        trust: Result<TrustRoot, TrustError>,
        options: InstallOptions,
        now: Timestamp,
    ) -> Result<Installed, StoreError> {
        self.install_recorded(bytes, signature, trust, options, now, |_| Ok(())).map(|done| done.installed)
    }

    /// The same with a record, which comes first: what cannot be recorded is not done, and what was there stays. Whoever
    /// recorded it hears of what failed afterwards by the error.
    ///
    /// # Errors
    /// See [`StoreError`]; what is installed is as it was then.
    pub fn install_recorded(
        &self,
        bytes: &[u8],
        signature: Option<&[u8]>,
        trust: Result<TrustRoot, TrustError>,
        options: InstallOptions,
        now: Timestamp,
        record: impl FnOnce(&Installation) -> Result<(), String>,
    ) -> Result<Installation, StoreError> {
        let verified = verify(bytes, signature, trust, Occasion::Install, options.insecure, now)?;
        let Manifest { name, version, .. } = verified.package.manifest;
        let (digest, key) = (verified.package.digest, verified.by.map(|(key, _)| key));
        self.change(|list| {
            let other_signer = list.other_signer(&name, key.as_deref());
            if let Some(before) = other_signer.clone().filter(|_| !options.new_key) {
                return Err(StoreError::OtherSigner { name, version, before, now: signer(key.as_deref()) });
            }
            if let Some(reason) = list.goes_back(&name, &version, digest).filter(|_| !options.allow_downgrade) {
                return Err(StoreError::Downgrade { name, version, reason });
            }
            let before = list.plugins.iter().find(|plugin| plugin.name == name);
            let installed = Installed {
                name: name.clone(),
                version: version.clone(),
                digest,
                installed_at: format_timestamp(now),
                enabled: options.enable || before.is_some_and(|before| before.enabled),
                insecure: key.is_none(),
                key: key.clone(),
                quarantine: None,
            };
            let done = Installation { installed: installed.clone(), other_signer };
            record(&done).map_err(|reason| StoreError::Unrecorded { name: name.clone(), reason })?;
            Self::keep(&self.package_path(digest), bytes)?;
            match signature {
                Some(signature) => Self::keep(&self.signature_path(digest), signature)?,
                None => drop(fs::remove_file(self.signature_path(digest))),
            }
            list.remember(&name, version, digest, key);
            list.put(installed);
            Ok(done)
        })
    }

    /// The stored package of an installed plugin, verified anew: read once, and what was read is what is given back.
    ///
    /// # Errors
    /// When it was altered, is not vouched for any more, or was installed without a signature and `allow_unsigned` is off.
    pub fn load(
        &self,
        installed: &Installed,
        trust: Result<TrustRoot, TrustError>,
        allow_unsigned: bool,
        now: Timestamp,
    ) -> Result<Verified, StoreError> {
        let bytes = self.package(installed)?;
        let path = self.signature_path(installed.digest);
        let signature = if path.exists() { Some(read_bounded(&path, MOST_SIGNATURE)?) } else { None };
        let insecure = installed.insecure && allow_unsigned;
        let verified =
            verify(&bytes, signature.as_deref(), trust, Occasion::Start, insecure, now).map_err(|error| match error {
                StoreError::Trust(error) if installed.insecure && !error.is_final() => {
                    StoreError::UnsignedNotAllowed { name: installed.name.clone() }
                }
                other => other,
            })?;
        let manifest = &verified.package.manifest;
        if manifest.name != installed.name || manifest.version != installed.version {
            let reason = format!(
                "it lists {} {} under the digest of {} {}",
                installed.name, installed.version, manifest.name, manifest.version
            );
            return Err(StoreError::Damaged { path: self.list_path(), reason });
        }
        Ok(verified)
    }

    /// The stored bytes of an installed plugin, if they still are those that were installed. For showing, not for loading.
    ///
    /// # Errors
    /// When they cannot be read or were altered.
    pub fn package(&self, installed: &Installed) -> Result<Vec<u8>, StoreError> {
        let bytes = read_bounded(&self.package_path(installed.digest), MOST_PACKED)?;
        let found = Digest::of(&bytes);
        if found != installed.digest {
            return Err(StoreError::Altered { name: installed.name.clone(), wanted: installed.digest, found });
        }
        Ok(bytes)
    }

    /// Switches a plugin on or off. Switching on also ends its quarantine.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enable(&self, name: &str, enabled: bool) -> Result<Installed, StoreError> {
        self.change_one(name, |plugin| {
            plugin.enabled = enabled;
            if enabled {
                plugin.quarantine = None;
            }
        })
    }

    /// Keeps a plugin out until it is enabled anew. Only if it still is the package meant.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn quarantine(&self, name: &str, digest: Digest, reason: &str, now: Timestamp) -> Result<Installed, StoreError> {
        self.change_one(name, |plugin| {
            if plugin.digest == digest {
                plugin.quarantine = Some(Quarantine { at: format_timestamp(now), reason: reason.to_owned() });
            }
        })
    }

    /// Removes a plugin. Which version it had stays known.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remove(&self, name: &str) -> Result<Installed, StoreError> {
        self.change(|list| {
            let at = position(list, name)?;
            let removed = list.plugins.remove(at);
            list.dropped.push(removed.digest);
            Ok(removed)
        })
    }

    fn change_one(&self, name: &str, change: impl FnOnce(&mut Installed)) -> Result<Installed, StoreError> {
        self.change(|list| {
            let at = position(list, name)?;
            let plugin = &mut list.plugins[at];
            change(plugin);
            Ok(plugin.clone())
        })
    }

    fn read_list(&self) -> Result<List, StoreError> {
        let path = self.list_path();
        let bytes = match read_bounded(&path, MOST_LIST) {
            Ok(bytes) => bytes,
            Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(List { format: FORMAT, plugins: Vec::new(), highest: BTreeMap::new(), dropped: Vec::new() });
            }
            Err(other) => return Err(other),
        };
        let damaged = |reason: String| StoreError::Damaged { path: path.clone(), reason };
        let list: List = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if list.format != FORMAT {
            return Err(damaged(format!("its format is {}, and this program knows {FORMAT}", list.format)));
        }
        Ok(list)
    }

    fn change<T>(&self, change: impl FnOnce(&mut List) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let lock = self.directory.join("installed.lock");
        let failed = |action| {
            let path = lock.clone();
            move |source| StoreError::File { path, action, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(self.directory.join("packages")).map_err(failed("written"))?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(failed("written"))?;
        file.lock().map_err(failed("locked"))?;
        let mut list = self.read_list()?;
        let done = change(&mut list)?;
        let text = serde_json::to_vec_pretty(&list)
            .map_err(|error| StoreError::Damaged { path: self.list_path(), reason: error.to_string() })?;
        Self::keep(&self.list_path(), &text)?;
        // Not before the list is written: until then it needs them.
        for digest in list.dropped.iter().filter(|dropped| list.plugins.iter().all(|plugin| plugin.digest != **dropped)) {
            self.forget(*digest);
        }
        Ok(done)
    }

    fn keep(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        write_whole(path, bytes, 0o600).map_err(|source| StoreError::File { path: path.to_owned(), action: "written", source })
    }

    /// What is not listed is never loaded; a file that cannot be removed does no harm.
    fn forget(&self, digest: Digest) {
        for path in [self.package_path(digest), self.signature_path(digest)] {
            drop(fs::remove_file(path));
        }
    }
}

impl List {
    /// Who vouched for what had this name, where that is not `key`. `None`: the same, or nobody knows of anything before.
    fn other_signer(&self, name: &PluginName, key: Option<&str>) -> Option<String> {
        let installed = self.plugins.iter().find(|plugin| plugin.name == *name).map(|plugin| plugin.key.as_deref());
        let removed = || self.highest.get(name.as_str()).and_then(|highest| highest.key.as_deref()).map(Some);
        installed.or_else(removed).filter(|before| *before != key).map(signer)
    }

    /// What this would be a way back from.
    fn goes_back(&self, name: &PluginName, version: &Version, digest: Digest) -> Option<String> {
        let highest = self.highest.get(name.as_str())?;
        if highest.version > *version {
            Some(format!("{} was installed before", highest.version))
        } else if highest.version == *version && highest.digest != digest {
            Some(format!("the same version was installed before with {}", highest.digest))
        } else {
            None
        }
    }

    /// Keeps the highest version there ever was, also where a person let an older one in; and who vouched for the last.
    fn remember(&mut self, name: &PluginName, version: Version, digest: Digest, key: Option<String>) {
        let known = self.highest.remove(name.as_str()).filter(|known| known.version > version);
        let (version, digest) = known.map_or((version, digest), |known| (known.version, known.digest));
        self.highest.insert(name.to_string(), Highest { version, digest, key });
    }

    /// In the place of what had the name.
    fn put(&mut self, installed: Installed) {
        let before = self.plugins.iter().position(|plugin| plugin.name == installed.name);
        self.dropped.extend(before.map(|at| self.plugins.remove(at).digest));
        self.plugins.push(installed);
        self.plugins.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

fn signer(key: Option<&str>) -> String {
    key.map_or_else(|| "not signed".to_owned(), |key| format!("signed by key {key}"))
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(60).collect()
}

fn position(list: &List, name: &str) -> Result<usize, StoreError> {
    let known = || list.plugins.iter().map(|plugin| plugin.name.to_string()).collect();
    let found = list.plugins.iter().position(|plugin| plugin.name.as_str() == name);
    found.ok_or_else(|| StoreError::Unknown { name: shown(name), known: known() })
}

/// Verifies bytes that are in memory.
///
/// # Errors
/// See [`StoreError`]. With `insecure`, a missing or unknown signature is none; a revocation always is one, and so is a trust
/// root that cannot be read, for it may hold one.
pub fn verify(
    bytes: &[u8],
    signature: Option<&[u8]>,
    trust: Result<TrustRoot, TrustError>,
    occasion: Occasion,
    insecure: bool,
    now: Timestamp,
) -> Result<Verified, StoreError> {
    let package = Package::read(bytes)?;
    let vouched = || -> Result<(String, String), StoreError> {
        let trust = trust?;
        // Before the signature is read: what is revoked stays so, whatever lies beside it.
        trust.not_revoked(package.digest)?;
        let signature = signature.map(PackageSignature::read).transpose()?;
        let key = trust.verify(&package.manifest, package.digest, signature.as_ref(), occasion, now)?;
        Ok((key.id.clone(), key.owner.clone()))
    };
    let by = match vouched() {
        Ok(by) => Some(by),
        Err(StoreError::Trust(error)) if insecure && !error.is_final() => None,
        Err(StoreError::Signature(_)) if insecure => None,
        Err(error) => return Err(error),
    };
    Ok(Verified { package, by })
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// When it cannot be read or is larger.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), action: "read", source };
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    std::io::Read::by_ref(&mut file).take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("larger than {most} bytes"))));
    }
    Ok(bytes)
}

/// Puts a file in place of another, at once or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    drop(fs::remove_file(&fresh));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        drop(fs::remove_file(&fresh));
    }
    written
}

#[cfg(test)]
mod tests;

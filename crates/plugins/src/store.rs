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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: u32,
    plugins: Vec<Installed>,
    /// Kept when a plugin is removed, so that removing is no way back.
    highest: BTreeMap<String, Highest>,
}

/// How to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstallOptions {
    /// Also an older version than was installed before.
    pub allow_downgrade: bool,
    /// Also without a signature that anybody vouches for. A revoked key or package is refused all the same.
    pub insecure: bool,
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

    /// Verifies a package and stores exactly the bytes that were verified.
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
        let verified = verify(bytes, signature, trust, Occasion::Install, options.insecure, now)?;
        let Manifest { name, version, .. } = verified.package.manifest;
        let digest = verified.package.digest;
        self.change(|list| {
            if !options.allow_downgrade
                && let Some(highest) = list.highest.get(name.as_str())
            {
                let reason = if highest.version > version {
                    Some(format!("{} was installed before", highest.version))
                } else if highest.version == version && highest.digest != digest {
                    Some(format!("the same version was installed before with {}", highest.digest))
                } else {
                    None
                };
                if let Some(reason) = reason {
                    return Err(StoreError::Downgrade { name: name.clone(), version: version.clone(), reason });
                }
            }
            Self::keep(&self.package_path(digest), bytes)?;
            match signature {
                Some(signature) => Self::keep(&self.signature_path(digest), signature)?,
                None => drop(fs::remove_file(self.signature_path(digest))),
            }
            let before = list.plugins.iter().position(|plugin| plugin.name == name).map(|at| list.plugins.remove(at));
            let installed = Installed {
                name: name.clone(),
                version: version.clone(),
                digest,
                installed_at: format_timestamp(now),
                enabled: options.enable || before.as_ref().is_some_and(|before| before.enabled),
                insecure: verified.by.is_none(),
                key: verified.by.map(|(key, _)| key),
                quarantine: None,
            };
            list.plugins.push(installed.clone());
            list.plugins.sort_by(|a, b| a.name.cmp(&b.name));
            let higher = list.highest.get(name.as_str()).is_none_or(|highest| highest.version <= version);
            if higher || options.allow_downgrade {
                list.highest.insert(name.to_string(), Highest { version: version.clone(), digest });
            }
            if let Some(before) = before.filter(|before| before.digest != digest) {
                self.forget(before.digest);
            }
            Ok(installed)
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
            self.forget(removed.digest);
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
                return Ok(List { format: FORMAT, plugins: Vec::new(), highest: BTreeMap::new() });
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

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
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
mod tests {
    use super::*;
    use crate::{KeyRole, PrivateKey, TrustedKey};
    use portcullis_model::parse_instant;

    struct Shop {
        store: PluginStore,
        key: PrivateKey,
        root: TrustRoot,
        now: Timestamp,
        _directory: tempfile::TempDir,
    }

    impl Shop {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let key = PrivateKey::generate().unwrap();
            let trusted = TrustedKey {
                id: key.public().id(),
                public: key.public(),
                owner: "Acme".into(),
                roles: vec![KeyRole::Package],
                plugins: Vec::new(),
                hubs: Vec::new(),
                not_before: "2026-01-01T00:00:00Z".into(),
                not_after: "2027-01-01T00:00:00Z".into(),
                revoked: None,
            };
            Self {
                store: PluginStore::at(directory.path().join("plugins")),
                key,
                root: TrustRoot { keys: vec![trusted], ..TrustRoot::default() },
                now: parse_instant("2026-06-01T00:00:00Z", Timestamp::default()).unwrap(),
                _directory: directory,
            }
        }

        fn package(&self, version: &str, body: &str) -> (Vec<u8>, Vec<u8>) {
            let manifest = Manifest::from_yaml(&format!("{{schema: 1, name: sample, version: {version}, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{{name: t, risk: read}}]}}")).unwrap();
            let component = [b"\0asm\x0d\0\x01\0".as_slice(), body.as_bytes()].concat();
            let bytes = Package::write(&manifest, &component, "", b"{}").unwrap();
            let signature = self.key.sign(&manifest, Digest::of(&bytes), self.now).to_json().into_bytes();
            (bytes, signature)
        }

        fn install(&self, version: &str, body: &str, options: InstallOptions) -> Result<Installed, StoreError> {
            let (bytes, signature) = self.package(version, body);
            self.store.install(&bytes, Some(&signature), Ok(self.root.clone()), options, self.now)
        }

        fn load(&self) -> Result<Verified, StoreError> {
            self.store.load(&self.store.find("sample").unwrap(), Ok(self.root.clone()), false, self.now)
        }
    }

    #[test]
    fn what_was_installed_is_what_is_loaded() {
        let shop = Shop::new();
        let installed = shop.install("1.0.0", "a", InstallOptions::default()).unwrap();
        assert!(!installed.enabled && !installed.insecure);
        let loaded = shop.load().unwrap();
        assert!(loaded.package.component.ends_with(b"a"));
        assert_eq!(loaded.by.unwrap().1, "Acme");
        assert!(shop.store.enable("sample", true).unwrap().enabled);
        let again = shop.install("1.1.0", "b", InstallOptions::default()).unwrap();
        assert!(again.enabled, "an update stays in use");
        assert!(!shop.store.package_path(installed.digest).exists());
    }

    #[test]
    fn a_package_that_was_changed_on_disk_is_not_loaded() {
        let shop = Shop::new();
        let installed = shop.install("1.0.0", "a", InstallOptions::default()).unwrap();
        let path = shop.store.package_path(installed.digest);
        let (other, signature) = shop.package("1.0.0", "b");
        fs::write(&path, &other).unwrap();
        fs::write(shop.store.signature_path(installed.digest), &signature).unwrap();
        assert!(matches!(shop.load(), Err(StoreError::Altered { .. })), "not even when the other one is signed too");
    }

    #[test]
    fn revoking_and_losing_the_trust_root_stop_what_is_installed() {
        let mut shop = Shop::new();
        shop.install("1.0.0", "a", InstallOptions::default()).unwrap();
        let installed = shop.store.find("sample").unwrap();
        let absent = || Err(TrustError::Absent { path: "gone".into() });
        assert!(matches!(shop.store.load(&installed, absent(), true, shop.now), Err(StoreError::Trust(_))));
        shop.root.keys[0].revoked = Some(crate::Revocation { at: "2026-06-01T00:00:00Z".into(), reason: "stolen".into() });
        assert!(shop.load().unwrap_err().to_string().contains("stolen"));
    }

    #[test]
    fn versions_do_not_go_back_unless_asked_not_even_by_removing() {
        let shop = Shop::new();
        shop.install("2.0.0", "a", InstallOptions::default()).unwrap();
        let refused = shop.install("1.9.0", "b", InstallOptions::default()).unwrap_err().to_string();
        assert!(refused.contains("2.0.0 was installed before") && refused.contains("--allow-downgrade"), "{refused}");
        assert!(
            shop.install("2.0.0", "other bytes", InstallOptions::default()).unwrap_err().to_string().contains("same version")
        );
        shop.store.remove("sample").unwrap();
        assert!(matches!(shop.install("1.9.0", "b", InstallOptions::default()), Err(StoreError::Downgrade { .. })));
        shop.install("2.0.0", "a", InstallOptions::default()).unwrap();
        let asked = InstallOptions { allow_downgrade: true, ..InstallOptions::default() };
        assert_eq!(shop.install("1.9.0", "b", asked).unwrap().version, Version::new(1, 9, 0));
    }

    #[test]
    fn unsigned_takes_two_operators_words_and_revoked_none() {
        let mut shop = Shop::new();
        let (bytes, signature) = shop.package("1.0.0", "a");
        let root = || Ok(shop.root.clone());
        let plain = InstallOptions::default();
        assert!(matches!(
            shop.store.install(&bytes, None, root(), plain, shop.now),
            Err(StoreError::Trust(TrustError::Unsigned))
        ));
        assert!(shop.store.list().unwrap().is_empty());
        let insecure = InstallOptions { insecure: true, ..plain };
        let installed = shop.store.install(&bytes, None, root(), insecure, shop.now).unwrap();
        assert!(installed.insecure && installed.key.is_none());
        assert!(matches!(shop.load(), Err(StoreError::UnsignedNotAllowed { .. })));
        assert!(shop.store.load(&installed, root(), true, shop.now).unwrap().by.is_none());
        // Signed and installed so: insecure or not makes no difference.
        assert!(!shop.store.install(&bytes, Some(&signature), root(), insecure, shop.now).unwrap().insecure);
        shop.root.keys[0].revoked = Some(crate::Revocation { at: "2026-06-01T00:00:00Z".into(), reason: "stolen".into() });
        let root = || Ok(shop.root.clone());
        assert!(shop.store.install(&bytes, Some(&signature), root(), insecure, shop.now).is_err());
        // A revoked package stays revoked when what lies beside it is no signature at all.
        let reason = "it lies".to_owned();
        let revoked = crate::RevokedPackage { digest: Digest::of(&bytes), at: "2026-06-01T00:00:00Z".into(), reason };
        let root = || Ok(TrustRoot { revoked_packages: vec![revoked.clone()], ..TrustRoot::default() });
        for signature in [None, Some(signature.as_slice()), Some(b"{".as_slice())] {
            let refused = shop.store.install(&bytes, signature, root(), insecure, shop.now).unwrap_err().to_string();
            assert!(refused.contains("it lies"), "{refused}");
        }
        // And where nobody can say what was revoked, nothing is let in.
        let unusable = Err(TrustError::Unusable { path: "trust.json".into(), reason: "it is damaged".into() });
        assert!(shop.store.install(&bytes, None, unusable, insecure, shop.now).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn quarantine_ends_with_enabling_and_concurrent_changes_are_all_kept() {
        let shop = Shop::new();
        let installed = shop.install("1.0.0", "a", InstallOptions { enable: true, ..InstallOptions::default() }).unwrap();
        let other = Digest::of(b"another package");
        assert!(shop.store.quarantine("sample", other, "crashes", shop.now).unwrap().quarantine.is_none());
        let held = shop.store.quarantine("sample", installed.digest, "crashes", shop.now).unwrap();
        assert_eq!(held.quarantine.unwrap().reason, "crashes");
        assert!(shop.store.enable("sample", true).unwrap().quarantine.is_none());
        std::thread::scope(|scope| {
            for on in [true, false, true, false] {
                let store = shop.store.clone();
                scope.spawn(move || (0..20).for_each(|_| drop(store.enable("sample", on).unwrap())));
            }
        });
        assert_eq!(shop.store.list().unwrap().len(), 1);
        let unknown = shop.store.enable("simple", true).unwrap_err().to_string();
        assert!(unknown.contains("'simple'") && unknown.contains("sample"), "{unknown}");
    }
}

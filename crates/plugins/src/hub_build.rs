//! Making the index of a hub, for its publisher. Guards that what was published once stays what it was: a version keeps its
//! digest, is withdrawn and not forgotten, and every index has a higher number than the one before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_model::Timestamp;
use semver::Version;
use serde::Deserialize;

use crate::hub::{HubError, HubIndex, HubName, HubPlugin, HubVersion, IndexSignature, MOST_INDEX};
use crate::package::MOST_PACKED;
use crate::signature::MOST_SIGNATURE;
use crate::store::write_whole;
use crate::{Digest, Package, PackageError, PackageSignature, PluginName, PrivateKey, SignatureError, StoreError, read_bounded};

/// Largest source file.
const MOST_SOURCE: u64 = 1 << 20;

/// An index that is not made.
#[derive(Debug, thiserror::Error)]
pub enum HubBuildError {
    /// A file.
    #[error(transparent)]
    File(#[from] StoreError),
    /// A source file.
    #[error("{path}: {reason}")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A package.
    #[error("{path}: {error}")]
    Package {
        /// The file.
        path: PathBuf,
        /// Why.
        error: PackageError,
    },
    /// Its signature.
    #[error("{path}: {error}")]
    Signature {
        /// The file.
        path: PathBuf,
        /// Why.
        error: SignatureError,
    },
    /// The index that would come of it.
    #[error(transparent)]
    Index(#[from] HubError),
}

/// How to make an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubBuild {
    /// The folder with `hub.yaml` and `entries/`.
    pub folder: PathBuf,
    /// Where index, signature and copied packages go, and where the index before is.
    pub output: PathBuf,
    /// Its number; one more than that of the index before when absent.
    pub serial: Option<u64>,
    /// How long it may be used.
    pub valid_for: Duration,
}

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltHub {
    /// The index.
    pub index: HubIndex,
    /// Its digest.
    pub digest: Digest,
    /// Packages that were copied beside it.
    pub copied: Vec<PathBuf>,
}

/// `hub.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HubSource {
    hub: HubName,
    description: String,
}

/// `entries/NAME.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: PluginName,
    versions: Vec<EntryVersion>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryVersion {
    version: Version,
    /// The package, its signature beside it; not needed for what an index before has.
    #[serde(default)]
    package: Option<PathBuf>,
    /// Where operators get it; copied beside the index when absent.
    #[serde(default)]
    location: Option<String>,
    /// Why it was withdrawn.
    #[serde(default)]
    yanked: Option<String>,
}

fn source<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, HubBuildError> {
    let wrong = |reason: String| HubBuildError::Source { path: path.to_owned(), reason };
    let bytes = read_bounded(path, MOST_SOURCE)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))
}

fn entries(folder: &Path) -> Result<Vec<(PathBuf, Entry)>, HubBuildError> {
    let shelf = folder.join("entries");
    let failed = |source| StoreError::File { path: shelf.clone(), action: "read", source };
    let mut paths = Vec::new();
    for found in std::fs::read_dir(&shelf).map_err(failed)? {
        let path = found.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| -> Result<(PathBuf, Entry), HubBuildError> {
        let entry: Entry = source(&path)?;
        if path.file_stem().is_none_or(|stem| stem != entry.name.as_str()) {
            let reason = format!("it is about {}, so it must be called {}.yaml", entry.name, entry.name);
            return Err(HubBuildError::Source { path, reason });
        }
        Ok((path, entry))
    };
    paths.into_iter().map(read).collect()
}

fn before(output: &Path) -> Result<Option<HubIndex>, HubBuildError> {
    match read_bounded(&output.join("index.json"), MOST_INDEX) {
        Ok(bytes) => Ok(Some(HubIndex::read(&bytes)?)),
        Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A package and its signature, to be copied to this path below the output.
type Copied = (String, Vec<u8>, Vec<u8>);

/// The entry of one version, from its package or from the index before.
fn version(
    build: &HubBuild,
    path: &Path,
    name: &PluginName,
    wanted: &EntryVersion,
    earlier: Option<&HubVersion>,
) -> Result<(HubVersion, Option<Copied>), HubBuildError> {
    let wrong = |reason: String| HubBuildError::Source { path: path.to_owned(), reason };
    let Some(package) = &wanted.package else {
        let mut carried = earlier
            .cloned()
            .ok_or_else(|| wrong(format!("version {} has no package, and the index before does not have it", wanted.version)))?;
        carried.yanked.clone_from(&wanted.yanked);
        if let Some(location) = &wanted.location {
            carried.location.clone_from(location);
        }
        return Ok((carried, None));
    };
    let file = build.folder.join(package);
    let bytes = read_bounded(&file, MOST_PACKED)?;
    let read = Package::read(&bytes).map_err(|error| HubBuildError::Package { path: file.clone(), error })?;
    if read.manifest.name != *name || read.manifest.version != wanted.version {
        let (other, its) = (&read.manifest.name, &read.manifest.version);
        return Err(wrong(format!("{} is {other} {its}, and not {name} {}", file.display(), wanted.version)));
    }
    if let Some(earlier) = earlier.filter(|earlier| earlier.digest != read.digest) {
        let digest = earlier.digest;
        return Err(wrong(format!("version {} was published with {digest}; what changed needs a new version", wanted.version)));
    }
    let beside = PathBuf::from(format!("{}.sig", file.display()));
    let signature = read_bounded(&beside, MOST_SIGNATURE)?;
    let signed = PackageSignature::read(&signature).map_err(|error| HubBuildError::Signature { path: beside.clone(), error })?;
    if signed.digest != read.digest || signed.plugin != *name || signed.version != wanted.version {
        return Err(wrong(format!("{} is the signature of another package", beside.display())));
    }
    let copy_to = format!("packages/{name}-{}.plugin", wanted.version);
    let location = wanted.location.clone().unwrap_or_else(|| copy_to.clone());
    let mut entry = HubVersion::of(&read.manifest, &bytes, location);
    entry.yanked.clone_from(&wanted.yanked);
    Ok((entry, wanted.location.is_none().then_some((copy_to, bytes, signature))))
}

/// What was published must still be named.
fn nothing_forgotten(earlier: &HubIndex, plugins: &BTreeMap<PluginName, HubPlugin>, folder: &Path) -> Result<(), HubBuildError> {
    for (name, plugin) in &earlier.plugins {
        for published in &plugin.versions {
            let kept = plugins.get(name).is_some_and(|now| now.versions.iter().any(|v| v.version == published.version));
            if !kept {
                let reason =
                    format!("{name} {} was published and is not named any more; keep it, with 'yanked: why'", published.version);
                return Err(HubBuildError::Source { path: folder.join(format!("entries/{name}.yaml")), reason });
            }
        }
    }
    Ok(())
}

/// Makes the index of a hub, signs it, and copies the packages that have no other location.
///
/// # Errors
/// See [`HubBuildError`]; the index before stays then.
pub fn build_hub(build: &HubBuild, key: &PrivateKey, now: Timestamp) -> Result<BuiltHub, HubBuildError> {
    let path = build.folder.join("hub.yaml");
    let hub: HubSource = source(&path)?;
    let earlier = before(&build.output)?;
    let wrong = |reason: String| HubBuildError::Source { path: path.clone(), reason };
    let least = earlier.as_ref().map_or(1, |earlier| earlier.serial.saturating_add(1));
    let serial = build.serial.unwrap_or(least);
    if serial < least {
        return Err(wrong(format!("the serial must be {least} or more, for an index before has {}", least - 1)));
    }
    if let Some(other) = earlier.as_ref().filter(|earlier| earlier.hub != hub.hub) {
        return Err(wrong(format!("{} holds the index of hub {}", build.output.display(), other.hub)));
    }
    let mut plugins = BTreeMap::new();
    let mut copies = Vec::new();
    for (path, entry) in entries(&build.folder)? {
        let published = earlier.as_ref().and_then(|earlier| earlier.plugins.get(&entry.name));
        let mut versions = Vec::new();
        for wanted in &entry.versions {
            let earlier = published.and_then(|plugin| plugin.versions.iter().find(|v| v.version == wanted.version));
            let (version, copy) = version(build, &path, &entry.name, wanted, earlier)?;
            versions.push(version);
            copies.extend(copy);
        }
        versions.sort_by(|a, b| b.version.cmp(&a.version));
        plugins.insert(entry.name, HubPlugin { versions });
    }
    if let Some(earlier) = &earlier {
        nothing_forgotten(earlier, &plugins, &build.folder)?;
    }
    let index = HubIndex::new(hub.hub, hub.description, serial, (now, now.plus(build.valid_for)), plugins)?;
    let bytes = index.to_json()?;
    let digest = Digest::of(&bytes);
    let signature = IndexSignature::make(key, &index, digest, now).to_json();
    // For whoever serves it, as against what is kept for the operator alone.
    let shelf = build.output.join("packages");
    std::fs::create_dir_all(&shelf).map_err(|source| StoreError::File { path: shelf, action: "written", source })?;
    let keep = |name: &str, bytes: &[u8]| -> Result<PathBuf, StoreError> {
        let path = build.output.join(name);
        write_whole(&path, bytes, 0o644).map_err(|source| StoreError::File { path: path.clone(), action: "written", source })?;
        Ok(path)
    };
    let mut copied = Vec::new();
    for (name, package, signature) in &copies {
        keep(&format!("{name}.sig"), signature)?;
        copied.push(keep(name, package)?);
    }
    // Whoever looks in between sees two files that do not belong together, and comes again.
    keep("index.json.sig", signature.as_bytes())?;
    keep("index.json", &bytes)?;
    Ok(BuiltHub { index, digest, copied })
}

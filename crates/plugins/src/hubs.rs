//! The hubs an operator uses, and what was seen of them. Guards that an index never goes back: the highest number seen is
//! kept, also when a hub is removed, and written down before anything is installed from the index that had it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use portcullis_model::{Timestamp, format_timestamp};
use serde::{Deserialize, Serialize};

use crate::hub::{HubError, HubIndex, HubLocation, HubName, HubVersion, IndexSignature, MOST_INDEX};
use crate::package::MOST_PACKED;
use crate::place::WebAddress;
use crate::signature::MOST_SIGNATURE;
use crate::store::write_whole;
use crate::{Digest, FetchError, Fetcher, Manifest, StoreError, TrustError, TrustRoot, read_bounded};

const FORMAT: u32 = 1;
const MOST_LIST: u64 = 1 << 20;
const INDEX: &str = "index.json";

/// Why a hub was not used.
#[derive(Debug, thiserror::Error)]
pub enum HubsError {
    /// Its index.
    #[error(transparent)]
    Index(#[from] HubError),
    /// Trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Getting it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Files.
    #[error(transparent)]
    File(#[from] StoreError),
    /// Its index has no signature.
    #[error("{place} has no {INDEX}.sig, so nobody vouches for its index")]
    Unsigned {
        /// Where it is.
        place: String,
    },
    /// Names.
    #[error("{0}")]
    Name(String),
}

/// A hub the operator added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownHub {
    /// Its name.
    pub name: HubName,
    /// A folder, or the address of one.
    pub place: String,
    /// Since when.
    pub added_at: String,
}

/// The newest index seen of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Its number.
    pub serial: u64,
    /// Its digest.
    pub digest: Digest,
    /// Until when it may be used.
    pub expires_at: String,
    /// When it was seen.
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: u32,
    hubs: Vec<KnownHub>,
    /// By name; kept when a hub is removed, so that removing is no way back.
    seen: BTreeMap<String, Seen>,
}

/// Where a hub is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HubPlace {
    Folder(PathBuf),
    Web(WebAddress),
}

impl HubPlace {
    fn parse(text: &str) -> Result<Self, HubsError> {
        if !text.contains("://") {
            let path = Path::new(text);
            let path = if path.file_name().is_some_and(|name| name == INDEX) { path.parent().unwrap_or(path) } else { path };
            let absolute = std::path::absolute(path).map_err(|source| file(path, "read", source))?;
            return Ok(Self::Folder(absolute));
        }
        let text = text.strip_suffix(INDEX).unwrap_or(text);
        let address = WebAddress::parse(text).map_err(FetchError::from)?;
        if address.reference().contains('?') {
            return Err(HubsError::Name(format!(
                "{address} has a query; a hub is a folder, with its credential in plugins.sources"
            )));
        }
        if !address.reference().ends_with('/') {
            let with_slash = address.beside("/");
            return Ok(Self::Web(with_slash));
        }
        Ok(Self::Web(address))
    }

    fn kept(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Web(address) => address.to_string(),
        }
    }

    async fn file(&self, fetcher: &Fetcher, name: &str, most: u64) -> Result<Option<Vec<u8>>, HubsError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                match read_bounded(&path, most) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Web(folder) => {
                let address = folder.below(name).map_err(FetchError::from)?;
                Ok(fetcher.download_if_there(&address, most).await?)
            }
        }
    }
}

fn file(path: &Path, action: &'static str, source: std::io::Error) -> HubsError {
    StoreError::File { path: path.to_owned(), action, source }.into()
}

/// An index that may be used now, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenHub {
    /// The index.
    pub index: HubIndex,
    /// Its digest.
    pub digest: Digest,
    /// Id of the key that vouches for it.
    pub key: String,
    place: HubPlace,
}

/// A package from a hub, compared with what the index says. Its signature is judged by whoever installs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromHub {
    /// The bytes of the package.
    pub package: Vec<u8>,
    /// The bytes of its signature.
    pub signature: Option<Vec<u8>>,
}

impl OpenHub {
    /// Where it is.
    pub fn place(&self) -> String {
        self.place.kept()
    }

    /// Gets the package of a version.
    ///
    /// # Errors
    /// When it is not there, or not what the index says.
    pub async fn package(&self, fetcher: &Fetcher, version: &HubVersion) -> Result<FromHub, HubsError> {
        // Somewhat more than is named, so that another file is said to be one.
        let most = version.size.saturating_add(64 << 10).min(MOST_PACKED);
        let what = format!("the package at {}", version.location);
        let absent = || HubsError::Name(format!("{what} is not there, and the index of hub {} lists it", self.index.hub));
        let got = match version.place()? {
            HubLocation::Below(path) => {
                let package = self.place.file(fetcher, &path, most).await?.ok_or_else(absent)?;
                FromHub { package, signature: self.place.file(fetcher, &format!("{path}.sig"), MOST_SIGNATURE).await? }
            }
            HubLocation::Web(address) => FromHub {
                package: fetcher.download(&address, most).await?,
                signature: fetcher.download_if_there(&address.beside(".sig"), MOST_SIGNATURE).await?,
            },
            HubLocation::Registry(reference) => {
                let pulled = fetcher.pull(&reference).await?;
                FromHub { package: pulled.package, signature: pulled.signature }
            }
        };
        let found = got.package.len() as u64;
        if found != version.size {
            return Err(FetchError::Size { what, wanted: version.size, found }.into());
        }
        crate::fetch::is_named(&what, &got.package, version.digest)?;
        Ok(got)
    }

    /// Whether a package is the one that was asked for by name.
    ///
    /// # Errors
    /// When its manifest says another name or version than the index.
    pub fn names(&self, entry: (&crate::PluginName, &HubVersion), manifest: &Manifest) -> Result<(), HubsError> {
        let (name, version) = (entry.0, &entry.1.version);
        if manifest.name == *name && manifest.version == *version {
            return Ok(());
        }
        let hub = &self.index.hub;
        let (other, its) = (&manifest.name, &manifest.version);
        Err(HubsError::Name(format!("hub {hub} lists {other} {its} as {name} {version}: the index is wrong")))
    }
}

/// The hubs that are known in a directory.
#[derive(Debug, Clone)]
pub struct Hubs {
    directory: PathBuf,
}

impl Hubs {
    /// Those kept in `directory`, which need not exist yet.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("hubs.json")
    }

    /// What is known, each with the newest index seen.
    ///
    /// # Errors
    /// When the list cannot be read; no list is an empty one.
    pub fn list(&self) -> Result<Vec<(KnownHub, Option<Seen>)>, HubsError> {
        let List { hubs, seen, .. } = self.read()?;
        Ok(hubs.into_iter().map(|hub| (hub.clone(), seen.get(hub.name.as_str()).cloned())).collect())
    }

    /// Reads the index at `place`, as a hub to be added; nothing is kept yet.
    ///
    /// # Errors
    /// See [`HubsError`].
    pub async fn look(
        &self,
        fetcher: &Fetcher,
        place: &str,
        trust: Result<TrustRoot, TrustError>,
        now: Timestamp,
    ) -> Result<OpenHub, HubsError> {
        let opened = open(fetcher, &HubPlace::parse(place)?, trust, now).await?;
        check_seen(self.read()?.seen.get(opened.index.hub.as_str()), &opened.index, opened.digest)?;
        Ok(opened)
    }

    /// Keeps a hub.
    ///
    /// # Errors
    /// When another one has its name, or the list cannot be written.
    pub fn add(&self, opened: &OpenHub, now: Timestamp) -> Result<KnownHub, HubsError> {
        let hub = KnownHub { name: opened.index.hub.clone(), place: opened.place(), added_at: format_timestamp(now) };
        self.change(|list| {
            if let Some(known) = list.hubs.iter().find(|known| known.name == hub.name) {
                return Err(HubsError::Name(format!("hub {} is known already, at {}; remove it first", known.name, known.place)));
            }
            note(list, opened, now)?;
            list.hubs.push(hub.clone());
            list.hubs.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(hub)
        })
    }

    /// Forgets a hub, and not which index was the newest.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn remove(&self, name: &str) -> Result<KnownHub, HubsError> {
        self.change(|list| {
            let at = list.hubs.iter().position(|hub| hub.name.as_str() == name);
            at.map(|at| list.hubs.remove(at)).ok_or_else(|| unknown(name, &list.hubs))
        })
    }

    /// Reads the index of a hub as it is now, and remembers that it was seen. What an index may not do is an error.
    ///
    /// # Errors
    /// See [`HubsError`].
    pub async fn open(
        &self,
        fetcher: &Fetcher,
        name: &HubName,
        trust: Result<TrustRoot, TrustError>,
        now: Timestamp,
    ) -> Result<OpenHub, HubsError> {
        let hubs = self.read()?.hubs;
        let hub = hubs.iter().find(|hub| hub.name == *name).ok_or_else(|| unknown(name.as_str(), &hubs))?;
        let opened = open(fetcher, &HubPlace::parse(&hub.place)?, trust, now).await?;
        if opened.index.hub != hub.name {
            let found = &opened.index.hub;
            return Err(HubsError::Name(format!("{} is now the index of hub {found}, and {} was added", hub.place, hub.name)));
        }
        self.change(|list| note(list, &opened, now))?;
        Ok(opened)
    }

    fn read(&self) -> Result<List, HubsError> {
        let path = self.path();
        let bytes = match read_bounded(&path, MOST_LIST) {
            Ok(bytes) => bytes,
            Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(List { format: FORMAT, hubs: Vec::new(), seen: BTreeMap::new() });
            }
            Err(error) => return Err(error.into()),
        };
        let damaged = |reason: String| HubsError::Name(format!("the list of hubs {} cannot be used: {reason}", path.display()));
        let list: List = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if list.format != FORMAT {
            return Err(damaged(format!("its format is {}, and this program knows {FORMAT}", list.format)));
        }
        Ok(list)
    }

    fn change<T>(&self, change: impl FnOnce(&mut List) -> Result<T, HubsError>) -> Result<T, HubsError> {
        let lock = self.directory.join("hubs.lock");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|source| file(&self.directory, "written", source))?;
        let held = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let held = held.map_err(|source| file(&lock, "written", source))?;
        held.lock().map_err(|source| file(&lock, "locked", source))?;
        let mut list = self.read()?;
        let done = change(&mut list)?;
        let path = self.path();
        let text = serde_json::to_vec_pretty(&list).map_err(|error| HubsError::Name(error.to_string()))?;
        write_whole(&path, &text, 0o600).map_err(|source| file(&path, "written", source))?;
        Ok(done)
    }
}

fn unknown(name: &str, hubs: &[KnownHub]) -> HubsError {
    let shown: String = name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(60).collect();
    let known: Vec<&str> = hubs.iter().map(|hub| hub.name.as_str()).collect();
    let known = if known.is_empty() { "none is known".to_owned() } else { format!("known are {}", known.join(", ")) };
    HubsError::Name(format!("there is no hub '{shown}'; {known}"))
}

async fn open(
    fetcher: &Fetcher,
    place: &HubPlace,
    trust: Result<TrustRoot, TrustError>,
    now: Timestamp,
) -> Result<OpenHub, HubsError> {
    let trust = trust?;
    let absent = || HubsError::Name(format!("{} has no {INDEX}, so it is no hub", place.kept()));
    let bytes = place.file(fetcher, INDEX, MOST_INDEX).await?.ok_or_else(absent)?;
    let signature = place.file(fetcher, &format!("{INDEX}.sig"), MOST_SIGNATURE).await?;
    let signature = signature.ok_or_else(|| HubsError::Unsigned { place: place.kept() })?;
    let (index, digest, key) = judge(&bytes, &signature, &trust, now)?;
    Ok(OpenHub { index, digest, key, place: place.clone() })
}

/// Whether the bytes of an index may be used now: signed by a key that may, and in their time.
fn judge(bytes: &[u8], signature: &[u8], trust: &TrustRoot, now: Timestamp) -> Result<(HubIndex, Digest, String), HubsError> {
    let index = HubIndex::read(bytes)?;
    let digest = Digest::of(bytes);
    let key = trust.verify_index(&index.hub, index.serial, digest, &IndexSignature::read(signature)?, now)?;
    index.in_time(now)?;
    Ok((index, digest, key.id.clone()))
}

fn check_seen(seen: Option<&Seen>, index: &HubIndex, digest: Digest) -> Result<(), HubError> {
    let Some(seen) = seen else { return Ok(()) };
    let reason = if index.serial < seen.serial {
        format!("its number is {}, and {} was seen at {}", index.serial, seen.serial, seen.at)
    } else if index.serial == seen.serial && digest != seen.digest {
        format!("number {} was seen at {} with other content", index.serial, seen.at)
    } else {
        return Ok(());
    };
    Err(HubError::Rollback { hub: index.hub.clone(), reason })
}

/// Remembers an index. Checked anew under the lock: another command may have seen a newer one meanwhile.
fn note(list: &mut List, opened: &OpenHub, now: Timestamp) -> Result<(), HubsError> {
    let index = &opened.index;
    let name = index.hub.as_str();
    check_seen(list.seen.get(name), index, opened.digest)?;
    let seen =
        Seen { serial: index.serial, digest: opened.digest, expires_at: index.expires_at.clone(), at: format_timestamp(now) };
    list.seen.insert(name.to_owned(), seen);
    Ok(())
}

#[cfg(test)]
mod tests;

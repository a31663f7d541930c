//! Compiled code on disk, so that a restart does not compile everything anew. Guards that nothing is taken from there that
//! this installation did not put there: every entry carries a keyed MAC, and one that does not fit is as if it were absent.
//! What is kept is the compiler's own intermediate form of single functions, by a hash of what went in; it is never mapped
//! or jumped into, the compiler links it like something it just made.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit as _, Mac as _};
use portcullis_state::{KeyFile, KeyFileError};
use sha2::Sha256;
use wasmtime::CacheStore;

use crate::{Digest, store};

/// Largest file taken.
const MOST_FILE: u64 = 512 << 20;
const MAC: usize = 32;
/// Entries of another version of the compiler fit nothing; they are removed with their file when the plugin is compiled anew.
const MAGIC: &[u8] = b"portcullis compiled functions v1\n";

/// The store of one plugin at a time: entries are read with [`CompiledStore::begin`] and written with
/// [`CompiledStore::finish`], one file for each component.
pub(crate) struct CompiledStore {
    directory: PathBuf,
    key: KeyFile,
    open: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    fresh: Mutex<bool>,
}

impl std::fmt::Debug for CompiledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl CompiledStore {
    /// In `directory`, with its own key beside it.
    pub(crate) fn at(directory: &Path) -> Result<Self, KeyFileError> {
        let key = KeyFile::load_or_create(&directory.join("cache.key"))?;
        Ok(Self { directory: directory.to_owned(), key, open: Mutex::default(), fresh: Mutex::default() })
    }

    fn path(&self, component: Digest) -> PathBuf {
        self.directory.join(format!("{}.compiled", component.hex()))
    }

    fn mac(&self, component: Digest, content: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose()).ok()?;
        mac.update(MAGIC);
        mac.update(component.to_string().as_bytes());
        mac.update(content);
        Some(mac)
    }

    /// Reads what is there for a component.
    pub(crate) fn begin(&self, component: Digest) {
        let entries = self.read(component).unwrap_or_default();
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = entries;
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Writes what was added.
    pub(crate) fn finish(&self, component: Digest) {
        let entries = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        if !*self.fresh.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        let content = encode(&entries);
        let Some(mac) = self.mac(component, &content) else { return };
        let file = [MAGIC, mac.finalize().into_bytes().as_slice(), &content].concat();
        if let Err(error) = store::write_whole(&self.path(component), &file, 0o600) {
            tracing::warn!(target: "portcullis::plugin", %error, "compiled code is not kept; the next start compiles anew");
        }
    }

    fn read(&self, component: Digest) -> Option<HashMap<Vec<u8>, Vec<u8>>> {
        let file = store::read_bounded(&self.path(component), MOST_FILE).ok()?;
        let rest = file.strip_prefix(MAGIC)?;
        let (code, content) = rest.split_at_checked(MAC)?;
        if self.mac(component, content)?.verify_slice(code).is_err() {
            tracing::warn!(target: "portcullis::plugin", "compiled code on disk was not made here, or was changed; it is not used");
            return None;
        }
        decode(content)
    }

    /// Removes what belongs to no installed component.
    pub(crate) fn sweep(&self, keep: &[Digest]) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let kept: Vec<PathBuf> = keep.iter().map(|digest| self.path(*digest)).collect();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "compiled") && !kept.contains(&path) {
                drop(fs::remove_file(path));
            }
        }
    }
}

impl CacheStore for CompiledStore {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().map(Cow::Owned)
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_vec(), value);
        true
    }
}

fn encode(entries: &HashMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in entries {
        for part in [key, value] {
            out.extend_from_slice(&(part.len() as u64).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn decode(mut rest: &[u8]) -> Option<HashMap<Vec<u8>, Vec<u8>>> {
    let mut entries = HashMap::new();
    while !rest.is_empty() {
        let mut next = || {
            let (length, after) = rest.split_at_checked(8)?;
            let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
            let (part, after) = after.split_at_checked(length)?;
            rest = after;
            Some(part.to_vec())
        };
        let (key, value) = (next()?, next()?);
        entries.insert(key, value);
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_there_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let component = Digest::of(b"component");
        let store = CompiledStore::at(directory.path()).unwrap();
        store.begin(component);
        assert!(store.insert(b"f1", vec![1, 2, 3]) && store.insert(b"f2", Vec::new()));
        store.finish(component);
        let path = store.path(component);
        let again = CompiledStore::at(directory.path()).unwrap();
        again.begin(component);
        assert_eq!(again.get(b"f1").as_deref(), Some([1, 2, 3].as_slice()));
        // Another component's file, a flipped bit, another key: nothing.
        let other = Digest::of(b"other");
        fs::copy(&path, store.path(other)).unwrap();
        again.begin(other);
        assert_eq!(again.get(b"f1"), None);
        let good = fs::read(&path).unwrap();
        for at in [0, MAGIC.len(), MAGIC.len() + MAC, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            again.begin(component);
            assert_eq!(again.get(b"f1"), None, "byte {at}");
        }
        fs::write(&path, &good).unwrap();
        fs::remove_file(directory.path().join("cache.key")).unwrap();
        let stranger = CompiledStore::at(directory.path()).unwrap();
        stranger.begin(component);
        assert_eq!(stranger.get(b"f1"), None);
        stranger.sweep(&[]);
        assert!(!path.exists() && directory.path().join("cache.key").exists());
    }
}

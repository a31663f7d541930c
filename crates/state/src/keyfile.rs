//! A 32-byte random key in its own file: made once, mode 0600, refused when others could have read or changed it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::TryRng;
use zeroize::Zeroizing;

/// Length of every key, in bytes.
const LENGTH: usize = 32;

/// A key file that cannot be used. All of them are the operator's to fix; none is worked around.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refused.
    #[error("key file {path} cannot be {action}: {source}")]
    System {
        /// The file.
        path: PathBuf,
        /// `opened`, `locked`, `read` or `written`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Readable or writable for others.
    #[error(
        "key file {path} has mode {mode:04o}, so others may know it; make it 0600, or remove it to get a new one: what was made with the old one is then not recognised"
    )]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 32 random bytes.
    #[error(
        "key file {path} is damaged ({detail}); restore it from a backup, or remove it to get a new one: what was made with the old one is then not recognised"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Fills `bytes` from the operating system's random number generator.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), KeyFileError> {
    rand::rngs::SysRng.try_fill_bytes(bytes).map_err(|e| KeyFileError::Random(e.to_string()))
}

/// A loaded key. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct KeyFile(Zeroizing<[u8; LENGTH]>);

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyFile(***)")
    }
}

impl KeyFile {
    /// Reads the key at `path`, or makes a random one there when the file does not exist. Safe when several
    /// processes start at once: all get the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |action| move |source| KeyFileError::System { path: path.to_owned(), action, source };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed("opened"))?;
        }
        let mut file = match OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path) {
            Ok(file) => file,
            // A key on a read-only volume is fine as long as it exists.
            Err(e) if matches!(e.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                File::open(path).map_err(|_| failed("opened")(e))?
            }
            Err(e) => return Err(failed("opened")(e)),
        };
        file.lock().map_err(failed("locked"))?;
        let mode = file.metadata().map_err(failed("read"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Loose { path: path.to_owned(), mode });
        }
        let mut found = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        Read::by_ref(&mut file).take(LENGTH as u64 + 1).read_to_end(&mut found).map_err(failed("read"))?;
        if found.is_empty() {
            return Self::create(&mut file).map_err(|e| match e {
                Ok(random) => random,
                Err(io) => failed("written")(io),
            });
        }
        let damaged = |detail: String| KeyFileError::Damaged { path: path.to_owned(), detail };
        let key: [u8; LENGTH] = found
            .as_slice()
            .try_into()
            .map_err(|_| damaged(format!("it should hold exactly {LENGTH} bytes, it holds {}", bytes_found(found.len()))))?;
        if key.iter().all(|b| *b == key[0]) {
            return Err(damaged("all its bytes are the same".to_owned()));
        }
        Ok(Self(Zeroizing::new(key)))
    }

    fn create(file: &mut File) -> Result<Self, Result<KeyFileError, std::io::Error>> {
        let mut key = Zeroizing::new([0; LENGTH]);
        random(key.as_mut_slice()).map_err(Ok)?;
        file.write_all(key.as_slice()).and_then(|()| file.sync_all()).map_err(Err)?;
        Ok(Self(key))
    }

    /// A key that is not in any file; for tests and for processes that keep nothing.
    pub fn in_memory() -> Result<Self, KeyFileError> {
        let mut key = Zeroizing::new([0; LENGTH]);
        random(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// The key itself. Derive from it; do not store or print it.
    pub fn expose(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

fn bytes_found(length: usize) -> String {
    if length > LENGTH { "more".to_owned() } else { length.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn made_once_with_mode_0600_and_the_same_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/pepper");
        let keys: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|_| s.spawn(|| *KeyFile::load_or_create(&path).unwrap().expose())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|k| *k == keys[0]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_ne!(*KeyFile::in_memory().unwrap().expose(), keys[0]);
        assert_eq!(format!("{:?}", KeyFile::in_memory().unwrap()), "KeyFile(***)");
    }

    #[test]
    fn loose_short_long_and_blank_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pepper");
        KeyFile::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let loose = KeyFile::load_or_create(&path).unwrap_err().to_string();
        assert!(loose.contains("mode 0640") && loose.contains("0600"), "{loose}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for (bytes, says) in [(vec![1; 5], "it holds 5"), (vec![1; 33], "it holds more"), (vec![0; 32], "all its bytes")] {
            fs::write(&path, bytes).unwrap();
            let error = KeyFile::load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

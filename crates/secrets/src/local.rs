//! Secrets of this machine: environment variables and files. Guards that a file everybody can read, one that is no file, or
//! one too large is refused. Nothing is kept: each request reads what is there now.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use portcullis_egress::SecretFault;
use portcullis_model::{Secret, SecretReference, Timestamp};
use zeroize::Zeroizing;

/// Largest secret, bytes.
const MOST_BYTES: u64 = 64 << 10;

/// A value and, where it is known, since when it stands there.
pub(crate) struct Reading {
    pub(crate) secret: Secret,
    pub(crate) since: Option<Timestamp>,
}

/// Reads a variable; an empty one is missing.
pub(crate) fn environment(name: &str) -> Result<Reading, SecretFault> {
    let missing = |reason: &str| SecretFault::Missing { reference: format!("env:{name}"), reason: reason.to_owned() };
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Err(missing("the variable is empty")),
        Ok(value) => Ok(Reading { secret: Secret::new(value), since: None }),
        Err(std::env::VarError::NotPresent) => Err(missing("the variable is not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(missing("the variable is not UTF-8 text")),
    }
}

/// Reads a file; one line end at its end does not count.
pub(crate) fn file(path: &Path) -> Result<Reading, SecretFault> {
    let reference = SecretReference::File(path.to_owned()).to_string();
    let refused = |reason: String| SecretFault::Refused { reference: reference.clone(), reason };
    let missing = |reason: String| SecretFault::Missing { reference: reference.clone(), reason };
    // Looked at before it is opened, for opening a pipe waits for its writer; and again after, for it may have changed.
    let kind = std::fs::metadata(path).map_err(|e| missing(e.to_string()))?;
    if !kind.is_file() {
        return Err(refused("it is not a regular file".into()));
    }
    let file = File::open(path).map_err(|e| missing(e.to_string()))?;
    let found = file.metadata().map_err(|e| missing(e.to_string()))?;
    let mode = found.permissions().mode();
    if mode & 0o007 != 0 {
        let reason = format!("every user of this machine may use it (mode {:03o}); run chmod o-rwx", mode & 0o777);
        return Err(refused(reason));
    }
    if !found.is_file() || found.len() > MOST_BYTES {
        return Err(refused(format!("it is no regular file of at most {MOST_BYTES} bytes")));
    }
    // One allocation, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 1));
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| missing(e.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(refused(format!("it has more than {MOST_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not UTF-8 text".into()))?;
    let text = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
    if text.is_empty() {
        return Err(missing("the file is empty".into()));
    }
    let since = found.modified().ok().and_then(|m| m.duration_since(UNIX_EPOCH).ok());
    let since = since.and_then(|s| i64::try_from(s.as_secs()).ok()).map(Timestamp::from_seconds);
    Ok(Reading { secret: Secret::new(text), since })
}

/// Reads a file that every process of its surroundings may read, such as the token of a pod's service account.
pub(crate) fn public_file(path: &Path) -> Result<Secret, String> {
    let kind = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !kind.is_file() || kind.len() > MOST_BYTES {
        return Err(format!("it is no regular file of at most {MOST_BYTES} bytes"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 1));
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned())?.trim();
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(Secret::new(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn one_line_end_does_not_count() {
        for (bytes, expected) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            let (_directory, path) = written(bytes.as_bytes(), 0o400);
            let reading = file(&path).unwrap();
            assert_eq!(reading.secret.expose(), expected);
            assert!(reading.since.is_some());
        }
    }

    #[test]
    fn what_should_not_be_used_is_refused_and_says_why() {
        for (bytes, mode, words) in [
            (b"hunter2".to_vec(), 0o644, "chmod"),
            (b"hunter2".to_vec(), 0o601, "chmod"),
            (vec![b'x'; (64 << 10) + 1], 0o600, "65536"),
            (vec![0xff, 0xfe], 0o600, "UTF-8"),
            (Vec::new(), 0o600, "empty"),
            (b"\n".to_vec(), 0o600, "empty"),
        ] {
            let (_directory, path) = written(&bytes, mode);
            let fault = file(&path).map(|_| ()).unwrap_err().to_string();
            assert!(fault.contains(words) && !fault.contains("hunter2"), "{fault}");
        }
        let (directory, path) = written(&vec![b'x'; 64 << 10], 0o640);
        assert!(file(&path).is_ok());
        assert!(matches!(file(directory.path()), Err(SecretFault::Refused { .. })));
        assert!(matches!(file(&directory.path().join("none")), Err(SecretFault::Missing { .. })));
        assert!(matches!(environment("PORTCULLIS_NO_SUCH_VARIABLE"), Err(SecretFault::Missing { .. })));
    }
}

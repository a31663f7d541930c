//! Files a program consists of, looked at before it runs. Guards that they are what the operator named, and that nobody but
//! root and the user of this server could change them, or put others in their place, between the look and the start: neither
//! the files, nor any folder or link on the way to them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

/// Most symbolic links on the way to a file, as in the kernel.
const MOST_LINKS: u32 = 40;

/// Looks at a program and whatever else has a digest. The error says what is wrong and what would be right.
pub(crate) fn check(command: &Path, digests: &[(PathBuf, String)]) -> Result<(), String> {
    let own = geteuid().as_raw();
    for path in std::iter::once(command).chain(digests.iter().map(|(path, _)| path.as_path())) {
        guarded(path, own)?;
    }
    for (path, wanted) in digests {
        let found = digest_of(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if found != *wanted {
            return Err(format!("{} has SHA-256 {found}, not the one in digests; it is not started", path.display()));
        }
    }
    Ok(())
}

/// Walks to a file as the kernel does, and refuses what somebody else could change.
fn guarded(path: &Path, own: u32) -> Result<(), String> {
    let failed = |at: &Path, error: std::io::Error| format!("{}: {error}", at.display());
    let mut ahead: VecDeque<OsString> = names(path);
    // The folders so far, each with whether nobody else gets into it.
    let mut way = vec![(PathBuf::from("/"), false)];
    judge(Path::new("/"), &std::fs::metadata("/").map_err(|e| failed(Path::new("/"), e))?, own)?;
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let Some((folder, closed)) = way.last() else { break };
        let (here, closed) = (folder.join(name), *closed);
        let about = std::fs::symlink_metadata(&here).map_err(|e| failed(&here, e))?;
        if !closed {
            judge(&here, &about, own)?;
        }
        if about.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(format!("{} leads through more than {MOST_LINKS} links", path.display()));
            }
            let target = std::fs::read_link(&here).map_err(|e| failed(&here, e))?;
            if target.is_absolute() {
                way.truncate(1);
            }
            let mut further = names(&target);
            further.append(&mut ahead);
            ahead = further;
        } else if about.is_dir() {
            let others_enter = about.mode() & 0o011 != 0;
            way.push((here, closed || !others_enter));
        } else if about.is_file() && ahead.is_empty() {
            return Ok(());
        } else {
            return Err(format!("{} is no file", path.display()));
        }
    }
    Err(format!("{} is no file", path.display()))
}

/// The parts of a path that lead somewhere.
fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

/// Whether only root and `own` can change what is there.
fn judge(here: &Path, about: &Metadata, own: u32) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{} {why}; it is not started", here.display()));
    if about.uid() != 0 && about.uid() != own {
        let user = about.uid();
        return refused(&format!("belongs to user {user}, who could change it: give it to root or to the user of this server"));
    }
    // Of a link the mode says nothing. In a sticky folder only the owner of an entry can put another in its place.
    if about.is_symlink() || (about.is_dir() && about.mode() & 0o1000 != 0) {
        return Ok(());
    }
    if about.mode() & 0o002 != 0 {
        return refused("can be changed by everybody (chmod o-w)");
    }
    if about.mode() & 0o020 != 0 && about.gid() != 0 {
        return refused(&format!("can be changed by the group {} (chmod g-w)", about.gid()));
    }
    Ok(())
}

fn digest_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let (mut file, mut chunk) = (std::fs::File::open(path)?, vec![0; 64 << 10]);
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hasher.update(&chunk[..read]),
        }
    }
    Ok(crate::definition::hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A folder with a program in a folder.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        mode(outer.path(), 0o755);
        let inner = outer.path().join("bin");
        std::fs::create_dir(&inner).unwrap();
        mode(&inner, 0o755);
        let program = inner.join("program");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        mode(&program, 0o755);
        (outer, inner, program)
    }

    fn said(path: &Path) -> String {
        check(path, &[]).err().unwrap_or_default()
    }

    #[test]
    fn what_only_its_owner_can_change_is_started() {
        let (outer, inner, program) = place();
        assert_eq!(said(&program), "", "a sticky folder above it is no way in");
        let link = outer.path().join("link");
        symlink("bin/../bin/program", &link).unwrap();
        assert_eq!(said(&link), "");
        assert!(said(&inner).contains("is no file"));
        assert!(said(&inner.join("nothing")).contains("nothing: "));
        symlink(outer.path().join("round"), outer.path().join("round")).unwrap();
        assert!(said(&outer.path().join("round")).contains("more than 40 links"));
    }

    #[test]
    fn what_others_could_change_or_exchange_is_not_started() {
        let (outer, inner, program) = place();
        for (path, bits, says) in [
            (&program, 0o757, "program can be changed by everybody"),
            (&inner, 0o757, "bin can be changed by everybody"),
            (&outer.path().to_owned(), 0o777, "can be changed by everybody"),
        ] {
            mode(path, bits);
            assert!(said(&program).contains(says), "{}", said(&program));
            mode(path, 0o755);
        }
        // Nobody else gets to it here, whatever is allowed further down.
        mode(outer.path(), 0o700);
        mode(&program, 0o757);
        assert_eq!(said(&program), "");
        mode(&program, 0o755);
        mode(outer.path(), 0o755);
        // A link in a folder of everybody's leads to it; the folder it leads to is fine.
        let open = outer.path().join("open");
        std::fs::create_dir(&open).unwrap();
        mode(&open, 0o777);
        let link = open.join("link");
        symlink(&program, &link).unwrap();
        assert!(said(&link).contains("open can be changed by everybody"));
        mode(&open, 0o1777);
        assert_eq!(said(&link), "");
    }

    #[test]
    fn a_group_and_another_user_are_others_too() {
        let (_outer, inner, program) = place();
        let about = |path: &Path| std::fs::metadata(path).unwrap();
        let someone = about(&program).uid().wrapping_add(1).max(1);
        assert!(judge(&program, &about(&program), someone).is_ok() == (about(&program).uid() == 0));
        // Only root can give a file to another group or user.
        if !geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(&program, None, Some(12_345)).unwrap();
        mode(&program, 0o775);
        assert!(said(&program).contains("by the group 12345 (chmod g-w)"), "{}", said(&program));
        mode(&program, 0o755);
        std::os::unix::fs::chown(&inner, Some(12_345), None).unwrap();
        assert!(said(&program).contains("bin belongs to user 12345"), "{}", said(&program));
    }

    #[test]
    fn a_file_that_is_another_one_than_its_digest_says_is_not_started() {
        let (_outer, _, program) = place();
        let digest = digest_of(&program).unwrap();
        assert_eq!(check(&program, &[(program.clone(), digest.clone())]), Ok(()));
        std::fs::write(&program, "#!/bin/false\n").unwrap();
        assert!(check(&program, &[(program.clone(), digest)]).unwrap_err().contains("not the one in digests"));
    }
}

//! How files and directories of the store come into being: for the owner alone. Telemetry holds what programs say about
//! people and secrets; other accounts of the machine must not read it, whatever the umask says.

use std::fs::{DirBuilder, File, OpenOptions};
use std::path::Path;

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

/// Reading and writing for the owner.
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;
/// The same, and entering.
#[cfg(unix)]
const DIRECTORY_MODE: u32 = 0o700;

/// Options for writing a file that only the owner may open.
pub(crate) fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    options.mode(FILE_MODE);
    options
}

/// Creates a file, or empties it when it is there.
pub(crate) fn create(path: &Path) -> std::io::Result<File> {
    writing().create(true).truncate(true).open(path)
}

/// Creates a directory and those above it that are absent; one that is there keeps its mode.
pub(crate) fn create_directories(path: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(DIRECTORY_MODE);
    builder.create(path)
}

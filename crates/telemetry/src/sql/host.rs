//! Who starts what answers a statement. In the product that is always a process of the same binary.

use std::ffi::OsString;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

/// Starts what answers one statement over `line` and ends.
pub trait StatementHost: Debug + Send + Sync {
    /// Starts it; with the process to be ended and buried, where it is one.
    ///
    /// # Errors
    /// When it could not be started.
    fn start(&self, line: UnixStream) -> std::io::Result<Option<Child>>;
}

/// A program that answers one statement over its standard input: its `main` calls [`crate::answer_statement`] or
/// [`crate::serve_statement`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementProgram {
    /// Where it is.
    pub program: PathBuf,
    /// What it is started with.
    pub arguments: Vec<OsString>,
}

impl StatementProgram {
    /// This very binary, whose `main` begins with [`crate::answer_statement`]: also when another one has taken its place on
    /// the disk since.
    ///
    /// # Errors
    /// When the system does not say which it is.
    pub fn this_binary() -> std::io::Result<Self> {
        let program = if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { std::env::current_exe()? };
        Ok(Self { program, arguments: vec![super::WORD.into()] })
    }
}

impl StatementHost for StatementProgram {
    fn start(&self, line: UnixStream) -> std::io::Result<Option<Child>> {
        let child = Command::new(&self.program)
            .arg0("portcullis")
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(line)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What a terminal says to the server's group is not for this one: the server ends it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Some(child))
    }
}

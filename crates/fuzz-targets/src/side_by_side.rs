//! Runs targets side by side, each in a process of its own. Guards that memory is still measured per target, that an abort
//! of one (a stack overflow, say) is a failure of that one, and that no target is left out. Must not read inputs itself.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How one target ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// Whether its promise held for all inputs.
    pub held: bool,
    /// What it said, without the last line break.
    pub said: String,
}

/// Runs `program` once for each of `names`, at most `jobs` at a time, and tells `seen` of each as it ends.
///
/// The program is called as `program OPTIONS --jobs 1 [--keep FILE-NAME] NAME` and ends with 0 when the promise held.
/// With `keep`, each target has a file of its own: the same name with `-` and the target's behind it.
///
/// # Errors
/// When a process cannot be started.
pub fn side_by_side(
    program: &Path,
    options: &[OsString],
    keep: Option<&Path>,
    names: &[&'static str],
    jobs: usize,
    seen: &(dyn Fn(&Ended) + Sync),
) -> io::Result<Vec<Ended>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || -> io::Result<()> {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut command = Command::new(program);
            command.args(options).args(["--jobs", "1"]).stdin(Stdio::null());
            if let Some(keep) = keep {
                command.arg("--keep").arg(of_its_own(keep, name));
            }
            let ended = ended(name, &command.arg(name).output()?);
            seen(&ended);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, names.len().max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))))
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The file in which one target keeps its inputs.
fn of_its_own(keep: &Path, name: &str) -> PathBuf {
    let mut file = keep.as_os_str().to_owned();
    file.push("-");
    file.push(name);
    PathBuf::from(file)
}

fn ended(name: &'static str, output: &Output) -> Ended {
    let mut said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if !output.status.success() {
        let more = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        let status = output.status;
        // A promise that was broken was said already; whatever else ends a process says nothing of its own.
        if status.code() != Some(1) || said.is_empty() {
            let broken = format!("BROKEN  {name:<10} ended with {status}; --keep FILE shows the input\n  {more}");
            format!("{said}\n{broken}").trim().clone_into(&mut said);
        }
    }
    Ended { name, held: output.status.success(), said }
}

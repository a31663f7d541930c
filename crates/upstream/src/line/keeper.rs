//! A process of ours that stands between this server and a program of an upstream, and ends whatever the program started, also
//! what left its group (`setsid`) or was left behind: the kernel gives it every orphan below it. Guards that nothing of a
//! program outlives its end, its stop, or this server. Must not read or hold anything the program is told or says.
//!
//! A program that ends its own keeper gets away; it runs as the user of this server, and could as well end that.

use std::ffi::OsString;
use std::process::ExitCode;

/// The first argument that makes this binary a keeper.
const WORD: &str = "keep-program";

/// Keeps a program, where the arguments of this process say so: for the first line of `main`, before anything is read. `None`
/// for every other beginning.
pub fn keep_program(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    arguments.next();
    if arguments.next()? != WORD {
        return None;
    }
    Some(keep(&arguments.collect::<Vec<_>>()))
}

/// How the processes of programs are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// In a group of processes, which one of them can leave.
    ByGroup,
    /// By this very binary, started anew for each program: its `main` begins with [`keep_program`]. As by group where the
    /// system has no way to it.
    ByThisBinary,
}

/// Why nothing was started.
const NOT_STARTED: u8 = 127;

#[cfg(not(target_os = "linux"))]
fn keep(_program: &[OsString]) -> ExitCode {
    ExitCode::from(NOT_STARTED)
}

#[cfg(target_os = "linux")]
pub(super) use kept::{command, give_up};

#[cfg(target_os = "linux")]
fn keep(program: &[OsString]) -> ExitCode {
    match kept::run(program) {
        Ok(ended) => kept::end_like(ended),
        Err(reason) => {
            use std::io::Write as _;
            // To whoever reads the program's own log.
            let _ = writeln!(std::io::stderr(), "{reason}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

#[cfg(target_os = "linux")]
mod kept {
    use std::collections::{BTreeSet, HashMap};
    use std::ffi::OsString;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::process::{Command, ExitCode};
    use std::time::{Duration, Instant};

    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::prctl::set_child_subreaper;
    use nix::sys::signal::{SigSet, Signal, kill, raise};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{Pid, dup2_stdin, dup2_stdout, getpid};

    use super::WORD;

    /// This very program, whatever became of its file.
    const SELF: &str = "/proc/self/exe";
    /// What ends everything. The signals a program itself may get are not for its keeper.
    const END: Signal = Signal::SIGHUP;
    /// How long it may take until what was killed is gone.
    const KILLING: Duration = Duration::from_secs(5);

    /// The beginning of a command that starts `program` below a keeper.
    pub(in crate::line) fn command(program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(SELF);
        command.arg(WORD).arg(program);
        command
    }

    /// Has a keeper end everything.
    pub(in crate::line) fn give_up(keeper: Pid) {
        // It may be gone already, which is what is wanted. One that somebody stopped goes on first.
        let _ = kill(keeper, END).and_then(|()| kill(keeper, Signal::SIGCONT));
    }

    /// Starts the program and stays until it, and everything below it, is gone.
    pub(super) fn run(program: &[OsString]) -> Result<WaitStatus, String> {
        let (command, arguments) = program.split_first().ok_or("no program is named")?;
        let because = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, END] {
            signals.add(signal);
        }
        set_child_subreaper(true).map_err(|error| because("orphans cannot be kept", &error))?;
        let child = Command::new(command).args(arguments).spawn();
        let child = child.map_err(|error| because(&format!("{} cannot be started", Path::new(command).display()), &error))?;
        let child = i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| because("its number", &error))?;
        // Not before: the program would begin with these signals held. What came in between is looked for first.
        let held = signals.thread_block().map_err(std::io::Error::from);
        let told = held.and_then(|()| leave_streams()).and_then(|()| end_with_listener());
        let ended = told
            .map_err(|error| because("the program cannot be watched", &error))
            .and_then(|()| wait_for(child, &signals).map_err(|error| because("the program cannot be waited for", &error)));
        end_all();
        ended
    }

    /// The program alone holds its streams, so that each end is seen as one.
    fn leave_streams() -> Result<(), std::io::Error> {
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(nothing.as_fd())?;
        dup2_stdout(nothing.as_fd())?;
        Ok(())
    }

    /// Ends everything once nobody reads the program's log any more: the server is gone, however it went.
    fn end_with_listener() -> Result<(), std::io::Error> {
        let own = getpid();
        let watch = move || {
            let stderr = std::io::stderr();
            let mut log = [PollFd::new(stderr.as_fd(), PollFlags::empty())];
            // What cannot be watched is as good as gone.
            while let Err(Errno::EINTR) = poll(&mut log, PollTimeout::NONE) {}
            give_up(own);
        };
        std::thread::Builder::new().name("listener".into()).stack_size(64 << 10).spawn(watch).map(drop)
    }

    /// How the program ended; by a signal of ours where everything is to end.
    fn wait_for(child: Pid, signals: &SigSet) -> Result<WaitStatus, Errno> {
        loop {
            if let Some(ended) = reaped(child)? {
                return Ok(ended);
            }
            if signals.wait()? == END {
                return Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false));
            }
        }
    }

    /// Takes away every process that ended. Gives how `child` ended, where it is among them.
    fn reaped(child: Pid) -> Result<Option<WaitStatus>, Errno> {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return Ok(None),
                Ok(status) if status.pid() == Some(child) => return Ok(Some(status)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Kills everything below this process, again and again, until nothing is left.
    fn end_all() {
        let until = Instant::now() + KILLING;
        while Instant::now() < until {
            for process in below(getpid()) {
                let _ = kill(process, Signal::SIGKILL);
            }
            loop {
                match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                    // Orphans come to this process, so without a child there is nothing below it.
                    Err(Errno::ECHILD) => return,
                    Ok(WaitStatus::StillAlive) => break,
                    _ => {}
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Every process below `top`, as far as it is listed.
    fn below(top: Pid) -> BTreeSet<Pid> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let parent = std::fs::read(entry.path().join("stat")).ok().and_then(|stat| parent_in(&stat));
            if let Some(parent) = parent {
                children.entry(parent).or_default().push(number);
            }
        }
        let (mut found, mut next) = (BTreeSet::new(), vec![top.as_raw()]);
        while let Some(parent) = next.pop() {
            for child in children.get(&parent).into_iter().flatten() {
                if found.insert(Pid::from_raw(*child)) {
                    next.push(*child);
                }
            }
        }
        found
    }

    /// The parent in `/proc/PID/stat` (proc(5)): behind the name, which is in brackets and may hold any character.
    fn parent_in(stat: &[u8]) -> Option<i32> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        rest.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// Ends as the program did, so that whoever waits sees that.
    pub(super) fn end_like(ended: WaitStatus) -> ExitCode {
        match ended {
            WaitStatus::Exited(_, code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            WaitStatus::Signaled(_, signal, _) => {
                let mut only = SigSet::empty();
                only.add(signal);
                // The runtime looks at some signals first, and leaves them to the system the second time.
                let _ = only.thread_unblock().and_then(|()| raise(signal)).and_then(|()| raise(signal));
                ExitCode::from(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)))
            }
            _ => ExitCode::FAILURE,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_parent_is_found_behind_any_name() {
            assert_eq!(parent_in(b"7 (sh) S 5 7 7 0 -1"), Some(5));
            assert_eq!(parent_in(b"7 (a) b ) (c) R 42 7"), Some(42));
            for bad in [&b""[..], b"7 (sh", b"7 (sh) S", b"7 (sh) S x 1", b")"] {
                assert_eq!(parent_in(bad), None);
            }
        }

        #[test]
        fn what_is_below_a_process_is_found_at_any_depth() {
            let mut deep = Command::new("sh").args(["-c", "sh -c 'sleep 60; :'; :"]).spawn().unwrap();
            let top = Pid::from_raw(i32::try_from(deep.id()).unwrap());
            let until = Instant::now() + Duration::from_secs(20);
            while below(top).len() < 2 {
                assert!(Instant::now() < until, "{:?}", below(top));
                std::thread::yield_now();
            }
            assert!(below(getpid()).contains(&top));
            for process in below(top) {
                let _ = kill(process, Signal::SIGKILL);
            }
            deep.kill().unwrap();
            deep.wait().unwrap();
        }
    }
}

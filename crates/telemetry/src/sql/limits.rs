//! What the system holds a statement's process to, set by the process itself before it reads the statement: memory, time of
//! the processor, and that it writes no file. What it takes beyond that ends it, and nothing else.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::line::Job;

/// Time of the processor beyond what the statement may take on every core, seconds: for the beginning and the end.
const SPARE_SECONDS: u64 = 5;
/// Stacks beside those of the threads that read: of the first thread, the statement's own, and who watches the line.
const OTHER_STACKS: usize = 3;

/// Memory of a process: so much as it had when it began, what its statement may take, and the stacks of its threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    bytes: usize,
    stack_bytes: usize,
}

/// Sets the limits, for good.
pub(super) fn set(job: &Job, stack_bytes: usize, readers: usize) -> std::io::Result<Memory> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let seconds = job.time_left.as_secs().saturating_add(SPARE_SECONDS).saturating_mul(cores);
    at_most(Resource::RLIMIT_CPU, seconds)?;
    at_most(Resource::RLIMIT_CORE, 0)?;
    at_most(Resource::RLIMIT_FSIZE, 0)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_no_new_privs()?;
    // Where the machine runs out of memory, the system looks for whom to end: rather this one than the server.
    #[cfg(target_os = "linux")]
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    let memory = Memory { bytes: job.limits.process_bytes.saturating_add(taken()), stack_bytes };
    at_most(Resource::RLIMIT_DATA, memory.with_stacks(job.threads + readers))?;
    Ok(memory)
}

impl Memory {
    /// Gives back the stacks that will not be used: with fewer threads than there might have been, the rest of the memory is
    /// what the limit is about.
    pub(super) fn settle(self, threads: usize) -> std::io::Result<()> {
        at_most(Resource::RLIMIT_DATA, self.with_stacks(threads))
    }

    fn with_stacks(self, threads: usize) -> u64 {
        (self.bytes + (threads + OTHER_STACKS) * self.stack_bytes) as u64
    }
}

fn at_most(resource: Resource, most: u64) -> std::io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let most = most.min(hard);
    Ok(setrlimit(resource, most, most)?)
}

/// Bytes that count already.
fn taken() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kilobytes: usize = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    kilobytes << 10
}

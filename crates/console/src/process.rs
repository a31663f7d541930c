//! What this process uses, read from `/proc/self` under the names every exporter gives it. Where there is no `/proc`, nothing
//! is said: absent is not zero.
//!
//! Source: `proc(5)`; <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.

use std::fs;

/// Clock ticks per second in `/proc` (`USER_HZ`, 100 on every architecture Linux is built for today but alpha).
const TICKS: f64 = 100.0;
/// Bytes of a memory page, where `/proc/self/status` does not say bytes itself.
const KIBI: u64 = 1024;

/// What was found. What could not be read is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ProcessSample {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) open_files_limit: Option<u64>,
    pub(crate) started_seconds: Option<f64>,
}

impl ProcessSample {
    /// Looks now.
    pub(crate) fn take() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.filter_map(Result::ok).count() as u64);
        // The directory itself is open while it is read.
        let open_files = open_files.map(|count| count.saturating_sub(1));
        Self {
            open_files,
            ..parse(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/self/limits"), &read("/proc/stat"))
        }
    }
}

fn parse(stat: &str, status: &str, limits: &str, machine: &str) -> ProcessSample {
    // The name of the program stands in brackets and may hold anything, brackets and spaces too.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    // Fields are counted from 1 in proc(5), and the first two are gone.
    let ticks = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<f64>().ok();
    let line = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
    let number = |text: Option<String>| text?.split_whitespace().next()?.parse::<u64>().ok();
    let boot = number(line(machine, "btime "));
    ProcessSample {
        cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
        resident_bytes: number(line(status, "VmRSS:")).map(|kib| kib * KIBI),
        virtual_bytes: number(line(status, "VmSize:")).map(|kib| kib * KIBI),
        threads: number(line(status, "Threads:")),
        open_files: None,
        open_files_limit: number(line(limits, "Max open files")),
        started_seconds: boot.zip(ticks(22)).map(|(boot, after)| boot as f64 + after / TICKS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_and_a_name_cannot_shift_them() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1000 1 1";
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t 1024 kB\nThreads:\t9\n";
        let limits = "Limit Soft Hard Units\nMax open files            1024                 4096                 files\n";
        let found = parse(stat, status, limits, "cpu 1\nbtime 1700000000\n");
        assert_eq!(found.cpu_seconds, Some(2.0));
        assert_eq!((found.resident_bytes, found.virtual_bytes), (Some(1 << 20), Some(2 << 20)));
        assert_eq!((found.threads, found.open_files_limit), (Some(9), Some(1024)));
        assert_eq!(found.started_seconds, Some(1_700_000_010.0));
        assert_eq!(parse("", "", "", ""), ProcessSample::default(), "what is not there is absent");
    }

    #[test]
    fn this_process_is_found() {
        let found = ProcessSample::take();
        assert!(found.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{found:?}");
        assert!(found.open_files.is_some_and(|count| count >= 1) && found.cpu_seconds.is_some(), "{found:?}");
    }
}

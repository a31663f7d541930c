//! The audit log as its directory: written, killed, tampered with, rotated, read back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise, in its helpers too")]

mod crash;
mod erasing;
mod failing;
mod reading;
mod receiver;
mod signing;
mod sinks;
mod tamper;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_audit::{AuditEvent, AuditLog, AuditOptions, Decision, EventKind};
use portcullis_model::{ManualClock, Timestamp};

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_seconds(1_800_000_000))
}

fn open(directory: &Path) -> AuditLog {
    AuditLog::open(directory, Arc::new(clock())).unwrap()
}

fn open_rotating(directory: &Path, rotate_at_bytes: u64) -> AuditLog {
    let options = AuditOptions { rotate_at_bytes, sync_every: Duration::from_millis(20), ..AuditOptions::default() };
    AuditLog::open_with(directory, Arc::new(clock()), options).unwrap()
}

fn call(tool: impl Into<String>) -> AuditEvent {
    AuditEvent::new(EventKind::Call).tool(tool.into()).decided(Decision::Allow, "reader-may-look").latency_us(1200)
}

/// Files of the directory whose name ends so, sorted.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.to_string_lossy().ends_with(suffix))
        .collect();
    found.sort();
    found
}

fn the_file(directory: &Path, suffix: &str) -> PathBuf {
    let found = files(directory, suffix);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

//! What everything that reads bytes from outside must survive: one function per reader, which takes any bytes and panics
//! when a promise is broken. Guards the readers together with a driver for the stable toolchain ([`drive`]) and the
//! cargo-fuzz crate in `fuzz/`. Must not be part of the shipped binary, and must not weaken a promise to make a run pass.

#![allow(clippy::panic, reason = "a broken promise is a panic here: that is what the drivers look for")]

mod confinement;
mod confining;
mod definitions;
mod door;
pub mod drive;
mod origins;
mod packages;
mod parcels;
mod readers;
mod rewriting;
pub mod side_by_side;

/// What a reader said to one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the input was taken.
    pub accepted: bool,
    /// The reader's words. The driver keeps inputs that were answered in a way not seen before.
    pub said: String,
}

impl Verdict {
    pub(crate) fn accepted() -> Self {
        Self { accepted: true, said: String::new() }
    }

    pub(crate) fn refused(reason: impl std::fmt::Display) -> Self {
        Self { accepted: false, said: reason.to_string() }
    }

    pub(crate) fn of<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Self {
        outcome.map_or_else(Self::refused, |_| Self::accepted())
    }
}

/// One reader of bytes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As on the command line and in `fuzz/fuzz_targets/`.
    pub name: &'static str,
    /// What is checked, in one sentence.
    pub promise: &'static str,
    /// Inputs to start from: honest ones and known attacks.
    pub seeds: &'static [&'static str],
    /// Pieces that mean something to the reader, put into inputs.
    pub words: &'static [&'static str],
    /// Reads one input. Panics when a promise is broken.
    pub run: fn(&[u8]) -> Verdict,
}

/// Every reader.
pub const TARGETS: &[Target] = &[
    readers::JSON_RPC,
    door::MCP_DOOR,
    readers::JWT,
    readers::CONFIG,
    readers::POLICY,
    readers::ADDRESS,
    origins::FORWARDED_BY,
    readers::REDACTOR,
    confinement::URL_PATH,
    rewriting::PROMQL,
    rewriting::SQL,
    confining::LOGQL,
    confining::TRACEQL,
    confining::ELASTICSEARCH,
    packages::PACKAGE,
    packages::MANIFEST,
    packages::SIGNATURE,
    packages::OMCP,
    parcels::OCI_MANIFEST,
    parcels::HUB_INDEX,
    parcels::PACKAGE_PLACE,
    definitions::DEFINITION,
];

/// The reader of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs one input through the reader of this name: the whole body of a cargo-fuzz target.
///
/// # Panics
/// When a promise is broken, or the name is that of no reader.
pub fn run(name: &str, bytes: &[u8]) {
    let found = target(name);
    assert!(found.is_some(), "no reader is called '{name}'");
    if let Some(target) = found {
        (target.run)(bytes);
    }
}

//! The record of what was asked, by whom, and how it ended. Written before an answer leaves, chained so that any
//! later change is found. Must never hold arguments, answers or secrets, and never lose a record silently.
//!
//! # On disk
//! One directory. Each process writes a *chain* of its own, guarded by a lock for as long as the process lives; a
//! later process continues a chain that nobody holds. A chain `audit-<start>-<pid>` has these files, all mode 0600:
//!
//! | file | what |
//! |---|---|
//! | `<chain>.jsonl` | the part being written, one record per line |
//! | `<chain>.jsonl.1`, `.2`, … | earlier parts, oldest first |
//! | `<chain>.head` | sequence number and hash of the last record known to be on disk, and whether the chain was closed |
//! | `<chain>.lock` | locked by the process that writes |
//! | `<chain>.checkpoints` | signed checkpoints, one per line |
//! | `<chain>.base` | signed: where the chain begins, after retention removed older parts |
//! | `<chain>.torn-<n>` | what a crash left of a line, moved aside before record `n` |
//!
//! and for all chains `audit.key` (the secret for fingerprints and signatures), `audit.pub` (the public key), and
//! `erase.lock` and `erase.pending` (an erasure at work), and for each sink `sink-<name>.cursor` (which record it got last)
//! and `sink-<name>.lock`.
//!
//! # Checking a chain without this program
//! A line is `{"seq":…,"time":…,"prev":"<hex>",…,"hash":"<hex>"}`, or with personal text
//! `{"seq":…,…,"sealed":{…},"hash":"<hex>","open":{…}}`. Its hash is BLAKE3 over the 32 bytes of `prev` followed by the
//! bytes of the line before `,"hash":`. `prev` is the hash of the record before, 32 zero bytes for the first. Sequence
//! numbers start at 1 and rise by one through all parts.
//!
//! `sealed` has a commitment for each of `who`, `about` and `note` that the record has: BLAKE3 over the group's name, a
//! zero byte, the 16 bytes of the salt, and the bytes of the clear text. `open` has `["<salt>",{clear text}]` for each,
//! or after an erasure the name of that erasure. Fingerprints of arguments are HMAC-SHA-256 over their canonical form
//! (RFC 8785) under a key derived from `audit.key`.
//!
//! A checkpoint is an Ed25519 signature (RFC 8032) over the lines `portcullis audit checkpoint v1`, chain, sequence
//! number, hash and time, each ended by a line feed. The signature of a head is over `portcullis audit head v1`, chain,
//! part, sequence number, hash, and whether it was closed.
//!
//! # What cannot be found
//! Records cut off after the last signed head, which is written once a second; an older state of all files put back as a
//! whole; and anything done by somebody who holds `audit.key`. Keep the public key (`portcullis audit public-key`) on
//! another machine, and the key file on another volume where that matters.

mod adopt;
mod anchors;
mod erase;
mod error;
mod event;
mod export;
mod failure;
mod files;
mod fingerprint;
mod kinds;
mod line;
mod log;
mod ocsf;
mod read;
mod recover;
mod retention;
mod scan;
mod seal;
mod settings;
mod sign;
mod sinks;
mod stats;
mod verify;

pub use adopt::{Adopted, adopt, unsigned_chains};
pub use erase::{EraseReport, erase};
pub use error::AuditError;
pub use event::{AuditEvent, ChainMark, Checkpoint, Decision, Erasure, EventKind, RetentionMark, Witness};
pub use export::{CsvExport, neutralised};
pub use failure::{FailurePolicy, Reaction};
pub use kinds::{ApprovalStep, LogOns};
pub use log::{Appended, AuditCounts, AuditLog, AuditOptions};
pub use ocsf::{OCSF_VERSION, to_ocsf};
pub use read::{AuditFilter, Outcome, Query, Record, Tail, Unreadable, query, tail};
pub use retention::Retention;
pub use settings::AuditSettings;
pub use sign::{PublicKey, public_key};
pub use sinks::{
    LagSettings, MakeCharter, OtlpSettings, Shippers, SinkBegin, SinkPace, SinkSettings, SinkState, SinkTarget, SinkView, Sinks,
    SyslogSettings, SyslogTransport, WebhookSettings, sink_states,
};
pub use stats::{Outcomes, Statistics, percentile};
pub use verify::{ChainReport, Finding, Problem, VerifyOptions, VerifyReport, verify, verify_with};

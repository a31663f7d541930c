//! Drives the real binary over its real doors, and looks at the refusal and at the audit record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]
// The house bans connections outside of `egress`; a test has to knock from outside.
#![allow(clippy::disallowed_methods, reason = "tests are the outside world")]

mod command_line;
mod crash;
mod demo;
mod doors;
mod ingest;
mod server;
mod stdio;
mod trainticket;

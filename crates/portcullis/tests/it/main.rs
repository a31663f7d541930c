//! Drives the real binary over its real doors, and looks at the refusal and at the audit record.

// The house bans connections outside of `egress`; a test has to knock from outside.
#![allow(clippy::disallowed_methods, reason = "tests are the outside world")]

mod command_line;
mod crash;
mod doors;
mod ingest;
mod server;
mod stdio;
mod trainticket;

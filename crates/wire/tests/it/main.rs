//! Listeners over real sockets: certificates that cannot be used, handshakes that do not end well, pages of other origins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]
// The house bans connections outside of `egress`; a test has to knock from outside.
#![allow(clippy::disallowed_methods, reason = "tests are the outside world")]

mod browsers;
mod challenges;
mod files;
mod handshakes;
mod paper;
mod rest;

//! Plugins as a house loads them, honest and hostile ones. What they do is done by one component, `tests/probe`, which
//! `cargo xtask plugins` builds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]
#![allow(clippy::disallowed_methods, reason = "tests are the outside world")]

mod lifecycle;
mod limits;
mod outside;
mod shop;
mod source;
mod surroundings;

//! The standing work against an authority that misbehaves, over real TLS on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]

mod authority;
mod hostile;

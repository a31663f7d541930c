//! The gate with a fake tool behind it: every refusal is seen together with its audit record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]

mod controls;
mod guide;
mod house;
mod lookups;
mod reach;
mod road;

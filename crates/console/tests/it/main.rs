//! The admin face over a small house: what is let in, what is refused and recorded, and what a scrape says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]

mod house;
mod reference;
mod routes;

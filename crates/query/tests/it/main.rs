//! Properties of the query crate seen from outside: what goes in as a value comes out as a value, and what is confined
//! is confined everywhere. Must not reach into private modules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops by panicking and explains a skip by printing"
)]

mod builders;
mod confinement;
mod elasticsearch;
mod generate;
mod logql;
mod prometheus;
mod recordings;
mod traceql;

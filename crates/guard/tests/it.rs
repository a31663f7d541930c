//! The release stage from outside: what goes in as a tool's output and what comes out for a client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise, in its helpers too"
)]

#[path = "it/canary.rs"]
mod canary;
#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/cuts.rs"]
mod cuts;
#[path = "it/properties.rs"]
mod properties;

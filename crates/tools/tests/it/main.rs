//! The tools as the gate runs them: over fake sources that answer, fail, dawdle or hold nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests, outside #[test] functions

mod catalogue;
mod cuts;
mod fake;
mod fanning;
mod health;
mod incident;
mod logs;
mod metrics;
mod others;
mod support;
mod traces;

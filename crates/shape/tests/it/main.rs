//! Measures shapes against the JSON a backend would have sent, in `o200k_base` tokens.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a test binary that prints the figures it measures

mod inputs;
mod sizes;
mod tokens;

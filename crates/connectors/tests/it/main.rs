//! The Prometheus source against a real Prometheus with node exporter, against recorded answers, and against backends
//! that misbehave. Loopback only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod faults;
mod real;
mod replay;
mod support;
mod victoria;

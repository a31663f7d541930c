//! What the egress client does against servers that misbehave. Every server here is a few lines of TCP on a loopback
//! port; nothing leaves the machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod faults;
mod rules;
mod servers;
mod streams;
mod tls;

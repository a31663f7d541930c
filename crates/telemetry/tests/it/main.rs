//! The store through its public doors: OTLP in, questions and SQL out, crashes in between.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests are the outside world")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // a test ends where its assumption ends

mod crash;
mod data;
mod door;
mod hostile;
mod keeping;
mod lethal;
mod processes;
mod records;
mod sql;
mod statements;
mod support;
mod typed;

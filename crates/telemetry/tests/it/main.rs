//! The store through its public doors: OTLP in, questions and SQL out, crashes in between.

mod crash;
mod data;
mod door;
mod keeping;
mod sql;
mod support;
mod typed;

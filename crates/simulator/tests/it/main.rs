//! The promises of the simulator, checked on its encoded output alone: determinism, agreement of spans, logs and
//! metrics, and an incident that is really in the data and nowhere else.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of a test fail by panicking")]

mod consistency;
mod incident;
mod observed;
mod output;

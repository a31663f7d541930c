//! The verifier as a whole: what is accepted, every attack on the table, mutations, keys over time, real loopback issuers.

mod accepted;
mod attacks;
mod caching;
mod loopback;
mod support;

//! Native backends, one folder each: settings, requests, capabilities, the `Source`. Every request goes out through
//! `egress` under the caller's permit. Must not import another room.

pub mod prometheus;

pub use prometheus::{PrometheusConfig, PrometheusConfigError, PrometheusSource};

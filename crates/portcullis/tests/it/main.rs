//! Drives the real binary over its real doors, and looks at the refusal and at the audit record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on shall stop")]
#![allow(clippy::print_stdout, reason = "what is skipped or measured is said")]
#![allow(
    clippy::single_match_else,
    clippy::needless_for_each,
    clippy::struct_field_names,
    reason = "style of a reader of foreign files"
)]
// The house bans connections outside of `egress`; a test has to knock from outside.
#![allow(clippy::disallowed_methods, reason = "tests are the outside world")]

mod acme;
mod admin;
mod admin_tls;
mod apis;
mod approvals;
mod attacks;
mod audit;
mod audit_trouble;
mod binding;
mod canary;
mod command_line;
mod crash;
mod demo;
mod doors;
mod dry_run;
mod egress;
mod exchange;
mod hostile_plugins;
mod ingest;
mod interleaved;
mod keys;
mod many_tools;
mod neighbours;
mod opa;
mod parcels;
mod plants;
mod plugin_hub;
mod plugin_registry;
mod plugin_samples;
mod plugin_sources;
mod plugins;
mod policies;
mod products;
mod profiles;
mod prometheus;
mod refusals;
mod replicas;
mod scrape;
mod secrets;
mod server;
mod sinks;
mod stdio;
mod tokens;
mod trainticket;
mod upstreams;
mod vault;
mod visitor;
mod wire;

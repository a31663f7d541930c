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

/// The figures of the benchmark of controls.
#[path = "../../benches/controls/costs/mod.rs"]
mod controls;

mod acme;
mod address_forms;
mod admin;
mod admin_tls;
mod apis;
mod approvals;
mod attacks;
mod audit;
mod audit_trouble;
mod binding;
mod bypass;
mod canary;
mod canary_outside;
mod command_line;
mod costs;
mod crash;
mod credentials;
mod cuts;
mod demo;
mod doors;
mod dry_run;
mod egress;
mod exchange;
mod explained;
mod hostile_plugins;
mod ingest;
mod interleaved;
mod keys;
mod lethal;
mod limits;
mod look_back;
mod looking;
mod many_tools;
mod neighbours;
mod opa;
mod parcels;
mod plants;
mod plugin_hub;
mod plugin_previews;
mod plugin_registry;
mod plugin_samples;
mod plugin_sandbox;
mod plugin_scaffold;
mod plugin_sources;
mod plugin_trust;
mod plugins;
mod policies;
mod products;
mod profiles;
mod prometheus;
mod promql;
mod proxies;
mod reach;
mod refusals;
mod refused_starts;
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

//! The normalised tools, one file each. Each answers one question over whatever sources are configured.
//!
//! Guards nothing by itself. A tool must not talk to a backend but through [`crate::Sources`].

mod find_metrics;
mod get_trace;
mod list_alerts;
mod list_services;
mod list_sources;
mod log_patterns;
mod query_logs;
mod query_metrics;
mod query_traces;
mod service_health;
mod sql;

pub(crate) use find_metrics::FindMetrics;
pub(crate) use get_trace::GetTrace;
pub(crate) use list_alerts::ListAlerts;
pub(crate) use list_services::ListServices;
pub(crate) use list_sources::ListSources;
pub(crate) use log_patterns::LogPatterns;
pub(crate) use query_logs::QueryLogs;
pub(crate) use query_metrics::QueryMetrics;
pub(crate) use query_traces::QueryTraces;
pub(crate) use service_health::ServiceHealth;
pub(crate) use sql::Sql;

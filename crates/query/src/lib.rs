//! Queries from types, and raw queries made safe. Guards two rules: text from outside never becomes syntax, and a raw
//! query never reads beyond the scope it is confined to. Must not send anything or know a backend's HTTP API.
//!
//! - [`promql`]: typed PromQL ([`promql::Selector`], [`promql::Expr`]) that renders to text.
//! - [`confine_promql`]: a raw PromQL query rewritten so that every selector in it is confined.
//! - [`logql`], [`traceql`], [`elasticsearch`]: the same for Loki, Tempo and Elasticsearch ([`confine_logql`],
//!   [`confine_traceql`], [`confine_elasticsearch`]).
//! - [`refuse_secret_labels`]: raw PromQL that would tell the value of a label whose name says it is a secret.
//! - [`promql_info`]: what a raw query asks for, or where it is wrong.
//! - [`sql_identifier`], [`sql_literal`], [`like_escape`]: quoting for SQL.

mod confine;
pub mod elasticsearch;
mod error;
mod info;
mod lexis;
mod locate;
pub mod logql;
mod parse;
pub mod promql;
mod reach;
mod render;
mod scan;
mod secret_labels;
mod sql;
mod text;
pub mod traceql;
mod words;

pub use confine::{Confinement, ScopeLabels, TimeLimits, confine_promql};
pub use elasticsearch::{SearchConfinement, SearchScope, confine_elasticsearch};
pub use error::{Language, QueryError};
pub use info::{PromqlInfo, PromqlType, promql_info};
pub use logql::{LogqlKind, confine_logql, logql_kind, logql_reach};
pub use reach::{Reach, promql_reach};
pub use scan::{MAX_NESTING, MAX_OPERATORS, MAX_QUERY_BYTES, MAX_REGEXES};
pub use secret_labels::{is_secret_label, refuse_secret_labels};
pub use sql::{like_escape, sql_identifier, sql_literal};
pub use text::{promql_string, regex_any_of, regex_escape};
pub use traceql::{TraceConfinement, TraceScope, TraceqlKind, confine_traceql, traceql_kind};

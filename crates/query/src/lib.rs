//! Queries from types, and raw queries made safe. Guards two rules: text from outside never becomes syntax, and a raw
//! query never reads beyond the scope it is confined to. Must not send anything or know a backend's HTTP API.
//!
//! - [`promql`]: typed PromQL ([`promql::Selector`], [`promql::Expr`]) that renders to text.
//! - [`confine_promql`]: a raw PromQL query rewritten so that every selector in it is confined.
//! - [`promql_info`]: what a raw query asks for, or where it is wrong.
//! - [`sql_identifier`], [`sql_literal`], [`like_escape`]: quoting for SQL.

mod confine;
mod error;
mod info;
mod locate;
mod parse;
pub mod promql;
mod reach;
mod render;
mod scan;
mod sql;
mod text;

pub use confine::{Confinement, ScopeLabels, TimeLimits, confine_promql};
pub use error::QueryError;
pub use info::{PromqlInfo, PromqlType, promql_info};
pub use reach::{Reach, promql_reach};
pub use scan::{MAX_NESTING, MAX_OPERATORS, MAX_QUERY_BYTES, MAX_REGEXES};
pub use sql::{like_escape, sql_identifier, sql_literal};
pub use text::{promql_string, regex_any_of, regex_escape};

//! LogQL: typed queries, and raw ones confined. Guards that a value is only ever a value, and that every stream selector of
//! a raw query carries the scope, at any depth. Must refuse what Loki's grammar does not have.

mod ast;
mod build;
mod confine;
mod lex;
mod parse;
mod render;

pub use build::{LogLines, LogMetric, LogSelector, Parser};
pub use confine::{LogqlKind, confine_logql, logql_kind, logql_reach};

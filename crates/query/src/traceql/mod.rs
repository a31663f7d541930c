//! TraceQL: typed queries, and raw ones confined. Guards that a value is only ever a value, and that every filter of spans
//! in a raw query carries the scope, at any depth, and no pipeline begins without one. Must refuse what Tempo's grammar does
//! not have.

mod ast;
mod build;
mod confine;
mod lex;
mod parse;
mod render;

pub use build::{AttributeName, AttributeScope, Comparison, SpanCondition, SpanQuery, SpanValue};
pub use confine::{TraceConfinement, TraceScope, TraceqlKind, confine_traceql, traceql_kind};
